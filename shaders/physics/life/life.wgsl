// Conway's Game of Life on a torus.
//
// In/out: alive, u32 per cell of a 2-D grid: 1 alive, 0 dead.
// Class:  exact. Integers only.
// Source: M. Gardner, "Mathematical Games", Scientific American, October 1970: B3/S23.

var<storage, read> alive: array<u32>;
var<storage, read_write> alive_next: array<u32>;

// PCG hash (RXS-M-XS, 32 bits): Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// Three cells in eight are alive.
@compute @workgroup_size(16, 16)
fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let h = pcg(c.coord.x + pcg(c.coord.y));
    alive_next[c.index] = select(0u, 1u, (h & 7u) < 3u);
}

@compute @workgroup_size(16, 16)
fn live(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let above = alive[at(c, -1, -1, 0)] + alive[at(c, 0, -1, 0)] + alive[at(c, 1, -1, 0)];
    let beside = alive[at(c, -1, 0, 0)] + alive[at(c, 1, 0, 0)];
    let below = alive[at(c, -1, 1, 0)] + alive[at(c, 0, 1, 0)] + alive[at(c, 1, 1, 0)];
    let neighbours = above + beside + below;
    let stays = alive[c.index] == 1u && neighbours == 2u;
    alive_next[c.index] = select(0u, 1u, neighbours == 3u || stays);
}
