//! A certificate that was given, for the whole port.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
}

/// Speaks TLS with this chain, the leaf first, and its key.
///
/// **Errors:** [`TlsError`].
pub(super) fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let wrong = |path: &Path, what| {
        let path = path.to_path_buf();
        move |cause: tokio_rustls::rustls::pki_types::pem::Error| TlsError::File { path, what, cause: cause.to_string() }
    };
    let certificates = CertificateDer::pem_file_iter(chain).map_err(wrong(chain, "certificate"))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(wrong(chain, "certificate"))?;
    if certificates.is_empty() {
        return Err(TlsError::File { path: chain.into(), what: "certificate", cause: "there is none in it".into() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(wrong(key, "private key"))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let pair = |cause: tokio_rustls::rustls::Error| TlsError::Pair { cause: cause.to_string() };
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(pair)?;
    Ok(TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(certificates, key).map_err(pair)?)))
}
