//! Variables in every memory: structs and arrays in each other, parts by known and unknown index, pointers to them.

use crate::cases::{Case, check};

/// Structs with padding, in each other.
const STRUCTS: &str = "
struct Inner { place: vec3<f32>, mass: f32, tag: vec2<u32>, level: i32 }
struct Outer { first: u32, inner: Inner, list: array<Inner, 3>, rows: array<array<vec2<i32>, 3>, 2>, last: vec3<u32> }";

#[test]
fn structs() {
    let storage = "
struct Made { whole: Outer, one: Inner, word: f32, two: vec2<i32>, sum: u32 }
fn make(x: Given, at: u32) -> Made {
    var made: Made;
    made.whole = x.outer;
    made.one = x.outer.list[x.index % 3u];
    made.word = x.outer.list[(x.index + 1u) % 3u].place[x.index % 3u];
    made.two = x.outer.rows[x.index % 2u][x.index % 3u];
    made.whole.list[x.index % 3u].place.y = 9.0;
    made.whole.inner = x.outer.list[1];
    made.whole.rows[1] = x.outer.rows[x.index % 2u];
    made.whole.rows[0][x.index % 3u].x += 3;
    made.sum = made.whole.first + made.whole.last.z + made.one.tag.y;
    return made;
}";
    let function = "
struct Made { whole: Outer, copy: Inner, sum: i32, zero: Inner }
fn filled(x: Given, at: u32) -> Outer {
    let inner = Inner(x.outer.inner.place.zxy, 4.0, vec2<u32>(at, 7u), -3);
    var list = array<Inner, 3>(inner, x.outer.list[0], inner);
    list[at % 3u].level = i32(at);
    return Outer(at, inner, list, array<array<vec2<i32>, 3>, 2>(), vec3<u32>(1u, 2u, at));
}
fn changed(outer: Outer) -> Outer { var o = outer; o.inner.mass += 1.0; o.rows[1][2] = vec2<i32>(5, 6); return o; }
fn make(x: Given, at: u32) -> Made {
    var outer = filled(x, at);
    let before = outer;
    outer = changed(outer);
    var zero: Inner;
    let copy = outer.list[at % 3u];
    outer.list[at % 3u] = before.inner;
    return Made(outer, copy, before.rows[1][2].x + outer.rows[1][2].y + copy.level, zero);
}";
    let private = "
struct Made { whole: Outer, again: Inner, counted: u32, flags: vec4<u32> }
var<private> kept: Outer;
var<private> counter: u32 = 3u;
var<private> start: array<vec3<i32>, 4> = array<vec3<i32>, 4>(vec3<i32>(1), vec3<i32>(1, 2, 3), vec3<i32>(), vec3<i32>(7));
var<private> flags: array<bool, 5>;
var<private> flag: bool = true;
fn count() -> u32 { counter += 2u; return counter; }
fn keep(x: Given) { kept = x.outer; kept.inner.level += start[x.index % 4u].y; }
fn make(x: Given, at: u32) -> Made {
    keep(x);
    flags[x.index % 5u] = x.outer.first > 3u;
    flags[(x.index + 1u) % 5u] = !flags[x.index % 5u] && flag;
    flag = flags[at % 5u];
    start[1][x.index % 3u] = i32(count()) + i32(count());
    kept.list[at % 3u].level = start[1].y + start[1].z;
    let again = kept.list[at % 3u];
    kept.list[1].mass = f32(count());
    return Made(kept, again, counter, vec4<u32>(u32(flag), u32(flags[0]), u32(flags[1]), u32(flags[at % 5u])));
}";
    let uniform = "
struct Made { whole: Plain, part: vec3<f32>, word: f32, row: vec4<i32>, number: u32 }
struct Plain { place: vec3<f32>, mass: f32, column: mat3x2<f32>, rows: array<vec4<i32>, 3>, last: u32 }
fn make(x: Given, at: u32) -> Made {
    let p = params.plain;
    return Made(p, params.list[x.index % 2u].place, params.list[at % 2u].column[x.index % 3u][at % 2u], p.rows[at % 3u] + params.plain.rows[x.index % 3u], params.list[1].last);
}";
    let values = "plain = { place = [1, 2, 3], mass = 4, column = [[1, 2], [3, 4], [5, 6]], rows = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, -12]], last = 7 }
list = [{ place = [1, 2, 3], mass = 4, column = [[1, 2], [3, 4], [5, 6]], rows = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, -12]], last = 8 }, { place = [-1, 2.5, 3], mass = 4, column = [[1, 2], [3, 4.25], [5, 6]], rows = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, -12]], last = 9 }]";
    let given = format!("{STRUCTS}\nstruct Given {{ outer: Outer, index: u32 }}");
    check(&[
        Case::of("storage", storage).given(&given),
        Case::of("function", function).given(&given),
        Case::of("private", private).given(&given),
        Case::brief("uniform", uniform)
            .given("struct Given { index: u32 }")
            .params("plain: Plain, @align(16) list: array<Plain, 2>", values)
            // The SPIR-V writer of naga 29 panics on a matrix of two rows in a uniform struct.
            .apart(),
    ]);
}

