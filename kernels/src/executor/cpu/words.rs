//! A run's memory: 32-bit words that all worker threads share, and the only `unsafe` memory access of the cpu
//! executor.
//!
//! ```text
//! Words   │ binding 0 │ binding 1 │ …          │ spare line │
//!         └─ Region (one binding, as a kernel sees it) ─ load, store, rows, atomics
//! ```
//!
//! Kernels race as they may on a GPU: invocations of different workgroups can read and write one word at once.
//! Single words are therefore relaxed atomics, which cost nothing. Rows are copied plainly, because no compiler
//! vectorises atomics; a kernel that races on a row reads unspecified words from it, and nothing else depends
//! on what it reads: every address that is made of such words is brought back into its region again.
//!
//! Invariants: an access stays within its [`Region`], whatever the address; a region stays within its words.

#![allow(unsafe_code, reason = "threads share the words of a run, as invocations share memory on a GPU")]

use std::alloc::{Layout, alloc_zeroed};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::ir::AtomicOp;
use super::ops;

/// The most words of a run: addresses and what is added to them stay far from the end of 32 bits.
pub const WORDS_MAX: usize = 1 << 30;

/// Words of a cache line.
const LINE: usize = 16;
/// How many times too large memory may be that is used again.
const ROOM_MAX: usize = 4;

/// A cache line: rows that start on one stay on one.
#[repr(C, align(64))]
struct Line([UnsafeCell<u32>; LINE]);

/// A run's whole memory. All bindings lie in it.
///
/// **Limits:** at most [`WORDS_MAX`] words.
pub struct Words {
    /// One more than the words need, so that a binding of no words has one as well.
    lines: Lines,
    len: usize,
}

/// Whose memory it is.
enum Lines {
    Own(Box<[Line]>),
    /// The memory of WebAssembly instances; it never moves.
    #[cfg(all(feature = "jit", not(target_arch = "wasm32")))]
    Shared(wasmtime::SharedMemory),
    /// A memory that only workers' kernels address; the host's calls go through it.
    #[cfg(target_arch = "wasm32")]
    Apart(super::machine::team::Apart),
}

/// The same call on words that lie apart, if they do.
macro_rules! apart {
    ($words:expr, $apart:ident => $call:expr) => {
        #[cfg(target_arch = "wasm32")]
        if let Lines::Apart($apart) = &$words.lines {
            return $call;
        }
    };
}

impl Lines {
    fn start(&self) -> *const UnsafeCell<u32> {
        match self {
            Lines::Own(lines) => lines.as_ptr().cast(),
            #[cfg(all(feature = "jit", not(target_arch = "wasm32")))]
            Lines::Shared(memory) => memory.data().as_ptr().cast(),
            #[cfg(target_arch = "wasm32")]
            Lines::Apart(_) => std::ptr::null(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Lines::Own(lines) => lines.len(),
            #[cfg(all(feature = "jit", not(target_arch = "wasm32")))]
            Lines::Shared(memory) => memory.data_size() / size_of::<Line>(),
            #[cfg(target_arch = "wasm32")]
            Lines::Apart(_) => 0,
        }
    }
}

// SAFETY: the words are reached through relaxed atomics and through raw copies alone, never through references
// to plain words. Copies that race leave unspecified words behind, as the head of this file says; whatever is
// computed from them is checked anew before it becomes an address.
unsafe impl Sync for Words {}

/// Where a binding lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first word.
    pub first: u32,
    /// How many there are.
    pub words: u32,
}

