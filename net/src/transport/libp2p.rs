//! Links over libp2p: TCP (noise, yamux), QUIC and WebSocket, one long-lived stream per link.
//!
//! libp2p-stream drops inbound streams without a word when its accept queue is full. So a link is one
//! stream for its whole life, opened by the dialer, and it counts only when the acceptor has written one
//! acknowledging byte; until then the dialer opens again, a bounded number of times.
//!
//! ```text
//!  dialer:   connect ─► open stream ─► wait for ACK ─► Opened, frames
//!  acceptor:            accept ─► write ACK ─► Opened, frames
//! ```
//!
//! One task per link reads and writes. A link that is closed on this side is drained first: what was sent
//! goes out, then the write half closes, then the other side has a moment to close its own, because a
//! connection torn down at once would lose what is still under way.
//!
//! Invariants: at most one frame per link is being read into memory; outgoing frames queue up to
//! [`QUEUE_FRAMES`] in the writer, and beyond that here, where the driver sees the congestion.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
#[cfg(not(target_arch = "wasm32"))]
use libp2p::relay;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm};
use libp2p_stream::Control;
use tokio::sync::{Notify, mpsc, oneshot};

#[cfg(not(target_arch = "wasm32"))]
use super::swarm::BehaviourEvent;
use super::swarm::{Behaviour, Reserved, build_swarm, listen, reserve};
use super::{CloseReason, TransportConfig, TransportError, TransportEvent};
use crate::core::LinkId;
use crate::pool::Pool;
use crate::runtime::{Instant, sleep, spawn, timeout};
use crate::wire::{Frame, LENGTH_BYTES};

pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/peercompute/link/1");
const ACK: u8 = 0x06;
const OPEN_ATTEMPTS_MAX: u32 = 40;
/// The longest pause before another attempt, times the attempts so far; the pause is drawn from it, so
/// that dialers that collided once do not do so again.
const OPEN_PAUSE_MS: u64 = 10;
const OPEN_PAUSE_MS_MAX: u64 = 200;
const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for the other side to close its half of a link that this side closed.
const LINGER: Duration = Duration::from_secs(5);
/// A link that this side closed, and whose other end has read nothing for this long, is dropped with what was sent on it.
const CLOSE_IDLE: Duration = Duration::from_secs(2);
/// A shutdown in which no frame has moved for this long is given up.
const SHUTDOWN_IDLE: Duration = Duration::from_secs(10);
const LINKS_PER_PEER_MAX: u32 = 4;
/// Frames in a link's writer.
const QUEUE_FRAMES: usize = 64;
/// Frames that wait for a place in the writer; more than any core sends to one that reads.
const WAITING_FRAMES_MAX: usize = 1 << 18;
/// Events that wait for the driver; with them the readers stop.
const EVENTS_MAX: usize = 128;
const COMMANDS_MAX: usize = 4096;
/// The size in which streams like to be read and written: yamux and noise cut to it.
const CHUNK_BYTES: usize = 16 << 10;
const READ_BUFFER_BYTES: usize = 64 << 10;

enum Command {
    Dial(String),
    /// A link to this peer has ended; unless it has another, or is a relay and nothing is wrong with it, so does the connection.
    Ended {
        peer: PeerId,
        is_lost: bool,
    },
}

/// What link tasks tell the transport.
enum Internal {
    Opened { link: LinkId, peer: PeerId, outgoing: bool, handle: Handle },
    Received { link: LinkId, frame: Bytes },
    Closed { link: LinkId, reason: CloseReason },
    DialFailed { address: String, error: String },
}

/// The driver's end of a link. Dropping it closes the link once its queue is written.
struct Handle {
    frames: mpsc::Sender<Frame>,
    limit: Arc<AtomicU32>,
    waiting: VecDeque<Frame>,
    /// Until this side closes the link; the link's task sees it go.
    open: Option<oneshot::Sender<()>>,
    /// Frames that have been read and not taken.
    untaken: Arc<AtomicU32>,
}

