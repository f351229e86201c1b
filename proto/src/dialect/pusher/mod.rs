//! Pusher Channels: the HTTP API with its signed requests, and protocol 7 (`docs/pusher.md` says what is spoken).

mod settings;

pub use self::settings::{App, Limits, Settings};
