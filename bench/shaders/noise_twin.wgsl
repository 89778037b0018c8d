// The hand-written twin of shaders/worldgen/noise: one contiguous array, no tiles, no prelude.
//
// In:     params, as the workload declares them: a uniform, because whoever makes worlds turns these knobs.
// Out:    height, f32 per point of an n x n grid, row-major.
// Class:  tolerance 1e-5; the same arithmetic in the same order as the workload.
// Source: K. Perlin, "Improving Noise", SIGGRAPH 2002, with a hashed gradient at each lattice point.

override n: u32;

struct Params {
    frequency: f32,
    gain: f32,
    lacunarity: f32,
    octaves: u32,
    seed: u32,
}

@group(0) @binding(0) var<storage, read_write> height: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;

// By TheIronBorn, after C. Wellons, "Prospecting for Hash Functions", 2018.
fn scramble(v: u32) -> u32 {
    var x = v;
    x = (x ^ (x >> 16u)) * 0x21f0aaadu;
    x = (x ^ (x >> 15u)) * 0xd35a2d97u;
    return x ^ (x >> 15u);
}

fn ramp(ix: i32, iy: i32, seed: u32, fx: f32, fy: f32) -> f32 {
    let h = scramble(u32(ix) + scramble(u32(iy) + scramble(seed)));
    let gx = f32(i32(h & 0xffffu) - 32768) * (1.0 / 32768.0);
    let gy = f32(i32(h >> 16u) - 32768) * (1.0 / 32768.0);
    return gx * fx + gy * fy;
}

fn fade(t: f32) -> f32 {
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
}

fn gradient_noise(x: f32, y: f32, seed: u32) -> f32 {
    let x0 = floor(x);
    let y0 = floor(y);
    let fx = x - x0;
    let fy = y - y0;
    let ix = i32(x0);
    let iy = i32(y0);
    let n00 = ramp(ix, iy, seed, fx, fy);
    let n10 = ramp(ix + 1, iy, seed, fx - 1.0, fy);
    let n01 = ramp(ix, iy + 1, seed, fx, fy - 1.0);
    let n11 = ramp(ix + 1, iy + 1, seed, fx - 1.0, fy - 1.0);
    let u = fade(fx);
    let v = fade(fy);
    let near = n00 + u * (n10 - n00);
    let far = n01 + u * (n11 - n01);
    return near + v * (far - near);
}

@compute @workgroup_size(16, 16)
fn raise(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= n || id.y >= n) { return; }
    var x = f32(id.x) * params.frequency;
    var y = f32(id.y) * params.frequency;
    var amplitude = 1.0;
    var sum = 0.0;
    for (var octave = 0u; octave < params.octaves; octave++) {
        sum += amplitude * gradient_noise(x, y, params.seed + octave);
        amplitude *= params.gain;
        x *= params.lacunarity;
        y *= params.lacunarity;
    }
    height[id.y * n + id.x] = sum;
}
