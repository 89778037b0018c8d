//! Every built-in function, in its domain against the GPU and everywhere between the cpu's two ways; tolerances are
//! those of WGSL 15.7.4, "Floating Point Accuracy", unless they are tighter.

use crate::cases::{Case, Row, check};

/// Numbers from -1 to 1, and above 0.
const DOMAINS: &str = "
fn unit(x: Given) -> vec4<f32> { return fract(x.f * 0.375) * 2.0 - 1.0; }
fn above(x: Given) -> vec4<f32> { return abs(x.f) + 0.125; }";

#[test]
fn rounding_and_choosing() {
    let fields = [
        ("vec4<f32>", "abs(x.f)"),
        ("vec4<f32>", "ceil(x.f)"),
        ("vec4<f32>", "floor(x.f)"),
        ("vec4<f32>", "round(x.f)"),
        ("vec4<f32>", "round(x.f) + round(floor(x.f) + 0.5)"),
        ("vec4<f32>", "trunc(x.f)"),
        ("vec4<f32>", "fract(x.f)"),
        ("vec4<f32>", "sign(x.f)"),
        ("vec4<f32>", "min(x.f, x.g)"),
        ("vec4<f32>", "max(x.f, x.g)"),
        ("vec4<f32>", "clamp(x.f, vec4<f32>(-2.0), abs(x.g))"),
        ("vec3<f32>", "saturate(x.f.xyz)"),
        ("vec4<f32>", "step(x.f, x.g)"),
        ("f32", "sign(x.f.x) * abs(x.g.y) + floor(x.g.z)"),
        ("vec2<f32>", "clamp(x.f.xy, vec2<f32>(0.0), vec2<f32>(1.0))"),
        ("vec2<f32>", "modf(x.f.xy).fract"),
        ("vec2<f32>", "modf(x.f.xy).whole"),
        ("f32", "modf(x.f.z).fract + modf(x.f.w).whole"),
        ("vec4<f32>", "frexp(x.f).fract"),
        ("vec4<i32>", "frexp(x.f).exp"),
        ("f32", "frexp(x.g.x).fract"),
        ("i32", "frexp(x.g.x).exp"),
        ("vec4<f32>", "ldexp(x.f, x.i % vec4<i32>(20))"),
        ("f32", "ldexp(x.f.x, 3)"),
        ("vec4<f32>", "select(x.f, x.g, x.f < x.g)"),
    ];
    check(&[Case::fields("rounding and choosing", "", &fields)]);
}

