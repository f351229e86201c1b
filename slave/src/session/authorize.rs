//! What a session does about an action of its client. Pure: an action and a view of the socket in, an effect out.

use wellhead_proto::{
    action::{Action, AuthorizedSubscribe, ChannelSwitch},
    command::Command,
    event::Event,
    frame::Frame,
    ids::{ChannelName, UserId},
    notice::Denial,
};

use crate::registry::LocalSocketView;

/// What a socket is subscribed to and may subscribe to, at this moment.
pub trait SocketView {
    /// May it subscribe to this channel?
    fn may_subscribe(&self, channel: &ChannelName) -> bool;
    /// Is it on this channel?
    fn is_on(&self, channel: &ChannelName) -> bool;
    /// How many channels it is on.
    fn subscriptions(&self) -> usize;
}

impl SocketView for LocalSocketView<'_> {
    fn may_subscribe(&self, channel: &ChannelName) -> bool {
        self.may_subscribe(channel)
    }

    fn is_on(&self, channel: &ChannelName) -> bool {
        self.is_on(channel)
    }

    fn subscriptions(&self) -> usize {
        self.subscriptions()
    }
}

/// What the session does.
#[derive(Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Send this.
    Answer(Frame),
    /// Send this, which refuses a subscribe.
    RejectSubscribe {
        /// The channel.
        channel: String,
        /// Why.
        reason: &'static str,
        /// What is sent.
        says: Frame,
    },
    /// Refuse the subscribe to these, for this reason.
    DenySubscribe(Vec<ChannelName>, &'static str),
    /// Say what time it is.
    TellTime,
    /// Say what the socket may subscribe to.
    TellGrants,
    /// Refuse.
    Deny,
    /// Refuse the subscribe to this channel, for this reason.
    Denial(ChannelName, Denial),
    /// Subscribe it to these channels and answer in one step.
    Join(Vec<ChannelName>),
    /// Subscribe it to one, perhaps as a member, and answer in one step.
    Enter(AuthorizedSubscribe),
    /// Make it that of this user and answer.
    Identify(UserId),
    /// Publish this to the others on the channel.
    Say(ChannelName, Event),
    /// Unsubscribe it from the channel and answer.
    Leave(ChannelName),
    /// Send this, and then do what that comes to.
    AnswerFirst(Frame, Box<Action>),
    /// Leave one channel for another and answer.
    Switch(ChannelSwitch),
    /// Publish this.
    Publish(Box<Command>),
    /// Say which sockets of its dialect are on this channel, so many of each slave at most.
    ListSockets(ChannelName, u32),
}

