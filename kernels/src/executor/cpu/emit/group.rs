//! What a workgroup does as one: its place, its memory, control around barriers, and what segments share.

use std::collections::{HashMap, HashSet};

use wasm_encoder::{Instruction as I, ValType};

use super::super::ir::{Label, Op, Stmt, ValueId};
use super::super::shape::Shape;
use super::bounds::Bounds;
use super::class::{self, Assumption, Class, Classes, Context};
use super::code::{ARGS, Emitter, Local, Target, at, scalar_type, words};
use super::lanes::{Corner, Range};
use super::linear::Within;
use super::plan::{Node, Segment, each_step};

/// Values of a segment that are there in two forms whatever they are, and how many for each index.
const VALUES_MAX: usize = 1 << 9;
const VALUES_PER_INDEX: usize = 1 << 4;
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
        let fast = self.classify(&segment.steps, &written, &wanted, Form::Fast);
        let mut general = self.classify(&segment.steps, &written, &wanted, Form::Only);
        let trim = self.trim(segment, &general);
        let is_worth = trim.is_some() || self.is_worth(segment, &fast);
        if is_worth {
            general = self.classify(&segment.steps, &written, &wanted, Form::Rest);
        }
        // What both forms are sure of comes first, then what only the fast one needs.
        self.hoist(&segment.steps, &general);
        let limits = self.quads(trim);
        self.save_registers(&written);
        let shares = self.shares(&segment.steps, &general);
        let (are_whole_rows, is_partial) = (trim.is_none(), !self.lanes.count().is_multiple_of(4));
        let rest = Range { from: self.local(ValType::I32), to: limits.all, are_whole_rows, is_partial, corner: Corner::Nowhere };
        let rest = if is_worth {
            let bounds = match trim {
                Some(condition) => Bounds { active: [Some(limits.active), None, None], by: vec![condition] },
                None => self.bounds(segment, &fast),
            };
            self.run_fast(segment, fast, limits.full, &bounds, (&written, &shares), rest)
        } else {
            rest
        };
        self.is_cold = true;
        self.run(segment, general, rest, &written, &shares);
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

    /// Runs a segment's fast form where what it takes for granted holds; the rest of the quads, which are the general form's.
    fn run_fast(
        &mut self,
        segment: &Segment<'k>,
        fast: Classes,
        full: Local,
        bounds: &Bounds,
        (written, shares): (&[bool], &Shares),
        rest: Range,
    ) -> Range {
        let test = self.test(&fast, bounds);
        self.hoist(&segment.steps, &fast);
        self.is_cold = false;
        let (from, are_whole_rows) = (self.local(ValType::I32), rest.are_whole_rows);
        if !are_whole_rows || bounds.by.is_empty() {
            // Up to where the fast form goes: all full quads, or none.
            self.all([I::LocalGet(full), I::I32Const(0), I::LocalGet(test), I::Select]);
            let middle = self.keep(ValType::I32);
            self.run(segment, fast, Range { from, to: middle, are_whole_rows, is_partial: false, corner: Corner::Nowhere }, written, shares);
            // Not by pairs: it seldom runs, and is compiled sooner.
            return Range { from: middle, are_whole_rows: false, ..rest };
        }
        let limits = [0, 1, 2].map(|axis| {
            let all = self.lanes.workgroup[axis] as i32;
            self.push(bounds.active[axis].map_or(I::I32Const(all), I::LocalGet));
            if axis == 0 {
                self.all([I::I32Const(0), I::LocalGet(test), I::Select]);
            }
            self.keep(ValType::I32)
        });
        self.run(segment, fast, Range { from, to: full, are_whole_rows, is_partial: false, corner: Corner::Only(limits) }, written, shares);
        // Nothing is left of most workgroups.
        self.push(I::LocalGet(rest.to));
        self.int(0);
        self.int(1);
        for (axis, limit) in limits.into_iter().enumerate() {
            self.all([I::LocalGet(limit), I::I32Const(self.lanes.workgroup[axis] as i32), I::I32Eq, I::I32And]);
        }
        self.push(I::Select);
        Range { from: self.keep(ValType::I32), are_whole_rows: false, corner: Corner::Without(limits), ..rest }
    }

    /// Whether a fast form is worth its code. Without it, every index that it takes for granted is brought in and read lane by lane, but
    /// arithmetic is as fast, and a long one is there twice. Where most is read lane by lane in the fast form as well, it gains nothing.
    fn is_worth(&self, segment: &Segment<'k>, fast: &Classes) -> bool {
        let indices = fast.assumptions.iter().filter(|assumption| matches!(assumption, Assumption::Within(_))).count();
        let is_possible = self.sees_no_order(segment) || fast.assumptions.iter().all(|assumption| self.may_hold(*assumption));
        let is_short = fast.own.len() <= VALUES_MAX.max(indices * VALUES_PER_INDEX);
        !fast.assumptions.is_empty() && is_possible && is_short && self.gathers(segment, fast) <= indices
    }

    /// How often a form reads or writes lane by lane.
    fn gathers(&self, segment: &Segment<'k>, classes: &Classes) -> usize {
        let class = |value: &ValueId| classes.own.get(value).copied().unwrap_or_else(|| self.class(*value));
        let mut count = 0;
        each_step(segment.steps.iter().copied(), &mut |step| {
            let address = match step {
                Stmt::Let(value) => match &self.kernel.value(*value).op {
                    Op::Load { address, .. } => Some(address),
                    _ => None,
                },
                Stmt::Store { address, .. } => Some(address),
                _ => None,
            };
            count += usize::from(address.is_some_and(|address| class(address) == Class::Vector));
        });
        count
    }

    fn classify(&self, steps: &[&'k Stmt], written: &[bool], wanted: &HashMap<ValueId, bool>, form: Form) -> Classes {
        let (is_fast, has_checks) = (form == Form::Fast, form == Form::Only);
        let (kernel, shapes, lanes, outer) = (self.kernel, self.shapes, self.lanes, &self.outer);
        Context { kernel, shapes, lanes, outer, written, wanted, is_fast, has_checks }.classify(steps)
    }

    /// Steps that only concern the workgroup need no lanes; whether these do.
    fn as_group(&mut self, steps: &[&'k Stmt]) -> bool {
        let classes = self.classify(steps, &vec![false; self.registers.len()], &HashMap::new(), Form::Only);
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
                    Stmt::Let(value) => self.define(*value, &classes),
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
                && !self.derived.contains_key(&value)
            {
                self.define(value, classes);
            }
        }
    }

    /// Computes a scalar of the workgroup. One that is not sure is not told to other segments.
    fn define(&mut self, value: ValueId, classes: &Classes) {
        let Class::Group { steps, is_sure } = classes.own[&value] else { return };
        if self.is_told(value) {
            if is_sure {
                self.outer.insert(value, steps);
            }
            return;
        }
        let linear = self.linear(value, &|value| classes.own.get(&value).copied().unwrap_or_else(|| self.class(value)));
        if linear.root == value {
            self.scalar_op(value);
            let local = self.keep(scalar_type(self.scalar_of(value)));
            self.outer_locals.insert(value, local);
        } else {
            self.derived.insert(value, linear);
        }
        if is_sure {
            self.outer.insert(value, steps);
        }
    }

    /// Whether a form's assumptions hold for the lanes of this workgroup that are within bounds.
    fn test(&mut self, classes: &Classes, bounds: &Bounds) -> Local {
        self.int(1);
        for Within { least, further } in self.within(classes) {
            let Op::Index { index, count } = self.kernel.value(least).op else { continue };
            let (low, high) = self.corners(classes, index, &bounds.active, false);
            self.all([I::LocalGet(low), I::I64Const(0), I::I64GeS, I::I32And, I::LocalGet(high)]);
            if further != 0 {
                self.all([I::I64Const(further), I::I64Add]);
            }
            self.count(count);
            self.all([I::I64ExtendI32U, I::I64LtS, I::I32And]);
        }
        for assumption in &classes.assumptions {
            if let Assumption::Holds(value, outcome) = *assumption
                && !bounds.by.contains(&value)
            {
                self.test_comparison(classes, value, outcome, &bounds.active);
            }
        }
        self.keep(ValType::I32)
    }

    fn test_comparison(&mut self, classes: &Classes, value: ValueId, outcome: bool, active: &[Option<Local>; 3]) {
        let Some(order) = self.order(value, outcome) else { return };
        let (left_low, left_high) = self.corners(classes, order.left, active, order.is_signed);
        let (right_low, right_high) = self.corners(classes, order.right, active, order.is_signed);
        let (least, most) = if order.is_signed { (i64::from(i32::MIN), i64::from(i32::MAX)) } else { (0, i64::from(u32::MAX)) };
        for low in [left_low, right_low] {
            self.all([I::LocalGet(low), I::I64Const(least), I::I64GeS, I::I32And]);
        }
        for high in [left_high, right_high] {
            self.all([I::LocalGet(high), I::I64Const(most), I::I64LeS, I::I32And]);
        }
        let comparison = if order.is_strict { I::I64LtS } else { I::I64LeS };
        self.all([I::LocalGet(left_high), I::LocalGet(right_low), comparison, I::I32And]);
    }

    /// The least and the greatest of an affine value, without wrapping; along each axis of the first `active` lanes or of all.
    fn corners(&mut self, classes: &Classes, value: ValueId, active: &[Option<Local>; 3], is_signed: bool) -> (Local, Local) {
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
                match active[axis] {
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
    fn quads(&mut self, trim: Option<ValueId>) -> Limits {
        let count = self.lanes.count();
        let active = match trim.map(|condition| self.kernel.value(condition).op) {
            Some(Op::Binary(_, lane, limit)) => {
                self.scalar(limit);
                self.push(I::I64ExtendI32U);
                self.scalar(lane);
                self.all([I::I64ExtendI32U, I::I64Sub]);
                self.clamped(count.into())
            }
            _ => {
                self.int(count as i32);
                self.keep(ValType::I32)
            }
        };
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

/// Which of a segment's forms it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Where what it takes for granted holds.
    Fast,
    /// Where it does not. It seldom runs: what makes it short comes before what makes it fast.
    Rest,
    /// Everywhere.
    Only,
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
