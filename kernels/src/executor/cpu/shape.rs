//! How the lanes of a value differ: what need not be computed, loaded or decided once per invocation.
//!
//! Lanes of a workgroup are in order of `local_invocation_index`, x fastest. A *row* is `workgroup[0]`
//! consecutive lanes where four divide that, else it is the whole workgroup.
//!
//! ```text
//!            Varying
//!           /       \
//!   Checked(s)     Row(0)        Row(s): the word grows by s (wrapping) from lane to lane of a row
//!       |              |         Checked(s): so it does where one Index of the way left all lanes as they were
//!   Row(s), s ≠ 0   Uniform      Uniform: the same in the workgroup; with one row, Row(0) is Uniform
//! ```
//!
//! A claim is about the lanes that compute the value at one time, all going through the kernel in lockstep:
//! around a loop, those of one iteration. Lanes that have gone another way claim nothing, and neither do those
//! that will not look again: a counter that is only used behind an early return is uniform for those that
//! stayed. So a register is judged within the innermost steps that hold all of its uses (its *home*), and
//! whoever leaves these is nobody's concern.
//!
//! Two loads are uniform by the kernel's word rather than by proof: of workgroup memory at one address (lanes
//! that write it meanwhile race), and of a binding that this kernel never writes. A load of a binding that it does
//! write is Varying even at one address: other workgroups may write it between two lanes' turns, so control must
//! not rely on it.
//!
//! Invariant: a fixpoint of monotone rules; the least one, so registers around loops are as uniform as they can be,
//! unless it takes more than a fixed number of looks at the kernel.

use super::ir::{Binary, Count, Input, Kernel, Label, Memory, Op, RegisterId, Stmt, Unary, ValueId};

/// How the lanes of a value differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The same in all lanes of the workgroup.
    Uniform,
    /// Within a row, the word grows by this from lane to lane, wrapping; 0 is the same in each row.
    Row(i32),
    /// A [`Shape::Row`] wherever the index that it is made of is within its count in all lanes of the row.
    Checked(i32),
    /// Anything.
    Varying,
}

/// How the invocations that get somewhere at a time differ from those that got to the start of what holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// All of them.
    All,
    /// Of each row, all or none.
    Rows,
    /// Any of them.
    Some,
}

/// An index on the way to a [`Shape::Checked`] value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// What is asked for: the operand of the [`Op::Index`]; a row of it grows by `step`.
    pub index: ValueId,
    /// What it must stay below.
    pub count: Count,
    /// From lane to lane.
    pub step: u32,
    /// What the value grows by where the index grows by one.
    pub multiplier: u32,
}

/// What is known of a kernel's lanes.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// Per value.
    pub values: Vec<Shape>,
    /// Per register: of whatever it holds when it is read, as far as anyone reads it.
    pub registers: Vec<Shape>,
    /// Lanes of a row.
    pub row: u32,
    is_zero_seen: Vec<bool>,
    is_set_by_all: Vec<bool>,
    is_diverging: Vec<bool>,
}

impl Shapes {
    /// Whether a value is the same in all lanes.
    pub fn is_uniform(&self, value: ValueId) -> bool {
        self.values[value.0 as usize] == Shape::Uniform
    }

    /// The step of a value that is a row's as long as its index is within its count.
    pub fn affine_index(&self, value: ValueId) -> Option<i32> {
        match self.values[value.0 as usize] {
            Shape::Checked(step) => Some(step),
            _ => None,
        }
    }

    /// The index that a [`Shape::Checked`] value depends on. With `index` and `value` as they would be without the
    /// check, a lane's word is `value + multiplier * (min(index, count - 1) - index)`.
    pub fn root(&self, kernel: &Kernel, value: ValueId) -> Option<Root> {
        self.affine_index(value)?;
        let (mut value, mut multiplier) = (value, 1u32);
        loop {
            let is_checked = |value: ValueId| matches!(self.values[value.0 as usize], Shape::Checked(_));
            value = match kernel.value(value).op {
                Op::Index { index, count } => {
                    let Shape::Row(step) = self.values[index.0 as usize] else { return None };
                    return Some(Root { index, count, step: step as u32, multiplier });
                }
                Op::Unary(Unary::Bits, a) => a,
                Op::Binary(Binary::Add | Binary::Sub, a, b) => [a, b].into_iter().find(|&value| is_checked(value))?,
                Op::Binary(op, a, b) => {
                    let (checked, by) = scaled(kernel, op, a, b)?;
                    multiplier = multiplier.wrapping_mul(by);
                    checked
                }
                _ => return None,
            }
        }
    }

    /// Whether some invocations of those that entered a block or loop leave or repeat it while others do not.
    pub fn is_diverging(&self, label: Label) -> bool {
        self.is_diverging[label.0 as usize]
    }

    /// Whether a register may be read before it is written.
    pub fn is_zero_seen(&self, register: RegisterId) -> bool {
        self.is_zero_seen[register.0 as usize]
    }

    /// Whether everyone who will read a register is there at each step that writes it.
    pub fn is_set_by_all(&self, register: RegisterId) -> bool {
        self.is_set_by_all[register.0 as usize]
    }
}

/// The lanes of a row.
pub fn row(workgroup: [u32; 3]) -> u32 {
    if workgroup[0].is_multiple_of(4) { workgroup[0] } else { workgroup.iter().product() }
}

