//! Expressions: each becomes the scalars it is made of, once, where it is first reached.

use naga::{BinaryOperator, Expression, Function, Handle, Literal, RelationalFunction, ScalarKind, TypeInner, UnaryOperator};

use super::super::ir::{Binary, Count, Memory, Scalar, Unary, ValueId};
use super::{Frame, Item, LowerError, Lowering, Pointer};

impl<'a> Lowering<'a> {
    /// What an expression is; computed here if it has not been reached before.
    pub(super) fn item(&mut self, frame: &mut Frame<'a>, expression: Handle<Expression>) -> Result<Item, LowerError> {
        if let Some(item) = &frame.items[expression.index()] {
            return Ok(item.clone());
        }
        let item = self.evaluate(frame, expression).map_err(|error| self.located(error, frame.function.expressions.get_span(expression)))?;
        frame.items[expression.index()] = Some(item.clone());
        Ok(item)
    }

    /// The scalars of an expression.
    pub(super) fn values(&mut self, frame: &mut Frame<'a>, expression: Handle<Expression>) -> Result<Vec<ValueId>, LowerError> {
        match self.item(frame, expression)? {
            Item::Value(values) => Ok(values),
            Item::Pointer(_) => Err(self.uncovered("a pointer as a value", Some(frame.function.expressions.get_span(expression)))),
        }
    }

    /// Where a pointer points, and to what.
    pub(super) fn pointer(&mut self, frame: &mut Frame<'a>, expression: Handle<Expression>) -> Result<(Pointer, TypeInner), LowerError> {
        let inner = self.pointee(frame.info[expression].ty.inner_with(&self.module.types)).into_owned();
        match self.item(frame, expression)? {
            Item::Pointer(pointer) => Ok((pointer, inner)),
            Item::Value(_) => Err(self.uncovered("a value as a pointer", Some(frame.function.expressions.get_span(expression)))),
        }
    }

    /// An error, at a place if it has none.
    pub(super) fn located(&self, mut error: LowerError, span: naga::Span) -> LowerError {
        if let LowerError::Uncovered { line, .. } | LowerError::TooLarge { line, .. } = &mut error
            && *line == 0
        {
            *line = self.line(Some(span));
        }
        error
    }

    fn evaluate(&mut self, frame: &mut Frame<'a>, expression: Handle<Expression>) -> Result<Item, LowerError> {
        let span = frame.function.expressions.get_span(expression);
        let values = match frame.function.expressions[expression] {
            Expression::FunctionArgument(index) => return Ok(frame.arguments[index as usize].clone()),
            Expression::LocalVariable(local) => return Ok(Item::Pointer(frame.locals[local.index()].clone())),
            Expression::GlobalVariable(global) => {
                let place = self.globals[global.index()].clone();
                return place.map(Item::Pointer).ok_or_else(|| self.uncovered("a variable that the analysis calls unused", Some(span)));
            }
            Expression::Access { base, index } => {
                let index = self.values(frame, index)?[0];
                if let Item::Value(values) = self.item(frame, base)? {
                    let inner = frame.info[base].ty.inner_with(&self.module.types);
                    self.part_at(&values, inner, index, span)?
                } else {
                    let (place, inner) = self.pointer(frame, base)?;
                    return Ok(Item::Pointer(self.step_to(&place, &inner, index)?));
                }
            }
            Expression::AccessIndex { base, index } => {
                if let Item::Value(values) = self.item(frame, base)? {
                    let part = self.part(frame.info[base].ty.inner_with(&self.module.types), index)?;
                    values[part].to_vec()
                } else {
                    let (place, inner) = self.pointer(frame, base)?;
                    return Ok(Item::Pointer(self.step(&place, &inner, index)?));
                }
            }
            Expression::Load { pointer } => {
                let (place, inner) = self.pointer(frame, pointer)?;
                self.read(&place, &inner)?
            }
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => self.constant_value(frame.function, expression)?,
            Expression::Compose { ref components, .. } => {
                let mut values = Vec::new();
                for &component in components {
                    values.extend(self.values(frame, component)?);
                }
                values
            }
            Expression::Splat { size, value } => vec![self.values(frame, value)?[0]; size as usize],
            Expression::Swizzle { size, vector, pattern } => {
                let values = self.values(frame, vector)?;
                pattern[..size as usize].iter().map(|&component| values[component as usize]).collect()
            }
            Expression::Unary { op, expr } => {
                let values = self.values(frame, expr)?;
                values.into_iter().map(|value| self.unary(op, value)).collect()
            }
            Expression::Binary { op, left, right } => self.binary_expression(frame, op, left, right)?,
            Expression::Select { condition, accept, reject } => {
                let conditions = self.values(frame, condition)?;
                let (accept, reject) = (self.values(frame, accept)?, self.values(frame, reject)?);
                let condition = |at: usize| conditions[at.min(conditions.len() - 1)];
                (0..accept.len()).map(|at| self.builder.select(condition(at), accept[at], reject[at])).collect()
            }
            Expression::Relational { fun, argument } => {
                let values = self.values(frame, argument)?;
                self.relational(fun, &values)
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let mut arguments = Vec::new();
                for argument in [Some(arg), arg1, arg2, arg3].into_iter().flatten() {
                    arguments.push(self.values(frame, argument)?);
                }
                self.math(fun, frame.info[arg].ty.inner_with(&self.module.types), &arguments)?
            }
            Expression::As { expr, kind, convert } => {
                let to = match (kind, convert) {
                    (_, None | Some(4)) | (ScalarKind::Bool, _) => self.scalar_of(naga::Scalar { kind, width: 4 })?,
                    (kind, Some(width)) => self.scalar_of(naga::Scalar { kind, width })?,
                };
                let values = self.values(frame, expr)?;
                let is_conversion = convert.is_some();
                values.into_iter().map(|value| if is_conversion { self.convert(to, value) } else { self.reinterpret(to, value) }).collect()
            }
            Expression::ArrayLength(array) => {
                let (place, inner) = self.pointer(frame, array)?;
                match (place, inner) {
                    (Pointer::Memory { memory: Memory::Binding(binding), offset, .. }, TypeInner::Array { stride, .. }) => {
                        let count = Count::Runtime { binding, first: offset, stride: stride / 4 };
                        vec![self.builder.op(Scalar::U32, super::super::ir::Op::Length(count))]
                    }
                    _ => return Err(self.uncovered("the length of this array", Some(span))),
                }
            }
            ref other => return Err(self.uncovered(&format!("`{}`", name_of(other)), Some(span))),
        };
        Ok(Item::Value(values))
    }

