//! What a workgroup does as one: its place, its memory, control around barriers, and what segments share.

use std::collections::{HashMap, HashSet};

use wasm_encoder::{Instruction as I, ValType};

use super::super::ir::{Label, Op, Stmt, ValueId};
use super::super::shape::Shape;
use super::class::{self, Assumption, Class, Classes, Context};
use super::code::{ARGS, Emitter, Local, Target, at, scalar_type, words};
use super::lanes::Range;
use super::plan::{Node, Segment, each_step};

/// The most bytes that are zeroed without a call.
const CLEARED_HERE_MAX: u32 = 4096;

impl<'k> Emitter<'k> {
    /// All workgroups, one after the other.
    pub(super) fn function(&mut self, nodes: &[Node<'k>]) {
        self.prologue();
        self.all([I::LocalGet(ARGS), I::I32Load(at(7 * 4))]);
        let left = self.keep(ValType::I32);
        let done = self.open(I::Block);
        self.all([I::LocalGet(left), I::I32Eqz]);
        self.branch_if(done);
        let next = self.open(I::Loop);
        self.check_stop();
        self.begin_workgroup();
        self.nodes(nodes);
        self.step_workgroup();
        self.all([I::LocalGet(left), I::I32Const(1), I::I32Sub, I::LocalTee(left)]);
        self.branch_if(next);
        self.close();
        self.close();
        self.int(0);
        self.push(I::End);
    }

    /// Everything is as it was before the first workgroup.
    fn begin_workgroup(&mut self) {
        let bytes = self.kernel.workgroup_words * 4;
        if bytes > 0 {
            self.clear(0, bytes);
        }
        for register in 0..self.registers.len() {
            let (local, kept) = (self.registers[register], self.kept[register]);
            if self.shapes.registers[register] == Shape::Uniform {
                let zero = if scalar_type(self.kernel.registers[register]) == ValType::F32 { I::F32Const(0f32.into()) } else { I::I32Const(0) };
                self.all([zero, I::LocalSet(local)]);
            } else if let Some(kept) = kept {
                let bytes = self.lanes.padded * 4;
                self.clear(kept, bytes);
            }
        }
    }

    /// Zeroes a part of the scratch that was reserved. A few words are not worth the call that a fill is.
    fn clear(&mut self, place: u32, bytes: u32) {
        if bytes > CLEARED_HERE_MAX {
            self.all([I::LocalGet(self.scratch), I::I32Const(place as i32), I::I32Add]);
            return self.all([I::I32Const(0), I::I32Const(bytes as i32), I::MemoryFill(0)]);
        }
        let (rounds, rest) = (bytes / 64, bytes % 64);
        let address = self.local(ValType::I32);
        self.all([I::LocalGet(self.scratch), I::LocalSet(address)]);
        let zero = |emitter: &mut Self, first: u32, bytes: u32| {
            for quad in (0..bytes).step_by(16) {
                emitter.all([I::LocalGet(address), words([0; 4]), I::V128Store(at((first + quad).into()))]);
            }
        };
        zero(self, place + rounds * 64, rest);
        if rounds > 0 {
            let left = self.local(ValType::I32);
            self.all([I::I32Const(rounds as i32), I::LocalSet(left)]);
            let again = self.open(I::Loop);
            zero(self, place, 64);
            self.all([I::LocalGet(address), I::I32Const(64), I::I32Add, I::LocalSet(address)]);
            self.all([I::LocalGet(left), I::I32Const(1), I::I32Sub, I::LocalTee(left)]);
            self.branch_if(again);
            self.close();
        }
    }

    /// The next workgroup, x fastest.
    fn step_workgroup(&mut self) {
        for axis in 0..3 {
            let (group, groups) = (self.group[axis], self.groups[axis]);
            self.all([I::LocalGet(group), I::I32Const(1), I::I32Add, I::LocalTee(group)]);
            if axis == 2 {
                self.push(I::Drop);
                break;
            }
            self.all([I::LocalGet(groups), I::I32GeU]);
            self.open(I::If);
            self.all([I::I32Const(0), I::LocalSet(group)]);
        }
        self.close();
        self.close();
    }

    fn nodes(&mut self, nodes: &[Node<'k>]) {
        for node in nodes {
            match node {
                Node::Segment(segment) => self.segment(segment),
                Node::If { condition, accept, reject } => {
                    self.scalar(*condition);
                    self.open(I::If);
                    self.nodes(accept);
                    if !reject.is_empty() {
                        self.push(I::Else);
                        self.nodes(reject);
                    }
                    self.close();
                }
                Node::Block { label, body } => {
                    let depth = self.open(I::Block);
                    self.targets.insert(*label, Target { depth, gone: None });
                    self.nodes(body);
                    self.close();
                }
                Node::Loop { label, body } => {
                    let depth = self.open(I::Loop);
                    self.targets.insert(*label, Target { depth, gone: None });
                    self.nodes(body);
                    self.close();
                }
                Node::Exit(label) => self.branch(self.targets[label].depth),
                Node::Repeat(label) => {
                    self.check_stop();
                    self.branch(self.targets[label].depth);
                }
            }
        }
    }

    fn segment(&mut self, segment: &Segment<'k>) {
        if self.as_group(&segment.steps) {
            return;
        }
        let mut written = vec![false; self.registers.len()];
        each_step(segment.steps.iter().copied(), &mut |step| {
            if let Stmt::Set(register, _) = step {
                written[register.0 as usize] = true;
            }
        });
        let wanted = class::wanted(self.kernel, &segment.steps);
        let general = self.classify(&segment.steps, &written, &wanted, false);
        let fast = self.classify(&segment.steps, &written, &wanted, true);
        let trim = self.trim(segment, &general);
        // What both forms are sure of comes first, then what only the fast one needs.
        self.hoist(&segment.steps, &general);
        let is_worth = trim.is_some() || !fast.assumptions.is_empty();
        let limits = self.quads(&segment.steps, trim);
        self.save_registers(&written);
        let shares = self.shares(&segment.steps, &general);
        let (are_whole_rows, is_partial) = (trim.is_none(), !self.lanes.count().is_multiple_of(4));
        if is_worth {
            let test = self.test(&fast, trim, limits.active);
            self.hoist(&segment.steps, &fast);
            // Up to where the fast form goes: all full quads, or none.
            self.all([I::LocalGet(limits.full), I::I32Const(0), I::LocalGet(test), I::Select]);
            let middle = self.keep(ValType::I32);
            let zero = self.local(ValType::I32);
            self.run(segment, fast, Range { from: zero, to: middle, are_whole_rows, is_partial: false }, &written, &shares);
            // Not by pairs: it seldom runs, and is compiled sooner.
            self.run(segment, general, Range { from: middle, to: limits.all, are_whole_rows: false, is_partial }, &written, &shares);
        } else {
            let zero = self.local(ValType::I32);
            self.run(segment, general, Range { from: zero, to: limits.all, are_whole_rows, is_partial }, &written, &shares);
        }
        for (value, share) in shares.list {
            match share {
                Share::Uniform(local) => {
                    self.outer.insert(value, [0; 3]);
                    self.outer_locals.insert(value, local);
                }
                Share::Lanes(place) => drop(self.spills.insert(value, place)),
            }
        }
    }

    fn classify(&self, steps: &[&'k Stmt], written: &[bool], wanted: &HashMap<ValueId, bool>, is_fast: bool) -> Classes {
        let (kernel, shapes, lanes, outer) = (self.kernel, self.shapes, self.lanes, &self.outer);
        Context { kernel, shapes, lanes, outer, written, wanted, is_fast }.classify(steps)
    }

    /// Steps that only concern the workgroup need no lanes; whether these do.
    fn as_group(&mut self, steps: &[&'k Stmt]) -> bool {
        let classes = self.classify(steps, &vec![false; self.registers.len()], &HashMap::new(), false);
        let is_group = |value: &ValueId| {
            let class = classes.own.get(value).copied().unwrap_or_else(|| self.class(*value));
            matches!(class, Class::Group { is_sure: true, .. })
        };
        let is_one = |value: &ValueId| is_group(value) && classes.own.get(value).copied().unwrap_or_else(|| self.class(*value)).step() == Some(0);
        let fits = steps.iter().all(|step| match step {
            Stmt::Let(value) => is_group(value),
            Stmt::Set(register, value) => self.shapes.registers[register.0 as usize] == Shape::Uniform && is_one(value),
            _ => false,
        });
        if fits {
            for step in steps {
                match step {
                    Stmt::Let(value) => self.define(*value, classes.own[value]),
                    Stmt::Set(register, value) => {
                        self.scalar(*value);
                        self.push(I::LocalSet(self.registers[register.0 as usize]));
                    }
                    _ => {}
                }
            }
        }
        fits
    }

    /// Computes every scalar of the workgroup that a form needs and that is not there yet.
    fn hoist(&mut self, steps: &[&'k Stmt], classes: &Classes) {
        let mut values = Vec::new();
        each_step(steps.iter().copied(), &mut |step| {
            if let Stmt::Let(value) = step {
                values.push(*value);
            }
        });
        for value in values {
            if let Class::Group { .. } = classes.own[&value]
                && !self.outer_locals.contains_key(&value)
            {
                self.define(value, classes.own[&value]);
            }
        }
    }

    /// Computes a scalar of the workgroup. One that is not sure is not told to other segments.
    fn define(&mut self, value: ValueId, class: Class) {
        let Class::Group { steps, is_sure } = class else { return };
        match self.kernel.value(value).op {
            // The form is tested before it runs: this changes nothing, in any lane.
            Op::Index { index, .. } if steps != [0; 3] => self.scalar(index),
            _ => self.scalar_op(value),
        }
        let local = self.keep(scalar_type(self.scalar_of(value)));
        self.outer_locals.insert(value, local);
        if is_sure {
            self.outer.insert(value, steps);
        }
    }

    /// Whether a form's assumptions hold for this workgroup.
    fn test(&mut self, classes: &Classes, trim: Option<ValueId>, active: Local) -> Local {
        self.int(1);
        for assumption in &classes.assumptions {
            match *assumption {
                Assumption::Holds(value, _) if Some(value) == trim => continue,
                Assumption::Within(value) => {
                    let Op::Index { index, count } = self.kernel.value(value).op else { continue };
                    let (low, high) = self.corners(classes, index, trim.map(|_| active), false);
                    self.all([I::LocalGet(low), I::I64Const(0), I::I64GeS, I::I32And, I::LocalGet(high)]);
                    self.count(count);
                    self.all([I::I64ExtendI32U, I::I64LtS, I::I32And]);
                }
                Assumption::Holds(value, outcome) => self.test_comparison(classes, value, outcome, trim.map(|_| active)),
            }
        }
        self.keep(ValType::I32)
    }

    fn test_comparison(&mut self, classes: &Classes, value: ValueId, outcome: bool, active: Option<Local>) {
        use super::super::ir::Binary;
        let Op::Binary(kind, a, b) = self.kernel.value(value).op else { return };
        let is_signed = matches!(kind, Binary::LtI | Binary::LeI);
        let (a_low, a_high) = self.corners(classes, a, active, is_signed);
        let (b_low, b_high) = self.corners(classes, b, active, is_signed);
        let (least, most) = if is_signed { (i64::from(i32::MIN), i64::from(i32::MAX)) } else { (0, i64::from(u32::MAX)) };
        for low in [a_low, b_low] {
            self.all([I::LocalGet(low), I::I64Const(least), I::I64GeS, I::I32And]);
        }
        for high in [a_high, b_high] {
            self.all([I::LocalGet(high), I::I64Const(most), I::I64LeS, I::I32And]);
        }
        let is_strict = matches!(kind, Binary::LtU | Binary::LtI);
        // Not (a < b) is b <= a.
        let (left, right, comparison) = match (outcome, is_strict) {
            (true, true) => (a_high, b_low, I::I64LtS),
            (true, false) => (a_high, b_low, I::I64LeS),
            (false, true) => (b_high, a_low, I::I64LeS),
            (false, false) => (b_high, a_low, I::I64LtS),
        };
        self.all([I::LocalGet(left), I::LocalGet(right), comparison, I::I32And]);
    }

    /// The least and the greatest of an affine value, without wrapping; of the first `active` lanes or of all.
    fn corners(&mut self, classes: &Classes, value: ValueId, active: Option<Local>, is_signed: bool) -> (Local, Local) {
        let class = classes.own.get(&value).copied().unwrap_or_else(|| self.class(value));
        let Class::Group { steps, .. } = class else { return (0, 0) };
        let mut corners = [0; 2];
        for (corner, is_high) in corners.iter_mut().zip([false, true]) {
            self.scalar(value);
            self.push(if is_signed { I::I64ExtendI32S } else { I::I64ExtendI32U });
            for (axis, extent) in self.lanes.extents().into_iter().enumerate() {
                let step = i64::from(steps[axis]);
                if step == 0 || (step > 0) != is_high {
                    continue;
                }
                match active.filter(|_| axis == 0) {
                    Some(active) => {
                        self.all([I::LocalGet(active), I::I32Const(1), I::I32Sub, I::I64ExtendI32S, I::I64Const(step), I::I64Mul, I::I64Add])
                    }
                    None => self.all([I::I64Const(step * (i64::from(extent) - 1)), I::I64Add]),
                }
            }
            *corner = self.keep(ValType::I64);
        }
        (corners[0], corners[1])
    }

    /// The condition of a segment that is nothing but `if (lane < n) { … }`.
    fn trim(&self, segment: &Segment<'k>, classes: &Classes) -> Option<ValueId> {
        let (last, before) = segment.steps.split_last()?;
        let Stmt::If { condition, reject, .. } = last else { return None };
        if !reject.is_empty() || (self.lanes.has_rows && self.lanes.workgroup[1..] != [1, 1]) {
            return None;
        }
        let is_quiet = before.iter().all(|step| matches!(step, Stmt::Let(value) if !self.reads_memory(*value, classes)));
        let Op::Binary(super::super::ir::Binary::LtU, lane, limit) = self.kernel.value(*condition).op else { return None };
        let of = |value: ValueId| classes.own.get(&value).copied().unwrap_or_else(|| self.class(value));
        let is_lane = matches!(of(lane), Class::Group { steps: [1, 0, 0], is_sure: true });
        let is_limit = matches!(of(limit), Class::Group { steps: [0, 0, 0], is_sure: true });
        (is_quiet && is_lane && is_limit && !self.uses.is_shared[condition.0 as usize]).then_some(*condition)
    }

    /// Whether computing a value for fewer lanes than all could be noticed.
    fn reads_memory(&self, value: ValueId, classes: &Classes) -> bool {
        !matches!(classes.own[&value], Class::Group { .. }) && self.uses.is_shared[value.0 as usize]
    }

    /// How many lanes take part, how many quads are full, and how many there are.
    fn quads(&mut self, _: &[&'k Stmt], trim: Option<ValueId>) -> Limits {
        let count = self.lanes.count();
        match trim.map(|condition| self.kernel.value(condition).op) {
            Some(Op::Binary(_, lane, limit)) => {
                self.scalar(limit);
                self.push(I::I64ExtendI32U);
                self.scalar(lane);
                self.all([I::I64ExtendI32U, I::I64Sub]);
                let rest = self.keep(ValType::I64);
                self.all([I::LocalGet(rest), I::I64Const(0), I::LocalGet(rest), I::I64Const(0), I::I64GtS, I::Select, I::LocalSet(rest)]);
                let most = i64::from(count);
                self.all([I::LocalGet(rest), I::I64Const(most), I::LocalGet(rest), I::I64Const(most), I::I64LtS, I::Select, I::I32WrapI64]);
            }
            _ => self.int(count as i32),
        }
        let active = self.keep(ValType::I32);
        self.all([I::LocalGet(active), I::I32Const(2), I::I32ShrU]);
        let full = self.keep(ValType::I32);
        self.all([I::LocalGet(active), I::I32Const(3), I::I32Add, I::I32Const(2), I::I32ShrU]);
        let all = self.keep(ValType::I32);
        Limits { active, full, all }
    }

    /// Uniform registers begin every quad with what they held before the first.
    fn save_registers(&mut self, written: &[bool]) {
        self.saved_registers.clear();
        for (register, _) in written.iter().enumerate().filter(|(_, is_written)| **is_written) {
            if self.shapes.registers[register] == Shape::Uniform {
                let local = self.registers[register];
                self.get(local);
                let saved = self.keep(scalar_type(self.kernel.registers[register]));
                self.saved_registers.push((local, saved));
            }
        }
    }

    /// Where values go that other segments use.
    fn shares(&mut self, steps: &[&'k Stmt], general: &Classes) -> Shares {
        let mut values = HashSet::new();
        let mut list = Vec::new();
        each_step(steps.iter().copied(), &mut |step| {
            if let Stmt::Let(value) | Stmt::Atomic { found: Some(value), .. } | Stmt::Across { found: value, .. } = step
                && self.uses.is_shared[value.0 as usize]
                && !matches!(general.own[value], Class::Group { is_sure: true, .. })
                && values.insert(*value)
            {
                list.push(*value);
            }
        });
        let list = list.into_iter().map(|value| {
            let share = match self.spills.get(&value) {
                Some(&place) => Share::Lanes(place),
                None if self.shapes.values[value.0 as usize] == Shape::Uniform => Share::Uniform(self.local(scalar_type(self.scalar_of(value)))),
                None => Share::Lanes(self.reserve(self.lanes.padded * 4)),
            };
            (value, share)
        });
        Shares { list: list.collect() }
    }

    /// The value is wanted elsewhere: puts it there.
    pub(super) fn share(&mut self, shares: &Shares, value: ValueId) {
        let Some((_, share)) = shares.list.iter().find(|(shared, _)| *shared == value) else { return };
        match *share {
            Share::Uniform(local) => {
                if self.class(value) == Class::Vector {
                    self.vector(value);
                    self.first_lane(self.scalar_of(value));
                } else {
                    self.scalar(value);
                }
                self.push(I::LocalSet(local));
            }
            Share::Lanes(place) => {
                self.lane_address();
                self.vector(value);
                self.push(I::V128Store(at(place.into())));
            }
        }
    }

    /// Leaves a block of the workgroup's from within a segment's lanes.
    pub(super) fn is_segment_end(&self, segment_ends: &HashSet<Label>, label: Label) -> bool {
        segment_ends.contains(&label)
    }
}

/// How many quads there are.
pub(super) struct Limits {
    pub(super) active: Local,
    pub(super) full: Local,
    pub(super) all: Local,
}

/// Where a value goes that other segments use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    Uniform(Local),
    Lanes(u32),
}

pub(super) struct Shares {
    pub(super) list: Vec<(ValueId, Share)>,
}
