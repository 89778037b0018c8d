//! The bundle of a link, from the page that the link names.
//!
//! Invariant: what comes is bytes, bounded; whether they are what the link says is found out as for any other bundle.

use std::time::Duration;

use peercompute_buffers::digest::hex;
use ureq::tls::{RootCerts, TlsConfig};

use crate::link::Link;

/// The largest bundle; those that are signed here are smaller by far.
const BUNDLE_BYTES_MAX: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Why a page gave no bundle.
#[derive(Debug, thiserror::Error)]
#[error("{url} gives no bundle: {cause}; is the server still there?")]
pub struct FetchError {
    /// What was asked for.
    pub url: String,
    /// What came instead.
    pub cause: String,
}

/// Asks a page for its run's bundle. Nobody has verified it yet.
///
/// **Errors:** [`FetchError`].
pub fn fetch_bundle(page: &str, link: &Link) -> Result<Vec<u8>, FetchError> {
    let url = format!("{page}bundles/{}.pcb", hex(&link.bundle));
    let trust = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).tls_config(trust).build().into();
    let fetched = agent.get(&url).call().and_then(|mut answer| answer.body_mut().with_config().limit(BUNDLE_BYTES_MAX).read_to_vec());
    fetched.map_err(|error| FetchError { url, cause: error.to_string() })
}
