//! What must hold in a run whose members come and go: judged from what nodes are given and say, and from nothing else.
//!
//! - An epoch of a run has one plan, the same bytes wherever it is seen; so a tile has one owner in it.
//! - The epochs of a place only rise, and a member's number is never given twice.
//! - A part with which an epoch is entered, a snapshot that is taken, one that is stored, and the last words at the end are
//!   the [`Oracle`]'s of that tick.
//! - What is delivered was posted by that peer, for that peer, in that epoch and for that sequence.
//! - Once a later epoch has been entered, an earlier one goes no further than it had been granted.
//! - No part is lost while no more members were lost at a time than there are replicas.
//! - Nobody who keeps the rules is accused of breaking them; nothing follows an end; one event has few outputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::state::{Oracle, Rules, digest};
use crate::membership::{EpochPlan, Event, Keep, MemberError, MemberId, Notice, Output, PartId};
use crate::ownership::PeerIndex;

/// One member from its start to its end; a place that comes back lives again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LifeId(pub u32);

impl std::fmt::Display for LifeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Two plans of one epoch, or of one run that nobody began.
    #[error("life {life} follows another plan of epoch {epoch} than others")]
    OtherPlan {
        /// Who.
        life: LifeId,
        /// Which epoch.
        epoch: u32,
    },
    /// A plan that cannot be followed.
    #[error("life {life} was given a plan of epoch {epoch} with {what}")]
    BadPlan {
        /// Who.
        life: LifeId,
        /// Which epoch.
        epoch: u32,
        /// What is wrong.
        what: String,
    },
    /// An epoch that is no later than the one before.
    #[error("life {life} entered epoch {epoch} after {before}")]
    EpochFell {
        /// Who.
        life: LifeId,
        /// The epoch entered.
        epoch: u32,
        /// The one before.
        before: u32,
    },
    /// A member's number given twice.
    #[error("life {life} has number {id}, which life {other} had")]
    IdReused {
        /// Who.
        life: LifeId,
        /// The number.
        id: MemberId,
        /// Who had it.
        other: LifeId,
    },
    /// A part with another content than it must have.
    #[error("life {life}: part {part} before tick {tick} is wrong ({what}, epoch {epoch})")]
    WrongPart {
        /// Where it was seen.
        life: LifeId,
        /// Which part.
        part: PartId,
        /// The tick.
        tick: u64,
        /// The epoch.
        epoch: u32,
        /// What it was part of.
        what: &'static str,
    },
    /// A delivery that nobody posted, or other bytes than were posted.
    #[error("life {life} was delivered something at epoch {epoch}, sequence {sequence} that peer {from} did not post for it")]
    Invented {
        /// Who.
        life: LifeId,
        /// The sender, as delivered.
        from: PeerIndex,
        /// The epoch.
        epoch: u32,
        /// The sequence.
        sequence: u64,
    },
    /// A delivery out of turn.
    #[error("life {life} was delivered sequence {sequence} of epoch {epoch}, due is {due:?}")]
    OutOfTurn {
        /// Who.
        life: LifeId,
        /// The epoch delivered.
        epoch: u32,
        /// The sequence delivered.
        sequence: u64,
        /// The epoch and sequence due.
        due: Option<(u32, u64)>,
    },
    /// Progress in an epoch whose successor has begun.
    #[error("life {life} completed tick {tick} in epoch {epoch}, but a later epoch has begun and {limit} was the most that was granted")]
    SplitBrain {
        /// Who.
        life: LifeId,
        /// The epoch.
        epoch: u32,
        /// The tick.
        tick: u64,
        /// How far it may go.
        limit: u64,
    },
    /// Parts were lost although few enough members were.
    #[error("life {life} lost parts, though at most {replicas} members were lost at a time: {error}")]
    PartsLost {
        /// Who.
        life: LifeId,
        /// How many could be lost.
        replicas: u16,
        /// What the member says.
        error: String,
    },
    /// Reports that are not those of the end.
    #[error("life {life} finished with a wrong report of peer {of}")]
    WrongReport {
        /// Who.
        life: LifeId,
        /// Whose report.
        of: PeerIndex,
    },
    /// Somebody honest is said to have broken the rules.
    #[error("life {life} accuses somebody honest: {text}")]
    Accused {
        /// Who.
        life: LifeId,
        /// What it says.
        text: String,
    },
    /// The node was told what no node can do, or the member says that the node misused it.
    #[error("life {life} and its node disagree: the node {what}")]
    Misled {
        /// Who.
        life: LifeId,
        /// How.
        what: String,
    },
    /// Something after the end.
    #[error("life {life} was given something after its end")]
    AfterEnd {
        /// Who.
        life: LifeId,
    },
    /// A snapshot for somebody who keeps none.
    #[error("life {life} was given a snapshot that it does not keep")]
    NotKept {
        /// Who.
        life: LifeId,
    },
    /// One event with very many outputs.
    #[error("life {life} made {outputs} outputs of one event, the limit is {limit}")]
    TooManyOutputs {
        /// Who.
        life: LifeId,
        /// How many.
        outputs: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A clock that is due again and again at one time.
    #[error("life {life} wants the clock again and again without time passing")]
    Spins {
        /// Who.
        life: LifeId,
    },
    /// A tick passed in an epoch in which none should.
    #[error("life {life} computed tick {tick} of epoch {epoch}, which is paused")]
    Unpaused {
        /// Who.
        life: LifeId,
        /// The epoch.
        epoch: u32,
        /// The tick.
        tick: u64,
    },
    /// Nothing got on, though a quorum could talk.
    #[error("nothing has got on for {quiet_ms} ms since tick {tick} of epoch {epoch}, though a quorum can talk")]
    NoProgress {
        /// The newest epoch.
        epoch: u32,
        /// The latest tick.
        tick: u64,
        /// For how long.
        quiet_ms: u64,
    },
    /// A joiner is kept waiting, though nothing stands in its way.
    #[error("life {life} has waited for {waited_ms} ms to become a member of a run that goes on")]
    NotJoined {
        /// Who.
        life: LifeId,
        /// For how long.
        waited_ms: u64,
    },
    /// Somebody alive and well has not got to the end of a run that must survive.
    #[error("life {life} did not get to the end: {text}")]
    NotFinished {
        /// Who.
        life: LifeId,
        /// How it ended.
        text: String,
    },
}

