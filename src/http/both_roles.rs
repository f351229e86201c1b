//! One address for backends and clients: the HTTP API of both roles behind one listener. Their paths tell them apart; a
//! role that does not know one says so, and the other is asked.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use wellhead_master::{AdmittedRequest, Master};
use wellhead_proto::{
    dialect::contract::ApiReply,
    http_api::{Head, HttpApi, Matched, NotAdmitted},
    refusal::Refusal,
};
use wellhead_slave::{Accepted, Rejected, Slave, Transport};

use super::UpgradeApi;

/// The master and the slave of one process, at one address.
#[derive(Clone)]
pub struct BothRoles {
    /// Whom backends call.
    pub master: Master,
    /// Where clients connect.
    pub slave: Slave,
}

/// A request that one of the two admitted.
pub enum AdmittedByRole {
    /// A backend's.
    Master(AdmittedRequest),
    /// A client's.
    Slave(Matched),
}

impl HttpApi for BothRoles {
    type Admitted = AdmittedByRole;

    fn admit(&self, head: Head<'_>) -> Result<AdmittedByRole, NotAdmitted> {
        match self.master.admit(head) {
            Ok(admitted) => Ok(AdmittedByRole::Master(admitted)),
            Err(NotAdmitted::NotMine) => self.slave.admit(head).map(AdmittedByRole::Slave),
            Err(refused) => Err(refused),
        }
    }

    fn refuse(&self, admitted: &AdmittedByRole, why: &Refusal) -> ApiReply {
        match admitted {
            AdmittedByRole::Master(admitted) => self.master.refuse(admitted, why),
            AdmittedByRole::Slave(admitted) => self.slave.refuse(admitted, why),
        }
    }

    async fn serve(&self, admitted: AdmittedByRole, head: Head<'_>, body: Bytes) -> ApiReply {
        match admitted {
            AdmittedByRole::Master(admitted) => self.master.serve(admitted, head, body).await,
            AdmittedByRole::Slave(admitted) => self.slave.serve(admitted, head, body).await,
        }
    }

    /// That of the role: whom anybody may ask reads no more here than behind a listener of its own.
    fn body_limit(&self, admitted: &AdmittedByRole) -> usize {
        match admitted {
            AdmittedByRole::Master(admitted) => self.master.body_limit(admitted),
            AdmittedByRole::Slave(admitted) => self.slave.body_limit(admitted),
        }
    }
}

/// Sockets are the slave's.
impl UpgradeApi for BothRoles {
    type Socket = Accepted;

    fn start_worker(&self) {
        self.slave.start_worker();
    }

    fn opens_socket(&self, head: Head<'_>) -> bool {
        self.slave.opens_socket(head)
    }

    async fn handshake(&self, head: Head<'_>, peer: Option<SocketAddr>) -> Result<Accepted, Rejected> {
        self.slave.handshake(head, peer).await
    }

    fn open(&self, socket: Accepted, transport: Transport, early: BytesMut) {
        UpgradeApi::open(&self.slave, socket, transport, early);
    }
}
