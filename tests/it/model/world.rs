//! One life of a cluster: what happens in it, drawn from a seed, and the model that keeps up with it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use futures_util::future::{LocalBoxFuture, join_all};
use wellhead::bus::pubsub::PubSub;
use wellhead_proto::{bus::Bus, channel::ChannelPattern, ids::NodeId, query::Listing};

use super::{
    place::{NodeEnd, SlaveNode, token},
    plain::{ModelPush, ModelSocket, ModelTime, NEVER, Plain, While},
};
use crate::support::{
    ledger::{Mark, MarkKind},
    listener::{self, Listener},
    memory::MemoryNet,
    random::Random,
    within,
};

pub(super) const APPS: [&str; 2] = ["blue", "red"];
const USERS: [&str; 5] = ["ann", "bob", "eve", "joe", "kim"];
pub(super) const CHANNELS: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "c1"];
pub(super) const PATTERNS: [&str; 4] = ["^a", "^b", "^c1", "^x"];
/// Steps of one life.
const STEPS: usize = 36;

/// Live once; how much was done.
pub async fn live(seed: u64) -> u64 {
    let mut world = ModelWorld::begin(Random::new(seed)).await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.end().await;
    world.clock.now()
}

#[derive(Clone, Default)]
pub(super) struct ModelClock(Rc<Cell<ModelTime>>);

impl ModelClock {
    pub(super) fn tick(&self) -> ModelTime {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }

    fn now(&self) -> ModelTime {
        self.0.get()
    }
}

pub(super) struct ModelWorld {
    pub(super) random: Random,
    net: MemoryNet,
    pub(super) clock: ModelClock,
    pub(super) plain: Rc<RefCell<Plain>>,
    pub(super) masters: Vec<Rc<NodeEnd>>,
    slaves: Vec<SlaveNode>,
    /// Killed, and not missed yet.
    pub(super) dead: Vec<(NodeId, Instant)>,
    /// As in the model; none once it is gone and judged.
    pub(super) clients: Vec<Option<Listener>>,
    next_node: u32,
    /// The largest message of the wire.
    most: usize,
}

impl ModelWorld {
    async fn begin(mut random: Random) -> Self {
        let net = MemoryNet::new(random.fork());
        // now and then everything travels in pieces
        let most = if random.once_in(4) { 160 } else { 1 << 20 };
        let mut world = Self {
            random,
            net,
            clock: ModelClock::default(),
            plain: Rc::default(),
            masters: Vec::new(),
            slaves: Vec::new(),
            dead: Vec::new(),
            clients: Vec::new(),
            next_node: 1,
            most,
        };
        for _ in 0..3 {
            let number = world.number();
            world.masters.push(Rc::new(NodeEnd::master(&world.net, number, most)));
        }
        for _ in 0..3 {
            world.start().await;
        }
        world
    }

    fn number(&mut self) -> u32 {
        self.next_node += 1;
        self.next_node
    }

    pub(super) fn master(&mut self) -> Rc<NodeEnd> {
        self.random.pick(&self.masters).expect("three").clone()
    }

