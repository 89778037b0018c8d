//! How the lanes of a value differ: what need not be computed, loaded or decided once per invocation.
//!
//! Lanes of a workgroup are in order of `local_invocation_index`, x fastest. A *row* is `workgroup[0]`
//! consecutive lanes where four divide that, else it is the whole workgroup.
//!
//! ```text
//!            Varying
//!           /       \
//!   Checked(s)     Row(0)        Row(s): the word grows by s (wrapping) from lane to lane of a row
//!       |              |         Checked(s): so it does where one Index of the way left all lanes as they were
//!   Row(s), s ≠ 0   Uniform      Uniform: the same in the workgroup; with one row, Row(0) is Uniform
//! ```
//!
//! A claim is about the lanes that compute the value at one time, all going through the kernel in lockstep:
//! around a loop, those of one iteration. Lanes that have gone another way claim nothing, and neither do those
//! that will not look again: a counter that is only used behind an early return is uniform for those that
//! stayed. So a register is judged within the innermost steps that hold all of its uses (its *home*), and
//! whoever leaves these is nobody's concern.
//!
//! Two loads are uniform by the kernel's word rather than by proof: of workgroup memory at one address (lanes
//! that write it meanwhile race), and of a binding that this kernel never writes. A load of a binding that it does
//! write is Varying even at one address: other workgroups may write it between two lanes' turns, so control must
//! not rely on it.
//!
//! Invariant: a fixpoint of monotone rules; the least one, so registers around loops are as uniform as they can be,
//! unless it takes more than a fixed number of looks at the kernel.

mod analysis;
mod lattice;
mod registers;
#[cfg(test)]
#[allow(clippy::type_complexity, reason = "tables of cases, each used once")]
mod tests;

pub use analysis::shapes;
pub use lattice::Shape;

use super::ir::{Binary, Count, Kernel, Label, Op, RegisterId, Unary, ValueId};

/// An index on the way to a [`Shape::Checked`] value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// What is asked for: the operand of the [`Op::Index`]; a row of it grows by `step`.
    pub index: ValueId,
    /// What it must stay below.
    pub count: Count,
    /// From lane to lane.
    pub step: u32,
    /// What the value grows by where the index grows by one.
    pub multiplier: u32,
}

/// What is known of a kernel's lanes.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// Per value.
    pub values: Vec<Shape>,
    /// Per register: of whatever it holds when it is read, as far as anyone reads it.
    pub registers: Vec<Shape>,
    /// Lanes of a row.
    pub row: u32,
    is_zero_seen: Vec<bool>,
    is_set_by_all: Vec<bool>,
    is_diverging: Vec<bool>,
}

impl Shapes {
    /// Whether a value is the same in all lanes.
    pub fn is_uniform(&self, value: ValueId) -> bool {
        self.values[value.0 as usize] == Shape::Uniform
    }

    /// The step of a value that is a row's as long as its index is within its count.
    pub fn affine_index(&self, value: ValueId) -> Option<i32> {
        match self.values[value.0 as usize] {
            Shape::Checked(step) => Some(step),
            _ => None,
        }
    }

    /// The index that a [`Shape::Checked`] value depends on. With `index` and `value` as they would be without the
    /// check, a lane's word is `value + multiplier * (min(index, count - 1) - index)`.
    pub fn root(&self, kernel: &Kernel, value: ValueId) -> Option<Root> {
        self.affine_index(value)?;
        let (mut value, mut multiplier) = (value, 1u32);
        loop {
            let is_checked = |value: ValueId| matches!(self.values[value.0 as usize], Shape::Checked(_));
            value = match kernel.value(value).op {
                Op::Index { index, count } => {
                    let Shape::Row(step) = self.values[index.0 as usize] else { return None };
                    return Some(Root { index, count, step: step as u32, multiplier });
                }
                Op::Unary(Unary::Bits, a) => a,
                Op::Binary(Binary::Add | Binary::Sub, a, b) => [a, b].into_iter().find(|&value| is_checked(value))?,
                Op::Binary(op, a, b) => {
                    let (checked, by) = scaled(kernel, op, a, b)?;
                    multiplier = multiplier.wrapping_mul(by);
                    checked
                }
                _ => return None,
            }
        }
    }

    /// Whether some invocations of those that entered a block or loop leave or repeat it while others do not.
    pub fn is_diverging(&self, label: Label) -> bool {
        self.is_diverging[label.0 as usize]
    }

    /// Whether a register may be read before it is written.
    pub fn is_zero_seen(&self, register: RegisterId) -> bool {
        self.is_zero_seen[register.0 as usize]
    }

    /// Whether everyone who will read a register is there at each step that writes it.
    pub fn is_set_by_all(&self, register: RegisterId) -> bool {
        self.is_set_by_all[register.0 as usize]
    }
}

/// The lanes of a row.
pub fn row(workgroup: [u32; 3]) -> u32 {
    if workgroup[0].is_multiple_of(4) { workgroup[0] } else { workgroup.iter().product() }
}

/// The operand that is multiplied by a constant, and the constant.
fn scaled(kernel: &Kernel, op: Binary, a: ValueId, b: ValueId) -> Option<(ValueId, u32)> {
    match (op, kernel.value(a).op, kernel.value(b).op) {
        (Binary::Mul, _, Op::Const(by)) => Some((a, by)),
        (Binary::Mul, Op::Const(by), _) => Some((b, by)),
        (Binary::Shl, _, Op::Const(by)) => Some((a, 1 << (by & 31))),
        _ => None,
    }
}
