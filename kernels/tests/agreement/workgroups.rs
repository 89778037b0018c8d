//! Workgroups: the memory they share, barriers wherever control flow is uniform, atomics, and what an invocation is told
//! of its place, in workgroups of every size.
//!
//! Grids are not multiples of the workgroups: invocations beyond the end share and wait like all others.

use peercompute_buffers::TileId;
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::{Placement, Run, mesh};
use pollster::block_on;

use crate::cases::{Case, check, noise};
use crate::machines::{Machines, bundle_of, compiled_first, cpu};

/// Sizes of workgroups, and how many invocations that is.
const SIZES: [(&str, u32); 6] = [("1", 1), ("7", 7), ("256", 256), ("3, 5, 2", 30), ("4, 4", 16), ("2, 1, 9", 18)];
/// Three axes, none a multiple of anything above.
const SHAPE: [u32; 3] = [10, 11, 5];

const INPUTS: &str = "
struct In {
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) n: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
}
fn row(c: Cell) -> Given { return given[select(0u, c.index, c.inside)]; }
";

const NAMES: [&str; SIZES.len()] = ["by_1", "by_7", "by_256", "by_3_5_2", "by_4_4", "by_2_1_9"];

/// One entry point for each size. `body` makes `made`; in it are `c`, `x`, and `size`, the number of invocations.
fn of_all_sizes(name: &str, text: &str, body: &str) -> Case {
    let entries: String = SIZES
        .iter()
        .zip(NAMES)
        .map(|((extents, count), entry)| {
            format!(
                "@compute @workgroup_size({extents}) fn {entry}(in: In) {{\n    const size = {count}u;\n    let c = cell(in.id);\n    let x = row(c);\n    \
                 var made: Made;\n{body}\n    if (c.inside) {{ made_next[c.index] = made; }}\n}}\n"
            )
        })
        .collect();
    Case::whole(name, &SHAPE, &NAMES, &format!("{INPUTS}{text}\n{entries}"))
}

#[test]
fn places() {
    let text = "struct Made { id: vec3<u32>, n: u32, lane: vec3<u32>, group: vec3<u32>, groups: vec3<u32>, mixed: vec4<u32> }";
    let body = "
    made.id = in.id;
    made.n = in.n;
    made.lane = in.lane;
    made.group = in.group;
    made.groups = in.groups;
    made.mixed = vec4<u32>(in.n / 3u, in.n % 5u, (in.group.x * size + in.n) / 4u, in.lane.x + in.lane.y * 7u + in.lane.z * 77u);";
    let alone = "
struct Made { a: u32, b: u32 }
@compute @workgroup_size(7) fn index(@builtin(local_invocation_index) n: u32, @builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (c.inside) { made_next[c.index] = Made(n, id.x); }
}
@compute @workgroup_size(3, 5, 2) fn lanes(@builtin(local_invocation_id) lane: vec3<u32>, @builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (c.inside) { made_next[c.index] = Made(lane.x | lane.y << 8u, lane.z); }
}
@compute @workgroup_size(64) fn counts(@builtin(num_workgroups) groups: vec3<u32>, @builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (c.inside) { made_next[c.index] = Made(groups.x, groups.y * groups.z); }
}";
    check(&[of_all_sizes("all", text, body), Case::whole("alone", &[50, 3], &["index", "lanes", "counts"], alone)]);
}