#[derive(Debug)]
struct Life {
    identity: String,
    keep: Keep,
    epoch: Option<u32>,
    run: [u8; 16],
    me: PeerIndex,
    posted: Option<(u32, u64)>,
    ended: bool,
}

/// Ticks that the coordinator of an epoch which was followed may still complete beyond what had been granted: one that
/// slept through its loss grants itself, once, what nobody else hears of.
const COORDINATOR_TICKS_MAX: u64 = 32;

/// What is known of one epoch.
#[derive(Debug)]
struct Epoch {
    plan: Arc<EpochPlan>,
    bytes: Bytes,
    /// The first tick that nobody in it may compute yet.
    granted: u64,
    /// What was granted when a later one was first entered.
    limit: Option<u64>,
}

/// The run and the epoch, the sequence, from, to.
type Post = ([u8; 16], u32, u64, PeerIndex, PeerIndex);

/// Watches one run.
#[derive(Debug)]
pub struct Checker {
    rules: Arc<Rules>,
    oracle: Oracle,
    /// Whether someone breaks the rules on purpose: accusations are then right.
    pub hostile: bool,
    /// Whether so few are lost at a time that no part may be; and how many are replicated.
    pub replicas_hold: Option<u16>,
    lives: Vec<Life>,
    runs: Vec<[u8; 16]>,
    runs_max: usize,
    epochs: BTreeMap<([u8; 16], u32), Epoch>,
    ids: BTreeMap<([u8; 16], MemberId), LifeId>,
    posts: BTreeMap<Post, (usize, u64)>,
    tick: u64,
    ended: u64,
}

