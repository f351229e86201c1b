//! The settings of gusher: the prefixes of its v1 routes. Its v3 routes are at the root.

use serde::{Deserialize, Serialize};

use crate::dialect::mount::{BadSetting, prefix};

/// gusher's keys in `[master]` and `[slave]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Of the master's routes.
    pub master: V1Rows,
    /// Of the slave's routes.
    pub slave: V1Rows,
}

/// The prefix of the v1 routes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct V1Rows {
    /// What their paths begin with: a slash first and none at the end; may be empty.
    pub prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        let rows = |prefix: &str| V1Rows { prefix: prefix.to_owned() };
        Self { master: rows("/api"), slave: rows("/gcs") }
    }
}

impl Settings {
    /// The prefixes without their last slashes.
    pub(super) fn check(mut self) -> Result<Self, BadSetting> {
        self.master.prefix = prefix("master.prefix", &self.master.prefix)?;
        self.slave.prefix = prefix("slave.prefix", &self.slave.prefix)?;
        Ok(self)
    }
}
