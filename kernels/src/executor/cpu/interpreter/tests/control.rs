//! Who goes which way, and who is there afterwards.

use super::*;

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
