//! What a tile needs from beyond its border, and where it comes from.
//!
//! The halo of a tile is cut into up to 26 *strips*, one per direction. The boundary rule maps every
//! point of a strip to a point of the grid (or to the constant), and the strip falls apart into
//! *pieces*, each an affine image of a box of one tile. Clipped tiles, wrapping onto oneself and
//! clamped corners are all such pieces, so nobody above treats them apart.
//! Invariant: the pieces of a strip cover it exactly once, in a canonical order, and depend on the
//! grid alone: both ends of a link compute the same list.

use serde::{Deserialize, Serialize};

use crate::grid::{Grid, TileId};

/// What a halo holds beyond the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Boundary {
    /// The nearest element of the grid.
    Clamp,
    /// The element at the other end: the grid is a torus.
    Wrap,
    /// One value, declared beside the buffer.
    Constant,
}

/// A direction to a neighbour, each component -1, 0 or 1.
pub type Direction = [i8; 3];

/// The directions of a grid's halo, in table order: `x + 3 y + 9 z` with -1 counted as 0. The centre is left out.
pub fn directions(dims: u8) -> impl Iterator<Item = Direction> {
    let span = move |axis: u8| if axis < dims { -1..=1i8 } else { 0..=0 };
    span(2).flat_map(move |z| span(1).flat_map(move |y| span(0).map(move |x| [x, y, z]))).filter(|d| *d != [0, 0, 0])
}

/// Entries of a tile's neighbour table: 3 per axis.
pub fn table_entries(dims: u8) -> u32 {
    3u32.pow(u32::from(dims))
}

/// Where a direction stands in the neighbour table of a grid with `dims` axes.
pub fn table_index(dims: u8, direction: Direction) -> u32 {
    (0..usize::from(dims)).rev().fold(0, |index, axis| index * 3 + (direction[axis] + 1) as u32)
}

/// The extent of a strip of depth `depth`.
pub fn strip_extent(grid: &Grid, tile: TileId, direction: Direction, depth: u32) -> [u32; 3] {
    let block = grid.tile_block(tile);
    [0, 1, 2].map(|axis| if direction[axis] == 0 { block.extent[axis] } else { depth })
}

/// A box of one tile in the tile's own coordinates; what is packed and shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileBox {
    /// The tile.
    pub tile: TileId,
    /// The first element, in tile coordinates.
    pub origin: [u32; 3],
    /// Elements along each axis.
    pub extent: [u32; 3],
}

impl TileBox {
    /// The number of elements.
    pub fn elements(&self) -> u64 {
        self.extent.iter().map(|&e| u64::from(e)).product()
    }
}

/// A part of a strip, and what fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it starts within the strip.
    pub to: [u32; 3],
    /// Elements along each axis.
    pub extent: [u32; 3],
    /// The box it shows; `None` for the constant. Along an axis where the box has extent 1 and the
    /// piece more, the one element is repeated.
    pub from: Option<TileBox>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    to: u32,
    len: u32,
    /// `(tile position, first local coordinate, box extent)`, or outside.
    from: Option<(u32, u32, u32)>,
}

/// Where the coordinates `start .. start + len` of an axis come from.
fn axis_runs(grid: &Grid, axis: usize, start: i64, len: u32, boundary: Boundary) -> Vec<Run> {
    let shape = i64::from(grid.shape[axis]);
    let tile = grid.tile[axis];
    let mut runs: Vec<Run> = Vec::new();
    for offset in 0..len {
        let at = start + i64::from(offset);
        let inside = match boundary {
            _ if (0..shape).contains(&at) => Some(at),
            Boundary::Clamp => Some(at.clamp(0, shape - 1)),
            Boundary::Wrap => Some(at.rem_euclid(shape)),
            Boundary::Constant => None,
        };
        let from = inside.map(|at| (at as u32 / tile, at as u32 % tile, 1));
        match (runs.last_mut(), from) {
            (Some(Run { len, from: None, .. }), None) => *len += 1,
            (Some(Run { len, from: Some((position, first, extent)), .. }), Some((p, local, _)))
                if *position == p && *extent == *len && local == *first + *len =>
            {
                *len += 1;
                *extent += 1;
            }
            (Some(Run { len, from: Some((position, first, 1)), .. }), Some((p, local, _))) if *position == p && local == *first => {
                *len += 1;
            }
            _ => runs.push(Run { to: offset, len: 1, from }),
        }
    }
    runs
}

