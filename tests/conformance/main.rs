//! The suite of every executor once more, in a real browser: the functions are those of `kernels/tests/conformance`, word for
//! word, and run on what `Executor.open` gives there: machine code, the interpreter, and WebGPU.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds. One browser does a kind's whole suite.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

#[macro_use]
#[path = "../../kernels/tests/conformance/list.rs"]
mod list;

#[path = "../../kernels/tests/conformance/cases.rs"]
mod cases;
mod executors;
#[path = "../../kernels/tests/conformance/features.rs"]
mod features;
#[path = "../../kernels/tests/conformance/limits.rs"]
mod limits;
#[path = "../../kernels/tests/conformance/executors.rs"]
mod native;
#[path = "../../kernels/tests/conformance/oracle/mod.rs"]
mod oracle;
#[path = "../../kernels/tests/conformance/workloads.rs"]
mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cases::Kind;
use executors::in_a_browser;

macro_rules! named {
    ($($file:ident :: $test:ident),* $(,)?) => {
        [$((stringify!($file), stringify!($test), crate::$file::$test as fn(Kind))),*]
    };
}

/// Runs what is wanted of the suite in one browser, and tells of all that fails.
fn check(kind: Kind, is_wanted: impl Fn(&str, &str) -> bool) {
    let tests = every_test!(named);
    let wanted = tests.iter().filter(|(file, test, _)| is_wanted(file, test));
    let failed: Vec<&str> =
        in_a_browser(|| wanted.filter(|(_, _, run)| catch_unwind(AssertUnwindSafe(|| run(kind))).is_err()).map(|(_, test, _)| *test).collect());
    assert!(failed.is_empty(), "{kind:?}: {}", failed.join(", "));
}

/// What is held against the native executor byte for byte needs no oracles of its own: that one has met them.
fn is_new(_: &str, test: &str) -> bool {
    test != "results_are_the_oracles"
}

#[test]
fn machine_code() {
    check(Kind::Cpu, is_new);
}

#[test]
fn interpreter() {
    check(Kind::Interpreted, is_new);
}

#[test]
fn webgpu() {
    check(Kind::Gpu, |file, _| file != "workloads");
}
