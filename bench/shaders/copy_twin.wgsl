// The floor of streaming kernels: every vec4 of one array is read once and written once to another.
//
// In:     source, vec4<u32> each; `seed` writes the page's copy workload's.
// Out:    result, the same.
// Class:  exact.
// Source: the "copy" of McCalpin's STREAM, 1995.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<u32>>;

const LANES = 256u;

fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

@compute @workgroup_size(LANES)
fn seed(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * LANES + id.x;
    if (i < arrayLength(&result)) {
        result[i] = vec4<u32>(pcg(i * 4u), pcg(i * 4u + 1u), pcg(i * 4u + 2u), pcg(i * 4u + 3u));
    }
}

@compute @workgroup_size(LANES)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * LANES + id.x;
    if (i < arrayLength(&result)) {
        result[i] = source[i];
    }
}
