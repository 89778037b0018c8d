//! Functions and products of whole vectors and matrices, in scalars. Sums run from the first component to the last.

use naga::{MathFunction, TypeInner};

use super::super::ir::{Binary, Op, Scalar, Unary, ValueId};
use super::super::math;
use super::{LowerError, Lowering};

impl<'a> Lowering<'a> {
    /// A built-in function. `inner` is the first argument's type.
    pub(super) fn math(&mut self, fun: MathFunction, inner: &TypeInner, arguments: &[Vec<ValueId>]) -> Result<Vec<ValueId>, LowerError> {
        let first = &arguments[0];
        match fun {
            MathFunction::Modf | MathFunction::Frexp => {
                let parts: Option<Vec<[ValueId; 2]>> = first.iter().map(|&value| math::parts(&mut self.builder, fun, value)).collect();
                let parts = parts.ok_or_else(|| self.uncovered(&format!("{fun:?}"), None))?;
                return Ok(parts.iter().map(|part| part[0]).chain(parts.iter().map(|part| part[1])).collect());
            }
            MathFunction::Dot => return Ok(vec![self.dot(first, &arguments[1])]),
            MathFunction::Length => return Ok(vec![self.norm(first)]),
            MathFunction::Distance => {
                let difference = self.each(Binary::SubF, first, &arguments[1]);
                return Ok(vec![self.norm(&difference)]);
            }
            MathFunction::Normalize => {
                let norm = self.norm(first);
                return Ok(self.each(Binary::DivF, first, &[norm]));
            }
            MathFunction::Cross => return Ok(self.cross(first, &arguments[1])),
            MathFunction::FaceForward => return Ok(self.face_forward(arguments)),
            MathFunction::Reflect => return Ok(self.reflect(first, &arguments[1])),
            MathFunction::Refract => return Ok(self.refract(arguments)),
            MathFunction::Transpose | MathFunction::Determinant => {
                let TypeInner::Matrix { columns, rows, .. } = *inner else {
                    return Err(self.uncovered(&format!("{fun:?} of {inner:?}"), None));
                };
                let (columns, rows) = (columns as usize, rows as usize);
                if fun == MathFunction::Transpose {
                    return Ok((0..rows).flat_map(|row| (0..columns).map(move |column| column * rows + row)).map(|at| first[at]).collect());
                }
                return Ok(vec![self.determinant(first, columns)]);
            }
            _ => {}
        }
        let packed = match fun {
            // A half keeps what it can of a NaN.
            MathFunction::Pack2x16float => first.iter().map(|&value| self.with_one_nan(value)).collect(),
            _ => first.clone(),
        };
        if let Some(word) = math::pack(&mut self.builder, fun, &packed) {
            return Ok(vec![word]);
        }
        if let Some(components) = math::unpack(&mut self.builder, fun, first[0]) {
            return Ok(components);
        }
        let component = |at: usize| arguments.iter().map(|argument| argument[at.min(argument.len() - 1)]).collect::<Vec<_>>();
        let values: Option<Vec<ValueId>> = (0..first.len()).map(|at| math::component(&mut self.builder, fun, &component(at))).collect();
        let values = values.ok_or_else(|| self.uncovered(&format!("the function {fun:?}"), None))?;
        // A formula that ends in bits may have copied those of a NaN.
        let is_bits = |lowering: &Self, value| matches!(lowering.builder.op_of(value), Op::Unary(Unary::Bits, _));
        Ok(values.into_iter().map(|value| if is_bits(self, value) { self.with_one_nan(value) } else { value }).collect())
    }

    /// A product with a matrix in it; `None` if there is none.
    pub(super) fn matrix_product(&mut self, types: [&TypeInner; 2], a: &[ValueId], b: &[ValueId]) -> Option<Vec<ValueId>> {
        match (types[0], types[1]) {
            (TypeInner::Matrix { rows, .. }, TypeInner::Vector { .. }) => Some(self.combine(a, *rows as usize, b)),
            (TypeInner::Vector { size, .. }, TypeInner::Matrix { .. }) => Some(b.chunks(*size as usize).map(|column| self.dot(a, column)).collect()),
            (TypeInner::Matrix { columns, rows, .. }, TypeInner::Matrix { .. }) => {
                Some(b.chunks(*columns as usize).flat_map(|column| self.combine(a, *rows as usize, column)).collect())
            }
            _ => None,
        }
    }

    /// The sum of a matrix' columns, each times a number.
    fn combine(&mut self, matrix: &[ValueId], rows: usize, numbers: &[ValueId]) -> Vec<ValueId> {
        let mut sum = self.each(Binary::MulF, &matrix[..rows], &numbers[..1]);
        for (column, number) in matrix.chunks(rows).zip(numbers).skip(1) {
            let term = self.each(Binary::MulF, column, &[*number]);
            sum = self.each(Binary::AddF, &sum, &term);
        }
        sum
    }