/// A listening endpoint and its links. Natively it lives in a tokio runtime.
pub struct Transport {
    identity: String,
    addresses: Vec<String>,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Internal>,
    links: HashMap<LinkId, Handle>,
    room: Arc<Notify>,
    /// Closes when the last link task has ended.
    tasks: mpsc::Receiver<()>,
}

/// What every link task shares.
#[derive(Clone)]
struct Shared {
    events: mpsc::Sender<Internal>,
    commands: mpsc::Sender<Command>,
    room: Arc<Notify>,
    next_link: Arc<AtomicU64>,
    frame_bytes_max: u32,
    alive: mpsc::Sender<()>,
}

impl Transport {
    /// Listens on every address of the configuration.
    ///
    /// **Errors**: an address that is taken, wrong or not to be had, by name.
    pub async fn start(config: TransportConfig) -> Result<Transport, TransportError> {
        let keypair = keypair_from_seed(config.identity_seed)?;
        let mut swarm = build_swarm(keypair, &config)?;
        let addresses = listen(&mut swarm, &config).await?;
        #[cfg(not(target_arch = "wasm32"))]
        if config.relay {
            // What it tells those that reserve: where others find them.
            addresses.iter().for_each(|address| swarm.add_external_address(address.clone()));
        }
        let reserved = reserve(&mut swarm, &config.relays).await?;
        let identity = swarm.local_peer_id().to_string();
        let mut control = swarm.behaviour().streams.new_control();
        let incoming = control.accept(PROTOCOL).map_err(|error| TransportError::Setup { error: error.to_string() })?;

        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let (commands, commands_out) = mpsc::channel(COMMANDS_MAX);
        let (alive, tasks) = mpsc::channel(1);
        let room = Arc::new(Notify::new());
        let shared = Shared {
            events: events_in,
            commands: commands.clone(),
            room: room.clone(),
            next_link: Arc::new(AtomicU64::new(0)),
            frame_bytes_max: config.frame_bytes_max,
            alive,
        };
        let direct = addresses.iter().map(|address| format!("{address}/p2p/{identity}"));
        let addresses = direct.chain(reserved.addresses.iter().map(|(_, address)| address.to_string())).collect();
        let routes = Routes { control, links: HashMap::new(), links_max: config.links_max, reserved, lost: Vec::new(), relayed: HashMap::new() };
        spawn(run_swarm(swarm, routes, incoming, commands_out, shared));
        Ok(Transport { identity, addresses, commands, events, links: HashMap::new(), room, tasks })
    }

    /// The identity that this transport proves to others.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Where others reach it, identity included.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Dials; answered by `Opened` or `DialFailed`.
    pub fn dial(&mut self, address: &str) -> Result<(), CloseReason> {
        let broken = |_| CloseReason::Broken { error: "too many dials at once".to_owned() };
        self.commands.try_send(Command::Dial(address.to_owned())).map_err(broken)
    }

    /// Queues a frame. Frames on a link that is gone are dropped; its `Closed` says so.
    ///
    /// **Errors**: too many wait already; the link is closed.
    pub fn send(&mut self, link: LinkId, frame: Frame) -> Result<(), CloseReason> {
        let Some(handle) = self.links.get_mut(&link).filter(|handle| !handle.is_closing()) else {
            return Ok(());
        };
        handle.waiting.push_back(frame);
        handle.pump();
        let frames = handle.waiting.len();
        if frames > WAITING_FRAMES_MAX {
            self.links.remove(&link);
            return Err(CloseReason::NotReading { frames });
        }
        Ok(())
    }

    /// Lets frames of this length through from now on.
    pub fn limit(&mut self, link: LinkId, frame_bytes_max: u32) {
        if let Some(handle) = self.links.get(&link) {
            handle.limit.store(frame_bytes_max, Ordering::Release);
        }
    }

    /// Closes a link once everything sent on it is written. No `Closed` follows.
    pub fn close(&mut self, link: LinkId) {
        if let Some(handle) = self.links.get_mut(&link) {
            handle.open = None;
        }
        self.pump();
    }

