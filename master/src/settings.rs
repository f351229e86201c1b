//! The master's settings.

use serde::{Deserialize, Serialize};

/// `[master]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where backends call.
    pub listen: String,
    /// Where health and metrics are served; empty: nowhere.
    pub admin: String,
    /// Serve without push keys beyond loopback.
    pub open: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7777".to_owned(), admin: "127.0.0.1:9601".to_owned(), open: false }
    }
}
