//! The routes against golden files, and what no file holds: ids of every length and kind.

use std::time::Duration;

use crate::{
    dialect::{
        Settings, all,
        contract::{ApiCall, ApiReply, Role},
        golden::{self, GoldenRequest, RoleRequest},
    },
    http_api::Router,
    ids::{NodeId, SocketId, SocketIdSeal},
    tenants::Tenants,
};

fn seal() -> SocketIdSeal {
    SocketIdSeal::new(b"golden")
}

/// What a request comes down to, or the reply that refuses it.
fn call(request: &GoldenRequest) -> Result<RoleRequest, ApiReply> {
    let (router, tenants) = (Router::new(Role::Master, all(&Settings::default(), &seal())), Tenants::default());
    let GoldenRequest { method, path, query, headers, body } = request;
    let matched = router.find(method, path, &tenants)?;
    let call = ApiCall {
        route_id: router.route(&matched).route_id,
        method,
        path,
        segments: matched.segments.clone(),
        query,
        headers,
        body: body.clone().into(),
        now: Duration::ZERO,
        tenants: &tenants,
    };
    let asked = router.dialect(&matched).master_request(call).map(RoleRequest::Master);
    asked.map_err(|why| router.refuse(&matched, &why))
}

fn delete(path: String) -> (u16, String) {
    let request = GoldenRequest {
        method: "DELETE".to_owned(),
        path,
        query: String::new(),
        headers: Default::default(),
        body: String::new(),
    };
    match call(&request) {
        Ok(request) => (200, golden::shown(&request).to_string()),
        Err(reply) => (reply.status, String::from_utf8(reply.body.into()).unwrap()),
    }
}

#[test]
fn each_request_comes_down_to_one_command() {
    // the only socket that exists in the files
    let socket = seal().print(SocketId::new(NodeId::from_random(0), 7));
    golden::check_http("native/http.json", |text| text.replace("@SOCKET@", &socket), call);
}

#[test]
fn a_user_has_an_id_of_any_characters_up_to_its_limit() {
    let user = |id: &str| delete(format!("/v1/apps/shop/users/{id}/connections"));
    for id in
        ["x", &"x".repeat(128), &"x".repeat(129), &"x".repeat(1_024), "%2F", "%00", "a%20b", "%F0%9F%A6%80", "..", "*"]
    {
        assert_eq!(user(id).0, 200, "{id}");
    }
    assert!(user("%F0%9F%A6%80").1.contains("🦀"));
    assert_eq!(user(&"x".repeat(1_025)).0, 400);
    assert_eq!((user("").0, user("%zz").0, user("%ff").0), (404, 400, 400));
}

#[test]
fn a_socket_id_that_is_none_is_told_and_one_of_nobody_changes_nothing() {
    let socket = |id: &str| delete(format!("/v1/apps/shop/sockets/{id}"));
    let nothing = (200, r#"{"publish":[]}"#.to_owned());
    for id in
        ["2097152.1", "01.1", "1.4294967296", &format!("1.{}", "9".repeat(128)), "00000000-0000-8000-8000-000000000000"]
    {
        assert_eq!(socket(id), nothing, "{id}");
    }
    for id in [
        "12345678901234567",
        "x",
        "1.",
        ".1",
        "1.1.1",
        "-1.1",
        "%2E",
        "1%2E1x",
        &"x".repeat(128),
        &"x".repeat(129),
        &"-".repeat(35),
    ] {
        let (status, why) = socket(id);
        assert!(status == 400 && why.contains("no socket id"), "{id}: {why}");
    }
    assert_eq!(socket("1%2E1"), socket("1.1"));
    // as Conveyor's clients see it
    assert_eq!(socket("8589934593"), socket("2.1"));
    assert_eq!(socket("9007199254740993"), nothing);
    assert_eq!(socket("").0, 404);
}
