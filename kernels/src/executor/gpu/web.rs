//! What a browser says of its adapter: <https://www.w3.org/TR/webgpu/#gpuadapterinfo>.
//!
//! wgpu passes on the description alone, which most browsers leave empty.

use js_sys::{Function, Promise, Reflect, global};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// An adapter in a browser's words.
#[derive(Default)]
pub(super) struct Adapter {
    /// What is known of vendor, architecture, device and description.
    pub(super) name: String,
    /// Whether it only stands in for a GPU.
    pub(super) is_fallback: bool,
}

/// The adapter that a request without wishes gives; without any, one of no name.
pub(super) async fn adapter() -> Adapter {
    request().await.unwrap_or_default()
}

async fn request() -> Result<Adapter, JsValue> {
    let gpu = get(&get(&global(), "navigator")?, "gpu")?;
    let promise = get(&gpu, "requestAdapter")?.dyn_into::<Function>()?.call0(&gpu)?.dyn_into::<Promise>()?;
    let info = get(&JsFuture::from(promise).await?, "info")?;
    let words = ["vendor", "architecture", "device", "description"].map(|key| get(&info, key).ok().and_then(|word| word.as_string()));
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    let is_fallback = get(&info, "isFallbackAdapter")?.is_truthy();
    Ok(Adapter { name: words.join(" "), is_fallback })
}

/// The format of a canvas that is shown without being converted.
pub(super) fn canvas_format() -> wgpu::TextureFormat {
    let preferred = || {
        let gpu = get(&get(&global(), "navigator")?, "gpu")?;
        get(&gpu, "getPreferredCanvasFormat")?.dyn_into::<Function>()?.call0(&gpu)
    };
    match preferred().ok().and_then(|format: JsValue| format.as_string()).as_deref() {
        Some("rgba8unorm") => wgpu::TextureFormat::Rgba8Unorm,
        _ => wgpu::TextureFormat::Bgra8Unorm,
    }
}

fn get(object: &JsValue, key: &str) -> Result<JsValue, JsValue> {
    Reflect::get(object, &key.into())
}
