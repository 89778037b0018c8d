//! The epoch that is being computed: what the node posts, what comes back to it, and how far it may go.
//!
//! ```text
//! node ─ posts a tick's exchange ─► Exchanges ─► members      all that a tick waits for is here ─► node
//! node ─ a tick is done ─► Pace, every so often ─► coordinator ─ Horizon ─► until, snapshots due ─► node
//! ```
//!
//! Invariant: where a frame may have been lost, the epoch is not computed to an end: nobody is accused of what follows from
//! that, and the next epoch computes its ticks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::shadow;
use super::wire::{self, Message};
use super::{EpochPlan, Member, MemberId, Output, PartId, Version};
use crate::core::exchange::{Exchanges, PostError};
use crate::core::{Traffic, Violation};
use crate::ownership::PeerIndex;
use crate::wire::REPORT_BYTES_MAX;

/// Between two reports of how far a member is.
const PACE_EVERY: Duration = Duration::from_millis(20);

/// The epoch that the node has been told to compute.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) plan: Arc<EpochPlan>,
    pub(super) me: PeerIndex,
    /// Places in the roster, by identity.
    pub(super) places: BTreeMap<String, PeerIndex>,
    /// Once the node has entered.
    pub(super) exchanges: Option<Exchanges>,
    /// The next tick that the node computes.
    pub(super) tick: u64,
    pub(super) busy: Duration,
    pub(super) until: u64,
    /// Ticks at which snapshots are due, and not taken yet.
    pub(super) due: BTreeSet<u64>,
    pub(super) taken: Option<u64>,
    /// The snapshot that this member works to keep, and whether it has said that it does.
    pub(super) keeping: Option<(Version, bool)>,
    pub(super) paced_at: Duration,
    pub(super) paced_tick: u64,
    /// When the node was last given or last completed something.
    pub(super) moved_at: Duration,
    pub(super) report: Option<Bytes>,
    pub(super) done_said: bool,
    /// Whether frames of its exchanges were lost: it cannot be computed to an end.
    pub(super) is_lossy: bool,
    /// What this member computed as a shadow, at the latest tick at which a snapshot was due.
    pub(super) shadowed: Option<(Version, Vec<(PartId, Bytes)>)>,
    /// Frames for members that are yet to be linked, by identity, in order; no more than exchanges let be under way.
    pub(super) unsent: Vec<(String, Message)>,
}

impl Member {
    pub(super) fn post(&mut self, epoch: u32, sequence: u64, exchange: u16, payloads: Vec<(PeerIndex, Bytes)>) {
        let now = self.now;
        let Some(running) = self.running.as_mut().filter(|running| running.plan.epoch == epoch) else { return };
        let Some(exchanges) = &mut running.exchanges else { return self.misuse("posted before it entered") };
        match exchanges.post(sequence, exchange, payloads, now) {
            Ok(mut payloads) => {
                for (to, payload) in payloads.drain(..) {
                    let plan = self.running.as_ref().map(|running| &running.plan);
                    let shadow = plan.and_then(|plan| plan.member(to)).map_or("", |member| member.identity.as_str());
                    if !self.backlogs.keep(epoch, shadow, sequence, exchange, &payload) {
                        self.send_at(to, &Message::Data { epoch, exchange, sequence, payload });
                    }
                }
                self.feed_shadows();
                if let Some(exchanges) = self.running.as_mut().and_then(|running| running.exchanges.as_mut()) {
                    exchanges.reuse(payloads);
                }
                self.deliver();
            }
            Err(PostError::Misuse(what)) => self.misuse(&what),
            Err(PostError::Violation(from, violation)) => {
                self.accuse(from, &violation);
            }
        }
    }

    /// Sends to a place of the running epoch's roster.
    fn send_at(&mut self, to: PeerIndex, message: &Message) {
        let Some(running) = &mut self.running else { return };
        let Some(identity) = running.plan.member(to).map(|member| member.identity.as_str()) else { return };
        match self.links.to(identity) {
            Some(link) => self.send(link, message),
            // It was linked when the epoch was proposed, and will be again, or another epoch follows.
            None => running.unsent.push((identity.to_owned(), message.clone())),
        }
    }

    /// Sends what waited for a link.
    pub(super) fn send_unsent(&mut self, to: &str) {
        let Some(running) = &mut self.running else { return };
        let (due, rest) = std::mem::take(&mut running.unsent).into_iter().partition(|(identity, _)| identity == to);
        running.unsent = rest;
        let due: Vec<(String, Message)> = due;
        for (_, message) in due {
            if let Some(link) = self.links.to(to) {
                self.send(link, &message);
            }
        }
    }

    fn accuse(&mut self, at: PeerIndex, violation: &Violation) {
        if self.is_lossy() {
            return;
        }
        let identity = self.running.as_ref().and_then(|running| running.plan.member(at)).map(|member| member.identity.clone());
        if let Some(link) = identity.and_then(|identity| self.links.to(&identity)) {
            self.offend(link, violation);
        }
    }

