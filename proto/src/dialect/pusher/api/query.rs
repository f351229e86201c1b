//! Queries: which channels are occupied, the state of one, and its users (pusher.md §1.5–§1.7).

use crate::{
    dialect::{
        contract::{MasterRequest, QueryRequest},
        pusher::names::{self, ChannelKind},
    },
    event::quote,
    ids::ChannelName,
    query::{ChannelStates, MemberInfos, MembersQuery, StatesOf, StatesQuery},
    refusal::Refusal,
};

use super::{SignedRequest, bad, info::Info, json};

/// `GET /apps/{id}/channels`.
pub fn channels(request: &SignedRequest<'_>) -> Result<MasterRequest, Refusal> {
    let info = info(request);
    let prefix = request.params.text("filter_by_prefix").unwrap_or_default().into_owned();
    // counting users of channels that have none would be asked by mistake
    if info.users && ChannelKind::of(&prefix) != ChannelKind::Presence {
        return Err(bad(
            "user_count may only be requested for presence channels - please supply filter_by_prefix beginning with presence-",
        ));
    }
    let app = request.app.key.clone();
    let query = StatesQuery { app, of: StatesOf::Under(prefix), members: info.users };
    let reply = move |states: ChannelStates| {
        let shown = states.iter().filter(|(name, _)| !name.starts_with('#'));
        let shown = shown.map(|(name, state)| format!("{}:{{{}}}", quote(name), info.write(name, state)));
        json(format!(r#"{{"channels":{{{}}}}}"#, shown.collect::<Vec<_>>().join(",")))
    };
    Ok(MasterRequest::Query(QueryRequest::States(query, Box::new(reply))))
}

/// `GET /apps/{id}/channels/{channel}`.
pub fn channel(request: &SignedRequest<'_>) -> Result<MasterRequest, Refusal> {
    let (info, name) = (info(request), channel_name(request)?);
    if let Some(words) = info.misses(name.as_str()) {
        return Err(bad(words));
    }
    let query = info.query(&request.app.key, vec![name.clone()]);
    let reply = move |mut states: ChannelStates| {
        let state = states.remove(name.as_str()).unwrap_or_default();
        let mut fields = format!(r#""occupied":{}"#, state.subscriptions > 0);
        let more = info.write(name.as_str(), &state);
        if !more.is_empty() {
            fields = format!("{fields},{more}");
        }
        json(format!("{{{fields}}}"))
    };
    Ok(MasterRequest::Query(QueryRequest::States(query, Box::new(reply))))
}

/// `GET /apps/{id}/channels/{channel}/users`.
pub fn users(request: &SignedRequest<'_>) -> Result<MasterRequest, Refusal> {
    let extraneous = request.params.extraneous();
    if !extraneous.is_empty() {
        let names = extraneous.join(", ");
        return Err(bad(format!("The following query string parameters are extraneous: {names}")));
    }
    let name = channel_name(request)?;
    if ChannelKind::of(name.as_str()) != ChannelKind::Presence {
        return Err(bad("Users can only be retrieved for presence channels"));
    }
    let query = MembersQuery { app: request.app.key.clone(), channel: name };
    let reply = |members: MemberInfos| {
        let ids = members.keys().map(|user| format!(r#"{{"id":{}}}"#, quote(user.as_str())));
        json(format!(r#"{{"users":[{}]}}"#, ids.collect::<Vec<_>>().join(",")))
    };
    Ok(MasterRequest::Query(QueryRequest::Members(query, Box::new(reply))))
}

fn info(request: &SignedRequest<'_>) -> Info {
    request.params.text("info").map(|list| Info::of(&list)).unwrap_or_default()
}

fn channel_name(request: &SignedRequest<'_>) -> Result<ChannelName, Refusal> {
    names::channel(request.name, request.app.limits.channel_name.bytes()).map_err(bad)
}
