//! The cpu executor against every adapter of this machine, against hand-written Rust, and against itself interpreted.
//!
//! ```text
//! a case: one signed workload ─► cpu as machine code, cpu interpreted, every adapter ─┐
//!         its twin in Rust ────────────────────────────────────────────────────────────┴─► agree? ─► timed in turn
//! ```
//!
//! All sides of a case are resident at once and take a turn in every round, so each ratio is of one round.
//! Invariant: no figure before all sides have computed what the twin has. Targets hold for adapters in
//! software, which take this machine's threads too; against a hardware GPU the figure is only told.

pub(crate) mod cases;

use std::time::Duration;

use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::executor::gpu::{Gpu, GpuOptions};
use peercompute_kernels::executor::{ExecutorError, ExecutorInfo, Placement};
use pollster::block_on;
use rayon::ThreadPool;

use crate::kernels::{Alone, agree, workload};
use crate::report::{Figure, Kind};
use crate::rounds::{self, Rounds, Side, Turns};
use crate::twin::cpu;
use crate::{Bench, BenchError, BenchOptions, Effort};
use cases::{Case, Output};

/// What of machine code's speed the interpreter must keep.
const INTERPRETER_TARGET: f64 = 0.25;
/// What loading may take for each kernel of a workload, on one thread, and what each may take to become machine code.
const LOAD_SECONDS: f64 = 0.010;
/// How long between two looks whether a kernel is machine code.
const LOOK: Duration = Duration::from_micros(100);
/// Ticks after which all sides are compared.
const COMPARED_TICKS: u32 = 3;

/// The sides of every case but the twin, and the threads that the twin has.
struct Machine {
    /// Machine code where it can be had.
    cpu: AnyExecutor,
    /// Nothing where the cpu executor is interpreted anyway.
    interpreted: Option<AnyExecutor>,
    adapters: Vec<AnyExecutor>,
    pool: ThreadPool,
}

impl Machine {
    fn open(adapter: Option<&str>) -> Result<Machine, BenchError> {
        let threads = threads_here();
        // What is timed begins as machine code.
        let cpu = Cpu::open(CpuOptions { threads: Some(threads), compile_wait: Some(Duration::MAX), ..CpuOptions::default() })?;
        let interpreted = Cpu::open(CpuOptions { threads: Some(threads), is_interpreted: true, ..CpuOptions::default() })?;
        let is_machine_code = cpu.info().backend != interpreted.info().backend;
        let pool = cpu::pool(threads).map_err(|error| BenchError::Threads { cause: error.to_string() })?;
        let interpreted = is_machine_code.then(|| interpreted.into());
        Ok(Machine { cpu: cpu.into(), interpreted, adapters: open_adapters(adapter)?, pool })
    }

    /// Machine code first, then what else there is.
    fn executors(&self) -> impl Iterator<Item = &AnyExecutor> {
        std::iter::once(&self.cpu).chain(&self.adapters).chain(&self.interpreted)
    }
}

fn threads_here() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Every adapter of this machine, or the one that is named.
fn open_adapters(named: Option<&str>) -> Result<Vec<AnyExecutor>, BenchError> {
    let mut names = match named {
        Some(name) => vec![name.to_string()],
        None => block_on(Gpu::adapters()).into_iter().map(|info| info.adapter).collect(),
    };
    // Adapters are opened by name, the first of a name each time.
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    let open = |name| Ok(block_on(Gpu::open(GpuOptions { adapter: Some(name), ..GpuOptions::default() }))?.into());
    names.into_iter().map(open).collect()
}

