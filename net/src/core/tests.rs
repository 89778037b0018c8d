//! One core against hand-made frames: each rule of the protocol, broken once.

use super::*;
use crate::ownership::Ownership;
use crate::wire::{Envelope, PROTOCOL_VERSION, RefuseReason};

const TOKEN: [u8; 16] = [7; 16];
const BUNDLE: [u8; 32] = [8; 32];

/// A core with hand-made peers around it.
struct Rig {
    core: Core,
    now: Duration,
    outputs: Vec<Output>,
}

fn link(peer: u16) -> LinkId {
    LinkId(peer.into())
}

fn hello(peer: u16) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        index: None,
        bundle: BUNDLE,
        plan: [0; 32],
        token: TOKEN,
        speed: 2.0,
        name: format!("peer-{peer}"),
        addresses: vec![format!("at/{peer}")],
    }
}

/// Exchange 0: everybody to everybody, 4 bytes. Exchange 1: others to peer 0, 2 bytes.
fn traffic(me: u16, peers: u16) -> Traffic {
    let all = |bytes: u32| -> Vec<u32> { (0..peers).map(|other| if other == me { 0 } else { bytes }).collect() };
    let to_0: Vec<u32> = (0..peers).map(|other| if me != 0 && other == 0 { 2 } else { 0 }).collect();
    let at_0: Vec<u32> = (0..peers).map(|other| if me == 0 && other != 0 { 2 } else { 0 }).collect();
    Traffic { exchanges: vec![ExchangeTraffic { send: all(4), receive: all(4) }, ExchangeTraffic { send: to_0, receive: at_0 }] }
}

/// Tile t of grid 0 belongs to peer t.
fn ownership(peers: u16) -> Ownership {
    Ownership { epoch: 0, grids: vec![(0..peers).map(PeerIndex).collect()] }
}

impl Rig {
    fn new(role: Role, identity: &str) -> Rig {
        let mut config = CoreConfig::new(role, identity, "me");
        (config.token, config.bundle) = (TOKEN, BUNDLE);
        config.commit_bytes_max = 100;
        let mut rig = Rig { core: Core::new(config), now: Duration::ZERO, outputs: Vec::new() };
        rig.drain();
        rig
    }

    /// A coordinator whose `peers - 1` joiners have joined.
    fn coordinator(peers: u16) -> Rig {
        let mut rig = Rig::new(Role::Coordinator { peers }, "id-0");
        for peer in 1..peers {
            rig.open(peer, false);
            rig.say(peer, Message::Hello(hello(peer)));
        }
        assert!(matches!(rig.outputs.last(), Some(Output::Assemble { joiners }) if joiners.len() + 1 == usize::from(peers)));
        rig
    }

