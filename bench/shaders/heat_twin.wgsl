// The hand-written twin of shaders/physics/heat: one contiguous array, no tiles, no prelude.
//
// In:     temperature, f32 per cell of an n x n grid, row-major, 0 to 1.
// Out:    temperature_next, the same a tick later; `seed` writes the workload's initial temperatures.
// Class:  tolerance 1e-5; the same arithmetic in the same order as the workload.
// Source: forward Euler with the five-point Laplacian, insulated borders, rate 0.1.
//
// `diffuse` computes one cell an invocation; `diffuse_quad` four neighbouring ones with 16-byte loads, for n divisible
// by 4. The grid's width and the workgroup are specialization constants, so that index arithmetic folds.

override n: u32;
override workgroup_x: u32;
override workgroup_y: u32;

const RATE = 0.1;

@group(0) @binding(0) var<storage, read> temperature: array<f32>;
@group(0) @binding(1) var<storage, read_write> temperature_next: array<f32>;
@group(0) @binding(0) var<storage, read> quad: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> quad_next: array<vec4<f32>>;

fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn unit(hash: u32) -> f32 {
    return f32(hash >> 8u) * (1.0 / 16777216.0);
}

@compute @workgroup_size(workgroup_x, workgroup_y)
fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= n || id.y >= n) { return; }
    let plate = unit(pcg(id.x / 32u + pcg(id.y / 32u)));
    let grain = unit(pcg(id.x + pcg(id.y + 1u)));
    temperature_next[id.y * n + id.x] = 0.75 * plate + 0.25 * grain;
}

@compute @workgroup_size(workgroup_x, workgroup_y)
fn diffuse(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = id.x;
    let y = id.y;
    if (x >= n || y >= n) { return; }
    let i = y * n + x;
    let t = temperature[i];
    let left = temperature[select(i - 1u, i, x == 0u)];
    let right = temperature[select(i + 1u, i, x == n - 1u)];
    let up = temperature[select(i - n, i, y == 0u)];
    let down = temperature[select(i + n, i, y == n - 1u)];
    let around = left + right + up + down;
    temperature_next[i] = t + RATE * (around - 4.0 * t);
}

@compute @workgroup_size(workgroup_x, workgroup_y)
fn diffuse_quad(@builtin(global_invocation_id) id: vec3<u32>) {
    let pitch = n / 4u;
    let x = id.x;
    let y = id.y;
    if (x >= pitch || y >= n) { return; }
    let i = y * pitch + x;
    let t = quad[i];
    let before = quad[select(i - 1u, i, x == 0u)];
    let after = quad[select(i + 1u, i, x == pitch - 1u)];
    let left = vec4<f32>(select(before.w, t.x, x == 0u), t.xyz);
    let right = vec4<f32>(t.yzw, select(after.x, t.w, x == pitch - 1u));
    let up = quad[select(i - pitch, i, y == 0u)];
    let down = quad[select(i + pitch, i, y == n - 1u)];
    let around = left + right + up + down;
    quad_next[i] = t + RATE * (around - 4.0 * t);
}
