//! The framework's exchange path and its twin, a bare libp2p stream with the same sizes and pattern; and the same for
//! parts that move to a newcomer.
//!
//! An exchange is lockstep: two peers on loopback TCP each send `frame_bytes` and wait for the other's, again and again.
//! Parts go one way. Only the ratio of two figures from one run means anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::identity::Keypair;
use libp2p::swarm::Stream;
use peercompute_buffers::Grid;
use thiserror::Error;
use tokio::sync::oneshot;

use super::libp2p::{PROTOCOL, acknowledge, open_acknowledged};
use super::swarm::{build_swarm, listen};
use super::{TransportConfig, TransportError};
use crate::core::{ExchangeTraffic, Output, RunError, Traffic};
use crate::driver::{MemberSession, Session, SessionConfig, SessionError};
use crate::membership::{self, MemberConfig, PartId, Parts};
use crate::ownership::{Ownership, PeerIndex};

const OUTPUT_LIMIT: Duration = Duration::from_secs(60);

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// **Units**: 10⁶ bytes per second, both directions added.
    pub megabytes_per_second: f64,
    /// **Units**: microseconds per exchange.
    pub exchange_us: f64,
}

/// Why a measurement came to nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TwinError {
    /// A session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The bare swarms failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A socket or thread failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something came out of turn.
    #[error("unexpected: {what}")]
    Unexpected {
        /// What came.
        what: String,
    },
}

fn unexpected(what: impl std::fmt::Debug) -> TwinError {
    TwinError::Unexpected { what: format!("{what:?}") }
}

fn throughput(frame_bytes: u32, frames: u64, elapsed: Duration) -> Throughput {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let bytes = 2.0 * f64::from(frame_bytes) * frames as f64;
    Throughput { megabytes_per_second: bytes / seconds / 1e6, exchange_us: seconds * 1e6 / frames.max(1) as f64 }
}

/// Two sessions in this process exchange `frame_bytes` each way, `frames` times, through session, core and
/// transport. `listen` is the host's address, such as `/ip4/127.0.0.1/tcp/0`.
pub fn exchange_throughput(listen: &str, frame_bytes: u32, frames: u64) -> Result<Throughput, TwinError> {
    let transport = TransportConfig { listen: vec![listen.to_owned()], ..TransportConfig::default() };
    let config = SessionConfig { transport, ..SessionConfig::default() };
    let host = Session::host(config.clone(), 2)?;
    let address = host.addresses().first().cloned().unwrap_or_default();
    let joined = std::thread::spawn(move || {
        let session = Session::join(config, &address)?;
        run_exchanges(&session, frame_bytes, frames)
    });
    let elapsed = run_exchanges(&host, frame_bytes, frames);
    match joined.join() {
        Ok(other) => other?,
        Err(_) => return Err(unexpected("the other side panicked")),
    };
    Ok(throughput(frame_bytes, frames, elapsed?))
}

#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn run_exchanges(session: &Session, frame_bytes: u32, frames: u64) -> Result<Duration, TwinError> {
    let traffic = |me: u16| {
        let mut bytes = vec![frame_bytes; 2];
        bytes[usize::from(me)] = 0;
        Traffic { exchanges: vec![ExchangeTraffic { send: bytes.clone(), receive: bytes }] }
    };
    let nobody = || Ownership { epoch: 0, grids: Vec::new() };
    let mut other = PeerIndex(1);
    loop {
        match session.next_within(OUTPUT_LIMIT)? {
            Output::Assemble { .. } => session.plan_made(Bytes::new(), traffic(0), nobody())?,
            Output::PlanReceived { .. } => {
                other = PeerIndex(0);
                session.plan_accepted(traffic(1), nobody())?;
            }
            Output::Start => break,
            Output::Failed(error) => return Err(error.into()),
            output => return Err(unexpected(output)),
        }
    }
    let payload = Bytes::from(vec![0x5a; frame_bytes as usize]);
    let begun = Instant::now();
    // One list for all posts, as nodes do it.
    let mut payloads = Vec::new();
    for sequence in 0..frames {
        payloads.clear();
        payloads.push((other, payload.clone()));
        session.post(sequence, 0, payloads)?;
        payloads = match session.next_within(OUTPUT_LIMIT)? {
            Output::Deliver { sequence: delivered, payloads } if delivered == sequence => payloads,
            Output::Failed(error) => return Err(error.into()),
            output => return Err(unexpected(output)),
        };
    }
    let elapsed = begun.elapsed();
    session.finish()?;
    match session.next_within(OUTPUT_LIMIT)? {
        Output::Finished => Ok(elapsed),
        Output::Failed(error) => Err(error.into()),
        output => Err(unexpected(output)),
    }
}

