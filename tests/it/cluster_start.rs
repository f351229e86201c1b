//! Masters and slaves as processes of their own: how they find each other, refuse each other, and come back.

mod over_nats;

use std::process::Command;

use serde_json::Value;

use crate::support::{
    backend::Backend,
    client::Client,
    http::Http,
    server::{Server, Setup},
    until, within,
};

/// What nodes on NATS share.
const SECRET: &str = "a secret of forty bytes for all the nodes";

/// The token that a master in development mode prints.
fn demo_token(master: &Server) -> String {
    let printed = master.out.collect(|line| line.starts_with("eyJ").then(|| line.to_owned()));
    printed.into_iter().next().expect("a demo JWT")
}

/// Push until the client has one: what it took is the proof that the two nodes are joined.
async fn arrives(master: &Server, client: &mut Client) {
    let reply = Backend::of(master.master()).await.push("demo", "news", "e", "[1]").await;
    assert_eq!(reply.status, 200);
    assert_eq!(client.next_event().await.data, "[1]");
}

#[tokio::test]
async fn master_and_slave_of_one_machine_start_in_any_order_with_nothing_configured() {
    for slave_first in [true, false] {
        let setup = Setup::development();
        let start_slave = || setup.clone().role("slave").launch();
        let early = slave_first.then(start_slave);
        if let Some(slave) = &early {
            let waits = slave.log.find(|line| line.contains("waiting for the master at").then_some(()));
            within("the slave says that it waits", waits).await;
            assert!(slave.log.collect(|line| line.contains("listens on").then_some(())).is_empty());
        }
        let master = setup.clone().role("master").start().await;
        let mut slave = early.unwrap_or_else(start_slave);
        slave.ready().await;
        slave.wants_work().await;
        assert!(slave.said("waiting for the master at") <= 1);

        let mut client = Client::connect(slave.slave(), "demo", &demo_token(&master)).await.subscribed("news").await;
        arrives(&master, &mut client).await;
        assert_eq!(Backend::of(master.master()).await.names("/api/demo/online").await, ["demo"]);
        assert_eq!(Http::to(master.master()).await.get("/try").await.status, 200);
        assert!(slave.out.collect(|line| Some(line.to_owned())).is_empty(), "the master prints, the slave does not");
    }
}

#[tokio::test]
async fn what_a_master_prints_works_when_it_is_pasted() {
    let setup = Setup::development();
    let mut slave = setup.clone().role("slave").launch();
    let first = setup.clone().role("master").start().await;
    slave.ready().await;
    drop(first);
    // the line names the address that the settings give, so they must give the right one
    let address = slave.slave().to_string();
    let master = setup.clone().set("slave.listen", &address).role("master").start().await;
    within("the last of what is printed", master.out.find(|line| line.ends_with("/try").then_some(()))).await;
    let lines = master.out.collect(|line| Some(line.trim().to_owned()));
    assert!(lines.iter().any(|line| line.ends_with(" slave")), "how to start a slave: {lines:?}");
    let subscribe = lines.iter().find(|line| line.contains(" sub ")).expect("a line that subscribes");
    let push = lines.iter().find(|line| line.starts_with("curl ")).expect("a line that pushes");
    let count = |seen: &Value| seen["connections"].as_u64();
    let asked = || async { count(&master.backend().await.ask("/v1/stats").await) };
    // until then it holds that of the first master, and the token is no good
    until("the slave took the new key", 2, || async { slave.said("ready") }).await;

    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec {subscribe} --count 1")).stdin(std::process::Stdio::null());
    let mut subscriber = command.stdout(std::process::Stdio::piped()).spawn().expect("sh is there");
    until("the pasted line connects", Some(1), asked).await;
    until("it is on a channel", false, || async {
        master.backend().await.names("/api/demo/channels").await.is_empty()
    })
    .await;
    let pushed = Command::new("sh").arg("-c").arg(push).output().expect("sh is there");
    assert!(pushed.status.success(), "{pushed:?}");
    let arrived = crate::support::server::ServerLog::of(subscriber.stdout.take().expect("a pipe"));
    within("it arrives", arrived.find(|line| line.contains("It works").then_some(()))).await;
    subscriber.wait().expect("our child");
}

