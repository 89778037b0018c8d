//! The small language between WGSL and the two back halves: one kernel, every function inlined, every value a
//! scalar of 32 bits.
//!
//! ```text
//! WGSL ─ naga ─► lower ─► Kernel ─► shapes ─┬─► interpreter (whole workgroups in lockstep)
//!                                           └─► emitter     (wasm, four lanes at a time)
//! ```
//!
//! A kernel is what one invocation does; vectors, matrices and structs are gone, a local variable is one
//! register per scalar, control flow is nested blocks with exits (as in WebAssembly), and memory is counted in
//! words of 4 bytes. Values are single-assignment: [`Stmt::Let`] says where one is computed, and it may be used
//! from there to the end of the block that holds the `Let`. Registers carry what changes.
//!
//! Invariants: [`Op`] never traps, whatever the bits (division, shifts and conversions are total); every
//! memory address has passed an [`Op::Index`] for every dynamic step, so it stays within its memory; what
//! each operator means to the bit is said in `ops.rs`, once.

/// A value of a [`Kernel`], by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A register of a [`Kernel`], by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegisterId(pub u32);

/// A block or loop that can be left, by number; unique in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(pub u32);

/// What the 32 bits of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// A truth value; how its bits look is the back half's affair, in memory it is 0 or 1.
    Bool,
    /// A signed integer, two's complement.
    I32,
    /// An unsigned integer.
    U32,
    /// IEEE 754 binary32.
    F32,
}

/// Where memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// A binding, by its place in [`Kernel::bindings`].
    Binding(u32),
    /// The workgroup's memory, zero when a workgroup begins.
    Workgroup,
    /// Memory of each invocation: local variables that are indexed while running. Undefined until written.
    Private,
    /// [`Kernel::constants`]: arrays of the text that are indexed while running. Never written.
    Constant,
}

/// How many elements something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// As declared.
    Fixed(u32),
    /// The elements of the runtime array at a binding's end: `(words of the binding - first) / stride`.
    Runtime {
        /// The binding, by its place in [`Kernel::bindings`].
        binding: u32,
        /// Words before the array.
        first: u32,
        /// Words from one element to the next.
        stride: u32,
    },
}

/// What an invocation is told about itself. All are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// `local_invocation_id`, an axis of it.
    LocalId(u8),
    /// `local_invocation_index`.
    LocalIndex,
    /// `workgroup_id`, an axis of it.
    GroupId(u8),
    /// `num_workgroups`, an axis of it.
    Groups(u8),
}

/// Operators of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// f32: the sign flipped.
    NegF,
    /// f32: without the sign.
    AbsF,
    /// f32: square root, correctly rounded.
    SqrtF,
    /// f32: towards minus infinity.
    FloorF,
    /// f32: towards plus infinity.
    CeilF,
    /// f32: towards zero.
    TruncF,
    /// f32: to the nearest integer, ties to even.
    RoundF,
    /// Integers: every bit flipped.
    Not,
    /// Bool: the other one.
    NotB,
    /// Integers: set bits.
    CountOnes,
    /// Integers: zero bits above the highest set one; 32 for 0.
    LeadingZeros,
    /// Integers: zero bits below the lowest set one; 32 for 0.
    TrailingZeros,
    /// i32 → f32, nearest, ties to even.
    FloatOfI,
    /// u32 → f32, nearest, ties to even.
    FloatOfU,
    /// f32 → i32, towards zero, saturating; NaN is 0.
    IntOfF,
    /// f32 → u32, towards zero, saturating; NaN is 0.
    UintOfF,
    /// The same bits as another scalar; never from or to Bool.
    Bits,
    /// The value of some active invocation: the same for all by the kernel's word (`workgroupUniformLoad`).
    Uniform,
}

/// Operators of two operands of one scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// f32.
    AddF,
    /// f32.
    SubF,
    /// f32.
    MulF,
    /// f32, correctly rounded.
    DivF,
    /// f32: `b < a ? b : a`.
    MinF,
    /// f32: `a < b ? b : a`.
    MaxF,
    /// f32 → Bool.
    EqF,
    /// f32 → Bool; true for NaN.
    NeF,
    /// f32 → Bool.
    LtF,
    /// f32 → Bool.
    LeF,
    /// Integers, wrapping.
    Add,
    /// Integers, wrapping.
    Sub,
    /// Integers, wrapping.
    Mul,
    /// i32: `a / 0` is `a`, and so is `MIN / -1`.
    DivI,
    /// u32: `a / 0` is `a`.
    DivU,
    /// i32: 0 where [`Binary::DivI`] is not the quotient.
    RemI,
    /// u32: `a % 0` is 0.
    RemU,
    /// Integers and Bool.
    And,
    /// Integers and Bool.
    Or,
    /// Integers and Bool.
    Xor,
    /// Integers, by the lower five bits of `b`.
    Shl,
    /// i32, with the sign, by the lower five bits of `b`.
    ShrI,
    /// u32, by the lower five bits of `b`.
    ShrU,
    /// i32.
    MinI,
    /// u32.
    MinU,
    /// i32.
    MaxI,
    /// u32.
    MaxU,
    /// Integers and Bool → Bool.
    Eq,
    /// Integers and Bool → Bool.
    Ne,
    /// i32 → Bool.
    LtI,
    /// i32 → Bool.
    LeI,
    /// u32 → Bool.
    LtU,
    /// u32 → Bool.
    LeU,
}

