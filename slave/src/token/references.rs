//! What references stand for, kept by the slave that issued them: bounded in bytes, and per user in number. Pure.
//!
//! Each took a valid JWT to make, so that it is users who can fill the memory, by asking again and again. Equal grants
//! are kept once. A user has a small number of references, of which the oldest goes first; a socket is opened within
//! moments of asking. Anonymous users cannot be told apart, and a crowd of them is no more than a crowd: no number
//! limits them, but when the memory is full their oldest references make room, for whoever it is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::size_of,
    sync::Arc,
};

use wellhead_proto::{
    channel::ChannelPattern,
    ids::{AppId, UserId},
    jwt::BadToken,
    node_request::Bearer,
};

/// References whose time is over are looked for at most so often, in milliseconds, when there is no room.
const SWEEP: u64 = 1_000;

/// What a reference costs besides its names and its grants: its places in the maps, and what the allocator adds.
const REFERENCE: usize = 512;

/// What a pattern costs besides its text: its place in the list, its counters, and what the allocator adds.
const PATTERN: usize = size_of::<ChannelPattern>() + 32;

/// What sockets may subscribe to.
type GrantList = Arc<[ChannelPattern]>;

/// References, and what they stand for.
pub struct References {
    kept: HashMap<u128, Kept>,
    /// The references of each user, oldest first.
    users: HashMap<(AppId, UserId), Vec<u128>>,
    /// Those of anonymous users of all apps, by their number: oldest first.
    nobodys: BTreeMap<u64, u128>,
    /// Each list of grants once.
    grants: HashSet<GrantList>,
    /// The number of the next.
    next: u64,
    /// What it all costs.
    bytes: usize,
    most_bytes: usize,
    most_per_user: usize,
    /// When those whose time is over were looked for last.
    swept: u64,
}

struct Kept {
    app: AppId,
    user: UserId,
    grants: GrantList,
    remotes: Box<[String]>,
    number: u64,
    /// Milliseconds since 1970.
    until: u64,
}

/// There is no room for another reference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom;

impl References {
    /// None yet; at most so many bytes, and so many for each user.
    pub fn new(most_bytes: usize, most_per_user: usize) -> Self {
        Self {
            kept: HashMap::new(),
            users: HashMap::new(),
            nobodys: BTreeMap::new(),
            grants: HashSet::new(),
            next: 0,
            bytes: 0,
            most_bytes,
            most_per_user: most_per_user.max(1),
            swept: 0,
        }
    }

    /// Keep what `id` stands for. Times are milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// There is no room.
    pub fn keep(&mut self, id: u128, bearer: Bearer, until: u64, now: u64) -> Result<(), NoRoom> {
        let Bearer { app, user, channels, remotes } = bearer;
        if let Some(own) = self.users.get(&(app.clone(), user.clone()))
            && own.len() >= self.most_per_user
        {
            let oldest = own[0];
            self.remove(oldest);
        }
        let fixed = cost(&app, &user, &remotes);
        let grants = loop {
            let held = self.grants.get(channels.as_slice()).cloned();
            let more = fixed + held.as_ref().map_or_else(|| cost_of(&channels), |_| 0);
            if self.bytes + more <= self.most_bytes {
                self.bytes += more;
                break held.unwrap_or_else(|| {
                    let grants = GrantList::from(channels);
                    self.grants.insert(grants.clone());
                    grants
                });
            }
            // or it would seem to be held by a reference
            drop(held);
            self.make_room(now)?;
        };
        let number = self.next;
        self.next += 1;
        if user.is_nobody() {
            self.nobodys.insert(number, id);
        } else {
            self.users.entry((app.clone(), user.clone())).or_default().push(id);
        }
        self.kept.insert(id, Kept { app, user, grants, remotes: remotes.into(), number, until });
        Ok(())
    }

