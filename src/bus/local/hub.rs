//! Carries from the master to the slave of the same process. It keeps no queue of its own: a publisher hands over on
//! its own thread, and waits while the slave has no room.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::timeout};
use wellhead_proto::{
    bus::{Bus, BusError, BusState, Gathered, Inbox, Interest},
    command::PublishMatching,
    envelope::Envelope,
    ids::{ChannelKey, NodeId},
    member::MemberAnnouncement,
    node_request::{NodeRequest, NodeResponse},
    query::{NameHashes, Query, QueryResult},
    report::CoordinationMessage,
};

/// How long a publisher waits for room before it is told that the bus is full.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so many envelopes in a row a batch lets other requests of its thread have a turn.
const BURST: usize = 256;

/// The bus of one process.
pub struct Hub {
    inbox: OnceLock<Arc<dyn Inbox>>,
    state: watch::Sender<BusState>,
    patience: Duration,
}

impl Hub {
    /// The bus of a process whose slave is `node`.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        let state = BusState { up: true, roster_known: true, slaves: [node].into(), stranger: false };
        Self { inbox: OnceLock::new(), state: watch::Sender::new(state), patience: PATIENCE }
    }

    /// From now on nothing is carried; whoever waits for room is told so at once.
    pub fn stop(&self) {
        self.state.send_modify(|state| state.up = false);
    }

    /// The slave's ear, once the bus carries.
    fn ear(&self) -> Result<&Arc<dyn Inbox>, BusError> {
        if !self.state.borrow().up {
            return Err(BusError::Down);
        }
        self.inbox.get().ok_or(BusError::Down)
    }

    async fn room(&self, inbox: &Arc<dyn Inbox>) -> Result<(), BusError> {
        let mut state = self.state.subscribe();
        let room = async {
            tokio::select! {
                () = inbox.room() => Ok(()),
                _ = state.wait_for(|state| !state.up) => Err(BusError::Down),
            }
        };
        timeout(self.patience, room).await.map_err(|_| BusError::Full)?
    }
}

