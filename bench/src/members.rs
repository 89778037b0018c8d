//! What membership costs while nothing happens, and how well tiles follow speed: runs of real processes.
//!
//! ```text
//! upkeep    four processes compute heat, with a snapshot every 2 s │ the same without: in turn
//! join      one process, while another comes and takes half of its tiles │ the same one before; and the ticks that it loses │ one
//! balance   four processes, one of them slowed to a quarter on the way │ the best division of the tiles, computed
//! ```
//!
//! In the latter two everybody computes less than half of the time. So processes do not take cores from each other, and a
//! member's speed is what it was told, on a machine with fewer cores than members too.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use peercompute_buffers::Grid;
use peercompute_kernels::VerifiedBundle;
use peercompute_net::membership::Parts;
use peercompute_net::membership::balance::{Load, best_tick_s};

use crate::kernels;
use crate::process::{Process, failed, program};
use crate::report::{Figure, Kind};
use crate::rounds::{Side, interleave_all};
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of its speed a run keeps that takes snapshots.
const UPKEEP_TARGET: f64 = 0.95;
/// What of its speed a run keeps while a newcomer gets its tiles.
const JOIN_TARGET: f64 = 0.8;
/// What of the best division's speed a run keeps that had to find it.
const BALANCE_TARGET: f64 = 0.85;
const MEMBERS: usize = 4;
const BUNDLE: &str = "heat.pcb";
/// The time in which tiles may move after a change of speed.
const SETTLE: Duration = Duration::from_secs(10);
/// Nothing may take longer than this to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Two parts of the time that a member computes: four times the first is below half a machine of two cores.
const DUTY: f64 = 0.4;
const SLOWED: f64 = 0.1;

/// What each member is told.
const MEMBER: [&str; 5] = ["--executor", "cpu", "--threads", "1", "--control"];

/// A workload's bundle in a file, and the members that run it, the host first.
struct Crew {
    program: PathBuf,
    folder: tempfile::TempDir,
    key: String,
}

impl Crew {
    fn new(size: u32, tile: u32) -> Result<Crew, BenchError> {
        let folder = tempfile::tempdir().map_err(|cause| failed(format!("no temporary folder: {cause}")))?;
        let bundle: VerifiedBundle = kernels::load("heat", &[size, size], &[tile, tile])?;
        std::fs::write(folder.path().join(BUNDLE), bundle.bytes()).map_err(|cause| failed(format!("cannot write the bundle: {cause}")))?;
        Ok(Crew { program: program()?, folder, key: bundle.signer().to_string() })
    }

    fn bundle(&self) -> String {
        self.folder.path().join(BUNDLE).display().to_string()
    }

    /// A host that waits for so many members, itself included; and the link to it.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    fn host(&self, assemble: usize, options: &[&[&str]]) -> Result<(Process, String), BenchError> {
        let (bundle, assemble) = (self.bundle(), assemble.to_string());
        let head = ["host", &bundle, "--trust", &self.key, "--assemble", &assemble];
        let args = [&head[..], &MEMBER].into_iter().chain(options.iter().copied());
        let host = Process::start(&self.program, &owned(args))?;
        let listening = host.next("listening", Instant::now() + PATIENCE)?;
        Ok((host, listening["link"].as_str().unwrap_or_default().to_owned()))
    }

    fn join(&self, link: &str, options: &[&str]) -> Result<Process, BenchError> {
        let bundle = self.bundle();
        let head = ["join", link, "--bundle", &bundle, "--trust", &self.key];
        Process::start(&self.program, &owned([&head[..], &MEMBER, options].into_iter()))
    }

    fn start(&self, host_options: &[&str], options: &[&str]) -> Result<Vec<Process>, BenchError> {
        let (host, link) = self.host(MEMBERS, &[host_options, options])?;
        let mut members = vec![host];
        for _ in 1..MEMBERS {
            members.push(self.join(&link, options)?);
        }
        Ok(members)
    }
}

fn owned<'a>(options: impl Iterator<Item = &'a [&'a str]>) -> Vec<String> {
    options.flatten().map(|option| (*option).to_owned()).collect()
}

/// All of them.
///
/// **Errors:** a process did not start, or a run did not go on.
pub(crate) fn run(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    upkeep(options, figures, progress)?;
    join(options, figures, progress)?;
    balance(options, figures, progress)
}

