//! What the coordinator of an epoch does: it grants ticks, calls for snapshots, lets members in and out, and ends the run.
//!
//! ```text
//!  Pace ◄── all          the tick that all have completed ─► the horizon: a little further ─► Horizon ─► all
//!  Kept ◄── all          the snapshot in flight is complete ─► said with the next Horizon
//!  Ready ◄─ joiners ┐
//!  Leave ◄─ members ├─► a plan from the last tick granted ─► proposed, and nothing granted beyond it until it is decided
//!  speeds           ┘
//!  Done ◄── all at the end ─► End ─► all
//! ```
//!
//! Because nobody computes a tick that was not granted, whatever is to happen at the last tick granted reaches everybody
//! before they are beyond it.
//!
//! Invariant: only the first of the newest epoch's roster grants, and only while no successor is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::balance::{self, LINK_BYTES_PER_S_ASSUMED, Load, Speed};
use super::event::{Keep, MemberStatus, Output, Role, Standing, Stored};
use super::joiners::Joiner;
use super::links::own_profile;
use super::plan::{EpochPlan, Member as MemberInfo, MemberId, Origin, Version};
use super::rebalance::Rebalance;
use super::shadow::{Nearing, longest_fetch_s};
use super::wire::Message;
use super::wishes::Wishes;
use super::{Member, PartId, Parts};
use crate::core::LinkId;
use crate::ownership::{Ownership, PeerIndex};
use peercompute_buffers::digest::tile_hash;

/// Between two grants that say nothing new.
const SAY_AGAIN: Duration = Duration::from_millis(500);
/// Between two looks at how fast the run is.
const RATE_EVERY: Duration = Duration::from_millis(100);
const STANDING_EVERY: Duration = Duration::from_millis(250);
/// The fewest ticks granted ahead.
const AHEAD_MIN: u64 = 4;
/// The longest time of ticks granted ahead for the sake of round trips.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// A speed is measured over this much computing …
const SPEED_OVER: Duration = Duration::from_millis(200);
/// … or over this much time, of which this much was computing: who waits for a slower one is measured too.
const SPEED_WITHIN: Duration = Duration::from_millis(500);
const SPEED_OVER_MIN: Duration = Duration::from_millis(20);
/// What is known of a member of the epoch.
#[derive(Debug, Default, Clone)]
pub(super) struct Progress {
    /// It comes behind the others, who do not wait for it.
    is_shadow: bool,
    entered: bool,
    tick: u64,
    waiting: bool,
    /// When its tick last changed.
    moved_at: Duration,
    kept: Option<Version>,
    report: Option<Bytes>,
    /// Where the measurement of its speed began: tick, busy microseconds, and when that was.
    pub(super) measured: (u64, u64, Duration),
}

#[derive(Debug, Default)]
pub(super) struct Lead {
    pub(super) decided_at: Duration,
    epoch: u32,
    /// By place in the roster.
    pub(super) progress: Vec<Progress>,
    pub(super) roster: Vec<MemberId>,
    /// The epoch before, which goes on to the tick at which this one begins.
    before: Option<(u32, Vec<MemberId>, Vec<Progress>)>,
    /// Survives the epoch.
    pub(super) speeds: BTreeMap<MemberId, Speed>,
    /// What members' links carried, in bytes per second, where that was seen; as long.
    links: BTreeMap<MemberId, f64>,
    pub(super) joiners: BTreeMap<String, Joiner>,
    pub(super) next_member: u32,
    watchers: Vec<LinkId>,
    leavers: BTreeSet<MemberId>,
    pub(super) wishes: Wishes,
    pub(super) until: u64,
    ahead: u64,
    /// Ticks per second, and where it was last looked at.
    pub(super) rate: f64,
    rate_from: (Duration, u64),
    /// The snapshot in flight, and when it was called for.
    snapshot: Option<(u64, Duration)>,
    snapshot_at: Duration,
    /// The tick of a planned successor that is being voted on.
    frozen: Option<u64>,
    said_at: Duration,
    said: (u64, Option<u64>, Option<Version>),
    standing_at: Duration,
    pub(super) rebalance: Rebalance,
    pub(super) nearing: Nearing,
}

impl Lead {
    /// Whether a planned successor is being voted on.
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    pub(super) fn joiners_count(&self) -> usize {
        self.joiners.len()
    }

    pub(super) fn watch(&mut self, link: LinkId) {
        self.watchers.push(link);
    }

