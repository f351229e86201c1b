//! Who is here: what a thread answers to queries, from its index. Exact and immediate, since the index is.

use wellhead_proto::{
    channel::{ChannelPattern, allowed},
    ids::{AppId, UserId},
    query::{Ask, Census, Headcount, Query, name_hash},
};

use super::index::Index;

/// The answer to a query about `app`.
#[must_use]
pub fn census<S>(index: &Index<S>, app: &AppId, query: &Query) -> Census {
    let channels = |within: &[ChannelPattern]| {
        let within = within.to_vec();
        index.channels(app).filter(move |channel| allowed(&within, channel)).map(|channel| channel.as_str())
    };
    let users = || index.users(app).map(UserId::as_str).filter(|user| !user.is_empty());
    let users_of = |channel| {
        let room = index.room(app, channel).into_iter();
        room.flat_map(|room| index.seated(room, 0)).map(|(_, seat, _)| index.user_of(seat).as_str())
    };
    match query {
        Query::Channels(within) => names(channels(within)),
        Query::ChannelCount(within) => hashes(channels(within)),
        Query::Users => names(users()),
        Query::UserCount => hashes(users()),
        Query::UsersOf(channel) => names(users_of(channel)),
        Query::UserCountOf(channel) => hashes(users_of(channel)),
    }
}

/// The sizes of every app.
#[must_use]
pub fn stats<S>(index: &Index<S>) -> Census {
    let count = |(app, connections, users): (&AppId, usize, _)| {
        let users = Iterator::map(users, |user: &UserId| user.as_str()).filter(|user| !user.is_empty());
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
        let ask = |index: &Index<()>, query| census(index, &app, &query);
        let everything = vec![ChannelPattern::everything()];
        let names = |names: &[&str]| Census::Names(names.iter().map(|&name| name.to_owned()).collect());

        assert_eq!(ask(&index, Query::Channels(everything.clone())), names(&["a", "b"]));
        assert_eq!(ask(&index, Query::Channels(vec!["b".try_into().unwrap()])), names(&["b"]));
        assert_eq!(ask(&index, Query::ChannelCount(everything)).count(), 2);
        assert_eq!(ask(&index, Query::Users), names(&["ann"]));
        assert_eq!(ask(&index, Query::UserCount).count(), 1);
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
