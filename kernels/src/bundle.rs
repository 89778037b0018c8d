//! A workload as it is signed, stored and carried: canonical bytes, a hash, a signature.
//!
//! ```text
//! 0   8  "PCBUNDLE"
//! 8   2  format, u16 LE: 2
//! 10  4  manifest length n, u32 LE
//! 14  4  reflection length m, u32 LE
//! 18  n  manifest, postcard (plan/formats/bundle.md)
//!     m  reflection, postcard: what the signer's checks found in the kernels
//!     32 the signer's Ed25519 public key
//!     64 signature over "peercompute bundle signature v2\0" + hash + BLAKE3 of the reflection
//! hash = BLAKE3 in derive-key mode, context "peercompute bundle manifest v1", of the manifest
//! ```
//!
//! Invariant: a [`VerifiedBundle`] exists only for bytes that were signed here, or whose signature verified (`verify_strict`)
//! against a pinned key; they decode to a program and encode to the same bytes again.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use peercompute_buffers::digest::hex;
use serde::{Deserialize, Serialize};

use crate::check;
use crate::diagnose::WorkloadError;
use crate::manifest::Manifest;
use crate::program::Program;
use crate::reflection::Reflection;

const MAGIC: &[u8; 8] = b"PCBUNDLE";
/// The format of the bundles that are written and read.
pub const FORMAT: u16 = 2;
const HEAD: usize = 18;
const TAIL: usize = 96;
const HASH_CONTEXT: &str = "peercompute bundle manifest v1";
const REFLECTION_CONTEXT: &str = "peercompute bundle reflection v1";
const SIGNATURE_DOMAIN: &[u8] = b"peercompute bundle signature v2\0";

/// The largest bundle that is read, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 256 << 20;

/// Why bytes are not a bundle that may run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The bytes do not start as a bundle does.
    #[error("not a bundle: the first bytes are not `PCBUNDLE`")]
    NotABundle,
    /// An older format, or a newer one.
    #[error("the bundle has format {given}, this build reads format {known}: sign the workload with a version of peercompute that writes it")]
    Format {
        /// The bundle's.
        given: u16,
        /// Ours.
        known: u16,
    },
    /// The length is not what the header says.
    #[error("the bundle has {given} bytes, its header says {expected}: it is truncated or has something appended")]
    Length {
        /// Bytes there are.
        given: usize,
        /// Bytes there should be.
        expected: u64,
    },
    /// Larger than any bundle.
    #[error("the bundle has {given} bytes, at most {limit} are read")]
    TooLarge {
        /// Bytes there are.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// The signer is not among the pinned keys.
    #[error("the bundle is signed by {key}, which is not a trusted key: pin it with `--trust`")]
    Untrusted {
        /// The signer.
        key: PublicKey,
    },
    /// The signature does not fit the bytes.
    #[error("the signature does not verify: the bundle was changed, or not signed by {key}")]
    Signature {
        /// The signer it names.
        key: PublicKey,
    },
    /// The bytes decode, but not to their only encoding.
    #[error("the manifest is not in canonical form")]
    NotCanonical,
    /// The bytes do not decode.
    #[error("the manifest does not decode: {cause}")]
    Manifest {
        /// The decoder's word.
        cause: String,
    },
    /// A newer version has been seen.
    #[error("`{name}` {given} is older than {newest}, which was seen before: older versions are refused")]
    Older {
        /// The workload.
        name: String,
        /// The bundle's version.
        given: semver::Version,
        /// The newest version seen from this key.
        newest: semver::Version,
    },
    /// What it says of its kernels does not decode, or is no layout of WGSL's.
    #[error("what the bundle says of its kernels does not decode: {cause}")]
    Reflection {
        /// What is wrong.
        cause: String,
    },
    /// What it says of its kernels is not what they are.
    #[error("what the bundle says of its kernels is not what they are: {key} signed what was not checked, or with another version of peercompute")]
    Untrue {
        /// The signer.
        key: PublicKey,
    },
    /// The workload fails its checks.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} key: expected `{prefix}` and 64 hexadecimal digits")]
pub struct KeyError {
    kind: &'static str,
    prefix: &'static str,
}

const PUBLIC_PREFIX: &str = "peercompute-public-1:";
const SECRET_PREFIX: &str = "peercompute-secret-1:";

/// Whom a bundle comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        key_bytes(text, PUBLIC_PREFIX).map(PublicKey).ok_or(KeyError { kind: "public", prefix: PUBLIC_PREFIX })
    }
}