#[async_trait]
impl Bus for Hub {
    async fn publish_all(&self, envelopes: Vec<Envelope>) -> Result<(), BusError> {
        let inbox = self.ear()?;
        let mut rest = envelopes.into_iter();
        while rest.len() > 0 {
            if !inbox.has_room() {
                self.room(inbox).await?;
            }
            inbox.deliver_some(&mut rest, BURST);
            if rest.len() > 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn publish_matching(&self, push: PublishMatching) -> Result<Gathered<NameHashes>, BusError> {
        let inbox = self.ear()?;
        if !inbox.has_room() {
            self.room(inbox).await?;
        }
        Ok(Gathered { result: inbox.publish_matching(push).await, missing: Vec::new() })
    }

    async fn announce(&self, announcements: Vec<MemberAnnouncement>) -> Result<(), BusError> {
        let inbox = self.ear()?;
        for announcement in announcements {
            if !inbox.has_room() {
                self.room(inbox).await?;
            }
            inbox.announced(announcement);
        }
        Ok(())
    }

    async fn gather(&self, query: Query) -> Result<Gathered<QueryResult>, BusError> {
        Ok(Gathered { result: self.ear()?.query(query).await, missing: Vec::new() })
    }

    async fn request(&self, _: NodeId, request: NodeRequest) -> Result<NodeResponse, BusError> {
        // there is one node, and whoever asks for another asks for one that is gone
        Ok(request.nothing())
    }

    fn interest(&self, _: &ChannelKey) -> Option<Interest> {
        None
    }

    fn report(&self, _: NodeId, _: Vec<CoordinationMessage>) {}

    fn attach(&self, inbox: Arc<dyn Inbox>) {
        let first = self.inbox.set(inbox).is_ok();
        assert!(first, "a process has one slave");
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    fn is_up(&self) -> bool {
        self.ear().is_ok()
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

    /// A slave's ear that remembers, and has room when it is told so.
    struct Ear {
        heard: Mutex<Vec<Envelope>>,
        room: watch::Sender<bool>,
        /// After each envelope there is no room until somebody makes some.
        narrow: bool,
    }

    impl Inbox for Ear {
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

    fn ear(room: bool) -> Arc<Ear> {
        Arc::new(Ear { heard: Mutex::default(), room: watch::Sender::new(room), narrow: false })
    }

    fn hub(ear: &Arc<Ear>, patience: Duration) -> Arc<Hub> {
        let hub = Hub { patience, ..Hub::new(NodeId::from_random(1)) };
        hub.attach(ear.clone());
        Arc::new(hub)
    }

    fn envelope(user: &str) -> Envelope {
        let command = Command::Direct { to: Target::User(user.parse().unwrap()), data: Payload::Text("hi".into()) };
        Envelope { app: "demo".parse().unwrap(), command }
    }

    #[actix_rt::test]
    async fn what_is_published_is_heard_in_order_and_asked_for_is_answered() {
        let ear = ear(true);
        let hub = hub(&ear, PATIENCE);
        assert!(hub.is_up());
        hub.publish(envelope("a")).await.unwrap();
        hub.publish(envelope("b")).await.unwrap();
        assert_eq!(*ear.heard.lock().unwrap(), [envelope("a"), envelope("b")]);
        assert_eq!(hub.gather(StatsQuery.into()).await.unwrap().result, Query::from(StatsQuery).nothing());
    }

    #[actix_rt::test]
    async fn a_publisher_waits_for_room_but_not_for_ever() {
        let ear = ear(false);
        let patient = hub(&ear, PATIENCE);
        let waiting = actix_rt::spawn({
            let hub = patient.clone();
            async move { hub.publish(envelope("a")).await }
        });
        tokio::task::yield_now().await;
        assert!(ear.heard.lock().unwrap().is_empty());
        ear.room.send_replace(true);
        waiting.await.unwrap().unwrap();
        assert_eq!(*ear.heard.lock().unwrap(), [envelope("a")]);

        ear.room.send_replace(false);
        let hasty = hub(&ear, Duration::from_millis(10));
        assert_eq!(hasty.publish(envelope("b")).await, Err(BusError::Full));
        assert_eq!(ear.heard.lock().unwrap().len(), 1);
    }

    #[actix_rt::test]
    async fn a_batch_waits_for_room_where_there_is_none_and_keeps_its_order() {
        let ear = Arc::new(Ear { heard: Mutex::default(), room: watch::Sender::new(true), narrow: true });
        let hub = hub(&ear, PATIENCE);
        let batch = ["a", "b", "c"].map(envelope);
        let published = actix_rt::spawn({
            let batch = batch.to_vec();
            async move { hub.publish_all(batch).await }
        });
        for heard in 1..=batch.len() {
            ear.room.subscribe().wait_for(|room| !room).await.unwrap();
            assert_eq!(*ear.heard.lock().unwrap(), batch[..heard]);
            ear.room.send_replace(true);
        }
        published.await.unwrap().unwrap();
    }

    #[actix_rt::test]
    async fn a_push_to_a_pattern_waits_for_room_and_a_question_does_not() {
        let ear = ear(false);
        let hasty = hub(&ear, Duration::from_millis(10));
        let event = Event::new("e".parse().unwrap(), Payload::Text("hi".into()));
        let (app, within) = ("demo".parse().unwrap(), vec![ChannelPattern::everything()]);
        let push = PublishMatching { app, pattern: "^a".to_owned(), within, event };
        assert_eq!(hasty.publish_matching(push.clone()).await, Err(BusError::Full));
        assert!(hasty.gather(StatsQuery.into()).await.is_ok());
        ear.room.send_replace(true);
        assert!(hasty.publish_matching(push).await.is_ok());
    }

    #[actix_rt::test]
    async fn a_stopped_bus_takes_nothing_and_lets_nobody_wait() {
        let ear = ear(false);
        let hub = hub(&ear, PATIENCE);
        let waiting = actix_rt::spawn({
            let hub = hub.clone();
            async move { hub.publish(envelope("a")).await }
        });
        tokio::task::yield_now().await;
        hub.stop();
        assert_eq!(waiting.await.unwrap(), Err(BusError::Down));
        assert_eq!(hub.publish(envelope("b")).await, Err(BusError::Down));
        assert!(hub.gather(StatsQuery.into()).await.is_err());
        assert!(!hub.is_up());
        assert!(ear.heard.lock().unwrap().is_empty());
    }

    #[test]
    fn without_a_slave_it_is_down() {
        assert!(!Hub::new(NodeId::from_random(1)).is_up());
    }
}
