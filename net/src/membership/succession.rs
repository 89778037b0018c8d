//! From one epoch to the next: who cannot be counted on, who proposes what, and how a decided epoch is entered.
//!
//! ```text
//!  suspect ─► trouble ─► the lowest member that is linked proposes ─► Prepare, Promise (with holdings) ─► a plan
//!                    └─► too few are linked: orphaned; dial the missing; give up after a while
//!  decided ─► planned: the running epoch goes on to the plan's tick and is snapshotted there
//!         └─► after a loss: the node abandons what it computes
//!          ─► fetch what is owned and not held ─► Enter ─► Entered ─► exchanges begin
//! ```
//!
//! A plan after a loss begins from the newest snapshot of which the proposer knows every hash and of which the promises
//! together hold every part. Who is left out of it: those that did not promise; and where two members cannot reach each
//! other, the one that more cannot reach, once the accused has been heard since: it may be gone, and its accuser was the first to know.
//! Members promise nothing to one that proposes while a lower one is within reach: of three, one that is being turned away would
//! decide with the third that it stays.
//!
//! Invariants: a member enters an epoch only when it holds every part that it owns; whatever the node says of an epoch
//! that is not the running one changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peercompute_buffers::digest::tile_hash;

use super::agree::{Accepted, Acceptor, Ballot, Proposal, is_quorum};
use super::fetch::Need;
use super::plan::{EpochPlan, MemberId, Origin, Version};
use super::wire::{Holding, Message, Purpose};
use super::{Member, MemberError, Notice, Output, PartId, Running};
use crate::core::{LinkId, Violation};
use crate::ownership::PeerIndex;
use crate::wire::RefuseReason;

/// Between the first suspicion and a proposal: others may suspect as well.
const GRACE: Duration = Duration::from_millis(30);
/// Between two attempts at the same question.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Between two rounds after a higher one was met; drawn up to this.
const ROUND_PAUSE_MS: u64 = 200;

/// This member's attempt at a successor.
#[derive(Debug)]
pub(super) struct Attempt {
    proposal: Proposal,
    /// What those who promised hold.
    holdings: BTreeMap<MemberId, Vec<Holding>>,
    asked_at: Duration,
    begun_at: Duration,
    /// A higher ballot was met: the next round begins then.
    again_at: Option<Duration>,
}

impl Member {
    pub(super) fn forget_succession(&mut self) {
        self.acceptor = Acceptor::default();
        self.attempt = None;
        self.suspects.clear();
        self.barred.clear();
        self.reports.clear();
        self.told.clear();
        self.deferred = None;
        self.trouble_at = None;
        self.parts_missing = false;
    }

    /// A member of the newest epoch cannot be counted on.
    pub(super) fn suspect(&mut self, id: MemberId, reason: &str) {
        let Some(plan) = self.decided.as_ref().filter(|plan| plan.index_of(id).is_some()) else { return };
        if Some(id) == self.id || self.suspects.contains_key(&id) {
            return;
        }
        let name = plan.roster.iter().find(|member| member.id == id).map(|member| member.name.clone()).unwrap_or_default();
        self.suspects.insert(id, reason.to_owned());
        self.trouble_at.get_or_insert(self.now);
        self.notice(Notice::Lost { id, name, reason: reason.to_owned() });
    }

    /// Something of a member's was lost, though it is there.
    pub(super) fn trouble(&mut self, id: MemberId) {
        if self.decided.as_ref().is_some_and(|plan| plan.index_of(id).is_some()) {
            self.trouble_at.get_or_insert(self.now);
        }
    }

    pub(super) fn told_suspect(&mut self, identity: &str, epoch: u32, accused: MemberId, text: String) {
        let Some(plan) = self.decided.clone().filter(|plan| plan.epoch == epoch && plan.index_of(accused).is_some()) else { return };
        let Some(accuser) = plan.member_of(identity).map(|member| member.id) else { return };
        if Some(accused) == self.id {
            // It cannot reach this one, though this one hears it: that link is of no use.
            if let Some(link) = self.links.to(identity) {
                self.drop_link(link, &format!("cannot count on this peer: {text}"));
            }
            return;
        }
        if accuser != accused {
            self.reports.entry((accuser, accused)).or_insert(self.now);
        }
        self.trouble_at.get_or_insert(self.now);
    }

