//! Broadcasts: pushes that are too large to deliver at once, and whatever must wait for them. Channel by channel: while a
//! broadcast is in progress, later pushes and subscribes of that channel are deferred, so that each socket sees one order;
//! sockets that unsubscribe are left out from then on; other channels overtake, so that one large channel delays no other.
//! Pushes that were deferred together are delivered together, so each socket gets them in one write.

use std::{collections::VecDeque, time::Instant};

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    event::{Event, Payload},
    frame::{Frame, SharedFrame},
    ids::{ChannelName, SocketId},
    member::MemberChange,
    notice::Notice,
    refusal::CloseCause,
};

use crate::{
    backlog::Permit,
    encodings::{Encoding, Encodings},
    numbers::ChannelNo,
    presence::{MemberUpdate, local::LocalMember},
};

/// Payload bytes that are delivered together: a socket should not get more at once than it may be behind.
const MAX_TOGETHER: usize = 64 << 10;

/// Tags whose frames a broadcast keeps: of subscriptions that are told apart by a number, most have a small one.
const KEPT_TAGS: usize = 16;

/// Bytes of tails that are copied for a tag that is not kept. Sockets share longer ones, each behind a head of its own.
const MAX_COPIED: usize = 4 << 10;

/// A push to the sockets of one channel, encoded once for each encoding of its subscribers.
pub struct QueuedPush {
    channel: ChannelName,
    body: PushBody,
    /// The socket that is left out.
    except: Option<SocketId>,
    /// The frame for each encoding, made when it is first needed; nothing if the dialect has no word for it.
    encoded: SmallVec<[Option<Option<SharedFrame>>; 4]>,
    /// When it arrived.
    pub since: Instant,
    /// Counts it as waiting, if it must wait.
    pub permit: Option<Permit>,
}

/// What is pushed.
enum PushBody {
    /// An event, for all.
    Event(Event),
    /// A change of the members, for those of them who do not know of it.
    Members(MemberUpdate),
    /// How many there are, for all.
    Count(u64),
    /// Something that only sockets of that dialect receive.
    WithinDialect(String, Payload),
}

impl PushBody {
    fn notice<'a>(&'a self, channel: &'a ChannelName) -> Notice<'a> {
        match self {
            Self::Event(event) => Notice::Event { channel, event },
            Self::Members(MemberUpdate { change, .. }) => Notice::Members { channel, change },
            Self::Count(count) => Notice::SubscriptionCount { channel, count: *count },
            Self::WithinDialect(dialect, data) => Notice::WithinDialect { dialect, data },
        }
    }
}

impl QueuedPush {
    /// `event` for `channel`, which arrived at `since`.
    pub fn new(
        channel: ChannelName,
        event: Event,
        except: Option<SocketId>,
        permit: Option<Permit>,
        since: Instant,
    ) -> Self {
        Self { channel, body: PushBody::Event(event), except, encoded: SmallVec::new(), since, permit }
    }

    /// A change of the channel's members.
    pub fn members(channel: ChannelName, update: MemberUpdate, permit: Permit, since: Instant) -> Self {
        let body = PushBody::Members(update);
        Self { channel, body, except: None, encoded: SmallVec::new(), since, permit: Some(permit) }
    }

    /// How many sockets are on the channel.
    pub fn count(channel: ChannelName, count: u64, permit: Permit, since: Instant) -> Self {
        let body = PushBody::Count(count);
        Self { channel, body, except: None, encoded: SmallVec::new(), since, permit: Some(permit) }
    }

    /// What only sockets of a dialect on the channel receive.
    pub fn within_dialect(
        channel: ChannelName,
        dialect: String,
        data: Payload,
        permit: Permit,
        since: Instant,
    ) -> Self {
        let body = PushBody::WithinDialect(dialect, data);
        Self { channel, body, except: None, encoded: SmallVec::new(), since, permit: Some(permit) }
    }