#[test]
fn arrays() {
    let table: Vec<String> = (0..100).map(|at| format!("{}u", (at * 37 + 11) % 101)).collect();
    let text = format!(
        "
const SMALL = array<i32, 5>(3, -1, 4, 1, -5);
const LARGE = array<u32, 100>({});
const PAIRS = array<vec3<f32>, 6>(vec3<f32>(1.0, 2.0, 3.0), vec3<f32>(4.0), vec3<f32>(), vec3<f32>(-1.0), vec3<f32>(0.5, 0.25, 0.125), vec3<f32>(9.0));
const FLAGS = array<bool, 7>(true, false, false, true, true, false, true);
const ROWS = array<array<u32, 3>, 6>(array<u32, 3>(1u, 2u, 3u), array<u32, 3>(4u, 5u, 6u), array<u32, 3>(7u, 8u, 9u), array<u32, 3>(10u, 11u, 12u), array<u32, 3>(), array<u32, 3>(1u, 1u, 2u));
struct Body {{ place: vec2<f32>, on: bool, mass: u32 }}
fn sum(list: array<u32, 9>, most: u32) -> u32 {{ var s = 0u; for (var k = 0u; k < most; k++) {{ s = s * 3u + list[k]; }} return s; }}
fn reversed(list: array<u32, 9>) -> array<u32, 9> {{ var r: array<u32, 9>; for (var k = 0u; k < 9u; k++) {{ r[8u - k] = list[k]; }} return r; }}
fn made(x: Given) -> array<u32, 9> {{ return array<u32, 9>(x.u.x, x.u.y, 3u, x.u.z, x.u.w, 6u, x.u.x ^ x.u.y, 8u, 9u); }}
fn sorted(x: Given) -> array<i32, 12> {{
    var list = array<i32, 12>(x.i.x, x.i.y, x.i.z, x.i.w, 3, -7, i32(x.u.x), 0, x.i.x / 3, 99, x.i.y % 10, -1);
    for (var a = 1; a < 12; a++) {{
        let value = list[a];
        var b = a;
        while (b > 0 && list[b - 1] > value) {{ list[b] = list[b - 1]; b--; }}
        list[b] = value;
    }}
    return list;
}}
fn flags(x: Given, at: u32) -> u32 {{
    var f: array<bool, 40>;
    for (var k = at % 5u; k < 40u; k += 1u + x.u.x % 7u) {{ f[k] = !f[(k * 3u) % 40u]; }}
    var bits = 0u;
    for (var k = 0u; k < 40u; k++) {{ bits = (bits << 1u) ^ select(0u, 0x9003u, f[k]) ^ (bits >> 31u); }}
    return bits;
}}
fn structs(x: Given, at: u32) -> f32 {{
    let bodies = array<Body, 5>(Body(x.f.xy, true, 1u), Body(x.f.zw, x.u.x > 4u, 2u), Body(x.g.xy, false, 3u), Body(x.g.zw, true, 4u), Body(vec2<f32>(), true, 5u));
    let one = bodies[x.u.x % 5u];
    return select(one.place.x, bodies[at % 5u].place.y, one.on) + f32(bodies[(at + 1u) % 5u].mass);
}}
fn large(x: Given, at: u32) -> u32 {{
    var a: array<u32, 700>;
    var b: array<array<vec2<u32>, 20>, 10>;
    for (var k = 0u; k < 64u; k++) {{ a[(k * 37u + x.u.x) % 700u] += k; b[k % 10u][(k + at) % 20u].y += a[(k * 11u) % 700u] + 1u; }}
    let copy = a;
    var s = 0u;
    for (var k = 0u; k < 700u; k += 13u) {{ s = s * 5u + copy[k] + b[k % 10u][k % 20u].y; }}
    return s;
}}
",
        table.join(", ")
    );
    let fields = [
        ("i32", "SMALL[x.u.x % 5u]"),
        ("u32", "LARGE[x.u.y % 100u] + LARGE[99u - x.u.z % 100u]"),
        ("vec3<f32>", "PAIRS[at % 6u] + PAIRS[x.u.x % 6u].zyx"),
        ("f32", "PAIRS[at % 6u][x.u.x % 3u]"),
        ("u32", "u32(FLAGS[at % 7u]) + u32(FLAGS[x.u.x % 7u]) * 2u"),
        ("u32", "ROWS[at % 6u][x.u.x % 3u] + ROWS[3][at % 3u] + ROWS[x.u.y % 6u][1]"),
        ("u32", "made(x)[at % 9u]"),
        ("u32", "sum(made(x), 1u + x.u.x % 9u)"),
        ("u32", "sum(reversed(made(x)), 9u)"),
        ("array<i32, 12>", "sorted(x)"),
        ("u32", "flags(x, at)"),
        ("f32", "structs(x, at)"),
        ("u32", "large(x, at)"),
        ("i32", "array<i32, 4>(x.i.x, x.i.y, x.i.z, x.i.w)[at % 4u]"),
        ("f32", "x.f[at % 4u] + x.g[x.u.x % 4u]"),
        ("u32", "array<u32, 3>(1u, 2u, 3u)[x.u.x % 3u] + array<u32, 70>()[x.u.x % 70u]"),
    ];
    check(&fields.iter().map(|f| Case::fields(f.1, &text, &[*f])).collect::<Vec<_>>());
}

