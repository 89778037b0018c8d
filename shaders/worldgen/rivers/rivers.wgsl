// Rain on mountains: terrain with branching valleys, and shallow water that gathers in it to rivers and lakes.
//
// In/out: height, f32 per cell, m (raised once, then only read);
//         depth, f32 per cell, m of water above the ground;
//         flux, vec4<f32> per cell, m^3/s that leave to -x, +x, -y, +y, never negative.
// Ticks:  flow (levels -> flux), then flood (flux -> depth, rain, evaporation). Nothing flows over the grid's border.
// Class:  tolerance 0.1 (m^3/s; the heights 1e-5): fluxes follow from small differences of large heights.
//         Only + - * / sqrt and floor; hashes are integer.
// Source: water: Mei, Decaudin, Hu, "Fast Hydraulic Erosion Simulation and Visualization on GPU", PG 2007, sections
//         3.1-3.2, after O'Brien and Hodgins, "Dynamic Simulation of Splashing Fluids", 1995. Terrain: warped ridged
//         noise (Musgrave, in "Texturing & Modeling", 2003), its valleys multiplied so that they drain into each
//         other, and gullies along the slope (the idea of C. John's "Eroded Terrain Noise", 2020, without its cosines).

struct Params {
    frequency: f32,
    relief: f32,
    sea_level: f32,
    cell_width: f32,
    pipe: f32,
    gravity: f32,
    friction: f32,
    rain: f32,
    evaporation: f32,
    dt: f32,
    seed: u32,
}

var<uniform> params: Params;
var<storage, read> height: array<f32>;
var<storage, read_write> height_next: array<f32>;
var<storage, read> depth: array<f32>;
var<storage, read_write> depth_next: array<f32>;
var<storage, read> flux: array<vec4<f32>>;
var<storage, read_write> flux_next: array<vec4<f32>>;

// An invertible hash of 32 bits, two multiplications and three shifts, found by search for little bias: by
// TheIronBorn, after C. Wellons, "Prospecting for Hash Functions", 2018. Its shifts are the same in every lane, which processors without a GPU like.
fn scramble(v: u32) -> u32 {
    var x = v;
    x = (x ^ (x >> 16u)) * 0x21f0aaadu;
    x = (x ^ (x >> 15u)) * 0xd35a2d97u;
    return x ^ (x >> 15u);
}

// ---- Terrain ----

// A value and its slopes along x and y.
struct Surface { value: f32, dx: f32, dy: f32 }

fn lattice(ix: i32, iy: i32, seed: u32) -> u32 {
    return scramble(u32(ix) + scramble(u32(iy) + scramble(seed)));
}

fn gradient(ix: i32, iy: i32, seed: u32) -> vec2<f32> {
    let h = lattice(ix, iy, seed);
    return vec2<f32>(f32(i32(h & 0xffffu) - 32768), f32(i32(h >> 16u) - 32768)) * (1.0 / 32768.0);
}

fn fade(t: f32) -> f32 {
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
}

fn fade_slope(t: f32) -> f32 {
    return 30.0 * t * t * (t * (t - 2.0) + 1.0);
}

fn smooth_step(t: f32) -> f32 {
    let s = clamp(t, 0.0, 1.0);
    return s * s * (3.0 - 2.0 * s);
}

// Gradient noise with its slopes, about -0.8 to 0.8.
fn gradient_noise(x: f32, y: f32, seed: u32) -> Surface {
    let x0 = floor(x);
    let y0 = floor(y);
    let fx = x - x0;
    let fy = y - y0;
    let ix = i32(x0);
    let iy = i32(y0);
    let ga = gradient(ix, iy, seed);
    let gb = gradient(ix + 1, iy, seed);
    let gc = gradient(ix, iy + 1, seed);
    let gd = gradient(ix + 1, iy + 1, seed);
    let a = ga.x * fx + ga.y * fy;
    let b = gb.x * (fx - 1.0) + gb.y * fy;
    let c = gc.x * fx + gc.y * (fy - 1.0);
    let d = gd.x * (fx - 1.0) + gd.y * (fy - 1.0);
    let u = fade(fx);
    let v = fade(fy);
    let near = a + u * (b - a);
    let far = c + u * (d - c);
    let near_dx = ga.x + u * (gb.x - ga.x) + fade_slope(fx) * (b - a);
    let far_dx = gc.x + u * (gd.x - gc.x) + fade_slope(fx) * (d - c);
    let near_dy = ga.y + u * (gb.y - ga.y);
    let far_dy = gc.y + u * (gd.y - gc.y);
    return Surface(
        near + v * (far - near),
        near_dx + v * (far_dx - near_dx),
        near_dy + v * (far_dy - near_dy) + fade_slope(fy) * (far - near),
    );
}

// A slow swell, and on it ranges between valleys that branch: the floor of a tributary falls towards the valley that
// it joins, because the valleys are multiplied. A valley lies where a noise crosses zero.
fn massif(x: f32, y: f32) -> Surface {
    let swell = gradient_noise(x * 0.6, y * 0.6, params.seed);
    var range = Surface(1.0, 0.0, 0.0);
    var scale = 1.2;
    var bed = 0.0;
    for (var octave = 0u; octave < 3u; octave++) {
        let n = gradient_noise(x * scale + 13.7, y * scale + 7.3, params.seed + 1u + octave);
        let root = sqrt(n.value * n.value + 0.0016);
        let side = (1.0 - bed) * 2.0;
        let wall = bed + side * (root - 0.04);
        let slope = side * scale * (n.value / root);
        range = Surface(
            range.value * wall,
            range.dx * wall + range.value * (slope * n.dx),
            range.dy * wall + range.value * (slope * n.dy),
        );
        bed = 0.45;
        scale *= 2.2;
    }
    return Surface(
        0.55 * swell.value + range.value,
        0.33 * swell.dx + range.dx,
        0.33 * swell.dy + range.dy,
    );
}

