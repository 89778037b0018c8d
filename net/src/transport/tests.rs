//! Real sockets on loopback: links, limits and back-pressure; and peers that are not of ours.

use std::time::Duration;

use ::libp2p::identity::Keypair;
use ::libp2p::swarm::{Stream, SwarmEvent};
use bytes::Bytes;
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};

use super::libp2p::open_acknowledged;
use super::swarm::build_swarm;
use super::*;
use crate::core::{Output, RunError, Traffic};
use crate::driver::{Session, SessionConfig};
use crate::ownership::Ownership;
use crate::wire::{Frame, RefuseReason};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const WEBSOCKET: &str = "/ip4/127.0.0.1/tcp/0/ws";
/// A WebSocket on the port of an HTTP server.
const DOOR: &str = "door";
/// Every way to be reached.
const ALL: [&str; 4] = [TCP, QUIC, WEBSOCKET, DOOR];
/// Far beyond what any step takes; only a hang meets it.
const HANG: Duration = Duration::from_secs(30);

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(HANG, work).await.expect("no hang") })
}

async fn start(listen: &str) -> Transport {
    let mut config = TransportConfig { listen: vec![listen.to_owned()], ..TransportConfig::default() };
    if listen == DOOR {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("listens").port();
        let (door, doorway) = websocket::door();
        tokio::spawn(serve(listener, door));
        config = TransportConfig { listen: vec![format!("/ip4/127.0.0.1/tcp/{port}/ws")], doorway: Some(doorway), ..config };
    }
    Transport::start(config).await.expect("starts")
}

/// As little of an HTTP server as agrees to an upgrade.
async fn serve(listener: tokio::net::TcpListener, door: websocket::Door) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut stream, remote)) = listener.accept().await {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        let request = String::from_utf8(request).expect("text");
        assert!(request.starts_with(&format!("GET {} HTTP/1.1\r\n", websocket::PATH)), "{request}");
        let field =
            |line: &str| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key.to_owned());
        let accept = websocket::accept_key(request.lines().find_map(field).expect("a key").as_bytes());
        let answer =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("answers");
        if door.hand_over(stream, remote).await.is_err() {
            return;
        }
    }
}

/// A bare swarm with one acknowledged stream to an address; it says only what a test writes.
async fn bare_stream(address: &str) -> Stream {
    let mut swarm = build_swarm(Keypair::generate_ed25519(), &TransportConfig::default()).expect("a swarm");
    let address: ::libp2p::Multiaddr = address.parse().expect("an address");
    swarm.dial(address).expect("dials");
    let mut control = swarm.behaviour().streams.new_control();
    let peer = loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
            break peer_id;
        }
    };
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    open_acknowledged(&mut control, peer).await.expect("is acknowledged")
}

async fn opened(transport: &mut Transport) -> LinkId {
    match transport.next().await {
        TransportEvent::Opened { link, .. } => link,
        other => panic!("expected a link, got {other:?}"),
    }
}

/// Two transports with one link; the dialer first.
async fn pair(listen: &str) -> ((Transport, LinkId), (Transport, LinkId)) {
    let (mut dialer, mut acceptor) = (start(listen).await, start(listen).await);
    dialer.dial(&acceptor.addresses()[0].clone()).expect("dials");
    let links = (opened(&mut dialer).await, opened(&mut acceptor).await);
    ((dialer, links.0), (acceptor, links.1))
}

fn frame(bytes: usize) -> Frame {
    let head = (bytes as u32).to_le_bytes();
    Frame { head: head.as_slice().into(), body: (0..bytes).map(|at| at as u8).collect() }
}

#[test]
fn a_taken_port_is_named() {
    on_runtime(async {
        for listen in [TCP, QUIC, WEBSOCKET] {
            let first = start(listen).await;
            let taken = first.addresses()[0].split("/p2p/").next().expect("a prefix").to_owned();
            let config = TransportConfig { listen: vec![taken.clone()], ..TransportConfig::default() };
            let error = Transport::start(config).await.err();
            assert_eq!(error, Some(TransportError::AddressTaken { address: taken }));
        }
    });
}

