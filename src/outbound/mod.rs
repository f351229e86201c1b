//! The requests that Wellhead sends by itself, to addresses that the settings name: webhooks and remote commands. They are
//! bounded in time and in what is read of the answer, follow no redirect, use no proxy, and go only where the settings allow.

mod address;
mod client;
mod error;

pub use self::{
    address::check_address,
    client::{OutboundClient, OutboundRequest},
    error::OutboundError,
};
