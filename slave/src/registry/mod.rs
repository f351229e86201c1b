//! The registry of one worker thread: an actor in front of its floor. Pushes and queries come as messages; the sessions
//! of the same thread call the floor directly.

pub mod attendees;
pub mod fanout;
pub mod floor;
pub mod grants;
pub mod index;
pub mod message;
pub mod presence;

use std::{
    cell::RefCell,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use actix::{Actor, ActorFuture, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tokio::task::yield_now;
use wellhead_proto::refusal::CloseCause;

use self::{
    floor::Floor,
    index::SeatNo,
    message::{Answer, Drain, Obey, Order, TellMembers},
};
use crate::{
    heartbeat,
    metrics::Metrics,
    pulse::{BEAT, Rhythm},
};

/// Sockets that a drain closes at once, and the pause after them: some 10,000 a second and thread.
const DRAIN_CHUNK: usize = 500;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// What the registry and the sessions of a thread share.
pub struct Hall {
    /// The sockets.
    pub floor: RefCell<Floor>,
}

impl Hall {
    /// A hall around `floor`.
    #[must_use]
    pub fn new(floor: Floor) -> Rc<Self> {
        Rc::new(Self { floor: RefCell::new(floor) })
    }
}

/// The actor.
pub struct Registry {
    hall: Rc<Hall>,
    rhythm: Rhythm,
    metrics: Metrics,
    /// What this thread last added to the node's gauges.
    shown: (i64, i64),
}

impl Registry {
    /// A registry in front of `hall`.
    #[must_use]
    pub fn new(hall: Rc<Hall>, rhythm: Rhythm, metrics: Metrics) -> Self {
        Self { hall, rhythm, metrics, shown: (0, 0) }
    }

    fn beat(&mut self) {
        let mut floor = self.hall.floor.borrow_mut();
        let owed = heartbeat::beat(&mut floor, &self.rhythm) as i64;
        let users = floor.index.apps().map(|(.., users)| users.count() as i64).sum::<i64>();
        drop(floor);
        self.metrics.queue_bytes.inc_by(owed - self.shown.0);
        self.metrics.users.inc_by(users - self.shown.1);
        self.shown = (owed, users);
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(BEAT, |registry, _| registry.beat());
        ctx.spawn(Settle);
    }
}

impl Handler<Obey> for Registry {
    type Result = ();

    fn handle(&mut self, Obey(orders): Obey, _: &mut Self::Context) {
        let mut floor = self.hall.floor.borrow_mut();
        let now = Instant::now();
        for Order { envelope, ticket } in orders {
            floor.obey(envelope, ticket, now);
        }
    }
}

impl Handler<TellMembers> for Registry {
    type Result = ();

    fn handle(&mut self, TellMembers { channel, told, ticket }: TellMembers, _: &mut Self::Context) {
        self.hall.floor.borrow_mut().tell_members(channel, told, ticket);
    }
}

impl Handler<Answer> for Registry {
    type Result = ();

    fn handle(&mut self, Answer { ask, ticket, reply }: Answer, _: &mut Self::Context) {
        self.hall.floor.borrow_mut().ask(ask, ticket, reply);
    }
}

impl Handler<Drain> for Registry {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        let floor = self.hall.floor.borrow();
        let open = |(_, seat): &(SeatNo, &floor::Seat)| !seat.outbox.is_ending();
        let some: Vec<_> = floor.index.seats().filter(open).map(|(no, _)| no).take(DRAIN_CHUNK).collect();
        for no in &some {
            floor.close(*no, CloseCause::ShuttingDown);
        }
        if some.len() == DRAIN_CHUNK {
            let pause = actix_rt::time::sleep(DRAIN_PAUSE).into_actor(self);
            ctx.spawn(pause.map(|(), _, ctx| ctx.notify(Drain)));
        }
    }
}

/// Never ends. actix polls the futures of an actor after it has drained its mailbox: so this is polled exactly once
/// after each drain, and everything that the drain put into outboxes leaves in one write per socket.
struct Settle;

impl ActorFuture<Registry> for Settle {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        registry: &mut Registry,
        _: &mut Context<Registry>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        if registry.hall.floor.borrow_mut().settle() {
            // more waits: let the thread look at its sockets and run its other tasks, then go on. A plain wake would come
            // before the sockets, up to 61 times in a row: tokio polls them only when no task is ready
            let _ = pin!(yield_now()).poll(cx);
        }
        Poll::Pending
    }
}
