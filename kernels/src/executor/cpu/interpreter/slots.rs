//! Where every slot lies, so that few words hold all that is alive at once.
//!
//! Slots are taken by what is computed and given back after its last use; one that is used in a loop that it was
//! computed before lasts to the loop's end. Copies are not made where the original stays as it is, and a register that
//! takes over a value nobody wants any more swaps places with it instead of copying it.
//!
//! Invariant: at any step, slots that are alive lie in different places, and so do a step's target and its operands.

use super::fuse;
use super::plan::{Drawn, Kept, Plan};
use super::tape::{Arg, Slot, Step, Target, Use, Width};

/// Words that a wide slot's place is a multiple of: a cache line.
const LINE: usize = 16;

/// Gives every slot its place.
pub(super) fn placed(mut drawn: Drawn, workgroup: [u32; 3], row: usize) -> Plan {
    let lives = Lives::new(&mut drawn);
    drop_copies(&mut drawn, &lives);
    fuse::fuse(&mut drawn);
    let lives = Lives::new(&mut drawn);
    move_last(&mut drawn, &lives);
    let places = Places::new(&mut drawn, &lives);
    let lanes = workgroup.iter().product::<u32>() as usize;
    let place = |slot: &mut Slot| *slot = places.place(*slot);
    for step in drawn.before.iter_mut().chain(&mut drawn.tape) {
        step.slots(&mut |slot, _| place(slot));
    }
    for (slot, _, _) in &mut drawn.given {
        place(slot);
    }
    let (table, frame_words) = places.table(row, lanes, drawn.masks as usize);
    let first_mask = table.len() as Slot - drawn.masks;
    fuse::drop_windows(&mut drawn.tape);
    let mut tape = without_marks(drawn.tape);
    fuse::close_loops(&mut tape);
    Plan { before: drawn.before, tape, given: drawn.given, frame_words, table, first_mask, masks: drawn.masks, workgroup, lanes, row }
}

/// From where to where on the tape each slot is alive, unless it is pinned.
struct Lives {
    first: Vec<usize>,
    last: Vec<usize>,
    /// Where pinned slots are written.
    writes: Vec<Vec<usize>>,
}

impl Lives {
    fn new(drawn: &mut Drawn) -> Lives {
        let count = drawn.slots.len();
        let mut lives = Lives { first: vec![usize::MAX; count], last: vec![0; count], writes: vec![Vec::new(); count] };
        let mut loops = drawn.loops.clone();
        loops.sort_unstable();
        let mut loops = loops.into_iter().peekable();
        let mut around: Vec<(usize, usize)> = Vec::new();
        for (at, step) in drawn.tape.iter_mut().enumerate() {
            around.retain(|&(_, last)| last >= at);
            while let Some(entered) = loops.next_if(|&(first, _)| first <= at) {
                around.push(entered);
            }
            step.slots(&mut |slot, what| lives.used(*slot as usize, what, at, &around, &drawn.slots));
        }
        lives
    }

    fn used(&mut self, slot: usize, what: Use, at: usize, around: &[(usize, usize)], slots: &[Kept]) {
        if slots[slot].is_pinned && what == Use::Write {
            self.writes[slot].push(at);
        }
        self.first[slot] = self.first[slot].min(at);
        // Around the outermost loop that has begun since, it may be wanted again.
        let begun = around.partition_point(|&(first, _)| first <= self.first[slot]);
        let until = around.get(begun).map_or(at, |&(_, last)| last);
        self.last[slot] = self.last[slot].max(until);
    }

    /// Whether a slot stays as it is behind one step and up to another.
    fn stays(&self, slot: Slot, from: usize, to: usize) -> bool {
        let writes = &self.writes[slot as usize];
        writes.get(writes.partition_point(|&at| at <= from)).is_none_or(|&at| at > to)
    }
}

/// Leaves out copies of what stays as it is as long as the copy is wanted.
fn drop_copies(drawn: &mut Drawn, lives: &Lives) {
    let mut originals: Vec<Slot> = (0..drawn.slots.len() as Slot).collect();
    for at in 0..drawn.tape.len() {
        drawn.tape[at].slots(&mut |slot, what| {
            if what == Use::Read {
                *slot = originals[*slot as usize];
            }
        });
        if let Step::Copy { to, from, .. } | Step::CopyOne { to, from } = drawn.tape[at]
            && !drawn.slots[to as usize].is_pinned
            && lives.stays(from, at, lives.last[to as usize])
        {
            originals[to as usize] = from;
            drawn.tape[at] = Step::NOTHING;
        }
    }
}

