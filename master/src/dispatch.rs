//! From what a request comes down to, to what comes of it: the apps that are served, the way onto the bus, and what of
//! the answers the caller may see.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::poll_immediate;
use log::{info, warn};
use tokio::time::timeout;
use wellhead_proto::{
    bus::{Bus, BusError, Gathered},
    channel::written,
    command::{Command, PushKind},
    dialect::contract::{Done, Work},
    envelope::Envelope,
    ids::{AppId, NodeId},
    query::Ask,
    refusal::Refusal,
    tenants::Tenants,
};

use crate::{
    error::MasterError,
    keys::Caller,
    metrics::{Kind, Metrics},
};

/// How long all pushes of one request may wait for the bus.
const PUBLISH: Duration = Duration::from_secs(15);

/// How long a question may wait for its answers; slaves that are merely slow are given up earlier, by the bus.
const GATHER: Duration = Duration::from_secs(5);

/// Carries out what callers order and ask.
pub struct Dispatcher {
    bus: Arc<dyn Bus>,
    /// What the permissions of a user may come to, in bytes.
    grants_limit: usize,
    metrics: Metrics,
    /// Has a fault of the bus been logged since it last did its part?
    faulty: AtomicBool,
}

/// What came of a request.
#[derive(Debug)]
pub struct Answer {
    /// It is done, or this is the answer.
    pub done: Done,
    /// Slaves whose part of the answer is missing.
    pub missing: Vec<NodeId>,
}

impl Answer {
    fn whole(done: Done) -> Self {
        Self { done, missing: Vec::new() }
    }
}

impl Dispatcher {
    /// A dispatcher onto `bus`.
    pub fn new(bus: Arc<dyn Bus>, grants_limit: usize, metrics: Metrics) -> Self {
        Self { bus, grants_limit, metrics, faulty: AtomicBool::new(false) }
    }

    /// Do all of `work`, or, if it is refused, nothing. `checked` is what came of [`Dispatcher::check`] with the same
    /// `tenants`; `now`: seconds since 1970.
    ///
    /// # Errors
    ///
    /// What the caller may not do, and faults of the bus: then a part of a batch may have been sent.
    pub async fn carry_out(
        &self,
        caller: &Caller,
        tenants: &Tenants,
        work: Work,
        checked: Result<(), Refusal>,
        now: f64,
    ) -> Result<Answer, MasterError> {
        let kind = match &work {
            Work::Nothing | Work::Exchange(_) => None,
            Work::Publish(envelopes) | Work::PublishAndAsk(envelopes, _) => Some(Kind::Push(match &envelopes[..] {
                [only] => only.command.kind(),
                _ => PushKind::Batch,
            })),
            Work::Ask(ask) => Some(Kind::of(ask)),
            Work::Decode(_) => Some(Kind::DECODE),
        };
        let result = match checked {
            Ok(()) => self.obey(caller, tenants, work, now).await,
            Err(refused) => Err(refused.into()),
        };
        if let Some(kind) = kind {
            self.metrics.worked(kind, &result);
        }
        result
    }

    /// What costs least first: permissions that are too many are refused before they are compared with the caller's own.
    fn fits(&self, envelopes: &[Envelope]) -> Result<(), Refusal> {
        let too_large = |envelope: &Envelope| match &envelope.command {
            Command::Reload { channels, .. } => written(channels) > self.grants_limit,
            _ => false,
        };
        if envelopes.iter().any(too_large) {
            return Err(Refusal::TooLarge {
                what: "a user's permissions (limits.grants)",
                limit: self.grants_limit as u64,
            });
        }
        Ok(())
    }

    /// May `caller` have `work` done? The key's limits first, then the apps: who has no business with an app does not
    /// learn whether it is served. What the key limits in part is cut down to it.
    ///
    /// # Errors
    ///
    /// Any part of it that is refused.
    pub fn check(&self, caller: &Caller, tenants: &Tenants, work: &mut Work) -> Result<(), Refusal> {
        if let Work::Publish(envelopes) | Work::PublishAndAsk(envelopes, _) = &work {
            self.fits(envelopes)?;
        }
        caller.limit(work)?;
        match work {
            Work::Publish(envelopes) => serves_all(tenants, envelopes),
            Work::Ask(ask) => serves_asker(tenants, ask),
            Work::PublishAndAsk(envelopes, ask) => {
                serves_all(tenants, envelopes)?;
                serves_asker(tenants, ask)
            }
            Work::Exchange(_) => Err(Refusal::NotFound),
            Work::Nothing | Work::Decode(_) => Ok(()),
        }
    }

    async fn obey(&self, caller: &Caller, tenants: &Tenants, work: Work, now: f64) -> Result<Answer, MasterError> {
        match work {
            Work::Nothing | Work::Exchange(_) => Ok(Answer::whole(Done::Done)),
            Work::Publish(envelopes) => {
                self.in_time(PUBLISH, self.bus.publish_all(envelopes)).await?;
                Ok(Answer::whole(Done::Done))
            }
            Work::Ask(ask) => self.gather(caller, ask).await,
            Work::PublishAndAsk(envelopes, ask) => {
                self.in_time(PUBLISH, self.bus.publish_all(envelopes)).await?;
                self.gather(caller, ask).await
            }
            Work::Decode(jwt) => {
                let claims = tenants.verify(&jwt, now).map(Box::new);
                match &claims {
                    Ok(claims) => caller.shows(&claims.grant.app)?,
                    Err(why) => self.metrics.bad_token(*why),
                }
                Ok(Answer::whole(Done::Claims(claims)))
            }
        }
    }

    async fn gather(&self, caller: &Caller, ask: Ask) -> Result<Answer, MasterError> {
        let Gathered { mut census, missing } = self.in_time(GATHER, self.bus.gather(ask)).await?;
        caller.filter(&mut census);
        if !missing.is_empty() {
            self.metrics.partial.inc();
        }
        Ok(Answer { done: Done::Census(census), missing })
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

fn serves_asker(tenants: &Tenants, ask: &Ask) -> Result<(), Refusal> {
    match ask {
        Ask::Query { app, .. } | Ask::PublishMatching { app, .. } => serves(tenants, app),
        Ask::Stats | Ask::Redeem { .. } | Ask::Attendance(_) => Ok(()),
    }
}

fn serves(tenants: &Tenants, app: &AppId) -> Result<(), Refusal> {
    if tenants.app(app).is_served() {
        Ok(())
    } else {
        Err(Refusal::Forbidden("that app is not listed, and apps.unlisted = \"refuse\"".into()))
    }
}
