//! Carries out requests: checks the app and the limits of the caller, calls the bus, and filters what the caller may see.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::poll_immediate;
use log::{info, warn};
use tokio::time::timeout;
use wellhead_proto::{
    bus::{Bus, BusError, Gathered},
    channel::{ChannelPattern, written},
    command::{Command, PublishMatching},
    dialect::contract::{ApiReply, MasterRequest, QueryRequest},
    envelope::Envelope,
    ids::{AppId, ChannelKey, ChannelName, NodeId},
    query::{GrantsQuery, Names, OccupiedQuery, TypedQuery},
    refusal::Refusal,
    tenants::Tenants,
};

use crate::{
    error::MasterError,
    keys::Caller,
    metrics::{Metrics, RequestKind},
};

/// How long all pushes of one request may wait for the bus.
const PUBLISH: Duration = Duration::from_secs(15);

/// How long a question may wait for its answers; slaves that are merely slow are given up earlier, by the bus.
const GATHER: Duration = Duration::from_secs(5);

/// Carries out what callers ask for.
pub struct Dispatcher {
    bus: Arc<dyn Bus>,
    /// What the permissions of a user may come to, in bytes.
    grants_limit: usize,
    metrics: Metrics,
    /// Has an error of the bus been logged since it last worked?
    faulty: AtomicBool,
    /// Temporary tokens that were asked for: slaves issue them in turn.
    minted: AtomicUsize,
}

/// The result of a request.
#[derive(Debug)]
pub struct MasterAnswer {
    /// The reply.
    pub reply: ApiReply,
    /// Slaves whose part of the answer is missing.
    pub missing: Vec<NodeId>,
}

impl MasterAnswer {
    fn whole(reply: ApiReply) -> Self {
        Self { reply, missing: Vec::new() }
    }
}

impl Dispatcher {
    /// A dispatcher onto `bus`.
    pub fn new(bus: Arc<dyn Bus>, grants_limit: usize, metrics: Metrics) -> Self {
        Self { bus, grants_limit, metrics, faulty: AtomicBool::new(false), minted: AtomicUsize::new(0) }
    }

    /// Do all that `request` asks for, or, if it is refused, nothing. `checked` is what came of [`Dispatcher::check`] with
    /// the same `tenants`; `now`: seconds since 1970.
    ///
    /// # Errors
    ///
    /// What the caller may not do, and faults of the bus: then a part of a batch may have been sent.
    pub async fn carry_out(
        &self,
        caller: &Caller,
        tenants: &Tenants,
        request: MasterRequest,
        checked: Result<(), Refusal>,
        now: f64,
    ) -> Result<MasterAnswer, MasterError> {
        let kind = RequestKind::of(&request);
        let result = match checked {
            Ok(()) => self.obey(caller, tenants, request, now).await,
            Err(refused) => Err(refused.into()),
        };
        if let Some(kind) = kind {
            self.metrics.worked(kind, &result);
        }
        result
    }

    /// May `caller` have `request` carried out? What costs least first: permissions that are too many are refused before
    /// they are compared with the caller's own. Then the key's limits, then the apps: who has no business with an app does
    /// not learn whether it is served. What the key limits in part is cut down to it.
    ///
    /// # Errors
    ///
    /// Any part of it that is refused.
    pub fn check(&self, caller: &Caller, tenants: &Tenants, request: &mut MasterRequest) -> Result<(), Refusal> {
        if let MasterRequest::Reload { channels, .. } = request {
            self.fits(channels)?;
        }
        caller.limit(request)?;
        match request {
            MasterRequest::Publish { envelopes, .. } => serves_all(tenants, envelopes),
            MasterRequest::PublishAndQuery { envelopes, query, .. } => {
                serves_all(tenants, envelopes)?;
                serves(tenants, &query.app)
            }
            MasterRequest::PublishMatching { push: PublishMatching { app, .. }, .. }
            | MasterRequest::Reload { app, .. } => serves(tenants, app),
            MasterRequest::Query(query) => query.app().map_or(Ok(()), |app| serves(tenants, app)),
            MasterRequest::PublishIfOccupied { channel: ChannelKey { app, .. }, .. }
            | MasterRequest::MintToken { app, .. } => serves(tenants, app),
            MasterRequest::Answer(_) | MasterRequest::Decode { .. } => Ok(()),
        }
    }

    fn fits(&self, channels: &[ChannelPattern]) -> Result<(), Refusal> {
        if written(channels) > self.grants_limit {
            return Err(Refusal::TooLarge {
                what: "a user's permissions (limits.grants)",
                limit: self.grants_limit as u64,
            });
        }
        Ok(())
    }

