//! A node's end of the bus as the roles hold it: confirmed pushes, queries, interest.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{timeout, timeout_at},
};
use wellhead_proto::{
    bus::{Bus, BusError, BusHandler, BusState, Gathered, Interest},
    command::{Command, PublishMatching, Target, Within},
    coordination::CoordinationMessage,
    envelope::Envelope,
    ids::{AppId, ChannelKey, NodeId, UserId},
    member::MemberAnnouncement,
    membership::coordinators,
    node_message::Body,
    node_request::{NodeRequest, NodeResponse},
    query::{NameHashes, Query, QueryResult, ResultPart},
};

use super::{
    Cluster, DEADLINE, ONE_DEADLINE, PUBLISH, interest,
    late::OwedAnswers,
    pending::PendingMessages,
    slots::{slot_of, slot_of_user},
};
use crate::bus::pubsub::{PubSub, Subject};

/// After so many envelopes in a row a batch lets other requests of its thread have a turn.
const BURST: usize = 256;

/// Where the messages of a command go.
fn subject_of(envelope: &Envelope) -> Subject {
    match &envelope.command {
        Command::Publish { channel, .. } | Command::WithinDialect { to: Within::Channel(channel), .. } => {
            Subject::Slot(slot_of(&ChannelKey { app: envelope.app.clone(), name: channel.clone() }))
        }
        Command::Direct { to: Target::Socket(socket), .. }
        | Command::Terminate { whose: Target::Socket(socket), .. } => Subject::Node(socket.node()),
        // what changes a user's permissions, or ends its sockets, goes the same way as pushes to the user: none overtakes another
        Command::Direct { to: Target::User(user), .. }
        | Command::DirectEvent { user, .. }
        | Command::Reload { user, .. }
        | Command::Grant { user, .. }
        | Command::Terminate { whose: Target::User(user), .. } => Subject::UserSlot(slot_of_user(&envelope.app, user)),
        Command::WithinDialect { .. } => Subject::Everyone,
    }
}

/// A node's bus, as the roles hold it.
pub struct ClusterBus(pub Arc<Cluster>);

#[async_trait]
impl Bus for ClusterBus {
    async fn publish_all(&self, envelopes: Vec<Envelope>) -> Result<(), BusError> {
        let messages = envelopes.into_iter().map(|envelope| (subject_of(&envelope), Body::Command(envelope)));
        self.0.push_all(messages, true).await
    }

    async fn announce(&self, announcements: Vec<MemberAnnouncement>) -> Result<(), BusError> {
        let message = |announcement: MemberAnnouncement| {
            (Subject::Slot(slot_of(&announcement.channel)), Body::Announcement(announcement))
        };
        // a change of members is said again after whatever happened: see `slave/src/presence`
        self.0.push_all(announcements.into_iter().map(message), false).await
    }

    async fn publish_matching(&self, push: PublishMatching) -> Result<Gathered<NameHashes>, BusError> {
        let (pubsub, mut state) = self.0.when_known().await?;
        let mut pushes = Pushes::begin(&self.0, pubsub).await?;
        let asked = self.0.ask_all(NameHashes::default().into_result());
        let body = Body::PublishMatching { id: asked.waiting.id, from: self.0.me.node, push };
        timeout_at(asked.deadline, pushes.push(Subject::Everyone, body, true)).await.map_err(|_| BusError::Full)??;
        let collected = async { Ok(asked.collect(&mut state).await) };
        // as with any push, the publisher learns whether the bus took it
        let ((), Gathered { result, missing }) = tokio::try_join!(pushes.confirm(), collected)?;
        let result = ResultPart::from_result(result).ok_or(BusError::OtherKind)?;
        Ok(Gathered { result, missing })
    }

    async fn gather(&self, query: Query) -> Result<Gathered<QueryResult>, BusError> {
        let (pubsub, mut state) = self.0.when_known().await?;
        let asked = self.0.ask_all(query.nothing());
        let body = Body::Query { id: asked.waiting.id, from: self.0.me.node, query };
        let sent = self.0.send(pubsub, Subject::Everyone, body);
        timeout_at(asked.deadline, sent).await.map_err(|_| BusError::Full)??;
        Ok(asked.collect(&mut state).await)
    }

