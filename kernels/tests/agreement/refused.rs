//! What must end in a typed error, soon, and leave everything else as it was: texts that would cost a parser its stack, a
//! compiler its memory or a driver its patience, and WGSL that not every GPU has.
#![allow(clippy::disallowed_methods, reason = "how long a refusal takes is part of it")]

use std::time::{Duration, Instant};

use peercompute_buffers::TileId;
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::{ExecutorError, Placement, Run};
use peercompute_kernels::{ErrorKind, VerifiedBundle};
use pollster::block_on;

use crate::machines::{Machines, bundle_of, compiled_first, cpu};

/// No refusal takes longer, in an unoptimised build on a busy machine.
const SOON: Duration = Duration::from_secs(10);

const TOML: &str = "name = \"bad\"\nversion = \"1.0.0\"\ngrid = { shape = [64], tile = [64] }\n[buffers.v]\nelement = \"u32\"\n[params]\nmost = 0\n\
                    [[passes]]\nkernel = \"k.wgsl\"\nentry = \"go\"\nreads = [\"v\"]\nwrites = [\"v\"]\n";

/// A kernel with these items before it, and this in its middle; it makes 7 of 0 if they do nothing.
fn kernel(items: &str, body: &str) -> String {
    format!(
        "{items}\nstruct Params {{ most: u32 }}\nvar<uniform> params: Params;\nvar<storage, read> v: array<u32>;\n\
         var<storage, read_write> v_next: array<u32>;\n@compute @workgroup_size(8) fn go(@builtin(global_invocation_id) id: vec3<u32>) {{\n\
         let c = cell(id);\nvar x = select(0u, v[c.index], c.inside);\n{body}\nif (c.inside) {{ v_next[c.index] = x + params.most + 7u; }}\n}}\n"
    )
}

/// Runs a pass over zeros; what it makes.
fn run(executor: &AnyExecutor, bundle: &VerifiedBundle, most: u32) -> Result<Vec<u8>, ExecutorError> {
    block_on(async {
        let mut run = executor.load(bundle, &Placement::alone(bundle.program())).await?;
        run.set_params(&most.to_le_bytes());
        run.write_tile(0, TileId(0), &[0; 256]);
        run.pass(0, 0).await?;
        let made = run.read_tile(0, TileId(0)).await?;
        run.finish().await?;
        Ok(made)
    })
}

/// What an executor makes of a good kernel is what it always was.
fn assert_unharmed(executor: &AnyExecutor) {
    let made = run(executor, &bundle_of(TOML, &kernel("", "")).unwrap(), 0).unwrap();
    assert_eq!(made, 7u32.to_le_bytes().repeat(64), "{:?}", executor.info());
}

fn assert_says(name: &str, error: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(error.contains(piece), "{name}: `{piece}` is not in\n{error}");
    }
}

/// Every text is refused before an executor sees it, with the place and these words.
fn assert_texts_refused(texts: &[(&str, String, &[&str])]) {
    for (name, text, pieces) in texts {
        let start = Instant::now();
        let error = bundle_of(TOML, text).err().unwrap_or_else(|| panic!("{name} is accepted"));
        assert!(start.elapsed() < SOON, "{name}: {:?}", start.elapsed());
        assert!(!matches!(*error.kind, ErrorKind::Unreadable { .. }));
        assert_says(name, &error.to_string(), pieces);
    }
}

#[test]
fn texts_without_measure() {
    let nested = |open: &str, close: &str| format!("{}x = 1u;{}", open.repeat(10_000), close.repeat(10_000));
    let doubling: String = (0..30).map(|at| format!("fn f{at}_(x: u32) -> u32 {{ return f{0}_(x) + f{0}_(x + 1u); }}\n", at + 1)).collect();
    assert_texts_refused(&[
        ("recursion", kernel("fn f(n: u32) -> u32 { return f(n + 1u); }", "x = f(x);"), &["k.wgsl:1:4", "`f` is recursive"]),
        (
            "mutual recursion",
            kernel("fn f(n: u32) -> u32 { return g(n); }\nfn g(n: u32) -> u32 { if (n > 3u) { return 1u; } return f(n); }", "x = f(x);"),
            &["k.wgsl:2:", "`f` is cyclic"],
        ),
        ("blocks", kernel("", &nested("{", "}")), &["k.wgsl:9:", "nested 65 deep", "at most 64"]),
        ("branches", kernel("", &nested("if (x > 1u) {", "}")), &["k.wgsl:9:", "nested 65 deep"]),
        ("parentheses", kernel("", &format!("x = {}x{};", "(".repeat(10_000), ")".repeat(10_000))), &["k.wgsl:9:", "nested 65 deep"]),
        ("additions", kernel("", &format!("x = x{};", "+1".repeat(100_000))), &["k.wgsl:9:", "operators in one expression", "at most 200"]),
        ("statements", kernel("", &"x=1;".repeat(20_000)), &["k.wgsl:9:", "statements: 4097, at most 4096"]),
        ("a long text", kernel("", &"x += 12345u;\n".repeat(30_000)), &["bytes", "at most 262144"]),
        ("calls", kernel(&format!("{doubling}fn f30_(x: u32) -> u32 {{ return x; }}"), "x = f0_(x);"), &["calls in one kernel", "at most 4096"]),
    ]);
}

