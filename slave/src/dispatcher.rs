//! Dispatches what the slave receives from the bus: a push goes to the threads that have subscribers, a query to all of them.

use std::{
    future::ready,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
    vec,
};

use actix::Addr;
use futures_util::future::join_all;
use log::warn;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    bus::{BoxFuture, BusHandler, Gap},
    command::{Command, PublishMatching, Target, Within},
    coordination::CoordinationMessage,
    envelope::Envelope,
    ids::{AppId, ChannelName, NodeId},
    member::MemberAnnouncement,
    node_request::{NodeRequest, NodeResponse},
    query::{
        NameHashes, Names, OccupiedQuery, Query, QueryResult, ResendWebhookQuery, ResultPart, SocketTags, TypedQuery,
        WebhooksQuery,
    },
    refusal::CloseCause,
};

use crate::{
    channels::Workers,
    registry::{AnswerQuery, Deliver, Deliveries, Delivery, PendingAnswer, Registry, RunningQuery},
    state::SlaveState,
};

/// The slave's handler on the bus.
pub struct BusDispatcher(pub Arc<SlaveState>);

/// What goes to each worker, in one message: waking a registry costs more than carrying out one command.
type Piles = SmallVec<[(usize, Deliveries); 1]>;

/// Deliveries that a pile has room for from the beginning.
const PILE: usize = 64;

impl BusDispatcher {
    /// Put `envelope` on the piles of the workers that it concerns; up to `more` may follow it.
    fn sort(&self, envelope: Envelope, piles: &mut Piles, more: usize) {
        let mut put = |worker, envelope: Envelope, channel| {
            let permit = self.0.backlog.admit(bytes(&envelope.command));
            let order = Delivery { envelope, channel, permit };
            match piles.iter_mut().find(|(of, _)| *of == worker) {
                Some((_, pile)) => pile.push(order),
                None => {
                    let mut pile = Deliveries::with_capacity(more.min(PILE));
                    pile.push(order);
                    piles.push((worker, pile));
                }
            }
        };
        let (channel, workers) = match &envelope.command {
            Command::Publish { channel, .. } | Command::WithinDialect { to: Within::Channel(channel), .. } => {
                match self.0.interests.find(&envelope.app, channel) {
                    Some((channel, workers)) => (Some(channel), workers),
                    None => return,
                }
            }
            Command::Direct { to: Target::Socket(socket), .. }
            | Command::Terminate { whose: Target::Socket(socket), .. }
                if socket.node() != self.0.node =>
            {
                return;
            }
            // other users hash to the same slot
            Command::Direct { to: Target::User(user), .. }
            | Command::DirectEvent { user, .. }
            | Command::Reload { user, .. }
            | Command::Grant { user, .. }
            | Command::Terminate { whose: Target::User(user), .. }
                if !self.0.metrics.users.is_here(&envelope.app, user) =>
            {
                return;
            }
            Command::Direct { .. }
            | Command::DirectEvent { .. }
            | Command::Reload { .. }
            | Command::Grant { .. }
            | Command::Terminate { .. }
            | Command::WithinDialect { .. } => (None, Workers::first(self.0.registries.all().len())),
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
        let workers = self.0.registries.all();
        for (worker, pile) in piles {
            if let Some(worker) = workers.get(worker) {
                worker.do_send(Deliver(pile));
            }
        }
    }
}

impl BusHandler for BusDispatcher {
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
            self.0.presence.refetch(&self.0.registries);
        }
    }

    fn opened(&self) -> u32 {
        self.0.admission.next_number()
    }

    fn gap(&self, gap: Gap) {
        warn!(gap = gap.label(); "{gap}: sockets are told to come back");
        let SlaveState { admission, registries, .. } = &*self.0;
        if admission.is_draining() {
            return registries.close_sockets(admission.farewell(), None);
        }
        self.0.coordination.begin_anew(&self.0.bus.state().borrow().clone());
        let opened_before = match gap {
            Gap::TooSlow => None,
            Gap::Missed { opened_before, .. } | Gap::Unknown { opened_before, .. } => opened_before,
        };
        // this node takes them back itself
        registries.close_sockets(CloseCause::ShuttingDown, opened_before);
    }

    fn announced(&self, MemberAnnouncement { channel, change }: MemberAnnouncement) {
        self.0.presence.announced(&channel, change, &*self.0.registries);
    }

    fn publish_matching(&self, push: PublishMatching) -> BoxFuture<NameHashes> {
        let payload = push.event.data.len();
        Box::pin(self.ask_all(push, payload, RunningQuery::Publish))
    }

    fn query(&self, query: Query) -> BoxFuture<QueryResult> {
        match query {
            Query::Names(query) => self.answer(query, RunningQuery::Names),
            Query::Count(query) => self.answer(query, RunningQuery::Count),
            Query::States(query) => self.answer(query, RunningQuery::States),
            Query::Members(query) => self.answer(query, RunningQuery::Members),
            Query::Grants(query) => self.answer(query, RunningQuery::Grants),
            Query::Stats(query) => self.answer(query, RunningQuery::Stats),
            Query::Webhooks(WebhooksQuery { app }) => {
                let states = self.0.webhooks.states(&app);
                Box::pin(async { states.into_result() })
            }
            Query::ResendWebhook(ResendWebhookQuery { app, id }) => {
                let names: Names = self.0.webhooks.resend(&app, &id).then_some(id).into_iter().collect();
                Box::pin(async { names.into_result() })
            }
            // most often nobody of this slave is there, which no thread need be asked
            Query::Sockets(query) if !self.is_occupied(&query.app, &query.channel) => {
                Box::pin(ready(SocketTags::new().into_result()))
            }
            Query::Sockets(query) => self.answer(query, RunningQuery::Sockets),
            Query::Occupied(OccupiedQuery { app, channel }) => {
                let names: Names = self.is_occupied(&app, &channel).then(|| channel.to_string()).into_iter().collect();
                Box::pin(ready(names.into_result()))
            }
        }
    }

    fn request(&self, request: NodeRequest) -> NodeResponse {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match request {
            NodeRequest::Redeem { token, app } => {
                NodeResponse::Redeemed(self.0.tokens.redeem_own(&token, &app, now).ok())
            }
            NodeRequest::MemberLists(channels) => NodeResponse::MemberLists(self.0.coordination.members(&channels)),
            NodeRequest::MintToken { app, channel, ttl_millis } => {
                NodeResponse::Minted(self.0.temporary.mint(&app, channel, Duration::from_millis(ttl_millis), now))
            }
            NodeRequest::CheckToken { token, app } => {
                NodeResponse::TokenIsValid(self.0.temporary.check_own(&token, &app, now))
            }
            NodeRequest::SpendToken { token, channel } => {
                NodeResponse::TokenIsValid(self.0.temporary.spend_own(&token, &channel, now))
            }
            NodeRequest::Claimants(channel) => NodeResponse::Claimants(self.0.coordination.claimants(&channel)),
        }
    }
}

