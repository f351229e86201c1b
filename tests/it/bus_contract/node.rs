//! A node of a test: an end of a bus, and an ear that remembers and answers as it is told.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::sync::{oneshot, watch};
use wellhead::bus::cluster::Cluster;
use wellhead_proto::{
    bus::{BoxFuture, Bus, BusHandler, BusState, Gap, Interest},
    command::{Command, PublishMatching, Target},
    coordination::CoordinationMessage,
    envelope::Envelope,
    event::{Event, Payload},
    ids::{ChannelKey, NodeId, SocketId},
    member::MemberAnnouncement,
    node_request::{Bearer, NodeRequest, NodeResponse},
    query::{Listing, NameHashes, NamesQuery, OccupiedQuery, Query, QueryResult, SocketTags, name_hash},
};

use crate::support::within;

pub struct BusNode {
    pub id: NodeId,
    pub bus: Arc<dyn Bus>,
    /// None on the bus of a single process.
    pub cluster: Option<Arc<Cluster>>,
    pub book: Arc<ReceivedItems>,
    /// What its transport and its end of the bus count, if they do.
    pub registry: Option<Registry>,
    /// What its tasks run on; it ends with the node.
    pub _runtime: Option<oneshot::Sender<()>>,
}

/// What a node heard.
#[derive(Default)]
pub struct ReceivedItems {
    pages: Mutex<Vec<ReceivedMessage>>,
    written: watch::Sender<usize>,
    /// What every question is answered with.
    answer: Mutex<BTreeSet<String>>,
    /// It answers nothing.
    silent: AtomicBool,
    /// The sockets that it has on every channel.
    sockets: Mutex<SocketTags>,
    /// Who claims every channel, as it knows it.
    claimants: Mutex<Option<Vec<NodeId>>>,
    /// How often it was asked for sockets.
    asked: AtomicUsize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReceivedMessage {
    Push(Envelope),
    Announcement(MemberAnnouncement),
    CoordinationMessage(NodeId, CoordinationMessage),
    Gap(Gap),
}

impl ReceivedItems {
    fn write(&self, heard: ReceivedMessage) {
        let mut pages = self.pages.lock().unwrap();
        pages.push(heard);
        self.written.send_replace(pages.len());
    }

    pub fn answers(&self, names: impl IntoIterator<Item = String>) {
        *self.answer.lock().unwrap() = names.into_iter().collect();
    }

    pub fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// This node has a socket on every channel from now on, or none.
    pub fn has_socket(&self, socket: Option<SocketId>) {
        *self.sockets.lock().unwrap() = socket.map(|socket| (socket, "tag".to_owned())).into_iter().collect();
    }

    pub fn knows_claimants(&self, claimants: Option<&[NodeId]>) {
        *self.claimants.lock().unwrap() = claimants.map(<[_]>::to_vec);
    }

    /// How often it was asked for sockets.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<ReceivedMessage> {
        self.pages.lock().unwrap().clone()
    }

    /// The texts of all pushes so far.
    pub fn texts(&self) -> Vec<String> {
        self.all().iter().filter_map(text_of).collect()
    }

    /// Wait until `count` things have been heard.
    pub async fn has(&self, count: usize) -> Vec<ReceivedMessage> {
        let mut written = self.written.subscribe();
        drop(within(&format!("{count} things are heard"), written.wait_for(|written| *written >= count)).await);
        self.all()
    }

    /// Wait until a push with that text has come; all texts up to then.
    pub async fn hears(&self, wanted: &str) -> Vec<String> {
        let mut written = self.written.subscribe();
        within(&format!("{wanted:?} is heard"), async {
            loop {
                written.borrow_and_update();
                let texts = self.texts();
                if texts.iter().any(|text| text == wanted) {
                    return texts;
                }
                written.changed().await.expect("the book is there");
            }
        })
        .await
    }
}

/// What a push says; large ones are told by their first word.
fn text_of(heard: &ReceivedMessage) -> Option<String> {
    let ReceivedMessage::Push(Envelope { command, .. }) = heard else { return None };
    let (Command::Publish { event: Event { data, .. }, .. } | Command::Direct { data, .. }) = command else {
        return None;
    };
    let (Payload::Text(text) | Payload::Json(text)) = data else { panic!("a payload of these tests is text") };
    Some(text.split(' ').next().unwrap_or_default().to_owned())
}

impl BusHandler for ReceivedItems {
    fn deliver(&self, envelope: Envelope) {
        self.write(ReceivedMessage::Push(envelope));
    }

    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn announced(&self, announcement: MemberAnnouncement) {
        self.write(ReceivedMessage::Announcement(announcement));
    }