    /// A sender's place in the epoch that is being computed.
    fn place_of(&self, identity: &str, epoch: u32) -> Option<PeerIndex> {
        self.running.as_ref().filter(|running| running.plan.epoch == epoch)?.places.get(identity).copied()
    }

    fn is_lossy(&self) -> bool {
        self.trouble_at.is_some() || self.running.as_ref().is_some_and(|running| running.is_lossy)
    }

    /// A link to a member is gone, or replaced: what was under way on it is lost.
    pub(super) fn frames_lost(&mut self, id: MemberId) {
        if let Some(running) = self.running.as_mut().filter(|running| running.plan.index_of(id).is_some()) {
            running.is_lossy = true;
        }
        // One that goes, and serves its parts no more before this member has entered.
        let entered = self.running.as_ref().map_or(0, |running| running.plan.epoch);
        let serves = |plan: &Arc<EpochPlan>| plan.epoch > entered && plan.leaving.iter().any(|member| member.id == id);
        if self.decided.as_ref().is_some_and(serves) {
            self.trouble_at.get_or_insert(self.now);
        }
    }

    pub(super) fn data(&mut self, identity: &str, epoch: u32, exchange: u16, sequence: u64, payload: Bytes) -> Result<(), Violation> {
        // Where a link was lost, so were frames; the epoch that follows computes these ticks again.
        if self.is_lossy() {
            if let Some(running) = &mut self.running {
                running.is_lossy = true;
            }
            return Ok(());
        }
        let Some(from) = self.place_of(identity, epoch) else { return Ok(()) };
        let Some(exchanges) = self.running.as_mut().and_then(|running| running.exchanges.as_mut()) else { return Ok(()) };
        exchanges.data(from, sequence, exchange, payload)?;
        self.deliver();
        Ok(())
    }

    pub(super) fn progress(&mut self, identity: &str, epoch: u32, sequence: u64) -> Result<(), Violation> {
        self.shadow_took(identity, epoch, sequence);
        if self.is_lossy() {
            return Ok(());
        }
        let Some(from) = self.place_of(identity, epoch) else { return Ok(()) };
        let Some(exchanges) = self.running.as_mut().and_then(|running| running.exchanges.as_mut()) else { return Ok(()) };
        exchanges.progress(from, sequence)?;
        self.deliver();
        Ok(())
    }

    /// Gives the node what its post waits for, once all of it is here.
    fn deliver(&mut self) {
        let Some(running) = &mut self.running else { return };
        let Some(exchanges) = &mut running.exchanges else { return };
        let epoch = running.plan.epoch;
        if self.backlogs.is_full(epoch) {
            return;
        }
        match exchanges.try_deliver() {
            Ok(None) => {}
            Ok(Some(delivery)) => {
                let sequence = delivery.sequence;
                for to in delivery.progress_to.iter() {
                    self.send_at(*to, &Message::Progress { epoch, sequence });
                }
                self.outputs.push_back(Output::Deliver { epoch, sequence, payloads: delivery.payloads });
            }
            Err((from, violation)) => self.accuse(from, &violation),
        }
    }

    /// The node has begun an epoch.
    pub(super) fn node_entered(&mut self, epoch: u32, traffic: &Traffic) {
        let Some(running) = self.running.as_mut().filter(|running| running.plan.epoch == epoch) else { return };
        let peers = running.plan.roster.len();
        if let Err(what) = traffic.check(peers, running.me) {
            return self.misuse(&what);
        }
        let mut exchanges = Exchanges::new(traffic, peers, 0);
        let (plan, is_shadow) = (running.plan.clone(), running.plan.is_shadow(running.me));
        (0..peers as u16).map(PeerIndex).filter(|at| plan.is_shadow(*at)).for_each(|shadow| exchanges.uncount(shadow));
        if is_shadow {
            exchanges.widen(shadow::SENT_MAX);
        }
        running.exchanges = Some(exchanges);
        running.moved_at = self.now;
        // Whoever it shadows keeps for it what it has yet to be sent.
        let owners = if is_shadow { plan.roster.as_slice() } else { &plan.roster[..1] };
        for member in owners.iter().chain(&plan.leaving) {
            self.send_to(member.id, &Message::Entered { epoch, link_bytes_per_s: self.fetch.link_bytes_per_s() });
        }
        if let Some(id) = self.id {
            self.lead.entered(epoch, id, self.fetch.link_bytes_per_s());
        }
        if self.leads() {
            self.lead.begun(self.now);
        }
        self.granted_by_next();
        self.release_early();
    }

    pub(super) fn ticked(&mut self, epoch: u32, tick: u64, busy: Duration) {
        let now = self.now;
        if let Some(running) = self.running.as_mut().filter(|running| running.plan.epoch == epoch) {
            running.tick = running.tick.max(tick);
            running.busy = busy;
            running.moved_at = now;
        }
    }

