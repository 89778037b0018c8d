//! Every workload in a real browser: the cpu executor there, as machine code and interpreted, computes the bits that it
//! computes natively.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::path::Path;
use std::time::Duration;

use peercompute::node::{Task, run_alone};
use peercompute_bench::browser::{self, Job};
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::{Manifest, Overrides, SecretKey, Trust, VerifiedBundle, bundle};
use pollster::block_on;

const TICKS: u32 = 50;
const WORKLOADS: [(&str, &[u32], &[u32]); 10] = [
    ("shaders/worldgen/noise", &[70, 45], &[16, 16]),
    ("shaders/worldgen/rivers", &[70, 45], &[16, 16]),
    ("shaders/physics/heat", &[70, 45], &[16, 16]),
    ("shaders/physics/life", &[70, 45], &[16, 16]),
    ("shaders/physics/wave3d", &[17, 9, 11], &[5, 4, 3]),
    ("shaders/physics/nbody", &[600], &[64]),
    ("shaders/physics/wave6", &[50, 37], &[16, 8]),
    ("shaders/image/gauss", &[50, 37], &[16, 8]),
    ("shaders/physics/energy", &[70, 45], &[16, 16]),
    ("examples/hello-workload", &[70, 45], &[16, 16]),
];

#[test]
fn a_browser_computes_the_same_bits() {
    let key = SecretKey::generate().unwrap();
    let executor = AnyExecutor::from(Cpu::open(CpuOptions::default()).unwrap());
    let mut jobs = Vec::new();
    let mut expected = Vec::new();
    for (folder, shape, tile) in WORKLOADS {
        let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
        let manifest = Manifest::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &overrides).unwrap();
        let signed = bundle::sign(&manifest, &key);
        let verified = VerifiedBundle::verify(&signed, &Trust::key(key.public())).unwrap();
        let task = Task { ticks: u64::from(TICKS), ..Task::default() };
        expected.push(block_on(run_alone(&executor, &verified, &task, &mut |_| {})).unwrap().state_hash);
        let executors = vec!["cpu".into(), "interpreter".into()];
        jobs.push(Job { bundle: signed, key: key.public().to_string(), executors, ticks: TICKS, ..Job::default() });
    }
    let answers = browser::run(&jobs, Duration::from_secs(120)).unwrap();
    for (((folder, ..), expected), answer) in WORKLOADS.iter().zip(expected).zip(answers) {
        let sides = answer.unwrap_or_else(|error| panic!("{folder}: {error}"));
        assert_eq!(sides.iter().map(|side| side.backend.as_str()).collect::<Vec<_>>(), ["browser", "interpreter"], "{folder}");
        for side in sides {
            assert_eq!(side.hash, expected, "{folder}, {}", side.backend);
        }
    }
}
