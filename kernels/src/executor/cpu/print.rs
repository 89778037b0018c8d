//! A kernel as text, for people who work on the compiler.

use std::fmt::{Display, Formatter, Result};

use super::ir::{Across, Count, Kernel, Memory, Op, RegisterId, Scalar, Stmt, ValueId};

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let [x, y, z] = self.workgroup;
        writeln!(f, "kernel {} ({x}, {y}, {z})  workgroup {} private {} words", self.entry, self.workgroup_words, self.private_words)?;
        steps(self, &self.body, 1, f)
    }
}

fn steps(kernel: &Kernel, body: &[Stmt], depth: usize, f: &mut Formatter<'_>) -> Result {
    for step in body {
        write!(f, "{:1$}", "", depth * 2)?;
        match step {
            Stmt::Let(id) => writeln!(f, "v{}: {:?} = {}", id.0, kernel.value(*id).scalar, op(kernel, kernel.value(*id).op))?,
            Stmt::Set(register, value) => writeln!(f, "{} = {}", name(*register), operand(kernel, *value))?,
            Stmt::Store { memory, address, offset, value, .. } => {
                writeln!(f, "{} = {}", place(kernel, *memory, *address, *offset), operand(kernel, *value))?;
            }
            Stmt::Atomic { op, memory, address, offset, value, compare, found, .. } => {
                let place = place(kernel, *memory, *address, *offset);
                let compare = compare.map(|value| format!(" if {}", operand(kernel, value))).unwrap_or_default();
                let found = found.map(|id| format!("v{} = ", id.0)).unwrap_or_default();
                writeln!(f, "{found}{op:?} {place} {}{compare}", operand(kernel, *value))?;
            }
            Stmt::Across { what: Across::Here, found } => writeln!(f, "v{} = here", found.0)?,
            Stmt::Across { what: Across::Of(value, place), found } => writeln!(f, "v{} = {} of {place}", found.0, operand(kernel, *value))?,
            Stmt::If { condition, accept, reject } => {
                writeln!(f, "if {}", operand(kernel, *condition))?;
                steps(kernel, accept, depth + 1, f)?;
                if !reject.is_empty() {
                    writeln!(f, "{:1$}else", "", depth * 2)?;
                    steps(kernel, reject, depth + 1, f)?;
                }
            }
            Stmt::Block { label, body } => {
                writeln!(f, "block l{}", label.0)?;
                steps(kernel, body, depth + 1, f)?;
            }
            Stmt::Loop { label, body } => {
                writeln!(f, "loop l{}", label.0)?;
                steps(kernel, body, depth + 1, f)?;
            }
            Stmt::Exit(label) => writeln!(f, "exit l{}", label.0)?,
            Stmt::Repeat(label) => writeln!(f, "repeat l{}", label.0)?,
            Stmt::Barrier { .. } => writeln!(f, "barrier")?,
        }
    }
    Ok(())
}

fn name(register: RegisterId) -> String {
    format!("r{}", register.0)
}

fn place(kernel: &Kernel, memory: Memory, address: ValueId, offset: u32) -> String {
    format!("{memory:?}[{} + {offset}]", operand(kernel, address))
}

fn count(count: Count) -> String {
    match count {
        Count::Fixed(count) => count.to_string(),
        Count::Runtime { binding, first, stride } => format!("len({binding}, {first}, {stride})"),
    }
}

/// A value where it is used: constants and inputs have no step of their own.
fn operand(kernel: &Kernel, id: ValueId) -> String {
    match kernel.value(id).op {
        Op::Const(bits) => match kernel.value(id).scalar {
            Scalar::Bool => (bits != 0).to_string(),
            Scalar::I32 => format!("{}i", bits as i32),
            Scalar::U32 => format!("{bits}u"),
            Scalar::F32 => format!("{:?}f", f32::from_bits(bits)),
        },
        Op::Input(input) => format!("{input:?}"),
        Op::Length(length) => count(length),
        _ => format!("v{}", id.0),
    }
}

fn op(kernel: &Kernel, op: Op) -> String {
    let of = |id| operand(kernel, id);
    match op {
        Op::Const(_) | Op::Input(_) | Op::Length(_) | Op::Found => format!("{op:?}"),
        Op::Get(register) => name(register),
        Op::Unary(kind, a) => format!("{kind:?} {}", of(a)),
        Op::Binary(kind, a, b) => format!("{kind:?} {} {}", of(a), of(b)),
        Op::Select { condition, accept, reject } => format!("{} ? {} : {}", of(condition), of(accept), of(reject)),
        Op::Index { index, count: bound } => format!("{} within {}", of(index), count(bound)),
        Op::Load { memory, address, offset } => place(kernel, memory, address, offset),
    }
}
