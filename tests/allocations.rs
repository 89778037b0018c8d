//! Heap allocations of a tick of two peers over loopback, once everything is warm.
//!
//! What a run allocates must be what a bare libp2p stream allocates, and the hooks in which threads wait for each other:
//! cpu executors allocate nothing. So the same ticks on the same executors without a network, the same exchanges by
//! sessions without executors, and bare streams are counted in the same run. All figures are for both peers together, and
//! differences of two lengths: neither dialling nor loading counts. One test, because the counter is the process'. That
//! the core and the pool allocate nothing at all is held in `net/tests/allocations.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod counting;

use std::ops::Range;
use std::time::Duration;

use counting::allocations;
use peercompute::node::Task;
use peercompute::node::member::{End, MemberNode, SharedTask, Throttle};
use peercompute::node::peer::{Split, host, join};
use peercompute::node::plan::{RunPlan, traffic};
use peercompute::world::{self, Terms};
use peercompute_bench::kernels::load;
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::executor::{ExecutorError, Run};
use peercompute_kernels::program::Op;
use peercompute_kernels::{Program, VerifiedBundle};
use peercompute_net::driver::{MemberSession, Session, SessionConfig};
use peercompute_net::membership::{Keep, Role, Tuning};
use peercompute_net::ownership::Ownership;
use peercompute_net::transport::TransportConfig;
use peercompute_net::transport::twin::{exchange_throughput, raw_stream_throughput};
use pollster::block_on;

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
const TICKS: u64 = 256;
const FRAMES: u64 = 1024;
/// What a run, or sessions whose nodes only wait, may allocate in a tick beyond bare streams, both peers together; measured:
/// 0 to 15, and 24 to 44 when payloads, frames and deliveries were made anew. What is left is, for each peer, a hook of
/// flume's when the node waits and one each time the driver does (1 to 3), and libp2p-stream's two lists of protocols each
/// time the connection is woken, which is oftener where reader and writer are apart.
const EXTRA_MAX: f64 = 18.0;

/// Allocations per tick of `work(ticks)`: the median of three.
fn per_tick(ticks: u64, mut work: impl FnMut(u64)) -> f64 {
    let mut counted = |ticks| {
        let before = allocations();
        work(ticks);
        (allocations() - before) as f64
    };
    let mut samples = [(); 3].map(|()| (-counted(ticks) + counted(2 * ticks)) / ticks as f64);
    samples.sort_by(f64::total_cmp);
    samples[1]
}

/// The ticks of two executors in one place, which exchange through `packed` and are flushed as often as nodes do it.
async fn advance(
    program: &Program,
    peers: &mut [AnyRun<'_>; 2],
    ticks: Range<u64>,
    flush_every: u64,
    packed: &mut Vec<u8>,
) -> Result<(), ExecutorError> {
    for (tick, &op) in ticks.flat_map(|tick| program.tick(tick).iter().map(move |op| (tick, op))) {
        let exchange = match op {
            Op::Exchange(exchange) => exchange,
            Op::Pass(pass) => {
                for peer in peers.iter_mut() {
                    peer.pass(pass, tick).await?;
                }
                continue;
            }
        };
        peers.iter_mut().try_for_each(|peer| peer.pack(exchange))?;
        for (from, to) in [(0, 1), (1, 0)] {
            packed.clear();
            peers[from].outbox(exchange, &mut |bytes| packed.extend_from_slice(bytes)).await?;
            let run = peers[from].layout().exchanges[exchange].send[to].clone();
            peers[to].inbox(exchange, from, &packed[run.start * 4..run.end * 4]);
        }
        for peer in peers.iter_mut() {
            peer.unpack(exchange).await?;
        }
        if tick % flush_every == 0 {
            peers.iter_mut().try_for_each(|peer| peer.flush())?;
        }
    }
    for peer in peers {
        peer.finish().await?;
    }
    Ok(())
}

/// A whole run of two peers, as two processes would have it; counts the times that a peer tells its progress.
fn run_shared(cpus: &[AnyExecutor; 2], bundle: &VerifiedBundle, ticks: u64, told: &mut u64) {
    let config = SessionConfig { bundle: bundle.program().hash, ..SessionConfig::default() };
    let session = Session::host(config.clone(), 2).unwrap();
    let address = session.addresses()[0].clone();
    let task = Task { ticks, ..Task::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(join(&cpus[1], bundle, &Session::join(config, &address).unwrap(), Vec::new())).unwrap());
        block_on(host(&cpus[0], bundle, &session, Split::Even, 0.0, &task, &mut |_| *told += 1)).unwrap();
    });
}

