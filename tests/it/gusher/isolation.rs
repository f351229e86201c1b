//! Two apps never hear of each other, whatever is pushed or asked.

use crate::support::{client::ReceivedEvent, server::Server};

#[tokio::test]
async fn no_push_of_one_app_reaches_another() {
    let server = Server::start().await;
    let mut ours = server.client("ours", "ann", &["*"]).await.subscribed("news").await;
    let mut theirs = server.client("theirs", "ann", &["*"]).await.subscribed("news").await;
    let (our_id, their_id) = (ours.id().await, theirs.id().await);
    let mut backend = server.backend().await;

    backend.push("theirs", "news", "e", "1").await;
    assert_eq!(backend.push_matching("theirs", "news", "e", "2").await, 1, "one channel, of one app");
    let batch = r#"[{"channel":"news","event":"e","data":3}]"#;
    backend.accepted("/api/push_batch/theirs", &[("batch_data", batch)]).await;
    backend.push_to_user("theirs", "ann", "4").await;
    backend.push_to_socket("theirs", &our_id, "not ours").await;
    backend.push_to_socket("ours", &their_id, "not theirs").await;
    backend.push_to_socket("theirs", &their_id, "5").await;
    backend.accepted("/api/add/channel/user/theirs/ann", &[("data", "x")]).await;
    backend.accepted("/api/reload/channel/user/theirs/ann", &[("data", "[]")]).await;
    for (app, path, body) in [
        ("theirs", "channels/news/messages", r#"{"event":"e","data":6}"#),
        ("theirs", "users/ann/messages", r#"{"data":7}"#),
    ] {
        assert_eq!(backend.json("POST", &format!("/v1/apps/{app}/{path}"), body).await.status, 200);
    }

    backend.push("ours", "news", "e", "8").await;
    assert_eq!(ours.next_event().await, ReceivedEvent::new("news", "e", "8"), "ours heard nothing of all that");
    for data in ["1", "2", "3"] {
        assert_eq!(theirs.next_event().await, ReceivedEvent::new("news", "e", data));
    }
    for text in ["4", "5"] {
        assert_eq!(theirs.socket.text().await, text);
    }
    assert!(theirs.socket.text().await.contains("gusher.addchannel"));
    assert!(theirs.socket.text().await.contains("gusher.reloadchannel"));
    assert_eq!(theirs.socket.text().await, "7", "the reload took it off the channel");
}

#[tokio::test]
async fn no_question_about_one_app_tells_of_another() {
    let server = Server::start().await;
    let _ours = server.listener_on("ours", "ann", "a").await;
    let _theirs = server.listener_on("theirs", "bob", "b").await;
    let mut backend = server.backend().await;
    for (app, user, channel, other) in [("ours", "ann", "a", "b"), ("theirs", "bob", "b", "a")] {
        assert_eq!(backend.names(&format!("/api/{app}/online")).await, [user]);
        assert_eq!(backend.names(&format!("/api/{app}/channels")).await, [channel]);
        assert_eq!(backend.ask(&format!("/api/{app}/channels/count")).await["count"], 1);
        assert_eq!(backend.ask(&format!("/api/{app}/online/count")).await["count"], 1);
        assert_eq!(backend.names(&format!("/api/{app}/online/bychannel/{channel}")).await, [user]);
        assert!(backend.names(&format!("/api/{app}/online/bychannel/{other}")).await.is_empty());
        assert_eq!(backend.ask(&format!("/api/{app}/online/bychannel/{other}/count")).await["count"], 0);
    }
    for glob in ["*", "%2A", "our%3F", "o*"] {
        assert!(backend.names(&format!("/api/{glob}/online")).await.is_empty(), "{glob} is a name, not a glob");
    }
}