    /// A coordinator in a run.
    fn running(peers: u16) -> Rig {
        let mut rig = Rig::coordinator(peers);
        rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: traffic(0, peers), ownership: ownership(peers) });
        for peer in 1..peers {
            rig.say(peer, Message::Linked);
        }
        assert!(matches!(rig.outputs.last(), Some(Output::Start)), "{:?}", rig.outputs.last());
        rig
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(event, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.outputs.push(output);
        }
    }

    fn open(&mut self, peer: u16, outgoing: bool) {
        self.handle(Event::Opened { link: link(peer), identity: format!("id-{peer}"), outgoing });
    }

    fn say(&mut self, peer: u16, message: Message) {
        self.say_bytes(peer, wire::encode(&message).content());
    }

    fn say_bytes(&mut self, peer: u16, frame: Bytes) {
        self.handle(Event::Received { link: link(peer), frame });
    }

    fn data(&mut self, peer: u16, sequence: u64, exchange: u16, bytes: usize) {
        self.say(peer, Message::Data { sequence, exchange, payload: vec![1; bytes].into() });
    }

    fn post(&mut self, sequence: u64, exchange: u16) {
        let peers = self.core.peers.len() as u16;
        let me = self.core.me.0;
        let send = &traffic(me, peers).exchanges[usize::from(exchange)].send;
        let payloads = (0u16..).zip(send).filter(|(_, bytes)| **bytes > 0);
        let payloads = payloads.map(|(to, bytes)| (PeerIndex(to), vec![0; *bytes as usize].into())).collect();
        self.handle(Event::Post { sequence, exchange, payloads });
    }

    fn at(&mut self, seconds: f64) {
        self.now = Duration::from_secs_f64(seconds);
    }

    /// Ticks at every deadline up to a time.
    fn wait_until(&mut self, seconds: f64) {
        let end = Duration::from_secs_f64(seconds);
        let mut ticks = 0;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.handle(Event::Tick);
            ticks += 1;
            assert!(ticks < 10_000, "ticks without end");
        }
        self.now = end;
    }

    fn failure(&self) -> Option<&RunError> {
        self.outputs.iter().find_map(|output| match output {
            Output::Failed(error) => Some(error),
            _ => None,
        })
    }

    /// What was sent on a link.
    fn sent(&self, peer: u16) -> Vec<Message> {
        let frames = self.outputs.iter().filter_map(|output| match output {
            Output::Send { link: to, frame } if *to == link(peer) => Some(frame.content()),
            _ => None,
        });
        frames.map(|frame| wire::decode(frame).expect("what is sent decodes")).collect()
    }

    fn delivered(&self) -> Vec<u64> {
        let delivered = self.outputs.iter().filter_map(|output| match output {
            Output::Deliver { sequence, .. } => Some(*sequence),
            _ => None,
        });
        delivered.collect()
    }

    #[track_caller]
    fn check_violation(&self, by: u16, expected: Violation) {
        match self.failure() {
            Some(RunError::Violation { peer, name, violation }) => {
                assert_eq!((*peer, name.as_str()), (PeerIndex(by), format!("peer-{by}").as_str()));
                assert_eq!(*violation, expected);
            }
            other => panic!("expected {expected:?} by {by}, got {other:?}"),
        }
        // Everybody is told, and every link is closed.
        for peer in 1..self.core.peers.len() as u16 {
            assert!(matches!(self.sent(peer).last(), Some(Message::Abort { by: 0, .. })), "peer {peer} was not told");
        }
        let closed = self.outputs.iter().filter(|output| matches!(output, Output::Close { .. })).count();
        assert_eq!(closed, self.core.peers.len() - 1);
    }

    #[track_caller]
    fn check_refused(&self, peer: u16, reason: RefuseReason) {
        assert!(self.failure().is_none(), "{:?}", self.failure());
        let sent = self.sent(peer);
        assert!(matches!(sent.last(), Some(Message::Refuse { reason: given, .. }) if *given == reason), "{sent:?}");
        assert!(self.outputs.iter().any(|output| matches!(output, Output::Close { link: closed, .. } if *closed == link(peer))));
        assert!(self.outputs.iter().any(|output| matches!(output, Output::Refused { reason: given, .. } if *given == reason)));
    }
}

#[test]
fn strangers_are_refused_and_the_run_is_not_disturbed() {
    type Change = fn(&mut Hello);
    let change: [(RefuseReason, Change); 3] = [
        (RefuseReason::Version, |hello| hello.version += 1),
        (RefuseReason::Token, |hello| hello.token[0] ^= 1),
        (RefuseReason::Bundle, |hello| hello.bundle[0] ^= 1),
    ];
    for (reason, change) in change {
        let mut rig = Rig::new(Role::Coordinator { peers: 2 }, "id-0");
        let mut odd = hello(1);
        change(&mut odd);
        rig.open(1, false);
        rig.say(1, Message::Hello(odd));
        rig.check_refused(1, reason);
        rig.open(2, false);
        rig.say(2, Message::Hello(hello(2)));
        assert!(matches!(rig.outputs.last(), Some(Output::Assemble { .. })));
    }
}

#[test]
fn a_second_place_for_one_identity_is_refused() {
    let mut rig = Rig::new(Role::Coordinator { peers: 3 }, "id-0");
    rig.open(1, false);
    rig.say(1, Message::Hello(hello(1)));
    rig.handle(Event::Opened { link: link(5), identity: "id-1".to_owned(), outgoing: false });
    rig.say(5, Message::Hello(hello(1)));
    rig.check_refused(5, RefuseReason::Identity);
}

