//! Several dialects on one channel: each row of the tables in `docs/dialects.md`, in one process and in a cluster.

use serde_json::json;

use crate::{
    cluster::field::{By, Field},
    support::{
        client::{Client, ReceivedEvent},
        keys::signer,
        member::{PresenceClient, users},
        pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage},
        server::{Server, Setup},
    },
};

/// Where a test runs.
enum Dialogue {
    /// Both roles in one process.
    One(Box<Server>),
    /// A master, and two slaves, over NATS.
    Cluster(Box<Field>),
}

impl Dialogue {
    async fn all() -> [Self; 2] {
        let listed = format!("{}{}", DEMO.listed("client_events = true"), OTHER.listed("client_events = true"));
        let one = Setup::keyed().toml(&listed).start().await;
        let cluster = Field::start_with(By::Nats, 1, 2, |setup| setup.toml(&listed)).await;
        [Self::One(Box::new(one)), Self::Cluster(Box::new(cluster))]
    }

    fn master(&self) -> &Server {
        match self {
            Self::One(server) => server,
            Self::Cluster(field) => &field.masters[0],
        }
    }

    fn slave(&self, number: usize) -> &Server {
        match self {
            Self::One(server) => server,
            Self::Cluster(field) => &field.slaves[number],
        }
    }

    async fn gusher(&self, slave: usize, user: &str, channels: &[&str]) -> Client {
        self.gusher_of("demo", slave, user, channels).await
    }

    async fn gusher_of(&self, app: &str, slave: usize, user: &str, channels: &[&str]) -> Client {
        let mut client = self.slave(slave).client(app, user, &["*"]).await;
        for channel in channels {
            assert_eq!(client.subscribe(channel).await, "gusher.subscribe_succeeded");
        }
        client
    }

    async fn pusher(&self, slave: usize, channels: &[&str]) -> PusherClient {
        let mut client = PusherClient::connect(self.slave(slave).slave(), DEMO).await;
        for channel in channels {
            client.subscribe(channel).await;
        }
        client
    }

    async fn api(&self) -> Api {
        Api::of(self.master(), DEMO).await
    }
}

