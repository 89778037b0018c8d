//! Kernels against what they mean: those at random against `reference.rs`, those with barriers and races that have
//! an outcome against that outcome.

mod fused;

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

// ---- memory

#[test]
fn elements_are_computed_one_by_one() {
    // y = a x + y over arrays that the last workgroup reaches beyond.
    for (size, elements) in [(64, 150), (6, 11), (1, 3), (256, 256)] {
        let kernel = kernel([size, 1, 1], &[false, true], |b| {
            let at = global(b);
            let length = b.op(Scalar::U32, super::super::ir::Op::Length(Count::Runtime { binding: 1, first: 0, stride: 1 }));
            let is_inside = b.binary(Binary::LtU, at, length);
            if_then(b, is_inside, |b| {
                let (from, to) = (runtime(b, 0, at), runtime(b, 1, at));
                let (x, y) = (b.load(Scalar::F32, Memory::Binding(0), from, 0), b.load(Scalar::F32, Memory::Binding(1), to, 0));
                let a = b.float(2.5);
                let ax = b.binary(Binary::MulF, a, x);
                let sum = b.binary(Binary::AddF, ax, y);
                b.store(Memory::Binding(1), to, 0, sum);
            });
        });
        let x: Vec<u32> = (0..elements).map(|at| (at as f32 * 0.5).to_bits()).collect();
        let y: Vec<u32> = (0..elements).map(|at| (100.0 - at as f32).to_bits()).collect();
        let out = outcome(&kernel, &[x, y], [(elements as u32).div_ceil(size), 1, 1]);
        let expected: Vec<f32> = (0..elements).map(|at| 2.5 * (at as f32 * 0.5) + (100.0 - at as f32)).collect();
        assert_eq!(floats(&out[1]), expected, "{size}");
    }
}

#[test]
fn indices_beyond_the_end_are_the_last_ones() {
    // Each lane looks `scale` times its number and `shift` elements of two words further, and keeps what it finds.
    for (shift, scale) in
        [0i32, 3, -2, 14, 16, 60, -100, i32::MAX, i32::MIN].into_iter().flat_map(|shift| [1i32, 2, -1, -5].map(|scale| (shift, scale)))
    {
        for workgroup in [[8, 2, 1], [64, 1, 1], [5, 1, 1]] {
            let kernel = kernel(workgroup, &[false, true], |b| {
                let (lane, scale, shift, two) = (b.input(Input::LocalIndex), b.uint(scale as u32), b.uint(shift as u32), b.uint(2));
                let asked = b.binary(Binary::Mul, lane, scale);
                let asked = b.binary(Binary::Add, asked, shift);
                let index = b.index(asked, Count::Runtime { binding: 0, first: 1, stride: 2 });
                let address = b.binary(Binary::Mul, index, two);
                let first = b.load(Scalar::U32, Memory::Binding(0), address, 1);
                let second = b.load(Scalar::U32, Memory::Binding(0), address, 2);
                // The index itself, too, and a row that is not cut.
                let one = runtime(b, 0, asked);
                let third = b.load(Scalar::U32, Memory::Binding(0), one, 0);
                for (word, value) in [first, second, third, index].into_iter().enumerate() {
                    let four = b.uint(4);
                    let to = b.binary(Binary::Mul, lane, four);
                    b.store(Memory::Binding(1), to, word as u32, value);
                }
            });
            let lanes = kernel.invocations();
            let input: Vec<u32> = (0..31).map(|at| at * 10).collect();
            let out = outcome(&kernel, &[input.clone(), vec![0; lanes as usize * 4]], [1, 1, 1]);
            let expected: Vec<u32> = (0..lanes)
                .flat_map(|lane| {
                    let asked = lane.wrapping_mul(scale as u32).wrapping_add(shift as u32);
                    let index = asked.min(14);
                    let at = |word: u32| input[word as usize];
                    [at(index * 2 + 1), at(index * 2 + 2), at(asked.min(30)), index]
                })
                .collect();
            assert_eq!(out[1], expected, "{scale} {shift} {workgroup:?}");
        }
    }
}