#[test]
fn late_and_silent_and_garbled_strangers_are_refused() {
    let mut rig = Rig::running(3);
    rig.open(8, false);
    rig.say(8, Message::Hello(hello(8)));
    rig.check_refused(8, RefuseReason::Full);
    rig.open(9, false);
    rig.say_bytes(9, Bytes::from_static(b"GET / HTTP/1.1"));
    rig.check_refused(9, RefuseReason::Protocol);
    rig.open(10, false);
    rig.data(10, 0, 0, 4);
    rig.check_refused(10, RefuseReason::Protocol);
    rig.open(11, false);
    // The peers of the run live on meanwhile.
    for seconds in 1..12 {
        rig.wait_until(seconds.into());
        (1..3).for_each(|peer| rig.say(peer, Message::Ping { waiting: false }));
    }
    rig.check_refused(11, RefuseReason::Silent);
}

#[test]
fn strangers_are_bounded() {
    let mut rig = Rig::running(2);
    for peer in 100..2000 {
        rig.open(peer, false);
    }
    assert!(rig.core.links.len() < 300);
    assert!(rig.failure().is_none());
}

#[test]
fn a_joiner_that_leaves_before_the_plan_makes_room() {
    let mut rig = Rig::new(Role::Coordinator { peers: 3 }, "id-0");
    rig.open(1, false);
    rig.say(1, Message::Hello(hello(1)));
    rig.handle(Event::Closed { link: link(1), reason: "left".to_owned() });
    for peer in [2, 3] {
        rig.open(peer, false);
        rig.say(peer, Message::Hello(hello(peer)));
    }
    let Some(Output::Assemble { joiners }) = rig.outputs.last() else { panic!("{:?}", rig.outputs.last()) };
    assert_eq!(joiners.iter().map(|j| (j.index.0, j.name.as_str())).collect::<Vec<_>>(), [(1, "peer-2"), (2, "peer-3")]);
}

#[test]
fn frames_grow_only_for_accepted_peers() {
    let mut rig = Rig::new(Role::Coordinator { peers: 2 }, "id-0");
    rig.open(1, false);
    assert!(!rig.outputs.iter().any(|output| matches!(output, Output::Limit { .. })));
    rig.say(1, Message::Hello(hello(1)));
    let limits = |rig: &Rig| -> Vec<u32> {
        let limits = rig.outputs.iter().filter_map(|output| match output {
            Output::Limit { frame_bytes_max, .. } => Some(*frame_bytes_max),
            _ => None,
        });
        limits.collect()
    };
    // A plan's worth at first, then what the traffic needs.
    let plan = wire::PLAN_FRAME_BYTES_MAX;
    assert_eq!(limits(&rig), [plan]);
    let mut large = traffic(0, 2);
    large.exchanges[0].receive[1] = 100 << 20;
    rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: large, ownership: ownership(2) });
    assert_eq!(limits(&rig), [plan, (100 << 20) + 16]);
    // Before the plan is sent: whoever has it may use it.
    let position = |wanted: fn(&Output) -> bool| rig.outputs.iter().rposition(wanted);
    assert!(position(|o| matches!(o, Output::Limit { .. })) < position(|o| matches!(o, Output::Send { .. })));

    let mut rig = Rig::coordinator(2);
    let mut larger = traffic(0, 2);
    larger.exchanges[0].send[1] = 300 << 20;
    rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: larger, ownership: ownership(2) });
    assert!(matches!(rig.failure(), Some(RunError::Misuse { .. })));
}

#[test]
fn payloads_are_delivered_in_peer_order_after_the_own_post() {
    let mut rig = Rig::running(3);
    rig.data(2, 0, 0, 4);
    rig.data(1, 0, 0, 4);
    assert_eq!(rig.delivered(), []);
    rig.post(0, 0);
    assert_eq!(rig.delivered(), [0]);
    rig.post(1, 1);
    rig.data(2, 1, 1, 2);
    assert_eq!(rig.delivered(), [0]);
    rig.data(1, 1, 1, 2);
    assert_eq!(rig.delivered(), [0, 1]);
    let Some(Output::Deliver { payloads, .. }) = rig.outputs.last() else { panic!() };
    assert_eq!(payloads.iter().map(|(from, bytes)| (from.0, bytes.len())).collect::<Vec<_>>(), [(1, 2), (2, 2)]);
    // Peers that get nothing back hear of the progress.
    assert!(matches!(rig.sent(1).last(), Some(Message::Progress { sequence: 1 })));
}

