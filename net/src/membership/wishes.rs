//! Wishes: what members want of the run itself, and how that becomes part of an epoch.
//!
//! ```text
//!  node ─ Event::Wish ─► member ─ Wish ─► coordinator ─► the next epoch's plan: is_paused, changes ─► every node
//! ```
//!
//! A change holds from an epoch's first tick on, for all members alike, and is undone by no loss: the plans that follow carry it.
//! While a run is paused its coordinator grants no tick; members come, go and are missed as ever. Invariants: what a run computes
//! depends on which changes hold from which tick, never on who wished for them or when; a plan's list of changes is bounded, and
//! holds every change that a tick may still be computed with.

use std::time::Duration;

use super::plan::EpochPlan;
use super::wire::Message;
use super::{Member, Notice, Output};
use crate::wire::{Reader, WireError};

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 64;
/// Bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Changes that a plan carries.
pub const CHANGES_MAX: usize = 1024;

/// A word for all nodes, from a tick on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// It holds for this tick and later ones, until another of the same key does.
    pub tick: u64,
    /// What changes, ≤ 64 bytes; opaque here.
    pub key: String,
    /// To what, ≤ 1 KiB; opaque here.
    pub value: String,
}

/// What a member may want of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// That no tick passes, or that ticks pass again.
    Pause(bool),
    /// That this holds from soon on.
    Change {
        /// What changes, ≤ 64 bytes.
        key: String,
        /// To what, ≤ 1 KiB.
        value: String,
    },
}

impl Wish {
    /// Whether both are about the same thing.
    fn is_like(&self, other: &Wish) -> bool {
        match (self, other) {
            (Wish::Pause(_), Wish::Pause(_)) => true,
            (Wish::Change { key, .. }, Wish::Change { key: other, .. }) => key == other,
            _ => false,
        }
    }

    fn is_bounded(&self) -> bool {
        match self {
            Wish::Pause(_) => true,
            Wish::Change { key, value } => key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX,
        }
    }

    /// Whether a plan is as this would have it.
    fn is_granted(&self, plan: &EpochPlan) -> bool {
        match self {
            Wish::Pause(is_paused) => plan.is_paused == *is_paused,
            Wish::Change { key, value } => plan.changes.iter().rfind(|change| change.key == *key).is_some_and(|change| change.value == *value),
        }
    }
}

/// Wishes in the order of their coming, one at most for each thing.
#[derive(Debug, Default)]
pub(super) struct Wishes(Vec<Wish>);

impl Wishes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has_like(&self, wish: &Wish) -> bool {
        self.0.iter().any(|other| other.is_like(wish))
    }

    /// In place of what was wished for the same thing before; `plan` is the newest.
    fn add(&mut self, wish: Wish, plan: Option<&EpochPlan>) {
        self.0.retain(|other| !other.is_like(&wish));
        if self.0.len() < CHANGES_MAX && !plan.is_some_and(|plan| wish.is_granted(plan)) {
            self.0.push(wish);
        }
    }

    /// What a plan has granted is wished for no more.
    pub(super) fn settle(&mut self, plan: &EpochPlan) {
        self.0.retain(|wish| !wish.is_granted(plan));
    }

    /// Makes a plan as they would have it; its changes hold from its first tick on. Of what no tick from `oldest` on is computed
    /// with, nothing stays.
    pub(super) fn grant(&self, plan: &mut EpochPlan, oldest: u64) {
        for wish in self.0.iter().filter(|wish| !wish.is_granted(plan)).cloned().collect::<Vec<_>>() {
            match wish {
                Wish::Pause(is_paused) => plan.is_paused = is_paused,
                Wish::Change { key, value } => {
                    // After a loss ticks are computed again: who spoke last still has the last word.
                    let tick = plan.changes.last().map_or(0, |last| last.tick).max(plan.tick);
                    plan.changes.push(Change { tick, key, value });
                }
            }
        }
        let changes = std::mem::take(&mut plan.changes);
        let is_past = |at: usize| changes[at + 1..].iter().any(|later| later.key == changes[at].key && later.tick <= oldest.max(changes[at].tick));
        plan.changes = (0..changes.len()).filter(|at| !is_past(*at)).map(|at| changes[at].clone()).collect();
        // More than anybody has fields: the oldest words go unheard.
        let excess = plan.changes.len().saturating_sub(CHANGES_MAX);
        plan.changes.drain(..excess);
    }
}