// Stripes across the direction (ax, ay), blended between jittered lattice cells. The stripe's profile is a cosine
// drawn with a cubic: 1 on the crest, -1 in the bed.
fn gullies(x: f32, y: f32, ax: f32, ay: f32, seed: u32) -> Surface {
    let x0 = floor(x);
    let y0 = floor(y);
    let fx = x - x0;
    let fy = y - y0;
    let ix = i32(x0);
    let iy = i32(y0);
    var sum = Surface(0.0, 0.0, 0.0);
    var weights = 0.0;
    for (var j = -1; j <= 2; j++) {
        for (var i = -1; i <= 2; i++) {
            let h = lattice(ix + i, iy + j, seed);
            // The cell's centre in 1/131072, jittered by up to a quarter: exact.
            let px = fx - f32(i * 131072 + i32(h & 0xffffu) - 32768) * (1.0 / 131072.0);
            let py = fy - f32(j * 131072 + i32(h >> 16u) - 32768) * (1.0 / 131072.0);
            let near = max(1.0 - (px * px + py * py) * 0.5, 0.0);
            let weight = near * near;
            let along = px * ax + py * ay;
            let phase = along - floor(along + 0.5);
            let t = 1.0 - 4.0 * abs(phase);
            let steep = (1.5 - 1.5 * t * t) * select(-4.0, 4.0, phase < 0.0);
            sum.value += weight * (1.5 * t - 0.5 * t * t * t);
            sum.dx += weight * steep * ax;
            sum.dy += weight * steep * ay;
            weights += weight;
        }
    }
    return Surface(sum.value / weights, sum.dx / weights, sum.dy / weights);
}

fn terrain(x: f32, y: f32) -> f32 {
    // Bend the plane, so that ranges and valleys curve.
    let wx = x + 0.3 * gradient_noise(x * 1.1, y * 1.1, params.seed + 101u).value;
    let wy = y + 0.3 * gradient_noise(x * 1.1, y * 1.1, params.seed + 211u).value;
    let land = massif(wx, wy);
    // Gullies run down the slope, and the finer ones down the sides of the coarser ones.
    let steep = sqrt(land.dx * land.dx + land.dy * land.dy);
    let relief = steep / (steep + 0.5) * smooth_step((land.value + 0.24) * 5.0);
    var amplitude = 0.045;
    var scale = 7.0;
    var cut = Surface(0.0, 0.0, 0.0);
    for (var octave = 0u; octave < 4u; octave++) {
        let gx = land.dx + cut.dx;
        let gy = land.dy + cut.dy;
        let turn = 1.1 / sqrt(gx * gx + gy * gy + 0.05);
        let g = gullies(wx * scale, wy * scale, gy * turn, gx * -turn, params.seed + 700u + octave);
        cut.value += relief * (g.value * amplitude);
        cut.dx += relief * (g.dx * (amplitude * scale));
        cut.dy += relief * (g.dy * (amplitude * scale));
        amplitude *= 0.42;
        scale *= 2.0;
    }
    return land.value + cut.value + 0.36;
}

@compute @workgroup_size(16, 16)
fn raise(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let ground = terrain(f32(c.coord.x) * params.frequency, f32(c.coord.y) * params.frequency) * params.relief;
    height_next[c.index] = ground;
    depth_next[c.index] = max(params.sea_level - ground, 0.0);
}

// ---- Water ----

// What a pipe carries after it was driven for one tick by a fall of the water level, m.
fn driven(carried: f32, fall: f32) -> f32 {
    return max(carried * (1.0 - params.friction) + params.dt * params.pipe * params.gravity * fall / params.cell_width, 0.0);
}

@compute @workgroup_size(16, 16)
fn flow(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let left = at(c, -1, 0, 0);
    let right = at(c, 1, 0, 0);
    let up = at(c, 0, -1, 0);
    let down = at(c, 0, 1, 0);
    let water = depth[c.index];
    let level = height[c.index] + water;
    let carried = flux[c.index];
    // A clamped neighbour is the cell itself: no fall, so nothing leaves the grid.
    var out = vec4<f32>(
        driven(carried.x, level - (height[left] + depth[left])),
        driven(carried.y, level - (height[right] + depth[right])),
        driven(carried.z, level - (height[up] + depth[up])),
        driven(carried.w, level - (height[down] + depth[down])),
    );
    // A cell gives no more than it holds.
    let leaving = (out.x + out.y + out.z + out.w) * params.dt;
    let available = water * params.cell_width * params.cell_width;
    if (leaving > available) {
        out *= available / leaving;
    }
    flux_next[c.index] = out;
}

@compute @workgroup_size(16, 16)
fn flood(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    // A clamped neighbour is the cell itself: what it sends outwards must not come back in.
    let last = grid_shape() - vec3<u32>(1u);
    let from_left = select(flux[at(c, -1, 0, 0)].y, 0.0, c.coord.x == 0u);
    let from_right = select(flux[at(c, 1, 0, 0)].x, 0.0, c.coord.x == last.x);
    let from_up = select(flux[at(c, 0, -1, 0)].w, 0.0, c.coord.y == 0u);
    let from_down = select(flux[at(c, 0, 1, 0)].z, 0.0, c.coord.y == last.y);
    let out = flux[c.index];
    let inflow = from_left + from_right + from_up + from_down;
    let outflow = out.x + out.y + out.z + out.w;
    let moved = max(depth[c.index] + params.dt * (inflow - outflow) / (params.cell_width * params.cell_width), 0.0);
    depth_next[c.index] = (moved + params.dt * params.rain) * (1.0 - params.dt * params.evaporation);
}
