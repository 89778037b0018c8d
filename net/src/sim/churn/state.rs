//! A state worth checking: every part of every tick depends on all parts of the ticks before.
//!
//! ```text
//! tick t:  border   digests of neighbouring tiles, from their owners
//!          compute  part ← mix(part, digests of its neighbours, digest of the tables, t)
//!          gather   (every few ticks) digests of all tiles, to all;  tables ← mix(tables, digests in tile order, t)
//! ```
//!
//! Integer arithmetic only, so it is exact. A single wrong bit, a stale part or a payload of another tick changes
//! every later digest. [`Oracle`] computes the same without peers.

use std::sync::Arc;

use bytes::Bytes;
use peercompute_buffers::TileId;

use crate::membership::{PartId, Parts};

/// The rules of the state; every node of a run has the same.
#[derive(Debug)]
pub struct Rules {
    parts: Arc<Parts>,
    /// Per tile part, the tile parts beside it.
    beside: Vec<Vec<PartId>>,
    /// Ticks between two gathers.
    gather_every: u64,
    salt: u64,
}

impl Rules {
    /// Rules over these parts. Tables change at every `gather_every`-th tick.
    pub fn new(parts: Arc<Parts>, gather_every: u64, salt: u64) -> Rules {
        let beside = (0..parts.tile_count() as u32).map(|part| parts_beside(&parts, PartId(part))).collect();
        Rules { parts, beside, gather_every: gather_every.max(1), salt }
    }

    /// The parts.
    pub fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// The parts that share a border with one.
    pub fn beside(&self, part: PartId) -> &[PartId] {
        self.beside.get(part.at()).map_or(&[], Vec::as_slice)
    }

    /// Whether a tick ends with a gather.
    pub fn gathers(&self, tick: u64) -> bool {
        (tick + 1).is_multiple_of(self.gather_every)
    }

    /// A part before tick 0.
    pub fn init(&self, part: PartId) -> Vec<u8> {
        let mut content = vec![0; self.parts.bytes(part) as usize];
        stir(&mut content, mix(self.salt, u64::from(part.0)));
        content
    }

    /// Computes one tick of a tile; `beside` are its neighbours' digests in the order of [`Rules::beside`].
    pub fn compute(&self, content: &mut [u8], beside: impl Iterator<Item = u64>, tables: u64, tick: u64) {
        let key = beside.fold(mix(tables, tick), mix);
        stir(content, mix(key, digest(content)));
    }

    /// Computes the tables after a gather; `tiles` are all tiles' digests in order.
    pub fn reduce(&self, content: &mut [u8], tiles: impl Iterator<Item = u64>, tick: u64) {
        let key = tiles.fold(mix(self.salt, tick), mix);
        stir(content, mix(key, digest(content)));
    }
}

fn parts_beside(parts: &Parts, part: PartId) -> Vec<PartId> {
    let Some((index, tile)) = parts.tile_of(part) else {
        return Vec::new();
    };
    let grid = &parts.grids()[index];
    let (position, tiles) = (grid.tile_position(tile), grid.tiles_per_axis());
    let mut beside = Vec::new();
    for axis in 0..3 {
        for step in [-1i64, 1] {
            let moved = i64::from(position[axis]) + step;
            if (0..i64::from(tiles[axis])).contains(&moved) {
                let mut other = position;
                other[axis] = moved as u32;
                let TileId(other) = grid.tile_at(other);
                beside.push(parts.part_of(index, TileId(other)));
            }
        }
    }
    beside
}

/// Two words into one; neither can be told from the result, and order matters.
fn mix(a: u64, b: u64) -> u64 {
    let mut word = a.rotate_left(23) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^ (word >> 32)
}

/// Replaces content by a mixture of itself and a key; length as before.
fn stir(content: &mut [u8], key: u64) {
    for (chunk, at) in content.chunks_mut(8).zip(0u64..) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let stirred = mix(key ^ at, u64::from_le_bytes(word)).to_le_bytes();
        chunk.copy_from_slice(&stirred[..chunk.len()]);
    }
}

/// A word for a content of any length: another for every other content, but for chance.
pub fn digest(content: &[u8]) -> u64 {
    content.chunks(8).fold(content.len() as u64, |digest, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(digest, u64::from_le_bytes(word))
    })
}

