//! Benches of the gpu executor.

mod copy;
mod heat;
mod memory;
mod nbody;
mod strips;
pub(crate) mod workload;

use std::ops::Range;

use peercompute_buffers::TileId;
use peercompute_buffers::transfer::field_from_tile;
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::gpu::{Gpu, GpuRun};
use peercompute_kernels::executor::{Placement, Run, mesh};
use pollster::block_on;

use crate::report::Figure;
use crate::rounds::{self, Rounds};
use crate::{Bench, BenchError, BenchOptions};

pub use memory::{MemoryParts, predict};
pub use workload::load;
pub(crate) use workload::{embedded, manifest};

/// The adapter, opened once for checked kernels and, where that is measured, once for unchecked ones.
pub(crate) struct Gpus<'a> {
    pub(crate) checked: &'a Gpu,
    pub(crate) unchecked: Option<&'a Gpu>,
}

impl<'a> Gpus<'a> {
    fn each(&self) -> impl Iterator<Item = (&'a Gpu, bool)> + use<'a> {
        [Some((self.checked, true)), self.unchecked.map(|gpu| (gpu, false))].into_iter().flatten()
    }
}

/// How a case names its checks.
fn checks_name(checked: bool) -> &'static str {
    if checked { "checked" } else { "unchecked" }
}

/// Runs one bench; `copy` is the copy bandwidth in bytes per second, if it was measured before.
pub(crate) fn run(
    bench: Bench,
    gpus: &Gpus<'_>,
    options: &BenchOptions,
    copy: Option<f64>,
    figures: &mut Vec<Figure>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    match bench {
        Bench::Copy => copy::run(gpus.checked, options.effort, figures, progress),
        Bench::Heat => heat::run(gpus, options.effort, copy, figures, progress),
        Bench::Nbody => nbody::run(gpus, options, figures, progress),
        Bench::Memory => memory::run(gpus.checked, options.effort, figures, progress),
        Bench::Strips => strips::run(gpus.checked, options.effort, figures, progress),
        // What needs no adapter is measured elsewhere.
        _ => Ok(()),
    }
}

/// A workload on one peer, driven as a user's run drives it.
pub(crate) struct Alone<R> {
    bundle: VerifiedBundle,
    runs: [R; 1],
    tick: u64,
}

impl<'a> Alone<GpuRun<'a>> {
    fn new(gpu: &'a Gpu, bundle: VerifiedBundle) -> Result<Alone<GpuRun<'a>>, BenchError> {
        let placement = Placement::alone(bundle.program());
        let run = block_on(gpu.load(&bundle, &placement))?;
        Ok(Alone::resident(bundle, run))
    }
}

impl<R: Run> Alone<R> {
    /// Of a workload that is resident as a whole, before tick 0.
    pub(crate) fn resident(bundle: VerifiedBundle, run: R) -> Alone<R> {
        Alone { bundle, runs: [run], tick: 0 }
    }

    /// Runs the next ticks (before tick 0, the init passes) and waits for them.
    pub(crate) fn run(&mut self, ticks: u32) -> Result<(), BenchError> {
        let range: Range<u64> = self.tick..self.tick + u64::from(ticks);
        self.tick = range.end;
        block_on(async {
            mesh::run(self.bundle.program(), &mut self.runs, range).await?;
            self.runs[0].finish().await
        })?;
        Ok(())
    }

    /// A field in row-major order, as floats.
    pub(crate) fn field(&mut self, name: &str) -> Result<Vec<f32>, BenchError> {
        let program = self.bundle.program();
        let (Some(buffer), Some(grid)) = (program.buffer(name), program.buffer(name).and_then(|buffer| program.grid_of(buffer))) else {
            return Ok(Vec::new());
        };
        let stride = program.elements[buffer].stride as usize;
        let mut floats = vec![0f32; grid.points() as usize * stride / 4];
        for tile in 0..grid.tile_count() {
            let bytes = block_on(self.runs[0].read_tile(buffer, TileId(tile)))?;
            field_from_tile(&grid, TileId(tile), stride, &bytes, bytemuck::cast_slice_mut(&mut floats));
        }
        Ok(floats)
    }

    /// A field's tiles, in order.
    pub(crate) fn tiles(&mut self, name: &str) -> Result<Vec<Vec<u8>>, BenchError> {
        let program = self.bundle.program();
        let (Some(buffer), Some(grid)) = (program.buffer(name), program.buffer(name).and_then(|buffer| program.grid_of(buffer))) else {
            return Ok(Vec::new());
        };
        (0..grid.tile_count()).map(|tile| Ok(block_on(self.runs[0].read_tile(buffer, TileId(tile)))?)).collect()
    }

    /// A table, as floats.
    pub(crate) fn table(&mut self, name: &str) -> Result<Vec<f32>, BenchError> {
        let Some(buffer) = self.bundle.program().buffer(name) else { return Ok(Vec::new()) };
        Ok(bytemuck::pod_collect_to_vec(&block_on(self.runs[0].read_table(buffer))?))
    }
}

/// What a pair of framework and twin is compared by.
struct Comparison<'c> {
    case: &'c str,
    /// The field of the workload.
    field: &'c str,
    /// The largest difference allowed, relative to values above 1.
    tolerance: f32,
    /// Whether there is memory to read both back.
    reads: bool,
}

/// Holds what a framework computed against its twin's; `tolerance` is relative to values above 1.
pub(crate) fn agree(case: &str, tolerance: f32, ours: &[f32], theirs: &[f32]) -> Result<(), BenchError> {
    assert_eq!(ours.len(), theirs.len(), "the twin of {case} has another size");
    for (index, (&framework, &twin)) in ours.iter().zip(theirs).enumerate() {
        // Written so that a NaN disagrees.
        let agrees = (framework - twin).abs() <= tolerance * twin.abs().max(1.0);
        if !agrees {
            return Err(BenchError::Disagree { case: case.into(), index, framework, twin });
        }
    }
    Ok(())
}

/// Times a workload and its twin in turn, after a few ticks that both must agree on.
fn against(
    framework: &mut Alone<GpuRun<'_>>,
    twin_run: &dyn Fn(u32),
    twin_read: &dyn Fn() -> Vec<f32>,
    comparison: &Comparison<'_>,
    effort: crate::Effort,
) -> Result<Rounds, BenchError> {
    const COMPARED_TICKS: u32 = 3;
    framework.run(COMPARED_TICKS)?;
    twin_run(COMPARED_TICKS);
    if comparison.reads {
        let (ours, theirs) = (framework.field(comparison.field)?, twin_read());
        agree(comparison.case, comparison.tolerance, &ours, &theirs)?;
    }
    // The second probe counts: the first may still clear memory or compile.
    let mut each = 0.0;
    for _ in 0..2 {
        each = rounds::seconds(|| framework.run(4))? / 4.0;
        twin_run(4);
    }
    rounds::interleave(effort.rounds(), rounds::repeats(effort, each), &mut |ticks| rounds::seconds(|| framework.run(ticks)), &mut |ticks| {
        rounds::seconds(|| {
            twin_run(ticks);
            Ok(())
        })
    })
}
