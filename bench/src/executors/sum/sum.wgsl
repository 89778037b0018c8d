// The sum of a long field: what a reduction costs, with as little arithmetic as there can be.
//
// In:     value, f32 per element of a 1-D grid, no unit; hashed, 0 to 1.
// Out:    total, f32[1]: the sum of all values, again at every tick.
// Class:  tolerance 1e-5. Only +, in an order that the tiling decides.
// Source: tree in workgroup memory with sequential addressing: Harris, "Optimizing Parallel Reduction in CUDA", 2007.

const LANES = 256u;

var<storage, read> value: array<f32>;
var<storage, read_write> value_next: array<f32>;
var<storage, read_write> total_next: array<f32>;
var<workgroup> sums: array<f32, LANES>;

// PCG hash (RXS-M-XS, 32 bits): Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// A hash as a float in [0, 1), exact: the upper 24 bits.
fn unit(hash: u32) -> f32 {
    return f32(hash >> 8u) * (1.0 / 16777216.0);
}

@compute @workgroup_size(LANES)
fn scatter(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    value_next[c.index] = unit(pcg(c.coord.x));
}

@compute @workgroup_size(LANES)
fn sum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = cell(id);
    var mine = 0.0;
    if (c.inside) { mine = value[c.index]; }
    sums[lane] = mine;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width >>= 1u) {
        if (lane < width) { sums[lane] += sums[lane + width]; }
        workgroupBarrier();
    }
    if (lane == 0u) { total_next[partial(c, 0u)] = sums[0]; }
}
