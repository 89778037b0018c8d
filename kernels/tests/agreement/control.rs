//! Control flow: loops of every kind in each other, branches and switches that tell invocations apart, returns from
//! anywhere, calls with pointers, and what is evaluated when.

use crate::cases::{Case, Row, check};

#[test]
fn loops() {
    let text = "
fn nested(x: Given) -> u32 {
    var sum = 0u;
    for (var a = 0u; a < x.u.x % 7u; a++) {
        if (a == 3u) { continue; }
        var b = a;
        while (b < 9u) {
            b += 1u + (x.u.y >> a) % 3u;
            if (b == 5u) { continue; }
            if (b == 8u && a % 2u == 0u) { break; }
            loop {
                sum = sum * 3u + b;
                if (sum % 11u == 4u) { break; }
                if (sum % 5u == 2u) { continue; }
                sum ^= a;
                continuing { sum += 7u; break if sum % 4u == 1u; }
            }
        }
        sum += b;
    }
    return sum;
}
fn continuing_loop(x: Given) -> vec2<u32> {
    var n = x.u.x % 13u;
    var turns = 0u;
    loop {
        turns++;
        if (n % 3u == 1u) { n += 5u; continue; }
        if (turns > 40u) { break; }
        n = n * 2u + 1u;
        continuing {
            let next = n % 23u;
            n = next + 1u;
            if (turns % 4u == 0u) { n += 2u; }
            break if next == 7u || turns == 33u;
        }
    }
    return vec2<u32>(n, turns);
}
fn exits(x: Given) -> u32 {
    var found = 99u;
    for (var k = 0u; ; k++) {
        if (k > x.u.x % 20u) { break; }
        if ((x.u.y >> k) % 2u == 1u) { found = k; break; }
        if (x.i.x < 0 && k == 4u) { return 1000u + k; }
        if (k == 11u) { return found + 2000u; }
    }
    var w = x.u.z % 50u;
    while (true) {
        if (w == 0u) { break; }
        if (w > 45u) { return 3000u + w; }
        w--;
        if (w % 9u == 4u) { found += w; break; }
    }
    return found;
}
fn none(x: Given) -> u32 {
    var sum = 5u;
    for (var k = 9u; k < 9u; k++) { sum = 0u; }
    for (var k = x.u.x; k < 0u; k++) { sum = 1u; }
    while (false) { sum = 2u; }
    while (sum == 6u) { sum++; }
    for (var k = x.i.x; k < x.i.x; k++) { sum = 3u; }
    loop { break; }
    loop { if (x.u.x >= 0u) { break; } sum = 4u; continuing { sum = 77u; } }
    return sum;
}
fn counts(x: Given, at: u32) -> vec4<u32> {
    var a = 0u;
    for (var k = at; k > 0u; k--) { a += k * (k ^ x.u.x); }
    var b = 0u;
    for (var k = i32(at % 9u); k >= 0; k -= 2) { b = b * 3u + u32(k); }
    var c = 1u;
    for (var k = 1u; k < 1000u; k *= 2u + at % 3u) { c = c * 5u + k; }
    var d = x.u.w;
    for (; d > 9u;) { d = d / (2u + at % 2u) ^ (d & 1u); }
    return vec4<u32>(a, b, c, d);
}
fn carried(x: Given) -> vec4<i32> {
    var v = x.i % vec4<i32>(1000);
    var w = vec4<i32>(1, 2, 3, 4);
    for (var k = 0u; k < 1u + x.u.x % 9u; k++) {
        let t = v;
        v = w.wxyz + i32(k);
        w = t - v.zwxy;
        if (w.x > 900) { w = -w; }
    }
    return v ^ w;
}
fn late(x: Given) -> u32 {
    // What a loop's last round computed, used behind it; an inner variable anew in every round.
    var last = 0u;
    var sum = 0u;
    for (var k = 0u; k < x.u.x % 6u; k++) {
        var fresh: array<u32, 3>;
        var zero: u32;
        fresh[k % 3u] += k + 1u;
        zero += fresh[0] + fresh[1] * 3u + fresh[2] * 9u;
        last = zero;
        sum = sum * 7u + zero;
    }
    return last + sum * 100u;
}
fn collatz(x: Given) -> u32 {
    var n = x.u.x % 97u + 1u;
    var steps = 0u;
    while (n != 1u) { if (n % 2u == 0u) { n /= 2u; } else { n = 3u * n + 1u; } steps++; }
    return steps;
}
fn gcd(a: u32, b: u32) -> u32 { var p = a; var q = b; while (q != 0u) { let r = p % q; p = q; q = r; } return p; }";
    let fields = [
        ("u32", "nested(x)"),
        ("vec2<u32>", "continuing_loop(x)"),
        ("u32", "exits(x)"),
        ("u32", "none(x)"),
        ("vec4<u32>", "counts(x, at)"),
        ("vec4<i32>", "carried(x)"),
        ("u32", "late(x)"),
        ("u32", "collatz(x)"),
        ("u32", "gcd(x.u.x, x.u.y)"),
    ];
    let known = |row: &Row| {
        let mut steps = 0;
        let mut n = row.u[0] % 97 + 1;
        while n != 1 {
            n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        let (mut p, mut q) = (row.u[0], row.u[1]);
        while q != 0 {
            (p, q) = (q, p % q);
        }
        vec![5, steps, p]
    };
    let mut cases: Vec<Case> = fields.iter().map(|field| flow(field.1, text, field)).collect();
    cases.push(Case::fields("known", text, &[fields[3], fields[7], fields[8]]).known(known));
    check(&cases);
}

/// One function in all three ways.
fn flow(name: &str, text: &str, (ty, expression): &(&str, &str)) -> Case {
    Case::of(name, &format!("{text}\nstruct Made {{ value: {ty} }}\nfn make(x: Given, at: u32) -> Made {{ return Made({expression}); }}"))
}

#[test]
fn switches() {
    let text = "
fn middle(x: Given) -> u32 {
    var r = 1u;
    switch (x.u.x % 9u) {
        case 1u: { r = 10u; }
        case 2u, 3u: { r = 20u + x.u.y % 5u; }
        default: { r = 30u; if (x.u.z > 5u) { break; } r = 31u; }
        case 7u: { if (x.u.y > 9u) { r = 40u; break; } r += 41u; }
        case 8u: { }
    }
    return r;
}
fn only(x: Given) -> i32 {
    var r = 0;
    switch x.i.x { default: { r = 3; } }
    switch x.i.x % 3 { case -1, default: { r += 10; } case 1: { r += 20; } case 2: { return r + 30; } }
    switch 2 { case 1: { r += 100; } case 2: { r += 200; } default: { r += 300; } }
    return r;
}
fn signed(x: Given) -> i32 {
    switch (x.i.x) {
        case -2147483648: { return 1; }
        case -1: { return 2; }
        case 0: { return 3; }
        case 0x7fffffff: { return 4; }
        case 2, 31, 32, 33: { return 5; }
        default: {}
    }
    return 6;
}
fn in_loops(x: Given, at: u32) -> u32 {
    var sum = 0u;
    for (var k = 0u; k < 12u; k++) {
        switch ((k + at) % 6u) {
            case 0u: { continue; }
            case 1u: { sum += 5u; break; }
            case 2u, 4u: {
                for (var j = 0u; j < x.u.x % 4u; j++) {
                    switch (j) {
                        case 1u: { continue; }
                        case 2u: { sum ^= 0x55u; break; }
                        default: { sum += j; }
                    }
                    sum = sum * 3u + k;
                }
            }
            case 5u: { if (sum > 50000u) { return sum; } sum += 2u; }
            default: { switch (x.u.y % 3u) { case 0u: { sum++; } case 1u: { if (k > 6u) { break; } sum += 9u; } default: { continue; } } sum += 100u; }
        }
        sum += 1u;
        if (sum % 97u == 13u) { break; }
    }
    return sum;
}
fn shared_end(x: Given) -> vec2<u32> {
    var a = x.u.x;
    var b = 0u;
    switch (x.u.y % 4u) {
        case 0u: { a = a * 3u; b = a; }
        case 1u: { b = a; a = 7u; }
        case 2u: { loop { b++; a >>= 1u; if (a < 5u) { break; } } }
        default: { return vec2<u32>(a, 99u); }
    }
    return vec2<u32>(a + 1u, b * 2u);
}";
    let fields = [("u32", "middle(x)"), ("i32", "only(x)"), ("i32", "signed(x)"), ("u32", "in_loops(x, at)"), ("vec2<u32>", "shared_end(x)")];
    check(&fields.iter().map(|field| flow(field.1, text, field)).collect::<Vec<_>>());
}

#[test]
fn returns() {
    let text = "
fn first_set(word: u32, from_: u32) -> u32 {
    for (var k = from_; k < 32u; k++) { if (((word >> k) & 1u) == 1u) { return k; } }
    return 32u;
}
fn place(x: Given) -> vec2<u32> {
    for (var a = 0u; a < 4u; a++) {
        for (var b = 0u; b < 4u; b++) {
            if (a == b) { continue; }
            if (x.u[a] % 5u == x.u[b] % 5u) { return vec2<u32>(a, b); }
        }
        if (a == 2u && x.u.x > 100u) { return vec2<u32>(77u, x.u.x); }
    }
    return vec2<u32>(9u);
}
struct Found { is_found: bool, at: u32, value: vec3<i32> }
fn search(x: Given) -> Found {
    var best = Found(false, 0u, vec3<i32>(0));
    for (var k = 0u; k < 4u; k++) {
        if (x.i[k] < -5) { return Found(true, k, vec3<i32>(x.i[k], i32(k), 1)); }
        if (x.i[k] > best.value.x) { best = Found(false, k, x.i.xyz); }
    }
    return best;
}
fn deep(x: Given) -> u32 {
    if (x.u.x > 5u) {
        if (x.u.y > 5u) {
            switch (x.u.z % 3u) {
                case 0u: { return 1u; }
                case 1u: { loop { if (x.u.w > 5u) { return 2u; } break; } }
                default: { { { return 3u; } } }
            }
            return 4u;
        } else { if (x.u.z > 5u) { return 5u; } }
    } else { return 6u + first_set(x.u.y, x.u.x); }
    return 7u;
}
fn in_loop(x: Given) -> u32 {
    var sum = 0u;
    var k = 0u;
    while (k < 32u) { k = first_set(x.u.x, k) + 1u; sum = sum * 3u + k + deep(x); if (sum > 1000000u) { return k; } }
    return sum + place(x).y;
}
fn no_value(p: ptr<function, u32>, x: Given) { for (var k = 0u; k < 9u; k++) { if (*p > x.u.x) { return; } *p = *p * 2u + k; } *p += 1u; }
fn changed(x: Given) -> u32 { var n = x.u.y % 7u; no_value(&n, x); no_value(&n, x); return n; }
fn sum_of(f: Found) -> i32 { return i32(f.is_found) * 1000 + i32(f.at) * 100 + (f.value.x ^ f.value.y) + f.value.z; }";
    let fields = [
        ("u32", "first_set(x.u.x, x.u.y % 8u)"),
        ("vec2<u32>", "place(x)"),
        ("i32", "sum_of(search(x))"),
        ("u32", "deep(x)"),
        ("u32", "in_loop(x)"),
        ("u32", "changed(x)"),
    ];
    check(&fields.iter().map(|field| flow(field.1, text, field)).collect::<Vec<_>>());
}

/// The right side of `&&` and `||` only where the left one leaves it open, arguments from left to right, once each.
#[test]
fn what_is_evaluated_when() {
    let text = "
var<private> trace: u32;
var<private> counter: u32;
fn mark(digit: u32, value: bool) -> bool { trace = trace * 10u + digit; return value; }
fn step(digit: u32) -> u32 { trace = trace * 10u + digit; counter += digit; return counter; }
fn three(a: u32, b: u32, c: u32) -> u32 { return a * 10000u + b * 100u + c; }
fn and_or(x: Given) -> u32 {
    let a = x.u.x > 5u;
    let b = x.u.y > 5u;
    let c = x.u.z > 5u;
    var r = 0u;
    if (mark(1u, a) && mark(2u, b)) { r += 1u; }
    if (mark(3u, a) || mark(4u, c)) { r += 2u; }
    let mixed = (mark(5u, b) && mark(6u, c)) || (mark(7u, a) && !mark(8u, b));
    return (trace * 8u + r) * 2u + u32(mixed);
}
fn in_conditions(x: Given) -> u32 {
    var k = 0u;
    while (k < x.u.x % 5u && mark(k + 1u, x.u.y != k)) { k++; }
    for (var j = 0u; mark(9u, j < 2u) || (x.u.z % 2u == 0u && j < 3u); j++) { k += 10u; }
    loop { k += 100u; continuing { break if mark(8u, k > 150u) || mark(7u, x.u.w % 3u == 1u); } }
    return trace ^ k;
}
fn both(x: Given) -> u32 {
    // Without a short cut both sides are evaluated.
    let a = mark(1u, x.u.x > 5u) & mark(2u, x.u.y > 5u);
    let b = mark(3u, x.u.x > 5u) | mark(4u, x.u.y > 5u);
    return trace * 4u + u32(a) * 2u + u32(b);
}
fn arguments(x: Given) -> u32 {
    let first = three(step(1u), step(2u + x.u.x % 2u), step(4u));
    let second = step(3u) - step(5u) * step(1u);
    var list: array<u32, 4>;
    list[step(1u) % 4u] = step(2u);
    list[step(2u) % 4u] += 100u;
    return first ^ (second << 3u) ^ trace ^ list[0] ^ (list[1] << 4u) ^ (list[2] << 8u) ^ (list[3] << 12u);
}
fn once(x: Given) -> u32 {
    let value = step(1u + x.u.x % 3u);
    var sum = 0u;
    for (var k = 0u; k < 4u; k++) { sum += value; }
    _ = step(5u);
    return sum * 1000u + counter + value;
}
fn guarded(x: Given) -> u32 {
    let list = array<u32, 4>(x.u.x, x.u.y, x.u.z, x.u.w);
    var k = 0u;
    while (k < 4u && list[k] % 3u != 1u) { k++; }
    if (k < 4u && list[k] > 10u) { return k + 100u; }
    if (k == 4u || list[min(k, 3u)] < 5u) { return k + 200u; }
    return k;
}";
    let each = ["and_or", "in_conditions", "both", "arguments", "once", "guarded"];
    let calls: Vec<(String, String)> = each.iter().map(|name| ((*name).to_string(), format!("{name}(x)"))).collect();
    check(&calls.iter().map(|(name, call)| flow(name, text, &("u32", call))).collect::<Vec<_>>());
}

#[test]
fn calls_and_names() {
    let text = "
struct Turtle { place: vec2<i32>, heading: u32, seen: array<u32, 6> }
fn turn(t: ptr<function, Turtle>, by: u32) { (*t).heading = ((*t).heading + by) % 4u; }
fn forward(t: ptr<function, Turtle>, steps: i32) -> i32 {
    for (var k = 0; k < steps; k++) {
        switch ((*t).heading) {
            case 0u: { (*t).place.x += 1; }
            case 1u: { (*t).place.y += 1; }
            case 2u: { (*t).place.x -= 1; }
            default: { (*t).place.y -= 1; }
        }
        if ((*t).place.x > 5) { turn(t, 1u); }
        (*t).seen[u32((*t).place.x + (*t).place.y * 3) % 6u] += 1u;
    }
    return (*t).place.x * 100 + (*t).place.y;
}
fn walk(x: Given) -> i32 {
    var t: Turtle;
    var sum = 0;
    for (var k = 0u; k < 4u; k++) {
        sum = sum * 3 + forward(&t, i32(x.u[k] % 5u));
        turn(&t, x.u[3u - k] % 3u);
        if (t.seen[k] > 2u) { var t: Turtle; t.heading = 3u; sum += forward(&t, 2); }
    }
    return sum + i32(t.seen[1] * 7u + t.heading);
}
fn bubble(list: ptr<function, array<u32, 6>>) -> u32 {
    var swaps = 0u;
    for (var a = 0u; a < 5u; a++) {
        for (var b = 0u; b < 5u - a; b++) {
            if ((*list)[b] > (*list)[b + 1u]) { exchange(list, b, b + 1u); swaps++; }
        }
    }
    return swaps;
}
fn exchange(list: ptr<function, array<u32, 6>>, a: u32, b: u32) { let t = (*list)[a]; (*list)[a] = (*list)[b]; (*list)[b] = t; }
fn sorted(x: Given, at: u32) -> array<u32, 6> {
    var list = array<u32, 6>(x.u.x, x.u.y, x.u.z, x.u.w, at, 17u);
    let swaps = bubble(&list);
    list[5] ^= swaps;
    return list;
}
fn shadows(x: Given) -> i32 {
    var v = x.i.x % 100;
    for (var k = 0; k < 3; k++) {
        let x = v + k;
        if (x % 2 == 0) { let v = x * 2; for (var k = v; k < v + 2; k++) { let x = k; if (x % 3 == 0) { continue; } } }
        { var v = 5; v += x; { let v = v * 2; if (v > 50) { continue; } } }
        v = v * 3 + x;
    }
    if (v > 0) { let v = true; if (v) { let v = 4; _ = v; } } else if (v < -50) { let x = v; v = -x; }
    return v + x.i.y % 10;
}
fn even(n: u32) -> bool { return n % 2u == 0u; }
fn a(n: u32) -> u32 { if (even(n)) { return n / 2u; } return b(n) + 1u; }
fn b(n: u32) -> u32 { var s = n; for (var k = 0u; k < 3u; k++) { if (even(s + k)) { s = c(s, k); } else { s += 3u; } } return s; }
fn c(n: u32, k: u32) -> u32 { if (n > 1000u) { return d(&LIMITS_, n, k); } return n * 3u + k; }
var<private> LIMITS_: array<u32, 3>;
fn d(limits: ptr<private, array<u32, 3>>, n: u32, k: u32) -> u32 { (*limits)[k % 3u] += 1u; return n / 3u + (*limits)[0] + (*limits)[2]; }
fn chain(x: Given) -> u32 { return a(x.u.x) + a(a(x.u.y) % 1000u) * 3u + LIMITS_[1]; }";
    let fields = [("i32", "walk(x)"), ("array<u32, 6>", "sorted(x, at)"), ("i32", "shadows(x)"), ("u32", "chain(x)")];
    check(&fields.iter().map(|field| flow(field.1, text, field)).collect::<Vec<_>>());
}

/// Conditions and places that hold for a whole workgroup, or are taken to, and what is made of them.
#[test]
fn conditions_on_conditions() {
    let text = "
struct Made { a: u32, b: u32, c: u32 }
struct In { @builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32 }
@compute @workgroup_size(64) fn inside(in: In) {
    let c = cell(in.id);
    let is_early = in.id.x < 150u;
    if (c.inside && is_early) {
        made_next[c.index].a = 1u + in.id.x;
        if (in.lane < select(3u, 70u, is_early)) {
            made_next[c.index].b = 2u;
            if (in.lane == 0u) { made_next[c.index].c = given[in.id.x + select(0u, 4u, is_early)].u.x; }
        }
    }
}
@compute @workgroup_size(64) fn left(in: In) {
    let c = cell(in.id);
    if (!c.inside) { return; }
    made_next[c.index].a = 3u + in.lane;
    let is_early = in.id.x < 150u;
    if (!is_early) { return; }
    if (in.id.x >= select(3u, 140u, is_early)) { return; }
    made_next[c.index].b = given[in.id.x + select(0u, 4u, is_early)].u.y;
    if (in.lane > 5u) { return; }
    made_next[c.index].c = 7u;
}
@compute @workgroup_size(16, 4) fn rows(in: In) {
    let c = cell(in.id);
    let is_early = in.id.x < 150u;
    if (c.inside) {
        if (is_early) { made_next[c.index].a = 5u; if (in.id.x < select(10u, 170u, is_early)) { made_next[c.index].b = 6u; } }
        if (in.lane < 16u) { made_next[c.index].c = given[in.id.x / 2u + select(1u, 2u, is_early)].u.z; }
    }
}";
    check(&[Case::whole("conditions", &[200], &["inside", "left", "rows"], text)]);
}