    pub(super) fn forget(&mut self, link: LinkId, identity: &str) {
        self.watchers.retain(|watcher| *watcher != link);
        if self.joiners.get(identity).is_some_and(|joiner| joiner.link == link) {
            self.joiners.remove(identity);
        }
    }

    /// A new epoch: whatever was known of the old one's progress is past.
    pub(super) fn decided(&mut self, plan: &EpochPlan, now: Duration) {
        self.decided_at = now;
        let roster: Vec<MemberId> = plan.roster.iter().map(|member| member.id).collect();
        if roster != self.roster {
            // Whoever came has room for more, and who went leaves others with too much.
            self.rebalance = Rebalance::default();
        }
        let before = (self.epoch, std::mem::replace(&mut self.roster, roster), std::mem::take(&mut self.progress));
        // Only who led it was told how far its members are.
        let led_before = before.1.first().is_some_and(|first| *first == plan.coordinator());
        self.before = Some(before).filter(|_| plan.hashes.is_empty() && led_before);
        self.epoch = plan.epoch;
        let fresh = Progress { tick: plan.tick, moved_at: now, measured: (plan.tick, 0, now), ..Progress::default() };
        let places = (0..plan.roster.len() as u16).map(PeerIndex);
        self.progress = places.map(|at| Progress { is_shadow: plan.is_shadow(at), ..fresh.clone() }).collect();
        self.nearing = Nearing::default();
        self.next_member = self.next_member.max(plan.next_member.0);
        self.until = plan.tick;
        // Others compute from now on, and may be slower by far: what is granted cannot be taken back.
        (self.rate, self.ahead) = (0.0, AHEAD_MIN);
        self.rate_from = (now, plan.tick);
        self.snapshot = None;
        self.snapshot_at = now;
        self.frozen = None;
        self.said_at = Duration::ZERO;
        self.rebalance.begin(now);
        self.leavers.retain(|id| self.roster.contains(id));
        self.speeds.retain(|id, _| self.roster.contains(id));
        self.links.retain(|id, _| self.roster.contains(id));
        self.joiners.retain(|identity, _| plan.in_roster(identity).is_none());
        self.wishes.settle(plan);
    }

    pub(super) fn entered(&mut self, epoch: u32, id: MemberId, link_bytes_per_s: f64) {
        if link_bytes_per_s > 0.0 && self.roster.contains(&id) {
            self.links.insert(id, link_bytes_per_s);
        }
        if let (true, Some(at)) = (epoch == self.epoch, self.roster.binary_search(&id).ok()) {
            self.progress[at].entered = true;
        }
    }

    /// The coordinator itself has entered: from now on the others' time counts.
    pub(super) fn begun(&mut self, now: Duration) {
        self.before = None;
        for progress in &mut self.progress {
            progress.moved_at = now;
        }
    }

    /// The tick that all have completed, but for shadows.
    fn min_tick(&self) -> u64 {
        min_tick(&self.progress, false).unwrap_or(0)
    }

    /// By how many ticks the last of the shadows is behind the others.
    pub(super) fn shadows_behind(&self) -> u64 {
        min_tick(&self.progress, true).map_or(0, |tick| self.min_tick().saturating_sub(tick))
    }

    /// Owners for a roster; whoever owns a part and stays keeps it where that is not worse.
    pub(super) fn owners(&self, parts: &Parts, current: &[Option<PeerIndex>], loads: Vec<Load>) -> Vec<PeerIndex> {
        let members = loads.len();
        match balance::share_out(parts, current, &loads) {
            Ok(owners) => owners,
            // Too little memory for what must be somewhere: everybody gets more than it asked for, and may leave.
            Err(_) => {
                let loads: Vec<Load> = loads.into_iter().map(|load| Load { memory: u64::MAX, ..load }).collect();
                balance::share_out(parts, current, &loads).unwrap_or_else(|_| {
                    let split = Ownership::split(parts.grids(), &vec![1.0; members]);
                    split.grids.concat()
                })
            }
        }
    }

    pub(super) fn loads(&self, roster: &[MemberInfo]) -> Vec<Load> {
        let speed = |member: &MemberInfo| match self.speeds.get(&member.id) {
            Some(speed) if speed.is_known() => speed.acted_on(),
            _ => member.speed,
        };
        let link = |member: &MemberInfo| self.links.get(&member.id).copied().unwrap_or(0.0);
        roster.iter().map(|member| Load { speed: speed(member), memory: member.memory, link_bytes_per_s: link(member) }).collect()
    }

