//! Everything a declaration can say that no workload of the repository says: several grids, struct
//! elements, mixed boundaries, partial writes, tables of values, whole reads in 2-D, reductions of
//! vectors. Each against plain Rust where that is short, and always partitioned against alone.

use peercompute_kernels::executor::Borders;

use crate::cases::{Kind, State, bundle_of};
use crate::executors::{open, run};

/// Runs on one peer, holds every partition, border strategy and page size against it, and returns its state.
fn check(kind: Kind, toml: &str, wgsl: &str, ticks: u64) -> State {
    let bundle = bundle_of(toml, wgsl);
    let alone = run(&open(kind, Borders::InPlace, None), &bundle, 1, ticks);
    let whole = bundle.program().rules.iter().any(|rules| rules.whole);
    for (borders, page) in [(Borders::InPlace, None), (Borders::Apart, if whole { None } else { Some(16 << 10) })] {
        let executor = open(kind, borders, page);
        for peers in [1, 2, 3, 5] {
            for ((name, got), (_, want)) in run(&executor, &bundle, peers, ticks).buffers.iter().zip(&alone.buffers) {
                assert!(got == want, "{name} differs on {peers} peers, {borders:?}, pages of {page:?}");
            }
        }
    }
    alone
}

pub(crate) fn cells_and_bodies_on_grids_of_their_own(kind: Kind) {
    let state = check(
        kind,
        r#"
name = "two-grids"
version = "0.1.0"
class = "exact"
[grids.cells]
shape = [37, 21]
tile = [8, 8]
[grids.bodies]
shape = [53]
tile = [7]
[buffers.count]
element = "u32"
grid = "cells"
boundary = "wrap"
[buffers.body]
element = "Body"
grid = "bodies"
[[init]]
kernel = "k.wgsl"
entry = "scatter"
writes = ["body"]
[[passes]]
kernel = "k.wgsl"
entry = "tally"
reads = { body = "all", count = { halo = 2 } }
writes = ["count"]
[[passes]]
kernel = "k.wgsl"
entry = "hop"
grid = "bodies"
reads = { count = "all", body = { halo = 1 } }
writes = ["body"]
"#,
        r#"
struct Body { place: vec3<u32>, mass: u32, tag: vec2<u32> }
var<storage, read> count: array<u32>;
var<storage, read_write> count_next: array<u32>;
var<storage, read> body: array<Body>;
var<storage, read_write> body_next: array<Body>;
@compute @workgroup_size(32) fn scatter(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    body_next[c.index] = Body(vec3<u32>(c.coord.x * 7u % 37u, c.coord.x * 5u % 21u, 0u), c.coord.x + 1u, vec2<u32>(c.coord.x, 9u));
}
@compute @workgroup_size(8, 4) fn tally(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var sum = count[at(c, -2, 1, 0)] / 2u + count[at(c, 2, -2, 0)] / 3u;
    for (var i = 0u; i < arrayLength(&body); i++) {
        if (all(body[i].place.xy == c.coord.xy)) { sum += body[i].mass; }
    }
    count_next[c.index] = sum;
}
@compute @workgroup_size(16) fn hop(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var b = body[c.index];
    let here = count[locate_cells(b.place)];
    b.mass = (here + body[at(c, 1, 0, 0)].mass + body[at(c, -1, 0, 0)].tag.x) % 1000u;
    b.place = vec3<u32>((b.place.x + here) % 37u, (b.place.y + b.mass) % 21u, tick());
    body_next[c.index] = b;
}
"#,
        9,
    );
    // The same in plain Rust.
    let (w, h, n) = (37i64, 21i64, 53usize);
    let mut count = vec![0u32; (w * h) as usize];
    let mut body: Vec<[u32; 6]> = (0..n as u32).map(|i| [i * 7 % 37, i * 5 % 21, 0, i + 1, i, 9]).collect();
    for tick in 0..9 {
        let at = |x: i64, y: i64| (x.rem_euclid(w) + w * y.rem_euclid(h)) as usize;
        let mut next = vec![0; count.len()];
        for y in 0..h {
            for x in 0..w {
                let on: u32 = body.iter().filter(|b| i64::from(b[0]) == x && i64::from(b[1]) == y).map(|b| b[3]).sum();
                next[at(x, y)] = count[at(x - 2, y + 1)] / 2 + count[at(x + 2, y - 2)] / 3 + on;
            }
        }
        count = next;
        let before = body.clone();
        for (i, b) in body.iter_mut().enumerate() {
            let here = count[(b[0] + 37 * b[1]) as usize];
            b[3] = (here + before[(i + 1).min(n - 1)][3] + before[i.saturating_sub(1)][4]) % 1000;
            *b = [(b[0] + here) % 37, (b[1] + b[3]) % 21, tick, b[3], b[4], b[5]];
        }
    }
    assert_eq!(state.words("count"), count);
    // `Body` is 32 bytes: six words of data, two of padding.
    let got: Vec<[u32; 6]> = state.words("body").chunks_exact(8).map(|b| [b[0], b[1], b[2], b[3], b[4], b[5]]).collect();
    assert_eq!(got, body);
}

