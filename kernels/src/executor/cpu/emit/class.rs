//! How a value is held while a segment runs, for each of its two forms.
//!
//! A segment is emitted twice where that pays. The *fast* form assumes that every index that is affine in the
//! lane stays within its array, and that conditions such as `c.inside` hold for the whole workgroup; one test per
//! workgroup decides. The other form assumes nothing.
//!
//! ```text
//! Group    one scalar per workgroup and constant steps along x, y, z: computed before the lanes start
//! Scalar   one scalar for the four lanes
//! Affine   a scalar for the first lane and a constant step
//! Checked  the same, if a test for these four lanes passes; otherwise it has to be made as a vector
//! Vector   four lanes
//! ```

use std::collections::HashMap;

use super::super::ir::{Binary, Input, Kernel, Memory, Op, Scalar, Stmt, Unary, ValueId};
use super::super::shape::{Shape, Shapes};

/// How a value is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The value at the workgroup's first lane, and what it grows by along each axis. `is_sure`: whatever the form.
    Group { steps: [i32; 3], is_sure: bool },
    /// The same for four lanes.
    Scalar,
    /// Grows by a step from lane to lane.
    Affine(i32),
    /// So it does if its test passes.
    Checked(i32),
    /// Four lanes.
    Vector,
}

impl Class {
    pub(super) const UNIFORM: Class = Class::Group { steps: [0; 3], is_sure: true };

    /// The step from lane to lane, where there is one.
    pub(super) fn step(self) -> Option<i32> {
        match self {
            Class::Group { steps, .. } => Some(steps[0]),
            Class::Scalar => Some(0),
            Class::Affine(step) | Class::Checked(step) => Some(step),
            Class::Vector => None,
        }
    }

    fn is_zero_group(self) -> bool {
        matches!(self, Class::Group { steps: [0, 0, 0], .. })
    }

    fn is_sure(self) -> bool {
        !matches!(self, Class::Group { is_sure: false, .. })
    }
}

/// What a fast form takes for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assumption {
    /// This [`Op::Index`] changes nothing, in any lane.
    Within(ValueId),
    /// This comparison comes out like that, in every lane.
    Holds(ValueId, bool),
}

/// The lanes of a workgroup, as they are counted through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    pub(super) workgroup: [u32; 3],
    /// Whether four lanes always lie in one row along x; otherwise lanes are numbered through.
    pub(super) has_rows: bool,
    /// Lanes, rounded up to four.
    pub(super) padded: u32,
}

impl Lanes {
    pub(super) fn new(kernel: &Kernel) -> Lanes {
        let has_rows = kernel.workgroup[0].is_multiple_of(4);
        Lanes { workgroup: kernel.workgroup, has_rows, padded: kernel.invocations().next_multiple_of(4) }
    }

    /// Invocations of a workgroup.
    pub(super) fn count(&self) -> u32 {
        self.workgroup.iter().product()
    }

    /// Lanes along each axis that steps are told for.
    pub(super) fn extents(&self) -> [u32; 3] {
        if self.has_rows { self.workgroup } else { [self.count(), 1, 1] }
    }

    pub(super) fn input(&self, input: Input) -> Class {
        let [x, y, z] = self.workgroup;
        let steps = match input {
            Input::GroupId(_) | Input::Groups(_) => [0; 3],
            Input::LocalIndex if self.has_rows => [1, x as i32, (x * y) as i32],
            Input::LocalIndex => [1, 0, 0],
            Input::LocalId(0) if self.has_rows || (y == 1 && z == 1) => [1, 0, 0],
            Input::LocalId(1) if self.has_rows => [0, 1, 0],
            Input::LocalId(2) if self.has_rows => [0, 0, 1],
            Input::LocalId(_) => return Class::Vector,
        };
        Class::Group { steps, is_sure: true }
    }
}

/// The classes of a segment's values in one form.
pub(super) struct Classes {
    /// By value, of those that the segment computes.
    pub(super) own: HashMap<ValueId, Class>,
    /// What holds in this form.
    pub(super) assumptions: Vec<Assumption>,
}

/// What is known around a segment.
pub(super) struct Context<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) shapes: &'a Shapes,
    pub(super) lanes: Lanes,
    /// Values that are there as scalars of the workgroup, with their steps.
    pub(super) outer: &'a HashMap<ValueId, [i32; 3]>,
    /// Registers that the segment writes.
    pub(super) written: &'a [bool],
    /// Comparisons that may be taken for granted, and how they should come out.
    pub(super) wanted: &'a HashMap<ValueId, bool>,
    pub(super) is_fast: bool,
    /// Whether an index may be tested for four lanes at once.
    pub(super) has_checks: bool,
}

