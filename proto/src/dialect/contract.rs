//! What a dialect implements. A dialect translates one foreign API: it has no sockets, no actors and no clock. The master
//! and the slave do the work and know nothing of the foreign API.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use crate::{
    action::Action,
    channel::ChannelPattern,
    command::PublishMatching,
    envelope::Envelope,
    frame::{Frame, SharedFrame},
    ids::{AppId, SocketId, UserId},
    jwt::{BadToken, Claims},
    notice::{ActionOutcome, Notice},
    push_key::Right,
    query::{
        AppStats, ChannelStates, CountQuery, MemberInfos, MembersQuery, NameHashes, Names, NamesQuery,
        ResendWebhookQuery, StatesQuery, StatsQuery, WebhookStates, WebhooksQuery,
    },
    refusal::{CloseCause, Refusal},
    tenants::Tenants,
};

/// Which role serves a route.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// The one that backends talk to.
    Master,
    /// The one that clients talk to.
    Slave,
}

/// What a caller must show before a route looks at its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouteAuth {
    /// Nothing.
    Open,
    /// A push key with this right.
    PushKey(Right),
    /// Credentials that the dialect checks itself ([`Dialect::authenticate`]).
    Own,
}

/// The number that a dialect gives to one of its routes.
pub type RouteId = usize;

/// One route of an API.
#[derive(Clone, Debug)]
pub struct Route {
    /// Who serves it.
    pub role: Role,
    /// `GET`, `POST`, …, or [`Route::SOCKET`].
    pub method: &'static str,
    /// The path: segments between slashes, those in braces stand for any one segment.
    pub path: String,
    /// What the caller must show.
    pub guard: RouteAuth,
    /// The dialect's own number for it.
    pub route_id: RouteId,
}

impl Route {
    /// The method of a route that opens a WebSocket: a GET that asks for an upgrade.
    pub const SOCKET: &'static str = "WEBSOCKET";
}

/// One request to a route of an API.
#[derive(Clone, Debug)]
pub struct ApiCall<'a> {
    /// The number of the route that matched.
    pub route_id: RouteId,
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path, percent-encoded as it came.
    pub path: &'a str,
    /// The segments of the path that stood in braces, percent-decoded.
    pub segments: Vec<String>,
    /// The query string, undecoded, without `?`.
    pub query: &'a str,
    /// The value of a header, if it is there once and is text.
    pub headers: &'a dyn Headers,
    /// The whole body.
    pub body: Bytes,
    /// When it arrived: time since 1970.
    pub now: Duration,
    /// The tenants that are in force for it, from its head to its reply.
    pub tenants: &'a Tenants,
}

/// Headers of a request.
pub trait Headers {
    /// The value of the first header of that name (lower case), if it is text.
    fn header(&self, name: &str) -> Option<&str>;

    /// Show every value of that name (lower case), text or not, in the order of the request.
    fn values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        if let Some(value) = self.header(name) {
            visit(value.as_bytes());
        }
    }
}

impl std::fmt::Debug for dyn Headers + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Headers")
    }
}

/// Writes the reply, once it is known what came of a request.
pub type ReplyWith<T> = Box<dyn FnOnce(T) -> ApiReply + Send>;

/// What a request to the master comes down to, each with how its reply is written.
pub enum MasterRequest {
    /// Nothing is to be done: this is the reply.
    Answer(ApiReply),
    /// Publish these, in order.
    Publish {
        /// What is published.
        envelopes: Vec<Envelope>,
        /// Writes the reply.
        reply: ReplyWith<()>,
    },
    /// Publish these, in order, then ask for the state of channels.
    PublishAndQuery {
        /// What is published.
        envelopes: Vec<Envelope>,
        /// What is asked.
        query: StatesQuery,
        /// Writes the reply.
        reply: ReplyWith<ChannelStates>,
    },
    /// Publish to every channel that a pattern matches.
    PublishMatching {
        /// What is published.
        push: PublishMatching,
        /// Writes the reply, given how many channels matched.
        reply: ReplyWith<usize>,
    },
    /// Replace what the sockets of a user may subscribe to.
    Reload {
        /// The app.
        app: AppId,
        /// The user.
        user: UserId,
        /// Only patterns that lie wholly inside one of these are taken away.
        within: Vec<ChannelPattern>,
        /// The patterns from now on, in place of those.
        channels: Vec<ChannelPattern>,
        /// Writes the reply, given what is in force now if only a part was replaced.
        reply: ReplyWith<Option<Names>>,
    },
    /// Ask every slave.
    Query(QueryRequest),
    /// Verify a client's JWT and show what it says.
    Decode {
        /// The JWT.
        jwt: String,
        /// Writes the reply, given what the JWT says, or why it is refused.
        reply: ReplyWith<Result<Box<Claims>, BadToken>>,
    },
}

