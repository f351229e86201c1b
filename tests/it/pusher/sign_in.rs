//! Signing in, the channels of users, and pushes to them (pusher.md §2.9, §1.9).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    cluster::field::{By, Field},
    support::{
        pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage, joined, setup},
        quoted,
        server::Setup,
    },
};

fn to(user: &str) -> String {
    format!("#server-to-user-{user}")
}

#[tokio::test]
async fn a_user_is_sent_events_on_every_socket_that_has_signed_in_and_on_no_other() {
    let listed = format!("{}{}", DEMO.listed(""), OTHER.listed(""));
    for (slaves, field) in [
        (1, Field::start_with(By::Nats, 1, 1, |setup| setup.toml(&listed)).await),
        (2, Field::start_with(By::Nats, 1, 2, |setup| setup.toml(&listed)).await),
    ] {
        let slave = |number: usize| field.slaves[number % slaves].slave();
        let mut api = Api::of(&field.masters[0], DEMO).await;
        let mut anns = [PusherClient::connect(slave(0), DEMO).await, PusherClient::connect(slave(1), DEMO).await];
        let mut bob = PusherClient::connect(slave(1), DEMO).await;
        let mut nobody = PusherClient::connect(slave(0), DEMO).await;
        let mut stranger = PusherClient::connect(slave(0), OTHER).await;
        // nobody is there: that is no error
        api.trigger(&to("nobody"), "e", "early").await;
        for (client, user) in anns.iter_mut().map(|ann| (ann, "ann")).chain([(&mut bob, "bob"), (&mut stranger, "ann")])
        {
            client.sign_in_as(user).await;
        }
        // from sign-in on, whether a client subscribes or not; the very same string
        anns[0].enter_own_channel("ann").await;
        for data in ["{\"n\": 1.0}", "plain", "", "7"] {
            api.trigger(&to("ann"), "App\\Events\\X", data).await;
            for ann in &mut anns {
                assert_eq!(ann.next().await, PusherMessage::event(&to("ann"), "App\\Events\\X", data));
            }
        }
        // one that is left out, several addressees, and a batch, in order
        let id = anns[1].id.clone();
        let body = json!({ "name": "e", "channels": [to("ann"), to("bob"), "news", to("ann")], "data": "1", "socket_id": id,
                           "info": "subscription_count,user_count" });
        let reply = api.post("/events", &body).await;
        let counts = json!({ "channels": { to("ann"): {}, to("bob"): {}, "news": { "subscription_count": 0 } } });
        assert_eq!((reply.status, reply.json()), (200, counts));
        let batch: Vec<_> =
            (0..5).map(|n| json!({ "name": "b", "channel": to("ann"), "data": n.to_string() })).collect();
        assert_eq!(api.post("/batch_events", &json!({ "batch": batch })).await.is(), (200, "{}"));
        assert_eq!(anns[0].next().await, PusherMessage::event(&to("ann"), "e", "1"));
        assert_eq!(bob.next().await, PusherMessage::event(&to("bob"), "e", "1"));
        for ann in &mut anns {
            for n in 0..5 {
                assert_eq!(ann.next().await, PusherMessage::event(&to("ann"), "b", n.to_string()));
            }
        }
        // such channels are none: they are not listed, and leaving one ends nothing
        assert_eq!(api.ask("/channels", &[]).await, json!({ "channels": {} }));
        anns[0].unsubscribe(&to("ann")).await;
        api.trigger(&to("ann"), "e", "still").await;
        for ann in &mut anns {
            assert_eq!(ann.next().await, PusherMessage::event(&to("ann"), "e", "still"));
            ann.is_quiet().await;
        }
        for client in [&mut bob, &mut nobody, &mut stranger] {
            client.is_quiet().await;
        }
        // who has gone is sent nothing, and who comes back signs in anew
        let [first, second] = anns;
        drop(second);
        let mut first = first;
        let mut again = PusherClient::connect(slave(1), DEMO).await;
        api.trigger(&to("ann"), "e", "one").await;
        assert_eq!(first.next().await.data, "one");
        // by then the other's slave has it behind it, too
        api.trigger(&to("bob"), "e", "passed").await;
        assert_eq!(bob.next().await.data, "passed");
        again.is_quiet().await;
        again.sign_in_as("ann").await;
        api.trigger(&to("ann"), "e", "two").await;
        assert_eq!((first.next().await.data, again.next().await.data), (json!("two"), json!("two")));
    }
}

