//! What a browser loads: the pages of this program or of its user, and the package that `cargo xtask web` built.
//!
//! The package is the one beside the program, or the one within it. Its files and the page's have one hash together, which is in their
//! paths: a browser keeps them for ever, and a new build is somewhere else. A user's page has the package at `/peercompute/`, and asks
//! again every time. Invariant: what is served is one build's, whole.

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
const FILES: [(&str, &str); 2] = [("page.js", include_str!("site/page.js")), ("page.css", include_str!("site/page.css"))];
/// What stands for the page where there is no package.
const WITHOUT: &str = include_str!("site/without.html");
/// The package within the program, if it was there when the program was built.
const EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/package.rs"));
/// Bytes of a user's page, with all that belongs to it.
const PAGE_BYTES_MAX: u64 = 256 << 20;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// A page of somebody's own, and no page in it.
    #[error("`{}` has no index.html", folder.display())]
    NoPage {
        /// The folder.
        folder: PathBuf,
    },
    /// A page of somebody's own is kept in memory.
    #[error("`{}` has more than {} MiB", folder.display(), PAGE_BYTES_MAX >> 20)]
    TooLarge {
        /// The folder.
        folder: PathBuf,
    },
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
    /// Its content in Brotli, where the package has that.
    pub(super) brotli: Option<Bytes>,
    gzipped: OnceLock<Option<Bytes>>,
}

impl Asset {
    pub(super) fn new(kind: &'static str, content: Vec<u8>) -> Asset {
        let hash = hash(&content);
        Asset { kind, content: content.into(), hash, brotli: None, gzipped: OnceLock::new() }
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
    /// The package's, and those of this program's page.
    pub(super) files: BTreeMap<String, Asset>,
    /// Those of a user's page.
    pub(super) own: BTreeMap<String, Asset>,
    pub(super) hash: String,
    /// Whether there is a package to be served.
    pub(super) is_whole: bool,
}

impl Site {
    /// Reads the package, and a user's page, if that is to be shown.
    ///
    /// **Errors:** [`SiteError`].
    pub(super) fn load(own_page: Option<&Path>) -> Result<Site, SiteError> {
        let mut package = BTreeMap::new();
        match package_folder() {
            Some(folder) => collect(&folder, "", &mut |name, path| {
                package.insert(name, read(path)?);
                Ok(())
            })?,
            None => package.extend(EMBEDDED.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec()))),
        }
        let (mut short, plain): (BTreeMap<_, _>, BTreeMap<_, _>) = package.into_iter().partition(|(name, _)| name.ends_with(".br"));
        let mut files = BTreeMap::new();
        for (name, content) in plain {
            let Some(kind) = kind(&name) else { continue };
            let brotli = short.remove(&format!("{name}.br")).map(Bytes::from);
            files.insert(name, Asset { brotli, ..Asset::new(kind, content) });
        }
        let is_whole = !files.is_empty();
        for (name, content) in FILES {
            files.insert(name.to_owned(), Asset::new(kind(name).unwrap_or_default(), content.as_bytes().to_vec()));
        }
        for (name, kind, content) in bench::FILES {
            files.insert(name.to_owned(), Asset::new(kind, content.as_bytes().to_vec()));
        }
        let all: String = files.iter().map(|(name, asset)| format!("{name} {}\n", asset.hash)).collect();
        let hash = hash(all.as_bytes())[..HASH_DIGITS].to_owned();
        let mut own = own_page.map_or(Ok(BTreeMap::new()), own_files)?;
        let html = |page: &str| if is_whole { page.replace("APP", &format!("/app/{hash}")) } else { WITHOUT.to_owned() };
        let bench = Asset::new(HTML, html(bench::PAGE).into_bytes());
        let page = match own.remove("index.html") {
            Some(page) => page,
            None => Asset::new(HTML, html(PAGE).into_bytes()),
        };
        Ok(Site { page, bench, files, own, hash, is_whole })
    }
}

/// A user's page.
fn own_files(folder: &Path) -> Result<BTreeMap<String, Asset>, SiteError> {
    let (mut files, mut bytes) = (BTreeMap::new(), 0);
    collect(folder, "", &mut |name, path| {
        let content = read(path)?;
        bytes += content.len() as u64;
        if bytes > PAGE_BYTES_MAX {
            return Err(SiteError::TooLarge { folder: folder.to_path_buf() });
        }
        files.insert(name.clone(), Asset::new(kind(&name).unwrap_or("application/octet-stream"), content));
        Ok(())
    })?;
    if files.contains_key("index.html") { Ok(files) } else { Err(SiteError::NoPage { folder: folder.to_path_buf() }) }
}

fn hash(content: &[u8]) -> String {
    peercompute_buffers::digest::hex(&peercompute_buffers::digest::tile_hash(content))
}

const HTML: &str = "text/html; charset=utf-8";

/// What a file is, if browsers want such.
fn kind(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "js" | "mjs" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "wasm" => Some("application/wasm"),
        "html" => Some(HTML),
        "json" | "map" => Some("application/json"),
        "wgsl" | "txt" => Some("text/plain; charset=utf-8"),
        "png" => Some("image/png"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

fn wrong(path: &Path) -> impl Fn(std::io::Error) -> SiteError {
    move |cause| SiteError::File { path: path.to_path_buf(), cause }
}

fn read(path: &Path) -> Result<Vec<u8>, SiteError> {
    std::fs::read(path).map_err(wrong(path))
}

/// Takes every file of a folder, and of those within; what begins with a dot is passed over.
fn collect(folder: &Path, below: &str, take: &mut dyn FnMut(String, &Path) -> Result<(), SiteError>) -> Result<(), SiteError> {
    for entry in std::fs::read_dir(folder).map_err(wrong(folder))? {
        let path = entry.map_err(wrong(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else { continue };
        let name = format!("{below}{name}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), take)?;
        } else {
            take(name, &path)?;
        }
    }
    Ok(())
}

/// The package's folder: `web`, beside the program or beside the profile that it was built in.
pub fn package_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|folder| folder.join("web")).find(|folder| folder.join("peercompute_bg.wasm").exists())
}
