//! The only way from one node to another. Every implementation keeps the same promises; `tests/it/bus_contract.rs` tests
//! them.

use std::{any::Any, collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration, vec};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    command::PublishMatching,
    coordination::CoordinationMessage,
    envelope::Envelope,
    ids::{AppId, ChannelKey, ChannelName, NodeId, UserId},
    member::MemberAnnouncement,
    node_request::{Bearer, NodeRequest, NodeResponse},
    query::{
        MemberInfos, NameHashes, Names, OccupiedQuery, Query, QueryResult, ResultPart, SocketTags, SocketsQuery,
        TypedQuery,
    },
};

/// Carries envelopes to slaves and answers back. At most once; keeps no history.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Hand `envelope` to every node that wants it; returns once the bus has accepted it. Envelopes that one task publishes one
    /// after the other reach each node in that order.
    ///
    /// # Errors
    ///
    /// The bus is down or stays full: then nobody gets the envelope, unless the bus went down while it was handed over.
    async fn publish(&self, envelope: Envelope) -> Result<(), BusError> {
        self.publish_all(vec![envelope]).await
    }

    /// The same for several, in order; returns once the bus has accepted all.
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`]; the first of them may have been handed over.
    async fn publish_all(&self, envelopes: Vec<Envelope>) -> Result<(), BusError>;

    /// Publish to every channel that a pattern matches; back once the bus has it, with the hashes of the names that match.
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`].
    async fn publish_matching(&self, push: PublishMatching) -> Result<Gathered<NameHashes>, BusError>;

    /// Tell the slaves that have members there how the members of channels have changed, in order; back once the bus has it
    /// all.
    ///
    /// # Errors
    ///
    /// As [`Bus::publish_all`].
    async fn announce(&self, announcements: Vec<MemberAnnouncement>) -> Result<(), BusError>;

    /// Ask every slave; returns their answers, merged, when all have answered or the deadline has passed. The result is
    /// of the kind that the query asks for: see [`dyn Bus::query`](#method.query).
    ///
    /// # Errors
    ///
    /// The bus is down.
    async fn gather(&self, query: Query) -> Result<Gathered<QueryResult>, BusError>;

    /// Ask the slaves that have sockets on `channel`, and no others where the bus can tell them apart. Who subscribed before
    /// this is called is in the result. A bus of one slave asks that one.
    ///
    /// # Errors
    ///
    /// The bus is down.
    async fn gather_on(&self, channel: &ChannelKey, query: Query) -> Result<Gathered<QueryResult>, BusError> {
        let _ = channel;
        self.gather(query).await
    }

    /// Ask one slave.
    ///
    /// # Errors
    ///
    /// The bus is down, or the slave does not answer in time.
    async fn request(&self, node: NodeId, request: NodeRequest) -> Result<NodeResponse, BusError>;

    /// Receive the pushes of `channel` for as long as the interest lives (and a little longer). `None` if this bus delivers
    /// everything anyway.
    fn interest(&self, channel: &ChannelKey) -> Option<Interest>;

    /// Receive what is for `user` of `app` for as long as the interest lives (and a little longer): pushes, and commands that
    /// change what the user may do. `None` if this bus delivers everything anyway.
    fn user_interest(&self, app: &AppId, user: &UserId) -> Option<Interest> {
        let _ = (app, user);
        None
    }

    /// The same without anything to hold, for users who are connected: it ends when [`Bus::release_user`] has been called as
    /// often.
    fn retain_user(&self, app: &AppId, user: &UserId) {
        let _ = (app, user);
    }

    /// One [`Bus::retain_user`] ends.
    fn release_user(&self, app: &AppId, user: &UserId) {
        let _ = (app, user);
    }

    /// Tell another slave something about channels that it keeps. May be lost with either node, never overtaken.
    fn report(&self, to: NodeId, reports: Vec<CoordinationMessage>);

    /// From now on `inbox` handles what this node receives.
    fn attach(&self, inbox: Arc<dyn BusHandler>);

    /// The state of the bus, as it changes.
    fn state(&self) -> watch::Receiver<BusState>;

    /// By how many milliseconds the clock of this node is ahead of that of `node` (behind it, if less than 0), as far as
    /// that is known and is to be allowed for.
    fn clock_ahead_of(&self, node: NodeId) -> i64 {
        let _ = node;
        0
    }

    /// Is it up? While it is not, nothing is accepted.
    fn is_up(&self) -> bool {
        self.state().borrow().serves()
    }
}