/// A query that a request asks for.
pub enum QueryRequest {
    /// Names.
    Names(NamesQuery, ReplyWith<Names>),
    /// How many there are.
    Count(CountQuery, ReplyWith<NameHashes>),
    /// States of channels.
    States(StatesQuery, ReplyWith<ChannelStates>),
    /// The members of a channel.
    Members(MembersQuery, ReplyWith<MemberInfos>),
    /// Sizes of the apps that the caller may see.
    Stats(StatsQuery, ReplyWith<AppStats>),
    /// States of webhooks.
    Webhooks(WebhooksQuery, ReplyWith<WebhookStates>),
    /// Send a webhook again; its id comes back if it was there.
    ResendWebhook(ResendWebhookQuery, ReplyWith<Names>),
}

/// What a request to a slave comes down to, each with how its reply is written.
pub enum SlaveRequest {
    /// Nothing is to be done: this is the reply.
    Answer(ApiReply),
    /// Verify a client's JWT and issue a connection token for it.
    Exchange {
        /// The JWT.
        jwt: String,
        /// Writes the reply, given the token, or why there is none.
        reply: ReplyWith<Result<String, BadToken>>,
    },
}

impl MasterRequest {
    /// Publish these, in order; answered by `reply`.
    pub fn publish(envelopes: Vec<Envelope>, reply: impl FnOnce() -> ApiReply + Send + 'static) -> Self {
        Self::Publish { envelopes, reply: Box::new(move |()| reply()) }
    }
}

impl QueryRequest {
    /// The app that is asked about; `None` if all are.
    #[must_use]
    pub fn app(&self) -> Option<&AppId> {
        match self {
            Self::Names(NamesQuery { app, .. }, _)
            | Self::Count(CountQuery { app, .. }, _)
            | Self::States(StatesQuery { app, .. }, _)
            | Self::Members(MembersQuery { app, .. }, _)
            | Self::Webhooks(WebhooksQuery { app }, _)
            | Self::ResendWebhook(ResendWebhookQuery { app, .. }, _) => Some(app),
            Self::Stats(StatsQuery, _) => None,
        }
    }
}

/// Shows what is asked for, and not how the reply is written.
impl std::fmt::Debug for MasterRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(reply) => f.debug_tuple("Answer").field(reply).finish(),
            Self::Publish { envelopes, .. } => f.debug_tuple("Publish").field(envelopes).finish(),
            Self::PublishAndQuery { envelopes, query, .. } => {
                f.debug_tuple("PublishAndQuery").field(envelopes).field(query).finish()
            }
            Self::PublishMatching { push, .. } => push.fmt(f),
            Self::Reload { app, user, within, channels, .. } => {
                f.debug_tuple("Reload").field(app).field(user).field(within).field(channels).finish()
            }
            Self::Query(query) => query.fmt(f),
            Self::Decode { .. } => f.write_str("Decode"),
        }
    }
}

impl std::fmt::Debug for QueryRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Names(query, _) => query.fmt(f),
            Self::Count(query, _) => query.fmt(f),
            Self::States(query, _) => query.fmt(f),
            Self::Members(query, _) => query.fmt(f),
            Self::Stats(query, _) => query.fmt(f),
            Self::Webhooks(query, _) => query.fmt(f),
            Self::ResendWebhook(query, _) => query.fmt(f),
        }
    }
}

/// Never shows the JWT.
impl std::fmt::Debug for SlaveRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(reply) => f.debug_tuple("Answer").field(reply).finish(),
            Self::Exchange { .. } => f.write_str("Exchange"),
        }
    }
}

/// A reply over HTTP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiReply {
    /// The status.
    pub status: u16,
    /// `Content-Type`; empty if there is no body.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl ApiReply {
    /// A reply with a body.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// A reply without one.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::new(status, "", Bytes::new())
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A reply in plain text.
#[must_use]
pub fn text(status: u16, body: &'static str) -> ApiReply {
    ApiReply::new(status, "text/plain; charset=utf-8", body)
}

/// What a client asks for and shows before its socket is opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectRequest {
    /// The app that it wants to enter.
    pub app: AppId,
    /// How it proves who it is.
    pub credentials: Credentials,
    /// The encoding of its frames.
    pub variant: Variant,
}

/// How a client proves who it is.
#[derive(Clone, Eq, PartialEq)]
pub enum Credentials {
    /// A connection token, or a JWT.
    Token(String),
    /// Not yet: it proves for each subscription that it may have it. Only for listed apps.
    PerSubscription,
    /// A token, by a client that may send the remote commands which the token allows.
    TokenWithRemotes(String),
}

/// Hides the token.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// One of the encodings of a dialect (Phoenix has two), counted from 0. What many sockets are sent is
/// encoded once for each.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Variant(pub u8);

/// A message of a client, as it came out of its frames.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientMessage {
    /// Text.
    Text(ByteString),
    /// Bytes.
    Binary(Bytes),
}

/// The last frame and close code of a socket that is opened only to be closed: some libraries look for the reason
/// there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RejectedSocket {
    /// The frame before the close frame.
    pub says: Frame,
    /// The close code.
    pub code: u16,
    /// The reason beside it.
    pub reason: String,
}

/// One foreign API, as pure translation.
pub trait Dialect: Send + Sync {
    /// Its name in logs and metrics.
    fn name(&self) -> &'static str;

