//! The queues of all targets, and the tasks that send what is in them. An idle target has no task.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use log::{error, info, warn};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::AbortHandle,
};
use wellhead_proto::{
    bus::BoxFuture,
    dialect::pusher::{
        PusherApp,
        webhook::{Webhook, WebhookEvent},
    },
    ids::{AppId, NodeId},
    query::WebhookStates,
    tenants::TenantDirectory,
};

use super::{
    metrics::Metrics,
    queue::{GivenUp, TargetQueue, WebhookBatch},
};
use crate::{
    outbound::{OutboundClient, OutboundError},
    settings::WebhooksSection,
};

/// How long events are waited for that may travel together.
const WINDOW: Duration = Duration::from_millis(50);

/// Sends what waits for a target, until nothing does.
pub(super) type SendAll = fn(Arc<Targets>, TargetKey) -> BoxFuture<()>;

/// A target: its app, and its number in the settings of that.
pub(super) type TargetKey = (AppId, usize);

/// All targets that something was for.
pub(super) struct Targets {
    node: NodeId,
    tenants: Arc<TenantDirectory>,
    settings: WebhooksSection,
    metrics: Metrics,
    draining: watch::Receiver<bool>,
    send_all: SendAll,
    /// Whose thread runs the tasks, whoever has one begin.
    runtime: Handle,
    /// Made when something is sent for the first time: it reads which authorities the machine trusts in.
    client: OnceLock<Option<OutboundClient>>,
    all: Mutex<HashMap<TargetKey, QueuedTarget>>,
    /// Numbers requests.
    requests: AtomicU64,
    /// A task has ended.
    ended: Notify,
}

struct QueuedTarget {
    webhook: Arc<Webhook>,
    queue: TargetQueue,
    task: Option<AbortHandle>,
}

/// What comes next for the task of a target.
pub(super) enum NextBatch {
    /// Send this.
    Send(Arc<Webhook>, Arc<WebhookBatch>),
    /// More may join it: wait.
    Wait(Duration),
    /// Nothing: the task ends.
    Nothing,
}

impl Targets {
    /// None yet; `send_all` is the task of each. Within a runtime.
    pub(super) fn new(
        send_all: SendAll,
        node: NodeId,
        tenants: Arc<TenantDirectory>,
        settings: WebhooksSection,
        metrics: Metrics,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self {
            node,
            tenants,
            settings,
            metrics,
            draining,
            send_all,
            runtime: Handle::current(),
            client: OnceLock::new(),
            all: Mutex::default(),
            requests: AtomicU64::new(0),
            ended: Notify::new(),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn tenants(&self) -> &Arc<TenantDirectory> {
        &self.tenants
    }

    /// How long a request is tried.
    pub(super) fn patience(&self) -> Duration {
        self.settings.retry_for.0
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.clone()
    }

    /// What sends. `None`: TLS cannot be set up here.
    pub(super) fn client(&self) -> Option<&OutboundClient> {
        let made = || {
            let made = OutboundClient::new(self.settings.allow_private);
            made.inspect_err(|error| error!("webhooks cannot be sent: {error:#}")).ok()
        };
        self.client.get_or_init(made).as_ref()
    }

    /// Put each event into the queues of the targets that want it.
    pub(super) fn queue(self: &Arc<Self>, events: Vec<WebhookEvent>) {
        if events.is_empty() {
            return;
        }
        let tenants = self.tenants.load();
        let mut all = self.lock();
        for event in events {
            let channel = event.channel();
            let webhooks = PusherApp::webhooks_of(&tenants, &channel.app);
            let wanting = webhooks.iter().enumerate().filter(|(_, webhook)| webhook.wants(event.kind(), &channel.name));
            for (number, webhook) in wanting {
                let key = (channel.app.clone(), number);
                let target = self.target(&mut all, &key, webhook);
                let dropped = target.queue.push(event.clone(), Instant::now(), || self.id());
                self.overflow(&key, target, dropped);
                self.begin(key, target);
            }
        }
        self.count(&all);
    }

    /// The queue of a target. One that is another by now begins anew.
    fn target<'a>(
        &self,
        all: &'a mut HashMap<TargetKey, QueuedTarget>,
        key: &TargetKey,
        webhook: &Arc<Webhook>,
    ) -> &'a mut QueuedTarget {
        let new = || QueuedTarget { webhook: webhook.clone(), queue: TargetQueue::default(), task: None };
        let target = all.entry(key.clone()).or_insert_with(new);
        if target.webhook != *webhook {
            for batch in target.queue.clear() {
                self.give_up(key, target, &batch, &GivenUp::Removed);
            }
            if let Some(task) = target.task.take() {
                task.abort();
            }
            *target = new();
        }
        target
    }

    /// See to it that there is a task for what waits.
    fn begin(self: &Arc<Self>, key: TargetKey, target: &mut QueuedTarget) {
        if target.task.is_none() {
            target.task = Some(self.runtime.spawn((self.send_all)(self.clone(), key)).abort_handle());
        }
    }