/// Compares the executors, case by case, then times how long the cpu executor takes to load.
///
/// **Errors:** an executor does not open, load or run a case; two sides disagree.
pub(crate) fn run(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let machine = Machine::open(options.adapter.as_deref())?;
    let cases = cases::all(options.effort == Effort::Tiny, options.bodies);
    let is_asked = |name: &str| options.case.as_ref().is_none_or(|part| name.contains(part));
    for case in cases.into_iter().filter(|case| is_asked(&case.name)) {
        measure(&machine, case, options.effort, figures, progress)?;
    }
    if is_asked("loading") {
        for (name, bundle) in workload::all()? {
            figures.extend(load_figures(name, &bundle, options.effort, progress)?);
        }
    }
    Ok(())
}

fn measure(machine: &Machine, mut case: Case, effort: Effort, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let name = case.name.clone();
    progress(&format!("executors: {name}"));
    let mut runs = Vec::new();
    for executor in machine.executors() {
        let bundle = case.bundle()?;
        let run = block_on(executor.load(&bundle, &Placement::alone(bundle.program())))?;
        runs.push(Alone::resident(bundle, run));
    }
    compare(machine, &mut case, &mut runs)?;
    let turns = time(machine, &mut case, &mut runs, effort)?;

    let figure = |rounds: Rounds, over: &str, twin: &str| {
        rounds.figure(Bench::Executors, format!("{name}: {over}"), Kind::Speed, case.unit, case.units_per_tick / 1e9, twin)
    };
    let twin_side = runs.len();
    for (adapter, side) in machine.adapters.iter().map(AnyExecutor::info).zip(1..) {
        let mut figure = figure(turns.pair(0, side), &format!("cpu over {}", adapter.adapter), &described(adapter));
        if adapter.is_software {
            figure = figure.with_target(Some(case.targets.adapter));
        } else {
            figure.kind = Kind::Context;
        }
        figures.push(figure);
    }
    let rust = format!("hand-written Rust, rayon, {}", cpu::vectors());
    let mut over_rust = figure(turns.pair(0, twin_side), "cpu over Rust", &rust).with_target(Some(case.targets.rust));
    over_rust.notes.push(format!("cpu: {}; twin: {rust}, {} threads", described(machine.cpu.info()), machine.pool.current_num_threads()));
    figures.push(over_rust);
    if machine.interpreted.is_some() {
        let over_code = figure(turns.pair(twin_side - 1, 0), "interpreter over machine code", &described(machine.cpu.info()));
        figures.push(over_code.with_target(Some(INTERPRETER_TARGET)));
    }
    Ok(())
}

/// An executor in words.
fn described(info: &ExecutorInfo) -> String {
    format!("{} ({})", info.adapter, info.backend)
}

