//! The benchmark page on the root's port: the bench crate's files and bundles, and bytes to and from this machine.
//!
//! Invariant: whoever asks costs a bounded amount: bundles are of a fixed list, bytes that come up are counted and dropped.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use peercompute_bench::BenchError;
use peercompute_bench::page::{Bundles, TRANSFER_BYTES, random_bytes};

use super::{Served, answer};

/// How long one upload may take.
const UPLOAD_LIMIT: Duration = Duration::from_secs(60);
/// The same for everybody.
static BYTES: LazyLock<Bytes> = LazyLock::new(|| random_bytes().into());

/// What this server signs for the page.
#[derive(Default)]
pub(super) struct Bench {
    bundles: OnceLock<Bundles>,
}

impl Bench {
    fn bundles(&self) -> Result<&Bundles, BenchError> {
        if let Some(bundles) = self.bundles.get() {
            return Ok(bundles);
        }
        let new = Bundles::new()?;
        Ok(self.bundles.get_or_init(|| new))
    }
}

/// The page's paths.
pub(super) fn routes() -> Router<Arc<Served>> {
    Router::new()
        .route("/bench", get(page))
        .route("/bench/about.json", get(about))
        .route("/bench/bundles/{name}", get(bundle))
        .route("/bench/bytes", get(down).post(up))
}

async fn page(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    answer(&served.site.bench, &headers, "no-cache")
}

async fn about(State(served): State<Arc<Served>>) -> Response {
    match served.bench.bundles() {
        Ok(bundles) => fresh("application/json", bundles.about()),
        Err(error) => failed(&error),
    }
}

async fn bundle(State(served): State<Arc<Served>>, Path(name): Path<String>) -> Response {
    // Linking takes milliseconds, which the peers on this thread need not wait for.
    let signing = tokio::task::spawn_blocking(move || match served.bench.bundles().and_then(|bundles| bundles.bundle(&name)) {
        Ok(Some(bundle)) => fresh("application/octet-stream", bundle.to_vec()),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    });
    signing.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn down() -> Response {
    fresh("application/octet-stream", BYTES.clone())
}

/// Counts what comes, and keeps none of it.
async fn up(mut body: Body) -> Response {
    let counting = async {
        let mut left = TRANSFER_BYTES;
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let Ok(data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else { return StatusCode::BAD_REQUEST };
            let Some(rest) = left.checked_sub(data.len()) else { return StatusCode::PAYLOAD_TOO_LARGE };
            left = rest;
        }
        StatusCode::NO_CONTENT
    };
    tokio::time::timeout(UPLOAD_LIMIT, counting).await.unwrap_or(StatusCode::REQUEST_TIMEOUT).into_response()
}

fn fresh(kind: &'static str, content: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], content).into_response()
}

fn failed(error: &BenchError) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}
