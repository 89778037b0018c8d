//! What the link of this worker carries: for measurements, beside a bare WebSocket of the same page.

use peercompute_net::transport::probe::Probe;
use wasm_bindgen::prelude::*;

use super::told;

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
    pub async fn dial(address: String) -> Result<Wire, JsError> {
        Probe::dial(&address).await.map(|probe| Wire { probe }).map_err(told)
    }

    /// Dials a WebSocket that answers, for the transport's stream of bytes alone: neither encrypted nor shared out.
    ///
    /// **Errors:** nobody is there.
    #[wasm_bindgen(js_name = dialStream)]
    pub async fn dial_stream(address: String) -> Result<Wire, JsError> {
        Probe::dial_stream(&address).await.map(|probe| Wire { probe }).map_err(told)
    }

    /// Seconds from the dial to the open link.
    #[wasm_bindgen(getter)]
    pub fn connected(&self) -> f64 {
        self.probe.connected().as_secs_f64()
    }

    /// Seconds that `count` frames of `size` bytes take to the other side.
    ///
    /// **Errors:** the link ends.
    pub async fn up(&mut self, size: u32, count: u32) -> Result<f64, JsError> {
        self.probe.up(size, count).await.map(|time| time.as_secs_f64()).map_err(told)
    }

    /// Seconds that they take from the other side.
    ///
    /// **Errors:** the link ends.
    pub async fn down(&mut self, size: u32, count: u32) -> Result<f64, JsError> {
        self.probe.down(size, count).await.map(|time| time.as_secs_f64()).map_err(told)
    }

    /// Seconds that a frame of `size` bytes takes there and back.
    ///
    /// **Errors:** the link ends.
    #[wasm_bindgen(js_name = roundTrip)]
    pub async fn round_trip(&mut self, size: u32) -> Result<f64, JsError> {
        self.probe.round_trip(size).await.map(|time| time.as_secs_f64()).map_err(told)
    }
}