impl Context<'_> {
    /// The class of a value that the segment uses.
    pub(super) fn class(&self, own: &HashMap<ValueId, Class>, value: ValueId) -> Class {
        if let Some(class) = own.get(&value) {
            return *class;
        }
        if let Some(steps) = self.outer.get(&value) {
            return Class::Group { steps: *steps, is_sure: true };
        }
        match self.kernel.value(value).op {
            Op::Const(_) | Op::Length(_) => Class::UNIFORM,
            Op::Input(input) => self.lanes.input(input),
            _ => Class::Vector,
        }
    }

    /// Classifies what a segment computes, in its order.
    pub(super) fn classify(&self, steps: &[&Stmt]) -> Classes {
        let mut classes = Classes { own: HashMap::new(), assumptions: Vec::new() };
        super::plan::each_step(steps.iter().copied(), &mut |step| match step {
            Stmt::Let(value) => {
                let class = self.of_op(&mut classes, *value);
                classes.own.insert(*value, class);
            }
            Stmt::Atomic { found: Some(value), .. } | Stmt::Across { found: value, .. } => drop(classes.own.insert(*value, Class::Vector)),
            _ => {}
        });
        classes
    }

    fn of_op(&self, classes: &mut Classes, value: ValueId) -> Class {
        let of = |value: ValueId| self.class(&classes.own, value);
        match self.kernel.value(value).op {
            Op::Const(_) | Op::Length(_) | Op::Input(_) => of(value),
            Op::Found => Class::Vector,
            Op::Get(register) => match self.shapes.registers[register.0 as usize] {
                Shape::Uniform if self.written[register.0 as usize] => Class::Scalar,
                Shape::Uniform => Class::UNIFORM,
                _ => Class::Vector,
            },
            Op::Unary(Unary::Uniform, _) => Class::Scalar,
            // Bits of a float grow by no step that a float's local could be told.
            Op::Unary(Unary::Bits, a) if self.kernel.value(value).scalar != Scalar::F32 => of(a),
            Op::Unary(_, a) => plain(&[of(a)]),
            Op::Binary(kind, a, b) => {
                let (x, y) = (of(a), of(b));
                if let Some(&outcome) = self.wanted.get(&value).filter(|_| self.is_fast)
                    && self.is_testable(x, y)
                {
                    classes.assumptions.push(Assumption::Holds(value, outcome));
                    return Class::Group { steps: [0; 3], is_sure: false };
                }
                self.of_binary(kind, (x, a), (y, b))
            }
            Op::Select { condition, accept, reject } => plain(&[of(condition), of(accept), of(reject)]),
            Op::Index { index, .. } => match of(index) {
                class if class.is_zero_group() => class,
                Class::Group { steps, is_sure: true } if self.is_fast => {
                    classes.assumptions.push(Assumption::Within(value));
                    Class::Group { steps, is_sure: false }
                }
                class => match class.step() {
                    Some(0) => Class::Scalar,
                    Some(step) if step > 0 && self.has_checks && !matches!(class, Class::Checked(_)) => Class::Checked(step),
                    _ => Class::Vector,
                },
            },
            Op::Load { memory, address, .. } => {
                let class = of(address);
                let is_constant = match memory {
                    Memory::Binding(binding) => !self.kernel.bindings[binding as usize].is_writable,
                    Memory::Constant => true,
                    Memory::Workgroup | Memory::Private => false,
                };
                match class.step() {
                    Some(0) if class.is_zero_group() && is_constant => class,
                    Some(0) if memory != Memory::Private => Class::Scalar,
                    _ => Class::Vector,
                }
            }
        }
    }

    fn of_binary(&self, kind: Binary, (x, a): (Class, ValueId), (y, b): (Class, ValueId)) -> Class {
        let constant = |value: ValueId| match self.kernel.value(value).op {
            Op::Const(bits) => Some(bits as i32),
            _ => None,
        };
        match kind {
            Binary::Add => combined(x, y, i32::wrapping_add),
            Binary::Sub => combined(x, y, i32::wrapping_sub),
            Binary::Mul if constant(b).is_some() => scaled(x, constant(b).unwrap_or(0)),
            Binary::Mul if constant(a).is_some() => scaled(y, constant(a).unwrap_or(0)),
            Binary::Shl if constant(b).is_some() => scaled(x, 1i32.wrapping_shl(constant(b).unwrap_or(0) as u32)),
            _ => plain(&[x, y]),
        }
    }

    /// Whether a comparison of the two can be decided for a whole workgroup at once.
    fn is_testable(&self, x: Class, y: Class) -> bool {
        // What is itself taken for granted is not there when the test is made.
        let both = matches!((x, y), (Class::Group { is_sure: true, .. }, Class::Group { is_sure: true, .. }));
        both && x.is_zero_group() != y.is_zero_group()
    }
}

