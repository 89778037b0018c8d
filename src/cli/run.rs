//! `peercompute run`: a workload on this machine, alone or on several peers.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use peercompute::chaos;
use peercompute::churn::{self, ChurnJob, Churned, Done};
use peercompute::keys;
use peercompute::launch::{self, BufferFile, ExecutorOptions, Job, LaunchError, Summary};
use peercompute::node::peer::Split;
use peercompute::node::plan::ParamChange;
use peercompute::node::{self, NodeError, PassSeconds, Progress, Task};
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::Choice;
use serde::Serialize;

use super::{WorkloadArgs, buffer_file, say, say_json, si, warn_of};

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// How many peers, each a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    peers: u16,
    /// How many ticks.
    #[arg(long, default_value_t = 100)]
    ticks: u64,
    /// Replace what init made of a buffer: `.npy`, or `.png` for a 2-D field of f32.
    #[arg(long, value_name = "BUFFER=FILE", value_parser = buffer_file)]
    import: Vec<BufferFile>,
    /// Write a buffer as `.npy` at the end.
    #[arg(long, value_name = "BUFFER=FILE", value_parser = buffer_file)]
    export: Vec<BufferFile>,
    /// Write a scalar field as `.png` at the end.
    #[arg(long, value_name = "BUFFER=FILE", value_parser = buffer_file)]
    image: Vec<BufferFile>,
    /// Change a parameter, from the start or before a tick: `rate=0.2`, `rate=0.2@100`.
    #[arg(long, value_name = "NAME=VALUE[@TICK]", value_parser = change)]
    set: Vec<ParamChange>,
    /// How tiles are shared out.
    #[arg(long, value_enum, default_value_t = SplitArg::Even)]
    split: SplitArg,
    /// How many ticks a halo may lag behind; above 0 the result depends on timing.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    staleness: u32,
    /// What the peers talk over.
    #[arg(long, value_enum, default_value_t = TransportArg::Tcp)]
    transport: TransportArg,
    /// Where the first peer listens; a free port of loopback if not given.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<std::net::SocketAddr>,
    /// After how many seconds a silent peer has failed.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    silence: f64,
    /// What happens to the peers on the way: `kill 2@400, join@700, freeze 3s@900, leave@1200, slow 3 0.25@500`, or `random:SEED`.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["split", "staleness", "silence", "listen"])]
    chaos: Option<String>,
    /// What peers that `--chaos` does not name are drawn by.
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "chaos")]
    chaos_seed: u64,
    /// With `--chaos`: copies of every snapshot's part beside its owner's.
    #[arg(long, default_value_t = 1, requires = "chaos", value_parser = clap::value_parser!(u16).range(0..=16))]
    replicas: u16,
    /// With `--chaos`: seconds between snapshots.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, requires = "chaos", value_parser = seconds)]
    snapshot_every: f64,
    /// Time every pass on the device, where the adapter can; one peer only, and slower.
    #[arg(long, conflicts_with = "peers")]
    profile: bool,
    /// Threads of the cpu executor, of each peer; by default the peers share the machine.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Run kernels without bounds and loop checks on a GPU: you answer for them.
    #[arg(long)]
    unchecked: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitArg {
    /// Every peer the same.
    Even,
    /// By measured speed.
    Measured,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum TransportArg {
    Tcp,
    Quic,
}

pub(crate) fn change(text: &str) -> Result<ParamChange, String> {
    let (name, rest) = text.split_once('=').ok_or(format!("`{text}` is not NAME=VALUE"))?;
    let (value, tick) = match rest.rsplit_once('@') {
        Some((value, tick)) => (value, tick.parse().map_err(|_| format!("`{tick}` is not a tick"))?),
        None => (rest, 0),
    };
    Ok(ParamChange { tick, name: name.into(), value: value.into() })
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|s| (0.1..=3600.0).contains(s)).ok_or("0.1 to 3600 seconds".into())
}

/// The last line of `run --json`.
#[derive(Serialize)]
struct RunReport<'a> {
    workload: &'a str,
    version: String,
    bundle: String,
    peers: u16,
    ticks: u64,
    executor: &'a str,
    adapter: String,
    adapters: &'a [String],
    state_hash: &'a str,
    elements_per_s: f64,
    shipped_bytes: u64,
    payload_bytes: u64,
    memory_bytes: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passes: Vec<PassSeconds>,
    #[serde(flatten)]
    churn: Option<ChurnReport>,
}

/// What `--chaos` adds.
#[derive(Serialize)]
struct ChurnReport {
    epochs: u32,
    losses: usize,
    seconds_lost: f64,
    chaos: Vec<Done>,
}

