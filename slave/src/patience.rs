//! A timeout that does not count time in which the process was stopped, since nothing could happen in it.

use std::{pin::pin, time::Duration};

use tokio::time::timeout;

/// Looked at in pieces of this length, each of which counts once, however long it took.
const PIECE: Duration = Duration::from_millis(100);

/// What `future` gives, if it does so within `span`.
pub async fn within<F: Future>(span: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = span;
    while !left.is_zero() {
        let piece = left.min(PIECE);
        if let Ok(done) = timeout(piece, &mut future).await {
            return Some(done);
        }
        left -= piece;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{future::pending, thread, time::Instant};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn time_in_which_the_thread_stood_still_is_not_counted() {
        let began = Instant::now();
        let late = async {
            for _ in 0..3 {
                // as if the process had been stopped, right between two steps
                thread::sleep(2 * PIECE);
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(within(4 * PIECE, late).await.is_some(), "{:?}", began.elapsed());
        assert!(began.elapsed() > 6 * PIECE);
    }

    #[tokio::test]
    async fn it_ends_where_nothing_happens() {
        assert!(within(PIECE / 10, pending::<()>()).await.is_none());
        assert!(within(Duration::ZERO, pending::<()>()).await.is_none());
    }
}
