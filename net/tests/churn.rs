//! Runs whose peers come and go: every seed keeps the checkers' rules, and a seed repeats to the bit.
//!
//! Many more seeds: `cargo xtask sim --seeds 10000`.

#![allow(clippy::unwrap_used, reason = "a run that fails ends its test")]

use std::sync::Arc;
use std::time::Duration;

use peercompute_buffers::Grid;
use peercompute_net::membership::{Keep, Parts, Tuning};
use peercompute_net::sim::churn::faults::{Fault, Part, PlaceConfig, Scenario};
use peercompute_net::sim::churn::state::Rules;
use peercompute_net::sim::churn::trace::Trace;
use peercompute_net::sim::churn::{Churn, Outcome, Summary};

/// Runs a seed; a failure shows its latest lines.
fn run(seed: u64, peers_max: u16) -> Summary {
    let scenario = Scenario::draw(seed, peers_max);
    match Churn::new(scenario.clone()).run() {
        Ok(summary) => summary,
        Err(error) => {
            let mut trace = Trace::new(60);
            let _ = Churn::new(scenario).trace(|line| trace.add(line)).run();
            panic!("{error}\n{}", trace.into_text());
        }
    }
}

/// One seed in `shards`, so that test threads share the work.
fn check(shard: u64, shards: u64, seeds: u64) {
    let runs: Vec<Summary> = (shard..seeds).step_by(shards as usize).map(|seed| run(seed, 16)).collect();
    // Something has to have happened for this to mean anything.
    let sum = |of: fn(&Summary) -> u64| runs.iter().map(of).sum::<u64>();
    let runs_count = runs.len() as u64;
    assert!(runs.iter().filter(|run| run.is_finished()).count() as u64 > runs_count / 2);
    assert!(sum(|run| run.epochs) > 2 * runs_count && sum(|run| run.losses) > runs_count / 2 && sum(|run| run.rollbacks) > runs_count / 8);
}

#[test]
fn every_seed_holds_1() {
    check(0, 2, 300);
}

#[test]
fn every_seed_holds_2() {
    check(1, 2, 300);
}

#[test]
fn a_seed_repeats_to_the_bit() {
    for seed in [3, 4] {
        assert_eq!(run(seed, 16), run(seed, 16));
    }
}

#[test]
fn who_cannot_prove_what_it_keeps_is_left_out_and_named() {
    const PROOF: u8 = 62;
    let (mut caught, mut stuck) = (0, Vec::new());
    for seed in 0..40 {
        let mut scenario = Scenario::draw(seed, 8);
        scenario.faults.clear();
        let mut honest = Trace::new(1 << 20);
        let before = Churn::new(scenario.clone()).trace(|line| honest.add(line)).run().unwrap();
        assert!(!honest.into_text().contains("cannot prove"), "seed {seed}: nobody honest is accused");
        // Place 1 answers, and has not got the bytes.
        let mut trace = Trace::new(1 << 20);
        let lie = |from: u16, _to: u16, content: bytes::Bytes| {
            let mut bytes = content.to_vec();
            if from == 1 && bytes[0] == PROOF && bytes[17] == 1 {
                bytes[18] ^= 1;
            }
            vec![bytes::Bytes::from(bytes)]
        };
        scenario.survives = false;
        let after = Churn::new(scenario).tamper(lie).trace(|line| trace.add(line)).run();
        let text = trace.into_text();
        let after = after.unwrap_or_else(|error| panic!("{error}\n{text}"));
        caught += usize::from(text.contains("says that it keeps part") && text.contains("cannot prove it"));
        stuck.extend((before.is_finished() && !after.is_finished()).then_some(seed));
    }
    assert!(caught > 20, "{caught} of 40 liars were caught");
    assert!(stuck.is_empty(), "runs that did not go on without the liar: {stuck:?}");
}

#[test]
fn seeds_that_once_failed_hold() {
    // A roster out of order; a frame for a member without a link; an offer that came before the decision it was for.
    // A link full of tiles, taken for silence; a joiner that asked a host which was joining again itself.
    // A member left out because it could not reach one that was gone, which nobody else knew yet.
    for seed in [1099, 2563, 7764, 2686, 6172, 1139] {
        run(seed, 16);
    }
}