/// With snapshots against without.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn upkeep(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, rounds, seconds) = match options.effort {
        Effort::Tiny => (256, 64, 1, 0.0),
        Effort::Quick => (2048, 256, 4, 9.0),
        Effort::Full => (2048, 256, 10, 9.0),
    };
    let case = format!("heat {size}², {MEMBERS} processes: a snapshot every 2 s over none");
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let run = |every: &str, ticks: u32| -> Result<f64, BenchError> {
        let members = crew.start(&["--ticks", &ticks.to_string(), "--snapshot-every", every], &[])?;
        let done = members[0].next("done", Instant::now() + PATIENCE * 2)?;
        done["seconds"].as_f64().ok_or_else(|| failed("a run without its time"))
    };
    // How many ticks take long enough for some snapshots.
    let first = 200;
    let ticks = ((seconds / run("3600", first)?) * f64::from(first)).max(f64::from(first)) as u32;
    let mut with = |ticks| run("2", ticks);
    let mut without = |ticks| run("3600", ticks);
    let turns = interleave_all(rounds, &mut [Side { repeats: ticks, run: &mut with }, Side { repeats: ticks, run: &mut without }])?;
    let cells = f64::from(size) * f64::from(size) / 1e9;
    let figure = turns.pair(0, 1).figure(Bench::Members, case, Kind::Speed, "Gcell/s", cells, "no snapshots");
    figures.push(figure.with_target(Some(UPKEEP_TARGET)));
    Ok(())
}

/// The ticks per second of a run as its host tells them.
struct Pace {
    from: Option<(u64, Instant)>,
    to: (u64, Instant),
    epochs: u32,
}

impl Pace {
    /// Listens for this long.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    fn listen(host: &Process, time: Duration) -> Result<Pace, BenchError> {
        let begun = Instant::now();
        let mut pace = Pace { from: None, to: (0, begun), epochs: 0 };
        while let Some(line) = host.line(begun + time)? {
            match line["event"].as_str() {
                Some("progress") => {
                    pace.to = (line["tick"].as_u64().unwrap_or(0), Instant::now());
                    pace.from.get_or_insert(pace.to);
                }
                Some("epoch") => pace.epochs += 1,
                _ => {}
            }
        }
        Ok(pace)
    }

    fn ticks_per_second(&self) -> Result<f64, BenchError> {
        let from = self.from.ok_or_else(|| failed("the run does not go on"))?;
        let seconds = self.to.1.saturating_duration_since(from.1).as_secs_f64();
        if seconds > 0.0 { Ok(self.to.0.saturating_sub(from.0) as f64 / seconds) } else { Err(failed("the run stands still")) }
    }
}

/// A second process comes, and takes half of the tiles.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn join(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, rounds, before) = match options.effort {
        Effort::Tiny => (1024, 128, 1, 2),
        Effort::Quick => (4096, 256, 2, 4),
        Effort::Full => (4096, 256, 5, 8),
    };
    let case = format!("heat {size}², one process: until a second that comes owns half of it");
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let duty = DUTY.to_string();
    let throttle = ["--throttle", &duty];
    let (mut ratios, mut seconds, mut lost, mut best) = (Vec::new(), Vec::new(), Vec::new(), (0.0, 0.0));
    for _ in 0..rounds {
        let (host, link) = crew.host(1, &[&throttle])?;
        Pace::listen(&host, Duration::from_secs(2))?;
        let alone = Pace::listen(&host, Duration::from_secs(before))?;
        let newcomer = crew.join(&link, &throttle)?;
        let until = Instant::now() + PATIENCE;
        // Its tiles come while it owns none, and then it owns them.
        let owner = |members: &[serde_json::Value]| members.iter().skip(1).any(|member| member["tiles"] != 0);
        let taken = loop {
            let epoch = host.next("epoch", until)?;
            if epoch["members"].as_array().is_some_and(|members| owner(members)) {
                break epoch;
            }
        };
        let (tick, at) = (taken["tick"].as_u64().unwrap_or(0), Instant::now());
        let (ticks, took) = (tick.saturating_sub(alone.to.0) as f64, at.saturating_duration_since(alone.to.1).as_secs_f64());
        let alone = alone.ticks_per_second()?;
        // A tick is told before the sleep that a throttled member owes for it: one sleep more than ticks lies between the two.
        let possible = took * alone - (1.0 - DUTY);
        ratios.push(ticks / possible);
        seconds.push(took);
        lost.push(possible - ticks);
        if ticks / possible * alone > best.0 {
            best = (ticks / possible * alone, alone);
        }
        drop(newcomer);
    }
    ratios.sort_by(f64::total_cmp);
    seconds.sort_by(f64::total_cmp);
    lost.sort_by(f64::total_cmp);
    let (ratio, lost) = (ratios[ratios.len() / 2], lost[lost.len() / 2].max(0.0));
    let joined = Figure {
        bench: Bench::Members.name().into(),
        case,
        kind: Kind::Speed,
        unit: "tick/s".into(),
        value: best.0,
        twin: "the same process before".into(),
        twin_value: best.1,
        ratio,
        ratio_best: None,
        floor: None,
        target: None,
        met: None,
        rounds,
        repeats: 0,
        notes: vec![format!("{:.1} s from its start until it owns its tiles", seconds[seconds.len() / 2])],
    };
    let ticks = Figure {
        case: format!("{}, ticks lost by then", joined.case),
        unit: "ticks".into(),
        value: lost,
        twin: "one tick".into(),
        twin_value: 1.0,
        // Half as many are twice as good.
        ratio: 1.0 / lost.max(0.1),
        notes: vec!["the least that a ratio is told for is a tenth of a tick".into()],
        ..joined.clone()
    };
    figures.extend([ticks.with_target(Some(1.0)), joined.with_target(Some(JOIN_TARGET))]);
    Ok(())
}

