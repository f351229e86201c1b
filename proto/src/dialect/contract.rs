//! What a dialect must offer. A dialect is one foreign API as pure translation: no sockets, no actors, no clock. The
//! master and the slave do the work and know none of its words.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::{
    action::Action,
    envelope::Envelope,
    frame::{Frame, SharedFrame},
    ids::{AppId, SocketId},
    jwt::{BadToken, Claims},
    notice::{Notice, Outcome},
    query::{Ask, Census},
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
pub enum Guard {
    /// Nothing.
    Open,
    /// A push key with this right.
    PushKey(Right),
    /// Credentials that the dialect checks itself ([`Dialect::authenticate`]).
    Own,
}

/// What a push key may be used for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Push to channels, users and sockets.
    Push,
    /// Ask who is there, decode tokens, read sizes.
    Query,
    /// Change what users may subscribe to.
    Grant,
}

impl Right {
    /// Its name in the settings.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Query => "query",
            Self::Grant => "grant",
        }
    }
}

/// One row of an API.
#[derive(Clone, Debug)]
pub struct Route {
    /// Who serves it.
    pub role: Role,
    /// `GET`, `POST`, …, or [`Route::SOCKET`].
    pub method: &'static str,
    /// The path: segments between slashes, those in braces stand for any one segment.
    pub path: String,
    /// What the caller must show.
    pub guard: Guard,
    /// The dialect's own number for it.
    pub row: usize,
}

impl Route {
    /// The method of a row that opens a WebSocket: a GET that asks for an upgrade.
    pub const SOCKET: &'static str = "WEBSOCKET";
}

/// One request to a row of an API.
#[derive(Clone, Debug)]
pub struct ApiCall<'a> {
    /// The number of the row that matched.
    pub row: usize,
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

/// What a request comes down to, and how its answer is written.
pub struct ApiTask {
    /// What is to be done.
    pub work: Work,
    /// Turns what came of it into the reply.
    pub reply: Box<dyn FnOnce(Done) -> ApiReply + Send>,
}

impl ApiTask {
    /// `work`, answered by `reply`.
    pub fn new(work: Work, reply: impl FnOnce(Done) -> ApiReply + Send + 'static) -> Self {
        Self { work, reply: Box::new(reply) }
    }

    /// Nothing to do but to answer.
    #[must_use]
    pub fn answer(reply: ApiReply) -> Self {
        Self::new(Work::Nothing, move |_| reply)
    }
}

impl std::fmt::Debug for ApiTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ApiTask").field(&self.work).finish()
    }
}

/// Something that a role does for an API row.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Nothing.
    Nothing,
    /// Publish these, in order. (Master)
    Publish(Vec<Envelope>),
    /// Ask every slave. (Master)
    Ask(Ask),
    /// Publish these, in order, then ask every slave. (Master)
    PublishAndAsk(Vec<Envelope>, Ask),
    /// Verify a client's JWT and show what it says. (Master)
    Decode(String),
    /// Verify a client's JWT and issue a connection token for it. (Slave)
    Exchange(String),
}

/// What came of a [`Work`].
#[derive(Debug)]
pub enum Done {
    /// It is done; nothing to tell.
    Done,
    /// The answers of all slaves.
    Census(Census),
    /// What the JWT says, or why it is refused.
    Claims(Result<Box<Claims>, BadToken>),
    /// The connection token, or why there is none.
    Token(Result<String, BadToken>),
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

/// A client at the door: what it shows before its socket is opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Knock {
    /// The app that it wants to enter.
    pub app: AppId,
    /// How it proves who it is.
    pub credentials: Credentials,
    /// Which kind of frame it speaks.
    pub variant: Variant,
}

/// How a client proves who it is.
#[derive(Clone, Eq, PartialEq)]
pub enum Credentials {
    /// A connection token, or a JWT.
    Token(String),
    /// Not at all: what it may do is proved wish by wish. Only for listed apps.
    Later,
}

/// Never shows the token.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// One of the kinds of frame that a dialect speaks (Phoenix knows two), counted from 0. What many sockets are sent is
/// encoded once for each.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Variant(pub u8);

