//! The heart of the network layer: one peer's part in a run, as a state machine without IO.
//!
//! Events go in with the time they happened at, outputs come out; there is no clock, socket, thread, task
//! or randomness in here, so libp2p, a browser and the simulator drive the same code.
//!
//! ```text
//!               coordinator (peer 0)                          joiner
//!  Assembling   take hellos, refuse strangers                 dial, Hello ──► wait for Plan
//!  Deciding     node makes the plan  (Assemble→PlanMade)      node checks it (PlanReceived→PlanAccepted)
//!  Linking      Plan to all, wait for every Linked            dial lower indexes, Hello both ways, Linked ──►
//!  Running      Linked to all, Start                          Start
//!               Post → Data to all owed, Data from all owing → Deliver, again and again
//!               Publish, Report → Finish → Done to all, Done from all
//!  Finished | Failed   nothing follows
//! ```
//!
//! Invariants: nothing from the network panics here; every queue is bounded (deliveries by the posts,
//! payloads by the exchanges' window, strangers by a count); a failure is told to every linked peer and
//! ends the run everywhere with one report that names the peer at fault; strangers never end a run.

mod assembly;
mod event;
pub(crate) mod exchange;
mod gather;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

pub use event::{
    CommitBody, CoreConfig, EXCHANGES_MAX, Event, ExchangeTraffic, Joiner, LinkId, Output, Owed, PAYLOAD_BYTES_MAX, REPORTS_MAX, Role, RunError,
    STALENESS_MAX, Traffic, Violation,
};

use crate::ownership::{Ownership, PEERS_MAX, PeerIndex};
use crate::wire::{self, Hello, Message, RosterPeer};
use assembly::Dial;
use exchange::{Exchanges, PostError};
use gather::Gather;

/// Outputs that may wait for the driver; a driver drains them after every event.
const OUTPUTS_MAX: usize = 1 << 20;
/// The index of a peer that has none yet.
const NOBODY: PeerIndex = PeerIndex(u16::MAX);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Assembling,
    Deciding,
    Linking,
    Running,
    Finished,
    Failed,
}

/// What a link's other end has shown itself to be.
#[derive(Debug)]
enum LinkState {
    /// Nothing yet; it dialled.
    Stranger,
    /// A hello that waits for the plan that it can be checked against.
    Held(Hello),
    /// Accepted by the coordinator, no index yet.
    Joined,
    /// Dialled by this peer, which waits for the hello of that index.
    Dialled(PeerIndex),
    /// A peer of the run.
    Peer(PeerIndex),
}

#[derive(Debug)]
struct Link {
    identity: String,
    state: LinkState,
    opened_at: Duration,
    heard_at: Duration,
    said_at: Duration,
    ponged_at: Option<Duration>,
    /// When it last said that it is itself waiting for somebody.
    waiting_at: Option<Duration>,
}

/// A peer of the run, at its index.
#[derive(Debug, Default)]
struct Peer {
    link: Option<LinkId>,
    /// Coordinator only: it said that all its links are up.
    linked: bool,
    done: bool,
    reports: u32,
}

/// One peer's state machine.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    phase: Phase,
    /// When the phase began.
    since: Duration,
    /// The time of the latest event.
    now: Duration,
    me: PeerIndex,
    plan_hash: [u8; 32],
    staleness: u32,
    /// The largest content that an accepted peer has reason to send.
    frame_bytes_needed: u32,
    links: BTreeMap<LinkId, Link>,
    /// Coordinator, before the plan: those accepted, in order of arrival.
    joiners: Vec<Joiner>,
    roster: Vec<RosterPeer>,
    peers: Vec<Peer>,
    dials: Vec<Dial>,
    linked_sent: bool,
    exchanges: Option<Exchanges>,
    gather: Gather,
    /// When this peer finished.
    done_at: Option<Duration>,
    outputs: VecDeque<Output>,
}