impl Checker {
    /// A watcher over a run by these rules.
    pub fn new(rules: Arc<Rules>) -> Checker {
        Checker {
            oracle: Oracle::new(rules.clone()),
            rules,
            hostile: false,
            replicas_hold: None,
            lives: Vec::new(),
            runs: Vec::new(),
            runs_max: 0,
            epochs: BTreeMap::new(),
            ids: BTreeMap::new(),
            posts: BTreeMap::new(),
            tick: 0,
            ended: 0,
        }
    }

    /// Somebody starts: a host begins a run.
    pub fn born(&mut self, identity: &str, keep: Keep, hosts: bool) -> LifeId {
        self.runs_max += usize::from(hosts);
        self.lives.push(Life { identity: identity.to_owned(), keep, epoch: None, run: [0; 16], me: PeerIndex(0), posted: None, ended: false });
        LifeId(self.lives.len() as u32 - 1)
    }

    /// The newest epoch that somebody has entered.
    pub fn newest(&self) -> Option<&Arc<EpochPlan>> {
        self.epochs.values().map(|epoch| &epoch.plan).max_by_key(|plan| plan.epoch)
    }

    /// The latest tick that anybody completed, and how many lives have ended.
    pub fn progress(&self) -> (u64, u64) {
        (self.tick, self.ended)
    }

    /// A node is given an output.
    pub fn heard(&mut self, id: LifeId, output: &Output) -> Result<(), CheckError> {
        let life = self.life(id);
        if life.ended {
            return Err(CheckError::AfterEnd { life: id });
        }
        match output {
            Output::Prepare { plan, me } => self.check_plan(id, plan, *me),
            Output::Enter { plan, me, parts } => self.entered(id, plan, *me, parts),
            Output::Pace { epoch, until, .. } => {
                let run = life.run;
                if let Some(known) = self.epochs.get_mut(&(run, *epoch)) {
                    known.granted = known.granted.max(*until);
                }
                Ok(())
            }
            Output::Deliver { epoch, sequence, payloads } => self.delivered(id, *epoch, *sequence, payloads),
            Output::Stored { version, parts } => {
                if life.keep == Keep::Share {
                    return Err(CheckError::NotKept { life: id });
                }
                let numbered = (0u32..).map(PartId).zip(parts);
                let wrong = |part| CheckError::WrongPart { life: id, part, tick: version.tick, epoch: version.epoch, what: "stored" };
                if parts.len() != self.rules.parts().count() {
                    return Err(wrong(self.rules.parts().tables()));
                }
                for (part, content) in numbered {
                    if digest(content) != self.oracle.digest(part, version.tick) {
                        return Err(wrong(part));
                    }
                }
                Ok(())
            }
            Output::Notice(notice) => self.noticed(id, notice),
            Output::Finished { plan, reports } => {
                self.end(id);
                self.finished(id, plan, reports)
            }
            Output::Left => {
                self.end(id);
                Ok(())
            }
            Output::Failed(error) => {
                self.end(id);
                self.failed(id, error)
            }
            _ => Ok(()),
        }
    }