/// Parts that move to a newcomer: a host with `parts` twice over, which goes on ticking, hands half of them to a member that joins.
/// The time is from the newcomer's word of its epoch until it has all its parts, checked against their hashes.
///
/// `listen` is the host's address; `part_bytes` a multiple of 4096.
pub fn moved_throughput(listen: &str, part_bytes: u32, parts: u32) -> Result<Throughput, TwinError> {
    let points = part_bytes / 4096;
    let grid = Grid::new(&[points * parts * 2], &[points]).map_err(unexpected)?;
    let all = Arc::new(Parts::new(&[grid], &[4096], 0).map_err(unexpected)?);
    let transport = TransportConfig { listen: vec![listen.to_owned()], ..TransportConfig::default() };
    let config = |role: membership::Role, name: &str| MemberConfig {
        role,
        identity: String::new(),
        name: name.to_owned(),
        addresses: Vec::new(),
        speed: 1.0,
        memory: u64::MAX,
        keep: membership::Keep::Share,
        seeds: true,
        token: [1; 16],
        bundle: [2; 32],
        parts: all.clone(),
        seed: 3,
        frame_bytes_max: 8 << 20,
        tuning: membership::Tuning {
            snapshot_every: Duration::from_secs(3600),
            join_fetch: Duration::from_secs(3600),
            balance: false,
            ..membership::Tuning::default()
        },
    };
    let role = membership::Role::Host { assemble: 1, end: u64::MAX, task: Bytes::new(), replicas: 1, stored: None };
    let host = MemberSession::start(transport.clone(), config(role, "host"))?;
    let role = membership::Role::Join { addresses: host.addresses().to_vec() };
    let content = Bytes::from(vec![0x5a; part_bytes as usize]);
    let (stop, stopped) = flume::bounded::<()>(1);
    let hosting = {
        let (all, content) = (all.clone(), content.clone());
        std::thread::spawn(move || host_parts(&host, &all, &content, &stopped))
    };
    let joined = join_parts(transport, config(role, "newcomer"), &content);
    drop(stop);
    match hosting.join() {
        Ok(hosted) => hosted?,
        Err(_) => return Err(unexpected("the host panicked")),
    }
    let (bytes, elapsed) = joined?;
    let seconds = elapsed.as_secs_f64().max(1e-9);
    Ok(Throughput { megabytes_per_second: bytes as f64 / seconds / 1e6, exchange_us: seconds * 1e6 })
}

