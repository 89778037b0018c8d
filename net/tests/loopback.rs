//! Whole sessions over real sockets on loopback, every peer on threads of its own.

use std::time::Duration;

use bytes::Bytes;
use peercompute_net::core::{CommitBody, ExchangeTraffic, Output, RunError, Traffic};
use peercompute_net::driver::{Session, SessionConfig, SessionError};
use peercompute_net::ownership::{Ownership, PeerIndex};
use peercompute_net::transport::{TransportConfig, TransportError};
use peercompute_net::wire::RefuseReason;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Far beyond what any step takes; only a hang meets it.
const HANG: Duration = Duration::from_secs(60);

fn config(listen: &str, name: &str) -> SessionConfig {
    let transport = TransportConfig { listen: vec![listen.to_owned()], ..TransportConfig::default() };
    SessionConfig { transport, name: name.to_owned(), ..SessionConfig::default() }
}

/// Everybody sends everybody `bytes`.
fn traffic(me: u16, peers: u16, bytes: u32) -> Traffic {
    let all: Vec<u32> = (0..peers).map(|other| if other == me { 0 } else { bytes }).collect();
    Traffic { exchanges: vec![ExchangeTraffic { send: all.clone(), receive: all }] }
}

fn ownership(peers: u16) -> Ownership {
    Ownership { epoch: 0, grids: vec![(0..peers).map(PeerIndex).collect()] }
}

fn payload(from: u16, to: u16, sequence: u64, bytes: u32) -> Bytes {
    let seed = sequence as u8 ^ (from as u8) << 4 ^ (to as u8) << 2;
    (0..bytes).map(|at| seed.wrapping_add(at as u8)).collect()
}

/// What a node saw of a run.
#[derive(Debug, Default)]
struct Seen {
    exchanges: u64,
    tiles: Vec<(u16, u32, Bytes)>,
    reports: usize,
    me: u16,
}

/// A node that exchanges, checks every byte, gathers its tile to peer 0 and finishes.
fn node(session: &Session, peers: u16, bytes: u32, exchanges: u64) -> Result<Seen, RunError> {
    let mut seen = Seen::default();
    let post = |me: u16, sequence: u64| {
        let others = (0..peers).filter(|to| *to != me);
        session.post(sequence, 0, others.map(|to| (PeerIndex(to), payload(me, to, sequence, bytes))).collect())
    };
    loop {
        match session.next_within(HANG).expect("goes on") {
            Output::Assemble { .. } => {
                session.plan_made(Bytes::from_static(b"plan"), traffic(0, peers, bytes), ownership(peers)).expect("goes on");
            }
            Output::PlanReceived { index, plan, .. } => {
                assert_eq!(plan, "plan");
                seen.me = index.0;
                session.plan_accepted(traffic(index.0, peers, bytes), ownership(peers)).expect("goes on");
            }
            Output::Start => post(seen.me, 0).expect("goes on"),
            Output::Deliver { sequence, payloads } => {
                assert_eq!((sequence, payloads.len()), (seen.exchanges, usize::from(peers) - 1));
                for (from, bytes_in) in &payloads {
                    assert!(*bytes_in == payload(from.0, seen.me, sequence, bytes), "other bytes from {from}");
                }
                seen.exchanges += 1;
                if seen.exchanges < exchanges {
                    // A peer that fell over meanwhile is reported by the next output.
                    let _ = post(seen.me, seen.exchanges);
                    continue;
                }
                let commit = CommitBody { grid: 0, tile: seen.me.into(), body: Bytes::from(vec![seen.me as u8; 100_000]) };
                session.publish(PeerIndex(0), vec![commit]).expect("goes on");
                session.report(Bytes::from_static(b"well")).expect("goes on");
                session.finish().expect("goes on");
            }
            Output::Commit { from, tile, body, .. } => seen.tiles.push((from.0, tile, body)),
            Output::Report { .. } => seen.reports += 1,
            Output::Failed(error) => return Err(error),
            Output::Finished => return Ok(seen),
            _ => {}
        }
    }
}

fn check_run(listen: &str, peers: u16, bytes: u32, exchanges: u64) {
    let host = Session::host(config(listen, "host"), peers).expect("hosts");
    let address = host.addresses()[0].clone();
    let guests: Vec<_> = (1..peers)
        .map(|guest| {
            let (config, address) = (config(listen, &format!("guest-{guest}")), address.clone());
            std::thread::spawn(move || node(&Session::join(config, &address).expect("joins"), peers, bytes, exchanges))
        })
        .collect();
    let mut seen = node(&host, peers, bytes, exchanges).expect("finishes");
    for guest in guests {
        assert_eq!(guest.join().expect("no panic").expect("finishes").exchanges, exchanges);
    }
    seen.tiles.sort();
    let tiles: Vec<_> = (0..peers).map(|p| (p, u32::from(p), Bytes::from(vec![p as u8; 100_000]))).collect();
    assert!(seen.tiles == tiles);
    assert_eq!((seen.exchanges, seen.reports), (exchanges, usize::from(peers)));
    assert!(matches!(host.next(), Err(SessionError::Ended)));
}

#[test]
fn a_thousand_exchanges_over_tcp() {
    check_run(TCP, 2, 1000, 1000);
}

#[test]
fn a_thousand_exchanges_over_quic() {
    check_run(QUIC, 2, 1000, 1000);
}

#[test]
fn large_payloads_cross_both_ways_at_once() {
    check_run(TCP, 2, 3_000_000, 5);
    check_run(QUIC, 2, 3_000_000, 5);
}

#[test]
fn five_peers_over_a_full_mesh() {
    check_run(TCP, 5, 20_000, 50);
}

