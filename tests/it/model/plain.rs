//! The plain model: what was done, when, and what must, may and must not have come of it.

use std::collections::{BTreeMap, BTreeSet};

use wellhead_proto::query::{ChannelState, ChannelStates, Listing, name_hash};

use crate::support::ledger::{HeardMark, Mark, MarkKind};

/// Moments in the order in which they happened.
pub type ModelTime = u64;
/// Not yet.
pub const NEVER: ModelTime = ModelTime::MAX;

/// From somewhere between `asked` and `begun` until somewhere between `leaving` and `over`.
#[derive(Clone, Copy, Debug)]
pub struct While {
    pub asked: ModelTime,
    pub begun: ModelTime,
    pub leaving: ModelTime,
    pub over: ModelTime,
}

impl While {
    pub fn since(asked: ModelTime) -> Self {
        Self { asked, begun: NEVER, leaving: NEVER, over: NEVER }
    }

    fn is_now(&self) -> bool {
        self.begun != NEVER && self.over == NEVER
    }

    /// All the time from `from` to `to`.
    fn surely(&self, from: ModelTime, to: ModelTime) -> bool {
        self.begun < from && self.leaving > to
    }

    /// At some moment from `from` to `to`.
    fn perhaps(&self, from: ModelTime, to: ModelTime) -> bool {
        self.asked < to && self.over > from
    }
}

/// One socket.
#[derive(Clone, Debug)]
pub struct ModelSocket {
    pub app: String,
    pub user: String,
    /// The slave that holds it.
    pub slave: u32,
    pub open: While,
    /// Everything that it was on, and when.
    pub on: Vec<(String, While)>,
}

impl ModelSocket {
    pub fn is_open(&self) -> bool {
        self.open.is_now()
    }

    /// The channels that it is on.
    pub fn channels(&self) -> BTreeSet<String> {
        self.on.iter().filter(|(_, on)| on.is_now()).map(|(channel, _)| channel.clone()).collect()
    }

    /// It begins to end.
    pub fn leaving(&mut self, moment: ModelTime) {
        for stay in self.on.iter_mut().map(|(_, on)| on).chain([&mut self.open]) {
            stay.leaving = stay.leaving.min(moment);
        }
    }

    /// It has ended.
    pub fn over(&mut self, moment: ModelTime) {
        for stay in self.on.iter_mut().map(|(_, on)| on).chain([&mut self.open]) {
            stay.over = stay.over.min(moment);
        }
    }
}

/// One push that was accepted.
#[derive(Clone, Debug)]
pub struct ModelPush {
    pub mark: Mark,
    pub began: ModelTime,
    /// By then it had arrived wherever it was to.
    pub settled: ModelTime,
}

impl ModelPush {
    /// Does it go to `channel`?
    fn goes_to(&self, channel: &str) -> bool {
        match self.mark.kind {
            MarkKind::Channel => self.mark.to == channel,
            MarkKind::Pattern => matches(&self.mark.to, channel),
            MarkKind::User => false,
        }
    }
}

/// Patterns are prefixes here, as a regular expression says it.
pub fn matches(pattern: &str, channel: &str) -> bool {
    channel.starts_with(pattern.trim_start_matches('^'))
}

/// Everything that was done.
#[derive(Default)]
pub struct Plain {
    pub sockets: Vec<ModelSocket>,
    pub pushes: Vec<ModelPush>,
}

impl Plain {
    fn open(&self, app: &str) -> impl Iterator<Item = &ModelSocket> {
        self.sockets.iter().filter(move |socket| socket.app == app && socket.is_open())
    }

    /// The names that are listed, or counted.
    pub fn names(&self, app: &str, of: &Listing) -> BTreeSet<String> {
        let open = self.open(app);
        match of {
            Listing::Channels(_) => open.flat_map(ModelSocket::channels).collect(),
            Listing::Users { within: None } => open.map(|socket| socket.user.clone()).collect(),
            Listing::Users { within: Some(_) } => panic!("the model asks no such thing"),
            Listing::UsersOf(channel) => {
                let on = |socket: &&ModelSocket| socket.channels().contains(channel.as_str());
                open.filter(on).map(|socket| socket.user.clone()).collect()
            }
        }
    }

    /// How many are on each of these channels.
    pub fn counts(&self, app: &str, channels: impl IntoIterator<Item = String>) -> ChannelStates {
        let on = |channel: &String| {
            let open = self.open(app).filter(|socket| socket.channels().contains(channel));
            ChannelState { subscriptions: open.count() as u64, ..ChannelState::default() }
        };
        channels.into_iter().map(|channel| (channel.clone(), on(&channel))).collect()
    }

    /// Open sockets and hashes of users, by app.
    pub fn stats(&self) -> BTreeMap<String, (u64, BTreeSet<u64>)> {
        let mut stats = BTreeMap::<String, (u64, BTreeSet<u64>)>::new();
        for socket in self.sockets.iter().filter(|socket| socket.is_open()) {
            let app = stats.entry(socket.app.clone()).or_default();
            app.0 += 1;
            app.1.insert(name_hash(&socket.user));
        }
        stats
    }

    /// Everything under way has arrived by `moment`.
    pub fn settle(&mut self, moment: ModelTime) {
        for push in &mut self.pushes {
            push.settled = push.settled.min(moment);
        }
    }

    /// Did socket `no` hear what it must, and nothing that it may not?
    pub fn judge(&self, no: usize, heard: &[HeardMark]) {
        let socket = &self.sockets[no];
        let came: BTreeSet<_> = heard.iter().map(|heard| (&heard.mark, heard.channel.as_deref())).collect();
        let mut allowed = BTreeSet::new();
        for push in self.pushes.iter().filter(|push| push.mark.app == socket.app) {
            let mut judge = |stays: &[While], channel: Option<&str>| {
                if stays.iter().any(|stay| stay.perhaps(push.began, push.settled)) {
                    allowed.insert((push.mark.clone(), channel.map(str::to_owned)));
                }
                if stays.iter().any(|stay| stay.surely(push.began, push.settled)) {
                    let here = came.contains(&(&push.mark, channel));
                    assert!(
                        here,
                        "lost on the way to {} of {}: {push:?}; it was here: {stays:?}",
                        socket.user, socket.app
                    );
                }
            };
            if push.mark.kind == MarkKind::User {
                if push.mark.to == socket.user {
                    judge(&[socket.open], None);
                }
                continue;
            }
            let channels: BTreeSet<_> = socket.on.iter().map(|(channel, _)| channel.as_str()).collect();
            for channel in channels.into_iter().filter(|channel| push.goes_to(channel)) {
                let stays: Vec<_> = socket.on.iter().filter(|(on, _)| on == channel).map(|(_, stay)| *stay).collect();
                judge(&stays, Some(channel));
            }
        }
        for HeardMark { channel, mark } in heard {
            let allowed = allowed.contains(&(mark.clone(), channel.clone()));
            assert!(allowed, "{} of {} should not have heard {mark:?} on {channel:?}", socket.user, socket.app);
        }
    }
}
