//! Closing the sockets of a user, or one socket. `?reconnect=true` tells its client to come back at once.

use percent_encoding::percent_decode_str;

use crate::{
    command::{Command, Target},
    dialect::contract::{ApiCall, MasterRequest},
    envelope::Envelope,
    ids::{SocketId, SocketIdSeal},
    refusal::Refusal,
};

use super::{bad, bad_name, json, names};

/// `DELETE /v1/apps/{app}/users/{user}/connections`.
pub fn user(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app, user] = names(call)?;
    terminate(call, app, Some(Target::User(user.parse().map_err(bad_name)?)))
}

/// `DELETE /v1/apps/{app}/sockets/{socket}`.
pub fn socket(call: &ApiCall<'_>, seal: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app, socket] = names(call)?;
    terminate(call, app, read_socket(socket, seal)?.map(Target::Socket))
}

/// The reply tells no number: slaves close the sockets as the command reaches them, and nobody waits for that.
fn terminate(call: &ApiCall<'_>, app: &str, whose: Option<Target>) -> Result<MasterRequest, Refusal> {
    let (app, reconnect) = (app.parse().map_err(bad_name)?, reconnect(call.query)?);
    let envelope = |whose| Envelope { app, command: Command::Terminate { whose, reconnect } };
    Ok(MasterRequest::publish(whose.map(envelope).into_iter().collect(), || json("{}")))
}

/// Does the query ask for clients to come back? Other parameters are ignored.
fn reconnect(query: &str) -> Result<bool, Refusal> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut given = pairs.filter(|(name, _)| percent_decode_str(name).eq(*b"reconnect"));
    let value = given.next().map(|(_, value)| percent_decode_str(value).collect::<Vec<_>>());
    match (value.as_deref(), given.next()) {
        (None | Some(b"false"), None) => Ok(false),
        (Some(b"true"), None) => Ok(true),
        _ => Err(bad("reconnect must be true or false, and be given once")),
    }
}

/// The socket that an id names, as gusher's, Pusher's or Conveyor's clients see it. `None`: it looks like an id, and none of ours.
fn read_socket(id: &str, seal: &SocketIdSeal) -> Result<Option<SocketId>, Refusal> {
    let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_uuid {
        return Ok(seal.read(id).ok());
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if id.split_once('.').is_some_and(|(node, counter)| digits(node) && digits(counter)) {
        return Ok(id.parse().ok());
    }
    // longer ones are no number of JavaScript
    if digits(id) && id.len() <= 16 {
        return Ok(id.parse::<u64>().ok().and_then(|fd| fd.try_into().ok()));
    }
    Err(bad("this is no socket id: expected a UUID, two numbers joined by a dot, such as 123.456, or a Conveyor fd"))
}
