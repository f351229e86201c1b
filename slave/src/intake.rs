//! From the bus to the registries: a push goes to the threads that have subscribers, a query to all of them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
    vec,
};

use actix::Addr;
use futures_util::future::join_all;
use log::warn;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    bus::{BoxFuture, Gap, Inbox},
    command::{Command, Target},
    envelope::Envelope,
    ids::{ChannelKey, NodeId},
    query::{Ask, Census},
    refusal::CloseCause,
    report::CoordinationMessage,
};

use crate::{
    Shared,
    channels::{ChannelRef, Workers},
    presence::{MemberNotifier, MemberUpdate},
    registry::{
        Registry,
        message::{Answer, Obey, Order, Orders, TellMembers},
    },
};

/// A slave's ear on the bus.
pub struct Intake(pub Arc<Shared>);

/// What goes to each worker, in one message: waking a registry costs more than an order.
type Piles = SmallVec<[(usize, Orders); 1]>;

/// Orders that a pile has room for from the beginning.
const PILE: usize = 64;

impl Intake {
    /// Put `envelope` on the piles of the workers that it concerns; up to `more` may follow it.
    fn sort(&self, envelope: Envelope, piles: &mut Piles, more: usize) {
        let mut put = |worker, envelope: Envelope, channel| {
            let ticket = self.0.backlog.admit(bytes(&envelope.command));
            let order = Order { envelope, channel, ticket };
            match piles.iter_mut().find(|(of, _)| *of == worker) {
                Some((_, pile)) => pile.push(order),
                None => {
                    let mut pile = Orders::with_capacity(more.min(PILE));
                    pile.push(order);
                    piles.push((worker, pile));
                }
            }
        };
        let (channel, workers) = match &envelope.command {
            Command::Publish { channel, .. } => match self.0.interests.find(&envelope.app, channel) {
                Some((channel, workers)) => (Some(channel), workers),
                None => return,
            },
            Command::Members { channel, change } => {
                let channel = ChannelKey { app: envelope.app.clone(), name: channel.clone() };
                // behind what came before it
                self.send(std::mem::take(piles));
                return self.0.presence.announced(&channel, change.clone(), &*self.0);
            }
            Command::Direct { to: Target::Socket(socket), .. } if socket.node() != self.0.node => return,
            Command::Direct { .. } | Command::Reload { .. } | Command::Grant { .. } => {
                (None, Workers::first(self.0.workers().len()))
            }
        };
        let mut workers = workers.peekable();
        while let Some(worker) = workers.next() {
            if workers.peek().is_none() {
                put(worker, envelope, channel);
                return;
            }
            put(worker, envelope.clone(), channel);
        }
    }

    fn send(&self, piles: Piles) {
        let workers = self.0.workers();
        for (worker, pile) in piles {
            if let Some(worker) = workers.get(worker) {
                worker.do_send(Obey(pile));
            }
        }
    }
}

impl Inbox for Intake {
    fn deliver(&self, envelope: Envelope) {
        let mut piles = Piles::new();
        self.sort(envelope, &mut piles, 1);
        self.send(piles);
    }

    fn deliver_some(&self, envelopes: &mut vec::IntoIter<Envelope>, most: usize) {
        let mut piles = Piles::new();
        for _ in 0..most {
            if !self.has_room() {
                break;
            }
            let more = envelopes.len().min(most);
            let Some(envelope) = envelopes.next() else { break };
            self.sort(envelope, &mut piles, more);
        }
        self.send(piles);
    }

    fn has_room(&self) -> bool {
        self.0.backlog.has_room()
    }

    fn room(&self) -> BoxFuture<()> {
        Box::pin(self.0.backlog.clone().room())
    }

    fn report(&self, from: NodeId, messages: Vec<CoordinationMessage>) {
        if self.0.coordination.receive(from, messages) {
            self.0.refetch_members();
        }
    }

    fn opened(&self) -> u32 {
        self.0.next_socket.load(Ordering::Relaxed)
    }

    fn gap(&self, gap: Gap) {
        warn!(gap = gap.label(); "{gap}: sockets are told to come back");
        if self.0.is_draining() {
            return self.0.close_all(self.0.farewell());
        }
        self.0.coordination.begin_anew(&self.0.bus.state().borrow().clone());
        let opened_before = match gap {
            Gap::TooSlow => None,
            Gap::Missed { opened_before, .. } | Gap::Unknown { opened_before, .. } => opened_before,
        };
        // this node takes them back itself
        self.0.close(CloseCause::ShuttingDown, opened_before);
    }

    fn answer(&self, ask: Ask) -> BoxFuture<Census> {
        let shared = self.0.clone();
        if let Ask::Redeem { token, app } = &ask {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let bearer = shared.tokens.redeem_own(token, app, now).ok();
            return Box::pin(std::future::ready(Census::Redeemed(bearer)));
        }
        if let Ask::Attendance(channels) = &ask {
            return Box::pin(std::future::ready(Census::Attendance(shared.coordination.members(channels))));
        }
        let payload = if let Ask::PublishMatching { event, .. } = &ask { event.data.len() } else { 0 };
        let ask = Arc::new(ask);
        Box::pin(async move {
            let asked = |worker: &Addr<Registry>| {
                let ticket = shared.backlog.admit(payload);
                let (reply, answer) = oneshot::channel();
                worker.do_send(Answer { ask: ask.clone(), ticket, reply });
                answer
            };
            let answers: Vec<_> = shared.workers().iter().map(asked).collect();
            let answers = join_all(answers).await;
            let mut census = ask.nothing();
            for answer in answers {
                match answer {
                    Ok(answer) => census.merge(answer),
                    Err(error) => warn!("a worker thread left a query unanswered: {error}"),
                }
            }
            census
        })
    }
}

impl MemberNotifier for Shared {
    fn notify(&self, channel: &ChannelRef, update: MemberUpdate) {
        let workers = self.workers();
        let with_subscribers = self.interests.names().workers(channel.id());
        for worker in with_subscribers.filter_map(|worker| workers.get(worker)) {
            let (channel, update, ticket) = (channel.clone(), update.clone(), self.backlog.admit(0));
            worker.do_send(TellMembers { channel, update, ticket });
        }
    }
}

fn bytes(command: &Command) -> usize {
    match command {
        Command::Publish { event, .. } => event.data.len(),
        Command::Direct { data, .. } => data.len(),
        Command::Reload { channels, .. } => channels.iter().map(|channel| channel.as_str().len()).sum(),
        Command::Grant { channel, .. } => channel.as_str().len(),
        // the slave's presence makes messages of its own of it
        Command::Members { .. } => 0,
    }
}
