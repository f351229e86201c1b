//! One timer per worker thread over all its sockets: pings, and an end for peers that are dead, idle or stuck.

use wellhead_proto::{
    frame::{Frame, Opcode},
    refusal::CloseCause,
};

use super::shard::Shard;
use crate::{
    keep_alive::{KeepAliveConfig, KeepAliveVerdict, Now},
    numbers::SocketNo,
    outbox::SocketEnd,
};

/// Check every socket of a thread; `configs` are those of the encodings. Returns the bytes that are queued for all of them.
pub fn beat(shard: &mut Shard, now: Now, configs: &[KeepAliveConfig]) -> usize {
    let mut owed = 0;
    let mut todo: Vec<(SocketNo, KeepAliveVerdict)> = Vec::new();
    let local_sockets: Vec<SocketNo> = shard.index.local_sockets().map(|(no, _)| no).collect();
    for no in local_sockets {
        let subscribed = shard.index.subscriptions_of(no) > 0;
        let local_socket = shard.index.at_mut(no);
        let config = &configs[usize::from(local_socket.encoding)];
        owed += local_socket.outbox.owed_bytes();
        if local_socket.outbox.behind_since(now.at).is_some_and(|since| config.is_stalled(now, since)) {
            local_socket.outbox.end(SocketEnd { cause: CloseCause::SlowConsumer, goodbye: None });
            continue;
        }
        match local_socket.keep_alive.tick(now, local_socket.outbox.take_heard(), subscribed, config) {
            KeepAliveVerdict::Well => {}
            // this thread may be late itself: an answer that it has not read yet counts, too
            KeepAliveVerdict::Dead if local_socket.outbox.transport().has_unread() => {
                local_socket.keep_alive.is_alive()
            }
            verdict => todo.push((no, verdict)),
        }
    }
    for socket in shard.unauthorized.tick(now) {
        if let Some(no) = shard.index.local_socket_of(socket) {
            shard.end_socket(no, CloseCause::Unauthorized);
        }
    }
    let ping = Frame::of(Opcode::Ping, b"");
    for (no, verdict) in todo {
        match verdict {
            KeepAliveVerdict::Well => {}
            KeepAliveVerdict::Ping => shard.enqueue(no, ping.clone()),
            KeepAliveVerdict::Dead => shard.end_socket(no, CloseCause::PongTimeout),
            KeepAliveVerdict::Idle => shard.end_socket(no, CloseCause::Idle),
        }
    }
    owed
}
