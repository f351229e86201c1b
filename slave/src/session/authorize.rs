//! What a session does about an action of its client. Pure: an action and a view of the socket in, an effect out.

use wellhead_proto::{
    action::{Action, Entry},
    event::Event,
    frame::Frame,
    ids::ChannelName,
    notice::Bar,
};

use crate::registry::LocalSocketView;

/// What a socket may do and does, at this moment.
pub trait SocketView {
    /// May it subscribe to this channel?
    fn may_join(&self, channel: &ChannelName) -> bool;
    /// Is it on this channel?
    fn is_on(&self, channel: &ChannelName) -> bool;
    /// How many channels it is on.
    fn subscriptions(&self) -> usize;
}

impl SocketView for LocalSocketView<'_> {
    fn may_join(&self, channel: &ChannelName) -> bool {
        self.may_join(channel)
    }

    fn is_on(&self, channel: &ChannelName) -> bool {
        self.is_on(channel)
    }

    fn subscriptions(&self) -> usize {
        self.subscriptions()
    }
}

/// What is to be done.
#[derive(Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Send this.
    Answer(Frame),
    /// Send this, which refuses to join a channel.
    RejectSubscribe {
        /// The channel.
        channel: String,
        /// Why.
        reason: &'static str,
        /// What is sent.
        says: Frame,
    },
    /// Refuse to join these, for this reason.
    DenySubscribe(Vec<ChannelName>, &'static str),
    /// Say what time it is.
    TellTime,
    /// Say what the socket may subscribe to.
    TellGrants,
    /// Say no.
    Deny,
    /// Say no to joining this channel, for this reason.
    Bar(ChannelName, Bar),
    /// Put it into these channels and say so in one step.
    Join(Vec<ChannelName>),
    /// Put it into one, as a member perhaps, and say so in one step.
    Enter(Entry),
    /// Publish this to the others on the channel.
    Say(ChannelName, Event),
    /// Take it out of the channel and say so.
    Leave(ChannelName),
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
            // what costs least comes first: who could not be on so many is refused before any of them is looked at
            if channels.len() > most {
                return Effect::DenySubscribe(channels, "too_many_subscriptions");
            }
            // counted as if all were distinct: who names one twice near the limit is refused
            let new = channels.iter().filter(|channel| !socket.is_on(channel)).count();
            let fits = new == 0 || socket.subscriptions() + new <= most;
            if !fits {
                return Effect::DenySubscribe(channels, "too_many_subscriptions");
            }
            if channels.iter().all(|channel| socket.may_join(channel)) {
                Effect::Join(channels)
            } else {
                Effect::DenySubscribe(channels, "not_permitted")
            }
        }
        Action::Enter(entry) if socket.is_on(&entry.channel) => Effect::Bar(entry.channel, Bar::AlreadyThere),
        Action::Enter(entry) if socket.subscriptions() >= most => {
            Effect::Bar(entry.channel, Bar::TooManySubscriptions { most })
        }
        Action::Enter(entry) => Effect::Enter(entry),
        Action::Say { channel, event } if socket.is_on(&channel) => Effect::Say(channel, event),
        Action::Say { .. } => Effect::Deny,
        // leaving is always allowed to those who are there, whatever became of their permission
        Action::Unsubscribe(channel) if socket.is_on(&channel) || socket.may_join(&channel) => Effect::Leave(channel),
        Action::Unsubscribe(_) => Effect::Deny,
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
        fn may_join(&self, channel: &ChannelName) -> bool {
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
        let enter = |name: &str| Action::Enter(Entry { channel: name.parse().unwrap(), member: None, most_members: 1 });
        assert!(matches!(decide_for(&[], &[], enter("a")), Effect::Enter(_)));
        assert!(matches!(decide_for(&[], &["a", "b"], enter("c")), Effect::Enter(_)));
        let barred = |name: &str, bar| Effect::Bar(name.parse().unwrap(), bar);
        assert_eq!(decide_for(&["*"], &["a"], enter("a")), barred("a", Bar::AlreadyThere));
        let full = barred("d", Bar::TooManySubscriptions { most: 3 });
        assert_eq!(decide_for(&["*"], &["a", "b", "c"], enter("d")), full);
        assert_eq!(decide_for(&["*"], &["a", "b", "c"], enter("a")), barred("a", Bar::AlreadyThere));
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
