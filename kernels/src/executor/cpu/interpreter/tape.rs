//! What the interpreter runs: a flat list of steps over slots.
//!
//! A *slot* holds one word, a word per row, or a word per lane. While a plan is made slots are numbered as they
//! come, and `slots.rs` then gives them places: slots of one word by their word, wide slots by their entry in the
//! frame's table. Bool is 0 or all ones in slots, so that a condition is a mask.
//!
//! Invariant: no wide step's target is one of its operands, and wide steps write all lanes of the window (`frame.rs`); only
//! [`Step::Set`], stores and atomics ask who is there. What lanes that are not there compute is garbage that nobody
//! reads. Wherever lanes come back, at a step's target or behind a branch, a step of control says who goes on.

use super::super::ir::{AtomicOp, Binary, Memory, Unary};

/// Where words are kept.
pub(super) type Slot = u32;

/// A set of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask(pub(super) u32);

/// A place on the tape: while it is made, a number that a [`Step::Mark`] bears; then the step behind that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target(pub(super) u32);

/// How many words a wide slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// One per row.
    Rows,
    /// One per lane.
    Lanes,
}

/// An operand: one word for all, or as many as the step has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arg {
    One(Slot),
    Wide(Slot),
}

/// Words of lanes, by those of each row's first lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Affine {
    /// A word per row, or one: the first lane's, as it would be without the clamp.
    pub(super) base: Arg,
    /// From lane to lane, as it would be without the clamp.
    pub(super) step: u32,
    pub(super) clamp: Option<Clamp>,
}

/// An index that is held back on the way to an [`Affine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clamp {
    /// The index, of each row's first lane.
    pub(super) index: Arg,
    /// From lane to lane.
    pub(super) step: u32,
    /// The greatest it may be.
    pub(super) last: Slot,
    /// What a word grows by where the index grows by one.
    pub(super) multiplier: u32,
}

/// A place in memory that is not private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<A> {
    pub(super) memory: Memory,
    pub(super) address: A,
    pub(super) offset: u32,
}

/// An operand of lanes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Slot(Slot),
    Rows(Box<InMemory>),
}

/// Rows of workgroup memory or constants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InMemory {
    pub(super) from: Place<Affine>,
    /// Where they go if they do not lie there as they are wanted.
    pub(super) to: Slot,
}

