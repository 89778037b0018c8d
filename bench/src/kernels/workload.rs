//! The project's own workloads and those of the benches, embedded, so that the benches run where the repository is not.

use std::collections::BTreeMap;

use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::{Manifest, Overrides, SecretKey, VerifiedBundle};

use crate::BenchError;

macro_rules! sources {
    ($($name:literal in $folder:literal),* $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../../../shaders/", $folder, "/", $name, "/workload.toml")),
            include_str!(concat!("../../../shaders/", $folder, "/", $name, "/", $name, ".wgsl")),
        )),*]
    };
}

/// Name, declaration, and the one WGSL file, which has the workload's name.
const WORKLOADS: &[(&str, &str, &str)] = sources!(
    "energy" in "physics",
    "heat" in "physics",
    "life" in "physics",
    "nbody" in "physics",
    "noise" in "worldgen",
    "wave3d" in "physics",
);

/// The rest of the project's: their loading alone is measured, natively.
#[cfg(not(target_arch = "wasm32"))]
const LOADED: &[(&str, &str, &str)] = sources!("gauss" in "image", "rivers" in "worldgen", "wave6" in "physics");
#[cfg(target_arch = "wasm32")]
const LOADED: &[(&str, &str, &str)] = &[];

/// Workloads that are for measuring alone.
const MEASURED: [(&str, &str, &str); 2] = [
    ("copy", include_str!("../page/copy/workload.toml"), include_str!("../page/copy/copy.wgsl")),
    ("sum", include_str!("../executors/sum/workload.toml"), include_str!("../executors/sum/sum.wgsl")),
];

/// The declaration and the kernels of an embedded workload.
///
/// # Panics
/// When none of that name is embedded.
pub(crate) fn embedded(name: &str) -> (&'static str, &'static str) {
    let found = WORKLOADS.iter().chain(LOADED).chain(&MEASURED).find(|(known, ..)| *known == name);
    let Some((_, declaration, wgsl)) = found else { panic!("no workload `{name}` is embedded") };
    (declaration, wgsl)
}

/// The project's own workloads as they are declared, signed, by name.
///
/// **Errors:** never, as long as the project's own tests pass.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn all() -> Result<Vec<(&'static str, VerifiedBundle)>, BenchError> {
    WORKLOADS.iter().chain(LOADED).map(|&(name, ..)| Ok((name, load(name, &[], &[])?))).collect()
}

/// Links, checks and signs an embedded workload with another shape and another tile, where those are not empty.
///
/// **Errors:** the declaration, a kernel, or a shape that the workload cannot have.
///
/// # Panics
/// When no workload of that name is embedded.
pub fn load(name: &str, shape: &[u32], tile: &[u32]) -> Result<VerifiedBundle, BenchError> {
    let (declaration, wgsl) = embedded(name);
    let manifest = manifest(declaration, (&format!("{name}.wgsl"), wgsl), shape, tile)?;
    let key = SecretKey::generate().map_err(|error| BenchError::Key { cause: error.to_string() })?;
    Ok(VerifiedBundle::sign(manifest, &key)?)
}

/// Links a workload of one kernel file, given with its name, in the same way.
pub(crate) fn manifest(declaration: &str, kernel: (&str, &str), shape: &[u32], tile: &[u32]) -> Result<Manifest, BenchError> {
    let other = |extents: &[u32]| if extents.is_empty() { Vec::new() } else { vec![(None, extents.to_vec())] };
    let overrides = Overrides { shapes: other(shape), tiles: other(tile), ..Overrides::default() };
    let declaration = Declaration::parse(declaration, &overrides)?;
    let sources = BTreeMap::from([(kernel.0.to_string(), kernel.1.to_string())]);
    Ok(Manifest::new(&declaration, &sources)?)
}