pub(crate) fn fields_of_one_grid_with_boundaries_of_their_own(kind: Kind) {
    let state = check(
        kind,
        r#"
name = "mixed"
version = "0.1.0"
class = "exact"
grid = { shape = [13, 9, 7], tile = [4, 5, 3] }
[buffers.a]
element = "vec3<i32>"
boundary = "constant(7, -8, 9)"
[buffers.b]
element = "u32"
boundary = "wrap"
[buffers.c]
element = "u32"
[[passes]]
kernel = "k.wgsl"
entry = "mix"
reads = { a = { halo = 3 }, b = { halo = 1 }, c = { halo = 2 } }
writes = ["a", "b", "c"]
"#,
        r#"
var<storage, read> a: array<vec3<i32>>;
var<storage, read> b: array<u32>;
var<storage, read> c: array<u32>;
var<storage, read_write> a_next: array<vec3<i32>>;
var<storage, read_write> b_next: array<u32>;
var<storage, read_write> c_next: array<u32>;
@compute @workgroup_size(4, 2, 2) fn mix(@builtin(global_invocation_id) id: vec3<u32>) {
    let me = cell(id);
    if (!me.inside) { return; }
    let seed = me.coord.x + 13u * (me.coord.y + 9u * me.coord.z);
    a_next[me.index] = (a[at(me, 3, -2, 1)] + a[at(me, -3, 0, -3)] + vec3<i32>(i32(seed))) % 100;
    b_next[me.index] = (b[at(me, 1, 1, 1)] + b[at(me, -1, 0, 0)] + seed) % 97u;
    c_next[me.index] = (c[at(me, -2, 2, 0)] + c[at(me, 0, 0, 2)] + seed) % 89u;
}
"#,
        6,
    );
    let shape = [13i64, 9, 7];
    let index = |p: [i64; 3]| (p[0] + 13 * (p[1] + 9 * p[2])) as usize;
    let inside = |p: [i64; 3]| (0..3).all(|i| (0..shape[i]).contains(&p[i]));
    let mut a = vec![[0i32; 3]; 13 * 9 * 7];
    let (mut b, mut c) = (vec![0u32; a.len()], vec![0u32; a.len()]);
    for _ in 0..6 {
        let (mut na, mut nb, mut nc) = (a.clone(), b.clone(), c.clone());
        for z in 0..7 {
            for y in 0..9 {
                for x in 0..13 {
                    let by = |d: [i64; 3]| [x + d[0], y + d[1], z + d[2]];
                    let constant = |d| if inside(by(d)) { a[index(by(d))] } else { [7, -8, 9] };
                    let wrap = |d| b[index([0, 1, 2].map(|i| by(d)[i].rem_euclid(shape[i])))];
                    let clamp = |d| c[index([0, 1, 2].map(|i| by(d)[i].clamp(0, shape[i] - 1)))];
                    let at = index([x, y, z]);
                    let seed = at as u32;
                    let (p, q) = (constant([3, -2, 1]), constant([-3, 0, -3]));
                    na[at] = [0, 1, 2].map(|i| (p[i] + q[i] + seed as i32) % 100);
                    nb[at] = (wrap([1, 1, 1]) + wrap([-1, 0, 0]) + seed) % 97;
                    nc[at] = (clamp([-2, 2, 0]) + clamp([0, 0, 2]) + seed) % 89;
                }
            }
        }
        (a, b, c) = (na, nb, nc);
    }
    assert_eq!(state.words("b"), b);
    assert_eq!(state.words("c"), c);
    let got: Vec<[i32; 3]> = state.words("a").chunks_exact(4).map(|v| [v[0] as i32, v[1] as i32, v[2] as i32]).collect();
    assert_eq!(got, a);
}

