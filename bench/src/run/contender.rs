//! Who is measured.

use super::peer::PeerServer;

/// A server that is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contender {
    /// Wellhead, standalone.
    Wellhead,
    /// Wellhead without the sockets that never read.
    Undisturbed,
    /// Wellhead, spoken to as if it were Pusher.
    Pusher,
    /// Wellhead, spoken to as if it were Conveyor.
    Conveyor,
    /// Wellhead as a master and a slave with NATS between them.
    Nats,
    /// Wellhead as a master and two slaves on the bus of one machine.
    Slaves,
    /// The same over NATS.
    SlavesNats,
    /// Bare epoll, one write for each socket and message.
    Write,
    /// Bare epoll, one write for each socket and round.
    Coalesce,
    /// actix-web-actors by the book.
    Textbook,
    /// nginx with Nchan, if it is installed.
    Nchan,
    /// uWebSockets.js with a server of ours, if it is installed.
    Uws,
    /// A server that runs already.
    Peer(&'static PeerServer),
    /// Wellhead, spoken to as if it were PushEx, with Phoenix' serializer of that number.
    PushEx(u8),
}

impl Contender {
    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wellhead => "wellhead",
            Self::Undisturbed => "wellhead without them",
            Self::Pusher => "wellhead, Pusher API",
            Self::Conveyor => "wellhead, Conveyor API",
            Self::Nats => "wellhead over NATS",
            Self::Slaves => "wellhead, master and two slaves",
            Self::SlavesNats => "wellhead, master and two slaves over NATS",
            Self::Write => "limit/write",
            Self::Coalesce => "limit/coalesce",
            Self::Textbook => "textbook",
            Self::Nchan => "Nchan",
            Self::Uws => "uWebSockets.js",
            Self::Peer(peer) => &peer.name,
            Self::PushEx(1) => "wellhead, Phoenix V1",
            Self::PushEx(_) => "wellhead, Phoenix V2",
        }
    }

    /// It has nothing to do with Wellhead, and a column of its own.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Nchan | Self::Uws | Self::Peer(_))
    }

    /// It is in this program.
    pub fn is_baseline(self) -> bool {
        matches!(self, Self::Write | Self::Coalesce | Self::Textbook)
    }

    /// Its slaves, if it is a cluster.
    pub fn slaves(self) -> Option<usize> {
        match self {
            Self::Nats => Some(1),
            Self::Slaves | Self::SlavesNats => Some(2),
            _ => None,
        }
    }

    /// It has NATS between its nodes.
    pub fn is_on_nats(self) -> bool {
        matches!(self, Self::Nats | Self::SlavesNats)
    }
}
