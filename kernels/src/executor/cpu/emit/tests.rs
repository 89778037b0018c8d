//! What is emitted, run and held against what the kernel means.

use wasm_encoder::{Encode, Instruction};

use super::super::builder::Builder;
use super::super::ir::{Binary, Binding, Count, Input, Kernel, Memory, Scalar, ValueId};
use super::super::machine::Machine;
use super::super::reference;
use super::super::words::Span;

/// Runs two workgroups of a kernel with one binding both ways.
fn check(kernel: &Kernel, given: &[u32]) {
    check_against(kernel, kernel, given);
}

/// The same of a kernel that means what `simple` says without barriers.
fn check_against(simple: &Kernel, kernel: &Kernel, given: &[u32]) {
    let machine = Machine::new(1).expect("a compiler");
    let draft = machine.draft(kernel).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
    let needs = draft.needs().clone();
    let code = machine.compile(draft).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
    let own = given.len().next_multiple_of(16) + 16;
    let scratch = own + needs.own_words();
    let words = machine.words(scratch + needs.scratch_words()).expect("memory");
    words.write(0, bytemuck::cast_slice(given));
    let mut thread = code.thread(&machine, &words, [own, scratch, own - 16]).expect("an instance");
    let span = Span { first: 0, words: given.len() as u32 };
    thread.run(&words, &[span], [2, 1, 1], 0..2).unwrap_or_else(|error| panic!("{error:?}\n{kernel}"));
    let mut found = vec![0u32; given.len()];
    words.read(0, bytemuck::cast_slice_mut(&mut found));
    let mut expected = [given.to_vec()];
    reference::run(simple, &mut expected, [2, 1, 1], 0..2, &mut |_, _| {});
    assert_eq!(found, expected[0], "{kernel}");
}

const LANES: u32 = 64;

/// A kernel that writes what `of` makes of its two words over the first one.
fn kernel_of(of: impl FnOnce(&mut Builder, ValueId, ValueId) -> ValueId) -> Kernel {
    let mut b = Builder::new("main", [LANES, 1, 1]);
    b.binding(Binding { number: 0, is_writable: true, words_min: 2 * LANES });
    let lane = b.input(Input::LocalId(0));
    let [x, y] = [0, LANES].map(|first| b.load(Scalar::U32, Memory::Binding(0), lane, first));
    let made = of(&mut b, x, y);
    let made = b.bits(Scalar::U32, made);
    b.store(Memory::Binding(0), lane, 0, made);
    b.finish()
}

#[test]
fn lanes_shift_each_by_its_own() {
    let words: Vec<u32> = (0..LANES).map(|lane| lane.wrapping_mul(0x9e37_79b9) ^ 0x8000_0001).chain(0..LANES).collect();
    for op in [Binary::Shl, Binary::ShrI, Binary::ShrU] {
        let scalar = if op == Binary::ShrI { Scalar::I32 } else { Scalar::U32 };
        check(
            &kernel_of(|b, x, y| {
                let (x, y) = (b.bits(scalar, x), b.bits(scalar, y));
                b.binary(op, x, y)
            }),
            &words,
        );
        for bits in [1, 4, 15, 31] {
            for least in [0, 1, 4, 14, 16, 17, 20, 27, 31, 32, u32::MAX] {
                let narrow = |b: &mut Builder, x: ValueId, y: ValueId| {
                    let (x, y) = (b.bits(scalar, x), b.bits(scalar, y));
                    let (bits, least) = (b.constant(scalar, bits), b.constant(scalar, least));
                    let varying = b.binary(Binary::And, y, bits);
                    let amount = b.binary(Binary::Add, varying, least);
                    b.binary(op, x, amount)
                };
                check(&kernel_of(narrow), &words);
            }
        }
    }
}

