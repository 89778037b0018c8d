//! Which certificate a dial over TLS takes: one that an authority of this machine vouches for, or the very one that the address names.
//!
//! ```text
//!  /ip4/192.0.2.1/tcp/8080/wss/certhash/uEi…/p2p/12D3KooW…
//!                              └ multihash, SHA-256, of the certificate: of a server that no authority knows
//! ```
//!
//! Whoever is at the other end proves its identity inside of TLS all the same. Invariant: a certificate that is neither vouched for nor
//! named is refused, and with it the connection, before anything was sent on it.

use std::fmt;
use std::io;
use std::sync::Arc;

use ::libp2p::Multiaddr;
use ::libp2p::multiaddr::Protocol;
use ::libp2p::multihash::Multihash;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// SHA-256 among multihashes.
const SHA256: u64 = 0x12;

/// The SHA-256 of a certificate, as browsers show it to who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Upper case, in pairs: what `openssl x509 -fingerprint -sha256` prints.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, byte)| write!(f, "{}{byte:02X}", if at > 0 { ":" } else { "" }))
    }
}

impl Fingerprint {
    /// That of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(::ring::digest::digest(&::ring::digest::SHA256, certificate).as_ref());
        Fingerprint(bytes)
    }

    /// That which an address names, if it names one.
    pub fn in_address(address: &str) -> Option<Fingerprint> {
        let address: Multiaddr = address.parse().ok()?;
        address.iter().find_map(|part| if let Protocol::Certhash(hash) = part { Fingerprint::from_multihash(&hash) } else { None })
    }

    /// An address that names it, from one of a WebSocket over TLS without an identity.
    pub fn named_by(&self, address: &str) -> String {
        let hash = Multihash::wrap(SHA256, &self.0).expect("32 bytes fit");
        format!("{address}{}", Protocol::Certhash(hash))
    }

    pub(super) fn from_multihash(hash: &Multihash<64>) -> Option<Fingerprint> {
        (hash.code() == SHA256).then(|| hash.digest().try_into().ok().map(Fingerprint)).flatten()
    }
}

/// Speaks TLS with a server. Its certificate is `named`, or an authority of this machine vouches for it.
///
/// **Errors**: it is neither, nobody is there, or it is no name.
pub async fn connect(host: &str, port: u16, named: Option<Fingerprint>) -> io::Result<TlsStream<TcpStream>> {
    let host = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| io::Error::new(io::ErrorKind::InvalidInput, cause))?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(client_config(named)?).connect(name, stream).await.map_err(plain)
}

/// What [`Named`] says of a certificate, without what TLS puts before it.
fn plain(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::General(text)) => io::Error::new(io::ErrorKind::PermissionDenied, text.clone()),
        _ => error,
    }
}

/// Trusts whom this machine trusts, and the certificate that is `named`.
///
/// **Errors**: this machine trusts nobody, and none is named.
pub fn client_config(named: Option<Fingerprint>) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() && named.is_none() {
        let cause = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("this machine has no certificates to trust{cause}")));
    }
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let config = match named {
        None => config.with_root_certificates(roots),
        Some(named) => {
            let authorities = if roots.is_empty() {
                None
            } else {
                Some(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(io::Error::other)?)
            };
            config.dangerous().with_custom_certificate_verifier(Arc::new(Named { named, authorities, provider }))
        }
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Takes one certificate whoever signed it, whatever name and dates stand in it; any other as always.
#[derive(Debug)]
struct Named {
    named: Fingerprint,
    /// If this machine knows any.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let given = Fingerprint::of(leaf);
        if given == self.named {
            return Ok(ServerCertVerified::assertion());
        }
        match self.authorities.as_ref().map(|authorities| authorities.verify_server_cert(leaf, chain, name, ocsp, now)) {
            Some(Ok(verified)) => Ok(verified),
            Some(Err(_)) | None => Err(Error::General(format!(
                "the server's certificate is {given}, not {} as the link says, and no authority vouches for it: ask for a new link",
                self.named
            ))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_certificate() {
        let named = Fingerprint::of(b"a certificate");
        let address = named.named_by("/ip4/192.0.2.1/tcp/1/wss");
        assert!(address.starts_with("/ip4/192.0.2.1/tcp/1/wss/certhash/uEi"), "{address}");
        assert_eq!(Fingerprint::in_address(&format!("{address}/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")), Some(named));
        assert_eq!(Fingerprint::in_address("/ip4/192.0.2.1/tcp/1/wss"), None);
        let known = "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";
        assert_eq!(Fingerprint::of(b"abc").to_string(), known);
    }
}
