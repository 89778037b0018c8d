// A Gaussian blur per tick: 7 x 7 binomial weights, all 49 neighbours read directly, on a torus.
//
// In/out: brightness, f32 per pixel of a 2-D grid, 0 to 1.
// Class:  tolerance 1e-5. Only + and *; the weights are exact.
// Source: binomial filters: Jaehne, "Digital Image Processing", 2005, section 11.4. Variance 1.5 pixels^2 a tick.

var<storage, read> brightness: array<f32>;
var<storage, read_write> brightness_next: array<f32>;

// PCG hash (RXS-M-XS, 32 bits): Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// Patches of 48 x 16 pixels, black or white.
@compute @workgroup_size(16, 16)
fn paint(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let h = pcg(c.coord.x / 48u + pcg(c.coord.y / 16u));
    brightness_next[c.index] = f32(h & 1u);
}

// The row `dy` below, weighted 1 6 15 20 15 6 1.
fn row(c: Cell, dy: i32) -> f32 {
    return (brightness[at(c, -3, dy, 0)] + brightness[at(c, 3, dy, 0)])
        + 6.0 * (brightness[at(c, -2, dy, 0)] + brightness[at(c, 2, dy, 0)])
        + 15.0 * (brightness[at(c, -1, dy, 0)] + brightness[at(c, 1, dy, 0)])
        + 20.0 * brightness[at(c, 0, dy, 0)];
}

@compute @workgroup_size(16, 16)
fn blur(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let sum = (row(c, -3) + row(c, 3)) + 6.0 * (row(c, -2) + row(c, 2)) + 15.0 * (row(c, -1) + row(c, 1)) + 20.0 * row(c, 0);
    brightness_next[c.index] = sum * (1.0 / 4096.0);
}
