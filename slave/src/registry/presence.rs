//! Who is here: what a thread answers to questions, from its index. A long answer is found in slices, between which the
//! thread serves its sockets. Nobody is left out for that: whoever and whatever is there from the question to the answer
//! is in it, and in it is only who was there at some moment of that time.

use std::{sync::Arc, vec};

use wellhead_proto::{
    channel::PatternSet,
    ids::{AppId, ChannelName, UserId},
    query::{Ask, Census, ChannelState, Query, name_hash},
};

use super::{
    grants::Grants,
    index::{Index, RoomNo, SeatNo},
};
use crate::presence::local::LocalMembers;

/// What is taken into an answer, or looked at for a [`GLANCE`]th of that, before the thread does something else: a
/// millisecond or two.
pub const SLICE: usize = 1_024;
const GLANCE: usize = 8;

/// What belongs to a seat, as far as questions are about it.
pub trait Granted {
    /// What the socket may subscribe to.
    fn grants(&self) -> Grants;
}

/// A question under way.
pub struct Survey {
    ask: Arc<Ask>,
    within: PatternSet,
    at: At,
    found: Census,
    left: usize,
}

/// Where the next slice begins.
enum At {
    /// At this one of the channels that are asked for.
    Listed(usize),
    /// Behind this channel, in the order of names.
    Channel(Option<ChannelName>),
    /// At this seat.
    Seat(SeatNo),
    /// At this place of a room, whose places do not move as long as it is walked.
    Place(RoomNo, usize),
    /// At this pattern of the first of what sockets may subscribe to: as it was when the question came.
    Granted(vec::IntoIter<Grants>, usize),
    /// Nowhere: everything was looked at.
    End,
}

impl Survey {
    /// Begin to answer `ask`; nothing was looked at yet.
    pub fn new<S: Granted>(ask: Arc<Ask>, index: &mut Index<S>) -> Self {
        let (mut within, mut found) = (PatternSet::default(), ask.nothing());
        let at = match &*ask {
            Ask::Query { app, query } => match query {
                Query::Channels(patterns) | Query::ChannelCount(patterns) => {
                    within = PatternSet::new(patterns);
                    At::Channel(None)
                }
                Query::States { .. } => At::Listed(0),
                Query::StatesUnder { .. } => At::Channel(None),
                Query::Users | Query::UserCount => At::Seat(0),
                Query::UsersWithin(patterns) | Query::UserCountWithin(patterns) => {
                    within = PatternSet::new(patterns);
                    At::Seat(0)
                }
                Query::GrantsOf(user) => {
                    let seats = index.seats_of(app, user);
                    let mut grants: Vec<_> = seats.iter().map(|&seat| index.at(seat).grants()).collect();
                    // most often all of a user's hold the same
                    grants.dedup_by(|one, other| one.is(other));
                    At::Granted(grants.into_iter(), 0)
                }
                Query::UsersOf(channel) | Query::UserCountOf(channel) | Query::Members(channel) => {
                    let room = index.room(app, channel).inspect(|&room| index.begin_walk(room));
                    room.map_or(At::End, |room| At::Place(room, 0))
                }
            },
            Ask::Stats => At::Seat(0),
            // these are not about who is here
            Ask::PublishMatching { .. } | Ask::Redeem { .. } | Ask::Attendance(_) => At::End,
        };
        if let Census::Stats(apps) = &mut found {
            // how many sockets there are is known; users are found one by one
            for (app, connections, _) in index.apps() {
                apps.entry(app.clone()).or_default().connections = connections as u64;
            }
        }
        Self { ask, within, at, found, left: 0 }
    }