    fn roster_ids(plan: &EpochPlan) -> Vec<MemberId> {
        plan.roster.iter().map(|member| member.id).collect()
    }

    fn is_linked(&self, id: MemberId) -> bool {
        Some(id) == self.id || (!self.suspects.contains_key(&id) && self.link_to(id).is_some())
    }

    /// Finds a successor where the newest epoch needs one.
    pub(super) fn advance_succession(&mut self) {
        let (Some(plan), Some(me)) = (self.decided.clone(), self.id) else { return };
        if plan.index_of(me).is_none() || !(std::mem::take(&mut self.members_changed) || self.trouble_at.is_some()) {
            return;
        }
        // A member that never was linked, because both came in together, counts as lost after a while.
        let unlinked: Vec<MemberId> = Self::roster_ids(&plan).into_iter().filter(|id| !self.is_linked(*id)).collect();
        for id in &unlinked {
            self.dial_member(&plan, *id);
        }
        if self.trouble_at.is_none() {
            if unlinked.is_empty() {
                self.orphaned_at = None;
            } else if self.decided_for() > self.config.tuning.silence_min {
                for id in unlinked {
                    self.suspect(id, "was never linked");
                }
            }
            return;
        }
        let linked: Vec<MemberId> = Self::roster_ids(&plan).into_iter().filter(|id| self.is_linked(*id)).collect();
        if !is_quorum(&plan.voters(), |id| linked.contains(&id)) {
            return self.orphaned(&plan, &linked);
        }
        self.orphaned_at = None;
        self.orphaned_told = false;
        let proposer = linked.first().copied().unwrap_or(me);
        if let Some((identity, epoch, ballot)) = self.deferred.take_if(|(.., ballot)| ballot.member <= proposer.0) {
            self.asked_to_promise(&identity, epoch, ballot);
        }
        if proposer != me {
            self.attempt = None;
            self.tell_suspects(&plan, proposer);
            // It may not see that it should: it hears nobody, or counts on nobody.
            let heard = self.trouble_at.unwrap_or(self.now).max(self.asked_at);
            let is_accused = self.reports.keys().any(|(_, accused)| *accused == proposer);
            let limit = if is_accused { self.proposer_limit() / 4 } else { self.proposer_limit() };
            if heard + limit <= self.now {
                self.bar(proposer, "proposes no epoch, though one is needed");
            }
            return;
        }
        if self.trouble_at.is_some_and(|since| since + GRACE <= self.now) {
            self.propose_recovery(&plan, me, &linked);
        }
    }

    /// How long a needed proposal may be waited for.
    fn proposer_limit(&self) -> Duration {
        (self.config.tuning.silence_min * 3).max(self.links.round_trip_max() * 8)
    }

    /// How long missing parts are waited for.
    fn patience(&self) -> Duration {
        self.config.tuning.silence_min * 5
    }

    /// How long ago the newest epoch was decided.
    fn decided_for(&self) -> Duration {
        self.now.saturating_sub(self.lead.decided_at)
    }

    fn dial_member(&mut self, plan: &EpochPlan, id: MemberId) {
        let Some(member) = plan.roster.iter().find(|member| member.id == id) else { return };
        // One of the two dials: the one that came later. In a half that cannot go on, both do.
        let is_mine = self.id > Some(id) || self.orphaned_at.is_some() || self.parts_missing;
        if is_mine && self.links.to(&member.identity).is_none() && !self.links.is_dialling(&member.identity) {
            self.links.dial(member.addresses.clone(), Some(member.identity.clone()), Purpose::Link, self.now);
        }
    }

