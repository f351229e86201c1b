//! The index against a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use wellhead_proto::ids::ChannelKey;

use super::*;

fn app(no: u8) -> AppId {
    format!("app{}", no % 2).parse().unwrap()
}

fn user(no: u8) -> UserId {
    if no % 4 == 3 { UserId::nobody() } else { format!("user{}", no % 4).parse().unwrap() }
}

fn channel(no: u8) -> ChannelName {
    ["a", "ab", "abc", "b"][usize::from(no % 4)].parse().unwrap()
}

#[derive(Clone, Debug)]
enum IndexStep {
    Enter { socket: u8, app: u8, user: u8 },
    Exit { socket: u8 },
    Identify { socket: u8, user: u8 },
    Join { socket: u8, channel: u8 },
    Leave { socket: u8, channel: u8 },
    BeginWalk { app: u8, channel: u8 },
    EndWalk,
}

fn step() -> impl Strategy<Value = IndexStep> {
    let no = 0..24u8;
    prop_oneof![
        4 => (no.clone(), no.clone(), no.clone()).prop_map(|(socket, app, user)| IndexStep::Enter { socket, app, user }),
        2 => no.clone().prop_map(|socket| IndexStep::Exit { socket }),
        3 => (no.clone(), no.clone()).prop_map(|(socket, user)| IndexStep::Identify { socket, user }),
        8 => (no.clone(), no.clone()).prop_map(|(socket, channel)| IndexStep::Join { socket, channel }),
        6 => (no.clone(), no.clone()).prop_map(|(socket, channel)| IndexStep::Leave { socket, channel }),
        1 => (no.clone(), no).prop_map(|(app, channel)| IndexStep::BeginWalk { app, channel }),
        1 => Just(IndexStep::EndWalk),
    ]
}

/// Per socket: its app, its user, and its channels.
type Model = BTreeMap<u8, (AppId, UserId, BTreeSet<ChannelName>)>;

/// Channels of an app, each with who is there, in join order as far as the model knows it (it does not).
fn occupied(model: &Model, of: &AppId) -> BTreeMap<ChannelName, BTreeSet<u8>> {
    let mut channels = BTreeMap::<_, BTreeSet<u8>>::new();
    for (socket, (app, _, on)) in model {
        for channel in on.iter().filter(|_| app == of) {
            channels.entry(channel.clone()).or_default().insert(*socket);
        }
    }
    channels
}

fn keys(channels: &[ChannelRef]) -> BTreeSet<ChannelKey> {
    channels.iter().map(ChannelRef::key).collect()
}