/// Lets registers swap places with what nobody wants afterwards.
fn move_last(drawn: &mut Drawn, lives: &Lives) {
    for (at, step) in drawn.tape.iter_mut().enumerate() {
        if let Step::Set { width: Width::Lanes, from: Arg::Wide(from), is_moved, .. } = step {
            *is_moved = !drawn.slots[*from as usize].is_pinned && lives.last[*from as usize] == at;
        }
    }
}

/// Per slot, its word or its number among those of its width.
struct Places {
    slots: Vec<Kept>,
    numbers: Vec<Slot>,
    ones: Pool,
    rows: Pool,
    lanes: Pool,
}

#[derive(Default)]
struct Pool {
    free: Vec<Slot>,
    count: Slot,
}

impl Pool {
    fn take(&mut self) -> Slot {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        })
    }
}

impl Places {
    fn new(drawn: &mut Drawn, lives: &Lives) -> Places {
        let slots = drawn.slots.clone();
        let numbers = vec![Slot::MAX; slots.len()];
        let mut places = Places { slots, numbers, ones: Pool::default(), rows: Pool::default(), lanes: Pool::default() };
        for slot in 0..places.slots.len() {
            if places.slots[slot].is_pinned {
                places.numbers[slot] = places.pool(slot).take();
            }
        }
        let mut ending: Vec<usize> = (0..places.slots.len()).filter(|&slot| !places.slots[slot].is_pinned).collect();
        ending.sort_by_key(|&slot| lives.last[slot]);
        let mut ending = ending.into_iter().peekable();
        for (at, step) in drawn.tape.iter_mut().enumerate() {
            step.slots(&mut |slot, _| {
                if places.numbers[*slot as usize] == Slot::MAX {
                    places.numbers[*slot as usize] = places.pool(*slot as usize).take();
                }
            });
            while let Some(slot) = ending.next_if(|&slot| lives.last[slot] <= at) {
                let number = places.numbers[slot];
                if number != Slot::MAX {
                    places.pool(slot).free.push(number);
                }
            }
        }
        places
    }

    fn pool(&mut self, slot: usize) -> &mut Pool {
        match self.slots[slot].width {
            None => &mut self.ones,
            Some(Width::Rows) => &mut self.rows,
            Some(Width::Lanes) => &mut self.lanes,
        }
    }

    /// A slot's word, or its entry in the table.
    fn place(&self, slot: Slot) -> Slot {
        let number = self.numbers[slot as usize];
        match self.slots[slot as usize].width {
            Some(Width::Lanes) => self.rows.count + number,
            _ => number,
        }
    }

    /// Where wide slots begin, masks last, and where the last one ends.
    fn table(&self, row: usize, lanes: usize, masks: usize) -> (Vec<u32>, usize) {
        let rows = (lanes / row).next_multiple_of(LINE);
        let lanes = lanes.next_multiple_of(LINE);
        let mut end = (self.ones.count as usize).next_multiple_of(LINE);
        let widths = std::iter::repeat_n(rows, self.rows.count as usize).chain(std::iter::repeat_n(lanes, self.lanes.count as usize + masks));
        let starts = widths.map(|width| {
            end += width;
            (end - width) as u32
        });
        let starts = starts.collect();
        (starts, end)
    }
}

/// The tape without marks, and targets by place.
fn without_marks(tape: Vec<Step>) -> Vec<Step> {
    let mut places = Vec::new();
    let mut kept = Vec::with_capacity(tape.len());
    for step in tape {
        match step {
            Step::NOTHING => {}
            Step::Mark(Target(target)) => {
                if places.len() <= target as usize {
                    places.resize(target as usize + 1, 0);
                }
                places[target as usize] = kept.len() as u32;
            }
            step => kept.push(step),
        }
    }
    for step in &mut kept {
        step.targets(|target| target.0 = places[target.0 as usize]);
    }
    kept
}
