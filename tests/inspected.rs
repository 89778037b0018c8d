//! Small runs, watched: what is wrong is found and named, and what ships with the framework is not wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::path::Path;

use peercompute::inspect::{Observed, inspect, open_small};
use peercompute_kernels::Overrides;

const DECLARATION: &str = r#"
name = "watched"
version = "1.0.0"
grid = { shape = [96, 64], tile = [32, 32] }

[buffers.a]
element = "u32"

[[passes]]
kernel = "watched.wgsl"
entry = "step_on"
reads = { a = "own" }
writes = ["a"]
"#;

const HEAD: &str = "var<storage, read> a: array<u32>;
var<storage, read_write> a_next: array<u32>;
var<workgroup> slots: array<u32, 64>;
";

/// What is found in a kernel whose body is `body`; its first line is line 6 of the file.
fn found(body: &str) -> Vec<Observed> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("workload.toml"), DECLARATION).unwrap();
    let attributes = "@compute @workgroup_size(8, 8)";
    let arguments = "@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32";
    let text = format!("{HEAD}{attributes}\nfn step_on({arguments}) {{\n{body}\n}}\n");
    std::fs::write(folder.path().join("watched.wgsl"), text).unwrap();
    inspect(&open_small(folder.path(), &Overrides::default(), &[]).unwrap(), 1).unwrap()
}

const GOOD: &str = "let c = cell(id);
var own = 0u; if (c.inside) { own = a[c.index]; } slots[lane] = own;
workgroupBarrier();
let next = slots[(lane + 1u) % 64u];
if (c.inside) { a_next[c.index] = next; }";

#[test]
fn a_missing_barrier_is_a_race_with_both_lines() {
    assert_eq!(found(GOOD), []);
    let races = found(&GOOD.replace("workgroupBarrier();", ""));
    let race = races.iter().find(|race| race.kind == "race").unwrap();
    assert_eq!((race.kernel.as_str(), race.entry.as_str(), race.buffer.as_str()), ("watched.wgsl", "step_on", "slots"));
    let lines = [race.line, race.other.unwrap().1];
    assert!(lines == [9, 7] || lines == [7, 9], "{race:?}");
    assert_ne!(race.invocation, race.other.unwrap().0);
}

#[test]
fn a_word_that_all_add_to_is_a_race_unless_it_is_atomic() {
    let plain = "let c = cell(id);\nlet sum = &slots[3];\n*sum += lane;\nworkgroupBarrier();\nif (c.inside) { a_next[c.index] = *sum; }";
    let is_at = |races: &[Observed], buffer: &str, element: &str| {
        let found = |race: &Observed| (race.kind, race.line, race.buffer.as_str(), race.element.as_str()) == ("race", 8, buffer, element);
        races.iter().any(found)
    };
    assert!(is_at(&found(plain), "slots", "3"));
    let behind = |of: &str, ty: &str| {
        format!("{}\n}}\nstruct Pair {{ x: u32, y: u32 }}\nvar<workgroup> behind: {ty};\nfn unused() {{", plain.replace("slots[3]", of))
    };
    assert!(is_at(&found(&behind("behind", "u32")), "behind", ""));
    assert!(is_at(&found(&behind("behind[2].y", "array<Pair, 4>")), "behind", "2"));
    let atomic = plain.replace("&slots[3]", "&total").replace("*sum += lane", "atomicAdd(sum, lane)").replace("= *sum", "= atomicLoad(sum)");
    assert_eq!(found(&format!("{atomic}\n}}\nvar<workgroup> total: atomic<u32>;\nfn unused() {{")), []);
}

#[test]
fn reading_where_there_is_no_element_is_named() {
    let bounds = found("let c = cell(id);\nlet own = a[c.index];\nif (c.inside) { a_next[c.index] = own; }");
    assert!(bounds.iter().all(|bound| bound.kind == "bounds" && bound.line == 7 && bound.buffer == "a"), "{bounds:?}");
    assert_eq!(bounds.len(), 1);
}

#[test]
fn an_index_beyond_its_array_is_named() {
    let bounds = found(&GOOD.replace("(lane + 1u) % 64u", "lane + 1u"));
    let [bound] = &bounds[..] else { panic!("{bounds:?}") };
    assert_eq!((bound.kind, bound.line, bound.element.as_str()), ("bounds", 9, "64 of 64"));
    // What is only computed where it holds is not asked for elsewhere.
    assert_eq!(found(&GOOD.replace("slots[(lane + 1u) % 64u];", "0u;\nif (lane < 63u) { slots[lane] += slots[lane + 1u]; }"))[0].kind, "race");
}

#[test]
fn shipped_workloads_have_no_findings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for folder in ["shaders/physics", "shaders/worldgen", "shaders/image", "examples"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("workload.toml").is_file() {
                let findings = inspect(&open_small(&path, &Overrides::default(), &[]).unwrap(), 1).unwrap();
                assert_eq!(findings, [], "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "only {seen} workloads were found");
}
