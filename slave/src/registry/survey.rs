//! Surveys: how a thread answers queries from its index. A long answer is found in slices, between which the thread
//! serves its sockets. Users and channels that are there from the question to the answer are always in it. The answer
//! holds only those that were there at some moment of that time.

use std::{sync::Arc, vec};

use tokio::sync::oneshot;
use wellhead_proto::{
    channel::PatternSet,
    ids::{AppId, ChannelName, UserId},
    query::{
        AppStats, ChannelState, ChannelStates, GrantsQuery, Listing, MemberInfos, MembersQuery, NameHashes, Names,
        StatesOf, StatesQuery, name_hash,
    },
};

use super::{grants::Grants, index::Index};
use crate::{
    numbers::{ChannelNo, SocketNo},
    presence::local::LocalMembers,
};

/// What is taken into an answer, or looked at for a [`GLANCE`]th of that, before the thread does something else: a
/// millisecond or two.
pub const SLICE: usize = 1_024;
const GLANCE: usize = 8;

/// What a socket may do, as far as queries are about it.
pub trait Granted {
    /// What the socket may subscribe to.
    fn grants(&self) -> Grants;
}

/// A query in progress: where its next slice begins, what was found, and where the answer goes.
pub(super) enum Survey {
    /// For channels, in the order of their names.
    Channels {
        app: AppId,
        /// Only those that one of these allows.
        within: PatternSet,
        /// The last one that was looked at.
        after: Option<ChannelName>,
        found: Found,
    },
    /// For users, socket by socket.
    Users {
        app: AppId,
        /// Only those who are on a channel that one of these allows.
        within: Option<PatternSet>,
        /// The next socket.
        at: SocketNo,
        found: Found,
    },
    /// For users of a channel, place by place.
    UsersOf { places: SurveyPlaces, found: Found },
    /// For members of a channel, place by place.
    Members { places: SurveyPlaces, found: MemberInfos, reply: oneshot::Sender<MemberInfos> },
    /// For states of channels.
    States {
        query: Arc<StatesQuery>,
        /// How many of the channels that are named were looked at.
        named: usize,
        /// The last one that was looked at of those under a prefix.
        after: Option<ChannelName>,
        found: ChannelStates,
        reply: oneshot::Sender<ChannelStates>,
    },
    /// For what a user may subscribe to, pattern by pattern, as it was when the question came.
    Grants {
        grants: vec::IntoIter<Grants>,
        /// The next pattern of the first of them.
        at: usize,
        found: Names,
        reply: oneshot::Sender<Names>,
    },
    /// For sizes of apps: how many sockets there are is known, users are found socket by socket.
    Stats {
        /// The next socket.
        at: SocketNo,
        found: AppStats,
        reply: oneshot::Sender<AppStats>,
    },
}

/// Names that are found, as they are asked for.
pub(super) enum Found {
    /// Themselves.
    Names(Names, oneshot::Sender<Names>),
    /// Only counted.
    Hashes(NameHashes, oneshot::Sender<NameHashes>),
}

/// The places of a channel. The channel is pinned, so they do not move while the survey visits them.
pub(super) struct SurveyPlaces {
    /// `None`: nobody is on it.
    local_channel: Option<ChannelNo>,
    /// The next place.
    at: usize,
}

/// What a slice may still look at.
struct Left(usize);

impl Left {
    fn is_over(&self) -> bool {
        self.0 == 0
    }

    /// Something was looked at, and perhaps taken.
    fn spend(&mut self, taken: usize) {
        self.glance(1 + taken * GLANCE);
    }

    fn glance(&mut self, looks: usize) {
        self.0 = self.0.saturating_sub(looks);
    }
}

