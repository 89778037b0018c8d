//! In a browser: the WebSocket that the page or worker has. It dials only.
//!
//! ```text
//!  onmessage ─► unread, bounded ─► poll_read          onopen, onclose, onerror ─► wake whoever waits
//!  poll_write ─► unsent ─► send() as soon as the writer flushes, while bufferedAmount leaves room
//! ```
//!
//! A browser reads from the network whether anybody wants it or not, so what is unread has a limit, and a peer that exceeds it
//! loses its connection. It tells nobody that its own buffer has drained: a writer that meets a full one looks again after a few
//! milliseconds, and what the buffer may hold follows what the network takes until then.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::libp2p::Multiaddr;
use ::libp2p::core::Transport;
use ::libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use bytes::{Buf, Bytes};
use futures::{AsyncRead, AsyncWrite};
use js_sys::{ArrayBuffer, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{BinaryType, CloseEvent, Event, MessageEvent, WebSocket};

use super::{BUFFERED_BYTES_MIN, MESSAGE_BYTES, Place, buffered_bytes};
use crate::runtime::{self, Sleep};

/// Bytes that may be unread; a connection whose task runs at all has far fewer.
const UNREAD_BYTES_MAX: usize = 32 << 20;
/// When to look again whether it has sent some: no browser sets a timer shorter for long.
const LOOK_AGAIN: Duration = Duration::from_millis(4);

/// The transport: bytes only, neither secured nor shared out into streams.
#[derive(Debug, Default)]
pub(in super::super) struct WebSockets;

impl Transport for WebSockets {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = std::future::Pending<io::Result<Socket>>;
    type Dial = Opening;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Opening, TransportError<io::Error>> {
        match Place::from_address(&address) {
            Some(place) => Ok(Opening { url: place.to_string(), socket: None }),
            None => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}

/// A dial: begins when it is first polled.
pub(in super::super) struct Opening {
    url: String,
    socket: Option<Socket>,
}

impl Future for Opening {
    type Output = io::Result<Socket>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open(&self.url)?,
        };
        let state = socket.0.state.clone();
        let mut state = state.borrow_mut();
        match (&state.end, state.is_open) {
            (Some(end), _) => Poll::Ready(Err(end.error(&self.url))),
            (None, true) => Poll::Ready(Ok(socket)),
            (None, false) => {
                state.writer = Some(context.waker().clone());
                self.socket = Some(socket);
                Poll::Pending
            }
        }
    }
}

/// A WebSocket as a stream of bytes. It stays on its thread: a browser's workers share none of it.
pub(in super::super) struct Socket(SendWrapper<Inner>);

struct Inner {
    socket: WebSocket,
    state: Rc<RefCell<State>>,
    unsent: Vec<u8>,
    /// Bytes that the browser may have to send.
    buffered_bytes_max: u32,
    /// Set while the browser's buffer is full.
    look_again: Option<Pin<Box<Sleep>>>,
    _handlers: Handlers,
}

struct Handlers {
    _open: Closure<dyn FnMut(Event)>,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _error: Closure<dyn FnMut(Event)>,
    _close: Closure<dyn FnMut(CloseEvent)>,
}

/// What the browser has told.
#[derive(Default)]
struct State {
    is_open: bool,
    unread: VecDeque<Bytes>,
    unread_bytes: usize,
    end: Option<Ending>,
    reader: Option<Waker>,
    /// Whoever waits for the connection, to write or to have it.
    writer: Option<Waker>,
}

/// How a socket ended.
enum Ending {
    /// In good order.
    Closed,
    Broken(String),
}

impl Ending {
    fn error(&self, url: &str) -> io::Error {
        match self {
            Ending::Closed => io::Error::new(io::ErrorKind::ConnectionRefused, format!("{url} closed the connection")),
            Ending::Broken(cause) => io::Error::new(io::ErrorKind::ConnectionAborted, format!("{url}: {cause}")),
        }
    }
}

/// Changes what is known, and wakes all: who is woken for nothing waits again.
fn tell(state: &RefCell<State>, change: impl FnOnce(&mut State)) {
    let (reader, writer) = {
        let mut state = state.borrow_mut();
        change(&mut state);
        (state.reader.take(), state.writer.take())
    };
    for waker in [reader, writer].into_iter().flatten() {
        waker.wake();
    }
}

impl State {
    fn take_in(&mut self, data: &wasm_bindgen::JsValue) {
        let Some(buffer) = data.dyn_ref::<ArrayBuffer>() else {
            self.end.get_or_insert(Ending::Broken("a message of text".to_owned()));
            return;
        };
        let bytes = Uint8Array::new(buffer);
        self.unread_bytes += bytes.length() as usize;
        if self.unread_bytes > UNREAD_BYTES_MAX {
            self.end.get_or_insert(Ending::Broken(format!("{} bytes are unread, at most {UNREAD_BYTES_MAX} may be", self.unread_bytes)));
            self.unread.clear();
            return;
        }
        if bytes.length() > 0 {
            self.unread.push_back(bytes.to_vec().into());
        }
    }
}

impl Socket {
    fn open(url: &str) -> io::Result<Socket> {
        let refused = |cause: wasm_bindgen::JsValue| io::Error::new(io::ErrorKind::PermissionDenied, format!("{url}: {}", said(&cause)));
        let socket = WebSocket::new(url).map_err(refused)?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let state = Rc::new(RefCell::new(State::default()));
        let handlers = Handlers {
            _open: {
                let state = state.clone();
                Closure::new(move |_| tell(&state, |state| state.is_open = true))
            },
            _message: {
                let state = state.clone();
                Closure::new(move |event: MessageEvent| tell(&state, |state| state.take_in(&event.data())))
            },
            _error: {
                let state = state.clone();
                // A close follows, and knows no more: browsers tell nobody why.
                Closure::new(move |_| {
                    tell(&state, |state| {
                        state.end.get_or_insert(Ending::Broken("the connection failed".to_owned()));
                    });
                })
            },
            _close: {
                let state = state.clone();
                Closure::new(move |event: CloseEvent| {
                    let ending = match event.was_clean() {
                        true => Ending::Closed,
                        false => Ending::Broken(format!("the connection broke, code {}", event.code())),
                    };
                    tell(&state, |state| {
                        state.end.get_or_insert(ending);
                    });
                })
            },
        };
        socket.set_onopen(Some(handlers._open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(handlers._message.as_ref().unchecked_ref()));
        socket.set_onerror(Some(handlers._error.as_ref().unchecked_ref()));
        socket.set_onclose(Some(handlers._close.as_ref().unchecked_ref()));
        let unsent = Vec::with_capacity(MESSAGE_BYTES);
        let inner = Inner { socket, state, unsent, buffered_bytes_max: BUFFERED_BYTES_MIN, look_again: None, _handlers: handlers };
        Ok(Socket(SendWrapper::new(inner)))
    }
}

impl Inner {
    /// Gives the browser what was written, where its buffer has room.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.borrow().end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(look_again) = &mut self.look_again {
                ready!(look_again.as_mut().poll(context));
                self.look_again = None;
                self.buffered_bytes_max = buffered_bytes(self.buffered_bytes_max, self.socket.buffered_amount());
            }
            if self.socket.buffered_amount() < self.buffered_bytes_max {
                break;
            }
            // Woken too if the connection ends.
            self.state.borrow_mut().writer = Some(context.waker().clone());
            self.look_again = Some(Box::pin(runtime::sleep(LOOK_AGAIN)));
        }
        // One that was closed a moment ago tells so later, and what is sent on it meanwhile is only complained of.
        if self.socket.ready_state() != WebSocket::OPEN {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let sent = self.socket.send_with_u8_array(&self.unsent);
        self.unsent.clear();
        Poll::Ready(sent.map_err(|cause| io::Error::new(io::ErrorKind::BrokenPipe, said(&cause))))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onerror(None);
        self.socket.set_onclose(None);
        // Nothing is lost by one that is closed already.
        let _ = self.socket.close();
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0;
        let mut state = inner.state.borrow_mut();
        let mut count = 0;
        while count < into.len() {
            let Some(first) = state.unread.front_mut() else { break };
            let taken = first.len().min(into.len() - count);
            first.copy_to_slice(&mut into[count..count + taken]);
            count += taken;
            if first.is_empty() {
                state.unread.pop_front();
            }
        }
        state.unread_bytes -= count.min(state.unread_bytes);
        match &state.end {
            _ if count > 0 || into.is_empty() => Poll::Ready(Ok(count)),
            Some(Ending::Closed) => Poll::Ready(Ok(0)),
            Some(Ending::Broken(cause)) => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, cause.clone()))),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0;
        if inner.unsent.len() >= MESSAGE_BYTES {
            ready!(inner.poll_send(context))?;
        }
        let count = from.len().min(MESSAGE_BYTES - inner.unsent.len());
        inner.unsent.extend_from_slice(&from[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.state.borrow().end.is_none() {
            ready!(self.0.poll_send(context))?;
            // What the browser has buffered goes out first.
            let _ = self.0.socket.close();
        }
        Poll::Ready(Ok(()))
    }
}

/// What JavaScript threw.
fn said(thrown: &wasm_bindgen::JsValue) -> String {
    match thrown.dyn_ref::<js_sys::Error>() {
        Some(error) => error.message().into(),
        None => format!("{thrown:?}"),
    }
}
