//! Newcomers catch up in the shadow of those they take over from: nobody waits for the tiles that move.
//!
//! ```text
//!  epoch e     owners compute and ship ────────────────────────────────────────────► T      e+1: the shadows own
//!  from tick t   │ parts as they are before t, chunk by chunk ─► the shadow enters   │
//!                │ payloads from t on, kept here ─► a few at a time ─► computes t, … ► T
//!                └ how far the shadow is ─► coordinator: nearly there ─► plans e+1 at T, the last tick granted
//! ```
//!
//! Whoever has no tiles and gets some is their *shadow* for an epoch ([`EpochPlan::shadows`]): it reads what an owner would
//! read, computes what an owner would compute, and nobody reads from it. Owners keep what it has yet to be sent in a
//! [`Backlog`] each, so that its link is never so full that others' frames would wait. At T it holds the tiles that it
//! computed, and the next epoch begins without a byte under way.
//!
//! Others do wait for a shadow that is so far behind that a backlog is full, and for the rest of its way where somebody else
//! comes, goes or wishes something before it is there.
//!
//! Invariant: an epoch is complete without its shadows' ticks; their votes and their copies count as anybody's.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::plan::{EpochPlan, MemberId, Version};
use super::wire::Message;
use super::{Member, PartId, Parts};
use crate::ownership::PeerIndex;

/// Payloads under way to a shadow: with the chunks that it may ask for at once, they fit a link's queue.
pub(super) const SENT_MAX: usize = 24;
/// … and their bytes, where they are more than one.
const SENT_BYTES_MAX: usize = 4 << 20;
/// What all backlogs of one member may keep, and the least that each may.
const BACKLOGS_BYTES_MAX: usize = 256 << 20;
const BACKLOG_BYTES_MIN: usize = 8 << 20;
/// A shadow this far behind is told so late by its pace that it may be nearer.
const NEAR: Duration = Duration::from_millis(25);
/// One that has come no nearer for so long will not.
const FALLS_BEHIND: Duration = Duration::from_secs(5);
/// Somebody who wants to join waits this long for shadows whose tiles are still coming.
pub(super) const JOINERS_WAIT: Duration = Duration::from_secs(4);

/// What a shadow has yet to be sent, by one owner.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    kept: VecDeque<Kept>,
    bytes: usize,
    bytes_max: usize,
    /// Sequences sent and not known to be taken, with their bytes.
    sent: VecDeque<(u64, usize)>,
    sent_bytes: usize,
    /// Whether the shadow has entered the epoch.
    is_open: bool,
}

#[derive(Debug)]
struct Kept {
    sequence: u64,
    exchange: u16,
    payload: Bytes,
}

impl Backlog {
    fn push(&mut self, sequence: u64, exchange: u16, payload: &Bytes) {
        self.bytes += payload.len();
        // A copy: the payload is a slice of what goes to everybody.
        self.kept.push_back(Kept { sequence, exchange, payload: Bytes::copy_from_slice(payload) });
    }

    /// The shadow has everything up to `sequence`.
    fn taken(&mut self, sequence: u64) {
        while let Some((_, bytes)) = self.sent.pop_front_if(|(sent, _)| *sent <= sequence) {
            self.sent_bytes -= bytes;
        }
    }

    /// What may be sent now.
    fn next(&mut self) -> Option<Kept> {
        let bytes = self.kept.front()?.payload.len();
        let has_room = self.sent.is_empty() || (self.sent.len() < SENT_MAX && self.sent_bytes + bytes <= SENT_BYTES_MAX);
        let next = self.kept.pop_front_if(|_| self.is_open && has_room)?;
        self.bytes -= bytes;
        self.sent.push_back((next.sequence, bytes));
        self.sent_bytes += bytes;
        Some(next)
    }

    fn is_full(&self) -> bool {
        self.bytes > self.bytes_max
    }
}

/// The backlogs of the latest epoch that had shadows: one for each, by identity. They outlive it: a shadow takes over at its
/// last tick, and has yet to get there when its owners are.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    epoch: u32,
    of: BTreeMap<String, Backlog>,
}

