//! Executors against each other, and what only the cpu executor promises.

use std::time::Duration;

use peercompute_buffers::TileId;
use peercompute_kernels::Program;
use peercompute_kernels::declaration::Class;
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::executor::{Borders, ExecutorError, Piece, Placement, Run, mesh};
use pollster::block_on;

use crate::cases::{Kind, bundle_of, load};
use crate::executors::{open, run};
use crate::{oracle, workloads};

fn cpu(threads: usize) -> AnyExecutor {
    AnyExecutor::Cpu(Cpu::open(CpuOptions { threads: Some(threads), compile_wait: Some(Duration::MAX), ..CpuOptions::default() }).unwrap())
}

#[test]
fn exact_workloads_have_one_state_on_every_executor() {
    let (gpu, cpu) = (open(Kind::Gpu, Borders::Apart, None), cpu(2));
    let mut seen = 0;
    for (name, folder) in oracle::WORKLOADS {
        for (shape, tile) in workloads::shapes(folder) {
            let bundle = load(folder, &shape, &tile);
            if bundle.program().manifest.class == Class::Exact {
                assert_eq!(run(&cpu, &bundle, 1, 9).hash, run(&gpu, &bundle, 1, 9).hash, "{name} {shape:?}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 8);
}

#[test]
fn threads_change_no_bit() {
    let (alone, many) = (cpu(1), [cpu(2), cpu(3)]);
    for (name, folder) in oracle::WORKLOADS {
        let (shape, tile) = workloads::shapes(folder).pop().unwrap();
        let bundle = load(folder, &shape, &tile);
        let want = run(&alone, &bundle, 1, 5);
        for threads in &many {
            assert_eq!(run(threads, &bundle, 1, 5).hash, want.hash, "{name} on {}", threads.info().adapter);
        }
    }
}

#[test]
fn machine_code_and_interpreter_agree() {
    let (compiled, interpreted) = (open(Kind::Cpu, Borders::Apart, None), open(Kind::Interpreted, Borders::Apart, None));
    for (name, folder) in oracle::WORKLOADS {
        let (shape, tile) = workloads::shapes(folder).swap_remove(1);
        let bundle = load(folder, &shape, &tile);
        assert_eq!(run(&compiled, &bundle, 1, 4).hash, run(&interpreted, &bundle, 1, 4).hash, "{name}");
    }
}

/// What a run holds of every buffer.
async fn contents(program: &Program, run: &mut AnyRun<'_>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for buffer in 0..program.manifest.buffers.len() {
        match program.grid_of(buffer) {
            Some(grid) => {
                for tile in 0..grid.tile_count() {
                    all.push(run.read_tile(buffer, TileId(tile)).await.unwrap());
                }
            }
            None => all.push(run.read_table(buffer).await.unwrap()),
        }
    }
    all
}

/// Together they are more than what is read of a device at a time.
#[test]
fn pieces_read_at_once_are_those_read_one_by_one() {
    for kind in [Kind::Gpu, Kind::Cpu] {
        let (executor, bundle) = (open(kind, Borders::Apart, None), load("shaders/physics/heat", &[4096, 1536], &[512, 512]));
        let program = bundle.program();
        let mut runs = [block_on(executor.load(&bundle, &Placement::alone(program))).unwrap()];
        block_on(mesh::run(program, &mut runs, 0..1)).unwrap();
        let pieces: Vec<Piece> = (0..program.manifest.buffers.len())
            .flat_map(|buffer| match program.grid_of(buffer) {
                Some(grid) => (0..grid.tile_count()).map(|tile| Piece::Tile(buffer, TileId(tile))).collect(),
                None => vec![Piece::Table(buffer)],
            })
            .collect();
        let one_by_one = block_on(contents(program, &mut runs[0])).concat();
        assert!(one_by_one.len() >= 24 << 20 && one_by_one.iter().any(|byte| *byte != 0));
        let mut at_once = vec![0; pieces.iter().map(|piece| runs[0].piece_bytes(*piece)).sum()];
        block_on(runs[0].read(&pieces, &mut at_once)).unwrap();
        assert!(at_once == one_by_one, "{kind:?}");
    }
}

/// Whatever the moment at which machine code comes, in the middle of a dispatch or between two.
#[test]
fn kernels_that_begin_interpreted_go_on_as_machine_code() {
    let interpreted = open(Kind::Interpreted, Borders::Apart, None);
    let mut changed = 0;
    for (name, folder) in oracle::WORKLOADS {
        let (shape, tile) = workloads::shapes(folder).swap_remove(1);
        let bundle = load(folder, &shape, &tile);
        let open = |wait| Cpu::open(CpuOptions { threads: Some(2), compile_wait: Some(wait), ..CpuOptions::default() }).unwrap();
        let (program, alone) = (bundle.program(), Placement::alone(bundle.program()));
        let (compiled, begun) = (open(Duration::MAX), open(Duration::ZERO));
        block_on(compiled.load(&bundle, &alone)).unwrap();
        let mut runs = [AnyRun::Cpu(block_on(begun.load(&bundle, &alone)).unwrap()), block_on(interpreted.load(&bundle, &alone)).unwrap()];
        // But for what is interpreted for good.
        let is_there = || begun.interpreted().len() == compiled.interpreted().len();
        let was_there = is_there();
        let (mut ticks, mut left) = (0, 3);
        while left > 0 {
            for run in &mut runs {
                block_on(mesh::run(program, std::slice::from_mut(run), ticks..ticks + 1)).unwrap();
            }
            let [ours, theirs] = runs.each_mut().map(|run| block_on(contents(program, run)));
            assert!(ours == theirs, "{name}, tick {ticks}");
            ticks += 1;
            // Then a few with machine code alone.
            left -= u32::from(is_there());
        }
        changed += u32::from(!was_there && ticks > 3);
    }
    assert!(changed > 0 || !cfg!(feature = "jit"), "machine code was always there at once: nothing was tested");
}

const SLOW: &str = r#"
name = "slow"
version = "0.1.0"
class = "exact"
grid = { shape = [64, 64], tile = [32, 32] }
[buffers.v]
element = "u32"
[params]
rounds = 1
[[passes]]
kernel = "k.wgsl"
entry = "spin"
writes = ["v"]
"#;

const SLOW_WGSL: &str = "
struct Params { rounds: u32 }
var<uniform> params: Params;
var<storage, read_write> v_next: array<u32>;
@compute @workgroup_size(8, 8) fn spin(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var x = c.coord.x;
    for (var i = 0u; i < params.rounds; i++) { x = x * 747796405u + 2891336453u; }
    v_next[c.index] = x;
}";

#[test]
fn a_dispatch_that_outlasts_its_limit_ends_its_run_alone() {
    for (threads, is_interpreted) in [(1, false), (2, false), (1, true), (2, true)] {
        let time_limit = Some(Duration::from_millis(200));
        let compile_wait = Some(Duration::MAX);
        let options = CpuOptions { threads: Some(threads), time_limit, is_interpreted, compile_wait, ..CpuOptions::default() };
        let cpu = Cpu::open(options).unwrap();
        let bundle = bundle_of(SLOW, SLOW_WGSL);
        let alone = Placement::alone(bundle.program());
        let load = || block_on(cpu.load(&bundle, &alone)).unwrap();
        let (mut slow, mut other) = (load(), load());
        block_on(other.pass(0, 0)).unwrap();
        block_on(slow.pass(0, 0)).unwrap();
        slow.set_params(&u32::MAX.to_le_bytes());
        let is_timed_out = |outcome: Result<(), ExecutorError>| matches!(outcome, Err(ExecutorError::TimedOut { entry, .. }) if entry == "spin");
        assert!(is_timed_out(block_on(slow.pass(0, 1))));
        assert!(is_timed_out(block_on(slow.pass(0, 2))) && is_timed_out(slow.flush()) && is_timed_out(block_on(slow.finish())));
        assert!(block_on(slow.read_tile(0, TileId(0))).is_err());
        block_on(other.pass(0, 1)).unwrap();
        let tile = block_on(other.read_tile(0, TileId(0))).unwrap();
        assert_eq!(tile[..8], [2_891_336_453u32.to_le_bytes(), 747_796_405u32.wrapping_add(2_891_336_453).to_le_bytes()].concat());
        drop(slow);
        block_on(load().pass(0, 0)).unwrap();
    }
}

#[test]
fn what_is_on_its_way_can_be_waited_for() {
    let bundle = bundle_of(SLOW, SLOW_WGSL);
    let open = |is_interpreted| Cpu::open(CpuOptions { compile_wait: Some(Duration::ZERO), is_interpreted, ..CpuOptions::default() }).unwrap();
    for (cpu, stays) in [(open(false), !cfg!(feature = "jit")), (open(true), true)] {
        let mut run = block_on(cpu.load(&bundle, &Placement::alone(bundle.program()))).unwrap();
        cpu.finish_compiling();
        block_on(run.pass(0, 0)).unwrap();
        assert_eq!(cpu.interpreted(), if stays { vec!["spin"] } else { Vec::new() });
    }
}

#[test]
fn memory_is_counted_and_limited() {
    let bundle = bundle_of(SLOW, SLOW_WGSL);
    let alone = Placement::alone(bundle.program());
    let open = |memory_bytes_max, wait| {
        Cpu::open(CpuOptions { memory_bytes_max, threads: Some(1), compile_wait: Some(wait), ..CpuOptions::default() }).unwrap()
    };
    let cpu = open(None, Duration::MAX);
    let bytes = block_on(cpu.load(&bundle, &alone)).unwrap().memory_bytes();
    // The field, a tile table of four rows, what a thread needs, and little else.
    assert!((64 * 64 * 4..64 * 64 * 4 + 8192).contains(&bytes), "{bytes}");
    assert!(block_on(open(Some(bytes), Duration::MAX).load(&bundle, &alone)).is_ok());
    // There is no room for the interpreter, which would begin: machine code has to be waited for.
    assert!(block_on(open(Some(bytes), Duration::ZERO).load(&bundle, &alone)).is_ok());
    match block_on(open(Some(bytes - 1), Duration::ZERO).load(&bundle, &alone)).err().unwrap() {
        ExecutorError::Limit { cause, .. } => assert!(cause.to_string().contains("memory_bytes_max"), "{cause}"),
        other => panic!("{other}"),
    }
}