/// Finds out how lanes differ.
pub fn shapes(kernel: &Kernel) -> Shapes {
    let labels = labels(&kernel.body);
    let mut analysis = Analysis {
        kernel,
        shapes: Shapes {
            values: vec![Shape::Varying; kernel.values.len()],
            registers: Vec::new(),
            row: row(kernel.workgroup),
            is_zero_seen: zeros_seen(kernel, labels),
            is_set_by_all: vec![true; kernel.registers.len()],
            is_diverging: vec![false; labels],
        },
        registers: Vec::new(),
        written: written(kernel),
        homes: Vec::new(),
        scopes: Vec::new(),
        loops: vec![Around::default(); labels],
        is_changed: true,
        has_given_up: false,
    };
    analysis.begin();
    let mut looks = 0;
    while std::mem::take(&mut analysis.is_changed) {
        looks += 1;
        analysis.has_given_up |= looks > LOOKS_MAX;
        analysis.steps(&kernel.body);
    }
    let registers = analysis.registers.iter().map(|shape| shape.unwrap_or(Shape::Uniform));
    Shapes { registers: registers.collect(), ..analysis.shapes }
}

/// The most looks at a kernel. Registers that hand a value on, round by round of a loop, take one look each;
/// kernels that need so many are not worth more.
const LOOKS_MAX: usize = 64;

/// What one look at a loop tells the next.
#[derive(Clone, Default)]
struct Around {
    /// Who repeats it.
    repeats: Option<Level>,
    /// Who goes from inside to the ends of blocks around it: how many scopes are around such a block.
    leaves: Vec<(usize, Level)>,
}

/// Steps that are open.
struct Scope {
    label: Option<Label>,
    /// How those who are here differ from those who came to the start.
    level: Level,
}

struct Analysis<'k> {
    kernel: &'k Kernel,
    /// All but the registers.
    shapes: Shapes,
    /// What registers may hold; `None` where nothing is written yet.
    registers: Vec<Option<Shape>>,
    /// Per binding, whether this kernel writes it.
    written: Vec<bool>,
    /// Per register, how many scopes there are from the outermost to its home.
    homes: Vec<usize>,
    scopes: Vec<Scope>,
    /// By label.
    loops: Vec<Around>,
    is_changed: bool,
    /// Whether control is taken to differ everywhere, so that nothing is left to find out.
    has_given_up: bool,
}

