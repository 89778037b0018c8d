//! Operators and conversions: scalars and vectors of every length, whatever the operands.

use crate::cases::{Case, Row, check};

fn pairs(row: &Row) -> [(i32, i32); 4] {
    [0, 1, 2, 3].map(|at| (row.i[at], row.i[(at + 1) % 4]))
}

fn unsigned_pairs(row: &Row) -> [(u32, u32); 4] {
    [0, 1, 2, 3].map(|at| (row.u[at], row.u[(at + 1) % 4]))
}

fn each<A: Copy, const N: usize>(operands: [A; 4], operators: [fn(A) -> u32; N]) -> Vec<u32> {
    operators.iter().flat_map(|operator| operands.map(operator)).collect()
}

#[test]
fn integers() {
    let signed = [
        ("vec4<i32>", "x.i + x.i.yzwx"),
        ("vec4<i32>", "x.i - x.i.yzwx"),
        ("vec4<i32>", "x.i * x.i.yzwx"),
        ("vec4<i32>", "x.i / x.i.yzwx"),
        ("vec4<i32>", "x.i % x.i.yzwx"),
        ("vec4<i32>", "-x.i"),
        ("vec4<i32>", "~x.i"),
        ("vec4<i32>", "x.i & x.i.yzwx"),
        ("vec4<i32>", "x.i | x.i.yzwx"),
        ("vec4<i32>", "x.i ^ x.i.yzwx"),
        ("vec4<u32>", "select(vec4<u32>(0u), vec4<u32>(1u), x.i < x.i.yzwx)"),
        ("vec4<u32>", "select(vec4<u32>(0u), vec4<u32>(1u), x.i <= x.i.yzwx)"),
        ("vec4<u32>", "select(vec4<u32>(0u), vec4<u32>(1u), x.i > x.i.yzwx)"),
        ("vec4<u32>", "select(vec4<u32>(0u), vec4<u32>(1u), x.i >= x.i.yzwx)"),
        ("vec4<u32>", "select(vec4<u32>(0u), vec4<u32>(1u), x.i == x.i.yzwx)"),
        ("vec4<u32>", "select(vec4<u32>(0u), vec4<u32>(1u), x.i != x.i.yzwx)"),
    ];
    let unsigned = [
        ("vec4<u32>", "x.u + x.u.yzwx"),
        ("vec4<u32>", "x.u - x.u.yzwx"),
        ("vec4<u32>", "x.u * x.u.yzwx"),
        ("vec4<u32>", "x.u / x.u.yzwx"),
        ("vec4<u32>", "x.u % x.u.yzwx"),
        ("vec4<u32>", "~x.u"),
        ("vec4<u32>", "x.u & x.u.yzwx"),
        ("vec4<u32>", "x.u | x.u.yzwx"),
        ("vec4<u32>", "x.u ^ x.u.yzwx"),
        ("vec4<u32>", "vec4<u32>(x.u < x.u.yzwx)"),
        ("vec4<u32>", "vec4<u32>(x.u <= x.u.yzwx)"),
        ("vec4<u32>", "vec4<u32>(x.u > x.u.yzwx)"),
        ("vec4<u32>", "vec4<u32>(x.u >= x.u.yzwx)"),
        ("vec4<u32>", "vec4<u32>(x.u == x.u.yzwx)"),
        ("vec4<u32>", "vec4<u32>(x.u != x.u.yzwx)"),
    ];
    // By what a register holds, by constants, and by one for all.
    let scalars = [
        ("i32", "x.i.x / x.i.y"),
        ("i32", "x.i.x % x.i.y"),
        ("i32", "x.i.x / 7"),
        ("i32", "x.i.x % -7"),
        ("i32", "x.i.x / -1"),
        ("i32", "x.i.x % 8"),
        ("u32", "x.u.x / 16u"),
        ("u32", "x.u.x % 16u"),
        ("u32", "x.u.x / 10u"),
        ("u32", "x.u.x % 10u"),
        ("u32", "x.u.x / 1u + x.u.x % 1u"),
        ("vec2<i32>", "x.i.xy / x.i.z"),
        ("vec2<i32>", "x.i.z - x.i.xy"),
        ("vec3<u32>", "x.u.xyz % x.u.w"),
        ("vec3<u32>", "x.u.w / x.u.xyz"),
        ("vec3<i32>", "x.i.wzy * 3 + 5"),
        ("i32", "(x.i.x + 3) * 5 - 1 - x.i.x * 5"),
        ("u32", "(x.u.x + 0x80000000u) + 0x80000000u - x.u.x"),
        ("u32", "(x.u.x ^ x.u.x) | (x.u.y & x.u.y) | (x.u.z - x.u.z)"),
    ];
    let known_signed = |row: &Row| {
        each(
            pairs(row),
            [
                |(a, b)| a.wrapping_add(b) as u32,
                |(a, b)| a.wrapping_sub(b) as u32,
                |(a, b)| a.wrapping_mul(b) as u32,
                |(a, b)| a.checked_div(b).unwrap_or(a) as u32,
                |(a, b)| a.checked_rem(b).unwrap_or(0) as u32,
                |(a, _)| a.wrapping_neg() as u32,
                |(a, _)| !a as u32,
                |(a, b)| (a & b) as u32,
                |(a, b)| (a | b) as u32,
                |(a, b)| (a ^ b) as u32,
                |(a, b)| (a < b).into(),
                |(a, b)| (a <= b).into(),
                |(a, b)| (a > b).into(),
                |(a, b)| (a >= b).into(),
                |(a, b)| (a == b).into(),
                |(a, b)| (a != b).into(),
            ],
        )
    };
    let known_unsigned = |row: &Row| {
        each(
            unsigned_pairs(row),
            [
                |(a, b)| a.wrapping_add(b),
                |(a, b)| a.wrapping_sub(b),
                |(a, b)| a.wrapping_mul(b),
                |(a, b)| a.checked_div(b).unwrap_or(a),
                |(a, b)| a.checked_rem(b).unwrap_or(0),
                |(a, _)| !a,
                |(a, b)| a & b,
                |(a, b)| a | b,
                |(a, b)| a ^ b,
                |(a, b)| (a < b).into(),
                |(a, b)| (a <= b).into(),
                |(a, b)| (a > b).into(),
                |(a, b)| (a >= b).into(),
                |(a, b)| (a == b).into(),
                |(a, b)| (a != b).into(),
            ],
        )
    };
    check(&[
        Case::fields("signed", "", &signed).known(known_signed),
        Case::fields("unsigned", "", &unsigned).known(known_unsigned),
        Case::fields("scalars and constants", "", &scalars),
    ]);
}

