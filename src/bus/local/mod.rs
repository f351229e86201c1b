//! The local bus: nothing needs to be installed. `in_process` carries inside one process; between processes of one
//! machine the master's broker owns a socket, and each slave is a client of it.

mod frame;
mod in_process;
mod outbound;
mod socket;
mod unix_broker;
mod unix_client;

pub use frame::VERSION;
pub use in_process::InProcessBus;
pub use socket::{SocketError, check as check_socket};
pub use unix_broker::{ClientWatcher, LocalLimits, UnixBroker};
pub use unix_client::{Hello, UnixClient};
