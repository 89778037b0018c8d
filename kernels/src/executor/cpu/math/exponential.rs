//! Powers and logarithms.
//!
//! A number is taken apart into a power of two, which goes to or comes from the exponent's bits, and a rest in a
//! short interval, where a minimax polynomial is as good as f32. Nothing branches: ends of the range are met by
//! clamping what goes in, so that the exponent's bits themselves become 0 or infinity.
//!
//! Invariants: NaN in, NaN out; results that would be subnormal are 0, arguments of a logarithm that are
//! subnormal count as 0.
//!
//! **Source**: reduction in two parts after Cody and Waite, *Software Manual for the Elementary Functions* (1980);
//! the logarithm by `2 atanh((m - 1) / (m + 1))` as in fdlibm's `e_logf.c`; products in two parts after Dekker,
//! *A floating-point technique for extending the available precision* (1971). The coefficients are a Remez fit of
//! the relative error, rounded to f32 from the lowest to the highest with a new fit after each.

use std::f32::consts::{LN_2, LOG2_E};

use super::super::ir::{Scalar, Unary};
use super::term::{Term, WHOLE, polynomial};

/// `(e^r - 1) / r` for `r` in [0, ln 2], to 0.02 ULP of `e^r`.
const EXP: [f32; 6] = [0.9999998, 0.50000554, 0.1666117, 0.04191104, 0.007796889, 0.0019467314];

/// `(2^r - 1) / r` for `r` in [0, 1], to 0.02 ULP of `2^r`.
const EXP2: [f32; 6] = [0.69314706, 0.24022909, 0.055486184, 0.009673775, 0.0012482288, 0.00021565985];

/// `(ln m / s - 2) / s²` for `s = (m - 1) / (m + 1)`, over `s²`.
const LN: [f32; 3] = [0.66666776, 0.3997758, 0.2987096];

/// `2 / ln 2`, the first coefficient of `log2 m / s`, in two parts: a product of the first with 12 bits is exact.
const LOG2_LEAD: [f32; 2] = [2.8847656, 0.0006244568];

/// The others, over `s²`.
const LOG2_REST: [f32; 4] = [0.9617967, 0.5770788, 0.41192725, 0.33649096];

/// ln 2 in two parts, of which a product of the first with an exponent is exact.
const LN_2_PARTS: [f32; 2] = [0.6933594, -0.00021219444];

/// The bits of √½: what is at least that and below √2 has exponent 0 here.
const SQRT_HALF_BITS: u32 = 0x3f35_04f3;

