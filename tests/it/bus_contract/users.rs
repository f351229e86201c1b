//! The promises about what is for users.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use wellhead_proto::{
    bus::{Hold, Interest},
    command::{Command, Target},
    envelope::Envelope,
    event::{Event, Payload},
    ids::{AppId, UserId},
};

use super::{
    carriers::{Breakable, BusCarrier},
    node::{BusNode, ReceivedMessage, to_user},
    suite::three,
};
use crate::support::{until, within};

/// The user of a node, as long as it is connected.
struct Connected<'a>(&'a BusNode, AppId, UserId);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.bus.release_user(&self.1, &self.2);
    }
}

/// As a slave does: the interest is confirmed before the socket is opened, and held until it is.
async fn connects<'a>(node: &'a BusNode, app: &str, user: &str) -> Connected<'a> {
    let held = is_received(node, app, user).await;
    let connected = Connected(node, app.parse().expect("a name"), user.parse().expect("a name"));
    node.bus.retain_user(&connected.1, &connected.2);
    drop(held);
    connected
}

async fn is_received(node: &BusNode, app: &str, user: &str) -> Option<Hold> {
    let interest = node.bus.user_interest(&app.parse().expect("a name"), &user.parse().expect("a name"));
    let Interest { hold, confirmed } = interest?;
    if let Some(confirmed) = confirmed {
        within("an interest is confirmed", confirmed).await;
    }
    Some(hold)
}

async fn publish(node: &BusNode, envelope: Envelope) {
    within("a push", node.bus.publish(envelope)).await.expect("the bus is up");
}

/// Everything that can be for a user.
fn all_for(app: &str, user: &str, number: usize) -> Vec<Envelope> {
    let user: UserId = user.parse().expect("a name");
    let channel = format!("c{number}");
    let event = Event::new("e".parse().expect("a name"), Payload::Text(channel.as_str().into()));
    let pattern = || channel.as_str().try_into().expect("a pattern");
    let commands = [
        Command::Direct { to: Target::User(user.clone()), data: Payload::Text(channel.as_str().into()) },
        Command::Reload { user: user.clone(), within: vec![pattern()], channels: vec![pattern()] },
        Command::DirectEvent { user: user.clone(), event, except: None },
        Command::Grant { user, channel: pattern() },
    ];
    commands.map(|command| Envelope { app: app.parse().expect("a name"), command }).into()
}

pub async fn what_is_for_a_user_reaches_the_slaves_where_the_user_is_in_order<C: BusCarrier>() {
    let (_carrier, master, one, two) = three::<C>().await;
    let connected = (connects(&one, "a", "ann").await, connects(&two, "a", "ann").await);
    let sent: Vec<_> = (0..100).flat_map(|number| all_for("a", "ann", number)).collect();
    for envelope in &sent[..200] {
        publish(&master, envelope.clone()).await;
    }
    within("a batch", master.bus.publish_all(sent[200..].to_vec())).await.expect("the bus is up");
    let sent: Vec<_> = sent.into_iter().map(ReceivedMessage::Push).collect();
    for slave in [&one, &two] {
        assert_eq!(slave.book.has(sent.len()).await, sent);
    }
    drop(connected);
}

pub async fn a_push_that_follows_a_connect_is_never_missed<C: BusCarrier>() {
    let (_carrier, master, one, two) = three::<C>().await;
    let mut connected = Vec::new();
    for number in 0..500 {
        let (slave, publisher) = if number % 2 == 0 { (&one, &master) } else { (&two, &one) };
        let user = format!("user-{number}");
        connected.push(connects(slave, "a", &user).await);
        publish(publisher, to_user("a", &user, &number.to_string())).await;
    }
    for (slave, first) in [(&one, 0), (&two, 1)] {
        let wanted: BTreeSet<_> = (first..500).step_by(2).map(|number| number.to_string()).collect();
        until("what was pushed is heard", true, || async {
            wanted.is_subset(&slave.book.texts().into_iter().collect())
        })
        .await;
    }
}

