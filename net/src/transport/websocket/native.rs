//! Natively: a dialer over TCP and TLS, a listener on a port of its own, and a door for an HTTP server's upgraded connections.
//!
//! ```text
//!  listen_on /ip4/…/tcp/…/ws   no door: TCP, the handshake is done here
//!                              a door:  the server has done it; what it hands over counts as heard at that address
//! ```

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use ::libp2p::Multiaddr;
use ::libp2p::core::Transport;
use ::libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use ::libp2p::multiaddr::Protocol;
use ::libp2p::tcp;
use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::FusedStream;
use futures::{AsyncRead, AsyncWrite, FutureExt, Sink, StreamExt, TryFutureExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{MESSAGE_BYTES, MESSAGE_BYTES_MAX, PATH, Place, certificate};

/// Upgraded connections that wait to be taken.
const UPGRADED_MAX: usize = 64;

/// A stream of bytes below a WebSocket.
trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection on which a server has agreed to the upgrade.
struct Upgraded {
    stream: Box<dyn Duplex>,
    /// Who is at the other end.
    remote: std::net::SocketAddr,
}

/// What an HTTP server hands its upgraded connections to.
#[derive(Clone, Debug)]
pub struct Door(flume::Sender<Upgraded>);

/// The door's other side, for a transport's configuration.
#[derive(Clone, Debug)]
pub struct Doorway(flume::Receiver<Upgraded>);

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgraded").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// A door between an HTTP server and one transport.
pub fn door() -> (Door, Doorway) {
    let (outside, inside) = flume::bounded(UPGRADED_MAX);
    (Door(outside), Doorway(inside))
}

impl Door {
    /// Whether the transport is gone.
    pub fn is_shut(&self) -> bool {
        self.0.is_disconnected()
    }

    /// Hands over a connection on which `101 Switching Protocols` has been said; `remote` is who asked.
    /// Waits while many others wait to be taken.
    ///
    /// **Errors**: the transport is gone.
    pub async fn hand_over<S>(&self, stream: S, remote: std::net::SocketAddr) -> Result<(), io::Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let upgraded = Upgraded { stream: Box::new(stream), remote };
        self.0.send_async(upgraded).await.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the transport is gone"))
    }
}

/// The answer to a request's `sec-websocket-key`: what a server says in `sec-websocket-accept`.
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}

/// The transport: bytes only, neither secured nor shared out into streams.
pub(in super::super) struct WebSockets {
    tcp: tcp::tokio::Transport,
    /// Listeners by whom `tcp` listens.
    on_ports: Vec<ListenerId>,
    doorway: Option<Doorway>,
    /// The address at which the door is.
    at_door: Option<(ListenerId, Multiaddr)>,
    taking: Option<flume::r#async::RecvStream<'static, Upgraded>>,
    events: VecDeque<TransportEvent<BoxFuture<'static, io::Result<Socket>>, io::Error>>,
    waker: Option<Waker>,
}

impl WebSockets {
    pub(in super::super) fn new(doorway: Option<Doorway>) -> WebSockets {
        let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        WebSockets { tcp, on_ports: Vec::new(), doorway, at_door: None, taking: None, events: VecDeque::new(), waker: None }
    }
}

