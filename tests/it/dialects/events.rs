//! What is published in one dialect and received in the others: the payload table, batches and patterns, clients, order.

use serde_json::json;

use super::{ALL_APIS, AllBackends, ChannelListeners, Dialogue, PAYLOADS, PushApi, SharedEvent};
use crate::support::{client::ReceivedEvent, pusher::PusherMessage};

#[tokio::test]
async fn what_one_publishes_all_receive() {
    for place in Dialogue::all().await {
        let (mut backends, mut listeners) = (AllBackends::of(&place).await, ChannelListeners::on(&place, "news").await);
        for (data, json) in PAYLOADS {
            for by in ALL_APIS {
                backends.push(by, "news", data, json).await;
                listeners.all_receive(&SharedEvent::of(by, data, json)).await;
            }
        }
        // an empty text is nothing to gusher's API and no message to Conveyor's, and a text to Pusher's
        backends.push(PushApi::Pusher, "news", "", r#""""#).await;
        listeners.all_receive(&SharedEvent::of(PushApi::Pusher, "", r#""""#)).await;
        listeners.are_quiet().await;
    }
}

#[tokio::test]
async fn every_dialect_receives_in_the_order_in_which_any_api_has_accepted() {
    for place in Dialogue::all().await {
        let (mut backends, mut listeners) = (AllBackends::of(&place).await, ChannelListeners::on(&place, "news").await);
        let pushes: Vec<_> = (1..=40).flat_map(|number| ALL_APIS.map(|by| (by, number.to_string()))).collect();
        for (by, number) in &pushes {
            backends.push(*by, "news", number, number).await;
        }
        for (by, number) in &pushes {
            listeners.all_receive(&SharedEvent::of(*by, number, number)).await;
        }
    }
}

#[tokio::test]
async fn a_pattern_a_batch_and_a_list_reach_the_channels_of_all() {
    for place in Dialogue::all().await {
        let mut gusher = place.gusher(0, "ann", &["a1"]).await;
        let mut pusher = place.pusher(1, &["a2"]).await;
        let mut phoenix = place.phoenix(0, "pia", &["a3"]).await;
        let mut conveyor = place.conveyor(1, "a4").await;
        let mut backends = AllBackends::of(&place).await;
        for turn in 0..4 {
            let data = turn.to_string();
            let channels = ["a1", "a2", "a3", "a4"];
            let all = |name: &str| channels.map(|channel| json!({ "channel": channel, name: "e", "data": data }));
            match turn {
                // each channel counts once
                0 => assert_eq!(backends.gusher.push_matching("demo", "a[0-9]", "e", "0").await, 4),
                1 => {
                    let batch = json!(all("event")).to_string();
                    drop(backends.gusher.accepted("/api/push_batch/demo", &[("batch_data", &batch)]).await);
                }
                2 => assert_eq!(
                    backends.pusher.post("/batch_events", &json!({ "batch": all("name") })).await.status,
                    200
                ),
                _ => {
                    let body = json!({ "channel": channels, "event": "e", "data": turn }).to_string();
                    assert_eq!(backends.pushex.json("POST", "/api/push", &body).await.status, 200);
                }
            }
            // the strings of a JSON batch are JSON strings
            let json = if turn == 1 { format!("\"{data}\"") } else { data.clone() };
            assert_eq!(gusher.next_event().await, ReceivedEvent::new("a1", "e", &json));
            assert_eq!(pusher.next().await, PusherMessage::event("a2", "e", json.clone()));
            assert_eq!(phoenix.next_push().await.payload, format!(r#"{{"data":{json},"event":"e"}}"#));
            let said = conveyor.next().await;
            let text = turn == 1 || turn == 2;
            assert_eq!(said["data"], if text { json!(data) } else { json!(turn) }, "{turn}");
        }
    }
}

#[tokio::test]
async fn what_a_client_says_all_receive() {
    for place in Dialogue::all().await {
        let mut listeners = ChannelListeners::on(&place, "private-desk").await;
        for data in [json!({ "x": 1 }), json!("text"), json!("{\"x\":1}"), json!(null), json!([1])] {
            // Pusher's client events reach all but the sender
            listeners.pusher[1].whisper("private-desk", "client-e", &data).await;
            listeners.others_receive(&SharedEvent::said("client-e", &data), Some(1), None).await;
            if data.is_null() {
                continue;
            }
            // Conveyor's broadcasts reach all, and Pusher's clients get the data of an event as text
            let speaker = &mut listeners.conveyor[0];
            let fd = speaker.fd;
            speaker.say(&json!({ "action": "broadcast-action", "data": data })).await;
            let pusher = data.as_str().map_or_else(|| data.to_string(), ToOwned::to_owned).into();
            let expected = SharedEvent { pusher, ..SharedEvent::said("message", &data) };
            listeners.others_receive(&expected, None, Some(fd)).await;
        }
        // what Conveyor's clients say to all of theirs is no event of a channel
        listeners.conveyor[1].say(&json!({ "action": "fanout-action", "data": "all", "auth": super::TOKEN })).await;
        for client in &mut listeners.conveyor {
            assert_eq!(client.next().await["action"], "fanout-action");
        }
        listeners.are_quiet().await;
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
