//! One workgroup, from the tape's start to its end.
//!
//! [`Machine::execute`] is inlined into one function per level of vectors, with every loop of `lanes.rs`,
//! `access.rs` and `frame.rs`: that is all that levels differ in. Invariant: it ends, unless the kernel does not, and
//! then it ends when it is told to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::ir::{Binary, Memory};
use super::super::words::{Span, Words};
use super::Stopped;
use super::access::{self, Atomic, Clamp, Fixed, Local, ReadWords, Rows, WriteWords};
use super::frame::{Frame, Kind, Others};
use super::lanes::{self, Source};
use super::tape::{self, Affine, Arg, Mask, Operand, Place, Slot, Step, Target, Width};

/// Vectors that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Those that everything is compiled for.
    Plain,
    /// 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Level {
    /// The best there is.
    pub(super) fn here() -> Level {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("popcnt")
        {
            return Level::Avx2;
        }
        Level::Plain
    }
}

/// What a workgroup runs on.
pub(super) struct Machine<'m> {
    pub(super) tape: &'m [Step],
    pub(super) frame: Frame<'m>,
    /// The workgroup's memory; not empty.
    pub(super) workgroup: &'m mut [u32],
    /// All lanes' own memory; not empty.
    pub(super) private: &'m mut [u32],
    /// Not empty.
    pub(super) constants: &'m [u32],
    pub(super) words: &'m Words,
    pub(super) bindings: &'m [Span],
    pub(super) lanes: usize,
    pub(super) row: usize,
    pub(super) stop: &'m AtomicBool,
}

/// Runs a workgroup with these vectors.
pub(super) fn execute(level: Level, machine: &mut Machine<'_>) -> Result<(), Stopped> {
    match level {
        Level::Plain => execute_plain(machine),
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code, reason = "the one call into what is compiled for vectors that not every machine has")]
        // SAFETY: this level is only made where all of the function's features have been found.
        Level::Avx2 => unsafe { execute_avx2(machine) },
    }
}

