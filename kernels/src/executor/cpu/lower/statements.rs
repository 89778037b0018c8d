//! Statements: control flow as blocks with exits.
//!
//! ```text
//! loop { body; continuing { c; break if x } }     Block brk { Loop lp { Block cont { body } c; If x { Exit brk } Repeat lp } }
//! switch s { case 1: a; default: b }              Block brk { If s == 1 { a; Exit brk } b }
//! return v, in a call                             result registers = v; Exit of the call's block
//! if x { a; return v } b, in a call               If x { a; result registers = v } else { b }
//! ```
//!
//! The last of these is of every step that leaves a list for what comes behind it anyway: nobody has to wait for those who have left, and what
//! two calls compute before they part is computed once.

use naga::{AtomicFunction, Block, Expression, Handle, Statement, SwitchCase, SwitchValue, TypeInner};

use super::super::builder::VALUES_MAX;
use super::super::ir::{AtomicOp, Binary, Label, Scalar, Unary, ValueId};
use super::{DEPTH_MAX, Frame, Item, LowerError, Lowering, Pointer, REST_DEPTH_MAX};

impl<'a> Lowering<'a> {
    /// Lowers statements. `tail`: leaving by this label is going on behind them.
    pub(super) fn block(&mut self, frame: &mut Frame<'a>, block: &'a Block, tail: Option<Label>) -> Result<(), LowerError> {
        self.depth += 1;
        self.steps(frame, block, 0, tail)?;
        self.depth -= 1;
        Ok(())
    }

    /// The statements of a block from the one with that number on.
    fn steps(&mut self, frame: &mut Frame<'a>, block: &'a Block, first: usize, tail: Option<Label>) -> Result<(), LowerError> {
        for (at, (statement, span)) in block.span_iter().enumerate().skip(first) {
            if self.builder.is_dead() {
                break;
            }
            if self.depth > DEPTH_MAX {
                return Err(self.too_large("the depth of blocks and calls in each other", self.depth as u64, DEPTH_MAX as u64, Some(*span)));
            }
            if self.builder.is_too_large() {
                let count = self.builder.values() as u64;
                return Err(self.too_large("the number of values with every call inlined", count, VALUES_MAX as u64, Some(*span)));
            }
            self.builder.stand_at(span.to_range().map_or(0, |range| range.start as u32));
            let is_last = at + 1 == block.len();
            if let Statement::If { condition, accept, reject } = statement
                && !is_last
                && self.rests < REST_DEPTH_MAX
                && let Some(is_accept) = self.side_with_rest(frame, accept, reject, tail)
            {
                let rest = Some((is_accept, block, at + 1));
                let done = self.branch(frame, *condition, [accept, reject], rest, tail);
                done.map_err(|error| self.located(error, *span))?;
                break;
            }
            self.statement(frame, statement, *span, tail.filter(|_| is_last)).map_err(|error| self.located(error, *span))?;
        }
        Ok(())
    }

    /// Whether the rest of a list is for the accepted or the rejected, where the others leave it for what follows it anyway.
    fn side_with_rest(&self, frame: &Frame<'a>, accept: &Block, reject: &Block, tail: Option<Label>) -> Option<bool> {
        let leaves = |side: &Block| {
            let to = match side.last() {
                Some(Statement::Return { .. }) => Some(frame.returns),
                Some(Statement::Continue) => frame.next(),
                Some(Statement::Break) => frame.loops.last().map(|&(outside, _)| outside),
                _ => None,
            };
            tail.is_some() && to == tail
        };
        (leaves(accept) != leaves(reject)).then(|| leaves(reject))
    }

