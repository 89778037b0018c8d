//! Links over WebSocket: how a browser's tab reaches a peer, through whatever passes HTTP on.
//!
//! ```text
//!  browser ─ WebSocket of the page or worker ──┐
//!  native ── TCP, TLS for wss ─ handshake ─────┤ messages of bytes ═► one stream of bytes ═► noise ═► yamux
//!  native ── an HTTP server's upgraded streams ┘
//! ```
//!
//! A message's borders mean nothing: bytes are cut as they come. The upgrade is asked for at [`PATH`], unless the address names
//! another path: `/ip4/192.0.2.1/tcp/8080/ws`, `/dns4/example.com/tcp/443/wss`, `/dns4/example.com/tcp/443/x-parity-wss/%2Fp2p%2Fheat`.
//! Behind `wss` may stand `certhash/…`: the server's certificate, for who can look at it; a browser asks its user instead.
//!
//! Invariants: a message is bounded before it is kept, and so are the bytes that wait on either side; whoever waits for bytes or
//! for room is woken when the socket ends, however it ends; nothing waits on a clock that the other end could answer sooner.

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod certificate;
#[cfg(not(target_arch = "wasm32"))]
mod native;

#[cfg(target_arch = "wasm32")]
pub(super) use browser::WebSockets;
#[cfg(not(target_arch = "wasm32"))]
pub use certificate::{Fingerprint, client_config, connect};
#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::WebSockets;
#[cfg(not(target_arch = "wasm32"))]
pub use native::{Door, Doorway, accept_key, door};

use std::fmt;

use ::libp2p::Multiaddr;
use ::libp2p::multiaddr::Protocol;

/// Where a server takes the upgrade, where the address says nothing else.
pub const PATH: &str = "/p2p";
/// Bytes gathered into one message.
const MESSAGE_BYTES: usize = 64 << 10;
/// Bytes that a browser may have to send: at first, and where its network is slow.
#[cfg(any(target_arch = "wasm32", test))]
const BUFFERED_BYTES_MIN: u32 = 1 << 20;
/// … and where it is fastest.
#[cfg(any(target_arch = "wasm32", test))]
const BUFFERED_BYTES_MAX: u32 = 8 << 20;
/// The largest message that is taken from the other end.
#[cfg(not(target_arch = "wasm32"))]
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What a browser may have to send, where of the most that it may, this much is left when its writer looks again. With little left
/// its network is about to idle; with much left nothing is gained, and what comes behind it waits for longer.
#[cfg(any(target_arch = "wasm32", test))]
fn buffered_bytes(most: u32, left: u32) -> u32 {
    match left {
        left if left < most / 4 => (most * 2).min(BUFFERED_BYTES_MAX),
        left if left > most / 4 * 3 => (most / 2).max(BUFFERED_BYTES_MIN),
        _ => most,
    }
}

/// Whether this is the address of a WebSocket.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn is_address(address: &Multiaddr) -> bool {
    Place::from_address(address).is_some()
}

/// A WebSocket's place, from a multiaddress.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    is_secure: bool,
    path: String,
    /// The certificate that the address names.
    #[cfg(not(target_arch = "wasm32"))]
    certificate: Option<Fingerprint>,
}

impl Place {
    /// `None` if the address is not one of a WebSocket, or has more than an identity behind it.
    fn from_address(address: &Multiaddr) -> Option<Place> {
        let mut parts = address.iter();
        let host = match parts.next()? {
            Protocol::Ip4(ip) => ip.to_string(),
            Protocol::Ip6(ip) => format!("[{ip}]"),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
            _ => return None,
        };
        let Protocol::Tcp(port) = parts.next()? else { return None };
        let (is_secure, path) = match parts.next()? {
            Protocol::Ws(path) => (false, path),
            Protocol::Wss(path) => (true, path),
            Protocol::Tls => match parts.next()? {
                Protocol::Ws(path) => (true, path),
                _ => return None,
            },
            _ => return None,
        };
        let path = if path == "/" { PATH.to_owned() } else { path.into_owned() };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(is_plain) {
            return None;
        }
        let mut next = parts.next();
        #[cfg(not(target_arch = "wasm32"))]
        let mut certificate = None;
        if let (true, Some(Protocol::Certhash(_hash))) = (is_secure, &next) {
            #[cfg(not(target_arch = "wasm32"))]
            {
                certificate = Some(Fingerprint::from_multihash(_hash)?);
            }
            next = parts.next();
        }
        let place = Place {
            host,
            port,
            is_secure,
            path,
            #[cfg(not(target_arch = "wasm32"))]
            certificate,
        };
        matches!((next, parts.next()), (None | Some(Protocol::P2p(_)), None)).then_some(place)
    }
}