    /// The speed of a member as it was measured last, or as it said itself.
    fn speed_of(&self, member: &MemberInfo) -> f64 {
        self.speeds.get(&member.id).and_then(Speed::measured).unwrap_or(member.speed)
    }
}

/// The tick that all shadows, or all others, have completed.
fn min_tick(progress: &[Progress], of_shadows: bool) -> Option<u64> {
    progress.iter().filter(|progress| progress.is_shadow == of_shadows).map(|progress| progress.tick).min()
}

impl Member {
    /// Host: nothing is there yet.
    pub(super) fn begin_hosting(&mut self) {
        let mut run = [0; 16];
        run.iter_mut().for_each(|byte| *byte = self.random.u8(..));
        self.run = run;
        self.id = Some(MemberId(1));
        self.lead.next_member = 2;
        self.lead.ahead = AHEAD_MIN;
    }

    /// Host: the first epoch begins once all are here that it waits for.
    fn begin_if_assembled(&mut self) {
        let Role::Host { assemble, .. } = self.config.role else { return };
        if self.decided.is_some() || self.joining_again() {
            return;
        }
        let wanted = usize::from(assemble.max(1)) - 1;
        if self.ready_joiners(&[MemberId(1)]).len() < wanted {
            return;
        }
        let mut joiners = self.ready_joiners(&[MemberId(1)]);
        if !matches!(self.config.role, Role::Host { stored: Some(_), .. }) {
            // The others come in with the first snapshot.
            joiners.retain(|member| member.seeds);
        }
        let plan = self.first_plan(&joiners);
        if let Role::Host { stored: Some(stored), .. } = self.config.role.clone() {
            self.put_stored(&stored);
        }
        let bytes = plan.to_bytes();
        self.broadcast(&plan, &Message::Decided { plan: bytes.clone() });
        self.learn(plan);
    }

    fn put_stored(&mut self, stored: &Stored) {
        let version = Version { epoch: stored.epoch, tick: stored.tick };
        for (part, bytes) in (0..).map(PartId).zip(&stored.parts) {
            self.shelf.put(version, part, tile_hash(bytes), bytes.clone());
        }
        self.shelf.completed(version);
    }

    pub(super) fn first_plan(&self, joiners: &[MemberInfo]) -> EpochPlan {
        let (end, task, replicas, stored) = match &self.config.role {
            Role::Host { end, task, replicas, stored, .. } => (*end, task.clone(), *replicas, stored.as_ref()),
            _ => (u64::MAX, Bytes::new(), 1, None),
        };
        let parts = &self.config.parts;
        let me = own_profile(&self.config, MemberId(1));
        let roster: Vec<MemberInfo> = std::iter::once(me).chain(joiners.iter().cloned()).collect();
        let owners = self.lead.owners(parts, &vec![None; parts.tile_count()], self.lead.loads(&roster));
        let origin = stored.map_or(Origin::Init, |stored| Origin::Snapshot(Version { epoch: stored.epoch, tick: stored.tick }));
        let (sources, hashes) = match stored {
            Some(stored) => (vec![MemberId(1); parts.count()], stored.parts.iter().map(|part| tile_hash(part)).collect()),
            None => (Vec::new(), Vec::new()),
        };
        EpochPlan {
            epoch: stored.map_or(0, |stored| stored.epoch) + 1,
            run: self.run,
            tick: stored.map_or(0, |stored| stored.tick),
            end,
            origin,
            replicas,
            next_member: MemberId(self.lead.next_member),
            roster,
            leaving: Vec::new(),
            owners,
            shadows: Vec::new(),
            sources,
            hashes,
            is_paused: false,
            changes: Vec::new(),
            task,
        }
    }