/// Words, vectors, structs, matrices and truths that all invocations see.
#[test]
fn memory() {
    let words = "
struct Made { back: u32, before: u32, sum: u32, first: u32, scanned: i32 }
var<workgroup> words: array<u32, 256>;
var<workgroup> total: u32;
var<workgroup> signed: array<i32, 256>;
fn scan(n: u32, size: u32, value: i32) -> i32 {
    signed[n] = value;
    workgroupBarrier();
    for (var step = 1u; step < size; step <<= 1u) {
        var sum = signed[n];
        if (n >= step) { sum += signed[n - step]; }
        workgroupBarrier();
        signed[n] = sum;
        workgroupBarrier();
    }
    return signed[n];
}";
    let in_words = "
    words[in.n] = x.u.x ^ in.n;
    workgroupBarrier();
    made.back = words[size - 1u - in.n];
    made.before = words[(in.n + size - 1u) % size];
    if (in.n == 0u) { for (var k = 0u; k < size; k++) { total = total * 3u + words[k]; } }
    workgroupBarrier();
    made.sum = total;
    words[(in.n * 5u + 1u) % size] = in.n;
    workgroupBarrier();
    made.first = words[1u % size] + words[min(2u, size - 1u)];
    made.scanned = scan(in.n, size, x.i.y);";
    let parts = "
struct Part { place: vec3<f32>, mass: f32, tag: vec2<u32>, is_on: bool, list: array<i32, 3>, rows: mat2x3<f32> }
struct Made { place: vec3<f32>, mass: f32, tag: vec2<u32>, list: array<i32, 3>, on: u32, column: vec3<f32>, number: f32, vector: vec3<u32>, flags: u32 }
var<workgroup> parts: array<Part, 257>;
var<workgroup> one: Part;
var<workgroup> vectors: array<vec3<u32>, 256>;
var<workgroup> flags: array<bool, 256>;
var<workgroup> flag: bool;";
    let in_parts = "
    let whole = vec3<f32>(vec3<i32>(x.i.xyz % vec3<i32>(1000)));
    parts[in.n] = Part(whole, f32(in.n), x.u.xy, x.u.z > 9u, array<i32, 3>(x.i.x, i32(in.n), -1), mat2x3<f32>(whole, whole.zxy));
    vectors[in.n] = x.u.xyz;
    vectors[in.n][in.n % 3u] = 7u;
    flags[in.n] = x.u.x > x.u.y;
    if (in.n == size / 2u) { one = parts[in.n]; one.place.y = 5.0; one.list[in.n % 3u] = 9; flag = !flag; }
    workgroupBarrier();
    let other = parts[(in.n * 7u + 3u) % size];
    made.place = other.place;
    made.mass = other.mass + parts[in.n].mass;
    made.tag = parts[size - 1u - in.n].tag + one.tag;
    made.list = parts[(in.n + 1u) % size].list;
    made.on = u32(other.is_on) + 2u * u32(one.is_on) + 4u * u32(parts[0].is_on);
    made.column = parts[(in.n + 2u) % size].rows[x.u.y % 2u];
    made.number = parts[(in.n + 5u) % size].rows[x.u.x % 2u][x.u.y % 3u] + one.place.y + one.rows[1].x;
    made.vector = vectors[(in.n + 1u) % size].zxy;
    made.vector.x += vectors[in.n][x.u.z % 3u];
    made.flags = u32(flags[size - 1u - in.n]) + 2u * u32(flag);
    made.list[2] = one.list[x.u.x % 3u] + parts[size - 1u].list[in.n % 3u] + parts[256].list[2];";
    check(&[of_all_sizes("words", words, in_words), of_all_sizes("parts", parts, in_parts)]);
}

/// Shared memory is zero at first, for every workgroup that a thread runs.
#[test]
fn memory_begins_as_zero() {
    let text = "
struct Node { place: vec3<f32>, next: u32, is_set: bool, pair: vec2<i32> }
struct Made { found: u32 }
var<workgroup> words: array<u32, 999>;
var<workgroup> nodes: array<Node, 33>;
var<workgroup> counter: atomic<u32>;
var<workgroup> counters: array<atomic<i32>, 9>;
var<workgroup> last: vec3<u32>;
var<workgroup> flag: bool;";
    let body = "
    for (var k = in.n; k < 999u; k += size) { made.found |= words[k]; }
    for (var k = in.n; k < 33u; k += size) {
        let node = nodes[k];
        made.found |= node.next | u32(node.is_set) | u32(node.pair.x | node.pair.y) | bitcast<u32>(node.place.x) | bitcast<u32>(node.place.z);
    }
    made.found |= u32(flag) | last.x | last.y | last.z | atomicLoad(&counter) | u32(atomicLoad(&counters[in.n % 9u]));
    workgroupBarrier();
    for (var k = in.n; k < 999u; k += size) { words[k] += ~k; }
    for (var k = in.n; k < 33u; k += size) { nodes[k] = Node(vec3<f32>(1.0, 2.0, 3.0), 7u, true, vec2<i32>(-1)); }
    atomicAdd(&counter, 3u);
    atomicMin(&counters[in.n % 9u], -5);
    workgroupBarrier();
    if (in.n == size - 1u) { last = vec3<u32>(in.group.x + 1u, 2u, 3u); flag = true; }
    made.found += 1u;";
    check(&[of_all_sizes("zeros", text, body).known(|_| vec![1])]);
}