#[test]
fn integers_and_bits() {
    let signed = [
        ("vec4<i32>", "abs(x.i)"),
        ("vec4<i32>", "sign(x.i)"),
        ("vec4<i32>", "min(x.i, x.i.yzwx)"),
        ("vec4<i32>", "max(x.i, x.i.yzwx)"),
        ("vec4<i32>", "clamp(x.i, vec4<i32>(-7), abs(x.i.yzwx))"),
        ("vec4<i32>", "countOneBits(x.i)"),
        ("vec4<i32>", "countLeadingZeros(x.i)"),
        ("vec4<i32>", "countTrailingZeros(x.i)"),
        ("vec4<i32>", "firstLeadingBit(x.i)"),
        ("vec4<i32>", "firstTrailingBit(x.i)"),
        ("vec4<i32>", "reverseBits(x.i)"),
        ("vec4<i32>", "extractBits(x.i, x.u.x % 40u, x.u.y % 40u)"),
        ("vec4<i32>", "insertBits(x.i, x.i.yzwx, x.u.x % 40u, x.u.y % 40u)"),
        ("i32", "dot(x.i.xy, x.i.zw)"),
        ("i32", "dot(x.i.xyz, x.i.yzw) + dot(x.i, x.i.wzyx)"),
        ("i32", "firstLeadingBit(x.i.x) + countLeadingZeros(x.i.y) * 100"),
    ];
    let unsigned = [
        ("vec4<u32>", "abs(x.u)"),
        ("vec4<u32>", "min(x.u, x.u.yzwx)"),
        ("vec4<u32>", "max(x.u, x.u.yzwx)"),
        ("vec4<u32>", "clamp(x.u, vec4<u32>(7u), vec4<u32>(77u))"),
        ("vec4<u32>", "countOneBits(x.u)"),
        ("vec4<u32>", "countLeadingZeros(x.u)"),
        ("vec4<u32>", "countTrailingZeros(x.u)"),
        ("vec4<u32>", "firstLeadingBit(x.u)"),
        ("vec4<u32>", "firstTrailingBit(x.u)"),
        ("vec4<u32>", "reverseBits(x.u)"),
        ("vec4<u32>", "extractBits(x.u, x.u.x % 40u, x.u.y % 40u)"),
        ("vec4<u32>", "insertBits(x.u, x.u.yzwx, x.u.x % 40u, x.u.y % 40u)"),
        ("vec2<u32>", "insertBits(x.u.xy, x.u.zw, 4u, 9u) + extractBits(x.u.xy, 31u, 1u)"),
        ("u32", "dot(x.u.xyz, x.u.yzw)"),
        ("i32", "dot4I8Packed(x.u.x, x.u.y)"),
        ("u32", "dot4U8Packed(x.u.x, x.u.y)"),
    ];
    let known_signed = |row: &Row| {
        let four = |of: &dyn Fn(usize) -> i32| [0, 1, 2, 3].map(|at| of(at) as u32).to_vec();
        let (i, next) = (row.i, |at: usize| row.i[(at + 1) % 4]);
        let of_bit = |bits: u32| if bits == 0 { -1 } else { 31 - bits.leading_zeros() as i32 };
        let (offset, count) = extent(row);
        [
            four(&|at| i[at].wrapping_abs()),
            four(&|at| i[at].signum()),
            four(&|at| i[at].min(next(at))),
            four(&|at| i[at].max(next(at))),
            four(&|at| i[at].max(-7).min(next(at).wrapping_abs())),
            four(&|at| i[at].count_ones() as i32),
            four(&|at| i[at].leading_zeros() as i32),
            four(&|at| i[at].trailing_zeros() as i32),
            four(&|at| of_bit(if i[at] < 0 { !i[at] } else { i[at] } as u32)),
            four(&|at| if i[at] == 0 { -1 } else { i[at].trailing_zeros() as i32 }),
            four(&|at| i[at].reverse_bits()),
            four(&|at| if count == 0 { 0 } else { ((i64::from(i[at]) << (64 - offset - count)) >> (64 - count)) as i32 }),
            four(&|at| inserted(i[at] as u32, next(at) as u32, offset, count) as i32),
        ]
        .concat()
    };
    let known_unsigned = |row: &Row| {
        let four = |of: &dyn Fn(u32, u32) -> u32| [0, 1, 2, 3].map(|at| of(row.u[at], row.u[(at + 1) % 4])).to_vec();
        let (offset, count) = extent(row);
        [
            four(&|a, _| a),
            four(&|a, b| a.min(b)),
            four(&|a, b| a.max(b)),
            four(&|a, _| a.clamp(7, 77)),
            four(&|a, _| a.count_ones()),
            four(&|a, _| a.leading_zeros()),
            four(&|a, _| a.trailing_zeros()),
            four(&|a, _| if a == 0 { u32::MAX } else { 31 - a.leading_zeros() }),
            four(&|a, _| if a == 0 { u32::MAX } else { a.trailing_zeros() }),
            four(&|a, _| a.reverse_bits()),
            four(&|a, _| (u64::from(a) >> offset & ((1 << count) - 1)) as u32),
            four(&|a, b| inserted(a, b, offset, count)),
        ]
        .concat()
    };
    check(&[
        Case::fields("signed", "", &signed[..13]).known(known_signed),
        Case::fields("signed, of several", "", &signed[13..]),
        Case::fields("unsigned", "", &unsigned[..12]).known(known_unsigned),
        Case::fields("unsigned, of several", "", &unsigned[12..]),
    ]);
}

/// The bits that `extractBits` and `insertBits` are asked for, within the word.
fn extent(row: &Row) -> (u32, u32) {
    let offset = (row.u[0] % 40).min(32);
    (offset, (row.u[1] % 40).min(32 - offset))
}

fn inserted(word: u32, bits: u32, offset: u32, count: u32) -> u32 {
    let mask = ((((1u64 << count) - 1) << offset) & 0xffff_ffff) as u32;
    word & !mask | (u64::from(bits) << offset) as u32 & mask
}

