//! What has arrived, and whether it is what was sent: the right bytes, on the right channel, in order.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::histogram::Histogram;

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

/// What stands around the channel's name and the data in a frame.
pub struct Layout {
    head: Vec<u8>,
    middle: Vec<u8>,
    tail: Vec<u8>,
    /// The data stand before the name.
    is_reversed: bool,
}

impl Layout {
    /// The frames of gusher, to the byte.
    pub fn gusher() -> Self {
        Self {
            head: b"{\"channel\":\"".to_vec(),
            middle: b"\",\"event\":\"m\",\"data\":\"".to_vec(),
            tail: b"\"}".to_vec(),
            is_reversed: false,
        }
    }

    /// The name, and then the data, between these.
    pub fn named_first(head: &str, middle: &str, tail: &str) -> Self {
        let [head, middle, tail] = [head, middle, tail].map(|text| text.as_bytes().to_vec());
        Self { head, middle, tail, is_reversed: false }
    }

    /// The data, and then the name, between these.
    pub fn reversed(head: &str, middle: &str, tail: &str) -> Self {
        Self { is_reversed: true, ..Self::named_first(head, middle, tail) }
    }

    /// The frames of Conveyor, where the name of the channel is the beginning of the message.
    pub fn conveyor() -> Self {
        Self::named_first("{\"action\":\"broadcast-action\",\"data\":\"", "", "\"}")
    }

    /// As in this frame, if it is JSON that says the right thing.
    fn of(frame: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(frame).ok()?;
        let (name, data) = (value["channel"].as_str()?, value["data"].as_str()?);
        if value["event"] != "m" || name.len() != NAME || data.len() < PUBLISHER + COUNT {
            return None;
        }
        let place = |part: &str| {
            let at = frame.windows(part.len()).position(|bytes| bytes == part.as_bytes())?;
            Some(at..at + part.len())
        };
        let (name, data) = (place(name)?, place(data)?);
        let is_reversed = data.start < name.start;
        let (first, second) = if is_reversed { (data, name) } else { (name, data) };
        Some(Self {
            head: frame[..first.start].to_vec(),
            middle: frame[first.end..second.start].to_vec(),
            tail: frame[second.end..].to_vec(),
            is_reversed,
        })
    }

    /// Name and data of a frame that is laid out like this.
    fn read<'a>(&self, frame: &'a [u8], size: usize) -> Option<(&'a [u8], &'a [u8])> {
        let (first, second) = if self.is_reversed { (size, NAME) } else { (NAME, size) };
        let (first, rest) = frame.strip_prefix(&*self.head)?.split_at_checked(first)?;
        let (second, rest) = rest.strip_prefix(&*self.middle)?.split_at_checked(second)?;
        let (name, data) = if self.is_reversed { (second, first) } else { (first, second) };
        (rest == self.tail).then_some((name, data))
    }
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
pub enum LoadClock {
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
    size: usize,
    layout: Option<Layout>,
    /// The last count of each publisher that a socket has seen.
    last: Vec<u32>,
    publishers: usize,
    /// The request that each publisher has under way.
    pub open: Vec<Option<Open>>,
    /// How deliveries are timed.
    pub clock: LoadClock,
    /// Times from push to delivery.
    pub latency: Histogram,
    /// Times of the second publisher, where it is another kind of load.
    pub beside: Option<Histogram>,
    /// Pushes that arrived.
    pub deliveries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pings that were answered.
    pub pings: u64,
    /// What was not as it should be.
    pub wrong: u64,
    /// The first such thing.
    pub example: Option<String>,
    /// Publishers whose request is done.
    pub done: Vec<usize>,
}

impl Track {
    /// Nothing has arrived.
    pub fn new(sockets: usize, publishers: usize, size: usize, layout: Option<Layout>) -> Self {
        Self {
            size: size.max(PUBLISHER + COUNT),
            layout,
            last: vec![0; sockets * publishers],
            publishers,
            open: vec![None; publishers],
            clock: LoadClock::Request,
            latency: Histogram::default(),
            beside: None,
            deliveries: 0,
            bytes: 0,
            pings: 0,
            wrong: 0,
            example: None,
            done: Vec::new(),
        }
    }

    /// A text frame arrived at socket `no`, which is on these channels.
    pub fn note(&mut self, no: usize, channels: &Range<usize>, payload: &[u8], now: Instant) {
        let Some((publisher, count)) = self.read(channels, payload) else {
            self.wrong(format!("socket {no} got {}", String::from_utf8_lossy(&payload[..payload.len().min(120)])));
            return;
        };
        let last = &mut self.last[no * self.publishers + publisher];
        // a push to a pattern comes once for each channel
        if count < *last || (count == *last && channels.len() == 1) {
            let before = *last;
            self.wrong(format!("socket {no} got push {count} of publisher {publisher} behind {before}"));
            return;
        }
        *last = count;
        self.deliveries += 1;
        self.bytes += payload.len() as u64;
        if let LoadClock::Due { start, every } = self.clock {
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
        // connections that exchange tokens have nothing open
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
        if matches!(self.clock, LoadClock::Request) {
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
    fn read(&mut self, channels: &Range<usize>, payload: &[u8]) -> Option<(usize, u32)> {
        if self.layout.is_none() {
            self.layout = Layout::of(payload);
        }
        let (name, data) = self.layout.as_ref()?.read(payload, self.size)?;
        if name[0] != b'c' || !channels.contains(&usize::try_from(number(&name[1..])?).ok()?) {
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
        let mut track = Track::new(2, 1, 100, Some(Layout::gusher()));
        let now = Instant::now();
        let good = frame(&channel(7), &data(0, 1, 100));
        track.note(1, &(7..8), good.as_bytes(), now);
        assert_eq!((track.deliveries, track.wrong, track.bytes), (1, 0, good.len() as u64));
        // twice, on another channel, cut short, and with something behind
        track.note(1, &(7..8), good.as_bytes(), now);
        track.note(0, &(8..9), good.as_bytes(), now);
        track.note(0, &(7..8), frame(&channel(7), &data(0, 1, 99)).as_bytes(), now);
        track.note(0, &(7..8), format!("{good} ").as_bytes(), now);
        assert_eq!((track.deliveries, track.wrong), (1, 4));
    }

    #[test]
    fn the_first_frame_tells_how_the_others_look() {
        let now = Instant::now();
        for (head, middle, tail, reversed) in [
            ("{\"event\":\"m\",\"channel\":\"", "\",\"data\":\"", "\"}", false),
            ("{\"data\":\"", "\", \"channel\":\"", "\",\"event\":\"m\"}", true),
        ] {
            let text = |count| {
                let (name, data) = (channel(3), data(0, count, 20).replace('"', ""));
                let (first, second) = if reversed { (data, name) } else { (name, data) };
                format!("{head}{first}{middle}{second}{tail}")
            };
            let mut track = Track::new(1, 1, 20, None);
            // what is no push at all teaches nothing
            track.note(0, &(3..4), b"{\"event\":\"other\",\"channel\":\"c0000003\",\"data\":\"\"}", now);
            for count in 1..=2 {
                track.note(0, &(3..4), text(count).as_bytes(), now);
            }
            track.note(0, &(3..4), text(3).replace("\"m\"", "\"n\"").as_bytes(), now);
            assert_eq!((track.deliveries, track.wrong), (2, 2), "{head}");
        }
    }
}
