//! Members that have left and may be back in a moment: one who moves to another slave, or loads a page anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::LedgerKey;

/// How long a member may be away before that is announced, unless the settings say otherwise.
pub const GRACE: Duration = Duration::from_millis(500);

/// Who is away, and until when. Deadlines are spans since any fixed moment.
pub(super) struct Graces {
    /// How long each is.
    length: Duration,
    now: Duration,
    until: BTreeMap<LedgerKey, Duration>,
    in_order: BTreeSet<(Duration, LedgerKey)>,
}

impl Graces {
    /// Nobody is away; whoever will be may be so for `length`.
    pub(super) fn new(length: Duration) -> Self {
        Self { length, now: Duration::ZERO, until: BTreeMap::new(), in_order: BTreeSet::new() }
    }

    /// It is `now`.
    pub(super) fn at(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Is the grace of `key`, on which nobody is, over? It begins now if it has not. One that is over is forgotten.
    pub(super) fn is_over(&mut self, key: &LedgerKey) -> bool {
        match self.until.get(key) {
            None => {
                let until = self.now.saturating_add(self.length);
                self.until.insert(key.clone(), until);
                self.in_order.insert((until, key.clone()));
                false
            }
            Some(until) if self.now < *until => false,
            Some(_) => self.end(key),
        }
    }

    /// Has `key` a grace?
    pub(super) fn has(&self, key: &LedgerKey) -> bool {
        self.until.contains_key(key)
    }

    /// The grace of `key` is no longer needed. `true` if there was one.
    pub(super) fn end(&mut self, key: &LedgerKey) -> bool {
        // most keys that are decided about have none, and most of the time nobody has
        if self.until.is_empty() {
            return false;
        }
        match self.until.remove_entry(key) {
            Some((key, until)) => self.in_order.remove(&(until, key)),
            None => false,
        }
    }

    /// The grace of `key` is over at once.
    pub(super) fn cut_short(&mut self, key: &LedgerKey) {
        self.end(key);
        self.until.insert(key.clone(), Duration::ZERO);
        self.in_order.insert((Duration::ZERO, key.clone()));
    }

    /// When the next one is over.
    pub(super) fn next(&self) -> Option<Duration> {
        self.in_order.first().map(|(until, _)| *until)
    }

    /// Those that are over.
    pub(super) fn due(&self) -> Vec<LedgerKey> {
        self.in_order.iter().take_while(|(until, _)| *until <= self.now).map(|(_, key)| key.clone()).collect()
    }

    /// Forget all of them.
    pub(super) fn clear(&mut self) {
        self.until.clear();
        self.in_order.clear();
    }
}