    async fn gather_on(&self, channel: &ChannelKey, query: Query) -> Result<Gathered<QueryResult>, BusError> {
        let (pubsub, _) = self.0.when_known().await?;
        let enough = match &query {
            Query::Sockets(query) => query.most as usize,
            Query::Occupied(_) => 1,
            _ => usize::MAX,
        };
        let mut asked = AskedOnSlot::begin(&self.0, query.nothing(), enough);
        let body = Body::Query { id: asked.waiting.id, from: self.0.me.node, query };
        let sent = self.0.send(pubsub, Subject::Slot(slot_of(channel)), body);
        timeout_at(asked.deadline, sent).await.map_err(|_| BusError::Full)??;
        // who is known to be there is waited for; who came so lately that nobody knows it yet answers meanwhile
        let claimants = self.claimants(channel);
        tokio::pin!(claimants);
        let owed = tokio::select! {
            owed = &mut claimants => owed,
            () = asked.has_enough() => Ok(Vec::new()),
        };
        Ok(asked.collect(owed).await)
    }

    async fn request(&self, node: NodeId, request: NodeRequest) -> Result<NodeResponse, BusError> {
        if node == self.0.me.node
            && let Some(bus_handler) = self.0.bus_handler()
        {
            self.0.open_pubsub()?;
            return Ok(bus_handler.request(request));
        }
        let pubsub = self.0.open_pubsub()?;
        let mut waiting = self.0.requests.wait(self.0.sender.number());
        let body = Body::Request { id: waiting.id, from: self.0.me.node, request };
        let asked = async {
            self.0.send(pubsub, Subject::Node(node), body).await?;
            waiting.answers.recv().await.map(|(_, response)| response).ok_or(BusError::Silent)
        };
        timeout(ONE_DEADLINE, asked).await.map_err(|_| BusError::Silent)?
    }

    fn interest(&self, channel: &ChannelKey) -> Option<Interest> {
        Some(interest::want(&self.0, channel))
    }

    fn user_interest(&self, app: &AppId, user: &UserId) -> Option<Interest> {
        interest::want_user(&self.0, app, user)
    }

    fn retain_user(&self, app: &AppId, user: &UserId) {
        self.0.retain_user(app, user);
    }

    fn release_user(&self, app: &AppId, user: &UserId) {
        self.0.release_user(app, user);
    }

    fn report(&self, to: NodeId, reports: Vec<CoordinationMessage>) {
        self.0.sender.queue(Subject::Node(to), Body::Reports { from: self.0.me.node, reports });
    }

    fn attach(&self, bus_handler: Arc<dyn BusHandler>) {
        let before = self.0.bus_handler.write().unwrap_or_else(PoisonError::into_inner).replace(bus_handler);
        assert!(before.is_none(), "a node has one slave");
    }

    fn state(&self) -> watch::Receiver<BusState> {
        let mut state = self.0.state.clone();
        // what is there now is not a change
        state.mark_unchanged();
        state
    }

    fn clock_ahead_of(&self, node: NodeId) -> i64 {
        self.0.members.borrow().clock_ahead_of(node, self.0.common().clock_tolerance)
    }
}

/// Pushes that go over one connection and are confirmed together. Those that are not, because something failed or nobody
/// waits any more, are refused.
struct Pushes<'a> {
    cluster: &'a Cluster,
    pubsub: &'a Arc<dyn PubSub>,
    session: u32,
    unconfirmed: Vec<u64>,
}

impl<'a> Pushes<'a> {
    /// Slaves that come back a little later than we do would miss them: they are waited for.
    async fn begin(cluster: &'a Cluster, pubsub: &'a Arc<dyn PubSub>) -> Result<Self, BusError> {
        let _ = cluster.all_back.clone().wait_for(|all_back| *all_back).await;
        cluster.when_formats_are_known().await;
        let session = pubsub.session().ok_or(BusError::Down)?;
        Ok(Self { cluster, pubsub, session, unconfirmed: Vec::new() })
    }

