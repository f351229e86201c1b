//! The door: an upgrade request becomes a session, or is told why not. Upgrades bypass the HTTP rows, so everything a
//! row would check is checked here: path, origin, credentials, limits, and what RFC 6455 §4.2 demands.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_http::{
    HttpMessage, Request, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    ws::hash_key,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use log::debug;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use wellhead_proto::{
    dialect::contract::{ApiCall, ApiReply, Credentials, Headers, Knock, Route, TurnedAway},
    frame::Frame,
    ids::UserId,
    jwt::BadToken,
    query::{Ask, Bearer, Census},
    refusal::Refusal,
    surface::Matched,
};

use crate::{
    Shared,
    registry::Hall,
    session::{self, Admitted},
    token::Redeemed,
    transport::Transport,
};

/// How long, and over how many bytes, a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 256 << 10;

/// Let the client in on this thread, or tell it why not.
pub async fn receive(shared: &Arc<Shared>, hall: &Rc<Hall>, request: Request, stream: TcpStream, early: BytesMut) {
    let (path, method) = (request.uri().path(), request.method().as_str());
    match examine(shared, &request).await {
        Ok(Welcome { bearer, voice, answer, pass }) => {
            debug!(method, path, status = 101; "{method} {path} 101");
            let Ok(transport) = Transport::plain(stream, shared.limits.send_buffer.bytes()) else {
                return;
            };
            let Bearer { user, app, channels: grants } = bearer;
            shared.metrics.opened.inc();
            let admitted = Admitted { app, user, grants, voice, welcome: answer, early, pass };
            session::start(shared, hall, transport, admitted);
        }
        Err(No::Away(answer, away)) => {
            let code = away.code;
            debug!(method, path, status = 101, code; "{method} {path} 101, turned away with {code}");
            shared.metrics.turned_away(code);
            let frames = [away.says, Frame::close(code, &away.reason)].map(Frame::into_bytes);
            part(stream, &[&answer[..], &frames.concat()].concat()).await;
        }
        Err(No::Reply(reply)) => {
            debug!(method, path, status = reply.status; "{method} {path} {}", reply.status);
            shared.metrics.refused(reply.status);
            refuse(stream, reply).await;
        }
    }
}

struct Welcome {
    bearer: Bearer,
    voice: u8,
    answer: Bytes,
    pass: crate::Pass,
}

/// How a client is told that it may not come in.
enum No {
    /// Over HTTP.
    Reply(ApiReply),
    /// Over the socket that it asked for, behind the answer that opens it.
    Away(Bytes, TurnedAway),
}

async fn examine(shared: &Arc<Shared>, request: &Request) -> Result<Welcome, No> {
    let method = match request.method().as_str() {
        "GET" => Route::SOCKET,
        other => other,
    };
    let matched = shared.router.find(method, request.uri().path()).map_err(No::Reply)?;
    let headers = request.headers();
    let key = check_handshake(request.head().version, headers);
    let refused = |why: Refusal| {
        let row = shared.router.route(&matched).row;
        let away = key.as_ref().ok().zip(shared.router.dialect(&matched).turn_away(row, &why));
        match away {
            Some((key, away)) if method == Route::SOCKET => No::Away(opening(key), away),
            _ => No::Reply(shared.router.refuse(&matched, &why)),
        }
    };
    if method != Route::SOCKET {
        // a row for HTTP, asked with an upgrade that it knows nothing of
        return Err(refused(Refusal::NotAHandshake("this path opens no WebSocket")));
    }
    let (bearer, voice) = admit(shared, &matched, request).await.map_err(&refused)?;
    let key = key.as_ref().map_err(|why| refused(why.clone()))?;
    let pass = shared.pass().ok_or_else(|| refused(Refusal::unavailable("no room for another connection")))?;
    Ok(Welcome { bearer, voice, answer: opening(key), pass })
}

/// The answer to a handshake with that key.
fn opening(key: &str) -> Bytes {
    let accept = hash_key(key.as_bytes());
    let accept = std::str::from_utf8(&accept).expect("base64 is ASCII");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    answer.into()
}

