//! What the places of reads and writes tell of a register, whatever it holds: within which steps anybody looks at it, and
//! whether somebody may read it before it is written.

use super::super::ir::{Kernel, Op, RegisterId, Stmt};

/// The innermost steps that hold all uses of a register.
#[derive(Clone, Default)]
pub(super) struct Home {
    is_used: bool,
    /// The scopes around them, by number.
    pub(super) scopes: Vec<u32>,
    /// Whether one of those is a loop.
    pub(super) is_around_loop: bool,
}

/// Per register.
pub(super) fn homes(kernel: &Kernel) -> Vec<Home> {
    let mut finder = HomeFinder { kernel, homes: vec![Home::default(); kernel.registers.len()], scopes: Vec::new(), loops: Vec::new() };
    finder.steps(&kernel.body);
    for home in &mut finder.homes {
        home.is_around_loop = home.scopes.iter().any(|scope| finder.loops[*scope as usize]);
    }
    finder.homes
}

struct HomeFinder<'k> {
    kernel: &'k Kernel,
    homes: Vec<Home>,
    scopes: Vec<u32>,
    /// Per scope, whether it is a loop.
    loops: Vec<bool>,
}

impl HomeFinder<'_> {
    fn steps(&mut self, steps: &[Stmt]) {
        for step in steps {
            match step {
                Stmt::Set(register, _) => self.used(*register),
                Stmt::Let(value) => {
                    if let Op::Get(register) = self.kernel.value(*value).op {
                        self.used(register);
                    }
                }
                _ => {}
            }
            for steps in step.nested() {
                self.scopes.push(self.loops.len() as u32);
                self.loops.push(matches!(step, Stmt::Loop { .. }));
                self.steps(steps);
                self.scopes.pop();
            }
        }
    }

    fn used(&mut self, register: RegisterId) {
        let home = &mut self.homes[register.0 as usize];
        if std::mem::replace(&mut home.is_used, true) {
            let common = home.scopes.iter().zip(&self.scopes).take_while(|(a, b)| a == b).count();
            home.scopes.truncate(common);
        } else {
            home.scopes.clone_from(&self.scopes);
        }
    }
}

/// Per register, whether it may be read before it is written.
pub(super) fn zeros_seen(kernel: &Kernel, labels: usize) -> Vec<bool> {
    let registers = kernel.registers.len();
    let mut zeros = Zeros { kernel, seen: vec![false; registers], exits: vec![None; labels] };
    zeros.steps(&kernel.body, &mut vec![false; registers]);
    zeros.seen
}

struct Zeros<'k> {
    kernel: &'k Kernel,
    seen: Vec<bool>,
    /// Per label, the registers that are written wherever someone leaves by it.
    exits: Vec<Option<Vec<bool>>>,
}

impl Zeros<'_> {
    /// Whether anybody gets to the end; `written` is then what is written there.
    fn steps(&mut self, steps: &[Stmt], written: &mut Vec<bool>) -> bool {
        for step in steps {
            let is_passed = match step {
                Stmt::Let(value) => {
                    if let Op::Get(register) = self.kernel.value(*value).op {
                        self.seen[register.0 as usize] |= !written[register.0 as usize];
                    }
                    true
                }
                Stmt::Set(register, _) => {
                    written[register.0 as usize] = true;
                    true
                }
                Stmt::If { accept, reject, .. } => {
                    let mut rejected = written.clone();
                    let is_accept_passed = self.steps(accept, written);
                    let is_reject_passed = self.steps(reject, &mut rejected);
                    meet(written, is_accept_passed, is_reject_passed.then_some(rejected))
                }
                Stmt::Block { label, body } | Stmt::Loop { label, body } => {
                    let is_end_reached = self.steps(body, written);
                    let left = self.exits[label.0 as usize].take();
                    meet(written, is_end_reached, left)
                }
                Stmt::Exit(label) => {
                    let mut left = self.exits[label.0 as usize].take();
                    let is_first = left.is_none();
                    let all = left.get_or_insert_with(|| written.clone());
                    if !is_first {
                        all.iter_mut().zip(written.iter()).for_each(|(all, here)| *all &= here);
                    }
                    self.exits[label.0 as usize] = left;
                    false
                }
                // Whoever begins again knows at least what was known at the start.
                Stmt::Repeat(_) => false,
                Stmt::Store { .. } | Stmt::Atomic { .. } | Stmt::Across { .. } | Stmt::Barrier { .. } => true,
            };
            if !is_passed {
                return false;
            }
        }
        true
    }
}

/// What is written whichever way one came; whether there is a way.
fn meet(written: &mut Vec<bool>, is_passed: bool, other: Option<Vec<bool>>) -> bool {
    match other {
        Some(other) if is_passed => written.iter_mut().zip(&other).for_each(|(written, other)| *written &= other),
        Some(other) => *written = other,
        None => return is_passed,
    }
    true
}
