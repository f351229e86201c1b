//! What nodes say, byte by byte, against `tests/golden/node_messages`: nodes of two releases read each other only as long as
//! no byte of it moves.

use super::*;
use crate::{
    command::{Command, Target, Within},
    coordination::{CoordinatedKey, CoordinationMessage},
    event::{Event, Payload, Sender},
    ids::{ChannelKey, SocketId},
    member::{Member, MemberChange},
    node_request::Bearer,
    query::{
        ChannelState, CountQuery, GrantsQuery, Headcount, KeptWebhook, Listing, MembersQuery, NamesQuery,
        OccupiedQuery, ResendWebhookQuery, SocketsQuery, StatesOf, StatesQuery, StatsQuery, WebhookState,
        WebhooksQuery,
    },
    testkit::{Golden, hex},
};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name")
}

fn pattern(text: &str) -> crate::channel::ChannelPattern {
    text.try_into().expect("a pattern")
}

fn node(no: u32) -> NodeId {
    NodeId::from_random(no)
}

fn key(channel: &str) -> ChannelKey {
    ChannelKey { app: name("shop"), name: name(channel) }
}

fn event(data: Payload, sender: Option<Sender>) -> Event {
    Event { name: name("said"), data, sender }
}

fn orders() -> Vec<(&'static str, Body)> {
    let publish = |event, except| Command::Publish { channel: name("news"), event, except };
    let socket = SocketId::new(node(7), 9);
    let member = Member { user: name("ann"), info: "{}".into() };
    let commands = [
        ("publish JSON", publish(event(Payload::Json("{\"n\":1}".into()), None), None)),
        ("publish text, except to a socket", publish(event(Payload::Text("hi".into()), None), Some(socket))),
        ("publish nothing, said by a socket", publish(event(Payload::Absent, Some(Sender::Socket)), Some(socket))),
        ("publish, said by a member", publish(event(Payload::Absent, Some(Sender::Member(name("ann")))), None)),
        ("direct to a user", Command::Direct { to: Target::User(name("ann")), data: Payload::Json("1".into()) }),
        ("direct to a socket", Command::Direct { to: Target::Socket(socket), data: Payload::Text("hi".into()) }),
        (
            "reload",
            Command::Reload {
                user: name("ann"),
                within: vec![pattern("*")],
                channels: vec![pattern("a"), pattern("b*")],
            },
        ),
        ("grant", Command::Grant { user: name("ann"), channel: pattern("c*") }),
    ];
    let commands = commands.map(|(case, command)| (case, Body::Command(Envelope { app: name("shop"), command })));
    let changes =
        [("member added", MemberChange::Added(member)), ("member removed", MemberChange::Removed(name("ann")))];
    let announced = |(case, change)| (case, Body::Announcement(MemberAnnouncement { channel: key("room"), change }));
    commands.into_iter().chain(changes.map(announced)).collect()
}

fn questions() -> Vec<(&'static str, Body)> {
    let (id, from) = (300, node(7));
    let names = |of| NamesQuery { app: name("shop"), of }.into();
    let count = |of| CountQuery { app: name("shop"), of }.into();
    let states = |of, members| StatesQuery { app: name("shop"), of, members }.into();
    let queries: [(_, Query); 12] = [
        ("channels", names(Listing::Channels(vec![pattern("*")]))),
        ("channel count", count(Listing::Channels(vec![pattern("a*")]))),
        ("users", names(Listing::Users { within: None })),
        ("user count", count(Listing::Users { within: None })),
        ("users of a channel", names(Listing::UsersOf(name("news")))),
        ("user count of a channel", count(Listing::UsersOf(name("news")))),
        ("states", states(StatesOf::Named(vec![name("a"), name("b")]), true)),
        ("states under a prefix", states(StatesOf::Under("pre".to_owned()), false)),
        ("members", MembersQuery { app: name("shop"), channel: name("room") }.into()),
        ("users within", names(Listing::Users { within: Some(vec![pattern("a*")]) })),
        ("user count within", count(Listing::Users { within: Some(vec![pattern("a*")]) })),
        ("grants of a user", GrantsQuery { app: name("shop"), user: name("ann") }.into()),
    ];
    let push = PublishMatching {
        app: name("shop"),
        pattern: "^a".to_owned(),
        within: vec![pattern("*")],
        event: event(Payload::Text("hi".into()), None),
    };
    let redeem = NodeRequest::Redeem { token: "token".to_owned(), app: name("shop") };
    let others = [
        ("publish to a pattern", Body::PublishMatching { id, from, push }),
        ("stats", Body::Query { id, from, query: StatsQuery.into() }),
        ("redeem", Body::Request { id, from, request: redeem }),
        ("attendance", Body::Request { id, from, request: NodeRequest::MemberLists(vec![key("a"), key("b")]) }),
    ];
    queries.map(|(case, query)| (case, Body::Query { id, from, query })).into_iter().chain(others).collect()
}