#[test]
fn addresses_that_only_turn_out_to_be_rows_are_followed() {
    // Where to is read from memory: in order, in order but for one, backwards, all the same but the last one.
    let orders: [fn(u32) -> u32; 4] =
        [|lane| lane + 3, |lane| if lane == 40 { 2 } else { lane + 3 }, |lane| 99 - lane, |lane| if lane < 70 { 5 } else { 7 }];
    for order in orders {
        for condition in [0, 3] {
            let kernel = kernel([71, 1, 1], &[false, true, true], |b| {
                let lane = b.input(Input::LocalIndex);
                let own = runtime(b, 0, lane);
                let place = b.load(Scalar::U32, Memory::Binding(0), own, 0);
                let to = runtime(b, 1, place);
                let rest = b.uint(condition);
                let is_there = b.binary(Binary::LeU, rest, lane);
                if_then(b, is_there, |b| {
                    let before = b.load(Scalar::U32, Memory::Binding(1), to, 0);
                    b.store(Memory::Binding(2), lane, 0, before);
                    b.store(Memory::Binding(1), to, 0, lane);
                });
            });
            let places: Vec<u32> = (0..71).map(order).collect();
            let start: Vec<u32> = (0..100).map(|at| at + 1000).collect();
            let out = outcome(&kernel, &[places.clone(), start.clone(), vec![0; 71]], [1, 1, 1]);
            let mut expected = [start.clone(), vec![0; 71]];
            for lane in condition as usize..71 {
                expected[1][lane] = start[places[lane] as usize];
                expected[0][places[lane] as usize] = lane as u32;
            }
            assert_eq!(out[1..], expected);
        }
    }
}

#[test]
fn the_last_lane_that_is_there_wins_one_word() {
    let kernel = kernel([12, 2, 1], &[true], |b| {
        let (lane, zero, bound, row) = (b.input(Input::LocalIndex), b.uint(0), b.uint(17), b.input(Input::LocalId(1)));
        b.store(Memory::Binding(0), zero, 0, lane);
        let is_below = b.binary(Binary::LtU, lane, bound);
        if_then(b, is_below, |b| b.store(Memory::Binding(0), zero, 1, lane));
        // A word of each row.
        b.store(Memory::Binding(0), row, 2, lane);
        let seven = b.uint(7);
        b.store(Memory::Binding(0), zero, 4, seven);
    });
    assert_eq!(outcome(&kernel, &[vec![0; 6]], [1, 1, 1])[0], [23, 16, 11, 23, 7, 0]);
}

#[test]
fn private_memory_is_each_ones_own() {
    // Each lane writes its number to word lane % 5 and reads all words, which were 7 before.
    let kernel = kernel([10, 1, 1], &[true], |b| {
        b.kernel().private_words = 5;
        let (lane, five, zero, seven, one) = (b.input(Input::LocalIndex), b.uint(5), b.uint(0), b.uint(7), b.uint(1));
        for word in 0..5 {
            b.store(Memory::Private, zero, word, seven);
        }
        let own = b.binary(Binary::RemU, lane, five);
        let is_odd = b.binary(Binary::And, lane, one);
        let is_odd = b.binary(Binary::Ne, is_odd, zero);
        if_then(b, is_odd, |b| b.store(Memory::Private, own, 0, lane));
        let to = b.binary(Binary::Mul, lane, five);
        for word in 0..5 {
            let value = b.load(Scalar::U32, Memory::Private, zero, word);
            b.store(Memory::Binding(0), to, word, value);
        }
    });
    let word = |at: u32| if at / 5 % 5 == at % 5 && at / 5 % 2 == 1 { at / 5 } else { 7 };
    let expected: Vec<u32> = (0..50).map(word).collect();
    assert_eq!(outcome(&kernel, &[vec![0; 50]], [1, 1, 1])[0], expected);
}

#[test]
fn atomics_take_their_turns_in_order() {
    let kernel = kernel([8, 1, 1], &[true, true], |b| {
        b.kernel().workgroup_words = 2;
        let (lane, zero, three) = (b.input(Input::LocalIndex), b.uint(0), b.uint(3));
        let at = global(b);
        let found = b.atomic(AtomicOp::Add, Memory::Workgroup, zero, 1, lane, None);
        b.store(Memory::Binding(1), at, 0, found);
        let is_late = b.binary(Binary::LtU, three, lane);
        if_then(b, is_late, |b| {
            b.atomic(AtomicOp::MaxU, Memory::Binding(0), zero, 0, lane, None);
            let compare = b.uint(0);
            let swapped = b.atomic(AtomicOp::CompareExchange, Memory::Binding(0), zero, 1, lane, Some(compare));
            b.store(Memory::Binding(1), at, 16, swapped);
        });
    });
    let out = outcome(&kernel, &[vec![2, 0], vec![99; 32]], [2, 1, 1]);
    assert_eq!(out[0], [7, 4]);
    let sums = [0, 0, 1, 3, 6, 10, 15, 21];
    assert_eq!(out[1][..16], [sums, sums].concat());
    assert_eq!(out[1][16..], [99, 99, 99, 99, 0, 4, 4, 4, 99, 99, 99, 99, 4, 4, 4, 4]);
}

