//! Kernels against what they mean: those at random against `reference.rs`, those with barriers and races that have
//! an outcome against that outcome.

mod control;
mod fewer;
mod fused;
mod memory;

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::builder::Builder;
use super::super::ir::{AtomicOp, Binary, Binding, Count, Input, Label, Memory, RegisterId, Scalar, Unary, ValueId};
use super::super::reference::{self, Random};
use super::*;

/// Memory that holds bindings one behind the other, with words between them that nobody may touch.
struct Run {
    words: Words,
    spans: Vec<Span>,
}

const BETWEEN: u32 = 0xdead_beef;

impl Run {
    fn new(bindings: &[Vec<u32>]) -> Run {
        let mut spans = Vec::new();
        let mut first = 3;
        for binding in bindings {
            spans.push(Span { first, words: binding.len() as u32 });
            first += binding.len() as u32 + 5;
        }
        let words = Words::new(first as usize).unwrap();
        words.fill(0..first as usize, BETWEEN);
        for (span, binding) in spans.iter().zip(bindings) {
            let bytes: Vec<u8> = binding.iter().flat_map(|word| word.to_le_bytes()).collect();
            words.write(span.first as usize, &bytes);
        }
        Run { words, spans }
    }

    fn all(&self, at: usize, words: usize) -> Vec<u32> {
        let mut bytes = vec![0; words * 4];
        self.words.read(at, &mut bytes);
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn binding(&self, binding: usize) -> Vec<u32> {
        self.all(self.spans[binding].first as usize, self.spans[binding].words as usize)
    }

    fn check_between(&self) {
        let mut all = self.all(0, self.words.len());
        for span in &self.spans {
            all[span.first as usize..(span.first + span.words) as usize].fill(BETWEEN);
        }
        assert!(all.iter().all(|&word| word == BETWEEN), "words outside of the bindings have changed");
    }
}

/// An interpreter for each level that this machine has.
fn interpreters(kernel: &Kernel) -> Vec<Interpreter> {
    let mut all = vec![Interpreter::new(kernel), Interpreter::new(kernel)];
    all[1].level = Level::Plain;
    all
}

fn go(interpreter: &Interpreter, scratch: &mut Scratch, run: &Run, groups: [u32; 3], range: Range<u64>) {
    interpreter.run(scratch, &run.words, &run.spans, groups, range, &AtomicBool::new(false)).unwrap();
}

/// Runs all workgroups over `bindings`; what these hold then.
fn outcome(kernel: &Kernel, bindings: &[Vec<u32>], groups: [u32; 3]) -> Vec<Vec<u32>> {
    let mut outcomes: Vec<Vec<Vec<u32>>> = Vec::new();
    for interpreter in interpreters(kernel) {
        let run = Run::new(bindings);
        let count = groups.iter().map(|&count| u64::from(count)).product();
        go(&interpreter, &mut interpreter.scratch(), &run, groups, 0..count);
        run.check_between();
        outcomes.push((0..bindings.len()).map(|binding| run.binding(binding)).collect());
    }
    assert_eq!(outcomes[0], outcomes[1], "levels differ");
    outcomes.swap_remove(0)
}

/// A kernel, step by step as it is made.
fn kernel(workgroup: [u32; 3], bindings: &[bool], make: impl FnOnce(&mut Builder)) -> Kernel {
    let mut b = Builder::new("test", workgroup).without_speculation();
    for (number, &is_writable) in bindings.iter().enumerate() {
        b.binding(Binding { number: number as u32, is_writable, words_min: 1 });
    }
    make(&mut b);
    b.finish()
}

/// `workgroup_id.x * workgroup size + local_invocation_index`.
fn global(b: &mut Builder) -> ValueId {
    let size = b.kernel().invocations();
    let (group, size, lane) = (b.input(Input::GroupId(0)), b.uint(size), b.input(Input::LocalIndex));
    let first = b.binary(Binary::Mul, group, size);
    b.binary(Binary::Add, first, lane)
}

fn runtime(b: &mut Builder, binding: u32, index: ValueId) -> ValueId {
    b.index(index, Count::Runtime { binding, first: 0, stride: 1 })
}

fn if_then(b: &mut Builder, condition: ValueId, then: impl FnOnce(&mut Builder)) {
    b.begin_if(condition);
    then(b);
    b.begin_else();
    b.end_if();
}

/// `while (condition) { body }` with `break` by the label that the body gets.
fn while_loop(
    b: &mut Builder,
    written: &[RegisterId],
    condition: impl FnOnce(&mut Builder) -> ValueId,
    body: impl FnOnce(&mut Builder, Label, Label),
) {
    let through = b.begin_block();
    let again = b.begin_loop(written.iter().copied());
    let goes_on = condition(b);
    let is_over = b.unary(Unary::NotB, goes_on);
    if_then(b, is_over, |b| b.exit(through));
    body(b, through, again);
    b.repeat(again);
    b.end_loop();
    b.end_block();
}

fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|&word| f32::from_bits(word)).collect()
}

// ---- at random

/// A kernel at random against the reference, in two parts with one scratch, on each level.
fn check_random(random: &Random) -> Result<(), TestCaseError> {
    let kernel = &random.kernel;
    let count: u64 = random.groups.iter().map(|&count| u64::from(count)).product();
    for interpreter in interpreters(kernel) {
        let mut expected = random.bindings();
        let run = Run::new(&expected);
        let mut scratch = interpreter.scratch();
        for range in [count / 2..count, 0..count / 2] {
            reference::run(kernel, &mut expected, random.groups, range.clone(), &mut |_, _| {});
            go(&interpreter, &mut scratch, &run, random.groups, range);
            for (binding, expected) in expected.iter().enumerate() {
                prop_assert_eq!(&run.binding(binding), expected, "binding {} on {:?}", binding, interpreter.level);
            }
        }
        run.check_between();
    }
    Ok(())
}

proptest! {
    #![proptest_config(reference::config(400))]

    #[test]
    fn kernels_at_random_do_what_they_mean(choices in reference::choices()) {
        check_random(&reference::random_kernel(&choices))?;
    }
}

// ---- runs

#[test]
fn a_kernel_that_never_ends_can_be_stopped() {
    for is_together in [false, true] {
        let kernel = kernel([8, 1, 1], &[true], |b| {
            let again = b.begin_loop([]);
            let (zero, lane) = (b.uint(0), b.input(Input::LocalIndex));
            b.store(Memory::Binding(0), zero, 0, lane);
            if is_together {
                b.repeat(again);
            } else {
                let is_late = b.binary(Binary::LtU, zero, lane);
                if_then(b, is_late, |b| b.repeat(again));
            }
            b.end_loop();
        });
        let run = Run::new(&[vec![9]]);
        let interpreter = Interpreter::new(&kernel);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| interpreter.run(&mut interpreter.scratch(), &run.words, &run.spans, [1, 1, 1], 0..1, &stop));
            // It runs once its first store is seen; from then on only `stop` ends it.
            while run.binding(0) == [9] {
                std::hint::spin_loop();
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(running.join().unwrap(), Err(Stopped));
        });
        assert_eq!(interpreter.run(&mut interpreter.scratch(), &run.words, &run.spans, [1, 1, 1], 0..1, &stop), Err(Stopped));
    }
}

#[test]
#[should_panic(expected = "1 bindings where the kernel has 2")]
fn bindings_are_the_kernels() {
    let kernel = kernel([8, 1, 1], &[true, true], |_| {});
    let run = Run::new(&[vec![9]]);
    go(&Interpreter::new(&kernel), &mut Interpreter::new(&kernel).scratch(), &run, [1, 1, 1], 0..1);
}
