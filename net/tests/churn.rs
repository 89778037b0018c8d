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

#[test]
fn who_cannot_prove_what_it_keeps_is_left_out_and_named() {
    const PROOF: u8 = 62;
    let mut caught = 0;
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
        assert!(after.is_finished() || !before.is_finished(), "seed {seed}: the others go on");
    }
    assert!(caught > 20, "{caught} of 40 liars were caught");
}
