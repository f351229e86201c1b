//! The actor that owns one socket: assembles what its client says, asks what may be done, and does it.

use std::{
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use actix::{Actor, ActorFutureExt, StreamHandler, WrapFuture};
use actix_http::ws::{Frame as WsFrame, Item};
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::join_all;
use log::{Level, debug, log_enabled};
use tokio::time::timeout;
use wellhead_proto::{
    action::{Action, AuthorizedSubscribe},
    bus::Interest,
    command::Command,
    dialect::contract::{ClientMessage, Protocol},
    envelope::Envelope,
    event::Event,
    frame::{Frame, Opcode},
    ids::{ChannelKey, ChannelName, UserId},
    member::Member,
    notice::{ActionOutcome, Denial},
    refusal::CloseCause,
    remote::RemoteCall,
};

use super::{
    authorize::{Effect, authorize},
    context::SessionContext,
};
use crate::{
    outbox::{Outbox, SocketEnd},
    presence::PATIENCE,
    registry::SocketHandle,
    state::SlaveState,
};

/// The actor that owns one socket.
pub struct Session {
    pub(super) socket: SocketHandle,
    pub(super) outbox: Rc<Outbox>,
    pub(super) protocol: Box<dyn Protocol>,
    encoding: u8,
    state: Arc<SlaveState>,
    /// A fragmented message so far; the validator bounds its size.
    fragments: Option<Box<PartialMessage>>,
}

struct PartialMessage {
    text: bool,
    bytes: Vec<u8>,
    /// So many of them are known to be UTF-8.
    valid: usize,
}

impl Actor for Session {
    type Context = SessionContext<Self>;
}

impl StreamHandler<Result<WsFrame, CloseCause>> for Session {
    fn handle(&mut self, frame: Result<WsFrame, CloseCause>, context: &mut Self::Context) {
        if self.outbox.is_ending() {
            return;
        }
        self.outbox.note_heard();
        match frame {
            Ok(WsFrame::Text(bytes)) => match ByteString::try_from(bytes) {
                Ok(text) => self.receive(ClientMessage::Text(text), context),
                Err(_) => self.end(CloseCause::BadUtf8),
            },
            Ok(WsFrame::Binary(bytes)) => self.receive(ClientMessage::Binary(bytes), context),
            Ok(WsFrame::Continuation(item)) => self.assemble(item, context),
            Ok(WsFrame::Ping(payload)) => self.outbox.reply(Frame::of(Opcode::Pong, &payload)),
            Ok(WsFrame::Pong(_)) => {}
            Ok(WsFrame::Close(reason)) => {
                let echo = match reason {
                    Some(reason) => Frame::close(reason.code.into(), ""),
                    None => Frame::of(Opcode::Close, b""),
                };
                self.outbox.end(SocketEnd { cause: CloseCause::ClientClosed, goodbye: Some(echo) });
            }
            Err(cause) => self.end(cause),
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {
        self.outbox.end(SocketEnd { cause: CloseCause::ClientGone, goodbye: None });
    }
}

impl Session {
    /// The session of `socket`, which speaks that kind of frame.
    pub fn new(
        socket: SocketHandle,
        encoding: u8,
        state: Arc<SlaveState>,
        outbox: Rc<Outbox>,
        protocol: Box<dyn Protocol>,
    ) -> Self {
        Self { socket, outbox, protocol, encoding, state, fragments: None }
    }

    fn end(&self, cause: CloseCause) {
        self.outbox.end(SocketEnd { cause, goodbye: Some(self.goodbye(cause)) });
    }

    /// The close frame for `cause`, behind what the dialect says before it.
    pub fn goodbye(&self, cause: CloseCause) -> Frame {
        self.state.encodings.at(self.encoding).goodbye(cause)
    }

    /// Bytes that are held of a fragmented message.
    pub fn unfinished(&self) -> usize {
        self.fragments.as_ref().map_or(0, |fragments| size_of::<PartialMessage>() + fragments.bytes.capacity())
    }

    fn assemble(&mut self, item: Item, context: &mut SessionContext<Self>) {
        let (bytes, last) = match item {
            Item::FirstText(bytes) => {
                self.fragments = Some(Box::new(PartialMessage { text: true, bytes: Vec::new(), valid: 0 }));
                (bytes, false)
            }
            Item::FirstBinary(bytes) => {
                self.fragments = Some(Box::new(PartialMessage { text: false, bytes: Vec::new(), valid: 0 }));
                (bytes, false)
            }
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        let Some(fragments) = &mut self.fragments else {
            return self.end(CloseCause::ProtocolError);
        };
        fragments.bytes.extend_from_slice(&bytes);
        if fragments.text && !fragments.is_utf8(last) {
            return self.end(CloseCause::BadUtf8);
        }
        if last && let Some(whole) = self.fragments.take() {
            let PartialMessage { text, bytes, .. } = *whole;
            let bytes = Bytes::from(bytes);
            let message = if text {
                ClientMessage::Text(ByteString::try_from(bytes).expect("each fragment was checked"))
            } else {
                ClientMessage::Binary(bytes)
            };
            self.receive(message, context);
        }
    }

    fn receive(&mut self, message: ClientMessage, context: &mut SessionContext<Self>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let action = match self.protocol.receive(message, &self.state.tenants.load(), now) {
            Ok(action) => action,
            Err(cause) => return self.end(cause),
        };
        let most = self.state.limits.subscriptions;
        let Some(effect) = self.socket.judge_action(|socket| authorize(action, socket, most)) else { return };
        match effect {
            Effect::Nothing => {}
            Effect::Answer(frame) => self.outbox.reply(frame),
            Effect::RejectSubscribe { channel, reason, says } => {
                self.outbox.reply(says);
                self.note_rejected(&[channel.as_str()], reason);
            }
            Effect::DenySubscribe(channels, reason) => self.deny_subscribe(&channels, reason),
            Effect::Deny => self.reply(ActionOutcome::Denied),
            Effect::Denial(channel, denial) => self.denial(&channel, denial),
            Effect::TellTime => self.reply(ActionOutcome::Here { unix_seconds: now.as_secs() }),
            Effect::TellGrants => {
                if let Some(grants) = self.socket.grants() {
                    self.reply(ActionOutcome::Grants(&grants));
                }
            }
            Effect::Join(channels) => self.want(Action::Subscribe(channels), context),
            Effect::Enter(entry) => self.want(Action::Enter(entry), context),
            Effect::Identify(user) => self.sign_in(user, context),
            Effect::Say(channel, event) => self.say(channel, event, context),
            Effect::Leave(channel) => {
                self.socket.unsubscribe(&channel);
                self.reply(ActionOutcome::Done);
            }
            Effect::Call(call) => self.call(call),
            Effect::RejectCall(reason, says) => {
                self.outbox.reply(says);
                self.note_call(reason);
            }
        }
    }

    /// Send a remote command, and go on: its outcome is told whenever it comes, if the socket is still there.
    fn call(&self, RemoteCall { body, taken, failed }: RemoteCall) {
        let Some(app) = self.socket.app() else { return };
        let target = self.state.tenants.load().app(&app).remote().cloned();
        let begun = target
            .ok_or("no_target")
            .and_then(|target| self.state.remote.begin(app, self.socket.id()).map(|permit| permit.call(target, body)));
        let called = match begun {
            Ok(called) => called,
            Err(reason) => {
                self.outbox.reply(failed);
                return self.note_call(reason);
            }
        };
        let (outbox, metrics) = (Rc::downgrade(&self.outbox), self.state.metrics.clone());
        actix_rt::spawn(async move {
            let result = called.await;
            metrics.remote(result.err().unwrap_or("ok"));
            let told = if result.is_ok() { taken } else { Some(failed) };
            if let (Some(told), Some(outbox)) = (told, outbox.upgrade()) {
                outbox.reply(told);
                outbox.flush();
            }
        });
    }

    /// Count a remote command that was not sent, and let who debugs see whose it was.
    fn note_call(&self, reason: &'static str) {
        self.state.metrics.remote(reason);
        if log_enabled!(Level::Debug) {
            let (socket_id, (app, user)) = (self.protocol.socket_id(), self.socket.names());
            debug!(
                socket_id, app_id = app.as_str(), user_id = user.as_str(), reason;
                "a remote command of socket {socket_id} is not sent: {reason}"
            );
        }
    }

    /// Subscribe as the client asks once the bus delivers the channels: no push that is accepted after the reply may be missed.
    fn want(&mut self, request: Action, context: &mut SessionContext<Self>) {
        let names = match &request {
            Action::Subscribe(channels) => &channels[..],
            Action::Enter(entry) => std::slice::from_ref(&entry.channel),
            _ => &[],
        };
        let Some(app) = self.socket.app() else { return };
        let (mut holds, mut unconfirmed) = (Vec::new(), Vec::new());
        for name in names {
            let key = ChannelKey { app: app.clone(), name: name.clone() };
            if let Some(Interest { hold, confirmed }) = self.state.bus.interest(&key) {
                holds.push(hold);
                unconfirmed.extend(confirmed);
            }
        }
        if unconfirmed.is_empty() {
            return self.come(request, context);
        }
        // commands are answered in order: no further frame is handled before this one is done
        let confirmed = join_all(unconfirmed).into_actor(self);
        context.wait(confirmed.map(move |_, session, context| {
            session.come(request, context);
            drop(holds);
        }));
    }

    /// Carry out a subscribe, if it is still allowed: much may have changed since the client asked.
    fn come(&mut self, request: Action, context: &mut SessionContext<Self>) {
        let most = self.state.limits.subscriptions;
        match self.socket.judge(|socket| authorize(request, socket, most)) {
            Some(Effect::Join(channels)) => self.join(channels, context),
            Some(Effect::Enter(entry)) => self.enter(entry, context),
            Some(Effect::Denial(channel, denial)) => self.denial(&channel, denial),
            Some(Effect::DenySubscribe(channels, reason)) => self.deny_subscribe(&channels, reason),
            Some(_) => self.reply(ActionOutcome::Denied),
            None => {}
        }
    }

    /// Subscribe with credentials of its own: as a member once the channel's members are known.
    fn enter(&mut self, entry: AuthorizedSubscribe, context: &mut SessionContext<Self>) {
        let AuthorizedSubscribe { channel, member, most_members, signed } = entry;
        let Some(member) = member else {
            if signed {
                self.socket.note_signed();
            }
            return self.join(vec![channel], context);
        };
        let Some(app) = self.socket.app() else { return };
        let key = ChannelKey { app, name: channel };
        let (invitation, known) = self.state.presence.invite(&key, &self.state.registries);
        let Some(known) = known else { return self.attend(&key, &member, most_members) };
        let hold = self.state.bus.interest(&key);
        context.wait(timeout(PATIENCE, known).into_actor(self).map(move |_, session, _| {
            session.attend(&key, &member, most_members);
            drop((invitation, hold));
        }));
    }

    /// Be the socket of `user` once the bus delivers what is for that user: no push that is accepted after the reply may be missed.
    fn sign_in(&mut self, user: UserId, context: &mut SessionContext<Self>) {
        let Some(app) = self.socket.app() else { return };
        let interest = if user.is_nobody() { None } else { self.state.bus.user_interest(&app, &user) };
        match interest {
            Some(Interest { hold, confirmed: Some(confirmed) }) => {
                // the next command is handled when this one is done
                context.wait(confirmed.into_actor(self).map(move |(), session, _| {
                    session.identify(&user);
                    drop(hold);
                }));
            }
            held => {
                self.identify(&user);
                drop(held);
            }
        }
    }

    /// Be the socket of `user`: what is pushed to that user from now on follows the reply.
    fn identify(&mut self, user: &UserId) {
        let is_done = self.socket.identify(user);
        if log_enabled!(Level::Debug) {
            let (socket_id, (app, of)) = (self.protocol.socket_id(), self.socket.names());
            let words = if is_done { "is that of" } else { "is another's, not that of" };
            debug!(socket_id, app_id = app.as_str(), user_id = of.as_str(); "socket {socket_id} {words} {user}");
        }
        self.reply(if is_done { ActionOutcome::Done } else { ActionOutcome::Denied });
        let watchlist = if is_done { self.protocol.take_watchlist() } else { Vec::new() };
        if is_done && let Some(frame) = self.socket.watch(&watchlist) {
            self.outbox.reply(frame);
        }
    }

    fn attend(&mut self, channel: &ChannelKey, member: &Member, most: usize) {
        let tag = self.protocol.tag();
        // nothing comes between the list and what is told of it
        match self.socket.subscribe_as_member(channel, member, most, tag) {
            Ok(members) => {
                // nobody is a member without a signature
                self.socket.note_signed();
                self.reply(ActionOutcome::Joined { members: &members.iter().collect::<Vec<_>>() });
            }
            Err(denial) => self.denial(&channel.name, denial),
        }
    }

    fn deny_subscribe(&mut self, channels: &[ChannelName], reason: &'static str) {
        self.reply(ActionOutcome::Denied);
        let channels: Vec<_> = channels.iter().map(ChannelName::as_str).collect();
        self.note_rejected(&channels, reason);
    }

    fn denial(&mut self, channel: &ChannelName, denial: Denial) {
        self.reply(ActionOutcome::Barred(denial));
        self.note_rejected(&[channel.as_str()], denial.label());
    }

    /// Count a subscribe that was refused, and let who debugs see whose it was.
    fn note_rejected(&self, channels: &[&str], reason: &'static str) {
        self.state.metrics.subscribe_rejected(reason);
        if log_enabled!(Level::Debug) {
            let (socket_id, (app, user)) = (self.protocol.socket_id(), self.socket.names());
            let channel = channels.join(" ");
            debug!(
                socket_id, app_id = app.as_str(), user_id = user.as_str(), channel, reason;
                "socket {socket_id} may not subscribe to {channel}: {reason}"
            );
        }
    }

    /// Publish what the client says; its next message is handled when the bus has taken it.
    fn say(&mut self, channel: ChannelName, event: Event, context: &mut SessionContext<Self>) {
        let Some(app) = self.socket.app() else { return };
        let wanted = self.state.coordination.wants_client_events(&app);
        let fact = wanted.then(|| (ChannelKey { app: app.clone(), name: channel.clone() }, event.clone()));
        let command = Command::Publish { channel, event, except: Some(self.socket.id()) };
        let (bus, envelope) = (self.state.bus.clone(), Envelope { app, command });
        let published = async move { bus.publish(envelope).await }.into_actor(self);
        context.wait(published.map(move |result, session, _| {
            session.state.metrics.said(result.is_ok());
            if let (Ok(()), Some((channel, event))) = (&result, fact) {
                session.state.coordination.client_event(channel, session.socket.id(), event);
            }
            session.reply(if result.is_ok() { ActionOutcome::Done } else { ActionOutcome::Failed });
        }));
    }

    fn join(&mut self, channels: Vec<ChannelName>, context: &mut SessionContext<Self>) {
        let tag = self.protocol.tag();
        let reply = self.protocol.reply(ActionOutcome::Done);
        if let Some(wait) = self.socket.subscribe(channels, tag, reply) {
            context.wait(wait.into_actor(self).map(|_, _, _| ()));
        }
    }

    fn reply(&mut self, outcome: ActionOutcome<'_>) {
        if let Some(frame) = self.protocol.reply(outcome) {
            self.outbox.reply(frame);
        }
    }
}

impl PartialMessage {
    /// Is it UTF-8 so far? Only before the last fragment a character may be unfinished.
    fn is_utf8(&mut self, last: bool) -> bool {
        match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => {
                self.valid = self.bytes.len();
                true
            }
            Err(error) => {
                self.valid += error.valid_up_to();
                error.error_len().is_none() && !last
            }
        }
    }
}
