//! A run that others can join: what hosting, joining and watching have in common, whoever prints.
//!
//! ```text
//! bundle + terms ─► MemberSession ─► MemberNode, on an executor        host, join
//! link ──────────► MemberSession ─► Standing, again and again          status
//! ```
//!
//! Invariant: a peer joins only a run whose bundle it has and has verified itself.

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
use std::sync::Arc;
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

use peercompute_kernels::VerifiedBundle;
use peercompute_net::driver::MemberSession;
use peercompute_net::membership::{Keep, MemberConfig, Parts, Role, Tuning};
#[cfg(not(target_arch = "wasm32"))]
use peercompute_net::membership::{Output, Standing};
use peercompute_net::transport::TransportConfig;

use crate::link::Link;
use crate::node::NodeError;
use crate::node::parts::parts_of;

/// Of the memory that is free, the part that a run's state may take: executors hold most buffers twice, and snapshots and
/// replicas lie beside them.
#[cfg(not(target_arch = "wasm32"))]
const MEMORY_SHARE: u64 = 4;

/// On which terms a peer takes part.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where to listen, and as whom.
    pub transport: TransportConfig,
    /// A name for people.
    pub name: String,
    /// **Units**: points per second, self-measured; 0 where it is not known.
    pub speed: f64,
    /// Whether it takes tiles.
    pub computes: bool,
    /// Which snapshots it keeps.
    pub keep: Keep,
    /// Whether it has what the run begins with: the same imports, or none are needed.
    pub seeds: bool,
    /// The invitation to the run.
    pub token: [u8; 16],
    /// Times and rates.
    pub tuning: Tuning,
}

/// What a world's state is divided into.
///
/// **Errors:** a part is too large to move.
pub fn parts(bundle: &VerifiedBundle) -> Result<Parts, NodeError> {
    parts_of(bundle.program()).map_err(|cause| NodeError::Parts { cause })
}

/// Begins to take part: hosts or joins.
///
/// **Errors:** the state's parts are too large to move, or the transport does not start.
pub async fn start(bundle: &VerifiedBundle, role: Role, terms: Terms) -> Result<(MemberSession, Arc<Parts>), NodeError> {
    let program = bundle.program();
    let parts = Arc::new(parts(bundle)?);
    let transport = terms.transport.clone();
    Ok((MemberSession::open(transport, config(role, program.hash, parts.clone(), terms)?).await?, parts))
}

fn config(role: Role, bundle: [u8; 32], parts: Arc<Parts>, terms: Terms) -> Result<MemberConfig, NodeError> {
    Ok(MemberConfig {
        role,
        identity: String::new(),
        name: terms.name,
        addresses: Vec::new(),
        speed: terms.speed,
        memory: if terms.computes { memory_bytes() } else { 0 },
        keep: terms.keep,
        seeds: terms.seeds,
        token: terms.token,
        bundle,
        parts,
        seed: u64::from_le_bytes(random()?),
        frame_bytes_max: u32::MAX / 2,
        tuning: terms.tuning,
    })
}

