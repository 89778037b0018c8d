//! The twins of the cpu executor: what a good engineer writes in Rust for this machine's threads.
//!
//! Row-major arrays, `rayon`, and loops that LLVM makes vectors of: 8 lanes where the processor has AVX2, found
//! out when it runs. Arithmetic, its order and the seeds are those of the workload of the same name, parameters
//! are as declared, and no product is fused with a sum, so the same comes out.
//! Invariant: every twin takes as many threads as it is given, and allocates nothing in a tick.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// A workload written by hand.
pub trait CpuTwin {
    /// Computes `ticks` ticks on the pool's threads.
    fn run(&mut self, pool: &ThreadPool, ticks: u32);

    /// What the workload computes, in the order of its grid.
    fn read(&self) -> Vec<f32>;
}

/// The threads that twins run on.
///
/// **Errors:** the system gives none.
pub fn pool(threads: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new().num_threads(threads).build()
}

/// What vectors the twins are made of here, for people.
pub fn vectors() -> &'static str {
    if has_avx2() { "AVX2" } else { "baseline vectors" }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// An inner loop, which is compiled twice: for AVX2 and for any processor. `run` must be inlined into both.
trait Kernel {
    type Output;
    fn run(self) -> Self::Output;
}

/// Runs a kernel with the widest vectors that this processor has.
fn vectorised<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        #[target_feature(enable = "avx2")]
        fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
            kernel.run()
        }
        #[allow(unsafe_code, reason = "the only way to call code for a processor that was found out at run time")]
        // SAFETY: the processor has AVX2, which is all that the function asks for.
        return unsafe { with_avx2(kernel) };
    }
    kernel.run()
}

/// The hash of the noise workload.
#[inline(always)]
fn scramble(v: u32) -> u32 {
    let x = (v ^ (v >> 16)).wrapping_mul(0x21f0_aaad);
    let x = (x ^ (x >> 15)).wrapping_mul(0xd35a_2d97);
    x ^ (x >> 15)
}

/// PCG hash (RXS-M-XS, 32 bits), as in the workloads.
#[inline(always)]
fn pcg(v: u32) -> u32 {
    let state = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// A hash as a float in [0, 1).
#[inline(always)]
fn unit(hash: u32) -> f32 {
    (hash >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Rows that a thread takes at once.
const ROWS: usize = 16;

/// The twin of `shaders/physics/heat`.
pub struct HeatCpuTwin {
    side: usize,
    field: Vec<f32>,
    next: Vec<f32>,
}

impl HeatCpuTwin {
    const RATE: f32 = 0.1;

    /// Seeds a plate of `side` by `side` cells, at least 2.
    pub fn new(side: u32) -> HeatCpuTwin {
        assert!(side >= 2, "a row has two ends");
        let seed = |x: u32, y: u32| 0.75 * unit(pcg((x / 32).wrapping_add(pcg(y / 32)))) + 0.25 * unit(pcg(x.wrapping_add(pcg(y + 1))));
        let field: Vec<f32> = (0..side).flat_map(|y| (0..side).map(move |x| seed(x, y))).collect();
        HeatCpuTwin { side: side as usize, next: field.clone(), field }
    }
}

impl CpuTwin for HeatCpuTwin {
    fn run(&mut self, pool: &ThreadPool, ticks: u32) {
        let side = self.side;
        for _ in 0..ticks {
            let field = &self.field;
            let next = self.next.par_chunks_mut(ROWS * side).enumerate();
            pool.install(|| next.for_each(|(block, next)| vectorised(HeatRows { field, next, first: block * ROWS, side })));
            std::mem::swap(&mut self.field, &mut self.next);
        }
    }

    fn read(&self) -> Vec<f32> {
        self.field.clone()
    }
}

/// Some rows of a tick.
struct HeatRows<'a> {
    field: &'a [f32],
    next: &'a mut [f32],
    /// The first of the rows.
    first: usize,
    side: usize,
}

impl Kernel for HeatRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let row = |y: usize| &self.field[y * self.side..(y + 1) * self.side];
        for (y, next) in (self.first..).zip(self.next.chunks_exact_mut(self.side)) {
            heat_row(row(y.saturating_sub(1)), row(y), row((y + 1).min(self.side - 1)), next);
        }
    }
}

#[inline(always)]
fn heat_row(up: &[f32], here: &[f32], down: &[f32], next: &mut [f32]) {
    let cell = |left: f32, t: f32, right: f32, up: f32, down: f32| t + HeatCpuTwin::RATE * (left + right + up + down - 4.0 * t);
    let last = next.len() - 1;
    next[0] = cell(here[0], here[0], here[1], up[0], down[0]);
    next[last] = cell(here[last - 1], here[last], here[last], up[last], down[last]);
    let inner = &mut next[1..last];
    let count = inner.len();
    let (left, middle, right) = (&here[..count], &here[1..][..count], &here[2..][..count]);
    let (up, down) = (&up[1..][..count], &down[1..][..count]);
    for x in 0..count {
        inner[x] = cell(left[x], middle[x], right[x], up[x], down[x]);
    }
}

