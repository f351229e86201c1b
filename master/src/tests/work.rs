//! What the dispatcher makes of work that no row of gusher asks for.

use wellhead_proto::{
    dialect::contract::{Done, Work},
    event::Event,
    query::{ChannelState, Query},
};

use super::*;
use crate::{dispatch::Answer, keys::Caller};

fn say_and_count(app: &str, asked: &str) -> Work {
    let channel = |name: &str| name.parse().expect("a name");
    let event = Event::new("e".parse().expect("a name"), Payload::null());
    let command = Command::Publish { channel: channel("room-1"), event, except: None };
    let query = Query::States { of: vec![channel("room-1"), channel("news")], members: false };
    Work::PublishAndAsk(
        vec![Envelope { app: app.parse().expect("a name"), command }],
        Ask::Query { app: asked.parse().expect("a name"), query },
    )
}

async fn carried_out(master: &Master, caller: &Caller, mut work: Work) -> Result<Answer, error::MasterError> {
    let (dispatcher, tenants) = (&master.0.dispatcher, master.0.tenants.load_full());
    let checked = dispatcher.check(caller, &tenants, &mut work);
    dispatcher.carry_out(caller, &tenants, work, checked, 0.0).await
}

#[tokio::test]
async fn what_is_published_is_counted_afterwards() {
    let house = House::new(keys(), false, false);
    let states =
        Census::States([("room-1".to_owned(), ChannelState { subscriptions: 2, ..Default::default() })].into());
    *house.bus.answer.lock().unwrap() = Some(states.clone());
    *house.bus.missing.lock().unwrap() = vec![NodeId::from_random(7)];
    let answer = carried_out(&house.master, &Caller::Anyone, say_and_count("shop", "shop")).await.unwrap();
    assert!(matches!(answer.done, Done::Census(census) if census == states));
    assert_eq!(answer.missing, [NodeId::from_random(7)]);
    assert_eq!((house.bus.take_published().len(), house.bus.asked.lock().unwrap().len()), (1, 1));
    let counted = house.counted();
    for line in ["wellhead_pushes_total{kind=\"channel\",result=\"ok\"} 1", "wellhead_partial_answers_total 1"] {
        assert!(counted.contains(line), "{counted}");
    }
}

#[tokio::test]
async fn it_is_done_as_a_whole_or_not_at_all() {
    let house = House::new(keys(), false, false);
    let holder = |name: &str| {
        let bearer = format!("Bearer {name}");
        let headers = Sent(&[("authorization", &bearer)]);
        keys::admit_holder(&house.master.0.tenants.load(), &headers, Right::Push).expect("a key")
    };
    // an app that is not served, a key for other apps, a key for one of the channels only
    for (caller, app, asked) in [
        (Caller::Anyone, "other", "shop"),
        (Caller::Anyone, "shop", "other"),
        (holder("nothing"), "shop", "shop"),
        (holder("rooms"), "shop", "shop"),
    ] {
        let refused = carried_out(&house.master, &caller, say_and_count(app, asked)).await;
        assert!(matches!(refused, Err(error::MasterError::Refused(_))), "{caller:?} {app} {asked}");
    }
    assert!(house.bus.take_published().is_empty() && house.bus.asked.lock().unwrap().is_empty());
}
