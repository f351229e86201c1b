//! What the hostile send: it gets a clear error, keeps its socket where the protocol keeps it, and nobody else notices.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    member::{PresenceClient, users},
    pusher::{Api, DEMO, PusherClient, PusherMessage, channel_data, joined, setup},
    random::Random,
    server::Server,
    until,
    websocket::{BINARY, CONTINUATION, TEXT, frame, header, raw},
    within,
};

/// Somebody who listens, and whom nothing may disturb.
async fn bystander(server: &Server) -> (PusherClient, Api) {
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    bob.join("presence-room", "bob").await;
    (bob, Api::of(server, DEMO).await)
}

async fn is_untouched((bob, api): &mut (PusherClient, Api)) {
    api.trigger("news", "e", "still here").await;
    assert_eq!(bob.next().await, PusherMessage::event("news", "e", "still here"));
}

#[tokio::test]
async fn a_wish_of_the_wrong_types_is_told_to_its_channel_too() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("mine").await;
    for channel in ["mine", "private-a", "presence-a"] {
        for rest in [r#""auth":7"#, r#""auth":{"x":1}"#, r#""auth":"a","channel_data":{"user_id":"7"}"#] {
            let wish = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}",{rest}}}}}"#);
            ann.socket.send_text(&wish).await;
            assert_eq!(ann.barred(channel).await.0, 400, "{wish}");
        }
    }
    ann.is_quiet().await;
}