    /// What the task of a target does next.
    pub(super) fn next(&self, key: &TargetKey) -> NextBatch {
        let mut all = self.lock();
        let Some(target) = all.get_mut(key) else { return NextBatch::Nothing };
        let wait = target.queue.open_since().map(|since| WINDOW.saturating_sub(since.elapsed()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero() && !*self.draining.borrow()) {
            return NextBatch::Wait(wait);
        }
        match target.queue.take() {
            Some(batch) => NextBatch::Send(target.webhook.clone(), batch),
            None => {
                target.task = None;
                self.ended.notify_waiters();
                NextBatch::Nothing
            }
        }
    }

    /// An attempt failed, and there will be another.
    pub(super) fn failed(&self, key: &TargetKey, batch: &WebhookBatch, why: &OutboundError) {
        let mut all = self.lock();
        let Some(target) = all.get_mut(key) else { return };
        let is_first = target.queue.last_error.as_ref().map(|(at, _)| *at) <= target.queue.last_success;
        target.queue.last_error = Some((unix_millis(), why.to_string()));
        if is_first {
            let (app, shown, id) = (&key.0, &target.webhook.target, &batch.id);
            warn!(
                app_id:% = app, target_url:% = shown, webhook_id = id.as_str(), error:% = why;
                "webhooks of {app} to {shown} fail until further notice: {why} (request {id})"
            );
        }
    }

    /// A request was answered 2xx.
    pub(super) fn delivered(&self, key: &TargetKey, batch: &WebhookBatch) {
        let mut all = self.lock();
        self.metrics.delivered(batch.events.len());
        if let Some(target) = all.get_mut(key) {
            let failed = target.queue.last_error.as_ref().map(|(at, _)| *at) > target.queue.last_success;
            target.queue.last_success = Some(unix_millis());
            target.queue.done();
            if failed {
                let (app, shown) = (&key.0, &target.webhook.target);
                info!(app_id:% = app, target_url:% = shown; "webhooks of {app} to {shown} are delivered again");
            }
        }
        self.count(&all);
    }

    /// A request is not tried again.
    pub(super) fn gave_up(&self, key: &TargetKey, batch: &Arc<WebhookBatch>, why: &GivenUp) {
        let mut all = self.lock();
        if let Some(target) = all.get_mut(key) {
            target.queue.done();
            self.give_up(key, target, batch, why);
        }
        self.count(&all);
    }

    fn overflow(&self, key: &TargetKey, target: &mut QueuedTarget, dropped: Vec<WebhookBatch>) {
        for batch in dropped {
            self.give_up(key, target, &Arc::new(batch), &GivenUp::Overflow);
        }
    }

    /// Count it, log it, keep it.
    fn give_up(&self, (app, _): &TargetKey, target: &mut QueuedTarget, batch: &Arc<WebhookBatch>, why: &GivenUp) {
        let (shown, id, events, words) = (&target.webhook.target, &batch.id, batch.events.len(), why.words());
        self.metrics.given_up(why, events);
        warn!(
            app_id:% = app, target_url:% = shown, webhook_id = id.as_str(), events, reason = why.label();
            "webhook {id} of {app} to {shown} is given up with {events} events: {words}"
        );
        target.queue.keep(batch.clone(), why, unix_millis());
    }

    pub(super) fn states(&self, app: &AppId) -> WebhookStates {
        let tenants = self.tenants.load();
        let all = self.lock();
        let state = |(number, webhook): (usize, &Arc<Webhook>)| {
            let known = all.get(&(app.clone(), number)).filter(|target| target.webhook == *webhook);
            let shown = webhook.target.to_string();
            let state = known
                .map_or_else(|| TargetQueue::default().state(shown.clone()), |known| known.queue.state(shown.clone()));
            (u32::try_from(number).unwrap_or(u32::MAX), state)
        };
        PusherApp::webhooks_of(&tenants, app).iter().enumerate().map(state).collect()
    }

    pub(super) fn resend(self: &Arc<Self>, app: &AppId, id: &str) -> bool {
        let mut all = self.lock();
        for (key, target) in all.iter_mut().filter(|((of, _), _)| of == app) {
            if let Some(dropped) = target.queue.resend(id, Instant::now()) {
                self.overflow(key, target, dropped);
                self.begin(key.clone(), target);
                self.count(&all);
                return true;
            }
        }
        false
    }

    /// Back when nothing waits and nothing is being sent.
    pub(super) async fn when_idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.lock().values().all(|target| target.task.is_none()) {
                return;
            }
            ended.await;
        }
    }

    /// Give up all that waits: nothing is sent any more.
    pub(super) fn end(&self) {
        let mut all = self.lock();
        for (key, target) in all.iter_mut() {
            if let Some(task) = target.task.take() {
                task.abort();
            }
            for batch in target.queue.clear() {
                self.give_up(key, target, &batch, &GivenUp::ShutDown);
            }
        }
        self.count(&all);
    }

    fn count(&self, all: &HashMap<TargetKey, QueuedTarget>) {
        let queued: usize = all.values().map(|target| target.queue.queued()).sum();
        self.metrics.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
    }

    /// A name that no other request of the cluster has.
    fn id(&self) -> String {
        format!("{}-{}", self.node, self.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetKey, QueuedTarget>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