    /// Whether frames wait for room in a writer.
    pub fn is_waiting(&self) -> bool {
        self.links.values().any(|handle| !handle.waiting.is_empty())
    }

    /// Whether they wait on a link that is still wanted: one that was closed holds nobody up.
    pub fn is_congested(&self) -> bool {
        self.links.values().any(|handle| !handle.is_closing() && !handle.waiting.is_empty())
    }

    /// Signals room in some writer; call [`Transport::pump`] then.
    pub fn room(&self) -> Arc<Notify> {
        self.room.clone()
    }

    /// Moves waiting frames on, where there is room.
    pub fn pump(&mut self) {
        self.links.retain(|_, handle| {
            handle.pump();
            !(handle.is_closing() && handle.waiting.is_empty())
        });
    }

    /// Links on which frames have arrived that were not taken yet.
    pub fn untaken(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.links.iter().filter(|(_, handle)| handle.untaken.load(Ordering::Relaxed) > 0).map(|(link, _)| *link)
    }

    /// The next event. Dropping the future loses none.
    pub async fn next(&mut self) -> TransportEvent {
        loop {
            let Some(internal) = self.events.recv().await else {
                // The swarm's task holds a sender as long as this transport lives.
                std::future::pending::<()>().await;
                continue;
            };
            if let Some(event) = self.take_in(internal) {
                return event;
            }
        }
    }

    /// The next event, where one is there.
    pub fn try_next(&mut self) -> Option<TransportEvent> {
        while let Ok(internal) = self.events.try_recv() {
            if let Some(event) = self.take_in(internal) {
                return Some(event);
            }
        }
        None
    }

    fn take_in(&mut self, internal: Internal) -> Option<TransportEvent> {
        Some(match internal {
            Internal::Opened { link, peer, outgoing, handle } => {
                self.links.insert(link, handle);
                TransportEvent::Opened { link, identity: peer.to_string(), outgoing }
            }
            Internal::Received { link, frame } => {
                let handle = self.links.get(&link)?;
                handle.untaken.fetch_sub(1, Ordering::Relaxed);
                if handle.is_closing() {
                    return None;
                }
                TransportEvent::Received { link, frame }
            }
            Internal::Closed { link, reason } => {
                let handle = self.links.remove(&link)?;
                if handle.is_closing() {
                    return None;
                }
                TransportEvent::Closed { link, reason }
            }
            Internal::DialFailed { address, error } => TransportEvent::DialFailed { address, error },
        })
    }

    /// Closes every link once everything sent on it is written and the other side has seen the end.
    ///
    /// **Limits**: takes as long as frames move; gives up on links on which nothing moves.
    pub async fn shutdown(self) {
        let Transport { mut links, mut events, room, mut tasks, commands, .. } = self;
        drop(commands);
        for handle in links.values_mut() {
            handle.open = None;
        }
        loop {
            links.retain(|_, handle| {
                handle.pump();
                !handle.waiting.is_empty()
            });
            let moved = async {
                // Readers that still bring something must find room, or they would not see the end.
                tokio::select! {
                    ended = tasks.recv() => ended.is_some(),
                    event = events.recv() => event.is_some(),
                    () = room.notified() => true,
                }
            };
            if !timeout(SHUTDOWN_IDLE, moved).await.unwrap_or(false) {
                return;
            }
        }
    }
}

impl Handle {
    fn is_closing(&self) -> bool {
        self.open.is_none()
    }

    fn pump(&mut self) {
        while let Some(frame) = self.waiting.pop_front() {
            match self.frames.try_send(frame) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(frame)) => {
                    return self.waiting.push_front(frame);
                }
                // Its Closed is on the way.
                Err(mpsc::error::TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }
}

fn keypair_from_seed(seed: Option<[u8; 32]>) -> Result<Keypair, TransportError> {
    match seed {
        None => Ok(Keypair::generate_ed25519()),
        Some(seed) => Keypair::ed25519_from_bytes(seed).map_err(|error| TransportError::Setup { error: error.to_string() }),
    }
}

/// Between two attempts to get a reservation back.
const RESERVE_AGAIN: Duration = Duration::from_secs(1);
/// Who is reached through this peer and has no link to it for so long is no member of anything here, and is relayed to no more.
const LINKLESS: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(30) };

