//! Code that repeats itself, as functions that are called.
//!
//! ```text
//! run:  … steps … steps … steps …          run:  … call f … call f … call f …
//!                                          f:    steps            (and in it, once more)
//! ```
//!
//! A stencil that looks across tile borders has the same lookup once for every neighbour, a terrain its noise wherever it is asked
//! for, and compilers take as long for each as for the first. What repeats here is a row of whole steps that are equal but for
//! their locals and constants: those that differ become parameters, and what is set in the steps and read elsewhere comes
//! back as results. The longest saving is taken first, then the next, in what is left and in the functions themselves.
//!
//! Only code that is seldom run, or too long to be compiled in time, is put here for it (`Emitter::is_cold`): a call costs some
//! nanoseconds for every four lanes.
//!
//! Invariant: a function does to memory and to the locals around it what its steps did, in their order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use wasm_encoder::{Encode, Function, Instruction as I, ValType};

use super::EmitError;
use super::code::Local;

/// Instructions of a module below which it is compiled soon enough. Tests of small kernels put whatever they can in functions.
const LENGTH_MIN: usize = if cfg!(test) { 0 } else { 5 << 9 };
/// Instructions that a call has to stand for.
const STEPS_MIN: usize = if cfg!(test) { 2 } else { 64 };
/// Instructions that a function has to save.
const SAVED_MIN: usize = if cfg!(test) { 0 } else { 96 };
/// Instructions that it has to have for each of a call.
const CALLS_WORTH: usize = if cfg!(test) { 0 } else { 2 };
/// Parameters and results of a function; what more of them would cost is not worth a call.
const PARAMETERS_MAX: usize = 40;
const RESULTS_MAX: usize = 8;
/// Functions of a module.
const FUNCTIONS_MAX: usize = 32;
/// Repeats that are looked at closely before one is taken.
const CANDIDATES_MAX: usize = 6;

/// A function in the making.
#[derive(Default)]
pub(super) struct Piece {
    /// Parameters first.
    pub(super) locals: Vec<ValType>,
    pub(super) parameters: usize,
    pub(super) results: Vec<ValType>,
    pub(super) code: Vec<I<'static>>,
    /// Where steps begin and end that follow each other, for every list of them that may be put in functions.
    pub(super) lists: Vec<Vec<usize>>,
}

/// Locals of a function, and its bytes, that every engine takes: <https://webassembly.github.io/spec/js-api/#limits>.
const LOCALS_MAX: usize = 50_000;
const BYTES_MAX: usize = 7_654_321;

impl Piece {
    /// The function, with the locals that it uses, those of a type together.
    ///
    /// **Errors:** it is longer than engines take.
    pub(super) fn function(&self) -> Result<Function, EmitError> {
        let mut is_used = vec![false; self.locals.len()];
        let used = self.code.iter().filter_map(|instruction| match *instruction {
            I::LocalGet(local) | I::LocalSet(local) | I::LocalTee(local) => Some(local as usize),
            _ => None,
        });
        used.for_each(|local| is_used[local] = true);
        let mut declared: Vec<usize> = (self.parameters..self.locals.len()).filter(|&local| is_used[local]).collect();
        declared.sort_by_key(|&local| order(self.locals[local]));
        let mut places: Vec<Local> = (0..self.locals.len() as Local).collect();
        declared.iter().enumerate().for_each(|(place, &local)| places[local] = (self.parameters + place) as Local);
        let mut function = Function::new_with_locals_types(declared.iter().map(|&local| self.locals[local]));
        for instruction in &self.code {
            match *instruction {
                I::LocalGet(local) => function.instruction(&I::LocalGet(places[local as usize])),
                I::LocalSet(local) => function.instruction(&I::LocalSet(places[local as usize])),
                I::LocalTee(local) => function.instruction(&I::LocalTee(places[local as usize])),
                ref other => function.instruction(other),
            };
        }
        if declared.len() > LOCALS_MAX || function.byte_len() > BYTES_MAX {
            return Err(EmitError::TooLong { locals: declared.len(), bytes: function.byte_len() });
        }
        Ok(function)
    }
}

fn order(ty: ValType) -> u8 {
    match ty {
        ValType::I32 => 0,
        ValType::I64 => 1,
        ValType::F32 => 2,
        _ => 3,
    }
}