/// Barriers in loops and branches whose conditions are those of the workgroup.
#[test]
fn barriers() {
    let text = "
struct Made { a: u32, b: u32, c: i32, d: vec3<f32>, e: u32, f: u32 }
var<workgroup> words: array<u32, 256>;
var<private> own: array<u32, 5>;
fn wait() { workgroupBarrier(); }
fn swap(n: u32, size: u32, value: u32) -> u32 {
    wait();
    words[n] = value;
    wait();
    return words[size - 1u - n];
}
fn rounds(n: u32, size: u32, most: u32) -> u32 {
    var sum = n;
    for (var k = 0u; k < most; k++) {
        if (k == 7u) { return sum; }
        sum = sum * 3u + swap(n, size, sum + k);
        if (k % 2u == 1u) { continue; }
        sum += swap(n, size, sum ^ k);
        if (k == 5u) { break; }
    }
    return sum + 1u;
}";
    let body = "
    let is_high = x.u.x > 9u;
    var list = array<i32, 7>(x.i.x, 1, 2, 3, x.i.y, 5, 6);
    let kept = vec3<f32>(f32(in.n), 2.0, f32(x.u.y % 100u));
    var mine = x.u.x;
    own[in.n % 5u] = x.u.y;
    // By the workgroup's place.
    if ((in.group.x + in.group.y) % 2u == 0u) {
        words[in.n] = x.u.z;
        workgroupBarrier();
        made.a = words[(in.n + 1u) % size];
        workgroupBarrier();
        words[in.n] = made.a + mine;
        storageBarrier();
        workgroupBarrier();
        made.a += words[(in.n + 3u) % size];
    } else if (in.groups.x > 1u) {
        words[(in.n + 1u) % size] = x.u.w;
        workgroupBarrier();
        made.a = words[in.n];
    } else {
        made.a = 5u;
    }
    workgroupBarrier();
    // By a parameter, and by both; invocations differ between the barriers.
    switch (params.which + in.group.y) % 5u {
        case 0u: { made.b = swap(in.n, size, mine); }
        case 1u, 4u: {
            words[in.n] = mine;
            workgroupBarrier();
            if (words[size - 1u] > 7u) { made.b = words[(in.n + 2u) % size]; } else { made.b = 1u; }
            list[in.n % 7u] += i32(made.b);
        }
        default: { made.b = 3u; }
    }
    workgroupBarrier();
    for (var k = 0u; k < 2u + in.group.x % 3u; k++) {
        words[in.n] = mine + k;
        workgroupBarrier();
        var other = words[(in.n + k + 1u) % size];
        for (var j = 0u; j < x.u.w % 6u; j++) { other = other * 5u + j; if (other % 7u == 3u) { break; } }
        workgroupBarrier();
        if (is_high) { mine ^= other; } else { list[(in.n + k) % 7u] ^= i32(other); }
        own[(in.n + k) % 5u] += mine;
    }
    // Loops with barriers in each other, left from the middle.
    var turn = 0u;
    loop {
        var inner = 0u;
        loop {
            if (inner > turn) { break; }
            made.e = made.e * 3u + swap(in.n, size, mine + inner);
            continuing { inner++; break if inner == 3u; }
        }
        if (turn == 2u) { break; }
        wait();
        if (in.group.z % 2u == 1u && turn == 1u) { break; }
        continuing { turn++; wait(); }
    }
    made.f = rounds(in.n, size, 3u + in.group.x) + own[in.n % 5u] * 3u + own[(in.n + 2u) % 5u];
    made.c = list[x.u.x % 7u] + list[in.n % 7u];
    made.d = kept;";
    check(&[of_all_sizes("barriers", text, body)]);
}

