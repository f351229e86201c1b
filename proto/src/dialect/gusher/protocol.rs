//! The WebSocket protocol (gusher.md §5): commands of clients, replies, events.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    action::Action,
    channel::ChannelPattern,
    dialect::contract::{ClientMessage, Protocol},
    event::{Event, escaped, quote},
    frame::{Frame, SharedFrame},
    ids::{AppId, ChannelName, SocketId, SocketIdSeal, UserId},
    notice::{ActionOutcome, Notice},
    refusal::CloseCause,
    remote::RemoteCall,
    tenants::Tenants,
};

use super::remote::{RemoteAccess, WrittenRemote};

/// What is remembered of one socket.
pub struct GusherProtocol {
    socket: SocketId,
    seal: SocketIdSeal,
    /// What the action under way is about; the outcome decides how its reply ends. Most sockets are idle: it is kept small.
    asked: Option<Box<GusherPending>>,
    remotes: RemoteAccess,
}

enum GusherPending {
    Ping(Box<str>),
    /// A command whose reply is `<event>_succeeded` or `<event>_error`, with this data either way.
    GusherCommand {
        event: &'static str,
        data: Box<str>,
    },
    Grants,
}

const SUBSCRIBE: &str = "gusher.subscribe";

/// A client's command. Other keys are ignored; a repeated key is malformed.
#[derive(Deserialize)]
struct GusherCommand<'a> {
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct OneChannel {
    channel: String,
}

/// What stands beside the data of a remote command.
#[derive(Deserialize)]
struct RemoteOptions<'a> {
    #[serde(borrow, default)]
    debug: Option<&'a RawValue>,
}

impl GusherProtocol {
    pub fn new(socket: SocketId, seal: SocketIdSeal) -> Self {
        Self { socket, seal, asked: None, remotes: RemoteAccess::Unknown }
    }

