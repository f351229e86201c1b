//! The format of the previous release (version 3, unsigned), for as long as its nodes may be in a cluster. Here are its types
//! as they were, and how each becomes one of today and back. The release after this one deletes this module and
//! [`MessageFormat::V3`]; a type of today that is about to change its bytes is copied here first.

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use super::{BadMessage, Body, MessageFormat, NodeMessage, PushedTo};
use crate::{
    channel::ChannelPattern,
    command::{Command, PublishMatching, Target},
    coordination::{CoordinatedKey, CoordinationMessage},
    envelope::Envelope,
    event::{Event, Payload, Sender},
    fingerprint::Fingerprint,
    ids::{AppId, ChannelKey, ChannelName, EventName, NodeId, SocketId, UserId},
    member::{MemberAnnouncement, MemberChange},
    membership::Heartbeat,
    node_request::{Bearer, NodeRequest, NodeResponse},
    query::{
        ChannelState, CountQuery, GrantsQuery, Headcount, Listing, MembersQuery, NamesQuery, OccupiedQuery, Query,
        QueryResult, ResendWebhookQuery, SocketsQuery, StatesOf, StatesQuery, StatsQuery, WebhooksQuery,
    },
};

const VERSION: u8 = MessageFormat::V3 as u8;

#[derive(Deserialize, Serialize)]
struct LetterV3 {
    id: u64,
    session: u32,
    mail: MailV3,
}

#[derive(Deserialize, Serialize)]
enum MailV3 {
    Order(OldEnvelope),
    Ask { id: u64, from: NodeId, ask: Ask },
    Answer { id: u64, from: NodeId, census: CensusV3 },
    Heartbeat(OldBeat),
    Goodbye(NodeId, u64),
    Reports { from: NodeId, reports: Vec<OldReport> },
    Part { of: u64, index: u32, count: u32, bytes: Bytes },
    Hello(OldBeat),
    Settings { from: NodeId, settings: Vec<(String, Fingerprint)> },
    AskPushed { no: u64, from: NodeId, after: u64 },
    Pushed { no: u64, from: NodeId, letters: Option<Vec<(Option<u16>, u64)>> },
}

#[derive(Deserialize, Serialize)]
struct OldEnvelope {
    app: AppId,
    command: OldCommand,
}

#[derive(Deserialize, Serialize)]
enum OldCommand {
    Publish { channel: ChannelName, event: Event, except: Option<SocketId> },
    Direct { to: Target, data: Payload },
    Reload { user: UserId, within: Vec<ChannelPattern>, channels: Vec<ChannelPattern> },
    Grant { user: UserId, channel: ChannelPattern },
    Members { channel: ChannelName, change: MemberChange },
}

#[derive(Deserialize, Serialize)]
enum Ask {
    Query { app: AppId, query: OldQuery },
    PublishMatching { app: AppId, pattern: String, within: Vec<ChannelPattern>, event: Event },
    Stats,
    Redeem { token: String, app: AppId },
    Presence(Vec<ChannelKey>),
}

#[derive(Deserialize, Serialize)]
enum OldQuery {
    Channels(Vec<ChannelPattern>),
    ChannelCount(Vec<ChannelPattern>),
    Users,
    UserCount,
    UsersOf(ChannelName),
    UserCountOf(ChannelName),
    States { of: Vec<ChannelName>, members: bool },
    StatesUnder { prefix: String, members: bool },
    Members(ChannelName),
    UsersWithin(Vec<ChannelPattern>),
    UserCountWithin(Vec<ChannelPattern>),
    GrantsOf(UserId),
}

#[derive(Deserialize, Serialize)]
enum CensusV3 {
    Names(BTreeSet<String>),
    Hashes(HashSet<u64>),
    Stats(BTreeMap<AppId, Headcount>),
    Redeemed(Option<OldBearer>),
    States(BTreeMap<String, ChannelState>),
    Members(BTreeMap<UserId, ByteString>),
    Presence(BTreeMap<ChannelKey, BTreeMap<UserId, ByteString>>),
}

#[derive(Deserialize, Serialize)]
struct OldBearer {
    user: UserId,
    app: AppId,
    channels: Vec<ChannelPattern>,
}

