//! The third way to run a kernel: slowly, watching every word.
//!
//! A workgroup advances in lockstep, step by step over the tree, as the interpreter does, with nothing made fast.
//! For every word of memory it is known who touched it last in this dispatch, and how:
//!
//! ```text
//! race     two invocations touch one word of a dispatch, at least one writes, and nothing orders them: they are of
//!          different workgroups, or of one and no barrier lies between. Atomics do not race with each other.
//! bounds   an index is beyond its array. The access is kept within, as everywhere, but not where the author thinks.
//! parted   a barrier is not reached by all invocations that the workgroup began with.
//! ```
//!
//! Invariants: what is computed is what every other back half computes; one finding per pair of places in the
//! text, so a kernel that is wrong everywhere still has a short report.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::ir::{Across, AtomicOp, Count, Input, Kernel, Label, Memory, Op, SUBGROUP, SharedVariable, Stmt, ValueId};
use super::ops;
use super::words::{Region, Span, Words};

/// Findings that are kept; a kernel with more has had its lesson.
const FINDINGS_MAX: usize = 100;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// Two invocations touch one word unordered, and one writes.
    Race,
    /// An index is beyond its array.
    Bounds,
    /// A barrier is not reached by all.
    Parted,
}

/// What memory a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundIn {
    /// A buffer, by its binding's number.
    Binding(u32),
    /// A variable of the workgroup, by its name, and whether it is an array.
    Workgroup(String, bool),
    /// An array whose name is not known here.
    Array,
    /// None.
    Nothing,
}

/// Something that a kernel does and should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The entry point.
    pub entry: String,
    /// Where it is.
    pub place: FoundIn,
    /// Races: the word of a buffer, the element of a variable of the workgroup. Bounds: the index asked for.
    pub word: u32,
    /// Bounds: how many elements there are.
    pub count: u32,
    /// The invocation that is seen to do it, by its global id, and the line of the kernel's text.
    pub here: ([u32; 3], u32),
    /// Races: the invocation that was there before.
    pub before: Option<([u32; 3], u32)>,
}

/// Findings of all kernels of an executor.
pub(crate) type Findings = Arc<Mutex<BTreeMap<(String, FindingKind, u32, u32), Finding>>>;

/// A kernel that is watched.
pub(crate) struct Inspector {
    kernel: Kernel,
    /// Where lines of the text begin.
    lines: Vec<u32>,
    findings: Findings,
}

/// Who touched a word last.
#[derive(Clone, Copy)]
struct Touch {
    group: u64,
    lane: u32,
    /// Barriers of the workgroup before it.
    phase: u32,
    is_atomic: bool,
    at: u32,
}

/// The last write of a word, and the reads since by at most two invocations: any two that race with a later write.
#[derive(Clone, Copy, Default)]
struct Shadow {
    write: Option<Touch>,
    reads: [Option<Touch>; 2],
}

struct Group<'a> {
    inspector: &'a Inspector,
    regions: Vec<Region<'a>>,
    groups: [u32; 3],
    number: u64,
    phase: u32,
    lanes: usize,
    values: Vec<Vec<u32>>,
    registers: Vec<Vec<u32>>,
    workgroup: Vec<u32>,
    private: Vec<Vec<u32>>,
    /// Where lanes wait that have left a block, or repeat a loop.
    gone: HashMap<Label, Vec<bool>>,
    shadows: HashMap<(Memory, u32), Shadow>,
    stop: &'a AtomicBool,
}

impl Inspector {
    /// Watches a kernel that was lowered from `text` without speculation.
    pub(crate) fn new(kernel: Kernel, text: &str, findings: Findings) -> Inspector {
        let lines = std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at as u32 + 1));
        Inspector { kernel, lines: lines.collect(), findings }
    }

    /// Runs workgroups of a dispatch; whether nothing stopped it.
    pub(crate) fn run(&self, words: &Words, spans: &[Span], groups: [u32; 3], range: Range<u64>, stop: &AtomicBool) -> bool {
        let lanes = self.kernel.invocations() as usize;
        let mut group = Group {
            inspector: self,
            regions: spans.iter().map(|span| words.region(*span)).collect(),
            groups,
            number: 0,
            phase: 0,
            lanes,
            values: vec![vec![0; lanes]; self.kernel.values.len()],
            registers: Vec::new(),
            workgroup: Vec::new(),
            private: Vec::new(),
            gone: HashMap::new(),
            shadows: HashMap::new(),
            stop,
        };
        range.into_iter().all(|number| group.run(number))
    }

    fn line(&self, at: u32) -> u32 {
        self.lines.partition_point(|&start| start <= at) as u32
    }
}

