//! The event `subscription_count`: how many sockets are on a channel, told to them, over a cluster (pusher.md §2.12).

use serde_json::json;

use crate::{
    cluster::field::{By, Field},
    support::{
        pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage},
        until,
    },
};

async fn field(slaves: usize) -> Field {
    let listed = format!("{}{}", DEMO.listed("subscription_count_event = true"), OTHER.listed(""));
    Field::start_with(By::Nats, 1, slaves, |setup| setup.toml(&listed)).await
}

async fn connect(field: &Field, slave: usize) -> PusherClient {
    PusherClient::connect(field.slaves[slave % field.slaves.len()].slave(), DEMO).await
}

fn count(channel: &str, count: usize) -> PusherMessage {
    let data = json!({ "subscription_count": count }).to_string();
    PusherMessage::event(channel, "pusher_internal:subscription_count", data)
}

/// Listen until it is told this count. What was told before was another.
async fn comes_to_know(client: &mut PusherClient, channel: &str, wanted: usize) {
    let mut before = None;
    loop {
        let said = client.next().await;
        assert_ne!(Some(&said), before.as_ref(), "told twice");
        if said == count(channel, wanted) {
            return;
        }
        assert_eq!((&*said.event, said.channel.as_deref()), ("pusher_internal:subscription_count", Some(channel)));
        before = Some(said);
    }
}

async fn subscribers_are_told_how_many_they_are(slaves: usize) {
    let field = field(slaves).await;
    let mut api = Api::of(&field.masters[0], DEMO).await;
    let mut there = Vec::new();
    for number in 1..=4 {
        // behind the answer to the subscribe
        there.push(connect(&field, number).await.subscribed("news").await);
        for client in &mut there {
            assert_eq!(client.next().await, count("news", number));
        }
        assert_eq!(api.counts("news").await.0, number as u64);
    }
    // a socket of another dialect counts, and hears nothing of it
    let gusher = field.listener(1 % slaves, DEMO.key, "gus", &["news"]).await;
    for client in &mut there {
        assert_eq!(client.next().await, count("news", 5));
    }
    assert_eq!(api.counts("news").await.0, 5);
    there.remove(3).unsubscribe("news").await;
    for client in &mut there {
        assert_eq!(client.next().await, count("news", 4));
    }
    there.remove(2).socket.leave().await;
    drop(gusher);
    for client in &mut there {
        comes_to_know(client, "news", 2).await;
    }
    // not on presence channels, not in other apps
    let mut member = connect(&field, 0).await;
    member.join("presence-room", "ann").await;
    let mut other = PusherClient::connect(field.slaves[0].slave(), OTHER).await.subscribed("news").await;
    there[0].subscribe("private-desk").await;
    assert_eq!(there[0].next().await, count("private-desk", 1));
    for client in there.iter_mut().chain([&mut member, &mut other]) {
        client.is_quiet().await;
    }
}

#[tokio::test]
async fn subscribers_are_told_how_many_they_are_on_one_slave() {
    subscribers_are_told_how_many_they_are(1).await;
}

#[tokio::test]
async fn subscribers_are_told_how_many_they_are_on_two_slaves() {
    subscribers_are_told_how_many_they_are(2).await;
}

#[tokio::test]
async fn a_crowd_is_told_seldom_and_in_the_end_rightly() {
    let field = field(2).await;
    let mut first = connect(&field, 0).await.subscribed("news").await;
    comes_to_know(&mut first, "news", 1).await;
    let mut crowd = Vec::new();
    for number in 0..300 {
        crowd.push(connect(&field, number).await.subscribed("news").await);
    }
    let mut told = 0;
    loop {
        told += 1;
        if first.next().await == count("news", 301) {
            break;
        }
    }
    assert!(told < 150, "{told} counts for 300 who came");
    // who comes now is told at once, also if the others wait
    let mut late = connect(&field, 1).await.subscribed("news").await;
    comes_to_know(&mut late, "news", 302).await;
    comes_to_know(&mut first, "news", 302).await;
    drop(crowd);
    comes_to_know(&mut first, "news", 2).await;
}

/// Each slave coordinates a third of ten channels.
#[tokio::test]
async fn the_count_is_right_when_a_slave_has_died() {
    let mut field = field(3).await;
    let channels: Vec<_> = (0..10).map(|no| format!("news-{no}")).collect();
    let mut clients = Vec::new();
    for channel in &channels {
        for slave in 0..3 {
            clients.push((slave, channel, connect(&field, slave).await.subscribed(channel).await));
        }
    }
    for (_, channel, client) in &mut clients {
        comes_to_know(client, channel, 3).await;
    }
    field.slaves[2].signal("KILL");
    field.slaves[2].ended().await;
    clients.retain(|(slave, ..)| *slave != 2);
    for (_, channel, client) in &mut clients {
        assert_eq!(client.next().await, count(channel, 2));
        client.is_quiet().await;
    }
    field.slaves.truncate(2);
    field.is_whole().await;
    let api = || async { Api::of(&field.masters[0], DEMO).await.counts(&channels[0]).await };
    until("the backend counts the same", (2, None), api).await;
    // one that comes takes over some of the channels: nothing has changed for those who are there
    let fresh = field.new_slave().await;
    field.slaves.push(fresh);
    field.is_whole().await;
    for channel in &channels {
        let mut late = connect(&field, 2).await.subscribed(channel).await;
        assert_eq!(late.next().await, count(channel, 3));
    }
    for (_, channel, client) in &mut clients {
        assert_eq!(client.next().await, count(channel, 3));
    }
}