#[test]
fn packing() {
    let exact = [
        ("u32", "pack4xI8(x.i)"),
        ("u32", "pack4xU8(x.u)"),
        ("u32", "pack4xI8Clamp(x.i)"),
        ("u32", "pack4xU8Clamp(x.u)"),
        ("vec4<i32>", "unpack4xI8(x.u.x)"),
        ("vec4<u32>", "unpack4xU8(x.u.x)"),
    ];
    let known = |row: &Row| {
        let bytes = |of: &dyn Fn(usize) -> u8| u32::from_le_bytes([0, 1, 2, 3].map(of));
        let word = row.u[0].to_le_bytes();
        let mut all = vec![
            bytes(&|at| row.i[at] as u8),
            bytes(&|at| row.u[at] as u8),
            bytes(&|at| row.i[at].clamp(-128, 127) as u8),
            bytes(&|at| row.u[at].min(255) as u8),
        ];
        all.extend(word.map(|byte| i32::from(byte as i8) as u32));
        all.extend(word.map(u32::from));
        all
    };
    let floats = [
        ("vec4<f32>", "unpack4x8snorm(x.u.x)"),
        ("vec4<f32>", "unpack4x8unorm(x.u.x)"),
        ("vec2<f32>", "unpack2x16snorm(x.u.x)"),
        ("vec2<f32>", "unpack2x16unorm(x.u.x)"),
    ];
    let packed = [
        ("u32", "pack4x8snorm(vec4<f32>(x.i % vec4<i32>(200)) / 127.0)"),
        ("u32", "pack4x8unorm(vec4<f32>(x.u % vec4<u32>(300u)) / 255.0)"),
        ("u32", "pack2x16snorm(vec2<f32>(x.i.xy % vec2<i32>(40000)) / 32767.0)"),
        ("u32", "pack2x16unorm(vec2<f32>(x.u.xy % vec2<u32>(70000u)) / 65535.0)"),
    ];
    let known_packed = |row: &Row| {
        let part = |value: i64, limit: i64, least: i64| value.max(least).min(limit);
        let snorm = |at: usize, modulus: i32, limit: i64| part(i64::from(row.i[at] % modulus), limit, -limit);
        let unorm = |at: usize, modulus: u32, limit: i64| part(i64::from(row.u[at] % modulus), limit, 0);
        let four = |of: &dyn Fn(usize) -> i64| (0..4).fold(0, |word, at| word | (of(at) as u32 & 0xff) << (8 * at));
        let two = |of: &dyn Fn(usize) -> i64| (0..2).fold(0, |word, at| word | (of(at) as u32 & 0xffff) << (16 * at));
        vec![four(&|at| snorm(at, 200, 127)), four(&|at| unorm(at, 300, 255)), two(&|at| snorm(at, 40000, 32767)), two(&|at| unorm(at, 70000, 65535))]
    };
    // Any float, NaN and infinities among them.
    let any = [("u32", "pack4x8snorm(x.f)"), ("u32", "pack4x8unorm(x.f)"), ("u32", "pack2x16snorm(x.f.xy)"), ("u32", "pack2x16unorm(x.f.xy)")];
    check(&[
        Case::fields("bytes", "", &exact).known(known),
        Case::fields("floats of small numbers", "", &floats).within(1e-6, 1e-7),
        Case::fields("small numbers of floats", "", &packed).known(known_packed),
        Case::fields("of anything", "", &any).apart(),
    ]);
}

/// Halves as words and as what floats are rounded to.
#[test]
fn halves() {
    // Halves that a GPU rounds its own way are left out: these are whole numbers, and parts of 32.
    let exact = [
        ("u32", "pack2x16float(vec2<f32>(x.i.xy % vec2<i32>(2000)))"),
        ("u32", "pack2x16float(vec2<f32>(x.i.xy % vec2<i32>(2000)) * 0.03125)"),
        ("vec2<f32>", "unpack2x16float(x.u.x & 0xbbffbbffu | 0x04000400u)"),
        ("vec4<f32>", "quantizeToF16(vec4<f32>(x.i % vec4<i32>(2000)))"),
    ];
    let anywhere = [
        ("u32", "pack2x16float(x.f.xy)"),
        ("vec2<f32>", "unpack2x16float(x.u.x)"),
        ("vec4<f32>", "quantizeToF16(x.f)"),
        ("f32", "quantizeToF16(x.f.x * 1e-6)"),
    ];
    let nans = [
        ("u32", "pack2x16float(vec2<f32>(bitcast<f32>(0xffc12345u + at * 3u) + 1.0, bitcast<f32>(0x7fc00000u + at) + 1.0))"),
        ("u32", "bitcast<u32>(quantizeToF16(bitcast<f32>(0xffc12345u + at * 3u) + 1.0))"),
    ];
    check(&[
        Case::fields("exact", "", &exact),
        Case::fields("of anything", "", &anywhere).apart(),
        Case::fields("nans", "", &nans).apart().known(|_| vec![0x7e00_7e00, 0x7fc0_0000]),
    ]);
}