impl Backlogs {
    /// Takes up an epoch's shadows; a shadow itself sends nothing. `entered` are those who have entered it already.
    pub(super) fn begin(&mut self, plan: &EpochPlan, me: PeerIndex, entered: impl Fn(MemberId) -> bool) {
        let places = (0u16..).map(PeerIndex).zip(&plan.roster);
        let shadows: Vec<_> = places.filter(|(at, _)| !plan.is_shadow(me) && plan.is_shadow(*at)).collect();
        if shadows.is_empty() && plan.hashes.is_empty() {
            self.of.retain(|_, backlog| !backlog.kept.is_empty());
            return;
        }
        let bytes_max = (BACKLOGS_BYTES_MAX / shadows.len().max(1)).max(BACKLOG_BYTES_MIN);
        let backlog = |id| Backlog { bytes_max, is_open: entered(id), ..Backlog::default() };
        self.epoch = plan.epoch;
        self.of = shadows.into_iter().map(|(_, member)| (member.identity.clone(), backlog(member.id))).collect();
    }

    /// A member is in this epoch: what an earlier one kept for it is wanted no more.
    pub(super) fn is_in(&mut self, identity: &str, epoch: u32) {
        if epoch > self.epoch {
            self.of.remove(identity);
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    fn of(&mut self, epoch: u32, identity: &str) -> Option<&mut Backlog> {
        (epoch == self.epoch).then(|| self.of.get_mut(identity)).flatten()
    }

    /// Keeps a payload for a shadow; whether it is for one.
    pub(super) fn keep(&mut self, epoch: u32, to: &str, sequence: u64, exchange: u16, payload: &Bytes) -> bool {
        let backlog = self.of(epoch, to);
        let is_kept = backlog.is_some();
        if let Some(backlog) = backlog {
            backlog.push(sequence, exchange, payload);
        }
        is_kept
    }

    /// Whether an epoch's ticks wait until a shadow is nearer.
    pub(super) fn is_full(&self, epoch: u32) -> bool {
        epoch == self.epoch && self.of.values().any(Backlog::is_full)
    }
}

/// How the coordinator sees its epoch's shadows come nearer.
#[derive(Debug, Default)]
pub(super) struct Nearing {
    /// The least that the last of them was behind, in ticks, and when that was first so.
    least: Option<(u64, Duration)>,
}

impl Nearing {
    /// Whether they are near enough, or come no nearer. `near` are the ticks that count as none.
    fn is_over(&mut self, behind: u64, near: u64, now: Duration) -> bool {
        match self.least {
            Some((least, at)) if behind >= least => behind <= near || at + FALLS_BEHIND <= now,
            _ => {
                self.least = Some((behind, now));
                behind <= near
            }
        }
    }
}

/// What a newcomer waits for, and everybody with it, where it takes over at once: seconds, at what its link is known or assumed to carry.
pub(super) fn longest_fetch_s(parts: &Parts, owners: &[PeerIndex], newcomers: &[(PeerIndex, f64)]) -> f64 {
    let seconds = newcomers.iter().map(|(newcomer, bytes_per_s)| {
        let gets = (0u32..).map(PartId).zip(owners).filter(|(_, owner)| *owner == newcomer);
        gets.map(|(part, _)| u64::from(parts.bytes(part))).sum::<u64>() as f64 / bytes_per_s
    });
    seconds.fold(0.0, f64::max)
}

impl Member {
    /// Sends shadows what they have room for.
    pub(super) fn feed_shadows(&mut self) {
        let epoch = self.backlogs.epoch;
        let mut due = Vec::new();
        for (to, backlog) in &mut self.backlogs.of {
            // A link that breaks takes what is under way with it: an epoch follows.
            let Some(link) = self.links.to(to) else { continue };
            while let Some(next) = backlog.next() {
                due.push((link, next));
            }
        }
        for (link, Kept { sequence, exchange, payload }) in due {
            self.send(link, &Message::Data { epoch, exchange, sequence, payload });
        }
    }

    /// A member has entered an epoch, as a shadow perhaps.
    pub(super) fn shadow_entered(&mut self, identity: &str, epoch: u32) {
        if let Some(backlog) = self.backlogs.of(epoch, identity) {
            backlog.is_open = true;
            self.feed_shadows();
        }
    }

    /// A peer has everything up to `sequence`.
    pub(super) fn shadow_took(&mut self, identity: &str, epoch: u32, sequence: u64) {
        if let Some(backlog) = self.backlogs.of(epoch, identity) {
            backlog.taken(sequence);
            self.feed_shadows();
        }
    }

    /// A part that this member computed as a shadow, as it is where a planned epoch begins.
    pub(super) fn shadowed(&self, version: Version, part: PartId) -> Option<&Bytes> {
        let (of, parts) = self.running.as_ref()?.shadowed.as_ref()?;
        let at = parts.binary_search_by_key(&part, |(part, _)| *part).ok()?;
        (*of == version).then(|| &parts[at].1)
    }

    /// Coordinator: whether its epoch's shadows should own what they compute, from the next tick on that is not granted.
    /// `is_wanted` says that somebody waits for another epoch.
    pub(super) fn shadows_take_over(&mut self, is_wanted: bool) -> bool {
        let behind = self.lead.shadows_behind();
        let near = ((self.lead.rate * NEAR.as_secs_f64()) as u64).max(1);
        self.lead.nearing.is_over(behind, near, self.now) || is_wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_sends_a_few_at_a_time_and_only_once_the_shadow_is_there() {
        let mut backlog = Backlog { bytes_max: 100, ..Backlog::default() };
        let payload = Bytes::from_static(&[7; 10]);
        for sequence in 0..40 {
            backlog.push(sequence, 3, &payload);
        }
        assert!(backlog.is_full() && backlog.next().is_none());
        backlog.is_open = true;
        let sent: Vec<u64> = std::iter::from_fn(|| backlog.next()).map(|kept| kept.sequence).collect();
        assert_eq!(sent, (0..SENT_MAX as u64).collect::<Vec<_>>());
        backlog.taken(1);
        assert_eq!(std::iter::from_fn(|| backlog.next()).count(), 2);
        backlog.taken(39);
        assert_eq!((std::iter::from_fn(|| backlog.next()).count(), backlog.bytes, backlog.is_full()), (14, 0, false));
    }

    #[test]
    fn what_is_kept_for_a_shadow_outlives_its_epoch_until_it_is_in_a_later_one() {
        let payload = Bytes::from_static(&[7; 10]);
        let mut backlogs = Backlogs { epoch: 3, of: ["ada", "ben"].map(|name| (name.to_owned(), Backlog::default())).into() };
        assert!(backlogs.keep(3, "ada", 1, 0, &payload) && backlogs.keep(3, "ben", 1, 0, &payload));
        assert!(!backlogs.keep(4, "ada", 2, 0, &payload) && !backlogs.keep(3, "eve", 2, 0, &payload), "it is for nobody's shadow");
        backlogs.is_in("ada", 3);
        assert!(backlogs.keep(3, "ada", 3, 0, &payload), "it is in the epoch that it shadows");
        backlogs.is_in("ada", 4);
        assert!(!backlogs.keep(3, "ada", 4, 0, &payload) && backlogs.keep(3, "ben", 4, 0, &payload));
    }

    #[test]
    fn large_payloads_go_one_by_one() {
        let mut backlog = Backlog { bytes_max: 1, is_open: true, ..Backlog::default() };
        let payload = Bytes::from(vec![0; SENT_BYTES_MAX]);
        backlog.push(5, 0, &payload);
        backlog.push(6, 0, &payload);
        assert!(backlog.next().is_some() && backlog.next().is_none());
        backlog.taken(5);
        assert!(backlog.next().is_some() && !backlog.is_full());
    }

    #[test]
    fn whoever_is_near_or_comes_no_nearer_takes_over() {
        let at = Duration::from_secs;
        let mut nearing = Nearing::default();
        assert!(!nearing.is_over(90, 2, at(0)) && !nearing.is_over(95, 2, at(4)) && !nearing.is_over(80, 2, at(5)));
        assert!(!nearing.is_over(81, 2, at(9)), "it came nearer four seconds ago");
        assert!(nearing.is_over(80, 2, at(10)) && nearing.is_over(2, 2, at(10)));
        assert!(Nearing::default().is_over(1, 1, at(0)));
    }
}
