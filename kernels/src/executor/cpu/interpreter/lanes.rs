//! The operators over slices of lanes: what they mean is `ops.rs`'s to say, here it is said so that it vectorises.
//!
//! Bool is 0 or all ones. Every loop is inlined into what instantiates it (`machine.rs`), so that it is compiled
//! once for each level of vectors. Invariant: lane by lane the bits are those of `ops.rs`, but for NaNs.

use super::super::ir::{Binary, SUBGROUP, Unary};
use super::super::ops;

/// An operand.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    One(u32),
    Wide(&'a [u32]),
}

impl Source<'_> {
    #[inline(always)]
    pub(super) fn at(&self, lane: usize) -> u32 {
        match self {
            Source::One(word) => *word,
            Source::Wide(words) => words[lane],
        }
    }
}

/// All ones where it holds.
#[inline(always)]
fn mask(holds: bool) -> u32 {
    u32::from(holds).wrapping_neg()
}

#[inline(always)]
fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

#[inline(always)]
fn map(to: &mut [u32], a: &[u32], of: impl Fn(u32) -> u32) {
    for (to, &a) in to.iter_mut().zip(a) {
        *to = of(a);
    }
}

#[inline(always)]
fn zip(to: &mut [u32], a: Source<'_>, b: Source<'_>, of: impl Fn(u32, u32) -> u32) {
    match (a, b) {
        (Source::Wide(a), Source::Wide(b)) => {
            for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
                *to = of(a, b);
            }
        }
        (Source::Wide(a), Source::One(b)) => map(to, a, |a| of(a, b)),
        (Source::One(a), Source::Wide(b)) => map(to, b, |b| of(a, b)),
        (Source::One(a), Source::One(b)) => to.fill(of(a, b)),
    }
}

#[inline(always)]
fn zip_three(to: &mut [u32], a: Source<'_>, b: Source<'_>, c: Source<'_>, of: impl Fn(u32, u32, u32) -> u32) {
    match (a, b, c) {
        (Source::Wide(a), Source::Wide(b), Source::Wide(c)) => {
            for (((to, &a), &b), &c) in to.iter_mut().zip(a).zip(b).zip(c) {
                *to = of(a, b, c);
            }
        }
        (a, b, Source::One(c)) => zip(to, a, b, |a, b| of(a, b, c)),
        (a, Source::One(b), c) => zip(to, a, c, |a, c| of(a, b, c)),
        (Source::One(a), b, c) => zip(to, b, c, |b, c| of(a, b, c)),
    }
}

/// One operand, one word.
#[inline(always)]
pub(super) fn unary_one(op: Unary, a: u32) -> u32 {
    if op == Unary::NotB { !a } else { ops::unary(op, a) }
}

/// Two operands, one word.
#[inline(always)]
pub(super) fn binary_one(op: Binary, a: u32, b: u32) -> u32 {
    use Binary::*;
    let word = ops::binary(op, a, b);
    match op {
        EqF | NeF | LtF | LeF | Eq | Ne | LtI | LeI | LtU | LeU => word.wrapping_neg(),
        _ => word,
    }
}

/// One operand.
#[inline(always)]
pub(super) fn unary(op: Unary, to: &mut [u32], a: &[u32]) {
    match op {
        Unary::NegF => map(to, a, |a| a ^ 0x8000_0000),
        Unary::AbsF => map(to, a, |a| a & 0x7fff_ffff),
        Unary::SqrtF => map(to, a, |a| f(a).sqrt().to_bits()),
        Unary::FloorF => map(to, a, |a| f(a).floor().to_bits()),
        Unary::CeilF => map(to, a, |a| f(a).ceil().to_bits()),
        Unary::TruncF => map(to, a, |a| f(a).trunc().to_bits()),
        Unary::RoundF => map(to, a, |a| f(a).round_ties_even().to_bits()),
        Unary::Not | Unary::NotB => map(to, a, |a| !a),
        Unary::CountOnes => map(to, a, u32::count_ones),
        Unary::LeadingZeros => map(to, a, u32::leading_zeros),
        Unary::TrailingZeros => map(to, a, u32::trailing_zeros),
        Unary::FloatOfI => map(to, a, |a| (a as i32 as f32).to_bits()),
        Unary::FloatOfU => map(to, a, |a| (a as f32).to_bits()),
        Unary::IntOfF => map(to, a, int_of_f),
        Unary::UintOfF => map(to, a, uint_of_f),
        Unary::Bits | Unary::Uniform => to.copy_from_slice(a),
    }
}

