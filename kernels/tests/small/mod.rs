//! Two small workloads, as text to be edited: a field with its halo and a parameter; structs, a table and vectors.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it")]

use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::{Manifest, Overrides, Program, WorkloadError};

pub(crate) const TOML: &str = r#"name = "small"
version = "1.2.0"
grid = { shape = [8, 8], tile = [4, 4] }

[buffers.heat]
element = "f32"

[params]
rate = 0.5

[[passes]]
kernel = "small.wgsl"
entry = "step"
reads = { heat = { halo = 1 } }
writes = ["heat"]
"#;

pub(crate) const WGSL: &str = "struct Params { rate: f32 }
var<storage, read> heat: array<f32>;
var<storage, read_write> heat_next: array<f32>;
var<uniform> params: Params;
@compute @workgroup_size(4, 4)
fn step(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    var sum = heat[at(c, 1, 0, 0)];
    heat_next[c.index] = sum * params.rate;
}
";

pub(crate) fn manifest(toml: &str, wgsl: &str) -> Result<Manifest, WorkloadError> {
    let declaration = Declaration::parse(toml, &Overrides::default())?;
    Manifest::new(&declaration, &[("small.wgsl".to_string(), wgsl.to_string())].into())
}

pub(crate) fn check(toml: &str, wgsl: &str) -> Result<Program, WorkloadError> {
    Program::check(manifest(toml, wgsl)?)
}

/// The small workload with edits, each of which must find its text.
pub(crate) fn edited(base: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(base.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in\n{text}");
        text.replacen(from, to, 1)
    })
}

pub(crate) const BODIES_TOML: &str = r#"name = "bodies"
version = "1.0.0"
grid = { shape = [64], tile = [32] }

[buffers.body]
element = "Body"

[buffers.most]
element = "vec2<u32>"
length = 3
reduce = "max"

[params]
step = 0.25
wind = [0.5, 1.0]
turn = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

[[passes]]
kernel = "small.wgsl"
entry = "drift"
writes = ["body", "most"]
"#;

pub(crate) const BODIES_WGSL: &str = "struct Params { step: f32, wind: vec2<f32>, turn: mat2x3<f32> }
struct Mark { kinds: array<u32, 3>, weight: f32 }
struct Body { at: vec2<f32>, marks: array<Mark, 2>, mass: f32 }
var<storage, read> body: array<Body>;
var<storage, read_write> body_next: array<Body>;
var<storage, read_write> most_next: array<vec2<u32>>;
var<uniform> params: Params;
@compute @workgroup_size(32)
fn drift(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = cell(id);
    if (!c.inside) { return; }
    var moved = body[c.index];
    moved.at += params.step * params.wind * params.turn[0].xy;
    moved.marks[1].kinds[2] += 1u;
    body_next[c.index] = moved;
    if (lane < 3u) { most_next[partial(c, lane)] = vec2<u32>(moved.marks[1].kinds[2], id.x); }
}
";
