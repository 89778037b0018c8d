//! A run's core on a thread of its own: this is where the clock is, and the only place that joins the core
//! to a transport.
//!
//! The thread answers pings while the node computes, so a busy peer is never taken for a silent one. The
//! node talks to it through two queues and blocks on them as it likes.
//!
//! ```text
//!  node ── Event ──► [ 64 ] ──►  thread: core ◄──► transport
//!  node ◄─ Output ── [ .. ] ◄──  bounded by the core: a delivery per post, a commit per tile, reports
//! ```
//!
//! Invariant: while frames wait for a slow link, no further event of the node is taken, so the node meets
//! back-pressure; the network and the clock are served always.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use crate::core::{CommitBody, Core, CoreConfig, Event, Output, Role, Traffic};
use crate::ownership::{Ownership, PeerIndex};
use crate::transport::{Transport, TransportConfig, TransportError, TransportEvent};

const QUEUE_EVENTS: usize = 64;
/// How often a waiting node gives its turn away before it sleeps: some 100 µs on an idle core.
const YIELDS_BEFORE_SLEEP: u32 = 200;
/// Network events handled before the node and the clock get their turn.
const BURST_MAX: usize = 64;
/// Without anything due, the clock still looks this often.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// How a peer takes part in a run.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Where to listen, and as whom.
    pub transport: TransportConfig,
    /// A name for people.
    pub name: String,
    /// **Units**: elements per second.
    pub speed: f64,
    /// The invitation to the run.
    pub token: [u8; 16],
    /// The hash of the bundle that all must run.
    pub bundle: [u8; 32],
    /// How many occurrences of an exchange a payload may lag; the host's word counts.
    pub staleness: u32,
    /// A peer that owes something and sends no byte for this long has failed.
    pub silence_limit: Duration,
    /// A peer that lives but does not deliver what it owes for this long has failed.
    pub stall_limit: Duration,
    /// The largest body of one commit.
    pub commit_bytes_max: u32,
    /// The largest frame that a plan's traffic and commits may need; at least 8 MiB.
    pub frame_bytes_max: u32,
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        let core = CoreConfig::new(Role::Coordinator { peers: 1 }, "", "");
        SessionConfig {
            transport: TransportConfig::default(),
            name: core.name,
            speed: core.speed,
            token: core.token,
            bundle: core.bundle,
            staleness: core.staleness,
            silence_limit: core.silence_limit,
            stall_limit: core.stall_limit,
            commit_bytes_max: core.commit_bytes_max,
            frame_bytes_max: core.frame_bytes_max,
        }
    }
}

/// Why a session cannot start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The transport did not start.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The operating system gave no thread or runtime.
    #[error("cannot start the network thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The run is over; its last output has been taken.
    #[error("the session is over")]
    Ended,
    /// Nothing came in the given time.
    #[error("no output within {waited_ms} ms")]
    TimedOut {
        /// The given time.
        waited_ms: u64,
    },
}

/// One peer's side of a run, for a node that blocks.
///
/// Dropping it ends the run for everybody, unless it is over, and waits a moment for the last words.
#[derive(Debug)]
pub struct Session {
    identity: String,
    addresses: Vec<String>,
    events: Option<flume::Sender<Event>>,
    outputs: Option<flume::Receiver<Output>>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Opens a run for `peers` peers, this one included, and becomes its coordinator.
    pub fn host(config: SessionConfig, peers: u16) -> Result<Session, SessionError> {
        Session::start(config, Role::Coordinator { peers })
    }

    /// Joins the run hosted at `address`.
    pub fn join(config: SessionConfig, address: &str) -> Result<Session, SessionError> {
        Session::start(config, Role::Joiner { coordinator: address.to_owned() })
    }

