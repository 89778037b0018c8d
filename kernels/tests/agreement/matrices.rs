//! Matrices of every size: their products, their parts, and where they lie in memory.
//!
//! Numbers are small and whole, so products are exact and a GPU may sum them as it likes.

use crate::cases::{Case, check};

/// Numbers of a matrix, from -4 to 4.
const NUMBERS: &str = "
fn number(x: Given, at: u32) -> f32 { return f32(i32((x.u[at % 4u] >> (at % 7u)) % 9u) - 4); }";

/// `columns` × `rows`, column by column, from the number `first` on.
fn matrix(columns: usize, rows: usize, first: usize) -> String {
    let numbers: Vec<String> = (0..columns * rows).map(|at| format!("number(x, {}u)", first + at)).collect();
    format!("mat{columns}x{rows}<f32>({})", numbers.join(", "))
}

fn vector(size: usize, first: usize) -> String {
    let numbers: Vec<String> = (0..size).map(|at| format!("number(x, {}u)", first + at)).collect();
    format!("vec{size}<f32>({})", numbers.join(", "))
}

fn sizes() -> impl Iterator<Item = (usize, usize)> {
    (2..5).flat_map(|columns| (2..5).map(move |rows| (columns, rows)))
}

#[test]
fn sums_and_products() {
    let cases: Vec<Case> = sizes()
        .map(|(columns, rows)| {
            let a = matrix(columns, rows, 3);
            let ty = format!("mat{columns}x{rows}<f32>");
            let mut fields = vec![
                (ty.clone(), format!("{a} + {}", matrix(columns, rows, 20))),
                (ty.clone(), format!("{a} - {}", matrix(columns, rows, 21))),
                (ty.clone(), format!("{a} * number(x, 1u)")),
                (ty, format!("3.0 * {a}")),
                (format!("vec{rows}<f32>"), format!("{a} * {}", vector(columns, 5))),
                (format!("vec{columns}<f32>"), format!("{} * {a}", vector(rows, 6))),
                (format!("mat{rows}x{columns}<f32>"), format!("transpose({a})")),
            ];
            fields.extend((2..5).map(|others| (format!("mat{others}x{rows}<f32>"), format!("{a} * {}", matrix(others, columns, 9)))));
            if columns == rows {
                fields.push(("f32".into(), format!("determinant({a})")));
            }
            let fields: Vec<(&str, &str)> = fields.iter().map(|(ty, expression)| (&ty[..], &expression[..])).collect();
            Case::fields(&format!("{columns}x{rows}"), NUMBERS, &fields)
        })
        .collect();
    check(&cases);
}

#[test]
fn parts() {
    let cases: Vec<Case> = sizes()
        .map(|(columns, rows)| {
            let ty = format!("mat{columns}x{rows}<f32>");
            let text = format!(
                "{NUMBERS}
struct Made {{
    all: {ty}, column: vec{rows}<f32>, known: vec{rows}<f32>, word: f32, component: f32, last: f32, swizzle: vec2<f32>,
    written: {ty}, rewritten: {ty}, passed: {ty}, chosen: vec{rows}<f32>, tail: u32
}}
fn scale(m: ptr<function, {ty}>, by: f32) {{ *m = *m * by; (*m)[1] += (*m)[0]; }}
fn scale_column(c: ptr<function, vec{rows}<f32>>, at: u32) {{ (*c)[at] = 7.0; (*c).x -= 1.0; }}
fn column_of(m: {ty}, at: u32) -> vec{rows}<f32> {{ return m[at]; }}
fn make(x: Given, at: u32) -> Made {{
    let a = {a};
    let (i, j) = 0;
    var m = a;
    var made: Made;
    made.all = a;
    made.column = a[i];
    made.known = a[1];
    made.word = a[i][j];
    made.component = a[0][j] + a[i].y;
    made.last = a[{columns} - 1][{rows} - 1];
    made.swizzle = a[i].yx;
    m[i] = vec{rows}<f32>(9.0);
    m[i][j] = 11.0;
    m[0][j] += 0.5;
    m[i].x *= 2.0;
    made.written = m;
    var n = {ty}();
    for (var k = 0u; k < {columns}u; k++) {{ n[k] = a[{columns}u - 1u - k]; n[k][k % {rows}u] = f32(k); }}
    made.rewritten = n;
    scale(&n, 2.0);
    made.passed = n;
    var column = column_of(n, i);
    scale_column(&column, j);
    made.chosen = select(column, a[0], x.u.x > 9u);
    made.tail = at;
    return made;
}}",
                a = matrix(columns, rows, 3)
            );
            let text = text.replace("let (i, j) = 0;", &format!("let i = x.u.x % {columns}u;\n    let j = u32(x.i.y) % {rows}u;"));
            Case::brief(&format!("{columns}x{rows}"), &text)
        })
        .collect();
    check(&cases);
}

/// Matrices of every size in one struct, in every memory: what is written to one is read from the next.
#[test]
fn places() {
    let members: String = sizes().map(|(columns, rows)| format!("m{columns}{rows}: mat{columns}x{rows}<f32>, s{columns}{rows}: f32, ")).collect();
    let copies: String = sizes()
        .map(|(columns, rows)| {
            format!(
                "    made.m{columns}{rows} = x.m{columns}{rows} * 2.0; made.m{columns}{rows}[k % {columns}u] = params.m[k % 3u].x + x.m{columns}{rows}[(k + 1u) % {columns}u];\n    made.s{columns}{rows} = x.s{columns}{rows} + x.m{columns}{rows}[k % {columns}u][k % {rows}u];\n"
            )
        })
        .collect();
    let text = format!(
        "struct Made {{ {members} }}
fn make(x: Given, at: u32) -> Made {{
    var made: Made;
    let k = at;
{copies}    return made;
}}"
    );
    let params = ("m: mat3x3<f32>, a: array<mat2x2<f32>, 2>", "m = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\na = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]");
    let workgroup = "
struct Made { a: mat3x3<f32>, b: vec3<f32>, c: mat2x4<f32>, d: f32 }
var<workgroup> shared_matrices: array<mat3x3<f32>, 8>;
var<workgroup> one: mat2x4<f32>;
var<private> own: array<mat4x3<f32>, 2>;
@compute @workgroup_size(8) fn turn(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = cell(id);
    let x = given[c.coord.x % 40u];
    shared_matrices[lane] = mat3x3<f32>(x.f.xyz, x.g.xyz, vec3<f32>(x.f.w, x.g.w, f32(lane)));
    if (lane < 2u) { one[lane] = x.f; }
    workgroupBarrier();
    own[lane % 2u] = mat4x3<f32>(x.f.xyz, x.f.yzw, x.g.xyz, x.g.yzw);
    own[1u - lane % 2u][lane % 4u] = vec3<f32>(1.0, 2.0, 3.0);
    if (!c.inside) { return; }
    let other = shared_matrices[(lane + 3u) % 8u];
    made_next[c.index] = Made(other, shared_matrices[7u - lane][lane % 3u], one, own[lane % 2u][lane % 4u][lane % 3u] + one[lane % 2u][lane % 4u] + own[lane / 4u][0].x);
}";
    check(&[
        Case::brief("every memory", &text).given(&format!("struct Given {{ {members} }}")).params(params.0, params.1),
        Case::whole("workgroup", &[43], &["turn"], workgroup),
    ]);
}
