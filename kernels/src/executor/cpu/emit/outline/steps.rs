//! Which runs of steps are alike.
//!
//! Steps are numbered by what they are; what `2n` of them are is what the first `n` and the next `n` are. So equal runs of 1, 2, 4, … steps are
//! found without comparing each with each, and made longer one step at a time.

use std::collections::BTreeMap;
use std::ops::Range;

use rustc_hash::FxHashMap;

use super::WORTH;
use super::names::Named;
use super::shape::Numbers;

/// Every step of every list, one after the other, by what it is but for its locals and constants; numbers that are nobody else's
/// between lists, and for steps that cannot be in a function.
pub(super) struct Steps {
    kinds: Vec<u32>,
    /// Piece and range of each, or nothing between lists.
    places: Vec<Option<(usize, Range<usize>)>>,
}

impl Steps {
    pub(super) fn new(pieces: &[Named]) -> Steps {
        let mut known: FxHashMap<u64, u32> = FxHashMap::default();
        let mut next = 0;
        let mut all = Steps { kinds: Vec::new(), places: Vec::new() };
        for (number, named) in pieces.iter().enumerate() {
            for (list, shapes) in named.piece.lists.iter().zip(&named.shapes) {
                for (ends, &shape) in list.windows(2).zip(shapes) {
                    let range = ends[0]..ends[1];
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
