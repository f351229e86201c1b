//! What was pushed and what arrived, so that every test of the cluster holds the same promises: nothing of another app,
//! nothing twice, in order per channel and publisher; and what is missing is counted.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wellhead_proto::{
    command::{Command, Target},
    envelope::Envelope,
    event::{Event, Payload},
};

/// How something was pushed. Order is promised within one kind.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum MarkKind {
    Channel,
    User,
    Pattern,
}

/// What every payload says about itself.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Mark {
    pub app: String,
    pub kind: MarkKind,
    /// The channel, user or pattern.
    pub to: String,
    /// The publisher, who pushes one after the other.
    pub by: u64,
    /// Counts what it pushes.
    pub n: u64,
}

impl Mark {
    /// As a payload.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain words")
    }

    /// As an event.
    pub fn event(&self) -> Event {
        Event::new("e".parse().expect("a name"), Payload::Json(self.json().into()))
    }

    /// As the bus carries it, to a channel or a user.
    pub fn envelope(&self) -> Envelope {
        let command = match self.kind {
            MarkKind::User => {
                let to = Target::User(self.to.parse().expect("a name"));
                Command::Direct { to, data: Payload::Json(self.json().into()) }
            }
            _ => Command::Publish { channel: self.to.parse().expect("a name"), event: self.event(), except: None },
        };
        Envelope { app: self.app.parse().expect("a name"), command }
    }
}

/// Something that reached a socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeardMark {
    /// The channel that it came on; none for what was pushed to a user.
    pub channel: Option<String>,
    pub mark: Mark,
}

/// Hold what one socket of `user` of `app` heard, in that order, to the promises.
pub fn check(app: &str, user: &str, heard: &[HeardMark]) {
    let mut last: HashMap<(MarkKind, Option<&str>, u64), u64> = HashMap::new();
    for one @ HeardMark { channel, mark } in heard {
        assert_eq!(mark.app, app, "a message of another app reached {user}: {one:?}");
        match mark.kind {
            MarkKind::Channel => assert_eq!(channel.as_ref(), Some(&mark.to), "on another channel: {one:?}"),
            MarkKind::User => assert_eq!((channel, mark.to.as_str()), (&None, user), "for somebody else: {one:?}"),
            MarkKind::Pattern => assert!(channel.is_some(), "on no channel: {one:?}"),
        }
        let before = last.insert((mark.kind, channel.as_deref(), mark.by), mark.n);
        assert!(
            before.is_none_or(|before| before < mark.n),
            "{user} of {app} heard number {} after number {}: {one:?}",
            mark.n,
            before.unwrap_or_default(),
        );
    }
}