    async fn obey(
        &self,
        caller: &Caller,
        tenants: &Tenants,
        request: MasterRequest,
        now: f64,
    ) -> Result<MasterAnswer, MasterError> {
        match request {
            MasterRequest::Answer(reply) => Ok(MasterAnswer::whole(reply)),
            MasterRequest::Publish { envelopes, reply } => {
                self.publish(envelopes).await?;
                Ok(MasterAnswer::whole(reply(())))
            }
            MasterRequest::PublishAndQuery { envelopes, query, reply } => {
                self.publish(envelopes).await?;
                self.query(query, reply).await
            }
            MasterRequest::PublishMatching { push, reply } => {
                let gathered = self.in_time(GATHER, self.bus.publish_matching(push)).await?;
                Ok(self.answer(gathered, |matched| reply(matched.len())))
            }
            MasterRequest::Reload { app, user, within, channels, reply } => {
                // of a caller who replaces a part only nobody can tell what is in force then, but the slaves
                let is_a_part = !within.is_empty() && !within.iter().any(ChannelPattern::is_everything);
                let ask = is_a_part.then(|| GrantsQuery { app: app.clone(), user: user.clone() });
                self.publish(vec![Envelope { app, command: Command::Reload { user, within, channels } }]).await?;
                match ask {
                    Some(ask) => self.query(ask, |in_force: Names| reply(Some(in_force))).await,
                    None => Ok(MasterAnswer::whole(reply(None))),
                }
            }
            MasterRequest::Query(query) => match query {
                QueryRequest::Names(query, reply) => self.query(query, reply).await,
                QueryRequest::Count(query, reply) => self.query(query, reply).await,
                QueryRequest::States(query, reply) => self.query(query, reply).await,
                QueryRequest::Members(query, reply) => self.query(query, reply).await,
                QueryRequest::Webhooks(query, reply) => self.query(query, reply).await,
                QueryRequest::ResendWebhook(query, reply) => self.query(query, reply).await,
                QueryRequest::Stats(query, reply) => self.query(query, |apps| reply(caller.shown_of(apps))).await,
            },
            MasterRequest::Decode { jwt, reply } => {
                let claims = tenants.verify(&jwt, now).map(Box::new);
                match &claims {
                    Ok(claims) => caller.shows(&claims.grant.app)?,
                    Err(why) => self.metrics.bad_token(*why),
                }
                Ok(MasterAnswer::whole(reply(claims)))
            }
            MasterRequest::PublishIfOccupied { channel, envelope, reply } => {
                let occupied = self.is_occupied(channel).await?;
                if occupied && let Some(envelope) = envelope {
                    self.publish(vec![envelope]).await?;
                }
                Ok(MasterAnswer::whole(reply(occupied)))
            }
            MasterRequest::MintToken { app, channel, ttl, reply } => {
                Ok(MasterAnswer::whole(reply(self.mint(&app, channel.as_ref(), ttl).await?)))
            }
        }
    }

    /// Is anybody on a channel, anywhere? Nobody is said to be there only when everybody who may have somebody has answered.
    async fn is_occupied(&self, ChannelKey { app, name }: ChannelKey) -> Result<bool, MasterError> {
        let query = OccupiedQuery { app, channel: name };
        let Gathered { result, missing } = self.in_time(GATHER, self.bus.is_occupied(query)).await?;
        match (result, missing.is_empty()) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => {
                self.metrics.partial.inc();
                Err(Refusal::unavailable("not every slave says whether somebody is on that channel").into())
            }
        }
    }

    /// Have a slave issue a temporary token: one after the other, and the next one if one does not answer.
    async fn mint(&self, app: &AppId, channel: Option<&ChannelName>, ttl: Duration) -> Result<String, MasterError> {
        const TRIES: usize = 3;
        let slaves = self.bus.state().borrow().slaves.clone();
        let first = self.minted.fetch_add(1, Ordering::Relaxed);
        for no in 0..slaves.len().min(TRIES) {
            let issuer = slaves[first.wrapping_add(no) % slaves.len()];
            let minted = self.bus.mint_token(issuer, app.clone(), channel.cloned(), ttl);
            match self.in_time(GATHER, minted).await {
                Ok(Some(token)) => return Ok(token),
                // a full one, or one that has just gone
                Ok(None) | Err(MasterError::Fault(BusError::Silent | BusError::OtherKind)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Refusal::unavailable("no slave issues a temporary token now").into())
    }

    async fn publish(&self, envelopes: Vec<Envelope>) -> Result<(), MasterError> {
        self.in_time(PUBLISH, self.bus.publish_all(envelopes)).await
    }

    async fn query<Q: TypedQuery>(
        &self,
        query: Q,
        reply: impl FnOnce(Q::Result) -> ApiReply,
    ) -> Result<MasterAnswer, MasterError> {
        let gathered = self.in_time(GATHER, self.bus.query(query)).await?;
        Ok(self.answer(gathered, reply))
    }

    fn answer<T>(&self, Gathered { result, missing }: Gathered<T>, reply: impl FnOnce(T) -> ApiReply) -> MasterAnswer {
        if !missing.is_empty() {
            self.metrics.partial.inc();
        }
        MasterAnswer { reply: reply(result), missing }
    }

    /// Wait for the bus, but not for ever. Its first fault is logged, and its recovery; not every request between.
    async fn in_time<T>(
        &self,
        wait: Duration,
        work: impl Future<Output = Result<T, BusError>>,
    ) -> Result<T, MasterError> {
        let mut work = pin!(work);
        // most of it is done at once and needs no clock
        let result = match poll_immediate(work.as_mut()).await {
            Some(result) => Ok(result),
            None => timeout(wait, work).await,
        };
        let result = match result {
            Ok(result) => result.map_err(MasterError::Fault),
            Err(_) => Err(MasterError::Late),
        };
        match &result {
            Err(fault) => {
                if !self.faulty.swap(true, Ordering::Relaxed) {
                    warn!(error:% = fault; "requests fail until further notice: {fault}");
                }
            }
            Ok(_) => {
                if self.faulty.load(Ordering::Relaxed) && self.faulty.swap(false, Ordering::Relaxed) {
                    info!("the bus takes requests again");
                }
            }
        }
        result
    }
}

fn serves_all(tenants: &Tenants, envelopes: &[Envelope]) -> Result<(), Refusal> {
    envelopes.iter().try_for_each(|envelope| serves(tenants, &envelope.app))
}

fn serves(tenants: &Tenants, app: &AppId) -> Result<(), Refusal> {
    if tenants.app(app).is_served() {
        Ok(())
    } else {
        Err(Refusal::Forbidden("that app is not listed, and apps.unlisted = \"refuse\"".into()))
    }
}