/// The whole part of a number without its sign: all ones where it is too large, 0 for what is not a number.
///
/// Conversions that saturate are done one by one by compilers; shifts are not.
#[inline(always)]
fn magnitude(bits: u32) -> u32 {
    let exponent = (bits >> 23) & 0xff;
    let digits = bits & 0x007f_ffff | 0x0080_0000;
    let small = digits >> 150u32.wrapping_sub(exponent).min(31);
    let large = if exponent < 159 { digits << (exponent.wrapping_sub(150) & 31) } else { u32::MAX };
    let whole = if exponent < 150 { small } else { large };
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0 } else { whole }
}

#[inline(always)]
fn int_of_f(bits: u32) -> u32 {
    let whole = magnitude(bits);
    if bits >> 31 == 0 { whole.min(0x7fff_ffff) } else { whole.min(0x8000_0000).wrapping_neg() }
}

#[inline(always)]
fn uint_of_f(bits: u32) -> u32 {
    if bits >> 31 == 0 { magnitude(bits) } else { 0 }
}

/// Two operands.
#[inline(always)]
pub(super) fn binary(op: Binary, to: &mut [u32], a: Source<'_>, b: Source<'_>) {
    match op {
        Binary::AddF => zip(to, a, b, |a, b| (f(a) + f(b)).to_bits()),
        Binary::SubF => zip(to, a, b, |a, b| (f(a) - f(b)).to_bits()),
        Binary::MulF => zip(to, a, b, |a, b| (f(a) * f(b)).to_bits()),
        Binary::DivF => zip(to, a, b, |a, b| (f(a) / f(b)).to_bits()),
        Binary::MinF => zip(to, a, b, |a, b| if f(b) < f(a) { b } else { a }),
        Binary::MaxF => zip(to, a, b, |a, b| if f(a) < f(b) { b } else { a }),
        Binary::EqF => zip(to, a, b, |a, b| mask(f(a) == f(b))),
        Binary::NeF => zip(to, a, b, |a, b| mask(f(a) != f(b))),
        Binary::LtF => zip(to, a, b, |a, b| mask(f(a) < f(b))),
        Binary::LeF => zip(to, a, b, |a, b| mask(f(a) <= f(b))),
        Binary::Add => zip(to, a, b, u32::wrapping_add),
        Binary::Sub => zip(to, a, b, u32::wrapping_sub),
        Binary::Mul => zip(to, a, b, u32::wrapping_mul),
        Binary::And => zip(to, a, b, |a, b| a & b),
        Binary::Or => zip(to, a, b, |a, b| a | b),
        Binary::Xor => zip(to, a, b, |a, b| a ^ b),
        Binary::Shl => zip(to, a, b, |a, b| a << (b & 31)),
        Binary::ShrI => zip(to, a, b, |a, b| ((a as i32) >> (b & 31)) as u32),
        Binary::ShrU => zip(to, a, b, |a, b| a >> (b & 31)),
        Binary::MinI => zip(to, a, b, |a, b| (a as i32).min(b as i32) as u32),
        Binary::MinU => zip(to, a, b, u32::min),
        Binary::MaxI => zip(to, a, b, |a, b| (a as i32).max(b as i32) as u32),
        Binary::MaxU => zip(to, a, b, u32::max),
        Binary::Eq => zip(to, a, b, |a, b| mask(a == b)),
        Binary::Ne => zip(to, a, b, |a, b| mask(a != b)),
        Binary::LtI => zip(to, a, b, |a, b| mask((a as i32) < b as i32)),
        Binary::LeI => zip(to, a, b, |a, b| mask(a as i32 <= b as i32)),
        Binary::LtU => zip(to, a, b, |a, b| mask(a < b)),
        Binary::LeU => zip(to, a, b, |a, b| mask(a <= b)),
        Binary::DivI | Binary::DivU | Binary::RemI | Binary::RemU => divide(op, to, a, b),
    }
}

