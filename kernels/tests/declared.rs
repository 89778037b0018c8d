//! Every workload of the repository passes every check, without a warning.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::path::{Path, PathBuf};

use peercompute_kernels::{Manifest, Overrides, Program, SecretKey, Trust, VerifiedBundle, bundle};

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let mut open = vec![root.join("shaders"), root.join("examples")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.join("workload.toml").exists() {
                found.push(path);
            } else if path.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() >= 8, "{found:?}");
    found
}

#[test]
fn every_workload_passes_its_checks() {
    for folder in folders() {
        let manifest = Manifest::from_folder(&folder, &Overrides::default()).unwrap_or_else(|e| panic!("{}\n{e}", folder.display()));
        let program = Program::check(manifest).unwrap_or_else(|e| panic!("{}\n{e}", folder.display()));
        assert_eq!(program.warnings, Vec::<String>::new(), "{}", folder.display());
    }
}

#[test]
fn a_signed_workload_verifies_to_the_same_program() {
    let key = SecretKey::generate().unwrap();
    for folder in folders() {
        let manifest = Manifest::from_folder(&folder, &Overrides::default()).unwrap();
        let signed = VerifiedBundle::sign(manifest.clone(), &key).unwrap();
        let verified = VerifiedBundle::verify(signed.bytes(), &Trust::key(key.public())).unwrap();
        assert_eq!(verified.program().reflection(), signed.program().reflection());
        assert_eq!(verified.program().manifest, manifest);
        assert_eq!(verified.program().hash, bundle::manifest_hash(&manifest));
    }
}
