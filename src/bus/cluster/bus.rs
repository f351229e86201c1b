//! The end of the bus as the roles hold it: pushes that are confirmed, questions, interest.

use std::{
    collections::BTreeSet,
    future,
    sync::{Arc, PoisonError},
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, watch},
    time::{timeout, timeout_at},
};
use wellhead_proto::{
    bus::{BoxFuture, Bus, BusError, BusState, Gathered, Inbox, Interest},
    command::{Command, Target},
    envelope::Envelope,
    ids::{ChannelKey, NodeId},
    mail::Mail,
    query::{Ask, Census},
    report::CoordinationMessage,
};

use super::{Cluster, DEADLINE, ONE_DEADLINE, PUBLISH, Wanted, slots::slot_of};
use crate::bus::wire::{Subject, Wire};

/// After so many envelopes in a row a batch lets other requests of its thread have a turn.
const BURST: usize = 256;

/// Where the messages of a command go.
fn subject_of(envelope: &Envelope) -> Subject {
    match &envelope.command {
        Command::Publish { channel, .. } | Command::Members { channel, .. } => {
            Subject::Slot(slot_of(&ChannelKey { app: envelope.app.clone(), name: channel.clone() }))
        }
        Command::Direct { to: Target::Socket(socket), .. } => Subject::Node(socket.node()),
        Command::Direct { .. } | Command::Reload { .. } | Command::Grant { .. } => Subject::Everyone,
    }
}

/// A node's bus, as the roles hold it.
pub struct ClusterBus(pub Arc<Cluster>);

#[async_trait]
impl Bus for ClusterBus {
    async fn publish_all(&self, envelopes: Vec<Envelope>) -> Result<(), BusError> {
        let wire = self.0.open_wire()?;
        let publish = async {
            let mut pushes = Pushes::begin(&self.0, wire).await?;
            for (no, envelope) in envelopes.into_iter().enumerate() {
                if no % BURST == BURST - 1 {
                    tokio::task::yield_now().await;
                }
                pushes.push(subject_of(&envelope), Mail::Order(envelope)).await?;
            }
            pushes.confirm().await
        };
        timeout(PUBLISH, publish).await.map_err(|_| BusError::Full)?
    }

    async fn gather(&self, ask: Ask) -> Result<Gathered, BusError> {
        let mut state = self.0.state.subscribe();
        let known = state.wait_for(|state| !state.up || state.roster_known);
        drop(timeout(ONE_DEADLINE, known).await);
        let wire = self.0.open_wire()?;
        let mut pushes = match ask {
            Ask::PublishMatching { .. } => Some(Pushes::begin(&self.0, wire).await?),
            _ => None,
        };
        let (question, mut answers) = self.0.question();
        let mut owed = self.0.owed();
        let mut census = ask.nothing();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mail = Mail::Ask { id: question.id, from: self.0.me.node, ask };
        let sent = async {
            match &mut pushes {
                Some(pushes) => pushes.push(Subject::Everyone, mail).await,
                None => self.0.send(wire, Subject::Everyone, mail).await,
            }
        };
        timeout_at(deadline, sent).await.map_err(|_| BusError::Full)??;
        let confirmed = async {
            match pushes {
                Some(pushes) => pushes.confirm().await,
                None => Ok(()),
            }
        };
        let collected = async {
            owed.collect(&mut answers, &mut census, &mut state, deadline).await;
            Ok(())
        };
        // who orders a push is told that it was taken, as with any push, or that it was not
        tokio::try_join!(confirmed, collected)?;
        // a slave that is not on the roster may have answered, too, and one that is at the last moment
        while let Ok((node, answer)) = answers.try_recv() {
            census.merge(answer);
            owed.paid(node);
        }
        {
            let mut roster = self.0.roster();
            for &late in &owed.waited_for {
                roster.missed_deadline(late);
            }
        }
        Ok(Gathered { census, missing: owed.missing() })
    }

    async fn ask_node(&self, node: NodeId, ask: Ask) -> Result<Census, BusError> {
        let wire = self.0.open_wire()?;
        let (question, mut answers) = self.0.question();
        let asked = async {
            self.0.send(wire, Subject::Node(node), Mail::Ask { id: question.id, from: self.0.me.node, ask }).await?;
            answers.recv().await.map(|(_, census)| census).ok_or(BusError::Silent)
        };
        timeout(ONE_DEADLINE, asked).await.map_err(|_| BusError::Silent)?
    }

    fn interest(&self, channel: &ChannelKey) -> Option<Interest> {
        let slot = slot_of(channel);
        let cluster = &self.0;
        let mut orders = Vec::new();
        let heard = {
            // the wire is told before anyone else sees the table: nothing is confirmed that it has not heard of
            let mut slots = cluster.slots();
            let heard = slots.want(slot, &mut orders);
            cluster.obey(&orders);
            heard
        };
        let hold = Arc::new(Wanted { cluster: cluster.clone(), slot });
        if heard && cluster.state.borrow().up {
            return Some(Interest { hold, confirmed: None });
        }
        cluster.asked.notify_one();
        let confirmed: BoxFuture<()> = Box::pin(heard_and_up(cluster.clone(), slot));
        Some(Interest { hold, confirmed: Some(confirmed) })
    }

