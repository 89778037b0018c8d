//! Which runs of steps are alike.
//!
//! Steps are numbered by what they are; what `2n` of them are is what the first `n` and the next `n` are. So equal runs of 1, 2, 4, … steps are
//! found without comparing each with each, and made longer one step at a time.

use std::collections::BTreeMap;
use std::ops::Range;

use rustc_hash::FxHashMap;
use wasm_encoder::ValType;

use super::super::piece::Local;
use super::WORTH;
use super::names::{Name, Named};

/// Instructions of a step that is looked at as a whole; of longer ones, what is in them is.
const STEP_MAX: usize = 1 << 10;

/// Every step of every list, one after the other, by what it is but for its locals and constants; numbers that are nobody else's
/// between lists, and for steps that cannot be in a function.
pub(super) struct Steps {
    kinds: Vec<u32>,
    /// Piece and range of each, or nothing between lists.
    places: Vec<Option<(usize, Range<usize>)>>,
}

impl Steps {
    pub(super) fn new(pieces: &[Named], numbers: &mut Numbers) -> Steps {
        let mut known: FxHashMap<u64, u32> = FxHashMap::default();
        let mut next = 0;
        let mut all = Steps { kinds: Vec::new(), places: Vec::new() };
        for (number, named) in pieces.iter().enumerate() {
            for list in &named.piece.lists {
                for ends in list.windows(2) {
                    let range = ends[0]..ends[1];
                    let shape = if range.len() > STEP_MAX { None } else { numbers.shape(&named.names[range.clone()]) };
                    let fresh = next;
                    let kind = shape.map_or(fresh, |shape| *known.entry(shape).or_insert(fresh));
                    next += u32::from(kind == fresh);
                    all.kinds.push(kind);
                    all.places.push(Some((number, range)));
                }
                all.kinds.push(next);
                all.places.push(None);
                next += 1;
            }
        }
        all
    }

    /// The piece and the instructions of a run of steps.
    pub(super) fn range(&self, first: usize, count: usize) -> Option<(usize, Range<usize>)> {
        let (piece, begin) = self.places[first].clone()?;
        let (_, end) = self.places[first + count - 1].clone()?;
        Some((piece, begin.start..end.end))
    }
}

/// Numbers for locals, as they come.
#[derive(Default)]
pub(super) struct Numbers {
    /// Per local, its number, and since when it has it.
    of: Vec<(u32, u32)>,
    /// How often they have been given anew.
    turn: u32,
    given: u32,
}

impl Numbers {
    fn begin(&mut self) {
        (self.turn, self.given) = (self.turn + 1, 0);
    }

    fn number(&mut self, local: Local) -> u64 {
        let at = local as usize;
        if at >= self.of.len() {
            self.of.resize(at + 1, (0, 0));
        }
        let (number, turn) = &mut self.of[at];
        if *turn != self.turn {
            (*number, *turn) = (self.given, self.turn);
            self.given += 1;
        }
        (*number).into()
    }

    /// A hash of what steps are but for their locals, which are numbered as they come, and their constants; nothing if they lead out of
    /// themselves. Whether steps with the same one are the same is seen later.
    pub(super) fn shape(&mut self, names: &[Name]) -> Option<u64> {
        self.begin();
        let mut depth = 0u32;
        let mut hash = 0u64;
        for &name in names {
            let (kind, what) = match name {
                Name::Get(local) => (0, self.number(local)),
                Name::Set(local) => (1, self.number(local)),
                Name::Tee(local) => (2, self.number(local)),
                Name::Constant(ty, _) => (3, u64::from(ty == ValType::V128) << 1 | u64::from(ty == ValType::F32)),
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
}

/// Runs of steps that are equal: their first steps and how many they are.
#[derive(Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) firsts: Vec<usize>,
    pub(super) count: usize,
    /// Instructions that it may save.
    pub(super) saved: usize,
}

impl Candidate {
    /// Its runs, by what they are as a whole.
    pub(super) fn alike(&self, pieces: &[Named], steps: &Steps, numbers: &mut Numbers) -> impl Iterator<Item = Vec<usize>> {
        let mut groups: BTreeMap<Option<u64>, Vec<usize>> = BTreeMap::new();
        for &first in &self.firsts {
            let hash = steps.range(first, self.count).and_then(|(piece, range)| numbers.shape(&pieces[piece].names[range]));
            groups.entry(hash).or_default().push(first);
        }
        groups.into_values().filter(|firsts| firsts.len() > 1)
    }
}

/// Equal runs of 1, 2, 4, … steps, made as long as they go.
pub(super) fn candidates(steps: &Steps) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    // What the steps from here on are, `width` of them.
    let mut kinds = steps.kinds.clone();
    let mut width = 1;
    loop {
        let mut groups: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
        for (at, &kind) in kinds.iter().enumerate() {
            groups.entry(kind).or_default().push(at);
        }
        groups.retain(|_, firsts| firsts.len() > 1);
        if groups.is_empty() {
            return candidates;
        }
        candidates.extend(groups.into_values().filter_map(|firsts| steps.extended(firsts, width)));
        let mut pairs = FxHashMap::default();
        let doubled = kinds.iter().zip(kinds.iter().skip(width)).map(|pair| {
            let next = pairs.len() as u32;
            *pairs.entry(pair).or_insert(next)
        });
        kinds = doubled.collect();
        width *= 2;
    }
}

impl Steps {
    /// Equal runs that do not overlap, longer at both ends while they stay equal.
    fn extended(&self, firsts: Vec<usize>, width: usize) -> Option<Candidate> {
        let mut apart: Vec<usize> = Vec::with_capacity(firsts.len());
        for first in firsts {
            if apart.last().is_none_or(|&before| first >= before + width) {
                apart.push(first);
            }
        }
        let nearest = apart.windows(2).map(|pair| pair[1] - pair[0]).min()?;
        let are_equal = |of: &dyn Fn(usize) -> Option<usize>| {
            let kind = |first: usize| of(first).and_then(|at| self.kinds.get(at));
            let wanted = kind(apart[0]);
            wanted.is_some() && apart[1..].iter().all(|&first| kind(first) == wanted)
        };
        let (mut before, mut count) = (0, width);
        while count < nearest && are_equal(&|first| Some(first + count)) {
            count += 1;
        }
        while count < nearest && are_equal(&|first: usize| first.checked_sub(before + 1)) {
            (before, count) = (before + 1, count + 1);
        }
        apart.iter_mut().for_each(|first| *first -= before);
        let (_, range) = self.range(apart[0], count)?;
        let saved = (apart.len() - 1) * range.len();
        (range.len() >= WORTH.steps && saved >= WORTH.saved).then_some(Candidate { firsts: apart, count, saved })
    }
}
