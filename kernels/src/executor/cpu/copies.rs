//! The packing and unpacking of an exchange: boxes of elements between an arena and a mailbox.
//!
//! Native code, not `shaders/framework/copy.wgsl`: what lies in one run on both sides is one copy of
//! memory. Invariant: the same words move as [`CopySet::run`] moves.

use peercompute_buffers::exchange::{Copy, CopySet};

use super::words::{Span, Words};

/// Longer runs are one copy of memory, shorter ones word by word.
const RUN_WORDS_MIN: u32 = 8;

/// Runs the copies of a set from one span to another that does not overlap it.
pub(crate) fn run(words: &Words, set: &CopySet, from: Span, to: Span) {
    for copy in &set.copies {
        debug_assert!(is_within(copy.extent, copy.from, from) && is_within(copy.extent, copy.to, to), "{copy:?} from {from:?} to {to:?}");
        run_one(words, copy, from, to);
    }
}

fn run_one(words: &Words, copy: &Copy, from_span: Span, to_span: Span) {
    let Copy { extent: [ex, ey, ez, element], from, to } = *copy;
    // Axes along which both sides go on where the last element ended are one run.
    let (mut run, mut left) = (element, [ex, ey, ez]);
    for axis in 0..3 {
        if left[axis] > 1 && (from[axis + 1] != run || to[axis + 1] != run) {
            break;
        }
        run *= std::mem::replace(&mut left[axis], 1);
    }
    // Where words lie apart, every row is copied by the memory itself.
    let regions = words.is_addressed().then(|| (words.region(from_span), words.region(to_span)));
    for z in 0..left[2] {
        for y in 0..left[1] {
            for x in 0..left[0] {
                let at = |side: [u32; 4]| side[0] + x * side[1] + y * side[2] + z * side[3];
                let (from, to) = (at(from), at(to));
                match &regions {
                    Some((source, target)) if run < RUN_WORDS_MIN => (0..run).for_each(|word| target.store(to + word, source.load(from + word))),
                    _ => words.copy_within((from_span.first + from) as usize, (to_span.first + to) as usize, run as usize),
                }
            }
        }
    }
}

/// Whether a side of a copy stays in its span.
fn is_within(extent: [u32; 4], side: [u32; 4], span: Span) -> bool {
    let last: u64 = (0..3).map(|axis| u64::from(extent[axis].saturating_sub(1)) * u64::from(side[axis + 1])).sum();
    extent.contains(&0) || u64::from(side[0]) + last + u64::from(extent[3]) <= u64::from(span.words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn copies_move_what_the_reference_moves(
            extent in proptest::array::uniform3(1u32..5),
            element in 1u32..7,
            gaps in proptest::array::uniform4(0u32..3),
            repeats in proptest::array::uniform3(any::<bool>()),
            firsts in proptest::array::uniform2(0u32..9),
        ) {
            let pitch = [extent[0] + gaps[0], extent[1] + gaps[1]];
            let far = [extent[0] + gaps[2], extent[1] + gaps[3]];
            let steps = |pitch: [u32; 2]| [element, pitch[0] * element, pitch[0] * pitch[1] * element];
            let mut from = steps(pitch);
            (0..3).filter(|&axis| repeats[axis]).for_each(|axis| from[axis] = 0);
            let to = steps(far);
            let copy = Copy {
                extent: [extent[0], extent[1], extent[2], element],
                from: [firsts[0], from[0], from[1], from[2]],
                to: [firsts[1], to[0], to[1], to[2]],
            };
            let set = CopySet { buffer: 0, page: 0, copies: vec![copy] };
            let source: Vec<u32> = (0..2000).map(|word| word * 7 + 1).collect();
            let mut want = vec![0; 2000];
            set.run(&source, &mut want);
            let words = Words::new(4000).unwrap();
            words.write(0, bytemuck::cast_slice(&source));
            run(&words, &set, Span { first: 0, words: 2000 }, Span { first: 2000, words: 2000 });
            let mut got = vec![0u32; 2000];
            words.read(2000, bytemuck::cast_slice_mut(&mut got));
            prop_assert_eq!(got, want);
        }
    }
}