/// Two operands, the first of which is where the outcome goes.
#[inline(always)]
pub(super) fn update(op: Binary, to: &mut [u32], b: &[u32]) {
    match op {
        Binary::AddF => change(to, b, |a, b| (f(a) + f(b)).to_bits()),
        Binary::SubF => change(to, b, |a, b| (f(a) - f(b)).to_bits()),
        Binary::MulF => change(to, b, |a, b| (f(a) * f(b)).to_bits()),
        Binary::MinF => change(to, b, |a, b| if f(b) < f(a) { b } else { a }),
        Binary::MaxF => change(to, b, |a, b| if f(a) < f(b) { b } else { a }),
        Binary::Add => change(to, b, u32::wrapping_add),
        Binary::And => change(to, b, |a, b| a & b),
        Binary::Or => change(to, b, |a, b| a | b),
        Binary::Xor => change(to, b, |a, b| a ^ b),
        Binary::MinI => change(to, b, |a, b| (a as i32).min(b as i32) as u32),
        Binary::MinU => change(to, b, u32::min),
        Binary::MaxI => change(to, b, |a, b| (a as i32).max(b as i32) as u32),
        Binary::MaxU => change(to, b, u32::max),
        _ => change(to, b, |a, b| binary_one(op, a, b)),
    }
}

#[inline(always)]
fn change(to: &mut [u32], b: &[u32], of: impl Fn(u32, u32) -> u32) {
    for (to, &b) in to.iter_mut().zip(b) {
        *to = of(*to, b);
    }
}

/// Two operators of f32 in a row: `(a first b) second c`, or `c second (a first b)`.
#[inline(always)]
pub(super) fn pair(first: Binary, second: (Binary, bool), to: &mut [u32], a: Source<'_>, b: Source<'_>, c: Source<'_>) {
    match first {
        Binary::AddF => pair_of(second, to, a, b, c, |a, b| a + b),
        Binary::SubF => pair_of(second, to, a, b, c, |a, b| a - b),
        _ => pair_of(second, to, a, b, c, |a, b| a * b),
    }
}

#[inline(always)]
fn pair_of(second: (Binary, bool), to: &mut [u32], a: Source<'_>, b: Source<'_>, c: Source<'_>, first: impl Fn(f32, f32) -> f32) {
    match second {
        (Binary::AddF, _) => zip_three(to, a, b, c, |a, b, c| (first(f(a), f(b)) + f(c)).to_bits()),
        (Binary::SubF, false) => zip_three(to, a, b, c, |a, b, c| (first(f(a), f(b)) - f(c)).to_bits()),
        (Binary::SubF, true) => zip_three(to, a, b, c, |a, b, c| (f(c) - first(f(a), f(b))).to_bits()),
        _ => zip_three(to, a, b, c, |a, b, c| (first(f(a), f(b)) * f(c)).to_bits()),
    }
}

#[inline(always)]
fn divide(op: Binary, to: &mut [u32], a: Source<'_>, b: Source<'_>) {
    match (a, b) {
        (Source::Wide(a), Source::One(b)) if b != 0 => {
            let divisor = Divisor::new(if matches!(op, Binary::DivU | Binary::RemU) { b } else { (b as i32).unsigned_abs() });
            match op {
                Binary::DivU => map(to, a, |a| divisor.quotient(a)),
                Binary::RemU => map(to, a, |a| a.wrapping_sub(divisor.quotient(a).wrapping_mul(b))),
                Binary::DivI => map(to, a, |a| divisor.signed_quotient(a, b)),
                _ => map(to, a, |a| a.wrapping_sub(divisor.signed_quotient(a, b).wrapping_mul(b))),
            }
        }
        _ => zip(to, a, b, |a, b| ops::binary(op, a, b)),
    }
}

