//! Subgroups: every operation on them, held against plain Rust, where all take part, where some do, where some have left,
//! and around barriers; in workgroups whose last subgroup is whole, and in others.
//!
//! On a GPU subgroups are as large as it likes, so there it is what no result depends on that is compared.

use peercompute_kernels::ErrorKind;
use peercompute_kernels::executor::ExecutorError;
use peercompute_kernels::executor::cpu::CpuOptions;

use crate::cases::noise;
use crate::machines::{Do, Machines, bundle_of, compiled_first, cpu, run};

/// The size that the cpu executor states.
const SIZE: usize = 4;
const SHAPE: [usize; 2] = [11, 7];
const WORKGROUPS: [[usize; 2]; 7] = [[1, 1], [6, 1], [16, 1], [5, 3], [4, 4], [64, 1], [8, 2]];
const ENTRIES: [&str; 5] = ["everybody", "some", "rounds", "stayed", "waited"];
/// Words of what [`OPERATIONS`] make.
const MADE: usize = 36;

const OPERATIONS: &str = "
fn f(x: u32) -> f32 { return f32(x % 64u) * 0.25 - 3.0; }
fn operations(x: u32, in: In) -> array<u32, 36> {
    let i = i32(x);
    let two = subgroupAdd(vec2<u32>(x, ~x));
    return array<u32, 36>(
        subgroupAdd(x), subgroupMul(x | 1u), subgroupMin(x), subgroupMax(x), subgroupAnd(x), subgroupOr(x), subgroupXor(x),
        subgroupInclusiveAdd(x), subgroupInclusiveMul(x | 1u), subgroupExclusiveAdd(x), subgroupExclusiveMul(x | 1u),
        u32(subgroupMin(i)), u32(subgroupMax(i)), two.x ^ two.y,
        bitcast<u32>(subgroupAdd(f(x))), bitcast<u32>(subgroupMin(f(x))), bitcast<u32>(subgroupMax(f(x))), bitcast<u32>(subgroupExclusiveAdd(f(x))),
        u32(subgroupAll(x % 5u != 0u)), u32(subgroupAny(x % 5u == 0u)), subgroupBallot(x % 2u == 0u).x, subgroupBallot(true).x + subgroupBallot(true).y,
        subgroupBroadcastFirst(x), subgroupBroadcast(x, 2u), subgroupShuffle(x, x % 6u), subgroupShuffleDown(x, 1u), subgroupShuffleUp(x, 1u),
        subgroupShuffleXor(x, x % 4u), quadSwapX(x), quadSwapY(x), quadSwapDiagonal(x), quadBroadcast(x, 1u),
        PLACE_IN, in.size, in.count,
    );
}
";

const TEXT: &str = "enable subgroups;
struct In {
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) n: u32,
PLACES    @builtin(subgroup_size) size: u32,
    @builtin(num_subgroups) count: u32,
}
var<storage, read> given: array<u32>;
var<storage, read_write> made_next: array<array<u32, 36>>;
var<workgroup> shared_words: array<u32, 64>;
fn value(c: Cell) -> u32 { return select(7u, given[c.index], c.inside); }
";

/// The text with one entry point for each of [`ENTRIES`].
fn text([x, y]: [usize; 2]) -> String {
    // naga tells places only in workgroups of one axis.
    let (told, places) = match y {
        1 => ("    @builtin(subgroup_invocation_id) place: u32,\n    @builtin(subgroup_id) number: u32,\n", "in.place, in.number"),
        _ => ("", "in.n % 4u, in.n / 4u"),
    };
    let entry = |name: &str, body: &str| {
        format!(
            "@compute @workgroup_size({x}, {y}) fn {name}(in: In) {{\n    let c = cell(in.id);\n    let x = value(c);\n    var made: array<u32, 36>;\n    \
             {body}\n    if (c.inside) {{ made_next[c.index] = made; }}\n}}\n"
        )
    };
    let rounds = "
    for (var i = 0u; i < 5u; i++) {
        if (i > x % 5u) { break; }
        if (x % 7u == i) { continue; }
        let more = operations(x + i, in);
        for (var k = 0u; k < 36u; k++) { made[k] = made[k] * 3u + more[k]; }
    }";
    let waited = format!(
        "let sum = subgroupAdd(x);
    shared_words[in.n] = sum ^ in.n;
    workgroupBarrier();
    let other = shared_words[(in.n + 1u) % {count}u];
    let before = subgroupExclusiveAdd(other);
    workgroupBarrier();
    made = operations(before ^ sum, in);",
        count = x * y
    );
    [
        TEXT.replace("PLACES", told),
        OPERATIONS.replace("PLACE_IN", places),
        entry("everybody", "made = operations(x, in);"),
        entry("some", "if (x % 3u != 0u) { made = operations(x, in); } else { made[0] = subgroupAdd(x + 1u); }"),
        entry("rounds", rounds),
        entry("stayed", "if (x % 4u == 1u) { return; }\n    made = operations(x, in);"),
        entry("waited", &waited),
    ]
    .concat()
}

