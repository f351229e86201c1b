//! Members that have left and may be back in a moment: one who moves to another slave, or loads a page anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use wellhead_proto::report::Post;

/// How long a member may be away before that is announced, unless the settings say otherwise.
pub const GRACE: Duration = Duration::from_millis(500);

/// Who is away, and until when. Deadlines are spans since any fixed moment.
pub(super) struct Graces {
    /// How long each is.
    length: Duration,
    now: Duration,
    until: BTreeMap<Post, Duration>,
    in_order: BTreeSet<(Duration, Post)>,
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

    /// Is the grace of `post`, on which nobody is, over? It begins now if it has not. One that is over is forgotten.
    pub(super) fn is_over(&mut self, post: &Post) -> bool {
        match self.until.get(post) {
            None => {
                let until = self.now.saturating_add(self.length);
                self.until.insert(post.clone(), until);
                self.in_order.insert((until, post.clone()));
                false
            }
            Some(until) if self.now < *until => false,
            Some(_) => self.end(post),
        }
    }

    /// Has `post` a grace?
    pub(super) fn has(&self, post: &Post) -> bool {
        self.until.contains_key(post)
    }

    /// The grace of `post` is no longer needed. `true` if there was one.
    pub(super) fn end(&mut self, post: &Post) -> bool {
        // most posts that are decided about have none, and most of the time nobody has
        if self.until.is_empty() {
            return false;
        }
        match self.until.remove_entry(post) {
            Some((post, until)) => self.in_order.remove(&(until, post)),
            None => false,
        }
    }

    /// The grace of `post` is over at once.
    pub(super) fn cut_short(&mut self, post: &Post) {
        self.end(post);
        self.until.insert(post.clone(), Duration::ZERO);
        self.in_order.insert((Duration::ZERO, post.clone()));
    }

    /// When the next one is over.
    pub(super) fn next(&self) -> Option<Duration> {
        self.in_order.first().map(|(until, _)| *until)
    }

    /// Those that are over.
    pub(super) fn due(&self) -> Vec<Post> {
        self.in_order.iter().take_while(|(until, _)| *until <= self.now).map(|(_, post)| post.clone()).collect()
    }

    /// Forget all of them.
    pub(super) fn clear(&mut self) {
        self.until.clear();
        self.in_order.clear();
    }
}
