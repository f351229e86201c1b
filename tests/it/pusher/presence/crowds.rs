//! Many at once: whoever comes and goes in between, every list comes out right.

use std::collections::BTreeSet;

use super::{ROOM, api, connect, field, join};
use crate::{
    cluster::field::By,
    support::{
        member::PresenceClient,
        pusher::{Api, DEMO, PusherClient, channel_data, joined},
        random::Random,
        until, within,
    },
};

/// Many come and go on three slaves at once; then all lists are the same and right.
async fn every_list_comes_out_right(by: By) {
    let field = field(by, 3, "").await;
    let mut watchers = Vec::new();
    // two on each slave: once they all see all, each slave knows of all
    for n in 0..6 {
        watchers.push(join(&field, n % 3, &format!("watcher-{n}")).await);
    }
    let watching: BTreeSet<_> = (0..6).map(|n| format!("watcher-{n}")).collect();
    for watcher in &mut watchers {
        watcher.sees(&watching).await;
    }
    let mut tasks = Vec::new();
    for number in 0..9_usize {
        let slave = field.slaves[number % 3].slave();
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(number as u64);
            // three users on three slaves each, so that first and last connections meet
            let user = format!("user-{}", number / 3);
            let mut client = PusherClient::connect(slave, DEMO).await;
            let mut joins = 0;
            for _ in 0..60 {
                client.wish(ROOM, Some(&channel_data(&user))).await;
                let members = loop {
                    let said = client.next().await;
                    if said.event == "pusher_internal:subscription_succeeded" {
                        break joined(&said, ROOM);
                    }
                };
                joins += 1;
                let watching = members.iter().filter(|user| user.starts_with("watcher-")).count();
                assert!(watching == 6 && members.contains(&user), "{members:?}");
                if random.once_in(8) {
                    // gone without a word
                    drop(client);
                    client = PusherClient::connect(slave, DEMO).await;
                } else {
                    client.unsubscribe(ROOM).await;
                }
            }
            (joins, user.clone(), if number % 2 == 0 { None } else { Some(rejoin(client, &user).await) })
        }));
    }
    let (mut joins, mut stay) = (0, BTreeSet::new());
    let mut clients = Vec::new();
    for task in tasks {
        let (count, user, client) = within("they come and go", task).await.expect("no panic");
        joins += count;
        if let Some(client) = client {
            stay.insert(user);
            clients.push(client);
        }
    }
    assert_eq!(joins, 540);
    let mut truth = &stay | &watching;
    let sockets = clients.len() as u64 + 6;
    until("everybody who left is gone", (sockets, Some(truth.len() as u64)), || async {
        Api::of(&field.masters[0], DEMO).await.counts(ROOM).await
    })
    .await;
    assert_eq!(api(&field).await.users(ROOM).await, truth.iter().cloned().collect::<Vec<_>>());
    // a coordinator hears of one slave in order: whoever sees these three has been told of everything before
    let mut last = Vec::new();
    for slave in 0..3 {
        last.push(join(&field, slave, &format!("zoe-{slave}")).await);
    }
    truth.extend((0..3).map(|n| format!("zoe-{n}")));
    for member in watchers.iter_mut().chain(&mut last) {
        member.sees(&truth).await;
        member.is_quiet().await;
    }
}

async fn rejoin(mut client: PusherClient, user: &str) -> PusherClient {
    client.wish(ROOM, Some(&channel_data(user))).await;
    while client.next().await.event != "pusher_internal:subscription_succeeded" {}
    client
}

#[tokio::test]
async fn every_list_comes_out_right_on_nats() {
    every_list_comes_out_right(By::Nats).await;
}

#[tokio::test]
async fn every_list_comes_out_right_on_one_machine() {
    every_list_comes_out_right(By::Local).await;
}

/// At the very same time, on both slaves: nobody is missed by anybody.
async fn a_crowd_that_comes_at_once_is_whole(by: By) {
    let field = field(by, 2, "").await;
    let all: BTreeSet<_> = (0..40).map(|n| format!("user-{n:02}")).collect();
    let mut tasks = Vec::new();
    for (n, user) in all.iter().cloned().enumerate() {
        let (client, all) = (connect(&field, n % 2).await, all.clone());
        tasks.push((client, user, all));
    }
    let tasks: Vec<_> = tasks
        .into_iter()
        .map(|(client, user, all)| {
            tokio::spawn(async move {
                let mut member = PresenceClient::join(client, ROOM, &user).await;
                member.sees(&all).await;
                member
            })
        })
        .collect();
    let mut members = Vec::new();
    for task in tasks {
        members.push(within("it sees all", task).await.expect("no panic"));
    }
    for member in &mut members {
        member.is_quiet().await;
    }
    assert_eq!(api(&field).await.counts(ROOM).await, (40, Some(40)));
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_is_whole_on_nats() {
    a_crowd_that_comes_at_once_is_whole(By::Nats).await;
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_is_whole_on_one_machine() {
    a_crowd_that_comes_at_once_is_whole(By::Local).await;
}
