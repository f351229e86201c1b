//! Closing the sockets of a user, or one socket, from a backend: Pusher's `terminate_connections`, and the native routes.

use serde_json::json;

use crate::{
    cluster::field::{By, Field},
    support::{
        backend::Backend,
        client::{Client, ReceivedEvent},
        http::{Http, Reply},
        keys::{now, signer},
        pusher::{Api, DEMO, OTHER, PusherClient, TestApp, setup},
        server::{Server, Setup},
        until,
        websocket::Close,
    },
};

async fn terminate(server: &Server, app: TestApp, user: &str) -> Reply {
    let path = format!("/users/{}/terminate_connections", crate::support::encoded(user));
    Api::of(server, app).await.call("POST", &path, &[], "{}").await
}

async fn delete(server: &Server, path: &str) -> Reply {
    Http::to(server.master()).await.call("DELETE", path, &[], "").await
}

fn close(code: u16, reason: &str) -> Close {
    Close { code, reason: reason.to_owned() }
}

/// It is told why, and closed with the same.
async fn pusher_ends(mut client: PusherClient, code: u16, reason: &str) {
    assert_eq!(client.error().await, (Some(code.into()), reason.to_owned()));
    assert_eq!(client.closed().await, close(code, reason));
}

async fn gusher_ends(mut client: Client, code: u16, reason: &str) {
    assert_eq!(client.closed().await, close(code, reason));
}

async fn gusher_stays(client: &mut Client) {
    client.id().await;
}

async fn gusher_on(server: &Server, app: &str, user: &str) -> Client {
    Client::connect(server.slave(), app, &signer().jwt(app, user, &["*"])).await
}

async fn signed_in(server: &Server, app: TestApp, user: &str) -> PusherClient {
    let mut client = PusherClient::connect(server.slave(), app).await;
    client.sign_in_as(user).await;
    client
}

const AWAY: &str = "You got disconnected by the app.";
const BACK: &str = "You got disconnected by the app, please reconnect";

#[tokio::test]
async fn all_sockets_of_a_user_end_in_every_dialect_and_on_every_slave_and_no_other() {
    let listed = format!("{}{}", DEMO.listed(""), OTHER.listed(""));
    for (slaves, by) in [(1, By::Local), (2, By::Local), (1, By::Nats), (2, By::Nats)] {
        let field = Field::start_with(by, 1, slaves, |setup| setup.toml(&listed)).await;
        let (master, slave) = (&field.masters[0], |number: usize| &field.slaves[number % slaves]);
        let mut bob = signed_in(slave(1), DEMO, "bob").await;
        let mut member = PusherClient::connect(slave(0).slave(), DEMO).await;
        assert_eq!(member.join("presence-room", "ann").await, ["ann"], "a member by that id has not signed in as it");
        let mut anonymous = PusherClient::connect(slave(0).slave(), DEMO).await;
        let mut stranger = signed_in(slave(0), OTHER, "ann").await;
        let mut others = [
            gusher_on(slave(1), "demo", "bob").await,
            gusher_on(slave(0), "demo", "").await,
            gusher_on(slave(1), "other", "ann").await,
        ];
        // first for ever, by either API, then to come back
        for (turn, reconnect) in [(0, false), (1, false), (2, true)] {
            let pushers = [signed_in(slave(0), DEMO, "ann").await, signed_in(slave(1), DEMO, "ann").await];
            let gushers = [gusher_on(slave(0), "demo", "ann").await, gusher_on(slave(1), "demo", "ann").await];
            let reply = match turn {
                0 => terminate(master, DEMO, "ann").await,
                1 => delete(master, "/v1/apps/demo/users/ann/connections").await,
                _ => delete(master, "/v1/apps/demo/users/ann/connections?reconnect=true").await,
            };
            assert_eq!(reply.is(), (200, "{}"));
            for client in pushers {
                pusher_ends(client, if reconnect { 4200 } else { 4009 }, if reconnect { BACK } else { AWAY }).await;
            }
            for client in gushers {
                let reason =
                    if reconnect { "disconnected by the app, please reconnect" } else { "disconnected by the app" };
                gusher_ends(client, if reconnect { 1001 } else { 1008 }, reason).await;
            }
            let mut backend = master.backend().await;
            assert!(!backend.names("/v1/apps/demo/users").await.contains(&"ann".to_owned()), "gone with the close");
        }
        for client in [&mut bob, &mut member, &mut anonymous, &mut stranger] {
            client.is_quiet().await;
        }
        for client in &mut others {
            gusher_stays(client).await;
        }
        let mut ended = 0.0;
        for slave in &field.slaves {
            ended += slave.metric("wellhead_connections_closed_total", "cause=\"terminated\"").await;
        }
        assert_eq!(ended, 12.0);
        assert_eq!(master.metric("wellhead_pushes_total", "kind=\"terminate\",result=\"ok\"").await, 3.0);
    }
}

