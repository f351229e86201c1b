//! The local bus: nothing needs to be installed. The hub carries inside one process; between processes of one machine
//! the master's exchange owns a socket, and each slave has a link to it.

mod exchange;
mod frame;
mod hub;
mod link;
mod outbound;
mod socket;

pub use exchange::{Exchange, LocalLimits, Porter};
pub use frame::VERSION;
pub use hub::Hub;
pub use link::{Hello, Link};
pub use socket::{SocketError, check as check_socket};
