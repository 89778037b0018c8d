//! Places: where variables live, and how they are read, written and stepped into.

use naga::valid::FunctionInfo;
use naga::{ArraySize, Expression, Function, Handle, Statement, Type, TypeInner};

use super::super::ir::{AtomicOp, Binary, Count, Memory, Op, Scalar, Unary, ValueId};
use super::types::column_words;
use super::{Frame, LowerError, Lowering, PRIVATE_WORDS_MAX, Pointer};

/// A variable of more scalars than this lives in memory.
const REGISTERS_MAX: usize = 64;
/// More words than this are cleared by a loop.
const CLEARED_IN_LINE_MAX: u32 = 16;

impl<'a> Lowering<'a> {
    /// Places for a function's local variables, initialised.
    pub(super) fn locals(&mut self, function: &'a Function, info: &'a FunctionInfo) -> Result<Vec<Pointer>, LowerError> {
        let in_memory = indexed(self.module, function, info);
        let mut places = Vec::with_capacity(function.local_variables.len());
        for (handle, variable) in function.local_variables.iter() {
            let span = function.local_variables.get_span(handle);
            let init = variable.init.map(|init| self.constant_value(function, init)).transpose()?;
            let place = self.variable(variable.ty, init, in_memory[handle.index()], span);
            places.push(place.map_err(|error| self.located(error, span))?);
        }
        Ok(places)
    }

    /// A place for a variable of an invocation, with its first value; zero without one.
    pub(super) fn variable(
        &mut self,
        ty: Handle<Type>,
        init: Option<Vec<ValueId>>,
        is_indexed: bool,
        span: naga::Span,
    ) -> Result<Pointer, LowerError> {
        let has_parts = matches!(self.module.types[ty].inner, TypeInner::Array { .. } | TypeInner::Matrix { .. } | TypeInner::Struct { .. });
        if !(is_indexed && has_parts) {
            let leaves = self.leaves(ty)?;
            if leaves.len() <= REGISTERS_MAX {
                let mut registers = Vec::with_capacity(leaves.len());
                for (at, leaf) in leaves.iter().enumerate() {
                    let register = self.builder.register(leaf.scalar);
                    let first = match &init {
                        Some(values) => values[at],
                        None => self.builder.constant(leaf.scalar, 0),
                    };
                    self.builder.set(register, first);
                    registers.push(register);
                }
                return Ok(Pointer::Registers(registers));
            }
        }
        let words = self.words(ty);
        let offset = self.private(words, span)?;
        let address = self.builder.uint(0);
        let place = Pointer::Memory { memory: Memory::Private, address, offset };
        match init {
            Some(values) => self.write(&place, &self.module.types[ty].inner, &values)?,
            None => self.clear(offset, words),
        }
        Ok(place)
    }

    /// Words of private memory; the first.
    pub(super) fn private(&mut self, words: u32, span: naga::Span) -> Result<u32, LowerError> {
        let first = self.builder.kernel().private_words;
        let end = u64::from(first) + u64::from(words);
        if end > PRIVATE_WORDS_MAX.into() {
            return Err(self.too_large("bytes of private memory, with every call inlined,", end * 4, u64::from(PRIVATE_WORDS_MAX) * 4, Some(span)));
        }
        self.builder.kernel().private_words = end as u32;
        Ok(first)
    }

    fn clear(&mut self, first: u32, words: u32) {
        let builder = &mut self.builder;
        let zero = builder.uint(0);
        if words <= CLEARED_IN_LINE_MAX {
            for at in 0..words {
                builder.store(Memory::Private, zero, first + at, zero);
            }
            return;
        }
        let at = builder.register(Scalar::U32);
        builder.set(at, zero);
        let done = builder.begin_block();
        let again = builder.begin_loop([at]);
        let index = builder.get(at);
        let bounded = builder.index(index, Count::Fixed(words));
        builder.store(Memory::Private, bounded, first, zero);
        let one = builder.uint(1);
        let next = builder.binary(Binary::Add, index, one);
        builder.set(at, next);
        let end = builder.uint(words);
        let is_left = builder.binary(Binary::LtU, next, end);
        builder.begin_if(is_left);
        builder.repeat(again);
        builder.begin_else();
        builder.exit(done);
        builder.end_if();
        builder.end_loop();
        builder.end_block();
    }

