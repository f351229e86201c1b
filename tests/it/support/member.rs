//! A member of a presence channel who keeps count of the others, as pusher-js does, and is strict about it: nobody comes
//! twice, nobody leaves who was not there. The list that it is given first may be a moment behind; then it is told the rest.

use std::collections::BTreeSet;

use super::pusher::{PusherClient, PusherMessage, channel_data, joined};

/// One of them.
pub struct PresenceClient {
    pub client: PusherClient,
    channel: String,
    user: String,
    /// Everybody, itself among them.
    pub there: BTreeSet<String>,
    /// What it was told since it came, as `+ann` and `-ann`.
    pub told: Vec<String>,
}

impl PresenceClient {
    /// `client` joins.
    pub async fn join(client: PusherClient, channel: &str, user: &str) -> Self {
        Self::join_as(client, channel, user, &channel_data(user)).await
    }

    /// The same with a `channel_data` of its own.
    pub async fn join_as(mut client: PusherClient, channel: &str, user: &str, channel_data: &str) -> Self {
        client.wish(channel, Some(channel_data)).await;
        let there: BTreeSet<_> = joined(&client.next().await, channel).into_iter().collect();
        assert!(there.contains(user), "itself among them: {there:?}");
        Self { client, channel: channel.to_owned(), user: user.to_owned(), there, told: Vec::new() }
    }

    /// It is told something.
    pub fn take(&mut self, said: &PusherMessage) {
        assert_eq!(said.channel.as_ref(), Some(&self.channel), "{said:?}");
        let data = said.inner();
        let user = data["user_id"].as_str().expect("a string").to_owned();
        assert_ne!(user, self.user, "nobody is told of oneself: {said:?}");
        match &*said.event {
            "pusher_internal:member_added" => {
                assert!(data["user_info"].is_object(), "{said:?}");
                assert!(self.there.insert(user.clone()), "added twice: {said:?}");
                self.told.push(format!("+{user}"));
            }
            "pusher_internal:member_removed" => {
                assert_eq!(data.as_object().map(serde_json::Map::len), Some(1), "{said:?}");
                assert!(self.there.remove(&user), "removed, and was not there: {said:?}");
                self.told.push(format!("-{user}"));
            }
            _ => panic!("{said:?}"),
        }
    }

    /// The next that it is told.
    pub async fn hears(&mut self) -> &str {
        let said = self.client.next().await;
        self.take(&said);
        self.told.last().expect("just now")
    }

    /// Listen until these are there, and nobody else.
    pub async fn sees(&mut self, wanted: &BTreeSet<String>) {
        while self.there != *wanted {
            self.hears().await;
        }
    }

    /// Nothing else has come until now.
    pub async fn is_quiet(&mut self) {
        self.client.is_quiet().await;
    }
}

/// These users.
pub fn users<'a>(users: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    users.into_iter().map(ToOwned::to_owned).collect()
}