impl Survey {
    /// Begin to list, or count, names.
    pub fn list<S>(app: &AppId, of: &Listing, found: Found, index: &mut Index<S>) -> Self {
        let app = app.clone();
        match of {
            Listing::Channels(within) => Self::Channels { app, within: PatternSet::new(within), after: None, found },
            Listing::Users { within } => {
                Self::Users { app, within: within.as_deref().map(PatternSet::new), at: 0, found }
            }
            Listing::UsersOf(channel) => Self::UsersOf { places: SurveyPlaces::of(&app, channel, index), found },
        }
    }

    /// Begin to look for states of channels.
    pub fn states(query: Arc<StatesQuery>, reply: oneshot::Sender<ChannelStates>) -> Self {
        Self::States { query, named: 0, after: None, found: ChannelStates::new(), reply }
    }

    /// Begin to look for the members of a channel.
    pub fn members<S>(query: &MembersQuery, reply: oneshot::Sender<MemberInfos>, index: &mut Index<S>) -> Self {
        Self::Members { places: SurveyPlaces::of(&query.app, &query.channel, index), found: MemberInfos::new(), reply }
    }

    /// Begin to look for what a user may subscribe to.
    pub fn grants<S: Granted>(query: &GrantsQuery, reply: oneshot::Sender<Names>, index: &Index<S>) -> Self {
        let local_sockets = index.local_sockets_of(&query.app, &query.user);
        let mut grants: Vec<_> = local_sockets.iter().map(|&local_socket| index.at(local_socket).grants()).collect();
        // most often all of a user's hold the same
        grants.dedup_by(|one, other| one.is(other));
        Self::Grants { grants: grants.into_iter(), at: 0, found: Names::new(), reply }
    }

    /// Begin to look for sizes of apps.
    pub fn stats<S>(reply: oneshot::Sender<AppStats>, index: &Index<S>) -> Self {
        let mut found = AppStats::new();
        for (app, connections, _) in index.apps() {
            found.entry(app.clone()).or_default().connections = connections as u64;
        }
        Self::Stats { at: 0, found, reply }
    }

    /// Look at the next slice. `true` if it was the last.
    pub fn look<S>(&mut self, index: &mut Index<S>, local: &LocalMembers) -> bool {
        let mut left = Left(SLICE * GLANCE);
        match self {
            Self::Channels { app, within, after, found } => {
                look_at_channels(index, app, within, after, found, &mut left)
            }
            Self::Users { app, within, at, found } => {
                for (local_socket, occupant) in index.entries_from(*at) {
                    if left.is_over() {
                        *at = local_socket;
                        return false;
                    }
                    match occupant {
                        Some((of, user))
                            if of == app
                                && !user.is_nobody()
                                && within
                                    .as_ref()
                                    .is_none_or(|within| is_within(index, local_socket, within, &mut left)) =>
                        {
                            found.take(user.as_str(), &mut left);
                        }
                        _ => left.spend(0),
                    }
                }
                true
            }
            Self::UsersOf { places, found } => {
                places.look(index, &mut left, |index, local_channel, local_socket, left| {
                    let member = local.of(local_channel, local_socket).map(|there| &there.member);
                    if let Some(member) = member {
                        found.take(member.user.as_str(), left);
                    }
                    // a member has an id there, though its socket may be anonymous
                    let user = index.user_of(local_socket);
                    if member.is_none() || !user.is_nobody() {
                        found.take(user.as_str(), left);
                    }
                })
            }
            Self::Members { places, found, .. } => {
                places.look(index, &mut left, |_, local_channel, local_socket, left| {
                    if let Some(member) = local.of(local_channel, local_socket).map(|there| &there.member) {
                        found.entry(member.user.clone()).or_insert_with(|| member.info.clone());
                    }
                    left.spend(1);
                })
            }
            Self::States { query, named, after, found, .. } => {
                look_at_states(index, local, query, named, after, found, &mut left)
            }
            Self::Grants { grants, at, found, .. } => {
                while let Some(first) = grants.as_slice().first() {
                    for (no, pattern) in first.iter().enumerate().skip(*at) {
                        if left.is_over() {
                            *at = no;
                            return false;
                        }
                        take_name(found, pattern.as_str());
                        left.spend(1);
                    }
                    left.spend(0);
                    *at = 0;
                    grants.next();
                }
                true
            }
            Self::Stats { at, found, .. } => {
                for (local_socket, occupant) in index.entries_from(*at) {
                    if left.is_over() {
                        *at = local_socket;
                        return false;
                    }
                    match occupant {
                        Some((app, user)) if !user.is_nobody() => {
                            found.entry(app.clone()).or_default().users.insert(name_hash(user.as_str()));
                            left.spend(1);
                        }
                        _ => left.spend(0),
                    }
                }
                true
            }
        }
    }