    /// A planned successor at a tick: these come, these go, these hand over their tiles; everybody else keeps what it can.
    pub(super) fn planned(
        &self,
        plan: &EpochPlan,
        tick: u64,
        joiners: &[MemberInfo],
        go: &BTreeSet<MemberId>,
        empty: &BTreeSet<MemberId>,
    ) -> EpochPlan {
        let stay = plan.roster.iter().filter(|member| !go.contains(&member.id)).chain(joiners);
        let mut roster: Vec<MemberInfo> =
            stay.map(|member| MemberInfo { memory: if empty.contains(&member.id) { 0 } else { member.memory }, ..member.clone() }).collect();
        // A joiner may have had its number before somebody who was ready sooner.
        roster.sort_by_key(|member| member.id);
        let takers: Vec<MemberInfo> = roster.iter().filter(|member| !empty.contains(&member.id)).cloned().collect();
        let place = |owner: &PeerIndex| {
            let id = plan.member(*owner)?.id;
            takers.iter().position(|member| member.id == id).map(|at| PeerIndex(at as u16))
        };
        let current: Vec<Option<PeerIndex>> = plan.owners.iter().map(place).collect();
        // Nobody waits for what is shadowed. Where nothing can be, the others wait for the first tiles of one that has none.
        let can_shadow = empty.is_empty() && !self.rests(plan);
        let pause = if can_shadow { self.config.tuning.join_fetch } else { self.config.tuning.join_pause };
        let mut loads = self.lead.loads(&takers);
        let carries = |load: &Load| if load.link_bytes_per_s > 0.0 { load.link_bytes_per_s } else { LINK_BYTES_PER_S_ASSUMED };
        let mut newcomers = Vec::new();
        for (at, load) in (0u16..).map(PeerIndex).zip(&mut loads).filter(|(at, _)| !current.contains(&Some(*at))) {
            let carries = carries(load);
            // What this leaves to be desired follows once its link is known.
            load.memory = load.memory.min((carries * pause.as_secs_f64()) as u64);
            newcomers.push((at, carries));
        }
        // Unless there is no room for them with those who are here.
        let owners = balance::share_out(&self.config.parts, &current, &loads);
        let owners = owners.unwrap_or_else(|_| self.lead.owners(&self.config.parts, &current, self.lead.loads(&takers)));
        let fetch_s = longest_fetch_s(&self.config.parts, &owners, &newcomers);
        // Places among all, from places among those who take.
        let at: Vec<PeerIndex> = (0u16..).zip(&roster).filter(|(_, member)| !empty.contains(&member.id)).map(|(at, _)| PeerIndex(at)).collect();
        let place = |owner: PeerIndex| at[owner.at()];
        let current: Option<Vec<PeerIndex>> = current.into_iter().map(|owner| owner.map(place)).collect();
        let owners: Vec<PeerIndex> = owners.into_iter().map(place).collect();
        let is_new = |owner: &PeerIndex| newcomers.iter().any(|(newcomer, _)| place(*newcomer) == *owner);
        let only_to_newcomers = |current: &Vec<PeerIndex>| current.iter().zip(&owners).all(|(before, after)| before == after || is_new(after));
        let current = current.filter(only_to_newcomers);
        let mut next = self.planned_with(plan, tick, roster, go, owners);
        // Where somebody wishes that no tick passes, nobody waits.
        let is_worth_it = can_shadow && !next.is_paused && fetch_s > self.config.tuning.shadow_above.as_secs_f64();
        if let Some(current) = current.filter(|_| is_worth_it) {
            next.shadows = std::mem::replace(&mut next.owners, current);
        }
        next
    }

    pub(super) fn planned_with(
        &self,
        plan: &EpochPlan,
        tick: u64,
        roster: Vec<MemberInfo>,
        leavers: &BTreeSet<MemberId>,
        owners: Vec<PeerIndex>,
    ) -> EpochPlan {
        let coordinator = plan.coordinator();
        let sources = plan.owners.iter().map(|owner| plan.member(*owner).map_or(coordinator, |member| member.id)).chain([coordinator]).collect();
        let mut next = EpochPlan {
            epoch: plan.epoch + 1,
            run: plan.run,
            tick,
            end: plan.end,
            origin: Origin::Snapshot(Version { epoch: plan.epoch, tick }),
            replicas: plan.replicas,
            next_member: MemberId(self.lead.next_member),
            roster,
            leaving: plan.roster.iter().filter(|member| leavers.contains(&member.id)).cloned().collect(),
            owners,
            shadows: Vec::new(),
            sources,
            hashes: Vec::new(),
            is_paused: plan.is_paused,
            changes: plan.changes.clone(),
            task: plan.task.clone(),
        };
        // No epoch will begin before the newest complete snapshot.
        self.lead.wishes.grant(&mut next, self.shelf.complete().map_or(0, |complete| complete.tick));
        next
    }

    /// Whether no tick is granted.
    fn rests(&self, plan: &EpochPlan) -> bool {
        plan.is_paused || (self.config.tuning.rests_alone && plan.roster.len() == 1)
    }

