//! Heap allocations of a tick on the cpu executor, once everything is warm: none, whatever a pass does and
//! however many threads share it out. One test, because the counter is the process'.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

#[path = "../../tests/counting/mod.rs"]
mod counting;

use std::path::Path;
use std::time::Duration;

use counting::allocations;
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions, CpuRun};
use peercompute_kernels::executor::{Placement, Run};
use peercompute_kernels::program::Op;
use peercompute_kernels::{Manifest, Overrides, Program, SecretKey, VerifiedBundle};
use pollster::block_on;

fn load(folder: &str) -> VerifiedBundle {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let overrides = Overrides { shapes: vec![(None, vec![128, 128])], tiles: vec![(None, vec![32, 32])], ..Overrides::default() };
    let manifest = Manifest::from_folder(&root.join(folder), &overrides).unwrap();
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::sign(manifest, &key).unwrap()
}

/// One tick of one peer whose twin's bytes are its own: what is sent to peer 1 arrives from peer 1.
async fn tick(program: &Program, run: &mut CpuRun, mail: &mut Vec<u8>, tick: u64) {
    for &op in program.tick(tick) {
        match op {
            Op::Pass(pass) => run.pass(pass, tick).await.unwrap(),
            Op::Exchange(exchange) => {
                run.pack(exchange).unwrap();
                mail.clear();
                run.outbox(exchange, &mut |bytes| mail.extend_from_slice(bytes)).await.unwrap();
                for peer in 0..2 {
                    let bytes = run.layout().exchanges[exchange].receive[peer].len() * 4;
                    mail.resize(mail.len().max(bytes), 0);
                    run.inbox(exchange, peer, &mail[..bytes]);
                }
                run.unpack(exchange).await.unwrap();
            }
        }
    }
}

#[test]
fn a_tick_allocates_nothing() {
    for threads in [1, 2] {
        let cpu = Cpu::open(CpuOptions { threads: Some(threads), compile_wait: Some(Duration::MAX), ..CpuOptions::default() }).unwrap();
        // A halo and swaps; a reduction by shares and its exchange.
        for folder in ["shaders/physics/heat", "shaders/physics/energy"] {
            let bundle = load(folder);
            let program = bundle.program();
            let owners = vec![(0..16).map(|tile| tile % 2).collect()];
            let mut run = block_on(cpu.load(&bundle, &Placement::new(0, 2, owners))).unwrap();
            let mut mail = Vec::new();
            let counted = block_on(async {
                for number in 0..4 {
                    tick(program, &mut run, &mut mail, number).await;
                }
                // The harness allocates on its own thread now and then: a window without that counts.
                let mut windows = [u64::MAX; 3];
                for (window, counted) in windows.iter_mut().enumerate() {
                    let before = allocations();
                    for number in 0..12 {
                        tick(program, &mut run, &mut mail, 4 + 12 * window as u64 + number).await;
                    }
                    *counted = allocations() - before;
                }
                windows
            });
            assert_eq!(counted.iter().min(), Some(&0), "{folder} on {threads} threads: {counted:?}");
        }
    }
}
