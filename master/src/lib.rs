//! The counter where backends come: their API, their keys, and the way onto the bus.

pub mod settings;
