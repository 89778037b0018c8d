//! One peer's side of an exchange: what was packed goes out in pieces, what is due comes in.
//!
//! ```text
//!  Run::outbox ─► one piece of memory ─► a slice per peer ─► post ─► … ─► Deliver ─► Run::inbox
//!                 └── the pool's, used again ──┘   └── one list, which comes back ──┘
//! ```
//!
//! Invariant: once the sizes of a tick have been seen, nothing is allocated for the next.

use std::ops::Range;

use bytes::Bytes;
use peercompute_kernels::executor::any::AnyRun;
use peercompute_kernels::executor::{ExecutorError, Layout, Run};
use peercompute_net::ownership::PeerIndex;
use peercompute_net::pool::Pool;

/// What a data frame adds to its payload.
pub(crate) const FRAME_BYTES: u64 = (peercompute_net::wire::BULK_HEAD_BYTES + peercompute_net::wire::LENGTH_BYTES) as u64;

/// The exchanges of one layout.
#[derive(Default)]
pub(crate) struct Shipping {
    /// Per exchange, what goes to whom: bytes of what it packs.
    sends: Vec<Vec<(PeerIndex, Range<usize>)>>,
    /// Memory of outgoing payloads, and the list that the latest delivery came in: neither is made anew.
    pool: Pool,
    payloads: Vec<(PeerIndex, Bytes)>,
    /// Of the next exchange, counted from 0.
    pub(crate) sequence: u64,
    /// Bytes of strips, replicas and shares.
    pub(crate) payload_bytes: u64,
    /// The same, frames counted in.
    pub(crate) shipped_bytes: u64,
}

impl Shipping {
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn new(layout: &Layout) -> Shipping {
        let mut shipping = Shipping::default();
        shipping.begin(layout);
        shipping
    }

    /// Takes up another layout; its exchanges count from 0 again, memory and bytes go on.
    pub(crate) fn begin(&mut self, layout: &Layout) {
        let nonempty = |runs: &[Range<usize>]| -> Vec<_> {
            let runs = runs.iter().enumerate().filter(|(_, run)| !run.is_empty());
            runs.map(|(peer, run)| (PeerIndex(peer as u16), run.start * 4..run.end * 4)).collect()
        };
        self.sends = layout.exchanges.iter().map(|plan| nonempty(&plan.send)).collect();
        self.sequence = 0;
    }

    /// Waits for what was packed; gives the payloads to post.
    ///
    /// **Errors:** the device was lost.
    pub(crate) async fn take_out(&mut self, run: &mut AnyRun<'_>, exchange: usize) -> Result<Vec<(PeerIndex, Bytes)>, ExecutorError> {
        let pool = &mut self.pool;
        let mut packed = Bytes::new();
        run.outbox(exchange, &mut |bytes| packed = pool.copy(bytes)).await?;
        let mut payloads = std::mem::take(&mut self.payloads);
        for (peer, piece) in &self.sends[exchange] {
            self.payload_bytes += piece.len() as u64;
            self.shipped_bytes += piece.len() as u64 + FRAME_BYTES;
            payloads.push((*peer, packed.slice(piece.clone())));
        }
        Ok(payloads)
    }

    /// Puts what was delivered into the inboxes.
    pub(crate) fn put_in(&mut self, run: &mut AnyRun<'_>, exchange: usize, mut payloads: Vec<(PeerIndex, Bytes)>) {
        for (peer, payload) in payloads.drain(..) {
            run.inbox(exchange, peer.at(), &payload);
        }
        self.payloads = payloads;
        self.sequence += 1;
    }
}