impl Core {
    /// A core at time zero; a joiner's first output is a dial.
    ///
    /// **Limits**: what the configuration says above a limit is cut to it.
    pub fn new(config: CoreConfig) -> Core {
        let mut config = config;
        config.staleness = config.staleness.min(STALENESS_MAX);
        config.name = wire::cut(&config.name, wire::NAME_BYTES_MAX).to_owned();
        config.frame_bytes_max = config.frame_bytes_max.max(wire::PLAN_FRAME_BYTES_MAX);
        if let Role::Coordinator { peers } = &mut config.role {
            *peers = (*peers).clamp(1, PEERS_MAX as u16);
        }
        let mut core = Core {
            phase: Phase::Assembling,
            since: Duration::ZERO,
            now: Duration::ZERO,
            me: match config.role {
                Role::Coordinator { .. } => PeerIndex::COORDINATOR,
                Role::Joiner { .. } => NOBODY,
            },
            plan_hash: [0; 32],
            staleness: config.staleness,
            frame_bytes_needed: wire::PLAN_FRAME_BYTES_MAX,
            links: BTreeMap::new(),
            joiners: Vec::new(),
            roster: Vec::new(),
            peers: Vec::new(),
            dials: Vec::new(),
            linked_sent: false,
            exchanges: None,
            gather: Gather::default(),
            done_at: None,
            outputs: VecDeque::new(),
            config,
        };
        core.begin();
        core
    }

