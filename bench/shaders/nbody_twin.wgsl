// The hand-written twin of shaders/physics/nbody: contiguous arrays, no tiles, no prelude.
//
// In/out: body, vec4<f32> per body: position xyz, mass w (in all 1, G = 1);
//         velocity, vec4<f32> per body: xyz, half a tick behind the positions; w is 0.
// Class:  tolerance 1e-5 (a tick; the system is chaotic); the same arithmetic in the same order as the workload.
// Source: leapfrog with Plummer softening; tiled through workgroup memory: Nyland, Harris, Prins, GPU Gems 3, ch. 31.
//
// One dispatch a tick: a kick reads all positions, so the drift writes to the other buffer.

const LANES = 256u;
const DT = 0.005;
const SOFTENING2 = f32(0.05) * f32(0.05);

@group(0) @binding(0) var<storage, read> body: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> body_next: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> velocity: array<vec4<f32>>;
var<workgroup> slab: array<vec4<f32>, LANES>;

fn pcg(v: u32) -> u32 {
    let state = v * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn unit(hash: u32) -> f32 {
    return f32(hash >> 8u) * (1.0 / 16777216.0);
}

@compute @workgroup_size(LANES)
fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let count = arrayLength(&body_next);
    if (id.x >= count) { return; }
    var h = pcg(id.x);
    var p = vec3<f32>(0.0);
    for (var k = 0u; k < 16u; k++) {
        let hx = pcg(h);
        let hy = pcg(hx);
        let hz = pcg(hy);
        h = hz;
        p = vec3<f32>(unit(hx) * 2.0 - 1.0, unit(hy) * 2.0 - 1.0, unit(hz) * 2.0 - 1.0);
        if (p.x * p.x + p.y * p.y + p.z * p.z <= 1.0) { break; }
    }
    let side = select(-1.0, 1.0, (id.x & 1u) == 0u);
    body_next[id.x] = vec4<f32>(p.x + side * 1.5, p.y + side * 0.4, p.z * 0.3, 1.0 / f32(count));
    velocity[id.x] = vec4<f32>(p.y * -0.7 - side * 0.25, p.x * 0.7, 0.0, 0.0);
}

fn pull(other: vec4<f32>, p: vec3<f32>) -> vec3<f32> {
    let d = other.xyz - p;
    let near = inverseSqrt(SOFTENING2 + d.x * d.x + d.y * d.y + d.z * d.z);
    return d * (other.w * (near * near * near));
}

@compute @workgroup_size(LANES)
fn advance(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = arrayLength(&body);
    let i = min(id.x, count - 1u);
    let own = body[i];
    var sum = vec3<f32>(0.0);
    for (var base = 0u; base < count; base += LANES) {
        var fetched = vec4<f32>(0.0);
        if (base + lane < count) { fetched = body[base + lane]; }
        slab[lane] = fetched;
        workgroupBarrier();
        for (var k = 0u; k < LANES; k += 4u) {
            sum += pull(slab[k], own.xyz);
            sum += pull(slab[k + 1u], own.xyz);
            sum += pull(slab[k + 2u], own.xyz);
            sum += pull(slab[k + 3u], own.xyz);
        }
        workgroupBarrier();
    }
    if (id.x < count) {
        let v = velocity[i].xyz + DT * sum;
        velocity[i] = vec4<f32>(v, 0.0);
        body_next[i] = vec4<f32>(own.xyz + DT * v, own.w);
    }
}
