//! Nodes of two releases in one cluster: a node that speaks only the format of the previous one, among real processes of this
//! one, over NATS and over the socket of a machine.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, task::JoinHandle};
use wellhead::bus::{
    local::{Hello, LocalLimits, UnixClient},
    metrics::PubSubMetrics,
    nats,
    pubsub::{MessageHandler, PubSub, Subject},
};
use wellhead_proto::{
    bus::BoxFuture,
    command::{Command, Target},
    coordination::{CoordinatedKey, CoordinationMessage},
    envelope::Envelope,
    event::{Event, Payload},
    fingerprint::Fingerprint,
    ids::{ChannelKey, NodeId},
    member::{MemberAnnouncement, MemberChange},
    membership::{BEAT, Heartbeat, coordinators},
    node_message::{Body, MessageFormat, MessageKey, NodeMessage},
    query::{Listing, NamesQuery, Query, QueryResult},
};

use super::field::{By, Field, SECRET};
use crate::support::{server::Server, until, within};

/// On which the pushes of `news` of `app` travel, as the golden files say.
const SLOT: Subject = Subject::Slot(51_751);

fn key() -> MessageKey {
    MessageKey::new(SECRET.as_bytes())
}

/// What came over a transport.
#[derive(Default)]
struct Heard {
    bodies: Mutex<Vec<(MessageFormat, Body)>>,
    /// Of another format than the old one.
    refused: AtomicU64,
}

/// Reads the old format only, as the previous release does, or both.
struct OldEar {
    heard: Arc<Heard>,
    reads_new: bool,
    to: mpsc::UnboundedSender<Body>,
}

