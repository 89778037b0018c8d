//! One of four processes is slowed to a quarter: how far tiles follow, and whether they rest then.

use std::time::Duration;

use peercompute_buffers::Grid;
use peercompute_net::membership::Parts;
use peercompute_net::membership::balance::{Load, best_tick_s};

use super::{Crew, DUTY, MEMBERS, Pace};
use crate::process::failed;
use crate::report::Figure;
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of the best division's speed a run keeps that had to find it.
const TARGET: f64 = 0.85;
/// The time in which tiles may move after a change of speed.
const SETTLE: Duration = Duration::from_secs(10);
/// The part of the time in which the slow one computes.
const SLOWED: f64 = DUTY / 4.0;

pub(super) fn run(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, before, after) = match options.effort {
        Effort::Tiny => (256, 64, 2, 2),
        Effort::Quick => (2048, 128, 6, 20),
        Effort::Full => (2048, 128, 10, 60),
    };
    let case = format!("heat {size}², {MEMBERS} processes, one slowed to a quarter: {} s later", SETTLE.as_secs());
    progress(&format!("members: {case}"));
    let crew = Crew::new(size, tile)?;
    let (mut members, _) = crew.gather(MEMBERS, &["--throttle", &DUTY.to_string()])?;
    // Everybody is measured.
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
    let twin = ("the best division of the tiles, from the speed before", best);
    let note = format!("{even:.0} tick/s before; {moved} epochs in {} s, {} in the {after} s after", settling.as_secs(), settled.epochs);
    let figure = Figure::held(Bench::Members, case.clone(), "tick/s", reached, twin, reached / best).with_notes(vec![note]);
    figures.push(figure.with_target(Some(TARGET)));
    if options.effort != Effort::Tiny {
        let case = format!("{case}, epochs in the {after} s after");
        let mut figure = Figure::exact(Bench::Members, case, settled.epochs.into(), "a steady network moves nothing", 0);
        figure.unit = "epochs".into();
        figures.push(figure);
    }
    Ok(())
}
