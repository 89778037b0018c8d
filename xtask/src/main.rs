//! The project's only tooling: `cargo xtask setup | lint | web | size | test | sim | ci`.
//!
//! ```text
//! setup   what the machine lacks: a Vulkan driver and a browser for the tests, cargo-nextest
//! lint    cargo fmt --check, cargo clippy -D warnings, cargo deny where it is installed
//! web     the package for browsers, in target/web
//! size    how much the compiler of kernels adds to the release binary
//! test    what is missing, the package for browsers, every test, and one line that counts them
//! sim     many seeds of a run whose peers come and go, on virtual time
//! ci      lint, then test: all that CI runs
//! ```
//!
//! Invariant: nothing is left out silently. What cannot be done here is named, with what to do about
//! it, and what fails ends in an exit code that is not 0.

#[cfg(feature = "glue")]
mod glue;
mod setup;
mod size;
#[cfg(feature = "glue")]
mod split;
mod test;
mod types;
mod web;

use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask <command>

  setup          install what the tests need: a Vulkan driver, a browser, cargo-nextest
  lint           cargo fmt --check, cargo clippy, cargo deny
  web            build the package for browsers into target/web
  size           build the release binary with and without its feature `jit`, and compare
  test [ARGS…]   set up and run every test; ARGS go to the test runner
  sim [ARGS…]    simulate peers that come and go: --seeds N, --peers N, --seed N --trace
  ci             lint, then test";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        return usage();
    };
    let is_fine = match (command.as_str(), rest) {
        ("setup", []) => setup::everything(),
        ("lint", []) => lint(),
        ("test", args) => test::run(args),
        ("web", []) => web::build(),
        ("size", []) => size::compare(),
        ("sim", args) => sim(args),
        #[cfg(feature = "glue")]
        ("glue", [wasm, out, limit]) => glue::make(wasm, out, limit),
        ("ci", []) => {
            // Both are run, so that one report says all.
            let lint_is_fine = lint();
            test::run(&[]) && lint_is_fine
        }
        ("help" | "--help" | "-h", _) => {
            say(USAGE);
            true
        }
        _ => return usage(),
    };
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn lint() -> bool {
    let mut is_fine = true;
    if has(&["fmt", "--version"]) {
        is_fine &= run("cargo", &["fmt", "--all", "--check"]);
    } else {
        say("skipped: cargo fmt is not installed (rustup component add rustfmt)");
    }
    if has(&["clippy", "--version"]) {
        is_fine &= run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    } else {
        say("skipped: cargo clippy is not installed (rustup component add clippy)");
    }
    if web::has_target() {
        is_fine &= run("cargo", &["clippy", "--package", "peercompute", "--lib", "--target", web::TARGET, "--", "-D", "warnings"]);
    } else {
        say(format_args!("skipped: what browsers run, without {} (rustup target add {0})", web::TARGET));
    }
    if has(&["deny", "--version"]) {
        is_fine &= run("cargo", &["deny", "check"]);
    } else {
        say("skipped: cargo deny is not installed (cargo install --locked cargo-deny)");
    }
    is_fine
}

/// Runs the simulator's seeds; the program names what fails.
fn sim(args: &[String]) -> bool {
    let churn = ["run", "--release", "-p", "peercompute-net", "--example", "churn", "--"];
    run("cargo", &[&churn[..], &args.iter().map(String::as_str).collect::<Vec<_>>()].concat())
}

/// Whether cargo has a subcommand.
fn has(args: &[&str]) -> bool {
    Command::new("cargo").args(args).output().is_ok_and(|output| output.status.success())
}

/// Runs a program with our own standard streams; says what it runs, and what went wrong.
fn run(program: &str, args: &[&str]) -> bool {
    say(format_args!("$ {program} {}", args.join(" ")));
    match Command::new(program).args(args).status() {
        Ok(status) if status.success() => true,
        Ok(status) => {
            eprintln!("error: {program} {}: {status}", args.join(" "));
            false
        }
        Err(error) => {
            eprintln!("error: cannot start {program}: {error}");
            false
        }
    }
}

/// A line for people.
#[allow(clippy::print_stdout, reason = "this is what the tooling is for")]
fn say(text: impl std::fmt::Display) {
    println!("{text}");
}
