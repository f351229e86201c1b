//! The shard with real sockets: order, coalescing, what is deferred during a large push, and frames with heads.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::{TcpListener, TcpStream},
};
use wellhead_proto::{
    channel::ChannelPattern,
    command::PublishMatching,
    dialect::contract::{ApiCall, ApiReply, ConnectRequest, Dialect, Protocol, Route, Variant},
    event::{Event, Payload},
    frame::SharedFrame,
    member::{Member, MemberChange},
    notice::Notice,
    query::{GrantsQuery, Listing, MembersQuery, NameHashes, Names, NamesQuery, name_hash},
    refusal::Refusal,
    tenants::{TenantDirectory, Tenants},
    testkit::RecordingBus,
};

use super::*;
use crate::{
    backlog::Backlog,
    memory::{Memory, Share},
    presence::{coordination::Coordination, coordinator::GRACE},
    registry::{
        message::{PendingAnswer, RunningQuery},
        relief::look_after,
    },
    transport::Transport,
};

#[path = "shard/asks_tests.rs"]
mod asks;
#[path = "shard/follows_tests.rs"]
mod follows;
#[path = "shard/members_tests.rs"]
mod members;

/// Small, so that a handful of sockets is a large push.
const CHUNK: usize = 16;

/// What all its sockets may hold.
const MEMORY: usize = 16 << 20;

/// Two variants: whole frames, and tails behind a head that holds the subscription's tag.
struct Twofold;

impl Dialect for Twofold {
    fn name(&self) -> &'static str {
        "twofold"
    }

    fn routes(&self) -> &[Route] {
        &[]
    }

    fn variants(&self) -> u8 {
        2
    }

    fn connect_request(&self, _: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
        Err(Refusal::NotFound)
    }

    fn open(&self, _: &AppId, _: Variant, _: SocketId) -> Box<dyn Protocol> {
        unreachable!("the floor starts no conversations")
    }

    /// Only one of the two has a word for members.
    fn encode(&self, variant: Variant, notice: Notice<'_>) -> Option<SharedFrame> {
        let text = match notice {
            Notice::Event { channel, event } => format!("{channel}:{}", event.data.to_json()),
            Notice::DirectEvent { user, event } => {
                return Some(Frame::text(&format!("{user}!{}", event.data.to_json())).into());
            }
            Notice::Direct { data, .. } => return Some(Frame::text(&data.to_json()).into()),
            Notice::Members { channel, change } if variant == Variant(0) => {
                let what = if matches!(change, MemberChange::Added(_)) { '+' } else { '-' };
                format!("{channel}{what}{}", change.user())
            }
            Notice::SubscriptionCount { channel, count } => format!("{channel}={count}"),
            Notice::Watched { online, offline } => {
                let named = |sign: char, users: &[UserId]| users.iter().map(|user| format!("{sign}{user}")).collect();
                let (online, offline): (String, String) = (named('+', online), named('-', offline));
                return Some(Frame::text(&format!("{online}{offline}")).into());
            }
            _ => return None,
        };
        Some(if variant == Variant(0) { Frame::text(&text).into() } else { SharedFrame::Tail(text.into()) })
    }

    fn head(&self, _: Variant, tag: &str) -> String {
        format!("[{tag}]")
    }

    fn refuse(&self, _: usize, _: &Refusal) -> ApiReply {
        ApiReply::empty(400)
    }
}

struct TestClient {
    id: SocketId,
    stream: BufReader<TcpStream>,
}

impl TestClient {
    /// The texts of the next frames.
    async fn reads(&mut self, frames: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..frames {
            let read = async {
                let mut header = [0; 2];
                self.stream.read_exact(&mut header).await.unwrap();
                let mut text = vec![0; header[1].into()];
                self.stream.read_exact(&mut text).await.unwrap();
                String::from_utf8(text).unwrap()
            };
            texts.push(tokio::time::timeout(std::time::Duration::from_secs(5), read).await.unwrap());
        }
        texts
    }
}

struct Scene {
    shard: Shard,
    share: Rc<Share>,
    backlog: Arc<Backlog>,
    listener: TcpListener,
    clients: u32,
}

impl Scene {
    async fn new() -> Self {
        Self::of(Tenants::default()).await
    }

