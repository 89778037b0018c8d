//! Operators, on one scalar or on four lanes.

use wasm_encoder::{Instruction as I, ValType};

use super::super::builder::greatest;
use super::super::ir::{Binary, Input, Op, Scalar, Unary, ValueId};
use super::class::Class;
use super::code::{Emitter, Held, Local, scalar_type, words};
use super::lanes::NONE;

impl<'k> Emitter<'k> {
    /// Pushes a scalar: of the workgroup's first lane outside lanes, of the four or the first of them inside.
    pub(super) fn scalar(&mut self, value: ValueId) {
        match self.held(value) {
            Some(Held::Scalar(local) | Held::Checked(local, _)) => return self.get(local),
            Some(Held::Vector(local)) => {
                self.get(local);
                return self.first_lane(self.scalar_of(value));
            }
            Some(Held::Word(words, lane)) => {
                self.get(words);
                return self.one_lane(self.scalar_of(value), lane);
            }
            None => {}
        }
        self.group_scalar(value);
        if let Class::Group { steps, .. } = self.class(value) {
            self.add_steps(steps);
        }
    }

    /// Pushes a scalar of the workgroup's first lane.
    pub(super) fn group_scalar(&mut self, value: ValueId) {
        match self.kernel.value(value).op {
            Op::Const(bits) if self.scalar_of(value) == Scalar::F32 => self.push(I::F32Const(f32::from_bits(bits).into())),
            Op::Const(bits) => self.int(bits as i32),
            Op::Length(count) => self.count(count),
            Op::Input(Input::GroupId(axis)) => self.get(self.group[usize::from(axis)]),
            Op::Input(Input::Groups(axis)) => self.get(self.groups[usize::from(axis)]),
            Op::Input(_) => self.int(0),
            Op::Load { memory, address, offset } if self.is_told(value) => self.load_scalar(memory, address, offset, self.scalar_of(value)),
            _ => match (self.outer_locals.get(&value), self.derived.get(&value)) {
                (Some(&local), _) => self.get(local),
                (None, Some(&linear)) => self.scalar_of_linear(linear),
                (None, None) => unreachable!("value {} is used before it is there", value.0),
            },
        }
    }

    /// Whether a value is a word at a fixed place that no kernel writes, such as a parameter. It is read wherever it is used: held for all lanes, it
    /// would be one of many that live as long as the loop over quads.
    pub(super) fn is_told(&self, value: ValueId) -> bool {
        let Op::Load { memory: super::super::ir::Memory::Binding(binding), address, .. } = self.kernel.value(value).op else { return false };
        let is_fixed = matches!(self.kernel.value(address).op, Op::Const(_));
        is_fixed && !self.kernel.bindings[binding as usize].is_writable
    }

    /// Adds what grows from the workgroup's first lane to the quad's.
    pub(super) fn add_steps(&mut self, steps: [i32; 3]) {
        let Some(place) = self.quad.as_ref().map(|quad| quad.place) else { return };
        for (axis, step) in steps.into_iter().enumerate().filter(|(_, step)| *step != 0) {
            self.get(place[axis]);
            if step != 1 {
                self.all([I::I32Const(step), I::I32Mul]);
            }
            self.push(I::I32Add);
        }
    }

    /// Pushes four lanes.
    pub(super) fn vector(&mut self, value: ValueId) {
        match self.held(value) {
            Some(Held::Vector(local)) => return self.get(local),
            Some(Held::Checked(..)) => return self.unchecked(value),
            Some(Held::Word(words, lane)) => return self.word(words, lane),
            _ => {}
        }
        if let Op::Input(input) = self.kernel.value(value).op
            && self.class(value) == Class::Vector
        {
            return self.numbered(input);
        }
        if let Op::Const(bits) = self.kernel.value(value).op {
            let bits = if self.scalar_of(value) == Scalar::Bool { 0u32.wrapping_sub(bits) } else { bits };
            return self.splat(bits);
        }
        if let Op::Load { memory, address, offset } = self.kernel.value(value).op
            && self.is_told(value)
        {
            let further = self.first_address(memory, address);
            return self.push(I::V128Load32Splat(super::code::at(self.offset(memory, offset) + further)));
        }
        self.scalar(value);
        match self.scalar_of(value) {
            Scalar::F32 => self.push(I::F32x4Splat),
            Scalar::Bool => {
                let local = self.keep(ValType::I32);
                self.all([I::I32Const(0), I::LocalGet(local), I::I32Sub, I::I32x4Splat]);
            }
            _ => {
                self.push(I::I32x4Splat);
                self.lane_steps(self.class(value).step().unwrap_or(0));
            }
        }
    }

