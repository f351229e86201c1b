//! Limits how often a client may publish: so many events a second, and as many at once after a pause.

use std::time::Duration;

/// When the next one would be due if they came evenly, in microseconds since 1970: all that must be known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance(u64);

impl Allowance {
    /// May one more be published now? At most `per_second` may.
    pub fn take(&mut self, per_second: u32, now: Duration) -> bool {
        const SECOND: u64 = 1_000_000;
        let Some(gap) = SECOND.checked_div(per_second.into()) else {
            return false;
        };
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX / 2);
        // never further ahead than a second, unless the clock was set back
        let due = if self.0 > now + SECOND { now } else { self.0.max(now) };
        if due - now + gap > SECOND {
            return false;
        }
        self.0 = due + gap;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowance: &mut Allowance, at_ms: u64, tries: usize) -> usize {
        (0..tries).filter(|_| allowance.take(10, Duration::from_millis(at_ms))).count()
    }

    #[test]
    fn ten_at_once_then_one_each_tenth_of_a_second() {
        let mut allowance = Allowance::default();
        let start = 1_700_000_000_000;
        assert_eq!(taken(&mut allowance, start, 100), 10);
        assert_eq!(taken(&mut allowance, start + 99, 100), 0);
        assert_eq!(taken(&mut allowance, start + 100, 100), 1);
        assert_eq!(taken(&mut allowance, start + 450, 100), 3);
        assert_eq!(taken(&mut allowance, start + 60_000, 100), 10);
        // the clock was set back by an hour
        assert_eq!(taken(&mut allowance, start - 3_600_000, 100), 10);
        assert_eq!(taken(&mut allowance, start - 3_600_000, 100), 0);
    }

    #[test]
    fn limits_of_any_size() {
        let now = Duration::from_secs(1);
        assert!(!Allowance::default().take(0, now));
        let mut allowance = Allowance::default();
        assert!((0..10_000).all(|_| allowance.take(u32::MAX, now)));
        let mut allowance = Allowance::default();
        assert!(allowance.take(1, Duration::MAX));
        assert!(!allowance.take(1, Duration::MAX));
    }
}
