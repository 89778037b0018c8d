//! Puts the package for browsers into the program, where `cargo xtask web` has built it before.
//!
//! Without it the program is whole but for the page of `serve`, which then says how to get it. `cargo xtask web` touches the
//! file `web.stamp` beside the package, so that the next build takes the new one.

use std::fmt::Write;
use std::path::{Path, PathBuf};

const STAMP: &str = "web.stamp";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let mut list = String::new();
    // The package does not hold itself.
    if variable("CARGO_CFG_TARGET_ARCH") != "wasm32"
        && let Some(target) = target_folder(&out, &variable("TARGET"))
    {
        let stamp = target.join(STAMP);
        // A path that does not exist would build this again every time.
        if !stamp.exists() {
            std::fs::write(&stamp, "").expect("the target folder takes files");
        }
        println!("cargo::rerun-if-changed={}", stamp.display());
        let package = target.join("web");
        if package.join("peercompute_bg.wasm").exists() {
            collect(&package, "", &mut list);
        }
    }
    std::fs::write(out.join("package.rs"), format!("&[{list}]")).expect("OUT_DIR takes files");
}

/// Where cargo puts what it builds: above the profile's folder, and above the target's, if one is named.
fn target_folder<'a>(out: &'a Path, target: &str) -> Option<&'a Path> {
    // …/TARGET?/PROFILE/build/NAME-HASH/out
    let folder = out.ancestors().nth(4)?;
    if folder.file_name().is_some_and(|name| name == target) { folder.parent() } else { Some(folder) }
}

fn collect(folder: &Path, below: &str, list: &mut String) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the package can be read").filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let name = format!("{below}{name}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), list);
        } else {
            writeln!(list, "({name:?}, include_bytes!({path:?}) as &[u8]),").expect("a string grows");
        }
    }
}
