//! The HTTP connections of a listener: how many there may be, and who goes when there are more.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use actix_server::GracefulShutdownSignal;
use log::warn;
use prometheus_client::metrics::gauge::Gauge;
use slab::Slab;
use tokio::{sync::Notify, time::Instant};
use wellhead_slave::Slave;

/// How often it is logged that there is no room.
const SAID: Duration = Duration::from_secs(60);

/// The file descriptors that HTTP connections and WebSockets share.
#[derive(Clone)]
pub struct Descriptors(Arc<DescriptorCount>);

struct DescriptorCount {
    most: usize,
    http: AtomicUsize,
    slave: Option<Slave>,
}

impl Descriptors {
    /// `most` for all, the sockets of `slave` among them.
    #[must_use]
    pub fn new(most: usize, slave: Option<Slave>) -> Self {
        Self(Arc::new(DescriptorCount { most, http: AtomicUsize::new(0), slave }))
    }

    fn has_room(&self) -> bool {
        let sockets = self.0.slave.as_ref().map_or(0, Slave::connections);
        self.0.http.load(Ordering::Relaxed) + sockets < self.0.most
    }
}

/// How many HTTP connections a listener may have.
#[derive(Clone)]
pub struct Bounds {
    most: usize,
    open: Arc<AtomicUsize>,
    threads: Arc<Mutex<Vec<Arc<ListenerThread>>>>,
    shared: Option<Descriptors>,
}

/// What the others know of a thread that serves the listener.
#[derive(Default)]
struct ListenerThread {
    open: AtomicUsize,
    /// One of its connections is to make room for another thread's.
    called: Notify,
}

impl Bounds {
    /// `most`, none of which uses up what others share.
    #[must_use]
    pub fn of_its_own(most: usize) -> Self {
        Self { most, open: Arc::default(), threads: Arc::default(), shared: None }
    }

    /// `most`, as far as the descriptors reach that it shares.
    #[must_use]
    pub fn sharing(most: usize, descriptors: &Descriptors) -> Self {
        Self { shared: Some(descriptors.clone()), ..Self::of_its_own(most) }
    }

    /// Is there room beside `spare` places?
    fn has_room(&self, spare: usize) -> bool {
        self.open.load(Ordering::Relaxed) + spare < self.most && self.shared.as_ref().is_none_or(Descriptors::has_room)
    }

    /// Places for those whose thread finds nobody who could go while another thread has all who wait: one for each.
    fn spare(&self) -> usize {
        self.with_threads(|threads| threads.len()).min(self.most / 8)
    }

    /// Let the thread with the most connections dismiss one.
    fn call_fullest(&self) {
        self.with_threads(|threads| {
            if let Some(fullest) = threads.iter().max_by_key(|thread| thread.open.load(Ordering::Relaxed)) {
                fullest.called.notify_one();
            }
        });
    }

    fn with_threads<T>(&self, look: impl FnOnce(&mut Vec<Arc<ListenerThread>>) -> T) -> T {
        look(&mut self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The connections of a listener that one worker thread serves.
pub struct Connections {
    bounds: Bounds,
    thread: Arc<ListenerThread>,
    gauge: Gauge,
    entries: RefCell<Slab<Rc<ConnectionEntry>>>,
    ending: Cell<bool>,
    /// When it was last said that there is no room.
    said: Cell<Option<Instant>>,
}

struct ConnectionEntry {
    /// Since when it has been waiting for its client: for a request, for the rest of one, or for a reply to be taken;
    /// `None` while it is served.
    waiting: Cell<Option<Instant>>,
    dismissed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl ConnectionEntry {
    fn dismiss(&self) {
        self.dismissed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Connections {
    /// None yet; `gauge` shows how many. When `ending` is told, those that wait for a request go.
    #[must_use]
    pub fn new(bounds: Bounds, gauge: Gauge, ending: GracefulShutdownSignal) -> Rc<Self> {
        let thread = Arc::<ListenerThread>::default();
        bounds.with_threads(|threads| threads.push(thread.clone()));
        let (entries, is_ending) = (RefCell::default(), Cell::new(false));
        let connections = Rc::new(Self { bounds, thread, gauge, entries, ending: is_ending, said: Cell::new(None) });
        let called = connections.clone();
        actix_rt::spawn(async move {
            loop {
                called.thread.called.notified().await;
                called.dismiss_longest_waiting();
            }
        });
        let ended = connections.clone();
        actix_rt::spawn(async move {
            ending.notified().await;
            ended.ending.set(true);
            ended.entries.borrow().iter().for_each(|(_, entry)| entry.wake());
        });
        connections
    }

    /// One more, if there is room, or if somebody waits who can go for it: the one that has waited longest.
    pub fn enter(self: &Rc<Self>) -> Option<ConnectionPlace> {
        if !self.bounds.has_room(self.bounds.spare()) {
            self.say_crowded();
            if !self.dismiss_longest_waiting() {
                if !self.bounds.has_room(0) {
                    return None;
                }
                self.bounds.call_fullest();
            }
        }
        self.counters().for_each(|open| _ = open.fetch_add(1, Ordering::Relaxed));
        self.gauge.inc();
        let waiting = Cell::new(Some(Instant::now()));
        let entry = Rc::new(ConnectionEntry { waiting, dismissed: Cell::new(false), waker: RefCell::default() });
        let key = self.entries.borrow_mut().insert(entry.clone());
        Some(ConnectionPlace { connections: self.clone(), entry, key })
    }

    /// Log it once in a while: the clients get no reply.
    fn say_crowded(&self) {
        let now = Instant::now();
        if self.said.get().is_some_and(|said| now - said < SAID) {
            return;
        }
        self.said.set(Some(now));
        let most = self.bounds.most;
        warn!(
            most;
            "no room for more HTTP connections (limits.http_connections: {most}; or file descriptors): the one that waits \
             longest is closed"
        );
    }

    /// The counters of open connections.
    fn counters(&self) -> impl Iterator<Item = &AtomicUsize> {
        let shared = self.bounds.shared.as_ref().map(|shared| &shared.0.http);
        [&*self.bounds.open, &self.thread.open].into_iter().chain(shared)
    }

    /// Of this thread's.
    fn dismiss_longest_waiting(&self) -> bool {
        let entries = self.entries.borrow();
        let waiting = entries.iter().filter(|(_, entry)| !entry.dismissed.get());
        let longest =
            waiting.filter_map(|(_, entry)| Some((entry.waiting.get()?, entry))).min_by_key(|(since, _)| *since);
        longest.map(|(_, entry)| entry.dismiss()).is_some()
    }
}

/// One of the connections.
pub struct ConnectionPlace {
    connections: Rc<Connections>,
    entry: Rc<ConnectionEntry>,
    key: usize,
}

impl ConnectionPlace {
    /// It waits for its client from `since` on, or it does not.
    pub fn set_waiting(&self, since: Option<Instant>) {
        self.entry.waiting.set(since);
    }

    /// Is it to go while it waits, because others need its room or, if it is `idle`, because the server ends? If not, the
    /// task of `cx` is woken when it is.
    pub fn poll_dismissed(&self, idle: bool, cx: &Context<'_>) -> bool {
        if self.entry.dismissed.get() || (idle && self.is_ending()) {
            return true;
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }

    /// Does the server shut down?
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.connections.ending.get()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.connections.entries.borrow_mut().remove(self.key);
        self.connections.counters().for_each(|open| _ = open.fetch_sub(1, Ordering::Relaxed));
        self.connections.gauge.dec();
    }
}
