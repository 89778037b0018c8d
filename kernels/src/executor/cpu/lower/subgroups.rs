//! Subgroups: what each invocation learns of the others, from who is there and what each of them has.
//!
//! ```text
//! here, of(x, 0) … of(x, 3) ─ sums, selections ─► subgroupAdd, subgroupBallot, subgroupShuffle, …
//! ```
//!
//! A subgroup has [`SUBGROUP`] places, so every operation is a few operators on the words at all of them; sums run from
//! the first place to the last. Invariant: an invocation that does not take part counts for nothing, and what is asked
//! of a place where nobody takes part, or that is none, is zero, so the bits are the same everywhere.

use naga::{CollectiveOperation, Direction, Expression, GatherMode, Handle, MathFunction, SubgroupOperation};

use super::super::ir::{Across, Binary, Input, Op, SUBGROUP, Scalar, ValueId};
use super::super::math;
use super::{Frame, LowerError, Lowering};

impl<'a> Lowering<'a> {
    /// `subgroup_invocation_id`.
    pub(super) fn place_in_subgroup(&mut self) -> ValueId {
        let (lane, size) = (self.builder.input(Input::LocalIndex), self.builder.uint(SUBGROUP));
        self.builder.binary(Binary::RemU, lane, size)
    }

    /// Per place, whether the invocation there takes part.
    fn present(&mut self) -> Vec<ValueId> {
        let here = self.builder.across(Across::Here);
        let zero = self.builder.uint(0);
        let places = (0..SUBGROUP).map(|place| {
            let bit = self.builder.uint(1 << place);
            let bit = self.builder.binary(Binary::And, here, bit);
            self.builder.binary(Binary::Ne, bit, zero)
        });
        places.collect()
    }

    /// Per place, the word there.
    fn words_of(&mut self, value: ValueId) -> Vec<ValueId> {
        let is_constant = matches!(self.builder.op_of(value), Op::Const(_));
        (0..SUBGROUP as u8).map(|place| if is_constant { value } else { self.builder.across(Across::Of(value, place)) }).collect()
    }

    pub(super) fn ballot(&mut self, frame: &mut Frame<'a>, predicate: Option<Handle<Expression>>) -> Result<Vec<ValueId>, LowerError> {
        let zero = self.builder.uint(0);
        let votes = match predicate {
            None => self.builder.across(Across::Here),
            Some(predicate) => {
                let vote = self.values(frame, predicate)?[0];
                let bits: Vec<_> = self.votes(vote, false).into_iter().zip(0..).map(|(vote, place)| (vote, self.builder.uint(1 << place))).collect();
                bits.into_iter().fold(zero, |votes, (vote, bit)| {
                    let bit = self.builder.select(vote, bit, zero);
                    self.builder.binary(Binary::Or, votes, bit)
                })
            }
        };
        Ok(vec![votes, zero, zero, zero])
    }

    /// Per place, the truth value there, or `absent` where nobody takes part.
    fn votes(&mut self, vote: ValueId, absent: bool) -> Vec<ValueId> {
        let (one, zero) = (self.builder.uint(1), self.builder.uint(0));
        let word = self.builder.select(vote, one, zero);
        let (present, words) = (self.present(), self.words_of(word));
        let absent = self.builder.bool(absent);
        let votes = present.into_iter().zip(words).map(|(present, word)| {
            let vote = self.builder.binary(Binary::Ne, word, zero);
            self.builder.select(present, vote, absent)
        });
        votes.collect()
    }

    pub(super) fn collective(
        &mut self,
        frame: &mut Frame<'a>,
        op: SubgroupOperation,
        collective: CollectiveOperation,
        argument: Handle<Expression>,
    ) -> Result<Vec<ValueId>, LowerError> {
        let values = self.values(frame, argument)?;
        if let SubgroupOperation::All | SubgroupOperation::Any = op {
            let is_all = op == SubgroupOperation::All;
            let joined = if is_all { Binary::And } else { Binary::Or };
            let votes = self.votes(values[0], is_all);
            return Ok(vec![votes[1..].iter().fold(votes[0], |all, &vote| self.builder.binary(joined, all, vote))]);
        }
        let mut counted = self.present();
        if collective != CollectiveOperation::Reduce {
            let own = self.place_in_subgroup();
            let until = if collective == CollectiveOperation::InclusiveScan { Binary::LeU } else { Binary::LtU };
            for (place, counted) in counted.iter_mut().enumerate() {
                let place = self.builder.uint(place as u32);
                let is_before = self.builder.binary(until, place, own);
                *counted = self.builder.binary(Binary::And, *counted, is_before);
            }
        }
        values.into_iter().map(|value| self.combined(op, value, &counted)).collect()
    }