#[tokio::test]
async fn a_socket_has_one_user_and_that_users_channel_alone() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    // before it has signed in, and for others ever
    for user in ["ann", "bob", ""] {
        ann.wish(&to(user), None).await;
        let (status, words) = ann.barred(&to(user)).await;
        assert!(status == 401 && words.contains("signed in"), "{words}");
    }
    for data in [
        r#"{"id":"ann"}"#,
        r#"{"id": "ann"}"#,
        r#"{"more":[1,{}],"user_info":{"name":"Ann"},"id":"ann","watchlist":7}"#,
    ] {
        ann.sign_in(data).await;
        assert_eq!(ann.next().await, PusherMessage::signed_in(data), "the same user, as often as it likes");
    }
    ann.enter_own_channel("ann").await;
    ann.wish(&to("ann"), None).await;
    assert_eq!(ann.error().await, (None, format!("Existing subscription to channel {}", to("ann"))));
    ann.sign_in(r#"{"id":"bob"}"#).await;
    let (code, words) = ann.error().await;
    assert!(code == Some(4009) && words.contains("another user"), "{words}");
    ann.wish(&to("bob"), None).await;
    assert_eq!(ann.barred(&to("bob")).await.0, 401);
    ann.unsubscribe(&to("ann")).await;
    ann.unsubscribe(&to("ann")).await;
    assert!(ann.error().await.1.starts_with("No current subscription to channel"));
    ann.whisper(&to("ann"), "client-e", &json!(1)).await;
    assert!(ann.error().await.1.contains("only supported on private and presence channels"));
    let mut api = Api::of(&server, DEMO).await;
    for (user, hears) in [("bob", false), ("ann", true)] {
        api.trigger(&to(user), "e", user).await;
        if hears {
            assert_eq!(ann.next().await, PusherMessage::event(&to("ann"), "e", "ann"));
        }
        ann.is_quiet().await;
    }
    // no channel, and so no state of one
    assert_eq!(api.get(&format!("/channels/{}", crate::support::encoded(&to("ann"))), &[]).await.status, 400);
}

