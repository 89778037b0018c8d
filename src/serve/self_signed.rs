//! A certificate that no authority signed: for a phone in the same Wi-Fi, whose browser gives WebGPU to https alone.
//!
//! One file holds it and its key. It stays as long as it can, because an exception that a browser was told to make is for this one
//! certificate. Invariant: the file is whole, and its owner's alone.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::tls::TlsError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As long as an authority's may last.
const VALID: Duration = Duration::from_secs(397 * DAY.as_secs());
/// One that ends sooner is made anew.
const LEFT_MIN: Duration = Duration::from_secs(30 * DAY.as_secs());
/// By how much a phone's clock may be behind.
const CLOCK: Duration = DAY;
/// What is always in it: whoever opened the port to the house may still use it from here.
const HOME: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The certificate and key for these hosts, as PEM: those of the file, or new ones in their place.
///
/// **Errors:** the file cannot be read or written, or a host is no name.
pub(super) fn open(file: &Path, hosts: impl Iterator<Item = String>) -> Result<Vec<u8>, TlsError> {
    let mut names: Vec<String> = HOME.map(str::to_owned).into();
    names.extend(hosts.map(|host| host.trim_matches(['[', ']']).to_owned()));
    names.dedup();
    if let Some(name) = names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
        return Err(TlsError::Name { given: name.clone() });
    }
    match std::fs::read(file) {
        Ok(pem) if is_good(&pem, &names, UnixTime::now()) => return Ok(pem),
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(TlsError::Keep { action: "read", path: file.into(), cause }),
        _ => {}
    }
    let pem = make(names, UnixTime::now())?;
    write(file, &pem).map_err(|cause| TlsError::Keep { action: "write", path: file.into(), cause })?;
    Ok(pem)
}

/// Whether a browser that trusts this certificate takes it under every name, for a while to come.
fn is_good(pem: &[u8], names: &[String], now: UnixTime) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(pem) else { return false };
    let mut roots = RootCertStore::empty();
    if roots.add(certificate.clone()).is_err() {
        return false;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider())).build();
    let then = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + LEFT_MIN);
    let is_for = |verifier: &WebPkiServerVerifier, name: &String| {
        [now, then].into_iter().all(|at| match ServerName::try_from(name.as_str()) {
            Ok(name) => verifier.verify_server_cert(&certificate, &[], &name, &[], at).is_ok(),
            Err(_) => false,
        })
    };
    verifier.is_ok_and(|verifier| names.iter().all(|name| is_for(&verifier, name)))
}

fn make(names: Vec<String>, now: UnixTime) -> Result<Vec<u8>, TlsError> {
    let wrong = |cause: &dyn std::fmt::Display| TlsError::Make { cause: cause.to_string() };
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    let now = now.ok_or_else(|| wrong(&"the clock is wrong"))?;
    let mut certificate = CertificateParams::new(names).map_err(|error| wrong(&error))?;
    certificate.distinguished_name.push(DnType::CommonName, "PeerCompute, self-signed");
    (certificate.not_before, certificate.not_after) = (now - CLOCK, now + (VALID - CLOCK));
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(|error| wrong(&error))?;
    let certificate = certificate.self_signed(&key).map_err(|error| wrong(&error))?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()).into_bytes())
}

/// Whole or not at all. A file like this is its owner's alone from the start.
fn write(file: &Path, pem: &[u8]) -> std::io::Result<()> {
    let mut next = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
    next.write_all(pem)?;
    next.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_stays_until_it_ends_or_a_name_is_missing() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let at = |days: u32| UnixTime::since_unix_epoch(20_000 * DAY + days * DAY);
        let pem = make(names(&["localhost", "192.0.2.1", "::1", "example.com"]), at(0)).unwrap();
        let check = |of: &[&str], days, is: bool| assert_eq!(is_good(&pem, &names(of), at(days)), is, "{of:?} after {days} days");
        check(&["localhost", "192.0.2.1", "::1", "example.com"], 0, true);
        check(&["192.0.2.1"], 0, true);
        check(&["192.0.2.2"], 0, false);
        check(&["localhost", "www.example.com"], 0, false);
        check(&["localhost"], 397 - 1 - 30 - 1, true);
        check(&["localhost"], 397 - 1 - 30 + 1, false);
        assert!(!is_good(b"", &[], at(0)));
        assert!(!is_good(&pem[..pem.len() / 8], &[], at(0)));
    }
}
