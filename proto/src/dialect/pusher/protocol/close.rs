//! Why a socket ends, as Pusher's close codes: clients reconnect by them (pusher.md §2.4).

use crate::{frame::Frame, refusal::CloseCause};

use super::frames;

/// Close code and reason.
pub fn close(cause: CloseCause) -> (u16, &'static str) {
    match cause {
        // at once: another server takes it
        CloseCause::ShuttingDown => (4200, "Server is shutting down, please reconnect"),
        // not at once: a client that finds nobody listening waits 15 seconds before it tries again
        CloseCause::ShuttingDownAlone => (4100, "Server is shutting down, please reconnect in a moment"),
        CloseCause::PongTimeout => (4201, "Pong reply not received"),
        CloseCause::Idle => (4202, "Closed after inactivity"),
        // not at all: the page has nothing to show
        CloseCause::Unauthorized => (4009, "Connection not authorized within timeout"),
        // not at once: it would be as slow again
        CloseCause::SlowConsumer | CloseCause::OwedTooMuch => (4100, "Over capacity: reading too slowly"),
        CloseCause::UnfinishedTooMuch => (4100, "Over capacity: message unfinished while memory is short"),
        // not at all: who is sent away stays away until the page connects anew
        CloseCause::Terminated { reconnect: false } => (4009, "You got disconnected by the app."),
        CloseCause::Terminated { reconnect: true } => (4200, "You got disconnected by the app, please reconnect"),
        _ => (cause.code(), cause.reason()),
    }
}

/// The same as an event, for clients that read no close codes. Codes of the WebSocket protocol itself need none.
pub fn closing(cause: CloseCause) -> Option<Frame> {
    let (code, reason) = close(cause);
    (code >= 4000).then(|| frames::error(Some(code), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_the_code_that_makes_a_client_do_the_right_thing() {
        for (cause, code, said) in [
            (CloseCause::ShuttingDown, 4200, true),
            (CloseCause::ShuttingDownAlone, 4100, true),
            (CloseCause::PongTimeout, 4201, true),
            (CloseCause::Idle, 4202, true),
            (CloseCause::Unauthorized, 4009, true),
            (CloseCause::Terminated { reconnect: false }, 4009, true),
            (CloseCause::Terminated { reconnect: true }, 4200, true),
            (CloseCause::SlowConsumer, 4100, true),
            (CloseCause::OwedTooMuch, 4100, true),
            (CloseCause::UnfinishedTooMuch, 4100, true),
            (CloseCause::ProtocolError, 1002, false),
            (CloseCause::UnsupportedData, 1003, false),
            (CloseCause::BadUtf8, 1007, false),
            (CloseCause::TooBig, 1009, false),
            (CloseCause::Internal, 1011, false),
        ] {
            assert_eq!((close(cause).0, closing(cause).is_some()), (code, said), "{cause:?}");
        }
        let words = r#"{"event":"pusher:error","data":{"code":4201,"message":"Pong reply not received"}}"#;
        assert_eq!(closing(CloseCause::PongTimeout), Some(Frame::text(words)));
    }
}
