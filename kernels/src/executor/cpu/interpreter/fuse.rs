//! Fewer steps for the same: what nobody reads goes, and two steps in a row become one.
//!
//! A step over lanes costs about as much for reading and writing them as for computing, so a sum of products is
//! worth a step of its own: both operators round as they do alone. So is an operator whose operand is read from memory. A
//! step over one word costs as much as finding the next one: a loop's counter is written where it is kept, and
//! its condition is part of the branch. Invariant: a step moves only to where it is read, in the same straight line,
//! past nothing that writes its operands.

use std::collections::HashMap;

use super::super::ir::{Binary, Memory};
use super::plan::Drawn;
use super::tape::{Affine, Arg, InMemory, Operand, Place, Slot, Step, Target, Use, Width, Window};

/// Leaves out steps, and joins others.
pub(super) fn fuse(drawn: &mut Drawn) {
    drop_overwritten(drawn);
    let mut reads = reads(drawn);
    drop_unread(drawn, &mut reads);
    for fuse in [pair, read_in_place, update, carry, write_in_place, branch_by_operator] {
        along(drawn, &reads, fuse);
    }
}

/// Leaves out what registers are set to where nobody reads it before they are set again.
fn drop_overwritten(drawn: &mut Drawn) {
    // Per slot, where it was last set in this line, and nobody has read it since.
    let mut unread: Vec<Option<usize>> = vec![None; drawn.slots.len()];
    let mut line = 0;
    for at in 0..drawn.tape.len() {
        if drawn.tape[at].is_control() {
            line = at;
        }
        drawn.tape[at].slots(&mut |slot, what| {
            if what == Use::Read {
                unread[*slot as usize] = None;
            }
        });
        if let Step::Set { to, .. } | Step::CopyOne { to, .. } = drawn.tape[at]
            && let Some(before) = unread[to as usize].replace(at)
            && before > line
        {
            // In one line, the same lanes are there at both.
            drawn.tape[before] = Step::NOTHING;
        }
    }
}

/// Per slot, how many steps read it; once more for each time that one does.
fn reads(drawn: &mut Drawn) -> Vec<u32> {
    let mut reads = vec![0; drawn.slots.len()];
    for step in &mut drawn.tape {
        step.slots(&mut |slot, what| reads[*slot as usize] += u32::from(what == Use::Read));
    }
    reads
}

fn drop_unread(drawn: &mut Drawn, reads: &mut [u32]) {
    for step in drawn.tape.iter_mut().rev() {
        let (mut is_read, mut writes) = (matches!(step, Step::Atomic { .. }), false);
        step.slots(&mut |slot, what| {
            if what == Use::Write {
                writes = true;
                is_read |= reads[*slot as usize] > 0;
            }
        });
        if writes && !is_read {
            step.slots(&mut |slot, what| reads[*slot as usize] -= u32::from(what == Use::Read));
            *step = Step::NOTHING;
        }
    }
}

/// What is known of a straight line of steps, up to one of them.
struct Line<'r> {
    /// Where it begins.
    first: usize,
    /// Per slot, where it was last written.
    written: Vec<Option<usize>>,
    /// Where memory was last written.
    stored: Option<usize>,
    reads: &'r [u32],
}

impl Line<'_> {
    /// The step of this line that makes what a slot holds, if it is made for one reader and would make the same where this one is.
    fn maker(&self, drawn: &mut Drawn, slot: Slot) -> Option<usize> {
        if self.reads[slot as usize] != 1 || drawn.slots[slot as usize].is_pinned {
            return None;
        }
        let made = self.written[slot as usize].filter(|&made| made >= self.first)?;
        let mut is_same = true;
        drawn.tape[made].slots(&mut |slot, what| is_same &= what == Use::Write || self.written[*slot as usize] < Some(made));
        is_same.then_some(made)
    }
}

