//! Steps that are not there, or done by fewer lanes or less often: of a sum over a workgroup, which has all of them.

use super::super::tape::Step;
use super::*;

const LANES: u32 = 32;

/// `out[(table[1] + 32 group) / 32] = sum of values[table[1] + 32 group + lane]`, by a tree in workgroup memory.
fn sums() -> Kernel {
    kernel([LANES, 1, 1], &[false, false, true], |b| {
        b.kernel().workgroup_words = LANES;
        let scalar = Scalar::U32;
        let [zero, one, five, lanes] = [0, 1, 5, LANES].map(|word| b.uint(word));
        let width = b.register(scalar);
        let (lane, group) = (b.input(Input::LocalIndex), b.input(Input::GroupId(0)));
        let first = b.load(scalar, Memory::Binding(1), zero, 1);
        let offset = b.binary(Binary::Mul, group, lanes);
        let first = b.binary(Binary::Add, first, offset);
        let place = b.binary(Binary::Add, first, lane);
        let index = runtime(b, 0, place);
        let value = b.load(scalar, Memory::Binding(0), index, 0);
        b.store(Memory::Workgroup, lane, 0, value);
        b.barrier();
        let half = b.binary(Binary::ShrU, lanes, one);
        b.set(width, half);
        while_loop(
            b,
            &[width],
            |b| {
                let width = b.get(width);
                b.binary(Binary::LtU, zero, width)
            },
            |b, _, _| {
                let now = b.get(width);
                let is_below = b.binary(Binary::LtU, lane, now);
                if_then(b, is_below, |b| {
                    let other = b.binary(Binary::Add, lane, now);
                    let other = b.index(other, Count::Fixed(LANES));
                    let (x, y) = (b.load(scalar, Memory::Workgroup, lane, 0), b.load(scalar, Memory::Workgroup, other, 0));
                    let sum = b.binary(Binary::Add, x, y);
                    b.store(Memory::Workgroup, lane, 0, sum);
                });
                b.barrier();
                let now = b.get(width);
                let next = b.binary(Binary::ShrU, now, one);
                b.set(width, next);
            },
        );
        let is_first = b.binary(Binary::Eq, lane, zero);
        if_then(b, is_first, |b| {
            let part = b.binary(Binary::ShrU, place, five);
            let part = runtime(b, 2, part);
            let sum = b.load(scalar, Memory::Workgroup, zero, 0);
            b.store(Memory::Binding(2), part, 0, sum);
        });
    })
}

#[test]
fn a_tree_has_no_step_too_many() {
    let plan = Interpreter::new(&sums()).plan;
    let (tape, count) = (&plan.tape, |is: fn(&Step) -> bool| plan.tape.iter().filter(|step| is(step)).count());
    // What is the same for all workgroups.
    assert!(matches!(plan.before[..], [Step::LoadOne { .. }]), "{:?}", plan.before);
    assert_eq!(count(|step| matches!(step, Step::LoadOne { .. })), 1, "the sum alone\n{tape:#?}");
    // What is read only to be kept.
    assert_eq!(count(|step| matches!(step, Step::Move { .. })), 1, "{tape:#?}");
    assert_eq!(count(|step| matches!(step, Step::LoadRows { .. } | Step::StoreRows { .. })), 0, "{tape:#?}");
    // All lanes, where nothing is done by them.
    assert_eq!(count(|step| matches!(step, Step::Resume(_))), 0, "{tape:#?}");
    // Sums with a first lane's number, 0.
    assert_eq!(count(|step| matches!(step, Step::BinaryOne { op: Binary::Add, .. })), 1, "{tape:#?}");
    // Lanes that one branch wants.
    let spread = tape.iter().position(|step| matches!(step, Step::Spread { .. }));
    let branch = tape.iter().rposition(|step| matches!(step, Step::SplitNumbered { .. }));
    assert!(spread > branch && branch.is_some(), "{tape:#?}");
}

#[test]
fn a_tree_sums_what_it_is_told_to() {
    // Where from, and how many values there are: the last one counts for all that are not there.
    for (from, values) in [(0, 96), (32, 128), (7, 200), (40, 100), (90, 96), (1000, 64)] {
        let values: Vec<u32> = (0..values).map(|at| at * at + 1).collect();
        let mut expected = vec![7; 40];
        for group in 0..3 {
            let sum = (0..LANES).map(|lane| values[((from + group * LANES + lane) as usize).min(values.len() - 1)]).sum();
            expected[((from + group * LANES) / LANES).min(39) as usize] = sum;
        }
        let found = outcome(&sums(), &[values.clone(), vec![9, from], vec![7; 40]], [3, 1, 1]);
        assert_eq!(found, [values, vec![9, from], expected], "from {from}");
    }
}

#[test]
fn lanes_of_a_loop_are_all_there_behind_it() {
    // By all lanes: a loop of one branch for the first `turn` lanes, then a word for each of them.
    let kernel = kernel([LANES, 1, 1], &[true], |b| {
        let scalar = Scalar::U32;
        let [one, four] = [1, 4].map(|word| b.uint(word));
        let (turn, held) = (b.register(scalar), b.register(scalar));
        let lane = b.input(Input::LocalIndex);
        while_loop(
            b,
            &[turn, held],
            |b| {
                let turn = b.get(turn);
                b.binary(Binary::LtU, turn, four)
            },
            |b, _, _| {
                let now = b.get(turn);
                let is_below = b.binary(Binary::LtU, lane, now);
                if_then(b, is_below, |b| {
                    let so_far = b.get(held);
                    let more = b.binary(Binary::Add, so_far, now);
                    b.set(held, more);
                });
                let now = b.get(turn);
                let next = b.binary(Binary::Add, now, one);
                b.set(turn, next);
            },
        );
        let held = b.get(held);
        let sum = b.binary(Binary::Xor, held, lane);
        b.store(Memory::Binding(0), lane, 0, sum);
    });
    let expected: Vec<u32> = (0..LANES).map(|lane| lane ^ (lane + 1..4).sum::<u32>()).collect();
    assert_eq!(outcome(&kernel, &[vec![0; LANES as usize]], [1, 1, 1])[0], expected);
}

#[test]
fn what_a_workgroup_changes_is_read_by_the_next() {
    let kernel = kernel([4, 1, 1], &[true], |b| {
        let (zero, one) = (b.uint(0), b.uint(1));
        let so_far = b.load(Scalar::U32, Memory::Binding(0), zero, 0);
        let more = b.binary(Binary::Add, so_far, one);
        b.store(Memory::Binding(0), zero, 0, more);
    });
    assert_eq!(outcome(&kernel, &[vec![5]], [3, 1, 1])[0], [8]);
}
