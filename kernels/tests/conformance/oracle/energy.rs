//! `shaders/physics/energy`: the 2-D wave equation with a loose rim, and what is measured of it at every tick.
//!
//! The energies are summed in `f64`: the order of the sum is the tiling's, so compare them within the class.

use super::{Buffer, buffer, clamped, fill, index, pcg};

const COURANT2: f32 = 0.25;

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let mut displacement = fill(shape, |p| bump(p, shape, 1) - bump(p, shape, 2) + bump(p, shape, 3) - bump(p, shape, 4));
    let mut velocity = vec![0.0f32; displacement.len()];
    for _ in 0..ticks {
        velocity = fill(shape, |p| {
            let there = |step| displacement[clamped(shape, p, step)];
            let around = there([-1, 0, 0]) + there([1, 0, 0]) + there([0, -1, 0]) + there([0, 1, 0]);
            let i = index(shape, p);
            velocity[i] + COURANT2 * (around - 4.0 * displacement[i])
        });
        displacement = fill(shape, |p| displacement[index(shape, p)] + velocity[index(shape, p)]);
    }
    // Only the last tick's measures remain; before the first tick there are none.
    let measures = if ticks == 0 { Measures::none() } else { measure(shape, &displacement, &velocity) };
    vec![
        buffer("displacement", &displacement),
        buffer("velocity", &velocity),
        buffer("energy", &measures.energy.map(|e| e as f32)),
        buffer("lowest", &[measures.lowest]),
        buffer("highest", &[measures.highest]),
        buffer("histogram", &measures.histogram),
    ]
}

struct Measures {
    /// Kinetic, potential.
    energy: [f64; 2],
    lowest: f32,
    highest: f32,
    histogram: [u32; 64],
}

impl Measures {
    fn none() -> Self {
        Self { energy: [0.0; 2], lowest: 0.0, highest: 0.0, histogram: [0; 64] }
    }
}

fn measure(shape: [u32; 3], displacement: &[f32], velocity: &[f32]) -> Measures {
    let mut measures = Measures { lowest: f32::MAX, highest: -f32::MAX, ..Measures::none() };
    fill(shape, |p| {
        let i = index(shape, p);
        let (u, v) = (displacement[i], velocity[i]);
        let (right, down) = (clamped(shape, p, [1, 0, 0]), clamped(shape, p, [0, 1, 0]));
        let (stretch_x, stretch_y) = (displacement[right] - u, displacement[down] - u);
        let (before_x, before_y) = (stretch_x - (velocity[right] - v), stretch_y - (velocity[down] - v));
        let potential = 0.5 * COURANT2 * (stretch_x * before_x + stretch_y * before_y);
        measures.energy[0] += f64::from(0.5 * v * v);
        measures.energy[1] += f64::from(potential);
        measures.lowest = measures.lowest.min(u);
        measures.highest = measures.highest.max(u);
        let bin = ((u + 1.0) * 32.0).floor() as i32;
        measures.histogram[bin.clamp(0, 63) as usize] += 1;
    });
    measures
}

fn bump([x, y, _]: [u32; 3], shape: [u32; 3], k: u32) -> f32 {
    let hx = pcg(k);
    let hy = pcg(hx);
    let dx = x as f32 - ((hx >> 16).wrapping_mul(shape[0]) >> 16) as f32;
    let dy = y as f32 - ((hy >> 16).wrapping_mul(shape[1]) >> 16) as f32;
    let radius = (shape[0].max(shape[1]) as f32 / 8.0).max(1.0);
    let inner = (1.0 - (dx * dx + dy * dy) / (radius * radius)).max(0.0);
    inner * inner
}
