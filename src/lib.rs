//! The binary: composes the two roles and holds nothing of the domain. A library as well, so that tests start a whole
//! process without one.

mod admin;
pub mod app;
pub mod bus;
pub mod cli;
pub mod development;
pub mod exposition;
pub mod files;
pub mod health;
pub mod http;
pub mod outbound;
pub mod remote;
pub mod settings;
pub mod signing;
pub mod telemetry;
pub mod webhooks;