/// What an invocation has at a place, and whether it takes part.
type Group<'a> = [(bool, u32)];

/// What [`OPERATIONS`] make of a subgroup, for those that take part.
fn operations(group: &Group<'_>, number: usize, count: usize) -> Vec<Option<[u32; MADE]>> {
    let f = |x: u32| (x % 64) as f32 * 0.25 - 3.0;
    let here: Vec<(usize, u32)> = group.iter().enumerate().filter(|(_, (is_here, _))| *is_here).map(|(place, (_, x))| (place, *x)).collect();
    let fold = |start: u32, until: usize, join: fn(u32, u32) -> u32| {
        here.iter().filter(|(place, _)| *place < until).fold(start, |all, (_, x)| join(all, *x))
    };
    let times = |a: u32, b: u32| a.wrapping_mul(b | 1);
    let floats = |until: usize, start: f32, join: fn(f32, f32) -> f32| {
        here.iter().filter(|(place, _)| *place < until).fold(start, |all, (_, x)| join(all, f(*x))).to_bits()
    };
    let at = |place: usize| here.iter().find(|(other, _)| *other == place).map_or(0, |(_, x)| *x);
    let bits = |holds: fn(u32) -> bool| here.iter().filter(|(_, x)| holds(*x)).map(|(place, _)| 1 << place).sum::<u32>();
    let made = |place: usize, x: u32| {
        let sum = fold(0, SIZE, u32::wrapping_add);
        [
            sum,
            fold(1, SIZE, times),
            fold(u32::MAX, SIZE, u32::min),
            fold(0, SIZE, u32::max),
            fold(u32::MAX, SIZE, |a, b| a & b),
            fold(0, SIZE, |a, b| a | b),
            fold(0, SIZE, |a, b| a ^ b),
            fold(0, place + 1, u32::wrapping_add),
            fold(1, place + 1, times),
            fold(0, place, u32::wrapping_add),
            fold(1, place, times),
            fold(i32::MAX as u32, SIZE, |a, b| (a as i32).min(b as i32) as u32),
            fold(i32::MIN as u32, SIZE, |a, b| (a as i32).max(b as i32) as u32),
            sum ^ fold(0, SIZE, |a, b| a.wrapping_add(!b)),
            floats(SIZE, -0.0, |a, b| a + b),
            floats(SIZE, f32::INFINITY, f32::min),
            floats(SIZE, f32::NEG_INFINITY, f32::max),
            floats(place, -0.0, |a, b| a + b),
            u32::from(here.iter().all(|(_, x)| x % 5 != 0)),
            u32::from(here.iter().any(|(_, x)| x % 5 == 0)),
            bits(|x| x % 2 == 0),
            bits(|_| true),
            here[0].1,
            at(2),
            at(x as usize % 6),
            at(place + 1),
            at(place.wrapping_sub(1)),
            at(place ^ (x as usize % 4)),
            at(place ^ 1),
            at(place ^ 2),
            at(place ^ 3),
            at(1),
            place as u32,
            number as u32,
            SIZE as u32,
            count as u32,
        ]
    };
    group.iter().enumerate().map(|(place, &(is_here, x))| is_here.then(|| made(place, x))).collect()
}

