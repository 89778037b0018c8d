//! The oracle: every workload again, as plain sequential Rust on contiguous row-major arrays.
//!
//! It knows no tiles, slots, strips, peers or prelude, so it can judge them: from nothing to the state after `ticks`
//! ticks for any grid shape, with the parameters that the workload's `workload.toml` declares. Arithmetic is in the
//! WGSL's order of operations, so an executor that does not fuse or reorder agrees bit for bit. Float sums over the
//! grid are the exception: their order depends on the tiling, so here they are accumulated in `f64`.

mod energy;
mod gauss;
mod heat;
mod hello;
mod life;
mod nbody;
mod noise;
mod rivers;
mod wave3d;
mod wave6;

use peercompute_buffers::bytemuck;

/// Every workload that [`run`] knows, by the `name` of its `workload.toml`, with its folder from the repository root.
pub(crate) const WORKLOADS: [(&str, &str); 10] = [
    ("energy", "shaders/physics/energy"),
    ("gauss", "shaders/image/gauss"),
    ("heat", "shaders/physics/heat"),
    ("hello", "examples/hello-workload"),
    ("life", "shaders/physics/life"),
    ("nbody", "shaders/physics/nbody"),
    ("noise", "shaders/worldgen/noise"),
    ("rivers", "shaders/worldgen/rivers"),
    ("wave3d", "shaders/physics/wave3d"),
    ("wave6", "shaders/physics/wave6"),
];

/// A buffer's name and its content, row-major, in WGSL element layout.
pub(crate) type Buffer = (&'static str, Vec<u8>);

/// Runs the workload's init passes and `ticks` ticks on a grid of `shape`; unused axes are 1.
///
/// Returns every field and table, also those that no pass has written yet (zeros).
///
/// Panics on a workload that is not in [`WORKLOADS`].
pub(crate) fn run(workload: &str, shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    match workload {
        "energy" => energy::run(shape, ticks),
        "gauss" => gauss::run(shape, ticks),
        "heat" => heat::run(shape, ticks),
        "hello" => hello::run(shape, ticks),
        "life" => life::run(shape, ticks),
        "nbody" => nbody::run(shape, ticks),
        "noise" => noise::run(shape, ticks),
        "rivers" => rivers::run(shape, ticks),
        "wave3d" => wave3d::run(shape, ticks),
        "wave6" => wave6::run(shape, ticks),
        other => panic!("no oracle for the workload `{other}`"),
    }
}

/// The bytes of a buffer under its name.
fn buffer<T: bytemuck::NoUninit>(name: &'static str, elements: &[T]) -> Buffer {
    (name, bytemuck::cast_slice(elements).to_vec())
}

/// Calls `value` for every point of the grid, x fastest, and collects the results.
fn fill<T>(shape: [u32; 3], mut value: impl FnMut([u32; 3]) -> T) -> Vec<T> {
    let mut out = Vec::with_capacity(shape.iter().map(|&e| e as usize).product());
    for z in 0..shape[2] {
        for y in 0..shape[1] {
            for x in 0..shape[0] {
                out.push(value([x, y, z]));
            }
        }
    }
    out
}

/// The row-major index of a point.
fn index(shape: [u32; 3], [x, y, z]: [u32; 3]) -> usize {
    let [nx, ny, _] = shape.map(|e| e as usize);
    x as usize + nx * (y as usize + ny * z as usize)
}

/// The index of a neighbour where the grid ends in its own border elements.
fn clamped(shape: [u32; 3], point: [u32; 3], step: [i32; 3]) -> usize {
    let axis = |a: usize| (i64::from(point[a]) + i64::from(step[a])).clamp(0, i64::from(shape[a]) - 1) as u32;
    index(shape, [axis(0), axis(1), axis(2)])
}

/// The index of a neighbour where the grid is a torus.
fn wrapped(shape: [u32; 3], point: [u32; 3], step: [i32; 3]) -> usize {
    let axis = |a: usize| (i64::from(point[a]) + i64::from(step[a])).rem_euclid(i64::from(shape[a])) as u32;
    index(shape, [axis(0), axis(1), axis(2)])
}

/// The index of a neighbour, or none where the step leaves the grid.
fn within(shape: [u32; 3], point: [u32; 3], step: [i32; 3]) -> Option<usize> {
    let mut to = [0; 3];
    for a in 0..3 {
        let along = i64::from(point[a]) + i64::from(step[a]);
        if !(0..i64::from(shape[a])).contains(&along) {
            return None;
        }
        to[a] = along as u32;
    }
    Some(index(shape, to))
}

/// The hash of the landscapes.
fn scramble(v: u32) -> u32 {
    let x = (v ^ (v >> 16)).wrapping_mul(0x21f0_aaad);
    let x = (x ^ (x >> 15)).wrapping_mul(0xd35a_2d97);
    x ^ (x >> 15)
}

/// The 32-bit PCG hash (RXS-M-XS) that the workloads seed themselves with.
fn pcg(v: u32) -> u32 {
    let state = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// A hash as a float in [0, 1), exact: the upper 24 bits.
fn unit(hash: u32) -> f32 {
    (hash >> 8) as f32 * (1.0 / 16_777_216.0)
}
