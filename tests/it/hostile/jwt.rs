//! Tokens that must not open a door.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    client::path,
    http::Http,
    keys::{claims, forged, now, signer, stranger},
    server::{Server, Setup},
    websocket::WebSocket,
};

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims("demo", "ann", &["*"]);
    match key.strip_prefix("gusher.") {
        Some(key) => claims["gusher"][key] = value,
        None => claims[key] = value,
    }
    claims
}

/// Every bad token, by what is wrong with it.
fn bad() -> Vec<(&'static str, String)> {
    let right = claims("demo", "ann", &["*"]);
    let good = signer().sign(&right);
    let public = signer().public_pem.as_bytes();
    let mut parts: Vec<_> = good.split('.').map(ToOwned::to_owned).collect();
    let other_payload = {
        let other = stranger().sign(&with("gusher.user_id", json!("admin")));
        other.split('.').nth(1).expect("three parts").to_owned()
    };
    parts[1] = other_payload;
    vec![
        ("alg none", forged(&json!({ "alg": "none", "typ": "JWT" }), &right, None)),
        ("alg None", forged(&json!({ "alg": "None", "typ": "JWT" }), &right, None)),
        ("alg RS256, no signature", forged(&json!({ "alg": "RS256" }), &right, None)),
        ("HS256 with the public key", forged(&json!({ "alg": "HS256", "typ": "JWT" }), &right, Some(public))),
        ("RS256 in name, HMAC with the public key", forged(&json!({ "alg": "RS256" }), &right, Some(public))),
        ("a critical extension", forged(&json!({ "alg": "RS256", "crit": ["x"] }), &right, None)),
        ("PS256", signer().sign_as(Algorithm::PS256, &right)),
        ("another key", stranger().sign(&right)),
        ("another payload", parts.join(".")),
        ("cut short", good[..good.len() - 8].to_owned()),
        ("two parts", good.rsplit_once('.').expect("three parts").0.to_owned()),
        ("expired", signer().sign(&with("exp", json!(now() - 1)))),
        ("expired, with a fraction", signer().sign(&with("exp", json!(now() as f64 - 0.5)))),
        ("exp is text", signer().sign(&with("exp", json!("tomorrow")))),
        ("not yet valid", signer().sign(&with("nbf", json!(now() + 60)))),
        ("no gusher claim", signer().sign(&json!({ "exp": now() + 60 }))),
        ("gusher is text", signer().sign(&json!({ "gusher": "x", "exp": now() + 60 }))),
        ("gusher is null", signer().sign(&json!({ "gusher": null }))),
        ("no app", signer().sign(&json!({ "gusher": { "user_id": "ann", "channels": ["*"] } }))),
        ("app is a number", signer().sign(&with("gusher.app_key", json!(1)))),
        ("user is a number", signer().sign(&with("gusher.user_id", json!(1)))),
        ("channels are text", signer().sign(&with("gusher.channels", json!("*")))),
        ("channels hold a number", signer().sign(&with("gusher.channels", json!(["a", 1])))),
        ("a claim of 100 KiB", signer().sign(&with("padding", json!("x".repeat(100 << 10))))),
    ]
}

#[tokio::test]
async fn none_of_them_is_exchanged_or_opens_a_socket() {
    let server = Server::start().await;
    for (what, jwt) in bad() {
        let reply = server.auth(&jwt).await;
        assert_eq!(reply.is(), (401, "jwt decode fail\n"), "{what}");
        // as `?token=` it must fit the head of a request
        if jwt.len() < 8_000 {
            let refused = WebSocket::open(server.slave(), &path("demo", &jwt), &[]).await.err().expect(what);
            assert_eq!(refused.is(), (401, "token error\n"), "{what}");
        }
        let decoded = server.backend().await.form("/api/decode", &[("data", &jwt)]).await;
        assert_eq!(decoded.is(), (400, "data error"), "{what}");
    }
    server.metric_becomes("wellhead_connections", "", 0.0).await;
}