fn answers() -> Vec<(&'static str, Body)> {
    let (id, from) = (300, node(7));
    let state = ChannelState { subscriptions: 300, members: [5].into() };
    let members = std::collections::BTreeMap::from([(name("ann"), "{}".into()), (name("bob"), "".into())]);
    let bearer = Bearer { user: name("ann"), app: name("shop"), channels: vec![pattern("a*")], remotes: Vec::new() };
    let headcount = Headcount { connections: 300, users: [6].into() };
    let result = |result| Body::Result { id, from, result };
    let response = |response| Body::Response { id, from, response };
    vec![
        ("names", result(QueryResult::Names(["a".to_owned(), "b".to_owned()].into()))),
        ("hashes", result(QueryResult::Hashes([u64::MAX].into()))),
        ("stats", result(QueryResult::Stats([(name("shop"), headcount)].into()))),
        ("redeemed", response(NodeResponse::Redeemed(Some(bearer)))),
        ("not redeemed", response(NodeResponse::Redeemed(None))),
        ("states", result(QueryResult::States([("a".to_owned(), state)].into()))),
        ("members", result(QueryResult::Members(members.clone()))),
        ("attendance", response(NodeResponse::MemberLists([(key("a"), members)].into()))),
    ]
}

fn reports() -> Vec<(&'static str, Body)> {
    let channel = || CoordinatedKey::from(key("room"));
    let member = CoordinatedKey::Member { channel: key("room"), user: name("ann") };
    let said = [
        ("ask", CoordinationMessage::Request { number: 1 }),
        ("answer", CoordinationMessage::Answer { number: 1 }),
        ("holds a channel", CoordinationMessage::Claim { key: channel(), claimed: true, epoch: 3, info: None }),
        (
            "holds a member",
            CoordinationMessage::Claim { key: member, claimed: false, epoch: 4, info: Some("{}".into()) },
        ),
        ("kept", CoordinationMessage::Handover { key: channel(), epoch: 3 }),
        ("announced", CoordinationMessage::Announced { key: channel(), epoch: 3 }),
        ("settled", CoordinationMessage::Synced { slaves: vec![node(1), node(2)], round: 5, confirmed: 6 }),
    ];
    let mut all: Vec<_> = said.map(|(case, said)| (case, report(vec![said]))).into();
    let two = vec![CoordinationMessage::Request { number: 1 }, CoordinationMessage::Answer { number: 2 }];
    all.push(("two at once", report(two)));
    all
}

/// What the previous release has no word for.
fn new_reports() -> Vec<(&'static str, Body)> {
    let user = || CoordinatedKey::User { app: name("shop"), user: name("ann") };
    let channel = || CoordinatedKey::from(key("room"));
    let said = [
        ("claims a user", CoordinationMessage::Claim { key: user(), claimed: true, epoch: 3, info: None }),
        ("hands over a user", CoordinationMessage::Handover { key: user(), epoch: 3 }),
        ("announced a user", CoordinationMessage::Announced { key: user(), epoch: 3 }),
        ("announcements lost", CoordinationMessage::AnnouncementsLost),
        ("follows a channel", CoordinationMessage::Follow { key: channel(), count: 300, told: Some(299), asks: true }),
        ("follows a user", CoordinationMessage::Follow { key: user(), count: 1, told: None, asks: false }),
        ("follows no more", CoordinationMessage::Follow { key: user(), count: 0, told: None, asks: false }),
        ("told a count", CoordinationMessage::Told { key: channel(), count: 301, all: false }),
        ("told of a user", CoordinationMessage::Told { key: user(), count: 1, all: true }),
        ("leaving", CoordinationMessage::Leaving),
    ];
    said.map(|(case, said)| (case, report(vec![said]))).into()
}

