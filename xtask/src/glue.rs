//! What stands between the compiler's module and the package: JavaScript, two modules of one, and all of it in Brotli.
//!
//! Apart from the rest of the tooling by the feature `glue`, since the libraries that do it take a minute to build. Invariant: what
//! every tab loads is not larger than it may be, or the build fails and says by how much.

use std::path::{Path, PathBuf};

use crate::say;
use crate::split::split;

/// What every tab loads, and what only the cpu executor needs.
const HALVES: [&str; 2] = ["peercompute_bg.wasm", "peercompute_cpu.wasm"];

/// Makes the JavaScript beside a module, the module into two, and of all that browsers load a compressed copy.
pub(crate) fn make(wasm: &str, out: &str, limit: &str) -> bool {
    let made = wasm_bindgen_cli_support::Bindgen::new()
        .input_path(wasm)
        .omit_default_module_path(false)
        .web(true)
        .and_then(|bindgen| bindgen.typescript(true).generate(out));
    if let Err(error) = made {
        eprintln!("error: wasm-bindgen: {error:#}");
        return false;
    }
    let [first, rest] = match halve(Path::new(out)).and_then(|()| compress(Path::new(out))) {
        Ok(sizes) => sizes,
        Err(error) => {
            eprintln!("error: {out}: {error}");
            return false;
        }
    };
    say(format_args!("{out}: every tab loads {first}"));
    say(format_args!("{out}: where the cpu executor runs, also {rest}"));
    let is_short = limit.parse().is_ok_and(|limit| first.gzip <= limit);
    if !is_short {
        eprintln!("error: what every tab loads has {} bytes in gzip, and may have {limit}", first.gzip);
    }
    is_short
}

/// Makes two modules of the one.
fn halve(out: &Path) -> std::io::Result<()> {
    let halves = HALVES.map(|name| out.join(name));
    let modules = split(&std::fs::read(&halves[0])?).map_err(std::io::Error::other)?;
    halves.iter().zip(modules).try_for_each(|(path, module)| std::fs::write(path, module))
}

/// Bytes of files.
#[derive(Clone, Copy, Default)]
struct Sizes {
    plain: usize,
    gzip: usize,
    brotli: usize,
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [plain, gzip, brotli] = [self.plain, self.gzip, self.brotli].map(|bytes| bytes as f64 / 1e6);
        write!(f, "{plain:.2} MB, {gzip:.2} MB in gzip, {brotli:.2} MB in Brotli")
    }
}

/// Writes a `.br` beside each file that browsers load, as servers of static files take it; returns the sizes of what every tab
/// loads and of what only the cpu executor needs, each compressed as well as it can be.
fn compress(out: &Path) -> std::io::Result<[Sizes; 2]> {
    let mut sizes = [Sizes::default(); 2];
    for path in loaded(out)? {
        let content = std::fs::read(&path)?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &content)?;
        let params = brotli::enc::BrotliEncoderParams { size_hint: content.len(), ..Default::default() };
        let mut short = Vec::new();
        brotli::BrotliCompress(&mut &content[..], &mut short, &params)?;
        let part = &mut sizes[usize::from(path.ends_with(HALVES[1]))];
        *part = Sizes { plain: part.plain + content.len(), gzip: part.gzip + gzip.finish()?.len(), brotli: part.brotli + short.len() };
        let mut compressed = path.into_os_string();
        compressed.push(".br");
        std::fs::write(compressed, short)?;
    }
    Ok(sizes)
}

/// The modules and scripts of a package.
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
