//! The heat workload: a streaming kernel, where tiles, tables and the prelude must cost next to nothing.

use peercompute_kernels::executor::gpu::Gpu;

use super::{Alone, Comparison, Gpus, against, checks_name, load};
use crate::report::{Figure, Kind};
use crate::rounds;
use crate::twin::{HeatTuning, HeatTwin};
use crate::{Bench, BenchError, Effort};

/// A cell is read once and written once; its neighbours come from caches.
const BYTES_PER_CELL: f64 = 8.0;
/// Fields up to this size are read back and compared with the twin's.
const COMPARED_BYTES_MAX: u64 = 64 << 20;

fn field_bytes(side: u32) -> u64 {
    4 * u64::from(side) * u64::from(side)
}

struct Case {
    side: u32,
    /// Square tiles of this side; those of the declaration if `None`.
    tile: Option<u32>,
    target: Option<f64>,
}

pub(super) fn run(
    gpus: &Gpus<'_>,
    effort: Effort,
    copy: Option<f64>,
    figures: &mut Vec<Figure>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    let mut cases = match (effort, gpus.checked.info().is_software) {
        (Effort::Tiny, _) => vec![Case { side: 128, tile: Some(64), target: Some(0.90) }],
        (_, true) => vec![Case { side: 4096, tile: None, target: Some(0.90) }],
        (_, false) => vec![
            Case { side: 4096, tile: None, target: Some(0.90) },
            Case { side: 16_384, tile: Some(1024), target: Some(0.92) },
            Case { side: 16_384, tile: Some(256), target: Some(0.75) },
        ],
    };
    // The twin's field is one binding.
    cases.retain(|case| {
        let fits = field_bytes(case.side) <= gpus.checked.page_bytes_max();
        if !fits {
            progress(&format!("heat: left out, {0} x {0} cells are more than a binding of this adapter", case.side));
        }
        fits
    });
    for case in &cases {
        for (gpu, checked) in gpus.each() {
            figures.push(measure(gpu, checked, case, effort, copy, progress)?);
        }
    }
    if effort == Effort::Full {
        let mut sides: Vec<u32> = cases.iter().map(|case| case.side).collect();
        sides.dedup();
        for side in sides {
            figures.push(quads(gpus.checked, side, effort, progress)?);
        }
    }
    Ok(())
}

fn measure(gpu: &Gpu, checked: bool, case: &Case, effort: Effort, copy: Option<f64>, progress: &mut dyn FnMut(&str)) -> Result<Figure, BenchError> {
    let &Case { side, tile, target } = case;
    let square = tile.map(|tile| [tile, tile]);
    let bundle = load("heat", &[side, side], square.as_ref().map_or(&[], |tile| tile.as_slice()))?;
    let [width, height, _] = bundle.program().manifest.grids[0].grid.tile;
    let name = format!("{side} x {side} cells, tiles of {width} x {height}, {}", checks_name(checked));
    progress(&format!("heat: {name}"));
    let mut framework = Alone::new(gpu, bundle)?;
    let (device, queue) = gpu.device();
    let twin = HeatTwin::new(device, queue, side, checked);
    let cells = f64::from(side) * f64::from(side);
    let reads = field_bytes(side) <= COMPARED_BYTES_MAX;
    let comparison = Comparison { case: &name, field: "temperature", tolerance: 1e-5, reads };
    let measured = against(&mut framework, &|ticks| twin.run(ticks), &|| twin.read(), &comparison, effort)?;
    let mut figure = measured.figure(Bench::Heat, name, Kind::Speed, "Gcell/s", cells / 1e9, "hand-written wgpu, contiguous").with_target(target);
    figure.floor = copy.map(|bytes| bytes / BYTES_PER_CELL / 1e9);
    Ok(figure)
}

/// How much faster the twin would be with 16-byte loads: what both leave on the table.
fn quads(gpu: &Gpu, side: u32, effort: Effort, progress: &mut dyn FnMut(&str)) -> Result<Figure, BenchError> {
    let case = format!("{side} x {side} cells, twin with 16-byte loads over twin");
    progress(&format!("heat: {case}"));
    let (device, queue) = gpu.device();
    let quads = HeatTwin::with_tuning(device, queue, side, true, HeatTuning { quads: true, ..HeatTuning::default() });
    let plain = HeatTwin::new(device, queue, side, true);
    let timed = |twin: &HeatTwin, ticks: u32| {
        rounds::seconds(|| {
            twin.run(ticks);
            Ok(())
        })
    };
    timed(&quads, 4)?;
    let each = timed(&plain, 4)? / 4.0;
    let measured =
        rounds::interleave(effort.rounds(), rounds::repeats(effort, each), &mut |ticks| timed(&quads, ticks), &mut |ticks| timed(&plain, ticks))?;
    let cells = f64::from(side) * f64::from(side);
    Ok(measured.figure(Bench::Heat, case, Kind::Context, "Gcell/s", cells / 1e9, "hand-written wgpu, contiguous"))
}