#[test]
fn neighbours_share_their_sums_and_products() {
    let words: Vec<u32> = (0..2 * LANES).map(|word| word.wrapping_mul(0x9e37_79b9)).collect();
    let kernel = kernel_of(|b, x, y| {
        let (one, factor, least) = (b.uint(1), b.uint(747_796_405), b.uint(u32::MAX));
        let mut of = |x: ValueId| {
            let sum = b.binary(Binary::Add, x, y);
            let product = b.binary(Binary::Mul, sum, factor);
            b.binary(Binary::Add, product, least)
        };
        let first = of(x);
        let next = b.binary(Binary::Add, x, one);
        let mut of = |x: ValueId| {
            let sum = b.binary(Binary::Add, y, x);
            let product = b.binary(Binary::Mul, factor, sum);
            b.binary(Binary::Add, least, product)
        };
        let second = of(next);
        b.binary(Binary::Xor, first, second)
    });
    let products = kernel.values.iter().filter(|value| matches!(value.op, super::super::ir::Op::Binary(Binary::Mul, ..)));
    assert_eq!(products.count(), 1, "{kernel}");
    check(&kernel, &words);
}

#[test]
fn workgroups_begin_with_zeros() {
    for words in [1, 4, 5, 16, 17, 32, 50, 1024, 1025] {
        let mut b = Builder::new("main", [1, 1, 1]);
        b.kernel().workgroup_words = words;
        b.binding(Binding { number: 0, is_writable: true, words_min: 2 });
        let (zero, one, group) = (b.uint(0), b.uint(1), b.input(Input::GroupId(0)));
        let mut any = zero;
        for word in 0..words {
            let held = b.load(Scalar::U32, Memory::Workgroup, zero, word);
            any = b.binary(Binary::Or, any, held);
        }
        for word in 0..words {
            b.store(Memory::Workgroup, zero, word, one);
        }
        b.store(Memory::Binding(0), group, 0, any);
        check(&b.finish(), &[7, 7]);
    }
}

/// A kernel whose invocations each have an element of `stride` words behind as many shared words, and write the words of
/// theirs that `stored` names; `made` is told the lane's words and the shared ones. `is_parting`: only some of them write.
fn kernel_of_elements(
    stride: u32,
    stored: &[u32],
    is_parting: bool,
    made: impl Fn(&mut Builder, &[ValueId], &[ValueId], usize) -> ValueId,
) -> Kernel {
    let mut b = Builder::new("main", [LANES, 1, 1]);
    b.binding(Binding { number: 0, is_writable: true, words_min: stride * (LANES + 1) });
    let (zero, one, lane) = (b.uint(0), b.uint(stride), b.input(Input::LocalId(0)));
    let element = b.binary(Binary::Mul, lane, one);
    let own: Vec<ValueId> = (0..stride).map(|word| b.load(Scalar::U32, Memory::Binding(0), element, stride + word)).collect();
    let shared: Vec<ValueId> = (0..stride).map(|word| b.load(Scalar::U32, Memory::Binding(0), zero, word)).collect();
    let made: Vec<ValueId> = (0..stored.len()).map(|at| made(&mut b, &own, &shared, at)).collect();
    if is_parting {
        let odd = b.binary(Binary::And, own[0], one);
        let is_odd = b.binary(Binary::Ne, odd, zero);
        b.begin_if(is_odd);
    }
    for (word, value) in stored.iter().zip(made) {
        b.store(Memory::Binding(0), element, stride + word, value);
    }
    if is_parting {
        b.begin_else();
        b.end_if();
    }
    b.finish()
}

#[test]
fn neighbouring_words_are_read_and_written_as_one() {
    for stride in 1..=9 {
        let words: Vec<u32> = (0..stride * (LANES + 1)).map(|word| word.wrapping_mul(0x9e37_79b9)).collect();
        for stored in [vec![0], vec![0, 1], vec![1, 0], vec![2, 0, 1], vec![0, 1, 2, 3], vec![3, 1, 0, 2], vec![1, 2, 3, 4], vec![1, 1, 2, 3]] {
            if stored.iter().any(|word| *word >= stride) {
                continue;
            }
            // Every word in its place, moved by one, and of all words only some.
            for is_parting in [false, true] {
                let kernel = |made: fn(&mut Builder, &[ValueId], &[ValueId], usize) -> ValueId| kernel_of_elements(stride, &stored, is_parting, made);
                check(&kernel(|b, own, shared, at| b.binary(Binary::Xor, own[at], shared[at])), &words);
                check(&kernel(|b, own, shared, at| b.binary(Binary::Add, own[own.len() - 1 - at], shared[at])), &words);
                check(&kernel(|b, own, _, at| b.binary(Binary::Add, own[at], own[own.len() - 1])), &words);
                check(&kernel(|_, _, shared, at| shared[at]), &words);
            }
        }
    }
}

