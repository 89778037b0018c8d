//! Bringing a run together: hellos, the plan, and the mesh of links.
//!
//! Everybody at the other end of a link is a stranger until its hello shows the right version, token and
//! bundle, and, once there is a plan, its hash and the identity of the roster. A stranger that does not
//! fit is told why and closed; the run never notices.
//!
//! Invariant: one link per peer; the higher index dials the lower, so no pair dials twice.

use std::time::Duration;

use bytes::Bytes;

use super::event::{Joiner, LinkId, Output, Role, RunError, Traffic, Violation};
use super::{Core, Link, LinkState, Peer, Phase};
use crate::ownership::{Ownership, PEERS_MAX, PeerIndex};
use crate::wire::{self, Envelope, Hello, Message, PROTOCOL_VERSION, RefuseReason, RosterPeer};

/// Links that may wait for their hello, beyond one per peer of the run.
const STRANGERS_MAX: usize = 64;
/// Time between two dials of the same peer.
const REDIAL_AFTER: Duration = Duration::from_millis(250);

/// A peer that this one must reach.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) peer: PeerIndex,
    addresses: Vec<String>,
    /// Which address is next, counted without end.
    next: usize,
    pub(super) since: Duration,
    /// When to dial again; `None` while a dial is under way.
    pub(super) retry_at: Option<Duration>,
    /// The link is up and its hello is awaited, which may take as long as the peer's node needs.
    opened: bool,
    last_error: String,
}

impl Dial {
    fn address(&self, at: usize) -> String {
        let at = at.checked_rem(self.addresses.len()).unwrap_or(0);
        self.addresses.get(at).cloned().unwrap_or_default()
    }
}

impl Core {
    pub(super) fn begin(&mut self) {
        match self.config.role.clone() {
            Role::Coordinator { .. } => self.assemble_if_all_here(),
            Role::Joiner { coordinator } => self.dial(PeerIndex::COORDINATOR, vec![coordinator]),
        }
    }

    fn dial(&mut self, peer: PeerIndex, addresses: Vec<String>) {
        let dial = Dial { peer, addresses, next: 1, since: self.now, retry_at: None, opened: false, last_error: "no answer".to_owned() };
        self.outputs.push_back(Output::Dial { address: dial.address(0) });
        self.dials.push(dial);
    }

    pub(super) fn dial_failed(&mut self, address: &str, error: String) {
        let dialled = |dial: &&mut Dial| dial.retry_at.is_none() && !dial.opened && dial.addresses.iter().any(|a| a == address);
        if let Some(dial) = self.dials.iter_mut().find(dialled) {
            dial.retry_at = Some(self.now + REDIAL_AFTER);
            dial.last_error = error;
        }
    }

    /// A dialled link went down before its hello.
    pub(super) fn redial(&mut self, peer: PeerIndex, error: String) {
        if let Some(dial) = self.dials.iter_mut().find(|dial| dial.peer == peer) {
            dial.retry_at = Some(self.now + REDIAL_AFTER);
            dial.opened = false;
            dial.last_error = error;
        }
    }

    /// When the dial counts as failed, whatever the transport says of it.
    pub(super) fn dial_deadline(&self, dial: &Dial) -> Duration {
        if dial.opened { Duration::MAX } else { dial.since + self.config.silence_limit }
    }

    /// Dials again where it is time, and gives up where it is not worth it any more.
    pub(super) fn tick_dials(&mut self) {
        let now = self.now;
        if let Some(dial) = self.dials.iter().find(|dial| self.dial_deadline(dial) <= now) {
            let (peer, error) = (dial.peer, dial.last_error.clone());
            let address = dial.address(dial.next.saturating_sub(1));
            return self.fail(RunError::Unreachable { peer, name: self.name(peer), address, error });
        }
        for dial in self.dials.iter_mut().filter(|dial| dial.retry_at.is_some_and(|at| at <= now)) {
            let address = dial.address(dial.next);
            dial.next = dial.next.wrapping_add(1);
            dial.retry_at = None;
            self.outputs.push_back(Output::Dial { address });
        }
    }