impl BusDispatcher {
    fn is_occupied(&self, app: &AppId, channel: &ChannelName) -> bool {
        self.0.interests.find(app, channel).is_some_and(|(_, mut workers)| workers.next().is_some())
    }

    fn answer<Q: TypedQuery>(
        &self,
        query: Q,
        question: fn(PendingAnswer<Q, Q::Result>) -> RunningQuery,
    ) -> BoxFuture<QueryResult> {
        let result = self.ask_all(query, 0, question);
        Box::pin(async { result.await.into_result() })
    }

    /// Ask every thread, and unite what they answer. `payload`: the bytes that wait with the question.
    fn ask_all<Q: Send + Sync + 'static, R: ResultPart>(
        &self,
        query: Q,
        payload: usize,
        question: fn(PendingAnswer<Q, R>) -> RunningQuery,
    ) -> impl Future<Output = R> + use<Q, R> {
        let (shared, query) = (self.0.clone(), Arc::new(query));
        async move {
            let asked = |worker: &Addr<Registry>| {
                let permit = shared.backlog.admit(payload);
                let (reply, answer) = oneshot::channel();
                worker
                    .do_send(AnswerQuery { question: question(PendingAnswer { query: query.clone(), reply }), permit });
                answer
            };
            let answers: Vec<_> = shared.registries.all().iter().map(asked).collect();
            let mut all = R::default();
            for answer in join_all(answers).await {
                match answer {
                    Ok(answer) => all.absorb(answer),
                    Err(error) => warn!("a worker thread left a query unanswered: {error}"),
                }
            }
            all
        }
    }
}

fn bytes(command: &Command) -> usize {
    match command {
        Command::Publish { event, .. } | Command::DirectEvent { event, .. } => event.data.len(),
        Command::Direct { data, .. } | Command::WithinDialect { data, .. } => data.len(),
        Command::Reload { channels, .. } => channels.iter().map(|channel| channel.as_str().len()).sum(),
        Command::Grant { channel, .. } => channel.as_str().len(),
        Command::Terminate { .. } => 0,
    }
}
