//! Who owns which tile in the next epoch.

use super::parts::Parts;
use crate::ownership::{Ownership, PeerIndex};

/// What is known of a member when tiles are shared out.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// **Units**: points per second.
    pub speed: f64,
    /// Bytes.
    pub memory: u64,
    /// **Units**: bytes per second.
    pub link_bytes_per_s: f64,
}

/// Rules.
#[derive(Debug, Default)]
pub struct Rules {}

/// A move.
#[derive(Debug)]
pub struct Move {
    /// Owners.
    pub owners: Vec<PeerIndex>,
}

/// Owners.
pub fn share_out(parts: &Parts, _: &[Option<PeerIndex>], loads: &[Load]) -> Result<Vec<PeerIndex>, ()> {
    let weights: Vec<f64> = loads.iter().map(|load| if load.memory > 0 { load.speed } else { 0.0 }).collect();
    Ok(Ownership::split(parts.grids(), &weights).grids.concat())
}

/// Better.
pub fn improve(_: &Parts, _: &[PeerIndex], _: &[Load], _: &Rules) -> Option<Move> {
    None
}
