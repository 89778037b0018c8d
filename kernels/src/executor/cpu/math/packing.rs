//! Several small numbers in one word.
//!
//! The first component is in the lowest bits. Invariants: numbers beyond the range of what they are packed into
//! are cut to it, but for those that WGSL wraps (`pack4xI8`, `pack4xU8`); an f16 is rounded to nearest, ties to
//! even, and becomes infinite from 65520 on.
//!
//! **Source**: WGSL, "Data Packing Built-in Functions"; f16 by a sum that rounds where an f16 does, after
//! F. Giesen, *Float to half conversion* (2012).

use naga::MathFunction;

use super::super::ir::{Scalar, Unary};
use super::term::Term;

/// The word that the components make; `None` if the function does not pack.
pub(super) fn packed<'d>(function: MathFunction, components: &[Term<'d>]) -> Option<Term<'d>> {
    use MathFunction as F;
    let (width, part): (u32, fn(Term<'d>) -> Term<'d>) = match function {
        F::Pack4x8snorm => (8, |x| signed_norm(x, 127.0)),
        F::Pack4x8unorm => (8, |x| unsigned_norm(x, 255.0)),
        F::Pack2x16snorm => (16, |x| signed_norm(x, 32767.0)),
        F::Pack2x16unorm => (16, |x| unsigned_norm(x, 65535.0)),
        F::Pack2x16float => (16, half_from_float),
        F::Pack4xI8 | F::Pack4xU8 => (8, |x| x),
        F::Pack4xI8Clamp => (8, |x| x.max(-128).min(127)),
        F::Pack4xU8Clamp => (8, |x| x.min(255_u32)),
        _ => return None,
    };
    let is_complete = components.len() as u32 * width == 32;
    let places = components.iter().zip((0..32).step_by(width as usize));
    let parts = places.map(|(&component, place)| {
        let bits = part(component).bits(Scalar::U32);
        // What is above the highest part falls out by itself.
        let bits = if place + width < 32 { bits & ((1_u32 << width) - 1) } else { bits };
        bits << place
    });
    parts.reduce(|word, part| word | part).filter(|_| is_complete)
}

/// The components of a word; `None` if the function does not unpack.
pub(super) fn unpacked<'d>(function: MathFunction, word: Term<'d>) -> Option<Vec<Term<'d>>> {
    use MathFunction as F;
    let parts = match function {
        F::Unpack4x8snorm => signed_parts(word, 8).map(|x| float(x, 127.0).max(-1.0)).collect(),
        F::Unpack4x8unorm => unsigned_parts(word, 8).map(|x| float(x, 255.0)).collect(),
        F::Unpack2x16snorm => signed_parts(word, 16).map(|x| float(x, 32767.0).max(-1.0)).collect(),
        F::Unpack2x16unorm => unsigned_parts(word, 16).map(|x| float(x, 65535.0)).collect(),
        F::Unpack2x16float => unsigned_parts(word, 16).map(float_from_half).collect(),
        F::Unpack4xI8 => signed_parts(word, 8).collect(),
        F::Unpack4xU8 => unsigned_parts(word, 8).collect(),
        _ => return None,
    };
    Some(parts)
}

/// The sum of the products of the four bytes of two words, as i32s or as u32s.
pub(super) fn dot_of_bytes<'d>(a: Term<'d>, b: Term<'d>, scalar: Scalar) -> Option<Term<'d>> {
    let bytes = |word| -> Vec<Term<'d>> { if scalar == Scalar::I32 { signed_parts(word, 8).collect() } else { unsigned_parts(word, 8).collect() } };
    bytes(a).into_iter().zip(bytes(b)).map(|(a, b)| a * b).reduce(|sum, product| sum + product)
}

