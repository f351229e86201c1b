//! How much memory all unfinished requests and unsent replies of a process may hold together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that may be held at once. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<BudgetInner>);

#[derive(Debug)]
struct BudgetInner {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(BudgetInner { limit, used: AtomicUsize::new(0) }))
    }

    /// Nothing of it yet.
    #[must_use]
    pub fn reserve_nothing(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    /// How many bytes are held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UsedUp;

/// A part of a [`Budget`]; dropping it gives it back.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Reservation {
    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hold `bytes` in all, more or less than before.
    ///
    /// # Errors
    ///
    /// There is no room for more; what was held stays.
    pub fn hold(&mut self, bytes: usize) -> Result<(), UsedUp> {
        let BudgetInner { limit, used } = &*self.budget.0;
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let room = |used: usize| used.checked_add(more).filter(|sum| sum <= limit);
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).map_err(|_| UsedUp)?;
        } else if bytes < self.bytes {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // holding less never fails
        let _ = self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_never_exceeds_the_budget_and_is_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.reserve_nothing(), budget.reserve_nothing());
        assert_eq!((one.hold(60), other.hold(50), budget.used()), (Ok(()), Err(UsedUp), 60));
        assert_eq!((one.hold(50), other.hold(50), budget.used()), (Ok(()), Ok(()), 100));
        assert_eq!((one.hold(usize::MAX), budget.used()), (Err(UsedUp), 100));
        drop(one);
        assert_eq!((budget.used(), other.hold(100)), (50, Ok(())));
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
