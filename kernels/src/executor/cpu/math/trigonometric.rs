//! Trigonometric functions and their inverses.
//!
//! An angle is reduced by the nearest multiple of π (of π/2 for the tangent), which is subtracted in three parts:
//! products with the first two are exact up to |x| = 1e5, and on [-π, π] so is the third. Farther out the rest
//! loses its meaning but stays in its interval, and the result in [-1, 1].
//!
//! Invariants: NaN and infinities in, NaN out; the same bits on every machine, for any angle.
//!
//! **Source**: one polynomial on [-π/2, π/2] and the arctangent of a quotient below 1 as in SLEEF (N. Shibata,
//! `sinf_u35`, `atan2f_u35`); `asin` and `tan` divided as in Cephes (S. Moshier, `asinf.c`, `tanf.c`); reduction after
//! Cody and Waite. Coefficients as in `exponential`.

use std::f32::consts::{FRAC_1_PI, FRAC_2_PI, FRAC_PI_2, PI};

use super::super::ir::Scalar;
use super::term::{Term, WHOLE, odd, polynomial};

/// π in three parts: 8 bits, 7 bits and the rest to 2^-46.
const PI_PARTS: [f32; 3] = [3.140625, 0.0009689331, -1.2795157e-6];

/// `(sin x / x - 1) / x²` over `x²` for `|x| <= π/2`.
const SIN: [f32; 4] = [-0.1666666, 0.0083330665, -0.00019809442, 2.6051475e-6];

/// `(tan x / x - 1) / x²` over `x²` for `|x| <= π/4`.
const TAN: [f32; 6] = [0.3333313, 0.13339539, 0.053349357, 0.024653299, 0.002758903, 0.00960069];

/// `(asin x / x - 1) / x²` over `x²` for `|x| <= 1/2`.
const ASIN: [f32; 5] = [0.16666752, 0.074953094, 0.045469154, 0.024184743, 0.042158388];

/// `(atan x / x - 1) / x²` over `x²` for `|x| <= 1`.
const ATAN: [f32; 8] = [-0.33333153, 0.19993767, -0.14211002, 0.10665773, -0.07551689, 0.043205414, -0.016363857, 0.0029196516];

