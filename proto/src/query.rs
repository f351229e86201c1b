//! What a backend asks the cluster, and how the answers of several slaves (or threads of one) are merged. Each query has its
//! own type, which names the type of its result; [`Query`] and [`QueryResult`] are any of them, as they travel.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    hash::Hasher,
};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::{
    channel::ChannelPattern,
    ids::{AppId, ChannelName, SocketId, UserId},
};

/// Which names are asked for, or counted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Listing {
    /// Channels that somebody is on and that one of the patterns allows.
    Channels(Vec<ChannelPattern>),
    /// The ids of users who are connected; anonymous sockets have none.
    Users {
        /// Only users who are on a channel that one of these allows.
        within: Option<Vec<ChannelPattern>>,
    },
    /// The ids of users on a channel; `""` is among them if an anonymous socket is.
    UsersOf(ChannelName),
}

/// Asks for names.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NamesQuery {
    /// The app.
    pub app: AppId,
    /// Which names.
    pub of: Listing,
}

/// Asks how many names there are.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CountQuery {
    /// The app.
    pub app: AppId,
    /// Which names.
    pub of: Listing,
}

/// Asks for the state of channels.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StatesQuery {
    /// The app.
    pub app: AppId,
    /// Which channels.
    pub of: StatesOf,
    /// Are their members counted, too?
    pub members: bool,
}

/// The channels of a [`StatesQuery`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum StatesOf {
    /// These, also those that nobody is on.
    Named(Vec<ChannelName>),
    /// Every channel that somebody is on and whose name begins so.
    Under(String),
}

/// Asks for the members of a presence channel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MembersQuery {
    /// The app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
}

/// Asks what the sockets of a user may subscribe to: their patterns, taken together.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GrantsQuery {
    /// The app.
    pub app: AppId,
    /// Whose sockets.
    pub user: UserId,
}

/// Asks for the sizes of every app.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StatsQuery;

/// Asks for the state of an app's webhooks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WebhooksQuery {
    /// The app.
    pub app: AppId,
}

/// Has a request that was given up sent again, by the slave that keeps it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ResendWebhookQuery {
    /// The app.
    pub app: AppId,
    /// The request's id.
    pub id: String,
}

/// Asks which sockets are on a channel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SocketsQuery {
    /// The app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
    /// Only sockets of the dialect of this name.
    pub dialect: Option<String>,
    /// So many of each slave's at most.
    pub most: u32,
}

/// Asks whether anybody is on a channel, in whatever dialect.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OccupiedQuery {
    /// The app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
}

/// A query, whichever it is. Every slave answers it from what it holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Query {
    /// Answered with [`QueryResult::Names`].
    Names(NamesQuery),
    /// Answered with [`QueryResult::Hashes`].
    Count(CountQuery),
    /// Answered with [`QueryResult::States`].
    States(StatesQuery),
    /// Answered with [`QueryResult::Members`].
    Members(MembersQuery),
    /// Answered with [`QueryResult::Names`].
    Grants(GrantsQuery),
    /// Answered with [`QueryResult::Stats`].
    Stats(StatsQuery),
    /// Answered with [`QueryResult::Webhooks`].
    Webhooks(WebhooksQuery),
    /// Answered with [`QueryResult::Names`]: the id, if the slave that is asked has it.
    ResendWebhook(ResendWebhookQuery),
    /// Answered with [`QueryResult::Sockets`].
    Sockets(SocketsQuery),
    /// Answered with [`QueryResult::Names`]: the channel, if somebody of the slave that is asked is on it.
    Occupied(OccupiedQuery),
}

/// Names, each once, in byte order.
pub type Names = BTreeSet<String>;
/// 64-bit hashes of names ([`name_hash`]), so that a count over slaves counts nobody twice and needs no names to travel.
pub type NameHashes = HashSet<u64>;
/// Channels, each with its state.
pub type ChannelStates = BTreeMap<String, ChannelState>;
/// Members of a presence channel, each with what the others may know of it.
pub type MemberInfos = BTreeMap<UserId, ByteString>;
/// Apps, each with its size.
pub type AppStats = BTreeMap<AppId, Headcount>;
/// Targets of an app's webhooks, by their number in the settings.
pub type WebhookStates = BTreeMap<u32, WebhookState>;

/// Sockets on a channel, each with what its dialect remembers of the subscription (empty, if nothing).
pub type SocketTags = BTreeMap<SocketId, String>;

