//! Pushes to channels: small ones leave with the next flush, large ones are delivered chunk by chunk.

use std::time::Instant;

use smallvec::SmallVec;
use wellhead_proto::frame::Frame;

use super::{Broadcast, Deferred, LocalSocket, QueuedPush, Shard, Slice};
use crate::{encodings::Encodings, numbers::ChannelNo, presence::local::LocalMember};

/// Sockets of a channel that are looked at together: in a large one none of them is in the processor's caches, and
/// memory brings several as fast as it brings one.
const GROUP: usize = 16;

impl Shard {
    /// Every push to a channel passes here. It is deferred if a broadcast to the channel is in progress, delivered
    /// chunk by chunk if the channel is large, and at once otherwise.
    pub(super) fn publish(&mut self, local_channel: ChannelNo, mut push: QueuedPush) {
        let size = self.index.occupied(local_channel);
        if let Some(permit) = &mut push.permit {
            permit.set_deliveries(size.max(1));
        }
        if self.fanout.is_in_progress(local_channel) {
            self.fanout.hold(local_channel, Deferred::Push(push));
        } else if self.spent + size > self.chunk {
            self.index.pin(local_channel);
            self.fanout.begin(local_channel, push);
        } else if size == 1 {
            self.publish_alone(local_channel, &push);
        } else {
            let mut broadcast = Broadcast::new(vec![push]);
            self.deliver_slice(local_channel, &mut broadcast, size, false);
            self.finish(broadcast);
        }
    }

    /// Most channels have one socket: it needs no broadcast, and no frame is kept for others.
    fn publish_alone(&mut self, local_channel: ChannelNo, push: &QueuedPush) {
        self.spent += 1;
        self.finished.push(push.since);
        let Some((_, no, local_socket)) = self.index.sockets_from(local_channel, 0).next() else { return };
        if push.is_for(local_socket.id, || self.members.of(local_channel, no)) {
            let encoding = self.encodings.at(local_socket.encoding);
            let Some(shared) = push.encode(encoding) else { return };
            let frame = encoding.frame_of(shared, || self.index.tag(no, local_channel).unwrap_or_default());
            self.enqueue(no, frame);
            self.metrics.deliveries.inc();
        }
    }

    /// Deliver a broadcast to up to `most` more sockets. `true` if those were the last.
    fn deliver_slice(
        &mut self,
        local_channel: ChannelNo,
        broadcast: &mut Broadcast,
        most: usize,
        at_once: bool,
    ) -> bool {
        let (mut served, mut frames) = (0, 0);
        let mut local_sockets = self.index.sockets_from(local_channel, broadcast.place);
        let mut group = SmallVec::<[_; GROUP]>::new();
        while served < most {
            group.clear();
            let next = local_sockets.by_ref().take(GROUP.min(most - served));
            group.extend(
                next.map(|(place, no, local_socket)| {
                    (place, no, local_socket, at_once && local_socket.outbox.is_clear())
                }),
            );
            if group.is_empty() {
                break;
            }
            served += group.len();
            for &(place, no, local_socket, clear) in &group {
                broadcast.place = place + 1;
                // in a large broadcast every socket gets one piece, which is sent at once
                if at_once && let Some(block) = broadcast.block(local_socket.encoding, &self.encodings) {
                    if clear {
                        local_socket.outbox.send_now(block)
                    } else {
                        local_socket.outbox.send(block)
                    }
                    frames += broadcast.pushes.len() as u64;
                    continue;
                }
                let part = || self.members.of(local_channel, no);
                frames += hand(broadcast, local_socket, &self.encodings, part, || {
                    self.index.tag(no, local_channel).unwrap_or_default()
                });
                if local_socket.outbox.mark() {
                    self.dirty.push(local_socket.outbox.clone());
                }
            }
        }
        self.spent += served;
        self.metrics.deliveries.inc_by(frames);
        served < most || self.index.sockets_from(local_channel, broadcast.place).next().is_none()
    }

    fn finish(&mut self, broadcast: Broadcast) {
        self.finished.extend(broadcast.pushes.iter().map(|push| push.since));
    }

    /// Continue the broadcasts in progress, about one chunk together. A channel gets one slice at most: what arrives before
    /// its next one is delivered together with what waits there.
    fn step(&mut self) {
        for _ in 0..self.fanout.turns() {
            if self.spent >= self.chunk {
                return;
            }
            let Some(Slice { local_channel, joins, ends, broadcast }) = self.fanout.next_slice() else { return };
            for join in joins {
                match self.busy_channel_of(&join, Some(local_channel)) {
                    Some(other) => self.fanout.hold(other, Deferred::Join(join)),
                    None => self.subscribe_now(join),
                }
            }
            for end in ends {
                self.terminate(end, Some(local_channel));
            }
            let over = match broadcast {
                None => true,
                Some(mut broadcast) => {
                    if !self.deliver_slice(local_channel, &mut broadcast, self.chunk - self.spent, true) {
                        self.fanout.go_on(local_channel, broadcast);
                        continue;
                    }
                    self.finish(broadcast);
                    self.fanout.broadcast_over(local_channel)
                }
            };
            if over {
                self.index.unpin(local_channel);
            }
        }
    }

    /// After the mailbox was drained: send what was put into outboxes, then a chunk of what waits. `true` if more waits.
    pub fn flush(&mut self) -> bool {
        self.flush_dirty();
        if self.is_idle() {
            return false;
        }
        if self.fanout.take_fresh() {
            // requests that are here already are read before the first large broadcast begins: then they are delivered together
            return true;
        }
        self.go_on();
        self.step();
        self.pursue();
        self.tell_watchers();
        self.flush_dirty();
        !self.is_idle()
    }

    /// Does nothing wait for another turn?
    fn is_idle(&self) -> bool {
        self.fanout.is_idle() && !self.is_held() && self.questions.is_empty() && self.watchers.is_idle()
    }

    fn flush_dirty(&mut self) {
        self.spent = 0;
        for outbox in self.dirty.drain(..) {
            outbox.flush();
        }
        if self.dirty.capacity() > 4 * self.chunk {
            self.dirty.shrink_to(self.chunk);
        }
        if self.finished.is_empty() {
            return;
        }
        let now = Instant::now();
        for since in self.finished.drain(..) {
            self.metrics.fan_out.observe(now.duration_since(since).as_secs_f64());
        }
    }
}

/// Put the pushes of a broadcast into the outbox of one socket; how many frames those are. `part`, as which member it is there,
/// is asked for only by changes of the members, `tag` only where the socket's own head goes before what is shared.
fn hand<'a>(
    broadcast: &mut Broadcast,
    local_socket: &LocalSocket,
    encodings: &Encodings,
    part: impl Fn() -> Option<&'a LocalMember>,
    tag: impl Fn() -> &'a str,
) -> u64 {
    if let Some(block) = broadcast.block(local_socket.encoding, encodings) {
        local_socket.outbox.push(Frame::Whole(block.clone()));
        return broadcast.pushes.len() as u64;
    }
    let mut frames = 0;
    for push in broadcast.pushes.iter_mut().filter(|push| push.is_for(local_socket.id, &part)) {
        if let Some(shared) = push.encoded(local_socket.encoding, encodings) {
            local_socket.outbox.push(encodings.at(local_socket.encoding).frame_of(shared.clone(), &tag));
            frames += 1;
        }
    }
    frames
}