    /// Reads what a pointer to `inner` points to.
    pub(super) fn read(&mut self, place: &Pointer, inner: &TypeInner) -> Result<Vec<ValueId>, LowerError> {
        match place {
            Pointer::Registers(registers) => Ok(registers.iter().map(|&register| self.builder.get(register)).collect()),
            Pointer::Component(registers, index) => {
                let values: Vec<ValueId> = registers.iter().map(|&register| self.builder.get(register)).collect();
                Ok(vec![self.chosen(&values, *index)])
            }
            Pointer::Memory { memory, address, offset } => {
                if let TypeInner::Atomic(_) = inner {
                    let scalar = self.leaves_of(inner)?[0].scalar;
                    let nothing = self.builder.constant(scalar, 0);
                    return Ok(vec![self.builder.atomic(AtomicOp::Load, *memory, *address, *offset, nothing, None)]);
                }
                let leaves = self.leaves_of(inner)?;
                Ok(leaves.iter().map(|leaf| self.word(*memory, *address, offset + leaf.offset, leaf.scalar)).collect())
            }
        }
    }

    /// Writes what a pointer to `inner` points to.
    pub(super) fn write(&mut self, place: &Pointer, inner: &TypeInner, values: &[ValueId]) -> Result<(), LowerError> {
        match place {
            Pointer::Registers(registers) => registers.iter().zip(values).for_each(|(&register, &value)| self.builder.set(register, value)),
            Pointer::Component(registers, index) => {
                for (at, &register) in registers.iter().enumerate() {
                    let here = self.is_at(*index, at as u32);
                    let before = self.builder.get(register);
                    let after = self.builder.select(here, values[0], before);
                    self.builder.set(register, after);
                }
            }
            Pointer::Memory { memory, address, offset } => {
                if let TypeInner::Atomic(_) = inner {
                    self.builder.atomic(AtomicOp::Store, *memory, *address, *offset, values[0], None);
                    return Ok(());
                }
                for (leaf, &value) in self.leaves_of(inner)?.iter().zip(values) {
                    let word = if matches!(memory, Memory::Binding(_)) { self.canonical(value) } else { value };
                    let word = self.as_word(word);
                    self.builder.store(*memory, *address, offset + leaf.offset, word);
                }
            }
        }
        Ok(())
    }

    /// A scalar of memory, where truth is a word.
    pub(super) fn word(&mut self, memory: Memory, address: ValueId, offset: u32, scalar: Scalar) -> ValueId {
        if scalar != Scalar::Bool {
            return self.builder.load(scalar, memory, address, offset);
        }
        let word = self.builder.load(Scalar::U32, memory, address, offset);
        let zero = self.builder.uint(0);
        self.builder.binary(Binary::Ne, word, zero)
    }

    /// A float as others may see its bits. Machines differ in the sign and payload of a NaN that they make, so every
    /// NaN that is computed leaves as one; a float that is only moved keeps its bits.
    pub(super) fn canonical(&mut self, value: ValueId) -> ValueId {
        let is_computed = match self.builder.op_of(value) {
            Op::Unary(op, _) => !matches!(op, Unary::Bits | Unary::FloatOfI | Unary::FloatOfU),
            Op::Binary(..) | Op::Select { .. } | Op::Get(_) => true,
            // In the kernel's own memory may stand what it has computed.
            Op::Load { memory, .. } => matches!(memory, Memory::Workgroup | Memory::Private),
            _ => false,
        };
        if is_computed { self.with_one_nan(value) } else { value }
    }

    /// A float, with the one NaN for every NaN; anything else as it is.
    pub(super) fn with_one_nan(&mut self, value: ValueId) -> ValueId {
        if self.builder.scalar(value) != Scalar::F32 {
            return value;
        }
        let one_nan = self.builder.float(f32::NAN);
        if let Op::Select { condition, accept, reject } = self.builder.op_of(value)
            && (self.builder.op_of(condition), reject) == (Op::Binary(Binary::EqF, accept, accept), one_nan)
        {
            return value;
        }
        let is_number = self.builder.binary(Binary::EqF, value, value);
        self.builder.select(is_number, value, one_nan)
    }

    /// A scalar as memory has it.
    pub(super) fn as_word(&mut self, value: ValueId) -> ValueId {
        if self.builder.scalar(value) != Scalar::Bool {
            return value;
        }
        let (one, zero) = (self.builder.uint(1), self.builder.uint(0));
        self.builder.select(value, one, zero)
    }