    /// `once`: nobody sends it again, so a node that may have missed it must be able to ask for it.
    async fn push(&mut self, subject: Subject, body: Body, once: bool) -> Result<(), BusError> {
        let (cluster, unconfirmed) = (self.cluster, &mut self.unconfirmed);
        let subject = cluster.routed(subject).await;
        let note = |message| {
            if once {
                unconfirmed.push(message);
                cluster.sender.journal().note(message, subject);
            }
        };
        cluster.send_in(self.pubsub, self.session, subject, body, note).await
    }

    async fn confirm(mut self) -> Result<(), BusError> {
        self.pubsub.confirm().await?;
        // down and up again meanwhile: what was sent before is lost, and nothing of it confirmed
        if self.pubsub.session() != Some(self.session) {
            return Err(BusError::Down);
        }
        self.unconfirmed.clear();
        Ok(())
    }
}

impl Drop for Pushes<'_> {
    fn drop(&mut self) {
        if !self.unconfirmed.is_empty() {
            let mut journal = self.cluster.sender.journal();
            for message in self.unconfirmed.drain(..) {
                journal.refused(message);
            }
        }
    }
}

impl ClusterBus {
    /// The slaves with sockets on `channel`, as its coordinator knows them.
    ///
    /// # Errors
    ///
    /// The coordinator, which does not say.
    async fn claimants(&self, channel: &ChannelKey) -> Result<Vec<NodeId>, Vec<NodeId>> {
        let slaves = self.0.state.borrow().slaves.clone();
        let (Some(coordinator), _) = coordinators(slaves.iter().copied(), channel) else { return Ok(Vec::new()) };
        match self.request(coordinator, NodeRequest::Claimants(channel.clone())).await {
            Ok(NodeResponse::Claimants(Some(claimants))) => Ok(claimants),
            _ => Err(vec![coordinator]),
        }
    }
}

/// How long those are waited for of whom the coordinator of the channel does not know yet that they have sockets on it.
const NEWCOMERS: Duration = Duration::from_millis(30);

/// A question to the slaves that listen to a slot. Nobody knows who they are; those without sockets on the channel have
/// nothing to say.
struct AskedOnSlot<'a> {
    waiting: PendingMessages<'a, QueryResult>,
    cluster: &'a Cluster,
    heard: BTreeSet<NodeId>,
    result: QueryResult,
    /// With so many entries, nobody else is waited for.
    enough: usize,
    newcomers_until: tokio::time::Instant,
    deadline: tokio::time::Instant,
}

impl<'a> AskedOnSlot<'a> {
    fn begin(cluster: &'a Cluster, nothing: QueryResult, enough: usize) -> Self {
        let now = tokio::time::Instant::now();
        Self {
            waiting: cluster.queries.wait(cluster.sender.number()),
            cluster,
            heard: BTreeSet::new(),
            result: nothing,
            enough,
            newcomers_until: now + NEWCOMERS,
            deadline: now + DEADLINE,
        }
    }

    /// Resolves once there are as many entries as are wanted, and not before the question is dropped otherwise.
    async fn has_enough(&mut self) {
        while self.result.count() < self.enough {
            match self.waiting.answers.recv().await {
                Some((node, answer)) => self.take(node, answer),
                None => return std::future::pending().await,
            }
        }
    }

