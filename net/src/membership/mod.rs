//! A run whose peers come and go, as one peer sees it: a state machine without IO.
//!
//! [`core`](crate::core) runs a fixed roster and ends with its first loss. Here the roster changes in numbered
//! **epochs**. An epoch is a value, [`EpochPlan`]: who is in it, who owns which part of the state, at which
//! tick it begins and from which snapshot. Everything else follows from it.
//!
//! ```text
//!            ┌───────────────────────── epoch e ─────────────────────────┐
//!  decided ─► fetch own parts ─► Enter ─► tick, exchange, tick, …  ─► T   │  planned: join, leave, balance
//!     ▲        (shelf, peers)      node    within the granted horizon     ├──────────────► decided e+1 at T
//!     │                                    snapshot, offer, replicate     │
//!     │                                                                   ✗  a member is silent or broke the rules
//!     └────── decided e+1 from the newest snapshot that the living hold ◄─┘
//! ```
//!
//! - **Parts** ([`Parts`]): a tile with all its fields, or the tables: what is owned, snapshotted, shipped.
//! - **Horizon**: the coordinator, the first of the roster, grants ticks a little ahead. So nobody is ever beyond
//!   the tick at which a planned epoch begins or a snapshot is due.
//! - **Snapshots** are taken by every owner at an agreed tick, offered to all by their hashes, and pulled by those who
//!   replicate them (rendezvous hashing). A snapshot that is complete on all its holders replaces the one before.
//!   Every epoch begins from a snapshot; whoever lacks a part of it pulls it, chunk by chunk, and checks its hash.
//! - **Agreement** ([`agree`]): the members of epoch e decide its one successor by single-decree Paxos. A quorum is
//!   more than half of them, or exactly half with the coordinator among them; so of two halves of a split network at
//!   most one goes on, and a host goes on when its only guest has vanished. The other half waits, says so, and joins
//!   again once it reaches the first.
//! - **Silence**: a member that sends no byte for some round trips is suspected; pings come from the driver's thread, so
//!   a computing peer is never silent. Who is suspected is left out of the next epoch; it may join again.
//!
//! Invariants: frames of another epoch are never applied; a member enters an epoch only with every part that it owns, each
//! of the snapshot's hash; nothing from the network panics here or grows without a bound; time and randomness come in
//! from outside.

pub mod agree;
pub mod balance;
mod event;
mod parts;
mod plan;

pub use event::{Event, Keep, MemberConfig, MemberError, MemberStatus, Notice, Output, Role, Standing, Stored, Tuning};
pub use parts::{PartId, Parts};
pub use plan::{EpochPlan, Member, MemberId, Origin, Version};