fn execute_plain(machine: &mut Machine<'_>) -> Result<(), Stopped> {
    machine.execute()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn execute_avx2(machine: &mut Machine<'_>) -> Result<(), Stopped> {
    machine.execute()
}

/// Does something with the memory that is read.
macro_rules! reading {
    ($machine:ident, $memory:expr, |$from:ident| $does:expr) => {
        match $memory {
            Memory::Binding(binding) => {
                let $from = &$machine.words.region($machine.bindings[binding as usize]);
                $does
            }
            Memory::Workgroup => {
                let $from = &Local(&mut *$machine.workgroup);
                $does
            }
            Memory::Constant | Memory::Private => {
                let $from = &Fixed($machine.constants);
                $does
            }
        }
    };
}

/// Does something with the memory that is written.
macro_rules! writing {
    ($machine:ident, $memory:expr, |$to:ident| $does:expr) => {
        match $memory {
            Memory::Binding(binding) => {
                let $to = &mut $machine.words.region($machine.bindings[binding as usize]);
                $does
            }
            Memory::Workgroup | Memory::Constant | Memory::Private => {
                let $to = &mut Local(&mut *$machine.workgroup);
                $does
            }
        }
    };
}

impl Machine<'_> {
    /// From the start of the tape to its end.
    #[inline(always)]
    fn execute(&mut self) -> Result<(), Stopped> {
        let tape = self.tape;
        let mut rest = tape;
        while let [step, behind @ ..] = rest {
            rest = behind;
            // One table of arms, so that a step costs one jump.
            let target = match *step {
                Step::UnaryOne { op, to, a } => self.one(to, lanes::unary_one(op, self.frame.one(a))),
                Step::BinaryOne { op, to, a, b } => self.one(to, lanes::binary_one(op, self.frame.one(a), self.frame.one(b))),
                Step::SelectOne { to, condition, accept, reject } => {
                    let from = if self.frame.one(condition) != 0 { accept } else { reject };
                    self.one(to, self.frame.one(from))
                }
                Step::IndexOne { to, index, last } => self.one(to, self.frame.one(index).min(self.frame.one(last))),
                Step::CopyOne { to, from } => self.one(to, self.frame.one(from)),
                Step::LoadOne { to, from } => self.load_one(to, from),
                Step::Pick { to, from, mask } => self.pick(to, from, mask),
                Step::Unary { op, width, to, a } => {
                    let (to, others) = self.frame.carve(to, width);
                    lanes::unary(op, to, others.wide(a, width));
                    None
                }
                Step::Binary { op, width, to, a, b } => {
                    let (to, others) = self.frame.carve(to, width);
                    lanes::binary(op, to, others.source(a, width), others.source(b, width));
                    None
                }
                Step::BinaryRows { op, to, ref a, ref b } => self.binary_rows(op, to, a, b),
                Step::Update { op, ref at, ref b, through, mask } => self.update(op, at, b, through, mask),
                Step::Move { ref from, ref to, through, mask } => self.carry(from, to, through, mask),
                Step::Pair { first, second, is_flipped, to, a, b, c } => {
                    let (to, others) = self.frame.carve(to, Width::Lanes);
                    let [a, b, c] = [a, b, c].map(|arg| others.source(arg, Width::Lanes));
                    lanes::pair(first, (second, is_flipped), to, a, b, c);
                    None
                }
                Step::Select { width, to, condition, accept, reject } => {
                    let (to, others) = self.frame.carve(to, width);
                    lanes::select(to, others.source(condition, width), others.source(accept, width), others.source(reject, width));
                    None
                }
                Step::Index { width, to, index, last } => {
                    let (to, others) = self.frame.carve(to, width);
                    lanes::index(to, others.wide(index, width), others.one(last));
                    None
                }
                Step::Copy { width, to, from } => {
                    let (to, others) = self.frame.carve(to, width);
                    to.copy_from_slice(others.wide(from, width));
                    None
                }
                Step::Spread { to, from } => {
                    let (to, others) = self.frame.carve(to, Width::Lanes);
                    rows(&others, &from, self.row).spread(to);
                    None
                }
                Step::Gather { width, to, from } => self.gather(width, to, from),
                Step::LoadRows { to, from } => self.load_rows(to, &from),
                Step::LoadPrivate { to, address, offset } => {
                    let (to, others) = self.frame.carve(to, Width::Lanes);
                    access::load_private(self.private, others.source(address, Width::Lanes), offset, to, (self.lanes, others.window().first()));
                    None
                }
                Step::Set { width, to, from, mask, is_moved } => self.set(width, to, from, mask, is_moved),
                Step::Scatter { to, value, mask } => self.scatter(to, value, mask),
                Step::StoreRows { to, value, mask } => self.store_rows(&to, value, mask),
                Step::StorePrivate { address, offset, value, mask } => {
                    let others = self.frame.all();
                    let (address, value) = (others.source(address, Width::Lanes), others.source(value, Width::Lanes));
                    access::store_private(self.private, address, offset, value, others.mask(mask), (self.lanes, others.window()));
                    None
                }
                Step::Atomic { .. } => self.atomic(step),
                Step::Here { to, mask } => {
                    let (to, others) = self.frame.carve(to, Width::Lanes);
                    lanes::here(to, others.window().first(), others.mask(mask));
                    None
                }
                Step::Across { to, from, place } => {
                    let (to, others) = self.frame.carve(to, Width::Lanes);
                    match from {
                        Arg::One(from) => to.fill(others.one(from)),
                        Arg::Wide(from) => lanes::across(to, others.window().first(), others.lanes(from), usize::from(place)),
                    }
                    None
                }
                Step::Jump(target) => Some(target),
                Step::Back(start) => {
                    self.look()?;
                    Some(start)
                }
                Step::Branch { condition, unless, otherwise } => ((self.frame.one(condition) != 0) == unless).then_some(otherwise),
                Step::BranchBinary { op, a, b, unless, otherwise } => {
                    let holds = lanes::binary_one(op, self.frame.one(a), self.frame.one(b)) != 0;
                    (holds == unless).then_some(otherwise)
                }
                Step::BackBinary { op, a, b, unless, start, otherwise } => {
                    self.look()?;
                    let holds = lanes::binary_one(op, self.frame.one(a), self.frame.one(b)) != 0;
                    Some(if holds == unless { otherwise } else { start })
                }
                Step::Clear(mask) => {
                    self.frame.set_kind(mask, Kind::Empty);
                    None
                }
                Step::Split { condition, from, accept, reject, otherwise } => {
                    self.frame.split(condition, from, accept, reject);
                    self.on_with(accept, otherwise)
                }
                Step::SplitNumbered { base, limit, is_equal, from, accept, reject, otherwise } => {
                    let (base, limit) = (self.frame.one(base), self.frame.one(limit));
                    self.frame.split_numbered(base, (limit, is_equal), from, accept, reject);
                    self.on_with(accept, otherwise)
                }
                Step::Resume(mask) => {
                    self.frame.look_at(mask);
                    None
                }
                Step::Otherwise { mask, end } => self.on_with(mask, end),
                Step::Leave { condition, unless, from, to, gone } => {
                    self.frame.leave(condition, if unless { u32::MAX } else { 0 }, from, to);
                    self.on_with(from, gone)
                }
                Step::Exit { from, to, gone } => {
                    self.frame.take(to, from);
                    Some(gone)
                }
                Step::Join { to, accept, reject, gone } => {
                    self.frame.set_kind(to, Kind::Empty);
                    self.frame.take(to, accept);
                    self.frame.take(to, reject);
                    self.on_with(to, gone)
                }
                Step::Rejoin { to, from, gone } => {
                    self.frame.take(to, from);
                    self.on_with(to, gone)
                }
                Step::Again { mask, through, repeats, start, gone } => {
                    self.frame.take(through, mask);
                    if self.frame.kind(repeats) == Kind::Empty {
                        self.frame.take(mask, through);
                        self.on_with(mask, gone)
                    } else {
                        self.frame.take(mask, repeats);
                        self.frame.look_at(mask);
                        self.look()?;
                        Some(start)
                    }
                }
                Step::Mark(_) => None,
                Step::End => return Ok(()),
            };
            if let Some(Target(target)) = target {
                rest = &tape[target as usize..];
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn look(&self) -> Result<(), Stopped> {
        #[cfg(target_arch = "wasm32")]
        if crate::executor::cpu::clock::is_late_at_times() {
            return Err(Stopped);
        }
        if self.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }

    /// Goes on with the lanes of a set, if there are any.
    #[inline(always)]
    fn on_with(&mut self, mask: Mask, otherwise: Target) -> Option<Target> {
        if self.frame.kind(mask) == Kind::Empty {
            return Some(otherwise);
        }
        self.frame.look_at(mask);
        None
    }

    #[inline(always)]
    fn one(&mut self, to: Slot, word: u32) -> Option<Target> {
        self.frame.set_one(to, word);
        None
    }

    #[inline(always)]
    fn load_one(&mut self, to: Slot, from: Place<Slot>) -> Option<Target> {
        let at = self.frame.one(from.address).wrapping_add(from.offset);
        let word = reading!(self, from.memory, |memory| memory.load(at));
        self.one(to, word)
    }

    #[inline(always)]
    fn pick(&mut self, to: Slot, from: Slot, mask: Mask) -> Option<Target> {
        let others = self.frame.all();
        let lane = others.mask(mask).and_then(|mask| mask.iter().position(|&lane| lane != 0));
        let word = others.wide(from, Width::Lanes)[lane.unwrap_or(0)];
        self.one(to, word)
    }

    #[inline(always)]
    fn gather(&mut self, width: Width, to: Slot, from: Place<Slot>) -> Option<Target> {
        let (to, others) = self.frame.carve(to, width);
        let addresses = others.wide(from.address, width);
        reading!(self, from.memory, |memory| access::gather(memory, addresses, from.offset, to));
        None
    }

    #[inline(always)]
    fn load_rows(&mut self, to: Slot, from: &Place<Affine>) -> Option<Target> {
        let (to, others) = self.frame.carve(to, Width::Lanes);
        let at = beside(&others, from);
        reading!(self, from.memory, |memory| match at.filter(|&at| memory.holds(at, to.len())) {
            Some(at) => memory.load_row(at, to),
            None => rows(&others, &from.address, self.row).load(memory, from.offset, to),
        });
        None
    }

    // Operand by operand: closures over both would be calls, and neither would stay in registers.
    #[inline(always)]
    fn binary_rows(&mut self, op: Binary, to: Slot, a: &Operand, b: &Operand) -> Option<Target> {
        let a = self.fetched(a);
        let b = self.fetched(b);
        let (to, others) = self.frame.carve(to, Width::Lanes);
        let memory = [&*self.workgroup, self.constants];
        let a = a.words(&others, memory);
        let b = b.words(&others, memory);
        lanes::binary(op, to, Source::Wide(a), Source::Wide(b));
        None
    }

    #[inline(always)]
    fn update(&mut self, op: Binary, at: &Place<Affine>, b: &Operand, through: Slot, mask: Mask) -> Option<Target> {
        let fetched = self.fetched(b);
        let others = self.frame.all();
        let count = others.window().count();
        let from = beside(&others, at).map(|from| from as usize).filter(|_| others.mask(mask).is_none());
        match (from, fetched) {
            (Some(from), Fetched::Workgroup(b)) if from + count <= b => {
                let (own, behind) = self.workgroup.split_at_mut(b);
                lanes::update(op, &mut own[from..from + count], &behind[..count]);
            }
            (Some(from), Fetched::Slot(b)) if from + count <= self.workgroup.len() => {
                lanes::update(op, &mut self.workgroup[from..from + count], others.wide(b, Width::Lanes));
            }
            _ => {
                self.load_rows(through, at);
                let (to, others) = self.frame.carve(through, Width::Lanes);
                lanes::update(op, to, fetched.words(&others, [&*self.workgroup, self.constants]));
                self.store_rows(at, Arg::Wide(through), mask);
            }
        }
        None
    }

    #[inline(always)]
    fn carry(&mut self, from: &Place<Affine>, to: &Place<Affine>, through: Slot, mask: Mask) -> Option<Target> {
        let others = self.frame.all();
        let count = others.window().count();
        let room = beside(&others, to).map(|at| at as usize).filter(|at| at + count <= self.workgroup.len() && others.mask(mask).is_none());
        if let (Some(room), Some(at), Memory::Binding(binding)) = (room, beside(&others, from), from.memory) {
            let region = self.words.region(self.bindings[binding as usize]);
            if region.holds(at, count) {
                region.load_row(at, &mut self.workgroup[room..room + count]);
                return None;
            }
        }
        self.load_rows(through, from);
        self.store_rows(to, Arg::Wide(through), mask)
    }

    /// Where an operand's lanes are: in memory, if there they lie side by side, else in a slot.
    #[inline(always)]
    fn fetched(&mut self, operand: &Operand) -> Fetched {
        let rows_of = match operand {
            Operand::Slot(slot) => return Fetched::Slot(*slot),
            Operand::Rows(rows) => &**rows,
        };
        let others = self.frame.all();
        let count = others.window().count();
        let at = beside(&others, &rows_of.from).map(|at| at as usize);
        match (at, rows_of.from.memory) {
            (Some(at), Memory::Workgroup) if at + count <= self.workgroup.len() => Fetched::Workgroup(at),
            (Some(at), Memory::Constant) if at + count <= self.constants.len() => Fetched::Constants(at),
            _ => {
                self.load_rows(rows_of.to, &rows_of.from);
                Fetched::Slot(rows_of.to)
            }
        }
    }

    #[inline(always)]
    fn set(&mut self, width: Width, to: Slot, from: Arg, mask: Option<Mask>, is_moved: bool) -> Option<Target> {
        // Slots change places with all their lanes.
        let is_full = mask.is_none_or(|mask| self.frame.kind(mask) == Kind::Full) && self.frame.window.count() == self.lanes;
        if let (true, true, Arg::Wide(from)) = (is_moved, is_full, from) {
            self.frame.swap(to, from);
            return None;
        }
        let (to, others) = self.frame.carve(to, width);
        lanes::set(to, others.source(from, width), mask.and_then(|mask| others.mask(mask)));
        None
    }

    #[inline(always)]
    fn scatter(&mut self, to: Place<Arg>, value: Arg, mask: Mask) -> Option<Target> {
        let others = self.frame.all();
        let (addresses, value) = (others.source(to.address, Width::Lanes), others.source(value, Width::Lanes));
        writing!(self, to.memory, |memory| access::scatter(memory, addresses, to.offset, value, others.mask(mask), others.window().count()));
        None
    }

    #[inline(always)]
    fn store_rows(&mut self, to: &Place<Affine>, value: Arg, mask: Mask) -> Option<Target> {
        let others = self.frame.all();
        let (value, mask, lanes) = (others.source(value, Width::Lanes), others.mask(mask), others.window().count());
        let at = beside(&others, to);
        writing!(self, to.memory, |memory| match (at, value, mask) {
            (Some(at), Source::Wide(words), None) if memory.holds(at, lanes) => memory.store_row(at, words),
            _ => rows(&others, &to.address, self.row).store(memory, to.offset, value, mask, lanes),
        });
        None
    }

    #[inline(always)]
    fn atomic(&mut self, step: &Step) -> Option<Target> {
        let &Step::Atomic { op, to: place, value, compare, found, mask } = step else { return None };
        let (found, others) = match found {
            Some(found) => {
                let (found, others) = self.frame.carve(found, Width::Lanes);
                (Some(found), others)
            }
            None => (None, self.frame.all()),
        };
        let lanes = others.window().count();
        let atomic = Atomic {
            op,
            addresses: others.source(place.address, Width::Lanes),
            offset: place.offset,
            value: others.source(value, Width::Lanes),
            compare: compare.map(|compare| others.source(compare, Width::Lanes)),
            mask: others.mask(mask),
        };
        writing!(self, place.memory, |memory| atomic.run(memory, lanes, found));
        None
    }
}

/// Where lanes are: in a slot, or from a word of memory on.
#[derive(Clone, Copy)]
enum Fetched {
    Slot(Slot),
    Workgroup(usize),
    Constants(usize),
}

impl Fetched {
    #[inline(always)]
    fn words<'w>(self, others: &'w Others<'_>, [workgroup, constants]: [&'w [u32]; 2]) -> &'w [u32] {
        let count = others.window().count();
        match self {
            Fetched::Slot(slot) => others.wide(slot, Width::Lanes),
            Fetched::Workgroup(at) => &workgroup[at..at + count],
            Fetched::Constants(at) => &constants[at..at + count],
        }
    }
}