#[derive(Deserialize, Serialize)]
struct OldBeat {
    node: NodeId,
    slave: bool,
    incarnation: u64,
    secret: Fingerprint,
    settings: Fingerprint,
    unix_millis: u64,
}

#[derive(Deserialize, Serialize)]
struct OldPost {
    channel: ChannelKey,
    member: Option<UserId>,
}

#[derive(Deserialize, Serialize)]
enum OldReport {
    Ask { no: u64 },
    Answer { no: u64 },
    Holds { post: OldPost, held: bool, epoch: u64, info: Option<Arc<str>> },
    Kept { post: OldPost, epoch: u64 },
    Announced { post: OldPost, epoch: u64 },
    Settled { slaves: Vec<NodeId>, turn: u64, heard: u64 },
}

/// One byte of version, then the struct in postcard's format.
pub(super) fn encode(message: NodeMessage) -> Vec<u8> {
    let NodeMessage { id, session, body } = message;
    let letter = LetterV3 { id, session, mail: body.into() };
    postcard::to_extend(&letter, vec![VERSION]).expect("names and payloads always encode")
}

/// The message that `bytes` hold behind their version.
pub(super) fn decode(bytes: &[u8]) -> Result<NodeMessage, BadMessage> {
    match postcard::take_from_bytes(bytes) {
        Ok((LetterV3 { id, session, mail }, [])) => Ok(NodeMessage { id, session, body: mail.into() }),
        _ => Err(BadMessage::Malformed),
    }
}

impl From<Body> for MailV3 {
    fn from(body: Body) -> Self {
        match body {
            Body::Command(Envelope { app, command }) => Self::Order(OldEnvelope { app, command: command.into() }),
            Body::Announcement(MemberAnnouncement { channel: ChannelKey { app, name }, change }) => {
                Self::Order(OldEnvelope { app, command: OldCommand::Members { channel: name, change } })
            }
            Body::PublishMatching { id, from, push: PublishMatching { app, pattern, within, event } } => {
                Self::Ask { id, from, ask: Ask::PublishMatching { app, pattern, within, event } }
            }
            Body::Query { id, from, query } => Self::Ask { id, from, ask: query.into() },
            Body::Result { id, from, result } => Self::Answer { id, from, census: result.into() },
            Body::Request { id, from, request } => {
                let ask = match request {
                    NodeRequest::Redeem { token, app } => Ask::Redeem { token, app },
                    NodeRequest::MemberLists(channels) => Ask::Presence(channels),
                    // it issues no temporary tokens and tells nobody's claims: its answer is of another kind, which is refused
                    NodeRequest::MintToken { .. }
                    | NodeRequest::CheckToken { .. }
                    | NodeRequest::SpendToken { .. }
                    | NodeRequest::Claimants(_) => Ask::Presence(Vec::new()),
                };
                Self::Ask { id, from, ask }
            }
            Body::Response { id, from, response } => {
                let census = match response {
                    NodeResponse::Redeemed(bearer) => CensusV3::Redeemed(bearer.map(Into::into)),
                    NodeResponse::MemberLists(lists) => CensusV3::Presence(lists),
                    // it asks for nothing of the kind
                    NodeResponse::Minted(_) | NodeResponse::TokenIsValid(_) | NodeResponse::Claimants(_) => {
                        CensusV3::Presence(BTreeMap::new())
                    }
                };
                Self::Answer { id, from, census }
            }
            Body::Heartbeat(beat) => Self::Heartbeat(beat.into()),
            Body::Hello(beat) => Self::Hello(beat.into()),
            Body::Goodbye(node, incarnation) => Self::Goodbye(node, incarnation),
            Body::Reports { from, reports } => {
                let reports = reports.into_iter().filter_map(CoordinationMessage::into_old).collect();
                Self::Reports { from, reports }
            }
            Body::Fragment { of, index, count, bytes } => Self::Part { of, index, count, bytes },
            Body::Settings { from, settings } => Self::Settings { from, settings },
            Body::AskPushed { no, from, after } => Self::AskPushed { no, from, after },
            Body::Pushed { no, from, messages } => {
                let old = |(to, message): (PushedTo, u64)| (to.into_old(), message);
                Self::Pushed { no, from, letters: messages.map(|messages| messages.into_iter().map(old).collect()) }
            }
        }
    }
}

