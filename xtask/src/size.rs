//! What machine code costs in bytes: the release binary with its feature `jit`, and without.
//!
//! Invariant: both are built here and now, from this tree; the one with it is built last, and is what stays.

use crate::{run, say, web};

/// What the feature may add.
const GROWTH_BYTES_MAX: u64 = 15_000_000;

/// Builds both, and says whether the growth is within its limit.
pub(crate) fn compare() -> bool {
    let Some((without, with)) = build(&["--no-default-features"]).zip(build(&[])) else { return false };
    let growth = with.saturating_sub(without);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    say(format_args!(
        "without jit {:.2} MB, with jit {:.2} MB: {:.2} MB more, of {:.2} MB allowed",
        megabytes(without),
        megabytes(with),
        megabytes(growth),
        megabytes(GROWTH_BYTES_MAX)
    ));
    growth <= GROWTH_BYTES_MAX
}

/// Builds the release binary; its size.
fn build(features: &[&str]) -> Option<u64> {
    let built = run("cargo", &[&["build", "--release", "--package", "peercompute", "--bin", "peercompute"], features].concat());
    let program = web::target_folder()?.join("release").join(format!("peercompute{}", std::env::consts::EXE_SUFFIX));
    let size = std::fs::metadata(&program).map(|file| file.len());
    if let Err(error) = &size {
        eprintln!("error: {}: {error}", program.display());
    }
    size.ok().filter(|_| built)
}