#[test]
fn a_word_that_was_written_in_between_is_read_again() {
    let mut b = Builder::new("main", [LANES, 1, 1]);
    b.binding(Binding { number: 0, is_writable: true, words_min: 4 * LANES });
    let (zero, four, lane) = (b.uint(0), b.uint(4), b.input(Input::LocalId(0)));
    let element = b.binary(Binary::Mul, lane, four);
    for address in [element, zero] {
        let [x, y] = [0, 1].map(|word| b.load(Scalar::U32, Memory::Binding(0), address, word));
        b.store(Memory::Binding(0), element, 2, x);
        let [z, w] = [2, 3].map(|word| b.load(Scalar::U32, Memory::Binding(0), element, word));
        let sum = [x, y, z, w].into_iter().reduce(|a, c| b.binary(Binary::Add, a, c)).expect("four");
        b.store(Memory::Binding(0), element, 3, sum);
    }
    let words: Vec<u32> = (0..4 * LANES).map(|word| word.wrapping_mul(0x9e37_79b9)).collect();
    check(&b.finish(), &words);
}

/// What is the same along a row, and what each lane has for itself.
const ROWS_FACTOR: u32 = 0x2c1b_3c6d;
const OWN_FACTOR: u32 = 0x297a_2d39;

/// A loop that all go round together: of each lane, `x` in a register; of each row, `y`; of all, how often. `waits`: for each
/// other, before and behind the loop. `parts`: what some rows do in the loop, some lanes do.
fn kernel_of_rows(workgroup: [u32; 3], waits: bool, parts: bool) -> Kernel {
    let mut b = Builder::new("main", workgroup);
    let invocations: u32 = workgroup.iter().product();
    b.binding(Binding { number: 0, is_writable: true, words_min: 3 * invocations });
    let (lane, row) = (b.input(Input::LocalIndex), b.input(Input::LocalId(1)));
    let [x, y, count] = [(); 3].map(|()| b.register(Scalar::U32));
    let (zero, one, seven, rows, own) = (b.uint(0), b.uint(1), b.uint(7), b.uint(ROWS_FACTOR), b.uint(OWN_FACTOR));
    let given = b.load(Scalar::U32, Memory::Binding(0), lane, 0);
    b.set(x, given);
    b.set(y, row);
    b.set(count, zero);
    if waits {
        b.barrier();
    }
    let through = b.begin_block();
    let again = b.begin_loop([x, y, count]);
    let (so_far, before, rounds) = (b.get(x), b.get(y), b.get(count));
    let is_through = b.binary(Binary::Eq, rounds, seven);
    b.begin_if(is_through);
    b.exit(through);
    b.begin_else();
    b.end_if();
    // Of the row, from one round to the next; then what only some rows do.
    let sum = b.binary(Binary::Add, before, rounds);
    let of_row = b.binary(Binary::Mul, sum, rows);
    b.set(y, of_row);
    let odd = b.binary(Binary::And, if parts { so_far } else { of_row }, one);
    let is_odd = b.binary(Binary::Eq, odd, one);
    b.begin_if(is_odd);
    let mixed = b.binary(Binary::Xor, so_far, before);
    b.set(x, mixed);
    b.store(Memory::Binding(0), lane, 2 * invocations, mixed);
    b.begin_else();
    let mixed = b.binary(Binary::Add, so_far, of_row);
    let product = b.binary(Binary::Mul, mixed, own);
    b.set(x, product);
    b.end_if();
    let next = b.binary(Binary::Add, rounds, one);
    b.set(count, next);
    b.repeat(again);
    b.end_loop();
    b.end_block();
    if waits {
        b.barrier();
    }
    let (x, y) = (b.get(x), b.get(y));
    b.store(Memory::Binding(0), lane, 0, x);
    b.store(Memory::Binding(0), lane, invocations, y);
    b.finish()
}

