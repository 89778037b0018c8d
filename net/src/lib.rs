//! Ownership, exchange and transports: how a partitioned run stays in lockstep over a network.
//!
//! ```text
//!  node ── Session ── driver (thread, clock) ── Transport ── libp2p: TCP, QUIC, WebSocket
//!                       └── Core (sans-IO) ── wire (bounded codec)
//!  tests ── Simulation (virtual time, seeded) ── the same Core
//! ```
//!
//! [`ownership`] says who may commit which tile, [`core`] runs one peer's part of a run without touching
//! the world, [`wire`] is the only door for bytes, [`transport`] moves them, [`driver`] joins the two on a
//! thread of its own, or as a task of a browser's worker, which is [`runtime`]'s affair, [`pool`] and [`fill`] keep their memory, [`sim`] runs many
//! cores on virtual time.
//!
//! Invariants: libp2p is named only under `transport`; no clock, socket, thread or randomness in `core`;
//! everything a peer can make us keep is bounded.

pub mod core;
pub mod driver;
pub mod fill;
pub mod membership;
pub mod ownership;
pub mod pool;
pub mod runtime;
pub mod sim;
pub mod transport;
pub mod wire;
