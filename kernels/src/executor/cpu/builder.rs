//! Makes a [`Kernel`] step by step, and as small as it can while it does.
//!
//! Constants are folded, equal values are computed once, a register that is read back in the same straight
//! line is never read, a branch whose condition is known is the caller's to leave out ([`Builder::known_bool`]),
//! and [`Builder::finish`] drops what nobody uses. That is what makes the framework's prelude disappear: `cell`
//! computes a dozen things of which most kernels need two.
//!
//! Invariant: a value is handed out again only where the block that computes it is still open.

use std::collections::HashMap;

use super::ir::{Across, AtomicOp, Binary, Binding, Count, Input, Kernel, Label, Memory, Op, RegisterId, Scalar, Stmt, Unary, Value, ValueId};
use super::lower::INVOCATIONS_MAX;
use super::ops;

/// The most values of a kernel: inlining can make an exponential number out of a short text.
pub const VALUES_MAX: usize = 1 << 20;

/// What every register is known to hold; `None` where that depends on the way here.
type Known = Vec<Option<ValueId>>;

enum Opened {
    Block(Label),
    Loop(Label),
    If(Branch),
}

/// An `if` in the making.
struct Branch {
    condition: ValueId,
    /// What was known before, and whether nobody gets here.
    before: Known,
    was_dead: bool,
    /// The accepted steps, once they are closed.
    accepted: Option<Accepted>,
}

#[derive(Default)]
struct Accepted {
    body: Vec<Stmt>,
    ids: Vec<u32>,
    /// What is known behind them; nothing where nobody gets there.
    behind: Option<Known>,
}

/// Steps of a branch that are cheaper done by everybody than told apart.
const SPECULATED_MAX: usize = 12;

struct Scope {
    opened: Option<Opened>,
    body: Vec<Stmt>,
    /// What was made findable in here.
    found: Vec<(Op, Scalar)>,
    /// The numbers of this scope and of those that were joined into it.
    ids: Vec<u32>,
}

/// A kernel in the making.
pub struct Builder {
    kernel: Kernel,
    scopes: Vec<Scope>,
    /// Per scope ever opened, whether it still is.
    is_open: Vec<bool>,
    /// Per value, the scope that computes it.
    homes: Vec<u32>,
    findable: HashMap<(Op, Scalar), ValueId>,
    known: Known,
    /// Whether no invocation gets here.
    is_dead: bool,
    /// Per label, how many steps leave by it, and what all of them know.
    exits: HashMap<Label, (usize, Known)>,
    labels: u32,
    at: u32,
    /// Whether short branches may be done by everybody; not where somebody watches what is read.
    is_speculative: bool,
}

impl Builder {
    /// An empty kernel.
    pub fn new(entry: &str, workgroup: [u32; 3]) -> Builder {
        let kernel = Kernel {
            entry: entry.to_string(),
            workgroup,
            bindings: Vec::new(),
            workgroup_words: 0,
            shared: Vec::new(),
            private_words: 0,
            constants: Vec::new(),
            values: Vec::new(),
            registers: Vec::new(),
            body: Vec::new(),
        };
        let mut builder = Builder {
            kernel,
            scopes: Vec::new(),
            is_open: Vec::new(),
            homes: Vec::new(),
            findable: HashMap::new(),
            known: Vec::new(),
            is_dead: false,
            exits: HashMap::new(),
            labels: 0,
            at: 0,
            is_speculative: true,
        };
        builder.open(None);
        builder
    }

    /// Keeps every branch a branch: what an invocation does not do is then not done for it either.
    pub fn without_speculation(mut self) -> Builder {
        self.is_speculative = false;
        self
    }

    /// The kernel so far: bindings and memory are declared through it.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Whether the kernel has outgrown [`VALUES_MAX`]; what is built is then of no use.
    pub fn is_too_large(&self) -> bool {
        self.kernel.values.len() > VALUES_MAX
    }

    /// How many values there are so far.
    pub fn values(&self) -> usize {
        self.kernel.values.len()
    }

