//! Frames of clients and events against golden files, what closes a socket, and that nothing a client says makes one panic.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::{
    dialect::{
        contract::Dialect,
        golden::{self, GoldenEvent},
        mount::Mount,
        pushex::{PushEx, Settings},
    },
    event::{Event, Payload},
    frame::SharedFrame,
    ids::{NodeId, SocketIdSeal},
    notice::Notice,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhoenixCase {
    name: String,
    serializer: u8,
    steps: Vec<PhoenixStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhoenixStep {
    says: String,
    does: Value,
    /// Of the action; then `hears` is what the client gets.
    outcome: Option<PhoenixOutcome>,
    #[serde(default)]
    hears: Vec<String>,
    /// What the head of its events shows of a subscription.
    tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhoenixOutcome {
    Done,
    Denied,
    TooMany(usize),
}

fn protocol(variant: Variant) -> PhoenixProtocol {
    PhoenixProtocol::new(variant, SocketId::new(NodeId::try_from(11).unwrap(), 22))
}

fn receive(protocol: &mut PhoenixProtocol, message: ClientMessage) -> Result<Action, CloseCause> {
    protocol.receive(message, &Tenants::default(), Duration::ZERO)
}

fn says(protocol: &mut PhoenixProtocol, text: &str) -> Result<Action, CloseCause> {
    receive(protocol, ClientMessage::Text(text.into()))
}

/// The texts of the frames in `frame`.
fn texts(frame: Frame) -> Vec<String> {
    let bytes = frame.into_bytes();
    let (mut rest, mut texts) = (&bytes[..], Vec::new());
    while let [0x81, length, after @ ..] = rest {
        let (length, after) = match length {
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            length => (usize::from(*length), after),
        };
        texts.push(String::from_utf8(after[..length].to_vec()).expect("text frames are UTF-8"));
        rest = &after[length..];
    }
    assert!(rest.is_empty(), "text frames only");
    texts
}

fn shown(action: Action) -> Value {
    match action {
        Action::Ignore => json!("ignore"),
        Action::Answer(frame) | Action::RejectSubscribe { says: frame, .. } => json!({ "answer": texts(frame) }),
        Action::Subscribe(channels) => json!({ "subscribe": channels[0] }),
        Action::Unsubscribe(channel) => json!({ "unsubscribe": channel }),
        other => panic!("{other:?} is no action of this dialect"),
    }
}

#[test]
fn conversations() {
    for PhoenixCase { name, serializer, steps } in golden::read("pushex/talks.json") {
        let mut protocol = protocol(if serializer == 1 { V1 } else { V2 });
        for (number, step) in steps.into_iter().enumerate() {
            let at = format!("{name}: step {}: {}", number + 1, step.says);
            let action = says(&mut protocol, &step.says).unwrap_or_else(|cause| panic!("{at}: {cause:?}"));
            assert_eq!(shown(action), step.does, "{at}");
            if let Some(outcome) = step.outcome {
                if step.tag.is_some() || serializer == 1 {
                    assert_eq!(protocol.tag().as_deref(), step.tag.as_deref(), "{at}: the tag");
                }
                let outcome = match outcome {
                    PhoenixOutcome::Done => ActionOutcome::Done,
                    PhoenixOutcome::Denied => ActionOutcome::Denied,
                    PhoenixOutcome::TooMany(most) => ActionOutcome::Barred(Denial::TooManySubscriptions { most }),
                };
                let told: Vec<_> = protocol.reply(outcome).into_iter().flat_map(texts).collect();
                assert_eq!(told, step.hears, "{at}: the reply");
            }
        }
    }
}

#[test]
fn events() {
    #[derive(Deserialize)]
    struct PhoenixEvent {
        name: String,
        channel: ChannelName,
        event: GoldenEvent,
        v1: String,
        v2: String,
    }
    for PhoenixEvent { name, channel, event, v1, v2 } in golden::read("pushex/events.json") {
        let event = event.into();
        let encoded = |variant| {
            let shared = frames::encode(variant, Notice::Event { channel: &channel, event: &event }).unwrap();
            assert_eq!(matches!(shared, SharedFrame::Tail(_)), variant == V2);
            texts(shared.of_socket(|| frames::head("\"1\"")))
        };
        assert_eq!(encoded(V1), [v1], "{name}");
        assert_eq!(encoded(V2), [v2], "{name}");
    }
}

#[test]
fn what_belongs_to_no_channel_has_no_frame() {
    let (user, data) = ("u".parse().unwrap(), Payload::null());
    let event = Event::new("e".parse().unwrap(), Payload::null());
    for variant in [V1, V2] {
        for notice in [
            Notice::Direct { user: Some(&user), data: &data },
            Notice::DirectEvent { user: &user, event: &event },
            Notice::Reloaded(&[]),
        ] {
            assert_eq!(frames::encode(variant, notice), None);
        }
    }
    assert_eq!(frames::head(""), "[null");
}

#[test]
fn what_is_no_message_closes_the_socket_as_a_crash_does() {
    let long = "1".repeat(65);
    let long_text = format!("[\"{}\",\"1\",\"T\",\"e\",{{}}]", "x".repeat(63));
    let long = format!("[{long},\"1\",\"T\",\"e\",{{}}]");
    let dialect = PushEx::new(Settings::default(), &SocketIdSeal::new(b"seal"));
    for text in [
        "",
        "x",
        "{",
        "null",
        "1",
        "[]",
        "{}",
        r#"["1","1","T","phx_join"]"#,
        r#"["1","1","T","phx_join",{}"#,
        r#"["1","1","T","phx_join",{}] x"#,
        r#"["1","1",5,"phx_join",{}]"#,
        r#"["1","1","T",null,{}]"#,
        r#"[["1"],"1","T","phx_join",{}]"#,
        r#"["1",{},"T","phx_join",{}]"#,
        r#"["1","1","\ud800","phx_join",{}]"#,
        r#"{"topic":"T","event":"phx_join","payload":{},"ref":"1"}"#,
        &long,
        &long_text,
    ] {
        assert_eq!(says(&mut protocol(V2), text), Err(CloseCause::InvalidMessage), "{text}");
    }
    for text in [
        "",
        "[]",
        "{}",
        r#"{"topic":"T","event":"phx_join","ref":"1"}"#,
        r#"{"topic":"T","event":"phx_join","payload":{}}"#,
        r#"{"topic":"T","payload":{},"ref":"1"}"#,
        r#"{"event":"e","payload":{},"ref":"1"}"#,
        r#"{"topic":"T","event":"phx_join","payload":{},"ref":[]}"#,
        r#"["1","1","T","phx_join",{}]"#,
    ] {
        assert_eq!(says(&mut protocol(V1), text), Err(CloseCause::InvalidMessage), "{text}");
    }
    assert_eq!(dialect.close(CloseCause::InvalidMessage).0, 1011);
    // phoenix 1.7 stays away after 1000: a backend may wish that, nothing else
    for cause in CloseCause::ALL {
        let is_wished = matches!(
            cause,
            CloseCause::ClientClosed | CloseCause::ClientGone | CloseCause::Terminated { reconnect: false }
        );
        assert!((dialect.close(cause).0 == 1000) == (is_wished || cause == CloseCause::Idle), "{cause:?}");
    }
    assert_eq!(dialect.close(CloseCause::Terminated { reconnect: true }).0, 1001);
    for cause in [CloseCause::SlowConsumer, CloseCause::OwedTooMuch, CloseCause::ShuttingDown] {
        assert!([1001, 1008].contains(&dialect.close(cause).0), "{cause:?}");
    }
}

#[test]
fn a_deep_payload_costs_no_stack() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let mut socket = protocol(V2);
    assert!(matches!(says(&mut socket, &format!(r#"["1","1","T","phx_join",{deep}]"#)), Ok(Action::Subscribe(_))));
    let mut socket = protocol(V1);
    let text = format!(r#"{{"x":{deep},"topic":"T","event":"phx_join","payload":{deep},"ref":"1"}}"#);
    assert!(matches!(says(&mut socket, &text), Ok(Action::Subscribe(_))));
}

#[test]
fn binary_pushes_of_the_second_serializer_are_read() {
    let binary = |variant, bytes: &[u8]| receive(&mut protocol(variant), ClientMessage::Binary(bytes.to_vec().into()));
    let join = Action::Subscribe(vec!["T".parse().unwrap()]);
    assert_eq!(binary(V2, b"\0\x01\x01\x01\x0812Tphx_joinany\xff"), Ok(join.clone()));
    for bad in [
        &b""[..],
        b"\0\x01\x01\x01",
        b"\x01\x01\x01\x01\x0812Tphx_join",
        b"\0\x01\x01\x01\x0912Tphx_join",
        b"\0\x01\x01\x01\x01\xff2Te",
    ] {
        assert_eq!(binary(V2, bad), Err(CloseCause::InvalidMessage), "{bad:?}");
    }
    assert_eq!(binary(V1, br#"{"topic":"T","event":"phx_join","payload":{},"ref":"1"}"#), Ok(join));
    assert_eq!(binary(V1, b"\xff"), Err(CloseCause::InvalidMessage));
}

#[test]
fn an_idle_socket_holds_little() {
    let size = size_of::<PhoenixProtocol>();
    assert!(size <= 48, "{size}");
    let mut socket = protocol(V2);
    says(&mut socket, r#"["1","1","T","phx_join",{}]"#).unwrap();
    socket.reply(ActionOutcome::Done);
    assert_eq!(socket.joined.capacity(), 1);
}

proptest! {
    #[test]
    fn nothing_a_client_says_makes_it_panic(
        lines in prop::collection::vec((r#"\[("1"|2|null),("1"|null),"(T|U|phoenix)","(phx_join|phx_leave|heartbeat|x)",\{\}\]|.{0,20}"#, 0..3u8), 0..20),
    ) {
        for variant in [V1, V2] {
            let mut socket = protocol(variant);
            for (line, outcome) in &lines {
                if let Ok(Action::Subscribe(_) | Action::Unsubscribe(_)) = says(&mut socket, line) {
                    let _ = socket.tag();
                    let outcome = match outcome {
                        0 => ActionOutcome::Done,
                        1 => ActionOutcome::Denied,
                        _ => ActionOutcome::Failed,
                    };
                    for text in socket.reply(outcome).into_iter().flat_map(texts) {
                        prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
                    }
                }
                let topics: Vec<_> = socket.joined.iter().map(|(topic, _)| topic).collect();
                prop_assert!(topics.is_sorted());
            }
        }
    }
}
