//! Asking: which channels are occupied, how it stands with one, and who is there (pusher.md §1.5–§1.7).

use crate::{
    dialect::{
        contract::{ApiTask, Done, Work},
        pusher::names::{self, Kind},
    },
    event::quote,
    ids::ChannelName,
    query::{Ask, Census, Query},
    refusal::Refusal,
};

use super::{
    Request, bad, fault,
    info::{Info, state_of},
    json,
};

/// `GET /apps/{id}/channels`.
pub fn channels(request: &Request<'_>) -> Result<ApiTask, Refusal> {
    let info = info(request);
    let prefix = request.params.text("filter_by_prefix").unwrap_or_default().into_owned();
    // counting users of channels that have none would be asked by mistake
    if info.users && Kind::of(&prefix) != Kind::Presence {
        return Err(bad(
            "user_count may only be requested for presence channels - please supply filter_by_prefix beginning with presence-",
        ));
    }
    let query = Query::StatesUnder { prefix, members: info.users };
    let ask = Ask::Query { app: request.app.key.clone(), query };
    Ok(ApiTask::new(Work::Ask(ask), move |done| match done {
        Done::Census(Census::States(states)) => {
            let shown = states.iter().filter(|(name, _)| !name.starts_with('#'));
            let shown = shown.map(|(name, state)| format!("{}:{{{}}}", quote(name), info.write(name, state)));
            json(format!(r#"{{"channels":{{{}}}}}"#, shown.collect::<Vec<_>>().join(",")))
        }
        _ => fault(),
    }))
}

/// `GET /apps/{id}/channels/{channel}`.
pub fn channel(request: &Request<'_>) -> Result<ApiTask, Refusal> {
    let (info, name) = (info(request), channel_name(request)?);
    if let Some(words) = info.misses(name.as_str()) {
        return Err(bad(words));
    }
    let ask = info.ask(&request.app.key, vec![name.clone()]);
    Ok(ApiTask::new(Work::Ask(ask), move |done| match done {
        Done::Census(census @ Census::States(_)) => {
            let state = state_of(&census, name.as_str()).cloned().unwrap_or_default();
            let mut fields = format!(r#""occupied":{}"#, state.subscriptions > 0);
            let more = info.write(name.as_str(), &state);
            if !more.is_empty() {
                fields = format!("{fields},{more}");
            }
            json(format!("{{{fields}}}"))
        }
        _ => fault(),
    }))
}

/// `GET /apps/{id}/channels/{channel}/users`.
pub fn users(request: &Request<'_>) -> Result<ApiTask, Refusal> {
    let extraneous = request.params.extraneous();
    if !extraneous.is_empty() {
        let names = extraneous.join(", ");
        return Err(bad(format!("The following query string parameters are extraneous: {names}")));
    }
    let name = channel_name(request)?;
    if Kind::of(name.as_str()) != Kind::Presence {
        return Err(bad("Users can only be retrieved for presence channels"));
    }
    let ask = Ask::Query { app: request.app.key.clone(), query: Query::Members(name) };
    Ok(ApiTask::new(Work::Ask(ask), |done| match done {
        Done::Census(Census::Members(members)) => {
            let ids = members.keys().map(|user| format!(r#"{{"id":{}}}"#, quote(user.as_str())));
            json(format!(r#"{{"users":[{}]}}"#, ids.collect::<Vec<_>>().join(",")))
        }
        _ => fault(),
    }))
}

fn info(request: &Request<'_>) -> Info {
    request.params.text("info").map(|list| Info::of(&list)).unwrap_or_default()
}

fn channel_name(request: &Request<'_>) -> Result<ChannelName, Refusal> {
    names::channel(request.channel, request.app.limits.channel_name.bytes()).map_err(bad)
}