/// Shows every step, and what is known before it, to `fuse`.
fn along(drawn: &mut Drawn, reads: &[u32], fuse: impl Fn(&mut Drawn, &Line<'_>, usize)) {
    let mut line = Line { first: 0, written: vec![None; drawn.slots.len()], stored: None, reads };
    for at in 0..drawn.tape.len() {
        fuse(drawn, &line, at);
        let step = &mut drawn.tape[at];
        if step.is_control() {
            line.first = at + 1;
        }
        let is_store = matches!(step, Step::Scatter { .. } | Step::StoreRows { .. } | Step::StorePrivate { .. });
        if is_store || matches!(step, Step::Update { .. } | Step::Move { .. } | Step::Atomic { .. }) {
            line.stored = Some(at);
        }
        step.slots(&mut |slot, what| {
            if what == Use::Write {
                line.written[*slot as usize] = Some(at);
            }
        });
    }
}

/// Two operators over lanes of floats.
fn pair(drawn: &mut Drawn, line: &Line<'_>, at: usize) {
    let Step::Binary { op: second, width: Width::Lanes, to, a, b } = drawn.tape[at] else { return };
    if !is_paired(second) {
        return;
    }
    for (inner, c, is_flipped) in [(a, b, false), (b, a, true)] {
        if let Arg::Wide(slot) = inner
            && let Some(made) = line.maker(drawn, slot)
            && let Step::Binary { op: first, width: Width::Lanes, a, b, .. } = drawn.tape[made]
            && is_paired(first)
        {
            drawn.tape[made] = Step::NOTHING;
            drawn.tape[at] = Step::Pair { first, second, is_flipped, to, a, b, c };
            return;
        }
    }
}

fn is_paired(op: Binary) -> bool {
    matches!(op, Binary::AddF | Binary::SubF | Binary::MulF)
}

/// An operator over lanes whose operands have just been read.
fn read_in_place(drawn: &mut Drawn, line: &Line<'_>, at: usize) {
    let Step::Binary { op, width: Width::Lanes, to, a: Arg::Wide(a), b: Arg::Wide(b) } = drawn.tape[at] else { return };
    let operands = [a, b].map(|slot| {
        let made = line.maker(drawn, slot).filter(|made| line.stored < Some(*made));
        match made.map(|made| (made, &drawn.tape[made])) {
            Some((made, Step::LoadRows { from, .. })) if matches!(from.memory, Memory::Workgroup | Memory::Constant) => {
                let rows = Operand::Rows(Box::new(InMemory { from: *from, to: slot }));
                drawn.tape[made] = Step::NOTHING;
                rows
            }
            _ => Operand::Slot(slot),
        }
    });
    if let [Operand::Slot(_), Operand::Slot(_)] = operands {
        return;
    }
    let [a, b] = operands;
    drawn.tape[at] = Step::BinaryRows { op, to, a, b };
}

/// An operator whose outcome goes to where an operand came from.
fn update(drawn: &mut Drawn, line: &Line<'_>, at: usize) {
    let Step::StoreRows { to, value: Arg::Wide(slot), mask } = drawn.tape[at] else { return };
    let Some(made) = line.maker(drawn, slot).filter(|made| line.stored < Some(*made)) else { return };
    let Step::BinaryRows { op, ref a, ref b, .. } = drawn.tape[made] else { return };
    let other = match is_here(a, &to) {
        true => b,
        false if is_symmetric(op) && is_here(b, &to) => a,
        false => return,
    };
    let b = other.clone();
    drawn.tape[made] = Step::NOTHING;
    drawn.tape[at] = Step::Update { op, at: to, b, through: slot, mask };
}

/// What is read only to be kept in workgroup memory.
fn carry(drawn: &mut Drawn, line: &Line<'_>, at: usize) {
    let Step::StoreRows { to, value: Arg::Wide(slot), mask } = drawn.tape[at] else { return };
    let Some(made) = line.maker(drawn, slot).filter(|made| line.stored < Some(*made)) else { return };
    let Step::LoadRows { from, .. } = drawn.tape[made] else { return };
    if let (Memory::Binding(_), Memory::Workgroup) = (from.memory, to.memory) {
        drawn.tape[made] = Step::NOTHING;
        drawn.tape[at] = Step::Move { from, to, through: slot, mask };
    }
}

/// Whether the operands may change places: then a NaN's bits may be another's, and nothing else.
fn is_symmetric(op: Binary) -> bool {
    use Binary::{Add, AddF, And, MaxI, MaxU, MinI, MinU, Mul, MulF, Or, Xor};
    matches!(op, AddF | MulF | Add | Mul | And | Or | Xor | MinI | MinU | MaxI | MaxU)
}

/// Whether an operand is what this place of workgroup memory holds.
fn is_here(operand: &Operand, place: &Place<Affine>) -> bool {
    matches!(operand, Operand::Rows(rows) if rows.from == *place && place.memory == Memory::Workgroup)
}

/// One word that is computed and then copied to a register.
fn write_in_place(drawn: &mut Drawn, line: &Line<'_>, at: usize) {
    let Step::CopyOne { to: register, from } = drawn.tape[at] else { return };
    let Some(made) = line.maker(drawn, from) else { return };
    let mut is_used = false;
    for step in &mut drawn.tape[made + 1..at] {
        step.slots(&mut |slot, _| is_used |= *slot == register);
    }
    if is_used {
        return;
    }
    match &mut drawn.tape[made] {
        Step::UnaryOne { to, .. } | Step::BinaryOne { to, .. } | Step::SelectOne { to, .. } | Step::IndexOne { to, .. } => *to = register,
        _ => return,
    }
    drawn.tape[at] = Step::NOTHING;
}

/// A branch by what an operator has just found.
fn branch_by_operator(drawn: &mut Drawn, line: &Line<'_>, at: usize) {
    let Step::Branch { condition, unless, otherwise } = drawn.tape[at] else { return };
    if let Some(made) = line.maker(drawn, condition)
        && let Step::BinaryOne { op, a, b, .. } = drawn.tape[made]
    {
        drawn.tape[made] = Step::NOTHING;
        drawn.tape[at] = Step::BranchBinary { op, a, b, unless, otherwise };
    }
}

/// Leaves out windows that nobody looks through before there is another: a loop around one branch for a few goes back to all lanes for
/// nothing.
pub(super) fn drop_windows(tape: &mut [Step]) {
    let mut places = HashMap::new();
    for (at, step) in tape.iter().enumerate() {
        if let Step::Mark(target) = step {
            places.insert(*target, at);
        }
    }
    // Per step, whether the window that it finds is looked through, by it or behind it. What goes back is only known after another round.
    let mut is_used = vec![false; tape.len() + 1];
    let mut is_settled = false;
    while !is_settled {
        is_settled = true;
        for (at, step) in tape.iter_mut().enumerate().rev() {
            let mut used = match step.window() {
                Window::Uses => true,
                Window::Keeps => is_used[at + 1],
                Window::Changes => false,
            };
            step.targets(|target| used |= is_used[places[target]]);
            is_settled &= used == is_used[at];
            is_used[at] = used;
        }
    }
    for (at, step) in tape.iter_mut().enumerate() {
        if matches!(step, Step::Resume(_)) && !is_used[at + 1] {
            *step = Step::NOTHING;
        }
    }
}

/// Loops that begin with a condition: it is asked again where they end. Of a tape whose slots and targets are places.
pub(super) fn close_loops(tape: &mut [Step]) {
    for at in 0..tape.len() {
        if let Step::Back(start) = tape[at]
            && let Step::BranchBinary { op, a, b, unless, otherwise } = tape[start.0 as usize]
        {
            tape[at] = Step::BackBinary { op, a, b, unless, start: Target(start.0 + 1), otherwise };
        }
    }
}
