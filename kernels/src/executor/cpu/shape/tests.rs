//! Claims about lanes: rule by rule on kernels by hand, and against what lanes of random kernels really hold.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::builder::Builder;
use super::super::ir::{AtomicOp, Binary, Binding, Count, Input, Memory, Op, RegisterId, Scalar, Unary, ValueId};
use super::super::reference::{self, Random};
use super::Shape::{Checked, Row, Uniform, Varying};
use super::*;

/// A kernel with a binding that is only read, one that is written, and one that could be but is not.
fn builder(workgroup: [u32; 3]) -> Builder {
    let mut b = Builder::new("test", workgroup).without_speculation();
    for is_writable in [false, true, true] {
        b.binding(Binding { number: 0, is_writable, words_min: 1 });
    }
    b.kernel().workgroup_words = 8;
    b.kernel().private_words = 8;
    b
}

/// Keeps a value, by storing it.
fn keep(b: &mut Builder, value: ValueId) {
    let zero = b.uint(0);
    b.store(Memory::Binding(1), zero, 0, value);
}

/// The shape of what `make` makes.
fn check(workgroup: [u32; 3], expected: Shape, make: impl FnOnce(&mut Builder) -> ValueId) {
    let mut b = builder(workgroup);
    let value = make(&mut b);
    keep(&mut b, value);
    let kernel = b.finish();
    assert_eq!(shapes(&kernel).values[value.0 as usize], expected, "{:?} in {workgroup:?}", kernel.value(value).op);
}

fn local(axis: u8) -> impl Fn(&mut Builder) -> ValueId {
    move |b| b.input(Input::LocalId(axis))
}

fn line(b: &mut Builder) -> ValueId {
    b.input(Input::LocalId(0))
}

fn binary(op: Binary, a: fn(&mut Builder) -> ValueId, b: fn(&mut Builder) -> ValueId) -> impl FnOnce(&mut Builder) -> ValueId {
    move |builder| {
        let (a, b) = (a(builder), b(builder));
        builder.binary(op, a, b)
    }
}

#[test]
fn inputs_step_along_rows() {
    check([8, 4, 1], Row(1), local(0));
    check([8, 4, 1], Row(0), local(1));
    check([8, 4, 1], Uniform, local(2));
    check([8, 4, 1], Row(1), |b| b.input(Input::LocalIndex));
    check([6, 1, 1], Row(1), local(0));
    check([6, 4, 1], Varying, local(0));
    check([6, 4, 1], Varying, local(1));
    check([6, 4, 1], Row(1), |b| b.input(Input::LocalIndex));
    check([1, 6, 1], Row(1), local(1));
    check([4, 1, 3], Row(0), local(2));
    check([1, 1, 1], Uniform, |b| b.op(Scalar::U32, Op::Input(Input::LocalIndex)));
    check([8, 4, 1], Uniform, |b| b.input(Input::GroupId(0)));
    check([8, 4, 1], Uniform, |b| b.input(Input::Groups(1)));
    check([8, 4, 1], Uniform, |b| b.op(Scalar::U32, Op::Length(Count::Runtime { binding: 0, first: 0, stride: 1 })));
    assert_eq!([[8, 4, 1], [6, 2, 1], [2, 4, 4]].map(row), [8, 12, 32]);
}

#[test]
fn sums_and_multiples_of_rows_are_rows() {
    let group = |b: &mut Builder| b.input(Input::GroupId(0));
    let y = |b: &mut Builder| b.input(Input::LocalId(1));
    let five = |b: &mut Builder| b.uint(5);
    check([8, 4, 1], Row(1), binary(Binary::Add, line, group));
    check([8, 4, 1], Row(1), binary(Binary::Add, y, line));
    check([8, 4, 1], Row(0), binary(Binary::Add, y, group));
    check([8, 4, 1], Uniform, binary(Binary::Mul, group, group));
    check([8, 4, 1], Row(-1), binary(Binary::Sub, group, line));
    check([8, 4, 1], Row(5), binary(Binary::Mul, line, five));
    check([8, 4, 1], Row(32), binary(Binary::Shl, line, five));
    check([8, 4, 1], Varying, binary(Binary::Mul, line, group));
    check([8, 4, 1], Row(0), binary(Binary::Mul, y, group));
    check([8, 4, 1], Varying, binary(Binary::Xor, line, five));
    check([8, 4, 1], Row(0), binary(Binary::DivU, y, five));
    check([8, 4, 1], Row(1), |b| {
        let x = line(b);
        b.bits(Scalar::I32, x)
    });
    // What cancels out is the same within a row, and there is but one here.
    let cancelled = |b: &mut Builder| {
        let (x, y) = (line(b), y(b));
        let sum = b.binary(Binary::Add, x, y);
        b.binary(Binary::Sub, sum, x)
    };
    check([8, 4, 1], Row(0), cancelled);
    check([8, 1, 1], Uniform, cancelled);
    let wrapped = |b: &mut Builder| {
        let (x, large) = (line(b), b.uint(1 << 31));
        let x = b.binary(Binary::Mul, x, large);
        let seven = b.uint(7);
        let x = b.unary(Unary::Bits, x);
        let x = b.binary(Binary::Shl, x, seven);
        b.unary(Unary::Bits, x)
    };
    check([8, 1, 1], Uniform, wrapped);
}

