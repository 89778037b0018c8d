//! What is wrong with a workload is said, with its place, and nothing panics: declarations, WGSL and
//! folders that must be refused, from plain mistakes to hostile texts.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod small;

use std::path::Path;

use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::{ErrorKind, Manifest, Overrides, Program, WorkloadError};
use small::{BODIES_TOML, BODIES_WGSL, TOML, WGSL, check, edited};

fn toml_refusal(from: &str, to: &str) -> WorkloadError {
    check(&edited(TOML, &[(from, to)]), WGSL).unwrap_err()
}

fn wgsl_refusal(from: &str, to: &str) -> WorkloadError {
    check(TOML, &edited(WGSL, &[(from, to)])).unwrap_err()
}

/// Asserts the kind of an error and every piece of its text.
macro_rules! assert_refused {
    ($error:expr, $kind:pat, $($text:expr),+ $(,)?) => {{
        let error: WorkloadError = $error;
        assert!(matches!(&*error.kind, $kind), "{:?}", error.kind);
        $(assert!(error.to_string().contains($text), "`{}` is not in\n{error}", $text);)+
    }};
}

#[test]
fn the_small_workload_is_accepted() {
    assert_eq!(check(TOML, WGSL).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn lengths_that_differ_with_the_partition_are_warned_of() {
    let warnings = |toml: &[(&str, &str)], wgsl: &str| {
        let counted = edited(WGSL, &[("sum * params.rate", &format!("sum * params.rate + f32(arrayLength(&{wgsl}))"))]);
        check(&edited(TOML, toml), &counted).unwrap().warnings
    };
    let of_heat = warnings(&[], "heat");
    assert!(matches!(&of_heat[..], [warning] if warning.contains("`arrayLength(&heat)`") && warning.contains("`grid_shape()`")), "{of_heat:?}");
    // What is written lies as it does everywhere.
    assert!(warnings(&[], "heat_next").concat().contains("`arrayLength(&heat_next)`"));
    let flat = ("[8, 8], tile = [4, 4]", "[64], tile = [16]");
    assert_eq!(warnings(&[flat], "heat").len(), 1);
    let whole = ("{ heat = { halo = 1 } }", "{ heat = \"all\" }");
    assert_eq!(warnings(&[whole], "heat").len(), 1);
    assert_eq!(warnings(&[flat, whole], "heat"), Vec::<String>::new());
}

#[test]
fn declarations_that_are_not_toml() {
    assert_refused!(toml_refusal("name = ", "name: "), ErrorKind::Toml { .. }, "workload.toml:1:7");
    assert_refused!(toml_refusal("rate = 0.5", "rate = "), ErrorKind::Toml { .. }, "workload.toml:9:");
    assert_refused!(check("\0", WGSL).unwrap_err(), ErrorKind::Toml { .. }, "workload.toml:1");
    assert_refused!(check("", WGSL).unwrap_err(), ErrorKind::Toml { .. }, "missing field `name`");
    let long = format!("# {}", "x".repeat(2 << 20));
    assert_refused!(check(&long, WGSL).unwrap_err(), ErrorKind::TooLarge { .. }, "workload.toml", "at most 1048576");
    let deep = format!("{TOML}[x]\ny = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_refused!(check(&deep, WGSL).unwrap_err(), ErrorKind::NestedTooDeep { .. }, "workload.toml:17", "64 levels");
    let dotted = format!("{}x = 1\n{TOML}", "a.".repeat(10_000));
    assert_refused!(check(&dotted, WGSL).unwrap_err(), ErrorKind::Toml { .. }, "workload.toml:1");
}

#[test]
fn declarations_with_unknown_words() {
    assert_refused!(toml_refusal("writes", "wirtes"), ErrorKind::Toml { .. }, "workload.toml:15:1", "did you mean `writes`?");
    assert_refused!(toml_refusal("[params]", "[parms]"), ErrorKind::Toml { .. }, "workload.toml:8", "did you mean `params`?");
    assert_refused!(toml_refusal("element", "elment"), ErrorKind::Toml { .. }, "workload.toml:6:1", "did you mean `element`?");
    let buffer = toml_refusal("[\"heat\"]", "[\"haet\"]");
    assert_refused!(buffer, ErrorKind::Unknown { what: "buffer", .. }, "workload.toml:15:11", "did you mean `heat`?");
    let entry = toml_refusal("\"step\"", "\"stop\"");
    assert_refused!(entry, ErrorKind::Unknown { what: "entry point", .. }, "workload.toml:13", "did you mean `step`?");
    let grid = toml_refusal("element = \"f32\"", "element = \"f32\"\ngrid = \"cells\"");
    assert_refused!(grid, ErrorKind::Unknown { what: "grid", .. }, "workload.toml:7:8", "there is `grid`");
    let reduction = toml_refusal("element = \"f32\"", "element = \"f32\"\nlength = 4\nreduce = \"summ\"");
    assert_refused!(reduction, ErrorKind::Unknown { what: "reduction", .. }, "workload.toml:8:10", "did you mean `sum`?");
}

#[test]
fn declarations_with_impossible_shapes() {
    assert_refused!(toml_refusal("[8, 8]", "[0, 8]"), ErrorKind::Declaration { .. }, "workload.toml:3", "extent 0 on axis 0");
    assert_refused!(toml_refusal("[8, 8]", "[8, 8, 8, 8]"), ErrorKind::Declaration { .. }, "1 to 3 axes");
    let many = toml_refusal("[8, 8], tile = [4, 4]", "[4294967295, 4294967295], tile = [4, 4]");
    assert_refused!(many, ErrorKind::Declaration { .. }, "a grid has at most");
    let vast = toml_refusal("[8, 8], tile = [4, 4]", "[65536, 65536], tile = [65536, 65536]");
    assert_refused!(vast, ErrorKind::Declaration { .. }, "a tile has at most 2147483647 points");
    assert_refused!(toml_refusal("tile = [4, 4]", "tile = [4, -4]"), ErrorKind::Toml { .. }, "workload.toml:3");
    assert_refused!(toml_refusal("halo = 1", "halo = 5"), ErrorKind::HaloTooLarge { halo: 5, tile: 4, axis: 'x' }, "workload.toml:14", "at least 5");
    assert_refused!(toml_refusal("halo = 1", "halo = -1"), ErrorKind::Declaration { .. }, "workload.toml:14", "not a whole number");
    let table = toml_refusal("element = \"f32\"", "element = \"f32\"\nlength = 99999999");
    assert_refused!(table, ErrorKind::Declaration { .. }, "workload.toml:7", "1 to 16777216 elements");
}

#[test]
fn names_that_belong_to_the_framework() {
    for name in ["params", "tile", "cell", "at", "tick", "grid_shape", "partial", "locate", "pc_dispatch", "pc_mine"] {
        let toml = TOML.replace("heat", name);
        assert_refused!(check(&toml, WGSL).unwrap_err(), ErrorKind::Declaration { .. }, "workload.toml:5", "is reserved");
    }
    let next = TOML.replace("heat", "heat_next");
    assert_refused!(check(&next, WGSL).unwrap_err(), ErrorKind::Declaration { .. }, "workload.toml:5", "ends in `_next`");
    let keyword = TOML.replace("heat", "9heat");
    assert_refused!(check(&keyword, WGSL).unwrap_err(), ErrorKind::Declaration { .. }, "cannot be a WGSL variable");
    assert_refused!(wgsl_refusal("struct Params", "fn cell() {}\nstruct Params"), ErrorKind::Wgsl { .. }, "small.wgsl:1", "cell");
}

#[test]
fn folders_that_lack_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |folder: &Path| Manifest::from_folder(folder, &Overrides::default()).unwrap_err();
    assert_refused!(refusal(folder.path()), ErrorKind::Unreadable { .. }, "workload.toml", "cannot read");
    std::fs::write(folder.path().join("workload.toml"), TOML).unwrap();
    assert_refused!(refusal(folder.path()), ErrorKind::Unreadable { .. }, "workload.toml:12:10", "small.wgsl", "cannot read");
    std::fs::write(folder.path().join("small.wgsl"), " ".repeat(10 << 20)).unwrap();
    assert_refused!(refusal(folder.path()), ErrorKind::TooLarge { bytes: 10_485_760, .. }, "small.wgsl", "at most 262144");
    std::fs::write(folder.path().join("small.wgsl"), [0xff, 0xfe, 0x00]).unwrap();
    assert_refused!(refusal(folder.path()), ErrorKind::Unreadable { .. }, "small.wgsl", "UTF-8");
    std::fs::write(folder.path().join("small.wgsl"), WGSL).unwrap();
    Program::check(Manifest::from_folder(folder.path(), &Overrides::default()).unwrap()).unwrap();
    std::fs::remove_file(folder.path().join("small.wgsl")).unwrap();
    std::fs::create_dir(folder.path().join("small.wgsl")).unwrap();
    assert_refused!(refusal(folder.path()), ErrorKind::Unreadable { .. }, "small.wgsl");
}

#[test]
fn wgsl_that_does_not_parse_or_validate() {
    assert_refused!(wgsl_refusal("let c = cell(id);", "let c = cell(id"), ErrorKind::Wgsl { .. }, "small.wgsl:8");
    assert_refused!(wgsl_refusal("var sum =", "var sum: u32 ="), ErrorKind::Wgsl { .. }, "small.wgsl:9", "u32");
    assert_refused!(wgsl_refusal("sum * params", "summ * params"), ErrorKind::Wgsl { .. }, "small.wgsl:10:", "summ");
    assert_refused!(wgsl_refusal("sum * params.rate", "sum * c.index"), ErrorKind::Wgsl { .. }, "small.wgsl:");
    assert_refused!(check(TOML, "\0").unwrap_err(), ErrorKind::Wgsl { .. }, "small.wgsl:1");
    assert_refused!(check(TOML, "").unwrap_err(), ErrorKind::Unknown { what: "entry point", .. }, "workload.toml:13");
    assert_refused!(wgsl_refusal("@compute @workgroup_size(4, 4)\n", ""), ErrorKind::Unknown { what: "entry point", .. }, "workload.toml:13");
    let vertex = "@vertex fn step() -> @builtin(position) vec4<f32> { return vec4<f32>(); }";
    assert_refused!(check(TOML, vertex).unwrap_err(), ErrorKind::Declaration { .. }, "workload.toml:13", "not a compute entry point");
}

#[test]
fn barriers_that_not_all_reach() {
    for (line, flow) in [
        (8, "if (id.x > 3u) { workgroupBarrier(); }"),
        (9, "if (!c.inside) { return; }\n    workgroupBarrier();"),
        (8, "if (c.inside) { workgroupBarrier(); }"),
        (8, "if (c.inside) { wait(); }"),
        (9, "let inside = c.inside;\n    if (!inside) { return; } wait();"),
        (8, "for (var i = 0u; i < id.x; i++) { workgroupBarrier(); }"),
        (8, "if (heat[c.index] > 0.5) { workgroupBarrier(); }"),
        (8, "for (var i = 0u; i < 4u; i++) { switch (id.x) { case 1u: { continue; } default: { } } workgroupBarrier(); }"),
        (8, "switch (tick()) { case 1u: { if (c.inside) { break; } workgroupBarrier(); } default: { } }"),
        (8, "for (var i = 0u; i < 4u; i++) { switch (i) { case 1u: { if (c.inside) { return; } break; } default: { } } workgroupBarrier(); }"),
        (9, "var own = c;\n    loop { if (!own.inside) { break; } workgroupBarrier(); if (params.rate > 1.0) { break; } }"),
    ] {
        let edits = [("if (!c.inside) { return; }", flow), ("sum * params.rate;\n}", "sum * params.rate;\n}\nfn wait() { workgroupBarrier(); }")];
        let error = check(TOML, &edited(WGSL, &edits)).err().unwrap_or_else(|| panic!("accepted: {flow}"));
        assert_refused!(error, ErrorKind::Wgsl { .. }, &format!("small.wgsl:{line}:"), "niform");
    }
    for flow in [
        "for (var i = 0; i < 4; i++) { workgroupBarrier(); }\n    if (!c.inside) { return; }",
        "if (tick() > 3u || params.rate > 1.0) { workgroupBarrier(); }\n    if (!c.inside) { return; }",
        "for (var i = 0u; i < id.x; i++) { if (i > 5u) { break; } }\n    workgroupBarrier();\n    if (!c.inside) { return; }",
        "workgroupBarrier();\n    if (!c.inside) { return; }",
        "switch (id.x) { case 1u: { if (id.y > 1u) { break; } } default: { break; } }\n    workgroupBarrier();\n    if (!c.inside) { return; }",
        "for (var i = 0u; i < 4u; i++) { switch (id.x) { case 1u: { break; } default: { } } workgroupBarrier(); }\n    if (!c.inside) { return; }",
        "var x = 0.0; if (c.inside) { x = 1.0; }\n    workgroupBarrier();\n    if (!c.inside) { return; }",
    ] {
        check(TOML, &edited(WGSL, &[("if (!c.inside) { return; }", flow)])).unwrap();
    }
}

#[test]
fn workgroups_that_are_empty_or_unknown() {
    for size in ["(0, 4)", "(4, 0)", "(4, 4, 0)"] {
        assert_refused!(wgsl_refusal("(4, 4)", size), ErrorKind::Wgsl { .. }, "small.wgsl");
    }
    let error = check(TOML, &edited(WGSL, &[("(4, 4)", "(side, 4)"), ("struct", "override side: u32 = 4;\nstruct")])).unwrap_err();
    assert_refused!(error, ErrorKind::Wgsl { .. }, "small.wgsl", "is an override");
    assert_refused!(wgsl_refusal("(4, 4)", "(4294967295, 4294967295, 4294967295)"), ErrorKind::Wgsl { .. }, "small.wgsl");
}

#[test]
fn bindings_and_buffers_that_do_not_meet() {
    let error = wgsl_refusal("var<uniform>", "var<storage, read> haet: array<f32>;\nvar<uniform>");
    assert_refused!(error, ErrorKind::BindingWithoutBuffer { .. }, "small.wgsl:4:", "`haet` is bound", "did you mean `heat`?");
    let error = toml_refusal("[params]", "[buffers.cold]\nelement = \"f32\"\n[params]");
    assert_refused!(error, ErrorKind::Declaration { .. }, "workload.toml:8", "no kernel of the workload has a variable for the buffer `cold`");
    // Another kernel binds it, the one whose pass declares it does not.
    let toml = format!(
        "{}[[passes]]\nkernel = \"small.wgsl\"\nentry = \"step\"\nreads = {{ cold = \"own\", heat = {{ halo = 1 }} }}\nwrites = [\"heat\"]\n[buffers.cold]\nelement = \"f32\"\n",
        TOML
    );
    let other = WGSL.replace("heat", "cold").replace("rate: f32 }", "rate: f32 }\n");
    let sources = [("small.wgsl".to_string(), WGSL.to_string()), ("other.wgsl".to_string(), other)].into();
    let toml = format!("{toml}[[passes]]\nkernel = \"other.wgsl\"\nentry = \"step\"\nreads = {{ cold = {{ halo = 1 }} }}\nwrites = [\"cold\"]\n");
    let declaration = Declaration::parse(&toml, &Overrides::default()).unwrap();
    let error = Program::check(Manifest::new(&declaration, &sources).unwrap()).unwrap_err();
    assert_refused!(error, ErrorKind::BufferWithoutBinding { does: "reads", .. }, "small.wgsl:6:4", "`cold`", "var<storage, read> cold");
    let group = wgsl_refusal("var<storage, read> heat:", "@group(1) @binding(0) var<storage, read> heat:");
    assert_refused!(group, ErrorKind::Wgsl { .. }, "small.wgsl:2", "bind group 1", "@group(0)");
    let twice =
        edited(WGSL, &[("var<storage, read>", "@group(0) @binding(3) var<storage, read>"), ("var<uniform>", "@group(0) @binding(3) var<uniform>")]);
    assert_refused!(check(TOML, &twice).unwrap_err(), ErrorKind::Wgsl { .. }, "small.wgsl:4", "binding 3 is used twice");
}

#[test]
fn elements_that_differ_or_cannot_be_stored() {
    let mismatch = toml_refusal("\"f32\"", "\"vec2<f32>\"");
    assert_refused!(mismatch, ErrorKind::ElementMismatch { .. }, "workload.toml:5", "declared as `vec2<f32>`, but the WGSL has `f32`");
    let next = wgsl_refusal("heat_next: array<f32>", "heat_next: array<u32>");
    assert_refused!(next, ErrorKind::Wgsl { .. } | ErrorKind::ElementMismatch { .. }, "small.wgsl:");
    let bools =
        edited(WGSL, &[("heat: array<f32>", "heat: array<bool>"), ("var sum = heat[at(c, 1, 0, 0)]", "var sum = select(0.0, 1.0, heat[c.index])")]);
    let error = check(TOML, &bools).unwrap_err();
    assert!(error.to_string().contains("small.wgsl:") || error.to_string().contains("workload.toml:5"), "{error}");
    let halves = WGSL.replace("array<f32>", "array<f16>");
    let error = check(TOML, &format!("enable f16;\n{halves}")).unwrap_err();
    assert!(error.to_string().contains("f16"), "{error}");
    let scalar = wgsl_refusal("heat: array<f32>", "heat: f32");
    assert_refused!(scalar, ErrorKind::Wgsl { .. }, "small.wgsl:");
    let fixed = wgsl_refusal("heat: array<f32>", "heat: array<f32, 64>");
    assert_refused!(fixed, ErrorKind::Wgsl { .. }, "small.wgsl:2", "fixed length");
    let huge = WGSL.replace("array<f32>", "array<array<f32, 50000000>>").replace("heat[at(c, 1, 0, 0)]", "heat[c.index][0]");
    let error = check(&edited(TOML, &[("\"f32\"", "\"array<f32, 50000000>\"\nboundary = \"constant(0)\"")]), &huge).unwrap_err();
    assert_refused!(error, ErrorKind::Wgsl { .. } | ErrorKind::Limit { .. }, "heat");
}

#[test]
fn accesses_that_the_pass_does_not_declare() {
    let in_place = edited(
        WGSL,
        &[
            ("var<storage, read> heat:", "var<storage, read_write> heat:"),
            ("    heat_next[c.index] =", "    heat[c.index] = 0.0;\n    heat_next[c.index] ="),
        ],
    );
    assert_refused!(check(TOML, &in_place).unwrap_err(), ErrorKind::UndeclaredAccess { does: "writes", .. }, "small.wgsl:2:", "write to `heat_next`");
    let two = edited(TOML, &[("[params]", "[buffers.cold]\nelement = \"f32\"\n[params]")]);
    let cold = |kind: &str, line: &str| {
        edited(
            WGSL,
            &[("var<uniform>", &format!("{kind}\nvar<uniform>")), ("    heat_next[c.index] =", &format!("    {line}\n    heat_next[c.index] ="))],
        )
    };
    let writes = cold("var<storage, read_write> cold_next: array<f32>;", "cold_next[c.index] = 1.0;");
    assert_refused!(check(&two, &writes).unwrap_err(), ErrorKind::UndeclaredAccess { does: "writes", .. }, "small.wgsl:4:", "writes = [\"cold\"]");
    let direct = cold("var<storage, read_write> cold: array<f32>;", "cold[c.index] = 1.0;");
    assert_refused!(check(&two, &direct).unwrap_err(), ErrorKind::UndeclaredAccess { does: "writes", .. }, "small.wgsl:4:", "writes = [\"cold\"]");
    let reads = cold("var<storage, read> cold: array<f32>;", "sum += cold[c.index];");
    assert_refused!(check(&two, &reads).unwrap_err(), ErrorKind::UndeclaredAccess { does: "reads", .. }, "small.wgsl:4:", "cold = \"own\"");
    assert_refused!(toml_refusal("writes = [\"heat\"]", "writes = []"), ErrorKind::Declaration { .. }, "workload.toml:13", "writes nothing");
    let never = wgsl_refusal("heat_next[c.index] = sum * params.rate;", "_ = sum * params.rate;");
    assert_refused!(never, ErrorKind::UnusedAccess { does: "writes", .. } | ErrorKind::BufferWithoutBinding { .. }, "small.wgsl:6:4", "heat");
    let table = toml_refusal("element = \"f32\"", "element = \"f32\"\nlength = 4");
    assert_refused!(table, ErrorKind::Declaration { .. }, "workload.toml:16", "peers cannot agree");
}

#[test]
fn indices_that_reach_too_far() {
    let far = wgsl_refusal("at(c, 1, 0, 0)", "at(c, 0, -2, 0)");
    assert_refused!(far, ErrorKind::BeyondHalo { axis: 'y', given: 2, .. }, "small.wgsl:2:", "halo = 2");
    let any = wgsl_refusal("at(c, 1, 0, 0)", "c.index + 1u");
    assert_refused!(any, ErrorKind::UndeclaredAccess { does: "reads", .. }, "small.wgsl:2:", "neither `cell(id).index` nor from `at`");
    let own = check(&edited(TOML, &[("{ heat = { halo = 1 } }", "[\"heat\"]")]), WGSL).unwrap_err();
    assert_refused!(own, ErrorKind::BeyondHalo { axis: 'x', given: 1, .. }, "small.wgsl:2:", "only the own element", "halo = 1");
    let loose = check(&edited(TOML, &[("{ heat = { halo = 1 } }", "[\"heat\"]")]), &edited(WGSL, &[("at(c, 1, 0, 0)", "at(c, i32(c.index), 0, 0)")]));
    assert_refused!(loose.unwrap_err(), ErrorKind::UndeclaredAccess { .. }, "small.wgsl:2:", "not constant");
    let elsewhere = wgsl_refusal("heat_next[c.index]", "heat_next[at(c, 1, 0, 0)]");
    assert_refused!(elsewhere, ErrorKind::Wgsl { .. }, "small.wgsl:3:", "not the invocation's own");
    let racing = wgsl_refusal("sum * params.rate", "sum * heat_next[c.index]");
    assert_refused!(racing, ErrorKind::Wgsl { .. }, "small.wgsl:3:", "while it writes it");
}

/// What a call leads to is followed with what it is called with; the line is that of the barrier, or of the call that
/// only some make.
#[test]
fn barriers_in_functions_that_not_all_reach() {
    let items = "
fn wait() { workgroupBarrier(); }
fn wait_if(x: u32) { if (x > 3u) { workgroupBarrier(); } }
fn wait_deep(x: u32, y: u32) { wait_if(y); wait_if(x + 1u); }
fn wait_after(x: u32) { if (x > 3u) { return; } storageBarrier(); }
fn wait_by(x: ptr<function, u32>) { if (*x > 3u) { workgroupBarrier(); } }
fn wait_shared() { if (flag > 3u) { workgroupBarrier(); } }
fn load_if(x: u32) -> u32 { if (x > 3u) { return workgroupUniformLoad(&flag); } return 0u; }
fn which(x: u32) -> u32 { if (x > 3u) { return 1u; } return 2u; }
fn raise(x: ptr<function, u32>, by: u32) { *x += by; }
fn first(x: u32, y: u32) -> u32 { return x; }
fn settle(x: ptr<function, u32>) { *x = 5u; }
var<workgroup> flag: u32;
";
    let line_of = |text: &str| 12 + items.lines().position(|line| line.contains(text)).unwrap();
    let text =
        |flow: &str| edited(WGSL, &[("if (!c.inside) { return; }", flow), ("sum * params.rate;\n}\n", &format!("sum * params.rate;\n}}\n{items}"))]);
    for (flow, line, words) in [
        ("wait_if(id.x);", line_of("fn wait_if"), ["`step` has a `workgroupBarrier`", "`wait_if` as it is called in line 8"]),
        ("wait_deep(id.x, 1u);", line_of("fn wait_if"), ["`wait_if` as it is called in line 8, from there in line 15", "uniform"]),
        ("wait_deep(1u, id.x);", line_of("fn wait_if"), ["`wait_if` as it is called in line 8, from there in line 15", "uniform"]),
        ("wait_after(id.x);", line_of("fn wait_after"), ["`storageBarrier`", "`wait_after` as it is called in line 8"]),
        ("var x = id.x; wait_by(&x);", line_of("fn wait_by"), ["`workgroupBarrier`", "`wait_by` as it is called in line 8"]),
        ("var x = 1u; raise(&x, id.x); wait_if(x);", line_of("fn wait_if"), ["`workgroupBarrier`", "line 8"]),
        ("var x = 1u; if (c.inside) { raise(&x, 1u); } wait_if(x);", line_of("fn wait_if"), ["`workgroupBarrier`", "line 8"]),
        ("wait_shared();", line_of("fn wait_shared"), ["`workgroupBarrier`", "`wait_shared` as it is called in line 8"]),
        ("_ = load_if(id.x);", line_of("fn load_if"), ["`workgroupUniformLoad`", "`load_if` as it is called in line 8"]),
        ("if (which(id.x) == 1u) { wait(); }", 8, ["`workgroupBarrier`", "uniform"]),
        ("if (first(id.x, 1u) == 1u) { wait(); }", 8, ["`workgroupBarrier`", "uniform"]),
        // What only some did makes a variable vary, whatever they wrote.
        ("var x = 0u; if (c.inside) { x = 1u; } if (x == 1u) { workgroupBarrier(); }", 8, ["`workgroupBarrier`", "uniform"]),
        ("var i = 0u; loop { if (i > id.x) { break; } i++; } if (i == 1u) { workgroupBarrier(); }", 8, ["`workgroupBarrier`", "uniform"]),
        ("var x = array<u32, 4>(); x[id.x % 4u] = 1u; if (x[0] == 1u) { workgroupBarrier(); }", 8, ["`workgroupBarrier`", "uniform"]),
        ("var x = 0u; for (var i = 0u; i < 4u; i++) { if (x > 2u) { wait(); } x = id.x; }", 8, ["`workgroupBarrier`", "uniform"]),
    ] {
        let error = check(TOML, &text(flow)).err().unwrap_or_else(|| panic!("accepted: {flow}"));
        assert_refused!(error, ErrorKind::Wgsl { .. }, &format!("small.wgsl:{line}:"), words[0], words[1]);
    }
    for flow in [
        "wait_if(1u); wait_if(tick()); wait_deep(tick(), u32(params.rate));",
        "wait_after(tick()); workgroupBarrier();",
        "_ = which(id.x); wait();",
        "var x = tick(); raise(&x, 2u); wait_by(&x);",
        // What is overwritten as a whole is forgotten; what only passes by an argument does not reach the result.
        "var x = id.x; x = 5u; wait_if(x);",
        "var x = id.x; settle(&x); wait_by(&x);",
        "if (first(tick(), id.x) == 1u) { wait(); }",
        "for (var i = 0u; i < 4u; i++) { var x = i; if (x > 2u) { wait(); } x = id.x; }",
        "var x = id.x; loop { x = 1u; if (tick() > 3u) { break; } x = id.x; if (params.rate > 1.0) { x = 2u; break; } } wait_if(x);",
        "if (c.inside) { _ = which(id.x); } wait();",
        "_ = load_if(tick());",
    ] {
        let flow = format!("{flow}\n    if (!c.inside) {{ return; }}");
        check(TOML, &text(&flow)).unwrap_or_else(|error| panic!("{flow}\n{error}"));
    }
}

/// Every call is followed once for what it may be called with, however many ways lead to it.
#[test]
fn barriers_behind_many_calls() {
    let mut items =
        "fn f0(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32) -> u32 { if (a > 9u) { workgroupBarrier(); } return b + c + d + e + f; }\n"
            .to_string();
    for at in 1..11 {
        let callee = at - 1;
        items += &format!(
            "fn f{at}(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32) -> u32 {{ var x = a; for (var i = 0u; i < 3u; i++) {{ x = f{callee}(a, x, b, c, d, e); }} return f{callee}(a, f, x, b, c, d); }}\n"
        );
    }
    let text =
        |call: &str| edited(WGSL, &[("if (!c.inside) { return; }", call), ("sum * params.rate;\n}\n", &format!("sum * params.rate;\n}}\n{items}"))]);
    check(TOML, &text("_ = f10(1u, id.x, id.y, 1u, id.x, 2u);\n    if (!c.inside) { return; }")).unwrap();
    let error = check(TOML, &text("_ = f10(id.x, 1u, 1u, 1u, 1u, 1u);")).unwrap_err();
    assert_refused!(error, ErrorKind::Wgsl { .. }, "small.wgsl:12:", "`f0` as it is called in line 8, from there in line 22");
}

/// A `Cell` that did not come from `cell(id)` as it is proves nothing.
#[test]
fn cells_that_are_made_up() {
    for forged in [
        "var c = cell(id);\n    c.index += 1u;",
        "var c = cell(id);\n    c = cell(id + vec3<u32>(1u, 0u, 0u));",
        "let c = cell(id + vec3<u32>(1u, 0u, 0u));",
        "let c = cell(vec3<u32>(0u));",
        "let own = cell(id);\n    let c = Cell(own.inside, own.index + 1u, own.coord, own.local, own.extent, own.row, own.group);",
        "var c: Cell;\n    if (id.x == 0u) { c = cell(id); }",
        "var c = cell(id);\n    move_on(&c);",
    ] {
        let helper = "fn move_on(c: ptr<function, Cell>) { (*c).index += 1u; }\nstruct Params";
        let error = check(TOML, &edited(WGSL, &[("let c = cell(id);", forged), ("struct Params", helper)])).unwrap_err();
        assert!(error.to_string().contains("small.wgsl:"), "{forged}\n{error}");
    }
}

#[test]
fn tables_that_two_passes_write() {
    let toml = edited(
        TOML,
        &[
            ("[params]", "[buffers.total]\nelement = \"f32\"\nlength = 1\nreduce = \"sum\"\n[params]"),
            ("writes = [\"heat\"]", "writes = [\"heat\", \"total\"]"),
        ],
    );
    let toml =
        format!("{toml}[[passes]]\nkernel = \"small.wgsl\"\nentry = \"step\"\nreads = {{ heat = {{ halo = 1 }} }}\nwrites = [\"heat\", \"total\"]\n");
    let wgsl = edited(
        WGSL,
        &[
            ("var<uniform>", "var<storage, read_write> total_next: array<f32>;\nvar<uniform>"),
            ("    heat_next[c.index] =", "    total_next[partial(c, 0u)] = sum;\n    heat_next[c.index] ="),
        ],
    );
    assert_refused!(check(&toml, &wgsl).unwrap_err(), ErrorKind::Declaration { .. }, "`total` is written by `step` and by `step`", "use two tables");
}

/// A kernel with a table beside its field, of this element and reduction, that does `body` first.
fn with_table(element: &str, reduce: &str, body: &str) -> Result<Program, WorkloadError> {
    let scalar = element.trim_start_matches("atomic<").trim_end_matches('>');
    let toml = edited(
        TOML,
        &[
            ("[params]", &format!("[buffers.total]\nelement = \"{scalar}\"\nlength = 2\nreduce = \"{reduce}\"\n[params]")),
            ("writes = [\"heat\"]", "writes = [\"heat\", \"total\"]"),
        ],
    );
    let wgsl = edited(
        WGSL,
        &[
            ("var<uniform>", &format!("var<storage, read_write> total_next: array<{element}>;\nvar<uniform>")),
            ("    heat_next[c.index] =", &format!("    {body}\n    heat_next[c.index] =")),
        ],
    );
    check(&toml, &wgsl)
}

#[test]
fn shares_where_none_are_kept() {
    for stored in [
        "total_next[0]",
        "total_next[c.index]",
        "total_next[partial(c, 0u) + 1u]",
        "total_next[partial(Cell(c.inside, c.index, c.coord, c.local, c.extent, c.row, c.group), 0u)]",
    ] {
        let error = with_table("f32", "sum", &format!("{stored} = sum;")).unwrap_err();
        assert_refused!(error, ErrorKind::Wgsl { .. }, "small.wgsl:", "stores to `total` at another index", "total_next[partial(c, k)]");
    }
    let error = with_table("f32", "sum", "total_next[partial(c, 0u)] = 1.0; sum += total_next[partial(c, 1u)];").unwrap_err();
    assert_refused!(error, ErrorKind::Wgsl { .. }, "`step` reads its own share of `total`");
    for stored in
        ["total_next[partial(c, 1u)] = sum;", "let k = partial(c, 0u); if (c.inside) { total_next[k] = sum; } else { total_next[k] = 0.0; }"]
    {
        with_table("f32", "sum", stored).unwrap_or_else(|error| panic!("{stored}\n{error}"));
    }
}

#[test]
fn atomics_that_are_no_reduction() {
    let others = [
        "atomicOr(&total_next[0], 1u)",
        "atomicStore(&total_next[0], 1u)",
        "sum += f32(atomicLoad(&total_next[0]))",
        "atomicExchange(&total_next[0], 1u)",
    ];
    let own = [("sum", "atomicAdd"), ("min", "atomicMin"), ("max", "atomicMax")];
    for (reduce, operation) in own {
        let update = format!("{operation}(&total_next[0], 1u);");
        with_table("atomic<u32>", reduce, &update).unwrap_or_else(|error| panic!("{update}\n{error}"));
        with_table("atomic<u32>", reduce, &format!("{update} let k = c.coord.x % 2u; {operation}(&total_next[k], 3u);")).expect("several");
        let wrong = own.iter().filter(|(_, other)| *other != operation).map(|(_, other)| format!("{other}(&total_next[0], 1u)"));
        for other in wrong.chain(others.map(str::to_string)) {
            // Beside the right one, and alone; what is loaded alone is not written.
            let is_load = other.contains("atomicLoad");
            for body in [format!("{update} {other};"), format!("{other};")].into_iter().take(if is_load { 1 } else { 2 }) {
                let error = with_table("atomic<u32>", reduce, &body).unwrap_err();
                assert_refused!(error, ErrorKind::Wgsl { .. }, "small.wgsl:", &format!("than that of its reduction, `{reduce}`"), operation);
            }
        }
        let used = format!("sum += f32({operation}(&total_next[0], 1u));");
        for body in [used.clone(), format!("if (c.inside) {{ loop {{ {used} break; }} }}")] {
            let error = with_table("atomic<u32>", reduce, &body).unwrap_err();
            assert_refused!(error, ErrorKind::Wgsl { .. }, "small.wgsl:", "uses what an atomic operation on `total` returns");
        }
    }
    with_table("atomic<u32>", "sum", "atomicSub(&total_next[0], 1u);").expect("a summand");
}

#[test]
fn parameters_that_do_not_fit() {
    assert_refused!(toml_refusal("[params]\nrate = 0.5\n", ""), ErrorKind::Declaration { .. }, "`params.rate` has no value");
    assert_refused!(
        toml_refusal("rate = 0.5", "rate = 0.5\nraet = 1.0"),
        ErrorKind::Unknown { what: "parameter", .. },
        "workload.toml:8",
        "did you mean `rate`?"
    );
    assert_refused!(toml_refusal("rate = 0.5", "rate = \"fast\""), ErrorKind::Declaration { .. }, "workload.toml:8", "`params.rate` is a f32");
    for beyond in ["1e39", "-1e300", "inf", "nan"] {
        let refused = toml_refusal("rate = 0.5", &format!("rate = {beyond}"));
        assert_refused!(refused, ErrorKind::Declaration { .. }, "workload.toml:8", "`params.rate` is a f32");
    }
    assert_refused!(toml_refusal("rate = 0.5", "rate = [0.5]"), ErrorKind::Declaration { .. }, "workload.toml:8", "`params.rate` is a f32");
    let without = edited(WGSL, &[("var<uniform> params: Params;\n", ""), (" * params.rate", "")]);
    assert_refused!(check(TOML, &without).unwrap_err(), ErrorKind::Declaration { .. }, "workload.toml:8", "no kernel of the workload has parameters");
    let vector = edited(WGSL, &[("rate: f32", "rate: f32, wind: vec2<f32>")]);
    let short = edited(TOML, &[("rate = 0.5", "rate = 0.5\nwind = [1.0]")]);
    assert_refused!(check(&short, &vector).unwrap_err(), ErrorKind::Declaration { .. }, "takes 2 values, not 1");
    let program = check(TOML, WGSL).unwrap();
    let mut bytes = program.manifest.params.clone();
    assert_refused!(program.set_param(&mut bytes, "rat", "1").unwrap_err(), ErrorKind::Unknown { .. }, "did you mean `rate`?");
    assert_refused!(program.set_param(&mut bytes, "rate", "[").unwrap_err(), ErrorKind::Declaration { .. }, "not TOML");
    assert_refused!(program.set_param(&mut bytes, "rate", "true").unwrap_err(), ErrorKind::Declaration { .. }, "is a f32");
    assert_eq!(bytes, program.manifest.params);
}

#[test]
fn loops_that_never_end() {
    for body in [
        "loop { }",
        "loop { sum += 1.0; }",
        "while (true) { sum += 1.0; }",
        "for (;;) { sum += 1.0; }",
        "loop { loop { break; } }",
        "loop { switch 1 { case 1: { break; } default: { } } }",
        "loop { if (false) { break; } }",
        "loop { continuing { break if false; } }",
    ] {
        let error = wgsl_refusal("    heat_next[c.index] =", &format!("    {body}\n    heat_next[c.index] ="));
        assert_refused!(error, ErrorKind::EndlessLoop { .. } | ErrorKind::Wgsl { .. }, "small.wgsl:10:");
    }
    for body in ["loop { if (sum > 1.0) { break; } sum += 1.0; }", "while (sum < 1.0) { sum += 1.0; }", "loop { loop { return; } }"] {
        check(TOML, &edited(WGSL, &[("    heat_next[c.index] =", &format!("    {body}\n    heat_next[c.index] ="))])).unwrap();
    }
}

/// What the validator finds is told in words of WGSL.
#[test]
fn mistakes_of_types_and_indices() {
    let of = |text: &str| wgsl_refusal("    heat_next[c.index] =", &format!("    {text}\n    heat_next[c.index] =")).to_string();
    for (text, cause) in [
        ("var a: array<u32, 8>; a[9] = 1u;", "an index is beyond the end"),
        ("let v = c.coord.x + 1.0;", "`1u` goes with a `u32`"),
        ("let v = c.coord.x >> 33u;", "Shift amount exceeds the bit width of u32"),
        ("let v = c.coord.x + (2654435769u << 25u);", "overflow"),
        ("let v = c.index + sum;", "error"),
    ] {
        let told = of(text);
        assert!(told.contains(cause) && told.contains("small.wgsl:10:"), "{told}");
        for internal in ["naga", "Expression", "see msg", "Scalar {", "at Compute", "["] {
            assert!(!told.replace(text, "").contains(internal), "`{internal}`: {told}");
        }
    }
}

/// Texts that would cost a parser its stack or its evening.
#[test]
fn hostile_sources() {
    let line = |text: String| wgsl_refusal("    heat_next[c.index] =", &format!("    {text}\n    heat_next[c.index] ="));
    assert_refused!(check(TOML, &" ".repeat(10 << 20)).unwrap_err(), ErrorKind::TooLarge { .. }, "small.wgsl");
    assert_refused!(line(format!("sum = {}1.0{};", "(".repeat(10_000), ")".repeat(10_000))), ErrorKind::NestedTooDeep { .. }, "small.wgsl:10:");
    assert_refused!(line(format!("{}{}", "{".repeat(10_000), "}".repeat(10_000))), ErrorKind::NestedTooDeep { .. }, "small.wgsl:10:");
    assert_refused!(
        line(format!("var x: {}f32{};", "array<".repeat(10_000), ",1>".repeat(10_000))),
        ErrorKind::NestedTooDeep { .. },
        "small.wgsl:10:"
    );
    assert_refused!(line(format!("sum = 1.0{};", " + 1.0".repeat(17_000))), ErrorKind::TooComplex { .. }, "small.wgsl:10:", "operators");
    assert_refused!(line(format!("sum = {}1.0;", "- ".repeat(50_000))), ErrorKind::TooComplex { .. }, "small.wgsl:10:", "operators");
    assert_refused!(line(format!("sum = heat{};", "[0]".repeat(50_000))), ErrorKind::TooComplex { .. }, "small.wgsl:10:", "operators");
    assert_refused!(line("sum=1;".repeat(20_000)), ErrorKind::TooComplex { .. }, "small.wgsl:10:", "statements");
    assert_refused!(line(format!("if (true) {{ }} {}", "else if (true) { }".repeat(5_000))), ErrorKind::NestedTooDeep { .. }, "small.wgsl:10:");
    let chain = |count: usize, link: &dyn Fn(usize) -> String| check(TOML, &format!("{WGSL}{}", (0..count).map(link).collect::<String>()));
    for count in [250, 8_000] {
        let constants = chain(count, &|i| format!("const K{i} = {};\n", if i + 1 < count { format!("K{}", i + 1) } else { "1".into() }));
        let structs = chain(count, &|i| format!("struct S{i} {{ a: {} }}\n", if i > 0 { format!("S{}", i - 1) } else { "f32".into() }));
        let functions = chain(count, &|i| format!("fn f{i}_() {{ {} }}\n", if i + 1 < count { format!("f{}_();", i + 1) } else { String::new() }));
        for outcome in [constants, structs, functions] {
            match outcome {
                Ok(_) => assert_eq!(count, 250),
                Err(error) => {
                    assert_refused!(error, ErrorKind::TooComplex { what: "declarations" | "statements", .. } | ErrorKind::TooLarge { .. }, "at most")
                }
            }
        }
    }
    // A tree of calls that doubles at every level, and variables that stand for each other.
    let tree: String = (0..30)
        .map(|i| format!("fn f{i}_() -> f32 {{ return {}; }}\n", if i < 29 { format!("f{0}_() + f{0}_()", i + 1) } else { "1.0".into() }))
        .collect();
    let error = check(TOML, &edited(WGSL, &[("sum * params.rate", "sum * params.rate * f0_()"), ("struct", &format!("{tree}struct"))])).unwrap_err();
    assert_refused!(error, ErrorKind::TooComplex { what: "calls in one kernel", .. }, "small.wgsl:36:4", "at most 4096");
    let cycle = format!("var v = 0; {} sum = heat[at(c, v, 0, 0)];", "v = v; v = -v;".repeat(200));
    check(TOML, &edited(WGSL, &[("    heat_next[c.index] =", &format!("    {cycle}\n    heat_next[c.index] ="))])).unwrap();
    // As deep as is allowed: parsed and checked on any caller's stack.
    for nested in [format!("{}{}", "if (c.index > 3u) {".repeat(60), "}".repeat(60)), format!("sum = {}1.0{};", "abs(".repeat(60), ")".repeat(60))] {
        check(TOML, &edited(WGSL, &[("    heat_next[c.index] =", &format!("    {nested}\n    heat_next[c.index] ="))])).unwrap();
    }
}

#[test]
fn layouts_and_tables_that_are_too_much() {
    let nested = |levels: u32| {
        let arrays = |inner: String| (0..50).fold(inner, |inner, _| format!("array<{inner}, 1>"));
        let structs: String = (1..levels).map(|level| format!("struct S{level} {{ a: {} }}\n", arrays(format!("S{}", level - 1)))).collect();
        let toml = edited(TOML, &[("\"f32\"", &format!("\"S{}\"", levels - 1))]);
        let wgsl = WGSL.replace("array<f32>", &format!("array<S{}>", levels - 1));
        let wgsl = edited(
            &wgsl,
            &[("struct", &format!("struct S0 {{ a: f32 }}\n{structs}struct")), ("var sum =", "let all ="), ("sum * params.rate", "all")],
        );
        check(&toml, &wgsl)
    };
    nested(5).unwrap();
    assert_refused!(nested(7).unwrap_err(), ErrorKind::NestedTooDeep { depth: 308, limit: 255 }, "small.wgsl:");
    let long = edited(BODIES_TOML, &[("length = 3", "length = 16777216")]);
    check(&long, BODIES_WGSL).unwrap();
    let wide = edited(&long, &[("vec2<u32>", "array<u32, 64>")]);
    let edits = [("array<vec2<u32>>", "array<array<u32, 64>>"), ("= vec2<u32>(moved.marks[1].kinds[2], id.x)", "= array<u32, 64>()")];
    assert_refused!(check(&wide, &edited(BODIES_WGSL, &edits)).unwrap_err(), ErrorKind::Limit { needed: 4_294_967_296, .. }, "share of `most`");
}

#[test]
fn a_buffer_outside_storage_is_named() {
    let table = edited(
        TOML,
        &[("[params]", "[buffers.weights]\nelement = \"vec4<f32>\"\nlength = 4\n\n[params]"), ("reads = {", "reads = { weights = \"all\",")],
    );
    let uniform = edited(
        WGSL,
        &[
            ("var<uniform> params", "var<uniform> weights: array<vec4<f32>, 4>;\nvar<uniform> params"),
            ("sum * params", "sum * weights[1].x * params"),
        ],
    );
    assert_refused!(check(&table, &uniform).unwrap_err(), ErrorKind::Wgsl { .. }, "not in `storage`", "small.wgsl:4");
    let misspelt = edited(
        WGSL,
        &[
            ("var<storage, read> heat:", "var<storage, read> heta:"),
            ("heat_next:", "heta_next:"),
            ("= heat[", "= heta["),
            ("heat_next[", "heta_next["),
        ],
    );
    assert_refused!(check(TOML, &misspelt).unwrap_err(), ErrorKind::Declaration { .. }, "the WGSL has `heta`");
}
