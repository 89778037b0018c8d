//! Two clusters of stars from Rust: make the bodies here, run the kernels, read typed values back.
//!
//! `cargo run --release --example host-types`. The Rust struct below is compared field by field with
//! the WGSL element; take a field out and the error says what to put in.

use std::path::Path;

use peercompute::keys;
use peercompute::launch::{self, ExecutorOptions};
use peercompute::node::{Task, run_alone};
use peercompute_buffers::view::{bytes_of, view};
use peercompute_kernels::Overrides;
use peercompute_kernels::executor::any::Choice;

/// A body as `vec4<f32>` holds it: position, and mass in the last lane.
type Body = [f32; 4];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new("shaders/physics/nbody");
    let bundle = keys::open(folder, &Overrides { shapes: vec![(None, vec![1024])], ..Overrides::default() }, &[])?;
    let program = bundle.program();
    let body = program.buffer("body").ok_or("the workload has no bodies")?;
    let element = &program.elements[body];

    // Two rings that face each other.
    let bodies: Vec<Body> = (0..1024)
        .map(|index| {
            let angle = index as f32 * std::f32::consts::TAU / 512.0;
            let side = if index < 512 { -1.5 } else { 1.5 };
            [side, angle.cos(), angle.sin(), 1.0 / 1024.0]
        })
        .collect();
    let velocity = program.buffer("velocity").ok_or("the workload has no velocities")?;
    let at_rest = vec![[0.0f32; 4]; 1024];
    let imports = vec![(body, bytes_of(element, &bodies)?.to_vec()), (velocity, bytes_of(&program.elements[velocity], &at_rest)?.to_vec())];

    let executor = launch::open_executor(&Choice::Auto, ExecutorOptions::default())?;
    let task = Task { ticks: 200, imports, gather: vec![body], ..Task::default() };
    let outcome = pollster::block_on(run_alone(&executor, &bundle, &task, &mut |_| {}))?;
    let (_, bytes) = outcome.gathered.first().ok_or("nothing was gathered")?;
    let after = view::<Body>(element, bytes)?;
    let gap = |bodies: &[Body]| bodies[512..].iter().map(|b| b[0]).sum::<f32>() / 512.0 - bodies[..512].iter().map(|b| b[0]).sum::<f32>() / 512.0;
    writeln(format!("the rings were {:.3} apart, after {} ticks {:.3} ({})", gap(&bodies), task.ticks, gap(&after), executor.info().adapter));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "an example speaks to a person")]
fn writeln(text: String) {
    println!("{text}");
}