    /// A node says something to its member.
    pub fn said(&mut self, id: LifeId, event: &Event) -> Result<(), CheckError> {
        let (run, me) = (self.life(id).run, self.life(id).me);
        match event {
            Event::Post { epoch, sequence, payloads, .. } => {
                // What is left of an earlier epoch is posted in it, by another place in the roster perhaps.
                if self.life(id).epoch != Some(*epoch) {
                    return Ok(());
                }
                for (to, payload) in payloads {
                    self.posts.insert((run, *epoch, *sequence, me, *to), (payload.len(), digest(payload)));
                }
                self.lives[id.0 as usize].posted = Some((*epoch, *sequence));
                Ok(())
            }
            Event::Ticked { epoch, tick, .. } => {
                let slack = if me == PeerIndex::COORDINATOR { COORDINATOR_TICKS_MAX } else { 0 };
                if let Some(limit) = self.epochs.get(&(run, *epoch)).and_then(|known| known.limit).filter(|limit| *tick > limit + slack) {
                    return Err(CheckError::SplitBrain { life: id, epoch: *epoch, tick: *tick, limit });
                }
                let is_paused = self.epochs.get(&(run, *epoch)).is_some_and(|known| known.plan.is_paused && *tick > known.plan.tick);
                if is_paused {
                    return Err(CheckError::Unpaused { life: id, epoch: *epoch, tick: *tick });
                }
                self.tick = self.tick.max(*tick);
                Ok(())
            }
            Event::Snapshot { epoch, tick, parts } => {
                for (part, content) in parts {
                    if digest(content) != self.oracle.digest(*part, *tick) {
                        return Err(CheckError::WrongPart { life: id, part: *part, tick: *tick, epoch: *epoch, what: "in a snapshot" });
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A member has handled one event.
    pub fn handled(&self, id: LifeId, outputs: usize) -> Result<(), CheckError> {
        let limit = 256 + 16 * self.lives.len() + 8 * self.rules.parts().count();
        if outputs > limit { Err(CheckError::TooManyOutputs { life: id, outputs, limit }) } else { Ok(()) }
    }

    fn life(&self, id: LifeId) -> &Life {
        &self.lives[id.0 as usize]
    }

    fn end(&mut self, id: LifeId) {
        self.lives[id.0 as usize].ended = true;
        self.ended += 1;
    }

    fn check_plan(&self, id: LifeId, plan: &EpochPlan, me: PeerIndex) -> Result<(), CheckError> {
        let wrong = |what: &str| Err(CheckError::BadPlan { life: id, epoch: plan.epoch, what: what.to_owned() });
        if let Err(what) = plan.check(self.rules.parts()) {
            return wrong(what);
        }
        match plan.member(me) {
            Some(member) if member.identity == self.life(id).identity => Ok(()),
            _ => wrong("somebody else in its place"),
        }
    }

    fn see(&mut self, id: LifeId, plan: &Arc<EpochPlan>) -> Result<(), CheckError> {
        let bytes = plan.to_bytes();
        let other = CheckError::OtherPlan { life: id, epoch: plan.epoch };
        if !self.runs.contains(&plan.run) {
            if self.runs.len() == self.runs_max {
                return Err(other);
            }
            self.runs.push(plan.run);
        }
        let key = (plan.run, plan.epoch);
        if let Some(known) = self.epochs.get(&key) {
            return if known.bytes == bytes { Ok(()) } else { Err(other) };
        }
        for (_, earlier) in self.epochs.range_mut((plan.run, 0)..key) {
            earlier.limit.get_or_insert(earlier.granted);
        }
        let is_late = self.epochs.range((plan.run, plan.epoch + 1)..=(plan.run, u32::MAX)).next().is_some();
        self.epochs.insert(key, Epoch { plan: plan.clone(), bytes, granted: plan.tick, limit: is_late.then_some(plan.tick) });
        Ok(())
    }

    fn entered(&mut self, id: LifeId, plan: &Arc<EpochPlan>, me: PeerIndex, parts: &[(PartId, Bytes)]) -> Result<(), CheckError> {
        self.check_plan(id, plan, me)?;
        self.see(id, plan)?;
        if let Some(before) = self.life(id).epoch.filter(|before| plan.epoch <= *before) {
            return Err(CheckError::EpochFell { life: id, epoch: plan.epoch, before });
        }
        if let Some(member) = plan.member(me) {
            let other = *self.ids.entry((plan.run, member.id)).or_insert(id);
            if other != id {
                return Err(CheckError::IdReused { life: id, id: member.id, other });
            }
        }
        for (part, content) in parts {
            let hash_fits = plan.hashes.is_empty() || plan.hashes[part.at().min(plan.hashes.len() - 1)] == *blake3::hash(content).as_bytes();
            if digest(content) != self.oracle.digest(*part, plan.tick) || !hash_fits {
                return Err(CheckError::WrongPart { life: id, part: *part, tick: plan.tick, epoch: plan.epoch, what: "at the start" });
            }
        }
        let life = &mut self.lives[id.0 as usize];
        (life.epoch, life.run, life.me, life.posted) = (Some(plan.epoch), plan.run, me, None);
        Ok(())
    }

    fn delivered(&mut self, id: LifeId, epoch: u32, sequence: u64, payloads: &[(PeerIndex, Bytes)]) -> Result<(), CheckError> {
        let life = &mut self.lives[id.0 as usize];
        let due = life.posted.take();
        let (run, me) = (life.run, life.me);
        if due != Some((epoch, sequence)) || !payloads.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(CheckError::OutOfTurn { life: id, epoch, sequence, due });
        }
        for (from, payload) in payloads {
            if self.posts.get(&(run, epoch, sequence, *from, me)) != Some(&(payload.len(), digest(payload))) {
                return Err(CheckError::Invented { life: id, from: *from, epoch, sequence });
            }
        }
        Ok(())
    }

    fn finished(&mut self, id: LifeId, plan: &Arc<EpochPlan>, reports: &[Bytes]) -> Result<(), CheckError> {
        self.see(id, plan)?;
        if reports.len() != plan.roster.len() {
            return Err(CheckError::WrongReport { life: id, of: PeerIndex(reports.len() as u16) });
        }
        for (given, place) in reports.iter().zip(0u16..) {
            let of = PeerIndex(place);
            let words = plan.owned(of).flat_map(|part| [u64::from(part.0), self.oracle.digest(part, plan.end)]);
            let expected: Bytes = words.flat_map(u64::to_le_bytes).collect();
            if *given != expected {
                return Err(CheckError::WrongReport { life: id, of });
            }
        }
        Ok(())
    }

    fn failed(&self, id: LifeId, error: &MemberError) -> Result<(), CheckError> {
        let text = error.to_string();
        match error {
            MemberError::PartsLost { .. } => match self.replicas_hold {
                Some(replicas) => Err(CheckError::PartsLost { life: id, replicas, error: text }),
                None => Ok(()),
            },
            MemberError::Misuse { what } => Err(CheckError::Misled { life: id, what: format!("is said to misuse it: {what}") }),
            MemberError::Violation { .. } if !self.hostile => Err(CheckError::Accused { life: id, text }),
            _ => Ok(()),
        }
    }

    fn noticed(&self, id: LifeId, notice: &Notice) -> Result<(), CheckError> {
        let accuses = match notice {
            Notice::BadPart { .. } => true,
            // Violations read "sent …", "went past …"; silence, stalls and lost links do not.
            Notice::Lost { reason, .. } => VIOLATIONS.iter().any(|start| reason.starts_with(start)),
            _ => false,
        };
        if accuses && !self.hostile { Err(CheckError::Accused { life: id, text: notice.to_string() }) } else { Ok(()) }
    }
}

/// How the texts of [`Violation`](crate::core::Violation) begin.
const VIOLATIONS: [&str; 6] = ["sent ", "follows ", "went past ", "ran ahead", "took sequence", "committed "];

#[cfg(test)]
mod tests {
    use peercompute_buffers::Grid;

    use super::super::node::report;
    use super::*;
    use crate::membership::{Origin, Parts, Version};

    const ALICE: LifeId = LifeId(0);
    const BOB: LifeId = LifeId(1);

    fn rules() -> Arc<Rules> {
        let grid = Grid::new(&[8, 4], &[2, 2]).unwrap();
        Arc::new(Rules::new(Arc::new(Parts::new(&[grid], &[4], 12).unwrap()), 2, 7))
    }

    fn plan(epoch: u32, tick: u64) -> EpochPlan {
        let member = |id: u32, identity: &str| crate::membership::MemberInfo {
            id: MemberId(id),
            identity: identity.into(),
            name: identity.into(),
            addresses: Vec::new(),
            speed: 1.0,
            memory: 1 << 20,
            keep: Keep::Share,
            seeds: true,
        };
        let is_first = tick == 0;
        EpochPlan {
            epoch,
            run: [1; 16],
            tick,
            end: 20,
            origin: if is_first { Origin::Init } else { Origin::Snapshot(Version { epoch: epoch - 1, tick }) },
            replicas: 1,
            next_member: MemberId(2),
            roster: vec![member(0, "alice"), member(1, "bob")],
            leaving: Vec::new(),
            owners: (0..8).map(|part| PeerIndex(part / 4)).collect(),
            shadows: Vec::new(),
            sources: if is_first { Vec::new() } else { vec![MemberId(0); 9] },
            hashes: Vec::new(),
            is_paused: false,
            changes: Vec::new(),
            task: Bytes::new(),
        }
    }

    fn checker() -> Checker {
        let mut checker = Checker::new(rules());
        assert_eq!(checker.born("alice", Keep::All, true), ALICE);
        assert_eq!(checker.born("bob", Keep::Share, false), BOB);
        checker
    }

    fn enter_with(plan: &EpochPlan, me: u16, change: impl Fn(&mut Vec<(PartId, Bytes)>)) -> Output {
        let all = Oracle::parts_at(rules(), plan.tick);
        let own = plan.owned(PeerIndex(me)).chain([PartId(8)]);
        let mut parts = own.map(|part| (part, all[part.at()].clone())).collect();
        change(&mut parts);
        Output::Enter { plan: Arc::new(plan.clone()), me: PeerIndex(me), parts }
    }

    fn enter(plan: &EpochPlan, me: u16) -> Output {
        enter_with(plan, me, |_| ())
    }

    fn post(epoch: u32, sequence: u64, to: u16, payload: &'static [u8]) -> Event {
        Event::Post { epoch, sequence, exchange: 0, payloads: vec![(PeerIndex(to), Bytes::from_static(payload))] }
    }

    fn deliver(epoch: u32, sequence: u64, from: u16, payload: &'static [u8]) -> Output {
        Output::Deliver { epoch, sequence, payloads: vec![(PeerIndex(from), Bytes::from_static(payload))] }
    }

    fn both_in(plan: &EpochPlan) -> Checker {
        let mut checker = checker();
        checker.heard(ALICE, &enter(plan, 0)).unwrap();
        checker.heard(BOB, &enter(plan, 1)).unwrap();
        checker
    }

    fn flipped(content: &Bytes) -> Bytes {
        let mut content = content.to_vec();
        content[3] ^= 0x10;
        content.into()
    }

    #[test]
    fn an_epoch_has_one_plan() {
        let mut other = plan(1, 0);
        other.owners[2] = PeerIndex(1);
        let mut checker = checker();
        checker.heard(ALICE, &enter(&plan(1, 0), 0)).unwrap();
        assert_eq!(checker.heard(BOB, &enter(&other, 1)), Err(CheckError::OtherPlan { life: BOB, epoch: 1 }));
        // Nor may a second run begin that no host began.
        other.run = [2; 16];
        assert_eq!(checker.heard(BOB, &enter(&other, 1)), Err(CheckError::OtherPlan { life: BOB, epoch: 1 }));
    }

    #[test]
    fn a_plan_must_hold_and_name_who_follows_it() {
        let wrong = |checker: &mut Checker, output| matches!(checker.heard(BOB, &output), Err(CheckError::BadPlan { life: BOB, epoch: 1, .. }));
        assert!(wrong(&mut checker(), enter(&plan(1, 0), 0)));
        let mut bad = plan(1, 0);
        bad.owners[0] = PeerIndex(7);
        assert!(wrong(&mut checker(), Output::Prepare { plan: Arc::new(bad), me: PeerIndex(1) }));
    }

    #[test]
    fn epochs_rise_and_numbers_are_new() {
        let mut checker = both_in(&plan(2, 4));
        assert_eq!(checker.heard(ALICE, &enter(&plan(1, 0), 0)), Err(CheckError::EpochFell { life: ALICE, epoch: 1, before: 2 }));
        let again = checker.born("bob", Keep::Share, false);
        assert_eq!(checker.heard(again, &enter(&plan(3, 4), 1)), Err(CheckError::IdReused { life: again, id: MemberId(1), other: BOB }));
    }

    #[test]
    fn parts_are_the_oracles() {
        let mut checker = checker();
        let wrong = enter_with(&plan(2, 4), 0, |parts| parts[1].1 = flipped(&parts[1].1));
        let error = CheckError::WrongPart { life: ALICE, part: PartId(1), tick: 4, epoch: 2, what: "at the start" };
        assert_eq!(checker.heard(ALICE, &wrong), Err(error));
        // The right content, of another hash than the plan has.
        let mut hashed = plan(3, 4);
        hashed.hashes = vec![[0; 32]; 9];
        assert!(matches!(checker.heard(ALICE, &enter(&hashed, 0)), Err(CheckError::WrongPart { part: PartId(0), .. })));

        let all = Oracle::parts_at(rules(), 6);
        let mut snapshot = vec![(PartId(0), all[0].clone()), (PartId(8), all[8].clone())];
        checker.said(ALICE, &Event::Snapshot { epoch: 2, tick: 6, parts: snapshot.clone() }).unwrap();
        snapshot[1].1 = flipped(&snapshot[1].1);
        assert!(checker.said(ALICE, &Event::Snapshot { epoch: 2, tick: 6, parts: snapshot }).is_err());
    }

    #[test]
    fn stored_snapshots_are_whole_and_right_and_kept() {
        let mut checker = checker();
        let version = Version { epoch: 2, tick: 6 };
        let mut parts = Oracle::parts_at(rules(), 6);
        checker.heard(ALICE, &Output::Stored { version, parts: parts.clone() }).unwrap();
        assert_eq!(checker.heard(BOB, &Output::Stored { version, parts: parts.clone() }), Err(CheckError::NotKept { life: BOB }));
        parts[5] = flipped(&parts[5]);
        let error = CheckError::WrongPart { life: ALICE, part: PartId(5), tick: 6, epoch: 2, what: "stored" };
        assert_eq!(checker.heard(ALICE, &Output::Stored { version, parts: parts.clone() }), Err(error));
        parts.pop();
        assert!(checker.heard(ALICE, &Output::Stored { version, parts }).is_err());
    }

    #[test]
    fn only_what_was_posted_is_delivered() {
        let mut checker = both_in(&plan(1, 0));
        let invented = CheckError::Invented { life: BOB, from: PeerIndex(0), epoch: 1, sequence: 0 };
        checker.said(ALICE, &post(1, 0, 1, b"for bob")).unwrap();
        checker.said(BOB, &post(1, 0, 0, b"for alice")).unwrap();
        assert_eq!(checker.heard(BOB, &deliver(1, 0, 0, b"for bog")), Err(invented));
        checker.said(BOB, &post(1, 0, 0, b"for alice")).unwrap();
        checker.heard(BOB, &deliver(1, 0, 0, b"for bob")).unwrap();
        let twice = CheckError::OutOfTurn { life: BOB, epoch: 1, sequence: 0, due: None };
        assert_eq!(checker.heard(BOB, &deliver(1, 0, 0, b"for bob")), Err(twice));
    }

    #[test]
    fn nothing_is_delivered_across_epochs() {
        let mut checker = both_in(&plan(1, 0));
        checker.said(ALICE, &post(1, 0, 1, b"of epoch 1")).unwrap();
        checker.heard(ALICE, &enter(&plan(2, 4), 0)).unwrap();
        checker.heard(BOB, &enter(&plan(2, 4), 1)).unwrap();
        checker.said(BOB, &post(2, 0, 0, b"")).unwrap();
        let invented = CheckError::Invented { life: BOB, from: PeerIndex(0), epoch: 2, sequence: 0 };
        assert_eq!(checker.heard(BOB, &deliver(2, 0, 0, b"of epoch 1")), Err(invented));
    }

    #[test]
    fn no_tick_passes_in_an_epoch_that_is_paused() {
        let paused = EpochPlan { is_paused: true, ..plan(2, 4) };
        let mut checker = both_in(&paused);
        let ticked = |tick| Event::Ticked { epoch: 2, tick, busy: std::time::Duration::ZERO };
        checker.said(BOB, &ticked(4)).unwrap();
        assert_eq!(checker.said(BOB, &ticked(5)), Err(CheckError::Unpaused { life: BOB, epoch: 2, tick: 5 }));
    }

    #[test]
    fn an_epoch_that_was_followed_goes_no_further() {
        let mut checker = both_in(&plan(2, 4));
        let ticked = |tick| Event::Ticked { epoch: 2, tick, busy: std::time::Duration::ZERO };
        checker.heard(BOB, &Output::Pace { epoch: 2, until: 7, snapshots: Vec::new() }).unwrap();
        checker.said(BOB, &ticked(5)).unwrap();
        checker.heard(ALICE, &enter(&plan(3, 4), 0)).unwrap();
        checker.heard(BOB, &Output::Pace { epoch: 2, until: 99, snapshots: Vec::new() }).unwrap();
        checker.said(BOB, &ticked(7)).unwrap();
        assert_eq!(checker.said(BOB, &ticked(8)), Err(CheckError::SplitBrain { life: BOB, epoch: 2, tick: 8, limit: 7 }));
        // The coordinator, a little.
        checker = both_in(&plan(2, 4));
        checker.heard(BOB, &enter(&plan(3, 4), 1)).unwrap();
        checker.said(ALICE, &ticked(4 + COORDINATOR_TICKS_MAX)).unwrap();
        assert!(checker.said(ALICE, &ticked(5 + COORDINATOR_TICKS_MAX)).is_err());
    }

    #[test]
    fn the_last_words_are_the_oracles_of_the_end() {
        let end = plan(2, 20);
        let all = Oracle::parts_at(rules(), 20);
        let words = |me| report(&end.owned(PeerIndex(me)).map(|part| (part, all[part.at()].to_vec())).collect());
        let finished = |reports| Output::Finished { plan: Arc::new(end.clone()), reports };
        both_in(&end).heard(ALICE, &finished(vec![words(0), words(1)])).unwrap();
        let wrong = Err(CheckError::WrongReport { life: ALICE, of: PeerIndex(1) });
        assert_eq!(both_in(&end).heard(ALICE, &finished(vec![words(0), words(0)])), wrong);
        assert_eq!(both_in(&end).heard(ALICE, &finished(vec![words(0)])), wrong);
    }

    #[test]
    fn parts_may_be_lost_with_too_many_members_only() {
        let lost = Output::Failed(MemberError::PartsLost { lost: 1, first: PartId(0), what: String::new(), tick: 4 });
        checker().heard(ALICE, &lost).unwrap();
        let mut held = checker();
        held.replicas_hold = Some(1);
        assert!(matches!(held.heard(ALICE, &lost), Err(CheckError::PartsLost { replicas: 1, .. })));
        assert_eq!(held.heard(ALICE, &Output::Left), Err(CheckError::AfterEnd { life: ALICE }));
    }

    #[test]
    fn the_honest_are_not_accused() {
        let bad_part = Notice::BadPart { id: MemberId(1), name: "bob".into(), part: PartId(0) };
        let lost = |reason: &str| Output::Notice(Notice::Lost { id: MemberId(1), name: "bob".into(), reason: reason.into() });
        let violation = crate::core::Violation::Unexpected { message: "Data" };
        checker().heard(ALICE, &lost("has been silent for 700 ms")).unwrap();
        assert!(checker().heard(ALICE, &lost(&violation.to_string())).is_err());
        assert!(checker().heard(ALICE, &Output::Notice(bad_part.clone())).is_err());
        let mut hostile = checker();
        hostile.hostile = true;
        hostile.heard(ALICE, &Output::Notice(bad_part)).unwrap();
    }

    #[test]
    fn one_event_has_few_outputs() {
        checker().handled(ALICE, 100).unwrap();
        assert!(matches!(checker().handled(ALICE, 10_000), Err(CheckError::TooManyOutputs { .. })));
    }
}