impl Analysis<'_> {
    /// What no step computes, and registers.
    fn begin(&mut self) {
        for (index, value) in self.kernel.values.iter().enumerate() {
            if matches!(value.op, Op::Const(_) | Op::Input(_) | Op::Length(_)) {
                self.shapes.values[index] = self.shape(value.op);
            }
        }
        for (home, &is_zero_seen) in homes(self.kernel).into_iter().zip(&self.shapes.is_zero_seen) {
            // Whoever reads what is left from another time around may have had another way there.
            let is_carried = is_zero_seen && home.is_around_loop;
            self.homes.push(if is_carried { 0 } else { home.scopes.len() });
        }
        self.registers = self.shapes.is_zero_seen.iter().map(|&is_seen| is_seen.then_some(Shape::Uniform)).collect();
    }

    fn steps(&mut self, steps: &[Stmt]) {
        for step in steps {
            match step {
                Stmt::Let(value) => self.shapes.values[value.0 as usize] = self.shape(self.kernel.value(*value).op),
                Stmt::Set(register, value) => self.set(*register, *value),
                Stmt::If { condition, accept, reject } => {
                    let level = self.level(*condition);
                    self.scope(None, level, accept);
                    self.scope(None, level, reject);
                }
                Stmt::Block { label, body } => self.scope(Some(*label), Level::All, body),
                Stmt::Loop { label, body } => self.around(*label, body),
                Stmt::Exit(label) | Stmt::Repeat(label) => self.jump(*label),
                Stmt::Store { .. } | Stmt::Atomic { .. } | Stmt::Across { .. } | Stmt::Barrier { .. } => {}
            }
        }
    }

    fn scope(&mut self, label: Option<Label>, level: Level, steps: &[Stmt]) {
        self.scopes.push(Scope { label, level });
        self.steps(steps);
        self.scopes.pop();
    }

    /// A loop: who left or repeats it in one iteration is missing, or alone, from the start of the next.
    fn around(&mut self, label: Label, body: &[Stmt]) {
        let before: Vec<Level> = self.scopes.iter().map(|scope| scope.level).collect();
        let known = self.loops[label.0 as usize].clone();
        for (scope, level) in known.leaves {
            self.scopes[scope].level = self.scopes[scope].level.max(level);
        }
        self.scope(Some(label), known.repeats.unwrap_or(Level::All), body);
        let levels = self.scopes.iter().map(|scope| scope.level);
        let leaves: Vec<_> = levels.enumerate().filter(|&(scope, level)| level > before[scope]).collect();
        let known = &mut self.loops[label.0 as usize].leaves;
        self.is_changed |= *known != leaves;
        *known = leaves;
    }

    /// Some go to the end or the start of a block or loop.
    fn jump(&mut self, label: Label) {
        let Some(target) = self.scopes.iter().rposition(|scope| scope.label == Some(label)) else { return };
        let level = self.level_within(target + 1);
        if level > self.scopes[target].level {
            self.scopes[target].level = level;
        }
        let repeats = &mut self.loops[label.0 as usize].repeats;
        if Some(level) > *repeats {
            *repeats = Some(level);
            self.is_changed |= level > Level::All;
        }
        self.shapes.is_diverging[label.0 as usize] |= level > Level::All;
    }

    /// How those who are here differ from those who came to where so many scopes were open.
    fn level_within(&self, scopes: usize) -> Level {
        if self.has_given_up {
            return Level::Some;
        }
        self.scopes[scopes..].iter().map(|scope| scope.level).max().unwrap_or(Level::All)
    }

    /// How those who accept a condition differ from all.
    fn level(&self, condition: ValueId) -> Level {
        match self.shapes.values[condition.0 as usize] {
            Shape::Uniform => Level::All,
            Shape::Row(0) => Level::Rows,
            _ => Level::Some,
        }
    }

    fn set(&mut self, register: RegisterId, value: ValueId) {
        let level = self.level_within(self.homes[register.0 as usize]);
        let shape = match (self.shapes.values[value.0 as usize], level) {
            (Shape::Checked(_), _) | (_, Level::Some) => Shape::Varying,
            (Shape::Uniform, Level::Rows) => Shape::Row(0),
            (shape, _) => shape,
        };
        self.shapes.is_set_by_all[register.0 as usize] &= level == Level::All;
        let before = &mut self.registers[register.0 as usize];
        let joined = before.map_or(shape, |before| join(before, shape));
        self.is_changed |= *before != Some(joined);
        *before = Some(joined);
    }

    fn shape(&self, op: Op) -> Shape {
        let of = |value: ValueId| self.shapes.values[value.0 as usize];
        match op {
            Op::Const(_) | Op::Length(_) => Shape::Uniform,
            Op::Input(input) => self.input(input),
            Op::Get(register) => self.registers[register.0 as usize].unwrap_or(Shape::Uniform),
            Op::Unary(Unary::Uniform, _) => Shape::Uniform,
            Op::Unary(Unary::Bits, a) => of(a),
            Op::Unary(_, a) => of(a).as_operand(),
            Op::Binary(Binary::Add, a, b) => self.sum(of(a), of(b), 1),
            Op::Binary(Binary::Sub, a, b) => self.sum(of(a), of(b), -1),
            Op::Binary(op, a, b) => match scaled(self.kernel, op, a, b) {
                Some((a, by)) => self.product(of(a), by),
                None => join(of(a).as_operand(), of(b).as_operand()),
            },
            Op::Select { condition, accept, reject } => match (self.level(condition), of(accept), of(reject)) {
                (Level::All | Level::Rows, Shape::Row(s), Shape::Row(t)) if s == t => Shape::Row(s),
                (_, accept, reject) => [condition].map(of).into_iter().chain([accept, reject]).fold(Shape::Uniform, |a, b| join(a, b.as_operand())),
            },
            Op::Index { index, .. } => match of(index) {
                Shape::Row(step) if step != 0 => Shape::Checked(step),
                index => index.as_operand(),
            },
            Op::Load { memory, address, .. } => match memory {
                Memory::Private => Shape::Varying,
                Memory::Binding(binding) if self.written[binding as usize] => Shape::Varying,
                Memory::Binding(_) | Memory::Workgroup | Memory::Constant => of(address).as_operand(),
            },
            Op::Found => Shape::Varying,
        }
    }

    fn input(&self, input: Input) -> Shape {
        let extents = self.kernel.workgroup;
        let is_line = |axis: usize| extents[axis] == self.kernel.invocations();
        match input {
            Input::GroupId(_) | Input::Groups(_) => Shape::Uniform,
            Input::LocalId(axis) if extents[usize::from(axis)] == 1 => Shape::Uniform,
            Input::LocalId(axis) if is_line(usize::from(axis)) => Shape::Row(1),
            Input::LocalId(_) if self.shapes.row != extents[0] => Shape::Varying,
            Input::LocalId(0) => Shape::Row(1),
            Input::LocalId(_) => Shape::Row(0),
            Input::LocalIndex if self.kernel.invocations() == 1 => Shape::Uniform,
            Input::LocalIndex => Shape::Row(1),
        }
    }

    /// `a + sign * b`.
    fn sum(&self, a: Shape, b: Shape, sign: i32) -> Shape {
        match (a, b) {
            (Shape::Uniform, Shape::Uniform) => Shape::Uniform,
            (Shape::Checked(step), Shape::Uniform | Shape::Row(0)) => Shape::Checked(step),
            (Shape::Uniform | Shape::Row(0), Shape::Checked(step)) if sign == 1 => Shape::Checked(step),
            (Shape::Uniform | Shape::Row(_), Shape::Uniform | Shape::Row(_)) => self.stepping(a.step().wrapping_add(b.step().wrapping_mul(sign))),
            _ => Shape::Varying,
        }
    }

    fn product(&self, a: Shape, by: u32) -> Shape {
        match a {
            Shape::Uniform | Shape::Varying => a,
            Shape::Row(step) => self.stepping(step.wrapping_mul(by as i32)),
            Shape::Checked(step) => match step.wrapping_mul(by as i32) {
                0 => Shape::Varying,
                step => Shape::Checked(step),
            },
        }
    }

    fn stepping(&self, step: i32) -> Shape {
        let is_one_row = self.shapes.row == self.kernel.invocations();
        if step == 0 && is_one_row { Shape::Uniform } else { Shape::Row(step) }
    }
}

