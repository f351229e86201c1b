//! The floor of a thread, as its registry and its sessions share it.

use std::{cell::RefCell, rc::Rc};

use super::{floor::Floor, relief};
use crate::memory::Share;

/// What the registry and the sessions of a thread share.
pub struct Hall {
    pub(super) floor: RefCell<Floor>,
    /// What its sockets may hold.
    pub share: Rc<Share>,
}

impl Hall {
    /// A hall around `floor`, whose sockets may hold `share`.
    #[must_use]
    pub fn new(floor: Floor, share: Share) -> Rc<Self> {
        Rc::new(Self { floor: RefCell::new(floor), share: Rc::new(share) })
    }

    /// See to it that the sockets hold no more than they may, if they have come to hold much. Costs nothing else.
    pub fn look_after(&self) {
        if self.share.is_due() {
            relief::look_after(&self.floor.borrow(), &self.share);
        }
    }
}