/// A message of a client, as it came out of its frames.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Text.
    Text(ByteString),
    /// Bytes.
    Binary(Bytes),
}

/// What a client is told that is let in only to be told why it may not stay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TurnedAway {
    /// What is said first.
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

    /// Its rows, for the routers of both roles. The first that matches wins.
    fn routes(&self) -> &[Route];

    /// Are its rows there at all, for these tenants?
    fn is_open(&self, tenants: &Tenants) -> bool {
        let _ = tenants;
        true
    }

    /// How many kinds of frame it speaks.
    fn variants(&self) -> u8 {
        1
    }

    /// Judge the credentials that a request to a row with [`Guard::Own`] shows in its head. The body of `head` is empty: it
    /// is read only for those who are let in, since whoever has no credentials must cost nothing.
    ///
    /// # Errors
    ///
    /// The caller may not use the row.
    fn authenticate(&self, head: &ApiCall<'_>) -> Result<(), Refusal> {
        let _ = head;
        Ok(())
    }

    /// What the request comes down to. To be called only for what [`Dialect::authenticate`] let in: of the credentials it
    /// judges what depends on the body, and nothing else.
    ///
    /// # Errors
    ///
    /// The request breaks the API's rules; [`Dialect::refuse`] says so to the caller.
    fn call(&self, call: ApiCall<'_>) -> Result<ApiTask, Refusal>;

    /// Who knocks at a row that opens sockets, and with which credentials.
    ///
    /// # Errors
    ///
    /// Something that every handshake on this row must have is missing.
    fn knock(&self, call: &ApiCall<'_>) -> Result<Knock, Refusal>;

    /// A fresh conversation for one socket of an app.
    fn converse(&self, app: &AppId, variant: Variant, socket: SocketId) -> Box<dyn Conversation>;

    /// What sockets of this variant are sent that they did not ask for; `None` if the dialect has no word for it.
    fn encode(&self, variant: Variant, notice: Notice<'_>) -> Option<SharedFrame>;

    /// What stands before a [`SharedFrame::Tail`] for one subscription; `tag` is what the conversation said of it when it
    /// subscribed. Only for dialects that encode tails.
    fn head(&self, variant: Variant, tag: &str) -> String {
        let _ = (variant, tag);
        String::new()
    }

    /// The close code and reason for `cause`.
    fn close(&self, cause: CloseCause) -> (u16, &'static str) {
        (cause.code(), cause.reason())
    }

    /// What is said before the close frame, if anything.
    fn farewell(&self, cause: CloseCause) -> Option<Frame> {
        let _ = cause;
        None
    }

    /// How this row says no over HTTP.
    fn refuse(&self, row: usize, why: &Refusal) -> ApiReply;

    /// How a row that opens sockets says no to a handshake that is good as such, if it does so over the open socket
    /// instead of over HTTP.
    fn turn_away(&self, row: usize, why: &Refusal) -> Option<TurnedAway> {
        let _ = (row, why);
        None
    }
}

/// What a dialect remembers of one socket. A session asks for one action, carries it out, tells the outcome, and only
/// then comes with the next message; so the conversation may remember what the action was about.
pub trait Conversation {
    /// The id of the socket as its client and its backend know it: what logs call it.
    fn socket_id(&self) -> String;

    /// What is said first, before the client says anything.
    fn greeting(&mut self, tenants: &Tenants) -> Option<Frame> {
        let _ = tenants;
        None
    }

    /// What the client asks for. `tenants` are those in force now: what the app may is looked up there and not kept.
    /// `now`: time since 1970, for what may be said only so often.
    ///
    /// # Errors
    ///
    /// Nothing that the dialect understands: the socket closes.
    fn hear(&mut self, message: Message, tenants: &Tenants, now: Duration) -> Result<Action, CloseCause>;

    /// What of a subscription stands in the head of its events (see [`Dialect::head`]).
    fn tag(&self) -> Option<Box<str>> {
        None
    }

    /// The reply to the action under way.
    fn tell(&mut self, outcome: Outcome<'_>) -> Option<Frame>;
}
