//! A lockstep interpreter: a whole workgroup goes through its kernel step by step, each step for all lanes at once.
//!
//! ```text
//! Kernel ─ shape.rs ─► forms.rs ─► plan.rs ─► slots.rs ─► tape        once
//!                                                          │
//! Scratch (frame, workgroup's and private memory) ─► machine.rs ◄─ Words    per workgroup
//!                         frame.rs: slots, masks │ lanes.rs: operators │ access.rs: memory
//! ```
//!
//! What is the same for all lanes is done once, what differs by a constant from lane to lane once per row;
//! addresses of that kind become copies of whole rows. The rest are loops over slices that the compiler
//! vectorises, for AVX2 where the machine has it. Nothing is generated at run time, so it works wherever Rust
//! does, and it is what other back halves are held against.
//!
//! Invariants: barriers need nothing, for no lane is ever ahead of another; lanes take their turns in order where
//! order matters (stores to one word, atomics), so a workgroup is deterministic as long as no other one interferes;
//! running allocates nothing; whatever the kernel, only its bindings' words are reached.

mod access;
mod forms;
mod frame;
mod fuse;
mod lanes;
mod machine;
mod plan;
mod slots;
mod tape;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ir::{Count, Input, Kernel};
use super::words::{Span, Words};
use frame::{Frame, Kind};
use machine::{Level, Machine};
use plan::{Given, Plan};
use tape::{Slot, Step, Width};

/// A run was told to stop before it was through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run was stopped")]
pub struct Stopped;

/// A kernel made ready to run; threads share it.
pub struct Interpreter {
    plan: Plan,
    workgroup_words: usize,
    private_words: usize,
    constants: Vec<u32>,
    /// How many bindings there are.
    bindings: usize,
    /// What every run, and what every workgroup is told.
    told_runs: Vec<(Slot, Given)>,
    told_groups: Vec<(Slot, u8)>,
    level: Level,
}

/// What one thread needs to run a kernel. Of one interpreter: no other's will do.
pub struct Scratch {
    /// The frame's words begin at `skew`, on a cache line.
    words: Vec<u32>,
    skew: usize,
    table: Vec<u32>,
    kinds: Vec<Kind>,
    workgroup: Vec<u32>,
    private: Vec<u32>,
}

/// Words of a cache line.
const LINE: usize = 16;

impl Interpreter {
    /// Makes a kernel ready.
    pub fn new(kernel: &Kernel) -> Interpreter {
        let mut constants = kernel.constants.clone();
        constants.resize(constants.len().max(1), 0);
        let plan = Plan::new(kernel);
        let told_runs = plan.given.iter().filter_map(|&(slot, _, given)| match given {
            Given::Input(Input::Groups(_)) | Given::Length(_) | Given::Last(_) => Some((slot, given)),
            _ => None,
        });
        let told_groups = plan.given.iter().filter_map(|&(slot, _, given)| match given {
            Given::Input(Input::GroupId(axis)) => Some((slot, axis)),
            _ => None,
        });
        Interpreter {
            told_runs: told_runs.collect(),
            told_groups: told_groups.collect(),
            plan,
            workgroup_words: kernel.workgroup_words as usize,
            private_words: kernel.private_words as usize,
            constants,
            bindings: kernel.bindings.len(),
            level: Level::here(),
        }
    }

    /// Words of a [`Scratch`].
    pub fn scratch_words(&self) -> u64 {
        let lanes = self.plan.lanes as u64;
        self.plan.frame_words as u64 + self.workgroup_words as u64 + self.private_words as u64 * lanes
    }

    /// All memory that one thread needs.
    pub fn scratch(&self) -> Scratch {
        let plan = &self.plan;
        let words = vec![0; plan.frame_words + LINE];
        // A vector never moves its words; if nobody can tell where a line begins, any place will do.
        let skew = words.as_ptr().align_offset(LINE * 4).min(LINE);
        let mut scratch = Scratch {
            words,
            skew,
            table: plan.table.clone(),
            kinds: vec![Kind::Empty; plan.masks as usize],
            workgroup: vec![0; self.workgroup_words.max(1)],
            private: vec![0; self.private_words.max(1) * plan.lanes],
        };
        for &(slot, width, given) in &plan.given {
            match given {
                Given::Bits(bits) => scratch.words[skew + slot as usize] = bits,
                Given::Input(input @ (Input::LocalId(_) | Input::LocalIndex)) => self.tell_lanes(&mut scratch, slot, width, input),
                Given::Input(_) | Given::Length(_) | Given::Last(_) => {}
            }
        }
        scratch
    }

