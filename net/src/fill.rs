//! Memory of a length known beforehand, filled from the front and then kept for good.
//!
//! Snapshots, and what a newcomer fetches, come into memory that nobody has touched, and the system hands that out page by page: on a virtual
//! machine a page can take longer than to decrypt what comes into it. So a large piece is asked for as a whole, on large pages where there are any.

use bytes::Bytes;

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
    Mapped(memmap2::MmapMut),
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
            && let Ok(map) = memmap2::MmapMut::map_anon(length)
        {
            // Both are hints: a system that has no such thing hands its pages out one by one.
            #[cfg(target_os = "linux")]
            for advice in [memmap2::Advice::HugePage, memmap2::Advice::PopulateWrite] {
                let _ = map.advise(advice);
            }
            return Fill { place: Place::Mapped(map), length, filled: 0 };
        }
        Fill { place: Place::Heap(Vec::with_capacity(length)), length, filled: 0 }
    }

    /// Bytes that are there.
    #[allow(clippy::len_without_is_empty, reason = "how far it is, not how much it holds")]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Adds bytes. **Panics** beyond the length.
    pub fn extend(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.length - self.filled, "more than was asked for");
        match &mut self.place {
            Place::Heap(heap) => heap.extend_from_slice(bytes),
            #[cfg(not(target_arch = "wasm32"))]
            Place::Mapped(map) => map[self.filled..][..bytes.len()].copy_from_slice(bytes),
        }
        self.filled += bytes.len();
    }

    /// What was filled in.
    pub fn close(self) -> Bytes {
        match self.place {
            Place::Heap(heap) => heap.into(),
            #[cfg(not(target_arch = "wasm32"))]
            Place::Mapped(map) => Bytes::from_owner(map).slice(..self.filled),
        }
    }
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
}
