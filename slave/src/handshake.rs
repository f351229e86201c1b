//! The handshake: a request that asks for a WebSocket is accepted, or is told why not. Such requests are not served by the
//! routes of `api`, so everything that these would check is checked here: path, origin, credentials, limits, and what RFC 6455 §4.2
//! demands.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_http::ws::hash_key;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use log::debug;
use tokio::time::timeout;
use wellhead_proto::{
    bus::{Hold, Interest},
    dialect::contract::{ApiCall, ApiReply, ConnectRequest, Credentials, Headers, RejectedSocket, Route},
    frame::Frame,
    http_api::{Head, HttpVersion, Matched},
    ids::{AppId, UserId},
    jwt::BadToken,
    node_request::Bearer,
    refusal::Refusal,
    tenants::Tenants,
};

use crate::{
    admission::ConnectionPermit,
    registry::ShardCell,
    session::{self, AdmittedClient},
    state::SlaveState,
    token::Redeemed,
    transport::Transport,
};

/// How long a handshake waits for the bus to confirm that it delivers what is for the user. As long as the sockets of a slave
/// outlive its bus.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// A client whose handshake was accepted. A place for its socket is taken.
pub struct Accepted {
    bearer: Bearer,
    /// Does it know remote commands?
    knows_remotes: bool,
    encoding: u8,
    accept: SocketAccept,
    permit: ConnectionPermit,
    /// What is for its user is received already.
    hold: Option<Hold>,
}

impl Accepted {
    /// What the answer to its handshake shows.
    #[must_use]
    pub fn accept(&self) -> &SocketAccept {
        &self.accept
    }
}

/// The value of `Sec-WebSocket-Accept` in the answer that opens a WebSocket (RFC 6455 §4.2.2).
#[derive(Clone, Debug)]
pub struct SocketAccept([u8; 28]);

impl SocketAccept {
    /// For the key of a handshake.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(hash_key(key.as_bytes()))
    }

    /// As it stands in the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

/// The connection of a client that was accepted.
pub struct Opened {
    /// The connection.
    pub transport: Transport,
    /// The answer to its handshake, which was not sent yet.
    pub answer: Bytes,
    /// What came behind its handshake.
    pub early: BytesMut,
}

/// How a client is told that its handshake is refused. Its connection closes behind either.
pub enum Rejected {
    /// Over HTTP.
    Reply(ApiReply),
    /// Over the socket that it asked for.
    RejectedSocket {
        /// What the answer that opens it shows.
        accept: SocketAccept,
        /// What is sent behind the answer.
        frames: Bytes,
    },
}

/// Judge a handshake of the client at `peer`, which is for the log.
pub async fn judge(state: &Arc<SlaveState>, head: Head<'_>, peer: Option<SocketAddr>) -> Result<Accepted, Rejected> {
    let Head { method, path, .. } = head;
    let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
    match examine(state, head).await {
        Ok(accepted) => {
            debug!(method, path, peer, status = 101; "{method} {path} 101");
            Ok(accepted)
        }
        Err(Rejection { reason, how: RejectionForm::Away(accept, away) }) => {
            let code = away.code;
            debug!(method, path, peer, status = 101, code, reason; "{method} {path} 101, turned away with {code}: {reason}");
            state.metrics.turned_away(code);
            let frames = [away.says, Frame::close(code, &away.reason)].map(Frame::into_bytes);
            Err(Rejected::RejectedSocket { accept, frames: frames.concat().into() })
        }
        Err(Rejection { reason, how: RejectionForm::Reply(reply) }) => {
            debug!(method, path, peer, status = reply.status, reason; "{method} {path} {}: {reason}", reply.status);
            state.metrics.refused(reply.status);
            Err(Rejected::Reply(reply))
        }
    }
}

