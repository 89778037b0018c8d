//! The bits of integers.
//!
//! Invariants: total; i32 and u32 differ only where WGSL says so (`extractBits` and `firstLeadingBit` look at the
//! sign). Offsets and counts beyond the 32 bits are cut to them.
//!
//! **Source**: WGSL, "Numeric Built-in Functions"; reversal after Warren, *Hacker's Delight*, 7-1.

use super::super::ir::{Scalar, Unary};
use super::term::Term;

/// The lowest bit becomes the highest.
pub(super) fn reverse_bits(x: Term<'_>) -> Term<'_> {
    let swaps = [(1_u32, 0x5555_5555_u32), (2, 0x3333_3333), (4, 0x0f0f_0f0f), (8, 0x00ff_00ff)];
    let bits = x.bits(Scalar::U32);
    let swapped = swaps.iter().fold(bits, |bits, &(distance, mask)| ((bits >> distance) & mask) | ((bits & mask) << distance));
    ((swapped >> 16_u32) | (swapped << 16_u32)).bits(x.scalar())
}

/// `count` bits from `offset` up, with the sign of the highest of them for an i32.
pub(super) fn extract_bits<'d>(x: Term<'d>, offset: Term<'d>, count: Term<'d>) -> Term<'d> {
    let count = count.min(32_u32 - offset.min(32_u32));
    // The bits go to the top and come down again, which brings the sign.
    let raised = x << (32_u32 - count - offset).bits(x.scalar());
    let lowered = raised >> (32_u32 - count).bits(x.scalar());
    count.is(0_u32).select(count.bits(x.scalar()), lowered)
}

/// `x` with its `count` bits from `offset` up replaced by the lowest of `inserted`.
pub(super) fn insert_bits<'d>(x: Term<'d>, inserted: Term<'d>, offset: Term<'d>, count: Term<'d>) -> Term<'d> {
    let count = count.min(32_u32 - offset.min(32_u32));
    let ones = count.constant(Scalar::U32, u32::MAX) >> (32_u32 - count);
    let mask = count.is(0_u32).select(count, ones << offset).bits(x.scalar());
    let raised = inserted << offset.bits(x.scalar());
    (raised & mask) | (x & !mask)
}

/// The place of the lowest set bit, -1 for 0.
pub(super) fn first_trailing_bit(x: Term<'_>) -> Term<'_> {
    x.is(0_u32).select(x.constant(x.scalar(), u32::MAX), x.unary(Unary::TrailingZeros))
}

/// The place of the highest bit that is set, or for an i32 that is not the sign; -1 where there is none.
pub(super) fn first_leading_bit(x: Term<'_>) -> Term<'_> {
    let bits = if x.scalar() == Scalar::I32 { x ^ (x >> 31_u32) } else { x };
    31_u32 - bits.unary(Unary::LeadingZeros)
}

#[cfg(test)]
mod tests {
    use super::super::measure::Formula;
    use super::*;
    use naga::MathFunction as F;
    use proptest::prelude::*;

    fn formula(function: F, scalar: Scalar, others: &[Scalar]) -> Formula {
        Formula::component(function, &[&[scalar], others].concat())
    }

    /// Any integer, and often one at an edge.
    fn bits() -> impl Strategy<Value = u32> {
        prop_oneof![
            any::<u32>(),
            (0..33_u32).prop_map(|place| 1_u32.checked_shl(place).unwrap_or(0)),
            0..3_u32,
            Just(u32::MAX),
            Just(i32::MAX as u32)
        ]
    }

    /// Offsets and counts, within the 32 bits and beyond.
    fn place() -> impl Strategy<Value = u32> {
        prop_oneof![0..40_u32, any::<u32>()]
    }

    fn extracted(x: u32, offset: u32, count: u32) -> u32 {
        let offset = offset.min(32);
        let count = count.min(32 - offset);
        ((u64::from(x) >> offset) & ((1 << count) - 1)) as u32
    }

    proptest! {
        #[test]
        fn bits_are_counted_and_turned(x in bits()) {
            for scalar in [Scalar::U32, Scalar::I32] {
                let run = |function| formula(function, scalar, &[]).run(&[x]);
                prop_assert_eq!(run(F::ReverseBits), x.reverse_bits());
                prop_assert_eq!(run(F::CountOneBits), x.count_ones());
                prop_assert_eq!(run(F::CountLeadingZeros), x.leading_zeros());
                prop_assert_eq!(run(F::CountTrailingZeros), x.trailing_zeros());
                prop_assert_eq!(run(F::FirstTrailingBit), if x == 0 { u32::MAX } else { x.trailing_zeros() });
                let searched = if scalar == Scalar::I32 && (x as i32) < 0 { !x } else { x };
                prop_assert_eq!(run(F::FirstLeadingBit), if searched == 0 { u32::MAX } else { searched.ilog2() });
            }
        }

        #[test]
        fn bits_are_extracted(x in bits(), offset in place(), count in place()) {
            let places = [Scalar::U32; 2];
            let expected = extracted(x, offset, count);
            prop_assert_eq!(formula(F::ExtractBits, Scalar::U32, &places).run(&[x, offset, count]), expected);
            let width = count.min(32 - offset.min(32));
            let is_negative = width > 0 && width < 32 && expected >> (width - 1) == 1;
            let expected = if is_negative { expected | (u32::MAX << width) } else { expected };
            prop_assert_eq!(formula(F::ExtractBits, Scalar::I32, &places).run(&[x, offset, count]), expected);
        }

        #[test]
        fn bits_are_inserted(x in bits(), inserted in bits(), offset in place(), count in place()) {
            let width = count.min(32 - offset.min(32));
            let mut expected = x;
            for bit in 0..width {
                let place = 1 << (offset + bit);
                expected = if inserted >> bit & 1 == 1 { expected | place } else { expected & !place };
            }
            for scalar in [Scalar::U32, Scalar::I32] {
                let formula = formula(F::InsertBits, scalar, &[scalar, Scalar::U32, Scalar::U32]);
                prop_assert_eq!(formula.run(&[x, inserted, offset, count]), expected);
            }
        }
    }
}
