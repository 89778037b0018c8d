//! What the link of this worker carries: for measurements, beside a bare WebSocket of the same page.

use peercompute_net::transport::probe::Probe;
use wasm_bindgen::prelude::*;

use super::fault::Fault;

/// A link to somebody who answers what is measured.
#[wasm_bindgen]
pub struct Wire {
    probe: Probe,
}

#[wasm_bindgen]
impl Wire {
    /// Dials a multiaddress.
    ///
    /// **Errors:** nobody is there.
    pub async fn dial(address: String) -> Result<Wire, Fault> {
        Ok(Wire { probe: Probe::dial(&address).await? })
    }

    /// Dials a WebSocket that answers, for the transport's stream of bytes alone: neither encrypted nor shared out.
    ///
    /// **Errors:** nobody is there.
    #[wasm_bindgen(js_name = dialStream)]
    pub async fn dial_stream(address: String) -> Result<Wire, Fault> {
        Ok(Wire { probe: Probe::dial_stream(&address).await? })
    }

    /// Seconds from the dial to the open link.
    #[wasm_bindgen(getter)]
    pub fn connected(&self) -> f64 {
        self.probe.connected().as_secs_f64()
    }

    /// Seconds that `count` frames of `size` bytes take to the other side.
    ///
    /// **Errors:** the link ends.
    pub async fn up(&mut self, size: u32, count: u32) -> Result<f64, Fault> {
        Ok(self.probe.up(size, count).await?.as_secs_f64())
    }

    /// Seconds that they take from the other side.
    ///
    /// **Errors:** the link ends.
    pub async fn down(&mut self, size: u32, count: u32) -> Result<f64, Fault> {
        Ok(self.probe.down(size, count).await?.as_secs_f64())
    }

    /// Seconds that a frame of `size` bytes takes there and back.
    ///
    /// **Errors:** the link ends.
    #[wasm_bindgen(js_name = roundTrip)]
    pub async fn round_trip(&mut self, size: u32) -> Result<f64, Fault> {
        Ok(self.probe.round_trip(size).await?.as_secs_f64())
    }
}