#[test]
fn shifts() {
    let data = [
        ("vec4<u32>", "x.u << (x.u.yzwx & vec4<u32>(31u))"),
        ("vec4<u32>", "x.u >> (x.u.yzwx & vec4<u32>(31u))"),
        ("vec4<i32>", "x.i << (x.u & vec4<u32>(31u))"),
        ("vec4<i32>", "x.i >> (x.u & vec4<u32>(31u))"),
        ("u32", "x.u.x << 31u"),
        ("i32", "x.i.x >> 31u"),
        ("i32", "(x.i.x << 3u) << 4u"),
        ("u32", "(x.u.x >> 7u) << 7u"),
    ];
    // Amounts count modulo 32; SPIR-V says nothing of larger ones, and naga hands them on.
    let large = [("vec4<u32>", "x.u << x.u.yzwx"), ("vec4<u32>", "x.u >> x.u.yzwx"), ("vec4<i32>", "x.i << x.u"), ("vec4<i32>", "x.i >> x.u")];
    check(&[
        Case::fields("amounts below 32", "", &data),
        Case::fields("amounts from data", "", &large).apart().known(|row| {
            let (u, i) = (row.u, row.i);
            let lanes = [0, 1, 2, 3];
            let shifts: [&dyn Fn(usize) -> u32; 4] = [
                &|at| u[at].wrapping_shl(u[(at + 1) % 4]),
                &|at| u[at].wrapping_shr(u[(at + 1) % 4]),
                &|at| i[at].wrapping_shl(u[at]) as u32,
                &|at| i[at].wrapping_shr(u[at]) as u32,
            ];
            shifts.iter().flat_map(|shift| lanes.map(shift)).collect()
        }),
    ]);
}

