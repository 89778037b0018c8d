//! A certificate from an authority: Pebble, which asks of this program what Let's Encrypt would, on this machine alone.
//!
//! Needs `pebble` and `pebble-challtestsrv`, which Debian has in one package.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

mod place;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use place::{Peer, Place, wait_for};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

const DOMAIN: &str = "example.test";

/// A process that ends with us.
struct Process(Child);

impl Process {
    fn start(program: &str, args: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.args(args).env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Process(child.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Who is shown this certificate trusts what is below it, and goes on: the leaf, and what the server answers at a path.
fn visit(port: u16, name: &str, root: &CertificateDer<'static>, path: &str) -> std::io::Result<(Vec<u8>, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let mut connection = ClientConnection::new(config, name.to_owned().try_into().unwrap()).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut tls = Stream::new(&mut connection, &mut stream);
    tls.write_all(format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer)?;
    Ok((connection.peer_certificates().unwrap()[0].to_vec(), answer))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_s_certificate_is_got_used_and_kept() {
    let place = Place::new();
    let [directory, management, names, names_management, port] = free_ports();
    // The authority has a certificate too.
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [chain, key, config] = ["ca.pem", "ca.key", "pebble.json"].map(|name| place.path(name).to_str().unwrap().to_owned());
    std::fs::write(&chain, own.cert.pem()).unwrap();
    std::fs::write(&key, own.key_pair.serialize_pem()).unwrap();
    let settings = serde_json::json!({ "pebble": {
        "listenAddress": format!("127.0.0.1:{directory}"), "managementListenAddress": format!("127.0.0.1:{management}"),
        "certificate": chain, "privateKey": key, "httpPort": 1, "tlsPort": port,
    } });
    std::fs::write(&config, settings.to_string()).unwrap();
    // Every name is this machine's.
    let [names, names_management] = [names, names_management].map(|port| format!("127.0.0.1:{port}"));
    let only_names = ["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""];
    let _names = Process::start("pebble-challtestsrv", &[&only_names[..], &["-dns01", &names, "-management", &names_management]].concat());
    let _authority = Process::start("pebble", &["-config", &config, "-dnsserver", &names]);
    let own = CertificateDer::from(own.cert.der().to_vec());
    let answer = wait_for(|| visit(management, "localhost", &own, "/roots/0").ok()).1;
    let root = CertificateDer::from_pem_slice(answer.as_bytes()).unwrap();

    let (url, public, listen) = (format!("https://localhost:{directory}/dir"), format!("https://{DOMAIN}:{port}"), format!("127.0.0.1:{port}"));
    let serve = || {
        let heat = ["serve", "shaders/physics/heat", "--shape", "64,64", "--executor", "cpu", "--threads", "1", "--throttle", "0.1"];
        let acme = ["--acme", DOMAIN, "--acme-contact", "ada@example.com", "--acme-directory", &url, "--public", &public, "--listen", &listen];
        let mut command = place.command(&[&heat[..], &acme].concat());
        command.env("SSL_CERT_FILE", &chain);
        Peer::start(command)
    };
    let noticed = |root: &Peer, words: &str| root.heard(|line| line["text"].as_str()?.contains(words).then_some(()));
    let first = serve();
    let link = first.link();
    assert!(link.starts_with(&format!("{public}/#pc1,")) && link.contains(&format!(",/dns/{DOMAIN}/tcp/{port}/wss/p2p/")), "{link}");
    noticed(&first, "there is a certificate for example.test");
    let (leaf, answer) = visit(port, DOMAIN, &root, "/health").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"is_well\":true"), "{answer}");
    assert!(visit(port, "www.example.test", &root, "/health").is_err());
    assert_eq!(mode(&place.path("config/peercompute/certificates")), 0o700);
    drop(first);
    let second = serve();
    noticed(&second, "the certificate for example.test is still good");
    assert_eq!(visit(port, DOMAIN, &root, "/health").unwrap().0, leaf);
}
