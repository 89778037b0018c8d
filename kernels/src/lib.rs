//! WGSL kernels: from a user's folder to a signed bundle, and from a bundle to results.
//!
//! ```text
//! workload.toml ─ declaration ┐
//! *.wgsl ───────── source ─ link ─ reflect ─ manifest ─ check ─ reflection ─ bundle (signed)
//!                                                                               │ verify
//!                                         executor (gpu, cpu) ─ program (checked) ┘
//! ```
//!
//! Invariant: an executor runs only what is in a [`VerifiedBundle`]; WGSL that arrived any other way is never compiled.

pub mod bundle;
mod check;
pub mod declaration;
pub mod diagnose;
pub mod executor;
pub mod link;
mod look;
pub mod manifest;
pub mod program;
pub mod reflect;
pub mod reflection;
pub mod schedule;
pub mod source;

pub use bundle::{BundleError, KeyError, PublicKey, SecretKey, Trust, VerifiedBundle};
pub use declaration::Overrides;
pub use diagnose::{ErrorKind, WorkloadError};
pub use look::Look;
pub use manifest::Manifest;
pub use program::Program;
pub use reflection::Reflection;