    /// What members tell their coordinator.
    pub(super) fn told_to_lead(&mut self, identity: &str, message: Message) {
        if !self.leads() {
            return;
        }
        let (now, epoch) = (self.now, self.lead.epoch);
        if let (Message::Pace { epoch: of, tick, waiting, .. }, Some(id)) = (&message, self.member_id(identity))
            && let Some((before, roster, progress)) = &mut self.lead.before
            && before == of
            && let Ok(at) = roster.binary_search(&id)
        {
            if *tick > progress[at].tick || *waiting != progress[at].waiting {
                progress[at].moved_at = now;
            }
            progress[at].tick = progress[at].tick.max(*tick);
            progress[at].waiting = *waiting;
            return;
        }
        let Some(at) = self.decided.as_ref().and_then(|plan| plan.index_of(plan.member_of(identity)?.id)) else { return };
        let Some(progress) = self.lead.progress.get_mut(at.at()) else { return };
        match message {
            Message::Pace { epoch: of, tick, busy_us, waiting } if of == epoch => {
                // One that has yet to enter says so while its parts arrive.
                if tick > progress.tick || waiting != progress.waiting || !progress.entered {
                    progress.moved_at = now;
                }
                progress.tick = progress.tick.max(tick);
                progress.waiting = waiting;
                self.measure(at, tick, busy_us);
            }
            Message::Kept { version } if version.epoch == epoch => progress.kept = progress.kept.max(Some(version)),
            Message::Done { epoch: of, report } if of == epoch => progress.report = Some(report),
            // Whoever owns something is measured by it.
            Message::Speed { points_per_s } if self.decided.as_ref().is_some_and(|plan| plan.owned(at).next().is_none()) => {
                self.lead.speeds.entry(self.lead.roster[at.at()]).or_default().add(points_per_s);
            }
            Message::Leave => {
                let id = self.lead.roster[at.at()];
                self.lead.leavers.insert(id);
            }
            // Of an epoch that is over.
            _ => {}
        }
    }

    /// Takes what a member computed in its busy time as its speed.
    fn measure(&mut self, at: PeerIndex, tick: u64, busy_us: u64) {
        let Some(plan) = &self.decided else { return };
        let now = self.now;
        let progress = &mut self.lead.progress[at.at()];
        let (from_tick, from_us, since) = progress.measured;
        let (ticks, us) = (tick.saturating_sub(from_tick), busy_us.saturating_sub(from_us));
        let busy = Duration::from_micros(us);
        let is_enough = busy >= SPEED_OVER || (since + SPEED_WITHIN <= now && busy >= SPEED_OVER_MIN);
        if ticks == 0 || !is_enough {
            return;
        }
        progress.measured = (tick, busy_us, now);
        let points: u64 = plan.computed(at).map(|part| self.config.parts.points(part)).sum();
        if points == 0 {
            return;
        }
        let speed = points as f64 * ticks as f64 / (us as f64 * 1e-6);
        let id = self.lead.roster[at.at()];
        self.lead.speeds.entry(id).or_default().add(speed);
    }

    pub(super) fn advance_lead(&mut self) {
        if self.over || !self.leads() {
            return;
        }
        self.begin_if_assembled();
        self.send_drafts_if_changed();
        let Some(plan) = self.decided.clone() else { return };
        self.stand(&plan);
        if self.trouble_at.is_none() {
            self.watch_stalls(&plan);
        }
        if self.trouble_at.is_some() || self.running.as_ref().is_none_or(|running| running.plan.epoch != plan.epoch) {
            return;
        }
        self.complete_snapshot(&plan);
        self.look_at_rate();
        self.call_snapshot(&plan);
        self.propose_changes(&plan);
        // The vote may have been over at once, where this member is alone.
        if self.decided.as_ref().is_some_and(|newer| newer.epoch != plan.epoch) {
            return;
        }
        let limit = self.lead.frozen.unwrap_or(plan.end).min(plan.end);
        let ahead = if self.rests(&plan) { 0 } else { self.lead.ahead };
        self.lead.until = (self.lead.min_tick() + ahead).min(limit).max(self.lead.until);
        self.say_horizon(&plan);
        self.end_if_done(&plan);
    }

