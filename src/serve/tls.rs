//! TLS for the whole port, with a certificate that was given, is made here, or comes from an authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use peercompute_net::transport::websocket::Fingerprint;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::acme::{Acme, Renewal};
use super::self_signed;
use crate::link::PageAddress;

/// Where the port's certificate comes from.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// Two files in PEM.
    Given {
        /// The certificate, and those that lead to an authority.
        chain: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made here, for the addresses of the port.
    SelfSigned {
        /// Where it is kept, with its key.
        file: PathBuf,
    },
    /// An authority's.
    Acme(Acme),
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("`{}` is no {what} in PEM: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// The key is not the certificate's, or of a kind that is not used any more.
    #[error("the certificate and its key do not fit: {cause}")]
    Pair {
        /// What is wrong.
        cause: String,
    },
    /// What is kept of a certificate cannot be.
    #[error("cannot {action} the certificate `{}`: {cause}", path.display())]
    Keep {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        cause: std::io::Error,
    },
    /// No certificate can be for this.
    #[error("`{given}` is no name for a certificate: give `--public` one like https://example.com")]
    Name {
        /// What was given.
        given: String,
    },
    /// It cannot be made.
    #[error("cannot make a certificate: {cause}")]
    Make {
        /// What is wrong.
        cause: String,
    },
    /// No authority gives a certificate for this.
    #[error("`{given}` {why}: `--acme` wants the name under which others reach this port")]
    Domain {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An authority writes to people.
    #[error("`{given}` is no mail address: `--acme-contact` wants one like ada@example.com")]
    Contact {
        /// What was given.
        given: String,
    },
    /// An authority is found by a URL.
    #[error("`{given}` is not like https://ca.example.com/directory, which `--acme-directory` wants")]
    Directory {
        /// What was given.
        given: String,
    },
    /// The certificate would be for another name than the link's.
    #[error("`--public {public}` is not at {domain}, which `--acme` gets the certificate for: leave it out, or name https://{domain}")]
    OtherName {
        /// The public address.
        public: String,
        /// The certificate's name.
        domain: String,
    },
}

/// How the port speaks TLS.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    /// Of a certificate that nobody vouches for.
    pub(super) named: Option<Fingerprint>,
    /// What gets the certificate, and a new one in time.
    pub(super) renewal: Option<Renewal>,
}

impl Tls {
    /// Reads, makes or asks for the certificate. `hosts` are those of the port.
    ///
    /// **Errors:** [`TlsError`].
    pub(super) fn open(certificate: &Certificate, hosts: impl Iterator<Item = String>) -> Result<Tls, TlsError> {
        match certificate {
            Certificate::Given { chain, key } => {
                let (config, _) = with_pair((chain, &read(chain, "certificate")?), (key, &read(key, "private key")?))?;
                Ok(Tls { acceptor: acceptor(config), named: None, renewal: None })
            }
            Certificate::SelfSigned { file } => {
                let pem = self_signed::open(file, hosts)?;
                let (config, named) = with_pair((file, &pem), (file, &pem))?;
                Ok(Tls { acceptor: acceptor(config), named: Some(named), renewal: None })
            }
            Certificate::Acme(acme) => {
                let (config, renewal) = acme.open()?;
                Ok(Tls { acceptor: acceptor(config), named: None, renewal: Some(renewal) })
            }
        }
    }
}

impl Certificate {
    /// Where the port is for others, where nothing else is said: an authority finds it under its name, at the port of https.
    ///
    /// **Errors:** something else is said, and is elsewhere.
    pub(super) fn public(&self, given: Option<PageAddress>) -> Result<Option<PageAddress>, TlsError> {
        let Certificate::Acme(Acme { domain, .. }) = self else { return Ok(given) };
        match given {
            Some(public) if !public.is_secure || !public.host.eq_ignore_ascii_case(domain) => {
                Err(TlsError::OtherName { public: public.url(), domain: domain.clone() })
            }
            Some(public) => Ok(Some(public)),
            None => Ok(Some(PageAddress { is_secure: true, host: domain.clone(), port: 443 })),
        }
    }
}

fn acceptor(config: ServerConfig) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(config))
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|cause| TlsError::File { path: path.into(), what, cause: cause.to_string() })
}

/// Speaks TLS with this chain, the leaf first, and its key; the files are for who made a mistake.
fn with_pair((chain, certificates): (&Path, &[u8]), (key, secret): (&Path, &[u8])) -> Result<(ServerConfig, Fingerprint), TlsError> {
    let wrong = |path: &Path, what| {
        let path = path.to_path_buf();
        move |cause: tokio_rustls::rustls::pki_types::pem::Error| TlsError::File { path, what, cause: cause.to_string() }
    };
    let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>().map_err(wrong(chain, "certificate"))?;
    let Some(leaf) = certificates.first() else {
        return Err(TlsError::File { path: chain.into(), what: "certificate", cause: "there is none in it".into() });
    };
    let fingerprint = Fingerprint::of(leaf);
    let secret = PrivateKeyDer::from_pem_slice(secret).map_err(wrong(key, "private key"))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let pair = |cause: tokio_rustls::rustls::Error| TlsError::Pair { cause: cause.to_string() };
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(pair)?;
    Ok((config.with_no_client_auth().with_single_cert(certificates, secret).map_err(pair)?, fingerprint))
}
