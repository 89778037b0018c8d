//! What a link carries, from whichever end can measure: bytes up, bytes down, round trips, and how long it took to be there.
//!
//! ```text
//!  first byte of a frame, or of a bare WebSocket's message
//!  0  swallow it          1  say the same          2  say `size u32` bytes, `count u32` times
//! ```
//!
//! The answering side is native and answers both alike: links of the transport, and the twin, a bare WebSocket. A probe of the stream alone
//! talks to the latter: what is below the encryption, without it. Invariant: both ways end with a word from the other side, so that
//! nothing is counted that has not arrived.

use std::time::Duration;

use ::libp2p::Multiaddr;
use ::libp2p::core::Endpoint;
use ::libp2p::core::Transport as _;
use ::libp2p::core::transport::{DialOpts, PortUse};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{AsyncReadExt, AsyncWriteExt};
use thiserror::Error;

use super::websocket::WebSockets;
use super::{CloseReason, Transport, TransportConfig, TransportError, TransportEvent};
use crate::core::LinkId;
use crate::runtime::Instant;
use crate::wire::Frame;

/// The largest frame that is measured with.
pub const PROBE_BYTES_MAX: u32 = 1 << 20;
/// What is answered at most, all in all.
#[cfg(not(target_arch = "wasm32"))]
const ANSWER_BYTES_MAX: u64 = 1 << 30;
const SWALLOW: u8 = 0;
const ECHO: u8 = 1;
const ANSWER: u8 = 2;

/// Why a link was not measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The transport did not start.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The other end is not reached.
    #[error("{address} is not reached: {error}")]
    Dial {
        /// The address.
        address: String,
        /// Why.
        error: String,
    },
    /// The link ended.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// Something else came than was asked for.
    #[error("the other side does not answer as it should")]
    Answer,
}

/// The measuring end of a link.
pub struct Probe {
    way: Way,
    connected: Duration,
}

/// What carries the bytes.
enum Way {
    Link {
        transport: Box<Transport>,
        link: LinkId,
    },
    /// A WebSocket as the transport has it: neither encrypted nor shared out.
    Stream(Box<<WebSockets as ::libp2p::core::Transport>::Output>),
}

fn frame(content: Bytes) -> Frame {
    Frame { head: (content.len() as u32).to_le_bytes().as_slice().into(), body: content }
}

fn order(kind: u8, size: u32, count: u32) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(kind);
    bytes.put_u32_le(size);
    bytes.put_u32_le(count);
    bytes.freeze()
}

fn filled(kind: u8, size: u32) -> Bytes {
    let mut content = vec![0x5a; size.clamp(1, PROBE_BYTES_MAX) as usize];
    content[0] = kind;
    content.into()
}