    pub(super) fn opened(&mut self, id: LinkId, identity: String, outgoing: bool) {
        let state = if outgoing {
            match self.dialled_peer(&identity) {
                Some(PeerIndex::COORDINATOR) if self.phase == Phase::Assembling => LinkState::Peer(PeerIndex::COORDINATOR),
                Some(peer) => LinkState::Dialled(peer),
                None => return self.turn_away(id, "nobody that was dialled"),
            }
        } else {
            let waiting = |link: &&Link| matches!(link.state, LinkState::Stranger | LinkState::Held(_));
            if self.links.values().filter(waiting).count() >= STRANGERS_MAX + self.roster.len().max(PEERS_MAX / 8) {
                return self.turn_away(id, "too many strangers");
            }
            LinkState::Stranger
        };
        match state {
            LinkState::Peer(_) => {
                self.dials.clear();
                self.enter(Phase::Assembling);
            }
            LinkState::Dialled(peer) => {
                if let Some(dial) = self.dials.iter_mut().find(|dial| dial.peer == peer) {
                    dial.opened = true;
                }
            }
            _ => {}
        }
        self.links
            .insert(id, Link { identity, state, opened_at: self.now, heard_at: self.now, said_at: self.now, ponged_at: None, waiting_at: None });
        if outgoing {
            // The coordinator's plan may be large and follows this hello.
            if self.phase == Phase::Assembling {
                self.trust(id);
            }
            self.send_hello(id);
        }
    }

    /// Whose dial this outgoing link answers.
    fn dialled_peer(&self, identity: &str) -> Option<PeerIndex> {
        let linked = |peer: PeerIndex| {
            self.peer(peer).is_some_and(|p| p.link.is_some())
                || self.links.values().any(|link| matches!(link.state, LinkState::Dialled(p) if p == peer))
        };
        let fits = |peer: PeerIndex| match self.roster.get(peer.at()) {
            Some(known) => known.identity == identity,
            // Before the plan only the coordinator is dialled, and its address says who it is.
            None => !self.links.values().any(|link| matches!(link.state, LinkState::Peer(_))),
        };
        self.dials.iter().map(|dial| dial.peer).find(|peer| fits(*peer) && !linked(*peer))
    }

    fn turn_away(&mut self, id: LinkId, reason: &str) {
        self.outputs.push_back(Output::Close { link: id, reason: reason.to_owned() });
    }

    /// Lets through what an accepted peer may send, and no more: a plan, then what the traffic needs.
    fn trust(&mut self, id: LinkId) {
        self.outputs.push_back(Output::Limit { link: id, frame_bytes_max: self.frame_bytes_needed });
    }

    /// The traffic is known: widens the links that are up.
    pub(super) fn trust_peers(&mut self) {
        let linked: Vec<LinkId> = self.peers.iter().filter_map(|peer| peer.link).collect();
        for id in linked {
            self.trust(id);
        }
    }