/// How long a member goes on wishing for what no epoch grants. **Units**: time since its latest wish.
const WISHED_FOR: Duration = Duration::from_secs(10);

/// A member's own wishes, until an epoch grants them.
#[derive(Debug, Default)]
pub(super) struct Wishing {
    wishes: Wishes,
    /// When the latest came.
    at: Duration,
    /// The epoch whose coordinator has been told of all of them.
    told: Option<u32>,
}

impl Member {
    /// The node, or its user, wishes for something.
    pub(super) fn wish(&mut self, wish: Wish) {
        if !wish.is_bounded() {
            let text = format!("a wish of more than {KEY_BYTES_MAX} bytes for a key or {VALUE_BYTES_MAX} for a value is not passed on");
            self.outputs.push_back(Output::Notice(Notice::Wish { text }));
            return;
        }
        // As it is already, and nothing was said that could change it.
        if self.decided.as_ref().is_some_and(|plan| wish.is_granted(plan)) && !self.wishing.wishes.has_like(&wish) {
            return;
        }
        self.wishing.wishes.add(wish, None);
        (self.wishing.told, self.wishing.at) = (None, self.now);
    }

    /// Tells the coordinator, and that of every epoch until one grants them: what was said before it may be lost with a link.
    pub(super) fn advance_wishing(&mut self) {
        let (Some(plan), Some(me)) = (self.decided.clone(), self.id) else { return };
        let wishing = &mut self.wishing;
        if wishing.wishes.is_empty() || wishing.told == Some(plan.epoch) {
            return;
        }
        if wishing.at + WISHED_FOR <= self.now {
            wishing.wishes = Wishes::default();
            return;
        }
        let coordinator = plan.coordinator();
        if plan.index_of(me).is_none() || (me != coordinator && self.link_to(coordinator).is_none()) {
            return;
        }
        // An epoch says nothing of what was wished after it.
        if self.wishing.told.replace(plan.epoch).is_some() {
            self.wishing.wishes.settle(&plan);
        }
        for wish in self.wishing.wishes.0.clone() {
            if me == coordinator {
                self.told_wish(wish);
            } else {
                self.send_to(coordinator, &Message::Wish { epoch: plan.epoch, wish });
            }
        }
    }

    /// A member wishes for something, and this one coordinates.
    pub(super) fn told_wish(&mut self, wish: Wish) {
        // Where an epoch is being voted on, this one says nothing of the next.
        let plan = self.decided.clone().filter(|_| !self.lead.is_frozen());
        self.lead.wishes.add(wish, plan.as_deref());
    }
}

pub(super) fn put_wish(out: &mut Vec<u8>, wish: &Wish) {
    match wish {
        Wish::Pause(is_paused) => out.push(u8::from(*is_paused)),
        Wish::Change { key, value } => {
            out.push(2);
            put_word(out, key, value);
        }
    }
}

pub(super) fn take_wish(reader: &mut Reader) -> Result<Wish, WireError> {
    match reader.u8("wish")? {
        0 => Ok(Wish::Pause(false)),
        1 => Ok(Wish::Pause(true)),
        2 => {
            let (key, value) = take_word(reader)?;
            Ok(Wish::Change { key, value })
        }
        value => Err(WireError::BadValue { field: "wish", value: value.into() }),
    }
}

pub(super) fn put_change(out: &mut Vec<u8>, change: &Change) {
    out.extend(change.tick.to_le_bytes());
    put_word(out, &change.key, &change.value);
}

pub(super) fn take_change(reader: &mut Reader) -> Result<Change, WireError> {
    let tick = reader.u64("change tick")?;
    let (key, value) = take_word(reader)?;
    Ok(Change { tick, key, value })
}

fn put_word(out: &mut Vec<u8>, key: &str, value: &str) {
    out.push(key.len() as u8);
    out.extend(key.bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value.bytes());
}

