//! A run's machine on a thread of its own: this is where the clock is, and the only place that joins a machine
//! to a transport.
//!
//! The thread answers pings while the node computes, so a busy peer is never taken for a silent one. The
//! node talks to it through two queues and blocks on them as it likes. Which machine it is, a fixed roster's
//! [`Core`] or a [`Member`] of a run whose peers come and go, makes no difference to the loop. In a browser the same loop is a
//! task on the node's thread; there the node waits for it and never blocks.
//!
//! ```text
//!  node ── Event ──► [ 64 ] ──►  thread: machine ◄──► transport
//!  node ◄─ Output ── [ .. ] ◄──  bounded by the machine: a delivery per post, a commit per tile, reports
//! ```
//!
//! Invariant: while frames wait for a slow link, no further event of the node is taken, so the node meets
//! back-pressure; the network and the clock are served always.

use std::sync::{Arc, Mutex};
#[cfg(not(target_arch = "wasm32"))]
use std::thread::JoinHandle;
use std::time::Duration;

#[cfg(not(target_arch = "wasm32"))]
use bytes::Bytes;
use thiserror::Error;

use crate::core::{self, Core, CoreConfig, LinkId, Role};
#[cfg(not(target_arch = "wasm32"))]
use crate::core::{CommitBody, Traffic};
use crate::membership::{self, LinkTotals, Member, MemberConfig};
#[cfg(not(target_arch = "wasm32"))]
use crate::ownership::{Ownership, PeerIndex};
use crate::runtime::{self, Instant};
use crate::transport::{Transport, TransportConfig, TransportError, TransportEvent};
use crate::wire::Frame;

const QUEUE_EVENTS: usize = 64;
/// How often a waiting node gives its turn away before it sleeps: some 100 µs on an idle core.
#[cfg(not(target_arch = "wasm32"))]
const YIELDS_BEFORE_SLEEP: u32 = 200;
/// Network events handled before the node and the clock get their turn.
const BURST_MAX: usize = 64;
/// … and for how long, so that what they wanted sent is sent, pings above all.
const BURST_TIME_MAX: Duration = Duration::from_millis(2);
/// What links have carried is told no more often.
const TOTALS_EVERY: Duration = Duration::from_millis(100);
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

/// A state machine without IO, as the loop sees it.
trait Machine: Sized + 'static {
    type Event: Send + 'static;
    type Output: Send + 'static;

    fn event_from_transport(event: TransportEvent) -> Self::Event;
    /// The deadline has come.
    fn clock() -> Self::Event;
    /// Something has arrived on a link and is not handled yet, for a machine that takes such news.
    fn heard(link: LinkId) -> Option<Self::Event>;
    fn node_gone() -> Self::Event;
    fn handle(&mut self, event: Self::Event, now: Duration);
    fn poll_output(&mut self) -> Option<Deed<Self::Output>>;
    fn deadline(&self) -> Option<Duration>;
    fn is_over(&self) -> bool;
    /// What its links have carried, where it counts.
    fn link_totals(&self) -> LinkTotals;
}

/// An output, by who carries it out.
enum Deed<Output> {
    Dial { address: String },
    Send { link: LinkId, frame: Frame },
    Limit { link: LinkId, frame_bytes_max: u32 },
    Close { link: LinkId },
    Node(Output),
}

const NODE_GONE: &str = "the node has gone";

/// The two machines name what they share alike.
macro_rules! machine {
    ($machine:ty, $module:ident, $clock:ident, $heard:expr, $totals:expr) => {
        impl Machine for $machine {
            type Event = $module::Event;
            type Output = $module::Output;

            fn event_from_transport(event: TransportEvent) -> $module::Event {
                use $module::Event;
                match event {
                    TransportEvent::Opened { link, identity, outgoing } => Event::Opened { link, identity, outgoing },
                    TransportEvent::Received { link, frame } => Event::Received { link, frame },
                    TransportEvent::Closed { link, reason } => Event::Closed { link, reason: reason.to_string() },
                    TransportEvent::DialFailed { address, error } => Event::DialFailed { address, error },
                }
            }

            fn clock() -> $module::Event {
                $module::Event::$clock
            }

            fn heard(link: LinkId) -> Option<$module::Event> {
                $heard(link)
            }

            fn node_gone() -> $module::Event {
                $module::Event::Stop { text: NODE_GONE.to_owned() }
            }

            fn handle(&mut self, event: $module::Event, now: Duration) {
                <$machine>::handle(self, event, now);
            }

            fn poll_output(&mut self) -> Option<Deed<$module::Output>> {
                use $module::Output;
                Some(match <$machine>::poll_output(self)? {
                    Output::Dial { address } => Deed::Dial { address },
                    Output::Send { link, frame } => Deed::Send { link, frame },
                    Output::Limit { link, frame_bytes_max } => Deed::Limit { link, frame_bytes_max },
                    Output::Close { link, .. } => Deed::Close { link },
                    for_the_node => Deed::Node(for_the_node),
                })
            }

            fn deadline(&self) -> Option<Duration> {
                <$machine>::deadline(self)
            }

            fn is_over(&self) -> bool {
                <$machine>::is_over(self)
            }

            fn link_totals(&self) -> LinkTotals {
                $totals(self)
            }
        }
    };
}