    async fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.connect().await,
            20..62 => self.several_at_once().await,
            62..67 => self.push_matching().await,
            67..82 => self.ask().await,
            82..89 => self.leave().await,
            89..92 => self.settle().await,
            92..94 => self.stop().await,
            94..96 => self.kill(),
            96..98 => self.miss().await,
            _ if self.slaves.len() < 3 => self.start().await,
            _ => self.ask().await,
        }
    }

    /// One more slave; back when everybody knows.
    async fn start(&mut self) {
        let number = self.number();
        self.slaves.push(SlaveNode::start(&self.net, number, self.most).await);
        let live: Vec<_> = self.slaves.iter().map(|slave| slave.end.id).collect();
        for end in self.masters.iter().map(AsRef::as_ref).chain(self.slaves.iter().map(|slave| &slave.end)) {
            end.knows("all slaves", |state| live.iter().all(|id| state.slaves.contains(id))).await;
        }
    }

    fn any_slave(&mut self) -> Option<SlaveNode> {
        // one stays
        if self.slaves.len() < 2 {
            return None;
        }
        let which = self.random.below(self.slaves.len());
        Some(self.slaves.remove(which))
    }

    /// A slave ends in order; back when nobody counts on it any more.
    async fn stop(&mut self) {
        let Some(slave) = self.any_slave() else { return };
        let moment = self.clock.tick();
        let mut its = self.sockets_of(&slave);
        for &no in &its {
            self.plain.borrow_mut().sockets[no].leaving(moment);
        }
        slave.stop().await;
        let over = self.clock.tick();
        for no in its.drain(..) {
            let client = self.clients[no].as_ref().expect("it was open");
            let end = client.ended().await;
            assert!(matches!(&end, listener::ListenerEnd::Closed(close) if close.code == 1001), "{end:?}");
            self.plain.borrow_mut().sockets[no].over(over);
        }
        self.forgotten(slave.end.id).await;
    }

    async fn forgotten(&self, id: NodeId) {
        for end in self.masters.iter().map(AsRef::as_ref).chain(self.slaves.iter().map(|slave| &slave.end)) {
            end.knows("that a slave went", |state| !state.slaves.contains(&id)).await;
        }
    }

    /// A slave ends at once.
    fn kill(&mut self) {
        let Some(slave) = self.any_slave() else { return };
        let moment = self.clock.tick();
        slave.kill(&self.net);
        for no in self.sockets_of(&slave) {
            let mut plain = self.plain.borrow_mut();
            plain.sockets[no].leaving(moment);
            plain.sockets[no].over(self.clock.tick());
            // what it has read may not have been read to the end, but nothing wrong may be in it
            let client = self.clients[no].take().expect("it was open");
            drop(client.heard());
        }
        self.dead.push((slave.end.id, Instant::now()));
    }

    /// Those who were killed are missed.
    async fn miss(&mut self) {
        // what they said last has been heard by then
        for end in self.masters.iter().map(AsRef::as_ref).chain(self.slaves.iter().map(|slave| &slave.end)) {
            within("a confirmation", end.pubsub.confirm()).await.expect("the wire is up");
        }
        for (id, _) in std::mem::take(&mut self.dead) {
            for end in self.masters.iter().map(AsRef::as_ref).chain(self.slaves.iter().map(|slave| &slave.end)) {
                end.cluster.lost(id);
            }
            self.forgotten(id).await;
        }
    }

    fn sockets_of(&self, slave: &SlaveNode) -> Vec<usize> {
        let plain = self.plain.borrow();
        let its = |no: &usize| plain.sockets[*no].is_open() && plain.sockets[*no].slave == u32::from(slave.end.id);
        (0..plain.sockets.len()).filter(its).collect()
    }

    /// The sockets that are open, some of them, in any order.
    pub(super) fn some_sockets(&mut self, most: usize) -> Vec<usize> {
        let mut open: Vec<_> =
            (0..self.clients.len()).filter(|&no| self.plain.borrow().sockets[no].is_open()).collect();
        let mut some = Vec::new();
        while some.len() < most && !open.is_empty() {
            some.push(open.swap_remove(self.random.below(open.len())));
        }
        some
    }

    async fn connect(&mut self) {
        let (app, user) = (APPS[self.random.below(2)], USERS[self.random.below(USERS.len())]);
        let which = self.random.below(self.slaves.len());
        let slave = &self.slaves[which];
        let open = While::since(self.clock.tick());
        let client = Listener::connect(slave.address, app, user, &token(app, user)).await;
        let open = While { begun: self.clock.tick(), ..open };
        let socket = ModelSocket {
            app: app.to_owned(),
            user: user.to_owned(),
            slave: slave.end.id.into(),
            open,
            on: Vec::new(),
        };
        self.plain.borrow_mut().sockets.push(socket);
        self.clients.push(Some(client));
    }

    async fn leave(&mut self) {
        let Some(&no) = self.some_sockets(1).first() else { return };
        let moment = self.clock.tick();
        self.plain.borrow_mut().sockets[no].leaving(moment);
        let client = self.clients[no].take().expect("it was open");
        if self.random.once_in(2) {
            client.leave().await;
        }
        // judged now, while what may still come is no concern: it is leaving
        self.plain.borrow().judge(no, &client.heard());
        drop(client);
        self.plain.borrow_mut().sockets[no].over(self.clock.tick());
        self.counted().await;
    }

    /// Joins, leaves and pushes that know nothing of each other.
    async fn several_at_once(&mut self) {
        let many = 1 + self.random.below(5);
        let mut deeds: Vec<LocalBoxFuture<'static, Option<(usize, Listener)>>> = Vec::new();
        let actors = self.random.below(many + 1);
        for no in self.some_sockets(actors) {
            let mut client = self.clients[no].take().expect("it was open");
            let channel = CHANNELS[self.random.below(CHANNELS.len())].to_owned();
            let (plain, clock) = (self.plain.clone(), self.clock.clone());
            let joins = !plain.borrow().sockets[no].channels().contains(&channel);
            deeds.push(Box::pin(async move {
                let moment = clock.tick();
                if joins {
                    plain.borrow_mut().sockets[no].on.push((channel.clone(), While::since(moment)));
                    assert!(client.subscribe(&channel).await, "it is open");
                } else {
                    on(&mut plain.borrow_mut().sockets[no], &channel).leaving = moment;
                    assert!(client.unsubscribe(&channel).await, "it is open");
                }
                let moment = clock.tick();
                let plain = &mut plain.borrow_mut().sockets[no];
                let stay = on(plain, &channel);
                *if joins { &mut stay.begun } else { &mut stay.over } = moment;
                Some((no, client))
            }));
        }
        for lane in 0..many {
            let (kind, app) =
                (if self.random.once_in(4) { MarkKind::User } else { MarkKind::Channel }, self.random.below(2));
            let to = match kind {
                MarkKind::User => USERS[self.random.below(USERS.len())],
                _ => CHANNELS[self.random.below(CHANNELS.len())],
            };
            let master = self.random.below(self.masters.len());
            let by = (master * 10 + lane) as u64;
            let (master, plain, clock) = (self.masters[master].clone(), self.plain.clone(), self.clock.clone());
            deeds.push(Box::pin(async move {
                let began = clock.tick();
                let mark = Mark { app: APPS[app].to_owned(), kind, to: to.to_owned(), by, n: began };
                plain.borrow_mut().pushes.push(ModelPush { mark: mark.clone(), began, settled: NEVER });
                within("a push", master.bus.publish(mark.envelope())).await.expect("the bus is up");
                None
            }));
        }
        for (no, client) in join_all(deeds).await.into_iter().flatten() {
            self.clients[no] = Some(client);
        }
    }

    /// The last day.
    async fn end(&mut self) {
        self.settle().await;
        self.miss().await;
        for app in APPS {
            self.list(app, Listing::Users { within: None }, true).await;
            self.list(app, Listing::Channels(vec![ChannelPattern::everything()]), true).await;
            for channel in CHANNELS {
                self.list(app, Listing::UsersOf(channel.parse().expect("a name")), true).await;
            }
        }
        for (no, client) in self.clients.iter().enumerate() {
            if let Some(client) = client {
                self.plain.borrow().judge(no, &client.heard());
            }
        }
    }
}

/// The stay on a channel that goes on, or is about to begin.
fn on<'a>(socket: &'a mut ModelSocket, channel: &str) -> &'a mut While {
    let stays = socket.on.iter_mut().rev().find(|(on, stay)| on == channel && stay.over == NEVER);
    &mut stays.expect("it was begun").1
}
