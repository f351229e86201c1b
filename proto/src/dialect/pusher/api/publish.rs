//! Publishing: one event to several channels, or several to one each (pusher.md §1.3, §1.4).

use std::{borrow::Cow, collections::HashSet};

use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    command::Command,
    dialect::{
        contract::MasterRequest,
        pusher::{AppLimits, json::text, names},
    },
    envelope::Envelope,
    event::{Event, Payload, quote},
    ids::{AppId, ChannelName, NodeId, SocketId, UserId},
    query::{ChannelState, ChannelStates},
    refusal::Refusal,
};

use super::{
    SignedRequest, bad,
    body::{field, list, object},
    info::Info,
    json,
};

/// An event as a backend writes it. `null` is as good as nothing, unknown fields are ignored.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channels: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    socket_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BatchBody<'a> {
    #[serde(borrow, default)]
    batch: Option<&'a RawValue>,
}

/// Where an event goes.
#[derive(Clone)]
enum Addressee {
    Channel(ChannelName),
    /// All sockets that have signed in as this user; it is written as a channel, too.
    User(UserId),
}

/// An event that may be published.
struct CheckedEvent {
    event: Event,
    /// Each once.
    addressees: Vec<Addressee>,
    except: Option<SocketId>,
    info: Option<Info>,
}

/// `POST /apps/{id}/events`.
pub fn event(request: &SignedRequest<'_>) -> Result<MasterRequest, Refusal> {
    let SignedRequest { app, body, .. } = request;
    let limits = &app.limits;
    let written: Written<'_> = object(body, "The body")?;
    let addressees = match (written.channels, field("channel", written.channel)?) {
        (Some(names), _) => many(names, limits)?,
        (None, Some(name)) => vec![named(&name, limits)?],
        (None, None) => return Err(bad("channels or channel is missing")),
    };
    let checked = check(written, addressees, limits)?;
    let app = &app.key;
    let Some(info) = checked.info else {
        return Ok(MasterRequest::publish(checked.envelopes(app), || json("{}")));
    };
    let addressees = checked.addressees.clone();
    let query = info.query(app, addressees.iter().filter_map(Addressee::channel).cloned().collect());
    let reply = move |states| json(format!(r#"{{"channels":{{{}}}}}"#, entries(info, &addressees, &states)));
    Ok(MasterRequest::PublishAndQuery { envelopes: checked.envelopes(app), query, reply: Box::new(reply) })
}

/// `POST /apps/{id}/batch_events`: all of them or none.
pub fn batch(request: &SignedRequest<'_>) -> Result<MasterRequest, Refusal> {
    let SignedRequest { app, body, .. } = request;
    let (app, limits) = (&app.key, &app.limits);
    let BatchBody { batch } = object(body, "The body")?;
    let batch = batch.ok_or_else(|| bad("batch is missing"))?;
    let events: Vec<&RawValue> = list(batch, limits.batch)
        .map_err(|_| bad("batch must be a list of events"))?
        .ok_or_else(|| bad(format!("Batch too large: it may have {} events", limits.batch)))?;
    let mut checked = Vec::with_capacity(events.len());
    for (number, event) in events.into_iter().enumerate() {
        checked.push(element(event, limits).map_err(|why| in_batch(number, why))?);
    }
    if checked.iter().all(|event| event.info.is_none()) {
        let envelopes = checked.into_iter().flat_map(|event| event.envelopes(app)).collect();
        return Ok(MasterRequest::publish(envelopes, || json("{}")));
    }
    let asked: Vec<_> = checked.iter().map(|event| (event.info, event.addressees.clone())).collect();
    let of = asked.iter().filter(|(info, _)| info.is_some()).flat_map(|(_, of)| of);
    let of: HashSet<_> = of.filter_map(Addressee::channel).collect();
    let every =
        Info { users: checked.iter().any(|event| event.info.is_some_and(|info| info.users)), ..Info::default() };
    let mut of: Vec<_> = of.into_iter().cloned().collect();
    of.sort();
    let query = every.query(app, of);
    let envelopes = checked.into_iter().flat_map(|event| event.envelopes(app)).collect();
    let reply = move |states| {
        let shown = asked.iter().map(|(info, of)| {
            let fields = info.zip(of.first()).map(|(info, of)| attributes(info, of, &states));
            format!("{{{}}}", fields.unwrap_or_default())
        });
        json(format!(r#"{{"batch":[{}]}}"#, shown.collect::<Vec<_>>().join(",")))
    };
    Ok(MasterRequest::PublishAndQuery { envelopes, query, reply: Box::new(reply) })
}

fn element(event: &RawValue, limits: &AppLimits) -> Result<CheckedEvent, Refusal> {
    let written: Written<'_> = object(event.get().as_bytes(), "An event")?;
    let channel = field("channel", written.channel)?.ok_or_else(|| bad("channel is missing"))?;
    let addressees = vec![named(&channel, limits)?];
    check(written, addressees, limits)
}

/// Which event of a batch it was.
fn in_batch(number: usize, why: Refusal) -> Refusal {
    let at = |text: &str| Cow::from(format!("Event {} of the batch: {text}", number + 1));
    match why {
        Refusal::Coded { code, reason, text } => Refusal::Coded { code, reason, text: at(&text) },
        Refusal::Malformed(text) => Refusal::Malformed(at(&text)),
        why => why,
    }
}

/// Everything but the channels.
fn check(written: Written<'_>, addressees: Vec<Addressee>, limits: &AppLimits) -> Result<CheckedEvent, Refusal> {
    let name = field("name", written.name)?.filter(|name| !name.is_empty()).ok_or_else(|| bad("name is missing"))?;
    if name.chars().count() > limits.event_name {
        return Err(bad(format!("name is too long: it may have {} characters", limits.event_name)));
    }
    let name = (&*name).try_into().map_err(|why| bad(format!("name: {why}")))?;
    let data = written.data.ok_or_else(|| bad("data is missing"))?;
    let data = text(data).ok_or_else(|| bad("data must be a string (of JSON, usually)"))?;
    let most = limits.event_data.bytes();
    if data.len() > most {
        let text = format!("The data content of this event exceeds the allowed maximum ({most} bytes)");
        return Err(Refusal::Coded { code: 413, reason: "too_large", text: text.into() });
    }
    let except = match field("socket_id", written.socket_id)? {
        Some(id) => socket(&id).ok_or_else(|| bad("Invalid socket id: two numbers joined by a dot are one"))?,
        None => None,
    };
    let info = field("info", written.info)?.map(|list| Info::of(&list));
    let event = Event::new(name, Payload::Text(ByteString::from(data.into_owned())));
    Ok(CheckedEvent { event, addressees, except, info })
}

impl CheckedEvent {
    fn envelopes(self, app: &AppId) -> Vec<Envelope> {
        let Self { event, addressees, except, .. } = self;
        let envelope = |addressee| {
            let event = event.clone();
            let command = match addressee {
                Addressee::Channel(channel) => Command::Publish { channel, event, except },
                Addressee::User(user) => Command::DirectEvent { user, event, except },
            };
            Envelope { app: app.clone(), command }
        };
        addressees.into_iter().map(envelope).collect()
    }
}

impl Addressee {
    fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Channel(channel) => Some(channel),
            Self::User(_) => None,
        }
    }

    /// As the backend wrote it.
    fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Channel(channel) => channel.as_str().into(),
            Self::User(user) => names::channel_of(user.as_str()).into(),
        }
    }
}

