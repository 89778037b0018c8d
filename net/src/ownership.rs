//! Who may commit which tile: one owner per tile of every grid, under one epoch.
//!
//! Borders are what a partitioned run pays for, so [`Ownership::split`] cuts a grid's box of tiles in
//! two along its longest side, again and again (recursive coordinate bisection), each time in
//! proportion to the weights of the peers on either side. Every peer gets one compact, nearly
//! rectangular share. A cut may end in the middle of a row of tiles when the shares would otherwise
//! be uneven by more than [`SNAP_LOSS_MAX`].
//!
//! Invariant: every tile has exactly one owner; the result depends on the arguments alone.

use peercompute_buffers::{Grid, TileId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most peers one run can have.
pub const PEERS_MAX: usize = 1024;
/// The most grids one ownership can cover.
pub const GRIDS_MAX: usize = 64;
/// The most tiles one grid can have.
pub const TILES_MAX: u32 = 1 << 22;
/// How much of the smaller share a cut may give away to end on a whole row of tiles.
pub const SNAP_LOSS_MAX: f64 = 1.0 / 16.0;

/// A peer's place in the roster of a run; 0 is the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerIndex(pub u16);

impl PeerIndex {
    /// The peer that collects hellos, issues the plan and gathers the result.
    pub const COORDINATOR: PeerIndex = PeerIndex(0);

    /// The index for slices over peers.
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for PeerIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The owner of every tile of every grid.
///
/// **Shapes**: `grids[g][t]` owns tile `t` of grid `g`, tiles in tile order (x fastest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// Numbered changes of ownership; 0 is the first.
    pub epoch: u32,
    /// Per grid, the owner of each tile.
    pub grids: Vec<Vec<PeerIndex>>,
}

/// Why an ownership does not fit the grids or the peers it is for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OwnershipError {
    /// It covers another number of grids.
    #[error("ownership covers {given} grids, expected {expected}")]
    GridCount {
        /// Grids in the workload.
        expected: usize,
        /// Grids in the ownership.
        given: usize,
    },
    /// One grid has another number of tiles, or more than [`TILES_MAX`].
    #[error("ownership of grid {grid} covers {given} tiles, expected {expected}")]
    TileCount {
        /// Which grid.
        grid: usize,
        /// Tiles of the grid.
        expected: u32,
        /// Tiles in the ownership.
        given: usize,
    },
    /// A tile belongs to nobody in the roster.
    #[error("tile {tile} of grid {grid} is owned by peer {owner}, but there are {peers} peers")]
    UnknownOwner {
        /// Which grid.
        grid: usize,
        /// Which tile.
        tile: u32,
        /// The owner it names.
        owner: PeerIndex,
        /// Peers in the roster.
        peers: usize,
    },
    /// More grids or peers than any run can have.
    #[error("{what} count {given} is above the limit {limit}")]
    AboveLimit {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl Ownership {
    /// Divides the tiles of every grid over `weights.len()` peers in proportion to their weights.
    ///
    /// **Limits**: a weight of 0 owns nothing while another is above 0. Weights that say nothing (one of
    /// them NaN, infinite or negative, or all 0) count as equal. With fewer tiles than peers, some own
    /// none; otherwise every peer of positive weight owns at least one tile of every grid. No weights
    /// at all count as one peer; weights beyond [`PEERS_MAX`] are ignored.
    pub fn split(grids: &[Grid], weights: &[f64]) -> Ownership {
        let grids = grids.iter().map(|grid| split_grid(grid, weights)).collect();
        Ownership { epoch: 0, grids }
    }

    /// The owner of one tile; `None` where there is no such tile.
    pub fn owner(&self, grid: usize, tile: TileId) -> Option<PeerIndex> {
        self.grids.get(grid)?.get(usize::try_from(tile.0).ok()?).copied()
    }

    /// The tiles of one grid that a peer owns, in tile order.
    pub fn owned(&self, grid: usize, peer: PeerIndex) -> impl Iterator<Item = TileId> + '_ {
        self.grids.get(grid).into_iter().flatten().zip(0u32..).filter_map(move |(owner, tile)| (*owner == peer).then_some(TileId(tile)))
    }

    /// Checks an ownership that came from elsewhere against the grids and the number of peers.
    ///
    /// **Errors**: the first thing that does not fit; refuse the plan that brought it.
    pub fn check(&self, grids: &[Grid], peers: usize) -> Result<(), OwnershipError> {
        let limits = [("grid", self.grids.len(), GRIDS_MAX), ("peer", peers, PEERS_MAX)];
        for (what, given, limit) in limits {
            if given > limit {
                return Err(OwnershipError::AboveLimit { what, given, limit });
            }
        }
        if self.grids.len() != grids.len() {
            return Err(OwnershipError::GridCount { expected: grids.len(), given: self.grids.len() });
        }
        for (grid, (owners, shape)) in self.grids.iter().zip(grids).enumerate() {
            let expected = shape.tile_count();
            if expected > TILES_MAX || owners.len() != expected as usize {
                return Err(OwnershipError::TileCount { grid, expected, given: owners.len() });
            }
            if let Some((owner, tile)) = owners.iter().zip(0u32..).find(|(owner, _)| owner.at() >= peers) {
                return Err(OwnershipError::UnknownOwner { grid, tile, owner: *owner, peers });
            }
        }
        Ok(())
    }
}

fn usable_weights(weights: &[f64]) -> Vec<f64> {
    let weights = &weights[..weights.len().min(PEERS_MAX)];
    let sound = weights.iter().all(|w| w.is_finite() && *w >= 0.0);
    let top = weights.iter().copied().fold(0.0, f64::max);
    if weights.is_empty() {
        vec![1.0]
    } else if sound && top > 0.0 {
        // Scaled, so that no sum of them overflows.
        weights.iter().map(|w| w / top).collect()
    } else {
        vec![1.0; weights.len()]
    }
}

/// A tile as the bisection sees it: its coordinates and its number.
#[derive(Clone, Copy)]
struct Cell {
    coord: [u32; 3],
    tile: u32,
}

fn split_grid(grid: &Grid, weights: &[f64]) -> Vec<PeerIndex> {
    let mut owners = vec![PeerIndex(0); grid.tile_count() as usize];
    split_tiles(grid, grid.tiles(), weights, &mut owners);
    owners
}

/// Divides some tiles of a grid as [`Ownership::split`] divides all of them; the owners of others stay as they are.
pub(crate) fn split_tiles(grid: &Grid, tiles: impl Iterator<Item = TileId>, weights: &[f64], owners: &mut [PeerIndex]) {
    let mut cells: Vec<Cell> = tiles.map(|tile| Cell { coord: grid.tile_position(tile), tile: tile.0 }).collect();
    bisect(&mut cells, grid.tile, &usable_weights(weights), 0, owners);
}

/// Gives `cells` to the peers `first..first + weights.len()`. Depth is at most the number of peers.
fn bisect(cells: &mut [Cell], tile_shape: [u32; 3], weights: &[f64], first: usize, owners: &mut [PeerIndex]) {
    if cells.is_empty() {
        return;
    }
    if weights.len() <= 1 {
        for cell in cells {
            owners[cell.tile as usize] = PeerIndex(first as u16);
        }
        return;
    }
    let at = balanced_peer_cut(weights);
    let (low, high) = weights.split_at(at);
    let axis = longest_axis(cells, tile_shape);
    // Along the axis first; the other two order the tiles of one plane, so that a partly taken plane is
    // taken from one end.
    let (second, third) = [(2, 1), (2, 0), (1, 0)][axis];
    // One word: no grid has more tiles along an axis than 2²¹.
    cells.sort_unstable_by_key(|cell| {
        let [a, b, c] = [axis, second, third].map(|axis| u64::from(cell.coord[axis]));
        (a << 42) | (b << 21) | c
    });
    let count = cells_of_low(cells, axis, low, high);
    let (cells_low, cells_high) = cells.split_at_mut(count);
    bisect(cells_low, tile_shape, low, first, owners);
    bisect(cells_high, tile_shape, high, first + at, owners);
}

/// Where to cut the list of peers so that the two parts weigh most nearly the same.
fn balanced_peer_cut(weights: &[f64]) -> usize {
    let total: f64 = weights.iter().sum();
    let middle = weights.len() / 2;
    let mut best = (f64::INFINITY, usize::MAX, middle);
    let mut low = 0.0;
    for at in 1..weights.len() {
        low += weights[at - 1];
        // Rounded, so that sums that differ in their last bits still tie and the middle wins.
        let uneven = ((low * 2.0 - total).abs() / total * 1e9).round();
        let candidate = (uneven, at.abs_diff(middle), at);
        if (candidate.0, candidate.1) < (best.0, best.1) {
            best = candidate;
        }
    }
    best.2
}

/// The side with the most elements, so that the cut across it is the shortest. A tie goes to the later
/// axis: its planes are contiguous.
fn longest_axis(cells: &[Cell], tile_shape: [u32; 3]) -> usize {
    let length = |axis: usize| {
        let coords = cells.iter().map(|cell| cell.coord[axis]);
        let (low, high) = coords.fold((u32::MAX, 0), |(low, high), c| (low.min(c), high.max(c)));
        let tiles = u64::from(high.saturating_sub(low)) + 1;
        (tiles > 1, tiles * u64::from(tile_shape[axis]))
    };
    (0..3).max_by_key(|axis| length(*axis)).unwrap_or(0)
}

/// How many of the sorted cells the low peers get.
fn cells_of_low(cells: &[Cell], axis: usize, low: &[f64], high: &[f64]) -> usize {
    let (weight_low, weight_high): (f64, f64) = (low.iter().sum(), high.iter().sum());
    if weight_high <= 0.0 {
        return cells.len();
    }
    let exact = cells.len() as f64 * weight_low / (weight_low + weight_high);
    let count = snapped(cells, axis, exact.round() as usize);
    let wanting = |weights: &[f64]| weights.iter().filter(|w| **w > 0.0).count();
    let (wanting_low, wanting_high) = (wanting(low), wanting(high));
    if cells.len() >= wanting_low + wanting_high { count.clamp(wanting_low, cells.len() - wanting_high) } else { count.min(cells.len()) }
}

/// The nearest whole plane across `axis`, where that costs the smaller side little.
fn snapped(cells: &[Cell], axis: usize, count: usize) -> usize {
    let smaller = count.min(cells.len().saturating_sub(count));
    if smaller == 0 {
        return count;
    }
    let plane = cells[count].coord[axis];
    let start = cells.partition_point(|cell| cell.coord[axis] < plane);
    let end = cells.partition_point(|cell| cell.coord[axis] <= plane);
    let nearest = if count - start <= end - count { start } else { end };
    let loss = count.abs_diff(nearest) as f64 / smaller as f64;
    if loss <= SNAP_LOSS_MAX { nearest } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(tiles: [u32; 3]) -> Grid {
        let dims = if tiles[2] > 1 { 3 } else { 2 };
        Grid { shape: tiles.map(|n| n * 16), tile: [16, 16, 16], dims }
    }

    fn flat(nx: u32, ny: u32) -> Grid {
        Grid { shape: [nx * 16, ny * 16, 1], tile: [16, 16, 1], dims: 2 }
    }

    /// The owners drawn as rows of digits.
    fn check(grid: &Grid, weights: &[f64], expected: &[&str]) {
        let ownership = Ownership::split(std::slice::from_ref(grid), weights);
        ownership.check(std::slice::from_ref(grid), weights.len().max(1)).expect("split is valid");
        let [nx, _, _] = grid.tiles_per_axis();
        let drawn: Vec<String> = ownership.grids[0].chunks(nx as usize).map(|row| row.iter().map(|p| p.to_string()).collect()).collect();
        assert_eq!(drawn, expected);
    }

    #[test]
    fn four_equal_peers_get_quadrants() {
        let top = "00001111";
        let bottom = "22223333";
        check(&flat(8, 8), &[1.0; 4], &[top, top, top, top, bottom, bottom, bottom, bottom]);
    }

    #[test]
    fn two_peers_cut_the_longest_axis() {
        check(&flat(8, 4), &[1.0; 2], &["00001111"; 4]);
        check(&flat(2, 4), &[1.0; 2], &["00", "00", "11", "11"]);
    }

    #[test]
    fn weights_shape_the_shares() {
        check(&flat(8, 2), &[3.0, 1.0], &["00000011"; 2]);
        check(&flat(4, 1), &[0.0, 1.0], &["1111"]);
        check(&flat(4, 1), &[1.0, 0.0], &["0000"]);
    }

    #[test]
    fn weights_that_say_nothing_count_as_equal() {
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            check(&flat(4, 1), &[odd, 5.0], &["0011"]);
        }
        check(&flat(4, 1), &[0.0, 0.0], &["0011"]);
        check(&flat(2, 1), &[], &["00"]);
        check(&flat(4, 1), &[f64::MAX, f64::MAX], &["0011"]);
    }

    #[test]
    fn seven_peers_on_nine_tiles_all_own_one_or_two() {
        let ownership = Ownership::split(&[flat(3, 3)], &[1.0; 7]);
        for peer in 0..7 {
            let owned = ownership.owned(0, PeerIndex(peer)).count();
            assert!((1..=2).contains(&owned), "peer {peer} owns {owned}");
        }
    }

    #[test]
    fn fewer_tiles_than_peers_leaves_some_without() {
        let ownership = Ownership::split(&[flat(2, 1)], &[1.0; 5]);
        let owned: usize = (0..5).map(|p| ownership.owned(0, PeerIndex(p)).count()).sum();
        assert_eq!(owned, 2);
        assert_ne!(ownership.owner(0, TileId(0)), ownership.owner(0, TileId(1)));
    }

    #[test]
    fn shares_are_proportional_and_complete() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let tiles = [random.u32(1..12), random.u32(1..12), random.u32(1..6)];
            let grid = grid(tiles);
            let weights: Vec<f64> = (0..random.usize(1..20)).map(|_| 0.5 + random.f64()).collect();
            let ownership = Ownership::split(std::slice::from_ref(&grid), &weights);
            assert_eq!(ownership.check(std::slice::from_ref(&grid), weights.len()), Ok(()));
            assert_eq!(ownership, Ownership::split(std::slice::from_ref(&grid), &weights));
            let count = f64::from(grid.tile_count());
            let total: f64 = weights.iter().sum();
            for (peer, weight) in weights.iter().enumerate() {
                let owned = ownership.owned(0, PeerIndex(peer as u16)).count() as f64;
                let fair = count * weight / total;
                assert!((owned - fair).abs() <= 3.0 + 0.25 * fair, "{tiles:?} {weights:?}: {peer} owns {owned}, fair {fair}");
                assert!(owned >= 1.0 || count < weights.len() as f64);
            }
        }
    }

    /// Faces between tiles of different owners.
    fn border(ownership: &Ownership, n: u32) -> usize {
        let owner = |x, y| ownership.owner(0, TileId(x + n * y));
        let mut faces = 0;
        for y in 0..n {
            for x in 0..n {
                faces += usize::from(x + 1 < n && owner(x, y) != owner(x + 1, y));
                faces += usize::from(y + 1 < n && owner(x, y) != owner(x, y + 1));
            }
        }
        faces
    }

    #[test]
    fn borders_are_short() {
        // Sixteen square blocks of 16x16 tiles: six cuts of 16 faces. Stripes would pay 15.
        assert_eq!(border(&Ownership::split(&[flat(16, 16)], &[1.0; 16]), 16), 6 * 16);
        assert!(border(&Ownership::split(&[flat(16, 16)], &[1.0; 7]), 16) <= 60);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let grids = [flat(2, 2)];
        let good = Ownership::split(&grids, &[1.0; 2]);
        assert_eq!(good.check(&grids, 2), Ok(()));
        assert!(matches!(good.check(&grids, 1), Err(OwnershipError::UnknownOwner { .. })));
        assert!(matches!(good.check(&[flat(3, 2)], 2), Err(OwnershipError::TileCount { .. })));
        assert!(matches!(good.check(&[], 2), Err(OwnershipError::GridCount { .. })));
        assert!(matches!(good.check(&grids, PEERS_MAX + 1), Err(OwnershipError::AboveLimit { .. })));
        assert_eq!(good.owner(0, TileId(4)), None);
        assert_eq!(good.owner(1, TileId(0)), None);
    }
}
