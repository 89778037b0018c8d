//! What a kernel means, as plainly as it can be said, and kernels at random: what the tests of everything that
//! runs or judges kernels are held against.
//!
//! Invocations run one after the other, each step as it stands in the tree and each operator by `ops.rs`.
//! Invariant: a kernel made by [`random_kernel`] ends, does not race, and leaves no trace of a NaN's payload, so
//! the order of its invocations is nobody's business.

use std::ops::Range;

use super::builder::Builder;
use super::ir::{AtomicOp, Binary, Binding, Count, Input, Kernel, Label, Memory, Op, RegisterId, Scalar, Stmt, Unary, ValueId};
use super::ops;

/// An invocation under way.
pub(crate) struct Lane<'k> {
    pub(crate) kernel: &'k Kernel,
    /// Its workgroup, counted x first.
    pub(crate) group: u64,
    /// Its `local_invocation_index`.
    pub(crate) index: u32,
    /// Per value, what it was last.
    pub(crate) values: Vec<u32>,
    /// Per loop around the present step, how often it has begun.
    pub(crate) iterations: Vec<u32>,
    groups: [u32; 3],
    registers: Vec<u32>,
    private: Vec<u32>,
}

enum Flow {
    On,
    Exit(Label),
    Repeat(Label),
}

struct Run<'k, 'm, 'w> {
    lane: Lane<'k>,
    bindings: &'m mut [Vec<u32>],
    workgroup: &'m mut Vec<u32>,
    watch: &'w mut dyn FnMut(&Lane<'_>, ValueId),
}

/// Runs workgroups of a kernel without barriers; `watch` sees each value whenever it is computed.
pub(crate) fn run(kernel: &Kernel, bindings: &mut [Vec<u32>], groups: [u32; 3], range: Range<u64>, watch: &mut dyn FnMut(&Lane<'_>, ValueId)) {
    for group in range {
        let mut workgroup = vec![0; kernel.workgroup_words as usize];
        for index in 0..kernel.invocations() {
            let lane = Lane {
                kernel,
                group,
                index,
                values: vec![0; kernel.values.len()],
                iterations: Vec::new(),
                groups,
                registers: vec![0; kernel.registers.len()],
                private: vec![0; kernel.private_words as usize],
            };
            let mut run = Run { lane, bindings, workgroup: &mut workgroup, watch };
            for value in 0..kernel.values.len() {
                if matches!(kernel.values[value].op, Op::Const(_) | Op::Input(_) | Op::Length(_)) {
                    run.lane.values[value] = run.compute(kernel.values[value].op);
                }
            }
            run.steps(&kernel.body);
        }
    }
}

impl Lane<'_> {
    pub(crate) fn value(&self, value: ValueId) -> u32 {
        self.values[value.0 as usize]
    }

    fn input(&self, input: Input) -> u32 {
        let [x, y, _] = self.kernel.workgroup;
        let [groups_x, groups_y, _] = self.groups.map(u64::from);
        match input {
            Input::LocalIndex => self.index,
            Input::LocalId(0) => self.index % x,
            Input::LocalId(1) => self.index / x % y,
            Input::LocalId(_) => self.index / (x * y),
            Input::GroupId(0) => (self.group % groups_x) as u32,
            Input::GroupId(1) => (self.group / groups_x % groups_y) as u32,
            Input::GroupId(_) => (self.group / (groups_x * groups_y)) as u32,
            Input::Groups(axis) => self.groups[usize::from(axis)],
        }
    }
}

