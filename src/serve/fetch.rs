//! The bundle of a link, from the page that the link names.
//!
//! Invariant: what comes is bytes, bounded; whether they are what the link says is found out as for any other bundle.

use std::io::ErrorKind;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use peercompute_buffers::digest::hex;
use peercompute_net::transport::websocket::{self, Fingerprint};
use ureq::tls::{RootCerts, TlsConfig};

use crate::link::{Link, PageAddress};

/// The largest bundle; those that are signed here are smaller by far.
const BUNDLE_BYTES_MAX: usize = 64 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Why a page gave no bundle.
#[derive(Debug, thiserror::Error)]
#[error("{url} gives no bundle: {cause}")]
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
    let path = format!("bundles/{}.pcb", hex(&link.bundle));
    let url = format!("{page}{path}");
    let named = link.addresses.iter().find_map(|address| Fingerprint::in_address(address));
    let fetched = match (named, PageAddress::parse(page)) {
        (Some(named), Some(page)) if page.is_secure => fetch_named(&page, &format!("/{path}"), named),
        _ => fetch(&url),
    };
    fetched.map_err(|cause| FetchError { url, cause })
}

fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let trust = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).tls_config(trust).build().into();
    let fetched = agent.get(url).call().and_then(|mut answer| answer.body_mut().with_config().limit(BUNDLE_BYTES_MAX as u64).read_to_vec());
    fetched.map_err(unheard)
}

fn unheard(error: impl std::fmt::Display) -> String {
    format!("{error}; is the server still there?")
}

/// From a server whose certificate the link names.
fn fetch_named(page: &PageAddress, path: &str, named: Fingerprint) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let fetched = runtime.block_on(async { tokio::time::timeout(LIMIT, get(page, path, named)).await });
    match fetched {
        // Somebody is there, and says what to do.
        Ok(Err(error)) if error.downcast_ref().is_some_and(|error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied) => {
            Err(error.to_string())
        }
        Ok(fetched) => fetched.map_err(unheard),
        Err(_) => Err(unheard(format!("no answer in {} s", LIMIT.as_secs()))),
    }
}

async fn get(page: &PageAddress, path: &str, named: Fingerprint) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let PageAddress { host, port, .. } = page;
    let stream = websocket::connect(host, *port, Some(named)).await?;
    let (mut asking, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer.
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, format!("{host}:{port}")).body(Body::empty())?;
    let answer = asking.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("http status: {}", answer.status().as_u16()).into());
    }
    Ok(axum::body::to_bytes(Body::new(answer.into_body()), BUNDLE_BYTES_MAX).await?.into())
}
