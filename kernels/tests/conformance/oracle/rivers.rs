//! `shaders/worldgen/rivers`: domain-warped ridged terrain, and shallow water in virtual pipes between its cells.

use super::{Buffer, buffer, clamped, fill, index, scramble, within};

const SEED: u32 = 11;
const FREQUENCY: f32 = 0.0029296875;
const RELIEF: f32 = 1600.0;
const SEA_LEVEL: f32 = 436.0;
const CELL: f32 = 20.0;
const PIPE: f32 = 160.0;
const GRAVITY: f32 = 9.81;
const FRICTION: f32 = 0.05;
const RAIN: f32 = 0.0016;
const EVAPORATION: f32 = 0.001;
const DT: f32 = 1.0;

const LEFT: [i32; 3] = [-1, 0, 0];
const RIGHT: [i32; 3] = [1, 0, 0];
const UP: [i32; 3] = [0, -1, 0];
const DOWN: [i32; 3] = [0, 1, 0];

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let height = fill(shape, |[x, y, _]| terrain(x as f32 * FREQUENCY, y as f32 * FREQUENCY) * RELIEF);
    let mut depth: Vec<f32> = height.iter().map(|h| (SEA_LEVEL - h).max(0.0)).collect();
    let mut flux = vec![[0.0f32; 4]; height.len()];
    for _ in 0..ticks {
        flux = flow(shape, &height, &depth, &flux);
        depth = flood(shape, &depth, &flux);
    }
    vec![buffer("height", &height), buffer("depth", &depth), buffer("flux", &flux)]
}

fn flow(shape: [u32; 3], height: &[f32], depth: &[f32], flux: &[[f32; 4]]) -> Vec<[f32; 4]> {
    fill(shape, |p| {
        let i = index(shape, p);
        let level = height[i] + depth[i];
        let mut out = [0.0f32; 4];
        for (k, step) in [LEFT, RIGHT, UP, DOWN].into_iter().enumerate() {
            let there = clamped(shape, p, step);
            let fall = level - (height[there] + depth[there]);
            out[k] = (flux[i][k] * (1.0 - FRICTION) + DT * PIPE * GRAVITY * fall / CELL).max(0.0);
        }
        let leaving = (out[0] + out[1] + out[2] + out[3]) * DT;
        let available = depth[i] * CELL * CELL;
        if leaving > available {
            let share = available / leaving;
            out = out.map(|f| f * share);
        }
        out
    })
}

fn flood(shape: [u32; 3], depth: &[f32], flux: &[[f32; 4]]) -> Vec<f32> {
    fill(shape, |p| {
        let i = index(shape, p);
        let from = |step, k: usize| within(shape, p, step).map_or(0.0, |there| flux[there][k]);
        let inflow = from(LEFT, 1) + from(RIGHT, 0) + from(UP, 3) + from(DOWN, 2);
        let outflow = flux[i][0] + flux[i][1] + flux[i][2] + flux[i][3];
        let moved = (depth[i] + DT * (inflow - outflow) / (CELL * CELL)).max(0.0);
        (moved + DT * RAIN) * (1.0 - DT * EVAPORATION)
    })
}

/// A value and its slopes along x and y.
#[derive(Clone, Copy)]
struct Surface {
    value: f32,
    dx: f32,
    dy: f32,
}

fn terrain(x: f32, y: f32) -> f32 {
    // Bend the plane, so that ranges and valleys curve.
    let wx = x + 0.3 * gradient_noise(x * 1.1, y * 1.1, SEED.wrapping_add(101)).value;
    let wy = y + 0.3 * gradient_noise(x * 1.1, y * 1.1, SEED.wrapping_add(211)).value;
    let land = massif(wx, wy);
    // Gullies run down the slope, and the finer ones down the sides of the coarser ones.
    let steep = (land.dx * land.dx + land.dy * land.dy).sqrt();
    let relief = steep / (steep + 0.5) * smooth((land.value + 0.24) * 5.0);
    let mut amplitude = 0.045f32;
    let mut scale = 7.0f32;
    let mut cut = Surface { value: 0.0, dx: 0.0, dy: 0.0 };
    for octave in 0..4 {
        let gx = land.dx + cut.dx;
        let gy = land.dy + cut.dy;
        let turn = 1.1 / (gx * gx + gy * gy + 0.05).sqrt();
        let g = gullies(wx * scale, wy * scale, gy * turn, gx * -turn, SEED.wrapping_add(700 + octave));
        cut.value += relief * (g.value * amplitude);
        cut.dx += relief * (g.dx * (amplitude * scale));
        cut.dy += relief * (g.dy * (amplitude * scale));
        amplitude *= 0.42;
        scale *= 2.0;
    }
    land.value + cut.value + 0.36
}