/// Puts what repeats itself in `whole` in functions; `first`: what the first of them is called by. `whole` comes first.
pub(super) fn outline(whole: Piece, first: u32) -> Vec<Piece> {
    let mut names = Names::default();
    let mut pieces = vec![names.named(whole)];
    let length = |pieces: &[Named]| pieces.iter().map(|named| named.names.len()).sum::<usize>();
    while length(&pieces) > LENGTH_MIN && pieces.len() <= FUNCTIONS_MAX {
        let Some(repeat) = best(&pieces) else { break };
        let function = first + pieces.len() as u32 - 1;
        let made = apply(&mut pieces, &repeat, function, &mut names);
        pieces.push(made);
    }
    pieces.into_iter().map(|named| named.piece).collect()
}

/// An instruction as far as repeats are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    /// Reads, writes, or writes and leaves a local.
    Get(Local),
    Set(Local),
    Tee(Local),
    /// A constant, by its type and its number.
    Constant(ValType, u32),
    /// A block begins, with what it is.
    Begin(u32),
    End,
    /// Goes as many blocks out, on a condition or not.
    Branch(u32, bool),
    /// Leaves the function.
    Return,
    /// Anything else, by its number.
    Other(u32),
}

/// A piece with the names of its instructions.
struct Named {
    piece: Piece,
    names: Vec<Name>,
    /// Per local, how often it is read.
    gets: Vec<u32>,
}

impl Named {
    fn count(&mut self) {
        self.gets = vec![0; self.piece.locals.len()];
        for name in &self.names {
            if let Name::Get(local) = name {
                self.gets[*local as usize] += 1;
            }
        }
    }
}

/// Numbers for instructions and for constants.
#[derive(Default)]
struct Names {
    others: HashMap<Vec<u8>, u32>,
    constants: HashMap<(ValType, u128), u32>,
    bytes: Vec<u8>,
}

impl Names {
    fn named(&mut self, piece: Piece) -> Named {
        let names = piece.code.iter().map(|instruction| self.name(instruction)).collect();
        let mut named = Named { piece, names, gets: Vec::new() };
        named.count();
        named
    }

    fn name(&mut self, instruction: &I<'static>) -> Name {
        match *instruction {
            I::LocalGet(local) => Name::Get(local),
            I::LocalSet(local) => Name::Set(local),
            I::LocalTee(local) => Name::Tee(local),
            I::I32Const(value) => self.constant(ValType::I32, value as u32 as u128),
            I::I64Const(value) => self.constant(ValType::I64, value as u64 as u128),
            I::F32Const(value) => self.constant(ValType::F32, value.bits().into()),
            I::V128Const(value) => self.constant(ValType::V128, value as u128),
            I::Block(_) | I::Loop(_) | I::If(_) => Name::Begin(self.other(instruction)),
            I::End => Name::End,
            I::Br(out) => Name::Branch(out, false),
            I::BrIf(out) => Name::Branch(out, true),
            I::Return => Name::Return,
            _ => Name::Other(self.other(instruction)),
        }
    }

    fn constant(&mut self, ty: ValType, bits: u128) -> Name {
        let next = self.constants.len() as u32;
        Name::Constant(ty, *self.constants.entry((ty, bits)).or_insert(next))
    }

    fn other(&mut self, instruction: &I<'static>) -> u32 {
        self.bytes.clear();
        instruction.encode(&mut self.bytes);
        if let Some(&number) = self.others.get(&self.bytes) {
            return number;
        }
        let next = self.others.len() as u32;
        self.others.insert(self.bytes.clone(), next);
        next
    }
}

/// Every step of every list, one after the other, by what it is but for its locals and constants; numbers that are nobody else's
/// between lists, and for steps that cannot be in a function.
struct Tokens {
    tokens: Vec<u32>,
    /// Piece and range of each, or nothing between lists.
    places: Vec<Option<(usize, Range<usize>)>>,
}

