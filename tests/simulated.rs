//! Every workload over simulated peers: the shipped network core and the real executor on virtual
//! time, with delays and reordering between links from a seed. The state hash is the one-peer hash.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod workloads;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use peercompute::node::plan::{RunPlan, traffic};
use peercompute::state;
use peercompute_buffers::digest::StateDigest;
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun, Choice};
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::gpu::GpuOptions;
use peercompute_kernels::executor::{Placement, Run, mesh};
use peercompute_kernels::program::Op;
use peercompute_kernels::{SecretKey, VerifiedBundle};
use peercompute_net::core::{CoreConfig, Event, Output};
use peercompute_net::ownership::{Ownership, PeerIndex};
use peercompute_net::sim::{Faults, Outcome, SimNode, SimPeer, Simulation, peer_config};
use pollster::block_on;
use workloads::{WORKLOADS, manifest};

fn load(folder: &str, shape: &[u32], tile: &[u32]) -> VerifiedBundle {
    let manifest = manifest(folder, shape, tile);
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::sign(manifest, &key).unwrap()
}

/// A node of the simulation: the real executor, stepped by the core's outputs.
struct Node<'a> {
    executor: &'a AnyExecutor,
    bundle: &'a VerifiedBundle,
    ticks: u64,
    peers: usize,
    me: usize,
    ops: Vec<(u64, Op)>,
    at: usize,
    sequence: u64,
    run: Option<AnyRun<'a>>,
    result: Rc<RefCell<Vec<Option<Vec<StateDigest>>>>>,
}

impl<'a> Node<'a> {
    fn prepare(&mut self, plan: &RunPlan) -> peercompute_net::core::Traffic {
        let run = block_on(self.executor.load(self.bundle, &plan.placement(self.me, self.peers))).unwrap();
        let traffic = traffic(run.layout()).unwrap();
        self.run = Some(run);
        traffic
    }

    /// Goes on until something must come from others, or the end.
    fn step(&mut self) -> Vec<Event> {
        let run = self.run.as_mut().unwrap();
        while let Some(&(tick, op)) = self.ops.get(self.at) {
            match op {
                Op::Pass(pass) => block_on(run.pass(pass, tick)).unwrap(),
                Op::Exchange(exchange) => {
                    run.pack(exchange).unwrap();
                    let mut packed = Bytes::new();
                    block_on(run.outbox(exchange, &mut |bytes| packed = Bytes::copy_from_slice(bytes))).unwrap();
                    let sends = run.layout().exchanges[exchange].send.clone();
                    let payloads = sends.iter().enumerate().filter(|(_, range)| !range.is_empty());
                    let payloads = payloads.map(|(peer, range)| (PeerIndex(peer as u16), packed.slice(range.start * 4..range.end * 4))).collect();
                    return vec![Event::Post { sequence: self.sequence, exchange: exchange as u16, payloads }];
                }
            }
            self.at += 1;
        }
        self.result.borrow_mut()[self.me] = Some(block_on(state::digests(self.bundle.program(), run)).unwrap());
        vec![Event::Finish]
    }
}

impl SimNode for Node<'_> {
    fn on_output(&mut self, output: Output, _now: Duration) -> Vec<Event> {
        let program = self.bundle.program();
        match output {
            Output::Assemble { .. } => {
                let grids: Vec<_> = program.manifest.grids.iter().map(|grid| grid.grid).collect();
                let plan = RunPlan {
                    ownership: Ownership::split(&grids, &vec![1.0; self.peers]),
                    ticks: self.ticks,
                    changes: Vec::new(),
                    gather: Vec::new(),
                };
                let traffic = self.prepare(&plan);
                vec![Event::PlanMade { plan: plan.to_bytes().unwrap().into(), traffic, ownership: plan.ownership }]
            }
            Output::PlanReceived { plan, index, .. } => {
                let plan = RunPlan::from_bytes(&plan, program, self.peers).unwrap();
                self.me = index.at();
                let traffic = self.prepare(&plan);
                vec![Event::PlanAccepted { traffic, ownership: plan.ownership }]
            }
            Output::Start => self.step(),
            Output::Deliver { payloads, .. } => {
                let Op::Exchange(exchange) = self.ops[self.at].1 else { panic!("a delivery between exchanges") };
                let run = self.run.as_mut().unwrap();
                for (peer, payload) in payloads {
                    run.inbox(exchange, peer.at(), &payload);
                }
                block_on(run.unpack(exchange)).unwrap();
                self.at += 1;
                self.sequence += 1;
                self.step()
            }
            Output::Failed(error) => panic!("{error}"),
            _ => Vec::new(),
        }
    }
}

fn simulate(executor: &AnyExecutor, bundle: &VerifiedBundle, peers: u16, ticks: u64, seed: u64) -> String {
    let program = bundle.program();
    let ops: Vec<(u64, Op)> =
        program.init.iter().map(|&op| (0, op)).chain((0..ticks).flat_map(|tick| program.tick(tick).iter().map(move |&op| (tick, op)))).collect();
    let result = Rc::new(RefCell::new(vec![None; usize::from(peers)]));
    let nodes = (0..peers).map(|place| {
        let config = CoreConfig { bundle: program.hash, ..peer_config(place, peers) };
        let node = Node {
            executor,
            bundle,
            ticks,
            peers: usize::from(peers),
            me: 0,
            ops: ops.clone(),
            at: 0,
            sequence: 0,
            run: None,
            result: result.clone(),
        };
        SimPeer { config, node: Box::new(node) }
    });
    let report =
        Simulation::new(seed, nodes.collect(), Faults::default()).run(Duration::from_secs(3600)).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Finished)), "seed {seed}: {:?}", report.outcomes);
    let mut sums = vec![StateDigest::default(); program.elements.len()];
    for (peer, digests) in result.borrow().iter().enumerate() {
        let digests = digests.as_ref().unwrap();
        for (buffer, digest) in digests.iter().enumerate() {
            if program.grid_of(buffer).is_some() {
                sums[buffer].add(*digest);
            } else if peer == 0 {
                sums[buffer] = *digest;
            } else {
                assert_eq!(sums[buffer], *digest, "peers disagree on a table");
            }
        }
    }
    state::hash(program, &sums)
}

#[test]
fn every_workload_gives_the_one_peer_hash_over_simulated_peers() {
    let executor = block_on(AnyExecutor::open(&Choice::Auto, GpuOptions::default(), CpuOptions::default())).unwrap();
    for (number, (folder, shape, tile)) in WORKLOADS.into_iter().enumerate() {
        let bundle = load(folder, shape, tile);
        let program = bundle.program();
        let alone = block_on(async {
            let mut run = [executor.load(&bundle, &Placement::alone(program)).await.unwrap()];
            mesh::run(program, &mut run, 0..100).await.unwrap();
            state::hash(program, &block_on(state::digests(program, &mut run[0])).unwrap())
        });
        for peers in [2, 3, 4, 7] {
            let seed = 1000 * number as u64 + u64::from(peers);
            assert_eq!(simulate(&executor, &bundle, peers, 100, seed), alone, "{folder} on {peers} peers, seed {seed}");
        }
    }
}
