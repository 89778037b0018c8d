//! Memory of a length known beforehand, filled from the front and then kept for good.
//!
//! ```text
//!  Fill ── filled ──► Bytes ── slices, held as long as anybody likes ──► gone, or ──► Spare ──► Fill
//! ```
//!
//! Snapshots, and what a newcomer fetches, come into memory that nobody has touched, and the system hands that out page by page: on a virtual
//! machine a page can take longer than to decrypt what comes into it. So a large piece is asked for as a whole, on large pages where there are any;
//! and what comes again and again, as snapshots do, goes where an earlier one was ([`Spare`]).
//!
//! Invariant: memory is used again only once nobody holds a slice of it.

use bytes::Bytes;
#[cfg(not(target_arch = "wasm32"))]
use memmap2::MmapMut;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// From here on a piece is a mapping of its own.
#[cfg(not(target_arch = "wasm32"))]
const MAPPED_BYTES_MIN: usize = 1 << 20;

/// Memory that is being filled; by default, of nothing.
#[derive(Debug, Default)]
pub struct Fill {
    place: Place,
    length: usize,
    filled: usize,
}

#[derive(Debug)]
enum Place {
    Heap(Vec<u8>),
    #[cfg(not(target_arch = "wasm32"))]
    Mapped(Mapped),
}

impl Default for Place {
    fn default() -> Place {
        Place::Heap(Vec::new())
    }
}

impl Fill {
    /// For `length` bytes in all.
    pub fn of(length: usize) -> Fill {
        #[cfg(not(target_arch = "wasm32"))]
        if length >= MAPPED_BYTES_MIN
            && let Some(map) = mapped(length)
        {
            return Fill { place: Place::Mapped(Mapped { map: Some(map), spare: Weak::new() }), length, filled: 0 };
        }
        Fill { place: Place::Heap(vec![0; length]), length, filled: 0 }
    }

    /// Bytes that are there.
    #[allow(clippy::len_without_is_empty, reason = "how far it is, not how much it holds")]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Adds bytes. **Panics** beyond the length.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds so many bytes with anything in them, for the caller to write. **Panics** beyond the length.
    pub fn grow(&mut self, bytes: usize) -> &mut [u8] {
        assert!(bytes <= self.length - self.filled, "more than was asked for");
        let from = self.filled;
        self.filled += bytes;
        let all = match &mut self.place {
            Place::Heap(heap) => &mut heap[..],
            #[cfg(not(target_arch = "wasm32"))]
            Place::Mapped(mapped) => mapped.map.as_deref_mut().unwrap_or_default(),
        };
        &mut all[from..from + bytes]
    }

    /// What was filled in.
    pub fn close(self) -> Bytes {
        match self.place {
            Place::Heap(mut heap) => {
                heap.truncate(self.filled);
                heap.into()
            }
            #[cfg(not(target_arch = "wasm32"))]
            Place::Mapped(mapped) => Bytes::from_owner(mapped).slice(..self.filled),
        }
    }
}

/// Memory that was filled, closed and let go, to be filled again: its pages are there. In a browser there is none: its memory only grows.
#[derive(Debug, Default)]
pub struct Spare {
    #[cfg(not(target_arch = "wasm32"))]
    maps: Arc<Maps>,
}

impl Spare {
    /// Memory for `length` bytes in all, of what is spare or else new, which comes back once nobody holds it any more.
    pub fn fill(&self, length: usize) -> Fill {
        #[cfg(not(target_arch = "wasm32"))]
        if length >= MAPPED_BYTES_MIN
            && let Some(map) = self.take(length).or_else(|| mapped(length))
        {
            return Fill { place: Place::Mapped(Mapped { map: Some(map), spare: Arc::downgrade(&self.maps) }), length, filled: 0 };
        }
        Fill::of(length)
    }

    /// Makes memory of these lengths spare, as far as it is not: in the background, where there are threads for it.
    pub fn prepare(&self, lengths: &[usize]) {
        #[cfg(not(target_arch = "wasm32"))]
        {
            let (missing, maps) = (self.missing(lengths), Arc::downgrade(&self.maps));
            let prepare = move || {
                for length in missing {
                    let (Some(maps), Some(map)) = (maps.upgrade(), mapped(length)) else { return };
                    maps.lock().unwrap_or_else(PoisonError::into_inner).push(map);
                }
            };
            // Where there is no thread, whoever needs the memory waits for it.
            let _ = std::thread::Builder::new().name("spare memory".into()).spawn(prepare);
        }
        #[cfg(target_arch = "wasm32")]
        let _ = lengths;
    }

