//! The owner of the socket: routes what links send to those that listen, and is a wire itself for the master's process.
//! Routing is done by whoever sends, under one lock. Who sends waits a moment for a link that falls behind, then no
//! more: a link that is too slow is cut off.

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

use self::routes::{LinkId, Routes};
use super::{
    frame::ToLink,
    outbound::{NotTaken, Outbound},
    socket::{self, SocketError, SocketFile},
};
use crate::bus::{
    lobby::Lobby,
    metrics::WireMetrics,
    wire::{Ear, Subject, Wire},
};

/// How many links there may be at once.
const MAX_LINKS: usize = 1_024;
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

/// Is told of the links that come and go. Called on the exchange's thread; must not block.
pub trait Porter: Send + Sync {
    /// A node is linked; nothing that it sent was heard yet.
    fn came(&self, node: NodeId, beat: Bytes);

    /// A node is linked no more, and did not say goodbye.
    fn lost(&self, node: NodeId);
}

/// The master's end of the socket.
pub struct Exchange {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

struct Shared {
    limits: LocalLimits,
    /// What every link is given when it comes.
    welcome: Bytes,
    porter: Arc<dyn Porter>,
    lobby: Lobby,
    metrics: WireMetrics,
    routes: Mutex<Routes>,
    up: watch::Sender<bool>,
    /// Room for links.
    room: Arc<Semaphore>,
    crowded: AtomicBool,
}

impl Exchange {
    /// Own the socket at `path`, and give `welcome` to every node that comes.
    ///
    /// # Errors
    ///
    /// Another master owns it, or the system does not let us.
    pub fn bind(
        path: &Path,
        welcome: Bytes,
        limits: LocalLimits,
        ear: Arc<dyn Ear>,
        porter: Arc<dyn Porter>,
        metrics: WireMetrics,
    ) -> Result<Arc<Self>, SocketError> {
        let (listener, file) = socket::bind(path)?;
        let io = |error| SocketError::Io { path: path.to_owned(), error };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::from_std(listener).map_err(io)?
        };
        metrics.up.set(1);
        let shared = Arc::new(Shared {
            limits,
            welcome,
            porter,
            lobby: Lobby::new(ear, limits.queue, metrics.clone()),
            metrics,
            routes: Mutex::default(),
            up: watch::Sender::new(true),
            room: Arc::new(Semaphore::new(MAX_LINKS)),
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

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[async_trait]
impl Wire for Exchange {
    fn session(&self) -> Option<u32> {
        // the only one: it ends with the process
        self.shared.up.borrow().then_some(0)
    }

    async fn send_in(&self, _: u32, subject: Subject, message: Bytes) -> Result<(), BusError> {
        debug_assert!(subject != Subject::EverySlot, "only to be listened to");
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

    fn state(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    async fn close(&self) {
        self.shared.down();
        self.stop.send_replace(true);
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Shared {
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
        let heard_as = match subject {
            Subject::Slot(_) => &[subject, Subject::EverySlot][..],
            _ => &[subject][..],
        };
        let mut too_slow = SmallVec::<[LinkId; 2]>::new();
        for &heard_as in heard_as {
            if routes.own.contains(&heard_as) {
                self.lobby.admit(heard_as, message.clone());
            }
            let Some(listeners) = routes.listeners.get(&heard_as) else { continue };
            let frame = ToLink::Heard(heard_as, message.clone()).frame();
            for id in listeners {
                let plug = routes.links.get(id).expect("who listens is linked");
                match plug.out.push(frame.clone()) {
                    Ok(()) if plug.out.is_crowded() => crowded.push(plug.out.clone()),
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

    fn cut_off(&self, routes: &mut Routes, id: LinkId) {
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
            () = self.lobby.pass_on(|subject| self.routes().own.contains(&subject)) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.down();
        // first the file: who comes now finds nobody, and tries again until the next master is there
        drop(file);
        for plug in self.routes().links.values() {
            plug.out.push_last(ToLink::Goodbye.frame());
        }
        let all = u32::try_from(MAX_LINKS).unwrap_or(u32::MAX);
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
                        warn!("more than {MAX_LINKS} nodes on the local bus; those beyond are turned away");
                    }
                }
            }
        }
    }
}
