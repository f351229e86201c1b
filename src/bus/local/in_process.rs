//! Carries from the master to the slave of the same process. It keeps no queue of its own: a publisher hands over on
//! its own thread, and waits while the slave has no room.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::timeout};
use wellhead_proto::{
    bus::{Bus, BusError, BusHandler, BusState, Gathered, Interest},
    command::PublishMatching,
    coordination::CoordinationMessage,
    envelope::Envelope,
    ids::{ChannelKey, NodeId},
    member::MemberAnnouncement,
    node_request::{NodeRequest, NodeResponse},
    query::{NameHashes, Query, QueryResult},
};

/// How long a publisher waits for room before it gets an error: the bus is full.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so many envelopes in a row a batch lets other requests of its thread have a turn.
const BURST: usize = 256;

/// The bus of one process.
pub struct InProcessBus {
    bus_handler: OnceLock<Arc<dyn BusHandler>>,
    state: watch::Sender<BusState>,
    patience: Duration,
}

impl InProcessBus {
    /// The bus of a process whose slave is `node`.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        let state = BusState { up: true, roster_known: true, slaves: [node].into(), stranger: false };
        Self { bus_handler: OnceLock::new(), state: watch::Sender::new(state), patience: PATIENCE }
    }

    /// From now on nothing is carried; publishers that wait for room get an error at once.
    pub fn stop(&self) {
        self.state.send_modify(|state| state.up = false);
    }

    /// The slave's handler, once it is attached and while the bus is up.
    fn bus_handler(&self) -> Result<&Arc<dyn BusHandler>, BusError> {
        if !self.state.borrow().up {
            return Err(BusError::Down);
        }
        self.bus_handler.get().ok_or(BusError::Down)
    }

    async fn room(&self, bus_handler: &Arc<dyn BusHandler>) -> Result<(), BusError> {
        let mut state = self.state.subscribe();
        let room = async {
            tokio::select! {
                () = bus_handler.room() => Ok(()),
                _ = state.wait_for(|state| !state.up) => Err(BusError::Down),
            }
        };
        timeout(self.patience, room).await.map_err(|_| BusError::Full)?
    }
}