impl dyn Bus + '_ {
    /// Ask every slave, as [`Bus::gather`] does, and get the result as its own type.
    ///
    /// # Errors
    ///
    /// As [`Bus::gather`].
    pub async fn query<Q: TypedQuery>(&self, query: Q) -> Result<Gathered<Q::Result>, BusError> {
        let Gathered { result, missing } = self.gather(query.into()).await?;
        let result = ResultPart::from_result(result).ok_or(BusError::OtherKind)?;
        Ok(Gathered { result, missing })
    }

    /// Ask `issuer` what a reference to a connection token stands for ([`NodeRequest::Redeem`]).
    ///
    /// # Errors
    ///
    /// As [`Bus::request`].
    pub async fn redeem(&self, issuer: NodeId, token: String, app: AppId) -> Result<Option<Bearer>, BusError> {
        match self.request(issuer, NodeRequest::Redeem { token, app }).await? {
            NodeResponse::Redeemed(bearer) => Ok(bearer),
            _ => Err(BusError::OtherKind),
        }
    }

    /// Ask `coordinator` for the members of its channels ([`NodeRequest::MemberLists`]).
    ///
    /// # Errors
    ///
    /// As [`Bus::request`].
    pub async fn member_lists(
        &self,
        coordinator: NodeId,
        channels: Vec<ChannelKey>,
    ) -> Result<BTreeMap<ChannelKey, MemberInfos>, BusError> {
        match self.request(coordinator, NodeRequest::MemberLists(channels)).await? {
            NodeResponse::MemberLists(lists) => Ok(lists),
            _ => Err(BusError::OtherKind),
        }
    }

    /// Is anybody on a channel? And which slaves have not said ([`Bus::gather_on`]).
    ///
    /// # Errors
    ///
    /// As [`Bus::gather_on`].
    pub async fn is_occupied(&self, query: OccupiedQuery) -> Result<Gathered<bool>, BusError> {
        let channel = ChannelKey { app: query.app.clone(), name: query.channel.clone() };
        let Gathered { result, missing } = self.gather_on(&channel, query.into()).await?;
        let names: Names = ResultPart::from_result(result).ok_or(BusError::OtherKind)?;
        Ok(Gathered { result: !names.is_empty(), missing })
    }

    /// The sockets that are on a channel, and which slaves have not said ([`Bus::gather_on`]).
    ///
    /// # Errors
    ///
    /// As [`Bus::gather_on`].
    pub async fn sockets_on(&self, query: SocketsQuery) -> Result<Gathered<SocketTags>, BusError> {
        let channel = ChannelKey { app: query.app.clone(), name: query.channel.clone() };
        let Gathered { result, missing } = self.gather_on(&channel, query.into()).await?;
        let result = ResultPart::from_result(result).ok_or(BusError::OtherKind)?;
        Ok(Gathered { result, missing })
    }

    /// Have `issuer` issue a temporary token ([`NodeRequest::MintToken`]); `None`: it has no room for one.
    ///
    /// # Errors
    ///
    /// As [`Bus::request`].
    pub async fn mint_token(
        &self,
        issuer: NodeId,
        app: AppId,
        channel: Option<ChannelName>,
        ttl: Duration,
    ) -> Result<Option<String>, BusError> {
        let ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        match self.request(issuer, NodeRequest::MintToken { app, channel, ttl_millis }).await? {
            NodeResponse::Minted(token) => Ok(token),
            _ => Err(BusError::OtherKind),
        }
    }

    /// Ask `issuer` about a temporary token: [`NodeRequest::CheckToken`] or [`NodeRequest::SpendToken`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request`].
    pub async fn ask_about_token(&self, issuer: NodeId, request: NodeRequest) -> Result<bool, BusError> {
        match self.request(issuer, request).await? {
            NodeResponse::TokenIsValid(valid) => Ok(valid),
            _ => Err(BusError::OtherKind),
        }
    }
}

/// The state of the bus, as a node sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BusState {
    /// Connected, with everything that is listened to confirmed.
    pub up: bool,
    /// All live nodes are known, as far as can be told: queries need not wait.
    pub roster_known: bool,
    /// The live slaves, in ascending order.
    pub slaves: Arc<[NodeId]>,
    /// The other nodes have another secret: this one, which came last, serves nobody.
    pub stranger: bool,
}