/// Who is connected how, as the swarm's task knows it.
struct Routes {
    control: Control,
    /// Links of each peer.
    links: HashMap<PeerId, u32>,
    links_max: u32,
    /// Relays that this peer is reached through; their connections stay.
    reserved: Reserved,
    /// Reservations that have ended, and when they are asked for again.
    lost: Vec<(Instant, Multiaddr)>,
    /// Peers that are reached through this one, with when that began or their last link ended; their connections stay too.
    relayed: HashMap<PeerId, Instant>,
}

impl Routes {
    fn count(&self, peer: &PeerId) -> u32 {
        self.links.get(peer).copied().unwrap_or_default()
    }

    /// Whether one more link may be.
    fn has_room(&self, peer: &PeerId) -> bool {
        self.links.values().sum::<u32>() < self.links_max && self.count(peer) < LINKS_PER_PEER_MAX
    }

    fn begun(&mut self, peer: PeerId) {
        *self.links.entry(peer).or_default() += 1;
    }

    /// A link has ended; whether its connection is of no use any more.
    fn ended(&mut self, peer: PeerId, is_lost: bool, now: Instant) -> bool {
        let left = self.count(&peer).saturating_sub(1);
        if left > 0 {
            self.links.insert(peer, left);
            return false;
        }
        self.links.remove(&peer);
        if let Some(since) = self.relayed.get_mut(&peer) {
            *since = now;
        }
        is_lost || !self.reserved.relays.contains(&peer) && !self.relayed.contains_key(&peer)
    }

    /// A listener has closed; if it was a reservation, it is wanted back.
    fn closed(&mut self, listener: ListenerId, now: Instant) {
        self.lost.extend(self.reserved.listeners.remove(&listener).map(|circuit| (now + RESERVE_AGAIN, circuit)));
    }

    /// When something is due in [`Routes::tend`].
    fn due(&self) -> Option<Instant> {
        let linkless = self.relayed.iter().filter(|(peer, _)| self.count(peer) == 0).map(|(_, since)| *since + LINKLESS);
        self.lost.iter().map(|(at, _)| *at).chain(linkless).min()
    }

    /// Asks for reservations again, and ends those of strangers.
    fn tend(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.lost).into_iter().partition(|(at, _)| *at <= now);
        self.lost = later;
        for (_, circuit) in due {
            match swarm.listen_on(circuit.clone()) {
                Ok(listener) => drop(self.reserved.listeners.insert(listener, circuit)),
                Err(_) => self.lost.push((now + RESERVE_AGAIN, circuit)),
            }
        }
        let strangers: Vec<PeerId> =
            self.relayed.iter().filter(|(peer, since)| self.count(peer) == 0 && **since + LINKLESS <= now).map(|(peer, _)| *peer).collect();
        for peer in strangers {
            self.relayed.remove(&peer);
            // One that has gone by itself is gone.
            let _ = swarm.disconnect_peer_id(peer);
        }
    }
}

/// How to come to an address.
enum Way {
    /// By a new connection.
    Dial(DialOpts),
    /// By the connection that there is.
    Connected(PeerId),
}