pub(crate) fn what_a_pass_does_not_write_keeps_its_value(kind: Kind) {
    let state = check(
        kind,
        r#"
name = "partial"
version = "0.1.0"
class = "exact"
grid = { shape = [50, 30], tile = [16, 8] }
[buffers.v]
element = "u32"
[buffers.hits]
element = "u32"
[buffers.weights]
element = "u32"
length = 4
values = [3, 1, 4, 1]
[params]
step = [1, 2]
[[init]]
kernel = "k.wgsl"
entry = "seed"
writes = ["v"]
[[init]]
kernel = "k.wgsl"
entry = "sparse"
reads = { v = { halo = 1 }, weights = "all" }
writes = ["v"]
[[passes]]
kernel = "k.wgsl"
entry = "sparse"
reads = { v = { halo = 1 }, weights = "all" }
writes = ["v"]
[[passes]]
kernel = "k.wgsl"
entry = "count"
reads = ["v"]
writes = ["hits"]
"#,
        r#"
struct Params { step: vec2<u32> }
var<uniform> params: Params;
var<storage, read> v: array<u32>;
var<storage, read_write> v_next: array<u32>;
var<storage, read_write> hits_next: array<atomic<u32>>;
var<storage, read> weights: array<u32>;
@compute @workgroup_size(8, 8) fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (c.inside) { v_next[c.index] = c.coord.x * 3u + c.coord.y; }
}
@compute @workgroup_size(8, 8) fn sparse(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    if (v[c.index] % 3u == 0u) { v_next[c.index] = v[at(c, 1, 0, 0)] + v[at(c, 0, -1, 0)] * weights[c.coord.x % 4u] + params.step.y; }
}
@compute @workgroup_size(8, 8) fn count(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    if (v[c.index] % 2u == 0u) { atomicAdd(&hits_next[c.index], params.step.x); }
}
"#,
        5,
    );
    let (w, h) = (50i64, 30i64);
    let at = |x: i64, y: i64| (x.clamp(0, w - 1) + w * y.clamp(0, h - 1)) as usize;
    let mut v: Vec<u32> = (0..w * h).map(|i| (i % w * 3 + i / w) as u32).collect();
    let mut hits = vec![0u32; v.len()];
    let sparse = |v: &Vec<u32>| {
        let mut next = v.clone();
        for y in 0..h {
            for x in 0..w {
                if v[at(x, y)].is_multiple_of(3) {
                    next[at(x, y)] = v[at(x + 1, y)].wrapping_add(v[at(x, y - 1)].wrapping_mul([3, 1, 4, 1][x as usize % 4])).wrapping_add(2);
                }
            }
        }
        next
    };
    v = sparse(&v);
    for _ in 0..5 {
        v = sparse(&v);
        hits.iter_mut().zip(&v).for_each(|(hit, v)| *hit += u32::from(v % 2 == 0));
    }
    assert_eq!(state.words("v"), v);
    assert_eq!(state.words("hits"), hits);
}