    /// The pattern is the name of the only channel here.
    fn publish_matching(&self, push: PublishMatching) -> BoxFuture<NameHashes> {
        let PublishMatching { app, pattern, event, .. } = push;
        let command = Command::Publish { channel: pattern.parse().expect("a name"), event, except: None };
        self.write(ReceivedMessage::Push(Envelope { app, command }));
        Box::pin(std::future::ready([name_hash(&pattern)].into()))
    }

    fn query(&self, query: Query) -> BoxFuture<QueryResult> {
        if self.silent.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        let result = match query {
            Query::Names(_) => QueryResult::Names(self.answer.lock().unwrap().clone()),
            Query::Sockets(_) => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                QueryResult::Sockets(self.sockets.lock().unwrap().clone())
            }
            Query::Occupied(OccupiedQuery { channel, .. }) => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let occupied = !self.sockets.lock().unwrap().is_empty();
                QueryResult::Names(occupied.then(|| channel.to_string()).into_iter().collect())
            }
            other => other.nothing(),
        };
        Box::pin(std::future::ready(result))
    }

    /// Every reference stands for the user whose name it is, in the one app that it is asked for.
    fn request(&self, request: NodeRequest) -> NodeResponse {
        match request {
            NodeRequest::Redeem { token, app } => {
                let user = token.parse().expect("a name");
                let known = self.answer.lock().unwrap().contains(&token);
                NodeResponse::Redeemed(known.then(|| Bearer { user, app, channels: Vec::new(), remotes: Vec::new() }))
            }
            NodeRequest::Claimants(_) => NodeResponse::Claimants(self.claimants.lock().unwrap().clone()),
            other => other.nothing(),
        }
    }

    fn report(&self, from: NodeId, reports: Vec<CoordinationMessage>) {
        for report in reports {
            self.write(ReceivedMessage::CoordinationMessage(from, report));
        }
    }

    fn opened(&self) -> u32 {
        0
    }

    fn gap(&self, gap: Gap) {
        self.write(ReceivedMessage::Gap(gap));
    }
}

impl BusNode {
    /// A node on `bus`; its book hears what it is meant to.
    pub fn new(id: NodeId, bus: Arc<dyn Bus>, cluster: Option<Arc<Cluster>>) -> Self {
        Self { id, bus, cluster, book: Arc::default(), registry: None, _runtime: None }
    }

    /// How many messages its transport has brought, heartbeats included.
    pub fn messages_received(&self) -> Option<u64> {
        let mut text = String::new();
        encode(&mut text, self.registry.as_ref()?).expect("a string takes all");
        let line = text.lines().find_map(|line| line.strip_prefix("bus_messages_total{direction=\"in\"} "));
        Some(line.expect("it is counted").parse().expect("a number"))
    }

    /// Wait until the state of the bus is as it should be.
    pub async fn is(&self, what: &str, right: impl FnMut(&BusState) -> bool) {
        let mut state = self.bus.state();
        drop(within(&format!("node {}: {what}", self.id), state.wait_for(right)).await.expect("the node lives"));
    }

    /// Wait until it is up and knows these slaves.
    pub async fn knows(&self, slaves: &[&Self]) {
        let mut ids: Vec<_> = slaves.iter().map(|slave| slave.id).collect();
        ids.sort();
        self.is("knows all slaves", |state| state.up && state.roster_known && *state.slaves == *ids).await;
    }

    /// Want a channel; back once no later push of it can be missed.
    pub async fn wants(&self, app: &str, channel: &str) -> Option<Interest> {
        let mut interest = self.bus.interest(&key(app, channel));
        if let Some(confirmed) = interest.as_mut().and_then(|interest| interest.confirmed.take()) {
            within("an interest is confirmed", confirmed).await;
        }
        interest
    }

    /// Push a text to a channel, which must be accepted.
    pub async fn push(&self, app: &str, channel: &str, text: &str) {
        within("a push", self.bus.publish(push(app, channel, text))).await.expect("the bus is up");
    }

    pub async fn names(&self) -> (BTreeSet<String>, Vec<NodeId>) {
        let query = NamesQuery { app: "a".parse().unwrap(), of: Listing::Users { within: None } };
        let gathered = within("an answer", self.bus.query(query)).await.expect("the bus is up");
        (gathered.result, gathered.missing)
    }
}

pub fn key(app: &str, channel: &str) -> ChannelKey {
    ChannelKey { app: app.parse().expect("a name"), name: channel.parse().expect("a name") }
}

pub fn push(app: &str, channel: &str, text: &str) -> Envelope {
    let event = Event::new("e".parse().expect("a name"), Payload::Text(text.into()));
    let command = Command::Publish { channel: channel.parse().expect("a name"), event, except: None };
    Envelope { app: app.parse().expect("a name"), command }
}

pub fn to_user(app: &str, user: &str, text: &str) -> Envelope {
    let to = Target::User(user.parse().expect("a name"));
    Envelope { app: app.parse().expect("a name"), command: Command::Direct { to, data: Payload::Text(text.into()) } }
}