impl Probe {
    /// Dials.
    ///
    /// **Errors**: nobody is there.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    pub async fn dial(address: &str) -> Result<Probe, ProbeError> {
        let mut transport = Transport::start(TransportConfig { listen: Vec::new(), ..TransportConfig::default() }).await?;
        let begun = Instant::now();
        let failed = |error: String| ProbeError::Dial { address: address.to_owned(), error };
        transport.dial(address)?;
        let link = match transport.next().await {
            TransportEvent::Opened { link, .. } => link,
            TransportEvent::DialFailed { error, .. } => return Err(failed(error)),
            _ => return Err(ProbeError::Answer),
        };
        let connected = begun.elapsed();
        transport.limit(link, PROBE_BYTES_MAX);
        Ok(Probe { way: Way::Link { transport: Box::new(transport), link }, connected })
    }

    /// Dials a WebSocket that answers, for the stream of bytes alone.
    ///
    /// **Errors**: nobody is there.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    pub async fn dial_stream(address: &str) -> Result<Probe, ProbeError> {
        let failed = |error: String| ProbeError::Dial { address: address.to_owned(), error };
        let place: Multiaddr = address.parse().map_err(|error| failed(format!("{error}")))?;
        #[cfg(target_arch = "wasm32")]
        let mut sockets = WebSockets;
        #[cfg(not(target_arch = "wasm32"))]
        let mut sockets = WebSockets::new(None);
        let begun = Instant::now();
        let dial = sockets.dial(place, DialOpts { role: Endpoint::Dialer, port_use: PortUse::New });
        let stream = dial.map_err(|error| failed(error.to_string()))?.await.map_err(|error| failed(error.to_string()))?;
        Ok(Probe { way: Way::Stream(Box::new(stream)), connected: begun.elapsed() })
    }

    /// From the dial to the open link.
    pub fn connected(&self) -> Duration {
        self.connected
    }

    /// How long `count` frames of `size` bytes take to the other side.
    ///
    /// **Errors**: the link ends.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    pub async fn up(&mut self, size: u32, count: u32) -> Result<Duration, ProbeError> {
        let content = filled(SWALLOW, size);
        let begun = Instant::now();
        for _ in 0..count {
            self.send(content.clone()).await?;
        }
        self.send(filled(ECHO, 1)).await?;
        self.receive(1).await?;
        Ok(begun.elapsed())
    }

    /// How long `count` frames of `size` bytes take from the other side.
    ///
    /// **Errors**: the link ends.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    pub async fn down(&mut self, size: u32, count: u32) -> Result<Duration, ProbeError> {
        let begun = Instant::now();
        self.send(order(ANSWER, size, count)).await?;
        for _ in 0..count {
            self.receive(size).await?;
        }
        Ok(begun.elapsed())
    }

    /// How long a frame of `size` bytes takes there and back.
    ///
    /// **Errors**: the link ends.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    pub async fn round_trip(&mut self, size: u32) -> Result<Duration, ProbeError> {
        let begun = Instant::now();
        self.send(filled(ECHO, size)).await?;
        self.receive(size).await?;
        Ok(begun.elapsed())
    }

    async fn send(&mut self, content: Bytes) -> Result<(), ProbeError> {
        match &mut self.way {
            Way::Link { transport, link } => {
                let room = transport.room();
                transport.send(*link, frame(content))?;
                while transport.is_congested() {
                    room.notified().await;
                    transport.pump();
                }
            }
            Way::Stream(stream) => {
                stream.write_all(&content).await.map_err(ended)?;
                stream.flush().await.map_err(ended)?;
            }
        }
        Ok(())
    }

    async fn receive(&mut self, size: u32) -> Result<(), ProbeError> {
        match &mut self.way {
            Way::Link { transport, .. } => match transport.next().await {
                TransportEvent::Received { frame, .. } if frame.len() == size as usize => Ok(()),
                TransportEvent::Closed { reason, .. } => Err(reason.into()),
                _ => Err(ProbeError::Answer),
            },
            Way::Stream(stream) => {
                let mut content = vec![0; size as usize];
                stream.read_exact(&mut content).await.map_err(ended)
            }
        }
    }
}

fn ended(error: std::io::Error) -> ProbeError {
    ProbeError::Closed(CloseReason::Broken { error: error.to_string() })
}

#[cfg(not(target_arch = "wasm32"))]
pub use answering::Answering;

#[cfg(not(target_arch = "wasm32"))]
mod answering {
    use std::net::SocketAddr;
    use std::thread::JoinHandle;