/// Who is at the door of a socket row, and may they come in?
async fn admit(shared: &Arc<Shared>, matched: &Matched, request: &Request) -> Result<(Bearer, u8), Refusal> {
    if shared.is_draining() {
        return Err(Refusal::unavailable("shutting down"));
    }
    if !shared.bus.is_up() {
        return Err(Refusal::unavailable("the cluster's bus is down"));
    }
    let (uri, headers) = (request.uri(), request.headers());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let row = shared.router.route(matched).row;
    let headers_seen = HeadersOf(headers);
    let call = ApiCall {
        row,
        method: request.method().as_str(),
        path: uri.path(),
        segments: matched.segments.clone(),
        query: uri.query().unwrap_or_default(),
        headers: &headers_seen,
        body: Bytes::new(),
        now,
    };
    let dialect = shared.router.dialect(matched);
    let Knock { app, credentials, variant } = dialect.knock(&call).inspect_err(|why| {
        if *why == Refusal::CredentialsMissing {
            shared.metrics.auth_failed(BadToken::Missing);
        }
    })?;
    let bearer = match credentials {
        Credentials::Token(token) => redeem(shared, token, now).await.map_err(|why| {
            shared.metrics.auth_failed(why);
            if why == BadToken::WrongApp { Refusal::WrongApp } else { Refusal::CredentialsInvalid }
        })?,
        Credentials::Later if shared.apps.is_listed(&app) => {
            Bearer { user: UserId::nobody(), app: app.clone(), channels: Vec::new() }
        }
        Credentials::Later => return Err(Refusal::WrongApp),
    };
    if bearer.app != app || !shared.apps.serves(&app) {
        shared.metrics.auth_failed(BadToken::WrongApp);
        return Err(Refusal::WrongApp);
    }
    if let Some(origin) = headers.get(ORIGIN) {
        shared.apps.admit_origin(&app, origin.to_str().unwrap_or_default())?;
    }
    Ok((bearer, shared.voices.number(matched.dialect, variant)))
}

/// What a token stands for; a reference is redeemed by the slave that issued it, once, whoever gets it.
async fn redeem(shared: &Shared, token: String, now: Duration) -> Result<Bearer, BadToken> {
    let issuer = match shared.tokens.redeem(&token, &shared.apps, now)? {
        Redeemed::Bearer(bearer) => return Ok(bearer),
        Redeemed::Elsewhere(issuer) => issuer,
    };
    // an issuer that is gone takes its references with it
    match shared.bus.ask_node(issuer, Ask::Redeem { token }).await {
        Ok(Census::Redeemed(Some(bearer))) => Ok(bearer),
        _ => Err(BadToken::Used),
    }
}

/// What RFC 6455 §4.2.1 demands; the key, if all of it is there.
fn check_handshake(version: Version, headers: &HeaderMap) -> Result<String, Refusal> {
    let refuse = |why| Err(Refusal::NotAHandshake(why));
    let only = |name: HeaderName| {
        let mut values = headers.get_all(name);
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    };
    let lists = |name: HeaderName, wanted: &str| {
        let values = headers.get_all(name).filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if version < Version::HTTP_11 {
        return refuse("HTTP/1.1 is needed");
    }
    if only(HOST).is_none_or(str::is_empty) {
        return refuse("one Host header is needed");
    }
    if !lists(UPGRADE, "websocket") || !lists(CONNECTION, "upgrade") {
        return refuse("not a WebSocket handshake");
    }
    if headers.contains_key(TRANSFER_ENCODING) || only(CONTENT_LENGTH).is_some_and(|length| length.trim() != "0") {
        return refuse("a handshake has no body");
    }
    if only(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refusal::WrongVersion);
    }
    match only(SEC_WEBSOCKET_KEY) {
        Some(key) if STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) => Ok(key.to_owned()),
        _ => refuse("one Sec-WebSocket-Key of 16 bytes is needed"),
    }
}

/// Answer over the bare stream.
async fn refuse(stream: TcpStream, reply: ApiReply) {
    let ApiReply { status, content_type, headers, body } = reply;
    let status = actix_http::StatusCode::from_u16(status).unwrap_or(actix_http::StatusCode::BAD_REQUEST);
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    if !content_type.is_empty() {
        head += &format!("Content-Type: {content_type}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    part(stream, &[head.as_bytes(), &body].concat()).await;
}

/// Send the last that there is to say, and let the client read it before the connection goes.
async fn part(mut stream: TcpStream, last: &[u8]) {
    let answer = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // who does not read the answer in time never will
    let _ = timeout(LINGER, answer).await;
}

/// The headers of a request, as dialects see them.
struct HeadersOf<'a>(&'a HeaderMap);

impl Headers for HeadersOf<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}