/// Runs the swarm until the transport is dropped.
#[allow(clippy::disallowed_methods, reason = "reservations are had for a time; no machine sees it")]
async fn run_swarm(
    mut swarm: Swarm<Behaviour>,
    mut routes: Routes,
    mut incoming: libp2p_stream::IncomingStreams,
    mut commands: mpsc::Receiver<Command>,
    shared: Shared,
) {
    let mut dials: HashMap<ConnectionId, String> = HashMap::new();
    // The swarm's own sender must not keep the loop alive.
    let shared_weak = shared.commands.downgrade();
    let Shared { events, room, next_link, frame_bytes_max, alive, commands: own } = shared;
    drop(own);
    let shared = || {
        let commands = shared_weak.upgrade()?;
        Some(Shared { events: events.clone(), commands, room: room.clone(), next_link: next_link.clone(), frame_bytes_max, alive: alive.clone() })
    };
    for listener in std::mem::take(&mut routes.reserved.lost) {
        routes.closed(listener, Instant::now());
    }
    loop {
        let due = routes.due();
        let tending = sleep(due.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now())));
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { connection_id, peer_id, .. } => {
                    if let (Some(address), Some(shared)) = (dials.remove(&connection_id), shared()) {
                        routes.begun(peer_id);
                        spawn(open_link(routes.control.clone(), peer_id, address, shared));
                    }
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    if let Some(address) = dials.remove(&connection_id) {
                        let _ = events.send(Internal::DialFailed { address, error: dial_error(&error) }).await;
                    }
                }
                SwarmEvent::ListenerClosed { listener_id, .. } => routes.closed(listener_id, Instant::now()),
                #[cfg(not(target_arch = "wasm32"))]
                SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => match event {
                    relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                        routes.relayed.entry(src_peer_id).or_insert_with(Instant::now);
                    }
                    relay::Event::ReservationClosed { src_peer_id } | relay::Event::ReservationTimedOut { src_peer_id } => {
                        routes.relayed.remove(&src_peer_id);
                    }
                    _ => {}
                },
                _ => {}
            },
            stream = incoming.next() => {
                let Some((peer, stream)) = stream else { return };
                // One too many is dropped, which its dialer sees as a stream that was not acknowledged.
                if let Some(shared) = shared().filter(|_| routes.has_room(&peer)) {
                    routes.begun(peer);
                    spawn(accept_link(peer, stream, shared));
                }
            }
            command = commands.recv() => match command {
                None => return,
                Some(Command::Dial(address)) => {
                    let failed = match way(&address, &swarm, &routes) {
                        Ok(Way::Dial(opts)) => {
                            let connection = opts.connection_id();
                            let outcome = swarm.dial(opts).map_err(|error| error.to_string());
                            if outcome.is_ok() {
                                dials.insert(connection, address.clone());
                            }
                            outcome.err()
                        }
                        Ok(Way::Connected(peer)) => {
                            if let Some(shared) = shared() {
                                routes.begun(peer);
                                spawn(open_link(routes.control.clone(), peer, address.clone(), shared));
                            }
                            None
                        }
                        Err(error) => Some(error),
                    };
                    if let Some(error) = failed {
                        let _ = events.send(Internal::DialFailed { address, error }).await;
                    }
                }
                Some(Command::Ended { peer, is_lost }) => {
                    if routes.ended(peer, is_lost, Instant::now()) {
                        let _ = swarm.disconnect_peer_id(peer);
                    }
                }
            },
            () = tending, if due.is_some() => routes.tend(&mut swarm, Instant::now()),
        }
    }
}

/// Why a dial failed, without the layers that it went through.
fn dial_error(error: &DialError) -> String {
    let root = |mut error: &dyn std::error::Error| {
        while let Some(source) = error.source() {
            error = source;
        }
        error.to_string()
    };
    match error {
        DialError::Transport(errors) => {
            let mut texts: Vec<String> = errors.iter().map(|(_, error)| root(error)).collect();
            texts.dedup();
            texts.join("; ")
        }
        DialError::WrongPeerId { obtained, .. } => format!("another peer is there, {obtained}"),
        other => other.to_string(),
    }
}