    /// The words at the places that count, joined from the first to the last.
    fn combined(&mut self, op: SubgroupOperation, value: ValueId, counted: &[ValueId]) -> Result<ValueId, LowerError> {
        use SubgroupOperation as S;
        let scalar = self.builder.scalar(value);
        let neutral = match (op, scalar) {
            // Not even the sign of a zero changes.
            (S::Add, Scalar::F32) => (-0.0f32).to_bits(),
            (S::Mul, Scalar::F32) => 1.0f32.to_bits(),
            (S::Min, Scalar::F32) => f32::INFINITY.to_bits(),
            (S::Max, Scalar::F32) => f32::NEG_INFINITY.to_bits(),
            (S::Mul, _) => 1,
            (S::Min, Scalar::I32) => i32::MAX as u32,
            (S::Max, Scalar::I32) => i32::MIN as u32,
            (S::Min, _) | (S::And, _) => u32::MAX,
            _ => 0,
        };
        let neutral = self.builder.constant(scalar, neutral);
        let words = self.words_of(value);
        let mut joined = None;
        for (word, &is_counted) in words.into_iter().zip(counted) {
            let word = self.builder.select(is_counted, word, neutral);
            joined = Some(match joined {
                None => word,
                Some(before) => self.joined(op, scalar, before, word)?,
            });
        }
        Ok(joined.unwrap_or(neutral))
    }

    fn joined(&mut self, op: SubgroupOperation, scalar: Scalar, a: ValueId, b: ValueId) -> Result<ValueId, LowerError> {
        use SubgroupOperation as S;
        let is_float = scalar == Scalar::F32;
        let kind = match op {
            S::Add if is_float => Binary::AddF,
            S::Add => Binary::Add,
            S::Mul if is_float => Binary::MulF,
            S::Mul => Binary::Mul,
            S::And | S::All => Binary::And,
            S::Or | S::Any => Binary::Or,
            S::Xor => Binary::Xor,
            S::Min | S::Max => {
                let fun = if op == S::Min { MathFunction::Min } else { MathFunction::Max };
                let joined = math::component(&mut self.builder, fun, &[a, b]);
                return joined.ok_or_else(|| self.uncovered(&format!("{op:?} in a subgroup"), None));
            }
        };
        Ok(self.builder.binary(kind, a, b))
    }

    pub(super) fn gather(&mut self, frame: &mut Frame<'a>, mode: GatherMode, argument: Handle<Expression>) -> Result<Vec<ValueId>, LowerError> {
        let values = self.values(frame, argument)?;
        let shifted = |lowering: &mut Self, frame: &mut Frame<'a>, op, by: Handle<Expression>| {
            let (own, by) = (lowering.place_in_subgroup(), lowering.values(frame, by)?[0]);
            Ok(lowering.builder.binary(op, own, by))
        };
        let wanted = match mode {
            GatherMode::BroadcastFirst => None,
            GatherMode::Broadcast(place) | GatherMode::Shuffle(place) | GatherMode::QuadBroadcast(place) => Some(self.values(frame, place)?[0]),
            GatherMode::ShuffleDown(by) => Some(shifted(self, frame, Binary::Add, by)?),
            GatherMode::ShuffleUp(by) => Some(shifted(self, frame, Binary::Sub, by)?),
            GatherMode::ShuffleXor(by) => Some(shifted(self, frame, Binary::Xor, by)?),
            GatherMode::QuadSwap(direction) => {
                let (own, bits) = (self.place_in_subgroup(), self.builder.uint(quad_bits(direction)));
                Some(self.builder.binary(Binary::Xor, own, bits))
            }
        };
        let present = self.present();
        let chosen: Vec<ValueId> = match wanted {
            None => present,
            Some(wanted) => {
                let chosen = present.into_iter().zip(0..).map(|(present, place)| {
                    let place = self.builder.uint(place);
                    let is_wanted = self.builder.binary(Binary::Eq, wanted, place);
                    self.builder.binary(Binary::And, present, is_wanted)
                });
                chosen.collect()
            }
        };
        let gathered = values.into_iter().map(|value| {
            let zero = self.builder.constant(self.builder.scalar(value), 0);
            let words = self.words_of(value);
            // Of several the first.
            words.into_iter().zip(&chosen).rev().fold(zero, |rest, (word, &is_chosen)| self.builder.select(is_chosen, word, rest))
        });
        Ok(gathered.collect())
    }
}

/// What a place in four differs in from that across: four lie in two rows of two.
fn quad_bits(direction: Direction) -> u32 {
    match direction {
        Direction::X => 1,
        Direction::Y => 2,
        Direction::Diagonal => 3,
    }
}