    /// A member that owns nothing tells how fast it would be.
    pub(super) fn measured_itself(&mut self, points_per_s: f64) {
        let Some(plan) = self.decided.clone() else { return };
        let message = Message::Speed { points_per_s };
        if self.id == Some(plan.coordinator()) {
            let identity = self.config.identity.clone();
            self.told_to_lead(&identity, message);
        } else {
            self.send_to(plan.coordinator(), &message);
        }
    }

    pub(super) fn node_report(&mut self, epoch: u32, bytes: Bytes) {
        if bytes.len() > REPORT_BYTES_MAX {
            return self.misuse("a report above its limit");
        }
        if let Some(running) = self.running.as_mut().filter(|running| running.plan.epoch == epoch) {
            running.report = Some(bytes);
        }
    }

    /// Tells the coordinator how far this member is.
    pub(super) fn pace(&mut self, force: bool) {
        let now = self.now;
        self.pace_fetching();
        let Some(running) = self.running.as_mut().filter(|running| running.exchanges.is_some()) else { return };
        let starved = running.tick >= running.until && running.tick != running.paced_tick;
        let due = running.tick != running.paced_tick && running.paced_at + PACE_EVERY <= now;
        let quiet = running.paced_at + PACE_EVERY * 10 <= now;
        if !(force || starved || due || quiet) {
            return;
        }
        running.paced_at = now;
        running.paced_tick = running.tick;
        let waiting = running.exchanges.as_ref().is_some_and(Exchanges::is_waiting) || running.tick >= running.until;
        let busy_us = u64::try_from(running.busy.as_micros()).unwrap_or(u64::MAX);
        let message = Message::Pace { epoch: running.plan.epoch, tick: running.tick, busy_us, waiting };
        if running.me == PeerIndex::COORDINATOR {
            let identity = self.config.identity.clone();
            self.told_to_lead(&identity, message);
        } else {
            let coordinator = running.plan.coordinator();
            self.send_to(coordinator, &message);
        }
    }

    /// Tells the coordinator of an epoch that is yet to be entered that its parts arrive.
    fn pace_fetching(&mut self) {
        let Some(plan) = self.decided.clone() else { return };
        let is_inside = self.running.as_ref().is_some_and(|running| running.plan.epoch >= plan.epoch && running.exchanges.is_some());
        if is_inside || self.fetched_said == self.fetch.arrived() || self.fetched_at + PACE_EVERY * 10 > self.now {
            return;
        }
        self.fetched_said = self.fetch.arrived();
        self.fetched_at = self.now;
        let message = Message::Pace { epoch: plan.epoch, tick: plan.tick, busy_us: 0, waiting: true };
        self.send_to(plan.coordinator(), &message);
    }

    pub(super) fn pace_deadline(&self) -> Option<Duration> {
        let running = self.running.as_ref().filter(|running| running.exchanges.is_some())?;
        Some(running.paced_at + if running.tick == running.paced_tick { PACE_EVERY * 10 } else { PACE_EVERY })
    }

    /// The coordinator's grant.
    pub(super) fn horizon(
        &mut self,
        identity: &str,
        epoch: u32,
        until: u64,
        snapshots: Vec<u64>,
        complete: Option<Version>,
    ) -> Result<(), Violation> {
        if self.place_of(identity, epoch) != Some(PeerIndex::COORDINATOR) {
            return Ok(());
        }
        self.granted(until, snapshots, complete);
        Ok(())
    }

    /// The tick at which the next epoch is to begin is granted with it: who enters late may have heard of no horizon.
    pub(super) fn granted_by_next(&mut self) {
        let epoch = self.running.as_ref().map(|running| running.plan.epoch);
        let next = self.decided.as_ref().filter(|next| next.hashes.is_empty()).and_then(|next| next.version());
        if let Some(version) = next.filter(|version| Some(version.epoch) == epoch) {
            self.granted(version.tick, vec![version.tick], None);
        }
    }

    pub(super) fn granted(&mut self, until: u64, snapshots: Vec<u64>, complete: Option<Version>) {
        let now = self.now;
        let Some(running) = &mut self.running else { return };
        let (taken, is_shadow) = (running.taken, running.plan.is_shadow(running.me));
        // A tick that was granted may have been begun.
        let granted = running.until;
        let mut changed = until > running.until;
        if changed {
            running.until = until;
            running.moved_at = now;
        }
        for tick in snapshots {
            if taken.is_none_or(|taken| tick > taken) && tick >= granted && running.due.len() < wire::SNAPSHOTS_MAX {
                changed |= running.due.insert(tick);
            }
            // A shadow keeps its share of what it is yet to compute.
            let version = Version { epoch: running.plan.epoch, tick };
            if is_shadow && running.keeping.is_none_or(|(keeping, _)| keeping < version) {
                running.keeping = Some((version, false));
                self.shelf.look_again();
            }
        }
        if changed {
            let (epoch, until) = (running.plan.epoch, running.until);
            let snapshots = running.due.iter().copied().collect();
            self.outputs.push_back(Output::Pace { epoch, until, snapshots });
        }
        if let Some(version) = complete {
            self.completed(version);
        }
    }
}