    /// Whether no invocation gets to this point.
    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// Where in the linked text the next values and steps stand.
    pub fn stand_at(&mut self, byte: u32) {
        self.at = byte;
    }

    // ---- values

    /// Bits.
    pub fn constant(&mut self, scalar: Scalar, bits: u32) -> ValueId {
        self.op(scalar, Op::Const(bits))
    }

    /// An f32.
    pub fn float(&mut self, value: f32) -> ValueId {
        self.constant(Scalar::F32, value.to_bits())
    }

    /// A u32.
    pub fn uint(&mut self, value: u32) -> ValueId {
        self.constant(Scalar::U32, value)
    }

    /// An i32.
    pub fn int(&mut self, value: i32) -> ValueId {
        self.constant(Scalar::I32, value as u32)
    }

    /// A Bool.
    pub fn bool(&mut self, value: bool) -> ValueId {
        self.constant(Scalar::Bool, value.into())
    }

    /// The bits of a value, if they are known now.
    pub fn known_bits(&self, value: ValueId) -> Option<u32> {
        match self.kernel.value(value).op {
            Op::Const(bits) => Some(bits),
            _ => None,
        }
    }

    /// A Bool, if it is known now.
    pub fn known_bool(&self, value: ValueId) -> Option<bool> {
        self.known_bits(value).map(|bits| bits != 0)
    }

    /// How a value comes about.
    pub fn op_of(&self, value: ValueId) -> Op {
        self.kernel.value(value).op
    }

    /// What a value's bits are.
    pub fn scalar(&self, value: ValueId) -> Scalar {
        self.kernel.value(value).scalar
    }

    /// What the invocation is told.
    pub fn input(&mut self, input: Input) -> ValueId {
        let extents = self.kernel.workgroup;
        match input {
            Input::LocalId(axis) if extents[usize::from(axis)] == 1 => self.uint(0),
            // One number, not two, in a row of invocations: what is found equal need not be compared.
            Input::LocalIndex if extents[1] == 1 && extents[2] == 1 => self.input(Input::LocalId(0)),
            input => self.op(Scalar::U32, Op::Input(input)),
        }
    }

    /// One operand.
    pub fn unary(&mut self, op: Unary, a: ValueId) -> ValueId {
        let scalar = match op {
            Unary::NegF | Unary::AbsF | Unary::SqrtF | Unary::FloorF | Unary::CeilF | Unary::TruncF | Unary::RoundF => Scalar::F32,
            Unary::FloatOfI | Unary::FloatOfU => Scalar::F32,
            Unary::IntOfF => Scalar::I32,
            Unary::UintOfF => Scalar::U32,
            Unary::NotB => Scalar::Bool,
            Unary::Not | Unary::CountOnes | Unary::LeadingZeros | Unary::TrailingZeros | Unary::Bits | Unary::Uniform => self.scalar(a),
        };
        self.op(scalar, Op::Unary(op, a))
    }

    /// The same bits as another scalar.
    pub fn bits(&mut self, scalar: Scalar, a: ValueId) -> ValueId {
        if self.scalar(a) == scalar {
            return a;
        }
        match self.kernel.value(a).op {
            Op::Unary(Unary::Bits, inner) => return self.bits(scalar, inner),
            // Sums of either kind are one sum, so that steps in memory are seen to differ by a constant.
            Op::Binary(op @ (Binary::Add | Binary::Mul), x, y) if scalar != Scalar::F32 && (self.is_rewritten(x) || self.is_rewritten(y)) => {
                let (x, y) = (self.bits(scalar, x), self.bits(scalar, y));
                return self.binary(op, x, y);
            }
            _ => {}
        }
        self.op(scalar, Op::Unary(Unary::Bits, a))
    }

    /// Whether the same bits as another scalar are there already.
    fn is_rewritten(&self, value: ValueId) -> bool {
        matches!(self.kernel.value(value).op, Op::Const(_) | Op::Unary(Unary::Bits, _))
    }

