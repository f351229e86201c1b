//! A cluster of real processes, on NATS or on the local bus of a machine.

use std::time::{Duration, Instant};

use super::load::{Follower, LiveAddresses, Publisher, SentPush, Stay, lost};
use crate::support::{
    backend::Backend,
    keys::signer,
    ledger::{Mark, MarkKind},
    listener::Listener,
    nats::NatsServer,
    server::{Server, Setup},
    within,
};

/// Every target of the publishers: two apps with a channel of the same name, one more, and two users.
pub const TARGETS: [(MarkKind, &str, &str); 5] = [
    (MarkKind::Channel, "blue", "news"),
    (MarkKind::Channel, "red", "news"),
    (MarkKind::Channel, "blue", "more"),
    (MarkKind::User, "blue", "user-0"),
    (MarkKind::User, "red", "user-1"),
];
/// Between two pushes of a publisher.
pub const PACE: Duration = Duration::from_millis(8);

/// The processes.
pub struct Field {
    pub nats: Option<NatsServer>,
    pub setup: Setup,
    pub masters: Vec<Server>,
    pub slaves: Vec<Server>,
}

/// What all of them share.
pub const SECRET: &str = "a secret that all nodes of this test share";

/// What they are joined by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    Nats,
    Local,
}

impl Field {
    pub async fn start(by: By, masters: usize, slaves: usize) -> Self {
        Self::start_with(by, masters, slaves, |setup| setup).await
    }

    pub async fn start_with(by: By, masters: usize, slaves: usize, more: impl FnOnce(Setup) -> Setup) -> Self {
        let setup = Setup::keyed().set("cluster.secret", SECRET);
        let (nats, setup) = match by {
            By::Nats => {
                let nats = NatsServer::started("");
                let setup = setup.set("cluster.bus", &format!("nats://{}", nats.address));
                (Some(nats), setup)
            }
            By::Local => (None, setup),
        };
        let mut field = Self { nats, setup: more(setup), masters: Vec::new(), slaves: Vec::new() };
        for _ in 0..masters {
            field.masters.push(field.setup.clone().role("master").start().await);
        }
        for _ in 0..slaves {
            field.slaves.push(field.setup.clone().role("slave").start().await);
        }
        field.is_whole().await;
        field
    }

    pub async fn new_slave(&self) -> Server {
        self.setup.clone().role("slave").start().await
    }

    pub async fn new_master(&self) -> Server {
        self.setup.clone().role("master").start().await
    }

    /// End whatever carries the bus at once, NATS or the one master, and start it again.
    pub async fn restart_bus(&mut self) {
        match &mut self.nats {
            Some(nats) => {
                nats.kill();
                nats.start();
            }
            None => {
                self.masters[0].signal("KILL");
                self.masters[0].ended().await;
                self.masters[0] = self.new_master().await;
            }
        }
    }

    /// Wait until every process wants work and knows the others.
    pub async fn is_whole(&self) {
        let all = (self.masters.len() + self.slaves.len()) as f64;
        for server in self.masters.iter().chain(&self.slaves) {
            server.wants_work().await;
            server.metric_becomes("wellhead_roster_nodes", "", all).await;
        }
    }

    pub fn master_addresses(&self) -> LiveAddresses {
        LiveAddresses::of(self.masters.iter().map(Server::master))
    }

    pub fn slave_addresses(&self) -> LiveAddresses {
        LiveAddresses::of(self.slaves.iter().map(Server::slave))
    }

    /// Publishers that push to all targets, a hundred times a second each.
    pub fn publishers(&self, count: u64) -> Vec<Publisher> {
        let masters = self.master_addresses();
        (0..count).map(|by| Publisher::start(&masters, by, &TARGETS, PACE)).collect()
    }

    /// A client of `slave`, on `channels`.
    pub async fn listener(&self, slave: usize, app: &str, user: &str, channels: &[&str]) -> Listener {
        let token = signer().jwt(app, user, &["*"]);
        let mut listener = Listener::connect(self.slaves[slave].slave(), app, user, &token).await;
        for channel in channels {
            assert!(listener.subscribe(channel).await, "it stays open");
        }
        listener
    }

