//! Pushes that are too large to finish at once, and whatever must wait for them. Channel by channel: while a push walks
//! a room, later pushes and joins of that room are held back; those who leave are left out from then on; other channels
//! overtake. Pushes that were held back together walk together, so each socket gets them in one write.

use std::{collections::VecDeque, time::Instant};

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    event::Event,
    frame::{Frame, SharedFrame},
    ids::{ChannelName, SocketId},
    member::MemberChange,
    notice::Notice,
};

use crate::{
    backlog::Ticket,
    numbers::RoomNo,
    presence::{MemberUpdate, local::LocalMember},
    voices::{Voice, Voices},
};

/// Payload bytes that walk a room together: a socket should not get more at once than it may be behind.
const MAX_TOGETHER: usize = 64 << 10;

/// Something on its way to the sockets of one channel, encoded once for each voice that is spoken there.
pub struct Push {
    channel: ChannelName,
    body: Body,
    /// The socket that is left out.
    except: Option<SocketId>,
    /// As sockets of each voice get it, once that was asked for; nothing if its dialect has no word for it.
    encoded: SmallVec<[Option<Option<SharedFrame>>; 4]>,
    /// When it arrived.
    pub since: Instant,
    /// Counts it as waiting, if it must wait.
    pub ticket: Option<Ticket>,
}

/// What is on its way.
enum Body {
    /// An event, for all.
    Event(Event),
    /// A change of the members, for those of them who do not know of it.
    Members(MemberUpdate),
}

impl Body {
    fn notice<'a>(&'a self, channel: &'a ChannelName) -> Notice<'a> {
        match self {
            Self::Event(event) => Notice::Event { channel, event },
            Self::Members(MemberUpdate { change, .. }) => Notice::Members { channel, change },
        }
    }
}

impl Push {
    /// `event` for `channel`, which arrived at `since`.
    pub fn new(
        channel: ChannelName,
        event: Event,
        except: Option<SocketId>,
        ticket: Option<Ticket>,
        since: Instant,
    ) -> Self {
        Self { channel, body: Body::Event(event), except, encoded: SmallVec::new(), since, ticket }
    }

    /// A change of the channel's members.
    pub fn members(channel: ChannelName, update: MemberUpdate, ticket: Ticket, since: Instant) -> Self {
        let body = Body::Members(update);
        Self { channel, body, except: None, encoded: SmallVec::new(), since, ticket: Some(ticket) }
    }

    /// Does `socket` get it? `part` is its part among the members.
    pub fn is_for<'a>(&self, socket: SocketId, part: impl Fn() -> Option<&'a LocalMember>) -> bool {
        match &self.body {
            Body::Event(_) => self.except != Some(socket),
            Body::Members(MemberUpdate { number, change }) => {
                part().is_some_and(|part| part.is_told(change.user(), *number))
            }
        }
    }

    fn is_for_all(&self) -> bool {
        self.except.is_none() && matches!(self.body, Body::Event(_))
    }

    /// It as a single socket gets it: nothing is kept for others.
    pub fn encode(&self, voice: &Voice) -> Option<SharedFrame> {
        voice.encode(self.body.notice(&self.channel))
    }

    /// It as sockets of that voice get it, if they do.
    pub fn encoded(&mut self, voice: u8, voices: &Voices) -> Option<&SharedFrame> {
        let at = usize::from(voice);
        if self.encoded.len() <= at {
            self.encoded.resize(voices.len().max(at + 1), None);
        }
        let encode = || voices.at(voice).encode(self.body.notice(&self.channel));
        self.encoded[at].get_or_insert_with(encode).as_ref()
    }

    fn bytes(&self) -> usize {
        match &self.body {
            Body::Event(event) => event.data.len(),
            Body::Members(MemberUpdate { change: MemberChange::Added(member), .. }) => member.info.len(),
            Body::Members(_) => 0,
        }
    }
}

/// A socket that waits to join channels.
pub struct PendingJoin {
    /// Its number.
    pub socket: u32,
    /// All of them at once.
    pub channels: Vec<ChannelName>,
    /// What its dialect remembers of the subscriptions.
    pub tag: Option<Box<str>>,
    /// Said in the same step.
    pub reply: Option<Frame>,
    /// Told when it has joined.
    pub done: Option<oneshot::Sender<()>>,
}

/// Held back until the walk of a room is over.
pub enum Held {
    /// A later push.
    Push(Push),
    /// A join.
    Join(PendingJoin),
}

/// Pushes that walk a room together.
pub struct Run {
    /// In the order in which they arrived.
    pub pushes: Vec<Push>,
    /// The next place to serve.
    pub place: usize,
    /// All their frames in one piece, for each voice whose frames are the same for everyone: one piece per socket costs
    /// less than one per push.
    joined: SmallVec<[Option<Option<Bytes>>; 4]>,
}