    /// Takes in one event. `now` never runs backwards; its zero is the core's making.
    pub fn handle(&mut self, event: Event, now: Duration) {
        if matches!(self.phase, Phase::Finished | Phase::Failed) {
            // Only a link that opens now still needs an answer.
            if let Event::Opened { link, .. } = event {
                self.outputs.push_back(Output::Close { link, reason: "the run is over".to_owned() });
            }
            return;
        }
        self.forgive_own_sleep(now);
        self.now = self.now.max(now);
        match event {
            Event::Opened { link, identity, outgoing } => self.opened(link, identity, outgoing),
            Event::Received { link, frame } => self.received(link, frame),
            Event::Closed { link, reason } => self.closed(link, reason),
            Event::DialFailed { address, error } => self.dial_failed(&address, error),
            Event::Tick => self.tick(),
            Event::PlanMade { plan, traffic, ownership } => self.plan_made(plan, traffic, ownership),
            Event::PlanAccepted { traffic, ownership } => self.plan_accepted(traffic, ownership),
            Event::PlanRefused { reason } => self.fail(RunError::PlanRefused { reason }),
            Event::Post { sequence, exchange, payloads } => self.post(sequence, exchange, payloads),
            Event::Publish { to, commits } => self.publish(to, commits),
            Event::Report(bytes) => self.report(bytes),
            Event::Finish => self.finish(),
            Event::Stop { text } => self.fail(RunError::Stopped { text }),
        }
        if self.outputs.len() > OUTPUTS_MAX && !matches!(self.phase, Phase::Finished | Phase::Failed) {
            self.outputs.clear();
            self.misuse("outputs are not drained");
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// This peer's index, once it has one.
    pub fn index(&self) -> Option<PeerIndex> {
        (self.me != NOBODY).then_some(self.me)
    }

    /// All peers in index order, once the plan is known.
    pub fn roster(&self) -> &[RosterPeer] {
        &self.roster
    }

    /// Whether the run is over, well or badly.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Finished | Phase::Failed)
    }

    fn received(&mut self, id: LinkId, frame: Bytes) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.heard_at = self.now;
        let message = match wire::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.offend(id, error.into()),
        };
        let from = match link.state {
            LinkState::Peer(from) => from,
            _ => return self.received_early(id, message),
        };
        let name = wire::name_of(&message);
        if self.peer(from).is_some_and(|peer| peer.done) && !may_follow_done(&message) {
            return self.offend(id, Violation::AfterDone { message: name });
        }
        let outcome = match message {
            Message::Data { sequence, exchange, payload } => self.data(from, sequence, exchange, payload),
            Message::Progress { sequence } => self.progress(from, sequence),
            Message::Commit { grid, tile, body } => self.commit(from, grid, tile, body),
            Message::Report(bytes) => self.reported(from, bytes),
            Message::Done => self.peer_done(from),
            Message::Plan { index, envelope } => self.plan(id, from, index, envelope),
            Message::Linked => self.linked(from),
            Message::Ping { waiting } => {
                self.pinged(id, waiting);
                Ok(())
            }
            Message::Pong { waiting } => {
                self.heard_waiting(id, waiting);
                Ok(())
            }
            Message::Refuse { reason, text } => {
                self.fail(RunError::Refused { peer: from, name: self.name(from), reason, text });
                Ok(())
            }
            Message::Abort { by, text } => {
                let by = PeerIndex(by);
                self.fail(RunError::Aborted { by, name: self.name(by), text });
                Ok(())
            }
            Message::Hello(_) => Err(Violation::Unexpected { message: name }),
        };
        if let Err(violation) = outcome {
            self.offend(id, violation);
        }
    }

    fn closed(&mut self, id: LinkId, reason: String) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        match link.state {
            LinkState::Stranger | LinkState::Held(_) => {}
            LinkState::Joined => self.joiners.retain(|joiner| joiner.link != id),
            LinkState::Dialled(peer) => self.redial(peer, reason),
            LinkState::Peer(peer) => {
                let over = self.done_at.is_some() && self.peer(peer).is_some_and(|peer| peer.done);
                if let Some(peer) = self.peers.get_mut(peer.at()) {
                    peer.link = None;
                }
                if !over {
                    let sequence = self.exchanges.as_ref().map(Exchanges::sequence);
                    let sequence = sequence.filter(|_| self.phase == Phase::Running);
                    self.fail(RunError::Lost { peer, name: self.name(peer), sequence, reason });
                }
            }
        }
    }

    fn post(&mut self, sequence: u64, exchange: u16, payloads: Vec<(PeerIndex, Bytes)>) {
        if self.phase != Phase::Running || self.done_at.is_some() {
            return self.misuse("posted outside a run");
        }
        let Some(exchanges) = &mut self.exchanges else {
            return;
        };
        match exchanges.post(sequence, exchange, payloads, self.now) {
            Ok(mut payloads) => {
                for (to, payload) in payloads.drain(..) {
                    self.send_to(to, &Message::Data { sequence, exchange, payload });
                }
                if let Some(exchanges) = &mut self.exchanges {
                    exchanges.reuse(payloads);
                }
                if let Err((peer, violation)) = self.deliver() {
                    self.offend_as(peer, violation);
                }
            }
            Err(PostError::Misuse(what)) => self.misuse(&what),
            Err(PostError::Violation(peer, violation)) => self.offend_as(peer, violation),
        }
    }

    fn data(&mut self, from: PeerIndex, sequence: u64, exchange: u16, payload: Bytes) -> Result<(), Violation> {
        let unexpected = Violation::Unexpected { message: "data" };
        let exchanges = self.exchanges.as_mut().ok_or(unexpected)?;
        exchanges.data(from, sequence, exchange, payload)?;
        self.deliver_or_blame(from)
    }

    fn progress(&mut self, from: PeerIndex, sequence: u64) -> Result<(), Violation> {
        let unexpected = Violation::Unexpected { message: "progress" };
        self.exchanges.as_mut().ok_or(unexpected)?.progress(from, sequence)?;
        self.deliver_or_blame(from)
    }

    /// Delivers what a message of `from` completed; another peer's fault that shows now is handled here.
    fn deliver_or_blame(&mut self, from: PeerIndex) -> Result<(), Violation> {
        match self.deliver() {
            Err((peer, violation)) if peer == from => Err(violation),
            Err((peer, violation)) => {
                self.offend_as(peer, violation);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn deliver(&mut self) -> Result<(), (PeerIndex, Violation)> {
        let Some(exchanges) = &mut self.exchanges else {
            return Ok(());
        };
        let Some(delivery) = exchanges.try_deliver()? else {
            return Ok(());
        };
        let sequence = delivery.sequence;
        for to in delivery.progress_to.iter() {
            self.send_to(*to, &Message::Progress { sequence });
        }
        self.outputs.push_back(Output::Deliver { sequence, payloads: delivery.payloads });
        Ok(())
    }

    /// Takes the traffic and the ownership that the node made of the plan.
    fn settle(&mut self, traffic: &Traffic, ownership: Ownership) -> Result<(), String> {
        let peers = self.roster.len();
        traffic.check(peers, self.me)?;
        let stray = ownership.grids.iter().flatten().find(|owner| owner.at() >= peers);
        if let Some(owner) = stray {
            return Err(format!("a tile is owned by peer {owner} of {peers}"));
        }
        let payload = traffic.exchanges.iter().flat_map(|e| e.send.iter().chain(&e.receive)).copied().max().unwrap_or(0);
        let content = payload.max(self.config.commit_bytes_max).saturating_add(wire::BULK_HEAD_BYTES as u32);
        if content > self.config.frame_bytes_max {
            return Err(format!("frames of {content} bytes, the limit is {}", self.config.frame_bytes_max));
        }
        self.frame_bytes_needed = content.max(wire::PLAN_FRAME_BYTES_MAX);
        self.trust_peers();
        self.exchanges = Some(Exchanges::new(traffic, peers, self.staleness));
        self.gather = Gather::new(ownership);
        self.enter(Phase::Linking);
        Ok(())
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = self.now;
    }

    fn start(&mut self) {
        self.enter(Phase::Running);
        self.outputs.push_back(Output::Start);
    }

    fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(index.at())
    }

    fn name(&self, peer: PeerIndex) -> String {
        match self.roster.get(peer.at()) {
            Some(known) => known.name.clone(),
            None if peer == PeerIndex::COORDINATOR => "coordinator".to_owned(),
            None => "unknown".to_owned(),
        }
    }

    fn others(&self) -> impl Iterator<Item = PeerIndex> + use<> {
        let me = self.me;
        (0..self.peers.len() as u16).map(PeerIndex).filter(move |peer| *peer != me)
    }

    fn is_coordinator(&self) -> bool {
        matches!(self.config.role, Role::Coordinator { .. })
    }

    fn send(&mut self, id: LinkId, message: &Message) {
        if let Some(link) = self.links.get_mut(&id) {
            link.said_at = self.now;
            self.outputs.push_back(Output::Send { link: id, frame: wire::encode(message) });
        }
    }

    fn send_to(&mut self, to: PeerIndex, message: &Message) {
        if let Some(link) = self.peer(to).and_then(|peer| peer.link) {
            self.send(link, message);
        }
    }

    fn close(&mut self, id: LinkId, reason: &str) {
        if self.links.remove(&id).is_some() {
            self.outputs.push_back(Output::Close { link: id, reason: reason.to_owned() });
        }
    }

    fn misuse(&mut self, what: &str) {
        self.fail(RunError::Misuse { what: what.to_owned() });
    }

    fn offend_as(&mut self, peer: PeerIndex, violation: Violation) {
        self.fail(RunError::Violation { peer, name: self.name(peer), violation });
    }

    /// Answers a violation on a link: a peer's ends the run, a stranger's only its link.
    fn offend(&mut self, id: LinkId, violation: Violation) {
        match self.links.get(&id).map(|link| &link.state) {
            Some(LinkState::Peer(peer) | LinkState::Dialled(peer)) => self.offend_as(*peer, violation),
            Some(_) => self.refuse(id, wire::RefuseReason::Protocol, &violation.to_string()),
            None => {}
        }
    }

    /// Ends the run here and tells all who are linked.
    fn fail(&mut self, error: RunError) {
        if matches!(self.phase, Phase::Finished | Phase::Failed) {
            return;
        }
        // Whoever hears of it second hand learns who noticed, so that the report stays the same.
        let abort = match &error {
            RunError::Aborted { by, text, .. } => Message::Abort { by: by.0, text: text.clone() },
            other => Message::Abort { by: self.me.0, text: other.to_string() },
        };
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            let told = matches!(self.links.get(&id).map(|link| &link.state), Some(LinkState::Joined | LinkState::Peer(_) | LinkState::Dialled(_)));
            if told {
                self.send(id, &abort);
            }
            self.close(id, "the run is over");
        }
        self.enter(Phase::Failed);
        self.outputs.push_back(Output::Failed(error));
    }
}

/// What a peer may still send after Done: signs of life, and the end of the run.
fn may_follow_done(message: &Message) -> bool {
    matches!(message, Message::Ping { .. } | Message::Pong { .. } | Message::Abort { .. } | Message::Refuse { .. } | Message::Progress { .. })
}
