//! One workgroup, from the tape's start to its end.
//!
//! [`Machine::execute`] is inlined into one function per level of vectors, with every loop of `lanes.rs`,
//! `access.rs` and `frame.rs`: that is all that levels differ in. Invariant: it ends, unless the kernel does not, and
//! then it ends when it is told to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::ir::Memory;
use super::super::words::{Span, Words};
use super::Stopped;
use super::access::{self, Atomic, Clamp, Fixed, Local, Rows};
use super::frame::{Frame, Kind, Others};
use super::lanes;
use super::tape::{Affine, Step, Target, Width};

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
        let mut at = 0;
        loop {
            let step = &tape[at];
            at += 1;
            match step {
                Step::End => return Ok(()),
                Step::Back(start) => {
                    self.look()?;
                    at = start.0 as usize;
                }
                Step::Again { mask, through, repeats, start, gone } => {
                    self.frame.take(*through, *mask);
                    let is_over = self.frame.kind(*repeats) == Kind::Empty;
                    self.frame.take(*mask, if is_over { *through } else { *repeats });
                    if !is_over {
                        self.look()?;
                        at = start.0 as usize;
                    } else if self.frame.kind(*mask) == Kind::Empty {
                        at = gone.0 as usize;
                    }
                }
                Step::Jump(_)
                | Step::Branch { .. }
                | Step::Clear(_)
                | Step::Split { .. }
                | Step::Otherwise { .. }
                | Step::Leave { .. }
                | Step::Exit { .. }
                | Step::Join { .. }
                | Step::Rejoin { .. } => {
                    if let Some(target) = self.control(step) {
                        at = target.0 as usize;
                    }
                }
                step => self.straight(step),
            }
        }
    }

    #[inline(always)]
    fn look(&self) -> Result<(), Stopped> {
        if self.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }

    /// Where to go on, if not behind the step.
    #[inline(always)]
    fn control(&mut self, step: &Step) -> Option<Target> {
        let frame = &mut self.frame;
        match *step {
            Step::Jump(target) => return Some(target),
            Step::Branch { condition, otherwise } => return (frame.one(condition) == 0).then_some(otherwise),
            Step::Clear(mask) => frame.set_kind(mask, Kind::Empty),
            Step::Split { condition, from, accept, reject, otherwise } => {
                frame.split(condition, from, accept, reject);
                return (frame.kind(accept) == Kind::Empty).then_some(otherwise);
            }
            Step::Otherwise { mask, end } => return (frame.kind(mask) == Kind::Empty).then_some(end),
            Step::Leave { condition, unless, from, to, gone } => {
                frame.leave(condition, if unless { u32::MAX } else { 0 }, from, to);
                return (frame.kind(from) == Kind::Empty).then_some(gone);
            }
            Step::Exit { from, to, gone } => {
                frame.take(to, from);
                return Some(gone);
            }
            Step::Join { to, accept, reject, gone } => {
                frame.set_kind(to, Kind::Empty);
                frame.take(to, accept);
                frame.take(to, reject);
                return (frame.kind(to) == Kind::Empty).then_some(gone);
            }
            Step::Rejoin { to, from, gone } => {
                frame.take(to, from);
                return (frame.kind(to) == Kind::Empty).then_some(gone);
            }
            _ => {}
        }
        None
    }

    /// What is done wherever one comes from.
    #[inline(always)]
    fn straight(&mut self, step: &Step) {
        let (lanes, row) = (self.lanes, self.row);
        match *step {
            Step::UnaryOne { op, to, a } => self.frame.set_one(to, lanes::unary_one(op, self.frame.one(a))),
            Step::BinaryOne { op, to, a, b } => self.frame.set_one(to, lanes::binary_one(op, self.frame.one(a), self.frame.one(b))),
            Step::SelectOne { to, condition, accept, reject } => {
                let from = if self.frame.one(condition) != 0 { accept } else { reject };
                self.frame.set_one(to, self.frame.one(from));
            }
            Step::IndexOne { to, index, last } => self.frame.set_one(to, self.frame.one(index).min(self.frame.one(last))),
            Step::CopyOne { to, from } => self.frame.set_one(to, self.frame.one(from)),
            Step::LoadOne { to, from } => {
                let at = self.frame.one(from.address).wrapping_add(from.offset);
                let word = reading!(self, from.memory, |memory| access::ReadWords::load(memory, at));
                self.frame.set_one(to, word);
            }
            Step::Pick { to, from, mask } => {
                let others = self.frame.all();
                let lane = others.mask(mask).map_or(0, |mask| mask.iter().position(|&lane| lane != 0).unwrap_or(0));
                let word = others.wide(from, Width::Lanes)[lane];
                self.frame.set_one(to, word);
            }
            Step::Unary { op, width, to, a } => {
                let (to, others) = self.frame.carve(to, width);
                lanes::unary(op, to, others.wide(a, width));
            }
            Step::Binary { op, width, to, a, b } => {
                let (to, others) = self.frame.carve(to, width);
                lanes::binary(op, to, others.source(a, width), others.source(b, width));
            }
            Step::Select { width, to, condition, accept, reject } => {
                let (to, others) = self.frame.carve(to, width);
                lanes::select(to, others.source(condition, width), others.source(accept, width), others.source(reject, width));
            }
            Step::Index { width, to, index, last } => {
                let (to, others) = self.frame.carve(to, width);
                lanes::index(to, others.wide(index, width), others.one(last));
            }
            Step::Copy { width, to, from } => {
                let (to, others) = self.frame.carve(to, width);
                to.copy_from_slice(others.wide(from, width));
            }
            Step::Spread { to, from } => {
                let (to, others) = self.frame.carve(to, Width::Lanes);
                rows(&others, &from, row).spread(to);
            }
            Step::Gather { width, to, from } => {
                let (to, others) = self.frame.carve(to, width);
                let addresses = others.wide(from.address, width);
                reading!(self, from.memory, |memory| access::gather(memory, addresses, from.offset, to));
            }
            Step::LoadRows { to, from } => {
                let (to, others) = self.frame.carve(to, Width::Lanes);
                let rows = rows(&others, &from.address, row);
                reading!(self, from.memory, |memory| rows.load(memory, from.offset, to));
            }
            Step::LoadPrivate { to, address, offset } => {
                let (to, others) = self.frame.carve(to, Width::Lanes);
                access::load_private(self.private, others.source(address, Width::Lanes), offset, to);
            }
            Step::Set { width, to, from, mask, is_moved } => {
                let is_full = mask.is_none_or(|mask| self.frame.kind(mask) == Kind::Full);
                if let (true, true, super::tape::Arg::Wide(from)) = (is_moved, is_full, from) {
                    return self.frame.swap(to, from);
                }
                let (to, others) = self.frame.carve(to, width);
                lanes::set(to, others.source(from, width), mask.and_then(|mask| others.mask(mask)));
            }
            Step::Scatter { to, value, mask } => {
                let others = self.frame.all();
                let (addresses, value) = (others.source(to.address, Width::Lanes), others.source(value, Width::Lanes));
                writing!(self, to.memory, |memory| access::scatter(memory, addresses, to.offset, value, others.mask(mask), lanes));
            }
            Step::StoreRows { to, value, mask } => {
                let others = self.frame.all();
                let (rows, value) = (rows(&others, &to.address, row), others.source(value, Width::Lanes));
                writing!(self, to.memory, |memory| rows.store(memory, to.offset, value, others.mask(mask), lanes));
            }
            Step::StorePrivate { address, offset, value, mask } => {
                let others = self.frame.all();
                let (address, value) = (others.source(address, Width::Lanes), others.source(value, Width::Lanes));
                access::store_private(self.private, address, offset, value, others.mask(mask), lanes);
            }
            Step::Atomic { op, to: place, value, compare, found, mask } => {
                let (found, others) = match found {
                    Some(found) => {
                        let (found, others) = self.frame.carve(found, Width::Lanes);
                        (Some(found), others)
                    }
                    None => (None, self.frame.all()),
                };
                let atomic = Atomic {
                    op,
                    addresses: others.source(place.address, Width::Lanes),
                    offset: place.offset,
                    value: others.source(value, Width::Lanes),
                    compare: compare.map(|compare| others.source(compare, Width::Lanes)),
                    mask: others.mask(mask),
                };
                writing!(self, place.memory, |memory| atomic.run(memory, lanes, found));
            }
            _ => {}
        }
    }
}

/// What is kept by rows.
#[inline(always)]
fn rows<'o>(others: &'o Others<'_>, affine: &Affine, row: usize) -> Rows<'o> {
    let clamp = affine.clamp.map(|clamp| Clamp {
        index: others.source(clamp.index, Width::Rows),
        step: clamp.step,
        last: others.one(clamp.last),
        multiplier: clamp.multiplier,
    });
    Rows { base: others.source(affine.base, Width::Rows), step: affine.step, clamp, row }
}