    /// Two operands.
    pub fn binary(&mut self, op: Binary, a: ValueId, b: ValueId) -> ValueId {
        let scalar = match op {
            Binary::EqF | Binary::NeF | Binary::LtF | Binary::LeF | Binary::Eq | Binary::Ne => Scalar::Bool,
            Binary::LtI | Binary::LeI | Binary::LtU | Binary::LeU => Scalar::Bool,
            _ => self.scalar(a),
        };
        self.op(scalar, Op::Binary(op, a, b))
    }

    /// One of two values.
    pub fn select(&mut self, condition: ValueId, accept: ValueId, reject: ValueId) -> ValueId {
        self.op(self.scalar(accept), Op::Select { condition, accept, reject })
    }

    /// A step into an array, kept within it.
    pub fn index(&mut self, index: ValueId, count: Count) -> ValueId {
        let index = self.bits(Scalar::U32, index);
        match count {
            Count::Fixed(count) if greatest(&self.kernel, index) < count => index,
            count => self.op(Scalar::U32, Op::Index { index, count }),
        }
    }

    /// A word of memory as `scalar`, which is not Bool.
    pub fn load(&mut self, scalar: Scalar, memory: Memory, address: ValueId, offset: u32) -> ValueId {
        self.op(scalar, Op::Load { memory, address, offset })
    }

    /// A value; the same one again if it is already there, or a constant if it is one.
    pub fn op(&mut self, scalar: Scalar, op: Op) -> ValueId {
        if let Some(simpler) = self.simplify(scalar, op) {
            return simpler;
        }
        let op = self.ordered(op);
        let is_pure = match op {
            Op::Get(_) | Op::Found | Op::Unary(Unary::Uniform, _) => false,
            Op::Load { memory, .. } => self.is_constant(memory),
            _ => true,
        };
        if is_pure && let Some(&value) = self.findable.get(&(op, scalar)) {
            return value;
        }
        let id = ValueId(self.kernel.values.len() as u32);
        self.kernel.values.push(Value { op, scalar, at: self.at });
        // Constants and inputs belong to the outermost scope: whoever asks next may be anywhere.
        let is_everywhere = matches!(op, Op::Const(_) | Op::Input(_) | Op::Length(_));
        let home = if is_everywhere { 0 } else { self.scopes.len() - 1 };
        self.homes.push(self.scopes[home].ids[0]);
        if is_pure {
            self.findable.insert((op, scalar), id);
            if !is_everywhere {
                self.scopes[home].found.push((op, scalar));
            }
        }
        if !is_everywhere && op != Op::Found {
            self.push(Stmt::Let(id));
        }
        id
    }

    /// Operands in an order that does not matter, in one order.
    fn ordered(&self, op: Op) -> Op {
        match op {
            Op::Binary(kind, a, b)
                if is_commutative(kind)
                    && (matches!(self.kernel.value(a).op, Op::Const(_)), a) > (matches!(self.kernel.value(b).op, Op::Const(_)), b) =>
            {
                Op::Binary(kind, b, a)
            }
            op => op,
        }
    }