impl Words {
    /// Zeroed words; nothing if there is no memory for them or they are more than [`WORDS_MAX`].
    pub fn new(words: usize) -> Option<Words> {
        if words > WORDS_MAX {
            return None;
        }
        let lines = words / LINE + 1;
        let layout = Layout::array::<Line>(lines).ok()?;
        // SAFETY: the layout is not empty, for there is at least one line.
        let start = unsafe { alloc_zeroed(layout) }.cast::<Line>();
        if start.is_null() {
            return None;
        }
        // SAFETY: the global allocator gave `lines` lines of that layout, and zero bytes are valid lines.
        let lines = unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(start, lines)) };
        Some(Words { lines: Lines::Own(lines), len: words })
    }

    /// The memory of these as `words` words, zeroed, where it has room for them and is not much larger: memory that has been used is there at once,
    /// new memory comes page by page.
    pub(crate) fn again(self, words: usize) -> Option<Words> {
        let room = self.lines.len();
        if words > WORDS_MAX || !(words / LINE + 1..=ROOM_MAX * (words / LINE + 1)).contains(&room) {
            return None;
        }
        // SAFETY: the lines are there, and nobody else is: these words are the only ones.
        unsafe { ptr::write_bytes(self.lines.start().cast_mut().cast::<Line>(), 0, words / LINE + 1) };
        Some(Words { lines: self.lines, len: words })
    }

    /// Where they lie.
    #[cfg(test)]
    pub(crate) fn memory_address(&self) -> usize {
        self.lines.start() as usize
    }

    /// Words that there is memory for.
    pub(crate) fn room(&self) -> usize {
        self.lines.len().max(1) * LINE - LINE
    }

    /// Words that WebAssembly instances share; `memory` has a line more than they need.
    #[cfg(all(feature = "jit", not(target_arch = "wasm32")))]
    pub(crate) fn of_memory(memory: wasmtime::SharedMemory, words: usize) -> Option<Words> {
        let fits = memory.data_size() / size_of::<Line>() > words / LINE && words <= WORDS_MAX;
        fits.then_some(Words { lines: Lines::Shared(memory), len: words })
    }

    /// The memory that instances share, where they do.
    #[cfg(all(feature = "jit", not(target_arch = "wasm32")))]
    pub(crate) fn memory(&self) -> Option<&wasmtime::SharedMemory> {
        match &self.lines {
            Lines::Own(_) => None,
            Lines::Shared(memory) => Some(memory),
        }
    }

    /// Words in a memory of their own.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn of_apart(apart: super::machine::team::Apart, words: usize) -> Option<Words> {
        (words <= WORDS_MAX).then_some(Words { lines: Lines::Apart(apart), len: words })
    }

    /// That memory, where it is.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn apart(&self) -> Option<&super::machine::team::Apart> {
        match &self.lines {
            Lines::Apart(apart) => Some(apart),
            Lines::Own(_) => None,
        }
    }

    /// Whether code of ours can address them, as a [`Region`].
    pub(crate) fn is_addressed(&self) -> bool {
        apart!(self, _apart => false);
        true
    }

    /// Sees to it that an interpreter can run on the words; whether there is memory for that.
    pub(crate) fn prepare_interpreter(&self) -> bool {
        apart!(self, apart => apart.prepare_mirror(self.len));
        true
    }

    /// Does `work` on words that code of ours can address: these, or a copy of the spans that is brought back.
    pub(crate) fn addressed<T>(&self, _spans: &[Span], work: impl FnOnce(&Words) -> T) -> T {
        apart!(self, apart => apart.mirrored(_spans, work));
        work(self)
    }

    /// The byte address of a word in the memory of instances: the words begin it, or, in a browser, lie somewhere in it.
    pub(crate) fn address(&self, at: usize) -> u32 {
        // Words that lie apart begin at null.
        let first = if cfg!(target_arch = "wasm32") { self.lines.start() as usize } else { 0 };
        (first + at * size_of::<u32>()) as u32
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes to the words from `at` on. The host's: no kernel runs meanwhile, or it reads unspecified words.
    ///
    /// **Panics** where the bytes reach beyond the end.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len().div_ceil(4));
        apart!(self, apart => apart.write(at, bytes));
        // SAFETY: the words are there, and `bytes` is none of them: no reference to words is ever given out.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.cell(at).cast::<u8>(), bytes.len()) }
    }

    /// Copies the words from `at` on to bytes. The host's, as [`Words::write`] is.
    ///
    /// **Panics** where the bytes reach beyond the end.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        self.check(at, bytes.len().div_ceil(4));
        apart!(self, apart => apart.read(at, bytes));
        // SAFETY: the words are there, and `bytes` is none of them: no reference to words is ever given out.
        unsafe { ptr::copy_nonoverlapping(self.cell(at).cast::<u8>(), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Writes one word, which kernels may be reading.
    ///
    /// **Panics** where it is beyond the end.
    pub fn set(&self, at: usize, word: u32) {
        self.check(at, 1);
        apart!(self, apart => apart.write(at, &word.to_le_bytes()));
        // SAFETY: the word is there, and it is reached as an atomic by all who share it while kernels run.
        unsafe { AtomicU32::from_ptr(self.cell(at)) }.store(word, Relaxed);
    }

    /// Writes one word to all of a range.
    ///
    /// **Panics** where the range reaches beyond the end.
    pub fn fill(&self, range: Range<usize>, word: u32) {
        let words = range.len();
        self.check(range.start, words);
        apart!(self, apart => apart.fill(range, word));
        (0..words).for_each(|index| {
            // SAFETY: the range is within the words.
            unsafe { self.cell(range.start + index).write(word) }
        });
    }

    /// Copies words to other words; both ranges may overlap.
    ///
    /// **Panics** where either range reaches beyond the end.
    pub fn copy_within(&self, from: usize, to: usize, words: usize) {
        self.check(from, words);
        self.check(to, words);
        apart!(self, apart => apart.copy_within(from, to, words));
        // SAFETY: both ranges are within the words.
        unsafe { ptr::copy(self.cell(from), self.cell(to), words) }
    }

    /// A binding.
    ///
    /// **Panics** where the span reaches beyond the end.
    pub fn region(&self, span: Span) -> Region<'_> {
        self.check(span.first as usize, span.words as usize);
        // A binding of no words gets the spare one: what is read there is no worse than any other word.
        let (first, last) = if span.words == 0 { (self.len, 0) } else { (span.first as usize, span.words - 1) };
        Region { start: self.cell(first), last, words: self }
    }

    fn check(&self, at: usize, words: usize) {
        assert!(at <= self.len && words <= self.len - at, "words {at}..{at}+{words} of {}", self.len);
    }

    /// A word's place. `at` has been checked, or is the spare word's.
    fn cell(&self, at: usize) -> *mut u32 {
        debug_assert!(at < self.lines.len() * LINE);
        // The pointer is to all lines, and words lie in them without gaps.
        UnsafeCell::raw_get(self.lines.start().wrapping_add(at))
    }
}

