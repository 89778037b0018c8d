// Everybody votes with their neighbours, and blobs of one opinion grow out of noise.
//
// In/out: opinion, u32 per cell of a 2-D grid on a torus: 0 or 1.
// Class:  exact. Integers only.
// Source: G. Vichniac, "Simulating Physics with Cellular Automata", Physica D 10, 1984: the annealing rule. A narrow
//         majority loses and a narrow minority wins, which keeps the borders moving.

var<storage, read> opinion: array<u32>;            // the buffer as of now
var<storage, read_write> opinion_next: array<u32>; // the buffer as it will be

@compute @workgroup_size(16, 16)
fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var h = (c.coord.x * 0x9e3779b1u) ^ (c.coord.y * 0x85ebca77u);
    h = (h ^ (h >> 15u)) * 0x2c1b3c6du;
    h = (h ^ (h >> 12u)) * 0x297a2d39u;
    opinion_next[c.index] = (h >> 15u) & 1u;
}

@compute @workgroup_size(16, 16)
fn vote(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var ayes = 0u;
    for (var dy = -1; dy <= 1; dy++) {
        for (var dx = -1; dx <= 1; dx++) {
            ayes += opinion[at(c, dx, dy, 0)];
        }
    }
    opinion_next[c.index] = select(0u, 1u, ayes == 4u || ayes >= 6u);
}