impl BusState {
    /// Is anything accepted?
    #[must_use]
    pub fn serves(&self) -> bool {
        self.up && !self.stranger
    }
}

/// Interest in the pushes of a channel or a user; it ends when this is dropped.
pub struct Interest {
    /// Keeps the interest alive.
    pub hold: Hold,
    /// Resolves once no later push can be missed; `None` if that is so already.
    pub confirmed: Option<BoxFuture<()>>,
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest").field("confirmed", &self.confirmed.is_none()).finish()
    }
}

/// Keeps something alive that the bus holds.
pub type Hold = Arc<dyn Any + Send + Sync>;

/// Handles what a slave receives from the bus. Called on whatever thread the bus runs, so it must not block: it passes on to
/// the threads that hold the sockets.
pub trait BusHandler: Send + Sync {
    /// Carry out `envelope`. Envelopes handed over one after the other are carried out in that order, channel by channel.
    fn deliver(&self, envelope: Envelope);

    /// The same for the first of `envelopes`, as many as there is room for and at most `most`; the others stay.
    fn deliver_some(&self, envelopes: &mut vec::IntoIter<Envelope>, most: usize) {
        for _ in 0..most {
            if !self.has_room() {
                return;
            }
            let Some(envelope) = envelopes.next() else { return };
            self.deliver(envelope);
        }
    }

    /// Is there room for more deliveries? Asked before each.
    fn has_room(&self) -> bool;

    /// Resolves once there is room again.
    fn room(&self) -> BoxFuture<()>;

    /// Publish to every channel of this node that a pattern matches; the hashes of their names.
    fn publish_matching(&self, push: PublishMatching) -> BoxFuture<NameHashes>;

    /// The members of a channel have changed. Obeyed in the order of the calls, also with what is delivered on the channel.
    fn announced(&self, announcement: MemberAnnouncement);

    /// Answer `query` from what this node holds.
    fn query(&self, query: Query) -> BoxFuture<QueryResult>;

    /// Answer another node.
    fn request(&self, request: NodeRequest) -> NodeResponse;

    /// Another slave tells something about channels that this one coordinates.
    fn report(&self, from: NodeId, reports: Vec<CoordinationMessage>);

    /// The number that the next socket of this node gets.
    fn opened(&self) -> u32;

    /// This node missed pushes, or may have: its sockets are to be told.
    fn gap(&self, gap: Gap);
}

/// Pushes that this node missed, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gap {
    /// This node was too slow for the bus: what waited for it was dropped.
    TooSlow,
    /// Another node pushed something that did not arrive, because one of the two had no connection.
    Missed {
        /// Who pushed.
        from: NodeId,
        /// How many messages.
        lost: usize,
        /// Sockets that were opened later missed nothing.
        opened_before: Option<u32>,
    },
    /// Another node may have pushed while this one received nothing, and does not answer whether it did.
    Unknown {
        /// Who.
        from: NodeId,
        /// Sockets that were opened later missed nothing.
        opened_before: Option<u32>,
    },
}

impl Gap {
    /// Its name in logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TooSlow => "too slow",
            Self::Missed { .. } => "missed",
            Self::Unknown { .. } => "unknown",
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => write!(f, "this node was too slow for the bus, which dropped what waited for it"),
            Self::Missed { from, lost, .. } => {
                write!(f, "{lost} pushes of node {from} did not come: one of the two had no connection")
            }
            Self::Unknown { from, .. } => {
                write!(f, "this node had no connection, and node {from} does not say what it pushed meanwhile")
            }
        }
    }
}

/// What slaves answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered<T> {
    /// All answers in one.
    pub result: T,
    /// Live slaves that did not answer.
    pub missing: Vec<NodeId>,
}

/// A future that another thread may drive.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why the bus accepted nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BusError {
    /// Not connected, or shutting down.
    #[error("the bus is down")]
    Down,
    /// Its queues stayed full for as long as a publisher may wait.
    #[error("the bus is overloaded")]
    Full,
    /// The other nodes have another secret.
    #[error("the other nodes have another cluster.secret")]
    Stranger,
    /// Larger than it carries.
    #[error("larger than the {limit} bytes that the bus carries")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The node that was asked did not answer.
    #[error("the node did not answer in time")]
    Silent,
    /// What was answered is not what was asked.
    #[error("an answer of another kind than the question")]
    OtherKind,
}
