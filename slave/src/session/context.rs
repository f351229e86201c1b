//! The actix context of a session. A session gets no messages (what goes to its client is put on the outbox), so it needs
//! no mailbox, and its one stream is polled beside it. An actor in actix's own context would hold 450 bytes more.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix::{Actor, ActorContext, ActorFuture, ActorState, Running, StreamHandler};
use futures_util::{Stream, StreamExt};

/// Frames that are handled before other sockets of the thread get their turn.
const IN_A_ROW: usize = 16;

type Wait<A> = Pin<Box<dyn ActorFuture<A, Output = ()>>>;

/// The context.
pub struct SessionContext<A: Actor> {
    /// Nothing is handled before these are done, the last first.
    waits: Vec<Wait<A>>,
    state: ActorState,
}

impl<A: Actor<Context = Self>> SessionContext<A> {
    /// The context of an actor that has not started.
    pub fn new() -> Self {
        Self { waits: Vec::new(), state: ActorState::Started }
    }

    /// Handle nothing before `future` is done.
    pub fn wait(&mut self, future: impl ActorFuture<A, Output = ()> + 'static) {
        self.waits.push(Box::pin(future));
    }

    /// Let `actor` handle what comes from `stream`, until one of them has ended.
    pub fn poll<S>(&mut self, actor: &mut A, stream: &mut S, cx: &mut Context<'_>) -> Poll<()>
    where
        A: StreamHandler<S::Item>,
        S: Stream + Unpin,
    {
        if self.state == ActorState::Started {
            self.state = ActorState::Running;
            Actor::started(actor, self);
            StreamHandler::<S::Item>::started(actor, self);
        }
        let mut handled = 0;
        while self.state == ActorState::Running {
            let before = self.waits.len();
            if let Some(mut wait) = self.waits.pop() {
                if wait.as_mut().poll(actor, self, cx).is_pending() {
                    // before what it asks to wait for
                    self.waits.insert(before - 1, wait);
                    if self.waits.len() == before {
                        return Poll::Pending;
                    }
                }
                continue;
            }
            if handled == IN_A_ROW {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            handled += 1;
            match stream.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(item)) => actor.handle(item, self),
                Poll::Ready(None) => {
                    StreamHandler::<S::Item>::finished(actor, self);
                    self.stop();
                }
            }
        }
        self.leave(actor);
        Poll::Ready(())
    }

    /// The actor ends, whatever it was doing.
    pub fn leave(&mut self, actor: &mut A) {
        if self.state != ActorState::Stopped {
            self.state = ActorState::Stopping;
            // the actor cannot refuse to stop: its socket is gone
            let (Running::Stop | Running::Continue) = Actor::stopping(actor, self);
            self.state = ActorState::Stopped;
            Actor::stopped(actor, self);
        }
    }
}

impl<A: Actor<Context = Self>> ActorContext for SessionContext<A> {
    fn stop(&mut self) {
        if self.state != ActorState::Stopped {
            self.state = ActorState::Stopping;
        }
    }

    fn terminate(&mut self) {
        self.state = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use actix::{ActorFutureExt, WrapFuture};
    use futures_util::stream;
    use tokio::sync::oneshot;

    use super::*;

    /// Notes what happens to it, and waits after numbers for as long as somebody is to be waited for.
    #[derive(Default)]
    struct Scribe {
        notes: Vec<String>,
        awaited: Vec<oneshot::Receiver<()>>,
    }

    impl Scribe {
        fn note(&mut self, what: impl ToString) {
            self.notes.push(what.to_string());
        }

        fn wait(&mut self, context: &mut SessionContext<Self>) {
            if let Some(awaited) = self.awaited.pop() {
                context.wait(awaited.into_actor(self).map(|_, scribe, context| {
                    scribe.note("waited");
                    scribe.wait(context);
                }));
            }
        }
    }

    impl Actor for Scribe {
        type Context = SessionContext<Self>;

        fn started(&mut self, _: &mut Self::Context) {
            self.note("started");
        }

        fn stopped(&mut self, _: &mut Self::Context) {
            self.note("stopped");
        }
    }

    impl StreamHandler<u32> for Scribe {
        fn handle(&mut self, number: u32, context: &mut Self::Context) {
            self.note(number);
            self.wait(context);
        }

        fn finished(&mut self, _: &mut Self::Context) {
            self.note("finished");
        }
    }

    #[tokio::test]
    async fn nothing_is_handled_before_what_is_waited_for() {
        let (first, first_awaited) = oneshot::channel();
        let (second, second_awaited) = oneshot::channel();
        let mut scribe = Scribe { notes: Vec::new(), awaited: vec![second_awaited, first_awaited] };
        let (mut context, mut numbers) = (SessionContext::new(), stream::iter([1, 2]));
        let mut now = async |scribe: &mut Scribe| {
            let poll = poll_fn(|cx| Poll::Ready(context.poll(scribe, &mut numbers, cx))).await;
            (poll.is_ready(), std::mem::take(&mut scribe.notes).join(" "))
        };
        assert_eq!(now(&mut scribe).await, (false, "started 1".to_owned()));
        first.send(()).unwrap();
        assert_eq!(now(&mut scribe).await, (false, "waited".to_owned()));
        second.send(()).unwrap();
        assert_eq!(now(&mut scribe).await, (true, "waited 2 finished stopped".to_owned()));
    }

    #[tokio::test]
    async fn a_flood_is_handled_in_turns() {
        let (mut scribe, mut context, mut numbers) = (Scribe::default(), SessionContext::new(), stream::iter(0..40));
        let mut turns = Vec::new();
        poll_fn(|cx| {
            let poll = context.poll(&mut scribe, &mut numbers, cx);
            turns.push(scribe.notes.len());
            poll
        })
        .await;
        assert_eq!(turns, [17, 33, 43]);
    }

    #[tokio::test]
    async fn an_actor_that_is_left_stops_once() {
        let (mut scribe, mut context) = (Scribe::default(), SessionContext::new());
        let mut numbers = stream::pending();
        assert!(poll_fn(|cx| Poll::Ready(context.poll(&mut scribe, &mut numbers, cx))).await.is_pending());
        context.leave(&mut scribe);
        context.leave(&mut scribe);
        assert!(poll_fn(|cx| Poll::Ready(context.poll(&mut scribe, &mut numbers, cx))).await.is_ready());
        assert_eq!(scribe.notes, ["started", "stopped"]);
    }
}
