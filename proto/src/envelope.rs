//! What travels on the bus from masters to slaves. (How it travels, with its version, is `node_message`'s matter.)

use serde::{Deserialize, Serialize};

use crate::{command::Command, ids::AppId};

/// A command and the app it is for: no command is sent without its app.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Envelope {
    /// The only app that it concerns.
    pub app: AppId,
    /// What to do.
    pub command: Command,
}
