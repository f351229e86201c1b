//! Pushes on the floor: small ones leave with the next flush, large ones walk their room chunk by chunk.

use std::time::Instant;

use smallvec::SmallVec;
use wellhead_proto::frame::Frame;

use super::{Floor, Held, Push, Run, Seat, Turn};
use crate::{numbers::RoomNo, presence::local::LocalMember, voices::Voices};

/// Sockets of a room that are looked at together: in a large one none of them is in the processor's caches, and
/// memory brings several as fast as it brings one.
const GROUP: usize = 16;

impl Floor {
    /// Every push to a channel comes this way: behind a walk that is under way, chunk by chunk if the channel is large, and
    /// at once otherwise.
    pub(super) fn publish(&mut self, room: RoomNo, mut push: Push) {
        let size = self.index.occupied(room);
        if let Some(ticket) = &mut push.ticket {
            ticket.set_deliveries(size.max(1));
        }
        if self.fanout.is_walked(room) {
            self.fanout.hold(room, Held::Push(push));
        } else if self.spent + size > self.chunk {
            self.index.begin_walk(room);
            self.fanout.begin(room, push);
        } else if size == 1 {
            self.publish_alone(room, &push);
        } else {
            let mut run = Run::new(vec![push]);
            self.walk(room, &mut run, size, false);
            self.finish(run);
        }
    }

    /// Most channels have one socket: it needs no run, and nothing is kept for others.
    fn publish_alone(&mut self, room: RoomNo, push: &Push) {
        self.spent += 1;
        self.finished.push(push.since);
        let Some((_, no, seat)) = self.index.seated(room, 0).next() else { return };
        if push.is_for(seat.id, || self.members.of(room, no)) {
            let voice = self.voices.at(seat.voice);
            let Some(shared) = push.encode(voice) else { return };
            let frame = voice.frame_of(shared, || self.index.tag(no, room).unwrap_or_default());
            self.owe(no, frame);
            self.metrics.deliveries.inc();
        }
    }

    /// Serve up to `most` places of a room. `true` if that was the last.
    fn walk(&mut self, room: RoomNo, run: &mut Run, most: usize, at_once: bool) -> bool {
        let (mut served, mut frames) = (0, 0);
        let mut seats = self.index.seated(room, run.place);
        let mut group = SmallVec::<[_; GROUP]>::new();
        while served < most {
            group.clear();
            let next = seats.by_ref().take(GROUP.min(most - served));
            group.extend(next.map(|(place, no, seat)| (place, no, seat, at_once && seat.outbox.is_clear())));
            if group.is_empty() {
                break;
            }
            served += group.len();
            for &(place, no, seat, clear) in &group {
                run.place = place + 1;
                // in a large push every socket gets one piece, which leaves at once
                if at_once && let Some(block) = run.block(seat.voice, &self.voices) {
                    if clear {
                        seat.outbox.send_now(block)
                    } else {
                        seat.outbox.send(block)
                    }
                    frames += run.pushes.len() as u64;
                    continue;
                }
                let part = || self.members.of(room, no);
                frames += hand(run, seat, &self.voices, part, || self.index.tag(no, room).unwrap_or_default());
                if seat.outbox.mark() {
                    self.dirty.push(seat.outbox.clone());
                }
            }
        }
        self.spent += served;
        self.metrics.deliveries.inc_by(frames);
        served < most || self.index.seated(room, run.place).next().is_none()
    }

    fn finish(&mut self, run: Run) {
        self.finished.extend(run.pushes.iter().map(|push| push.since));
    }

    /// Give the walks under way their turn, about one chunk together. A room gets one turn at most: what comes before its
    /// next goes along with what waits there.
    fn step(&mut self) {
        for _ in 0..self.fanout.turns() {
            if self.spent >= self.chunk {
                return;
            }
            let Some(Turn { room, joins, run }) = self.fanout.next_turn() else { return };
            for join in joins {
                match self.walked_room_of(&join, Some(room)) {
                    Some(other) => self.fanout.hold(other, Held::Join(join)),
                    None => self.join_now(join),
                }
            }
            let over = match run {
                None => true,
                Some(mut run) => {
                    if !self.walk(room, &mut run, self.chunk - self.spent, true) {
                        self.fanout.go_on(room, run);
                        continue;
                    }
                    self.finish(run);
                    self.fanout.run_over(room)
                }
            };
            if over {
                self.index.end_walk(room);
            }
        }
    }

    /// After the mailbox was drained: send what was put into outboxes, then a chunk of what waits. `true` if more waits.
    pub fn settle(&mut self) -> bool {
        self.flush();
        if self.is_idle() {
            return false;
        }
        if self.fanout.take_fresh() {
            // requests that are here already are read before the first large push walks: then they all walk together
            return true;
        }
        self.go_on();
        self.step();
        self.pursue();
        self.flush();
        !self.is_idle()
    }

    /// Does nothing wait for another turn?
    fn is_idle(&self) -> bool {
        self.fanout.is_idle() && !self.is_held() && self.questions.is_empty()
    }

    fn flush(&mut self) {
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

/// Put the pushes of a run into the outbox of one socket; how many frames those are. `part`, as which member it is there,
/// is asked for only by changes of the members, `tag` only where the socket's own head goes before what is shared.
fn hand<'a>(
    run: &mut Run,
    seat: &Seat,
    voices: &Voices,
    part: impl Fn() -> Option<&'a LocalMember>,
    tag: impl Fn() -> &'a str,
) -> u64 {
    if let Some(block) = run.block(seat.voice, voices) {
        seat.outbox.push(Frame::Whole(block.clone()));
        return run.pushes.len() as u64;
    }
    let mut frames = 0;
    for push in run.pushes.iter_mut().filter(|push| push.is_for(seat.id, &part)) {
        if let Some(shared) = push.encoded(seat.voice, voices) {
            seat.outbox.push(voices.at(seat.voice).frame_of(shared.clone(), &tag));
            frames += 1;
        }
    }
    frames
}
