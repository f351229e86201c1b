//! The WebSocket protocol (pusher.md §2): frames of clients, and the replies.

mod allowance;
pub mod close;
mod entry;
pub mod frames;
mod said;
mod watchlist;

use std::time::Duration;

use serde_json::value::RawValue;

use crate::{
    action::Action,
    dialect::contract::{ClientMessage, Protocol},
    event::{Event, Payload, Sender},
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    member::Member,
    notice::{ActionOutcome, Denial},
    refusal::CloseCause,
    tenants::Tenants,
};

pub use self::allowance::Allowance;
use self::{
    frames::{NotSubscribed, error, quoted},
    said::{ClientFrame, Unreadable},
    watchlist::Watchlist,
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
    member_of: Box<[(ChannelName, UserId)]>,
    /// Who it is, once it has signed in.
    signed_in: Option<Box<SignedIn>>,
    /// How many events it may still publish.
    allowance: Allowance,
}

/// The user that a socket has signed in as.
struct SignedIn {
    /// The user as a member of presence channels, where the client does not say otherwise.
    member: Member,
    /// Is the client subscribed to the user's own channel? Events come with or without that.
    on_own_channel: bool,
}

enum PusherPending {
    SignIn {
        member: Member,
        user_data: String,
        watchlist: Watchlist,
    },
    Enter {
        channel: ChannelName,
        user: Option<UserId>,
    },
    Leave(ChannelName),
    Say(ChannelName),
    /// It has signed in, and watches these users as soon as the slave has taken that.
    Watch(Vec<UserId>),
}

/// The reply to a frame that is refused without asking the slave.
type RefusalFrame = Frame;

impl PusherProtocol {
    pub fn new(app: AppId, socket: SocketId) -> Self {
        Self { app, socket, asked: None, member_of: Box::default(), signed_in: None, allowance: Allowance::default() }
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
        if let Some(user) = names::user_of(&wish.channel) {
            return match self.enter_own_channel(user, &wish.channel) {
                Ok(said) => Action::Answer(said),
                Err(why) => refuse(&wish.channel, why.reason, why.told(&wish.channel)),
            };
        }
        let user = self.signed_in.as_ref().map(|signed_in| &signed_in.member);
        let entry = match entry::judge(app, self.socket, user, &wish) {
            Ok(entry) => entry,
            Err(why) => return refuse(&wish.channel, why.reason, why.told(&wish.channel)),
        };
        let user = entry.member.as_ref().map(|member| member.user.clone());
        self.asked = Some(Box::new(PusherPending::Enter { channel: entry.channel.clone(), user }));
        Action::Enter(entry)
    }

    /// Subscribe to the channel of `user`, which is the socket's own user. What is sent to users finds them by their ids,
    /// so this is between the client and us.
    fn enter_own_channel(&mut self, user: &str, channel: &str) -> Result<Frame, NotSubscribed> {
        match &mut self.signed_in {
            Some(own) if own.member.user.as_str() == user => {
                let is_on = std::mem::replace(&mut own.on_own_channel, true);
                Ok(if is_on { is_on_already(channel) } else { frames::succeeded(channel) })
            }
            _ => Err(NotSubscribed::unauthorized(
                "not_signed_in",
                format!("Channel {} is for the user who has signed in as that one", quoted(channel)),
            )),
        }
    }

    /// Be the socket of a user, for whom the app's backend has signed.
    fn sign_in(&mut self, app: &PusherApp, data: Option<&RawValue>) -> Result<Action, RefusalFrame> {
        let no = |words: &str| not_signed_in(words);
        let sign_in = said::sign_in(data)
            .ok_or_else(|| no("Invalid data: it must be a JSON object whose auth and user_data are strings"))?;
        let (member, watchlist) = entry::signed_in(app, self.socket, &sign_in).map_err(|words| no(&words))?;
        let user = member.user.clone();
        self.asked =
            Some(Box::new(PusherPending::SignIn { member, user_data: sign_in.user_data.into_owned(), watchlist }));
        Ok(Action::Identify(user))
    }

