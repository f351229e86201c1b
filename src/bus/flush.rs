//! Who waits for a confirmation, and for which round trip. Pure: the transport sends what starts a round and says when its
//! answer came.

use std::{
    mem,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use wellhead_proto::bus::BusError;

/// How long a round trip may take before the connection counts as broken.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// How long a caller waits for its confirmation: one round may be under way when it comes.
pub(super) const CONFIRMATION: Duration = Duration::from_secs(2 * DEADLINE.as_secs() + 1);

/// How long a sender waits for room before it is told that the bus is full.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Hears how a confirmation ended; dropped if the transport went down.
pub(super) type Waiter = oneshot::Sender<Result<(), BusError>>;

/// At most one round trip is under way. Who comes meanwhile waits for the next: the one under way does not cover it.
#[derive(Default)]
pub(super) struct FlushBarrier {
    round: Option<Round>,
    waiting: Vec<Waiter>,
    last: u64,
}

struct Round {
    number: u64,
    /// When what starts it left, and by when its answer is due.
    sent: Option<(Instant, Instant)>,
    waiters: Vec<Waiter>,
}

impl FlushBarrier {
    /// Someone waits.
    pub(super) fn ask(&mut self, waiter: Waiter) {
        self.waiting.push(waiter);
    }

    /// Does someone wait whom no round serves yet, and is none under way?
    pub(super) fn wants_round(&self) -> bool {
        self.round.is_none() && !self.waiting.is_empty()
    }

    /// Is a round under way?
    pub(super) fn is_under_way(&self) -> bool {
        self.round.is_some()
    }

    /// Begin a round for all who wait now; what to send.
    pub(super) fn begin(&mut self) -> u64 {
        self.last += 1;
        let waiters = mem::take(&mut self.waiting);
        self.round = Some(Round { number: self.last, sent: None, waiters });
        self.last
    }

    /// What starts the round left: its answer is due from now on.
    pub(super) fn sent(&mut self, number: u64, now: Instant) {
        if let Some(round) = self.round.as_mut().filter(|round| round.number == number) {
            round.sent = Some((now, now + DEADLINE));
        }
    }

    /// An answer came. How long the round took if it is the one under way, and whether someone waited for it.
    pub(super) fn answered(&mut self, number: u64, now: Instant) -> Option<(Duration, bool)> {
        let round = self.round.take_if(|round| round.number == number)?;
        let waited = !round.waiters.is_empty();
        for waiter in round.waiters {
            // whoever gave up waiting does not listen
            let _ = waiter.send(Ok(()));
        }
        let took = round.sent.map(|(sent, _)| now.saturating_duration_since(sent));
        Some((took.unwrap_or_default(), waited))
    }

    /// Is an answer overdue?
    pub(super) fn overdue(&self, now: Instant) -> bool {
        self.round.as_ref().and_then(|round| round.sent).is_some_and(|(_, deadline)| now >= deadline)
    }

    /// The answer could not come: this process was stopped, or did not read.
    pub(super) fn extend(&mut self, now: Instant) {
        if let Some((_, deadline)) = self.round.as_mut().and_then(|round| round.sent.as_mut()) {
            *deadline = now + DEADLINE;
        }
    }

    /// Let go of all who wait, with `why`. The answer of the round under way may still come.
    pub(super) fn refuse(&mut self, why: BusError) {
        let under_way = self.round.as_mut().map(|round| mem::take(&mut round.waiters)).unwrap_or_default();
        for waiter in under_way.into_iter().chain(mem::take(&mut self.waiting)) {
            let _ = waiter.send(Err(why));
        }
    }

    /// The connection is gone, and with it all who waited.
    pub(super) fn down(&mut self) {
        self.refuse(BusError::Down);
        self.round = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_while_a_round_is_under_way_waits_for_the_next() {
        let now = Instant::now();
        let mut barrier = FlushBarrier::default();
        let (early, mut early_ends) = oneshot::channel();
        let (late, mut late_ends) = oneshot::channel();
        barrier.ask(early);
        assert!(barrier.wants_round());
        let first = barrier.begin();
        barrier.sent(first, now);
        barrier.ask(late);
        assert!(!barrier.wants_round());
        assert_eq!(barrier.answered(first + 1, now), None);
        assert_eq!(barrier.answered(first, now + DEADLINE / 2), Some((DEADLINE / 2, true)));
        assert_eq!(early_ends.try_recv(), Ok(Ok(())));
        assert!(late_ends.try_recv().is_err());
        assert!(barrier.wants_round());
        let second = barrier.begin();
        assert_eq!(barrier.answered(first, now), None, "an answer that came twice");
        assert!(barrier.answered(second, now).is_some());
        assert_eq!(late_ends.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn an_overdue_round_can_be_extended_and_ended() {
        let now = Instant::now();
        let mut barrier = FlushBarrier::default();
        assert!(!barrier.overdue(now));
        let (waiter, mut ends) = oneshot::channel();
        barrier.ask(waiter);
        let round = barrier.begin();
        assert!(!barrier.overdue(now + DEADLINE), "what is not sent is not answered");
        barrier.sent(round, now);
        assert!(!barrier.overdue(now) && barrier.overdue(now + DEADLINE));
        barrier.extend(now + DEADLINE);
        assert!(!barrier.overdue(now + DEADLINE));
        barrier.refuse(BusError::Full);
        assert_eq!(ends.try_recv(), Ok(Err(BusError::Full)));
        assert!(barrier.is_under_way());
        barrier.down();
        assert!(!barrier.is_under_way());
    }
}
