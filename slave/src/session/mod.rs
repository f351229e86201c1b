//! One socket: commands in, replies out. An actor on the thread that holds the socket; what it may not keep waiting
//! (a fan-out) passes it by, through the outbox.
//!
//! This folder is the only one that names `actix_web_actors`, which is deprecated upstream; `docs/decisions/` says why
//! it is here and what closes its known defects.

mod drive;
pub mod guard;
mod inbound;
pub mod state;

use std::{
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use actix::{Actor, ActorFutureExt, AsyncContext, StreamHandler, WrapFuture};
use actix_http::ws::{Codec, Item, Message as WsMessage, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::time::timeout;
use wellhead_proto::{
    action::{Action, Entry},
    bus::Interest,
    channel::ChannelPattern,
    command::Command,
    dialect::contract::{Conversation, Message},
    envelope::Envelope,
    event::Event,
    frame::{Frame, Opcode},
    ids::{AppId, ChannelKey, ChannelName, SocketId, UserId},
    member::Member,
    notice::Outcome,
    refusal::CloseCause,
};

use self::{
    inbound::{Gate, Inbound},
    state::{Effect, decide},
};
use crate::{
    Shared,
    attendance::PATIENCE,
    outbox::{End, Outbox},
    pulse::Pulse,
    registry::{Hall, fanout::PendingJoin, floor::Seat},
    transport::Transport,
};

/// A client that was let in.
pub struct Admitted {
    /// The app that it enters.
    pub app: AppId,
    /// Who it is.
    pub user: UserId,
    /// Channels that it may subscribe to.
    pub grants: Vec<ChannelPattern>,
    /// The number of the kind of frame that it speaks.
    pub voice: u8,
    /// The answer to its handshake.
    pub welcome: Bytes,
    /// What came behind the handshake.
    pub early: BytesMut,
    /// Counts it as open, for as long as it is.
    pub pass: crate::Pass,
}

/// Open a socket on this thread: seat it, greet it, and let its session run.
pub fn start(shared: &Arc<Shared>, hall: &Rc<Hall>, transport: Transport, admitted: Admitted) {
    let Admitted { app, user, grants, voice, welcome, early, pass } = admitted;
    let outbox = Rc::new(Outbox::new(transport, shared.limits.queue.bytes()));
    let id = shared.next_socket_id();
    let speaker = shared.voices.at(voice);
    let mut conversation = speaker.dialect.converse(&app, speaker.variant, id);

    outbox.push_raw(welcome);
    if let Some(greeting) = conversation.greeting() {
        outbox.push(greeting);
    }
    let seat = Seat { id, outbox: outbox.clone(), voice, grants, pulse: Pulse::default() };
    hall.floor.borrow_mut().enter(app.clone(), user, seat);

    let gate = Rc::new(Gate::default());
    let limit = shared.limits.message.bytes();
    let inbound = Inbound::new(outbox.clone(), gate.clone(), &early, limit);
    let session = Session {
        id,
        app,
        voice,
        shared: shared.clone(),
        hall: hall.clone(),
        outbox: outbox.clone(),
        gate,
        conversation,
        fragments: None,
    };
    let frames = WebsocketContext::with_codec(session, inbound, Codec::new().max_size(limit));
    actix_rt::spawn(drive::drive(Box::pin(frames), outbox, hall.clone(), id, voice, pass));
}

/// The actor that owns one socket.
struct Session {
    id: SocketId,
    app: AppId,
    voice: u8,
    shared: Arc<Shared>,
    hall: Rc<Hall>,
    outbox: Rc<Outbox>,
    gate: Rc<Gate>,
    conversation: Box<dyn Conversation>,
    /// A fragmented message so far; the guard bounds its sum.
    fragments: Option<Fragments>,
}

struct Fragments {
    text: bool,
    bytes: Vec<u8>,
    /// So many of them are known to be UTF-8.
    valid: usize,
}

impl Actor for Session {
    type Context = WebsocketContext<Self>;
}

impl StreamHandler<Result<WsMessage, ProtocolError>> for Session {
    fn handle(&mut self, message: Result<WsMessage, ProtocolError>, ctx: &mut Self::Context) {
        self.gate.handled();
        if self.outbox.is_ending() {
            return;
        }
        self.outbox.note_heard();
        match message {
            Ok(WsMessage::Text(text)) => self.hear(Message::Text(text), ctx),
            Ok(WsMessage::Binary(bytes)) => self.hear(Message::Binary(bytes), ctx),
            Ok(WsMessage::Continuation(item)) => self.assemble(item, ctx),
            Ok(WsMessage::Ping(payload)) => self.outbox.push(Frame::of(Opcode::Pong, &payload)),
            Ok(WsMessage::Pong(_) | WsMessage::Nop) => {}
            Ok(WsMessage::Close(reason)) => {
                let echo = match reason {
                    Some(reason) => Frame::close(reason.code.into(), ""),
                    None => Frame::of(Opcode::Close, b""),
                };
                self.outbox.end(End { cause: CloseCause::ClientClosed, goodbye: Some(echo) });
            }
            // the guard has let only good frames pass: what the parser still refuses is text that is not UTF-8
            Err(_) => self.end(CloseCause::BadUtf8),
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {
        match self.gate.broken() {
            Some(cause) => self.end(cause),
            None => self.outbox.end(End { cause: CloseCause::ClientGone, goodbye: None }),
        }
    }
}

impl Session {
    fn end(&self, cause: CloseCause) {
        let goodbye = Some(self.shared.voices.at(self.voice).goodbye(cause));
        self.outbox.end(End { cause, goodbye });
    }

    fn assemble(&mut self, item: Item, ctx: &mut WebsocketContext<Self>) {
        let (bytes, last) = match item {
            Item::FirstText(bytes) => {
                self.fragments = Some(Fragments { text: true, bytes: Vec::new(), valid: 0 });
                (bytes, false)
            }
            Item::FirstBinary(bytes) => {
                self.fragments = Some(Fragments { text: false, bytes: Vec::new(), valid: 0 });
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
        if last && let Some(Fragments { text, bytes, .. }) = self.fragments.take() {
            let bytes = Bytes::from(bytes);
            let message = if text {
                Message::Text(ByteString::try_from(bytes).expect("each fragment was checked"))
            } else {
                Message::Binary(bytes)
            };
            self.hear(message, ctx);
        }
    }

    fn hear(&mut self, message: Message, ctx: &mut WebsocketContext<Self>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let action = match self.conversation.hear(message, now) {
            Ok(action) => action,
            Err(cause) => return self.end(cause),
        };
        let effect = {
            let mut floor = self.hall.floor.borrow_mut();
            let Some(seat) = floor.index.seat_of(self.id.counter()) else {
                return;
            };
            floor.index.at_mut(seat).pulse.note_action();
            match floor.standing(self.id) {
                Some(standing) => decide(action, &standing, self.shared.limits.subscriptions),
                None => return,
            }
        };
        match effect {
            Effect::Nothing => {}
            Effect::Answer(frame) => self.outbox.push(frame),
            Effect::Deny => self.tell(Outcome::Denied),
            Effect::Bar(bar) => self.tell(Outcome::Barred(bar)),
            Effect::TellTime => self.tell(Outcome::Here { unix_seconds: now.as_secs() }),
            Effect::TellGrants => {
                let hall = self.hall.clone();
                let floor = hall.floor.borrow();
                if let Some(seat) = floor.index.seat_of(self.id.counter()) {
                    self.tell(Outcome::Grants(&floor.index.at(seat).grants));
                }
            }
            Effect::Join(channels) => self.want(Action::Subscribe(channels), ctx),
            Effect::Enter(entry) => self.want(Action::Enter(entry), ctx),
            Effect::Say(channel, event) => self.say(channel, event, ctx),
            Effect::Leave(channel) => {
                self.hall.floor.borrow_mut().leave(self.id, &channel);
                self.tell(Outcome::Done);
            }
        }
    }

    /// Join the channels of `wish` once the bus brings them: no push that is accepted after the reply may be missed.
    fn want(&mut self, wish: Action, ctx: &mut WebsocketContext<Self>) {
        let names = match &wish {
            Action::Subscribe(channels) => &channels[..],
            Action::Enter(entry) => std::slice::from_ref(&entry.channel),
            _ => &[],
        };
        let (mut holds, mut unconfirmed) = (Vec::new(), Vec::new());
        for name in names {
            let key = ChannelKey { app: self.app.clone(), name: name.clone() };
            if let Some(Interest { hold, confirmed }) = self.shared.bus.interest(&key) {
                holds.push(hold);
                unconfirmed.extend(confirmed);
            }
        }
        if unconfirmed.is_empty() {
            return self.come(wish, ctx);
        }
        // commands are answered in order: nothing is heard before this one is done
        let confirmed = join_all(unconfirmed).into_actor(self);
        ctx.wait(confirmed.map(move |_, session, ctx| {
            session.come(wish, ctx);
            drop(holds);
        }));
    }

    /// Carry out a wish to join, if it still may be: much may have changed since it was uttered.
    fn come(&mut self, wish: Action, ctx: &mut WebsocketContext<Self>) {
        let effect = {
            let floor = self.hall.floor.borrow();
            floor.standing(self.id).map(|standing| decide(wish, &standing, self.shared.limits.subscriptions))
        };
        match effect {
            Some(Effect::Join(channels)) => self.join(channels, ctx),
            Some(Effect::Enter(entry)) => self.enter(entry, ctx),
            Some(Effect::Bar(bar)) => self.tell(Outcome::Barred(bar)),
            Some(_) => self.tell(Outcome::Denied),
            None => {}
        }
    }

    /// Join by proof: as a member once the channel's members are known.
    fn enter(&mut self, entry: Entry, ctx: &mut WebsocketContext<Self>) {
        let Entry { channel, member, most_members } = entry;
        let Some(member) = member else { return self.join(vec![channel], ctx) };
        let key = ChannelKey { app: self.app.clone(), name: channel };
        let (guest, known) = self.shared.attendance.invite(key.clone(), &self.shared);
        let Some(known) = known else { return self.attend(&key, &member, most_members) };
        let hold = self.shared.bus.interest(&key);
        ctx.wait(timeout(PATIENCE, known).into_actor(self).map(move |_, session, _| {
            session.attend(&key, &member, most_members);
            drop((guest, hold));
        }));
    }

    fn attend(&mut self, channel: &ChannelKey, member: &Member, most: usize) {
        let tag = self.conversation.tag();
        let hall = self.hall.clone();
        let mut floor = hall.floor.borrow_mut();
        // nothing comes between the list and what is told of it
        match floor.attend(self.id, channel, member, most, tag) {
            Ok(members) => self.tell(Outcome::Joined { members: &members.iter().collect::<Vec<_>>() }),
            Err(bar) => self.tell(Outcome::Barred(bar)),
        }
    }

    /// Publish what the client says; the next of its messages is heard when the bus has it.
    fn say(&mut self, channel: ChannelName, event: Event, ctx: &mut WebsocketContext<Self>) {
        let command = Command::Publish { channel, event, except: Some(self.id) };
        let (bus, envelope) = (self.shared.bus.clone(), Envelope { app: self.app.clone(), command });
        let published = async move { bus.publish(envelope).await }.into_actor(self);
        ctx.wait(published.map(|result, session, _| {
            session.shared.metrics.said(result.is_ok());
            session.tell(if result.is_ok() { Outcome::Done } else { Outcome::Failed });
        }));
    }

    fn join(&mut self, channels: Vec<ChannelName>, ctx: &mut WebsocketContext<Self>) {
        let tag = self.conversation.tag();
        let reply = self.conversation.tell(Outcome::Done);
        let join = PendingJoin { socket: self.id.counter(), channels, tag, reply, done: None };
        let wait = self.hall.floor.borrow_mut().join(join);
        if let Some(wait) = wait {
            ctx.wait(wait.into_actor(self).map(|_, _, _| ()));
        }
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        if let Some(frame) = self.conversation.tell(outcome) {
            self.outbox.push(frame);
        }
    }
}

impl Fragments {
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