#[tokio::test]
async fn a_second_master_is_refused_and_told_of_nats() {
    let setup = Setup::keyed();
    let _master = setup.clone().role("master").start().await;
    let second = setup.clone().role("master").fails_only_when_started().await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.said.contains("another master owns") && second.said.contains("NATS"), "{second:?}");
    for socket in ["nats://127.0.0.1:4222", "run/", "config.toml"] {
        for role in ["master", "slave"] {
            let refused = setup.clone().set("cluster.socket", socket).role(role).fails().await;
            assert_eq!(refused.code, Some(78), "{socket}: {refused:?}");
            assert!(refused.said.contains("cluster.socket") && refused.said.contains("NATS"), "{refused:?}");
        }
    }
    let standalone = setup.clone().start().await;
    assert_eq!(standalone.readiness().await.0, 200, "standalone opens no socket");
}

#[tokio::test]
async fn a_slave_outlives_its_master_and_serves_the_next() {
    let setup = Setup::keyed().set("cluster.secret", SECRET);
    let mut master = setup.clone().role("master").start().await;
    let slave = setup.clone().role("slave").start().await;
    slave.wants_work().await;
    let mut ann = slave.listener_on("demo", "ann", "news").await;
    let id = ann.id().await;
    arrives(&master, &mut ann).await;
    for signal in ["TERM", "KILL"] {
        master.signal(signal);
        let code = master.ended().await.code();
        assert_eq!(code, (signal == "TERM").then_some(0));
        until("the slave notices", (503, "the bus is down".to_owned()), || slave.readiness()).await;
        master = setup.clone().role("master").start().await;
        slave.wants_work().await;
        master.metric_becomes("wellhead_roster_nodes", "", 2.0).await;
        arrives(&master, &mut ann).await;
        assert_eq!(ann.id().await, id, "the same socket");
    }
    assert_eq!(slave.said("ready"), 1, "the secret is the same, and so is the node");
}

