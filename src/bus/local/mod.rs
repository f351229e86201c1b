//! The local bus: nothing needs to be installed. Part of it is the hub, which carries inside one process.

mod hub;

pub use hub::Hub;
