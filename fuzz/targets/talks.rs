//! What clients say on an open socket, a message a line. The digit before a message says how its wish ends. `@AUTH@`
//! stands for the signature that the app's backend would give.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use wellhead_fuzz::{KEY, NOW, TENANTS, check_frame, dialects, sign, socket};
use wellhead_proto::{
    action::Action,
    channel::ChannelPattern,
    dialect::contract::{Dialect, ClientMessage, Variant},
    notice::{Denial, ActionOutcome},
};

static DIALECTS: LazyLock<Vec<Arc<dyn Dialect>>> = LazyLock::new(dialects);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for dialect in &*DIALECTS {
        for variant in (0..dialect.variants()).map(Variant) {
            talk(&**dialect, variant, text);
        }
    }
});

fn talk(dialect: &dyn Dialect, variant: Variant, text: &str) {
    let mut protocol = dialect.open(&KEY.parse().expect("a short name"), variant, socket());
    protocol.greeting(&TENANTS).into_iter().for_each(check_frame);
    for line in text.lines() {
        let (ends, line) = match line.as_bytes().first() {
            Some(digit @ b'0'..=b'9') => (digit - b'0', &line[1..]),
            _ => (0, line),
        };
        let message = ClientMessage::Text(authorised(line).into());
        match protocol.receive(message, &TENANTS, NOW) {
            Ok(Action::Answer(frame)) => check_frame(frame),
            Ok(Action::Ignore) => {}
            Ok(action) => {
                let told = with_outcome(&action, ends, |outcome| protocol.reply(outcome));
                told.into_iter().for_each(check_frame);
                let _ = protocol.tag();
            }
            Err(cause) => {
                dialect.closing(cause).into_iter().for_each(check_frame);
                let (_, reason) = dialect.close(cause);
                assert!(reason.len() <= 123, "it fits a close frame");
                return;
            }
        }
    }
}

/// The message with the signature that it asks for.
fn authorised(line: &str) -> String {
    if !line.contains("@AUTH@") {
        return line.to_owned();
    }
    let wish: Value = serde_json::from_str(line).unwrap_or_default();
    let part = |name: &str| wish["data"][name].as_str();
    if let Some(user) = part("user_data") {
        return line.replace("@AUTH@", &format!("{KEY}:{}", sign(format!("{}::user::{user}", socket()).as_bytes())));
    }
    let mut signed = format!("{}:{}", socket(), part("channel").unwrap_or_default());
    if let Some(data) = part("channel_data") {
        signed.extend([":", data]);
    }
    line.replace("@AUTH@", &format!("{KEY}:{}", sign(signed.as_bytes())))
}

/// One of the ways in which a session may end `action`.
fn with_outcome<T>(action: &Action, ends: u8, tell: impl FnOnce(ActionOutcome<'_>) -> T) -> T {
    match action {
        Action::Ping => tell(ActionOutcome::Here { unix_seconds: NOW.as_secs() }),
        Action::ListGrants => {
            let patterns = ["a*", "b\"", ""].map(|pattern| ChannelPattern::try_from(pattern).expect("short"));
            tell(ActionOutcome::Grants(&patterns[..usize::from(ends) % 4]))
        }
        Action::Enter(entry) => match ends {
            0 => match &entry.member {
                Some(member) => tell(ActionOutcome::Joined { members: &[(&member.user, &member.info)] }),
                None => tell(ActionOutcome::Done),
            },
            1 => tell(ActionOutcome::Barred(Denial::AlreadyThere)),
            2 => tell(ActionOutcome::Barred(Denial::TooManySubscriptions { most: 1 })),
            3 => tell(ActionOutcome::Barred(Denial::Full { most: 1 })),
            _ => tell(ActionOutcome::Failed),
        },
        _ => match ends {
            0 => tell(ActionOutcome::Done),
            1 => tell(ActionOutcome::Denied),
            _ => tell(ActionOutcome::Failed),
        },
    }
}
