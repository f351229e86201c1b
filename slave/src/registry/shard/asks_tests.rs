//! Long commands and long queries of a thread: in slices, and in order.

use super::*;
use crate::registry::survey::SLICE;

async fn crowd(scene: &mut Scene, many: usize) -> Vec<TestClient> {
    let mut crowd = Vec::new();
    for _ in 0..many {
        let client = scene.client(0).await;
        scene.join(&client, "c", "");
        crowd.push(client);
    }
    crowd
}

fn ann() -> UserId {
    "ann".parse().unwrap()
}

fn grants_of_ann() -> GrantsQuery {
    GrantsQuery { app: "app".parse().unwrap(), user: ann() }
}

#[tokio::test]
async fn a_reload_of_many_sockets_is_cut_and_no_push_overtakes_it() {
    let mut scene = Scene::new().await;
    let mut crowd = crowd(&mut scene, 4 * CHUNK).await;
    let channels = vec!["d*".try_into().unwrap()];
    scene.order(Command::Reload { user: ann(), within: vec![ChannelPattern::everything()], channels });
    let held = |scene: &Scene| {
        scene.shard.index.local_sockets().filter(|(_, local_socket)| local_socket.grants.len() == 1).count()
    };
    assert_eq!(held(&scene), CHUNK, "one turn reaches no more");
    scene.push("c", "1", None);
    scene.order(Command::Direct { to: Target::User(ann()), data: Payload::sniff("2".into()) });
    let mut turns = 0;
    while scene.shard.flush() {
        turns += 1;
        assert!(held(&scene) <= (turns + 1) * CHUNK, "turn {turns}");
    }
    assert!(turns >= 6, "{turns} turns for two orders to four times {CHUNK} sockets");
    assert!(scene.backlog.is_empty());
    for client in &mut crowd {
        assert_eq!(client.reads(2).await, ["joined", "2"], "nobody who has lost the channel hears of it");
    }
}

#[tokio::test]
async fn a_reload_within_some_channels_leaves_each_socket_what_it_has_elsewhere() {
    let mut scene = Scene::new().await;
    let mut crowd = crowd(&mut scene, 3 * CHUNK).await;
    let patterns = |names: &[&str]| names.iter().map(|&name| name.try_into().unwrap()).collect::<Vec<_>>();
    let local_socket_of =
        |scene: &Scene, client: &TestClient| scene.shard.index.local_socket_of(client.id.counter()).unwrap();
    for (no, client) in crowd.iter().enumerate() {
        let (local_socket, own) = (local_socket_of(&scene, client), format!("own{}", no % 3));
        let grants = scene.shard.grants.share(patterns(&["c*", &own]));
        scene.shard.index.at_mut(local_socket).grants = grants;
        scene.join(client, &own, "");
    }
    scene.order(Command::Reload { user: ann(), within: patterns(&["c", "c*"]), channels: patterns(&["c2", "c3"]) });
    let held = |scene: &Scene| {
        scene.shard.index.local_sockets().filter(|(_, local_socket)| local_socket.grants.len() == 3).count()
    };
    assert!((1..=CHUNK).contains(&held(&scene)), "one turn reaches no more");
    scene.push("c", "1", None);
    // whoever asks after the reload hears what is in force then
    let (names, turns) = scene.ask(grants_of_ann(), RunningQuery::Grants);
    assert!(turns >= 2, "{turns}");
    assert_eq!(names, Names::from(["c2", "c3", "own0", "own1", "own2"].map(str::to_owned)));
    scene.flush();
    for (no, client) in crowd.iter_mut().enumerate() {
        let own = format!("own{}", no % 3);
        assert_eq!(*scene.shard.index.at(local_socket_of(&scene, client)).grants, patterns(&[&own, "c2", "c3"]));
        scene.push(&own, "2", None);
        scene.flush();
        let expected = ["joined".to_owned(), "joined".to_owned(), format!("{own}:2")];
        assert_eq!(client.reads(3).await, expected, "of what it has lost it hears nothing");
        scene.shard.close(client.id);
    }
}

#[tokio::test]
async fn a_reload_beyond_the_limit_takes_away_and_adds_what_there_is_room_for() {
    let mut scene = Scene::new().await;
    let client = scene.client(0).await;
    let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
    let many = |letter: &str, many: usize| -> Vec<ChannelPattern> {
        (0..many).map(|no| format!("{letter}{no:03}{}", "x".repeat(1_000)).as_str().try_into().unwrap()).collect()
    };
    let within = |pattern: &str| vec![pattern.try_into().unwrap()];
    scene.order(Command::Reload { user: ann(), within: within("a*"), channels: many("a", 60) });
    scene.order(Command::Reload { user: ann(), within: within("b*"), channels: many("b", 60) });
    scene.flush();
    let full = (64 << 10) / 1_007;
    assert_eq!(*scene.shard.index.at(local_socket).grants, [many("a", 60), many("b", full - 60)].concat());
    scene.order(Command::Reload { user: ann(), within: within("a*"), channels: vec![] });
    scene.flush();
    assert_eq!(*scene.shard.index.at(local_socket).grants, many("b", full - 60));
}

