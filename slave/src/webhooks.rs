//! What a slave asks of who sends webhooks, which is no part of it. What they tell of, they read as facts.

use wellhead_proto::{ids::AppId, query::WebhookStates};

/// Sends webhooks, as a slave sees it when a backend asks.
pub trait WebhookSender: Send + Sync {
    /// The state of each target of `app`.
    fn states(&self, app: &AppId) -> WebhookStates;

    /// Send the request `id` of `app` again, which was given up. `false`: it is not kept here.
    fn resend(&self, app: &AppId, id: &str) -> bool;
}

/// Sends none.
pub struct NoWebhooks;

impl WebhookSender for NoWebhooks {
    fn states(&self, _: &AppId) -> WebhookStates {
        WebhookStates::new()
    }

    fn resend(&self, _: &AppId, _: &str) -> bool {
        false
    }
}