#[test]
fn pointers() {
    let text = "
struct Pair { a: vec3<i32>, b: array<i32, 6>, c: mat2x2<f32> }
struct Made { pair: Pair, vector: vec4<f32>, number: i32, words: array<i32, 6>, flag: u32, mixed: u32 }
var<private> own: Pair;
var<private> total: i32;
fn add(to: ptr<function, i32>, by: i32) -> i32 { let before = *to; *to += by; return before; }
fn bump(v: ptr<function, vec3<i32>>, at: u32) { (*v)[at % 3u] += 10; (*v).y -= 1; }
fn fill(list: ptr<function, array<i32, 6>>, from_: i32) { for (var k = 0; k < 6; k++) { (*list)[k] = from_ + k * k; } }
fn touch(p: ptr<function, Pair>, at: u32) {
    let b = &(*p).b;
    (*b)[at % 6u] = -1;
    fill(b, (*p).a.x);
    bump(&(*p).a, at);
    (*p).c[at % 2u] = vec2<f32>(1.5, 2.5);
    (*p).b[(at + 1u) % 6u] *= 2;
}
fn in_private(p: ptr<private, Pair>, at: u32) { (*p).b[at % 6u] += 5; (*p).a = (*p).a.zyx; }
fn count(p: ptr<private, i32>) -> i32 { *p += 1; return *p; }
fn turned(p: ptr<function, bool>) -> bool { *p = !*p; return *p; }
fn swap(a: ptr<function, u32>, b: ptr<function, u32>) { let t = *a; *a = *b; *b = t; }
fn make(x: Given, at: u32) -> Made {
    var made: Made;
    var n = x.i.x;
    let first = add(&n, 3) + add(&n, x.i.y);
    made.pair.a = x.i.xyz;
    touch(&made.pair, at);
    own = made.pair;
    in_private(&own, at);
    in_private(&own, at + 1u);
    made.words = own.b;
    made.number = n ^ first ^ own.a.x ^ (count(&total) + count(&total) * 7);
    var v = x.f;
    let p = &v;
    (*p).x = 2.0;
    let q = &v;
    (*q)[at % 4u] += 0.5;
    p.w = v.x + q.y;
    made.vector = v;
    var f = x.u.x > 3u;
    made.flag = u32(turned(&f)) + 2u * u32(f) + 4u * u32(turned(&f));
    var (left, right) = 0;
    swap(&left, &right);
    for (var k = 0u; k < at % 4u; k++) { swap(&left, &right); left += k; }
    made.mixed = left * 3u + right;
    return made;
}"
    .replace("var (left, right) = 0;", "var left = x.u.x; var right = x.u.y;");
    // The SPIR-V writer of naga 29 panics on a pointer to a part that a function takes.
    check(&[Case::of("pointers", &text).apart()]);
}

