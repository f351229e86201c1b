//! The words that master, slave and binary share: names, commands, queries, envelopes, and the contract of a
//! dialect. No sockets, no actors, no clock, no client libraries.

pub mod action;
pub mod app;
pub mod bus;
pub mod channel;
pub mod command;
pub mod dialect;
pub mod envelope;
pub mod event;
pub mod fingerprint;
pub mod frame;
pub mod ids;
pub mod jwt;
pub mod local;
pub mod matcher;
pub mod member;
pub mod node_message;
pub mod node_request;
pub mod notice;
pub mod origin;
pub mod query;
pub mod refusal;
pub mod report;
pub mod roster;
pub mod surface;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod units;
