//! From a kernel's tree to the tape.
//!
//! ```text
//! Kernel + Shapes ─ Forms ─► steps over numbered slots ─ slots.rs ─► Plan
//! ```
//!
//! Control becomes jumps where a whole set of lanes goes one way, and masks where it parts: every `if` whose
//! condition differs has two sets of its own, every block and loop that some lanes leave early has one for
//! those who wait at its end (and a loop one more for those who begin again). A list of steps is left as soon as
//! nobody is there any more, for the nearest end where somebody may wait.
//!
//! Invariant: the tape goes back only by [`Step::Back`], [`Step::BackBinary`] and [`Step::Again`], which look whether the run is stopped.

use std::collections::HashMap;

use super::super::ir::{Across, Binary, Count, Input, Kernel, Label, Memory, Op, RegisterId, Scalar, Stmt, Unary, ValueId};
use super::super::shape::{self, Shape, Shapes};
use super::forms::{Forms, Spread};
use super::slots;
use super::tape::{Affine, Arg, Clamp, Mask, Place, Slot, Step, Target, Width};

/// How many words a slot has, and how long it is anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// One word without a width.
    pub(super) width: Option<Width>,
    /// Whether it keeps what it holds for the whole run.
    pub(super) is_pinned: bool,
}

/// What a slot holds before a workgroup begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// These bits.
    Bits(u32),
    /// What invocations are told, of all lanes or of each row's first.
    Input(Input),
    /// How many elements there are.
    Length(Count),
    /// The last of them.
    Last(Count),
}

/// A tape and everything that it needs.
pub(super) struct Plan {
    /// What no workgroup changes: once for all that are run together.
    pub(super) before: Vec<Step>,
    /// Once for each.
    pub(super) tape: Vec<Step>,
    /// What is written once, and what for every run or workgroup.
    pub(super) given: Vec<(Slot, Option<Width>, Given)>,
    /// Words of the frame; those of wide slots begin at `table`'s entries.
    pub(super) frame_words: usize,
    pub(super) table: Vec<u32>,
    /// The wide slot of the first mask, and how many masks there are.
    pub(super) first_mask: Slot,
    pub(super) masks: u32,
    pub(super) workgroup: [u32; 3],
    pub(super) lanes: usize,
    /// Lanes of a row.
    pub(super) row: usize,
}

impl Plan {
    pub(super) fn new(kernel: &Kernel) -> Plan {
        let shapes = shape::shapes(kernel);
        let forms = Forms::new(kernel, &shapes);
        let mut planner = Planner {
            kernel,
            lanes: kernel.invocations(),
            forms,
            is_fixed: kernel.followers(|input| matches!(input, Input::Groups(_))),
            before: Vec::new(),
            tape: Vec::new(),
            slots: Vec::new(),
            given: Vec::new(),
            known: HashMap::new(),
            bases: vec![None; kernel.values.len()],
            spread: vec![None; kernel.values.len()],
            registers: Vec::new(),
            open: Vec::new(),
            loops: Vec::new(),
            targets: 0,
            masks: 1,
            free_masks: Vec::new(),
            shapes,
        };
        planner.registers();
        let end = planner.target();
        planner.steps(&kernel.body, Mask(0), end);
        planner.tape.extend([Step::Mark(end), Step::End]);
        let row = planner.shapes.row as usize;
        let drawn = Drawn {
            before: planner.before,
            tape: planner.tape,
            slots: planner.slots,
            loops: planner.loops,
            given: planner.given,
            masks: planner.masks,
        };
        slots::placed(drawn, kernel.workgroup, row)
    }
}

/// A tape over numbered slots.
pub(super) struct Drawn {
    /// Steps over one word, to pinned slots.
    pub(super) before: Vec<Step>,
    pub(super) tape: Vec<Step>,
    pub(super) slots: Vec<Kept>,
    /// The first and the last step of every loop.
    pub(super) loops: Vec<(usize, usize)>,
    pub(super) given: Vec<(Slot, Option<Width>, Given)>,
    pub(super) masks: u32,
}

/// A block or loop that steps are in.
struct Open {
    label: Label,
    end: Target,
    /// Of a loop.
    start: Option<Target>,
    /// Where those wait who left, and who begin again; nothing where all do it together.
    waiting: Option<(Mask, Mask)>,
}