/// One binding of a run, as a kernel sees it: from 0 to its last word.
#[derive(Clone, Copy)]
pub struct Region<'w> {
    start: *mut u32,
    /// `start..=start + last` are words.
    last: u32,
    /// Keeps them.
    words: &'w Words,
}

impl Region<'_> {
    /// The last word's address.
    #[inline(always)]
    pub fn last(&self) -> u32 {
        self.last
    }

    #[inline(always)]
    fn word(&self, at: u32) -> &AtomicU32 {
        let at = at.min(self.last) as usize;
        // SAFETY: words up to `last` are there as long as `words` is, aligned, and reached as `Words` says.
        unsafe { AtomicU32::from_ptr(self.start.add(at)) }
    }

    /// A word; beyond the last one it is the last one.
    #[inline(always)]
    pub fn load(&self, at: u32) -> u32 {
        self.word(at).load(Relaxed)
    }

    /// Writes a word; beyond the last one it is the last one.
    #[inline(always)]
    pub fn store(&self, at: u32, word: u32) {
        self.word(at).store(word, Relaxed);
    }

    /// Whether a row lies in the region.
    #[inline(always)]
    pub fn holds(&self, at: u32, words: usize) -> bool {
        at <= self.last && words <= (self.last - at) as usize + 1
    }

    /// Copies the words from `at` on.
    ///
    /// **Panics** where they are not all [held](Region::holds).
    #[inline(always)]
    pub fn load_row(&self, at: u32, row: &mut [u32]) {
        assert!(self.holds(at, row.len()));
        // SAFETY: the row is within the region, and `row` is none of its words.
        unsafe { ptr::copy_nonoverlapping(self.start.add(at as usize).cast_const(), row.as_mut_ptr(), row.len()) }
    }

    /// Writes the words from `at` on.
    ///
    /// **Panics** where they are not all [held](Region::holds).
    #[inline(always)]
    pub fn store_row(&self, at: u32, row: &[u32]) {
        assert!(self.holds(at, row.len()));
        // SAFETY: the row is within the region, and `row` is none of its words.
        unsafe { ptr::copy_nonoverlapping(row.as_ptr(), self.start.add(at as usize), row.len()) }
    }

    /// An atomic operation on a word; what was there. Beyond the last word it is the last one.
    #[inline(always)]
    pub fn atomic(&self, op: AtomicOp, at: u32, value: u32, compare: u32) -> u32 {
        let word = self.word(at);
        match op {
            AtomicOp::Load => word.load(Relaxed),
            AtomicOp::Add => word.fetch_add(value, Relaxed),
            AtomicOp::Sub => word.fetch_sub(value, Relaxed),
            AtomicOp::And => word.fetch_and(value, Relaxed),
            AtomicOp::Or => word.fetch_or(value, Relaxed),
            AtomicOp::Xor => word.fetch_xor(value, Relaxed),
            AtomicOp::MinU => word.fetch_min(value, Relaxed),
            AtomicOp::MaxU => word.fetch_max(value, Relaxed),
            AtomicOp::Store | AtomicOp::Exchange => word.swap(value, Relaxed),
            AtomicOp::CompareExchange => word.compare_exchange(compare, value, Relaxed, Relaxed).unwrap_or_else(|found| found),
            AtomicOp::MinI | AtomicOp::MaxI => {
                let changed = word.fetch_update(Relaxed, Relaxed, |old| Some(ops::atomic(op, old, value, compare)));
                changed.unwrap_or_else(|found| found)
            }
        }
    }
}

