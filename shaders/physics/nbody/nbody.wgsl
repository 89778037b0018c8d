// Two spinning clusters of stars that fall into each other: gravity between all pairs.
//
// In/out: body, vec4<f32> per body of a 1-D grid: position xyz, mass w (in all 1, G = 1);
//         velocity, vec4<f32> per body: xyz, half a tick behind the positions; w is 0.
// Any number of bodies; the sum runs over the bodies in order, so it does not depend on the tiling.
// Class:  tolerance 1e-5 (a tick; the system is chaotic). Only + - * / and inverseSqrt.
// Source: leapfrog (kick-drift) with Plummer softening: Aarseth, "Gravitational N-Body Simulations", 2003. Tiled
//         through workgroup memory: Nyland, Harris, Prins, GPU Gems 3, chapter 31, 2007.

struct Params {
    dt: f32,
    softening: f32,
}

const LANES = 256u;

var<uniform> params: Params;
var<storage, read> body: array<vec4<f32>>;
var<storage, read_write> body_next: array<vec4<f32>>;
var<storage, read_write> velocity_next: array<vec4<f32>>;
var<workgroup> slab: array<vec4<f32>, LANES>;

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
fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    // A point in the unit ball: the first of up to 16 in the cube around it.
    var h = pcg(c.coord.x);
    var p = vec3<f32>(0.0);
    for (var k = 0u; k < 16u; k++) {
        let hx = pcg(h);
        let hy = pcg(hx);
        let hz = pcg(hy);
        h = hz;
        p = vec3<f32>(unit(hx) * 2.0 - 1.0, unit(hy) * 2.0 - 1.0, unit(hz) * 2.0 - 1.0);
        if (p.x * p.x + p.y * p.y + p.z * p.z <= 1.0) { break; }
    }
    // Even bodies to the right, odd ones to the left; each cluster flat and close to its orbital spin.
    let side = select(-1.0, 1.0, (c.coord.x & 1u) == 0u);
    body_next[c.index] = vec4<f32>(p.x + side * 1.5, p.y + side * 0.4, p.z * 0.3, 1.0 / f32(grid_shape().x));
    velocity_next[c.index] = vec4<f32>(p.y * -0.7 - side * 0.25, p.x * 0.7, 0.0, 0.0);
}

// The pull of a body on a unit mass at `p`. A body of mass 0, or at `p` itself, adds nothing.
fn pull(other: vec4<f32>, p: vec3<f32>, softening2: f32) -> vec3<f32> {
    let d = other.xyz - p;
    let near = inverseSqrt(softening2 + d.x * d.x + d.y * d.y + d.z * d.z);
    return d * (other.w * (near * near * near));
}

// Kick, then drift: the pull is of the positions before the tick, so both go in one pass.
@compute @workgroup_size(LANES)
fn advance(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = cell(id);
    let count = arrayLength(&body);
    let softening2 = params.softening * params.softening;
    var own = vec4<f32>(0.0);
    if (c.inside) { own = body[c.index]; }
    var sum = vec3<f32>(0.0);
    for (var base = 0u; base < count; base += LANES) {
        // All lanes fetch a slab, also those without a body of their own; past the end it holds mass 0.
        var fetched = vec4<f32>(0.0);
        if (base + lane < count) { fetched = body[base + lane]; }
        slab[lane] = fetched;
        workgroupBarrier();
        for (var k = 0u; k < LANES; k += 4u) {
            sum += pull(slab[k], own.xyz, softening2);
            sum += pull(slab[k + 1u], own.xyz, softening2);
            sum += pull(slab[k + 2u], own.xyz, softening2);
            sum += pull(slab[k + 3u], own.xyz, softening2);
        }
        workgroupBarrier();
    }
    if (c.inside) {
        // Nobody else reads a velocity, so it is updated in place.
        let v = velocity_next[c.index].xyz + params.dt * sum;
        velocity_next[c.index] = vec4<f32>(v, 0.0);
        body_next[c.index] = vec4<f32>(own.xyz + params.dt * v, own.w);
    }
}
