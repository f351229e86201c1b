//! What passes the socket between processes of one machine: length, kind, and what the kind carries. Pure; whatever
//! bytes come, reading them ends in a frame or in a [`BadFrame`].

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio_util::codec::LengthDelimitedCodec;
use wellhead_proto::ids::NodeId;

use crate::bus::pubsub::Subject;

/// Spoken by this release. Both sides of a socket must speak the same.
pub const VERSION: u16 = 1;
/// What a frame carries beside a message: kind and subject.
const OVERHEAD: usize = 16;
/// How large a greeting may be; nobody is known before it.
pub(super) const GREETING: usize = 64 * 1_024;
/// Bytes that say how long the frame is.
const LENGTH: usize = 4;

/// From a client to the broker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ToBroker {
    /// The first frame.
    Hello {
        version: u16,
        node: NodeId,
        heartbeat: Bytes,
    },
    Listen(Subject),
    Unlisten(Subject),
    Send(Subject, Bytes),
    Ping(u64),
    /// The last frame of a client that ends in order.
    Goodbye,
}

/// From the broker to a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ToClient {
    /// The first frame. Another version has nothing to say beyond its number.
    Welcome {
        version: u16,
        payload: Bytes,
    },
    Heard(Subject, Bytes),
    Pong(u64),
    /// The client was too slow: what it did not get is lost. The last frame.
    CutOff,
    /// The broker ends in order. The last frame.
    Goodbye,
}

/// What came is no frame of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a frame of the local bus")]
pub(super) struct BadFrame;

/// A frame ready to be written. Clones share the message.
#[derive(Clone, Debug)]
pub(super) struct BusFrame {
    pub(super) head: SmallVec<[u8; 16]>,
    pub(super) body: Bytes,
}

/// Reads frames whose message has at most `message` bytes.
pub(super) fn codec(message: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(LENGTH).max_frame_length(max_frame(message)).new_codec()
}

/// The longest frame, if a message has at most `message` bytes.
pub(super) fn max_frame(message: usize) -> usize {
    message.saturating_add(OVERHEAD).max(GREETING).min(u32::MAX as usize)
}

impl BusFrame {
    /// How much memory it takes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.body.len()
    }

    fn new(kind: u8, rest: &[u8], body: Bytes) -> Self {
        let length = u32::try_from(1 + rest.len() + body.len()).expect("messages are bounded far below 4 GiB");
        let mut head = SmallVec::from_slice(&length.to_be_bytes());
        head.push(kind);
        head.extend_from_slice(rest);
        Self { head, body }
    }
}

impl ToBroker {
    pub(super) fn frame(self) -> BusFrame {
        match self {
            Self::Hello { version, node, heartbeat } => {
                let mut rest = SmallVec::<[u8; 8]>::from_slice(&version.to_be_bytes());
                rest.extend_from_slice(&u32::from(node).to_be_bytes());
                BusFrame::new(0, &rest, heartbeat)
            }
            Self::Listen(subject) => BusFrame::new(1, &pack(subject), Bytes::new()),
            Self::Unlisten(subject) => BusFrame::new(2, &pack(subject), Bytes::new()),
            Self::Send(subject, message) => BusFrame::new(3, &pack(subject), message),
            Self::Ping(number) => BusFrame::new(4, &number.to_be_bytes(), Bytes::new()),
            Self::Goodbye => BusFrame::new(5, &[], Bytes::new()),
        }
    }

    pub(super) fn parse(mut frame: Bytes) -> Result<Self, BadFrame> {
        let parsed = match frame.try_get_u8().map_err(|_| BadFrame)? {
            0 => {
                let version = frame.try_get_u16().map_err(|_| BadFrame)?;
                if version != VERSION {
                    // how another version goes on is not ours to know
                    return Ok(Self::Hello { version, node: NodeId::from_random(0), heartbeat: Bytes::new() });
                }
                let node = frame.try_get_u32().ok().and_then(|node| NodeId::try_from(node).ok()).ok_or(BadFrame)?;
                return Ok(Self::Hello { version, node, heartbeat: frame });
            }
            1 => Self::Listen(unpack(&mut frame)?),
            2 => Self::Unlisten(unpack(&mut frame)?),
            3 => {
                let subject = unpack(&mut frame)?;
                if subject.is_wildcard() {
                    return Err(BadFrame);
                }
                return Ok(Self::Send(subject, frame));
            }
            4 => Self::Ping(frame.try_get_u64().map_err(|_| BadFrame)?),
            5 => Self::Goodbye,
            _ => return Err(BadFrame),
        };
        if frame.is_empty() { Ok(parsed) } else { Err(BadFrame) }
    }
}

