//! Whole runs over many seeds: lockstep, staleness, and every fault with the report it must give.

use super::*;
use crate::core::{CommitBody, ExchangeTraffic, Owed, Traffic};
use crate::ownership::{Ownership, PeerIndex};
use peercompute_buffers::Grid;

const EXCHANGES: u16 = 3;

/// A node that knows what every payload must be. Exchange 0 is a ring both ways, exchange 1 goes one way
/// to the next peer, exchange 2 gathers to peer 0.
struct Lockstep {
    me: PeerIndex,
    peers: u16,
    ticks: u64,
    exact: bool,
    commits: u32,
    reports: u16,
}

fn lockstep(peers: u16, ticks: u64, exact: bool) -> Lockstep {
    Lockstep { me: PeerIndex(0), peers, ticks, exact, commits: 0, reports: 0 }
}

fn grid() -> Grid {
    Grid { shape: [160, 160, 1], tile: [16, 16, 1], dims: 2 }
}

fn ownership(peers: u16) -> Ownership {
    Ownership::split(&[grid()], &vec![1.0; usize::from(peers)])
}

/// Bytes that `from` sends to `to`; both know them.
fn size(exchange: u16, from: u16, to: u16, peers: u16) -> u32 {
    let next = (from + 1) % peers;
    let ring = next == to || (to + 1) % peers == from;
    let sends = match exchange {
        _ if from == to => false,
        0 => ring,
        1 => next == to,
        _ => to == 0,
    };
    if sends { 8 + u32::from(from) + 3 * u32::from(exchange) } else { 0 }
}

fn traffic(me: u16, peers: u16) -> Traffic {
    let exchanges = (0..EXCHANGES).map(|id| ExchangeTraffic {
        send: (0..peers).map(|other| size(id, me, other, peers)).collect(),
        receive: (0..peers).map(|other| size(id, other, me, peers)).collect(),
    });
    Traffic { exchanges: exchanges.collect() }
}

fn payload(sequence: u64, from: u16, to: u16, bytes: u32) -> Bytes {
    let mut random = fastrand::Rng::with_seed(sequence << 32 | u64::from(from) << 16 | u64::from(to));
    (0..bytes).map(|_| random.u8(..)).collect()
}

impl Lockstep {
    fn post(&self, sequence: u64) -> Event {
        let exchange = (sequence % u64::from(EXCHANGES)) as u16;
        let payloads = (0..self.peers).filter_map(|to| {
            let bytes = size(exchange, self.me.0, to, self.peers);
            (bytes > 0).then(|| (PeerIndex(to), payload(sequence, self.me.0, to, bytes)))
        });
        Event::Post { sequence, exchange, payloads: payloads.collect() }
    }

    fn end(&self) -> Vec<Event> {
        let ownership = ownership(self.peers);
        let commits = ownership.owned(0, self.me).map(|tile| CommitBody { grid: 0, tile: tile.0, body: Bytes::from_static(b"tile") });
        vec![Event::Publish { to: PeerIndex(0), commits: commits.collect() }, Event::Report(Bytes::from_static(b"fine")), Event::Finish]
    }
}

