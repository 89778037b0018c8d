//! Where a program's buffers lie on one peer, and what its exchanges move: the part of running that
//! every executor shares.
//!
//! Invariant: everything here follows from the program, the placement and one limit; two executors
//! given the same three agree to the last word.

use peercompute_buffers::exchange::{self, Computers, ExchangePlan, Ghost};
use peercompute_buffers::halo::Boundary;
use peercompute_buffers::residency::{HaloRules, Residency, ResidencyError};
use peercompute_buffers::{Grid, TileId};

use crate::declaration::{Access, Extent};
use crate::program::{Fresh, Program};

/// Who owns what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// This peer.
    pub me: usize,
    /// Peers in all.
    pub peers: usize,
    /// Per grid, per tile, the owner.
    pub owners: Vec<Vec<usize>>,
    /// Per grid, per tile, who computes it in the shadow of its owner, which itself stands where nobody does; empty without
    /// shadows.
    pub shadows: Vec<Vec<usize>>,
}

impl Placement {
    /// One peer that owns everything.
    pub fn alone(program: &Program) -> Placement {
        let owners = program.manifest.grids.iter().map(|grid| vec![0; grid.grid.tile_count() as usize]).collect();
        Placement::new(0, 1, owners)
    }

    /// Owners, and no shadows.
    pub fn new(me: usize, peers: usize, owners: Vec<Vec<usize>>) -> Placement {
        Placement { me, peers, owners, shadows: Vec::new() }
    }

    /// Who computes a tile.
    pub fn computers(&self, grid: usize, tile: TileId) -> Computers {
        let at = tile.0 as usize;
        let owner = self.owners[grid][at];
        Computers { owner, shadow: self.shadows.get(grid).map_or(owner, |shadows| shadows[at]) }
    }

    /// Per peer, whether it computes a tile of a grid.
    fn busy(&self, grid: usize) -> Vec<bool> {
        let mut busy = vec![false; self.peers];
        for tile in (0..self.owners[grid].len() as u32).map(TileId) {
            let Computers { owner, shadow } = self.computers(grid, tile);
            (busy[owner], busy[shadow]) = (true, true);
        }
        busy
    }

    /// The tiles of a grid that a peer computes, in order: its own, or those that it shadows.
    pub fn computed_by(&self, grid: usize, peer: usize) -> Vec<TileId> {
        let tiles = (0..self.owners[grid].len() as u32).map(TileId);
        tiles.filter(|tile| self.computers(grid, *tile).include(peer)).collect()
    }
}

impl Layout {
    /// The layout under another placement, if this peer computes the same tiles under it: then only exchanges are others.
    pub(crate) fn reshipped(&self, program: &Program, placement: &Placement, page_bytes_max: u64) -> Result<Option<Layout>, ResidencyError> {
        let computed = |placement: &Placement, grid: usize| placement.computed_by(grid, placement.me);
        let is_same = placement.owners.len() == self.grids.len()
            && (0..self.grids.len()).all(|grid| computed(placement, grid) == computed(&self.placement, grid));
        if is_same { Layout::new(program, placement, page_bytes_max).map(Some) } else { Ok(None) }
    }
}

/// The shares of a reduced table: one row of words per tile of the contributing grid.
#[derive(Clone, Debug)]
pub struct Shares {
    /// The grid whose tiles contribute.
    pub grid: usize,
    /// Words of a row: the table's length times its element's words.
    pub words: u32,
    /// The rows, laid out as a 1-D field with one element per tile that is read as a whole.
    pub rows: Residency,
}

/// The layout of a program on one peer.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Who owns what.
    pub placement: Placement,
    /// Per grid, where its tiles lie.
    pub grids: Vec<Residency>,
    /// Per buffer, the shares of a reduced table that a pass writes.
    pub shares: Vec<Option<Shares>>,
    /// The exchanges, numbered as the program's.
    pub exchanges: Vec<ExchangePlan>,
}

