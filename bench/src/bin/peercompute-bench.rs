//! The benches as a program of their own, to be carried to another machine.
#![allow(clippy::print_stdout, reason = "the report is what this program is for")]

use std::process::ExitCode;

use clap::Parser;
use peercompute_bench::{Bench, BenchOptions, Effort, run};

/// Measures the framework against its hand-written twins.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Few and short rounds, only the cases that have a target on every adapter.
    #[arg(long)]
    quick: bool,
    /// A part of the adapter's name.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Only this bench; may be given more than once.
    #[arg(long, value_name = "NAME", value_parser = bench_from_name)]
    only: Vec<Bench>,
    /// Only the cpu executor against every adapter and against hand-written Rust: `--only executors`.
    #[arg(long)]
    executors: bool,
    /// Only headless Chromium: the cpu executor against its WebGPU, and the benchmark page, `--only browser --only page`. PEERCOMPUTE_BROWSER
    /// names another browser, with its flags for WebGPU.
    #[arg(long)]
    browser: bool,
    /// Bodies of the n-body figure that every adapter gives [default: 8192].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    bodies: Option<u32>,
    /// Only the executors' cases with this in their name
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
}

fn bench_from_name(name: &str) -> Result<Bench, String> {
    let known = || Bench::ALL.map(Bench::name).join(", ");
    Bench::from_name(name).ok_or_else(|| format!("there is {}", known()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let mut only = arguments.only;
    only.extend(arguments.executors.then_some(Bench::Executors));
    if arguments.browser {
        only.extend([Bench::Browser, Bench::Page]);
    }
    let options = BenchOptions { adapter: arguments.adapter, only, effort, bodies: arguments.bodies, case: arguments.case };
    let report = run(&options, &mut |line| eprintln!("{line}"));
    if arguments.json {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => {
                eprintln!("the report cannot be written: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        print!("{report}");
    }
    // A missed speed is a figure; a count that is wrong, or a bench that failed, is an error.
    if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