#[test]
fn every_violation_of_an_exchange_is_named() {
    fn check(expected: Violation, act: impl Fn(&mut Rig)) {
        let mut rig = Rig::running(3);
        act(&mut rig);
        rig.check_violation(2, expected);
    }
    check(Violation::WrongSize { exchange: 0, expected: 4, given: 5 }, |rig| rig.data(2, 0, 0, 5));
    check(Violation::WrongSize { exchange: 0, expected: 4, given: 0 }, |rig| rig.data(2, 0, 0, 0));
    check(Violation::NoSuchExchange { exchange: 2, count: 2 }, |rig| rig.data(2, 0, 2, 4));
    check(Violation::Repeated { sequence: 0, last: 0 }, |rig| {
        rig.data(2, 0, 0, 4);
        rig.data(2, 0, 0, 4);
    });
    check(Violation::Repeated { sequence: 0, last: 1 }, |rig| {
        rig.data(2, 1, 0, 4);
        rig.data(2, 0, 0, 4);
    });
    // Early, with a sequence that the exchange turns out not to have.
    check(Violation::WrongSequence { exchange: 0, expected: 0, given: 3 }, |rig| {
        rig.data(2, 3, 0, 4);
        rig.post(0, 0);
    });
    // In time, likewise.
    check(Violation::WrongSequence { exchange: 0, expected: 0, given: 3 }, |rig| {
        rig.post(0, 0);
        rig.data(2, 3, 0, 4);
    });
    check(Violation::Skipped { sequence: 0, exchange: 0 }, |rig| {
        rig.data(2, 1, 1, 2);
        rig.post(0, 0);
    });
    check(Violation::Skipped { sequence: 0, exchange: 0 }, |rig| {
        rig.post(0, 0);
        rig.say(2, Message::Done);
    });
    check(Violation::TooFarAhead { frames: 6, limit: 5 }, |rig| {
        for sequence in 0..6 {
            rig.data(2, sequence, 0, 4);
        }
    });
    check(Violation::WrongProgress { sequence: 0 }, |rig| rig.say(2, Message::Progress { sequence: 0 }));
    check(Violation::Unexpected { message: "linked" }, |rig| rig.say(2, Message::Linked));
    check(Violation::Unexpected { message: "hello" }, |rig| rig.say(2, Message::Hello(hello(2))));
    check(Violation::Unexpected { message: "plan" }, |rig| rig.say(2, Message::Plan { index: 1, envelope: Bytes::new() }));
    check(Violation::Wire(wire::WireError::UnknownKind { kind: 99 }), |rig| rig.say_bytes(2, Bytes::from_static(&[99])));
    check(Violation::Wire(wire::WireError::Truncated { field: "kind", needed: 1, left: 0 }), |rig| rig.say_bytes(2, Bytes::new()));
    check(Violation::AfterDone { message: "data" }, |rig| {
        rig.say(2, Message::Done);
        rig.data(2, 0, 0, 4);
    });
}

#[test]
fn data_from_a_peer_that_owes_nothing_is_refused() {
    let mut joiner = joiner_running();
    joiner.data(0, 0, 1, 2);
    let violation = joiner.failure();
    assert!(
        matches!(violation, Some(RunError::Violation { peer: PeerIndex(0), violation: Violation::NothingOwed { exchange: 1 }, .. })),
        "{violation:?}"
    );
}

