// The floor of streaming kernels: every vec4 of one array is read once and written once to another.
//
// In:     source, vec4<u32> each.
// Out:    result, the same.
// Class:  exact.
// Source: the "copy" of McCalpin's STREAM, 1995.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<u32>>;

const LANES = 256u;

@compute @workgroup_size(LANES)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * LANES + id.x;
    if (i < arrayLength(&result)) {
        result[i] = source[i];
    }
}