#[tokio::test]
async fn whatever_is_right_is_let_in() {
    let server = Server::start().await;
    for (what, jwt) in [
        ("RS384", signer().sign_as(Algorithm::RS384, &claims("demo", "ann", &["*"]))),
        ("RS512", signer().sign_as(Algorithm::RS512, &claims("demo", "ann", &["*"]))),
        ("exp with a fraction", signer().sign(&with("exp", json!(now() as f64 + 60.5)))),
        ("several audiences", signer().sign(&with("aud", json!(["a", "b"])))),
        ("one audience", signer().sign(&with("aud", json!("a")))),
        ("nbf now", signer().sign(&with("nbf", json!(now() - 1)))),
        ("iat in the future", signer().sign(&with("iat", json!(now() + 60)))),
        ("iat as text", signer().sign(&with("iat", json!("yesterday")))),
        ("iat as an object", signer().sign(&with("iat", json!({})))),
        ("a user that is null", signer().sign(&with("gusher.user_id", json!(null)))),
        ("a channel that is null", signer().sign(&with("gusher.channels", json!(["a", null])))),
        ("remotes that are null", signer().sign(&with("gusher.remotes", json!({ "x": null })))),
        ("everything else null", {
            let mut claims = claims("demo", "ann", &["*"]);
            for name in ["exp", "nbf", "iat", "aud", "iss", "sub", "jti"] {
                claims[name] = json!(null);
            }
            signer().sign(&claims)
        }),
        ("no exp", signer().sign(&json!({ "gusher": { "user_id": "ann", "channels": null, "app_key": "demo" } }))),
        ("no channels", signer().sign(&json!({ "gusher": { "user_id": "", "app_key": "demo" } }))),
    ] {
        assert_eq!(server.auth(&jwt).await.status, 200, "{what}");
        assert!(WebSocket::open(server.slave(), &path("demo", &jwt), &[]).await.is_ok(), "{what}");
    }
    let strict = Setup::keyed().set("jwt.require_exp", "true").start().await;
    let endless = signer().sign(&json!({ "gusher": { "user_id": "ann", "app_key": "demo" } }));
    assert_eq!(strict.auth(&endless).await.status, 401);
}

#[tokio::test]
async fn a_connection_token_is_no_jwt_and_opens_its_own_app_only() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    assert_eq!(server.auth(&token).await.status, 401);
    assert_eq!(server.backend().await.form("/api/decode", &[("data", &token)]).await.status, 400);
    let refused = WebSocket::open(server.slave(), &path("other", &token), &[]).await.err().expect("refused");
    assert_eq!(refused.is(), (401, "appkey error\n"));
    let elsewhere = Server::start().await;
    let refused = WebSocket::open(elsewhere.slave(), &path("demo", &token), &[]).await.err().expect("refused");
    assert_eq!(refused.is(), (401, "token error\n"), "another cluster's token");
    let cut = &token[..token.len() - 1];
    let refused = WebSocket::open(server.slave(), &path("demo", cut), &[]).await.err().expect("refused");
    assert_eq!(refused.is(), (401, "token error\n"));
}

#[tokio::test]
async fn a_one_time_token_opens_one_socket() {
    let one_time = |setup: Setup| setup.set("jwt.one_time_tokens", "true").set("jwt.accept_jwt_as_token", "false");
    let server = one_time(Setup::keyed()).start().await;
    for _ in 0..5 {
        let token = server.token("demo", "ann", &["*"]).await;
        let wrong_app = WebSocket::open(server.slave(), &path("other", &token), &[]).await.err().expect("refused");
        assert_eq!(wrong_app.status, 401);
        let token = server.token("demo", "ann", &["*"]).await;
        // several at once: one of them gets in
        let (path, slave) = (path("demo", &token), server.slave());
        let tries: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { WebSocket::open(slave, &path, &[]).await.map(drop).map_err(|no| no.status) })
            })
            .collect();
        let mut let_in = 0;
        for attempt in tries {
            match attempt.await.expect("no panic") {
                Ok(()) => let_in += 1,
                Err(status) => assert_eq!(status, 401),
            }
        }
        assert_eq!(let_in, 1);
    }
}