fn take_word(reader: &mut Reader) -> Result<(String, String), WireError> {
    let length = usize::from(reader.u8("key length")?);
    let key = reader.text("key", length, KEY_BYTES_MAX)?;
    let length = usize::from(reader.u16("value length")?);
    Ok((key, reader.text("value", length, VALUE_BYTES_MAX)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{MemberId, Origin};

    fn plan(tick: u64, changes: &[(u64, &str, &str)]) -> EpochPlan {
        let changes = changes.iter().map(|(tick, key, value)| Change { tick: *tick, key: (*key).into(), value: (*value).into() });
        EpochPlan {
            epoch: 2,
            run: [1; 16],
            tick,
            end: u64::MAX,
            origin: Origin::Init,
            replicas: 1,
            next_member: MemberId(2),
            roster: Vec::new(),
            leaving: Vec::new(),
            owners: Vec::new(),
            shadows: Vec::new(),
            sources: Vec::new(),
            hashes: Vec::new(),
            is_paused: false,
            changes: changes.collect(),
            task: Default::default(),
        }
    }

    fn change(key: &str, value: &str) -> Wish {
        Wish::Change { key: key.into(), value: value.into() }
    }

    fn granted(wishes: &[Wish], mut plan: EpochPlan, oldest: u64) -> EpochPlan {
        let mut all = Wishes::default();
        wishes.iter().for_each(|wish| all.add(wish.clone(), Some(&plan)));
        all.grant(&mut plan, oldest);
        all.settle(&plan);
        assert!(all.is_empty(), "{all:?}");
        plan
    }

    #[test]
    fn what_is_wished_last_holds_from_the_epochs_first_tick() {
        let next = granted(&[change("rate", "1"), Wish::Pause(true), change("rate", "2"), change("drag", "3")], plan(40, &[(7, "rate", "0")]), 7);
        assert_eq!((next.is_paused, next.changes), (true, plan(0, &[(7, "rate", "0"), (40, "rate", "2"), (40, "drag", "3")]).changes));
        // What is so already is no reason for an epoch.
        let mut all = Wishes::default();
        all.add(change("rate", "0"), Some(&plan(40, &[(7, "rate", "0")])));
        all.add(Wish::Pause(false), Some(&plan(40, &[])));
        assert!(all.is_empty());
        // … and takes back what was wished before.
        all.add(Wish::Pause(true), Some(&plan(40, &[])));
        all.add(Wish::Pause(false), Some(&plan(40, &[])));
        assert!(all.is_empty());
    }

    #[test]
    fn a_change_stays_for_as_long_as_a_tick_may_be_computed_with_it() {
        let before = [(7, "rate", "0"), (20, "rate", "1"), (30, "drag", "5")];
        let at = |oldest| granted(&[change("rate", "2")], plan(40, &before), oldest).changes;
        assert_eq!(at(19), plan(0, &[(7, "rate", "0"), (20, "rate", "1"), (30, "drag", "5"), (40, "rate", "2")]).changes);
        assert_eq!(at(20), plan(0, &[(20, "rate", "1"), (30, "drag", "5"), (40, "rate", "2")]).changes);
        assert_eq!(at(40), plan(0, &[(30, "drag", "5"), (40, "rate", "2")]).changes);
        // Ticks are computed again, and the last word stays the last.
        assert_eq!(granted(&[change("rate", "2")], plan(25, &before), 0).changes.last(), plan(0, &[(30, "rate", "2")]).changes.last());
    }

    #[test]
    fn changes_are_bounded() {
        let many: Vec<Wish> = (0..CHANGES_MAX + 9).map(|number| change(&format!("key {number}"), "1")).collect();
        let mut plan = plan(40, &[(1, "first", "1"), (2, "second", "1")]);
        let mut wishes = Wishes::default();
        many.into_iter().for_each(|wish| wishes.add(wish, None));
        wishes.grant(&mut plan, 0);
        assert_eq!((plan.changes.len(), plan.changes[0].key.as_str()), (CHANGES_MAX, "key 0"));
        assert!(!change("x", &"1".repeat(VALUE_BYTES_MAX + 1)).is_bounded() && change("x", "1").is_bounded());
    }
}
