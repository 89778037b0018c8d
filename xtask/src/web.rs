//! PeerCompute for browsers: `target/web`, an ES module with its WebAssembly and its types.
//!
//! ```text
//! package peercompute ─ cargo, wasm32-unknown-unknown ─► peercompute.wasm ─ wasm-bindgen ─► peercompute.js, _bg.wasm, .d.ts
//! ```
//!
//! rustup's toolchain takes the target with one command. Where that download is not to be had, Debian brings a second
//! toolchain with the sources of the standard library, which is then built along. Invariant: which way was taken is said.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, prints};
use crate::{run, say};

const TARGET: &str = "wasm32-unknown-unknown";
/// Small rather than fast.
const PROFILE: &str = "web";
/// Debian's toolchain that can build the standard library.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// How the target can be built here.
enum Way {
    /// The toolchain has it.
    Target,
    /// Debian's second toolchain builds the standard library too.
    Std,
}

/// Builds the package.
pub(crate) fn build() -> bool {
    let Some(way) = way() else {
        eprintln!(
            "error: no way to build for {TARGET}\n  help: rustup target add {TARGET}\n        \
             or, on Debian: apt-get install {}",
            PACKAGES.join(" ")
        );
        return false;
    };
    let Some(target) = target_folder() else {
        eprintln!("error: cargo metadata names no target folder");
        return false;
    };
    // Both toolchains never share a folder: their standard libraries differ.
    let folder = target.join("web-build");
    let arguments = ["rustc", "--profile", PROFILE, "--package", "peercompute", "--lib", "--crate-type", "cdylib", "--target", TARGET];
    let mut command = match way {
        Way::Target => {
            say(format_args!("building for {TARGET} with this toolchain"));
            let mut command = Command::new("cargo");
            command.args(arguments);
            command
        }
        Way::Std => {
            say(format_args!("building for {TARGET} and its standard library with Debian's toolchain"));
            let Some(linker) = lld() else {
                eprintln!("error: rustc's own rust-lld is missing");
                return false;
            };
            let mut command = Command::new("/usr/bin/cargo");
            command.args(arguments).arg("-Zbuild-std=std,panic_abort");
            command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            // Set by rustup for what it starts, and not Debian's.
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            command
        }
    };
    command.arg("--target-dir").arg(&folder);
    if !command.status().is_ok_and(|status| status.success()) {
        eprintln!("error: the build for {TARGET} failed");
        return false;
    }
    let wasm = folder.join(TARGET).join(PROFILE).join("peercompute.wasm");
    let out = target.join("web");
    let [wasm, out] = [&wasm, &out].map(|path| path.to_string_lossy().into_owned());
    run("cargo", &["run", "--quiet", "--package", "xtask", "--features", "glue", "--", "glue", &wasm, &out])
}

/// Makes the JavaScript beside a module.
#[cfg(feature = "glue")]
pub(crate) fn glue(wasm: &str, out: &str) -> bool {
    let made = wasm_bindgen_cli_support::Bindgen::new()
        .input_path(wasm)
        .remove_name_section(true)
        .web(true)
        .and_then(|bindgen| bindgen.typescript(true).generate(out));
    match made {
        Ok(()) => {
            let bytes = std::fs::metadata(Path::new(out).join("peercompute_bg.wasm")).map_or(0, |file| file.len());
            say(format_args!("{out}: {:.1} MB of WebAssembly", bytes as f64 / 1e6));
            true
        }
        Err(error) => {
            eprintln!("error: wasm-bindgen: {error:#}");
            false
        }
    }
}

#[cfg(not(feature = "glue"))]
pub(crate) fn glue(_wasm: &str, _out: &str) -> bool {
    eprintln!("error: built without its feature `glue`");
    false
}

/// Finds a way, or makes one.
fn way() -> Option<Way> {
    if has_target() {
        return Some(Way::Target);
    }
    if prints("rustup", &["--version"]).is_some() && run("rustup", &["target", "add", TARGET]) && has_target() {
        return Some(Way::Target);
    }
    let is_there = || Path::new("/usr/bin/cargo").exists() && std::fs::read_dir("/usr/src").is_ok_and(|mut all| all.any(|entry| is_rust(entry.ok())));
    if !is_there() {
        setup::install(&PACKAGES);
    }
    is_there().then_some(Way::Std)
}

fn is_rust(entry: Option<std::fs::DirEntry>) -> bool {
    entry.is_some_and(|entry| entry.file_name().to_string_lossy().starts_with("rustc-"))
}

/// Whether the toolchain's sysroot holds the target's standard library.
fn has_target() -> bool {
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
