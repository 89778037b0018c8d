//! Members of a run whose peers come and go, in one process: real sockets, real executors, a thread each.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another thread takes a clock")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use peercompute::node::member::{End, MemberNode, SharedTask, Throttle, Told};
use peercompute::node::{NodeError, Outcome, Task, run_alone};
use peercompute::world::{Terms, start};
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::{Manifest, Overrides, SecretKey, VerifiedBundle};
use peercompute_net::driver::MemberSession;
use peercompute_net::membership::{Keep, MemberError, Notice, Role, Tuning};
use peercompute_net::transport::TransportConfig;
use pollster::block_on;

const TICKS: u64 = 60;

/// Six tiles of heat.
fn heat() -> VerifiedBundle {
    heat_of([96, 64], [32, 32])
}

fn heat_of(shape: [u32; 2], tile: [u32; 2]) -> VerifiedBundle {
    let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
    let manifest = Manifest::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/physics/heat"), &overrides).unwrap();
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::sign(manifest, &key).unwrap()
}

fn cpu(memory_bytes_max: Option<u64>) -> AnyExecutor {
    Cpu::open(CpuOptions { threads: Some(1), memory_bytes_max, ..CpuOptions::default() }).unwrap().into()
}

fn terms(name: &str) -> Terms {
    Terms {
        transport: TransportConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".into()], ..TransportConfig::default() },
        name: name.into(),
        speed: 0.0,
        computes: true,
        keep: Keep::Share,
        seeds: true,
        token: [7; 16],
        tuning: Tuning::default(),
    }
}

/// Takes part to the end on an executor.
fn take_part(
    bundle: &VerifiedBundle,
    executor: &AnyExecutor,
    role: Role,
    name: &str,
    throttle: &Throttle,
    started: impl FnOnce(&MemberSession),
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Box<Outcome>, NodeError> {
    let (session, parts) = block_on(start(bundle, role, terms(name))).unwrap();
    started(&session);
    match block_on(MemberNode::new(executor, bundle, &session, parts, Vec::new(), throttle, tell).take_part())? {
        End::Finished(outcome) => Ok(outcome),
        End::Left => panic!("{name} left"),
    }
}

fn host_role(assemble: u16) -> Role {
    Role::Host { assemble, end: TICKS, task: SharedTask::default().to_bytes().unwrap(), replicas: 1, stored: None }
}

#[test]
fn members_without_tiles_take_part() {
    let bundle = heat();
    let alone = block_on(run_alone(&cpu(None), &bundle, &Task { ticks: TICKS, ..Task::default() }, &mut |_| {})).unwrap();
    let (say, hear) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let bundle = &bundle;
        let mut members = vec![scope.spawn(move || {
            let started = |session: &MemberSession| say.send(session.addresses().to_vec()).unwrap();
            take_part(bundle, &cpu(None), host_role(8), "host", &Throttle::default(), started, &mut |_| {})
        })];
        let addresses = hear.recv().unwrap();
        for index in 1..8 {
            let role = Role::Join { addresses: addresses.clone() };
            members.push(
                scope.spawn(move || take_part(bundle, &cpu(None), role, &format!("member {index}"), &Throttle::default(), |_| {}, &mut |_| {})),
            );
        }
        for member in members {
            let outcome = member.join().unwrap().unwrap();
            assert_eq!((&outcome.state_hash, outcome.adapters.len()), (&alone.state_hash, 8));
        }
    });
}

#[test]
fn a_newcomer_catches_up_in_the_shadow_of_owners() {
    // A megabyte to come: others would wait for it.
    let bundle = heat_of([1024, 512], [128, 128]);
    let alone = block_on(run_alone(&cpu(None), &bundle, &Task { ticks: TICKS, ..Task::default() }, &mut |_| {})).unwrap();
    let (say, hear) = std::sync::mpsc::sync_channel(1);
    // The host takes its time until the newcomer owns something.
    let throttle = Throttle::default();
    throttle.set(0.02);
    // Tiles that the newcomer shadows and owns, in the order of its epochs.
    let seen = std::sync::Mutex::new(Vec::new());
    let mut tell = |told: Told<'_>| {
        if let Told::Entered { plan, me } = told {
            let owned = plan.owned(me).count();
            seen.lock().unwrap().push((plan.computed(me).count() - owned, owned));
            throttle.set(if owned > 0 { 1.0 } else { 0.02 });
        }
    };
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            let started = |session: &MemberSession| say.send(session.addresses().to_vec()).unwrap();
            take_part(&bundle, &cpu(None), host_role(1), "host", &throttle, started, &mut |_| {})
        });
        let role = Role::Join { addresses: hear.recv().unwrap() };
        let joined = take_part(&bundle, &cpu(None), role, "newcomer", &Throttle::default(), |_| {}, &mut tell).unwrap();
        assert_eq!((&joined.state_hash, &host.join().unwrap().unwrap().state_hash), (&alone.state_hash, &alone.state_hash));
    });
    let seen = seen.into_inner().unwrap();
    let (shadowed, owned) = (seen[0], seen.get(1).copied());
    assert!(shadowed.0 > 0 && owned == Some((0, shadowed.0)), "it shadows tiles, and then owns them: {seen:?}");
}

