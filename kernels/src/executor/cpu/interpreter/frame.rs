//! The words of all slots, and the sets of lanes.
//!
//! ```text
//! words │ slots of one word │ wide slot │ wide slot │ … │ lanes of masks │      wide slots begin where `table` says
//! ```
//!
//! Wide slots and masks swap places through the table. Invariant: `table` is a permutation of what the plan
//! says, among slots of one width, so no two slots ever overlap.

use super::access::any_and_all;
use super::lanes::Source;
use super::tape::{Arg, Mask, Slot, Width};

/// Which lanes a mask has: its words count only if it is mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    Empty,
    /// All of the workgroup.
    Full,
    /// Some; all ones where one is there.
    Mixed,
}

/// The words of one thread.
pub(super) struct Frame<'f> {
    pub(super) words: &'f mut [u32],
    pub(super) table: &'f mut [u32],
    pub(super) kinds: &'f mut [Kind],
    /// The wide slot of the first mask.
    pub(super) first_mask: Slot,
    pub(super) rows: usize,
    pub(super) lanes: usize,
}

/// All words but one slot's.
pub(super) struct Others<'f> {
    below: &'f [u32],
    above: &'f [u32],
    above_at: usize,
    table: &'f [u32],
    kinds: &'f [Kind],
    first_mask: Slot,
    rows: usize,
    lanes: usize,
}