    fn send_hello(&mut self, id: LinkId) {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            index: self.index().map(|index| index.0),
            bundle: self.config.bundle,
            plan: self.plan_hash,
            token: self.config.token,
            speed: self.config.speed,
            name: self.config.name.clone(),
            addresses: self.config.addresses.clone(),
        };
        self.send(id, &Message::Hello(hello));
    }

    /// Tells a stranger why it is turned away, and closes. The run goes on.
    pub(super) fn refuse(&mut self, id: LinkId, reason: RefuseReason, text: &str) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let identity = link.identity.clone();
        let name = match &link.state {
            LinkState::Held(hello) => hello.name.clone(),
            LinkState::Joined => {
                let joiner = self.joiners.iter().find(|joiner| joiner.link == id);
                joiner.map(|joiner| joiner.name.clone()).unwrap_or_default()
            }
            _ => String::new(),
        };
        self.joiners.retain(|joiner| joiner.link != id);
        self.send(id, &Message::Refuse { reason, text: text.to_owned() });
        self.close(id, text);
        self.outputs.push_back(Output::Refused { identity, name, reason, text: text.to_owned() });
    }

    /// A message on a link whose other end is no peer of the run yet.
    pub(super) fn received_early(&mut self, id: LinkId, message: Message) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        match (&link.state, message) {
            (LinkState::Stranger, Message::Hello(hello)) => self.stranger_hello(id, hello),
            (LinkState::Dialled(peer), Message::Hello(hello)) => self.dialled_hello(id, *peer, &hello),
            (LinkState::Dialled(peer), Message::Refuse { reason, text }) => {
                let peer = *peer;
                self.fail(RunError::Refused { peer, name: self.name(peer), reason, text });
            }
            (LinkState::Dialled(_), Message::Abort { by, text }) => {
                let by = PeerIndex(by);
                self.fail(RunError::Aborted { by, name: self.name(by), text });
            }
            (LinkState::Stranger, Message::Ping { .. } | Message::Pong { .. }) => {
                self.offend(id, Violation::Unexpected { message: "ping" });
            }
            (_, Message::Ping { waiting }) => self.pinged(id, waiting),
            (_, Message::Pong { waiting }) => self.heard_waiting(id, waiting),
            // It gave up before the plan: there is a place again.
            (LinkState::Joined, Message::Abort { .. } | Message::Refuse { .. }) => {
                self.joiners.retain(|joiner| joiner.link != id);
                self.close(id, "it left");
            }
            (_, Message::Abort { .. } | Message::Refuse { .. }) => self.close(id, "it left"),
            (_, message) => self.offend(id, Violation::Unexpected { message: wire::name_of(&message) }),
        }
    }

    fn stranger_hello(&mut self, id: LinkId, hello: Hello) {
        if let Err((reason, text)) = self.check_invited(&hello) {
            return self.refuse_named(id, hello, reason, text);
        }
        match (self.is_coordinator(), self.phase) {
            (true, Phase::Assembling) => self.join(id, hello),
            (false, Phase::Assembling | Phase::Deciding) => self.hold(id, hello),
            (false, Phase::Linking) => self.admit(id, hello),
            _ => self.refuse_named(id, hello, RefuseReason::Full, "the run has begun"),
        }
    }

    /// Refuses with the name in the report.
    fn refuse_named(&mut self, id: LinkId, hello: Hello, reason: RefuseReason, text: &str) {
        if let Some(link) = self.links.get_mut(&id) {
            link.state = LinkState::Held(hello);
        }
        self.refuse(id, reason, text);
    }

    fn check_invited(&self, hello: &Hello) -> Result<(), (RefuseReason, &'static str)> {
        if hello.version != PROTOCOL_VERSION {
            Err((RefuseReason::Version, "another version of the wire"))
        } else if hello.token != self.config.token {
            Err((RefuseReason::Token, "not invited to this run"))
        } else if hello.bundle != self.config.bundle {
            Err((RefuseReason::Bundle, "another bundle"))
        } else {
            Ok(())
        }
    }

    /// Coordinator: one more is here.
    fn join(&mut self, id: LinkId, hello: Hello) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let identity = link.identity.clone();
        let known = self.joiners.iter().any(|joiner| joiner.identity == identity);
        if known || identity == self.config.identity {
            return self.refuse_named(id, hello, RefuseReason::Identity, "this identity is here already");
        }
        link.state = LinkState::Joined;
        let speed = if hello.speed.is_finite() && hello.speed >= 0.0 { hello.speed } else { 0.0 };
        self.joiners.push(Joiner { link: id, index: PeerIndex(0), identity, name: hello.name, speed, addresses: hello.addresses });
        self.trust(id);
        self.assemble_if_all_here();
    }

    fn assemble_if_all_here(&mut self) {
        let Role::Coordinator { peers } = self.config.role else {
            return;
        };
        if self.joiners.len() + 1 < usize::from(peers) {
            return;
        }
        let own = RosterPeer { identity: self.config.identity.clone(), name: self.config.name.clone(), addresses: self.config.addresses.clone() };
        self.roster = vec![own];
        self.peers = vec![Peer::default()];
        for (joiner, index) in self.joiners.iter_mut().zip(1u16..) {
            joiner.index = PeerIndex(index);
            if let Some(link) = self.links.get_mut(&joiner.link) {
                link.state = LinkState::Peer(joiner.index);
            }
            self.roster.push(RosterPeer { identity: joiner.identity.clone(), name: joiner.name.clone(), addresses: joiner.addresses.clone() });
            self.peers.push(Peer { link: Some(joiner.link), ..Peer::default() });
        }
        self.enter(Phase::Deciding);
        self.outputs.push_back(Output::Assemble { joiners: self.joiners.clone() });
    }

    pub(super) fn plan_made(&mut self, plan: Bytes, traffic: Traffic, ownership: Ownership) {
        if !self.is_coordinator() || self.phase != Phase::Deciding {
            return self.misuse("a plan was made out of turn");
        }
        if plan.len() > wire::PLAN_BYTES_MAX {
            return self.misuse(&format!("a plan of {} bytes, the limit is {}", plan.len(), wire::PLAN_BYTES_MAX));
        }
        if let Err(what) = self.settle(&traffic, ownership) {
            return self.misuse(&what);
        }
        let envelope = Envelope { staleness: self.staleness, roster: self.roster.clone(), plan };
        let envelope = wire::encode_envelope(&envelope);
        self.plan_hash = *blake3::hash(&envelope).as_bytes();
        for to in self.others() {
            self.send_to(to, &Message::Plan { index: to.0, envelope: envelope.clone() });
        }
        if self.peers.len() == 1 {
            self.start();
        }
    }

    /// Joiner: the plan came.
    pub(super) fn plan(&mut self, id: LinkId, from: PeerIndex, index: u16, envelope: Bytes) -> Result<(), Violation> {
        if self.is_coordinator() || from != PeerIndex::COORDINATOR || self.phase != Phase::Assembling {
            return Err(Violation::Unexpected { message: "plan" });
        }
        let hash = *blake3::hash(&envelope).as_bytes();
        let Envelope { staleness, roster, plan } = wire::decode_envelope(envelope)?;
        let sender = self.links.get(&id).map(|link| link.identity.as_str()).unwrap_or_default();
        self.check_roster(&roster, index, sender)?;
        if staleness > super::STALENESS_MAX {
            return Err(Violation::BadRoster { what: "the staleness is above its limit" });
        }
        self.me = PeerIndex(index);
        self.plan_hash = hash;
        self.staleness = staleness;
        self.roster = roster;
        self.peers = self.roster.iter().map(|_| Peer::default()).collect();
        if let Some(coordinator) = self.peers.first_mut() {
            coordinator.link = Some(id);
        }
        self.enter(Phase::Deciding);
        let roster = self.roster.clone();
        self.outputs.push_back(Output::PlanReceived { plan, index: self.me, roster, staleness });
        Ok(())
    }

    fn check_roster(&self, roster: &[RosterPeer], index: u16, sender: &str) -> Result<(), Violation> {
        let bad = |what| Err(Violation::BadRoster { what });
        let mut identities: Vec<&str> = roster.iter().map(|peer| peer.identity.as_str()).collect();
        identities.sort_unstable();
        identities.dedup();
        if identities.len() != roster.len() {
            return bad("an identity stands there twice");
        }
        if roster.first().map(|peer| peer.identity.as_str()) != Some(sender) {
            return bad("peer 0 is not the sender");
        }
        match roster.get(usize::from(index)) {
            Some(me) if index > 0 && me.identity == self.config.identity => Ok(()),
            _ => bad("this peer is not at its index"),
        }
    }

    pub(super) fn plan_accepted(&mut self, traffic: Traffic, ownership: Ownership) {
        if self.is_coordinator() || self.phase != Phase::Deciding {
            return self.misuse("a plan was accepted out of turn");
        }
        if let Err(what) = self.settle(&traffic, ownership) {
            return self.misuse(&what);
        }
        for peer in (1..self.me.0).map(PeerIndex) {
            let addresses = self.roster.get(peer.at()).map(|known| known.addresses.clone()).unwrap_or_default();
            self.dial(peer, addresses);
        }
        let held: Vec<LinkId> = self.links.iter().filter_map(|(id, link)| matches!(link.state, LinkState::Held(_)).then_some(*id)).collect();
        for id in held {
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            if let LinkState::Held(hello) = std::mem::replace(&mut link.state, LinkState::Stranger) {
                self.admit(id, hello);
            }
        }
        self.linked_if_complete();
    }

    /// Joiner, before it knows the plan: another joiner was faster.
    fn hold(&mut self, id: LinkId, hello: Hello) {
        let Some(identity) = self.links.get(&id).map(|link| link.identity.clone()) else {
            return;
        };
        let mut others = self.links.values().filter(|link| matches!(link.state, LinkState::Held(_)));
        if others.any(|link| link.identity == identity) {
            return self.refuse_named(id, hello, RefuseReason::Identity, "this identity is here already");
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.state = LinkState::Held(hello);
        }
    }

    /// Joiner, plan known: a peer of higher index dialled.
    fn admit(&mut self, id: LinkId, hello: Hello) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let place = self.roster.iter().position(|known| known.identity == link.identity);
        let index = place.and_then(|place| u16::try_from(place).ok()).map(PeerIndex);
        let expected = index.filter(|index| *index > self.me && hello.index == Some(index.0));
        let Some(peer) = expected.filter(|peer| self.peer(*peer).is_some_and(|peer| peer.link.is_none())) else {
            return self.refuse_named(id, hello, RefuseReason::Identity, "no place in the roster");
        };
        if hello.plan != self.plan_hash {
            return self.refuse_named(id, hello, RefuseReason::Plan, "another plan");
        }
        self.trust(id);
        self.establish(id, peer);
        self.send_hello(id);
        self.linked_if_complete();
    }

    /// A dialled peer answers.
    fn dialled_hello(&mut self, id: LinkId, peer: PeerIndex, hello: &Hello) {
        let fits = self.check_invited(hello).is_ok() && hello.plan == self.plan_hash && hello.index == Some(peer.0);
        if !fits {
            return self.offend(id, Violation::WrongPlan);
        }
        self.dials.retain(|dial| dial.peer != peer);
        self.trust(id);
        self.establish(id, peer);
        self.linked_if_complete();
    }

    fn establish(&mut self, id: LinkId, peer: PeerIndex) {
        if let Some(link) = self.links.get_mut(&id) {
            link.state = LinkState::Peer(peer);
        }
        if let Some(peer) = self.peers.get_mut(peer.at()) {
            peer.link = Some(id);
        }
    }

    fn linked_if_complete(&mut self) {
        let complete = self.others().all(|peer| self.peer(peer).is_some_and(|peer| peer.link.is_some()));
        if self.phase == Phase::Linking && complete && !self.linked_sent {
            self.linked_sent = true;
            self.send_to(PeerIndex::COORDINATOR, &Message::Linked);
        }
    }

    /// A joiner has all its links, or the coordinator says that everybody has.
    pub(super) fn linked(&mut self, from: PeerIndex) -> Result<(), Violation> {
        let unexpected = Violation::Unexpected { message: "linked" };
        if self.phase != Phase::Linking {
            return Err(unexpected);
        }
        if !self.is_coordinator() {
            if from != PeerIndex::COORDINATOR || !self.linked_sent {
                return Err(unexpected);
            }
            self.start();
            return Ok(());
        }
        match self.peers.get_mut(from.at()) {
            Some(peer) if !peer.linked => peer.linked = true,
            _ => return Err(unexpected),
        }
        if self.others().all(|peer| self.peer(peer).is_some_and(|peer| peer.linked)) {
            for to in self.others() {
                self.send_to(to, &Message::Linked);
            }
            self.start();
        }
        Ok(())
    }
}
