//! Fewer steps for the same: what nobody reads goes, and two float operators in a row become one step.
//!
//! A step over lanes costs about as much for reading and writing them as for computing, so a sum of products is
//! worth a step of its own: both operators round as they do alone. Invariant: a step moves only to where
//! it is read, in the same straight line, past nothing that writes its operands.

use super::super::ir::Binary;
use super::plan::Drawn;
use super::tape::{Arg, Step, Use, Width};

/// Leaves out steps, and joins others.
pub(super) fn fuse(drawn: &mut Drawn) {
    drop_overwritten(drawn);
    let mut reads = reads(drawn);
    drop_unread(drawn, &mut reads);
    join(drawn, &reads);
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

fn join(drawn: &mut Drawn, reads: &[u32]) {
    // Per slot, where it was last written; and where lines of control last met or parted.
    let mut written = vec![None; drawn.slots.len()];
    let mut line = 0;
    for at in 0..drawn.tape.len() {
        if drawn.tape[at].is_control() {
            line = at;
        }
        if let Step::Binary { op: second, width: Width::Lanes, to, a, b } = drawn.tape[at]
            && is_joined(second)
        {
            let mut inner = |arg: Arg| match arg {
                Arg::Wide(slot) if reads[slot as usize] == 1 && !drawn.slots[slot as usize].is_pinned => {
                    inner_of(&mut drawn.tape, written[slot as usize].filter(|&inner| inner > line)?, &written)
                }
                _ => None,
            };
            let found = [(a, b, false), (b, a, true)].into_iter().find_map(|(arg, c, is_flipped)| Some((inner(arg)?, c, is_flipped)));
            if let Some(((inner, first, a, b), c, is_flipped)) = found {
                drawn.tape[inner] = Step::NOTHING;
                drawn.tape[at] = Step::Pair { first, second, is_flipped, to, a, b, c };
            }
        }
        drawn.tape[at].slots(&mut |slot, what| {
            if what == Use::Write {
                written[*slot as usize] = Some(at);
            }
        });
    }
}

/// A step that may be the first of a pair, if its operands are still what they were.
fn inner_of(tape: &mut [Step], at: usize, written: &[Option<usize>]) -> Option<(usize, Binary, Arg, Arg)> {
    let mut is_same = true;
    tape[at].slots(&mut |slot, what| is_same &= what == Use::Write || written[*slot as usize] < Some(at));
    match tape[at] {
        Step::Binary { op, width: Width::Lanes, a, b, .. } if is_joined(op) && is_same => Some((at, op, a, b)),
        _ => None,
    }
}

fn is_joined(op: Binary) -> bool {
    matches!(op, Binary::AddF | Binary::SubF | Binary::MulF)
}
