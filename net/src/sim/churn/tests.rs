//! The simulation's own parts: nodes without members, and what a seed makes of a run.

use std::collections::BTreeSet;

use peercompute_buffers::Grid;

use super::state::{Rules, digest};
use super::*;
use crate::membership::{EpochPlan, Keep, MemberId, Origin, PartId, Parts};
use crate::ownership::PeerIndex;

fn rules(gather_every: u64) -> Arc<Rules> {
    let grids = [Grid::new(&[9, 6], &[2, 2]).unwrap(), Grid::new(&[7], &[3]).unwrap()];
    Arc::new(Rules::new(Arc::new(Parts::new(&grids, &[4, 8], 12).unwrap()), gather_every, 5))
}

fn plan(rules: &Rules, peers: u16, owner: impl Fn(u32) -> u16) -> Arc<EpochPlan> {
    let member = |id: u16| crate::membership::MemberInfo {
        id: MemberId(id.into()),
        identity: format!("sim-{id}"),
        name: String::new(),
        addresses: Vec::new(),
        speed: 1.0,
        memory: 1 << 20,
        keep: Keep::Share,
        seeds: true,
    };
    let plan = EpochPlan {
        epoch: 1,
        run: [1; 16],
        tick: 0,
        end: 12,
        origin: Origin::Init,
        replicas: 1,
        next_member: MemberId(peers.into()),
        roster: (0..peers).map(member).collect(),
        leaving: Vec::new(),
        owners: (0..rules.parts().tile_count() as u32).map(|part| PeerIndex(owner(part))).collect(),
        shadows: Vec::new(),
        sources: Vec::new(),
        hashes: Vec::new(),
        is_paused: false,
        changes: Vec::new(),
        task: Bytes::new(),
    };
    plan.check(rules.parts()).unwrap();
    Arc::new(plan)
}

/// Nodes in one epoch, exchanging without a member between them.
struct Table {
    nodes: Vec<Node>,
    checker: Checker,
    /// Posts that wait for the others', by peer.
    posts: Vec<Option<Vec<(PeerIndex, Bytes)>>>,
    snapshots: Vec<(PartId, u64)>,
    reports: u16,
}

impl Table {
    fn new(rules: &Arc<Rules>, plan: &Arc<EpochPlan>) -> Table {
        let mut checker = Checker::new(rules.clone());
        let config = NodeConfig { rules: rules.clone(), speed: 100.0, seeds: true, declines: false };
        let mut nodes: Vec<Node> = plan.roster.iter().map(|_| Node::new(config.clone())).collect();
        for (node, place) in nodes.iter_mut().zip(0u16..) {
            let id = checker.born(&format!("sim-{place}"), Keep::Share, place == 0);
            for output in [
                Output::Enter { plan: plan.clone(), me: PeerIndex(place), parts: Vec::new() },
                Output::Pace { epoch: 1, until: 20, snapshots: vec![0, 7] },
            ] {
                checker.heard(id, &output).unwrap();
                node.hear(output);
            }
        }
        Table { posts: vec![None; nodes.len()], nodes, checker, snapshots: Vec::new(), reports: 0 }
    }

    /// Lets everybody work until all wait; whether anybody did.
    fn work(&mut self) -> bool {
        let mut worked = false;
        for at in 0..self.nodes.len() {
            while let Some(takes) = self.nodes[at].work() {
                worked = true;
                for event in self.nodes[at].step(takes) {
                    self.checker.said(LifeId(at as u32), &event).unwrap();
                    match event {
                        Event::Post { payloads, .. } => self.posts[at] = Some(payloads),
                        Event::Snapshot { tick, parts, .. } => self.snapshots.extend(parts.into_iter().map(|(part, _)| (part, tick))),
                        Event::Report { .. } => self.reports += 1,
                        _ => {}
                    }
                }
            }
        }
        worked
    }

