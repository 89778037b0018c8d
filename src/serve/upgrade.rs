//! From HTTP to a peer's link: the handshake of RFC 6455, section 4.2, after which the transport has the connection.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use peercompute_net::transport::websocket::{Door, accept_key};
use tokio::sync::OwnedSemaphorePermit;

use super::Served;

/// Who asks, and the place that its connection takes.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) remote: SocketAddr,
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

/// An upgraded connection keeps its place for as long as it lasts.
struct Placed<S> {
    stream: S,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// At the first run's door.
pub(super) async fn first(State(served): State<Arc<Served>>, visitor: Extension<Visitor>, request: Request) -> Response {
    upgrade(served.door(None), visitor.0, request)
}

/// At the door of a run by its name.
pub(super) async fn named(State(served): State<Arc<Served>>, Path(run): Path<String>, visitor: Extension<Visitor>, request: Request) -> Response {
    upgrade(served.door(Some(&run)), visitor.0, request)
}

fn upgrade(door: Option<&Door>, visitor: Visitor, mut request: Request) -> Response {
    let Some(door) = door.cloned() else { return StatusCode::NOT_FOUND.into_response() };
    if door.is_shut() {
        return (StatusCode::GONE, "this run is over").into_response();
    }
    let headers = request.headers();
    let says = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let is_asked = says(header::CONNECTION, "upgrade") && says(header::UPGRADE, "websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let (true, Some(key)) = (is_asked, key) else {
        let upgrade = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")];
        return (StatusCode::UPGRADE_REQUIRED, upgrade, "peers come here by WebSocket").into_response();
    };
    if !says(header::SEC_WEBSOCKET_VERSION, "13") {
        return (StatusCode::BAD_REQUEST, [(header::SEC_WEBSOCKET_VERSION, "13")]).into_response();
    }
    let accept = accept_key(key.as_bytes());
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // One that goes away meanwhile was nobody yet.
        if let Ok(stream) = upgrading.await {
            let placed = Placed { stream: TokioIo::new(stream), _permit: visitor.permit };
            let _ = door.hand_over(placed, visitor.remote).await;
        }
    });
    let agreed = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_ACCEPT, accept.as_str())];
    (StatusCode::SWITCHING_PROTOCOLS, agreed).into_response()
}

mod io {
    //! A placed stream is its stream.

    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Placed;

    impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
        fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, into)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
        fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(context, from)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }
}
