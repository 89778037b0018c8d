//! Key files, the local development key, certificates, the versions that have been seen, and the bundles that were verified here.
//!
//! A workload run from a folder is signed with a development key that is made on first use, so the
//! same path from signature to executor holds for everybody. Invariant: a secret key file is readable
//! by its owner alone, and a bundle older than the newest seen of the same key and name is refused.

use std::io::Write;
use std::path::{Path, PathBuf};

use peercompute_buffers::digest::hex;
use peercompute_kernels::{BundleError, Manifest, Overrides, PublicKey, SecretKey, Trust, VerifiedBundle, WorkloadError, bundle};

use crate::link::Link;

/// What can go wrong with keys and bundles on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        cause: std::io::Error,
    },
    /// A key file would be overwritten.
    #[error("`{}` exists: a key is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no key.
    #[error("`{}`: {cause}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: bundle::KeyError,
    },
    /// A bundle was given without a key to check it against.
    #[error("`{}` is a bundle: name the key that you trust with `--trust FILE`", path.display())]
    NoTrust {
        /// The bundle.
        path: PathBuf,
    },
    /// A bundle was given with changes to what it declares.
    #[error("`{}` is signed and cannot be changed: `--tile` and `--shape` are for folders", path.display())]
    Signed {
        /// The bundle.
        path: PathBuf,
    },
    /// There is no place for keys, versions and bundles.
    #[error("no home directory for keys, versions and bundles: set `HOME`, or `XDG_CONFIG_HOME`, `XDG_STATE_HOME` and `XDG_CACHE_HOME`")]
    NoHome,
    /// The file of seen versions is damaged.
    #[error("`{}` is damaged: {cause}; if you know why, delete it", path.display())]
    Seen {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// What a link asks for is not on this machine.
    #[error(
        "{name} {version} (bundle {}) is not on this machine, and code never travels between peers: name its folder with `--workload DIR`, or its bundle with `--bundle FILE`",
        &bundle[..16]
    )]
    NotHere {
        /// The workload's name.
        name: String,
        /// Its version.
        version: String,
        /// The hash of its bundle, as hexadecimal.
        bundle: String,
    },
    /// What was given is not what a run computes.
    #[error("{}", other_bundle(path, given, wanted))]
    OtherBundle {
        /// The folder or bundle.
        path: PathBuf,
        /// What it holds.
        given: Named,
        /// What the run computes.
        wanted: Named,
    },
    /// A run's bundle is signed by a key that the user does not trust.
    #[error("the run's bundle is signed by {key}, which is not the key that you trust")]
    OtherKey {
        /// The signer, as the link names it.
        key: PublicKey,
    },
    /// The system gave no randomness.
    #[error("no randomness for a new key: {cause}")]
    Randomness {
        /// The system's word.
        cause: String,
    },
    /// The workload is wrong.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The bundle is refused.
    #[error("`{}`: {cause}", path.display())]
    Bundle {
        /// The bundle.
        path: PathBuf,
        /// Why.
        cause: BundleError,
    },
}

/// A workload by its name, its version and the hash of its bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The hash, as hexadecimal.
    pub bundle: String,
}

impl Named {
    /// A bundle's.
    pub fn of(bundle: &VerifiedBundle) -> Named {
        let program = bundle.program();
        Named { name: program.manifest.name.clone(), version: program.manifest.version.to_string(), bundle: hex(&program.hash) }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} (bundle {})", self.name, self.version, self.bundle.get(..16).unwrap_or(&self.bundle))
    }
}

fn other_bundle(path: &Path, given: &Named, wanted: &Named) -> String {
    let told = format!("`{}` is {given}, the run computes {wanted}", path.display());
    if (&given.name, &given.version) == (&wanted.name, &wanted.version) {
        return format!("{told}: the same version with another shape, tile, parameter or kernel");
    }
    told
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeyFileError + use<> {
    let path = path.to_path_buf();
    move |cause| KeyFileError::File { action, path, cause }
}

/// Makes a key pair: `NAME.key` for the owner alone, `NAME.pub` beside it for everybody.
///
/// **Errors:** a file exists or cannot be written.
pub fn generate(path: &Path) -> Result<(PublicKey, PathBuf), KeyFileError> {
    let public_path = path.with_extension("pub");
    if public_path == path {
        return Err(KeyFileError::Exists { path: public_path });
    }
    let key = SecretKey::generate().map_err(|cause| KeyFileError::Randomness { cause: cause.to_string() })?;
    write_new(path, &key.to_text(), true)?;
    write_new(&public_path, &key.public().to_string(), false)?;
    Ok((key.public(), public_path))
}

fn write_new(path: &Path, text: &str, secret: bool) -> Result<(), KeyFileError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let written = options.open(path).and_then(|mut file| writeln!(file, "{text}"));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(KeyFileError::Exists { path: path.into() }),
        other => other.map_err(file_error("write", path)),
    }
}