impl Frame<'_> {
    #[inline(always)]
    pub(super) fn one(&self, slot: Slot) -> u32 {
        self.words[slot as usize]
    }

    #[inline(always)]
    pub(super) fn set_one(&mut self, slot: Slot, word: u32) {
        self.words[slot as usize] = word;
    }

    #[inline(always)]
    fn width(&self, width: Width) -> usize {
        match width {
            Width::Rows => self.rows,
            Width::Lanes => self.lanes,
        }
    }

    /// A slot to write, and all others to read.
    #[inline(always)]
    pub(super) fn carve(&mut self, slot: Slot, width: Width) -> (&mut [u32], Others<'_>) {
        let (at, words) = (self.table[slot as usize] as usize, self.width(width));
        let (below, rest) = self.words.split_at_mut(at);
        let (target, above) = rest.split_at_mut(words);
        let (rows, lanes, first_mask) = (self.rows, self.lanes, self.first_mask);
        (target, Others { below, above, above_at: at + words, table: self.table, kinds: self.kinds, first_mask, rows, lanes })
    }

    /// All slots to read.
    #[inline(always)]
    pub(super) fn all(&self) -> Others<'_> {
        let (rows, lanes, first_mask) = (self.rows, self.lanes, self.first_mask);
        Others { below: self.words, above: &[], above_at: usize::MAX, table: self.table, kinds: self.kinds, first_mask, rows, lanes }
    }

    #[inline(always)]
    pub(super) fn swap(&mut self, a: Slot, b: Slot) {
        self.table.swap(a as usize, b as usize);
    }

    // ---- masks

    #[inline(always)]
    pub(super) fn kind(&self, mask: Mask) -> Kind {
        self.kinds[mask.0 as usize]
    }

    #[inline(always)]
    pub(super) fn set_kind(&mut self, mask: Mask, kind: Kind) {
        self.kinds[mask.0 as usize] = kind;
    }

    #[inline(always)]
    fn mask_slot(&self, mask: Mask) -> Slot {
        self.first_mask + mask.0
    }

    /// Parts a set of lanes by a condition.
    #[inline(always)]
    pub(super) fn split(&mut self, condition: Slot, from: Mask, accept: Mask, reject: Mask) {
        let (any, all) = self.any_and_all_of(condition, 0, from);
        let kind = self.kind(from);
        if any && all {
            self.copy_mask(from, accept);
            self.set_kind(reject, Kind::Empty);
        } else if !any {
            self.copy_mask(from, reject);
            self.set_kind(accept, Kind::Empty);
        } else {
            for (to, flip) in [(accept, 0), (reject, u32::MAX)] {
                let (words, others) = self.carve(self.mask_slot(to), Width::Lanes);
                let condition = others.wide(condition, Width::Lanes);
                if kind == Kind::Full {
                    words.iter_mut().zip(condition).for_each(|(to, &condition)| *to = condition ^ flip);
                } else {
                    let from = others.wide(others.first_mask + from.0, Width::Lanes);
                    words.iter_mut().zip(condition).zip(from).for_each(|((to, &condition), &from)| *to = (condition ^ flip) & from);
                }
                self.set_kind(to, Kind::Mixed);
            }
        }
    }

    /// Moves those where the condition, flipped, holds.
    #[inline(always)]
    pub(super) fn leave(&mut self, condition: Slot, flip: u32, from: Mask, to: Mask) {
        let (any, all) = self.any_and_all_of(condition, flip, from);
        if any && all {
            self.take(to, from);
        } else if any {
            self.leave_some(condition, flip, from, to);
        }
    }

    #[inline(always)]
    fn leave_some(&mut self, condition: Slot, flip: u32, from: Mask, to: Mask) {
        let (is_full, is_first) = (self.kind(from) == Kind::Full, self.kind(to) == Kind::Empty);
        // Whoever leaves is not there yet, so `to` cannot be full; afterwards it is as full as its words say.
        let (words, others) = self.carve(self.mask_slot(to), Width::Lanes);
        let condition_words = others.wide(condition, Width::Lanes);
        let from_words = others.wide(others.first_mask + from.0, Width::Lanes);
        for ((to, &condition), &from) in words.iter_mut().zip(condition_words).zip(from_words) {
            let before = if is_first { 0 } else { *to };
            let from = if is_full { u32::MAX } else { from };
            *to = before | (condition ^ flip) & from;
        }
        self.set_kind(to, Kind::Mixed);
        let (words, others) = self.carve(self.mask_slot(from), Width::Lanes);
        for (from, &condition) in words.iter_mut().zip(others.wide(condition, Width::Lanes)) {
            *from = if is_full { u32::MAX } else { *from } & !(condition ^ flip);
        }
        self.set_kind(from, Kind::Mixed);
    }

    /// Whether a condition, flipped, holds for any of these lanes, and whether for all.
    #[inline(always)]
    fn any_and_all_of(&self, condition: Slot, flip: u32, mask: Mask) -> (bool, bool) {
        let others = self.all();
        let condition = others.wide(condition, Width::Lanes);
        match self.kind(mask) {
            Kind::Empty => (false, true),
            Kind::Full => {
                let (any, all) = any_and_all(condition);
                if flip == 0 { (any, all) } else { (!all, !any) }
            }
            Kind::Mixed => {
                let mask = others.wide(self.mask_slot(mask), Width::Lanes);
                let both = condition
                    .iter()
                    .zip(mask)
                    .fold((0, 0), |(any, other), (&condition, &mask)| (any | (condition ^ flip) & mask, other | !(condition ^ flip) & mask));
                (both.0 != 0, both.1 == 0)
            }
        }
    }

    #[inline(always)]
    fn copy_mask(&mut self, from: Mask, to: Mask) {
        let kind = self.kind(from);
        if kind == Kind::Mixed {
            let (words, others) = self.carve(self.mask_slot(to), Width::Lanes);
            words.copy_from_slice(others.wide(others.first_mask + from.0, Width::Lanes));
        }
        self.set_kind(to, kind);
    }

    /// Moves all lanes of a set to another one.
    #[inline(always)]
    pub(super) fn take(&mut self, to: Mask, from: Mask) {
        match (self.kind(to), self.kind(from)) {
            (_, Kind::Empty) => return,
            (Kind::Full, _) => {}
            (_, Kind::Full) => self.set_kind(to, Kind::Full),
            (Kind::Empty, Kind::Mixed) => {
                self.swap(self.mask_slot(to), self.mask_slot(from));
                self.set_kind(to, Kind::Mixed);
            }
            (Kind::Mixed, Kind::Mixed) => {
                let (words, others) = self.carve(self.mask_slot(to), Width::Lanes);
                let mut all = u32::MAX;
                for (to, &from) in words.iter_mut().zip(others.wide(others.first_mask + from.0, Width::Lanes)) {
                    *to |= from;
                    all &= *to;
                }
                self.set_kind(to, if all == u32::MAX { Kind::Full } else { Kind::Mixed });
            }
        }
        self.set_kind(from, Kind::Empty);
    }
}

impl Others<'_> {
    #[inline(always)]
    pub(super) fn one(&self, slot: Slot) -> u32 {
        self.below[slot as usize]
    }

    #[inline(always)]
    pub(super) fn wide(&self, slot: Slot, width: Width) -> &[u32] {
        let at = self.table[slot as usize] as usize;
        let words = match width {
            Width::Rows => self.rows,
            Width::Lanes => self.lanes,
        };
        if at < self.above_at { &self.below[at..at + words] } else { &self.above[at - self.above_at..][..words] }
    }

    #[inline(always)]
    pub(super) fn source(&self, arg: Arg, width: Width) -> Source<'_> {
        match arg {
            Arg::One(slot) => Source::One(self.one(slot)),
            Arg::Wide(slot) => Source::Wide(self.wide(slot, width)),
        }
    }

    /// The lanes of a set; nothing if that is all of them. It is not empty.
    #[inline(always)]
    pub(super) fn mask(&self, mask: Mask) -> Option<&[u32]> {
        (self.kinds[mask.0 as usize] == Kind::Mixed).then(|| self.wide(self.first_mask + mask.0, Width::Lanes))
    }
}
