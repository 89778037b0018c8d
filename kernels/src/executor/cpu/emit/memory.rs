//! Words of memory, read and written by four lanes: in a row where their addresses are one, else one by one.

use wasm_encoder::{BlockType, Instruction as I, MemArg, ValType};

use super::super::ir::{AtomicOp, Memory, Op, Scalar, Stmt, ValueId};
use super::class::Class;
use super::code::{Emitter, Held, Local, at, reserve, words};

impl<'k> Emitter<'k> {
    /// Pushes where a memory begins, in bytes.
    pub(super) fn base(&mut self, memory: Memory) {
        match memory {
            Memory::Binding(binding) => self.get(self.bindings[binding as usize].0),
            Memory::Workgroup | Memory::Private => self.get(self.scratch),
            Memory::Constant => self.get(self.constants),
        }
    }

    /// Bytes from a memory's begin to what `offset` words name.
    pub(super) fn offset(&self, memory: Memory, offset: u32) -> u64 {
        let word = if memory == Memory::Private { 4 * u64::from(self.lanes.padded) } else { 4 };
        let private = if memory == Memory::Private { u64::from(self.private) } else { 0 };
        private + word * u64::from(offset)
    }

    /// Pushes an address; what comes back is the bytes from there to the first lane's word.
    pub(super) fn first_address(&mut self, memory: Memory, address: ValueId) -> u64 {
        if let Some((anchor, bytes)) = self.anchored(memory, address) {
            self.get(anchor);
            return bytes;
        }
        self.base(memory);
        self.scalar(address);
        if memory == Memory::Private {
            self.all([I::I32Const(self.lanes.padded as i32), I::I32Mul]);
            let first = self.quad.as_ref().map_or(0, |quad| quad.first);
            self.all([I::LocalGet(first), I::I32Add]);
        }
        self.all([I::I32Const(2), I::I32Shl, I::I32Add]);
        0
    }

    /// The byte addresses of all four lanes' words.
    pub(super) fn addresses(&mut self, memory: Memory, address: ValueId) -> Local {
        self.vector(address);
        if memory == Memory::Private {
            self.all([I::I32Const(self.lanes.padded as i32), I::I32x4Splat, I::I32x4Mul]);
            self.numbers();
            self.push(I::I32x4Add);
        }
        self.all([I::I32Const(2), I::I32x4Shl]);
        self.base(memory);
        self.all([I::I32x4Splat, I::I32x4Add]);
        self.keep(ValType::V128)
    }

    /// Pushes one word that all lanes share.
    pub(super) fn load_scalar(&mut self, memory: Memory, address: ValueId, offset: u32, scalar: Scalar) {
        let further = self.first_address(memory, address);
        let place = at(self.offset(memory, offset) + further);
        self.push(if scalar == Scalar::F32 { I::F32Load(place) } else { I::I32Load(place) });
    }

    /// The step from lane to lane, in words of memory.
    fn lane_step(&self, memory: Memory, address: ValueId) -> Option<i32> {
        match (memory, self.class(address).step()) {
            // Lanes lie side by side.
            (Memory::Private, Some(0)) => Some(1),
            (Memory::Private, _) => None,
            (_, step) => step,
        }
    }

    fn test_of(&self, address: ValueId) -> Option<Local> {
        match (self.class(address), self.held(address)) {
            (Class::Checked(_), Some(Held::Checked(_, test))) => Some(test),
            _ => None,
        }
    }

    /// Pushes the words of four lanes.
    pub(super) fn load_vector(&mut self, memory: Memory, address: ValueId, offset: u32) {
        let Some(step) = self.lane_step(memory, address) else { return self.gather(memory, address, offset) };
        let Some(test) = self.test_of(address) else { return self.load_row(memory, address, offset, step) };
        self.get(test);
        self.push(I::If(BlockType::Result(ValType::V128)));
        self.depth += 1;
        self.load_row(memory, address, offset, step);
        self.push(I::Else);
        self.gather(memory, address, offset);
        self.close();
    }