fn key_bytes(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let digits = text.trim().strip_prefix(prefix)?;
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A key that signs bundles. Its text form is a secret.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key from the system's randomness.
    ///
    /// **Errors:** the system gives none.
    pub fn generate() -> Result<SecretKey, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The text that goes into a key file.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}", hex(&self.0.to_bytes()))
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let seed = key_bytes(text, SECRET_PREFIX).ok_or(KeyError { kind: "secret", prefix: SECRET_PREFIX })?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }
}

/// Whom to believe: the pinned keys, and the newest version seen of each workload of each key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    keys: Vec<[u8; 32]>,
    newest: BTreeMap<String, semver::Version>,
}

impl Trust {
    /// Trusts one key.
    pub fn key(key: PublicKey) -> Trust {
        let mut trust = Trust::default();
        trust.pin(key);
        trust
    }

    /// Trusts another key.
    pub fn pin(&mut self, key: PublicKey) {
        if !self.keys.contains(&key.0) {
            self.keys.push(key.0);
        }
    }

    fn slot(key: PublicKey, name: &str) -> String {
        format!("{}/{name}", hex(&key.0))
    }

    /// Remembers a version, so that older ones are refused from now on.
    pub fn remember(&mut self, bundle: &VerifiedBundle) {
        let manifest = &bundle.program().manifest;
        let slot = Self::slot(bundle.signer, &manifest.name);
        let newest = self.newest.entry(slot).or_insert_with(|| manifest.version.clone());
        if *newest < manifest.version {
            *newest = manifest.version.clone();
        }
    }

    /// The versions remembered, by key and name.
    pub fn newest(&self) -> &BTreeMap<String, semver::Version> {
        &self.newest
    }

    /// Takes over versions that were remembered before.
    pub fn set_newest(&mut self, newest: BTreeMap<String, semver::Version>) {
        self.newest = newest;
    }
}

/// The hash that names a workload.
pub fn manifest_hash(manifest: &Manifest) -> [u8; 32] {
    blake3::derive_key(HASH_CONTEXT, &manifest_bytes(manifest))
}

fn manifest_bytes(manifest: &Manifest) -> Vec<u8> {
    // Serialising plain values into memory has no way to fail.
    postcard::to_allocvec(manifest).unwrap_or_default()
}

/// Signs what is in a program, as it is: the bytes of a bundle, if they are not longer than [`BUNDLE_BYTES_MAX`].
pub fn sign(program: &Program, key: &SecretKey) -> Vec<u8> {
    let (manifest, reflection) = (manifest_bytes(&program.manifest), program.reflection().to_bytes());
    let signature = key.0.sign(&signed_text(&blake3::derive_key(HASH_CONTEXT, &manifest), &reflection));
    let mut bytes = Vec::with_capacity(HEAD + manifest.len() + reflection.len() + TAIL);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(reflection.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&manifest);
    bytes.extend_from_slice(&reflection);
    bytes.extend_from_slice(&key.public().0);
    bytes.extend_from_slice(&signature.to_bytes());
    bytes
}

fn signed_text(hash: &[u8; 32], reflection: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, hash, &blake3::derive_key(REFLECTION_CONTEXT, reflection)].concat()
}

/// A bundle's parts, of the lengths that its head says.
struct Frame<'a> {
    manifest: &'a [u8],
    reflection: &'a [u8],
    key: PublicKey,
    signature: Signature,
}

impl<'a> Frame<'a> {
    fn new(bytes: &'a [u8]) -> Result<Frame<'a>, BundleError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { given: bytes.len(), limit: BUNDLE_BYTES_MAX });
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(BundleError::NotABundle)?;
        let short = BundleError::Length { given: bytes.len(), expected: (HEAD + TAIL) as u64 };
        let Some((format, rest)) = rest.split_first_chunk() else { return Err(short) };
        let format = u16::from_le_bytes(*format);
        if format != FORMAT {
            return Err(BundleError::Format { given: format, known: FORMAT });
        }
        let Some((manifest, rest)) = rest.split_first_chunk() else { return Err(short) };
        let Some((reflection, parts)) = rest.split_first_chunk() else { return Err(short) };
        let [manifest, reflection] = [manifest, reflection].map(|length| u64::from(u32::from_le_bytes(*length)));
        let expected = (HEAD + TAIL) as u64 + manifest + reflection;
        if bytes.len() as u64 != expected {
            return Err(BundleError::Length { given: bytes.len(), expected });
        }
        let (manifest, rest) = parts.split_at(manifest as usize);
        let (reflection, tail) = rest.split_at(reflection as usize);
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        key.copy_from_slice(&tail[..32]);
        signature.copy_from_slice(&tail[32..]);
        Ok(Frame { manifest, reflection, key: PublicKey(key), signature: Signature::from_bytes(&signature) })
    }
}