impl Layout {
    /// Lays out a program. `page_bytes_max` is the largest binding of the executor.
    ///
    /// **Errors:** [`ResidencyError`]: a tile or a whole field does not fit a page.
    pub fn new(program: &Program, placement: &Placement, page_bytes_max: u64) -> Result<Layout, ResidencyError> {
        let manifest = &program.manifest;
        let mut grids = Vec::new();
        for (index, named) in manifest.grids.iter().enumerate() {
            let strides =
                manifest.buffers.iter().zip(&program.elements).filter(|(buffer, _)| matches!(buffer.extent, Extent::Field { grid } if grid == index));
            let stride = strides.map(|(_, element)| element.stride).max().unwrap_or(4);
            let owned = placement.computed_by(index, placement.me);
            grids.push(Residency::new(named.grid, program.rules[index].clone(), &owned, stride, page_bytes_max)?);
        }
        let mut shares = Vec::new();
        for (index, buffer) in manifest.buffers.iter().enumerate() {
            let (Extent::Table { length, reduce: Some(_) }, Some(grid)) = (buffer.extent, program.contributors(index)) else {
                shares.push(None);
                continue;
            };
            let words = length * program.elements[index].words();
            let tiles = manifest.grids[grid].grid.tile_count();
            let rows = Grid { shape: [tiles, 1, 1], tile: [1, 1, 1], dims: 1 };
            let rules = HaloRules { depth: 0, boundaries: Vec::new(), whole: true };
            let owned = placement.computed_by(grid, placement.me);
            shares.push(Some(Shares { grid, words, rows: Residency::new(rows, rules, &owned, words * 4, page_bytes_max)? }));
        }
        let busy: Vec<Vec<bool>> = (0..grids.len()).map(|grid| placement.busy(grid)).collect();
        let reads_whole =
            |buffer: usize, peer: usize| manifest.passes.iter().any(|pass| busy[pass.grid][peer] && pass.reads.contains(&(buffer, Access::All)));
        let exchanges = program
            .exchanges
            .iter()
            .map(|fresh| {
                let mut plans = Vec::new();
                for (grid, residency) in grids.iter().enumerate() {
                    let ghosts: Vec<Ghost> = fresh.iter().filter_map(|fresh| field_ghost(program, fresh, grid)).collect();
                    if !ghosts.is_empty() {
                        let computers_of = |tile: TileId| placement.computers(grid, tile);
                        plans.push(exchange::plan(residency, &computers_of, &reads_whole, placement.me, placement.peers, &ghosts));
                    }
                }
                for fresh in fresh {
                    if let Fresh::Table { buffer } = *fresh
                        && let Some(shares) = &shares[buffer]
                    {
                        let ghost = Ghost { buffer, words: shares.words, boundary: Boundary::Clamp, depth: 0, whole: true };
                        // Integer atomics of all tiles that a peer computes are in one row: a shadow takes its owners' rows for its own.
                        let computers_of = |tile: TileId| Computers::owner(placement.owners[shares.grid][tile.0 as usize]);
                        // Tables are everybody's.
                        plans.push(exchange::plan(&shares.rows, &computers_of, &|_, _| true, placement.me, placement.peers, &[ghost]));
                    }
                }
                ExchangePlan::merge(&plans, placement.peers)
            })
            .collect();
        Ok(Layout { placement: placement.clone(), grids, shares, exchanges })
    }

    /// The layout of a field's grid.
    pub fn of_field(&self, program: &Program, buffer: usize) -> Option<&Residency> {
        match program.manifest.buffers[buffer].extent {
            Extent::Field { grid } => Some(&self.grids[grid]),
            Extent::Table { .. } => None,
        }
    }
}

/// What an exchange refreshes of a field, for the grid's plan.
pub fn field_ghost(program: &Program, fresh: &Fresh, grid: usize) -> Option<Ghost> {
    match *fresh {
        Fresh::Field { buffer, depth, whole } if program.manifest.buffers[buffer].extent == (Extent::Field { grid }) => {
            Some(Ghost { buffer, words: program.elements[buffer].words(), boundary: program.manifest.buffers[buffer].boundary, depth, whole })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::declaration::Overrides;
    use crate::manifest::Manifest;

    /// Words that peers receive in all exchanges of a tick, where the last of three computes nothing.
    fn received(folder: &str, shape: &[u32], tile: &[u32]) -> [usize; 3] {
        let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders/physics").join(folder);
        let program = Program::check(Manifest::from_folder(&folder, &overrides).unwrap()).unwrap();
        let owners = program.manifest.grids.iter().map(|grid| (0..grid.grid.tile_count() as usize).map(|tile| tile % 2).collect()).collect();
        let placement = Placement::new(0, 3, owners);
        let layouts = [0, 1, 2].map(|me| Layout::new(&program, &Placement { me, ..placement.clone() }, 1 << 30).unwrap());
        for (peer, layout) in layouts.iter().enumerate() {
            for (exchange, plan) in layout.exchanges.iter().enumerate() {
                let due = layouts.iter().map(|other| other.exchanges[exchange].send.get(peer).map_or(0, ExactSizeIterator::len));
                assert!(due.eq(plan.receive.iter().map(ExactSizeIterator::len)), "{folder:?}: peer {peer} waits for what nobody sends");
            }
        }
        layouts.map(|layout| layout.exchanges.iter().flat_map(|plan| &plan.receive).map(ExactSizeIterator::len).sum())
    }

    #[test]
    fn who_computes_nothing_is_sent_no_field_and_every_table() {
        let [first, second, idle] = received("nbody", &[600], &[64]);
        assert!(first > 0 && second > 0 && idle == 0, "{first} {second} {idle}");
        let [first, second, idle] = received("energy", &[70, 45], &[16, 16]);
        assert!(first > 0 && second > 0 && idle > 0, "{first} {second} {idle}");
    }
}