#[test]
fn uniform_loads() {
    let text = "
struct Pair { a: vec3<u32>, b: i32 }
struct Made { a: u32, b: vec3<u32>, c: i32, d: u32, e: f32 }
var<workgroup> count: u32;
var<workgroup> pairs: array<Pair, 4>;
var<workgroup> pair: Pair;
var<workgroup> is_on: bool;
var<workgroup> words: array<u32, 256>;
var<workgroup> place: vec3<f32>;";
    let body = "
    if (in.n == size - 1u) {
        count = x.u.x % 6u;
        pairs[1] = Pair(x.u.xyz, x.i.x);
        pair = Pair(x.u.zyx, 5);
        is_on = x.u.y > 9u;
        place = vec3<f32>(1.0, f32(x.u.x % 77u), 3.0);
    }
    let rounds = workgroupUniformLoad(&count);
    for (var k = 0u; k < rounds; k++) {
        words[in.n] = k + x.u.y;
        workgroupBarrier();
        made.a = made.a * 3u + words[(in.n + 1u) % size];
        workgroupBarrier();
    }
    let whole = workgroupUniformLoad(&pairs[1]);
    made.b = whole.a + workgroupUniformLoad(&pair.a);
    made.c = whole.b + workgroupUniformLoad(&pairs[params.which + 1u].b);
    if (workgroupUniformLoad(&is_on)) {
        words[in.n] = x.u.z;
        workgroupBarrier();
        made.d = words[size - 1u - in.n];
    }
    var turns = 0u;
    loop {
        if (workgroupUniformLoad(&count) > 7u) { break; }
        if (in.n == 0u) { count += 1u + in.group.x % 2u; }
        turns++;
    }
    made.d += turns;
    made.e = workgroupUniformLoad(&place).y;";
    check(&[of_all_sizes("uniform loads", text, body)]);
}

