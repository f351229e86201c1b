//! The words that master, slave and binary share: names, commands, queries, envelopes, and the contract of a
//! dialect. No sockets, no actors, no clock, no client libraries.

pub mod action;
pub mod bus;
pub mod channel;
pub mod command;
pub mod coordination;
pub mod dialect;
pub mod envelope;
pub mod event;
pub mod fingerprint;
pub mod frame;
pub mod http_api;
pub mod http_target;
pub mod ids;
pub mod jwt;
pub mod local;
pub mod matcher;
pub mod member;
pub mod membership;
pub mod node_message;
pub mod node_request;
pub mod notice;
pub mod origin;
pub mod push_key;
pub mod query;
pub mod refusal;
pub mod remote;
pub mod secret;
pub mod tenants;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod units;
