// A drum with a loose rim, and its energy: the 2-D wave equation with reductions over the whole grid at every tick.
//
// In/out: displacement, f32 per cell of a 2-D grid, no unit, -1 to 1;
//         velocity, f32 per cell, displacement per tick, half a tick behind the displacement.
// Out:    energy, f32[2]: kinetic and potential energy, displacement^2 / tick^2; their sum stays the same;
//         lowest, highest, f32[1]: the extremes of the displacement;
//         histogram, u32[64]: how many cells have a displacement in each 1/32 from -1 to 1, the ends open.
// Class:  tolerance 1e-5. Only + - * /. A cell on the border of a bin may fall on the other side on another adapter.
// Source: leapfrog in time, five-point Laplacian: LeVeque, "Finite Difference Methods", 2007, chapter 10. The energy
//         is the one that leapfrog conserves: the potential part pairs the displacements before and after the velocity
//         (Joly, "Variational Methods for Time-Dependent Wave Propagation Problems", 2003).

struct Params {
    courant2: f32, // (wave speed * time step / cell width)^2
}

const BINS = 64u;
const F32_MAX = 3.4028234e+38;

var<uniform> params: Params;
var<storage, read> displacement: array<f32>;
var<storage, read_write> displacement_next: array<f32>;
var<storage, read> velocity: array<f32>;
var<storage, read_write> velocity_next: array<f32>;
var<storage, read_write> energy_next: array<f32>;
var<storage, read_write> lowest_next: array<f32>;
var<storage, read_write> highest_next: array<f32>;
var<storage, read_write> histogram_next: array<atomic<u32>>;
// Kinetic, potential, lowest, highest of each invocation, then of ever larger groups of them.
var<workgroup> measured: array<vec4<f32>, 256>;
var<workgroup> bins: array<atomic<u32>, BINS>;

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
    let dx = f32(coord.x) - f32(((hx >> 16u) * shape.x) >> 16u);
    let dy = f32(coord.y) - f32(((hy >> 16u) * shape.y) >> 16u);
    let radius = max(f32(max(shape.x, shape.y)) / 8.0, 1.0);
    let inner = max(1.0 - (dx * dx + dy * dy) / (radius * radius), 0.0);
    return inner * inner;
}

@compute @workgroup_size(16, 16)
fn pluck(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let shape = grid_shape();
    displacement_next[c.index] = bump(c.coord, shape, 1u) - bump(c.coord, shape, 2u) + bump(c.coord, shape, 3u) - bump(c.coord, shape, 4u);
}

@compute @workgroup_size(16, 16)
fn accelerate(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let u = displacement[c.index];
    let around = displacement[at(c, -1, 0, 0)] + displacement[at(c, 1, 0, 0)] + displacement[at(c, 0, -1, 0)] + displacement[at(c, 0, 1, 0)];
    velocity_next[c.index] = velocity[c.index] + params.courant2 * (around - 4.0 * u);
}

@compute @workgroup_size(16, 16)
fn advance(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    displacement_next[c.index] = displacement[c.index] + velocity[c.index];
}

@compute @workgroup_size(16, 16)
fn measure(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = cell(id);
    var mine = vec4<f32>(0.0, 0.0, F32_MAX, -F32_MAX);
    if (c.inside) {
        let u = displacement[c.index];
        let v = velocity[c.index];
        let right = at(c, 1, 0, 0);
        let down = at(c, 0, 1, 0);
        // Beyond a clamped border lies the cell itself: no stretch.
        let stretch_x = displacement[right] - u;
        let stretch_y = displacement[down] - u;
        let before_x = stretch_x - (velocity[right] - v);
        let before_y = stretch_y - (velocity[down] - v);
        let potential = 0.5 * params.courant2 * (stretch_x * before_x + stretch_y * before_y);
        mine = vec4<f32>(0.5 * v * v, potential, u, u);
        let bin = i32(floor((u + 1.0) * 32.0));
        atomicAdd(&bins[u32(clamp(bin, 0, 63))], 1u);
    }
    measured[lane] = mine;
    workgroupBarrier();
    for (var width = 128u; width > 0u; width >>= 1u) {
        if (lane < width) {
            let a = measured[lane];
            let b = measured[lane + width];
            measured[lane] = vec4<f32>(a.xy + b.xy, min(a.z, b.z), max(a.w, b.w));
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        let all = measured[0];
        energy_next[partial(c, 0u)] = all.x;
        energy_next[partial(c, 1u)] = all.y;
        lowest_next[partial(c, 0u)] = all.z;
        highest_next[partial(c, 0u)] = all.w;
    }
    if (lane < BINS) {
        let count = atomicLoad(&bins[lane]);
        if (count > 0u) { atomicAdd(&histogram_next[lane], count); }
    }
}