/// A step. Its kind is a byte of its own, so that finding the arm for it is one load.
#[derive(Clone, Debug, PartialEq)]
#[repr(u8)]
pub(super) enum Step {
    // ---- one word
    UnaryOne {
        op: Unary,
        to: Slot,
        a: Slot,
    },
    BinaryOne {
        op: Binary,
        to: Slot,
        a: Slot,
        b: Slot,
    },
    SelectOne {
        to: Slot,
        condition: Slot,
        accept: Slot,
        reject: Slot,
    },
    IndexOne {
        to: Slot,
        index: Slot,
        last: Slot,
    },
    LoadOne {
        to: Slot,
        from: Place<Slot>,
    },
    CopyOne {
        to: Slot,
        from: Slot,
    },
    /// The word of some lane that is there.
    Pick {
        to: Slot,
        from: Slot,
        mask: Mask,
    },
    // ---- many words
    Unary {
        op: Unary,
        width: Width,
        to: Slot,
        a: Slot,
    },
    Binary {
        op: Binary,
        width: Width,
        to: Slot,
        a: Arg,
        b: Arg,
    },
    /// Over lanes, at least one operand of which is still in memory.
    BinaryRows {
        op: Binary,
        to: Slot,
        a: Operand,
        b: Operand,
    },
    /// Workgroup memory becomes what is there `op` another operand.
    Update {
        op: Binary,
        at: Place<Affine>,
        b: Operand,
        /// Where the words go on their way if they do not lie as they are wanted.
        through: Slot,
        mask: Mask,
    },
    /// What lies in memory goes to workgroup memory.
    Move {
        from: Place<Affine>,
        to: Place<Affine>,
        /// Where the words go on their way if they do not lie as they are wanted.
        through: Slot,
        mask: Mask,
    },
    /// `(a first b) second c`, or `c second (a first b)` if it is flipped, over lanes of f32.
    Pair {
        first: Binary,
        second: Binary,
        is_flipped: bool,
        to: Slot,
        a: Arg,
        b: Arg,
        c: Arg,
    },
    Select {
        width: Width,
        to: Slot,
        condition: Arg,
        accept: Arg,
        reject: Arg,
    },
    Index {
        width: Width,
        to: Slot,
        index: Slot,
        last: Slot,
    },
    Copy {
        width: Width,
        to: Slot,
        from: Slot,
    },
    /// The lanes of what is kept by rows.
    Spread {
        to: Slot,
        from: Affine,
    },
    Gather {
        width: Width,
        to: Slot,
        from: Place<Slot>,
    },
    LoadRows {
        to: Slot,
        from: Place<Affine>,
    },
    LoadPrivate {
        to: Slot,
        address: Arg,
        offset: u32,
    },
    /// Writes a register: all of it without a mask.
    Set {
        width: Width,
        to: Slot,
        from: Arg,
        mask: Option<Mask>,
        /// Whether nobody wants `from` any more: then the two slots may change places.
        is_moved: bool,
    },
    Scatter {
        to: Place<Arg>,
        value: Arg,
        mask: Mask,
    },
    StoreRows {
        to: Place<Affine>,
        value: Arg,
        mask: Mask,
    },
    StorePrivate {
        address: Arg,
        offset: u32,
        value: Arg,
        mask: Mask,
    },
    Atomic {
        op: AtomicOp,
        to: Place<Arg>,
        value: Arg,
        compare: Option<Arg>,
        found: Option<Slot>,
        mask: Mask,
    },
    /// Who of a subgroup is there.
    Here {
        to: Slot,
        mask: Mask,
    },
    /// The word of that place in a subgroup.
    Across {
        to: Slot,
        from: Arg,
        place: u8,
    },
    // ---- control
    Mark(Target),
    Jump(Target),
    /// To the start of a loop, unless the run is stopped.
    Back(Target),
    /// Goes to `otherwise` where the condition is `unless`.
    Branch {
        condition: Slot,
        unless: bool,
        otherwise: Target,
    },
    /// The same where the condition is `a op b`.
    BranchBinary {
        op: Binary,
        a: Slot,
        b: Slot,
        unless: bool,
        otherwise: Target,
    },
    /// To `start`, which is behind such a branch, or to `otherwise` like that branch, unless the run is stopped.
    BackBinary {
        op: Binary,
        a: Slot,
        b: Slot,
        unless: bool,
        start: Target,
        otherwise: Target,
    },
    /// Nobody.
    Clear(Mask),
    /// Parts `from` by a condition; those who reject only if somebody asks for them. If nobody accepts, goes to
    /// `otherwise`.
    Split {
        condition: Slot,
        from: Mask,
        accept: Mask,
        reject: Option<Mask>,
        otherwise: Target,
    },
    /// The same by whether a lane's number, counted from `base`, is below a limit, or is it.
    SplitNumbered {
        base: Slot,
        limit: Slot,
        is_equal: bool,
        from: Mask,
        accept: Mask,
        reject: Option<Mask>,
        otherwise: Target,
    },
    /// A branch is over for those who were there before it.
    Resume(Mask),
    /// If nobody is there, goes to `end`.
    Otherwise {
        mask: Mask,
        end: Target,
    },
    /// Moves those where the condition is not `unless`. If nobody stays, goes to `gone`.
    Leave {
        condition: Slot,
        unless: bool,
        from: Mask,
        to: Mask,
        gone: Target,
    },
    /// Moves all, and goes to `gone`.
    Exit {
        from: Mask,
        to: Mask,
        gone: Target,
    },
    /// Both sides of a [`Step::Split`], as far as they are still there. If nobody is, goes to `gone`.
    Join {
        to: Mask,
        accept: Mask,
        reject: Mask,
        gone: Target,
    },
    /// Adds those who come from elsewhere. If nobody is there, goes to `gone`.
    Rejoin {
        to: Mask,
        from: Mask,
        gone: Target,
    },
    /// Those who are here wait in `through`; if anybody repeats, on they go from `start`, unless the run is stopped.
    /// When nobody does, those who wait go on; if there are none, goes to `gone`.
    Again {
        mask: Mask,
        through: Mask,
        repeats: Mask,
        start: Target,
        gone: Target,
    },
    End,
}

