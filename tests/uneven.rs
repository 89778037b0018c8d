//! Peers of different haste in one run: whoever is done early waits for nobody that it owes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::path::Path;
use std::time::Duration;

use peercompute::node::peer::{Split, host, join};
use peercompute::node::{Task, run_alone};
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::{Manifest, Overrides, SecretKey, VerifiedBundle};
use peercompute_net::driver::{Session, SessionConfig};
use pollster::block_on;

/// Three tiles in a row, so that peers 0 and 2 exchange nothing.
fn row() -> VerifiedBundle {
    let overrides = Overrides { shapes: vec![(None, vec![32, 96])], tiles: vec![(None, vec![32, 32])], ..Overrides::default() };
    let manifest = Manifest::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/physics/heat"), &overrides).unwrap();
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::sign(manifest, &key).unwrap()
}

/// The coordinator dawdles before its last ticks. Peer 1 has shipped all that peer 2 waits for by then, so the last words
/// and tiles of peer 2 come to the coordinator in the midst of its own exchange.
#[test]
fn a_peer_that_is_done_before_the_coordinator_is_heard_in_time() {
    let bundle = row();
    let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
    let cpus = [(); 3].map(|()| AnyExecutor::from(Cpu::open(options.clone()).unwrap()));
    let buffer = bundle.program().manifest.buffers.iter().position(|buffer| buffer.name == "temperature").unwrap();
    let task = Task { ticks: 3, gather: vec![buffer], ..Task::default() };
    let alone = block_on(run_alone(&cpus[0], &bundle, &task, &mut |_| {})).unwrap();

    let config = SessionConfig { bundle: bundle.program().hash, ..SessionConfig::default() };
    let session = Session::host(config.clone(), 3).unwrap();
    let address = session.addresses()[0].as_str();
    let shared = std::thread::scope(|scope| {
        for cpu in &cpus[1..] {
            let (config, bundle) = (config.clone(), &bundle);
            scope.spawn(move || block_on(join(cpu, bundle, &Session::join(config, address).unwrap(), Vec::new())).unwrap());
        }
        // A nap is longer than progress may go untold, so there is one after every tick.
        let nap = Duration::from_millis(200);
        block_on(host(&cpus[0], &bundle, &session, Split::Even, 0.0, &task, &mut |_| std::thread::sleep(nap))).unwrap()
    });
    assert_eq!(shared.state_hash, alone.state_hash);
    assert_eq!(shared.gathered, alone.gathered);
}
