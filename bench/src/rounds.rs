//! Timing in turn: A B, B A, A B, …, so that what the machine does besides hits both alike.

use std::time::Instant;

use crate::Effort;
use crate::report::{Figure, Kind};
use crate::{Bench, BenchError};

/// Seconds that something takes.
#[allow(clippy::disallowed_methods, reason = "a measurement: this is where the benches' clock is")]
pub(crate) fn seconds(work: impl FnOnce() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64().max(1e-9))
}

/// How often a piece of work is repeated in a round, from how long one takes.
pub(crate) fn repeats(effort: Effort, seconds_each: f64) -> u32 {
    (effort.round_seconds() / seconds_each).ceil().clamp(2.0, 20_000.0) as u32
}

/// The times of both sides, round by round.
pub(crate) struct Rounds {
    /// Repeats of each round.
    pub(crate) repeats: u32,
    /// Seconds of each round: framework, twin.
    pub(crate) seconds: Vec<[f64; 2]>,
}

/// Times `framework` and `twin` in turn; each is given the repeats and returns its seconds.
pub(crate) fn interleave(
    rounds: u32,
    repeats: u32,
    framework: &mut dyn FnMut(u32) -> Result<f64, BenchError>,
    twin: &mut dyn FnMut(u32) -> Result<f64, BenchError>,
) -> Result<Rounds, BenchError> {
    let mut sides = [Side { repeats, run: framework }, Side { repeats, run: twin }];
    Ok(interleave_all(rounds, &mut sides)?.pair(0, 1))
}

/// One of several that are timed in turn, with repeats of its own: it may be much faster than the others.
pub(crate) struct Side<'s> {
    /// Repeats of each round.
    pub(crate) repeats: u32,
    /// Is given the repeats and returns its seconds.
    pub(crate) run: &'s mut dyn FnMut(u32) -> Result<f64, BenchError>,
}

/// The times of any number of sides, round by round.
pub(crate) struct Turns {
    /// Per side, the repeats of each round.
    repeats: Vec<u32>,
    /// Per round, the seconds of each side.
    seconds: Vec<Vec<f64>>,
}

/// Times all sides in turn: A B C, C B A, A B C, ….
pub(crate) fn interleave_all(rounds: u32, sides: &mut [Side<'_>]) -> Result<Turns, BenchError> {
    let mut seconds = Vec::new();
    for round in 0..rounds {
        let mut turn = vec![0.0; sides.len()];
        for place in 0..sides.len() {
            let side = if round % 2 == 0 { place } else { sides.len() - 1 - place };
            turn[side] = (sides[side].run)(sides[side].repeats)?;
        }
        seconds.push(turn);
    }
    Ok(Turns { repeats: sides.iter().map(|side| side.repeats).collect(), seconds })
}

impl Turns {
    /// Two of the sides; the twin's seconds are those of as many repeats as the framework has.
    pub(crate) fn pair(&self, framework: usize, twin: usize) -> Rounds {
        let scale = f64::from(self.repeats[framework]) / f64::from(self.repeats[twin]);
        let seconds = self.seconds.iter().map(|turn| [turn[framework], turn[twin] * scale]).collect();
        Rounds { repeats: self.repeats[framework], seconds }
    }
}

impl Rounds {
    /// The figure of work that counts `per_repeat` units a repeat.
    pub(crate) fn figure(&self, bench: Bench, case: String, kind: Kind, unit: &str, per_repeat: f64, twin: &str) -> Figure {
        let work = per_repeat * f64::from(self.repeats);
        let best = |side: usize| self.seconds.iter().map(|round| round[side]).fold(f64::INFINITY, f64::min);
        let mut ratios: Vec<f64> = self.seconds.iter().map(|round| round[1] / round[0]).collect();
        ratios.sort_by(f64::total_cmp);
        Figure {
            bench: bench.name().into(),
            case,
            kind,
            unit: unit.into(),
            value: work / best(0),
            twin: twin.into(),
            twin_value: work / best(1),
            ratio: ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN),
            ratio_best: Some(best(1) / best(0)),
            floor: None,
            target: None,
            met: None,
            rounds: self.seconds.len() as u32,
            repeats: self.repeats,
            notes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns_and_the_best_round_counts() {
        let order = std::cell::RefCell::new(String::new());
        let mut ours = [3.0, 2.0, 4.0].into_iter();
        let mut theirs = [1.0, 5.0, 3.0].into_iter();
        let rounds = interleave(
            3,
            10,
            &mut |_| {
                order.borrow_mut().push('A');
                Ok(ours.next().unwrap_or(9.0))
            },
            &mut |_| {
                order.borrow_mut().push('B');
                Ok(theirs.next().unwrap_or(9.0))
            },
        );
        let rounds = rounds.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*order.borrow(), "ABBAAB");
        let figure = rounds.figure(Bench::Heat, String::new(), Kind::Speed, "1/s", 1.0, "");
        assert_eq!((figure.value, figure.twin_value, figure.ratio), (5.0, 10.0, 0.75));
        assert_eq!(figure.ratio_best, Some(0.5));
    }

    #[test]
    fn any_number_of_sides_take_turns_and_are_compared_by_the_repeat() {
        let order = std::cell::RefCell::new(String::new());
        let side = |name: char, seconds_each: f64| {
            let order = &order;
            move |repeats: u32| {
                order.borrow_mut().push(name);
                Ok(seconds_each * f64::from(repeats))
            }
        };
        let (mut a, mut b, mut c) = (side('A', 1.0), side('B', 0.25), side('C', 8.0));
        let mut sides = [Side { repeats: 10, run: &mut a }, Side { repeats: 40, run: &mut b }, Side { repeats: 2, run: &mut c }];
        let turns = interleave_all(3, &mut sides).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*order.borrow(), "ABCCBAABC");
        let figure = |twin| turns.pair(0, twin).figure(Bench::Executors, String::new(), Kind::Speed, "1/s", 1.0, "");
        assert_eq!((figure(1).value, figure(1).twin_value, figure(1).ratio), (1.0, 4.0, 0.25));
        assert_eq!((figure(2).twin_value, figure(2).ratio, figure(2).repeats), (0.125, 8.0, 10));
    }
}
