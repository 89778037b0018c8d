//! A workload as it is signed, stored and carried: canonical bytes, a hash, a signature.
//!
//! ```text
//! 0   8  "PCBUNDLE"
//! 8   2  format, u16 LE: 1
//! 10  4  manifest length n, u32 LE
//! 14  n  manifest, postcard (plan/formats/bundle.md)
//!     32 the signer's Ed25519 public key
//!     64 signature over "peercompute bundle signature v1\0" + hash
//! hash = BLAKE3 in derive-key mode, context "peercompute bundle manifest v1", of the manifest
//! ```
//!
//! Invariant: a [`VerifiedBundle`] exists only for bytes whose signature verified (`verify_strict`)
//! against a pinned key, that decode to a checked program and encode to the same bytes again.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use peercompute_buffers::digest::hex;
use serde::{Deserialize, Serialize};

use crate::diagnose::WorkloadError;
use crate::manifest::Manifest;
use crate::program::Program;

const MAGIC: &[u8; 8] = b"PCBUNDLE";
const FORMAT: u16 = 1;
const HEAD: usize = 14;
const TAIL: usize = 96;
const HASH_CONTEXT: &str = "peercompute bundle manifest v1";
const SIGNATURE_DOMAIN: &[u8] = b"peercompute bundle signature v1\0";

/// The largest bundle that is read, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 256 << 20;

/// Why bytes are not a bundle that may run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The bytes do not start as a bundle does.
    #[error("not a bundle: the first bytes are not `PCBUNDLE`")]
    NotABundle,
    /// A newer format.
    #[error("the bundle has format {given}, this build reads format {known}")]
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

/// Signs a manifest: the bytes of a bundle.
pub fn sign(manifest: &Manifest, key: &SecretKey) -> Vec<u8> {
    let body = manifest_bytes(manifest);
    let signature = key.0.sign(&signed_text(&blake3::derive_key(HASH_CONTEXT, &body)));
    let mut bytes = Vec::with_capacity(HEAD + body.len() + TAIL);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&key.public().0);
    bytes.extend_from_slice(&signature.to_bytes());
    bytes
}

fn signed_text(hash: &[u8; 32]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, hash].concat()
}

/// A workload that a trusted key signed and that passed every check: the only thing an executor runs.
#[derive(Clone, Debug)]
pub struct VerifiedBundle {
    program: Program,
    signer: PublicKey,
    bytes: Vec<u8>,
}

impl VerifiedBundle {
    /// Verifies a bundle's bytes, first the signature, then what they say.
    ///
    /// **Errors:** [`BundleError`]; nothing is compiled or run for a bundle that fails.
    pub fn verify(bytes: &[u8], trust: &Trust) -> Result<VerifiedBundle, BundleError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { given: bytes.len(), limit: BUNDLE_BYTES_MAX });
        }
        if !bytes.starts_with(MAGIC) {
            return Err(BundleError::NotABundle);
        }
        let word =
            |at: usize, length: usize| bytes.get(at..at + length).ok_or(BundleError::Length { given: bytes.len(), expected: (HEAD + TAIL) as u64 });
        let format = u16::from_le_bytes([word(8, 2)?[0], word(8, 2)?[1]]);
        if format != FORMAT {
            return Err(BundleError::Format { given: format, known: FORMAT });
        }
        let length = word(10, 4)?.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let expected = HEAD as u64 + length + TAIL as u64;
        if bytes.len() as u64 != expected {
            return Err(BundleError::Length { given: bytes.len(), expected });
        }
        let (body, tail) = bytes[HEAD..].split_at(length as usize);
        let mut key = PublicKey([0; 32]);
        key.0.copy_from_slice(&tail[..32]);
        let mut signature = [0; 64];
        signature.copy_from_slice(&tail[32..]);
        if !trust.keys.contains(&key.0) {
            return Err(BundleError::Untrusted { key });
        }
        let hash = blake3::derive_key(HASH_CONTEXT, body);
        VerifyingKey::from_bytes(&key.0)
            .and_then(|verifying| verifying.verify_strict(&signed_text(&hash), &Signature::from_bytes(&signature)))
            .map_err(|_| BundleError::Signature { key })?;
        let (manifest, rest): (Manifest, &[u8]) =
            postcard::take_from_bytes(body).map_err(|error| BundleError::Manifest { cause: error.to_string() })?;
        if !rest.is_empty() || manifest_bytes(&manifest) != body {
            return Err(BundleError::NotCanonical);
        }
        if let Some(newest) = trust.newest.get(&Trust::slot(key, &manifest.name)).filter(|newest| **newest > manifest.version) {
            return Err(BundleError::Older { name: manifest.name, given: manifest.version, newest: newest.clone() });
        }
        Ok(VerifiedBundle { program: Program::check(manifest)?, signer: key, bytes: bytes.to_vec() })
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
