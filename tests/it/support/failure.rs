//! Servers that do not start, and what they leave behind: an exit code and words. Whatever keeps one from starting,
//! `wellhead check-config` must have said before.

use std::{
    io::Read,
    thread,
    time::{Duration, Instant},
};

use super::server::Setup;

impl Setup {
    /// Start it, which must fail, and must fail for `wellhead check-config` in the same words: whatever keeps a server from
    /// starting is to be found before it is stopped for a new configuration.
    pub async fn fails(self) -> Failure {
        let (started, checked) = (self.clone().ends().await, self.checked().await);
        assert_ne!(started.code, Some(0), "it ends well: {started:?}");
        assert_eq!(
            (&started.code, last_error(&started)),
            (&checked.code, last_error(&checked)),
            "check-config differs"
        );
        started
    }

    /// Start it, which must fail for a reason that lies outside of its configuration: `wellhead check-config` finds nothing
    /// wrong.
    pub async fn fails_only_when_started(self) -> Failure {
        let (started, checked) = (self.clone().ends().await, self.checked().await);
        assert_ne!(started.code, Some(0), "it ends well: {started:?}");
        assert_eq!(checked.code, Some(0), "{checked:?}");
        started
    }

    /// What `wellhead check-config` says to a start like this.
    async fn checked(mut self) -> Failure {
        let roles = ["standalone", "master", "slave"];
        let role = self.arguments.iter().position(|argument| roles.contains(&&**argument));
        let role = role.map_or_else(|| "standalone".to_owned(), |at| self.arguments.remove(at));
        if !self.arguments.iter().any(|argument| argument == "check-config") {
            self.arguments.extend(["check-config".to_owned(), "--role".to_owned(), role]);
        }
        self.ends().await
    }

    /// Run it to its end.
    pub async fn ends(self) -> Failure {
        let mut child = self.command().spawn().expect("the binary was built with this test");
        let (mut out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        let ended = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + super::PATIENCE;
            let status = loop {
                if let Some(status) = child.try_wait().expect("our child") {
                    break status;
                }
                if Instant::now() > deadline {
                    let _ = child.kill();
                }
                // std has no event for the end of a child within a time
                thread::sleep(Duration::from_millis(5));
            };
            let mut said = String::new();
            err.read_to_string(&mut said).expect("text");
            out.read_to_string(&mut said).expect("text");
            Failure { code: status.code(), said }
        });
        ended.await.expect("it ends")
    }
}

/// The error that a process ends with, without what it logged before.
fn last_error(failure: &Failure) -> &str {
    failure.said.find("wellhead: ").map_or("", |at| &failure.said[at..])
}

/// How a process ended, of which nothing else is wanted.
#[derive(Debug)]
pub struct Failure {
    /// Its exit code, if it was not killed.
    pub code: Option<i32>,
    /// What it wrote.
    pub said: String,
}
