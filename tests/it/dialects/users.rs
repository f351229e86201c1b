//! Users: one space of them for gusher's and PushEx' JWTs and Pusher's sign-in; and Conveyor's sockets, which are nobody's.

use serde_json::json;

use super::{Dialogue, PAYLOADS};
use crate::support::{
    client::{Client, ReceivedEvent},
    conveyor::ConveyorClient,
    http::Http,
    phoenix::PhoenixClient,
    pusher::{OTHER, PusherClient, PusherMessage},
    until,
    websocket::Close,
    within,
};

/// Sockets of the user 7 in each dialect: gusher's, Pusher's (signed in) and PushEx' on two slaves, and one of Conveyor that says
/// it is 7.
async fn sockets_of_seven(place: &Dialogue) -> (Client, PusherClient, [PhoenixClient; 2], ConveyorClient) {
    let gusher = place.gusher(0, "7", &["news"]).await;
    let mut pusher = place.pusher(1, &["news"]).await;
    pusher.sign_in_as("7").await;
    let phoenix = [place.phoenix(0, "7", &["news"]).await, place.phoenix(1, "7", &["news"]).await];
    let mut conveyor = place.conveyor(1, "news").await;
    conveyor.say(&json!({ "action": "assoc-user-to-fd-action", "userId": 7 })).await;
    conveyor.is_quiet().await;
    (gusher, pusher, phoenix, conveyor)
}

/// Pushes to users that sockets did not get, since their dialect has no frame for them.
async fn without_frame(place: &Dialogue) -> f64 {
    let name = "wellhead_direct_pushes_without_frame_total";
    match place {
        Dialogue::One(server) => server.metric(name, "").await,
        Dialogue::Cluster(field) => field.slaves[0].metric(name, "").await + field.slaves[1].metric(name, "").await,
    }
}

#[tokio::test]
async fn a_push_to_a_user_reaches_gusher_and_pusher_and_is_counted_for_pushex() {
    for place in Dialogue::all().await {
        let (mut gusher, mut pusher, mut phoenix, mut conveyor) = sockets_of_seven(&place).await;
        let (mut backend, mut api) = (place.master().backend().await, place.api().await);
        assert_eq!(backend.names("/api/demo/online").await, ["7"], "one user, in three dialects");
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["", "7"]);
        backend.push_to_user("demo", "7", r#"{"event":"e","data":1}"#).await;
        api.trigger("#server-to-user-7", "e", "2").await;
        for data in ["1", "2"] {
            assert_eq!(gusher.socket.text().await, format!(r#"{{"event":"e","data":{data}}}"#));
            assert_eq!(pusher.next().await, PusherMessage::event("#server-to-user-7", "e", data));
        }
        until("two for each of PushEx' sockets", 4.0, async || without_frame(&place).await).await;
        for client in &mut phoenix {
            client.beats().await;
        }
        conveyor.is_quiet().await;
        // permissions are those of JWTs: PushEx' clients lose the topic without a word
        backend.accepted("/api/reload/channel/user/demo/7", &[("data", r#"["nothing"]"#)]).await;
        assert!(gusher.socket.text().await.contains("gusher.reloadchannel"));
        until("the others are on it", (2, None), async || place.api().await.counts("news").await).await;
        backend.push("demo", "news", "e", "3").await;
        assert_eq!(pusher.next().await, PusherMessage::event("news", "e", "3"));
        assert_eq!(conveyor.next().await["data"], 3);
        for client in &mut phoenix {
            client.beats().await;
        }
        for client in &mut phoenix {
            assert_eq!(client.join("news").await["response"]["reason"], "unauthorized");
            // a further join ends the one before, of which the client has not been told that it is over
            assert!(client.socket.text().await.contains("phx_close"));
        }
        backend.accepted("/api/add/channel/user/demo/7", &[("data", "news")]).await;
        within("it may join again", async { while phoenix[1].join("news").await["status"] != "ok" {} }).await;
    }
}

#[tokio::test]
async fn the_end_of_a_user_is_that_of_all_its_sockets_in_every_dialect() {
    let away = |code| Close { code, reason: "disconnected by the app".to_owned() };
    let back = || Close { code: 1001, reason: "disconnected by the app, please reconnect".to_owned() };
    for place in Dialogue::all().await {
        let master = place.master().master();
        let end = async |what: String| {
            let reply = Http::to(master).await.call("DELETE", &format!("/v1/apps/demo/{what}"), &[], "").await;
            assert_eq!(reply.is(), (200, "{}"), "{what}");
        };
        for reconnect in [false, true] {
            let (mut gusher, mut pusher, phoenix, mut conveyor) = sockets_of_seven(&place).await;
            end(format!("users/7/connections?reconnect={reconnect}")).await;
            assert_eq!(gusher.closed().await, if reconnect { back() } else { away(1008) });
            assert_eq!(pusher.error().await.0, Some(if reconnect { 4200 } else { 4009 }));
            for mut client in phoenix {
                assert_eq!(client.closed().await, if reconnect { back() } else { away(1000) });
            }
            // who only says that it is 7 stays, and is named by its fd
            conveyor.is_quiet().await;
            let mut other = place.conveyor(1, "news").await;
            end(format!("sockets/{}?reconnect={reconnect}", conveyor.fd)).await;
            assert_eq!(conveyor.socket.closed().await, if reconnect { back() } else { away(1008) });
            other.is_quiet().await;
        }
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
        for (data, json) in PAYLOADS {
            api.trigger(channel, "e", data).await;
            for client in &mut gusher {
                assert_eq!(client.socket.text().await, format!(r#"{{"event":"e","data":{json}}}"#), "{data}");
            }
            for client in &mut pusher {
                assert_eq!(client.next().await, PusherMessage::event(channel, "e", data), "{data}");
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
        until("ann has gone", vec!["bob".to_owned(), "eve".to_owned()], async || {
            place.master().backend().await.names("/api/demo/online").await
        })
        .await;
    }
}
