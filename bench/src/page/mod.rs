//! The benchmark page: its files, its cases, and the bundles that it runs. Whoever serves pages serves this one too.
//!
//! ```text
//! GET  /bench                  the page; its files are beside the package's, as bench/…
//! GET  /bench/about.json       cases, sizes, efforts, and the key of the bundles
//! GET  /bench/bundles/NAME     a case at one of its sizes, signed
//! GET  /bench/bytes, POST the same   what carries bytes from and to the root
//! ```
//!
//! Page, tests and `peercompute bench --browser` run the same scripts. Invariant: a bundle is one of a fixed list, and its
//! key lives as long as the process and signs nothing else.

mod cases;

use std::sync::OnceLock;

use peercompute_kernels::{Program, SecretKey, bundle};
use serde_json::json;

use crate::kernels::{embedded, manifest};
use crate::report::REPORT_VERSION;
use crate::{BenchError, Effort};

pub(crate) use cases::{CASES, Case};

/// The page; `APP` stands for the folder of its files.
pub const PAGE: &str = include_str!("site/bench.html");
/// Its files, by their paths beside the package's, and their types.
pub const FILES: [(&str, &str, &str); 13] = [
    ("bench/bench.css", "text/css; charset=utf-8", include_str!("site/bench.css")),
    ("bench/bench.js", SCRIPT, include_str!("site/bench.js")),
    ("bench/table.js", SCRIPT, include_str!("site/table.js")),
    ("bench/worker.js", SCRIPT, include_str!("site/worker.js")),
    ("bench/measure.js", SCRIPT, include_str!("site/measure.js")),
    ("bench/figures.js", SCRIPT, include_str!("site/figures.js")),
    ("bench/twins.js", SCRIPT, include_str!("site/twins.js")),
    ("bench/transfer.js", SCRIPT, include_str!("site/transfer.js")),
    ("bench/copy_twin.wgsl", WGSL, include_str!("../../shaders/copy_twin.wgsl")),
    ("bench/heat_twin.wgsl", WGSL, include_str!("../../shaders/heat_twin.wgsl")),
    ("bench/nbody_twin.wgsl", WGSL, include_str!("../../shaders/nbody_twin.wgsl")),
    ("bench/noise_twin.wgsl", WGSL, include_str!("../../shaders/noise_twin.wgsl")),
    ("bench/sum_twin.wgsl", WGSL, include_str!("../../shaders/sum_twin.wgsl")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";
const WGSL: &str = "text/plain; charset=utf-8";

/// What is carried by one request at most, and what a download is.
pub const TRANSFER_BYTES: usize = 4 << 20;

/// The bundles of all cases at all sizes, signed when they are first asked for.
pub struct Bundles {
    key: SecretKey,
    /// In the order of [`names`].
    signed: Vec<OnceLock<Vec<u8>>>,
}

/// What bundles are called, case by case and size by size.
fn names() -> impl Iterator<Item = (&'static Case, u32, String)> {
    CASES.iter().flat_map(|case| case.sizes.iter().map(move |&size| (case, size, case.bundle_name(size))))
}

impl Bundles {
    /// With a new key.
    ///
    /// **Errors:** the system gives no random bytes.
    pub fn new() -> Result<Bundles, BenchError> {
        let key = SecretKey::generate().map_err(|error| BenchError::Key { cause: error.to_string() })?;
        Ok(Bundles { key, signed: names().map(|_| OnceLock::new()).collect() })
    }

    /// A bundle by its name; `None` if there is none of that name.
    ///
    /// **Errors:** a workload of ours is refused: a bug.
    pub fn bundle(&self, name: &str) -> Result<Option<&[u8]>, BenchError> {
        let Some((at, (case, size, _))) = names().enumerate().find(|(_, (.., known))| known == name) else { return Ok(None) };
        if let Some(signed) = self.signed[at].get() {
            return Ok(Some(signed));
        }
        let (declaration, wgsl) = embedded(case.workload);
        let manifest = manifest(declaration, (&format!("{}.wgsl", case.workload), wgsl), &case.shape(size), &[])?;
        // Of two who sign at once, one's is kept.
        let program = Program::check(manifest)?;
        Ok(Some(self.signed[at].get_or_init(|| bundle::sign(&program, &self.key))))
    }

    /// All that the page must know, as JSON.
    pub fn about(&self) -> String {
        let size = |case: &Case, size: u32| json!({ "size": size, "label": case.label(size), "bundle": case.bundle_name(size), "units_per_tick": case.units_per_tick(size) / 1e9 });
        let cases = CASES.iter().map(|case| {
            json!({
                "name": case.name,
                "sizes": case.sizes.iter().map(|&n| size(case, n)).collect::<Vec<_>>(),
                "output": case.output,
                "element": case.element,
                "tolerance": case.tolerance,
                "unit": case.unit,
                "target": case.target,
            })
        });
        let efforts = [Effort::Tiny, Effort::Quick, Effort::Full].map(|effort| {
            let effort_json = json!({ "rounds": rounds(effort), "round_seconds": effort.round_seconds(), "trips": trips(effort) });
            (effort.name().to_owned(), effort_json)
        });
        json!({
            "version": REPORT_VERSION,
            "peercompute": env!("CARGO_PKG_VERSION"),
            "key": self.key.public().to_string(),
            "cases": cases.collect::<Vec<_>>(),
            "efforts": serde_json::Map::from_iter(efforts),
            "transfer_bytes": TRANSFER_BYTES,
        })
        .to_string()
    }
}

/// Rounds of a case. A page is opened on machines that do other things too: more than elsewhere, where one looks for a moment.
fn rounds(effort: Effort) -> u32 {
    match effort {
        Effort::Quick => 9,
        Effort::Tiny | Effort::Full => effort.rounds(),
    }
}

/// Round trips that a percentile is taken from.
fn trips(effort: Effort) -> u32 {
    match effort {
        Effort::Tiny => 5,
        Effort::Quick => 100,
        Effort::Full => 500,
    }
}

/// Bytes that nothing makes shorter, as many as a download has.
pub fn random_bytes() -> Vec<u8> {
    // Xorshift: nobody has to be surprised by it but a compressor.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(TRANSFER_BYTES / 8).flatten().collect()
}

#[cfg(test)]
mod tests {
    use peercompute_kernels::{Trust, VerifiedBundle};

    use super::*;

    #[test]
    fn every_case_is_signed_at_every_size_and_nothing_else_is() {
        let bundles = Bundles::new().expect("a key");
        let trust = Trust::key(bundles.key.public());
        for (case, size, name) in names() {
            let bytes = bundles.bundle(&name).unwrap_or_else(|error| panic!("{name}: {error}")).expect("is known");
            let verified = VerifiedBundle::verify(bytes, &trust).unwrap_or_else(|error| panic!("{name}: {error}"));
            let program = verified.program();
            assert!(program.buffer(case.output).is_some(), "{name}");
            assert_eq!(program.manifest.grids[0].grid.points(), case.shape(size).iter().map(|&n| u64::from(n)).product::<u64>(), "{name}");
        }
        for unknown in ["heat-4097.pcb", "heat", "", "../heat-64.pcb"] {
            assert!(bundles.bundle(unknown).expect("no error").is_none(), "{unknown}");
        }
    }

    #[test]
    fn the_page_loads_nothing_that_is_not_among_its_files() {
        let known: Vec<&str> = FILES.iter().map(|(name, ..)| *name).collect();
        for part in PAGE.split("APP/").skip(1) {
            let file = part.split('"').next().unwrap_or_default();
            assert!(known.contains(&file), "{file}");
        }
        assert!(!PAGE.contains("<style") && !PAGE.contains(" style=") && !PAGE.contains("onclick"), "the policy lets none through");
        for (name, _, content) in FILES {
            assert!(!content.contains("https://") && !content.contains("http://"), "{name} names another host");
        }
    }
}
