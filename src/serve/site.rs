//! What a browser loads: the pages of this program, and the package that `cargo xtask web` built.
//!
//! The page's files and the package's have one hash together, which is in their paths: a browser keeps them for ever, and a new
//! build is somewhere else. Invariant: what is served is one build's, whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use peercompute_bench::page as bench;

/// The part of a path that every build has for itself.
const HASH_DIGITS: usize = 16;
const PAGE: &str = include_str!("site/index.html");
/// Files of the page, beside the package's.
const FILES: [(&str, &str); 3] =
    [("page.js", include_str!("site/page.js")), ("worker.js", include_str!("site/worker.js")), ("page.css", include_str!("site/page.css"))];

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The package has not been built.
    #[error("there is no package for browsers beside this program\n  help: `cargo xtask web` builds it")]
    NoPackage,
    /// A file of it cannot be read.
    #[error("cannot read `{}`: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's word.
        cause: std::io::Error,
    },
}

/// A file.
pub(super) struct Asset {
    pub(super) kind: &'static str,
    pub(super) content: Bytes,
    pub(super) hash: String,
    gzipped: OnceLock<Option<Bytes>>,
}

impl Asset {
    pub(super) fn new(kind: &'static str, content: Vec<u8>) -> Asset {
        let hash = hash(&content);
        Asset { kind, content: content.into(), hash, gzipped: OnceLock::new() }
    }

    /// Its content in gzip, where that is shorter; made when it is first wanted.
    pub(super) fn gzipped(&self) -> Option<Bytes> {
        let compress = || {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(&self.content).ok()?;
            gzip.finish().ok().filter(|gzipped| gzipped.len() < self.content.len()).map(Bytes::from)
        };
        self.gzipped.get_or_init(compress).clone()
    }
}

/// A page and what it loads.
pub(super) struct Site {
    pub(super) page: Asset,
    pub(super) bench: Asset,
    pub(super) files: BTreeMap<String, Asset>,
    pub(super) hash: String,
}

impl Site {
    /// Reads the package.
    ///
    /// **Errors:** [`SiteError`].
    pub(super) fn load() -> Result<Site, SiteError> {
        let mut files = BTreeMap::new();
        collect(&package_folder().ok_or(SiteError::NoPackage)?, "", &mut files)?;
        for (name, content) in FILES {
            files.insert(name.to_owned(), Asset::new(kind(name).unwrap_or_default(), content.as_bytes().to_vec()));
        }
        for (name, kind, content) in bench::FILES {
            files.insert(name.to_owned(), Asset::new(kind, content.as_bytes().to_vec()));
        }
        let all: String = files.iter().map(|(name, asset)| format!("{name} {}\n", asset.hash)).collect();
        let hash = hash(all.as_bytes())[..HASH_DIGITS].to_owned();
        let html = |page: &str| Asset::new("text/html; charset=utf-8", page.replace("APP", &format!("/app/{hash}")).into_bytes());
        Ok(Site { page: html(PAGE), bench: html(bench::PAGE), files, hash })
    }
}

fn hash(content: &[u8]) -> String {
    peercompute_buffers::digest::hex(&peercompute_buffers::digest::tile_hash(content))
}

/// What a file is, if browsers want such.
fn kind(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "wasm" => Some("application/wasm"),
        _ => None,
    }
}

fn collect(folder: &Path, below: &str, files: &mut BTreeMap<String, Asset>) -> Result<(), SiteError> {
    let wrong = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| SiteError::File { path, cause }
    };
    for entry in std::fs::read_dir(folder).map_err(wrong(folder))? {
        let path = entry.map_err(wrong(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let name = format!("{below}{name}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else if let Some(kind) = kind(&name) {
            let content = std::fs::read(&path).map_err(wrong(&path))?;
            files.insert(name, Asset::new(kind, content));
        }
    }
    Ok(())
}

/// The package's folder: `web`, beside the program or beside the profile that it was built in.
pub fn package_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|folder| folder.join("web")).find(|folder| folder.join("peercompute_bg.wasm").exists())
}
