//! Between a whole field in row-major order and its tiles' slots.
//!
//! People and files hold fields row by row; executors and the wire hold them tile by tile. These
//! leaves move one tile at a time between the two, so no second copy of the field is needed.

use crate::grid::{Grid, TileId};

/// The bytes of one tile's slot content.
pub fn tile_bytes(grid: &Grid, tile: TileId, element_bytes: usize) -> usize {
    grid.tile_block(tile).points() as usize * element_bytes
}

/// Byte ranges `(in the field, in the tile)` of a tile's rows, and a row's length in bytes.
fn rows(grid: &Grid, tile: TileId, element_bytes: usize) -> (usize, impl Iterator<Item = (usize, usize)>) {
    let block = grid.tile_block(tile);
    let row_bytes = block.extent[0] as usize * element_bytes;
    let [nx, ny, _] = grid.shape.map(|e| e as usize);
    let rows = (0..block.extent[1] as usize * block.extent[2] as usize).map(move |row| {
        let y = block.origin[1] as usize + row % block.extent[1] as usize;
        let z = block.origin[2] as usize + row / block.extent[1] as usize;
        ((block.origin[0] as usize + nx * (y + ny * z)) * element_bytes, row * row_bytes)
    });
    (row_bytes, rows)
}

/// Copies a tile out of a field.
///
/// # Panics
/// When a slice has not the length that grid, tile and element give.
pub fn tile_from_field(grid: &Grid, tile: TileId, element_bytes: usize, field: &[u8], out: &mut [u8]) {
    assert_eq!(field.len() as u64, grid.points() * element_bytes as u64);
    assert_eq!(out.len(), tile_bytes(grid, tile, element_bytes));
    let (row_bytes, rows) = rows(grid, tile, element_bytes);
    for (from, to) in rows {
        out[to..to + row_bytes].copy_from_slice(&field[from..from + row_bytes]);
    }
}

/// Copies a tile into its place in a field.
///
/// # Panics
/// When a slice has not the length that grid, tile and element give.
pub fn field_from_tile(grid: &Grid, tile: TileId, element_bytes: usize, bytes: &[u8], field: &mut [u8]) {
    assert_eq!(field.len() as u64, grid.points() * element_bytes as u64);
    assert_eq!(bytes.len(), tile_bytes(grid, tile, element_bytes));
    let (row_bytes, rows) = rows(grid, tile, element_bytes);
    for (to, from) in rows {
        field[to..to + row_bytes].copy_from_slice(&bytes[from..from + row_bytes]);
    }
}
