//! The shard of a thread, as its registry and its sessions share it.

use std::{cell::RefCell, rc::Rc};

use super::{relief, shard::Shard};
use crate::memory::Share;

/// What the registry and the sessions of a thread share.
pub struct ShardCell {
    pub(super) shard: RefCell<Shard>,
    /// What its sockets may hold.
    pub share: Rc<Share>,
}

impl ShardCell {
    /// `shard`, shared; its sockets may hold `share`.
    #[must_use]
    pub fn new(shard: Shard, share: Share) -> Rc<Self> {
        Rc::new(Self { shard: RefCell::new(shard), share: Rc::new(share) })
    }

    /// Close sockets if together they hold too much memory. Counts only when they may have come to hold much.
    pub fn look_after(&self) {
        if self.share.is_due() {
            relief::look_after(&self.shard.borrow(), &self.share);
        }
    }
}
