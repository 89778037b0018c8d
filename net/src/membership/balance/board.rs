//! One grid's tiles as something to deal out: who has which, and the few ways in which tiles change hands.
//!
//! Every way keeps borders short by itself: a region grows tile by tile where it touches most of its own
//! ([`Board::grow`], [`Board::shift`]), or is cut out in the shape that leaves the shortest border
//! ([`Board::carve`]). Amounts are points; a tile changes hands when at least half of it is owed.
//!
//! Invariant: an operation changes only tiles of those whom it is told to take from. Work is near-linear in the tiles.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use peercompute_buffers::Grid;

/// The owner of a tile that is yet to be dealt out.
pub(super) const NOBODY: u16 = u16::MAX;
/// Tiles that [`Board::polish`] may look at: what keeps it in milliseconds.
const POLISH_VISITS_MAX: usize = 1 << 20;

pub(super) struct Board {
    axes: [usize; 3],
    /// Per tile, the owner.
    pub(super) owners: Vec<u16>,
    /// Per tile.
    pub(super) points: Vec<u32>,
    /// Per member, the points that it owns.
    pub(super) load: Vec<f64>,
    /// Per member, every tile that it owns, among others that it had.
    had: Vec<Vec<u32>>,
}

impl Board {
    pub(super) fn new(grid: &Grid, owners: Vec<u16>, members: usize) -> Board {
        let points: Vec<u32> = grid.tiles().map(|tile| grid.tile_block(tile).points() as u32).collect();
        let (mut load, mut had) = (vec![0.0; members], vec![Vec::new(); members]);
        for (tile, (owner, points)) in owners.iter().zip(&points).enumerate() {
            if *owner != NOBODY {
                load[usize::from(*owner)] += f64::from(*points);
                had[usize::from(*owner)].push(tile as u32);
            }
        }
        Board { axes: grid.tiles_per_axis().map(|n| n as usize), owners, points, load, had }
    }

    /// Gives a tile to a member, or to [`NOBODY`].
    pub(super) fn give(&mut self, tile: usize, to: u16) {
        let (from, points) = (self.owners[tile], f64::from(self.points[tile]));
        if from != NOBODY {
            self.load[usize::from(from)] -= points;
        }
        if to != NOBODY {
            self.load[usize::from(to)] += points;
            self.had[usize::from(to)].push(tile as u32);
        }
        self.owners[tile] = to;
    }

    /// The tiles of an owner, in order.
    pub(super) fn tiles_of(&self, owner: u16) -> Vec<u32> {
        if owner == NOBODY {
            return self.owners.iter().zip(0u32..).filter(|(o, _)| **o == NOBODY).map(|(_, tile)| tile).collect();
        }
        let mut tiles: Vec<u32> = self.had[usize::from(owner)].iter().copied().filter(|tile| self.owners[*tile as usize] == owner).collect();
        tiles.sort_unstable();
        tiles.dedup();
        tiles
    }

    fn coord(&self, tile: usize) -> [usize; 3] {
        let [nx, ny, _] = self.axes;
        [tile % nx, tile / nx % ny, tile / (nx * ny)]
    }

    /// The tiles that share a face with this one.
    pub(super) fn neighbours(&self, tile: usize) -> impl Iterator<Item = usize> + use<> {
        let ([nx, ny, nz], [x, y, z]) = (self.axes, self.coord(tile));
        let (row, plane) = (nx, nx * ny);
        [
            (x > 0, tile.wrapping_sub(1)),
            (x + 1 < nx, tile + 1),
            (y > 0, tile.wrapping_sub(row)),
            (y + 1 < ny, tile + row),
            (z > 0, tile.wrapping_sub(plane)),
            (z + 1 < nz, tile + plane),
        ]
        .into_iter()
        .filter_map(|(is_there, tile)| is_there.then_some(tile))
    }

    fn touching(&self, tile: usize, owner: u16) -> usize {
        self.neighbours(tile).filter(|next| self.owners[*next] == owner).count()
    }

    /// Faces between tiles of different owners; tiles of nobody count as one owner's.
    #[cfg(test)]
    pub(super) fn border(&self) -> usize {
        self.faces().count()
    }