    fn orphaned(&mut self, plan: &EpochPlan, linked: &[MemberId]) {
        let since = *self.orphaned_at.get_or_insert(self.now);
        self.attempt = None;
        let members = plan.roster.len();
        if !self.orphaned_told && since + Duration::from_millis(200) <= self.now {
            self.orphaned_told = true;
            self.notice(Notice::Orphaned { linked: linked.len(), members });
        }
        if since + self.config.tuning.orphan_limit <= self.now {
            let missing = plan.roster.iter().filter(|member| !linked.contains(&member.id)).map(|member| member.name.as_str());
            let missing = missing.take(16).collect::<Vec<_>>().join(", ");
            let waited_ms = u64::try_from(self.now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
            self.fail(MemberError::Orphaned { linked: linked.len(), members, waited_ms, missing });
        }
    }

    fn tell_suspects(&mut self, plan: &EpochPlan, proposer: MemberId) {
        let me = self.id.unwrap_or(MemberId(0));
        if self.suspects.is_empty() && self.told.insert((proposer, me)) {
            // Nobody is to blame, and an epoch is needed all the same.
            let text = "lost frames with a link that was replaced".to_owned();
            self.send_to(proposer, &Message::Suspect { epoch: plan.epoch, member: me, text });
        }
        let news: Vec<(MemberId, String)> =
            self.suspects.iter().filter(|(id, _)| !self.told.contains(&(proposer, **id))).map(|(id, text)| (*id, text.clone())).collect();
        for (member, text) in news {
            self.told.insert((proposer, member));
            self.send_to(proposer, &Message::Suspect { epoch: plan.epoch, member, text });
        }
    }

    fn propose_recovery(&mut self, plan: &Arc<EpochPlan>, me: MemberId, linked: &[MemberId]) {
        let now = self.now;
        // The coordinator's own first proposal is being voted on: a lost voter is met by a round of its own.
        let is_first = self.attempt.as_ref().is_some_and(|attempt| attempt.proposal.ballot.round == 0);
        let is_due = self.attempt.as_ref().is_none_or(|attempt| attempt.again_at.is_some_and(|at| at <= now)) || is_first;
        if is_due {
            let own = self.attempt.as_ref().map_or(0, |attempt| attempt.proposal.ballot.round);
            let round = self.acceptor.promised().map_or(0, |ballot| ballot.round).max(own) + 1;
            let ballot = Ballot { round, member: me.0 };
            let mut proposal = Proposal::new(ballot, None);
            let mut holdings = BTreeMap::new();
            if let Ok(accepted) = self.acceptor.prepare(ballot) {
                proposal.promised(me, accepted);
                holdings.insert(me, self.shelf.holdings());
            }
            self.attempt = Some(Attempt { proposal, holdings, asked_at: now, begun_at: now, again_at: None });
            self.broadcast(plan, &Message::Prepare { epoch: plan.epoch, ballot });
        }
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.asked_at + ASK_AGAIN <= now {
            attempt.asked_at = now;
            let ballot = attempt.proposal.ballot;
            let message = match attempt.proposal.value.clone() {
                Some(value) => Message::Accept { epoch: plan.epoch, ballot, value },
                None => Message::Prepare { epoch: plan.epoch, ballot },
            };
            // Who does not answer may not know this epoch: whoever was to tell it is gone.
            let mute: Vec<MemberId> = linked.iter().copied().filter(|id| !attempt.proposal.has_promise(*id)).collect();
            for id in mute.into_iter().filter(|id| *id != me) {
                self.send_to(id, &Message::Decided { plan: plan.to_bytes() });
            }
            self.broadcast(plan, &message);
        }
        let voters = plan.voters();
        let Some(attempt) = &self.attempt else { return };
        let all_promised = linked.iter().all(|id| attempt.proposal.has_promise(*id));
        if !all_promised && attempt.proposal.value.is_none() && attempt.begun_at + self.proposer_limit() <= now {
            let mute: Vec<MemberId> = linked.iter().copied().filter(|id| !attempt.proposal.has_promise(*id)).collect();
            for id in mute {
                self.bar(id, "lives, and answers no proposal");
            }
            return;
        }
        if attempt.again_at.is_some() || attempt.proposal.value.is_some() || !all_promised || !attempt.proposal.is_prepared(&voters) {
            return;
        }
        let value = match attempt.proposal.bound_value() {
            Some(value) => value,
            None if !self.are_judged(linked) => return,
            None => match self.recovery_plan(plan, linked) {
                Ok(next) => next.to_bytes(),
                Err(_) if self.trouble_at.is_some_and(|since| since + self.patience() > now) => {
                    // Whoever holds them may only be out of reach.
                    self.parts_missing = true;
                    if let Some(attempt) = &mut self.attempt {
                        attempt.again_at = Some(now + ASK_AGAIN);
                    }
                    return;
                }
                Err(error) => {
                    let text = error.to_string();
                    self.broadcast(plan, &Message::Refuse { reason: RefuseReason::PartsLost, text });
                    return self.fail(error);
                }
            },
        };
        self.propose(plan, me, value);
    }

    /// Has a value voted on, under the attempt's ballot.
    fn propose(&mut self, plan: &Arc<EpochPlan>, me: MemberId, value: Bytes) {
        let now = self.now;
        let Some(attempt) = &mut self.attempt else { return };
        let ballot = attempt.proposal.ballot;
        attempt.proposal.value = Some(value.clone());
        attempt.asked_at = now;
        self.broadcast(plan, &Message::Accept { epoch: plan.epoch, ballot, value: value.clone() });
        if self.acceptor.accept(ballot, value).is_ok() {
            self.count_vote(me);
        }
    }

    /// Coordinator: proposes a planned successor; nobody is suspected.
    pub(super) fn propose_planned(&mut self, plan: &Arc<EpochPlan>, next: &EpochPlan) {
        let Some(me) = self.id else { return };
        let ballot = Ballot { round: 0, member: me.0 };
        self.attempt = Some(Attempt {
            proposal: Proposal::new(ballot, None),
            holdings: BTreeMap::new(),
            asked_at: self.now,
            begun_at: self.now,
            again_at: None,
        });
        self.propose(plan, me, next.to_bytes());
    }

    /// Says something to every other member of an epoch that is linked.
    pub(super) fn broadcast(&mut self, plan: &EpochPlan, message: &Message) {
        for member in &plan.roster {
            // Nobody is linked with itself.
            if let Some(link) = self.links.to(&member.identity) {
                self.send(link, message);
            }
        }
    }

    pub(super) fn asked_to_promise(&mut self, identity: &str, epoch: u32, ballot: Ballot) {
        if self.decided.as_ref().is_some_and(|plan| epoch > plan.epoch && plan.member_of(identity).is_some()) {
            // An epoch was decided that this member was not told of; who asks will.
            self.trouble_at.get_or_insert(self.now);
        }
        let Some(plan) = self.voting_on(identity, epoch) else { return };
        if plan.index_of(MemberId(ballot.member)).is_none() || plan.member_of(identity).map(|member| member.id.0) != Some(ballot.member) {
            return;
        }
        if self.defers(&plan, ballot) {
            self.deferred = Some((identity.to_owned(), epoch, ballot));
            return;
        }
        let message = match self.acceptor.prepare(ballot) {
            Ok(accepted) => Message::Promise { epoch, ballot, accepted, holdings: self.shelf.holdings() },
            Err(ballot) => Message::Nack { epoch, ballot },
        };
        self.asked_at = self.now;
        // Somebody lower proposes: what this one began is moot.
        self.trouble_at.get_or_insert(self.now);
        self.answer(identity, &message);
    }

    /// Whether somebody below a proposer is within reach, and is to propose instead: it may be about to turn that one away. It has
    /// as long as one that is accused: the proposer does not reach it.
    fn defers(&mut self, plan: &EpochPlan, ballot: Ballot) -> bool {
        let proposer = MemberId(ballot.member);
        let lowest = plan.roster.iter().map(|member| member.id).find(|id| self.is_linked(*id)).filter(|id| *id < proposer);
        let Some(lowest) = lowest.filter(|_| self.acceptor.promised() != Some(ballot)) else { return false };
        self.trouble_at.get_or_insert(self.now);
        if Some(lowest) != self.id {
            self.reports.entry((proposer, lowest)).or_insert(self.now);
        }
        true
    }

    /// The plan whose successor is asked about; where a newer one is decided, the asker is told.
    fn voting_on(&mut self, identity: &str, epoch: u32) -> Option<Arc<EpochPlan>> {
        let plan = self.decided.clone()?;
        if epoch < plan.epoch {
            self.answer(identity, &Message::Decided { plan: plan.to_bytes() });
        }
        (epoch == plan.epoch && self.id.is_some_and(|id| plan.index_of(id).is_some())).then_some(plan)
    }

    fn answer(&mut self, identity: &str, message: &Message) {
        if let Some(link) = self.links.to(identity) {
            self.send(link, message);
        }
    }

    pub(super) fn promised(&mut self, identity: &str, epoch: u32, ballot: Ballot, accepted: Option<Accepted>, holdings: Vec<Holding>) {
        let Some(from) = self.decided.as_ref().filter(|plan| plan.epoch == epoch).and_then(|plan| Some(plan.member_of(identity)?.id)) else { return };
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.proposal.ballot == ballot && attempt.proposal.value.is_none()) {
            attempt.proposal.promised(from, accepted);
            attempt.holdings.insert(from, holdings);
        }
    }

