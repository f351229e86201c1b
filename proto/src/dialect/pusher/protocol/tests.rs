//! Frames of clients and events against golden files, notices, and that nothing a client says makes one panic.

use std::time::Duration;

use bytestring::ByteString;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::{
    dialect::{
        golden::{self, GoldenEvent},
        pusher::apps::tests::{app, tenants},
    },
    ids::NodeId,
    member::{Member, MemberChange},
    notice::Notice,
    units::Span,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TalkCase {
    name: String,
    steps: Vec<TalkStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TalkStep {
    says: String,
    #[serde(default)]
    at_ms: u64,
    does: Value,
    /// Of the action; then `hears` is what the client gets.
    outcome: Option<GoldenOutcome>,
    #[serde(default)]
    hears: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum GoldenOutcome {
    Done,
    Denied,
    Barred(GoldenDenial),
    Joined(Vec<(UserId, String)>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum GoldenDenial {
    AlreadyThere,
    TooManySubscriptions(usize),
    Full(usize),
}

/// A socket of an app, and the tenants that are in force for it.
struct TestTalk {
    talk: PusherProtocol,
    tenants: Tenants,
}

fn talk(app: PusherApp) -> TestTalk {
    let talk = PusherProtocol::new(app.key.clone(), SocketId::new(NodeId::try_from(11).unwrap(), 22));
    TestTalk { talk, tenants: tenants([app]) }
}

impl TestTalk {
    fn greeting(&mut self) -> Option<Frame> {
        self.talk.greeting(&self.tenants)
    }

    fn receive(&mut self, message: ClientMessage, now: Duration) -> Result<Action, CloseCause> {
        self.talk.receive(message, &self.tenants, now)
    }

    fn reply(&mut self, outcome: ActionOutcome<'_>) -> Option<Frame> {
        self.talk.reply(outcome)
    }
}

/// The texts of the frames in `frame`.
fn texts(frame: &Frame) -> Vec<String> {
    let Frame::Whole(bytes) = frame else { panic!("whole frames only") };
    let (mut rest, mut texts) = (&bytes[..], Vec::new());
    while let [0x81, length, after @ ..] = rest {
        let (length, after) = match length {
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            127 => (u64::from_be_bytes(after[..8].try_into().unwrap()) as usize, &after[8..]),
            length => (usize::from(*length), after),
        };
        texts.push(String::from_utf8(after[..length].to_vec()).expect("text frames are UTF-8"));
        rest = &after[length..];
    }
    assert!(rest.is_empty(), "text frames only");
    texts
}

fn shown(action: &Action) -> Value {
    match action {
        Action::Ignore => json!("ignore"),
        Action::Answer(frame) | Action::RejectSubscribe { says: frame, .. } => json!({ "answer": texts(frame) }),
        Action::Enter(entry) => {
            let member = entry.member.as_ref().map(|member| json!({ "user": member.user, "info": &*member.info }));
            json!({ "enter": { "channel": entry.channel, "member": member, "most_members": entry.most_members } })
        }
        Action::Identify(user) => json!({ "identify": user }),
        Action::Unsubscribe(channel) => json!({ "unsubscribe": channel }),
        Action::Say { channel, event } => {
            let mut said = golden::event(event);
            said["channel"] = json!(channel);
            json!({ "say": said })
        }
        other => panic!("{other:?} is no action of this dialect"),
    }
}

fn tell(talk: &mut TestTalk, came: &GoldenOutcome) -> Vec<String> {
    let members: Vec<_>;
    let infos: Vec<ByteString>;
    let outcome = match came {
        GoldenOutcome::Done => ActionOutcome::Done,
        GoldenOutcome::Denied => ActionOutcome::Denied,
        GoldenOutcome::Barred(GoldenDenial::AlreadyThere) => ActionOutcome::Barred(Denial::AlreadyThere),
        GoldenOutcome::Barred(GoldenDenial::TooManySubscriptions(most)) => {
            ActionOutcome::Barred(Denial::TooManySubscriptions { most: *most })
        }
        GoldenOutcome::Barred(GoldenDenial::Full(most)) => ActionOutcome::Barred(Denial::Full { most: *most }),
        GoldenOutcome::Joined(joined) => {
            infos = joined.iter().map(|(_, info)| info.as_str().into()).collect();
            members = joined.iter().map(|(user, _)| user).zip(&infos).collect();
            ActionOutcome::Joined { members: &members }
        }
    };
    talk.reply(outcome).iter().flat_map(texts).collect()
}

#[test]
fn conversations() {
    for TalkCase { name, steps } in golden::read("pusher/talks.json") {
        let mut talk = talk(app());
        for (number, step) in steps.into_iter().enumerate() {
            let at = Duration::from_secs(1_700_000_000) + Duration::from_millis(step.at_ms);
            let action = talk.receive(ClientMessage::Text(step.says.as_str().into()), at).expect("the socket stays");
            assert_eq!(shown(&action), step.does, "{name}: step {}: {}", number + 1, step.says);
            if let Some(came) = step.outcome {
                assert_eq!(tell(&mut talk, &came), step.hears, "{name}: step {}: the reply", number + 1);
            }
        }
    }
}

#[test]
fn events() {
    #[derive(Deserialize)]
    struct EventCase {
        name: String,
        channel: ChannelName,
        event: GoldenEvent,
        frame: String,
    }
    for EventCase { name, channel, event, frame } in golden::read("pusher/events.json") {
        let event = event.into();
        let encoded = frames::encode(Notice::Event { channel: &channel, event: &event }).unwrap();
        assert_eq!(texts(&encoded), [frame], "{name}");
    }
}

#[test]
fn the_first_frame_tells_the_socket_its_id() {
    let words =
        r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"11.22\",\"activity_timeout\":120}"}"#;
    assert_eq!(talk(app()).greeting(), Some(Frame::text(words)));
    let mut hasty = app();
    hasty.limits.activity_timeout = Span(Duration::from_millis(10));
    assert!(texts(&talk(hasty).greeting().unwrap())[0].contains(r#"\"activity_timeout\":1}"#));
}

#[test]
fn members_come_and_go() {
    let channel: ChannelName = "presence-a".parse().unwrap();
    let said = |change: &MemberChange| texts(&frames::encode(Notice::Members { channel: &channel, change }).unwrap());
    let ann = Member { user: "a\"".parse().unwrap(), info: r#"{"name": "Ann"}"#.into() };
    assert_eq!(
        said(&MemberChange::Added(ann)),
        [
            r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{\"user_id\":\"a\\\"\",\"user_info\":{\"name\": \"Ann\"}}"}"#
        ]
    );
    assert_eq!(
        said(&MemberChange::Removed("7".parse().unwrap())),
        [r#"{"event":"pusher_internal:member_removed","channel":"presence-a","data":"{\"user_id\":\"7\"}"}"#]
    );
    assert_eq!(frames::encode(Notice::Reloaded(&[])), None);
}

#[test]
fn subscribers_are_counted_and_users_are_watched() {
    let (news, room): (ChannelName, ChannelName) = ("news".parse().unwrap(), "presence-a".parse().unwrap());
    let users = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<Vec<UserId>>();
    let said = |notice: Notice<'_>| texts(&frames::encode(notice).unwrap());
    assert_eq!(
        said(Notice::SubscriptionCount { channel: &news, count: 12 }),
        [r#"{"event":"pusher_internal:subscription_count","channel":"news","data":"{\"subscription_count\":12}"}"#]
    );
    let (two, none) = (users(&["7", "a\""]), users(&[]));
    for (online, offline, events) in [
        (&two, &none, r#"{\"name\":\"online\",\"user_ids\":[\"7\",\"a\\\"\"]}"#),
        (&none, &two, r#"{\"name\":\"offline\",\"user_ids\":[\"7\",\"a\\\"\"]}"#),
        (
            &users(&["x"]),
            &users(&["y"]),
            r#"{\"name\":\"online\",\"user_ids\":[\"x\"]},{\"name\":\"offline\",\"user_ids\":[\"y\"]}"#,
        ),
    ] {
        let words = format!(r#"{{"event":"pusher_internal:watchlist_events","data":"{{\"events\":[{events}]}}"}}"#);
        assert_eq!(said(Notice::Watched { online, offline }), [words]);
    }
    let counted = PusherApp { subscription_count_event: true, ..app() }.wants().counts.unwrap();
    assert!(counted(&news) && !counted(&room) && app().wants().counts.is_none() && !app().wants().watchlists);
}

#[test]
fn what_an_app_may_is_looked_up_when_its_client_asks() {
    let mut client = talk(PusherApp { client_events: false, ..app() });
    let event = r#"{"event":"client-x","channel":"private-a","data":{}}"#;
    let says = |client: &mut TestTalk| client.receive(ClientMessage::Text(event.into()), Duration::ZERO).unwrap();
    assert!(matches!(says(&mut client), Action::Answer(_)));
    client.tenants = tenants([app()]);
    assert!(matches!(says(&mut client), Action::Say { .. }));
    client.tenants = tenants([]);
    let Action::Answer(frame) = says(&mut client) else { panic!("no answer") };
    assert!(texts(&frame)[0].contains("4001"), "{frame:?}");
    let ping = client.receive(ClientMessage::Text(r#"{"event":"pusher:ping"}"#.into()), Duration::ZERO);
    assert_eq!(ping, Ok(Action::Answer(frames::pong())), "it is still there");
}

#[test]
fn a_user_hears_events_on_a_channel_of_its_own() {
    let user: UserId = "a\"b".parse().unwrap();
    let heard = |notice: Notice<'_>| texts(&frames::encode(notice).unwrap());
    let frame = |event: &str, data: &str| {
        let (event, data) = (crate::event::quote(event), crate::event::quote(data));
        vec![format!(r##"{{"event":{event},"channel":"#server-to-user-a\"b","data":{data}}}"##)]
    };
    for data in [r#"{"n": 1.0}"#, "plain", "", " 7 "] {
        let event = Event::new("e".parse().unwrap(), Payload::Text(data.into()));
        assert_eq!(heard(Notice::DirectEvent { user: &user, event: &event }), frame("e", data));
    }
    for (payload, event, data) in [
        // gusher's convention
        (r#"{"event":"e","data":{"n":1.0}}"#, "e", r#"{"n":1.0}"#),
        (r#"{"data":"s","event":"\u0065"}"#, "e", r#""s""#),
        (r#"{"event":"","data":null,"more":1}"#, "", "null"),
        // anything else
        (r#"{"event":7,"data":1}"#, "message", r#"{"event":7,"data":1}"#),
        (r#"{"event":"e"}"#, "message", r#"{"event":"e"}"#),
        (r#"{"event":"e","event":"f","data":1}"#, "message", r#"{"event":"e","event":"f","data":1}"#),
        (r#"["e",1]"#, "message", r#"["e",1]"#),
        (r#""s""#, "message", r#""s""#),
        ("null", "message", "null"),
    ] {
        let data_sent = Payload::Json(payload.into());
        assert_eq!(heard(Notice::Direct { user: Some(&user), data: &data_sent }), frame(event, data), "{payload}");
    }
    let text = Payload::Text(r#"{"event":"e","data":1}"#.into());
    assert_eq!(heard(Notice::Direct { user: Some(&user), data: &text }), frame("message", r#"{"event":"e","data":1}"#));
    assert_eq!(frames::encode(Notice::Direct { user: None, data: &text }), None);
}

#[test]
fn a_user_is_that_of_the_moment_and_the_app_says_how_long_it_may_take() {
    let mut strict = talk(PusherApp { authorize_within: Some(Duration::from_secs(7)), ..app() });
    assert_eq!(strict.talk.authorize_within(&strict.tenants), Some(Duration::from_secs(7)));
    strict.tenants = tenants([]);
    assert_eq!(strict.talk.authorize_within(&strict.tenants), None);
    let lax = talk(app());
    assert_eq!(lax.talk.authorize_within(&lax.tenants), None);
}

#[test]
fn client_events_are_for_apps_that_allow_them() {
    let mut talk = talk(PusherApp { client_events: false, ..app() });
    let event = r#"{"event":"client-x","channel":"private-a","data":{}}"#;
    let action = talk.receive(ClientMessage::Text(event.into()), Duration::ZERO).unwrap();
    let words = "To send client events, you must enable this feature in the Settings page of your dashboard.";
    assert_eq!(action, Action::Answer(error(None, words)));
}

#[test]
fn a_client_event_has_the_size_of_any_event() {
    let mut talk = talk(app());
    for (data, fine) in [
        (format!("\"{}\"", "x".repeat(10_240)), true),
        (format!("\"{}\"", "x".repeat(10_241)), false),
        (format!("[{}]", "1".repeat(10_238)), true),
        (format!("[{}]", "1".repeat(10_239)), false),
        // what it says counts, not how it is written
        (format!("\"{}\"", "\\u0041".repeat(10_240)), true),
    ] {
        let event = format!(r#"{{"event":"client-x","channel":"private-a","data":{data}}}"#);
        let action = talk.receive(ClientMessage::Text(event.into()), Duration::ZERO).unwrap();
        assert_eq!(matches!(action, Action::Say { .. }), fine, "{}", data.len());
    }
}

#[test]
fn a_client_is_told_that_its_event_went_nowhere() {
    let mut talk = talk(app());
    let said = r#"{"event":"client-x","channel":"private-a","data":{}}"#;
    for (outcome, told) in [(ActionOutcome::Failed, true), (ActionOutcome::Done, false)] {
        assert!(matches!(talk.receive(ClientMessage::Text(said.into()), Duration::ZERO), Ok(Action::Say { .. })));
        assert_eq!(talk.reply(outcome).is_some(), told, "{outcome:?}");
    }
}

#[test]
fn binary_messages_end_the_socket() {
    let message = ClientMessage::Binary("{}".into());
    assert_eq!(talk(app()).receive(message, Duration::ZERO), Err(CloseCause::UnsupportedData));
}

#[test]
fn an_idle_conversation_is_small() {
    assert!(size_of::<PusherProtocol>() <= 64, "{} bytes", size_of::<PusherProtocol>());
}

proptest! {
    #[test]
    fn nothing_that_a_client_says_makes_it_panic_and_every_answer_is_json(
        said in prop::collection::vec(
            prop_oneof![
                "\\PC{0,30}",
                "[\\[\\]{}:,\"a-z0-9\\\\]{0,40}",
                "\\{\"event\":\"(pusher:(ping|subscribe|unsubscribe|signin)|client-x)\",\"channel\":\"(private|presence)-[a-z]{0,3}\",\"data\":[\\[\\]{}:,\"a-z0-9\\\\]{0,20}\\}",
                "\\{\"event\":\"pusher:subscribe\",\"data\":\\{\"channel\":\"(private-|presence-)?[a-z ]{0,3}\",\"auth\":\"[\\PC&&[^\"\\\\]]{0,12}\",\"channel_data\":\"[\\PC&&[^\"\\\\]]{0,12}\"\\}\\}",
            ],
            0..8,
        ),
        fine in any::<bool>(),
    ) {
        let mut talk = talk(app());
        for text in said {
            let action = talk.receive(ClientMessage::Text(text.into()), Duration::from_secs(1)).unwrap();
            let frame = match action {
                Action::Answer(frame) | Action::RejectSubscribe { says: frame, .. } => Some(frame),
                Action::Ignore => None,
                _ => talk.reply(if fine { ActionOutcome::Done } else { ActionOutcome::Denied }),
            };
            for text in frame.iter().flat_map(texts) {
                let value: Value = serde_json::from_str(&text).unwrap();
                prop_assert!(value["event"].is_string());
            }
        }
    }

    #[test]
    fn who_was_not_given_a_signature_has_none(
        channel in "(private|presence)-[a-z]{1,3}",
        auth in "wh-key:[0-9a-f]{64}|[\\PC&&[^\"\\\\]]{0,80}",
        data in "\\{'user_id':[0-9]\\}",
    ) {
        let data = data.replace('\'', "\\\"");
        let text = format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{auth}","channel_data":"{data}"}}}}"#
        );
        let action = talk(app()).receive(ClientMessage::Text(text.into()), Duration::ZERO).unwrap();
        prop_assert!(matches!(action, Action::RejectSubscribe { .. }), "{action:?}");
    }
}

#[test]
fn a_refusal_quotes_little_of_what_was_said() {
    let long = "ä".repeat(25_000);
    let signed = json!({ "channel": "presence-a", "auth": "demo:x", "channel_data": long });
    for (said, whole) in [
        (json!({ "event": long, "data": {} }), 0),
        (json!({ "event": "pusher:unsubscribe", "data": { "channel": long } }), 0),
        (json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": long } }), 0),
        (json!({ "event": "pusher:subscribe", "data": signed }), 0),
        // libraries find their channel by its name
        (json!({ "event": "pusher:subscribe", "data": { "channel": long } }), long.len()),
    ] {
        let answer = talk(app()).receive(ClientMessage::Text(said.to_string().into()), Duration::ZERO);
        let Ok(Action::Answer(frame) | Action::RejectSubscribe { says: frame, .. }) = answer else {
            panic!("no refusal")
        };
        assert!(frame.len() < whole + 6_000, "{} bytes", frame.len());
        assert!(texts(&frame).iter().all(|text| serde_json::from_str::<Value>(text).is_ok()));
    }
}