    /// An expression that is known now, in a function.
    pub(super) fn constant_value(&mut self, function: &Function, expression: Handle<Expression>) -> Result<Vec<ValueId>, LowerError> {
        self.constant_of(&function.expressions, expression)
    }

    /// An expression that is known now, of the module.
    pub(super) fn global_value(&mut self, expression: Handle<Expression>) -> Result<Vec<ValueId>, LowerError> {
        let module = self.module;
        self.constant_of(&module.global_expressions, expression)
    }

    fn constant_of(&mut self, arena: &naga::Arena<Expression>, expression: Handle<Expression>) -> Result<Vec<ValueId>, LowerError> {
        Ok(match arena[expression] {
            Expression::Literal(literal) => vec![self.literal(literal)?],
            Expression::Constant(constant) => {
                let init = self.module.constants[constant].init;
                self.global_value(init)?
            }
            Expression::ZeroValue(ty) => self.leaves(ty)?.iter().map(|leaf| self.builder.constant(leaf.scalar, 0)).collect(),
            Expression::Compose { ref components, .. } => {
                let mut values = Vec::new();
                for &component in components {
                    values.extend(self.constant_of(arena, component)?);
                }
                values
            }
            Expression::Splat { size, value } => vec![self.constant_of(arena, value)?[0]; size as usize],
            ref other => return Err(self.uncovered(&format!("`{}` in a constant", name_of(other)), None)),
        })
    }

    fn literal(&mut self, literal: Literal) -> Result<ValueId, LowerError> {
        Ok(match literal {
            Literal::F32(value) => self.builder.float(value),
            Literal::U32(value) => self.builder.uint(value),
            Literal::I32(value) => self.builder.int(value),
            Literal::Bool(value) => self.builder.bool(value),
            Literal::F16(_) => return Err(self.uncovered("f16", None)),
            other => return Err(self.uncovered(&format!("the literal {other:?}"), None)),
        })
    }

    fn unary(&mut self, op: UnaryOperator, value: ValueId) -> ValueId {
        let scalar = self.builder.scalar(value);
        match (op, scalar) {
            (UnaryOperator::Negate, Scalar::F32) => self.builder.unary(Unary::NegF, value),
            (UnaryOperator::Negate, _) => {
                let zero = self.builder.constant(scalar, 0);
                self.builder.binary(Binary::Sub, zero, value)
            }
            (UnaryOperator::LogicalNot, _) | (UnaryOperator::BitwiseNot, Scalar::Bool) => self.builder.unary(Unary::NotB, value),
            (UnaryOperator::BitwiseNot, _) => self.builder.unary(Unary::Not, value),
        }
    }

    fn binary_expression(
        &mut self,
        frame: &mut Frame<'a>,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Result<Vec<ValueId>, LowerError> {
        let (a, b) = (self.values(frame, left)?, self.values(frame, right)?);
        let types = [left, right].map(|side| frame.info[side].ty.inner_with(&self.module.types));
        if op == BinaryOperator::Multiply
            && let Some(product) = self.matrix_product(types, &a, &b)
        {
            return Ok(product);
        }
        let count = a.len().max(b.len());
        (0..count).map(|at| self.binary(op, a[at.min(a.len() - 1)], b[at.min(b.len() - 1)])).collect()
    }