pub(crate) fn run(args: &RunArgs, executor: &Choice, json: bool) -> Result<(), LaunchError> {
    let bundle = args.workload.open()?;
    let program = bundle.program();
    // A wrong name or value is told before anything starts.
    let mut params = program.manifest.params.clone();
    for change in &args.set {
        program.set_param(&mut params, &change.name, &change.value).map_err(NodeError::from)?;
        if change.tick >= args.ticks.max(1) {
            return Err(LaunchError::TooLate { name: change.name.clone(), tick: change.tick, ticks: args.ticks });
        }
    }
    if !json {
        warn_of(program);
    }
    let mut churn = None;
    let (summary, passes) = match &args.chaos {
        Some(list) => {
            let Churned { summary, epochs, losses, seconds_lost, chaos } = upheaval(args, list, &bundle, executor, json)?;
            churn = Some(ChurnReport { epochs, losses, seconds_lost, chaos });
            (summary, Vec::new())
        }
        None if args.peers == 1 => alone(args, &bundle, executor, json)?,
        None => (together(args, &bundle, executor, json)?, Vec::new()),
    };
    let elements = program.elements_per_tick() as f64 * args.ticks as f64;
    let rate = if summary.seconds > 0.0 { elements / summary.seconds } else { 0.0 };
    let report = RunReport {
        workload: &program.manifest.name,
        version: program.manifest.version.to_string(),
        bundle: peercompute_buffers::digest::hex(&program.hash),
        peers: args.peers,
        ticks: args.ticks,
        executor: &summary.executor,
        adapter: summary.adapters.first().cloned().unwrap_or_default(),
        adapters: &summary.adapters,
        state_hash: &summary.state_hash,
        elements_per_s: rate,
        shipped_bytes: summary.shipped_bytes,
        payload_bytes: summary.payload_bytes,
        memory_bytes: summary.memory_bytes,
        seconds: summary.seconds,
        passes,
        churn,
    };
    if json {
        say_json(&report);
        return Ok(());
    }
    say(format!(
        "{} {}: {} ticks on {} peer{} in {:.2} s ({}: {}), {}elements/s, {}B shipped",
        report.workload,
        report.version,
        report.ticks,
        report.peers,
        if report.peers == 1 { "" } else { "s" },
        report.seconds,
        report.executor,
        report.adapter,
        si(rate),
        si(report.shipped_bytes as f64),
    ));
    if let Some(churn) = &report.churn {
        for done in &churn.chaos {
            let peer = done.peer.map_or(String::new(), |peer| format!(" (peer {peer})"));
            let skipped = done.skipped.as_ref().map_or(String::new(), |why| format!(": not done, {why}"));
            say(format!("  tick {:>8}: {}{peer}{skipped}", done.tick, done.deed));
        }
        say(format!("{} epochs, {} lost, {:.2} s without a new tick", churn.epochs, churn.losses, churn.seconds_lost));
    }
    if args.profile && report.passes.is_empty() {
        say(format!("passes cannot be timed: the {} ({}) has no timestamps", report.executor, report.adapter));
    }
    for pass in &report.passes {
        say(format!("  {:<16} {:>8} runs  {:>10.3} ms each", pass.entry, pass.runs, 1e3 * pass.seconds / pass.runs as f64));
    }
    for (name, path) in args.export.iter().chain(&args.image) {
        say(format!("{name} → {}", path.display()));
    }
    say(format!("state hash {}", report.state_hash));
    Ok(())
}

fn alone(args: &RunArgs, bundle: &VerifiedBundle, executor: &Choice, json: bool) -> Result<(Summary, Vec<PassSeconds>), LaunchError> {
    let task = Task {
        ticks: args.ticks,
        changes: args.set.clone(),
        imports: launch::read_imports(bundle, &args.import)?,
        gather: launch::wanted(bundle, &args.export, &args.image)?,
    };
    let options = ExecutorOptions { threads: args.threads.map(usize::from), unchecked: args.unchecked, is_profiled: args.profile };
    let executor = launch::open_executor(executor, options)?;
    let bar = Bar::new(bundle, args.ticks, json);
    let outcome = pollster::block_on(node::run_alone(&executor, bundle, &task, &mut |progress| bar.show(progress)))?;
    bar.end();
    launch::write_results(bundle, &outcome, &args.export, &args.image)?;
    Ok((Summary::from(&outcome), outcome.passes))
}

