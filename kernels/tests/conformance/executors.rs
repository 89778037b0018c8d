//! The executors that the suite runs on, and runs of workloads on them.

use std::path::Path;

use peercompute_buffers::TileId;
use peercompute_buffers::digest::{StateDigest, StateHasher, hex};
use peercompute_buffers::transfer::field_from_tile;
use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::executor::any::{AnyExecutor, Choice};
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::gpu::GpuOptions;
use peercompute_kernels::executor::{Borders, Placement, Run, mesh};
use peercompute_kernels::manifest::Sources;
use peercompute_kernels::{Manifest, Overrides, Program, SecretKey, Trust, VerifiedBundle, bundle};
use pollster::block_on;

/// An executor of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Gpu,
    /// As machine code where it can, with two threads, so that a dispatch is shared out.
    Cpu,
    /// The same, interpreted: slow in the profile that tests are built in, so it gets small grids and few ticks.
    Interpreted,
}

pub(crate) fn open(kind: Kind, borders: Borders, page_bytes_max: Option<u64>) -> AnyExecutor {
    let gpu = GpuOptions { borders: Some(borders), page_bytes_max, ..GpuOptions::default() };
    let is_interpreted = kind == Kind::Interpreted;
    let cpu = CpuOptions { borders: Some(borders), page_bytes_max, threads: Some(2), is_interpreted, ..CpuOptions::default() };
    let choice = match kind {
        Kind::Gpu => Choice::Gpu,
        Kind::Cpu | Kind::Interpreted => Choice::Cpu,
    };
    block_on(AnyExecutor::open(&choice, gpu, cpu)).unwrap()
}

/// A workload of the repository with another shape and other tiles.
pub(crate) fn load(folder: &str, shape: &[u32], tile: &[u32]) -> VerifiedBundle {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
    signed(&Manifest::from_folder(&root.join(folder), &overrides).unwrap_or_else(|e| panic!("{folder}: {e}")))
}

/// A workload of one kernel file, `k.wgsl`.
pub(crate) fn bundle_of(toml: &str, wgsl: &str) -> VerifiedBundle {
    let declaration = Declaration::parse(toml, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    let sources = Sources::from([("k.wgsl".to_string(), wgsl.to_string())]);
    signed(&Manifest::new(&declaration, &sources).unwrap_or_else(|e| panic!("{e}")))
}

fn signed(manifest: &Manifest) -> VerifiedBundle {
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::verify(&bundle::sign(manifest, &key), &Trust::key(key.public())).unwrap_or_else(|e| panic!("{e}"))
}

/// Who owns a tile: scattered on purpose, so that every tile has neighbours elsewhere.
fn owner(tile: usize, peers: usize) -> usize {
    (tile * 7 + tile / 3) % peers
}

pub(crate) fn placement(program: &Program, me: usize, peers: usize) -> Placement {
    let owners = program.manifest.grids.iter().map(|g| (0..g.grid.tile_count() as usize).map(|tile| owner(tile, peers)).collect()).collect();
    Placement { me, peers, owners }
}

/// What a run came to.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    /// Every buffer's name and bytes, in row-major order.
    pub(crate) buffers: Vec<(String, Vec<u8>)>,
    /// The state hash.
    pub(crate) hash: String,
}

impl State {
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.buffers.iter().find(|(n, _)| n == name).unwrap().1
    }

    pub(crate) fn words(&self, name: &str) -> Vec<u32> {
        self.bytes(name).chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
    }
}

/// The state after `ticks` ticks on `peers` peers.
pub(crate) fn run(executor: &AnyExecutor, bundle: &VerifiedBundle, peers: usize, ticks: u64) -> State {
    block_on(async {
        let program = bundle.program();
        let mut runs = Vec::new();
        for me in 0..peers {
            runs.push(executor.load(bundle, &placement(program, me, peers)).await.unwrap());
        }
        mesh::run(program, &mut runs, 0..ticks).await.unwrap();
        let mut state = State { buffers: Vec::new(), hash: String::new() };
        let mut hasher = StateHasher::default();
        for (index, declared) in program.manifest.buffers.iter().enumerate() {
            let element = &program.elements[index];
            let mut digest = StateDigest::default();
            let (shape, bytes) = match program.grid_of(index) {
                Some(grid) => {
                    let mut field = vec![0; grid.points() as usize * element.stride as usize];
                    for tile in 0..grid.tile_count() {
                        let bytes = runs[owner(tile as usize, peers)].read_tile(index, TileId(tile)).await.unwrap();
                        digest.add(StateDigest::of_tile(&grid, TileId(tile), element, &bytes));
                        field_from_tile(&grid, TileId(tile), element.stride as usize, &bytes, &mut field);
                    }
                    (grid.shape, field)
                }
                None => {
                    let table = runs[0].read_table(index).await.unwrap();
                    for run in &mut runs[1..] {
                        assert_eq!(run.read_table(index).await.unwrap(), table, "peers disagree on `{}`", declared.name);
                    }
                    digest.add(StateDigest::of_table(element, &table));
                    ([table.len() as u32 / element.stride, 1, 1], table)
                }
            };
            hasher.buffer(&declared.name, shape, element, digest);
            state.buffers.push((declared.name.clone(), bytes));
        }
        state.hash = hex(&hasher.finish());
        state
    })
}