impl Shape {
    fn step(self) -> i32 {
        if let Shape::Row(step) = self { step } else { 0 }
    }

    /// What is left of it when an operator does anything to each lane.
    fn as_operand(self) -> Shape {
        match self {
            Shape::Uniform | Shape::Row(0) => self,
            _ => Shape::Varying,
        }
    }
}

/// What holds of a value that is either of two.
fn join(a: Shape, b: Shape) -> Shape {
    match (a, b) {
        _ if a == b => a,
        (Shape::Uniform, Shape::Row(0)) | (Shape::Row(0), Shape::Uniform) => Shape::Row(0),
        _ => Shape::Varying,
    }
}

/// The operand that is multiplied by a constant, and the constant.
fn scaled(kernel: &Kernel, op: Binary, a: ValueId, b: ValueId) -> Option<(ValueId, u32)> {
    match (op, kernel.value(a).op, kernel.value(b).op) {
        (Binary::Mul, _, Op::Const(by)) => Some((a, by)),
        (Binary::Mul, Op::Const(by), _) => Some((b, by)),
        (Binary::Shl, _, Op::Const(by)) => Some((a, 1 << (by & 31))),
        _ => None,
    }
}

/// One more than the greatest label.
fn labels(steps: &[Stmt]) -> usize {
    let of = |step: &Stmt| {
        let own = match step {
            Stmt::Block { label, .. } | Stmt::Loop { label, .. } | Stmt::Exit(label) | Stmt::Repeat(label) => label.0 as usize + 1,
            _ => 0,
        };
        step.nested().map(|steps| labels(steps)).fold(own, usize::max)
    };
    steps.iter().map(of).max().unwrap_or(0)
}

/// Per binding, whether a step writes it.
fn written(kernel: &Kernel) -> Vec<bool> {
    fn find(steps: &[Stmt], written: &mut [bool]) {
        for step in steps {
            if let Stmt::Store { memory: Memory::Binding(binding), .. } | Stmt::Atomic { memory: Memory::Binding(binding), .. } = step {
                written[*binding as usize] = true;
            }
            step.nested().for_each(|steps| find(steps, written));
        }
    }
    let mut written = vec![false; kernel.bindings.len()];
    find(&kernel.body, &mut written);
    written
}

/// The innermost steps that hold all uses of a register.
#[derive(Clone, Default)]
struct Home {
    is_used: bool,
    /// The scopes around them, by number.
    scopes: Vec<u32>,
    /// Whether one of those is a loop.
    is_around_loop: bool,
}

/// Per register.
fn homes(kernel: &Kernel) -> Vec<Home> {
    let mut finder = HomeFinder { kernel, homes: vec![Home::default(); kernel.registers.len()], scopes: Vec::new(), loops: Vec::new() };
    finder.steps(&kernel.body);
    for home in &mut finder.homes {
        home.is_around_loop = home.scopes.iter().any(|scope| finder.loops[*scope as usize]);
    }
    finder.homes
}

struct HomeFinder<'k> {
    kernel: &'k Kernel,
    homes: Vec<Home>,
    scopes: Vec<u32>,
    /// Per scope, whether it is a loop.
    loops: Vec<bool>,
}

impl HomeFinder<'_> {
    fn steps(&mut self, steps: &[Stmt]) {
        for step in steps {
            match step {
                Stmt::Set(register, _) => self.used(*register),
                Stmt::Let(value) => {
                    if let Op::Get(register) = self.kernel.value(*value).op {
                        self.used(register);
                    }
                }
                _ => {}
            }
            for steps in step.nested() {
                self.scopes.push(self.loops.len() as u32);
                self.loops.push(matches!(step, Stmt::Loop { .. }));
                self.steps(steps);
                self.scopes.pop();
            }
        }
    }

    fn used(&mut self, register: RegisterId) {
        let home = &mut self.homes[register.0 as usize];
        if std::mem::replace(&mut home.is_used, true) {
            let common = home.scopes.iter().zip(&self.scopes).take_while(|(a, b)| a == b).count();
            home.scopes.truncate(common);
        } else {
            home.scopes.clone_from(&self.scopes);
        }
    }
}

/// Per register, whether it may be read before it is written.
fn zeros_seen(kernel: &Kernel, labels: usize) -> Vec<bool> {
    let registers = kernel.registers.len();
    let mut zeros = Zeros { kernel, seen: vec![false; registers], exits: vec![None; labels] };
    zeros.steps(&kernel.body, &mut vec![false; registers]);
    zeros.seen
}

struct Zeros<'k> {
    kernel: &'k Kernel,
    seen: Vec<bool>,
    /// Per label, the registers that are written wherever someone leaves by it.
    exits: Vec<Option<Vec<bool>>>,
}