    fn statement(&mut self, frame: &mut Frame<'a>, statement: &'a Statement, span: naga::Span, tail: Option<Label>) -> Result<(), LowerError> {
        match statement {
            Statement::Emit(range) => {
                for expression in range.clone() {
                    // In a loop's next round it would be another value; here it is computed where it stands.
                    frame.items[expression.index()] = None;
                    self.item(frame, expression)?;
                }
            }
            Statement::Block(inner) => self.block(frame, inner, tail)?,
            Statement::If { condition, accept, reject } => self.branch(frame, *condition, [accept, reject], None, tail)?,
            Statement::Switch { selector, cases } => self.switch(frame, *selector, cases)?,
            Statement::Loop { body, continuing, break_if } => self.repeat(frame, body, continuing, *break_if)?,
            Statement::Break => match frame.loops.last() {
                Some(&(outside, _)) => self.leave(outside, tail),
                None => return Err(self.uncovered("a break outside a loop", Some(span))),
            },
            Statement::Continue => match frame.next() {
                Some(next) => self.leave(next, tail),
                None => return Err(self.uncovered("a continue outside a loop", Some(span))),
            },
            Statement::Return { value } => {
                if let Some(value) = value {
                    let values = self.values(frame, *value)?;
                    frame.result.iter().zip(values).for_each(|(&register, value)| self.builder.set(register, value));
                }
                self.leave(frame.returns, tail);
            }
            Statement::ControlBarrier(kind) if kind.contains(naga::Barrier::SUB_GROUP) => return Err(self.uncovered("`subgroupBarrier`", Some(span))),
            Statement::ControlBarrier(_) => self.builder.barrier(),
            // Whoever goes on has done what stands before: every back half keeps memory in order.
            Statement::MemoryBarrier(_) => {}
            Statement::Store { pointer, value } => {
                let (place, inner) = self.pointer(frame, *pointer)?;
                let values = self.values(frame, *value)?;
                self.write(&place, &inner, &values)?;
            }
            Statement::Atomic { pointer, fun, value, result } => self.atomic(frame, *pointer, fun, *value, *result)?,
            Statement::SubgroupBallot { result, predicate } => {
                let values = self.ballot(frame, *predicate)?;
                frame.items[result.index()] = Some(Item::Value(values));
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let values = self.collective(frame, *op, *collective_op, *argument)?;
                frame.items[result.index()] = Some(Item::Value(values));
            }
            Statement::SubgroupGather { mode, argument, result } => {
                let values = self.gather(frame, *mode, *argument)?;
                frame.items[result.index()] = Some(Item::Value(values));
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.builder.barrier();
                let (place, inner) = self.pointer(frame, *pointer)?;
                let values = self.read(&place, &inner)?;
                let values = values.into_iter().map(|value| self.builder.unary(Unary::Uniform, value)).collect();
                frame.items[result.index()] = Some(Item::Value(values));
                self.builder.barrier();
            }
            Statement::Call { function, arguments, result } => {
                let arguments = arguments.iter().map(|&argument| self.item(frame, argument)).collect::<Result<Vec<_>, _>>()?;
                let (called, info) = (&self.module.functions[*function], &self.info[*function]);
                let values = self.call(called, info, arguments)?;
                if let Some(result) = result {
                    frame.items[result.index()] = Some(Item::Value(values));
                }
            }
            other => {
                let text = format!("{other:?}");
                let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string();
                return Err(self.uncovered(&format!("`{name}`"), Some(span)));
            }
        }
        Ok(())
    }

    /// Goes behind what `label` names: without a step where that is what comes next.
    fn leave(&mut self, label: Label, tail: Option<Label>) {
        if tail != Some(label) {
            self.builder.exit(label);
        }
    }

