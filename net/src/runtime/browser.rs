//! On the event loop of a page or of a worker.
//!
//! Tasks run between two events, so they never wait for each other alone: [`yield_now`] ends the event, by way of a message to
//! oneself, which no browser delays as it delays timers.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use js_sys::Function;
use wasm_bindgen::prelude::*;
use web_sys::{MessageChannel, MessagePort};

use super::Elapsed;

#[wasm_bindgen]
extern "C" {
    // Of the global object, which in a worker is no window.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(handler: &Function, milliseconds: i32) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);
}

/// Runs a task beside this one.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    wasm_bindgen_futures::spawn_local(task);
}

/// Ends after `time`.
pub fn sleep(time: Duration) -> Sleep {
    Sleep { time, armed: None }
}

/// A timer, set when it is first waited for: most are dropped before.
#[derive(Debug)]
#[must_use = "nothing waits unless it is awaited"]
pub struct Sleep {
    time: Duration,
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    timer: JsValue,
    ring: Rc<RefCell<Ring>>,
    _handler: Closure<dyn FnMut()>,
}

#[derive(Debug, Default)]
struct Ring {
    has_rung: bool,
    waker: Option<Waker>,
}

impl Ring {
    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.has_rung {
            return Poll::Ready(());
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn ring(ring: &RefCell<Ring>) {
    let waker = {
        let mut ring = ring.borrow_mut();
        ring.has_rung = true;
        ring.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let time = self.time;
        let armed = self.armed.get_or_insert_with(|| {
            let shared = Rc::new(RefCell::new(Ring::default()));
            let rung = shared.clone();
            let handler = Closure::new(move || ring(&rung));
            // Rounded up: a deadline that has not come yet would only be waited for again.
            let milliseconds = i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let timer = set_timeout(handler.as_ref().unchecked_ref(), milliseconds);
            Armed { timer, ring: shared, _handler: handler }
        });
        armed.ring.borrow_mut().poll(context)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        clear_timeout(&self.timer);
    }
}

/// As `work` ends, if it does within `time`.
///
/// **Errors**: [`Elapsed`]; the work is dropped.
pub async fn timeout<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    match select(pin!(work), sleep(time)).await {
        Either::Left((done, _)) => Ok(done),
        Either::Right(((), _)) => Err(Elapsed),
    }
}

thread_local! {
    static TURNS: Turns = Turns::new();
}

/// Those that wait for the next event of this thread.
struct Turns {
    /// `None` where there are no channels; then turns are timers.
    port: Option<MessagePort>,
    waiting: Rc<RefCell<Vec<Rc<RefCell<Ring>>>>>,
}

impl Turns {
    fn new() -> Turns {
        let waiting: Rc<RefCell<Vec<Rc<RefCell<Ring>>>>> = Rc::default();
        let port = MessageChannel::new().ok().map(|channel| {
            let woken = waiting.clone();
            let handler = Closure::<dyn FnMut()>::new(move || {
                let woken = std::mem::take(&mut *woken.borrow_mut());
                woken.iter().for_each(|turn| ring(turn));
            });
            channel.port1().set_onmessage(Some(handler.as_ref().unchecked_ref()));
            // As long as the thread.
            handler.forget();
            channel.port2()
        });
        Turns { port, waiting }
    }

    fn take(&self) -> Option<Rc<RefCell<Ring>>> {
        let turn = Rc::new(RefCell::new(Ring::default()));
        let port = self.port.as_ref()?;
        // One message serves all that wait.
        if self.waiting.borrow().is_empty() {
            port.post_message(&JsValue::NULL).ok()?;
        }
        self.waiting.borrow_mut().push(turn.clone());
        Some(turn)
    }
}

/// Lets the other tasks run, and events happen.
pub async fn yield_now() {
    match TURNS.with(Turns::take) {
        Some(turn) => std::future::poll_fn(|context| turn.borrow_mut().poll(context)).await,
        None => sleep(Duration::ZERO).await,
    }
}

/// A node's sleep.
pub async fn rest(time: Duration) {
    sleep(time).await;
}

/// A node's turn is over for now: the network, which shares its thread, gets one.
pub async fn give_way() {
    yield_now().await;
}
