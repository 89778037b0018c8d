//! Memory for payloads and frames, used again once nobody holds them: in lockstep the same few sizes come back
//! tick after tick, and a fresh megabyte costs more than reading one.
//!
//! ```text
//!  take(bytes) ──► BytesMut ── the caller fills it ──► keep ──► Bytes ── slices travel
//!      ▲                                                │
//!      └── [ piece ][ piece ] … until it is alone ◄─────┘
//! ```
//!
//! Invariants: whatever is held pins at most twice its length, or [`SMALL_BYTES`]; a length reserves nothing
//! beyond itself; once the sizes in flight have been seen, nothing is allocated.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces kept, where they are small.
const PIECES_MAX: usize = 16;
/// Pieces kept whatever their size; more only while all are at most [`KEPT_BYTES_MAX`].
const PIECES_LARGE_MAX: usize = 4;
const KEPT_BYTES_MAX: usize = 4 << 20;
/// Below this, any piece that is long enough will do.
const SMALL_BYTES: usize = 4 << 10;

/// Pieces of memory that may be in use elsewhere.
#[derive(Debug, Default)]
pub struct Pool {
    /// The latest last: of those that are free, that one is likeliest in the cache.
    pieces: VecDeque<Piece>,
    kept_bytes: usize,
}

#[derive(Debug)]
struct Piece {
    content: Bytes,
    capacity: usize,
}

impl Pool {
    /// Memory of exactly `bytes` bytes with anything in it, to be filled and then kept.
    pub fn take(&mut self, bytes: usize) -> BytesMut {
        let fits = |capacity: usize| capacity >= bytes && capacity <= bytes.saturating_mul(2).max(SMALL_BYTES);
        let free = self.pieces.iter().rposition(|piece| fits(piece.capacity) && piece.content.is_unique());
        let piece = free.and_then(|at| self.pieces.remove(at));
        self.kept_bytes -= piece.as_ref().map_or(0, |piece| piece.capacity);
        match piece.map(|piece| piece.content.try_into_mut()) {
            Some(Ok(mut memory)) => {
                // What it held last stays: equal sizes are not cleared again.
                memory.resize(bytes, 0);
                memory
            }
            // A split one counts its holders from the start; otherwise each use would allocate a counter.
            _ => BytesMut::zeroed(bytes).split(),
        }
    }

    /// Closes filled memory, and takes it back once every slice of it is gone.
    pub fn keep(&mut self, memory: BytesMut) -> Bytes {
        let capacity = memory.capacity();
        let content = memory.freeze();
        self.pieces.push_back(Piece { content: content.clone(), capacity });
        self.kept_bytes += capacity;
        while self.pieces.len() > PIECES_MAX || (self.pieces.len() > PIECES_LARGE_MAX && self.kept_bytes > KEPT_BYTES_MAX) {
            self.kept_bytes -= self.pieces.pop_front().map_or(0, |piece| piece.capacity);
        }
        content
    }

    /// A copy of `content`.
    pub fn copy(&mut self, content: &[u8]) -> Bytes {
        let mut memory = self.take(content.len());
        memory.copy_from_slice(content);
        self.keep(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_comes_back_once_all_its_slices_are_gone() {
        let mut pool = Pool::default();
        let first = pool.copy(&[1; 10_000]);
        let (place, slice) = (first.as_ptr(), first.slice(9_000..));
        drop(first);
        let second = pool.copy(&[2; 10_000]);
        assert!(second.as_ptr() != place && slice == [1; 1000][..]);
        drop(slice);
        let third = pool.copy(&[3; 8_000]);
        assert!(third.as_ptr() == place && third == [3; 8_000][..]);
        drop(third);
        // It has its whole length again.
        let fourth = pool.copy(&[4; 10_000]);
        assert!(fourth.as_ptr() == place && fourth == [4; 10_000][..] && second == [2; 10_000][..]);
    }

    #[test]
    fn small_things_do_not_pin_large_ones() {
        let mut pool = Pool::default();
        let large = pool.copy(&[1; 100_000]);
        let place = large.as_ptr();
        drop(large);
        assert!(pool.copy(&[2; 40_000]).as_ptr() != place);
        assert!(pool.copy(&[2; 60_000]).as_ptr() == place);
        assert!(pool.copy(&[]).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let check = |bytes: usize, pieces: usize| {
            let mut pool = Pool::default();
            let held: Vec<Bytes> = (0..40).map(|at| pool.copy(&vec![at; bytes])).collect();
            assert_eq!((pool.pieces.len(), pool.kept_bytes), (pieces, pieces * bytes));
            assert!((0..40).zip(&held).all(|(at, held)| *held == vec![at; bytes]));
        };
        check(0, 16);
        check(1000, 16);
        check(1 << 19, 8);
        check(1 << 20, 4);
        check(3 << 20, 4);
    }
}
