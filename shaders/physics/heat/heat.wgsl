// Heat in a plate: the 2-D diffusion equation, explicit in time, with insulated borders.
//
// In/out: temperature, f32 per cell of a 2-D grid, no unit; 0 to 1 at the start, and never outside that.
// Class:  tolerance 1e-5. Only + - *.
// Source: forward Euler with the five-point Laplacian (FTCS): LeVeque, "Finite Difference Methods", 2007, chapter 9.

struct Params {
    rate: f32, // diffusivity * time step / cell width^2
}

var<uniform> params: Params;
var<storage, read> temperature: array<f32>;
var<storage, read_write> temperature_next: array<f32>;

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

// Plates of 32 x 32 cells, each with a temperature of its own, with a grain of a quarter.
@compute @workgroup_size(64, 4)
fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let plate = unit(pcg(c.coord.x / 32u + pcg(c.coord.y / 32u)));
    let grain = unit(pcg(c.coord.x + pcg(c.coord.y + 1u)));
    temperature_next[c.index] = 0.75 * plate + 0.25 * grain;
}

@compute @workgroup_size(64, 4)
fn diffuse(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let t = temperature[c.index];
    let around = temperature[at(c, -1, 0, 0)] + temperature[at(c, 1, 0, 0)] + temperature[at(c, 0, -1, 0)] + temperature[at(c, 0, 1, 0)];
    temperature_next[c.index] = t + params.rate * (around - 4.0 * t);
}