    fn report(&self, to: NodeId, reports: Vec<CoordinationMessage>) {
        // fails only when the process ends
        let _ = self.0.outgoing.send((Subject::Node(to), Mail::Reports { from: self.0.me.node, reports }));
    }

    fn attach(&self, inbox: Arc<dyn Inbox>) {
        let before = self.0.inbox.write().unwrap_or_else(PoisonError::into_inner).replace(inbox);
        assert!(before.is_none(), "a node has one slave");
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.0.state.subscribe()
    }

    fn clock_ahead_of(&self, node: NodeId) -> i64 {
        self.0.clock_ahead_of(node)
    }
}

async fn heard_and_up(cluster: Arc<Cluster>, slot: u16) {
    let mut state = cluster.state.subscribe();
    loop {
        let confirmed = cluster.confirmed.notified();
        if state.wait_for(|state| state.up).await.is_err() {
            // the process ends, and the socket with it
            return future::pending().await;
        }
        if cluster.slots().is_heard(slot) {
            return;
        }
        tokio::select! {
            () = confirmed => {}
            _ = state.changed() => {}
        }
    }
}

/// Pushes that go over one connection and are confirmed together. Those that are not, because something failed or nobody
/// waits any more, are refused.
struct Pushes<'a> {
    cluster: &'a Cluster,
    wire: &'a Arc<dyn Wire>,
    session: u32,
    unconfirmed: Vec<u64>,
}

impl<'a> Pushes<'a> {
    /// Slaves that come back a little later than we do would miss them: they are waited for.
    async fn begin(cluster: &'a Cluster, wire: &'a Arc<dyn Wire>) -> Result<Self, BusError> {
        let _ = cluster.all_back.subscribe().wait_for(|all_back| *all_back).await;
        let session = wire.session().ok_or(BusError::Down)?;
        Ok(Self { cluster, wire, session, unconfirmed: Vec::new() })
    }

    async fn push(&mut self, subject: Subject, mail: Mail) -> Result<(), BusError> {
        let (cluster, unconfirmed) = (self.cluster, &mut self.unconfirmed);
        // a change of members is said again after whatever happened: see `slave/src/attendance`
        let is_told_again = matches!(&mail, Mail::Order(Envelope { command: Command::Members { .. }, .. }));
        let note = |letter| {
            if !is_told_again {
                unconfirmed.push(letter);
                cluster.journal().note(letter, subject);
            }
        };
        cluster.send_in(self.wire, self.session, subject, mail, note).await
    }

    async fn confirm(mut self) -> Result<(), BusError> {
        self.wire.confirm().await?;
        // down and up again meanwhile: what was sent before is lost, and nothing of it confirmed
        if self.wire.session() != Some(self.session) {
            return Err(BusError::Down);
        }
        self.unconfirmed.clear();
        Ok(())
    }
}

impl Drop for Pushes<'_> {
    fn drop(&mut self) {
        if !self.unconfirmed.is_empty() {
            let mut journal = self.cluster.journal();
            for letter in self.unconfirmed.drain(..) {
                journal.refused(letter);
            }
        }
    }
}

/// Who has not answered a question yet.
struct Owed {
    waited_for: BTreeSet<NodeId>,
    /// On the roster, and not waited for.
    silent: BTreeSet<NodeId>,
}

impl Cluster {
    fn owed(&self) -> Owed {
        let (mut waited_for, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for (node, answers_in_time) in self.roster().slaves() {
            if answers_in_time { &mut waited_for } else { &mut silent }.insert(node);
        }
        Owed { waited_for, silent }
    }
}

impl Owed {
    /// Merge answers until nobody is waited for, or the deadline has passed.
    async fn collect(
        &mut self,
        answers: &mut mpsc::UnboundedReceiver<(NodeId, Census)>,
        census: &mut Census,
        state: &mut watch::Receiver<BusState>,
        deadline: tokio::time::Instant,
    ) {
        while !self.waited_for.is_empty() {
            // who leaves the roster meanwhile owes nothing any more
            let gone = state.wait_for(|state| self.waited_for.iter().any(|node| !state.slaves.contains(node)));
            tokio::select! {
                answer = answers.recv() => {
                    let Some((node, answer)) = answer else { break };
                    census.merge(answer);
                    self.paid(node);
                }
                gone = gone => {
                    let Ok(state) = gone else { break };
                    self.waited_for.retain(|node| state.slaves.contains(node));
                }
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
    }

    fn paid(&mut self, node: NodeId) {
        self.waited_for.remove(&node);
        self.silent.remove(&node);
    }

    fn missing(mut self) -> Vec<NodeId> {
        self.silent.append(&mut self.waited_for);
        self.silent.into_iter().collect()
    }
}