impl Zeros<'_> {
    /// Whether anybody gets to the end; `written` is then what is written there.
    fn steps(&mut self, steps: &[Stmt], written: &mut Vec<bool>) -> bool {
        for step in steps {
            let is_passed = match step {
                Stmt::Let(value) => {
                    if let Op::Get(register) = self.kernel.value(*value).op {
                        self.seen[register.0 as usize] |= !written[register.0 as usize];
                    }
                    true
                }
                Stmt::Set(register, _) => {
                    written[register.0 as usize] = true;
                    true
                }
                Stmt::If { accept, reject, .. } => {
                    let mut rejected = written.clone();
                    let is_accept_passed = self.steps(accept, written);
                    let is_reject_passed = self.steps(reject, &mut rejected);
                    meet(written, is_accept_passed, is_reject_passed.then_some(rejected))
                }
                Stmt::Block { label, body } | Stmt::Loop { label, body } => {
                    let is_end_reached = self.steps(body, written);
                    let left = self.exits[label.0 as usize].take();
                    meet(written, is_end_reached, left)
                }
                Stmt::Exit(label) => {
                    let mut left = self.exits[label.0 as usize].take();
                    let is_first = left.is_none();
                    let all = left.get_or_insert_with(|| written.clone());
                    if !is_first {
                        all.iter_mut().zip(written.iter()).for_each(|(all, here)| *all &= here);
                    }
                    self.exits[label.0 as usize] = left;
                    false
                }
                // Whoever begins again knows at least what was known at the start.
                Stmt::Repeat(_) => false,
                Stmt::Store { .. } | Stmt::Atomic { .. } | Stmt::Across { .. } | Stmt::Barrier { .. } => true,
            };
            if !is_passed {
                return false;
            }
        }
        true
    }
}

/// What is written whichever way one came; whether there is a way.
fn meet(written: &mut Vec<bool>, is_passed: bool, other: Option<Vec<bool>>) -> bool {
    match other {
        Some(other) if is_passed => written.iter_mut().zip(&other).for_each(|(written, other)| *written &= other),
        Some(other) => *written = other,
        None => return is_passed,
    }
    true
}

