//! What one node asks another: an errand, not a query of a backend. Answered by the one node that is asked.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    channel::ChannelPattern,
    ids::{AppId, ChannelKey, ChannelName, NodeId, UserId},
    query::MemberInfos,
};

/// Asked of one slave.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub enum NodeRequest {
    /// To the slave that issued it: what does this reference to a connection token stand for? A one-time token of the app
    /// is used up by it; one of another app is not.
    Redeem {
        /// The reference.
        token: String,
        /// The app that its bearer wants to enter.
        app: AppId,
    },
    /// To the coordinator of these channels: who are their members, as far as it has announced them? Channels that it
    /// does not coordinate, or not yet, are left out of the answer.
    MemberLists(Vec<ChannelKey>),
    /// To any slave: issue a temporary token and remember it. Only that slave ever says what has become of it.
    MintToken {
        /// The app that it is for.
        app: AppId,
        /// The one channel that it opens; `None`: it opens none.
        channel: Option<ChannelName>,
        /// How long it is valid, in milliseconds.
        ttl_millis: u64,
    },
    /// To the slave that issued it: is this temporary token of the app still valid?
    CheckToken {
        /// The token.
        token: String,
        /// The app.
        app: AppId,
    },
    /// To the slave that issued it: does this temporary token open that channel? If it does, it is used up; else nothing
    /// becomes of it.
    SpendToken {
        /// The token.
        token: String,
        /// The channel.
        channel: ChannelKey,
    },
    /// To the coordinator of the channel: which slaves have sockets on it?
    Claimants(ChannelKey),
}

/// What it answers.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub enum NodeResponse {
    /// What a reference stands for; `None` if it is unknown, expired or used up.
    Redeemed(Option<Bearer>),
    /// Members by channel.
    MemberLists(BTreeMap<ChannelKey, MemberInfos>),
    /// A temporary token; `None`: there is no room for one.
    Minted(Option<String>),
    /// Whether a temporary token is valid for what was asked.
    TokenIsValid(bool),
    /// The slaves with sockets on a channel; `None`: the node does not coordinate it, or not yet.
    Claimants(Option<Vec<NodeId>>),
}

/// Whom a connection token lets in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Bearer {
    /// The user.
    pub user: UserId,
    /// The one app that it may enter.
    pub app: AppId,
    /// The patterns of channels that it may subscribe to.
    pub channels: Vec<ChannelPattern>,
    /// The remote commands that it may send.
    pub remotes: Vec<String>,
}

impl NodeRequest {
    /// The answer of a node that knows nothing of it.
    #[must_use]
    pub fn nothing(&self) -> NodeResponse {
        match self {
            Self::Redeem { .. } => NodeResponse::Redeemed(None),
            Self::MemberLists(_) => NodeResponse::MemberLists(BTreeMap::new()),
            Self::MintToken { .. } => NodeResponse::Minted(None),
            Self::CheckToken { .. } | Self::SpendToken { .. } => NodeResponse::TokenIsValid(false),
            Self::Claimants(_) => NodeResponse::Claimants(None),
        }
    }
}

/// Never shows a token.
impl fmt::Debug for NodeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redeem { app, .. } => f.debug_tuple("Redeem").field(app).finish(),
            Self::MemberLists(channels) => f.debug_tuple("MemberLists").field(channels).finish(),
            Self::MintToken { app, channel, ttl_millis } => {
                f.debug_tuple("MintToken").field(app).field(channel).field(ttl_millis).finish()
            }
            Self::CheckToken { app, .. } => f.debug_tuple("CheckToken").field(app).finish(),
            Self::SpendToken { channel, .. } => f.debug_tuple("SpendToken").field(channel).finish(),
            Self::Claimants(channel) => f.debug_tuple("Claimants").field(channel).finish(),
        }
    }
}

/// Never shows a token.
impl fmt::Debug for NodeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redeemed(bearer) => f.debug_tuple("Redeemed").field(bearer).finish(),
            Self::MemberLists(lists) => f.debug_tuple("MemberLists").field(lists).finish(),
            Self::Minted(token) => f.debug_tuple("Minted").field(&token.is_some()).finish(),
            Self::TokenIsValid(valid) => f.debug_tuple("TokenIsValid").field(valid).finish(),
            Self::Claimants(nodes) => f.debug_tuple("Claimants").field(nodes).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_ever_shown() {
        let (token, app): (_, AppId) = ("hush".to_owned(), "shop".parse().unwrap());
        let channel = ChannelKey { app: app.clone(), name: "news".parse().unwrap() };
        let requests = [
            NodeRequest::Redeem { token: token.clone(), app: app.clone() },
            NodeRequest::CheckToken { token: token.clone(), app },
            NodeRequest::SpendToken { token: token.clone(), channel },
        ];
        let shown = format!("{requests:?} {:?}", NodeResponse::Minted(Some(token)));
        assert!(!shown.contains("hush") && shown.contains("shop") && shown.contains("Minted(true)"), "{shown}");
    }
}
