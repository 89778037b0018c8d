//! What lies in a buffer's memory, and which memory a kernel's binding shows: the part that every
//! executor shares, whatever its memory is made of.
//!
//! A field has one arena per page, a table one arena; a buffer that passes swap has two *sides* of
//! each. Invariant: two executors given the same program and layout bind the same bytes everywhere, to
//! the length that `arrayLength` sees.

use std::ops::Range;

use peercompute_buffers::TileId;
use peercompute_buffers::exchange;

use crate::declaration::{Access, Extent};
use crate::executor::Layout;
use crate::executor::layout::field_ghost;
use crate::program::{Fresh, Program, Role, Write};

/// Elements of every page of a buffer's arena. There is always one: a peer that owns nothing still
/// binds something where another grid's pass reads the field.
pub(crate) fn page_elements(program: &Program, layout: &Layout, buffer: usize) -> Vec<u64> {
    let elements: Vec<u64> = match program.manifest.buffers[buffer].extent {
        Extent::Table { length, .. } => vec![length.into()],
        Extent::Field { grid } => layout.grids[grid].pages.iter().map(|page| page.elements.into()).collect(),
    };
    if elements.is_empty() { vec![1] } else { elements }
}

/// The elements of a field's page that hold its boundary constant, on every side and for good.
pub(crate) fn constant_elements(program: &Program, layout: &Layout, buffer: usize, page: usize) -> Vec<Range<u32>> {
    let declared = &program.manifest.buffers[buffer];
    let Extent::Field { grid } = declared.extent else { return Vec::new() };
    let residency = &layout.grids[grid];
    let Some(content) = residency.pages.get(page).filter(|_| !declared.constant.is_empty()) else { return Vec::new() };
    let ghost = program.exchanges.iter().flatten().find_map(|fresh| match fresh {
        Fresh::Field { buffer: b, .. } if *b == buffer => field_ghost(program, fresh, grid),
        _ => None,
    });
    let mut runs: Vec<Range<u32>> = content.constant.iter().map(|&constant| constant..constant + 1).collect();
    if let Some(ghost) = &ghost {
        runs.extend(exchange::constant_pieces(residency, page, ghost));
    }
    runs
}

/// What a binding shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The tile table of the pass' grid, on this page.
    TileTable,
    /// `struct Params`.
    Params,
    /// The dispatch's own numbers.
    Dispatch,
    /// What kernels contribute to a reduced table.
    Shares(usize),
    /// An arena.
    Arena {
        /// The buffer.
        buffer: usize,
        /// The page.
        page: usize,
        /// Whether it is the side that is not current.
        is_other_side: bool,
        /// Its first bytes alone, if not all.
        bytes: Option<u64>,
    },
}

/// What a binding of a pass shows while the pass runs over a page of its grid.
pub(crate) fn shown(program: &Program, layout: &Layout, pass: usize, page: usize, role: Role) -> Shown {
    let (declared, checked) = (&program.manifest.passes[pass], &program.passes[pass]);
    let buffer = match role {
        Role::TileTable => return Shown::TileTable,
        Role::Params => return Shown::Params,
        Role::Dispatch => return Shown::Dispatch,
        Role::Next(buffer) if layout.shares[buffer].is_some() => return Shown::Shares(buffer),
        Role::Current(buffer) | Role::Next(buffer) => buffer,
    };
    let is_swapped = declared.writes.iter().zip(&checked.writes).any(|(&b, write)| b == buffer && matches!(write, Write::Swap { .. }));
    let is_own_grid = program.manifest.buffers[buffer].extent == (Extent::Field { grid: declared.grid });
    let is_whole = declared.reads.contains(&(buffer, Access::All));
    Shown::Arena {
        buffer,
        page: if is_own_grid { page } else { 0 },
        is_other_side: is_swapped && matches!(role, Role::Next(_)),
        bytes: whole_bytes(program, layout, buffer).filter(|_| is_whole),
    }
}

/// The bytes of a field's slots in tile order, without what lies behind them: what `arrayLength` should see.
fn whole_bytes(program: &Program, layout: &Layout, buffer: usize) -> Option<u64> {
    let grid = layout.of_field(program, buffer)?.grid;
    let last = TileId(grid.tile_count() - 1);
    let elements = u64::from(last.0) * grid.tile_points() + grid.tile_block(last).points();
    Some(elements * u64::from(program.elements[buffer].stride))
}
