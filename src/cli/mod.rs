//! The command line: what it takes, and what it says.
//!
//! People get sentences on standard output and progress on standard error; with `--json` standard
//! output holds JSON alone, in the same words.

mod check;
mod demo;
mod host;
mod join;
mod member;
mod run;
mod serve;
mod shipped;
mod sign;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use peercompute::keys::KeyFileError;
use peercompute::launch::LaunchError;
use peercompute::told::Line;
use peercompute_bench::{Bench, BenchOptions, Effort};
use peercompute_kernels::executor::any::Choice;
use peercompute_kernels::{Overrides, Program, PublicKey, VerifiedBundle};

/// WGSL kernels over flat buffers, on one GPU or partitioned across peers.
///
/// Without a command it runs the demo: rivers over a landscape, on four peers, into out/terrain.png.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Print JSON instead of sentences.
    #[arg(long, global = true)]
    json: bool,
    /// What runs the kernels: `auto` (a hardware GPU, else the cpu), `gpu`, `cpu`, or a GPU adapter by a part of its name.
    #[arg(long, global = true, value_name = "auto|gpu|cpu|ADAPTER", default_value_t = Choice::Auto, hide_default_value = true)]
    executor: Choice,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validate a workload; print its buffers, layouts, bindings, access and cost per tick.
    Check(check::CheckArgs),
    /// Run a workload, here or on several peers.
    Run(Box<run::RunArgs>),
    /// Start a run that others can join, and take part in it.
    Host(Box<host::HostCommand>),
    /// Start a run that browsers can join too, from a page on the same port, and take part in it.
    Serve(Box<serve::ServeArgs>),
    /// Take part in a run, by its link.
    Join(Box<join::JoinArgs>),
    /// How a run stands, by its link.
    Status(join::StatusArgs),
    /// Make a key pair: FILE for you alone, FILE with `.pub` for everybody.
    Keygen(sign::KeygenArgs),
    /// Sign a workload into a bundle.
    Sign(sign::SignArgs),
    /// Verify a bundle against the keys you trust.
    Verify(sign::VerifyArgs),
    /// Measure the framework against its hand-written twins, in one run.
    Bench(BenchArgs),
    /// One process of a run; started by `run`.
    #[command(hide = true)]
    Peer(PeerArgs),
}

#[derive(Args)]
struct BenchArgs {
    /// Few and short rounds, and only what has a target on every adapter.
    #[arg(long)]
    quick: bool,
    /// Only this measurement; may be given more than once.
    #[arg(long, value_name = "NAME", value_parser = bench_named)]
    only: Vec<Bench>,
    /// Only the cpu executor against every adapter and against hand-written Rust: `--only executors`.
    #[arg(long)]
    executors: bool,
    /// Only headless Chromium: the cpu executor against its WebGPU, and the benchmark page, `--only browser --only page`. PEERCOMPUTE_BROWSER
    /// names another browser, with its flags for WebGPU.
    #[arg(long)]
    browser: bool,
}

#[derive(Args)]
struct PeerArgs {
    #[arg(long)]
    job: PathBuf,
    #[arg(long)]
    index: u16,
    #[arg(long)]
    link: Option<String>,
}

/// How a workload is named on the command line.
#[derive(Args, Clone)]
struct WorkloadArgs {
    /// A workload's folder, or a signed bundle.
    workload: PathBuf,
    #[command(flatten)]
    opening: OpeningArgs,
}

/// How a workload is opened.
#[derive(Args, Clone)]
struct OpeningArgs {
    /// Another tile, x first: `128,128`, or `cells=128,128` where there are several grids.
    #[arg(long, value_name = "[GRID=]X,Y,Z", value_parser = extents)]
    tile: Vec<GridExtents>,
    /// Another shape of the grid, x first.
    #[arg(long, value_name = "[GRID=]X,Y,Z", value_parser = extents)]
    shape: Vec<GridExtents>,
    /// A key to trust for a bundle: a file, or the key itself.
    #[arg(long, value_name = "KEY")]
    trust: Vec<String>,
}

type GridExtents = (Option<String>, Vec<u32>);

/// `128,128` or `cells=128,128`.
fn extents(text: &str) -> Result<GridExtents, String> {
    let (grid, list) = match text.split_once('=') {
        Some((grid, list)) => (Some(grid.to_string()), list),
        None => (None, text),
    };
    let numbers = list.split([',', 'x']).map(|number| number.trim().parse::<u32>());
    let extents = numbers.collect::<Result<Vec<u32>, _>>().map_err(|_| format!("`{list}` is not a list of whole numbers"))?;
    if extents.is_empty() || extents.len() > 3 { Err("1 to 3 extents are needed".into()) } else { Ok((grid, extents)) }
}

impl WorkloadArgs {
    fn open(&self) -> Result<VerifiedBundle, KeyFileError> {
        self.opening.open(&self.workload)
    }
}