impl Run<'_, '_, '_> {
    pub(crate) fn count(&self, count: Count) -> u32 {
        match count {
            Count::Fixed(count) => count,
            Count::Runtime { binding, first, stride } => (self.bindings[binding as usize].len() as u32 - first) / stride,
        }
    }

    fn steps(&mut self, steps: &[Stmt]) -> Flow {
        for step in steps {
            let flow = self.step(step);
            if !matches!(flow, Flow::On) {
                return flow;
            }
        }
        Flow::On
    }

    fn step(&mut self, step: &Stmt) -> Flow {
        match step {
            Stmt::Let(value) => {
                self.lane.values[value.0 as usize] = self.compute(self.lane.kernel.value(*value).op);
                (self.watch)(&self.lane, *value);
            }
            Stmt::Set(register, value) => self.lane.registers[register.0 as usize] = self.lane.value(*value),
            Stmt::Store { memory, address, offset, value, .. } => {
                let word = self.lane.value(*value);
                *self.word(*memory, self.lane.value(*address), *offset) = word;
            }
            Stmt::Atomic { op, memory, address, offset, value, compare, found, .. } => {
                let (operand, compare) = (self.lane.value(*value), compare.map_or(0, |value| self.lane.value(value)));
                let word = self.word(*memory, self.lane.value(*address), *offset);
                let old = *word;
                *word = ops::atomic(*op, old, operand, compare);
                if let Some(found) = found {
                    self.lane.values[found.0 as usize] = old;
                }
            }
            Stmt::If { condition, accept, reject } => {
                return self.steps(if self.lane.value(*condition) != 0 { accept } else { reject });
            }
            Stmt::Block { label, body } => match self.steps(body) {
                Flow::Exit(left) if left == *label => {}
                flow => return flow,
            },
            Stmt::Loop { label, body } => return self.repeated(*label, body),
            Stmt::Exit(label) => return Flow::Exit(*label),
            Stmt::Repeat(label) => return Flow::Repeat(*label),
            Stmt::Barrier { .. } | Stmt::Across { .. } => unreachable!("invocations run one after the other"),
        }
        Flow::On
    }

    fn repeated(&mut self, label: Label, body: &[Stmt]) -> Flow {
        self.lane.iterations.push(0);
        let flow = loop {
            match self.steps(body) {
                Flow::Repeat(repeated) if repeated == label => *self.lane.iterations.last_mut().unwrap() += 1,
                Flow::Exit(left) if left == label => break Flow::On,
                flow => break flow,
            }
        };
        self.lane.iterations.pop();
        flow
    }

    fn word(&mut self, memory: Memory, address: u32, offset: u32) -> &mut u32 {
        let at = (address + offset) as usize;
        match memory {
            Memory::Binding(binding) => &mut self.bindings[binding as usize][at],
            Memory::Workgroup => &mut self.workgroup[at],
            Memory::Private => &mut self.lane.private[at],
            Memory::Constant => unreachable!("constants are never written"),
        }
    }

    fn compute(&mut self, op: Op) -> u32 {
        let lane = &self.lane;
        match op {
            Op::Const(bits) => bits,
            Op::Input(input) => lane.input(input),
            Op::Get(register) => lane.registers[register.0 as usize],
            Op::Unary(op, a) => ops::unary(op, lane.value(a)),
            Op::Binary(op, a, b) => ops::binary(op, lane.value(a), lane.value(b)),
            Op::Select { condition, accept, reject } => lane.value(if lane.value(condition) != 0 { accept } else { reject }),
            Op::Index { index, count } => lane.value(index).min(self.count(count) - 1),
            Op::Length(count) => self.count(count),
            Op::Load { memory: Memory::Constant, address, offset } => lane.kernel.constants[(lane.value(address) + offset) as usize],
            Op::Load { memory, address, offset } => *self.word(memory, self.lane.value(address), offset),
            Op::Found => unreachable!("defined by its atomic"),
        }
    }
}

// ---- kernels at random

/// Words of binding 0, which is only read.
pub(crate) const INPUT_WORDS: u32 = 45;
/// Words of each invocation in bindings 1 to 3, which only it touches, and of its workgroup and private memory.
pub(crate) const OWN_WORDS: u32 = 3;
/// Words of binding 4, to which everybody adds.
pub(crate) const SUMS: u32 = 2;

/// A kernel and what it is run over.
pub(crate) struct Random {
    pub(crate) kernel: Kernel,
    pub(crate) groups: [u32; 3],
}

impl Random {
    /// Memory to run it on: an input of anything, the rest of zeros.
    pub(crate) fn bindings(&self) -> Vec<Vec<u32>> {
        let own = vec![0; (self.invocations() * OWN_WORDS) as usize];
        let input = (0..INPUT_WORDS).map(|at| match at % 5 {
            0 => at,
            1 => (at as f32 - 20.5).to_bits(),
            2 => at.wrapping_mul(0x9e37_79b9),
            3 => [0, 1, 0x8000_0000, 0x7f80_0000, 0x7fc0_0000, 0xff80_0000, u32::MAX, 0x4f00_0000, 2][at as usize / 5],
            _ => 100 - at,
        });
        vec![input.collect(), own.clone(), own.clone(), own, vec![0; SUMS as usize]]
    }

