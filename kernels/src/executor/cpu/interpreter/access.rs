//! Lanes to memory and back: rows where rows lie in a row, one word after the other elsewhere.
//!
//! Invariant: addresses are brought back into their memory here too, whatever is in them: lanes that are not there
//! compute garbage. Those that are there have had all their indices checked by the kernel itself.

use super::super::ir::AtomicOp;
use super::super::ops;
use super::super::words::Region;
use super::frame::Bounds;
use super::lanes::Source;

/// Lanes whose addresses are held against a row at a time.
const RUN: usize = 32;

/// Memory to read. Addresses beyond the last word are the last word's.
pub(super) trait ReadWords {
    fn load(&self, at: u32) -> u32;
    fn holds(&self, at: u32, words: usize) -> bool;
    /// Only of what it holds.
    fn load_row(&self, at: u32, row: &mut [u32]);
}

/// Memory to write.
pub(super) trait WriteWords: ReadWords {
    fn store(&mut self, at: u32, word: u32);
    fn store_row(&mut self, at: u32, row: &[u32]);
    fn atomic(&mut self, op: AtomicOp, at: u32, value: u32, compare: u32) -> u32;
}

impl ReadWords for Region<'_> {
    #[inline(always)]
    fn load(&self, at: u32) -> u32 {
        Region::load(self, at)
    }

    #[inline(always)]
    fn holds(&self, at: u32, words: usize) -> bool {
        Region::holds(self, at, words)
    }

    #[inline(always)]
    fn load_row(&self, at: u32, row: &mut [u32]) {
        Region::load_row(self, at, row);
    }
}

impl WriteWords for Region<'_> {
    #[inline(always)]
    fn store(&mut self, at: u32, word: u32) {
        Region::store(self, at, word);
    }

    #[inline(always)]
    fn store_row(&mut self, at: u32, row: &[u32]) {
        Region::store_row(self, at, row);
    }

    #[inline(always)]
    fn atomic(&mut self, op: AtomicOp, at: u32, value: u32, compare: u32) -> u32 {
        Region::atomic(self, op, at, value, compare)
    }
}

/// Constants; not empty.
pub(super) struct Fixed<'a>(pub(super) &'a [u32]);

/// A workgroup's memory; not empty.
pub(super) struct Local<'a>(pub(super) &'a mut [u32]);

impl ReadWords for Fixed<'_> {
    #[inline(always)]
    fn load(&self, at: u32) -> u32 {
        self.0[(at as usize).min(self.0.len() - 1)]
    }

    #[inline(always)]
    fn holds(&self, at: u32, words: usize) -> bool {
        at as usize + words <= self.0.len()
    }

    #[inline(always)]
    fn load_row(&self, at: u32, row: &mut [u32]) {
        row.copy_from_slice(&self.0[at as usize..at as usize + row.len()]);
    }
}

impl ReadWords for Local<'_> {
    #[inline(always)]
    fn load(&self, at: u32) -> u32 {
        Fixed(self.0).load(at)
    }

    #[inline(always)]
    fn holds(&self, at: u32, words: usize) -> bool {
        Fixed(self.0).holds(at, words)
    }

    #[inline(always)]
    fn load_row(&self, at: u32, row: &mut [u32]) {
        Fixed(self.0).load_row(at, row);
    }
}

impl Local<'_> {
    #[inline(always)]
    fn word(&mut self, at: u32) -> &mut u32 {
        let last = self.0.len() - 1;
        &mut self.0[(at as usize).min(last)]
    }
}

impl WriteWords for Local<'_> {
    #[inline(always)]
    fn store(&mut self, at: u32, word: u32) {
        *self.word(at) = word;
    }

    #[inline(always)]
    fn store_row(&mut self, at: u32, row: &[u32]) {
        self.0[at as usize..at as usize + row.len()].copy_from_slice(row);
    }

    #[inline(always)]
    fn atomic(&mut self, op: AtomicOp, at: u32, value: u32, compare: u32) -> u32 {
        let word = self.word(at);
        let old = *word;
        *word = ops::atomic(op, old, value, compare);
        old
    }
}

/// Words of lanes by those of each row's first; see [`super::tape::Affine`].
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) base: Source<'a>,
    pub(super) step: u32,
    pub(super) clamp: Option<Clamp<'a>>,
    /// The first row that is asked for.
    pub(super) first: usize,
    /// Lanes at its start that are not.
    pub(super) skipped: u32,
    /// Lanes of a row that are.
    pub(super) row: usize,
}

/// An index that is held back on the way.
#[derive(Clone, Copy)]
pub(super) struct Clamp<'a> {
    pub(super) index: Source<'a>,
    pub(super) step: u32,
    pub(super) last: u32,
    pub(super) multiplier: u32,
}

/// One row.
#[derive(Clone, Copy)]
enum Row {
    /// The first word, and the step from lane to lane.
    Straight(u32, u32),
    /// The first word and index as they would be, where some index is held back.
    Bent(u32, u32),
}