fn way(address: &str, swarm: &Swarm<Behaviour>, routes: &Routes) -> Result<Way, String> {
    let address: Multiaddr = address.parse().map_err(|error: libp2p::multiaddr::Error| error.to_string())?;
    let peers: Vec<PeerId> = address.iter().filter_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).collect();
    let is_circuit = address.iter().any(|part| part == Protocol::P2pCircuit);
    let Some(&peer) = peers.last() else {
        return Ok(Way::Dial(DialOpts::unknown_peer_id().address(address).build()));
    };
    // Who is reached through this peer is connected to it, and so is a relay to whoever is reached through it.
    if is_circuit && peers.first() == Some(swarm.local_peer_id()) {
        return if swarm.is_connected(&peer) { Ok(Way::Connected(peer)) } else { Err("it is not connected to this relay any more".to_owned()) };
    }
    if routes.reserved.relays.contains(&peer) && swarm.is_connected(&peer) {
        return Ok(Way::Connected(peer));
    }
    Ok(Way::Dial(DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::Always).build()))
}

/// Dialer: opens the link's stream on a fresh connection, and again until it is acknowledged.
async fn open_link(mut control: Control, peer: PeerId, address: String, shared: Shared) {
    let is_lost = match open_acknowledged(&mut control, peer).await {
        Ok(stream) => run_link(peer, true, stream, &shared).await,
        Err(error) => {
            let _ = shared.events.send(Internal::DialFailed { address, error }).await;
            true
        }
    };
    let _ = shared.commands.send(Command::Ended { peer, is_lost }).await;
}

pub(super) async fn open_acknowledged(control: &mut Control, peer: PeerId) -> Result<Stream, String> {
    let mut error = String::new();
    for attempt in 0..OPEN_ATTEMPTS_MAX {
        if attempt > 0 {
            let pause_ms = fastrand::u64(1..=(OPEN_PAUSE_MS * u64::from(attempt)).min(OPEN_PAUSE_MS_MAX));
            sleep(Duration::from_millis(pause_ms)).await;
        }
        let mut stream = match timeout(ACK_TIMEOUT, control.open_stream(peer, PROTOCOL)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(refused @ libp2p_stream::OpenStreamError::UnsupportedProtocol(_))) => {
                return Err(refused.to_string());
            }
            Ok(Err(failed)) => {
                error = failed.to_string();
                continue;
            }
            Err(_) => {
                error = "no stream in time".to_owned();
                continue;
            }
        };
        let mut ack = [0];
        match timeout(ACK_TIMEOUT, stream.read_exact(&mut ack)).await {
            Ok(Ok(())) if ack == [ACK] => return Ok(stream),
            Ok(Ok(())) => return Err("the stream was answered by something else".to_owned()),
            Ok(Err(failed)) => error = failed.to_string(),
            Err(_) => error = "no acknowledgement in time".to_owned(),
        }
    }
    Err(format!("the link's stream was not accepted: {error}"))
}

/// Acceptor: acknowledges the stream.
async fn accept_link(peer: PeerId, mut stream: Stream, shared: Shared) {
    let is_lost = match acknowledge(&mut stream).await {
        Ok(()) => run_link(peer, false, stream, &shared).await,
        Err(_) => true,
    };
    let _ = shared.commands.send(Command::Ended { peer, is_lost }).await;
}