    /// The faces between owners: the tile before, the tile behind.
    fn faces(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let [nx, ny, nz] = self.axes;
        let (row, plane) = (nx, nx * ny);
        (0..self.owners.len())
            .flat_map(move |tile| {
                let [x, y, z] = self.coord(tile);
                let behind = [(x + 1 < nx, tile + 1), (y + 1 < ny, tile + row), (z + 1 < nz, tile + plane)];
                behind.into_iter().filter_map(move |(is_there, next)| is_there.then_some((tile, next)))
            })
            .filter(|(tile, next)| self.owners[*tile] != self.owners[*next])
    }

    /// Pairs of members that share a border, each both ways, in order.
    pub(super) fn borders(&self) -> Vec<(u16, u16)> {
        let owners = self.faces().map(|(tile, next)| (self.owners[tile], self.owners[next]));
        let mut pairs: Vec<(u16, u16)> = owners.filter(|(a, b)| *a != NOBODY && *b != NOBODY).flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    /// Members grow into the tiles of nobody beside them, each at the pace of its `room`, which is in points.
    pub(super) fn grow(&mut self, room: &mut [f64]) {
        let whole = room.to_vec();
        let mut fronts: Vec<BinaryHeap<(usize, Reverse<u32>)>> = vec![BinaryHeap::new(); room.len()];
        for tile in self.tiles_of(NOBODY) {
            for next in self.neighbours(tile as usize) {
                let owner = self.owners[next];
                if owner != NOBODY {
                    fronts[usize::from(owner)].push((self.touching(tile as usize, owner), Reverse(tile)));
                }
            }
        }
        // The least filled first. An entry that is out of date counts too few of its own around it, and a better one is there.
        let filled = |room: f64, whole: f64| ((1.0 - room / whole) * f64::from(u32::MAX)) as u32;
        let mut turn: BinaryHeap<Reverse<(u32, u16)>> = (0..room.len()).filter(|m| room[*m] > 0.0).map(|m| Reverse((0, m as u16))).collect();
        while let Some(Reverse((_, member))) = turn.pop() {
            let at = usize::from(member);
            while let Some((_, Reverse(tile))) = fronts[at].pop() {
                let (tile, points) = (tile as usize, f64::from(self.points[tile as usize]));
                if self.owners[tile] != NOBODY || room[at] < points / 2.0 {
                    continue;
                }
                self.give(tile, member);
                room[at] -= points;
                for next in self.neighbours(tile) {
                    if self.owners[next] == NOBODY {
                        fronts[at].push((self.touching(next, member), Reverse(next as u32)));
                    }
                }
                turn.push(Reverse((filled(room[at], whole[at]), member)));
                break;
            }
        }
    }

    /// Moves up to `points` of one member's tiles to another with which it shares a border, there. Returns what moved.
    pub(super) fn shift(&mut self, from: u16, to: u16, points: f64) -> f64 {
        let worth = |board: &Board, tile: usize| board.touching(tile, to) as isize - board.touching(tile, from) as isize;
        let mut front: BinaryHeap<(isize, Reverse<u32>)> = BinaryHeap::new();
        for tile in self.tiles_of(from) {
            if self.touching(tile as usize, to) > 0 {
                front.push((worth(self, tile as usize), Reverse(tile)));
            }
        }
        let mut moved = 0.0;
        while let Some((_, Reverse(tile))) = front.pop() {
            let (tile, of_tile) = (tile as usize, f64::from(self.points[tile as usize]));
            if self.owners[tile] != from || points - moved < of_tile / 2.0 {
                continue;
            }
            self.give(tile, to);
            moved += of_tile;
            // Their worth has risen.
            for next in self.neighbours(tile) {
                if self.owners[next] == from {
                    front.push((worth(self, next), Reverse(next as u32)));
                }
            }
        }
        moved
    }

    /// Takes `budgets[m]` points from each member for [`NOBODY`], in whichever of some plain shapes (slabs, bands, a box)
    /// leaves the shortest border.
    pub(super) fn carve(&mut self, budgets: &[f64]) {
        let givers: Vec<(u16, f64, Vec<u32>)> =
            (0..budgets.len() as u16).filter(|m| budgets[usize::from(*m)] > 0.0).map(|m| (m, budgets[usize::from(m)], self.tiles_of(m))).collect();
        let owners = self.owners.clone();
        let anchor = self.anchor(&givers);
        let mut best: Option<(isize, Vec<u32>)> = None;
        for shape in Shape::all(self.axes) {
            let mut taken = Vec::new();
            for (_, budget, tiles) in &givers {
                self.take_in_order(shape, anchor, *budget, tiles, &mut taken);
            }
            for tile in &taken {
                self.owners[*tile as usize] = NOBODY;
            }
            let longer: isize = taken.iter().map(|tile| self.longer(&owners, *tile as usize)).sum();
            for tile in &taken {
                self.owners[*tile as usize] = owners[*tile as usize];
            }
            if best.as_ref().is_none_or(|(least, _)| longer < *least) {
                best = Some((longer, taken));
            }
        }
        for tile in best.map_or(Vec::new(), |(_, taken)| taken) {
            self.give(tile as usize, NOBODY);
        }
    }

    /// What a tile that became nobody's adds to the border, in half faces; the other half comes with the tile beside it, or is added here.
    fn longer(&self, before: &[u16], tile: usize) -> isize {
        let face = |next: usize| {
            let (was, is) = (before[next] != before[tile], self.owners[next] != NOBODY);
            let halves = if before[next] != NOBODY && self.owners[next] == NOBODY { 1 } else { 2 };
            halves * (isize::from(is) - isize::from(was))
        };
        self.neighbours(tile).map(face).sum()
    }

    fn take_in_order(&self, shape: Shape, anchor: [usize; 3], budget: f64, tiles: &[u32], taken: &mut Vec<u32>) {
        const TILE_BITS: u32 = 22;
        let key = |tile: &u32| (shape.key(self.coord(*tile as usize), self.axes, anchor) << TILE_BITS) | u64::from(*tile);
        let mut keys: Vec<u64> = tiles.iter().map(key).collect();
        // Only as many as are likely taken are put in order; all, where clipped tiles make it more.
        let likely = 2 * (budget / f64::from(self.points[0])) as usize + 16;
        if likely < keys.len() {
            keys.select_nth_unstable(likely);
        }
        let mut left = budget;
        let mut take = |keys: &mut [u64]| {
            keys.sort_unstable();
            for key in keys {
                let tile = (*key & ((1 << TILE_BITS) - 1)) as u32;
                let points = f64::from(self.points[tile as usize]);
                if left < points / 2.0 {
                    return true;
                }
                left -= points;
                taken.push(tile);
            }
            false
        };
        let (first, rest) = keys.split_at_mut(likely.min(tiles.len()));
        if !take(first) {
            take(rest);
        }
    }

    /// Where those who give meet one another, or the tiles of nobody, in half tiles; the grid's middle where they do not.
    fn anchor(&self, givers: &[(u16, f64, Vec<u32>)]) -> [usize; 3] {
        let mut gives = vec![false; usize::from(NOBODY) + 1];
        gives[usize::from(NOBODY)] = true;
        for (giver, ..) in givers {
            gives[usize::from(*giver)] = true;
        }
        let (mut sum, mut count) = ([0usize; 3], 0);
        for (tile, next) in self.faces() {
            if gives[usize::from(self.owners[tile])] && gives[usize::from(self.owners[next])] {
                let (a, b) = (self.coord(tile), self.coord(next));
                sum = [0, 1, 2].map(|axis| sum[axis] + a[axis] + b[axis]);
                count += 1;
            }
        }
        if count == 0 { self.axes.map(|n| n - 1) } else { sum.map(|sum| (sum + count / 2) / count) }
    }

    /// Deals all tiles out singly, the largest first, each to who is then done first, to its owner where that is the same; borders
    /// count for nothing. For few tiles, where whole ones are coarse.
    pub(super) fn deal_singly(&mut self, speeds: &[f64], limits: &[f64]) {
        let owners = self.owners.clone();
        (0..owners.len()).for_each(|tile| self.give(tile, NOBODY));
        let mut tiles: Vec<usize> = (0..owners.len()).collect();
        tiles.sort_by_key(|tile| (Reverse(self.points[*tile]), *tile));
        for tile in tiles {
            let points = f64::from(self.points[tile]);
            let key = |member: usize| ((self.load[member] + points) / speeds[member], member != usize::from(owners[tile]));
            let fitting = (0..speeds.len()).filter(|member| self.load[*member] + points <= limits[*member]);
            let first = fitting.min_by(|a, b| key(*a).0.total_cmp(&key(*b).0).then(key(*a).1.cmp(&key(*b).1)));
            if let Some(member) = first {
                self.give(tile, member as u16);
            }
        }
    }

    /// Moves single tiles from whoever finishes last to those beside it, where `may` (tile, to) allows it, as long as that brings the
    /// end forward and it is later than `enough`; bounded work.
    pub(super) fn polish(&mut self, speeds: &[f64], limits: &[f64], may: impl Fn(usize, usize) -> bool, enough: f64) {
        let members = self.load.len();
        let tiles_per_member = self.owners.len() / members + 1;
        for _ in 0..(POLISH_VISITS_MAX / tiles_per_member).min(2 * members + 16) {
            let time = |member: usize, more: f64| (self.load[member] + more) / speeds[member];
            let Some(last) = (0..members).max_by(|a, b| time(*a, 0.0).total_cmp(&time(*b, 0.0)).then(b.cmp(a))) else { return };
            let end = time(last, 0.0);
            if end <= enough {
                return;
            }
            let gains = |to: usize, points: f64| to != last && self.load[to] + points <= limits[to] && time(to, points) < end * (1.0 - 1e-9);
            let mut best: Option<((f64, isize), usize, u16)> = None;
            for tile in self.tiles_of(last as u16) {
                let (tile, points) = (tile as usize, f64::from(self.points[tile as usize]));
                for to in self
                    .neighbours(tile)
                    .map(|next| usize::from(self.owners[next]))
                    .filter(|to| *to < members && gains(*to, points) && may(tile, *to))
                {
                    let longer = self.touching(tile, last as u16) as isize - self.touching(tile, to as u16) as isize;
                    let key = (time(to, points).max(time(last, -points)), longer);
                    if best.as_ref().is_none_or(|(least, ..)| key < *least) {
                        best = Some((key, tile, to as u16));
                    }
                }
            }
            let Some((_, tile, to)) = best else { return };
            self.give(tile, to);
        }
    }
}

/// An order in which tiles are taken.
#[derive(Clone, Copy)]
enum Shape {
    /// From the low end of an axis.
    Low(usize),
    /// From the high end of an axis.
    High(usize),
    /// Outwards from the anchor along an axis.
    Band(usize),
    /// Outwards from the anchor in all directions.
    Box,
}

impl Shape {
    fn all(axes: [usize; 3]) -> impl Iterator<Item = Shape> {
        let long = (0..3).rev().filter(move |axis| axes[*axis] > 1);
        long.flat_map(|axis| [Shape::High(axis), Shape::Low(axis), Shape::Band(axis)]).chain([Shape::Box])
    }

    /// What is taken first is smallest; at most 42 bits, as no axis is longer than a grid has tiles.
    fn key(self, coord: [usize; 3], axes: [usize; 3], anchor: [usize; 3]) -> u64 {
        let off = |axis: usize| (2 * coord[axis]).abs_diff(anchor[axis]);
        let (first, second) = match self {
            Shape::Low(axis) => (coord[axis], coord[other(axis)]),
            Shape::High(axis) => (axes[axis] - 1 - coord[axis], coord[other(axis)]),
            Shape::Band(axis) => (off(axis), coord[other(axis)]),
            Shape::Box => (off(0).max(off(1)).max(off(2)), off(0) + off(1) + off(2)),
        };
        (first as u64) << 21 | second as u64
    }
}

/// What orders the tiles of one plane across `axis`, before their number: a plane that is partly taken is taken from one end.
fn other(axis: usize) -> usize {
    if axis == 2 { 1 } else { 2 }
}
