//! Which sockets may be open: how many at a time, under which numbers, and none any more once the slave ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
};

use tokio::sync::Notify;
use wellhead_proto::{
    bus::Bus,
    ids::{NodeId, SocketId},
    refusal::{CloseCause, Refusal},
};

use crate::metrics::Metrics;

/// Counts the open sockets of a slave.
pub struct Admission {
    node: NodeId,
    most: usize,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    next_socket: AtomicU32,
    open: AtomicUsize,
    closed_one: Notify,
    draining: AtomicBool,
    /// The socket that clients connect to stays open after this node, for its successor.
    outlived: AtomicBool,
}

impl Admission {
    /// Room for `most` sockets of `node`; 0: for any number.
    pub fn new(node: NodeId, most: usize, bus: Arc<dyn Bus>, metrics: Metrics) -> Self {
        Self {
            node,
            most: if most == 0 { usize::MAX } else { most },
            bus,
            metrics,
            next_socket: AtomicU32::new(1),
            open: AtomicUsize::new(0),
            closed_one: Notify::new(),
            draining: AtomicBool::new(false),
            outlived: AtomicBool::new(false),
        }
    }

    /// Room for one more socket, if there is.
    pub fn permit(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let room = |open| (open < self.most).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        self.metrics.connections.inc();
        Some(ConnectionPermit(self.clone()))
    }

    /// The id of the next socket.
    pub fn next_socket_id(&self) -> SocketId {
        SocketId::new(self.node, self.next_socket.fetch_add(1, Ordering::Relaxed))
    }

    /// The number that the next socket gets: all that are open have smaller ones.
    pub fn next_number(&self) -> u32 {
        self.next_socket.load(Ordering::Relaxed)
    }

    /// How many sockets are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Comes back once none is open.
    pub async fn all_closed(&self) {
        loop {
            let closed = self.closed_one.notified();
            if self.open() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Take no more sockets.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The socket that clients connect to stays open for a successor, or it does not.
    pub fn set_outlived(&self, outlived: bool) {
        self.outlived.store(outlived, Ordering::Relaxed);
    }

    /// Are no more sockets taken?
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What clients hear when this node ends: whether somebody takes them at once.
    pub fn farewell(&self) -> CloseCause {
        let state = self.bus.state();
        let state = state.borrow();
        let others = state.up && state.slaves.iter().any(|slave| *slave != self.node);
        if others || self.outlived.load(Ordering::Relaxed) {
            CloseCause::ShuttingDown
        } else {
            CloseCause::ShuttingDownAlone
        }
    }

    /// What those hear who come while this node ends.
    pub fn refusal(&self) -> Refusal {
        match self.farewell() {
            CloseCause::ShuttingDown => Refusal::moved("shutting down"),
            _ => Refusal::unavailable("shutting down"),
        }
    }
}

/// One of the sockets that may be open; dropping it makes room for another.
pub struct ConnectionPermit(Arc<Admission>);

impl ConnectionPermit {
    /// Its socket ends.
    pub fn closed(&self, cause: CloseCause) {
        self.0.metrics.closed(cause);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.connections.dec();
        self.0.closed_one.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::testkit::RecordingBus;

    use super::*;

    #[tokio::test]
    async fn a_permit_is_room_for_one_socket_until_it_is_dropped() {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let bus = Arc::new(RecordingBus::default());
        let admission = Arc::new(Admission::new(NodeId::from_random(1), 2, bus, metrics));
        let (one, other) = (admission.permit(), admission.permit());
        assert!(one.is_some() && other.is_some() && admission.permit().is_none());
        drop(one);
        let again = admission.permit();
        assert_eq!((again.is_some(), admission.open()), (true, 2));
        drop((other, again));
        admission.all_closed().await;
        assert_eq!((admission.open(), admission.next_socket_id().counter(), admission.next_number()), (0, 1, 2));
    }
}