    /// Look at the next slice. `true` if it was the last.
    pub fn look<S>(&mut self, index: &mut Index<S>, local: &LocalMembers) -> bool {
        self.left = SLICE * GLANCE;
        let ask = self.ask.clone();
        self.at = match (std::mem::replace(&mut self.at, At::End), &*ask) {
            (At::Listed(from), Ask::Query { app, query: Query::States { of, members } }) => {
                self.listed(index, local, app, &of[from..], *members).map_or(At::End, |more| At::Listed(from + more))
            }
            (At::Channel(after), Ask::Query { app, query }) => {
                let next = self.channels(index, local, app, query, after.as_ref());
                next.map_or(At::End, |after| At::Channel(Some(after)))
            }
            (At::Seat(from), _) => self.users(index, from).map_or(At::End, At::Seat),
            (At::Place(room, from), Ask::Query { query, .. }) => match self.places(index, local, query, room, from) {
                Some(place) => At::Place(room, place),
                None => {
                    index.end_walk(room);
                    At::End
                }
            },
            (At::Granted(grants, from), _) => self.granted(grants, from),
            _ => At::End,
        };
        matches!(self.at, At::End)
    }

    /// A user opens a socket meanwhile. Its seat may be one that was looked at already, and that of its older socket, which
    /// closes next, one that was not: noted here, the user is found nevertheless.
    pub fn note(&mut self, app: &AppId, user: &UserId) {
        if matches!(self.at, At::Seat(_)) && self.channels_asked().is_none() {
            self.take_user(app, user);
        }
    }

    /// A socket comes to a channel meanwhile. Where users of channels are asked for, that is when one is there.
    pub fn note_join(&mut self, app: &AppId, user: &UserId, channel: &ChannelName) {
        if matches!(self.at, At::Seat(_)) && self.channels_asked().is_some() && self.within.allows(channel) {
            self.take_user(app, user);
        }
    }

    /// The answer, once everything was looked at.
    pub fn answer(self) -> Census {
        self.found
    }

    /// Something was looked at, and perhaps taken.
    fn spend(&mut self, taken: usize) {
        self.left = self.left.saturating_sub(1 + taken * GLANCE);
    }

    /// How many of these channels were looked at, if not all.
    fn listed<S>(
        &mut self,
        index: &Index<S>,
        local: &LocalMembers,
        app: &AppId,
        channels: &[ChannelName],
        members: bool,
    ) -> Option<usize> {
        for (no, name) in channels.iter().enumerate() {
            if self.left == 0 {
                return Some(no);
            }
            self.take_state(name, index.room(app, name), index, local, members);
        }
        None
    }

    /// The last channel that was looked at, if it was not the last of all.
    fn channels<S>(
        &mut self,
        index: &Index<S>,
        local: &LocalMembers,
        app: &AppId,
        query: &Query,
        after: Option<&ChannelName>,
    ) -> Option<ChannelName> {
        let prefix = if let Query::StatesUnder { prefix, .. } = query { prefix } else { "" };
        let mut last = after;
        for (name, room) in index.channels(app, prefix, after) {
            if self.left == 0 {
                return last.cloned();
            }
            last = Some(name);
            if let Query::StatesUnder { members, .. } = query {
                self.take_state(name, Some(room), index, local, *members);
            } else if self.within.allows(name) {
                self.take(name.as_str());
            } else {
                self.spend(0);
            }
        }
        None
    }

    /// Whose users are asked for only as far as they are on some channels.
    fn channels_asked(&self) -> Option<&AppId> {
        match &*self.ask {
            Ask::Query { app, query: Query::UsersWithin(_) | Query::UserCountWithin(_) } => Some(app),
            _ => None,
        }
    }

    /// Is this socket where users are asked for?
    fn is_asked_for<S>(&mut self, index: &Index<S>, seat: SeatNo) -> bool {
        let Some(app) = self.channels_asked() else { return true };
        if index.app_of(seat) != app {
            return false;
        }
        let mut looked_at = 0;
        let found = index.channels_of(seat).inspect(|_| looked_at += 1).any(|channel| self.within.allows(channel));
        self.left = self.left.saturating_sub(looked_at);
        found
    }

    /// The first seat that was not looked at.
    fn users<S>(&mut self, index: &Index<S>, from: SeatNo) -> Option<SeatNo> {
        for (seat, occupant) in index.seats_from(from) {
            if self.left == 0 {
                return Some(seat);
            }
            match occupant {
                Some((app, user)) if self.is_asked_for(index, seat) => self.take_user(app, user),
                _ => self.spend(0),
            }
        }
        None
    }