impl Run {
    /// A run from the first place on.
    #[must_use]
    pub fn new(pushes: Vec<Push>) -> Self {
        Self { pushes, place: 0, joined: SmallVec::new() }
    }

    /// All frames in one piece, if they are the same for everyone of that voice.
    pub fn block(&mut self, voice: u8, voices: &Voices) -> Option<&Bytes> {
        if !self.pushes.iter().all(Push::is_for_all) {
            return None;
        }
        if self.pushes.len() == 1 {
            return match self.pushes[0].encoded(voice, voices) {
                Some(SharedFrame::Whole(frame)) => Some(frame),
                Some(SharedFrame::Tail(_)) | None => None,
            };
        }
        self.joined(voice, voices)
    }

    fn joined(&mut self, voice: u8, voices: &Voices) -> Option<&Bytes> {
        let at = usize::from(voice);
        if self.joined.len() <= at {
            self.joined.resize(voices.len().max(at + 1), None);
        }
        let pushes = &mut self.pushes;
        let joined = self.joined[at].get_or_insert_with(|| {
            let mut block = BytesMut::new();
            for push in pushes {
                match push.encoded(voice, voices) {
                    Some(SharedFrame::Whole(frame)) => block.extend_from_slice(frame),
                    Some(SharedFrame::Tail(_)) | None => return None,
                }
            }
            Some(block.freeze())
        });
        joined.as_ref()
    }
}

/// What a room's turn brings.
pub struct Turn {
    /// The room.
    pub room: RoomNo,
    /// To be carried out first.
    pub joins: SmallVec<[PendingJoin; 2]>,
    /// Pushes on their way; without any the room is not walked any more.
    pub run: Option<Run>,
}

#[derive(Default)]
struct Work {
    run: Option<Run>,
    held: VecDeque<Held>,
}

/// Rooms that are walked.
#[derive(Default)]
pub struct Fanout {
    work: FxHashMap<RoomNo, Work>,
    /// Rooms with a run, in the order in which they get their turn.
    turns: VecDeque<RoomNo>,
    fresh: bool,
}

impl Fanout {
    /// Does a push walk the room?
    #[must_use]
    pub fn is_walked(&self, room: RoomNo) -> bool {
        self.work.contains_key(&room)
    }

    /// Is there anything to do?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// How many rooms wait for their turn.
    #[must_use]
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Has a walk been asked for where none was under way? Only the first call says so.
    pub fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Walk a room that is not walked, when its turn comes.
    pub fn begin(&mut self, room: RoomNo, push: Push) {
        self.fresh = self.turns.is_empty();
        self.work.insert(room, Work { run: None, held: [Held::Push(push)].into() });
        self.turns.push_back(room);
    }

    /// Hold something back until the walk of `room` is over.
    ///
    /// # Panics
    ///
    /// If nobody walks it.
    pub fn hold(&mut self, room: RoomNo, held: Held) {
        self.work.get_mut(&room).expect("only walked rooms hold back").held.push_back(held);
    }

    /// The room whose turn it is. Give its run back with [`Fanout::go_on`] or end it with [`Fanout::run_over`].
    pub fn next_turn(&mut self) -> Option<Turn> {
        let room = self.turns.pop_front()?;
        let work = self.work.get_mut(&room)?;
        let mut joins = SmallVec::new();
        let run = work.run.take().or_else(|| work.collect(&mut joins));
        if run.is_none() {
            self.work.remove(&room);
        }
        Some(Turn { room, joins, run })
    }

    /// The run is not over; it gets another turn behind the others.
    pub fn go_on(&mut self, room: RoomNo, run: Run) {
        if let Some(work) = self.work.get_mut(&room) {
            work.run = Some(run);
            self.turns.push_back(room);
        }
    }

    /// The run is over. `true` if nothing was held back: the room is not walked any more. Otherwise what was held back gets a
    /// turn of its own, behind the rooms that wait already.
    pub fn run_over(&mut self, room: RoomNo) -> bool {
        let over = self.work.get(&room).is_none_or(|work| work.held.is_empty());
        if over {
            self.work.remove(&room);
        } else {
            self.turns.push_back(room);
        }
        over
    }
}

impl Work {
    /// What was held back, in order: the joins that come first, and then the pushes up to the next join, as a run.
    fn collect(&mut self, joins: &mut SmallVec<[PendingJoin; 2]>) -> Option<Run> {
        let (mut pushes, mut bytes) = (Vec::new(), 0);
        while let Some(held) = self.held.pop_front() {
            match held {
                Held::Join(join) if pushes.is_empty() => joins.push(join),
                Held::Push(push) if pushes.is_empty() || bytes + push.bytes() <= MAX_TOGETHER => {
                    bytes += push.bytes();
                    pushes.push(push);
                }
                next_time => {
                    self.held.push_front(next_time);
                    break;
                }
            }
        }
        (!pushes.is_empty()).then(|| Run::new(pushes))
    }
}
