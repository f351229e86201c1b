//! Commands for all sockets of a user. Who has many of them, or many subscriptions, is reached in slices, between which the
//! thread serves its sockets. Whatever arrives meanwhile waits, in order: after a reload nothing may go to a socket that
//! has not lost its channels yet.

use std::{time::Instant, vec};

use log::warn;
use smallvec::SmallVec;
use wellhead_proto::{
    channel::{ChannelPattern, PatternSet, written},
    event::{Event, Payload},
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    notice::Notice,
    refusal::CloseCause,
};

use super::{Change, LocalSocket, PendingEnd, Shard, SocketNo};
use crate::{
    backlog::Permit,
    channels::ChannelRef,
    encodings::Encoding,
    presence::MemberUpdate,
    registry::{
        grants::{Grants, replaced},
        message::{CountUpdate, Delivery, RunningQuery},
        survey::SLICE,
    },
};

/// Subscriptions, or permissions, that are judged in the time of one delivery.
const JUDGED: usize = 4;

/// A command that is not carried out for all of them yet.
pub(super) struct UserOrder {
    what: UserCommand,
    /// The sockets that it has not reached yet, by their numbers in the node: those of the index may be given anew meanwhile.
    sockets: vec::IntoIter<u32>,
    /// The notice for them, encoded once for each encoding as long as it is the same; nothing if the dialect has no
    /// word for it.
    frames: SmallVec<[Option<Option<Frame>>; 4]>,
    _ticket: Permit,
}

/// What is to be done for each socket.
pub(super) enum UserCommand {
    /// Deliver this payload.
    Direct(UserId, Payload),
    /// Deliver this event, but not to that socket.
    DirectEvent(UserId, Event, Option<SocketId>),
    /// Replace its grants.
    Reload(Reload),
    /// Add this grant.
    Grant(ChannelPattern, Option<(Grants, Option<Grants>)>),
    /// End it.
    End(CloseCause),
    /// Deliver this to sockets of that dialect, whoever's they are; only to those on no channel, if that is so.
    WithinDialect { dialect: String, no_channel: bool, data: Payload },
}

/// A reload: grants that replace others.
pub(super) struct Reload {
    /// What lies inside these is replaced, and nothing else.
    within: PatternSet,
    channels: Vec<ChannelPattern>,
    /// The result for the socket before: most often all sockets of a user hold the same grants.
    last: Option<(Grants, Grants)>,
}

/// What waits until the command for a user is done.
pub(super) enum WaitingForCommand {
    /// A further command.
    Delivery(Delivery, Instant),
    /// A change of a channel's members.
    Members(ChannelRef, MemberUpdate, Permit),
    /// A question.
    Question(RunningQuery, Permit),
    /// How many sockets are on a channel.
    Count(CountUpdate),
}

impl Shard {
    /// Must what arrives now wait, because a command for a user is not done?
    pub(super) fn is_held(&self) -> bool {
        self.order.is_some() || !self.waiting.is_empty()
    }

    /// Reach the sockets of a user, as many as fit into this turn.
    pub(super) fn order(&mut self, app: &AppId, user: &UserId, what: UserCommand, permit: Permit) {
        let local_sockets = self.index.local_sockets_of(app, user);
        let sockets: Vec<_> = local_sockets.iter().map(|&local_socket| self.index.socket_of(local_socket)).collect();
        let mut order = UserOrder { what, sockets: sockets.into_iter(), frames: SmallVec::new(), _ticket: permit };
        if !self.reach(&mut order) {
            self.order = Some(order);
        }
    }

    /// Reach the sockets of an app and a dialect in the same way.
    pub(super) fn order_within_dialect(
        &mut self,
        app: &AppId,
        dialect: String,
        no_channel: bool,
        data: Payload,
        permit: Permit,
    ) {
        let meant: SmallVec<[bool; 8]> =
            (0..self.encodings.len()).map(|no| self.encodings.at(no as u8).dialect.name() == dialect).collect();
        let mut seen = 0;
        let local_sockets = self.index.local_sockets().inspect(|_| seen += 1);
        let local_sockets = local_sockets
            .filter(|(no, local_socket)| meant[usize::from(local_socket.encoding)] && self.index.app_of(*no) == app);
        let sockets: Vec<_> = local_sockets.map(|(_, local_socket)| local_socket.id.counter()).collect();
        // all sockets of the thread were looked at
        self.spent += seen / SLICE;
        let what = UserCommand::WithinDialect { dialect, no_channel, data };
        let mut order = UserOrder { what, sockets: sockets.into_iter(), frames: SmallVec::new(), _ticket: permit };
        if !self.reach(&mut order) {
            self.order = Some(order);
        }
    }

