//! Members among the sockets of a thread.

use wellhead_proto::{ids::ChannelKey, notice::Denial};

use super::*;
use crate::{
    channels::ChannelRef,
    presence::{MemberNotifier, MemberUpdate},
};

fn key(channel: &str) -> ChannelKey {
    ChannelKey { app: "app".parse().unwrap(), name: channel.parse().unwrap() }
}

fn member(user: &str) -> Member {
    Member { user: user.parse().unwrap(), info: "{}".into() }
}

impl Scene {
    /// The socket comes as `user`; the members that it is shown.
    fn attend(&mut self, client: &TestClient, channel: &str, user: &str) -> Result<Vec<String>, Denial> {
        let members = self.shard.attend(client.id, &key(channel), &member(user), 3, Some("".into()))?;
        Ok(members.keys().map(ToString::to_string).collect())
    }

    /// The bus brings a change, and the slave's replica numbers it.
    fn tell(&mut self, channel: &str, number: u64, change: MemberChange) {
        let permit = self.backlog.admit(0);
        let ChannelKey { app, name } = key(channel);
        let channel = self.shard.interests.names().refer(&app, &name);
        self.shard.tell_members(channel, MemberUpdate { number, change }, permit);
    }

    /// The replica hears of a change, and the thread does not yet.
    fn announce(&self, channel: &str, change: MemberChange) {
        self.shard.presence.announced(&key(channel), change, &Nobody);
    }

    fn users_of(&mut self, channel: &str) -> Names {
        let of = Listing::UsersOf(channel.parse().unwrap());
        self.ask(NamesQuery { app: "app".parse().unwrap(), of }, RunningQuery::Names).0
    }
}

#[tokio::test]
async fn members_are_told_of_others_that_their_list_does_not_know_of() {
    let mut scene = Scene::new().await;
    let (mut ann, mut bob, mut wordless, mut no_member) =
        (scene.client(0).await, scene.client(0).await, scene.client(1).await, scene.client(0).await);
    assert_eq!(scene.attend(&ann, "p", "ann").unwrap(), ["ann"]);
    scene.attend(&wordless, "p", "eve").unwrap();
    scene.join(&no_member, "p", "");
    // told while a message was under way to this thread: in the list of who came since, and not told again
    scene.announce("p", MemberChange::Added(member("ann")));
    scene.announce("p", MemberChange::Added(member("eve")));
    assert_eq!(scene.attend(&bob, "p", "bob").unwrap(), ["ann", "bob", "eve"]);
    scene.tell("p", 1, MemberChange::Added(member("ann")));
    scene.tell("p", 2, MemberChange::Added(member("eve")));
    scene.tell("p", 3, MemberChange::Added(member("bob")));
    scene.tell("q", 4, MemberChange::Added(member("joe")));
    scene.push("p", "1", None);
    scene.flush();
    assert_eq!(ann.reads(3).await, ["p+eve", "p+bob", "p:1"]);
    assert_eq!(bob.reads(1).await, ["p:1"]);
    assert_eq!(wordless.reads(1).await, ["[]p:1"]);
    assert_eq!(no_member.reads(2).await, ["joined", "p:1"]);

    scene.shard.unsubscribe(bob.id, &"p".parse().unwrap());
    scene.tell("p", 5, MemberChange::Removed("bob".parse().unwrap()));
    scene.push("p", "2", None);
    scene.flush();
    assert_eq!(ann.reads(2).await, ["p-bob", "p:2"]);
}

/// Tells nobody: a test hands on what is to be told itself.
struct Nobody;

impl MemberNotifier for Nobody {
    fn notify(&self, _: &ChannelRef, _: MemberUpdate) {}
}

#[tokio::test]
async fn a_change_keeps_its_place_among_the_pushes_of_a_large_channel_and_members_come_at_once() {
    let mut scene = Scene::new().await;
    let mut ann = scene.client(0).await;
    scene.attend(&ann, "p", "ann").unwrap();
    for _ in 0..3 * CHUNK {
        let client = scene.client(0).await;
        scene.join(&client, "p", "");
    }
    scene.push("p", "1", None);
    scene.tell("p", 1, MemberChange::Added(member("bob")));
    scene.push("p", "2", None);
    assert!(scene.shard.flush(), "it is under way");
    // joins of others wait for its end
    let bob = scene.client(0).await;
    assert_eq!(scene.attend(&bob, "p", "bob").unwrap(), ["bob"], "nobody else is announced");
    scene.flush();
    assert_eq!(ann.reads(3).await, ["p:1", "p+bob", "p:2"]);
}

#[tokio::test]
async fn who_ends_is_a_member_no_more_and_lists_know_members_by_their_names() {
    let mut scene = Scene::new().await;
    let (ann, bob, plain) = (scene.client(0).await, scene.client(0).await, scene.client(0).await);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Names>();
    for (client, user) in [(&ann, "m-ann"), (&bob, "m-bob")] {
        for channel in ["p", "q"] {
            scene.attend(client, channel, user).unwrap();
            scene.announce(channel, MemberChange::Added(member(user)));
        }
    }
    scene.join(&plain, "p", "");
    // every socket of the scene is ann's
    assert_eq!(scene.users_of("p"), names(&["ann", "m-ann", "m-bob"]));
    assert_eq!(scene.attend(&plain, "q", "m-eve"), Ok(["m-ann", "m-bob", "m-eve"].map(String::from).to_vec()));
    let late = scene.client(0).await;
    assert_eq!(scene.attend(&late, "q", "m-joe"), Err(Denial::Full { most: 3 }));
    let local_socket = scene.shard.index.local_socket_of(late.id.counter()).unwrap();
    assert!(!scene.shard.socket_view(local_socket).is_on(&"q".parse().unwrap()));
    for (client, user) in [(&ann, "m-ann"), (&plain, "m-eve")] {
        scene.shard.close(client.id);
        scene.announce("q", MemberChange::Removed(user.parse().unwrap()));
    }
    assert_eq!(scene.attend(&late, "q", "m-joe").unwrap(), ["m-bob", "m-joe"]);
    assert_eq!(scene.users_of("p"), names(&["ann", "m-bob"]));
    let query = MembersQuery { app: "app".parse().unwrap(), channel: "q".parse().unwrap() };
    let members = scene.ask(query, RunningQuery::Members).0;
    assert_eq!(members, ["m-bob", "m-joe"].map(|user| (user.parse().unwrap(), "{}".into())).into());
    for client in [&bob, &late] {
        scene.shard.close(client.id);
    }
    assert!(scene.shard.members.is_empty());
}
