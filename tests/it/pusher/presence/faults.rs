//! A slave that dies, one that goes in order, a bus that is gone for a moment: each member is told of once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{ROOM, api, field, join};
use crate::{cluster::field::By, support::member::users};

async fn members_of_a_slave_that_dies_leave_once_each(by: By) {
    let mut field = field(by, 3, "").await;
    let mut stay = [join(&field, 0, "ann").await, join(&field, 1, "bob").await];
    // ten on the slave that will die; two of them elsewhere as well
    let mut doomed = Vec::new();
    for n in 0..10 {
        doomed.push(join(&field, 2, &format!("user-{n}")).await);
    }
    let safe = [join(&field, 0, "user-0").await, join(&field, 1, "user-1").await];
    let all: BTreeSet<_> = (0..10).map(|n| format!("user-{n}")).chain(users(["ann", "bob"])).collect();
    for member in &mut stay {
        member.sees(&all).await;
        member.told.clear();
    }
    field.slaves[2].signal("KILL");
    let killed = Instant::now();
    field.slaves[2].ended().await;
    drop(doomed);
    let left = users(["ann", "bob", "user-0", "user-1"]);
    for member in &mut stay {
        member.sees(&left).await;
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
        let mut told = member.told.clone();
        told.sort();
        assert_eq!(told, (2..10).map(|n| format!("-user-{n}")).collect::<Vec<_>>(), "each once");
    }
    eprintln!("members of a killed slave had left after {:?} ({by:?})", killed.elapsed());
    field.slaves.truncate(2);
    field.is_whole().await;
    let mut api = api(&field).await;
    assert_eq!(api.users(ROOM).await, left.iter().cloned().collect::<Vec<_>>());
    assert_eq!(api.counts(ROOM).await, (4, Some(4)));
    // a fresh one keeps some of the channels; those who come back are told of once
    let fresh = field.new_slave().await;
    field.slaves.push(fresh);
    field.is_whole().await;
    let mut back = Vec::new();
    for n in 0..10 {
        back.push(join(&field, 2, &format!("user-{n}")).await);
    }
    for member in &mut stay {
        member.told.clear();
        member.sees(&all).await;
        member.told.sort();
        assert_eq!(member.told, (2..10).map(|n| format!("+user-{n}")).collect::<Vec<_>>(), "each once");
        member.is_quiet().await;
    }
    for member in &mut back {
        member.sees(&all).await;
    }
    assert_eq!(api.counts(ROOM).await, (14, Some(12)));
    drop(safe);
    // one that goes in order tells at once
    let began = Instant::now();
    field.slaves[2].signal("TERM");
    for member in &mut back {
        let (code, _) = loop {
            let said = member.client.next().await;
            if said.event == "pusher:error" {
                break (said.data["code"].clone(), said);
            }
            member.take(&said);
        };
        assert_eq!(code, 4200);
    }
    assert_eq!(field.slaves[2].ended().await.code(), Some(0));
    let left = users(["ann", "bob"]);
    for member in &mut stay {
        member.sees(&left).await;
    }
    eprintln!("members of a slave that went in order had left after {:?} ({by:?})", began.elapsed());
}

#[tokio::test]
async fn members_of_a_slave_that_dies_leave_once_each_on_nats() {
    members_of_a_slave_that_dies_leave_once_each(By::Nats).await;
}

#[tokio::test]
async fn members_of_a_slave_that_dies_leave_once_each_on_one_machine() {
    members_of_a_slave_that_dies_leave_once_each(By::Local).await;
}

async fn a_bus_that_is_gone_for_a_moment_takes_nobody_along(by: By) {
    let mut field = field(by, 2, "").await;
    let mut ann = join(&field, 0, "ann").await;
    let mut bob = join(&field, 1, "bob").await;
    for member in [&mut ann, &mut bob] {
        member.sees(&users(["ann", "bob"])).await;
    }
    for round in 0..3 {
        field.restart_bus().await;
        field.is_whole().await;
        // one more comes and goes, and is told of once: nothing else was
        let user = format!("user-{round}");
        let mut joe = join(&field, round % 2, &user).await;
        let there = BTreeSet::from(["ann".to_owned(), "bob".to_owned(), user.clone()]);
        joe.sees(&there).await;
        for member in [&mut ann, &mut bob] {
            assert_eq!(member.hears().await, format!("+{user}"));
        }
        joe.client.socket.leave().await;
        for member in [&mut ann, &mut bob] {
            assert_eq!(member.hears().await, format!("-{user}"));
            member.is_quiet().await;
        }
    }
    assert_eq!(api(&field).await.counts(ROOM).await, (2, Some(2)));
}

#[tokio::test]
async fn a_nats_that_is_gone_for_a_moment_takes_nobody_along() {
    a_bus_that_is_gone_for_a_moment_takes_nobody_along(By::Nats).await;
}

#[tokio::test]
async fn a_master_that_is_gone_for_a_moment_takes_nobody_along() {
    a_bus_that_is_gone_for_a_moment_takes_nobody_along(By::Local).await;
}