impl Rows<'_> {
    #[inline(always)]
    fn row(&self, row: usize, offset: u32) -> Row {
        let row = self.first + row;
        let base = self.base.at(row).wrapping_add(self.step.wrapping_mul(self.skipped)).wrapping_add(offset);
        let Some(clamp) = &self.clamp else { return Row::Straight(base, self.step) };
        let first = clamp.index.at(row).wrapping_add(clamp.step.wrapping_mul(self.skipped));
        let end = i64::from(first) + i64::from(clamp.step as i32) * (self.row as i64 - 1);
        let is_held_back = first > clamp.last || end < 0 || end > i64::from(clamp.last);
        if is_held_back { Row::Bent(base, first) } else { Row::Straight(base, self.step) }
    }

    /// A word of a bent row.
    #[inline(always)]
    fn bent(&self, clamp: &Clamp<'_>, base: u32, first: u32, lane: u32) -> u32 {
        let index = first.wrapping_add(clamp.step.wrapping_mul(lane)).min(clamp.last);
        base.wrapping_add(clamp.multiplier.wrapping_mul(index.wrapping_sub(first)))
    }

    /// Shows the word of every lane of a row.
    #[inline(always)]
    fn each(&self, row: Row, mut visit: impl FnMut(usize, u32)) {
        match (row, &self.clamp) {
            (Row::Bent(base, first), Some(clamp)) => {
                (0..self.row).for_each(|lane| visit(lane, self.bent(clamp, base, first, lane as u32)));
            }
            (Row::Straight(base, _) | Row::Bent(base, _), _) => {
                (0..self.row).for_each(|lane| visit(lane, base.wrapping_add(self.step.wrapping_mul(lane as u32))));
            }
        }
    }

    /// Every lane's word.
    #[inline(always)]
    pub(super) fn spread(&self, to: &mut [u32]) {
        for (number, to) in to.chunks_exact_mut(self.row).enumerate() {
            self.each(self.row(number, 0), |lane, word| to[lane] = word);
        }
    }

    /// Loads from every lane's word.
    #[inline(always)]
    pub(super) fn load(&self, from: &impl ReadWords, offset: u32, to: &mut [u32]) {
        for (number, to) in to.chunks_exact_mut(self.row).enumerate() {
            match self.row(number, offset) {
                Row::Straight(at, 1) if from.holds(at, to.len()) => from.load_row(at, to),
                Row::Straight(at, 0) => to.fill(from.load(at)),
                row => self.each(row, |lane, at| to[lane] = from.load(at)),
            }
        }
    }

    /// Stores to every lane's word, where the mask is.
    #[inline(always)]
    pub(super) fn store(&self, to: &mut impl WriteWords, offset: u32, value: Source<'_>, mask: Option<&[u32]>, lanes: usize) {
        for number in 0..lanes / self.row {
            let lanes = number * self.row..(number + 1) * self.row;
            let (present, all) = mask.map_or((true, true), |mask| any_and_all(&mask[lanes.clone()]));
            if !present {
                continue;
            }
            let row = self.row(number, offset);
            match (row, value) {
                (Row::Straight(at, 1), Source::Wide(words)) if all && to.holds(at, self.row) => to.store_row(at, &words[lanes]),
                _ => self.each(row, |lane, at| {
                    if all || mask.is_none_or(|mask| mask[lanes.start + lane] != 0) {
                        to.store(at, value.at(lanes.start + lane));
                    }
                }),
            }
        }
    }
}

/// Whether any lane, and whether every lane, of a mask is there.
#[inline(always)]
pub(super) fn any_and_all(mask: &[u32]) -> (bool, bool) {
    let (any, all) = mask.iter().fold((0, u32::MAX), |(any, all), &lane| (any | lane, all & lane));
    (any != 0, all != 0)
}

/// Loads from any addresses.
#[inline(always)]
pub(super) fn gather(from: &impl ReadWords, addresses: &[u32], offset: u32, to: &mut [u32]) {
    for (to, addresses) in to.chunks_mut(RUN).zip(addresses.chunks(RUN)) {
        let first = addresses[0].wrapping_add(offset);
        if is_run(addresses) && from.holds(first, to.len()) {
            from.load_row(first, to);
        } else {
            for (to, address) in to.iter_mut().zip(addresses) {
                *to = from.load(address.wrapping_add(offset));
            }
        }
    }
}

