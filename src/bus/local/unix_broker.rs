//! The owner of the socket: routes what clients send to those that listen, and is a transport itself for the master's process.
//! Routing is done by whoever sends, under one lock. Who sends waits a moment for a client that falls behind, then no
//! more: a client that is too slow is cut off.

mod routes;
mod session;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use log::{info, warn};
use smallvec::SmallVec;
use tokio::{
    net::UnixListener,
    runtime,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use wellhead_proto::{bus::BusError, ids::NodeId};

use self::routes::{ClientId, Routes};
use super::{
    frame::ToClient,
    outbound::{NotTaken, Outbound},
    socket::{self, SocketError, SocketFile},
};
use crate::bus::{
    buffer::ReceiveBuffer,
    metrics::PubSubMetrics,
    pubsub::{MessageHandler, PubSub, Subject},
};

/// How many clients there may be at once.
const MAX_CLIENTS: usize = 1_024;
/// How long the last frames may take when we end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How much of everything is allowed.
#[derive(Clone, Copy, Debug)]
pub struct LocalLimits {
    /// The largest message, in bytes.
    pub message: usize,
    /// What may wait for one node, in bytes; a slave over it is cut off.
    pub queue: usize,
}

impl Default for LocalLimits {
    fn default() -> Self {
        Self { message: 16 * 1_024 * 1_024, queue: 64 * 1_024 * 1_024 }
    }
}

/// Is told of the clients that come and go. Called on the broker's thread; must not block.
pub trait ClientWatcher: Send + Sync {
    /// A node is connected; nothing that it sent was heard yet.
    fn came(&self, node: NodeId, heartbeat: Bytes);

    /// A node is connected no more, and did not say goodbye.
    fn lost(&self, node: NodeId);
}

/// The master's end of the socket.
pub struct UnixBroker {
    shared: Arc<BrokerShared>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

struct BrokerShared {
    limits: LocalLimits,
    /// What every client is given when it comes.
    welcome: Bytes,
    watcher: Arc<dyn ClientWatcher>,
    buffer: ReceiveBuffer,
    metrics: PubSubMetrics,
    routes: Mutex<Routes>,
    up: watch::Sender<bool>,
    /// Room for clients.
    room: Arc<Semaphore>,
    crowded: AtomicBool,
}

impl UnixBroker {
    /// Own the socket at `path`, and give `welcome` to every node that comes.
    ///
    /// # Errors
    ///
    /// Another master owns it, or the system does not let us.
    pub fn bind(
        path: &Path,
        welcome: Bytes,
        limits: LocalLimits,
        handler: Arc<dyn MessageHandler>,
        watcher: Arc<dyn ClientWatcher>,
        metrics: PubSubMetrics,
    ) -> Result<Arc<Self>, SocketError> {
        let (listener, file) = socket::bind(path)?;
        let io = |error| SocketError::Io { path: path.to_owned(), error };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::from_std(listener).map_err(io)?
        };
        metrics.up.set(1);
        let shared = Arc::new(BrokerShared {
            limits,
            welcome,
            watcher,
            buffer: ReceiveBuffer::new(handler, limits.queue, metrics.clone()),
            metrics,
            routes: Mutex::default(),
            up: watch::Sender::new(true),
            room: Arc::new(Semaphore::new(MAX_CLIENTS)),
            crowded: AtomicBool::new(false),
        });
        let (stop, stopped) = watch::channel(false);
        let (ended_sender, ended) = watch::channel(false);
        let served = shared.clone();
        let serve = move || {
            runtime.block_on(served.serve(listener, file, stopped));
            ended_sender.send_replace(true);
        };
        std::thread::Builder::new().name("bus".to_owned()).spawn(serve).map_err(io)?;
        Ok(Arc::new(Self { shared, stop, ended }))
    }
}

impl Drop for UnixBroker {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[async_trait]
impl PubSub for UnixBroker {
    fn session(&self) -> Option<u32> {
        // the only one: it ends with the process
        self.shared.up.borrow().then_some(0)
    }

    async fn send_in(&self, _: u32, subject: Subject, message: Bytes) -> Result<(), BusError> {
        debug_assert!(!subject.is_wildcard(), "only to be listened to");
        if !*self.shared.up.borrow() {
            return Err(BusError::Down);
        }
        let limit = self.shared.limits.message;
        if message.len() > limit {
            return Err(BusError::TooLarge { limit });
        }
        self.shared.metrics.sent(message.len());
        self.shared.route(subject, &message).await;
        Ok(())
    }

    fn listen(&self, subject: Subject) {
        let mut routes = self.shared.routes();
        routes.own.insert(subject);
        self.shared.metrics.listens_to(routes.own.len());
    }

    fn unlisten(&self, subject: Subject) {
        let mut routes = self.shared.routes();
        routes.own.remove(&subject);
        self.shared.metrics.listens_to(routes.own.len());
    }

    async fn confirm(&self) -> Result<(), BusError> {
        // sending and listening are done when they return
        if *self.shared.up.borrow() { Ok(()) } else { Err(BusError::Down) }
    }

    fn max_message(&self) -> Option<usize> {
        Some(self.shared.limits.message)
    }

    fn is_served_by_a_node(&self) -> bool {
        true
    }

    /// Its clients do not listen to any: see [`super::UnixClient`].
    fn has_user_slots(&self) -> bool {
        false
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    async fn close(&self) {
        self.shared.down();
        self.stop.send_replace(true);
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl BrokerShared {
    /// Hand `message` to all that listen to `subject`, and let those catch up that can.
    async fn route(&self, subject: Subject, message: &Bytes) {
        for crowded in self.hand_out(subject, message) {
            crowded.eased().await;
        }
    }

    /// Hand `message` to all that listen to `subject`; whose queues are crowded now.
    fn hand_out(&self, subject: Subject, message: &Bytes) -> SmallVec<[Arc<Outbound>; 2]> {
        let mut crowded = SmallVec::new();
        let mut routes = self.routes();
        let mut too_slow = SmallVec::<[ClientId; 2]>::new();
        for heard_as in std::iter::once(subject).chain(subject.wildcard()) {
            if routes.own.contains(&heard_as) {
                self.buffer.admit(heard_as, message.clone());
            }
            let Some(listeners) = routes.listeners.get(&heard_as) else { continue };
            let frame = ToClient::Heard(heard_as, message.clone()).frame();
            for id in listeners {
                let client = routes.clients.get(id).expect("who listens is connected");
                match client.out.push(frame.clone()) {
                    Ok(()) if client.out.is_crowded() => crowded.push(client.out.clone()),
                    Err(NotTaken::Full) => too_slow.push(*id),
                    Ok(()) | Err(NotTaken::Ended) => {}
                }
            }
        }
        for id in too_slow {
            self.cut_off(&mut routes, id);
        }
        crowded
    }

    fn cut_off(&self, routes: &mut Routes, id: ClientId) {
        if let Some((node, lost)) = routes.cut_off(id) {
            self.metrics.cut_off();
            let (lost, bound) = (lost as u64, self.limits.queue);
            warn!(node_id:% = node, lost; "node {node} is cut off: it fell behind by more than {bound} bytes");
        }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn down(&self) {
        self.metrics.up.set(0);
        self.up.send_if_modified(std::mem::take);
    }

    async fn serve(self: Arc<Self>, listener: UnixListener, file: SocketFile, mut stop: watch::Receiver<bool>) {
        let path = file.path.display().to_string();
        info!(path = path.as_str(); "the bus is up: slaves on this machine find it at {path}");
        tokio::select! {
            () = self.clone().accept(listener) => {}
            () = self.buffer.pass_on(|subject| self.routes().own.contains(&subject)) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.down();
        // first the file: who comes now finds nobody, and tries again until the next master is there
        drop(file);
        for client in self.routes().clients.values() {
            client.out.push_last(ToClient::Goodbye.frame());
        }
        let all = u32::try_from(MAX_CLIENTS).unwrap_or(u32::MAX);
        let _ = timeout(FAREWELL, self.room.acquire_many(all)).await;
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(error:% = error; "cannot accept a node on the local bus: {error}");
                    sleep(Duration::from_millis(500)).await;
                    continue;
                }
            };
            match self.room.clone().try_acquire_owned() {
                Ok(room) => {
                    self.crowded.store(false, Ordering::Relaxed);
                    let shared = self.clone();
                    tokio::spawn(async move {
                        session::serve(shared, stream).await;
                        drop(room);
                    });
                }
                Err(_) => {
                    if !self.crowded.swap(true, Ordering::Relaxed) {
                        warn!("more than {MAX_CLIENTS} nodes on the local bus; those beyond are turned away");
                    }
                }
            }
        }
    }
}