#[test]
fn floats() {
    let vectors = [
        ("vec4<f32>", "x.f + x.g"),
        ("vec4<f32>", "x.f - x.g"),
        ("vec4<f32>", "x.f * x.g"),
        ("vec4<f32>", "-x.f"),
        ("vec3<f32>", "x.f.xyz * x.g.w"),
        ("vec3<f32>", "x.f.w - x.g.xyz"),
        ("vec2<f32>", "x.f.zw + 0.5"),
        ("vec2<f32>", "2.0 * x.f.yx"),
        ("vec4<u32>", "vec4<u32>(x.f < x.g)"),
        ("vec4<u32>", "vec4<u32>(x.f <= x.g)"),
        ("vec4<u32>", "vec4<u32>(x.f > x.g)"),
        ("vec4<u32>", "vec4<u32>(x.f >= x.g)"),
        ("vec4<u32>", "vec4<u32>(x.f == x.g)"),
        ("vec4<u32>", "vec4<u32>(x.f != x.g)"),
        ("vec4<u32>", "vec4<u32>(!(x.f < x.g))"),
        ("u32", "u32(x.f.x != x.f.x) + u32(x.f.y == x.f.y) * 2u"),
    ];
    // A GPU may fuse what it likes.
    let fused = [("f32", "x.f.x * x.f.x - x.g.x * x.g.y + x.f.z"), ("vec3<f32>", "x.f.xyz * x.g.w + x.g.xyz")];
    let quotients = [("vec4<f32>", "x.f / x.g"), ("vec3<f32>", "x.f.xyz / x.g.w"), ("f32", "1.0 / x.f.x"), ("f32", "x.f.x / 3.0")];
    // Division is good to 2.5 units in the last place, and so is a remainder to 2.5 of the quotient's times the divisor.
    let remainders = [("vec4<f32>", "(x.f * 0.01) % (abs(x.g) + 0.5)"), ("f32", "(x.f.x * 0.01) % 2.5")];
    check(&[
        Case::fields("sums, products and comparisons", "", &vectors),
        Case::fields("sums of products", "", &fused).within(1e-6, 1e-3),
        Case::fields("quotients", "", &quotients).within(4e-7, 0.0),
        Case::fields("remainders", "", &remainders).apart(),
    ]);
}