    fn lane_steps(&mut self, step: i32) {
        if step != 0 {
            let step = step as u32;
            self.all([words([0, step, step.wrapping_mul(2), step.wrapping_mul(3)]), I::I32x4Add]);
        }
    }

    /// A checked value where its test has not passed, or nobody asks: the index brought in lane by lane.
    fn unchecked(&mut self, value: ValueId) {
        match self.kernel.value(value).op {
            Op::Index { index, count } => {
                self.vector(index);
                self.count(count);
                self.all([I::I32Const(1), I::I32Sub, I::I32x4Splat, I::I32x4MinU]);
            }
            Op::Unary(Unary::Bits, a) => self.vector(a),
            Op::Binary(op, a, b) => self.vector_binary(op, a, b),
            _ => unreachable!("only sums and products of an index are checked"),
        }
    }

    /// What four lanes are told that are numbered through, in a workgroup without rows of four.
    fn numbered(&mut self, input: Input) {
        let [x, y, _] = self.lanes.workgroup;
        let (divisor, modulus) = match input {
            Input::LocalId(0) => (1, Some(x)),
            Input::LocalId(1) => (x, Some(y)),
            _ => (x * y, None),
        };
        let first = self.quad.as_ref().map_or(0, |quad| quad.first);
        self.push(words(NONE));
        for lane in 0..4u8 {
            self.all([I::LocalGet(first), I::I32Const(lane.into()), I::I32Add, I::I32Const(divisor as i32), I::I32DivU]);
            if let Some(modulus) = modulus {
                self.all([I::I32Const(modulus as i32), I::I32RemU]);
            }
            self.push(I::I32x4ReplaceLane(lane));
        }
    }

    /// From four lanes to the first.
    pub(super) fn first_lane(&mut self, scalar: Scalar) {
        self.one_lane(scalar, 0);
    }

    fn one_lane(&mut self, scalar: Scalar, lane: u8) {
        match scalar {
            Scalar::F32 => self.push(I::F32x4ExtractLane(lane)),
            Scalar::Bool => self.all([I::I32x4ExtractLane(lane), I::I32Const(1), I::I32And]),
            _ => self.push(I::I32x4ExtractLane(lane)),
        }
    }

    /// Computes an operator as one scalar.
    pub(super) fn scalar_op(&mut self, value: ValueId) {
        let scalar = self.scalar_of(value);
        match self.kernel.value(value).op {
            Op::Get(register) => self.get(self.registers[register.0 as usize]),
            Op::Unary(Unary::Uniform, a) if self.class(a) == Class::Vector => {
                self.vector(a);
                self.first_lane(scalar);
            }
            Op::Unary(op, a) => {
                let from = self.scalar_of(a);
                self.scalar(a);
                self.scalar_unary(op, from, scalar);
            }
            Op::Binary(op, a, b) => self.scalar_binary(op, a, b),
            Op::Select { condition, accept, reject } => {
                self.scalar(accept);
                self.scalar(reject);
                self.scalar(condition);
                self.push(I::Select);
            }
            Op::Index { index, count } => {
                self.scalar(index);
                let asked = self.keep(ValType::I32);
                self.count(count);
                self.all([I::I32Const(1), I::I32Sub]);
                let last = self.keep(ValType::I32);
                self.all([I::LocalGet(asked), I::LocalGet(last), I::LocalGet(asked), I::LocalGet(last), I::I32LtU, I::Select]);
            }
            Op::Load { memory, address, offset } => self.load_scalar(memory, address, offset, scalar),
            Op::Const(_) | Op::Input(_) | Op::Length(_) => self.scalar(value),
            Op::Found => unreachable!("an atomic has its own step"),
        }
    }