    fn deliver(&mut self, sequence: u64) {
        let posts = std::mem::replace(&mut self.posts, vec![None; self.nodes.len()]);
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let from_all = posts.iter().zip(0u16..);
            let mine = from_all.flat_map(|(post, from)| post.iter().flatten().map(move |(to, payload)| (from, *to, payload.clone())));
            let mine = mine.filter(|(_, to, _)| to.at() == at).map(|(from, _, payload)| (PeerIndex(from), payload));
            let output = Output::Deliver { epoch: 1, sequence, payloads: mine.collect() };
            self.checker.heard(LifeId(at as u32), &output).unwrap();
            node.hear(output);
            assert_eq!(node.misled(), None);
        }
    }
}

#[test]
fn nodes_compute_what_the_oracle_does() {
    for (peers, gather_every) in [(1, 1), (2, 1), (3, 2), (5, 3)] {
        let rules = rules(gather_every);
        // The last peer owns nothing.
        let plan = plan(&rules, peers, |part| (part % u32::from((peers - 1).max(1))) as u16);
        let mut table = Table::new(&rules, &plan);
        let mut sequence = 0;
        while table.work() && table.posts.iter().all(Option::is_some) {
            table.deliver(sequence);
            sequence += 1;
        }
        // Snapshots and reports passed the checker on their way; here is that they were there.
        let parts = rules.parts();
        for part in (0..parts.tile_count() as u32).map(PartId) {
            for tick in [0, 7, 12] {
                assert_eq!(table.snapshots.iter().filter(|taken| **taken == (part, tick)).count(), 1, "part {part} tick {tick}");
            }
        }
        assert_eq!((table.reports, sequence), (peers, 12 + 12 / gather_every));
    }
}

#[test]
fn a_wrong_digest_is_seen_in_the_next_snapshot() {
    let rules = rules(1);
    let plan = plan(&rules, 2, |part| u16::from(part > 6));
    let mut table = Table::new(&rules, &plan);
    table.work();
    let mut wrong = table.posts[0].clone().unwrap();
    let mut payload = wrong[0].1.to_vec();
    payload[0] ^= 1;
    wrong[0].1 = payload.into();
    // Behind the checker's back.
    table.nodes[1].hear(Output::Deliver { epoch: 1, sequence: 0, payloads: vec![(PeerIndex(0), wrong.remove(0).1)] });
    let computed = table.nodes[1].step(Duration::ZERO);
    assert!(matches!(computed[..], [Event::Post { exchange: node::GATHER, .. }]));
    let digest_of = |node: &mut Node| {
        node.hear(Output::Deliver { epoch: 1, sequence: 1, payloads: vec![(PeerIndex(0), Bytes::from(vec![0; 7 * 8]))] });
        node.step(Duration::ZERO);
        node.hear(Output::Pace { epoch: 1, until: 1, snapshots: vec![1] });
        node.step(Duration::ZERO)
    };
    let said = digest_of(&mut table.nodes[1]);
    assert!(said.iter().any(|event| matches!(event, Event::Snapshot { tick: 1, .. })), "{said:?}");
    for event in said {
        if let Event::Snapshot { .. } = event {
            assert!(matches!(table.checker.said(LifeId(1), &event), Err(CheckError::WrongPart { tick: 1, .. })));
        }
    }
}