    /// Does `socket` get it? `part` finds as which member the socket is on the channel.
    pub fn is_for<'a>(&self, socket: SocketId, part: impl Fn() -> Option<&'a LocalMember>) -> bool {
        match &self.body {
            PushBody::Event(_) => self.except != Some(socket),
            PushBody::Count(_) => true,
            PushBody::Members(MemberUpdate { number, change }) => {
                part().is_some_and(|part| part.is_told(change.user(), *number))
            }
            // the other dialects have no frame for it
            PushBody::WithinDialect(..) => true,
        }
    }

    fn is_for_all(&self) -> bool {
        self.except.is_none() && !matches!(self.body, PushBody::Members(_))
    }

    /// Encodes it for a single socket, and keeps nothing for others.
    pub fn encode(&self, encoding: &Encoding) -> Option<SharedFrame> {
        encoding.encode(self.body.notice(&self.channel))
    }

    /// The frame for sockets of that encoding, if they get one. It is kept for the next socket.
    pub fn encoded(&mut self, encoding: u8, encodings: &Encodings) -> Option<&SharedFrame> {
        let at = usize::from(encoding);
        if self.encoded.len() <= at {
            self.encoded.resize(encodings.len().max(at + 1), None);
        }
        let encode = || encodings.at(encoding).encode(self.body.notice(&self.channel));
        self.encoded[at].get_or_insert_with(encode).as_ref()
    }

    fn bytes(&self) -> usize {
        match &self.body {
            PushBody::Event(event) => event.data.len(),
            PushBody::Members(MemberUpdate { change: MemberChange::Added(member), .. }) => member.info.len(),
            PushBody::Members(_) | PushBody::Count(_) => 0,
            PushBody::WithinDialect(_, data) => data.len(),
        }
    }
}

/// A subscribe that waits for a broadcast to end.
pub struct PendingSubscribe {
    /// Its number.
    pub socket: u32,
    /// All of them at once.
    pub channels: Vec<ChannelName>,
    /// What its dialect remembers of the subscriptions.
    pub tag: Option<Box<str>>,
    /// The reply, sent in the same step.
    pub reply: Option<Frame>,
    /// Told when it is subscribed.
    pub done: Option<oneshot::Sender<()>>,
}

/// The end of a socket that waits for a broadcast to end: what was pushed before is delivered before.
pub struct PendingEnd {
    /// Its number.
    pub socket: u32,
    /// Why it ends.
    pub cause: CloseCause,
}

/// Deferred until the broadcast in progress is over.
pub enum Deferred {
    /// A later push.
    Push(QueuedPush),
    /// A subscribe.
    Join(PendingSubscribe),
    /// The end of a socket.
    End(PendingEnd),
}

/// The tails of several pushes; `None` if they are not small, or there are other frames among them.
type SmallTails = Option<Box<[Bytes]>>;

/// Frames in one piece for subscriptions of one encoding with the same tag.
struct HeadedFrames {
    encoding: u8,
    tag: Box<str>,
    frames: Bytes,
}

/// Pushes to one channel that are delivered together.
pub struct Broadcast {
    /// In the order in which they arrived.
    pub pushes: Vec<QueuedPush>,
    /// The next place to serve.
    pub place: usize,
    /// All their frames in one piece, for each encoding whose frames are the same for everyone: one piece per socket costs
    /// less than one per push.
    joined: SmallVec<[Option<Option<Bytes>>; 4]>,
    /// For each encoding with tails, those of all pushes, if they are small together.
    tails: SmallVec<[Option<SmallTails>; 4]>,
    /// Their frames behind the head of a tag, for the first tags.
    headed: Vec<HeadedFrames>,
}

impl Broadcast {
    /// A broadcast that begins with the first socket.
    #[must_use]
    pub fn new(pushes: Vec<QueuedPush>) -> Self {
        Self { pushes, place: 0, joined: SmallVec::new(), tails: SmallVec::new(), headed: Vec::new() }
    }