#[test]
fn lanes_that_change_one_word_may_agree_first() {
    use AtomicOp::*;
    for op in [Add, Sub, And, Or, Xor, MinI, MinU, MaxI, MaxU, Exchange, Store] {
        let kernel = kernel([6, 1, 1], &[true], |b| {
            let (lane, zero, one, big) = (b.input(Input::LocalIndex), b.uint(0), b.uint(1), b.uint(0x5555_5555));
            let odd = b.binary(Binary::And, lane, one);
            let is_odd = b.binary(Binary::Eq, odd, one);
            let value = b.binary(Binary::Mul, lane, big);
            b.atomic(op, Memory::Binding(0), zero, 0, value, None);
            if_then(b, is_odd, |b| {
                b.atomic(op, Memory::Binding(0), zero, 1, value, None);
                b.atomic(op, Memory::Binding(0), zero, 2, big, None);
            });
        });
        let of = |lane: u32| lane.wrapping_mul(0x5555_5555);
        let go = |start: u32, values: &[u32]| values.iter().fold(start, |old, &value| super::super::ops::atomic(op, old, value, 0));
        let start = [0xf0f0_1234, 7, 100];
        let expected = [go(start[0], &[0, 1, 2, 3, 4, 5].map(of)), go(start[1], &[1, 3, 5].map(of)), go(start[2], &[of(1); 3])];
        assert_eq!(outcome(&kernel, &[start.to_vec()], [1, 1, 1])[0], expected, "{op:?}");
    }
}

// ---- workgroups

#[test]
fn workgroups_know_where_they_are() {
    // Each writes its number in the dispatch, of three axes and of its own making, and how many there are.
    let make = |workgroup: [u32; 3]| {
        kernel(workgroup, &[true], |b| {
            let [x, y, z] = [0, 1, 2].map(|axis| b.input(Input::GroupId(axis)));
            let [width, height, _] = [0, 1, 2].map(|axis| b.input(Input::Groups(axis)));
            let plane = b.binary(Binary::Mul, z, height);
            let plane = b.binary(Binary::Add, plane, y);
            let row = b.binary(Binary::Mul, plane, width);
            let group = b.binary(Binary::Add, row, x);
            let size = b.uint(workgroup.iter().product());
            let first = b.binary(Binary::Mul, group, size);
            let lane = b.input(Input::LocalIndex);
            let at = b.binary(Binary::Add, first, lane);
            // The place in the workgroup from the three axes: what `local_invocation_index` is, by another way.
            let [i, j, k] = [0, 1, 2].map(|axis| b.input(Input::LocalId(axis)));
            let (columns, rows) = (b.uint(workgroup[0]), b.uint(workgroup[1]));
            let plane = b.binary(Binary::Mul, k, rows);
            let plane = b.binary(Binary::Add, plane, j);
            let row = b.binary(Binary::Mul, plane, columns);
            let place = b.binary(Binary::Add, row, i);
            let place = b.binary(Binary::Add, first, place);
            let ten = b.uint(10);
            let (value, three) = (b.binary(Binary::Mul, place, ten), b.uint(3));
            let value = b.binary(Binary::Xor, value, three);
            b.store(Memory::Binding(0), at, 0, value);
        })
    };
    for workgroup in [[4, 2, 3], [3, 5, 2], [8, 1, 2], [1, 1, 7], [2, 2, 1]] {
        let kernel = make(workgroup);
        let count = 12 * kernel.invocations();
        let expected: Vec<u32> = (0..count).map(|at| (at * 10) ^ 3).collect();
        assert_eq!(outcome(&kernel, &[vec![0; count as usize]], [3, 2, 2])[0], expected, "{workgroup:?}");
    }
}

#[test]
fn only_the_workgroups_of_a_range_run() {
    let kernel = kernel([4, 1, 1], &[true], |b| {
        let (at, one) = (global(b), b.uint(1));
        b.store(Memory::Binding(0), at, 0, one);
    });
    let run = Run::new(&[vec![0; 40]]);
    let interpreter = Interpreter::new(&kernel);
    go(&interpreter, &mut interpreter.scratch(), &run, [10, 1, 1], 3..5);
    let expected: Vec<u32> = (0..40).map(|at| u32::from((12..20).contains(&at))).collect();
    assert_eq!(run.binding(0), expected);
    run.check_between();
}

