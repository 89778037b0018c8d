//! What a run's state consists of, cut into what one peer owns at a time.
//!
//! ```text
//!  grid 0: tile 0 … tile n-1 │ grid 1: tile 0 … │ tables
//!  part 0  …                   part n …           the last part
//! ```
//!
//! A part of a tile is the bytes of every field of its grid, in buffer order, each as `Run::read_tile` gives it. The
//! tables, which every peer holds alike, are one part that everybody owns.
//!
//! Invariant: every peer of a run has the same table of parts, because it follows from the bundle.

use peercompute_buffers::{Grid, TileId};

/// A part's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub u32);

impl PartId {
    /// The index for slices over parts.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for PartId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The parts of a run's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    grids: Vec<Grid>,
    /// Per grid, the number of its first part.
    first: Vec<u32>,
    /// Per part.
    bytes: Vec<u32>,
}

impl Parts {
    /// The parts of these grids. `point_bytes[g]` are the bytes that all fields of grid `g` together have at one point.
    ///
    /// **Errors**: a part of 2³¹ bytes or more, or more than 2²² parts: a text for people.
    pub fn new(grids: &[Grid], point_bytes: &[u64], table_bytes: u64) -> Result<Parts, String> {
        const BYTES_MAX: u64 = 1 << 31;
        const PARTS_MAX: usize = 1 << 22;
        let (mut first, mut bytes) = (Vec::new(), Vec::new());
        let checked = |bytes: u64, what: String| match u32::try_from(bytes) {
            Ok(bytes) if u64::from(bytes) < BYTES_MAX => Ok(bytes),
            _ => Err(format!("{what} has {bytes} bytes, at most {BYTES_MAX} can move between peers: use smaller tiles")),
        };
        for (index, (grid, point_bytes)) in grids.iter().zip(point_bytes).enumerate() {
            first.push(bytes.len() as u32);
            if bytes.len() + grid.tile_count() as usize >= PARTS_MAX {
                return Err(format!("more than {PARTS_MAX} tiles: use larger ones"));
            }
            for tile in grid.tiles() {
                bytes.push(checked(grid.tile_block(tile).points().saturating_mul(*point_bytes), format!("tile {} of grid {index}", tile.0))?);
            }
        }
        bytes.push(checked(table_bytes, "the tables".into())?);
        Ok(Parts { grids: grids.to_vec(), first, bytes })
    }

    /// The grids.
    pub fn grids(&self) -> &[Grid] {
        &self.grids
    }

    /// How many parts there are, the tables included.
    pub fn count(&self) -> usize {
        self.bytes.len()
    }

    /// How many parts are tiles: those that have one owner.
    pub fn tile_count(&self) -> usize {
        self.bytes.len() - 1
    }

    /// The tables: the part that everybody holds.
    pub fn tables(&self) -> PartId {
        PartId(self.bytes.len() as u32 - 1)
    }

    /// A part's length in bytes; 0 where there is no such part.
    pub fn bytes(&self, part: PartId) -> u32 {
        self.bytes.get(part.at()).copied().unwrap_or(0)
    }

    /// Bytes of all parts.
    pub fn whole_bytes(&self) -> u64 {
        self.bytes.iter().map(|bytes| u64::from(*bytes)).sum()
    }

    /// The part of a tile.
    pub fn part_of(&self, grid: usize, tile: TileId) -> PartId {
        PartId(self.first[grid] + tile.0)
    }

    /// Which tile of which grid a part is; `None` for the tables.
    pub fn tile_of(&self, part: PartId) -> Option<(usize, TileId)> {
        if part.at() >= self.tile_count() {
            return None;
        }
        let grid = self.first.partition_point(|first| *first <= part.0) - 1;
        Some((grid, TileId(part.0 - self.first[grid])))
    }

    /// The points of a part; 0 for the tables.
    pub fn points(&self, part: PartId) -> u64 {
        self.tile_of(part).map_or(0, |(grid, tile)| self.grids[grid].tile_block(tile).points())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_across_grids() {
        let grids = [Grid::new(&[20, 10], &[8, 8]).unwrap(), Grid::new(&[5], &[2]).unwrap()];
        let parts = Parts::new(&grids, &[8, 4], 12).unwrap();
        assert_eq!((parts.count(), parts.tile_count(), parts.tables()), (10, 9, PartId(9)));
        for part in (0..9).map(PartId) {
            let (grid, tile) = parts.tile_of(part).unwrap();
            assert_eq!(parts.part_of(grid, tile), part);
        }
        assert_eq!((parts.bytes(PartId(0)), parts.bytes(PartId(5)), parts.bytes(PartId(8)), parts.bytes(PartId(9))), (512, 64, 4, 12));
        assert_eq!((parts.tile_of(PartId(9)), parts.tile_of(PartId(10)), parts.bytes(PartId(10))), (None, None, 0));
        assert_eq!((parts.points(PartId(6)), parts.points(PartId(9))), (2, 0));
    }

    #[test]
    fn what_cannot_move_is_refused() {
        let grid = Grid::new(&[1 << 14, 1 << 14], &[1 << 14, 1 << 14]).unwrap();
        assert!(Parts::new(&[grid], &[8], 0).unwrap_err().contains("smaller tiles"));
    }
}