/// A workload that a trusted key signed: the only thing an executor runs.
#[derive(Clone, Debug)]
pub struct VerifiedBundle {
    program: Program,
    signer: PublicKey,
    bytes: Vec<u8>,
    /// Whether its kernels have been checked here.
    checked: OnceLock<()>,
}

impl VerifiedBundle {
    /// Checks a workload and signs it.
    ///
    /// **Errors:** a check fails, or the bundle would be larger than any that is read.
    pub fn sign(manifest: Manifest, key: &SecretKey) -> Result<VerifiedBundle, BundleError> {
        let program = Program::check(manifest)?;
        let bytes = sign(&program, key);
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { given: bytes.len(), limit: BUNDLE_BYTES_MAX });
        }
        Ok(VerifiedBundle { program, signer: key.public(), bytes, checked: OnceLock::from(()) })
    }

    /// Verifies a bundle's bytes, first the signature, then what they say.
    ///
    /// **Errors:** [`BundleError`]; nothing is compiled or run for a bundle that fails.
    pub fn verify(bytes: &[u8], trust: &Trust) -> Result<VerifiedBundle, BundleError> {
        let mut bundle = VerifiedBundle::verify_signature(bytes, trust)?;
        bundle.program.warnings = bundle.found()?;
        bundle.checked = OnceLock::from(());
        Ok(bundle)
    }

    /// The same, but for what kernels do: that is taken from the signer, whose checks found it. For who runs them where the WGSL is validated once
    /// more, as browsers do; the cpu executor checks them before it compiles them.
    ///
    /// **Errors:** [`BundleError`]; nothing is compiled or run for a bundle that fails.
    pub fn verify_signature(bytes: &[u8], trust: &Trust) -> Result<VerifiedBundle, BundleError> {
        let Frame { manifest: body, reflection, key, signature } = Frame::new(bytes)?;
        if !trust.keys.contains(&key.0) {
            return Err(BundleError::Untrusted { key });
        }
        let hash = blake3::derive_key(HASH_CONTEXT, body);
        VerifyingKey::from_bytes(&key.0)
            .and_then(|verifying| verifying.verify_strict(&signed_text(&hash, reflection), &signature))
            .map_err(|_| BundleError::Signature { key })?;
        let (manifest, rest): (Manifest, &[u8]) =
            postcard::take_from_bytes(body).map_err(|error| BundleError::Manifest { cause: error.to_string() })?;
        if !rest.is_empty() || manifest_bytes(&manifest) != body {
            return Err(BundleError::NotCanonical);
        }
        if let Some(newest) = trust.newest.get(&Trust::slot(key, &manifest.name)).filter(|newest| **newest > manifest.version) {
            return Err(BundleError::Older { name: manifest.name, given: manifest.version, newest: newest.clone() });
        }
        let reflection = Reflection::from_bytes(reflection).map_err(|cause| BundleError::Reflection { cause })?;
        Ok(VerifiedBundle { program: Program::new(manifest, reflection)?, signer: key, bytes: bytes.to_vec(), checked: OnceLock::new() })
    }

    /// Checks the kernels, unless that has been done.
    ///
    /// **Errors:** a check fails, or what the bundle says of its kernels is not what the checks find.
    pub fn check_kernels(&self) -> Result<(), BundleError> {
        if self.checked.get().is_none() {
            self.found()?;
            // Whoever was faster found the same.
            let _ = self.checked.set(());
        }
        Ok(())
    }

    /// Holds the kernels against what the bundle says of them; what is to be warned of.
    fn found(&self) -> Result<Vec<String>, BundleError> {
        let found = check::kernels(&self.program.manifest)?;
        if found.reflection == self.program.reflection() { Ok(found.warnings) } else { Err(BundleError::Untrue { key: self.signer }) }
    }

    /// The workload.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Who signed it.
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// The bytes that were verified.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
