// Shows a plane of a field: of three axes the middle slice, of vectors and structs the first scalar.
//
// In:    words, tile by tile, each tile's elements row by row, every tile at a multiple of a whole one's words; known,
//        1 for each tile that is there; palette, 256 colours as packed red, green, blue, alpha.
// Out:   found, the least and the greatest value there is; a colour for each pixel between them: transparent where the tile is not there, magenta where the value is no number.
// Class: tolerance: it is looked at, and nothing computes with it.

struct Field {
    shape: vec4<u32>,  // points along x y z; the slice that is shown
    tile: vec4<u32>,   // points of a whole tile; words of an element
    tiles: vec4<u32>,  // along x y z; words of a whole tile
    look: vec4<u32>,   // 0 f32, 1 i32, 2 u32; 1 for a relief
    pixels: vec4<f32>, // along x y
}

@group(0) @binding(0) var<uniform> field: Field;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read> known: array<u32>;
@group(0) @binding(3) var<storage, read> palette: array<u32>;
// The same words: ranks of the least and the greatest value.
@group(0) @binding(4) var<storage, read_write> found: array<atomic<u32>, 2>;
@group(0) @binding(5) var<storage, read> range: array<u32, 2>;

const MAGENTA = vec4<f32>(1.0, 0.0, 1.0, 1.0);
// How steep the range is made to look, if it were climbed over so many points.
const STEEP = 60.0;
const SUN = vec3<f32>(-0.57735, -0.57735, 0.57735);

struct Seen {
    value: f32,
    is_there: bool,
}

fn seen(cell: vec2<i32>) -> Seen {
    let at = vec3<u32>(vec2<u32>(clamp(cell, vec2<i32>(0), vec2<i32>(field.shape.xy) - 1)), field.shape.w);
    let place = at / field.tile.xyz;
    let origin = place * field.tile.xyz;
    let extent = min(field.tile.xyz, field.shape.xyz - origin);
    let local = at - origin;
    let tile = place.x + field.tiles.x * (place.y + field.tiles.y * place.z);
    let element = local.x + extent.x * (local.y + extent.y * local.z);
    let word = words[tile * field.tiles.w + element * field.tile.w];
    var value = bitcast<f32>(word);
    if (field.look.x == 1u) { value = f32(bitcast<i32>(word)); }
    if (field.look.x == 2u) { value = f32(word); }
    return Seen(value, known[tile] == 1u);
}

fn is_finite(value: f32) -> bool {
    // Comparisons with what is no number may be optimised away; its bits may not.
    return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

// Ranks are ordered as the floats are.
fn rank(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn value_of(rank: u32) -> f32 {
    return bitcast<f32>(select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u));
}

var<workgroup> least: atomic<u32>;
var<workgroup> most: atomic<u32>;

@compute @workgroup_size(16, 16)
fn spread(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (lane == 0u) {
        atomicStore(&least, 0xffffffffu);
        atomicStore(&most, 0u);
    }
    workgroupBarrier();
    if (all(id.xy < field.shape.xy)) {
        let here = seen(vec2<i32>(id.xy));
        if (here.is_there && is_finite(here.value)) {
            atomicMin(&least, rank(here.value));
            atomicMax(&most, rank(here.value));
        }
    }
    workgroupBarrier();
    if (lane == 0u) {
        atomicMin(&found[0], atomicLoad(&least));
        atomicMax(&found[1], atomicLoad(&most));
    }
}

@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    // One triangle that covers everything.
    return vec4<f32>(f32(index % 2u) * 4.0 - 1.0, f32(index / 2u) * 4.0 - 1.0, 0.0, 1.0);
}

@fragment
fn colour(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let cell = vec2<i32>(floor(position.xy / field.pixels.xy * vec2<f32>(field.shape.xy)));
    let here = seen(cell);
    if (!here.is_there) { return vec4<f32>(0.0); }
    if (!is_finite(here.value)) { return MAGENTA; }
    let low = value_of(range[0]);
    let high = value_of(range[1]);
    let span = select(1.0, high - low, high > low);
    let level = clamp((here.value - low) / span, 0.0, 1.0);
    var colour = unpack4x8unorm(palette[u32(level * 255.0)]);
    if (field.look.y == 1u) {
        let left = seen(cell - vec2<i32>(1, 0)).value;
        let right = seen(cell + vec2<i32>(1, 0)).value;
        let above = seen(cell - vec2<i32>(0, 1)).value;
        let below = seen(cell + vec2<i32>(0, 1)).value;
        let slope = vec2<f32>(right - left, below - above) / (2.0 * span) * STEEP;
        if (is_finite(slope.x) && is_finite(slope.y)) {
            let light = dot(normalize(vec3<f32>(-slope, 1.0)), SUN);
            colour = vec4<f32>(colour.rgb * (0.35 + 1.1 * max(light, 0.0)), colour.a);
        }
    }
    return colour;
}
