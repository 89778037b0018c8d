//! Hashes of state: what two runs compare to know that they hold the same bits.
//!
//! A *tile hash* (BLAKE3) names one tile's bytes and guards what travels. A *state digest* names a
//! whole field whatever its tiling: each 32-bit word is mixed with its place in the grid and the
//! results are added, so tiles can be digested apart, in any order, on any peer, and the sums added.
//! The sum detects every accidental difference (2⁻¹²⁸); it is not meant to withstand somebody who
//! searches for collisions, which is what tile hashes are for.
//! Invariant: padding never enters a digest, and neither tile shape nor ownership changes one.

use crate::grid::{Grid, TileId};
use crate::layout::Element;

/// BLAKE3 of a tile's bytes.
pub type Hash = [u8; 32];

/// The hash of a tile's bytes.
pub fn tile_hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

/// The sum over a field's words, part by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateDigest(pub [u64; 2]);

impl StateDigest {
    /// Adds another part of the same field.
    pub fn add(&mut self, part: StateDigest) {
        self.0[0] = self.0[0].wrapping_add(part.0[0]);
        self.0[1] = self.0[1].wrapping_add(part.0[1]);
    }

    /// The digest of one tile of a field; `bytes` are the tile's elements, x fastest.
    pub fn of_tile(grid: &Grid, tile: TileId, element: &Element, bytes: &[u8]) -> StateDigest {
        let block = grid.tile_block(tile);
        let row_bytes = block.extent[0] as usize * element.stride as usize;
        let mut sum = StateDigest::default();
        for (row, row_data) in bytes.chunks_exact(row_bytes).enumerate() {
            let y = u64::from(block.origin[1]) + row as u64 % u64::from(block.extent[1]);
            let z = u64::from(block.origin[2]) + row as u64 / u64::from(block.extent[1]);
            let first = u64::from(block.origin[0]) + u64::from(grid.shape[0]) * (y + u64::from(grid.shape[1]) * z);
            sum.add(digest_run(first, element, row_data));
        }
        sum
    }

    /// The digest of a table.
    pub fn of_table(element: &Element, bytes: &[u8]) -> StateDigest {
        digest_run(0, element, bytes)
    }
}

fn digest_run(first_element: u64, element: &Element, bytes: &[u8]) -> StateDigest {
    let data = element.data_words();
    let words = data.len();
    let mut sum = [0u64; 2];
    for (index, word) in bytes.chunks_exact(4).enumerate() {
        if data[index % words] {
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let place = first_element * words as u64 + index as u64;
            let x = mix(place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(value).wrapping_mul(0xd6e8_feb8_6659_fd93));
            sum[0] = sum[0].wrapping_add(x);
            sum[1] = sum[1].wrapping_add(mix(x ^ place.rotate_left(32)));
        }
    }
    StateDigest(sum)
}

/// Steele, Lea and Flood's SplitMix64 finaliser (OOPSLA 2014), a bijection of 64 bits.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The hash of a whole state: every buffer's name, shape, element and digest, in declared order.
#[derive(Clone, Debug)]
pub struct StateHasher(blake3::Hasher);

impl Default for StateHasher {
    fn default() -> Self {
        StateHasher(blake3::Hasher::new_derive_key("peercompute state hash v1"))
    }
}

impl StateHasher {
    /// Adds a buffer; call in declared order.
    pub fn buffer(&mut self, name: &str, shape: [u32; 3], element: &Element, digest: StateDigest) {
        for text in [name, &element.name] {
            self.0.update(&(text.len() as u64).to_le_bytes());
            self.0.update(text.as_bytes());
        }
        for extent in shape {
            self.0.update(&extent.to_le_bytes());
        }
        for lane in digest.0 {
            self.0.update(&lane.to_le_bytes());
        }
    }

    /// The state hash.
    pub fn finish(&self) -> Hash {
        *self.0.finalize().as_bytes()
    }
}

/// Lower-case hexadecimal, as hashes are shown everywhere.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Scalar;
    use crate::transfer::{tile_bytes, tile_from_field};

    #[test]
    fn the_digest_depends_on_the_field_alone() {
        let element = Element::scalar(Scalar::U32);
        let field: Vec<u8> = (0..13u32 * 7 * 3).flat_map(|i| (i * 77).to_le_bytes()).collect();
        let digest = |field: &[u8], tile: [u32; 3]| {
            let grid = Grid::new(&[13, 7, 3], &tile).unwrap();
            let mut sum = StateDigest::default();
            for tile in grid.tiles() {
                let mut bytes = vec![0; tile_bytes(&grid, tile, 4)];
                tile_from_field(&grid, tile, 4, field, &mut bytes);
                sum.add(StateDigest::of_tile(&grid, tile, &element, &bytes));
            }
            sum
        };
        let whole = digest(&field, [13, 7, 3]);
        for tile in [[1, 1, 1], [4, 4, 4], [5, 7, 2]] {
            assert_eq!(digest(&field, tile), whole);
        }
        let mut swapped = field.clone();
        swapped[0..8].rotate_left(4);
        assert_ne!(digest(&swapped, [4, 4, 4]), whole);
    }
}
