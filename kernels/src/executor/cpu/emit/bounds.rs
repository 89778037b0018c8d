//! How far along each axis of a workgroup the comparisons hold that a fast form takes for granted.
//!
//! ```text
//!   x ───►  limit
//! y  ┌───────┬──┐
//! │  │ fast  │  │    the box: whole quads, or pairs of them, for which all of them hold
//! ▼  │       │  │    the rest is for the general form, quad by quad
//!    ├───────┘  │
//!    └──────────┘
//! ```
//!
//! A grid that workgroups do not divide ends within one in each row and column, and so does the interior of every tile: with one answer for
//! the whole workgroup, an eighth of a tile of 256 x 256 would be for the general form, which takes several times as long.

use wasm_encoder::{Instruction as I, ValType};

use super::super::ir::{Binary, Input, Op, Stmt, ValueId};
use super::class::{Assumption, Class, Classes};
use super::code::{Emitter, Local};
use super::plan::{Segment, each_step};

/// How many lanes along each axis are told apart from the rest, and by what.
#[derive(Default)]
pub(super) struct Bounds {
    /// Lanes, where they are not all there are.
    pub(super) active: [Option<Local>; 3],
    /// The comparisons that hold for these.
    pub(super) by: Vec<ValueId>,
}

/// A comparison that has to hold: `left < right`, or `left <= right`.
pub(super) struct Order {
    pub(super) left: ValueId,
    pub(super) right: ValueId,
    pub(super) is_strict: bool,
    pub(super) is_signed: bool,
}

impl<'k> Emitter<'k> {
    /// What has to hold for a comparison to come out like that; nothing if it is none.
    pub(super) fn order(&self, value: ValueId, outcome: bool) -> Option<Order> {
        let Op::Binary(kind, a, b) = self.kernel.value(value).op else { return None };
        let is_strict = matches!(kind, Binary::LtU | Binary::LtI);
        let is_signed = matches!(kind, Binary::LtI | Binary::LeI);
        // Not (a < b) is b <= a.
        let (left, right, is_strict) = if outcome { (a, b, is_strict) } else { (b, a, !is_strict) };
        matches!(kind, Binary::LtU | Binary::LeU | Binary::LtI | Binary::LeI).then_some(Order { left, right, is_strict, is_signed })
    }

    /// How many lanes along each axis the comparisons of a form hold for that grow by one from lane to lane along it.
    ///
    /// Where lanes see each other's order, there are none: the rest of them would come after all that are in the box.
    pub(super) fn bounds(&mut self, segment: &Segment<'k>, fast: &Classes) -> Bounds {
        let mut bounds = Bounds::default();
        if !self.sees_no_order(segment) {
            return bounds;
        }
        for assumption in &fast.assumptions {
            let Assumption::Holds(value, outcome) = *assumption else { continue };
            let Some(order) = self.order(value, outcome) else { continue };
            let steps = |value: ValueId| match fast.own.get(&value).copied().unwrap_or_else(|| self.class(value)) {
                Class::Group { steps, .. } => Some(steps),
                _ => None,
            };
            let axis = match (steps(order.left), steps(order.right)) {
                (Some([1, 0, 0]), Some([0, 0, 0])) => 0,
                (Some([0, 1, 0]), Some([0, 0, 0])) => 1,
                (Some([0, 0, 1]), Some([0, 0, 0])) => 2,
                _ => continue,
            };
            let lanes = self.lanes_in_order(&order, self.lanes.workgroup[axis]);
            if let Some(others) = bounds.active[axis] {
                self.all([
                    I::LocalGet(lanes),
                    I::LocalGet(others),
                    I::LocalGet(lanes),
                    I::LocalGet(others),
                    I::I32LtS,
                    I::Select,
                    I::LocalSet(lanes),
                ]);
            }
            bounds.active[axis] = Some(lanes);
            bounds.by.push(value);
        }
        bounds
    }

    /// Whether lanes of a segment may go in any order, row by row.
    pub(super) fn sees_no_order(&self, segment: &Segment<'k>) -> bool {
        let mut is_seen = false;
        each_step(segment.steps.iter().copied(), &mut |step| is_seen |= matches!(step, Stmt::Atomic { .. } | Stmt::Across { .. }));
        self.lanes.has_rows && !is_seen
    }

