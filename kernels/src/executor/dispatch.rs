//! How a pass over tiles becomes dispatches.
//!
//! A dispatch covers a box of workgroups of every tile in a range of rows of the tile table; rows and
//! the box' z share the dispatch's z. More than 65,535 groups along an axis are split. On software
//! adapters a pass that reads a halo runs its interior and its borders apart: a CPU pays for every
//! branch in `at`, a GPU for every dispatch (plan/sketches/slots.md has the figures).
//!
//! Apart, a pass whose invocations know nothing of their workgroup (a *free* one) has an interior that
//! starts right behind the halo and borders that are slabs of just the halo's depth, counted through
//! whatever the workgroup's shape; any other is cut between workgroups.
//! Invariant: the dispatches of a pass cover every element of every tile exactly once, and every
//! workgroup exactly once unless the pass is free.

use peercompute_buffers::Grid;

use crate::executor::Layout;
use crate::link::groups_per_tile;
use crate::program::{Program, Role};

/// How the elements whose neighbours lie in another tile are told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Borders {
    /// By a branch in the kernel: one dispatch.
    InPlace,
    /// By a pipeline of their own: several dispatches, no branch in the interior.
    Apart,
}

/// Which of a pass' pipelines a dispatch needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Any elements: `at` asks the neighbour table where it has to.
    Any,
    /// Elements whose every neighbour within the halo lies in the same tile.
    Interior,
    /// The same, of all tiles at once and right behind the halo: where that is needs no telling.
    Inner,
    /// A slab of elements, counted through.
    Slab,
}

impl Part {
    pub(crate) const ALL: [Part; 4] = [Part::Any, Part::Interior, Part::Inner, Part::Slab];

    /// What the prelude's overrides are for this part.
    pub(crate) fn constants(self) -> &'static [(&'static str, f64)] {
        match self {
            Part::Any => &[],
            Part::Interior => &[("pc_interior", 1.0)],
            Part::Inner => &[("pc_interior", 1.0), ("pc_inner", 1.0)],
            Part::Slab => &[("pc_slab", 1.0)],
        }
    }
}

/// One dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dispatch {
    /// The pipeline.
    pub(crate) part: Part,
    /// The first row of the tile table.
    pub(crate) first_row: u32,
    /// Invocations along z for one tile.
    pub(crate) span_z: u32,
    /// Where in the tile it starts, in invocations.
    pub(crate) offset: [u32; 3],
    /// The slab's extent; 0 for other parts.
    pub(crate) slab: [u32; 3],
    /// Workgroups.
    pub(crate) groups: [u32; 3],
}

/// The uniform that the prelude reads.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct DispatchUniform {
    tick: u32,
    first_row: u32,
    page_row: u32,
    span_z: u32,
    offset: [u32; 3],
    padding: u32,
    slab: [u32; 3],
    padding_end: u32,
}

impl Dispatch {
    /// What a kernel is told in `tick`, on a page whose first owned tile is in row `page_row` of all owned tiles.
    pub(crate) fn uniform(&self, tick: u64, page_row: u32) -> DispatchUniform {
        DispatchUniform {
            tick: tick as u32,
            first_row: self.first_row,
            page_row,
            span_z: self.span_z,
            offset: self.offset,
            padding: 0,
            slab: self.slab,
            padding_end: 0,
        }
    }
}

/// Every dispatch of a pass on one peer.
#[derive(Clone, Debug)]
pub(crate) struct PassDispatches {
    /// Per page, its dispatches.
    pub(crate) pages: Vec<Vec<Dispatch>>,
    /// Per page, the row of its first owned tile among all owned tiles.
    pub(crate) page_rows: Vec<u32>,
}

impl PassDispatches {
    /// The dispatches of a pass, none with more than `groups_max` workgroups along an axis.
    pub(crate) fn new(program: &Program, layout: &Layout, pass: usize, borders: Borders, groups_max: u32) -> PassDispatches {
        let checked = &program.passes[pass];
        let residency = &layout.grids[program.manifest.passes[pass].grid];
        // Without the table there is no border to tell from the interior.
        let uses_table = checked.bindings.iter().any(|binding| binding.role == Role::TileTable);
        let borders = if uses_table { borders } else { Borders::InPlace };
        let shape = PassShape { workgroup: checked.workgroup, halo: program.halo(pass), is_free: checked.is_free && uses_table };
        let mut list = PassDispatches { pages: Vec::new(), page_rows: Vec::new() };
        let mut row = 0;
        for page in &residency.pages {
            let rows = page.owned.len() as u32;
            list.page_rows.push(row);
            list.pages.push(dispatches(&residency.grid, shape, rows, borders, groups_max));
            row += rows;
        }
        list
    }

    /// The parts that a pipeline is needed for.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        Part::ALL.into_iter().filter(|&part| self.pages.iter().flatten().any(|dispatch| dispatch.part == part))
    }
}

/// A pass, as far as its dispatches depend on it.
#[derive(Clone, Copy, Debug)]
struct PassShape {
    workgroup: [u32; 3],
    halo: u32,
    is_free: bool,
}

