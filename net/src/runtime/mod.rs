//! What the network asks of its surroundings beyond bytes: tasks, a clock, and turns on the thread.
//!
//! ```text
//!            tasks                     timers              the node's thread
//!  native    tokio, one thread         tokio               its own: it may block
//!  browser   the worker's event loop   setTimeout          the same one: it must give way
//! ```
//!
//! Natively the network has a thread to itself. In a browser everything of a worker shares one: a task that never waits starves
//! the others and the sockets, whose news come as events only when nobody runs. Invariants: what is here works in pages and in
//! workers alike; the machines above never see it.

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod native;

#[cfg(target_arch = "wasm32")]
pub use browser::*;
#[cfg(not(target_arch = "wasm32"))]
pub use native::*;

/// The monotonic clock; `std`'s natively. Subtract with `checked_sub`: a page's clock begins with the page.
pub use web_time::Instant;

/// Nothing came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing came in time")]
pub struct Elapsed;