impl From<MailV3> for Body {
    fn from(mail: MailV3) -> Self {
        match mail {
            MailV3::Order(OldEnvelope { app, command }) => {
                let command = match command {
                    OldCommand::Publish { channel, event, except } => Command::Publish { channel, event, except },
                    OldCommand::Direct { to, data } => Command::Direct { to, data },
                    OldCommand::Reload { user, within, channels } => Command::Reload { user, within, channels },
                    OldCommand::Grant { user, channel } => Command::Grant { user, channel },
                    OldCommand::Members { channel: name, change } => {
                        return Self::Announcement(MemberAnnouncement { channel: ChannelKey { app, name }, change });
                    }
                };
                Self::Command(Envelope { app, command })
            }
            MailV3::Ask { id, from, ask } => match ask {
                Ask::Query { app, query } => Self::Query { id, from, query: query.of(app) },
                Ask::Stats => Self::Query { id, from, query: StatsQuery.into() },
                Ask::PublishMatching { app, pattern, within, event } => {
                    Self::PublishMatching { id, from, push: PublishMatching { app, pattern, within, event } }
                }
                Ask::Redeem { token, app } => Self::Request { id, from, request: NodeRequest::Redeem { token, app } },
                Ask::Presence(channels) => Self::Request { id, from, request: NodeRequest::MemberLists(channels) },
            },
            MailV3::Answer { id, from, census } => {
                let result = match census {
                    CensusV3::Names(names) => QueryResult::Names(names),
                    CensusV3::Hashes(hashes) => QueryResult::Hashes(hashes),
                    CensusV3::Stats(apps) => QueryResult::Stats(apps),
                    CensusV3::States(states) => QueryResult::States(states),
                    CensusV3::Members(members) => QueryResult::Members(members),
                    CensusV3::Redeemed(bearer) => {
                        return Self::Response { id, from, response: NodeResponse::Redeemed(bearer.map(Into::into)) };
                    }
                    CensusV3::Presence(lists) => {
                        return Self::Response { id, from, response: NodeResponse::MemberLists(lists) };
                    }
                };
                Self::Result { id, from, result }
            }
            MailV3::Heartbeat(beat) => Self::Heartbeat(beat.into()),
            MailV3::Hello(beat) => Self::Hello(beat.into()),
            MailV3::Goodbye(node, incarnation) => Self::Goodbye(node, incarnation),
            MailV3::Reports { from, reports } => {
                Self::Reports { from, reports: reports.into_iter().map(Into::into).collect() }
            }
            MailV3::Part { of, index, count, bytes } => Self::Fragment { of, index, count, bytes },
            MailV3::Settings { from, settings } => Self::Settings { from, settings },
            MailV3::AskPushed { no, from, after } => Self::AskPushed { no, from, after },
            MailV3::Pushed { no, from, letters } => {
                let new = |(slot, letter): (Option<u16>, u64)| (slot.map_or(PushedTo::All, PushedTo::Slot), letter);
                Self::Pushed { no, from, messages: letters.map(|letters| letters.into_iter().map(new).collect()) }
            }
        }
    }
}

impl From<Command> for OldCommand {
    fn from(command: Command) -> Self {
        match command {
            Command::Publish { channel, event, except } => Self::Publish { channel, event: event.into_old(), except },
            Command::Direct { to, data } => Self::Direct { to, data },
            Command::Reload { user, within, channels } => Self::Reload { user, within, channels },
            Command::Grant { user, channel } => Self::Grant { user, channel },
            // its sockets with a user are gusher's, which hear just this; it leaves nobody out
            Command::DirectEvent { user, event, .. } => {
                Self::Direct { to: Target::User(user), data: event.to_payload() }
            }
            // it has no word for it, and keeps its sockets. It is sent a push to the channel without a name, which nobody can
            // be subscribed to, so that no number is missing: it would take that for a push that it has lost
            Command::Terminate { .. } => {
                let channel = ChannelName::try_from("").expect("a channel may have no name");
                let name = EventName::try_from("").expect("an event may have no name");
                Self::Publish { channel, event: Event::new(name, Payload::Absent), except: None }
            }
            // it has no socket of such a dialect: it is told something that reaches nobody
            Command::WithinDialect { .. } => Self::Direct { to: Target::User(UserId::nobody()), data: Payload::Absent },
        }
    }
}

