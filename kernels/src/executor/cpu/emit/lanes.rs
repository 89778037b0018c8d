//! What four lanes do: a segment's steps, with a mask wherever lanes may part.
//!
//! ```text
//! if c, c of all four lanes    a wasm `if`
//! if c, c of each lane         mask & c │ mask & !c, each side skipped if nobody takes it
//! exit, all four together      a wasm branch
//! exit, some of them           they leave the mask and wait in the label's `gone`, until its block ends
//! ```
//!
//! Invariant: a lane that is not in the mask changes nothing that outlives its place in the mask: no register, no
//! memory.

use std::collections::{HashMap, HashSet};

use wasm_encoder::{Instruction as I, ValType};

use super::super::ir::{Across, Binary, Label, Op, RegisterId, Stmt, Unary, ValueId};
use super::super::shape::Shape;
use super::class::{Class, Classes};
use super::code::{Emitter, Held, Local, Quad, Target, at, scalar_type, words};
use super::group::Shares;
use super::linear::Anchors;
use super::packs::Packs;
use super::plan::{Segment, each_step};

/// All lanes, or none.
pub(super) const ALL: [u32; 4] = [u32::MAX; 4];
pub(super) const NONE: [u32; 4] = [0; 4];

/// Steps that are cheaper than a branch around them.
const QUIET_MAX: usize = 4;

impl<'k> Emitter<'k> {
    /// Runs a segment in one form, over these quads.
    pub(super) fn run(&mut self, segment: &Segment<'k>, classes: Classes, quads: Range, written: &[bool], shares: &Shares) {
        let number = self.local(ValType::I32);
        let first = self.local(ValType::I32);
        let place = if self.lanes.has_rows { [0, 1, 2].map(|_| self.local(ValType::I32)) } else { [first; 3] };
        self.quad = Some(Quad { classes, held: HashMap::new(), packs: Packs::new(), anchors: Anchors::new(), place, first, mask: None, end: 0 });
        let is_paired = quads.are_whole_rows && self.is_paired(segment);
        let count = if is_paired { 2 } else { 1 };
        let done = self.open(I::Block);
        match quads.corner {
            Corner::Only(limits) => self.begin_corner(limits, place, 4 * count, done),
            Corner::Nowhere | Corner::Without(_) => self.begin_numbers(&quads, number, place, done),
        }
        let again = self.open(I::Loop);
        match quads.corner {
            Corner::Only(_) => self.number_of_place(place, first),
            Corner::Nowhere | Corner::Without(_) => self.all([I::LocalGet(number), I::I32Const(4), I::I32Mul, I::LocalSet(first)]),
        }
        let other = self.open(I::Block);
        if let Corner::Without(limits) = quads.corner {
            self.within_corner(limits, place);
            self.branch_if(other);
        }
        let end = self.open(I::Block);
        if let Some(quad) = &mut self.quad {
            quad.end = end;
        }
        self.begin_quad(segment, quads.is_partial);
        self.begin_anchors(segment);
        if is_paired {
            self.begin_pair(segment);
            self.steps_of_pair(&segment.steps, &segment.ends, shares);
        } else {
            self.steps(&segment.steps, &segment.ends, shares);
        }
        self.quad = None;
        self.close();
        let registers = self.registers.clone();
        self.end_quad(first, &registers, written);
        self.end_pair(written);
        self.close();
        match quads.corner {
            Corner::Only(limits) => self.step_in_corner(limits, place, 4 * count, again),
            Corner::Nowhere | Corner::Without(_) => {
                self.step_place(place, 4 * count);
                self.all([I::LocalGet(number), I::I32Const(count), I::I32Add, I::LocalTee(number), I::LocalGet(quads.to), I::I32LtU]);
                self.branch_if(again);
            }
        }
        self.close();
        self.close();
    }

