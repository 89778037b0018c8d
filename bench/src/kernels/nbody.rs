//! The n-body workload: arithmetic alone, where only the generated code counts.

use peercompute_kernels::executor::gpu::Gpu;

use super::{Alone, Comparison, Gpus, against, checks_name, load};
use crate::report::{Figure, Kind};
use crate::twin::NbodyTwin;
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of the twin's speed must be kept.
const TARGET: f64 = 0.97;
const BODIES: u32 = 8192;
const BODIES_LARGE: u32 = 262_144;
const TILE: u32 = 1024;

pub(super) fn run(gpus: &Gpus<'_>, options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let bodies = options.bodies.unwrap_or(if options.effort == Effort::Tiny { 512 } else { BODIES });
    let mut sizes = vec![bodies];
    if options.effort != Effort::Tiny && !gpus.checked.info().is_software {
        sizes.push(BODIES_LARGE);
    }
    for bodies in sizes {
        for (gpu, checked) in gpus.each() {
            figures.push(measure(gpu, checked, bodies, options.effort, progress)?);
        }
    }
    Ok(())
}

fn measure(gpu: &Gpu, checked: bool, bodies: u32, effort: Effort, progress: &mut dyn FnMut(&str)) -> Result<Figure, BenchError> {
    let tile = TILE.min(bodies);
    let name = format!("{bodies} bodies, tiles of {tile}, {}", checks_name(checked));
    progress(&format!("nbody: {name}"));
    let mut framework = Alone::new(gpu, load("nbody", &[bodies], &[tile])?)?;
    let (device, queue) = gpu.device();
    let twin = NbodyTwin::new(device, queue, bodies, checked);
    let interactions = f64::from(bodies) * f64::from(bodies);
    let comparison = Comparison { case: &name, field: "body", tolerance: 1e-4, reads: true };
    let measured = against(&mut framework, &|ticks| twin.run(ticks), &|| twin.read(), &comparison, effort)?;
    let twin_name = "hand-written wgpu, kick and drift fused";
    Ok(measured.figure(Bench::Nbody, name, Kind::Speed, "Ginteractions/s", interactions / 1e9, twin_name).with_target(Some(TARGET)))
}
