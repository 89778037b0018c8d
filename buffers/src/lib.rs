//! Flat buffers: how grids are cut into tiles, how elements lie in memory, what a commit is.
//!
//! The lowest layer: it knows bytes, indices and hashes, and nothing of ours. It names no GPU, no
//! socket and no clock, so that every part above agrees on one geometry and one set of bytes.

extern crate self as peercompute_buffers;

pub mod cold;
pub mod commit;
pub mod delta;
pub mod digest;
pub mod exchange;
pub mod grid;
pub mod halo;
pub mod layout;
pub mod npy;
pub mod residency;
pub mod transfer;
pub mod view;

pub use bytemuck;
pub use grid::{Block, Grid, GridError, TileId};
