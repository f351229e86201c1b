//! The metrics of a master. Labels come from enums only, never from apps or channels that a caller names.

use std::sync::{Arc, OnceLock};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use wellhead_proto::{
    command::PushKind,
    dialect::contract::{MasterRequest, QueryRequest},
    jwt::BadToken,
    query::{CountQuery, Listing, NamesQuery},
    refusal::Refusal,
};

use crate::error::MasterError;

/// Kinds of push that are counted without looking them up: at least as many as there are.
const KINDS: usize = 16;

/// The counters of a master; all threads share them.
#[derive(Clone)]
pub struct Metrics {
    pushes: Family<WorkLabel, Counter>,
    /// The counters of successful pushes, kept because a family looks counters up by label, behind a lock.
    went_well: Arc<[OnceLock<Counter>; KINDS]>,
    queries: Family<WorkLabel, Counter>,
    auth_failures: Family<ReasonLabel, Counter>,
    rejected: Family<RejectedLabel, Counter>,
    /// Answers in which the part of a slave is missing.
    pub partial: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WorkLabel {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RejectedLabel {
    dialect: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabel {
    reason: &'static str,
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestKind {
    /// A push.
    Push(PushKind),
    /// A query.
    Query(&'static str),
}

impl RequestKind {
    /// What `request` is; `None` if nothing is to be done for it.
    #[must_use]
    pub fn of(request: &MasterRequest) -> Option<Self> {
        Some(match request {
            MasterRequest::Answer(_) => return None,
            MasterRequest::Publish { envelopes, .. } | MasterRequest::PublishAndQuery { envelopes, .. } => {
                Self::Push(match &envelopes[..] {
                    [only] => only.command.kind(),
                    _ => PushKind::Batch,
                })
            }
            MasterRequest::PublishMatching { .. } => Self::Push(PushKind::Pattern),
            MasterRequest::Reload { .. } => Self::Push(PushKind::Reload),
            MasterRequest::Query(query) => Self::Query(match query {
                QueryRequest::Names(NamesQuery { of, .. }, _) => match of {
                    Listing::Channels(_) => "channels",
                    Listing::Users { .. } => "users",
                    Listing::UsersOf(_) => "users_of",
                },
                QueryRequest::Count(CountQuery { of, .. }, _) => match of {
                    Listing::Channels(_) => "channel_count",
                    Listing::Users { .. } => "user_count",
                    Listing::UsersOf(_) => "user_count_of",
                },
                QueryRequest::States(..) => "states",
                QueryRequest::Members(..) => "members",
                QueryRequest::Stats(..) => "stats",
                QueryRequest::Webhooks(..) => "webhooks",
                QueryRequest::ResendWebhook(..) => "webhook_resend",
            }),
            MasterRequest::Decode { .. } => Self::Query("decode"),
            MasterRequest::PublishIfOccupied { .. } => Self::Push(PushKind::Channel),
            MasterRequest::MintToken { .. } => Self::Query("temporary_token"),
        })
    }
}

impl Metrics {
    /// Counters that `registry` shows.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            pushes: Family::default(),
            went_well: Arc::default(),
            queries: Family::default(),
            auth_failures: Family::default(),
            rejected: Family::default(),
            partial: Counter::default(),
        };
        registry.register(
            "pushes",
            "Requests to push, to change permissions or to close sockets",
            metrics.pushes.clone(),
        );
        registry.register("queries", "Requests to the master that ask", metrics.queries.clone());
        registry.register("master_auth_failures", "Callers and tokens refused", metrics.auth_failures.clone());
        let rejected = "Requests refused after their push key, if they need one, by dialect and reason";
        registry.register("requests_rejected", rejected, metrics.rejected.clone());
        registry.register("partial_answers", "Answers that leave out a slave", metrics.partial.clone());
        metrics
    }

    /// A request is done.
    pub fn worked<T>(&self, kind: RequestKind, result: &Result<T, MasterError>) {
        let result = match result {
            Ok(_) => "ok",
            Err(MasterError::Refused(_)) => "refused",
            Err(MasterError::Fault(_) | MasterError::Late) => "unavailable",
        };
        match kind {
            RequestKind::Push(kind) => {
                let counter = || self.pushes.get_or_create(&WorkLabel { kind: kind.label(), result }).clone();
                match self.went_well.get(kind as usize) {
                    Some(known) if result == "ok" => known.get_or_init(counter).inc(),
                    _ => counter().inc(),
                }
            }
            RequestKind::Query(kind) => self.queries.get_or_create(&WorkLabel { kind, result }).inc(),
        };
    }

    /// A request of `dialect` was refused.
    pub fn rejected(&self, dialect: &'static str, why: &Refusal) {
        self.rejected.get_or_create(&RejectedLabel { dialect, reason: why.reason() }).inc();
    }

    /// A caller was not authorized.
    pub fn not_admitted(&self, why: &Refusal) {
        let reason = match why {
            Refusal::CredentialsMissing => "no_key",
            Refusal::CredentialsInvalid => "unknown_key",
            _ => "forbidden",
        };
        self.auth_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A token did not verify.
    pub fn bad_token(&self, why: BadToken) {
        self.auth_failures.get_or_create(&ReasonLabel { reason: why.label() }).inc();
    }
}
