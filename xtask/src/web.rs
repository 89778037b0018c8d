//! PeerCompute for browsers: `target/web`, the npm package `peercompute`, for bundlers and for pages without one.
//!
//! ```text
//! package peercompute ─ cargo, wasm32-unknown-unknown ─► peercompute.wasm ─ wasm-bindgen ─► peercompute.js, _bg.wasm, .d.ts
//!                                                                                  split ─► peercompute_cpu.wasm
//! src/web/package ──────────────────────────────────────────────────────────────────────► index.js, worker.js, package.json …
//!                                                                    each also in Brotli ─► *.br
//! ```
//!
//! The standard library is built along, for size, from its sources, which rustup adds to this toolchain. Where it cannot, but has the
//! target, that one's library does, and the module is larger; where it has neither, Debian brings a second toolchain with the sources.
//! Invariant: which way was taken is said.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, prints};
use crate::{run, say};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// Small rather than fast.
const PROFILE: &str = "web";
/// What every tab loads, in gzip; where the cpu executor runs, more comes.
const BYTES_MAX: usize = 900_000;
/// Debian's toolchain that can build the standard library.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Has the standard library built along: of its sorts, searches and texts the smaller ones.
const FOR_SIZE: [&str; 2] = ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"];

/// How the target can be built here.
enum Way {
    /// With the standard library, from this toolchain's sources.
    Sources,
    /// With the standard library, by Debian's second toolchain.
    Debian,
    /// For the standard library that the toolchain has for the target.
    Target,
}

/// Builds the package.
pub(crate) fn build() -> bool {
    let Some(way) = way() else {
        eprintln!(
            "error: no way to build for {TARGET}\n  help: rustup component add rust-src\n        \
             or, on Debian: apt-get install {}",
            PACKAGES.join(" ")
        );
        return false;
    };
    let Some(target) = target_folder() else {
        eprintln!("error: cargo metadata names no target folder");
        return false;
    };
    // Toolchains never share a folder with each other's standard libraries.
    let folder = target.join("web-build");
    let arguments = ["rustc", "--profile", PROFILE, "--package", "peercompute", "--lib", "--crate-type", "cdylib", "--target", TARGET];
    say(match way {
        Way::Sources => format!("building for {TARGET}, and its standard library for size"),
        Way::Debian => format!("building for {TARGET}, and its standard library for size, with Debian's toolchain"),
        Way::Target => format!("building for {TARGET}; without the library's sources (rustup component add rust-src) the module is larger"),
    });
    let mut command = Command::new(if matches!(way, Way::Debian) { "/usr/bin/cargo" } else { "cargo" });
    command.args(arguments);
    if !matches!(way, Way::Target) {
        // What asks for it is not stable yet.
        command.args(FOR_SIZE).env("RUSTC_BOOTSTRAP", "1");
    }
    if matches!(way, Way::Debian) {
        let Some(linker) = lld() else {
            eprintln!("error: rustc's own rust-lld is missing");
            return false;
        };
        command.env("RUSTC", "/usr/bin/rustc").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        // Set by rustup for what it starts, and not Debian's.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    }
    command.arg("--target-dir").arg(&folder);
    if !command.status().is_ok_and(|status| status.success()) {
        eprintln!("error: the build for {TARGET} failed");
        return false;
    }
    let wasm = folder.join(TARGET).join(PROFILE).join("peercompute.wasm");
    let out = target.join("web");
    if let Err(error) = copy_package(&out) {
        eprintln!("error: {}: {error}", out.display());
        return false;
    }
    let [wasm, out] = [&wasm, &out].map(|path| path.to_string_lossy().into_owned());
    // What is not built for size is not held against it.
    let limit = if matches!(way, Way::Target) { usize::MAX } else { BYTES_MAX }.to_string();
    // Programs that are built from now on have the new package in them.
    run("cargo", &["run", "--quiet", "--package", "xtask", "--features", "glue", "--", "glue", &wasm, &out, &limit])
        && std::fs::write(target.join("web.stamp"), "").inspect_err(|error| eprintln!("error: web.stamp: {error}")).is_ok()
}

/// What of the package is written by hand.
const PACKAGE: [(&str, &str); 6] = [
    ("package.json", include_str!("../../src/web/package/package.json")),
    ("index.js", include_str!("../../src/web/package/index.js")),
    ("index.d.ts", include_str!("../../src/web/package/index.d.ts")),
    ("identity.js", include_str!("../../src/web/package/identity.js")),
    ("worker.js", include_str!("../../src/web/package/worker.js")),
    ("README.md", include_str!("../../src/web/package/README.md")),
];

/// Puts it there, in place of what an earlier build has left.
fn copy_package(out: &Path) -> std::io::Result<()> {
    if out.exists() {
        std::fs::remove_dir_all(out)?;
    }
    std::fs::create_dir_all(out)?;
    for (name, content) in PACKAGE {
        let content = content.replace("VERSION", env!("CARGO_PKG_VERSION")).replace("REPOSITORY", env!("CARGO_PKG_REPOSITORY"));
        std::fs::write(out.join(name), content)?;
    }
    Ok(())
}

/// Finds a way, or makes one.
fn way() -> Option<Way> {
    let has_rustup = prints("rustup", &["--version"]).is_some();
    if has_sources() || has_rustup && run("rustup", &["component", "add", "rust-src"]) && has_sources() {
        return Some(Way::Sources);
    }
    if has_target() || has_rustup && run("rustup", &["target", "add", TARGET]) && has_target() {
        return Some(Way::Target);
    }
    let is_there = || Path::new("/usr/bin/cargo").exists() && std::fs::read_dir("/usr/src").is_ok_and(|mut all| all.any(|entry| is_rust(entry.ok())));
    if !is_there() {
        setup::install(&PACKAGES);
    }
    is_there().then_some(Way::Debian)
}

/// Whether the sources of the toolchain's standard library are there.
fn has_sources() -> bool {
    sysroot().is_some_and(|root| root.join("lib/rustlib/src/rust/library/Cargo.lock").exists())
}

fn is_rust(entry: Option<std::fs::DirEntry>) -> bool {
    entry.is_some_and(|entry| entry.file_name().to_string_lossy().starts_with("rustc-"))
}

/// Whether the toolchain's sysroot holds the target's standard library.
pub(crate) fn has_target() -> bool {
    sysroot().is_some_and(|root| root.join("lib/rustlib").join(TARGET).join("lib").exists())
}

fn sysroot() -> Option<PathBuf> {
    prints("rustc", &["--print", "sysroot"]).map(PathBuf::from)
}

/// The linker in rustup's toolchain; Debian's is too old.
fn lld() -> Option<PathBuf> {
    let version = prints("rustc", &["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "))?.to_string();
    Some(sysroot()?.join("lib/rustlib").join(host).join("bin/rust-lld")).filter(|path| path.exists())
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> Option<PathBuf> {
    let metadata = prints("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let (_, rest) = metadata.split_once("\"target_directory\":\"")?;
    Some(PathBuf::from(rest.split_once('"')?.0))
}
