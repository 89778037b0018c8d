//! A certificate that an authority gives to whoever answers at a name: ACME, with the proof (TLS-ALPN-01) on the same port.
//!
//! ```text
//!  order ─► the authority connects to port 443 of the name, with `acme-tls/1` ─► certificate ─► cache ─► again after two thirds of its time
//! ```
//!
//! The exchange goes on beside the server. Until there is a certificate no handshake succeeds. Invariant: what is wrong with what was
//! asked for is told before anything starts, and nothing is asked of the authority then.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::Uri;
use futures::StreamExt;
use peercompute_net::transport::websocket;
use rustls_acme::acme::LETS_ENCRYPT_PRODUCTION_DIRECTORY;
use rustls_acme::caches::DirCache;
use rustls_acme::{AcmeConfig, AcmeState, EventError, EventOk};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{DnsName, ServerName};

use super::tls::TlsError;

/// What is asked of an authority.
#[derive(Clone, Debug)]
pub struct Acme {
    /// The name that the certificate is for.
    pub domain: String,
    /// Whom the authority writes to: a mail address.
    pub contact: String,
    /// The authority's directory; by default that of Let's Encrypt.
    pub directory: Option<String>,
    /// A folder for the account and the certificate, its owner's alone.
    pub cache: PathBuf,
}

/// The exchange with an authority.
pub(super) struct Renewal {
    state: AcmeState<std::io::Error>,
    domain: String,
}

impl Acme {
    /// Whether it can be asked for at all.
    ///
    /// **Errors:** [`TlsError`]: a domain, contact or directory that is none.
    fn check(&self) -> Result<(), TlsError> {
        let given = || self.domain.clone();
        match ServerName::try_from(self.domain.as_str()) {
            Ok(ServerName::DnsName(_)) if DnsName::try_from(self.domain.as_str()).is_ok_and(|name| name.as_ref().contains('.')) => {}
            Ok(ServerName::IpAddress(_)) => return Err(TlsError::Domain { given: given(), why: "is an address, and authorities vouch for names" }),
            _ if self.domain.starts_with("*.") => {
                return Err(TlsError::Domain { given: given(), why: "is for many names, which takes a proof by DNS" });
            }
            _ => return Err(TlsError::Domain { given: given(), why: "is no name like example.com" }),
        }
        let is_mail =
            |(name, host): (&str, &str)| !name.is_empty() && ServerName::try_from(host).is_ok_and(|name| matches!(name, ServerName::DnsName(_)));
        if !self.contact.split_once('@').is_some_and(is_mail) || self.contact.contains([' ', ',', ':', '?']) {
            return Err(TlsError::Contact { given: self.contact.clone() });
        }
        match &self.directory {
            Some(url) if !url.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some()) => {
                Err(TlsError::Directory { given: url.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What the port speaks TLS with, and what keeps the certificate.
    ///
    /// **Errors:** [`TlsError`].
    pub(super) fn open(&self) -> Result<(ServerConfig, Renewal), TlsError> {
        self.check()?;
        // Whom the authority's own certificate is judged by.
        let trust = websocket::client_config(None).map_err(|cause| TlsError::Make { cause: cause.to_string() })?;
        let state = AcmeConfig::new_with_client_config([&self.domain], trust)
            .contact_push(format!("mailto:{}", self.contact))
            .directory(self.directory.as_deref().unwrap_or(LETS_ENCRYPT_PRODUCTION_DIRECTORY))
            .cache(DirCache::new(self.cache.clone()))
            .state();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|cause| TlsError::Make { cause: cause.to_string() })?;
        let mut config = config.with_no_client_auth().with_cert_resolver(state.resolver());
        // Whoever offers the second alone is the authority, and is shown the proof.
        config.alpn_protocols = [&b"http/1.1"[..], b"acme-tls/1"].map(<[u8]>::to_vec).into();
        Ok((config, Renewal { state, domain: self.domain.clone() }))
    }
}

impl Renewal {
    /// Gets the certificate, and a new one in time, for ever; says what happens.
    pub(super) async fn keep(mut self, tell: &(dyn Fn(String) + Send + Sync)) {
        let domain = &self.domain;
        while let Some(event) = self.state.next().await {
            match event {
                Ok(EventOk::DeployedNewCert) => tell(format!("there is a certificate for {domain}")),
                Ok(EventOk::DeployedCachedCert) => tell(format!("the certificate for {domain} is still good")),
                Ok(EventOk::CertCacheStore | EventOk::AccountCacheStore) => {}
                Err(EventError::CertCacheStore(cause) | EventError::AccountCacheStore(cause)) => {
                    tell(format!("the certificate for {domain} cannot be kept, and is asked for again after a restart: {cause}"));
                }
                Err(error) => tell(format!("there is no new certificate for {domain} yet: {error}; it is tried again")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_for_is_named() {
        let acme = |domain: &str, contact: &str, directory: Option<&str>| Acme {
            domain: domain.into(),
            contact: contact.into(),
            directory: directory.map(str::to_owned),
            cache: PathBuf::new(),
        };
        let check = |acme: Acme, words: &str| {
            let error = acme.check().unwrap_err().to_string();
            assert!(error.contains(words), "{acme:?}: {error}");
        };
        let mail = "ada@example.com";
        acme("example.com", mail, None).check().unwrap();
        acme("a-b.example.com", mail, Some("https://localhost:14000/dir")).check().unwrap();
        for address in ["192.0.2.1", "::1"] {
            check(acme(address, mail, None), "is an address, and authorities vouch for names");
        }
        check(acme("*.example.com", mail, None), "proof by DNS");
        for none in ["", "localhost", "https://example.com", "example.com:443", "exam ple.com", "a..b"] {
            check(acme(none, mail, None), "is no name like example.com");
        }
        for none in ["", "ada", "@example.com", "ada@", "mailto:ada@example.com", "ada@example.com,bob@example.com", "ada@192.0.2.1"] {
            check(acme("example.com", none, None), "is no mail address");
        }
        for none in ["", "staging", "http://ca.example.com/directory", "https://"] {
            check(acme("example.com", mail, Some(none)), "is not like https://");
        }
    }
}