    /// The first place that was not looked at.
    fn places<S>(
        &mut self,
        index: &Index<S>,
        local: &LocalMembers,
        query: &Query,
        room: RoomNo,
        from: usize,
    ) -> Option<usize> {
        for (place, seat, _) in index.seated(room, from) {
            if self.left == 0 {
                return Some(place);
            }
            let member = local.of(room, seat).map(|there| &there.member);
            if let Query::Members(_) = query {
                if let (Some(member), Census::Members(members)) = (member, &mut self.found) {
                    members.entry(member.user.clone()).or_insert_with(|| member.info.clone());
                }
                self.spend(1);
                continue;
            }
            if let Some(member) = member {
                self.take(member.user.as_str());
            }
            // a member has a name there, though its socket may be nobody's
            let user = index.user_of(seat);
            if member.is_none() || !user.is_nobody() {
                self.take(user.as_str());
            }
        }
        None
    }

    fn granted(&mut self, mut grants: vec::IntoIter<Grants>, mut from: usize) -> At {
        while let Some(first) = grants.as_slice().first().cloned() {
            for (no, pattern) in first.iter().enumerate().skip(from) {
                if self.left == 0 {
                    return At::Granted(grants, no);
                }
                self.take(pattern.as_str());
            }
            self.spend(0);
            from = 0;
            grants.next();
        }
        At::End
    }

    /// Nobody is no user.
    fn take_user(&mut self, app: &AppId, user: &UserId) {
        match (&*self.ask, &mut self.found) {
            (Ask::Stats, Census::Stats(apps)) if !user.is_nobody() => {
                apps.entry(app.clone()).or_default().users.insert(name_hash(user.as_str()));
                self.spend(1);
            }
            (Ask::Query { app: asked, .. }, _) if app == asked && !user.is_nobody() => self.take(user.as_str()),
            _ => self.spend(0),
        }
    }

    fn take(&mut self, name: &str) {
        match &mut self.found {
            Census::Names(names) if !names.contains(name) => {
                names.insert(name.to_owned());
            }
            Census::Hashes(hashes) => {
                hashes.insert(name_hash(name));
            }
            _ => {}
        }
        self.spend(1);
    }

    fn take_state<S>(
        &mut self,
        name: &ChannelName,
        room: Option<RoomNo>,
        index: &Index<S>,
        local: &LocalMembers,
        members: bool,
    ) {
        let mut state =
            ChannelState { subscriptions: room.map_or(0, |room| index.occupied(room) as u64), ..Default::default() };
        if members {
            let there = room.into_iter().flat_map(|room| local.in_room(room));
            state.members = there.map(|member| name_hash(member.user.as_str())).collect();
        }
        self.spend(1 + state.members.len());
        if let Census::States(states) = &mut self.found {
            states.insert(name.as_str().to_owned(), state);
        }
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::channel::ChannelPattern;

    use super::*;
    use crate::registry::index::Change;

    impl Granted for () {
        fn grants(&self) -> Grants {
            Grants::default()
        }
    }

    fn whole<S>(mut survey: Survey, index: &mut Index<S>) -> (Census, usize) {
        let mut slices = 1;
        while !survey.look(index, &LocalMembers::default()) {
            slices += 1;
        }
        (survey.answer(), slices)
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
            let seat = index.enter(socket, app.parse().unwrap(), user.parse().unwrap(), ());
            for channel in channels {
                index.join(seat, &channel.parse().unwrap(), None, &mut change);
            }
        }
        let about = |query| Ask::Query { app: app.clone(), query };
        let ask = |index: &mut Index<()>, query| whole(Survey::new(Arc::new(about(query)), index), index).0;
        let everything = vec![ChannelPattern::everything()];
        let names = |names: &[&str]| Census::Names(names.iter().map(|&name| name.to_owned()).collect());

        assert_eq!(ask(&mut index, Query::Channels(everything.clone())), names(&["a", "b"]));
        assert_eq!(ask(&mut index, Query::Channels(vec!["b".try_into().unwrap()])), names(&["b"]));
        assert_eq!(ask(&mut index, Query::ChannelCount(everything)).count(), 2);
        assert_eq!(ask(&mut index, Query::Users), names(&["ann"]));
        assert_eq!(ask(&mut index, Query::UserCount).count(), 1);
        let within = |pattern: &str| vec![pattern.try_into().unwrap()];
        for (patterns, users) in
            [(vec![], &[][..]), (within("z*"), &[]), (within("b"), &["ann"]), (within("*"), &["ann"])]
        {
            assert_eq!(ask(&mut index, Query::UsersWithin(patterns.clone())), names(users), "{patterns:?}");
            assert_eq!(ask(&mut index, Query::UserCountWithin(patterns)).count(), users.len());
        }
        assert_eq!(ask(&mut index, Query::UsersOf("a".parse().unwrap())), names(&["", "ann"]));
        assert_eq!(ask(&mut index, Query::UserCountOf("a".parse().unwrap())).count(), 2);
        assert_eq!(ask(&mut index, Query::UsersOf("z".parse().unwrap())), names(&[]));

        let Census::Stats(apps) = whole(Survey::new(Arc::new(Ask::Stats), &mut index), &mut index).0 else {
            unreachable!()
        };
        let sizes: Vec<_> = apps.iter().map(|(app, size)| (app.as_str(), size.connections, size.users.len())).collect();
        assert_eq!(sizes, [("app", 3, 1), ("x", 1, 1)]);

        index.exit(1);
        index.exit(2);
        assert_eq!(ask(&mut index, Query::Users), names(&[]));
        assert_eq!(ask(&mut index, Query::UsersOf("a".parse().unwrap())), names(&[""]));
    }