#[test]
fn powers() {
    let fields = [
        ("vec4<f32>", "sqrt(above(x))"),
        ("vec4<f32>", "inverseSqrt(above(x))"),
        ("vec4<f32>", "exp(unit(x) * 8.0)"),
        ("vec4<f32>", "exp2(unit(x) * 12.0)"),
        ("vec4<f32>", "pow(above(x), unit(x))"),
        ("vec3<f32>", "pow(above(x).xyz, vec3<f32>(2.0))"),
        ("f32", "pow(2.0, unit(x).x * 9.0)"),
        ("f32", "sqrt(above(x).x) + exp(unit(x).y)"),
        ("vec4<f32>", "degrees(x.f)"),
        ("vec4<f32>", "radians(x.f)"),
    ];
    // 3 units in the last place, or 2⁻²¹ from ½ to 2.
    let logarithms = [("vec4<f32>", "log(above(x))"), ("vec4<f32>", "log2(above(x))"), ("f32", "log(3.0) + log2(above(x).x)")];
    let anywhere = [
        ("vec4<f32>", "sqrt(x.f)"),
        ("vec4<f32>", "inverseSqrt(x.f)"),
        ("vec4<f32>", "exp(x.f)"),
        ("vec4<f32>", "exp2(x.f)"),
        ("vec4<f32>", "log(x.f)"),
        ("vec4<f32>", "log2(x.f)"),
        ("vec4<f32>", "pow(x.f, x.g)"),
    ];
    check(&[
        // exp and pow: 3 + 2 |x| units, and those of exp2(y log2(x)).
        Case::fields("powers", DOMAINS, &fields).within(1e-5, 1e-6),
        Case::fields("logarithms", DOMAINS, &logarithms).within(1e-6, 1e-6),
        Case::fields("powers of anything", "", &anywhere).apart(),
    ]);
}

#[test]
fn angles() {
    let fields = [
        ("vec4<f32>", "sin(unit(x) * 3.125)"),
        ("vec4<f32>", "cos(unit(x) * 3.125)"),
        ("vec4<f32>", "sin(unit(x)) / cos(unit(x)) - tan(unit(x))"),
        ("vec4<f32>", "asin(unit(x))"),
        ("vec4<f32>", "acos(unit(x))"),
        ("vec4<f32>", "atan(x.f)"),
        ("vec4<f32>", "atan2(x.f, x.g)"),
        ("f32", "sin(unit(x).x) + cos(unit(x).y) + atan2(unit(x).z, 0.5)"),
    ];
    let hyperbolic = [
        ("vec4<f32>", "sinh(unit(x) * 3.0)"),
        ("vec4<f32>", "cosh(unit(x) * 3.0)"),
        ("vec4<f32>", "tanh(unit(x) * 3.0)"),
        ("vec4<f32>", "asinh(x.f)"),
        ("vec4<f32>", "acosh(above(x) + 1.0)"),
        ("vec4<f32>", "atanh(unit(x) * 0.875)"),
    ];
    let anywhere = [
        ("vec4<f32>", "sin(x.f)"),
        ("vec4<f32>", "cos(x.f)"),
        ("vec4<f32>", "tan(x.f)"),
        ("vec4<f32>", "asin(x.f)"),
        ("vec4<f32>", "acos(x.f)"),
        ("vec4<f32>", "atan(x.f)"),
        ("vec4<f32>", "atan2(x.f, x.g)"),
        ("vec4<f32>", "sinh(x.f)"),
        ("vec4<f32>", "cosh(x.f)"),
        ("vec4<f32>", "tanh(x.f)"),
        ("vec4<f32>", "asinh(x.f)"),
        ("vec4<f32>", "acosh(x.f)"),
        ("vec4<f32>", "atanh(x.f)"),
    ];
    check(&[
        // sin and cos: 2⁻¹¹ absolutely; the inverse functions and tan: 4096 units or what they inherit.
        Case::fields("angles", DOMAINS, &fields).within(1e-3, 1e-3),
        Case::fields("hyperbolic", DOMAINS, &hyperbolic).within(1e-3, 1e-3),
        Case::fields("angles of anything", "", &anywhere).apart(),
    ]);
}

