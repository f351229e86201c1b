//! What each push key may do, route by route.

use super::*;

#[tokio::test]
async fn every_guarded_row_asks_for_a_key_and_for_the_right_one() {
    let house = TestMaster::new(keys(), false, true);
    let dialects = dialect::all(&dialect::Settings::default(), &seal());
    let mut guarded = 0;
    let open = dialects.iter().filter(|dialect| dialect.is_open(&house.master.0.tenants.load()));
    let routes = open.flat_map(|dialect| dialect.routes().iter().map(|route| (dialect.name(), route)));
    for (dialect_name, route) in routes.filter(|(_, route)| route.role == Role::Master) {
        // a dialect may say 403 for both
        let is_told_apart = dialect_name != "pushex";
        let unknown_status = if is_told_apart { 401 } else { 403 };
        let path = route.path.replace(['{', '}'], "");
        let dialect::contract::RouteAuth::PushKey(right) = route.guard else {
            assert_eq!(path, "/api/ping");
            assert_eq!(house.call(route.method, &path, &[], "").await.status, 200);
            continue;
        };
        guarded += 1;
        for headers in
            [&[][..], &[("authorization", "")], &[("authorization", "Bearer ")], &[("authorization", "Basic YWxs")]]
        {
            let reply = house.call(route.method, &path, headers, "").await;
            assert_eq!(reply.status, unknown_status, "{} {path}", route.method);
            let challenge = reply.headers.contains(&("WWW-Authenticate", "Bearer".to_owned()));
            assert_eq!(challenge, is_told_apart, "{path}");
        }
        for unknown in ["al", "alll", "ALL", "all x"] {
            let (status, _) = house.with_key(unknown, route.method, &path, "").await;
            assert_eq!(status, unknown_status, "{} {path}", route.method);
        }
        for holder in [Right::Push, Right::Query, Right::Grant] {
            let (status, _) = house.with_key(holder.label(), route.method, &path, "").await;
            assert_eq!(status == 403, holder != right, "{} on {path}: {status}", holder.label());
            assert_ne!(status, 401, "{path}");
        }
    }
    assert!(guarded > 30, "{guarded} rows");
    assert_eq!(house.call("GET", "/api/a/channels", &[("authorization", "bearer  all ")], "").await.status, 200);
    assert!(house.bus.take_published().is_empty());
}