/// `e^x`: 23 operators, 1.9 ULP.
pub(super) fn exp(x: Term<'_>) -> Term<'_> {
    exp_times(x.max(-88.02), 0)
}

/// `e^x 2^power` of an `x` that is at least -88.02, `power` being 0 or -1: 22 operators.
pub(super) fn exp_times(x: Term<'_>, power: i8) -> Term<'_> {
    let x = x.min(88.8 - f32::from(power));
    let whole = (x * LOG2_E).floor();
    let rest = x - whole * LN_2_PARTS[0] - whole * LN_2_PARTS[1];
    (rest * polynomial(rest, &EXP) + 1.0) * power_of_two(whole, power)
}

/// `2^x`: 19 operators, 1.7 ULP.
pub(super) fn exp2(x: Term<'_>) -> Term<'_> {
    let x = x.max(-127.0).min(128.0);
    let whole = x.floor();
    exp2_rest(x - whole) * power_of_two(whole, 0)
}

/// `2^rest` for `rest` in [0, 1].
fn exp2_rest(rest: Term<'_>) -> Term<'_> {
    rest * polynomial(rest, &EXP2) + 1.0
}

/// `2^(whole + power)`, 0 where that is -127, infinity where it is 128; not for what is beyond.
fn power_of_two(whole: Term<'_>, power: i8) -> Term<'_> {
    let exponent = whole + (WHOLE + 127.0 + f32::from(power));
    (exponent.bits(Scalar::U32) << 23_u32).bits(Scalar::F32)
}

/// `(e, m)` where `x = 2^e m` and `m` is in [√½, √2), for a normal `x > 0`; something for others.
fn taken_apart(x: Term<'_>) -> (Term<'_>, Term<'_>) {
    let bits = x.bits(Scalar::I32);
    let exponent = (bits - SQRT_HALF_BITS) >> 23_u32;
    let mantissa = bits - (exponent << 23_u32);
    (exponent, mantissa.bits(Scalar::F32))
}

/// `ln m` of a mantissa: 12 operators.
fn ln_of_mantissa(mantissa: Term<'_>) -> Term<'_> {
    let above = mantissa - 1.0;
    let slope = above / (mantissa + 1.0);
    let square = slope * slope;
    // 2 s is f - s f for this f: so what is rounded is small beside what is exact.
    above - slope * (above - square * polynomial(square, &LN))
}

/// `ln(2^power x)` of a normal finite `x > 0`: 19 operators.
pub(super) fn ln_times(x: Term<'_>, power: i32) -> Term<'_> {
    let (exponent, mantissa) = taken_apart(x);
    ln_of_mantissa(mantissa) + (exponent + power).unary(Unary::FloatOfI) * LN_2
}

/// `ln x`: 25 operators, 1.1 ULP.
pub(super) fn ln(x: Term<'_>) -> Term<'_> {
    with_ends(x, ln_times(x, 0))
}

/// `log2 x`: 25 operators, 1.9 ULP; powers of two exactly.
pub(super) fn log2(x: Term<'_>) -> Term<'_> {
    let (exponent, mantissa) = taken_apart(x);
    with_ends(x, ln_of_mantissa(mantissa) * LOG2_E + exponent.unary(Unary::FloatOfI))
}

/// A logarithm of what is not normal and positive: -∞ of 0, NaN of less, ∞ of ∞.
fn with_ends<'d>(x: Term<'d>, logarithm: Term<'d>) -> Term<'d> {
    let below = x.is_below(0.0).select(x.float(f32::NAN), f32::NEG_INFINITY);
    let above = x.is_below(f32::INFINITY).select(logarithm, x);
    x.is_below(f32::MIN_POSITIVE).select(below, above)
}

/// `x^y`: 84 operators, 1.9 ULP for `|y| <= 10` and 4 for any (sampled); an exponent that is known and simple takes 5
/// operators at most, 2.5 ULP. 1 for `y = 0`; NaN for `x < 0`, unless the known exponent makes it a product; infinite
/// from 3.4028e38 on.
pub(super) fn pow<'d>(x: Term<'d>, y: Term<'d>) -> Term<'d> {
    match y.known_float().and_then(|y| pow_known(x, y)) {
        Some(product) => product,
        None => pow_any(x, y),
    }
}

/// `x^y` for `y` a multiple of ½ that is at most 4 in size, by products and a root.
fn pow_known(x: Term<'_>, y: f32) -> Option<Term<'_>> {
    let halves = y.abs() * 2.0;
    if halves.fract() != 0.0 || halves > 8.0 {
        return None;
    }
    let whole = match halves as u32 / 2 {
        0 => None,
        1 => Some(x),
        2 => Some(x * x),
        3 => Some(x * x * x),
        _ => Some((x * x) * (x * x)),
    };
    let root = (halves as u32 % 2 == 1).then(|| x.sqrt());
    let product = match (whole, root) {
        (None, None) => x.float(1.0),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(whole), Some(root)) => whole * root,
    };
    Some(if y < 0.0 { 1.0 / product } else { product })
}

/// `x^y` as `2^(y log2 x)` with the logarithm and the product in two parts.
fn pow_any<'d>(x: Term<'d>, y: Term<'d>) -> Term<'d> {
    // Beyond this every power but that of 1 is 0 or infinite, and nothing below overflows.
    let y_clamped = y.max(-4e9).min(4e9);
    let [high, low] = log2_parts(x);
    let y_high = leading(y_clamped);
    let product_high = y_high * high;
    let product_low = (y_clamped - y_high) * high + y_clamped * low;
    let product = product_high + product_low;
    let lost = product_low - (product - product_high);
    let clamped = product.max(-127.0).min(128.0);
    let whole = clamped.floor();
    // Where the clamp bites, `lost` can be anything, and the polynomial is still positive and finite.
    let power = exp2_rest((clamped - whole) + lost) * power_of_two(whole, 0);
    // 0, infinity and NaN are their own powers, or the reciprocals of those; what is below 0 has none.
    let end = x.sqrt() * x;
    let end = y.is_at_most(0.0).select(1.0 / end, end);
    let plain = [f32::MIN_POSITIVE.to_bits(), f32::INFINITY.to_bits()];
    let is_plain = (x.bits(Scalar::U32) - plain[0]).is_below(plain[1] - plain[0]);
    (is_plain | !y.float(0.0).is_below(y.abs())).select(power, end)
}

/// `log2 x` of a normal finite `x > 0` as a sum, the first part of 12 bits, to 2^-33 of it.
fn log2_parts(x: Term<'_>) -> [Term<'_>; 2] {
    let (exponent, mantissa) = taken_apart(x);
    let exponent = exponent.unary(Unary::FloatOfI);
    let (above, below) = (mantissa - 1.0, mantissa + 1.0);
    let reciprocal = 1.0 / below;
    let slope = above * reciprocal;
    let slope_high = leading(slope);
    let below_high = leading(below);
    let below_low = mantissa - (below_high - 1.0);
    let slope_low = (above - slope_high * below_high - slope_high * below_low) * reciprocal;
    let slope = slope_high + slope_low;
    let square = slope * slope;
    let rest = slope * square * polynomial(square, &LOG2_REST);
    let lead = slope_high * LOG2_LEAD[0];
    let tail = slope_low * (2.0 * LOG2_E) + (slope_high * LOG2_LEAD[1] + rest);
    let sum = exponent + lead;
    let tail = (lead - (sum - exponent)) + tail;
    let high = leading(sum + tail);
    [high, (sum - high) + tail]
}

/// The leading 12 bits: the product of two such is exact.
fn leading(x: Term<'_>) -> Term<'_> {
    (x.bits(Scalar::U32) & 0xffff_f000_u32).bits(Scalar::F32)
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Allowed, Formula, check, check_at, check_operators, check_pairs};
    use super::*;
    use naga::MathFunction as F;

    const INFINITY: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;

    #[test]
    fn exponentials_are_close() {
        check(F::Exp, -87.33654..=88.72283, f64::exp, Allowed::Ulps(1.9));
        check(F::Exp, -1e-3..=1e-3, f64::exp, Allowed::Ulps(1.9));
        check(F::Exp2, -126.0..=127.99999, f64::exp2, Allowed::Ulps(1.7));
        check(F::Exp2, -1e-3..=1e-3, f64::exp2, Allowed::Ulps(1.7));
    }

    #[test]
    fn exponentials_end_in_zero_and_infinity() {
        check_at(F::Exp, &[([0.0], 1.0), ([-0.0], 1.0), ([1e-45], 1.0), ([88.73], INFINITY), ([1e30], INFINITY), ([INFINITY], INFINITY)]);
        check_at(F::Exp, &[([-88.0], 0.0), ([-1e30], 0.0), ([-INFINITY], 0.0), ([NAN], NAN), ([-NAN], NAN)]);
        check_at(F::Exp2, &[([0.0], 1.0), ([10.0], 1024.0), ([-126.0], f32::MIN_POSITIVE), ([127.0], 127_f32.exp2())]);
        check_at(F::Exp2, &[([128.0], INFINITY), ([INFINITY], INFINITY), ([-127.0], 0.0), ([-INFINITY], 0.0), ([NAN], NAN)]);
    }

    #[test]
    fn logarithms_are_close() {
        for range in [f32::MIN_POSITIVE..=0.5, 0.5..=0.9999, 1.0001..=2.0, 0.999..=1.001, 2.0..=f32::MAX] {
            check(F::Log, range.clone(), f64::ln, Allowed::Ulps(1.1));
            check(F::Log2, range, f64::log2, Allowed::Ulps(1.9));
        }
    }

    #[test]
    fn logarithms_of_what_has_none() {
        for function in [F::Log, F::Log2] {
            check_at(function, &[([1.0], 0.0), ([0.0], -INFINITY), ([-0.0], -INFINITY), ([1e-45], -INFINITY)]);
            check_at(function, &[([-1e-30], NAN), ([-INFINITY], NAN), ([INFINITY], INFINITY), ([NAN], NAN), ([-NAN], NAN)]);
        }
        let powers: Vec<_> = (-126..=127_i8).map(|power| ([f32::from(power).exp2()], f32::from(power))).collect();
        check_at(F::Log2, &powers);
    }

    #[test]
    fn powers_are_close() {
        check_pairs(F::Pow, [1e-3..=100.0, -10.0..=10.0], f64::powf, Allowed::Ulps(1.9));
        check_pairs(F::Pow, [0.7..=1.5, -160.0..=160.0], f64::powf, Allowed::Ulps(4.0));
        check_pairs(F::Pow, [0.995..=1.005, -15e3..=15e3], f64::powf, Allowed::Ulps(1.9));
        check_pairs(F::Pow, [1e-30..=1e30, -1.2..=1.2], f64::powf, Allowed::Ulps(1.9));
    }

    #[test]
    fn powers_end_as_they_should() {
        for x in [0.0, 1e-45, 0.5, 1.0, 3.0, -2.0, INFINITY, NAN] {
            check_at(F::Pow, &[([x, 0.0], 1.0), ([x, -0.0], 1.0)]);
        }
        for y in [1.0, -1.0, 0.3, 1e9, -1e38, INFINITY, -INFINITY] {
            check_at(F::Pow, &[([1.0, y], 1.0), ([-1.0, y], NAN), ([-1e-30, y], NAN), ([NAN, y], NAN), ([y.abs() + 1.0, NAN], NAN)]);
        }
        for y in [1e-30, 0.5, 1.0, 2.0, 1e30, INFINITY] {
            check_at(F::Pow, &[([0.0, y], 0.0), ([INFINITY, y], INFINITY), ([0.0, -y], INFINITY), ([INFINITY, -y], 0.0)]);
        }
        check_at(F::Pow, &[([2.0, INFINITY], INFINITY), ([2.0, -INFINITY], 0.0), ([0.5, INFINITY], 0.0), ([0.5, -INFINITY], INFINITY)]);
        check_at(F::Pow, &[([2.0, 1e30], INFINITY), ([2.0, 10.0], 1024.0), ([1e10, 4.1], INFINITY), ([1e-10, 4.1], 0.0)]);
        for step in 0..2000_u16 {
            let y = 1.0 + f32::from(step).powi(3) * 0.4;
            check_at(F::Pow, &[([1.1e38, y * 4.1], INFINITY), ([1.1e38, y * -4.1], 0.0), ([2e-38, y * 4.1], 0.0), ([2e-38, y * -4.1], INFINITY)]);
        }
    }

    #[test]
    fn known_powers_are_products() {
        for halves in -8..=8_i8 {
            let power = f32::from(halves) / 2.0;
            let formula = Formula::new(&[Scalar::F32], |b, operands| {
                let power = b.float(power);
                super::super::component(b, F::Pow, &[operands[0], power]).into_iter().collect()
            });
            assert!(formula.operators() <= 5, "{power} takes {}", formula.operators());
            for x in [1e-3_f32, 0.3, 0.9999, 1.0, 2.0, 17.3, 1e6] {
                let exact = f64::from(x).powf(power.into());
                let found = f64::from(formula.float(&[x]));
                assert!((found - exact).abs() <= exact * 2.5 * f64::from(f32::EPSILON), "{x}^{power} = {found}, not {exact}");
            }
        }
    }

    #[test]
    fn operators_are_as_few_as_said() {
        for (function, operators) in [(F::Exp, 23), (F::Exp2, 19), (F::Log, 25), (F::Log2, 25)] {
            check_operators(function, &[Scalar::F32], operators);
        }
        check_operators(F::Pow, &[Scalar::F32; 2], 84);
    }
}
