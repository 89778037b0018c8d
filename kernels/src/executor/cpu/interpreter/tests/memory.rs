//! Memory of all kinds, and workgroups: who reads and writes what.

use super::*;
use crate::executor::cpu::ir::Op;
use crate::executor::cpu::ops;

#[test]
fn elements_are_computed_one_by_one() {
    // y = a x + y over arrays that the last workgroup reaches beyond.
    for (size, elements) in [(64, 150), (6, 11), (1, 3), (256, 256)] {
        let kernel = kernel([size, 1, 1], &[false, true], |b| {
            let at = global(b);
            let length = b.op(Scalar::U32, Op::Length(Count::Runtime { binding: 1, first: 0, stride: 1 }));
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
        let go = |start: u32, values: &[u32]| values.iter().fold(start, |old, &value| ops::atomic(op, old, value, 0));
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