    fn unsubscribe(&mut self, data: Option<&RawValue>) -> Result<Action, RefusalFrame> {
        // only the channel counts; nobody is on one that cannot have that name
        let channel = said::channel(data).ok_or_else(|| error(None, said::NO_CHANNEL))?;
        if let Some(own) = &mut self.signed_in
            && names::user_of(&channel) == Some(own.member.user.as_str())
            && std::mem::take(&mut own.on_own_channel)
        {
            return Ok(Action::Ignore);
        }
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
            let mut channels = std::mem::take(&mut self.member_of).into_vec();
            channels.push((channel.clone(), user));
            self.member_of = channels.into_boxed_slice();
        }
    }

    fn left(&mut self, channel: &ChannelName) {
        if self.member_of.iter().any(|(name, _)| name == channel) {
            let mut channels = std::mem::take(&mut self.member_of).into_vec();
            channels.retain(|(name, _)| name != channel);
            self.member_of = channels.into_boxed_slice();
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
                "pusher:signin" => self.app(tenants).and_then(|app| self.sign_in(app, said.data)),
                event if event.starts_with("client-") => {
                    self.app(tenants).and_then(|app| self.say(app, event, &said, now))
                }
                event => Err(error(None, &format!("Unsupported event received on socket: '{}'", quoted(event)))),
            },
        };
        Ok(answer.unwrap_or_else(Action::Answer))
    }

    fn authorize_within(&self, tenants: &Tenants) -> Option<Duration> {
        self.app(tenants).ok()?.authorize_within
    }

    fn take_watchlist(&mut self) -> Vec<UserId> {
        match self.asked.take().map(|asked| *asked) {
            Some(PusherPending::Watch(users)) => users,
            _ => Vec::new(),
        }
    }

    fn reply(&mut self, outcome: ActionOutcome<'_>) -> Option<Frame> {
        match (*self.asked.take()?, outcome) {
            (PusherPending::SignIn { member, user_data, watchlist }, ActionOutcome::Done) => {
                let on_own_channel = self.signed_in.as_ref().is_some_and(|before| before.on_own_channel);
                let Watchlist { users, too_long } = watchlist;
                self.signed_in = Some(Box::new(SignedIn { member, on_own_channel }));
                self.asked = (!users.is_empty()).then(|| Box::new(PusherPending::Watch(users)));
                let success = frames::signed_in(&user_data);
                Some(match too_long {
                    Some(count) => success.then(watchlist_too_long(count)),
                    None => success,
                })
            }
            (PusherPending::SignIn { .. }, _) => {
                Some(not_signed_in("this connection has signed in as another user, and stays that one"))
            }
            (PusherPending::Enter { channel, user }, ActionOutcome::Done) => {
                self.entered(&channel, user);
                Some(frames::succeeded(channel.as_str()))
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
            (PusherPending::Leave(_) | PusherPending::Say(_) | PusherPending::Watch(_), _) => None,
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
        Denial::AlreadyThere => return is_on_already(channel.as_str()),
        Denial::TooManySubscriptions { most } => format!("A connection may have {most} subscriptions"),
        Denial::Full { most } => format!("Presence channel {channel} is full: it may have {most} members"),
    };
    NotSubscribed::limit(words).told(channel.as_str())
}

fn is_on_already(channel: &str) -> Frame {
    error(None, &format!("Existing subscription to channel {channel}"))
}

/// A sign-in is refused; the socket stays as it was.
fn not_signed_in(words: &str) -> Frame {
    error(Some(4009), &format!("Connection not authorized: {words}"))
}

/// The socket has signed in, and watches fewer than it wanted.
fn watchlist_too_long(count: usize) -> Frame {
    let most = watchlist::MOST;
    error(Some(4302), &format!("The watchlist has {count} user ids: the first {most} are watched, the others are not"))
}

fn no_subscription(channel: &str) -> Frame {
    error(None, &format!("No current subscription to channel {}, or subscription in progress", quoted(channel)))
}

fn not_on(channel: &str) -> String {
    format!("Cannot broadcast client event (connection not subscribed to channel {})", quoted(channel))
}

#[cfg(test)]
mod tests;