/// A host whose ticks take a millisecond and change nothing.
fn host_parts(host: &MemberSession, all: &Parts, content: &Bytes, stopped: &flume::Receiver<()>) -> Result<(), TwinError> {
    let (mut entered, mut taken) = (0, None);
    let mut owned: Vec<PartId> = Vec::new();
    while !matches!(stopped.try_recv(), Err(flume::TryRecvError::Disconnected)) {
        match host.next_within(Duration::from_millis(20)) {
            Ok(membership::Output::Enter { plan, me, .. }) => {
                (entered, taken) = (plan.epoch, None);
                owned = plan.owned(me).chain([all.tables()]).collect();
                host.send(membership::Event::Entered { epoch: plan.epoch, traffic: Traffic::default() })?;
            }
            Ok(membership::Output::Pace { epoch, until, snapshots }) if epoch == entered => {
                for tick in snapshots {
                    // One that is on its way may be asked for again.
                    if tick > until || Some(tick) <= taken {
                        continue;
                    }
                    taken = Some(tick);
                    let bytes = |part: &PartId| content.slice(..all.bytes(*part) as usize);
                    let parts = owned.iter().map(|part| (*part, bytes(part))).collect();
                    host.send(membership::Event::Snapshot { epoch, tick, parts })?;
                }
                std::thread::sleep(Duration::from_millis(1));
                host.send(membership::Event::Ticked { epoch, tick: until, busy: Duration::from_millis(1) })?;
            }
            Ok(membership::Output::Failed(error)) => return Err(unexpected(error)),
            Ok(_) | Err(SessionError::TimedOut { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A newcomer: how many bytes it was given, and how long that took.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn join_parts(transport: TransportConfig, config: MemberConfig, content: &Bytes) -> Result<(u64, Duration), TwinError> {
    let session = MemberSession::start(transport, config)?;
    let mut begun = Instant::now();
    loop {
        match session.next_within(OUTPUT_LIMIT)? {
            membership::Output::Prepare { .. } => session.send(membership::Event::Prepared)?,
            membership::Output::Notice(membership::Notice::Joined { .. }) => begun = Instant::now(),
            membership::Output::Enter { parts, .. } => {
                let elapsed = begun.elapsed();
                let bytes = parts.iter().map(|(_, bytes)| bytes.len() as u64).sum();
                let is_right = parts.iter().all(|(_, bytes)| bytes[..] == content[..bytes.len()]);
                return if is_right && bytes > 0 { Ok((bytes, elapsed)) } else { Err(unexpected("other parts than the host has")) };
            }
            membership::Output::Failed(error) => return Err(unexpected(error)),
            _ => {}
        }
    }
}

/// The twin of parts that move: one bare stream that carries as many bytes one way, to somebody who keeps them.
pub fn raw_one_way_throughput(listen: &str, frame_bytes: u32, frames: u64) -> Result<Throughput, TwinError> {
    let (address_in, address) = oneshot::channel();
    let acceptor = {
        let listen = listen.to_owned();
        std::thread::spawn(move || on_runtime(raw_acceptor(listen, address_in, Pattern::Receive, frame_bytes, frames)))
    };
    let elapsed = on_runtime(raw_dialer(address, Pattern::Send, frame_bytes, frames));
    match acceptor.join() {
        Ok(other) => other?,
        Err(_) => return Err(unexpected("the other side panicked")),
    };
    let seconds = elapsed?.as_secs_f64().max(1e-9);
    Ok(Throughput { megabytes_per_second: f64::from(frame_bytes) * frames as f64 / seconds / 1e6, exchange_us: seconds * 1e6 })
}

/// What one side of a bare stream does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Lockstep,
    Send,
    Receive,
}

/// The twin: two bare swarms, each on a thread of its own, one stream, the same sizes and pattern.
pub fn raw_stream_throughput(listen: &str, frame_bytes: u32, frames: u64) -> Result<Throughput, TwinError> {
    let (address_in, address) = oneshot::channel();
    let acceptor = {
        let listen = listen.to_owned();
        std::thread::spawn(move || on_runtime(raw_acceptor(listen, address_in, Pattern::Lockstep, frame_bytes, frames)))
    };
    let elapsed = on_runtime(raw_dialer(address, Pattern::Lockstep, frame_bytes, frames));
    match acceptor.join() {
        Ok(other) => other?,
        Err(_) => return Err(unexpected("the other side panicked")),
    };
    Ok(throughput(frame_bytes, frames, elapsed?))
}

fn on_runtime<T>(work: impl Future<Output = Result<T, TwinError>>) -> Result<T, TwinError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn raw_acceptor(
    address: String,
    address_in: oneshot::Sender<libp2p::Multiaddr>,
    pattern: Pattern,
    frame_bytes: u32,
    frames: u64,
) -> Result<Duration, TwinError> {
    let config = TransportConfig { listen: vec![address], ..TransportConfig::default() };
    let mut swarm = build_swarm(Keypair::generate_ed25519(), &config)?;
    let addresses = listen(&mut swarm, &config).await?;
    let first = addresses.into_iter().next().ok_or_else(|| unexpected("no address"))?;
    let full = first.with_p2p(*swarm.local_peer_id()).map_err(unexpected)?;
    let mut incoming = swarm.behaviour().streams.new_control().accept(PROTOCOL).map_err(unexpected)?;
    address_in.send(full).map_err(unexpected)?;
    let swarm = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let (_, mut stream) = incoming.next().await.ok_or_else(|| unexpected("no stream"))?;
    acknowledge(&mut stream).await?;
    let elapsed = follow(pattern, stream, frame_bytes, frames).await;
    swarm.abort();
    elapsed
}

async fn raw_dialer(address: oneshot::Receiver<libp2p::Multiaddr>, pattern: Pattern, frame_bytes: u32, frames: u64) -> Result<Duration, TwinError> {
    let mut swarm = build_swarm(Keypair::generate_ed25519(), &TransportConfig::default())?;
    let address = address.await.map_err(unexpected)?;
    let mut control = swarm.behaviour().streams.new_control();
    swarm.dial(address).map_err(unexpected)?;
    let peer = loop {
        match swarm.select_next_some().await {
            libp2p::swarm::SwarmEvent::ConnectionEstablished { peer_id, .. } => break peer_id,
            libp2p::swarm::SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(unexpected(error));
            }
            _ => {}
        }
    };
    let swarm = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let stream = open_acknowledged(&mut control, peer).await.map_err(unexpected)?;
    let elapsed = follow(pattern, stream, frame_bytes, frames).await;
    swarm.abort();
    elapsed
}

async fn follow(pattern: Pattern, stream: Stream, frame_bytes: u32, frames: u64) -> Result<Duration, TwinError> {
    match pattern {
        Pattern::Lockstep => lockstep(stream, frame_bytes, frames).await,
        Pattern::Send | Pattern::Receive => one_way(pattern, stream, frame_bytes, frames).await,
    }
}

/// All frames in one direction, where they are kept as parts are; one byte comes back when the last has been read.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
async fn one_way(pattern: Pattern, mut stream: Stream, frame_bytes: u32, frames: u64) -> Result<Duration, TwinError> {
    let mut frame = vec![0x5a; frame_bytes as usize];
    let mut kept = Vec::new();
    let begun = Instant::now();
    for _ in 0..frames {
        if pattern == Pattern::Send {
            stream.write_all(&frame).await?;
            continue;
        }
        let mut received = vec![0; frame_bytes as usize];
        stream.read_exact(&mut received).await?;
        kept.push(received);
    }
    if pattern == Pattern::Send {
        stream.flush().await?;
        stream.read_exact(&mut frame[..1]).await?;
        return Ok(begun.elapsed());
    }
    stream.write_all(&frame[..1]).await?;
    stream.flush().await?;
    // The other side goes first: a connection that is torn down takes that byte with it.
    let _ = stream.read(&mut frame[..1]).await;
    Ok(begun.elapsed())
}

#[allow(clippy::disallowed_methods, reason = "a measurement")]
async fn lockstep(stream: Stream, frame_bytes: u32, frames: u64) -> Result<Duration, TwinError> {
    let (mut reading, mut writing) = stream.split();
    let payload = vec![0x5a; frame_bytes as usize];
    let mut received = vec![0; frame_bytes as usize];
    let begun = Instant::now();
    for _ in 0..frames {
        let write = async {
            writing.write_all(&payload).await?;
            writing.flush().await
        };
        futures::try_join!(write, reading.read_exact(&mut received))?;
    }
    let elapsed = begun.elapsed();
    // The last bytes are read before the connection goes: the other side closes too.
    writing.close().await?;
    let _ = tokio::time::timeout(Duration::from_secs(2), reading.read(&mut received)).await;
    Ok(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_paths_run_tiny() {
        for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws"] {
            let framework = exchange_throughput(listen, 1000, 3).expect("sessions exchange");
            let raw = raw_stream_throughput(listen, 1000, 3).expect("streams exchange");
            assert!(framework.megabytes_per_second > 0.0 && raw.megabytes_per_second > 0.0);
        }
    }
}