impl Transport for WebSockets {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<Socket>>;
    type Dial = BoxFuture<'static, io::Result<Socket>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some(place) = Place::from_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if let Some(doorway) = self.doorway.take() {
            self.taking = Some(doorway.0.into_stream());
            self.at_door = Some((id, address.clone()));
        } else if self.at_door.is_none() {
            if place.is_secure {
                let cause = io::Error::other("a certificate is the HTTP server's affair: listen with ws, behind one");
                return Err(TransportError::Other(cause));
            }
            if place.path != PATH {
                let cause = io::Error::other(format!("a port without an HTTP server takes the upgrade at {PATH} alone"));
                return Err(TransportError::Other(cause));
            }
            let below: Multiaddr = address.iter().take(2).collect();
            self.tcp.listen_on(id, below)?;
            self.on_ports.push(id);
            return Ok(());
        }
        self.events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr: address });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        if self.at_door.take_if(|(at, _)| *at == id).is_some() {
            self.taking = None;
            return true;
        }
        self.on_ports.retain(|port| *port != id);
        self.tcp.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        match Place::from_address(&address) {
            Some(place) => Ok(connect(place).boxed()),
            None => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = &mut *self;
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(event);
        }
        if let (Some(taking), Some((id, address))) = (&mut this.taking, &this.at_door)
            && !taking.is_terminated()
            && let Poll::Ready(Some(Upgraded { stream, remote })) = taking.poll_next_unpin(context)
        {
            let upgrade = async move { Ok(Socket::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits())).await)) };
            let send_back_addr = Multiaddr::from(remote.ip()).with(Protocol::Tcp(remote.port())).with(Protocol::Ws("/".into()));
            return Poll::Ready(TransportEvent::Incoming { listener_id: *id, upgrade: upgrade.boxed(), local_addr: address.clone(), send_back_addr });
        }
        if let Poll::Ready(event) = Pin::new(&mut this.tcp).poll(context) {
            let with_ws = |address: Multiaddr| address.with(Protocol::Ws("/".into()));
            return Poll::Ready(match event {
                TransportEvent::NewAddress { listener_id, listen_addr } => {
                    TransportEvent::NewAddress { listener_id, listen_addr: with_ws(listen_addr) }
                }
                TransportEvent::AddressExpired { listener_id, listen_addr } => {
                    TransportEvent::AddressExpired { listener_id, listen_addr: with_ws(listen_addr) }
                }
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => TransportEvent::Incoming {
                    listener_id,
                    upgrade: upgrade.and_then(|stream| accept(stream.into())).boxed(),
                    local_addr: with_ws(local_addr),
                    send_back_addr: with_ws(send_back_addr),
                },
                TransportEvent::ListenerClosed { listener_id, reason } => TransportEvent::ListenerClosed { listener_id, reason },
                TransportEvent::ListenerError { listener_id, error } => TransportEvent::ListenerError { listener_id, error },
            });
        }
        this.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(MESSAGE_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MESSAGE_BYTES_MAX)
}

/// The server's half of the handshake, on a port without an HTTP server.
async fn accept(stream: tokio::net::TcpStream) -> io::Result<Socket> {
    #[allow(clippy::result_large_err, reason = "its shape is the crate's")]
    let at_path = |request: &Request, response: Response| {
        if request.uri().path() == PATH {
            return Ok(response);
        }
        let mut refused = ErrorResponse::new(Some(format!("a WebSocket is at {PATH} alone")));
        *refused.status_mut() = tungstenite::http::StatusCode::NOT_FOUND;
        Err(refused)
    };
    let stream: Box<dyn Duplex> = Box::new(stream);
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, at_path, Some(limits())).await;
    socket.map(Socket::new).map_err(io_error)
}

async fn connect(place: Place) -> io::Result<Socket> {
    let Place { host, port, is_secure, certificate, .. } = &place;
    let stream: Box<dyn Duplex> = if *is_secure {
        Box::new(certificate::connect(host, *port, *certificate).await?)
    } else {
        let stream = tokio::net::TcpStream::connect((host.trim_matches(['[', ']']), *port)).await?;
        stream.set_nodelay(true)?;
        Box::new(stream)
    };
    let (socket, _) = tokio_tungstenite::client_async_with_config(place.to_string(), stream, Some(limits())).await.map_err(io_error)?;
    Ok(Socket::new(socket))
}

fn io_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        tungstenite::Error::Http(response) => io::Error::other(format!("no WebSocket: the server answered {}", response.status())),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// The bytes of a WebSocket's messages.
pub(in super::super) struct Socket {
    messages: WebSocketStream<Box<dyn Duplex>>,
    unread: Bytes,
    unsent: BytesMut,
}

impl Socket {
    fn new(messages: WebSocketStream<Box<dyn Duplex>>) -> Socket {
        Socket { messages, unread: Bytes::new(), unsent: BytesMut::new() }
    }

    /// Makes a message of what was written.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.messages).poll_ready(context)).map_err(io_error)?;
        let message = Message::Binary(self.unsent.split().freeze());
        Poll::Ready(Pin::new(&mut self.messages).start_send(message).map_err(io_error))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        while self.unread.is_empty() {
            match ready!(self.messages.poll_next_unpin(context)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a message of text")));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(0)),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let count = self.unread.len().min(into.len());
        self.unread.copy_to_slice(&mut into[..count]);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= MESSAGE_BYTES {
            ready!(self.poll_send(context))?;
        }
        let count = from.len().min(MESSAGE_BYTES - self.unsent.len());
        self.unsent.extend_from_slice(&from[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.messages).poll_flush(context).map_err(io_error)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        match ready!(Pin::new(&mut self.messages).poll_close(context)) {
            // The other end was first.
            Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed.map_err(io_error)),
        }
    }
}