#[test]
fn a_workgroup_adds_up_what_its_lanes_bring() {
    // A tree of sums in workgroup memory, with a barrier between its storeys.
    let kernel = kernel([32, 1, 1], &[false, true], |b| {
        b.kernel().workgroup_words = 32;
        let (lane, group) = (b.input(Input::LocalIndex), b.input(Input::GroupId(0)));
        let at = global(b);
        let from = runtime(b, 0, at);
        let own = b.load(Scalar::U32, Memory::Binding(0), from, 0);
        b.store(Memory::Workgroup, lane, 0, own);
        b.barrier();
        let stride = b.register(Scalar::U32);
        let sixteen = b.uint(16);
        b.set(stride, sixteen);
        let zero = b.uint(0);
        while_loop(
            b,
            &[stride],
            |b| {
                let stride = b.get(stride);
                b.binary(Binary::LtU, zero, stride)
            },
            |b, _, _| {
                let held = b.get(stride);
                let is_near = b.binary(Binary::LtU, lane, held);
                if_then(b, is_near, |b| {
                    let far = b.binary(Binary::Add, lane, held);
                    let far = b.index(far, Count::Fixed(32));
                    let (a, c) = (b.load(Scalar::U32, Memory::Workgroup, lane, 0), b.load(Scalar::U32, Memory::Workgroup, far, 0));
                    let sum = b.binary(Binary::Add, a, c);
                    b.store(Memory::Workgroup, lane, 0, sum);
                });
                b.barrier();
                let one = b.uint(1);
                let half = b.binary(Binary::ShrU, held, one);
                b.set(stride, half);
            },
        );
        let is_first = b.binary(Binary::Eq, lane, zero);
        if_then(b, is_first, |b| {
            let total = b.load(Scalar::U32, Memory::Workgroup, zero, 0);
            b.store(Memory::Binding(1), group, 0, total);
        });
    });
    let input: Vec<u32> = (0..96).map(|at| at * at).collect();
    let sums: Vec<u32> = input.chunks(32).map(|chunk| chunk.iter().sum()).collect();
    assert_eq!(outcome(&kernel, &[input, vec![0; 3]], [3, 1, 1])[1], sums);
}

#[test]
fn workgroup_memory_is_zero_at_the_start_and_shared_afterwards() {
    // Each lane leaves its number for its neighbour; what was there before is added to it.
    let kernel = kernel([8, 1, 1], &[true], |b| {
        b.kernel().workgroup_words = 8;
        let (lane, one, seven) = (b.input(Input::LocalIndex), b.uint(1), b.uint(7));
        let next = b.binary(Binary::Add, lane, one);
        let next = b.binary(Binary::And, next, seven);
        let before = b.load(Scalar::U32, Memory::Workgroup, next, 0);
        let left = b.binary(Binary::Add, before, lane);
        b.store(Memory::Workgroup, next, 0, left);
        b.barrier();
        let got = b.load(Scalar::U32, Memory::Workgroup, lane, 0);
        let at = global(b);
        b.store(Memory::Binding(0), at, 0, got);
        // What one lane says to all.
        let first = b.unary(Unary::Uniform, got);
        b.store(Memory::Binding(0), at, 16, first);
    });
    let got = [7, 0, 1, 2, 3, 4, 5, 6];
    assert_eq!(outcome(&kernel, &[vec![0; 32]], [2, 1, 1])[0], [got, got, [7; 8], [7; 8]].concat());
}

// ---- control

fn collatz(n: u32) -> u32 {
    let (mut n, mut steps) = (n, 0);
    while n > 1 {
        n = if n.is_multiple_of(2) { n / 2 } else { n * 3 + 1 };
        steps += 1;
    }
    steps
}

#[test]
fn lanes_go_round_as_often_as_they_need() {
    for workgroup in [[64, 1, 1], [7, 1, 1], [16, 4, 1], [256, 1, 1]] {
        let kernel = kernel(workgroup, &[true], |b| {
            let (number, steps) = (b.register(Scalar::U32), b.register(Scalar::U32));
            let at = global(b);
            let (zero, one, two, three) = (b.uint(0), b.uint(1), b.uint(2), b.uint(3));
            b.set(number, at);
            while_loop(
                b,
                &[number, steps],
                |b| {
                    let n = b.get(number);
                    b.binary(Binary::LtU, one, n)
                },
                |b, _, _| {
                    let n = b.get(number);
                    let odd = b.binary(Binary::RemU, n, two);
                    let is_even = b.binary(Binary::Eq, odd, zero);
                    b.begin_if(is_even);
                    let half = b.binary(Binary::DivU, n, two);
                    b.set(number, half);
                    b.begin_else();
                    let tripled = b.binary(Binary::Mul, n, three);
                    let more = b.binary(Binary::Add, tripled, one);
                    b.set(number, more);
                    b.end_if();
                    let count = b.get(steps);
                    let count = b.binary(Binary::Add, count, one);
                    b.set(steps, count);
                },
            );
            let count = b.get(steps);
            b.store(Memory::Binding(0), at, 0, count);
        });
        let count = kernel.invocations() * 2;
        let expected: Vec<u32> = (0..count).map(collatz).collect();
        assert_eq!(outcome(&kernel, &[vec![0; count as usize]], [2, 1, 1])[0], expected);
    }
}