/// The result of a query on one slave, or on several together.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum QueryResult {
    /// Names.
    Names(Names),
    /// Hashes of names.
    Hashes(NameHashes),
    /// States of channels.
    States(ChannelStates),
    /// Members of a channel.
    Members(MemberInfos),
    /// Sizes of apps.
    Stats(AppStats),
    /// States of webhooks.
    Webhooks(WebhookStates),
    /// Sockets on a channel.
    Sockets(SocketTags),
}

/// The state of a channel.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChannelState {
    /// Sockets on it.
    pub subscriptions: u64,
    /// Hashes of its members' ids; empty if they were not asked for.
    pub members: NameHashes,
}

/// The sockets and users of an app.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Headcount {
    /// Open sockets.
    pub connections: u64,
    /// Hashes of the ids of the users who hold them.
    pub users: NameHashes,
}

/// The state of one target of webhooks, on one slave or on several together.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct WebhookState {
    /// Scheme, host and port of its URL.
    pub target: String,
    /// Events that wait to be sent, or are being sent.
    pub queued_events: u64,
    /// The requests that they are in.
    pub queued_requests: u64,
    /// When a request was last answered 2xx: milliseconds since 1970.
    pub last_success: Option<u64>,
    /// The last attempt that failed, with the same time, and why.
    pub last_error: Option<(u64, String)>,
    /// Requests that were given up and are kept, by id.
    pub kept: BTreeMap<String, KeptWebhook>,
}

/// A request that was given up and is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeptWebhook {
    /// How many events it tells of.
    pub events: u64,
    /// When it was given up: milliseconds since 1970.
    pub given_up: u64,
    /// Why.
    pub reason: String,
}

impl WebhookState {
    fn absorb(&mut self, other: Self) {
        self.queued_events += other.queued_events;
        self.queued_requests += other.queued_requests;
        self.last_success = self.last_success.max(other.last_success);
        self.last_error = std::mem::take(&mut self.last_error).max(other.last_error);
        self.kept.extend(other.kept);
    }
}

/// A query whose result has a type of its own.
pub trait TypedQuery: Into<Query> + Send + Sync + 'static {
    /// Its result.
    type Result: ResultPart;
}

/// The result of a query on a part of the cluster. Its default is the result where nobody is.
pub trait ResultPart: Default + Send + 'static {
    /// Take in the result of another part.
    fn absorb(&mut self, other: Self);

    /// As it travels.
    fn into_result(self) -> QueryResult;

    /// What travelled; `None` if it is the result of another query.
    fn from_result(result: QueryResult) -> Option<Self>;
}

/// One row for each query: its type, its variant, and the type of its result.
macro_rules! queries {
    ($($query:ident = $variant:ident -> $result:ty),* $(,)?) => {
        $(
            impl From<$query> for Query {
                fn from(query: $query) -> Self {
                    Self::$variant(query)
                }
            }

            impl TypedQuery for $query {
                type Result = $result;
            }
        )*

        impl Query {
            /// The result where nobody is.
            #[must_use]
            pub fn nothing(&self) -> QueryResult {
                match self {
                    $(Self::$variant(_) => <$result>::default().into_result(),)*
                }
            }
        }
    };
}

queries! {
    NamesQuery = Names -> Names,
    CountQuery = Count -> NameHashes,
    StatesQuery = States -> ChannelStates,
    MembersQuery = Members -> MemberInfos,
    GrantsQuery = Grants -> Names,
    StatsQuery = Stats -> AppStats,
    WebhooksQuery = Webhooks -> WebhookStates,
    ResendWebhookQuery = ResendWebhook -> Names,
    SocketsQuery = Sockets -> SocketTags,
    OccupiedQuery = Occupied -> Names,
}