    fn scalar_unary(&mut self, op: Unary, from: Scalar, to: Scalar) {
        match op {
            Unary::NegF => self.push(I::F32Neg),
            Unary::AbsF => self.push(I::F32Abs),
            Unary::SqrtF => self.push(I::F32Sqrt),
            Unary::FloorF => self.push(I::F32Floor),
            Unary::CeilF => self.push(I::F32Ceil),
            Unary::TruncF => self.push(I::F32Trunc),
            Unary::RoundF => self.push(I::F32Nearest),
            Unary::Not => self.all([I::I32Const(-1), I::I32Xor]),
            Unary::NotB => self.push(I::I32Eqz),
            Unary::CountOnes => self.push(I::I32Popcnt),
            Unary::LeadingZeros => self.push(I::I32Clz),
            Unary::TrailingZeros => self.push(I::I32Ctz),
            Unary::FloatOfI => self.push(I::F32ConvertI32S),
            Unary::FloatOfU => self.push(I::F32ConvertI32U),
            Unary::IntOfF => self.push(I::I32TruncSatF32S),
            Unary::UintOfF => self.push(I::I32TruncSatF32U),
            Unary::Bits => match (from == Scalar::F32, to == Scalar::F32) {
                (true, false) => self.push(I::I32ReinterpretF32),
                (false, true) => self.push(I::F32ReinterpretI32),
                _ => {}
            },
            Unary::Uniform => {}
        }
    }

    fn scalar_binary(&mut self, op: Binary, a: ValueId, b: ValueId) {
        match op {
            Binary::MinF | Binary::MaxF => {
                self.scalar(a);
                let x = self.keep(ValType::F32);
                self.scalar(b);
                let y = self.keep(ValType::F32);
                let (less, more) = if op == Binary::MinF { (y, x) } else { (x, y) };
                self.all([I::LocalGet(y), I::LocalGet(x), I::LocalGet(less), I::LocalGet(more), I::F32Lt, I::Select]);
            }
            Binary::MinI | Binary::MinU | Binary::MaxI | Binary::MaxU => {
                self.scalar(a);
                let x = self.keep(ValType::I32);
                self.scalar(b);
                let y = self.keep(ValType::I32);
                let comparison = match op {
                    Binary::MinI => I::I32LtS,
                    Binary::MinU => I::I32LtU,
                    Binary::MaxI => I::I32GtS,
                    _ => I::I32GtU,
                };
                self.all([I::LocalGet(x), I::LocalGet(y), I::LocalGet(x), I::LocalGet(y), comparison, I::Select]);
            }
            Binary::DivU | Binary::RemU | Binary::DivI | Binary::RemI => {
                self.scalar(a);
                self.scalar(b);
                self.guarded(op);
            }
            Binary::Eq | Binary::Ne | Binary::And | Binary::Or | Binary::Xor => {
                self.scalar(a);
                self.scalar(b);
                self.push(match op {
                    Binary::Eq => I::I32Eq,
                    Binary::Ne => I::I32Ne,
                    Binary::And => I::I32And,
                    Binary::Or => I::I32Or,
                    _ => I::I32Xor,
                });
            }
            _ => {
                self.scalar(a);
                self.scalar(b);
                self.push(match op {
                    Binary::AddF => I::F32Add,
                    Binary::SubF => I::F32Sub,
                    Binary::MulF => I::F32Mul,
                    Binary::DivF => I::F32Div,
                    Binary::EqF => I::F32Eq,
                    Binary::NeF => I::F32Ne,
                    Binary::LtF => I::F32Lt,
                    Binary::LeF => I::F32Le,
                    Binary::Add => I::I32Add,
                    Binary::Sub => I::I32Sub,
                    Binary::Mul => I::I32Mul,
                    Binary::Shl => I::I32Shl,
                    Binary::ShrI => I::I32ShrS,
                    Binary::ShrU => I::I32ShrU,
                    Binary::LtI => I::I32LtS,
                    Binary::LeI => I::I32LeS,
                    Binary::LtU => I::I32LtU,
                    _ => I::I32LeU,
                });
            }
        }
    }