/// A box of workgroups: first and one past the last, along each axis.
type GroupBox = [[u32; 2]; 3];

/// The dispatches of a pass over `rows` tiles.
fn dispatches(grid: &Grid, pass: PassShape, rows: u32, borders: Borders, groups_max: u32) -> Vec<Dispatch> {
    let PassShape { workgroup, halo, is_free } = pass;
    if borders == Borders::Apart
        && is_free
        && let Some(list) = free_parts(grid, workgroup, halo, rows, groups_max)
    {
        return list;
    }
    let groups = groups_per_tile(grid, workgroup);
    let whole: GroupBox = groups.map(|count| [0, count]);
    let mut list = Vec::new();
    match (borders, interior(grid, workgroup, halo)) {
        (Borders::Apart, Some(inner)) => {
            push(&mut list, Part::Interior, inner, workgroup, rows, groups_max);
            for part in shell(whole, inner) {
                push(&mut list, Part::Any, part, workgroup, rows, groups_max);
            }
        }
        _ => push(&mut list, Part::Any, whole, workgroup, rows, groups_max),
    }
    list
}

/// The interior and the slabs around it, in elements; `None` where the interior is not most of a tile,
/// or something would not fit one dispatch.
fn free_parts(grid: &Grid, workgroup: [u32; 3], halo: u32, rows: u32, groups_max: u32) -> Option<Vec<Dispatch>> {
    if halo == 0 || !grid.is_divisible() {
        return None;
    }
    let dims = usize::from(grid.dims);
    let depth = |axis: usize| if axis < dims { halo } else { 0 };
    let inner: GroupBox = [0, 1, 2].map(|axis| [depth(axis), grid.tile[axis].saturating_sub(depth(axis))]);
    let inside: u64 = inner.iter().map(|[first, end]| u64::from(end.saturating_sub(*first))).product();
    if inside * 2 <= grid.tile_points() {
        return None;
    }
    let groups = [0, 1, 2].map(|axis| (inner[axis][1] - inner[axis][0]).div_ceil(workgroup[axis]));
    if groups[0] > groups_max || groups[1] > groups_max || groups[2] > groups_max {
        return None;
    }
    let size = u64::from(workgroup[0]) * u64::from(workgroup[1]) * u64::from(workgroup[2]);
    let mut parts = vec![(Part::Interior, inner.map(|[first, _]| first), [0; 3], groups)];
    for slab in shell(grid.tile.map(|extent| [0, extent]), inner) {
        let extent = slab.map(|[first, end]| end - first);
        let groups = extent.iter().map(|&e| u64::from(e)).product::<u64>().div_ceil(size);
        if groups > u64::from(groups_max) {
            return None;
        }
        parts.push((Part::Slab, slab.map(|[first, _]| first), extent, [groups as u32, 1, 1]));
    }
    let mut list = Vec::new();
    for (part, offset, slab, groups) in parts {
        let rows_max = groups_max / groups[2];
        let part = if part == Part::Interior && rows <= rows_max { Part::Inner } else { part };
        for first_row in (0..rows).step_by(rows_max as usize) {
            let groups = [groups[0], groups[1], groups[2] * rows_max.min(rows - first_row)];
            let span_z = groups[2] / rows_max.min(rows - first_row) * workgroup[2];
            list.push(Dispatch { part, first_row, span_z, offset, slab, groups });
        }
    }
    Some(list)
}

/// The workgroups that lie in the tile with their whole halo, if they are most of it.
fn interior(grid: &Grid, workgroup: [u32; 3], halo: u32) -> Option<GroupBox> {
    if halo == 0 || !grid.is_divisible() {
        return None;
    }
    let mut inner: GroupBox = [[0, 1]; 3];
    let (mut inside, mut all) = (1u64, 1u64);
    for axis in 0..3 {
        let (size, tile) = (workgroup[axis], grid.tile[axis]);
        if axis < usize::from(grid.dims) {
            inner[axis] = [halo.div_ceil(size), tile.saturating_sub(halo) / size];
        } else if size != 1 {
            return None;
        }
        inside *= u64::from(inner[axis][1].saturating_sub(inner[axis][0]));
        all *= u64::from(tile.div_ceil(size));
    }
    (inside * 2 > all).then_some(inner)
}

/// What is left of a box around an inner one, as boxes that do not overlap.
fn shell(mut outer: GroupBox, inner: GroupBox) -> Vec<GroupBox> {
    let mut parts = Vec::new();
    for axis in (0..3).rev() {
        let [first, end] = outer[axis];
        for side in [[first, inner[axis][0]], [inner[axis][1], end]] {
            if side[0] < side[1] {
                let mut part = outer;
                part[axis] = side;
                parts.push(part);
            }
        }
        outer[axis] = inner[axis];
    }
    parts
}

