//! What the routes of v1 and v3 share: from names and payloads to what the master is to do, and from what came of it to a
//! reply.

use serde_json::value::RawValue;

use crate::{
    channel::ChannelPattern,
    command::{Command, PublishMatching, Target},
    dialect::contract::{ApiCall, ApiReply, MasterRequest, QueryRequest},
    envelope::Envelope,
    event::{Event, Payload, escaped, quote},
    ids::{AppId, BadName, ChannelName, SocketIdSeal, UserId},
    jwt::Claims,
    matcher::Matcher,
    query::{AppStats, CountQuery, Listing, NameHashes, Names, NamesQuery, StatsQuery},
    refusal::Refusal,
};

use super::JSON;

/// The most items that a batch may have, and entries that a permission list may have: far more than backends send, few
/// enough that a body of the shortest ones does not grow to a hundred times its size in memory.
pub const MAX_ITEMS: usize = 1 << 18;

/// A refusal with one of the API's texts.
pub fn malformed(words: &'static str) -> Refusal {
    Refusal::Malformed(words.into())
}

/// A refusal that says which name is too long.
pub fn bad_name(bad: BadName) -> Refusal {
    Refusal::Malformed(bad.to_string().into())
}

/// The segments of the path, none of them empty: the original has no such paths.
pub fn segments<'a, const N: usize>(call: &'a ApiCall<'_>) -> Result<[&'a str; N], Refusal> {
    let mut segments = [""; N];
    if call.segments.len() != N || call.segments.iter().any(String::is_empty) {
        return Err(Refusal::NotFound);
    }
    for (place, segment) in segments.iter_mut().zip(&call.segments) {
        *place = segment;
    }
    Ok(segments)
}

/// An app as the path names it.
pub fn app(name: &str) -> Result<AppId, Refusal> {
    name.parse().map_err(bad_name)
}

/// A reply with a JSON body.
pub fn json(body: String) -> ApiReply {
    ApiReply::new(200, JSON, body)
}

