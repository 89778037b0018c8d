//! Device copy bandwidth: what no streaming kernel on the adapter can beat.

use peercompute_kernels::executor::gpu::Gpu;

use crate::report::{Figure, Kind};
use crate::rounds;
use crate::twin::CopyTwin;
use crate::{Bench, BenchError, Effort};

pub(super) fn run(gpu: &Gpu, effort: Effort, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (device, queue) = gpu.device();
    // Far beyond any cache of a GPU; a CPU's memory is slow enough to show with less.
    let bytes: u64 = match (effort, gpu.info().is_software) {
        (Effort::Tiny, _) => 1 << 20,
        (_, true) => 64 << 20,
        (_, false) => 1 << 30,
    };
    let bytes = bytes.min(gpu.page_bytes_max() / 16 * 16);
    let case = format!("{} MiB to {} MiB", bytes >> 20, bytes >> 20);
    progress(&format!("copy: {case}"));
    let copy = CopyTwin::new(device, queue, bytes, true);
    let timed = |work: &dyn Fn()| {
        rounds::seconds(|| {
            work();
            Ok(())
        })
    };
    copy.run_driver(1);
    let each = timed(&|| copy.run_kernel(2))? / 2.0;
    let measured =
        rounds::interleave(effort.rounds(), rounds::repeats(effort, each), &mut |times| timed(&|| copy.run_kernel(times)), &mut |times| {
            timed(&|| copy.run_driver(times))
        })?;
    let mut figure = measured.figure(Bench::Copy, case, Kind::Context, "GB/s", 2.0 * bytes as f64 / 1e9, "the driver's copy command");
    figure.notes.push("a copy kernel against the driver's copy command; bytes read and written".into());
    figures.push(figure);
    Ok(())
}