/// Lets all sides compute a few ticks and holds them against the twin.
fn compare(machine: &Machine, case: &mut Case, runs: &mut [Alone<AnyRun<'_>>]) -> Result<(), BenchError> {
    case.twin.run(&machine.pool, COMPARED_TICKS);
    let theirs = case.twin.read();
    for (run, executor) in runs.iter_mut().zip(machine.executors()) {
        run.run(COMPARED_TICKS)?;
        let ours = match case.output {
            Output::Field(name) => run.field(name)?,
            Output::Table(name) => run.table(name)?,
        };
        agree(&format!("{}, {}", case.name, described(executor.info())), case.tolerance, &ours, &theirs)?;
    }
    Ok(())
}

/// Times all sides in turn, the twin last, each with as many ticks as fill its part of a round.
fn time(machine: &Machine, case: &mut Case, runs: &mut [Alone<AnyRun<'_>>], effort: Effort) -> Result<Turns, BenchError> {
    let twin = &mut case.twin;
    let mut by_twin = |ticks: u32| {
        rounds::seconds(|| {
            twin.run(&machine.pool, ticks);
            Ok(())
        })
    };
    let mut by_executor: Vec<_> = runs.iter_mut().map(|run| move |ticks: u32| rounds::seconds(|| run.run(ticks))).collect();
    let mut sides = Vec::new();
    for run in by_executor.iter_mut().map(|run| run as &mut dyn FnMut(u32) -> Result<f64, BenchError>).chain([&mut by_twin as _]) {
        // What was compared has warmed up; a tick of the slowest takes long enough.
        let each = run(2)? / 2.0;
        sides.push(Side { repeats: rounds::repeats(effort, each), run });
    }
    rounds::interleave_all(effort.rounds(), &mut sides)
}

/// How fast the cpu executor makes a workload ready to run that it has not seen, and its slowest kernel machine code, on one
/// thread, against a limit for each kernel.
fn load_figures(name: &str, bundle: &VerifiedBundle, effort: Effort, progress: &mut dyn FnMut(&str)) -> Result<[Figure; 2], BenchError> {
    progress(&format!("executors: loading {name}"));
    let alone = Placement::alone(bundle.program());
    // Kernels are kept by the executor that compiled them.
    let open = |wait: Option<Duration>, is_interpreted| {
        Cpu::open(CpuOptions { threads: Some(1), compile_wait: wait, is_interpreted, ..CpuOptions::default() })
    };
    let load = |cpu: &Cpu| block_on(cpu.load(bundle, &alone)).map(drop);
    let [kernels, forever] = {
        let (all, compiled) = (open(None, true)?, open(Some(Duration::MAX), false)?);
        load(&all)?;
        load(&compiled)?;
        [all, compiled].map(|cpu| cpu.interpreted().len())
    };
    let (mut loading, mut slowest, mut begun) = (Vec::new(), Vec::new(), 0);
    let mut last = (f64::INFINITY, String::new());
    for _ in 0..effort.rounds() {
        let cpu = open(None, false)?;
        let seconds = rounds::seconds(|| Ok(load(&cpu)?))?;
        begun = cpu.interpreted().len() - forever;
        loading.push([seconds, LOAD_SECONDS * kernels as f64]);
        let (seconds, entry) = slowest_seconds(&open(Some(Duration::ZERO), false)?, &load, forever)?;
        slowest.push([seconds, LOAD_SECONDS]);
        if seconds < last.0 {
            last = (seconds, entry);
        }
    }
    let limit = format!("{} ms a kernel", LOAD_SECONDS * 1e3);
    let figure = |case: String, repeats: u32, seconds| {
        let rounds = Rounds { repeats, seconds };
        let mut figure = rounds.figure(Bench::Executors, case, Kind::Speed, "kernels/s", 1.0, &limit);
        figure.notes.push(format!("{:.1} ms a kernel in the best round; the limit is {limit}", 1e3 / figure.value));
        figure
    };
    let mut ready = figure(format!("loading {name}, {kernels} kernels"), kernels as u32, loading).with_target(Some(1.0));
    ready.notes.push(format!("{begun} of them began interpreted"));
    let code = figure(format!("machine code of {name}, its slowest kernel: {}", last.1), 1, slowest).with_target(Some(1.0));
    Ok([ready, code])
}

/// The longest that one thread takes to compile a kernel, of a workload that is loaded without waiting for it, and its entry point;
/// `forever`: kernels that stay interpreted. Lowering is done before.
fn slowest_seconds(cpu: &Cpu, load: &dyn Fn(&Cpu) -> Result<(), ExecutorError>, forever: usize) -> Result<(f64, String), BenchError> {
    load(cpu)?;
    let mut slowest = (0.0, String::new());
    let mut left = cpu.interpreted();
    while left.len() > forever {
        let mut rest = Vec::new();
        let seconds = rounds::seconds(|| {
            loop {
                std::thread::sleep(LOOK);
                rest = cpu.interpreted();
                if rest.len() < left.len() {
                    return Ok(());
                }
            }
        })?;
        let count = |list: &[String], entry: &String| list.iter().filter(|other| *other == entry).count();
        let done = left.iter().find(|entry| count(&rest, entry) < count(&left, entry));
        if seconds > slowest.0 {
            slowest = (seconds, done.cloned().unwrap_or_default());
        }
        left = rest;
    }
    Ok(slowest)
}
