//! Links over WebSocket: how a browser's tab reaches a peer, through whatever passes HTTP on.
//!
//! ```text
//!  browser ─ WebSocket of the page or worker ──┐
//!  native ── TCP, TLS for wss ─ handshake ─────┤ messages of bytes ═► one stream of bytes ═► noise ═► yamux
//!  native ── an HTTP server's upgraded streams ┘
//! ```
//!
//! A message's borders mean nothing: bytes are cut as they come. The upgrade is asked for at [`PATH`], and an address says only
//! that it is a WebSocket: `/ip4/192.0.2.1/tcp/8080/ws`, `/dns4/example.com/tcp/443/wss`.
//!
//! Invariants: a message is bounded before it is kept, and so are the bytes that wait on either side; whoever waits for bytes or
//! for room is woken when the socket ends, however it ends; nothing waits on a clock that the other end could answer sooner.

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod native;

#[cfg(target_arch = "wasm32")]
pub(super) use browser::WebSockets;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::WebSockets;
#[cfg(not(target_arch = "wasm32"))]
pub use native::{Door, Doorway, accept_key, door};

use std::fmt;

use ::libp2p::Multiaddr;
use ::libp2p::multiaddr::Protocol;

/// Where a server takes the upgrade.
pub const PATH: &str = "/p2p";
/// Bytes gathered into one message.
const MESSAGE_BYTES: usize = 64 << 10;
/// The largest message that is taken from the other end.
#[cfg(not(target_arch = "wasm32"))]
const MESSAGE_BYTES_MAX: usize = 1 << 20;

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
        let is_secure = match parts.next()? {
            Protocol::Ws(path) if path == "/" => false,
            Protocol::Wss(path) if path == "/" => true,
            Protocol::Tls => matches!(parts.next()?, Protocol::Ws(path) if path == "/").then_some(true)?,
            _ => return None,
        };
        match (parts.next(), parts.next()) {
            (None | Some(Protocol::P2p(_)), None) => Some(Place { host, port, is_secure }),
            _ => None,
        }
    }
}

/// As a URL.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { host, port, is_secure } = self;
        write!(f, "{}://{host}:{port}{PATH}", if *is_secure { "wss" } else { "ws" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check("/ip4/127.0.0.1/tcp/1/x-parity-ws/%2Fother", None);
        check(&format!("/ip4/127.0.0.1/tcp/8080/ws{peer}/p2p-circuit{peer}"), None);
    }
}
