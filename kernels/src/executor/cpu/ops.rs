//! What every operator means, to the bit: the one definition that constant folding uses and both back halves
//! are held against.
//!
//! Scalars travel as their 32 bits; Bool is 0 or 1. Invariants: total (no operand traps or panics), and the same
//! on every machine, but for the payload and sign of a NaN that an f32 operator makes.

use super::ir::{AtomicOp, Binary, Unary};

fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// One operand.
pub fn unary(op: Unary, a: u32) -> u32 {
    match op {
        Unary::NegF => a ^ 0x8000_0000,
        Unary::AbsF => a & 0x7fff_ffff,
        Unary::SqrtF => f(a).sqrt().to_bits(),
        Unary::FloorF => f(a).floor().to_bits(),
        Unary::CeilF => f(a).ceil().to_bits(),
        Unary::TruncF => f(a).trunc().to_bits(),
        Unary::RoundF => f(a).round_ties_even().to_bits(),
        Unary::Not => !a,
        Unary::NotB => u32::from(a == 0),
        Unary::CountOnes => a.count_ones(),
        Unary::LeadingZeros => a.leading_zeros(),
        Unary::TrailingZeros => a.trailing_zeros(),
        Unary::FloatOfI => (a as i32 as f32).to_bits(),
        Unary::FloatOfU => (a as f32).to_bits(),
        Unary::IntOfF => f(a) as i32 as u32,
        Unary::UintOfF => f(a) as u32,
        Unary::Bits | Unary::Uniform => a,
    }
}

/// Two operands. Inlined for the interpreter, which asks for single words all the time.
#[inline(always)]
pub fn binary(op: Binary, a: u32, b: u32) -> u32 {
    let (i, j) = (a as i32, b as i32);
    match op {
        Binary::AddF => (f(a) + f(b)).to_bits(),
        Binary::SubF => (f(a) - f(b)).to_bits(),
        Binary::MulF => (f(a) * f(b)).to_bits(),
        Binary::DivF => (f(a) / f(b)).to_bits(),
        Binary::MinF => pick(f(b) < f(a), b, a),
        Binary::MaxF => pick(f(a) < f(b), b, a),
        Binary::EqF => u32::from(f(a) == f(b)),
        Binary::NeF => u32::from(f(a) != f(b)),
        Binary::LtF => u32::from(f(a) < f(b)),
        Binary::LeF => u32::from(f(a) <= f(b)),
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::DivI => i.checked_div(j).unwrap_or(i) as u32,
        Binary::DivU => a.checked_div(b).unwrap_or(a),
        Binary::RemI => i.checked_rem(j).unwrap_or(0) as u32,
        Binary::RemU => a.checked_rem(b).unwrap_or(0),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl => a << (b & 31),
        Binary::ShrI => (i >> (b & 31)) as u32,
        Binary::ShrU => a >> (b & 31),
        Binary::MinI => i.min(j) as u32,
        Binary::MinU => a.min(b),
        Binary::MaxI => i.max(j) as u32,
        Binary::MaxU => a.max(b),
        Binary::Eq => u32::from(a == b),
        Binary::Ne => u32::from(a != b),
        Binary::LtI => u32::from(i < j),
        Binary::LeI => u32::from(i <= j),
        Binary::LtU => u32::from(a < b),
        Binary::LeU => u32::from(a <= b),
    }
}

/// What an atomic operation leaves in a word that held `old`.
pub fn atomic(op: AtomicOp, old: u32, value: u32, compare: u32) -> u32 {
    match op {
        AtomicOp::Load => old,
        AtomicOp::Store | AtomicOp::Exchange => value,
        AtomicOp::Add => old.wrapping_add(value),
        AtomicOp::Sub => old.wrapping_sub(value),
        AtomicOp::And => old & value,
        AtomicOp::Or => old | value,
        AtomicOp::Xor => old ^ value,
        AtomicOp::MinI => (old as i32).min(value as i32) as u32,
        AtomicOp::MinU => old.min(value),
        AtomicOp::MaxI => (old as i32).max(value as i32) as u32,
        AtomicOp::MaxU => old.max(value),
        AtomicOp::CompareExchange => pick(old == compare, value, old),
    }
}

fn pick(first: bool, a: u32, b: u32) -> u32 {
    if first { a } else { b }
}