/// What the previous release has other words for.
fn new_orders() -> Vec<(&'static str, Body)> {
    let order = |case, data, except| {
        let command = Command::DirectEvent { user: name("ann"), event: event(data, None), except };
        (case, Body::Command(Envelope { app: name("shop"), command }))
    };
    vec![
        order("an event to a user", Payload::Json("{\"n\":1}".into()), None),
        order("an event to a user, except to a socket", Payload::Text("hi".into()), Some(SocketId::new(node(7), 9))),
    ]
}

/// What the previous release cannot do.
fn new_ends() -> Vec<(&'static str, Body)> {
    let end = |case, whose, reconnect| {
        (case, Body::Command(Envelope { app: name("shop"), command: Command::Terminate { whose, reconnect } }))
    };
    vec![
        end("the end of a user's sockets", Target::User(name("ann")), false),
        end("the end of a socket, which is to come back", Target::Socket(SocketId::new(node(7), 9)), true),
    ]
}

/// What the previous release leaves out.
fn new_answers() -> Vec<(&'static str, Body)> {
    let remotes = vec!["cmd".to_owned()];
    let bearer = Bearer { user: name("ann"), app: name("shop"), channels: vec![pattern("a*")], remotes };
    let response = NodeResponse::Redeemed(Some(bearer));
    vec![("redeemed, with remote commands", Body::Response { id: 300, from: node(7), response })]
}

/// What the previous release knows nothing of: webhooks.
fn webhooks() -> Vec<(&'static str, Body)> {
    let (id, from) = (0x2a, node(7));
    let kept = KeptWebhook { events: 2, given_up: 1_700_000_000_000, reason: "answered 500".to_owned() };
    let state = WebhookState {
        target: "https://hooks.example.com:443".to_owned(),
        queued_events: 3,
        queued_requests: 1,
        last_success: Some(1_700_000_000_000),
        last_error: Some((1_700_000_000_001, "no answer in time".to_owned())),
        kept: [("7-1".to_owned(), kept)].into(),
    };
    let resend = ResendWebhookQuery { app: name("shop"), id: "7-1".to_owned() };
    vec![
        ("states of webhooks", Body::Query { id, from, query: WebhooksQuery { app: name("shop") }.into() }),
        ("send a webhook again", Body::Query { id, from, query: resend.into() }),
        ("webhooks", Body::Result { id, from, result: QueryResult::Webhooks([(0, state)].into()) }),
    ]
}

/// What the previous release can be told less exactly only.
fn new_membership() -> Vec<(&'static str, Body)> {
    let messages = vec![(PushedTo::UserSlot(9), 301), (PushedTo::Slot(9), 302)];
    vec![("pushed to a user", Body::Pushed { no: 1, from: node(7), messages: Some(messages) })]
}

/// What is about sockets of one dialect, temporary tokens, and channels that somebody is on: the previous release has no
/// word for it.
fn of_dialects() -> Vec<(&'static str, Body)> {
    let (id, from) = (300, node(7));
    let socket = SocketId::new(node(7), 9);
    let within = |case, to| {
        let data = Payload::Json("{}".into());
        let command = Command::WithinDialect { dialect: "some".to_owned(), to, data };
        (case, Body::Command(Envelope { app: name("shop"), command }))
    };
    let numbered = event(Payload::Text("hi".into()), Some(Sender::Numbered(socket)));
    let publish = Command::Publish { channel: name("news"), event: numbered, except: None };
    let ask = |case, dialect: Option<&str>| {
        let dialect = dialect.map(ToOwned::to_owned);
        let query = SocketsQuery { app: name("shop"), channel: name("news"), dialect, most: 300 };
        (case, Body::Query { id, from, query: query.into() })
    };
    let occupied = OccupiedQuery { app: name("shop"), channel: name("news") };
    let request = |case, request| (case, Body::Request { id, from, request });
    let response = |case, response| (case, Body::Response { id, from, response });
    let token = || "token".to_owned();
    let mint = |channel| NodeRequest::MintToken { app: name("shop"), channel, ttl_millis: 60_000 };
    vec![
        within("to a channel of a dialect", Within::Channel(name("news"))),
        within("to everybody of a dialect", Within::Everybody),
        within("to those on no channel", Within::NoChannel),
        ("publish, with the number of its sender", Body::Command(Envelope { app: name("shop"), command: publish })),
        ask("sockets on a channel", None),
        ask("sockets of a dialect", Some("some")),
        ("is anybody on a channel", Body::Query { id, from, query: occupied.into() }),
        ("these sockets", Body::Result { id, from, result: QueryResult::Sockets([(socket, "7".to_owned())].into()) }),
        request("mint a token", mint(Some(name("news")))),
        request("mint a token for no channel", mint(None)),
        request("check a token", NodeRequest::CheckToken { token: token(), app: name("shop") }),
        request("spend a token", NodeRequest::SpendToken { token: token(), channel: key("news") }),
        request("who claims a channel", NodeRequest::Claimants(key("news"))),
        response("minted", NodeResponse::Minted(Some(token()))),
        response("not minted", NodeResponse::Minted(None)),
        response("valid", NodeResponse::TokenIsValid(true)),
        response("claimants", NodeResponse::Claimants(Some(vec![node(1), node(2)]))),
        response("not the coordinator", NodeResponse::Claimants(None)),
    ]
}