/// What an entry point leaves behind for the lanes of a workgroup, which have these values.
fn workgroup_of(entry: &str, values: &[u32]) -> Vec<[u32; MADE]> {
    let count = values.len().div_ceil(SIZE);
    let all = |values: &[(bool, u32)]| -> Vec<Option<[u32; MADE]>> {
        values.chunks(SIZE).enumerate().flat_map(|(number, group)| operations(group, number, count)).collect()
    };
    let some = |holds: &dyn Fn(u32) -> bool| all(&values.iter().map(|&x| (holds(x), x)).collect::<Vec<_>>());
    let or_nothing = |made: Vec<Option<[u32; MADE]>>| made.into_iter().map(|made| made.unwrap_or([0; MADE])).collect();
    match entry {
        "everybody" => or_nothing(some(&|_| true)),
        "stayed" => or_nothing(some(&|x| x % 4 != 1)),
        "some" => {
            let mut made: Vec<[u32; MADE]> = or_nothing(some(&|x| x % 3 != 0));
            let others: Vec<_> = values.iter().map(|&x| (x % 3 == 0, x + 1)).collect();
            for (made, other) in made.iter_mut().zip(all(&others)) {
                made[0] = other.map_or(made[0], |other| other[0]);
            }
            made
        }
        "rounds" => {
            let mut made = vec![[0u32; MADE]; values.len()];
            for round in 0..5 {
                let there: Vec<_> = values.iter().map(|&x| (round <= x % 5 && x % 7 != round, x + round)).collect();
                for (made, more) in made.iter_mut().zip(all(&there)) {
                    let Some(more) = more else { continue };
                    made.iter_mut().zip(more).for_each(|(made, more)| *made = made.wrapping_mul(3).wrapping_add(more));
                }
            }
            made
        }
        _ => {
            let sums: Vec<u32> = some(&|_| true).iter().map(|made| made.unwrap()[0]).collect();
            let shared: Vec<u32> = sums.iter().zip(0..).map(|(sum, n)| sum ^ n).collect();
            let others: Vec<_> = (0..values.len()).map(|n| (true, shared[(n + 1) % values.len()])).collect();
            let mixed: Vec<_> = all(&others).iter().zip(&sums).map(|(made, sum)| (true, made.unwrap()[9] ^ sum)).collect();
            or_nothing(all(&mixed))
        }
    }
}

/// The whole grid of an entry point.
fn expected(entry: &str, [width, height]: [usize; 2], given: &[u32]) -> Vec<u32> {
    let mut made = vec![0; SHAPE[0] * SHAPE[1] * MADE];
    for group_y in 0..SHAPE[1].div_ceil(height) {
        for group_x in 0..SHAPE[0].div_ceil(width) {
            let cells: Vec<Option<usize>> = (0..width * height)
                .map(|n| (group_x * width + n % width, group_y * height + n / width))
                .map(|(x, y)| (x < SHAPE[0] && y < SHAPE[1]).then_some(y * SHAPE[0] + x))
                .collect();
            let values: Vec<u32> = cells.iter().map(|cell| cell.map_or(7, |cell| given[cell])).collect();
            for (cell, of_lane) in cells.iter().zip(workgroup_of(entry, &values)) {
                if let Some(cell) = cell {
                    made[cell * MADE..(cell + 1) * MADE].copy_from_slice(&of_lane);
                }
            }
        }
    }
    made
}

