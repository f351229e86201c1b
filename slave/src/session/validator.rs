//! Validates each frame header of a client before the parser keeps a byte of it: declared length, reserved bits, masking,
//! fragmentation and control frame rules (RFC 6455 §5), and what a close frame says. Pure.
//!
//! The parser behind it waits for a whole frame before it looks at any limit, so that a client which claims 2^40 bytes
//! would have them all kept.

use wellhead_proto::refusal::CloseCause;

/// What may pass on, and what stands behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ValidatedFrames {
    /// Bytes that may pass on, from the front.
    pub accepted: usize,
    /// Frames that end inside them.
    pub frames: usize,
    /// Why nothing more may pass.
    pub verdict: FrameVerdict,
}

/// May more come?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameVerdict {
    /// Yes.
    Open,
    /// The client said goodbye; what follows is discarded.
    Closed,
    /// The client broke a rule.
    Broken(CloseCause),
}

/// The state between two reads.
#[derive(Debug)]
pub struct FrameValidator {
    /// The largest message, over all its fragments.
    limit: u64,
    /// The header under way.
    header: [u8; 14],
    header_have: u8,
    /// Payload bytes of the current frame that have not come.
    payload_left: u64,
    /// Inside a fragmented message, whose payload so far has this many bytes.
    message: Option<u64>,
    /// The payload of a close frame, unmasked as it comes.
    close: Option<Vec<u8>>,
    verdict: FrameVerdict,
}

impl FrameValidator {
    /// A validator for messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            header: [0; 14],
            header_have: 0,
            payload_left: 0,
            message: None,
            close: None,
            verdict: FrameVerdict::Open,
        }
    }

    /// Check the next bytes that came.
    pub fn check(&mut self, bytes: &[u8]) -> ValidatedFrames {
        let (mut at, mut accepted, mut frames) = (0, 0, 0);
        while self.verdict == FrameVerdict::Open && at < bytes.len() {
            if self.payload_left == 0 {
                self.header[usize::from(self.header_have)] = bytes[at];
                self.header_have += 1;
                at += 1;
                match self.read_header() {
                    Err(cause) => {
                        self.verdict = FrameVerdict::Broken(cause);
                        break;
                    }
                    Ok(None) => continue,
                    Ok(Some(length)) => self.payload_left = length,
                }
            } else {
                let here = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.keep_close_payload(&bytes[at..at + here]);
                at += here;
                self.payload_left -= here as u64;
            }
            if self.payload_left == 0 {
                frames += 1;
                self.header_have = 0;
                if let Some(payload) = self.close.take() {
                    self.verdict = judge_close(&payload);
                    if self.verdict != FrameVerdict::Closed {
                        frames -= 1;
                        break;
                    }
                }
            }
            accepted = at;
        }
        if self.verdict == FrameVerdict::Open {
            // an unfinished header passes on, too: the parser waits for the rest of it as we do
            accepted = at;
        }
        ValidatedFrames { accepted, frames, verdict: self.verdict }
    }

    /// Has all that came been whole messages? Then a new validator would do as well.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.header_have == 0 && self.payload_left == 0 && self.message.is_none() && self.verdict == FrameVerdict::Open
    }

    /// Judge the header as far as it has come. The payload's length once it is complete.
    fn read_header(&mut self) -> Result<Option<u64>, CloseCause> {
        const FIN: u8 = 0x80;
        const MASKED: u8 = 0x80;

        let first = self.header[0];
        let (fin, opcode) = (first & FIN != 0, first & 0x0F);
        let control = opcode & 0x8 != 0;
        if self.header_have == 1 {
            let known = matches!(opcode, 0x0..=0x2 | 0x8..=0xA);
            let fits = match opcode {
                0x0 => self.message.is_some(),
                0x1 | 0x2 => self.message.is_none(),
                _ => fin,
            };
            if first & 0x70 != 0 || !known || !fits {
                return Err(CloseCause::ProtocolError);
            }
            return Ok(None);
        }
        let short = self.header[1] & 0x7F;
        if self.header_have == 2 && (self.header[1] & MASKED == 0 || (control && short > 125)) {
            return Err(CloseCause::ProtocolError);
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let have = usize::from(self.header_have);
        if have < 2 + extended {
            return Ok(None);
        }
        let length = match extended {
            0 => u64::from(short),
            _ => self.header[2..2 + extended].iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
        };
        if length >> 63 != 0 {
            // RFC 6455 §5.2: the most significant bit must be 0
            return Err(CloseCause::ProtocolError);
        }
        // judged before the mask is there, since the parser does so, too, and in other words
        let message = self.message.unwrap_or(0).saturating_add(length);
        if !control && message > self.limit {
            return Err(CloseCause::TooBig);
        }
        if have < 2 + extended + 4 {
            return Ok(None);
        }
        if control {
            if opcode == 0x8 {
                self.close = Some(Vec::new());
            }
            return Ok(Some(length));
        }
        self.message = (!fin).then_some(message);
        Ok(Some(length))
    }

    fn keep_close_payload(&mut self, masked: &[u8]) {
        if let Some(payload) = &mut self.close {
            // the mask stands right behind the two bytes of a control frame's header
            let mask = &self.header[2..6];
            for byte in masked {
                payload.push(byte ^ mask[payload.len() % 4]);
            }
        }
    }
}

