//! Reduced tables: shares of workgroups, one row per tile, the table.
//!
//! ```text
//! before the pass   fill             shares ← identity
//! after it          fold or spread   shares → rows of own tiles
//! exchange          rows of other peers' tiles
//! after it          combine          rows → table
//! ```
//!
//! The steps are kernels of the framework (`shaders/framework/reduce.wgsl`), which every executor runs as it
//! runs any kernel. Invariant: every step joins words in an order that the grid alone decides.

use peercompute_buffers::layout::Scalar;

use crate::declaration::{Extent, Reduce};
use crate::executor::Layout;
use crate::program::{Program, Write, identity_word};

/// The framework's reduction kernels.
pub(crate) const WGSL: &str = include_str!("../../../shaders/framework/reduce.wgsl");

/// `@binding` numbers of the reduction kernels.
pub(crate) mod binding {
    /// What is read.
    pub(crate) const SOURCE: u32 = 0;
    /// What is written.
    pub(crate) const RESULT: u32 = 1;
    /// The numbers of own tiles.
    pub(crate) const TILES: u32 = 2;
    /// `struct Shape`.
    pub(crate) const SHAPE: u32 = 3;
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepPlan {
    /// The kernel.
    pub(crate) entry: &'static str,
    /// `struct Shape`: identity, words, stride, count.
    pub(crate) shape: [u32; 4],
    /// Workgroups along x and y; a step with a 0 does nothing.
    pub(crate) groups: [u32; 2],
}

/// How one table is reduced on one peer.
#[derive(Clone, Debug)]
pub(crate) struct Reduction {
    /// Words that kernels write: a share per workgroup, or one of the peer.
    pub(crate) share_words: u64,
    /// Words of a row: those of the table.
    pub(crate) row_words: u64,
    /// Words of all rows: one row per tile of the grid.
    pub(crate) rows_words: u64,
    /// The number of every own tile, in the order of rows of the tile table.
    pub(crate) owned: Vec<u32>,
    /// The kernels' overrides.
    pub(crate) constants: [(&'static str, f64); 2],
    /// Sets every share to the identity, before the pass.
    pub(crate) clear: StepPlan,
    /// From shares to the rows of own tiles, after the pass.
    pub(crate) fold: StepPlan,
    /// From all rows to the table, after the exchange.
    pub(crate) combine: StepPlan,
}

impl Reduction {
    /// The reduction of a buffer; `None` for a field, and for a table that no pass writes.
    pub(crate) fn new(program: &Program, layout: &Layout, buffer: usize) -> Option<Reduction> {
        let Extent::Table { reduce: Some(reduce), .. } = program.manifest.buffers[buffer].extent else { return None };
        let shares = layout.shares[buffer].as_ref()?;
        let at = program.manifest.passes.iter().position(|pass| pass.writes.contains(&buffer))?;
        let (pass, checked) = (&program.manifest.passes[at], &program.passes[at]);
        let by_atomics = pass.writes.iter().zip(&checked.writes).any(|(&b, write)| b == buffer && *write == Write::Atomics);
        // All tables of a pass share one stride: the prelude's `partial` knows the pass, not the table.
        let lengths = pass.writes.iter().filter_map(|&b| match program.manifest.buffers[b].extent {
            Extent::Table { length, .. } => Some(length),
            Extent::Field { .. } => None,
        });
        let stride = lengths.max().unwrap_or(1) * program.elements[buffer].words();
        let owned: Vec<u32> = layout.grids[shares.grid].owned().map(|tile| tile.0).collect();
        let groups = program.groups_per_tile(at).iter().product::<u32>();
        let share_words = if by_atomics { u64::from(shares.words) } else { owned.len() as u64 * u64::from(groups) * u64::from(stride) };
        let tiles = layout.placement.owners[shares.grid].len() as u32;
        let scalar = program.elements[buffer].uniform_scalar().unwrap_or(Scalar::U32);
        let identity = identity_word(reduce, scalar);
        let wide = |words: u64| words.div_ceil(256).clamp(1, 4096) as u32;
        let step = |entry, [stride, count]: [u32; 2], groups| StepPlan { entry, shape: [identity, shares.words, stride, count], groups };
        let rows = owned.len() as u32;
        Some(Reduction {
            share_words,
            row_words: shares.words.into(),
            rows_words: u64::from(tiles) * u64::from(shares.words),
            owned,
            constants: constants(scalar, reduce),
            clear: step("fill", [0, 0], [wide(share_words), 1]),
            fold: if by_atomics {
                step("spread", [0, rows], [wide(shares.words.into()), 1])
            } else {
                step("fold", [stride, groups], [shares.words.min(65_535), rows])
            },
            combine: step("combine", [0, tiles], [shares.words.min(65_535), 1]),
        })
    }
}

/// What the kernels' overrides are for a table.
fn constants(scalar: Scalar, reduce: Reduce) -> [(&'static str, f64); 2] {
    let kind = match scalar {
        Scalar::F32 => 0.0,
        Scalar::I32 => 1.0,
        Scalar::U32 => 2.0,
    };
    let operation = match reduce {
        Reduce::Sum => 0.0,
        Reduce::Min => 1.0,
        Reduce::Max => 2.0,
    };
    [("kind", kind), ("operation", operation)]
}