/// Looks on at the run of a link, until `look` has seen enough.
///
/// **Errors:** nobody at the link's addresses answers, or this peer is turned away.
#[cfg(not(target_arch = "wasm32"))]
pub fn watch(link: &Link, look: &mut dyn FnMut(&Standing) -> bool) -> Result<(), NodeError> {
    let mut failed = None;
    for address in &link.addresses {
        let terms = Terms {
            transport: TransportConfig { listen: vec![listen_like(address)], ..TransportConfig::default() },
            name: default_name("onlooker"),
            speed: 0.0,
            computes: false,
            keep: Keep::Share,
            seeds: false,
            token: link.token,
            tuning: Tuning { dial_limit: Duration::from_secs(3), ..Tuning::default() },
        };
        // An onlooker needs no bundle: it holds nothing.
        let parts = Arc::new(Parts::new(&[], &[], 0).map_err(|cause| NodeError::Parts { cause })?);
        let session = MemberSession::start(terms.transport.clone(), config(Role::Watch { address: address.clone() }, link.bundle, parts, terms)?)?;
        loop {
            match session.next()? {
                Output::Status(standing) if !look(&standing) => return Ok(()),
                // Another member may still be there.
                Output::Failed(error) => {
                    failed = Some(error);
                    break;
                }
                Output::Finished { .. } | Output::Left => return Ok(()),
                _ => {}
            }
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// The link to the run of a session.
pub fn link(bundle: &VerifiedBundle, session: &MemberSession, token: [u8; 16]) -> Link {
    let program = bundle.program();
    Link {
        workload: program.manifest.name.clone(),
        version: program.manifest.version.to_string(),
        bundle: program.hash,
        key: bundle.signer(),
        token,
        addresses: session.addresses().to_vec(),
        page: None,
    }
}

/// Relays to be reached through by members that cannot dial: those at whose addresses browsers join.
pub fn relays_at(addresses: &[String]) -> Vec<String> {
    let is_for_browsers = |address: &&String| {
        let parts: Vec<&str> = address.split('/').collect();
        let rest = match &parts[..] {
            [_, _, _, "tcp", _, "ws" | "wss", rest @ ..] | [_, _, _, "tcp", _, "x-parity-ws" | "x-parity-wss", _, rest @ ..] => rest,
            _ => return false,
        };
        matches!(rest, ["p2p", _] | ["certhash", _, "p2p", _])
    };
    addresses.iter().filter(is_for_browsers).take(1).cloned().collect()
}

/// Where a peer listens that joins at these addresses: at home where nobody is elsewhere, otherwise on every interface.
#[cfg(not(target_arch = "wasm32"))]
pub fn listen_for(addresses: &[String]) -> String {
    let is_home = |address: &&String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    let elsewhere = addresses.iter().find(|address| !is_home(address));
    listen_like(elsewhere.or(addresses.first()).map_or("", String::as_str))
}

#[cfg(not(target_arch = "wasm32"))]
fn listen_like(address: &str) -> String {
    let is_quic = address.contains("/quic");
    let ip = if address.starts_with("/ip4/127.") {
        "/ip4/127.0.0.1"
    } else if address.starts_with("/ip6/::1/") {
        "/ip6/::1"
    } else if address.starts_with("/ip6/") {
        "/ip6/::"
    } else {
        "/ip4/0.0.0.0"
    };
    if is_quic { format!("{ip}/udp/0/quic-v1") } else { format!("{ip}/tcp/0") }
}

/// Fresh random bytes.
///
/// **Errors:** the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], NodeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|cause| NodeError::Parts { cause: format!("no randomness: {cause}") })?;
    Ok(bytes)
}

/// What a browser lets a worker have, at most: its WebAssembly reaches four gigabytes, and holds everything more than once.
#[cfg(target_arch = "wasm32")]
fn memory_bytes() -> u64 {
    512 << 20
}

/// Bytes of a run's state that this machine can take: a part of what is free now, where that can be told.
#[cfg(not(target_arch = "wasm32"))]
fn memory_bytes() -> u64 {
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    free.map_or(u64::MAX, |kib| kib * 1024 / MEMORY_SHARE)
}

/// A name that tells peers of one machine apart.
#[cfg(not(target_arch = "wasm32"))]
pub fn default_name(what: &str) -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).ok().map(|name| name.trim().to_owned());
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty());
    format!("{}:{}", host.as_deref().unwrap_or(what), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_where_browsers_do_is_reached_through_the_same_relay() {
        let all = ["/ip4/127.0.0.1/tcp/1/p2p/x", "/dns/example.com/tcp/443/wss/p2p/x", "/ip4/192.0.2.1/tcp/80/ws/p2p/x"].map(str::to_owned);
        assert_eq!(relays_at(&all), all[1..2]);
        assert_eq!(relays_at(&all[..1]), [""; 0]);
        let of_several = ["/ip4/192.0.2.1/tcp/80/x-parity-ws/%2Fp2p%2Fheat/p2p/x".to_owned()];
        assert_eq!(relays_at(&of_several), of_several);
        let with_certificate = ["wss", "x-parity-wss/%2Fp2p%2Fheat"].map(|scheme| format!("/ip4/192.0.2.1/tcp/80/{scheme}/certhash/uEi_-/p2p/x"));
        assert_eq!([relays_at(&with_certificate[..1]), relays_at(&with_certificate[1..])].concat(), with_certificate);
        assert_eq!(relays_at(&[format!("{}/p2p-circuit/p2p/y", all[2])]), [""; 0]);
    }

    #[test]
    fn a_peer_listens_where_those_can_dial_it_whom_it_joins() {
        let check = |address: &str, listen: &str| assert_eq!(listen_like(address), listen, "{address}");
        check("/ip4/127.0.0.1/tcp/4001/p2p/x", "/ip4/127.0.0.1/tcp/0");
        check("/ip4/127.0.0.1/udp/4001/quic-v1/p2p/x", "/ip4/127.0.0.1/udp/0/quic-v1");
        check("/ip6/::1/tcp/4001/p2p/x", "/ip6/::1/tcp/0");
        check("/ip6/fe80::1/udp/4001/quic-v1/p2p/x", "/ip6/::/udp/0/quic-v1");
        check("/ip4/192.0.2.1/tcp/4001/p2p/x", "/ip4/0.0.0.0/tcp/0");
        check("/dns4/example.com/tcp/4001/p2p/x", "/ip4/0.0.0.0/tcp/0");
        check("/ip4/127.0.0.1/tcp/8080/ws/p2p/x", "/ip4/127.0.0.1/tcp/0");
        // A host on every interface lists its own loopback too.
        let all = ["/ip4/127.0.0.1/tcp/1/p2p/x", "/ip4/192.0.2.1/tcp/1/p2p/x"].map(str::to_owned);
        assert_eq!((listen_for(&all), listen_for(&all[..1])), ("/ip4/0.0.0.0/tcp/0".into(), "/ip4/127.0.0.1/tcp/0".into()));
    }
}
