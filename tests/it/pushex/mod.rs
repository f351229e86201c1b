//! PushEx: its push API and its push socket, against real servers.

mod api;
mod hostile;
mod shared;
mod socket;

use crate::support::{http::Http, server::Server};

/// Push as PushEx' callers do; it must be accepted.
async fn push(server: &Server, body: &str) {
    let reply = post(server, &[("content-type", "application/json")], body).await;
    assert_eq!(reply.0, 200, "{body}: {}", reply.1);
}

/// The status and the body of the reply to a push.
async fn post(server: &Server, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let reply = Http::to(server.master()).await.call("POST", "/api/push", headers, body).await;
    (reply.status, reply.text().to_owned())
}
