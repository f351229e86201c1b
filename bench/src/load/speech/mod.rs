//! What the generator says to a server, one file for each protocol: where a socket knocks, how it joins its channels, how
//! a backend pushes, and what subscribers shall see. A further protocol is a further file and a line here.

mod conveyor;
mod gusher;
mod nchan;
mod phoenix;
pub mod pusher;

use std::ops::Range;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use self::pusher::BenchApp;
use super::track::Layout;

/// What a server speaks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ServerProtocol {
    /// gusher's, as Wellhead does.
    Gusher,
    /// The same on sockets; a pushed body is passed on as it is.
    Raw,
    /// Nchan's: a channel is a path, a pushed body is passed on as it is.
    Nchan,
    /// Pusher's protocol 7, with a signature under each push.
    Pusher(BenchApp),
    /// PushEx', with Phoenix' serializer of that number.
    Phoenix(u8),
    /// Conveyor's, with its server token.
    Conveyor(String),
}

/// A POST.
pub struct PushRequest {
    /// Path and query.
    pub target: String,
    /// What is sent.
    pub body: String,
}

/// The words of one protocol.
pub trait Speech {
    /// Path and query of a WebSocket handshake, with a connection token where there is one.
    fn path(&self, token: &str, channels: &Range<usize>) -> String;

    /// The server speaks first.
    fn greets(&self) -> bool {
        false
    }

    /// What a socket says to join, frame by frame; each is answered.
    fn joins(&self, channels: &Range<usize>) -> Result<Vec<String>>;

    /// How many answers come to so many of them.
    fn answers(&self, joins: usize) -> usize {
        joins
    }

    /// Is this the answer to one of them, and a good one?
    fn is_joined(&self, payload: &[u8]) -> bool;

    /// A push of `data`, which is JSON, to one channel.
    fn push(&self, channel: &str, data: &str) -> PushRequest;

    /// A push to many channels at once.
    fn batch(&self, channels: &[String], data: &str) -> PushRequest;

    /// How frames look, where that is sure; otherwise the first one tells.
    fn layout(&self) -> Option<Layout> {
        Some(Layout::gusher())
    }
}

impl ServerProtocol {
    /// Its words.
    pub fn speech(&self) -> Box<dyn Speech> {
        match self {
            Self::Gusher => Box::new(gusher::GusherSpeech { raw: false }),
            Self::Raw => Box::new(gusher::GusherSpeech { raw: true }),
            Self::Nchan => Box::new(nchan::Nchan),
            Self::Pusher(app) => Box::new(pusher::PusherSpeech(app.clone())),
            Self::Phoenix(serializer) => Box::new(phoenix::PhoenixSpeech { serializer: *serializer }),
            Self::Conveyor(token) => Box::new(conveyor::ConveyorSpeech(token.clone())),
        }
    }
}

fn has(payload: &[u8], word: &[u8]) -> bool {
    payload.windows(word.len()).any(|part| part == word)
}
