//! The executors of this machine that the suite runs on, and runs of workloads on them.

use std::time::Duration;

use peercompute_buffers::TileId;
use peercompute_buffers::digest::{StateDigest, StateHasher, hex};
use peercompute_buffers::transfer::field_from_tile;
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun, Choice};
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::gpu::GpuOptions;
use peercompute_kernels::executor::{Borders, Placement, Run, mesh};
use peercompute_kernels::{Program, VerifiedBundle};
use pollster::block_on;

use crate::cases::{Kind, State};

pub(crate) fn open(kind: Kind, borders: Borders, page_bytes_max: Option<u64>) -> AnyExecutor {
    let gpu = GpuOptions { borders: Some(borders), page_bytes_max, ..GpuOptions::default() };
    let is_interpreted = kind == Kind::Interpreted;
    let compile_wait = Some(Duration::MAX);
    let cpu = CpuOptions { borders: Some(borders), page_bytes_max, threads: Some(2), is_interpreted, compile_wait, ..CpuOptions::default() };
    let choice = match kind {
        Kind::Gpu => Choice::Gpu,
        Kind::Cpu | Kind::Interpreted => Choice::Cpu,
    };
    block_on(AnyExecutor::open(&choice, gpu, cpu)).unwrap()
}

/// Who owns a tile: scattered on purpose, so that every tile has neighbours elsewhere.
fn owner(tile: usize, peers: usize) -> usize {
    (tile * 7 + tile / 3) % peers
}

pub(crate) fn placement(program: &Program, me: usize, peers: usize) -> Placement {
    let owners = program.manifest.grids.iter().map(|g| (0..g.grid.tile_count() as usize).map(|tile| owner(tile, peers)).collect()).collect();
    Placement::new(me, peers, owners)
}

/// The same with one more peer, which owns nothing and computes every third tile in its owner's shadow.
fn shadowed(program: &Program, me: usize, peers: usize) -> Placement {
    let Placement { owners, .. } = placement(program, me, peers);
    let shadow = |(tile, owner): (usize, &usize)| if tile % 3 == 1 { peers } else { *owner };
    let shadows = owners.iter().map(|tiles| tiles.iter().enumerate().map(shadow).collect()).collect();
    Placement { shadows, ..Placement::new(me, peers + 1, owners) }
}

/// One more peer shadows some tiles of these from the next tick on; the others keep what they computed.
async fn add_shadow<'a>(executor: &'a AnyExecutor, bundle: &VerifiedBundle, runs: &mut Vec<AnyRun<'a>>) {
    let (program, peers) = (bundle.program(), runs.len());
    let mut shadow = executor.load(bundle, &shadowed(program, peers, peers)).await.unwrap();
    for (index, declared) in program.manifest.buffers.iter().enumerate() {
        let Some(grid) = program.grid_of(index) else {
            shadow.write_table(index, &runs[0].read_table(index).await.unwrap());
            continue;
        };
        for tile in (0..grid.tile_count()).filter(|tile| tile % 3 == 1) {
            let bytes = runs[owner(tile as usize, peers)].read_tile(index, TileId(tile)).await.unwrap();
            assert!(!bytes.is_empty(), "tile {tile} of `{}`", declared.name);
            shadow.write_tile(index, TileId(tile), &bytes);
        }
    }
    for (me, run) in runs.iter_mut().enumerate() {
        let memory = run.memory_bytes();
        assert!(run.reship(&shadowed(program, me, peers)).await.unwrap(), "the tiles are the same");
        let other = placement(program, (me + 1) % peers, peers);
        let is_same = (0..other.owners.len()).all(|grid| other.computed_by(grid, other.me) == other.computed_by(grid, me));
        assert!(is_same || !run.reship(&other).await.unwrap(), "the tiles are others");
        assert!(run.memory_bytes().abs_diff(memory) < memory, "what was there before is gone");
    }
    runs.push(shadow);
}

/// The state after `ticks` ticks on `peers` peers; where they are several, one more shadows some of their tiles in the second half.
pub(crate) fn run(executor: &AnyExecutor, bundle: &VerifiedBundle, peers: usize, ticks: u64) -> State {
    block_on(async {
        let program = bundle.program();
        let mut runs = Vec::new();
        for me in 0..peers {
            runs.push(executor.load(bundle, &placement(program, me, peers)).await.unwrap());
        }
        let alone = if peers > 1 { ticks / 2 } else { ticks };
        mesh::run(program, &mut runs, 0..alone).await.unwrap();
        if peers > 1 {
            add_shadow(executor, bundle, &mut runs).await;
        }
        // An epoch's first tick takes the steps of a first tick.
        for tick in alone..ticks {
            mesh::advance(program, &mut runs, program.tick(tick - alone), tick).await.unwrap();
        }
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
                        if peers > 1 && tile % 3 == 1 {
                            let shadow = runs[peers].read_tile(index, TileId(tile)).await.unwrap();
                            assert_eq!(shadow, bytes, "tile {tile} of `{}` is another in its shadow", declared.name);
                        }
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

/// Why an executor does not take a workload, if it does not.
pub(crate) fn refusal(kind: Kind, page_bytes_max: Option<u64>, bundle: &VerifiedBundle) -> Option<String> {
    let executor = open(kind, Borders::InPlace, page_bytes_max);
    block_on(executor.load(bundle, &Placement::alone(bundle.program()))).err().map(|error| error.to_string())
}
