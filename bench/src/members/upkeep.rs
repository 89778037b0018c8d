//! What snapshots and membership cost while nothing happens: of a run's speed, and in bytes.

use std::time::{Duration, Instant};

use super::{Crew, DUTY, MEMBERS, PATIENCE};
use crate::process::{Process, failed};
use crate::report::{Figure, Kind};
use crate::rounds::{Side, interleave_all};
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of its speed a run keeps that takes snapshots.
const SPEED_TARGET: f64 = 0.95;
/// How near the bytes are to be to those of the sketch: the smaller of the two over the larger.
const BYTES_TARGET: f64 = 0.9;
/// The first snapshots change more than later ones: heat begins with noise.
const WARMING_SNAPSHOTS: usize = 3;
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
    let (members, link) = crew.gather(MEMBERS, &["--throttle", &DUTY.to_string()])?;
    let watch = Process::start(&crew.program, &["status".into(), link, "--watch".into()])?;
    let sent = between_snapshots(&members, &watch, counted)?;
    let mega = |bytes: f64| bytes / 1e6;
    let sketched = sketch(size, tile);
    let twin = ("the sketch of membership", mega(sketched));
    let figure = Figure::held(Bench::Members, case, "MB", mega(sent), twin, (sent / sketched).min(sketched / sent));
    let note = format!("a snapshot every 2 s: {:.1} MB/s over all links; {counted} snapshots", mega(sent) / 2.0);
    figures.push(figure.with_notes(vec![note]).with_target(Some(BYTES_TARGET)));
    Ok(())
}

/// What all members send from one snapshot to the next, strips left out: the mean over so many, within one epoch.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn between_snapshots(members: &[Process], watch: &Process, counted: usize) -> Result<f64, BenchError> {
    let until = Instant::now() + PATIENCE * 2;
    let mut sent = vec![0; members.len()];
    let (mut newest, mut marks) = ((None, None), Vec::new());
    while marks.len() <= WARMING_SNAPSHOTS + counted {
        let standing = watch.line(until)?.ok_or_else(|| failed("too few snapshots in the time"))?;
        let (epoch, snapshot) = (standing["epoch"].as_u64(), standing["snapshot"].as_u64());
        // All copies of this one are there, and the next is not due.
        let is_new = snapshot.is_some() && (epoch, snapshot) != newest;
        if epoch != newest.0 {
            marks.clear();
        }
        newest = (epoch, snapshot);
        let later = Instant::now() + if is_new { TOLD_LATE } else { Duration::ZERO };
        for (member, sent) in members.iter().zip(&mut sent) {
            while let Some(line) = member.line(later)? {
                *sent = line["upkeep_bytes"].as_u64().unwrap_or(*sent);
            }
        }
        if is_new {
            marks.push(sent.iter().sum::<u64>());
        }
    }
    Ok((marks[WARMING_SNAPSHOTS + counted] - marks[WARMING_SNAPSHOTS]) as f64 / counted as f64)
}

/// What `plan/sketches/membership.md` says of 2 s with a snapshot.
fn sketch(size: u32, tile: u32) -> f64 {
    // Of a delta of heat: the low bytes of all words change.
    const CHANGED: f64 = 0.7;
    const SECONDS: f64 = 2.0;
    let members = MEMBERS as f64;
    let (state, parts) = (f64::from(size).powi(2) * 4.0, f64::from(size / tile).powi(2) + 1.0);
    let links_both_ways = members * (members - 1.0);
    let copies = CHANGED * state;
    let offers = 36.0 * parts * (members - 1.0);
    let audits = (42.0 + 64.0) * links_both_ways;
    let pace_and_horizon = (26.0 + 30.0) * members * SECONDS / 0.02;
    let pings = (9.0 + 9.0) * links_both_ways * SECONDS / 0.1;
    copies + offers + audits + pace_and_horizon + pings
}
