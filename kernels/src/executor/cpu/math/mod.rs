//! WGSL's mathematical functions as formulas of the [IR](super::ir).
//!
//! A back half that called its platform's `sin` would compute other bits than the next one. So a function is
//! *emitted*, from operators that round the same everywhere; with known operands the [`Builder`] folds it.
//!
//! ```text
//! mod            which function, and those that are a formula or two
//! exponential    exp, log, pow          trigonometric   sin … atan2
//! hyperbolic     sinh … atanh           integer         bits
//! packing        words of small numbers term            operators on values
//! measure        (tests) formulas run, and their errors measured
//! ```
//!
//! Invariants: no branch, no loop, no table and no memory, so that lanes stay together; every error is within
//! what WGSL allows ("Floating Point Accuracy"), most far within, and said where the function is as it was
//! measured, over every f32 from 1e-6 up and a sample below; NaN in gives NaN out, but for comparisons (`step`, the
//! second operand of `min` and `max`) and `x^0`.

mod exponential;
mod hyperbolic;
mod integer;
#[cfg(test)]
mod measure;
mod packing;
mod term;
mod trigonometric;

use std::cell::RefCell;

use naga::MathFunction;

use super::builder::Builder;
use super::ir::{Scalar, Unary, ValueId};
use term::{Desk, Term};

/// A function of one component of each argument; `None` if it is not of that kind.
pub(super) fn component(b: &mut Builder, function: MathFunction, arguments: &[ValueId]) -> Option<ValueId> {
    let desk = RefCell::new(b);
    let terms = terms(&desk, arguments);
    let result = match *terms {
        [x] => of_one(function, x),
        [x, y] => of_two(function, x, y),
        [x, y, z] => of_three(function, x, y, z),
        [x, y, z, w] if function == MathFunction::InsertBits => Some(integer::insert_bits(x, y, z, w)),
        _ => None,
    };
    result.map(Term::id)
}

/// What `frexp` (fraction f32, exponent i32) and `modf` (fraction, whole) take a number apart into.
pub(super) fn parts(b: &mut Builder, function: MathFunction, argument: ValueId) -> Option<[ValueId; 2]> {
    let desk = RefCell::new(b);
    let x = Term::new(&desk, argument);
    let parts = match function {
        MathFunction::Frexp => fraction_and_exponent(x),
        MathFunction::Modf => {
            let whole = x.unary(Unary::TruncF);
            [x - whole, whole]
        }
        _ => return None,
    };
    Some(parts.map(Term::id))
}

/// A word of small numbers; `None` if the function does not pack.
pub(super) fn pack(b: &mut Builder, function: MathFunction, components: &[ValueId]) -> Option<ValueId> {
    let desk = RefCell::new(b);
    packing::packed(function, &terms(&desk, components)).map(Term::id)
}

/// The small numbers of a word; `None` if the function does not unpack.
pub(super) fn unpack(b: &mut Builder, function: MathFunction, word: ValueId) -> Option<Vec<ValueId>> {
    let desk = RefCell::new(b);
    let components = packing::unpacked(function, Term::new(&desk, word))?;
    Some(components.into_iter().map(Term::id).collect())
}

fn terms<'d>(desk: &'d Desk<'d>, values: &[ValueId]) -> Vec<Term<'d>> {
    values.iter().map(|&value| Term::new(desk, value)).collect()
}