/// One member is slowed to a quarter.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn balance(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, before, after) = match options.effort {
        Effort::Tiny => (256, 64, 2, 2),
        Effort::Quick => (2048, 128, 6, 20),
        Effort::Full => (2048, 128, 10, 60),
    };
    let case = format!("heat {size}², {MEMBERS} processes, one slowed to a quarter: {} s later", SETTLE.as_secs());
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let duty = DUTY.to_string();
    let mut members = crew.start(&[], &["--throttle", &duty])?;
    // Everybody is in, and measured.
    let until = Instant::now() + PATIENCE;
    while members[0].next("epoch", until)?["members"].as_array().is_none_or(|members| members.len() < MEMBERS) {}
    Pace::listen(&members[0], Duration::from_secs(3))?;
    let even = Pace::listen(&members[0], Duration::from_secs(before))?.ticks_per_second()?;
    members[1].order(&format!("throttle {SLOWED}"))?;
    let settling = if options.effort == Effort::Tiny { Duration::from_secs(4) } else { SETTLE };
    let moved = Pace::listen(&members[0], settling)?.epochs;
    let settled = Pace::listen(&members[0], Duration::from_secs(after))?;

    // Tiles are what can be divided: the best is that of whole tiles.
    let parts = Grid::new(&[size, size], &[tile, tile]).ok().and_then(|grid| Parts::new(&[grid], &[4], 0).ok()).ok_or_else(|| failed("no parts"))?;
    let tick = |slow: f64| {
        let load = |member: usize| Load { speed: if member == 1 { slow } else { DUTY }, memory: u64::MAX, link_bytes_per_s: 0.0 };
        best_tick_s(&parts, &(0..MEMBERS).map(load).collect::<Vec<_>>())
    };
    let best = even * tick(DUTY) / tick(SLOWED);
    let reached = settled.ticks_per_second()?;
    figures.push(
        Figure {
            bench: Bench::Members.name().into(),
            case: case.clone(),
            kind: Kind::Speed,
            unit: "tick/s".into(),
            value: reached,
            twin: "the best division of the tiles, from the speed before".into(),
            twin_value: best,
            ratio: reached / best,
            ratio_best: None,
            floor: None,
            target: None,
            met: None,
            rounds: 1,
            repeats: 0,
            notes: vec![format!("{even:.0} tick/s before; {moved} epochs in {} s, {} in the {after} s after", settling.as_secs(), settled.epochs)],
        }
        .with_target(Some(BALANCE_TARGET)),
    );
    if options.effort != Effort::Tiny {
        let case = format!("{case}, epochs in the {after} s after");
        let mut figure = Figure::exact(Bench::Members, case, settled.epochs.into(), "a steady network moves nothing", 0);
        figure.unit = "epochs".into();
        figures.push(figure);
    }
    Ok(())
}
