//! Every workload in a real browser: the cpu executor there, as machine code and interpreted, computes the bits that it
//! computes natively, in one worker and in several, as one peer and as several. WebGPU computes the same where a workload is exact.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod workloads;

use std::collections::BTreeMap;
use std::time::Duration;

use peercompute::node::{Task, run_alone};
use peercompute_bench::browser::{self, Job, Page, Side};
use peercompute_kernels::declaration::{Class, Declaration};
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::{Manifest, Overrides, Program, SecretKey, Trust, VerifiedBundle, bundle};
use pollster::block_on;
use workloads::{WORKLOADS, manifest};

const TICKS: u32 = 50;
/// Of a partition within one worker.
const PEERS: u32 = 3;
/// Of those that share a dispatch out.
const WORKERS: u32 = 2;

fn signed(manifest: &Manifest, key: &SecretKey) -> Vec<u8> {
    bundle::sign(&Program::check(manifest.clone()).unwrap(), key)
}

fn hello() -> Manifest {
    manifest("examples/hello-workload", &[256, 256], &[64, 64])
}

/// A workload whose first tick takes days.
fn endless() -> Manifest {
    let toml = r#"
        name = "endless"
        version = "1.0.0"
        class = "exact"
        grid = { shape = [64], tile = [64] }
        [buffers.v]
        element = "u32"
        [[passes]]
        kernel = "endless.wgsl"
        entry = "spin"
        writes = ["v"]
    "#;
    let wgsl = "var<storage, read_write> v_next: array<u32>;
        @compute @workgroup_size(64) fn spin(@builtin(global_invocation_id) id: vec3<u32>) {
            let c = cell(id);
            if (!c.inside) { return; }
            var x = c.coord.x;
            for (var i = 0u; i < 4000000000u; i++) { for (var j = 0u; j < 4000000000u; j++) { x = x * 747796405u + 2891336453u; } }
            v_next[c.index] = x;
        }";
    let declaration = Declaration::parse(toml, &Overrides::default()).unwrap();
    Manifest::new(&declaration, &BTreeMap::from([("endless.wgsl".to_string(), wgsl.to_string())])).unwrap()
}

#[test]
fn a_kernel_that_never_ends_is_stopped_and_its_worker_goes_on() {
    let key = SecretKey::generate().unwrap();
    let job = |manifest: &Manifest, executor: &str| Job {
        bundle: signed(manifest, &key),
        key: key.public().to_string(),
        sides: vec![Side::alone(executor)],
        ticks: 1,
        time_limit_seconds: Some(0.5),
        ..Job::default()
    };
    let hello = hello();
    let endless = endless();
    let jobs = ["cpu", "interpreter"].map(|executor| [job(&endless, executor), job(&hello, executor)]).concat();
    let answers = browser::run(&jobs, Page::Isolated, Duration::from_secs(60)).unwrap();
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Err(error) if number % 2 == 0 => assert!(error.contains("`spin` was stopped") && error.contains("more than 0.5 s"), "{error}"),
            Ok(_) if number % 2 == 1 => {}
            other => panic!("job {number}: {other:?}"),
        }
    }
}

#[test]
fn a_page_that_may_not_share_memory_computes_in_one_worker() {
    let key = SecretKey::generate().unwrap();
    let hello = hello();
    let sides = vec![Side { threads: Some(4), ..Side::alone("cpu") }, Side::alone("cpu")];
    let job = Job { bundle: signed(&hello, &key), key: key.public().to_string(), sides, ticks: 5, ..Job::default() };
    for (page, threads) in [(Page::Plain, "1 thread"), (Page::Isolated, "4 threads")] {
        let sides = browser::run(std::slice::from_ref(&job), page, Duration::from_secs(60)).unwrap().remove(0).unwrap();
        assert_eq!((sides[0].adapter.as_str(), sides[1].adapter.as_str()), (threads, "1 thread"), "{page:?}");
        assert_eq!(sides[0].hash, sides[1].hash, "{page:?}");
    }
}

#[test]
fn what_another_key_signed_is_refused() {
    let [key, other] = [(); 2].map(|()| SecretKey::generate().unwrap());
    let hello = hello();
    let signed = signed(&hello, &key);
    let mut forged = signed.clone();
    *forged.last_mut().unwrap() ^= 1;
    let job = |bundle: &[u8], key: String| Job { bundle: bundle.to_vec(), key, sides: vec![Side::alone("cpu")], ticks: 1, ..Job::default() };
    let jobs = [
        job(&signed, other.public().to_string()),
        job(&forged, key.public().to_string()),
        job(&signed, "no key".into()),
        job(&[], key.public().to_string()),
    ];
    let words = ["not a trusted key", "the bundle was changed", "not a public key", "not a bundle"];
    for (words, answer) in words.iter().zip(browser::run(&jobs, Page::Plain, Duration::from_secs(60)).unwrap()) {
        let error = answer.expect_err(words);
        assert!(error.contains(words), "{words}: {error}");
    }
}

/// With WebGPU the signer is believed; whoever compiles kernels looks at them.
#[test]
fn what_a_bundle_says_of_its_kernels_is_checked_before_they_are_compiled() {
    let key = SecretKey::generate().unwrap();
    let mut program = Program::check(hello()).unwrap();
    program.passes[0].workgroup_bytes += 4;
    let job = |executor: &str| Job {
        bundle: bundle::sign(&program, &key),
        key: key.public().to_string(),
        sides: vec![Side::alone(executor)],
        ticks: 1,
        ..Job::default()
    };
    let answers = browser::run(&["gpu", "cpu", "interpreter"].map(job), Page::Plain, Duration::from_secs(60)).unwrap();
    let [Ok(_), refused @ ..] = &answers[..] else { panic!("{answers:?}") };
    for answer in refused {
        let error = answer.as_ref().unwrap_err();
        assert!(error.contains("is not what they are"), "{error}");
    }
}

