//! What can go wrong between a request and its reply.

use wellhead_proto::{bus::BusError, refusal::Refusal};

/// A refusal is caused by the caller; a fault by the server.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The caller asked for something that it is not allowed to have.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The bus failed.
    #[error("cluster bus: {0}")]
    Fault(#[from] BusError),
    /// The bus did not answer in time.
    #[error("cluster bus: no answer in time")]
    Late,
}

impl MasterError {
    /// What the caller is told: of a fault only that it may try again.
    #[must_use]
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(why) => why,
            Self::Fault(BusError::Down) => Refusal::unavailable("the bus is down, nothing was sent"),
            Self::Fault(BusError::Stranger) => {
                Refusal::unavailable("this node has another cluster.secret than the others, nothing was sent")
            }
            Self::Fault(BusError::Full) => Refusal::unavailable("the bus is overloaded"),
            Self::Fault(BusError::TooLarge { limit }) => {
                Refusal::TooLarge { what: "a message of the bus", limit: limit as u64 }
            }
            Self::Fault(BusError::Silent | BusError::OtherKind) | Self::Late => {
                Refusal::unavailable("the cluster did not answer in time")
            }
        }
    }
}
