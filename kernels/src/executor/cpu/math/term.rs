//! A value in the middle of a formula: Rust's operators on [`Term`]s emit the IR's.
//!
//! `+ - * /` mean what the scalar of the left operand says (`AddF` for an f32, `Add` for an integer), a number
//! beside a term is a constant of that scalar. Invariant: one operator here is one [`Op`](super::super::ir::Op)
//! there, in the order written, so that a formula rounds exactly where it shows an operator.

use std::cell::RefCell;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Shl, Shr, Sub};

use super::super::builder::Builder;
use super::super::ir::{Binary, Scalar, Unary, ValueId};

/// Where f32s are 1 apart: a number added to it is rounded to a whole one, which then stands in the low bits.
pub(super) const WHOLE: f32 = 12_582_912.0;

/// The builder that all terms of a formula share.
pub(super) type Desk<'d> = RefCell<&'d mut Builder>;

/// A value of the kernel, and where to put what is made of it.
#[derive(Clone, Copy)]
pub(super) struct Term<'d> {
    desk: &'d Desk<'d>,
    id: ValueId,
}

/// What may stand to the right of an operator: a term or a number.
pub(super) trait Operand<'d> {
    /// The term, or the number as a constant of the scalar of `like`.
    fn beside(self, like: Term<'d>) -> Term<'d>;
}

impl<'d> Operand<'d> for Term<'d> {
    fn beside(self, _: Term<'d>) -> Term<'d> {
        self
    }
}

impl<'d> Operand<'d> for f32 {
    fn beside(self, like: Term<'d>) -> Term<'d> {
        like.float(self)
    }
}

impl<'d> Operand<'d> for u32 {
    fn beside(self, like: Term<'d>) -> Term<'d> {
        like.constant(like.scalar(), self)
    }
}

impl<'d> Operand<'d> for i32 {
    fn beside(self, like: Term<'d>) -> Term<'d> {
        like.constant(like.scalar(), self as u32)
    }
}

impl<'d> Term<'d> {
    /// A value as a term.
    pub(super) fn new(desk: &'d Desk<'d>, id: ValueId) -> Term<'d> {
        Term { desk, id }
    }

    /// The value.
    pub(super) fn id(self) -> ValueId {
        self.id
    }

    /// What its bits are.
    pub(super) fn scalar(self) -> Scalar {
        self.desk.borrow().scalar(self.id)
    }

    /// The f32, if it is known now.
    pub(super) fn known_float(self) -> Option<f32> {
        self.desk.borrow().known_bits(self.id).map(f32::from_bits)
    }

    /// A constant at the same desk.
    pub(super) fn constant(self, scalar: Scalar, bits: u32) -> Term<'d> {
        let id = self.desk.borrow_mut().constant(scalar, bits);
        Term { id, ..self }
    }

    /// An f32 at the same desk.
    pub(super) fn float(self, value: f32) -> Term<'d> {
        self.constant(Scalar::F32, value.to_bits())
    }

