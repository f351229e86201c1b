//! What clients of Conveyor say on an open socket, a message a line, in text and, behind a `#`, in binary. The digit before
//! a message says how its action ends. `@TOKEN@` stands for the server token.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wellhead_fuzz::{CONVEYOR_TOKEN, KEY, NOW, TENANTS, check_frame, dialects, socket};
use wellhead_proto::{
    action::Action,
    dialect::contract::{ClientMessage, Dialect, Protocol, Variant},
    notice::ActionOutcome,
    query::SocketTags,
};

static CONVEYOR: LazyLock<std::sync::Arc<dyn Dialect>> = LazyLock::new(|| {
    dialects().into_iter().find(|dialect| dialect.name() == "conveyor").expect("it is one of them")
});

fuzz_target!(|data: &[u8]| {
    for variant in (0..CONVEYOR.variants()).map(Variant) {
        let mut protocol = CONVEYOR.open(&KEY.parse().expect("a short name"), variant, socket());
        protocol.greeting(&TENANTS).into_iter().for_each(check_frame);
        for line in data.split(|&byte| byte == b'\n') {
            let (ends, line) = match line.first() {
                Some(digit @ b'0'..=b'9') => (digit - b'0', &line[1..]),
                _ => (0, line),
            };
            let message = match line.strip_prefix(b"#") {
                Some(bytes) => ClientMessage::Binary(bytes.to_vec().into()),
                None => match std::str::from_utf8(line) {
                    Ok(text) => ClientMessage::Text(text.replace("@TOKEN@", CONVEYOR_TOKEN).into()),
                    Err(_) => continue,
                },
            };
            let action = protocol.receive(message, &TENANTS, NOW).expect("nothing that is said closes the socket");
            carry_out(&mut *protocol, action, ends);
        }
    }
});

/// As a session does, with what follows.
fn carry_out(protocol: &mut dyn Protocol, action: Action, ends: u8) {
    match action {
        Action::Ignore => return,
        Action::Answer(frame) => return check_frame(frame),
        Action::AnswerFirst(frame, action) => {
            check_frame(frame);
            return carry_out(protocol, *action, ends);
        }
        _ => {}
    }
    let sockets: SocketTags = [(socket(), "7".to_owned())].into();
    let _ = protocol.tag();
    let told = match (&action, ends) {
        (Action::ListSockets(..), _) => protocol.reply(ActionOutcome::Sockets(&sockets)),
        (_, 0) => protocol.reply(ActionOutcome::Done),
        (_, 1) => protocol.reply(ActionOutcome::Denied),
        _ => protocol.reply(ActionOutcome::Failed),
    };
    told.into_iter().for_each(check_frame);
    if let Some(next) = protocol.next() {
        carry_out(protocol, next, ends);
    }
}
