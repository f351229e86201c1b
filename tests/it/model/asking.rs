//! What is asked in the life of a cluster, and what must be answered.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use wellhead_proto::{
    bus::{Bus, Gathered},
    channel::ChannelPattern,
    ids::NodeId,
    query::{Ask, Census, Query, name_hash},
};

use super::{
    lag,
    place::End,
    plain::{NEVER, Push, matches},
    stood_still,
    world::{APPS, CHANNELS, PATTERNS, World},
};
use crate::support::{
    PATIENCE,
    ledger::{Kind, Mark},
    within,
};

/// A slave that was killed is on the rosters for less than this, at least.
const SOON: Duration = Duration::from_secs(4);
/// A thread that was this late while a question was under way explains answers that were.
const LATE: Duration = Duration::from_millis(100);
const SHORT: Duration = Duration::from_millis(20);

impl World {
    /// Wait until the slaves have noticed who left.
    pub(super) async fn counted(&mut self) {
        let master = self.master();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(census) = self.gather(&master, Ask::Stats).await else { continue };
            let Census::Stats(stats) = census else { panic!("an answer to another question") };
            let found = stats.iter().map(|(app, count)| {
                (app.to_string(), (count.connections, count.users.iter().copied().collect::<BTreeSet<_>>()))
            });
            let (found, wanted) = (found.collect(), self.plain.borrow().stats());
            if wanted == found {
                return;
            }
            assert!(Instant::now() < deadline, "wanted {wanted:?}, found {found:?}");
            // slaves notice a closed socket in their own time, and tell nobody
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) async fn push_matching(&mut self) {
        let (app, pattern) = (APPS[self.random.below(2)], PATTERNS[self.random.below(PATTERNS.len())]);
        let began = self.clock.tick();
        let mark = Mark { app: app.to_owned(), kind: Kind::Pattern, to: pattern.to_owned(), by: 0, n: began };
        self.plain.borrow_mut().pushes.push(Push { mark: mark.clone(), began, settled: NEVER });
        let ask = Ask::PublishMatching {
            app: app.parse().expect("a name"),
            pattern: pattern.to_owned(),
            within: vec![ChannelPattern::everything()],
            event: mark.event(),
        };
        let channels = self.plain.borrow().names(app, &Query::Channels(Vec::new()));
        let matched = channels.iter().filter(|channel| matches(pattern, channel)).map(|channel| name_hash(channel));
        self.answered(ask, &Census::Hashes(matched.collect())).await;
    }

    pub(super) async fn ask(&mut self) {
        let app = APPS[self.random.below(2)];
        let everything = vec![ChannelPattern::everything()];
        let channel = CHANNELS[self.random.below(CHANNELS.len())].parse().expect("a name");
        if self.random.below(4) == 0 {
            return self.count(app).await;
        }
        let query = match self.random.below(6) {
            0 => Query::Channels(everything),
            1 => Query::ChannelCount(everything),
            2 => Query::Users,
            3 => Query::UserCount,
            4 => Query::UsersOf(channel),
            _ => Query::UserCountOf(channel),
        };
        self.query(app, query).await;
    }

    pub(super) async fn query(&mut self, app: &str, query: Query) {
        let names = self.plain.borrow().names(app, &query);
        let wanted = match query {
            Query::Channels(_) | Query::Users | Query::UsersOf(_) => Census::Names(names),
            _ => Census::Hashes(names.iter().map(|name| name_hash(name)).collect()),
        };
        self.answered(Ask::Query { app: app.parse().expect("a name"), query }, &wanted).await;
    }

    /// How many are on some channels, or on all that begin so.
    async fn count(&mut self, app: &str) {
        let some = CHANNELS[self.random.below(CHANNELS.len())];
        let (query, wanted) = {
            let plain = self.plain.borrow();
            if self.random.below(2) == 0 {
                let of = [some, "nobody is here"].map(|name| name.parse().expect("a name")).to_vec();
                (Query::States { of, members: true }, plain.counts(app, [some, "nobody is here"].map(str::to_owned)))
            } else {
                let prefix = some[..some.len().min(1)].to_owned();
                let mut under = plain.names(app, &Query::Channels(Vec::new()));
                under.retain(|name| name.starts_with(&prefix));
                (Query::StatesUnder { prefix, members: true }, plain.counts(app, under))
            }
        };
        let ask = Ask::Query { app: app.parse().expect("a name"), query };
        let master = self.master();
        // of a part nothing can be said: sockets add up
        if let Ok(census) = self.gather(&master, ask).await {
            assert_eq!(census, wanted);
        }
    }

    /// Some master answers so, and names those who are missing.
    pub(super) async fn answered(&mut self, ask: Ask, wanted: &Census) {
        let master = self.master();
        let asked = format!("{ask:?}");
        match self.gather(&master, ask).await {
            Ok(census) => assert_eq!(census, *wanted, "{asked}"),
            Err(part) => {
                let mut all = wanted.clone();
                all.merge(part);
                assert_eq!(all, *wanted, "{asked}");
            }
        }
    }

    /// The whole answer, but for the dead; or a part of it, if this machine was so late that slaves were, too. Then they
    /// are back when this is.
    pub(super) async fn gather(&self, master: &End, ask: Ask) -> Result<Census, Census> {
        let before = lag();
        let Gathered { census, missing } = within("an answer", master.bus.gather(ask)).await.expect("the bus is up");
        for (id, since) in &self.dead {
            assert!(missing.contains(id) || since.elapsed() > SOON, "{id} is dead, and not named");
        }
        let only_dead = |missing: &[NodeId]| missing.iter().all(|id| self.dead.iter().any(|(dead, _)| dead == id));
        if only_dead(&missing) {
            return Ok(census);
        }
        let late = lag() - before;
        let why = late > LATE || stood_still();
        assert!(why, "{missing:?} are alive, and this thread was late by {late:?} only");
        let heard = async {
            while !master.bus.gather(Ask::Stats).await.is_ok_and(|answer| only_dead(&answer.missing)) {
                // the roster of the master tells nobody who is heard of again
                actix_rt::time::sleep(SHORT).await;
            }
        };
        within("they are heard of again", heard).await;
        Err(census)
    }

    /// Let everything arrive: the wire keeps each node's order, and so do a thread and a socket.
    pub(super) async fn settle(&mut self) {
        for master in self.masters.clone() {
            while self.gather(&master, Ask::Stats).await.is_err() {}
        }
        let open = self.some_sockets(usize::MAX);
        for no in open {
            let client = self.clients[no].as_mut().expect("it is open");
            assert!(client.ping().await, "it is open");
        }
        let moment = self.clock.tick();
        self.plain.borrow_mut().settle(moment);
    }
}
