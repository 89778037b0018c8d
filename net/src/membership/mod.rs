//! A run whose peers come and go, as one peer sees it: a state machine without IO.
//!
//! [`core`](crate::core) runs a fixed roster and ends with its first loss. Here the roster changes in numbered
//! **epochs**. An epoch is a value, [`EpochPlan`]: who is in it, who owns which part of the state, at which
//! tick it begins and from which snapshot. Everything else follows from it.
//!
//! ```text
//!            ┌───────────────────────── epoch e ─────────────────────────┐
//!  decided ─► fetch own parts ─► Enter ─► tick, exchange, tick, …  ─► T   │  planned: join, leave, balance
//!     ▲        (shelf, peers)      node    within the granted horizon     ├──────────────► decided e+1 at T
//!     │                                    snapshot, offer, replicate     │
//!     │                                                                   ✗  a member is silent or broke the rules
//!     └────── decided e+1 from the newest snapshot that the living hold ◄─┘
//! ```
//!
//! - **Parts** ([`Parts`]): a tile with all its fields, or the tables: what is owned, snapshotted, shipped.
//! - **Horizon**: the coordinator, the first of the roster, grants ticks a little ahead. So nobody is ever beyond
//!   the tick at which a planned epoch begins or a snapshot is due.
//! - **Snapshots** are taken by every owner at an agreed tick, offered to all by their hashes, and pulled by those who
//!   replicate them (rendezvous hashing). A snapshot that is complete on all its holders replaces the one before.
//!   Every epoch begins from a snapshot; whoever lacks a part of it pulls it, chunk by chunk, and checks its hash.
//! - **Shadows**: a newcomer computes the tiles that it is to own behind their owners, and takes over when it has caught up.
//! - **Agreement** ([`agree`]): the members of epoch e decide its one successor by single-decree Paxos. A quorum is
//!   more than half of those that others can dial, or exactly half with the first of them; so of two halves of a split network at
//!   most one goes on, and a host goes on when its only guest has vanished. The other half waits, says so, and joins
//!   again once it reaches the first.
//! - **Silence**: a member that sends no byte for some round trips is suspected; pings come from the driver's thread, so
//!   a computing peer is never silent. Who is suspected is left out of the next epoch; it may join again.
//!
//! Invariants: frames of another epoch are never applied; a member enters an epoch only with every part that it owns, each
//! of the snapshot's hash; nothing from the network panics here or grows without a bound; time and randomness come in
//! from outside.

pub mod agree;
mod audit;
pub mod balance;
mod event;
mod fetch;
mod greet;
mod joiners;
mod lead;
mod links;
mod parts;
mod plan;
mod rebalance;
mod running;
mod shadow;
mod shelf;
mod snapshots;
mod succession;
mod wire;
mod wishes;
mod yielding;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use event::{Event, Keep, MemberConfig, MemberError, MemberStatus, Notice, Output, Role, Standing, Stored, Tuning};
pub use links::LinkTotals;
pub use parts::{PartId, Parts};
pub use plan::{EpochPlan, Member as MemberInfo, MemberId, Origin, Version};
pub use wire::is_control;
pub use wishes::{CHANGES_MAX, Change, KEY_BYTES_MAX, VALUE_BYTES_MAX, Wish};

use crate::core::{LinkId, Violation};
use crate::wire::RefuseReason;
use agree::{Acceptor, Ballot};
use audit::Audits;
use fetch::{Encoded, Fetch};
use greet::Joining;
use lead::Lead;
use links::{Links, Opened};
use running::Running;
use shadow::Backlogs;
use shelf::Shelf;
use snapshots::Unhashed;
use succession::Attempt;
use wire::Message;
use wishes::Wishing;

/// Outputs that may wait for the driver; a driver drains them after every event.
const OUTPUTS_MAX: usize = 1 << 20;
/// Frames of epochs yet to be entered that are held.
const EARLY_FRAMES_MAX: usize = 1 << 14;
/// … and their bytes.
const EARLY_BYTES_MAX: usize = 256 << 20;
/// So many offences end an identity's part in the run: a lost frame or two may look like one.
const OFFENCES_MAX: u32 = 3;
/// Identities whose offences are counted.
const OFFENDERS_MAX: usize = 4096;
/// The clock is not wanted more often.
const CLOCK_EVERY_MIN: Duration = Duration::from_millis(1);
/// A frame that is of no use yet.
#[derive(Debug)]
struct Early {
    identity: String,
    message: Message,
    bytes: usize,
}

