// The hand-written twin of the sum workload: a long array to one number in two dispatches.
//
// In:     value, f32 each; hashed, 0 to 1, as the workload has them.
// Out:    `gather`: one partial sum for each workgroup; `join`: their sum, the only element that counts.
// Class:  tolerance 1e-5: added in another order than the workload's.
// Source: many loads an invocation, then a tree in workgroup memory: Harris, "Optimizing Parallel Reduction in CUDA", 2007.

@group(0) @binding(0) var<storage, read> value: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

const LANES = 256u;

var<workgroup> sums: array<f32, LANES>;

fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

@compute @workgroup_size(LANES)
fn seed(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = arrayLength(&result);
    for (var i = id.x; i < count; i += groups.x * LANES) {
        result[i] = f32(pcg(i) >> 8u) * (1.0 / 16777216.0);
    }
}

@compute @workgroup_size(LANES)
fn gather(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let count = arrayLength(&value);
    var mine = 0.0;
    for (var i = id.x; i < count; i += groups.x * LANES) {
        mine += value[i];
    }
    sums[lane] = mine;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width >>= 1u) {
        if (lane < width) { sums[lane] += sums[lane + width]; }
        workgroupBarrier();
    }
    if (lane == 0u) { result[group.x] = sums[0]; }
}