machine!(Core, core, Tick, |_| None, |_: &Core| LinkTotals::default());
machine!(Member, membership, Clock, |link| Some(membership::Event::Heard { link }), Member::link_totals);

/// A machine's thread, from the node's side. Dropping it tells the machine that the node has gone, unless it is over, and
/// waits a moment for the last words.
#[derive(Debug)]
struct Driven<Event, Output> {
    identity: String,
    addresses: Vec<String>,
    events: Option<flume::Sender<Event>>,
    outputs: Option<flume::Receiver<Output>>,
    totals: Arc<Mutex<LinkTotals>>,
    #[cfg(not(target_arch = "wasm32"))]
    thread: Option<JoinHandle<()>>,
}

/// Who and where this peer is, once the transport knows.
type Started = Result<(String, Vec<String>), TransportError>;

impl<Event: Send + 'static, Output: Send + 'static> Driven<Event, Output> {
    /// Starts the loop; `make` is called once the transport knows who and where this peer is, which is then told.
    #[allow(clippy::disallowed_methods, reason = "the outputs are bounded by the machine, as the module's head says")]
    fn begin<M>(
        transport: TransportConfig,
        make: impl FnOnce(&str, &[String]) -> M + Send + 'static,
    ) -> Result<(Self, flume::Receiver<Started>), SessionError>
    where
        M: Machine<Event = Event, Output = Output>,
    {
        let (events, events_out) = flume::bounded(QUEUE_EVENTS);
        // The machine bounds what is in it, and a thread that waited here could not answer pings.
        let (outputs_in, outputs) = flume::unbounded();
        let (started_in, started) = flume::bounded(1);
        let totals = Arc::new(Mutex::new(LinkTotals::default()));
        let told_totals = totals.clone();
        // A machine is born where it lives.
        let work = move || async move {
            let transport = match Transport::start(transport).await {
                Ok(transport) => transport,
                Err(error) => {
                    let _ = started_in.send(Err(error));
                    return;
                }
            };
            let machine = make(transport.identity(), transport.addresses());
            if started_in.send(Ok((transport.identity().to_owned(), transport.addresses().to_vec()))).is_ok() {
                drive(machine, transport, events_out, outputs_in, &told_totals).await;
            }
        };
        #[cfg(not(target_arch = "wasm32"))]
        let thread = {
            // One thread for all links: measured as fast as several, and no work moves between cores.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name("peercompute-net".to_owned());
            Some(thread.spawn(move || runtime.block_on(work()))?)
        };
        #[cfg(target_arch = "wasm32")]
        runtime::spawn(work());
        let driven = Driven {
            identity: String::new(),
            addresses: Vec::new(),
            events: Some(events),
            outputs: Some(outputs),
            totals,
            #[cfg(not(target_arch = "wasm32"))]
            thread,
        };
        Ok((driven, started))
    }

    fn started(mut self, started: Started) -> Result<Self, SessionError> {
        (self.identity, self.addresses) = started?;
        Ok(self)
    }

    async fn next_async(&self) -> Result<Output, SessionError> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(output) = self.next_soon()? {
            return Ok(output);
        }
        self.outputs()?.recv_async().await.map_err(|_| SessionError::Ended)
    }

    async fn send_async(&self, event: Event) -> Result<(), SessionError> {
        let events = self.events.as_ref().ok_or(SessionError::Ended)?;
        events.send_async(event).await.map_err(|_| SessionError::Ended)
    }

    fn try_next(&self) -> Result<Option<Output>, SessionError> {
        match self.outputs()?.try_recv() {
            Ok(output) => Ok(Some(output)),
            Err(flume::TryRecvError::Empty) => Ok(None),
            Err(flume::TryRecvError::Disconnected) => Err(SessionError::Ended),
        }
    }

    fn outputs(&self) -> Result<&flume::Receiver<Output>, SessionError> {
        self.outputs.as_ref().ok_or(SessionError::Ended)
    }
}

