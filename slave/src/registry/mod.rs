//! The registry of one worker thread: an actor in front of its shard. Pushes and queries come as messages; the sessions
//! of the same thread call the shard directly.

mod cell;
mod fanout;
mod grants;
mod heartbeat;
mod index;
mod message;
mod relief;
mod shard;
mod socket;
mod survey;
mod unauthorized;

pub use self::{
    cell::ShardCell,
    message::{
        AnswerQuery, CountUpdate, Deliver, Deliveries, Delivery, Drain, PendingAnswer, RunningQuery, TellMembers,
        UsersStand,
    },
    shard::{CHUNK, LocalSocketView, Shard},
    socket::{NewSocket, SocketHandle},
};

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use actix::{Actor, ActorFuture, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tokio::task::yield_now;
use wellhead_proto::refusal::CloseCause;

use crate::{
    keep_alive::{BEAT, KeepAliveConfig, ThreadClock},
    metrics::Metrics,
    numbers::SocketNo,
};

/// Sockets that a drain closes at once, and the pause after them: some 10,000 a second and thread.
const DRAIN_CHUNK: usize = 500;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);
/// The most such pauses, and one more step, if nobody is there to take the sockets: within 400 ms all are told.
const DRAIN_STEPS_ALONE: usize = 8;

/// The actor.
pub struct Registry {
    cell: Rc<ShardCell>,
    keep_alive: KeepAliveConfig,
    began: Instant,
    clock: ThreadClock,
    metrics: Metrics,
    /// What this thread last added to the node's gauge of queued bytes.
    shown: i64,
}

impl Registry {
    /// A registry in front of a shard.
    #[must_use]
    pub fn new(cell: Rc<ShardCell>, keep_alive: KeepAliveConfig, metrics: Metrics) -> Self {
        Self { cell, keep_alive, began: Instant::now(), clock: ThreadClock::default(), metrics, shown: 0 }
    }

    /// Schedule the next heartbeat a whole [`BEAT`] after this one. An interval would make up for those that it missed.
    fn beat_later(ctx: &mut Context<Self>) {
        ctx.run_later(BEAT, |registry, ctx| {
            registry.beat();
            if registry.cell.shard.borrow_mut().tick_watchers() {
                // its flush tells them
                ctx.notify(UsersStand(Vec::new()));
            }
            Self::beat_later(ctx);
        });
    }

    fn beat(&mut self) {
        let now = self.clock.tick(self.began.elapsed());
        let mut shard = self.cell.shard.borrow_mut();
        let owed = heartbeat::beat(&mut shard, now, &self.keep_alive) as i64;
        // a count once a second is cheap; what the sockets of other threads hold may have grown, too
        relief::look_after(&shard, &self.cell.share);
        drop(shard);
        let memory = self.cell.share.memory();
        memory.tell();
        self.metrics.held_bytes.set(memory.held() as i64);
        self.metrics.queue_bytes.inc_by(owed - self.shown);
        self.shown = owed;
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        Self::beat_later(ctx);
        ctx.spawn(FlushAfterDrain);
    }
}

impl Handler<Deliver> for Registry {
    type Result = ();

    fn handle(&mut self, Deliver(orders): Deliver, _: &mut Self::Context) {
        let mut shard = self.cell.shard.borrow_mut();
        let now = Instant::now();
        for order in orders {
            shard.execute(order, now);
        }
    }
}

impl Handler<TellMembers> for Registry {
    type Result = ();

    fn handle(&mut self, TellMembers { channel, update, permit }: TellMembers, _: &mut Self::Context) {
        self.cell.shard.borrow_mut().tell_members(channel, update, permit);
    }
}

impl Handler<CountUpdate> for Registry {
    type Result = ();

    fn handle(&mut self, update: CountUpdate, _: &mut Self::Context) {
        self.cell.shard.borrow_mut().tell_count(update);
    }
}

impl Handler<UsersStand> for Registry {
    type Result = ();

    fn handle(&mut self, UsersStand(users): UsersStand, _: &mut Self::Context) {
        self.cell.shard.borrow_mut().users_stand(users);
    }
}

impl Handler<AnswerQuery> for Registry {
    type Result = ();

    fn handle(&mut self, AnswerQuery { question, permit }: AnswerQuery, _: &mut Self::Context) {
        self.cell.shard.borrow_mut().ask(question, permit);
    }
}

impl Handler<Drain> for Registry {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        let Drain { cause, at_once, opened_before } = drain;
        let shard = self.cell.shard.borrow();
        let at_once = at_once.unwrap_or_else(|| drain_chunk(cause, shard.index.local_sockets().count()));
        // numbers begin anew after 2^32
        let older = |local_socket: &shard::LocalSocket, number: u32| {
            number.wrapping_sub(local_socket.id.counter()).cast_signed() > 0
        };
        let meant = |local_socket: &shard::LocalSocket| opened_before.is_none_or(|number| older(local_socket, number));
        let open = |(_, local_socket): &(SocketNo, &shard::LocalSocket)| {
            !local_socket.outbox.is_ending() && meant(local_socket)
        };
        let some: Vec<_> = shard.index.local_sockets().filter(open).map(|(no, _)| no).take(at_once).collect();
        for no in &some {
            shard.end_socket(*no, cause);
        }
        if some.len() == at_once {
            let pause = actix_rt::time::sleep(DRAIN_PAUSE).into_actor(self);
            let next = Drain { cause, at_once: Some(at_once), opened_before };
            ctx.spawn(pause.map(move |(), _, ctx| ctx.notify(next)));
        }
    }
}

/// How many of so many sockets are closed at once. Where nobody takes them they are all told soon: each comes back a
/// second after it was told, and the last of them must not hold up whoever is started in our place.
fn drain_chunk(cause: CloseCause, sockets: usize) -> usize {
    match cause {
        CloseCause::ShuttingDownAlone => DRAIN_CHUNK.max(sockets.div_ceil(DRAIN_STEPS_ALONE)),
        _ => DRAIN_CHUNK,
    }
}

/// Never ends. actix polls the futures of an actor after it has drained its mailbox: so this is polled exactly once
/// after each drain, and everything that the drain put into outboxes leaves in one write per socket.
struct FlushAfterDrain;

impl ActorFuture<Registry> for FlushAfterDrain {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        registry: &mut Registry,
        _: &mut Context<Registry>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let more = registry.cell.shard.borrow_mut().flush();
        registry.cell.look_after();
        if more {
            // more waits: let the thread look at its sockets and run its other tasks, then go on. A plain wake would come
            // before the sockets, up to 61 times in a row: tokio polls them only when no task is ready
            let _ = pin!(yield_now()).poll(cx);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_nobody_takes_are_told_within_half_a_second() {
        for sockets in [0, 1, 499, 500, 4_001, 20_000, 1_000_000] {
            let at_once = drain_chunk(CloseCause::ShuttingDownAlone, sockets);
            assert!(at_once >= DRAIN_CHUNK);
            let pauses = u32::try_from(sockets / at_once).unwrap();
            assert!(pauses * DRAIN_PAUSE < Duration::from_millis(500), "{sockets}");
            assert_eq!(drain_chunk(CloseCause::ShuttingDown, sockets), DRAIN_CHUNK, "others take them bit by bit");
        }
    }
}