/// A slow swell, and on it ranges between valleys that branch.
fn massif(x: f32, y: f32) -> Surface {
    let swell = gradient_noise(x * 0.6, y * 0.6, SEED);
    let mut range = Surface { value: 1.0, dx: 0.0, dy: 0.0 };
    let mut scale = 1.2f32;
    let mut bed = 0.0f32;
    for octave in 0..3 {
        let n = gradient_noise(x * scale + 13.7, y * scale + 7.3, SEED.wrapping_add(1 + octave));
        let root = (n.value * n.value + 0.0016).sqrt();
        let side = (1.0 - bed) * 2.0;
        let wall = bed + side * (root - 0.04);
        let slope = side * scale * (n.value / root);
        range.dx = range.dx * wall + range.value * (slope * n.dx);
        range.dy = range.dy * wall + range.value * (slope * n.dy);
        range.value *= wall;
        bed = 0.45;
        scale *= 2.2;
    }
    Surface { value: 0.55 * swell.value + range.value, dx: 0.33 * swell.dx + range.dx, dy: 0.33 * swell.dy + range.dy }
}

/// Stripes across the direction (ax, ay), blended between jittered cells; slopes included.
fn gullies(x: f32, y: f32, ax: f32, ay: f32, seed: u32) -> Surface {
    let (x0, y0) = (x.floor(), y.floor());
    let (fx, fy) = (x - x0, y - y0);
    let (ix, iy) = (x0 as i32, y0 as i32);
    let mut sum = Surface { value: 0.0, dx: 0.0, dy: 0.0 };
    let mut weights = 0.0f32;
    for j in -1..=2 {
        for i in -1..=2 {
            let h = lattice(ix.wrapping_add(i), iy.wrapping_add(j), seed);
            let px = fx - (i * 131_072 + (h & 0xffff) as i32 - 32_768) as f32 * (1.0 / 131_072.0);
            let py = fy - (j * 131_072 + (h >> 16) as i32 - 32_768) as f32 * (1.0 / 131_072.0);
            let near = (1.0 - (px * px + py * py) * 0.5).max(0.0);
            let weight = near * near;
            // A cosine in three products: 1 on the crest, -1 in the bed.
            let along = px * ax + py * ay;
            let phase = along - (along + 0.5).floor();
            let t = 1.0 - 4.0 * phase.abs();
            let steep = (1.5 - 1.5 * t * t) * if phase < 0.0 { 4.0 } else { -4.0 };
            sum.value += weight * (1.5 * t - 0.5 * t * t * t);
            sum.dx += weight * steep * ax;
            sum.dy += weight * steep * ay;
            weights += weight;
        }
    }
    Surface { value: sum.value / weights, dx: sum.dx / weights, dy: sum.dy / weights }
}

/// Gradient noise with its slopes.
fn gradient_noise(x: f32, y: f32, seed: u32) -> Surface {
    let (x0, y0) = (x.floor(), y.floor());
    let (fx, fy) = (x - x0, y - y0);
    let (ix, iy) = (x0 as i32, y0 as i32);
    let (ax, ay) = gradient(ix, iy, seed);
    let (bx, by) = gradient(ix.wrapping_add(1), iy, seed);
    let (cx, cy) = gradient(ix, iy.wrapping_add(1), seed);
    let (dx, dy) = gradient(ix.wrapping_add(1), iy.wrapping_add(1), seed);
    let a = ax * fx + ay * fy;
    let b = bx * (fx - 1.0) + by * fy;
    let c = cx * fx + cy * (fy - 1.0);
    let d = dx * (fx - 1.0) + dy * (fy - 1.0);
    let (u, v) = (fade(fx), fade(fy));
    let (du, dv) = (fade_slope(fx), fade_slope(fy));
    let near = a + u * (b - a);
    let far = c + u * (d - c);
    let near_dx = ax + u * (bx - ax) + du * (b - a);
    let far_dx = cx + u * (dx - cx) + du * (d - c);
    let near_dy = ay + u * (by - ay);
    let far_dy = cy + u * (dy - cy);
    Surface { value: near + v * (far - near), dx: near_dx + v * (far_dx - near_dx), dy: near_dy + v * (far_dy - near_dy) + dv * (far - near) }
}

fn lattice(ix: i32, iy: i32, seed: u32) -> u32 {
    scramble((ix as u32).wrapping_add(scramble((iy as u32).wrapping_add(scramble(seed)))))
}

fn gradient(ix: i32, iy: i32, seed: u32) -> (f32, f32) {
    let h = lattice(ix, iy, seed);
    let signed = |bits: u32| (bits as i32 - 32_768) as f32 * (1.0 / 32_768.0);
    (signed(h & 0xffff), signed(h >> 16))
}

fn fade(t: f32) -> f32 {
    t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
}

fn fade_slope(t: f32) -> f32 {
    30.0 * t * t * (t * (t - 2.0) + 1.0)
}

fn smooth(t: f32) -> f32 {
    let s = t.clamp(0.0, 1.0);
    s * s * (3.0 - 2.0 * s)
}
