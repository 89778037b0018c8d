//! Two quads of a row that go through a segment together, so that what is the same for both is computed once.
//!
//! ```text
//! for each octave          a loop that the whole workgroup goes round together
//!     first quad           what is the same along the row, then what is its own
//!     second quad          its own, with what the first one has
//! ```
//!
//! Quad by quad, a loop inside a segment computes for every four lanes what a row, or the workgroup, shares: what the height of
//! noise needs of `y` is a third of the work, and so is a body that all others are told of. Control stands around
//! both, once; between two steps of control the first quad goes ahead of the second, so few values are alive at once.
//!
//! Invariants: nobody is missing from either quad and all their control is common, so no masks; of lanes that touch each
//! other's words without a barrier, as always, nothing is promised; atomics and subgroups, where order is seen, stay alone.

use std::collections::{HashMap, HashSet};

use wasm_encoder::{Instruction as I, ValType};

use super::super::ir::{Label, Op, RegisterId, Stmt, ValueId};
use super::super::shape::Shape;
use super::class::Class;
use super::code::{Emitter, Held, Local, Target};
use super::group::Shares;
use super::lanes::touched;
use super::plan::{Segment, each_step};

/// What the quad whose turn it is not has for itself.
pub(super) struct Twin {
    held: HashMap<ValueId, Held>,
    place: [Local; 3],
    first: Local,
    registers: Vec<Local>,
    /// Whether its place is the one in progress.
    is_second: bool,
}

/// Shared values in loops that two quads are worth.
const SHARED_MIN: usize = 2;
/// Values of a segment whose code may be there twice.
const VALUES_MAX: usize = 1 << 9;

impl<'k> Emitter<'k> {
    /// Whether whole rows of quads can go two by two, and whether it is worth it.
    pub(super) fn is_paired(&self, segment: &Segment<'k>) -> bool {
        let mut values = 0;
        each_step(segment.steps.iter().copied(), &mut |step| values += usize::from(matches!(step, Stmt::Let(_))));
        let fits = self.lanes.has_rows && self.lanes.workgroup[0].is_multiple_of(8) && values <= VALUES_MAX;
        fits && segment.steps.iter().all(|step| self.goes_together(step)) && self.shared_in_loops(segment.steps.iter().copied(), false) >= SHARED_MIN
    }

    /// Whether all control in a step is common to both quads.
    fn goes_together(&self, step: &Stmt) -> bool {
        let is_common = match step {
            Stmt::If { condition, .. } => self.is_common(*condition),
            Stmt::Atomic { .. } | Stmt::Across { .. } => false,
            _ => true,
        };
        is_common && step.nested().flatten().all(|step| self.goes_together(step))
    }

    /// Whether a value is the same in both quads.
    fn is_common(&self, value: ValueId) -> bool {
        match (self.class(value), self.kernel.value(value).op) {
            // Such as a condition that is taken for granted.
            (Class::Group { steps: [0, 0, 0], .. }, _) => true,
            // Read by the first quad, before it sets what both have.
            (_, Op::Get(register)) => self.is_common_register(register),
            _ => is_of_row(self.shapes.values[value.0 as usize]),
        }
    }

    fn is_common_register(&self, register: RegisterId) -> bool {
        is_of_row(self.shapes.registers[register.0 as usize])
    }