/// For a node that blocks.
#[cfg(not(target_arch = "wasm32"))]
impl<Event: Send + 'static, Output: Send + 'static> Driven<Event, Output> {
    fn start<M>(transport: TransportConfig, make: impl FnOnce(&str, &[String]) -> M + Send + 'static) -> Result<Self, SessionError>
    where
        M: Machine<Event = Event, Output = Output>,
    {
        let (driven, started) = Self::begin(transport, make)?;
        let started = started.recv().map_err(|_| SessionError::Ended)?;
        driven.started(started)
    }

    /// The next output, if it is here before a sleeping thread would be awake again: an exchange is often over by then.
    fn next_soon(&self) -> Result<Option<Output>, SessionError> {
        for _ in 0..YIELDS_BEFORE_SLEEP {
            match self.try_next()? {
                Some(output) => return Ok(Some(output)),
                None => std::thread::yield_now(),
            }
        }
        Ok(None)
    }

    fn next(&self) -> Result<Output, SessionError> {
        match self.next_soon()? {
            Some(output) => Ok(output),
            None => self.outputs()?.recv().map_err(|_| SessionError::Ended),
        }
    }

    fn next_within(&self, limit: Duration) -> Result<Output, SessionError> {
        self.outputs()?.recv_timeout(limit).map_err(|error| match error {
            flume::RecvTimeoutError::Disconnected => SessionError::Ended,
            flume::RecvTimeoutError::Timeout => SessionError::TimedOut { waited_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) },
        })
    }

    fn send(&self, event: Event) -> Result<(), SessionError> {
        let events = self.events.as_ref().ok_or(SessionError::Ended)?;
        events.send(event).map_err(|_| SessionError::Ended)
    }
}

impl<Event, Output> Drop for Driven<Event, Output> {
    fn drop(&mut self) {
        self.events = None;
        self.outputs = None;
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One member's side of a run whose peers come and go.
///
/// Dropping it is as [`membership::Event::Stop`]: this peer is gone at once, and the others go on.
#[derive(Debug)]
pub struct MemberSession {
    driven: Driven<membership::Event, membership::Output>,
}

impl MemberSession {
    /// Starts listening and hosts, joins or watches, as the configuration says; its identity and addresses are replaced by
    /// those that the transport proves and has.
    ///
    /// **Errors**: the transport does not start.
    pub async fn open(transport: TransportConfig, config: MemberConfig) -> Result<MemberSession, SessionError> {
        let (driven, started) = Driven::begin(transport, member(config))?;
        let started = started.recv_async().await.map_err(|_| SessionError::Ended)?;
        Ok(MemberSession { driven: driven.started(started)? })
    }

    /// The identity that this peer proves to others.
    pub fn identity(&self) -> &str {
        &self.driven.identity
    }

    /// Where others reach this peer; what to give to those that join.
    pub fn addresses(&self) -> &[String] {
        &self.driven.addresses
    }

    /// What this peer's links have carried, a tenth of a second ago at most.
    pub fn link_totals(&self) -> LinkTotals {
        self.driven.totals.lock().map_or_else(|_| LinkTotals::default(), |totals| *totals)
    }

    /// The next output, if there is one now.
    pub fn try_next(&self) -> Result<Option<membership::Output>, SessionError> {
        self.driven.try_next()
    }

    /// The next output for the node. After `Finished`, `Left` or `Failed`, [`SessionError::Ended`].
    pub async fn next_async(&self) -> Result<membership::Output, SessionError> {
        self.driven.next_async().await
    }

    /// Hands an event of the node to the member; waits while links are congested.
    ///
    /// **Errors**: the run is over; [`MemberSession::next_async`] says why.
    pub async fn send_async(&self, event: membership::Event) -> Result<(), SessionError> {
        self.driven.send_async(event).await
    }
}

/// For those that block.
#[cfg(not(target_arch = "wasm32"))]
impl MemberSession {
    /// As [`MemberSession::open`].
    pub fn start(transport: TransportConfig, config: MemberConfig) -> Result<MemberSession, SessionError> {
        Ok(MemberSession { driven: Driven::start(transport, member(config))? })
    }

    /// As [`MemberSession::next_async`].
    #[allow(clippy::should_implement_trait, reason = "an iterator could not tell why it ended")]
    pub fn next(&self) -> Result<membership::Output, SessionError> {
        self.driven.next()
    }

    /// As [`MemberSession::next`], for a bounded time.
    pub fn next_within(&self, limit: Duration) -> Result<membership::Output, SessionError> {
        self.driven.next_within(limit)
    }

    /// As [`MemberSession::send_async`].
    pub fn send(&self, event: membership::Event) -> Result<(), SessionError> {
        self.driven.send(event)
    }
}

fn member(config: MemberConfig) -> impl FnOnce(&str, &[String]) -> Member + Send + 'static {
    move |identity, addresses| Member::new(MemberConfig { identity: identity.to_owned(), addresses: addresses.to_vec(), ..config })
}

/// One peer's side of a run, for a node that blocks.
///
/// Dropping it ends the run for everybody, unless it is over, and waits a moment for the last words.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
pub struct Session {
    driven: Driven<core::Event, core::Output>,
}

#[cfg(not(target_arch = "wasm32"))]
impl Session {
    /// Opens a run for `peers` peers, this one included, and becomes its coordinator.
    pub fn host(config: SessionConfig, peers: u16) -> Result<Session, SessionError> {
        Session::start(config, Role::Coordinator { peers })
    }

