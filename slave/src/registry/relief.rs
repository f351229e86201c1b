//! Closes the sockets that hold the most when all of a process hold more than they may (`memory`).

use wellhead_proto::refusal::CloseCause;

use super::shard::Shard;
use crate::{
    memory::{Count, Share},
    numbers::SocketNo,
};

/// Count what the sockets of a thread hold, and close those that hold the most if it is too much.
pub fn look_after(shard: &Shard, share: &Share) {
    if share.is_idle() {
        return;
    }
    let mut count = Count::default();
    let mut holders: Vec<(usize, SocketNo)> = Vec::new();
    for (no, local_socket) in shard.index.local_sockets() {
        let weight = local_socket.outbox.count(&mut count);
        if weight > 0 {
            holders.push((weight, no));
        }
    }
    share.counted(&count);
    if !share.is_over() {
        return;
    }
    holders.sort_unstable_by_key(|&(weight, _)| weight);
    while let Some((_, no)) = holders.pop().filter(|_| !share.has_made_room()) {
        let outbox = &shard.index.at(no).outbox;
        let cause = if outbox.is_behind() { CloseCause::OwedTooMuch } else { CloseCause::UnfinishedTooMuch };
        outbox.give_up(cause, &mut count);
        share.counted(&count);
        share.memory().note_closed();
    }
}