/// A NaN that is computed leaves a kernel as one NaN, whichever way it goes through the kernel's own memory.
#[test]
fn nans_leave_as_one() {
    let text = "
struct Box { a: array<f32, 5>, v: vec3<f32> }
var<private> kept: array<f32, 5>;
fn none(x: Given) -> f32 { return (x.f.x - x.f.x) / (x.f.y - x.f.y) * -1.0; }
fn made(x: Given) -> f32 { return bitcast<f32>(x.u.x | 0xffc00000u) + x.f.x; }
fn through_array(v: f32, at: u32) -> f32 { var a = array<f32, 5>(); a[at % 5u] = v; return a[at % 5u]; }
fn through_private(v: f32, at: u32) -> f32 { kept[at % 5u] = -v; return kept[at % 5u]; }
fn through_struct(v: f32, at: u32) -> Box { var b: Box; b.a[at % 5u] = v; b.v[at % 3u] = v * 2.0; return b; }
fn through_let(v: f32, at: u32) -> f32 { let a = array<f32, 5>(v, v + 1.0, -v, v, v * v); return a[at % 5u]; }
fn through_matrix(v: f32, at: u32) -> f32 { var m = mat2x2<f32>(v, v, v, v); m[at % 2u][at % 2u] = -v; return m[at % 2u][at % 2u]; }";
    let fields = [
        ("f32", "none(x)"),
        ("f32", "made(x)"),
        ("f32", "through_array(made(x), at)"),
        ("f32", "through_private(made(x), at)"),
        ("f32", "through_struct(made(x), at).a[at % 5u]"),
        ("f32", "through_struct(made(x), at).v[at % 3u]"),
        ("f32", "through_let(made(x), at)"),
        ("f32", "through_matrix(made(x), at)"),
        ("u32", "bitcast<u32>(through_array(made(x), at))"),
        ("u32", "bitcast<u32>(through_private(-made(x), at))"),
        ("u32", "bitcast<vec2<u32>>(through_struct(made(x), at).v.xy)[at % 3u % 2u] | select(0u, 0x7fc00000u, at % 3u != 1u && at % 3u != 0u)"),
        ("f32", "constant()"),
        ("u32", "bitcast<u32>(constant())"),
        ("f32", "-constant()"),
        ("f32", "abs(made(x)) + min(made(x), made(x))"),
    ];
    let folded = "fn constant() -> f32 { var zero = 0.0; let none = zero / zero; return -none; }";
    check(&[Case::fields("nan", &format!("{text}\n{folded}"), &fields).apart().known(|_| vec![0x7fc0_0000; 15])]);
}

#[test]
fn conversions() {
    // Beyond the integers naga stops at the last f32 within them on a GPU; WGSL, and the cpu, at the last integer.
    let large = [
        ("vec4<i32>", "vec4<i32>(x.f)"),
        ("vec4<u32>", "vec4<u32>(x.f)"),
        ("vec4<i32>", "vec4<i32>(x.f * 1e6)"),
        ("vec4<u32>", "vec4<u32>(x.f * 1e6)"),
    ];
    let to_floats = [("vec4<f32>", "vec4<f32>(x.i)"), ("vec4<f32>", "vec4<f32>(x.u)")];
    let others = [
        ("vec4<i32>", "vec4<i32>(x.f)"),
        ("vec4<u32>", "vec4<u32>(x.f)"),
        ("i32", "i32(x.f.x)"),
        ("u32", "u32(x.f.y)"),
        ("vec4<u32>", "vec4<u32>(x.i)"),
        ("vec4<i32>", "vec4<i32>(x.u)"),
        ("vec4<u32>", "vec4<u32>(vec4<bool>(x.i))"),
        ("vec4<u32>", "vec4<u32>(vec4<bool>(x.u))"),
        ("vec4<u32>", "vec4<u32>(vec4<bool>(x.f))"),
        ("vec4<f32>", "vec4<f32>(x.f < x.g)"),
        ("vec4<i32>", "vec4<i32>(x.f < x.g)"),
        ("f32", "f32(x.u.x > 3u) + f32(x.i.x)"),
        ("vec4<f32>", "bitcast<vec4<f32>>(x.u & vec4<u32>(0xbfffffffu))"),
        ("vec4<u32>", "bitcast<vec4<u32>>(x.i)"),
        ("vec4<i32>", "bitcast<vec4<i32>>(x.f)"),
        ("vec2<u32>", "bitcast<vec2<u32>>(x.f.xy)"),
        ("vec3<f32>", "bitcast<vec3<f32>>(x.i.xyz & vec3<i32>(0x3fffffff))"),
        ("i32", "bitcast<i32>(x.u.x)"),
        ("u32", "bitcast<u32>(x.f.x * 2.0)"),
        ("f32", "bitcast<f32>(bitcast<u32>(x.f.x) ^ 0x80000000u)"),
    ];
    check(&[
        Case::fields("conversions", "", &others),
        Case::fields("to integers", "", &large).apart().known(|row| {
            let large = row.f.map(|f| f * 1e6);
            let signed = |f: [f32; 4]| f.map(|f| f as i32 as u32);
            [signed(row.f), row.f.map(|f| f as u32), signed(large), large.map(|f| f as u32)].concat()
        }),
        Case::fields("to floats", "", &to_floats).known(|row| [row.i.map(|i| (i as f32).to_bits()), row.u.map(|u| (u as f32).to_bits())].concat()),
    ]);
}