impl Tokens {
    fn new(pieces: &[Named]) -> Tokens {
        let mut known: HashMap<u64, u32> = HashMap::new();
        let (mut next, mut seen) = (0, Vec::new());
        let mut all = Tokens { tokens: Vec::new(), places: Vec::new() };
        for (number, named) in pieces.iter().enumerate() {
            for list in &named.piece.lists {
                for ends in list.windows(2) {
                    let range = ends[0]..ends[1];
                    let shape = shape(&named.names[range.clone()], &mut seen);
                    let fresh = next;
                    let token = shape.map_or(fresh, |shape| *known.entry(shape).or_insert(fresh));
                    next += u32::from(token == fresh);
                    all.tokens.push(token);
                    all.places.push(Some((number, range)));
                }
                all.tokens.push(next);
                all.places.push(None);
                next += 1;
            }
        }
        all
    }

    /// The instructions of a run of steps.
    fn range(&self, first: usize, count: usize) -> Option<(usize, Range<usize>)> {
        let (piece, begin) = self.places[first].clone()?;
        let (_, end) = self.places[first + count - 1].clone()?;
        Some((piece, begin.start..end.end))
    }
}

/// A hash of what a step is but for its locals, which are numbered as they come, and its constants; nothing if it leads out of
/// itself. Whether steps with the same one are the same is seen later.
fn shape(names: &[Name], seen: &mut Vec<Local>) -> Option<u64> {
    seen.clear();
    let mut number = |local: Local| {
        let known = seen.iter().rposition(|&known| known == local);
        known.unwrap_or_else(|| {
            seen.push(local);
            seen.len() - 1
        }) as u64
    };
    let mut depth = 0u32;
    let mut hash = 0u64;
    for &name in names {
        let (kind, what) = match name {
            Name::Get(local) => (0, number(local)),
            Name::Set(local) => (1, number(local)),
            Name::Tee(local) => (2, number(local)),
            Name::Constant(ty, _) => (3, u64::from(order(ty))),
            Name::Begin(what) => {
                depth += 1;
                (4, what.into())
            }
            Name::End => {
                depth = depth.checked_sub(1)?;
                (5, 0)
            }
            Name::Branch(out, is_on_condition) => {
                if out >= depth {
                    return None;
                }
                (6 + u64::from(is_on_condition), out.into())
            }
            Name::Return => return None,
            Name::Other(what) => (8, what.into()),
        };
        hash = (hash.rotate_left(5) ^ (what << 4 | kind)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (depth == 0).then_some(hash)
}

/// Runs of steps that are equal: their first steps and how many they are.
#[derive(Debug, PartialEq)]
struct Candidate {
    firsts: Vec<usize>,
    count: usize,
    /// Instructions that it may save.
    saved: usize,
}

/// The repeat that saves most.
fn best(pieces: &[Named]) -> Option<Repeat> {
    let tokens = Tokens::new(pieces);
    let mut candidates = candidates(&tokens);
    candidates.sort_by_key(|candidate| (Reverse(candidate.saved), candidate.firsts[0], candidate.count));
    candidates.dedup();
    let mut seen = Vec::new();
    let closely = candidates.iter().take(CANDIDATES_MAX).filter_map(|candidate| {
        // Those that take their locals alike, where not all do.
        let all = Repeat::new(pieces, &tokens, &candidate.firsts, candidate.count);
        all.or_else(|| {
            candidate
                .alike(pieces, &tokens, &mut seen)
                .filter_map(|firsts| Repeat::new(pieces, &tokens, &firsts, candidate.count))
                .max_by_key(|repeat| repeat.saved)
        })
    });
    closely.max_by_key(|repeat| repeat.saved)
}

impl Candidate {
    /// Its runs, by what they are as a whole.
    fn alike(&self, pieces: &[Named], tokens: &Tokens, seen: &mut Vec<Local>) -> impl Iterator<Item = Vec<usize>> {
        let mut groups: BTreeMap<Option<u64>, Vec<usize>> = BTreeMap::new();
        for &first in &self.firsts {
            let hash = tokens.range(first, self.count).and_then(|(piece, range)| shape(&pieces[piece].names[range], seen));
            groups.entry(hash).or_default().push(first);
        }
        groups.into_values().filter(|firsts| firsts.len() > 1)
    }
}

/// Equal runs of 1, 2, 4, … steps, made as long as they go.
fn candidates(tokens: &Tokens) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    // What the steps from here on are, `width` of them.
    let mut ranks = tokens.tokens.clone();
    let mut width = 1;
    loop {
        let mut groups: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, &rank) in ranks.iter().enumerate() {
            groups.entry(rank).or_default().push(at);
        }
        groups.retain(|_, firsts| firsts.len() > 1);
        if groups.is_empty() {
            return candidates;
        }
        candidates.extend(groups.into_values().filter_map(|firsts| extended(tokens, firsts, width)));
        let mut pairs = HashMap::new();
        let doubled = (0..ranks.len() - width.min(ranks.len())).map(|at| {
            let next = pairs.len() as u32;
            *pairs.entry((ranks[at], ranks[at + width])).or_insert(next)
        });
        ranks = doubled.collect();
        width *= 2;
    }
}