fn report(reports: Vec<CoordinationMessage>) -> Body {
    Body::Reports { from: node(7), reports }
}

fn membership() -> Vec<(&'static str, Body)> {
    let beat = Heartbeat {
        node: node(7),
        slave: true,
        incarnation: 0x0102_0304_0506_0708,
        secret: Fingerprint::of_secret(b"one"),
        settings: Fingerprint::of_secret(b"two"),
        unix_millis: 1_700_000_000_000,
    };
    vec![
        ("heartbeat of a slave", Body::Heartbeat(beat)),
        ("heartbeat of a master", Body::Heartbeat(Heartbeat { slave: false, ..beat })),
        ("hello", Body::Hello(beat)),
        ("goodbye", Body::Goodbye(node(7), 300)),
        ("settings", Body::Settings { from: node(7), settings: vec![("app a".to_owned(), beat.secret)] }),
        ("what have you pushed", Body::AskPushed { no: 1, from: node(7), after: 300 }),
        (
            "pushed",
            Body::Pushed { no: 1, from: node(7), messages: Some(vec![(PushedTo::Slot(9), 301), (PushedTo::All, 302)]) },
        ),
        ("pushed, too long ago", Body::Pushed { no: 1, from: node(7), messages: None }),
        ("a piece", Body::Fragment { of: 300, index: 1, count: 3, bytes: Bytes::from_static(b"bytes") }),
    ]
}

/// Every variant of every message that both formats have, by the file that holds it.
fn all() -> [(&'static str, Vec<(&'static str, Body)>); 5] {
    [
        ("orders", orders()),
        ("questions", questions()),
        ("answers", answers()),
        ("reports", reports()),
        ("membership", membership()),
    ]
}

fn message(body: Body) -> NodeMessage {
    NodeMessage { id: 0x0700_0000_012C, session: 2, body }
}

const FORMATS: [(MessageFormat, &str); 2] = [(MessageFormat::V3, "v3"), (MessageFormat::V4, "v4")];

#[test]
fn every_message_has_the_bytes_that_it_always_had() {
    let signer = MessageKey::new(b"the secret of the golden files");
    for (format, folder) in FORMATS {
        let only_here = [
            ("new_reports", new_reports()),
            ("new_orders", new_orders()),
            ("new_ends", new_ends()),
            ("new_answers", new_answers()),
            ("webhooks", webhooks()),
            ("new_membership", new_membership()),
            ("of_dialects", of_dialects()),
        ];
        let only_here = only_here.into_iter().filter(|_| format == MessageFormat::V4);
        for (file, cases) in all().into_iter().chain(only_here) {
            let mut golden = Golden::new(&format!("node_messages/{folder}/{file}.txt"));
            for (case, body) in cases {
                let message = message(body);
                let bytes = message.encode(format, &signer);
                assert_eq!(NodeMessage::decode(&bytes, &signer), Ok((message, format)), "{folder}/{file}: {case}");
                golden.case(case, hex(&bytes));
            }
            golden.check();
        }
    }
}

#[test]
fn a_large_message_travels_in_the_pieces_in_which_it_always_did() {
    let signer = MessageKey::new(b"the secret of the golden files");
    for ((format, folder), most) in FORMATS.into_iter().zip([80, 96]) {
        let mut golden = Golden::new(&format!("node_messages/{folder}/pieces.txt"));
        let (_, body) = orders().swap_remove(6);
        for piece in message(body).encode_within(format, &signer, Some(most)) {
            golden.case("a piece", hex(&piece));
        }
        golden.check();
    }
}