    /// What `id` stands for, at `now`; if that is somebody of the app `once`, it stands for nothing afterwards.
    ///
    /// # Errors
    ///
    /// Nothing, or its time is over.
    pub fn redeem(&mut self, id: u128, once: Option<&AppId>, now: u64) -> Result<Bearer, BadToken> {
        let Kept { app, user, grants, remotes, until, .. } = self.kept.get(&id).ok_or(BadToken::Used)?;
        let live = *until > now;
        let bearer = live.then(|| Bearer {
            app: app.clone(),
            user: user.clone(),
            channels: grants.to_vec(),
            remotes: remotes.to_vec(),
        });
        if !live || bearer.as_ref().zip(once).is_some_and(|(bearer, app)| bearer.app == *app) {
            self.remove(id);
        }
        bearer.ok_or(BadToken::Expired)
    }

    /// Forget those whose time is over.
    pub fn sweep(&mut self, now: u64) {
        self.swept = now;
        let over: Vec<_> = self.kept.iter().filter(|(_, kept)| kept.until <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.remove(id);
        }
        self.kept.shrink_to(2 * self.kept.len());
        self.users.shrink_to(2 * self.users.len());
        self.grants.shrink_to(2 * self.grants.len());
    }

    /// Let something go for another.
    fn make_room(&mut self, now: u64) -> Result<(), NoRoom> {
        let before = self.kept.len();
        if now.abs_diff(self.swept) >= SWEEP {
            self.sweep(now);
        }
        if self.kept.len() < before {
            return Ok(());
        }
        let (_, &oldest) = self.nobodys.first_key_value().ok_or(NoRoom)?;
        self.remove(oldest);
        Ok(())
    }

    fn remove(&mut self, id: u128) {
        let Some(Kept { app, user, grants, remotes, number, .. }) = self.kept.remove(&id) else { return };
        self.bytes -= cost(&app, &user, &remotes);
        // the set has one, we have one
        if Arc::strong_count(&grants) == 2 {
            self.bytes -= cost_of(&grants);
            self.grants.remove(&grants);
        }
        if user.is_nobody() {
            self.nobodys.remove(&number);
            return;
        }
        let key = (app, user);
        if let Some(own) = self.users.get_mut(&key) {
            own.retain(|&other| other != id);
            if own.is_empty() {
                self.users.remove(&key);
            }
        }
    }
}

/// What a reference costs; its grants are counted once for all.
fn cost(app: &AppId, user: &UserId, remotes: &[String]) -> usize {
    let remotes: usize = remotes.iter().map(|command| PATTERN + command.len()).sum();
    REFERENCE + 2 * (app.as_str().len() + user.as_str().len()) + remotes
}