#[test]
fn a_node_says_what_no_node_can_follow() {
    let rules = rules(1);
    let plan = plan(&rules, 2, |part| u16::from(part > 6));
    let misled = |change: &dyn Fn(&mut Node)| {
        let mut table = Table::new(&rules, &plan);
        table.work();
        change(&mut table.nodes[0]);
        table.nodes[0].misled().unwrap_or_default()
    };
    let pace = |snapshots| Output::Pace { epoch: 1, until: 9, snapshots };
    assert_eq!(misled(&|node| node.hear(pace(vec![0, 1]))), "");
    assert!(misled(&|node| node.hear(Output::Pace { epoch: 2, until: 9, snapshots: Vec::new() })).contains("not in"));
    assert!(misled(&|node| node.hear(pace(vec![9, 8]))).contains("out of order"));
    assert!(misled(&|node| node.hear(Output::Deliver { epoch: 1, sequence: 1, payloads: Vec::new() })).contains("was delivered"));
    assert!(misled(&|node| node.hear(Output::Deliver { epoch: 1, sequence: 0, payloads: Vec::new() })).contains("not delivered"));
    let some = Oracle::parts_at(rules.clone(), 0);
    let parts = vec![(PartId(3), some[3].clone())];
    assert!(misled(&|node| node.hear(Output::Enter { plan: plan.clone(), me: PeerIndex(0), parts: parts.clone() })).contains("not its own"));
}

#[test]
fn entering_abandons_what_was_under_way() {
    let rules = rules(1);
    let plan = plan(&rules, 2, |part| u16::from(part > 6));
    let mut table = Table::new(&rules, &plan);
    table.work();
    table.deliver(0);
    let node = &mut table.nodes[0];
    let before = node.generation();
    let mut later = (*plan).clone();
    (later.epoch, later.tick) = (2, 4);
    let all = Oracle::parts_at(rules.clone(), 4);
    let parts: Vec<(PartId, Bytes)> = plan.owned(PeerIndex(0)).chain([rules.parts().tables()]).map(|part| (part, all[part.at()].clone())).collect();
    node.hear(Output::Enter { plan: Arc::new(later), me: PeerIndex(0), parts });
    assert!(node.generation() > before);
    assert!(matches!(node.step(Duration::ZERO)[..], [Event::Entered { epoch: 2, .. }]));
    assert_eq!((node.tick(), node.work()), (4, None));
}

#[test]
fn clocks_drift_and_ring_in_time() {
    for ppm in [-10_000, 0, 10_000] {
        for nanos in [1u64, 999, 123_456_789, 60_000_000_000] {
            let deadline = Duration::from_nanos(nanos);
            let due = scaled(deadline, 1_000_000, 1_000_000 + ppm) + Duration::from_nanos(2);
            let local = scaled(due, 1_000_000 + ppm, 1_000_000);
            assert!(local >= deadline && local - deadline < Duration::from_nanos(5), "{ppm} {nanos}: {local:?}");
        }
    }
}

#[test]
fn seeds_make_runs_of_every_kind() {
    let drawn: Vec<Scenario> = (0..500).map(|seed| Scenario::draw(seed, 16)).collect();
    let sizes: BTreeSet<usize> = drawn.iter().map(|scenario| scenario.places.len()).collect();
    assert_eq!(sizes, (2..=16).collect());
    assert!(drawn.iter().filter(|scenario| scenario.survives).count() > 250);
    assert!(drawn.iter().all(|scenario| scenario.places[0].part == Part::Host && usize::from(scenario.assemble) <= scenario.places.len()));
    let kinds: BTreeSet<String> = drawn.iter().flat_map(|s| &s.faults).map(|(_, fault)| format!("{fault:?}")).collect();
    for kind in ["Crash", "Freeze", "Stall", "Slow", "OneWay", "Split", "Break", "Narrow", "Disturb", "Pause", "Leave", "Stop"] {
        assert!(kinds.iter().any(|drawn| drawn.starts_with(kind)), "{kind}");
    }
    let lossy = |scenario: &&Scenario| scenario.faults.iter().any(|(_, fault)| format!("{fault:?}").contains("Lossy"));
    assert!(drawn.iter().filter(lossy).all(|scenario| !scenario.survives) && drawn.iter().any(|scenario| lossy(&scenario)));
    assert_ne!(digest(format!("{:?}", drawn[0]).as_bytes()), digest(format!("{:?}", drawn[1]).as_bytes()));
    assert_eq!(format!("{:?}", drawn[3]), format!("{:?}", Scenario::draw(3, 16)));
}