impl Group<'_> {
    fn run(&mut self, number: u64) -> bool {
        let kernel = &self.inspector.kernel;
        (self.number, self.phase) = (number, 0);
        self.registers = vec![vec![0; self.lanes]; kernel.registers.len()];
        self.workgroup = vec![0; kernel.workgroup_words as usize];
        self.private = vec![vec![0; self.lanes]; kernel.private_words as usize];
        self.shadows.retain(|(memory, _), _| matches!(memory, Memory::Binding(_)));
        for (index, value) in kernel.values.iter().enumerate() {
            if matches!(value.op, Op::Const(_) | Op::Input(_) | Op::Length(_)) {
                for lane in 0..self.lanes {
                    self.values[index][lane] = self.evaluate(value.op, lane);
                }
            }
        }
        let mut active = vec![true; self.lanes];
        self.steps(&kernel.body, &mut active)
    }

    fn steps(&mut self, steps: &[Stmt], active: &mut Vec<bool>) -> bool {
        steps.iter().all(|step| !active.contains(&true) || self.step(step, active))
    }

    fn step(&mut self, step: &Stmt, active: &mut Vec<bool>) -> bool {
        match step {
            Stmt::Let(value) => self.define(*value, active),
            Stmt::Set(register, value) => {
                each(active, |lane| self.registers[register.0 as usize][lane] = self.values[value.0 as usize][lane]);
            }
            Stmt::Store { memory, address, offset, value, at } => each(active, |lane| {
                let word = self.of(*address, lane).wrapping_add(*offset);
                self.touch(*memory, word, lane, true, false, *at);
                self.write(*memory, word, lane, self.of(*value, lane));
            }),
            Stmt::Atomic { .. } => each(active, |lane| self.atomic(step, lane)),
            Stmt::Across { what, found } => {
                let words: Vec<u32> = (0..self.lanes).map(|lane| self.across(*what, lane, active)).collect();
                each(active, |lane| self.values[found.0 as usize][lane] = words[lane]);
            }
            Stmt::If { condition, accept, reject } => {
                let mut sides = [true, false].map(|wanted| {
                    active.iter().enumerate().map(|(lane, &is)| is && (self.of(*condition, lane) != 0) == wanted).collect::<Vec<bool>>()
                });
                let goes_on = self.steps(accept, &mut sides[0]) && self.steps(reject, &mut sides[1]);
                *active = sides[0].iter().zip(&sides[1]).map(|(a, b)| *a || *b).collect();
                return goes_on;
            }
            Stmt::Block { label, body } => {
                let goes_on = self.steps(body, active);
                self.rejoin(*label, active);
                return goes_on;
            }
            Stmt::Loop { label, body } => return self.repeat(*label, body, active),
            Stmt::Exit(label) | Stmt::Repeat(label) => {
                let gone = self.gone.entry(*label).or_insert_with(|| vec![false; active.len()]);
                gone.iter_mut().zip(active.iter_mut()).for_each(|(gone, active)| *gone |= std::mem::take(active));
            }
            Stmt::Barrier { at } => {
                if active.contains(&false) {
                    let lane = active.iter().position(|is| *is).unwrap_or(0);
                    let here = (self.global(self.number, lane as u32), self.inspector.line(*at));
                    self.report(FindingKind::Parted, FoundIn::Nothing, (0, 0), here, None);
                }
                self.phase += 1;
            }
        }
        true
    }

    fn rejoin(&mut self, label: Label, active: &mut [bool]) {
        if let Some(gone) = self.gone.remove(&label) {
            active.iter_mut().zip(gone).for_each(|(active, gone)| *active |= gone);
        }
    }

    fn repeat(&mut self, label: Label, body: &[Stmt], active: &mut Vec<bool>) -> bool {
        let mut through = vec![false; active.len()];
        while active.contains(&true) {
            if self.stop.load(Ordering::Relaxed) || !self.steps(body, active) {
                return false;
            }
            through.iter_mut().zip(active.iter_mut()).for_each(|(through, active)| *through |= std::mem::take(active));
            self.rejoin(label, active);
        }
        *active = through;
        true
    }

    fn of(&self, value: ValueId, lane: usize) -> u32 {
        self.values[value.0 as usize][lane]
    }

    fn define(&mut self, id: ValueId, active: &[bool]) {
        let value = *self.inspector.kernel.value(id);
        each(active, |lane| {
            let word = match value.op {
                Op::Load { memory, address, offset } => {
                    let word = self.of(address, lane).wrapping_add(offset);
                    self.touch(memory, word, lane, false, false, value.at);
                    self.read(memory, word, lane)
                }
                Op::Index { index, count } => {
                    let (asked, count_now) = (self.of(index, lane), self.count(count));
                    if asked >= count_now {
                        let here = (self.global(self.number, lane as u32), self.inspector.line(value.at));
                        let place = match count {
                            Count::Runtime { binding, .. } => FoundIn::Binding(self.inspector.kernel.bindings[binding as usize].number),
                            Count::Fixed(_) => FoundIn::Array,
                        };
                        self.report(FindingKind::Bounds, place, (asked, count_now), here, None);
                    }
                    asked.min(count_now.wrapping_sub(1))
                }
                op => self.evaluate(op, lane),
            };
            self.values[id.0 as usize][lane] = word;
        });
    }

    fn across(&self, what: Across, lane: usize, active: &[bool]) -> u32 {
        let first = lane / SUBGROUP as usize * SUBGROUP as usize;
        match what {
            Across::Here => (0..SUBGROUP).filter(|&place| active.get(first + place as usize) == Some(&true)).map(|place| 1 << place).sum(),
            Across::Of(value, place) => self.values[value.0 as usize].get(first + usize::from(place)).copied().unwrap_or(0),
        }
    }

    /// What needs no memory.
    fn evaluate(&self, op: Op, lane: usize) -> u32 {
        match op {
            Op::Const(bits) => bits,
            Op::Input(input) => self.input(input, lane as u32),
            Op::Get(register) => self.registers[register.0 as usize][lane],
            Op::Unary(op, a) => ops::unary(op, self.of(a, lane)),
            Op::Binary(op, a, b) => ops::binary(op, self.of(a, lane), self.of(b, lane)),
            Op::Select { condition, accept, reject } => self.of(if self.of(condition, lane) != 0 { accept } else { reject }, lane),
            Op::Length(count) => self.count(count),
            Op::Index { .. } | Op::Load { .. } | Op::Found => 0,
        }
    }

    fn input(&self, input: Input, lane: u32) -> u32 {
        let place = local(self.inspector.kernel.workgroup, lane);
        match input {
            Input::LocalId(axis) => place[usize::from(axis)],
            Input::LocalIndex => lane,
            Input::GroupId(axis) => group(self.groups, self.number)[usize::from(axis)],
            Input::Groups(axis) => self.groups[usize::from(axis)],
        }
    }

    fn count(&self, count: Count) -> u32 {
        match count {
            Count::Fixed(count) => count,
            Count::Runtime { binding, first, stride } => (self.regions[binding as usize].last() + 1).saturating_sub(first) / stride,
        }
    }

    fn read(&self, memory: Memory, word: u32, lane: usize) -> u32 {
        match memory {
            Memory::Binding(binding) => self.regions[binding as usize].load(word),
            Memory::Workgroup => self.workgroup.get(word as usize).copied().unwrap_or(0),
            Memory::Private => self.private.get(word as usize).map_or(0, |lanes| lanes[lane]),
            Memory::Constant => self.inspector.kernel.constants.get(word as usize).copied().unwrap_or(0),
        }
    }

    fn write(&mut self, memory: Memory, word: u32, lane: usize, content: u32) {
        match memory {
            Memory::Binding(binding) => self.regions[binding as usize].store(word, content),
            Memory::Workgroup => self.workgroup.get_mut(word as usize).into_iter().for_each(|place| *place = content),
            Memory::Private => self.private.get_mut(word as usize).into_iter().for_each(|lanes| lanes[lane] = content),
            Memory::Constant => {}
        }
    }

    fn atomic(&mut self, step: &Stmt, lane: usize) {
        let Stmt::Atomic { op, memory, address, offset, value, compare, found, at } = step else { return };
        let word = self.of(*address, lane).wrapping_add(*offset);
        self.touch(*memory, word, lane, *op != AtomicOp::Load, true, *at);
        let old = self.read(*memory, word, lane);
        let compare = compare.map_or(0, |compare| self.of(compare, lane));
        self.write(*memory, word, lane, ops::atomic(*op, old, self.of(*value, lane), compare));
        if let Some(found) = found {
            self.values[found.0 as usize][lane] = old;
        }
    }

    /// Holds an access against those before it.
    fn touch(&mut self, memory: Memory, word: u32, lane: usize, is_write: bool, is_atomic: bool, at: u32) {
        if matches!(memory, Memory::Private | Memory::Constant) {
            return;
        }
        let touch = Touch { group: self.number, lane: lane as u32, phase: self.phase, is_atomic, at };
        let shadow = self.shadows.entry((memory, word)).or_default();
        let is_racing = |before: &Touch| {
            let is_other = (before.group, before.lane) != (touch.group, touch.lane);
            let is_unordered = before.group != touch.group || before.phase == touch.phase;
            is_other && is_unordered && !(before.is_atomic && touch.is_atomic)
        };
        let mut racing = shadow.write.filter(is_racing);
        if is_write {
            racing = racing.or(shadow.reads.iter().flatten().copied().find(is_racing));
            *shadow = Shadow { write: Some(touch), reads: [None; 2] };
        } else {
            // Reads of two invocations tell a later write of any third, and of either, that it races.
            let is_same = |read: &Option<Touch>| read.is_none_or(|read| (read.group, read.lane) == (touch.group, touch.lane));
            let at = usize::from(!is_same(&shadow.reads[0]));
            shadow.reads[at] = Some(touch);
        }
        if let Some(before) = racing {
            let kernel = &self.inspector.kernel;
            let (place, word) = match memory {
                Memory::Binding(binding) => (FoundIn::Binding(kernel.bindings[binding as usize].number), word),
                _ => match kernel.shared.iter().rev().find(|variable| variable.first <= word) {
                    Some(SharedVariable { name, first, stride }) => {
                        (FoundIn::Workgroup(name.clone(), stride.is_some()), (word - first) / stride.unwrap_or(u32::MAX).max(1))
                    }
                    None => (FoundIn::Array, word),
                },
            };
            let here = (self.global(touch.group, touch.lane), self.inspector.line(at));
            let before = (self.global(before.group, before.lane), self.inspector.line(before.at));
            self.report(FindingKind::Race, place, (word, 0), here, Some(before));
        }
    }

    fn global(&self, number: u64, lane: u32) -> [u32; 3] {
        let workgroup = self.inspector.kernel.workgroup;
        let (group, local) = (group(self.groups, number), local(workgroup, lane));
        [0, 1, 2].map(|axis| group[axis] * workgroup[axis] + local[axis])
    }

    fn report(&self, kind: FindingKind, place: FoundIn, (word, count): (u32, u32), here: ([u32; 3], u32), before: Option<([u32; 3], u32)>) {
        let entry = self.inspector.kernel.entry.clone();
        let key = (entry.clone(), kind, here.1, before.map_or(0, |(_, line)| line));
        let mut findings = self.inspector.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.len() < FINDINGS_MAX {
            findings.entry(key).or_insert(Finding { kind, entry, place, word, count, here, before });
        }
    }
}

fn each(active: &[bool], mut visit: impl FnMut(usize)) {
    active.iter().enumerate().filter(|(_, is)| **is).for_each(|(lane, _)| visit(lane));
}

fn local([x, y, _]: [u32; 3], lane: u32) -> [u32; 3] {
    [lane % x, lane / x % y, lane / (x * y)]
}

fn group([x, y, _]: [u32; 3], number: u64) -> [u32; 3] {
    let (x, y) = (u64::from(x), u64::from(y));
    [number % x, number / x % y, number / (x * y)].map(|axis| axis as u32)
}
