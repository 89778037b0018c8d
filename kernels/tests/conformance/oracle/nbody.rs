//! `shaders/physics/nbody`: gravity between all pairs, leapfrog.

use super::{Buffer, buffer, fill, pcg, unit};

const DT: f32 = 0.005;
const SOFTENING: f32 = 0.05;

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let seeds = fill(shape, |[i, _, _]| seed(i, shape[0]));
    let mut body: Vec<[f32; 4]> = seeds.iter().map(|s| s.0).collect();
    let mut velocity: Vec<[f32; 4]> = seeds.iter().map(|s| s.1).collect();
    for _ in 0..ticks {
        for (v, b) in velocity.iter_mut().zip(&body) {
            let sum = acceleration(b, &body);
            *v = [v[0] + DT * sum[0], v[1] + DT * sum[1], v[2] + DT * sum[2], 0.0];
        }
        for (b, v) in body.iter_mut().zip(&velocity) {
            *b = [b[0] + DT * v[0], b[1] + DT * v[1], b[2] + DT * v[2], b[3]];
        }
    }
    vec![buffer("body", &body), buffer("velocity", &velocity)]
}

fn acceleration(p: &[f32; 4], body: &[[f32; 4]]) -> [f32; 3] {
    let mut sum = [0.0f32; 3];
    for other in body {
        let (dx, dy, dz) = (other[0] - p[0], other[1] - p[1], other[2] - p[2]);
        let near = 1.0 / (SOFTENING * SOFTENING + dx * dx + dy * dy + dz * dz).sqrt();
        let weight = other[3] * (near * near * near);
        sum = [sum[0] + dx * weight, sum[1] + dy * weight, sum[2] + dz * weight];
    }
    sum
}

fn seed(i: u32, count: u32) -> ([f32; 4], [f32; 4]) {
    let mut h = pcg(i);
    let mut p = [0.0f32; 3];
    for _ in 0..16 {
        for axis in &mut p {
            h = pcg(h);
            *axis = unit(h) * 2.0 - 1.0;
        }
        if p[0] * p[0] + p[1] * p[1] + p[2] * p[2] <= 1.0 {
            break;
        }
    }
    let side = if i & 1 == 0 { 1.0f32 } else { -1.0 };
    ([p[0] + side * 1.5, p[1] + side * 0.4, p[2] * 0.3, 1.0 / count as f32], [p[1] * -0.7 - side * 0.25, p[0] * 0.7, 0.0, 0.0])
}
