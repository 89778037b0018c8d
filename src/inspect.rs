//! A workload run small and watched: races between invocations, and indices beyond their arrays.
//!
//! The cpu executor's inspector sees words of bindings; here they become buffers and elements. Nothing is
//! proved: what is found is wrong, what is not found did not happen in these ticks on this grid.

use std::path::Path;

use peercompute_buffers::Grid;
use peercompute_kernels::declaration::Overrides;
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::inspect::{Finding, FindingKind, FoundIn};
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::executor::{Borders, Layout, Placement};
use peercompute_kernels::program::Role;
use peercompute_kernels::{Program, PublicKey, VerifiedBundle};
use serde::Serialize;

use crate::keys::{self, KeyFileError};
use crate::node::{NodeError, Task, run_alone};

/// The greatest tile of a watched run along each axis, by the number of axes.
const TILE_MAX: [[u32; 3]; 3] = [[192, 1, 1], [24, 24, 1], [8, 8, 8]];

/// Something that a kernel does and should not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// `race`, `bounds` or `parted` (a barrier that not all of a workgroup reach).
    pub kind: &'static str,
    /// The kernel's file.
    pub kernel: String,
    /// The entry point.
    pub entry: String,
    /// The line.
    pub line: u32,
    /// The invocation, by its global id.
    pub invocation: [u32; 3],
    /// The buffer, the workgroup's variable, or `an array`; empty for a barrier.
    pub buffer: String,
    /// The element: its place in the grid for a field, its index for a table or an array, the index asked for if it is beyond one; empty for a
    /// variable that is no array.
    pub element: String,
    /// Races: the other invocation and its line.
    pub other: Option<([u32; 3], u32)>,
}

/// Opens a workload with grids small enough to be watched, of more than one tile, and with a tile cut short at the end;
/// a signed bundle as it is.
///
/// **Errors:** as [`keys::open`].
pub fn open_small(path: &Path, overrides: &Overrides, trusted: &[PublicKey]) -> Result<VerifiedBundle, KeyFileError> {
    let whole = keys::open(path, overrides, trusted)?;
    if path.is_file() && path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(whole);
    }
    let mut small = overrides.clone();
    let manifest = &whole.program().manifest;
    for (at, named) in manifest.grids.iter().enumerate() {
        let Grid { shape, tile, dims } = named.grid;
        let dims = usize::from(dims);
        let halo = whole.program().rules[at].depth;
        let name = (manifest.grids.len() > 1).then(|| named.name.clone());
        let tiles: Vec<u32> = (0..dims).map(|axis| tile[axis].min(TILE_MAX[dims - 1][axis].max(halo))).collect();
        let shapes = (0..dims).map(|axis| shape[axis].min(2 * tiles[axis] + tiles[axis].div_ceil(2))).collect();
        if overrides.tiles.is_empty() {
            small.tiles.push((name.clone(), tiles));
        }
        if overrides.shapes.is_empty() {
            small.shapes.push((name, shapes));
        }
    }
    keys::open(path, &small, trusted)
}

/// Runs init and `ticks` ticks, watched.
///
/// **Errors:** the workload does not run on the cpu executor.
pub fn inspect(bundle: &VerifiedBundle, ticks: u64) -> Result<Vec<Observed>, NodeError> {
    let cpu = Cpu::open(CpuOptions { is_inspected: true, borders: Some(Borders::InPlace), ..CpuOptions::default() })?;
    let layout = cpu.layout(bundle.program(), &Placement::alone(bundle.program()))?;
    let executor = AnyExecutor::Cpu(cpu);
    let task = Task { ticks, ..Task::default() };
    pollster::block_on(run_alone(&executor, bundle, &task, &mut |_| {}))?;
    let AnyExecutor::Cpu(cpu) = &executor else { return Ok(Vec::new()) };
    Ok(cpu.findings().iter().map(|finding| observed(bundle.program(), &layout, finding)).collect())
}

fn observed(program: &Program, layout: &Layout, finding: &Finding) -> Observed {
    let pass = program.manifest.passes.iter().position(|pass| pass.entry == finding.entry);
    let role_of = |number: u32| pass.and_then(|pass| program.passes[pass].bindings.iter().find(|binding| binding.number == number));
    let word = finding.word.to_string();
    let (buffer, element) = match &finding.place {
        FoundIn::Binding(number) => match role_of(*number).map(|binding| binding.role) {
            Some(Role::Current(buffer) | Role::Next(buffer)) => {
                let name = program.manifest.buffers[buffer].name.clone();
                (name, place(program, layout, buffer, finding))
            }
            Some(Role::TileTable) => ("tile".into(), word),
            Some(Role::Params) => ("params".into(), word),
            Some(Role::Dispatch) => ("pc_dispatch".into(), word),
            None => ("a buffer".into(), word),
        },
        FoundIn::Workgroup(name, true) => (name.clone(), word),
        FoundIn::Workgroup(name, false) => (name.clone(), String::new()),
        FoundIn::Array => ("an array".into(), word),
        FoundIn::Nothing => (String::new(), String::new()),
    };
    let element = if finding.kind == FindingKind::Bounds { format!("{} of {}", finding.word, finding.count) } else { element };
    Observed {
        kind: match finding.kind {
            FindingKind::Race => "race",
            FindingKind::Bounds => "bounds",
            FindingKind::Parted => "parted",
        },
        kernel: pass.map_or_else(|| "the framework".into(), |pass| program.manifest.passes[pass].file.clone()),
        entry: finding.entry.clone(),
        line: finding.here.1,
        invocation: finding.here.0,
        buffer,
        element,
        other: finding.before,
    }
}

/// The place in the grid of an arena's word, or the element of a table.
fn place(program: &Program, layout: &Layout, buffer: usize, finding: &Finding) -> String {
    let element = finding.word / program.elements[buffer].words().max(1);
    let Some(residency) = layout.of_field(program, buffer) else { return element.to_string() };
    let grid = residency.grid;
    for tile in grid.tiles() {
        let Some((_, first)) = residency.slot(tile) else { continue };
        let block = grid.tile_block(tile);
        let Some(local) = element.checked_sub(first).filter(|&local| u64::from(local) < block.points()) else { continue };
        let [x, y] = [0, 1].map(|axis| block.extent[axis]);
        let local = [local % x, local / x % y, local / (x * y)];
        let coordinate = (0..usize::from(grid.dims)).map(|axis| (block.origin[axis] + local[axis]).to_string());
        return format!("({})", coordinate.collect::<Vec<_>>().join(", "));
    }
    element.to_string()
}
