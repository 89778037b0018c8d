//! Device memory: what a run takes is what its declaration says, to the byte.
//!
//! ```text
//! fields    resident tiles × elements × stride × sides        sides: 2 where a pass swaps, else 1
//! strips    one per tile and direction whose neighbour is not resident, the same way
//! constant  tables, shares of reduced tables, tile tables, params, the ring of dispatches, mailboxes
//! ```
//!
//! [`predict`] works this out from the declaration and the placement; the executor counts what it makes.
//! Limits: grids that their tiles divide, no strip cut by a page (the benches' sizes are chosen so).

use peercompute_buffers::halo::{self, Boundary, Direction};
use peercompute_buffers::residency::HaloRules;
use peercompute_buffers::{Grid, TileId};
use peercompute_kernels::Program;
use peercompute_kernels::declaration::Extent;
use peercompute_kernels::executor::gpu::Gpu;
use peercompute_kernels::executor::{Layout, Placement, Run};
use peercompute_kernels::program::Write;
use pollster::block_on;

use super::load;
use super::strips::halves;
use crate::report::Figure;
use crate::{Bench, BenchError, Effort};

/// Dispatches that the executor's ring holds: `BATCH_MAX` of the gpu executor.
const RING_DISPATCHES: u64 = 256;
/// Bytes of the uniform of a dispatch.
const DISPATCH_BYTES: u64 = 48;
/// Bytes of one affine copy of an exchange.
const COPY_BYTES: u64 = 48;

/// What a run's memory is made of, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// Slots of resident tiles, all sides of all fields.
    pub fields: u64,
    /// Strips and boundary constants behind the slots.
    pub strips: u64,
    /// Tables.
    pub tables: u64,
    /// What reduced tables need besides: shares of workgroups, rows of tiles, numbers.
    pub reductions: u64,
    /// Slot, origin and neighbours of every owned tile.
    pub tile_tables: u64,
    /// `struct Params`.
    pub params: u64,
    /// The ring of dispatch uniforms.
    pub ring: u64,
    /// Outboxes, inboxes, their staging and the copies that fill and empty them.
    pub mailboxes: u64,
}

impl MemoryParts {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.fields + self.strips + self.constant()
    }

    /// All but fields and strips.
    pub fn constant(&self) -> u64 {
        self.tables + self.reductions + self.tile_tables + self.params + self.ring + self.mailboxes
    }
}

/// Works out what a program takes on one peer.
///
/// `layout` gives only the lengths of mailboxes, which the strips bench holds against geometry;
/// `uniform_alignment` is the adapter's `min_uniform_buffer_offset_alignment`.
pub fn predict(program: &Program, placement: &Placement, layout: &Layout, uniform_alignment: u64) -> MemoryParts {
    let mut parts = MemoryParts::default();
    for (index, buffer) in program.manifest.buffers.iter().enumerate() {
        let stride = u64::from(program.elements[index].stride);
        match buffer.extent {
            Extent::Field { grid } => {
                let (rules, grid_number, grid) = (&program.rules[grid], grid, &program.manifest.grids[grid].grid);
                let owners = &placement.owners[grid_number];
                let is_resident = |tile: TileId| rules.whole || owners[tile.0 as usize] == placement.me;
                let sides = if program.is_double(index) { 2 } else { 1 };
                let slots = grid.tiles().filter(|&tile| is_resident(tile)).count() as u64 * grid.tile_points();
                parts.fields += slots * stride * sides;
                let owned = placement.computed_by(grid_number, placement.me);
                parts.strips += strip_elements(grid, rules, &owned, &is_resident) * stride * sides;
            }
            Extent::Table { length, reduce } => {
                parts.tables += u64::from(length) * stride;
                if reduce.is_some() {
                    parts.reductions += reduction_bytes(program, placement, index);
                }
            }
        }
    }
    for (number, named) in program.manifest.grids.iter().enumerate() {
        // A header of 8 words, then 4 words for each of the 3 per axis neighbours, itself among them.
        let row_words = 8 + 4 * 3u64.pow(u32::from(named.grid.dims));
        parts.tile_tables += placement.computed_by(number, placement.me).len() as u64 * row_words * 4;
    }
    parts.params = (program.manifest.params.len() as u64).max(16).next_multiple_of(16);
    parts.ring = RING_DISPATCHES * DISPATCH_BYTES.next_multiple_of(uniform_alignment);
    for plan in &layout.exchanges {
        let sent_words = plan.send.last().map_or(0, |run| run.end) as u64;
        let copies = plan.pack.iter().chain(&plan.unpack_local).chain(&plan.unpack).map(|set| set.copies.len() as u64).sum::<u64>();
        // A mailbox without content still is a buffer, of one word.
        parts.mailboxes += plan.outbox_words.max(1) * 4 + plan.inbox_words.max(1) * 4 + sent_words * 4 + copies * COPY_BYTES;
    }
    parts
}

