//! Who is there: counts, lists and members.

use serde_json::json;

use super::{AllBackends, Dialogue};
use crate::support::{
    conveyor::ConveyorBackend,
    member::{PresenceClient, users},
    until,
};

#[tokio::test]
async fn all_four_are_counted_and_have_the_user_ids_of_their_tokens() {
    for place in Dialogue::all().await {
        let _ann = place.gusher(0, "ann", &["news", "presence-room"]).await;
        let _anonymous = place.pusher(1, &["news"]).await;
        let mut pia = place.phoenix(1, "pia", &["news", "presence-room"]).await;
        let mut bob = place.conveyor(0, "news").await;
        // an id that is not proved is no user's
        bob.say(&json!({ "action": "assoc-user-to-fd-action", "userId": 7 })).await;
        bob.is_quiet().await;
        let mut kim = place.conveyor(1, "presence-room").await;

        let AllBackends { gusher: mut backend, pusher: mut api, conveyor: mut sender, .. } =
            AllBackends::of(&place).await;
        assert_eq!(api.counts("news").await, (4, None));
        assert_eq!(backend.names("/api/demo/channels").await, ["news", "presence-room"]);
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["", "ann", "pia"]);
        assert_eq!(backend.ask("/api/demo/online/bychannel/news/count").await, json!({ "count": 3 }));
        assert_eq!(backend.names("/api/demo/online").await, ["ann", "pia"]);
        assert_eq!(backend.ask("/v1/stats").await, json!({ "apps": 1, "connections": 5, "users": 2 }));
        // members are Pusher's
        assert_eq!(api.counts("presence-room").await, (3, Some(0)));
        let mut member = PresenceClient::join(place.pusher(0, &[]).await, "presence-room", "7").await;
        assert_eq!(api.counts("presence-room").await, (4, Some(1)));
        assert_eq!(api.users("presence-room").await, ["7"]);
        assert_eq!(backend.names("/api/demo/online/bychannel/presence-room").await, ["", "7", "ann", "pia"]);
        member.is_quiet().await;

        // who leaves is not counted, and what one side leaves the others still hold
        pia.leave("news", "\"1\"").await;
        kim.say(&json!({ "action": "channel-disconnect" })).await;
        kim.is_quiet().await;
        assert_eq!((api.counts("news").await, api.counts("presence-room").await), ((3, None), (3, Some(1))));
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["", "ann"]);
        drop(bob);
        until("Conveyor's socket has gone", (2, None), async || place.api().await.counts("news").await).await;

        // a channel is found if a socket of any dialect is on it
        for (channel, status) in [("news", 200), ("presence-room", 200), ("nobody's", 404)] {
            assert_eq!(sender.message(channel, &json!("x")).await.0, status, "{channel}");
        }
        assert_eq!(pia.next_push().await.topic, "presence-room");
        pia.beats().await;
    }
}

#[tokio::test]
async fn a_channel_of_any_dialect_is_found_by_conveyors_callers() {
    for place in Dialogue::all().await {
        let _gusher = place.gusher(0, "ann", &["a"]).await;
        let _pusher = place.pusher(1, &["b"]).await;
        let _phoenix = place.phoenix(1, "", &["c"]).await;
        let mut sender = ConveyorBackend::of(place.master().master()).await;
        for (channel, status) in [("a", 200), ("b", 200), ("c", 200), ("d", 404)] {
            assert_eq!(sender.message(channel, &json!("x")).await.0, status, "{channel}");
        }
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