fn of_one(function: MathFunction, x: Term<'_>) -> Option<Term<'_>> {
    use MathFunction as F;
    Some(match function {
        F::Abs => size(x),
        F::Saturate => x.max(0.0).min(1.0),
        F::Sign => sign(x),

        F::Ceil => x.unary(Unary::CeilF),
        F::Floor => x.floor(),
        F::Round => x.unary(Unary::RoundF),
        F::Trunc => x.unary(Unary::TruncF),
        F::Fract => x - x.floor(),

        F::Sqrt => x.sqrt(),
        F::InverseSqrt => 1.0 / x.sqrt(),
        F::Radians => x * (std::f32::consts::PI / 180.0),
        F::Degrees => x * 57.29578,
        F::QuantizeToF16 => packing::quantized_to_half(x),

        F::Exp => exponential::exp(x),
        F::Exp2 => exponential::exp2(x),
        F::Log => exponential::ln(x),
        F::Log2 => exponential::log2(x),

        F::Sin => trigonometric::sin(x),
        F::Cos => trigonometric::cos(x),
        F::Tan => trigonometric::tan(x),
        F::Asin => trigonometric::asin(x),
        F::Acos => trigonometric::acos(x),
        F::Atan => trigonometric::atan(x),

        F::Sinh => hyperbolic::sinh(x),
        F::Cosh => hyperbolic::cosh(x),
        F::Tanh => hyperbolic::tanh(x),
        F::Asinh => hyperbolic::asinh(x),
        F::Acosh => hyperbolic::acosh(x),
        F::Atanh => hyperbolic::atanh(x),

        F::CountTrailingZeros => x.unary(Unary::TrailingZeros),
        F::CountLeadingZeros => x.unary(Unary::LeadingZeros),
        F::CountOneBits => x.unary(Unary::CountOnes),
        F::ReverseBits => integer::reverse_bits(x),
        F::FirstTrailingBit => integer::first_trailing_bit(x),
        F::FirstLeadingBit => integer::first_leading_bit(x),
        _ => return None,
    })
}

fn of_two<'d>(function: MathFunction, x: Term<'d>, y: Term<'d>) -> Option<Term<'d>> {
    use MathFunction as F;
    Some(match function {
        F::Min => x.min(y),
        F::Max => x.max(y),
        F::Step => x.is_at_most(y).select(x.float(1.0), 0.0),
        F::Pow => exponential::pow(x, y),
        F::Ldexp => scaled(x, y),
        F::Atan2 => trigonometric::atan2(x, y),
        F::Dot4I8Packed => return packing::dot_of_bytes(x, y, Scalar::I32),
        F::Dot4U8Packed => return packing::dot_of_bytes(x, y, Scalar::U32),
        _ => return None,
    })
}

fn of_three<'d>(function: MathFunction, x: Term<'d>, y: Term<'d>, z: Term<'d>) -> Option<Term<'d>> {
    use MathFunction as F;
    Some(match function {
        F::Clamp => x.max(y).min(z),
        F::Mix => x * (1.0 - z) + y * z,
        F::Fma => x * y + z,
        F::SmoothStep => {
            let t = ((z - x) / (y - x)).max(0.0).min(1.0);
            t * t * (3.0 - t * 2.0)
        }
        F::ExtractBits => integer::extract_bits(x, y, z),
        _ => return None,
    })
}