    pub(super) fn asked_to_accept(&mut self, identity: &str, epoch: u32, ballot: Ballot, value: Bytes) {
        let Some(plan) = self.voting_on(identity, epoch) else { return };
        if plan.member_of(identity).map(|member| member.id.0) != Some(ballot.member) || (ballot.round == 0 && plan.coordinator().0 != ballot.member) {
            return;
        }
        if ballot.round > 0 && self.defers(&plan, ballot) {
            return;
        }
        self.asked_at = self.now;
        // What cannot be followed gets no vote.
        let message = match EpochPlan::from_bytes(value.clone(), &self.config.parts) {
            Ok(next) if next.epoch == epoch + 1 && next.run == self.run => match self.acceptor.accept(ballot, value) {
                Ok(()) => Message::Accepted { epoch, ballot },
                Err(ballot) => Message::Nack { epoch, ballot },
            },
            _ => {
                if let Some(link) = self.links.to(identity) {
                    self.offend(link, &Violation::BadRoster { what: "a proposal that cannot be followed" });
                }
                return;
            }
        };
        self.answer(identity, &message);
    }

    pub(super) fn vote(&mut self, identity: &str, epoch: u32, ballot: Ballot) {
        let Some(from) = self.decided.as_ref().filter(|plan| plan.epoch == epoch).and_then(|plan| Some(plan.member_of(identity)?.id)) else { return };
        if self.attempt.as_ref().is_some_and(|attempt| attempt.proposal.ballot == ballot) {
            self.count_vote(from);
        }
    }

