//! Snapshots: taken by every owner at an agreed tick, offered by hash, pulled by those who keep them.
//!
//! ```text
//!  node ─ Snapshot ─► shelf ─ Offer (hashes) ─► all
//!                       ▲                        │ those whose share it is (rendezvous), those who keep all
//!                       └──── Want ◄─────────────┘
//!                             Chunk ─► shelf ─ all of its share is here ─► Kept ─► coordinator
//!  coordinator: Kept from everybody ─► complete, in its next Horizon ─► older versions go
//! ```
//!
//! Invariants: a part is offered by its owner alone, once for each version; a member says Kept only when it holds its
//! share and knows every hash.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peercompute_buffers::delta::Encoding;
use peercompute_buffers::digest::{Hash, tile_hash};

use super::event::Keep;
use super::fetch::{Need, Step};
use super::plan::{EpochPlan, MemberId, Version};
use super::wire::{CHUNK_BYTES, Message, OFFER_PARTS_MAX};
use super::{Member, MemberInfo, Notice, Output, PartId};
use crate::core::Violation;
use crate::ownership::PeerIndex;

/// The members that replicate a part beside its owner: those of the highest weights (rendezvous hashing, Thaler and
/// Ravishankar, 1998), so that a change of members moves few replicas.
pub(super) fn replicates(plan: &EpochPlan, part: PartId, who: PeerIndex) -> bool {
    let Some(owner) = plan.owners.get(part.at()) else { return false };
    if *owner == who {
        return false;
    }
    // One without room takes nothing; so does one that is about to leave.
    let takes = |member: &&MemberInfo| member.memory > 0;
    let Some(own) = plan.member(who).filter(takes).map(|member| weight(part, member.id)) else { return false };
    let others = (0u16..).zip(&plan.roster).filter(|(at, member)| PeerIndex(*at) != *owner && PeerIndex(*at) != who && takes(member));
    others.filter(|(_, member)| weight(part, member.id) > own).count() < usize::from(plan.replicas)
}

/// Steele, Lea and Flood's SplitMix64 finaliser of the pair; the id breaks ties.
fn weight(part: PartId, id: MemberId) -> (u64, u32) {
    let mut x = (u64::from(part.0) << 32 | u64::from(id.0)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31), id.0)
}

/// Bytes hashed in one go where somebody waits for them: some milliseconds.
const HASHED_AT_ONCE: usize = 8 << 20;
/// … where a shadow does, …
const HASHED_FOR_SHADOWS: usize = 4 << 20;
/// … and where nobody does: less than a round trip, as strips and pings are served in between.
const HASHED_BESIDE: usize = 1 << 20;

/// Own parts of snapshots that are yet to be hashed and offered, in the order in which they are.
#[derive(Debug, Default)]
pub(super) struct Unhashed {
    order: VecDeque<(Version, PartId)>,
    bytes: BTreeMap<(Version, PartId), Bytes>,
}

impl Unhashed {
    fn push(&mut self, version: Version, part: PartId, bytes: Bytes) {
        self.order.push_back((version, part));
        self.bytes.insert((version, part), bytes);
    }

    /// The next part, if it is of this version.
    fn pop(&mut self, version: Version) -> Option<(PartId, Bytes)> {
        let (version, part) = self.order.pop_front_if(|(of, _)| *of == version)?;
        Some((part, self.bytes.remove(&(version, part))?))
    }

    /// The version of the next part.
    fn version(&self) -> Option<Version> {
        self.order.front().map(|(version, _)| *version)
    }

    /// The next part.
    fn front(&self) -> Option<PartId> {
        self.order.front().map(|(_, part)| *part)
    }