    /// A value that is already there and equal to the bit.
    fn simplify(&mut self, scalar: Scalar, op: Op) -> Option<ValueId> {
        match op {
            Op::Unary(Unary::Uniform, _) => None,
            Op::Unary(op, a) => {
                let bits = ops::unary(op, self.known_bits(a)?);
                Some(self.constant(scalar, if op == Unary::Bits { bits } else { with_one_nan(scalar, bits) }))
            }
            Op::Binary(op, a, b) => match (self.known_bits(a), self.known_bits(b)) {
                (Some(x), Some(y)) => Some(self.constant(scalar, with_one_nan(scalar, ops::binary(op, x, y)))),
                (None, Some(y)) => self.with_constant(scalar, op, a, b, y),
                (Some(x), None) if is_commutative(op) => self.with_constant(scalar, op, b, a, x),
                (None, None) if a == b => match op {
                    Binary::And | Binary::Or | Binary::MinI | Binary::MinU | Binary::MaxI | Binary::MaxU => Some(a),
                    Binary::Xor | Binary::Sub => Some(self.constant(scalar, 0)),
                    Binary::Eq | Binary::LeI | Binary::LeU => Some(self.bool(true)),
                    Binary::Ne | Binary::LtI | Binary::LtU => Some(self.bool(false)),
                    _ => None,
                },
                (None, None) if op == Binary::Add => self.with_constant_last(a, b),
                _ => None,
            },
            Op::Select { condition, accept, reject } => match (self.known_bool(condition), self.known_bits(accept), self.known_bits(reject)) {
                (Some(true), ..) => Some(accept),
                (Some(false), ..) => Some(reject),
                _ if accept == reject => Some(accept),
                (_, Some(1), Some(0)) if scalar == Scalar::Bool => Some(condition),
                (_, Some(1), _) if scalar == Scalar::Bool => Some(self.binary(Binary::Or, condition, reject)),
                (_, _, Some(0)) if scalar == Scalar::Bool => Some(self.binary(Binary::And, condition, accept)),
                _ => None,
            },
            Op::Index { index, count: Count::Fixed(count) } => {
                let bits = self.known_bits(index)?;
                Some(self.uint(bits.min(count - 1)))
            }
            Op::Length(Count::Fixed(count)) => Some(self.uint(count)),
            _ => None,
        }
    }

    /// `a op b` where `b` is known to be `y`.
    fn with_constant(&mut self, scalar: Scalar, op: Binary, a: ValueId, b: ValueId, y: u32) -> Option<ValueId> {
        let is_bool = scalar == Scalar::Bool;
        let all = if is_bool { 1 } else { u32::MAX };
        match op {
            Binary::Add | Binary::Sub | Binary::Or | Binary::Xor | Binary::Shl | Binary::ShrI | Binary::ShrU if y == 0 => Some(a),
            Binary::Mul | Binary::DivI | Binary::DivU if y == 1 => Some(a),
            Binary::Mul | Binary::And if y == 0 => Some(b),
            Binary::And if y == all => Some(a),
            Binary::Or if y == all => Some(b),
            Binary::MaxU if y == 0 => Some(a),
            Binary::MinU if y == 0 => Some(b),
            Binary::RemU if y == 1 => Some(self.constant(scalar, 0)),
            Binary::DivU | Binary::RemU => {
                let simple = self.of_group(op, a, y);
                simple.or_else(|| y.is_power_of_two().then(|| self.by_power(op, a, y)))
            }
            // One form for one sum: steps in memory are then seen to differ by a constant.
            Binary::Sub => {
                let opposite = self.constant(scalar, y.wrapping_neg());
                Some(self.binary(Binary::Add, a, opposite))
            }
            Binary::Add | Binary::Mul => {
                let Op::Binary(inner, x, c) = self.kernel.value(a).op else { return None };
                let c = self.known_bits(c).filter(|_| inner == op || inner == Binary::Add)?;
                let joined = self.constant(scalar, ops::binary(op, c, y));
                // Products of neighbours, (x + c) y = xy + cy, then share the one of x.
                let x = if inner == op { x } else { self.binary(op, x, b) };
                Some(self.binary(inner, x, joined))
            }
            // How the first lane of a row is asked for is how the first lanes are.
            Binary::Eq if y == 0 && self.is_number(a) => {
                let one = self.uint(1);
                Some(self.binary(Binary::LtU, a, one))
            }
            Binary::Eq if self.scalar(a) == Scalar::Bool && y == 1 => Some(a),
            Binary::Eq if self.scalar(a) == Scalar::Bool && y == 0 => Some(self.unary(Unary::NotB, a)),
            Binary::Ne if self.scalar(a) == Scalar::Bool && y == 0 => Some(a),
            _ => None,
        }
    }

    /// Whether a value is an invocation's number in a workgroup that is a single row.
    fn is_number(&self, value: ValueId) -> bool {
        let is_row = self.kernel.workgroup[1..] == [1, 1];
        is_row && matches!(self.kernel.value(value).op, Op::Input(Input::LocalId(0) | Input::LocalIndex))
    }