proptest! {
    #[test]
    fn the_index_agrees_with_the_model(steps in vec(step(), 0..300)) {
        let mut index = Index::<u8>::default();
        let mut model = Model::new();
        let mut walked: Option<ChannelNo> = None;
        let mut subscriptions = 0;
        for step in steps {
            let mut change = Change::default();
            let before: BTreeSet<_> = [app(0), app(1)].iter().flat_map(|app| {
                let app = app.clone();
                occupied(&model, &app).into_keys().map(move |name| ChannelKey { app: app.clone(), name })
            }).collect();
            match step {
                IndexStep::Enter { socket, app: a, user: u } if !model.contains_key(&socket) => {
                    index.open(u32::from(socket), app(a), user(u), socket);
                    model.insert(socket, (app(a), user(u), BTreeSet::new()));
                }
                IndexStep::Exit { socket } => {
                    let gone = index.close(u32::from(socket));
                    prop_assert_eq!(gone.as_ref().map(|(it, _)| *it), model.remove(&socket).map(|_| socket));
                    change = gone.map(|(_, change)| change).unwrap_or_default();
                }
                IndexStep::Identify { socket, user: u } if model.contains_key(&socket) => {
                    let local_socket = index.local_socket_of(u32::from(socket)).unwrap();
                    let is = &mut model.get_mut(&socket).unwrap().1;
                    let may = is.is_nobody() || *is == user(u);
                    prop_assert_eq!(index.identify(local_socket, user(u)), may);
                    if may {
                        *is = user(u);
                    }
                }
                IndexStep::Join { socket, channel: c } if model.contains_key(&socket) => {
                    let local_socket = index.local_socket_of(u32::from(socket)).unwrap();
                    index.subscribe(local_socket, &channel(c), Some(format!("tag{c}").into()), &mut change);
                    model.get_mut(&socket).unwrap().2.insert(channel(c));
                    let local_channel = index.local_channel(index.app_of(local_socket), &channel(c)).unwrap();
                    let tag = format!("tag{c}");
                    prop_assert_eq!(index.tag(local_socket, local_channel), Some(tag.as_str()));
                }
                IndexStep::Leave { socket, channel: c } if model.contains_key(&socket) => {
                    let local_socket = index.local_socket_of(u32::from(socket)).unwrap();
                    let was_on = model.get_mut(&socket).unwrap().2.remove(&channel(c));
                    prop_assert_eq!(index.is_on(local_socket, &channel(c)), was_on);
                    prop_assert_eq!(index.unsubscribe(local_socket, &channel(c), &mut change), was_on);
                }
                IndexStep::BeginWalk { app: a, channel: c } if walked.is_none() => {
                    walked = index.local_channel(&app(a), &channel(c));
                    walked.inspect(|&local_channel| index.pin(local_channel));
                }
                IndexStep::EndWalk => {
                    if let Some(local_channel) = walked.take() {
                        let occupied = index.occupied(local_channel) > 0;
                        prop_assert_eq!(index.unpin(local_channel), occupied);
                    }
                }
                _ => {}
            }

            subscriptions += change.subscriptions;
            let mut after = BTreeSet::new();
            for app in [app(0), app(1)] {
                let expected = occupied(&model, &app);
                let channels: Vec<_> = index.channels(&app, "", None).map(|(name, _)| name.clone()).collect();
                prop_assert_eq!(&channels, &expected.keys().cloned().collect::<Vec<_>>());
                for (name, sockets) in expected {
                    let local_channel = index.local_channel(&app, &name).unwrap();
                    let sockets_from: Vec<_> = index.sockets_from(local_channel, 0).map(|(_, _, it)| *it).collect();
                    prop_assert_eq!(sockets_from.len(), sockets.len(), "nobody sits twice");
                    prop_assert_eq!(index.occupied(local_channel), sockets.len());
                    prop_assert_eq!(sockets_from.into_iter().collect::<BTreeSet<_>>(), sockets);
                    after.insert(ChannelKey { app: app.clone(), name });
                }
                let local_sockets = index.entries_from(0).filter_map(|(_, local_socket)| local_socket);
                let users: BTreeSet<_> = local_sockets.filter(|(there, _)| **there == app).map(|(_, user)| user.clone()).collect();
                let there = model.values().filter(|(there, ..)| *there == app);
                prop_assert_eq!(users, there.map(|(_, user, _)| user.clone()).collect::<BTreeSet<_>>());
                for user in (0..3).map(user) {
                    let local_sockets: BTreeSet<_> = index.local_sockets_of(&app, &user).iter().map(|&local_socket| *index.at(local_socket)).collect();
                    prop_assert_eq!(index.is_online(&app, &user), !local_sockets.is_empty());
                    let there = model.iter().filter(|(_, (there, who, _))| *there == app && *who == user);
                    prop_assert_eq!(local_sockets, there.map(|(socket, _)| *socket).collect::<BTreeSet<_>>());
                }
                for prefix in ["a", "ab", "b", "abc"] {
                    let names: Vec<_> = index.channels(&app, prefix, None).map(|(name, _)| name.clone()).collect();
                    let naive = occupied(&model, &app).into_keys().filter(|name| name.as_str().starts_with(prefix));
                    prop_assert_eq!(names, naive.collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(keys(&change.occupied), &after - &before);
            prop_assert_eq!(keys(&change.vacated), &before - &after);
            prop_assert_eq!(subscriptions, model.values().map(|(_, _, on)| on.len() as i64).sum::<i64>());
        }
        for socket in 0..24 {
            index.close(socket);
        }
        if let Some(local_channel) = walked {
            index.unpin(local_channel);
        }
        prop_assert!(index.local_sockets.is_empty() && index.local_channels.is_empty() && index.apps.is_empty() && index.sockets.is_empty());
        prop_assert!(index.by_channel.is_empty() && index.by_app.is_empty() && index.names.len() == 0);
    }
}

#[test]
fn seats_stand_in_join_order_and_keep_their_place_while_somebody_walks() {
    let mut index = Index::default();
    let mut change = Change::default();
    let name = channel(0);
    let local_sockets: Vec<_> = (0..100).map(|socket| index.open(socket, app(0), user(0), socket)).collect();
    for &local_socket in &local_sockets {
        index.subscribe(local_socket, &name, None, &mut change);
    }
    let local_channel = index.local_channel(&app(0), &name).unwrap();
    index.pin(local_channel);
    for &local_socket in &local_sockets[..99] {
        index.unsubscribe(local_socket, &name, &mut change);
    }
    assert_eq!(
        index.sockets_from(local_channel, 50).map(|(place, _, it)| (place, *it)).collect::<Vec<_>>(),
        [(99, 99)]
    );
    index.unpin(local_channel);
    assert_eq!(index.sockets_from(local_channel, 0).map(|(place, _, it)| (place, *it)).collect::<Vec<_>>(), [(0, 99)]);
    index.subscribe(local_sockets[3], &name, None, &mut change);
    index.subscribe(local_sockets[1], &name, None, &mut change);
    assert_eq!(index.sockets_from(local_channel, 0).map(|(_, _, it)| *it).collect::<Vec<_>>(), [99, 3, 1]);
}

#[test]
fn a_channel_takes_little_of_a_thread() {
    assert_eq!(size_of::<Option<LocalChannel>>(), 56, "held once for each channel");
}

#[test]
fn a_number_that_another_channel_has_by_now_finds_nothing() {
    let (mut index, mut change) = (Index::default(), Change::default());
    let local_socket = index.open(1, app(0), user(0), ());
    index.subscribe(local_socket, &channel(0), None, &mut change);
    let (id, _) = index.names.find(&app(0), &channel(0)).unwrap();
    assert!(index.room_if(id, &app(0), &channel(0)).is_some());
    assert!(index.room_if(id, &app(1), &channel(0)).is_none() && index.room_if(id, &app(0), &channel(1)).is_none());
    index.close(1);
    assert!(index.room_if(id, &app(0), &channel(0)).is_none());
}