    /// A part that waits: what this member computed itself needs no hash to be believed.
    pub(super) fn get(&self, version: Version, part: PartId) -> Option<&Bytes> {
        self.bytes.get(&(version, part))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Forgets all versions but this.
    pub(super) fn keep(&mut self, version: Option<Version>) {
        self.order.retain(|(of, _)| Some(*of) == version);
        self.bytes.retain(|(of, _), _| Some(*of) == version);
    }
}

impl Member {
    /// The node's parts at a tick.
    pub(super) fn node_snapshot(&mut self, epoch: u32, tick: u64, parts: Vec<(PartId, Bytes)>) {
        let Some(running) = self.running.as_mut().filter(|running| running.plan.epoch == epoch) else { return };
        let (plan, me) = (running.plan.clone(), running.me);
        let tables = self.config.parts.tables();
        let expected = plan.computed(me).chain([tables]);
        let fits = |(part, bytes): &(PartId, Bytes)| bytes.len() == self.config.parts.bytes(*part) as usize;
        if !parts.iter().map(|(part, _)| *part).eq(expected) || !parts.iter().all(fits) {
            return self.misuse("a snapshot of other parts than it owns, or of other lengths");
        }
        if running.taken.is_some_and(|taken| tick <= taken) {
            return self.misuse("a snapshot that was taken already");
        }
        running.taken = Some(tick);
        running.due = running.due.split_off(&(tick + 1));
        running.tick = running.tick.max(tick);
        running.moved_at = self.now;
        let version = Version { epoch, tick };
        if running.keeping.is_none_or(|(keeping, _)| keeping < version) {
            running.keeping = Some((version, false));
            self.shelf.look_again();
        }
        if plan.is_shadow(me) {
            // Its owners offer them.
            running.shadowed = Some((version, parts));
            return self.pace(true);
        }
        // What somebody waits for goes first.
        let next = self.decided.clone().filter(|next| next.version() == Some(version));
        let moves = |part: PartId| {
            let Some(next) = &next else { return false };
            let owner = next.owners.get(part.at()).and_then(|owner| next.member(*owner));
            let shadow = plan.shadows.get(part.at()).and_then(|shadow| plan.member(*shadow));
            let is_fetched = owner.is_some_and(|owner| Some(owner.id) != self.id && shadow.map(|shadow| shadow.id) != Some(owner.id));
            is_fetched || next.is_shadowed(part)
        };
        let (first, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(part, _)| *part == tables || moves(*part));
        for (part, bytes) in first.into_iter().chain(rest) {
            self.unhashed.push(version, part, bytes);
        }
        self.pace(true);
    }

    /// Hashes and offers some of the own parts: as much as may go by before pings want an answer.
    pub(super) fn offer_some(&mut self) {
        let Some(running) = self.running.as_ref().filter(|_| !self.unhashed.is_empty()) else { return };
        let plan = running.plan.clone();
        let tables = self.config.parts.tables();
        let Some(version) = self.unhashed.version() else { return };
        // What moves was first; once its own next epoch is entered, nobody waits here.
        let is_waited_for = version.epoch == plan.epoch && self.decided.as_ref().is_some_and(|next| next.version() == Some(version));
        let is_fetched = plan.version() == Some(version) && self.unhashed.front().is_some_and(|part| plan.is_shadowed(part));
        let mut bytes_left = match (is_waited_for, is_fetched) {
            (true, _) => HASHED_AT_ONCE,
            (_, true) => HASHED_FOR_SHADOWS,
            _ => HASHED_BESIDE,
        };
        let mut offers = Vec::new();
        while let Some((part, bytes)) = self.unhashed.pop(version) {
            let hash = tile_hash(&bytes);
            if part == tables && self.shelf.hash(version, part).is_some_and(|known| known != hash) {
                return self.fail(super::MemberError::Stopped {
                    text: "this peer's tables differ from another's: the run is not deterministic on these adapters".to_owned(),
                });
            }
            bytes_left = bytes_left.saturating_sub(bytes.len());
            self.shelf.put(version, part, hash, bytes);
            offers.push((part, hash));
            if bytes_left == 0 || offers.len() == OFFER_PARTS_MAX {
                break;
            }
        }
        for id in self.audience(&plan) {
            self.send_to(id, &Message::Offer { version, parts: offers.clone() });
        }
    }

