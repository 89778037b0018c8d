//! The words of all slots, and the sets of lanes.
//!
//! ```text
//! words │ slots of one word │ wide slot │ wide slot │ … │ lanes of masks │      wide slots begin where `table` says
//! ```
//!
//! Wide slots and masks swap places through the table. Steps over lanes go through the *window* alone: consecutive
//! lanes, or rows, with everybody in them who is there; a branch for a few is then a matter of a few words.
//!
//! Invariants: `table` is a permutation of what the plan says, among slots of one width, so no two slots ever
//! overlap; whoever is in the mask of a step is in the window, and where the mask is dense nobody else is.

use super::access::any_and_all;
use super::lanes::Source;
use super::tape::{Arg, Mask, Slot, Width};

/// Which lanes a mask has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    Empty,
    /// All of the workgroup.
    Full,
    /// All of these.
    Dense(Bounds),
    /// Some, all of them within these: the mask's words count, all ones where a lane is there.
    Mixed(Bounds),
}

/// Consecutive lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) first: u32,
    pub(super) end: u32,
}

/// Lanes that are looked at together for where a mask begins and ends; what windows are multiples of, unless a mask
/// has all in them.
const CHUNK: usize = 16;

impl Bounds {
    #[inline(always)]
    pub(super) fn first(self) -> usize {
        self.first as usize
    }

    #[inline(always)]
    pub(super) fn count(self) -> usize {
        (self.end - self.first) as usize
    }

    #[inline(always)]
    fn with(self, other: Bounds) -> Bounds {
        Bounds { first: self.first.min(other.first), end: self.end.max(other.end) }
    }

    #[inline(always)]
    fn within(self, other: Bounds) -> Bounds {
        let first = self.first.clamp(other.first, other.end);
        Bounds { first, end: self.end.clamp(first, other.end) }
    }

    /// All of these lanes.
    #[inline(always)]
    fn kind(self, lanes: usize) -> Kind {
        match self.count() {
            0 => Kind::Empty,
            count if count == lanes => Kind::Full,
            _ => Kind::Dense(self),
        }
    }
}

/// Which lanes the words of a mask have.
#[inline(always)]
fn kind_of(words: &[u32]) -> Kind {
    let (chunks, rest) = words.as_chunks::<CHUNK>();
    let any = |chunk: &[u32; CHUNK]| chunk.iter().fold(0, |any, &word| any | word) != 0;
    let is_there = |word: &u32| *word != 0;
    let first = match chunks.iter().position(any) {
        Some(chunk) => chunk * CHUNK + chunks[chunk].iter().position(is_there).unwrap_or(0),
        None => match rest.iter().position(is_there) {
            Some(lane) => words.len() - rest.len() + lane,
            None => return Kind::Empty,
        },
    };
    let last = match rest.iter().rposition(is_there) {
        Some(lane) => words.len() - rest.len() + lane,
        None => {
            let chunk = chunks.iter().rposition(any).unwrap_or(0);
            chunk * CHUNK + chunks[chunk].iter().rposition(is_there).unwrap_or(0)
        }
    };
    let bounds = Bounds { first: first as u32, end: last as u32 + 1 };
    let is_dense = words[first..=last].iter().fold(u32::MAX, |all, &word| all & word) != 0;
    if is_dense { bounds.kind(words.len()) } else { Kind::Mixed(bounds) }
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
    pub(super) window: Bounds,
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
    window: Bounds,
}