/// Atomics that all of a workgroup share; what does not depend on who comes first.
#[test]
fn shared_atomics() {
    let text = "
struct Slot { count: atomic<u32>, low: atomic<i32> }
struct Made { count: u32, low: i32, bits: vec3<u32>, high: vec2<i32>, swapped: u32, added: u32, least: u32, sum: i32, stored: u32 }
var<workgroup> slots: array<Slot, 13>;
var<workgroup> any_of: atomic<u32>;
var<workgroup> all_of: atomic<u32>;
var<workgroup> odd_of: atomic<u32>;
var<workgroup> high: atomic<i32>;
var<workgroup> low: atomic<i32>;
var<workgroup> unsigned_low: atomic<u32>;
var<workgroup> unsigned_high: atomic<u32>;
var<workgroup> signed: atomic<i32>;
var<workgroup> holder: atomic<u32>;
var<workgroup> passed: atomic<u32>;
var<workgroup> total: atomic<u32>;
var<workgroup> words: array<atomic<u32>, 256>;
fn add_by_trial(value: u32) -> u32 {
    var tries = 0u;
    loop {
        let old = atomicLoad(&total);
        let outcome = atomicCompareExchangeWeak(&total, old, old * 5u + value - old * 4u);
        tries++;
        if (outcome.exchanged) { break; }
    }
    return tries;
}";
    let body = "
    if (in.n == 0u) { atomicStore(&all_of, 0xffffffffu); atomicStore(&unsigned_low, 0xffffffffu); atomicStore(&high, -2147483647 - 1); }
    workgroupBarrier();
    let slot = x.u.x % 13u;
    atomicAdd(&slots[slot].count, x.u.y);
    atomicMin(&slots[x.u.z % 13u].low, x.i.x);
    atomicOr(&any_of, x.u.x);
    atomicAnd(&all_of, x.u.y | 0xf0f0u);
    atomicXor(&odd_of, x.u.z);
    atomicMax(&high, x.i.y);
    atomicMin(&low, x.i.z);
    atomicMin(&unsigned_low, x.u.w);
    atomicMax(&unsigned_high, x.u.w);
    if (x.u.x > 5u) { atomicSub(&signed, x.i.w); } else { atomicAdd(&signed, 3); }
    // What everyone puts in, someone takes out, or it is left.
    let found = atomicExchange(&holder, in.n * 7u + 1u);
    atomicAdd(&passed, found);
    let tries = add_by_trial(x.u.x);
    atomicStore(&words[(in.n * 5u) % size], in.n);
    for (var k = 0u; k < x.u.y % 4u; k++) { atomicAdd(&words[(in.n + k) % size], 1000u * k); }
    workgroupBarrier();
    made.count = atomicLoad(&slots[slot].count) + atomicLoad(&slots[12].count);
    made.low = atomicLoad(&slots[x.u.z % 13u].low) + atomicLoad(&low);
    made.bits = vec3<u32>(atomicLoad(&any_of), atomicLoad(&all_of), atomicLoad(&odd_of));
    made.high = vec2<i32>(atomicLoad(&high), i32(atomicLoad(&unsigned_high)));
    made.swapped = atomicLoad(&passed) + atomicLoad(&holder);
    made.added = atomicLoad(&total) + u32(tries > 0u);
    made.least = atomicLoad(&unsigned_low);
    made.sum = atomicLoad(&signed);
    made.stored = u32(atomicLoad(&words[in.n]) % 1000u < 256u);";
    // Who comes first is the executor's choice; that each comes once is not.
    let tickets = "
struct Made { sum: u32, mine: u32, swaps: u32, last: u32 }
var<workgroup> tickets: atomic<u32>;
var<workgroup> holders: array<u32, 256>;
var<workgroup> swaps: atomic<u32>;
var<workgroup> token: atomic<u32>;";
    let by_ticket = "
    let ticket = atomicAdd(&tickets, 1u);
    holders[ticket] = in.n + 1u;
    let outcome = atomicCompareExchangeWeak(&token, 0u, 9u);
    atomicAdd(&swaps, u32(outcome.exchanged) + 100u * u32(outcome.old_value == 9u) + 10000u * u32(outcome.old_value == 0u));
    workgroupBarrier();
    for (var k = 0u; k < size; k++) { made.sum += holders[k] * holders[k]; }
    made.mine = u32(holders[ticket] == in.n + 1u);
    made.swaps = atomicLoad(&swaps);
    made.last = atomicLoad(&tickets) + atomicLoad(&token);";
    check(&[of_all_sizes("shared", text, body), of_all_sizes("tickets", tickets, by_ticket)]);
}

