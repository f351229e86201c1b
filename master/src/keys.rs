//! Push keys: who may use the master's API and for what, and the rules without any key.

use std::sync::Arc;

pub use wellhead_proto::push_key::{KeyHash, PushKey};
use wellhead_proto::{
    channel::{ChannelPattern, allowed},
    command::Command,
    dialect::contract::{Headers, MasterRequest, QueryRequest, bearer},
    envelope::Envelope,
    http_api::Head,
    ids::{AppId, ChannelKey, ChannelName},
    local::{is_loopback, passed_on},
    push_key::Right,
    query::{
        AppStats, CountQuery, Listing, MembersQuery, NamesQuery, ResendWebhookQuery, StatesOf, StatesQuery,
        WebhooksQuery,
    },
    refusal::Refusal,
    tenants::Tenants,
};

/// Who may use the routes that need a push key, as long as none is configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keyless {
    /// Programs of this machine, but no request that a browser or a proxy forwards: for a master on a loopback address.
    ThisMachine,
    /// Everybody, because the settings say so.
    Everybody,
    /// Nobody: other credentials protect what other machines can reach.
    Nobody,
}

/// Who calls.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// A caller that no key limits: none is configured, or the route needs none.
    Anyone,
    /// The holder of this key.
    Holder(Arc<PushKey>),
}

/// Who calls, if the caller may use `right` at all. `keyless` says who is served while there is no key; `elsewhere` finds the
/// key of a caller who shows none in `Authorization: Bearer`.
///
/// # Errors
///
/// No key, an unknown one, or one without the right; without any keys: a request that a browser or a proxy sent on.
pub fn admit(
    tenants: &Tenants,
    keyless: Keyless,
    head: Head<'_>,
    right: Right,
    elsewhere: impl FnOnce() -> Option<String>,
) -> Result<Caller, Refusal> {
    match keyless {
        _ if !tenants.is_keyless() => match bearer(head.headers) {
            Some(shown) => holder(tenants, shown, right),
            None => holder(tenants, &elsewhere().ok_or(Refusal::CredentialsMissing)?, right),
        },
        Keyless::ThisMachine => local(head).map(|()| Caller::Anyone),
        Keyless::Everybody => Ok(Caller::Anyone),
        Keyless::Nobody => Err(Refusal::CredentialsMissing),
    }
}

/// Like [`admit`], but without any keys nobody is let in.
///
/// # Errors
///
/// See there.
pub fn admit_holder(tenants: &Tenants, headers: &dyn Headers, right: Right) -> Result<Caller, Refusal> {
    if tenants.is_keyless() {
        return Err(Refusal::CredentialsMissing);
    }
    holder(tenants, bearer(headers).ok_or(Refusal::CredentialsMissing)?, right)
}

fn holder(tenants: &Tenants, shown: &str, right: Right) -> Result<Caller, Refusal> {
    let key = tenants.push_key(shown).ok_or(Refusal::CredentialsInvalid)?;
    if key.rights.contains(&right) {
        Ok(Caller::Holder(key.clone()))
    } else {
        Err(Refusal::Forbidden(format!("this push key has no right to {}", right.label()).into()))
    }
}