    /// An operator of one operand.
    pub(super) fn unary(self, op: Unary) -> Term<'d> {
        let id = self.desk.borrow_mut().unary(op, self.id);
        Term { id, ..self }
    }

    /// An operator of two.
    fn binary(self, op: Binary, other: impl Operand<'d>) -> Term<'d> {
        let other = other.beside(self).id;
        let id = self.desk.borrow_mut().binary(op, self.id, other);
        Term { id, ..self }
    }

    /// The operator that belongs to this scalar.
    fn by_scalar(self, [float, signed, unsigned]: [Binary; 3], other: impl Operand<'d>) -> Term<'d> {
        let op = match self.scalar() {
            Scalar::F32 => float,
            Scalar::I32 => signed,
            Scalar::U32 | Scalar::Bool => unsigned,
        };
        self.binary(op, other)
    }

    /// The same bits as another scalar.
    pub(super) fn bits(self, scalar: Scalar) -> Term<'d> {
        let id = self.desk.borrow_mut().bits(scalar, self.id);
        Term { id, ..self }
    }

    /// f32: without the sign.
    pub(super) fn abs(self) -> Term<'d> {
        self.unary(Unary::AbsF)
    }

    /// f32: square root.
    pub(super) fn sqrt(self) -> Term<'d> {
        self.unary(Unary::SqrtF)
    }

    /// f32: towards minus infinity.
    pub(super) fn floor(self) -> Term<'d> {
        self.unary(Unary::FloorF)
    }

    /// The lesser; an f32 that is NaN stays.
    pub(super) fn min(self, other: impl Operand<'d>) -> Term<'d> {
        self.by_scalar([Binary::MinF, Binary::MinI, Binary::MinU], other)
    }

    /// The greater; an f32 that is NaN stays.
    pub(super) fn max(self, other: impl Operand<'d>) -> Term<'d> {
        self.by_scalar([Binary::MaxF, Binary::MaxI, Binary::MaxU], other)
    }

    /// Whether it is below.
    pub(super) fn is_below(self, other: impl Operand<'d>) -> Term<'d> {
        self.by_scalar([Binary::LtF, Binary::LtI, Binary::LtU], other)
    }

    /// Whether it is below or equal.
    pub(super) fn is_at_most(self, other: impl Operand<'d>) -> Term<'d> {
        self.by_scalar([Binary::LeF, Binary::LeI, Binary::LeU], other)
    }

    /// Whether it is the same.
    pub(super) fn is(self, other: impl Operand<'d>) -> Term<'d> {
        self.by_scalar([Binary::EqF, Binary::Eq, Binary::Eq], other)
    }

    /// Bool: `accept` where it holds, else `reject`.
    pub(super) fn select(self, accept: Term<'d>, reject: impl Operand<'d>) -> Term<'d> {
        let reject = reject.beside(accept).id;
        let id = self.desk.borrow_mut().select(self.id, accept.id, reject);
        Term { id, ..self }
    }

    /// f32: with the sign of `other`; its own is clear.
    pub(super) fn signed_as(self, other: Term<'d>) -> Term<'d> {
        let sign = other.bits(Scalar::U32) & 0x8000_0000_u32;
        (self.bits(Scalar::U32) | sign).bits(Scalar::F32)
    }
}

/// `c0 + c1 x + c2 x² + …` by Horner's rule: one product and one sum a coefficient after the first.
pub(super) fn polynomial<'d>(x: Term<'d>, coefficients: &[f32]) -> Term<'d> {
    let mut descending = coefficients.iter().rev().copied();
    let highest = descending.next().unwrap_or(0.0).beside(x);
    descending.fold(highest, |sum, coefficient| sum * x + coefficient)
}

/// `x + x³ p(x²)`, for an odd function that is `x` near 0.
pub(super) fn odd<'d>(x: Term<'d>, coefficients: &[f32]) -> Term<'d> {
    let square = x * x;
    x * polynomial(square, coefficients) * square + x
}

macro_rules! operator {
    ($trait:ident, $method:ident, $float:ident, $signed:ident, $unsigned:ident) => {
        impl<'d, R: Operand<'d>> $trait<R> for Term<'d> {
            type Output = Term<'d>;

            fn $method(self, other: R) -> Term<'d> {
                self.by_scalar([Binary::$float, Binary::$signed, Binary::$unsigned], other)
            }
        }
    };
}

operator!(Add, add, AddF, Add, Add);
operator!(Sub, sub, SubF, Sub, Sub);
operator!(Mul, mul, MulF, Mul, Mul);
operator!(Div, div, DivF, DivI, DivU);
operator!(BitAnd, bitand, And, And, And);
operator!(BitOr, bitor, Or, Or, Or);
operator!(BitXor, bitxor, Xor, Xor, Xor);
operator!(Shl, shl, Shl, Shl, Shl);
operator!(Shr, shr, ShrI, ShrI, ShrU);

impl<'d> Sub<Term<'d>> for f32 {
    type Output = Term<'d>;

    fn sub(self, other: Term<'d>) -> Term<'d> {
        self.beside(other) - other
    }
}

impl<'d> Div<Term<'d>> for f32 {
    type Output = Term<'d>;

    fn div(self, other: Term<'d>) -> Term<'d> {
        self.beside(other) / other
    }
}

impl<'d> Sub<Term<'d>> for u32 {
    type Output = Term<'d>;

    fn sub(self, other: Term<'d>) -> Term<'d> {
        self.beside(other) - other
    }
}

impl<'d> Neg for Term<'d> {
    type Output = Term<'d>;

    fn neg(self) -> Term<'d> {
        match self.scalar() {
            Scalar::F32 => self.unary(Unary::NegF),
            _ => 0_u32 - self,
        }
    }
}

impl<'d> Not for Term<'d> {
    type Output = Term<'d>;

    fn not(self) -> Term<'d> {
        match self.scalar() {
            Scalar::Bool => self.unary(Unary::NotB),
            _ => self.unary(Unary::Not),
        }
    }
}