impl PushedTo {
    /// As it was. The previous release takes every push to a user, and listens to no slots of users: what went to one of those
    /// passed it by.
    fn into_old(self) -> Option<u16> {
        match self {
            Self::All | Self::UserSlot(_) => None,
            Self::Slot(slot) => Some(slot),
        }
    }
}

impl From<Query> for Ask {
    fn from(query: Query) -> Self {
        let (app, query) = match query {
            Query::Names(NamesQuery { app, of }) => match of {
                Listing::Channels(within) => (app, OldQuery::Channels(within)),
                Listing::Users { within: None } => (app, OldQuery::Users),
                Listing::Users { within: Some(within) } => (app, OldQuery::UsersWithin(within)),
                Listing::UsersOf(channel) => (app, OldQuery::UsersOf(channel)),
            },
            Query::Count(CountQuery { app, of }) => match of {
                Listing::Channels(within) => (app, OldQuery::ChannelCount(within)),
                Listing::Users { within: None } => (app, OldQuery::UserCount),
                Listing::Users { within: Some(within) } => (app, OldQuery::UserCountWithin(within)),
                Listing::UsersOf(channel) => (app, OldQuery::UserCountOf(channel)),
            },
            Query::States(StatesQuery { app, of, members }) => match of {
                StatesOf::Named(of) => (app, OldQuery::States { of, members }),
                StatesOf::Under(prefix) => (app, OldQuery::StatesUnder { prefix, members }),
            },
            Query::Members(MembersQuery { app, channel }) => (app, OldQuery::Members(channel)),
            Query::Grants(GrantsQuery { app, user }) => (app, OldQuery::GrantsOf(user)),
            Query::Stats(StatsQuery) => return Self::Stats,
            // it sends none. What it is asked instead costs nothing, and its answer is of another kind: so whoever asks is
            // told that its part is missing
            Query::Webhooks(WebhooksQuery { app }) | Query::ResendWebhook(ResendWebhookQuery { app, .. }) => {
                (app, OldQuery::UserCountOf(ChannelName::try_from("").expect("a channel may have no name")))
            }
            // its answer is of another kind, which is refused: who asks learns that it did not answer
            Query::Sockets(SocketsQuery { app, .. }) | Query::Occupied(OccupiedQuery { app, .. }) => {
                (app, OldQuery::States { of: Vec::new(), members: false })
            }
        };
        Self::Query { app, query }
    }
}

impl OldQuery {
    fn of(self, app: AppId) -> Query {
        let users = |within| Listing::Users { within };
        match self {
            Self::Channels(within) => NamesQuery { app, of: Listing::Channels(within) }.into(),
            Self::ChannelCount(within) => CountQuery { app, of: Listing::Channels(within) }.into(),
            Self::Users => NamesQuery { app, of: users(None) }.into(),
            Self::UserCount => CountQuery { app, of: users(None) }.into(),
            Self::UsersOf(channel) => NamesQuery { app, of: Listing::UsersOf(channel) }.into(),
            Self::UserCountOf(channel) => CountQuery { app, of: Listing::UsersOf(channel) }.into(),
            Self::States { of, members } => StatesQuery { app, of: StatesOf::Named(of), members }.into(),
            Self::StatesUnder { prefix, members } => StatesQuery { app, of: StatesOf::Under(prefix), members }.into(),
            Self::Members(channel) => MembersQuery { app, channel }.into(),
            Self::UsersWithin(within) => NamesQuery { app, of: users(Some(within)) }.into(),
            Self::UserCountWithin(within) => CountQuery { app, of: users(Some(within)) }.into(),
            Self::GrantsOf(user) => GrantsQuery { app, user }.into(),
        }
    }
}