    /// An operator on every component; a list of one goes with all.
    fn each(&mut self, op: Binary, a: &[ValueId], b: &[ValueId]) -> Vec<ValueId> {
        a.iter().enumerate().map(|(at, &value)| self.builder.binary(op, value, b[at.min(b.len() - 1)])).collect()
    }

    fn dot(&mut self, a: &[ValueId], b: &[ValueId]) -> ValueId {
        let is_float = self.builder.scalar(a[0]) == Scalar::F32;
        let (times, plus) = if is_float { (Binary::MulF, Binary::AddF) } else { (Binary::Mul, Binary::Add) };
        let terms = self.each(times, a, b);
        terms[1..].iter().fold(terms[0], |sum, &term| self.builder.binary(plus, sum, term))
    }

    fn norm(&mut self, vector: &[ValueId]) -> ValueId {
        if let [number] = vector {
            return self.builder.unary(Unary::AbsF, *number);
        }
        let square = self.dot(vector, vector);
        self.builder.unary(Unary::SqrtF, square)
    }

    fn cross(&mut self, a: &[ValueId], b: &[ValueId]) -> Vec<ValueId> {
        [(1, 2), (2, 0), (0, 1)].map(|(i, j)| self.minor(a[i], b[j], a[j], b[i])).to_vec()
    }

    /// `a * b - c * d`.
    fn minor(&mut self, a: ValueId, b: ValueId, c: ValueId, d: ValueId) -> ValueId {
        let (first, second) = (self.builder.binary(Binary::MulF, a, b), self.builder.binary(Binary::MulF, c, d));
        self.builder.binary(Binary::SubF, first, second)
    }

    /// By the first row; minors of two rows are shared by whoever needs them, because equal values are one.
    fn determinant(&mut self, matrix: &[ValueId], size: usize) -> ValueId {
        if size == 2 {
            return self.minor(matrix[0], matrix[3], matrix[2], matrix[1]);
        }
        let mut sum = None;
        for column in 0..size {
            let rest: Vec<ValueId> =
                (0..size).filter(|&other| other != column).flat_map(|other| matrix[other * size + 1..(other + 1) * size].to_vec()).collect();
            let minor = self.determinant(&rest, size - 1);
            let term = self.builder.binary(Binary::MulF, matrix[column * size], minor);
            sum = Some(match sum {
                None => term,
                Some(sum) => self.builder.binary(if column % 2 == 0 { Binary::AddF } else { Binary::SubF }, sum, term),
            });
        }
        sum.unwrap_or(matrix[0])
    }

    /// `faceForward(e1, e2, e3)`: e1 if e2 and e3 point away from each other, else its opposite.
    fn face_forward(&mut self, arguments: &[Vec<ValueId>]) -> Vec<ValueId> {
        let zero = self.builder.float(0.0);
        let dot = self.dot(&arguments[1], &arguments[2]);
        let is_away = self.builder.binary(Binary::LtF, dot, zero);
        let turned = arguments[0].iter().map(|&value| {
            let opposite = self.builder.unary(Unary::NegF, value);
            self.builder.select(is_away, value, opposite)
        });
        turned.collect()
    }

    /// `e1 - 2 dot(e2, e1) e2`.
    fn reflect(&mut self, incident: &[ValueId], normal: &[ValueId]) -> Vec<ValueId> {
        let two = self.builder.float(2.0);
        let dot = self.dot(normal, incident);
        let twice = self.builder.binary(Binary::MulF, two, dot);
        let along = self.each(Binary::MulF, normal, &[twice]);
        self.each(Binary::SubF, incident, &along)
    }

    /// WGSL 17.5.51: with `k = 1 - r² (1 - dot(n, i)²)`, zero where k < 0, else `r i - (r dot(n, i) + √k) n`.
    fn refract(&mut self, arguments: &[Vec<ValueId>]) -> Vec<ValueId> {
        let (incident, normal, ratio) = (&arguments[0], &arguments[1], arguments[2][0]);
        let (zero, one) = (self.builder.float(0.0), self.builder.float(1.0));
        let dot = self.dot(normal, incident);
        let square = self.builder.binary(Binary::MulF, dot, dot);
        let rest = self.builder.binary(Binary::SubF, one, square);
        let ratio_squared = self.builder.binary(Binary::MulF, ratio, ratio);
        let term = self.builder.binary(Binary::MulF, ratio_squared, rest);
        let k = self.builder.binary(Binary::SubF, one, term);
        let is_reflected = self.builder.binary(Binary::LtF, k, zero);
        let root = self.builder.unary(Unary::SqrtF, k);
        let along = self.builder.binary(Binary::MulF, ratio, dot);
        let depth = self.builder.binary(Binary::AddF, along, root);
        let scaled = self.each(Binary::MulF, incident, &[ratio]);
        let inward = self.each(Binary::MulF, normal, &[depth]);
        let refracted = self.each(Binary::SubF, &scaled, &inward);
        refracted.into_iter().map(|value| self.builder.select(is_reflected, zero, value)).collect()
    }
}