#[test]
fn lanes_leave_and_repeat_from_anywhere() {
    // for i in 0..lane { if i == 5 break; for j in 0..3 { if (i + j) % 3 == 2 continue; if j == lane break outer; n += 10 } n += 1 }
    fn expected(lane: u32) -> u32 {
        let mut n = 0;
        'outer: for i in 0..lane {
            if i == 5 {
                break;
            }
            for j in 0..3 {
                if (i + j) % 3 == 2 {
                    continue;
                }
                if j * 4 == lane {
                    break 'outer;
                }
                n += 10;
            }
            n += 1;
        }
        n
    }
    let kernel = kernel([16, 1, 1], &[true], |b| {
        let [n, i, j] = [(); 3].map(|()| b.register(Scalar::U32));
        let (lane, zero, one) = (b.input(Input::LocalIndex), b.uint(0), b.uint(1));
        let all = [n, i, j];
        let add = |b: &mut Builder, register: RegisterId, by: u32| {
            let (held, by) = (b.get(register), b.uint(by));
            let sum = b.binary(Binary::Add, held, by);
            b.set(register, sum);
        };
        while_loop(
            b,
            &all,
            |b| {
                let i = b.get(i);
                b.binary(Binary::LtU, i, lane)
            },
            |b, outer, _| {
                let (held, five) = (b.get(i), b.uint(5));
                let is_five = b.binary(Binary::Eq, held, five);
                if_then(b, is_five, |b| b.exit(outer));
                b.set(j, zero);
                while_loop(
                    b,
                    &all,
                    |b| {
                        let (j, three) = (b.get(j), b.uint(3));
                        b.binary(Binary::LtU, j, three)
                    },
                    |b, _, again| {
                        let now = b.get(j);
                        let next = b.binary(Binary::Add, now, one);
                        b.set(j, next);
                        let (i, three, two, four) = (b.get(i), b.uint(3), b.uint(2), b.uint(4));
                        let sum = b.binary(Binary::Add, i, now);
                        let rest = b.binary(Binary::RemU, sum, three);
                        let is_two = b.binary(Binary::Eq, rest, two);
                        if_then(b, is_two, |b| b.repeat(again));
                        let times = b.binary(Binary::Mul, now, four);
                        let is_lane = b.binary(Binary::Eq, times, lane);
                        if_then(b, is_lane, |b| b.exit(outer));
                        add(b, n, 10);
                    },
                );
                add(b, n, 1);
                add(b, i, 1);
            },
        );
        let n = b.get(n);
        b.store(Memory::Binding(0), lane, 0, n);
    });
    assert_eq!(outcome(&kernel, &[vec![0; 16]], [1, 1, 1])[0], (0..16).map(expected).collect::<Vec<u32>>());
}

#[test]
fn those_who_left_from_a_branch_are_gone_behind_it() {
    let kernel = kernel([12, 1, 1], &[true], |b| {
        let lane = b.input(Input::LocalIndex);
        let is_below = |b: &mut Builder, bound: u32| {
            let bound = b.uint(bound);
            b.binary(Binary::LtU, lane, bound)
        };
        let (first, second, third) = (is_below(b, 8), is_below(b, 3), is_below(b, 10));
        let out = b.begin_block();
        b.begin_if(first);
        b.store(Memory::Binding(0), lane, 0, lane);
        if_then(b, second, |b| b.exit(out));
        b.store(Memory::Binding(0), lane, 12, lane);
        b.begin_else();
        if_then(b, third, |b| {
            b.store(Memory::Binding(0), lane, 24, lane);
            b.exit(out);
        });
        b.end_if();
        b.store(Memory::Binding(0), lane, 36, lane);
        b.end_block();
        b.store(Memory::Binding(0), lane, 48, lane);
    });
    let is_there: [fn(u32) -> bool; 5] =
        [|lane| lane < 8, |lane| (3..8).contains(&lane), |lane| (8..10).contains(&lane), |lane| (3..8).contains(&lane) || lane > 9, |_| true];
    let expected: Vec<u32> = is_there.into_iter().flat_map(|is_there| (0..12).map(move |lane| if is_there(lane) { lane } else { 99 })).collect();
    assert_eq!(outcome(&kernel, &[vec![99; 60]], [1, 1, 1])[0], expected);
}