#[tokio::test]
async fn a_slave_takes_the_secret_and_the_key_of_the_next_master() {
    let setup = Setup::development();
    let mut master = setup.clone().role("master").start().await;
    let mut slave = setup.clone().role("slave").start().await;
    slave.wants_work().await;
    let address = slave.slave();
    let old_token = demo_token(&master);
    let mut client = Client::connect(address, "demo", &old_token).await.subscribed("news").await;
    master.signal("TERM");
    master.ended().await;
    master = setup.clone().role("master").start().await;
    assert_eq!(client.closed().await.code, 1001, "its slave comes back as another node");
    until("it is back", 2, || async { slave.said("ready") }).await;
    slave.ready().await;
    assert_eq!(slave.slave(), address, "at the same address");
    slave.wants_work().await;
    let old = Http::to(address).await.form("/gcs/auth", &[("jwt", &old_token)]).await;
    assert_eq!(old.status, 401, "that key is gone");
    let mut client = Client::connect(address, "demo", &demo_token(&master)).await.subscribed("news").await;
    arrives(&master, &mut client).await;
    // nothing of the former nodes is left
    drop(client);
    let files = slave.metric("process_open_fds", "").await;
    for round in 3..6 {
        master.signal("KILL");
        master.ended().await;
        master = setup.clone().role("master").start().await;
        until("it is back", round, || async { slave.said("ready") }).await;
        slave.ready().await;
        slave.wants_work().await;
    }
    until("it has as many files open as before", true, || async {
        slave.metric("process_open_fds", "").await <= files
    })
    .await;
    let mut client = Client::connect(address, "demo", &demo_token(&master)).await.subscribed("news").await;
    slave.signal("TERM");
    assert_eq!(client.closed().await.code, 1001);
    assert_eq!(slave.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_slave_that_waits_can_be_told_to_end_and_asked_how_it_is() {
    let setup = Setup::keyed();
    let mut slave = setup.clone().role("slave").launch();
    within("it waits", slave.log.find(|line| line.contains("waiting for the master at").then_some(()))).await;
    slave.signal("TERM");
    assert_eq!(slave.ended().await.code(), Some(0));

    let _master = setup.clone().role("master").start().await;
    let slave = setup.clone().role("slave").start().await;
    slave.wants_work().await;
    let ask = setup.set("slave.admin", &slave.admin().to_string()).arguments(&["health", "--slave"]);
    let healthy = ask.clone().ends().await;
    assert_eq!((healthy.code, healthy.said.trim()), (Some(0), "ready"));
    drop(slave);
    assert_eq!(ask.ends().await.code, Some(1));
}

#[tokio::test]
async fn slaves_come_and_go_beside_one_master() {
    let setup = Setup::keyed();
    let master = setup.clone().role("master").start().await;
    let mut one = setup.clone().role("slave").start().await;
    let two = setup.clone().role("slave").start().await;
    one.wants_work().await;
    two.wants_work().await;
    let mut ann = one.listener_on("demo", "ann", "news").await;
    // a token of one slave opens a socket on the other: both have the master's secret
    let token = one.token("demo", "bob", &["*"]).await;
    let mut bob = Client::connect(two.slave(), "demo", &token).await.subscribed("news").await;
    let mut backend = master.backend().await;
    backend.push("demo", "news", "e", "1").await;
    assert_eq!((ann.next_event().await.data, bob.next_event().await.data), ("1".to_owned(), "1".to_owned()));
    assert_eq!(backend.names("/api/demo/online").await, ["ann", "bob"]);

    one.signal("TERM");
    assert_eq!(ann.closed().await.code, 1001);
    assert_eq!(one.ended().await.code(), Some(0));
    let reply = backend.get("/api/demo/online").await;
    assert_eq!((reply.text(), reply.header("X-Wellhead-Partial")), ("[\"bob\"]", None), "it said goodbye");
    let three = setup.clone().role("slave").start().await;
    three.wants_work().await;
    let mut eve = three.listener_on("demo", "eve", "news").await;
    backend.push("demo", "news", "e", "2").await;
    assert_eq!((eve.next_event().await.data, bob.next_event().await.data), ("2".to_owned(), "2".to_owned()));

    // killed, it says nothing, but its connection breaks
    three.signal("KILL");
    until("its users are gone", vec!["bob".to_owned()], || async {
        master.backend().await.names("/api/demo/online").await
    })
    .await;
}

#[tokio::test]
async fn what_does_not_belong_together_ends_with_the_right_code() {
    let setup = Setup::keyed();
    let _master = setup.clone().role("master").start().await;
    let stranger = setup.clone().set("cluster.name", "other").role("slave").fails_only_when_started().await;
    assert_eq!(stranger.code, Some(78), "{stranger:?}");
    assert!(stranger.said.contains("cluster.name") && stranger.said.contains("other"), "{stranger:?}");
    let keyless = setup.clone().set("jwt.public_keys", "").role("slave").fails_only_when_started().await;
    assert_eq!(keyless.code, Some(78), "{keyless:?}");
    assert!(keyless.said.contains("jwt.public_keys"), "{keyless:?}");

    let nats = "nats://127.0.0.1:9";
    for (setup, words) in [
        (Setup::development().set("cluster.bus", nats).set("cluster.secret", SECRET), "wellhead keys generate"),
        (Setup::keyed().set("cluster.bus", nats), "cluster.secret"),
        (Setup::keyed().set("cluster.bus", nats).set("cluster.secret", "short"), "cluster.secret"),
        (Setup::keyed().set("cluster.bus", "redis://127.0.0.1:9"), "redis://"),
        (Setup::keyed().set("cluster.bus", "nats://"), "cluster.bus"),
    ] {
        for role in ["master", "slave", "standalone"] {
            let failure = setup.clone().role(role).fails().await;
            assert_eq!(failure.code, Some(78), "{role}: {failure:?}");
            assert!(failure.said.contains(words), "{role}: {failure:?}");
        }
    }
    let remote = Setup::keyed().set("cluster.bus", "nats://nats.example:4222").set("cluster.secret", SECRET);
    let checked = remote.arguments(&["check-config", "--role", "master"]).ends().await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.said.contains("without credentials and without TLS"), "{checked:?}");
}

#[tokio::test]
async fn a_role_opens_its_own_listeners_only() {
    let setup = Setup::keyed();
    let master = setup.clone().set("slave.listen", "nonsense").set("slave.admin", "nonsense").role("master");
    let master = master.start().await;
    let slave = setup.clone().set("master.listen", "nonsense").set("master.admin", "nonsense").role("slave");
    let slave = slave.start().await;
    slave.wants_work().await;
    for server in [&master, &slave] {
        server.metric_becomes("wellhead_bus_up", "", 1.0).await;
        server.metric_becomes("wellhead_roster_nodes", "", 2.0).await;
    }
    master.backend().await.push("demo", "news", "e", "1").await;
    let metrics = |server: &Server| {
        let admin = server.admin();
        async move { Http::to(admin).await.get("/metrics").await.text().to_owned() }
    };
    let (of_master, of_slave) = (metrics(&master).await, metrics(&slave).await);
    assert!(of_master.contains("wellhead_pushes") && !of_master.contains("wellhead_connections"), "{of_master}");
    assert!(of_slave.contains("wellhead_connections") && !of_slave.contains("wellhead_pushes"), "{of_slave}");
}