/// How a value comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// These bits; Bool: 0 or 1.
    Const(u32),
    /// What the invocation is told.
    Input(Input),
    /// What a register holds when the `Let` is reached.
    Get(RegisterId),
    /// One operand.
    Unary(Unary, ValueId),
    /// Two operands.
    Binary(Binary, ValueId, ValueId),
    /// `accept` where `condition` holds, else `reject`; both are already there.
    Select {
        /// Bool.
        condition: ValueId,
        /// Where it holds.
        accept: ValueId,
        /// Where it does not.
        reject: ValueId,
    },
    /// A step into an array: `min(index, count - 1)`, unsigned, so that memory access stays within.
    Index {
        /// The index asked for, u32 or the bits of an i32.
        index: ValueId,
        /// Elements there are; never 0.
        count: Count,
    },
    /// How many elements there are.
    Length(Count),
    /// The word at `address + offset` when the `Let` is reached. Never Bool: those are words 0 and 1 compared.
    Load {
        /// Where.
        memory: Memory,
        /// In words.
        address: ValueId,
        /// In words, added to the address.
        offset: u32,
    },
    /// What an [`Stmt::Atomic`] or [`Stmt::Across`] found; defined by it, never by a `Let`.
    Found,
}

/// Invocations of a subgroup: so many consecutive ones by `local_invocation_index`, of the last maybe fewer.
pub const SUBGROUP: u32 = 4;

/// What an invocation learns of its subgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Across {
    /// Who of it takes this step: bit k for the k-th. u32.
    Here,
    /// A value as the invocation at this place in it has it, or any bits where that does not take this step. Never Bool.
    Of(ValueId, u8),
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// How it comes about.
    pub op: Op,
    /// What its bits are.
    pub scalar: Scalar,
    /// Where it stands in the linked WGSL: byte of the text.
    pub at: u32,
}

/// What an atomic operation does to a word. The scalar of the value tells signed from unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtomicOp {
    /// Reads.
    Load,
    /// Writes.
    Store,
    /// Adds, wrapping.
    Add,
    /// Subtracts, wrapping.
    Sub,
    /// Bits in both.
    And,
    /// Bits in either.
    Or,
    /// Bits in one.
    Xor,
    /// The lesser, i32.
    MinI,
    /// The lesser, u32.
    MinU,
    /// The greater, i32.
    MaxI,
    /// The greater, u32.
    MaxU,
    /// Writes and tells what was there.
    Exchange,
    /// Writes where `compare` is there.
    CompareExchange,
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Computes a value.
    Let(ValueId),
    /// Writes a register.
    Set(RegisterId, ValueId),
    /// Writes a word.
    Store {
        /// Where.
        memory: Memory,
        /// In words.
        address: ValueId,
        /// In words, added to the address.
        offset: u32,
        /// What; never Bool.
        value: ValueId,
        /// Byte of the linked text.
        at: u32,
    },
    /// Reads and writes a word, indivisibly.
    Atomic {
        /// What it does.
        op: AtomicOp,
        /// Where; never private.
        memory: Memory,
        /// In words.
        address: ValueId,
        /// In words, added to the address.
        offset: u32,
        /// The operand; for a load any value.
        value: ValueId,
        /// What must be there, for a compare-exchange.
        compare: Option<ValueId>,
        /// The [`Op::Found`] that receives what was there, unless nobody asks.
        found: Option<ValueId>,
        /// Byte of the linked text.
        at: u32,
    },
    /// Looks at the others of a subgroup.
    Across {
        /// What for.
        what: Across,
        /// The [`Op::Found`] that receives it.
        found: ValueId,
    },
    /// One of two blocks.
    If {
        /// Bool.
        condition: ValueId,
        /// Where it holds.
        accept: Vec<Stmt>,
        /// Where it does not.
        reject: Vec<Stmt>,
    },
    /// Steps that [`Stmt::Exit`] leaves.
    Block {
        /// Its name.
        label: Label,
        /// The steps.
        body: Vec<Stmt>,
    },
    /// Steps that begin again at every [`Stmt::Repeat`]; whoever reaches the end is through.
    Loop {
        /// Its name.
        label: Label,
        /// The steps.
        body: Vec<Stmt>,
    },
    /// Goes behind the block of that name. Nothing follows in this list of steps.
    Exit(Label),
    /// Goes to the start of the loop of that name. Nothing follows in this list of steps.
    Repeat(Label),
    /// The whole workgroup arrives before anyone goes on; control here is the same for all.
    Barrier {
        /// Byte of the linked text.
        at: u32,
    },
}