/// Bodies that are computed at once: two vectors of AVX2, so that one computes while the other waits for a root.
const LANES: usize = 16;

/// Neighbouring bodies, axis by axis.
#[derive(Clone, Default)]
struct Bodies {
    position: [[f32; LANES]; 3],
    velocity: [[f32; LANES]; 3],
}

/// The twin of `shaders/physics/nbody`.
pub struct NbodyCpuTwin {
    groups: Vec<Bodies>,
    /// Position and mass of every body, one after the other: what all are pulled by.
    sources: Vec<[f32; 4]>,
}

impl NbodyCpuTwin {
    const DT: f32 = 0.005;
    const SOFTENING: f32 = 0.05;

    /// Seeds `count` bodies.
    pub fn new(count: u32) -> NbodyCpuTwin {
        let mut groups = vec![Bodies::default(); (count as usize).div_ceil(LANES)];
        let mut sources = Vec::with_capacity(count as usize);
        for index in 0..count {
            let (position, velocity) = body(index);
            let (group, lane) = (&mut groups[index as usize / LANES], index as usize % LANES);
            for axis in 0..3 {
                group.position[axis][lane] = position[axis];
                group.velocity[axis][lane] = velocity[axis];
            }
            sources.push([position[0], position[1], position[2], 1.0 / count as f32]);
        }
        NbodyCpuTwin { groups, sources }
    }
}

/// Position and velocity of a body at the start.
fn body(index: u32) -> ([f32; 3], [f32; 3]) {
    let mut hash = pcg(index);
    let mut p = [0.0f32; 3];
    for _ in 0..16 {
        p = std::array::from_fn(|_| {
            hash = pcg(hash);
            unit(hash) * 2.0 - 1.0
        });
        if p[0] * p[0] + p[1] * p[1] + p[2] * p[2] <= 1.0 {
            break;
        }
    }
    let side = if index.is_multiple_of(2) { 1.0 } else { -1.0 };
    ([p[0] + side * 1.5, p[1] + side * 0.4, p[2] * 0.3], [p[1] * -0.7 - side * 0.25, p[0] * 0.7, 0.0])
}

impl CpuTwin for NbodyCpuTwin {
    fn run(&mut self, pool: &ThreadPool, ticks: u32) {
        for _ in 0..ticks {
            let sources = &self.sources;
            pool.install(|| self.groups.par_iter_mut().for_each(|bodies| vectorised(Pulled { bodies, sources })));
            for (index, source) in self.sources.iter_mut().enumerate() {
                let position = &self.groups[index / LANES].position;
                source[..3].copy_from_slice(&position.map(|axis| axis[index % LANES]));
            }
        }
    }

    fn read(&self) -> Vec<f32> {
        self.sources.as_flattened().to_vec()
    }
}

/// A tick of some bodies.
struct Pulled<'a> {
    bodies: &'a mut Bodies,
    sources: &'a [[f32; 4]],
}

impl Kernel for Pulled<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let softening2 = NbodyCpuTwin::SOFTENING * NbodyCpuTwin::SOFTENING;
        let [px, py, pz] = self.bodies.position;
        let (mut sx, mut sy, mut sz) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
        for &[x, y, z, mass] in self.sources {
            for lane in 0..LANES {
                let (dx, dy, dz) = (x - px[lane], y - py[lane], z - pz[lane]);
                let near = 1.0 / (softening2 + dx * dx + dy * dy + dz * dz).sqrt();
                let pull = mass * (near * near * near);
                sx[lane] += dx * pull;
                sy[lane] += dy * pull;
                sz[lane] += dz * pull;
            }
        }
        for (axis, sums) in [sx, sy, sz].iter().enumerate() {
            let lanes = self.bodies.velocity[axis].iter_mut().zip(&mut self.bodies.position[axis]);
            for ((velocity, position), sum) in lanes.zip(sums) {
                *velocity += NbodyCpuTwin::DT * sum;
                *position += NbodyCpuTwin::DT * *velocity;
            }
        }
    }
}

/// The twin of `shaders/worldgen/noise`.
pub struct NoiseCpuTwin {
    side: usize,
    height: Vec<f32>,
}

impl NoiseCpuTwin {
    const FREQUENCY: f32 = 0.007_812_5;
    const GAIN: f32 = 0.5;
    const LACUNARITY: f32 = 2.0;
    const OCTAVES: u32 = 6;
    const SEED: u32 = 1;

    /// A map of `side` by `side` points.
    pub fn new(side: u32) -> NoiseCpuTwin {
        NoiseCpuTwin { side: side as usize, height: vec![0.0; side as usize * side as usize] }
    }
}