fn push(list: &mut Vec<Dispatch>, kind: Part, part: GroupBox, workgroup: [u32; 3], rows: u32, groups_max: u32) {
    let cuts = |[first, end]: [u32; 2]| (first..end).step_by(groups_max as usize).map(move |at| [at, end.min(at + groups_max)]);
    for z in cuts(part[2]) {
        let groups_z = z[1] - z[0];
        let rows_max = groups_max / groups_z;
        for first_row in (0..rows).step_by(rows_max as usize) {
            for y in cuts(part[1]) {
                for x in cuts(part[0]) {
                    list.push(Dispatch {
                        part: kind,
                        first_row,
                        span_z: groups_z * workgroup[2],
                        offset: [x[0] * workgroup[0], y[0] * workgroup[1], z[0] * workgroup[2]],
                        slab: [0; 3],
                        groups: [x[1] - x[0], y[1] - y[0], groups_z * rows_max.min(rows - first_row)],
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_workgroup_of_every_tile_is_dispatched_once(
            tile in proptest::array::uniform3(1u32..20),
            workgroup in proptest::array::uniform3(1u32..5),
            dims in 1usize..4,
            halo in 0u32..4,
            rows in 1u32..9,
            groups_max in 4u32..40,
            apart in any::<bool>(),
        ) {
            let grid = Grid::new(&tile.map(|e| e * 2)[..dims], &tile[..dims]).unwrap();
            let groups = groups_per_tile(&grid, workgroup);
            prop_assume!(groups[2] <= groups_max);
            let mut seen = std::collections::BTreeMap::new();
            let borders = if apart { Borders::Apart } else { Borders::InPlace };
            let pass = PassShape { workgroup, halo, is_free: false };
            for d in dispatches(&grid, pass, rows, borders, groups_max) {
                prop_assert!(d.groups.iter().all(|&g| g > 0 && g <= groups_max), "{:?}", d);
                let groups_z = d.span_z / workgroup[2];
                for z in 0..d.groups[2] { for y in 0..d.groups[1] { for x in 0..d.groups[0] {
                    let group = [x + d.offset[0] / workgroup[0], y + d.offset[1] / workgroup[1], z % groups_z + d.offset[2] / workgroup[2]];
                    *seen.entry((d.first_row + z / groups_z, group)).or_insert(0) += 1;
                    if d.part == Part::Interior {
                        for axis in 0..dims {
                            prop_assert!(group[axis] * workgroup[axis] >= halo);
                            prop_assert!((group[axis] + 1) * workgroup[axis] + halo <= grid.tile[axis]);
                        }
                    }
                }}}
            }
            prop_assert_eq!(seen.len() as u32, rows * groups.iter().product::<u32>());
            prop_assert!(seen.values().all(|&n| n == 1));
        }

        /// As the prelude computes it.
        #[test]
        fn every_element_of_every_tile_is_dispatched_once(
            tile in proptest::array::uniform3(1u32..12),
            workgroup in proptest::array::uniform3(1u32..5),
            dims in 1usize..4,
            halo in 1u32..4,
            rows in 1u32..5,
            groups_max in 12u32..80,
        ) {
            let grid = Grid::new(&tile.map(|e| e * 2)[..dims], &tile[..dims]).unwrap();
            let [wx, wy, wz] = workgroup;
            prop_assume!(groups_per_tile(&grid, workgroup)[2] <= groups_max);
            let mut seen = std::collections::BTreeMap::new();
            let pass = PassShape { workgroup, halo, is_free: true };
            for d in dispatches(&grid, pass, rows, Borders::Apart, groups_max) {
                prop_assert!(d.groups.iter().all(|&g| g > 0 && g <= groups_max), "{:?}", d);
                for idz in 0..d.groups[2] * wz { for idy in 0..d.groups[1] * wy { for idx in 0..d.groups[0] * wx {
                    let (row, z) = (idz / d.span_z, idz % d.span_z);
                    let mut spread = [idx, idy, z];
                    if d.part == Part::Slab {
                        let lane = idx % wx + wx * (idy + wy * z);
                        let k = idx / wx * (wx * wy * wz) + lane;
                        spread = [k % d.slab[0], k / d.slab[0] % d.slab[1], k / (d.slab[0] * d.slab[1])];
                    }
                    let reached = [0, 1, 2].map(|a| spread[a] + d.offset[a]);
                    let depth = |a: usize| if a < dims { halo } else { 0 };
                    let inside = match d.part {
                        Part::Any => (0..3).all(|a| reached[a] < grid.tile[a]),
                        Part::Interior | Part::Inner => (0..3).all(|a| reached[a] + depth(a) < grid.tile[a]),
                        Part::Slab => spread[2] < d.slab[2],
                    };
                    if inside {
                        prop_assert!((0..3).all(|a| reached[a] < grid.tile[a]));
                        prop_assert!(d.part == Part::Any || d.part == Part::Slab || (0..dims).all(|a| reached[a] >= halo));
                        // What such a kernel takes for granted.
                        prop_assert!(d.part != Part::Inner || (d.first_row == 0 && d.offset == [0, 1, 2].map(depth)));
                        *seen.entry((d.first_row + row, reached)).or_insert(0) += 1;
                    }
                }}}
            }
            prop_assert_eq!(seen.len() as u64, u64::from(rows) * grid.tile_points());
            prop_assert!(seen.values().all(|&n| n == 1));
        }
    }
}
