// Shows a plane of a field: of three axes the middle slice, of vectors and structs the first scalar.
//
// In:    words, tile by tile, each tile's elements row by row, every tile at a multiple of a whole one's words; known,
//        1 for each tile that is there; palette, 256 colours as packed red, green, blue, alpha.
// Out:   a colour for each pixel; transparent where the tile is not there, magenta where the value is no number.
// Class: tolerance: it is looked at, and nothing computes with it.

struct Field {
    shape: vec4<u32>,  // points along x y z; the slice that is shown
    tile: vec4<u32>,   // points of a whole tile; words of an element
    tiles: vec4<u32>,  // along x y z; words of a whole tile
    look: vec4<u32>,   // 0 f32, 1 i32, 2 u32; 1 for a relief
    range: vec4<f32>,  // of the darkest and the brightest colour; pixels along x y
}

@group(0) @binding(0) var<uniform> field: Field;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read> known: array<u32>;
@group(0) @binding(3) var<storage, read> palette: array<u32>;

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

@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    // One triangle that covers everything.
    return vec4<f32>(f32(index % 2u) * 4.0 - 1.0, f32(index / 2u) * 4.0 - 1.0, 0.0, 1.0);
}

@fragment
fn colour(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let cell = vec2<i32>(floor(position.xy / field.range.zw * vec2<f32>(field.shape.xy)));
    let here = seen(cell);
    if (!here.is_there) { return vec4<f32>(0.0); }
    if (!is_finite(here.value)) { return MAGENTA; }
    let span = select(1.0, field.range.y - field.range.x, field.range.y > field.range.x);
    let level = clamp((here.value - field.range.x) / span, 0.0, 1.0);
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