impl CpuTwin for NoiseCpuTwin {
    fn run(&mut self, pool: &ThreadPool, ticks: u32) {
        let side = self.side;
        for _ in 0..ticks {
            let rows = self.height.par_chunks_mut(side).enumerate();
            pool.install(|| rows.for_each(|(y, height)| vectorised(NoiseRow { height, y: y as u32 })));
        }
    }

    fn read(&self) -> Vec<f32> {
        self.height.clone()
    }
}

/// One row of the map.
struct NoiseRow<'a> {
    height: &'a mut [f32],
    y: u32,
}

/// What all points of a row have in common in one octave.
#[derive(Clone, Copy, Default)]
struct Lattice {
    fy: f32,
    v: f32,
    /// The hashes of the lattice's rows before and behind.
    rows: [u32; 2],
    amplitude: f32,
}

impl Lattice {
    #[inline(always)]
    fn row(y: u32) -> [Lattice; NoiseCpuTwin::OCTAVES as usize] {
        let mut y = y as f32 * NoiseCpuTwin::FREQUENCY;
        let mut amplitude = 1.0;
        let mut octaves = [Lattice::default(); NoiseCpuTwin::OCTAVES as usize];
        for (seed, octave) in (NoiseCpuTwin::SEED..).zip(&mut octaves) {
            let (fy, iy) = (y - y.floor(), whole(y.floor()));
            *octave = Lattice { fy, v: fade(fy), rows: [iy, iy + 1].map(|iy| scramble(iy.wrapping_add(scramble(seed)))), amplitude };
            y *= NoiseCpuTwin::LACUNARITY;
            amplitude *= NoiseCpuTwin::GAIN;
        }
        octaves
    }

    #[inline(always)]
    fn noise(&self, x: f32) -> f32 {
        let x0 = x.floor();
        let (fx, ix) = (x - x0, whole(x0));
        let n00 = ramp(ix, self.rows[0], fx, self.fy);
        let n10 = ramp(ix.wrapping_add(1), self.rows[0], fx - 1.0, self.fy);
        let n01 = ramp(ix, self.rows[1], fx, self.fy - 1.0);
        let n11 = ramp(ix.wrapping_add(1), self.rows[1], fx - 1.0, self.fy - 1.0);
        let u = fade(fx);
        let near = n00 + u * (n10 - n00);
        let far = n01 + u * (n11 - n01);
        near + self.v * (far - near)
    }
}

/// A whole number from 0 to below 2²³, by its bits: a cast saturates, of which LLVM makes scalars.
#[inline(always)]
fn whole(x: f32) -> u32 {
    (x + 8_388_608.0).to_bits() & 0x7f_ffff
}

#[inline(always)]
fn ramp(ix: u32, row: u32, fx: f32, fy: f32) -> f32 {
    let h = scramble(ix.wrapping_add(row));
    let gx = ((h & 0xffff) as i32 - 32_768) as f32 * (1.0 / 32_768.0);
    let gy = ((h >> 16) as i32 - 32_768) as f32 * (1.0 / 32_768.0);
    gx * fx + gy * fy
}

#[inline(always)]
fn fade(t: f32) -> f32 {
    t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
}

impl Kernel for NoiseRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let octaves = Lattice::row(self.y);
        // The row stays in the first cache from octave to octave.
        self.height.fill(0.0);
        let mut scale = NoiseCpuTwin::FREQUENCY;
        for octave in &octaves {
            for (x, height) in (0u32..).zip(self.height.iter_mut()) {
                *height += octave.amplitude * octave.noise(x as i32 as f32 * scale);
            }
            // Exact, because the lacunarity is 2.
            scale *= NoiseCpuTwin::LACUNARITY;
        }
    }
}

/// The twin of the `sum` beside the benches.
pub struct SumCpuTwin {
    values: Vec<f32>,
    total: f32,
}

impl SumCpuTwin {
    /// Values that a thread takes at once.
    const BLOCK: usize = 1 << 16;

    /// Seeds `count` values.
    pub fn new(count: u32) -> SumCpuTwin {
        SumCpuTwin { values: (0..count).map(|index| unit(pcg(index))).collect(), total: 0.0 }
    }
}

impl CpuTwin for SumCpuTwin {
    fn run(&mut self, pool: &ThreadPool, ticks: u32) {
        for _ in 0..ticks {
            let blocks = self.values.par_chunks(SumCpuTwin::BLOCK);
            self.total = pool.install(|| blocks.map(|values| vectorised(Sum { values })).sum());
        }
    }

    fn read(&self) -> Vec<f32> {
        vec![self.total]
    }
}

/// The sum of some values.
struct Sum<'a> {
    values: &'a [f32],
}

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        // Four vectors of AVX2: as many sums as hide what an addition takes.
        let mut lanes = [0.0f32; 32];
        let (whole, rest) = self.values.as_chunks::<32>();
        for values in whole {
            for (lane, value) in lanes.iter_mut().zip(values) {
                *lane += value;
            }
        }
        lanes.iter().chain(rest).sum()
    }
}