    /// Leaves out whoever everybody waits for, and who itself waits for nobody.
    fn watch_stalls(&mut self, plan: &EpochPlan) {
        let (limit, now) = (self.config.tuning.stall_limit, self.now);
        let has_entered = self.running.as_ref().is_some_and(|running| running.plan.epoch == plan.epoch && running.exchanges.is_some());
        let is_before = self.lead.before.is_some();
        let (roster, progress, end) = match &self.lead.before {
            Some((_, roster, progress)) => (roster, progress, plan.tick),
            // Who has done what was granted owes nothing.
            None => (&self.lead.roster, &self.lead.progress, self.lead.until.min(plan.end)),
        };
        let min = min_tick(progress, false).unwrap_or(0);
        // Where the next epoch is decided, who shadowed something has to get to its tick as anybody.
        let min = if is_before { min_tick(progress, true).map_or(min, |tick| tick.min(min)) } else { min };
        let moved_at = progress.iter().map(|progress| progress.moved_at).max().unwrap_or(now);
        if min < end && moved_at + limit * 2 <= now && progress.iter().all(|progress| progress.waiting || !has_entered) {
            // Everybody waits and nobody is to blame: frames were lost that no link should lose.
            self.trouble_at.get_or_insert(now);
            return;
        }
        if !(is_before || has_entered) {
            return;
        }
        let is_stalled = |progress: &Progress| {
            let is_last = (progress.is_shadow || progress.tick == min) && !progress.waiting && progress.tick < end;
            (is_last || !(progress.entered || is_before)) && progress.report.is_none() && progress.moved_at + limit <= now
        };
        let stalled: Vec<MemberId> = progress.iter().zip(roster).filter(|(progress, _)| is_stalled(progress)).map(|(_, id)| *id).collect();
        for id in stalled {
            self.bar(id, &format!("is alive but has completed no tick for {} s", limit.as_secs()));
        }
    }

    fn complete_snapshot(&mut self, plan: &EpochPlan) {
        let Some((tick, called_at)) = self.lead.snapshot else { return };
        let wanted = Version { epoch: plan.epoch, tick };
        let mut kept = self.lead.progress.iter().map(|progress| progress.kept);
        let Some(Some(version)) = kept.next() else { return };
        // One and the same for all: who keeps a newer one already, as at the end, has let this one go.
        if version >= wanted && kept.all(|kept| kept == Some(version)) {
            self.lead.snapshot = None;
            self.lead.snapshot_at = called_at + self.config.tuning.snapshot_every;
            self.completed(version);
        }
    }

    fn look_at_rate(&mut self) {
        let (since, from) = self.lead.rate_from;
        let elapsed = self.now.saturating_sub(since);
        let tick = self.lead.min_tick();
        if elapsed >= RATE_EVERY && tick > from {
            let rate = tick.saturating_sub(from) as f64 / elapsed.as_secs_f64();
            self.lead.rate = if self.lead.rate > 0.0 { (self.lead.rate + rate) / 2.0 } else { rate };
            self.lead.rate_from = (self.now, tick);
        }
        // Enough that nobody waits for a grant: the wish, or a few round trips; little enough that a change comes soon.
        let ahead = self.config.tuning.horizon.max((self.links.round_trip_max() * 2).min(AHEAD_MAX));
        let wish = (self.lead.rate * ahead.as_secs_f64()) as u64;
        self.lead.ahead = wish.clamp(AHEAD_MIN, 1 << 20);
    }

    fn call_snapshot(&mut self, plan: &EpochPlan) {
        let entered = self.lead.progress.iter().all(|progress| progress.entered);
        let tick = self.lead.until;
        let is_due = self.lead.snapshot.is_none() && self.lead.snapshot_at <= self.now && entered;
        if is_due && tick < plan.end && self.lead.frozen.is_none() {
            self.lead.snapshot = Some((tick, self.now));
        }
    }

