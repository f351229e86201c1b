//! Frames of the server (pusher.md §2.2): `data` of what Pusher itself says is a string of JSON, that of an error is an
//! object, that of a published event is what its publisher wrote.

use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    dialect::pusher::{
        json::{object, text},
        names::channel_of,
    },
    event::{Event, Payload, Sender, quote},
    frame::{Frame, Opcode},
    ids::{ChannelName, SocketId, UserId},
    member::MemberChange,
    notice::Notice,
};

/// The first frame of all.
pub fn established(socket: SocketId, activity_timeout: Duration) -> Frame {
    // pusher-js gives up on a server that sends 0
    let seconds = activity_timeout.as_secs().max(1);
    let data = format!(r#"{{"socket_id":"{socket}","activity_timeout":{seconds}}}"#);
    Frame::text(&format!(r#"{{"event":"pusher:connection_established","data":{}}}"#, quote(&data)))
}

/// The answer to `pusher:ping`.
pub fn pong() -> Frame {
    Frame::text(r#"{"event":"pusher:pong","data":"{}"}"#)
}

/// A refusal. Most have no code.
pub fn error(code: Option<u16>, message: &str) -> Frame {
    let code = code.map_or("null".to_owned(), |code| code.to_string());
    let message = quote(message);
    Frame::text(&format!(r#"{{"event":"pusher:error","data":{{"code":{code},"message":{message}}}}}"#))
}

/// What a client said, as far as a refusal quotes it: who does not read should not hold more than it sent.
pub fn quoted(said: &str) -> String {
    const MOST: usize = 2_000;
    match said.floor_char_boundary(MOST) {
        end if end == said.len() => said.to_owned(),
        end => format!("{}… ({} bytes)", &said[..end], said.len()),
    }
}

/// Why a subscription is refused. Libraries tell the application's channel only of the second frame.
#[derive(Debug, Eq, PartialEq)]
pub struct NotSubscribed {
    /// Why, for logs and metrics.
    pub reason: &'static str,
    kind: &'static str,
    status: u16,
    words: String,
}

impl NotSubscribed {
    /// Its credentials do not prove that it may.
    pub fn unauthorized(reason: &'static str, words: impl Into<String>) -> Self {
        Self { reason, kind: "AuthError", status: 401, words: words.into() }
    }

    /// Nobody may.
    pub fn malformed(words: impl Into<String>) -> Self {
        Self { reason: "malformed", kind: "InvalidSubscription", status: 400, words: words.into() }
    }

    /// There is no room.
    pub fn limit(words: impl Into<String>) -> Self {
        Self { reason: "too_large", kind: "LimitReached", status: 403, words: words.into() }
    }

    /// What the client is told.
    pub fn told(&self, channel: &str) -> Frame {
        let Self { kind, status, words, .. } = self;
        let (channel, quoted) = (quote(channel), quote(words));
        let of_channel = format!(
            r#"{{"event":"pusher:subscription_error","channel":{channel},"data":{{"type":"{kind}","error":{quoted},"status":{status}}}}}"#
        );
        error(None, words).then(Frame::text(&of_channel))
    }
}

/// The socket is that of the user of `user_data`, the exact text that was signed.
pub fn signed_in(user_data: &str) -> Frame {
    let data = format!(r#"{{"user_data":{}}}"#, quote(user_data));
    Frame::text(&format!(r#"{{"event":"pusher:signin_success","data":{}}}"#, quote(&data)))
}

/// The socket is on a channel.
pub fn succeeded(channel: &str) -> Frame {
    internal("subscription_succeeded", channel, "{}")
}

/// The same, and these are its members.
pub fn succeeded_with(channel: &ChannelName, members: &[(&UserId, &ByteString)]) -> Frame {
    let (mut ids, mut hash) = (String::new(), String::new());
    for (user, info) in members {
        let (user, comma) = (quote(user.as_str()), if ids.is_empty() { "" } else { "," });
        ids.extend([comma, &user]);
        hash.extend([comma, &user, ":", info]);
    }
    let count = members.len();
    let data = format!(r#"{{"presence":{{"ids":[{ids}],"hash":{{{hash}}},"count":{count}}}}}"#);
    internal("subscription_succeeded", channel.as_str(), &data)
}

/// What the client did not ask for.
pub fn encode(notice: Notice<'_>) -> Option<Frame> {
    match notice {
        Notice::Event { channel, event: Event { name, data, sender } } => {
            Some(published(channel.as_str(), name.as_str(), data, sender.as_ref()))
        }
        Notice::DirectEvent { user, event: Event { name, data, sender } } => {
            Some(published(&channel_of(user.as_str()), name.as_str(), data, sender.as_ref()))
        }
        Notice::Direct { user: Some(user), data } => Some(direct(user, data)),
        // gusher's sockets have other ids: nobody sends to one of ours
        Notice::Direct { user: None, .. } => None,
        Notice::Members { channel, change: MemberChange::Added(member) } => {
            let (user, info) = (quote(member.user.as_str()), &member.info);
            Some(internal("member_added", channel.as_str(), &format!(r#"{{"user_id":{user},"user_info":{info}}}"#)))
        }
        Notice::Members { channel, change: MemberChange::Removed(user) } => {
            let user = quote(user.as_str());
            Some(internal("member_removed", channel.as_str(), &format!(r#"{{"user_id":{user}}}"#)))
        }
        Notice::SubscriptionCount { channel, count } => {
            Some(internal("subscription_count", channel.as_str(), &format!(r#"{{"subscription_count":{count}}}"#)))
        }
        Notice::Watched { online, offline } => Some(watched(online, offline)),
        // permissions by pattern are for other dialects
        Notice::Reloaded(_) | Notice::Granted(_) => None,
    }
}

/// Users who are online and users who are offline, in an element each that has some.
fn watched(online: &[UserId], offline: &[UserId]) -> Frame {
    let events = [("online", online), ("offline", offline)].into_iter().filter(|(_, users)| !users.is_empty());
    let events = events.map(|(name, users)| {
        let ids: Vec<_> = users.iter().map(|user| quote(user.as_str()).to_string()).collect();
        format!(r#"{{"name":"{name}","user_ids":[{}]}}"#, ids.join(","))
    });
    let data = format!(r#"{{"events":[{}]}}"#, events.collect::<Vec<_>>().join(","));
    Frame::text(&format!(r#"{{"event":"pusher_internal:watchlist_events","data":{}}}"#, quote(&data)))
}

fn internal(event: &str, channel: &str, data: &str) -> Frame {
    let (channel, data) = (quote(channel), quote(data));
    Frame::text(&format!(r#"{{"event":"pusher_internal:{event}","channel":{channel},"data":{data}}}"#))
}

/// A published event. A backend's data is a string, that of a client what it was, if it was anything.
fn published(channel: &str, name: &str, data: &Payload, sender: Option<&Sender>) -> Frame {
    let mut text = JsonText::with_capacity(64 + channel.len() + name.len() + data.len() * 9 / 8);
    text.raw(r#"{"event":"#).string(name);
    text.raw(r#","channel":"#).string(channel);
    match (data, sender) {
        // a missing payload stays missing: it does not become null
        (Payload::Absent, _) => &mut text,
        (Payload::Json(json), Some(_)) => text.raw(r#","data":"#).raw(json),
        (Payload::Json(data) | Payload::Text(data), _) => text.raw(r#","data":"#).string(data),
    };
    if let Some(Sender::Member(user)) = sender {
        text.raw(r#","user_id":"#).string(user.as_str());
    }
    text.raw("}");
    Frame::of(Opcode::Text, &text.0)
}

/// A payload that another dialect sent to a user. By gusher's convention it is an event if it has a name and data; else it
/// is the data of an event `message`.
fn direct(user: &UserId, data: &Payload) -> Frame {
    #[derive(Deserialize)]
    struct NamedPayload<'a> {
        #[serde(borrow)]
        event: &'a RawValue,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let channel = channel_of(user.as_str());
    if let Payload::Json(json) = data
        && let Ok(NamedPayload { event, data }) = object(json.as_bytes())
        && let Some(name) = text(event)
    {
        return published(&channel, &name, &Payload::from_raw(data), None);
    }
    published(&channel, "message", data, None)
}

/// JSON as it is written, into one buffer.
struct JsonText(Vec<u8>);

impl JsonText {
    fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// JSON.
    fn raw(&mut self, json: &str) -> &mut Self {
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// Any text, as a JSON string.
    fn string(&mut self, text: &str) -> &mut Self {
        text.serialize(&mut serde_json::Serializer::new(&mut self.0)).expect("a string is always JSON");
        self
    }
}
