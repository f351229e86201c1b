//! PushEx beside the other dialects on the channels of one app, in one process and in a cluster over NATS.

use super::push;
use crate::{
    cluster::field::{By, Field},
    support::{
        client::ReceivedEvent,
        keys::signer,
        phoenix::{PhoenixClient, PhoenixPush},
        pusher::{Api, DEMO, PusherClient, PusherMessage},
        server::{Server, Setup},
    },
};

async fn phoenix(slave: &Server, serializer: u8) -> PhoenixClient {
    let client = PhoenixClient::connect(slave.slave(), serializer, &signer().jwt("demo", "ann", &["*"])).await;
    client.joined("news").await
}

/// A push through any API reaches clients of each dialect on both slaves, in order.
async fn all_hear_all(master: &Server, slaves: [&Server; 2]) {
    let mut phoenix = [phoenix(slaves[0], 1).await, phoenix(slaves[1], 2).await];
    let mut gusher = slaves[1].listener_on("demo", "bob", "news").await;
    let mut pusher = PusherClient::connect(slaves[0].slave(), DEMO).await;
    pusher.subscribe("news").await;
    let (mut backend, mut api) = (master.backend().await, Api::of(master, DEMO).await);
    for (data, seen) in [
        (r#"{"z":1.0,"a":"\u00e9"}"#, r#"{"z":1.0,"a":"\u00e9"}"#),
        ("7", "7"),
        (r#""a string""#, r#""a string""#),
        ("plain text", r#""plain text""#),
        ("{broken", r#""{broken""#),
    ] {
        for by in ["pushex", "gusher", "pusher"] {
            match by {
                // its bodies are JSON
                "pushex" => push(master, &format!(r#"{{"channel":"news","event":"e","data":{seen}}}"#)).await,
                "gusher" => drop(backend.push("demo", "news", "e", data).await),
                _ => api.trigger("news", "e", data).await,
            }
            for (client, join_reference) in phoenix.iter_mut().zip([serde_json::json!(null), "1".into()]) {
                let payload = format!(r#"{{"data":{seen},"event":"e"}}"#);
                let expected = PhoenixPush { join_reference, topic: "news".to_owned(), payload };
                assert_eq!(client.next_push().await, expected, "{data} by {by}");
            }
            assert_eq!(gusher.next_event().await, ReceivedEvent::new("news", "e", seen), "{data} by {by}");
            let to_pusher = if by == "pushex" { seen } else { data };
            assert_eq!(pusher.next().await, PusherMessage::event("news", "e", to_pusher), "{data} by {by}");
        }
    }
    // the user and the channel are counted like any other
    assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["", "ann", "bob"]);

    // order
    for number in 0..50 {
        push(master, &format!(r#"{{"channel":"news","event":"n","data":{number}}}"#)).await;
    }
    for number in 0..50 {
        for client in &mut phoenix {
            assert_eq!(client.next_push().await.payload, format!(r#"{{"data":{number},"event":"n"}}"#));
        }
    }
}

fn listed() -> String {
    DEMO.listed("client_events = true")
}

#[tokio::test]
async fn all_dialects_hear_all_apis_in_one_process() {
    let server = Setup::keyed().toml(&listed()).start().await;
    all_hear_all(&server, [&server, &server]).await;
}

#[tokio::test]
async fn all_dialects_hear_all_apis_in_a_cluster() {
    let field = Field::start_with(By::Nats, 1, 2, |setup| setup.toml(&listed())).await;
    all_hear_all(&field.masters[0], [&field.slaves[0], &field.slaves[1]]).await;
}

#[tokio::test]
async fn what_is_pushed_to_a_user_reaches_its_gusher_sockets_and_is_counted_for_the_others() {
    let server = Server::start().await;
    let mut clients = [phoenix(&server, 1).await, phoenix(&server, 2).await];
    let mut gusher = server.client("demo", "ann", &["*"]).await;
    let mut backend = server.backend().await;
    backend.push_to_user("demo", "ann", "1").await;
    assert_eq!(gusher.socket.text().await, "1");
    server.metric_becomes("wellhead_direct_pushes_without_frame_total", "", 2.0).await;
    // and a user with one socket
    let jwt = signer().jwt("demo", "eve", &["*"]);
    let mut eve = PhoenixClient::connect(server.slave(), 2, &jwt).await;
    eve.beats().await;
    backend.push_to_user("demo", "eve", "1").await;
    server.metric_becomes("wellhead_direct_pushes_without_frame_total", "", 3.0).await;
    for client in clients.iter_mut().chain([&mut eve]) {
        client.beats().await;
    }
}

#[tokio::test]
async fn a_large_channel_gets_every_push_with_the_reference_of_each_receiver() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for number in 0..600 {
        let mut client = PhoenixClient::connect(server.slave(), 2, &signer().jwt("demo", "", &["*"])).await;
        let reference = format!("\"{}\"", number % 40);
        let join = client.message(&reference, &reference, "news", "phx_join", "{}");
        assert!(client.ask(&join).await.contains("\"ok\""));
        clients.push((client, (number % 40).to_string()));
    }
    for number in 0..10 {
        push(&server, &format!(r#"{{"channel":"news","event":"n","data":{number}}}"#)).await;
    }
    for (client, reference) in &mut clients {
        for number in 0..10 {
            let payload = format!(r#"{{"data":{number},"event":"n"}}"#);
            let join_reference = reference.as_str().into();
            let expected = PhoenixPush { join_reference, topic: "news".to_owned(), payload };
            assert_eq!(client.next_push().await, expected);
        }
    }
}