    /// A sum of two, one of them itself with a constant, as one with the constant added last: neighbours then differ
    /// in nothing else.
    fn with_constant_last(&mut self, a: ValueId, b: ValueId) -> Option<ValueId> {
        for (x, sum) in [(a, b), (b, a)] {
            if let Op::Binary(Binary::Add, y, c) = self.kernel.value(sum).op
                && self.known_bits(c).is_some()
            {
                let rest = self.binary(Binary::Add, x, y);
                return Some(self.binary(Binary::Add, rest, c));
            }
        }
        None
    }

    /// `(group * m + rest) / y` and `% y`, where `m` is a multiple of `y` and `rest` is less: what a kernel computes to
    /// tell its workgroup and its place there from the global id. As long as `m` is no more than a workgroup's extent,
    /// the sum does not wrap: no dispatch is that large.
    fn of_group(&mut self, op: Binary, sum: ValueId, y: u32) -> Option<ValueId> {
        let Op::Binary(Binary::Add, product, rest) = self.kernel.value(sum).op else { return None };
        let Op::Binary(Binary::Mul, group, factor) = self.kernel.value(product).op else { return None };
        let factor = self.known_bits(factor).filter(|&factor| y > 0 && factor % y == 0 && factor <= INVOCATIONS_MAX)?;
        if !matches!(self.kernel.value(group).op, Op::Input(Input::GroupId(_))) || greatest(&self.kernel, rest) >= y {
            return None;
        }
        if op == Binary::RemU {
            return Some(rest);
        }
        let factor = self.uint(factor / y);
        Some(self.binary(Binary::Mul, group, factor))
    }

    /// Division by a power of two, without one.
    fn by_power(&mut self, op: Binary, a: ValueId, y: u32) -> ValueId {
        let (op, by) = if op == Binary::DivU { (Binary::ShrU, y.trailing_zeros()) } else { (Binary::And, y - 1) };
        let by = self.uint(by);
        self.binary(op, a, by)
    }

    // ---- registers and memory

    /// A new register. In a loop its content is unknown until it is set: it may stem from an earlier round.
    pub fn register(&mut self, scalar: Scalar) -> RegisterId {
        let id = RegisterId(self.kernel.registers.len() as u32);
        self.kernel.registers.push(scalar);
        let is_looping = self.scopes.iter().any(|scope| matches!(scope.opened, Some(Opened::Loop(_))));
        let zero = self.constant(scalar, 0);
        self.known.push((!is_looping).then_some(zero));
        id
    }

    /// Whether no invocation changes it while the kernel runs.
    fn is_constant(&self, memory: Memory) -> bool {
        match memory {
            Memory::Binding(binding) => !self.kernel.bindings[binding as usize].is_writable,
            Memory::Constant => true,
            Memory::Workgroup | Memory::Private => false,
        }
    }

    /// What a register holds now.
    pub fn get(&mut self, register: RegisterId) -> ValueId {
        if let Some(value) = self.known[register.0 as usize] {
            return value;
        }
        let value = self.op(self.kernel.registers[register.0 as usize], Op::Get(register));
        self.known[register.0 as usize] = Some(value);
        value
    }

    /// Writes a register.
    pub fn set(&mut self, register: RegisterId, value: ValueId) {
        if self.known[register.0 as usize] != Some(value) {
            self.push(Stmt::Set(register, value));
            self.known[register.0 as usize] = Some(value);
        }
    }

    /// Writes a word, which is not Bool.
    pub fn store(&mut self, memory: Memory, address: ValueId, offset: u32, value: ValueId) {
        let at = self.at;
        self.push(Stmt::Store { memory, address, offset, value, at });
    }

    /// An atomic operation; what it found.
    pub fn atomic(&mut self, op: AtomicOp, memory: Memory, address: ValueId, offset: u32, value: ValueId, compare: Option<ValueId>) -> ValueId {
        let found = self.op(self.scalar(value), Op::Found);
        let at = self.at;
        self.push(Stmt::Atomic { op, memory, address, offset, value, compare, found: Some(found), at });
        found
    }

