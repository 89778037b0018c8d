//! A grid's index space and its cut into tiles.
//!
//! Pure geometry: everything here is computed from a shape and a tile shape, nothing is stored twice.
//! Axes are `[x, y, z]`, x fastest; unused axes have extent 1. Tiles are numbered the same way,
//! `id = x + nx * (y + ny * z)`. Invariant: the tiles cover the grid exactly once; the last tile of
//! an axis is clipped to the grid, never padded.

use serde::{Deserialize, Serialize};

/// The number of a tile within its grid, in x-fastest order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TileId(pub u32);

/// Why a grid cannot exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// A grid has one to three axes.
    #[error("a grid has 1 to 3 axes, `{field}` has {given}")]
    Dimensions {
        /// The field of the declaration.
        field: &'static str,
        /// How many axes were given.
        given: usize,
    },
    /// The tile must have as many axes as the grid.
    #[error("`tile` has {tile} axes, `shape` has {shape}")]
    DimensionsDiffer {
        /// Axes of the shape.
        shape: usize,
        /// Axes of the tile.
        tile: usize,
    },
    /// Every extent is at least one.
    #[error("`{field}` has extent 0 on axis {axis}: every extent is at least 1")]
    ZeroExtent {
        /// The field of the declaration.
        field: &'static str,
        /// The axis, 0 for x.
        axis: usize,
    },
    /// The grid has more points than an index can name.
    #[error("a grid has at most {max} points, this one has {given}")]
    TooManyPoints {
        /// The largest number of points.
        max: u64,
        /// The number asked for.
        given: u128,
    },
    /// A tile has more points than a kernel can tell apart.
    #[error("a tile has at most {max} points, this one has {given}: use smaller tiles")]
    TooManyTilePoints {
        /// The largest number of points.
        max: u64,
        /// The number asked for.
        given: u128,
    },
    /// The grid has more tiles than a peer can keep track of.
    #[error("a grid has at most {max} tiles, this one has {given}: use larger tiles")]
    TooManyTiles {
        /// The largest number of tiles.
        max: u32,
        /// The number asked for.
        given: u128,
    },
}

/// An axis-aligned box of grid points: where it starts and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// The first point, in grid coordinates.
    pub origin: [u32; 3],
    /// The number of points along each axis.
    pub extent: [u32; 3],
}

impl Block {
    /// The number of points in the block.
    pub fn points(&self) -> u64 {
        self.extent.iter().map(|&e| u64::from(e)).product()
    }
}

/// An index space cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// Points along x, y, z; unused axes are 1.
    pub shape: [u32; 3],
    /// A full tile's points along x, y, z; unused axes are 1. At most the shape.
    pub tile: [u32; 3],
    /// How many axes the grid has, 1 to 3.
    pub dims: u8,
}

impl Grid {
    /// The largest number of points in a grid.
    pub const POINTS_MAX: u64 = 1 << 40;
    /// The largest number of points in a tile: kernels step between neighbours in i32.
    pub const TILE_POINTS_MAX: u64 = i32::MAX as u64;
    /// The largest number of tiles in a grid.
    pub const TILES_MAX: u32 = 65_535;

    /// Builds a grid from one to three extents; a tile larger than the grid is cut to it.
    ///
    /// **Errors:** [`GridError`], one variant for each rule.
    pub fn new(shape: &[u32], tile: &[u32]) -> Result<Grid, GridError> {
        for (field, axes) in [("shape", shape), ("tile", tile)] {
            if axes.is_empty() || axes.len() > 3 {
                return Err(GridError::Dimensions { field, given: axes.len() });
            }
            if let Some(axis) = axes.iter().position(|&e| e == 0) {
                return Err(GridError::ZeroExtent { field, axis });
            }
        }
        if shape.len() != tile.len() {
            return Err(GridError::DimensionsDiffer { shape: shape.len(), tile: tile.len() });
        }
        let mut grid = Grid { shape: [1; 3], tile: [1; 3], dims: shape.len() as u8 };
        for axis in 0..shape.len() {
            grid.shape[axis] = shape[axis];
            grid.tile[axis] = tile[axis].min(shape[axis]);
        }
        let points: u128 = grid.shape.iter().map(|&e| u128::from(e)).product();
        if points > u128::from(Self::POINTS_MAX) {
            return Err(GridError::TooManyPoints { max: Self::POINTS_MAX, given: points });
        }
        let tile_points: u128 = grid.tile.iter().map(|&e| u128::from(e)).product();
        if tile_points > u128::from(Self::TILE_POINTS_MAX) {
            return Err(GridError::TooManyTilePoints { max: Self::TILE_POINTS_MAX, given: tile_points });
        }
        let tiles: u128 = grid.tiles_per_axis().iter().map(|&n| u128::from(n)).product();
        if tiles > u128::from(Self::TILES_MAX) {
            return Err(GridError::TooManyTiles { max: Self::TILES_MAX, given: tiles });
        }
        Ok(grid)
    }