impl<'f> Frame<'f> {
    /// Of a workgroup that begins, all of it.
    pub(super) fn new(words: &'f mut [u32], table: &'f mut [u32], kinds: &'f mut [Kind], first_mask: Slot, rows: usize, lanes: usize) -> Frame<'f> {
        kinds[0] = Kind::Full;
        Frame { words, table, kinds, first_mask, rows, lanes, window: Bounds { first: 0, end: lanes as u32 } }
    }

    #[inline(always)]
    pub(super) fn one(&self, slot: Slot) -> u32 {
        self.words[slot as usize]
    }

    #[inline(always)]
    pub(super) fn set_one(&mut self, slot: Slot, word: u32) {
        self.words[slot as usize] = word;
    }

    /// A slot to write, and all others to read.
    #[inline(always)]
    pub(super) fn carve(&mut self, slot: Slot, width: Width) -> (&mut [u32], Others<'_>) {
        match width {
            Width::Rows => self.carved(slot, 0, self.rows),
            Width::Lanes => self.carved(slot, self.window.first(), self.window.count()),
        }
    }

    /// A mask to write, and all slots to read.
    #[inline(always)]
    fn carve_mask(&mut self, mask: Mask) -> (&mut [u32], Others<'_>) {
        self.carved(self.mask_slot(mask), 0, self.lanes)
    }

    #[inline(always)]
    fn carved(&mut self, slot: Slot, first: usize, words: usize) -> (&mut [u32], Others<'_>) {
        let at = self.table[slot as usize] as usize + first;
        let (below, rest) = self.words.split_at_mut(at);
        let (target, above) = rest.split_at_mut(words);
        let (rows, lanes, first_mask, window) = (self.rows, self.lanes, self.first_mask, self.window);
        (target, Others { below, above, above_at: at + words, table: self.table, kinds: self.kinds, first_mask, rows, lanes, window })
    }

    /// All slots to read.
    #[inline(always)]
    pub(super) fn all(&self) -> Others<'_> {
        let (rows, lanes, first_mask, window) = (self.rows, self.lanes, self.first_mask, self.window);
        Others { below: self.words, above: &[], above_at: usize::MAX, table: self.table, kinds: self.kinds, first_mask, rows, lanes, window }
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

    fn everybody(&self) -> Bounds {
        Bounds { first: 0, end: self.lanes as u32 }
    }

    /// Goes on with the lanes of a set.
    #[inline(always)]
    pub(super) fn look_at(&mut self, mask: Mask) {
        self.window = match self.kind(mask) {
            Kind::Empty | Kind::Full => self.everybody(),
            Kind::Dense(bounds) if self.rows == 1 => bounds,
            Kind::Dense(_) | Kind::Mixed(_) => self.window_around(mask),
        };
    }

    /// Whole rows, or whole chunks of the only one.
    fn window_around(&mut self, mask: Mask) -> Bounds {
        let bounds = self.bounds(mask);
        let unit = if self.rows == 1 { CHUNK } else { self.lanes / self.rows } as u32;
        let window = Bounds { first: bounds.first / unit * unit, end: bounds.end.next_multiple_of(unit).min(self.lanes as u32) };
        if window != bounds {
            self.spell(mask);
        }
        window
    }

    fn bounds(&self, mask: Mask) -> Bounds {
        match self.kind(mask) {
            Kind::Dense(bounds) | Kind::Mixed(bounds) => bounds,
            Kind::Empty | Kind::Full => self.everybody(),
        }
    }

    /// Has the words of a mask count, if only some lanes are there.
    #[inline(always)]
    fn spell(&mut self, mask: Mask) {
        if let Kind::Dense(bounds) = self.kind(mask) {
            let (words, _) = self.carve_mask(mask);
            words.fill(0);
            words[bounds.first()..][..bounds.count()].fill(u32::MAX);
            self.set_kind(mask, Kind::Mixed(bounds));
        }
    }

    /// Parts a set of lanes by a condition.
    #[inline(always)]
    pub(super) fn split(&mut self, condition: Slot, from: Mask, accept: Mask, reject: Option<Mask>) {
        self.spell(from);
        let is_full = self.kind(from) == Kind::Full;
        for (to, flip) in [(Some(accept), 0), (reject, u32::MAX)] {
            let Some(to) = to else { continue };
            let (words, others) = self.carve_mask(to);
            let condition = others.lanes(condition);
            if is_full {
                words.iter_mut().zip(condition).for_each(|(to, &condition)| *to = condition ^ flip);
            } else {
                let from = others.lanes(others.first_mask + from.0);
                words.iter_mut().zip(condition).zip(from).for_each(|((to, &condition), &from)| *to = (condition ^ flip) & from);
            }
            let kind = kind_of(words);
            self.set_kind(to, kind);
        }
    }

    /// Parts a set of lanes by whether their number, counted from `base`, is below a limit, or is it.
    #[inline(always)]
    pub(super) fn split_numbered(&mut self, base: u32, (limit, is_equal): (u32, bool), from: Mask, accept: Mask, reject: Option<Mask>) {
        let cut = i64::from(limit) - i64::from(base);
        let lane = cut.clamp(0, self.lanes as i64) as u32;
        let accepted = match is_equal {
            true => Bounds { first: lane, end: lane + u32::from(cut == i64::from(lane)) },
            false => Bounds { first: 0, end: lane },
        };
        let is_simple = match self.kind(from) {
            Kind::Full => Some(self.everybody()),
            Kind::Dense(bounds) => Some(bounds),
            Kind::Empty | Kind::Mixed(_) => None,
        };
        // Those who are not accepted are consecutive too, unless they lie on either side.
        let is_below = !is_equal || reject.is_none();
        if let Some(all) = is_simple.filter(|_| is_below && base.checked_add(self.lanes as u32).is_some()) {
            self.set_kind(accept, accepted.within(all).kind(self.lanes));
            if let Some(reject) = reject {
                self.set_kind(reject, Bounds { first: accepted.end, end: u32::MAX }.within(all).kind(self.lanes));
            }
            return;
        }
        self.split_by_number(base, (limit, is_equal), from, accept, reject);
    }

    fn split_by_number(&mut self, base: u32, (limit, is_equal): (u32, bool), from: Mask, accept: Mask, reject: Option<Mask>) {
        self.spell(from);
        let is_full = self.kind(from) == Kind::Full;
        for (to, is_accepted) in [(Some(accept), true), (reject, false)] {
            let Some(to) = to else { continue };
            let (words, others) = self.carve_mask(to);
            for (lane, to) in words.iter_mut().enumerate() {
                let number = base.wrapping_add(lane as u32);
                let holds = if is_equal { number == limit } else { number < limit };
                *to = u32::from(holds == is_accepted).wrapping_neg();
            }
            if !is_full {
                let from = others.lanes(others.first_mask + from.0);
                words.iter_mut().zip(from).for_each(|(to, &from)| *to &= from);
            }
            let kind = kind_of(words);
            self.set_kind(to, kind);
        }
    }

    /// Moves those where the condition, flipped, holds.
    #[inline(always)]
    pub(super) fn leave(&mut self, condition: Slot, flip: u32, from: Mask, to: Mask) {
        self.spell(from);
        let (any, all) = self.any_and_all_of(condition, flip, from);
        if any && all {
            self.take(to, from);
        } else if any {
            self.leave_some(condition, flip, from, to);
        }
    }

    #[inline(always)]
    fn leave_some(&mut self, condition: Slot, flip: u32, from: Mask, to: Mask) {
        self.spell(to);
        let (is_full, is_first) = (self.kind(from) == Kind::Full, self.kind(to) == Kind::Empty);
        // Whoever leaves is not there yet, so `to` cannot be full; afterwards it is as full as its words say.
        let (words, others) = self.carve_mask(to);
        let from_words = others.lanes(others.first_mask + from.0);
        for ((to, &condition), &from) in words.iter_mut().zip(others.lanes(condition)).zip(from_words) {
            let before = if is_first { 0 } else { *to };
            let from = if is_full { u32::MAX } else { from };
            *to = before | (condition ^ flip) & from;
        }
        let kind = kind_of(words);
        self.set_kind(to, kind);
        let (words, others) = self.carve_mask(from);
        for (from, &condition) in words.iter_mut().zip(others.lanes(condition)) {
            *from = if is_full { u32::MAX } else { *from } & !(condition ^ flip);
        }
        let kind = kind_of(words);
        self.set_kind(from, kind);
    }

    /// Whether a condition, flipped, holds for any of these lanes, and whether for all.
    #[inline(always)]
    fn any_and_all_of(&self, condition: Slot, flip: u32, mask: Mask) -> (bool, bool) {
        let others = self.all();
        let condition = others.lanes(condition);
        match self.kind(mask) {
            Kind::Empty => (false, true),
            Kind::Full => {
                let (any, all) = any_and_all(condition);
                if flip == 0 { (any, all) } else { (!all, !any) }
            }
            Kind::Dense(_) | Kind::Mixed(_) => {
                let mask = others.lanes(self.mask_slot(mask));
                let both = condition
                    .iter()
                    .zip(mask)
                    .fold((0, 0), |(any, other), (&condition, &mask)| (any | (condition ^ flip) & mask, other | !(condition ^ flip) & mask));
                (both.0 != 0, both.1 == 0)
            }
        }
    }

    /// Moves all lanes of a set to another one.
    #[inline(always)]
    pub(super) fn take(&mut self, to: Mask, from: Mask) {
        match (self.kind(to), self.kind(from)) {
            (_, Kind::Empty) => return,
            (Kind::Full, _) => {}
            (_, Kind::Full) => self.set_kind(to, Kind::Full),
            (Kind::Empty, kind) => {
                self.swap(self.mask_slot(to), self.mask_slot(from));
                self.set_kind(to, kind);
            }
            // Of one set that was parted in two.
            (Kind::Dense(here), Kind::Dense(there)) if here.end == there.first || there.end == here.first => {
                self.set_kind(to, here.with(there).kind(self.lanes));
            }
            _ => self.take_more(to, from),
        }
        self.set_kind(from, Kind::Empty);
    }

    /// Moves all lanes of a set to another one, both with some lanes.
    fn take_more(&mut self, to: Mask, from: Mask) {
        self.spell(to);
        self.spell(from);
        let bounds = self.bounds(to).with(self.bounds(from));
        let (words, others) = self.carve_mask(to);
        let mut all = u32::MAX;
        for (to, &from) in words.iter_mut().zip(others.lanes(others.first_mask + from.0)) {
            *to |= from;
            all &= *to;
        }
        self.set_kind(to, if all == u32::MAX { Kind::Full } else { Kind::Mixed(bounds) });
    }
}

impl Others<'_> {
    #[inline(always)]
    pub(super) fn one(&self, slot: Slot) -> u32 {
        self.below[slot as usize]
    }

