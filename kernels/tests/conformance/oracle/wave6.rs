//! `shaders/physics/wave6`: the 2-D wave equation on a torus, sixth order in space, with falling drops.

use super::{Buffer, buffer, fill, index, pcg, wrapped};

const COURANT2: f32 = 0.2;
const DAMPING: f32 = 0.002;
const DROP_EVERY: u32 = 24;
const DROP_RADIUS: f32 = 16.0;
const DROP_SPEED: f32 = 0.25;

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let mut displacement = fill(shape, |_| 0.0f32);
    let mut velocity = displacement.clone();
    for tick in 0..ticks {
        velocity = fill(shape, |p| {
            let i = index(shape, p);
            let at = |r: i32| {
                let there = |step| displacement[wrapped(shape, p, step)];
                there([-r, 0, 0]) + there([r, 0, 0]) + there([0, -r, 0]) + there([0, r, 0])
            };
            let laplacian = (270.0 * at(1) - 27.0 * at(2) + 2.0 * at(3) - 980.0 * displacement[i]) * (1.0 / 180.0);
            velocity[i] * (1.0 - DAMPING) + COURANT2 * laplacian + drop_impulse(shape, p, tick as u32)
        });
        displacement = fill(shape, |p| displacement[index(shape, p)] + velocity[index(shape, p)]);
    }
    vec![buffer("displacement", &displacement), buffer("velocity", &velocity)]
}

fn drop_impulse(shape: [u32; 3], p: [u32; 3], tick: u32) -> f32 {
    if !tick.is_multiple_of(DROP_EVERY) {
        return 0.0;
    }
    let hx = pcg(tick);
    let hy = pcg(hx);
    let apart = |a: usize, h: u32| {
        let d = p[a].abs_diff((h >> 16).wrapping_mul(shape[a]) >> 16);
        d.min(shape[a] - d) as f32
    };
    let (dx, dy) = (apart(0, hx), apart(1, hy));
    let inner = (1.0 - (dx * dx + dy * dy) / (DROP_RADIUS * DROP_RADIUS)).max(0.0);
    inner * inner * (3.0 - 4.0 * inner) * DROP_SPEED
}