#[tokio::test]
async fn a_key_reaches_its_apps_and_channels_and_no_others() {
    let house = TestMaster::new(keys(), false, true);
    let socket = format!("/api/push/socket/shop/{}", seal().print(SocketId::new(NodeId::from_random(1), 1)));
    let batch = |second: &str| format!(r#"batch_data=[{{"channel":"room-1"}},{{"channel":"{second}"}}]"#);
    for (key, path, body, expected) in [
        // apps
        ("shop", "/api/push/shop/c/e", "data=1", (200, 1)),
        ("shop", "/api/push/cafe/c/e", "data=1", (200, 1)),
        ("shop", "/api/push/other/c/e", "data=1", (403, 0)),
        ("shop", "/api/push/shop2/c/e", "data=1", (403, 0)),
        ("shop", "/api/push/%2A/c/e", "data=1", (403, 0)),
        ("shop", "/api/push/user/other/ann", "data=1", (403, 0)),
        ("shop", "/api/push/other", "channel_pattern=a&event=e&data=1", (403, 0)),
        ("shop", "/api/reload/channel/user/other/ann", "data=[]", (403, 0)),
        ("nothing", "/api/push/shop/c/e", "data=1", (403, 0)),
        ("all", "/api/push/other/c/e", "data=1", (200, 1)),
        // channels
        ("rooms", "/api/push/shop/room-1/e", "data=1", (200, 1)),
        ("rooms", "/api/push/shop/lobby/e", "data=1", (200, 1)),
        ("rooms", "/api/push/shop/room-/e", "data=1", (403, 0)),
        ("rooms", "/api/push/shop/news/e", "data=1", (403, 0)),
        ("rooms", "/api/push/shop/%2A/e", "data=1", (403, 0)),
        ("rooms", "/api/push_batch/shop", &batch("lobby"), (200, 2)),
        ("rooms", "/api/push_batch/shop", &batch("news"), (403, 0)),
        ("rooms", "/api/push/user/shop/ann", "data=1", (403, 0)),
        ("rooms", &socket, "data=1", (403, 0)),
        ("all", &socket, "data=1", (200, 1)),
        ("all", "/api/push/user/shop/ann", "data=1", (200, 1)),
        // grants
        ("rooms", "/api/reload/channel/user/shop/ann", r#"data=["room-7","room-7*","lobby"]"#, (200, 1)),
        ("rooms", "/api/reload/channel/user/shop/ann", r#"data=["room-7","*"]"#, (403, 0)),
        ("rooms", "/api/reload/channel/user/shop/ann", r#"data=["lobby*"]"#, (403, 0)),
        ("rooms", "/api/add/channel/user/shop/ann", "data=room-*", (200, 1)),
        ("rooms", "/api/add/channel/user/shop/ann", "data=*", (403, 0)),
        ("rooms", "/api/add/channel/user/shop/ann", "data=r*", (403, 0)),
        ("all", "/api/add/channel/user/shop/ann", "data=*", (200, 1)),
    ] {
        assert_eq!(house.with_key(key, "POST", path, body).await, expected, "{key} on {path} with {body}");
    }
    for (key, path, status) in [
        ("rooms", "/api/shop/online/bychannel/room-1", 200),
        ("rooms", "/api/shop/online/bychannel/news", 403),
        ("rooms", "/v1/apps/shop/channels/news/users/count", 403),
        ("rooms", "/shop/channels", 200),
        ("shop", "/shop/online", 200),
        ("shop", "/other/online", 403),
        ("shop", "/v1/apps/other/channels/count", 403),
    ] {
        assert_eq!(house.with_key(key, "GET", path, "").await, (status, 0), "{key} on {path}");
    }
}

#[tokio::test]
async fn what_a_key_limits_in_part_is_cut_down_to_it() {
    let house = TestMaster::new(keys(), false, true);
    let asked = || std::mem::take(&mut *house.bus.asked.lock().expect("no panic"));
    let within = |ask: &Value, path: &str| ask.pointer(path).cloned();
    house.with_key("rooms", "POST", "/api/push/shop", "channel_pattern=o&event=e&data=1").await;
    house.with_key("rooms", "GET", "/api/shop/channels", "").await;
    house.with_key("rooms", "GET", "/api/shop/channels/count", "").await;
    house.with_key("all", "GET", "/api/shop/channels", "").await;
    let asked: Vec<Value> = asked().iter().map(|ask| json!(ask)).collect();
    let rooms = Some(json!(["room-*", "lobby"]));
    let pushed = house.bus.matching.lock().expect("no panic").pop().expect("a push to a pattern");
    assert_eq!(Some(json!(pushed.within)), rooms);
    assert_eq!(within(&asked[0], "/Names/of/Channels"), rooms);
    assert_eq!(within(&asked[1], "/Count/of/Channels"), rooms);
    assert_eq!(within(&asked[2], "/Names/of/Channels"), Some(json!(["*"])));
}

#[tokio::test]
async fn sizes_and_claims_are_shown_for_the_apps_of_the_key_only() {
    let house = TestMaster::new(keys(), false, true);
    let count = |connections| Headcount { connections, users: HashSet::from([1]) };
    let apps = BTreeMap::from([("shop".parse().expect("name"), count(2)), ("other".parse().expect("name"), count(5))]);
    *house.bus.answer.lock().expect("no panic") = Some(QueryResult::Stats(apps));
    for (key, stats, apps) in [
        (
            "all",
            r#"{"apps":2,"connections":7,"users":2}"#,
            r#"[{"app":"other","connections":5,"users":1},{"app":"shop","connections":2,"users":1}]"#,
        ),
        ("shop", r#"{"apps":1,"connections":2,"users":1}"#, r#"[{"app":"shop","connections":2,"users":1}]"#),
        ("nothing", r#"{"apps":0,"connections":0,"users":0}"#, "[]"),
    ] {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        assert_eq!(text(&house.call("GET", "/v1/stats", &headers, "").await), stats);
        assert_eq!(text(&house.call("GET", "/v1/apps", &headers, "").await), apps);
    }
    for (key, app, status) in
        [("shop", "shop", 200), ("shop", "other", 403), ("all", "other", 200), ("push", "shop", 403)]
    {
        let body = format!("data={}", jwt(app));
        assert_eq!(house.with_key(key, "POST", "/api/decode", &body).await.0, status, "{key} decodes {app}");
    }
    assert_eq!(house.with_key("shop", "POST", "/api/decode", "data=x.y.z").await.0, 400);
}

#[test]
fn a_push_key_reads_from_the_settings_with_its_defaults() {
    let hash = KeyHash::of("all").to_string();
    let read: PushKey = serde_json::from_value(json!({ "name": "backend", "sha256": hash })).expect("the least");
    let everything = key("all", &["*"], &["*"], &[Right::Push, Right::Query, Right::Grant]);
    assert_eq!(read, PushKey { name: "backend".to_owned(), ..everything.clone() });
    let written = serde_json::to_value(&everything).expect("JSON");
    assert_eq!(serde_json::from_value::<PushKey>(written).expect("what was written"), everything);
    for wrong in [
        json!({ "name": "x", "sha256": "…" }),
        json!({ "name": "x", "sha256": "ab" }),
        json!({ "name": "x", "sha256": "g".repeat(64) }),
        json!({ "name": "x", "sha256": "中".repeat(32) }),
        json!({ "name": "x", "sha256": hash, "rights": ["all"] }),
        json!({ "name": "x", "sha256": hash, "key": "secret" }),
        json!({ "sha256": hash }),
        json!({ "name": "x" }),
    ] {
        assert!(serde_json::from_value::<PushKey>(wrong.clone()).is_err(), "{wrong}");
    }
    assert!(!format!("{everything:?}").contains(&hash));
}

#[tokio::test]
async fn permissions_have_a_limit_that_says_how_large_they_may_be() {
    let house = TestMaster::new(keys(), false, true);
    let list = |many: usize| format!("[{}]", vec![r#""abcdefg""#; many].join(","));
    // ten bytes each, with quotes and comma; the limit of these tests is 1,000
    for (many, expected) in [(100, (200, 1)), (101, (413, 0)), (20_000, (413, 0))] {
        let form = format!("data={}", list(many));
        assert_eq!(house.with_key("all", "POST", "/api/reload/channel/user/shop/ann", &form).await, expected, "{many}");
        let json = format!(r#"{{"channels":{}}}"#, list(many));
        assert_eq!(house.with_key("all", "PUT", "/v1/apps/shop/users/ann/channels", &json).await, expected, "{many}");
    }
    let headers = [("authorization", "Bearer all"), ("content-type", "application/x-www-form-urlencoded")];
    let form = format!("data={}", list(101));
    let reply = house.call("POST", "/api/reload/channel/user/shop/ann", &headers, &form).await;
    assert!(text(&reply).contains("1000 bytes") && text(&reply).contains("limits.grants"), "{}", text(&reply));
}

#[tokio::test]
async fn keys_that_are_swapped_count_from_the_next_request_on() {
    let house = TestMaster::new(vec![key("rooms", &["*"], &["room-*"], &[Right::Push])], false, true);
    let push = |name| house.with_key(name, "POST", "/api/push/shop/news/e", "data=1");
    assert_eq!((push("rooms").await.0, push("all").await.0), (403, 401));

    // whoever was let in by its head is held to what its key was then, whoever has its place now
    let headers =
        SentRequest(&[("authorization", "Bearer rooms"), ("content-type", "application/x-www-form-urlencoded")]);
    let (method, path, version) = ("POST", "/api/push/shop/news/e", HttpVersion::Http11);
    let head = Head { version, method, path, query: "", headers: &headers };
    let admitted = house.master.admit(head).expect("the key may push");
    let all = key("all", &["*"], &["*"], &[Right::Push]);
    let tenants = Tenants::clone(&house.master.0.tenants.load());
    house.master.0.tenants.swap(tenants.with_push_keys(vec![all]));
    assert_eq!(house.master.serve(admitted, head, "data=1".into()).await.status, 403);

    assert_eq!((push("rooms").await.0, push("all").await), (401, (200, 1)));
    // without any, programs of this machine are served again
    house.master.0.tenants.swap(Tenants::new(Keyring::default(), [], true, Origins::any()));
    let local = [("host", "127.0.0.1"), ("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(house.call("POST", "/api/push/shop/news/e", &local, "data=1").await.status, 200);
}

#[tokio::test]
async fn webhooks_are_shown_to_keys_of_the_app_and_sent_again_by_those_of_all_channels() {
    let house = TestMaster::new(keys(), false, true);
    for (key, app, shown, sent) in [
        ("all", "shop", 200, 404),
        ("shop", "shop", 200, 404),
        ("rooms", "shop", 200, 403),
        ("shop", "other", 403, 403),
    ] {
        let path = format!("/v1/apps/{app}/webhooks");
        assert_eq!(house.with_key(key, "GET", &path, "").await.0, shown, "{key} on {app}");
        let path = format!("{path}/1-1/resend");
        assert_eq!(house.with_key(key, "POST", &path, "").await.0, sent, "{key} on {app}");
    }
}
