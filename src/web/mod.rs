//! PeerCompute in a browser: what JavaScript sees.
//!
//! ```text
//! Executor.open("auto")  ─► an executor: WebGPU, or the cpu executor over the browser's own WebAssembly
//! executor.load(bundle, key) ─► Workload ─ advance(ticks) ─ read("temperature") ─ stateHash()
//! Member.join(executor, link, …)    ─► this worker as a member of a run: status(), read(buffer, tile), leave()
//! ```
//!
//! For a dedicated worker: kernels are compiled, and on the cpu executor run, without giving the thread back, which a
//! page must not do. Invariant: nothing runs that is not signed by the key that the page pins.

mod fault;
mod member;
mod pace;
mod wire;

use std::time::Duration;

use js_sys::{Reflect, Uint8Array};
use peercompute_buffers::digest::StateDigest;
use peercompute_kernels::declaration::GridDeclaration;
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun, Choice};
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::cpu::machine::team::open_team;
use peercompute_kernels::executor::gpu::GpuOptions;
use peercompute_kernels::executor::{Borders, ExecutorError, Placement, Run, mesh};
use peercompute_kernels::{PublicKey, Trust, VerifiedBundle};
use wasm_bindgen::prelude::*;

use crate::state;
use fault::Fault;
use pace::Pace;

/// Tells panics to the console.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// Threads that the machine runs at once.
fn threads_here() -> usize {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into());
    let threads = navigator.and_then(|navigator| Reflect::get(&navigator, &"hardwareConcurrency".into()));
    threads.ok().and_then(|threads| threads.as_f64()).map_or(1, |threads| threads as usize)
}

/// What runs kernels. It lives as long as its worker.
#[wasm_bindgen]
#[derive(Clone, Copy)]
pub struct Executor {
    inner: &'static AnyExecutor,
}

#[wasm_bindgen]
impl Executor {
    /// Opens `"auto"`: WebGPU on hardware if there is any, otherwise the cpu; `"gpu"`; `"cpu"`; `"interpreter"`, which is
    /// the cpu without machine code; or a GPU adapter by a part of its name.
    ///
    /// On the cpu one dispatch may take `time_limit_seconds`, 60 unless given. `threads` workers share it out, as many as
    /// the machine runs at once unless given; in a page that is not cross-origin isolated it is this worker alone.
    ///
    /// `page_bytes_max` is a largest binding below the adapter's, and `are_borders_apart` whether tiles' borders are
    /// dispatched apart from their interiors, as suits the executor unless given: bits are the same, times are not.
    ///
    /// **Errors:** it is not there, or the limit is not a time.
    pub async fn open(
        wanted: String,
        time_limit_seconds: Option<f64>,
        threads: Option<u32>,
        page_bytes_max: Option<f64>,
        are_borders_apart: Option<bool>,
    ) -> Result<Executor, Fault> {
        let is_interpreted = wanted == "interpreter";
        let choice = if is_interpreted { Choice::Cpu } else { Choice::from(wanted) };
        let time_limit = time_limit_seconds.map(Duration::try_from_secs_f64).transpose();
        let time_limit = time_limit.map_err(|error| Fault::option(format!("`time_limit_seconds`: {error}")))?;
        let threads = threads.map_or_else(threads_here, |threads| threads as usize);
        let page_bytes_max = page_bytes_max.map(|bytes| bytes as u64);
        let borders = are_borders_apart.map(|are_apart| if are_apart { Borders::Apart } else { Borders::InPlace });
        let gpu = GpuOptions { page_bytes_max, borders, ..GpuOptions::default() };
        let cpu = CpuOptions { is_interpreted, time_limit, threads: Some(threads), page_bytes_max, borders, ..CpuOptions::default() };
        let mut inner = AnyExecutor::open(&choice, gpu, cpu.clone()).await?;
        // Workers are started for nobody who found a GPU.
        if matches!(inner, AnyExecutor::Cpu(_)) && !is_interpreted && threads > 1 {
            open_team(threads_here().max(threads)).await.map_err(|cause| Fault::new("executor", cause))?;
            inner = AnyExecutor::open(&Choice::Cpu, GpuOptions::default(), cpu).await?;
        }
        Ok(Executor { inner: Box::leak(Box::new(inner)) })
    }

    /// `"gpu"` or `"cpu"`.
    #[wasm_bindgen(getter)]
    pub fn executor(&self) -> String {
        self.inner.info().executor.into()
    }

    /// The adapter, for people.
    #[wasm_bindgen(getter)]
    pub fn adapter(&self) -> String {
        self.inner.info().adapter.clone()
    }

    /// Whether its device was lost: then it computes no more, and another has to be opened.
    #[wasm_bindgen(getter, js_name = isLost)]
    pub fn is_lost(&self) -> bool {
        self.inner.is_lost()
    }