/// Without the sign; the least i32 stays.
fn size(x: Term<'_>) -> Term<'_> {
    match x.scalar() {
        Scalar::F32 => x.abs(),
        Scalar::I32 => x.max(-x),
        Scalar::U32 | Scalar::Bool => x,
    }
}

/// -1, 0 or 1.
fn sign(x: Term<'_>) -> Term<'_> {
    match x.scalar() {
        Scalar::F32 => {
            let not_above = x.is_below(0.0).select(x.float(-1.0), x);
            x.float(0.0).is_below(x).select(x.float(1.0), not_above)
        }
        _ => x.max(-1).min(1),
    }
}

/// `x 2^exponent`, for an exponent in [-254, 254] or cut to it: in two steps, as `2^exponent` may be no f32. Exact
/// unless the result is subnormal; infinities stay while the exponent is above -253.
fn scaled<'d>(x: Term<'d>, exponent: Term<'d>) -> Term<'d> {
    let exponent = exponent.max(-254).min(254);
    let half = exponent >> 1_u32;
    let power = |exponent: Term<'d>| ((exponent + 127) << 23_u32).bits(Scalar::F32);
    x * power(half) * power(exponent - half)
}

/// `x = fraction 2^exponent`, the fraction in [½, 1); 0, infinities and NaN are their own fraction, with 0.
fn fraction_and_exponent(x: Term<'_>) -> [Term<'_>; 2] {
    let size = x.abs();
    let is_subnormal = size.is_below(f32::MIN_POSITIVE);
    let bits = is_subnormal.select(x * 16_777_216.0, x).bits(Scalar::I32);
    let bias = is_subnormal.select(bits.constant(Scalar::I32, 126 + 24), 126);
    let exponent = ((bits >> 23_u32) & 0xff_u32) - bias;
    let fraction = ((bits & 0x807f_ffff_u32) | 0x3f00_0000_u32).bits(Scalar::F32);
    let is_plain = x.float(0.0).is_below(size) & size.is_below(f32::INFINITY);
    [is_plain.select(fraction, x), is_plain.select(exponent, 0)]
}

#[cfg(test)]
mod tests {
    use super::measure::{Allowed, Formula, check, check_at};
    use super::*;
    use MathFunction as F;
    use proptest::prelude::*;

    const INFINITY: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;

    /// Every function of a component, with the scalars it is tried with.
    fn every_function() -> Vec<(F, Vec<Scalar>)> {
        use Scalar::{F32, I32, U32};
        let of_one = [
            [F::Abs, F::Saturate, F::Sign, F::Ceil, F::Floor, F::Round, F::Trunc, F::Fract],
            [F::Sqrt, F::InverseSqrt, F::Radians, F::Degrees, F::QuantizeToF16, F::Exp, F::Exp2, F::Log],
            [F::Log2, F::Sin, F::Cos, F::Tan, F::Asin, F::Acos, F::Atan, F::Sinh],
            [F::Cosh, F::Tanh, F::Asinh, F::Acosh, F::Atanh, F::Abs, F::Sign, F::Sin],
        ];
        let of_bits = [F::CountTrailingZeros, F::CountLeadingZeros, F::CountOneBits, F::ReverseBits, F::FirstTrailingBit, F::FirstLeadingBit];
        let mut all: Vec<(F, Vec<Scalar>)> = of_one.concat().into_iter().map(|function| (function, vec![F32])).collect();
        all.extend(of_bits.into_iter().flat_map(|function| [(function, vec![I32]), (function, vec![U32])]));
        for scalar in [F32, I32, U32] {
            all.extend([(F::Min, vec![scalar; 2]), (F::Max, vec![scalar; 2]), (F::Clamp, vec![scalar; 3]), (F::Abs, vec![scalar])]);
        }
        all.extend([F::Step, F::Pow, F::Atan2].map(|function| (function, vec![F32; 2])));
        all.extend([F::Mix, F::Fma, F::SmoothStep].map(|function| (function, vec![F32; 3])));
        all.extend([(F::Sign, vec![I32]), (F::Ldexp, vec![F32, I32]), (F::Dot4I8Packed, vec![U32; 2]), (F::Dot4U8Packed, vec![U32; 2])]);
        for scalar in [I32, U32] {
            all.extend([(F::ExtractBits, vec![scalar, U32, U32]), (F::InsertBits, vec![scalar, scalar, U32, U32])]);
        }
        all
    }

    /// Any number, and often a middling, a subnormal or a special one.
    fn float() -> impl Strategy<Value = f32> {
        let special = prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, INFINITY, -INFINITY, NAN, f32::MIN_POSITIVE, f32::MAX]);
        let subnormal = (1..0x80_0000_u32, any::<bool>()).prop_map(|(bits, is_negative)| f32::from_bits(bits | u32::from(is_negative) << 31));
        prop_oneof![-10.0..10.0_f32, any::<u32>().prop_map(f32::from_bits), special, subnormal]
    }

    fn folded(function: F, scalars: &[Scalar], operands: &[u32]) -> Option<u32> {
        let mut b = Builder::new("folded", [1, 1, 1]);
        let operands: Vec<ValueId> = scalars.iter().zip(operands).map(|(&scalar, &bits)| b.constant(scalar, bits)).collect();
        let result = component(&mut b, function, &operands)?;
        b.known_bits(result)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A constant in the text and the same number found in memory give the same result.
        #[test]
        fn folding_is_running(operands in prop::array::uniform4(prop_oneof![float().prop_map(f32::to_bits), 0..40_u32, any::<u32>()])) {
            for (function, scalars) in every_function() {
                if function == F::Pow {
                    continue; // A known exponent may take another way.
                }
                let found = folded(function, &scalars, &operands);
                let run = Formula::component(function, &scalars).run(&operands[..scalars.len()]);
                let are_nan = |a: u32, b: u32| f32::from_bits(a).is_nan() && f32::from_bits(b).is_nan();
                prop_assert!(found.is_some_and(|found| found == run || are_nan(found, run)), "{function:?} of {scalars:?}: {found:x?} and {run:x}");
            }
        }
    }

    proptest! {
        #[test]
        fn fractions_and_exponents_make_the_number(x in float()) {
            let formula = Formula::new(&[Scalar::F32], |b, operands| parts(b, F::Frexp, operands[0]).map(Vec::from).unwrap_or_default());
            let bits = formula.all(&[x.to_bits()]);
            let (fraction, exponent) = (f32::from_bits(bits[0]), bits[1] as i32);
            if x == 0.0 || !x.is_finite() {
                prop_assert_eq!((bits[0], exponent), (x.to_bits(), 0));
            } else {
                prop_assert!((0.5..1.0).contains(&fraction.abs()), "{}", fraction);
                prop_assert_eq!(f64::from(fraction) * f64::from(exponent).exp2(), f64::from(x));
                let again = Formula::component(F::Ldexp, &[Scalar::F32, Scalar::I32]).run(&bits);
                prop_assert_eq!(again, x.to_bits());
            }
        }

        #[test]
        fn whole_and_fraction_make_the_number(x in -1e9..1e9_f32) {
            let formula = Formula::new(&[Scalar::F32], |b, operands| parts(b, F::Modf, operands[0]).map(Vec::from).unwrap_or_default());
            let found: Vec<f32> = formula.all(&[x.to_bits()]).into_iter().map(f32::from_bits).collect();
            prop_assert_eq!(found, [x.fract(), x.trunc()]);
        }

        #[test]
        fn scaling_is_exact(x in float(), exponent in prop_oneof![-130..130_i32, any::<i32>()]) {
            let found = Formula::component(F::Ldexp, &[Scalar::F32, Scalar::I32]).run(&[x.to_bits(), exponent as u32]);
            let (found, exact) = (f64::from(f32::from_bits(found)), f64::from(x) * f64::from(exponent.clamp(-400, 400)).exp2());
            let smallest = f64::from(f32::MIN_POSITIVE);
            if exact.abs() >= smallest && x.is_finite() && exponent <= 128 {
                prop_assert_eq!(found, f64::from(exact as f32));
            } else if exact.abs() < smallest {
                prop_assert!(found.abs() <= smallest);
            }
        }

        #[test]
        fn integers_are_compared(x in any::<i32>(), y in any::<i32>(), z in any::<i32>()) {
            let operands = [x as u32, y as u32, z as u32];
            let run = |function, scalar, count: usize| Formula::component(function, &vec![scalar; count]).run(&operands[..count]);
            prop_assert_eq!(run(F::Abs, Scalar::I32, 1), x.wrapping_abs() as u32);
            prop_assert_eq!(run(F::Sign, Scalar::I32, 1), x.signum() as u32);
            prop_assert_eq!(run(F::Min, Scalar::I32, 2), x.min(y) as u32);
            prop_assert_eq!(run(F::Max, Scalar::I32, 2), x.max(y) as u32);
            prop_assert_eq!(run(F::Clamp, Scalar::I32, 3), x.max(y).min(z) as u32);
            let [x, y, z] = operands;
            prop_assert_eq!(run(F::Abs, Scalar::U32, 1), x);
            prop_assert_eq!(run(F::Min, Scalar::U32, 2), x.min(y));
            prop_assert_eq!(run(F::Max, Scalar::U32, 2), x.max(y));
            prop_assert_eq!(run(F::Clamp, Scalar::U32, 3), x.max(y).min(z));
        }

        #[test]
        fn numbers_are_rounded(x in float()) {
            let run = |function| Formula::component(function, &[Scalar::F32]).float(&[x]);
            let same = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan();
            let whole = [(F::Ceil, x.ceil()), (F::Floor, x.floor()), (F::Trunc, x.trunc()), (F::Round, x.round_ties_even())];
            let others = [(F::Abs, x.abs()), (F::Sqrt, x.sqrt()), (F::Radians, x.to_radians()), (F::Degrees, x.to_degrees())];
            for (function, expected) in whole.into_iter().chain(others).chain([(F::Fract, x - x.floor())]) {
                prop_assert!(same(run(function), expected), "{function:?}({x:e}) = {:e}", run(function));
            }
        }

        #[test]
        fn numbers_are_mixed(x in -10.0..10.0_f32, y in -10.0..10.0_f32, z in -10.0..10.0_f32) {
            check_at(F::Min, &[([x, y], x.min(y))]);
            check_at(F::Max, &[([x, y], x.max(y))]);
            check_at(F::Clamp, &[([x, y, z], x.max(y).min(z))]);
            check_at(F::Step, &[([x, y], if x <= y { 1.0 } else { 0.0 })]);
            check_at(F::Fma, &[([x, y, z], x * y + z)]);
            check_at(F::Mix, &[([x, y, z], x * (1.0 - z) + y * z)]);
            let t = ((z - x) / (y - x)).clamp(0.0, 1.0);
            check_at(F::SmoothStep, &[([x, y, z], t * t * (3.0 - 2.0 * t))]);
        }
    }

    #[test]
    fn round_goes_to_even() {
        check_at(F::Round, &[([0.5], 0.0), ([1.5], 2.0), ([2.5], 2.0), ([-0.5], 0.0), ([-1.5], -2.0), ([8_388_609.0], 8_388_609.0)]);
    }

    #[test]
    fn edges_of_the_simple_ones() {
        check_at(F::Sign, &[([3.0], 1.0), ([-1e-45], -1.0), ([0.0], 0.0), ([-0.0], 0.0), ([-INFINITY], -1.0), ([NAN], NAN)]);
        check_at(F::Saturate, &[([0.25], 0.25), ([-3.0], 0.0), ([7.0], 1.0), ([INFINITY], 1.0), ([NAN], NAN)]);
        check_at(F::Step, &[([1.0, 1.0], 1.0), ([1.0, 0.999], 0.0)]);
        check_at(F::Mix, &[([3.0, 5.0, 0.0], 3.0), ([3.0, 5.0, 1.0], 5.0)]);
        check_at(F::SmoothStep, &[([0.0, 2.0, 1.0], 0.5), ([0.0, 2.0, -1.0], 0.0), ([0.0, 2.0, 9.0], 1.0)]);
        check_at(F::InverseSqrt, &[([4.0], 0.5), ([0.0], INFINITY), ([INFINITY], 0.0), ([-1.0], NAN), ([NAN], NAN)]);
        check(F::InverseSqrt, f32::MIN_POSITIVE..=f32::MAX, |x| 1.0 / x.sqrt(), Allowed::Ulps(1.5));
    }

    #[test]
    fn functions_of_whole_vectors_are_refused() {
        let mut b = Builder::new("refused", [1, 1, 1]);
        let x = b.float(0.5);
        for function in [F::Dot, F::Cross, F::Length, F::Distance, F::Normalize, F::FaceForward, F::Reflect, F::Refract] {
            assert_eq!(component(&mut b, function, &[x]), None);
            assert_eq!(component(&mut b, function, &[x, x]), None);
            assert_eq!(component(&mut b, function, &[x, x, x]), None);
        }
        for function in [F::Outer, F::Transpose, F::Determinant, F::Inverse, F::Frexp, F::Modf, F::Pack4x8snorm, F::Unpack4xI8] {
            assert_eq!(component(&mut b, function, &[x]), None);
            assert_eq!(component(&mut b, function, &[x, x]), None);
        }
        assert_eq!(parts(&mut b, F::Sin, x), None);
    }
}
