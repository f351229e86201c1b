//! Connection tokens in a cluster: any slave honours any slave's, and what is good for one socket opens one.

use futures_util::future::join_all;

use super::field::{By, Field};
use crate::support::{client::path, keys::signer, server::Server, until, websocket::WebSocket};

async fn any_slave_honours_any_slaves_tokens(by: By) {
    let field = Field::start(by, 1, 2).await;
    for (issuer, other) in [(0, 1), (1, 0)] {
        let token = field.slaves[issuer].token("blue", "ann", &["news"]).await;
        let socket = WebSocket::open(field.slaves[other].slave(), &path("blue", &token), &[]).await;
        assert!(socket.is_ok(), "{:?}", socket.err());
        let wrong_app = WebSocket::open(field.slaves[other].slave(), &path("red", &token), &[]).await;
        assert!(wrong_app.is_err());
    }
    // too long to travel whole: a reference, which its issuer is asked for, as often as it is shown
    let channels: Vec<_> = (0..200).map(|n| format!("a-channel-with-a-long-name-{n}")).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let token = field.slaves[0].token("blue", "bob", &channels).await;
    assert!(token.starts_with("r."), "{token}");
    for slave in [1, 0, 1] {
        let socket = WebSocket::open(field.slaves[slave].slave(), &path("blue", &token), &[]).await;
        assert!(socket.is_ok(), "{:?}", socket.err());
    }
}

#[tokio::test]
async fn any_slave_honours_any_slaves_tokens_on_nats() {
    any_slave_honours_any_slaves_tokens(By::Nats).await;
}

#[tokio::test]
async fn any_slave_honours_any_slaves_tokens_on_one_machine() {
    any_slave_honours_any_slaves_tokens(By::Local).await;
}

async fn a_one_time_token_opens_one_socket(by: By) {
    let one_time = |setup: crate::support::server::Setup| {
        setup.set("jwt.one_time_tokens", "true").set("jwt.accept_jwt_as_token", "false")
    };
    let mut field = Field::start_with(by, 1, 2, one_time).await;
    for round in 0..20 {
        let token = field.slaves[round % 2].token("blue", "ann", &["news"]).await;
        let opened = join_all((0..10).map(|n| {
            let (slave, path) = (field.slaves[n % 2].slave(), path("blue", &token));
            async move { WebSocket::open(slave, &path, &[]).await.map_err(|reply| reply.status) }
        }))
        .await;
        let (open, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
        assert_eq!(open.len(), 1, "one of ten at once");
        assert!(refused.iter().all(|reply| matches!(reply, Err(401 | 403 | 400))), "{:?}", refused.len());
        assert!(WebSocket::open(field.slaves[0].slave(), &path("blue", &token), &[]).await.is_err());
    }
    // an issuer that is gone takes its tokens along
    let token = field.slaves[1].token("blue", "ann", &["news"]).await;
    field.slaves[1].signal("KILL");
    field.slaves[1].ended().await;
    let refused = WebSocket::open(field.slaves[0].slave(), &path("blue", &token), &[]).await;
    assert!(refused.is_err());
    // the JWT itself opens nothing here
    let jwt = signer().jwt("blue", "ann", &["news"]);
    assert!(WebSocket::open(field.slaves[0].slave(), &path("blue", &jwt), &[]).await.is_err());
    until("nobody of them is left", 0, || field.masters[0].connections()).await;
}

#[tokio::test]
async fn a_one_time_token_opens_one_socket_on_nats() {
    a_one_time_token_opens_one_socket(By::Nats).await;
}

#[tokio::test]
async fn a_one_time_token_opens_one_socket_on_one_machine() {
    a_one_time_token_opens_one_socket(By::Local).await;
}

async fn a_forged_reference_is_refused_where_it_is_shown(by: By) {
    let one_time = |setup: crate::support::server::Setup| {
        setup.set("jwt.one_time_tokens", "true").set("jwt.accept_jwt_as_token", "false")
    };
    let field = Field::start_with(by, 1, 2, one_time).await;
    let (issuer, other) = (&field.slaves[1], &field.slaves[0]);
    let token = issuer.token("blue", "ann", &["news"]).await;
    let parts: Vec<_> = token.split('.').collect();
    let [_, node, until, id, signature] = parts[..] else { panic!("{token}") };
    let opened = async |server: &Server, token: &str| {
        WebSocket::open(server.slave(), &path("blue", token), &[]).await.map_err(|reply| reply.status)
    };
    for number in 0..50 {
        let random = format!("{number:032x}");
        // another grant of that node, and one of a node that there is not
        for forged in
            [format!("r.{node}.{until}.{random}.{signature}"), format!("r.{}.{until}.{id}.{random}", number + 1)]
        {
            assert_eq!(opened(other, &forged).await.err(), Some(401), "{forged}");
        }
    }
    // by their signature: nobody was asked
    assert_eq!(other.metric("wellhead_slave_auth_failures_total", "reason=\"signature\"").await, 100.0);
    let right = opened(other, &token).await;
    assert!(right.is_ok(), "{:?}", right.err());
    for _ in 0..2 {
        assert_eq!(opened(other, &token).await.err(), Some(401), "it is good once");
        assert_eq!(opened(issuer, &token).await.err(), Some(401));
    }
    // one that cannot be asked
    let token = issuer.token("blue", "ann", &["news"]).await;
    issuer.signal("STOP");
    let refused = opened(other, &token).await.err();
    issuer.signal("CONT");
    // 401 if the machine is so slow that the roster has forgotten it by then
    assert!(matches!(refused, Some(503 | 401)), "{refused:?}");
}

#[tokio::test]
async fn a_forged_reference_is_refused_where_it_is_shown_on_nats() {
    a_forged_reference_is_refused_where_it_is_shown(By::Nats).await;
}

#[tokio::test]
async fn a_forged_reference_is_refused_where_it_is_shown_on_one_machine() {
    a_forged_reference_is_refused_where_it_is_shown(By::Local).await;
}
