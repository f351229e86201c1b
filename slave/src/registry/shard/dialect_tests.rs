//! What only sockets of one dialect receive, and who of them is on a channel.

use wellhead_proto::{
    command::Within,
    query::{SocketTags, SocketsQuery},
};

use super::*;

fn within(dialect: &str, to: Within, data: &str) -> Command {
    let data = Payload::Json(data.to_owned().into());
    Command::WithinDialect { dialect: dialect.to_owned(), to, data }
}

#[tokio::test]
async fn it_reaches_the_dialect_in_slices_wherever_its_sockets_are_or_on_no_channel_only() {
    let mut scene = Scene::new().await;
    let mut crowd = Vec::new();
    for no in 0..4 * CHUNK {
        let client = scene.client((no % 2) as u8).await;
        if no % 4 == 0 {
            scene.join(&client, "c", "");
        }
        crowd.push(client);
    }
    scene.order(within("another", Within::Everybody, "0"));
    scene.order_in("other", within("twofold", Within::Everybody, "0"));
    scene.order(within("twofold", Within::NoChannel, "1"));
    assert!(scene.shard.flush(), "not all at once");
    // what comes meanwhile waits
    scene.order(within("twofold", Within::Everybody, "2"));
    scene.flush();
    for (no, client) in crowd.iter_mut().enumerate() {
        match no % 4 {
            0 => assert_eq!(client.reads(2).await, ["joined", "2"]),
            _ => assert_eq!(client.reads(2).await, ["1", "2"]),
        }
    }
}

#[tokio::test]
async fn on_a_channel_it_keeps_its_place_among_the_pushes() {
    let mut scene = Scene::new().await;
    let (mut on, mut off) = (scene.client(0).await, scene.client(0).await);
    scene.join(&on, "c", "x");
    let channel = || Within::Channel("c".parse().unwrap());
    scene.push("c", "1", None);
    scene.order(within("twofold", channel(), "2"));
    scene.order(within("another", channel(), "0"));
    scene.push("c", "3", None);
    scene.order(within("twofold", Within::NoChannel, "4"));
    scene.flush();
    assert_eq!(on.reads(4).await, ["joined", "c:1", "2", "c:3"]);
    assert_eq!(off.reads(1).await, ["4"]);
}

#[tokio::test]
async fn sockets_on_a_channel_are_listed_with_their_tags_and_no_more_than_are_wanted() {
    let mut scene = Scene::new().await;
    let mut ids = Vec::new();
    for no in 0..6 {
        let client = scene.client(0).await;
        scene.join(&client, if no < 4 { "c" } else { "d" }, &format!("tag-{no}"));
        ids.push(client.id);
        drop(client);
    }
    let mut ask = |channel: &str, dialect: Option<&str>, most| -> SocketTags {
        let (app, dialect) = ("app".parse().unwrap(), dialect.map(ToOwned::to_owned));
        let query = SocketsQuery { app, channel: channel.parse().unwrap(), dialect, most };
        scene.ask(query, RunningQuery::Sockets).0
    };
    let four: SocketTags = (0..4).map(|no| (ids[no], format!("tag-{no}"))).collect();
    assert_eq!(ask("c", Some("twofold"), 10), four);
    assert_eq!(ask("c", None, 10), four);
    assert_eq!(ask("c", None, 1).len(), 1);
    assert!(ask("c", Some("another"), 10).is_empty() && ask("nowhere", None, 10).is_empty());
}

#[tokio::test]
async fn a_long_tail_is_shared_by_sockets_of_many_tags_and_a_short_one_may_be_copied() {
    let scene = Scene::new().await;
    let encodings = &scene.shard.encodings;
    let with_head = (0..encodings.len() as u8).find(|&no| encodings.at(no).variant == Variant(1)).unwrap();
    for (bytes, is_copied) in [(100, true), (8 << 10, false)] {
        let event = Event::new("e".parse().unwrap(), Payload::Text("x".repeat(bytes).into()));
        let push = QueuedPush::new("c".parse().unwrap(), event, None, None, Instant::now());
        let mut broadcast = Broadcast::new(vec![push]);
        let tags: Vec<_> = (0..40).map(|no| no.to_string()).collect();
        let copied =
            tags.iter().filter(|tag| broadcast.headed(with_head, encodings, || tag.as_str()).is_some()).count();
        assert_eq!(copied == tags.len(), is_copied, "{copied} of {bytes} bytes");
        assert!(broadcast.headed(with_head, encodings, || "0").is_some(), "the first ones are kept");
    }
}
