//! Users: closing all sockets that have signed in as one (pusher.md §1.8).

use crate::{
    command::{Command, Target},
    dialect::{contract::MasterRequest, pusher::names},
    envelope::Envelope,
    refusal::Refusal,
};

use super::{SignedRequest, bad, json};

/// `POST /apps/{id}/users/{user}/terminate_connections`. Libraries send different bodies, none of which says anything.
pub fn terminate(request: &SignedRequest<'_>) -> Result<MasterRequest, Refusal> {
    let SignedRequest { app, name, .. } = request;
    let user = names::user(name, app.limits.presence_id).map_err(bad)?;
    let command = Command::Terminate { whose: Target::User(user), reconnect: false };
    Ok(MasterRequest::publish(vec![Envelope { app: app.key.clone(), command }], || json("{}")))
}
