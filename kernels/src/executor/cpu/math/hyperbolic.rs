//! Hyperbolic functions and their inverses.
//!
//! Away from 0 they are what the exponential and the logarithm make of them, with a factor of two carried in the
//! exponent so that nothing overflows before its time; near 0, where those would cancel, they are odd polynomials.
//! Invariant: NaN in, NaN out.
//!
//! **Source**: the division of the range as in Cephes (S. Moshier, `sinhf.c`, `asinhf.c`, `acoshf.c`, `atanhf.c`);
//! `tanh` as one rational function, as Eigen's `ptanh` has it. Coefficients as in `exponential`.

use super::exponential::{exp_times, ln_times};
use super::term::{Term, odd, polynomial};

/// `(sinh x / x - 1) / x²` over `x²` for `|x| <= 1`.
const SINH: [f32; 3] = [0.16666716, 0.008330271, 0.0002037334];

/// `tanh x / x` over `x²` for `|x| <= 9`: above and below the fraction, which at 9 is 1 to the bit.
const TANH: [[f32; 5]; 2] = [[1.0, 0.1338269, 0.0034974725, 2.0636538e-5, 1.3386086e-8], [1.0, 0.4671601, 0.025884386, 0.00032885623, 7.7908203e-7]];

/// `(asinh x / x - 1) / x²` over `x²` for `|x| <= 0.5`.
const ASINH: [f32; 4] = [-0.16666289, 0.07484769, -0.04269996, 0.020123145];

/// `acosh x / √(x - 1)` over `x - 1` for `x` in [1, 1.5].
const ACOSH: [f32; 5] = [std::f32::consts::SQRT_2, -0.11784774, 0.026457254, -0.007533569, 0.0017652704];

/// `(atanh x / x - 1) / x²` over `x²` for `|x| <= 0.5`.
const ATANH: [f32; 5] = [0.3333373, 0.19978186, 0.14669555, 0.082415, 0.18178017];

/// Beyond this `x ± √(x² ± 1)` is `2 x`.
const STEEP: f32 = 8192.0;