    /// A reply: `event`, `socket_id`, `data` in this order, and `time` last for a pong.
    fn frame(&self, event: &str, data: &str, time: Option<u64>) -> Frame {
        let socket = self.seal.print(self.socket);
        let mut text = format!(r#"{{"event":"{event}","socket_id":"{socket}","data":{data}"#);
        if let Some(time) = time {
            let _ = write!(text, r#","time":{time}"#);
        }
        text.push('}');
        Frame::text(&text)
    }

    /// A reply that does not depend on the slave.
    fn at_once(&self, event: &str, data: &str) -> Action {
        Action::Answer(self.frame(event, data, None))
    }

    /// The same to a subscribe whose name no channel can have.
    fn refuse(&self, event: &str, channel: String, data: &str) -> Action {
        Action::RejectSubscribe { channel, reason: "bad_name", says: self.frame(&format!("{event}_error"), data, None) }
    }

    fn ask(&mut self, event: &'static str, data: String, action: Action) -> Action {
        self.asked = Some(Box::new(GusherPending::GusherCommand { event, data: data.into() }));
        action
    }

    fn one_channel(
        &mut self,
        event: &'static str,
        data: &RawValue,
        action: impl FnOnce(ChannelName) -> Action,
    ) -> Result<Action, CloseCause> {
        let OneChannel { channel } = parse(data)?;
        let shown = format!(r#"{{"channel":{}}}"#, quote(&channel));
        Ok(match joinable(&channel) {
            Some(name) => self.ask(event, shown, action(name)),
            None if event == SUBSCRIBE => self.refuse(event, channel, &shown),
            None => self.at_once(&format!("{event}_error"), &shown),
        })
    }

    /// A command for the backend. Its answer waits for nothing, and nothing waits for it.
    fn remote(
        &mut self,
        message: &str,
        data: &RawValue,
        tenants: &Tenants,
        now: Duration,
    ) -> Result<Action, CloseCause> {
        let written: WrittenRemote<'_> = parse(data)?;
        let RemoteOptions { debug } = object(message)?;
        let shown = format!(r#"{{"remote":{},"msg":null}}"#, quote(&written.remote));
        let failed = self.frame("gusher.remote_error", &shown, None);
        let is_debugged = debug.is_some_and(|debug| debug.get() == "true");
        let taken = is_debugged.then(|| self.frame("gusher.remote_succeeded", &shown, None));
        Ok(match self.remotes.ask(&self.seal.print(self.socket), &written, tenants, now) {
            Ok(body) => Action::Call(RemoteCall { body, taken, failed }),
            Err(reason) => Action::RejectCall { reason, says: failed },
        })
    }

    fn many_channels(&mut self, data: &RawValue) -> Result<Action, CloseCause> {
        const EVENT: &str = "gusher.multi_subscribe";

        // whatever is no list counts as an empty one, and a number in it as its text, as in the original
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum ChannelItem {
            Name(String),
            Number(serde_json::Number),
        }
        #[derive(Deserialize)]
        struct Channels<'a> {
            #[serde(borrow, default)]
            multi_channel: Option<&'a RawValue>,
        }
        let Channels { multi_channel } = parse(data)?;
        let items: Vec<ChannelItem> =
            multi_channel.and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default();
        let names: Vec<String> = items
            .into_iter()
            .map(|item| match item {
                ChannelItem::Name(name) => name,
                ChannelItem::Number(number) => number.to_string(),
            })
            .collect();
        let shown = format!(r#"{{"channel":{}}}"#, list(names.iter().map(String::as_str)));
        let channels: Option<Vec<_>> = names.iter().map(|name| joinable(name)).collect();
        Ok(match channels {
            Some(channels) if !channels.is_empty() => self.ask(EVENT, shown, Action::Subscribe(channels)),
            _ => self.refuse(EVENT, names.join(" "), &shown),
        })
    }
}

impl Protocol for GusherProtocol {
    fn socket_id(&self) -> String {
        self.seal.print(self.socket)
    }

    fn allow_remotes(&mut self, app: &AppId, user: &UserId, commands: Vec<String>) {
        self.remotes = RemoteAccess::new(app, user, commands);
    }

    fn receive(&mut self, message: ClientMessage, tenants: &Tenants, now: Duration) -> Result<Action, CloseCause> {
        let ClientMessage::Text(text) = message else {
            return Err(CloseCause::UnsupportedData);
        };
        let GusherCommand { event, data } = object(&text)?;
        match &*event {
            "gusher.ping" => {
                self.asked = Some(Box::new(GusherPending::Ping(data.get().into())));
                Ok(Action::Ping)
            }
            SUBSCRIBE => self.one_channel(SUBSCRIBE, data, |channel| Action::Subscribe(vec![channel])),
            "gusher.multi_subscribe" => self.many_channels(data),
            "gusher.unsubscribe" => self.one_channel("gusher.unsubscribe", data, Action::Unsubscribe),
            "gusher.querychannel" => {
                self.asked = Some(Box::new(GusherPending::Grants));
                Ok(Action::ListGrants)
            }
            "gusher.remote" if !matches!(self.remotes, RemoteAccess::Unknown) => self.remote(&text, data, tenants, now),
            _ => Err(CloseCause::InvalidMessage),
        }
    }

    fn reply(&mut self, outcome: ActionOutcome<'_>) -> Option<Frame> {
        Some(match (*self.asked.take()?, outcome) {
            (GusherPending::Ping(data), ActionOutcome::Here { unix_seconds }) => {
                self.frame("gusher.pong_succeeded", &data, Some(unix_seconds))
            }
            (GusherPending::Grants, ActionOutcome::Grants(grants)) => {
                let data = format!(r#"{{"channels":{}}}"#, patterns(grants));
                self.frame("gusher.querychannel_succeeded", &data, None)
            }
            (GusherPending::GusherCommand { event, data }, ActionOutcome::Done) => {
                self.frame(&format!("{event}_succeeded"), &data, None)
            }
            (GusherPending::GusherCommand { event, data }, _) => self.frame(&format!("{event}_error"), &data, None),
            (GusherPending::Ping(_) | GusherPending::Grants, _) => return None,
        })
    }
}

/// What a client did not ask for, the same for everyone who gets it. Of members gusher knows nothing.
pub fn encode(notice: Notice<'_>) -> Option<SharedFrame> {
    let frame = match notice {
        Notice::Event { channel, event } => return Some(SharedFrame::Whole(published(channel, event))),
        Notice::Direct { data, .. } => Frame::text(&data.to_json()),
        Notice::DirectEvent { event, .. } => Frame::text(&event.to_payload().to_json()),
        Notice::Reloaded(channels) => {
            permission("gusher.reloadchannel", &format!(r#"{{"channels":{}}}"#, patterns(channels)))
        }
        Notice::Granted(channel) => {
            permission("gusher.addchannel", &format!(r#"{{"channel":{}}}"#, quote(channel.as_str())))
        }
        Notice::Members { .. } | Notice::SubscriptionCount { .. } | Notice::Watched { .. } => return None,
    };
    Some(frame.into())
}

/// `{"channel","event","data"}`.
fn published(channel: &ChannelName, event: &Event) -> Bytes {
    let data = event.data.to_json();
    let (channel, name) = (escaped(channel.as_str()), escaped(event.name.as_str()));
    Frame::text_of(&[r#"{"channel":""#, &channel, r#"","event":""#, &name, r#"","data":"#, &data, "}"])
}

/// Permission events carry no socket id: they go to every socket of the user (gusher.md §5.9).
fn permission(event: &str, data: &str) -> Frame {
    Frame::text(&format!(r#"{{"event":"{event}","socket_id":"","data":{data}}}"#))
}

fn parse<'a, T: Deserialize<'a>>(data: &'a RawValue) -> Result<T, CloseCause> {
    object(data.get())
}

/// serde would take a list of a struct's values for the struct; the protocol knows objects only.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, CloseCause> {
    if !text.trim_start().starts_with('{') {
        return Err(CloseCause::InvalidMessage);
    }
    serde_json::from_str(text).map_err(|_| CloseCause::InvalidMessage)
}

/// A name that somebody could be on: neither empty nor too long.
fn joinable(name: &str) -> Option<ChannelName> {
    ChannelName::try_from(name).ok().filter(|_| !name.is_empty())
}

fn patterns(patterns: &[ChannelPattern]) -> String {
    list(patterns.iter().map(ChannelPattern::as_str))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(quote).collect();
    format!("[{}]", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn receive(text: &str) -> Result<Action, CloseCause> {
        let socket = SocketId::new(NodeId::from_random(1), 1);
        let mut talk = GusherProtocol::new(socket, SocketIdSeal::new(b"secret"));
        talk.receive(ClientMessage::Text(text.into()), &Tenants::default(), Duration::ZERO)
    }

    /// Held as often as there are sockets.
    #[test]
    fn a_socket_is_remembered_in_little() {
        assert!(size_of::<GusherProtocol>() <= 48, "{}", size_of::<GusherProtocol>());
    }

    #[test]
    fn a_command_and_its_data_are_objects() {
        assert_eq!(receive(r#" {"event":"gusher.ping","data":[1]}"#), Ok(Action::Ping));
        let news = Action::Subscribe(vec!["news".parse().unwrap()]);
        assert_eq!(receive(r#"{"event":"gusher.subscribe","data": {"channel":"news"}}"#), Ok(news));
        for text in [
            r#"["gusher.ping",1]"#,
            r#"{"event":"gusher.subscribe","data":["news"]}"#,
            r#"{"event":"gusher.unsubscribe","data":["news"]}"#,
            r#"{"event":"gusher.multi_subscribe","data":[["news"]]}"#,
            r#"{"event":"gusher.remote","data":["cmd","uid",1]}"#,
        ] {
            assert_eq!(receive(text), Err(CloseCause::InvalidMessage), "{text}");
        }
    }
}