#[tokio::test]
async fn a_large_jwt_becomes_a_short_token() {
    let server = Server::start().await;
    let channels: Vec<_> = (0..500).map(|number| format!("channel-number-{number}")).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let token = server.token("demo", "ann", &channels).await;
    assert!(token.len() <= 2_048, "{} bytes", token.len());
    let mut ann = crate::support::client::Client::connect(server.slave(), "demo", &token).await;
    assert_eq!(ann.subscribe("channel-number-499").await, "gusher.subscribe_succeeded");
    assert_eq!(ann.subscribe("channel-number-500").await, "gusher.subscribe_error");
}

#[tokio::test]
async fn an_app_with_keys_of_its_own_trusts_only_those() {
    let setup = Setup::keyed();
    std::fs::write(setup.folder().join("own.pem"), &stranger().public_pem).expect("the folder is ours");
    let listed = "[apps]\nunlisted = \"allow\"\n[[apps.listed]]\nkey = \"own\"\npublic_keys = [\"own.pem\"]\n";
    let server = setup.toml(listed).start().await;
    assert_eq!(server.auth(&stranger().jwt("own", "ann", &["*"])).await.status, 200);
    assert_eq!(server.auth(&signer().jwt("own", "ann", &["*"])).await.status, 401);
    assert_eq!(server.auth(&signer().jwt("demo", "ann", &["*"])).await.status, 200);
    assert_eq!(server.auth(&stranger().jwt("demo", "ann", &["*"])).await.status, 401);

    let listed = "[apps]\nunlisted = \"refuse\"\n[[apps.listed]]\nkey = \"demo\"\n";
    let server = Setup::keyed().toml(listed).start().await;
    assert_eq!(server.auth(&signer().jwt("demo", "ann", &["*"])).await.status, 200);
    assert_eq!(server.auth(&signer().jwt("other", "ann", &["*"])).await.status, 401);
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_is_kept_out_where_origins_are_listed() {
    let setup = Setup::keyed();
    let toml = "[slave]\nallowed_origins = [\"https://ours.example\", \"https://*.apps.example:443\"]\n";
    let server = setup.toml(toml).start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let open = async |origin| WebSocket::open(server.slave(), &path("demo", &token), &[("Origin", origin)]).await;
    for ours in ["https://ours.example", "https://a.apps.example"] {
        assert!(open(ours).await.is_ok(), "{ours}");
    }
    for foreign in ["https://evil.example", "https://ours.example.evil.example", "http://ours.example", "null"] {
        let refused = open(foreign).await.err().expect("refused");
        assert_eq!(refused.status, 403, "{foreign}");
        assert!(refused.text().contains("slave.allowed_origins"), "{refused:?}");
    }
    let native = WebSocket::open(server.slave(), &path("demo", &token), &[]).await;
    assert!(native.is_ok(), "what is no browser sends no origin");
}

#[tokio::test]
async fn references_of_large_tokens_cost_one_copy_of_their_channels() {
    let server = Server::start().await;
    let channels: Vec<_> = (0..3_000).map(|number| format!("ch-{number}")).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let exchanged = async |users: std::ops::Range<usize>| {
        let mut slave = Http::to(server.slave()).await;
        for user in users {
            let jwt = signer().jwt("demo", &format!("user-{user}"), &channels);
            let reply = slave.form("/gcs/auth", &[("jwt", &jwt)]).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(reply.text().contains("\"r."), "{reply:?}");
        }
    };
    exchanged(0..20).await;
    let before = server.resident();
    exchanged(20..520).await;
    // 500 copies would take 75 MiB
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for 500 references");
    // whoever asks again and again has a small number of them
    let mut slave = Http::to(server.slave()).await;
    let jwt = signer().jwt("demo", "ann", &channels);
    let mut tokens = Vec::new();
    for _ in 0..70 {
        let reply = slave.form("/gcs/auth", &[("jwt", &jwt)]).await;
        tokens.push(reply.json()["token"].as_str().expect("a token").to_owned());
    }
    let opens = async |token: &str| WebSocket::open(server.slave(), &path("demo", token), &[]).await.is_ok();
    assert!(!opens(&tokens[5]).await && opens(&tokens[6]).await && opens(&tokens[69]).await);
}