impl Caller {
    /// Is `request` within what the caller's key is for? What the key limits in part (channels that are asked for or
    /// pushed to by pattern, users, permissions that are replaced) is cut down to it.
    ///
    /// # Errors
    ///
    /// Any part of it that is not: then none of it may be done.
    pub fn limit(&self, request: &mut MasterRequest) -> Result<(), Refusal> {
        let Self::Holder(key) = self else { return Ok(()) };
        match request {
            MasterRequest::Publish { envelopes, .. } => key.sends(envelopes),
            MasterRequest::PublishAndQuery { envelopes, query, .. } => {
                key.sends(envelopes)?;
                key.asks_for_states(query)
            }
            MasterRequest::PublishMatching { push, .. } => {
                push.within.clone_from(&key.channels);
                key.serves(&push.app)
            }
            MasterRequest::Reload { app, within, channels, .. } => {
                key.serves(app)?;
                key.reloads(within, channels)
            }
            MasterRequest::Query(query) => key.asks(query),
            MasterRequest::PublishIfOccupied { channel: ChannelKey { app, name }, envelope, .. } => {
                key.serves(app)?;
                key.reaches(name)?;
                key.sends(envelope.as_mut_slice())
            }
            MasterRequest::MintToken { app, channel, .. } => {
                key.serves(app)?;
                channel.as_ref().map_or(Ok(()), |channel| key.reaches(channel))
            }
            // limited by what it answers
            MasterRequest::Answer(_) | MasterRequest::Decode { .. } => Ok(()),
        }
    }

    /// May the caller see what concerns `app`?
    ///
    /// # Errors
    ///
    /// The caller's key is for other apps.
    pub fn shows(&self, app: &AppId) -> Result<(), Refusal> {
        match self {
            Self::Anyone => Ok(()),
            Self::Holder(key) => key.serves(app),
        }
    }

    /// Those of `apps` that the caller's key is for; none, if it is for no channel.
    #[must_use]
    pub fn shown_of(&self, mut apps: AppStats) -> AppStats {
        if let Self::Holder(key) = self {
            apps.retain(|app, _| !key.channels.is_empty() && key.serves(app).is_ok());
        }
        apps
    }

    /// The name of the caller's key, for logs.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Anyone => "-",
            Self::Holder(key) => &key.name,
        }
    }
}

/// What a push key reaches.
trait Reach {
    fn serves(&self, app: &AppId) -> Result<(), Refusal>;
    fn sends(&self, envelopes: &mut [Envelope]) -> Result<(), Refusal>;
    fn asks(&self, query: &mut QueryRequest) -> Result<(), Refusal>;
    fn lists(&self, of: &mut Listing) -> Result<(), Refusal>;
    fn asks_for_states(&self, query: &StatesQuery) -> Result<(), Refusal>;
    fn is_for_all(&self) -> bool;
    fn reaches(&self, channel: &ChannelName) -> Result<(), Refusal>;
    fn covers(&self, command: &mut Command) -> Result<(), Refusal>;
    fn reloads(&self, within: &mut Vec<ChannelPattern>, channels: &[ChannelPattern]) -> Result<(), Refusal>;
    fn grants(&self, channel: &ChannelPattern) -> Result<(), Refusal>;
}

impl Reach for PushKey {
    fn serves(&self, app: &AppId) -> Result<(), Refusal> {
        if self.apps.iter().any(|own| own == "*" || own == app.as_str()) {
            Ok(())
        } else {
            Err(Refusal::Forbidden("this push key is not for that app".into()))
        }
    }

    fn sends(&self, envelopes: &mut [Envelope]) -> Result<(), Refusal> {
        envelopes.iter_mut().try_for_each(|envelope| {
            self.serves(&envelope.app)?;
            self.covers(&mut envelope.command)
        })
    }

    fn asks(&self, query: &mut QueryRequest) -> Result<(), Refusal> {
        match query {
            QueryRequest::Names(NamesQuery { app, of }, _) | QueryRequest::Count(CountQuery { app, of }, _) => {
                self.serves(app)?;
                self.lists(of)
            }
            QueryRequest::States(query, _) => self.asks_for_states(query),
            QueryRequest::Members(MembersQuery { app, channel }, _) => {
                self.serves(app)?;
                self.reaches(channel)
            }
            QueryRequest::Webhooks(WebhooksQuery { app }, _) => self.serves(app),
            QueryRequest::ResendWebhook(ResendWebhookQuery { app, .. }, _) => {
                self.serves(app)?;
                match self.is_for_all() {
                    true => Ok(()),
                    false => Err(Refusal::Forbidden("this push key is not for every channel".into())),
                }
            }
            // limited by what it answers
            QueryRequest::Stats(..) => Ok(()),
        }
    }