impl From<QueryResult> for CensusV3 {
    fn from(result: QueryResult) -> Self {
        match result {
            QueryResult::Names(names) => Self::Names(names),
            QueryResult::Hashes(hashes) => Self::Hashes(hashes),
            QueryResult::States(states) => Self::States(states),
            QueryResult::Members(members) => Self::Members(members),
            QueryResult::Stats(apps) => Self::Stats(apps),
            // nobody who reads this asked for it
            QueryResult::Webhooks(_) => Self::Hashes(HashSet::new()),
            // it asks for nothing of the kind
            QueryResult::Sockets(_) => Self::States(BTreeMap::new()),
        }
    }
}

/// Its clients send no remote commands.
impl From<Bearer> for OldBearer {
    fn from(Bearer { user, app, channels, .. }: Bearer) -> Self {
        Self { user, app, channels }
    }
}

impl From<OldBearer> for Bearer {
    fn from(OldBearer { user, app, channels }: OldBearer) -> Self {
        Self { user, app, channels, remotes: Vec::new() }
    }
}

impl Event {
    /// As it was: sockets had no numbers, and who shows one is like a backend for all others.
    fn into_old(self) -> Self {
        let sender = self.sender.filter(|sender| !matches!(sender, Sender::Numbered(_)));
        Self { sender, ..self }
    }
}

impl From<Heartbeat> for OldBeat {
    fn from(Heartbeat { node, slave, incarnation, secret, settings, unix_millis }: Heartbeat) -> Self {
        Self { node, slave, incarnation, secret, settings, unix_millis }
    }
}

impl From<OldBeat> for Heartbeat {
    fn from(OldBeat { node, slave, incarnation, secret, settings, unix_millis }: OldBeat) -> Self {
        Self { node, slave, incarnation, secret, settings, unix_millis }
    }
}

impl CoordinatedKey {
    /// As it was; `None`: the previous release knows nothing like it.
    fn into_old(self) -> Option<OldPost> {
        match self {
            Self::Channel(channel) => Some(OldPost { channel, member: None }),
            Self::Member { channel, user } => Some(OldPost { channel, member: Some(user) }),
            Self::User { .. } => None,
        }
    }
}

impl From<OldPost> for CoordinatedKey {
    fn from(OldPost { channel, member }: OldPost) -> Self {
        match member {
            None => Self::Channel(channel),
            Some(user) => Self::Member { channel, user },
        }
    }
}

impl CoordinationMessage {
    /// As it was; `None`: the previous release has no word for it, and is told nothing. It does not coordinate users, and
    /// fetches lists of members anew only when the slaves change. It tells nobody how a channel or a user stands: as long as
    /// it coordinates them, their counts are not announced, and who watches them is told nothing.
    fn into_old(self) -> Option<OldReport> {
        Some(match self {
            Self::Request { number } => OldReport::Ask { no: number },
            Self::Answer { number } => OldReport::Answer { no: number },
            Self::Claim { key, claimed, epoch, info } => {
                OldReport::Holds { post: key.into_old()?, held: claimed, epoch, info }
            }
            Self::Handover { key, epoch } => OldReport::Kept { post: key.into_old()?, epoch },
            Self::Announced { key, epoch } => OldReport::Announced { post: key.into_old()?, epoch },
            Self::Synced { slaves, round, confirmed } => OldReport::Settled { slaves, turn: round, heard: confirmed },
            Self::AnnouncementsLost | Self::Follow { .. } | Self::Told { .. } | Self::Leaving => return None,
        })
    }
}

impl From<OldReport> for CoordinationMessage {
    fn from(report: OldReport) -> Self {
        match report {
            OldReport::Ask { no } => Self::Request { number: no },
            OldReport::Answer { no } => Self::Answer { number: no },
            OldReport::Holds { post, held, epoch, info } => {
                Self::Claim { key: post.into(), claimed: held, epoch, info }
            }
            OldReport::Kept { post, epoch } => Self::Handover { key: post.into(), epoch },
            OldReport::Announced { post, epoch } => Self::Announced { key: post.into(), epoch },
            OldReport::Settled { slaves, turn, heard } => Self::Synced { slaves, round: turn, confirmed: heard },
        }
    }
}
