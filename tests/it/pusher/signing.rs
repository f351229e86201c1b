//! Who may call the HTTP API: whoever signs with the app's secret, and nobody else.

use serde_json::json;

use crate::support::{
    encoded,
    http::Http,
    keys::now,
    pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage, TestApp, setup},
    server::Setup,
};

const BODY: &str = r#"{"name":"e","channel":"news","data":"1"}"#;
const PATH: &str = "/apps/17/events";

/// POST to `path` with exactly this query.
async fn post(http: &mut Http, path: &str, query: &str, body: &str) -> (u16, String) {
    let reply = http.call("POST", &format!("{path}?{query}"), &[("Content-Type", "application/json")], body).await;
    assert_ne!(reply.status, 200, "{query}: {reply:?}");
    (reply.status, reply.text().to_owned())
}

/// `query` without that parameter.
fn without(query: &str, name: &str) -> String {
    query.split('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn a_request_that_is_not_signed_as_it_should_be_is_refused_and_nothing_is_published() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut http = Http::to(server.master()).await;
    let good = DEMO.signed("POST", PATH, &[], BODY, now());

    for name in ["auth_key", "auth_timestamp", "auth_version", "body_md5", "auth_signature"] {
        let (status, words) = post(&mut http, PATH, &without(&good, name), BODY).await;
        assert_eq!(status, 401, "{name}: {words}");
        assert!(words.contains(name), "{name}: {words}");
    }
    assert_eq!(post(&mut http, PATH, "", BODY).await.0, 401);
    // the body that was signed is another
    let (status, words) = post(&mut http, PATH, &good, &BODY.replace('1', "2")).await;
    assert_eq!((status, words.starts_with("Invalid body_md5: ")), (401, true), "{words}");
    // so is everything else
    for (what, query) in [
        ("a parameter more", format!("{good}&more=1")),
        ("another secret", TestApp { secret: OTHER.secret, ..DEMO }.signed("POST", PATH, &[], BODY, now())),
        ("another method", DEMO.signed("GET", PATH, &[], BODY, now())),
        ("another path", DEMO.signed("POST", "/apps/17/batch_events", &[], BODY, now())),
        ("upper case", {
            let (rest, signature) = good.split_once("auth_signature=").expect("it is there");
            format!("{rest}auth_signature={}", signature.to_uppercase())
        }),
        ("half of it", good[..good.len() - 32].to_owned()),
        ("another app's key", TestApp { id: DEMO.id, ..OTHER }.signed("POST", PATH, &[], BODY, now())),
    ] {
        let (status, words) = post(&mut http, PATH, &query, BODY).await;
        assert_eq!(status, 401, "{what}: {words}");
    }
    // the sum is not told, only what it is of
    let mut bad = good.clone();
    let last = if bad.pop() == Some('0') { '1' } else { '0' };
    bad.push(last);
    let (status, words) = post(&mut http, PATH, &bad, BODY).await;
    assert_eq!(status, 401);
    let signed = without(&good, "auth_signature").replace("%2E", ".");
    let wanted = format!(
        r#"Invalid signature: you should have sent HmacSHA256Hex("POST\n{PATH}\n{signed}", your_secret_key), but you sent ""#
    );
    assert!(words.starts_with(&wanted), "{words}");
    let signature = good.split_once("auth_signature=").expect("it is there").1;
    assert!(!words.contains(signature), "{words}");
    assert!(!words.contains(DEMO.secret), "{words}");

    for at in [now() - 620, now() + 620, 0, u64::MAX] {
        let (status, words) = post(&mut http, PATH, &DEMO.signed("POST", PATH, &[], BODY, at), BODY).await;
        assert_eq!((status, words.starts_with("Timestamp expired: Given timestamp (")), (401, true), "{words}");
        assert!(words.contains(") not within 600s of server time ("), "{words}");
    }
    let unknown = TestApp { id: "99", ..DEMO };
    let path = "/apps/99/events";
    assert_eq!(post(&mut http, path, &unknown.signed("POST", path, &[], BODY, now()), BODY).await.0, 404);

    // whatever was refused, it was not delivered; and the connection lives
    for at in [now() - 580, now() + 580] {
        let query = DEMO.signed("POST", PATH, &[], BODY, at);
        let reply = http.call("POST", &format!("{PATH}?{query}"), &[], BODY).await;
        assert_eq!(reply.is(), (200, "{}"));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(ann.next().await, PusherMessage::event("news", "e", "1"));
    }
    ann.is_quiet().await;
}

#[tokio::test]
async fn a_secret_opens_its_own_app_only() {
    let server = setup().start().await;
    let mut demo = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut other = PusherClient::connect(server.slave(), OTHER).await.subscribed("news").await;
    Api::of(&server, OTHER).await.trigger("news", "e", "for other").await;
    assert_eq!(other.next().await, PusherMessage::event("news", "e", "for other"));
    demo.is_quiet().await;
    let mut api = Api::of(&server, DEMO).await;
    assert_eq!(api.counts("news").await, (1, None));
    // one app's backend at the other's door
    let mut stranger = Api::of(&server, TestApp { id: OTHER.id, ..DEMO }).await;
    let reply = stranger.post("/events", &json!({ "name": "e", "channel": "news", "data": "1" })).await;
    assert_eq!(reply.is(), (401, "Unknown auth_key"));
    assert_eq!(stranger.get("/channels", &[]).await.status, 401);
    // a subscription that the other app's secret signs
    let mut thief = PusherClient::connect(server.slave(), DEMO).await;
    for app in [OTHER, TestApp { key: DEMO.key, ..OTHER }, TestApp { secret: DEMO.secret, ..OTHER }] {
        let auth = app.auth(&thief.id, "private-desk", None);
        thief.say("pusher:subscribe", &json!({ "channel": "private-desk", "auth": auth })).await;
        assert_eq!(thief.barred("private-desk").await.0, 401);
    }
    demo.is_quiet().await;
    other.is_quiet().await;
}

#[tokio::test]
async fn queries_as_every_library_signs_them() {
    let server = setup().start().await;
    let _ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut http = Http::to(server.master()).await;
    let path = "/apps/17/channels";
    let at = now().to_string();
    let info = "user_count,subscription_count";
    let md5_of_nothing = "d41d8cd98f00b204e9800998ecf8427e";
    let sign = |path: &str, params: &str| DEMO.sign(&format!("GET\n{path}\n{params}"));
    let base = format!("auth_key=demo&auth_timestamp={at}&auth_version=1.0");

    // Node escapes nothing and puts the signature last; Python signs the digest of nothing and sorts it in; PHP escapes
    let node = format!("{base}&filter_by_prefix=presence-&info={info}");
    let python = format!("{base}&body_md5={md5_of_nothing}");
    let php = format!("{base}&filter_by_prefix=presence-&info={}", encoded(info));
    let signed_node = sign(path, &node);
    for query in [
        format!("{node}&auth_signature={signed_node}"),
        format!("{php}&auth_signature={signed_node}"),
        format!("auth_signature={}&{python}", sign(path, &python)),
        format!("auth_signature={signed_node}&{}", node.replace("auth_key", "AUTH_Key")),
    ] {
        let reply = http.get(&format!("{path}?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
    }
    // unknown parameters take part
    let extra = format!("{base}&zebra=1%2B1&ärger=ja");
    let signed = sign(path, &format!("{base}&zebra=1+1&ärger=ja"));
    let sent = extra.replace("är", "%C3%A4r");
    let reply = http.get(&format!("{path}?{sent}&auth_signature={signed}")).await;
    assert_eq!(reply.is(), (200, r#"{"channels":{"news":{}}}"#));
    // a name that the HTTP client escapes was signed before that, or after
    for signed in ["/apps/17/channels/a=b,c", "/apps/17/channels/a%3Db%2Cc"] {
        let reply =
            http.get(&format!("/apps/17/channels/a%3Db%2Cc?{base}&auth_signature={}", sign(signed, &base))).await;
        assert_eq!(reply.is(), (200, r#"{"occupied":false}"#), "{signed}");
    }
    let wrong = http.get(&format!("{path}?{base}&body_md5={}&auth_signature=x", "0".repeat(32))).await;
    assert_eq!(wrong.status, 401);
}

#[tokio::test]
async fn a_prefix_stands_before_the_path_and_is_not_signed() {
    let setup = setup().set("pusher.master_prefix", "/push/er").set("pusher.slave_prefix", "/sockets");
    let server = setup.start().await;
    let ann =
        crate::support::websocket::WebSocket::open(server.slave(), &format!("/sockets{}", DEMO.path()), &[]).await;
    assert!(ann.is_ok());
    assert_eq!(PusherClient::open(server.slave(), DEMO).await.err().map(|reply| reply.status), Some(404));
    let mut http = Http::to(server.master()).await;
    let query = DEMO.signed("POST", PATH, &[], BODY, now());
    let reply = http.call("POST", &format!("/push/er{PATH}?{query}"), &[], BODY).await;
    assert_eq!(reply.is(), (200, "{}"));
    assert_eq!(http.call("POST", &format!("{PATH}?{query}"), &[], BODY).await.status, 404);
}

#[tokio::test]
async fn only_listed_apps_with_a_secret_are_served() {
    let server = Setup::keyed().toml("[[apps.listed]]\nkey = \"plain\"\n").toml(&OTHER.listed("")).start().await;
    for key in ["plain", "demo", "nobody"] {
        let app = TestApp { key, id: key, secret: "" };
        let mut client =
            crate::support::websocket::WebSocket::open(server.slave(), &app.path(), &[]).await.expect("101");
        assert!(client.text().await.contains("4001"));
        assert_eq!(client.closed().await.code, 4001);
        let mut api = Api::of(&server, app).await;
        assert_eq!(api.get("/channels", &[]).await.status, 404);
    }
    // without any, there is nothing of Pusher
    let server = Setup::keyed().start().await;
    assert_eq!(PusherClient::open(server.slave(), DEMO).await.err().map(|reply| reply.status), Some(404));
    assert_eq!(Api::of(&server, DEMO).await.get("/channels", &[]).await.status, 404);
}

#[tokio::test]
async fn push_keys_play_no_part() {
    let sha256 = "0".repeat(64);
    let key = format!("[[push_keys]]\nname = \"backend\"\nsha256 = \"{sha256}\"\n");
    let server = setup().toml(&key).start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    assert_eq!(server.backend().await.form("/api/push/demo/news/e", &[("data", "1")]).await.status, 401);
    Api::of(&server, DEMO).await.trigger("news", "e", "signed").await;
    assert_eq!(ann.next().await, PusherMessage::event("news", "e", "signed"));
}

#[tokio::test]
async fn a_body_is_read_of_nobody_who_has_not_signed_its_head() {
    let server = setup().start().await;
    let signed = DEMO.signed("POST", PATH, &[], BODY, now());
    let forged = signed.replace("auth_signature=", "auth_signature=0");
    for (path, query, status) in [(PATH, "", 401), (PATH, &forged[..], 401), ("/apps/nobody/events", &signed, 404)] {
        let mut http = Http::to(server.master()).await;
        let head = format!("POST {path}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9900010\r\n\r\n{{");
        // all but the first byte never comes
        assert_eq!(http.exchange(head.as_bytes()).await.status, status, "{path}?{query}");
    }
}
