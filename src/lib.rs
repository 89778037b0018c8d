//! PeerCompute: WGSL kernels over flat buffers, on one GPU or partitioned across peers.
//!
//! This package joins the layers: [`node`] runs a signed workload on an executor, alone or in
//! lockstep with other peers; [`files`] brings fields in and out; [`picture`] makes them visible;
//! [`keys`] remembers whom to trust; [`inspect`] watches a small run for races; [`launch`] starts a run of several processes on this machine.
//!
//! ```text
//! folder or .pcb ─ verify ─► VerifiedBundle ─► node ─┬─ executor (kernels)
//!                                                    └─ session  (net)
//! ```
//!
//! Invariant: nothing here knows a GPU call, a socket or a wire format; those are the layers' own.

pub mod files;
pub mod inspect;
pub mod keys;
pub mod launch;
pub mod node;
pub mod picture;