    /// Joins the run hosted at `address`.
    pub fn join(config: SessionConfig, address: &str) -> Result<Session, SessionError> {
        Session::start(config, Role::Joiner { coordinator: address.to_owned() })
    }

    fn start(config: SessionConfig, role: Role) -> Result<Session, SessionError> {
        let transport = config.transport.clone();
        let make = move |identity: &str, addresses: &[String]| Core::new(core_config(&config, role, identity, addresses));
        Ok(Session { driven: Driven::start(transport, make)? })
    }

    /// The identity that this peer proves to others.
    pub fn identity(&self) -> &str {
        &self.driven.identity
    }

    /// Where others reach this peer; what to give to `join`.
    pub fn addresses(&self) -> &[String] {
        &self.driven.addresses
    }

    /// The next output for the node; blocks. After `Failed` or `Finished`, [`SessionError::Ended`].
    #[allow(clippy::should_implement_trait, reason = "an iterator could not tell why it ended")]
    pub fn next(&self) -> Result<core::Output, SessionError> {
        self.driven.next()
    }

    /// As [`Session::next`], for a bounded time.
    pub fn next_within(&self, limit: Duration) -> Result<core::Output, SessionError> {
        self.driven.next_within(limit)
    }

    /// Hands an event of the node to the core; blocks while links are congested.
    ///
    /// **Errors**: the run is over; [`Session::next`] says why.
    pub fn send(&self, event: core::Event) -> Result<(), SessionError> {
        self.driven.send(event)
    }

    /// Answers `Assemble`.
    pub fn plan_made(&self, plan: Bytes, traffic: Traffic, ownership: Ownership) -> Result<(), SessionError> {
        self.send(core::Event::PlanMade { plan, traffic, ownership })
    }

    /// Answers `PlanReceived`.
    pub fn plan_accepted(&self, traffic: Traffic, ownership: Ownership) -> Result<(), SessionError> {
        self.send(core::Event::PlanAccepted { traffic, ownership })
    }

    /// Answers `PlanReceived` with a no, which ends the run.
    pub fn plan_refused(&self, reason: &str) -> Result<(), SessionError> {
        self.send(core::Event::PlanRefused { reason: reason.to_owned() })
    }

    /// Posts the payloads of the next exchange; answered by `Deliver`.
    pub fn post(&self, sequence: u64, exchange: u16, payloads: Vec<(PeerIndex, Bytes)>) -> Result<(), SessionError> {
        self.send(core::Event::Post { sequence, exchange, payloads })
    }

    /// Sends own tiles' final content to a peer.
    pub fn publish(&self, to: PeerIndex, commits: Vec<CommitBody>) -> Result<(), SessionError> {
        self.send(core::Event::Publish { to, commits })
    }

    /// Sends words to the coordinator.
    pub fn report(&self, bytes: Bytes) -> Result<(), SessionError> {
        self.send(core::Event::Report(bytes))
    }

    /// Says that this peer has nothing more to send; `Finished` comes when nobody has.
    pub fn finish(&self) -> Result<(), SessionError> {
        self.send(core::Event::Finish)
    }