pub(crate) fn reductions_of_vectors_and_signed_integers(kind: Kind) {
    let state = check(
        kind,
        r#"
name = "reduce"
version = "0.1.0"
class = "exact"
grid = { shape = [70, 11], tile = [16, 4] }
[buffers.f]
element = "i32"
[buffers.sums]
element = "vec3<i32>"
length = 2
reduce = "sum"
[buffers.low]
element = "i32"
length = 1
reduce = "min"
[buffers.high]
element = "i32"
length = 1
reduce = "max"
[[init]]
kernel = "k.wgsl"
entry = "seed"
writes = ["f"]
[[passes]]
kernel = "k.wgsl"
entry = "measure"
reads = ["f"]
writes = ["sums", "low", "high"]
[[passes]]
kernel = "k.wgsl"
entry = "feed"
reads = { sums = "all", low = "all", high = "all" }
writes = ["f"]
"#,
        r#"
var<storage, read> f: array<i32>;
var<storage, read_write> f_next: array<i32>;
var<storage, read> sums: array<vec3<i32>>;
var<storage, read_write> sums_next: array<vec3<i32>>;
var<storage, read> low: array<i32>;
var<storage, read_write> low_next: array<atomic<i32>>;
var<storage, read> high: array<i32, 1>;
var<storage, read_write> high_next: array<i32>;
var<workgroup> local: array<i32, 32>;
@compute @workgroup_size(8, 4) fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    f_next[c.index] = i32(c.coord.x * 31u + c.coord.y * 17u) % 200 - 150;
}
@compute @workgroup_size(8, 4) fn measure(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = cell(id);
    var mine = 0;
    if (c.inside) { mine = f[c.index]; atomicMin(&low_next[0], mine); }
    local[lane] = select(-2147483647, mine, c.inside);
    workgroupBarrier();
    if (lane == 0u) {
        var sum = 0;
        var most = -2147483647;
        for (var i = 0u; i < 32u; i++) { most = max(most, local[i]); if (local[i] != -2147483647) { sum += local[i]; } }
        sums_next[partial(c, 0u)] = vec3<i32>(sum, 1, -sum);
        sums_next[partial(c, 1u)] = vec3<i32>(most);
        high_next[partial(c, 0u)] = most;
    }
}
@compute @workgroup_size(8, 4) fn feed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    f_next[c.index] = (f_next[c.index] + sums[0].x / 7 + low[0] - high[0]) % 1000;
}
"#,
        4,
    );
    let mut f: Vec<i32> = (0..70 * 11).map(|i| (i % 70 * 31 + i / 70 * 17) % 200 - 150).collect();
    let (mut sum, mut low, mut high) = (0, 0, 0);
    for _ in 0..4 {
        (sum, low, high) = (f.iter().sum(), *f.iter().min().unwrap(), *f.iter().max().unwrap());
        f.iter_mut().for_each(|v| *v = (*v + sum / 7 + low - high) % 1000);
    }
    let signed = |name: &str| state.words(name).into_iter().map(|w| w as i32).collect::<Vec<_>>();
    assert_eq!(signed("f"), f);
    assert_eq!((signed("low")[0], signed("high")[0]), (low, high));
    let sums = signed("sums");
    // Workgroups of 8 by 4 in tiles of 16 by 4: 2 a tile, 5 by 3 tiles.
    assert_eq!((sums[0], sums[1], sums[2]), (sum, 30, -sum));
}

pub(crate) fn whole_reads_find_points_in_two_dimensions(kind: Kind) {
    let state = check(
        kind,
        r#"
name = "whole"
version = "0.1.0"
class = "exact"
grid = { shape = [19, 14], tile = [5, 4] }
[buffers.v]
element = "u32"
boundary = "wrap"
[[init]]
kernel = "k.wgsl"
entry = "seed"
writes = ["v"]
[[passes]]
kernel = "k.wgsl"
entry = "mirror"
reads = { v = "all" }
writes = ["v"]
[[passes]]
kernel = "k.wgsl"
entry = "slide"
reads = { v = { halo = 1 } }
writes = ["v"]
"#,
        r#"
var<storage, read> v: array<u32>;
var<storage, read_write> v_next: array<u32>;
@compute @workgroup_size(4, 4) fn seed(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    v_next[c.index] = c.coord.x + 100u * c.coord.y;
}
@compute @workgroup_size(4, 4) fn mirror(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    v_next[c.index] = v[locate(vec3<u32>(18u - c.coord.x, 13u - c.coord.y, 0u))];
}
@compute @workgroup_size(4, 4) fn slide(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    v_next[c.index] = v[at(c, -1, 1, 0)];
}
"#,
        3,
    );
    let mut v: Vec<u32> = (0..19 * 14).map(|i| i % 19 + 100 * (i / 19)).collect();
    for _ in 0..3 {
        v.reverse();
        v = (0..19 * 14i32).map(|i| v[((i % 19 - 1).rem_euclid(19) + 19 * (i / 19 + 1).rem_euclid(14)) as usize]).collect();
    }
    assert_eq!(state.words("v"), v);
}

