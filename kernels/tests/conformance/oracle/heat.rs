//! `shaders/physics/heat`: explicit 2-D diffusion with insulated borders.

use super::{Buffer, buffer, clamped, fill, index, pcg, unit};

const RATE: f32 = 0.1;

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let mut temperature = fill(shape, seed);
    for _ in 0..ticks {
        temperature = fill(shape, |p| {
            let t = temperature[index(shape, p)];
            let there = |step| temperature[clamped(shape, p, step)];
            let around = there([-1, 0, 0]) + there([1, 0, 0]) + there([0, -1, 0]) + there([0, 1, 0]);
            t + RATE * (around - 4.0 * t)
        });
    }
    vec![buffer("temperature", &temperature)]
}

fn seed([x, y, _]: [u32; 3]) -> f32 {
    let plate = unit(pcg((x / 32).wrapping_add(pcg(y / 32))));
    let grain = unit(pcg(x.wrapping_add(pcg(y + 1))));
    0.75 * plate + 0.25 * grain
}
