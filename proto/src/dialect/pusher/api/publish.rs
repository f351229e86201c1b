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
    ids::{AppId, ChannelName, NodeId, SocketId},
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

/// An event that may be published.
struct CheckedEvent {
    event: Event,
    /// Each once.
    channels: Vec<ChannelName>,
    except: Option<SocketId>,
    info: Option<Info>,
}

/// `POST /apps/{id}/events`.
pub fn event(request: &SignedRequest<'_>) -> Result<MasterRequest, Refusal> {
    let SignedRequest { app, body, .. } = request;
    let limits = &app.limits;
    let written: Written<'_> = object(body, "The body")?;
    let channels = match (written.channels, field("channel", written.channel)?) {
        (Some(names), _) => many(names, limits)?,
        (None, Some(name)) => vec![named(&name, limits)?],
        (None, None) => return Err(bad("channels or channel is missing")),
    };
    let checked = check(written, channels, limits)?;
    let app = &app.key;
    let Some(info) = checked.info else {
        return Ok(MasterRequest::publish(checked.envelopes(app), || json("{}")));
    };
    let channels = checked.channels.clone();
    let query = info.query(app, channels.clone());
    let reply = move |states| json(format!(r#"{{"channels":{{{}}}}}"#, entries(info, &channels, &states)));
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
    let asked: Vec<_> = checked.iter().map(|event| (event.info, event.channels.clone())).collect();
    let of: HashSet<_> = asked.iter().filter(|(info, _)| info.is_some()).flat_map(|(_, names)| names).collect();
    let every =
        Info { users: checked.iter().any(|event| event.info.is_some_and(|info| info.users)), ..Info::default() };
    let mut of: Vec<_> = of.into_iter().cloned().collect();
    of.sort();
    let query = every.query(app, of);
    let envelopes = checked.into_iter().flat_map(|event| event.envelopes(app)).collect();
    let reply = move |states| {
        let shown = asked.iter().map(|(info, names)| {
            let fields = info.zip(names.first()).map(|(info, name)| attributes(info, name, &states));
            format!("{{{}}}", fields.unwrap_or_default())
        });
        json(format!(r#"{{"batch":[{}]}}"#, shown.collect::<Vec<_>>().join(",")))
    };
    Ok(MasterRequest::PublishAndQuery { envelopes, query, reply: Box::new(reply) })
}

fn element(event: &RawValue, limits: &AppLimits) -> Result<CheckedEvent, Refusal> {
    let written: Written<'_> = object(event.get().as_bytes(), "An event")?;
    let channel = field("channel", written.channel)?.ok_or_else(|| bad("channel is missing"))?;
    let channels = vec![named(&channel, limits)?];
    check(written, channels, limits)
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
fn check(written: Written<'_>, channels: Vec<ChannelName>, limits: &AppLimits) -> Result<CheckedEvent, Refusal> {
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
    Ok(CheckedEvent { event, channels, except, info })
}

impl CheckedEvent {
    fn envelopes(self, app: &AppId) -> Vec<Envelope> {
        let Self { event, channels, except, .. } = self;
        let envelope = |channel| {
            let command = Command::Publish { channel, event: event.clone(), except };
            Envelope { app: app.clone(), command }
        };
        channels.into_iter().map(envelope).collect()
    }
}

fn named(name: &str, limits: &AppLimits) -> Result<ChannelName, Refusal> {
    names::channel(name, limits.channel_name.bytes()).map_err(bad)
}

/// Each name once, in the order in which they came.
fn many(names: &RawValue, limits: &AppLimits) -> Result<Vec<ChannelName>, Refusal> {
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

fn attributes(info: Info, name: &ChannelName, states: &ChannelStates) -> String {
    let nobody = ChannelState::default();
    info.write(name.as_str(), states.get(name.as_str()).unwrap_or(&nobody))
}

fn entries(info: Info, channels: &[ChannelName], states: &ChannelStates) -> String {
    let entry = |name: &ChannelName| format!("{}:{{{}}}", quote(name.as_str()), attributes(info, name, states));
    channels.iter().map(entry).collect::<Vec<_>>().join(",")
}
