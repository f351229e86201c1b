//! What a server costs the machine: time of the processor, memory.

use std::{fs, time::Duration};

use super::{PATIENCE, server::Server};

/// What a server may use of a second in which it has nothing to do.
const IDLE: Duration = Duration::from_millis(250);

impl Server {
    /// The time of the processor that it has used so far.
    pub fn processor(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the name stands in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        // a hundred in a second, on every Linux that there is
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Wait for a second in which it does next to nothing.
    pub async fn idles(&self) {
        let mut used = Duration::MAX;
        let idle = tokio::time::timeout(PATIENCE, async {
            while used > IDLE {
                let before = self.processor();
                tokio::time::sleep(Duration::from_secs(1)).await;
                used = self.processor() - before;
            }
        });
        assert!(idle.await.is_ok(), "it never has nothing to do; in the last second it used {used:?}");
    }

    /// By how much its resident memory has grown since it was `before`, in MiB.
    pub fn grown(&self, before: u64) -> u64 {
        self.resident().saturating_sub(before) >> 20
    }
}
