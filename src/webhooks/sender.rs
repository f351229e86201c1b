//! The task of one target: sends its requests one after the other, so that they arrive in order, and tries each again until it
//! is answered 2xx or its time is over.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::time::{sleep, timeout};
use wellhead_proto::dialect::pusher::{
    PusherApp,
    webhook::{KEY_HEADER, SIGNATURE_HEADER, Webhook, body},
};

use super::{
    queue::{GivenUp, WebhookBatch},
    targets::{NextBatch, TargetKey, Targets},
};
use crate::outbound::{OutboundError, OutboundRequest};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Between two attempts: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two attempts while the node is about to go.
const HURRIED_PAUSE: Duration = Duration::from_millis(500);

/// The header with the request's id, the same in each attempt.
const ID_HEADER: &str = "x-wellhead-webhook-id";

/// Send what waits for a target, until nothing does.
pub(super) async fn send_all(targets: Arc<Targets>, key: TargetKey) {
    loop {
        match targets.next(&key) {
            NextBatch::Send(webhook, batch) => match deliver(&targets, &key, &webhook, &batch).await {
                Ok(()) => targets.delivered(&key, &batch),
                Err(why) => targets.gave_up(&key, &batch, &why),
            },
            NextBatch::Wait(pause) => sleep(pause).await,
            NextBatch::Nothing => return,
        }
    }
}

async fn deliver(
    targets: &Targets,
    key: &TargetKey,
    webhook: &Arc<Webhook>,
    batch: &WebhookBatch,
) -> Result<(), GivenUp> {
    let (mut pause, mut draining) = (PAUSE, targets.draining());
    loop {
        let error = match attempt(targets, key, webhook, batch).await? {
            Ok(()) => {
                targets.metrics().tried("ok");
                return Ok(());
            }
            Err(error) => error,
        };
        targets.metrics().tried(error.label());
        targets.failed(key, batch, &error);
        if batch.is_over(Instant::now() + pause, targets.patience()) {
            return Err(GivenUp::Failed(error.to_string()));
        }
        if *draining.borrow() {
            sleep(HURRIED_PAUSE).await;
        } else {
            // who is about to go waits no longer
            let goes = async {
                if draining.wait_for(|draining| *draining).await.is_err() {
                    // nobody can say so any more
                    pending::<()>().await;
                }
            };
            let _ = timeout(pause, goes).await;
        }
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// One attempt, with the app as it is now.
async fn attempt(
    targets: &Targets,
    (app, number): &TargetKey,
    webhook: &Arc<Webhook>,
    batch: &WebhookBatch,
) -> Result<Result<(), OutboundError>, GivenUp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let body = body(&batch.events, now);
    let signature = {
        let tenants = targets.tenants().load();
        let app = tenants.app(app).of::<PusherApp>().filter(|app| app.webhooks.get(*number) == Some(webhook));
        app.ok_or(GivenUp::Removed)?.sign(body.as_bytes())
    };
    let headers = [(KEY_HEADER, app.as_str()), (SIGNATURE_HEADER, &*signature), (ID_HEADER, &*batch.id)];
    let Some(client) = targets.client() else {
        return Ok(Err(OutboundError::Connect("TLS cannot be set up on this node".to_owned())));
    };
    let request = OutboundRequest { target: &webhook.target, headers: &headers, body: body.into(), within: ATTEMPT };
    Ok(client.post(request).await)
}