/// Peers of which two compute a tick in 20 ms, and nothing happens to any; the first hosts. The bytes of a point, and when each starts,
/// in milliseconds.
fn calm(seed: u64, point_bytes: u64, starts: &[u64]) -> Scenario {
    let grid = Grid::new(&[12, 12], &[2, 2]).unwrap();
    let parts = Arc::new(Parts::new(&[grid], &[point_bytes], 16).unwrap());
    let mut scenario = Scenario::draw(seed, starts.len() as u16);
    let place = |(at, starts): (usize, &u64)| PlaceConfig {
        starts: Duration::from_millis(*starts),
        part: if at == 0 { Part::Host } else { Part::Joiner },
        speed: 144.0 / 2.0 / 0.02,
        drift_ppm: 0,
        keep: Keep::Share,
        seeds: true,
        memory: 1 << 30,
    };
    scenario.rules = Arc::new(Rules::new(parts, 3, 5));
    scenario.places = starts.iter().enumerate().map(place).collect();
    (scenario.assemble, scenario.stored_at, scenario.faults) = (2, None, Vec::new());
    (scenario.delay, scenario.tuning) = ((Duration::from_micros(200), Duration::from_millis(1)), Tuning::default());
    scenario
}

/// Of two peers one leaves, and nothing else happens until it comes again as who it was.
#[test]
fn who_left_is_let_in_again() {
    for seed in 0..10 {
        let mut scenario = calm(seed, 64, &[0, 0]);
        (scenario.end, scenario.replicas) = (600, 1);
        scenario.faults = vec![(Duration::from_secs(3), Fault::Leave { back: Some(Duration::from_secs(2)) })];
        let summary = Churn::new(scenario).run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let outcomes: Vec<_> = summary.outcomes.iter().map(|(_, outcome)| outcome).collect();
        assert!(matches!(outcomes[..], [Outcome::Left, Outcome::Finished, Outcome::Finished]), "seed {seed}: {outcomes:?}");
    }
}

/// Three peers, whose links carry 400 kB/s; the third comes late and gets some 190 kB. How long the host goes without a tick
/// from then on, and a tick of its before, in seconds.
fn longest_pause(shadow_above: Duration) -> (f64, f64) {
    let mut scenario = calm(1, 4096, &[0, 0, 3000]);
    (scenario.end, scenario.replicas, scenario.link_bytes_per_s) = (400, 0, 400_000);
    scenario.tuning = Tuning { shadow_above, join_pause: Duration::from_secs(1), snapshot_every: Duration::from_secs(60), ..Tuning::default() };
    let mut ticks: Vec<(f64, u64)> = Vec::new();
    let see = |line: String| {
        if let (true, Some(at), Some((_, tick))) = (line.contains("place 0"), line.split_whitespace().next(), line.split_once(", tick: ")) {
            let tick = tick.split(',').next().unwrap().parse().unwrap();
            ticks.push((at.parse().unwrap(), tick));
        }
    };
    let summary = Churn::new(scenario).trace(see).run().unwrap();
    assert!(summary.is_finished() && summary.excluded == 0, "{summary:?}");
    assert_eq!(summary.taken_over, u64::from(shadow_above == Duration::ZERO));
    let gaps = |from: f64, to: f64| {
        let between = ticks.windows(2).filter(move |pair| pair[0].0 >= from && pair[1].0 < to);
        between.map(|pair| pair[1].0 - pair[0].0).fold(0.0, f64::max)
    };
    (gaps(3.0, f64::MAX), gaps(1.0, 3.0))
}

#[test]
fn nobody_waits_for_the_tiles_of_a_newcomer() {
    let (pause, tick) = longest_pause(Duration::ZERO);
    assert!(pause < 3.0 * tick, "{pause} s without a tick, of {tick} s");
    // Without shadows all wait for as long as the tiles are under way.
    let (pause, tick) = longest_pause(Duration::MAX);
    assert!(pause > 8.0 * tick, "{pause} s without a tick, of {tick} s");
}
