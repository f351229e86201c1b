//! One timer per worker thread over all its sockets: pings, and an end for peers that are dead, idle or stuck.

use wellhead_proto::{
    frame::{Frame, Opcode},
    refusal::CloseCause,
};

use super::floor::Floor;
use crate::{
    numbers::SeatNo,
    outbox::End,
    pulse::{Now, Rhythm, Verdict},
};

/// Look after every socket of a thread. Gives the bytes that are owed to all of them.
pub fn beat(floor: &mut Floor, now: Now, rhythm: &Rhythm) -> usize {
    let mut owed = 0;
    let mut todo: Vec<(SeatNo, Verdict)> = Vec::new();
    let seats: Vec<SeatNo> = floor.index.seats().map(|(no, _)| no).collect();
    for no in seats {
        let subscribed = floor.index.subscriptions_of(no) > 0;
        let seat = floor.index.at_mut(no);
        owed += seat.outbox.owed_bytes();
        if seat.outbox.behind_since(now.at).is_some_and(|since| rhythm.is_stalled(now, since)) {
            seat.outbox.end(End { cause: CloseCause::SlowConsumer, goodbye: None });
            continue;
        }
        match seat.pulse.beat(now, seat.outbox.take_heard(), subscribed, rhythm) {
            Verdict::Well => {}
            // this thread may be the one that is late: what it has not read yet is an answer, too
            Verdict::Dead if seat.outbox.transport().has_unread() => seat.pulse.is_alive(),
            verdict => todo.push((no, verdict)),
        }
    }
    let ping = Frame::of(Opcode::Ping, b"");
    for (no, verdict) in todo {
        match verdict {
            Verdict::Well => {}
            Verdict::Ping => floor.owe(no, ping.clone()),
            Verdict::Dead => floor.close(no, CloseCause::PongTimeout),
            Verdict::Idle => floor.close(no, CloseCause::Idle),
        }
    }
    owed
}
