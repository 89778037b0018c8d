//! PeerCompute: WGSL kernels over flat buffers, on one GPU or partitioned across peers.
//!
//! This package joins the layers: [`node`] runs a signed workload on an executor, alone or in
//! lockstep with other peers; [`files`] brings fields in and out; [`picture`] makes them visible, [`view`] while they are computed;
//! [`keys`] remembers whom to trust; [`inspect`] watches a small run for races; [`launch`] starts a run
//! of several processes on this machine; [`serve`] is the root's port for browsers; `web` is what a browser's worker sees.
//!
//! ```text
//! folder or .pcb ─ verify ─► VerifiedBundle ─► node ─┬─ executor (kernels)
//!                                                    └─ session  (net)
//! ```
//!
//! Invariant: nothing here knows a GPU call, a socket or a wire format; those are the layers' own.

#[cfg(not(target_arch = "wasm32"))]
pub mod chaos;
#[cfg(not(target_arch = "wasm32"))]
pub mod churn;
#[cfg(not(target_arch = "wasm32"))]
pub mod files;
#[cfg(not(target_arch = "wasm32"))]
pub mod inspect;
#[cfg(not(target_arch = "wasm32"))]
pub mod keys;
#[cfg(not(target_arch = "wasm32"))]
pub mod launch;
pub mod link;
pub mod node;
#[cfg(not(target_arch = "wasm32"))]
pub mod picture;
#[cfg(not(target_arch = "wasm32"))]
pub mod serve;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod store;
#[cfg(not(target_arch = "wasm32"))]
pub mod told;
pub mod view;
#[cfg(target_arch = "wasm32")]
pub mod web;
pub mod world;
