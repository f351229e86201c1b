//! One timer per worker thread over all its sockets: pings, and an end for peers that are dead, idle or stuck.

use wellhead_proto::{
    frame::{Frame, Opcode},
    refusal::CloseCause,
};

use crate::{
    outbox::End,
    pulse::{Rhythm, Verdict},
    registry::{floor::Floor, index::SeatNo},
};

/// Look after every socket of a thread. Gives the bytes that are owed to all of them.
pub fn beat(floor: &mut Floor, rhythm: &Rhythm) -> usize {
    let mut owed = 0;
    let mut todo: Vec<(SeatNo, Verdict)> = Vec::new();
    let seats: Vec<SeatNo> = floor.index.seats().map(|(no, _)| no).collect();
    for no in seats {
        let subscribed = floor.index.subscriptions_of(no) > 0;
        let seat = floor.index.at_mut(no);
        owed += seat.outbox.owed_bytes();
        if seat.outbox.count_beat_behind() >= rhythm.stall {
            seat.outbox.end(End { cause: CloseCause::SlowConsumer, goodbye: None });
            continue;
        }
        match seat.pulse.beat(seat.outbox.take_heard(), subscribed, rhythm) {
            Verdict::Well => {}
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