/// A close frame is empty, or holds a code that may be sent (RFC 6455 §7.4) and UTF-8.
fn judge_close(payload: &[u8]) -> FrameVerdict {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { FrameVerdict::Closed } else { FrameVerdict::Broken(CloseCause::ProtocolError) };
    };
    match u16::from_be_bytes(*code) {
        1000..=1003 | 1007..=1014 | 3000..=4999 if std::str::from_utf8(reason).is_ok() => FrameVerdict::Closed,
        1000..=1003 | 1007..=1014 | 3000..=4999 => FrameVerdict::Broken(CloseCause::BadUtf8),
        _ => FrameVerdict::Broken(CloseCause::ProtocolError),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn verdict(bytes: &[u8]) -> FrameVerdict {
        FrameValidator::new(1_000).check(bytes).verdict
    }

    const BROKEN: FrameVerdict = FrameVerdict::Broken(CloseCause::ProtocolError);

    #[test]
    fn good_frames_pass_and_are_counted() {
        let bytes = [frame(0x81, b"hello"), frame(0x89, b""), frame(0x01, b"a"), frame(0x8A, b"p"), frame(0x80, b"b")];
        let bytes = bytes.concat();
        let expected = ValidatedFrames { accepted: bytes.len(), frames: 5, verdict: FrameVerdict::Open };
        assert_eq!(FrameValidator::new(1_000).check(&bytes), expected);
    }

    #[test]
    fn what_stands_before_a_broken_frame_passes() {
        let good = frame(0x81, b"good");
        for (bad, cause) in [
            (frame(0xC1, b""), CloseCause::ProtocolError),
            (frame(0x83, b""), CloseCause::ProtocolError),
            (frame(0x8B, b""), CloseCause::ProtocolError),
            (frame(0x09, b""), CloseCause::ProtocolError),
            (frame(0x80, b"no start"), CloseCause::ProtocolError),
            (vec![0x81, 5, b'h'], CloseCause::ProtocolError),
            (frame(0x89, &[0; 126]), CloseCause::ProtocolError),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), CloseCause::ProtocolError),
            (frame(0x81, &[0; 1_001]), CloseCause::TooBig),
            (vec![0x81, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4], CloseCause::TooBig),
            (vec![0x82, 0xFF, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4], CloseCause::ProtocolError),
            (vec![0x82, 0xFF, 127, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4], CloseCause::TooBig),
            ([frame(0x01, &[0; 600]), frame(0x80, &[0; 401])].concat(), CloseCause::TooBig),
            (frame(0x88, &[3]), CloseCause::ProtocolError),
            (frame(0x88, &1005u16.to_be_bytes()), CloseCause::ProtocolError),
            (frame(0x88, &2999u16.to_be_bytes()), CloseCause::ProtocolError),
            (frame(0x88, &[3, 232, 0xFF]), CloseCause::BadUtf8),
        ] {
            let checked = FrameValidator::new(1_000).check(&[good.clone(), bad.clone()].concat());
            assert_eq!(checked.verdict, FrameVerdict::Broken(cause), "{bad:?}");
            assert!(checked.accepted >= good.len() && checked.accepted < good.len() + bad.len(), "{bad:?}");
        }
        assert_eq!(verdict(&frame(0x81, &[0; 1_000])), FrameVerdict::Open);
    }

    #[test]
    fn a_length_over_the_limit_is_judged_before_its_mask_has_come() {
        let good = frame(0x81, b"good");
        for (header, cause) in [
            (&[0x81, 0xFE, 3, 233][..], CloseCause::TooBig),
            (&[0x82, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0], CloseCause::TooBig),
            (&[0x82, 0xFF, 255, 0, 0, 0, 0, 0, 0, 0], CloseCause::ProtocolError),
        ] {
            let checked = FrameValidator::new(1_000).check(&[&good, header].concat());
            // the parser would find fault with it, too, and not say which
            assert_eq!(
                checked,
                ValidatedFrames { accepted: good.len(), frames: 1, verdict: FrameVerdict::Broken(cause) }
            );
        }
        assert_eq!(verdict(&[0x81, 0xFE, 3, 232]), FrameVerdict::Open);
    }

    #[test]
    fn nothing_passes_after_a_close() {
        let close = frame(0x88, &[3, 232]);
        let checked = FrameValidator::new(1_000).check(&[close.clone(), frame(0x81, b"late")].concat());
        assert_eq!(checked, ValidatedFrames { accepted: close.len(), frames: 1, verdict: FrameVerdict::Closed });
        assert_eq!(verdict(&frame(0x88, b"")), FrameVerdict::Closed);
        assert_eq!(verdict(&frame(0x88, &4999u16.to_be_bytes())), FrameVerdict::Closed);
    }

    #[test]
    fn a_broken_guard_stays_broken() {
        let mut validator = FrameValidator::new(1_000);
        validator.check(&[0xFF]);
        assert_eq!(validator.check(&frame(0x81, b"x")), ValidatedFrames { accepted: 0, frames: 0, verdict: BROKEN });
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_verdict(bytes in bytes(), cuts in vec(any::<prop::sample::Index>(), 0..5)) {
            let whole = FrameValidator::new(300).check(&bytes);

            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut validator = FrameValidator::new(300);
            let (mut frames, mut accepted, mut last) = (0, 0, FrameVerdict::Open);
            for pair in cuts.windows(2) {
                let checked = validator.check(&bytes[pair[0]..pair[1]]);
                frames += checked.frames;
                accepted += checked.accepted;
                last = checked.verdict;
            }
            prop_assert_eq!((frames, last), (whole.frames, whole.verdict));
            // a header that came in pieces has passed in part before it turned out to be bad; never more than that
            prop_assert!(accepted >= whole.accepted && accepted <= bytes.len());
        }

        #[test]
        fn random_bytes_never_pass_a_frame_over_the_limit(bytes in vec(any::<u8>(), 0..600)) {
            let checked = FrameValidator::new(10).check(&bytes);
            prop_assert!(checked.accepted <= bytes.len());
        }
    }

    /// Mostly good frames, some bad ones, some rubbish.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![4 => Just(0x81u8), 2 => Just(0x01), 2 => Just(0x80), 2 => Just(0x89), 1 => any::<u8>()];
        let one = (first, vec(any::<u8>(), 0..200)).prop_map(|(first, payload)| frame(first, &payload));
        let close = vec(any::<u8>(), 0..4).prop_map(|payload| frame(0x88, &payload));
        let piece = prop_oneof![8 => one, 1 => close, 1 => vec(any::<u8>(), 0..20)];
        vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }
}
