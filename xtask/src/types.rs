//! What the package for browsers promises to TypeScript: a program that uses all of it, checked by `tsc --strict`.
//!
//! The compiler comes from npm, into the target folder. Invariant: where there is no npm, it is said that nothing was checked.

use std::path::Path;

use crate::setup::prints;
use crate::{run, say, web};

const COMPILER: &str = "typescript@5.9";
/// The program, and how it is compiled.
const PROGRAM: [(&str, &str); 2] =
    [("use.ts", include_str!("../../tests/types/use.ts")), ("tsconfig.json", include_str!("../../tests/types/tsconfig.json"))];

/// Checks the types of the package that was built last; `None` where that cannot be done here.
pub(crate) fn check() -> Option<bool> {
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    if prints(npm, &["--version"]).is_none() {
        say("skipped: the package's types are not checked: npm is not installed");
        return None;
    }
    let target = web::target_folder()?;
    let folder = target.join("types");
    let placed = place(&target.join("web"), &folder).inspect_err(|error| eprintln!("error: {}: {error}", folder.display()));
    let at = folder.to_string_lossy().into_owned();
    let compiler = folder.join("node_modules/typescript/bin/tsc");
    let has_compiler = compiler.exists() || run(npm, &["install", "--silent", "--no-save", "--prefix", &at, COMPILER]);
    // An install takes away what it does not know.
    let is_there = placed.is_ok() && has_compiler && place(&target.join("web"), &folder).is_ok();
    let compiler = compiler.to_string_lossy().into_owned();
    Some(is_there && run("node", &[&compiler, "--project", &at]))
}

/// The program, and beside it the package as npm would have it.
fn place(package: &Path, folder: &Path) -> std::io::Result<()> {
    let into = folder.join("node_modules/peercompute");
    std::fs::create_dir_all(&into)?;
    std::fs::write(folder.join("package.json"), r#"{ "private": true, "type": "module" }"#)?;
    for (name, content) in PROGRAM {
        std::fs::write(folder.join(name), content)?;
    }
    for name in ["package.json", "index.d.ts", "peercompute.d.ts"] {
        std::fs::copy(package.join(name), into.join(name))?;
    }
    Ok(())
}