    /// What was answered, and who of `owed` has not. `Err`: nobody knows who owes an answer, and these are to blame.
    async fn collect(mut self, owed: Result<Vec<NodeId>, Vec<NodeId>>) -> Gathered<QueryResult> {
        let (owed, missing) = match owed {
            Ok(owed) => (owed, Vec::new()),
            Err(missing) => (Vec::new(), missing),
        };
        let blind = !missing.is_empty();
        while self.result.count() < self.enough {
            let is_complete = !blind && owed.iter().all(|node| self.heard.contains(node));
            // where somebody is there, who came at this very moment does not matter
            let until = match is_complete {
                true if self.result.count() > 0 => break,
                true => self.newcomers_until,
                false => self.deadline,
            };
            tokio::select! {
                answer = self.waiting.answers.recv() => {
                    let Some((node, answer)) = answer else { break };
                    self.take(node, answer);
                }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        while let Ok((node, answer)) = self.waiting.answers.try_recv() {
            self.take(node, answer);
        }
        let is_enough = self.result.count() >= self.enough;
        let silent = owed.into_iter().filter(|node| !self.heard.contains(node)).chain(missing);
        let missing = silent.filter(|_| !is_enough).collect();
        Gathered { result: self.result, missing }
    }

    fn take(&mut self, node: NodeId, answer: QueryResult) {
        self.heard.insert(node);
        if let Err(why) = self.result.merge(answer) {
            self.cluster.refuse(Subject::Node(self.cluster.me.node), &why.to_string());
        }
    }
}

/// A question to every slave.
struct Asked<'a> {
    cluster: &'a Cluster,
    waiting: PendingMessages<'a, QueryResult>,
    owed: OwedAnswers,
    result: QueryResult,
    deadline: tokio::time::Instant,
}

impl Cluster {
    /// Push these, in order; back once all are confirmed. `once`: see [`Pushes::push`].
    async fn push_all(&self, bodies: impl Iterator<Item = (Subject, Body)>, once: bool) -> Result<(), BusError> {
        let pubsub = self.open_pubsub()?;
        let publish = async {
            let mut pushes = Pushes::begin(self, pubsub).await?;
            for (no, (subject, body)) in bodies.enumerate() {
                if no % BURST == BURST - 1 {
                    tokio::task::yield_now().await;
                }
                pushes.push(subject, body, once).await?;
            }
            pushes.confirm().await
        };
        timeout(PUBLISH, publish).await.map_err(|_| BusError::Full)?
    }

    /// Where a message for `subject` goes: to everybody instead of a slot of users, if somebody does not listen to those.
    async fn routed(&self, subject: Subject) -> Subject {
        if !matches!(subject, Subject::UserSlot(_)) {
            return subject;
        }
        if !self.has_user_slots() {
            return Subject::Everyone;
        }
        loop {
            let by_slot = self.formats().have_user_slots();
            let chosen = self.user_route.lock().unwrap_or_else(PoisonError::into_inner).choose(by_slot, self.now());
            match chosen {
                Ok(()) => return if by_slot { subject } else { Subject::Everyone },
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// The way to the others, once everybody who is there has been heard of.
    async fn when_known(&self) -> Result<(&Arc<dyn PubSub>, watch::Receiver<BusState>), BusError> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !state.up || state.roster_known);
        drop(timeout(ONE_DEADLINE, known).await);
        Ok((self.open_pubsub()?, state))
    }

    /// Wait for the results of every slave; `nothing` is that of nobody.
    fn ask_all(&self, nothing: QueryResult) -> Asked<'_> {
        let waiting = self.queries.wait(self.sender.number());
        let slaves = self.state.borrow().slaves.clone();
        let owed = self.late().owed(&slaves);
        Asked { cluster: self, waiting, owed, result: nothing, deadline: tokio::time::Instant::now() + DEADLINE }
    }
}

impl Asked<'_> {
    /// What all have answered by the deadline, and who has not.
    async fn collect(mut self, state: &mut watch::Receiver<BusState>) -> Gathered<QueryResult> {
        while !self.owed.waited_for.is_empty() {
            let waited_for = &self.owed.waited_for;
            // a slave that leaves the membership meanwhile is not waited for
            let gone = state.wait_for(|state| waited_for.iter().any(|node| !state.slaves.contains(node)));
            tokio::select! {
                answer = self.waiting.answers.recv() => {
                    let Some((node, answer)) = answer else { break };
                    self.take(node, answer);
                }
                gone = gone => {
                    let Ok(state) = gone else { break };
                    self.owed.waited_for.retain(|node| state.slaves.contains(node));
                }
                () = tokio::time::sleep_until(self.deadline) => break,
            }
        }
        // a slave that is not on the membership may have answered, too, and one that is at the last moment
        while let Ok((node, answer)) = self.waiting.answers.try_recv() {
            self.take(node, answer);
        }
        self.cluster.late().missed_deadline(self.owed.waited_for.iter().copied());
        Gathered { result: self.result, missing: self.owed.missing() }
    }

    fn take(&mut self, node: NodeId, answer: QueryResult) {
        match self.result.merge(answer) {
            Ok(()) => self.owed.paid(node),
            Err(why) => self.cluster.refuse(Subject::Node(self.cluster.me.node), &why.to_string()),
        }
    }
}