/// What `action` comes to for such a socket, which may have `most` subscriptions.
pub fn authorize(action: Action, socket: &impl SocketView, most: usize) -> Effect {
    match action {
        Action::Ignore => Effect::Nothing,
        Action::Answer(frame) => Effect::Answer(frame),
        Action::RejectSubscribe { channel, reason, says } => Effect::RejectSubscribe { channel, reason, says },
        Action::Ping => Effect::TellTime,
        Action::ListGrants => Effect::TellGrants,
        Action::Subscribe(channels) => {
            // the cheapest check comes first: too many channels are refused before any of them is looked at
            if channels.len() > most {
                return Effect::DenySubscribe(channels, "too_many_subscriptions");
            }
            // counted as if all were distinct: a client that names one twice near the limit is refused
            let new = channels.iter().filter(|channel| !socket.is_on(channel)).count();
            let fits = new == 0 || socket.subscriptions() + new <= most;
            if !fits {
                return Effect::DenySubscribe(channels, "too_many_subscriptions");
            }
            if channels.iter().all(|channel| socket.may_subscribe(channel)) {
                Effect::Join(channels)
            } else {
                Effect::DenySubscribe(channels, "not_permitted")
            }
        }
        Action::Enter(entry) if socket.is_on(&entry.channel) => Effect::Denial(entry.channel, Denial::AlreadyThere),
        Action::Enter(entry) if socket.subscriptions() >= most => {
            Effect::Denial(entry.channel, Denial::TooManySubscriptions { most })
        }
        Action::Enter(entry) => Effect::Enter(entry),
        Action::Identify(user) => Effect::Identify(user),
        Action::Say { channel, event } if socket.is_on(&channel) => Effect::Say(channel, event),
        Action::Say { .. } => Effect::Deny,
        // leaving is always allowed to those who are there, whatever became of their permission
        Action::Unsubscribe(channel) if socket.is_on(&channel) || socket.may_subscribe(&channel) => {
            Effect::Leave(channel)
        }
        Action::Unsubscribe(_) => Effect::Deny,
        Action::AnswerFirst(frame, action) => Effect::AnswerFirst(frame, action),
        Action::Switch(ChannelSwitch { from: None, ref to, .. })
            if !socket.is_on(to) && socket.subscriptions() >= most =>
        {
            Effect::Deny
        }
        Action::Switch(switch) => Effect::Switch(switch),
        Action::Publish(command) => match &*command {
            Command::Publish { channel, .. } if !socket.is_on(channel) => Effect::Deny,
            _ => Effect::Publish(command),
        },
        Action::ListSockets(channel, most) => Effect::ListSockets(channel, most),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use wellhead_proto::{
        channel::{ChannelPattern, allowed},
        event::Payload,
    };

    use super::*;

    struct Fake {
        grants: Vec<ChannelPattern>,
        on: Vec<ChannelName>,
        /// How often something was looked up.
        asked: Cell<usize>,
    }

    impl SocketView for Fake {
        fn may_subscribe(&self, channel: &ChannelName) -> bool {
            self.asked.set(self.asked.get() + 1);
            allowed(&self.grants, channel)
        }

        fn is_on(&self, channel: &ChannelName) -> bool {
            self.asked.set(self.asked.get() + 1);
            self.on.contains(channel)
        }

        fn subscriptions(&self) -> usize {
            self.on.len()
        }
    }

    fn channels(names: &[&str]) -> Vec<ChannelName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn decide_for(grants: &[&str], on: &[&str], action: Action) -> Effect {
        let grants = grants.iter().map(|&grant| grant.try_into().unwrap()).collect();
        authorize(action, &Fake { grants, on: channels(on), asked: Cell::default() }, 3)
    }

    #[test]
    fn all_channels_are_joined_or_none() {
        let subscribe = |names| Action::Subscribe(channels(names));
        assert_eq!(decide_for(&["a*"], &[], subscribe(&["ab", "ac"])), Effect::Join(channels(&["ab", "ac"])));
        let denied = |names| Effect::DenySubscribe(channels(names), "not_permitted");
        assert_eq!(decide_for(&["a*"], &[], subscribe(&["ab", "b"])), denied(&["ab", "b"]));
        assert_eq!(decide_for(&[], &[], subscribe(&["a"])), denied(&["a"]));
    }

    #[test]
    fn the_limit_counts_new_channels_only() {
        let subscribe = |names| Action::Subscribe(channels(names));
        assert!(matches!(decide_for(&["*"], &["a", "b"], subscribe(&["c"])), Effect::Join(_)));
        let denied = |names| Effect::DenySubscribe(channels(names), "too_many_subscriptions");
        assert_eq!(decide_for(&["*"], &["a", "b"], subscribe(&["c", "d"])), denied(&["c", "d"]));
        assert!(matches!(decide_for(&["*"], &["a", "b", "c"], subscribe(&["a", "c"])), Effect::Join(_)));
        assert_eq!(decide_for(&["*"], &["a", "b", "c"], subscribe(&["d"])), denied(&["d"]));
    }

    #[test]
    fn who_names_more_channels_than_anybody_may_have_costs_nothing() {
        let fake = Fake { grants: vec!["*".try_into().unwrap()], on: Vec::new(), asked: Cell::default() };
        let many: Vec<_> = (0..7_000).map(|no| format!("c{no}").parse().unwrap()).collect();
        let denied = |names: &[ChannelName]| Effect::DenySubscribe(names.to_vec(), "too_many_subscriptions");
        assert_eq!(authorize(Action::Subscribe(many.clone()), &fake, 1_000), denied(&many));
        assert_eq!(fake.asked.get(), 0);
        // the same channel over and over, too
        let fake = Fake { on: channels(&["a"]), ..fake };
        let many = channels(&["a"; 5]);
        assert_eq!(authorize(Action::Subscribe(many.clone()), &fake, 4), denied(&many));
        assert_eq!(fake.asked.get(), 0);
    }

    #[test]
    fn leaving_needs_a_permission_or_a_subscription() {
        let unsubscribe = |name: &str| Action::Unsubscribe(name.parse().unwrap());
        assert!(matches!(decide_for(&["a"], &[], unsubscribe("a")), Effect::Leave(_)));
        assert!(matches!(decide_for(&[], &["a"], unsubscribe("a")), Effect::Leave(_)));
        assert_eq!(decide_for(&["a"], &[], unsubscribe("b")), Effect::Deny);
    }
    #[test]
    fn entering_needs_no_permission_but_room() {
        let enter = |name: &str| {
            Action::Enter(AuthorizedSubscribe {
                channel: name.parse().unwrap(),
                member: None,
                most_members: 1,
                signed: true,
            })
        };
        assert!(matches!(decide_for(&[], &[], enter("a")), Effect::Enter(_)));
        assert!(matches!(decide_for(&[], &["a", "b"], enter("c")), Effect::Enter(_)));
        let barred = |name: &str, denial| Effect::Denial(name.parse().unwrap(), denial);
        assert_eq!(decide_for(&["*"], &["a"], enter("a")), barred("a", Denial::AlreadyThere));
        let full = barred("d", Denial::TooManySubscriptions { most: 3 });
        assert_eq!(decide_for(&["*"], &["a", "b", "c"], enter("d")), full);
        assert_eq!(decide_for(&["*"], &["a", "b", "c"], enter("a")), barred("a", Denial::AlreadyThere));
    }

    #[test]
    fn only_those_who_are_there_say_something() {
        let say = |name: &str| Action::Say {
            channel: name.parse().unwrap(),
            event: Event::new("e".parse().unwrap(), Payload::null()),
        };
        assert!(matches!(decide_for(&[], &["a"], say("a")), Effect::Say(..)));
        assert_eq!(decide_for(&["*"], &["a"], say("b")), Effect::Deny);
    }
}
