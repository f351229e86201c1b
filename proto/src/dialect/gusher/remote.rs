//! `gusher.remote` (gusher.md §5.8): which commands a client may send to the backend of its app, how often, and what the
//! backend is sent. Only clients of v1 know the command.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    dialect::allowance::Allowance,
    event::{escaped, quote},
    ids::{AppId, UserId},
    tenants::Tenants,
};

/// The most that a payload and its `uid` may have together, in bytes.
pub const MOST_PAYLOAD: usize = 10 << 10;

/// The most that one socket may send in a second.
const A_SECOND: u32 = 10;

/// What a socket has to do with remote commands.
pub enum RemoteAccess {
    /// It does not know them.
    Unknown,
    /// Its token allows none.
    None,
    /// Its token allows some.
    Some(Box<RemoteCommands>),
}

/// The commands that a socket may send, and as whom.
pub struct RemoteCommands {
    app: AppId,
    user: UserId,
    commands: Box<[Box<str>]>,
    allowance: Allowance,
}

/// A command as a client writes it.
#[derive(Deserialize)]
pub struct WrittenRemote<'a> {
    /// Which.
    pub remote: String,
    /// What the client calls it by.
    uid: String,
    /// What goes with it.
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl RemoteAccess {
    /// That of a client of v1 whose token allows `commands`.
    pub fn new(app: &AppId, user: &UserId, commands: Vec<String>) -> Self {
        if commands.is_empty() {
            return Self::None;
        }
        let commands = commands.into_iter().map(String::into_boxed_str).collect();
        let (app, user) = (app.clone(), user.clone());
        Self::Some(Box::new(RemoteCommands { app, user, commands, allowance: Allowance::default() }))
    }

    /// What the backend is sent for a command at `now`.
    ///
    /// # Errors
    ///
    /// Why it is not sent, for metrics.
    pub fn ask(
        &mut self,
        socket: &str,
        written: &WrittenRemote<'_>,
        tenants: &Tenants,
        now: Duration,
    ) -> Result<Bytes, &'static str> {
        let Self::Some(own) = self else { return Err("not_permitted") };
        if !own.commands.iter().any(|command| **command == *written.remote) {
            return Err("not_permitted");
        }
        if tenants.app(&own.app).remote().is_none() {
            return Err("no_target");
        }
        if written.uid.len() + written.payload.get().len() > MOST_PAYLOAD {
            return Err("too_large");
        }
        if !own.allowance.take(A_SECOND, now) {
            return Err("too_often");
        }
        Ok(own.body(socket, written).into())
    }
}

