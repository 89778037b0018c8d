//! `shaders/physics/wave3d`: the 3-D wave equation between walls held at zero.

use super::{Buffer, buffer, fill, index, pcg, within};

const COURANT2: f32 = 0.25;

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let mut displacement = fill(shape, |p| bump(p, shape, 1) - bump(p, shape, 2) + bump(p, shape, 3) - bump(p, shape, 4));
    let mut velocity = vec![0.0f32; displacement.len()];
    for _ in 0..ticks {
        velocity = fill(shape, |p| {
            let i = index(shape, p);
            let there = |step| within(shape, p, step).map_or(0.0, |there| displacement[there]);
            let around = there([-1, 0, 0]) + there([1, 0, 0]) + there([0, -1, 0]) + there([0, 1, 0]) + there([0, 0, -1]) + there([0, 0, 1]);
            velocity[i] + COURANT2 * (around - 6.0 * displacement[i])
        });
        displacement = fill(shape, |p| displacement[index(shape, p)] + velocity[index(shape, p)]);
    }
    vec![buffer("displacement", &displacement), buffer("velocity", &velocity)]
}

fn bump(p: [u32; 3], shape: [u32; 3], k: u32) -> f32 {
    let hx = pcg(k);
    let hy = pcg(hx);
    let hz = pcg(hy);
    let from = |a: usize, h: u32| p[a] as f32 - ((h >> 16).wrapping_mul(shape[a]) >> 16) as f32;
    let (dx, dy, dz) = (from(0, hx), from(1, hy), from(2, hz));
    let radius = (shape[0].max(shape[1]).max(shape[2]) as f32 / 8.0).max(1.0);
    let inner = (1.0 - (dx * dx + dy * dy + dz * dz) / (radius * radius)).max(0.0);
    inner * inner
}
