//! What a backend asks the cluster, and how the answers of several slaves (or threads of one) become one.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::Hasher,
};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::{
    channel::ChannelPattern,
    event::Event,
    ids::{AppId, ChannelKey, ChannelName, UserId},
};

/// Something that every slave answers from what it holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Ask {
    /// Who and what is there, in one app.
    Query {
        /// The app.
        app: AppId,
        /// The question.
        query: Query,
    },
    /// Deliver `event` on every channel whose name `pattern` matches; answered with hashes of the matched names.
    PublishMatching {
        /// The app.
        app: AppId,
        /// A regular expression (see [`crate::matcher::Matcher`]).
        pattern: String,
        /// Only channels that one of these allows.
        within: Vec<ChannelPattern>,
        /// What is delivered.
        event: Event,
    },
    /// Sizes of every app.
    Stats,
    /// To the slave that issued it: what does this reference to a connection token stand for? A one-time token of the app
    /// is used up by it; one of another app is not.
    Redeem {
        /// The reference.
        token: String,
        /// The app that its bearer wants to enter.
        app: AppId,
    },
    /// To the slave that keeps these channels: who are their members, as far as it has announced them? Channels that it
    /// does not keep, or not yet, are left out of the answer.
    Attendance(Vec<ChannelKey>),
}

/// A question about one app.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Query {
    /// The names of channels that somebody is on and that one of the patterns allows.
    Channels(Vec<ChannelPattern>),
    /// How many those are.
    ChannelCount(Vec<ChannelPattern>),
    /// The ids of users who are connected; anonymous sockets have none.
    Users,
    /// How many those are.
    UserCount,
    /// The ids of users on a channel; `""` is among them if an anonymous socket is.
    UsersOf(ChannelName),
    /// How many those are.
    UserCountOf(ChannelName),
    /// How it stands with these channels, also with those that nobody is on.
    States {
        /// The channels.
        of: Vec<ChannelName>,
        /// Are their members counted, too?
        members: bool,
    },
    /// How it stands with every channel that somebody is on and whose name begins so.
    StatesUnder {
        /// The beginning of the name.
        prefix: String,
        /// Are their members counted, too?
        members: bool,
    },
    /// The members of a presence channel.
    Members(ChannelName),
    /// The ids of users who are on a channel that one of the patterns allows; anonymous sockets have none.
    UsersWithin(Vec<ChannelPattern>),
    /// How many those are.
    UserCountWithin(Vec<ChannelPattern>),
    /// What the sockets of a user may subscribe to: their patterns, taken together.
    GrantsOf(UserId),
}

/// An answer of one slave, or of several together.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Census {
    /// Names, each once, in byte order.
    Names(BTreeSet<String>),
    /// 64-bit hashes of names, so that a count over slaves counts nobody twice and needs no names to travel.
    Hashes(HashSet<u64>),
    /// Per app: open sockets, and hashes of its users.
    Stats(BTreeMap<AppId, Headcount>),
    /// What a reference stands for; `None` if it is unknown, expired or used up.
    Redeemed(Option<Bearer>),
    /// Channels, each with how it stands.
    States(BTreeMap<String, ChannelState>),
    /// Members of a presence channel, each with what the others may know of it.
    Members(BTreeMap<UserId, ByteString>),
    /// The same for several channels, each by its keeper.
    Attendance(BTreeMap<ChannelKey, BTreeMap<UserId, ByteString>>),
}

/// Whom a connection token lets in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Bearer {
    /// The user.
    pub user: UserId,
    /// The one app that it may enter.
    pub app: AppId,
    /// The patterns of channels that it may subscribe to.
    pub channels: Vec<ChannelPattern>,
}

/// How it stands with a channel.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChannelState {
    /// Sockets on it.
    pub subscriptions: u64,
    /// Hashes of its members' ids; empty if they were not asked for.
    pub members: HashSet<u64>,
}

/// How many are in an app.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Headcount {
    /// Open sockets.
    pub connections: u64,
    /// Hashes of the ids of the users who hold them.
    pub users: HashSet<u64>,
}