impl RemoteCommands {
    /// The fields of the original, and `remote`: there it was part of the name of a list, `{app_key}@{remote}`.
    fn body(&self, socket: &str, WrittenRemote { remote, uid, payload }: &WrittenRemote<'_>) -> String {
        [
            r#"{"user_id":"#,
            &quote(self.user.as_str()),
            r#","socket_id":""#,
            &escaped(socket),
            r#"","uid":"#,
            &quote(uid),
            r#","app_key":"#,
            &quote(self.app.as_str()),
            r#","remote":"#,
            &quote(remote),
            r#","data":"#,
            payload.get(),
            "}",
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        action::Action,
        dialect::contract::{ClientMessage, Protocol},
        dialect::gusher::protocol::GusherProtocol,
        frame::Frame,
        http_target::HttpTarget,
        ids::{NodeId, SocketId, SocketIdSeal},
        jwt::Keyring,
        origin::Origins,
        refusal::CloseCause,
        remote::{RemoteCall, RemoteTarget},
        tenants::ListedTenant,
    };

    fn tenants(has_target: bool) -> Tenants {
        let target = RemoteTarget::new(HttpTarget::new("https://example.com/").unwrap(), b"secret");
        let remote = has_target.then(|| Arc::new(target));
        let listed = [("shop".parse().unwrap(), ListedTenant { remote, ..ListedTenant::default() })];
        Tenants::new(Keyring::default(), listed, false, Origins::any())
    }

    struct Talk(GusherProtocol);

    impl Talk {
        fn new(commands: Option<&[&str]>) -> Self {
            let socket = SocketId::new(NodeId::from_random(0), 7);
            let mut protocol = GusherProtocol::new(socket, SocketIdSeal::new(b"golden"));
            if let Some(commands) = commands {
                let commands = commands.iter().map(|&command| command.to_owned()).collect();
                protocol.allow_remotes(&"shop".parse().unwrap(), &"a\"nn".parse().unwrap(), commands);
            }
            Self(protocol)
        }

        fn hear(&mut self, text: &str, has_target: bool, millis: u64) -> Result<Action, CloseCause> {
            self.0.receive(ClientMessage::Text(text.into()), &tenants(has_target), Duration::from_millis(millis))
        }

        fn reply(&self, event: &str) -> Frame {
            let socket = self.0.socket_id();
            Frame::text(&format!(
                r#"{{"event":"{event}","socket_id":"{socket}","data":{{"remote":"cmd","msg":null}}}}"#
            ))
        }
    }

    fn command(debug: &str, payload: &str) -> String {
        format!(r#"{{"event":"gusher.remote",{debug}"data":{{"remote":"cmd","uid":"é\"1","payload":{payload}}}}}"#)
    }

    #[test]
    fn what_is_posted_has_the_fields_of_the_original_and_the_command() {
        let mut talk = Talk::new(Some(&["other", "cmd"]));
        let (failed, taken) = (talk.reply("gusher.remote_error"), talk.reply("gusher.remote_succeeded"));
        let socket = talk.0.socket_id();
        let wanted = format!(
            r#"{{"user_id":"a\"nn","socket_id":"{socket}","uid":"é\"1","app_key":"shop","remote":"cmd","data":{{"n": 1.0}}}}"#
        );
        for (debug, told) in [
            ("", None),
            (r#""debug":true,"#, Some(taken)),
            (r#""debug":false,"#, None),
            (r#""debug":"true","#, None),
            (r#""debug":null,"#, None),
        ] {
            let call = RemoteCall { body: wanted.clone().into(), taken: told, failed: failed.clone() };
            assert_eq!(talk.hear(&command(debug, r#"{"n": 1.0}"#), true, 0), Ok(Action::Call(call)), "{debug}");
        }
    }

    #[test]
    fn what_is_not_allowed_too_large_or_too_often_is_refused() {
        let rejected = |talk: &mut Talk, text: &str, has_target, millis| match talk.hear(text, has_target, millis) {
            Ok(Action::RejectCall { reason, says }) => {
                assert_eq!(says, talk.reply("gusher.remote_error"));
                Some(reason)
            }
            Ok(Action::Call(_)) => None,
            other => panic!("{other:?}"),
        };
        let one = command("", "1");
        for commands in [&[][..], &["cmd "], &["CMD", ""]] {
            assert_eq!(rejected(&mut Talk::new(Some(commands)), &one, true, 0), Some("not_permitted"));
        }
        let mut talk = Talk::new(Some(&["cmd"]));
        assert_eq!(rejected(&mut talk, &one, false, 0), Some("no_target"));
        // the uid has four bytes
        let sized = |bytes: usize| command("", &format!("\"{}\"", "x".repeat(bytes - 6)));
        assert_eq!(rejected(&mut talk, &sized(MOST_PAYLOAD + 1), true, 0), Some("too_large"));
        assert_eq!(rejected(&mut talk, &sized(MOST_PAYLOAD), true, 0), None);
        for _ in 1..10 {
            assert_eq!(rejected(&mut talk, &one, true, 0), None);
        }
        assert_eq!(rejected(&mut talk, &one, true, 0), Some("too_often"));
        assert_eq!(rejected(&mut talk, &one, true, 1_000), None);
    }

    #[test]
    fn a_client_that_does_not_know_it_is_closed_and_so_is_half_a_command() {
        assert_eq!(Talk::new(None).hear(&command("", "1"), true, 0), Err(CloseCause::InvalidMessage));
        for data in ["1", "{}", r#"{"remote":"cmd","uid":"u"}"#, r#"{"remote":1,"uid":"u","payload":1}"#] {
            let text = format!(r#"{{"event":"gusher.remote","data":{data}}}"#);
            for commands in [&[][..], &["cmd"]] {
                assert_eq!(Talk::new(Some(commands)).hear(&text, true, 0), Err(CloseCause::InvalidMessage), "{data}");
            }
        }
    }
}
