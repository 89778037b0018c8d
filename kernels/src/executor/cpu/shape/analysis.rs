//! The rules: from how operands differ, and who is there, to how values and registers do; again and again, until nothing
//! changes.

use super::super::ir::{Binary, Input, Kernel, Label, Memory, Op, RegisterId, Stmt, Unary, ValueId};
use super::lattice::join;
use super::registers::{homes, zeros_seen};
use super::{Shape, Shapes, row, scaled};

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