#[test]
fn who_has_no_memory_for_its_share_is_turned_away_and_the_run_goes_on() {
    let bundle = heat();
    let alone = block_on(run_alone(&cpu(None), &bundle, &Task { ticks: TICKS, ..Task::default() }, &mut |_| {})).unwrap();
    let (say, hear) = std::sync::mpsc::sync_channel(1);
    // The host waits for what is to happen: its first ticks take as long as they need.
    let (throttle, was_told) = (Throttle::default(), AtomicBool::new(false));
    throttle.set(0.001);
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            let started = |session: &MemberSession| say.send(session.addresses().to_vec()).unwrap();
            let mut tell = |told: Told<'_>| {
                if let Told::Notice(Notice::Refused { name, text }) = told {
                    assert!(name == "poor" && text.contains("memory"), "{name}: {text}");
                    was_told.store(true, Ordering::Relaxed);
                }
            };
            take_part(&bundle, &cpu(None), host_role(1), "host", &throttle, started, &mut tell)
        });
        let role = Role::Join { addresses: hear.recv().unwrap() };
        let refused = take_part(&bundle, &cpu(Some(16 << 10)), role, "poor", &Throttle::default(), |_| {}, &mut |_| {}).unwrap_err();
        assert!(matches!(&refused, NodeError::Member(MemberError::Stopped { text }) if text.contains("memory")), "{refused}");
        throttle.set(1.0);
        assert_eq!(host.join().unwrap().unwrap().state_hash, alone.state_hash);
    });
    assert!(was_told.into_inner());
}

#[test]
fn a_member_that_was_slow_gets_tiles_again_once_it_is_well() {
    let bundle = heat();
    let (say, hear) = std::sync::mpsc::sync_channel(1);
    let (own, other) = (Throttle::default(), Throttle::default());
    // Both slow enough that the rest of the machine does not decide.
    own.set(0.05);
    other.set(0.05);
    let is_over = AtomicBool::new(false);
    // Tiles of the joiner in the order of its epochs.
    let tiles = std::sync::Mutex::new(Vec::new());
    let endless = |role| match role {
        Role::Host { assemble, task, replicas, stored, .. } => Role::Host { assemble, end: u64::MAX, task, replicas, stored },
        other => other,
    };
    let leave = |session: &MemberSession| {
        if is_over.load(Ordering::Relaxed) {
            let _ = session.send(peercompute_net::membership::Event::Leave);
        }
    };
    let take_part = |kind, name: &str, throttle: &Throttle, started: Box<dyn FnOnce(&MemberSession) + Send>, count: bool| {
        let (session, parts) = block_on(start(&bundle, endless(kind), terms(name))).unwrap();
        started(&session);
        let mut tell = |told: Told<'_>| {
            if let (Told::Entered { plan, me }, true) = (&told, count) {
                tiles.lock().unwrap().push(plan.owned(*me).count());
            }
            leave(&session);
        };
        let executor = cpu(None);
        let end = block_on(MemberNode::new(&executor, &bundle, &session, parts, Vec::new(), throttle, &mut tell).take_part()).unwrap();
        assert!(matches!(end, End::Left));
    };
    let (take_part, own, other) = (&take_part, &own, &other);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let started = Box::new(move |session: &MemberSession| say.send(session.addresses().to_vec()).unwrap());
            take_part(host_role(1), "host", own, started, false);
        });
        let role = Role::Join { addresses: hear.recv().unwrap() };
        scope.spawn(move || take_part(role, "joiner", other, Box::new(|_| {}), true));
        let wait = |what: &str, is_so: &dyn Fn(&[usize]) -> bool| {
            let begun = std::time::Instant::now();
            while !is_so(&tiles.lock().unwrap()) {
                let seen = tiles.lock().unwrap().clone();
                if begun.elapsed().as_secs() >= 60 {
                    is_over.store(true, Ordering::Relaxed);
                    panic!("{what}: it had {seen:?}");
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        };
        wait("it gets a share", &|tiles| tiles.last().is_some_and(|tiles| *tiles > 0));
        other.set(0.001);
        wait("it sheds them all", &|tiles| tiles.last() == Some(&0));
        other.set(0.05);
        wait("it gets some again", &|tiles| tiles.last().is_some_and(|tiles| *tiles > 0));
        is_over.store(true, Ordering::Relaxed);
    });
}