    /// All frames in one piece, if they are the same for everyone of that encoding.
    pub fn block(&mut self, encoding: u8, encodings: &Encodings) -> Option<&Bytes> {
        if !self.pushes.iter().all(QueuedPush::is_for_all) {
            return None;
        }
        if self.pushes.len() == 1 {
            return match self.pushes[0].encoded(encoding, encodings) {
                Some(SharedFrame::Whole(frame)) => Some(frame),
                Some(SharedFrame::Tail(_)) | None => None,
            };
        }
        self.joined(encoding, encodings)
    }

    fn joined(&mut self, encoding: u8, encodings: &Encodings) -> Option<&Bytes> {
        let at = usize::from(encoding);
        if self.joined.len() <= at {
            self.joined.resize(encodings.len().max(at + 1), None);
        }
        let pushes = &mut self.pushes;
        let joined = self.joined[at].get_or_insert_with(|| {
            let mut block = BytesMut::new();
            for push in pushes {
                match push.encoded(encoding, encodings) {
                    Some(SharedFrame::Whole(frame)) => block.extend_from_slice(frame),
                    Some(SharedFrame::Tail(_)) | None => return None,
                }
            }
            Some(block.freeze())
        });
        joined.as_ref()
    }

    /// All frames for a subscription with that tag in one piece, where a head goes before each and they are small: sockets whose
    /// tags are equal share it, and copying a small tail costs less than a further piece on the outbox.
    pub fn headed<'a>(&mut self, encoding: u8, encodings: &Encodings, tag: impl FnOnce() -> &'a str) -> Option<Bytes> {
        self.collect_tails(encoding, encodings);
        let tails = self.tails[usize::from(encoding)].as_ref()?.as_ref()?;
        let tag = tag();
        let is_kept = |kept: &&HeadedFrames| kept.encoding == encoding && *kept.tag == *tag;
        if let Some(kept) = self.headed.iter().find(is_kept) {
            return Some(kept.frames.clone());
        }
        let keep = self.headed.len() < KEPT_TAGS;
        if !keep && tails.iter().map(Bytes::len).sum::<usize>() > MAX_COPIED {
            return None;
        }
        let Encoding { dialect, variant } = encodings.at(encoding);
        let frames = Frame::texts_with_tails(&dialect.head(*variant, tag), tails);
        if keep {
            self.headed.push(HeadedFrames { encoding, tag: tag.into(), frames: frames.clone() });
        }
        Some(frames)
    }

    /// Collect the tails of all pushes, if there are no other frames among them.
    fn collect_tails(&mut self, encoding: u8, encodings: &Encodings) {
        let at = usize::from(encoding);
        if self.tails.len() <= at {
            self.tails.resize(encodings.len().max(at + 1), None);
        }
        let pushes = &mut self.pushes;
        self.tails[at].get_or_insert_with(|| {
            if !pushes.iter().all(QueuedPush::is_for_all) {
                return None;
            }
            let tails = pushes.iter_mut().map(|push| match push.encoded(encoding, encodings) {
                Some(SharedFrame::Tail(tail)) => Some(tail.clone()),
                Some(SharedFrame::Whole(_)) | None => None,
            });
            let tails: Box<[Bytes]> = tails.collect::<Option<_>>()?;
            (tails.iter().map(Bytes::len).sum::<usize>() <= MAX_TOGETHER).then_some(tails)
        });
    }
}

/// What one channel does in its turn.
pub struct Slice {
    /// The channel.
    pub local_channel: ChannelNo,
    /// To be carried out first.
    pub joins: SmallVec<[PendingSubscribe; 2]>,
    /// To be carried out then.
    pub ends: Vec<PendingEnd>,
    /// The broadcast in progress; without one there is nothing more to do.
    pub broadcast: Option<Broadcast>,
}

