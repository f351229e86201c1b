//! Orders for all sockets of a user. Who has many of them, or many subscriptions, is reached in slices, between which the
//! thread serves its sockets. Whatever arrives meanwhile waits, in order: after a reload nothing may go to a socket that
//! has not lost its channels yet.

use std::{time::Instant, vec};

use log::warn;
use smallvec::SmallVec;
use wellhead_proto::{
    channel::{ChannelPattern, PatternSet, written},
    event::Payload,
    frame::Frame,
    ids::{AppId, ChannelName, UserId},
    notice::Notice,
};

use super::{Change, Floor, SeatNo};
use crate::{
    backlog::Ticket,
    channels::ChannelRef,
    presence::MemberUpdate,
    registry::{
        grants::{Grants, replaced},
        message::{Order, Question},
    },
    voices::Voice,
};

/// Subscriptions, or permissions, that are judged in the time of one delivery.
const JUDGED: usize = 4;

/// An order under way.
pub(super) struct UserOrder {
    what: What,
    /// Whom it has not reached yet. Numbers of sockets, since a seat may meanwhile be somebody else's.
    sockets: vec::IntoIter<u32>,
    /// What they are told, encoded once for each voice as long as they are told the same; nothing if its dialect has no
    /// word for it.
    frames: SmallVec<[Option<Option<Frame>>; 4]>,
    _ticket: Ticket,
}

/// What is to be done for each socket.
pub(super) enum What {
    /// Hand it this.
    Direct(Payload),
    /// Let it subscribe to others from now on.
    Reload(Reload),
    /// Let it subscribe to this, too.
    Grant(ChannelPattern, Option<(Grants, Option<Grants>)>),
}

/// Permissions in place of others.
pub(super) struct Reload {
    /// What lies inside these is replaced, and nothing else.
    within: PatternSet,
    channels: Vec<ChannelPattern>,
    /// What became of the socket before: most often all of a user's hold the same.
    last: Option<(Grants, Grants)>,
}

/// What waits for its end.
pub(super) enum Waiting {
    /// A further order.
    Order(Order, Instant),
    /// A change of a channel's members.
    Members(ChannelRef, MemberUpdate, Ticket),
    /// A question.
    Question(Question, Ticket),
}

impl Floor {
    /// Does something that was ordered hold back what arrives now?
    pub(super) fn is_held(&self) -> bool {
        self.order.is_some() || !self.waiting.is_empty()
    }

    /// Reach the sockets of a user, as many as fit into this turn.
    pub(super) fn order(&mut self, app: &AppId, user: &UserId, what: What, ticket: Ticket) {
        let seats = self.index.seats_of(app, user);
        let sockets: Vec<_> = seats.iter().map(|&seat| self.index.socket_of(seat)).collect();
        let mut order = UserOrder { what, sockets: sockets.into_iter(), frames: SmallVec::new(), _ticket: ticket };
        if !self.reach(&mut order) {
            self.order = Some(order);
        }
    }

    /// Go on with an order, and then with what waited for it.
    pub(super) fn go_on(&mut self) {
        while self.spent < self.chunk {
            if let Some(mut order) = self.order.take() {
                if !self.reach(&mut order) {
                    self.order = Some(order);
                }
                continue;
            }
            match self.waiting.pop_front() {
                Some(Waiting::Order(order, since)) => self.carry_out(order, since),
                Some(Waiting::Members(channel, update, ticket)) => self.announce(&channel, update, ticket),
                Some(Waiting::Question(question, ticket)) => self.begin(question, ticket),
                None => return,
            }
        }
    }

    /// `true` if all sockets were reached.
    fn reach(&mut self, order: &mut UserOrder) -> bool {
        while self.spent < self.chunk {
            let Some(socket) = order.sockets.next() else { return true };
            let Some(seat) = self.index.seat_of(socket) else { continue };
            self.spent += 1;
            let heard = match &mut order.what {
                What::Direct(_) => true,
                What::Reload(reload) => {
                    if self.reload(seat, reload) {
                        order.frames.clear();
                    }
                    true
                }
                What::Grant(channel, last) => self.grant(seat, channel, last),
            };
            if heard && let Some(frame) = order.frame(self.index.at(seat).voice, self) {
                if matches!(order.what, What::Direct(_)) {
                    self.metrics.deliveries.inc();
                }
                self.owe(seat, frame);
            }
        }
        order.sockets.len() == 0
    }