/// Publish to one channel, and echo what is delivered there.
pub fn push_channel(app: AppId, channel: &str, event: &str, data: Payload) -> Result<MasterRequest, Refusal> {
    let channel: ChannelName = channel.parse().map_err(bad_name)?;
    let event = Event::new(event.parse().map_err(bad_name)?, data);
    let (shown, echo) = (channel.clone(), event.clone());
    let envelope = Envelope { app, command: Command::Publish { channel, event, except: None } };
    Ok(MasterRequest::publish(vec![envelope], move || {
        let (channel, event, data) = (escaped(shown.as_str()), escaped(echo.name.as_str()), echo.data.to_json());
        json([r#"{"channel":""#, &channel, r#"","event":""#, &event, r#"","data":"#, &data, "}"].concat())
    }))
}

/// Publish to every channel that `pattern` matches; `data` is looked at last, as in the original.
pub fn push_pattern(
    app: AppId,
    pattern: String,
    event: &str,
    data: impl FnOnce() -> Result<Payload, Refusal>,
) -> Result<MasterRequest, Refusal> {
    if pattern.is_empty() || event.is_empty() {
        return Err(malformed("empty param"));
    }
    Matcher::compile(&pattern).map_err(|_| malformed("channel_pattern cant regex"))?;
    let event = Event::new(event.parse().map_err(bad_name)?, data()?);
    let shown = quote(&pattern);
    let within = vec![ChannelPattern::everything()];
    let reply = move |total| json(format!(r#"{{"total":{total},"pattern":{shown}}}"#));
    let push = PublishMatching { app, pattern, within, event };
    Ok(MasterRequest::PublishMatching { push, reply: Box::new(reply) })
}

/// What a JSON body says as `data`; nothing is `null`.
pub fn payload(data: Option<&RawValue>) -> Payload {
    data.map_or_else(Payload::null, Payload::from_raw)
}

/// Channel pushes of one request, in order.
pub struct PushBatch {
    app: AppId,
    items: usize,
    envelopes: Vec<Envelope>,
}

impl PushBatch {
    /// None yet, of a body of so many bytes.
    pub fn new(app: AppId, bytes: usize) -> Self {
        // a guess that spares most batches the growing, and no more
        Self { app, items: 0, envelopes: Vec::with_capacity((bytes / 128).clamp(1, 256)) }
    }

    /// One more, if its names are names.
    pub fn add(&mut self, channel: &str, event: &str, data: Option<&RawValue>) -> Result<(), &'static str> {
        self.items += 1;
        if self.items > MAX_ITEMS {
            return Err("too many items");
        }
        let channel: ChannelName = channel.try_into().map_err(|_| "channel name too long")?;
        // often one event goes to many channels: then they share it
        let last = match self.envelopes.last() {
            Some(Envelope { command: Command::Publish { event, .. }, .. }) => Some(event),
            _ => None,
        };
        let name = match last {
            Some(last) if last.name.as_str() == event => last.name.clone(),
            _ => event.try_into().map_err(|_| "event name too long")?,
        };
        // nobody can be on the channel without a name
        if !channel.as_str().is_empty() {
            let data = match (last, data) {
                (Some(Event { data: Payload::Json(last), .. }), Some(data)) if **last == *data.get() => {
                    Payload::Json(last.clone())
                }
                _ => payload(data),
            };
            let command = Command::Publish { channel, event: Event::new(name, data), except: None };
            self.envelopes.push(Envelope { app: self.app.clone(), command });
        }
        Ok(())
    }

    /// What the request comes down to; its reply counts the items.
    pub fn task(self, reply: impl FnOnce(usize) -> String + Send + 'static) -> MasterRequest {
        let items = self.items;
        MasterRequest::publish(self.envelopes, move || json(reply(items)))
    }
}

/// A payload for every socket of a user; `echo` is its `data` in the reply.
pub fn push_user(app: AppId, user: &str, data: Payload, echo: impl EchoText) -> Result<MasterRequest, Refusal> {
    let to = Target::User(user.parse().map_err(bad_name)?);
    let envelopes = vec![Envelope { app, command: Command::Direct { to, data } }];
    Ok(echoed(envelopes, "user_id", user, echo))
}

/// A payload for one socket. An id that nobody holds gets 200 like any other; nothing is sent.
pub fn push_socket(app: AppId, socket: &str, data: Payload, echo: impl EchoText, seal: &SocketIdSeal) -> MasterRequest {
    let envelope = |socket| Envelope { app, command: Command::Direct { to: Target::Socket(socket), data } };
    echoed(seal.read(socket).ok().map(envelope).into_iter().collect(), "socket_id", socket, echo)
}

/// New permissions for a user. The reply shows those that were sent, or, if the caller could replace a part only,
/// those that are in force now: a list that `written` puts where `data` stands.
pub fn reload(
    app: AppId,
    user: &str,
    channels: Vec<ChannelPattern>,
    echo: impl EchoText,
    written: fn(String) -> String,
) -> Result<MasterRequest, Refusal> {
    let shown = quote(user);
    let reply = move |in_force: Option<Names>| {
        let data = match in_force {
            Some(in_force) => written(list(in_force.iter().map(String::as_str))),
            None => echo(),
        };
        json(format!(r#"{{"user_id":{shown},"data":{data}}}"#))
    };
    let (user, within) = (user.parse().map_err(bad_name)?, vec![ChannelPattern::everything()]);
    Ok(MasterRequest::Reload { app, user, within, channels, reply: Box::new(reply) })
}

/// One more permission for a user.
pub fn grant(app: AppId, user: &str, channel: String) -> Result<MasterRequest, Refusal> {
    let user_id: UserId = user.parse().map_err(bad_name)?;
    let command = Command::Grant { user: user_id, channel: channel.as_str().try_into().map_err(bad_name)? };
    Ok(echoed(vec![Envelope { app, command }], "user_id", user, move || quote(&channel)))
}

/// Writes the JSON that a reply shows as its `data`: only once the work is done, since it may be large.
pub trait EchoText: FnOnce() -> String + Send + 'static {}
impl<F: FnOnce() -> String + Send + 'static> EchoText for F {}

/// `{"user_id","data"}` or `{"socket_id","data"}`.
fn echoed(envelopes: Vec<Envelope>, key: &'static str, name: &str, echo: impl EchoText) -> MasterRequest {
    let name = quote(name);
    MasterRequest::publish(envelopes, move || json(format!(r#"{{"{key}":{name},"data":{}}}"#, echo())))
}

/// `GET …/channels`.
pub fn channels(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app] = segments(call)?;
    names(app, Listing::Channels(vec![ChannelPattern::everything()]))
}

/// `GET …/channels/count`.
pub fn channel_count(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app] = segments(call)?;
    count(app, Listing::Channels(vec![ChannelPattern::everything()]))
}

/// `GET …/online`, v3: `GET …/users`.
pub fn users(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app] = segments(call)?;
    names(app, Listing::Users { within: None })
}

/// The same with `/count`.
pub fn user_count(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app] = segments(call)?;
    count(app, Listing::Users { within: None })
}

/// `GET …/online/bychannel/{channel}`, v3: `GET …/channels/{channel}/users`.
pub fn users_of(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app, channel] = segments(call)?;
    names(app, Listing::UsersOf(channel.parse().map_err(bad_name)?))
}

/// The same with `/count`.
pub fn user_count_of(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app, channel] = segments(call)?;
    count(app, Listing::UsersOf(channel.parse().map_err(bad_name)?))
}

/// A list of names.
fn names(app_name: &str, of: Listing) -> Result<MasterRequest, Refusal> {
    let query = NamesQuery { app: app(app_name)?, of };
    let reply = |names: Names| json(list(names.iter().map(String::as_str)));
    Ok(MasterRequest::Query(QueryRequest::Names(query, Box::new(reply))))
}

/// How many there are.
fn count(app_name: &str, of: Listing) -> Result<MasterRequest, Refusal> {
    let query = CountQuery { app: app(app_name)?, of };
    let reply = |hashes: NameHashes| json(format!(r#"{{"count":{}}}"#, hashes.len()));
    Ok(MasterRequest::Query(QueryRequest::Count(query, Box::new(reply))))
}

/// Sizes of all apps.
pub fn stats(reply: impl FnOnce(&AppStats) -> String + Send + 'static) -> MasterRequest {
    MasterRequest::Query(QueryRequest::Stats(StatsQuery, Box::new(move |apps| json(reply(&apps)))))
}

/// What a JWT says; `end` stands after it.
pub fn decode(jwt: String, end: &'static str, refuse: fn() -> ApiReply) -> MasterRequest {
    let reply = move |claims: Result<Box<Claims>, _>| match claims {
        Ok(claims) => json(shown(&claims) + end),
        Err(_) => refuse(),
    };
    MasterRequest::Decode { jwt, reply: Box::new(reply) }
}

/// The claims in the original's order.
fn shown(claims: &Claims) -> String {
    let grant = &claims.grant;
    let channels = list(grant.channels.iter().map(ChannelPattern::as_str));
    let (user, app) = (quote(grant.user.as_str()), quote(grant.app.as_str()));
    let remotes = serde_json::to_string(&grant.remotes).expect("names and booleans are always JSON");
    let mut shown =
        format!(r#"{{"gusher":{{"channels":{channels},"user_id":{user},"app_key":{app},"remotes":{remotes}}}"#);
    let date = |date: &crate::jwt::NumericDate| serde_json::to_string(date).expect("a number is always JSON");
    let raw = |value: &Option<Box<RawValue>>| value.as_ref().map(|value| value.get().to_owned());
    let registered = [
        ("aud", raw(&claims.aud)),
        ("exp", claims.exp.as_ref().map(date)),
        ("jti", raw(&claims.jti)),
        ("iat", raw(&claims.iat)),
        ("iss", raw(&claims.iss)),
        ("nbf", claims.nbf.as_ref().map(date)),
        ("sub", raw(&claims.sub)),
    ];
    for (name, value) in registered {
        if let Some(value) = value {
            shown += &format!(r#","{name}":{value}"#);
        }
    }
    shown.push('}');
    shown
}

/// A JSON list of strings.
pub fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(quote).collect();
    format!("[{}]", names.join(","))
}