#[test]
fn selected_rows_are_rows_where_the_whole_row_selects() {
    let select = |condition: fn(&mut Builder) -> ValueId| {
        move |b: &mut Builder| {
            let (condition, x, two) = (condition(b), line(b), b.uint(2));
            let condition = b.binary(Binary::LtU, condition, two);
            let group = b.input(Input::GroupId(0));
            let there = b.binary(Binary::Add, x, group);
            b.select(condition, x, there)
        }
    };
    check([8, 4, 1], Row(1), select(|b| b.input(Input::GroupId(0))));
    check([8, 4, 1], Row(1), select(|b| b.input(Input::LocalId(1))));
    check([8, 4, 1], Varying, select(|b| b.input(Input::LocalId(0))));
}

#[test]
fn an_index_is_a_row_until_it_is_held_back() {
    let count = Count::Runtime { binding: 0, first: 0, stride: 1 };
    let index = move |b: &mut Builder, of: ValueId| b.op(Scalar::U32, Op::Index { index: of, count });
    check([8, 4, 1], Checked(1), |b| {
        let x = line(b);
        index(b, x)
    });
    check([8, 4, 1], Row(0), |b| {
        let y = b.input(Input::LocalId(1));
        index(b, y)
    });
    check([8, 4, 1], Uniform, |b| {
        let group = b.input(Input::GroupId(1));
        index(b, group)
    });
    let mut b = builder([8, 4, 1]);
    let (x, y, two) = (line(&mut b), b.input(Input::LocalId(1)), b.uint(2));
    let asked = b.binary(Binary::Mul, x, two);
    let held = index(&mut b, asked);
    let three = b.uint(3);
    let tripled = b.binary(Binary::Mul, held, three);
    let row = b.binary(Binary::Mul, y, three);
    let moved = b.binary(Binary::Add, row, tripled);
    let back = b.binary(Binary::Sub, moved, y);
    let double = b.binary(Binary::Shl, back, two);
    let twice = b.binary(Binary::Add, double, held);
    let again = index(&mut b, double);
    let negated = b.binary(Binary::Sub, y, double);
    for value in [twice, again, negated] {
        keep(&mut b, value);
    }
    let kernel = b.finish();
    let shapes = shapes(&kernel);
    assert_eq!(shapes.values[double.0 as usize], Checked(24));
    assert_eq!(shapes.affine_index(back), Some(6));
    assert_eq!(shapes.root(&kernel, double), Some(Root { index: asked, count, step: 2, multiplier: 12 }));
    assert_eq!([twice, again, negated].map(|value| shapes.values[value.0 as usize]), [Varying; 3]);
    assert_eq!((shapes.affine_index(asked), shapes.root(&kernel, asked)), (None, None));
}

#[test]
fn loads_are_as_uniform_as_their_address_where_nobody_writes() {
    let load = |memory: Memory, address: fn(&mut Builder) -> ValueId| {
        move |b: &mut Builder| {
            let address = address(b);
            b.load(Scalar::U32, memory, address, 0)
        }
    };
    let (group, y): (fn(&mut Builder) -> ValueId, fn(&mut Builder) -> ValueId) = (|b| b.input(Input::GroupId(0)), |b| b.input(Input::LocalId(1)));
    for memory in [Memory::Binding(0), Memory::Binding(2), Memory::Workgroup, Memory::Constant] {
        check([8, 4, 1], Uniform, load(memory, group));
        check([8, 4, 1], Row(0), load(memory, y));
        check([8, 4, 1], Varying, load(memory, line));
    }
    // `check` stores to this one.
    check([8, 4, 1], Varying, load(Memory::Binding(1), group));
    check([8, 4, 1], Varying, load(Memory::Private, group));
    check([8, 4, 1], Uniform, |b| {
        let loaded = load(Memory::Binding(1), line)(b);
        b.unary(Unary::Uniform, loaded)
    });
    check([8, 4, 1], Varying, |b| {
        let (zero, one) = (b.uint(0), b.uint(1));
        b.atomic(AtomicOp::Add, Memory::Binding(2), zero, 0, one, None)
    });
}