/// Sums over subgroups, whose size shows.
fn of_subgroups() -> Manifest {
    let toml = r#"
        name = "subgroups"
        version = "1.0.0"
        class = "display"
        grid = { shape = [200], tile = [64] }
        [buffers.v]
        element = "vec2<u32>"
        [[passes]]
        kernel = "sums.wgsl"
        entry = "add"
        reads = ["v"]
        writes = ["v"]
    "#;
    let wgsl = "enable subgroups;
        var<storage, read> v: array<vec2<u32>>;
        var<storage, read_write> v_next: array<vec2<u32>>;
        @compute @workgroup_size(64) fn add(@builtin(global_invocation_id) id: vec3<u32>, @builtin(subgroup_size) size: u32) {
            let c = cell(id);
            let x = select(3u, v[c.index].x + c.coord.x, c.inside);
            var sum = subgroupInclusiveAdd(x);
            if (x % 3u == 0u) { sum += subgroupShuffleXor(sum, 1u); }
            if (c.inside) { v_next[c.index] = vec2<u32>(sum, size); }
        }";
    let declaration = Declaration::parse(toml, &Overrides::default()).unwrap();
    Manifest::new(&declaration, &BTreeMap::from([("sums.wgsl".to_string(), wgsl.to_string())])).unwrap()
}

#[test]
fn subgroups_are_the_cpu_executors_alone() {
    let key = SecretKey::generate().unwrap();
    let signed = signed(&of_subgroups(), &key);
    let verified = VerifiedBundle::verify(&signed, &Trust::key(key.public())).unwrap();
    let executor = AnyExecutor::from(Cpu::open(CpuOptions::default()).unwrap());
    let task = Task { ticks: 5, ..Task::default() };
    let expected = block_on(run_alone(&executor, &verified, &task, &mut |_| {})).unwrap().state_hash;
    let job = |sides: Vec<Side>| Job { bundle: signed.clone(), key: key.public().to_string(), sides, ticks: 5, ..Job::default() };
    let jobs = [job(vec![Side::alone("cpu"), Side::alone("interpreter")]), job(vec![Side::alone("gpu")])];
    let answers = browser::run(&jobs, Page::Plain, Duration::from_secs(60)).unwrap();
    let [Ok(on_cpu), Err(on_gpu)] = &answers[..] else { panic!("{answers:?}") };
    assert!(on_cpu.iter().all(|side| side.hash == expected), "{on_cpu:?}, and not {expected}");
    assert!(on_gpu.contains("subgroups in `add`: 1, and the feature `subgroups` is 0"), "{on_gpu}");
}

#[test]
fn a_browser_computes_the_same_bits() {
    let key = SecretKey::generate().unwrap();
    let executor = AnyExecutor::from(Cpu::open(CpuOptions::default()).unwrap());
    let mut jobs = Vec::new();
    let mut expected = Vec::new();
    for (folder, shape, tile) in WORKLOADS {
        // Of the listed sizes most dispatches are too small to share out.
        let (shape, tile): (&[u32], &[u32]) = if folder.ends_with("heat") { (&[300, 200], &[128, 64]) } else { (shape, tile) };
        let manifest = manifest(folder, shape, tile);
        let signed = signed(&manifest, &key);
        let verified = VerifiedBundle::verify(&signed, &Trust::key(key.public())).unwrap();
        let task = Task { ticks: u64::from(TICKS), ..Task::default() };
        let outcome = block_on(run_alone(&executor, &verified, &task, &mut |_| {})).unwrap();
        expected.push((outcome.state_hash, manifest.class == Class::Exact));
        // The page is cross-origin isolated, so workers share the work where nothing forbids it.
        let sides = vec![Side { threads: Some(WORKERS), ..Side::alone("cpu") }, Side::alone("cpu"), Side::alone("interpreter"), Side::alone("gpu")];
        let job = Job { bundle: signed, key: key.public().to_string(), sides, ticks: TICKS, ..Job::default() };
        jobs.extend([job.clone(), Job { peers: Some(PEERS), ..job }]);
    }
    let answers = browser::run(&jobs, Page::Isolated, Duration::from_secs(120)).unwrap();
    let adapter = |workers: u32| format!("{workers} thread{}", if workers == 1 { "" } else { "s" });
    let expected = WORKLOADS.iter().zip(expected).flat_map(|workload| [workload.clone(), workload]);
    for (((folder, ..), (expected, is_exact)), answer) in expected.zip(answers) {
        let sides = answer.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let ran: Vec<_> = sides.iter().map(|side| (side.adapter.clone(), side.backend.as_str())).collect();
        assert_eq!(ran[..3], [(adapter(WORKERS), "browser"), (adapter(1), "browser"), (adapter(1), "interpreter")], "{folder}");
        assert_eq!(ran[3].1, "WebGPU", "{folder}");
        for side in sides.iter().filter(|side| side.executor == "cpu" || is_exact) {
            assert_eq!(side.hash, expected, "{folder}, {} {}", side.adapter, side.backend);
        }
    }
}
