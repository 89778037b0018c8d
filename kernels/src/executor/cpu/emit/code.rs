//! The function in the making: its locals, its blocks, its scratch memory.

use std::collections::HashMap;

use wasm_encoder::{
    BlockType, CodeSection, EntityType, ExportKind, ExportSection, FunctionSection, ImportSection, Instruction as I, MemArg, MemoryType, Module,
    TypeSection, ValType,
};

use super::super::ir::{Count, Kernel, Label, Op, Scalar, ValueId};
use super::super::shape::{Shape, Shapes};
use super::class::{Class, Classes, Lanes};
use super::linear::{Anchors, Linear};
use super::outline::outline;
use super::packs::Packs;
use super::pairs::Twin;
pub(super) use super::piece::Local;
use super::piece::Piece;
use super::plan::Uses;
use super::{EmitError, Emitted, HEAD_WORDS, Host};

/// How a value of the segment in progress is held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    /// A scalar: of all four lanes, or of the first.
    Scalar(Local),
    /// A scalar of the first lane, and whether its test has passed.
    Checked(Local, Local),
    /// Four lanes.
    Vector(Local),
    /// A scalar of all four lanes: a word of this vector, by its place.
    Word(Local, u8),
}

/// Four lanes in progress.
pub(super) struct Quad {
    pub(super) classes: Classes,
    pub(super) held: HashMap<ValueId, Held>,
    /// Loads that are one.
    pub(super) packs: Packs,
    /// Where its addresses begin.
    pub(super) anchors: Anchors,
    /// Where the first lane stands in the workgroup.
    pub(super) place: [Local; 3],
    /// The first lane's number.
    pub(super) first: Local,
    /// Which lanes take part; all without one.
    pub(super) mask: Option<Local>,
    /// Where lanes go that leave the segment.
    pub(super) end: u32,
}

/// Where a label is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The depth at which its wasm block was opened.
    pub(super) depth: u32,
    /// Lanes that have gone there one by one; only where lanes part.
    pub(super) gone: Option<Local>,
}

pub(super) struct Emitter<'k> {
    pub(super) kernel: &'k Kernel,
    pub(super) shapes: &'k Shapes,
    pub(super) uses: Uses,
    pub(super) lanes: Lanes,
    code: Vec<I<'static>>,
    locals: Vec<ValType>,
    pub(super) depth: u32,
    pub(super) targets: HashMap<Label, Target>,
    pub(super) bindings: Vec<(Local, Local)>,
    pub(super) counts: HashMap<Count, Local>,
    pub(super) groups: [Local; 3],
    pub(super) group: [Local; 3],
    host: Host,
    /// The stop flag's address, or how often it may be asked for before the import is.
    stop: Local,
    pub(super) scratch: Local,
    pub(super) constants: Local,
    pub(super) scratch_bytes: u32,
    /// Where in scratch lanes write that take no part.
    pub(super) nowhere: Option<u32>,
    /// The places of splat constants among the constants in memory, where there are so many that they are kept there.
    pool: HashMap<u32, u32>,
    /// Where steps begin and end that may be put in functions, list by list.
    lists: Vec<Vec<usize>>,
    /// Whether steps may be put in functions: they are seldom run, or nobody knows.
    pub(super) is_cold: bool,
    pub(super) private: u32,
    /// Scalars of the workgroup, with their steps.
    pub(super) outer: HashMap<ValueId, [i32; 3]>,
    pub(super) outer_locals: HashMap<ValueId, Local>,
    /// Scalars of the workgroup that are made of others where they are used.
    pub(super) derived: HashMap<ValueId, Linear>,
    /// Where values of all lanes wait for another segment.
    pub(super) spills: HashMap<ValueId, u32>,
    pub(super) registers: Vec<Local>,
    /// Where registers of all lanes wait for another segment.
    pub(super) kept: Vec<Option<u32>>,
    /// Uniform registers that a segment writes, and what they held before it.
    pub(super) saved_registers: Vec<(Local, Local)>,
    pub(super) quad: Option<Quad>,
    /// The quad beside it, where two go together.
    pub(super) twin: Option<Twin>,
}