#[test]
fn tiles_still_under_way_when_all_are_done_arrive() {
    // The host is done before it has read them; the guest's session ends while most wait to be written.
    const TILES: u32 = 96;
    let host = Session::host(config(TCP, "host"), 2).expect("hosts");
    let address = host.addresses()[0].clone();
    let owners = || Ownership { epoch: 0, grids: vec![vec![PeerIndex(1); TILES as usize]] };
    let guest = std::thread::spawn(move || {
        let session = Session::join(config(TCP, "guest"), &address).expect("joins");
        loop {
            match session.next_within(HANG).expect("goes on") {
                Output::PlanReceived { .. } => session.plan_accepted(Traffic::default(), owners()).expect("goes on"),
                Output::Start => {
                    let tile = |tile| CommitBody { grid: 0, tile, body: Bytes::from(vec![tile as u8; 1_000_000]) };
                    session.publish(PeerIndex(0), (0..TILES).map(tile).collect()).expect("goes on");
                    session.finish().expect("goes on");
                }
                Output::Finished => return,
                other => panic!("{other:?}"),
            }
        }
    });
    let mut tiles = 0;
    loop {
        match host.next_within(HANG).expect("goes on") {
            Output::Assemble { .. } => host.plan_made(Bytes::new(), Traffic::default(), owners()).expect("goes on"),
            Output::Start => host.finish().expect("goes on"),
            Output::Commit { tile, body, .. } => {
                assert_eq!(body, vec![tile as u8; 1_000_000]);
                tiles += 1;
            }
            Output::Finished => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tiles, TILES);
    guest.join().expect("no panic");
}

#[test]
fn one_peer_alone() {
    let host = Session::host(config(TCP, "host"), 1).expect("hosts");
    assert_eq!(node(&host, 1, 4, 10).expect("finishes").exchanges, 10);
}

#[test]
fn a_guest_may_come_before_its_host() {
    let host = Session::host(config(TCP, "host"), 2).expect("hosts");
    let mut port_of = config(TCP, "host");
    port_of.transport.identity_seed = Some([3; 32]);
    let early = Session::host(port_of.clone(), 2).expect("hosts");
    let address = early.addresses()[0].clone();
    port_of.transport.listen = vec![address.split("/p2p/").next().expect("a prefix").to_owned()];
    drop((early, host));
    let guest = std::thread::spawn(move || node(&Session::join(config(TCP, "guest"), &address).expect("joins"), 2, 10, 3));
    let host = Session::host(port_of, 2).expect("hosts again");
    node(&host, 2, 10, 3).expect("finishes");
    guest.join().expect("no panic").expect("finishes");
}

#[test]
fn another_bundle_is_refused_and_told_why() {
    let host = Session::host(config(TCP, "host"), 2).expect("hosts");
    let address = host.addresses()[0].clone();
    let odd = SessionConfig { bundle: [1; 32], ..config(TCP, "odd") };
    let refused = node(&Session::join(odd, &address).expect("joins"), 2, 10, 3).expect_err("is refused");
    assert!(matches!(&refused, RunError::Refused { reason: RefuseReason::Bundle, .. }), "{refused}");
    let guest = std::thread::spawn(move || node(&Session::join(config(TCP, "guest"), &address).expect("joins"), 2, 10, 3));
    node(&host, 2, 10, 3).expect("the run goes on");
    guest.join().expect("no panic").expect("finishes");
}

#[test]
fn a_node_that_goes_ends_the_run_for_all() {
    let host = Session::host(config(TCP, "host"), 3).expect("hosts");
    let address = host.addresses()[0].clone();
    let [stays, goes] = ["stays", "goes"].map(|name| {
        let address = address.clone();
        // One of them leaves after five exchanges.
        let exchanges = if name == "goes" { 5 } else { u64::MAX };
        std::thread::spawn(move || {
            let session = Session::join(config(TCP, name), &address).expect("joins");
            if name == "stays" {
                return node(&session, 3, 100, exchanges).err();
            }
            let mut me = 0;
            loop {
                match session.next_within(HANG).expect("goes on") {
                    Output::PlanReceived { index, .. } => {
                        me = index.0;
                        session.plan_accepted(traffic(me, 3, 100), ownership(3)).expect("goes on");
                    }
                    Output::Start => {
                        let to = (0..3).filter(|to| *to != me).map(|to| (PeerIndex(to), payload(me, to, 0, 100)));
                        session.post(0, 0, to.collect()).expect("goes on");
                    }
                    Output::Deliver { .. } => return None,
                    _ => {}
                }
            }
        })
    });
    let at_host = node(&host, 3, 100, u64::MAX).expect_err("ends");
    goes.join().expect("no panic");
    let at_other = stays.join().expect("no panic").expect("ends");
    for error in [at_host, at_other] {
        assert!(matches!(&error, RunError::Aborted { name, .. } if name == "goes"), "{error}");
    }
}

#[test]
fn nobody_at_the_address_is_reported() {
    let config = SessionConfig { silence_limit: Duration::from_millis(600), ..config(TCP, "guest") };
    let session = Session::join(config, "/ip4/127.0.0.1/tcp/1").expect("starts");
    let output = session.next_within(HANG).expect("ends");
    assert!(matches!(output, Output::Failed(RunError::Unreachable { peer: PeerIndex(0), .. })), "{output:?}");
}

#[test]
fn a_taken_port_is_reported() {
    let first = Session::host(config(TCP, "first"), 2).expect("hosts");
    let taken = first.addresses()[0].split("/p2p/").next().expect("a prefix").to_owned();
    match Session::host(config(&taken, "second"), 2) {
        Err(SessionError::Transport(TransportError::AddressTaken { address })) => {
            assert_eq!(address, taken)
        }
        other => panic!("{other:?}"),
    }
}