    /// Looks at the others of a subgroup; what is found there.
    pub fn across(&mut self, what: Across) -> ValueId {
        let scalar = match what {
            Across::Here => Scalar::U32,
            Across::Of(value, _) => self.scalar(value),
        };
        let found = self.op(scalar, Op::Found);
        self.push(Stmt::Across { what, found });
        found
    }

    /// The workgroup waits for itself.
    pub fn barrier(&mut self) {
        let at = self.at;
        self.push(Stmt::Barrier { at });
    }

    // ---- control

    /// Opens a block.
    pub fn begin_block(&mut self) -> Label {
        let label = self.label();
        self.open(Some(Opened::Block(label)));
        label
    }

    /// Closes the innermost block.
    pub fn end_block(&mut self) {
        let (mut scope, Some(Opened::Block(label))) = self.close() else { return };
        match self.exits.remove(&label) {
            // Nobody leaves it: its steps are its parent's, and so are its values.
            None => self.adopt(scope),
            // Whoever leaves it does so where it ends.
            Some((1, known)) if scope.body.last() == Some(&Stmt::Exit(label)) => {
                scope.body.pop();
                self.adopt(scope);
                self.known = known;
                self.known.resize(self.kernel.registers.len(), None);
                self.is_dead = false;
            }
            Some((_, exits)) => {
                self.forget(scope.found, &scope.ids);
                if self.is_dead {
                    self.known = exits;
                    self.known.resize(self.kernel.registers.len(), None);
                } else {
                    merge(&mut self.known, &exits);
                }
                self.is_dead = false;
                self.drop_closed();
                self.push(Stmt::Block { label, body: scope.body });
            }
        }
    }

    /// Opens a loop in which no registers but those of `written` (and new ones) are written.
    pub fn begin_loop(&mut self, written: impl IntoIterator<Item = RegisterId>) -> Label {
        for register in written {
            self.known[register.0 as usize] = None;
        }
        let label = self.label();
        self.open(Some(Opened::Loop(label)));
        label
    }

    /// Closes the innermost loop.
    pub fn end_loop(&mut self) {
        let (scope, Some(Opened::Loop(label))) = self.close() else { return };
        self.forget(scope.found, &scope.ids);
        self.drop_closed();
        let was_dead = std::mem::replace(&mut self.is_dead, false);
        self.push(Stmt::Loop { label, body: scope.body });
        self.is_dead = was_dead;
    }

    /// Opens the steps for where `condition` holds.
    pub fn begin_if(&mut self, condition: ValueId) {
        let branch = Branch { condition, before: self.known.clone(), was_dead: self.is_dead, accepted: None };
        self.open(Some(Opened::If(branch)));
    }

    /// Closes them and opens the steps for where it does not.
    pub fn begin_else(&mut self) {
        let (scope, Some(Opened::If(mut branch))) = self.close() else { return };
        self.forget(scope.found, &scope.ids);
        let behind = (!self.is_dead).then(|| self.known.clone());
        // Registers that were made meanwhile are nobody's here.
        branch.before.resize(self.known.len(), None);
        self.known.clone_from(&branch.before);
        self.is_dead = branch.was_dead;
        branch.accepted = Some(Accepted { body: scope.body, ids: scope.ids, behind });
        self.open(Some(Opened::If(branch)));
    }

