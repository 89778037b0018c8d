// Every element of one field into another: what moving bytes costs, and with few of them what a dispatch costs.
//
// In:     source, vec4<u32> per element of a 1-D grid, no unit; hashed.
// Out:    result, the same, again at every tick.
// Class:  exact.
// Source: the "copy" of McCalpin's STREAM, 1995.

var<storage, read> source: array<vec4<u32>>;
var<storage, read_write> source_next: array<vec4<u32>>;
var<storage, read_write> result_next: array<vec4<u32>>;

// PCG hash (RXS-M-XS, 32 bits): Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

@compute @workgroup_size(256)
fn scatter(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let first = c.coord.x * 4u;
    source_next[c.index] = vec4<u32>(pcg(first), pcg(first + 1u), pcg(first + 2u), pcg(first + 3u));
}

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    result_next[c.index] = source[c.index];
}