impl std::fmt::Debug for Region<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = (self.start as usize - self.words.cell(0) as usize) / 4;
        write!(f, "words {first}..={}", first + self.last as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(words: &Words) -> Vec<u32> {
        let mut bytes = vec![0; words.len() * 4];
        words.read(0, &mut bytes);
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn words_begin_as_zero_and_keep_what_the_host_writes() {
        let words = Words::new(37).unwrap();
        assert_eq!(all(&words), [0; 37]);
        words.write(35, &[1, 0, 0, 0, 2, 1, 0, 0]);
        words.fill(3..6, 9);
        words.copy_within(4, 5, 3);
        assert_eq!(all(&words)[..9], [0, 0, 0, 9, 9, 9, 9, 0, 0]);
        assert_eq!(all(&words)[34..], [0, 1, 258]);
        assert_eq!(Words::new(0).unwrap().len(), 0);
        assert!(Words::new(WORDS_MAX + 1).is_none());
    }

    #[test]
    fn a_region_is_never_left() {
        let words = Words::new(8).unwrap();
        let region = words.region(Span { first: 2, words: 3 });
        region.store(u32::MAX, 7);
        region.store(1, 5);
        region.atomic(AtomicOp::Add, 99, 1, 0);
        assert_eq!(all(&words), [0, 0, 0, 5, 8, 0, 0, 0]);
        assert_eq!(region.load(3), 8);
        assert!(region.holds(0, 3) && region.holds(2, 1) && !region.holds(1, 3) && !region.holds(3, 1) && !region.holds(u32::MAX, 2));
        region.store_row(0, &[1, 2, 3]);
        let mut row = [0; 2];
        region.load_row(1, &mut row);
        assert_eq!((all(&words), row), (vec![0, 0, 1, 2, 3, 0, 0, 0], [2, 3]));
        assert_eq!(format!("{region:?}"), "words 2..=4");
    }

    #[test]
    fn a_binding_of_no_words_changes_none() {
        let words = Words::new(16).unwrap();
        let region = words.region(Span { first: 4, words: 0 });
        region.store(0, 7);
        assert_eq!(all(&words), [0; 16]);
    }

    #[test]
    fn atomics_do_what_the_operators_say() {
        use AtomicOp::*;
        let words = Words::new(1).unwrap();
        let region = words.region(Span { first: 0, words: 1 });
        for op in [Load, Store, Add, Sub, And, Or, Xor, MinI, MinU, MaxI, MaxU, Exchange, CompareExchange] {
            for (old, value, compare) in [(5, u32::MAX, 5), (u32::MAX, 3, 4), (6, 3, 6), (0x8000_0000, 0x7fff_ffff, 1)] {
                region.store(0, old);
                assert_eq!(region.atomic(op, 0, value, compare), old, "{op:?}");
                assert_eq!(region.load(0), ops::atomic(op, old, value, compare), "{op:?} {old} {value} {compare}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "words 6..6+3 of 8")]
    fn a_span_beyond_the_end_is_a_bug() {
        Words::new(8).unwrap().region(Span { first: 6, words: 3 });
    }

    #[test]
    #[should_panic(expected = "holds")]
    fn a_row_beyond_the_region_is_a_bug() {
        Words::new(8).unwrap().region(Span { first: 0, words: 4 }).load_row(2, &mut [0; 3]);
    }
}
