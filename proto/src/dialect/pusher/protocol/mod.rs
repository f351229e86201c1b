//! The WebSocket protocol (pusher.md §2): frames of clients, and the replies.

mod allowance;
pub mod close;
mod entry;
pub mod frames;
mod said;

use std::time::Duration;

use serde_json::value::RawValue;

use crate::{
    action::Action,
    dialect::contract::{ClientMessage, Protocol},
    event::{Event, Payload, Sender},
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    notice::{ActionOutcome, Denial},
    refusal::CloseCause,
    tenants::Tenants,
};

use self::{
    allowance::Allowance,
    frames::{NotSubscribed, error, quoted},
    said::{ClientFrame, Unreadable},
};
use super::{
    AppLimits,
    apps::PusherApp,
    json::text,
    names::{self, ChannelKind},
};

/// What is remembered of one socket. Most sockets are idle: it is kept small.
pub struct PusherProtocol {
    app: AppId,
    socket: SocketId,
    /// What the action under way is about.
    asked: Option<Box<PusherPending>>,
    /// The presence channels of the socket, with the member that it is there.
    member_of: Vec<(ChannelName, UserId)>,
    /// How many events it may still publish.
    allowance: Allowance,
}

enum PusherPending {
    Enter { channel: ChannelName, user: Option<UserId> },
    Leave(ChannelName),
    Say(ChannelName),
}

/// The reply to a frame that is refused without asking the slave.
type RefusalFrame = Frame;

impl PusherProtocol {
    pub fn new(app: AppId, socket: SocketId) -> Self {
        Self { app, socket, asked: None, member_of: Vec::new(), allowance: Allowance::default() }
    }

    fn subscribe(&mut self, app: &PusherApp, data: Option<&RawValue>) -> Action {
        let refuse =
            |channel: &str, reason, says| Action::RejectSubscribe { channel: channel.to_owned(), reason, says };
        let wish = match said::wish(data) {
            Ok(wish) => wish,
            Err(Unreadable { channel }) => {
                let channel = channel.as_deref();
                return refuse(channel.unwrap_or_default(), "malformed", unreadable(channel));
            }
        };
        let entry = match entry::judge(app, self.socket, &wish) {
            Ok(entry) => entry,
            Err(why) => return refuse(&wish.channel, why.reason, why.told(&wish.channel)),
        };
        let user = entry.member.as_ref().map(|member| member.user.clone());
        self.asked = Some(Box::new(PusherPending::Enter { channel: entry.channel.clone(), user }));
        Action::Enter(entry)
    }

    fn unsubscribe(&mut self, data: Option<&RawValue>) -> Result<Action, RefusalFrame> {
        // only the channel counts; nobody is on one that cannot have that name
        let channel = said::channel(data).ok_or_else(|| error(None, said::NO_CHANNEL))?;
        let channel = ChannelName::try_from(&*channel).map_err(|_| no_subscription(&channel))?;
        self.asked = Some(Box::new(PusherPending::Leave(channel.clone())));
        Ok(Action::Unsubscribe(channel))
    }

    fn say(
        &mut self,
        app: &PusherApp,
        event: &str,
        said: &ClientFrame<'_>,
        now: Duration,
    ) -> Result<Action, RefusalFrame> {
        let no = |words: &str| error(None, words);
        if !app.client_events {
            return Err(no(
                "To send client events, you must enable this feature in the Settings page of your dashboard.",
            ));
        }
        let channel = said.channel.and_then(text).ok_or_else(|| no("A client event needs a channel"))?;
        if ChannelKind::of(&channel) == ChannelKind::Public {
            return Err(no("Client events are only supported on private and presence channels"));
        }
        let limits = &app.limits;
        let too_long = || no(&format!("The event name is too long: it may have {} characters", limits.event_name));
        if event.chars().count() > limits.event_name {
            return Err(too_long());
        }
        let name = event.try_into().map_err(|_| too_long())?;
        let data = match said.data {
            // a string stays one; whatever else it is stays what it is
            Some(data) if data.get().starts_with('"') => {
                Payload::Text(text(data).ok_or_else(|| no("The data is not a string of Unicode"))?.into_owned().into())
            }
            Some(data) => Payload::from_raw(data),
            None => Payload::Absent,
        };
        let most = limits.event_data.bytes();
        if data.len() > most {
            return Err(no(&format!("The data content of this event exceeds the allowed maximum ({most} bytes)")));
        }
        let not_there = || no(&not_on(&channel));
        let channel = names::channel(&channel, limits.channel_name.bytes()).map_err(|_| not_there())?;
        if !self.allowance.take(limits.client_events, now) {
            let words = format!("The client event has been rejected: more than {} per second", limits.client_events);
            return Err(error(Some(4301), &words));
        }
        let member = self.member_of.iter().find(|(name, _)| *name == channel);
        let sender = member.map_or(Sender::Socket, |(_, user)| Sender::Member(user.clone()));
        self.asked = Some(Box::new(PusherPending::Say(channel.clone())));
        Ok(Action::Say { channel, event: Event { name, data, sender: Some(sender) } })
    }

