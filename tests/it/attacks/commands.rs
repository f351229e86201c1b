//! Single messages that would keep a thread busy.

use std::time::Duration;

use serde_json::json;

use super::{Bystander, figure, sized};
use crate::support::{client::Client, keys::signer, server::Server};

/// The name of a channel, short enough for seven thousand to fit into a message.
fn name(number: usize) -> String {
    format!("{number:x}")
}

fn wish(names: impl Iterator<Item = String>) -> String {
    json!({ "multi_channel": names.collect::<Vec<_>>() }).to_string()
}

/// As many names as one message holds, each permitted by one of the last of `grants`: more than a socket may be on.
fn many_names(grants: usize) -> String {
    wish((0..7_000).map(|number| name(grants - 1_000 + number % 1_000)))
}

/// Send `data` over and over; how much of the processor one of them took.
async fn cost(server: &Server, client: &mut Client, data: &str) -> Duration {
    let count = sized(10, 100) as u32;
    let before = server.processor();
    for _ in 0..count {
        client.say("gusher.multi_subscribe", data).await;
        let (event, _) = client.reply().await;
        assert_eq!(event, "gusher.multi_subscribe_error");
    }
    let each = (server.processor() - before) / count;
    figure(&format!("a message of {} bytes: {each:?}", data.len()));
    each
}

/// What one message may take. Five milliseconds of the optimized server, on a machine with nothing else to do.
fn most() -> Duration {
    Duration::from_millis(sized(150, 15) as u64)
}

#[tokio::test]
async fn a_message_of_seven_thousand_names_is_cheap_to_refuse() {
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    // as many grants as a token can hold
    let grants: Vec<_> = (0..6_000).map(name).collect();
    let grants: Vec<_> = grants.iter().map(String::as_str).collect();
    let reply = server.auth(&signer().jwt("demo", "mallory", &grants)).await;
    let token = reply.json()["token"].as_str().expect("a token").to_owned();
    let mut mallory = Client::connect(server.slave(), "demo", &token).await;
    let cost = cost(&server, &mut mallory, &many_names(6_000)).await;
    assert!(cost < most(), "{cost:?} a message");
    // no more names than one may ask for, the last of which is not permitted
    let names = (5_001..6_000).map(name).chain(["none".to_owned()]);
    let cost = self::cost(&server, &mut mallory, &wish(names)).await;
    assert!(cost < most(), "{cost:?} a message that is within the limit");
    bystander.is_served(&server).await;
}

#[tokio::test]
async fn what_a_backend_grants_costs_its_user_nothing() {
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    let mut mallory = server.client("demo", "mallory", &["*"]).await;
    let count = sized(20_000, 200_000);
    let body = json!({ "channels": (0..count).map(name).collect::<Vec<_>>() }).to_string();
    let reply = server.backend().await.json("PUT", "/v1/apps/demo/users/mallory/channels", &body).await;
    // so many may be too many
    assert!([200, 413].contains(&reply.status), "{}", reply.status);
    if reply.status == 200 {
        assert_eq!(mallory.reply().await.0, "gusher.reloadchannel");
    }
    let cost = cost(&server, &mut mallory, &many_names(count)).await;
    assert!(cost < most(), "{cost:?} a message");
    bystander.is_served(&server).await;
}