#[test]
fn every_violation_of_the_gathering_is_named() {
    let commit = |tile, bytes| Message::Commit { grid: 0, tile, body: vec![0; bytes].into() };
    let check = |expected: Violation, messages: Vec<Message>| {
        let mut rig = Rig::running(3);
        for message in messages {
            rig.say(2, message);
        }
        rig.check_violation(2, expected);
    };
    check(Violation::ForeignTile { grid: 0, tile: 1 }, vec![commit(1, 4)]);
    check(Violation::ForeignTile { grid: 0, tile: 77 }, vec![commit(77, 4)]);
    check(Violation::ForeignTile { grid: 9, tile: 2 }, vec![Message::Commit { grid: 9, tile: 2, body: Bytes::new() }]);
    check(Violation::RepeatedTile { grid: 0, tile: 2 }, vec![commit(2, 4), commit(2, 4)]);
    check(Violation::CommitTooLarge { given: 101, limit: 100 }, vec![commit(2, 101)]);
    check(Violation::AfterDone { message: "commit" }, vec![Message::Done, commit(2, 4)]);
    check(Violation::AfterDone { message: "done" }, vec![Message::Done, Message::Done]);
    let reports = vec![Message::Report(Bytes::new()); REPORTS_MAX as usize + 1];
    check(Violation::TooManyReports { limit: REPORTS_MAX }, reports);
}

#[test]
fn own_tiles_are_gathered_and_the_run_finishes() {
    let mut rig = Rig::running(2);
    rig.say(1, Message::Commit { grid: 0, tile: 1, body: Bytes::from_static(b"abc") });
    rig.say(1, Message::Report(Bytes::from_static(b"well")));
    rig.say(1, Message::Done);
    let own = CommitBody { grid: 0, tile: 0, body: Bytes::from_static(b"def") };
    rig.handle(Event::Publish { to: PeerIndex(0), commits: vec![own] });
    rig.handle(Event::Finish);
    let tiles: Vec<(u16, u32)> = rig
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::Commit { from, tile, .. } => Some((from.0, *tile)),
            _ => None,
        })
        .collect();
    assert_eq!(tiles, [(1, 1), (0, 0)]);
    assert!(rig.outputs.iter().any(|output| matches!(output, Output::Report { from: PeerIndex(1), .. })));
    assert!(matches!(rig.outputs.last(), Some(Output::Finished)));
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn a_link_that_closes_after_both_ends_is_no_error() {
    let mut rig = Rig::running(3);
    rig.say(1, Message::Done);
    rig.handle(Event::Finish);
    rig.handle(Event::Closed { link: link(1), reason: "done".to_owned() });
    assert!(rig.failure().is_none());
    rig.handle(Event::Closed { link: link(2), reason: "gone".to_owned() });
    assert!(matches!(rig.failure(), Some(RunError::Lost { peer: PeerIndex(2), .. })), "{:?}", rig.failure());
}

#[test]
fn a_node_that_breaks_the_contract_is_told() {
    let check = |act: &dyn Fn(&mut Rig)| {
        let mut rig = Rig::running(2);
        act(&mut rig);
        assert!(matches!(rig.failure(), Some(RunError::Misuse { .. })), "{:?}", rig.failure());
        assert!(matches!(rig.sent(1).last(), Some(Message::Abort { .. })));
    };
    check(&|rig| rig.post(1, 0));
    check(&|rig| rig.handle(Event::Post { sequence: 0, exchange: 7, payloads: Vec::new() }));
    check(&|rig| rig.handle(Event::Post { sequence: 0, exchange: 0, payloads: Vec::new() }));
    check(&|rig| {
        rig.post(0, 0);
        rig.post(1, 0);
    });
    check(&|rig| {
        rig.post(0, 0);
        rig.handle(Event::Finish);
    });
    check(&|rig| rig.handle(Event::Report(vec![0; wire::REPORT_BYTES_MAX + 1].into())));
    check(&|rig| rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: traffic(0, 2), ownership: ownership(2) }));
    let foreign = CommitBody { grid: 0, tile: 1, body: Bytes::new() };
    check(&|rig| rig.handle(Event::Publish { to: PeerIndex(1), commits: vec![foreign.clone()] }));
    let mut rig = Rig::coordinator(2);
    rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: traffic(0, 3), ownership: ownership(2) });
    assert!(matches!(rig.failure(), Some(RunError::Misuse { .. })));
    let mut rig = Rig::coordinator(2);
    rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: traffic(0, 2), ownership: ownership(3) });
    assert!(matches!(rig.failure(), Some(RunError::Misuse { .. })));
}