    /// The app as it is now. It may be gone, with the socket still open.
    fn app<'t>(&self, tenants: &'t Tenants) -> Result<&'t PusherApp, RefusalFrame> {
        let gone = || error(Some(4001), &format!("App key {} not in this cluster any more", self.app));
        tenants.app(&self.app).of().ok_or_else(gone)
    }

    /// The socket is on the channel, as this member if the channel has members.
    fn entered(&mut self, channel: &ChannelName, user: Option<UserId>) {
        if let Some(user) = user {
            self.member_of.push((channel.clone(), user));
        }
    }

    fn left(&mut self, channel: &ChannelName) {
        self.member_of.retain(|(name, _)| name != channel);
        if self.member_of.is_empty() {
            self.member_of = Vec::new();
        }
    }
}

impl Protocol for PusherProtocol {
    fn socket_id(&self) -> String {
        self.socket.to_string()
    }

    fn greeting(&mut self, tenants: &Tenants) -> Option<Frame> {
        let timeout = match self.app(tenants) {
            Ok(app) => app.limits.activity_timeout,
            Err(_) => AppLimits::default().activity_timeout,
        };
        Some(frames::established(self.socket, timeout.0))
    }

    fn receive(&mut self, message: ClientMessage, tenants: &Tenants, now: Duration) -> Result<Action, CloseCause> {
        let ClientMessage::Text(message) = message else {
            return Err(CloseCause::UnsupportedData);
        };
        let answer = match said::read(&message) {
            Err(words) => Err(error(None, words)),
            Ok((event, said)) => match &*event {
                "pusher:ping" => Ok(Action::Answer(frames::pong())),
                "pusher:pong" => Ok(Action::Ignore),
                "pusher:subscribe" => self.app(tenants).map(|app| self.subscribe(app, said.data)),
                "pusher:unsubscribe" => self.unsubscribe(said.data),
                event if event.starts_with("client-") => {
                    self.app(tenants).and_then(|app| self.say(app, event, &said, now))
                }
                event => Err(error(None, &format!("Unsupported event received on socket: '{}'", quoted(event)))),
            },
        };
        Ok(answer.unwrap_or_else(Action::Answer))
    }

    fn reply(&mut self, outcome: ActionOutcome<'_>) -> Option<Frame> {
        match (*self.asked.take()?, outcome) {
            (PusherPending::Enter { channel, user }, ActionOutcome::Done) => {
                self.entered(&channel, user);
                Some(frames::succeeded(&channel))
            }
            (PusherPending::Enter { channel, user }, ActionOutcome::Joined { members }) => {
                self.entered(&channel, user);
                Some(frames::succeeded_with(&channel, members))
            }
            (PusherPending::Enter { channel, .. }, ActionOutcome::Barred(denial)) => Some(denied(&channel, denial)),
            (PusherPending::Enter { channel, .. }, _) => Some(
                NotSubscribed::limit(format!("Channel {channel} cannot be subscribed to now")).told(channel.as_str()),
            ),
            (PusherPending::Leave(channel), ActionOutcome::Done) => {
                self.left(&channel);
                None
            }
            (PusherPending::Leave(channel), ActionOutcome::Denied) => Some(no_subscription(channel.as_str())),
            (PusherPending::Say(channel), ActionOutcome::Denied) => Some(error(None, &not_on(channel.as_str()))),
            (PusherPending::Say(channel), ActionOutcome::Failed) => Some(error(
                None,
                &format!("Client event lost: channel {channel} cannot be reached now, try again later"),
            )),
            (PusherPending::Leave(_) | PusherPending::Say(_), _) => None,
        }
    }
}

/// A subscribe that cannot be parsed is refused like any other if it names its channel.
fn unreadable(channel: Option<&str>) -> RefusalFrame {
    match channel {
        Some(channel) => NotSubscribed::malformed(said::NO_WISH).told(channel),
        None => error(None, said::NO_WISH),
    }
}

fn denied(channel: &ChannelName, denial: Denial) -> Frame {
    let words = match denial {
        // it stays subscribed: the client must not take this for an error of the channel
        Denial::AlreadyThere => return error(None, &format!("Existing subscription to channel {channel}")),
        Denial::TooManySubscriptions { most } => format!("A connection may have {most} subscriptions"),
        Denial::Full { most } => format!("Presence channel {channel} is full: it may have {most} members"),
    };
    NotSubscribed::limit(words).told(channel.as_str())
}

fn no_subscription(channel: &str) -> Frame {
    error(None, &format!("No current subscription to channel {}, or subscription in progress", quoted(channel)))
}

fn not_on(channel: &str) -> String {
    format!("Cannot broadcast client event (connection not subscribed to channel {})", quoted(channel))
}

#[cfg(test)]
mod tests;
