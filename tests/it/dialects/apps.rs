//! Who may subscribe where, and apps, which are apart.

use serde_json::json;

use super::Dialogue;
use crate::support::{
    client::{Client, ReceivedEvent},
    conveyor::{ConveyorBackend, ConveyorClient, TOKEN},
    http::Http,
    keys::signer,
    phoenix::PhoenixClient,
    pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage},
};

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

#[tokio::test]
async fn pushex_goes_by_the_token_and_what_is_public_and_conveyor_by_its_token() {
    for place in Dialogue::all().await {
        let token = signer().jwt("demo", "ann", &["private-*", "presence-room"]);
        let mut ann = PhoenixClient::connect(place.slave(0).slave(), 2, &token).await;
        for (channel, status) in [
            ("private-desk", "ok"),
            ("presence-room", "ok"),
            ("open", "ok"),
            ("presence-other", "error"),
            ("news", "error"),
        ] {
            assert_eq!(ann.join(channel).await["status"], status, "{channel}");
        }
        // without a token: what is public
        let mut nobody = PhoenixClient::connect(place.slave(1).slave(), 1, "").await;
        for (channel, status) in [("open", "ok"), ("private-desk", "error"), ("news", "error")] {
            assert_eq!(nobody.join(channel).await["status"], status, "{channel}");
        }
        // the server token opens any channel, and a temporary one its own
        let mut kim = place.conveyor(0, "private-desk").await;
        let minted = ConveyorBackend::of(place.master().master()).await.mint(Some("open")).await;
        let mut guest = ConveyorClient::open(place.slave(1).slave(), &minted).await.expect("a handshake");
        for channel in ["private-desk", "presence-room"] {
            guest.wish(channel, &minted).await;
            assert_eq!(guest.error("channel-connect").await, "Failed to connect to channel", "{channel}");
        }
        guest.join("open", &minted).await;
        // no credentials of the one serve the other
        let jwt = signer().jwt("demo", "ann", &["*"]);
        assert_eq!(ConveyorClient::open(place.slave(0).slave(), &jwt).await.err().map(|reply| reply.status), Some(401));
        assert!(
            PhoenixClient::try_connect(place.slave(0).slave(), 2, TOKEN).await.is_err_and(|reply| reply.status == 403)
        );
        // and what is said where all are, all receive
        let mut api = place.api().await;
        api.trigger("private-desk", "e", "1").await;
        assert_eq!(ann.next_push().await.payload, r#"{"data":1,"event":"e"}"#);
        assert_eq!(kim.next().await["data"], "1");
        api.trigger("open", "e", "2").await;
        for client in [&mut ann, &mut nobody] {
            assert_eq!(client.next_push().await.payload, r#"{"data":2,"event":"e"}"#);
        }
        assert_eq!(guest.next().await["data"], "2");
    }
}

#[tokio::test]
async fn other_apps_hear_nothing_of_pushex_and_conveyor_and_these_nothing_of_them() {
    for place in Dialogue::all().await {
        let mut strangers = place.gusher_of("other", 0, "ann", &["news"]).await;
        let mut other = PusherClient::connect(place.slave(1).slave(), OTHER).await.subscribed("news").await;
        let token = signer().jwt("other", "pia", &["*"]);
        let mut foreign = PhoenixClient::connect(place.slave(1).slave(), 2, &token).await.joined("news").await;
        let mut phoenix = place.phoenix(0, "pia", &["news"]).await;
        let mut conveyor = place.conveyor(1, "news").await;
        // both push to the app that the settings name
        let master = place.master().master();
        let body = r#"{"channel":"news","event":"e","data":1}"#;
        assert_eq!(Http::to(master).await.json("POST", "/api/push", body).await.status, 200);
        ConveyorBackend::of(master).await.send("news", "2").await;
        place.master().backend().await.push("other", "news", "e", "3").await;
        for (data, event) in [("1", "e"), ("2", "message")] {
            assert_eq!(phoenix.next_push().await.payload, format!(r#"{{"data":{data},"event":"{event}"}}"#));
        }
        assert_eq!(
            (conveyor.next().await["data"].clone(), conveyor.next().await["data"].clone()),
            (json!(1), json!("2"))
        );
        assert_eq!(foreign.next_push().await.payload, r#"{"data":3,"event":"e"}"#);
        assert_eq!(other.next().await, PusherMessage::event("news", "e", "3"));
        assert_eq!(strangers.next_event().await, ReceivedEvent::new("news", "e", "3"));
        phoenix.beats().await;
        conveyor.is_quiet().await;
    }
}