    /// Go on with the command for a user, and then with what waited for it.
    pub(super) fn go_on(&mut self) {
        while self.spent < self.chunk {
            if let Some(mut order) = self.order.take() {
                if !self.reach(&mut order) {
                    self.order = Some(order);
                }
                continue;
            }
            match self.waiting.pop_front() {
                Some(WaitingForCommand::Delivery(order, since)) => self.carry_out(order, since),
                Some(WaitingForCommand::Members(channel, update, permit)) => self.announce(&channel, update, permit),
                Some(WaitingForCommand::Question(question, permit)) => self.begin(question, permit),
                Some(WaitingForCommand::Count(update)) => self.announce_count(update),
                None => return,
            }
        }
    }

    /// `true` if all sockets were reached.
    fn reach(&mut self, order: &mut UserOrder) -> bool {
        while self.spent < self.chunk {
            let Some(socket) = order.sockets.next() else { return true };
            let Some(local_socket) = self.index.local_socket_of(socket) else { continue };
            self.spent += 1;
            let LocalSocket { id, is_identified, .. } = *self.index.at(local_socket);
            let heard = match &mut order.what {
                UserCommand::Direct(..) => true,
                UserCommand::DirectEvent(_, _, except) => *except != Some(id),
                // what it may do is signed for each channel
                UserCommand::Reload(_) | UserCommand::Grant(..) if is_identified => false,
                UserCommand::Reload(reload) => {
                    if self.reload(local_socket, reload) {
                        order.frames.clear();
                    }
                    true
                }
                UserCommand::Grant(channel, last) => self.grant(local_socket, channel, last),
                UserCommand::End(cause) => {
                    self.terminate(PendingEnd { socket, cause: *cause }, None);
                    false
                }
                UserCommand::WithinDialect { no_channel, .. } => {
                    !*no_channel || self.index.subscriptions_of(local_socket) == 0
                }
            };
            if !heard {
                continue;
            }
            let is_delivery = !matches!(order.what, UserCommand::Reload(_) | UserCommand::Grant(..));
            match order.frame(self.index.at(local_socket).encoding, self) {
                Some(frame) => {
                    if is_delivery {
                        self.metrics.deliveries.inc();
                    }
                    self.enqueue(local_socket, frame);
                }
                None if is_delivery => drop(self.metrics.direct_without_frame.inc()),
                None => {}
            }
        }
        order.sockets.len() == 0
    }

    /// `true` if it now holds something else than the socket before.
    fn reload(&mut self, local_socket: SocketNo, reload: &mut Reload) -> bool {
        let held = self.index.at(local_socket).grants.clone();
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
        self.index.at_mut(local_socket).grants = grants.clone();
        self.spent += self.index.subscriptions_of(local_socket) / JUDGED;
        let (app, dialect) =
            (self.index.app_of(local_socket), &self.encodings.at(self.index.at(local_socket).encoding).dialect);
        let is_allowed = |channel: &ChannelName| grants.allow(channel) || dialect.is_public(app, channel);
        let is_lost = |channel: &&ChannelName| within.allows(channel) && !is_allowed(channel);
        let lost: Vec<_> = self.index.channels_of(local_socket).filter(is_lost).cloned().collect();
        let mut change = Change::default();
        let mut counted = Vec::new();
        for channel in &lost {
            counted.extend(self.counted(self.index.app_of(local_socket), channel));
            self.index.unsubscribe(local_socket, channel, &mut change);
        }
        self.note(change);
        for channel in counted {
            self.count_leave(self.index.socket_of(local_socket), &channel);
        }
        !is_as_before
    }

    /// `false` if that would be more than anybody may have. `last` is what became of the socket before: most often all of
    /// a user's hold the same.
    fn grant(
        &mut self,
        local_socket: SocketNo,
        channel: &ChannelPattern,
        last: &mut Option<(Grants, Option<Grants>)>,
    ) -> bool {
        let held = self.index.at(local_socket).grants.clone();
        let more = match last {
            Some((before, more)) if before.is(&held) => more.clone(),
            _ => self.with(&held, channel),
        };
        if let Some(more) = &more {
            self.index.at_mut(local_socket).grants = more.clone();
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
    fn frame(&mut self, encoding: u8, shard: &Shard) -> Option<Frame> {
        let at = usize::from(encoding);
        if self.frames.len() <= at {
            self.frames.resize(shard.encodings.len().max(at + 1), None);
        }
        let what = &self.what;
        self.frames[at].get_or_insert_with(|| what.told(shard.encodings.at(encoding))).clone()
    }
}

impl UserCommand {
    fn told(&self, encoding: &Encoding) -> Option<Frame> {
        let notice = match self {
            Self::Direct(user, data) => Notice::Direct { user: Some(user), data },
            Self::DirectEvent(user, event, _) => Notice::DirectEvent { user, event },
            Self::Reload(Reload { last, .. }) => Notice::Reloaded(&last.as_ref()?.1),
            Self::Grant(channel, _) => Notice::Granted(channel),
            // each dialect says it with its close frame
            Self::End(_) => return None,
            Self::WithinDialect { dialect, data, .. } => Notice::WithinDialect { dialect, data },
        };
        // the notice belongs to no subscription
        Some(encoding.frame_of(encoding.encode(notice)?, || ""))
    }
}
