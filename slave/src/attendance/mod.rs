//! Members of presence channels on this slave: who comes is told to the channel's keeper, and the keeper's list is
//! fetched and followed. Shared by the slave's threads; its lock is taken before those of the interests and the keeper.

mod book;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::{sync::oneshot, time::sleep};
use wellhead_proto::{
    bus::Bus,
    ids::{ChannelKey, NodeId, UserId},
    member::{Member, MemberChange},
    notice::Bar,
    report::Post,
    roster::keepers,
};

use self::book::Book;
pub use self::book::Told;
use crate::keeping::Keeping;

/// Lists that are asked for at once.
const TOGETHER: usize = 64;
/// Between two attempts to get a list: at first, and at most.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a newcomer waits for the list. Then it is let in with what is known, and told of the others later.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The members on this slave.
pub struct Attendance {
    book: Mutex<Book>,
    keeping: Arc<Keeping>,
    bus: Arc<dyn Bus>,
}

/// Tells the sockets of this slave what has changed on a channel. Called in the order of the numbers, so it must not wait.
pub trait Teller: Send + Sync + 'static {
    /// This has changed.
    fn tell(&self, channel: &ChannelKey, told: Told);
}

/// A socket that is about to come: dropped when it has, or will not.
pub struct Guest {
    attendance: Arc<Attendance>,
    channel: ChannelKey,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.attendance.lock().turned_back(&self.channel);
    }
}

impl Attendance {
    /// Nobody is there yet.
    pub fn new(keeping: Arc<Keeping>, bus: Arc<dyn Bus>) -> Self {
        Self { book: Mutex::default(), keeping, bus }
    }

    /// A socket of this thread is about to come to a channel whose pushes the bus brings already; when the list of its
    /// members is known.
    pub fn invite(
        self: &Arc<Self>,
        channel: ChannelKey,
        teller: &Arc<impl Teller>,
    ) -> (Guest, Option<oneshot::Receiver<()>>) {
        let mut book = self.lock();
        if book.comes(&channel) {
            self.begin(&mut book, [channel.clone()], teller);
        }
        let wait = book.wait(&channel);
        drop(book);
        (Guest { attendance: self.clone(), channel }, wait)
    }

    /// A socket comes as `member`. `seat` gives it its place, given the number of the last change that its list knows of,
    /// before any later one is told.
    ///
    /// # Errors
    ///
    /// There are `most` members, and it is none of them: it was not seated.
    pub fn enter(
        &self,
        channel: &ChannelKey,
        member: &Member,
        most: usize,
        seat: impl FnOnce(u64),
    ) -> Result<BTreeMap<UserId, ByteString>, Bar> {
        let mut book = self.lock();
        let came = book.came(channel, member, most)?;
        seat(came.number);
        if came.first {
            self.keeping.came(&post(channel, &member.user), Some(&member.info));
        }
        Ok(came.members)
    }

    /// A socket leaves that came as `user`.
    pub fn leave(&self, channel: &ChannelKey, user: &UserId) {
        let mut book = self.lock();
        if book.left(channel, user) {
            self.keeping.left(&post(channel, user));
        }
    }

    /// The channel's keeper announces a change.
    pub fn announced(&self, channel: &ChannelKey, change: MemberChange, teller: &impl Teller) {
        // told under the lock, so that numbers are told in their order
        let mut book = self.lock();
        if let Some(told) = book.announced(channel, change) {
            teller.tell(channel, told);
        }
    }

    /// Fetch every list anew: keepers have changed, or what was announced may have been lost.
    pub fn renew(self: &Arc<Self>, teller: &Arc<impl Teller>) {
        let mut book = self.lock();
        let channels: Vec<_> = book.channels().cloned().collect();
        self.begin(&mut book, channels, teller);
    }

    /// Fetch these lists, in the background, unless this slave keeps them itself.
    fn begin(
        self: &Arc<Self>,
        book: &mut Book,
        channels: impl IntoIterator<Item = ChannelKey>,
        teller: &Arc<impl Teller>,
    ) {
        let ticket = |channel: ChannelKey| Some((book.fetch(&channel)?, channel));
        let tickets: Vec<_> =
            channels.into_iter().filter_map(ticket).map(|(ticket, channel)| (channel, ticket)).collect();
        let rest = self.take_own(book, tickets, &**teller);
        if !rest.is_empty() {
            actix_rt::spawn(fetch(Arc::downgrade(self), rest, Arc::downgrade(teller)));
        }
    }

    /// Lists that this slave keeps; the others are left.
    fn take_own(&self, book: &mut Book, tickets: Tickets, teller: &impl Teller) -> Tickets {
        let own = self.keeping.attendance(tickets.iter().map(|(channel, _)| channel));
        self.take(book, tickets, own, teller)
    }

    /// Lists have come; the tickets of those that have not, and are still waited for.
    fn take(&self, book: &mut Book, mut tickets: Tickets, mut lists: Lists, teller: &impl Teller) -> Tickets {
        tickets.retain(|(channel, ticket)| {
            let Some(list) = lists.remove(channel) else { return book.is_awaited(channel, *ticket) };
            for told in book.fetched(channel, *ticket, list) {
                teller.tell(channel, told);
            }
            false
        });
        tickets
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Channels whose lists were sent for.
type Tickets = Vec<(ChannelKey, u64)>;
/// Members by channel.
type Lists = BTreeMap<ChannelKey, BTreeMap<UserId, ByteString>>;

fn post(channel: &ChannelKey, user: &UserId) -> Post {
    Post { channel: channel.clone(), member: Some(user.clone()) }
}

/// Ask the keepers for lists, until all have come or nobody waits for them any more. Who keeps a channel is looked up each
/// time: that changes.
async fn fetch(attendance: Weak<Attendance>, mut tickets: Tickets, teller: Weak<impl Teller>) {
    let mut pause = PAUSE;
    loop {
        let asked = {
            let (Some(attendance), Some(teller)) = (attendance.upgrade(), teller.upgrade()) else { return };
            let mut book = attendance.lock();
            let rest = attendance.take_own(&mut book, std::mem::take(&mut tickets), &*teller);
            let slaves = attendance.bus.state().borrow().slaves.clone();
            let mut by_keeper = BTreeMap::<Option<NodeId>, Tickets>::new();
            for (channel, ticket) in rest {
                // this slave itself cannot say yet: see above
                let keeper =
                    keepers(slaves.iter().copied(), &channel).0.filter(|keeper| *keeper != attendance.keeping.me());
                by_keeper.entry(keeper).or_default().push((channel, ticket));
            }
            let ask = |(keeper, tickets)| ask(attendance.bus.clone(), keeper, tickets);
            by_keeper.into_iter().map(ask).collect::<Vec<_>>()
        };
        for (some, lists) in join_all(asked).await {
            let (Some(attendance), Some(teller)) = (attendance.upgrade(), teller.upgrade()) else { return };
            let mut book = attendance.lock();
            tickets.extend(attendance.take(&mut book, some, lists, &*teller));
        }
        if tickets.is_empty() {
            return;
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// Ask one keeper for its lists, a few at a time.
async fn ask(bus: Arc<dyn Bus>, keeper: Option<NodeId>, tickets: Tickets) -> (Tickets, Lists) {
    let mut lists = Lists::new();
    for some in tickets.chunks(TOGETHER) {
        let Some(keeper) = keeper else { break };
        let channels = some.iter().map(|(channel, _)| channel.clone()).collect();
        match bus.member_lists(keeper, channels).await {
            Ok(more) => lists.extend(more),
            // who is asked in vain once is asked again later
            Err(_) => break,
        }
    }
    (tickets, lists)
}