    /// Steps from a pointer to `inner` into a part that is known now.
    pub(super) fn step(&mut self, place: &Pointer, inner: &TypeInner, index: u32) -> Result<Pointer, LowerError> {
        match place {
            Pointer::Registers(registers) => Ok(Pointer::Registers(registers[self.part(inner, index)?].to_vec())),
            Pointer::Component(..) => Err(self.uncovered("a part of a component", None)),
            Pointer::Memory { memory, address, offset } => {
                let words = match *inner {
                    TypeInner::Vector { .. } => index,
                    TypeInner::Matrix { rows, .. } => index * column_words(rows),
                    TypeInner::Array { size: ArraySize::Dynamic, .. } => {
                        let index = self.builder.uint(index);
                        return self.step_to(place, inner, index);
                    }
                    TypeInner::Array { base, stride, .. } => index * self.stride_words(base, stride),
                    TypeInner::Struct { ref members, .. } => self.member_word(members, index as usize),
                    ref other => return Err(self.uncovered(&format!("a part of {other:?}"), None)),
                };
                Ok(Pointer::Memory { memory: *memory, address: *address, offset: offset + words })
            }
        }
    }

    /// Steps from a pointer to `inner` into a part that is known only while running.
    pub(super) fn step_to(&mut self, place: &Pointer, inner: &TypeInner, index: ValueId) -> Result<Pointer, LowerError> {
        let (count, stride) = match (inner, place) {
            (TypeInner::Vector { size, .. }, _) => (Count::Fixed(*size as u32), 1),
            (TypeInner::Matrix { columns, rows, .. }, _) => (Count::Fixed(*columns as u32), column_words(*rows)),
            (TypeInner::Array { base, size: ArraySize::Constant(count), stride }, _) => {
                (Count::Fixed(count.get()), self.stride_words(*base, *stride))
            }
            (TypeInner::Array { size: ArraySize::Dynamic, stride, .. }, Pointer::Memory { memory: Memory::Binding(binding), offset, .. }) => {
                (Count::Runtime { binding: *binding, first: *offset, stride: stride / 4 }, stride / 4)
            }
            (other, _) => return Err(self.uncovered(&format!("an index into {other:?}"), None)),
        };
        let index = self.builder.index(index, count);
        match place {
            Pointer::Registers(registers) => Ok(Pointer::Component(registers.clone(), index)),
            Pointer::Component(..) => Err(self.uncovered("a part of a component", None)),
            Pointer::Memory { memory, address, offset } => {
                let stride = self.builder.uint(stride);
                let words = self.builder.binary(Binary::Mul, index, stride);
                let address = self.builder.binary(Binary::Add, *address, words);
                Ok(Pointer::Memory { memory: *memory, address, offset: *offset })
            }
        }
    }

    /// The part of a value that is known only while running: a few are selected from, more go through memory.
    pub(super) fn part_at(&mut self, values: &[ValueId], inner: &TypeInner, index: ValueId, span: naga::Span) -> Result<Vec<ValueId>, LowerError> {
        let size = self.part(inner, 0)?.len();
        let count = values.len() / size.max(1);
        let index = self.builder.index(index, Count::Fixed(count as u32));
        if count <= 4 {
            let columns = |at: usize| values.iter().skip(at).step_by(size).copied().collect::<Vec<_>>();
            return Ok((0..size).map(|at| self.chosen(&columns(at), index)).collect());
        }
        let stride = self.builder.uint(size as u32);
        let address = self.builder.binary(Binary::Mul, index, stride);
        let scalars: Vec<Scalar> = values[..size].iter().map(|&value| self.builder.scalar(value)).collect();
        let constants: Option<Vec<u32>> = values.iter().map(|&value| self.builder.known_bits(value)).collect();
        let (memory, first) = match constants {
            Some(words) => (Memory::Constant, self.table(words)),
            None => {
                let first = self.private(values.len() as u32, span)?;
                let zero = self.builder.uint(0);
                for (at, &value) in values.iter().enumerate() {
                    let word = self.as_word(value);
                    self.builder.store(Memory::Private, zero, first + at as u32, word);
                }
                (Memory::Private, first)
            }
        };
        Ok(scalars.iter().zip(first..).map(|(&scalar, offset)| self.word(memory, address, offset, scalar)).collect())
    }

    fn table(&mut self, words: Vec<u32>) -> u32 {
        let constants = &mut self.builder.kernel().constants;
        *self.tables.entry(words).or_insert_with_key(|words| {
            let first = constants.len() as u32;
            constants.extend(words);
            first
        })
    }