    fn load_row(&mut self, memory: Memory, address: ValueId, offset: u32, step: i32) {
        let further = self.first_address(memory, address);
        let place = self.offset(memory, offset) + further;
        match step {
            0 => self.push(I::V128Load32Splat(at(place))),
            1 => self.push(I::V128Load(at(place))),
            step => {
                let first = self.keep(ValType::I32);
                self.all([I::LocalGet(first), I::V128Load32Zero(at(place))]);
                let row = self.keep(ValType::V128);
                for lane in 1..4u8 {
                    self.all([I::LocalGet(first), I::I32Const(step.wrapping_mul(4 * i32::from(lane))), I::I32Add, I::LocalGet(row)]);
                    self.all([I::V128Load32Lane { memarg: at(place), lane }, I::LocalSet(row)]);
                }
                self.get(row);
            }
        }
    }

    fn gather(&mut self, memory: Memory, address: ValueId, offset: u32) {
        let place = self.offset(memory, offset);
        let addresses = self.addresses(memory, address);
        self.all([I::LocalGet(addresses), I::I32x4ExtractLane(0), I::V128Load32Zero(at(place))]);
        let row = self.keep(ValType::V128);
        for lane in 1..4u8 {
            self.all([I::LocalGet(addresses), I::I32x4ExtractLane(lane), I::LocalGet(row)]);
            self.all([I::V128Load32Lane { memarg: at(place), lane }, I::LocalSet(row)]);
        }
        self.get(row);
    }

    /// Writes a word of each lane that takes part.
    pub(super) fn store(&mut self, memory: Memory, address: ValueId, offset: u32, value: ValueId) {
        let place = self.offset(memory, offset);
        let step = self.lane_step(memory, address);
        if step != Some(1) {
            if step == Some(0) && self.mask().is_none() && self.class(value).step() == Some(0) {
                // All write one word to one place.
                let place = at(place + self.first_address(memory, address));
                self.scalar(value);
                return self.push(if self.scalar_of(value) == Scalar::F32 { I::F32Store(place) } else { I::I32Store(place) });
            }
            return self.scatter(memory, address, place, value);
        }
        if let (Memory::Private, Some(mask)) = (memory, self.mask()) {
            // The words of lanes that take no part are nobody else's: they are written back. With branches instead, a
            // large variable would take seconds to compile.
            let place = place + self.first_address(memory, address);
            let first = self.keep(ValType::I32);
            self.get(first);
            self.vector(value);
            return self.all([I::LocalGet(first), I::V128Load(at(place)), I::LocalGet(mask), I::V128Bitselect, I::V128Store(at(place))]);
        }
        let condition = match (self.test_of(address), self.mask()) {
            (None, None) => None,
            (Some(test), None) => Some(vec![I::LocalGet(test)]),
            (None, Some(mask)) => Some(vec![I::LocalGet(mask), I::I32x4AllTrue]),
            (Some(test), Some(mask)) => Some(vec![I::LocalGet(test), I::LocalGet(mask), I::I32x4AllTrue, I::I32And]),
        };
        if let Some(condition) = &condition {
            self.all(condition.iter().cloned());
            self.open(I::If);
        }
        let further = self.first_address(memory, address);
        self.vector(value);
        self.push(I::V128Store(at(place + further)));
        if condition.is_some() {
            self.push(I::Else);
            self.scatter(memory, address, place, value);
            self.close();
        }
    }

    /// Lane by lane, the last one last.
    fn scatter(&mut self, memory: Memory, address: ValueId, place: u64, value: ValueId) {
        let (addresses, place) = self.written(memory, address, place);
        self.vector(value);
        let row = self.keep(ValType::V128);
        for lane in 0..4u8 {
            self.all([I::LocalGet(addresses), I::I32x4ExtractLane(lane), I::LocalGet(row)]);
            self.push(I::V128Store32Lane { memarg: place, lane });
        }
    }