    /// Whether an assumption may hold for all lanes of a workgroup: not if it is of their own numbers and known to be false.
    pub(super) fn may_hold(&self, assumption: Assumption) -> bool {
        let Assumption::Holds(value, outcome) = assumption else { return true };
        let Some(order) = self.order(value, outcome) else { return true };
        let range = |value: ValueId| match self.kernel.value(value).op {
            Op::Const(bits) => Some([i64::from(bits); 2]),
            Op::Input(input @ (Input::LocalId(_) | Input::LocalIndex)) => match self.lanes.input(input) {
                Class::Group { steps, .. } => {
                    let most = steps.into_iter().zip(self.lanes.extents()).map(|(step, extent)| i64::from(step) * (i64::from(extent) - 1));
                    Some([0, most.sum()])
                }
                _ => None,
            },
            _ => None,
        };
        let (Some([_, most]), Some([least, _])) = (range(order.left), range(order.right)) else { return true };
        order.is_signed || most < least || (most == least && !order.is_strict)
    }

    /// For how many of `extent` lanes a comparison holds whose left side grows by one from lane to lane.
    ///
    /// Up to there it stays below the right side, so it does not wrap.
    fn lanes_in_order(&mut self, order: &Order, extent: u32) -> Local {
        let widened = if order.is_signed { I::I64ExtendI32S } else { I::I64ExtendI32U };
        self.scalar(order.right);
        self.push(widened.clone());
        self.scalar(order.left);
        self.all([widened, I::I64Sub]);
        if !order.is_strict {
            self.all([I::I64Const(1), I::I64Add]);
        }
        self.clamped(i64::from(extent))
    }

    /// Takes an i64 from the stack: at least 0, at most `most`, as an i32.
    pub(super) fn clamped(&mut self, most: i64) -> Local {
        let lanes = self.keep(ValType::I64);
        self.all([I::LocalGet(lanes), I::I64Const(0), I::LocalGet(lanes), I::I64Const(0), I::I64GtS, I::Select, I::LocalSet(lanes)]);
        self.all([I::LocalGet(lanes), I::I64Const(most), I::LocalGet(lanes), I::I64Const(most), I::I64LtS, I::Select, I::I32WrapI64]);
        self.keep(ValType::I32)
    }

    /// Goes to the first quad of a corner, or to `done` if there is none: `together` lanes at once along x.
    pub(super) fn begin_corner(&mut self, limits: [Local; 3], place: [Local; 3], together: i32, done: u32) {
        self.all([I::LocalGet(limits[0]), I::I32Const(-together), I::I32And, I::LocalTee(limits[0]), I::I32Eqz]);
        for limit in &limits[1..] {
            self.all([I::LocalGet(*limit), I::I32Eqz, I::I32Or]);
        }
        self.branch_if(done);
        place.iter().for_each(|local| self.all([I::I32Const(0), I::LocalSet(*local)]));
    }

    /// The number of the lane at a place.
    pub(super) fn number_of_place(&mut self, place: [Local; 3], number: Local) {
        let [x, y, _] = self.lanes.workgroup;
        self.all([I::LocalGet(place[2]), I::I32Const(y as i32), I::I32Mul, I::LocalGet(place[1]), I::I32Add]);
        self.all([I::I32Const(x as i32), I::I32Mul, I::LocalGet(place[0]), I::I32Add, I::LocalSet(number)]);
    }

    /// Goes to the next quad of a corner, if there is one.
    pub(super) fn step_in_corner(&mut self, limits: [Local; 3], place: [Local; 3], together: i32, again: u32) {
        let steps = [together, 1, 1];
        for axis in 0..3 {
            let (place, limit) = (place[axis], limits[axis]);
            self.all([I::LocalGet(place), I::I32Const(steps[axis]), I::I32Add, I::LocalTee(place), I::LocalGet(limit), I::I32LtU]);
            self.branch_if(again);
            self.all([I::I32Const(0), I::LocalSet(place)]);
        }
    }

    /// Pushes whether a place is in a corner.
    pub(super) fn within_corner(&mut self, limits: [Local; 3], place: [Local; 3]) {
        self.int(1);
        for (place, limit) in place.into_iter().zip(limits) {
            self.all([I::LocalGet(place), I::LocalGet(limit), I::I32LtU, I::I32And]);
        }
    }
}