#[test]
fn silence_counts_only_while_something_is_owed() {
    let mut rig = Rig::running(2);
    rig.wait_until(60.0);
    assert!(rig.failure().is_none());
    let pings = rig.sent(1).into_iter().filter(|m| matches!(m, Message::Ping { waiting: false })).count();
    assert_eq!(pings, 24, "one ping every 2.5 s");
    rig.say(1, Message::Ping { waiting: false });
    rig.post(0, 0);
    rig.wait_until(69.9);
    assert!(rig.failure().is_none());
    rig.wait_until(70.1);
    let expected =
        RunError::Silent { peer: PeerIndex(1), name: "peer-1".to_owned(), owed: Owed::Data { sequence: 0, exchange: 0 }, silent_ms: 10_000 };
    assert_eq!(rig.failure(), Some(&expected));
}

/// Lets peer 1 ping every second, from one time to another.
fn ping_on(rig: &mut Rig, from: u32, to: u32, waiting: bool) {
    for seconds in from..to {
        rig.wait_until(seconds.into());
        rig.say(1, Message::Ping { waiting });
    }
}

#[test]
fn a_peer_that_pings_but_does_not_get_on_has_stalled() {
    let mut rig = Rig::running(2);
    rig.post(0, 0);
    ping_on(&mut rig, 1, 119, false);
    assert!(rig.failure().is_none());
    ping_on(&mut rig, 119, 122, false);
    assert!(matches!(rig.failure(), Some(RunError::Stalled { peer: PeerIndex(1), waited_ms: 120_000, .. })), "{:?}", rig.failure());
}

#[test]
fn a_peer_that_waits_itself_is_excused_though_not_for_ever() {
    let mut rig = Rig::running(2);
    rig.post(0, 0);
    ping_on(&mut rig, 1, 500, true);
    assert!(rig.failure().is_none());
    ping_on(&mut rig, 500, 618, false);
    assert!(rig.failure().is_none(), "its time starts when it stops waiting");
    ping_on(&mut rig, 618, 621, false);
    assert!(matches!(rig.failure(), Some(RunError::Stalled { .. })));

    let mut rig = Rig::running(2);
    rig.post(0, 0);
    ping_on(&mut rig, 1, 959, true);
    assert!(rig.failure().is_none());
    ping_on(&mut rig, 959, 962, true);
    assert!(matches!(rig.failure(), Some(RunError::Stalled { .. })));
}

#[test]
fn own_sleep_is_not_the_others_silence() {
    let mut rig = Rig::running(2);
    rig.post(0, 0);
    rig.at(100.0);
    rig.handle(Event::Tick);
    assert!(rig.failure().is_none(), "there was no chance to hear it");
    rig.wait_until(104.0);
    assert!(rig.failure().is_none());
    rig.wait_until(106.0);
    assert!(matches!(rig.failure(), Some(RunError::Silent { .. })));
}

#[test]
fn a_flood_of_pings_is_not_answered_one_by_one() {
    let mut rig = Rig::running(2);
    for _ in 0..1000 {
        rig.say(1, Message::Ping { waiting: false });
    }
    let pongs = rig.sent(1).into_iter().filter(|m| matches!(m, Message::Pong { .. })).count();
    assert_eq!(pongs, 1);
}

#[test]
fn an_abort_is_passed_on_with_its_first_author() {
    let mut rig = Rig::running(3);
    rig.say(1, Message::Abort { by: 2, text: "out of memory".to_owned() });
    let expected = RunError::Aborted { by: PeerIndex(2), name: "peer-2".to_owned(), text: "out of memory".to_owned() };
    assert_eq!(rig.failure(), Some(&expected));
    assert_eq!(rig.sent(2).last(), Some(&Message::Abort { by: 2, text: "out of memory".to_owned() }));
}

fn roster(peers: u16) -> Vec<RosterPeer> {
    let peer = |p| RosterPeer { identity: format!("id-{p}"), name: format!("peer-{p}"), addresses: vec![format!("at/{p}")] };
    (0..peers).map(peer).collect()
}

fn plan(index: u16, roster: Vec<RosterPeer>) -> Message {
    let envelope = Envelope { staleness: 0, roster, plan: Bytes::from_static(b"plan") };
    Message::Plan { index, envelope: wire::encode_envelope(&envelope) }
}