/// How often code has a constant of four lanes.
fn constants(bytes: &[u8], word: u32) -> usize {
    bytes.windows(16).filter(|window| window.chunks(4).all(|chunk| chunk == word.to_le_bytes())).count()
}

#[test]
fn what_a_row_shares_is_computed_once_for_two_quads() {
    for (workgroup, quads) in [([8, 4, 1], 2), ([16, 3, 2], 2), ([4, 4, 1], 1), ([12, 2, 1], 1), ([6, 4, 1], 1)] {
        for (waits, parts) in [(false, false), (true, false), (false, true), (true, true)] {
            let kernel = kernel_of_rows(workgroup, waits, parts);
            let bytes = super::emit(&kernel, &crate::executor::cpu::shape::shapes(&kernel), super::Host::Threads).expect("code").bytes;
            let counts = [ROWS_FACTOR, OWN_FACTOR].map(|factor| constants(&bytes, factor));
            assert_eq!(counts, [1, if parts { 1 } else { quads }], "{workgroup:?} {waits} {parts}\n{kernel}");
            let invocations: u32 = workgroup.iter().product();
            let words: Vec<u32> = (0..3 * invocations).map(|word| word.wrapping_mul(0x9e37_79b9)).collect();
            check_against(&kernel_of_rows(workgroup, false, parts), &kernel, &words);
        }
    }
}

/// A grid of `width` by `height` words behind which lie as many that are written: every point within `limits` that does not lie at the border
/// adds its neighbours, each times a number of its own, `far` and 1 away along x, and 1 along y.
fn kernel_of_neighbours(workgroup: [u32; 3], [width, height]: [u32; 2], limits: [u32; 2], far: u32) -> Kernel {
    let mut b = Builder::new("main", workgroup);
    let words = width * height;
    b.binding(Binding { number: 0, is_writable: true, words_min: 2 * words });
    let (x, y, group) = (b.input(Input::LocalId(0)), b.input(Input::LocalId(1)), b.input(Input::GroupId(0)));
    let workgroup_width = b.uint(workgroup[0]);
    let before = b.binary(Binary::Mul, group, workgroup_width);
    let x = b.binary(Binary::Add, x, before);
    let far_along = b.uint(far);
    let [x, one] = [b.binary(Binary::Add, x, far_along), b.uint(1)];
    let y = b.binary(Binary::Add, y, one);
    let limits = limits.map(|limit| b.uint(limit));
    let [is_left, is_above] = [b.binary(Binary::LtU, x, limits[0]), b.binary(Binary::LtU, y, limits[1])];
    let is_inside = b.binary(Binary::And, is_left, is_above);
    b.begin_if(is_inside);
    let row = b.uint(width);
    let rows = b.binary(Binary::Mul, y, row);
    let place = b.binary(Binary::Add, rows, x);
    let mut sum = b.uint(0);
    for (factor, step) in (3..).zip([0, 1, u32::MAX, far, far.wrapping_neg(), width, width.wrapping_neg()]) {
        let (step, factor) = (b.uint(step), b.uint(factor));
        let beside = b.binary(Binary::Add, place, step);
        let beside = b.index(beside, Count::Fixed(2 * words));
        let word = b.load(Scalar::U32, Memory::Binding(0), beside, 0);
        let part = b.binary(Binary::Mul, word, factor);
        sum = b.binary(Binary::Add, sum, part);
    }
    let place = b.index(place, Count::Fixed(words));
    b.store(Memory::Binding(0), place, words, sum);
    b.begin_else();
    b.end_if();
    b.finish()
}

