//! May a socket subscribe? Judged by the name of the channel, what the app's backend has signed, and what it says of the
//! member (pusher.md §2.5–§2.7).

use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    action::AuthorizedSubscribe,
    dialect::pusher::{
        AppLimits,
        apps::PusherApp,
        json::{object, text},
        names::{self, ChannelKind},
    },
    ids::SocketId,
    member::Member,
};

use super::{
    frames::{NotSubscribed, quoted},
    said::Wish,
};

/// The subscribe, if the socket may have it.
pub fn judge(app: &PusherApp, socket: SocketId, wish: &Wish<'_>) -> Result<AuthorizedSubscribe, NotSubscribed> {
    let limits = &app.limits;
    let channel = names::channel(&wish.channel, limits.channel_name.bytes()).map_err(NotSubscribed::malformed)?;
    let kind = ChannelKind::of(channel.as_str());
    if kind != ChannelKind::Public {
        check(app, socket, wish)?;
    }
    let member = match kind {
        ChannelKind::Presence => {
            let data = wish.channel_data.as_deref().ok_or_else(|| {
                NotSubscribed::malformed("channel_data is missing: a presence channel shows who is there")
            })?;
            Some(member(data, limits)?)
        }
        ChannelKind::Public | ChannelKind::Private => None,
    };
    Ok(AuthorizedSubscribe { channel, member, most_members: limits.presence_members })
}

/// `auth` is the app's key, a colon, and what its secret makes of socket, channel and, if it is there, `channel_data`.
fn check(app: &PusherApp, socket: SocketId, wish: &Wish<'_>) -> Result<(), NotSubscribed> {
    let auth = wish.auth.as_deref().unwrap_or_default();
    // a key may have colons, a signature has none
    let (key, signature) = auth.rsplit_once(':').unwrap_or((auth, ""));
    if key != app.key.as_str() {
        return Err(NotSubscribed::unauthorized(
            "unknown_key",
            format!("Invalid key in subscription auth data: '{}'", quoted(key)),
        ));
    }
    let mut signed = format!("{socket}:{}", wish.channel);
    if let Some(data) = &wish.channel_data {
        signed.extend([":", data]);
    }
    if app.has_signed(&[signed.as_bytes()], signature.as_bytes()) {
        return Ok(());
    }
    let (signed, signature) = (quoted(&signed), quoted(signature));
    Err(NotSubscribed::unauthorized(
        if signature.is_empty() { "unsigned" } else { "bad_signature" },
        format!("Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {signature}"),
    ))
}

/// The member that signed `channel_data` speaks of.
fn member(channel_data: &str, limits: &AppLimits) -> Result<Member, NotSubscribed> {
    #[derive(Deserialize)]
    struct MemberData<'a> {
        #[serde(borrow, default)]
        user_id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        user_info: Option<&'a RawValue>,
    }
    let data: MemberData<'_> =
        object(channel_data.as_bytes()).map_err(|_| NotSubscribed::malformed("channel_data must be a JSON object"))?;
    let no_id = || NotSubscribed::malformed("channel_data must have a user_id, which is a string or a number");
    // Laravel's are numbers
    let id = data.user_id.ok_or_else(no_id)?;
    let id = match id.get().as_bytes()[0] {
        b'"' => text(id).ok_or_else(no_id)?,
        b'-' | b'0'..=b'9' => id.get().into(),
        _ => return Err(no_id()),
    };
    if id.is_empty() {
        return Err(no_id());
    }
    let too_long =
        || NotSubscribed::limit(format!("user_id is too long: it may have {} characters", limits.presence_id));
    if id.chars().count() > limits.presence_id {
        return Err(too_long());
    }
    let user = (&*id).try_into().map_err(|_| too_long())?;
    let info = match data.user_info.map(RawValue::get) {
        // pages read fields of it
        None => ByteString::from_static("{}"),
        Some(info) if !info.starts_with('{') => {
            return Err(NotSubscribed::malformed(
                "user_info supplied to presence subscription is invalid - if supplied it must be a type of hash",
            ));
        }
        Some(info) if info.len() > limits.presence_info.bytes() => {
            let most = limits.presence_info.bytes();
            return Err(NotSubscribed::limit(format!("user_info is too large: it may have {most} bytes")));
        }
        Some(info) => info.into(),
    };
    Ok(Member { user, info })
}