    use futures::{SinkExt, StreamExt};
    use tokio::sync::oneshot;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    /// The answering end, on a thread of its own: a transport, and a bare WebSocket on a port of its own. Dropping it ends both.
    pub struct Answering {
        addresses: Vec<String>,
        bare: SocketAddr,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Answering {
        /// Answers at `listen`, a multiaddress, and beside it.
        ///
        /// **Errors**: an address is not to be had.
        pub fn start(listen: &str) -> Result<Answering, TransportError> {
            let setup = |error: std::io::Error| TransportError::Setup { error: error.to_string() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup)?;
            let config = TransportConfig { listen: vec![listen.to_owned()], ..TransportConfig::default() };
            let (started_in, started) = flume::bounded(1);
            let (stop, stopped) = oneshot::channel();
            let work = async move {
                let bound = async {
                    let transport = Transport::start(config).await?;
                    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(setup)?;
                    let bare = listener.local_addr().map_err(setup)?;
                    Ok::<_, TransportError>((transport, listener, bare))
                };
                match bound.await {
                    Err(error) => drop(started_in.send(Err(error))),
                    Ok((transport, listener, bare)) => {
                        let addresses = transport.addresses().to_vec();
                        let _ = started_in.send(Ok((addresses, bare)));
                        tokio::select! {
                            () = answer_links(transport) => {}
                            () = answer_bare(listener) => {}
                            _ = stopped => {}
                        }
                    }
                }
            };
            let thread = std::thread::Builder::new().spawn(move || runtime.block_on(work)).map_err(setup)?;
            let (addresses, bare) = started.recv().map_err(|_| TransportError::Setup { error: "no thread".to_owned() })??;
            Ok(Answering { addresses, bare, stop: Some(stop), thread: Some(thread) })
        }

        /// Where links are answered.
        pub fn address(&self) -> &str {
            self.addresses.first().map_or("", String::as_str)
        }

        /// The same place as the address of a stream.
        pub fn bare_address(&self) -> String {
            format!("/ip4/{}/tcp/{}/ws", self.bare.ip(), self.bare.port())
        }

        /// Where a bare WebSocket is.
        pub fn bare_url(&self) -> String {
            format!("ws://{}/", self.bare)
        }
    }

    impl Drop for Answering {
        fn drop(&mut self) {
            self.stop = None;
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// What to say to a message: how often, and what.
    fn answers(message: &Bytes) -> (u32, Bytes) {
        let number = |at: usize| message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        match message.first() {
            Some(&ECHO) => (1, message.clone()),
            Some(&ANSWER) => {
                let content = filled(SWALLOW, number(1));
                let most = ANSWER_BYTES_MAX / content.len() as u64;
                (u64::from(number(5)).min(most) as u32, content)
            }
            _ => (0, Bytes::new()),
        }
    }

    async fn answer_links(mut transport: Transport) {
        let room = transport.room();
        loop {
            let is_waiting = transport.is_waiting();
            tokio::select! {
                event = transport.next() => match event {
                    TransportEvent::Opened { link, .. } => transport.limit(link, PROBE_BYTES_MAX),
                    TransportEvent::Received { link, frame: message } => {
                        let (count, content) = answers(&message);
                        // One that reads no more is told so by its link.
                        (0..count).for_each(|_| drop(transport.send(link, frame(content.clone()))));
                    }
                    _ => {}
                },
                () = room.notified(), if is_waiting => transport.pump(),
            }
        }
    }

    async fn answer_bare(listener: tokio::net::TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    let Message::Binary(message) = message else { continue };
                    let (count, content) = answers(&message);
                    for _ in 0..count {
                        if socket.feed(Message::Binary(content.clone())).await.is_err() {
                            return;
                        }
                    }
                    if count > 0 && socket.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_measured_tiny() {
        for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"] {
            let answering = Answering::start(listen).expect("answers");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let link = Probe::dial(answering.address()).await.expect("is there");
                let stream = Probe::dial_stream(&answering.bare_address()).await.expect("is there");
                for mut probe in [link, stream] {
                    assert!(probe.connected() > Duration::ZERO);
                    assert!(probe.up(10_000, 30).await.expect("goes up") > Duration::ZERO);
                    assert!(probe.up(300_000, 3).await.expect("goes up") > Duration::ZERO);
                    assert!(probe.down(10_000, 30).await.expect("comes down") > Duration::ZERO);
                    assert!(probe.round_trip(1024).await.expect("comes back") > Duration::ZERO);
                }
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        assert!(matches!(runtime.block_on(Probe::dial("/ip4/127.0.0.1/tcp/1")), Err(ProbeError::Dial { .. })));
        for none in ["/ip4/127.0.0.1/tcp/1/ws", "/ip4/127.0.0.1/tcp/1", "nowhere"] {
            assert!(matches!(runtime.block_on(Probe::dial_stream(none)), Err(ProbeError::Dial { .. })), "{none}");
        }
    }
}