    /// A user opens a socket meanwhile. Its number may be one that was looked at already, and that of its older socket, which
    /// closes next, one that was not: noted here, the user is found nevertheless.
    pub fn note(&mut self, app: &AppId, user: &UserId) {
        match self {
            _ if user.is_nobody() => {}
            Self::Users { app: asked, within: None, found, .. } if app == asked => {
                found.take(user.as_str(), &mut Left(0));
            }
            Self::Stats { found, .. } => {
                found.entry(app.clone()).or_default().users.insert(name_hash(user.as_str()));
            }
            // these do not go from socket to socket, or ask for users of channels
            Self::Users { .. }
            | Self::Channels { .. }
            | Self::UsersOf { .. }
            | Self::Members { .. }
            | Self::States { .. }
            | Self::Grants { .. } => {}
        }
    }

    /// A socket comes to a channel meanwhile. Where users of channels are asked for, that is when one is there.
    pub fn note_join(&mut self, app: &AppId, user: &UserId, channel: &ChannelName) {
        if let Self::Users { app: asked, within: Some(within), found, .. } = self
            && app == asked
            && !user.is_nobody()
            && within.allows(channel)
        {
            found.take(user.as_str(), &mut Left(0));
        }
    }

    /// Give the answer, once everything was looked at. Nothing happens if nobody waits for it any more.
    pub fn answer(self) {
        match self {
            Self::Channels { found, .. } | Self::Users { found, .. } | Self::UsersOf { found, .. } => found.answer(),
            Self::Members { found, reply, .. } => drop(reply.send(found)),
            Self::States { found, reply, .. } => drop(reply.send(found)),
            Self::Grants { found, reply, .. } => drop(reply.send(found)),
            Self::Stats { found, reply, .. } => drop(reply.send(found)),
        }
    }
}

impl Found {
    /// None yet; they will be told.
    pub fn names(reply: oneshot::Sender<Names>) -> Self {
        Self::Names(Names::new(), reply)
    }

    /// None yet; they will be counted.
    pub fn hashes(reply: oneshot::Sender<NameHashes>) -> Self {
        Self::Hashes(NameHashes::new(), reply)
    }

    fn take(&mut self, name: &str, left: &mut Left) {
        match self {
            Self::Names(names, _) => take_name(names, name),
            Self::Hashes(hashes, _) => drop(hashes.insert(name_hash(name))),
        }
        left.spend(1);
    }

    fn answer(self) {
        match self {
            Self::Names(names, reply) => drop(reply.send(names)),
            Self::Hashes(hashes, reply) => drop(reply.send(hashes)),
        }
    }
}

impl SurveyPlaces {
    fn of<S>(app: &AppId, channel: &ChannelName, index: &mut Index<S>) -> Self {
        Self {
            local_channel: index.local_channel(app, channel).inspect(|&local_channel| index.pin(local_channel)),
            at: 0,
        }
    }

    /// Show each of the next slice. `true` if it was the last.
    fn look<S>(
        &mut self,
        index: &mut Index<S>,
        left: &mut Left,
        mut show: impl FnMut(&Index<S>, ChannelNo, SocketNo, &mut Left),
    ) -> bool {
        let Some(local_channel) = self.local_channel else { return true };
        for (place, local_socket, _) in index.sockets_from(local_channel, self.at) {
            if left.is_over() {
                self.at = place;
                return false;
            }
            show(index, local_channel, local_socket, left);
        }
        index.unpin(local_channel);
        true
    }
}