/// Reads a secret key file.
///
/// **Errors:** it cannot be read or holds none.
pub fn read_secret(path: &Path) -> Result<SecretKey, KeyFileError> {
    let text = std::fs::read_to_string(path).map_err(file_error("read", path))?;
    text.parse().map_err(|cause| KeyFileError::Key { path: path.into(), cause })
}

/// Reads a public key: a file, or the key's own text.
///
/// **Errors:** neither.
pub fn read_public(path: &str) -> Result<PublicKey, KeyFileError> {
    if let Ok(key) = path.parse() {
        return Ok(key);
    }
    let text = std::fs::read_to_string(path).map_err(file_error("read", Path::new(path)))?;
    text.parse().map_err(|cause| KeyFileError::Key { path: path.into(), cause })
}

fn home(variable: &str, below: &str) -> Result<PathBuf, KeyFileError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set(variable).or_else(|| set("HOME").map(|home| home.join(below))).ok_or(KeyFileError::NoHome)?;
    Ok(base.join("peercompute"))
}

/// The development key of this user, made on first use.
///
/// **Errors:** there is no home, or the file cannot be made or read.
pub fn development() -> Result<SecretKey, KeyFileError> {
    let folder = home("XDG_CONFIG_HOME", ".config")?;
    let path = folder.join("development.key");
    if !path.exists() {
        std::fs::create_dir_all(&folder).map_err(file_error("write", &folder))?;
        match generate(&path) {
            // Another process was first: its key is as good.
            Ok(_) | Err(KeyFileError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    read_secret(&path)
}

/// Where certificates lie with their keys, beside the development key; this user's alone.
///
/// **Errors:** there is no home, or the folder cannot be made.
pub fn certificates() -> Result<PathBuf, KeyFileError> {
    let folder = home("XDG_CONFIG_HOME", ".config")?.join("certificates");
    let mut make = std::fs::DirBuilder::new();
    make.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
    make.create(&folder).map_err(file_error("write", &folder))?;
    Ok(folder)
}

/// The keys to trust, with the newest version seen of each of their workloads.
///
/// **Errors:** the file of seen versions is damaged.
pub fn trust(keys: &[PublicKey]) -> Result<Trust, KeyFileError> {
    let mut trust = Trust::default();
    keys.iter().for_each(|&key| trust.pin(key));
    let path = seen_path()?;
    match std::fs::read_to_string(&path) {
        Ok(text) => trust.set_newest(serde_json::from_str(&text).map_err(|cause| KeyFileError::Seen { path, cause })?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(file_error("read", &path)(error)),
    }
    Ok(trust)
}

fn seen_path() -> Result<PathBuf, KeyFileError> {
    Ok(home("XDG_STATE_HOME", ".local/state")?.join("versions.json"))
}

/// Remembers a bundle's version on disk.
///
/// **Errors:** the file cannot be written.
pub fn remember(trust: &mut Trust, bundle: &VerifiedBundle) -> Result<(), KeyFileError> {
    let before = trust.newest().clone();
    trust.remember(bundle);
    if *trust.newest() == before {
        return Ok(());
    }
    let path = seen_path()?;
    let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    std::fs::create_dir_all(&folder).map_err(file_error("write", &folder))?;
    let text = serde_json::to_string_pretty(trust.newest()).map_err(|cause| KeyFileError::Seen { path: path.clone(), cause })?;
    // Whole or not at all: a torn file would lock the user out.
    let next = path.with_extension(format!("{}.next", std::process::id()));
    std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &path)).map_err(file_error("write", &path))
}

/// A workload as a user names it: a folder, signed here with the development key, or a bundle and the keys to trust.
///
/// **Errors:** [`KeyFileError`].
pub fn open(path: &Path, overrides: &Overrides, trusted: &[PublicKey]) -> Result<VerifiedBundle, KeyFileError> {
    if path.is_file() && path.extension().is_none_or(|extension| extension != "toml") {
        if *overrides != Overrides::default() {
            return Err(KeyFileError::Signed { path: path.into() });
        }
        if trusted.is_empty() {
            return Err(KeyFileError::NoTrust { path: path.into() });
        }
        let mut trust = trust(trusted)?;
        let bundle = read_bundle(path, &trust)?;
        remember(&mut trust, &bundle)?;
        return Ok(bundle);
    }
    let manifest = Manifest::from_folder(path, overrides)?;
    signed_here(manifest)
}

/// A bundle file, verified.
///
/// **Errors:** it cannot be read, or is refused.
pub fn read_bundle(path: &Path, trust: &Trust) -> Result<VerifiedBundle, KeyFileError> {
    let bytes = std::fs::read(path).map_err(file_error("read", path))?;
    VerifiedBundle::verify(&bytes, trust).map_err(|cause| KeyFileError::Bundle { path: path.into(), cause })
}

/// Where the bundles lie that were verified here. One file for each content, signer and format.
fn bundle_path(hash: &[u8; 32], signer: &PublicKey) -> Result<PathBuf, KeyFileError> {
    let name = format!("{}-{}.{}.pcb", hex(hash), &hex(&signer.0)[..16], bundle::FORMAT);
    Ok(home("XDG_CACHE_HOME", ".cache")?.join("bundles").join(name))
}

/// Keeps a verified bundle, so that a link to a run of it is enough to join.
///
/// **Errors:** the file cannot be written.
pub fn keep(bundle: &VerifiedBundle) -> Result<(), KeyFileError> {
    let path = bundle_path(&bundle.program().hash, &bundle.signer())?;
    if std::fs::read(&path).is_ok_and(|kept| kept == bundle.bytes()) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    std::fs::create_dir_all(&folder).map_err(file_error("write", &folder))?;
    // Whole or not at all: whoever finds it by its name expects the content.
    let next = path.with_extension(format!("{}.next", std::process::id()));
    std::fs::write(&next, bundle.bytes()).and_then(|()| std::fs::rename(&next, &path)).map_err(file_error("write", &path))
}

/// The bundle that a link asks for: out of `given`, a folder or a bundle, or else one that was verified here before.
/// What `trusted` names must have signed it; if nothing is, the link's key must.
///
/// **Errors:** [`KeyFileError`]; nothing of a bundle that is refused has been compiled.
pub fn open_linked(link: &Link, given: Option<&Path>, overrides: &Overrides, trusted: &[PublicKey]) -> Result<VerifiedBundle, KeyFileError> {
    if !trusted.is_empty() && !trusted.contains(&link.key) {
        return Err(KeyFileError::OtherKey { key: link.key });
    }
    let wanted = Named { name: link.workload.clone(), version: link.version.clone(), bundle: hex(&link.bundle) };
    let Some(path) = given else {
        let path = bundle_path(&link.bundle, &link.key)?;
        return match open(&path, overrides, &[link.key]) {
            Ok(bundle) if Named::of(&bundle) == wanted => Ok(bundle),
            // It is what the hash names, under another name.
            Ok(bundle) if bundle.program().hash == link.bundle => Err(KeyFileError::OtherBundle { path, given: Named::of(&bundle), wanted }),
            Err(error @ (KeyFileError::Signed { .. } | KeyFileError::Bundle { cause: BundleError::Older { .. }, .. })) => Err(error),
            // One that was damaged is as good as none.
            _ => Err(KeyFileError::NotHere { name: wanted.name, version: wanted.version, bundle: wanted.bundle }),
        };
    };
    let bundle = open(path, overrides, &[link.key])?;
    if Named::of(&bundle) != wanted {
        return Err(KeyFileError::OtherBundle { path: path.into(), given: Named::of(&bundle), wanted });
    }
    keep(&bundle)?;
    Ok(bundle)
}

/// A manifest, checked and signed with the development key.
///
/// **Errors:** the key cannot be had, or the workload fails its checks.
pub fn signed_here(manifest: Manifest) -> Result<VerifiedBundle, KeyFileError> {
    sign(manifest, &development()?)
}

/// A manifest, checked and signed.
///
/// **Errors:** the workload fails its checks, or is too large for a bundle.
pub fn sign(manifest: Manifest, key: &SecretKey) -> Result<VerifiedBundle, KeyFileError> {
    let name = PathBuf::from(&manifest.name);
    VerifiedBundle::sign(manifest, key).map_err(|error| match error {
        BundleError::Workload(error) => KeyFileError::Workload(error),
        cause => KeyFileError::Bundle { path: name, cause },
    })
}
