//! In a browser: the part of this program that only the cpu executor needs, where the build left it in a module of its own.
//!
//! A tab with WebGPU never loads it. `xtask/src/split.rs` makes it; to the code it is the same program. Invariant: nothing of
//! [`cpu`](super::cpu) but its options is used before [`load`] is done.

use wasm_bindgen::prelude::*;

use super::ExecutorError;

#[wasm_bindgen(module = "/src/executor/rest.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    async fn rest(first: &JsValue) -> Result<(), JsValue>;
}

/// Loads it, once; what is all in one module has nothing to load.
///
/// **Errors:** it is not to be had.
pub(super) async fn load() -> Result<(), ExecutorError> {
    rest(&wasm_bindgen::exports()).await.map_err(|cause| {
        let message = cause.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
        ExecutorError::NotLoaded { cause: message.unwrap_or_else(|| format!("{cause:?}")) }
    })
}