#[tokio::test]
async fn a_frame_that_makes_no_sense_is_told_so_and_the_socket_stays() {
    let server = setup().start().await;
    let mut other = bystander(&server).await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("mine").await;
    let nested = format!(r#"{{"event":"pusher:subscribe","data":{}}}"#, "[".repeat(60_000));
    let deep =
        format!(r#"{{"event":"client-e","channel":"private-a","data":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for text in [
        "",
        " ",
        "hello",
        "{",
        "[]",
        "null",
        "7",
        "\"pusher:ping\"",
        "{}",
        r#"{"data":{}}"#,
        r#"{"event":null}"#,
        r#"{"event":7,"data":{}}"#,
        r#"{"event":"pusher:ping","data":{}}{"#,
        r#"{"event":"pusher:ping","event":"pusher:ping"}"#,
        r#"{"event":"pusher:subscribe"}"#,
        r#"{"event":"pusher:subscribe","data":null}"#,
        r#"{"event":"pusher:subscribe","data":{}}"#,
        r#"{"event":"pusher:subscribe","data":[]}"#,
        r#"{"event":"pusher:subscribe","data":7}"#,
        r#"{"event":"pusher:subscribe","data":"news"}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":["a"]}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"\ud800"}}"#,
        r#"{"event":"pusher:unsubscribe"}"#,
        r#"{"event":"pusher:unsubscribe","data":{"channel":7}}"#,
        r#"{"event":"client-e"}"#,
        r#"{"event":"client-e","channel":7}"#,
        r#"{"event":"client-e","channel":null,"data":1}"#,
        r#"{"event":"","data":{}}"#,
        r#"{"event":"pusher_internal:subscription_succeeded","channel":"mine","data":"{}"}"#,
        r#"{"event":"pusher:error","data":{"code":4001}}"#,
        &nested,
        &deep,
    ] {
        ann.socket.send_text(text).await;
        let (code, words) = ann.error().await;
        assert_eq!(code, None, "{text}");
        assert!(!words.is_empty() && words.len() < 70_000, "{text}: {words}");
        ann.is_quiet().await;
    }
    is_untouched(&mut other).await;
    // it is as good as ever
    other.1.trigger("mine", "e", "1").await;
    assert_eq!(ann.next().await, PusherMessage::event("mine", "e", "1"));
}

#[tokio::test]
async fn a_frame_that_breaks_the_protocol_ends_its_socket_only() {
    let server = setup().start().await;
    let mut other = bystander(&server).await;
    let ping = br#"{"event":"pusher:ping","data":{}}"#;
    for (what, bytes, code) in [
        ("binary", frame(BINARY, ping), 1003),
        ("unmasked", [header(0x81, false, ping.len() as u64), ping.to_vec()].concat(), 1002),
        ("a reserved bit", raw(0xC1, ping), 1002),
        ("a reserved opcode", frame(0x3, b""), 1002),
        ("a continuation of nothing", frame(CONTINUATION, ping), 1002),
        ("bad UTF-8", frame(TEXT, b"{\"event\":\"\xff\"}"), 1007),
        ("a message over the limit", frame(TEXT, &vec![b' '; (64 << 10) + 1]), 1009),
        ("a length of 2^40", [header(0x81, true, 1 << 40), vec![0; 4]].concat(), 1009),
    ] {
        let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("mine").await;
        // the server may stop reading before all is sent
        let _ = ann.socket.send_bytes(&bytes).await;
        assert_eq!(ann.closed().await.code, code, "{what}");
    }
    is_untouched(&mut other).await;
}

#[tokio::test]
async fn ten_thousand_subscriptions_of_one_socket_end_at_its_limit() {
    let server = setup().start().await;
    let mut other = bystander(&server).await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    for n in 0..10_000 {
        let channel = format!("c{n}");
        ann.wish(&channel, None).await;
        if n < 1_000 {
            assert_eq!(
                ann.next().await,
                PusherMessage::event(&channel, "pusher_internal:subscription_succeeded", "{}")
            );
        } else {
            let (status, words) = ann.barred(&channel).await;
            assert_eq!((status, words.contains("1000")), (403, true), "{words}");
        }
    }
    // room for one more
    ann.unsubscribe("c7").await;
    ann.subscribe("c9999").await;
    other.1.trigger("c9999", "e", "1").await;
    assert_eq!(ann.next().await, PusherMessage::event("c9999", "e", "1"));
    let reply = other.1.ask("/channels", &[("filter_by_prefix", "c")]).await;
    assert_eq!(reply["channels"].as_object().map(serde_json::Map::len), Some(1_000));
    is_untouched(&mut other).await;
    ann.socket.leave().await;
    until("all of it is given back", 0, || async {
        let reply = Api::of(&server, DEMO).await.ask("/channels", &[("filter_by_prefix", "c")]).await;
        reply["channels"].as_object().map_or(usize::MAX, serde_json::Map::len)
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_subscriptions_are_possible_where_they_are_allowed() {
    let server = setup().set("limits.subscriptions", "10000").start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    for n in 0..10_000 {
        ann.subscribe(&format!("c{n}")).await;
    }
    let mut api = Api::of(&server, DEMO).await;
    for n in (0..10_000).step_by(997) {
        let channel = format!("c{n}");
        api.trigger(&channel, "e", "1").await;
        assert_eq!(ann.next().await, PusherMessage::event(&channel, "e", "1"));
    }
}

#[tokio::test]
async fn who_floods_without_reading_is_slowed_down_or_sent_off_and_memory_stays() {
    let server = setup().start().await;
    let mut other = bystander(&server).await;
    let before = server.resident();
    let mut floods = Vec::new();
    for kind in ["pusher:ping", "pusher:subscribe", "nonsense", "client-e"] {
        let mut one = PusherClient::connect(server.slave(), DEMO).await;
        floods.push(tokio::spawn(async move {
            for n in 0..40_000_u32 {
                let data =
                    json!({ "channel": format!("presence-{n}"), "auth": "demo:x", "channel_data": "y".repeat(500) });
                let text = json!({ "event": kind, "channel": "private-a", "data": data }).to_string();
                let sent = one.socket.try_send(TEXT, text.as_bytes());
                // as much as it takes: then the server reads no more of it, or has closed it
                if !matches!(tokio::time::timeout(Duration::from_millis(500), sent).await, Ok(Ok(()))) {
                    return (kind, n, one);
                }
            }
            (kind, 40_000, one)
        }));
    }
    let mut kept = Vec::new();
    for flood in floods {
        is_untouched(&mut other).await;
        let (kind, n, one) = within("the flood ends", flood).await.expect("it does not panic");
        eprintln!("{kind}: {n} taken");
        kept.push(one);
    }
    is_untouched(&mut other).await;
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{} KiB more", grown >> 10);
}

#[tokio::test]
async fn a_flood_of_client_events_is_one_apps_own_trouble() {
    let server = setup().start().await;
    let mut other = bystander(&server).await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    let mut eve = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    let (mut refused, began) = (0_u64, std::time::Instant::now());
    for n in 0..5_000 {
        ann.whisper("private-desk", "client-e", &json!(n)).await;
        if n % 50 == 49 {
            ann.say("pusher:ping", &json!({})).await;
            loop {
                let said = ann.next().await;
                if said.event == "pusher:pong" {
                    break;
                }
                assert_eq!(said.data["code"], 4301, "{said:?}");
                refused += 1;
            }
            is_untouched(&mut other).await;
        }
    }
    let delivered = 5_000 - refused;
    let seconds = began.elapsed().as_secs_f64();
    assert!(delivered >= 10 && delivered as f64 <= 10.0 * seconds + 11.0, "{delivered} in {seconds} s");
    let mut last = None;
    for _ in 0..delivered {
        let said = eve.next().await;
        assert_eq!(said.event, "client-e");
        assert!(last < said.data.as_u64(), "in order");
        last = said.data.as_u64();
    }
    eve.is_quiet().await;
}

#[tokio::test]
async fn a_flood_of_members_leaves_every_list_right() {
    let server = setup().start().await;
    let mut other = bystander(&server).await;
    let join = async |user| {
        PresenceClient::join(PusherClient::connect(server.slave(), DEMO).await, "presence-flood", user).await
    };
    let mut watchers = [join("watcher-0").await, join("watcher-1").await];
    for watcher in &mut watchers {
        watcher.sees(&users(["watcher-0", "watcher-1"])).await;
    }
    let mut flooders = Vec::new();
    for user in ["ann", "eve"] {
        let mut one = PusherClient::connect(server.slave(), DEMO).await;
        flooders.push(tokio::spawn(async move {
            for _ in 0..500 {
                one.wish("presence-flood", Some(&channel_data(user))).await;
                // the other's comings and goings are in between
                let members = loop {
                    let said = one.next().await;
                    if said.event == "pusher_internal:subscription_succeeded" {
                        break joined(&said, "presence-flood");
                    }
                };
                let sees = |user: &str| members.iter().any(|other| other == user);
                assert!(sees(user) && sees("watcher-0") && sees("watcher-1"), "{members:?}");
                one.unsubscribe("presence-flood").await;
            }
            one.say("pusher:ping", &json!({})).await;
            while one.next().await.event != "pusher:pong" {}
        }));
    }
    for flooder in flooders {
        is_untouched(&mut other).await;
        within("the flood ends", flooder).await.expect("it does not panic");
    }
    let gone = vec!["watcher-0".to_owned(), "watcher-1".to_owned()];
    until("they are gone", gone, || async { Api::of(&server, DEMO).await.users("presence-flood").await }).await;
    // one more, so that everything before has been told
    let mut last = join("zoe").await;
    let all = users(["watcher-0", "watcher-1", "zoe"]);
    for member in watchers.iter_mut().chain([&mut last]) {
        member.sees(&all).await;
        member.is_quiet().await;
    }
    is_untouched(&mut other).await;
}

#[tokio::test]
async fn noise_never_harms_the_others() {
    let server = setup().start().await;
    let mut other = bystander(&server).await;
    let mut random = Random::new(7);
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    let id = ann.id.clone();
    let data = channel_data("ann");
    let auth = DEMO.auth(&id, "presence-a", Some(&data));
    let wish = json!({ "channel": "presence-a", "auth": auth, "channel_data": data });
    let good = json!({ "event": "pusher:subscribe", "data": wish }).to_string();
    for round in 0..2_000 {
        // a right frame with a few bytes changed, cut or doubled; text stays UTF-8
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len());
            match random.below(4) {
                0 => drop(text.remove(at)),
                1 => text.truncate(at.max(1)),
                2 => text.insert(at, char::from(random.below(128) as u8)),
                _ => text[at] = ['"', '{', '}', '\\', ':', 'ä', '\0', '7'][random.below(8)],
            }
        }
        ann.socket.send_text(&text.into_iter().collect::<String>()).await;
        if round % 100 == 0 {
            is_untouched(&mut other).await;
        }
        // whatever it was: it is answered, and the socket stays
        ann.say("pusher:ping", &json!({})).await;
        loop {
            let said = ann.next().await;
            if said.event == "pusher:pong" {
                break;
            }
        }
    }
    is_untouched(&mut other).await;
}
