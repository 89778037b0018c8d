//! `shaders/worldgen/noise`: fractal gradient noise.

use super::{Buffer, buffer, fill, scramble};

const FREQUENCY: f32 = 0.0078125;
const GAIN: f32 = 0.5;
const LACUNARITY: f32 = 2.0;
const OCTAVES: u32 = 6;
const SEED: u32 = 1;

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let height = fill(shape, |[x, y, _]| if ticks == 0 { 0.0 } else { fractal(x as f32 * FREQUENCY, y as f32 * FREQUENCY) });
    vec![buffer("height", &height)]
}

fn fractal(x: f32, y: f32) -> f32 {
    let (mut x, mut y) = (x, y);
    let mut amplitude = 1.0f32;
    let mut sum = 0.0f32;
    for octave in 0..OCTAVES {
        sum += amplitude * gradient_noise(x, y, SEED.wrapping_add(octave));
        amplitude *= GAIN;
        x *= LACUNARITY;
        y *= LACUNARITY;
    }
    sum
}

/// Gradient noise with a hashed gradient at every lattice point, about -0.8 to 0.8, zero at lattice points.
fn gradient_noise(x: f32, y: f32, seed: u32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let (fx, fy) = (x - x0, y - y0);
    let (ix, iy) = (x0 as i32, y0 as i32);
    let n00 = slope(ix, iy, seed, fx, fy);
    let n10 = slope(ix.wrapping_add(1), iy, seed, fx - 1.0, fy);
    let n01 = slope(ix, iy.wrapping_add(1), seed, fx, fy - 1.0);
    let n11 = slope(ix.wrapping_add(1), iy.wrapping_add(1), seed, fx - 1.0, fy - 1.0);
    let (u, v) = (fade(fx), fade(fy));
    let near = n00 + u * (n10 - n00);
    let far = n01 + u * (n11 - n01);
    near + v * (far - near)
}

fn slope(ix: i32, iy: i32, seed: u32, fx: f32, fy: f32) -> f32 {
    let h = scramble((ix as u32).wrapping_add(scramble((iy as u32).wrapping_add(scramble(seed)))));
    let gx = ((h & 0xffff) as i32 - 32_768) as f32 * (1.0 / 32_768.0);
    let gy = ((h >> 16) as i32 - 32_768) as f32 * (1.0 / 32_768.0);
    gx * fx + gy * fy
}

fn fade(t: f32) -> f32 {
    t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
}