pub(crate) fn whole_reads_see_the_grid_and_no_more(kind: Kind) {
    let state = check(
        kind,
        r#"
name = "length"
version = "0.1.0"
class = "exact"
grid = { shape = [53], tile = [7] }
[buffers.v]
element = "u32"
boundary = "constant(9)"
[buffers.w]
element = "u32"
boundary = "wrap"
[buffers.n]
element = "u32"
[[passes]]
kernel = "k.wgsl"
entry = "slide"
reads = { v = { halo = 2 }, w = { halo = 2 } }
writes = ["v", "w"]
[[passes]]
kernel = "k.wgsl"
entry = "count"
reads = { v = "all" }
writes = ["n"]
"#,
        r#"
var<storage, read> v: array<u32>;
var<storage, read_write> v_next: array<u32>;
var<storage, read> w: array<u32>;
var<storage, read_write> w_next: array<u32>;
var<storage, read_write> n_next: array<u32>;
@compute @workgroup_size(8) fn slide(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    v_next[c.index] = v[at(c, -2, 0, 0)];
    w_next[c.index] = w[at(c, 2, 0, 0)] + 1u;
}
@compute @workgroup_size(8) fn count(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var sum = 1000u * arrayLength(&v);
    for (var i = 0u; i < arrayLength(&v); i++) { sum += v[i]; }
    n_next[c.index] = sum;
}
"#,
        3,
    );
    // Nines come in from the left, two a tick; behind the grid's elements lie strips and the constant.
    assert_eq!(state.words("v"), (0..53).map(|x| if x < 6 { 9 } else { 0 }).collect::<Vec<_>>());
    assert_eq!((state.words("w"), state.words("n")), (vec![3; 53], vec![53 * 1000 + 6 * 9; 53]));
}

pub(crate) fn workgroups_wider_than_the_grid_count_no_element_twice(kind: Kind) {
    for (shape, tile, workgroup) in [("[30, 20]", "[10, 10]", "8, 8, 4"), ("[100]", "[25]", "16, 16"), ("[9, 8, 7]", "[4, 8, 3]", "2, 3, 5")] {
        let toml = format!(
            r#"
name = "count"
version = "0.1.0"
class = "exact"
grid = {{ shape = {shape}, tile = {tile} }}
[buffers.v]
element = "u32"
boundary = "wrap"
[buffers.n]
element = "u32"
length = 1
reduce = "sum"
[[passes]]
kernel = "k.wgsl"
entry = "step"
reads = {{ v = {{ halo = 1 }} }}
writes = ["v"]
[[passes]]
kernel = "k.wgsl"
entry = "count"
writes = ["n"]
"#
        );
        let wgsl = format!(
            r#"
var<storage, read> v: array<u32>;
var<storage, read_write> v_next: array<u32>;
var<storage, read_write> n_next: array<atomic<u32>>;
@compute @workgroup_size({workgroup}) fn step(@builtin(global_invocation_id) id: vec3<u32>) {{
    let c = cell(id);
    if (!c.inside) {{ return; }}
    v_next[c.index] = v[at(c, -1, 0, 0)] + 1u;
}}
@compute @workgroup_size({workgroup}) fn count(@builtin(global_invocation_id) id: vec3<u32>) {{
    let c = cell(id);
    if (!c.inside) {{ return; }}
    atomicAdd(&n_next[0], 1u);
}}
"#
        );
        let state = check(kind, &toml, &wgsl, 3);
        let points = state.words("v").len() as u32;
        assert_eq!(state.words("n"), [points], "{shape} by {workgroup}");
        assert!(state.words("v").iter().all(|&v| v == 3));
    }
}
