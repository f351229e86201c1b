//! The directory of tenants is swapped while a server serves: whatever is looked up in it is in force at once, for sockets
//! that are open, too.

use std::{fs, path::Path, sync::Arc};

use serde_json::json;
use wellhead::{
    app::{self, RunningNode, Then},
    settings::{
        load::layers,
        plan::{Plan, Roles},
    },
};
use wellhead_master::keys::KeyHash;

use crate::support::{
    client::{self, Client},
    http::Http,
    keys::{Signer, now, signer, stranger},
    pusher::{PusherClient, TestApp},
    websocket::WebSocket,
};

const OLD: TestApp = TestApp { key: "shop", id: "17", secret: "the former secret of shop" };
const NEW: TestApp = TestApp { key: "shop", id: "18", secret: "the next secret of shop" };

/// A file of settings.
struct WrittenSetting {
    /// Verifies tokens.
    signer: &'static Signer,
    /// The app for Pusher's libraries.
    app: TestApp,
    /// What else is said of it.
    more: &'static str,
    /// The key of backends.
    push_key: &'static str,
}

impl WrittenSetting {
    fn text(&self, folder: &Path) -> String {
        let Self { signer, app, more, push_key } = self;
        let public = folder.join(format!("{push_key}.pem"));
        fs::write(&public, &signer.public_pem).expect("the folder is ours");
        let listed = app.listed(more);
        let hash = KeyHash::of(push_key);
        format!(
            "[master]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[slave]\nlisten = \"127.0.0.1:0\"\n\
             [jwt]\npublic_keys = [\"{}\"]\n[[push_keys]]\nname = \"backend\"\nsha256 = \"{hash}\"\n{listed}",
            public.display()
        )
    }

    async fn start(&self, folder: &Path) -> RunningNode {
        let loaded = layers("old.toml", &self.text(folder), &[], &[]).expect("settings");
        app::start(loaded.settings).await.expect("it starts")
    }

    /// As a reload would.
    fn put_in_force(&self, folder: &Path, running: &RunningNode) {
        let loaded = layers("new.toml", &self.text(folder), &[], &[]).expect("settings");
        running.tenants.swap(Plan::new(&loaded, Roles::Standalone).expect("a plan").tenants);
    }
}

/// The statuses of what a server is asked: each with what is in force first, and with what is in force next.
async fn asked(running: &RunningNode) -> Vec<(&'static str, u16, u16)> {
    let (master, slave) = (running.addresses.master.expect("one"), running.addresses.slave.expect("one"));
    let mut http = Http::to(master).await;
    let mut found = Vec::new();
    let mut push = async |key: &str| {
        let headers = [("Authorization", key), ("Content-Type", "application/x-www-form-urlencoded")];
        http.call("POST", "/api/push/shop/news/e", &headers, "data=1").await.status
    };
    found.push(("a push key", push("Bearer old").await, push("Bearer new").await));
    let mut http = Http::to(master).await;
    let mut trigger = async |app: TestApp| {
        let (path, body) = (format!("/apps/{}/events", app.id), json!({"name": "e", "channel": "news", "data": "1"}));
        let query = app.signed("POST", &path, &[], &body.to_string(), now());
        http.json("POST", &format!("{path}?{query}"), &body.to_string()).await.status
    };
    found.push(("a signed request", trigger(OLD).await, trigger(NEW).await));
    let mut http = Http::to(slave).await;
    let mut exchange = async |signer: &Signer| {
        let jwt = signer.jwt("shop", "ann", &["*"]);
        http.form("/gcs/auth", &[("jwt", &jwt)]).await.status
    };
    found.push(("a JWT for a token", exchange(signer()).await, exchange(stranger()).await));
    let open = async |signer: &Signer, origin: &str| {
        let path = client::path("shop", &signer.jwt("shop", "ann", &["*"]));
        WebSocket::open(slave, &path, &[("Origin", origin)]).await.map_or_else(|reply| reply.status, |_| 101)
    };
    let (old, new) = ("https://old.example", "https://new.example");
    found.push(("a handshake with a JWT", open(signer(), old).await, open(stranger(), new).await));
    // with the key that is in force, so that only the origin decides
    let good = if found[2].1 == 200 { signer() } else { stranger() };
    found.push(("a page's origin", open(good, old).await, open(good, new).await));
    found
}

#[actix_rt::test]
async fn what_is_swapped_is_in_force_at_once() {
    let folder = std::env::temp_dir().join(format!("wellhead-tenants-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let old = WrittenSetting {
        signer: signer(),
        app: OLD,
        more: "client_events = false\nallowed_origins = [\"https://old.example\"]",
        push_key: "old",
    };
    let running = old.start(&folder).await;
    let slave = running.addresses.slave.expect("one");
    assert_eq!(
        asked(&running).await,
        [
            ("a push key", 200, 401),
            ("a signed request", 200, 404),
            ("a JWT for a token", 200, 401),
            ("a handshake with a JWT", 101, 403),
            ("a page's origin", 101, 403),
        ]
    );
    let mut open = PusherClient::connect(slave, OLD).await.subscribed("private-a").await;
    let token = signer().jwt("shop", "ann", &["*"]);
    let mut by_token = Client::connect(slave, "shop", &token).await;
    open.whisper("private-a", "client-x", &json!({})).await;
    assert!(open.error().await.1.contains("enable this feature"));

    let tenants = Arc::downgrade(&running.tenants.load_full());
    let new = WrittenSetting {
        signer: stranger(),
        app: NEW,
        more: "client_events = true\nallowed_origins = [\"https://new.example\"]",
        push_key: "new",
    };
    new.put_in_force(&folder, &running);
    assert_eq!(
        asked(&running).await,
        [
            ("a push key", 401, 200),
            ("a signed request", 404, 200),
            ("a JWT for a token", 401, 200),
            ("a handshake with a JWT", 403, 101),
            ("a page's origin", 403, 101),
        ]
    );
    assert!(tenants.upgrade().is_none(), "somebody keeps what was in force before");

    // sockets that are open: what they ask for is judged by what is in force now
    open.whisper("private-a", "client-x", &json!({})).await;
    open.wish("private-b", None).await;
    assert_eq!(open.barred("private-b").await.0, 401, "signed with the former secret");
    open.app = NEW;
    open.subscribe("private-b").await;
    assert_eq!(by_token.subscribe("news").await, "gusher.subscribe_succeeded", "its token was good when it came");
    running.stop(Then::End).await;
    fs::remove_dir_all(&folder).expect("ours");
}
