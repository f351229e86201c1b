//! What all parts of a slave use. It stands below them, above what it holds, and does nothing by itself.

use std::sync::Arc;

use wellhead_proto::{bus::Bus, http_api::Router, ids::NodeId, tenants::TenantDirectory};

use crate::{
    admission::Admission,
    backlog::Backlog,
    encodings::Encodings,
    interests::Interests,
    memory::Memory,
    metrics::Metrics,
    presence::{Presence, coordination::Coordination},
    registries::Registries,
    remote::RemoteCalls,
    settings::{Limits, Settings},
    token::{Tokens, temporary::TemporaryTokens},
    webhooks::WebhookSender,
};

/// One for each slave, shared by its threads.
pub struct SlaveState {
    pub node: NodeId,
    pub settings: Settings,
    pub limits: Limits,
    pub tenants: Arc<TenantDirectory>,
    pub router: Router,
    pub encodings: Encodings,
    pub tokens: Tokens,
    pub temporary: TemporaryTokens,
    pub bus: Arc<dyn Bus>,
    pub interests: Arc<Interests>,
    pub coordination: Arc<Coordination>,
    pub presence: Arc<Presence>,
    pub backlog: Arc<Backlog>,
    pub memory: Arc<Memory>,
    pub metrics: Metrics,
    pub registries: Arc<Registries>,
    pub admission: Arc<Admission>,
    pub remote: Arc<RemoteCalls>,
    pub webhooks: Arc<dyn WebhookSender>,
}