#[tokio::test]
async fn one_socket_ends_by_its_id_in_either_form() {
    let listed = DEMO.listed("");
    let field = Field::start_with(By::Nats, 1, 2, |setup| setup.toml(&listed)).await;
    let master = &field.masters[0];
    for (no, reconnect) in [(0, false), (1, false), (0, true), (1, true)] {
        let query = if reconnect { "?reconnect=true" } else { "?reconnect=false" };
        let slave = &field.slaves[no];
        let (mut second, mut other) = (signed_in(slave, DEMO, "ann").await, gusher_on(slave, "demo", "ann").await);
        let pusher = signed_in(slave, DEMO, "ann").await;
        let mut gusher = gusher_on(slave, "demo", "ann").await;
        let ids = [pusher.id.clone(), gusher.id().await];
        // of another app it is nobody's
        for id in &ids {
            assert_eq!(delete(master, &format!("/v1/apps/other/sockets/{id}{query}")).await.is(), (200, "{}"));
        }
        for id in &ids {
            assert_eq!(delete(master, &format!("/v1/apps/demo/sockets/{id}{query}")).await.is(), (200, "{}"));
        }
        pusher_ends(pusher, if reconnect { 4200 } else { 4009 }, if reconnect { BACK } else { AWAY }).await;
        let reason = if reconnect { "disconnected by the app, please reconnect" } else { "disconnected by the app" };
        gusher_ends(gusher, if reconnect { 1001 } else { 1008 }, reason).await;
        second.is_quiet().await;
        gusher_stays(&mut other).await;
        // it has ended: that is no error
        assert_eq!(delete(master, &format!("/v1/apps/demo/sockets/{}", ids[0])).await.is(), (200, "{}"));
    }
}

#[tokio::test]
async fn what_was_pushed_before_arrives_before_the_end() {
    const PUSHES: usize = 200;
    for _ in 0..2 {
        let server = setup().start().await;
        // so large a channel is served chunk by chunk
        let mut crowd = Vec::new();
        for _ in 0..1_200 {
            crowd.push(PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await);
        }
        let mut clients = Vec::new();
        for user in ["ann", "ann", "eve"] {
            let mut client = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
            client.sign_in_as(user).await;
            clients.push(client);
        }
        let gusher = gusher_on(&server, "demo", "ann").await.subscribed("news").await;
        let mut backend = server.backend().await;
        for n in 0..PUSHES {
            backend.push("demo", "news", "e", &n.to_string()).await;
        }
        backend.push_to_user("demo", "ann", "\"last\"").await;
        assert_eq!(terminate(&server, DEMO, "ann").await.is(), (200, "{}"));
        backend.push("demo", "news", "e", "\"after\"").await;
        let mut eve = clients.pop().expect("three of them");
        for mut client in clients {
            let mut heard = 0;
            loop {
                let said = client.next().await;
                match (said.event.as_str(), said.channel.as_deref()) {
                    ("e", _) => {
                        assert_eq!(said.data, json!(heard.to_string()), "in order, and nothing that came after");
                        heard += 1;
                    }
                    ("message", Some("#server-to-user-ann")) => assert_eq!(said.data, json!("\"last\"")),
                    ("pusher:error", None) => break,
                    _ => panic!("{said:?}"),
                }
            }
            assert_eq!(heard, PUSHES);
            assert_eq!(client.closed().await, close(4009, AWAY));
        }
        gusher_hears_all(gusher, PUSHES).await;
        for n in 0..PUSHES {
            assert_eq!(eve.next().await.data, json!(n.to_string()));
        }
        assert_eq!(eve.next().await.data, json!("\"after\""));
    }
}

