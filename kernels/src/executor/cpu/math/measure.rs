//! Runs formulas as the back halves do, one operator after the other, and measures their errors.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use naga::MathFunction;

use super::super::builder::Builder;
use super::super::ir::{Memory, Op, Scalar, Unary, ValueId};
use super::super::ops;

/// A function of unknown operands, ready to be run with known ones.
pub(super) struct Formula {
    /// What is to be computed, and in which place it goes.
    steps: Vec<(usize, Op)>,
    results: Vec<ValueId>,
    /// By place: the constants, and what was computed last.
    bits: RefCell<Vec<u32>>,
}

impl Formula {
    /// What `emit` makes of operands of these scalars.
    pub(super) fn new(scalars: &[Scalar], emit: impl FnOnce(&mut Builder, &[ValueId]) -> Vec<ValueId>) -> Formula {
        let mut builder = Builder::new("formula", [1, 1, 1]);
        let zero = builder.uint(0);
        let operand = |(place, &scalar)| builder.load(scalar, Memory::Private, zero, place as u32);
        let operands: Vec<ValueId> = scalars.iter().enumerate().map(operand).collect();
        let results = emit(&mut builder, &operands);
        let values = &builder.kernel().values;
        let constant = |op| if let Op::Const(bits) = op { bits } else { 0 };
        let bits = values.iter().map(|value| constant(value.op)).collect();
        let steps = values.iter().enumerate().map(|(place, value)| (place, value.op));
        let steps = steps.filter(|(_, op)| !matches!(op, Op::Const(_))).collect();
        Formula { steps, results, bits: RefCell::new(bits) }
    }

    /// A component-wise function.
    pub(super) fn component(function: MathFunction, scalars: &[Scalar]) -> Formula {
        Formula::new(scalars, |b, operands| super::component(b, function, operands).into_iter().collect())
    }

    /// Every result, for these operands.
    pub(super) fn all(&self, operands: &[u32]) -> Vec<u32> {
        let mut bits = self.bits.borrow_mut();
        for &(place, op) in &self.steps {
            let at = |id: ValueId| bits[id.0 as usize];
            bits[place] = match op {
                Op::Load { offset, .. } => operands[offset as usize],
                Op::Unary(op, a) => ops::unary(op, at(a)),
                Op::Binary(op, a, b) => ops::binary(op, at(a), at(b)),
                Op::Select { condition, accept, reject } => at(if at(condition) != 0 { accept } else { reject }),
                op => panic!("a formula has no {op:?}"),
            };
        }
        self.results.iter().map(|result| bits[result.0 as usize]).collect()
    }

    /// The first result.
    pub(super) fn run(&self, operands: &[u32]) -> u32 {
        self.all(operands)[0]
    }

    /// The f32 that f32s give.
    pub(super) fn float(&self, operands: &[f32]) -> f32 {
        let bits: Vec<u32> = operands.iter().map(|x| x.to_bits()).collect();
        f32::from_bits(self.run(&bits))
    }

    /// Operators that a back half runs: a change of scalar is none.
    pub(super) fn operators(&self) -> usize {
        let is_operator = |op: Op| match op {
            Op::Unary(op, _) => op != Unary::Bits,
            Op::Binary(..) | Op::Select { .. } => true,
            _ => false,
        };
        self.steps.iter().filter(|(_, op)| is_operator(*op)).count()
    }
}

/// How an error is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowed {
    /// In steps between f32s where the exact result is.
    Ulps(f64),
    /// As it is.
    Absolute(f64),
}

/// Samples of a range, in each of two orders.
const SAMPLES: u32 = 20_000;

/// Holds a function of one f32 against `exact` over a range: evenly over it, and evenly over its f32s.
#[track_caller]
pub(super) fn check(function: MathFunction, range: RangeInclusive<f32>, exact: fn(f64) -> f64, allowed: Allowed) {
    let formula = Formula::component(function, &[Scalar::F32]);
    let (low, high) = (f64::from(*range.start()), f64::from(*range.end()));
    let evenly = (0..=SAMPLES).map(|at| (low + (high - low) * f64::from(at) / f64::from(SAMPLES)) as f32);
    let (first, last) = (i64::from(ordinal(*range.start())), i64::from(ordinal(*range.end())));
    let by_bits = (0..=SAMPLES).map(|at| at_ordinal((first + (last - first) * i64::from(at) / i64::from(SAMPLES)) as i32));
    let error = |x: f32| (error(formula.float(&[x]), exact(x.into()), allowed), x);
    let (worst, x) = evenly.chain(by_bits).map(error).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
    let (Allowed::Ulps(most) | Allowed::Absolute(most)) = allowed;
    assert!(worst <= most, "{function:?}({x:e}) = {:e} is off by {worst:e}, {allowed:?}", formula.float(&[x]));
}

/// Holds a function of two f32s against `exact` over a rectangle.
#[track_caller]
pub(super) fn check_pairs(function: MathFunction, [a, b]: [RangeInclusive<f32>; 2], exact: fn(f64, f64) -> f64, allowed: Allowed) {
    let formula = Formula::component(function, &[Scalar::F32; 2]);
    let within = |range: &RangeInclusive<f32>, part: f64| {
        let (low, high) = (f64::from(*range.start()), f64::from(*range.end()));
        (low + (high - low) * part) as f32
    };
    // A lattice without rows: multiples of the reciprocals of the plastic number and of its square.
    let points = (0..SAMPLES).map(|at| [0.754_877_666_246_692_7, 0.569_840_290_998_053_2].map(|step| (step * f64::from(at)).fract()));
    let error = |[s, t]: [f64; 2]| {
        let (x, y) = (within(&a, s), within(&b, t));
        (error(formula.float(&[x, y]), exact(x.into(), y.into()), allowed), x, y)
    };
    let (worst, x, y) = points.map(error).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
    let (Allowed::Ulps(most) | Allowed::Absolute(most)) = allowed;
    assert!(worst <= most, "{function:?}({x:e}, {y:e}) = {:e} is off by {worst:e}, {allowed:?}", formula.float(&[x, y]));
}

/// Holds single results against what they must be: NaN for NaN, zeros of either sign for zeros.
#[track_caller]
pub(super) fn check_at<const N: usize>(function: MathFunction, cases: &[([f32; N], f32)]) {
    let formula = Formula::component(function, &[Scalar::F32; N]);
    for (operands, expected) in cases {
        let found = formula.float(operands);
        assert!(found == *expected || found.is_nan() && expected.is_nan(), "{function:?}{operands:?} = {found:e}, not {expected:e}");
    }
}

/// Holds the operators that a function takes against what its documentation says.
#[track_caller]
pub(super) fn check_operators(function: MathFunction, scalars: &[Scalar], operators: usize) {
    assert_eq!(Formula::component(function, scalars).operators(), operators, "{function:?}");
}

fn error(found: f32, exact: f64, allowed: Allowed) -> f64 {
    let distance = (f64::from(found) - exact).abs();
    match allowed {
        // No comparison holds with NaN: it is as wrong as can be.
        _ if distance.is_nan() => f64::INFINITY,
        Allowed::Absolute(_) => distance,
        Allowed::Ulps(_) => {
            let exponent = exact.abs().max(f32::MIN_POSITIVE.into()).log2().floor();
            distance / (exponent - 23.0).exp2()
        }
    }
}

/// The place of an f32 among all f32s.
fn ordinal(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits }
}

fn at_ordinal(ordinal: i32) -> f32 {
    f32::from_bits(if ordinal < 0 { i32::MIN.wrapping_sub(ordinal) } else { ordinal } as u32)
}
