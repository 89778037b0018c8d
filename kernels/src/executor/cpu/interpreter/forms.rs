//! What is kept of each value: one word, a word per row, or a word per lane.
//!
//! A value whose shape is Uniform, Row or Checked is computed for the first lane of each row alone (its *base*),
//! by the same operators: steps along a row come from the shape. Where somebody wants its lanes they are spread
//! once: where the value is computed, or for the only one who wants them right before that, since often that is a branch for a few.
//! Everything else is computed for all lanes.
//!
//! Invariants: the operands of a base are bases; a uniform value has no lanes.

use super::super::ir::{Kernel, Memory, Op, RegisterId, Stmt, Unary, ValueId};
use super::super::shape::{Shape, Shapes};

/// What is kept.
pub(super) struct Forms {
    is_base: Vec<bool>,
    spread: Vec<Spread>,
    /// The loop that each value is computed in, by number; of none, 0.
    computed_in: Vec<u32>,
    registers: Vec<bool>,
}

/// Where the lanes of a base are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Nowhere.
    Never,
    /// By one step, which is done as often as the value is computed.
    Late,
    /// By several, or more often.
    AtOnce,
}

impl Forms {
    pub(super) fn new(kernel: &Kernel, shapes: &Shapes) -> Forms {
        let registers = (0..kernel.registers.len()).map(|register| match shapes.registers[register] {
            Shape::Uniform => true,
            Shape::Row(_) => shapes.is_set_by_all(RegisterId(register as u32)),
            Shape::Checked(_) | Shape::Varying => false,
        });
        let count = kernel.values.len();
        let mut forms =
            Forms { is_base: vec![false; count], spread: vec![Spread::Never; count], computed_in: vec![0; count], registers: registers.collect() };
        for (index, value) in kernel.values.iter().enumerate() {
            // What no step computes: there from the start.
            forms.is_base[index] = match value.op {
                Op::Const(_) | Op::Length(_) => true,
                Op::Input(_) => shapes.values[index] != Shape::Varying,
                _ => false,
            };
        }
        while !forms.settle(kernel, shapes, &kernel.body) {}
        forms.spread_all(kernel, shapes, &kernel.body, (0, &mut 0));
        forms
    }

    /// Whether the first lane of each row is computed alone.
    pub(super) fn is_base(&self, value: ValueId) -> bool {
        self.is_base[value.0 as usize]
    }

    /// Where somebody wants the lanes of a base.
    pub(super) fn spread(&self, value: ValueId) -> Spread {
        self.spread[value.0 as usize]
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

    /// Finds who wants lanes: in steps of the loop `inside`, of `loops` so far.
    fn spread_all(&mut self, kernel: &Kernel, shapes: &Shapes, steps: &[Stmt], (inside, loops): (u32, &mut u32)) {
        for step in steps {
            if let Stmt::Let(value) = step {
                self.computed_in[value.0 as usize] = inside;
            }
        }
        let mut want = |value: ValueId| {
            let at = value.0 as usize;
            if self.is_base[at] && !shapes.is_uniform(value) {
                let is_first = self.spread[at] == Spread::Never && self.computed_in[at] == inside;
                self.spread[at] = if is_first { Spread::Late } else { Spread::AtOnce };
            }
        };
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
        for step in steps {
            let inside = if matches!(step, Stmt::Loop { .. }) {
                *loops += 1;
                *loops
            } else {
                inside
            };
            for steps in step.nested() {
                self.spread_all(kernel, shapes, steps, (inside, loops));
            }
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