fn take_name(names: &mut Names, name: &str) {
    if !names.contains(name) {
        names.insert(name.to_owned());
    }
}

/// Is this socket on a channel that one of these allows?
fn is_within<S>(index: &Index<S>, local_socket: SocketNo, within: &PatternSet, left: &mut Left) -> bool {
    let mut looked_at = 0;
    let found = index.channels_of(local_socket).inspect(|_| looked_at += 1).any(|channel| within.allows(channel));
    left.glance(looked_at);
    found
}

/// `true` if the last of them was looked at.
fn look_at_channels<S>(
    index: &Index<S>,
    app: &AppId,
    within: &PatternSet,
    after: &mut Option<ChannelName>,
    found: &mut Found,
    left: &mut Left,
) -> bool {
    let before = after.take();
    let mut last = before.as_ref();
    for (name, _) in index.channels(app, "", before.as_ref()) {
        if left.is_over() {
            *after = last.cloned();
            return false;
        }
        last = Some(name);
        if within.allows(name) {
            found.take(name.as_str(), left);
        } else {
            left.spend(0);
        }
    }
    true
}

/// `true` if the last of them was looked at.
fn look_at_states<S>(
    index: &Index<S>,
    local: &LocalMembers,
    StatesQuery { app, of, members }: &StatesQuery,
    named: &mut usize,
    after: &mut Option<ChannelName>,
    found: &mut ChannelStates,
    left: &mut Left,
) -> bool {
    let mut take = |name: &ChannelName, local_channel: Option<ChannelNo>, left: &mut Left| {
        let state = state_of(local_channel, index, local, *members);
        left.spend(1 + state.members.len());
        found.insert(name.as_str().to_owned(), state);
    };
    match of {
        StatesOf::Named(channels) => {
            for name in &channels[*named..] {
                if left.is_over() {
                    return false;
                }
                take(name, index.local_channel(app, name), left);
                *named += 1;
            }
        }
        StatesOf::Under(prefix) => {
            let before = after.take();
            let mut last = before.as_ref();
            for (name, local_channel) in index.channels(app, prefix, before.as_ref()) {
                if left.is_over() {
                    *after = last.cloned();
                    return false;
                }
                last = Some(name);
                take(name, Some(local_channel), left);
            }
        }
    }
    true
}