/// A joiner that waits for the plan; link 0 leads to the coordinator.
fn joiner(identity: &str) -> Rig {
    let mut rig = Rig::new(Role::Joiner { coordinator: "at/0".to_owned() }, identity);
    assert!(matches!(&rig.outputs[..], [Output::Dial { address }] if address == "at/0"));
    rig.open(0, true);
    assert!(matches!(rig.sent(0)[..], [Message::Hello(_)]));
    rig
}

/// Joiner 1 of 2, in a run.
fn joiner_running() -> Rig {
    let mut rig = joiner("id-1");
    rig.say(0, plan(1, roster(2)));
    rig.handle(Event::PlanAccepted { traffic: traffic(1, 2), ownership: ownership(2) });
    assert!(matches!(rig.sent(0).last(), Some(Message::Linked)));
    rig.say(0, Message::Linked);
    assert!(matches!(rig.outputs.last(), Some(Output::Start)));
    rig
}

#[test]
fn joiners_link_up_whoever_is_first() {
    // Index 2 of 4: dials 1, is dialled by 3, which comes before the plan is known here.
    let mut rig = joiner("id-2");
    let message = plan(2, roster(4));
    let Message::Plan { envelope, .. } = &message else { panic!() };
    let hash = *blake3::hash(envelope).as_bytes();
    let with_plan = |peer: u16| Message::Hello(Hello { index: Some(peer), plan: hash, ..hello(peer) });
    rig.open(3, false);
    rig.say(3, with_plan(3));
    rig.say(0, message.clone());
    rig.handle(Event::PlanAccepted { traffic: traffic(2, 4), ownership: ownership(4) });
    assert!(matches!(rig.sent(3)[..], [Message::Hello(_)]));
    assert!(rig.outputs.iter().any(|o| matches!(o, Output::Dial { address } if address == "at/1")));
    rig.open(1, true);
    assert!(!rig.sent(0).contains(&Message::Linked));
    rig.say(1, with_plan(1));
    assert!(rig.sent(0).contains(&Message::Linked));
    // Data may come before the start: another peer heard of it sooner.
    rig.data(3, 0, 0, 4);
    rig.say(0, Message::Linked);
    assert!(matches!(rig.outputs.last(), Some(Output::Start)));
}

#[test]
fn a_peer_of_another_plan_is_refused() {
    let mut rig = joiner("id-1");
    rig.say(0, plan(1, roster(3)));
    rig.handle(Event::PlanAccepted { traffic: traffic(1, 3), ownership: ownership(3) });
    rig.open(2, false);
    rig.say(2, Message::Hello(Hello { index: Some(2), plan: [1; 32], ..hello(2) }));
    rig.check_refused(2, RefuseReason::Plan);
    rig.open(9, false);
    rig.say(9, Message::Hello(Hello { index: Some(2), ..hello(2) }));
    rig.check_refused(9, RefuseReason::Identity);

    let mut rig = joiner("id-2");
    rig.say(0, plan(2, roster(3)));
    rig.handle(Event::PlanAccepted { traffic: traffic(2, 3), ownership: ownership(3) });
    rig.open(1, true);
    rig.say(1, Message::Hello(Hello { index: Some(1), plan: [1; 32], ..hello(1) }));
    assert!(matches!(rig.failure(), Some(RunError::Violation { peer: PeerIndex(1), violation: Violation::WrongPlan, .. })));
}

#[test]
fn a_roster_that_cannot_be_is_refused() {
    let check = |index: u16, change: &dyn Fn(&mut Vec<RosterPeer>)| {
        let mut rig = joiner("id-1");
        let mut roster = roster(3);
        change(&mut roster);
        rig.say(0, plan(index, roster));
        let failure = rig.failure();
        assert!(matches!(failure, Some(RunError::Violation { violation: Violation::BadRoster { .. }, .. })), "{failure:?}");
    };
    check(2, &|_| {});
    check(0, &|_| {});
    check(3, &|_| {});
    check(1, &|roster| roster.truncate(1));
    check(1, &|roster| roster.clear());
    check(1, &|roster| roster[2].identity = "id-1".to_owned());
    check(1, &|roster| roster[0].identity = "id-9".to_owned());
}

