//! What moves bytes between peers: links that open, carry frames in order, and close.
//!
//! The driver sees only this: a link is an authenticated, reliable, ordered stream of frames to one
//! identity. What a frame means, and who may be at the other end, is the core's business.
//!
//! Invariants: nothing outside this folder names libp2p; a length above the link's limit closes the link
//! before anything is allocated for it; every queue is bounded.

mod libp2p;
pub mod probe;
mod swarm;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
#[cfg(not(target_arch = "wasm32"))]
pub mod twin;
pub mod websocket;

pub use self::libp2p::Transport;

use bytes::Bytes;
use thiserror::Error;

use crate::core::LinkId;

/// How a transport is set up.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Multiaddresses to listen on, as text; port 0 takes a free one.
    pub listen: Vec<String>,
    /// Where an HTTP server hands over its WebSockets: then it, and not this transport, listens where `listen` says `/ws` or `/wss`.
    #[cfg(not(target_arch = "wasm32"))]
    pub doorway: Option<websocket::Doorway>,
    /// Whether others may reach each other through this peer; it relays at the addresses of `listen`.
    #[cfg(not(target_arch = "wasm32"))]
    pub relay: bool,
    /// Relays to be reached through, by address, identity included. One that does not answer is asked again later.
    pub relays: Vec<String>,
    /// The secret that the identity is made of; `None` makes a new identity.
    pub identity_seed: Option<[u8; 32]>,
    /// The largest frame content of a link whose limit nobody has raised.
    pub frame_bytes_max: u32,
    /// The most links at a time.
    pub links_max: u32,
}

impl Default for TransportConfig {
    fn default() -> TransportConfig {
        TransportConfig {
            listen: if cfg!(target_arch = "wasm32") { Vec::new() } else { vec!["/ip4/127.0.0.1/tcp/0".to_owned()] },
            #[cfg(not(target_arch = "wasm32"))]
            doorway: None,
            #[cfg(not(target_arch = "wasm32"))]
            relay: false,
            relays: Vec::new(),
            identity_seed: None,
            frame_bytes_max: crate::wire::STRANGER_FRAME_BYTES_MAX,
            links_max: 2048,
        }
    }
}

/// Something that happened to a link or a dial.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportEvent {
    /// A link is up.
    Opened {
        /// Its number, new for every link.
        link: LinkId,
        /// The identity proved at its other end.
        identity: String,
        /// Whether this side dialled.
        outgoing: bool,
    },
    /// A frame's content came.
    Received {
        /// The link.
        link: LinkId,
        /// The content.
        frame: Bytes,
    },
    /// A link is gone; not reported for links closed on this side.
    Closed {
        /// The link.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// A dial came to nothing.
    DialFailed {
        /// The address of the dial.
        address: String,
        /// Why.
        error: String,
    },
}

/// Why a link is gone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The other side closed it.
    #[error("the other side closed the link")]
    Ended,
    /// The stream broke.
    #[error("the link broke: {error}")]
    Broken {
        /// What the operating system or the protocol says.
        error: String,
    },
    /// The other side announced a frame above the limit.
    #[error("a frame of {given} bytes was announced, the limit is {limit}")]
    FrameTooLong {
        /// Bytes announced.
        given: u32,
        /// Bytes allowed.
        limit: u32,
    },
    /// The other side does not read what it is sent.
    #[error("{frames} frames wait to be read")]
    NotReading {
        /// How many wait.
        frames: usize,
    },
}

/// Why a transport cannot start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A text is no multiaddress.
    #[error("{address} is not an address: {error}")]
    BadAddress {
        /// The text.
        address: String,
        /// What is wrong.
        error: String,
    },
    /// Another process listens there. Choose another port, or 0.
    #[error("{address} is taken by another listener")]
    AddressTaken {
        /// The address.
        address: String,
    },
    /// Listening failed for another reason.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// What the operating system says.
        error: String,
    },
    /// The stack could not be built.
    #[error("cannot set up the transport: {error}")]
    Setup {
        /// What failed.
        error: String,
    },
}
