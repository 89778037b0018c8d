// Fractal gradient noise: a height map as a sum of octaves of lattice noise.
//
// In:     nothing but the coordinate and the parameters, so every tick writes the same values.
// Out:    height, f32 per grid point of a 2-D grid, no unit: about -1.2 to 1.2 with the default gain.
// Class:  tolerance 1e-5. Only + - * and floor; the hash is integer.
// Source: K. Perlin, "Improving Noise", SIGGRAPH 2002 (fade curve), with a hashed gradient at each lattice point.

struct Params {
    frequency: f32,
    gain: f32,
    lacunarity: f32,
    octaves: u32,
    seed: u32,
}

var<uniform> params: Params;
var<storage, read_write> height_next: array<f32>;

// An invertible hash of 32 bits, two multiplications and three shifts, found by search for little bias: by
// TheIronBorn, after C. Wellons, "Prospecting for Hash Functions", 2018. Its shifts are the same in every lane, which processors without a GPU like.
fn scramble(v: u32) -> u32 {
    var x = v;
    x = (x ^ (x >> 16u)) * 0x21f0aaadu;
    x = (x ^ (x >> 15u)) * 0xd35a2d97u;
    return x ^ (x >> 15u);
}

// The ramp through lattice point (ix, iy) in its hashed direction, seen from (fx, fy) beside it.
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
    let c = cell(id);
    if (!c.inside) { return; }
    var x = f32(c.coord.x) * params.frequency;
    var y = f32(c.coord.y) * params.frequency;
    var amplitude = 1.0;
    var sum = 0.0;
    for (var octave = 0u; octave < params.octaves; octave++) {
        sum += amplitude * gradient_noise(x, y, params.seed + octave);
        amplitude *= params.gain;
        x *= params.lacunarity;
        y *= params.lacunarity;
    }
    height_next[c.index] = sum;
}