    /// How many values in loops one quad computes for both.
    fn shared_in_loops<'s>(&self, steps: impl Iterator<Item = &'s Stmt>, is_loop: bool) -> usize {
        let count = steps.map(|step| match step {
            Stmt::Let(value) => {
                let is_computed = !matches!(self.class(*value), Class::Group { .. }) && !matches!(self.kernel.value(*value).op, Op::Get(_));
                usize::from(is_loop && is_computed && self.is_common(*value))
            }
            step => step.nested().map(|steps| self.shared_in_loops(steps.iter(), is_loop || matches!(step, Stmt::Loop { .. }))).sum(),
        });
        count.sum()
    }

    /// Leaves the second quad's registers where other segments find them.
    pub(super) fn end_pair(&mut self, written: &[bool]) {
        if let Some(twin) = self.twin.take() {
            self.end_quad(twin.first, &twin.registers, written);
        }
    }

    /// Begins the second of two quads, the one after that in progress.
    pub(super) fn begin_pair(&mut self, segment: &Segment<'k>) {
        let Some(quad) = &self.quad else { return };
        let (first, place) = (quad.first, quad.place);
        let [first, x] = [first, place[0]].map(|local| {
            self.all([I::LocalGet(local), I::I32Const(4), I::I32Add]);
            self.keep(ValType::I32)
        });
        let mut registers = self.registers.clone();
        for register in touched(self, segment) {
            if !self.is_common_register(register) {
                registers[register.0 as usize] = self.local(ValType::V128);
            }
        }
        self.twin = Some(Twin { held: HashMap::new(), place: [x, place[1], place[2]], first, registers, is_second: false });
        self.switch();
        self.take_up(segment);
        self.switch();
    }

    /// It is the other quad's turn.
    fn switch(&mut self) {
        if let (Some(twin), Some(quad)) = (&mut self.twin, &mut self.quad) {
            std::mem::swap(&mut twin.held, &mut quad.held);
            std::mem::swap(&mut twin.place, &mut quad.place);
            std::mem::swap(&mut twin.first, &mut quad.first);
            std::mem::swap(&mut twin.registers, &mut self.registers);
            twin.is_second = !twin.is_second;
        }
    }

    /// Whether it is the second quad's turn, four lanes on.
    pub(super) fn is_second(&self) -> bool {
        self.twin.as_ref().is_some_and(|twin| twin.is_second)
    }

    /// Does a list of steps with both quads.
    pub(super) fn steps_of_pair(&mut self, steps: &[&'k Stmt], ends: &HashSet<Label>, shares: &Shares) {
        self.find_packs(steps);
        let is_control = |step: &&Stmt| !matches!(step, Stmt::Let(_) | Stmt::Set(..) | Stmt::Store { .. } | Stmt::Barrier { .. });
        for run in steps.chunk_by(|before, step| !is_control(before) && !is_control(step)) {
            if let [step] = *run
                && is_control(&step)
            {
                self.control_of_pair(step, ends, shares);
                continue;
            }
            self.straight(run, shares);
            self.switch();
            self.straight_of_second(run, shares);
            self.switch();
        }
    }

    fn control_of_pair(&mut self, step: &'k Stmt, ends: &HashSet<Label>, shares: &Shares) {
        let list = |steps: &'k [Stmt]| steps.iter().collect::<Vec<_>>();
        match step {
            Stmt::If { condition, accept, reject } => {
                self.scalar(*condition);
                self.open(I::If);
                self.steps_of_pair(&list(accept), ends, shares);
                if !reject.is_empty() {
                    self.push(I::Else);
                    self.steps_of_pair(&list(reject), ends, shares);
                }
                self.close();
            }
            Stmt::Block { label, body } | Stmt::Loop { label, body } => {
                let depth = self.open(if matches!(step, Stmt::Loop { .. }) { I::Loop } else { I::Block });
                self.targets.insert(*label, Target { depth, gone: None });
                self.steps_of_pair(&list(body), ends, shares);
                self.close();
            }
            Stmt::Exit(label) | Stmt::Repeat(label) => drop(self.leave(*label, matches!(step, Stmt::Repeat(_)), ends)),
            _ => unreachable!("only control stands around two quads"),
        }
    }

    /// Steps without control, of the second quad: with what the first has already.
    fn straight_of_second(&mut self, steps: &[&'k Stmt], shares: &Shares) {
        for step in steps {
            let Stmt::Let(value) = step else { continue };
            let held = self.twin.as_ref().and_then(|twin| twin.held.get(value).copied());
            if let Some(held) = held.filter(|_| self.is_common(*value)) {
                self.hold(*value, held);
            }
        }
        self.straight(steps, shares);
    }
}

/// The same for all lanes of a row.
fn is_of_row(shape: Shape) -> bool {
    matches!(shape, Shape::Uniform | Shape::Row(0))
}
