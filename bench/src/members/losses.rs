//! Three of five processes are lost, one by one: how soon another notices, and goes on computing without them.

use std::time::{Duration, Instant};

use super::{Crew, PATIENCE, Pace};
use crate::process::{Process, failed};
use crate::report::Figure;
use crate::{Bench, BenchError, BenchOptions, Effort};

const MEMBERS: usize = 5;
/// The part of the time that each computes: the driver's threads are to have a core when they want one.
const DUTY: f64 = 0.15;
/// The longest that a loss may go unnoticed.
const NOTICED_S: f64 = 1.0;
/// The longest that a run may stand still then.
const RESUMED_S: f64 = 2.0;
/// Times below this are not told apart.
const LEAST_S: f64 = 0.001;

/// How a member is lost.
enum Blow {
    Kill,
    /// Its links stay up, and say nothing.
    Freeze,
}

/// What one loss came to.
struct Loss {
    what: &'static str,
    noticed_s: f64,
    resumed_s: f64,
}

pub(super) fn run(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, rounds) = match options.effort {
        Effort::Tiny => (256, 64, 1),
        Effort::Quick => (1024, 128, 2),
        Effort::Full => (1024, 128, 5),
    };
    let case = format!("heat {size}², {MEMBERS} processes, of which three are lost");
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let mut losses = Vec::new();
    for _ in 0..rounds {
        losses.extend(once(&crew)?);
    }
    let noticed = losses.iter().map(|loss| (loss.what, loss.noticed_s)).collect();
    let resumed = losses.iter().map(|loss| (loss.what, loss.resumed_s)).collect();
    figures.push(figure(format!("{case}: until another notices, at worst"), ("one second", NOTICED_S), noticed, rounds));
    figures.push(figure(format!("{case}: from then until it computes again, at worst"), ("two seconds", RESUMED_S), resumed, rounds));
    Ok(())
}

/// What is promised is promised of every loss: the longest time counts.
fn figure(case: String, limit: (&str, f64), times: Vec<(&str, f64)>, rounds: u32) -> Figure {
    let worst = times.iter().map(|(_, seconds)| *seconds).fold(LEAST_S, f64::max);
    let each: Vec<String> = times.iter().map(|(what, seconds)| format!("{what} {seconds:.2} s")).collect();
    let figure = Figure::held(Bench::Members, case, "s", worst, limit, limit.1 / worst);
    Figure { rounds, ..figure }.with_notes(vec![each.join(", ")]).with_target(Some(1.0))
}

/// The last joiner freezes, the one before it is killed, and then the host.
fn once(crew: &Crew) -> Result<Vec<Loss>, BenchError> {
    let (mut members, _) = crew.gather(MEMBERS, &["--throttle", &DUTY.to_string()])?;
    let mut losses = Vec::new();
    for (what, blow, at) in [("a freeze", Blow::Freeze, MEMBERS - 1), ("a kill", Blow::Kill, MEMBERS - 2), ("the host's", Blow::Kill, 0)] {
        // It has computed a while, and taken a snapshot.
        Pace::listen(&members[1], Duration::from_secs(3))?;
        losses.push(lose(&mut members, at, &blow, what)?);
    }
    Ok(losses)
}

/// What the second member hears of a loss.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn lose(members: &mut [Process], victim: usize, blow: &Blow, what: &'static str) -> Result<Loss, BenchError> {
    let struck = Instant::now();
    match blow {
        Blow::Kill => members[victim].kill(),
        Blow::Freeze => members[victim].freeze(),
    }?;
    let (witness, until) = (&members[1], struck + PATIENCE);
    let line = || witness.line(until)?.ok_or_else(|| failed(format!("{what} was not noticed in time, or not got over")));
    // Where others notice first, the first that it hears of it is the epoch without the lost one.
    let first = loop {
        let line = line()?;
        if line["event"] == "lost" || line["event"] == "epoch" {
            break line;
        }
    };
    let noticed = Instant::now();
    let epoch = if first["event"] == "epoch" { first } else { witness.next("epoch", until)? };
    while witness.next("progress", until)?["epoch"].as_u64() < epoch["epoch"].as_u64() {}
    Ok(Loss { what, noticed_s: (noticed - struck).as_secs_f64(), resumed_s: noticed.elapsed().as_secs_f64() })
}