    /// A slice costs the same whatever there is: ten times as many are ten times as many slices.
    #[test]
    fn a_long_answer_is_found_in_slices_of_one_size() {
        let slices = |many: u32, query: fn() -> Query| {
            let mut index = Index::default();
            let (app, mut change): (AppId, _) = ("app".parse().unwrap(), Change::default());
            for no in 0..many {
                let seat = index.enter(no, app.clone(), format!("u{no}").parse().unwrap(), ());
                index.join(seat, &format!("c{no}").parse().unwrap(), None, &mut change);
                index.join(seat, &"all".parse().unwrap(), None, &mut change);
            }
            let survey = Survey::new(Arc::new(Ask::Query { app, query: query() }), &mut index);
            let (census, slices) = whole(survey, &mut index);
            assert!(census.count() >= many as usize, "{} of {many}", census.count());
            slices
        };
        let queries: [fn() -> Query; 7] = [
            || Query::Channels(vec![ChannelPattern::everything()]),
            || Query::ChannelCount(vec!["c*".try_into().unwrap()]),
            || Query::Users,
            || Query::UserCount,
            || Query::UsersWithin(vec!["c*".try_into().unwrap()]),
            || Query::UsersOf("all".parse().unwrap()),
            || Query::StatesUnder { prefix: "c".to_owned(), members: true },
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
        let (app, room): (AppId, ChannelName) = ("app".parse().unwrap(), "room".parse().unwrap());
        let last = 2 * SLICE as u32;
        for no in 0..=last {
            let seat = index.enter(no, app.clone(), format!("u{no}").parse().unwrap(), ());
            index.join(seat, &room, None, &mut change);
        }
        // the user of the last seat changes to a socket with a seat that was looked at already
        let user: UserId = format!("u{last}").parse().unwrap();
        let within = vec!["room".try_into().unwrap()];
        for query in [Query::Users, Query::UsersWithin(within), Query::UsersOf(room.clone())] {
            let mut survey = Survey::new(Arc::new(Ask::Query { app: app.clone(), query }), &mut index);
            assert!(!survey.look(&mut index, &LocalMembers::default()));
            let (comes, goes) = if index.seat_of(last).is_some() { (last + 1, last) } else { (last, last + 1) };
            index.exit(comes.min(3));
            let seat = index.enter(comes, app.clone(), user.clone(), ());
            survey.note(&app, &user);
            index.join(seat, &room, None, &mut change);
            survey.note_join(&app, &user, &room);
            index.exit(goes);
            let (Census::Names(names), _) = whole(survey, &mut index) else { unreachable!() };
            assert!(names.contains(user.as_str()));
        }
        for no in 0..=last + 1 {
            index.exit(no);
        }
        assert!(index.room(&app, &room).is_none(), "nobody walks it any more");
    }
}