/// From which word on those in the window lie side by side, if that is plain: of one row, none of which is held back.
///
/// Asked before [`rows`]: in most kernels it is so, and `rows` costs as much as a row of words.
#[inline(always)]
fn beside(others: &Others<'_>, place: &Place<Affine>) -> Option<u32> {
    let Affine { base: Arg::One(base), step: 1, clamp } = place.address else { return None };
    let window = others.window();
    match clamp {
        None => {}
        Some(tape::Clamp { index: Arg::One(index), step: 1, last, .. }) => {
            let end = u64::from(others.one(index).wrapping_add(window.first)) + window.count() as u64;
            if end > u64::from(others.one(last)) + 1 {
                return None;
            }
        }
        Some(_) => return None,
    }
    Some(others.one(base).wrapping_add(window.first).wrapping_add(place.offset))
}

/// What is kept by rows, of those in the window: whole rows, or a part of the only one.
#[inline(always)]
fn rows<'o>(others: &'o Others<'_>, affine: &Affine, row: usize) -> Rows<'o> {
    let (window, is_one_row) = (others.window(), others.is_one_row());
    let clamp = match affine.clamp {
        Some(clamp) => {
            let (index, last) = (others.source(clamp.index, Width::Rows), others.one(clamp.last));
            Some(Clamp { index, step: clamp.step, last, multiplier: clamp.multiplier })
        }
        None => None,
    };
    Rows {
        base: others.source(affine.base, Width::Rows),
        step: affine.step,
        clamp,
        first: if is_one_row { 0 } else { window.first() / row },
        skipped: if is_one_row { window.first } else { 0 },
        row: row.min(window.count()),
    }
}