    fn begin_numbers(&mut self, quads: &Range, number: Local, place: [Local; 3], done: u32) {
        self.all([I::LocalGet(quads.from), I::LocalTee(number), I::LocalGet(quads.to), I::I32GeU]);
        self.branch_if(done);
        if self.lanes.has_rows {
            // Only a single row is ever begun in its middle.
            self.all([I::LocalGet(number), I::I32Const(4), I::I32Mul, I::LocalSet(place[0])]);
            for axis in [1, 2] {
                self.all([I::I32Const(0), I::LocalSet(place[axis])]);
            }
        }
    }

    /// Registers and values from elsewhere, as the four lanes left them.
    fn begin_quad(&mut self, segment: &Segment<'k>, is_partial: bool) {
        for (local, saved) in self.saved_registers.clone() {
            self.all([I::LocalGet(saved), I::LocalSet(local)]);
        }
        self.take_up(segment);
        if is_partial {
            let count = self.lanes.count();
            self.numbers();
            self.all([words([count; 4]), I::I32x4LtU]);
            let mask = self.keep(ValType::V128);
            self.set_mask(Some(mask));
        }
    }

    /// What lanes have had since another segment.
    pub(super) fn take_up(&mut self, segment: &Segment<'k>) {
        for register in touched(self, segment) {
            let index = register.0 as usize;
            if self.shapes.registers[index] == Shape::Uniform {
                continue;
            }
            match self.kept[index] {
                Some(place) => {
                    self.lane_address();
                    self.all([I::V128Load(at(place.into())), I::LocalSet(self.registers[index])]);
                }
                None if self.shapes.is_zero_seen(register) => self.all([words(NONE), I::LocalSet(self.registers[index])]),
                None => {}
            }
        }
        for value in self.foreign(segment) {
            let Some(&place) = self.spills.get(&value) else { continue };
            self.lane_address();
            self.push(I::V128Load(at(place.into())));
            let local = self.keep(ValType::V128);
            self.hold(value, Held::Vector(local));
        }
    }

    pub(super) fn end_quad(&mut self, first: Local, registers: &[Local], written: &[bool]) {
        for (index, _) in written.iter().enumerate().filter(|(_, is_written)| **is_written) {
            if let Some(place) = self.kept[index] {
                self.all([I::LocalGet(self.scratch), I::LocalGet(first), I::I32Const(4), I::I32Mul, I::I32Add]);
                self.all([I::LocalGet(registers[index]), I::V128Store(at(place.into()))]);
            }
        }
    }

    fn step_place(&mut self, place: [Local; 3], lanes: i32) {
        if !self.lanes.has_rows {
            return;
        }
        let [x, y, z] = self.lanes.workgroup;
        self.all([I::LocalGet(place[0]), I::I32Const(lanes), I::I32Add, I::LocalSet(place[0])]);
        if y * z == 1 {
            return;
        }
        self.all([I::LocalGet(place[0]), I::I32Const(x as i32), I::I32Eq]);
        self.open(I::If);
        self.all([I::I32Const(0), I::LocalSet(place[0])]);
        self.all([I::LocalGet(place[1]), I::I32Const(1), I::I32Add, I::LocalSet(place[1])]);
        if z > 1 {
            self.all([I::LocalGet(place[1]), I::I32Const(y as i32), I::I32Eq]);
            self.open(I::If);
            self.all([I::I32Const(0), I::LocalSet(place[1])]);
            self.all([I::LocalGet(place[2]), I::I32Const(1), I::I32Add, I::LocalSet(place[2])]);
            self.close();
        }
        self.close();
    }

    /// Values that a segment uses and others have computed.
    fn foreign(&self, segment: &Segment<'k>) -> Vec<ValueId> {
        let mut seen = HashSet::new();
        let mut list = Vec::new();
        let own = self.quad.as_ref().map(|quad| &quad.classes.own);
        each_step(segment.steps.iter().copied(), &mut |step| {
            let mut visit = |value: ValueId| {
                if !own.is_some_and(|own| own.contains_key(&value)) && seen.insert(value) {
                    list.push(value);
                }
            };
            step.operands(&mut visit);
            if let Stmt::Let(value) = step {
                self.kernel.value(*value).op.operands(&mut visit);
            }
        });
        list
    }

    pub(super) fn mask(&self) -> Option<Local> {
        self.quad.as_ref().and_then(|quad| quad.mask)
    }