impl OpeningArgs {
    fn overrides(&self) -> Overrides {
        Overrides { tiles: self.tile.clone(), shapes: self.shape.clone(), params: Vec::new() }
    }

    fn trusted(&self) -> Result<Vec<PublicKey>, KeyFileError> {
        self.trust.iter().map(|key| peercompute::keys::read_public(key)).collect()
    }

    fn open(&self, workload: &Path) -> Result<VerifiedBundle, KeyFileError> {
        peercompute::keys::open(workload, &self.overrides(), &self.trusted()?)
    }
}

/// A buffer's name and a file: `temperature=in.npy`.
fn buffer_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.into(), file.into())),
        _ => Err(format!("`{text}` is not BUFFER=FILE")),
    }
}

/// Runs a command and says how it went.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let (json, executor) = (cli.json, &cli.executor);
    let done: Result<(), LaunchError> = match cli.command {
        None => demo::run(executor, json),
        Some(Command::Check(args)) => check::run(&args, executor, json),
        Some(Command::Run(args)) => run::run(&args, executor, json),
        Some(Command::Host(args)) => host::run(&args, executor, json),
        Some(Command::Serve(args)) => serve::run(&args, executor, json),
        Some(Command::Join(args)) => join::join(&args, executor, json),
        Some(Command::Status(args)) => join::status(&args, json),
        Some(Command::Keygen(args)) => sign::keygen(&args, json),
        Some(Command::Sign(args)) => sign::sign(&args, json),
        Some(Command::Verify(args)) => sign::verify(&args, json),
        Some(Command::Bench(args)) => return exit(bench(&args, executor, json)),
        Some(Command::Peer(args)) => {
            let mut tell = |message: &peercompute::launch::Message| say_json(message);
            return exit(peercompute::launch::run_peer(&args.job, args.index, args.link.as_deref(), &mut tell));
        }
    };
    if let Err(error) = &done {
        let text = error.to_string();
        if json {
            say_json(&serde_json::json!({ "error": text }));
        }
        let already_named = text.starts_with("error");
        eprintln!("{}{text}", if already_named { "" } else { "error: " });
    }
    exit(done.is_ok())
}

fn exit(is_fine: bool) -> ExitCode {
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How the lines of a run are printed.
#[derive(Clone)]
struct Voice {
    json: bool,
    /// The run's name, where there are others.
    of: Option<String>,
}

impl Voice {
    fn say(&self, line: &Line) {
        match (&self.of, self.json) {
            (None, true) => say_json(line),
            (None, false) => say(line),
            (Some(name), false) => say(format!("{name}: {line}")),
            (Some(name), true) => {
                #[derive(serde::Serialize)]
                struct Of<'a> {
                    of: &'a str,
                    #[serde(flatten)]
                    line: &'a Line,
                }
                say_json(&Of { of: name, line });
            }
        }
    }
}

/// What a workload's author should know.
fn warn_of(program: &Program) {
    for warning in &program.warnings {
        say(format!("warning: {warning}"));
    }
}

/// A line for people. A reader that has gone, as `| head` does, is no error.
fn say(text: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line for programs.
fn say_json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => say(text),
        Err(error) => eprintln!("error: cannot print JSON: {error}"),
    }
}

fn bench(args: &BenchArgs, executor: &Choice, json: bool) -> bool {
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let mut only = args.only.clone();
    only.extend(args.executors.then_some(Bench::Executors));
    if args.browser {
        only.extend([Bench::Browser, Bench::Page]);
    }
    let adapter = match executor {
        Choice::Adapter(name) => Some(name.clone()),
        Choice::Cpu if only.is_empty() || only.iter().any(|bench| bench.needs_gpu()) => {
            eprintln!("error: these benches measure the gpu executor; `peercompute bench --executors` measures the cpu executor");
            return false;
        }
        Choice::Auto | Choice::Gpu | Choice::Cpu => None,
    };
    let options = BenchOptions { adapter, only, effort, ..BenchOptions::default() };
    let report = peercompute_bench::run(&options, &mut |line| eprintln!("{line}"));
    if json {
        say_json(&report);
    } else {
        say(&report);
    }
    // A missed speed is a figure; a count that is wrong, or a bench that failed, is an error.
    report.is_sound()
}

fn bench_named(name: &str) -> Result<Bench, String> {
    Bench::from_name(name).ok_or_else(|| format!("there is {}", Bench::ALL.map(Bench::name).join(", ")))
}

/// `rate=0.2`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("`{text}` is not NAME=VALUE")),
    }
}

/// 1234567 as `1.23 M`.
fn si(value: f64) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match steps.iter().find(|(size, _)| value.abs() >= *size) {
        Some((size, unit)) => format!("{:.2} {unit}", value / size),
        None => format!("{value:.0} "),
    }
}