#[test]
fn who_is_through_with_a_loop_waits_for_the_others() {
    // do { n += 1 } while n < lane: who gets to the end is through, and those may leave the rest altogether.
    let kernel = kernel([9, 1, 1], &[true], |b| {
        let n = b.register(Scalar::U32);
        let (lane, one, four) = (b.input(Input::LocalIndex), b.uint(1), b.uint(4));
        let out = b.begin_block();
        let again = b.begin_loop([n]);
        let held = b.get(n);
        let next = b.binary(Binary::Add, held, one);
        b.set(n, next);
        let is_fourth = b.binary(Binary::Eq, next, four);
        let is_even = b.binary(Binary::And, lane, one);
        let is_even = b.binary(Binary::Ne, is_even, one);
        let is_out = b.binary(Binary::And, is_fourth, is_even);
        if_then(b, is_out, |b| b.exit(out));
        let is_less = b.binary(Binary::LtU, next, lane);
        if_then(b, is_less, |b| b.repeat(again));
        b.store(Memory::Binding(0), lane, 0, next);
        b.end_loop();
        let behind = b.get(n);
        b.store(Memory::Binding(0), lane, 9, behind);
        b.end_block();
    });
    let through = |lane: u32| if lane >= 4 && lane.is_multiple_of(2) { 99 } else { lane.max(1) };
    let expected: Vec<u32> = (0..9).chain(0..9).map(through).collect();
    assert_eq!(outcome(&kernel, &[vec![99; 18]], [1, 1, 1])[0], expected);
}

/// Lanes that are told apart by their number, counted from what binding 0 says first to what it says second, do
/// something of everything.
fn numbered(workgroup: [u32; 3], op: Binary, has_others: bool) -> Kernel {
    kernel(workgroup, &[false, true, true], |b| {
        b.kernel().private_words = 2;
        let (lane, zero, one, two, seven) = (b.input(Input::LocalIndex), b.uint(0), b.uint(1), b.uint(2), b.uint(7));
        let [base, limit] = [0, 1].map(|word| b.load(Scalar::U32, Memory::Binding(0), zero, word));
        let register = b.register(Scalar::U32);
        let first = b.binary(Binary::Mul, lane, seven);
        b.set(register, first);
        let number = b.binary(Binary::Add, lane, base);
        let is_part = b.binary(op, number, limit);
        b.begin_if(is_part);
        let own = b.binary(Binary::And, lane, one);
        b.store(Memory::Private, own, 0, number);
        let twice = b.binary(Binary::Mul, lane, two);
        let place = runtime(b, 2, twice);
        b.store(Memory::Binding(2), place, 0, first);
        b.atomic(AtomicOp::Add, Memory::Binding(1), zero, 0, number, None);
        let is_early = b.binary(Binary::LtU, lane, seven);
        b.begin_if(is_early);
        let loaded = b.load(Scalar::U32, Memory::Private, own, 0);
        b.set(register, loaded);
        b.begin_else();
        let loaded = b.load(Scalar::U32, Memory::Binding(2), place, 0);
        let more = b.binary(Binary::Add, loaded, one);
        b.set(register, more);
        b.end_if();
        b.begin_else();
        if has_others {
            let held = b.get(register);
            let less = b.binary(Binary::Sub, held, one);
            b.set(register, less);
        }
        b.end_if();
        let held = b.get(register);
        let place = runtime(b, 1, lane);
        b.store(Memory::Binding(1), place, 1, held);
    })
}

#[test]
fn lanes_are_told_apart_by_their_number() {
    for workgroup in [[40, 1, 1], [50, 1, 1], [8, 6, 1], [3, 1, 1]] {
        let lanes: u32 = workgroup.iter().product();
        for (op, has_others) in [Binary::LtU, Binary::Eq].into_iter().flat_map(|op| [(op, false), (op, true)]) {
            let kernel = numbered(workgroup, op, has_others);
            let bases = [0, 3, lanes, u32::MAX - 5, u32::MAX - lanes];
            let limits = [0, 1, 2, 3, 7, 8, 16, 17, lanes - 1, lanes, lanes + 1, u32::MAX - 4, u32::MAX];
            for (base, limit) in bases.into_iter().flat_map(|base| limits.map(|limit| (base, limit))) {
                let bindings = [vec![base, limit], vec![0; lanes as usize + 2], vec![0; 2 * lanes as usize]];
                let mut expected = bindings.to_vec();
                reference::run(&kernel, &mut expected, [1; 3], 0..1, &mut |_, _| {});
                assert_eq!(outcome(&kernel, &bindings, [1; 3]), expected, "{base} {limit} {kernel}");
            }
        }
    }
}