#[test]
fn every_operation() {
    let toml = |shape: [usize; 2]| {
        let passes: String =
            ENTRIES.map(|entry| format!("[[passes]]\nkernel = \"k.wgsl\"\nentry = \"{entry}\"\nreads = [\"given\"]\nwrites = [\"made\"]\n")).concat();
        format!(
            "name = \"subgroups\"\nversion = \"1.0.0\"\nclass = \"display\"\ngrid = {{ shape = {shape:?}, tile = {shape:?} }}\n\
             [buffers.given]\nelement = \"u32\"\n[buffers.made]\nelement = \"array<u32, {MADE}>\"\n{passes}"
        )
    };
    let given: Vec<u32> = (0..SHAPE[0] * SHAPE[1]).map(|at| if at % 3 == 0 { noise(at as u32) } else { noise(at as u32) % 11 }).collect();
    let zeros = vec![0; given.len() * MADE];
    let options = CpuOptions { threads: Some(1), ..compiled_first() };
    let machines =
        [cpu(options.clone()), cpu(CpuOptions { is_interpreted: true, ..options.clone() }), cpu(CpuOptions { is_inspected: true, ..options })];
    for workgroup in WORKGROUPS {
        let bundle = bundle_of(&toml(SHAPE), &text(workgroup)).unwrap_or_else(|error| panic!("{error}"));
        let mut list = vec![Do::Write("given", &given)];
        for pass in 0..ENTRIES.len() {
            list.extend([Do::Write("made", &zeros), Do::Pass(pass), Do::Read("made")]);
        }
        for machine in &machines {
            for (entry, made) in ENTRIES.iter().zip(run(machine, &bundle, &list).unwrap_or_else(|error| panic!("{error}"))) {
                let expected = expected(entry, workgroup, &given);
                let different = made.iter().zip(&expected).position(|(a, b)| a != b);
                let tell = |at: usize| format!("cell {}, word {}: {} and not {}", at / MADE, at % MADE, made[at], expected[at]);
                assert!(different.is_none(), "{entry} by {workgroup:?}, {}: {}", machine.info().backend, different.map_or(String::new(), tell));
            }
        }
    }
}

/// A sum over a workgroup by way of its subgroups is the same whatever their size.
#[test]
fn what_no_size_changes() {
    let toml = "name = \"sums\"\nversion = \"1.0.0\"\nclass = \"exact\"\ngrid = { shape = [200], tile = [200] }\n[buffers.given]\nelement = \"u32\"\n\
                [buffers.made]\nelement = \"vec2<u32>\"\n[[passes]]\nkernel = \"k.wgsl\"\nentry = \"go\"\nreads = [\"given\"]\nwrites = [\"made\"]\n";
    let text = "
enable subgroups;
var<storage, read> given: array<u32>;
var<storage, read_write> made_next: array<vec2<u32>>;
var<workgroup> sum: atomic<u32>;
var<workgroup> most: atomic<u32>;
@compute @workgroup_size(64) fn go(@builtin(global_invocation_id) id: vec3<u32>, @builtin(subgroup_invocation_id) place: u32) {
    let c = cell(id);
    let x = select(0u, given[c.index], c.inside);
    let part = subgroupAdd(x);
    let top = subgroupMax(x);
    if (place == 0u) {
        atomicAdd(&sum, part);
        atomicMax(&most, top);
    }
    workgroupBarrier();
    if (c.inside) { made_next[c.index] = vec2<u32>(atomicLoad(&sum), atomicLoad(&most)); }
}";
    let bundle = bundle_of(toml, text).unwrap_or_else(|error| panic!("{error}"));
    let warning = bundle.program().warnings.iter().find(|warning| warning.contains("subgroups"));
    assert!(warning.is_some_and(|warning| warning.contains("`exact` only if no result depends on it")), "{warning:?}");
    let given: Vec<u32> = (0..200).map(noise).collect();
    let expected: Vec<u32> = (0..200)
        .flat_map(|at| {
            let group = &given[at / 64 * 64..(at / 64 * 64 + 64).min(200)];
            [group.iter().fold(0u32, |sum, x| sum.wrapping_add(*x)), group.iter().copied().max().unwrap_or(0)]
        })
        .collect();
    let machines = Machines::open();
    let list = [Do::Write("given", &given), Do::Pass(0), Do::Read("made")];
    for machine in [&machines.compiled, &machines.interpreted, &machines.gpu] {
        match run(machine, &bundle, &list) {
            Ok(made) => assert_eq!(made[0], expected, "{:?}", machine.info()),
            // Not every adapter has them.
            Err(ExecutorError::Limit { cause, .. }) if machine.info().executor == "gpu" => {
                assert!(matches!(*cause.kind, ErrorKind::Limit { .. }) && cause.to_string().contains("the feature `subgroups` is 0"), "{cause}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
