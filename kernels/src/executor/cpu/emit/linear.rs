//! Values that are another one times a constant and another constant more, such as the addresses of a point's neighbours.
//!
//! ```text
//! value = root * factor + by          of the workgroup: told apart by `by`, only the root has a local
//! addresses of one root and factor    one *anchor* for every four lanes, the least; the others are its offsets in the instruction
//! steps into one array                the least and the greatest are tested, for all between them
//! ```
//!
//! Invariant: what is anchored lies within its memory whenever its form runs, wherever in it; so the least does, and the way from
//! there to any other, which is less than [`FAR`], wraps nowhere.

use std::collections::HashMap;

use wasm_encoder::{Instruction as I, ValType};

use super::super::ir::{Binary, Count, Memory, Op, Scalar, Stmt, Unary, ValueId};
use super::class::{Assumption, Class, Classes};
use super::code::{Emitter, Local};
use super::plan::{Segment, each_step};

/// Words from the least address of an anchor to the greatest, at most: they lie in one memory, which is far shorter than half of what wraps.
const FAR: i64 = 1 << 26;

/// `root * factor + by`, wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Linear {
    pub(super) root: ValueId,
    pub(super) factor: u32,
    pub(super) by: u32,
}

/// Where addresses begin that are told apart by constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    /// The byte address of the first lane's word.
    place: Local,
    /// The `by` of it.
    least: u32,
}

/// What addresses have in common that are told apart by constants: memory, root and factor.
type Key = (Memory, ValueId, u32);

pub(super) type Anchors = HashMap<Key, Anchor>;

/// Addresses of a segment that one anchor may be for.
struct Found {
    key: Key,
    /// The least and the greatest `by`.
    by: [i64; 2],
    steps: [i32; 3],
    count: usize,
}

/// Steps into one array that one test is for.
pub(super) struct Within {
    /// The one with the least index.
    pub(super) least: ValueId,
    /// How much greater the greatest index is.
    pub(super) further: i64,
}

impl<'k> Emitter<'k> {
    /// What a value of the workgroup is made of, as `class` has it.
    pub(super) fn linear(&self, value: ValueId, class: &dyn Fn(ValueId) -> Class) -> Linear {
        let constant = |value: ValueId| if let Op::Const(bits) = self.kernel.value(value).op { Some(bits) } else { None };
        let is_group = |value: ValueId| constant(value).is_none() && matches!(class(value), Class::Group { .. });
        let of = |value: ValueId, factor: u32, by: u32| {
            let inner = self.linear(value, class);
            Linear { root: inner.root, factor: inner.factor.wrapping_mul(factor), by: inner.by.wrapping_mul(factor).wrapping_add(by) }
        };
        let itself = Linear { root: value, factor: 1, by: 0 };
        match self.kernel.value(value).op {
            Op::Binary(Binary::Add, a, b) | Op::Binary(Binary::Add, b, a) if constant(b).is_some() && is_group(a) => {
                of(a, 1, constant(b).unwrap_or(0))
            }
            Op::Binary(Binary::Sub, a, b) if constant(b).is_some() && is_group(a) => of(a, 1, constant(b).unwrap_or(0).wrapping_neg()),
            Op::Binary(Binary::Mul, a, b) | Op::Binary(Binary::Mul, b, a) if constant(b).is_some() && is_group(a) => {
                of(a, constant(b).unwrap_or(0), 0)
            }
            Op::Binary(Binary::Shl, a, b) if constant(b).is_some() && is_group(a) => of(a, 1u32.wrapping_shl(constant(b).unwrap_or(0)), 0),
            Op::Unary(Unary::Bits, a) if is_group(a) && [value, a].iter().all(|&of| self.scalar_of(of) != Scalar::F32) => of(a, 1, 0),
            // The form is tested before it runs: this changes nothing, in any lane.
            Op::Index { index, .. } if self.is_assumed(value, class) => of(index, 1, 0),
            _ => itself,
        }
    }

    /// Whether an index is taken for granted.
    fn is_assumed(&self, value: ValueId, class: &dyn Fn(ValueId) -> Class) -> bool {
        matches!(class(value), Class::Group { steps, is_sure: false } if steps != [0; 3])
    }

