// Ripples on a torus: the 2-D wave equation, sixth order in space, with drops that fall in at hashed places.
//
// In/out: displacement, f32 per cell of a 2-D grid, no unit, about -1 to 1; flat at the start;
//         velocity, f32 per cell, displacement per tick, half a tick behind the displacement.
// Class:  tolerance 1e-5. Only + - * /; the places are integer hashes of the tick.
// Source: leapfrog in time; seven-point second differences per axis: Fornberg, "Generation of Finite Difference
//         Formulas on Arbitrarily Spaced Grids", Math. Comp. 51, 1988, table 1.

struct Params {
    courant2: f32, // (wave speed * time step / cell width)^2
    damping: f32,
    drop_every: u32,
    drop_radius: f32,
    drop_speed: f32,
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

// The way from a to b around a ring of n places, the shorter one.
fn ring_distance(a: u32, b: u32, n: u32) -> f32 {
    let d = max(a, b) - min(a, b);
    return f32(min(d, n - d));
}

// The velocity that the drop of this tick gives; 0 when none falls.
fn drop_impulse(coord: vec3<u32>, when: u32) -> f32 {
    if (when % max(params.drop_every, 1u) != 0u) { return 0.0; }
    let shape = grid_shape();
    let hx = pcg(when);
    let hy = pcg(hx);
    let dx = ring_distance(coord.x, ((hx >> 16u) * shape.x) >> 16u, shape.x);
    let dy = ring_distance(coord.y, ((hy >> 16u) * shape.y) >> 16u, shape.y);
    let inner = max(1.0 - (dx * dx + dy * dy) / (params.drop_radius * params.drop_radius), 0.0);
    // Down in the middle and up around it, in sum 0: the water as a whole must not sink.
    return inner * inner * (3.0 - 4.0 * inner) * params.drop_speed;
}

@compute @workgroup_size(16, 16)
fn accelerate(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let u = displacement[c.index];
    let at1 = displacement[at(c, -1, 0, 0)] + displacement[at(c, 1, 0, 0)] + displacement[at(c, 0, -1, 0)] + displacement[at(c, 0, 1, 0)];
    let at2 = displacement[at(c, -2, 0, 0)] + displacement[at(c, 2, 0, 0)] + displacement[at(c, 0, -2, 0)] + displacement[at(c, 0, 2, 0)];
    let at3 = displacement[at(c, -3, 0, 0)] + displacement[at(c, 3, 0, 0)] + displacement[at(c, 0, -3, 0)] + displacement[at(c, 0, 3, 0)];
    // 3/2, -3/20, 1/90 and twice -49/18, over 180.
    let laplacian = (270.0 * at1 - 27.0 * at2 + 2.0 * at3 - 980.0 * u) * (1.0 / 180.0);
    velocity_next[c.index] = velocity[c.index] * (1.0 - params.damping) + params.courant2 * laplacian + drop_impulse(c.coord, tick());
}

@compute @workgroup_size(16, 16)
fn advance(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    displacement_next[c.index] = displacement[c.index] + velocity[c.index];
}