    /// Where each lane writes, and how many bytes on. Lanes that take no part write where nobody reads: a branch for each of them would cost more,
    /// most of all time to compile.
    fn written(&mut self, memory: Memory, address: ValueId, place: u64) -> (Local, MemArg) {
        let addresses = self.addresses(memory, address);
        let Some(mask) = self.mask() else { return (addresses, at(place)) };
        let nowhere = *self.nowhere.get_or_insert_with(|| reserve(&mut self.scratch_bytes, 4));
        self.get(addresses);
        if place != 0 {
            self.all([words([place as u32; 4]), I::I32x4Add]);
        }
        self.all([I::LocalGet(self.scratch), I::I32Const(nowhere as i32), I::I32Add, I::I32x4Splat]);
        self.all([I::LocalGet(mask), I::V128Bitselect]);
        (self.keep(ValType::V128), at(0))
    }

    /// An atomic operation of each lane that takes part, in order.
    pub(super) fn atomic(&mut self, step: &Stmt) {
        let Stmt::Atomic { op, memory, address, offset, value, compare, found, .. } = step else { return };
        let (addresses, place) = self.written(*memory, *address, self.offset(*memory, *offset));
        self.vector(*value);
        let operands = self.keep(ValType::V128);
        let compares = compare.map(|compare| {
            self.vector(compare);
            self.keep(ValType::V128)
        });
        let results = self.local(ValType::V128);
        let (word, operand, old) = (self.local(ValType::I32), self.local(ValType::I32), self.local(ValType::I32));
        for lane in 0..4u8 {
            self.all([I::LocalGet(addresses), I::I32x4ExtractLane(lane), I::LocalSet(word)]);
            self.all([I::LocalGet(operands), I::I32x4ExtractLane(lane), I::LocalSet(operand)]);
            let expected = compares.map(|compares| {
                self.all([I::LocalGet(compares), I::I32x4ExtractLane(lane)]);
                self.keep(ValType::I32)
            });
            self.one_atomic(*op, place, word, operand, expected, old);
            self.all([I::LocalGet(results), I::LocalGet(old), I::I32x4ReplaceLane(lane), I::LocalSet(results)]);
        }
        if let Some(found) = found {
            debug_assert!(matches!(self.kernel.value(*found).op, Op::Found));
            self.hold(*found, Held::Vector(results));
        }
    }

    fn one_atomic(&mut self, op: AtomicOp, place: MemArg, word: Local, operand: Local, expected: Option<Local>, old: Local) {
        self.get(word);
        let simple = match op {
            AtomicOp::Load => {
                return self.all([I::I32AtomicLoad(place), I::LocalSet(old)]);
            }
            AtomicOp::CompareExchange => {
                let expected = expected.unwrap_or(operand);
                return self.all([I::LocalGet(expected), I::LocalGet(operand), I::I32AtomicRmwCmpxchg(place), I::LocalSet(old)]);
            }
            AtomicOp::Add => Some(I::I32AtomicRmwAdd(place)),
            AtomicOp::Sub => Some(I::I32AtomicRmwSub(place)),
            AtomicOp::And => Some(I::I32AtomicRmwAnd(place)),
            AtomicOp::Or => Some(I::I32AtomicRmwOr(place)),
            AtomicOp::Xor => Some(I::I32AtomicRmwXor(place)),
            AtomicOp::Store | AtomicOp::Exchange => Some(I::I32AtomicRmwXchg(place)),
            AtomicOp::MinI | AtomicOp::MinU | AtomicOp::MaxI | AtomicOp::MaxU => None,
        };
        if let Some(simple) = simple {
            return self.all([I::LocalGet(operand), simple, I::LocalSet(old)]);
        }
        // Until nobody was faster.
        self.all([I::I32AtomicLoad(place), I::LocalSet(old)]);
        let again = self.open(I::Loop);
        let comparison = match op {
            AtomicOp::MinI => I::I32LtS,
            AtomicOp::MinU => I::I32LtU,
            AtomicOp::MaxI => I::I32GtS,
            _ => I::I32GtU,
        };
        self.all([I::LocalGet(word), I::LocalGet(old)]);
        self.all([I::LocalGet(operand), I::LocalGet(old), I::LocalGet(operand), I::LocalGet(old), comparison, I::Select]);
        self.push(I::I32AtomicRmwCmpxchg(place));
        let seen = self.keep(ValType::I32);
        self.all([I::LocalGet(seen), I::LocalGet(old), I::I32Ne, I::LocalGet(seen), I::LocalSet(old)]);
        self.branch_if(again);
        self.close();
    }
}