/// Of an operator that keeps nothing of how its operands grow.
fn plain(operands: &[Class]) -> Class {
    let is_sure = operands.iter().all(|class| class.is_sure());
    if operands.iter().all(|class| class.is_zero_group()) {
        Class::Group { steps: [0; 3], is_sure }
    } else if operands.iter().all(|class| class.step() == Some(0) && !matches!(class, Class::Checked(_))) {
        Class::Scalar
    } else {
        Class::Vector
    }
}

fn combined(x: Class, y: Class, join: fn(i32, i32) -> i32) -> Class {
    if let (Class::Group { steps: a, .. }, Class::Group { steps: b, .. }) = (x, y) {
        return Class::Group { steps: [0, 1, 2].map(|axis| join(a[axis], b[axis])), is_sure: x.is_sure() && y.is_sure() };
    }
    let (Some(a), Some(b)) = (x.step(), y.step()) else { return Class::Vector };
    let is_checked = matches!(x, Class::Checked(_)) || matches!(y, Class::Checked(_));
    match (join(a, b), is_checked) {
        // Two tests would have to pass.
        _ if matches!((x, y), (Class::Checked(_), Class::Checked(_))) => Class::Vector,
        (step, true) => Class::Checked(step),
        (0, false) => Class::Scalar,
        (step, false) => Class::Affine(step),
    }
}

fn scaled(x: Class, factor: i32) -> Class {
    match x {
        Class::Group { steps, is_sure } => Class::Group { steps: steps.map(|step| step.wrapping_mul(factor)), is_sure },
        Class::Scalar => Class::Scalar,
        Class::Affine(step) => Class::Affine(step.wrapping_mul(factor)),
        Class::Checked(step) => Class::Checked(step.wrapping_mul(factor)),
        Class::Vector => Class::Vector,
    }
}

/// The comparisons that a segment's form would like to take for granted: those that send lanes home, and those
/// around its last step.
pub(super) fn wanted(kernel: &Kernel, steps: &[&Stmt]) -> HashMap<ValueId, bool> {
    let mut wanted = HashMap::new();
    in_list(kernel, steps.iter().copied(), &mut wanted);
    // The segment may be for the first lanes alone; inside of it, such a comparison never holds for all.
    let around = steps.last().and_then(|step| if let Stmt::If { condition, .. } = step { Some(*condition) } else { None });
    wanted.retain(|&value, _| Some(value) == around || !tells_lanes_apart(kernel, value));
    wanted
}

/// Whether a comparison is of a lane's own number with a constant: it comes out alike in every workgroup, and seldom for all lanes.
fn tells_lanes_apart(kernel: &Kernel, value: ValueId) -> bool {
    let Op::Binary(_, a, b) = kernel.value(value).op else { return false };
    let is_lane = |value: ValueId| matches!(kernel.value(value).op, Op::Input(Input::LocalId(_) | Input::LocalIndex));
    let is_constant = |value: ValueId| matches!(kernel.value(value).op, Op::Const(_));
    (is_lane(a) && is_constant(b)) || (is_constant(a) && is_lane(b))
}

fn in_list<'k>(kernel: &Kernel, steps: impl ExactSizeIterator<Item = &'k Stmt>, wanted: &mut HashMap<ValueId, bool>) {
    let last = steps.len().saturating_sub(1);
    for (at, step) in steps.enumerate() {
        match step {
            Stmt::If { condition, accept, reject } if reject.is_empty() && matches!(accept[..], [Stmt::Exit(_)]) => {
                collect(kernel, *condition, false, wanted);
            }
            Stmt::If { condition, accept, reject } if accept.is_empty() && matches!(reject[..], [Stmt::Exit(_)]) => {
                collect(kernel, *condition, true, wanted);
            }
            Stmt::If { condition, accept, reject } if at == last && (accept.is_empty() || reject.is_empty()) => {
                collect(kernel, *condition, reject.is_empty(), wanted);
                in_list(kernel, accept.iter().chain(reject).collect::<Vec<_>>().into_iter(), wanted);
            }
            Stmt::Block { body, .. } => in_list(kernel, body.iter(), wanted),
            _ => {}
        }
    }
}

/// What must hold for a condition to come out like that.
fn collect(kernel: &Kernel, condition: ValueId, outcome: bool, wanted: &mut HashMap<ValueId, bool>) {
    match (kernel.value(condition).op, outcome) {
        (Op::Unary(Unary::NotB, a), _) => collect(kernel, a, !outcome, wanted),
        (Op::Binary(Binary::And, a, b), true) | (Op::Binary(Binary::Or, a, b), false) => {
            collect(kernel, a, outcome, wanted);
            collect(kernel, b, outcome, wanted);
        }
        (Op::Binary(Binary::LtU | Binary::LeU | Binary::LtI | Binary::LeI, ..), _) => drop(wanted.insert(condition, outcome)),
        _ => {}
    }
}