/// A number to divide by many times, with multiplications alone.
///
/// **Source:** Granlund and Montgomery, "Division by Invariant Integers using Multiplication", PLDI 1994, figure 4.1.
struct Divisor {
    multiplier: u32,
    first_shift: u32,
    second_shift: u32,
}

impl Divisor {
    /// Of a number that is not 0.
    #[inline(always)]
    fn new(divisor: u32) -> Divisor {
        let bits = 32 - (divisor - 1).leading_zeros();
        let excess = (1u64 << bits) - u64::from(divisor);
        let multiplier = ((excess << 32) / u64::from(divisor) + 1) as u32;
        Divisor { multiplier, first_shift: bits.min(1), second_shift: bits.saturating_sub(1) }
    }

    #[inline(always)]
    fn quotient(&self, a: u32) -> u32 {
        let high = ((u64::from(self.multiplier) * u64::from(a)) >> 32) as u32;
        // The sum is below 2^32, and so are the shifts below 32; the compiler cannot know.
        high.wrapping_add(a.wrapping_sub(high) >> (self.first_shift & 31)) >> (self.second_shift & 31)
    }

    /// `a / b`, where this is the divisor of b's magnitude.
    #[inline(always)]
    fn signed_quotient(&self, a: u32, b: u32) -> u32 {
        let quotient = self.quotient((a as i32).unsigned_abs());
        let sign = ((a ^ b) as i32 >> 31) as u32;
        (quotient ^ sign).wrapping_sub(sign)
    }
}

/// One of two values.
#[inline(always)]
pub(super) fn select(to: &mut [u32], condition: Source<'_>, accept: Source<'_>, reject: Source<'_>) {
    let condition = match condition {
        Source::One(condition) => {
            return match if condition != 0 { accept } else { reject } {
                Source::One(word) => to.fill(word),
                Source::Wide(words) => to.copy_from_slice(words),
            };
        }
        Source::Wide(condition) => condition,
    };
    let of = |condition: u32, accept: u32, reject: u32| (condition & accept) | (!condition & reject);
    match (accept, reject) {
        (Source::Wide(accept), Source::Wide(reject)) => {
            for (((to, &condition), &accept), &reject) in to.iter_mut().zip(condition).zip(accept).zip(reject) {
                *to = of(condition, accept, reject);
            }
        }
        (Source::Wide(accept), Source::One(reject)) => zip(to, Source::Wide(condition), Source::Wide(accept), |c, a| of(c, a, reject)),
        (Source::One(accept), Source::Wide(reject)) => zip(to, Source::Wide(condition), Source::Wide(reject), |c, r| of(c, accept, r)),
        (Source::One(accept), Source::One(reject)) => map(to, condition, |c| of(c, accept, reject)),
    }
}

/// An index, held back.
#[inline(always)]
pub(super) fn index(to: &mut [u32], index: &[u32], last: u32) {
    map(to, index, |index| index.min(last));
}

/// Who of each subgroup is there, of the lanes from `first` on; nobody is outside of these.
#[inline(always)]
pub(super) fn here(to: &mut [u32], first: usize, mask: Option<&[u32]>) {
    let (size, end) = (SUBGROUP as usize, first + to.len());
    let is_here = |lane: usize| (first..end).contains(&lane) && mask.is_none_or(|mask| mask[lane - first] != 0);
    let mut lane = first;
    while lane < end {
        let start = lane / size * size;
        let bits = (0..size).fold(0, |bits, place| bits | u32::from(is_here(start + place)) << place);
        let until = (start + size).min(end);
        to[lane - first..until - first].fill(bits);
        lane = until;
    }
}

