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
    said::{SignIn, Wish},
    watchlist::{self, Watchlist},
};

/// The subscribe, if the socket may have it. Who has signed in as `user` need not say who it is.
pub fn judge(
    app: &PusherApp,
    socket: SocketId,
    user: Option<&Member>,
    wish: &Wish<'_>,
) -> Result<AuthorizedSubscribe, NotSubscribed> {
    let limits = &app.limits;
    let channel = names::channel(&wish.channel, limits.channel_name.bytes()).map_err(NotSubscribed::malformed)?;
    let kind = ChannelKind::of(channel.as_str());
    let signed = kind != ChannelKind::Public;
    if signed {
        check(app, socket, wish)?;
    }
    let member = match (kind, wish.channel_data.as_deref()) {
        (ChannelKind::Public | ChannelKind::Private, _) => None,
        (ChannelKind::Presence, Some(data)) => Some(member(data, limits)?),
        (ChannelKind::Presence, None) => {
            let words =
                "channel_data is missing: a presence channel shows who is there, and this socket has not signed in";
            Some(user.cloned().ok_or_else(|| NotSubscribed::malformed(words))?)
        }
    };
    Ok(AuthorizedSubscribe { channel, member, most_members: limits.presence_members, signed })
}

/// `auth` is the app's key, a colon, and what its secret makes of socket, channel and, if it is there, `channel_data`.
fn check(app: &PusherApp, socket: SocketId, wish: &Wish<'_>) -> Result<(), NotSubscribed> {
    let mut signed = format!("{socket}:{}", wish.channel);
    if let Some(data) = &wish.channel_data {
        signed.extend([":", data]);
    }
    let auth = wish.auth.as_deref().unwrap_or_default();
    proves(app, "subscription", auth, &signed).map_err(|(reason, words)| NotSubscribed::unauthorized(reason, words))
}

/// Is `auth` the app's key, a colon, and what its secret makes of `signed`? Else why not, for the metrics and in words.
pub fn proves(app: &PusherApp, what: &str, auth: &str, signed: &str) -> Result<(), (&'static str, String)> {
    // a key may have colons, a signature has none
    let (key, signature) = auth.rsplit_once(':').unwrap_or((auth, ""));
    if key != app.key.as_str() {
        return Err(("unknown_key", format!("Invalid key in {what} auth data: '{}'", quoted(key))));
    }
    if app.has_signed(&[signed.as_bytes()], signature.as_bytes()) {
        return Ok(());
    }
    let (signed, signature) = (quoted(signed), quoted(signature));
    Err((
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
    let info = info(data.user_info, limits).map_err(|bad| match bad {
        BadInfo::NoObject => NotSubscribed::malformed(
            "user_info supplied to presence subscription is invalid - if supplied it must be a type of hash",
        ),
        BadInfo::TooLarge(most) => NotSubscribed::limit(too_large(most)),
    })?;
    Ok(Member { user, info })
}

/// What is wrong with a user object.
enum BadInfo {
    NoObject,
    /// It has more bytes than that.
    TooLarge(usize),
}

fn too_large(most: usize) -> String {
    format!("user_info is too large: it may have {most} bytes")
}

/// What the others may know of a user.
fn info(given: Option<&RawValue>, limits: &AppLimits) -> Result<ByteString, BadInfo> {
    let most = limits.presence_info.bytes();
    match given.map(RawValue::get) {
        // pages read fields of it
        None => Ok(ByteString::from_static("{}")),
        Some(info) if !info.starts_with('{') => Err(BadInfo::NoObject),
        Some(info) if info.len() > most => Err(BadInfo::TooLarge(most)),
        Some(info) => Ok(info.into()),
    }
}

/// The user that a socket signs in as, as a member of presence channels; else what is wrong (pusher.md §2.9).
pub fn signed_in(app: &PusherApp, socket: SocketId, sign_in: &SignIn<'_>) -> Result<(Member, Watchlist), String> {
    #[derive(Deserialize)]
    struct UserData<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        user_info: Option<&'a RawValue>,
        #[serde(borrow, default)]
        watchlist: Option<&'a RawValue>,
    }
    let SignIn { auth, user_data } = sign_in;
    proves(app, "sign-in", auth, &format!("{socket}::user::{user_data}")).map_err(|(_, words)| words)?;
    let data: UserData<'_> =
        object(user_data.as_bytes()).map_err(|_| "Invalid user_data: it must be a JSON object".to_owned())?;
    let id =
        data.id.and_then(text).ok_or_else(|| "Invalid user_data: it must have an id, which is a string".to_owned())?;
    let user = names::user(&id, app.limits.presence_id)?;
    let info = info(data.user_info, &app.limits).map_err(|bad| match bad {
        BadInfo::NoObject => "Invalid user_data: user_info must be an object".to_owned(),
        BadInfo::TooLarge(most) => format!("Invalid user_data: {}", too_large(most)),
    })?;
    let watchlist = match data.watchlist {
        Some(list) if app.watchlist => watchlist::read(list, app.limits.presence_id)?,
        _ => Watchlist::default(),
    };
    Ok((Member { user, info }, watchlist))
}
