//! Frames of the server: `{"action":…,"data":…}`, with the sender's number as `fd` where a client caused it, and an id at the
//! end where those are on.

use std::sync::atomic::{AtomicU64, Ordering};

use bytestring::ByteString;
use md5::{Digest, Md5};
use serde_json::value::RawValue;

use crate::{
    dialect::{
        contract::Variant,
        conveyor::{NAME, WITH_IDS},
    },
    event::{Event, Payload, Sender, quote},
    frame::{Frame, SharedFrame},
    ids::{ChannelName, SocketId},
    notice::Notice,
    query::SocketTags,
};

use super::message::text;

/// What the event of a message or broadcast is called for other dialects.
const MESSAGE: &str = "message";
/// Sockets that a frame of presence names at most.
pub const MOST_NAMED: usize = 1_000;

/// The first frame of all.
pub fn connection_info(variant: Variant, socket: SocketId) -> Frame {
    let data = quote(&format!(r#"{{"fd":{},"event":"connection-info"}}"#, u64::from(socket)));
    finished(variant, &[r#"{"action":"connection-info","data":"#, &data])
}

/// What `action` answers to, or sends for, the socket.
pub fn reply(variant: Variant, action: &str, data: &str, socket: SocketId) -> Frame {
    let fd = u64::from(socket).to_string();
    finished(variant, &[r#"{"action":""#, action, r#"","data":"#, data, r#","fd":"#, &fd])
}

/// A frame of a client with an id is acknowledged first. That frame has none.
pub fn acknowledged(id: &RawValue) -> Frame {
    Frame::Whole(Frame::text_of(&[r#"{"action":"acknowledge-action","data":"#, id.get(), "}"]))
}

/// What is sent to others for the socket, without an id: each socket's own encoding adds it.
pub fn for_others(action: &str, data: &str, socket: SocketId) -> Payload {
    let fd = u64::from(socket);
    Payload::Json(format!(r#"{{"action":"{action}","data":{data},"fd":{fd}}}"#).into())
}

/// Who is on a channel now, after `socket` came or went.
pub fn presence(action: &str, channel: &ChannelName, socket: SocketId, there: &SocketTags) -> Payload {
    let named = || there.iter().take(MOST_NAMED);
    let fds: Vec<_> = named().map(|(socket, _)| u64::from(*socket).to_string()).collect();
    let users: Vec<_> = named()
        .filter(|(_, user)| !user.is_empty())
        .map(|(socket, user)| format!(r#""{}":{user}"#, u64::from(*socket)))
        .collect();
    // as PHP writes an empty map
    let users = if users.is_empty() { "[]".to_owned() } else { format!("{{{}}}", users.join(",")) };
    let data = format!(
        r#"{{"fd":{},"event":"channel-presence","channel":{},"fds":[{}],"userIds":{users}}}"#,
        u64::from(socket),
        quote(channel.as_str()),
        fds.join(","),
    );
    Payload::Json(format!(r#"{{"action":"{action}","data":{}}}"#, quote(&data)).into())
}

/// The event of a message or broadcast.
pub fn message_event(data: Payload, sender: Option<Sender>) -> Event {
    Event { name: MESSAGE.parse().expect("a short name"), data, sender }
}

/// What a client broadcasts, for all dialects: a string is text, anything else the JSON that it is.
pub fn payload(data: &RawValue) -> Payload {
    // half of a character has no text: then it stays as it is written
    text(data).map_or_else(|| Payload::from_raw(data), |text| Payload::Text(ByteString::from(text)))
}

/// What sockets did not ask for. Events of any dialect are broadcasts here, and lose their names.
pub fn encode(variant: Variant, notice: Notice<'_>) -> Option<SharedFrame> {
    let frame = match notice {
        Notice::Event { event: Event { data, sender, .. }, .. } => broadcast(variant, data, sender.as_ref()),
        Notice::WithinDialect { dialect: NAME, data: Payload::Json(json) } => {
            finished(variant, &[json.strip_suffix('}').unwrap_or(json)])
        }
        Notice::WithinDialect { .. } => return None,
        // no socket is a user's or a member, none has permissions by pattern, and none is told of counts
        Notice::Direct { .. }
        | Notice::DirectEvent { .. }
        | Notice::Reloaded(_)
        | Notice::Granted(_)
        | Notice::Members { .. }
        | Notice::SubscriptionCount { .. }
        | Notice::Watched { .. } => return None,
    };
    Some(frame.into())
}

fn broadcast(variant: Variant, data: &Payload, sender: Option<&Sender>) -> Frame {
    const HEAD: &str = r#"{"action":"broadcast-action","data":"#;
    let quoted;
    let data = match data {
        Payload::Json(json) => &**json,
        Payload::Text(text) => {
            quoted = quote(text);
            &quoted
        }
        Payload::Absent => "null",
    };
    match sender {
        Some(Sender::Numbered(socket)) => {
            finished(variant, &[HEAD, data, r#","fd":"#, &u64::from(*socket).to_string()])
        }
        _ => finished(variant, &[HEAD, data]),
    }
}

/// The frame that begins with `pieces`, its last brace still missing.
fn finished(variant: Variant, pieces: &[&str]) -> Frame {
    let id = if variant == WITH_IDS { format!(r#","id":"{}""#, fresh_id()) } else { String::new() };
    let mut all: smallvec::SmallVec<[&str; 8]> = pieces.into();
    all.extend([&*id, "}"]);
    Frame::Whole(Frame::text_of(&all))
}

/// 32 hexadecimal digits that no other frame of this process has. Clients repeat them, and nothing else.
fn fresh_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let digest = Md5::digest(LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