    fn set_mask(&mut self, mask: Option<Local>) {
        if let Some(quad) = &mut self.quad {
            quad.mask = mask;
        }
    }

    pub(super) fn hold(&mut self, value: ValueId, held: Held) {
        if let Some(quad) = &mut self.quad {
            quad.held.insert(value, held);
        }
    }

    pub(super) fn held(&self, value: ValueId) -> Option<Held> {
        self.quad.as_ref().and_then(|quad| quad.held.get(&value).copied())
    }

    /// The numbers of the four lanes.
    pub(super) fn numbers(&mut self) {
        let first = self.quad.as_ref().map_or(0, |quad| quad.first);
        self.all([I::LocalGet(first), I::I32x4Splat, words([0, 1, 2, 3]), I::I32x4Add]);
    }

    /// The address of the four lanes' words in an array of scratch with one word a lane, but for the array's place.
    pub(super) fn lane_address(&mut self) {
        let first = self.quad.as_ref().map_or(0, |quad| quad.first);
        self.all([I::LocalGet(self.scratch), I::LocalGet(first), I::I32Const(4), I::I32Mul, I::I32Add]);
    }

    /// A mask that can be narrowed; the lanes that take part.
    fn narrowable(&mut self) -> Local {
        let local = self.local(ValType::V128);
        match self.mask() {
            Some(mask) => self.get(mask),
            None => self.push(words(ALL)),
        }
        self.push(I::LocalSet(local));
        self.set_mask(Some(local));
        local
    }

