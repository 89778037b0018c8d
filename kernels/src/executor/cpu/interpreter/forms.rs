//! What is kept of each value: one word, a word per row, or a word per lane.
//!
//! A value whose shape is Uniform, Row or Checked is computed for the first lane of each row alone (its *base*),
//! by the same operators: steps along a row come from the shape. Where somebody wants its lanes they are spread
//! once, where the value is computed. Everything else is computed for all lanes.
//!
//! Invariants: the operands of a base are bases; a uniform value has no lanes.

use super::super::ir::{Kernel, Memory, Op, RegisterId, Stmt, Unary, ValueId};
use super::super::shape::{Shape, Shapes};

/// What is kept.
pub(super) struct Forms {
    is_base: Vec<bool>,
    is_spread: Vec<bool>,
    registers: Vec<bool>,
}

impl Forms {
    pub(super) fn new(kernel: &Kernel, shapes: &Shapes) -> Forms {
        let registers = (0..kernel.registers.len()).map(|register| match shapes.registers[register] {
            Shape::Uniform => true,
            Shape::Row(_) => shapes.is_set_by_all(RegisterId(register as u32)),
            Shape::Checked(_) | Shape::Varying => false,
        });
        let mut forms =
            Forms { is_base: vec![false; kernel.values.len()], is_spread: vec![false; kernel.values.len()], registers: registers.collect() };
        for (index, value) in kernel.values.iter().enumerate() {
            // What no step computes: there from the start.
            forms.is_base[index] = match value.op {
                Op::Const(_) | Op::Length(_) => true,
                Op::Input(_) => shapes.values[index] != Shape::Varying,
                _ => false,
            };
        }
        while !forms.settle(kernel, shapes, &kernel.body) {}
        forms.spread(kernel, shapes, &kernel.body);
        forms
    }

    /// Whether the first lane of each row is computed alone.
    pub(super) fn is_base(&self, value: ValueId) -> bool {
        self.is_base[value.0 as usize]
    }

    /// Whether somebody wants the lanes of a base.
    pub(super) fn is_spread(&self, value: ValueId) -> bool {
        self.is_spread[value.0 as usize]
    }

    /// Whether a register keeps the first lane of each row alone.
    pub(super) fn is_base_register(&self, register: RegisterId) -> bool {
        self.registers[register.0 as usize]
    }

    /// Decides what is a base. Whether it was right about the registers.
    fn settle(&mut self, kernel: &Kernel, shapes: &Shapes, steps: &[Stmt]) -> bool {
        let mut is_right = true;
        for step in steps {
            match step {
                Stmt::Let(value) => self.is_base[value.0 as usize] = self.can_be_base(kernel, shapes, *value),
                Stmt::Set(register, value) if self.is_base_register(*register) && !self.is_base(*value) => {
                    self.registers[register.0 as usize] = false;
                    is_right = false;
                }
                _ => {}
            }
            for steps in step.nested() {
                is_right &= self.settle(kernel, shapes, steps);
            }
        }
        is_right
    }

    fn can_be_base(&self, kernel: &Kernel, shapes: &Shapes, value: ValueId) -> bool {
        let op = kernel.value(value).op;
        match (shapes.values[value.0 as usize], op) {
            (Shape::Varying, _) => false,
            (_, Op::Get(register)) => self.is_base_register(register),
            (_, Op::Unary(Unary::Uniform, _)) => true,
            _ => {
                let mut are_bases = true;
                op.operands(|operand| are_bases &= self.is_base(operand));
                are_bases
            }
        }
    }

    /// Finds who wants lanes.
    fn spread(&mut self, kernel: &Kernel, shapes: &Shapes, steps: &[Stmt]) {
        let mut want = |value: ValueId| self.is_spread[value.0 as usize] |= self.is_base[value.0 as usize] && !shapes.is_uniform(value);
        for step in steps {
            match step {
                Stmt::Let(value) => {
                    let op = kernel.value(*value).op;
                    match op {
                        Op::Unary(Unary::Uniform, a) => want(a),
                        Op::Load { memory: Memory::Private, address, .. } => want(address),
                        Op::Load { .. } => {}
                        op if !self.is_base[value.0 as usize] => op.operands(&mut want),
                        _ => {}
                    }
                }
                Stmt::Set(register, value) if !self.registers[register.0 as usize] => want(*value),
                Stmt::Store { memory, address, value, .. } => {
                    if *memory == Memory::Private {
                        want(*address);
                    }
                    want(*value);
                }
                Stmt::Atomic { .. } | Stmt::Across { .. } => step.operands(&mut want),
                Stmt::If { condition, .. } => want(asked(kernel, *condition)),
                _ => {}
            }
        }
        for steps in steps.iter().flat_map(Stmt::nested) {
            self.spread(kernel, shapes, steps);
        }
    }
}

/// The condition that a branch looks at: of an opposite, the original, with the sides swapped.
pub(super) fn asked(kernel: &Kernel, condition: ValueId) -> ValueId {
    match kernel.value(condition).op {
        Op::Unary(Unary::NotB, opposite) => asked(kernel, opposite),
        _ => condition,
    }
}
