//! A second process comes, and takes half of the tiles of the first: what that costs the first.

use std::time::{Duration, Instant};

use super::{Crew, DUTY, PATIENCE, Pace};
use crate::process::Process;
use crate::report::Figure;
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of its speed a run keeps while a newcomer gets its tiles.
const SPEED_TARGET: f64 = 0.8;
/// The ticks that it may lose by then.
const TICKS_LOST: f64 = 1.0;

/// What one newcomer came to.
struct Joined {
    /// Ticks until it owned its tiles, …
    ticks: f64,
    /// … in so many seconds, …
    seconds: f64,
    /// … and the ticks per second before.
    alone: f64,
}

impl Joined {
    /// The ticks of that time without it. One is told before the sleep that a throttled member owes for it: one sleep
    /// more than ticks lies between the two ends.
    fn possible(&self) -> f64 {
        self.seconds * self.alone - (1.0 - DUTY)
    }
}

pub(super) fn run(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, rounds, before) = match options.effort {
        Effort::Tiny => (1024, 128, 1, 2),
        Effort::Quick => (4096, 256, 2, 4),
        Effort::Full => (4096, 256, 5, 8),
    };
    let case = format!("heat {size}², one process: until a second that comes owns half of it");
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let joined = (0..rounds).map(|_| once(&crew, Duration::from_secs(before))).collect::<Result<Vec<Joined>, _>>()?;
    let of = |each: &dyn Fn(&Joined) -> f64| median(joined.iter().map(each).collect());
    let lost = of(&|joined| joined.possible() - joined.ticks).max(0.0);
    // Half as many are twice as good.
    let ticks =
        Figure::held(Bench::Members, format!("{case}, ticks lost by then"), "ticks", lost, ("one tick", TICKS_LOST), TICKS_LOST / lost.max(0.1))
            .with_notes(vec!["the least that a ratio is told for is a tenth of a tick".into()]);
    let ratio = of(&|joined| joined.ticks / joined.possible());
    let (speed, alone) = (of(&|joined| joined.ticks / joined.possible() * joined.alone), of(&|joined| joined.alone));
    let speed = Figure::held(Bench::Members, case, "tick/s", speed, ("the same process before", alone), ratio)
        .with_notes(vec![format!("{:.1} s from its start until it owns its tiles", of(&|joined| joined.seconds))]);
    for (figure, target) in [(ticks, 1.0), (speed, SPEED_TARGET)] {
        figures.push(Figure { rounds, ..figure }.with_target(Some(target)));
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn once(crew: &Crew, before: Duration) -> Result<Joined, BenchError> {
    let duty = DUTY.to_string();
    let throttle = ["--throttle", &duty];
    let (host, link) = crew.host(1, &[&throttle])?;
    Pace::listen(&host, Duration::from_secs(2))?;
    let alone = Pace::listen(&host, before)?;
    let _newcomer = crew.join(&link, &throttle)?;
    let tick = owned_at(&host)?;
    let seconds = Instant::now().saturating_duration_since(alone.to.1).as_secs_f64();
    Ok(Joined { ticks: tick.saturating_sub(alone.to.0) as f64, seconds, alone: alone.ticks_per_second()? })
}

/// The first tick in which a second member owns tiles. They come while it owns none.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn owned_at(host: &Process) -> Result<u64, BenchError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let epoch = host.next("epoch", until)?;
        if epoch["members"].as_array().is_some_and(|members| members.iter().skip(1).any(|member| member["tiles"] != 0)) {
            return Ok(epoch["tick"].as_u64().unwrap_or(0));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
