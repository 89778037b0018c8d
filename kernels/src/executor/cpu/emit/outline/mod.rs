//! Code that repeats itself, as functions that are called.
//!
//! ```text
//! run:  … steps … steps … steps …          run:  … call f … call f … call f …
//!                                          f:    steps            (and in it, once more)
//! names ─► steps: runs of whole steps that are alike ─► repeat: what differs becomes parameters ─► calls
//! ```
//!
//! A stencil that looks across tile borders has the same lookup once for every neighbour, a terrain its noise wherever it is asked
//! for, and compilers take as long for each as for the first. What repeats here is a row of whole steps that are equal but for
//! their locals and constants: those that differ become parameters, and what is set in the steps and read elsewhere comes
//! back as results. The longest saving is taken first, then the next, in what is left and in the functions themselves, until the module is
//! short enough.
//!
//! Only what is seldom run, or has no faster form, may be put in functions (`Emitter::is_cold`), and only of modules that would take too long to
//! compile: a call costs some nanoseconds for every four lanes.
//!
//! Invariants: a function does to memory and to the locals around it what its steps did, in their order. The same code gives the same
//! functions.

mod names;
mod repeat;
mod shape;
mod steps;

use std::cmp::Reverse;
use std::ops::Range;

use wasm_encoder::Instruction as I;

use super::piece::Piece;
use names::{Named, Names};
use repeat::{Repeat, Role};
use shape::Numbers;
use steps::Steps;

/// When functions are worth their calls.
struct Worth {
    /// Instructions of a module that is compiled soon enough.
    module: usize,
    /// Instructions of a function, at least: all of them, and for each of a call.
    steps: usize,
    steps_per_call: usize,
    /// Instructions that a function has to save.
    saved: usize,
}

/// About ten milliseconds of Cranelift, on a slow core; a call, its prologue and what is saved around it cost as much as some twenty instructions.
/// Tests of small kernels put whatever they can in functions.
static WORTH: Worth = if cfg!(test) {
    Worth { module: 0, steps: 2, steps_per_call: 0, saved: 0 }
} else {
    Worth { module: 2560, steps: 64, steps_per_call: 2, saved: 96 }
};

/// Instructions of a module that is searched at all; with more, its kernel is interpreted for long whatever is done.
const MODULE_MAX: usize = 1 << 17;
/// Functions of a module.
const FUNCTIONS_MAX: usize = 32;
/// Repeats that are looked at closely before one is taken.
const CANDIDATES_MAX: usize = 3;

/// Puts what repeats itself in `whole` in functions; `first`: what the first of them is called by. `whole` comes first.
pub(super) fn outline(whole: Piece, first: u32) -> Vec<Piece> {
    if whole.code.len() <= WORTH.module || whole.code.len() > MODULE_MAX {
        return vec![whole];
    }
    let mut names = Names::default();
    let mut pieces = vec![names.named(whole)];
    let length = |pieces: &[Named]| pieces.iter().map(|named| named.names.len()).sum::<usize>();
    while length(&pieces) > WORTH.module && pieces.len() <= FUNCTIONS_MAX {
        let Some(repeat) = best(&pieces, &mut names.numbers) else { break };
        let function = first + pieces.len() as u32 - 1;
        let made = apply(&mut pieces, &repeat, function, &mut names);
        pieces.push(made);
    }
    pieces.into_iter().map(|named| named.piece).collect()
}

/// The repeat that saves most.
fn best(pieces: &[Named], numbers: &mut Numbers) -> Option<Repeat> {
    let steps = Steps::new(pieces);
    let mut candidates = steps::candidates(&steps);
    candidates.sort_by_key(|candidate| (Reverse(candidate.saved), candidate.firsts[0], candidate.count));
    candidates.dedup();
    let closely = candidates.iter().take(CANDIDATES_MAX).filter_map(|candidate| {
        // Those that take their locals alike, where not all do.
        let all = Repeat::new(pieces, &steps, &candidate.firsts, candidate.count);
        all.or_else(|| {
            candidate
                .alike(pieces, &steps, numbers)
                .filter_map(|firsts| Repeat::new(pieces, &steps, &firsts, candidate.count))
                .max_by_key(|repeat| repeat.saved)
        })
    });
    closely.max_by_key(|repeat| repeat.saved)
}

