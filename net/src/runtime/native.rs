//! On tokio, and on threads.

use std::time::Duration;

use super::Elapsed;

/// Runs a task beside this one.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

/// Ends after `time`; for tasks of the network.
pub fn sleep(time: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(time)
}

/// As `work` ends, if it does within `time`.
///
/// **Errors**: [`Elapsed`]; the work is dropped.
pub async fn timeout<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::time::timeout(time, work).await.map_err(|_| Elapsed)
}

/// Lets the other tasks of the network run, and bytes arrive.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

/// A node's sleep: natively it has a thread to itself.
#[allow(clippy::unused_async, reason = "in a browser it waits")]
pub async fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// A node's turn is over for now; natively nobody waits for it.
#[allow(clippy::unused_async, reason = "in a browser it waits")]
pub async fn give_way() {}
