//! What is refused over and over is logged once per cause and minute, with how often it happened. Pure.

use std::{borrow::Cow, collections::HashMap, time::Duration};

/// Between two lines of one cause.
const PAUSE: Duration = Duration::from_secs(60);
/// Causes that are told apart; those beyond are one.
const CAUSES: usize = 64;

#[derive(Default)]
pub(super) struct Complaints {
    causes: HashMap<Cow<'static, str>, (Option<Duration>, u64)>,
}

impl Complaints {
    /// It happened again: how often, if it is to be logged now.
    pub(super) fn happened(&mut self, cause: &str, now: Duration) -> Option<u64> {
        let known = self.causes.len() < CAUSES || self.causes.contains_key(cause);
        let cause = if known { Cow::Owned(cause.to_owned()) } else { Cow::Borrowed("others") };
        let (said, times) = self.causes.entry(cause).or_default();
        *times += 1;
        if said.is_some_and(|said| now.saturating_sub(said) < PAUSE) {
            return None;
        }
        *said = Some(now);
        Some(std::mem::take(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once_a_minute_with_how_often_it_was() {
        let at = Duration::from_secs;
        let mut complaints = Complaints::default();
        assert_eq!(complaints.happened("bad", at(10)), Some(1));
        assert_eq!(complaints.happened("worse", at(20)), Some(1));
        assert_eq!(complaints.happened("bad", at(60)), None);
        assert_eq!(complaints.happened("bad", at(69)), None);
        assert_eq!(complaints.happened("bad", at(70)), Some(3));
        assert_eq!(complaints.happened("bad", at(80)), None);
        for cause in 0..1_000 {
            complaints.happened(&cause.to_string(), at(200));
        }
        assert!(complaints.causes.len() <= CAUSES + 1);
    }
}
