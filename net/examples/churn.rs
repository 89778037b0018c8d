//! Many simulated runs whose peers come and go: `cargo run --release -p peercompute-net --example churn -- --seeds 10000`.
//!
//! ```text
//! --seeds N    how many runs (300)          --first N    the first seed (0)
//! --peers N    the most places of a run (16)
//! --seed N     this run alone               --trace [N]  with its latest N lines (400)
//! --all        on after a failure
//! ```
//!
//! A seed that fails is named, run again with a trace, and ends everything with exit code 1.

#![allow(clippy::print_stdout, reason = "what it found is for whoever started it")]

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use peercompute_net::sim::churn::faults::Scenario;
use peercompute_net::sim::churn::trace::Trace;
use peercompute_net::sim::churn::{Churn, Summary};

struct Options {
    first: u64,
    seeds: u64,
    peers: u16,
    trace: Option<usize>,
    all: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { first: 0, seeds: 300, peers: 16, trace: None, all: false };
    let mut args = std::env::args().skip(1).peekable();
    while let Some(arg) = args.next() {
        let mut number = |what: &str| {
            args.next_if(|next| !next.starts_with("--")).map(|text| text.parse::<u64>().map_err(|error| format!("{what} {text}: {error}")))
        };
        let needed = |number: Option<Result<u64, String>>| number.unwrap_or_else(|| Err(format!("{arg} needs a number")));
        match arg.as_str() {
            "--seeds" => options.seeds = needed(number("--seeds"))?,
            "--first" => options.first = needed(number("--first"))?,
            "--peers" => options.peers = needed(number("--peers"))?.clamp(2, 64) as u16,
            "--seed" => (options.first, options.seeds) = (needed(number("--seed"))?, 1),
            "--trace" => options.trace = Some(number("--trace").transpose()?.map_or(400, |lines| lines as usize)),
            "--all" => options.all = true,
            _ => return Err(format!("{arg} is no option: --seeds N, --first N, --peers N, --seed N, --trace [N], --all")),
        }
    }
    Ok(options)
}

/// Sums over runs.
#[derive(Default)]
struct Totals {
    runs: u64,
    finished: u64,
    sum: Summary,
}

impl Totals {
    fn add(&mut self, run: &Summary) {
        self.runs += 1;
        self.finished += u64::from(run.is_finished());
        self.merge(run);
    }

    fn merge(&mut self, run: &Summary) {
        let sum = &mut self.sum;
        sum.elapsed += run.elapsed;
        sum.epochs += run.epochs;
        sum.ticks += run.ticks;
        sum.joins += run.joins;
        sum.leaves += run.leaves;
        sum.losses += run.losses;
        sum.excluded += run.excluded;
        sum.shadowed += run.shadowed;
        sum.taken_over += run.taken_over;
        sum.rollbacks += run.rollbacks;
        sum.stored += run.stored;
        sum.frames += run.frames;
        sum.bytes += run.bytes;
    }
}

/// One run, with its latest lines where they are wanted.
fn run(seed: u64, options: &Options, lines: usize) -> (Result<Summary, String>, String) {
    let mut trace = Trace::new(lines);
    let mut churn = Churn::new(Scenario::draw(seed, options.peers));
    if lines > 0 {
        churn = churn.trace(|line| trace.add(line));
    }
    // A panic is a failure of its seed.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| churn.run()));
    let result = match ended {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("seed {seed}: panicked")),
    };
    (result, trace.into_text())
}

/// Runs seeds until none is left; gives the sums and what failed.
fn work(options: &Options, next: &AtomicU64, end: u64) -> (Totals, Vec<(u64, String)>) {
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return (totals, failed);
        }
        match run(seed, options, 0).0 {
            Ok(summary) => totals.add(&summary),
            Err(text) => {
                failed.push((seed, text));
                if !options.all {
                    next.store(end, Ordering::Relaxed);
                }
            }
        }
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("error: {text}");
            return ExitCode::from(2);
        }
    };
    if let (1, Some(lines)) = (options.seeds, options.trace) {
        let (result, trace) = run(options.first, &options, lines);
        println!("{:#?}\n{trace}\n{result:#?}", Scenario::draw(options.first, options.peers));
        return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let next = AtomicU64::new(options.first);
    let end = options.first.saturating_add(options.seeds);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(&options, &next, end))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    for (part, part_failed) in results {
        totals.runs += part.runs;
        totals.finished += part.finished;
        totals.merge(&part.sum);
        failed.extend(part_failed);
    }
    failed.sort();
    report(&totals);
    for (_, text) in &failed {
        println!("failed: {text}");
    }
    let Some((seed, _)) = failed.first() else { return ExitCode::SUCCESS };
    let (_, trace) = run(*seed, &options, 60);
    println!("{trace}\nagain: cargo run --release -p peercompute-net --example churn -- --peers {} --seed {seed} --trace", options.peers);
    ExitCode::FAILURE
}

fn report(totals: &Totals) {
    let Totals { runs, finished, sum } = totals;
    println!("{runs} runs, {finished} to their end; {:.0} s of virtual time, {} ticks", sum.elapsed.as_secs_f64(), sum.ticks);
    println!(
        "{} epochs, {} joins, {} leaves, {} losses, {} excluded, {} rollbacks, {} snapshots stored",
        sum.epochs, sum.joins, sum.leaves, sum.losses, sum.excluded, sum.rollbacks, sum.stored
    );
    println!("{} epochs with shadows, which took over in {}", sum.shadowed, sum.taken_over);
    println!("{} frames, {} bytes", sum.frames, sum.bytes);
}