    /// `true` if it now holds something else than the socket before.
    fn reload(&mut self, seat: SeatNo, reload: &mut Reload) -> bool {
        let held = self.index.at(seat).grants.clone();
        let is_as_before = reload.last.as_ref().is_some_and(|(before, _)| before.is(&held));
        if !is_as_before {
            // each socket has patterns of its own, of which some may stay
            let Reload { within, channels, .. } = reload;
            self.spent += (held.len() + channels.len()) / JUDGED;
            let grants = replaced(&held, within, channels, self.most_granted);
            if !grants.ends_with(channels) {
                self.note_full();
            }
            reload.last = Some((held, self.grants.share(grants)));
        }
        let Reload { within, last: Some((_, grants)), .. } = reload else { return false };
        self.index.at_mut(seat).grants = grants.clone();
        self.spent += self.index.subscriptions_of(seat) / JUDGED;
        let is_lost = |channel: &&ChannelName| within.allows(channel) && !grants.allow(channel);
        let lost: Vec<_> = self.index.channels_of(seat).filter(is_lost).cloned().collect();
        let mut change = Change::default();
        for channel in &lost {
            self.index.leave(seat, channel, &mut change);
        }
        self.note(change);
        !is_as_before
    }

    /// `false` if that would be more than anybody may have. `last` is what became of the socket before: most often all of
    /// a user's hold the same.
    fn grant(&mut self, seat: SeatNo, channel: &ChannelPattern, last: &mut Option<(Grants, Option<Grants>)>) -> bool {
        let held = self.index.at(seat).grants.clone();
        let more = match last {
            Some((before, more)) if before.is(&held) => more.clone(),
            _ => self.with(&held, channel),
        };
        if let Some(more) = &more {
            self.index.at_mut(seat).grants = more.clone();
        }
        last.insert((held, more)).1.is_some()
    }

    /// `grants` and one more; `None` if there is no room for it.
    fn with(&mut self, grants: &Grants, channel: &ChannelPattern) -> Option<Grants> {
        if grants.contains(channel) {
            return Some(grants.clone());
        }
        let more = [grants, std::slice::from_ref(channel)].concat();
        if written(&more) <= self.most_granted {
            return Some(self.grants.share(more));
        }
        self.note_full();
        None
    }

    fn note_full(&mut self) {
        if !std::mem::replace(&mut self.has_refused_grants, true) {
            let most = self.most_granted;
            warn!(
                "what a user may subscribe to is full: a permission was not added, since with it they would exceed \
                 limits.grants ({most} bytes). Further cases on this thread are not logged"
            );
        }
    }
}

impl Reload {
    pub(super) fn new(within: &[ChannelPattern], channels: Vec<ChannelPattern>) -> Self {
        Self { within: PatternSet::new(within), channels, last: None }
    }
}

impl UserOrder {
    fn frame(&mut self, voice: u8, floor: &Floor) -> Option<Frame> {
        let at = usize::from(voice);
        if self.frames.len() <= at {
            self.frames.resize(floor.voices.len().max(at + 1), None);
        }
        let what = &self.what;
        self.frames[at].get_or_insert_with(|| what.told(floor.voices.at(voice))).clone()
    }
}

impl What {
    fn told(&self, voice: &Voice) -> Option<Frame> {
        let notice = match self {
            Self::Direct(data) => Notice::Direct(data),
            Self::Reload(Reload { last, .. }) => Notice::Reloaded(&last.as_ref()?.1),
            Self::Grant(channel, _) => Notice::Granted(channel),
        };
        // it is of no subscription
        Some(voice.frame_of(voice.encode(notice)?, || ""))
    }
}