/// One peer's state machine.
#[derive(Debug)]
pub struct Member {
    config: MemberConfig,
    now: Duration,
    random: fastrand::Rng,
    outputs: VecDeque<Output>,
    over: bool,
    id: Option<MemberId>,
    run: [u8; 16],
    links: Links,
    shelf: Shelf,
    fetch: Fetch,
    encoded: Encoded,
    /// The newest epoch decided.
    decided: Option<Arc<EpochPlan>>,
    running: Option<Running>,
    /// Own parts of the newest snapshot that are yet to be hashed and offered.
    unhashed: Unhashed,
    /// What shadows have yet to be sent.
    backlogs: Backlogs,
    /// Questions to those who hold copies of own parts.
    audits: Audits,
    early: VecDeque<Early>,
    early_bytes: usize,
    /// This member's vote on the successor of `decided`, and its own attempt at one.
    acceptor: Acceptor,
    attempt: Option<Attempt>,
    /// Members of `decided` that cannot be counted on, and why.
    suspects: BTreeMap<MemberId, String>,
    /// Those among them that stay so, even if they can be reached again.
    barred: BTreeSet<MemberId>,
    /// How often members broke the rules, by identity; who did so too often is let in no more.
    offences: BTreeMap<String, u32>,
    /// Who cannot count on whom, as told by others: (accuser, accused), and when that was told first.
    reports: BTreeMap<(MemberId, MemberId), Duration>,
    /// Suspicions told to whom.
    told: BTreeSet<(MemberId, MemberId)>,
    /// Who asked for a promise while somebody lower was within reach, of which epoch and ballot.
    deferred: Option<(String, u32, Ballot)>,
    /// Since when `decided` needs a successor.
    trouble_at: Option<Duration>,
    /// Parts of every snapshot are with nobody who can be reached.
    parts_missing: bool,
    /// When this member was last asked to promise or to vote.
    asked_at: Duration,
    orphaned_at: Option<Duration>,
    orphaned_told: bool,
    joining: Joining,
    lead: Lead,
    /// Since when this peer wants to go.
    leaving_at: Option<Duration>,
    leave_said_at: Option<Duration>,
    wishing: Wishing,
    /// Who has entered the epoch that this member leaves before.
    entered: BTreeSet<MemberId>,
    /// Bytes of parts that had arrived when the coordinator was last told, and when that was.
    fetched_said: u64,
    fetched_at: Duration,
    /// A link or the roster has changed since members were last looked over.
    members_changed: bool,
}

impl Member {
    /// A member at time zero; its first outputs are dials, or the first epoch.
    pub fn new(config: MemberConfig) -> Member {
        let mut member = Member {
            now: Duration::ZERO,
            random: fastrand::Rng::with_seed(config.seed),
            outputs: VecDeque::new(),
            over: false,
            id: None,
            run: [0; 16],
            links: Links::default(),
            shelf: Shelf::new(config.parts.clone()),
            fetch: Fetch::default(),
            encoded: Encoded::default(),
            decided: None,
            running: None,
            unhashed: Unhashed::default(),
            backlogs: Backlogs::default(),
            audits: Audits::default(),
            early: VecDeque::new(),
            early_bytes: 0,
            acceptor: Acceptor::default(),
            attempt: None,
            suspects: BTreeMap::new(),
            barred: BTreeSet::new(),
            offences: BTreeMap::new(),
            reports: BTreeMap::new(),
            told: BTreeSet::new(),
            deferred: None,
            trouble_at: None,
            parts_missing: false,
            asked_at: Duration::ZERO,
            orphaned_at: None,
            orphaned_told: false,
            joining: Joining::default(),
            lead: Lead::default(),
            leaving_at: None,
            leave_said_at: None,
            wishing: Wishing::default(),
            entered: BTreeSet::new(),
            fetched_said: 0,
            fetched_at: Duration::ZERO,
            members_changed: true,
            config,
        };
        member.begin();
        member.advance();
        member
    }