#[test]
fn what_is_out_of_range_stays_within() {
    let text = "
struct Guarded { before: u32, list: array<u32, 5>, between: vec3<u32>, rows: array<vec2<u32>, 6>, after: u32 }
struct Made { read: vec4<u32>, kept: vec4<u32>, changed: vec2<u32>, storage: vec4<u32>, uniform_: vec2<u32> }
var<private> own: Guarded;
fn fresh() -> Guarded {
    return Guarded(77u, array<u32, 5>(100u, 101u, 102u, 103u, 104u), vec3<u32>(1u, 2u, 3u),
        array<vec2<u32>, 6>(vec2<u32>(200u), vec2<u32>(201u), vec2<u32>(202u), vec2<u32>(203u), vec2<u32>(204u), vec2<u32>(205u)), 88u);
}
fn is_of(value: u32, first: u32, count: u32) -> u32 { return u32(value >= first && value < first + count); }
fn differences(g: Guarded) -> u32 {
    let f = fresh();
    var n = 0u;
    for (var k = 0; k < 5; k++) { n += u32(g.list[k] != f.list[k]); }
    for (var k = 0; k < 6; k++) { n += u32(g.rows[k].x != f.rows[k].x) + u32(g.rows[k].y != f.rows[k].y); }
    return n;
}
fn kept(g: Guarded) -> u32 { return u32(g.before == 77u && g.after == 88u && all(g.between == vec3<u32>(1u, 2u, 3u))); }
fn is_a_row(value: u32) -> u32 {
    for (var k = 0u; k < arrayLength(&given); k++) { if (given[k].u.y == value) { return 1u; } }
    return 0u;
}
fn make(x: Given, at: u32) -> Made {
    var made: Made;
    var g = fresh();
    own = fresh();
    let table = array<u32, 9>(300u, 301u, 302u, 303u, 304u, 305u, 306u, 307u, 308u);
    made.read = vec4<u32>(is_of(g.list[x.i.x], 100u, 5u), is_of(own.rows[x.u.x].y, 200u, 6u), is_of(g.between[x.u.y], 1u, 3u), is_of(table[x.i.y], 300u, 9u));
    g.list[x.u.x] = 5u;
    own.rows[x.i.y].x = 6u;
    made.kept = vec4<u32>(kept(g), kept(own), u32(g.list[x.u.x] == 5u), u32(own.rows[x.i.y].x == 6u));
    made.changed = vec2<u32>(differences(g), differences(own));
    made.storage = vec4<u32>(is_a_row(given[x.u.x].u.y), is_a_row(given[x.i.x].u[1]), is_a_row(given[at + 1000u].u.y), is_a_row(given[x.u.z * 0x01000001u].u.y));
    made.uniform_ = vec2<u32>(is_of(params.list[x.u.x].x, 400u, 3u), is_of(params.list[x.i.x][1], 500u, 3u));
    return made;
}";
    let entry = "
@compute @workgroup_size(16) fn each(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    made_next[c.index] = make(given[c.index], c.coord.x);
}
@compute @workgroup_size(4, 3) fn rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var x = given[c.index];
    // Below nothing along y, and along x: what a stencil does at its edge.
    x.u.x = lane.y - 1u;
    x.i.y = i32(lane.x) - 2;
    made_next[c.index] = make(x, lane.y * 20u);
}";
    let case = Case::whole("out of range", &[61], &["each", "rows"], &format!("{text}{entry}"))
        .params("list: array<vec4<u32>, 3>", "list = [[400, 500, 0, 0], [401, 501, 0, 0], [402, 502, 0, 0]]");
    check(&[case.apart().known(|_| vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])]);
}