/// Begin the session of a client that was accepted, on this thread.
pub fn open(state: &Arc<SlaveState>, cell: &Rc<ShardCell>, accepted: Accepted, opened: Opened) {
    let Opened { transport, answer, early } = opened;
    if transport.set_send_buffer(state.limits.send_buffer.bytes()).is_err() {
        return;
    }
    let Accepted { bearer, knows_remotes, encoding, permit, hold, .. } = accepted;
    let Bearer { user, app, channels: grants, remotes } = bearer;
    let remotes = knows_remotes.then_some(remotes);
    state.metrics.opened.inc();
    let admitted = AdmittedClient { app, user, grants, remotes, encoding, welcome: answer, early, permit };
    session::start(state, cell, transport, admitted);
    // from now on the socket keeps the interest alive
    drop(hold);
}

struct Rejection {
    /// Why, for the log.
    reason: &'static str,
    how: RejectionForm,
}

enum RejectionForm {
    Reply(ApiReply),
    Away(SocketAccept, RejectedSocket),
}

async fn examine(state: &Arc<SlaveState>, head: Head<'_>) -> Result<Accepted, Rejection> {
    // one value for the whole handshake: what it says of an app at the beginning holds to the end
    let tenants = state.tenants.load_full();
    let matched = state.router.find(Route::SOCKET, head.path, &tenants);
    let matched = matched.map_err(|reply| Rejection { reason: "not_found", how: RejectionForm::Reply(reply) })?;
    let key = check_handshake(head.version, head.headers);
    let refused = |why: Refusal| {
        let route_id = state.router.route(&matched).route_id;
        let away = key.as_ref().ok().zip(state.router.dialect(&matched).reject_socket(route_id, &why));
        let how = match away {
            Some((key, away)) => RejectionForm::Away(SocketAccept::of(key), away),
            None => RejectionForm::Reply(state.router.refuse(&matched, &why)),
        };
        Rejection { reason: why.reason(), how }
    };
    let ConnectRequest { app, credentials, variant } =
        connect_request(state, &tenants, &matched, head).map_err(&refused)?;
    let key = key.as_ref().map_err(|why| refused(why.clone()))?;
    let permit =
        state.admission.permit().ok_or_else(|| refused(Refusal::unavailable("no room for another connection")))?;
    let knows_remotes = matches!(credentials, Credentials::TokenWithRemotes(_));
    // behind everything that needs no user: a token that is good once is used up by it, also if the bus does not answer then
    let bearer = identify(state, &tenants, app, credentials).await.map_err(&refused)?;
    let hold = receive_for(state, &bearer).await.map_err(&refused)?;
    let encoding = state.encodings.number(matched.dialect, variant);
    Ok(Accepted { bearer, knows_remotes, encoding, accept: SocketAccept::of(key), permit, hold })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the request asks for, if the slave takes sockets now and serves the app.
fn connect_request(
    state: &SlaveState,
    tenants: &Tenants,
    matched: &Matched,
    head: Head<'_>,
) -> Result<ConnectRequest, Refusal> {
    if state.admission.is_draining() {
        return Err(state.admission.refusal());
    }
    if !state.bus.is_up() {
        return Err(Refusal::unavailable("the cluster's bus is down"));
    }
    let call = ApiCall {
        route_id: state.router.route(matched).route_id,
        method: head.method,
        path: head.path,
        segments: matched.segments.clone(),
        query: head.query,
        headers: head.headers,
        body: Bytes::new(),
        now: now(),
        tenants,
    };
    let connect_request = state.router.dialect(matched).connect_request(&call).inspect_err(|why| {
        if *why == Refusal::CredentialsMissing {
            state.metrics.auth_failed(BadToken::Missing);
        }
    })?;
    let app = tenants.app(&connect_request.app);
    if !app.is_served() {
        state.metrics.auth_failed(BadToken::WrongApp);
        return Err(Refusal::WrongApp);
    }
    let mut judged = Ok(());
    head.headers.values("origin", &mut |origin| {
        if judged.is_ok() {
            let origin = std::str::from_utf8(origin).unwrap_or_default();
            judged = app.admit_origin(&connect_request.app, origin);
            if judged.is_err() {
                debug!(app_id = connect_request.app.as_str(), origin; "{} allows no page of {origin}", connect_request.app);
            }
        }
    });
    judged?;
    Ok(connect_request)
}

/// Whom the credentials stand for, if that is somebody of `app`.
async fn identify(
    state: &Arc<SlaveState>,
    tenants: &Tenants,
    app: AppId,
    credentials: Credentials,
) -> Result<Bearer, Refusal> {
    let bearer = match credentials {
        Credentials::Token(token) | Credentials::TokenWithRemotes(token) => {
            redeem(state, tenants, token, &app).await.map_err(|why| {
                state.metrics.auth_failed(why);
                debug!(app_id = app.as_str(), reason = why.label(); "the token for {app} is refused: {}", why.label());
                match why {
                    BadToken::WrongApp => Refusal::WrongApp,
                    BadToken::Unanswered => Refusal::unavailable("the node that issued this token does not answer"),
                    _ => Refusal::CredentialsInvalid,
                }
            })?
        }
        Credentials::PerSubscription if tenants.app(&app).is_listed() => {
            return Ok(Bearer { user: UserId::nobody(), app, channels: Vec::new(), remotes: Vec::new() });
        }
        Credentials::PerSubscription => return Err(Refusal::WrongApp),
    };
    if bearer.app != app {
        state.metrics.auth_failed(BadToken::WrongApp);
        return Err(Refusal::WrongApp);
    }
    Ok(bearer)
}

/// Receive what is for the user of a socket before it is opened: no push that is accepted afterwards may be missed.
async fn receive_for(state: &SlaveState, bearer: &Bearer) -> Result<Option<Hold>, Refusal> {
    if bearer.user.is_nobody() {
        return Ok(None);
    }
    let Some(Interest { hold, confirmed }) = state.bus.user_interest(&bearer.app, &bearer.user) else {
        return Ok(None);
    };
    if let Some(confirmed) = confirmed {
        let down = |_| Refusal::unavailable("the cluster's bus does not answer");
        timeout(CONFIRMED_WITHIN, confirmed).await.map_err(down)?;
        if state.admission.is_draining() {
            return Err(state.admission.refusal());
        }
    }
    Ok(Some(hold))
}

/// What a token stands for; a reference is redeemed by the slave that issued it, once, whoever gets it.
async fn redeem(state: &SlaveState, tenants: &Tenants, token: String, app: &AppId) -> Result<Bearer, BadToken> {
    match state.tokens.redeem(&token, app, tenants, now())? {
        Redeemed::Bearer(bearer) => Ok(bearer),
        Redeemed::Elsewhere(issuer) => state.tokens.ask_issuer(&*state.bus, issuer, token, app).await,
    }
}

/// What RFC 6455 §4.2.1 demands; the key, if all of it is there.
fn check_handshake(version: HttpVersion, headers: &dyn Headers) -> Result<String, Refusal> {
    let refuse = |why| Err(Refusal::NotAHandshake(why));
    let only = |name: &str| {
        let (mut first, mut count) = (None, 0);
        headers.values(name, &mut |value| {
            first = std::str::from_utf8(value).ok().map(str::to_owned);
            count += 1;
        });
        first.filter(|_| count == 1)
    };
    let lists = |name: &str, wanted: &str| {
        let mut is_there = false;
        headers.values(name, &mut |value| {
            is_there |= value
                .split(|&byte| byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()));
        });
        is_there
    };
    let has = |name: &str| {
        let mut is_there = false;
        headers.values(name, &mut |_| is_there = true);
        is_there
    };
    if version == HttpVersion::Http10 {
        return refuse("HTTP/1.1 is needed");
    }
    if only("host").is_none_or(|host| host.is_empty()) {
        return refuse("one Host header is needed");
    }
    if !lists("upgrade", "websocket") || !lists("connection", "upgrade") {
        return refuse("not a WebSocket handshake");
    }
    if has("transfer-encoding") || has("content-length") && only("content-length").as_deref() != Some("0") {
        return refuse("a handshake has no body");
    }
    if only("sec-websocket-version").as_deref() != Some("13") {
        return Err(Refusal::WrongVersion);
    }
    match only("sec-websocket-key") {
        Some(key) if STANDARD.decode(&key).is_ok_and(|nonce| nonce.len() == 16) => Ok(key),
        _ => refuse("one Sec-WebSocket-Key of 16 bytes is needed"),
    }
}