    /// One of a few values.
    fn chosen(&mut self, values: &[ValueId], index: ValueId) -> ValueId {
        let mut chosen = values[0];
        for (at, &value) in values.iter().enumerate().skip(1) {
            let here = self.is_at(index, at as u32);
            chosen = self.builder.select(here, value, chosen);
        }
        chosen
    }

    fn is_at(&mut self, index: ValueId, at: u32) -> ValueId {
        let at = self.builder.uint(at);
        self.builder.binary(Binary::Eq, index, at)
    }

    /// The registers that a block writes, of variables that exist before it.
    pub(super) fn written(&self, frame: &Frame<'a>, block: &naga::Block, registers: &mut Vec<super::RegisterId>) {
        for statement in block.iter() {
            match statement {
                Statement::Store { pointer, .. } => self.add_root(frame, *pointer, registers),
                Statement::Call { arguments, .. } => {
                    arguments.iter().for_each(|&argument| self.add_root(frame, argument, registers));
                    // What the function writes of the module's own variables is not looked up.
                    for place in self.globals.iter().flatten() {
                        add_registers(place, registers);
                    }
                }
                Statement::Block(inner) => self.written(frame, inner, registers),
                Statement::If { accept, reject, .. } => {
                    self.written(frame, accept, registers);
                    self.written(frame, reject, registers);
                }
                Statement::Switch { cases, .. } => cases.iter().for_each(|case| self.written(frame, &case.body, registers)),
                Statement::Loop { body, continuing, .. } => {
                    self.written(frame, body, registers);
                    self.written(frame, continuing, registers);
                }
                _ => {}
            }
        }
    }

    fn add_root(&self, frame: &Frame<'a>, expression: Handle<Expression>, registers: &mut Vec<super::RegisterId>) {
        match frame.function.expressions[expression] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.add_root(frame, base, registers),
            Expression::LocalVariable(local) => add_registers(&frame.locals[local.index()], registers),
            Expression::GlobalVariable(global) => {
                self.globals[global.index()].iter().for_each(|place| add_registers(place, registers));
            }
            Expression::FunctionArgument(index) => {
                if let super::Item::Pointer(place) = &frame.arguments[index as usize] {
                    add_registers(place, registers);
                }
            }
            _ => {}
        }
    }
}

fn add_registers(place: &Pointer, registers: &mut Vec<super::RegisterId>) {
    match place {
        Pointer::Registers(list) | Pointer::Component(list, _) => registers.extend(list),
        Pointer::Memory { .. } => {}
    }
}

/// Per local variable, whether some array or matrix in it is indexed by what is known only while running, or may be
/// where a pointer to it goes.
fn indexed(module: &naga::Module, function: &Function, info: &FunctionInfo) -> Vec<bool> {
    let mut marks = vec![false; function.local_variables.len()];
    let mut mark = |mut expression: Handle<Expression>| loop {
        match function.expressions[expression] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => expression = base,
            Expression::LocalVariable(local) => return marks[local.index()] = true,
            _ => return,
        }
    };
    for (_, expression) in function.expressions.iter() {
        if let Expression::Access { base, .. } = *expression
            && let TypeInner::Pointer { base: ty, .. } = *info[base].ty.inner_with(&module.types)
            && matches!(module.types[ty].inner, TypeInner::Array { .. } | TypeInner::Matrix { .. })
        {
            mark(base);
        }
    }
    let mut blocks = vec![&function.body];
    while let Some(block) = blocks.pop() {
        for statement in block.iter() {
            match statement {
                // The function may index what it is given.
                Statement::Call { arguments, .. } => arguments.iter().for_each(|&argument| {
                    if has_array(module, info[argument].ty.inner_with(&module.types)) {
                        mark(argument);
                    }
                }),
                Statement::Block(inner) => blocks.push(inner),
                Statement::If { accept, reject, .. } => blocks.extend([accept, reject]),
                Statement::Switch { cases, .. } => blocks.extend(cases.iter().map(|case| &case.body)),
                Statement::Loop { body, continuing, .. } => blocks.extend([body, continuing]),
                _ => {}
            }
        }
    }
    marks
}

/// Whether a pointer's type holds something that can be indexed.
fn has_array(module: &naga::Module, inner: &TypeInner) -> bool {
    match inner {
        TypeInner::Pointer { base, .. } => has_array(module, &module.types[*base].inner),
        TypeInner::Array { .. } | TypeInner::Matrix { .. } => true,
        TypeInner::Struct { members, .. } => members.iter().any(|member| has_array(module, &module.types[member.ty].inner)),
        _ => false,
    }
}