    /// Closes the innermost `if`; [`Builder::begin_else`] has been called.
    pub fn end_if(&mut self) {
        let (scope, Some(Opened::If(branch))) = self.close() else { return };
        self.forget(scope.found, &scope.ids);
        let Branch { condition, before, was_dead, accepted } = branch;
        let Accepted { body: accept, ids, behind } = accepted.unwrap_or_default();
        if self.is_speculative && !was_dead && self.is_cheap(&accept) && self.is_cheap(&scope.body) {
            let reject_known = std::mem::replace(&mut self.known, before);
            self.known.resize(self.kernel.registers.len(), None);
            return self.speculate(condition, (accept, behind.unwrap_or_default(), ids), (scope.body, reject_known, scope.ids));
        }
        let is_dead = self.is_dead && behind.is_none();
        match behind {
            Some(behind) if self.is_dead => {
                self.known = behind;
                self.known.resize(self.kernel.registers.len(), None);
            }
            Some(behind) => merge(&mut self.known, &behind),
            None => {}
        }
        self.drop_closed();
        self.is_dead = was_dead;
        let reject = scope.body;
        if !(accept.is_empty() && reject.is_empty()) {
            // What only the others do is done where the opposite holds, if that is there.
            let step = match self.kernel.value(condition).op {
                Op::Unary(Unary::NotB, opposite) if accept.is_empty() => Stmt::If { condition: opposite, accept: reject, reject: accept },
                _ => Stmt::If { condition, accept, reject },
            };
            self.push(step);
        }
        self.is_dead = is_dead;
    }

    /// Whether a branch is straight, short, and reads nothing that others may write.
    fn is_cheap(&self, body: &[Stmt]) -> bool {
        let is_cheap = |step: &Stmt| match step {
            Stmt::Let(value) => match self.kernel.value(*value).op {
                Op::Load { memory, .. } => self.is_constant(memory) || memory == Memory::Private,
                Op::Unary(Unary::Uniform, _) => false,
                _ => true,
            },
            Stmt::Set(..) => true,
            _ => false,
        };
        body.len() <= SPECULATED_MAX && body.iter().all(is_cheap)
    }

    /// Does both branches, and selects. No operator traps and every address is in its memory, so nobody can tell.
    fn speculate(&mut self, condition: ValueId, accept: (Vec<Stmt>, Known, Vec<u32>), reject: (Vec<Stmt>, Known, Vec<u32>)) {
        let mut written = Vec::new();
        for (body, _, ids) in [&accept, &reject] {
            for &id in ids {
                self.is_open[id as usize] = true;
            }
            if let Some(scope) = self.scopes.last_mut() {
                scope.ids.extend(ids);
            }
            for step in body {
                match step {
                    Stmt::Set(register, _) if !written.contains(register) => written.push(*register),
                    Stmt::Let(_) => self.push(step.clone()),
                    _ => {}
                }
            }
        }
        for register in written {
            let index = register.0 as usize;
            let before = self.get(register);
            let [accepted, rejected] = [&accept, &reject].map(|(body, known, _)| {
                let is_set = body.iter().any(|step| matches!(step, Stmt::Set(set, _) if *set == register));
                known[..].get(index).copied().flatten().filter(|_| is_set).unwrap_or(before)
            });
            let value = self.select(condition, accepted, rejected);
            self.set(register, value);
        }
    }

    /// Goes behind the block of that name.
    pub fn exit(&mut self, label: Label) {
        if self.is_dead {
            return;
        }
        match self.exits.get_mut(&label) {
            Some((count, known)) => {
                *count += 1;
                merge(known, &self.known);
            }
            None => {
                self.exits.insert(label, (1, self.known.clone()));
            }
        }
        self.push(Stmt::Exit(label));
        self.is_dead = true;
    }

    /// Goes to the start of the loop of that name.
    pub fn repeat(&mut self, label: Label) {
        self.push(Stmt::Repeat(label));
        self.is_dead = true;
    }

    /// The finished kernel, without what nobody uses.
    pub fn finish(mut self) -> Kernel {
        let Some(outermost) = self.scopes.pop() else { return self.kernel };
        self.kernel.body = outermost.body;
        super::prune::prune(&mut self.kernel);
        super::sink::sink(&mut self.kernel);
        self.kernel
    }

    /// Declares a binding.
    pub fn binding(&mut self, binding: Binding) -> u32 {
        self.kernel.bindings.push(binding);
        self.kernel.bindings.len() as u32 - 1
    }

    fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    fn push(&mut self, step: Stmt) {
        if let Some(scope) = self.scopes.last_mut().filter(|_| !self.is_dead) {
            scope.body.push(step);
        }
    }

    fn open(&mut self, opened: Option<Opened>) {
        let id = self.is_open.len() as u32;
        self.is_open.push(true);
        self.scopes.push(Scope { opened, body: Vec::new(), found: Vec::new(), ids: vec![id] });
    }