/// Stores to any addresses, in the order of lanes.
#[inline(always)]
pub(super) fn scatter(to: &mut impl WriteWords, addresses: Source<'_>, offset: u32, value: Source<'_>, mask: Option<&[u32]>, lanes: usize) {
    match (addresses, value, mask) {
        (Source::One(address), value, mask) => {
            // The last lane wins.
            let last = mask.map_or(Some(lanes - 1), |mask| mask.iter().rposition(|&lane| lane != 0));
            if let Some(last) = last {
                to.store(address.wrapping_add(offset), value.at(last));
            }
        }
        (Source::Wide(addresses), Source::Wide(words), None) => {
            for (words, addresses) in words.chunks(RUN).zip(addresses.chunks(RUN)) {
                let first = addresses[0].wrapping_add(offset);
                if is_run(addresses) && to.holds(first, words.len()) {
                    to.store_row(first, words);
                } else {
                    words.iter().zip(addresses).for_each(|(&word, address)| to.store(address.wrapping_add(offset), word));
                }
            }
        }
        (Source::Wide(addresses), value, mask) => {
            for (lane, address) in addresses.iter().enumerate() {
                if mask.is_none_or(|mask| mask[lane] != 0) {
                    to.store(address.wrapping_add(offset), value.at(lane));
                }
            }
        }
    }
}

/// Whether addresses follow one another.
#[inline(always)]
fn is_run(addresses: &[u32]) -> bool {
    let first = addresses[0];
    let differ = |(lane, &address): (usize, &u32)| address.wrapping_sub(lane as u32) ^ first;
    addresses.iter().enumerate().map(differ).fold(0, |any, differ| any | differ) == 0
}

/// An atomic operation, lane by lane.
pub(super) struct Atomic<'a> {
    pub(super) op: AtomicOp,
    pub(super) addresses: Source<'a>,
    pub(super) offset: u32,
    pub(super) value: Source<'a>,
    pub(super) compare: Option<Source<'a>>,
    pub(super) mask: Option<&'a [u32]>,
}

impl Atomic<'_> {
    /// Does it for every lane that is there, and there is one.
    #[inline(always)]
    pub(super) fn run(&self, to: &mut impl WriteWords, lanes: usize, mut found: Option<&mut [u32]>) {
        if let (Source::One(address), Some(join), None) = (self.addresses, joined_by(self.op), &found) {
            // To one word and with nobody to tell: the lanes agree first.
            let value = self.present(lanes).map(|lane| self.value.at(lane)).reduce(|all, value| ops::atomic(join, all, value, 0));
            to.atomic(self.op, address.wrapping_add(self.offset), value.unwrap_or_default(), 0);
            return;
        }
        for lane in self.present(lanes) {
            let at = self.addresses.at(lane).wrapping_add(self.offset);
            let old = to.atomic(self.op, at, self.value.at(lane), self.compare.map_or(0, |compare| compare.at(lane)));
            if let Some(found) = &mut found {
                found[lane] = old;
            }
        }
    }

    #[inline(always)]
    fn present(&self, lanes: usize) -> impl Iterator<Item = usize> {
        (0..lanes).filter(|&lane| self.mask.is_none_or(|mask| mask[lane] != 0))
    }
}

/// What joins two operands of an operation to one that does as much, if anything does.
fn joined_by(op: AtomicOp) -> Option<AtomicOp> {
    use AtomicOp::{Add, And, CompareExchange, Exchange, Load, MaxI, MaxU, MinI, MinU, Or, Store, Sub, Xor};
    match op {
        Add | Sub => Some(Add),
        And | Or | Xor | MinI | MinU | MaxI | MaxU | Store => Some(op),
        Exchange => Some(Store),
        Load | CompareExchange => None,
    }
}

// ---- private memory: all lanes' first words, all lanes' second words, …

/// Loads from each lane's own words.
#[inline(always)]
pub(super) fn load_private(memory: &[u32], address: Source<'_>, offset: u32, to: &mut [u32], (lanes, first): (usize, usize)) {
    let last = memory.len() / lanes - 1;
    let place = |address: u32| (address.wrapping_add(offset) as usize).min(last) * lanes + first;
    match address {
        Source::One(address) => to.copy_from_slice(&memory[place(address)..][..to.len()]),
        Source::Wide(addresses) => {
            for (lane, (to, &address)) in to.iter_mut().zip(addresses).enumerate() {
                *to = memory[place(address) + lane];
            }
        }
    }
}

/// Stores to each lane's own words, where the mask is.
#[inline(always)]
pub(super) fn store_private(
    memory: &mut [u32],
    address: Source<'_>,
    offset: u32,
    value: Source<'_>,
    mask: Option<&[u32]>,
    (lanes, window): (usize, Bounds),
) {
    let last = memory.len() / lanes - 1;
    let place = |address: u32| (address.wrapping_add(offset) as usize).min(last) * lanes + window.first();
    match address {
        Source::One(address) => super::lanes::set(&mut memory[place(address)..][..window.count()], value, mask),
        Source::Wide(addresses) => {
            for (lane, &address) in addresses.iter().enumerate() {
                if mask.is_none_or(|mask| mask[lane] != 0) {
                    memory[place(address) + lane] = value.at(lane);
                }
            }
        }
    }
}