/// The second comes while the slot of the first is being confirmed, or just before or after.
pub async fn two_who_come_at_once_are_both_let_in<C: BusCarrier>() {
    let (_carrier, master, one, _two) = three::<C>().await;
    let mut held = Vec::new();
    for number in 0..300 {
        let (app, user) = ("a".parse().expect("a name"), format!("user-{number}").parse().expect("a name"));
        let first = one.bus.user_interest(&app, &user).expect("several");
        // so many turns are somewhere within a round trip
        for _ in 0..(number % 30) * 10 {
            std::hint::spin_loop();
            tokio::task::yield_now().await;
        }
        let second = one.bus.user_interest(&app, &user).expect("several");
        for Interest { hold, confirmed } in [second, first] {
            if let Some(confirmed) = confirmed {
                within("an interest is confirmed", confirmed).await;
            }
            held.push(hold);
        }
        publish(&master, to_user("a", user.as_str(), &number.to_string())).await;
    }
    one.book.has(300).await;
}

/// Where users have slots.
pub async fn a_push_to_a_user_costs_the_other_slaves_nothing<C: BusCarrier>() {
    const PUSHES: usize = 2_000;
    let mut carrier = C::started();
    let master = carrier.node(false);
    let slaves: Vec<_> = (0..20).map(|_| carrier.node(true)).collect();
    let all: Vec<_> = slaves.iter().collect();
    for node in slaves.iter().chain([&master]) {
        node.knows(&all).await;
    }
    let mut connected = Vec::new();
    for (number, slave) in slaves.iter().enumerate() {
        connected.push(connects(slave, "a", &format!("user-{number}")).await);
    }
    let before: Vec<_> = slaves.iter().map(BusNode::messages_received).collect();
    let pushes = (0..PUSHES).map(|number| to_user("a", "user-0", &number.to_string())).collect();
    within("the pushes", master.bus.publish_all(pushes)).await.expect("the bus is up");
    assert_eq!(slaves[0].book.has(PUSHES).await.len(), PUSHES);
    for (number, (slave, before)) in slaves.iter().zip(before).enumerate().skip(1) {
        assert_eq!(slave.book.all(), [], "slave {number}");
        // heartbeats, of each node one a second
        if let (Some(before), Some(after)) = (before, slave.messages_received()) {
            assert!(after - before < PUSHES as u64 / 2, "slave {number}: {}", after - before);
        }
    }
}

/// Where users have slots: those that wait for seconds, at once.
pub async fn what_is_received_follows_the_users_who_are_here<C: BusCarrier>() {
    tokio::join!(
        a_user_who_is_gone_is_not_received_for::<C>(),
        changing_to_all_slots_of_users_and_back_keeps_everything_in_order::<C>(),
    );
}