    /// Of lanes, those in the window.
    #[inline(always)]
    pub(super) fn wide(&self, slot: Slot, width: Width) -> &[u32] {
        match width {
            Width::Rows => self.words(slot, 0, self.rows),
            Width::Lanes => self.words(slot, self.window.first(), self.window.count()),
        }
    }

    /// All lanes, whatever the window.
    #[inline(always)]
    pub(super) fn lanes(&self, slot: Slot) -> &[u32] {
        self.words(slot, 0, self.lanes)
    }

    #[inline(always)]
    fn words(&self, slot: Slot, first: usize, words: usize) -> &[u32] {
        let at = self.table[slot as usize] as usize + first;
        if at < self.above_at { &self.below[at..at + words] } else { &self.above[at - self.above_at..][..words] }
    }

    /// Whether the workgroup is one row.
    #[inline(always)]
    pub(super) fn is_one_row(&self) -> bool {
        self.rows == 1
    }

    #[inline(always)]
    pub(super) fn window(&self) -> Bounds {
        self.window
    }

    #[inline(always)]
    pub(super) fn source(&self, arg: Arg, width: Width) -> Source<'_> {
        match arg {
            Arg::One(slot) => Source::One(self.one(slot)),
            Arg::Wide(slot) => Source::Wide(self.wide(slot, width)),
        }
    }

    /// The lanes of a set that are in the window; nothing if that is all of them. It is not empty.
    #[inline(always)]
    pub(super) fn mask(&self, mask: Mask) -> Option<&[u32]> {
        let is_mixed = matches!(self.kinds[mask.0 as usize], Kind::Mixed(_));
        is_mixed.then(|| self.wide(self.first_mask + mask.0, Width::Lanes))
    }
}