/// The word at a place of each subgroup, for the lanes from `first` on; `words` are those of all lanes.
#[inline(always)]
pub(super) fn across(to: &mut [u32], first: usize, words: &[u32], place: usize) {
    let size = SUBGROUP as usize;
    for (at, to) in to.iter_mut().enumerate() {
        // The last subgroup may have no such place.
        *to = words.get((first + at) / size * size + place).copied().unwrap_or(0);
    }
}

/// Writes where the mask is.
#[inline(always)]
pub(super) fn set(to: &mut [u32], from: Source<'_>, mask: Option<&[u32]>) {
    match (from, mask) {
        (Source::One(word), None) => to.fill(word),
        (Source::Wide(words), None) => to.copy_from_slice(words),
        (Source::One(word), Some(mask)) => {
            for (to, &mask) in to.iter_mut().zip(mask) {
                *to = (mask & word) | (!mask & *to);
            }
        }
        (Source::Wide(words), Some(mask)) => {
            for ((to, &word), &mask) in to.iter_mut().zip(words).zip(mask) {
                *to = (mask & word) | (!mask & *to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [u32; 26] = [
        0,
        1,
        2,
        3,
        7,
        10,
        31,
        33,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        u32::MAX,
        u32::MAX - 1,
        0x3f80_0000,
        0xbf80_0000,
        0x3fc0_0000,
        0xc020_0000,
        0x4b00_0001,
        0x4f00_0000,
        0xcf00_0000,
        0x4f80_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0000_0001 << 20,
        0x4eff_ffff,
    ];

    fn is_comparison(op: Binary) -> bool {
        use Binary::*;
        matches!(op, EqF | NeF | LtF | LeF | Eq | Ne | LtI | LeI | LtU | LeU)
    }

    fn same(made: u32, expected: u32) -> bool {
        made == expected || f(made).is_nan() && f(expected).is_nan()
    }

    #[test]
    fn lanes_mean_what_the_operators_say() {
        use Binary::*;
        let all = [
            AddF, SubF, MulF, DivF, MinF, MaxF, EqF, NeF, LtF, LeF, Add, Sub, Mul, DivI, DivU, RemI, RemU, And, Or, Xor, Shl, ShrI, ShrU, MinI, MinU,
            MaxI, MaxU, Eq, Ne, LtI, LeI, LtU, LeU,
        ];
        for op in all {
            for b in WORDS {
                let others: Vec<u32> = WORDS.iter().map(|&a| a ^ b).collect();
                let expect = |a: u32, b: u32| if is_comparison(op) { ops::binary(op, a, b).wrapping_neg() } else { ops::binary(op, a, b) };
                let check = |made: &[u32], of: &dyn Fn(usize) -> (u32, u32)| {
                    for (lane, &made) in made.iter().enumerate() {
                        let (a, b) = of(lane);
                        assert!(same(made, expect(a, b)), "{op:?} {a:#x} {b:#x} is {made:#x}");
                        assert!(same(binary_one(op, a, b), made), "{op:?} {a:#x} {b:#x} alone");
                    }
                };
                let mut to = [0; WORDS.len()];
                binary(op, &mut to, Source::Wide(&WORDS), Source::One(b));
                check(&to, &|lane| (WORDS[lane], b));
                binary(op, &mut to, Source::One(b), Source::Wide(&WORDS));
                check(&to, &|lane| (b, WORDS[lane]));
                binary(op, &mut to, Source::Wide(&WORDS), Source::Wide(&others));
                check(&to, &|lane| (WORDS[lane], others[lane]));
                binary(op, &mut to, Source::One(b), Source::One(3));
                check(&to, &|_| (b, 3));
                to = WORDS;
                update(op, &mut to, &others);
                check(&to, &|lane| (WORDS[lane], others[lane]));
            }
        }
    }

    #[test]
    fn numbers_lose_their_fraction_as_the_operators_say() {
        // Every exponent, with digits that round, and both signs.
        for top in 0..1u32 << 12 {
            for digits in [0, 1, 0x7f_ffff, 0x40_0000, 0x2a_aaaa] {
                let bits = top << 20 | digits & 0xf_ffff | (digits >> 3);
                assert_eq!(int_of_f(bits), ops::unary(Unary::IntOfF, bits), "{bits:#x}");
                assert_eq!(uint_of_f(bits), ops::unary(Unary::UintOfF, bits), "{bits:#x}");
            }
        }
    }

    #[test]
    fn pairs_round_twice() {
        use Binary::{AddF, MulF, SubF};
        let others: Vec<u32> = WORDS.iter().rev().copied().collect();
        let third: Vec<u32> = WORDS.iter().map(|&word| word.rotate_left(7)).collect();
        // As one operation, this would not be 0.
        let (a, b) = (1.0f32 + f32::EPSILON, 1.0f32 - f32::EPSILON);
        let mut to = [9];
        pair(MulF, (SubF, false), &mut to, Source::One(a.to_bits()), Source::Wide(&[b.to_bits()]), Source::One((a * b).to_bits()));
        assert_eq!(to, [0]);
        for first in [AddF, SubF, MulF] {
            for second in [(AddF, false), (SubF, false), (SubF, true), (MulF, false)] {
                for which in 0..8 {
                    let of = |bit: u32, one: u32, wide| if which >> bit & 1 == 1 { Source::One(one) } else { Source::Wide(wide) };
                    let (a, b, c) = (of(0, 0x3fc0_0000, &WORDS[..]), of(1, 0xc020_0000, &others[..]), of(2, 0x3f80_0000, &third[..]));
                    let mut to = [0; WORDS.len()];
                    pair(first, second, &mut to, a, b, c);
                    for (lane, made) in to.into_iter().enumerate() {
                        let inner = ops::binary(first, a.at(lane), b.at(lane));
                        let (left, right) = if second.1 { (c.at(lane), inner) } else { (inner, c.at(lane)) };
                        assert!(same(made, ops::binary(second.0, left, right)), "{first:?} {second:?} {which} {lane}");
                    }
                }
            }
        }
    }

    #[test]
    fn single_operands_mean_what_the_operators_say() {
        use Unary::*;
        let all = [
            NegF,
            AbsF,
            SqrtF,
            FloorF,
            CeilF,
            TruncF,
            RoundF,
            Not,
            CountOnes,
            LeadingZeros,
            TrailingZeros,
            FloatOfI,
            FloatOfU,
            IntOfF,
            UintOfF,
            Bits,
        ];
        for op in all {
            let mut to = [0; WORDS.len()];
            unary(op, &mut to, &WORDS);
            for (made, a) in to.into_iter().zip(WORDS) {
                assert!(same(made, ops::unary(op, a)) && same(unary_one(op, a), made), "{op:?} {a:#x} is {made:#x}");
            }
        }
        let mut to = [0; 2];
        unary(NotB, &mut to, &[0, u32::MAX]);
        assert_eq!((to, unary_one(NotB, 0)), ([u32::MAX, 0], u32::MAX));
    }

    #[test]
    fn selections_take_what_is_selected() {
        let condition = [0, u32::MAX, 0, u32::MAX];
        let (accept, reject) = ([1, 2, 3, 4], [5, 6, 7, 8]);
        let check = |condition: Source<'_>, accept: Source<'_>, reject: Source<'_>| {
            let mut to = [0; 4];
            select(&mut to, condition, accept, reject);
            let expected = [0, 1, 2, 3].map(|lane| if condition.at(lane) != 0 { accept.at(lane) } else { reject.at(lane) });
            assert_eq!(to, expected);
        };
        for accept in [Source::One(9), Source::Wide(&accept)] {
            for reject in [Source::One(10), Source::Wide(&reject)] {
                for condition in [Source::One(0), Source::One(u32::MAX), Source::Wide(&condition)] {
                    check(condition, accept, reject);
                }
            }
        }
        for (from, expected) in [(Source::One(9), [1, 9, 3, 9]), (Source::Wide(&reject), [1, 6, 3, 8])] {
            let mut to = accept;
            set(&mut to, from, Some(&condition));
            assert_eq!(to, expected);
        }
    }
}