/// A buffer that a kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its `@binding`.
    pub number: u32,
    /// Whether the kernel may write it.
    pub is_writable: bool,
    /// The least words it must have for every fixed access to lie within.
    pub words_min: u32,
}

/// One entry point, ready for a back half.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The entry point's name.
    pub entry: String,
    /// Invocations of a workgroup along each axis.
    pub workgroup: [u32; 3],
    /// The buffers.
    pub bindings: Vec<Binding>,
    /// Words of workgroup memory.
    pub workgroup_words: u32,
    /// What lies in it, in its order.
    pub shared: Vec<SharedVariable>,
    /// Words of private memory of one invocation.
    pub private_words: u32,
    /// The words of [`Memory::Constant`].
    pub constants: Vec<u32>,
    /// Every value.
    pub values: Vec<Value>,
    /// What every register holds; 0 or false at the start.
    pub registers: Vec<Scalar>,
    /// What an invocation does.
    pub body: Vec<Stmt>,
}

/// A variable of the workgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedVariable {
    /// Its name.
    pub name: String,
    /// The first of its words in workgroup memory.
    pub first: u32,
    /// Words from one of its elements to the next; nothing if it is no array.
    pub stride: Option<u32>,
}

impl Kernel {
    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// Invocations of a workgroup.
    pub fn invocations(&self) -> u32 {
        self.workgroup.iter().product()
    }

    /// Per value, whether it follows from some inputs, from constants and from memory that nobody writes. Operands come before their users.
    pub(crate) fn followers(&self, is_followed: impl Fn(Input) -> bool) -> Vec<bool> {
        let mut follows = vec![false; self.values.len()];
        for (at, value) in self.values.iter().enumerate() {
            let may = match value.op {
                Op::Input(input) => is_followed(input),
                Op::Get(_) | Op::Found | Op::Unary(Unary::Uniform, _) => false,
                Op::Load { memory: Memory::Binding(binding), .. } => !self.bindings[binding as usize].is_writable,
                Op::Load { memory, .. } => memory == Memory::Constant,
                _ => true,
            };
            let mut are_operands = true;
            value.op.operands(|operand| are_operands &= follows[operand.0 as usize]);
            follows[at] = may && are_operands;
        }
        follows
    }
}

impl Op {
    /// Shows every operand to `visit`.
    pub fn operands(&self, mut visit: impl FnMut(ValueId)) {
        match *self {
            Op::Const(_) | Op::Input(_) | Op::Get(_) | Op::Length(_) | Op::Found => {}
            Op::Unary(_, a) => visit(a),
            Op::Binary(_, a, b) => {
                visit(a);
                visit(b);
            }
            Op::Select { condition, accept, reject } => {
                visit(condition);
                visit(accept);
                visit(reject);
            }
            Op::Index { index, .. } => visit(index),
            Op::Load { address, .. } => visit(address),
        }
    }
}

impl Stmt {
    /// Shows every value that the step itself uses, not what is nested in it, to `visit`.
    pub fn operands(&self, mut visit: impl FnMut(ValueId)) {
        match self {
            Stmt::Let(_) | Stmt::Block { .. } | Stmt::Loop { .. } | Stmt::Exit(_) | Stmt::Repeat(_) | Stmt::Barrier { .. } => {}
            Stmt::Set(_, value) => visit(*value),
            Stmt::Across { what: Across::Of(value, _), .. } => visit(*value),
            Stmt::Across { what: Across::Here, .. } => {}
            Stmt::Store { address, value, .. } => {
                visit(*address);
                visit(*value);
            }
            Stmt::Atomic { address, value, compare, .. } => {
                visit(*address);
                visit(*value);
                compare.iter().for_each(|value| visit(*value));
            }
            Stmt::If { condition, .. } => visit(*condition),
        }
    }

    /// The lists of steps nested in this one.
    pub fn nested(&self) -> impl Iterator<Item = &Vec<Stmt>> {
        let (first, second) = match self {
            Stmt::If { accept, reject, .. } => (Some(accept), Some(reject)),
            Stmt::Block { body, .. } | Stmt::Loop { body, .. } => (Some(body), None),
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// [`Stmt::nested`], to be changed.
    pub fn nested_mut(&mut self) -> impl Iterator<Item = &mut Vec<Stmt>> {
        let (first, second) = match self {
            Stmt::If { accept, reject, .. } => (Some(accept), Some(reject)),
            Stmt::Block { body, .. } | Stmt::Loop { body, .. } => (Some(body), None),
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Whether the workgroup waits for itself in here.
    pub fn has_barrier(&self) -> bool {
        matches!(self, Stmt::Barrier { .. }) || self.nested().flatten().any(Stmt::has_barrier)
    }
}