    /// Proposes a successor where somebody comes or goes, or where tiles should move.
    fn propose_changes(&mut self, plan: &Arc<EpochPlan>) {
        let is_in = |progress: &Progress| progress.entered || progress.is_shadow;
        if self.lead.frozen.is_some() || !self.lead.progress.iter().all(is_in) || self.lead.until >= plan.end {
            return;
        }
        // Whoever comes in relies on a snapshot that survives a loss; before the first, only a new beginning would.
        if self.shelf.complete().is_none() {
            return;
        }
        let joiners = self.joiners_due();
        let mut leavers = self.lead.leavers.clone();
        if leavers.len() >= plan.roster.len() && joiners.is_empty() {
            // Somebody has to stay: the coordinator goes last.
            leavers.remove(&plan.coordinator());
        }
        // Who leaves hands over first, and goes once a snapshot has as many holders without it: its copies are missed by nobody.
        let has_tiles = |id: &MemberId| plan.index_of(*id).is_some_and(|at| plan.owned(at).next().is_some());
        let is_emptied = |id: &MemberId| !has_tiles(id) && plan.roster.iter().any(|member| member.id == *id && member.memory == 0);
        let is_safe = self.shelf.complete().is_some_and(|complete| complete.epoch == plan.epoch);
        let go: BTreeSet<MemberId> = leavers.iter().filter(|id| is_emptied(id) && is_safe).copied().collect();
        let empty: BTreeSet<MemberId> = leavers.iter().filter(|id| !go.contains(id)).copied().collect();
        let hands_over = empty.iter().any(|id| !is_emptied(id));
        let tick = self.lead.until.max(self.lead.min_tick());
        let is_wished = !go.is_empty() || hands_over || !self.lead.wishes.is_empty();
        let is_wanted = is_wished || !joiners.is_empty();
        let is_shadowing = !plan.shadows.is_empty();
        let next = if is_shadowing && self.lead.progress.iter().all(|progress| progress.entered) {
            if !self.shadows_take_over(is_wanted) {
                return;
            }
            self.planned_with(plan, tick, plan.roster.clone(), &BTreeSet::new(), plan.shadows.clone())
        } else if is_shadowing && !is_wished && (joiners.is_empty() || !self.is_waited_for_long()) {
            return;
        } else if !is_wanted {
            if !leavers.is_empty() {
                return;
            }
            match self.balanced(plan, tick) {
                Some(next) => next,
                None => return,
            }
        } else {
            self.planned(plan, tick, &joiners, &go, &empty)
        };
        if next.check(&self.config.parts).is_err() {
            return;
        }
        self.lead.frozen = Some(tick);
        self.lead.snapshot = Some((tick, self.now));
        self.say_horizon(plan);
        self.propose_planned(plan, &next);
    }

    fn say_horizon(&mut self, plan: &EpochPlan) {
        let snapshot = self.lead.snapshot.map(|(tick, _)| tick);
        let complete = self.shelf.complete();
        let says = (self.lead.until, snapshot, complete);
        let is_due = self.lead.said_at == Duration::ZERO || self.lead.said_at + SAY_AGAIN <= self.now;
        // A grant that is only a little larger can wait for more.
        let only_ticks = (says.1, says.2) == (self.lead.said.1, self.lead.said.2);
        let left = self.lead.said.0.saturating_sub(self.lead.min_tick());
        let can_wait = only_ticks && self.lead.until < plan.end && self.lead.frozen.is_none() && left * 2 > self.lead.ahead && left > 1;
        if !is_due && (says == self.lead.said || can_wait) {
            return;
        }
        self.lead.said = says;
        self.lead.said_at = self.now;
        let snapshots: Vec<u64> = snapshot.into_iter().collect();
        let message = Message::Horizon { epoch: plan.epoch, until: self.lead.until, snapshots: snapshots.clone(), complete };
        self.broadcast(plan, &message);
        self.granted(self.lead.until, snapshots, complete);
    }

    /// Everybody has reached the end.
    fn end_if_done(&mut self, plan: &Arc<EpochPlan>) {
        let reports: Option<Vec<Bytes>> = self.lead.progress.iter().map(|progress| progress.report.clone()).collect();
        if let Some(reports) = reports {
            self.finish(plan.clone(), reports);
        }
    }

    pub(super) fn told_end(&mut self, identity: &str, reports: Vec<Bytes>) {
        let Some(plan) = self.decided.clone().filter(|plan| plan.member_of(identity).is_some()) else { return };
        let is_there = self.running.as_ref().is_some_and(|running| running.plan.epoch == plan.epoch && running.done_said);
        if is_there && reports.len() == plan.roster.len() {
            self.finish(plan, reports);
        }
    }

    fn finish(&mut self, plan: Arc<EpochPlan>, reports: Vec<Bytes>) {
        let message = Message::End { reports: reports.clone() };
        self.broadcast(&plan, &message);
        self.end(Output::Finished { plan, reports });
    }