#[cfg(test)]
#[allow(clippy::type_complexity, reason = "tables of cases, each used once")]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::builder::Builder;
    use super::super::ir::{AtomicOp, Binding, Scalar};
    use super::super::reference::{self, Random};
    use super::Shape::{Checked, Row, Uniform, Varying};
    use super::*;

    /// A kernel with a binding that is only read, one that is written, and one that could be but is not.
    fn builder(workgroup: [u32; 3]) -> Builder {
        let mut b = Builder::new("test", workgroup).without_speculation();
        for is_writable in [false, true, true] {
            b.binding(Binding { number: 0, is_writable, words_min: 1 });
        }
        b.kernel().workgroup_words = 8;
        b.kernel().private_words = 8;
        b
    }

    /// Keeps a value, by storing it.
    fn keep(b: &mut Builder, value: ValueId) {
        let zero = b.uint(0);
        b.store(Memory::Binding(1), zero, 0, value);
    }

    /// The shape of what `make` makes.
    fn check(workgroup: [u32; 3], expected: Shape, make: impl FnOnce(&mut Builder) -> ValueId) {
        let mut b = builder(workgroup);
        let value = make(&mut b);
        keep(&mut b, value);
        let kernel = b.finish();
        assert_eq!(shapes(&kernel).values[value.0 as usize], expected, "{:?} in {workgroup:?}", kernel.value(value).op);
    }

    fn local(axis: u8) -> impl Fn(&mut Builder) -> ValueId {
        move |b| b.input(Input::LocalId(axis))
    }

    fn line(b: &mut Builder) -> ValueId {
        b.input(Input::LocalId(0))
    }

    fn binary(op: Binary, a: fn(&mut Builder) -> ValueId, b: fn(&mut Builder) -> ValueId) -> impl FnOnce(&mut Builder) -> ValueId {
        move |builder| {
            let (a, b) = (a(builder), b(builder));
            builder.binary(op, a, b)
        }
    }

    #[test]
    fn inputs_step_along_rows() {
        check([8, 4, 1], Row(1), local(0));
        check([8, 4, 1], Row(0), local(1));
        check([8, 4, 1], Uniform, local(2));
        check([8, 4, 1], Row(1), |b| b.input(Input::LocalIndex));
        check([6, 1, 1], Row(1), local(0));
        check([6, 4, 1], Varying, local(0));
        check([6, 4, 1], Varying, local(1));
        check([6, 4, 1], Row(1), |b| b.input(Input::LocalIndex));
        check([1, 6, 1], Row(1), local(1));
        check([4, 1, 3], Row(0), local(2));
        check([1, 1, 1], Uniform, |b| b.op(Scalar::U32, Op::Input(Input::LocalIndex)));
        check([8, 4, 1], Uniform, |b| b.input(Input::GroupId(0)));
        check([8, 4, 1], Uniform, |b| b.input(Input::Groups(1)));
        check([8, 4, 1], Uniform, |b| b.op(Scalar::U32, Op::Length(Count::Runtime { binding: 0, first: 0, stride: 1 })));
        assert_eq!([[8, 4, 1], [6, 2, 1], [2, 4, 4]].map(row), [8, 12, 32]);
    }

    #[test]
    fn sums_and_multiples_of_rows_are_rows() {
        let group = |b: &mut Builder| b.input(Input::GroupId(0));
        let y = |b: &mut Builder| b.input(Input::LocalId(1));
        let five = |b: &mut Builder| b.uint(5);
        check([8, 4, 1], Row(1), binary(Binary::Add, line, group));
        check([8, 4, 1], Row(1), binary(Binary::Add, y, line));
        check([8, 4, 1], Row(0), binary(Binary::Add, y, group));
        check([8, 4, 1], Uniform, binary(Binary::Mul, group, group));
        check([8, 4, 1], Row(-1), binary(Binary::Sub, group, line));
        check([8, 4, 1], Row(5), binary(Binary::Mul, line, five));
        check([8, 4, 1], Row(32), binary(Binary::Shl, line, five));
        check([8, 4, 1], Varying, binary(Binary::Mul, line, group));
        check([8, 4, 1], Row(0), binary(Binary::Mul, y, group));
        check([8, 4, 1], Varying, binary(Binary::Xor, line, five));
        check([8, 4, 1], Row(0), binary(Binary::DivU, y, five));
        check([8, 4, 1], Row(1), |b| {
            let x = line(b);
            b.bits(Scalar::I32, x)
        });
        // What cancels out is the same within a row, and there is but one here.
        let cancelled = |b: &mut Builder| {
            let (x, y) = (line(b), y(b));
            let sum = b.binary(Binary::Add, x, y);
            b.binary(Binary::Sub, sum, x)
        };
        check([8, 4, 1], Row(0), cancelled);
        check([8, 1, 1], Uniform, cancelled);
        let wrapped = |b: &mut Builder| {
            let (x, large) = (line(b), b.uint(1 << 31));
            let x = b.binary(Binary::Mul, x, large);
            let seven = b.uint(7);
            let x = b.unary(Unary::Bits, x);
            let x = b.binary(Binary::Shl, x, seven);
            b.unary(Unary::Bits, x)
        };
        check([8, 1, 1], Uniform, wrapped);
    }

    #[test]
    fn selected_rows_are_rows_where_the_whole_row_selects() {
        let select = |condition: fn(&mut Builder) -> ValueId| {
            move |b: &mut Builder| {
                let (condition, x, two) = (condition(b), line(b), b.uint(2));
                let condition = b.binary(Binary::LtU, condition, two);
                let group = b.input(Input::GroupId(0));
                let there = b.binary(Binary::Add, x, group);
                b.select(condition, x, there)
            }
        };
        check([8, 4, 1], Row(1), select(|b| b.input(Input::GroupId(0))));
        check([8, 4, 1], Row(1), select(|b| b.input(Input::LocalId(1))));
        check([8, 4, 1], Varying, select(|b| b.input(Input::LocalId(0))));
    }

    #[test]
    fn an_index_is_a_row_until_it_is_held_back() {
        let count = Count::Runtime { binding: 0, first: 0, stride: 1 };
        let index = move |b: &mut Builder, of: ValueId| b.op(Scalar::U32, Op::Index { index: of, count });
        check([8, 4, 1], Checked(1), |b| {
            let x = line(b);
            index(b, x)
        });
        check([8, 4, 1], Row(0), |b| {
            let y = b.input(Input::LocalId(1));
            index(b, y)
        });
        check([8, 4, 1], Uniform, |b| {
            let group = b.input(Input::GroupId(1));
            index(b, group)
        });
        let mut b = builder([8, 4, 1]);
        let (x, y, two) = (line(&mut b), b.input(Input::LocalId(1)), b.uint(2));
        let asked = b.binary(Binary::Mul, x, two);
        let held = index(&mut b, asked);
        let three = b.uint(3);
        let tripled = b.binary(Binary::Mul, held, three);
        let row = b.binary(Binary::Mul, y, three);
        let moved = b.binary(Binary::Add, row, tripled);
        let back = b.binary(Binary::Sub, moved, y);
        let double = b.binary(Binary::Shl, back, two);
        let twice = b.binary(Binary::Add, double, held);
        let again = index(&mut b, double);
        let negated = b.binary(Binary::Sub, y, double);
        for value in [twice, again, negated] {
            keep(&mut b, value);
        }
        let kernel = b.finish();
        let shapes = shapes(&kernel);
        assert_eq!(shapes.values[double.0 as usize], Checked(24));
        assert_eq!(shapes.affine_index(back), Some(6));
        assert_eq!(shapes.root(&kernel, double), Some(Root { index: asked, count, step: 2, multiplier: 12 }));
        assert_eq!([twice, again, negated].map(|value| shapes.values[value.0 as usize]), [Varying; 3]);
        assert_eq!((shapes.affine_index(asked), shapes.root(&kernel, asked)), (None, None));
    }

    #[test]
    fn loads_are_as_uniform_as_their_address_where_nobody_writes() {
        let load = |memory: Memory, address: fn(&mut Builder) -> ValueId| {
            move |b: &mut Builder| {
                let address = address(b);
                b.load(Scalar::U32, memory, address, 0)
            }
        };
        let (group, y): (fn(&mut Builder) -> ValueId, fn(&mut Builder) -> ValueId) = (|b| b.input(Input::GroupId(0)), |b| b.input(Input::LocalId(1)));
        for memory in [Memory::Binding(0), Memory::Binding(2), Memory::Workgroup, Memory::Constant] {
            check([8, 4, 1], Uniform, load(memory, group));
            check([8, 4, 1], Row(0), load(memory, y));
            check([8, 4, 1], Varying, load(memory, line));
        }
        // `check` stores to this one.
        check([8, 4, 1], Varying, load(Memory::Binding(1), group));
        check([8, 4, 1], Varying, load(Memory::Private, group));
        check([8, 4, 1], Uniform, |b| {
            let loaded = load(Memory::Binding(1), line)(b);
            b.unary(Unary::Uniform, loaded)
        });
        check([8, 4, 1], Varying, |b| {
            let (zero, one) = (b.uint(0), b.uint(1));
            b.atomic(AtomicOp::Add, Memory::Binding(2), zero, 0, one, None)
        });
    }

    /// What a register is that is set to the group's number, once before and once within what `around` puts around.
    fn register_in(around: impl FnOnce(&mut Builder, &mut dyn FnMut(&mut Builder))) -> (Shape, bool) {
        let mut b = builder([8, 4, 1]);
        let register = b.register(Scalar::U32);
        let group = b.input(Input::GroupId(0));
        b.set(register, group);
        around(&mut b, &mut |b| {
            let one = b.uint(1);
            let next = b.binary(Binary::Add, group, one);
            b.set(register, next);
        });
        let held = b.op(Scalar::U32, Op::Get(register));
        keep(&mut b, held);
        let shapes = shapes(&b.finish());
        assert_eq!(shapes.values[held.0 as usize], shapes.registers[0]);
        assert!(!shapes.is_zero_seen(register));
        (shapes.registers[0], shapes.is_set_by_all(register))
    }

    fn is_below(b: &mut Builder, value: ValueId) -> ValueId {
        let two = b.uint(2);
        b.binary(Binary::LtU, value, two)
    }

    #[test]
    fn a_register_is_what_control_lets_it_be() {
        assert_eq!(register_in(|b, set| set(b)), (Uniform, true));
        for (input, expected) in [(Input::GroupId(1), (Uniform, true)), (Input::LocalId(1), (Row(0), false)), (Input::LocalId(0), (Varying, false))] {
            let branch = register_in(|b, set| {
                let condition = b.input(input);
                let condition = is_below(b, condition);
                b.begin_if(condition);
                b.begin_else();
                set(b);
                b.end_if();
            });
            let exit = register_in(|b, set| {
                let block = b.begin_block();
                let condition = b.input(input);
                let condition = is_below(b, condition);
                b.begin_if(condition);
                b.exit(block);
                b.begin_else();
                b.end_if();
                set(b);
                b.end_block();
            });
            let repeat = register_in(|b, set| {
                let repeated = b.begin_loop([RegisterId(0)]);
                // Set by all who are here, but not all are in the second round.
                set(b);
                let condition = b.input(input);
                let condition = is_below(b, condition);
                b.begin_if(condition);
                b.repeat(repeated);
                b.begin_else();
                b.end_if();
                b.end_loop();
            });
            let leave = register_in(|b, set| {
                let block = b.begin_block();
                let repeated = b.begin_loop([RegisterId(0)]);
                // Who leaves in one round is missing here in the next.
                set(b);
                let condition = b.input(input);
                let condition = is_below(b, condition);
                b.begin_if(condition);
                b.exit(block);
                b.begin_else();
                b.end_if();
                b.repeat(repeated);
                b.end_loop();
                b.end_block();
            });
            assert_eq!([branch, exit, repeat, leave], [expected; 4], "{input:?}");
        }
    }

    #[test]
    fn those_who_will_not_look_again_do_not_count() {
        // A counter behind an early return, in a loop that all who are left do as often.
        let mut b = builder([8, 4, 1]);
        let x = line(&mut b);
        let group = b.input(Input::GroupId(0));
        let counter = b.register(Scalar::U32);
        let outer = b.begin_block();
        let is_out = is_below(&mut b, x);
        b.begin_if(is_out);
        b.exit(outer);
        b.begin_else();
        b.end_if();
        b.set(counter, group);
        let through = b.begin_block();
        let repeated = b.begin_loop([counter]);
        let held = b.get(counter);
        let is_over = is_below(&mut b, held);
        b.begin_if(is_over);
        b.exit(through);
        b.begin_else();
        b.end_if();
        let one = b.uint(1);
        let less = b.binary(Binary::Sub, held, one);
        b.set(counter, less);
        b.repeat(repeated);
        b.end_loop();
        b.end_block();
        keep(&mut b, group);
        b.end_block();
        let shapes = shapes(&b.finish());
        assert_eq!((shapes.registers[0], shapes.is_uniform(is_over), shapes.is_set_by_all(counter)), (Uniform, true, true));
        assert_eq!([outer, through, repeated].map(|label| shapes.is_diverging(label)), [true, false, false]);
    }

    #[test]
    fn what_is_left_from_another_round_counts() {
        // Read before it is written in a loop that lanes go through in their own ways: whose is what is read?
        let mut b = builder([8, 4, 1]);
        let (x, kept, rounds) = (line(&mut b), b.register(Scalar::U32), b.register(Scalar::U32));
        let through = b.begin_block();
        let repeated = b.begin_loop([kept, rounds]);
        let round = b.get(rounds);
        let (one, nine) = (b.uint(1), b.uint(9));
        let next = b.binary(Binary::Add, round, one);
        b.set(rounds, next);
        let is_over = b.binary(Binary::LtU, nine, round);
        b.begin_if(is_over);
        b.exit(through);
        b.begin_else();
        b.end_if();
        let reached = b.binary(Binary::LtU, x, round);
        b.begin_if(reached);
        let held = b.get(kept);
        keep(&mut b, held);
        b.set(kept, next);
        b.begin_else();
        b.end_if();
        b.repeat(repeated);
        b.end_loop();
        b.end_block();
        let shapes = shapes(&b.finish());
        assert!(shapes.is_zero_seen(kept) && shapes.is_zero_seen(rounds));
        assert_eq!(shapes.registers, [Varying, Uniform]);
    }

    #[test]
    fn a_kernel_that_takes_too_many_looks_gets_no_more() {
        // Each register takes over from the next one: what the last one gets is the first one's as many rounds later.
        let last_of = |length: usize| {
            let mut b = builder([8, 4, 1]);
            let (x, group) = (line(&mut b), b.input(Input::GroupId(0)));
            let (aside, chain) = (b.register(Scalar::U32), (0..length).map(|_| b.register(Scalar::U32)).collect::<Vec<_>>());
            let repeated = b.begin_loop(chain.iter().copied().chain([aside]));
            for register in [aside, chain[0]] {
                let held = b.get(register);
                keep(&mut b, held);
            }
            b.set(aside, group);
            for pair in chain.windows(2) {
                let next = b.get(pair[1]);
                b.set(pair[0], next);
            }
            b.set(chain[length - 1], x);
            b.repeat(repeated);
            b.end_loop();
            let shapes = shapes(&b.finish());
            (shapes.registers[0], shapes.registers[1])
        };
        assert_eq!(last_of(10), (Uniform, Varying));
        assert_eq!(last_of(1000), (Varying, Varying));
    }

    #[test]
    fn a_loop_that_lanes_leave_by_themselves_diverges() {
        let mut b = builder([8, 4, 1]);
        let (x, counter) = (line(&mut b), b.register(Scalar::U32));
        b.set(counter, x);
        let through = b.begin_block();
        let repeated = b.begin_loop([counter]);
        let held = b.get(counter);
        let is_over = is_below(&mut b, held);
        b.begin_if(is_over);
        b.exit(through);
        b.begin_else();
        b.end_if();
        let one = b.uint(1);
        let less = b.binary(Binary::Sub, held, one);
        b.set(counter, less);
        b.repeat(repeated);
        b.end_loop();
        b.end_block();
        let held = b.get(counter);
        keep(&mut b, held);
        let kernel = b.finish();
        let shapes = shapes(&kernel);
        assert_eq!((shapes.registers[0], shapes.is_zero_seen(counter)), (Varying, false));
        // Whoever is still there repeats: the loop itself is left by nobody, the block around it by some.
        assert_eq!([through, repeated].map(|label| shapes.is_diverging(label)), [true, false]);
    }

    /// Runs a kernel invocation by invocation, and holds every value that lanes compute together against its shape.
    fn check_claims(random: &Random) -> Result<(), TestCaseError> {
        let kernel = &random.kernel;
        let shapes = shapes(kernel);
        let mut seen: HashMap<(u64, ValueId, Vec<u32>), Vec<(u32, u32, bool)>> = HashMap::new();
        let mut bindings = random.bindings();
        let groups = random.groups.iter().map(|&count| u64::from(count)).product();
        let lengths: Vec<u32> = bindings.iter().map(|words| words.len() as u32).collect();
        reference::run(kernel, &mut bindings, random.groups, 0..groups, &mut |lane, value| {
            let is_within = shapes.root(kernel, value).is_none_or(|root| {
                let count = match root.count {
                    Count::Fixed(count) => count,
                    Count::Runtime { binding, first, stride } => (lengths[binding as usize] - first) / stride,
                };
                lane.value(root.index) < count
            });
            let lanes = seen.entry((lane.group, value, lane.iterations.clone())).or_default();
            lanes.push((lane.index, lane.value(value), is_within));
        });
        for ((_, value, _), lanes) in seen {
            let shape = shapes.values[value.0 as usize];
            prop_assert_eq!(matches!(shape, Checked(_)), shapes.root(kernel, value).is_some(), "{:?}", kernel.value(value).op);
            for &(lane, word, _) in &lanes {
                let row = |lane: u32| lane / shapes.row;
                let mut fellows = lanes.iter().filter(|fellow| row(fellow.0) == row(lane));
                let (first, first_word, _) = lanes.iter().find(|fellow| row(fellow.0) == row(lane)).copied().unwrap();
                let expected = match shape {
                    Uniform => lanes[0].1,
                    Checked(step) | Row(step) if fellows.all(|fellow| fellow.2) => first_word.wrapping_add((step as u32).wrapping_mul(lane - first)),
                    _ => word,
                };
                prop_assert_eq!(word, expected, "{:?} {:?} is {:?}: {:?}", value, kernel.value(value).op, shape, lanes);
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(reference::config(500))]

        #[test]
        fn values_are_what_their_shapes_say(choices in reference::choices()) {
            check_claims(&reference::random_kernel(&choices))?;
        }
    }
}