/// Every atomic operation in a buffer, on the invocation's own element.
#[test]
fn atomics_in_buffers() {
    let text = "
struct Made { u: atomic<u32>, i: atomic<i32>, list: array<atomic<u32>, 3>, seen: array<u32, 10>, signed: array<i32, 7>, swaps: vec4<u32>, deep: vec2<u32> }
@compute @workgroup_size(7) fn operate(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    let x = given[c.index];
    atomicStore(&made_next[c.index].u, x.u.x);
    made_next[c.index].seen[0] = atomicAdd(&made_next[c.index].u, x.u.y);
    made_next[c.index].seen[1] = atomicSub(&made_next[c.index].u, x.u.z);
    made_next[c.index].seen[2] = atomicMax(&made_next[c.index].u, x.u.w);
    made_next[c.index].seen[3] = atomicMin(&made_next[c.index].u, x.u.x | 0xffu);
    made_next[c.index].seen[4] = atomicAnd(&made_next[c.index].u, ~x.u.y);
    made_next[c.index].seen[5] = atomicOr(&made_next[c.index].u, x.u.z & 0xf0fu);
    made_next[c.index].seen[6] = atomicXor(&made_next[c.index].u, x.u.w);
    made_next[c.index].seen[7] = atomicExchange(&made_next[c.index].u, x.u.y);
    made_next[c.index].seen[8] = atomicLoad(&made_next[c.index].u);
    let missed = atomicCompareExchangeWeak(&made_next[c.index].u, ~x.u.y, 5u);
    made_next[c.index].swaps.x = missed.old_value + u32(missed.exchanged);
    let met = atomicCompareExchangeWeak(&made_next[c.index].u, x.u.y, x.u.x);
    made_next[c.index].swaps.y = met.old_value;
    atomicStore(&made_next[c.index].i, x.i.x);
    made_next[c.index].signed[0] = atomicAdd(&made_next[c.index].i, x.i.y);
    made_next[c.index].signed[1] = atomicSub(&made_next[c.index].i, x.i.z);
    made_next[c.index].signed[2] = atomicMax(&made_next[c.index].i, x.i.w);
    made_next[c.index].signed[3] = atomicMin(&made_next[c.index].i, x.i.x);
    made_next[c.index].signed[4] = atomicAnd(&made_next[c.index].i, x.i.y) + (atomicOr(&made_next[c.index].i, 6) ^ 1);
    made_next[c.index].signed[5] = atomicXor(&made_next[c.index].i, x.i.z);
    made_next[c.index].signed[6] = atomicExchange(&made_next[c.index].i, -x.i.w);
    atomicAdd(&made_next[c.index].list[x.u.x % 3u], x.u.y);
    atomicMax(&made_next[c.index].list[x.u.z % 3u], x.u.w);
    if (x.u.x > x.u.y) { made_next[c.index].swaps.z = atomicExchange(&made_next[c.index].list[1], 9u); }
    for (var k = 0u; k < x.u.w % 5u; k++) { made_next[c.index].swaps.w += atomicAdd(&made_next[c.index].list[k % 3u], k); }
    let p = &made_next[c.index].list[2];
    made_next[c.index].deep = vec2<u32>(atomicLoad(p), atomicAdd(p, atomicAdd(p, 1u)));
}";
    check(&[Case::whole("own", &[61], &["operate"], text).known(|row| {
        let ([a, b, c, d], [e, f, g, h]) = (row.u, row.i);
        let mut seen = vec![a];
        let steps: [&dyn Fn(u32) -> u32; 8] = [
            &|v| v.wrapping_add(b),
            &|v| v.wrapping_sub(c),
            &|v| v.max(d),
            &|v| v.min(a | 0xff),
            &|v| v & !b,
            &|v| v | c & 0xf0f,
            &|v| v ^ d,
            &|_| b,
        ];
        steps.iter().for_each(|step| seen.push(step(seen[seen.len() - 1])));
        let mut signed = vec![e];
        let steps: [&dyn Fn(i32) -> i32; 4] = [&|v| v.wrapping_add(f), &|v| v.wrapping_sub(g), &|v| v.max(h), &|v| v.min(e)];
        steps.iter().for_each(|step| signed.push(step(signed[signed.len() - 1])));
        let masked = signed[4] & f;
        signed[4] = signed[4].wrapping_add(masked ^ 1);
        signed.extend([masked | 6, (masked | 6) ^ g]);
        let mut list = [0u32; 3];
        list[a as usize % 3] = list[a as usize % 3].wrapping_add(b);
        list[c as usize % 3] = list[c as usize % 3].max(d);
        let mut swaps = [b, b, 0, 0];
        if a > b {
            swaps[2] = std::mem::replace(&mut list[1], 9);
        }
        for k in 0..d % 5 {
            let word = &mut list[k as usize % 3];
            swaps[3] = swaps[3].wrapping_add(*word);
            *word = word.wrapping_add(k);
        }
        let before = list[2];
        list[2] = before.wrapping_add(1).wrapping_add(before);
        // Ten words are seen by the text, nine of them set.
        seen.push(0);
        [
            vec![a, h.wrapping_neg() as u32],
            list.to_vec(),
            seen,
            signed.iter().map(|&v| v as u32).collect(),
            swaps.to_vec(),
            vec![before, before.wrapping_add(1)],
        ]
        .concat()
    })]);
}