/// Equal runs that do not overlap, longer at both ends while they stay equal.
fn extended(tokens: &Tokens, firsts: Vec<usize>, width: usize) -> Option<Candidate> {
    let mut apart: Vec<usize> = Vec::with_capacity(firsts.len());
    for first in firsts {
        if apart.last().is_none_or(|&before| first >= before + width) {
            apart.push(first);
        }
    }
    let mut count = width;
    let nearest = apart.windows(2).map(|pair| pair[1] - pair[0]).min()?;
    let all_same = |of: &dyn Fn(usize) -> Option<usize>| {
        let token = |first: usize| of(first).and_then(|at| tokens.tokens.get(at));
        let wanted = token(apart[0]);
        wanted.is_some() && apart[1..].iter().all(|&first| token(first) == wanted)
    };
    while count < nearest && all_same(&|first| Some(first + count)) {
        count += 1;
    }
    let mut before = 0;
    while count < nearest && all_same(&|first: usize| first.checked_sub(before + 1)) {
        before += 1;
        count += 1;
    }
    apart.iter_mut().for_each(|first| *first -= before);
    let (_, range) = tokens.range(apart[0], count)?;
    let saved = (apart.len() - 1) * range.len();
    (range.len() >= STEPS_MIN && saved >= SAVED_MIN).then_some(Candidate { firsts: apart, count, saved })
}

/// What a local or a constant of the steps is in the function, for all of the runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A local of the function.
    Local(Local),
    /// As it stands.
    Same,
}

/// A function, and where it is called.
struct Repeat {
    /// Piece and range of each run.
    runs: Vec<(usize, Range<usize>)>,
    /// Per instruction of a run that has one, its local or constant.
    roles: Vec<Role>,
    locals: Vec<ValType>,
    /// The instruction of a run that has each parameter.
    parameters: Vec<usize>,
    /// The locals of the function that are results, and an instruction of a run that has each.
    results: Vec<(Local, usize)>,
    saved: usize,
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
    fn new(pieces: &[Named], tokens: &Tokens, firsts: &[usize], count: usize) -> Option<Repeat> {
        let runs: Vec<_> = firsts.iter().map(|&first| tokens.range(first, count)).collect::<Option<_>>()?;
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
        if saved < SAVED_MIN || length < CALLS_WORTH * call {
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

fn local(name: Name) -> Option<Local> {
    match name {
        Name::Get(local) | Name::Set(local) | Name::Tee(local) => Some(local),
        _ => None,
    }
}

/// The slots of equal runs, and per instruction which one it has; nothing if the runs are not equal, or if locals that are written
/// are not told apart alike.
fn slots(pieces: &[Named], runs: &[(usize, Range<usize>)], names: &[&[Name]]) -> Option<(Vec<Slot>, Vec<Option<usize>>)> {
    let (piece, range) = &runs[0];
    let (whole, code) = (&pieces[*piece].piece, &pieces[*piece].piece.code[range.clone()]);
    let mut slots: Vec<Slot> = Vec::new();
    let mut known: HashMap<Vec<Name>, usize> = HashMap::new();
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
        let mut slot_of: HashMap<Local, usize> = HashMap::new();
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
    for list in &mut named.piece.lists {
        list.retain(|at| !calls.iter().any(|(range, _)| range.start < *at && *at < range.end));
        for at in list.iter_mut() {
            let before = calls.iter().take_while(|(range, _)| range.end <= *at);
            *at = before.fold(*at, |moved, (range, call)| moved + call.len() - range.len());
        }
    }
    named.piece.lists.retain(|list| list.len() > 1);
    named.count();
}