/// Payloads: as they are published, as a gusher client gets them, as a Pusher client does. A string of JSON is JSON.
const PAYLOADS: [(&str, &str, &str); 8] = [
    (r#"{"n":1}"#, r#"{"n":1}"#, r#"{"n":1}"#),
    (
        r#"{"z":12345678901234567890.10,"a":"\u00e9"}"#,
        r#"{"z":12345678901234567890.10,"a":"\u00e9"}"#,
        r#"{"z":12345678901234567890.10,"a":"\u00e9"}"#,
    ),
    ("[1,2]", "[1,2]", "[1,2]"),
    ("7", "7", "7"),
    ("null", "null", "null"),
    (r#""a string""#, r#""a string""#, r#""a string""#),
    ("plain text", r#""plain text""#, "plain text"),
    ("{broken", r#""{broken""#, "{broken"),
];

#[tokio::test]
async fn what_one_publishes_the_other_hears() {
    for place in Dialogue::all().await {
        let mut gusher = [place.gusher(0, "ann", &["news"]).await, place.gusher(1, "bob", &["news"]).await];
        let mut pusher = [place.pusher(0, &["news"]).await, place.pusher(1, &["news"]).await];
        let (mut backend, mut api) = (place.master().backend().await, place.api().await);
        for (data, to_gusher, to_pusher) in PAYLOADS {
            for by_gusher in [true, false] {
                if by_gusher {
                    backend.push("demo", "news", "e", data).await;
                } else {
                    api.trigger("news", "e", data).await;
                }
                for client in &mut gusher {
                    assert_eq!(
                        client.next_event().await,
                        ReceivedEvent::new("news", "e", to_gusher),
                        "{data}, {by_gusher}"
                    );
                }
                for client in &mut pusher {
                    assert_eq!(
                        client.next().await,
                        PusherMessage::event("news", "e", to_pusher),
                        "{data}, {by_gusher}"
                    );
                }
            }
        }
        // an empty text is nothing to gusher's API, and a text to Pusher's
        api.trigger("news", "e", "").await;
        assert_eq!(gusher[0].next_event().await.data, r#""""#);
        assert_eq!(pusher[0].next().await.data, "");
    }
}

#[tokio::test]
async fn batches_and_patterns_and_lists_of_channels_reach_both() {
    for place in Dialogue::all().await {
        let mut gusher = place.gusher(0, "ann", &["a1", "a2", "b1"]).await;
        let mut pusher = place.pusher(1, &["a2", "a3", "b1", "private-a4"]).await;
        let (mut backend, mut api) = (place.master().backend().await, place.api().await);
        let batch = r#"[{"channel":"a2","event":"e","data":{"n":1}},{"channel":"b1","event":"e","data":"text"}]"#;
        backend.accepted("/api/push_batch/demo", &[("batch_data", batch)]).await;
        let events = [ReceivedEvent::new("a2", "e", r#"{"n":1}"#), ReceivedEvent::new("b1", "e", r#""text""#)];
        for event in events {
            assert_eq!(gusher.next_event().await, event);
        }
        // its payload was JSON, so its JSON text is the string
        for said in [PusherMessage::event("a2", "e", r#"{"n":1}"#), PusherMessage::event("b1", "e", r#""text""#)] {
            assert_eq!(pusher.next().await, said);
        }
        let events = ["a1", "b1"].map(|channel| json!({ "name": "e", "channel": channel, "data": "[1]" }));
        assert_eq!(api.post("/batch_events", &json!({ "batch": events })).await.status, 200);
        assert_eq!(gusher.next_event().await, ReceivedEvent::new("a1", "e", "[1]"));
        assert_eq!(gusher.next_event().await, ReceivedEvent::new("b1", "e", "[1]"));
        assert_eq!(pusher.next().await, PusherMessage::event("b1", "e", "[1]"));

        // a pattern reaches the channels of all, and counts each of them once
        assert_eq!(backend.push_matching("demo", "a[0-9]", "e", r#"{"x":2}"#).await, 4);
        let mut heard = [gusher.next_event().await, gusher.next_event().await];
        heard.sort_by(|one, other| one.channel.cmp(&other.channel));
        assert_eq!(heard, ["a1", "a2"].map(|channel| ReceivedEvent::new(channel, "e", r#"{"x":2}"#)));
        let mut heard = [pusher.next().await, pusher.next().await, pusher.next().await];
        heard.sort_by(|one, other| one.channel.cmp(&other.channel));
        assert_eq!(heard, ["a2", "a3", "private-a4"].map(|channel| PusherMessage::event(channel, "e", r#"{"x":2}"#)));

        let body = json!({ "name": "e", "channels": ["a1", "a3", "b1"], "data": "3" });
        assert_eq!(api.post("/events", &body).await.status, 200);
        assert_eq!(gusher.next_event().await, ReceivedEvent::new("a1", "e", "3"));
        assert_eq!(gusher.next_event().await, ReceivedEvent::new("b1", "e", "3"));
        assert_eq!(pusher.next().await, PusherMessage::event("a3", "e", "3"));
        assert_eq!(pusher.next().await, PusherMessage::event("b1", "e", "3"));
        pusher.is_quiet().await;
        assert!(gusher.ask("gusher.ping", "1").await.contains("pong_succeeded"));
    }
}

#[tokio::test]
async fn what_a_client_says_reaches_both_but_itself() {
    for place in Dialogue::all().await {
        let mut gusher = place.gusher(0, "ann", &["private-desk", "presence-room"]).await;
        let mut speaker = place.pusher(1, &["private-desk"]).await;
        let mut other = place.pusher(0, &["private-desk"]).await;
        assert_eq!(speaker.join("presence-room", "7").await, ["7"]);
        for (data, to_gusher) in [
            (json!({ "x": 1 }), r#"{"x":1}"#),
            (json!("text"), r#""text""#),
            (json!("{\"x\":1}"), r#"{"x":1}"#),
            (json!(null), "null"),
        ] {
            speaker.whisper("private-desk", "client-e", &data).await;
            assert_eq!(gusher.next_event().await, ReceivedEvent::new("private-desk", "client-e", to_gusher));
            assert_eq!(other.next().await, PusherMessage::event("private-desk", "client-e", data));
        }
        // of the sender, gusher has no word
        speaker.whisper("presence-room", "client-e", &json!([1])).await;
        assert_eq!(gusher.next_event().await, ReceivedEvent::new("presence-room", "client-e", "[1]"));
        // a socket that is left out is left out of its own event only
        let body = json!({ "name": "e", "channel": "private-desk", "data": "1", "socket_id": speaker.id });
        assert_eq!(place.api().await.post("/events", &body).await.status, 200);
        assert_eq!(gusher.next_event().await, ReceivedEvent::new("private-desk", "e", "1"));
        assert_eq!(other.next().await, PusherMessage::event("private-desk", "e", "1"));
        speaker.is_quiet().await;
    }
}

#[tokio::test]
async fn counts_and_lists_are_of_all_and_members_are_pushers_own() {
    for place in Dialogue::all().await {
        let mut watcher = PresenceClient::join(place.pusher(0, &["news"]).await, "presence-room", "7").await;
        // a gusher client on a presence channel is no member, and nobody is told of it
        let mut ann = place.gusher(1, "ann", &["presence-room", "news", "only gusher's"]).await;
        let mut eve = PresenceClient::join(place.pusher(1, &["private-desk"]).await, "presence-room", "8").await;
        let mut again = PresenceClient::join(place.pusher(0, &[]).await, "presence-room", "8").await;
        for member in [&mut watcher, &mut eve, &mut again] {
            member.sees(&users(["7", "8"])).await;
            member.is_quiet().await;
        }

        let (mut backend, mut api) = (place.master().backend().await, place.api().await);
        // sockets of both, members of one
        assert_eq!(api.counts("presence-room").await, (4, Some(2)));
        assert_eq!(api.users("presence-room").await, ["7", "8"]);
        assert_eq!(api.counts("news").await, (2, None));
        let names = json!({ "news": {}, "only gusher's": {}, "presence-room": {}, "private-desk": {} });
        assert_eq!(api.ask("/channels", &[]).await["channels"], names);
        // gusher's lists are of all user ids on the channel
        let path = "/api/demo/online/bychannel/presence-room";
        assert_eq!(backend.names(path).await, ["7", "8", "ann"]);
        assert_eq!(backend.ask(&format!("{path}/count")).await, json!({ "count": 3 }));
        assert_eq!(
            backend.names("/api/demo/channels").await,
            ["news", "only gusher's", "presence-room", "private-desk"]
        );
        assert_eq!(backend.ask("/api/demo/channels/count").await, json!({ "count": 4 }));
        // a Pusher client on a channel without members has no user id there, as gusher's anonymous clients have none
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["", "ann"]);
        // online is who has shown a JWT; connections are everybody's
        assert_eq!(backend.names("/api/demo/online").await, ["ann"]);
        assert_eq!(backend.ask("/v1/stats").await, json!({ "apps": 1, "connections": 4, "users": 1 }));
        assert_eq!(backend.ask("/v1/apps").await, json!([{ "app": "demo", "connections": 4, "users": 1 }]));

        // what the one side leaves, the other still holds
        assert_eq!(ann.unsubscribe("presence-room").await, "gusher.unsubscribe_succeeded");
        assert_eq!(api.counts("presence-room").await, (3, Some(2)));
        assert_eq!(backend.names(path).await, ["7", "8"]);
        for client in [watcher, eve, again].iter_mut().map(|member| &mut member.client) {
            client.unsubscribe("presence-room").await;
            client.say("pusher:ping", &json!({})).await;
            while client.next().await.event != "pusher:pong" {}
        }
        assert_eq!(backend.names(path).await, Vec::<String>::new());
        assert_eq!(ann.subscribe("presence-room").await, "gusher.subscribe_succeeded");
        assert_eq!(api.counts("presence-room").await, (1, Some(0)));
        assert_eq!(api.ask("/channels/presence-room", &[]).await, json!({ "occupied": true }));
        assert_eq!(api.users("presence-room").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn users_and_sockets_of_the_one_are_not_those_of_the_other() {
    for place in Dialogue::all().await {
        let mut ann = place.gusher(0, "ann", &[]).await;
        let mut member = place.pusher(1, &[]).await;
        member.join("presence-room", "ann").await;
        let mut backend = place.master().backend().await;
        // who a presence channel calls ann is not the ann of a JWT
        backend.push_to_user("demo", "ann", r#"{"for":"ann"}"#).await;
        assert_eq!(ann.socket.text().await, r#"{"for":"ann"}"#);
        member.is_quiet().await;
        // nor do changed permissions concern it
        backend.accepted("/api/reload/channel/user/demo/ann", &[("data", r#"["nothing"]"#)]).await;
        assert!(ann.socket.text().await.contains("gusher.reloadchannel"));
        backend.accepted("/api/add/channel/user/demo/ann", &[("data", "more")]).await;
        assert!(ann.socket.text().await.contains("gusher.addchannel"));
        member.is_quiet().await;
        member.subscribe("private-desk").await;
        assert_eq!(place.api().await.users("presence-room").await, ["ann"]);
        // an id of the one names no socket to the other
        let body = json!({ "name": "e", "channel": "private-desk", "data": "1", "socket_id": ann.id().await });
        assert_eq!(place.api().await.post("/events", &body).await.status, 400);
        let refused = backend.form(&format!("/api/push/socket/demo/{}", member.id), &[("data", "1")]).await;
        assert!([200, 400].contains(&refused.status), "{refused:?}");
        member.is_quiet().await;
    }
}

/// Pushes to a user by gusher's API: as they are published, as a gusher client gets them, and the event and data that a
/// signed-in Pusher client gets.
const TO_USER: [(&str, &str, &str, &str); 8] = [
    (r#"{"event":"e","data":{"n":1.0}}"#, r#"{"event":"e","data":{"n":1.0}}"#, "e", r#"{"n":1.0}"#),
    (r#"{"data":"s","event":"e","x":1}"#, r#"{"data":"s","event":"e","x":1}"#, "e", r#""s""#),
    (r#"{"for":"ann"}"#, r#"{"for":"ann"}"#, "message", r#"{"for":"ann"}"#),
    (r#"{"event":7,"data":1}"#, r#"{"event":7,"data":1}"#, "message", r#"{"event":7,"data":1}"#),
    (r#"{"event":"e"}"#, r#"{"event":"e"}"#, "message", r#"{"event":"e"}"#),
    ("[1,2]", "[1,2]", "message", "[1,2]"),
    (r#""a string""#, r#""a string""#, "message", r#""a string""#),
    ("plain text", r#""plain text""#, "message", "plain text"),
];

#[tokio::test]
async fn a_user_of_a_jwt_and_one_who_has_signed_in_are_one() {
    for place in Dialogue::all().await {
        let mut gusher = [place.gusher(0, "ann", &[]).await, place.gusher(1, "ann", &[]).await];
        let mut pusher = [place.pusher(0, &[]).await, place.pusher(1, &["news", "private-desk"]).await];
        let (mut bob, mut nobody) = (place.pusher(1, &["news"]).await, place.pusher(0, &["news"]).await);
        let mut stranger = PusherClient::connect(place.slave(0).slave(), OTHER).await;
        let (mut backend, mut api) = (place.master().backend().await, place.api().await);
        assert_eq!(backend.names("/api/demo/online").await, ["ann"]);
        for (client, user) in [(&mut pusher[0], "ann"), (&mut bob, "bob"), (&mut stranger, "ann")] {
            client.sign_in_as(user).await;
        }
        pusher[1].sign_in_as("ann").await;
        pusher[0].enter_own_channel("ann").await;
        let channel = "#server-to-user-ann";
        // gusher's push to a user
        for (data, to_gusher, event, to_pusher) in TO_USER {
            backend.push_to_user("demo", "ann", data).await;
            for client in &mut gusher {
                assert_eq!(client.socket.text().await, to_gusher, "{data}");
            }
            for client in &mut pusher {
                assert_eq!(client.next().await, PusherMessage::event(channel, event, to_pusher), "{data}");
            }
        }
        // Pusher's sendToUser
        for (data, to_gusher, to_pusher) in PAYLOADS {
            api.trigger(channel, "e", data).await;
            for client in &mut gusher {
                assert_eq!(client.socket.text().await, format!(r#"{{"event":"e","data":{to_gusher}}}"#), "{data}");
            }
            for client in &mut pusher {
                assert_eq!(client.next().await, PusherMessage::event(channel, "e", to_pusher), "{data}");
            }
        }
        // without one Pusher socket: gusher's are never left out
        let body = json!({ "name": "e", "channel": channel, "data": "1", "socket_id": pusher[0].id });
        assert_eq!(api.post("/events", &body).await.status, 200);
        for client in &mut gusher {
            assert_eq!(client.socket.text().await, r#"{"event":"e","data":1}"#);
        }
        assert_eq!(pusher[1].next().await, PusherMessage::event(channel, "e", "1"));
        pusher[0].is_quiet().await;

        // who is online, and where
        assert_eq!(backend.names("/api/demo/online").await, ["ann", "bob"]);
        assert_eq!(backend.ask("/api/demo/online/count").await, json!({ "count": 2 }));
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["", "ann", "bob"]);
        let sizes =
            json!([{ "app": "demo", "connections": 6, "users": 2 }, { "app": "other", "connections": 1, "users": 1 }]);
        assert_eq!(backend.ask("/v1/apps").await, sizes);
        // a member of another name is both, there
        assert_eq!(bob.join("presence-room", "masked").await, ["masked"]);
        assert_eq!(backend.names("/api/demo/online/bychannel/presence-room").await, ["bob", "masked"]);
        assert_eq!(backend.names("/api/demo/online").await, ["ann", "bob"]);
        assert_eq!(api.users("presence-room").await, ["masked"]);

        // permissions are those of JWTs
        backend.accepted("/api/reload/channel/user/demo/ann", &[("data", r#"["nothing"]"#)]).await;
        backend.accepted("/api/add/channel/user/demo/ann", &[("data", "more")]).await;
        for client in &mut gusher {
            assert!(client.socket.text().await.contains("gusher.reloadchannel"));
            assert!(client.socket.text().await.contains("gusher.addchannel"));
        }
        for client in &mut pusher {
            client.is_quiet().await;
        }
        for name in ["news", "private-desk"] {
            api.trigger(name, "e", "2").await;
            assert_eq!(pusher[1].next().await, PusherMessage::event(name, "e", "2"), "it is on its channels as before");
        }
        for client in [&mut bob, &mut nobody] {
            assert_eq!(client.next().await, PusherMessage::event("news", "e", "2"));
            client.is_quiet().await;
        }
        stranger.is_quiet().await;
        // a channel of gusher's may have that name: it is another thing
        let mut eve = place.gusher(0, "eve", &[channel]).await;
        api.trigger(channel, "e", "3").await;
        assert_eq!(pusher[0].next().await.data, "3");
        assert!(eve.ask("gusher.ping", "1").await.contains("pong_succeeded"));
        backend.push("demo", channel, "e", "4").await;
        assert_eq!(eve.next_event().await, ReceivedEvent::new(channel, "e", "4"));
        pusher[0].is_quiet().await;
        // who goes is gone
        drop(pusher);
        drop(gusher);
        crate::support::until("ann has gone", vec!["bob".to_owned(), "eve".to_owned()], async || {
            place.master().backend().await.names("/api/demo/online").await
        })
        .await;
    }
}

#[tokio::test]
async fn each_goes_by_its_own_rule_where_it_may_subscribe() {
    for place in Dialogue::all().await {
        // gusher's: what the JWT says, whatever the name
        let token = place.slave(0).token("demo", "ann", &["private-*", "presence-room"]).await;
        let mut ann = Client::connect(place.slave(0).slave(), "demo", &token).await;
        for (channel, may) in [
            ("private-desk", true),
            ("private-encrypted-safe", true),
            ("presence-room", true),
            ("presence-other", false),
            ("news", false),
        ] {
            let wanted = if may { "gusher.subscribe_succeeded" } else { "gusher.subscribe_error" };
            assert_eq!(ann.subscribe(channel).await, wanted, "{channel}");
        }
        // Pusher's: what the name says, and a signature
        let mut bob = place.pusher(1, &["news", "private-desk"]).await;
        for channel in ["private-x", "presence-x", "private-encrypted-x"] {
            bob.say("pusher:subscribe", &json!({ "channel": channel })).await;
            assert_eq!(bob.barred(channel).await.0, 401);
        }
        for name in ["only gusher's", "a/b", "#a"] {
            bob.wish(name, None).await;
            assert_eq!(bob.barred(name).await.0, 400);
        }
        // neither shows the other's credentials
        let jwt = signer().jwt("demo", "bob", &["*"]);
        bob.say("pusher:subscribe", &json!({ "channel": "private-x", "auth": jwt })).await;
        assert_eq!(bob.barred("private-x").await.0, 401);
        // and both hear what is said
        place.api().await.trigger("private-desk", "e", "1").await;
        assert_eq!(ann.next_event().await, ReceivedEvent::new("private-desk", "e", "1"));
        assert_eq!(bob.next().await, PusherMessage::event("private-desk", "e", "1"));
    }
}

#[tokio::test]
async fn apps_are_apart_whatever_the_dialect() {
    for place in Dialogue::all().await {
        let mut pusher = [place.pusher(0, &["news"]).await, place.pusher(1, &["news"]).await];
        let mut gusher = place.gusher_of("demo", 0, "ann", &["news"]).await;
        let mut strangers =
            [place.gusher_of("other", 0, "ann", &["news"]).await, place.gusher_of("plain", 1, "ann", &["news"]).await];
        let mut other = PusherClient::connect(place.slave(1).slave(), OTHER).await.subscribed("news").await;
        let mut backend = place.master().backend().await;
        // gusher's name of an app is Pusher's key, not its id
        for app in ["plain", DEMO.id, "Demo"] {
            backend.push(app, "news", "e", "0").await;
        }
        backend.push(OTHER.key, "news", "e", "2").await;
        assert_eq!(other.next().await, PusherMessage::event("news", "e", "2"));
        assert_eq!(strangers[1].next_event().await.data, "0");
        assert_eq!(strangers[0].next_event().await.data, "2");
        backend.push("demo", "news", "e", "1").await;
        assert_eq!(gusher.next_event().await.data, "1");
        for client in &mut pusher {
            assert_eq!(client.next().await, PusherMessage::event("news", "e", "1"));
        }
        assert_eq!(Api::of(place.master(), OTHER).await.counts("news").await, (2, None));
        assert_eq!(place.api().await.counts("news").await, (3, None));
    }
}