    /// Lowers a branch, and behind one of its sides, `rest`: whether that is the accepted one, the block, and the number of the first
    /// statement there.
    fn branch(
        &mut self,
        frame: &mut Frame<'a>,
        condition: Handle<Expression>,
        sides: [&'a Block; 2],
        rest: Option<(bool, &'a Block, usize)>,
        tail: Option<Label>,
    ) -> Result<(), LowerError> {
        let condition = self.values(frame, condition)?[0];
        let known = self.builder.known_bool(condition);
        if known.is_none() {
            self.builder.begin_if(condition);
        }
        for (side, is_accept) in sides.into_iter().zip([true, false]) {
            if known.is_none_or(|known| known == is_accept) {
                let rest = rest.filter(|(is_its, ..)| *is_its == is_accept);
                self.block(frame, side, tail.filter(|_| rest.is_none()))?;
                if let Some((_, block, first)) = rest.filter(|_| !self.builder.is_dead()) {
                    self.rests += 1;
                    self.steps(frame, block, first, tail)?;
                    self.rests -= 1;
                }
            }
            if known.is_none() && is_accept {
                self.builder.begin_else();
            }
        }
        if known.is_none() {
            self.builder.end_if();
        }
        Ok(())
    }

    fn switch(&mut self, frame: &mut Frame<'a>, selector: Handle<Expression>, cases: &'a [SwitchCase]) -> Result<(), LowerError> {
        let selector = self.values(frame, selector)?[0];
        let outside = self.builder.begin_block();
        frame.loops.push((outside, None));
        let mut default = None;
        let mut first = 0;
        for (at, case) in cases.iter().enumerate() {
            if case.fall_through {
                continue;
            }
            // Selectors that fall through have no steps of their own in WGSL.
            let group = &cases[first..=at];
            first = at + 1;
            if group.iter().any(|case| case.value == SwitchValue::Default) {
                default = Some(&case.body);
                continue;
            }
            let condition = self.selects(selector, group);
            if self.builder.known_bool(condition) == Some(false) {
                continue;
            }
            self.builder.begin_if(condition);
            self.block(frame, &case.body, Some(outside))?;
            self.builder.exit(outside);
            self.builder.begin_else();
            self.builder.end_if();
        }
        if let Some(body) = default.filter(|_| !self.builder.is_dead()) {
            self.block(frame, body, Some(outside))?;
        }
        frame.loops.pop();
        self.builder.end_block();
        Ok(())
    }

    fn selects(&mut self, selector: ValueId, group: &[SwitchCase]) -> ValueId {
        let mut condition = self.builder.bool(false);
        for case in group {
            let wanted = match case.value {
                SwitchValue::I32(value) => self.builder.int(value),
                SwitchValue::U32(value) => self.builder.uint(value),
                SwitchValue::Default => continue,
            };
            let is_it = self.builder.binary(Binary::Eq, selector, wanted);
            condition = self.builder.binary(Binary::Or, condition, is_it);
        }
        condition
    }

    fn repeat(
        &mut self,
        frame: &mut Frame<'a>,
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
    ) -> Result<(), LowerError> {
        let mut written = Vec::new();
        self.written(frame, body, &mut written);
        self.written(frame, continuing, &mut written);
        let outside = self.builder.begin_block();
        let again = self.builder.begin_loop(written);
        let next = self.builder.begin_block();
        frame.loops.push((outside, Some(next)));
        self.block(frame, body, Some(next))?;
        frame.loops.pop();
        self.builder.end_block();
        self.block(frame, continuing, None)?;
        if let Some(condition) = break_if.filter(|_| !self.builder.is_dead()) {
            let condition = self.values(frame, condition)?[0];
            self.builder.begin_if(condition);
            self.builder.exit(outside);
            self.builder.begin_else();
            self.builder.end_if();
        }
        self.builder.repeat(again);
        self.builder.end_loop();
        self.builder.end_block();
        Ok(())
    }

    fn atomic(
        &mut self,
        frame: &mut Frame<'a>,
        pointer: Handle<Expression>,
        fun: &AtomicFunction,
        value: Handle<Expression>,
        result: Option<Handle<Expression>>,
    ) -> Result<(), LowerError> {
        let (place, inner) = self.pointer(frame, pointer)?;
        let value = self.values(frame, value)?[0];
        let Pointer::Memory { memory, address, offset } = place else {
            return Err(self.uncovered("an atomic outside memory", None));
        };
        let TypeInner::Atomic(scalar) = inner else { return Err(self.uncovered("an atomic operation on something else", None)) };
        let is_signed = self.scalar_of(scalar)? == Scalar::I32;
        let mut compare = None;
        let op = match *fun {
            AtomicFunction::Add => AtomicOp::Add,
            AtomicFunction::Subtract => AtomicOp::Sub,
            AtomicFunction::And => AtomicOp::And,
            AtomicFunction::InclusiveOr => AtomicOp::Or,
            AtomicFunction::ExclusiveOr => AtomicOp::Xor,
            AtomicFunction::Min => {
                if is_signed {
                    AtomicOp::MinI
                } else {
                    AtomicOp::MinU
                }
            }
            AtomicFunction::Max => {
                if is_signed {
                    AtomicOp::MaxI
                } else {
                    AtomicOp::MaxU
                }
            }
            AtomicFunction::Exchange { compare: None } => AtomicOp::Exchange,
            AtomicFunction::Exchange { compare: Some(expected) } => {
                compare = Some(self.values(frame, expected)?[0]);
                AtomicOp::CompareExchange
            }
        };
        let found = self.builder.atomic(op, memory, address, offset, value, compare);
        if let Some(result) = result {
            let mut values = vec![found];
            if let Some(compare) = compare {
                values.push(self.builder.binary(Binary::Eq, found, compare));
            }
            frame.items[result.index()] = Some(Item::Value(values));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ir::Stmt;
    use super::super::Parsed;

    /// Blocks, and values, of a kernel that stores what `f` returns; `text` defines it.
    fn lowered(text: &str) -> (usize, usize) {
        let main = "@group(0) @binding(0) var<storage, read_write> words: array<u32>;
            @compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                if (id.x > 100u) { return; }
                words[id.x] = f(id.x, words[id.x + 200u]);
            }";
        let text = format!("{text}\n{main}");
        let kernel = Parsed::new(&text).and_then(|parsed| parsed.kernel("main", &[])).unwrap_or_else(|error| panic!("{error}"));
        (count(&kernel.body, is_block), count(&kernel.body, |step| matches!(step, Stmt::Let(_))))
    }

    fn is_block(step: &Stmt) -> bool {
        matches!(step, Stmt::Block { .. } | Stmt::Loop { .. })
    }

    fn count(steps: &[Stmt], is_counted: fn(&Stmt) -> bool) -> usize {
        let of = |step: &Stmt| usize::from(is_counted(step)) + step.nested().map(|steps| count(steps, is_counted)).sum::<usize>();
        steps.iter().map(of).sum()
    }

    /// Each of these takes no step that leaves a block: whoever returns has nothing more to do.
    #[test]
    fn what_follows_a_return_is_the_other_side() {
        let many = (0..40).map(|at| format!("if (x == {at}u) {{ return words[x + y * {at}u]; }}\n")).collect::<String>();
        for body in [
            "if (x < 9u) { return words[y]; } return words[y + 1u];",
            "if (x < 9u) { words[3] = y; } else { words[4] = y; return 5u; } words[5] = x; return words[y];",
            "if (x < 9u) { if (y < 5u) { words[3] = 1u; return 1u; } words[4] = y; return 2u; } words[5] = x; return words[y];",
            &format!("{many} return 0u;"),
        ] {
            assert_eq!(lowered(&format!("fn f(x: u32, y: u32) -> u32 {{ {body} }}")).0, 0, "{body}");
        }
        let continued =
            "var sum = y; for (var k = 0u; k < x; k++) { if (words[k] > 5u) { words[k] = sum; continue; } sum += words[k + 1u]; } return sum;";
        assert_eq!(lowered(&format!("fn f(x: u32, y: u32) -> u32 {{ {continued} }}")).0, 2, "a loop, and the block that a `for` leaves");
    }

    /// What two calls compute before they part is there once.
    #[test]
    fn calls_that_return_early_share() {
        let of = |second: &str| {
            lowered(&format!(
                "fn g(x: u32, y: u32) -> u32 {{ let h = (x * 77u) ^ (x >> 5u); if (h == y) {{ return words[y]; }} words[y] = h; return words[h]; }}
                fn f(x: u32, y: u32) -> u32 {{ return g(x, y) + {second}; }}"
            ))
        };
        let (one, two, other) = (of("1u").1, of("g(x, y + 1u)").1, of("g(y, y + 1u)").1);
        assert!(two - one < other - one - 2, "{one} {two} {other}");
    }

    /// Deeper than this they stay blocks that are left: nobody's stack grows with them.
    #[test]
    fn returns_in_a_row_are_no_depth() {
        let many = (0..3000).map(|at| format!("if (x == {at}u) {{ return words[y + {at}u]; }}\n")).collect::<String>();
        assert!(lowered(&format!("fn f(x: u32, y: u32) -> u32 {{ {many} return 0u; }}")).0 > 0);
    }
}