impl Ask {
    /// The answer of nobody: what every other answer is merged into.
    #[must_use]
    pub fn nothing(&self) -> Census {
        match self {
            Self::Query {
                query:
                    Query::Channels(_) | Query::Users | Query::UsersOf(_) | Query::UsersWithin(_) | Query::GrantsOf(_),
                ..
            } => Census::Names(BTreeSet::new()),
            Self::Query { query: Query::States { .. } | Query::StatesUnder { .. }, .. } => {
                Census::States(BTreeMap::new())
            }
            Self::Query { query: Query::Members(_), .. } => Census::Members(BTreeMap::new()),
            Self::Query { .. } | Self::PublishMatching { .. } => Census::Hashes(HashSet::new()),
            Self::Stats => Census::Stats(BTreeMap::new()),
            Self::Redeem { .. } => Census::Redeemed(None),
            Self::Attendance(_) => Census::Attendance(BTreeMap::new()),
        }
    }
}

impl Census {
    /// Take in what another slave answered. Answers of different kinds do not mix: ours stays.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            // one by one would take as long for the first of the answers as for all of them
            (Self::Names(names), Self::Names(mut more)) => names.append(&mut more),
            (Self::Hashes(hashes), Self::Hashes(more)) if hashes.is_empty() => *hashes = more,
            (Self::Hashes(hashes), Self::Hashes(more)) => hashes.extend(more),
            (Self::States(channels), Self::States(more)) if channels.is_empty() => *channels = more,
            (Self::Stats(apps), Self::Stats(more)) => {
                for (app, count) in more {
                    let sum = apps.entry(app).or_default();
                    sum.connections += count.connections;
                    sum.users.extend(count.users);
                }
            }
            (Self::Redeemed(bearer), Self::Redeemed(Some(found))) => *bearer = Some(found),
            (Self::States(channels), Self::States(more)) => {
                for (channel, state) in more {
                    let sum = channels.entry(channel).or_default();
                    sum.subscriptions += state.subscriptions;
                    sum.members.extend(state.members);
                }
            }
            (Self::Members(members), Self::Members(more)) => {
                for (user, info) in more {
                    members.entry(user).or_insert(info);
                }
            }
            (Self::Attendance(channels), Self::Attendance(more)) => channels.extend(more),
            _ => {}
        }
    }

    /// How many distinct names, users or apps it counts.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Hashes(hashes) => hashes.len(),
            Self::Stats(apps) => apps.len(),
            Self::Redeemed(bearer) => bearer.iter().len(),
            Self::States(channels) => channels.len(),
            Self::Members(members) => members.len(),
            Self::Attendance(channels) => channels.len(),
        }
    }
}

/// The hash under which a name is counted, the same on every node. 64 bits: among a million names two of them share a
/// hash in one of 37 million counts.
#[must_use]
pub fn name_hash(name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Golden;

    /// Two nodes that count by different hashes count everybody twice.
    #[test]
    fn every_name_has_the_hash_that_it_always_had() {
        let mut golden = Golden::new("node_messages/name_hashes.txt");
        for name in ["", "a", "ann", "presence-room", "中文"] {
            golden.case(&format!("{name:?}"), format!("{:016x}", name_hash(name)));
        }
        golden.check();
    }

    #[test]
    fn a_name_on_two_slaves_counts_once() {
        let hashes = |names: &[&str]| Census::Hashes(names.iter().map(|name| name_hash(name)).collect());
        let mut sum = hashes(&["ann", "bob"]);
        sum.merge(hashes(&["bob", "eve"]));
        assert_eq!(sum.count(), 3);

        let names = |names: &[&str]| Census::Names(names.iter().map(|&name| name.to_owned()).collect());
        let mut sum = names(&["b", "a"]);
        sum.merge(names(&["c", "b"]));
        assert_eq!(sum, names(&["a", "b", "c"]));
    }

    #[test]
    fn sockets_add_up_and_users_unite() {
        let stats = |connections, users: &[&str]| {
            let users = users.iter().map(|user| name_hash(user)).collect();
            Census::Stats([("app".parse().unwrap(), Headcount { connections, users })].into())
        };
        let mut sum = Ask::Stats.nothing();
        sum.merge(stats(2, &["ann"]));
        sum.merge(stats(3, &["ann", "bob"]));
        assert_eq!(sum, stats(5, &["ann", "bob"]));
    }

    #[test]
    fn an_answer_of_another_kind_changes_nothing() {
        let mut sum = Census::Names(["a".to_owned()].into());
        sum.merge(Census::Hashes([1].into()));
        assert_eq!(sum, Census::Names(["a".to_owned()].into()));
    }
}
