//! Signed requests (pusher.md §1.2): every parameter takes part, decoded once, and the path as its sender wrote it.

use std::{borrow::Cow, time::Duration};

use md5::{Digest, Md5};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use crate::{dialect::contract::ApiCall, event::quote, refusal::Refusal};

use super::apps::{PusherApp, hex};

/// How far a timestamp may be from our time.
const GRACE: Duration = Duration::from_secs(600);
/// The one parameter that is not signed.
const SIGNATURE: &[u8] = b"auth_signature";
/// Parameters that only identify the caller.
const OF_THE_SIGNATURE: [&[u8]; 5] = [b"auth_key", b"auth_timestamp", b"auth_version", b"body_md5", SIGNATURE];

/// The parameters of a query, decoded, their names in lower case.
pub struct SignedParams<'a>(SmallVec<[Param<'a>; 8]>);

type Param<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> SignedParams<'a> {
    /// Read them. A `+` is a plus sign: libraries write a blank as `%20`, and Node and Go escape nothing at all.
    pub fn of(query: &'a str) -> Self {
        let pair = |pair: &'a [u8]| {
            let at = pair.iter().position(|&byte| byte == b'=');
            let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            let mut name = decoded(name);
            if name.iter().any(u8::is_ascii_uppercase) {
                name.to_mut().make_ascii_lowercase();
            }
            (name, decoded(value))
        };
        Self(query.as_bytes().split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()).map(pair).collect())
    }

    /// The first value of that name.
    fn bytes(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(given, _)| **given == *name).map(|(_, value)| &**value)
    }

    /// The first value of that name, without which nothing is signed.
    fn needed(&self, name: &str) -> Result<&[u8], Refusal> {
        let missing =
            || unauthorized("unsigned", format!("Parameter {name} is missing: requests to this path are signed"));
        self.bytes(name.as_bytes()).ok_or_else(missing)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name.as_bytes()).map(String::from_utf8_lossy)
    }

    /// Names of parameters that do not belong to the signature.
    pub fn extraneous(&self) -> Vec<Cow<'_, str>> {
        let others = self.0.iter().filter(|(name, _)| !OF_THE_SIGNATURE.contains(&&name[..]));
        others.map(|(name, _)| String::from_utf8_lossy(name)).collect()
    }

    /// The third part of what is signed.
    fn to_be_signed(&self) -> Vec<u8> {
        let mut pairs: SmallVec<[&Param<'a>; 8]> = self.0.iter().filter(|(name, _)| **name != *SIGNATURE).collect();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut joined = Vec::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
        for (name, value) in pairs {
            if !joined.is_empty() {
                joined.push(b'&');
            }
            joined.extend_from_slice(name);
            joined.push(b'=');
            joined.extend_from_slice(value);
        }
        joined
    }
}

/// What `written` stands for. Digests and numbers are most of a query, and have nothing to decode.
fn decoded(written: &[u8]) -> Cow<'_, [u8]> {
    if written.contains(&b'%') { percent_decode(written).into() } else { written.into() }
}

/// The app whose key the parameters of a call name, for paths that name none.
///
/// # Errors
///
/// 401: there is no such parameter, or no such app.
pub fn app<'a>(call: &ApiCall<'a>) -> Result<&'a PusherApp, Refusal> {
    let params = SignedParams::of(call.query);
    let key = std::str::from_utf8(params.needed("auth_key")?).ok().and_then(|key| key.parse().ok());
    let app = key.and_then(|key| call.tenants.app(&key).of::<PusherApp>());
    app.ok_or_else(|| unauthorized("unknown_key", "Unknown auth_key"))
}

/// Has the backend of `app` sent this head, just now? `path` is that of the call without the prefix, which nobody signs.
/// What it signed of the body is judged by [`check_body`].
///
/// # Errors
///
/// 401, with the text that people search for.
pub fn verify(app: &PusherApp, head: &ApiCall<'_>, path: &str, params: &SignedParams<'_>) -> Result<(), Refusal> {
    let needed = |name: &str| params.needed(name);
    if needed("auth_key")? != app.key.as_str().as_bytes() {
        return Err(unauthorized("unknown_key", "Unknown auth_key"));
    }
    if needed("auth_version")? != b"1.0" {
        return Err(unauthorized("bad_auth_version", "Version not supported: auth_version is 1.0"));
    }
    check_timestamp(app, needed("auth_timestamp")?, head.now)?;
    let length = head.headers.header("content-length").unwrap_or("0");
    if params.bytes(b"body_md5").is_none() && (length != "0" || head.headers.header("transfer-encoding").is_some()) {
        return Err(body_is_not_signed());
    }
    let signature = needed("auth_signature")?;

    let (method, query) = (head.method.as_bytes(), params.to_be_signed());
    let signed = |path: &[u8]| app.has_signed(&[method, b"\n", path, b"\n", &query], signature);
    // a name that the sender's HTTP client has escaped was signed before that
    if signed(path.as_bytes()) || (path.contains('%') && signed(&Cow::from(percent_decode(path.as_bytes())))) {
        return Ok(());
    }
    let expected = [method, path.as_bytes(), &query].join(&b'\n');
    Err(unauthorized(
        "bad_signature",
        format!(
            "Invalid signature: you should have sent HmacSHA256Hex({}, your_secret_key), but you sent {}",
            quote(&String::from_utf8_lossy(&expected)),
            quote(&String::from_utf8_lossy(signature)),
        ),
    ))
}

fn check_timestamp(app: &PusherApp, given: &[u8], now: Duration) -> Result<(), Refusal> {
    let seconds = std::str::from_utf8(given).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(seconds) = seconds else {
        return Err(unauthorized("bad_timestamp", "Timestamp invalid: auth_timestamp is in seconds since 1970"));
    };
    if seconds.abs_diff(now.as_secs()) <= GRACE.as_secs() {
        return Ok(());
    }
    let grace = GRACE.as_secs();
    let words = format!(
        "Timestamp expired: Given timestamp ({}) not within {grace}s of server time ({})",
        iso(seconds),
        iso(now.as_secs()),
    );
    Err(Refusal::Coded { code: app.stale_timestamp_status, reason: "expired", text: words.into() })
}

/// A date in UTC; a number that no date of four digits stands for remains one.
fn iso(seconds: u64) -> String {
    const END_OF_9999: u64 = 253_402_300_799;
    if seconds > END_OF_9999 {
        return seconds.to_string();
    }
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Is `body` the one whose digest was signed? A body must be signed; no body may be (Python does so on GET).
///
/// # Errors
///
/// 401, with the text that people search for.
pub fn check_body(params: &SignedParams<'_>, body: &[u8]) -> Result<(), Refusal> {
    match params.bytes(b"body_md5") {
        None if body.is_empty() => Ok(()),
        None => Err(body_is_not_signed()),
        Some(given) => {
            let is = hex(&Md5::digest(body));
            if given == is.as_bytes() {
                return Ok(());
            }
            let given = quote(&String::from_utf8_lossy(given));
            Err(unauthorized(
                "bad_body_md5",
                format!("Invalid body_md5: the body that arrived has {is}, but you sent {given}"),
            ))
        }
    }
}

fn body_is_not_signed() -> Refusal {
    unauthorized("unsigned", "Parameter body_md5 is missing: it is needed with a body")
}

fn unauthorized(reason: &'static str, text: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::Coded { code: 401, reason, text: text.into() }
}

#[cfg(test)]
pub mod tests;
