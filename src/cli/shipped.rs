//! Workloads that come with the program: what the demo runs, and what `serve` shows where none is named.

use peercompute::keys::{self, KeyFileError};
use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::manifest::Sources;
use peercompute_kernels::{Manifest, Overrides, VerifiedBundle};

/// A workload within the program.
pub(super) struct Shipped {
    pub(super) name: &'static str,
    declaration: &'static str,
    kernel: (&'static str, &'static str),
    /// Its shape and tile, where the declared ones are not for looking at.
    extents: Option<[&'static [u32]; 2]>,
}

macro_rules! shipped {
    ($name:literal, $folder:literal, $extents:expr) => {
        Shipped {
            name: $name,
            declaration: include_str!(concat!("../../shaders/", $folder, "/workload.toml")),
            kernel: (concat!($name, ".wgsl"), include_str!(concat!("../../shaders/", $folder, "/", $name, ".wgsl"))),
            extents: $extents,
        }
    };
}

/// All of them, the demo's first.
pub(super) static ALL: [Shipped; 4] = [
    shipped!("rivers", "worldgen/rivers", None),
    shipped!("heat", "physics/heat", Some([&[1024, 1024], &[256, 128]])),
    shipped!("life", "physics/life", None),
    shipped!("nbody", "physics/nbody", None),
];

/// The workload of a name.
pub(super) fn named(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|shipped| shipped.name == name)
}

impl Shipped {
    /// The workload, signed with the development key.
    ///
    /// **Errors:** the key cannot be had, or an override does not fit.
    pub(super) fn open(&self, overrides: &Overrides) -> Result<VerifiedBundle, KeyFileError> {
        keys::signed_here(self.manifest(overrides)?)
    }

    pub(super) fn manifest(&self, overrides: &Overrides) -> Result<Manifest, KeyFileError> {
        let mut overrides = overrides.clone();
        if let Some([shape, tile]) = self.extents
            && overrides.shapes.is_empty()
            && overrides.tiles.is_empty()
        {
            (overrides.shapes, overrides.tiles) = (vec![(None, shape.to_vec())], vec![(None, tile.to_vec())]);
        }
        let sources = Sources::from([(self.kernel.0.to_owned(), self.kernel.1.to_owned())]);
        let declared = Declaration::parse(self.declaration, &overrides).and_then(|declaration| Manifest::new(&declaration, &sources));
        declared.map_err(KeyFileError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_the_names_that_they_declare() {
        for shipped in &ALL {
            let manifest = shipped.manifest(&Overrides::default()).unwrap_or_else(|error| panic!("{}: {error}", shipped.name));
            assert_eq!(manifest.name, shipped.name);
        }
    }
}