#[tokio::test]
async fn who_has_signed_in_is_a_member_without_saying_so_again() {
    let listed = DEMO.listed("");
    let field = Field::start_with(By::Nats, 1, 2, |setup| setup.toml(&listed)).await;
    let mut api = Api::of(&field.masters[0], DEMO).await;
    let mut watcher = PusherClient::connect(field.slaves[1].slave(), DEMO).await;
    assert_eq!(watcher.join("presence-room", "watcher").await, ["watcher"]);
    let mut ann = PusherClient::connect(field.slaves[0].slave(), DEMO).await;
    ann.wish("presence-room", None).await;
    let (status, words) = ann.barred("presence-room").await;
    assert!(status == 400 && words.contains("channel_data is missing"), "{words}");
    ann.sign_in(r#"{"id":"ann","user_info":{"name": "Ann"}}"#).await;
    assert_eq!(ann.next().await.event, "pusher:signin_success");
    ann.wish("presence-room", None).await;
    let said = ann.next().await;
    assert_eq!(joined(&said, "presence-room"), ["ann", "watcher"]);
    let told = watcher.next().await;
    assert_eq!((told.event.as_str(), told.inner()["user_id"].clone()), ("pusher_internal:member_added", json!("ann")));
    assert!(told.data.as_str().expect("text").contains(r#""user_info":{"name": "Ann"}"#), "{told:?}");
    // what the client says of itself there counts there
    assert_eq!(ann.join("presence-masked", "somebody").await, ["somebody"]);
    assert_eq!(
        (api.users("presence-room").await, api.users("presence-masked").await),
        (vec!["ann".into(), "watcher".into()], vec!["somebody".into()])
    );
    // without user_info others see an empty object
    let mut bob = PusherClient::connect(field.slaves[1].slave(), DEMO).await;
    bob.sign_in_as("bob").await;
    bob.wish("presence-room", None).await;
    assert_eq!(bob.next().await.inner()["presence"]["hash"]["bob"], json!({}));
}

#[tokio::test]
async fn a_sign_in_that_proves_nothing_is_refused_and_the_socket_stays() {
    let server = setup().start().await;
    let mut other = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    other.sign_in_as("7").await;
    let mut api = Api::of(&server, DEMO).await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    let good = r#"{"id":"7"}"#;
    let of = |text: &str| format!("{}:{}", DEMO.key, DEMO.sign(text));
    let signed = |socket: &str, data: &str| of(&format!("{socket}::user::{data}"));
    let right = signed(&ann.id, good);
    for auth in [
        String::new(),
        "demo".to_owned(),
        "demo:".to_owned(),
        right[5..].to_owned(),
        format!("other:{}", &right[5..]),
        format!("demo:{}", right[5..].to_uppercase()),
        right[..right.len() - 1].to_owned(),
        format!("{right}0"),
        signed(&other.id, good),
        signed(&ann.id, r#"{"id": "7"}"#),
        of(&format!("{}:user:{good}", ann.id)),
        of(&format!("{}:{good}", ann.id)),
        OTHER.auth(&ann.id, ":user:", Some(good)),
        format!("demo:{}", "f".repeat(20_000)),
    ] {
        ann.say("pusher:signin", &json!({ "auth": auth, "user_data": good })).await;
        let (code, words) = ann.error().await;
        assert!(code == Some(4009) && words.len() < 9_000, "{auth}: {words}");
        // what the client sent is echoed, and nothing better
        assert!(!words.replace(&auth, "").contains(&right[5..]) || auth.contains(&right[5..]), "{auth}: {words}");
    }
    // signed, and yet no user: ids of other types and lengths, user objects of other types and sizes
    for data in [
        "",
        "{",
        "7",
        "[]",
        "null",
        "\"7\"",
        "{}",
        r#"{"id":7}"#,
        r#"{"id":null}"#,
        r#"{"id":true}"#,
        r#"{"id":["7"]}"#,
        r#"{"id":{"id":"7"}}"#,
        r#"{"id":""}"#,
        r#"{"id":"7","id":"7"}"#,
        r#"{"user_id":"7"}"#,
        r#"{"id":"\ud800"}"#,
        &format!(r#"{{"id":"{}"}}"#, "x".repeat(129)),
        &format!(r#"{{"id":"{}"}}"#, "世".repeat(129)),
        &format!(r#"{{"id":"{}"}}"#, "x".repeat(30_000)),
        r#"{"id":"7","user_info":7}"#,
        r#"{"id":"7","user_info":"Ann"}"#,
        r#"{"id":"7","user_info":[]}"#,
        &format!(r#"{{"id":"7","user_info":{{"a":"{}"}}}}"#, "x".repeat(1_024)),
        &"[".repeat(30_000),
    ] {
        ann.sign_in(data).await;
        let (code, words) = ann.error().await;
        assert!(code == Some(4009) && words.contains("Invalid user"), "{data}: {words}");
    }
    for data in [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!("x"),
        json!({ "auth": right }),
        json!({ "user_data": good }),
        json!({ "auth": [right], "user_data": good }),
        json!({ "auth": right, "user_data": { "id": "7" } }),
    ] {
        ann.say("pusher:signin", &data).await;
        let (code, words) = ann.error().await;
        assert!(code == Some(4009) && words.contains("Invalid data"), "{data}: {words}");
    }
    ann.is_quiet().await;
    // it is nobody, and nobody else was touched
    api.trigger(&to("7"), "e", "1").await;
    ann.is_quiet().await;
    assert_eq!(other.next().await, PusherMessage::event(&to("7"), "e", "1"));
    api.trigger("news", "e", "2").await;
    assert_eq!(other.next().await, PusherMessage::event("news", "e", "2"));
    other.is_quiet().await;
    // as good as ever: the longest ids, any characters, much else in user_data
    let long = "世".repeat(128);
    for (user, more) in [
        ("7", String::new()),
        ("x", format!(r#","watchlist":[{}1],"deep":{}{}"#, "1,".repeat(10_000), "[".repeat(1_000), "]".repeat(1_000))),
        (&long, r#","user_info":{}"#.to_owned()),
        ("a b/#\"\\\n:", String::new()),
    ] {
        let mut client = PusherClient::connect(server.slave(), DEMO).await;
        let data = format!(r#"{{"id":{}{more}}}"#, quoted(user));
        client.sign_in(&data).await;
        assert_eq!(client.next().await, PusherMessage::signed_in(&data), "{user}");
        client.enter_own_channel(user).await;
        api.trigger(&to(user), "e", "3").await;
        assert_eq!(client.next().await, PusherMessage::event(&to(user), "e", "3"));
    }
    assert_eq!(other.next().await.data, "3", "of the first of them, the same user");
    for id in ["", &"x".repeat(129)] {
        let reply = api.post("/events", &json!({ "name": "e", "channel": to(id), "data": "" })).await;
        assert!(reply.status == 400 && reply.text().starts_with("Invalid user id"), "{reply:?}");
    }
}

#[tokio::test]
async fn where_sockets_must_be_authorized_those_that_are_not_are_closed_in_time() {
    let listed = format!(
        "{}{}",
        DEMO.listed("authorized_connections = true\nauthorization_timeout = \"2s\""),
        OTHER.listed("authorization_timeout = \"1s\"")
    );
    let server = Setup::keyed().toml(&listed).start().await;
    let began = Instant::now();
    let mut silent = PusherClient::connect(server.slave(), DEMO).await;
    let mut public = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut forger = PusherClient::connect(server.slave(), DEMO).await;
    forger.say("pusher:signin", &json!({ "auth": "demo:00", "user_data": r#"{"id":"7"}"# })).await;
    assert_eq!(forger.error().await.0, Some(4009), "not yet closed: it may try again");
    forger.say("pusher:subscribe", &json!({ "channel": "private-a", "auth": "demo:00" })).await;
    assert_eq!(forger.barred("private-a").await.0, 401);
    let mut others = [
        PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await,
        PusherClient::connect(server.slave(), DEMO).await,
        PusherClient::connect(server.slave(), DEMO).await,
        PusherClient::connect(server.slave(), OTHER).await,
    ];
    others[0].unsubscribe("private-desk").await;
    others[1].join("presence-room", "7").await;
    others[2].sign_in_as("7").await;
    for client in [&mut silent, &mut public, &mut forger] {
        assert_eq!(client.error().await, (Some(4009), "Connection not authorized within timeout".to_owned()));
        let close = client.closed().await;
        assert_eq!((close.code, close.reason.as_str()), (4009, "Connection not authorized within timeout"));
    }
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    // sockets that were opened last are closed after any of the others would be, on whichever thread it is
    let mut last = Vec::new();
    for _ in 0..4 {
        last.push(PusherClient::connect(server.slave(), DEMO).await);
    }
    for client in &mut last {
        assert_eq!(client.error().await.0, Some(4009));
    }
    for client in &mut others {
        client.is_quiet().await;
    }
}