/// The parameter.
pub(super) const ARGS: Local = 0;

/// The import that tells whether it is time to leave.
const LATE: u32 = 0;
/// Checks between two calls of it: each takes some nanoseconds, or as long as a barrier-free stretch of a workgroup.
const CHECKS_SKIPPED: i32 = 1 << 12;

impl<'k> Emitter<'k> {
    pub(super) fn new(kernel: &'k Kernel, shapes: &'k Shapes, uses: Uses, host: Host) -> Emitter<'k> {
        let mut emitter = Emitter {
            kernel,
            shapes,
            uses,
            lanes: Lanes::new(kernel),
            code: Vec::new(),
            locals: vec![ValType::I32],
            depth: 0,
            targets: HashMap::new(),
            bindings: Vec::new(),
            counts: HashMap::new(),
            groups: [0; 3],
            group: [0; 3],
            host,
            stop: 0,
            scratch: 0,
            constants: 0,
            scratch_bytes: 0,
            nowhere: None,
            pool: HashMap::new(),
            lists: Vec::new(),
            is_cold: false,
            private: 0,
            outer: HashMap::new(),
            outer_locals: HashMap::new(),
            derived: HashMap::new(),
            spills: HashMap::new(),
            registers: Vec::new(),
            kept: Vec::new(),
            saved_registers: Vec::new(),
            quad: None,
            twin: None,
        };
        emitter.reserve(kernel.workgroup_words * 4);
        emitter.private = emitter.reserve(kernel.private_words * emitter.lanes.padded * 4);
        for (at, &scalar) in kernel.registers.iter().enumerate() {
            let is_uniform = shapes.registers[at] == Shape::Uniform;
            let local = emitter.local(if is_uniform { scalar_type(scalar) } else { ValType::V128 });
            emitter.registers.push(local);
            let is_kept = !is_uniform && emitter.uses.is_kept[at];
            let place = is_kept.then(|| emitter.reserve(emitter.lanes.padded * 4));
            emitter.kept.push(place);
        }
        emitter
    }

    /// The finished module.
    ///
    /// **Errors:** it is longer than engines take: <https://webassembly.github.io/spec/js-api/#limits>.
    pub(super) fn module(mut self) -> Result<Emitted, EmitError> {
        let is_shared = self.host.is_shared();
        let mut imports = ImportSection::new();
        let memory = MemoryType { minimum: 1, maximum: is_shared.then_some(1 << 16), memory64: false, shared: is_shared, page_size_log2: None };
        imports.import("m", "m", EntityType::Memory(memory));
        if self.host.is_asked() {
            imports.import("m", "late", EntityType::Function(0));
        }
        // Imported functions are counted first.
        let run = if self.host.is_asked() { LATE + 1 } else { 0 };
        let whole = Piece {
            locals: std::mem::take(&mut self.locals),
            parameters: 1,
            results: vec![ValType::I32],
            code: std::mem::take(&mut self.code),
            lists: std::mem::take(&mut self.lists),
        };
        let mut types = TypeSection::new();
        types.ty().function([], [ValType::I32]);
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        for (number, mut piece) in outline(whole, run + 1).into_iter().enumerate() {
            if number == 0 {
                self.pool_splats(&mut piece.code);
            }
            let function = piece.function()?;
            types.ty().function(piece.locals[..piece.parameters].iter().copied(), piece.results.iter().copied());
            functions.function(1 + number as u32);
            code.function(&function);
        }
        let mut exports = ExportSection::new();
        exports.export("run", ExportKind::Func, run);
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
        let mut constants = self.kernel.constants.clone();
        if !self.pool.is_empty() {
            constants.resize(self.pool_start() + 4 * self.pool.len(), 0);
            for (&bits, &slot) in &self.pool {
                constants[self.pool_start() + 4 * slot as usize..][..4].fill(bits);
            }
        }
        Ok(Emitted { bytes: module.finish(), scratch_bytes: self.scratch_bytes.max(16), constants })
    }

    /// Keeps the splats of code in memory where there are too many for the compiler.
    fn pool_splats(&mut self, code: &mut Vec<I<'static>>) {
        let places = code.iter().filter_map(splat);
        let mut slots = HashMap::new();
        for bits in places {
            let next = slots.len() as u32;
            slots.entry(bits).or_insert(next);
        }
        if slots.len() <= SPLATS_MAX {
            return;
        }
        let start = 4 * self.pool_start() as u64;
        let constants = self.constants;
        let pooled = |instruction: I<'static>| {
            let slot = splat(&instruction).map(|bits| slots[&bits]);
            let place = slot.map(|slot| [I::LocalGet(constants), I::V128Load(at(start + 16 * u64::from(slot)))]);
            let as_it_is = if slot.is_none() { Some(instruction) } else { None };
            place.into_iter().flatten().chain(as_it_is)
        };
        *code = std::mem::take(code).into_iter().flat_map(pooled).collect();
        self.pool = slots;
    }

    /// A list of steps begins; what to give to [`Emitter::cut`] after each of them.
    pub(super) fn begin_list(&mut self) -> usize {
        self.lists.push(vec![self.code.len()]);
        self.lists.len() - 1
    }

    /// A step of a list ends.
    pub(super) fn cut(&mut self, list: usize) {
        if self.is_cold {
            self.lists[list].push(self.code.len());
        }
    }

    pub(super) fn push(&mut self, instruction: I<'static>) {
        self.code.push(instruction);
    }

    pub(super) fn all(&mut self, instructions: impl IntoIterator<Item = I<'static>>) {
        self.code.extend(instructions);
    }

    pub(super) fn local(&mut self, ty: ValType) -> Local {
        self.locals.push(ty);
        self.locals.len() as u32 - 1
    }

    /// Takes what is on the stack into a new local.
    pub(super) fn keep(&mut self, ty: ValType) -> Local {
        let local = self.local(ty);
        self.push(I::LocalSet(local));
        local
    }

    pub(super) fn get(&mut self, local: Local) {
        self.push(I::LocalGet(local));
    }

    pub(super) fn int(&mut self, value: i32) {
        self.push(I::I32Const(value));
    }

    /// Opens a block of wasm; what to give to [`Emitter::branch`] to go behind it, or to its start if it is a loop.
    pub(super) fn open(&mut self, block: fn(BlockType) -> I<'static>) -> u32 {
        self.push(block(BlockType::Empty));
        self.depth += 1;
        self.depth
    }

    pub(super) fn close(&mut self) {
        self.push(I::End);
        self.depth -= 1;
    }

    pub(super) fn branch(&mut self, to: u32) {
        self.push(I::Br(self.depth - to));
    }

    pub(super) fn branch_if(&mut self, to: u32) {
        self.push(I::BrIf(self.depth - to));
    }

    /// Bytes of scratch; their place in it.
    pub(super) fn reserve(&mut self, bytes: u32) -> u32 {
        reserve(&mut self.scratch_bytes, bytes)
    }

    /// Words before the splat constants.
    fn pool_start(&self) -> usize {
        self.kernel.constants.len().next_multiple_of(4)
    }

    /// The same word in all lanes.
    pub(super) fn splat(&mut self, bits: u32) {
        self.push(words([bits; 4]));
    }

    /// Leaves everything if it is time.
    pub(super) fn check_stop(&mut self) {
        let leave = [I::If(BlockType::Empty), I::I32Const(1), I::Return, I::End];
        match self.host {
            Host::Threads => self.all([I::LocalGet(self.stop), I::I32Load(at(0))].into_iter().chain(leave)),
            Host::Alone | Host::Workers => {
                self.all([I::LocalGet(self.stop), I::I32Const(1), I::I32Sub, I::LocalTee(self.stop), I::I32Eqz, I::If(BlockType::Empty)]);
                self.all([I::Call(LATE)].into_iter().chain(leave));
                self.all([I::I32Const(CHECKS_SKIPPED), I::LocalSet(self.stop), I::End]);
            }
        }
    }

    /// The number of elements, as a scalar.
    pub(super) fn count(&mut self, count: Count) {
        match count {
            Count::Fixed(count) => self.int(count as i32),
            Count::Runtime { .. } => {
                let local = self.counts[&count];
                self.get(local);
            }
        }
    }

    /// Reads the arguments, and what follows from them for all workgroups.
    pub(super) fn prologue(&mut self) {
        let argument = |emitter: &mut Self, word: usize| {
            emitter.all([I::LocalGet(ARGS), I::I32Load(at(word as u64 * 4))]);
            emitter.keep(ValType::I32)
        };
        for axis in 0..3 {
            self.groups[axis] = argument(self, 1 + axis);
            self.group[axis] = argument(self, 4 + axis);
        }
        self.stop = match self.host {
            Host::Threads => argument(self, 0),
            Host::Alone | Host::Workers => {
                self.push(I::I32Const(CHECKS_SKIPPED));
                self.keep(ValType::I32)
            }
        };
        self.scratch = argument(self, 8);
        self.constants = argument(self, 9);
        for binding in 0..self.kernel.bindings.len() {
            let place = argument(self, HEAD_WORDS + 2 * binding);
            let words = argument(self, HEAD_WORDS + 2 * binding + 1);
            self.bindings.push((place, words));
        }
        let counts: Vec<Count> = self
            .kernel
            .values
            .iter()
            .filter_map(|value| match value.op {
                Op::Index { count, .. } | Op::Length(count) => Some(count),
                _ => None,
            })
            .collect();
        for count in counts {
            let Count::Runtime { binding, first, stride } = count else { continue };
            if !self.counts.contains_key(&count) {
                let words = self.bindings[binding as usize].1;
                self.all([I::LocalGet(words), I::I32Const(first as i32), I::I32Sub, I::I32Const(stride as i32), I::I32DivU]);
                let local = self.keep(ValType::I32);
                self.counts.insert(count, local);
            }
        }
    }

    /// How a value is held where code is being made.
    pub(super) fn class(&self, value: ValueId) -> Class {
        if let Some(class) = self.quad.as_ref().and_then(|quad| quad.classes.own.get(&value)) {
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

    pub(super) fn scalar_of(&self, value: ValueId) -> Scalar {
        self.kernel.value(value).scalar
    }
}

/// Constants of four lanes that a compiler may keep. It takes them all out of the loop over quads, so that each lives as
/// long as the loop; what has no register is loaded again anyway, and finding that out takes time that grows with the
/// square of their number.
const SPLATS_MAX: usize = 64;

/// The word that all lanes of a constant have, if it takes a load.
fn splat(instruction: &I<'static>) -> Option<u32> {
    let &I::V128Const(bits) = instruction else { return None };
    let word = bits as u32;
    (bits == of_words([word; 4]) && word != 0 && word != u32::MAX).then_some(word)
}

/// More bytes; the place of those before.
pub(super) fn reserve(reserved: &mut u32, bytes: u32) -> u32 {
    let first = *reserved;
    *reserved += bytes.next_multiple_of(16);
    first
}

/// The wasm type of a scalar.
pub(super) fn scalar_type(scalar: Scalar) -> ValType {
    if scalar == Scalar::F32 { ValType::F32 } else { ValType::I32 }
}

/// A word of memory, this many bytes on. Alignment is a hint.
pub(super) fn at(offset: u64) -> MemArg {
    MemArg { offset, align: 2, memory_index: 0 }
}

/// Four words.
pub(super) fn words(words: [u32; 4]) -> I<'static> {
    I::V128Const(of_words(words))
}

fn of_words(words: [u32; 4]) -> i128 {
    words.iter().rev().fold(0u128, |bits, &word| bits << 32 | u128::from(word)) as i128
}
