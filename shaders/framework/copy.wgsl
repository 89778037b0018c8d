// Copies boxes of elements between an arena and a mailbox: the packing and unpacking of an exchange.
//
// In:    source, words; copies, one affine job each (extent xyz and words per element; first word and step along
//        x y z of the source; the same of the target).
// Out:   target, words.
// Class: exact: bits are moved, never interpreted.

struct Job {
    extent: vec4<u32>,
    source: vec4<u32>,
    target_: vec4<u32>,
}

@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> target_: array<u32>;
@group(0) @binding(2) var<storage, read> jobs: array<Job>;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
    let job = jobs[id.y];
    let word = id.x % job.extent.w;
    var element = id.x / job.extent.w;
    let x = element % job.extent.x;
    element /= job.extent.x;
    let y = element % job.extent.y;
    let z = element / job.extent.y;
    if (z >= job.extent.z) {
        return;
    }
    let at = vec4<u32>(1u, x, y, z);
    target_[dot(job.target_, at) + word] = source[dot(job.source, at) + word];
}