/// What a register is that is set to the group's number, once before and once within what `around` puts around.
fn register_in(around: impl FnOnce(&mut Builder, &mut dyn FnMut(&mut Builder))) -> (Shape, bool) {
    let mut b = builder([8, 4, 1]);
    let register = b.register(Scalar::U32);
    let group = b.input(Input::GroupId(0));
    b.set(register, group);
    around(&mut b, &mut |b| {
        let one = b.uint(1);
        let next = b.binary(Binary::Add, group, one);
        b.set(register, next);
    });
    let held = b.op(Scalar::U32, Op::Get(register));
    keep(&mut b, held);
    let shapes = shapes(&b.finish());
    assert_eq!(shapes.values[held.0 as usize], shapes.registers[0]);
    assert!(!shapes.is_zero_seen(register));
    (shapes.registers[0], shapes.is_set_by_all(register))
}

fn is_below(b: &mut Builder, value: ValueId) -> ValueId {
    let two = b.uint(2);
    b.binary(Binary::LtU, value, two)
}

#[test]
fn a_register_is_what_control_lets_it_be() {
    assert_eq!(register_in(|b, set| set(b)), (Uniform, true));
    for (input, expected) in [(Input::GroupId(1), (Uniform, true)), (Input::LocalId(1), (Row(0), false)), (Input::LocalId(0), (Varying, false))] {
        let branch = register_in(|b, set| {
            let condition = b.input(input);
            let condition = is_below(b, condition);
            b.begin_if(condition);
            b.begin_else();
            set(b);
            b.end_if();
        });
        let exit = register_in(|b, set| {
            let block = b.begin_block();
            let condition = b.input(input);
            let condition = is_below(b, condition);
            b.begin_if(condition);
            b.exit(block);
            b.begin_else();
            b.end_if();
            set(b);
            b.end_block();
        });
        let repeat = register_in(|b, set| {
            let repeated = b.begin_loop([RegisterId(0)]);
            // Set by all who are here, but not all are in the second round.
            set(b);
            let condition = b.input(input);
            let condition = is_below(b, condition);
            b.begin_if(condition);
            b.repeat(repeated);
            b.begin_else();
            b.end_if();
            b.end_loop();
        });
        let leave = register_in(|b, set| {
            let block = b.begin_block();
            let repeated = b.begin_loop([RegisterId(0)]);
            // Who leaves in one round is missing here in the next.
            set(b);
            let condition = b.input(input);
            let condition = is_below(b, condition);
            b.begin_if(condition);
            b.exit(block);
            b.begin_else();
            b.end_if();
            b.repeat(repeated);
            b.end_loop();
            b.end_block();
        });
        assert_eq!([branch, exit, repeat, leave], [expected; 4], "{input:?}");
    }
}

#[test]
fn those_who_will_not_look_again_do_not_count() {
    // A counter behind an early return, in a loop that all who are left do as often.
    let mut b = builder([8, 4, 1]);
    let x = line(&mut b);
    let group = b.input(Input::GroupId(0));
    let counter = b.register(Scalar::U32);
    let outer = b.begin_block();
    let is_out = is_below(&mut b, x);
    b.begin_if(is_out);
    b.exit(outer);
    b.begin_else();
    b.end_if();
    b.set(counter, group);
    let through = b.begin_block();
    let repeated = b.begin_loop([counter]);
    let held = b.get(counter);
    let is_over = is_below(&mut b, held);
    b.begin_if(is_over);
    b.exit(through);
    b.begin_else();
    b.end_if();
    let one = b.uint(1);
    let less = b.binary(Binary::Sub, held, one);
    b.set(counter, less);
    b.repeat(repeated);
    b.end_loop();
    b.end_block();
    keep(&mut b, group);
    b.end_block();
    let shapes = shapes(&b.finish());
    assert_eq!((shapes.registers[0], shapes.is_uniform(is_over), shapes.is_set_by_all(counter)), (Uniform, true, true));
    assert_eq!([outer, through, repeated].map(|label| shapes.is_diverging(label)), [true, false, false]);
}

#[test]
fn what_is_left_from_another_round_counts() {
    // Read before it is written in a loop that lanes go through in their own ways: whose is what is read?
    let mut b = builder([8, 4, 1]);
    let (x, kept, rounds) = (line(&mut b), b.register(Scalar::U32), b.register(Scalar::U32));
    let through = b.begin_block();
    let repeated = b.begin_loop([kept, rounds]);
    let round = b.get(rounds);
    let (one, nine) = (b.uint(1), b.uint(9));
    let next = b.binary(Binary::Add, round, one);
    b.set(rounds, next);
    let is_over = b.binary(Binary::LtU, nine, round);
    b.begin_if(is_over);
    b.exit(through);
    b.begin_else();
    b.end_if();
    let reached = b.binary(Binary::LtU, x, round);
    b.begin_if(reached);
    let held = b.get(kept);
    keep(&mut b, held);
    b.set(kept, next);
    b.begin_else();
    b.end_if();
    b.repeat(repeated);
    b.end_loop();
    b.end_block();
    let shapes = shapes(&b.finish());
    assert!(shapes.is_zero_seen(kept) && shapes.is_zero_seen(rounds));
    assert_eq!(shapes.registers, [Varying, Uniform]);
}