#[test]
fn names_and_constants() {
    let text = "
override depth: u32 = 3u;
override factor: f32 = 1.5;
override is_on: bool = true;
override derived: i32 = i32(depth) * 2 - 1;
const WIDTH = 4u + 3u * 2u;
const HALF = 1.0 / 2.0;
const BITS = (1u << 5u) | 0x3u;
const LIST = array<i32, WIDTH / 2u>(1, 2, 3, 4, 5);
const VECTOR = vec3<f32>(HALF) * 3.0;
const TRUTH = WIDTH > 9u && !(HALF > 1.0);
const_assert TRUTH;
alias Number = i32;
alias Row = array<Number, 3>;
fn shadow(x: Number) -> Number {
    var y = x;
    { let x = y * 2; y += x; { let y = 5; _ = y; } var z = y; y = z + x; }
    for (var x = 0; x < 3; x++) { let y2 = y; y = y2 + x; }
    if (y > 3) { let y = 1; _ = y; } else { var y = 2; y++; }
    return y + x;
}
fn first(row: Row) -> Number { return row[1] - row[0]; }
fn compound(x: Given, at: u32) -> vec4<i32> {
    var v = x.i;
    v += vec4<i32>(1); v -= x.i.yzwx; v *= 3; v.x /= 7; v.y %= 5; v.z &= 0xff; v.w |= 0x100; v.x ^= 3; v.y <<= 2u; v.z >>= 1u;
    v[at % 4u]++; v[(at + 1u) % 4u]--;
    var i = 0;
    var list = array<i32, 4>(1, 2, 3, 4);
    i++;
    list[i] += 10; list[next(&i)] *= 5; list[next(&i) % 4] -= i;
    return v + vec4<i32>(list[0], list[1], list[2], list[3]);
}
fn next(i: ptr<function, i32>) -> i32 { *i += 1; return *i; }
fn overridden(x: Given) -> f32 {
    var sum = 0.0;
    for (var k = 0u; k < depth; k++) { sum += x.f.x * factor; }
    if (is_on) { sum += f32(derived); }
    return sum;
}";
    let fields = [
        ("i32", "shadow(x.i.x % 1000)"),
        ("vec4<i32>", "compound(x, at)"),
        ("f32", "overridden(x)"),
        ("i32", "array<i32, 3>(x.i.x, LIST[4], Number(BITS))[at % 3u] + first(Row(1, x.i.x, 2))"),
        ("u32", "BITS + WIDTH + x.u.x + u32(LIST[x.u.x % 5u])"),
        ("vec3<f32>", "VECTOR * x.f.xyz"),
        ("vec4<f32>", "vec4<f32>(x.f.xy, vec2<f32>(1.0, f32(WIDTH)))"),
        ("vec4<f32>", "vec4<f32>(x.f.x, x.f.yz, HALF).wzyx.xxyy"),
        ("vec3<u32>", "vec3<u32>(x.u.xy, 1u).zzx + vec3(2u)"),
        ("vec2<f32>", "x.f.rg * x.g.ba"),
    ];
    // A GPU may fuse what is multiplied and added up.
    let case = |f: &(&str, &str)| {
        if f.1.starts_with("overridden") { Case::fields(f.1, text, &[*f]).within(1e-6, 0.0) } else { Case::fields(f.1, text, &[*f]) }
    };
    check(&fields.iter().map(case).collect::<Vec<_>>());
}