fn named(name: &str, limits: &AppLimits) -> Result<Addressee, Refusal> {
    match names::user_of(name) {
        Some(id) => names::user(id, limits.presence_id).map(Addressee::User).map_err(bad),
        None => names::channel(name, limits.channel_name.bytes()).map(Addressee::Channel).map_err(bad),
    }
}

/// Each name once, in the order in which they came.
fn many(names: &RawValue, limits: &AppLimits) -> Result<Vec<Addressee>, Refusal> {
    let names: Vec<Cow<'_, str>> = list(names, limits.channels_per_event)
        .map_err(|_| bad("channels must be a list of names"))?
        .ok_or_else(|| bad(format!("Too many channels: an event may name {}", limits.channels_per_event)))?;
    if names.is_empty() {
        return Err(bad("channels is empty"));
    }
    if let [name] = &names[..] {
        return Ok(vec![named(name, limits)?]);
    }
    let mut seen = HashSet::with_capacity(names.len());
    names.iter().filter(|name| seen.insert(&***name)).map(|name| named(name, limits)).collect()
}

/// The socket that an id names. Not everything that looks like an id is one of ours: nobody is left out then.
///
/// `None`: it does not even look like one.
fn socket(id: &str) -> Option<Option<SocketId>> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (node, counter) = id.split_once('.').filter(|(node, counter)| digits(node) && digits(counter))?;
    let ours = || {
        let socket = SocketId::new(NodeId::try_from(node.parse::<u32>().ok()?).ok()?, counter.parse().ok()?);
        (socket.to_string() == id).then_some(socket)
    };
    Some(ours())
}

/// What is asked of a channel; none of it applies to a user.
fn attributes(info: Info, of: &Addressee, states: &ChannelStates) -> String {
    let nobody = ChannelState::default();
    let of_channel = |name: &ChannelName| info.write(name.as_str(), states.get(name.as_str()).unwrap_or(&nobody));
    of.channel().map(of_channel).unwrap_or_default()
}

fn entries(info: Info, addressees: &[Addressee], states: &ChannelStates) -> String {
    let entry = |of: &Addressee| format!("{}:{{{}}}", quote(&of.name()), attributes(info, of, states));
    addressees.iter().map(entry).collect::<Vec<_>>().join(",")
}
