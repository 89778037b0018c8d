//! Every workload by a root and two tabs of a real browser together: on the cpu executor the bits of one peer alone; by WebGPU the
//! same where a workload is exact, and within its tolerance otherwise.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod place;
mod tabs;
mod workloads;

use std::path::Path;

use peercompute_kernels::Manifest;
use peercompute_kernels::declaration::Class;
use place::{Peer, Place};
use serde_json::Value;
use tabs::Chromium;
use workloads::{WORKLOADS, manifest};

const TICKS: &str = "30";
/// Of the root, so that tabs own most of a small world, whatever their GPU is made of.
const THROTTLE: &str = "0.01";

#[test]
fn tabs_and_a_process_compute_every_workload_on_the_cpu() {
    compute_all("cpu&threads=1");
}

#[test]
fn tabs_by_webgpu_and_a_process_compute_every_workload() {
    compute_all("gpu");
}

fn compute_all(executor: &str) {
    let tiles = WORKLOADS.map(|workload| compute(workload, executor));
    // A tab that comes while the machine has much else to do may be thought too slow for any.
    assert!(tiles.iter().filter(|tiles| **tiles > 0).count() > WORKLOADS.len() / 2, "{tiles:?}");
}

/// Tiles that tabs owned of it.
fn compute((folder, shape, tile): (&str, &[u32], &[u32]), executor: &str) -> u64 {
    let place = Place::new();
    let manifest = manifest(folder, shape, tile);
    let of = |who: &str, buffer: &str| place.path(&format!("{who}-{buffer}.npy"));
    let task = |who: &str| {
        let [shape, tile] = [shape, tile].map(|extents| extents.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        let mut task =
            [folder, "--shape", &shape, "--tile", &tile, "--ticks", TICKS, "--executor", "cpu", "--threads", "1"].map(str::to_owned).to_vec();
        for buffer in &manifest.buffers {
            task.extend(["--export".to_owned(), format!("{}={}", buffer.name, of(who, &buffer.name).display())]);
        }
        task
    };
    let args =
        |first: &str, task: Vec<String>, more: &[&str]| [vec![first.to_owned()], task, more.iter().map(|arg| (*arg).to_owned()).collect()].concat();
    let run = |args: Vec<String>| place.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let alone = run(args("run", task("alone"), &["--json"])).output().unwrap();
    let alone: Value = serde_json::from_slice(alone.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap()).unwrap();
    let more = ["--listen", "127.0.0.1:0", "--assemble", "3", "--throttle", THROTTLE];
    let mut root = Peer::start(run(args("serve", task("together"), &more)));
    let link = root.link();
    let mut browser = Chromium::start();
    for name in ["one", "two"] {
        browser.open(&link.replace("/#", &format!("/?executor={executor}&name={name}#")));
    }
    let hash = root.state_hash();
    let owned = root.heard(|line| {
        let members = line["members"].as_array().filter(|members| members.len() == 3)?;
        Some(members.iter().map(|member| member["tiles"].as_u64().unwrap()).collect::<Vec<_>>())
    });
    assert_eq!(browser.complaints(), [""; 0], "{folder}");
    match manifest.class {
        Class::Tolerance(tolerance) if executor == "gpu" => agree(&manifest, tolerance, &of),
        _ => assert_eq!(alone["state_hash"], hash, "{folder} by {executor}"),
    }
    owned[1..].iter().sum()
}

/// Compares what one peer exported alone with what the root did.
fn agree(manifest: &Manifest, tolerance: f64, of: &dyn Fn(&str, &str) -> std::path::PathBuf) {
    for buffer in &manifest.buffers {
        let [want, got] = ["alone", "together"].map(|who| words(&of(who, &buffer.name)));
        let ((header, want), (got_header, got)) = (want, got);
        assert_eq!((&header, want.len()), (&got_header, got.len()));
        let is_float = header.contains("<f4");
        for (at, (want, got)) in want.into_iter().zip(got).enumerate() {
            let [as_want, as_got] = [want, got].map(|word| f64::from(f32::from_bits(word)));
            let is_close = is_float && (as_got - as_want).abs() <= tolerance * as_want.abs().max(1.0);
            assert!(want == got || is_close, "{}.{}[{at}]: {as_got}, and {as_want} alone", manifest.name, buffer.name);
        }
    }
}

/// A file's header, and its data as words.
fn words(npy: &Path) -> (String, Vec<u32>) {
    let bytes = std::fs::read(npy).unwrap();
    let (header, data) = bytes.split_at(10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]])));
    (String::from_utf8_lossy(header).into_owned(), data.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
}
