use std::sync::Arc;

use super::*;
use crate::{
    dialect::pusher::apps::tests::app,
    event::{Event, Payload, Sender},
    ids::ChannelKey,
    ids::{NodeId, SocketId},
};

fn channel(name: &str) -> ChannelKey {
    ChannelKey { app: "wh-key".parse().unwrap(), name: name.parse().unwrap() }
}

/// pusher.md §1.13.
#[test]
fn a_body_and_its_signature_are_what_pushers_libraries_verify() {
    let body = body(&[WebhookEvent::ChannelOccupied(channel("room-1"))], Duration::from_millis(1_700_000_000_000));
    assert_eq!(body, r#"{"time_ms":1700000000000,"events":[{"name":"channel_occupied","channel":"room-1"}]}"#);
    assert_eq!(app().sign(body.as_bytes()), "163c4f520556dadecc237b64e7a33e49486e631b63d2008d2ccb7237cfdfc369");
}

#[test]
fn every_event_has_its_fields_and_data_is_a_string() {
    let user = || "7\"".parse().unwrap();
    let socket = SocketId::new(NodeId::from_random(11), 22);
    let event = |data, sender| Event { name: "client-\"x\"".parse().unwrap(), data, sender: Some(sender) };
    let said = |data, sender| WebhookEvent::ClientEvent(channel("presence-a"), socket, event(data, sender));
    let events = [
        WebhookEvent::ChannelVacated(channel("a\"b")),
        WebhookEvent::MemberAdded(channel("presence-a"), user()),
        WebhookEvent::MemberRemoved(channel("presence-a"), user()),
        said(Payload::Json(r#"{"n": 1}"#.into()), Sender::Member(user())),
        said(Payload::Text("hi".into()), Sender::Socket),
        said(Payload::Absent, Sender::Socket),
        WebhookEvent::SubscriptionCount(channel("a"), 7),
    ];
    let sent: serde_json::Value = serde_json::from_str(&body(&events, Duration::from_millis(5))).unwrap();
    let shown = format!("{socket}");
    let wanted = serde_json::json!({ "time_ms": 5, "events": [
        { "name": "channel_vacated", "channel": "a\"b" },
        { "name": "member_added", "channel": "presence-a", "user_id": "7\"" },
        { "name": "member_removed", "channel": "presence-a", "user_id": "7\"" },
        { "name": "client_event", "channel": "presence-a", "event": "client-\"x\"", "data": "{\"n\": 1}",
          "socket_id": shown, "user_id": "7\"" },
        { "name": "client_event", "channel": "presence-a", "event": "client-\"x\"", "data": "hi", "socket_id": shown },
        { "name": "client_event", "channel": "presence-a", "event": "client-\"x\"", "data": "", "socket_id": shown },
        { "name": "subscription_count", "channel": "a", "subscription_count": 7 },
    ]});
    assert_eq!(sent, wanted);
}

#[test]
fn a_target_wants_its_kinds_of_events_on_its_channels() {
    let webhook = Webhook {
        place: String::new(),
        target: HttpTarget::new("http://example.com/").unwrap(),
        events: vec![WebhookKind::MemberAdded, WebhookKind::ChannelOccupied],
        channels: vec!["presence-*".try_into().unwrap(), "news".try_into().unwrap()],
    };
    let wants = |kind, name: &str| webhook.wants(kind, &name.parse().unwrap());
    assert!(wants(WebhookKind::MemberAdded, "presence-a") && wants(WebhookKind::ChannelOccupied, "news"));
    assert!(!wants(WebhookKind::MemberAdded, "news-2") && !wants(WebhookKind::MemberRemoved, "presence-a"));
}

#[test]
fn what_of_a_target_nodes_compare_is_all_of_it() {
    let base = Webhook {
        place: "apps.listed.0.webhooks.0".to_owned(),
        target: HttpTarget::new("http://example.com/").unwrap(),
        events: vec![WebhookKind::MemberAdded],
        channels: vec![ChannelPattern::everything()],
    };
    assert_eq!(alike(&[]), None);
    let of = |webhook: Webhook| alike(&[Arc::new(webhook)]);
    assert_eq!(of(base.clone()), of(Webhook { place: "apps.listed.1.webhooks.0".to_owned(), ..base.clone() }));
    for other in [
        Webhook { target: HttpTarget::new("http://example.com/x").unwrap(), ..base.clone() },
        Webhook { target: base.target.clone().with_header("X-Token: hush").unwrap(), ..base.clone() },
        Webhook { events: vec![WebhookKind::MemberRemoved], ..base.clone() },
        Webhook { channels: Vec::new(), ..base.clone() },
    ] {
        assert_ne!(of(other), of(base.clone()));
    }
}