/// What a step does with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
}

/// What a step does with the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// Looks through it.
    Uses,
    /// Nothing: what comes next finds the same one.
    Keeps,
    /// What comes next finds another one, or nothing comes next.
    Changes,
}

impl Arg {
    fn slot(&mut self) -> &mut Slot {
        match self {
            Arg::One(slot) | Arg::Wide(slot) => slot,
        }
    }
}

impl Affine {
    fn slots(&mut self, visit: &mut impl FnMut(&mut Slot, Use)) {
        visit(self.base.slot(), Use::Read);
        if let Some(clamp) = &mut self.clamp {
            visit(clamp.index.slot(), Use::Read);
            visit(&mut clamp.last, Use::Read);
        }
    }
}

impl Operand {
    fn slots(&mut self, visit: &mut impl FnMut(&mut Slot, Use)) {
        match self {
            Operand::Slot(slot) => visit(slot, Use::Read),
            Operand::Rows(rows) => {
                rows.from.address.slots(visit);
                visit(&mut rows.to, Use::Write);
            }
        }
    }
}

impl Step {
    /// What is left out in the end: a mark that nobody goes to.
    pub(super) const NOTHING: Step = Step::Mark(Target(u32::MAX));

    /// Whether steps before and behind it may be done by different lanes, or a different number of times.
    pub(super) fn is_control(&self) -> bool {
        match self {
            Step::Mark(_) => *self != Step::NOTHING,
            Step::Jump(_) | Step::Back(_) | Step::Branch { .. } | Step::Clear(_) | Step::Split { .. } | Step::Otherwise { .. } => true,
            Step::BranchBinary { .. } | Step::BackBinary { .. } | Step::SplitNumbered { .. } | Step::Resume(_) => true,
            Step::Leave { .. } | Step::Exit { .. } | Step::Join { .. } | Step::Rejoin { .. } | Step::Again { .. } | Step::End => true,
            _ => false,
        }
    }

    /// What it does with the window. Whoever goes elsewhere from it, to one of its targets, takes along the window that it found.
    pub(super) fn window(&self) -> Window {
        match self {
            Step::UnaryOne { .. } | Step::BinaryOne { .. } | Step::SelectOne { .. } | Step::IndexOne { .. } => Window::Keeps,
            Step::LoadOne { .. } | Step::CopyOne { .. } | Step::Mark(_) | Step::Clear(_) => Window::Keeps,
            Step::Branch { .. } | Step::BranchBinary { .. } => Window::Keeps,
            Step::Jump(_) | Step::Back(_) | Step::BackBinary { .. } | Step::Exit { .. } | Step::End => Window::Changes,
            Step::Split { .. } | Step::SplitNumbered { .. } | Step::Otherwise { .. } | Step::Leave { .. } => Window::Changes,
            Step::Join { .. } | Step::Rejoin { .. } | Step::Again { .. } | Step::Resume(_) => Window::Changes,
            _ => Window::Uses,
        }
    }

