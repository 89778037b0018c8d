//! What does not fit an executor is refused before anything runs, by the limit's name.

use crate::cases::{Kind, bundle_of};
use crate::executors::refusal;

const TOML: &str = r#"
name = "large"
version = "0.1.0"
class = "exact"
grid = { shape = [64, 64], tile = [32, 32] }
[buffers.v]
element = "u32"
[[passes]]
kernel = "k.wgsl"
entry = "step"
writes = ["v"]
"#;

fn wgsl(workgroup: &str, shared: u32) -> String {
    format!(
        "var<storage, read_write> v_next: array<u32>;
var<workgroup> shared_words: array<u32, {shared}>;
@compute @workgroup_size({workgroup}) fn step(@builtin(global_invocation_id) id: vec3<u32>) {{
    let c = cell(id);
    shared_words[id.x % {shared}u] = id.y;
    if (!c.inside) {{ return; }}
    v_next[c.index] = shared_words[0];
}}"
    )
}

pub(crate) fn what_does_not_fit_is_named(kind: Kind) {
    let load = |workgroup: &str, shared: u32, page_bytes_max| refusal(kind, page_bytes_max, &bundle_of(TOML, &wgsl(workgroup, shared)));
    let check = |refused: Option<String>, names: &[&str]| {
        let text = refused.unwrap();
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    };
    check(load("64, 32", 16, None), &["`large` does not fit", "`step`", "2048", "max_compute_invocations_per_workgroup"]);
    check(load("8, 8", 1 << 20, None), &["bytes of workgroup memory of `step`", "4194304", "max_compute_workgroup_storage_size"]);
    check(load("8, 8", 16, Some(1024)), &["`large` does not fit", "one tile", "4096"]);
    assert!(load("8, 8", 16, None).is_none());
}
