//! Carries from the master to the slave of the same process. It keeps no queue of its own: a publisher hands over on
//! its own thread, and waits while the slave has no room.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::timeout};
use wellhead_proto::{
    bus::{Bus, BusError, Gathered, Inbox},
    envelope::Envelope,
    query::Ask,
};

/// How long a publisher waits for room before it is told that the bus is full.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bus of one process.
pub struct Hub {
    inbox: OnceLock<Arc<dyn Inbox>>,
    up: watch::Sender<bool>,
    patience: Duration,
}

impl Default for Hub {
    fn default() -> Self {
        Self { inbox: OnceLock::new(), up: watch::Sender::new(true), patience: PATIENCE }
    }
}

impl Hub {
    /// From now on nothing is carried; whoever waits for room is told so at once.
    pub fn stop(&self) {
        self.up.send_replace(false);
    }

    /// The slave's ear, once the bus carries.
    fn ear(&self) -> Result<&Arc<dyn Inbox>, BusError> {
        if !*self.up.borrow() {
            return Err(BusError::Down);
        }
        self.inbox.get().ok_or(BusError::Down)
    }
}

#[async_trait]
impl Bus for Hub {
    async fn publish(&self, envelope: Envelope) -> Result<(), BusError> {
        let inbox = self.ear()?;
        if !inbox.has_room() {
            let mut up = self.up.subscribe();
            let room = async {
                tokio::select! {
                    () = inbox.room() => Ok(()),
                    _ = up.wait_for(|up| !up) => Err(BusError::Down),
                }
            };
            timeout(self.patience, room).await.map_err(|_| BusError::Full)??;
        }
        inbox.deliver(envelope);
        Ok(())
    }

    async fn gather(&self, ask: Ask) -> Result<Gathered, BusError> {
        let census = self.ear()?.answer(ask).await;
        Ok(Gathered { census })
    }

    fn attach(&self, inbox: Arc<dyn Inbox>) {
        let first = self.inbox.set(inbox).is_ok();
        assert!(first, "a process has one slave");
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
        bus::BoxFuture,
        command::{Command, Target},
        event::Payload,
        query::Census,
    };

    use super::*;

    /// A slave's ear that remembers, and has room when it is told so.
    struct Ear {
        heard: Mutex<Vec<Envelope>>,
        room: watch::Sender<bool>,
    }

    impl Inbox for Ear {
        fn deliver(&self, envelope: Envelope) {
            self.heard.lock().unwrap().push(envelope);
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

        fn answer(&self, _: Ask) -> BoxFuture<Census> {
            Box::pin(async { Census::Names(["here".to_owned()].into()) })
        }
    }

    fn ear(room: bool) -> Arc<Ear> {
        Arc::new(Ear { heard: Mutex::default(), room: watch::Sender::new(room) })
    }

    fn hub(ear: &Arc<Ear>, patience: Duration) -> Arc<Hub> {
        let hub = Hub { patience, ..Hub::default() };
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
        assert_eq!(hub.gather(Ask::Stats).await.unwrap().census, Census::Names(["here".to_owned()].into()));
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
        assert!(hub.gather(Ask::Stats).await.is_err());
        assert!(!hub.is_up());
        assert!(ear.heard.lock().unwrap().is_empty());
    }

    #[test]
    fn without_a_slave_it_is_down() {
        assert!(!Hub::default().is_up());
    }
}