/// `sinh x`: 37 operators, 2 ULP.
pub(super) fn sinh(x: Term<'_>) -> Term<'_> {
    let size = x.abs();
    let half = exp_times(size, -1);
    let far = (half - 0.25 / half).signed_as(x);
    size.is_below(1.0).select(odd(x, &SINH), far)
}

/// `cosh x`: 25 operators, 2 ULP.
pub(super) fn cosh(x: Term<'_>) -> Term<'_> {
    let half = exp_times(x.abs(), -1);
    half + 0.25 / half
}

/// `tanh x`: 23 operators, 3.5 ULP for `|x| <= 1` and 6.5 for any, never beyond ±1.
pub(super) fn tanh(x: Term<'_>) -> Term<'_> {
    let x = x.max(-9.0).min(9.0);
    let square = x * x;
    let fraction = x * polynomial(square, &TANH[0]) / polynomial(square, &TANH[1]);
    fraction.max(-1.0).min(1.0)
}

/// `asinh x`: 45 operators, 4 ULP.
pub(super) fn asinh(x: Term<'_>) -> Term<'_> {
    let size = x.abs();
    let half = size * 0.5 + (size * size + 1.0).sqrt() * 0.5;
    let far = ln_twice(size, half).signed_as(x);
    size.is_below(0.5).select(odd(x, &ASINH), far)
}

/// `acosh x`: 43 operators, 2.3 ULP; NaN for `x < 1`.
pub(super) fn acosh(x: Term<'_>) -> Term<'_> {
    let above = x - 1.0;
    let near = above.sqrt() * polynomial(above, &ACOSH);
    let half = x * 0.5 + (above * (x + 1.0)).sqrt() * 0.5;
    x.is_below(1.5).select(near, ln_twice(x, half))
}

/// `ln(2 half)`, where `half` is `x` once `x` is [`STEEP`].
fn ln_twice<'d>(x: Term<'d>, half: Term<'d>) -> Term<'d> {
    let half = x.is_below(STEEP).select(half, x);
    x.is_below(f32::INFINITY).select(ln_times(half, 1), x)
}

/// `atanh x`: 44 operators, 1.4 ULP; NaN for `|x| > 1`.
pub(super) fn atanh(x: Term<'_>) -> Term<'_> {
    let size = x.abs();
    let ratio = (size + 1.0) / (1.0 - size);
    let far = ratio.is_below(f32::INFINITY).select(ln_times(ratio, 0) * 0.5, ratio).signed_as(x);
    let far = size.is_at_most(1.0).select(far, f32::NAN);
    size.is_below(0.5).select(odd(x, &ATANH), far)
}

#[cfg(test)]
mod tests {
    use super::super::super::ir::Scalar;
    use super::super::measure::{Allowed, Formula, check, check_at, check_operators};
    use naga::MathFunction as F;

    const INFINITY: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;

    #[test]
    fn hyperbolics_are_close() {
        for range in [-2.0..=2.0, -89.41..=89.41] {
            check(F::Sinh, range.clone(), f64::sinh, Allowed::Ulps(2.0));
            check(F::Cosh, range, f64::cosh, Allowed::Ulps(2.0));
        }
        let tanh = Formula::component(F::Tanh, &[Scalar::F32]);
        for x in (0..40_000_u16).map(|at| 6.0 + f32::from(at) * 1e-4) {
            assert!(tanh.float(&[x]) <= 1.0 && tanh.float(&[-x]) >= -1.0, "{x}");
        }
        check(F::Tanh, -1.0..=1.0, f64::tanh, Allowed::Ulps(3.5));
        check(F::Tanh, -12.0..=12.0, f64::tanh, Allowed::Ulps(6.5));
    }

    #[test]
    fn hyperbolics_end_as_they_should() {
        check_at(F::Sinh, &[([0.0], 0.0), ([1e-30], 1e-30), ([90.0], INFINITY), ([-90.0], -INFINITY), ([-INFINITY], -INFINITY), ([NAN], NAN)]);
        check_at(F::Cosh, &[([0.0], 1.0), ([1e-30], 1.0), ([90.0], INFINITY), ([-90.0], INFINITY), ([-INFINITY], INFINITY), ([NAN], NAN)]);
        check_at(F::Tanh, &[([0.0], 0.0), ([1e-30], 1e-30), ([1e30], 1.0), ([-1e30], -1.0), ([-INFINITY], -1.0), ([NAN], NAN)]);
    }

    #[test]
    fn inverses_are_close() {
        for range in [-1.0..=1.0, -1e4..=1e4, f32::MIN..=f32::MAX] {
            check(F::Asinh, range, f64::asinh, Allowed::Ulps(4.0));
        }
        check(F::Acosh, 1.0..=1e4, f64::acosh, Allowed::Ulps(2.3));
        check(F::Acosh, 1.0..=2.0, f64::acosh, Allowed::Ulps(2.3));
        check(F::Acosh, 1e4..=f32::MAX, f64::acosh, Allowed::Ulps(1.2));
        check(F::Atanh, -0.999_999_94..=0.999_999_94, f64::atanh, Allowed::Ulps(1.4));
    }

    #[test]
    fn inverses_end_as_they_should() {
        check_at(F::Asinh, &[([0.0], 0.0), ([-1e-30], -1e-30), ([INFINITY], INFINITY), ([-INFINITY], -INFINITY), ([NAN], NAN)]);
        check_at(F::Acosh, &[([1.0], 0.0), ([0.999], NAN), ([-5.0], NAN), ([-1e9], NAN), ([-INFINITY], NAN), ([INFINITY], INFINITY), ([NAN], NAN)]);
        check_at(F::Atanh, &[([0.0], 0.0), ([1.0], INFINITY), ([-1.0], -INFINITY), ([1.01], NAN), ([-3.0], NAN), ([INFINITY], NAN), ([NAN], NAN)]);
    }

    #[test]
    fn operators_are_as_few_as_said() {
        for (function, operators) in [(F::Sinh, 37), (F::Cosh, 25), (F::Tanh, 23), (F::Asinh, 45), (F::Acosh, 43), (F::Atanh, 44)] {
            check_operators(function, &[Scalar::F32], operators);
        }
    }
}
