//! Sockets that must show something that their backend has signed, and how long they may take. Where nobody must, nothing
//! is held.

use std::{num::NonZeroU32, time::Duration};

use rustc_hash::FxHashMap;

use crate::keep_alive::{Moment, Now, tenths};

/// The sockets of a thread that still have to, by their numbers in the node.
#[derive(Default)]
pub struct Unauthorized(FxHashMap<u32, TimeToProve>);

/// How long one may take, and since when; the first beat that sees it begins to count.
struct TimeToProve {
    most: NonZeroU32,
    since: Option<Moment>,
}

impl Unauthorized {
    /// A socket was opened that has so much time.
    pub fn add(&mut self, socket: u32, most: Duration) {
        let most = NonZeroU32::new(tenths(most)).unwrap_or(NonZeroU32::MIN);
        self.0.insert(socket, TimeToProve { most, since: None });
    }

    /// It has shown something, or it is closed.
    pub fn remove(&mut self, socket: u32) {
        if self.0.remove(&socket).is_some() && self.0.capacity() > 64 + 8 * self.0.len() {
            // what a crowd needed is given back when it has gone
            self.0.shrink_to(2 * self.0.len());
        }
    }

    /// A beat: those whose time is over, each of them told of once.
    pub fn tick(&mut self, now: Now) -> Vec<u32> {
        let mut late = Vec::new();
        self.0.retain(|&socket, TimeToProve { most, since }| {
            let is_late = now.is_after(most.get(), *since.get_or_insert(now.at));
            if is_late {
                late.push(socket);
            }
            !is_late
        });
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep_alive::ThreadClock;

    #[test]
    fn who_shows_nothing_in_time_is_told_of_once() {
        let (mut unauthorized, mut clock) = (Unauthorized::default(), ThreadClock::default());
        let mut late = |unauthorized: &mut Unauthorized, second| {
            let mut late = unauthorized.tick(clock.tick(Duration::from_secs(second)));
            late.sort_unstable();
            late
        };
        for socket in 1..=3 {
            unauthorized.add(socket, Duration::from_secs(3));
        }
        unauthorized.add(4, Duration::from_secs(5));
        assert!((1..=3).all(|second| late(&mut unauthorized, second).is_empty()));
        unauthorized.remove(2);
        unauthorized.remove(2);
        assert_eq!(late(&mut unauthorized, 4), [1, 3]);
        assert_eq!(late(&mut unauthorized, 5), Vec::<u32>::new());
        // the thread stood still: what came meanwhile was not read, and the time begins anew
        assert!([30, 31, 34].map(|second| late(&mut unauthorized, second)).iter().all(Vec::is_empty));
        assert!((35..39).all(|second| late(&mut unauthorized, second).is_empty()));
        assert_eq!(late(&mut unauthorized, 39), [4]);
    }
}
