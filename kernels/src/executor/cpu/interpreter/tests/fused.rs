//! Steps that have become one: that they have, and that they mean what they meant.

use super::super::tape::Step;
use super::*;
use crate::executor::cpu::ir::Op;
use crate::executor::cpu::ops;

const LANES: u32 = 32;

const FACTOR: u32 = 0x9e37_79b9;

/// What else happens than `sums[lane] = sums[lane] op sums[lane + further]`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Plain,
    /// The binding is told too what was made.
    Told,
    /// That, and `sums[lane] = lane` between the two loads.
    Written,
    /// The other operand is not what memory holds.
    BySlot,
    /// Every other lane alone.
    OddLanes,
    /// The operands are changed before the outcome is stored.
    Overtaken,
}

impl Case {
    fn is_told(self) -> bool {
        matches!(self, Case::Told | Case::Written)
    }
}

/// `from`, `further`, and how many `sums` there are.
type Place = (u32, u32, u32);

/// Twice, by those lanes that are not below `from`: `sums[lane] = sums[lane] op sums[lane + further]`. The binding has what it was told
/// each time, then what is left.
fn changing(op: Binary, (from, further, words): Place, is_flipped: bool, case: Case) -> Kernel {
    let scalar = Scalar::U32;
    kernel([LANES, 1, 1], &[true], |b| {
        // The indices end with the memory, or before it.
        b.kernel().workgroup_words = words + if case.is_told() { 0 } else { LANES };
        let (lane, further, factor, one) = (b.input(Input::LocalIndex), b.uint(further), b.uint(FACTOR), b.uint(1));
        let own = b.index(lane, Count::Fixed(words));
        let hashed = b.binary(Binary::Mul, lane, factor);
        b.store(Memory::Workgroup, own, 0, hashed);
        b.barrier();
        let other = b.binary(Binary::Add, lane, further);
        let other = b.index(other, Count::Fixed(words));
        let from = b.uint(from);
        let mut is_out = b.binary(Binary::LtU, lane, from);
        if case == Case::OddLanes {
            let is_odd = b.binary(Binary::And, lane, one);
            is_out = b.binary(Binary::LtU, is_odd, one);
        }
        b.begin_if(is_out);
        b.begin_else();
        for round in 0..2 {
            let x = b.load(scalar, Memory::Workgroup, own, 0);
            if case == Case::Written {
                b.store(Memory::Workgroup, own, 0, lane);
            }
            let mut y = b.load(scalar, Memory::Workgroup, other, 0);
            if case == Case::BySlot {
                y = b.binary(Binary::Xor, y, factor);
            }
            let made = if is_flipped { b.binary(op, y, x) } else { b.binary(op, x, y) };
            if case == Case::Overtaken {
                b.store(Memory::Workgroup, own, 0, lane);
            }
            b.store(Memory::Workgroup, own, 0, made);
            if case.is_told() {
                b.store(Memory::Binding(0), lane, round * LANES, made);
            }
        }
        b.end_if();
        let left = b.load(scalar, Memory::Workgroup, own, 0);
        b.store(Memory::Binding(0), lane, 2 * LANES, left);
    })
}

/// What [`changing`] writes, by its text.
fn expected(op: Binary, (from, further, words): Place, is_flipped: bool, case: Case) -> Vec<u32> {
    let at = |lane: u32| lane.min(words - 1) as usize;
    let lanes: Vec<u32> = (0..LANES).filter(|lane| if case == Case::OddLanes { lane % 2 == 1 } else { *lane >= from }).collect();
    let mut slab = vec![0u32; words as usize];
    (0..LANES).for_each(|lane| slab[at(lane)] = lane.wrapping_mul(FACTOR));
    let mut out = vec![0; 3 * LANES as usize];
    for round in 0..2 {
        // In lockstep everybody reads before anybody writes.
        let own: Vec<u32> = lanes.iter().map(|&lane| slab[at(lane)]).collect();
        if case == Case::Written {
            lanes.iter().for_each(|&lane| slab[at(lane)] = lane);
        }
        let others = slab.clone();
        for (&lane, x) in lanes.iter().zip(own) {
            let y = others[at(lane + further)] ^ if case == Case::BySlot { FACTOR } else { 0 };
            let (a, b) = if is_flipped { (y, x) } else { (x, y) };
            slab[at(lane)] = ops::binary(op, a, b);
            if case.is_told() {
                out[(round * LANES + lane) as usize] = slab[at(lane)];
            }
        }
    }
    (0..LANES).for_each(|lane| out[(2 * LANES + lane) as usize] = slab[at(lane)]);
    out
}