    /// Runs the workgroups `range`, counted x first, of a dispatch of `groups`; `bindings` says where in `words` each
    /// of the kernel's bindings is.
    ///
    /// **Errors:** [`Stopped`], soon after `stop` is set; some workgroups are then half done.
    ///
    /// **Panics** where the bindings are not the kernel's, or not all within the words.
    pub fn run(
        &self,
        scratch: &mut Scratch,
        words: &Words,
        bindings: &[Span],
        groups: [u32; 3],
        range: Range<u64>,
        stop: &AtomicBool,
    ) -> Result<(), Stopped> {
        assert!(bindings.len() == self.bindings, "{} bindings where the kernel has {}", bindings.len(), self.bindings);
        self.tell_all(scratch, bindings, groups);
        machine::execute(self.level, &mut self.machine(&self.plan.before, scratch, words, bindings, stop))?;
        let [width, height, _] = groups.map(|count| u64::from(count.max(1)));
        for group in range {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            let place = [group % width, group / width % height, group / (width * height)];
            self.tell_group(scratch, place.map(|place| place as u32));
            scratch.workgroup[..self.workgroup_words].fill(0);
            machine::execute(self.level, &mut self.machine(&self.plan.tape, scratch, words, bindings, stop))?;
        }
        Ok(())
    }

    fn machine<'m>(
        &'m self,
        tape: &'m [Step],
        scratch: &'m mut Scratch,
        words: &'m Words,
        bindings: &'m [Span],
        stop: &'m AtomicBool,
    ) -> Machine<'m> {
        let plan = &self.plan;
        let frame_words = &mut scratch.words[scratch.skew..];
        let frame = Frame::new(frame_words, &mut scratch.table, &mut scratch.kinds, plan.first_mask, plan.lanes / plan.row, plan.lanes);
        Machine {
            tape,
            frame,
            workgroup: &mut scratch.workgroup,
            private: &mut scratch.private,
            constants: &self.constants,
            words,
            bindings,
            lanes: plan.lanes,
            row: plan.row,
            stop,
        }
    }

    /// What no workgroup changes.
    fn tell_lanes(&self, scratch: &mut Scratch, slot: Slot, width: Option<Width>, input: Input) {
        let plan = &self.plan;
        let [x, y, _] = plan.workgroup.map(|extent| extent as usize);
        let told = |lane: usize| match input {
            Input::LocalId(0) => lane % x,
            Input::LocalId(1) => lane / x % y,
            Input::LocalId(_) => lane / (x * y),
            _ => lane,
        };
        let (at, lanes, step) = match width {
            None => (slot as usize, 1, 1),
            Some(Width::Rows) => (plan.table[slot as usize] as usize, plan.lanes / plan.row, plan.row),
            Some(Width::Lanes) => (plan.table[slot as usize] as usize, plan.lanes, 1),
        };
        let at = scratch.skew + at;
        for (number, word) in scratch.words[at..at + lanes].iter_mut().enumerate() {
            *word = told(number * step) as u32;
        }
    }

    /// What no workgroup of a dispatch changes.
    fn tell_all(&self, scratch: &mut Scratch, bindings: &[Span], groups: [u32; 3]) {
        let length = |count: Count| match count {
            Count::Fixed(count) => count,
            Count::Runtime { binding, first, stride } => bindings[binding as usize].words.saturating_sub(first) / stride.max(1),
        };
        for &(slot, given) in &self.told_runs {
            scratch.words[scratch.skew + slot as usize] = match given {
                Given::Input(Input::Groups(axis)) => groups[usize::from(axis)],
                Given::Length(count) => length(count),
                Given::Last(count) => length(count).saturating_sub(1),
                Given::Input(_) | Given::Bits(_) => continue,
            };
        }
    }

    fn tell_group(&self, scratch: &mut Scratch, group: [u32; 3]) {
        for &(slot, axis) in &self.told_groups {
            scratch.words[scratch.skew + slot as usize] = group[usize::from(axis)];
        }
    }
}