    pub(crate) fn invocations(&self) -> u32 {
        self.groups.iter().product::<u32>() * self.kernel.invocations()
    }
}

/// A kernel by choices: the same ones make the same kernel, fewer make a smaller one.
pub(crate) fn random_kernel(choices: &[u8]) -> Random {
    let mut choices = Choices { bytes: choices, at: 0 };
    let workgroup = choices.of(&[[8, 1, 1], [4, 3, 2], [3, 1, 1], [16, 2, 1], [1, 1, 1], [5, 2, 1], [1, 6, 1], [64, 1, 1], [12, 3, 1]]);
    let groups = choices.of(&[[1, 1, 1], [3, 1, 1], [2, 2, 1], [1, 2, 3]]);
    let mut builder = Builder::new("random", workgroup);
    if choices.below(2) == 0 {
        builder = builder.without_speculation();
    }
    for is_writable in [false, true, true, true, true] {
        let number = builder.kernel().bindings.len() as u32;
        builder.binding(Binding { number, is_writable, words_min: 1 });
    }
    let invocations = workgroup.iter().product::<u32>();
    let kernel = builder.kernel();
    (kernel.workgroup_words, kernel.private_words) = (invocations * OWN_WORDS, OWN_WORDS);
    kernel.constants = vec![3, 1, 4, 1, 5];
    let registers = (0..6).map(|number| builder.register([Scalar::U32, Scalar::F32, Scalar::Bool][number % 3])).collect();
    let total = groups.iter().product::<u32>() * invocations;
    let mut maker =
        Maker { choices, builder, values: Vec::new(), registers, fuels: Vec::new(), labels: Vec::new(), place: [ValueId(0); 4], total, depth: 0 };
    maker.begin(invocations);
    maker.steps(40);
    maker.end();
    Random { kernel: maker.builder.finish(), groups }
}

struct Choices<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(byte) % count
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn are_left(&self) -> bool {
        self.at < self.bytes.len()
    }
}

struct Maker<'a> {
    choices: Choices<'a>,
    builder: Builder,
    values: Vec<ValueId>,
    registers: Vec<RegisterId>,
    /// Per loop around, what counts its rounds.
    fuels: Vec<RegisterId>,
    /// Blocks and loops around; loops with `true`.
    labels: Vec<(Label, bool)>,
    /// First own word in bindings 1 to 3 and in workgroup memory: packed, in rows, in rows backwards, in rows.
    place: [ValueId; 4],
    /// Invocations of the dispatch.
    total: u32,
    depth: u32,
}