/// Atomics on words that all workgroups share, on one thread and on several.
#[test]
fn atomics_between_workgroups() {
    const TABLES: [(&str, &str, u32, &str); 4] =
        [("hits", "u32", 9, "sum"), ("low", "i32", 3, "min"), ("high", "u32", 1, "max"), ("least", "u32", 1, "min")];
    let tables: String = TABLES
        .iter()
        .map(|(name, element, length, reduce)| format!("[buffers.{name}]\nelement = \"{element}\"\nlength = {length}\nreduce = \"{reduce}\"\n"))
        .collect();
    let toml = format!(
        "name = \"agreement\"\nversion = \"1.0.0\"\ngrid = {{ shape = [3000], tile = [3000] }}\n[buffers.given]\nelement = \"u32\"\n{tables}\
         [[passes]]\nkernel = \"k.wgsl\"\nentry = \"count\"\nreads = [\"given\"]\nwrites = [{}]\n",
        TABLES.map(|(name, ..)| format!("\"{name}\"")).join(", ")
    );
    let variables: String =
        TABLES.iter().map(|(name, element, ..)| format!("var<storage, read_write> {name}_next: array<atomic<{element}>>;\n")).collect();
    let text = format!(
        "var<storage, read> given: array<u32>;\n{variables}
@compute @workgroup_size(7) fn count(@builtin(global_invocation_id) id: vec3<u32>) {{
    let c = cell(id);
    if (!c.inside) {{ return; }}
    let x = given[c.index];
    atomicAdd(&hits_next[x % 9u], x >> 8u);
    if (x % 5u == 1u) {{ atomicSub(&hits_next[8], x); }}
    atomicMin(&low_next[x % 3u], bitcast<i32>(x * 77u));
    atomicMax(&high_next[0], x);
    atomicMin(&least_next[0], x ^ 0x5555u);
}}"
    );
    let bundle = bundle_of(&toml, &text).unwrap_or_else(|error| panic!("{error}"));
    let given: Vec<u32> = (0..3000).map(noise).collect();
    let mut known: Vec<Vec<u32>> = vec![vec![0; 9], vec![i32::MAX as u32; 3], vec![0], vec![u32::MAX]];
    for &x in &given {
        let add = |word: &mut u32, value: u32| *word = word.wrapping_add(value);
        add(&mut known[0][x as usize % 9], x >> 8);
        if x % 5 == 1 {
            add(&mut known[0][8], x.wrapping_neg());
        }
        let low = &mut known[1][x as usize % 3];
        *low = (*low as i32).min(x.wrapping_mul(77) as i32) as u32;
        known[2][0] = known[2][0].max(x);
        known[3][0] = known[3][0].min(x ^ 0x5555);
    }
    let Machines { compiled, interpreted, gpu } = Machines::open();
    let many = |is_interpreted| cpu(CpuOptions { threads: Some(3), is_interpreted, ..compiled_first() });
    for executor in [compiled, interpreted, gpu, many(false), many(true)] {
        let found = block_on(after_one_tick(&executor, &bundle, &given, &TABLES.map(|(name, ..)| name)));
        assert_eq!(found, known, "{:?}", executor.info());
    }
}

/// What tables hold after a tick.
async fn after_one_tick(executor: &AnyExecutor, bundle: &VerifiedBundle, given: &[u32], tables: &[&str]) -> Vec<Vec<u32>> {
    let program = bundle.program();
    let mut runs = vec![executor.load(bundle, &Placement::alone(program)).await.unwrap()];
    runs[0].write_tile(program.buffer("given").unwrap(), TileId(0), bytemuck::cast_slice(given));
    mesh::run(program, &mut runs, 0..1).await.unwrap();
    let mut read = Vec::new();
    for name in tables {
        read.push(bytemuck::pod_collect_to_vec(&runs[0].read_table(program.buffer(name).unwrap()).await.unwrap()));
    }
    read
}
