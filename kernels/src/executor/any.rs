//! Whichever executor there is: what a node opens when its user names none.
//!
//! Invariant: what is chosen is told by [`AnyExecutor::info`]; software that only imitates a GPU is never
//! chosen unasked, because the cpu executor does the same work faster.

use peercompute_buffers::TileId;
use serde::{Deserialize, Serialize};

use crate::bundle::VerifiedBundle;
use crate::diagnose::ErrorKind;
use crate::executor::cpu::{Cpu, CpuOptions, CpuRun};
use crate::executor::gpu::{Gpu, GpuOptions, GpuRun, PassTime};
use crate::executor::{ExecutorError, ExecutorInfo, Layout, Piece, Placement, Run};
use crate::program::Program;

/// Which executor is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Choice {
    /// A hardware GPU if there is one, otherwise the cpu executor.
    #[default]
    Auto,
    /// The fastest kind of GPU adapter there is, one in software if there is no other.
    Gpu,
    /// The cpu executor.
    Cpu,
    /// A GPU adapter by a part of its name.
    Adapter(String),
}

impl From<String> for Choice {
    fn from(text: String) -> Choice {
        match text.as_str() {
            "auto" => Choice::Auto,
            "gpu" => Choice::Gpu,
            "cpu" => Choice::Cpu,
            _ => Choice::Adapter(text),
        }
    }
}

impl From<Choice> for String {
    fn from(choice: Choice) -> String {
        choice.to_string()
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Choice::Auto => "auto",
            Choice::Gpu => "gpu",
            Choice::Cpu => "cpu",
            Choice::Adapter(name) => name,
        })
    }
}

/// An open executor of any kind.
#[allow(clippy::large_enum_variant, reason = "an executor is opened once and never moved on a hot path")]
pub enum AnyExecutor {
    /// A GPU.
    Gpu(Gpu),
    /// The threads of this machine.
    Cpu(Cpu),
}

impl From<Gpu> for AnyExecutor {
    fn from(gpu: Gpu) -> AnyExecutor {
        AnyExecutor::Gpu(gpu)
    }
}

impl From<Cpu> for AnyExecutor {
    fn from(cpu: Cpu) -> AnyExecutor {
        AnyExecutor::Cpu(cpu)
    }
}

impl AnyExecutor {
    /// Opens what is wanted; of the two options that of the executor that is chosen counts. The adapter is
    /// `choice`'s, whatever `gpu` names.
    ///
    /// **Errors:** it is not there, with what is; or it does not open.
    pub async fn open(choice: &Choice, gpu: GpuOptions, cpu: CpuOptions) -> Result<AnyExecutor, ExecutorError> {
        let open = async |adapter: Option<&String>, is_hardware: bool| {
            Gpu::open(GpuOptions { adapter: adapter.cloned(), is_hardware, ..gpu.clone() }).await.map(AnyExecutor::Gpu)
        };
        match choice {
            Choice::Cpu => open_cpu(cpu).await,
            Choice::Gpu => open(None, false).await,
            Choice::Auto => match open(None, true).await {
                Err(ExecutorError::NoAdapter) => open_cpu(cpu).await,
                opened => opened,
            },
            Choice::Adapter(name) => open(Some(name), false).await.map_err(|error| match error {
                ExecutorError::NoSuchAdapter { wanted, mut available } => {
                    available.push("cpu".into());
                    ExecutorError::NoSuchAdapter { wanted, available }
                }
                error => error,
            }),
        }
    }

    /// What this is.
    pub fn info(&self) -> &ExecutorInfo {
        match self {
            AnyExecutor::Gpu(gpu) => gpu.info(),
            AnyExecutor::Cpu(cpu) => cpu.info(),
        }
    }

    /// Whether its device was lost: then it computes no more.
    pub fn is_lost(&self) -> bool {
        matches!(self, AnyExecutor::Gpu(gpu) if gpu.is_lost())
    }

    /// The largest page of an arena, in bytes.
    pub fn page_bytes_max(&self) -> u64 {
        match self {
            AnyExecutor::Gpu(gpu) => gpu.page_bytes_max(),
            AnyExecutor::Cpu(cpu) => cpu.page_bytes_max(),
        }
    }