    /// Tells onlookers how the run stands.
    fn stand(&mut self, plan: &EpochPlan) {
        if self.lead.watchers.is_empty() || (self.lead.standing_at + STANDING_EVERY > self.now && self.lead.standing_at != Duration::ZERO) {
            return;
        }
        self.lead.standing_at = self.now;
        let mut members = Vec::new();
        for (at, member) in (0u16..).map(PeerIndex).zip(&plan.roster) {
            let link = self.links.to(&member.identity).and_then(|link| self.links.all.get(&link));
            members.push(MemberStatus {
                id: member.id,
                name: member.name.clone(),
                tiles: plan.owned(at).count() as u32,
                speed: self.lead.speed_of(member),
                tick: self.lead.progress[at.at()].tick,
                round_trip_us: link.map_or(0, |link| u32::try_from(link.round_trip().as_micros()).unwrap_or(u32::MAX)),
                bytes_in: link.map_or(0, |link| link.bytes_in),
                bytes_out: link.map_or(0, |link| link.bytes_out),
            });
        }
        let snapshot = self.shelf.complete().map(|version| version.tick);
        let standing = Standing { epoch: plan.epoch, tick: self.lead.min_tick(), end: plan.end, snapshot, members };
        for link in self.lead.watchers.clone() {
            self.send(link, &Message::Standing(Box::new(standing.clone())));
        }
    }

    /// This peer wants to go.
    pub(super) fn leave(&mut self) {
        if self.leaving_at.is_some() {
            return;
        }
        self.leaving_at = Some(self.now);
        if self.id.is_none() || self.decided.is_none() {
            self.end(Output::Left);
        }
    }

    pub(super) fn told_entered(&mut self, identity: &str, epoch: u32, link_bytes_per_s: f64) {
        let Some(id) = self.member_id(identity) else { return };
        if self.leads() {
            self.lead.entered(epoch, id, link_bytes_per_s);
        }
        if self.decided.as_ref().is_some_and(|plan| plan.epoch == epoch) {
            self.entered.insert(id);
        }
        self.shadow_entered(identity, epoch);
    }

    /// Sees to it that this peer gets away: asks, serves until the others have entered, and goes.
    pub(super) fn advance_leaving(&mut self) {
        let (Some(since), Some(plan), Some(me)) = (self.leaving_at, self.decided.clone(), self.id) else { return };
        if self.over {
            return;
        }
        let is_out = plan.index_of(me).is_none();
        let all_entered = plan.roster.iter().all(|member| self.entered.contains(&member.id));
        let is_alone = plan.roster.len() == 1 && !is_out && self.lead.joiners.is_empty();
        // What a store has not got yet goes into it first.
        let is_stored =
            self.config.keep != Keep::All || self.shelf.complete().is_some_and(|complete| complete.epoch == plan.epoch && self.stored_since(since));
        // A half that may not go on hands nothing over, unless the others are back in a moment.
        let is_cut_off = self.orphaned_at.is_some_and(|orphaned| orphaned.max(since) + self.config.tuning.silence_min <= self.now);
        let is_late = since + self.config.tuning.leave_limit <= self.now;
        if (is_out && all_entered) || (is_alone && is_stored) || is_cut_off || is_late {
            return self.end(Output::Left);
        }
        if is_alone {
            self.leave_said_at = Some(self.now);
            if self.lead.snapshot.is_none() && self.lead.snapshot_at > self.now {
                self.lead.snapshot_at = self.now;
            }
            return;
        }
        if !is_out && self.leave_said_at.is_none_or(|said| said + Duration::from_millis(500) <= self.now) {
            self.leave_said_at = Some(self.now);
            if self.leads() {
                self.lead.leavers.insert(me);
            } else {
                self.send_to(plan.coordinator(), &Message::Leave);
            }
        }
    }

    /// Whether a snapshot was called for and completed after this time.
    fn stored_since(&self, since: Duration) -> bool {
        let every = self.config.tuning.snapshot_every;
        self.lead.snapshot.is_none() && self.lead.snapshot_at >= since + every
    }

    pub(super) fn lead_deadline(&self) -> Option<Duration> {
        if !self.leads() {
            return None;
        }
        let soon = |at: Duration| at.max(self.now + Duration::from_millis(1));
        let standing = (!self.lead.watchers.is_empty()).then(|| soon(self.lead.standing_at + STANDING_EVERY));
        let running = self.running.as_ref().map(|_| soon(self.lead.said_at + SAY_AGAIN));
        let snapshot = self.lead.snapshot.is_none().then(|| soon(self.lead.snapshot_at));
        let snapshot = snapshot.filter(|_| self.running.is_some() && self.lead.snapshot_at > self.now);
        self.joiners_deadline().into_iter().chain(standing).chain(running).chain(snapshot).min()
    }

    fn joining_again(&self) -> bool {
        self.id.is_none()
    }
}