#[test]
fn vectors() {
    let fields = [
        ("f32", "dot(unit(x).xy, unit(x).zw)"),
        ("f32", "dot(unit(x).xyz, unit(x).yzw)"),
        ("f32", "dot(unit(x), unit(x).wzyx)"),
        ("f32", "length(unit(x).xy) + length(unit(x).xyz) + length(unit(x)) + length(unit(x).x)"),
        ("f32", "distance(unit(x).xy, unit(x).zw) + distance(unit(x).xyz, unit(x).yzw) + distance(unit(x).x, unit(x).y)"),
        ("vec2<f32>", "normalize(above(x).xy)"),
        ("vec3<f32>", "normalize(above(x).xyz)"),
        ("vec4<f32>", "normalize(above(x))"),
        ("vec3<f32>", "cross(unit(x).xyz, unit(x).yzw)"),
        ("vec3<f32>", "faceForward(unit(x).xyz, unit(x).yzw, normalize(above(x).xyz))"),
        ("vec2<f32>", "reflect(unit(x).xy, normalize(above(x).xy))"),
        ("vec4<f32>", "reflect(unit(x), normalize(above(x)))"),
        ("vec3<f32>", "refract(unit(x).xyz, normalize(above(x).xyz), 0.5)"),
        ("vec3<f32>", "refract(normalize(above(x).xyz), -normalize(above(x).zyx), 0.25)"),
        ("vec4<f32>", "mix(unit(x), above(x), unit(x).yzwx)"),
        ("vec3<f32>", "mix(unit(x).xyz, unit(x).yzw, unit(x).x)"),
        ("f32", "mix(unit(x).x, 3.0, 0.25)"),
        ("vec4<f32>", "smoothstep(vec4<f32>(-0.5), vec4<f32>(0.75), unit(x))"),
        ("f32", "smoothstep(0.0, 1.0, unit(x).x)"),
        ("vec4<f32>", "fma(unit(x), unit(x).yzwx, unit(x).zwxy)"),
    ];
    let anywhere = [
        ("f32", "length(x.f) + distance(x.f.xyz, x.g.xyz) + dot(x.f, x.g)"),
        ("vec4<f32>", "normalize(x.f)"),
        ("vec3<f32>", "cross(x.f.xyz, x.g.xyz)"),
        ("vec3<f32>", "faceForward(x.f.xyz, x.g.xyz, x.f.yzw)"),
        ("vec3<f32>", "reflect(x.f.xyz, x.g.xyz)"),
        ("vec3<f32>", "refract(x.f.xyz, x.g.xyz, x.g.w)"),
        ("vec4<f32>", "mix(x.f, x.g, x.f.yzwx)"),
        ("vec4<f32>", "smoothstep(x.f, x.g, x.f.yzwx)"),
        ("vec4<f32>", "fma(x.f, x.g, x.f.yzwx)"),
        ("vec4<f32>", "ldexp(x.f, x.i)"),
        ("vec4<f32>", "clamp(x.f, x.g, x.f.yzwx)"),
    ];
    check(&[
        // What is inherited from sums of products.
        Case::fields("vectors", DOMAINS, &fields).within(1e-5, 1e-5),
        Case::fields("vectors of anything", "", &anywhere).apart(),
    ]);
}