fn together(args: &RunArgs, bundle: &VerifiedBundle, executor: &Choice, json: bool) -> Result<Summary, LaunchError> {
    // Wrong names and files are told here, by one process and not by all.
    launch::read_imports(bundle, &args.import)?;
    launch::wanted(bundle, &args.export, &args.image)?;
    let folder = tempfile::tempdir().map_err(|cause| LaunchError::System { action: "make a folder for the bundle", cause })?;
    let job = Job {
        bundle: write_bundle(folder.path().join("workload.pcb"), bundle)?,
        trust: bundle.signer().to_string(),
        peers: args.peers,
        ticks: args.ticks,
        changes: args.set.clone(),
        imports: absolute(&args.import),
        exports: absolute(&args.export),
        images: absolute(&args.image),
        split: match args.split {
            SplitArg::Even => Split::Even,
            SplitArg::Measured => Split::Measured,
        },
        staleness: args.staleness,
        executor: executor.clone(),
        threads: args.threads.map(usize::from),
        unchecked: args.unchecked,
        listen: multiaddress(args.listen, args.transport),
        token: new_token()?,
        silence_s: args.silence,
    };
    let bar = Bar::new(bundle, args.ticks, json);
    let summary = launch::launch(&job, &mut |progress| bar.show(progress))?;
    bar.end();
    Ok(summary)
}

/// A run whose peers come and go.
fn upheaval(args: &RunArgs, list: &str, bundle: &VerifiedBundle, executor: &Choice, json: bool) -> Result<Churned, LaunchError> {
    let items = chaos::parse(list, args.peers, args.ticks)?;
    // Wrong names and files are told here, by one process and not by all.
    launch::read_imports(bundle, &args.import)?;
    launch::wanted(bundle, &args.export, &args.image)?;
    let folder = tempfile::tempdir().map_err(|cause| LaunchError::System { action: "make a folder for the bundle", cause })?;
    let job = ChurnJob {
        bundle: write_bundle(folder.path().join("workload.pcb"), bundle)?,
        trust: bundle.signer().to_string(),
        peers: args.peers,
        ticks: args.ticks,
        changes: args.set.clone(),
        imports: absolute(&args.import),
        exports: absolute(&args.export),
        images: absolute(&args.image),
        executor: executor.clone(),
        threads: args.threads.map_or_else(|| launch::threads_each(args.peers), usize::from),
        unchecked: args.unchecked,
        is_quic: matches!(args.transport, TransportArg::Quic),
        replicas: args.replicas,
        snapshot_every: std::time::Duration::from_secs_f64(args.snapshot_every),
        items,
        seed: args.chaos_seed,
        is_patient: list.trim().starts_with("random:"),
    };
    let bar = Bar::new(bundle, args.ticks, json);
    let churned = churn::run(&job, &mut |progress| bar.show(progress))?;
    bar.end();
    Ok(churned)
}

fn absolute(files: &[BufferFile]) -> Vec<BufferFile> {
    files.iter().map(|(name, path)| (name.clone(), std::path::absolute(path).unwrap_or_else(|_| path.clone()))).collect()
}

pub(crate) fn multiaddress(listen: Option<std::net::SocketAddr>, transport: TransportArg) -> String {
    let address = listen.unwrap_or(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let ip = if address.is_ipv4() { "ip4" } else { "ip6" };
    match transport {
        TransportArg::Tcp => format!("/{ip}/{}/tcp/{}", address.ip(), address.port()),
        TransportArg::Quic => format!("/{ip}/{}/udp/{}/quic-v1", address.ip(), address.port()),
    }
}

/// Writes a verified bundle's bytes for the processes of a run.
pub(crate) fn write_bundle(path: PathBuf, bundle: &VerifiedBundle) -> Result<PathBuf, LaunchError> {
    std::fs::write(&path, bundle.bytes()).map_err(|cause| LaunchError::System { action: "write the bundle", cause })?;
    Ok(path)
}

/// The invitation to one run, as hexadecimal.
pub(crate) fn new_token() -> Result<String, LaunchError> {
    let mut token = [0u8; 16];
    getrandom::fill(&mut token).map_err(|cause| LaunchError::Key(keys::KeyFileError::Randomness { cause: cause.to_string() }))?;
    Ok(peercompute_buffers::digest::hex(&token))
}

/// The progress bar of a run, on standard error.
pub(crate) struct Bar {
    bar: ProgressBar,
    elements_per_tick: f64,
}

impl Bar {
    pub(crate) fn new(bundle: &VerifiedBundle, ticks: u64, is_hidden: bool) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(ticks), if is_hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar:.cyan/blue} {pos}/{len} ticks  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(bundle.program().manifest.name.clone());
        Bar { bar, elements_per_tick: bundle.program().elements_per_tick() as f64 }
    }

    pub(crate) fn show(&self, progress: Progress) {
        self.bar.set_position(progress.tick);
        let per_s = |amount: f64| if progress.seconds > 0.0 { amount / progress.seconds } else { 0.0 };
        let cells = per_s(self.elements_per_tick * progress.tick as f64) / 1e9;
        let shipped = per_s(progress.shipped_bytes as f64) / 1e6;
        self.bar.set_message(format!("{cells:.3} Gcell/s  {shipped:.1} MB/s shipped"));
    }

    pub(crate) fn end(&self) {
        self.bar.finish();
    }
}
