//! Sends webhooks: what this slave decides for the cluster, and what its clients publish, to the targets of the apps. What a
//! body holds, and who wants what, is Pusher's matter (`wellhead_proto::dialect::pusher::webhook`).
//!
//! ```text
//! facts ──▶ events ──▶ Debouncer ──▶ a TargetQueue for each target ──▶ its task: one request at a time, in order
//!           (intake)   (what may be              │ too full                 │ 2xx        │ none in time
//!                       taken back)              ▼                          ▼            ▼
//!                                             given up                  delivered     given up: counted, logged, kept
//! ```
//!
//! Each slave also remembers what others decided lately that it stands by for (`standby`): if one of them dies, it tells that.
//!
//! Nobody who decides or publishes waits for any of it: facts are taken from a bounded queue, events are put into one.

mod debounce;
mod intake;
mod metrics;
mod queue;
mod sender;
mod standby;
mod targets;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use log::info;
use prometheus_client::registry::Registry;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use wellhead_proto::{
    bus::Bus,
    channel::ChannelPattern,
    dialect::{
        mount::BadSetting,
        pusher::{
            PusherApp,
            webhook::{Webhook, WebhookKind},
        },
    },
    ids::{AppId, NodeId},
    query::WebhookStates,
    tenants::{TenantDirectory, Tenants},
};
use wellhead_slave::{Slave, WebhookSender};

use self::{
    intake::{Intake, WantedFacts},
    metrics::Metrics,
    targets::{SendAll, Targets},
};
use crate::{outbound::check_address, settings::WebhooksSection};

/// How long what waits is tried at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Sends the webhooks of a slave. Shared by its clones.
#[derive(Clone)]
pub struct Webhooks {
    targets: Arc<Targets>,
    intake: Arc<Mutex<Option<JoinHandle<()>>>>,
    draining: Arc<watch::Sender<bool>>,
}

impl Webhooks {
    /// Nothing is sent yet. `node`: the slave. Within a runtime.
    #[must_use]
    pub fn new(
        node: NodeId,
        tenants: Arc<TenantDirectory>,
        settings: &WebhooksSection,
        registry: &mut Registry,
    ) -> Self {
        let draining = Arc::new(watch::Sender::new(false));
        let send_all: SendAll = |targets, key| Box::pin(sender::send_all(targets, key));
        let targets =
            Targets::new(send_all, node, tenants, settings.clone(), Metrics::new(registry), draining.subscribe());
        Self { targets: Arc::new(targets), intake: Arc::default(), draining }
    }

    /// Send what `slave` decides, and what its clients publish; `bus` says for which channels it decides. On the calling
    /// thread. To be called once.
    pub fn start(&self, slave: &Slave, bus: &dyn Bus) {
        let facts = slave.read_facts(Arc::new(WantedFacts(self.targets.tenants().clone())));
        let intake = Intake::new(self.targets.clone(), facts, bus.state(), self.draining.subscribe());
        *self.intake.lock().unwrap_or_else(PoisonError::into_inner) = Some(actix_rt::spawn(intake.run()));
    }

    /// Nothing more happens: try what waits for a while, then give up the rest.
    pub async fn drain(&self) {
        self.draining.send_replace(true);
        let intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner).take();
        let all = async {
            if let Some(intake) = intake {
                let _ = intake.await;
            }
            self.targets.when_idle().await;
        };
        if timeout(DRAIN, all).await.is_err() {
            info!("webhooks still wait, and the time for them is over");
        }
        self.targets.end();
    }
}

impl WebhookSender for Webhooks {
    fn states(&self, app: &AppId) -> WebhookStates {
        self.targets.states(app)
    }

    fn resend(&self, app: &AppId, id: &str) -> bool {
        self.targets.resend(app, id)
    }
}

/// A line for each target, without its secrets.
#[must_use]
pub fn described(tenants: &Tenants) -> Vec<String> {
    let line = |app: &PusherApp, webhook: &Webhook| {
        let Webhook { target, events, channels, .. } = webhook;
        let events = match WebhookKind::ALL.iter().all(|kind| events.contains(kind)) {
            true => "all events".to_owned(),
            false => events.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "),
        };
        let channels = channels.iter().map(ChannelPattern::as_str).collect::<Vec<_>>().join(", ");
        let header = target.header().map(|(name, _)| format!(", with the header {name}")).unwrap_or_default();
        format!("webhooks of {} to {target}: {events}; channels {channels}{header}", app.key)
    };
    tenants.all_of::<PusherApp>().flat_map(|app| app.webhooks.iter().map(|webhook| line(app, webhook))).collect()
}

/// Can all targets be reached that are named by an address?
///
/// # Errors
///
/// One could never be.
pub fn check(tenants: &Tenants, allow_private: bool) -> Result<(), BadSetting> {
    let mut webhooks = tenants.all_of::<PusherApp>().flat_map(|app| &app.webhooks);
    webhooks.try_for_each(|webhook| check_address(format!("{}.url", webhook.place), &webhook.target, allow_private))
}