    /// Ends the run for everybody.
    pub fn stop(&self, text: &str) -> Result<(), SessionError> {
        self.send(core::Event::Stop { text: text.to_owned() })
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn core_config(config: &SessionConfig, role: Role, identity: &str, addresses: &[String]) -> CoreConfig {
    CoreConfig {
        role,
        identity: identity.to_owned(),
        name: config.name.clone(),
        addresses: addresses.to_vec(),
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
enum Turn<Event> {
    Network(TransportEvent),
    Node(Event),
    NodeGone,
    Room,
    Clock,
}

#[allow(clippy::disallowed_methods, reason = "the driver is where the clock is")]
async fn drive<M: Machine>(
    mut machine: M,
    mut transport: Transport,
    events: flume::Receiver<M::Event>,
    outputs: flume::Sender<M::Output>,
    totals: &Mutex<LinkTotals>,
) {
    let begun = Instant::now();
    let mut totals_at = Duration::ZERO;
    let room = transport.room();
    let mut node_here = true;
    loop {
        carry_out(&mut machine, &mut transport, &outputs, begun);
        if machine.is_over() {
            break;
        }
        let due = machine.deadline().map_or(IDLE_TICK, |at| at.saturating_sub(begun.elapsed()).min(IDLE_TICK));
        let (waiting, congested) = (transport.is_waiting(), transport.is_congested());
        let turn = tokio::select! {
            biased;
            event = transport.next() => Turn::Network(event),
            event = events.recv_async(), if node_here && !congested => event.map_or(Turn::NodeGone, Turn::Node),
            () = room.notified(), if waiting => Turn::Room,
            () = runtime::sleep(due) => Turn::Clock,
        };
        let turned = begun.elapsed();
        if turned >= totals_at {
            totals_at = turned + TOTALS_EVERY;
            if let Ok(mut totals) = totals.lock() {
                *totals = machine.link_totals();
            }
        }
        let is_long = || begun.elapsed() > turned + BURST_TIME_MAX;
        match turn {
            Turn::Network(event) => {
                machine.handle(M::event_from_transport(event), turned);
                for _ in 1..BURST_MAX {
                    let Some(event) = transport.try_next() else {
                        break;
                    };
                    carry_out(&mut machine, &mut transport, &outputs, begun);
                    machine.handle(M::event_from_transport(event), begun.elapsed());
                    if is_long() {
                        break;
                    }
                }
                // However busy the network is, the node gets its turn.
                let event = if transport.is_congested() { None } else { events.try_recv().ok() };
                if let Some(event) = event {
                    carry_out(&mut machine, &mut transport, &outputs, begun);
                    machine.handle(event, begun.elapsed());
                }
            }
            Turn::Node(event) => machine.handle(event, begun.elapsed()),
            Turn::NodeGone => {
                node_here = false;
                machine.handle(M::node_gone(), begun.elapsed());
            }
            Turn::Room => transport.pump(),
            Turn::Clock => machine.handle(M::clock(), begun.elapsed()),
        }
        // The links' tasks run on this thread too: where machines think long, peers would hear nothing and call this one silent.
        if is_long() {
            carry_out(&mut machine, &mut transport, &outputs, begun);
            runtime::yield_now().await;
        }
        // Everything the network has brought is heard before anybody is called silent: handled, or noted by a machine that
        // may have long to do with what it gets, and whose pings must not wait for that.
        if machine.deadline().is_some_and(|at| at <= begun.elapsed()) {
            let mut is_heard = true;
            for link in transport.untaken() {
                match M::heard(link) {
                    Some(event) => machine.handle(event, begun.elapsed()),
                    None => is_heard = false,
                }
            }
            if is_heard {
                machine.handle(M::clock(), begun.elapsed());
            }
        }
    }
    drop(outputs);
    transport.shutdown().await;
}

/// Does what the machine wants done, until it wants nothing more.
fn carry_out<M: Machine>(machine: &mut M, transport: &mut Transport, outputs: &flume::Sender<M::Output>, begun: Instant) {
    while let Some(output) = machine.poll_output() {
        match output {
            Deed::Dial { address } => {
                if let Err(reason) = transport.dial(&address) {
                    let failed = TransportEvent::DialFailed { address, error: reason.to_string() };
                    machine.handle(M::event_from_transport(failed), begun.elapsed());
                }
            }
            Deed::Send { link, frame } => {
                if let Err(reason) = transport.send(link, frame) {
                    machine.handle(M::event_from_transport(TransportEvent::Closed { link, reason }), begun.elapsed());
                }
            }
            Deed::Limit { link, frame_bytes_max } => transport.limit(link, frame_bytes_max),
            Deed::Close { link } => transport.close(link),
            // A node that has gone is noticed by its events' end.
            Deed::Node(output) => drop(outputs.send(output)),
        }
    }
}