#[test]
fn a_grid_ends_anywhere_in_a_workgroup() {
    for workgroup in [[16u32, 4, 1], [8, 3, 1], [12, 2, 1], [4, 4, 1], [6, 4, 1], [16, 1, 1]] {
        let far = 2;
        let shape = [2 * workgroup[0] + 2 * far, workgroup[1] + 2];
        let words: Vec<u32> = (0..2 * shape[0] * shape[1]).map(|word: u32| word.wrapping_mul(0x9e37_79b9)).collect();
        // In the first workgroup, between the two, and in the second.
        for lanes in [0, 1, 3, 4, 7, workgroup[0] - 1, workgroup[0], workgroup[0] + 2, 2 * workgroup[0]] {
            for lower in [0, 2, workgroup[1], workgroup[1] + 1] {
                check(&kernel_of_neighbours(workgroup, shape, [far + lanes, lower], far), &words);
            }
        }
    }
}

#[test]
fn neighbours_are_offsets_from_one_address() {
    let kernel = kernel_of_neighbours([16, 4, 1], [36, 6], [34, 5], 2);
    let emitter = super::emit(&kernel, &crate::executor::cpu::shape::shapes(&kernel), super::Host::Threads).expect("code");
    // From the row above to the row below: 36 words each way, and one more to the right of the middle.
    for offset in [36 - 2, 36 - 1, 36, 36 + 1, 36 + 2, 36 + 36] {
        let mut wanted = Vec::new();
        Instruction::V128Load(super::code::at(4 * offset)).encode(&mut wanted);
        assert!(emitter.bytes.windows(wanted.len()).any(|bytes| bytes == wanted), "a row of four at {wanted:?}\n{kernel}");
    }
}

/// A kernel that asks for its word's neighbours `count` times, each time so far away as `away` has it and brought in by a branch.
fn kernel_of_lookups(count: u32, away: impl Fn(u32) -> u32) -> Kernel {
    kernel_of(|b, x, y| {
        let mut sum = y;
        for lookup in 0..count {
            let (step, last) = (b.uint(away(lookup)), b.uint(LANES));
            let wanted = b.binary(Binary::Add, x, step);
            let found = b.register(Scalar::U32);
            let is_near = b.binary(Binary::LtU, wanted, last);
            b.begin_if(is_near);
            b.set(found, wanted);
            b.begin_else();
            let rest = b.binary(Binary::RemU, wanted, last);
            let other = b.binary(Binary::Xor, rest, x);
            b.set(found, other);
            b.end_if();
            let place = b.get(found);
            let place = b.index(place, Count::Fixed(2 * LANES));
            let word = b.load(Scalar::U32, Memory::Binding(0), place, LANES - 1);
            let mixed = b.binary(Binary::Xor, sum, word);
            sum = b.binary(Binary::Mul, mixed, step);
        }
        sum
    })
}

#[test]
fn lookups_that_are_alike_are_one_function() {
    let words: Vec<u32> = (0..3 * LANES).map(|word| word.wrapping_mul(0x9e37_79b9) % 100).collect();
    let code = |count: u32| {
        let kernel = kernel_of_lookups(count, |lookup| 3 + 7 * lookup);
        let emit = || super::emit(&kernel, &crate::executor::cpu::shape::shapes(&kernel), super::Host::Threads).expect("code").bytes;
        let bytes = emit();
        assert_eq!(bytes, emit(), "the same kernel has the same code");
        check(&kernel, &words);
        bytes.len()
    };
    let [few, many] = [code(8), code(40)];
    let each = (many - few) / 32;
    let alone = code(1);
    assert!(each * 3 < alone, "{each} bytes for each lookup more, {alone} for one alone");
}