/// How far out steps go: the outermost block or loop, by its place among those that are open; none is the greatest.
type Outward = usize;

struct Planner<'k> {
    kernel: &'k Kernel,
    lanes: u32,
    shapes: Shapes,
    forms: Forms,
    /// Per value, whether it is the same in all workgroups.
    is_fixed: Vec<bool>,
    before: Vec<Step>,
    tape: Vec<Step>,
    slots: Vec<Kept>,
    given: Vec<(Slot, Option<Width>, Given)>,
    /// Slots of what is given, by what and how wide.
    known: HashMap<(Known, bool), Slot>,
    /// Per value, where its base is, and its lanes.
    bases: Vec<Option<Arg>>,
    spread: Vec<Option<Slot>>,
    registers: Vec<Slot>,
    open: Vec<Open>,
    loops: Vec<(usize, usize)>,
    targets: u32,
    masks: u32,
    free_masks: Vec<Mask>,
}

/// What is given, for finding it again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Known {
    Bits(u32),
    Input(Input),
    Length(Count),
    Last(Count),
}

impl Planner<'_> {
    // ---- slots

    fn slot(&mut self, width: Option<Width>, is_pinned: bool) -> Slot {
        self.slots.push(Kept { width, is_pinned });
        self.slots.len() as Slot - 1
    }

    /// A slot for a base: a word, if all of the workgroup is one row.
    fn base_width(&self, shape: Shape) -> Option<Width> {
        (shape != Shape::Uniform && self.shapes.row != self.lanes).then_some(Width::Rows)
    }

    fn given(&mut self, given: Given, width: Option<Width>) -> Slot {
        let known = match given {
            Given::Bits(bits) => Known::Bits(bits),
            Given::Input(input) => Known::Input(input),
            Given::Length(count) => Known::Length(count),
            Given::Last(count) => Known::Last(count),
        };
        if let Some(&slot) = self.known.get(&(known, width == Some(Width::Lanes))) {
            return slot;
        }
        let slot = self.slot(width, true);
        self.given.push((slot, width, given));
        self.known.insert((known, width == Some(Width::Lanes)), slot);
        slot
    }

    fn shape(&self, value: ValueId) -> Shape {
        self.shapes.values[value.0 as usize]
    }

    fn target(&mut self) -> Target {
        self.targets += 1;
        Target(self.targets - 1)
    }

    fn mask(&mut self) -> Mask {
        self.free_masks.pop().unwrap_or_else(|| {
            self.masks += 1;
            Mask(self.masks - 1)
        })
    }

    fn last(&mut self, count: Count) -> Slot {
        match count {
            Count::Fixed(count) => self.given(Given::Bits(count.saturating_sub(1)), None),
            count => self.given(Given::Last(count), None),
        }
    }

    // ---- operands

    /// The base of a value that has one.
    fn base(&mut self, value: ValueId) -> Arg {
        if let Some(base) = self.bases[value.0 as usize] {
            return base;
        }
        let width = self.base_width(self.shape(value));
        let base = match self.kernel.value(value).op {
            Op::Const(bits) => {
                let is_bool = self.kernel.value(value).scalar == Scalar::Bool;
                self.given(Given::Bits(if is_bool { bits.wrapping_neg() } else { bits }), None)
            }
            Op::Input(input) => self.given(Given::Input(input), width),
            Op::Length(count) => self.given(Given::Length(count), None),
            _ => self.slot(width, self.is_fixed[value.0 as usize]),
        };
        let base = if width.is_some() { Arg::Wide(base) } else { Arg::One(base) };
        self.bases[value.0 as usize] = Some(base);
        base
    }

    fn one(&mut self, value: ValueId) -> Slot {
        match self.base(value) {
            Arg::One(slot) | Arg::Wide(slot) => slot,
        }
    }

    /// The lanes of a value that is not uniform. What is wanted here alone is spread now.
    fn spread(&mut self, value: ValueId) -> Slot {
        if let Some(slot) = self.spread[value.0 as usize] {
            return slot;
        }
        let (slot, is_given) = match self.kernel.value(value).op {
            Op::Input(input) => (self.given(Given::Input(input), Some(Width::Lanes)), true),
            _ => (self.slot(Some(Width::Lanes), false), false),
        };
        self.spread[value.0 as usize] = Some(slot);
        if self.forms.spread(value) == Spread::Late && !is_given {
            let from = self.affine(value);
            self.tape.push(Step::Spread { to: slot, from });
        }
        slot
    }

    /// A value for all lanes.
    fn lanes(&mut self, value: ValueId) -> Arg {
        if self.shapes.is_uniform(value) { Arg::One(self.one(value)) } else { Arg::Wide(self.spread(value)) }
    }

    /// The lanes of a value that has a base.
    fn affine(&mut self, value: ValueId) -> Affine {
        let base = self.base(value);
        let step = match self.shape(value) {
            Shape::Row(step) | Shape::Checked(step) => step as u32,
            Shape::Uniform | Shape::Varying => 0,
        };
        let clamp = self.shapes.root(self.kernel, value).map(|root| Clamp {
            index: self.base(root.index),
            step: root.step,
            last: self.last(root.count),
            multiplier: root.multiplier,
        });
        Affine { base, step, clamp }
    }

    // ---- values

    fn compute(&mut self, value: ValueId, mask: Mask) {
        let op = self.kernel.value(value).op;
        if matches!(op, Op::Const(_) | Op::Input(_) | Op::Length(_) | Op::Found) {
            return;
        }
        if !self.forms.is_base(value) {
            let to = self.spread(value);
            let step = self.step_for_lanes(op, to);
            return self.tape.push(step);
        }
        // An index is what is asked for, until it is spread or an address.
        let is_the_same_as = match op {
            Op::Index { index, .. } if matches!(self.shape(value), Shape::Checked(_)) => Some(index),
            Op::Binary(Binary::Add, a, b) if self.begins_at_zero(a) => Some(b),
            Op::Binary(Binary::Add, a, b) if self.begins_at_zero(b) => Some(a),
            _ => None,
        };
        if let Some(same) = is_the_same_as {
            self.bases[value.0 as usize] = Some(self.base(same));
        } else {
            let step = match self.base(value) {
                Arg::One(to) => self.step_for_one(op, to, mask),
                Arg::Wide(to) => self.step_for_rows(op, to),
            };
            let tape = if self.is_fixed[value.0 as usize] { &mut self.before } else { &mut self.tape };
            tape.push(step);
        }
        if self.forms.spread(value) == Spread::AtOnce {
            let (to, from) = (self.spread(value), self.affine(value));
            self.tape.push(Step::Spread { to, from });
        }
    }

    /// Whether a value's base is 0: that of a lane's own number, where there is one row.
    fn begins_at_zero(&self, value: ValueId) -> bool {
        let is_own = matches!(self.kernel.value(value).op, Op::Input(Input::LocalId(_) | Input::LocalIndex));
        is_own && self.shape(value) != Shape::Varying && self.shapes.row == self.lanes
    }

    fn step_for_one(&mut self, op: Op, to: Slot, mask: Mask) -> Step {
        match op {
            Op::Unary(Unary::Uniform, a) => match self.lanes(a) {
                Arg::One(from) => Step::CopyOne { to, from },
                Arg::Wide(from) => Step::Pick { to, from, mask },
            },
            Op::Unary(Unary::Bits, a) => Step::CopyOne { to, from: self.one(a) },
            Op::Unary(op, a) => Step::UnaryOne { op, to, a: self.one(a) },
            Op::Binary(op, a, b) => Step::BinaryOne { op, to, a: self.one(a), b: self.one(b) },
            Op::Select { condition, accept, reject } => {
                Step::SelectOne { to, condition: self.one(condition), accept: self.one(accept), reject: self.one(reject) }
            }
            Op::Index { index, count } => Step::IndexOne { to, index: self.one(index), last: self.last(count) },
            Op::Load { memory, address, offset } => Step::LoadOne { to, from: Place { memory, address: self.one(address), offset } },
            Op::Get(register) => Step::CopyOne { to, from: self.registers[register.0 as usize] },
            Op::Const(_) | Op::Input(_) | Op::Length(_) | Op::Found => unreachable!("no step computes these"),
        }
    }

    fn step_for_rows(&mut self, op: Op, to: Slot) -> Step {
        let width = Width::Rows;
        match op {
            Op::Binary(op, a, b) => Step::Binary { op, width, to, a: self.base(a), b: self.base(b) },
            Op::Select { condition, accept, reject } => {
                Step::Select { width, to, condition: self.base(condition), accept: self.base(accept), reject: self.base(reject) }
            }
            Op::Unary(Unary::Bits, a) => Step::Copy { width, to, from: self.one(a) },
            Op::Unary(op, a) => Step::Unary { op, width, to, a: self.one(a) },
            Op::Index { index, count } => Step::Index { width, to, index: self.one(index), last: self.last(count) },
            Op::Load { memory, address, offset } => Step::Gather { width, to, from: Place { memory, address: self.one(address), offset } },
            Op::Get(register) => Step::Copy { width, to, from: self.registers[register.0 as usize] },
            Op::Const(_) | Op::Input(_) | Op::Length(_) | Op::Found => unreachable!("no step computes these"),
        }
    }

    fn step_for_lanes(&mut self, op: Op, to: Slot) -> Step {
        let width = Width::Lanes;
        match op {
            Op::Binary(op, a, b) => Step::Binary { op, width, to, a: self.lanes(a), b: self.lanes(b) },
            Op::Select { condition, accept, reject } => {
                Step::Select { width, to, condition: self.lanes(condition), accept: self.lanes(accept), reject: self.lanes(reject) }
            }
            Op::Unary(Unary::Bits, a) => Step::Copy { width, to, from: self.spread(a) },
            Op::Unary(op, a) => Step::Unary { op, width, to, a: self.spread(a) },
            Op::Index { index, count } => Step::Index { width, to, index: self.spread(index), last: self.last(count) },
            Op::Load { memory: Memory::Private, address, offset } => Step::LoadPrivate { to, address: self.lanes(address), offset },
            Op::Load { memory, address, offset } if self.forms.is_base(address) => {
                Step::LoadRows { to, from: Place { memory, address: self.affine(address), offset } }
            }
            Op::Load { memory, address, offset } => Step::Gather { width, to, from: Place { memory, address: self.spread(address), offset } },
            Op::Get(register) => Step::Copy { width, to, from: self.registers[register.0 as usize] },
            Op::Const(_) | Op::Input(_) | Op::Length(_) | Op::Found => unreachable!("no step computes these"),
        }
    }

    // ---- steps

    /// Registers, those with a zero that somebody sees first.
    fn registers(&mut self) {
        for register in 0..self.kernel.registers.len() {
            let id = RegisterId(register as u32);
            let width = if self.forms.is_base_register(id) { self.base_width(self.shapes.registers[register]) } else { Some(Width::Lanes) };
            let slot = self.slot(width, true);
            self.registers.push(slot);
            if self.shapes.is_zero_seen(id) {
                let zero = self.given(Given::Bits(0), None);
                self.write(id, Arg::One(zero), None);
            }
        }
    }

    fn write(&mut self, register: RegisterId, from: Arg, mask: Option<Mask>) {
        let to = self.registers[register.0 as usize];
        self.tape.push(match (self.slots[to as usize].width, from) {
            (Some(width), from) => Step::Set { width, to, from, mask, is_moved: false },
            (None, Arg::One(from) | Arg::Wide(from)) => Step::CopyOne { to, from },
        });
    }

    /// Makes the steps of a list for the lanes of `mask`, which is `gone`'s business where nobody is left.
    fn steps(&mut self, steps: &[Stmt], mask: Mask, gone: Target) -> Outward {
        steps.iter().map(|step| self.step(step, mask, gone)).min().unwrap_or(Outward::MAX)
    }

    fn step(&mut self, step: &Stmt, mask: Mask, gone: Target) -> Outward {
        match step {
            Stmt::Let(value) => self.compute(*value, mask),
            Stmt::Set(register, value) if self.forms.is_base_register(*register) => {
                let from = self.base(*value);
                self.write(*register, from, None);
            }
            Stmt::Set(register, value) => {
                let from = self.lanes(*value);
                self.write(*register, from, Some(mask));
            }
            Stmt::Store { memory, address, offset, value, .. } => self.store(*memory, *address, *offset, *value, mask),
            Stmt::Atomic { op, memory, address, offset, value, compare, found, .. } => {
                let to = Place { memory: *memory, address: self.lanes(*address), offset: *offset };
                let (value, compare) = (self.lanes(*value), compare.map(|compare| self.lanes(compare)));
                let found = found.map(|found| self.spread(found));
                self.tape.push(Step::Atomic { op: *op, to, value, compare, found, mask });
            }
            Stmt::Across { what, found } => {
                let to = self.spread(*found);
                let step = match *what {
                    Across::Here => Step::Here { to, mask },
                    Across::Of(value, place) => Step::Across { to, from: self.lanes(value), place },
                };
                self.tape.push(step);
            }
            Stmt::If { condition, accept, reject } => return self.branch(*condition, accept, reject, mask, gone),
            Stmt::Block { label, body } => return self.block(*label, body, mask, gone),
            Stmt::Loop { label, body } => return self.repeated(*label, body, mask, gone),
            Stmt::Exit(label) | Stmt::Repeat(label) => return self.jump(*label, matches!(step, Stmt::Repeat(_)), mask, gone),
            // Whoever gets there is there already.
            Stmt::Barrier { .. } => {}
        }
        Outward::MAX
    }

    fn store(&mut self, memory: Memory, address: ValueId, offset: u32, value: ValueId, mask: Mask) {
        let value = self.lanes(value);
        let step = match memory {
            Memory::Private => Step::StorePrivate { address: self.lanes(address), offset, value, mask },
            memory if self.forms.is_base(address) && !self.shapes.is_uniform(address) => {
                Step::StoreRows { to: Place { memory, address: self.affine(address), offset }, value, mask }
            }
            memory => Step::Scatter { to: Place { memory, address: self.lanes(address), offset }, value, mask },
        };
        self.tape.push(step);
    }

    // ---- control

    fn branch(&mut self, condition: ValueId, accept: &[Stmt], reject: &[Stmt], mask: Mask, gone: Target) -> Outward {
        if let Op::Unary(Unary::NotB, opposite) = self.kernel.value(condition).op {
            return self.branch(opposite, reject, accept, mask, gone);
        }
        let slot = match self.lanes(condition) {
            Arg::One(condition) => return self.branch_together(condition, accept, reject, mask, gone),
            Arg::Wide(slot) => slot,
        };
        // Whoever leaves is soon gone, and the others need no mask of their own.
        for (leaving, staying, unless) in [(accept, reject, false), (reject, accept, true)] {
            if let [Stmt::Exit(label) | Stmt::Repeat(label)] = leaving {
                let (to, outward) = self.way_out(*label, matches!(leaving[0], Stmt::Repeat(_)));
                self.tape.push(Step::Leave { condition: slot, unless, from: mask, to, gone });
                return outward.min(self.steps(staying, mask, gone));
            }
        }
        let (accepted, rejected) = (self.mask(), self.mask());
        let (otherwise, end) = (self.target(), self.target());
        let split = self.tape.len();
        let numbered = self.numbered(condition);
        self.tape.push(match numbered {
            Some((base, limit, is_equal)) => {
                Step::SplitNumbered { base, limit, is_equal, from: mask, accept: accepted, reject: Some(rejected), otherwise }
            }
            None => Step::Split { condition: slot, from: mask, accept: accepted, reject: Some(rejected), otherwise },
        });
        let mut outward = self.steps(accept, accepted, otherwise);
        self.tape.push(Step::Mark(otherwise));
        if !reject.is_empty() {
            self.tape.push(Step::Otherwise { mask: rejected, end });
            outward = outward.min(self.steps(reject, rejected, end));
        }
        self.tape.push(Step::Mark(end));
        if outward < self.open.len() {
            self.tape.push(Step::Join { to: mask, accept: accepted, reject: rejected, gone });
        } else {
            if reject.is_empty()
                && let Step::Split { reject, .. } | Step::SplitNumbered { reject, .. } = &mut self.tape[split]
            {
                *reject = None;
            }
            self.tape.push(Step::Resume(mask));
        }
        self.free_masks.extend([accepted, rejected]);
        outward
    }

    /// Of a condition that asks whether a lane's number, counted from somewhere, is below a limit or is it: from where,
    /// the limit, and which of the two.
    fn numbered(&mut self, condition: ValueId) -> Option<(Slot, Slot, bool)> {
        let Op::Binary(op @ (Binary::LtU | Binary::Eq), a, b) = self.kernel.value(condition).op else { return None };
        let is_equal = op == Binary::Eq;
        let (number, limit) = if is_equal && self.shapes.is_uniform(a) { (b, a) } else { (a, b) };
        let is_counted = self.shape(number) == Shape::Row(1) && self.forms.is_base(number) && self.base_width(Shape::Row(1)).is_none();
        if !is_counted || !self.shapes.is_uniform(limit) {
            return None;
        }
        let (Arg::One(base) | Arg::Wide(base)) = self.base(number);
        Some((base, self.one(limit), is_equal))
    }

    fn branch_together(&mut self, condition: Slot, accept: &[Stmt], reject: &[Stmt], mask: Mask, gone: Target) -> Outward {
        for (leaving, staying, unless) in [(accept, reject, true), (reject, accept, false)] {
            if let [Stmt::Exit(label)] = leaving {
                let (_, outward) = self.way_out(*label, false);
                let Open { end, waiting: None, .. } = self.open[outward] else { continue };
                self.tape.push(Step::Branch { condition, unless, otherwise: end });
                return outward.min(self.steps(staying, mask, gone));
            }
        }
        let (otherwise, end) = (self.target(), self.target());
        let unless = accept.is_empty();
        let (first, second) = if unless { (reject, accept) } else { (accept, reject) };
        self.tape.push(Step::Branch { condition, unless, otherwise });
        let mut outward = self.steps(first, mask, gone);
        if !second.is_empty() {
            self.tape.push(Step::Jump(end));
        }
        self.tape.push(Step::Mark(otherwise));
        outward = outward.min(self.steps(second, mask, gone));
        self.tape.push(Step::Mark(end));
        outward
    }

    /// Where those who leave or repeat a block or loop by themselves wait.
    fn way_out(&mut self, label: Label, is_repeat: bool) -> (Mask, Outward) {
        let at = self.open.iter().rposition(|open| open.label == label).unwrap_or_default();
        let (left, repeats) = self.open[at].waiting.unwrap_or((Mask(0), Mask(0)));
        (if is_repeat { repeats } else { left }, at)
    }

    fn jump(&mut self, label: Label, is_repeat: bool, mask: Mask, gone: Target) -> Outward {
        let (to, outward) = self.way_out(label, is_repeat);
        let open = &self.open[outward];
        self.tape.push(match (open.waiting, open.start.filter(|_| is_repeat)) {
            (Some(_), _) => Step::Exit { from: mask, to, gone },
            (None, Some(start)) => Step::Back(start),
            (None, None) => Step::Jump(open.end),
        });
        outward
    }

    fn block(&mut self, label: Label, body: &[Stmt], mask: Mask, gone: Target) -> Outward {
        let end = self.target();
        let left = self.shapes.is_diverging(label).then(|| self.mask());
        self.tape.extend(left.map(Step::Clear));
        self.open.push(Open { label, end, start: None, waiting: left.map(|left| (left, left)) });
        let outward = self.steps(body, mask, if left.is_some() { end } else { gone });
        self.open.pop();
        self.tape.push(Step::Mark(end));
        if let Some(left) = left {
            self.tape.push(Step::Rejoin { to: mask, from: left, gone });
            self.free_masks.push(left);
        }
        self.outward_from(outward)
    }

    fn repeated(&mut self, label: Label, body: &[Stmt], mask: Mask, gone: Target) -> Outward {
        let (start, end) = (self.target(), self.target());
        let waiting = self.shapes.is_diverging(label).then(|| (self.mask(), self.mask()));
        if let Some((through, repeats)) = waiting {
            self.tape.extend([Step::Clear(through), Step::Clear(repeats)]);
        }
        self.open.push(Open { label, end, start: Some(start), waiting });
        let first = self.tape.len();
        self.tape.push(Step::Mark(start));
        let outward = self.steps(body, mask, if waiting.is_some() { end } else { gone });
        self.open.pop();
        self.tape.push(Step::Mark(end));
        if let Some((through, repeats)) = waiting {
            self.tape.push(Step::Again { mask, through, repeats, start, gone });
            self.free_masks.extend([through, repeats]);
        }
        self.loops.push((first, self.tape.len() - 1));
        self.outward_from(outward)
    }

    /// Who goes no farther out than to what has just been closed stays.
    fn outward_from(&self, outward: Outward) -> Outward {
        if outward >= self.open.len() { Outward::MAX } else { outward }
    }
}
