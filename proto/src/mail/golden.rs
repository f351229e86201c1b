//! What nodes say, byte by byte, against `tests/golden/node_messages`: nodes of two releases read each other only as long as
//! no byte of it moves.

use super::*;
use crate::{
    command::{Command, Target},
    event::{Event, Payload, Sender},
    ids::{ChannelKey, SocketId},
    member::{Member, MemberChange},
    query::{Bearer, ChannelState, Headcount, Query},
    report::Post,
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

fn orders() -> Vec<(&'static str, Mail)> {
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
        ("member added", Command::Members { channel: name("room"), change: MemberChange::Added(member) }),
        ("member removed", Command::Members { channel: name("room"), change: MemberChange::Removed(name("ann")) }),
    ];
    commands.map(|(case, command)| (case, Mail::Order(Envelope { app: name("shop"), command }))).into()
}

fn questions() -> Vec<(&'static str, Mail)> {
    let queries = [
        ("channels", Query::Channels(vec![pattern("*")])),
        ("channel count", Query::ChannelCount(vec![pattern("a*")])),
        ("users", Query::Users),
        ("user count", Query::UserCount),
        ("users of a channel", Query::UsersOf(name("news"))),
        ("user count of a channel", Query::UserCountOf(name("news"))),
        ("states", Query::States { of: vec![name("a"), name("b")], members: true }),
        ("states under a prefix", Query::StatesUnder { prefix: "pre".to_owned(), members: false }),
        ("members", Query::Members(name("room"))),
        ("users within", Query::UsersWithin(vec![pattern("a*")])),
        ("user count within", Query::UserCountWithin(vec![pattern("a*")])),
        ("grants of a user", Query::GrantsOf(name("ann"))),
    ];
    let queries = queries.map(|(case, query)| (case, Ask::Query { app: name("shop"), query }));
    let push = Ask::PublishMatching {
        app: name("shop"),
        pattern: "^a".to_owned(),
        within: vec![pattern("*")],
        event: event(Payload::Text("hi".into()), None),
    };
    let others = [
        ("publish to a pattern", push),
        ("stats", Ask::Stats),
        ("redeem", Ask::Redeem { token: "token".to_owned(), app: name("shop") }),
        ("attendance", Ask::Attendance(vec![key("a"), key("b")])),
    ];
    let ask = |(case, ask)| (case, Mail::Ask { id: 300, from: node(7), ask });
    queries.into_iter().chain(others).map(ask).collect()
}

fn answers() -> Vec<(&'static str, Mail)> {
    let state = ChannelState { subscriptions: 300, members: [5].into() };
    let members = std::collections::BTreeMap::from([(name("ann"), "{}".into()), (name("bob"), "".into())]);
    let bearer = Bearer { user: name("ann"), app: name("shop"), channels: vec![pattern("a*")] };
    let headcount = Headcount { connections: 300, users: [6].into() };
    let censuses = [
        ("names", Census::Names(["a".to_owned(), "b".to_owned()].into())),
        ("hashes", Census::Hashes([u64::MAX].into())),
        ("stats", Census::Stats([(name("shop"), headcount)].into())),
        ("redeemed", Census::Redeemed(Some(bearer))),
        ("not redeemed", Census::Redeemed(None)),
        ("states", Census::States([("a".to_owned(), state)].into())),
        ("members", Census::Members(members.clone())),
        ("attendance", Census::Attendance([(key("a"), members)].into())),
    ];
    censuses.map(|(case, census)| (case, Mail::Answer { id: 300, from: node(7), census })).into()
}

fn reports() -> Vec<(&'static str, Mail)> {
    let post = || Post::from(key("room"));
    let member = Post { channel: key("room"), member: Some(name("ann")) };
    let said = [
        ("ask", Report::Ask { no: 1 }),
        ("answer", Report::Answer { no: 1 }),
        ("holds a channel", Report::Holds { post: post(), held: true, epoch: 3, info: None }),
        ("holds a member", Report::Holds { post: member, held: false, epoch: 4, info: Some("{}".into()) }),
        ("kept", Report::Kept { post: post(), epoch: 3 }),
        ("announced", Report::Announced { post: post(), epoch: 3 }),
        ("settled", Report::Settled { slaves: vec![node(1), node(2)], turn: 5, heard: 6 }),
    ];
    let mut all: Vec<_> =
        said.map(|(case, report)| (case, Mail::Reports { from: node(7), reports: vec![report] })).into();
    let two = vec![Report::Ask { no: 1 }, Report::Answer { no: 2 }];
    all.push(("two at once", Mail::Reports { from: node(7), reports: two }));
    all
}

fn membership() -> Vec<(&'static str, Mail)> {
    let beat = Beat {
        node: node(7),
        slave: true,
        incarnation: 0x0102_0304_0506_0708,
        secret: Fingerprint::of_secret(b"one"),
        settings: Fingerprint::of_secret(b"two"),
        unix_millis: 1_700_000_000_000,
    };
    vec![
        ("heartbeat of a slave", Mail::Beat(beat)),
        ("heartbeat of a master", Mail::Beat(Beat { slave: false, ..beat })),
        ("hello", Mail::Hello(beat)),
        ("goodbye", Mail::Goodbye(node(7), 300)),
        ("settings", Mail::Settings { from: node(7), settings: vec![("app a".to_owned(), beat.secret)] }),
        ("what have you pushed", Mail::AskPushed { no: 1, from: node(7), after: 300 }),
        ("pushed", Mail::Pushed { no: 1, from: node(7), letters: Some(vec![(Some(9), 301), (None, 302)]) }),
        ("pushed, too long ago", Mail::Pushed { no: 1, from: node(7), letters: None }),
        ("a piece", Mail::Part { of: 300, index: 1, count: 3, bytes: Bytes::from_static(b"bytes") }),
    ]
}

/// Every variant of every message, by the file that holds it.
fn all() -> [(&'static str, Vec<(&'static str, Mail)>); 5] {
    [
        ("orders", orders()),
        ("questions", questions()),
        ("answers", answers()),
        ("reports", reports()),
        ("membership", membership()),
    ]
}

#[test]
fn every_message_has_the_bytes_that_it_always_had() {
    for (file, cases) in all() {
        let mut golden = Golden::new(&format!("node_messages/v3/{file}.txt"));
        for (case, mail) in cases {
            let letter = Letter { id: 0x0700_0000_012C, session: 2, mail };
            let bytes = letter.encode();
            assert_eq!(Letter::decode(&bytes), Ok(letter), "{file}: {case}");
            golden.case(case, hex(&bytes));
        }
        golden.check();
    }
}

#[test]
fn a_large_message_travels_in_the_pieces_in_which_it_always_did() {
    let mut golden = Golden::new("node_messages/v3/pieces.txt");
    let (_, mail) = orders().swap_remove(6);
    let letter = Letter { id: 0x0700_0000_012C, session: 2, mail };
    for piece in letter.encode_within(Some(80)) {
        golden.case("a piece", hex(&piece));
    }
    golden.check();
}