fn check(op: Binary, place: Place, is_flipped: bool, case: Case, steps: usize, is_counted: fn(&Step) -> bool) {
    let kernel = changing(op, place, is_flipped, case);
    let counted = Interpreter::new(&kernel).plan.tape.iter().filter(|step| is_counted(step)).count();
    assert_eq!(counted, steps, "{op:?} {is_flipped} {case:?}\n{kernel}");
    let found = outcome(&kernel, &[vec![0; 3 * LANES as usize]], [1, 1, 1]).swap_remove(0);
    assert_eq!(found, expected(op, place, is_flipped, case), "{op:?} {place:?} {is_flipped} {case:?}\n{kernel}");
}

#[test]
fn operands_in_memory_are_read_by_their_operator() {
    for op in [Binary::Sub, Binary::MinU, Binary::Add] {
        for place in [(0, 0, 32), (0, 1, 40), (0, 8, 40), (0, 8, 33), (0, 31, 32), (0, 3, 64), (5, 0, 32), (5, 1, 40), (20, 8, 33), (31, 1, 32)] {
            for (is_flipped, case) in [(false, Case::Told), (true, Case::Told), (false, Case::Written), (true, Case::Written)] {
                check(op, place, is_flipped, case, 2, |step| matches!(step, Step::BinaryRows { .. }));
            }
        }
    }
}

#[test]
fn what_memory_holds_is_changed_where_it_is() {
    for op in [Binary::Sub, Binary::MinU, Binary::Add, Binary::Shl] {
        for place in [(0, 0, 32), (0, 1, 40), (0, 8, 33), (0, 32, 64), (0, 40, 72), (5, 1, 40), (20, 8, 33), (20, 12, 64), (31, 1, 32)] {
            for case in [Case::Plain, Case::BySlot, Case::OddLanes, Case::Overtaken] {
                for is_flipped in [false, true] {
                    let is_either = matches!(op, Binary::MinU | Binary::Add) || (place.1 == 0 && case != Case::BySlot);
                    let is_update = case != Case::Overtaken && (!is_flipped || is_either);
                    check(op, place, is_flipped, case, if is_update { 2 } else { 0 }, |step| matches!(step, Step::Update { .. }));
                }
            }
        }
    }
}

#[test]
fn counters_and_conditions_of_loops_cost_no_steps_of_their_own() {
    let kernel = kernel([4, 1, 1], &[true], |b| {
        let (count, sum) = (b.register(Scalar::U32), b.register(Scalar::U32));
        let (one, five, zero) = (b.uint(1), b.uint(5), b.uint(0));
        while_loop(
            b,
            &[count, sum],
            |b| {
                let count = b.get(count);
                b.binary(Binary::LtU, count, five)
            },
            |b, _, _| {
                let (was, so_far) = (b.get(count), b.get(sum));
                let so_far = b.binary(Binary::Add, so_far, was);
                b.set(sum, so_far);
                // The old count is wanted once more, behind the new one.
                let next = b.binary(Binary::Add, was, one);
                b.store(Memory::Binding(0), was, 1, so_far);
                b.set(count, next);
            },
        );
        let sum = b.get(sum);
        b.store(Memory::Binding(0), zero, 0, sum);
    });
    let tape = Interpreter::new(&kernel).plan.tape;
    assert!(tape.iter().any(|step| matches!(step, Step::BranchBinary { op: Binary::LtU, .. })), "{tape:?}");
    assert!(tape.iter().any(|step| matches!(step, Step::BackBinary { op: Binary::LtU, .. })), "{tape:?}");
    assert_eq!(outcome(&kernel, &[vec![9; 7]], [1, 1, 1])[0], [10, 0, 1, 3, 6, 10, 9]);
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
        let before = b.op(Scalar::F32, Op::Get(held));
        let product = b.binary(Binary::MulF, before, y);
        b.set(held, y);
        let after = b.op(Scalar::F32, Op::Get(held));
        results.push(b.binary(Binary::AddF, product, after));
        // Computed before the loop that changes what it was computed from.
        let before = b.op(Scalar::F32, Op::Get(held));
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
            read.extend([own, shared].map(|register| b.op(Scalar::U32, Op::Get(register))));
            b.set(shared, nine);
            read.push(b.op(Scalar::U32, Op::Get(shared)));
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