/// What a list of grants costs.
fn cost_of(grants: &[ChannelPattern]) -> usize {
    grants.iter().map(|pattern| PATTERN + pattern.as_str().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppId {
        "app".parse().unwrap()
    }

    /// A list of 3,000 patterns: what a JWT of 32 KB holds.
    fn many(kind: &str) -> Vec<ChannelPattern> {
        (0..3_000).map(|n| format!("{kind}-{n}").as_str().try_into().unwrap()).collect()
    }

    fn bearer(user: &str, channels: &[ChannelPattern]) -> Bearer {
        Bearer {
            app: "app".parse().unwrap(),
            user: user.parse().unwrap(),
            channels: channels.to_vec(),
            remotes: Vec::new(),
        }
    }

    #[test]
    fn equal_grants_are_counted_and_kept_once() {
        let mut references = References::new(64 << 20, 64);
        let channels = many("room");
        for user in 0..10_000 {
            references.keep(user, bearer(&format!("user-{user}"), &channels), 100, 0).unwrap();
        }
        assert_eq!(references.grants.len(), 1);
        let (copy, names) = (cost_of(&channels), 2 * ("app".len() + "user-9999".len()));
        assert!(references.bytes <= copy + 10_000 * (REFERENCE + names), "{}", references.bytes);
        assert!(references.bytes < 6 << 20, "{}: one copy, not 10,000", references.bytes);
        let one = references.redeem(5, None, 99).unwrap();
        assert_eq!((one.user.as_str(), one.channels.len()), ("user-5", 3_000));
        for user in 0..10_000 {
            references.redeem(user, Some(&app()), 99).unwrap();
        }
        assert_eq!((references.bytes, references.grants.len(), references.users.len()), (0, 0, 0));
    }

    #[test]
    fn the_bytes_are_bounded_whatever_users_hold() {
        const MOST: usize = 2 << 20;
        let mut references = References::new(MOST, 64);
        let mut kept = 0;
        for user in 0..1_000 {
            let channels = many(&format!("room-of-{user}"));
            if references.keep(user, bearer(&format!("user-{user}"), &channels), 100, 0) == Err(NoRoom) {
                break;
            }
            kept += 1;
        }
        assert!((8..16).contains(&kept), "{kept} of some 180 KiB each");
        assert!(references.bytes <= MOST);
        // who was there first stays, until the time is over
        assert!(references.redeem(0, None, 50).is_ok());
        let late = bearer("late", &many("room-of-the-late"));
        assert_eq!(references.keep(2_000, late.clone(), 5_000, 50), Err(NoRoom));
        assert_eq!(references.keep(2_000, late, 5_000, 2_000), Ok(()));
        assert_eq!(references.kept.len(), 1);
        // nor does a single one fit that is larger than everything
        let mut small = References::new(10_000, 64);
        assert_eq!(small.keep(1, bearer("ann", &many("room")), 100, 0), Err(NoRoom));
        assert_eq!((small.bytes, small.kept.len()), (0, 0));
    }

    #[test]
    fn grants_go_with_the_last_reference_to_them_also_when_they_make_room_for_themselves() {
        let channels = many("room");
        let mut references = References::new(cost_of(&channels) + REFERENCE + 2 * "app".len(), 3);
        for id in 0..10 {
            references.keep(id, bearer("", &channels), 100, 0).unwrap();
            assert_eq!((references.kept.len(), references.grants.len()), (1, 1));
        }
        references.redeem(9, Some(&app()), 1).unwrap();
        assert_eq!((references.bytes, references.grants.len()), (0, 0));
    }

    #[test]
    fn the_oldest_of_a_user_goes_first_and_nobody_elses() {
        let mut references = References::new(64 << 20, 3);
        references.keep(100, bearer("bob", &[]), 100, 0).unwrap();
        for id in 0..10 {
            references.keep(id, bearer("ann", &[]), 100, 0).unwrap();
        }
        for id in 0..7 {
            assert_eq!(references.redeem(id, None, 1), Err(BadToken::Used), "{id}");
        }
        for id in [7, 8, 9, 100] {
            assert!(references.redeem(id, None, 1).is_ok(), "{id}");
        }
        // one that is used up makes room
        references.redeem(8, Some(&app()), 1).unwrap();
        references.keep(10, bearer("ann", &[]), 100, 1).unwrap();
        assert!(references.redeem(7, None, 1).is_ok());
    }

    #[test]
    fn anonymous_users_are_a_crowd_that_never_locks_out_a_named_one() {
        let most = 100 * (REFERENCE + 2 * "app".len());
        let mut references = References::new(most, 3);
        for id in 0..1_000 {
            references.keep(id, bearer("", &[]), 100, 0).unwrap();
        }
        assert_eq!(references.kept.len(), 100);
        assert_eq!(references.redeem(899, None, 1), Err(BadToken::Used));
        assert!(references.redeem(900, None, 1).is_ok());
        for id in 1_000..1_050 {
            references.keep(id, bearer(&format!("{id}"), &[]), 100, 0).unwrap();
        }
        assert!((1_000..1_050).all(|id| references.redeem(id, None, 1).is_ok()));
        assert!(references.bytes <= most);
        references.sweep(100);
        assert_eq!((references.bytes, references.kept.len(), references.nobodys.len()), (0, 0, 0));
    }
}
