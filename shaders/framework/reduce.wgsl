// Combines what workgroups and tiles contribute to a table, always in the same order.
//
// In:    shares of workgroups (`fold`) or of the peer (`spread`), then one row of words per tile (`combine`).
// Out:   one row of words per tile, then the table. A word is a scalar of the kind and operation that the pipeline's
//        constants name.
// Order: words are added with a stride of 256 and then by halving, over workgroups of a tile and over tiles by number:
//        a float sum depends on the tiling, never on who computed a tile or when it arrived.
// Class: exact for integers and min/max; for float sums as the pass that contributes.

override kind: u32;      // 0 f32, 1 i32, 2 u32
override operation: u32; // 0 sum, 1 min, 2 max

struct Shape {
    identity: u32,
    /// Words of the table.
    words: u32,
    /// Words from one workgroup's share to the next.
    stride: u32,
    /// Workgroups per tile (`fold`), owned tiles (`spread`), tiles of the grid (`combine`).
    count: u32,
}

@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@group(0) @binding(2) var<storage, read> tiles: array<u32>; // the number of every owned tile
@group(0) @binding(3) var<uniform> shape: Shape;

var<workgroup> partial: array<u32, 256>;

fn joined(a: u32, b: u32) -> u32 {
    if (kind == 0u) {
        let x = bitcast<f32>(a);
        let y = bitcast<f32>(b);
        if (operation == 0u) { return bitcast<u32>(x + y); }
        if (operation == 1u) { return bitcast<u32>(select(x, y, y < x)); }
        return bitcast<u32>(select(x, y, y > x));
    }
    if (operation == 0u) { return a + b; }
    var b_is_less = b < a;
    if (kind == 1u) { b_is_less = bitcast<i32>(b) < bitcast<i32>(a); }
    return select(b, a, b_is_less == (operation == 2u));
}

// Joins `count` words that start at `first`, `step` apart; the whole workgroup takes part.
fn join(first: u32, step: u32, lane: u32) -> u32 {
    var sum = shape.identity;
    for (var index = lane; index < shape.count; index += 256u) {
        sum = joined(sum, source[first + index * step]);
    }
    partial[lane] = sum;
    workgroupBarrier();
    for (var width = 128u; width > 0u; width >>= 1u) {
        if (lane < width) {
            partial[lane] = joined(partial[lane], partial[lane + width]);
        }
        workgroupBarrier();
    }
    return partial[0];
}

@compute @workgroup_size(256)
fn fill(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var index = id.x; index < arrayLength(&result); index += groups.x * 256u) {
        result[index] = shape.identity;
    }
}

@compute @workgroup_size(256)
fn fold(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var word = group.x; word < shape.words; word += groups.x) {
        let sum = join(group.y * shape.count * shape.stride + word, shape.stride, lane);
        if (lane == 0u) {
            result[tiles[group.y] * shape.words + word] = sum;
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(256)
fn spread(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var word = id.x; word < shape.words; word += groups.x * 256u) {
        for (var row = 0u; row < shape.count; row++) {
            result[tiles[row] * shape.words + word] = select(shape.identity, source[word], row == 0u);
        }
    }
}

@compute @workgroup_size(256)
fn combine(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var word = group.x; word < shape.words; word += groups.x) {
        let sum = join(word, shape.words, lane);
        if (lane == 0u) {
            result[word] = sum;
        }
        workgroupBarrier();
    }
}