#[test]
fn a_kernel_that_takes_too_many_looks_gets_no_more() {
    // Each register takes over from the next one: what the last one gets is the first one's as many rounds later.
    let last_of = |length: usize| {
        let mut b = builder([8, 4, 1]);
        let (x, group) = (line(&mut b), b.input(Input::GroupId(0)));
        let (aside, chain) = (b.register(Scalar::U32), (0..length).map(|_| b.register(Scalar::U32)).collect::<Vec<_>>());
        let repeated = b.begin_loop(chain.iter().copied().chain([aside]));
        for register in [aside, chain[0]] {
            let held = b.get(register);
            keep(&mut b, held);
        }
        b.set(aside, group);
        for pair in chain.windows(2) {
            let next = b.get(pair[1]);
            b.set(pair[0], next);
        }
        b.set(chain[length - 1], x);
        b.repeat(repeated);
        b.end_loop();
        let shapes = shapes(&b.finish());
        (shapes.registers[0], shapes.registers[1])
    };
    assert_eq!(last_of(10), (Uniform, Varying));
    assert_eq!(last_of(1000), (Varying, Varying));
}

#[test]
fn a_loop_that_lanes_leave_by_themselves_diverges() {
    let mut b = builder([8, 4, 1]);
    let (x, counter) = (line(&mut b), b.register(Scalar::U32));
    b.set(counter, x);
    let through = b.begin_block();
    let repeated = b.begin_loop([counter]);
    let held = b.get(counter);
    let is_over = is_below(&mut b, held);
    b.begin_if(is_over);
    b.exit(through);
    b.begin_else();
    b.end_if();
    let one = b.uint(1);
    let less = b.binary(Binary::Sub, held, one);
    b.set(counter, less);
    b.repeat(repeated);
    b.end_loop();
    b.end_block();
    let held = b.get(counter);
    keep(&mut b, held);
    let kernel = b.finish();
    let shapes = shapes(&kernel);
    assert_eq!((shapes.registers[0], shapes.is_zero_seen(counter)), (Varying, false));
    // Whoever is still there repeats: the loop itself is left by nobody, the block around it by some.
    assert_eq!([through, repeated].map(|label| shapes.is_diverging(label)), [true, false]);
}

/// Runs a kernel invocation by invocation, and holds every value that lanes compute together against its shape.
fn check_claims(random: &Random) -> Result<(), TestCaseError> {
    let kernel = &random.kernel;
    let shapes = shapes(kernel);
    let mut seen: HashMap<(u64, ValueId, Vec<u32>), Vec<(u32, u32, bool)>> = HashMap::new();
    let mut bindings = random.bindings();
    let groups = random.groups.iter().map(|&count| u64::from(count)).product();
    let lengths: Vec<u32> = bindings.iter().map(|words| words.len() as u32).collect();
    reference::run(kernel, &mut bindings, random.groups, 0..groups, &mut |lane, value| {
        let is_within = shapes.root(kernel, value).is_none_or(|root| {
            let count = match root.count {
                Count::Fixed(count) => count,
                Count::Runtime { binding, first, stride } => (lengths[binding as usize] - first) / stride,
            };
            lane.value(root.index) < count
        });
        let lanes = seen.entry((lane.group, value, lane.iterations.clone())).or_default();
        lanes.push((lane.index, lane.value(value), is_within));
    });
    for ((_, value, _), lanes) in seen {
        let shape = shapes.values[value.0 as usize];
        prop_assert_eq!(matches!(shape, Checked(_)), shapes.root(kernel, value).is_some(), "{:?}", kernel.value(value).op);
        for &(lane, word, _) in &lanes {
            let row = |lane: u32| lane / shapes.row;
            let mut fellows = lanes.iter().filter(|fellow| row(fellow.0) == row(lane));
            let (first, first_word, _) = lanes.iter().find(|fellow| row(fellow.0) == row(lane)).copied().unwrap();
            let expected = match shape {
                Uniform => lanes[0].1,
                Checked(step) | Row(step) if fellows.all(|fellow| fellow.2) => first_word.wrapping_add((step as u32).wrapping_mul(lane - first)),
                _ => word,
            };
            prop_assert_eq!(word, expected, "{:?} {:?} is {:?}: {:?}", value, kernel.value(value).op, shape, lanes);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(reference::config(500))]

    #[test]
    fn values_are_what_their_shapes_say(choices in reference::choices()) {
        check_claims(&reference::random_kernel(&choices))?;
    }
}