impl MessageHandler for OldEar {
    fn hear(&self, _: Subject, message: Bytes) {
        if !self.reads_new && MessageFormat::of(&message) != Some(MessageFormat::V3) {
            self.heard.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (message, format) = NodeMessage::decode(&message, &key()).expect("nodes say nothing else");
        self.heard.bodies.lock().expect("no panic").push((format, message.body.clone()));
        let _ = self.to.send(message.body);
    }

    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn gap(&self) {}

    fn interrupted(&self) {}
}

impl Heard {
    /// What `pick` makes of the first message for which it makes something.
    async fn find<T>(&self, what: &str, pick: impl Fn(MessageFormat, &Body) -> Option<T>) -> T {
        within(what, async {
            loop {
                let found = self.bodies.lock().expect("no panic").iter().find_map(|(format, body)| pick(*format, body));
                if let Some(found) = found {
                    return found;
                }
                // there is nothing to wait for that every ear would tell
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// The format of the push to a user with this text.
    async fn format_to_user(&self, text: &str) -> MessageFormat {
        let is_it = |body: &Body| *body == push_to_user(text);
        self.find(&format!("the push of {text} to a user"), |format, body| is_it(body).then_some(format)).await
    }

    fn forget(&self) {
        self.bodies.lock().expect("no panic").clear();
    }

    /// The formats of pushes with this text.
    async fn format_of(&self, text: &str) -> MessageFormat {
        self.find(&format!("the push of {text}"), |format, body| match body {
            Body::Command(Envelope { command: Command::Publish { event, .. }, .. }) => {
                (event.data.to_json() == text).then_some(format)
            }
            _ => None,
        })
        .await
    }
}

/// A slave of the previous release, as far as other nodes can tell: it beats, answers, and takes part in the coordination.
struct OldNode {
    beat: Heartbeat,
    wire: Arc<dyn PubSub>,
    heard: Arc<Heard>,
    next: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for OldNode {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn ear(reads_new: bool) -> (OldEar, mpsc::UnboundedReceiver<Body>) {
    let (to, bodies) = mpsc::unbounded_channel();
    (OldEar { heard: Arc::default(), reads_new, to }, bodies)
}

async fn is_up(wire: &dyn PubSub) {
    drop(within("it is up", wire.state().wait_for(|up| *up)).await.expect("it lives"));
}

/// Hears everything that goes over NATS to all, or to a slot.
async fn tap(field: &Field) -> (Arc<dyn PubSub>, Arc<Heard>) {
    let (ear, _) = ear(true);
    let heard = ear.heard.clone();
    let nats = field.nats.as_ref().expect("it is by NATS");
    let metrics = PubSubMetrics::new(&mut Registry::default());
    let wire: Arc<dyn PubSub> = nats::connect(nats.settings(), "wellhead", Arc::new(ear), metrics).expect("a thread");
    wire.listen(Subject::EverySlot);
    wire.listen(Subject::Everyone);
    is_up(&*wire).await;
    (wire, heard)
}

impl OldNode {
    async fn join(field: &Field, id: NodeId) -> Self {
        let (ear, bodies) = ear(false);
        let heard = ear.heard.clone();
        let metrics = PubSubMetrics::new(&mut Registry::default());
        let wire: Arc<dyn PubSub> = match &field.nats {
            Some(nats) => nats::connect(nats.settings(), "wellhead", Arc::new(ear), metrics).expect("a thread"),
            None => {
                let path = field.setup.folder().join("run/bus.sock");
                let hello = Hello { node: id, heartbeat: Bytes::new() };
                UnixClient::connect(path, hello, LocalLimits::default(), Arc::new(ear), metrics)
                    .expect("a thread")
                    .pubsub
            }
        };
        for subject in [Subject::Everyone, Subject::EverySlot, Subject::Node(id)] {
            wire.listen(subject);
        }
        is_up(&*wire).await;
        let beat = Heartbeat { secret: Fingerprint::of_secret(SECRET.as_bytes()), ..Heartbeat::new(id, true, 7) };
        let next = Arc::new(AtomicU64::new(u64::from(u32::from(id)) << 43));
        let mut node = Self { beat, wire, heard, next, tasks: Vec::new() };
        node.say(Subject::Everyone, Body::Hello(beat)).await;
        node.tasks = vec![tokio::spawn(node.sayer().beats()), tokio::spawn(node.sayer().answers(bodies))];
        node
    }

    fn sayer(&self) -> Sayer {
        Sayer { beat: self.beat, wire: self.wire.clone(), next: self.next.clone() }
    }

    async fn say(&self, subject: Subject, body: Body) {
        self.sayer().say(subject, body).await;
    }
}

struct Sayer {
    beat: Heartbeat,
    wire: Arc<dyn PubSub>,
    next: Arc<AtomicU64>,
}

impl Sayer {
    async fn say(&self, subject: Subject, body: Body) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let message = NodeMessage { id, session: self.wire.session().expect("it is up"), body };
        self.wire.send(subject, message.encode(MessageFormat::V3, &key())).await.expect("it is up");
    }

    async fn beats(self) {
        loop {
            tokio::time::sleep(BEAT).await;
            self.say(Subject::Everyone, Body::Heartbeat(self.beat)).await;
        }
    }

    async fn answers(self, mut bodies: mpsc::UnboundedReceiver<Body>) {
        let me = self.beat.node;
        let mut slaves = vec![me];
        while let Some(body) = bodies.recv().await {
            match body {
                Body::Heartbeat(beat) | Body::Hello(beat) if beat.slave && !slaves.contains(&beat.node) => {
                    slaves.push(beat.node);
                    slaves.sort();
                }
                Body::Query { id, from, query: Query::Names(_) } => {
                    let result = QueryResult::Names(["old".to_owned()].into());
                    self.say(Subject::Node(from), Body::Result { id, from: me, result }).await;
                }
                Body::Reports { from, reports } => {
                    for report in reports {
                        let CoordinationMessage::Request { number } = report else { continue };
                        let reports = [
                            vec![CoordinationMessage::Answer { number }],
                            holds(&slaves, from),
                            vec![CoordinationMessage::Synced { slaves: slaves.clone(), round: 1, confirmed: 0 }],
                        ];
                        self.say(Subject::Node(from), Body::Reports { from: me, reports: reports.concat() }).await;
                    }
                }
                _ => {}
            }
        }
    }
}

/// Of which `coordinator` is the coordinator.
fn room(slaves: &[NodeId], coordinator: NodeId) -> ChannelKey {
    let channel = |no| ChannelKey { app: "app".parse().unwrap(), name: format!("room-{no}").parse().unwrap() };
    let is_its_own = |channel: &ChannelKey| coordinators(slaves.iter().copied(), channel).0 == Some(coordinator);
    (0..1_000).map(channel).find(is_its_own).expect("each has some")
}

/// A channel, and a member of it, on the old node.
fn holds(slaves: &[NodeId], coordinator: NodeId) -> Vec<CoordinationMessage> {
    let channel = room(slaves, coordinator);
    let member = CoordinatedKey::Member { channel: channel.clone(), user: "old".parse().unwrap() };
    [(channel.into(), None), (member, Some("{}".into()))]
        .map(|(key, info)| CoordinationMessage::Claim { key, claimed: true, epoch: 0, info })
        .into()
}

fn push(text: &str) -> Body {
    let event = Event::new("e".parse().unwrap(), Payload::Json(text.into()));
    let command = Command::Publish { channel: "news".parse().unwrap(), event, except: None };
    Body::Command(Envelope { app: "app".parse().unwrap(), command })
}

fn push_to_user(text: &str) -> Body {
    let to = Target::User("ann".parse().unwrap());
    let command = Command::Direct { to, data: Payload::Json(text.into()) };
    Body::Command(Envelope { app: "app".parse().unwrap(), command })
}

async fn previous_release(field: &Field, count: f64) {
    for server in field.masters.iter().chain(&field.slaves) {
        server.metric_becomes("wellhead_roster_previous_release", "", count).await;
    }
}

/// The slave of this release.
fn slave_of(old: &OldNode) -> Option<NodeId> {
    let bodies = old.heard.bodies.lock().expect("no panic");
    bodies.iter().find_map(|(_, body)| match body {
        Body::Heartbeat(beat) | Body::Hello(beat) if beat.slave && beat.node != old.beat.node => Some(beat.node),
        _ => None,
    })
}

/// Everything that nodes say to each other, both ways.
async fn they_understand_each_other(field: &Field) {
    let mut ann = field.slaves[0].listener_on("app", "ann", "news").await;
    let mut backend = field.masters[0].backend().await;
    let old = OldNode::join(field, NodeId::from_random(4_000_000)).await;
    previous_release(field, 1.0).await;
    for server in field.masters.iter().chain(&field.slaves) {
        server.metric_becomes("wellhead_roster_nodes", "", 3.0).await;
        until("it is said once", 1, || async { server.said("nodes of the previous release are here") }).await;
    }

    // a push of the new master, and one of the old node
    backend.push("app", "news", "e", "1").await;
    assert_eq!(old.heard.format_of("1").await, MessageFormat::V3);
    assert_eq!(ann.next_event().await.data, "1");
    old.say(SLOT, push("2")).await;
    assert_eq!(ann.next_event().await.data, "2");

    // a push to a user by the new master, which the old node would not hear on a slot; and one of the old node
    backend.push_to_user("app", "ann", "4").await;
    assert_eq!(old.heard.format_to_user("4").await, MessageFormat::V3);
    assert!(ann.socket.text().await.contains('4'));
    old.say(Subject::Everyone, push_to_user("5")).await;
    assert!(ann.socket.text().await.contains('5'));

    // a query of the new master, and one of the old node
    let names = || async { field.masters[0].backend().await.names("/v1/apps/app/users").await };
    until("both have answered", vec!["ann".to_owned(), "old".to_owned()], names).await;
    let query = NamesQuery { app: "app".parse().unwrap(), of: Listing::Users { within: None } };
    old.say(Subject::Everyone, Body::Query { id: 77, from: old.beat.node, query: query.into() }).await;
    let found = old.heard.find("an answer", |_, body| match body {
        Body::Result { id: 77, result: QueryResult::Names(names), from } if *from != old.beat.node => {
            Some(names.clone())
        }
        _ => None,
    });
    assert_eq!(found.await, ["ann".to_owned()].into());

    // the coordinator of this release is told by the old node, decides, and announces; and tells in turn
    let slave = slave_of(&old).expect("it beats");
    let channel = room(&[slave, old.beat.node], slave);
    let added = old.heard.find("the announcement", |_, body| match body {
        Body::Announcement(MemberAnnouncement { channel, change: MemberChange::Added(member) }) => {
            Some((channel.clone(), member.user.to_string()))
        }
        _ => None,
    });
    assert_eq!(added.await, (channel, "old".to_owned()));
    old.say(
        Subject::Node(slave),
        Body::Reports { from: old.beat.node, reports: vec![CoordinationMessage::Request { number: 9 }] },
    )
    .await;
    let answered = |report: &CoordinationMessage| *report == CoordinationMessage::Answer { number: 9 };
    old.heard
        .find("the answer", |_, body| match body {
            Body::Reports { reports, .. } => reports.iter().any(answered).then_some(()),
            _ => None,
        })
        .await;

    // it refuses the few heartbeats that are not for it, and nothing else
    let refused = old.heard.refused.load(Ordering::Relaxed);
    assert!(refused < 40, "{refused}");
    for server in field.masters.iter().chain(&field.slaves) {
        assert!(server.metric("wellhead_bus_unsigned_total", "").await > 0.0);
        assert_eq!(server.metric("wellhead_bus_refused_total", "").await, 0.0);
    }

    // it says goodbye: from then on everything is signed
    old.say(Subject::Everyone, Body::Goodbye(old.beat.node, old.beat.incarnation)).await;
    drop(old);
    previous_release(field, 0.0).await;
    backend.push("app", "news", "e", "3").await;
    assert_eq!(ann.next_event().await.data, "3");
    backend.push_to_user("app", "ann", "6").await;
    assert!(ann.socket.text().await.contains('6'));
}

#[tokio::test]
async fn a_node_of_the_previous_release_is_a_member_over_nats_and_signing_begins_when_it_is_gone() {
    let field = Field::start(By::Nats, 1, 1).await;
    let (_wire, heard) = tap(&field).await;
    let mut backend = field.masters[0].backend().await;
    backend.push("app", "news", "e", "0").await;
    assert_eq!(heard.format_of("0").await, MessageFormat::V4, "nobody else is here");
    they_understand_each_other(&field).await;
    assert_eq!(heard.format_of("1").await, MessageFormat::V3);
    assert_eq!(heard.format_of("3").await, MessageFormat::V4);
    assert_eq!(heard.format_to_user("4").await, MessageFormat::V3);
    // it has come, and not to everybody
    let to_everybody =
        |text: &str| heard.bodies.lock().expect("no panic").iter().any(|(_, body)| *body == push_to_user(text));
    assert!(to_everybody("4") && !to_everybody("6"));
    heard.forget();
    for _ in 0..2 {
        heard
            .find("heartbeats of both", |_, body| matches!(body, Body::Heartbeat(beat) if !beat.slave).then_some(()))
            .await;
        let all = heard.bodies.lock().expect("no panic").iter().all(|(format, _)| *format == MessageFormat::V4);
        assert!(all, "nothing of the old format any more");
    }
}

#[tokio::test]
async fn a_slave_of_the_previous_release_is_a_member_over_the_socket() {
    they_understand_each_other(&Field::start(By::Local, 1, 1).await).await;
}

async fn refused(server: &Server) -> f64 {
    server.metric("wellhead_bus_refused_total", "").await
}

#[tokio::test]
async fn where_signatures_are_required_the_previous_release_is_refused_and_so_is_who_has_no_secret() {
    let field = Field::start_with(By::Nats, 1, 1, |setup| setup.set("cluster.require_signed", "true")).await;
    let mut ann = field.slaves[0].listener_on("app", "ann", "news").await;
    let old = OldNode::join(&field, NodeId::from_random(4_000_000)).await;
    let servers = || field.masters.iter().chain(&field.slaves);
    for server in servers() {
        until("its heartbeats are refused", true, || async { refused(server).await >= 3.0 }).await;
        assert_eq!(server.said("message without a signature (cluster.require_signed)"), 1);
        assert_eq!(server.metric("wellhead_roster_nodes", "").await, 2.0);
        assert_eq!(server.metric("wellhead_bus_unsigned_total", "").await, 0.0);
    }
    old.say(SLOT, push("unsigned")).await;
    // whoever knows the format and not the secret: pushes, and heartbeats that say that they know it
    let stranger = MessageKey::new(b"another secret");
    let said =
        [(SLOT, push("forged")), (Subject::Everyone, Body::Heartbeat(old.beat)), (Subject::Everyone, push("all"))];
    for (no, (subject, body)) in said.into_iter().enumerate() {
        let message = NodeMessage { id: no as u64, session: 0, body }.encode(MessageFormat::V4, &stranger);
        for cut in [message.len(), message.len() - 1, 9, 1] {
            within("NATS takes it", old.wire.send(subject, message.slice(..cut))).await.expect("it is up");
        }
    }
    within("NATS has it", old.wire.confirm()).await.expect("it is up");
    field.masters[0].backend().await.push("app", "news", "e", "1").await;
    assert_eq!(ann.next_event().await.data, "1", "and nothing else");
    // the push came behind all of them
    let refused = refused(&field.slaves[0]).await;
    assert!(refused >= 3.0 + 9.0, "{refused}");
    for server in servers() {
        assert_eq!(server.said("message without a valid signature"), 1, "once a minute");
        assert_eq!(server.metric("wellhead_roster_nodes", "").await, 2.0);
        assert_eq!(server.readiness().await, (200, "ready".to_owned()));
    }
}