    async fn of(tenants: Tenants) -> Self {
        let encodings = Rc::new(Encodings::new(&[Arc::new(Twofold)]));
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let bus = Arc::new(RecordingBus::default());
        let node = wellhead_proto::ids::NodeId::from_random(1);
        let coordination = Coordination::new(node, Arc::default(), GRACE, bus.clone(), metrics.clone());
        let coordination = Arc::new(coordination);
        let interests = Arc::new(Interests::new(bus.clone(), coordination.clone()));
        let presence = Arc::new(Presence::new(coordination, bus, Arc::new(TenantDirectory::new(tenants))));
        Self {
            shard: Shard::new(0, CHUNK, 64 << 10, encodings, interests, presence, metrics),
            share: Rc::new(Share::new(Arc::new(Memory::new(MEMORY)), 1 << 20)),
            backlog: Arc::default(),
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            clients: 0,
        }
    }

    async fn client(&mut self, encoding: u8) -> TestClient {
        self.client_of(encoding, "ann").await
    }

    async fn client_of(&mut self, encoding: u8, user: &str) -> TestClient {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let transport = Transport::plain(self.listener.accept().await.unwrap().0);
        transport.set_nodelay();
        transport.set_send_buffer(128 << 10).unwrap();
        self.clients += 1;
        let id = SocketId::new(wellhead_proto::ids::NodeId::from_random(1), self.clients);
        let outbox = Rc::new(Outbox::new(transport, self.share.clone()));
        let local_socket = LocalSocket {
            id,
            outbox,
            encoding,
            grants: Grants::default(),
            keep_alive: KeepAlive::default(),
            is_identified: false,
        };
        self.shard.open("app".parse().unwrap(), user.parse().unwrap(), local_socket);
        TestClient { id, stream: BufReader::new(stream) }
    }

    /// Joins now, or tells when it will have.
    fn join(&mut self, client: &TestClient, channel: &str, tag: &str) -> Option<oneshot::Receiver<()>> {
        let wait = self.shard.subscribe(PendingSubscribe {
            socket: client.id.counter(),
            channels: vec![channel.parse().unwrap()],
            tag: Some(tag.into()),
            reply: Some(Frame::text("joined")),
            done: None,
        });
        // the session's own driver would do this
        let local_socket = self.shard.index.local_socket_of(client.id.counter()).unwrap();
        self.shard.index.at(local_socket).outbox.flush();
        wait
    }

    fn push(&mut self, channel: &str, data: &str, except: Option<SocketId>) {
        let event = Event::new("e".parse().unwrap(), Payload::sniff(data.to_owned().into()));
        let command = Command::Publish { channel: channel.parse().unwrap(), event, except };
        self.order(command);
    }

    fn order(&mut self, command: Command) {
        self.order_in("app", command);
    }

    fn order_in(&mut self, app: &str, command: Command) {
        let app = app.parse().unwrap();
        let channel = match &command {
            Command::Publish { channel, .. } => self.shard.interests.find(&app, channel).map(|(channel, _)| channel),
            _ => None,
        };
        let permit = self.backlog.admit(0);
        self.shard.execute(Delivery { envelope: Envelope { app, command }, channel, permit }, Instant::now());
    }

    /// The answer to a question, whatever turns it takes, and how many those are.
    fn ask<Q, R>(&mut self, query: Q, question: fn(PendingAnswer<Q, R>) -> RunningQuery) -> (R, usize) {
        let (reply, mut answer) = oneshot::channel();
        self.shard.ask(question(PendingAnswer { query: Arc::new(query), reply }), self.backlog.admit(0));
        let (mut more, mut turns) = (true, 0);
        loop {
            match answer.try_recv() {
                Ok(answer) => return (answer, turns),
                Err(_) => assert!(more, "it is under way"),
            }
            more = self.shard.flush();
            turns += 1;
        }
    }

    fn flush(&mut self) {
        while self.shard.flush() {}
        assert!(self.backlog.is_empty(), "nothing waits any more");
    }
}