    /// Its routes, for the routers of both roles. The first that matches wins.
    fn routes(&self) -> &[Route];

    /// Are its routes there at all, for these tenants?
    fn is_open(&self, tenants: &Tenants) -> bool {
        let _ = tenants;
        true
    }

    /// How many encodings it has.
    fn variants(&self) -> u8 {
        1
    }

    /// Judge the credentials that a request to a route with [`RouteAuth::Own`] shows in its head. The body of `head` is empty: it
    /// is read only for those who are let in, since whoever has no credentials must cost nothing.
    ///
    /// # Errors
    ///
    /// The caller may not use the route.
    fn authenticate(&self, head: &ApiCall<'_>) -> Result<(), Refusal> {
        let _ = head;
        Ok(())
    }

    /// What a request to one of the master's routes comes down to. To be called only for what [`Dialect::authenticate`] let
    /// in: of the credentials it judges what depends on the body, and nothing else. A dialect without such routes has nothing
    /// to say here.
    ///
    /// # Errors
    ///
    /// The request breaks the API's rules; [`Dialect::refuse`] says so to the caller.
    fn master_request(&self, call: ApiCall<'_>) -> Result<MasterRequest, Refusal> {
        let _ = call;
        Err(Refusal::NotFound)
    }

    /// The same for the slave's routes.
    ///
    /// # Errors
    ///
    /// See there.
    fn slave_request(&self, call: ApiCall<'_>) -> Result<SlaveRequest, Refusal> {
        let _ = call;
        Err(Refusal::NotFound)
    }

    /// What a request to a route that opens sockets asks for, and with which credentials.
    ///
    /// # Errors
    ///
    /// Something that every handshake on this route must have is missing.
    fn connect_request(&self, call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal>;

    /// The protocol state of a new socket of an app.
    fn open(&self, app: &AppId, variant: Variant, socket: SocketId) -> Box<dyn Protocol>;

    /// The frame of a notice for sockets of this variant; `None` if the dialect has no such frame.
    fn encode(&self, variant: Variant, notice: Notice<'_>) -> Option<SharedFrame>;

    /// What goes before a [`SharedFrame::Tail`] for one subscription; `tag` is what the protocol said of it when it
    /// subscribed. Only for dialects that encode tails.
    fn head(&self, variant: Variant, tag: &str) -> String {
        let _ = (variant, tag);
        String::new()
    }

    /// The close code and reason for `cause`.
    fn close(&self, cause: CloseCause) -> (u16, &'static str) {
        (cause.code(), cause.reason())
    }

    /// The frame before the close frame, if there is one.
    fn closing(&self, cause: CloseCause) -> Option<Frame> {
        let _ = cause;
        None
    }

    /// The HTTP reply with which this route refuses.
    fn refuse(&self, route_id: usize, why: &Refusal) -> ApiReply;

    /// How a route that opens sockets refuses a well-formed handshake, if it does so over the open socket instead of over
    /// HTTP.
    fn reject_socket(&self, route_id: usize, why: &Refusal) -> Option<RejectedSocket> {
        let _ = (route_id, why);
        None
    }
}

/// The protocol of a dialect for one socket: what the dialect remembers of it. A session asks for one
/// action, carries it out, tells the outcome, and only then comes with the next message; so the protocol may remember what
/// the action was about.
pub trait Protocol {
    /// The id of the socket as its client, its backend and the logs show it.
    fn socket_id(&self) -> String;

    /// The first frame of the server, if there is one.
    fn greeting(&mut self, tenants: &Tenants) -> Option<Frame> {
        let _ = tenants;
        None
    }

    /// What the client asks for. `tenants` are those in force now: what the app may is looked up there and not kept.
    /// `now`: time since 1970, for what may be said only so often.
    ///
    /// # Errors
    ///
    /// The message is not understood: the socket closes.
    fn receive(&mut self, message: ClientMessage, tenants: &Tenants, now: Duration) -> Result<Action, CloseCause>;

    /// Its client connected by [`Credentials::TokenWithRemotes`], as `user`, with a token that allows these remote commands.
    fn allow_remotes(&mut self, app: &AppId, user: &UserId, commands: Vec<String>) {
        let _ = (app, user, commands);
    }

    /// How long its client may take to show something that its backend has signed, by an
    /// [`Action::Identify`] or an [`Action::Enter`] that is signed. `None`: it need not.
    fn authorize_within(&self, tenants: &Tenants) -> Option<Duration> {
        let _ = tenants;
        None
    }

    /// The users whose coming and going its client wants to know, asked for after an [`Action::Identify`] was carried out.
    /// They replace those of before.
    fn take_watchlist(&mut self) -> Vec<UserId> {
        Vec::new()
    }

    /// What the head of a subscription's events contains of it (see [`Dialect::head`]).
    fn tag(&self) -> Option<Box<str>> {
        None
    }

    /// The reply to the action under way.
    fn reply(&mut self, outcome: ActionOutcome<'_>) -> Option<Frame>;
}