async fn a_user_who_is_gone_is_not_received_for<C: BusCarrier>() {
    let (_carrier, master, one, two) = three::<C>().await;
    let (ann, second, bob) =
        (connects(&one, "a", "ann").await, connects(&one, "a", "ann").await, connects(&one, "a", "bob").await);
    drop(ann);
    publish(&master, to_user("a", "ann", "still")).await;
    assert_eq!(one.book.hears("still").await, ["still"]);
    drop(second);
    let mut unheard = 0;
    for number in 0.. {
        assert!(number < 200, "it is heard for ever");
        let text = format!("gone-{number}");
        publish(&master, to_user("a", "ann", &text)).await;
        publish(&master, to_user("b", "bob", "of another app")).await;
        // it tells that what came before has come, as far as it comes
        publish(&master, to_user("a", "bob", &format!("end-{number}"))).await;
        let texts = one.book.hears(&format!("end-{number}")).await;
        unheard = if texts.contains(&text) { 0 } else { unheard + 1 };
        if unheard == 5 {
            break;
        }
        // the bus hears it for some ten seconds more; that it stops is no event
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(one.book.texts().iter().filter(|text| *text == "of another app").count(), 0);
    assert_eq!(two.book.texts(), [""; 0]);
    let again = connects(&one, "a", "ann").await;
    publish(&master, to_user("a", "ann", "again")).await;
    one.book.hears("again").await;
    drop((again, bob));
}

/// Far above the limit of slots and far below it again, while pushes and reloads go on.
async fn changing_to_all_slots_of_users_and_back_keeps_everything_in_order<C: BusCarrier>() {
    let (_carrier, master, one, two) = three::<C>().await;
    let cluster = one.cluster.as_ref().expect("several");
    cluster.limit_slots(40, 20);
    let mut changes = vec![cluster.hears_all_user_slots()];
    let mut connected = Vec::new();
    for number in 0..10 {
        let user = format!("user-{number}");
        connected.push((connects(&one, "a", &user).await, connects(&two, "a", &user).await));
    }
    let began = Instant::now();
    let (mut sent, mut many, mut fresh) = (Vec::new(), Vec::new(), 0);
    // above the limit from 2 s on; below it from 9 s on, and 10 s later nothing lingers
    while changes != [false, true, false] {
        assert!(began.elapsed() < Duration::from_secs(60), "changed so far: {changes:?}");
        if changes.last() != Some(&cluster.hears_all_user_slots()) {
            changes.push(cluster.hears_all_user_slots());
        }
        for envelope in all_for("a", &format!("user-{}", sent.len() % 10), sent.len()) {
            publish(&master, envelope.clone()).await;
            sent.push(envelope);
        }
        let second = began.elapsed().as_secs();
        if (2..9).contains(&second) && many.len() < 60 {
            many.push(connects(&one, "a", &format!("many-{}", many.len())).await);
        }
        if second >= 9 {
            many.clear();
        }
        if sent.len() % 40 == 0 && !(9..19).contains(&second) {
            // who connects now is heard, whatever is going on
            let user = format!("fresh-{}", fresh % 5);
            let guest = connects(&one, "b", &user).await;
            publish(&master, to_user("b", &user, &format!("fresh-{fresh}"))).await;
            one.book.hears(&format!("fresh-{fresh}")).await;
            fresh += 1;
            drop(guest);
        }
        // a pace: pushes are to be under way all through the change
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for slave in [&one, &two] {
        let received = || async {
            let mut of_app = slave.book.all();
            of_app.retain(
                |message| matches!(message, ReceivedMessage::Push(Envelope { app, .. }) if app.as_str() == "a"),
            );
            of_app
        };
        until("all have come", sent.len(), || async { received().await.len() }).await;
        // in order user by user; over all users nothing is promised
        for number in 0..10 {
            let user = format!("user-{number}");
            let sent: Vec<_> = sent.iter().filter(|envelope| user_of(envelope) == user).cloned().collect();
            let mut received = received().await;
            received.retain(|message| matches!(message, ReceivedMessage::Push(envelope) if user_of(envelope) == user));
            assert_eq!(received, sent.into_iter().map(ReceivedMessage::Push).collect::<Vec<_>>());
        }
    }
    let mut freshly: Vec<_> = one.book.texts().into_iter().filter(|text| text.starts_with("fresh")).collect();
    freshly.sort();
    freshly.dedup();
    assert_eq!(freshly.len(), fresh);
    eprintln!("{} commands and {fresh} connects over {:?}: none lost, none twice", sent.len(), began.elapsed());
}

fn user_of(envelope: &Envelope) -> &str {
    match &envelope.command {
        Command::Direct { to: Target::User(user), .. }
        | Command::DirectEvent { user, .. }
        | Command::Reload { user, .. }
        | Command::Grant { user, .. } => user.as_str(),
        other => panic!("{other:?} is for no user"),
    }
}

/// Where users have slots.
pub async fn a_connect_waits_for_a_bus_that_is_down_and_users_are_received_for_after_it<C: Breakable>() {
    let (mut carrier, master, one, two) = three::<C>().await;
    let ann = connects(&one, "a", "ann").await;
    for round in 0..3 {
        carrier.stop();
        for node in [&master, &one, &two] {
            node.is("the bus is down", |state| !state.up).await;
        }
        let early = format!("early-{round}");
        let mut interest =
            two.bus.user_interest(&"a".parse().expect("a name"), &early.parse().expect("a name")).expect("several");
        let confirmed = interest.confirmed.take().expect("not heard yet");
        // one that is heard is not, either
        let known = one.bus.user_interest(&ann.1, &ann.2).expect("several");
        assert!(known.confirmed.is_some());
        carrier.start();
        within("an interest is confirmed", confirmed).await;
        within("the other is", known.confirmed.expect("just now")).await;
        for node in [&master, &one, &two] {
            node.knows(&[&one, &two]).await;
        }
        publish(&master, to_user("a", &early, &early)).await;
        publish(&master, to_user("a", "ann", &format!("ann-{round}"))).await;
        two.book.hears(&early).await;
        one.book.hears(&format!("ann-{round}")).await;
    }
    assert_eq!(one.book.texts(), ["ann-0", "ann-1", "ann-2"]);
}
