//! The gusher API, row by row (gusher.cluster v1 and v3), against a real server.

mod auth;
mod isolation;
mod names;
mod push;
mod query;
mod remote;
mod rights;
mod socket;
mod v3;
