// Waves in a box: the 3-D scalar wave equation, with borders held at zero.
//
// In/out: displacement, f32 per cell of a 3-D grid, no unit, about -1 to 1;
//         velocity, f32 per cell, displacement per tick, half a tick behind the displacement.
// Class:  tolerance 1e-5. Only + - * /.
// Source: leapfrog in time, seven-point Laplacian in space: LeVeque, "Finite Difference Methods", 2007, chapter 10.

struct Params {
    courant2: f32, // (wave speed * time step / cell width)^2
}

var<uniform> params: Params;
var<storage, read> displacement: array<f32>;
var<storage, read_write> displacement_next: array<f32>;
var<storage, read> velocity: array<f32>;
var<storage, read_write> velocity_next: array<f32>;

// PCG hash (RXS-M-XS, 32 bits): Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// Bump k: 1 at a hashed place, smoothly 0 from an eighth of the grid away.
fn bump(coord: vec3<u32>, shape: vec3<u32>, k: u32) -> f32 {
    let hx = pcg(k);
    let hy = pcg(hx);
    let hz = pcg(hy);
    let centre = vec3<u32>(((hx >> 16u) * shape.x) >> 16u, ((hy >> 16u) * shape.y) >> 16u, ((hz >> 16u) * shape.z) >> 16u);
    let d = vec3<f32>(coord) - vec3<f32>(centre);
    let radius = max(f32(max(shape.x, max(shape.y, shape.z))) / 8.0, 1.0);
    let inner = max(1.0 - (d.x * d.x + d.y * d.y + d.z * d.z) / (radius * radius), 0.0);
    return inner * inner;
}

@compute @workgroup_size(8, 8, 4)
fn pluck(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let shape = grid_shape();
    displacement_next[c.index] = bump(c.coord, shape, 1u) - bump(c.coord, shape, 2u) + bump(c.coord, shape, 3u) - bump(c.coord, shape, 4u);
}

@compute @workgroup_size(8, 8, 4)
fn accelerate(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let u = displacement[c.index];
    let around = displacement[at(c, -1, 0, 0)] + displacement[at(c, 1, 0, 0)]
        + displacement[at(c, 0, -1, 0)] + displacement[at(c, 0, 1, 0)]
        + displacement[at(c, 0, 0, -1)] + displacement[at(c, 0, 0, 1)];
    velocity_next[c.index] = velocity[c.index] + params.courant2 * (around - 6.0 * u);
}

@compute @workgroup_size(8, 8, 4)
fn advance(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    displacement_next[c.index] = displacement[c.index] + velocity[c.index];
}