/// The pieces of one strip of a field.
///
/// `depth` is how far this field is read, `depth_max` the depth of the grid's strips: a shallower
/// field fills only the part of the strip that touches the tile.
pub fn pieces(grid: &Grid, tile: TileId, direction: Direction, depth: u32, depth_max: u32, boundary: Boundary) -> Vec<Piece> {
    let block = grid.tile_block(tile);
    let runs = [0, 1, 2].map(|axis| {
        let (origin, extent) = (i64::from(block.origin[axis]), block.extent[axis]);
        let (start, len, shift) = match direction[axis] {
            0 => (origin, extent, 0),
            1 => (origin + i64::from(extent), depth, 0),
            _ => (origin - i64::from(depth), depth, depth_max - depth),
        };
        let mut runs = axis_runs(grid, axis, start, len, boundary);
        runs.iter_mut().for_each(|run| run.to += shift);
        runs
    });
    let mut pieces = Vec::new();
    for z in &runs[2] {
        for y in &runs[1] {
            for x in &runs[0] {
                let axes = [x, y, z];
                let from = match (x.from, y.from, z.from) {
                    (Some(x), Some(y), Some(z)) => {
                        Some(TileBox { tile: grid.tile_at([x.0, y.0, z.0]), origin: [x.1, y.1, z.1], extent: [x.2, y.2, z.2] })
                    }
                    _ => None,
                };
                pieces.push(Piece { to: axes.map(|run| run.to), extent: axes.map(|run| run.len), from });
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The element that coordinate `at` shows, computed point by point.
    fn expected(grid: &Grid, at: [i64; 3], boundary: Boundary) -> Option<[u32; 3]> {
        let mut point = [0; 3];
        for axis in 0..3 {
            let shape = i64::from(grid.shape[axis]);
            point[axis] = match boundary {
                _ if (0..shape).contains(&at[axis]) => at[axis],
                Boundary::Clamp => at[axis].clamp(0, shape - 1),
                Boundary::Wrap => at[axis].rem_euclid(shape),
                Boundary::Constant => return None,
            } as u32;
        }
        Some(point)
    }

    proptest! {
        #[test]
        fn pieces_show_every_point_of_the_halo_once(
            shape in proptest::array::uniform3(1u32..9),
            tile in proptest::array::uniform3(1u32..5),
            dims in 1usize..4,
            depth in 1u32..4,
            extra in 0u32..2,
            boundary in prop_oneof![Just(Boundary::Clamp), Just(Boundary::Wrap), Just(Boundary::Constant)],
        ) {
            let grid = Grid::new(&shape[..dims], &tile[..dims]).unwrap();
            let depth_max = depth + extra;
            for tile in grid.tiles() {
                let block = grid.tile_block(tile);
                for direction in directions(grid.dims) {
                    let extent = strip_extent(&grid, tile, direction, depth_max);
                    let mut seen = vec![0u32; extent.iter().product::<u32>() as usize];
                    for piece in pieces(&grid, tile, direction, depth, depth_max, boundary) {
                        for z in 0..piece.extent[2] { for y in 0..piece.extent[1] { for x in 0..piece.extent[0] {
                            let step = [x, y, z];
                            let to = [0, 1, 2].map(|a| piece.to[a] + step[a]);
                            seen[(to[0] + extent[0] * (to[1] + extent[1] * to[2])) as usize] += 1;
                            let at = [0, 1, 2].map(|a| i64::from(block.origin[a]) + match direction[a] {
                                0 => i64::from(to[a]),
                                1 => i64::from(block.extent[a]) + i64::from(to[a]),
                                _ => i64::from(to[a]) - i64::from(depth_max),
                            });
                            let shown = piece.from.map(|from| {
                                let origin = grid.tile_block(from.tile).origin;
                                [0, 1, 2].map(|a| origin[a] + from.origin[a] + if from.extent[a] == 1 { 0 } else { step[a] })
                            });
                            prop_assert_eq!(shown, expected(&grid, at, boundary));
                        }}}
                    }
                    let filled: u32 = seen.iter().sum();
                    prop_assert!(seen.iter().all(|&n| n <= 1));
                    let due: u32 = strip_extent(&grid, tile, direction, depth).iter().product();
                    prop_assert_eq!(filled, due);
                }
            }
        }
    }
}
