//! One socket: commands in, replies out. An actor on the thread that holds the socket. Pushes do not pass the actor:
//! the shard puts them on the socket's outbox.

mod actor;
mod authorize;
mod context;
mod frame_reader;
mod task;
pub mod validator;

use std::{rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use log::{Level, debug, log_enabled};
use wellhead_proto::{
    channel::ChannelPattern,
    ids::{AppId, UserId},
};

use self::{actor::Session, frame_reader::FrameReader, task::SessionTask};
use crate::{
    admission::ConnectionPermit,
    outbox::Outbox,
    registry::{NewSocket, ShardCell, SocketHandle},
    state::SlaveState,
    transport::Transport,
};

/// A client that was let in.
pub struct AdmittedClient {
    /// The app that it enters.
    pub app: AppId,
    /// Who it is.
    pub user: UserId,
    /// Channels that it may subscribe to.
    pub grants: Vec<ChannelPattern>,
    /// Remote commands that it may send; `None`: it knows nothing of them.
    pub remotes: Option<Vec<String>>,
    /// The number of the encoding of its frames.
    pub encoding: u8,
    /// The answer to its handshake.
    pub welcome: Bytes,
    /// What came behind the handshake.
    pub early: BytesMut,
    /// Counts it as open, for as long as it is.
    pub permit: ConnectionPermit,
}

/// Open a socket on this thread: add it to the index, greet it, and let its session run.
pub fn start(state: &Arc<SlaveState>, cell: &Rc<ShardCell>, transport: Transport, admitted: AdmittedClient) {
    let AdmittedClient { app, user, grants, remotes, encoding, welcome, early, permit } = admitted;
    let outbox = Rc::new(Outbox::new(transport, cell.share.clone()));
    let id = state.admission.next_socket_id();
    let speaker = state.encodings.at(encoding);
    let mut protocol = speaker.dialect.open(&app, speaker.variant, id);
    if let Some(commands) = remotes {
        protocol.allow_remotes(&app, &user, commands);
    }

    if log_enabled!(Level::Debug) {
        let socket_id = protocol.socket_id();
        // it may be gone already
        let peer = outbox.transport().peer().map_or_else(String::new, |peer| peer.to_string());
        debug!(
            socket_id, app_id = app.as_str(), user_id = user.as_str(), peer;
            "socket {socket_id} opens in {app}"
        );
    }
    outbox.push_raw(welcome);
    let tenants = state.tenants.load();
    if let Some(greeting) = protocol.greeting(&tenants) {
        outbox.push(greeting);
    }
    let authorize_within = protocol.authorize_within(&tenants);
    let new = NewSocket { id, app, user, grants, encoding, authorize_within, outbox: outbox.clone() };
    let socket = SocketHandle::open(cell.clone(), new);

    let frame_reader = FrameReader::new(outbox.clone(), &early, state.limits.message.bytes());
    let session = Session::new(socket, encoding, state.clone(), outbox, protocol);
    actix_rt::spawn(SessionTask::new(session, frame_reader, permit));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of them is held as often as there are sockets; see docs/performance.md.
    #[test]
    fn an_idle_socket_holds_little() {
        assert!(size_of::<SessionTask>() <= 144, "{}: 256 with the task around it", size_of::<SessionTask>());
        assert!(size_of::<Outbox>() <= 144, "{}: 160 with the counters of its Rc", size_of::<Outbox>());
    }
}
