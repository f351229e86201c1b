//! What the dispatcher makes of requests that no route of gusher makes.

use wellhead_proto::{
    dialect::contract::{ApiReply, MasterRequest},
    event::Event,
    query::{ChannelState, ChannelStates, StatesOf, StatesQuery},
};

use super::*;
use crate::{dispatch::MasterAnswer, keys::Caller};

/// Its reply tells the states.
fn say_and_count(app: &str, asked: &str) -> MasterRequest {
    let channel = |name: &str| name.parse().expect("a name");
    let event = Event::new("e".parse().expect("a name"), Payload::null());
    let command = Command::Publish { channel: channel("room-1"), event, except: None };
    let of = StatesOf::Named(vec![channel("room-1"), channel("news")]);
    MasterRequest::PublishAndQuery {
        envelopes: vec![Envelope { app: app.parse().expect("a name"), command }],
        query: StatesQuery { app: asked.parse().expect("a name"), of, members: false },
        reply: Box::new(|states| told(&states)),
    }
}

fn told(states: &ChannelStates) -> ApiReply {
    ApiReply::new(200, "", format!("{states:?}"))
}

async fn carried_out(
    master: &Master,
    caller: &Caller,
    mut request: MasterRequest,
) -> Result<MasterAnswer, error::MasterError> {
    let (dispatcher, tenants) = (&master.0.dispatcher, master.0.tenants.load_full());
    let checked = dispatcher.check(caller, &tenants, &mut request);
    dispatcher.carry_out(caller, &tenants, request, checked, 0.0).await
}

#[tokio::test]
async fn what_is_published_is_counted_afterwards() {
    let house = TestMaster::new(keys(), false, false);
    let states = ChannelStates::from([("room-1".to_owned(), ChannelState { subscriptions: 2, ..Default::default() })]);
    *house.bus.answer.lock().unwrap() = Some(QueryResult::States(states.clone()));
    *house.bus.missing.lock().unwrap() = vec![NodeId::from_random(7)];
    let answer = carried_out(&house.master, &Caller::Anyone, say_and_count("shop", "shop")).await.unwrap();
    assert_eq!(answer.reply, told(&states));
    assert_eq!(answer.missing, [NodeId::from_random(7)]);
    assert_eq!((house.bus.take_published().len(), house.bus.asked.lock().unwrap().len()), (1, 1));
    let counted = house.counted();
    for line in ["wellhead_pushes_total{kind=\"channel\",result=\"ok\"} 1", "wellhead_partial_answers_total 1"] {
        assert!(counted.contains(line), "{counted}");
    }
}

#[tokio::test]
async fn it_is_done_as_a_whole_or_not_at_all() {
    let house = TestMaster::new(keys(), false, false);
    let holder = |name: &str| {
        let bearer = format!("Bearer {name}");
        let headers = SentRequest(&[("authorization", &bearer)]);
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