    /// Takes in one event. `now` never runs backwards; its zero is the member's making.
    pub fn handle(&mut self, event: Event, now: Duration) {
        if self.over {
            // Only a link that opens now still needs an answer.
            if let Event::Opened { link, .. } = event {
                self.outputs.push_back(Output::Close { link, reason: "the run is over here".to_owned() });
            }
            return;
        }
        self.forgive_own_sleep(now);
        self.now = self.now.max(now);
        match event {
            Event::Opened { link, identity, outgoing } => match self.links.opened(link, identity, outgoing, self.now) {
                Opened::Greet(purpose) => {
                    self.trust(link);
                    self.greet(link, purpose);
                }
                Opened::Wait => {}
                Opened::TurnAway(reason) => self.outputs.push_back(Output::Close { link, reason: reason.to_owned() }),
            },
            Event::Received { link, frame } => self.received(link, frame),
            Event::Heard { link } => return self.links.heard(link, 0, self.now),
            Event::Closed { link, reason } => self.closed(link, &format!("lost its link: {reason}")),
            Event::DialFailed { address, error } => self.links.dial_failed(&address, error, self.now),
            Event::Clock => self.clock(),
            Event::Prepared => self.prepared(),
            Event::Declined { text } => self.declined(text),
            Event::Entered { epoch, traffic } => self.node_entered(epoch, &traffic),
            Event::Post { epoch, sequence, exchange, payloads } => self.post(epoch, sequence, exchange, payloads),
            Event::Ticked { epoch, tick, busy } => self.ticked(epoch, tick, busy),
            Event::Measured { points_per_s } => self.measured_itself(points_per_s),
            Event::Snapshot { epoch, tick, parts } => self.node_snapshot(epoch, tick, parts),
            Event::Report { epoch, bytes } => self.node_report(epoch, bytes),
            Event::Wish(wish) => self.wish(wish),
            Event::Leave => self.leave(),
            Event::Stop { text } => self.fail(MemberError::Stopped { text }),
        }
        self.advance();
        if self.outputs.len() > OUTPUTS_MAX && !self.over {
            self.outputs.clear();
            self.misuse("outputs are not drained");
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the clock's event is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        if self.over {
            return None;
        }
        let tuning = &self.config.tuning;
        let hashing = (!self.unhashed.is_empty()).then_some(self.now);
        let rest = [self.links.deadline(tuning), self.fetch.deadline(tuning.replica_bytes_per_s), self.joining_deadline(), hashing];
        let own = [self.succession_deadline(), self.lead_deadline(), self.leave_deadline(), self.pace_deadline(), self.audits.deadline()];
        // Whatever was due by now was done with the latest event.
        rest.into_iter().chain(own).flatten().min().map(|at| at.max(self.now + CLOCK_EVERY_MIN))
    }

    /// What its links have carried so far.
    pub fn link_totals(&self) -> LinkTotals {
        self.links.totals()
    }

    /// Whether this peer's part in the run is over, well or badly.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Everything that follows from the state, whatever event changed it.
    fn advance(&mut self) {
        if self.over {
            return;
        }
        for address in self.links.due_dials(self.now) {
            self.outputs.push_back(Output::Dial { address });
        }
        self.offer_some();
        self.advance_succession();
        self.advance_transition();
        self.advance_keeping();
        self.advance_audits();
        // What a coordinator has computed itself, it hears before it grants more.
        self.pace(false);
        self.advance_wishing();
        self.advance_lead();
        // What a coordinator alone decides, it enters at once: no event may follow for long.
        self.advance_transition();
        self.advance_leaving();
        self.advance_joining();
        self.pump();
    }

    fn clock(&mut self) {
        self.members_changed = true;
        for link in self.links.due_pings(&self.config.tuning, self.now) {
            let stamp = u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
            self.send(link, &Message::Ping { stamp });
        }
        for link in self.links.silent(&self.config.tuning, self.now) {
            let Some(silent) = self.links.all.get(&link) else { continue };
            let silent_ms = self.now.saturating_sub(silent.heard_at).as_millis();
            if silent.greeted.is_none() && !silent.outgoing {
                self.refuse(link, RefuseReason::Silent, "no hello in time");
            } else {
                self.drop_link(link, &format!("has been silent for {silent_ms} ms"));
            }
        }
    }