/// As a URL.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { host, port, is_secure, path, .. } = self;
        write!(f, "{}://{host}:{port}{path}", if *is_secure { "wss" } else { "ws" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the buffer ends up on a network that takes so much between two looks.
    fn settled(taken: u32, mut most: u32) -> u32 {
        for _ in 0..20 {
            most = buffered_bytes(most, most.saturating_sub(taken));
        }
        most
    }

    #[test]
    fn a_browser_has_to_send_what_its_network_takes() {
        for start in [BUFFERED_BYTES_MIN, BUFFERED_BYTES_MAX] {
            // 25 MB/s, with 4 ms from look to look; then 600 MB/s, and more than any has.
            assert_eq!(settled(100_000, start), BUFFERED_BYTES_MIN);
            assert!((2_400_000..=9_600_000).contains(&settled(2_400_000, start)));
            assert_eq!(settled(100 << 20, start), BUFFERED_BYTES_MAX);
        }
    }

    #[test]
    fn an_address_is_a_url() {
        let check = |address: &str, url: Option<&str>| {
            let address: Multiaddr = address.parse().expect("an address");
            assert_eq!(Place::from_address(&address).map(|place| place.to_string()).as_deref(), url, "{address}");
        };
        let peer = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        check("/ip4/127.0.0.1/tcp/8080/ws", Some("ws://127.0.0.1:8080/p2p"));
        check(&format!("/ip4/127.0.0.1/tcp/8080/ws{peer}"), Some("ws://127.0.0.1:8080/p2p"));
        check("/ip6/::1/tcp/8080/ws", Some("ws://[::1]:8080/p2p"));
        check("/dns4/example.com/tcp/443/wss", Some("wss://example.com:443/p2p"));
        check("/dns/example.com/tcp/443/tls/ws", Some("wss://example.com:443/p2p"));
        for none in ["/ip4/127.0.0.1/tcp/8080", "/ip4/127.0.0.1/udp/1/quic-v1", "/dns4/example.com/tcp/443/tls", "/ip4/127.0.0.1/udp/1/ws"] {
            check(none, None);
        }
        check("/ip4/127.0.0.1/tcp/1/x-parity-ws/%2Fp2p%2Fheat", Some("ws://127.0.0.1:1/p2p/heat"));
        check(&format!("/dns4/example.com/tcp/443/x-parity-wss/%2Fp2p%2Fheat{peer}"), Some("wss://example.com:443/p2p/heat"));
        let named = Fingerprint::of(b"a certificate").named_by("/ip4/192.0.2.1/tcp/1/wss");
        check(&format!("{named}{peer}"), Some("wss://192.0.2.1:1/p2p"));
        check(&named.replace("/wss", "/x-parity-wss/%2Fp2p%2Fheat"), Some("wss://192.0.2.1:1/p2p/heat"));
        check(&named.replace("/wss", "/ws"), None);
        // Another hash than SHA-256.
        check("/ip4/192.0.2.1/tcp/1/wss/certhash/uFiB0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdA", None);
        check("/ip4/127.0.0.1/tcp/1/x-parity-ws/other", None);
        check("/ip4/127.0.0.1/tcp/1/x-parity-ws/%2Fp2p%3Fa=b", None);
        check(&format!("/ip4/127.0.0.1/tcp/8080/ws{peer}/p2p-circuit{peer}"), None);
    }
}