pub(super) async fn acknowledge(stream: &mut Stream) -> io::Result<()> {
    let acknowledged = async {
        stream.write_all(&[ACK]).await?;
        stream.flush().await
    };
    timeout(ACK_TIMEOUT, acknowledged).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A link from its first frame to its last; whether it was lost, and not closed by either side.
async fn run_link(peer: PeerId, outgoing: bool, stream: Stream, shared: &Shared) -> bool {
    let link = LinkId(shared.next_link.fetch_add(1, Ordering::Relaxed));
    let (frames, queue) = mpsc::channel(QUEUE_FRAMES);
    let limit = Arc::new(AtomicU32::new(shared.frame_bytes_max));
    let (open, closed) = oneshot::channel();
    let untaken = Arc::new(AtomicU32::new(0));
    let handle = Handle { frames, limit: limit.clone(), waiting: VecDeque::new(), open: Some(open), untaken: untaken.clone() };
    if shared.events.send(Internal::Opened { link, peer, outgoing, handle }).await.is_err() {
        return false;
    }
    let (read_half, write_half) = stream.split();
    let written_bytes = AtomicU64::new(0);
    let mut reading = pin!(read_frames(read_half, link, &limit, &untaken, &shared.events));
    let writing = pin!(write_frames(write_half, queue, &shared.room, &written_bytes));
    let stuck = pin!(stuck_after_closing(closed, &written_bytes));
    let reason = match select(select(&mut reading, writing), stuck).await {
        Either::Left((Either::Left((reason, _)), _)) => reason,
        Either::Left((Either::Right((Err(error), _)), _)) => CloseReason::Broken { error: error.to_string() },
        Either::Left((Either::Right((Ok(()), _)), _)) => {
            // Closed on this side. The other side has read everything once it closes its own.
            return timeout(LINGER, reading).await.is_err();
        }
        Either::Right(((), _)) => CloseReason::Broken { error: "nothing was read any more".to_owned() },
    };
    let is_lost = reason != CloseReason::Ended;
    let _ = shared.events.send(Internal::Closed { link, reason }).await;
    is_lost
}

/// Ends when the link has been closed on this side and nothing of what was sent has moved for a while: a frozen process
/// would otherwise keep the link, and what waits on it, for as long as it stays frozen.
async fn stuck_after_closing(closed: oneshot::Receiver<()>, written_bytes: &AtomicU64) {
    let _ = closed.await;
    loop {
        let before = written_bytes.load(Ordering::Relaxed);
        sleep(CLOSE_IDLE).await;
        if written_bytes.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Reads frames until the stream ends.
async fn read_frames(
    stream: impl AsyncRead + Unpin,
    link: LinkId,
    limit: &AtomicU32,
    untaken: &AtomicU32,
    events: &mpsc::Sender<Internal>,
) -> CloseReason {
    let mut stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
    let mut pool = Pool::default();
    loop {
        let mut length = [0; LENGTH_BYTES];
        if let Err(error) = stream.read_exact(&mut length).await {
            return closed_from(&error);
        }
        let (given, limit) = (u32::from_le_bytes(length), limit.load(Ordering::Acquire));
        if given > limit {
            return CloseReason::FrameTooLong { given, limit };
        }
        let mut content = pool.take(given as usize);
        if let Err(error) = stream.read_exact(&mut content).await {
            return closed_from(&error);
        }
        let frame = pool.keep(content);
        untaken.fetch_add(1, Ordering::Relaxed);
        if events.send(Internal::Received { link, frame }).await.is_err() {
            return CloseReason::Ended;
        }
    }
}

fn closed_from(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CloseReason::Ended,
        _ => CloseReason::Broken { error: error.to_string() },
    }
}

/// Writes frames until the queue's other end is dropped, then closes the write half.
async fn write_frames(
    mut stream: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Frame>,
    room: &Notify,
    written_bytes: &AtomicU64,
) -> io::Result<()> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(frame) = next {
            room.notify_one();
            write_frame(&mut stream, &mut chunk, &frame, written_bytes).await?;
            next = queue.try_recv().ok();
        }
        if !chunk.is_empty() {
            stream.write_all(&chunk).await?;
            chunk.clear();
        }
        stream.flush().await?;
    }
    stream.close().await
}

/// Small things gather in `chunk`; of a large body only what fills the chunk is copied.
async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), chunk: &mut Vec<u8>, frame: &Frame, written_bytes: &AtomicU64) -> io::Result<()> {
    for part in [&frame.head[..], &frame.body[..]] {
        let fits = part.len().min(CHUNK_BYTES.saturating_sub(chunk.len()));
        let (copied, rest) = part.split_at(fits);
        chunk.extend_from_slice(copied);
        if chunk.len() >= CHUNK_BYTES {
            stream.write_all(chunk).await?;
            written_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            chunk.clear();
            let whole = rest.len() - rest.len() % CHUNK_BYTES;
            for piece in rest[..whole].chunks(CHUNK_BYTES) {
                stream.write_all(piece).await?;
                written_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            chunk.extend_from_slice(&rest[whole..]);
        }
    }
    Ok(())
}