    /// Whether the adapter computes in software: then only ratios mean anything.
    #[wasm_bindgen(getter, js_name = isSoftware)]
    pub fn is_software(&self) -> bool {
        self.inner.info().is_software
    }

    /// What drives it.
    #[wasm_bindgen(getter)]
    pub fn backend(&self) -> String {
        self.inner.info().backend.clone()
    }

    /// Makes a workload resident and runs its init: `bundle` is a signed one, `key` the public key that must have signed it.
    /// `peers`, one unless given, share it out within this worker, and exchange what they would exchange over a network: to
    /// see what a partition costs.
    ///
    /// **Errors:** the signature, a limit, or a kernel that the executor refuses.
    pub async fn load(&self, bundle: Vec<u8>, key: String, peers: Option<u16>) -> Result<Workload, Fault> {
        let key: PublicKey = key.parse()?;
        let bundle = VerifiedBundle::verify_signature(&bundle, &Trust::key(key))?;
        let count = usize::from(peers.unwrap_or(1).max(1));
        let mut peers = Vec::new();
        for me in 0..count {
            // Tile by tile in turn, so that every tile has its neighbours elsewhere.
            let owners = |grid: &GridDeclaration| (0..grid.grid.tile_count() as usize).map(|tile| tile % count).collect();
            let owners = bundle.program().manifest.grids.iter().map(owners).collect();
            peers.push(self.inner.load(&bundle, &Placement::new(me, count, owners)).await?);
        }
        let mut workload = Workload { bundle, peers, tick: 0, pace: Pace::default() };
        workload.init().await?;
        Ok(workload)
    }
}

/// A workload resident on an executor.
#[wasm_bindgen]
pub struct Workload {
    bundle: VerifiedBundle,
    peers: Vec<AnyRun<'static>>,
    tick: u64,
    pace: Pace,
}

impl Workload {
    async fn init(&mut self) -> Result<(), ExecutorError> {
        let program = self.bundle.program();
        mesh::advance(program, &mut self.peers, &program.init, 0).await?;
        self.finish().await
    }

    async fn finish(&mut self) -> Result<(), ExecutorError> {
        for peer in &mut self.peers {
            peer.finish().await?;
        }
        Ok(())
    }
}

#[wasm_bindgen]
impl Workload {
    /// What it is called.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.bundle.program().manifest.name.clone()
    }

    /// Ticks done.
    #[wasm_bindgen(getter)]
    pub fn tick(&self) -> f64 {
        self.tick as f64
    }

    /// Elements that a tick computes.
    #[wasm_bindgen(getter, js_name = elementsPerTick)]
    pub fn elements_per_tick(&self) -> f64 {
        self.bundle.program().elements_per_tick() as f64
    }

    /// Runs `ticks` ticks, and returns when they are done.
    ///
    /// **Errors:** the executor's.
    pub async fn advance(&mut self, ticks: u32) -> Result<(), Fault> {
        let end = self.tick + u64::from(ticks);
        while self.tick < end {
            let until = end.min(self.tick + self.pace.ticks());
            let begun = self.pace.begin();
            let program = self.bundle.program();
            for tick in self.tick..until {
                mesh::advance(program, &mut self.peers, program.tick(tick), tick).await?;
            }
            self.tick = until;
            if until < end {
                for peer in &mut self.peers {
                    peer.keep_up().await?;
                }
                self.pace.end(begun);
            }
        }
        Ok(self.finish().await?)
    }

    /// A whole buffer, in row-major order.
    ///
    /// **Errors:** there is none of that name, or the executor's.
    pub async fn read(&mut self, buffer: String) -> Result<Uint8Array, Fault> {
        let program = self.bundle.program();
        let number = program.buffer(&buffer).ok_or_else(|| Fault::option(format!("no buffer is called `{buffer}`")))?;
        let mut whole = Vec::new();
        for peer in &mut self.peers {
            state::gather(program, peer, number, &mut whole).await?;
        }
        Ok(Uint8Array::from(&whole[..]))
    }

    /// The hash of the whole state, the same on every executor that computes the same.
    ///
    /// **Errors:** the executor's.
    #[wasm_bindgen(js_name = stateHash)]
    pub async fn state_hash(&mut self) -> Result<String, Fault> {
        let program = self.bundle.program();
        let mut sums: Vec<StateDigest> = Vec::new();
        for peer in &mut self.peers {
            let digests = state::digests(program, peer).await?;
            sums.resize(digests.len(), StateDigest::default());
            for (buffer, digest) in digests.into_iter().enumerate() {
                // Peers own different tiles of a field, and all of a table.
                match program.grid_of(buffer) {
                    Some(_) => sums[buffer].add(digest),
                    None => sums[buffer] = digest,
                }
            }
        }
        Ok(state::hash(program, &sums))
    }
}