    fn count_vote(&mut self, from: MemberId) {
        let Some(plan) = self.decided.clone() else { return };
        let voters = plan.voters();
        let Some(attempt) = &mut self.attempt else { return };
        let Some(value) = attempt.proposal.value.clone() else { return };
        if attempt.proposal.accepted(from, &voters)
            && let Ok(next) = EpochPlan::from_bytes(value.clone(), &self.config.parts)
        {
            self.tell_decided(&plan, &next, &value);
            self.learn(next);
        }
    }

    /// Tells everybody whom it concerns: the members of both epochs.
    fn tell_decided(&mut self, plan: &EpochPlan, next: &EpochPlan, value: &Bytes) {
        let mut told = BTreeSet::new();
        for member in plan.roster.iter().chain(&next.roster) {
            if member.identity != self.config.identity
                && let Some(link) = self.links.to(&member.identity)
                && told.insert(link)
            {
                self.send(link, &Message::Decided { plan: value.clone() });
            }
        }
    }

    pub(super) fn nacked(&mut self, epoch: u32, ballot: Ballot) {
        let pause = Duration::from_millis(self.random.u64(20..=ROUND_PAUSE_MS));
        let at = self.now + pause;
        if self.decided.as_ref().is_none_or(|plan| plan.epoch != epoch) {
            return;
        }
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.proposal.ballot < ballot && attempt.again_at.is_none()) {
            attempt.again_at = Some(at);
            // The next round is above the one that was met.
            attempt.proposal.ballot.round = attempt.proposal.ballot.round.max(ballot.round);
            self.trouble_at.get_or_insert(self.now);
        }
    }

    /// The successor after a loss, from what the promises tell.
    fn recovery_plan(&self, plan: &EpochPlan, linked: &[MemberId]) -> Result<EpochPlan, MemberError> {
        let stay = self.who_stays(linked);
        let holdings: BTreeMap<MemberId, &Vec<Holding>> = match &self.attempt {
            Some(attempt) => attempt.holdings.iter().filter(|(id, _)| stay.contains(id)).map(|(id, held)| (*id, held)).collect(),
            None => BTreeMap::new(),
        };
        let parts = &self.config.parts;
        let holders = |version: Version, part: PartId| {
            let holds = move |held: &&Vec<Holding>| held.iter().any(|h| h.version == version && h.has(part));
            holdings.iter().filter(move |(_, held)| holds(held)).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let all_parts = || (0..parts.count() as u32).map(PartId);
        let mut roster: Vec<_> = plan.roster.iter().filter(|member| stay.contains(&member.id)).cloned().collect();
        let found = self.shelf.known().find(|version| all_parts().all(|part| !holders(*version, part).is_empty()));
        let version = match found {
            Some(version) => Some(version),
            // Nothing was ever safe: it begins once more, with those who can.
            None if self.shelf.complete().is_none() && self.is_seeding(plan) => {
                roster.retain(|member| member.seeds);
                None
            }
            None => {
                let version = self.shelf.complete().or(self.shelf.newest()).unwrap_or(Version { epoch: 0, tick: 0 });
                let lost: Vec<PartId> = all_parts().filter(|part| holders(version, *part).is_empty()).collect();
                let first = lost.first().copied().unwrap_or(PartId(0));
                let what = parts.tile_of(first).map_or("the tables".to_owned(), |(grid, tile)| format!("tile {} of grid {grid}", tile.0));
                return Err(MemberError::PartsLost { lost: lost.len(), first, what, tick: version.tick });
            }
        };
        let current: Vec<Option<PeerIndex>> = plan
            .owners
            .iter()
            .map(|owner| {
                let id = plan.member(*owner)?.id;
                roster.iter().position(|member| member.id == id).map(|at| PeerIndex(at as u16))
            })
            .collect();
        let owners = self.lead.owners(parts, &current, self.lead.loads(&roster));
        let (mut sources, mut hashes) = (Vec::new(), Vec::new());
        if let Some(version) = version {
            hashes = self.shelf.hashes(version).unwrap_or_default();
            for part in all_parts() {
                let holders = holders(version, part);
                let owner = owners.get(part.at()).and_then(|owner| roster.get(owner.at())).map(|member| member.id);
                let own = owner.filter(|owner| holders.contains(owner));
                // Spread over all holders.
                sources.push(own.unwrap_or_else(|| holders[part.at() % holders.len()]));
            }
        }
        Ok(EpochPlan {
            epoch: plan.epoch + 1,
            run: plan.run,
            tick: version.map_or(0, |version| version.tick),
            end: plan.end,
            origin: version.map_or(Origin::Init, Origin::Snapshot),
            replicas: plan.replicas,
            next_member: plan.next_member,
            roster,
            leaving: Vec::new(),
            owners,
            shadows: Vec::new(),
            sources,
            hashes,
            is_paused: plan.is_paused,
            changes: plan.changes.clone(),
            task: plan.task.clone(),
        })
    }

    fn is_seeding(&self, plan: &EpochPlan) -> bool {
        plan.origin == Origin::Init && self.config.seeds
    }

    /// Whether all of the linked that somebody cannot count on have said something since, and not only before: who is gone is out of reach of
    /// everybody soon, and must not cost its accuser the place.
    fn are_judged(&self, linked: &[MemberId]) -> bool {
        let mut between = self.reports.iter().filter(|((a, b), _)| linked.contains(a) && linked.contains(b));
        between.all(|((_, accused), told_at)| {
            let link = self.link_to(*accused).and_then(|link| self.links.all.get(&link));
            link.is_none_or(|link| link.heard_at >= *told_at + link.round_trip())
        })
    }

    /// Those among the linked who can all count on each other.
    fn who_stays(&self, linked: &[MemberId]) -> BTreeSet<MemberId> {
        let mut stay: BTreeSet<MemberId> = linked.iter().copied().collect();
        loop {
            let mut bad: BTreeMap<MemberId, usize> = BTreeMap::new();
            for (a, b) in self.reports.keys().filter(|(a, b)| stay.contains(a) && stay.contains(b)) {
                *bad.entry(*a).or_default() += 1;
                *bad.entry(*b).or_default() += 1;
            }
            let own = self.id;
            let worst = bad.into_iter().filter(|(id, _)| Some(*id) != own).max_by_key(|(id, count)| (*count, *id));
            match worst {
                Some((id, _)) => stay.remove(&id),
                None => return stay,
            };
        }
    }

    pub(super) fn told_decided(&mut self, link: LinkId, bytes: Bytes) {
        let plan = match EpochPlan::from_bytes(bytes, &self.config.parts) {
            Ok(plan) => plan,
            Err(error) => return self.offend(link, &Violation::Wire(error)),
        };
        // A joiner has only its coordinator's word; a member, that of those it agrees with.
        let identity = self.links.all.get(&link).map(|link| link.identity.clone()).unwrap_or_default();
        let is_known = self.id.is_none() || self.member_id(&identity).is_some();
        let is_invited = self.id.is_some() || self.joining_with(&identity);
        let is_ours = self.run == [0; 16] || plan.run == self.run;
        if !(is_known && is_invited && is_ours) {
            return;
        }
        // In an undisturbed epoch it comes from the coordinator, or it is what this member voted for.
        let from = self.member_id(&identity);
        let coordinator = self.decided.as_ref().map(|decided| decided.coordinator());
        let is_voted = self.acceptor.accepted_value().is_some_and(|value| *value == plan.to_bytes());
        let is_newer = self.decided.as_ref().is_none_or(|decided| plan.epoch > decided.epoch);
        if is_newer && self.id.is_some() && self.trouble_at.is_none() && from != coordinator && !is_voted {
            return self.offend(link, &Violation::Unexpected { message: "decided" });
        }
        self.learn(plan);
    }

    /// A successor has been decided.
    pub(super) fn learn(&mut self, plan: EpochPlan) {
        if self.decided.as_ref().is_some_and(|decided| plan.epoch <= decided.epoch) {
            return;
        }
        let me = plan.member_of(&self.config.identity).map(|member| member.id);
        if self.id.is_none() && me.is_none_or(|id| plan.index_of(id).is_none()) {
            // It was decided without this joiner, which waits for the next.
            return;
        }
        if let (Some(own), None) = (self.id, me) {
            debug_assert!(own.0 < u32::MAX);
            self.notice(Notice::Excluded { epoch: plan.epoch });
            if self.leaving_at.is_some() {
                return self.end(Output::Left);
            }
            return self.rejoin(&plan);
        }
        if self.id.is_none() {
            self.id = me;
            self.links.dials.clear();
            if let Some(id) = me {
                self.notice(Notice::Joined { id });
            }
        }
        self.run = plan.run;
        let plan = Arc::new(plan);
        let computed = self.running.as_ref().map_or(plan.tick, |running| running.tick);
        self.notice(Notice::Epoch { epoch: plan.epoch, tick: plan.tick, members: plan.roster.len(), replayed: computed.saturating_sub(plan.tick) });
        if let Some(at) = self.id.and_then(|id| plan.index_of(id)) {
            let bytes: u64 = plan.computed(at).map(|part| u64::from(self.config.parts.bytes(part))).sum();
            let memory = plan.member(at).map_or(0, |member| member.memory);
            if bytes > memory {
                self.notice(Notice::Overcommitted { bytes, memory });
            }
        }
        self.shelf.begin(plan.version());
        if let Some(version) = plan.version() {
            for (part, hash) in (0..).map(PartId).zip(&plan.hashes) {
                self.shelf.learn(version, part, *hash);
            }
        }
        self.fetch.clear();
        // Answers may have been lost with a link.
        self.audits.clear();
        let suspects = std::mem::take(&mut self.suspects);
        self.decided = Some(plan.clone());
        self.granted_by_next();
        self.offer_newcomers(&plan);
        self.members_changed = true;
        self.forget_succession();
        self.entered.clear();
        self.lead.decided(&plan, self.now);
        if plan.hashes.is_empty() && self.running.as_ref().is_some_and(|running| running.is_lossy && plan.version().is_some()) {
            // It begins where the running epoch never gets to.
            self.trouble_at.get_or_insert(self.now);
        }
        // Who is in it is given another chance, if it can be reached.
        for (id, reason) in suspects.into_iter().filter(|(id, _)| plan.index_of(*id).is_some()) {
            if self.link_to(id).is_none() {
                self.suspects.insert(id, reason);
                self.trouble_at.get_or_insert(self.now);
            }
        }
        self.links.dials.retain(|dial| dial.identity.as_ref().is_some_and(|identity| plan.member_of(identity).is_some()));
        for member in &plan.roster {
            if Some(member.id) != self.id && self.links.to(&member.identity).is_none() {
                self.dial_member(&plan, member.id);
            }
        }
        self.release_early();
    }

    /// Enters the newest epoch, as soon as that can be.
    pub(super) fn advance_transition(&mut self) {
        let Some(plan) = self.decided.clone() else { return };
        if self.running.as_ref().is_some_and(|running| running.plan.epoch >= plan.epoch) {
            return;
        }
        let Some(me) = self.id.and_then(|id| plan.index_of(id)) else { return };
        let mut parts = Vec::new();
        if let Some(version) = plan.version() {
            // Planned, and not there yet: the running epoch goes on to its tick.
            let is_on_its_way = |running: &Running| running.plan.epoch == version.epoch && running.taken.is_none_or(|taken| taken < version.tick);
            if plan.hashes.is_empty() && self.running.as_ref().is_some_and(is_on_its_way) {
                return;
            }
            let computed: Vec<PartId> = plan.computed(me).chain([self.config.parts.tables()]).collect();
            // All that is missing is asked for before anything is waited for.
            parts = computed.iter().filter_map(|part| Some((*part, self.obtain(version, *part, &plan)?))).collect();
            if parts.len() < computed.len() {
                return;
            }
        }
        self.fetch.retain(|_, need| need != Need::Enter);
        // What others wait for is still offered; after a loss nobody does.
        self.unhashed.keep(plan.version());
        self.backlogs.begin(&plan, me, |id| self.entered.contains(&id));
        self.running = Some(Running {
            me,
            places: (0u16..).map(PeerIndex).zip(&plan.roster).map(|(at, member)| (member.identity.clone(), at)).collect(),
            exchanges: None,
            tick: plan.tick,
            busy: Duration::ZERO,
            until: plan.tick,
            due: BTreeSet::new(),
            taken: None,
            keeping: None,
            paced_at: self.now,
            paced_tick: u64::MAX,
            moved_at: self.now,
            report: None,
            done_said: false,
            is_lossy: false,
            unsent: Vec::new(),
            shadowed: None,
            plan: plan.clone(),
        });
        self.outputs.push_back(Output::Enter { plan, me, parts });
    }

    /// A part of the version that an epoch begins from; wanted, where it is not here.
    fn obtain(&mut self, version: Version, part: PartId, plan: &EpochPlan) -> Option<Bytes> {
        // The tables wait for their hash: it is held against the others'.
        let is_tables = part == self.config.parts.tables();
        let computed = if is_tables { None } else { self.unhashed.get(version, part).or(self.shadowed(version, part)) };
        if let Some(bytes) = self.shelf.get(version, part).or(computed) {
            return Some(bytes.clone());
        }
        let hash = self.shelf.hash(version, part)?;
        if let Some(bytes) = self.shadowed(version, part).filter(|bytes| is_tables && tile_hash(bytes) == hash).cloned() {
            self.shelf.put(version, part, hash, bytes.clone());
            return Some(bytes);
        }
        if let Some(bytes) = self.shelf.by_hash(part, &hash).cloned() {
            self.shelf.put(version, part, hash, bytes.clone());
            return Some(bytes);
        }
        if !self.fetch.wants(version, part) {
            let source = plan.sources.get(part.at()).copied();
            // Its source first, then everybody: one of them may replicate it.
            let me = self.id;
            let others = plan.roster.iter().chain(&plan.leaving).map(|member| member.id);
            let sources = source.into_iter().chain(others).filter(|id| Some(*id) != me).collect();
            self.fetch.want(version, part, self.config.parts.bytes(part), Need::Enter, sources, self.now);
        }
        None
    }

    /// Whether this member coordinates the newest epoch, or is about to begin the first.
    pub(super) fn leads(&self) -> bool {
        match &self.decided {
            Some(plan) => self.id == Some(plan.coordinator()),
            // One that hosted, was left out and joins again has no number, and takes nobody in.
            None => matches!(self.config.role, super::Role::Host { .. }) && self.id.is_some(),
        }
    }

    pub(super) fn succession_deadline(&self) -> Option<Duration> {
        let trouble = self.trouble_at?;
        let grace = (trouble + GRACE > self.now).then_some(trouble + GRACE);
        let asked = self.attempt.as_ref().map(|attempt| attempt.again_at.unwrap_or(attempt.asked_at + ASK_AGAIN));
        let orphaned = self.orphaned_at.map(|since| {
            let told = since + Duration::from_millis(200);
            if self.orphaned_told { since + self.config.tuning.orphan_limit } else { told }
        });
        let unlinked = self.now + Duration::from_millis(100);
        [grace, asked, orphaned, Some(unlinked)].into_iter().flatten().min()
    }
}