fn state_of<S>(
    local_channel: Option<ChannelNo>,
    index: &Index<S>,
    local: &LocalMembers,
    members: bool,
) -> ChannelState {
    let mut state = ChannelState {
        subscriptions: local_channel.map_or(0, |local_channel| index.occupied(local_channel) as u64),
        ..Default::default()
    };
    if members {
        let there = local_channel.into_iter().flat_map(|local_channel| local.in_channel(local_channel));
        state.members = there.map(|member| name_hash(member.user.as_str())).collect();
    }
    state
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{
        channel::ChannelPattern,
        query::{CountQuery, NamesQuery, Query, QueryResult, ResultPart, StatsQuery},
    };

    use super::*;
    use crate::registry::index::Change;

    impl Granted for () {
        fn grants(&self) -> Grants {
            Grants::default()
        }
    }

    /// A survey, and how its answer is had.
    fn begin<S: Granted>(query: Query, index: &mut Index<S>) -> (Survey, Box<dyn FnOnce() -> QueryResult>) {
        fn answer<T: ResultPart>(mut answer: oneshot::Receiver<T>) -> Box<dyn FnOnce() -> QueryResult> {
            Box::new(move || answer.try_recv().expect("it was answered").into_result())
        }
        let (names, told_names) = oneshot::channel();
        let (hashes, told_hashes) = oneshot::channel();
        match query {
            Query::Names(NamesQuery { app, of }) => {
                (Survey::list(&app, &of, Found::names(names), index), answer(told_names))
            }
            Query::Count(CountQuery { app, of }) => {
                (Survey::list(&app, &of, Found::hashes(hashes), index), answer(told_hashes))
            }
            Query::Grants(query) => (Survey::grants(&query, names, index), answer(told_names)),
            Query::States(query) => {
                let (reply, told) = oneshot::channel();
                (Survey::states(Arc::new(query), reply), answer(told))
            }
            Query::Members(query) => {
                let (reply, told) = oneshot::channel();
                (Survey::members(&query, reply, index), answer(told))
            }
            Query::Stats(StatsQuery) => {
                let (reply, told) = oneshot::channel();
                (Survey::stats(reply, index), answer(told))
            }
            // no thread is asked about those
            query @ (Query::Webhooks(_) | Query::ResendWebhook(_)) => panic!("{query:?}"),
            Query::Sockets(_) => panic!("a shard answers it at once"),
            Query::Occupied(_) => panic!("no thread is asked"),
        }
    }

    fn whole<S>(
        (mut survey, answer): (Survey, Box<dyn FnOnce() -> QueryResult>),
        index: &mut Index<S>,
    ) -> (QueryResult, usize) {
        let mut slices = 1;
        while !survey.look(index, &LocalMembers::default()) {
            slices += 1;
        }
        survey.answer();
        (answer(), slices)
    }

    #[test]
    fn presence_is_what_the_index_holds() {
        let mut index = Index::default();
        let app: AppId = "app".parse().unwrap();
        let mut change = Change::default();
        for (socket, app, user, channels) in [
            (1, "app", "ann", &["a", "b"][..]),
            (2, "app", "ann", &["a"]),
            (3, "app", "", &["a"]),
            (4, "x", "eve", &["z"]),
        ] {
            let local_socket = index.open(socket, app.parse().unwrap(), user.parse().unwrap(), ());
            for channel in channels {
                index.subscribe(local_socket, &channel.parse().unwrap(), None, &mut change);
            }
        }
        let names = |of| Query::from(NamesQuery { app: app.clone(), of });
        let count = |of| Query::from(CountQuery { app: app.clone(), of });
        let ask = |index: &mut Index<()>, query| whole(begin(query, index), index).0;
        let everything = vec![ChannelPattern::everything()];
        let found = |names: &[&str]| QueryResult::Names(names.iter().map(|&name| name.to_owned()).collect());
        let users = |within| Listing::Users { within };
        let on = |channel: &str| Listing::UsersOf(channel.parse().unwrap());

        assert_eq!(ask(&mut index, names(Listing::Channels(everything.clone()))), found(&["a", "b"]));
        assert_eq!(ask(&mut index, names(Listing::Channels(vec!["b".try_into().unwrap()]))), found(&["b"]));
        assert_eq!(ask(&mut index, count(Listing::Channels(everything))).count(), 2);
        assert_eq!(ask(&mut index, names(users(None))), found(&["ann"]));
        assert_eq!(ask(&mut index, count(users(None))).count(), 1);
        let within = |pattern: &str| vec![pattern.try_into().unwrap()];
        for (patterns, wanted) in
            [(vec![], &[][..]), (within("z*"), &[]), (within("b"), &["ann"]), (within("*"), &["ann"])]
        {
            assert_eq!(ask(&mut index, names(users(Some(patterns.clone())))), found(wanted), "{patterns:?}");
            assert_eq!(ask(&mut index, count(users(Some(patterns)))).count(), wanted.len());
        }
        assert_eq!(ask(&mut index, names(on("a"))), found(&["", "ann"]));
        assert_eq!(ask(&mut index, count(on("a"))).count(), 2);
        assert_eq!(ask(&mut index, names(on("z"))), found(&[]));

        let QueryResult::Stats(apps) = ask(&mut index, StatsQuery.into()) else { panic!("sizes") };
        let sizes: Vec<_> = apps.iter().map(|(app, size)| (app.as_str(), size.connections, size.users.len())).collect();
        assert_eq!(sizes, [("app", 3, 1), ("x", 1, 1)]);

        index.close(1);
        index.close(2);
        assert_eq!(ask(&mut index, names(users(None))), found(&[]));
        assert_eq!(ask(&mut index, names(on("a"))), found(&[""]));
    }

    /// A slice costs the same whatever there is: ten times as many are ten times as many slices.
    #[test]
    fn a_long_answer_is_found_in_slices_of_one_size() {
        let slices = |many: u32, query: fn(AppId) -> Query| {
            let mut index = Index::default();
            let (app, mut change): (AppId, _) = ("app".parse().unwrap(), Change::default());
            for no in 0..many {
                let local_socket = index.open(no, app.clone(), format!("u{no}").parse().unwrap(), ());
                index.subscribe(local_socket, &format!("c{no}").parse().unwrap(), None, &mut change);
                index.subscribe(local_socket, &"all".parse().unwrap(), None, &mut change);
            }
            let survey = begin(query(app), &mut index);
            let (result, slices) = whole(survey, &mut index);
            assert!(result.count() >= many as usize, "{} of {many}", result.count());
            slices
        };
        let queries: [fn(AppId) -> Query; 7] = [
            |app| NamesQuery { app, of: Listing::Channels(vec![ChannelPattern::everything()]) }.into(),
            |app| CountQuery { app, of: Listing::Channels(vec!["c*".try_into().unwrap()]) }.into(),
            |app| NamesQuery { app, of: Listing::Users { within: None } }.into(),
            |app| CountQuery { app, of: Listing::Users { within: None } }.into(),
            |app| NamesQuery { app, of: Listing::Users { within: Some(vec!["c*".try_into().unwrap()]) } }.into(),
            |app| NamesQuery { app, of: Listing::UsersOf("all".parse().unwrap()) }.into(),
            |app| StatesQuery { app, of: StatesOf::Under("c".to_owned()), members: true }.into(),
        ];
        for (no, query) in queries.into_iter().enumerate() {
            assert_eq!(slices(100, query), 1, "query {no}");
            let (few, many) = (slices(4_000, query), slices(40_000, query));
            assert!(few >= 4 && many >= 8 * few, "query {no}: {few} slices for 4,000, {many} for 40,000");
        }
    }

    #[test]
    fn whoever_is_there_all_the_time_is_found_whatever_moves() {
        let (mut index, mut change) = (Index::default(), Change::default());
        let (app, local_channel): (AppId, ChannelName) = ("app".parse().unwrap(), "room".parse().unwrap());
        let last = 2 * SLICE as u32;
        for no in 0..=last {
            let local_socket = index.open(no, app.clone(), format!("u{no}").parse().unwrap(), ());
            index.subscribe(local_socket, &local_channel, None, &mut change);
        }
        // the user of the last socket changes to one whose number was looked at already
        let user: UserId = format!("u{last}").parse().unwrap();
        let within = vec!["room".try_into().unwrap()];
        let users = |within| Listing::Users { within };
        for of in [users(None), users(Some(within)), Listing::UsersOf(local_channel.clone())] {
            let (mut survey, answer) = begin(NamesQuery { app: app.clone(), of }.into(), &mut index);
            assert!(!survey.look(&mut index, &LocalMembers::default()));
            let (comes, goes) = if index.local_socket_of(last).is_some() { (last + 1, last) } else { (last, last + 1) };
            index.close(comes.min(3));
            let local_socket = index.open(comes, app.clone(), user.clone(), ());
            survey.note(&app, &user);
            index.subscribe(local_socket, &local_channel, None, &mut change);
            survey.note_join(&app, &user, &local_channel);
            index.close(goes);
            let (QueryResult::Names(names), _) = whole((survey, answer), &mut index) else { panic!("names") };
            assert!(names.contains(user.as_str()));
        }
        for no in 0..=last + 1 {
            index.close(no);
        }
        assert!(index.local_channel(&app, &local_channel).is_none(), "nobody walks it any more");
    }
}