#[test]
fn an_address_that_is_none_is_named() {
    on_runtime(async {
        for text in ["localhost:80", "/ip4/127.0.0.1/tcp/0/http", "/dns4/nowhere"] {
            let config = TransportConfig { listen: vec![text.to_owned()], ..TransportConfig::default() };
            let error = Transport::start(config).await.err();
            assert!(matches!(&error, Some(TransportError::BadAddress { address, .. }) if address == text), "{error:?}");
        }
        let mut transport = start(TCP).await;
        for text in ["nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1/ws", "/dns4/nowhere.invalid/tcp/1/wss"] {
            transport.dial(text).expect("is queued");
            let event = transport.next().await;
            assert!(matches!(&event, TransportEvent::DialFailed { address, .. } if address == text), "{event:?}");
        }
    });
}

/// What no WebSocket is, and what is none of ours.
#[test]
fn a_port_of_websockets_turns_others_away() {
    on_runtime(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let secure = TransportConfig { listen: vec!["/ip4/127.0.0.1/tcp/0/wss".to_owned()], ..TransportConfig::default() };
        let error = Transport::start(secure).await.err();
        assert!(matches!(&error, Some(TransportError::Listen { error, .. }) if error.contains("certificate")), "{error:?}");
        let mut transport = start(WEBSOCKET).await;
        let address = transport.addresses()[0].clone();
        let port: u16 = address.split('/').nth(4).and_then(|port| port.parse().ok()).expect("a port");
        let ask = async |request: &[u8]| {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
            stream.write_all(request).await.expect("writes");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        let elsewhere = ask(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
        assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
        for garbage in [&b"\xff\xff\xff\xff\r\n\r\n"[..], b"GET /p2p HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let answer = ask(garbage).await;
            assert!(!answer.starts_with("HTTP/1.1 101"), "{answer}");
        }
        // A message of text is nobody's.
        let (mut socket, _) = {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
            tokio_tungstenite::client_async(format!("ws://127.0.0.1:{port}{}", websocket::PATH), stream).await.expect("is upgraded")
        };
        futures::SinkExt::send(&mut socket, tokio_tungstenite::tungstenite::Message::Text("hello".into())).await.expect("writes");
        while let Some(Ok(_)) = socket.next().await {}
        // And who comes as should be is served all the same.
        let mut dialer = start(WEBSOCKET).await;
        dialer.dial(&address).expect("dials");
        tokio::join!(opened(&mut dialer), opened(&mut transport));
    });
}

#[test]
fn a_seed_gives_the_same_identity_again() {
    on_runtime(async {
        let config = TransportConfig { identity_seed: Some([5; 32]), ..TransportConfig::default() };
        let (first, second) = (Transport::start(config.clone()).await, Transport::start(config).await);
        let (first, second) = (first.expect("starts"), second.expect("starts"));
        assert_eq!(first.identity(), second.identity());
        assert_ne!(first.identity(), start(TCP).await.identity());
    });
}

#[test]
fn frames_arrive_in_order_and_whole_and_a_close_loses_none() {
    on_runtime(async {
        for listen in ALL {
            let ((mut dialer, out), (mut acceptor, incoming)) = pair(listen).await;
            acceptor.limit(incoming, 1 << 20);
            let sizes: Vec<usize> = (0..120).map(|n| [0, 1, 100, 16_383, 16_384, 16_385, 300_000][n % 7]).collect();
            for bytes in &sizes {
                dialer.send(out, frame(*bytes)).expect("is queued");
            }
            dialer.close(out);
            let room = dialer.room();
            let receive = async {
                for bytes in &sizes {
                    match acceptor.next().await {
                        TransportEvent::Received { frame: content, .. } => {
                            assert_eq!(content, frame(*bytes).body)
                        }
                        other => panic!("{other:?}"),
                    }
                }
                match acceptor.next().await {
                    TransportEvent::Closed { reason, .. } => assert_eq!(reason, CloseReason::Ended),
                    other => panic!("{other:?}"),
                }
            };
            let pump = async {
                loop {
                    room.notified().await;
                    dialer.pump();
                }
            };
            tokio::select! { () = receive => {}, () = pump => {} }
        }
    });
}

#[test]
fn a_link_that_nobody_reads_is_congested_until_somebody_does() {
    on_runtime(async {
        for listen in ALL {
            let mut transport = start(listen).await;
            let mut stream = bare_stream(&transport.addresses()[0].clone()).await;
            let link = opened(&mut transport).await;
            for _ in 0..200 {
                transport.send(link, frame(65_536)).expect("is queued");
            }
            assert!(transport.is_congested());
            let room = transport.room();
            let read = async {
                let mut content = vec![0; 65_540];
                for _ in 0..200 {
                    stream.read_exact(&mut content).await.expect("reads");
                }
            };
            let pump = async {
                while transport.is_congested() {
                    room.notified().await;
                    transport.pump();
                }
            };
            tokio::join!(read, pump);
            assert!(!transport.is_congested());
        }
    });
}

/// A process that is frozen reads nothing and closes nothing. Closed links to it are no congestion, and end.
#[test]
fn a_closed_link_that_nobody_reads_holds_nobody_up_and_ends() {
    on_runtime(async {
        for listen in ALL {
            let ((mut dialer, link), (acceptor, _unread)) = pair(listen).await;
            dialer.limit(link, u32::MAX);
            while !dialer.is_congested() {
                dialer.send(link, frame(4000)).expect("takes it");
                tokio::task::yield_now().await;
            }
            dialer.close(link);
            assert!(dialer.is_waiting() && !dialer.is_congested());
            let begun = tokio::time::Instant::now();
            dialer.shutdown().await;
            assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
            drop(acceptor);
        }
    });
}

/// Who has sent something is not silent, however long it waits to be taken.
#[test]
fn frames_that_wait_to_be_taken_are_known_by_their_link() {
    on_runtime(async {
        for listen in ALL {
            let ((mut dialer, link), (mut acceptor, unread)) = pair(listen).await;
            assert_eq!((dialer.untaken().count(), acceptor.untaken().count()), (0, 0));
            (0..3).for_each(|_| dialer.send(link, frame(100)).expect("takes it"));
            while acceptor.untaken().next() != Some(unread) {
                tokio::task::yield_now().await;
            }
            for _ in 0..3 {
                assert!(matches!(acceptor.next().await, TransportEvent::Received { .. }));
            }
            assert_eq!(acceptor.untaken().count(), 0);
        }
    });
}

#[test]
fn a_frame_above_the_limit_closes_the_link_and_the_limit_can_be_raised() {
    on_runtime(async {
        for listen in ALL {
            let mut transport = start(listen).await;
            let address = transport.addresses()[0].clone();
            let mut stream = bare_stream(&address).await;
            let link = opened(&mut transport).await;
            stream.write_all(&u32::MAX.to_le_bytes()).await.expect("writes");
            stream.flush().await.expect("writes");
            match transport.next().await {
                TransportEvent::Closed { link: closed, reason } => {
                    let limit = crate::wire::STRANGER_FRAME_BYTES_MAX;
                    assert_eq!((closed, reason), (link, CloseReason::FrameTooLong { given: u32::MAX, limit }));
                }
                other => panic!("{other:?}"),
            }
            let mut stream = bare_stream(&address).await;
            let link = opened(&mut transport).await;
            transport.limit(link, 5000);
            let large = frame(5000);
            stream.write_all(&large.head).await.expect("writes");
            stream.write_all(&large.body).await.expect("writes");
            stream.flush().await.expect("writes");
            assert!(matches!(transport.next().await, TransportEvent::Received { frame, .. } if frame.len() == 5000));
        }
    });
}

#[test]
fn a_burst_of_dials_opens_every_link() {
    on_runtime(async {
        for listen in ALL {
            let mut acceptor = start(listen).await;
            let address = acceptor.addresses()[0].clone();
            let mut dialers = Vec::new();
            for _ in 0..24 {
                let mut dialer = start(listen).await;
                dialer.dial(&address).expect("dials");
                dialers.push(dialer);
            }
            let dialled = futures::future::join_all(dialers.iter_mut().map(opened));
            let accepted = async {
                for _ in 0..24 {
                    opened(&mut acceptor).await;
                }
            };
            tokio::join!(dialled, accepted);
        }
    });
}

/// A transport that nobody can dial, as in a browser.
async fn behind(relay: &Transport) -> Transport {
    let config = TransportConfig { listen: Vec::new(), relays: vec![relay.addresses()[0].clone()], ..TransportConfig::default() };
    let behind = Transport::start(config).await.expect("starts");
    let circuit = format!("{}/p2p-circuit/p2p/{}", relay.addresses()[0], behind.identity());
    assert_eq!(behind.addresses(), [circuit]);
    behind
}

async fn relay(listen: &str) -> Transport {
    let config = TransportConfig { listen: vec![listen.to_owned()], relay: true, identity_seed: Some([9; 32]), ..TransportConfig::default() };
    Transport::start(config).await.expect("starts")
}

/// One sends, the other has it.
async fn carries(from: &mut Transport, out: LinkId, to: &mut Transport) {
    from.send(out, frame(4_000)).expect("is queued");
    match to.next().await {
        TransportEvent::Received { frame: content, .. } => assert_eq!(content, frame(4_000).body),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_that_nobody_can_dial_reach_each_other_through_a_relay_and_it_reaches_them() {
    on_runtime(async {
        for listen in [TCP, WEBSOCKET] {
            let mut root = relay(listen).await;
            let (mut one, mut two) = (behind(&root).await, behind(&root).await);
            one.dial(&root.addresses()[0].clone()).expect("dials");
            let to_root = opened(&mut one).await;
            opened(&mut root).await;
            one.dial(&two.addresses()[0].clone()).expect("dials");
            let to_two = opened(&mut one).await;
            let from_one = opened(&mut two).await;
            carries(&mut one, to_two, &mut two).await;
            // The link to the relay may end: what goes through it does not.
            one.close(to_root);
            assert!(matches!(root.next().await, TransportEvent::Closed { reason: CloseReason::Ended, .. }));
            carries(&mut two, from_one, &mut one).await;
            // A relay knows whom it relays to, and needs no way but theirs.
            root.dial(&two.addresses()[0].clone()).expect("dials");
            let from_root = opened(&mut root).await;
            opened(&mut two).await;
            carries(&mut root, from_root, &mut two).await;
            let gone = format!("{}/p2p-circuit/p2p/{}", root.addresses()[0], start(TCP).await.identity());
            root.dial(&gone).expect("is queued");
            assert!(matches!(root.next().await, TransportEvent::DialFailed { address, .. } if address == gone));
        }
    });
}

#[test]
fn nobody_relays_who_was_not_asked_to_and_that_keeps_nobody_away() {
    on_runtime(async {
        let mut plain = start(TCP).await;
        let config = TransportConfig { listen: Vec::new(), relays: vec![plain.addresses()[0].clone()], ..TransportConfig::default() };
        let mut other = Transport::start(config).await.expect("starts");
        assert!(other.addresses().is_empty());
        other.dial(&plain.addresses()[0].clone()).expect("dials");
        tokio::join!(opened(&mut other), opened(&mut plain));
    });
}

/// A stranger may knock, and is nobody's way to anybody.
#[test]
fn nothing_is_relayed_to_whoever_holds_no_link_for_long() {
    on_runtime(async {
        let mut root = relay(TCP).await;
        let stranger = behind(&root).await;
        let mut member = behind(&root).await;
        member.dial(&root.addresses()[0].clone()).expect("dials");
        let link = opened(&mut member).await;
        opened(&mut root).await;
        let mut reached = 0;
        loop {
            member.dial(&stranger.addresses()[0].clone()).expect("is queued");
            match member.next().await {
                TransportEvent::Opened { link, .. } => member.close(link),
                TransportEvent::DialFailed { .. } => break,
                other => panic!("{other:?}"),
            }
            reached += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(reached > 0);
        // Who has a link stays.
        carries(&mut member, link, &mut root).await;
    });
}

#[test]
fn a_reservation_is_had_again_after_its_relay() {
    on_runtime(async {
        let first = relay(TCP).await;
        let (address, listen) = (first.addresses()[0].clone(), first.addresses()[0].split("/p2p/").next().expect("a prefix").to_owned());
        let behind = behind(&first).await;
        first.shutdown().await;
        let root = loop {
            let config = TransportConfig { listen: vec![listen.clone()], relay: true, identity_seed: Some([9; 32]), ..TransportConfig::default() };
            match Transport::start(config).await {
                Ok(root) => break root,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        assert_eq!(root.addresses()[0], address);
        let mut dialer = start(TCP).await;
        loop {
            dialer.dial(&behind.addresses()[0].clone()).expect("dials");
            match dialer.next().await {
                TransportEvent::Opened { .. } => break,
                TransportEvent::DialFailed { .. } => tokio::time::sleep(Duration::from_millis(50)).await,
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn one_identity_holds_few_links() {
    on_runtime(async {
        for listen in ALL {
            let mut acceptor = start(listen).await;
            let mut dialer = start(listen).await;
            let address = acceptor.addresses()[0].clone();
            for _ in 0..4 {
                dialer.dial(&address).expect("dials");
                opened(&mut dialer).await;
                opened(&mut acceptor).await;
            }
            dialer.dial(&address).expect("dials");
            let event = dialer.next().await;
            assert!(matches!(event, TransportEvent::DialFailed { .. }), "{event:?}");
        }
    });
}

fn nothing() -> (Traffic, Ownership) {
    (Traffic::default(), Ownership { epoch: 0, grids: Vec::new() })
}

/// A session through a whole run without exchanges, with what it saw of strangers.
fn whole_run(session: &Session) -> Result<Vec<RefuseReason>, RunError> {
    let mut refused = Vec::new();
    loop {
        match session.next_within(HANG).expect("goes on") {
            Output::Assemble { .. } => session.plan_made(Bytes::new(), nothing().0, nothing().1).expect("goes on"),
            Output::PlanReceived { .. } => session.plan_accepted(nothing().0, nothing().1).expect("goes on"),
            Output::Start => session.finish().expect("goes on"),
            Output::Refused { reason, .. } => refused.push(reason),
            Output::Failed(error) => return Err(error),
            Output::Finished => return Ok(refused),
            _ => {}
        }
    }
}

/// A host meets a stranger first and then a guest; the run with the guest must not notice.
fn check_stranger(config: SessionConfig, stranger: impl AsyncFnOnce(&str, &mut dyn FnMut() -> Output), reason: Option<RefuseReason>) {
    let host = Session::host(config.clone(), 2).expect("hosts");
    let address = host.addresses()[0].clone();
    let mut seen = Vec::new();
    let mut next = || {
        let output = host.next_within(HANG).expect("goes on");
        if let Output::Refused { reason, .. } = &output {
            seen.push(*reason);
        }
        output
    };
    on_runtime(stranger(&address, &mut next));
    let guest = std::thread::spawn(move || whole_run(&Session::join(config, &address).expect("joins")));
    let at_host = whole_run(&host);
    seen.extend(at_host.expect("finishes"));
    assert_eq!(guest.join().expect("no panic"), Ok(Vec::new()));
    assert_eq!(seen, reason.into_iter().collect::<Vec<_>>());
}

#[test]
fn garbage_from_a_bare_stream_does_not_disturb_a_run() {
    let garbage = async |address: &str, _: &mut dyn FnMut() -> Output| {
        let mut stream = bare_stream(address).await;
        stream.write_all(b"\x05\x00\x00\x00\xff\xff\xff\xff\xff").await.expect("writes");
        stream.flush().await.expect("writes");
        // It is told why before the link closes: the first content byte is Refuse's kind.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer.get(4), Some(&8), "{answer:?}");
    };
    check_stranger(SessionConfig::default(), garbage, Some(RefuseReason::Protocol));
    let oversized = async |address: &str, _: &mut dyn FnMut() -> Output| {
        let mut stream = bare_stream(address).await;
        stream.write_all(&[0xff; 64]).await.expect("writes");
        stream.flush().await.expect("writes");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    // Nothing but a length came, so there is nobody to report.
    check_stranger(SessionConfig::default(), oversized, None);
}

#[test]
fn a_dialer_that_never_says_hello_is_sent_away() {
    let config = SessionConfig { silence_limit: Duration::from_millis(400), ..SessionConfig::default() };
    let silent = async |address: &str, next: &mut dyn FnMut() -> Output| {
        let mut stream = bare_stream(address).await;
        let output = next();
        assert!(matches!(output, Output::Refused { reason: RefuseReason::Silent, .. }), "{output:?}");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer.get(4..6), Some(&[8, 7][..]), "{answer:?}");
    };
    check_stranger(config, silent, Some(RefuseReason::Silent));
}