#[tokio::test]
async fn what_a_user_may_is_found_in_slices() {
    let mut scene = Scene::new().await;
    let client = scene.client(0).await;
    let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
    let names: std::collections::BTreeSet<_> = (0..9 * SLICE).map(|no| format!("{no:06}")).collect();
    let grants = names.iter().map(|name| name.as_str().try_into().unwrap()).collect();
    scene.shard.index.at_mut(local_socket).grants = scene.shard.grants.share(grants);
    let (found, turns) = scene.ask(grants_of_ann(), RunningQuery::Grants);
    assert_eq!(found, names);
    assert!((8..20).contains(&turns), "{turns}");
}

#[tokio::test]
async fn sockets_that_come_or_go_during_an_order_do_not_confuse_it() {
    let mut scene = Scene::new().await;
    let mut crowd = crowd(&mut scene, 2 * CHUNK).await;
    scene.order(Command::Direct { to: Target::User(ann()), data: Payload::sniff("1".into()) });
    let gone = crowd.pop().unwrap();
    scene.shard.close(gone.id);
    // under the number of the one that is gone
    let mut late = scene.client(0).await;
    scene.order(Command::Direct { to: Target::User(ann()), data: Payload::sniff("2".into()) });
    scene.flush();
    for client in &mut crowd {
        assert_eq!(client.reads(3).await, ["joined", "1", "2"]);
    }
    assert_eq!(late.reads(1).await, ["2"], "the first order was not for it");
}

#[tokio::test]
async fn what_is_added_beyond_the_limit_is_left_out() {
    let mut scene = Scene::new().await;
    let client = scene.client(0).await;
    let grants = |scene: &Scene| {
        let local_socket = scene.shard.index.local_socket_of(client.id.counter()).unwrap();
        scene.shard.index.at(local_socket).grants.clone()
    };
    for no in 0..100 {
        let channel = format!("{no:03}-{}", "x".repeat(1_000)).as_str().try_into().unwrap();
        scene.order(Command::Grant { user: ann(), channel });
        scene.flush();
    }
    let full = grants(&scene);
    assert_eq!(full.len(), (64 << 10) / 1_007);
    scene.order(Command::Grant { user: ann(), channel: full[0].clone() });
    assert_eq!(grants(&scene), full, "what is there already needs no room");
    scene.order(Command::Grant { user: ann(), channel: "y".try_into().unwrap() });
    assert_eq!(grants(&scene).len(), full.len() + 1, "what fits is added");
    scene.flush();
}

#[tokio::test]
async fn a_push_to_a_pattern_looks_at_so_many_channels_a_turn() {
    let mut scene = Scene::new().await;
    let mut client = scene.client(0).await;
    let channels: Vec<ChannelName> = (0..9 * SLICE).map(|no| format!("c{no:06}").parse().unwrap()).collect();
    let socket = client.id.counter();
    let join = PendingSubscribe { socket, channels, tag: None, reply: None, done: None };
    assert!(scene.shard.subscribe(join).is_none());
    let matching = |pattern: &str| PublishMatching {
        app: "app".parse().unwrap(),
        pattern: pattern.to_owned(),
        within: vec![ChannelPattern::everything()],
        event: Event::new("e".parse().unwrap(), Payload::sniff("1".into())),
    };
    let (matched, turns) = scene.ask(matching("0$"), RunningQuery::Publish);
    assert_eq!(matched.len(), 9 * SLICE / 10 + 1);
    assert!((2..20).contains(&turns), "{turns}");
    scene.flush();
    let heard = client.reads(matched.len()).await;
    let expected: Vec<_> = (0..9 * SLICE).step_by(10).map(|no| format!("c{no:06}:1")).collect();
    assert_eq!(heard, expected, "each once");
    assert_eq!(scene.ask(matching("^c000007$"), RunningQuery::Publish), ([name_hash("c000007")].into(), 0));
    scene.flush();
}

#[tokio::test]
async fn who_says_who_it_is_during_a_question_is_found() {
    let mut scene = Scene::new().await;
    let (early, long, late) =
        (scene.client_of(0, "").await, scene.client_of(0, "ann").await, scene.client_of(0, "").await);
    scene.join(&early, "z", "");
    scene.join(&late, "z", "");
    // to look at all of these takes a turn
    let channels: Vec<ChannelName> = (0..9 * SLICE).map(|no| format!("c{no:06}").parse().unwrap()).collect();
    let join = PendingSubscribe { socket: long.id.counter(), channels, tag: None, reply: None, done: None };
    assert!(scene.shard.subscribe(join).is_none());
    let (reply, mut answer) = oneshot::channel();
    let of = Listing::Users { within: Some(vec!["z".try_into().unwrap()]) };
    let query = Arc::new(NamesQuery { app: "app".parse().unwrap(), of });
    scene.shard.ask(RunningQuery::Names(PendingAnswer { query, reply }), scene.backlog.admit(0));
    assert!(answer.try_recv().is_err(), "it is under way, behind the first socket");
    scene.shard.identify(early.id, &"bob".parse().unwrap());
    scene.shard.identify(late.id, &"eve".parse().unwrap());
    scene.flush();
    assert_eq!(answer.try_recv().unwrap().into_iter().collect::<Vec<_>>(), ["bob", "eve"]);
}
