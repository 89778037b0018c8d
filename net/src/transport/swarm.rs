//! The libp2p stack below links: who may connect how often, over what, and where it listens.
//!
//! ```text
//!  native     TCP, WebSocket ─ noise ─ yamux      QUIC
//!  browser    WebSocket ─ noise ─ yamux
//!  both       a stream through a relay ─ noise ─ yamux: who cannot be dialled holds a reservation at a relay, and is reached through it
//! ```
//!
//! A relay moves bytes that it cannot read. Invariants: connections are bounded in number, in all and for each peer, before they are
//! secured; so are a relay's reservations and circuits, and how fast one address asks for more.

use std::collections::{HashMap, HashSet};
use std::io;
#[cfg(not(target_arch = "wasm32"))]
use std::net::IpAddr;
use std::num::NonZeroU8;
#[cfg(not(target_arch = "wasm32"))]
use std::num::NonZeroU32;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, ListenerId};
use libp2p::core::{Transport, upgrade};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
#[cfg(not(target_arch = "wasm32"))]
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
#[cfg(not(target_arch = "wasm32"))]
use libp2p::tcp;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, relay, yamux};

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

/// How long a relay may take to grant a reservation.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A reservation is renewed by whoever holds it, well before it ends.
#[cfg(not(target_arch = "wasm32"))]
const RESERVATION_TIME: Duration = Duration::from_secs(60 * 60);
/// What one network address may ask of a relay at once; every second gives one more.
#[cfg(not(target_arch = "wasm32"))]
const RELAY_REQUESTS_MAX: NonZeroU32 = NonZeroU32::new(256).expect("above zero");

/// What a connection is for.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) streams: libp2p_stream::Behaviour,
    limits: connection_limits::Behaviour,
    through_relays: relay::client::Behaviour,
    pub(super) relay: Relay,
}

/// Being a relay, if the configuration says so.
#[cfg(not(target_arch = "wasm32"))]
pub(super) type Relay = Toggle<relay::Behaviour>;
/// Nobody can reach a browser, so it relays nothing.
#[cfg(target_arch = "wasm32")]
pub(super) type Relay = libp2p::swarm::dummy::Behaviour;

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
    let builder = SwarmBuilder::with_existing_identity(keypair.clone());
    #[cfg(not(target_arch = "wasm32"))]
    let builder = builder
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?
        .with_quic()
        .with_other_transport(|keypair| secured(WebSockets::new(config.doorway.clone()), keypair))
        .map_err(|error| setup(&error))?;
    #[cfg(not(target_arch = "wasm32"))]
    let relay = Toggle::from(config.relay.then(|| being_relay(keypair.public().to_peer_id(), links_max)));
    #[cfg(target_arch = "wasm32")]
    let relay = libp2p::swarm::dummy::Behaviour;
    #[cfg(target_arch = "wasm32")]
    let builder = builder.with_wasm_bindgen().with_other_transport(|keypair| secured(WebSockets, keypair)).map_err(|error| setup(&error))?;
    let swarm = builder
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?
        .with_behaviour(|_, through_relays| Behaviour {
            streams: libp2p_stream::Behaviour::new(),
            limits: connection_limits::Behaviour::new(limits),
            through_relays,
            relay,
        })
        .map_err(|error| setup(&error))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_CONNECTION_TIMEOUT).with_dial_concurrency_factor(NonZeroU8::MIN))
        .build();
    Ok(swarm)
}

#[cfg(not(target_arch = "wasm32"))]
fn being_relay(identity: PeerId, links_max: u32) -> relay::Behaviour {
    let links_max = links_max as usize;
    let second = Duration::from_secs(1);
    let config = relay::Config {
        max_reservations: links_max,
        max_reservations_per_peer: CONNECTIONS_PER_PEER_MAX as usize,
        reservation_duration: RESERVATION_TIME,
        reservation_rate_limiters: Vec::new(),
        max_circuits: 4 * links_max,
        max_circuits_per_peer: links_max,
        // As long as a run; a circuit ends with its link.
        max_circuit_duration: Duration::from_secs(u64::from(u32::MAX)),
        // Without a limit.
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: Vec::new(),
    };
    let config = config.reservation_rate_per_ip(RELAY_REQUESTS_MAX, second).circuit_src_per_ip(RELAY_REQUESTS_MAX, second);
    let mut relay = relay::Behaviour::new(identity, config);
    relay.set_status(Some(relay::Status::Enable));
    relay
}

/// Asks relays for reservations; gives those that were granted, by listener.
pub(super) async fn reserve(swarm: &mut Swarm<Behaviour>, relays: &[String]) -> Result<Reserved, TransportError> {
    let mut reserved = Reserved::default();
    for text in relays {
        let bad = |error: String| TransportError::BadAddress { address: text.clone(), error };
        let relay: Multiaddr = text.parse().map_err(|error: libp2p::multiaddr::Error| bad(error.to_string()))?;
        let Some(Protocol::P2p(peer)) = relay.iter().last() else {
            return Err(bad("a relay's address ends with its identity".to_owned()));
        };
        let circuit = relay.with(Protocol::P2pCircuit);
        let listener = swarm.listen_on(circuit.clone()).map_err(|error| bad(error.to_string()))?;
        reserved.listeners.insert(listener, circuit);
        reserved.relays.insert(peer);
    }
    let mut waiting = reserved.listeners.len();
    let all = async {
        while waiting > 0 {
            match swarm.select_next_some().await {
                // Of several addresses of one relay the first is as good as any.
                SwarmEvent::NewListenAddr { listener_id, address } if reserved.listeners.contains_key(&listener_id) => {
                    if !reserved.addresses.iter().any(|(listener, _)| *listener == listener_id) {
                        waiting -= 1;
                    }
                    reserved.addresses.push((listener_id, address));
                }
                SwarmEvent::ListenerClosed { listener_id, .. } if reserved.listeners.contains_key(&listener_id) => {
                    reserved.lost.push(listener_id);
                    waiting -= 1;
                }
                _ => {}
            }
        }
    };
    // A relay that is not there can be asked again.
    let _ = timeout(RESERVE_TIMEOUT, all).await;
    Ok(reserved)
}

/// Reservations at relays.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// Who relays.
    pub(super) relays: HashSet<PeerId>,
    /// What is asked for, granted or not.
    pub(super) listeners: HashMap<ListenerId, Multiaddr>,
    /// Where this peer is reached through them.
    pub(super) addresses: Vec<(ListenerId, Multiaddr)>,
    /// Those that ended before they were told of.
    pub(super) lost: Vec<ListenerId>,
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
