//! The floor where clients stand: their sockets, what they subscribe to, and the fan-out.

pub mod settings;
