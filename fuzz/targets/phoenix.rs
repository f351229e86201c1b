//! What a client of PushEx says, a message a line. The byte before a message says whether it is text or binary, which serializer
//! reads it (there is a socket for each), and whether a join is permitted.
#![no_main]

use std::{collections::BTreeSet, sync::LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wellhead_fuzz::{KEY, NOW, TENANTS, check_frame, socket};
use wellhead_proto::{
    action::Action,
    dialect::{
        contract::{ClientMessage, Dialect, Protocol, Variant},
        mount::Mount,
        pushex::{PushEx, Settings},
    },
    event::{Event, Payload},
    ids::{ChannelName, SocketIdSeal},
    notice::{ActionOutcome, Notice},
};

static PUSHEX: LazyLock<PushEx> =
    LazyLock::new(|| PushEx::new(Settings::default(), &SocketIdSeal::new(b"seal")));

/// A socket, and the channels that its slave has it on.
struct FuzzedSocket {
    variant: Variant,
    protocol: Box<dyn Protocol>,
    on: BTreeSet<ChannelName>,
    is_open: bool,
}

fuzz_target!(|data: &[u8]| {
    let app = KEY.parse().expect("a short name");
    let mut sockets: Vec<_> = (0..PUSHEX.variants())
        .map(Variant)
        .map(|variant| FuzzedSocket {
            variant,
            protocol: PUSHEX.open(&app, variant, socket()),
            on: BTreeSet::new(),
            is_open: true,
        })
        .collect();
    for line in data.split(|&byte| byte == b'\n') {
        let Some((how, message)) = line.split_first() else { continue };
        let at = usize::from(how & 1) % sockets.len();
        sockets[at].hears(message, how & 2 != 0, how & 4 != 0);
    }
});

impl FuzzedSocket {
    fn hears(&mut self, message: &[u8], is_binary: bool, is_permitted: bool) {
        if !self.is_open {
            return;
        }
        let message = match std::str::from_utf8(message) {
            Ok(text) if !is_binary => ClientMessage::Text(text.into()),
            _ => ClientMessage::Binary(Bytes::copy_from_slice(message)),
        };
        let told = match self.protocol.receive(message, &TENANTS, NOW) {
            Ok(Action::Answer(frame) | Action::RejectSubscribe { says: frame, .. }) => Some(frame),
            Ok(Action::Ignore) => None,
            Ok(Action::Subscribe(channels)) => {
                let [channel] = &channels[..] else { panic!("one at a time: {channels:?}") };
                let tag = self.protocol.tag().unwrap_or_default();
                self.is_told(channel, &tag);
                let is_on = self.on.contains(channel) || is_permitted && self.on.insert(channel.clone());
                self.protocol.reply(if is_on { ActionOutcome::Done } else { ActionOutcome::Denied })
            }
            Ok(Action::Unsubscribe(channel)) => {
                assert!(self.on.remove(&channel), "it leaves where it is: {channel}");
                self.protocol.reply(ActionOutcome::Done)
            }
            Ok(other) => panic!("{other:?} is no action of this dialect"),
            Err(cause) => {
                assert_eq!(PUSHEX.close(cause).0, 1011);
                self.is_open = false;
                None
            }
        };
        told.into_iter().for_each(check_frame);
    }

    /// An event of the channel, for a subscription with that tag.
    fn is_told(&self, channel: &ChannelName, tag: &str) {
        let event = Event::new(channel.as_str().try_into().expect("as long"), Payload::Text(channel.as_str().into()));
        let shared = PUSHEX.encode(self.variant, Notice::Event { channel, event: &event }).expect("each has a frame");
        check_frame(shared.of_socket(|| PUSHEX.head(self.variant, tag)));
    }
}
