//! Runs whose peers come and go: every seed keeps the checkers' rules, and a seed repeats to the bit.
//!
//! Many more seeds: `cargo xtask sim --seeds 10000`.

#![allow(clippy::unwrap_used, reason = "a run that fails ends its test")]

use peercompute_net::sim::churn::faults::Scenario;
use peercompute_net::sim::churn::trace::Trace;
use peercompute_net::sim::churn::{Churn, Summary};

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