    fn close(&mut self) -> (Scope, Option<Opened>) {
        let mut scope = self.scopes.pop().unwrap_or_else(|| Scope { opened: None, body: Vec::new(), found: Vec::new(), ids: Vec::new() });
        let opened = scope.opened.take();
        (scope, opened)
    }

    /// What was computed in a scope is not findable outside.
    fn forget(&mut self, found: Vec<(Op, Scalar)>, ids: &[u32]) {
        for key in found {
            self.findable.remove(&key);
        }
        for &id in ids {
            self.is_open[id as usize] = false;
        }
    }

    fn adopt(&mut self, scope: Scope) {
        if let Some(parent) = self.scopes.last_mut() {
            parent.body.extend(scope.body);
            parent.found.extend(scope.found);
            parent.ids.extend(scope.ids);
        }
    }

    /// Registers that hold what is out of reach now have to be read.
    fn drop_closed(&mut self) {
        let is_open = &self.is_open;
        let homes = &self.homes;
        for known in &mut self.known {
            *known = known.filter(|value| is_open[homes[value.0 as usize] as usize]);
        }
    }
}

/// No value of an unsigned number is above this.
pub(super) fn greatest(kernel: &Kernel, value: ValueId) -> u32 {
    greatest_of(kernel, value, 8)
}

/// As far as so many operators tell.
fn greatest_of(kernel: &Kernel, value: ValueId, depth: u32) -> u32 {
    let (Value { op, .. }, Some(depth)) = (kernel.value(value), depth.checked_sub(1)) else { return u32::MAX };
    let of = |value| greatest_of(kernel, value, depth);
    let known = |value: ValueId| match kernel.value(value).op {
        Op::Const(bits) => Some(bits),
        _ => None,
    };
    match *op {
        Op::Const(bits) => bits,
        Op::Input(Input::LocalId(axis)) => kernel.workgroup[usize::from(axis)] - 1,
        Op::Input(Input::LocalIndex) => kernel.invocations() - 1,
        Op::Unary(Unary::Bits, a) if kernel.value(a).scalar != Scalar::F32 => of(a),
        Op::Unary(Unary::CountOnes | Unary::LeadingZeros | Unary::TrailingZeros, _) => 32,
        Op::Binary(Binary::And, a, b) | Op::Binary(Binary::MinU, a, b) => of(a).min(of(b)),
        Op::Binary(Binary::Add, a, b) => of(a).saturating_add(of(b)),
        Op::Binary(Binary::Mul, a, b) => of(a).saturating_mul(of(b)),
        Op::Binary(Binary::RemU, a, b) => known(b).filter(|&b| b > 0).map_or(of(a), |b| of(a).min(b - 1)),
        Op::Binary(Binary::DivU, a, b) => known(b).filter(|&b| b > 0).map_or(of(a), |b| of(a) / b),
        Op::Binary(Binary::ShrU, a, b) => known(b).map_or(of(a), |b| of(a) >> (b & 31)),
        Op::Select { accept, reject, .. } => of(accept).max(of(reject)),
        Op::Index { count: Count::Fixed(count), .. } => count - 1,
        _ => u32::MAX,
    }
}

/// Keeps what both know.
fn merge(known: &mut Known, other: &Known) {
    for (index, value) in known.iter_mut().enumerate() {
        *value = value.filter(|value| other.get(index).copied().flatten() == Some(*value));
    }
}

/// What an operator made, with the one NaN that kernels show for those that differ from machine to machine.
fn with_one_nan(scalar: Scalar, bits: u32) -> u32 {
    if scalar == Scalar::F32 && f32::from_bits(bits).is_nan() { f32::NAN.to_bits() } else { bits }
}

fn is_commutative(op: Binary) -> bool {
    use Binary::*;
    matches!(op, AddF | MulF | EqF | NeF | Add | Mul | And | Or | Xor | MinI | MinU | MaxI | MaxU | Eq | Ne)
}
