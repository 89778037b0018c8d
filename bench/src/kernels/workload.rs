//! The project's own workloads, embedded, so that the benches run where the repository is not.

use std::collections::BTreeMap;

use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::{Manifest, Overrides, SecretKey, Trust, VerifiedBundle, bundle};

use crate::BenchError;

macro_rules! embedded {
    ($($name:literal in $folder:literal),* $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../../../shaders/", $folder, "/", $name, "/workload.toml")),
            include_str!(concat!("../../../shaders/", $folder, "/", $name, "/", $name, ".wgsl")),
        )),*]
    };
}

/// Name, declaration, and the one WGSL file, which has the workload's name.
const WORKLOADS: &[(&str, &str, &str)] = embedded!(
    "energy" in "physics",
    "heat" in "physics",
    "life" in "physics",
    "nbody" in "physics",
    "noise" in "worldgen",
    "wave3d" in "physics",
);

/// Links, signs and verifies an embedded workload with another shape, and another tile unless `tile` is empty.
///
/// **Errors:** the declaration, a kernel, or a shape that the workload cannot have.
///
/// # Panics
/// When no workload of that name is embedded.
pub fn load(name: &str, shape: &[u32], tile: &[u32]) -> Result<VerifiedBundle, BenchError> {
    let found = WORKLOADS.iter().find(|(known, ..)| *known == name);
    let Some((_, declaration, wgsl)) = found else { panic!("no workload `{name}` is embedded") };
    signed(declaration, (&format!("{name}.wgsl"), wgsl), shape, tile)
}

/// Links, signs and verifies a workload of one kernel file, given with its name, in the same way.
pub(crate) fn signed(declaration: &str, kernel: (&str, &str), shape: &[u32], tile: &[u32]) -> Result<VerifiedBundle, BenchError> {
    let tiles = if tile.is_empty() { Vec::new() } else { vec![(None, tile.to_vec())] };
    let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles, ..Overrides::default() };
    let declaration = Declaration::parse(declaration, &overrides)?;
    let sources = BTreeMap::from([(kernel.0.to_string(), kernel.1.to_string())]);
    let manifest = Manifest::new(&declaration, &sources)?;
    let key = SecretKey::generate().map_err(|error| BenchError::Key { cause: error.to_string() })?;
    Ok(VerifiedBundle::verify(&bundle::sign(&manifest, &key), &Trust::key(key.public()))?)
}