/// The same run by members of one whose peers come and go.
fn run_members(cpus: &[AnyExecutor; 2], bundle: &VerifiedBundle, ticks: u64) {
    let terms = |name: &str| Terms {
        transport: TransportConfig { listen: vec![LISTEN.into()], ..TransportConfig::default() },
        name: name.into(),
        speed: 0.0,
        computes: true,
        keep: Keep::Share,
        seeds: true,
        token: [0; 16],
        tuning: Tuning { balance: false, ..Tuning::default() },
    };
    let role = Role::Host { assemble: 2, end: ticks, task: SharedTask::default().to_bytes().unwrap(), replicas: 0, stored: None };
    let (host, parts) = block_on(world::start(bundle, role, terms("host"))).unwrap();
    let addresses = host.addresses().to_vec();
    let throttle = Throttle::default();
    let compute = |cpu, session: &MemberSession, parts| {
        let end = block_on(MemberNode::new(cpu, bundle, session, parts, Vec::new(), &throttle, &mut |_| {}).take_part()).unwrap();
        assert!(matches!(end, End::Finished(_)), "{end:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (session, parts) = block_on(world::start(bundle, Role::Join { addresses }, terms("guest"))).unwrap();
            compute(&cpus[1], &session, parts);
        });
        compute(&cpus[0], &host, parts);
    });
}

#[test]
fn a_tick_allocates_what_its_executors_and_libp2p_allocate() {
    let open = || AnyExecutor::from(Cpu::open(CpuOptions { threads: Some(1), compile_wait: Some(Duration::MAX), ..CpuOptions::default() }).unwrap());
    let cpus = [open(), open()];
    let bundle = load("heat", &[512, 64], &[512, 32]).unwrap();
    let program = bundle.program();
    let exchanges = program.tick(9).iter().filter(|op| matches!(op, Op::Exchange(_))).count();
    assert_eq!(exchanges, 1);
    let grids: Vec<_> = program.manifest.grids.iter().map(|grid| grid.grid).collect();
    let plan = RunPlan { ownership: Ownership::split(&grids, &[1.0; 2]), ticks: TICKS, changes: Vec::new(), gather: Vec::new() };
    let mut peers = [0, 1].map(|me| block_on(cpus[me].load(&bundle, &plan.placement(me, 2))).unwrap());
    let payload_bytes = traffic(peers[0].layout()).unwrap().exchanges[0].send[1];
    assert!(payload_bytes > 0);
    let (mut told, mut told_in) = (0, 0);
    let shared = per_tick(TICKS, |ticks| {
        told_in += ticks;
        run_shared(&cpus, &bundle, ticks, &mut told);
    });
    // On a busy machine frames come one by one, and each wakes somebody: the quieter of two measurements counts.
    let members = || per_tick(TICKS, |ticks| run_members(&cpus, &bundle, ticks));
    let members = members().min(members());
    let (mut tick, mut packed) = (0, Vec::new());
    let executors = per_tick(TICKS, |ticks| {
        let range = tick..tick + ticks;
        tick = range.end;
        block_on(advance(program, &mut peers, range, (told_in / told).max(1), &mut packed)).unwrap();
    });
    let session = per_tick(FRAMES, |frames| {
        exchange_throughput(LISTEN, payload_bytes, frames).unwrap();
    });
    let raw = per_tick(FRAMES, |frames| {
        raw_stream_throughput(LISTEN, payload_bytes, frames).unwrap();
    });
    let line = format!(
        "two peers, {payload_bytes} bytes each way: a run {shared:.1}, of members {members:.1}, its executors {executors:.1}, sessions {session:.1}, bare streams {raw:.1} allocations a tick"
    );
    eprintln!("{line}");
    assert!(raw > 0.0, "nothing was counted: {line}");
    assert!(executors.abs() < 0.1, "executors allocate: {line}");
    assert!(session <= raw + EXTRA_MAX, "sessions allocate by themselves: {line}");
    assert!(shared <= raw + EXTRA_MAX, "nodes allocate by themselves: {line}");
    assert!(members <= raw + EXTRA_MAX, "members allocate by themselves: {line}");
}