#[async_trait]
impl Bus for InProcessBus {
    async fn publish_all(&self, envelopes: Vec<Envelope>) -> Result<(), BusError> {
        let bus_handler = self.bus_handler()?;
        let mut rest = envelopes.into_iter();
        while rest.len() > 0 {
            if !bus_handler.has_room() {
                self.room(bus_handler).await?;
            }
            bus_handler.deliver_some(&mut rest, BURST);
            if rest.len() > 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn publish_matching(&self, push: PublishMatching) -> Result<Gathered<NameHashes>, BusError> {
        let bus_handler = self.bus_handler()?;
        if !bus_handler.has_room() {
            self.room(bus_handler).await?;
        }
        Ok(Gathered { result: bus_handler.publish_matching(push).await, missing: Vec::new() })
    }

    async fn announce(&self, announcements: Vec<MemberAnnouncement>) -> Result<(), BusError> {
        let bus_handler = self.bus_handler()?;
        for announcement in announcements {
            if !bus_handler.has_room() {
                self.room(bus_handler).await?;
            }
            bus_handler.announced(announcement);
        }
        Ok(())
    }

    async fn gather(&self, query: Query) -> Result<Gathered<QueryResult>, BusError> {
        Ok(Gathered { result: self.bus_handler()?.query(query).await, missing: Vec::new() })
    }

    async fn request(&self, node: NodeId, request: NodeRequest) -> Result<NodeResponse, BusError> {
        let bus_handler = self.bus_handler()?;
        let is_there = self.state.borrow().slaves.contains(&node);
        // there is one node, and whoever asks for another asks for one that is gone
        Ok(if is_there { bus_handler.request(request) } else { request.nothing() })
    }

    fn interest(&self, _: &ChannelKey) -> Option<Interest> {
        None
    }

    fn report(&self, _: NodeId, _: Vec<CoordinationMessage>) {}

    fn attach(&self, bus_handler: Arc<dyn BusHandler>) {
        let first = self.bus_handler.set(bus_handler).is_ok();
        assert!(first, "a process has one slave");
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    fn is_up(&self) -> bool {
        self.bus_handler().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::watch;
    use wellhead_proto::{
        bus::{BoxFuture, Gap},
        channel::ChannelPattern,
        command::{Command, Target},
        event::{Event, Payload},
        query::StatsQuery,
    };

    use super::*;

    /// A slave's handler that records what it gets, and has room when the test says so.
    struct RecordingInbox {
        heard: Mutex<Vec<Envelope>>,
        room: watch::Sender<bool>,
        /// After each envelope there is no room until somebody makes some.
        narrow: bool,
    }

    impl BusHandler for RecordingInbox {
        fn deliver(&self, envelope: Envelope) {
            self.heard.lock().unwrap().push(envelope);
            if self.narrow {
                self.room.send_replace(false);
            }
        }

        fn has_room(&self) -> bool {
            *self.room.borrow()
        }

        fn room(&self) -> BoxFuture<()> {
            let mut room = self.room.subscribe();
            Box::pin(async move {
                let _ = room.wait_for(|room| *room).await;
            })
        }

        fn publish_matching(&self, _: PublishMatching) -> BoxFuture<NameHashes> {
            Box::pin(async { NameHashes::from([1]) })
        }

        fn announced(&self, _: MemberAnnouncement) {}

        fn query(&self, query: Query) -> BoxFuture<QueryResult> {
            Box::pin(async move { query.nothing() })
        }

        fn request(&self, request: NodeRequest) -> NodeResponse {
            request.nothing()
        }

        fn report(&self, _: NodeId, _: Vec<CoordinationMessage>) {}

        fn opened(&self) -> u32 {
            0
        }

        fn gap(&self, _: Gap) {}
    }

    fn bus_handler(room: bool) -> Arc<RecordingInbox> {
        Arc::new(RecordingInbox { heard: Mutex::default(), room: watch::Sender::new(room), narrow: false })
    }

    fn bus(bus_handler: &Arc<RecordingInbox>, patience: Duration) -> Arc<InProcessBus> {
        let bus = InProcessBus { patience, ..InProcessBus::new(NodeId::from_random(1)) };
        bus.attach(bus_handler.clone());
        Arc::new(bus)
    }

    fn envelope(user: &str) -> Envelope {
        let command = Command::Direct { to: Target::User(user.parse().unwrap()), data: Payload::Text("hi".into()) };
        Envelope { app: "demo".parse().unwrap(), command }
    }

    #[actix_rt::test]
    async fn what_is_published_is_heard_in_order_and_asked_for_is_answered() {
        let bus_handler = bus_handler(true);
        let bus = bus(&bus_handler, PATIENCE);
        assert!(bus.is_up());
        bus.publish(envelope("a")).await.unwrap();
        bus.publish(envelope("b")).await.unwrap();
        assert_eq!(*bus_handler.heard.lock().unwrap(), [envelope("a"), envelope("b")]);
        assert_eq!(bus.gather(StatsQuery.into()).await.unwrap().result, Query::from(StatsQuery).nothing());
    }

    #[actix_rt::test]
    async fn a_publisher_waits_for_room_but_not_for_ever() {
        let bus_handler = bus_handler(false);
        let patient = bus(&bus_handler, PATIENCE);
        let waiting = actix_rt::spawn({
            let bus = patient.clone();
            async move { bus.publish(envelope("a")).await }
        });
        tokio::task::yield_now().await;
        assert!(bus_handler.heard.lock().unwrap().is_empty());
        bus_handler.room.send_replace(true);
        waiting.await.unwrap().unwrap();
        assert_eq!(*bus_handler.heard.lock().unwrap(), [envelope("a")]);

        bus_handler.room.send_replace(false);
        let hasty = bus(&bus_handler, Duration::from_millis(10));
        assert_eq!(hasty.publish(envelope("b")).await, Err(BusError::Full));
        assert_eq!(bus_handler.heard.lock().unwrap().len(), 1);
    }

    #[actix_rt::test]
    async fn a_batch_waits_for_room_where_there_is_none_and_keeps_its_order() {
        let bus_handler =
            Arc::new(RecordingInbox { heard: Mutex::default(), room: watch::Sender::new(true), narrow: true });
        let bus = bus(&bus_handler, PATIENCE);
        let batch = ["a", "b", "c"].map(envelope);
        let published = actix_rt::spawn({
            let batch = batch.to_vec();
            async move { bus.publish_all(batch).await }
        });
        for heard in 1..=batch.len() {
            bus_handler.room.subscribe().wait_for(|room| !room).await.unwrap();
            assert_eq!(*bus_handler.heard.lock().unwrap(), batch[..heard]);
            bus_handler.room.send_replace(true);
        }
        published.await.unwrap().unwrap();
    }

    #[actix_rt::test]
    async fn a_push_to_a_pattern_waits_for_room_and_a_question_does_not() {
        let bus_handler = bus_handler(false);
        let hasty = bus(&bus_handler, Duration::from_millis(10));
        let event = Event::new("e".parse().unwrap(), Payload::Text("hi".into()));
        let (app, within) = ("demo".parse().unwrap(), vec![ChannelPattern::everything()]);
        let push = PublishMatching { app, pattern: "^a".to_owned(), within, event };
        assert_eq!(hasty.publish_matching(push.clone()).await, Err(BusError::Full));
        assert!(hasty.gather(StatsQuery.into()).await.is_ok());
        bus_handler.room.send_replace(true);
        assert!(hasty.publish_matching(push).await.is_ok());
    }

    #[actix_rt::test]
    async fn a_stopped_bus_takes_nothing_and_lets_nobody_wait() {
        let bus_handler = bus_handler(false);
        let bus = bus(&bus_handler, PATIENCE);
        let waiting = actix_rt::spawn({
            let bus = bus.clone();
            async move { bus.publish(envelope("a")).await }
        });
        tokio::task::yield_now().await;
        bus.stop();
        assert_eq!(waiting.await.unwrap(), Err(BusError::Down));
        assert_eq!(bus.publish(envelope("b")).await, Err(BusError::Down));
        assert!(bus.gather(StatsQuery.into()).await.is_err());
        assert!(!bus.is_up());
        assert!(bus_handler.heard.lock().unwrap().is_empty());
    }

    #[test]
    fn without_a_slave_it_is_down() {
        assert!(!InProcessBus::new(NodeId::from_random(1)).is_up());
    }
}