    fn lists(&self, of: &mut Listing) -> Result<(), Refusal> {
        match of {
            Listing::Channels(within) => within.clone_from(&self.channels),
            Listing::Users { .. } if self.is_for_all() => {}
            Listing::Users { within } => *within = Some(self.channels.clone()),
            Listing::UsersOf(channel) => self.reaches(channel)?,
        }
        Ok(())
    }

    fn asks_for_states(&self, StatesQuery { app, of, .. }: &StatesQuery) -> Result<(), Refusal> {
        self.serves(app)?;
        match of {
            StatesOf::Named(channels) => channels.iter().try_for_each(|channel| self.reaches(channel)),
            StatesOf::Under(_) if self.is_for_all() => Ok(()),
            StatesOf::Under(_) => Err(Refusal::Forbidden("this push key is not for every channel".into())),
        }
    }

    fn is_for_all(&self) -> bool {
        self.channels.iter().any(ChannelPattern::is_everything)
    }

    fn reaches(&self, channel: &ChannelName) -> Result<(), Refusal> {
        if allowed(&self.channels, channel) {
            Ok(())
        } else {
            Err(Refusal::Forbidden("this push key is not for that channel".into()))
        }
    }

    fn covers(&self, command: &mut Command) -> Result<(), Refusal> {
        match command {
            Command::Publish { channel, .. } => self.reaches(channel),
            Command::Direct { .. } | Command::DirectEvent { .. } | Command::WithinDialect { .. }
                if self.is_for_all() =>
            {
                Ok(())
            }
            Command::Direct { .. } | Command::DirectEvent { .. } | Command::WithinDialect { .. } => {
                Err(Refusal::Forbidden("pushes to users and sockets need a push key for all channels (\"*\")".into()))
            }
            Command::Reload { within, channels, .. } => self.reloads(within, channels),
            Command::Grant { channel, .. } => self.grants(channel),
            Command::Terminate { .. } if self.is_for_all() => Ok(()),
            Command::Terminate { .. } => {
                Err(Refusal::Forbidden("closing sockets needs a push key for all channels (\"*\")".into()))
            }
        }
    }

    /// Only what lies within the key's own channels is replaced, and only by what they cover.
    fn reloads(&self, within: &mut Vec<ChannelPattern>, channels: &[ChannelPattern]) -> Result<(), Refusal> {
        within.clone_from(&self.channels);
        channels.iter().try_for_each(|channel| self.grants(channel))
    }

    fn grants(&self, channel: &ChannelPattern) -> Result<(), Refusal> {
        if self.channels.iter().any(|own| own.covers(channel)) {
            Ok(())
        } else {
            Err(Refusal::Forbidden("this push key cannot grant that channel: its own do not cover it".into()))
        }
    }
}

/// Without keys, only programs of this machine are served: a page in a local browser could otherwise push with a plain
/// form, or through a name that it makes resolve to 127.0.0.1, and a proxy would open the API to everybody.
fn local(head: Head<'_>) -> Result<(), Refusal> {
    const REMEDY: &str = "; this master has no push keys and serves local programs only: configure [[push_keys]]";
    let refuse = |what: &str| Err(Refusal::Forbidden(format!("{what}{REMEDY}").into()));
    let headers = head.headers;
    if let Some(why) = passed_on(head) {
        return refuse(why);
    }
    let host = headers.header("host").unwrap_or_default();
    if !is_loopback(host) {
        return refuse("the Host is not loopback");
    }
    if let Some(origin) = headers.header("origin")
        && !origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    {
        return refuse("a page of another origin asks");
    }
    if headers.header("sec-fetch-site").is_some_and(|site| site.trim().eq_ignore_ascii_case("cross-site")) {
        return refuse("a page of another site asks");
    }
    Ok(())
}
