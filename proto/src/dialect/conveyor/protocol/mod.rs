//! The WebSocket protocol: actions of clients, and the replies. A socket is on one channel at a time.

pub mod frames;
pub mod message;

use std::time::Duration;

use bytestring::ByteString;
use serde_json::value::RawValue;

use crate::{
    action::{Action, ChannelSwitch},
    command::{Command, Within},
    dialect::{
        allowance::Allowance,
        contract::{ClientMessage, Protocol, Variant},
    },
    event::{Payload, Sender, quote},
    frame::Frame,
    ids::{ChannelName, SocketId},
    notice::ActionOutcome,
    query::SocketTags,
    refusal::CloseCause,
    tenants::Tenants,
};

use self::message::{ConveyorMessage, MessageFields};
use super::{NAME, WITH_IDS, app, handshake::temporary, settings::ConveyorApp};

const BASE: &str = "base-action";
const BROADCAST: &str = "broadcast-action";
const FANOUT: &str = "fanout-action";
const CONNECT: &str = "channel-connect";
const DISCONNECT: &str = "channel-disconnect";
const ASSOC: &str = "assoc-user-to-fd-action";
const ACKNOWLEDGE: &str = "acknowledge-action";

/// What is remembered of one socket. Most sockets are idle: it is kept small.
pub struct ConveyorProtocol {
    socket: SocketId,
    variant: Variant,
    /// How much it may still ask of others.
    allowance: Allowance,
    /// The channel that it is on.
    channel: Option<ChannelName>,
    /// The user that the client says it is: a number. Nobody has proved it, so it is shown in frames of presence and means
    /// nothing else.
    user: Option<i64>,
    pending: Option<Box<ConveyorPending>>,
    next: Option<Box<Action>>,
}