/// `sin x`: 23 operators, 2 ULP on [-π, π], 1.2e-7 up to 1e5.
pub(super) fn sin(x: Term<'_>) -> Term<'_> {
    let shifted = x * FRAC_1_PI + WHOLE;
    let rest = reduced(x, shifted - WHOLE, 1.0);
    flipped_if_odd(odd(rest, &SIN), shifted)
}

/// `cos x`: 24 operators, 2 ULP on [-π, π], 1.2e-7 up to 1e5.
pub(super) fn cos(x: Term<'_>) -> Term<'_> {
    // Between two zeros of the cosine it is a sine about the zero, which is at a half.
    let whole = (x * FRAC_1_PI).floor();
    let rest = reduced(x, whole + 0.5, 1.0);
    flipped_if_odd(odd(rest, &SIN), whole + (WHOLE + 1.0))
}

/// `tan x`: 29 operators, 2.5 ULP on [-π, π].
pub(super) fn tan(x: Term<'_>) -> Term<'_> {
    let shifted = x * FRAC_2_PI + WHOLE;
    let rest = reduced(x, shifted - WHOLE, 0.5);
    let tangent = odd(rest, &TAN);
    (shifted.bits(Scalar::U32) & 1_u32).is(0_u32).select(tangent, -1.0 / tangent)
}

/// `x - turns part π`, kept within `part` ±1.6: ±π/2 and what `turns` can be off at |x| = 1e5.
fn reduced<'d>(x: Term<'d>, turns: Term<'d>, part: f32) -> Term<'d> {
    let rest = PI_PARTS.iter().fold(x, |rest, pi| rest - turns * (pi * part));
    rest.max(-1.6 * part).min(1.6 * part)
}

/// With the other sign where the whole number in the low bits of `shifted` is odd.
fn flipped_if_odd<'d>(value: Term<'d>, shifted: Term<'d>) -> Term<'d> {
    let sign = shifted.bits(Scalar::U32) << 31_u32;
    (value.bits(Scalar::U32) ^ sign).bits(Scalar::F32)
}

/// `asin x`: 24 operators, 2.4 ULP; NaN for `|x| > 1`.
pub(super) fn asin(x: Term<'_>) -> Term<'_> {
    let (is_near, arc) = arc_near(x);
    is_near.select(arc, FRAC_PI_2 - (arc + arc)).signed_as(x)
}

/// `acos x`: 27 operators, 1.3 ULP; NaN for `|x| > 1`.
pub(super) fn acos(x: Term<'_>) -> Term<'_> {
    let (is_near, arc) = arc_near(x);
    let twice = arc + arc;
    let far = x.is_below(0.0).select(PI - twice, twice);
    is_near.select(FRAC_PI_2 - arc.signed_as(x), far)
}

/// Whether `|x|` is at most ½, and `asin |x|` if so, otherwise `asin √((1 - |x|) / 2)`, which is half of `acos |x|`.
fn arc_near(x: Term<'_>) -> (Term<'_>, Term<'_>) {
    let size = x.abs();
    let is_near = size.is_at_most(0.5);
    let half = (1.0 - size) * 0.5;
    let square = is_near.select(size * size, half);
    let root = is_near.select(size, half.sqrt());
    (is_near, root * polynomial(square, &ASIN) * square + root)
}

/// `atan x`: 27 operators, 2.2 ULP.
pub(super) fn atan(x: Term<'_>) -> Term<'_> {
    let size = x.abs();
    let quotient = size.min(1.0) / size.max(1.0);
    let arc = odd(quotient, &ATAN);
    size.is_at_most(1.0).select(arc, FRAC_PI_2 - arc).signed_as(x)
}

/// `atan2(y, x)`: 34 operators, 2.3 ULP (sampled); zeros and infinities as in C.
pub(super) fn atan2<'d>(y: Term<'d>, x: Term<'d>) -> Term<'d> {
    let (height, width) = (y.abs(), x.abs());
    // In this order a NaN on either side gets into the quotient; 0 / 0 becomes 0, ∞ / ∞ becomes 1.
    let shorter = height.min(width);
    let longer = width.max(height).max(f32::from_bits(1));
    let quotient = shorter.is(longer).select(shorter.float(1.0), shorter / longer);
    let arc = odd(quotient, &ATAN);
    let steep = width.is_below(height).select(FRAC_PI_2 - arc, arc);
    let left = x.bits(Scalar::I32).is_below(0_u32).select(PI - steep, steep);
    left.signed_as(y)
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Allowed, Formula, check, check_at, check_operators, check_pairs};
    use super::*;
    use naga::MathFunction as F;

    const INFINITY: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;

    #[test]
    fn sines_are_close() {
        for range in [-PI..=PI, -1e-3..=1e-3, PI - 1e-4..=PI, FRAC_PI_2 - 1e-4..=FRAC_PI_2 + 1e-4] {
            check(F::Sin, range.clone(), f64::sin, Allowed::Ulps(2.0));
            check(F::Cos, range.clone(), f64::cos, Allowed::Ulps(2.0));
            check(F::Tan, range, f64::tan, Allowed::Ulps(2.5));
        }
        for range in [-100.0..=100.0, -1e5..=1e5] {
            check(F::Sin, range.clone(), f64::sin, Allowed::Absolute(1.2e-7));
            check(F::Cos, range, f64::cos, Allowed::Absolute(1.2e-7));
        }
    }

    #[test]
    fn sines_of_anything_stay_in_bounds() {
        for function in [F::Sin, F::Cos] {
            let formula = Formula::component(function, &[Scalar::F32]);
            for bits in (0..=f32::MAX.to_bits()).step_by(99_991) {
                let x = f32::from_bits(bits);
                let (plus, minus) = (formula.float(&[x]), formula.float(&[-x]));
                assert!(plus.abs() <= 1.0 && minus.abs() <= 1.0, "{function:?}(±{x:e}) = {plus}, {minus}");
            }
        }
        for function in [F::Sin, F::Cos, F::Tan] {
            check_at(function, &[([INFINITY], NAN), ([-INFINITY], NAN), ([NAN], NAN), ([-NAN], NAN)]);
        }
        check_at(F::Sin, &[([0.0], 0.0), ([1e-40], 1e-40), ([-1e-20], -1e-20)]);
        check_at(F::Cos, &[([0.0], 1.0), ([1e-40], 1.0), ([1e-4], 1.0)]);
        check_at(F::Tan, &[([0.0], 0.0), ([1e-40], 1e-40), ([-1e-20], -1e-20)]);
    }

    #[test]
    fn arcs_are_close() {
        check(F::Asin, -1.0..=1.0, f64::asin, Allowed::Ulps(2.4));
        check(F::Acos, -1.0..=1.0, f64::acos, Allowed::Ulps(1.3));
        check(F::Acos, 0.999..=1.0, f64::acos, Allowed::Ulps(1.3));
        check(F::Atan, -4.0..=4.0, f64::atan, Allowed::Ulps(2.2));
        check(F::Atan, f32::MIN..=f32::MAX, f64::atan, Allowed::Ulps(2.2));
        check_pairs(F::Atan2, [-1.0..=1.0, -1.0..=1.0], f64::atan2, Allowed::Ulps(2.3));
        check_pairs(F::Atan2, [-1e-30..=1e-30, -1e-25..=1e-25], f64::atan2, Allowed::Ulps(2.3));
        check_pairs(F::Atan2, [-3e38..=3e38, -3e38..=3e38], f64::atan2, Allowed::Ulps(2.3));
    }

    #[test]
    fn arcs_end_as_they_should() {
        check_at(F::Asin, &[([0.0], 0.0), ([1.0], FRAC_PI_2), ([-1.0], -FRAC_PI_2), ([1.0001], NAN), ([-2.0], NAN), ([INFINITY], NAN), ([NAN], NAN)]);
        check_at(F::Acos, &[([1.0], 0.0), ([0.0], FRAC_PI_2), ([-1.0], PI), ([1.0001], NAN), ([-2.0], NAN), ([-INFINITY], NAN), ([NAN], NAN)]);
        check_at(F::Atan, &[([0.0], 0.0), ([1e-40], 1e-40), ([INFINITY], FRAC_PI_2), ([-INFINITY], -FRAC_PI_2), ([NAN], NAN)]);
    }

    #[test]
    fn arcs_of_pairs_keep_their_quadrant() {
        let three_quarters = 3.0 * std::f32::consts::FRAC_PI_4;
        check_at(F::Atan2, &[([0.0, 0.0], 0.0), ([0.0, 1.0], 0.0), ([0.0, -1.0], PI), ([-0.0, -1.0], -PI), ([0.0, -0.0], PI)]);
        check_at(F::Atan2, &[([1.0, 0.0], FRAC_PI_2), ([-1.0, 0.0], -FRAC_PI_2), ([1e-45, 0.0], FRAC_PI_2), ([1.0, 1e-45], FRAC_PI_2)]);
        check_at(F::Atan2, &[([INFINITY, 1.0], FRAC_PI_2), ([1.0, INFINITY], 0.0), ([-1.0, -INFINITY], -PI), ([-INFINITY, 1.0], -FRAC_PI_2)]);
        check_at(F::Atan2, &[([INFINITY, -INFINITY], three_quarters), ([-2.0, -2.0], -three_quarters)]);
        check_at(F::Atan2, &[([NAN, 1.0], NAN), ([1.0, NAN], NAN), ([NAN, NAN], NAN), ([NAN, 0.0], NAN), ([0.0, NAN], NAN)]);
    }

    #[test]
    fn operators_are_as_few_as_said() {
        for (function, operators) in [(F::Sin, 23), (F::Cos, 24), (F::Tan, 29), (F::Asin, 24), (F::Acos, 27), (F::Atan, 27)] {
            check_operators(function, &[Scalar::F32], operators);
        }
        check_operators(F::Atan2, &[Scalar::F32; 2], 34);
    }
}