    fn steps(&mut self, steps: &[&'k Stmt], ends: &HashSet<Label>, shares: &Shares) {
        self.find_packs(steps);
        let list = self.begin_list();
        let mut stored = 0;
        for (at, step) in steps.iter().enumerate() {
            if at < stored {
                continue;
            }
            if let Some(count) = self.store_pack(&steps[at..]) {
                stored = at + count;
                self.cut(list);
                continue;
            }
            let narrows = self.step(step, ends, shares);
            self.cut(list);
            if narrows && at + 1 < steps.len() {
                // Some lanes are gone. The rest of the steps is for those that are not, if there are any.
                if let Some(mask) = self.mask() {
                    self.all([I::LocalGet(mask), I::V128AnyTrue]);
                    self.open(I::If);
                    self.steps(&steps[at + 1..], ends, shares);
                    self.close();
                    return;
                }
            }
        }
    }

    /// Does steps without control.
    pub(super) fn straight(&mut self, steps: &[&'k Stmt], shares: &Shares) {
        let mut rest = steps;
        while let [step, behind @ ..] = rest {
            rest = match self.store_pack(rest) {
                Some(count) => &rest[count..],
                None => {
                    self.step(step, &HashSet::new(), shares);
                    behind
                }
            };
        }
    }

    /// Does a step; whether lanes that were there before it may be missing behind it.
    fn step(&mut self, step: &'k Stmt, ends: &HashSet<Label>, shares: &Shares) -> bool {
        match step {
            Stmt::Let(value) => {
                self.compute(*value);
                self.share(shares, *value);
            }
            Stmt::Set(register, value) => self.set(*register, *value),
            Stmt::Store { memory, address, offset, value, .. } => self.store(*memory, *address, *offset, *value),
            Stmt::Atomic { found, .. } => {
                self.atomic(step);
                if let Some(found) = found {
                    self.share(shares, *found);
                }
            }
            Stmt::Across { what, found } => {
                self.across(*what, *found);
                self.share(shares, *found);
            }
            Stmt::If { condition, accept, reject } => return self.branch_lanes(*condition, accept, reject, ends, shares),
            Stmt::Block { label, body } => return self.block(*label, body, ends, shares),
            Stmt::Loop { label, body } => return self.repeat(*label, body, ends, shares),
            Stmt::Exit(label) | Stmt::Repeat(label) => return self.leave(*label, matches!(step, Stmt::Repeat(_)), ends),
            Stmt::Barrier { .. } => {}
        }
        false
    }

    /// Looks at the others of a subgroup, which are these four lanes.
    fn across(&mut self, what: Across, found: ValueId) {
        match (what, self.mask()) {
            (Across::Here, None) => self.push(words([0b1111; 4])),
            (Across::Here, Some(mask)) => self.all([I::LocalGet(mask), I::I32x4Bitmask, I::I32x4Splat]),
            (Across::Of(value, place), _) => {
                self.vector(value);
                let all = self.keep(ValType::V128);
                let bytes = std::array::from_fn(|byte| 4 * place + byte as u8 % 4);
                self.all([I::LocalGet(all), I::LocalGet(all), I::I8x16Shuffle(bytes)]);
            }
        }
        let local = self.keep(ValType::V128);
        self.hold(found, Held::Vector(local));
    }

    /// Computes a value, unless the workgroup has it.
    fn compute(&mut self, value: ValueId) {
        match self.class(value) {
            Class::Group { .. } => {}
            // It came with its neighbours, or they come with it.
            _ if self.held(value).is_some() || self.load_pack(value) => {}
            Class::Scalar | Class::Affine(_) => {
                self.scalar_op(value);
                let local = self.keep(scalar_type(self.scalar_of(value)));
                self.hold(value, Held::Scalar(local));
            }
            Class::Checked(step) => self.checked_op(value, step),
            Class::Vector => {
                self.vector_op(value);
                let local = self.keep(ValType::V128);
                self.hold(value, Held::Vector(local));
            }
        }
    }

    fn set(&mut self, register: RegisterId, value: ValueId) {
        let local = self.registers[register.0 as usize];
        if self.shapes.registers[register.0 as usize] == Shape::Uniform {
            if self.class(value) == Class::Vector {
                self.vector(value);
                self.first_lane(self.scalar_of(value));
            } else {
                self.scalar(value);
            }
            return self.push(I::LocalSet(local));
        }
        self.vector(value);
        if let Some(mask) = self.mask()
            && !self.shapes.is_set_by_all(register)
        {
            self.all([I::LocalGet(local), I::LocalGet(mask), I::V128Bitselect]);
        }
        self.push(I::LocalSet(local));
    }

    fn branch_lanes(&mut self, condition: ValueId, accept: &'k [Stmt], reject: &'k [Stmt], ends: &HashSet<Label>, shares: &Shares) -> bool {
        let sides = [accept, reject].map(|side| side.iter().collect::<Vec<&'k Stmt>>());
        let escapes = sides.iter().flatten().any(|step| self.escapes(step, ends));
        if !self.parts(condition) {
            if escapes {
                self.narrowable_here();
            }
            self.scalar(condition);
            self.open(I::If);
            self.steps(&sides[0], ends, shares);
            if !reject.is_empty() {
                self.push(I::Else);
                self.steps(&sides[1], ends, shares);
            }
            self.close();
            return escapes;
        }
        let outside = self.mask();
        self.vector(condition);
        let holds = self.keep(ValType::V128);
        let mut masks = [0; 2];
        for (mask, is_reject) in masks.iter_mut().zip([false, true]) {
            match (outside, is_reject) {
                (Some(outside), false) => self.all([I::LocalGet(outside), I::LocalGet(holds), I::V128And]),
                (Some(outside), true) => self.all([I::LocalGet(outside), I::LocalGet(holds), I::V128AndNot]),
                (None, false) => self.get(holds),
                (None, true) => self.all([I::LocalGet(holds), I::V128Not]),
            }
            *mask = self.keep(ValType::V128);
        }
        for (side, mask) in sides.iter().zip(masks) {
            if side.is_empty() {
                continue;
            }
            self.set_mask(Some(mask));
            if self.is_for_nobody(side) {
                self.steps(side, ends, shares);
                continue;
            }
            self.all([I::LocalGet(mask), I::V128AnyTrue]);
            self.open(I::If);
            self.steps(side, ends, shares);
            self.close();
        }
        self.set_mask(outside);
        if escapes {
            let narrowed = match outside {
                Some(outside) => outside,
                None => self.narrowable(),
            };
            self.all([I::LocalGet(masks[0]), I::LocalGet(masks[1]), I::V128Or, I::LocalSet(narrowed)]);
        }
        escapes
    }

    /// Whether steps may be done where nobody takes them: they are few, and change nothing but registers of each lane. A branch around them would
    /// take longer, most of all to compile.
    fn is_for_nobody(&self, steps: &[&Stmt]) -> bool {
        let is_quiet = |step: &&Stmt| match step {
            Stmt::Let(value) => match self.kernel.value(*value).op {
                Op::Load { .. } | Op::Unary(Unary::Uniform, _) => false,
                Op::Binary(kind, ..) => !matches!(kind, Binary::DivI | Binary::DivU | Binary::RemI | Binary::RemU),
                _ => true,
            },
            Stmt::Set(register, _) => self.shapes.registers[register.0 as usize] != Shape::Uniform,
            _ => false,
        };
        steps.len() <= QUIET_MAX && steps.iter().all(is_quiet)
    }

    /// From here on the mask is a local that can be narrowed in place.
    fn narrowable_here(&mut self) {
        if self.mask().is_none() {
            self.narrowable();
        }
    }

    fn block(&mut self, label: Label, body: &'k [Stmt], ends: &HashSet<Label>, shares: &Shares) -> bool {
        let steps: Vec<&'k Stmt> = body.iter().collect();
        let escapes = body.iter().any(|step| self.escapes_from(step, ends, &HashSet::from([label])));
        let outside = self.mask();
        let gone = self.is_parting(label, body).then(|| {
            if outside.is_none() {
                self.narrowable();
            }
            self.nobody()
        });
        if escapes {
            self.narrowable_here();
        }
        let depth = self.open(I::Block);
        self.targets.insert(label, Target { depth, gone });
        self.steps(&steps, ends, shares);
        self.close();
        self.rejoin(gone, outside, escapes);
        escapes
    }

    fn nobody(&mut self) -> Local {
        let gone = self.local(ValType::V128);
        self.all([words(NONE), I::LocalSet(gone)]);
        gone
    }

    /// Lanes that waited come back.
    fn rejoin(&mut self, gone: Option<Local>, outside: Option<Local>, escapes: bool) {
        if let (Some(gone), Some(mask)) = (gone, self.mask()) {
            self.all([I::LocalGet(mask), I::LocalGet(gone), I::V128Or, I::LocalSet(mask)]);
        }
        if !escapes && outside.is_none() {
            self.set_mask(None);
        }
    }

    fn repeat(&mut self, label: Label, body: &'k [Stmt], ends: &HashSet<Label>, shares: &Shares) -> bool {
        let steps: Vec<&'k Stmt> = body.iter().collect();
        let escapes = body.iter().any(|step| self.escapes_from(step, ends, &HashSet::from([label])));
        let outside = self.mask();
        let is_parting = self.is_parting(label, body);
        if (is_parting || escapes) && outside.is_none() {
            self.narrowable();
        }
        // Who repeats, and who is through.
        let waiting = is_parting.then(|| (self.nobody(), self.nobody()));
        let depth = self.open(I::Loop);
        self.targets.insert(label, Target { depth, gone: waiting.map(|(again, _)| again) });
        self.steps(&steps, ends, shares);
        if let (Some((again, through)), Some(mask)) = (waiting, self.mask()) {
            self.all([I::LocalGet(through), I::LocalGet(mask), I::V128Or, I::LocalSet(through)]);
            self.all([I::LocalGet(again), I::LocalSet(mask), words(NONE), I::LocalSet(again)]);
            self.check_stop();
            self.all([I::LocalGet(mask), I::V128AnyTrue]);
            self.branch_if(depth);
        }
        self.close();
        if let (Some((_, through)), Some(mask)) = (waiting, self.mask()) {
            self.all([I::LocalGet(through), I::LocalSet(mask)]);
        }
        if !escapes && outside.is_none() {
            self.set_mask(None);
        }
        escapes
    }

    pub(super) fn leave(&mut self, label: Label, is_repeat: bool, ends: &HashSet<Label>) -> bool {
        if is_repeat && self.targets.get(&label).is_some_and(|target| target.gone.is_none()) {
            self.check_stop();
        }
        if self.is_segment_end(ends, label) {
            match self.mask() {
                Some(mask) => self.all([words(NONE), I::LocalSet(mask)]),
                None => {
                    let end = self.quad.as_ref().map_or(0, |quad| quad.end);
                    self.branch(end);
                }
            }
            return true;
        }
        let Some(&Target { depth, gone }) = self.targets.get(&label) else { return false };
        match (gone, self.mask()) {
            (Some(gone), Some(mask)) => {
                self.all([I::LocalGet(gone), I::LocalGet(mask), I::V128Or, I::LocalSet(gone)]);
                self.all([words(NONE), I::LocalSet(mask)]);
            }
            _ => self.branch(depth),
        }
        true
    }

    /// Whether a condition may differ between the four lanes.
    fn parts(&self, condition: ValueId) -> bool {
        self.class(condition).step() != Some(0)
    }

    /// Whether lanes leave a block, or repeat a loop, one by one.
    fn is_parting(&self, label: Label, body: &[Stmt]) -> bool {
        fn find(emitter: &Emitter<'_>, label: Label, steps: &[Stmt], apart: bool) -> bool {
            steps.iter().any(|step| match step {
                Stmt::Exit(to) | Stmt::Repeat(to) => apart && *to == label,
                Stmt::If { condition, accept, reject } => {
                    let apart = apart || emitter.parts(*condition);
                    find(emitter, label, accept, apart) || find(emitter, label, reject, apart)
                }
                // Where some lanes wait inside, a branch would leave them behind.
                Stmt::Block { label: inner, body } | Stmt::Loop { label: inner, body } => {
                    let apart = apart || emitter.is_parting(*inner, body);
                    find(emitter, label, body, apart)
                }
                _ => false,
            })
        }
        find(self, label, body, false)
    }

    /// Whether a step takes some lanes, but not always all, out of itself.
    fn escapes(&self, step: &Stmt, ends: &HashSet<Label>) -> bool {
        self.escapes_from(step, ends, &HashSet::new())
    }

    fn escapes_from(&self, step: &Stmt, ends: &HashSet<Label>, inside: &HashSet<Label>) -> bool {
        match step {
            Stmt::Exit(label) | Stmt::Repeat(label) => {
                !inside.contains(label) && (ends.contains(label) || self.targets.get(label).is_some_and(|target| target.gone.is_some()))
            }
            Stmt::Block { label, body } | Stmt::Loop { label, body } => {
                let mut inside = inside.clone();
                inside.insert(*label);
                body.iter().any(|step| self.escapes_from(step, ends, &inside))
            }
            other => other.nested().flatten().any(|step| self.escapes_from(step, ends, inside)),
        }
    }
}

/// Quads, by their numbers.
pub(super) struct Range {
    pub(super) from: Local,
    pub(super) to: Local,
    /// They begin and end where rows do.
    pub(super) are_whole_rows: bool,
    /// The last one may not be full.
    pub(super) is_partial: bool,
    pub(super) corner: Corner,
}

/// Which of the quads of a range are meant, by the lanes along each axis where another form goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Corner {
    /// All of them.
    Nowhere,
    /// Those in the corner at the first lane; of the lanes along x, only so many as go together.
    Only([Local; 3]),
    /// The others.
    Without([Local; 3]),
}

/// The registers that a segment reads or writes.
pub(super) fn touched(emitter: &Emitter<'_>, segment: &Segment<'_>) -> Vec<RegisterId> {
    let mut registers = Vec::new();
    each_step(segment.steps.iter().copied(), &mut |step| {
        let register = match step {
            Stmt::Set(register, _) => Some(*register),
            Stmt::Let(value) => match emitter.kernel.value(*value).op {
                Op::Get(register) => Some(register),
                _ => None,
            },
            _ => None,
        };
        if let Some(register) = register.filter(|register| !registers.contains(register)) {
            registers.push(register);
        }
    });
    registers
}
