//! Actions that a dialect has judged itself: a change of channels, a publish, a list of sockets, and what follows them.

use std::time::{SystemTime, UNIX_EPOCH};

use actix::{ActorFutureExt, WrapFuture};
use log::debug;
use wellhead_proto::{
    action::ChannelSwitch,
    bus::Interest,
    command::Command,
    envelope::Envelope,
    ids::{ChannelKey, ChannelName},
    notice::ActionOutcome,
    query::{SocketTags, SocketsQuery},
};

use super::Session;
use crate::session::context::SessionContext;

impl Session {
    /// Leave one channel for another, once the bus delivers that and its token, if it needs one, is used up. No push that is
    /// accepted afterwards is missed.
    pub(super) fn switch(&mut self, switch: ChannelSwitch, context: &mut SessionContext<Self>) {
        let Some(app) = self.socket.app() else { return };
        let ChannelSwitch { from, to, token } = switch;
        let channel = ChannelKey { app, name: to.clone() };
        let (hold, confirmed) = match self.state.bus.interest(&channel) {
            Some(Interest { hold, confirmed }) => (Some(hold), confirmed),
            None => (None, None),
        };
        if confirmed.is_none() && token.is_none() {
            return self.switched(from, to, context);
        }
        let state = self.state.clone();
        let allowed = async move {
            if let Some(confirmed) = confirmed {
                confirmed.await;
            }
            let Some(token) = token else { return Ok(()) };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            state.temporary.spend(&*state.bus, token, channel, now).await
        };
        context.wait(allowed.into_actor(self).map(move |allowed, session, context| {
            match allowed {
                Ok(()) => session.switched(from, to, context),
                Err(why) => {
                    session.reply(ActionOutcome::Denied);
                    session.note_rejected(&[to.as_str()], "temporary_token");
                    debug!(reason:? = why; "a temporary token opens no channel");
                }
            }
            drop(hold);
        }));
    }

    fn switched(&mut self, from: Option<ChannelName>, to: ChannelName, context: &mut SessionContext<Self>) {
        if let Some(from) = from {
            self.socket.unsubscribe(&from);
        }
        let tag = self.protocol.tag();
        let reply = self.protocol.reply(ActionOutcome::Done);
        match self.socket.subscribe(vec![to], tag, reply) {
            None => self.follow(context),
            Some(wait) => context.wait(wait.into_actor(self).map(|_, session, context| session.follow(context))),
        }
    }

    /// Publish what the dialect has made; the client's next message is handled when the bus has taken it.
    pub(super) fn publish(&mut self, command: Command, context: &mut SessionContext<Self>) {
        let Some(app) = self.socket.app() else { return };
        let (bus, envelope) = (self.state.bus.clone(), Envelope { app, command });
        let published = async move { bus.publish(envelope).await }.into_actor(self);
        context.wait(published.map(|result, session, _| {
            session.state.metrics.said(result.is_ok());
            session.reply(if result.is_ok() { ActionOutcome::Done } else { ActionOutcome::Failed });
        }));
    }

    /// Tell the dialect which of its sockets are on a channel.
    pub(super) fn list_sockets(&mut self, channel: ChannelName, most: u32, context: &mut SessionContext<Self>) {
        let Some(app) = self.socket.app() else { return };
        let dialect = Some(self.state.encodings.at(self.encoding).dialect.name().to_owned());
        let (bus, query) = (self.state.bus.clone(), SocketsQuery { app, channel, dialect, most });
        let listed = async move { bus.sockets_on(query).await }.into_actor(self);
        context.wait(listed.map(|listed, session, context| {
            let listed = listed.map(|gathered| gathered.result).unwrap_or_else(|_| SocketTags::new());
            session.reply(ActionOutcome::Sockets(&listed));
            session.follow(context);
        }));
    }

    /// Do what the dialect wants to be done next.
    pub(super) fn follow(&mut self, context: &mut SessionContext<Self>) {
        if let Some(action) = self.protocol.next() {
            self.act(action, context);
        }
    }
}
