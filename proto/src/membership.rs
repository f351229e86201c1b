//! Which nodes are alive, and which slave coordinates a channel. Pure: the time is passed in, as a span since any fixed
//! moment.

use std::{collections::BTreeMap, hash::Hasher, time::Duration};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::{
    fingerprint::Fingerprint,
    ids::{AppId, ChannelKey, NodeId, UserId},
};

/// Between two heartbeats of a node.
pub const BEAT: Duration = Duration::from_secs(1);
/// A node that was silent for so long is forgotten.
pub const LEASE: Duration = Duration::from_secs(5);
/// Nodes on a membership at most, unless the settings say otherwise.
pub const MAX_NODES: usize = 1_024;

/// Newcomers that are let onto a membership at once, and those of each second after. Whoever is too many comes again with its
/// next heartbeat.
const NEWCOMERS: u32 = 256;
const NEWCOMERS_A_SECOND: u32 = 128;

/// What a node says about itself, at least once a second.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Heartbeat {
    /// Which node.
    pub node: NodeId,
    /// Does it hold sockets? Masters send heartbeats, too, so that two nodes of one id are noticed.
    pub slave: bool,
    /// Drawn at random when it starts: tells two nodes of one id apart, and a restarted node from its former self.
    pub incarnation: u64,
    /// Of the cluster's secret.
    pub secret: Fingerprint,
    /// Of the settings that all nodes must share.
    pub settings: Fingerprint,
    /// What its clock shows, in milliseconds since 1970.
    pub unix_millis: u64,
}

impl Heartbeat {
    /// Of a node that has told nothing of itself yet.
    #[must_use]
    pub fn new(node: NodeId, slave: bool, incarnation: u64) -> Self {
        let (secret, settings) = (Fingerprint::default(), Fingerprint::default());
        Self { node, slave, incarnation, secret, settings, unix_millis: 0 }
    }
}

/// Every node that is alive: that sent a heartbeat lately.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Membership {
    members: BTreeMap<NodeId, LiveNode>,
    /// So many may be on it.
    most: usize,
    /// Newcomers that may come now, and since when more are counted.
    newcomers: u32,
    since: Duration,
}

impl Default for Membership {
    fn default() -> Self {
        Self { members: BTreeMap::new(), most: MAX_NODES, newcomers: NEWCOMERS, since: Duration::ZERO }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct LiveNode {
    heartbeat: Heartbeat,
    heard: Duration,
}

/// What a heartbeat changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeartbeatEffect {
    /// A node that was not on the membership.
    New,
    /// One that was.
    Known,
    /// One that was, but has been restarted since.
    Restarted,
    /// A node that was not, and stays off it: it is full.
    Full,
    /// A node that was not, or one that was restarted: too many have come just now.
    Crowded,
}

impl Membership {
    /// Let at most so many nodes onto it.
    pub fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// A node was heard of. Who is known stays, whoever else comes.
    pub fn heard(&mut self, heartbeat: Heartbeat, now: Duration) -> HeartbeatEffect {
        let member = LiveNode { heartbeat, heard: now };
        let full = self.members.len() >= self.most;
        let heard = match self.members.get_mut(&heartbeat.node) {
            Some(before) if before.heartbeat.incarnation == heartbeat.incarnation => {
                *before = member;
                return HeartbeatEffect::Known;
            }
            Some(_) => HeartbeatEffect::Restarted,
            None if full => return HeartbeatEffect::Full,
            None => HeartbeatEffect::New,
        };
        if !self.has_room_for_a_newcomer(now) {
            return HeartbeatEffect::Crowded;
        }
        self.members.insert(heartbeat.node, member);
        heard
    }

    fn has_room_for_a_newcomer(&mut self, now: Duration) -> bool {
        let seconds = u32::try_from(now.saturating_sub(self.since).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.since += Duration::from_secs(seconds.into());
            self.newcomers = NEWCOMERS.min(self.newcomers.saturating_add(seconds.saturating_mul(NEWCOMERS_A_SECOND)));
        }
        let room = self.newcomers > 0;
        self.newcomers = self.newcomers.saturating_sub(1);
        room
    }

    /// A node said goodbye. `true` if it was on the membership.
    pub fn goodbye(&mut self, node: NodeId) -> bool {
        self.members.remove(&node).is_some()
    }

    /// Forget those whose lease is over; who they were.
    pub fn expire(&mut self, now: Duration) -> Vec<NodeId> {
        let dead = |member: &LiveNode| now.saturating_sub(member.heard) >= LEASE;
        let gone = self.members.values().filter(|member| dead(member)).map(|member| member.heartbeat.node).collect();
        self.members.retain(|_, member| !dead(member));
        gone
    }

