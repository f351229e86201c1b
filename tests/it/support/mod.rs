//! What every test leans on: a real server process, a backend that pushes, clients that listen, keys that sign.

pub mod backend;
pub mod client;
pub mod conveyor;
pub mod failure;
pub mod hook_target;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod listener;
pub mod measure;
pub mod member;
pub mod memory;
pub mod nats;
pub mod nginx;
pub mod phoenix;
pub mod proxy;
pub mod pusher;
pub mod random;
pub mod server;
pub mod websocket;

use std::{future::Future, time::Duration};

/// How long any one thing may take before a test gives up on it. Long, because two cores run many tests at once;
/// nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What `future` gives, in time.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// Ask again and again until the answer is the wanted one: for things that the server does on its own time.
pub async fn until<T: PartialEq + std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    wanted: T,
    mut ask: impl FnMut() -> F,
) {
    let mut last = None;
    let reached = tokio::time::timeout(PATIENCE, async {
        loop {
            let answer = ask().await;
            if answer == wanted {
                return;
            }
            last = Some(answer);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what}: wanted {wanted:?}, last was {last:?}");
}

/// `text` as one segment of a path, or one value of a form.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}