/// Constants go another way through the builder than data: each function of literals, and of the same numbers as data.
#[test]
fn folding() {
    let unary = [
        "abs",
        "ceil",
        "floor",
        "round",
        "trunc",
        "fract",
        "sign",
        "saturate",
        "sqrt",
        "inverseSqrt",
        "exp",
        "exp2",
        "log",
        "log2",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "atanh",
        "degrees",
        "radians",
    ];
    let numbers = ["0.75", "0.3", "0.0625", "1e-9"];
    let mut fields: Vec<(&str, String)> = Vec::new();
    for function in unary {
        let all: Vec<String> = numbers
            .iter()
            .map(|number| format!("u32(bitcast<u32>({function}(kept({number}))) == bitcast<u32>({function}(made(at, {number}))))"))
            .collect();
        fields.push(("u32", all.join(" & ")));
    }
    for function in ["atan2", "min", "max", "step"] {
        fields.push((
            "u32",
            format!("u32(bitcast<u32>({function}(kept(0.75), kept(3.5))) == bitcast<u32>({function}(made(at, 0.75), made(at, 3.5))))"),
        ));
    }
    for function in ["countOneBits", "reverseBits", "firstLeadingBit", "firstTrailingBit", "countLeadingZeros", "countTrailingZeros"] {
        fields.push(("u32", format!("u32({function}(held(0xff00ff0u)) == {function}(0xff00ff0u + (at & 0u)))")));
        fields.push(("u32", format!("u32({function}(i32(held(0x8ff00ff0u))) == {function}(i32(0x8ff00ff0u + (at / 1000u))))")));
    }
    let text = "
fn kept(number: f32) -> f32 { var n = number; return n; }
fn held(number: u32) -> u32 { var n = number; return n; }
fn made(at: u32, number: f32) -> f32 { return number + f32(at / 1000u); }";
    let fields: Vec<(&str, &str)> = fields.iter().map(|(ty, expression)| (*ty, &expression[..])).collect();
    check(&[Case::fields("folding", text, &fields).apart().known(|_| vec![1; 43])]);
}

/// Machines make NaNs of their own: whatever a function does with one, its sign and payload must not show.
#[test]
fn nans_are_one() {
    let functions = [
        "ceil(N)",
        "floor(N)",
        "round(N)",
        "trunc(N)",
        "fract(N)",
        "sign(N)",
        "saturate(N)",
        "abs(N)",
        "-N",
        "sqrt(N)",
        "inverseSqrt(N)",
        "exp(N)",
        "exp2(N)",
        "log(N)",
        "log2(N)",
        "sin(N)",
        "cos(N)",
        "tan(N)",
        "asin(N)",
        "acos(N)",
        "atan(N)",
        "sinh(N)",
        "cosh(N)",
        "tanh(N)",
        "asinh(N)",
        "acosh(N)",
        "atanh(N)",
        "degrees(N)",
        "radians(N)",
        "pow(N, 2.0)",
        "pow(2.0, N)",
        "pow(N, 0.5)",
        "atan2(N, 1.0)",
        "atan2(1.0, N)",
        "min(N, 1.0)",
        "min(1.0, N)",
        "max(N, 1.0)",
        "max(1.0, N)",
        "clamp(N, 0.0, 1.0)",
        "step(N, 1.0)",
        "mix(N, 1.0, 0.5)",
        "smoothstep(0.0, 1.0, N)",
        "fma(N, 1.0, 1.0)",
        "ldexp(N, 3)",
        "frexp(N).fract",
        "f32(frexp(N).exp)",
        "modf(N).fract",
        "modf(N).whole",
        "f32(i32(N))",
        "f32(u32(N))",
        "length(vec3<f32>(N))",
        "f32(pack4x8snorm(vec4<f32>(N)))",
        "f32(pack4x8unorm(vec4<f32>(N)))",
        "f32(pack2x16snorm(vec2<f32>(N)))",
        "f32(pack2x16unorm(vec2<f32>(N)))",
        "dot(vec2<f32>(N), vec2<f32>(1.0))",
        "normalize(vec2<f32>(N, 1.0)).x",
        "select(1.0, N, N != N)",
        "N % 2.0",
        "1.0 / N",
        "cross(vec3<f32>(N), vec3<f32>(1.0)).x",
        "refract(vec2<f32>(N), vec2<f32>(1.0), 0.5).y",
        "faceForward(vec2<f32>(N), vec2<f32>(1.0), vec2<f32>(N)).y",
        "reflect(vec2<f32>(N), vec2<f32>(1.0)).y",
        "determinant(mat2x2<f32>(N, 1.0, 1.0, 1.0))",
    ];
    let text = "
fn first(at: u32) -> f32 { return bitcast<f32>(0x7fc00000u + at) + 1.0; }
fn second(at: u32) -> f32 { return bitcast<f32>(0xffc12345u + at * 3u) + 1.0; }";
    let fields: Vec<String> = functions
        .iter()
        .map(|function| {
            let of = |nan: &str| function.replace('N', nan);
            format!("u32(bitcast<u32>({}) == bitcast<u32>({}))", of("first(at)"), of("second(at)"))
        })
        .collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|expression| ("u32", &expression[..])).collect();
    check(&[Case::fields("nans", text, &fields).apart().known(|_| vec![1; 65])]);
}
