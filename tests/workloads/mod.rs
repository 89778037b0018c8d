//! The repository's workloads at sizes for tests: odd shapes, and tiles that leave a rest.

use std::path::Path;

use peercompute_kernels::{Manifest, Overrides};

/// Folder, shape and tile.
pub(crate) const WORKLOADS: [(&str, &[u32], &[u32]); 10] = [
    ("shaders/worldgen/noise", &[70, 45], &[16, 16]),
    ("shaders/worldgen/rivers", &[70, 45], &[16, 16]),
    ("shaders/physics/heat", &[70, 45], &[16, 16]),
    ("shaders/physics/life", &[70, 45], &[16, 16]),
    ("shaders/physics/wave3d", &[17, 9, 11], &[5, 4, 3]),
    ("shaders/physics/nbody", &[600], &[64]),
    ("shaders/physics/wave6", &[50, 37], &[16, 8]),
    ("shaders/image/gauss", &[50, 37], &[16, 8]),
    ("shaders/physics/energy", &[70, 45], &[16, 16]),
    ("examples/hello-workload", &[70, 45], &[16, 16]),
];

/// A workload with another shape and other tiles.
pub(crate) fn manifest(folder: &str, shape: &[u32], tile: &[u32]) -> Manifest {
    let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
    Manifest::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &overrides).unwrap()
}
