// Shows the elements of a field with one axis as points in the plane of their first two lanes, brighter where there are many.
//
// In:    words, tile by tile, every tile at a multiple of a whole one's words; known, 1 for each tile that is there.
// Out:   window, the square that most points are in: it follows them slowly, and who is far off does not count; light to be
//        added up, for each point a disc of it.
// Class: tolerance: it is looked at, and nothing computes with it.

struct Points {
    shape: vec4<u32>,  // points; points of a whole tile; words of an element; words of a whole tile
    pixels: vec4<f32>, // along x y; the radius of a point; how bright one is
}

@group(0) @binding(0) var<uniform> points: Points;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read> known: array<u32>;
// The same words: the middle x y, half of a side (0 at first), and one that is free.
@group(0) @binding(4) var<storage, read_write> found: array<f32, 4>;
@group(0) @binding(5) var<storage, read> window: array<f32, 4>;

const LANES = 256u;
// So many points say where all are.
const SAMPLES_MAX = 65536u;
// Half of a side, in standard deviations; and how many of these halves away somebody is no part of the picture.
const WIDE = 2.6;
const FAR = 2.0;
// Whoever is farther off has no square.
const FARTHEST = 1e15;
// How much of the way to where the points are a window goes with a picture.
const FOLLOWS = 0.1;
const TINT = vec3<f32>(0.5, 0.72, 1.0);

struct Seen {
    at: vec2<f32>,
    is_there: bool,
}

fn seen(point: u32) -> Seen {
    let tile = point / points.shape.y;
    let word = tile * points.shape.w + (point % points.shape.y) * points.shape.z;
    let bits = vec2<u32>(words[word], words[word + 1u]);
    // What is no number, or not finite, is nowhere.
    let is_finite = all((bits & vec2<u32>(0x7f800000u)) != vec2<u32>(0x7f800000u));
    return Seen(bitcast<vec2<f32>>(bits), known[tile] == 1u && is_finite);
}

var<workgroup> sums: array<vec4<f32>, LANES>;
var<workgroup> counts: array<f32, LANES>;

// One workgroup.
@compute @workgroup_size(LANES)
fn spread(@builtin(local_invocation_index) lane: u32) {
    let middle = vec2<f32>(found[0], found[1]);
    let half = found[2];
    let every = max(1u, points.shape.x / SAMPLES_MAX);
    var sum = vec4<f32>(0.0);
    var count = 0.0;
    for (var point = lane * every; point < points.shape.x; point += LANES * every) {
        let here = seen(point);
        // From where the middle was: less is lost of what is far from zero.
        let at = here.at - middle;
        if (here.is_there && all(abs(at) < vec2<f32>(select(half * FAR, FARTHEST, half == 0.0)))) {
            sum += vec4<f32>(at, at * at);
            count += 1.0;
        }
    }
    sums[lane] = sum;
    counts[lane] = count;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width >>= 1u) {
        if (lane < width) {
            sums[lane] += sums[lane + width];
            counts[lane] += counts[lane + width];
        }
        workgroupBarrier();
    }
    if (lane == 0u && counts[0] > 0.0) {
        let mean = sums[0].xy / counts[0];
        let variance = max(sums[0].zw / counts[0] - mean * mean, vec2<f32>(0.0));
        let wide = WIDE * sqrt(max(variance.x, variance.y));
        let now = vec3<f32>(middle + mean, select(1.0, wide, wide > 0.0));
        let next = mix(vec3<f32>(middle, half), now, select(FOLLOWS, 1.0, half == 0.0));
        found[0] = next.x;
        found[1] = next.y;
        found[2] = next.z;
    }
}

struct Corner {
    @builtin(position) position: vec4<f32>,
    @location(0) from_middle: vec2<f32>,
}

// A square of two triangles for each point.
@vertex
fn corner(@builtin(vertex_index) index: u32, @builtin(instance_index) point: u32) -> Corner {
    let here = seen(point);
    // Corners 0 1 2 and 2 1 3.
    let number = select(index, array<u32, 3>(2u, 1u, 3u)[index % 3u], index > 2u);
    let side = vec2<f32>(f32(number & 1u), f32(number >> 1u)) * 2.0 - 1.0;
    let place = (here.at - vec2<f32>(window[0], window[1])) / window[2];
    // Rows go down, as those of a plane do.
    let corner = (place + side * points.pixels.z * 2.0 / points.pixels.xy) * vec2<f32>(1.0, -1.0);
    // Behind the picture's edge, where nothing is drawn.
    let nowhere = vec4<f32>(2.0, 2.0, 2.0, 1.0);
    return Corner(select(nowhere, vec4<f32>(corner, 0.0, 1.0), here.is_there), side);
}

@fragment
fn colour(corner: Corner) -> @location(0) vec4<f32> {
    let inside = max(1.0 - dot(corner.from_middle, corner.from_middle), 0.0);
    return vec4<f32>(TINT * (points.pixels.w * inside * inside), 0.0);
}
