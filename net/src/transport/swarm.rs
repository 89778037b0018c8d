//! The libp2p stack below links: who may connect how often, over what, and where it listens.
//!
//! ```text
//!  native     TCP, WebSocket ─ noise ─ yamux      QUIC
//!  browser    WebSocket ─ noise ─ yamux
//! ```
//!
//! Invariant: connections are bounded in number, in all and for each peer, before they are secured.

use std::collections::HashMap;
use std::io;
#[cfg(not(target_arch = "wasm32"))]
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, ListenerId};
use libp2p::core::{Transport, upgrade};
use libp2p::identity::Keypair;
#[cfg(not(target_arch = "wasm32"))]
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
#[cfg(not(target_arch = "wasm32"))]
use libp2p::tcp;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, yamux};

#[cfg(not(target_arch = "wasm32"))]
use super::websocket;
use super::websocket::WebSockets;
use super::{TransportConfig, TransportError};
use crate::runtime::timeout;

const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a stream goes after this.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
const PENDING_CONNECTIONS_MAX: u32 = 128;
const CONNECTIONS_PER_PEER_MAX: u32 = 4;

/// What a connection is for.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) streams: libp2p_stream::Behaviour,
    limits: connection_limits::Behaviour,
}

/// Whoever is at the other end proves who it is; then many streams share the connection.
fn secured<T>(transport: T, keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Box<dyn std::error::Error + Send + Sync>>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let noise = noise::Config::new(keypair)?;
    let secured = transport.upgrade(upgrade::Version::V1Lazy).authenticate(noise).multiplex(yamux::Config::default());
    Ok(secured.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).boxed())
}

/// A swarm of a transport's configuration; it listens nowhere yet.
///
/// **Errors**: the stack cannot be built.
pub(super) fn build_swarm(keypair: Keypair, config: &TransportConfig) -> Result<Swarm<Behaviour>, TransportError> {
    let setup = |error: &dyn std::fmt::Display| TransportError::Setup { error: error.to_string() };
    let links_max = config.links_max;
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_CONNECTIONS_MAX))
        .with_max_pending_outgoing(Some(links_max))
        .with_max_established(Some(links_max))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
    let builder = SwarmBuilder::with_existing_identity(keypair);
    #[cfg(not(target_arch = "wasm32"))]
    let builder = builder
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?
        .with_quic()
        .with_other_transport(|keypair| secured(WebSockets::new(config.doorway.clone()), keypair))
        .map_err(|error| setup(&error))?;
    #[cfg(target_arch = "wasm32")]
    let builder = builder.with_wasm_bindgen().with_other_transport(|keypair| secured(WebSockets, keypair)).map_err(|error| setup(&error))?;
    let swarm = builder
        .with_behaviour(|_| Behaviour { streams: libp2p_stream::Behaviour::new(), limits: connection_limits::Behaviour::new(limits) })
        .map_err(|error| setup(&error))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_CONNECTION_TIMEOUT).with_dial_concurrency_factor(NonZeroU8::MIN))
        .build();
    Ok(swarm)
}

/// Listens everywhere, and waits until every listener knows its address.
pub(super) async fn listen(swarm: &mut Swarm<Behaviour>, config: &TransportConfig) -> Result<Vec<Multiaddr>, TransportError> {
    let mut pending: HashMap<ListenerId, String> = HashMap::new();
    for text in &config.listen {
        let bad = |error: &dyn std::fmt::Display| TransportError::BadAddress { address: text.clone(), error: error.to_string() };
        let address: Multiaddr = text.parse().map_err(|error: libp2p::multiaddr::Error| bad(&error))?;
        // Where there is a door, its server has the port.
        #[cfg(not(target_arch = "wasm32"))]
        if config.doorway.is_none() || !websocket::is_address(&address) {
            probe(&address).map_err(|error| listen_error(text, &error))?;
        }
        let listener = swarm.listen_on(address).map_err(|error| match error {
            libp2p::TransportError::Other(error) => listen_error(text, &error),
            unsupported => bad(&unsupported),
        })?;
        pending.insert(listener, text.clone());
    }
    let mut addresses = Vec::new();
    let all = async {
        while !pending.is_empty() {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    pending.remove(&listener_id);
                    addresses.push(address);
                }
                SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                    if let (Some(text), Err(error)) = (pending.get(&listener_id), reason) {
                        return Err(listen_error(text, &error));
                    }
                }
                SwarmEvent::ListenerError { listener_id, error } => {
                    if let Some(text) = pending.get(&listener_id) {
                        return Err(listen_error(text, &error));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    };
    match timeout(LISTEN_TIMEOUT, all).await {
        Ok(outcome) => outcome?,
        Err(_) => {
            let address = pending.into_values().next().unwrap_or_default();
            return Err(TransportError::Listen { address, error: "no address in time".to_owned() });
        }
    }
    // A listener on all interfaces reports one after the other.
    while let Some(Some(event)) = swarm.next().now_or_never() {
        if let SwarmEvent::NewListenAddr { address, .. } = event {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Finds out whether the port is free. libp2p listens with SO_REUSEPORT, so a second listener would not
/// fail: it would silently take every other connection.
#[cfg(not(target_arch = "wasm32"))]
fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut ip = None;
    for part in address {
        match part {
            Protocol::Ip4(v4) => ip = Some(IpAddr::V4(v4)),
            Protocol::Ip6(v6) => ip = Some(IpAddr::V6(v6)),
            Protocol::Tcp(port) if port > 0 => {
                return ip.map_or(Ok(()), |ip| std::net::TcpListener::bind((ip, port)).map(drop));
            }
            Protocol::Udp(port) if port > 0 => {
                return ip.map_or(Ok(()), |ip| std::net::UdpSocket::bind((ip, port)).map(drop));
            }
            _ => {}
        }
    }
    Ok(())
}

fn listen_error(text: &str, error: &io::Error) -> TransportError {
    // libp2p wraps the operating system's error in its own, so the kind alone may not tell.
    let taken = error.kind() == io::ErrorKind::AddrInUse || error.to_string().contains("in use");
    let address = text.to_owned();
    if taken { TransportError::AddressTaken { address } } else { TransportError::Listen { address, error: error.to_string() } }
}