    /// Lets go what has come back and was not taken again.
    pub fn trim(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        self.maps.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn take(&self, length: usize) -> Option<MmapMut> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let at = best(maps.iter().map(|map| map.len()), length)?;
        Some(maps.swap_remove(at))
    }

    /// Those of these lengths that nothing spare is for.
    #[cfg(not(target_arch = "wasm32"))]
    fn missing(&self, lengths: &[usize]) -> Vec<usize> {
        let mut spare: Vec<usize> = self.maps.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|map| map.len()).collect();
        let is_missing = |length: &usize| match best(spare.iter().copied(), *length) {
            Some(at) => {
                spare.swap_remove(at);
                false
            }
            None => *length >= MAPPED_BYTES_MIN,
        };
        lengths.iter().copied().filter(is_missing).collect()
    }
}

/// Of pieces so long, the smallest that is long enough and at most twice as long.
#[cfg(not(target_arch = "wasm32"))]
fn best(pieces: impl Iterator<Item = usize>, length: usize) -> Option<usize> {
    let fitting = pieces.enumerate().filter(|(_, piece)| (length..=2 * length).contains(piece));
    fitting.min_by_key(|(_, piece)| *piece).map(|(at, _)| at)
}

#[cfg(not(target_arch = "wasm32"))]
type Maps = Mutex<Vec<MmapMut>>;

/// A mapping, which becomes spare when it is let go, if there is still somebody for it.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
struct Mapped {
    /// There until it is dropped.
    map: Option<MmapMut>,
    spare: Weak<Maps>,
}

#[cfg(not(target_arch = "wasm32"))]
impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Mapped {
    fn drop(&mut self) {
        if let (Some(map), Some(spare)) = (self.map.take(), self.spare.upgrade()) {
            spare.lock().unwrap_or_else(PoisonError::into_inner).push(map);
        }
    }
}

/// New memory from the system, all of it there.
#[cfg(not(target_arch = "wasm32"))]
fn mapped(length: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(length).ok()?;
    // Both are hints: a system that has no such thing hands its pages out one by one.
    #[cfg(target_os = "linux")]
    for advice in [memmap2::Advice::HugePage, memmap2::Advice::PopulateWrite] {
        let _ = map.advise(advice);
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_comes_out() {
        for length in [0, 1000, (3 << 20) + 17] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut fill = Fill::of(length);
            for chunk in content.chunks(70_001) {
                fill.extend(chunk);
            }
            assert_eq!(fill.len(), length);
            assert_eq!(fill.close(), content);
        }
        let mut short = Fill::of(2 << 20);
        short.extend(&[7; 10]);
        assert_eq!(short.close()[..], [7; 10]);
    }

    #[test]
    #[should_panic(expected = "more than was asked for")]
    fn nothing_goes_beyond_the_end() {
        Fill::of(10).extend(&[0; 11]);
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn memory_is_filled_again_once_nobody_holds_it() {
        const LENGTH: usize = 2 << 20;
        let spare = Spare::default();
        let filled = |byte: u8, length: usize| {
            let mut fill = spare.fill(length);
            fill.grow(length).fill(byte);
            fill.close()
        };
        let mut first = filled(1, LENGTH);
        let place = first.as_ptr();
        let slice = first.split_to(100);
        drop(first);
        let second = filled(2, LENGTH);
        assert!(second.as_ptr() != place && slice.iter().all(|byte| *byte == 1), "a slice of it is still held");
        drop(slice);
        // A little shorter, it has room there; half as long, it would waste too much.
        assert_ne!(filled(3, LENGTH / 2 - 1).as_ptr(), place);
        let again = filled(4, LENGTH - 5);
        assert_eq!((again.as_ptr(), again.len()), (place, LENGTH - 5));
        drop(again);
        assert_eq!(spare.missing(&[LENGTH, LENGTH, 7]), [LENGTH], "there is one, and small ones are not kept");
        spare.prepare(&[LENGTH, LENGTH]);
        let is_there = || spare.missing(&[LENGTH, LENGTH]).is_empty();
        assert!((0..1000).any(|_| is_there() || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }));
        spare.trim();
        assert_eq!(spare.missing(&[LENGTH]), [LENGTH]);
        drop(spare);
        assert!(second.iter().all(|byte| *byte == 2), "who holds it keeps it");
    }
}
