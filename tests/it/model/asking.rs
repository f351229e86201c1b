//! What is asked in the life of a cluster, and what must be answered.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use wellhead_proto::{
    bus::{Bus, BusError, Gathered},
    channel::ChannelPattern,
    command::PublishMatching,
    ids::NodeId,
    query::{CountQuery, Listing, NamesQuery, ResultPart, StatesOf, StatesQuery, StatsQuery, TypedQuery, name_hash},
};

use super::{
    lag,
    place::NodeEnd,
    plain::{ModelPush, NEVER, matches},
    stood_still,
    world::{APPS, CHANNELS, ModelWorld, PATTERNS},
};
use crate::support::{
    PATIENCE,
    ledger::{Mark, MarkKind},
    within,
};

/// A slave that was killed is on the rosters for less than this, at least.
const SOON: Duration = Duration::from_secs(4);
/// A thread that was this late while a question was under way explains answers that were.
const LATE: Duration = Duration::from_millis(100);
const SHORT: Duration = Duration::from_millis(20);

/// The whole answer is the one that is wanted, and a part of it holds nothing else.
fn accept<T: ResultPart + PartialEq + Debug + Clone>(answered: Result<T, T>, wanted: T, asked: &str) {
    match answered {
        Ok(whole) => assert_eq!(whole, wanted, "{asked}"),
        Err(part) => {
            let mut all = wanted.clone();
            all.absorb(part);
            assert_eq!(all, wanted, "{asked}");
        }
    }
}

impl ModelWorld {
    /// Wait until the slaves have noticed who left.
    pub(super) async fn counted(&mut self) {
        let master = self.master();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(stats) = self.gather(&master, StatsQuery).await else { continue };
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
        let mark = Mark { app: app.to_owned(), kind: MarkKind::Pattern, to: pattern.to_owned(), by: 0, n: began };
        self.plain.borrow_mut().pushes.push(ModelPush { mark: mark.clone(), began, settled: NEVER });
        let push = PublishMatching {
            app: app.parse().expect("a name"),
            pattern: pattern.to_owned(),
            within: vec![ChannelPattern::everything()],
            event: mark.event(),
        };
        let channels = self.plain.borrow().names(app, &Listing::Channels(Vec::new()));
        let matched = channels.iter().filter(|channel| matches(pattern, channel)).map(|channel| name_hash(channel));
        let (master, asked) = (self.master(), format!("{push:?}"));
        let answered = self.or_late(&master, master.bus.publish_matching(push)).await;
        accept(answered, matched.collect(), &asked);
    }

    pub(super) async fn ask(&mut self) {
        let app = APPS[self.random.below(2)];
        let everything = vec![ChannelPattern::everything()];
        let channel = CHANNELS[self.random.below(CHANNELS.len())].parse().expect("a name");
        if self.random.below(4) == 0 {
            return self.count(app).await;
        }
        let (of, named) = match self.random.below(6) {
            0 => (Listing::Channels(everything), true),
            1 => (Listing::Channels(everything), false),
            2 => (Listing::Users { within: None }, true),
            3 => (Listing::Users { within: None }, false),
            4 => (Listing::UsersOf(channel), true),
            _ => (Listing::UsersOf(channel), false),
        };
        self.list(app, of, named).await;
    }

    /// The names, or how many there are.
    pub(super) async fn list(&mut self, app: &str, of: Listing, named: bool) {
        let names = self.plain.borrow().names(app, &of);
        let (master, asked, app) = (self.master(), format!("{of:?}"), app.parse().expect("a name"));
        if named {
            let answered = self.gather(&master, NamesQuery { app, of }).await;
            accept(answered, names, &asked);
        } else {
            let answered = self.gather(&master, CountQuery { app, of }).await;
            accept(answered, names.iter().map(|name| name_hash(name)).collect(), &asked);
        }
    }

    /// How many are on some channels, or on all that begin so.
    async fn count(&mut self, app: &str) {
        let some = CHANNELS[self.random.below(CHANNELS.len())];
        let (of, wanted) = {
            let plain = self.plain.borrow();
            if self.random.below(2) == 0 {
                let of = [some, "nobody is here"].map(|name| name.parse().expect("a name")).to_vec();
                (StatesOf::Named(of), plain.counts(app, [some, "nobody is here"].map(str::to_owned)))
            } else {
                let prefix = some[..some.len().min(1)].to_owned();
                let mut under = plain.names(app, &Listing::Channels(Vec::new()));
                under.retain(|name| name.starts_with(&prefix));
                (StatesOf::Under(prefix), plain.counts(app, under))
            }
        };
        let query = StatesQuery { app: app.parse().expect("a name"), of, members: true };
        let master = self.master();
        // of a part nothing can be said: sockets add up
        if let Ok(states) = self.gather(&master, query).await {
            assert_eq!(states, wanted);
        }
    }

    /// The whole answer of some master, but for the dead; or a part of it: see [`ModelWorld::or_late`].
    pub(super) async fn gather<Q: TypedQuery>(&self, master: &NodeEnd, query: Q) -> Result<Q::Result, Q::Result> {
        let bus: Arc<dyn Bus> = master.bus.clone();
        self.or_late(master, bus.query(query)).await
    }

    /// The whole answer, but for the dead; or a part of it, if this machine was so late that slaves were, too. Then they
    /// are back when this is.
    async fn or_late<T>(
        &self,
        master: &NodeEnd,
        asked: impl Future<Output = Result<Gathered<T>, BusError>>,
    ) -> Result<T, T> {
        let before = lag();
        let Gathered { result, missing } = within("an answer", asked).await.expect("the bus is up");
        for (id, since) in &self.dead {
            assert!(missing.contains(id) || since.elapsed() > SOON, "{id} is dead, and not named");
        }
        let only_dead = |missing: &[NodeId]| missing.iter().all(|id| self.dead.iter().any(|(dead, _)| dead == id));
        if only_dead(&missing) {
            return Ok(result);
        }
        let late = lag() - before;
        let why = late > LATE || stood_still();
        assert!(why, "{missing:?} are alive, and this thread was late by {late:?} only");
        let heard = async {
            while !master.bus.gather(StatsQuery.into()).await.is_ok_and(|answer| only_dead(&answer.missing)) {
                // the roster of the master tells nobody who is heard of again
                actix_rt::time::sleep(SHORT).await;
            }
        };
        within("they are heard of again", heard).await;
        Err(result)
    }

    /// Let everything arrive: the wire keeps each node's order, and so do a thread and a socket.
    pub(super) async fn settle(&mut self) {
        for master in self.masters.clone() {
            while self.gather(&master, StatsQuery).await.is_err() {}
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