#[test]
fn registers_swap_what_they_hold() {
    // Fibonacci by two registers, as often as the lane's number: each takes over what the other one had.
    let kernel = kernel([24, 1, 1], &[true], |b| {
        let [a, c, count] = [(); 3].map(|()| b.register(Scalar::U32));
        let (lane, one) = (b.input(Input::LocalIndex), b.uint(1));
        b.set(c, one);
        while_loop(
            b,
            &[a, c, count],
            |b| {
                let count = b.get(count);
                b.binary(Binary::LtU, count, lane)
            },
            |b, _, _| {
                let (x, y) = (b.get(a), b.get(c));
                let sum = b.binary(Binary::Add, x, y);
                b.set(a, y);
                b.set(c, sum);
                let held = b.get(count);
                let next = b.binary(Binary::Add, held, one);
                b.set(count, next);
            },
        );
        let out = b.get(a);
        b.store(Memory::Binding(0), lane, 0, out);
    });
    let mut expected = vec![0, 1];
    (2..24).for_each(|at| expected.push(expected[at - 1] + expected[at - 2]));
    assert_eq!(outcome(&kernel, &[vec![0; 24]], [1, 1, 1])[0], expected);
}

#[test]
fn who_went_another_way_before_does_not_come_back() {
    // Sets of lanes are used again and again; who is in one from before is not there now.
    let kernel = kernel([24, 1, 1], &[true], |b| {
        let lane = b.input(Input::LocalIndex);
        let is_below = |b: &mut Builder, bound: u32| {
            let bound = b.uint(bound);
            b.binary(Binary::LtU, lane, bound)
        };
        let (first, second, third, fourth) = (is_below(b, 16), is_below(b, 4), is_below(b, 8), is_below(b, 13));
        if_then(b, first, |b| {
            b.begin_if(second);
            b.store(Memory::Binding(0), lane, 0, lane);
            b.begin_else();
            b.store(Memory::Binding(0), lane, 24, lane);
            b.end_if();
        });
        b.begin_if(third);
        b.begin_else();
        let out = b.begin_block();
        if_then(b, fourth, |b| b.exit(out));
        b.store(Memory::Binding(0), lane, 48, lane);
        b.end_block();
        b.store(Memory::Binding(0), lane, 72, lane);
        b.end_if();
    });
    let expected: Vec<u32> =
        [0..4, 4..16, 13..24, 8..24].into_iter().flat_map(|there| (0..24).map(move |lane| if there.contains(&lane) { lane } else { 99 })).collect();
    assert_eq!(outcome(&kernel, &[vec![99; 96]], [1, 1, 1])[0], expected);
}

#[test]
fn what_is_the_same_in_a_row_is_kept_as_rows_or_lanes() {
    // Only some rows set `a`, so it has lanes; `b` takes it over in the first round, and was read in there before.
    let kernel = kernel([8, 4, 1], &[true], |b| {
        let [first, second, rounds] = [(); 3].map(|()| b.register(Scalar::U32));
        let (lane, y, group) = (b.input(Input::LocalIndex), b.input(Input::LocalId(1)), b.input(Input::GroupId(0)));
        let (two, seven) = (b.uint(2), b.uint(7));
        b.set(first, group);
        let is_early = b.binary(Binary::LtU, y, two);
        if_then(b, is_early, |b| {
            let more = b.binary(Binary::Add, y, seven);
            b.set(first, more);
        });
        let held = b.get(first);
        b.set(second, y);
        while_loop(
            b,
            &[second, rounds],
            |b| {
                let round = b.get(rounds);
                b.binary(Binary::LtU, round, two)
            },
            |b, _, _| {
                let (round, size) = (b.get(rounds), b.uint(32));
                let start = b.binary(Binary::Mul, round, size);
                let at = b.binary(Binary::Add, start, lane);
                let before = b.get(second);
                b.store(Memory::Binding(0), at, 0, before);
                b.set(second, held);
                let one = b.uint(1);
                let next = b.binary(Binary::Add, round, one);
                b.set(rounds, next);
            },
        );
    });
    let rows = |rows: [u32; 4]| rows.into_iter().flat_map(|word| [word; 8]);
    assert_eq!(outcome(&kernel, &[vec![99; 64]], [1, 1, 1])[0], rows([0, 1, 2, 3]).chain(rows([7, 8, 0, 0])).collect::<Vec<u32>>());
}

