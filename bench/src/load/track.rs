//! What has arrived, and whether it is what was sent: the right bytes, on the right channel, in order.

use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// What stands before and behind the name of the channel in a frame.
const HEAD: &[u8] = b"{\"channel\":\"";
const MIDDLE: &[u8] = b"\",\"event\":\"m\",\"data\":\"";
const TAIL: &[u8] = b"\"}";
/// Digits that name the publisher, and digits that count its pushes.
const PUBLISHER: usize = 2;
const COUNT: usize = 8;
/// The length of a channel's name.
pub const NAME: usize = 8;

/// The name of channel `no`.
pub fn channel(no: usize) -> String {
    format!("c{no:07}")
}

/// The data of a push, as JSON.
pub fn data(publisher: usize, count: u32, size: usize) -> String {
    let mut data = format!("\"{publisher:02}{count:08}");
    let rest = size.saturating_sub(PUBLISHER + COUNT);
    data.extend(std::iter::repeat_n('x', rest));
    data.push('"');
    data
}

/// The frame that subscribers of `channel` shall get.
pub fn frame(channel: &str, data: &str) -> String {
    format!("{{\"channel\":\"{channel}\",\"event\":\"m\",\"data\":{data}}}")
}

/// A request that is under way.
#[derive(Clone, Copy)]
pub struct Open {
    /// When it was sent.
    pub since: Instant,
    /// Its number.
    pub count: u32,
    /// Deliveries that it still waits for.
    pub owed: u64,
    /// Its reply is still to come.
    pub unanswered: bool,
}

/// How deliveries are timed.
#[derive(Clone, Copy)]
pub enum Clock {
    /// From when its request was sent; for the request as a whole, to the last delivery.
    Request,
    /// From when it was due, each delivery.
    Due {
        /// The first.
        start: Instant,
        /// From one to the next.
        every: Duration,
    },
    /// Not at all.
    None,
}

/// What has arrived.
pub struct Track {
    /// Bytes of data in a push.
    pub size: usize,
    /// The last count of each publisher that a socket has seen.
    last: Vec<u32>,
    publishers: usize,
    /// The request that each publisher has under way.
    pub open: Vec<Option<Open>>,
    /// How deliveries are timed.
    pub clock: Clock,
    /// Times from push to delivery.
    pub latency: Histogram,
    /// Times of the second publisher, where it is another kind of load.
    pub beside: Option<Histogram>,
    /// Pushes that arrived.
    pub deliveries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was not as it should be.
    pub wrong: u64,
    /// The first such thing.
    pub example: Option<String>,
    /// Publishers whose request is done.
    pub done: Vec<usize>,
}

impl Track {
    /// Nothing has arrived.
    pub fn new(sockets: usize, publishers: usize, size: usize) -> Self {
        Self {
            size,
            last: vec![0; sockets * publishers],
            publishers,
            open: vec![None; publishers],
            clock: Clock::Request,
            latency: Histogram::default(),
            beside: None,
            deliveries: 0,
            bytes: 0,
            wrong: 0,
            example: None,
            done: Vec::new(),
        }
    }

    /// A text frame arrived at socket `no`, which is on `channel` (or on many).
    pub fn note(&mut self, no: usize, channel: Option<usize>, payload: &[u8], now: Instant) {
        let Some((publisher, count)) = self.read(channel, payload) else {
            self.wrong(format!("socket {no} got {}", String::from_utf8_lossy(&payload[..payload.len().min(120)])));
            return;
        };
        let last = &mut self.last[no * self.publishers + publisher];
        // a push to a pattern comes once for each channel
        if count < *last || (count == *last && channel.is_some()) {
            let before = *last;
            self.wrong(format!("socket {no} got push {count} of publisher {publisher} behind {before}"));
            return;
        }
        *last = count;
        self.deliveries += 1;
        self.bytes += payload.len() as u64;
        if let Clock::Due { start, every } = self.clock {
            self.latency.note(now.saturating_duration_since(start + every * (count - 1)));
            return;
        }
        if let Some(open) = &mut self.open[publisher]
            && open.count == count
        {
            open.owed = open.owed.saturating_sub(1);
            self.settle(publisher, now);
        }
    }

    /// The reply to a publisher's request came.
    pub fn answered(&mut self, publisher: usize, now: Instant) {
        // connections behind the publishers exchange tokens
        if let Some(Some(open)) = self.open.get_mut(publisher) {
            open.unanswered = false;
            self.settle(publisher, now);
        }
    }

    fn settle(&mut self, publisher: usize, now: Instant) {
        let Some(open) = self.open[publisher] else { return };
        if open.owed > 0 || open.unanswered {
            return;
        }
        self.open[publisher] = None;
        self.done.push(publisher);
        if matches!(self.clock, Clock::Request) {
            let span = now.saturating_duration_since(open.since);
            match &mut self.beside {
                Some(beside) if publisher == 1 => beside.note(span),
                _ => self.latency.note(span),
            }
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrong += 1;
        self.example.get_or_insert(what);
    }

    /// Publisher and count, if the frame is as it should be.
    fn read(&self, channel: Option<usize>, payload: &[u8]) -> Option<(usize, u32)> {
        let rest = payload.strip_prefix(HEAD)?;
        let (name, rest) = rest.split_at_checked(NAME)?;
        if channel.is_some_and(|no| Some(no as u64) != number(&name[1..])) {
            return None;
        }
        let data = rest.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
        if data.len() != self.size.max(PUBLISHER + COUNT) {
            return None;
        }
        let publisher = number(&data[..PUBLISHER])? as usize;
        let count = number(&data[PUBLISHER..PUBLISHER + COUNT])?;
        (publisher < self.publishers).then_some((publisher, u32::try_from(count).ok()?))
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_what_is_expected() {
        let mut track = Track::new(2, 1, 100);
        let now = Instant::now();
        let good = frame(&channel(7), &data(0, 1, 100));
        track.note(1, Some(7), good.as_bytes(), now);
        assert_eq!((track.deliveries, track.wrong, track.bytes), (1, 0, good.len() as u64));
        // twice, on another channel, and cut short
        track.note(1, Some(7), good.as_bytes(), now);
        track.note(0, Some(8), good.as_bytes(), now);
        track.note(0, Some(7), frame(&channel(7), &data(0, 1, 99)).as_bytes(), now);
        assert_eq!((track.deliveries, track.wrong), (1, 3));
    }
}