    /// Whether this value obeys the rules of [`Grid::new`]; for grids that were decoded.
    ///
    /// **Errors:** as [`Grid::new`].
    pub fn check(&self) -> Result<(), GridError> {
        let dims = usize::from(self.dims);
        if dims == 0 || dims > 3 {
            return Err(GridError::Dimensions { field: "shape", given: dims });
        }
        let again = Grid::new(&self.shape[..dims], &self.tile[..dims])?;
        if again != *self {
            return Err(GridError::Dimensions { field: "tile", given: dims });
        }
        Ok(())
    }

    /// Tiles along x, y, z.
    pub fn tiles_per_axis(&self) -> [u32; 3] {
        [0, 1, 2].map(|axis| self.shape[axis].div_ceil(self.tile[axis]))
    }

    /// The number of tiles.
    pub fn tile_count(&self) -> u32 {
        self.tiles_per_axis().iter().product()
    }

    /// The number of points of the grid.
    pub fn points(&self) -> u64 {
        self.shape.iter().map(|&e| u64::from(e)).product()
    }

    /// The number of points of a full tile: the length of a slot, in elements.
    pub fn tile_points(&self) -> u64 {
        self.tile.iter().map(|&e| u64::from(e)).product()
    }

    /// Every tile, in order.
    pub fn tiles(&self) -> impl Iterator<Item = TileId> + use<> {
        (0..self.tile_count()).map(TileId)
    }

    /// The position of a tile among the tiles.
    pub fn tile_position(&self, tile: TileId) -> [u32; 3] {
        let [nx, ny, _] = self.tiles_per_axis();
        [tile.0 % nx, tile.0 / nx % ny, tile.0 / (nx * ny)]
    }

    /// The tile at a position among the tiles.
    pub fn tile_at(&self, position: [u32; 3]) -> TileId {
        let [nx, ny, _] = self.tiles_per_axis();
        TileId(position[0] + nx * (position[1] + ny * position[2]))
    }

    /// The points that a tile covers: a full tile, or what is left of one at the grid's end.
    pub fn tile_block(&self, tile: TileId) -> Block {
        let position = self.tile_position(tile);
        let origin = [0, 1, 2].map(|axis| position[axis] * self.tile[axis]);
        let extent = [0, 1, 2].map(|axis| self.tile[axis].min(self.shape[axis] - origin[axis]));
        Block { origin, extent }
    }

    /// Whether every tile is a full one.
    pub fn is_divisible(&self) -> bool {
        (0..3).all(|axis| self.shape[axis].is_multiple_of(self.tile[axis]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_grid_exactly_once() {
        for (shape, tile) in
            [(vec![1], vec![1]), (vec![10], vec![4]), (vec![7, 5], vec![3, 2]), (vec![4, 4], vec![8, 8]), (vec![5, 4, 3], vec![2, 3, 2])]
        {
            let grid = Grid::new(&shape, &tile).unwrap();
            let mut seen = vec![0u32; grid.points() as usize];
            for tile in grid.tiles() {
                assert_eq!(grid.tile_at(grid.tile_position(tile)), tile);
                let Block { origin: o, extent: e } = grid.tile_block(tile);
                for z in o[2]..o[2] + e[2] {
                    for y in o[1]..o[1] + e[1] {
                        for x in o[0]..o[0] + e[0] {
                            seen[(x + grid.shape[0] * (y + grid.shape[1] * z)) as usize] += 1;
                        }
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{shape:?} {tile:?}");
        }
    }

    #[test]
    fn impossible_grids_are_refused() {
        let check = |shape: &[u32], tile: &[u32]| Grid::new(shape, tile).unwrap_err();
        assert_eq!(check(&[], &[1]), GridError::Dimensions { field: "shape", given: 0 });
        assert_eq!(check(&[0, 4], &[1, 1]), GridError::ZeroExtent { field: "shape", axis: 0 });
        assert_eq!(check(&[4, 4], &[1, 0]), GridError::ZeroExtent { field: "tile", axis: 1 });
        assert_eq!(check(&[4, 4], &[2]), GridError::DimensionsDiffer { shape: 2, tile: 1 });
        assert!(matches!(check(&[u32::MAX; 3], &[1; 3]), GridError::TooManyPoints { .. }));
        assert!(matches!(check(&[1 << 20], &[1]), GridError::TooManyTiles { .. }));
        assert!(matches!(check(&[1 << 20, 1 << 20], &[1 << 16, 1 << 16]), GridError::TooManyTilePoints { .. }));
    }
}