    /// Shows every slot to `visit`, what is read before what is written.
    pub(super) fn slots(&mut self, visit: &mut impl FnMut(&mut Slot, Use)) {
        use Use::{Read, Write};
        match self {
            Step::UnaryOne { to, a, .. } | Step::Unary { to, a, .. } => {
                visit(a, Read);
                visit(to, Write);
            }
            Step::BinaryOne { to, a, b, .. } => {
                visit(a, Read);
                visit(b, Read);
                visit(to, Write);
            }
            Step::Binary { to, a, b, .. } => {
                visit(a.slot(), Read);
                visit(b.slot(), Read);
                visit(to, Write);
            }
            Step::BinaryRows { to, a, b, .. } => {
                a.slots(visit);
                b.slots(visit);
                visit(to, Write);
            }
            Step::Update { at, b, through, .. } => {
                at.address.slots(visit);
                b.slots(visit);
                visit(through, Write);
            }
            Step::Move { from, to, through, .. } => {
                from.address.slots(visit);
                to.address.slots(visit);
                visit(through, Write);
            }
            Step::Pair { to, a, b, c, .. } => {
                [a, b, c].into_iter().for_each(|arg| visit(arg.slot(), Read));
                visit(to, Write);
            }
            Step::SelectOne { to, condition, accept, reject } => {
                [condition, accept, reject].into_iter().for_each(|slot| visit(slot, Read));
                visit(to, Write);
            }
            Step::Select { to, condition, accept, reject, .. } => {
                [condition, accept, reject].into_iter().for_each(|arg| visit(arg.slot(), Read));
                visit(to, Write);
            }
            Step::IndexOne { to, index, last } | Step::Index { to, index, last, .. } => {
                visit(index, Read);
                visit(last, Read);
                visit(to, Write);
            }
            Step::LoadOne { to, from } | Step::Gather { to, from, .. } => {
                visit(&mut from.address, Read);
                visit(to, Write);
            }
            Step::CopyOne { to, from } | Step::Pick { to, from, .. } | Step::Copy { to, from, .. } => {
                visit(from, Read);
                visit(to, Write);
            }
            Step::Spread { to, from } => {
                from.slots(visit);
                visit(to, Write);
            }
            Step::LoadRows { to, from } => {
                from.address.slots(visit);
                visit(to, Write);
            }
            Step::LoadPrivate { to, address, .. } => {
                visit(address.slot(), Read);
                visit(to, Write);
            }
            Step::Set { to, from, .. } => {
                visit(from.slot(), Read);
                visit(to, Write);
            }
            Step::Scatter { to, value, .. } => {
                visit(to.address.slot(), Read);
                visit(value.slot(), Read);
            }
            Step::StoreRows { to, value, .. } => {
                to.address.slots(visit);
                visit(value.slot(), Read);
            }
            Step::StorePrivate { address, value, .. } => {
                visit(address.slot(), Read);
                visit(value.slot(), Read);
            }
            Step::Atomic { to, value, compare, found, .. } => {
                visit(to.address.slot(), Read);
                visit(value.slot(), Read);
                compare.iter_mut().for_each(|compare| visit(compare.slot(), Read));
                found.iter_mut().for_each(|found| visit(found, Write));
            }
            Step::Here { to, .. } => visit(to, Write),
            Step::Across { to, from, .. } => {
                visit(from.slot(), Read);
                visit(to, Write);
            }
            Step::Branch { condition, .. } | Step::Split { condition, .. } | Step::Leave { condition, .. } => visit(condition, Read),
            Step::BranchBinary { a, b, .. } | Step::BackBinary { a, b, .. } => {
                visit(a, Read);
                visit(b, Read);
            }
            Step::SplitNumbered { base, limit, .. } => {
                visit(base, Read);
                visit(limit, Read);
            }
            Step::Mark(_) | Step::Jump(_) | Step::Back(_) | Step::Clear(_) | Step::Otherwise { .. } | Step::Exit { .. } | Step::End => {}
            Step::Join { .. } | Step::Rejoin { .. } | Step::Again { .. } | Step::Resume(_) => {}
        }
    }

    /// Shows every place on the tape that the step goes to to `visit`.
    pub(super) fn targets(&mut self, mut visit: impl FnMut(&mut Target)) {
        match self {
            Step::Jump(to) | Step::Back(to) => visit(to),
            Step::Branch { otherwise: to, .. }
            | Step::BranchBinary { otherwise: to, .. }
            | Step::Split { otherwise: to, .. }
            | Step::SplitNumbered { otherwise: to, .. }
            | Step::Otherwise { end: to, .. } => visit(to),
            Step::Leave { gone, .. } | Step::Exit { gone, .. } | Step::Join { gone, .. } | Step::Rejoin { gone, .. } => visit(gone),
            Step::Again { start, gone: otherwise, .. } | Step::BackBinary { start, otherwise, .. } => {
                visit(start);
                visit(otherwise);
            }
            _ => {}
        }
    }
}