#[test]
fn truth() {
    let fields = [
        ("vec4<u32>", "vec4<u32>(vec4<bool>(x.u & vec4<u32>(1u)) | (x.i > vec4<i32>(0)))"),
        ("vec4<u32>", "vec4<u32>(vec4<bool>(x.u & vec4<u32>(1u)) & (x.i > vec4<i32>(0)))"),
        ("vec4<u32>", "vec4<u32>((x.u > vec4<u32>(9u)) == (x.i > vec4<i32>(0)))"),
        ("vec4<u32>", "vec4<u32>((x.u > vec4<u32>(9u)) != (x.i > vec4<i32>(0)))"),
        ("u32", "u32(all(x.u > vec4<u32>(9u))) | u32(any(x.u > vec4<u32>(99u))) << 1u"),
        ("u32", "u32(all(x.u.xy > vec2<u32>(9u))) | u32(any(x.i.xyz < vec3<i32>(0))) << 1u | u32(all(x.u.x > 3u)) << 2u"),
        ("u32", "u32(x.u.x > 5u && x.u.y > 5u) | u32(x.u.z > 5u || x.u.w > 5u) << 1u | u32(!(x.i.x > 0)) << 2u"),
        ("vec4<f32>", "select(x.f, x.g, x.u > x.u.yzwx)"),
        ("vec4<f32>", "select(x.f, x.g, x.u.x > x.u.y)"),
        ("vec3<i32>", "select(x.i.xyz, x.i.yzw, vec3<bool>(true, x.u.x > 7u, false))"),
        ("u32", "select(1u, 2u, x.f.x < x.g.x) + select(0u, 4u, true) + select(8u, 0u, x.u.x == x.u.x)"),
        ("u32", "u32(select(x.u.x > 3u, x.u.y > 3u, x.u.z > 3u)) + 2u * u32(select(true, x.u.y > 3u, x.u.z > 3u))"),
        ("u32", "u32(select(x.u.x > 3u, false, x.u.z > 3u)) + 2u * u32(select(false, x.u.y > 3u, x.u.z > 3u))"),
        ("u32", "u32(select(x.u.x > 3u, true, x.u.z > 3u)) + 2u * u32(true != (x.u.y > 3u)) + 4u * u32(false == (x.u.y > 3u))"),
    ];
    check(&[Case::fields("truth", "", &fields)]);
}

/// What the builder does to sums and quotients of ids must not show, however far they wrap.
#[test]
fn ids_that_wrap() {
    let text = "
struct Made { a: u32, b: u32, c: u32, d: u32 }
@compute @workgroup_size(8) fn wrap(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let far = group.x * 0x50000000u + (given[c.coord.x].u.x & 7u);
    let near = group.x * 24u + (given[c.coord.x].u.y & 7u);
    made_next[c.index] = Made(far / 16u, far % 16u, near / 12u, near % 24u);
}
@compute @workgroup_size(8) fn threes(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let far = group.x * 0xc0000000u + (given[c.coord.x].u.x & 1u);
    made_next[c.index] = Made(far / 3u, far % 3u, far % 12u, far / 48u);
}";
    check(&[Case::whole("wrapping ids", &[40], &["wrap", "threes"], text)]);
}