/// Loops in loops are walked once for each thing that may change, not twice for each level.
#[test]
fn loops_as_deep_as_they_may_be() {
    let heads: String = (0..50).map(|at| format!("for (var k{at} = 0u; k{at} < x; k{at}++) {{ ")).collect();
    let breaks: String = (0..50).map(|at| format!("loop {{ if (x > {at}u) {{ break; }} ")).collect();
    let bodies = [format!("{heads}x++;{}", "}".repeat(50)), format!("{breaks}x++;{}", "if (x > 60u) { break; } }".repeat(50))];
    let machines = Machines::open();
    for body in bodies {
        let start = Instant::now();
        let bundle = bundle_of(TOML, &kernel("", &body)).unwrap_or_else(|error| panic!("{error}"));
        for executor in [&machines.compiled, &machines.interpreted] {
            run(executor, &bundle, 0).unwrap();
        }
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn memory_without_measure() {
    let own = ["k.wgsl:", "bytes, an invocation has 8192", "keep large arrays in a buffer"];
    assert_texts_refused(&[
        ("private", kernel("var<private> big: array<u32, 268435456>;", "big[x] = x; x = big[x + 1u];"), &own),
        ("of a function", kernel("", "var big: array<u32, 268435456>; big[x] = x; x = big[x + 1u];"), &own),
        ("in itself", kernel("", "var big: array<array<array<u32, 512>, 1024>, 512>; big[x][x][x] = x; x = big[x][1][x];"), &own),
        ("never indexed", kernel("", "var big: array<u32, 268435456>; big[1] = x; x = big[2];"), &own),
        ("a value", kernel("", "x = array<u32, 268435456>()[x];"), &own),
        ("a constant", kernel("const big = array<u32, 268435456>();", "x = big[x];"), &own),
        (
            "many",
            kernel("var<private> a: array<u32, 1500>;\nvar<private> b: array<u32, 1500>;", "a[x] = b[x]; b[x] = a[x + 1u]; x = b[x];"),
            &["k.wgsl:2:", "private variables take 12000 bytes"],
        ),
        (
            "handed on",
            kernel("struct Big { a: array<u32, 16000> }\nfn f(b: Big) -> u32 { return b.a[3]; }", "var b: Big; b.a[x] = x; x = f(b);"),
            &["take 64000 bytes"],
        ),
        (
            "beyond addresses",
            kernel("", "var big: array<array<u32, 268435456>, 268435456>; big[x][x] = x;"),
            &["an array has no layout: ", "limit of 1073741824 bytes"],
        ),
    ]);
}

/// What is too much for an executor is its error, with the limit's name.
#[test]
fn more_than_executors_have() {
    let sized = |size: &str| kernel("", "").replace("workgroup_size(8)", &format!("workgroup_size({size})"));
    let texts: [(&str, String, [&str; 2]); 3] = [
        (
            "workgroup memory",
            kernel("var<workgroup> big: array<u32, 268435456>;", "big[x] = x; x = big[x + 1u];"),
            ["1073741824", "max_compute_workgroup_storage_size"],
        ),
        ("a row", sized("1025"), ["1025", "max_compute_invocations_per_workgroup is 1024"]),
        ("a box", sized("41, 5, 5"), ["1025", "max_compute_invocations_per_workgroup is 1024"]),
    ];
    let machines = Machines::open();
    for (name, text, pieces) in texts {
        let start = Instant::now();
        let bundle = bundle_of(TOML, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for executor in [&machines.compiled, &machines.interpreted, &machines.gpu] {
            let error = run(executor, &bundle, 0).unwrap_err();
            assert!(matches!(error, ExecutorError::Limit { .. }), "{name}: {error}");
            assert_says(name, &error.to_string(), &pieces);
            assert_unharmed(executor);
        }
        assert!(start.elapsed() < SOON, "{name}: {:?}", start.elapsed());
    }
}

/// Functions that call functions twice, as often as is read: a kernel of many thousand values, or an error.
#[test]
fn texts_that_grow() {
    let steps: String = (0..60).map(|at| format!("y = (y ^ (y >> {}u)) * 77u + x; ", at % 31 + 1)).collect();
    let tree = |levels: usize, leaf: &str| {
        let calls: String = (0..levels).map(|at| format!("fn f{at}_(x: u32) -> u32 {{ return f{0}_(x) + f{0}_(x + {at}u); }}\n", at + 1)).collect();
        format!("{calls}fn f{levels}_(x: u32) -> u32 {{ {leaf} }}")
    };
    let many = "var m = mat4x4<f32>(); m[1][0] = f32(x); for (var k = 0u; k < x; k++) { m = m * m * m * m * m * m * m; } return u32(m[1][1]);";
    let (compiled, interpreted) =
        (cpu(CpuOptions { threads: Some(1), ..compiled_first() }), cpu(CpuOptions { is_interpreted: true, ..CpuOptions::default() }));
    for (text, is_too_large) in [(tree(8, &format!("var y = x; {steps} return y;")), false), (tree(11, many), true)] {
        let start = Instant::now();
        let bundle = bundle_of(TOML, &kernel(&text, "x = f0_(x);")).unwrap_or_else(|error| panic!("{error}"));
        for executor in [&compiled, &interpreted] {
            match run(executor, &bundle, 0) {
                Ok(_) => assert!(!is_too_large),
                Err(error) => {
                    assert!(is_too_large && matches!(error, ExecutorError::Kernel { .. }), "{error}");
                    assert_says("calls", &error.to_string(), &["refuses `go`", "line ", "the number of values with every call inlined"]);
                }
            }
            assert_unharmed(executor);
        }
        assert!(start.elapsed() < 3 * SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn long_kernels_load_soon() {
    let line = |at: usize, constant: usize| format!("x = (x ^ (x >> {}u)) * {}u + (x % {}u);\n", at % 31 + 1, constant + 12345, constant + 3);
    let long = |count: usize, constants: usize| (0..count).map(|at| line(at, at % constants)).collect::<String>();
    let compiled = cpu(CpuOptions { threads: Some(1), ..compiled_first() });
    for body in [long(1000, 1000), long(2000, 9)] {
        let bundle = bundle_of(TOML, &kernel("", &body)).unwrap_or_else(|error| panic!("{error}"));
        let start = Instant::now();
        run(&compiled, &bundle, 0).unwrap_or_else(|error| panic!("{error}"));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn wgsl_that_not_every_gpu_has() {
    let widths = ["k.wgsl:9:", "`f32`, `i32`, `u32` and `bool` alone", "pack2x16float"];
    let extension: [&str; 3] = ["k.wgsl:1:8", "enable-extension", "time_travel"];
    assert_texts_refused(&[
        ("f16", kernel("enable f16;", "x = u32(f16(x));"), &widths),
        ("f16 literal", kernel("enable f16;", "var h = 1.5h; x = u32(h);"), &["k.wgsl:", "alone"]),
        ("f16 vector", kernel("enable f16;", "let h = vec2<f16>(1.0h); x = u32(h.x);"), &widths),
        ("f16 in memory", kernel("enable f16;\nvar<workgroup> h: array<f16, 4>;", "h[x] = f16(x);"), &["k.wgsl:", "alone"]),
        ("f16 not enabled", kernel("", "x = u32(f16(x));"), &["k.wgsl:9:", "`f16`", "enable"]),
        ("64 bits", kernel("", "let y = u64(x); x = u32(y);"), &widths),
        ("a barrier of subgroups", kernel("enable subgroups;", "subgroupBarrier();"), &["k.wgsl:9:", "`subgroupBarrier` is no WGSL"]),
        ("an unknown extension", kernel("enable time_travel;", ""), &extension),
        ("an unknown feature", kernel("requires time_travel;", ""), &["k.wgsl:1:10", "time_travel"]),
        ("derivatives", kernel("", "x = u32(dpdx(f32(x)));"), &["k.wgsl:6:", "forbidden at this stage"]),
        ("discard", kernel("", "if (x > 3u) { discard; }"), &["k.wgsl:6:", "forbidden at this stage"]),
        ("two cases", kernel("", "switch x { case 1u: { } case 1u: { } default: { } }"), &["k.wgsl:6:", "Multiple `switch` cases"]),
        (
            "textures",
            kernel("var t: texture_2d<f32>;", "x = u32(textureLoad(t, vec2<i32>(0, 0), 0).x);"),
            &["k.wgsl:1:", "`t` is not a buffer", "no textures"],
        ),
        ("samplers", kernel("var t: sampler;", ""), &["k.wgsl:1:", "`t` is not a buffer"]),
        ("atomic floats", kernel("var<workgroup> a: atomic<f32>;", "atomicAdd(&a, 1.0);"), &["k.wgsl:", "FLOAT32_ATOMIC"]),
        ("private atomics", kernel("var<private> a: atomic<u32>;", "x = atomicLoad(&a);"), &["k.wgsl:1:", "'a' is invalid"]),
        ("immediates", kernel("var<immediate> a: u32;", "x = a;"), &["k.wgsl:1:", "IMMEDIATES"]),
    ]);
}

/// A kernel that does not end is stopped, wherever its loop stands, and only its own run ends.
#[test]
fn kernels_that_never_end() {
    let spins = [
        ("a loop", "", "while (params.most > 0u) { x++; }"),
        ("a loop without steps", "", "loop { if (params.most == 0u) { break; } }"),
        (
            "a loop of a function",
            "fn spin(n: u32) -> u32 { var k = n; loop { k = k * 3u + 1u; if (params.most == 0u) { return n; } if (k == 0u && params.most == 0u) { break; } } return k; }",
            "x = spin(x);",
        ),
        (
            "loops in loops",
            "",
            "for (var a = 0u; a < params.most; a++) { for (var b = 0u; b < params.most; b++) { for (var c = 0u; c < params.most; c++) { x += a ^ b ^ c; } } }",
        ),
        ("some invocations", "", "while (id.x % 8u == 5u && params.most > 0u) { x ^= 1u; }"),
        (
            "a loop with barriers",
            "var<workgroup> w: array<u32, 8>;",
            "while (params.most > 0u) { w[id.x % 8u] = x; workgroupBarrier(); x = w[(id.x + 1u) % 8u]; workgroupBarrier(); }",
        ),
    ];
    for is_interpreted in [false, true] {
        let executor = cpu(CpuOptions { threads: Some(2), is_interpreted, time_limit: Some(Duration::from_millis(100)), ..compiled_first() });
        for (name, items, body) in spins {
            let bundle = bundle_of(TOML, &kernel(items, body)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(run(&executor, &bundle, 0).unwrap()[0], 7, "{name}");
            let start = Instant::now();
            let error = run(&executor, &bundle, u32::MAX).unwrap_err();
            assert!(matches!(&error, ExecutorError::TimedOut { entry, .. } if entry == "go"), "{name}: {error}");
            assert!(start.elapsed() < SOON, "{name}: {:?}", start.elapsed());
            assert_unharmed(&executor);
        }
    }
}

/// naga's validator takes it and its SPIR-V writer does not: whatever the outcome, the process and its GPU go on.
#[test]
fn what_a_gpus_compiler_fails_on_is_the_kernels_error() {
    let items = "fn bump(v: ptr<function, vec3<u32>>) { (*v).y += 7u; }\nstruct Pair { a: vec3<u32>, b: u32 }";
    let bundle = bundle_of(TOML, &kernel(items, "var p = Pair(vec3<u32>(x), 1u); bump(&p.a); x = p.a.y;")).unwrap_or_else(|error| panic!("{error}"));
    let machines = Machines::open();
    let expected = 14u32.to_le_bytes().repeat(64);
    assert_eq!(run(&machines.compiled, &bundle, 0).unwrap(), expected);
    match run(&machines.gpu, &bundle, 0) {
        Ok(made) => assert_eq!(made, expected),
        Err(ExecutorError::Kernel { entry, cause, .. }) => {
            assert_eq!(entry, "go");
            assert_says("pointer to a part", &cause, &["its compiler for this adapter has failed", "the cpu executor may take it"]);
        }
        Err(other) => panic!("{other}"),
    }
    assert_unharmed(&machines.gpu);
}