    /// Makes a verified workload resident: memory for the tiles that `placement` gives this peer, and kernels.
    ///
    /// **Errors:** a limit (named), no memory, or a kernel that the executor's compiler refuses.
    pub async fn load(&self, bundle: &VerifiedBundle, placement: &Placement) -> Result<AnyRun<'_>, ExecutorError> {
        match self {
            AnyExecutor::Gpu(gpu) => gpu.load(bundle, placement).await.map(AnyRun::Gpu),
            AnyExecutor::Cpu(cpu) => cpu.load(bundle, placement).await.map(AnyRun::Cpu),
        }
    }

    /// The same in place of a run, which is gone then: some executors use its memory again.
    ///
    /// **Errors:** those of [`AnyExecutor::load`].
    pub async fn reload<'a>(&'a self, run: AnyRun<'a>, bundle: &VerifiedBundle, placement: &Placement) -> Result<AnyRun<'a>, ExecutorError> {
        match (self, run) {
            (AnyExecutor::Cpu(cpu), AnyRun::Cpu(run)) => cpu.reload(run, bundle, placement).await.map(AnyRun::Cpu),
            (_, run) => {
                drop(run);
                self.load(bundle, placement).await
            }
        }
    }

    /// Waits until every kernel that was loaded runs as it will from then on: what is measured before may begin slower.
    pub fn finish_compiling(&self) {
        if let AnyExecutor::Cpu(cpu) = self {
            cpu.finish_compiling();
        }
    }

    /// Where a program's tiles would lie, without making them resident.
    ///
    /// **Errors:** they do not fit the executor's pages.
    pub fn layout(&self, program: &Program, placement: &Placement) -> Result<Layout, ExecutorError> {
        match self {
            AnyExecutor::Gpu(gpu) => gpu.layout(program, placement),
            AnyExecutor::Cpu(cpu) => cpu.layout(program, placement),
        }
    }

    /// Holds a program against the executor's limits.
    ///
    /// **Errors:** [`ErrorKind::Limit`] with what is needed and the limit's name.
    pub fn check_limits(&self, program: &Program) -> Result<(), ErrorKind> {
        match self {
            AnyExecutor::Gpu(gpu) => gpu.check_limits(program),
            AnyExecutor::Cpu(cpu) => cpu.check_limits(program),
        }
    }
}

async fn open_cpu(options: CpuOptions) -> Result<AnyExecutor, ExecutorError> {
    #[cfg(target_arch = "wasm32")]
    super::rest::load().await?;
    Cpu::open(options).map(AnyExecutor::Cpu)
}

/// A program resident on an [`AnyExecutor`].
#[allow(clippy::large_enum_variant, reason = "a run is made once and never moved on a hot path")]
pub enum AnyRun<'a> {
    /// On a GPU.
    Gpu(GpuRun<'a>),
    /// On this machine's threads.
    Cpu(CpuRun),
}

impl AnyRun<'_> {
    /// How long each pass has taken on the device, by pass; `None` where passes are not timed.
    pub fn pass_times(&self) -> Option<&[PassTime]> {
        match self {
            AnyRun::Gpu(run) => run.pass_times(),
            AnyRun::Cpu(_) => None,
        }
    }
}

/// The same call on whichever run it is.
macro_rules! on {
    ($run:expr, $inner:ident => $call:expr) => {
        match $run {
            AnyRun::Gpu($inner) => $call,
            AnyRun::Cpu($inner) => $call,
        }
    };
}

impl Run for AnyRun<'_> {
    fn layout(&self) -> &Layout {
        on!(self, run => run.layout())
    }

    async fn pass(&mut self, pass: usize, tick: u64) -> Result<(), ExecutorError> {
        on!(self, run => run.pass(pass, tick).await)
    }

    fn pack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        on!(self, run => run.pack(exchange))
    }

    async fn outbox(&mut self, exchange: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), ExecutorError> {
        on!(self, run => run.outbox(exchange, take).await)
    }

    fn inbox(&mut self, exchange: usize, peer: usize, bytes: &[u8]) {
        on!(self, run => run.inbox(exchange, peer, bytes))
    }

    async fn unpack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        on!(self, run => run.unpack(exchange).await)
    }

    async fn reship(&mut self, placement: &Placement) -> Result<bool, ExecutorError> {
        on!(self, run => run.reship(placement).await)
    }

    fn set_params(&mut self, bytes: &[u8]) {
        on!(self, run => run.set_params(bytes))
    }

    fn write_tile(&mut self, buffer: usize, tile: TileId, bytes: &[u8]) {
        on!(self, run => run.write_tile(buffer, tile, bytes))
    }

    fn write_table(&mut self, buffer: usize, bytes: &[u8]) {
        on!(self, run => run.write_table(buffer, bytes))
    }

    fn piece_bytes(&self, piece: Piece) -> usize {
        on!(self, run => run.piece_bytes(piece))
    }

    async fn read(&mut self, pieces: &[Piece], into: &mut [u8]) -> Result<(), ExecutorError> {
        on!(self, run => run.read(pieces, into).await)
    }

    fn flush(&mut self) -> Result<(), ExecutorError> {
        on!(self, run => run.flush())
    }

    async fn keep_up(&mut self) -> Result<(), ExecutorError> {
        on!(self, run => run.keep_up().await)
    }

    async fn finish(&mut self) -> Result<(), ExecutorError> {
        on!(self, run => run.finish().await)
    }

    fn memory_bytes(&self) -> u64 {
        on!(self, run => run.memory_bytes())
    }
}