    #[allow(clippy::disallowed_methods, reason = "the outputs are bounded by the core, as the module's head says")]
    fn start(config: SessionConfig, role: Role) -> Result<Session, SessionError> {
        let (events, events_out) = flume::bounded(QUEUE_EVENTS);
        // The core bounds what is in it, and a thread that waited here could not answer pings.
        let (outputs_in, outputs) = flume::unbounded();
        let (started_in, started) = flume::bounded(1);
        // One thread for all links: measured as fast as several, and no work moves between cores.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("peercompute-net".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let transport = match Transport::start(config.transport.clone()).await {
                    Ok(transport) => transport,
                    Err(error) => {
                        let _ = started_in.send(Err(error));
                        return;
                    }
                };
                let place = (transport.identity().to_owned(), transport.addresses().to_vec());
                let core = core_config(&config, role, &place);
                if started_in.send(Ok(place)).is_ok() {
                    drive(Core::new(core), transport, events_out, outputs_in).await;
                }
            });
        })?;
        let (identity, addresses) = started.recv().map_err(|_| SessionError::Ended)??;
        Ok(Session { identity, addresses, events: Some(events), outputs: Some(outputs), thread: Some(thread) })
    }

    /// The identity that this peer proves to others.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Where others reach this peer; what to give to `join`.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The next output for the node; blocks. After `Failed` or `Finished`, [`SessionError::Ended`].
    #[allow(clippy::should_implement_trait, reason = "an iterator could not tell why it ended")]
    pub fn next(&self) -> Result<Output, SessionError> {
        let outputs = self.outputs.as_ref().ok_or(SessionError::Ended)?;
        // An exchange is often over before a sleeping thread would be awake again.
        for _ in 0..YIELDS_BEFORE_SLEEP {
            match outputs.try_recv() {
                Ok(output) => return Ok(output),
                Err(flume::TryRecvError::Disconnected) => return Err(SessionError::Ended),
                Err(flume::TryRecvError::Empty) => std::thread::yield_now(),
            }
        }
        outputs.recv().map_err(|_| SessionError::Ended)
    }

    /// As [`Session::next`], for a bounded time.
    pub fn next_within(&self, limit: Duration) -> Result<Output, SessionError> {
        let outputs = self.outputs.as_ref().ok_or(SessionError::Ended)?;
        outputs.recv_timeout(limit).map_err(|error| match error {
            flume::RecvTimeoutError::Disconnected => SessionError::Ended,
            flume::RecvTimeoutError::Timeout => SessionError::TimedOut { waited_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) },
        })
    }

    /// Hands an event of the node to the core; blocks while links are congested.
    ///
    /// **Errors**: the run is over; [`Session::next`] says why.
    pub fn send(&self, event: Event) -> Result<(), SessionError> {
        let events = self.events.as_ref().ok_or(SessionError::Ended)?;
        events.send(event).map_err(|_| SessionError::Ended)
    }

    /// Answers `Assemble`.
    pub fn plan_made(&self, plan: Bytes, traffic: Traffic, ownership: Ownership) -> Result<(), SessionError> {
        self.send(Event::PlanMade { plan, traffic, ownership })
    }

    /// Answers `PlanReceived`.
    pub fn plan_accepted(&self, traffic: Traffic, ownership: Ownership) -> Result<(), SessionError> {
        self.send(Event::PlanAccepted { traffic, ownership })
    }

    /// Answers `PlanReceived` with a no, which ends the run.
    pub fn plan_refused(&self, reason: &str) -> Result<(), SessionError> {
        self.send(Event::PlanRefused { reason: reason.to_owned() })
    }

    /// Posts the payloads of the next exchange; answered by `Deliver`.
    pub fn post(&self, sequence: u64, exchange: u16, payloads: Vec<(PeerIndex, Bytes)>) -> Result<(), SessionError> {
        self.send(Event::Post { sequence, exchange, payloads })
    }

    /// Sends own tiles' final content to a peer.
    pub fn publish(&self, to: PeerIndex, commits: Vec<CommitBody>) -> Result<(), SessionError> {
        self.send(Event::Publish { to, commits })
    }

    /// Sends words to the coordinator.
    pub fn report(&self, bytes: Bytes) -> Result<(), SessionError> {
        self.send(Event::Report(bytes))
    }

    /// Says that this peer has nothing more to send; `Finished` comes when nobody has.
    pub fn finish(&self) -> Result<(), SessionError> {
        self.send(Event::Finish)
    }

    /// Ends the run for everybody.
    pub fn stop(&self, text: &str) -> Result<(), SessionError> {
        self.send(Event::Stop { text: text.to_owned() })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.events = None;
        self.outputs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn core_config(config: &SessionConfig, role: Role, (identity, addresses): &(String, Vec<String>)) -> CoreConfig {
    CoreConfig {
        role,
        identity: identity.clone(),
        name: config.name.clone(),
        addresses: addresses.clone(),
        speed: config.speed,
        token: config.token,
        bundle: config.bundle,
        staleness: config.staleness,
        silence_limit: config.silence_limit,
        stall_limit: config.stall_limit,
        commit_bytes_max: config.commit_bytes_max,
        frame_bytes_max: config.frame_bytes_max,
    }
}

/// What woke the loop.
enum Turn {
    Network(TransportEvent),
    Node(Event),
    NodeGone,
    Room,
    Clock,
}

#[allow(clippy::disallowed_methods, reason = "the driver is where the clock is")]
async fn drive(mut core: Core, mut transport: Transport, events: flume::Receiver<Event>, outputs: flume::Sender<Output>) {
    let begun = Instant::now();
    let room = transport.room();
    let mut node_here = true;
    loop {
        carry_out(&mut core, &mut transport, &outputs, begun);
        if core.is_over() {
            break;
        }
        let due = core.deadline().map_or(IDLE_TICK, |at| at.saturating_sub(begun.elapsed()).min(IDLE_TICK));
        let congested = transport.is_congested();
        let turn = tokio::select! {
            biased;
            event = transport.next() => Turn::Network(event),
            event = events.recv_async(), if node_here && !congested => event.map_or(Turn::NodeGone, Turn::Node),
            () = room.notified(), if congested => Turn::Room,
            () = tokio::time::sleep(due) => Turn::Clock,
        };
        match turn {
            Turn::Network(event) => {
                core.handle(event_from_transport(event), begun.elapsed());
                for _ in 1..BURST_MAX {
                    let Some(event) = transport.try_next() else {
                        break;
                    };
                    carry_out(&mut core, &mut transport, &outputs, begun);
                    core.handle(event_from_transport(event), begun.elapsed());
                }
                // However busy the network is, the node gets its turn.
                let event = if transport.is_congested() { None } else { events.try_recv().ok() };
                if let Some(event) = event {
                    carry_out(&mut core, &mut transport, &outputs, begun);
                    core.handle(event, begun.elapsed());
                }
            }
            Turn::Node(event) => core.handle(event, begun.elapsed()),
            Turn::NodeGone => {
                node_here = false;
                core.handle(Event::Stop { text: "the node has gone".to_owned() }, begun.elapsed());
            }
            Turn::Room => transport.pump(),
            Turn::Clock => core.handle(Event::Tick, begun.elapsed()),
        }
        // Everything the network has brought is heard before anybody is called silent.
        if core.deadline().is_some_and(|at| at <= begun.elapsed()) && !transport.has_news() {
            core.handle(Event::Tick, begun.elapsed());
        }
    }
    drop(outputs);
    transport.shutdown().await;
}

/// Does what the core wants done, until it wants nothing more.
fn carry_out(core: &mut Core, transport: &mut Transport, outputs: &flume::Sender<Output>, begun: Instant) {
    while let Some(output) = core.poll_output() {
        match output {
            Output::Dial { address } => {
                if let Err(reason) = transport.dial(&address) {
                    core.handle(Event::DialFailed { address, error: reason.to_string() }, begun.elapsed());
                }
            }
            Output::Send { link, frame } => {
                if let Err(reason) = transport.send(link, frame) {
                    core.handle(Event::Closed { link, reason: reason.to_string() }, begun.elapsed());
                }
            }
            Output::Limit { link, frame_bytes_max } => transport.limit(link, frame_bytes_max),
            Output::Close { link, .. } => transport.close(link),
            // A node that has gone is noticed by its events' end.
            for_the_node => drop(outputs.send(for_the_node)),
        }
    }
}

fn event_from_transport(event: TransportEvent) -> Event {
    match event {
        TransportEvent::Opened { link, identity, outgoing } => Event::Opened { link, identity, outgoing },
        TransportEvent::Received { link, frame } => Event::Received { link, frame },
        TransportEvent::Closed { link, reason } => Event::Closed { link, reason: reason.to_string() },
        TransportEvent::DialFailed { address, error } => Event::DialFailed { address, error },
    }
}