async fn gusher_hears_all(mut client: Client, pushes: usize) {
    let mut heard = 0;
    loop {
        let frame = client.socket.next().await.expect("a close frame comes last");
        match frame.opcode {
            1 if frame.payload == b"\"last\"" => {}
            1 => {
                let wanted = ReceivedEvent::new("news", "e", &heard.to_string());
                let ReceivedEvent { channel, event, data } = wanted;
                let wanted = format!(r#"{{"channel":"{channel}","event":"{event}","data":{data}}}"#);
                assert_eq!(String::from_utf8_lossy(&frame.payload), wanted);
                heard += 1;
            }
            8 => break,
            _ => panic!("{frame:?}"),
        }
    }
    assert_eq!(heard, pushes);
}

/// A sign-in that was answered before the request is ended; one that was not is either, but no user is left behind.
#[tokio::test]
async fn who_signs_in_at_that_moment_is_ended_or_stays_as_that_user() {
    let server = setup().start().await;
    for _ in 0..40 {
        let mut client = PusherClient::connect(server.slave(), DEMO).await;
        client.sign_in(r#"{"id":"ann"}"#).await;
        let request = terminate(&server, DEMO, "ann");
        let (reply, said) = tokio::join!(request, client.next());
        assert_eq!(reply.is(), (200, "{}"));
        assert_eq!(said.event, "pusher:signin_success");
        let mut api = Api::of(&server, DEMO).await;
        api.trigger("#server-to-user-ann", "e", "here").await;
        let said = client.next().await;
        if said.event == "e" {
            assert_eq!(terminate(&server, DEMO, "ann").await.is(), (200, "{}"));
            pusher_ends(client, 4009, AWAY).await;
        } else {
            assert_eq!(said.data["code"], 4009, "{said:?}");
            assert_eq!(client.closed().await, close(4009, AWAY));
        }
    }
    until("nobody is left", 0, || server.connections()).await;
}

#[tokio::test]
async fn only_who_may_closes_sockets() {
    let key = |name: &str, key: &str, rest: &str| {
        let hash =
            crate::support::pusher::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes()).as_ref());
        format!("[[push_keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
    };
    let keys = [
        key("all", "key-of-all", "rights = [\"grant\"]"),
        key("shop", "key-of-shop", "apps = [\"shop\"]\nrights = [\"grant\"]"),
        key("rooms", "key-of-rooms", "channels = [\"room-*\"]\nrights = [\"grant\"]"),
        key("pusher", "key-of-pusher", "rights = [\"push\", \"query\"]"),
    ];
    let server = Setup::keyed().toml(&keys.concat()).toml(&DEMO.listed("")).toml(&OTHER.listed("")).start().await;
    let mut client = gusher_on(&server, "demo", "ann").await;
    let id = client.id().await;
    for path in ["/v1/apps/demo/users/ann/connections".to_owned(), format!("/v1/apps/demo/sockets/{id}")] {
        for (key, status) in [
            (None, 401),
            (Some("wrong"), 401),
            (Some("key-of-pusher"), 403),
            (Some("key-of-rooms"), 403),
            (Some("key-of-shop"), 403),
        ] {
            let bearer = key.map(|key| format!("Bearer {key}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", &**bearer)).collect();
            let reply = Http::to(server.master()).await.call("DELETE", &path, &headers, "").await;
            assert_eq!(reply.status, status, "{path} with {key:?}: {reply:?}");
            assert!(reply.json()["error"].is_string(), "{reply:?}");
        }
    }
    // the secret of an app signs its own requests only, and opens no native route
    let mut api = Api::of(&server, OTHER).await;
    let path = "/apps/17/users/ann/terminate_connections";
    let query = OTHER.signed("POST", path, &[], "{}", now());
    assert_eq!(api.http.call("POST", &format!("{path}?{query}"), &[], "{}").await.status, 401);
    assert_eq!(api.http.call("POST", path, &[], "{}").await.status, 401);
    assert_eq!(api.http.call("POST", "/users/ann/terminate_connections", &[], "{}").await.status, 401);
    assert_eq!(terminate(&server, OTHER, "ann").await.is(), (200, "{}"), "its own ann");
    gusher_stays(&mut client).await;
    let key = [("Authorization", "Bearer key-of-all")];
    let reply = Http::to(server.master()).await.call("DELETE", "/v1/apps/demo/users/ann/connections", &key, "").await;
    assert_eq!(reply.is(), (200, "{}"));
    gusher_ends(client, 1008, "disconnected by the app").await;
}

#[tokio::test]
async fn hostile_ids_are_answered_and_close_nobody_else() {
    let server = setup().start().await;
    let mut bystander = signed_in(&server, DEMO, "bob").await;
    for id in ["x".to_owned(), "x".repeat(128), "世".repeat(128), "a/b?c#d e%41".to_owned(), "\u{0}\n".to_owned()] {
        let client = signed_in(&server, DEMO, &id).await;
        assert_eq!(terminate(&server, DEMO, &id).await.is(), (200, "{}"), "{id:?}");
        pusher_ends(client, 4009, AWAY).await;
        assert_eq!(
            delete(&server, &format!("/v1/apps/demo/users/{}/connections", crate::support::encoded(&id))).await.is(),
            (200, "{}")
        );
    }
    assert_eq!(terminate(&server, DEMO, "nobody").await.is(), (200, "{}"));
    for id in ["x".repeat(129), "世".repeat(129), String::new()] {
        let reply = terminate(&server, DEMO, &id).await;
        assert!(reply.status == 400 && reply.text().starts_with("Invalid user id"), "{reply:?}");
    }
    for (path, status) in [
        ("/v1/apps/demo/users//connections", 404),
        ("/v1/apps//users/x/connections", 404),
        ("/v1/apps/demo/users/%ff/connections", 400),
        ("/v1/apps/demo/users/x/connections?reconnect=maybe", 400),
        ("/v1/apps/demo/sockets/", 404),
        ("/v1/apps/demo/sockets/x", 400),
        (&*format!("/v1/apps/demo/sockets/{}", "9".repeat(2_000)), 400),
        (&*format!("/v1/apps/demo/users/{}/connections", "x".repeat(1_025)), 400),
        ("/v1/apps/demo/sockets/0.0", 200),
    ] {
        assert_eq!(delete(&server, path).await.status, status, "{path}");
    }
    bystander.is_quiet().await;
}

/// Python's library leaves the app out of the path, and signs what it sends.
#[tokio::test]
async fn the_path_without_an_app_is_that_of_the_key() {
    let server = setup().start().await;
    let (client, mut other) = (signed_in(&server, DEMO, "a b").await, signed_in(&server, OTHER, "a b").await);
    let mut api = Api::of(&server, DEMO).await;
    let signed = DEMO.signed("POST", "/users/a b/terminate_connections", &[], "{}", now());
    let forged = format!("{signed}0");
    let of_nobody = signed.replace("auth_key=demo", "auth_key=nobody");
    for (query, status) in [(&forged, 401), (&of_nobody, 401), (&signed, 200)] {
        let reply = api.http.call("POST", &format!("/users/a%20b/terminate_connections?{query}"), &[], "{}").await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    pusher_ends(client, 4009, AWAY).await;
    other.is_quiet().await;
}

/// A slave dies in the middle, be it a coordinator of something: the others close what they hold all the same.
#[tokio::test]
async fn the_death_of_a_slave_keeps_nobody_alive() {
    let listed = DEMO.listed("");
    for by in [By::Local, By::Nats] {
        for stopped_first in [false, true] {
            let mut field = Field::start_with(by, 1, 3, |setup| setup.toml(&listed)).await;
            let mut clients = Vec::new();
            for slave in &field.slaves {
                for _ in 0..20 {
                    clients.push(signed_in(slave, DEMO, "ann").await);
                    clients.last_mut().expect("one").join("presence-room", "ann").await;
                }
            }
            if stopped_first {
                // it takes nothing more, and the others do not know yet
                field.slaves[0].signal("STOP");
            }
            let request = terminate(&field.masters[0], DEMO, "ann");
            let (reply, ()) = tokio::join!(request, async { field.slaves[0].signal("KILL") });
            assert_eq!(reply.is(), (200, "{}"));
            for client in clients.drain(..).skip(20) {
                let mut client = client;
                // members may come and go meanwhile
                while client.next().await.event != "pusher:error" {}
                assert_eq!(client.closed().await, close(4009, AWAY));
            }
            field.slaves[0].ended().await;
            let master = &field.masters[0];
            until("nobody is left", Vec::<String>::new(), || async {
                Backend::of(master.master()).await.names("/v1/apps/demo/users").await
            })
            .await;
        }
    }
}