/// The run as it must be: alone, undisturbed, every tick kept as digests.
#[derive(Debug)]
pub struct Oracle {
    rules: Arc<Rules>,
    /// As of the last tick of `digests`.
    state: Vec<Vec<u8>>,
    /// Per tick, per part: the digest before that tick.
    digests: Vec<Vec<u64>>,
}

impl Oracle {
    /// An oracle of these rules.
    pub fn new(rules: Arc<Rules>) -> Oracle {
        let state: Vec<Vec<u8>> = (0..rules.parts.count() as u32).map(|part| rules.init(PartId(part))).collect();
        let digests = vec![digests_of(&state)];
        Oracle { rules, state, digests }
    }

    /// The digest of a part before a tick.
    pub fn digest(&mut self, part: PartId, tick: u64) -> u64 {
        self.reach(tick);
        self.digests[tick as usize][part.at()]
    }

    /// Every part before a tick, in order: as a snapshot that was stored.
    pub fn parts_at(rules: Arc<Rules>, tick: u64) -> Vec<Bytes> {
        let mut oracle = Oracle::new(rules);
        oracle.reach(tick);
        oracle.state.into_iter().map(Bytes::from).collect()
    }

    fn reach(&mut self, tick: u64) {
        while (self.digests.len() as u64) <= tick {
            let before = self.digests.last().cloned().unwrap_or_default();
            let tick = self.digests.len() as u64 - 1;
            let tables_at = self.rules.parts.tables().at();
            let tables = before[tables_at];
            for (content, part) in self.state.iter_mut().take(tables_at).zip(0u32..) {
                let beside = self.rules.beside(PartId(part)).iter().map(|part| before[part.at()]);
                self.rules.compute(content, beside, tables, tick);
            }
            let mut digests = digests_of(&self.state);
            if self.rules.gathers(tick) {
                self.rules.reduce(&mut self.state[tables_at], digests.iter().take(tables_at).copied(), tick);
                digests[tables_at] = digest(&self.state[tables_at]);
            }
            self.digests.push(digests);
        }
    }
}

fn digests_of(state: &[Vec<u8>]) -> Vec<u64> {
    state.iter().map(|content| digest(content)).collect()
}

#[cfg(test)]
mod tests {
    use peercompute_buffers::Grid;

    use super::*;

    fn rules() -> Arc<Rules> {
        let grids = [Grid::new(&[9, 6], &[2, 2]).unwrap(), Grid::new(&[7], &[3]).unwrap()];
        Arc::new(Rules::new(Arc::new(Parts::new(&grids, &[4, 8], 12).unwrap()), 2, 7))
    }

    #[test]
    fn neighbours_are_of_the_same_grid_and_mutual() {
        let rules = rules();
        assert_eq!(rules.beside(PartId(0)), [PartId(1), PartId(5)]);
        assert_eq!(rules.beside(PartId(15)), [PartId(16)]);
        for part in (0..rules.parts.tile_count() as u32).map(PartId) {
            assert!(rules.beside(part).iter().all(|other| rules.beside(*other).contains(&part)));
        }
        assert!(rules.beside(rules.parts.tables()).is_empty());
    }

    #[test]
    fn every_bit_matters_to_a_digest() {
        for length in [1, 7, 8, 12, 33] {
            let content = vec![0x5a; length];
            let mut seen = vec![digest(&content), digest(&vec![0x5a; length + 1])];
            for bit in 0..length * 8 {
                let mut other = content.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                seen.push(digest(&other));
            }
            let count = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), count, "length {length}");
        }
    }

    #[test]
    fn every_part_comes_to_depend_on_every_other() {
        let rules = rules();
        let mut oracle = Oracle::new(rules.clone());
        let mut other = Oracle::new(rules.clone());
        other.state[0][0] ^= 1;
        other.digests[0] = digests_of(&other.state);
        let count = rules.parts.count() as u32;
        for part in (0..count).map(PartId) {
            assert_eq!(oracle.digest(part, 0) == other.digest(part, 0), part != PartId(0));
            // The tables carry it to the other grid.
            assert_ne!(oracle.digest(part, 3), other.digest(part, 3), "part {part}");
        }
    }

    #[test]
    fn a_stored_state_is_the_state_of_that_tick() {
        let rules = rules();
        let mut oracle = Oracle::new(rules.clone());
        for (part, content) in (0u32..).map(PartId).zip(Oracle::parts_at(rules, 5)) {
            assert_eq!(digest(&content), oracle.digest(part, 5));
        }
    }
}