/// `x` as the nearest f16.
pub(super) fn quantized_to_half(x: Term<'_>) -> Term<'_> {
    float_from_half(half_from_float(x))
}

/// The parts of `width` bits as u32s, from the lowest up.
fn unsigned_parts(word: Term<'_>, width: u32) -> impl Iterator<Item = Term<'_>> {
    let word = word.bits(Scalar::U32);
    let mask = (1_u32 << width) - 1;
    let places = (0..32).step_by(width as usize);
    places.map(move |place| if place + width < 32 { (word >> place) & mask } else { word >> place })
}

/// The parts of `width` bits as i32s, from the lowest up.
fn signed_parts(word: Term<'_>, width: u32) -> impl Iterator<Item = Term<'_>> {
    let word = word.bits(Scalar::I32);
    (0..32).step_by(width as usize).map(move |place| (word << (32 - width - place)) >> (32 - width))
}

/// An integer as a part of `whole`.
fn float(x: Term<'_>, whole: f32) -> Term<'_> {
    let convert = if x.scalar() == Scalar::I32 { Unary::FloatOfI } else { Unary::FloatOfU };
    x.unary(convert) / whole
}

/// [-1, 1] as [-whole, whole].
fn signed_norm(x: Term<'_>, whole: f32) -> Term<'_> {
    (x.max(-1.0).min(1.0) * whole + 0.5).floor().unary(Unary::IntOfF)
}

/// [0, 1] as [0, whole].
fn unsigned_norm(x: Term<'_>, whole: f32) -> Term<'_> {
    (x.max(0.0).min(1.0) * whole + 0.5).unary(Unary::IntOfF)
}

/// The bits of the nearest f16.
fn half_from_float(x: Term<'_>) -> Term<'_> {
    const ONE_HALF: u32 = 0.5_f32.to_bits();
    /// The exponent's other bias, and all but half of what is cut off.
    const REBIAS: u32 = (15_u32.wrapping_sub(127) << 23) + 0xfff;
    let sign = (x.bits(Scalar::U32) >> 16_u32) & 0x8000_u32;
    let size = x.abs();
    let bits = size.bits(Scalar::U32);
    let normal = (bits + REBIAS + ((bits >> 13_u32) & 1_u32)) >> 13_u32;
    // Below 2^-14 an f16 has steps of 2^-24, and so has an f32 next to ½.
    let subnormal = (size + 0.5).bits(Scalar::U32) - ONE_HALF;
    let finite = size.is_below(6.1035156e-5).select(subnormal, normal);
    let infinite = size.is_at_most(f32::INFINITY).select(bits.constant(Scalar::U32, 0x7c00), 0x7e00_u32);
    size.is_below(65536.0).select(finite, infinite) | sign
}

/// The f32 that an f16 is, by its bits; what is above the lowest 16 must be 0.
fn float_from_half(half: Term<'_>) -> Term<'_> {
    let size = (half & 0x7fff_u32) << 13_u32;
    let finite = (size.bits(Scalar::F32) * f32::from_bits((254 - 15) << 23)).bits(Scalar::U32);
    let all = size | 0x7f80_0000_u32;
    let is_finite = size.is_below(0x7c00_u32 << 13);
    (is_finite.select(finite, all) | ((half & 0x8000_u32) << 16_u32)).bits(Scalar::F32)
}

#[cfg(test)]
mod tests {
    use super::super::measure::Formula;
    use super::super::{pack, unpack};
    use super::*;
    use naga::MathFunction as F;
    use proptest::prelude::*;

    fn packer(function: F, scalar: Scalar, components: usize) -> Formula {
        Formula::new(&vec![scalar; components], |b, operands| pack(b, function, operands).into_iter().collect())
    }

    fn unpacker(function: F) -> Formula {
        Formula::new(&[Scalar::U32], |b, operands| unpack(b, function, operands[0]).unwrap_or_default())
    }

    fn floats(function: F, word: u32) -> Vec<f32> {
        unpacker(function).all(&[word]).into_iter().map(f32::from_bits).collect()
    }

    /// An f16 as f64, by its definition.
    fn exact_from_half(half: u16) -> f64 {
        let (sign, exponent, fraction) = (half >> 15, i32::from(half >> 10 & 31), f64::from(half & 0x3ff) / 1024.0);
        let size = match exponent {
            0 => fraction * (-14_f64).exp2(),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + fraction) * f64::from(exponent - 15).exp2(),
        };
        if sign == 1 { -size } else { size }
    }

    /// What one component becomes.
    type Part = fn(f32) -> u32;

    /// Any word, and often one of parts at their edges.
    fn word() -> impl Strategy<Value = u32> {
        let edge = prop::sample::select(vec![0x00_u8, 0x01, 0x7f, 0x80, 0x81, 0xff]);
        prop_oneof![any::<u32>(), prop::array::uniform4(edge).prop_map(u32::from_le_bytes)]
    }

    /// Numbers about as large as the range that is packed, and any others.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![-1.2..1.2_f32, -1e5..1e5_f32, any::<f32>(), (-130..130_i32).prop_map(|n| n as f32 / 127.0)]
    }

    #[test]
    fn every_half_is_read_and_written() {
        let (reader, writer) = (unpacker(F::Unpack2x16float), packer(F::Pack2x16float, Scalar::F32, 2));
        for half in 0..=u16::MAX {
            let [low, high] = reader.all(&[u32::from(half) | u32::from(!half) << 16])[..] else { panic!("two halves") };
            for (bits, half) in [(low, half), (high, !half)] {
                let (found, exact) = (f32::from_bits(bits), exact_from_half(half));
                assert!(f64::from(found) == exact || found.is_nan() && exact.is_nan(), "{half:04x} is {exact}, not {found}");
                assert_eq!(found.is_sign_negative(), half >> 15 == 1);
            }
            let again = writer.run(&[low, high]);
            for (again, half) in [(again as u16, half), ((again >> 16) as u16, !half)] {
                let is_nan = half & 0x7fff > 0x7c00;
                assert!(again == half || is_nan && again & 0x7fff > 0x7c00, "{half:04x} became {again:04x}");
            }
        }
    }

    #[test]
    fn halves_round_to_nearest_even() {
        let formula = Formula::component(F::QuantizeToF16, &[Scalar::F32]);
        // Between every two neighbours: just below the middle, the middle, just above.
        for half in 0..0x7c00_u16 {
            let middle = match half {
                0x7bff => 65520.0,
                _ => ((exact_from_half(half) + exact_from_half(half + 1)) / 2.0) as f32,
            };
            let even = exact_from_half(half + (half & 1));
            let cases = [(middle.next_down(), exact_from_half(half)), (middle, even), (middle.next_up(), exact_from_half(half + 1))];
            for (x, exact) in cases {
                assert_eq!(f64::from(formula.float(&[x])), exact, "{x:e}");
                assert_eq!(f64::from(formula.float(&[-x])), -exact, "-{x:e}");
            }
        }
        for x in [65536.0, 1e30, f32::INFINITY] {
            assert_eq!(formula.float(&[-x]), f32::NEG_INFINITY);
        }
        assert!(formula.float(&[f32::NAN]).is_nan());
        assert!(formula.float(&[f32::from_bits(0x7f80_0001)]).is_nan());
    }

    #[test]
    fn what_is_not_packing_is_refused() {
        let mut b = super::super::super::builder::Builder::new("refused", [1, 1, 1]);
        let x = b.float(0.5);
        assert_eq!(pack(&mut b, F::Sin, &[x]), None);
        assert_eq!(pack(&mut b, F::Pack4x8snorm, &[x, x]), None);
        assert_eq!(unpack(&mut b, F::Sin, x), None);
    }

    proptest! {
        #[test]
        fn parts_of_one_are_packed(x in prop::array::uniform4(number())) {
            let cases: [(F, usize, Part); 4] = [
                (F::Pack4x8snorm, 4, |x| (0.5 + 127.0 * x.clamp(-1.0, 1.0)).floor() as i32 as u32 & 0xff),
                (F::Pack4x8unorm, 4, |x| (0.5 + 255.0 * x.clamp(0.0, 1.0)).floor() as u32),
                (F::Pack2x16snorm, 2, |x| (0.5 + 32767.0 * x.clamp(-1.0, 1.0)).floor() as i32 as u32 & 0xffff),
                (F::Pack2x16unorm, 2, |x| (0.5 + 65535.0 * x.clamp(0.0, 1.0)).floor() as u32),
            ];
            for (function, count, part) in cases {
                let width = 32 / count;
                let expected = (0..count).fold(0, |word, at| word | part(x[at]) << (at * width));
                let operands = x[..count].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(packer(function, Scalar::F32, count).run(&operands), expected, "{:?}", function);
            }
        }

        #[test]
        fn parts_of_one_are_unpacked(word in word()) {
            let bytes = word.to_le_bytes();
            let halves = [word as u16, (word >> 16) as u16];
            prop_assert_eq!(floats(F::Unpack4x8snorm, word), bytes.map(|x| (f32::from(x as i8) / 127.0).max(-1.0)));
            prop_assert_eq!(floats(F::Unpack4x8unorm, word), bytes.map(|x| f32::from(x) / 255.0));
            prop_assert_eq!(floats(F::Unpack2x16snorm, word), halves.map(|x| (f32::from(x as i16) / 32767.0).max(-1.0)));
            prop_assert_eq!(floats(F::Unpack2x16unorm, word), halves.map(|x| f32::from(x) / 65535.0));
        }

        #[test]
        fn bytes_are_packed(x in prop::array::uniform4(prop_oneof![any::<u32>(), 0..300_u32, (-200..200_i32).prop_map(|x| x as u32)])) {
            let run = |function, scalar| packer(function, scalar, 4).run(&x).to_le_bytes();
            prop_assert_eq!(run(F::Pack4xI8, Scalar::I32), x.map(|x| x as u8));
            prop_assert_eq!(run(F::Pack4xU8, Scalar::U32), x.map(|x| x as u8));
            prop_assert_eq!(run(F::Pack4xI8Clamp, Scalar::I32), x.map(|x| (x as i32).clamp(-128, 127) as u8));
            prop_assert_eq!(run(F::Pack4xU8Clamp, Scalar::U32), x.map(|x| x.min(255) as u8));
        }

        #[test]
        fn bytes_are_unpacked(a in word(), b in word()) {
            let (signed, unsigned) = (a.to_le_bytes().map(|x| x as i8 as u32), a.to_le_bytes().map(u32::from));
            prop_assert_eq!(unpacker(F::Unpack4xI8).all(&[a]), signed);
            prop_assert_eq!(unpacker(F::Unpack4xU8).all(&[a]), unsigned);
            let run = |function| Formula::component(function, &[Scalar::U32; 2]).run(&[a, b]);
            let products = |of: fn(u8) -> i32| a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(&a, b)| of(a) * of(b)).sum::<i32>() as u32;
            prop_assert_eq!(run(F::Dot4I8Packed), products(|x| i32::from(x as i8)));
            prop_assert_eq!(run(F::Dot4U8Packed), products(i32::from));
        }
    }
}