/// One row for each kind of result: its type, its variant, and how two of them become one.
macro_rules! results {
    ($($result:ident = $variant:ident, $merge:expr;)*) => {
        $(
            impl ResultPart for $result {
                fn absorb(&mut self, other: Self) {
                    let merge: fn(&mut Self, Self) = $merge;
                    if self.is_empty() {
                        // one by one would take as long for the first of the results as for all of them
                        *self = other;
                    } else {
                        merge(self, other);
                    }
                }

                fn into_result(self) -> QueryResult {
                    QueryResult::$variant(self)
                }

                fn from_result(result: QueryResult) -> Option<Self> {
                    if let QueryResult::$variant(result) = result { Some(result) } else { None }
                }
            }
        )*

        impl QueryResult {
            /// Take in the result of another slave.
            ///
            /// # Errors
            ///
            /// It is the result of another query: ours stays.
            pub fn merge(&mut self, other: Self) -> Result<(), OtherKind> {
                match (self, other) {
                    $((Self::$variant(ours), Self::$variant(other)) => ours.absorb(other),)*
                    _ => return Err(OtherKind),
                }
                Ok(())
            }

            /// How many distinct names, members or apps it holds.
            #[must_use]
            pub fn count(&self) -> usize {
                match self {
                    $(Self::$variant(result) => result.len(),)*
                }
            }
        }
    };
}

results! {
    Names = Names, |names, mut other| names.append(&mut other);
    NameHashes = Hashes, |hashes, other| hashes.extend(other);
    ChannelStates = States, |states, other| for (channel, state) in other {
        let sum = states.entry(channel).or_default();
        sum.subscriptions += state.subscriptions;
        sum.members.extend(state.members);
    };
    MemberInfos = Members, |members, other| for (user, info) in other {
        members.entry(user).or_insert(info);
    };
    AppStats = Stats, |apps, other| for (app, count) in other {
        let sum = apps.entry(app).or_default();
        sum.connections += count.connections;
        sum.users.extend(count.users);
    };
    WebhookStates = Webhooks, |targets, other| for (number, state) in other {
        match targets.entry(number) {
            Entry::Vacant(place) => drop(place.insert(state)),
            Entry::Occupied(mut sum) => sum.get_mut().absorb(state),
        }
    };
    SocketTags = Sockets, |sockets, mut other| sockets.append(&mut other);
}

/// What was answered is not what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an answer of another kind than the question")]
pub struct OtherKind;

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
        let hashes = |names: &[&str]| names.iter().map(|name| name_hash(name)).collect::<NameHashes>();
        let mut sum = hashes(&["ann", "bob"]);
        sum.absorb(hashes(&["bob", "eve"]));
        assert_eq!(sum.len(), 3);

        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Names>();
        let mut sum = names(&["b", "a"]);
        sum.absorb(names(&["c", "b"]));
        assert_eq!(sum, names(&["a", "b", "c"]));
    }

    #[test]
    fn sockets_add_up_and_users_unite() {
        let stats = |connections, users: &[&str]| {
            let users = users.iter().map(|user| name_hash(user)).collect();
            QueryResult::Stats([("app".parse().unwrap(), Headcount { connections, users })].into())
        };
        let mut sum = Query::from(StatsQuery).nothing();
        assert_eq!(sum.merge(stats(2, &["ann"])), Ok(()));
        assert_eq!(sum.merge(stats(3, &["ann", "bob"])), Ok(()));
        assert_eq!(sum, stats(5, &["ann", "bob"]));
    }

    #[test]
    fn a_target_of_several_slaves_has_all_that_waits_and_what_was_last() {
        let state = |queued_events, success, error: Option<u64>, id: &str| {
            let kept = KeptWebhook { events: 1, given_up: 7, reason: "answered 500".to_owned() };
            WebhookState {
                target: "http://example.com:80".to_owned(),
                queued_events,
                queued_requests: 1,
                last_success: success,
                last_error: error.map(|at| (at, format!("at {at}"))),
                kept: [(id.to_owned(), kept)].into(),
            }
        };
        let mut sum: WebhookStates = [(0, state(2, Some(5), None, "a"))].into();
        sum.absorb([(0, state(3, None, Some(8), "b")), (1, state(9, None, None, "c"))].into());
        sum.absorb([(0, state(0, Some(4), Some(6), "d"))].into());
        let first = &sum[&0];
        assert_eq!((first.queued_events, first.queued_requests, first.last_success), (5, 3, Some(5)));
        assert_eq!(first.last_error, Some((8, "at 8".to_owned())));
        assert_eq!(first.kept.keys().collect::<Vec<_>>(), ["a", "b", "d"]);
        assert_eq!(sum[&1], state(9, None, None, "c"));
    }

    #[test]
    fn the_result_of_another_query_is_refused_and_changes_nothing() {
        let mut sum = QueryResult::Names(["a".to_owned()].into());
        assert_eq!(sum.merge(QueryResult::Hashes([1].into())), Err(OtherKind));
        assert_eq!(sum, QueryResult::Names(["a".to_owned()].into()));
    }
}