/// What the action under way is about.
enum ConveyorPending {
    Connect { channel: ChannelName, tells: bool },
    Disconnect { channel: ChannelName, tells: bool },
    Send { action: &'static str },
    List { action: &'static str, channel: ChannelName },
    Retag,
}

/// What a client is told of an action that is refused.
type ErrorText = String;

impl ConveyorProtocol {
    pub fn new(variant: Variant, socket: SocketId) -> Self {
        let allowance = Allowance::default();
        Self { socket, variant, allowance, channel: None, user: None, pending: None, next: None }
    }

    fn say(&self, action: &str, data: &str) -> Frame {
        frames::reply(self.variant, action, data, self.socket)
    }

    /// An error is a frame of its action.
    fn error(&self, action: &str, text: &str) -> Frame {
        self.say(action, &quote(text))
    }

    fn execute(&mut self, app: &ConveyorApp, fields: &MessageFields<'_>, now: Duration) -> Action {
        let action = fields.action.and_then(message::text);
        let done = match action.as_deref() {
            Some(BASE) => self.echo(fields),
            Some(BROADCAST) => self.broadcast(app, fields, now),
            Some(FANOUT) => self.fan_out(app, fields, now),
            Some(CONNECT) => self.connect(app, fields, now),
            Some(DISCONNECT) => self.disconnect(app, now),
            Some(ASSOC) => self.associate(fields),
            Some(ACKNOWLEDGE) => data(fields, "AcknowledgeAction").map(|_| Action::Ignore),
            _ => return Action::Ignore,
        };
        done.unwrap_or_else(|error| Action::Answer(self.error(action.as_deref().unwrap_or_default(), &error)))
    }

    fn echo(&self, fields: &MessageFields<'_>) -> Result<Action, ErrorText> {
        Ok(Action::Answer(self.say(BASE, data(fields, "BaseAction")?.get())))
    }

    /// To the sockets of its channel, itself among them; from a socket on none, to all that are on none.
    fn broadcast(&mut self, app: &ConveyorApp, fields: &MessageFields<'_>, now: Duration) -> Result<Action, ErrorText> {
        let data = data(fields, "BroadcastAction")?;
        self.may_send(app, data.get().len(), now)?;
        let command = match &self.channel {
            Some(channel) => {
                let event = frames::message_event(frames::payload(data), Some(Sender::Numbered(self.socket)));
                Command::Publish { channel: channel.clone(), event, except: None }
            }
            None => within(Within::NoChannel, frames::for_others(BROADCAST, data.get(), self.socket)),
        };
        Ok(self.send(BROADCAST, command))
    }

    /// To every socket of the dialect.
    fn fan_out(&mut self, app: &ConveyorApp, fields: &MessageFields<'_>, now: Duration) -> Result<Action, ErrorText> {
        let data = data(fields, "FanoutAction")?;
        if !app.is_open() {
            let auth = fields.auth.ok_or(r#"FanoutAction must specify "auth" when authentication is set!"#)?;
            if !message::text(auth).is_some_and(|auth| app.is_server_token(&auth)) {
                return Err("Failed to broadcast fanout".to_owned());
            }
        }
        self.may_send(app, data.get().len(), now)?;
        let command = within(Within::Everybody, frames::for_others(FANOUT, data.get(), self.socket));
        Ok(self.send(FANOUT, command))
    }

    fn send(&mut self, action: &'static str, command: Command) -> Action {
        self.pending = Some(Box::new(ConveyorPending::Send { action }));
        Action::Publish(Box::new(command))
    }

    fn connect(&mut self, app: &ConveyorApp, fields: &MessageFields<'_>, now: Duration) -> Result<Action, ErrorText> {
        let failed = || "Failed to connect to channel".to_owned();
        let name = fields.channel.and_then(|channel| match channel.get().as_bytes()[0] {
            b'"' => message::text(channel),
            b'0'..=b'9' | b'-' => Some(channel.get().to_owned()),
            _ => None,
        });
        let name = name.filter(|name| !name.is_empty()).ok_or(r#"Channel connection must specify "channel"!"#)?;
        let token = if app.is_open() {
            None
        } else {
            let needed = r#"Channel connection must specify "auth" when authentication is set!"#;
            let auth = message::text(fields.auth.ok_or(needed)?).ok_or_else(failed)?;
            if app.is_server_token(&auth) { None } else { Some(temporary(&auth).ok_or_else(failed)?) }
        };
        let to = ChannelName::try_from(name).map_err(|_| failed())?;
        if !app.channels {
            return Err(failed());
        }
        self.may_ask(app, now)?;
        let pending = ConveyorPending::Connect { channel: to.clone(), tells: app.presence };
        self.pending = Some(Box::new(pending));
        let from = self.channel.clone().filter(|from| *from != to);
        Ok(Action::Switch(ChannelSwitch { from, to, token }))
    }

    fn disconnect(&mut self, app: &ConveyorApp, now: Duration) -> Result<Action, ErrorText> {
        let Some(channel) = self.channel.clone() else { return Ok(Action::Ignore) };
        self.may_ask(app, now)?;
        let pending = ConveyorPending::Disconnect { channel: channel.clone(), tells: app.presence };
        self.pending = Some(Box::new(pending));
        Ok(Action::Unsubscribe(channel))
    }

    fn associate(&mut self, fields: &MessageFields<'_>) -> Result<Action, ErrorText> {
        let user = fields.user.and_then(message::number);
        let user = user.ok_or("The userId is required to associate connection to team!")?;
        if self.user.replace(user) == Some(user) {
            return Ok(Action::Ignore);
        }
        // the subscription holds it, too
        let Some(to) = self.channel.clone() else { return Ok(Action::Ignore) };
        self.pending = Some(Box::new(ConveyorPending::Retag));
        Ok(Action::Switch(ChannelSwitch { from: None, to, token: None }))
    }

    fn may_send(&mut self, app: &ConveyorApp, bytes: usize, now: Duration) -> Result<(), ErrorText> {
        if bytes > app.event_data {
            return Err(format!("The data has {bytes} bytes, at most {} are allowed", app.event_data));
        }
        self.may_ask(app, now)
    }

    fn may_ask(&mut self, app: &ConveyorApp, now: Duration) -> Result<(), ErrorText> {
        if self.allowance.take(app.client_events, now) {
            return Ok(());
        }
        Err(format!("Too many messages: at most {} per second", app.client_events))
    }

    /// The channel is another now; all who are on `channel` may be told.
    fn changed(&mut self, now_on: Option<ChannelName>, action: &'static str, channel: ChannelName, tells: bool) {
        self.channel = now_on;
        if tells {
            self.next = Some(Box::new(Action::ListSockets(channel.clone(), frames::MOST_NAMED as u32)));
            self.pending = Some(Box::new(ConveyorPending::List { action, channel }));
        }
    }

    /// Tell those who are there.
    fn listed(&mut self, action: &'static str, channel: ChannelName, there: &SocketTags) {
        let mut there = there.clone();
        match action {
            DISCONNECT => drop(there.remove(&self.socket)),
            _ => drop(there.insert(self.socket, self.user.map(|user| user.to_string()).unwrap_or_default())),
        }
        let data = frames::presence(action, &channel, self.socket, &there);
        self.next = Some(Box::new(Action::Publish(Box::new(within(Within::Channel(channel), data)))));
    }
}

impl Protocol for ConveyorProtocol {
    fn socket_id(&self) -> String {
        u64::from(self.socket).to_string()
    }

    fn greeting(&mut self, _: &Tenants) -> Option<Frame> {
        Some(frames::connection_info(self.variant, self.socket))
    }

    fn receive(&mut self, message: ClientMessage, tenants: &Tenants, now: Duration) -> Result<Action, CloseCause> {
        let text = match message {
            ClientMessage::Text(text) => text,
            // the JavaScript client takes such a message for a ping
            ClientMessage::Binary(bytes) => match ByteString::try_from(bytes) {
                Ok(text) => text,
                Err(_) => return Ok(Action::Ignore),
            },
        };
        // an app that is gone has nothing left to say
        let Some(app) = app(tenants) else { return Ok(Action::Ignore) };
        let fields = match message::read(&text) {
            ConveyorMessage::Text => return Ok(Action::Answer(self.say(BASE, &quote(&text)))),
            ConveyorMessage::Nothing => return Ok(Action::Ignore),
            ConveyorMessage::Object(fields) => fields,
        };
        let action = self.execute(app, &fields, now);
        Ok(match fields.id.filter(|_| self.variant == WITH_IDS).map(frames::acknowledged) {
            None => action,
            Some(first) => match action {
                Action::Ignore => Action::Answer(first),
                action => Action::AnswerFirst(first, Box::new(action)),
            },
        })
    }

    fn tag(&self) -> Option<Box<str>> {
        self.user.map(|user| user.to_string().into())
    }

    fn reply(&mut self, outcome: ActionOutcome<'_>) -> Option<Frame> {
        match (*self.pending.take()?, outcome) {
            (ConveyorPending::Connect { channel, tells }, ActionOutcome::Done) => {
                self.changed(Some(channel.clone()), CONNECT, channel, tells);
                None
            }
            (ConveyorPending::Connect { .. }, _) => Some(self.error(CONNECT, "Failed to connect to channel")),
            (ConveyorPending::Disconnect { channel, tells }, ActionOutcome::Done) => {
                self.changed(None, DISCONNECT, channel, tells);
                None
            }
            (ConveyorPending::List { action, channel }, ActionOutcome::Sockets(there)) => {
                self.listed(action, channel, there);
                None
            }
            (ConveyorPending::Send { action: FANOUT }, ActionOutcome::Failed | ActionOutcome::Denied) => {
                Some(self.error(FANOUT, "Failed to broadcast fanout"))
            }
            (ConveyorPending::Send { action }, ActionOutcome::Failed | ActionOutcome::Denied) => {
                Some(self.error(action, "Failed to broadcast"))
            }
            (
                ConveyorPending::Disconnect { .. }
                | ConveyorPending::List { .. }
                | ConveyorPending::Send { .. }
                | ConveyorPending::Retag,
                _,
            ) => None,
        }
    }

    fn next(&mut self) -> Option<Action> {
        self.next.take().map(|action| *action)
    }
}

/// The data that an action needs; `class` is what the original calls the action in its error.
fn data<'a>(fields: &MessageFields<'a>, class: &str) -> Result<&'a RawValue, ErrorText> {
    fields.data.ok_or_else(|| format!("{class} required 'data' field to be created!"))
}

fn within(to: Within, data: Payload) -> Command {
    Command::WithinDialect { dialect: NAME.to_owned(), to, data }
}
