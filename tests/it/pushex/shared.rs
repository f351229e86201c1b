//! PushEx beside gusher: pushes to users, for which it has no frame, and large channels. The rest is in `tests/it/dialects`.

use super::push;
use crate::support::{
    keys::signer,
    phoenix::{PhoenixClient, PhoenixPush},
    server::Server,
};

async fn phoenix(slave: &Server, serializer: u8) -> PhoenixClient {
    let client = PhoenixClient::connect(slave.slave(), serializer, &signer().jwt("demo", "ann", &["*"])).await;
    client.joined("news").await
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