    /// Nothing could be heard for a while, and now it can again: everybody gets a fresh lease.
    pub fn renew_leases(&mut self, now: Duration) {
        for member in self.members.values_mut() {
            member.heard = now;
        }
    }

    /// Slaves, in ascending order.
    pub fn slaves(&self) -> impl Iterator<Item = NodeId> {
        self.members.values().filter(|member| member.heartbeat.slave).map(|member| member.heartbeat.node)
    }

    /// Nodes that hold no sockets.
    pub fn masters(&self) -> impl Iterator<Item = NodeId> {
        self.members.values().filter(|member| !member.heartbeat.slave).map(|member| member.heartbeat.node)
    }

    /// How many nodes are on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Is nobody on it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Is `node` on it, in this incarnation?
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> Option<u64> {
        self.members.get(&node).map(|member| member.heartbeat.incarnation)
    }

    /// The slave that decides for `channel`, and its standby: the two that score highest for it (rendezvous hashing, so
    /// that a slave that comes or goes moves only its own share of the channels).
    #[must_use]
    pub fn coordinators(&self, channel: &ChannelKey) -> (Option<NodeId>, Option<NodeId>) {
        coordinators(self.slaves(), channel)
    }
}

/// The two of `slaves` that score highest for `channel`.
pub fn coordinators(slaves: impl Iterator<Item = NodeId>, channel: &ChannelKey) -> (Option<NodeId>, Option<NodeId>) {
    coordinators_at(slaves, place_of_channel(channel))
}

/// The two of `slaves` that score highest for what is hashed to `place`.
pub fn coordinators_at(slaves: impl Iterator<Item = NodeId>, place: u64) -> (Option<NodeId>, Option<NodeId>) {
    let (mut first, mut second) = (None, None);
    for node in slaves {
        let scored = Some((scatter(place ^ scatter(u64::from(u32::from(node)) + 1)), node));
        if scored > first {
            second = first;
            first = scored;
        } else if scored > second {
            second = scored;
        }
    }
    (first.map(|(_, node)| node), second.map(|(_, node)| node))
}

/// What a channel is hashed to. The same on every node.
#[must_use]
pub fn place_of_channel(channel: &ChannelKey) -> u64 {
    place(&channel.app, 0xFF, channel.name.as_str())
}

/// What a user is hashed to. The same on every node, and not what the channel of that name is.
#[must_use]
pub fn place_of_user(app: &AppId, user: &UserId) -> u64 {
    place(app, 0xFE, user.as_str())
}

/// No name holds a byte like `separator`, so no two are written alike.
fn place(app: &AppId, separator: u8, name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(app.as_str().as_bytes());
    hasher.write_u8(separator);
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// Scatters the bits (the end of splitmix64): after a change of the membership each slave scores all others for all of its
/// channels.
fn scatter(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::testkit::Golden;

    fn node(no: u32) -> NodeId {
        NodeId::from_random(no)
    }

    fn heartbeat(no: u32) -> Heartbeat {
        Heartbeat::new(node(no), true, 1)
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_lease_ends_after_five_seconds_of_silence() {
        let mut roster = Membership::default();
        assert_eq!(roster.heard(heartbeat(1), at(0)), HeartbeatEffect::New);
        assert_eq!(roster.heard(heartbeat(2), at(1_000)), HeartbeatEffect::New);
        assert_eq!(roster.heard(heartbeat(1), at(2_000)), HeartbeatEffect::Known);
        assert_eq!(roster.heard(Heartbeat { incarnation: 2, ..heartbeat(1) }, at(2_000)), HeartbeatEffect::Restarted);
        assert_eq!(roster.expire(at(5_999)), []);
        assert_eq!(roster.expire(at(6_000)), [node(2)]);
        assert!(roster.goodbye(node(1)));
        assert!(!roster.goodbye(node(1)));
        assert!(roster.is_empty());
    }

    #[test]
    fn who_is_known_stays_when_a_hundred_thousand_come() {
        let mut roster = Membership::default();
        roster.heard(heartbeat(1), at(0));
        let mut new = 1;
        for second in 0..20 {
            for no in 2..100_000 {
                new += usize::from(roster.heard(heartbeat(no), at(1_000 * second)) == HeartbeatEffect::New);
            }
            assert_eq!(roster.heard(heartbeat(1), at(1_000 * second)), HeartbeatEffect::Known);
        }
        assert_eq!((new, roster.len()), (MAX_NODES, MAX_NODES));
    }

    #[test]
    fn a_roster_takes_so_many_newcomers_and_no_more_a_second() {
        let mut roster = Membership::default();
        roster.limit(500);
        let mut come = |from: u32, count: u32, millis| {
            let heard = (from..from + count).map(|no| roster.heard(heartbeat(no), at(millis)));
            heard.filter(|heard| *heard == HeartbeatEffect::New).count()
        };
        assert_eq!(come(0, 300, 0), 256);
        assert_eq!(come(1_000, 300, 999), 0);
        assert_eq!(come(1_000, 300, 1_000), 128);
        assert_eq!(come(2_000, 300, 60_000), 116, "it is full");
        // whoever is on it stays, and is as good as before
        assert_eq!(roster.heard(heartbeat(7), at(60_000)), HeartbeatEffect::Known);
        assert_eq!(roster.heard(heartbeat(9_999), at(60_000)), HeartbeatEffect::Full);
        assert!(roster.goodbye(node(7)));
        assert_eq!(roster.heard(heartbeat(9_999), at(61_000)), HeartbeatEffect::New);
    }

    #[test]
    fn a_node_that_seems_restarted_again_and_again_stays_on_the_roster() {
        let mut roster = Membership::default();
        let restart = |incarnation| Heartbeat { incarnation, ..heartbeat(1) };
        let heard: Vec<_> = (0..1_000).map(|no| roster.heard(restart(no), at(0))).collect();
        assert_eq!(
            (heard[0], heard[1], heard[255], heard[256]),
            (HeartbeatEffect::New, HeartbeatEffect::Restarted, HeartbeatEffect::Restarted, HeartbeatEffect::Crowded)
        );
        assert_eq!(roster.incarnation(node(1)), Some(255));
        assert_eq!(roster.heard(restart(255), at(0)), HeartbeatEffect::Known);
    }

    #[test]
    fn after_an_outage_everybody_has_a_fresh_lease() {
        let mut roster = Membership::default();
        roster.heard(heartbeat(1), at(0));
        roster.heard(heartbeat(2), at(0));
        roster.renew_leases(at(20_000));
        assert_eq!(roster.expire(at(24_000)), []);
        assert_eq!(roster.heard(heartbeat(1), at(24_000)), HeartbeatEffect::Known);
        assert_eq!(roster.slaves().collect::<Vec<_>>(), [node(1), node(2)]);
        assert_eq!(roster.expire(at(25_000)), [node(2)]);
    }

    fn channel(no: u32) -> ChannelKey {
        ChannelKey { app: "app".parse().unwrap(), name: format!("channel-{no}").parse().unwrap() }
    }

    proptest! {
        #[test]
        fn a_slave_that_goes_moves_only_its_own_channels(
            slaves in proptest::collection::btree_set(0u32..50, 2..8), gone in any::<prop::sample::Index>(),
        ) {
            let all: Vec<_> = slaves.iter().map(|&no| node(no)).collect();
            let gone = all[gone.index(all.len())];
            for channel in (0..50).map(channel) {
                let (coordinator, standby) = coordinators(all.iter().copied(), &channel);
                let (after, _) = coordinators(all.iter().copied().filter(|&node| node != gone), &channel);
                prop_assert_ne!(coordinator, standby);
                prop_assert_eq!(after, if coordinator == Some(gone) { standby } else { coordinator });
            }
        }
    }

    /// Two nodes that choose differently would both decide, or neither.
    #[test]
    fn every_channel_has_the_coordinator_and_the_standby_that_it_always_had() {
        let mut golden = Golden::new("node_messages/coordinators.txt");
        for (app, name) in
            [("app", "channel-1"), ("app", "channel-2"), ("shop", "channel-1"), ("shop", ""), ("a", "中文")]
        {
            let channel = ChannelKey { app: app.parse().unwrap(), name: name.parse().unwrap() };
            let mut lines = String::new();
            for slaves in [1, 2, 3, 10] {
                let (first, second) = coordinators((0..slaves).map(|no| node(no * 77_777)), &channel);
                let shown = |node: Option<NodeId>| node.map_or_else(|| "-".to_owned(), |node| node.to_string());
                lines += &format!("of {slaves}: {}, standby {}\n", shown(first), shown(second));
            }
            golden.case(&format!("{name:?} of {app:?}"), lines);
        }
        golden.check();
    }

    #[test]
    fn channels_spread_over_slaves() {
        let kept: Vec<_> = (0..3_000).map(|no| coordinators((0..3).map(node), &channel(no)).0.unwrap()).collect();
        for slave in kept.iter().collect::<BTreeSet<_>>() {
            let share = kept.iter().filter(|coordinator| *coordinator == slave).count();
            assert!((800..1_200).contains(&share), "{share}");
        }
        assert_eq!(coordinators(std::iter::empty(), &channel(0)), (None, None));
    }

    #[test]
    fn a_user_and_the_channel_of_that_name_are_not_hashed_alike() {
        let channel = channel(0);
        let user = channel.name.as_str().parse().unwrap();
        assert_ne!(place_of_user(&channel.app, &user), place_of_channel(&channel));
    }
}