#[tokio::test]
async fn a_frame_is_whole_or_has_a_head_of_the_sockets_own_and_may_leave_one_out() {
    let mut scene = Scene::new().await;
    let (mut whole, mut headed, mut left_out) = (scene.client(0).await, scene.client(1).await, scene.client(0).await);
    for (client, tag) in [(&whole, "x"), (&headed, "7"), (&left_out, "x")] {
        scene.join(client, "c", tag);
    }
    scene.push("c", "1", Some(left_out.id));
    scene.push("c", "2", None);
    scene.flush();
    assert_eq!(whole.reads(3).await, ["joined", "c:1", "c:2"]);
    assert_eq!(headed.reads(3).await, ["joined", "[7]c:1", "[7]c:2"]);
    assert_eq!(left_out.reads(2).await, ["joined", "c:2"]);
}

#[tokio::test]
async fn a_large_push_holds_back_what_follows_it_and_lets_other_channels_overtake() {
    let mut scene = Scene::new().await;
    let mut crowd = Vec::new();
    for no in 0..4 * CHUNK {
        let client = scene.client(if no % 8 == 0 { 1 } else { 0 }).await;
        scene.join(&client, "large", "");
        crowd.push(client);
    }
    let mut late = scene.client(0).await;
    let mut other = scene.client(0).await;
    scene.join(&other, "small", "");

    scene.push("large", "1", None);
    let held = scene.join(&late, "large", "");
    // these two will be delivered together, as one piece
    scene.push("large", "2", None);
    scene.push("large", "3", None);
    let mut wait = held.expect("a join waits while a push walks the room");
    assert!(scene.shard.flush(), "the push is not done at once");
    scene.push("small", "0", None);
    assert!(scene.shard.flush());
    assert_eq!(other.reads(2).await, ["joined", "small:0"], "while the large push is under way");
    assert!(wait.try_recv().is_err(), "the join still waits");

    // those who leave are left out from then on
    let mut leaver = crowd.pop().unwrap();
    scene.shard.unsubscribe(leaver.id, &"large".parse().unwrap());
    let gone = crowd.pop().unwrap();
    scene.shard.close(gone.id);
    scene.flush();
    wait.try_recv().unwrap();

    for (no, client) in crowd.iter_mut().enumerate() {
        let head = if no % 8 == 0 { "[]" } else { "" };
        let pushes = [1, 2, 3].map(|push| format!("{head}large:{push}"));
        assert_eq!(client.reads(4).await, [&["joined".to_owned()], &pushes[..]].concat());
    }
    assert_eq!(late.reads(3).await, ["joined", "large:2", "large:3"]);
    scene.push("large", "4", None);
    scene.flush();
    assert_eq!(late.reads(1).await, ["large:4"]);
    let command = Command::Direct { to: Target::Socket(leaver.id), data: Payload::null() };
    scene.order(command);
    scene.flush();
    assert_eq!(leaver.reads(2).await, ["joined", "null"]);
}

#[tokio::test]
async fn a_burst_leaves_in_one_piece_and_in_order() {
    let mut scene = Scene::new().await;
    let mut client = scene.client(0).await;
    scene.join(&client, "a", "");
    scene.join(&client, "b", "");
    for n in 0..CHUNK {
        scene.push(if n % 2 == 0 { "a" } else { "b" }, &n.to_string(), None);
    }
    scene.flush();
    let expected: Vec<_> = (0..CHUNK).map(|n| format!("{}:{n}", if n % 2 == 0 { "a" } else { "b" })).collect();
    let texts = client.reads(CHUNK + 2).await;
    assert_eq!(texts[2..], expected);
}

/// Held as often as there are sockets: that some say later who they are costs the others nothing.
#[test]
fn a_socket_holds_as_much_as_before() {
    assert!(size_of::<LocalSocket>() <= 48, "{}", size_of::<LocalSocket>());
}