    /// Offers newcomers what was offered before this member knew of them: a snapshot can be sooner than the decision that begins from it.
    pub(super) fn offer_newcomers(&mut self, next: &EpochPlan) {
        let (Some(running), Some(version)) = (&self.running, next.version()) else { return };
        if version.epoch != running.plan.epoch {
            return;
        }
        let own = running.plan.owned(running.me).chain([self.config.parts.tables()]);
        let offers: Vec<(PartId, Hash)> =
            own.filter(|part| self.shelf.get(version, *part).is_some()).filter_map(|part| Some((part, self.shelf.hash(version, part)?))).collect();
        let newcomers: Vec<MemberId> = next.roster.iter().map(|member| member.id).filter(|id| running.plan.index_of(*id).is_none()).collect();
        for id in newcomers {
            for parts in offers.chunks(OFFER_PARTS_MAX) {
                self.send_to(id, &Message::Offer { version, parts: parts.to_vec() });
            }
        }
    }

    /// Who hears of this member's snapshots: everybody of the running epoch, and of one that is decided.
    fn audience(&self, plan: &EpochPlan) -> Vec<MemberId> {
        let next = self.decided.iter().flat_map(|next| next.roster.iter());
        let mut ids: Vec<MemberId> = plan.roster.iter().chain(next).map(|member| member.id).filter(|id| Some(*id) != self.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(super) fn offered(&mut self, identity: &str, version: Version, parts: Vec<(PartId, Hash)>) -> Result<(), Violation> {
        let tables = self.config.parts.tables();
        self.backlogs.is_in(identity, version.epoch);
        // Its owner under the epoch that took it; a newcomer, which knows no such epoch, goes by the sources of its own.
        let plan = self.plan_of(version.epoch).cloned();
        let next = self.decided.clone().filter(|next| next.version() == Some(version));
        let (Some(from), true) = (self.member_id(identity), plan.is_some() || next.is_some()) else { return Ok(()) };
        if plan.is_none() && next.as_ref().is_some_and(|next| !next.hashes.is_empty()) {
            // After a loss the plan has the hashes, and its sources are any holders: an offer from before is no news.
            return Ok(());
        }
        for (part, hash) in parts {
            // What is said of an epoch that this member never saw is taken from its sources, and not judged.
            let is_unseen = plan.is_none();
            let is_owner = match (&plan, &next) {
                (Some(plan), _) if part == tables => plan.index_of(from).is_some(),
                (Some(plan), _) => plan.owners.get(part.at()).and_then(|owner| plan.member(*owner)).is_some_and(|member| member.id == from),
                (None, Some(next)) => part == tables || next.sources.get(part.at()) == Some(&from),
                (None, None) => false,
            };
            if !is_owner && is_unseen {
                continue;
            }
            if !is_owner {
                return Err(Violation::ForeignTile { grid: 0, tile: part.0 });
            }
            if !self.shelf.learn(version, part, hash) {
                return Err(Violation::RepeatedTile { grid: 0, tile: part.0 });
            }
        }
        Ok(())
    }

    /// Works on the share of the newest own snapshot, and says when it is done.
    pub(super) fn advance_keeping(&mut self) {
        let Some(running) = &self.running else { return };
        let Some((version, said)) = running.keeping else { return };
        if !said && !self.shelf.take_changed() {
            return;
        }
        let Some(running) = &self.running else { return };
        let (plan, me) = (running.plan.clone(), running.me);
        let is_end = version.tick == plan.end;
        let keeps_all = self.config.keep == Keep::All || (is_end && self.config.keep == Keep::End);
        let mut missing = false;
        if !said {
            let parts = self.config.parts.clone();
            // The tables are everybody's, and a shadow's are not there in time.
            let count = if plan.is_shadow(me) { parts.count() } else { parts.tile_count() };
            for part in (0..count as u32).map(PartId) {
                if self.shelf.get(version, part).is_some() {
                    continue;
                }
                if !keeps_all && part != parts.tables() && !replicates(&plan, part, me) {
                    missing |= self.shelf.hash(version, part).is_none();
                    continue;
                }
                missing = true;
                let Some(hash) = self.shelf.hash(version, part) else { continue };
                if let Some(bytes) = self.shelf.by_hash(part, &hash).cloned() {
                    self.shelf.put(version, part, hash, bytes);
                } else if !self.fetch.wants(version, part)
                    && let Some(owner) = plan.owners.get(part.at()).or(plan.owners.first()).and_then(|owner| plan.member(*owner))
                {
                    self.fetch.want(version, part, parts.bytes(part), Need::Replica, vec![owner.id], self.now);
                }
            }
            if missing {
                return;
            }
            self.say_kept(version, &plan, is_end && keeps_all);
        }
        self.say_done(&plan);
    }

    fn say_kept(&mut self, version: Version, plan: &EpochPlan, is_last: bool) {
        if let Some(running) = &mut self.running {
            running.keeping = Some((version, true));
        }
        if is_last && let Some(parts) = self.shelf.whole(version) {
            self.outputs.push_back(Output::Stored { version, parts });
        }
        if self.id == Some(plan.coordinator()) {
            let identity = self.config.identity.clone();
            self.told_to_lead(&identity, Message::Kept { version });
        } else {
            self.send_to(plan.coordinator(), &Message::Kept { version });
        }
    }

    /// At the end, once this member holds what it keeps, its last words go to the coordinator.
    fn say_done(&mut self, plan: &EpochPlan) {
        let Some(running) = &mut self.running else { return };
        let (Some(report), false, Some(taken)) = (running.report.clone(), running.done_said, running.taken) else { return };
        if taken != plan.end {
            return;
        }
        running.done_said = true;
        let message = Message::Done { epoch: plan.epoch, report };
        if self.id == Some(plan.coordinator()) {
            let identity = self.config.identity.clone();
            self.told_to_lead(&identity, message);
        } else {
            self.send_to(plan.coordinator(), &message);
        }
    }

    /// A snapshot is complete on all who keep it.
    pub(super) fn completed(&mut self, version: Version) {
        if !self.shelf.completed(version) {
            return;
        }
        self.fetch.retain(|wanted, need| need == Need::Enter || wanted >= version);
        self.audit(version);
        let is_end = self.running.as_ref().is_some_and(|running| running.plan.end == version.tick);
        if self.config.keep == Keep::All
            && !is_end
            && let Some(parts) = self.shelf.whole(version)
        {
            self.outputs.push_back(Output::Stored { version, parts });
        }
    }

    /// Serves a part, chunk by chunk.
    pub(super) fn wanted(&mut self, identity: &str, version: Version, part: PartId, base: Option<Hash>, (offset, length): (u32, u32)) {
        if self.member_id(identity).is_none() {
            return;
        }
        let Some(link) = self.links.to(identity) else { return };
        let Some((encoding, payload)) = self.encoded.payload(&self.shelf, version, part, base) else {
            return self.send(link, &Message::Missing { version, part });
        };
        let (total, offset) = (payload.len(), offset as usize);
        if offset > total {
            return;
        }
        let end = (offset + (length as usize).clamp(1, CHUNK_BYTES)).min(total);
        let message = Message::Chunk { version, part, encoding, offset: offset as u32, total: total as u32, bytes: payload.slice(offset..end) };
        self.send(link, &message);
        if end == total {
            self.encoded.forget(version, part);
        }
    }

    pub(super) fn chunk(&mut self, identity: &str, what: (Version, PartId), head: (Encoding, u32, u32), bytes: &[u8]) {
        let Some(from) = self.member_id(identity) else { return };
        let parts = self.config.parts.clone();
        match self.fetch.chunk(from, what, head, bytes, &self.shelf, &parts, self.now) {
            Step::Nothing => {}
            Step::Whole { bytes, hash, .. } => self.shelf.put(what.0, what.1, hash, bytes),
            Step::Wrong => self.notice(Notice::BadPart { id: from, name: self.name_of(from), part: what.1 }),
        }
    }

    /// Asks for what is wanted; where nobody is left to ask, the epoch cannot be entered and needs a successor.
    pub(super) fn pump(&mut self) {
        if self.fetch.is_empty() {
            return;
        }
        let hopeless: Vec<_> = self.fetch.hopeless().collect();
        for (version, part, need) in hopeless {
            let plan = self.decided.clone();
            match (need, plan) {
                (Need::Enter, Some(plan)) => {
                    if let Some(source) = plan.sources.get(part.at()).copied() {
                        self.suspect(
                            source,
                            &format!("has not got part {part} of the snapshot at tick {}, which it holds by its own word", version.tick),
                        );
                        self.trouble_at.get_or_insert(self.now);
                    }
                }
                (Need::Replica, Some(plan)) => {
                    // The owner has dropped it: a newer snapshot has come, or it lies.
                    if let Some(owner) = plan.owners.get(part.at()).and_then(|owner| plan.member(*owner)).map(|member| member.id)
                        && self.running.as_ref().is_some_and(|running| running.keeping == Some((version, false)))
                        && version.epoch == plan.epoch
                    {
                        self.suspect(owner, &format!("does not give part {part} of the snapshot at tick {}, which it offered", version.tick));
                    }
                }
                (_, None) => {}
            }
            self.fetch.retain(|wanted, _| wanted != version);
        }
        let rate = self.config.tuning.replica_bytes_per_s;
        let linked: Vec<MemberId> = self.linked_members();
        let asks = self.fetch.pump(&self.shelf, |id| linked.contains(&id), rate, self.now);
        for (to, message) in asks {
            self.send_to(to, &message);
        }
    }

    fn linked_members(&self) -> Vec<MemberId> {
        let plans = self.decided.iter().chain(self.running.as_ref().map(|running| &running.plan));
        let members = plans.flat_map(|plan| plan.roster.iter().chain(&plan.leaving));
        members.filter(|member| self.links.to(&member.identity).is_some()).map(|member| member.id).collect()
    }

    /// How long a leaving member may still serve.
    pub(super) fn leave_deadline(&self) -> Option<Duration> {
        let since = self.leaving_at?;
        let limit = since + self.config.tuning.leave_limit;
        Some(self.leave_said_at.map_or(limit, |said| (said + Duration::from_millis(500)).min(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_as_many_as_asked_never_the_owner_and_stay_when_others_go() {
        let member = |id: u32| MemberInfo {
            id: MemberId(id),
            identity: id.to_string(),
            name: String::new(),
            addresses: vec![],
            speed: 0.0,
            memory: 1,
            keep: Keep::Share,
            seeds: true,
        };
        let plan = |ids: &[u32], replicas: u16| EpochPlan {
            epoch: 1,
            run: [0; 16],
            tick: 0,
            end: 1,
            origin: super::super::Origin::Init,
            replicas,
            next_member: MemberId(99),
            roster: ids.iter().map(|id| member(*id)).collect(),
            leaving: vec![],
            owners: (0..60).map(|part| PeerIndex(part % ids.len() as u16)).collect(),
            shadows: Vec::new(),
            sources: vec![],
            hashes: vec![],
            is_paused: false,
            changes: Vec::new(),
            task: Bytes::new(),
        };
        let holders = |plan: &EpochPlan, part: PartId| -> Vec<u32> {
            (0..plan.roster.len() as u16).map(PeerIndex).filter(|who| replicates(plan, part, *who)).map(|who| plan.roster[who.at()].id.0).collect()
        };
        for (ids, replicas, expected) in [(&[0, 1, 2, 3, 4][..], 2, 2), (&[0, 1][..], 2, 1), (&[7][..], 1, 0), (&[1, 5, 9][..], 0, 0)] {
            let plan = plan(ids, replicas);
            for part in (0..60).map(PartId) {
                let holders = holders(&plan, part);
                assert_eq!(holders.len(), expected, "{part:?}");
                assert!(!holders.contains(&plan.roster[plan.owners[part.at()].at()].id.0));
            }
        }
        // The tables are everybody's.
        assert!(!replicates(&plan(&[0, 1], 1), PartId(60), PeerIndex(0)));
        let shares = |plan: &EpochPlan, who: u16| (0..60).filter(|part| replicates(plan, PartId(*part), PeerIndex(who))).count();
        let five = plan(&[0, 1, 2, 3, 4], 1);
        assert!((0..5).all(|who| (4..=22).contains(&shares(&five, who))), "replicas are spread");
    }
}
