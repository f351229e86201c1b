//! Counts and watched users among the sockets of a thread.

use wellhead_proto::{
    jwt::Keyring,
    origin::Origins,
    tenants::{AppWants, ListedTenant},
};

use super::*;
use crate::{presence::UserStanding, registry::CountUpdate};

impl Scene {
    /// In an app that counts its channels, but for those with this name.
    async fn counting() -> Self {
        Self::counting_for(true).await
    }

    /// The same, in an app that tells its clients of the counts, or only somebody outside.
    async fn counting_for(tells_counts: bool) -> Self {
        let wants =
            AppWants { watchlists: true, counts: Some(|channel| channel.as_str() != "uncounted"), tells_counts };
        let listed = ListedTenant { wants, ..ListedTenant::default() };
        Self::of(Tenants::new(Keyring::default(), [("app".parse().unwrap(), listed)], false, Origins::any())).await
    }

    fn tell_count(&mut self, channel: &str, count: u64, all: bool) {
        let channel = self.shard.interests.names().refer(&"app".parse().unwrap(), &channel.parse().unwrap());
        let permit = self.backlog.admit(0);
        self.shard.tell_count(CountUpdate { channel, count, all, permit });
        self.flush();
    }

    /// It watches these from now on; it is told something at once.
    fn watch(&mut self, client: &TestClient, users: &[&str]) -> bool {
        let users: Vec<_> = users.iter().map(|user| user.parse().unwrap()).collect();
        self.shard.watch(client.id, &users).is_some()
    }

    fn stands(&mut self, user: &str, online: bool, number: u64) {
        let (app, user) = ("app".parse().unwrap(), user.parse().unwrap());
        self.shard.users_stand(vec![UserStanding { app, user, online, number }]);
    }
}

#[tokio::test]
async fn a_count_is_told_to_all_or_to_those_who_came_since() {
    let mut scene = Scene::counting().await;
    let (mut ann, mut bob, cay) = (scene.client(0).await, scene.client(1).await, scene.client(0).await);
    scene.join(&ann, "c", "");
    scene.tell_count("c", 1, true);
    assert_eq!(ann.reads(2).await, ["joined", "c=1"]);
    scene.join(&bob, "c", "7");
    scene.join(&cay, "c", "");
    scene.shard.unsubscribe(cay.id, &"c".parse().unwrap());
    scene.tell_count("c", 2, false);
    scene.tell_count("c", 3, false);
    scene.push("c", "last", None);
    scene.flush();
    assert_eq!(ann.reads(1).await, ["c:\"last\""]);
    assert_eq!(bob.reads(3).await, ["joined", "[7]c=2", "[7]c:\"last\""]);
    // nothing is kept of channels that are left, or are not counted
    scene.join(&ann, "uncounted", "");
    scene.join(&ann, "d", "");
    assert_eq!(scene.shard.newcomers.len(), 1);
    scene.shard.close(ann.id);
    scene.shard.close(bob.id);
    assert!(scene.shard.newcomers.is_empty());
}

#[tokio::test]
async fn where_clients_are_not_told_of_counts_nothing_is_kept_for_it() {
    let mut scene = Scene::counting_for(false).await;
    let ann = scene.client(0).await;
    scene.join(&ann, "c", "");
    assert!(scene.shard.newcomers.is_empty() && scene.shard.presence.following.counts());
}

#[tokio::test]
async fn a_user_whom_many_watch_is_told_of_in_slices_between_which_others_are_served() {
    let mut scene = Scene::counting().await;
    let mut crowd = Vec::new();
    for _ in 0..3 * CHUNK {
        let client = scene.client(0).await;
        assert!(!scene.watch(&client, &["eve"]), "nothing is known of her yet");
        crowd.push(client);
    }
    scene.flush();
    let mut other = scene.client(0).await;
    scene.join(&other, "small", "");
    scene.stands("eve", true, 1);
    assert!(scene.shard.flush(), "not all are told at once");
    scene.push("small", "1", None);
    assert!(scene.shard.flush());
    assert_eq!(other.reads(2).await, ["joined", "small:1"]);
    scene.flush();
    for client in &mut crowd {
        assert_eq!(client.reads(1).await, ["+eve"]);
    }
    // what is known is told at once, and a flap before its turn not at all
    let late = scene.client(0).await;
    assert!(scene.watch(&late, &["eve"]));
    scene.stands("eve", false, 2);
    scene.stands("eve", true, 3);
    scene.stands("eve", false, 2);
    scene.flush();
    scene.stands("eve", false, 4);
    scene.flush();
    assert_eq!(crowd[0].reads(1).await, ["-eve"]);
}
