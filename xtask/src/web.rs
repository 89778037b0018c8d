//! PeerCompute for browsers: `target/web`, the npm package `peercompute`, for bundlers and for pages without one.
//!
//! ```text
//! package peercompute ─ cargo, wasm32-unknown-unknown ─► peercompute.wasm ─ wasm-bindgen ─► peercompute.js, _bg.wasm, .d.ts
//!                                                                                  split ─► peercompute_cpu.wasm
//! src/web/package ──────────────────────────────────────────────────────────────────────► index.js, worker.js, package.json …
//!                                                                    each also in Brotli ─► *.br
//! ```
//!
//! The standard library is built along, for size, from the sources that come with this toolchain (rustup) or with a second one
//! (Debian). Where neither is to be had, the target's own does, and the module is larger. Invariant: which way was taken is said.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, prints};
use crate::{run, say};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// Small rather than fast.
const PROFILE: &str = "web";
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
    let mut command = match way {
        Way::Sources => {
            say(format_args!("building for {TARGET}, and its standard library for size"));
            let mut command = Command::new("cargo");
            command.args(arguments).args(FOR_SIZE).env("RUSTC_BOOTSTRAP", "1");
            command
        }
        Way::Debian => {
            say(format_args!("building for {TARGET}, and its standard library for size, with Debian's toolchain"));
            let Some(linker) = lld() else {
                eprintln!("error: rustc's own rust-lld is missing");
                return false;
            };
            let mut command = Command::new("/usr/bin/cargo");
            command.args(arguments).args(FOR_SIZE);
            command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            // Set by rustup for what it starts, and not Debian's.
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            command
        }
        Way::Target => {
            say(format_args!("building for {TARGET}; without the sources of the standard library (rustup component add rust-src) the module is larger"));
            let mut command = Command::new("cargo");
            command.args(arguments);
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
    if let Err(error) = copy_package(&out) {
        eprintln!("error: {}: {error}", out.display());
        return false;
    }
    let [wasm, out] = [&wasm, &out].map(|path| path.to_string_lossy().into_owned());
    // Programs that are built from now on have the new package in them.
    run("cargo", &["run", "--quiet", "--package", "xtask", "--features", "glue", "--", "glue", &wasm, &out])
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

/// Makes the JavaScript beside a module, the module into two, and of all that browsers load a compressed copy.
#[cfg(feature = "glue")]
pub(crate) fn glue(wasm: &str, out: &str) -> bool {
    let made = wasm_bindgen_cli_support::Bindgen::new()
        .input_path(wasm)
        .omit_default_module_path(false)
        .web(true)
        .and_then(|bindgen| bindgen.typescript(true).generate(out));
    if let Err(error) = made {
        eprintln!("error: wasm-bindgen: {error:#}");
        return false;
    }
    match halve(Path::new(out)).and_then(|()| compress(Path::new(out))) {
        Ok([all, cpu]) => {
            say(format_args!("{out}: {all}; of that only where the cpu executor runs: {cpu}"));
            true
        }
        Err(error) => {
            eprintln!("error: {out}: {error}");
            false
        }
    }
}

/// What every tab loads, and what only the cpu executor needs.
#[cfg(feature = "glue")]
const HALVES: [&str; 2] = ["peercompute_bg.wasm", "peercompute_cpu.wasm"];

/// Makes two modules of the one.
#[cfg(feature = "glue")]
fn halve(out: &Path) -> std::io::Result<()> {
    let halves = HALVES.map(|name| out.join(name));
    let modules = crate::split::split(&std::fs::read(&halves[0])?).map_err(std::io::Error::other)?;
    halves.iter().zip(modules).try_for_each(|(path, module)| std::fs::write(path, module))
}

/// Bytes of files.
#[cfg(feature = "glue")]
#[derive(Clone, Copy, Default)]
struct Sizes {
    plain: usize,
    gzip: usize,
    brotli: usize,
}

#[cfg(feature = "glue")]
impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [plain, gzip, brotli] = [self.plain, self.gzip, self.brotli].map(|bytes| bytes as f64 / 1e6);
        write!(f, "{plain:.2} MB, {gzip:.2} MB in gzip, {brotli:.2} MB in Brotli")
    }
}

/// Writes a `.br` beside each file that browsers load, as servers of static files take it; returns the sizes of all of them, and
/// of what only the cpu executor needs, each compressed as well as it can be.
#[cfg(feature = "glue")]
fn compress(out: &Path) -> std::io::Result<[Sizes; 2]> {
    let [mut all, mut cpu] = [Sizes::default(); 2];
    for path in loaded(out)? {
        let content = std::fs::read(&path)?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &content)?;
        let params = brotli::enc::BrotliEncoderParams { size_hint: content.len(), ..Default::default() };
        let mut short = Vec::new();
        brotli::BrotliCompress(&mut &content[..], &mut short, &params)?;
        let own = Sizes { plain: content.len(), gzip: gzip.finish()?.len(), brotli: short.len() };
        all = Sizes { plain: all.plain + own.plain, gzip: all.gzip + own.gzip, brotli: all.brotli + own.brotli };
        if path.ends_with(HALVES[1]) {
            cpu = own;
        }
        let mut compressed = path.into_os_string();
        compressed.push(".br");
        std::fs::write(compressed, short)?;
    }
    Ok([all, cpu])
}

/// The modules and scripts of a package.
#[cfg(feature = "glue")]
fn loaded(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(loaded(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "wasm" || extension == "js") {
            all.push(path);
        }
    }
    Ok(all)
}

#[cfg(not(feature = "glue"))]
pub(crate) fn glue(_wasm: &str, _out: &str) -> bool {
    eprintln!("error: built without its feature `glue`");
    false
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
