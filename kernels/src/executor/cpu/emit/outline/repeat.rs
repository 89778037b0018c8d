//! What runs of steps that are alike have in common, and what they do not.

use std::ops::Range;

use rustc_hash::FxHashMap;
use wasm_encoder::{Instruction as I, ValType};

use super::super::piece::Local;
use super::WORTH;
use super::names::{Name, Named, local};
use super::steps::Steps;

/// Parameters and results of a function; what more of them would cost is not worth a call.
const PARAMETERS_MAX: usize = 40;
const RESULTS_MAX: usize = 8;

/// What a local or a constant of the steps is in the function, for all of the runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A local of the function.
    Local(Local),
    /// As it stands.
    Same,
}

/// A function, and where it is called.
pub(super) struct Repeat {
    /// Piece and range of each run.
    pub(super) runs: Vec<(usize, Range<usize>)>,
    /// Per instruction of a run that has one, its local or constant.
    pub(super) roles: Vec<Role>,
    pub(super) locals: Vec<ValType>,
    /// The instruction of a run that has each parameter.
    pub(super) parameters: Vec<usize>,
    /// The locals of the function that are results, and an instruction of a run that has each.
    pub(super) results: Vec<(Local, usize)>,
    pub(super) saved: usize,
}

/// A local, or a constant that differs, in all runs.
struct Slot {
    ty: ValType,
    /// The first instruction that has it.
    at: usize,
    is_written: bool,
    /// Whether what it held before the run may be read in it.
    is_read: bool,
    /// Whether it is written whatever happens.
    is_set: bool,
    /// The blocks in which it is written.
    set_in: Vec<u32>,
    /// How often it is read.
    gets: u32,
}

impl Repeat {
    /// Nothing if the runs differ in more than locals and constants, or a function would not pay.
    pub(super) fn new(pieces: &[Named], steps: &Steps, firsts: &[usize], count: usize) -> Option<Repeat> {
        let runs: Vec<_> = firsts.iter().map(|&first| steps.range(first, count)).collect::<Option<_>>()?;
        let names: Vec<&[Name]> = runs.iter().map(|(piece, range)| &pieces[*piece].names[range.clone()]).collect();
        let length = names[0].len();
        if names.iter().any(|names| names.len() != length) {
            return None;
        }
        let (slots, of_instruction) = slots(pieces, &runs, &names)?;
        let is_read_elsewhere = |number: usize| {
            runs.iter().zip(&names).any(|((piece, _), names)| {
                let local = local(names[slots[number].at]).map_or(0, |local| local as usize);
                pieces[*piece].gets[local] > slots[number].gets
            })
        };
        let (mut parameters, mut inner, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for (number, slot) in slots.iter().enumerate() {
            // What a run leaves may be read by the next time round.
            let is_result = slot.is_written && (slot.is_read || is_read_elsewhere(number));
            if is_result {
                results.push((number, slot.at));
            }
            let is_parameter = !slot.is_written || slot.is_read || (is_result && !slot.is_set);
            if is_parameter { parameters.push(number) } else { inner.push(number) }
        }
        if parameters.len() > PARAMETERS_MAX || results.len() > RESULTS_MAX {
            return None;
        }
        let call = parameters.len() + results.len() + 1;
        let saved = ((runs.len() - 1) * length).saturating_sub(runs.len() * call + results.len() + 2);
        if saved < WORTH.saved || length < WORTH.steps_per_call * call {
            return None;
        }
        let mut places = vec![0; slots.len()];
        parameters.iter().chain(&inner).enumerate().for_each(|(place, &slot)| places[slot] = place as Local);
        let roles = of_instruction.into_iter().map(|slot| slot.map_or(Role::Same, |slot| Role::Local(places[slot]))).collect();
        Some(Repeat {
            roles,
            locals: parameters.iter().chain(&inner).map(|&slot| slots[slot].ty).collect(),
            parameters: parameters.iter().map(|&slot| slots[slot].at).collect(),
            results: results.into_iter().map(|(slot, at)| (places[slot], at)).collect(),
            runs,
            saved,
        })
    }
}

/// The slots of equal runs, and per instruction which one it has; nothing if the runs are not equal, or if locals that are written
/// are not told apart alike.
fn slots(pieces: &[Named], runs: &[(usize, Range<usize>)], names: &[&[Name]]) -> Option<(Vec<Slot>, Vec<Option<usize>>)> {
    let (piece, range) = &runs[0];
    let (whole, code) = (&pieces[*piece].piece, &pieces[*piece].piece.code[range.clone()]);
    let mut slots: Vec<Slot> = Vec::new();
    let mut known: FxHashMap<Vec<Name>, usize> = FxHashMap::default();
    let mut of_instruction = Vec::with_capacity(code.len());
    // The blocks that are open, by their numbers.
    let (mut open, mut blocks) = (vec![0], 0);
    for at in 0..code.len() {
        let all = || names.iter().map(|names| names[at]);
        match names[0][at] {
            Name::Begin(_) => {
                blocks += 1;
                open.push(blocks);
            }
            Name::End => drop(open.pop()),
            _ if matches!(code[at], I::Else) => {
                blocks += 1;
                open.pop();
                open.push(blocks);
            }
            _ => {}
        }
        let is_same = all().all(|name| name == names[0][at]);
        let ty = match names[0][at] {
            Name::Get(local) | Name::Set(local) | Name::Tee(local) => whole.locals[local as usize],
            Name::Constant(ty, _) if !is_same => ty,
            _ if is_same => {
                of_instruction.push(None);
                continue;
            }
            _ => return None,
        };
        let is_alike = all().all(|name| std::mem::discriminant(&name) == std::mem::discriminant(&names[0][at]));
        if !is_alike {
            return None;
        }
        let key = all().map(|name| local(name).map_or(name, Name::Get)).collect();
        let slot = *known.entry(key).or_insert_with(|| {
            slots.push(Slot { ty, at, is_written: false, is_read: false, is_set: false, set_in: Vec::new(), gets: 0 });
            slots.len() - 1
        });
        of_instruction.push(Some(slot));
        let slot = &mut slots[slot];
        if matches!(names[0][at], Name::Set(_) | Name::Tee(_)) {
            slot.is_written = true;
            slot.is_set |= open.len() == 1;
            slot.set_in.extend(open.last());
        } else {
            slot.gets += 1;
            slot.is_read |= !slot.set_in.iter().any(|block| open.contains(block));
        }
    }
    // A local that is written is one slot in every run.
    for (names, (piece, _)) in names.iter().zip(runs) {
        let mut slot_of: FxHashMap<Local, usize> = FxHashMap::default();
        for (&name, slot) in names.iter().zip(&of_instruction) {
            let (Some(local), Some(slot)) = (local(name), *slot) else { continue };
            let first = *slot_of.entry(local).or_insert(slot);
            let is_one = first == slot || !(slots[first].is_written || slots[slot].is_written);
            if !is_one || pieces[*piece].piece.locals[local as usize] != slots[slot].ty {
                return None;
            }
        }
    }
    Some((slots, of_instruction))
}