impl ToClient {
    pub(super) fn frame(self) -> BusFrame {
        match self {
            Self::Welcome { version, payload } => BusFrame::new(0, &version.to_be_bytes(), payload),
            Self::Heard(subject, message) => BusFrame::new(1, &pack(subject), message),
            Self::Pong(number) => BusFrame::new(2, &number.to_be_bytes(), Bytes::new()),
            Self::CutOff => BusFrame::new(3, &[], Bytes::new()),
            Self::Goodbye => BusFrame::new(4, &[], Bytes::new()),
        }
    }

    pub(super) fn parse(mut frame: Bytes) -> Result<Self, BadFrame> {
        let parsed = match frame.try_get_u8().map_err(|_| BadFrame)? {
            0 => {
                let version = frame.try_get_u16().map_err(|_| BadFrame)?;
                return Ok(Self::Welcome { version, payload: frame });
            }
            1 => {
                let subject = unpack(&mut frame)?;
                return Ok(Self::Heard(subject, frame));
            }
            2 => Self::Pong(frame.try_get_u64().map_err(|_| BadFrame)?),
            3 => Self::CutOff,
            4 => Self::Goodbye,
            _ => return Err(BadFrame),
        };
        if frame.is_empty() { Ok(parsed) } else { Err(BadFrame) }
    }
}

fn pack(subject: Subject) -> [u8; 5] {
    let (kind, number) = match subject {
        Subject::Slot(slot) => (0, u32::from(slot)),
        Subject::EverySlot => (1, 0),
        Subject::Everyone => (2, 0),
        Subject::Node(node) => (3, u32::from(node)),
        Subject::UserSlot(slot) => (4, u32::from(slot)),
        Subject::EveryUserSlot => (5, 0),
    };
    let [a, b, c, d] = number.to_be_bytes();
    [kind, a, b, c, d]
}

