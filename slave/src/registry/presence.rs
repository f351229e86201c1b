//! Who is here: what a thread answers to queries, from its index. Exact and immediate, since the index is.

use std::collections::{BTreeMap, BTreeSet};

use wellhead_proto::{
    channel::{ChannelPattern, allowed},
    ids::{AppId, ChannelName, UserId},
    matcher::Matcher,
    query::{Ask, Census, ChannelState, Headcount, Query, name_hash},
};

use super::{
    attendees::Attendees,
    index::{Index, RoomNo},
};

/// The answer to a query about `app`.
#[must_use]
pub fn census<S>(index: &Index<S>, attendees: &Attendees, app: &AppId, query: &Query) -> Census {
    let channels = |within: &[ChannelPattern]| {
        let within = within.to_vec();
        index.channels(app).filter(move |channel| allowed(&within, channel)).map(|channel| channel.as_str())
    };
    let users = || index.users(app).map(UserId::as_str);
    let users_of = |channel| {
        let room = index.room(app, channel).into_iter();
        let seats = room.flat_map(|room| index.seated(room, 0).map(move |(_, seat, _)| (room, seat)));
        seats.flat_map(|(room, seat)| {
            let member = attendees.of(room, seat).map(|attendee| &attendee.member.user);
            // a member has a name there, though its socket may be nobody's
            let user = Some(index.user_of(seat)).filter(|user| member.is_none() || !user.is_nobody());
            member.into_iter().chain(user).map(UserId::as_str)
        })
    };
    let users_within = |within: &[ChannelPattern]| {
        let within = within.to_vec();
        let rooms = index.channels(app).filter(move |channel| allowed(&within, channel));
        let seats = rooms.filter_map(|channel| index.room(app, channel)).flat_map(|room| index.seated(room, 0));
        seats.map(|(_, seat, _)| index.user_of(seat)).filter(|user| !user.is_nobody()).map(UserId::as_str)
    };
    let state = |room: Option<RoomNo>, members: bool| ChannelState {
        subscriptions: room.map_or(0, |room| index.occupied(room) as u64),
        members: room
            .filter(|_| members)
            .into_iter()
            .flat_map(|room| attendees.in_room(room))
            .map(|member| name_hash(member.user.as_str()))
            .collect(),
    };
    match query {
        Query::Channels(within) => names(channels(within)),
        Query::ChannelCount(within) => hashes(channels(within)),
        Query::UsersWithin(within) => names(users_within(within)),
        Query::UserCountWithin(within) => hashes(users_within(within)),
        // sockets have grants, not the index
        Query::GrantsOf(_) => Census::Names(BTreeSet::new()),
        Query::Users => names(users()),
        Query::UserCount => hashes(users()),
        Query::UsersOf(channel) => names(users_of(channel)),
        Query::UserCountOf(channel) => hashes(users_of(channel)),
        Query::States { of, members } => {
            let stands = |name: &ChannelName| (name.as_str().to_owned(), state(index.room(app, name), *members));
            Census::States(of.iter().map(stands).collect())
        }
        Query::StatesUnder { prefix, members } => {
            let rooms = index.rooms_matching(app, &Matcher::Prefix(prefix.clone())).into_iter();
            let stands = |room| (index.channel(room).name.as_str().to_owned(), state(Some(room), *members));
            Census::States(rooms.filter(|&room| index.occupied(room) > 0).map(stands).collect())
        }
        Query::Members(channel) => {
            let mut members = BTreeMap::new();
            for member in index.room(app, channel).into_iter().flat_map(|room| attendees.in_room(room)) {
                members.entry(member.user.clone()).or_insert_with(|| member.info.clone());
            }
            Census::Members(members)
        }
    }
}

/// The sizes of every app.
#[must_use]
pub fn stats<S>(index: &Index<S>) -> Census {
    let count = |(app, connections, users): (&AppId, usize, _)| {
        let users = Iterator::map(users, |user: &UserId| user.as_str());
        (app.clone(), Headcount { connections: connections as u64, users: users.map(name_hash).collect() })
    };
    let mut census = Ask::Stats.nothing();
    census
        .merge(Census::Stats(index.apps().map(|(app, connections, users)| count((app, connections, users))).collect()));
    census
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Census {
    Census::Names(names.map(str::to_owned).collect())
}

fn hashes<'a>(names: impl Iterator<Item = &'a str>) -> Census {
    Census::Hashes(names.map(name_hash).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::index::Change;

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
            let seat = index.enter(socket, app.parse().unwrap(), user.parse().unwrap(), ());
            for channel in channels {
                index.join(seat, &channel.parse().unwrap(), None, &mut change);
            }
        }
        let ask = |index: &Index<()>, query| census(index, &Attendees::default(), &app, &query);
        let everything = vec![ChannelPattern::everything()];
        let names = |names: &[&str]| Census::Names(names.iter().map(|&name| name.to_owned()).collect());

        assert_eq!(ask(&index, Query::Channels(everything.clone())), names(&["a", "b"]));
        assert_eq!(ask(&index, Query::Channels(vec!["b".try_into().unwrap()])), names(&["b"]));
        assert_eq!(ask(&index, Query::ChannelCount(everything)).count(), 2);
        assert_eq!(ask(&index, Query::Users), names(&["ann"]));
        assert_eq!(ask(&index, Query::UserCount).count(), 1);
        let within = |pattern: &str| vec![pattern.try_into().unwrap()];
        for (patterns, users) in
            [(vec![], &[][..]), (within("z*"), &[]), (within("b"), &["ann"]), (within("*"), &["ann"])]
        {
            assert_eq!(ask(&index, Query::UsersWithin(patterns.clone())), names(users), "{patterns:?}");
            assert_eq!(ask(&index, Query::UserCountWithin(patterns)).count(), users.len());
        }
        assert_eq!(ask(&index, Query::UsersOf("a".parse().unwrap())), names(&["", "ann"]));
        assert_eq!(ask(&index, Query::UserCountOf("a".parse().unwrap())).count(), 2);
        assert_eq!(ask(&index, Query::UsersOf("z".parse().unwrap())), names(&[]));

        let Census::Stats(apps) = stats(&index) else { unreachable!() };
        let sizes: Vec<_> = apps.iter().map(|(app, size)| (app.as_str(), size.connections, size.users.len())).collect();
        assert_eq!(sizes, [("app", 3, 1), ("x", 1, 1)]);

        index.exit(1);
        index.exit(2);
        assert_eq!(ask(&index, Query::Users), names(&[]));
        assert_eq!(ask(&index, Query::UsersOf("a".parse().unwrap())), names(&[""]));
    }
}
