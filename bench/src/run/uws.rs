//! uWebSockets.js with a server of ours on it, if node and the package are there: `make bench-peers` installs it.

use std::{path::Path, process::Command};

use super::environment::has;

/// Where the server and its package are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/uws");

/// Is it installed?
pub fn is_there() -> bool {
    has("node") && Path::new(FOLDER).join("node_modules/uwebsockets").exists()
}

/// What starts it; it says where it listens as a baseline does.
pub fn command() -> Command {
    let mut command = Command::new("node");
    command.arg(Path::new(FOLDER).join("server.js"));
    command
}