impl SimNode for Lockstep {
    fn on_output(&mut self, output: Output, _now: Duration) -> Vec<Event> {
        match output {
            Output::Assemble { joiners } => {
                assert_eq!(joiners.len() + 1, usize::from(self.peers));
                let ownership = ownership(self.peers);
                vec![Event::PlanMade { plan: Bytes::from_static(b"plan"), traffic: traffic(0, self.peers), ownership }]
            }
            Output::PlanReceived { index, roster, plan, .. } => {
                assert_eq!((roster.len(), &plan[..]), (usize::from(self.peers), &b"plan"[..]));
                self.me = index;
                vec![Event::PlanAccepted { traffic: traffic(index.0, self.peers), ownership: ownership(self.peers) }]
            }
            Output::Start => vec![self.post(0)],
            Output::Deliver { sequence, payloads } => {
                let exchange = (sequence % u64::from(EXCHANGES)) as u16;
                for (from, bytes) in &payloads {
                    let agreed = size(exchange, from.0, self.me.0, self.peers);
                    assert_eq!(bytes.len(), agreed as usize);
                    assert!(!self.exact || *bytes == payload(sequence, from.0, self.me.0, agreed));
                }
                let due = (0..self.peers).filter(|from| size(exchange, *from, self.me.0, self.peers) > 0).count();
                assert_eq!(payloads.len(), due);
                if sequence + 1 < self.ticks * u64::from(EXCHANGES) { vec![self.post(sequence + 1)] } else { self.end() }
            }
            Output::Commit { .. } => {
                self.commits += 1;
                Vec::new()
            }
            Output::Report { .. } => {
                self.reports += 1;
                Vec::new()
            }
            Output::Finished => {
                if self.me == PeerIndex(0) {
                    assert_eq!(self.commits, grid().tile_count());
                    // A tampered run may repeat one.
                    assert!(self.reports >= self.peers);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

fn peers<'a>(count: u16, ticks: u64, change: impl Fn(u16, &mut CoreConfig)) -> Vec<SimPeer<'a>> {
    let peer = |place| {
        let mut config = peer_config(place, count);
        change(place, &mut config);
        let exact = config.staleness == 0;
        SimPeer { config, node: Box::new(lockstep(count, ticks, exact)) }
    };
    (0..count).map(peer).collect()
}

const HOUR: Duration = Duration::from_secs(3600);

fn run(seed: u64, count: u16, ticks: u64, faults: Faults) -> SimReport {
    Simulation::new(seed, peers(count, ticks, |_, _| {}), faults).run(HOUR).expect("the run has an end")
}

fn check_finishes(count: u16, ticks: u64, seeds: u64) {
    for seed in 0..seeds {
        let report = run(seed, count, ticks, Faults::default());
        assert!(report.outcomes.iter().all(|o| *o == Outcome::Finished), "seed {seed}: {:?}", report.outcomes);
        let due: u64 = (0..EXCHANGES).flat_map(|e| (0..count).flat_map(move |a| (0..count).map(move |b| u64::from(size(e, a, b, count) > 0)))).sum();
        assert_eq!(report.deliveries, due * ticks, "seed {seed}");
    }
}

#[test]
fn one_peer_runs_alone() {
    check_finishes(1, 5, 1);
}

#[test]
fn two_peers_stay_in_lockstep() {
    check_finishes(2, 20, 100);
}

#[test]
fn three_peers_stay_in_lockstep() {
    check_finishes(3, 20, 60);
}

#[test]
fn seven_peers_stay_in_lockstep() {
    check_finishes(7, 20, 25);
}

#[test]
fn sixteen_peers_stay_in_lockstep() {
    check_finishes(16, 10, 8);
}

#[test]
fn sixty_four_peers_stay_in_lockstep() {
    check_finishes(64, 3, 2);
}

#[test]
fn a_seed_repeats_to_the_bit() {
    let of = |seed| {
        let report = run(seed, 5, 10, Faults::default());
        (report.elapsed, report.frames, report.bytes)
    };
    assert_eq!(of(11), of(11));
    assert_ne!(of(11).0, of(12).0);
}

#[test]
fn stale_payloads_stay_within_the_staleness() {
    for seed in 0..30 {
        for staleness in [1, 3] {
            // Slow lines and quick nodes, so that staleness is worth something.
            let faults = Faults { delay: (Duration::from_millis(1), Duration::from_millis(200)), ..Faults::default() };
            let stale = peers(4, 30, |_, config| config.staleness = staleness);
            let report = Simulation::new(seed, stale, faults.clone()).run(HOUR).expect("the run has an end");
            assert!(report.outcomes.iter().all(|o| *o == Outcome::Finished), "seed {seed}: {:?}", report.outcomes);
            let exact = run(seed, 4, 30, faults);
            assert!(report.elapsed < exact.elapsed, "seed {seed}: staleness {staleness} gains nothing");
        }
    }
}

/// When the exchanges are well under way.
const MIDWAY: Duration = Duration::from_millis(600);

#[test]
fn a_silent_peer_is_named_by_all() {
    for seed in 0..20 {
        let report = run(seed, 5, 2000, Faults { freeze: vec![(MIDWAY, 3)], ..Faults::default() });
        for (place, outcome) in report.outcomes.iter().enumerate() {
            match outcome {
                Outcome::Gone => assert_eq!(place, 3),
                Outcome::Failed(RunError::Silent { name, owed, silent_ms, .. }) => {
                    assert_eq!(name, "peer-3", "seed {seed}");
                    assert!(matches!(owed, Owed::Data { .. }) && (10_000..13_000).contains(silent_ms), "{outcome:?}");
                }
                Outcome::Failed(RunError::Aborted { text, .. }) => {
                    assert!(text.contains("peer-3") && text.contains("silent"), "{text}")
                }
                other => panic!("seed {seed}, place {place}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_stalled_peer_is_named_and_those_who_wait_are_not() {
    for seed in 0..10 {
        let report = run(seed, 6, 5000, Faults { stall: vec![(MIDWAY, 2)], ..Faults::default() });
        assert!(report.elapsed > Duration::from_secs(120), "{:?}", report.elapsed);
        for (place, outcome) in report.outcomes.iter().enumerate() {
            match outcome {
                Outcome::Failed(RunError::Stalled { name, .. }) => {
                    assert_eq!(name, "peer-2", "seed {seed}, place {place}")
                }
                Outcome::Failed(RunError::Aborted { text, .. }) => {
                    assert!(text.contains("peer-2"), "{text}")
                }
                other => panic!("seed {seed}, place {place}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_lost_peer_is_named_by_all() {
    for seed in 0..20 {
        let report = run(seed, 5, 2000, Faults { crash: vec![(MIDWAY, 4)], ..Faults::default() });
        for (place, outcome) in report.outcomes.iter().enumerate() {
            match outcome {
                Outcome::Gone => assert_eq!(place, 4),
                Outcome::Failed(RunError::Lost { name, sequence: Some(_), .. }) => assert_eq!(name, "peer-4"),
                Outcome::Failed(RunError::Aborted { text, .. }) => {
                    assert!(text.contains("lost") && text.contains("peer-4"), "{text}")
                }
                other => panic!("seed {seed}, place {place}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_cut_line_ends_the_run_everywhere() {
    for seed in 0..20 {
        let report = run(seed, 5, 2000, Faults { loss: vec![(MIDWAY, 1, 2)], ..Faults::default() });
        for outcome in &report.outcomes {
            assert!(matches!(outcome, Outcome::Failed(RunError::Lost { .. } | RunError::Aborted { .. })), "{outcome:?}");
        }
        let by_whom = report.outcomes.iter().filter(|o| matches!(o, Outcome::Failed(RunError::Lost { .. }))).count();
        assert!((1..=2).contains(&by_whom), "seed {seed}: {:?}", report.outcomes);
    }
}

#[test]
fn faults_at_any_time_give_every_peer_an_end() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let at = Duration::from_millis(random.u64(0..900));
        let (a, b) = (random.u16(0..4), random.u16(0..4));
        let mut faults = Faults::default();
        match seed % 4 {
            0 => faults.loss.push((at, a, b)),
            1 => faults.freeze.push((at, a)),
            2 => faults.crash.push((at, a)),
            _ => faults.stall.push((at, a)),
        }
        let outcome = Simulation::new(seed, peers(4, 10, |_, _| {}), faults).run(HOUR);
        match outcome {
            Ok(_) => {}
            // Before the plan nobody owes the coordinator anything: it waits for people to join.
            Err(SimFailure::Unfinished { unfinished, .. }) => assert!(at < Duration::from_millis(150), "seed {seed}, at {at:?}: {unfinished:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_peer_of_another_bundle_is_refused_and_the_run_goes_on() {
    for seed in 0..20 {
        // Place 3 is one too many for the run, so the other three must do without it.
        let mut all = peers(3, 10, |_, _| {});
        let mut odd = peer_config(3, 3);
        odd.bundle = [9; 32];
        all.push(SimPeer { config: odd, node: Box::new(lockstep(3, 10, true)) });
        let report = Simulation::new(seed, all, Faults::default()).run(HOUR).expect("the run has an end");
        assert!(report.outcomes[..3].iter().all(|o| *o == Outcome::Finished), "seed {seed}: {:?}", report.outcomes);
        let Outcome::Failed(RunError::Refused { reason, .. }) = &report.outcomes[3] else {
            panic!("seed {seed}: {:?}", report.outcomes[3]);
        };
        assert_eq!(*reason, crate::wire::RefuseReason::Bundle);
    }
}

#[test]
fn one_peer_too_many_is_refused() {
    let mut all = peers(3, 10, |_, _| {});
    all.push(SimPeer { config: peer_config(3, 3), node: Box::new(lockstep(3, 10, true)) });
    let report = Simulation::new(1, all, Faults::default()).run(HOUR).expect("the run has an end");
    let finished = report.outcomes.iter().filter(|o| **o == Outcome::Finished).count();
    assert_eq!(finished, 3, "{:?}", report.outcomes);
}

#[test]
fn tampered_frames_blame_the_sender_and_never_panic() {
    let mut blamed = 0;
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let at_frame = random.usize(0..100);
        let mut seen = 0;
        let tamper = |from: u16, _to: u16, frame: Bytes| {
            if from != 2 {
                return vec![frame];
            }
            seen += 1;
            if seen != at_frame {
                return vec![frame];
            }
            let mut bytes = frame.to_vec();
            let at = random.usize(0..bytes.len());
            match random.u8(0..4) {
                0 => bytes[at] ^= 1 << random.u8(0..8),
                1 => bytes.truncate(at),
                2 => bytes.push(0),
                _ => return vec![frame.clone(), frame],
            }
            vec![bytes.into()]
        };
        let outcome = Simulation::new(seed, peers(4, 10, |_, _| {}), Faults::default()).tamper(tamper).run(HOUR);
        match outcome {
            // A flipped bit in a payload is beyond this layer: the checker sees it, the transport prevents it.
            Err(SimFailure::Check { error: CheckError::Invented { .. }, .. }) => {}
            Ok(report) => {
                for outcome in &report.outcomes {
                    // A tampered hello may have changed the name itself.
                    if let Outcome::Failed(RunError::Violation { name, .. }) = outcome {
                        assert!(name == "peer-2" || at_frame <= 2, "seed {seed}: {outcome:?}");
                        blamed += 1;
                    }
                }
            }
            Err(SimFailure::Unfinished { unfinished, .. }) => {
                // Refused before the plan: the others wait for another.
                assert!(at_frame <= 2, "seed {seed}: {unfinished:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(blamed > 100, "{blamed} of 200 runs blamed anybody");
}

mod checker {
    use super::check::*;
    use super::*;

    fn deliver(sequence: u64, payloads: &[(u16, &'static [u8])]) -> Output {
        let payloads = payloads.iter().map(|(from, bytes)| (PeerIndex(*from), Bytes::from_static(bytes)));
        Output::Deliver { sequence, payloads: payloads.collect() }
    }

    fn posted(checker: &mut Checker, from: u16, sequence: u64, to: u16, bytes: &'static [u8]) {
        let payloads = [(PeerIndex(to), Bytes::from_static(bytes))];
        checker.posted(Some(PeerIndex(from)), sequence, 0, &payloads).expect("posts are only noted");
    }

    /// Peer 1 has posted a, b, c to peer 0, which posted three times too.
    fn fixture(staleness: u32) -> Checker {
        let mut checker = Checker::new(2, staleness);
        for (sequence, bytes) in [(0, b"a"), (1, b"b"), (2, b"c")] {
            posted(&mut checker, 1, sequence, 0, bytes);
            posted(&mut checker, 0, sequence, 1, b"x");
        }
        checker
    }

    fn see(checker: &mut Checker, output: &Output) -> Result<(), CheckError> {
        checker.observed(0, Some(PeerIndex(0)), output)
    }

    #[test]
    fn what_is_right_passes() {
        let mut checker = fixture(0);
        assert_eq!(see(&mut checker, &deliver(0, &[(1, b"a")])), Ok(()));
        assert_eq!(see(&mut checker, &deliver(1, &[(1, b"b")])), Ok(()));
    }

    #[test]
    fn every_wrong_is_seen() {
        let invented = see(&mut fixture(0), &deliver(0, &[(1, b"b")]));
        assert!(matches!(invented, Err(CheckError::Invented { .. })), "{invented:?}");
        let skipped = see(&mut fixture(0), &deliver(1, &[(1, b"b")]));
        assert!(matches!(skipped, Err(CheckError::OutOfTurn { .. })), "{skipped:?}");
        let mut checker = fixture(0);
        assert_eq!(see(&mut checker, &deliver(0, &[(1, b"a")])), Ok(()));
        let twice = see(&mut checker, &deliver(0, &[(1, b"a")]));
        assert!(matches!(twice, Err(CheckError::OutOfTurn { .. })), "{twice:?}");
        let unordered = see(&mut fixture(0), &deliver(0, &[(1, b"a"), (1, b"a")]));
        assert!(matches!(unordered, Err(CheckError::Unordered { .. })), "{unordered:?}");
        let mut checker = fixture(2);
        assert_eq!(see(&mut checker, &deliver(0, &[(1, b"a")])), Ok(()));
        assert_eq!(see(&mut checker, &deliver(1, &[(1, b"b")])), Ok(()));
        let older = see(&mut checker, &deliver(2, &[(1, b"a")]));
        assert!(matches!(older, Err(CheckError::TooStale { .. })), "{older:?}");
        let mut checker = fixture(0);
        assert_eq!(see(&mut checker, &Output::Finished), Ok(()));
        assert_eq!(see(&mut checker, &Output::Start), Err(CheckError::AfterEnd { place: 0 }));
        let commit = Output::Commit { from: PeerIndex(1), grid: 0, tile: 3, body: Bytes::new() };
        let mut checker = fixture(0);
        assert_eq!(see(&mut checker, &commit), Ok(()));
        assert!(matches!(see(&mut checker, &commit), Err(CheckError::CommittedTwice { .. })));
        let plan = |plan| Output::PlanReceived { plan, index: PeerIndex(1), roster: Vec::new(), staleness: 0 };
        assert_eq!(see(&mut checker, &plan(Bytes::from_static(b"p"))), Ok(()));
        assert!(matches!(see(&mut checker, &plan(Bytes::from_static(b"q"))), Err(CheckError::OtherPlan { .. })));
    }
}