    /// Division of the two on the stack, by one where it would trap: the quotient is then `a`, the rest 0.
    fn guarded(&mut self, op: Binary) {
        let b = self.keep(ValType::I32);
        let a = self.keep(ValType::I32);
        self.get(a);
        if op == Binary::DivI {
            self.all([I::I32Const(1), I::LocalGet(b), I::LocalGet(b), I::I32Eqz]);
            // The least number by minus one is more than the greatest.
            self.all([I::LocalGet(a), I::I32Const(i32::MIN), I::I32Eq, I::LocalGet(b), I::I32Const(-1), I::I32Eq, I::I32And]);
            self.all([I::I32Or, I::Select]);
        } else {
            self.all([I::LocalGet(b), I::LocalGet(b), I::I32Eqz, I::I32Or]);
        }
        self.push(match op {
            Binary::DivU => I::I32DivU,
            Binary::RemU => I::I32RemU,
            Binary::DivI => I::I32DivS,
            _ => I::I32RemS,
        });
    }

    /// Computes an operator in four lanes.
    pub(super) fn vector_op(&mut self, value: ValueId) {
        let scalar = self.scalar_of(value);
        match self.kernel.value(value).op {
            Op::Get(register) => {
                let local = self.registers[register.0 as usize];
                self.get(local);
                if self.shapes.registers[register.0 as usize] == super::super::shape::Shape::Uniform {
                    self.push(if scalar == Scalar::F32 { I::F32x4Splat } else { I::I32x4Splat });
                }
            }
            Op::Unary(op, a) => {
                self.vector(a);
                self.vector_unary(op);
            }
            Op::Binary(op, a, b) => self.vector_binary(op, a, b),
            Op::Select { condition, accept, reject } => {
                self.vector(accept);
                self.vector(reject);
                self.vector(condition);
                self.push(I::V128Bitselect);
            }
            Op::Index { index, count } => {
                self.vector(index);
                self.count(count);
                self.all([I::I32Const(1), I::I32Sub, I::I32x4Splat, I::I32x4MinU]);
            }
            Op::Load { memory, address, offset } => self.load_vector(memory, address, offset),
            Op::Const(_) | Op::Input(_) | Op::Length(_) => self.vector(value),
            Op::Found => unreachable!("an atomic has its own step"),
        }
    }

    fn vector_unary(&mut self, op: Unary) {
        match op {
            Unary::NegF => self.push(I::F32x4Neg),
            Unary::AbsF => self.push(I::F32x4Abs),
            Unary::SqrtF => self.push(I::F32x4Sqrt),
            Unary::FloorF => self.push(I::F32x4Floor),
            Unary::CeilF => self.push(I::F32x4Ceil),
            Unary::TruncF => self.push(I::F32x4Trunc),
            Unary::RoundF => self.push(I::F32x4Nearest),
            Unary::Not | Unary::NotB => self.push(I::V128Not),
            Unary::CountOnes => self.all([I::I8x16Popcnt, I::I16x8ExtAddPairwiseI8x16U, I::I32x4ExtAddPairwiseI16x8U]),
            Unary::LeadingZeros => self.each_lane(&[I::I32Clz]),
            Unary::TrailingZeros => self.each_lane(&[I::I32Ctz]),
            Unary::FloatOfI => self.push(I::F32x4ConvertI32x4S),
            Unary::FloatOfU => self.push(I::F32x4ConvertI32x4U),
            Unary::IntOfF => self.push(I::I32x4TruncSatF32x4S),
            Unary::UintOfF => self.push(I::I32x4TruncSatF32x4U),
            Unary::Bits => {}
            Unary::Uniform => self.all([I::I32x4ExtractLane(0), I::I32x4Splat]),
        }
    }