#[test]
fn the_previous_release_is_not_told_what_it_has_no_word_for() {
    let signer = MessageKey::new(b"the secret of the golden files");
    let request = CoordinationMessage::Request { number: 1 };
    for (case, body) in new_reports() {
        let Body::Reports { mut reports, .. } = body else { panic!("{case}") };
        reports.push(request.clone());
        let bytes = message(report(reports)).encode(MessageFormat::V3, &signer);
        let told = message(report(vec![request.clone()]));
        assert_eq!(NodeMessage::decode(&bytes, &signer), Ok((told, MessageFormat::V3)), "{case}");
    }
}

#[test]
fn the_previous_release_takes_a_push_to_a_slot_of_users_for_one_to_everybody() {
    let signer = MessageKey::new(b"the secret of the golden files");
    let (_, pushed) = new_membership().swap_remove(0);
    let bytes = message(pushed).encode(MessageFormat::V3, &signer);
    let messages = vec![(PushedTo::All, 301), (PushedTo::Slot(9), 302)];
    let told = message(Body::Pushed { no: 1, from: node(7), messages: Some(messages) });
    assert_eq!(NodeMessage::decode(&bytes, &signer), Ok((told, MessageFormat::V3)));
}

#[test]
fn the_previous_release_reads_something_harmless_in_place_of_what_is_about_dialects() {
    let signer = MessageKey::new(b"the secret of the golden files");
    for (case, body) in of_dialects() {
        let bytes = message(body).encode(MessageFormat::V3, &signer);
        let (NodeMessage { body, .. }, _) = NodeMessage::decode(&bytes, &signer).expect(case);
        match body {
            // an event without the number of its sender, or something for nobody
            Body::Command(Envelope { command: Command::Publish { event, .. }, .. }) => assert_eq!(event.sender, None),
            Body::Command(Envelope { command: Command::Direct { to: Target::User(user), .. }, .. }) => {
                assert!(user.is_nobody(), "{case}");
            }
            // questions and answers of another kind, with nothing in them
            Body::Query { query, .. } => {
                let nothing = StatesOf::Named(Vec::new());
                assert!(matches!(query, Query::States(StatesQuery { of, .. }) if of == nothing), "{case}");
            }
            Body::Result { result, .. } => assert_eq!(result.count(), 0, "{case}"),
            Body::Request { request, .. } => assert_eq!(request, NodeRequest::MemberLists(Vec::new()), "{case}"),
            Body::Response { response, .. } => assert_eq!(response, NodeResponse::MemberLists([].into()), "{case}"),
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn the_previous_release_is_told_an_event_to_a_user_as_a_payload() {
    let signer = MessageKey::new(b"the secret of the golden files");
    for ((case, body), data) in
        new_orders().into_iter().zip([r#"{"event":"said","data":{"n":1}}"#, r#"{"event":"said","data":"hi"}"#])
    {
        let bytes = message(body).encode(MessageFormat::V3, &signer);
        let command = Command::Direct { to: Target::User(name("ann")), data: Payload::Json(data.into()) };
        let told = message(Body::Command(Envelope { app: name("shop"), command }));
        assert_eq!(NodeMessage::decode(&bytes, &signer), Ok((told, MessageFormat::V3)), "{case}");
    }
}

#[test]
fn the_previous_release_keeps_sockets_that_are_to_end_and_misses_no_number() {
    let signer = MessageKey::new(b"the secret of the golden files");
    for (case, body) in new_ends() {
        let sent = message(body);
        let bytes = sent.encode(MessageFormat::V3, &signer);
        let (read, _) = NodeMessage::decode(&bytes, &signer).unwrap();
        assert_eq!((read.id, read.session), (sent.id, sent.session), "{case}");
        let Body::Command(Envelope { command: Command::Publish { channel, .. }, .. }) = read.body else {
            panic!("{case}: {:?}", read.body);
        };
        assert_eq!(channel.as_str(), "", "{case}");
    }
}

/// Its answer is none to the question, so its part of the answer is missing.
#[test]
fn the_previous_release_is_asked_something_else_than_about_webhooks() {
    let signer = MessageKey::new(b"the secret of the golden files");
    for (case, body) in webhooks() {
        let Body::Query { query, .. } = &body else { continue };
        let mut nothing = query.nothing();
        let (read, _) = NodeMessage::decode(&message(body).encode(MessageFormat::V3, &signer), &signer).unwrap();
        let Body::Query { query: asked, .. } = read.body else { panic!("{case}") };
        assert!(nothing.merge(asked.nothing()).is_err(), "{case}: {asked:?}");
    }
}