impl Maker<'_> {
    fn begin(&mut self, invocations: u32) {
        let b = &mut self.builder;
        let [x, y, z] = [0, 1, 2].map(|axis| b.input(Input::GroupId(axis)));
        let [width, height] = [0, 1].map(|axis| b.input(Input::Groups(axis)));
        let lane = b.input(Input::LocalIndex);
        let row = b.binary(Binary::Mul, z, height);
        let row = b.binary(Binary::Add, row, y);
        let start = b.binary(Binary::Mul, row, width);
        let group = b.binary(Binary::Add, start, x);
        let size = b.uint(invocations);
        let first = b.binary(Binary::Mul, group, size);
        let global = b.binary(Binary::Add, first, lane);
        let (words, total) = (b.uint(OWN_WORDS), b.uint(self.total - 1));
        let packed = b.binary(Binary::Mul, global, words);
        let backwards = b.binary(Binary::Sub, total, global);
        self.place = [packed, global, backwards, lane];
        self.values = vec![lane, global, first, group, x];
        for axis in 0..3 {
            let id = self.builder.input(Input::LocalId(axis));
            self.values.push(id);
        }
        for word in 0..OWN_WORDS {
            let (zero, value) = (self.builder.uint(0), self.values[word as usize]);
            self.builder.store(Memory::Private, zero, word, value);
        }
    }

    /// Leaves behind what registers hold.
    fn end(&mut self) {
        for register in 0..self.registers.len() {
            let value = self.builder.get(self.registers[register]);
            let value = self.word(value);
            let address = self.place[1];
            let offset = self.total * (register as u32 % OWN_WORDS);
            let old = self.builder.load(Scalar::U32, Memory::Binding(2), address, offset);
            let mixed = self.builder.binary(Binary::Xor, old, value);
            self.builder.store(Memory::Binding(2), address, offset, mixed);
        }
    }

    fn steps(&mut self, most: usize) {
        let values = self.values.len();
        for _ in 0..1 + self.choices.below(most) {
            if !self.choices.are_left() || self.builder.is_dead() || self.builder.values() > 3000 {
                break;
            }
            self.step();
        }
        self.values.truncate(values);
    }

    fn step(&mut self) {
        match self.choices.below(16) {
            0..=5 => self.compute(),
            6 | 7 => {
                let register = self.choices.of(&self.registers.clone());
                let scalar = self.builder.kernel().registers[register.0 as usize];
                let value = self.operand(scalar);
                self.builder.set(register, value);
            }
            8 | 9 => self.store(),
            10 => self.atomic(),
            11 | 12 => self.branch(),
            13 => self.block(),
            14 => self.repeated(),
            _ => self.jump(),
        }
    }

    /// Any value that is there.
    fn any(&mut self) -> ValueId {
        // What is new is likelier.
        let back = self.choices.below(self.values.len().min(12));
        if self.choices.below(3) == 0 { self.values[back % self.values.len()] } else { self.values[self.values.len() - 1 - back] }
    }

    /// Any value, as a scalar.
    fn operand(&mut self, scalar: Scalar) -> ValueId {
        if self.choices.below(4) == 0 {
            let bits = match scalar {
                Scalar::Bool => self.choices.of(&[0, 1]),
                Scalar::F32 => self.choices.of(&[1.0f32, 0.5, -3.25, 0.0, 1e9, -0.0]).to_bits(),
                _ => self.choices.of(&[1, 3, 2, 7, 0, 4, 16, u32::MAX, 31, 0x8000_0000]),
            };
            return self.builder.constant(scalar, bits);
        }
        let mut value = self.any();
        if self.choices.below(2) == 0 {
            let builder = &self.builder;
            value = self.values.iter().rev().take(12).copied().find(|&value| builder.scalar(value) == scalar).unwrap_or(value);
        }
        let b = &mut self.builder;
        match (b.scalar(value), scalar) {
            (from, to) if from == to => value,
            (Scalar::Bool, to) => {
                let [one, other] = [2u32, 5].map(|bits| b.constant(to, if to == Scalar::F32 { (bits as f32).to_bits() } else { bits }));
                b.select(value, one, other)
            }
            (from, Scalar::Bool) => {
                let bound = b.constant(from, if from == Scalar::F32 { 2.0f32.to_bits() } else { 6 });
                let op = if from == Scalar::F32 { Binary::LtF } else { Binary::LtU };
                b.binary(op, value, bound)
            }
            (Scalar::F32, to) => {
                let word = self.word(value);
                self.builder.bits(to, word)
            }
            (Scalar::I32, Scalar::F32) => b.unary(Unary::FloatOfI, value),
            (_, Scalar::F32) => b.unary(Unary::FloatOfU, value),
            (_, to) => b.bits(to, value),
        }
    }

    /// A value as a word for memory: one NaN is as good as another.
    fn word(&mut self, value: ValueId) -> ValueId {
        let b = &mut self.builder;
        match b.scalar(value) {
            Scalar::F32 => {
                let is_number = b.binary(Binary::EqF, value, value);
                let (bits, nan) = (b.bits(Scalar::U32, value), b.uint(0x7fc0_0000));
                b.select(is_number, bits, nan)
            }
            Scalar::Bool => {
                let [one, zero] = [1, 0].map(|bits| b.uint(bits));
                b.select(value, one, zero)
            }
            _ => b.bits(Scalar::U32, value),
        }
    }

    fn compute(&mut self) {
        let value = match self.choices.below(12) {
            0..=4 => self.binary(),
            5 | 6 => self.unary(),
            7 => {
                let scalar = self.choices.of(&[Scalar::U32, Scalar::F32, Scalar::I32, Scalar::Bool]);
                let (condition, accept, reject) = (self.operand(Scalar::Bool), self.operand(scalar), self.operand(scalar));
                self.builder.select(condition, accept, reject)
            }
            8 => {
                let register = self.choices.of(&self.registers.clone());
                self.builder.get(register)
            }
            9 => {
                let index = self.operand(Scalar::U32);
                let address = self.builder.index(index, Count::Runtime { binding: 0, first: 1, stride: 1 });
                let scalar = self.choices.of(&[Scalar::U32, Scalar::F32]);
                self.builder.load(scalar, Memory::Binding(0), address, 1)
            }
            10 => {
                // Structs of three words, of which the second is asked for.
                let index = self.operand(Scalar::U32);
                let element = self.builder.index(index, Count::Fixed(INPUT_WORDS / 3));
                let three = self.builder.uint(3);
                let address = self.builder.binary(Binary::Mul, element, three);
                self.builder.load(Scalar::U32, Memory::Binding(0), address, 1)
            }
            _ => self.load(),
        };
        self.values.push(value);
    }

    fn unary(&mut self) -> ValueId {
        use Unary::*;
        let op = self.choices.of(&[
            NegF,
            AbsF,
            SqrtF,
            FloorF,
            CeilF,
            TruncF,
            RoundF,
            IntOfF,
            UintOfF,
            Not,
            CountOnes,
            LeadingZeros,
            TrailingZeros,
            FloatOfU,
            NotB,
            FloatOfI,
        ]);
        let a = match op {
            NegF | AbsF | SqrtF | FloorF | CeilF | TruncF | RoundF | IntOfF | UintOfF => self.operand(Scalar::F32),
            NotB => self.operand(Scalar::Bool),
            FloatOfI => self.operand(Scalar::I32),
            _ => self.operand(Scalar::U32),
        };
        self.builder.unary(op, a)
    }

    fn binary(&mut self) -> ValueId {
        use Binary::*;
        let op = self.choices.of(&[
            Add, Mul, Sub, Add, Add, Mul, Shl, LtU, AddF, MulF, SubF, DivF, MinF, MaxF, EqF, NeF, LtF, LeF, DivI, DivU, RemI, RemU, And, Or, Xor,
            ShrI, ShrU, MinI, MinU, MaxI, MaxU, Eq, Ne, LtI, LeI, LeU,
        ]);
        let scalar = match op {
            AddF | MulF | SubF | DivF | MinF | MaxF | EqF | NeF | LtF | LeF => Scalar::F32,
            DivI | RemI | ShrI | MinI | MaxI | LtI | LeI => Scalar::I32,
            And | Or | Xor | Eq | Ne => self.choices.of(&[Scalar::U32, Scalar::Bool]),
            _ => Scalar::U32,
        };
        let (a, b) = (self.operand(scalar), self.operand(scalar));
        self.builder.binary(op, a, b)
    }

    /// Own memory: where, and how far the words of it are apart.
    fn own(&mut self) -> (Memory, ValueId, u32) {
        let lanes = self.builder.kernel().invocations();
        let word = self.choices.below(OWN_WORDS as usize) as u32;
        match self.choices.below(5) {
            0 => (Memory::Binding(1), self.place[0], word),
            1 => (Memory::Binding(2), self.place[1], word * self.total),
            2 => (Memory::Binding(3), self.place[2], word * self.total),
            3 => (Memory::Workgroup, self.place[3], word * lanes),
            _ => {
                let index = self.operand(Scalar::U32);
                (Memory::Private, self.builder.index(index, Count::Fixed(OWN_WORDS)), 0)
            }
        }
    }

    fn load(&mut self) -> ValueId {
        if self.choices.below(4) == 0 {
            let index = self.operand(Scalar::U32);
            let address = self.builder.index(index, Count::Fixed(4));
            return self.builder.load(Scalar::U32, Memory::Constant, address, 1);
        }
        let (memory, address, offset) = self.own();
        self.builder.load(Scalar::U32, memory, address, offset)
    }

    fn store(&mut self) {
        let (memory, address, offset) = self.own();
        let value = self.any();
        let value = self.word(value);
        self.builder.store(memory, address, offset, value);
    }

    fn atomic(&mut self) {
        use AtomicOp::*;
        let scalar = self.choices.of(&[Scalar::U32, Scalar::I32]);
        let value = self.operand(scalar);
        if self.choices.below(2) == 0 {
            let word = self.choices.below(SUMS as usize) as u32;
            let zero = self.builder.uint(0);
            self.builder.atomic(Add, Memory::Binding(4), zero, word, value, None);
            return;
        }
        let (memory, address, offset) = self.own();
        if memory == Memory::Private {
            return;
        }
        let op = self.choices.of(&[Load, Store, Add, Sub, And, Or, Xor, MinI, MinU, MaxI, MaxU, Exchange, CompareExchange]);
        let compare = (op == CompareExchange).then(|| self.operand(scalar));
        let found = self.builder.atomic(op, memory, address, offset, value, compare);
        self.values.push(found);
    }

    fn branch(&mut self) {
        if self.depth > 6 {
            return;
        }
        self.depth += 1;
        let condition = self.operand(Scalar::Bool);
        self.builder.begin_if(condition);
        self.steps(5);
        self.builder.begin_else();
        if self.choices.below(2) == 0 {
            self.steps(5);
        }
        self.builder.end_if();
        self.depth -= 1;
    }

    fn block(&mut self) {
        if self.depth > 6 {
            return;
        }
        self.depth += 1;
        let label = self.builder.begin_block();
        self.labels.push((label, false));
        self.steps(8);
        self.labels.pop();
        self.builder.end_block();
        self.depth -= 1;
    }

    /// A loop of at most three rounds, counted before anything else happens in it.
    fn repeated(&mut self) {
        if self.fuels.len() > 2 || self.depth > 6 {
            return;
        }
        self.depth += 1;
        let fuel = self.builder.register(Scalar::U32);
        let full = match self.choices.below(3) {
            0 => self.operand(Scalar::U32),
            rounds => self.builder.uint(rounds as u32 + 1),
        };
        let three = self.builder.uint(3);
        let full = self.builder.binary(Binary::And, full, three);
        self.builder.set(fuel, full);
        self.fuels.push(fuel);
        let block = self.builder.begin_block();
        let written: Vec<RegisterId> = self.registers.iter().chain(&self.fuels).copied().collect();
        let label = self.builder.begin_loop(written);
        let left = self.builder.get(fuel);
        let zero = self.builder.uint(0);
        let is_over = self.builder.binary(Binary::Eq, left, zero);
        self.builder.begin_if(is_over);
        self.builder.exit(block);
        self.builder.begin_else();
        self.builder.end_if();
        let one = self.builder.uint(1);
        let less = self.builder.binary(Binary::Sub, left, one);
        self.builder.set(fuel, less);
        self.labels.extend([(block, false), (label, true)]);
        self.steps(8);
        self.labels.truncate(self.labels.len() - 2);
        if self.choices.below(8) != 7 {
            self.builder.repeat(label);
        }
        self.builder.end_loop();
        self.builder.end_block();
        self.fuels.pop();
        self.depth -= 1;
    }

    fn jump(&mut self) {
        if self.labels.is_empty() {
            return self.compute();
        }
        let (label, is_loop) = self.choices.of(&self.labels.clone());
        let jump = |builder: &mut Builder| if is_loop { builder.repeat(label) } else { builder.exit(label) };
        if self.choices.below(4) == 3 {
            return jump(&mut self.builder);
        }
        let (condition, is_accepted) = (self.operand(Scalar::Bool), self.choices.below(3) < 2);
        self.builder.begin_if(condition);
        if is_accepted {
            jump(&mut self.builder);
        }
        self.builder.begin_else();
        if !is_accepted {
            jump(&mut self.builder);
        }
        self.builder.end_if();
    }
}

/// Choices for [`random_kernel`].
pub(crate) fn choices() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::num::u8::ANY, 0..600)
}

/// So many cases, or as many as `PROPTEST_CASES` asks for.
pub(crate) fn config(cases: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, contextualize_config};
    contextualize_config(Config { cases, ..Config::default() })
}