    /// What wasm has no vector instruction for, lane by lane.
    fn each_lane(&mut self, instructions: &[I<'static>]) {
        let vector = self.keep(ValType::V128);
        self.get(vector);
        for lane in 0..4 {
            self.all([I::LocalGet(vector), I::I32x4ExtractLane(lane)]);
            self.all(instructions.iter().cloned());
            self.push(I::I32x4ReplaceLane(lane));
        }
    }

    fn vector_binary(&mut self, op: Binary, a: ValueId, b: ValueId) {
        match op {
            Binary::Shl | Binary::ShrI | Binary::ShrU if self.class(b).step() == Some(0) => {
                self.vector(a);
                self.scalar(b);
                return self.push(match op {
                    Binary::Shl => I::I32x4Shl,
                    Binary::ShrI => I::I32x4ShrS,
                    _ => I::I32x4ShrU,
                });
            }
            Binary::Shl | Binary::ShrI | Binary::ShrU => return self.shift(op, a, b),
            Binary::DivU | Binary::DivI | Binary::RemU | Binary::RemI => return self.lane_by_lane(op, a, b),
            _ => {}
        }
        self.vector(a);
        self.vector(b);
        self.push(match op {
            Binary::AddF => I::F32x4Add,
            Binary::SubF => I::F32x4Sub,
            Binary::MulF => I::F32x4Mul,
            Binary::DivF => I::F32x4Div,
            Binary::MinF => I::F32x4PMin,
            Binary::MaxF => I::F32x4PMax,
            Binary::EqF => I::F32x4Eq,
            Binary::NeF => I::F32x4Ne,
            Binary::LtF => I::F32x4Lt,
            Binary::LeF => I::F32x4Le,
            Binary::Add => I::I32x4Add,
            Binary::Sub => I::I32x4Sub,
            Binary::Mul => I::I32x4Mul,
            Binary::And => I::V128And,
            Binary::Or => I::V128Or,
            Binary::Xor => I::V128Xor,
            Binary::MinI => I::I32x4MinS,
            Binary::MinU => I::I32x4MinU,
            Binary::MaxI => I::I32x4MaxS,
            Binary::MaxU => I::I32x4MaxU,
            Binary::Eq => I::I32x4Eq,
            Binary::Ne => I::I32x4Ne,
            Binary::LtI => I::I32x4LtS,
            Binary::LeI => I::I32x4LeS,
            Binary::LtU => I::I32x4LtU,
            _ => I::I32x4LeU,
        });
    }

    /// Shifts by an amount of each lane's own, for which wasm has no instruction: to the left by a product with a power
    /// of two, to the right by the upper part of one.
    fn shift(&mut self, op: Binary, a: ValueId, b: ValueId) {
        self.vector(a);
        if op == Binary::Shl {
            self.powers(b, 0);
            return self.push(I::I32x4Mul);
        }
        let x = self.keep(ValType::V128);
        let sign = (op == Binary::ShrI).then(|| {
            self.all([I::LocalGet(x), I::I32Const(31), I::I32x4ShrS]);
            let sign = self.keep(ValType::V128);
            // Of a negative number the complement is shifted, and complemented again.
            self.all([I::LocalGet(x), I::LocalGet(sign), I::V128Xor, I::LocalSet(x)]);
            sign
        });
        match self.narrow_amount(b) {
            Some((varying, least)) => self.shift_narrowly(x, varying, least),
            None => self.shift_widely(x, b),
        }
        if let Some(sign) = sign {
            self.all([I::LocalGet(sign), I::V128Xor]);
        }
    }

    /// Shifts to the right by any amount s: x >> s is (x * 2^(31 - s)) >> 31.
    fn shift_widely(&mut self, x: Local, amount: ValueId) {
        self.powers(amount, 31);
        let power = self.keep(ValType::V128);
        for multiply in [I::I64x2ExtMulLowI32x4U, I::I64x2ExtMulHighI32x4U] {
            self.all([I::LocalGet(x), I::LocalGet(power), multiply, I::I32Const(31), I::I64x2ShrU]);
        }
        self.push(I::I8x16Shuffle([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]));
    }

    /// An amount that is a constant and up to 15 more: what varies, and the constant.
    fn narrow_amount(&self, amount: ValueId) -> Option<(ValueId, u32)> {
        let (varying, least) = match self.kernel.value(amount).op {
            Op::Binary(Binary::Add, varying, least) => match self.kernel.value(least).op {
                Op::Const(least) => (varying, least),
                _ => (amount, 0),
            },
            _ => (amount, 0),
        };
        let most = greatest(self.kernel, varying);
        let is_narrow = most <= 15 && least.saturating_add(most) <= 31 && matches!(self.held(varying), Some(Held::Vector(_)));
        is_narrow.then_some((varying, least))
    }

    /// Shifts to the right by n and up to 15 more, v, without products of 64 bits. With y for x >> n and h for y >> 15,
    /// (y * 2^(15 - v)) >> 15 has the lower 17 bits of y >> v, and h * 2^(15 - v) all but the lower 15 - v.
    fn shift_narrowly(&mut self, x: Local, varying: ValueId, least: u32) {
        // Byte by byte from a table of which the first half is 0: 2^(15 - v) has one bit, in its lower byte where v is
        // 8 or more, else in the next one.
        self.push(words([0, 0, 0x1020_4080, 0x0102_0408]));
        self.bytes(varying);
        self.all([words([0x1010_0800; 4]), I::V128Xor, I::I8x16Swizzle]);
        let power = self.keep(ValType::V128);
        self.get(x);
        if least > 0 {
            self.all([I::I32Const(least as i32), I::I32x4ShrU]);
        }
        self.all([I::LocalGet(power), I::I32x4Mul, I::I32Const(15), I::I32x4ShrU]);
        if least < 17 {
            self.all([I::LocalGet(x), I::I32Const(least as i32 + 15), I::I32x4ShrU, I::LocalGet(power), I::I32x4Mul, I::V128Or]);
        }
    }

    /// Pushes the lowest byte of each lane, four times.
    fn bytes(&mut self, value: ValueId) {
        self.vector(value);
        let words = self.keep(ValType::V128);
        self.all([I::LocalGet(words), I::LocalGet(words)]);
        self.push(I::I8x16Shuffle([0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]));
    }

    /// Pushes two to the power of each lane's lower five bits, each flipped where it is set in `flipped`: byte by byte
    /// from a table, whose upper half is what the other bytes are.
    fn powers(&mut self, exponents: ValueId, flipped: u32) {
        // The table: byte n is 2^n up to n = 7. A byte of a lane looks up its exponent less 8 for each byte below it.
        self.push(words([0x0804_0201, 0x8040_2010, 0, 0]));
        self.bytes(exponents);
        if greatest(self.kernel, exponents) > 31 {
            self.all([words([0x1f1f_1f1f; 4]), I::V128And]);
        }
        let flips = (0x0101_0101 * flipped) ^ 0x1810_0800;
        self.all([words([flips; 4]), I::V128Xor, I::I8x16Swizzle]);
    }

    fn lane_by_lane(&mut self, op: Binary, a: ValueId, b: ValueId) {
        self.vector(a);
        let x = self.keep(ValType::V128);
        self.vector(b);
        let y = self.keep(ValType::V128);
        self.get(x);
        for lane in 0..4 {
            self.all([I::LocalGet(x), I::I32x4ExtractLane(lane), I::LocalGet(y), I::I32x4ExtractLane(lane)]);
            self.guarded(op);
            self.push(I::I32x4ReplaceLane(lane));
        }
    }

    /// Computes a value that is affine if its test passes: the first lane's scalar, and the test.
    pub(super) fn checked_op(&mut self, value: ValueId, step: i32) {
        let op = self.kernel.value(value).op;
        if let Op::Index { index, count } = op {
            self.scalar(index);
            let base = self.keep(ValType::I32);
            // The last lane's index is the greatest, and as a number of 64 bits it does not wrap.
            self.all([I::LocalGet(base), I::I64ExtendI32U, I::I64Const(3 * i64::from(step)), I::I64Add]);
            self.count(count);
            self.all([I::I64ExtendI32U, I::I64LtS]);
            let passes = self.keep(ValType::I32);
            return self.hold(value, Held::Checked(base, passes));
        }
        let mut passes = None;
        op.operands(|operand| {
            if let Some(Held::Checked(_, test)) = self.held(operand) {
                passes = Some(test);
            }
        });
        self.scalar_op(value);
        let base = self.keep(scalar_type(self.scalar_of(value)));
        match passes {
            Some(passes) => self.hold(value, Held::Checked(base, passes)),
            None => self.hold(value, Held::Scalar(base)),
        }
    }
}