    /// An operator on scalars.
    pub(super) fn binary(&mut self, op: BinaryOperator, a: ValueId, b: ValueId) -> Result<ValueId, LowerError> {
        use BinaryOperator as O;
        use Scalar::{Bool, F32, I32, U32};
        let kind = match (op, self.builder.scalar(a)) {
            (O::Add, F32) => Binary::AddF,
            (O::Add, _) => Binary::Add,
            (O::Subtract, F32) => Binary::SubF,
            (O::Subtract, _) => Binary::Sub,
            (O::Multiply, F32) => Binary::MulF,
            (O::Multiply, _) => Binary::Mul,
            (O::Divide, F32) => Binary::DivF,
            (O::Divide, I32) => Binary::DivI,
            (O::Divide, _) => Binary::DivU,
            (O::Modulo, F32) => {
                let quotient = self.builder.binary(Binary::DivF, a, b);
                let whole = self.builder.unary(Unary::TruncF, quotient);
                let multiple = self.builder.binary(Binary::MulF, whole, b);
                return Ok(self.builder.binary(Binary::SubF, a, multiple));
            }
            (O::Modulo, I32) => Binary::RemI,
            (O::Modulo, _) => Binary::RemU,
            (O::Equal, F32) => Binary::EqF,
            (O::Equal, _) => Binary::Eq,
            (O::NotEqual, F32) => Binary::NeF,
            (O::NotEqual, _) => Binary::Ne,
            (O::Less, F32) => Binary::LtF,
            (O::Less, I32) => Binary::LtI,
            (O::Less, _) => Binary::LtU,
            (O::LessEqual, F32) => Binary::LeF,
            (O::LessEqual, I32) => Binary::LeI,
            (O::LessEqual, _) => Binary::LeU,
            (O::Greater, _) => return self.binary(O::Less, b, a),
            (O::GreaterEqual, _) => return self.binary(O::LessEqual, b, a),
            (O::And | O::LogicalAnd, I32 | U32 | Bool) => Binary::And,
            (O::InclusiveOr | O::LogicalOr, I32 | U32 | Bool) => Binary::Or,
            (O::ExclusiveOr, I32 | U32 | Bool) => Binary::Xor,
            (O::ShiftLeft, _) => Binary::Shl,
            (O::ShiftRight, I32) => Binary::ShrI,
            (O::ShiftRight, _) => Binary::ShrU,
            (op, scalar) => return Err(self.uncovered(&format!("{op:?} of {scalar:?}"), None)),
        };
        Ok(self.builder.binary(kind, a, b))
    }

    fn relational(&mut self, fun: RelationalFunction, values: &[ValueId]) -> Vec<ValueId> {
        let joined = match fun {
            RelationalFunction::All => Binary::And,
            RelationalFunction::Any => Binary::Or,
            RelationalFunction::IsNan => return values.iter().map(|&value| self.builder.binary(Binary::NeF, value, value)).collect(),
            RelationalFunction::IsInf => {
                let infinity = self.builder.float(f32::INFINITY);
                let magnitudes = values.iter().map(|&value| {
                    let magnitude = self.builder.unary(Unary::AbsF, value);
                    self.builder.binary(Binary::EqF, magnitude, infinity)
                });
                return magnitudes.collect();
            }
        };
        let all = values[1..].iter().fold(values[0], |all, &value| self.builder.binary(joined, all, value));
        vec![all]
    }

    /// The same bits as another scalar.
    fn reinterpret(&mut self, to: Scalar, value: ValueId) -> ValueId {
        let value = if to == Scalar::F32 { value } else { self.canonical(value) };
        self.builder.bits(to, value)
    }

    fn convert(&mut self, to: Scalar, value: ValueId) -> ValueId {
        let from = self.builder.scalar(value);
        let builder = &mut self.builder;
        match (from, to) {
            (from, to) if from == to => value,
            (Scalar::Bool, to) => {
                let one = if to == Scalar::F32 { builder.float(1.0) } else { builder.constant(to, 1) };
                let zero = builder.constant(to, 0);
                builder.select(value, one, zero)
            }
            (from, Scalar::Bool) => {
                let zero = builder.constant(from, 0);
                builder.binary(if from == Scalar::F32 { Binary::NeF } else { Binary::Ne }, value, zero)
            }
            (Scalar::F32, Scalar::I32) => builder.unary(Unary::IntOfF, value),
            (Scalar::F32, _) => builder.unary(Unary::UintOfF, value),
            (Scalar::I32, Scalar::F32) => builder.unary(Unary::FloatOfI, value),
            (_, Scalar::F32) => builder.unary(Unary::FloatOfU, value),
            (_, to) => builder.bits(to, value),
        }
    }
}

/// The first word of a construct's debug form: naga's name for it.
fn name_of(construct: &impl std::fmt::Debug) -> String {
    let text = format!("{construct:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string()
}
