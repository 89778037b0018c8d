//! Drops what nobody uses: values, registers that are never read, branches without steps.
//!
//! Invariant: stores, atomics and barriers stay, with everything they and their conditions need.

use super::ir::{Kernel, Op, Stmt, ValueId};

/// What is used.
struct Used {
    values: Vec<bool>,
    registers: Vec<bool>,
    /// Whether another look may find more.
    grew: bool,
}

/// Drops what nobody uses.
pub(super) fn prune(kernel: &mut Kernel) {
    loop {
        let used = find(kernel);
        let mut body = std::mem::take(&mut kernel.body);
        let dropped_branches = sweep(&mut body, &used);
        kernel.body = body;
        // A branch that is gone no longer needs its condition.
        if !dropped_branches {
            return;
        }
    }
}

fn find(kernel: &Kernel) -> Used {
    let mut used = Used { values: vec![false; kernel.values.len()], registers: vec![false; kernel.registers.len()], grew: true };
    while std::mem::take(&mut used.grew) {
        used.in_steps(kernel, &kernel.body);
    }
    used
}

impl Used {
    fn in_steps(&mut self, kernel: &Kernel, steps: &[Stmt]) {
        // Users stand behind what they use, except around loops.
        for step in steps.iter().rev() {
            step.nested().for_each(|steps| self.in_steps(kernel, steps));
            let is_needed = match step {
                Stmt::Set(register, _) => self.registers[register.0 as usize],
                Stmt::Across { found, .. } => self.values[found.0 as usize],
                _ => true,
            };
            if is_needed {
                step.operands(|value| self.value(kernel, value));
            }
        }
    }

    fn value(&mut self, kernel: &Kernel, id: ValueId) {
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            if std::mem::replace(&mut self.values[id.0 as usize], true) {
                continue;
            }
            let op = kernel.value(id).op;
            if let Op::Get(register) = op {
                self.grew |= !std::mem::replace(&mut self.registers[register.0 as usize], true);
            }
            op.operands(|operand| left.push(operand));
        }
    }
}

/// Whether a branch was dropped.
fn sweep(steps: &mut Vec<Stmt>, used: &Used) -> bool {
    let mut dropped = false;
    for step in steps.iter_mut() {
        step.nested_mut().for_each(|nested| dropped |= sweep(nested, used));
        if let Stmt::Atomic { found, .. } = step {
            *found = found.filter(|found| used.values[found.0 as usize]);
        }
    }
    steps.retain(|step| match step {
        Stmt::Let(value) | Stmt::Across { found: value, .. } => used.values[value.0 as usize],
        Stmt::Set(register, _) => used.registers[register.0 as usize],
        Stmt::If { accept, reject, .. } => {
            let is_kept = !(accept.is_empty() && reject.is_empty());
            dropped |= !is_kept;
            is_kept
        }
        Stmt::Block { body, .. } | Stmt::Loop { body, .. } => !body.is_empty(),
        _ => true,
    });
    dropped
}