    /// Pushes what a value is made of, in the workgroup's first lane.
    pub(super) fn scalar_of_linear(&mut self, Linear { root, factor, by }: Linear) {
        self.group_scalar(root);
        if factor != 1 {
            self.all([I::I32Const(factor as i32), I::I32Mul]);
        }
        if by != 0 {
            self.all([I::I32Const(by as i32), I::I32Add]);
        }
    }

    /// Finds the anchors of a segment in the form in progress, and computes them for the quad that begins.
    pub(super) fn begin_anchors(&mut self, segment: &Segment<'k>) {
        let mut found: Vec<Found> = Vec::new();
        each_step(segment.steps.iter().copied(), &mut |step| {
            let (memory, address) = match step {
                Stmt::Store { memory, address, .. } => (*memory, *address),
                Stmt::Let(value) => match self.kernel.value(*value).op {
                    Op::Load { memory, address, .. } => (memory, address),
                    _ => return,
                },
                _ => return,
            };
            let Class::Group { steps, .. } = self.class(address) else { return };
            if memory == Memory::Private || steps == [0; 3] {
                return;
            }
            let Linear { root, factor, by } = self.linear(address, &|value| self.class(value));
            let (key, by) = ((memory, root, factor), i64::from(by as i32));
            match found.iter_mut().find(|found| found.key == key) {
                Some(known) => {
                    known.by = [known.by[0].min(by), known.by[1].max(by)];
                    known.count += 1;
                }
                None => found.push(Found { key, by: [by; 2], steps, count: 1 }),
            }
        });
        for Found { key, by: [least, most], steps, count } in found {
            if count < 2 || most - least >= FAR {
                continue;
            }
            let (memory, root, factor) = key;
            let least = least as i32 as u32;
            self.base(memory);
            self.scalar_of_linear(Linear { root, factor, by: least });
            self.add_steps(steps);
            self.all([I::I32Const(2), I::I32Shl, I::I32Add]);
            let place = self.keep(ValType::I32);
            if let Some(quad) = &mut self.quad {
                quad.anchors.insert(key, Anchor { place, least });
            }
        }
    }

    /// The anchor of an address, and the bytes from there to the first lane's word.
    pub(super) fn anchored(&self, memory: Memory, address: ValueId) -> Option<(Local, u64)> {
        let Class::Group { steps, .. } = self.class(address) else { return None };
        let quad = self.quad.as_ref().filter(|quad| !quad.anchors.is_empty())?;
        let Linear { root, factor, by } = self.linear(address, &|value| self.class(value));
        let anchor = quad.anchors.get(&(memory, root, factor))?;
        // Four lanes on.
        let beside = if self.is_second() { 4 * u64::try_from(steps[0]).ok()? } else { 0 };
        let further = by.wrapping_sub(anchor.least);
        Some((anchor.place, 4 * (u64::from(further) + beside)))
    }

    /// The indices that a form takes to be within their arrays, those together that one test is for.
    pub(super) fn within(&self, classes: &Classes) -> Vec<Within> {
        let class = |value: ValueId| classes.own.get(&value).copied().unwrap_or_else(|| self.class(value));
        let mut found: Vec<(Count, Linear, Within)> = Vec::new();
        for assumption in &classes.assumptions {
            let Assumption::Within(value) = *assumption else { continue };
            let Op::Index { index, count } = self.kernel.value(value).op else { continue };
            let linear = self.linear(index, &class);
            let other = found.iter_mut().find_map(|(of, known, within)| {
                let further = i64::from(linear.by as i32) - i64::from(known.by as i32);
                let is_one = *of == count && (known.root, known.factor) == (linear.root, linear.factor) && further.abs() < FAR;
                (is_one && (further.max(within.further) - further.min(0) < FAR)).then_some((known, within, further))
            });
            match other {
                Some((_, within, further)) if further >= 0 => within.further = within.further.max(further),
                Some((known, within, further)) => {
                    *known = linear;
                    *within = Within { least: value, further: within.further - further };
                }
                None => found.push((count, linear, Within { least: value, further: 0 })),
            }
        }
        found.into_iter().map(|(.., within)| within).collect()
    }
}