fn unpack(frame: &mut Bytes) -> Result<Subject, BadFrame> {
    let kind = frame.try_get_u8().map_err(|_| BadFrame)?;
    let number = frame.try_get_u32().map_err(|_| BadFrame)?;
    match (kind, number) {
        (0, slot) => u16::try_from(slot).map(Subject::Slot).map_err(|_| BadFrame),
        (1, 0) => Ok(Subject::EverySlot),
        (2, 0) => Ok(Subject::Everyone),
        (3, node) => NodeId::try_from(node).map(Subject::Node).map_err(|_| BadFrame),
        (4, slot) => u16::try_from(slot).map(Subject::UserSlot).map_err(|_| BadFrame),
        (5, 0) => Ok(Subject::EveryUserSlot),
        _ => Err(BadFrame),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio_util::codec::Decoder;
    use wellhead_proto::testkit::{Golden, hex};

    use super::*;

    fn written(frame: &BusFrame) -> BytesMut {
        let mut bytes = BytesMut::from(frame.head.as_slice());
        bytes.extend_from_slice(&frame.body);
        bytes
    }

    fn read(frame: &BusFrame) -> Bytes {
        codec(1_024).decode(&mut written(frame)).unwrap().unwrap().freeze()
    }

    fn subject() -> impl Strategy<Value = Subject> {
        prop_oneof![
            any::<u16>().prop_map(Subject::Slot),
            any::<u16>().prop_map(Subject::UserSlot),
            Just(Subject::Everyone),
            any::<u32>().prop_map(|node| Subject::Node(NodeId::from_random(node))),
        ]
    }

    /// A slave of one release and a master of another share the socket.
    #[test]
    fn every_frame_has_the_bytes_that_it_always_had() {
        let mut golden = Golden::new("node_messages/local_frames.txt");
        let (node, body) = (NodeId::from_random(7), || Bytes::from_static(b"body"));
        let to_exchange = [
            ("hello", ToBroker::Hello { version: VERSION, node, heartbeat: body() }),
            ("listen to a slot", ToBroker::Listen(Subject::Slot(0x0102))),
            ("listen to every slot", ToBroker::Listen(Subject::EverySlot)),
            ("listen to what is for everyone", ToBroker::Listen(Subject::Everyone)),
            ("unlisten", ToBroker::Unlisten(Subject::Node(node))),
            ("send to a slot", ToBroker::Send(Subject::Slot(0x0102), body())),
            ("send to a node", ToBroker::Send(Subject::Node(node), body())),
            ("send to everyone", ToBroker::Send(Subject::Everyone, body())),
            ("ping", ToBroker::Ping(300)),
            ("goodbye", ToBroker::Goodbye),
            ("listen to a slot of users", ToBroker::Listen(Subject::UserSlot(0x0102))),
            ("listen to every slot of users", ToBroker::Listen(Subject::EveryUserSlot)),
            ("send to a slot of users", ToBroker::Send(Subject::UserSlot(0x0102), body())),
        ];
        for (case, frame) in to_exchange {
            golden.case(&format!("to the master: {case}"), hex(&written(&frame.frame())));
        }
        let to_link = [
            ("welcome", ToClient::Welcome { version: VERSION, payload: body() }),
            ("heard on a slot", ToClient::Heard(Subject::Slot(0x0102), body())),
            ("heard on every slot", ToClient::Heard(Subject::EverySlot, body())),
            ("pong", ToClient::Pong(300)),
            ("cut off", ToClient::CutOff),
            ("goodbye", ToClient::Goodbye),
        ];
        for (case, frame) in to_link {
            golden.case(&format!("to a slave: {case}"), hex(&written(&frame.frame())));
        }
        golden.check();
    }

    proptest! {
        #[test]
        fn what_a_link_writes_the_exchange_reads(subject in subject(), body: Vec<u8>, number: u64, node: u32) {
            let body = Bytes::from(body);
            for frame in [
                ToBroker::Hello { version: VERSION, node: NodeId::from_random(node), heartbeat: body.clone() },
                ToBroker::Listen(subject),
                ToBroker::Listen(Subject::EverySlot),
                ToBroker::Unlisten(subject),
                ToBroker::Send(subject, body.clone()),
                ToBroker::Ping(number),
                ToBroker::Goodbye,
            ] {
                prop_assert_eq!(ToBroker::parse(read(&frame.clone().frame())), Ok(frame));
            }
            for frame in [
                ToClient::Welcome { version: number as u16, payload: body.clone() },
                ToClient::Heard(subject, body.clone()),
                ToClient::Heard(Subject::EverySlot, body),
                ToClient::Pong(number),
                ToClient::CutOff,
                ToClient::Goodbye,
            ] {
                prop_assert_eq!(ToClient::parse(read(&frame.clone().frame())), Ok(frame));
            }
        }

        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes: Vec<u8>, kind in 0_u8..7) {
            let _ = ToBroker::parse(Bytes::from(bytes.clone()));
            let _ = ToClient::parse(Bytes::from(bytes.clone()));
            let mut likely = vec![kind];
            likely.extend(bytes);
            let _ = ToBroker::parse(Bytes::from(likely.clone()));
            let _ = ToClient::parse(Bytes::from(likely));
        }
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_anything_is_kept() {
        let mut bytes = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(codec(1_024).decode(&mut bytes).is_err());
        assert!(bytes.capacity() < 1_024);
    }

    #[test]
    fn nothing_can_be_sent_to_every_slot() {
        for wildcard in [Subject::EverySlot, Subject::EveryUserSlot] {
            let frame = ToBroker::Send(wildcard, Bytes::from_static(b"x")).frame();
            assert_eq!(ToBroker::parse(read(&frame)), Err(BadFrame));
        }
    }

    #[test]
    fn another_version_is_told_whatever_follows() {
        let frame = Bytes::from_static(&[0, 0, 9, 1]);
        assert!(matches!(ToBroker::parse(frame.clone()), Ok(ToBroker::Hello { version: 9, .. })));
        assert!(matches!(ToClient::parse(frame), Ok(ToClient::Welcome { version: 9, .. })));
    }
}