    fn received(&mut self, link: LinkId, frame: Bytes) {
        self.links.heard(link, frame.len(), self.now);
        let Some(greeted) = self.links.all.get(&link).map(|link| link.greeted.is_some()) else { return };
        let bytes = frame.len();
        let message = match wire::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.offend(link, &Violation::Wire(error)),
        };
        match message {
            Message::Hello(hello) => self.hello(link, *hello),
            Message::Refuse { reason, text } => self.refused(link, reason, text),
            Message::Redirect { addresses } => self.redirected(link, addresses),
            _ if !greeted => self.offend(link, &Violation::Unexpected { message: message.name() }),
            Message::Ping { stamp } => self.send(link, &Message::Pong { stamp }),
            Message::Pong { stamp } => self.links.ponged(link, stamp, self.now),
            Message::Welcome { draft } => self.welcomed(link, draft),
            Message::Ready { linked } => self.joiner_ready(link, linked),
            Message::Standing(standing) => self.outputs.push_back(Output::Status(*standing)),
            Message::Decided { plan } => self.told_decided(link, plan),
            message => {
                let Some(identity) = self.links.all.get(&link).map(|link| link.identity.clone()) else { return };
                self.heard_from(&identity, message, bytes);
            }
        }
    }

    /// A message whose meaning depends on who sent it in which epoch.
    fn heard_from(&mut self, identity: &str, message: Message, bytes: usize) {
        let outcome = match message {
            Message::Data { epoch, .. } | Message::Progress { epoch, .. } if self.is_early(epoch) => return self.hold(identity, message, bytes),
            // To a coordinator that has not heard yet that it is one; of a shadow in an epoch that its owners have yet to hear of.
            Message::Wish { epoch, .. } | Message::Entered { epoch, .. } if self.is_undecided(epoch) => return self.hold(identity, message, bytes),
            Message::Offer { version, .. } if self.is_unknown(version) => {
                return self.hold(identity, message, bytes);
            }
            Message::Data { epoch, exchange, sequence, payload } => self.data(identity, epoch, exchange, sequence, payload),
            Message::Progress { epoch, sequence } => self.progress(identity, epoch, sequence),
            Message::Offer { version, parts } => self.offered(identity, version, parts),
            // A grant can be sooner than what this member waits for to enter.
            Message::Horizon { epoch, .. } if !self.is_undecided(epoch) && self.running.as_ref().is_none_or(|running| epoch > running.plan.epoch) => {
                return self.hold(identity, message, bytes);
            }
            Message::Want { version, part, base, offset, length } => {
                self.wanted(identity, version, part, base, (offset, length));
                Ok(())
            }
            Message::Chunk { version, part, encoding, offset, total, bytes } => {
                self.chunk(identity, (version, part), (encoding, offset, total), &bytes);
                Ok(())
            }
            Message::Missing { version, part } => {
                if let Some(from) = self.member_id(identity) {
                    self.fetch.missing(from, version, part);
                }
                Ok(())
            }
            Message::Horizon { epoch, until, snapshots, complete } => self.horizon(identity, epoch, until, snapshots, complete),
            Message::Suspect { epoch, member, text } => {
                self.told_suspect(identity, epoch, member, text);
                Ok(())
            }
            Message::Prepare { epoch, ballot } => {
                self.asked_to_promise(identity, epoch, ballot);
                Ok(())
            }
            Message::Promise { epoch, ballot, accepted, holdings } => {
                self.promised(identity, epoch, ballot, accepted, holdings);
                Ok(())
            }
            Message::Accept { epoch, ballot, value } => {
                self.asked_to_accept(identity, epoch, ballot, value);
                Ok(())
            }
            Message::Accepted { epoch, ballot } => {
                self.vote(identity, epoch, ballot);
                Ok(())
            }
            Message::Nack { epoch, ballot } => {
                self.nacked(epoch, ballot);
                Ok(())
            }
            Message::Entered { epoch, link_bytes_per_s } => {
                self.told_entered(identity, epoch, link_bytes_per_s);
                Ok(())
            }
            Message::End { reports } => {
                self.told_end(identity, reports);
                Ok(())
            }
            Message::Audit(question) => {
                self.audited(identity, question);
                Ok(())
            }
            Message::Proof { nonce, proof, complete } => {
                self.proved(identity, nonce, proof, complete);
                Ok(())
            }
            Message::Wish { wish, .. } => {
                // One that coordinates no more is not the one to ask: who asked will hear of the epoch, and ask again.
                if self.leads() {
                    self.told_wish(wish);
                }
                Ok(())
            }
            Message::Pace { .. } | Message::Kept { .. } | Message::Leave | Message::Done { .. } | Message::Speed { .. } => {
                self.told_to_lead(identity, message);
                Ok(())
            }
            other => Err(Violation::Unexpected { message: other.name() }),
        };
        if let Err(violation) = outcome
            && let Some(link) = self.links.to(identity)
        {
            self.offend(link, &violation);
        }
    }

    fn is_undecided(&self, epoch: u32) -> bool {
        self.decided.as_ref().is_none_or(|plan| plan.epoch < epoch)
    }

    /// Whether an epoch is yet to be entered by the node.
    fn is_early(&self, epoch: u32) -> bool {
        match &self.running {
            Some(running) => epoch > running.plan.epoch || (epoch == running.plan.epoch && running.exchanges.is_none()),
            None => true,
        }
    }

    /// Whether a version is of an epoch yet to be learnt of. A newcomer never learns of the one before its first.
    fn is_unknown(&self, version: Version) -> bool {
        let begins = self.decided.as_ref().and_then(|plan| plan.version());
        self.plan_of(version.epoch).is_none() && !self.is_past(version.epoch) && begins != Some(version)
    }

    fn is_past(&self, epoch: u32) -> bool {
        self.running.as_ref().is_some_and(|running| epoch < running.plan.epoch)
    }

    /// Keeps a frame until its epoch is known or entered. What a peer may send ahead is bounded by the exchanges' window.
    fn hold(&mut self, identity: &str, message: Message, bytes: usize) {
        self.early_bytes += bytes;
        self.early.push_back(Early { identity: identity.to_owned(), message, bytes });
        while self.early.len() > EARLY_FRAMES_MAX || self.early_bytes > EARLY_BYTES_MAX {
            // The oldest are of epochs that never came. Where one was needed after all, its exchange does not complete,
            // and the members agree on a new epoch.
            self.early_bytes -= self.early.pop_front().map_or(0, |early| early.bytes);
        }
    }

    /// Looks again at the frames that were early.
    fn release_early(&mut self) {
        let early = std::mem::take(&mut self.early);
        self.early_bytes = 0;
        for Early { identity, message, bytes } in early {
            self.heard_from(&identity, message, bytes);
        }
    }

    /// The plan of an epoch that is being computed or has been decided.
    fn plan_of(&self, epoch: u32) -> Option<&Arc<EpochPlan>> {
        let running = self.running.as_ref().map(|running| &running.plan);
        running.into_iter().chain(&self.decided).find(|plan| plan.epoch == epoch)
    }

    /// The member that an identity is, in the newest epoch or in the one being computed.
    fn member_id(&self, identity: &str) -> Option<MemberId> {
        let plans = self.decided.iter().chain(self.running.as_ref().map(|running| &running.plan));
        plans.into_iter().find_map(|plan| plan.member_of(identity)).map(|member| member.id)
    }

    /// A member by its number, likewise.
    fn known(&self, id: MemberId) -> Option<&MemberInfo> {
        let plans = self.decided.iter().chain(self.running.as_ref().map(|running| &running.plan));
        let mut members = plans.flat_map(|plan| plan.roster.iter().chain(&plan.leaving));
        members.find(|member| member.id == id)
    }

    fn name_of(&self, id: MemberId) -> String {
        self.known(id).map_or_else(|| "unknown".to_owned(), |member| member.name.clone())
    }

    /// The greeted link to a member.
    fn link_to(&self, id: MemberId) -> Option<LinkId> {
        self.links.to(&self.known(id)?.identity)
    }

    fn send(&mut self, link: LinkId, message: &Message) {
        if !self.links.all.contains_key(&link) {
            return;
        }
        let frame = wire::encode(message);
        self.links.said(link, frame.content_bytes(), matches!(message, Message::Data { .. }), self.now);
        self.outputs.push_back(Output::Send { link, frame });
    }

    fn send_to(&mut self, id: MemberId, message: &Message) {
        if let Some(link) = self.link_to(id) {
            self.send(link, message);
        }
    }

    /// Closes a link, with all that follows from its end.
    fn drop_link(&mut self, link: LinkId, reason: &str) {
        if self.links.all.contains_key(&link) {
            self.outputs.push_back(Output::Close { link, reason: reason.to_owned() });
            self.closed(link, reason);
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    /// Lets through what somebody of the run may send.
    fn trust(&mut self, link: LinkId) {
        let frame_bytes_max = self.config.frame_bytes_max.max(crate::wire::PLAN_FRAME_BYTES_MAX);
        self.outputs.push_back(Output::Limit { link, frame_bytes_max });
    }

    /// A link whose other end broke the protocol: told why and closed. A member is left out of the next epoch.
    fn offend(&mut self, link: LinkId, violation: &Violation) {
        let text = violation.to_string();
        let is_stranger = self.links.all.get(&link).is_some_and(|link| link.greeted.is_none());
        if is_stranger && self.decided.is_none() && !matches!(self.config.role, Role::Host { .. }) {
            let name = self.links.all.get(&link).map(|link| link.identity.clone()).unwrap_or_default();
            return self.fail(MemberError::Violation { name, violation: violation.clone() });
        }
        self.send(link, &Message::Refuse { reason: RefuseReason::Protocol, text: text.clone() });
        if let Some(id) = self.links.all.get(&link).and_then(|link| self.member_id(&link.identity)) {
            self.barred.insert(id);
            self.count_offences(id, 1);
        }
        self.drop_link(link, &text);
    }

    /// A member has broken the rules.
    fn count_offences(&mut self, id: MemberId, count: u32) {
        let Some(identity) = self.known(id).map(|member| member.identity.clone()) else { return };
        if self.offences.len() < OFFENDERS_MAX || self.offences.contains_key(&identity) {
            *self.offences.entry(identity).or_default() += count;
        }
    }

    /// Whether an identity has broken the rules too often to be let in.
    fn is_banned(&self, identity: &str) -> bool {
        self.offences.get(identity).is_some_and(|count| *count >= OFFENCES_MAX)
    }

    /// Leaves a member out of the next epoch, whether or not it can be reached.
    fn bar(&mut self, id: MemberId, text: &str) {
        if Some(id) == self.id {
            return;
        }
        self.barred.insert(id);
        self.suspect(id, text);
        if let Some(link) = self.link_to(id) {
            self.send(link, &Message::Refuse { reason: RefuseReason::Silent, text: text.to_owned() });
            self.drop_link(link, text);
        }
    }

    /// A link is gone, whoever closed it.
    fn closed(&mut self, link: LinkId, reason: &str) {
        let Some(gone) = self.links.remove(link) else { return };
        self.members_changed = true;
        let is_replaced = self.links.to(&gone.identity).is_some();
        if is_replaced {
            return;
        }
        self.lead.forget(link, &gone.identity);
        if let Some(id) = self.member_id(&gone.identity) {
            self.fetch.lost(id);
            self.frames_lost(id);
            self.suspect(id, reason);
        }
        self.contact_lost(&gone, reason);
    }

    fn forgive_own_sleep(&mut self, now: Duration) {
        let slept = now.saturating_sub(self.now);
        if slept > self.config.tuning.silence_min / 2 {
            self.links.forgive(slept, now);
        }
    }

    fn misuse(&mut self, what: &str) {
        self.fail(MemberError::Misuse { what: what.to_owned() });
    }

    /// Ends this peer's part. The others notice by its links, and go on.
    fn fail(&mut self, error: MemberError) {
        if !self.over {
            self.end(Output::Failed(error));
        }
    }

    fn end(&mut self, last: Output) {
        for link in std::mem::take(&mut self.links).all.into_keys() {
            self.outputs.push_back(Output::Close { link, reason: "over".to_owned() });
        }
        self.over = true;
        self.outputs.push_back(last);
    }
}