/// Calls `function` in place of every run; the function.
fn apply(pieces: &mut [Named], repeat: &Repeat, function: u32, names: &mut Names) -> Named {
    let made = body(pieces, repeat);
    for (number, named) in pieces.iter_mut().enumerate() {
        let mut calls: Vec<(Range<usize>, Vec<I<'static>>)> = Vec::new();
        for (_, range) in repeat.runs.iter().filter(|(piece, _)| *piece == number) {
            let code = &named.piece.code[range.clone()];
            let mut call: Vec<I<'static>> = repeat.parameters.iter().map(|&at| given(&code[at])).collect();
            call.push(I::Call(function));
            call.extend(repeat.results.iter().rev().map(|&(_, at)| taken(&code[at])));
            calls.push((range.clone(), call));
        }
        calls.sort_by_key(|(range, _)| range.start);
        replace(named, &calls, names);
    }
    names.named(made)
}

/// The function, from the first run.
fn body(pieces: &[Named], repeat: &Repeat) -> Piece {
    let (piece, range) = &repeat.runs[0];
    let whole = &pieces[*piece].piece;
    let renamed = |(instruction, role): (&I<'static>, &Role)| match (instruction, role) {
        (I::LocalSet(_), Role::Local(local)) => I::LocalSet(*local),
        (I::LocalTee(_), Role::Local(local)) => I::LocalTee(*local),
        // Read, or a constant that is told.
        (_, Role::Local(local)) => I::LocalGet(*local),
        (instruction, Role::Same) => instruction.clone(),
    };
    let mut code: Vec<I<'static>> = whole.code[range.clone()].iter().zip(&repeat.roles).map(renamed).collect();
    code.extend(repeat.results.iter().map(|&(local, _)| I::LocalGet(local)));
    code.push(I::End);
    let inside =
        |list: &Vec<usize>| -> Vec<usize> { list.iter().filter(|at| (range.start..=range.end).contains(at)).map(|at| at - range.start).collect() };
    let lists = whole.lists.iter().map(inside).filter(|list| list.len() > 1).collect();
    let results = repeat.results.iter().map(|&(local, _)| repeat.locals[local as usize]).collect();
    Piece { locals: repeat.locals.clone(), parameters: repeat.parameters.len(), results, code, lists }
}

/// Pushes what an instruction reads, or the constant that it is.
fn given(instruction: &I<'static>) -> I<'static> {
    match *instruction {
        I::LocalSet(local) | I::LocalTee(local) => I::LocalGet(local),
        ref other => other.clone(),
    }
}

/// Pops into what an instruction writes.
fn taken(instruction: &I<'static>) -> I<'static> {
    match *instruction {
        I::LocalGet(local) | I::LocalTee(local) => I::LocalSet(local),
        ref other => other.clone(),
    }
}

/// Puts code in place of ranges that are in order and apart.
fn replace(named: &mut Named, calls: &[(Range<usize>, Vec<I<'static>>)], names: &mut Names) {
    if calls.is_empty() {
        return;
    }
    let (old_code, old_names) = (std::mem::take(&mut named.piece.code), std::mem::take(&mut named.names));
    let mut kept = 0;
    for (range, call) in calls {
        named.piece.code.extend_from_slice(&old_code[kept..range.start]);
        named.names.extend_from_slice(&old_names[kept..range.start]);
        named.names.extend(call.iter().map(|instruction| names.name(instruction)));
        named.piece.code.extend_from_slice(call);
        kept = range.end;
    }
    named.piece.code.extend_from_slice(&old_code[kept..]);
    named.names.extend_from_slice(&old_names[kept..]);
    let moves = Moves::new(calls);
    for (list, shapes) in named.piece.lists.iter_mut().zip(&mut named.shapes) {
        let (old_list, old_shapes) = (std::mem::take(list), std::mem::take(shapes));
        for (step, &end) in old_list.iter().enumerate() {
            let Some(moved) = moves.moved(end) else { continue };
            if let Some(&begin) = list.last() {
                // As it was, or anew where there is a call in it now.
                let old = step.checked_sub(1).filter(|&before| moves.before(old_list[before]) == moves.before(end));
                shapes.push(old.map_or_else(|| names.numbers.shape(&named.names[begin..moved]), |old| old_shapes[old]));
            }
            list.push(moved);
        }
    }
    named.count();
}

/// Where instructions are once calls stand in place of ranges.
struct Moves<'a> {
    calls: &'a [(Range<usize>, Vec<I<'static>>)],
    /// By how much what follows the first so many calls moves.
    by: Vec<isize>,
}

impl<'a> Moves<'a> {
    fn new(calls: &'a [(Range<usize>, Vec<I<'static>>)]) -> Moves<'a> {
        let mut by = vec![0];
        by.extend(calls.iter().scan(0, |sum, (range, call)| {
            *sum += call.len() as isize - range.len() as isize;
            Some(*sum)
        }));
        Moves { calls, by }
    }

    /// The calls that lie before a place.
    fn before(&self, at: usize) -> usize {
        self.calls.partition_point(|(range, _)| range.end <= at)
    }

    /// A place; nothing if it is within a call now.
    fn moved(&self, at: usize) -> Option<usize> {
        let before = self.before(at);
        let is_within = self.calls.get(before).is_some_and(|(range, _)| range.start < at);
        (!is_within).then(|| at.saturating_add_signed(self.by[before]))
    }
}