#[derive(Default)]
struct PendingWork {
    broadcast: Option<Broadcast>,
    held: VecDeque<Deferred>,
}

/// The broadcasts in progress, one at most for each channel.
#[derive(Default)]
pub struct Fanout {
    work: FxHashMap<ChannelNo, PendingWork>,
    /// Channels with a broadcast, in the order in which they get their turn.
    turns: VecDeque<ChannelNo>,
    fresh: bool,
}

impl Fanout {
    /// Is a broadcast to the channel in progress?
    #[must_use]
    pub fn is_in_progress(&self, local_channel: ChannelNo) -> bool {
        self.work.contains_key(&local_channel)
    }

    /// Is there anything to do?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// How many channels wait for their turn.
    #[must_use]
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Has a first broadcast begun where none was in progress? Only the first call says so.
    pub fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Begin a broadcast to a channel that has none in progress, when its turn comes.
    pub fn begin(&mut self, local_channel: ChannelNo, push: QueuedPush) {
        self.fresh = self.turns.is_empty();
        self.work.insert(local_channel, PendingWork { broadcast: None, held: [Deferred::Push(push)].into() });
        self.turns.push_back(local_channel);
    }

    /// Defer something until the broadcast to the channel is over.
    ///
    /// # Panics
    ///
    /// If none is in progress.
    pub fn hold(&mut self, local_channel: ChannelNo, held: Deferred) {
        self.work.get_mut(&local_channel).expect("only channels with a broadcast defer").held.push_back(held);
    }

    /// The channel whose turn it is. Give its broadcast back with [`Fanout::go_on`] or end it with [`Fanout::broadcast_over`].
    pub fn next_slice(&mut self) -> Option<Slice> {
        let local_channel = self.turns.pop_front()?;
        let work = self.work.get_mut(&local_channel)?;
        let (mut joins, mut ends) = (SmallVec::new(), Vec::new());
        let broadcast = work.broadcast.take().or_else(|| work.collect(&mut joins, &mut ends));
        if broadcast.is_none() {
            self.work.remove(&local_channel);
        }
        Some(Slice { local_channel, joins, ends, broadcast })
    }

    /// The broadcast is not over; it gets another turn behind the others.
    pub fn go_on(&mut self, local_channel: ChannelNo, broadcast: Broadcast) {
        if let Some(work) = self.work.get_mut(&local_channel) {
            work.broadcast = Some(broadcast);
            self.turns.push_back(local_channel);
        }
    }

    /// The broadcast is over. `true` if nothing was deferred meanwhile: the channel has none in progress any more. Otherwise
    /// what was deferred gets a turn of its own, behind the channels that wait already.
    pub fn broadcast_over(&mut self, local_channel: ChannelNo) -> bool {
        let over = self.work.get(&local_channel).is_none_or(|work| work.held.is_empty());
        if over {
            self.work.remove(&local_channel);
        } else {
            self.turns.push_back(local_channel);
        }
        over
    }
}

impl PendingWork {
    /// What was deferred, in order: the subscribes and ends that come first, and then the pushes up to the next of them.
    fn collect(
        &mut self,
        joins: &mut SmallVec<[PendingSubscribe; 2]>,
        ends: &mut Vec<PendingEnd>,
    ) -> Option<Broadcast> {
        let (mut pushes, mut bytes) = (Vec::new(), 0);
        while let Some(held) = self.held.pop_front() {
            match held {
                Deferred::Join(join) if pushes.is_empty() => joins.push(join),
                Deferred::End(end) if pushes.is_empty() => ends.push(end),
                Deferred::Push(push) if pushes.is_empty() || bytes + push.bytes() <= MAX_TOGETHER => {
                    bytes += push.bytes();
                    pushes.push(push);
                }
                next_time => {
                    self.held.push_front(next_time);
                    break;
                }
            }
        }
        (!pushes.is_empty()).then(|| Broadcast::new(pushes))
    }
}