#[test]
fn sums_of_products_are_what_they_would_be_apart() {
    // Each product is wanted once more: later, behind a change of what it is made of, or in every round of a loop.
    let kernel = kernel([8, 1, 1], &[true], |b| {
        let [held, sum, rounds] = [Scalar::F32, Scalar::F32, Scalar::U32].map(|scalar| b.register(scalar));
        let (lane, half, three) = (b.input(Input::LocalIndex), b.float(0.5), b.uint(3));
        let mixed = b.binary(Binary::Xor, lane, three);
        let (x, y) = (b.unary(Unary::FloatOfU, lane), b.unary(Unary::FloatOfU, mixed));
        let mut results = Vec::new();
        let product = b.binary(Binary::MulF, x, y);
        results.push(b.binary(Binary::AddF, product, half));
        results.push(b.binary(Binary::SubF, half, product));
        // Read before the register changes, used afterwards.
        b.set(held, x);
        let before = b.op(Scalar::F32, super::super::ir::Op::Get(held));
        let product = b.binary(Binary::MulF, before, y);
        b.set(held, y);
        let after = b.op(Scalar::F32, super::super::ir::Op::Get(held));
        results.push(b.binary(Binary::AddF, product, after));
        // Computed before the loop that changes what it was computed from.
        let before = b.op(Scalar::F32, super::super::ir::Op::Get(held));
        let product = b.binary(Binary::MulF, before, x);
        while_loop(
            b,
            &[held, sum, rounds],
            |b| {
                let rounds = b.get(rounds);
                b.binary(Binary::LtU, rounds, three)
            },
            |b, _, _| {
                let (total, one) = (b.get(sum), b.uint(1));
                let more = b.binary(Binary::AddF, product, total);
                b.set(sum, more);
                b.set(held, more);
                let (round, now) = (b.get(rounds), b.get(held));
                b.set(held, now);
                let next = b.binary(Binary::Add, round, one);
                b.set(rounds, next);
            },
        );
        results.push(b.get(sum));
        results.push(b.get(held));
        for (word, value) in results.into_iter().enumerate() {
            b.store(Memory::Binding(0), lane, word as u32 * 8, value);
        }
    });
    let lanes = (0..8u32).map(|lane| (lane as f32, (lane ^ 3) as f32));
    let columns: Vec<[f32; 5]> = lanes.map(|(x, y)| [x * y + 0.5, 0.5 - x * y, x * y + y, 3.0 * x * y, 3.0 * x * y]).collect();
    let expected: Vec<f32> = (0..5).flat_map(|word| columns.iter().map(move |column| column[word])).collect();
    assert_eq!(floats(&outcome(&kernel, &[vec![0; 40]], [1, 1, 1])[0]), expected);
}

#[test]
fn an_atomic_is_done_though_nobody_asks_what_it_found() {
    let mut kernel = kernel([4, 1, 1], &[true, true], |b| {
        let (lane, zero) = (b.input(Input::LocalIndex), b.uint(0));
        let found = b.atomic(AtomicOp::Add, Memory::Binding(0), zero, 0, lane, None);
        b.store(Memory::Binding(1), zero, 0, found);
    });
    kernel.body.truncate(1);
    assert_eq!(outcome(&kernel, &[vec![7], vec![9]], [1, 1, 1]), [[13], [9]]);
}

#[test]
fn a_register_is_read_as_it_is_at_that_time() {
    let kernel = kernel([8, 1, 1], &[true], |b| {
        let [shared, own] = [(); 2].map(|()| b.register(Scalar::U32));
        let (lane, group, nine) = (b.input(Input::LocalIndex), b.input(Input::Groups(0)), b.uint(9));
        let messy = b.binary(Binary::Xor, lane, nine);
        let mut read = Vec::new();
        for value in [messy, lane, messy] {
            b.set(own, value);
            b.set(shared, group);
            // The builder would not ask.
            read.extend([own, shared].map(|register| b.op(Scalar::U32, super::super::ir::Op::Get(register))));
            b.set(shared, nine);
            read.push(b.op(Scalar::U32, super::super::ir::Op::Get(shared)));
        }
        for (word, value) in read.into_iter().enumerate() {
            b.store(Memory::Binding(0), lane, word as u32 * 8, value);
        }
    });
    let messy: Vec<u32> = (0..8).map(|lane| lane ^ 9).collect();
    let rounds = [&messy, &(0..8).collect(), &messy];
    let expected: Vec<u32> = rounds.into_iter().flat_map(|own| own.iter().copied().chain([5; 8]).chain([9; 8])).collect();
    assert_eq!(outcome(&kernel, &[vec![0; 72]], [5, 1, 1])[0], expected);
}

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