#[test]
fn a_refused_joiner_knows_why() {
    let mut rig = joiner("id-1");
    rig.say(0, Message::Refuse { reason: RefuseReason::Bundle, text: "another bundle".to_owned() });
    assert!(matches!(rig.failure(), Some(RunError::Refused { reason: RefuseReason::Bundle, .. })));
}

#[test]
fn a_plan_refused_by_a_node_reaches_the_coordinator() {
    let mut rig = joiner("id-1");
    rig.say(0, plan(1, roster(2)));
    rig.handle(Event::PlanRefused { reason: "no gpu".to_owned() });
    assert!(matches!(rig.sent(0).last(), Some(Message::Abort { by: 1, text }) if text.contains("no gpu")));
    let mut rig = Rig::coordinator(3);
    rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: traffic(0, 3), ownership: ownership(3) });
    rig.say(1, Message::Abort { by: 1, text: "no gpu".to_owned() });
    assert!(matches!(rig.failure(), Some(RunError::Aborted { by: PeerIndex(1), .. })));
    assert!(matches!(rig.sent(2).last(), Some(Message::Abort { by: 1, .. })));
}

#[test]
fn a_dial_is_retried_for_a_while() {
    let mut rig = Rig::new(Role::Joiner { coordinator: "at/0".to_owned() }, "id-1");
    let mut dials = 1;
    for _ in 0..100 {
        rig.handle(Event::DialFailed { address: "at/0".to_owned(), error: "refused".to_owned() });
        let next = rig.now.as_secs_f64() + 0.25;
        rig.wait_until(next);
        let count = rig.outputs.iter().filter(|o| matches!(o, Output::Dial { .. })).count();
        if rig.failure().is_some() {
            break;
        }
        dials += 1;
        assert_eq!(count, dials);
    }
    assert!(dials > 30, "{dials}");
    assert!(matches!(rig.failure(), Some(RunError::Unreachable { error, .. }) if error == "refused"), "{:?}", rig.failure());
}

#[test]
fn a_coordinator_that_goes_silent_or_away_before_the_plan_is_named() {
    let mut rig = joiner("id-1");
    rig.wait_until(10.5);
    assert!(matches!(rig.failure(), Some(RunError::Silent { peer: PeerIndex(0), owed: Owed::Plan, .. })), "{:?}", rig.failure());
    let mut rig = joiner("id-1");
    rig.handle(Event::Closed { link: link(0), reason: "gone".to_owned() });
    assert!(matches!(rig.failure(), Some(RunError::Lost { peer: PeerIndex(0), sequence: None, .. })));
}

#[test]
fn a_peer_that_never_links_has_stalled() {
    let mut rig = Rig::coordinator(2);
    rig.handle(Event::PlanMade { plan: Bytes::new(), traffic: traffic(0, 2), ownership: ownership(2) });
    ping_on(&mut rig, 1, 122, false);
    assert!(matches!(rig.failure(), Some(RunError::Stalled { owed: Owed::Links, .. })), "{:?}", rig.failure());
}

#[test]
fn a_sender_waits_for_a_receiver_that_lags() {
    // Peer 1 sends to peer 0 in exchange 1 and gets nothing back: after the window it waits for progress.
    let mut rig = joiner_running();
    for sequence in 0..5 {
        rig.post(sequence, 1);
    }
    assert_eq!(rig.delivered(), [0, 1, 2, 3]);
    rig.say(0, Message::Progress { sequence: 0 });
    assert_eq!(rig.delivered(), [0, 1, 2, 3, 4]);
}

#[test]
fn nothing_happens_after_the_end() {
    let mut rig = Rig::running(2);
    rig.handle(Event::Stop { text: "enough".to_owned() });
    let count = rig.outputs.len();
    rig.data(1, 0, 0, 4);
    rig.handle(Event::Tick);
    rig.handle(Event::Finish);
    assert_eq!(rig.outputs.len(), count);
    rig.open(5, false);
    assert!(matches!(rig.outputs.last(), Some(Output::Close { link: closed, .. }) if *closed == link(5)));
}