/// Elements of all strips and boundary constants of one side of a field.
fn strip_elements(grid: &Grid, rules: &HaloRules, owned: &[TileId], is_resident: &dyn Fn(TileId) -> bool) -> u64 {
    if rules.depth == 0 {
        return 0;
    }
    let mut elements = u64::from(rules.boundaries.contains(&Boundary::Constant));
    for &tile in owned {
        for direction in halo::directions(grid.dims) {
            if needs_strip(grid, rules, tile, direction, is_resident) {
                elements += (0..usize::from(grid.dims))
                    .map(|axis| u64::from(if direction[axis] == 0 { grid.tile[axis] } else { rules.depth }))
                    .product::<u64>();
            }
        }
    }
    elements
}

fn needs_strip(grid: &Grid, rules: &HaloRules, tile: TileId, direction: Direction, is_resident: &dyn Fn(TileId) -> bool) -> bool {
    let (at, tiles) = (grid.tile_position(tile), grid.tiles_per_axis());
    let beyond = |axis: usize| {
        let place = i64::from(at[axis]) + i64::from(direction[axis]);
        place < 0 || place >= i64::from(tiles[axis])
    };
    let leaves = (0..3).any(beyond);
    if leaves && rules.boundaries.len() > 1 {
        return true;
    }
    let boundary = rules.boundaries.first().copied().unwrap_or(Boundary::Clamp);
    if leaves && boundary == Boundary::Constant {
        return false;
    }
    let neighbour = [0, 1, 2].map(|axis| {
        let place = i64::from(at[axis]) + i64::from(direction[axis]);
        let count = i64::from(tiles[axis]);
        (if boundary == Boundary::Wrap { place.rem_euclid(count) } else { place.clamp(0, count - 1) }) as u32
    });
    !is_resident(grid.tile_at(neighbour))
}

fn reduction_bytes(program: &Program, placement: &Placement, table: usize) -> u64 {
    let manifest = &program.manifest;
    let writer = manifest.passes.iter().position(|pass| pass.writes.contains(&table));
    let (Some(at), Extent::Table { length, .. }) = (writer, manifest.buffers[table].extent) else { return 0 };
    let (pass, checked) = (&manifest.passes[at], &program.passes[at]);
    let words = u64::from(program.elements[table].words());
    let row_words = u64::from(length) * words;
    let tiles = placement.owners[pass.grid].len() as u64;
    let owned = placement.computed_by(pass.grid, placement.me).len() as u64;
    let by_atomics = pass.writes.iter().zip(&checked.writes).any(|(&buffer, write)| buffer == table && *write == Write::Atomics);
    let lengths = pass.writes.iter().filter_map(|&buffer| match manifest.buffers[buffer].extent {
        Extent::Table { length, .. } => Some(u64::from(length)),
        Extent::Field { .. } => None,
    });
    let groups: u64 = program.groups_per_tile(at).iter().map(|&count| u64::from(count)).product();
    let shares = if by_atomics { row_words } else { owned * groups * lengths.max().unwrap_or(1) * words };
    // Rows of all tiles, numbers of own ones, the shapes of three steps, an unused source for the first.
    shares * 4 + tiles * row_words * 4 + owned * 4 + 3 * 16 + 4
}

pub(super) fn run(gpu: &Gpu, effort: Effort, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let tiny = effort == Effort::Tiny;
    let (side, tile) = if tiny { (64, 16) } else { (4096, 1024) };
    let (deep, deep_tile) = if tiny { (16, 8) } else { (128, 64) };
    let (wide, wide_tile) = if tiny { (64, 16) } else { (1024, 256) };
    let bodies = if tiny { 512 } else { 8192 };
    let cases: [(&str, Vec<u32>, Vec<u32>); 5] = [
        ("heat", vec![side, side], vec![tile, tile]),
        ("life", vec![wide, wide], vec![wide_tile, wide_tile]),
        ("wave3d", vec![deep; 3], vec![deep_tile; 3]),
        ("nbody", vec![bodies], vec![bodies / 8]),
        ("energy", vec![wide, wide], vec![wide_tile, wide_tile]),
    ];
    let alignment = gpu.device().0.limits().min_uniform_buffer_offset_alignment.into();
    for (name, shape, tile) in &cases {
        let bundle = load(name, shape, tile)?;
        let program = bundle.program();
        for (peers, placement) in [("one peer", Placement::alone(program)), ("one of two peers", halves(program, 0))] {
            let sizes = |of: &[u32]| of.iter().map(u32::to_string).collect::<Vec<_>>().join(" x ");
            let case = format!("{name}, {}, tiles of {}, {peers}", sizes(shape), sizes(tile));
            progress(&format!("memory: {case}"));
            let run = block_on(gpu.load(&bundle, &placement))?;
            let parts = predict(program, &placement, run.layout(), alignment);
            let mut figure = Figure::exact(Bench::Memory, case, run.memory_bytes(), "prediction from the declaration", parts.total());
            figure.notes.push(format!(
                "fields {}, strips {}, constant {} (tables {}, reductions {}, tile tables {}, params {}, ring {}, mailboxes {})",
                parts.fields,
                parts.strips,
                parts.constant(),
                parts.tables,
                parts.reductions,
                parts.tile_tables,
                parts.params,
                parts.ring,
                parts.mailboxes,
            ));
            figures.push(figure);
        }
    }
    Ok(())
}
