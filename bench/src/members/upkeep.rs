//! What snapshots and membership cost while nothing happens: of a run's speed, and in bytes.

use std::time::{Duration, Instant};

use peercompute_buffers::delta;
use peercompute_kernels::executor::Placement;
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use pollster::block_on;

use super::{Crew, DUTY, MEMBERS, PATIENCE};
use crate::kernels::{self, Alone};
use crate::process::{Process, failed};
use crate::report::{Figure, Kind};
use crate::rounds::{Side, interleave_all};
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of its speed a run keeps that takes snapshots.
const SPEED_TARGET: f64 = 0.95;
/// How near the bytes are to be to those of the sketch: the smaller of the two over the larger.
const BYTES_TARGET: f64 = 0.95;
/// A member's bytes are told a tenth of a second late.
const TOLD_LATE: Duration = Duration::from_millis(200);

/// With snapshots against without.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
pub(super) fn speed(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, rounds, seconds) = match options.effort {
        Effort::Tiny => (256, 64, 1, 0.0),
        Effort::Quick => (2048, 256, 4, 9.0),
        Effort::Full => (2048, 256, 10, 9.0),
    };
    let case = format!("heat {size}², {MEMBERS} processes: a snapshot every 2 s over none");
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let run = |every: &str, ticks: u32| -> Result<f64, BenchError> {
        let (members, _) = crew.start(MEMBERS, &["--ticks", &ticks.to_string(), "--snapshot-every", every], &[])?;
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
    figures.push(figure.with_target(Some(SPEED_TARGET)));
    Ok(())
}

/// What is sent from one snapshot to the next beside strips, against `plan/sketches/membership.md`.
pub(super) fn bytes(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, counted) = match options.effort {
        Effort::Tiny => (256, 64, 2),
        Effort::Quick => (2048, 256, 3),
        Effort::Full => (2048, 256, 10),
    };
    let case = format!("heat {size}², {MEMBERS} processes: bytes beside strips for each snapshot");
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let marks = snapshots(&crew, counted)?;
    let sent = (marks[counted].sent - marks[0].sent) as f64 / counted as f64;
    let copies = deltas(size, tile, &marks)? as f64 / counted as f64;
    let sketched = copies + beside_copies(size, tile);
    let mega = |bytes: f64| bytes / 1e6;
    let notes = vec![
        format!(
            "{counted} snapshots, from tick {} to {}, one every 2 s: {:.1} MB/s over all links",
            marks[0].tick,
            marks[counted].tick,
            mega(sent) / 2.0
        ),
        format!("a delta has {:.2} of the state's bytes", copies / (f64::from(size).powi(2) * 4.0)),
    ];
    let twin = ("the sketch of membership, with this state's deltas", mega(sketched));
    let figure = Figure::held(Bench::Members, case, "MB", mega(sent), twin, (sent / sketched).min(sketched / sent));
    figures.push(figure.with_notes(notes).with_target(Some(BYTES_TARGET)));
    Ok(())
}

/// A snapshot of which all copies are there.
struct Mark {
    tick: u64,
    /// What all members have sent by then, strips left out.
    sent: u64,
}

/// So many snapshots of one epoch, and the one before them.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn snapshots(crew: &Crew, counted: usize) -> Result<Vec<Mark>, BenchError> {
    let (members, link) = crew.gather(MEMBERS, &["--throttle", &DUTY.to_string()])?;
    let watch = Process::start(&crew.program, &["status".into(), link, "--watch".into()])?;
    let until = Instant::now() + PATIENCE * 2;
    let mut sent = vec![0; members.len()];
    let (mut newest, mut marks) = ((None, None), Vec::new());
    // The first of an epoch goes raw to holders that have no version before it.
    while marks.len() < counted + 2 {
        let standing = watch.line(until)?.ok_or_else(|| failed("too few snapshots in the time"))?;
        let (epoch, snapshot) = (standing["epoch"].as_u64(), standing["snapshot"].as_u64());
        let is_new = snapshot.is_some() && (epoch, snapshot) != newest;
        if epoch != newest.0 {
            marks.clear();
        }
        newest = (epoch, snapshot);
        // The next is not due for longer than this.
        let later = Instant::now() + if is_new { TOLD_LATE } else { Duration::ZERO };
        for (member, sent) in members.iter().zip(&mut sent) {
            while let Some(line) = member.line(later)? {
                *sent = line["upkeep_bytes"].as_u64().unwrap_or(*sent);
            }
        }
        if let Some(tick) = snapshot.filter(|_| is_new) {
            marks.push(Mark { tick, sent: sent.iter().sum() });
        }
    }
    Ok(marks.split_off(1))
}

/// Bytes of the deltas of all tiles from each snapshot to the next, computed here and encoded one by one.
fn deltas(size: u32, tile: u32, marks: &[Mark]) -> Result<usize, BenchError> {
    let cpu = AnyExecutor::from(Cpu::open(CpuOptions::default())?);
    let bundle = kernels::load("heat", &[size, size], &[tile, tile])?;
    let run = block_on(cpu.load(&bundle, &Placement::alone(bundle.program())))?;
    let mut alone = Alone::resident(bundle, run);
    let (mut bytes, mut at, mut before) = (0, 0, Vec::<Vec<u8>>::new());
    for mark in marks {
        alone.run((mark.tick - at) as u32)?;
        at = mark.tick;
        let tiles = alone.tiles("temperature")?;
        for (base, now) in before.iter().zip(&tiles) {
            let mut payload = Vec::new();
            delta::encode(Some(base), now, &mut payload);
            bytes += payload.len();
        }
        before = tiles;
    }
    Ok(bytes)
}

/// What `plan/sketches/membership.md` says of 2 s, copies left out.
fn beside_copies(size: u32, tile: u32) -> f64 {
    const SECONDS: f64 = 2.0;
    let members = MEMBERS as f64;
    let parts = f64::from(size / tile).powi(2) + 1.0;
    let links_both_ways = members * (members - 1.0);
    let offers = 36.0 * parts * (members - 1.0);
    let audits = (42.0 + 64.0) * links_both_ways;
    let pace_and_horizon = (26.0 + 30.0) * members * SECONDS / 0.02;
    let pings = (9.0 + 9.0) * links_both_ways * SECONDS / 0.1;
    offers + audits + pace_and_horizon + pings
}
