//! For tests, here and in the crates above: a bus that remembers what it was given, and golden files of bytes.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    bus::{Bus, BusError, BusHandler, BusState, Gathered, Interest},
    command::PublishMatching,
    coordination::CoordinationMessage,
    envelope::Envelope,
    ids::{ChannelKey, NodeId},
    member::MemberAnnouncement,
    node_request::{NodeRequest, NodeResponse},
    query::{NameHashes, Query, QueryResult},
};

/// A bus without nodes: it records what is published and answers queries with what it was told to.
#[derive(Default)]
pub struct RecordingBus {
    /// What was published, in order.
    pub published: Mutex<Vec<Envelope>>,
    /// What was announced, in order.
    pub announced: Mutex<Vec<MemberAnnouncement>>,
    /// What was published to patterns, in order.
    pub matching: Mutex<Vec<PublishMatching>>,
    /// What was asked, in order.
    pub asked: Mutex<Vec<Query>>,
    /// What every query is answered with; nothing, if not set.
    pub answer: Mutex<Option<QueryResult>>,
    /// The hashes of the names that every pattern matches.
    pub matches: Mutex<NameHashes>,
    /// Slaves that are said not to have answered.
    pub missing: Mutex<Vec<NodeId>>,
    /// Is it down?
    pub down: Mutex<bool>,
}

impl RecordingBus {
    /// What was published since the last call.
    ///
    /// # Panics
    ///
    /// If a test thread panicked while it held the bus.
    pub fn take_published(&self) -> Vec<Envelope> {
        std::mem::take(&mut self.published.lock().expect("no test panicked"))
    }

    fn gathered<T>(&self, result: T) -> Gathered<T> {
        Gathered { result, missing: self.missing.lock().expect("no test panicked").clone() }
    }
}

#[async_trait]
impl Bus for RecordingBus {
    async fn publish_all(&self, envelopes: Vec<Envelope>) -> Result<(), BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        self.published.lock().expect("no test panicked").extend(envelopes);
        Ok(())
    }

    async fn publish_matching(&self, push: PublishMatching) -> Result<Gathered<NameHashes>, BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        self.matching.lock().expect("no test panicked").push(push);
        Ok(self.gathered(self.matches.lock().expect("no test panicked").clone()))
    }

    async fn announce(&self, announcements: Vec<MemberAnnouncement>) -> Result<(), BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        self.announced.lock().expect("no test panicked").extend(announcements);
        Ok(())
    }

    async fn gather(&self, query: Query) -> Result<Gathered<QueryResult>, BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        let result = self.answer.lock().expect("no test panicked").clone().unwrap_or_else(|| query.nothing());
        self.asked.lock().expect("no test panicked").push(query);
        Ok(self.gathered(result))
    }

    async fn request(&self, _: NodeId, request: NodeRequest) -> Result<NodeResponse, BusError> {
        if self.is_up() { Ok(request.nothing()) } else { Err(BusError::Down) }
    }

    fn interest(&self, _: &ChannelKey) -> Option<Interest> {
        None
    }

    fn report(&self, _: NodeId, _: Vec<CoordinationMessage>) {}

    fn attach(&self, _: Arc<dyn BusHandler>) {}

    fn state(&self) -> watch::Receiver<BusState> {
        let up = !*self.down.lock().expect("no test panicked");
        watch::channel(BusState { up, roster_known: true, ..BusState::default() }).1
    }
}

/// A golden file: named cases, each with lines of its own. With `GOLDEN=write` in the environment it is written instead of
/// compared.
pub struct Golden {
    path: PathBuf,
    text: String,
}

impl Golden {
    /// The file at `path` in `tests/golden`.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path);
        Self { path, text: String::new() }
    }

    /// One more case.
    pub fn case(&mut self, name: &str, lines: impl AsRef<str>) {
        let _ = writeln!(self.text, "{name}");
        for line in lines.as_ref().lines() {
            let _ = writeln!(self.text, "    {line}");
        }
    }

    /// Compare all cases with the file.
    ///
    /// # Panics
    ///
    /// They differ, or the file cannot be read.
    pub fn check(self) {
        if env::var_os("GOLDEN").is_some_and(|value| value == "write") {
            fs::create_dir_all(self.path.parent().expect("it is in a folder")).expect("the folder can be made");
            return fs::write(&self.path, self.text).expect("the golden file can be written");
        }
        let golden = fs::read_to_string(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        assert!(golden == self.text, "{} differs; now it is:\n{}", self.path.display(), self.text);
    }
}

/// Bytes in hexadecimal digits, 16 a line, with the text beside them that they hold.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut lines = String::new();
    for route_id in bytes.chunks(16) {
        let digits: Vec<_> = route_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = route_id.iter().map(|&byte| if (b' '..=b'~').contains(&byte) { byte as char } else { '.' });
        let _ = writeln!(lines, "{:<47}  {}", digits.join(" "), text.collect::<String>());
    }
    lines
}