#[test]
fn one_index_of_many_beyond_the_array_is_brought_in() {
    let words: Vec<u32> = (0..5 * LANES).map(|word| word.wrapping_mul(0x9e37_79b9)).collect();
    let before = 3u32.wrapping_neg();
    for steps in [vec![0, 1, 2], vec![0, 1, 3], vec![2, 0, 40], vec![40, 0], vec![0, before], vec![before, 2], vec![1, before, 0], vec![0, 1 << 31]] {
        for count in [2 * LANES + 2, 2 * LANES + 3, 3 * LANES] {
            let mut b = Builder::new("main", [LANES, 1, 1]);
            b.binding(Binding { number: 0, is_writable: true, words_min: 5 * LANES });
            let (lane, group, lanes) = (b.input(Input::LocalId(0)), b.input(Input::GroupId(0)), b.uint(LANES));
            let before = b.binary(Binary::Mul, group, lanes);
            let lane = b.binary(Binary::Add, lane, before);
            let mut sum = lane;
            for &step in &steps {
                let step = b.uint(step);
                let beside = b.binary(Binary::Add, lane, step);
                let beside = b.index(beside, Count::Fixed(count));
                let word = b.load(Scalar::U32, Memory::Binding(0), beside, 0);
                let three = b.uint(3);
                let tripled = b.binary(Binary::Mul, sum, three);
                sum = b.binary(Binary::Add, tripled, word);
            }
            let lane = b.index(lane, Count::Fixed(2 * LANES));
            b.store(Memory::Binding(0), lane, 3 * LANES, sum);
            check(&b.finish(), &words);
        }
    }
}

/// A kernel that goes from its own word to the one that this names, so many times, and writes where that ends, times a number.
fn kernel_of_hops(hops: u32) -> Kernel {
    let mut b = Builder::new("main", [16, 1, 1]);
    b.binding(Binding { number: 0, is_writable: true, words_min: 64 });
    let (lane, group, lanes, factor) = (b.input(Input::LocalId(0)), b.input(Input::GroupId(0)), b.uint(16), b.uint(OWN_FACTOR));
    let before = b.binary(Binary::Mul, group, lanes);
    let place = b.binary(Binary::Add, before, lane);
    let place = b.index(place, Count::Fixed(32));
    let mut word = b.load(Scalar::U32, Memory::Binding(0), place, 0);
    for _ in 0..hops {
        let next = b.index(word, Count::Fixed(32));
        word = b.load(Scalar::U32, Memory::Binding(0), next, 0);
    }
    let made = b.binary(Binary::Mul, word, factor);
    b.store(Memory::Binding(0), place, 32, made);
    b.finish()
}

#[test]
fn what_mostly_reads_lane_by_lane_has_one_form() {
    let words: Vec<u32> = (0..64).map(|word| word * 7 % 32).collect();
    let forms = [0, 1, 2, 5].map(|hops| {
        let kernel = kernel_of_hops(hops);
        check(&kernel, &words);
        let bytes = super::emit(&kernel, &crate::executor::cpu::shape::shapes(&kernel), super::Host::Threads).expect("code").bytes;
        constants(&bytes, OWN_FACTOR)
    });
    assert_eq!(forms, [2, 2, 1, 1]);
}

/// The fast form of such a kernel never runs, but is compiled: with words so far apart that no memory has both.
#[test]
fn neighbouring_words_of_lanes_that_no_memory_could_hold_are_compiled() {
    let words: Vec<u32> = (0..2 * LANES).map(|word| word.wrapping_mul(0x9e37_79b9)).collect();
    for factor in [1 << 31, i32::MAX as u32, 1 << 30, 0x2aaa_aaab, (1 << 30) + 1, 1u32.wrapping_neg() << 30] {
        let mut b = Builder::new("main", [LANES, 1, 1]);
        b.binding(Binding { number: 0, is_writable: true, words_min: 2 * LANES });
        let lane = b.input(Input::LocalId(0));
        let factor = b.uint(factor);
        let far = b.binary(Binary::Mul, lane, factor);
        let first = b.index(far, Count::Fixed(LANES / 4));
        let read = [0, 1, 2, 3].map(|word| b.load(Scalar::U32, Memory::Binding(0), first, word));
        let sum = read.into_iter().reduce(|sum, word| b.binary(Binary::Add, sum, word)).unwrap_or(lane);
        b.store(Memory::Binding(0), lane, LANES, sum);
        check(&b.finish(), &words);
    }
}