    /// Two clients of each app on each of these slaves: together they are on everything that is pushed to.
    pub async fn listeners(&self, slaves: impl IntoIterator<Item = usize>) -> Vec<Listener> {
        let mut listeners = Vec::new();
        for slave in slaves {
            listeners.push(self.listener(slave, "blue", "user-0", &["news", "more"]).await);
            listeners.push(self.listener(slave, "blue", "user-1", &["more"]).await);
            listeners.push(self.listener(slave, "red", "user-1", &["news"]).await);
        }
        listeners
    }

    /// Push once more to every channel, through every master, and wait until all have it: everything before has come, too.
    pub async fn settle(&self, listeners: &[&Listener]) {
        let n = u64::MAX >> 1;
        for (by, master) in self.masters.iter().enumerate() {
            let mut backend = Backend::of(master.master()).await;
            for (kind, app, to) in TARGETS {
                let mark = Mark { app: app.to_owned(), kind, to: to.to_owned(), by: 1_000 + by as u64, n };
                match kind {
                    MarkKind::User => backend.push_to_user(app, to, &mark.json()).await,
                    _ => backend.push(app, to, "e", &mark.json()).await,
                };
                for listener in listeners.iter().filter(|listener| wants(listener, &mark)) {
                    let hears = within("the last push", listener.hears(&mark)).await;
                    assert!(hears, "{} of {app} ended: {:?}", listener.user, listener.end());
                }
            }
        }
    }
}

/// By the channels that [`Field::listeners`] puts them on.
fn wants(listener: &Listener, mark: &Mark) -> bool {
    listener.app == mark.app
        && match mark.kind {
            MarkKind::User => listener.user == mark.to,
            _ => channels_of(&listener.app, &listener.user).contains(&mark.to),
        }
}

/// The channels that [`Field::listeners`] puts them on.
pub fn channels_of(app: &str, user: &str) -> Vec<String> {
    let channels: &[&str] = match (app, user) {
        ("blue", "user-0") => &["news", "more"],
        ("blue", _) => &["more"],
        _ => &["news"],
    };
    channels.iter().map(|&channel| channel.to_owned()).collect()
}

/// Wait until each of them has pushed so many times more.
pub async fn all_push(publishers: &[Publisher], more: usize) {
    for publisher in publishers {
        publisher.pushes(more).await;
    }
}

/// Everything that was done by all.
pub async fn all_sent(publishers: Vec<Publisher>) -> Vec<SentPush> {
    let mut sent = Vec::new();
    for publisher in publishers {
        sent.extend(publisher.stop().await);
    }
    sent
}

/// What listeners that stayed all the time have lost of what was sent after `from`.
pub fn lost_by_all<'a>(sent: &'a [SentPush], listeners: &[Listener], from: Instant) -> Vec<&'a SentPush> {
    let lost = listeners.iter().flat_map(|listener| {
        assert_eq!(listener.end(), None, "{} of {} was to stay", listener.user, listener.app);
        lost(sent, listener, &channels_of(&listener.app, &listener.user), from, None)
    });
    lost.collect()
}

/// Clients that come back: two of each app.
pub fn followers(slaves: &LiveAddresses) -> Vec<Follower> {
    let follower = |number: usize| {
        let (app, user) = (["blue", "red"][number % 2], format!("user-{number}"));
        let channels = channels_of(app, &user);
        let channels: Vec<_> = channels.iter().map(String::as_str).collect();
        Follower::start(slaves, number, app, &channels)
    };
    (0..4).map(follower).collect()
}

/// What a client lost during its stays; what was answered less than `margin` before a stay's end is counted apart.
pub fn lost_in_stays<'a>(sent: &'a [SentPush], stays: &[Stay], margin: Duration) -> (Vec<&'a SentPush>, usize) {
    let (mut early, mut late) = (Vec::new(), 0);
    for stay in stays {
        let channels = channels_of(&stay.listener.app, &stay.listener.user);
        for one in lost(sent, &stay.listener, &channels, stay.since, stay.until) {
            match stay.until {
                Some(until) if until.saturating_duration_since(one.answered) < margin => late += 1,
                _ => early.push(one),
            }
        }
    }
    (early, late)
}