#[tokio::test]
async fn a_socket_that_says_who_it_is_is_reached_as_that_user_and_keeps_its_channels() {
    let mut scene = Scene::new().await;
    let [ann, bob] = ["ann", "bob"].map(|user| user.parse::<UserId>().unwrap());
    let mut old = scene.client_of(0, "ann").await;
    let (mut new, mut second) = (scene.client_of(0, "").await, scene.client_of(1, "").await);
    for client in [&new, &second] {
        scene.join(client, "c", "");
    }
    let event = |data: &str, except| {
        let event = Event::new("e".parse().unwrap(), Payload::sniff(data.to_owned().into()));
        Command::DirectEvent { user: "ann".parse().unwrap(), event, except }
    };
    let online = |scene: &mut Scene| {
        let all = NamesQuery { app: "app".parse().unwrap(), of: Listing::Users { within: None } };
        let of_channel = NamesQuery { app: "app".parse().unwrap(), of: Listing::UsersOf("c".parse().unwrap()) };
        [all, of_channel].map(|query| scene.ask(query, RunningQuery::Names).0.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(scene.shard.metrics.users.count.get(), 1);
    assert_eq!(online(&mut scene), [vec!["ann"], vec![""]]);
    scene.order(event("1", None));
    // the second ones change nothing
    for _ in 0..2 {
        assert!(scene.shard.identify(new.id, &ann) && scene.shard.identify(second.id, &ann));
    }
    assert!(!scene.shard.identify(new.id, &bob), "it stays ann's");
    assert_eq!(scene.shard.metrics.users.count.get(), 1, "one user, whatever the number of sockets");
    assert_eq!(online(&mut scene), [["ann"], ["ann"]]);

    scene.order(event("2", Some(second.id)));
    scene.order(Command::Direct { to: Target::User(ann.clone()), data: Payload::sniff("3".into()) });
    // what ann may subscribe to is nothing to sockets that show signatures
    scene.order(Command::Reload {
        user: ann.clone(),
        within: vec![ChannelPattern::everything()],
        channels: Vec::new(),
    });
    scene.order(Command::Grant { user: ann.clone(), channel: "d".try_into().unwrap() });
    scene.push("c", "4", None);
    scene.flush();
    assert_eq!(old.reads(3).await, ["ann!1", "ann!2", "3"]);
    assert_eq!(new.reads(4).await, ["joined", "ann!2", "3", "c:4"]);
    assert_eq!(second.reads(3).await, ["joined", "3", "[]c:4"]);
    let granted = |scene: &Scene, client: &TestClient| {
        let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
        scene.shard.index.at(local_socket).grants.len()
    };
    assert_eq!([&old, &new, &second].map(|client| granted(&scene, client)), [1, 0, 0]);

    scene.shard.close(old.id);
    scene.shard.close(second.id);
    // one socket is reached as many are
    scene.order(event("5", Some(new.id)));
    scene.order(event("6", None));
    scene.flush();
    assert_eq!(new.reads(1).await, ["ann!6"]);
    assert_eq!((scene.shard.metrics.users.count.get(), online(&mut scene)[0].len()), (1, 1));
    scene.shard.close(new.id);
    assert_eq!((scene.shard.metrics.users.count.get(), online(&mut scene)[0].len()), (0, 0));
    assert!(scene.shard.identify(new.id, &bob), "it has ended: nobody asks any more");
    assert_eq!(scene.shard.metrics.users.count.get(), 0);
}

#[tokio::test]
async fn the_sockets_of_a_user_end_behind_what_was_pushed_before() {
    let mut scene = Scene::new().await;
    let ann: UserId = "ann".parse().unwrap();
    let mut crowd = Vec::new();
    for _ in 0..3 * CHUNK {
        crowd.push(scene.client_of(0, "bob").await);
    }
    let (mut token, mut identified) = (scene.client_of(0, "ann").await, scene.client_of(1, "").await);
    let mut alone = scene.client_of(0, "ann").await;
    for client in crowd.iter().chain([&token, &identified]) {
        scene.join(client, "large", "");
    }
    scene.join(&alone, "c", "");
    assert!(scene.shard.identify(identified.id, &ann));
    let mut late = scene.client_of(0, "").await;
    let end = |user: &str| Command::Terminate { whose: Target::User(user.parse().unwrap()), reconnect: false };
    let is_ending = |scene: &Scene, client: &TestClient| {
        let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
        scene.shard.index.at(local_socket).outbox.is_ending()
    };

    scene.push("large", "1", None);
    scene.push("large", "2", None);
    scene.order_in("other", end("ann"));
    scene.order(end("nobody"));
    scene.order(end(""));
    assert!(![&token, &identified, &alone, &late].iter().any(|client| is_ending(&scene, client)));
    scene.order(end("ann"));
    scene.push("large", "3", None);
    scene.push("c", "4", None);
    assert!(is_ending(&scene, &alone), "nothing is under way to it");
    assert!(!is_ending(&scene, &token) && !is_ending(&scene, &identified), "the broadcast has not reached them");
    // who signs in from now on has come after it
    assert!(scene.shard.identify(late.id, &ann));
    while scene.shard.flush() {}

    assert!(is_ending(&scene, &token) && is_ending(&scene, &identified));
    assert!(!crowd.iter().chain([&late]).any(|client| is_ending(&scene, client)));
    assert_eq!(token.reads(3).await, ["joined", "large:1", "large:2"]);
    assert_eq!(identified.reads(3).await, ["joined", "[]large:1", "[]large:2"]);
    assert_eq!(crowd[0].reads(4).await, ["joined", "large:1", "large:2", "large:3"]);
    for client in [&token, &identified, &alone] {
        let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
        let outbox = scene.shard.index.at(local_socket).outbox.clone();
        assert_eq!(outbox.take_end(), Some(CloseCause::Terminated { reconnect: false }));
        assert!(outbox.try_flush());
    }
    assert_eq!((alone.reads(1).await, late.id == token.id), (vec!["joined".to_owned()], false));
    scene.order(Command::Direct { to: Target::User(ann), data: Payload::sniff("5".into()) });
    scene.flush();
    assert_eq!(late.reads(1).await, ["5"]);
}

#[tokio::test]
async fn channels_that_are_always_busy_do_not_keep_a_socket() {
    let mut scene = Scene::new().await;
    let mut crowd = Vec::new();
    for _ in 0..3 * CHUNK {
        crowd.push(scene.client_of(0, "bob").await);
    }
    let last = scene.client_of(0, "ann").await;
    for channel in ["a", "b"] {
        for client in crowd.iter().chain([&last]) {
            scene.join(client, channel, "");
        }
        scene.push(channel, "0", None);
    }
    scene.order(Command::Terminate { whose: Target::Socket(last.id), reconnect: false });
    let local_socket = scene.shard.index.local_socket_of(last.id.counter()).unwrap();
    let is_ending = |scene: &Scene| scene.shard.index.at(local_socket).outbox.is_ending();
    assert!(!is_ending(&scene), "behind what was pushed before");
    // each channel gets its next push before its broadcast is over
    for round in 1..100 {
        for channel in ["a", "b"] {
            scene.push(channel, &round.to_string(), None);
        }
        scene.shard.flush();
        if is_ending(&scene) {
            return;
        }
    }
    panic!("it waits for ever");
}

#[tokio::test]
async fn a_user_with_many_sockets_ends_in_slices_and_a_socket_alone() {
    let mut scene = Scene::new().await;
    let mut crowd = Vec::new();
    for _ in 0..2 * CHUNK + 3 {
        crowd.push(scene.client_of(0, "ann").await);
    }
    let ending = |scene: &Scene| {
        let local_sockets = scene.shard.index.local_sockets();
        local_sockets.filter(|(_, local_socket)| local_socket.outbox.is_ending()).count()
    };
    let whose = Target::Socket(crowd[0].id);
    scene.order_in("other", Command::Terminate { whose: whose.clone(), reconnect: true });
    let elsewhere = SocketId::new(wellhead_proto::ids::NodeId::from_random(2), crowd[0].id.counter());
    scene.order(Command::Terminate { whose: Target::Socket(elsewhere), reconnect: true });
    assert_eq!(ending(&scene), 0);
    scene.order(Command::Terminate { whose, reconnect: true });
    assert_eq!(ending(&scene), 1);
    scene.order(Command::Terminate { whose: Target::User("ann".parse().unwrap()), reconnect: false });
    assert_eq!(ending(&scene), CHUNK, "a slice");
    // what comes later waits for it, and then finds nobody who takes it
    scene.order(Command::Direct { to: Target::User("ann".parse().unwrap()), data: Payload::sniff("1".into()) });
    while scene.shard.flush() {}
    assert_eq!(ending(&scene), crowd.len());
    let local_socket = scene.shard.index.local_socket_of(crowd[0].id.counter()).unwrap();
    let cause = scene.shard.index.at(local_socket).outbox.take_end();
    assert_eq!(cause, Some(CloseCause::Terminated { reconnect: true }), "the first cause stands");
}

#[tokio::test]
async fn another_app_hears_nothing() {
    let mut scene = Scene::new().await;
    let mut client = scene.client(0).await;
    scene.join(&client, "c", "");
    let event = Event::new("e".parse().unwrap(), Payload::null());
    for (app, command) in [
        ("other", Command::Publish { channel: "c".parse().unwrap(), event: event.clone(), except: None }),
        ("other", Command::Direct { to: Target::User("ann".parse().unwrap()), data: Payload::null() }),
        ("other", Command::Direct { to: Target::Socket(client.id), data: Payload::null() }),
        (
            "other",
            Command::Reload {
                user: "ann".parse().unwrap(),
                within: vec![ChannelPattern::everything()],
                channels: Vec::new(),
            },
        ),
    ] {
        scene.order_in(app, command);
    }
    let push = PublishMatching {
        app: "other".parse().unwrap(),
        pattern: String::new(),
        within: vec![ChannelPattern::everything()],
        event,
    };
    assert_eq!(scene.ask(push, RunningQuery::Publish).0.len(), 0);
    scene.push("c", "1", None);
    scene.flush();
    assert_eq!(client.reads(2).await, ["joined", "c:1"]);
}

#[tokio::test]
async fn a_pattern_reaches_every_channel_that_it_matches_within_what_the_key_allows() {
    let mut scene = Scene::new().await;
    let mut client = scene.client(0).await;
    for channel in ["ab", "ac", "b"] {
        scene.join(&client, channel, "");
    }
    let push = PublishMatching {
        app: "app".parse().unwrap(),
        pattern: "^a".to_owned(),
        within: vec!["*b".try_into().unwrap(), "b*".try_into().unwrap()],
        event: Event::new("e".parse().unwrap(), Payload::sniff(Bytes::from_static(b"1").try_into().unwrap())),
    };
    assert_eq!(scene.ask(push, RunningQuery::Publish).0, NameHashes::from([name_hash("ab")]));
    scene.push("b", "2", None);
    scene.flush();
    assert_eq!(client.reads(5).await[3..], ["ab:1", "b:2"]);
}

#[tokio::test]
async fn those_who_hold_the_most_are_closed_when_all_hold_too_much() {
    let mut scene = Scene::new().await;
    let mut clients = Vec::new();
    // some hold two MiB, some four, and each for itself
    for no in 0..12 {
        let client = scene.client(0).await;
        let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
        scene.shard.enqueue(local_socket, Frame::Whole(Bytes::from(vec![0; (2 + no % 2 * 2) << 20])));
        clients.push((client, local_socket));
    }
    scene.flush();
    let is_ending = |scene: &Scene, local_socket| scene.shard.index.at(local_socket).outbox.is_ending();
    assert!(scene.share.is_due());
    look_after(&scene.shard, &scene.share);
    let local_channel = MEMORY - MEMORY / 8;
    assert!((local_channel - (4 << 20)..=local_channel).contains(&scene.share.memory().held()), "as much as needed");
    let closed: Vec<_> = (0..12).filter(|&no| is_ending(&scene, clients[no].1)).collect();
    assert!(!closed.is_empty() && closed.iter().all(|no| no % 2 == 1), "only large ones: {closed:?}");
    assert!(!scene.share.is_due());
}

#[tokio::test]
async fn what_many_owe_closes_nobody() {
    let mut scene = Scene::new().await;
    let mut clients = Vec::new();
    let frame = Bytes::from(vec![0; 4 << 20]);
    for _ in 0..12 {
        let client = scene.client(0).await;
        let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
        scene.shard.enqueue(local_socket, Frame::Whole(frame.clone()));
        clients.push((client, local_socket));
    }
    scene.flush();
    assert!(scene.share.is_due(), "it might be much");
    look_after(&scene.shard, &scene.share);
    assert!(scene.share.memory().held() <= (4 << 20) + 1_000, "but it is one frame");
    assert!(clients.iter().all(|&(_, local_socket)| !scene.shard.index.at(local_socket).outbox.is_ending()));
}

/// A socket is held as often as there are sockets, and an encoded push as often as it is under way.
#[test]
fn a_seat_and_an_encoded_push_hold_little() {
    assert!(size_of::<LocalSocket>() <= 56, "{}", size_of::<LocalSocket>());
    assert_eq!(size_of::<Option<Option<SharedFrame>>>(), size_of::<SharedFrame>());
}
