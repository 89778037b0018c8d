//! What a test of the suite is made of, wherever it runs: kinds of executors, workloads, and the states that runs come to.

use std::path::Path;

use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::manifest::Sources;
use peercompute_kernels::{Manifest, Overrides, SecretKey, VerifiedBundle};

/// An executor of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Gpu,
    /// As machine code where it can, with two threads, so that a dispatch is shared out.
    Cpu,
    /// The same, interpreted: slow in the profile that tests are built in, so it gets small grids and few ticks.
    Interpreted,
}

/// A workload of the repository with another shape and other tiles.
pub(crate) fn load(folder: &str, shape: &[u32], tile: &[u32]) -> VerifiedBundle {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|folder| folder.join("shaders").is_dir()).unwrap();
    let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
    signed(Manifest::from_folder(&root.join(folder), &overrides).unwrap_or_else(|e| panic!("{folder}: {e}")))
}

/// A workload of one kernel file, `k.wgsl`.
pub(crate) fn bundle_of(toml: &str, wgsl: &str) -> VerifiedBundle {
    let declaration = Declaration::parse(toml, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    let sources = Sources::from([("k.wgsl".to_string(), wgsl.to_string())]);
    signed(Manifest::new(&declaration, &sources).unwrap_or_else(|e| panic!("{e}")))
}

fn signed(manifest: Manifest) -> VerifiedBundle {
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::sign(manifest, &key).unwrap_or_else(|e| panic!("{e}"))
}

/// What a run came to.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    /// Every buffer's name and bytes, in row-major order.
    pub(crate) buffers: Vec<(String, Vec<u8>)>,
    /// The state hash.
    pub(crate) hash: String,
}

impl State {
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.buffers.iter().find(|(n, _)| n == name).unwrap().1
    }

    pub(crate) fn words(&self, name: &str) -> Vec<u32> {
        self.bytes(name).chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
    }
}
