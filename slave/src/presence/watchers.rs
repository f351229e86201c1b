//! Which sockets of this thread watch which users, and what each was told of them. Pure. A socket is told the difference
//! between how the users stand and what it was told before: so whatever happens until its turn comes is one frame, and nothing
//! is told twice. A socket that watches nobody has nothing here.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;
use wellhead_proto::ids::{AppId, UserId};

use super::UserStanding;

/// How long a socket waits to be told of all its users in one frame. Then it is told of those who are known.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// All of them. Sockets are known by their numbers in the node.
#[derive(Default)]
pub struct Watchers {
    users: Slab<WatchedUser>,
    by_user: HashMap<(AppId, UserId), u32, RandomState>,
    sockets: FxHashMap<u32, Watcher>,
    /// Sockets for which there may be news, in the order in which they are told.
    stale: VecDeque<u32>,
    /// Sockets that were told nothing yet, and since when.
    waiting: VecDeque<(Instant, u32)>,
}

struct WatchedUser {
    app: AppId,
    user: UserId,
    online: Option<bool>,
    /// The change with which it came to be so.
    number: u64,
    by: SmallVec<[u32; 2]>,
}

struct Watcher {
    watched: Box<[Watched]>,
    /// It was told nothing yet: first all of its users are to be known. Since when it waits for that.
    new_since: Option<Instant>,
    is_stale: bool,
}

/// A user as one socket watches it.
struct Watched {
    user: u32,
    /// Where the socket stands among those who watch the user.
    place: u32,
    told: Option<bool>,
}

/// What a socket is to be told.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct WatchNews {
    /// Users who are online.
    pub online: Vec<UserId>,
    /// Users who are not.
    pub offline: Vec<UserId>,
}

impl WatchNews {
    /// Is there nothing to tell?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.online.is_empty() && self.offline.is_empty()
    }
}

impl Watchers {
    /// Those of `users` whom nobody watches here, each once.
    #[must_use]
    pub fn unwatched(&self, app: &AppId, users: &[UserId]) -> Vec<UserId> {
        users.iter().filter(|user| !self.by_user.contains_key(&(app.clone(), (*user).clone()))).cloned().collect()
    }

    /// `user` is about to be watched, and stands so.
    pub fn open(&mut self, app: &AppId, user: &UserId, online: Option<bool>, number: u64) {
        let watched = WatchedUser { app: app.clone(), user: user.clone(), online, number, by: SmallVec::new() };
        let no = self.users.insert(watched) as u32;
        self.by_user.insert((app.clone(), user.clone()), no);
    }

    /// A socket watches `users` from now on, each of whom was opened, and no others. Users whom nobody watches any more.
    pub fn watch(&mut self, socket: u32, app: &AppId, users: &[UserId], now: Instant) -> Vec<UserId> {
        let before = self.sockets.remove(&socket);
        let known = users.iter().filter_map(|user| self.by_user.get(&(app.clone(), user.clone())).copied());
        let known: Vec<_> = known.collect();
        let watch = |user: u32| {
            let by = &mut self.users[user as usize].by;
            by.push(socket);
            Watched { user, place: by.len() as u32 - 1, told: None }
        };
        let watched: Box<[_]> = known.into_iter().map(watch).collect();
        if !watched.is_empty() {
            self.sockets.insert(socket, Watcher { watched, new_since: Some(now), is_stale: false });
            self.waiting.push_back((now, socket));
            self.mark(socket);
        }
        before.map(|before| self.release(before)).unwrap_or_default()
    }

    /// A socket watches nobody any more. Its app, and the users whom nobody watches now.
    pub fn unwatch(&mut self, socket: u32) -> Option<(AppId, Vec<UserId>)> {
        let watcher = self.sockets.remove(&socket)?;
        let app = self.users[watcher.watched.first()?.user as usize].app.clone();
        Some((app, self.release(watcher)))
    }

    fn release(&mut self, watcher: Watcher) -> Vec<UserId> {
        let mut unwatched = Vec::new();
        for Watched { user, place, .. } in watcher.watched {
            let by = &mut self.users[user as usize].by;
            by.swap_remove(place as usize);
            if let Some(moved) = by.get(place as usize) {
                let watcher = self.sockets.get_mut(moved);
                let watched = watcher.and_then(|watcher| watcher.watched.iter_mut().find(|other| other.user == user));
                watched.expect("who stands among those who watch a user watches it").place = place;
            } else if by.is_empty() {
                let WatchedUser { app, user, .. } = self.users.remove(user as usize);
                self.by_user.remove(&(app, user.clone()));
                unwatched.push(user);
            }
        }
        self.shrink();
        unwatched
    }

    /// What a crowd needed is given back when it has gone.
    fn shrink(&mut self) {
        if self.by_user.capacity() > 64 + 8 * self.by_user.len() {
            self.by_user.shrink_to(2 * self.by_user.len());
            self.users.shrink_to_fit();
        }
        if self.sockets.capacity() > 64 + 8 * self.sockets.len() {
            self.sockets.shrink_to(2 * self.sockets.len());
        }
    }

    /// A user stands otherwise.
    pub fn stands(&mut self, UserStanding { app, user, online, number }: UserStanding) {
        let Some(&no) = self.by_user.get(&(app, user)) else { return };
        let watched = &mut self.users[no as usize];
        if watched.number >= number {
            return;
        }
        (watched.online, watched.number) = (Some(online), number);
        for at in 0..watched.by.len() {
            let socket = self.users[no as usize].by[at];
            self.mark(socket);
        }
    }

    fn mark(&mut self, socket: u32) {
        if let Some(watcher) = self.sockets.get_mut(&socket)
            && !std::mem::replace(&mut watcher.is_stale, true)
        {
            self.stale.push_back(socket);
        }
    }

    /// It is `now`: sockets that have waited for long enough are told what is known. `true` if there are some.
    pub fn tick(&mut self, now: Instant) -> bool {
        let mut some = false;
        while let Some(&(since, socket)) = self.waiting.front() {
            if now.duration_since(since) < PATIENCE {
                break;
            }
            self.waiting.pop_front();
            // it may watch others since then, and wait for those
            if let Some(watcher) = self.sockets.get_mut(&socket).filter(|watcher| watcher.new_since == Some(since)) {
                watcher.new_since = None;
                some = true;
                self.mark(socket);
            }
        }
        some
    }

    /// Does nobody wait to be told?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stale.is_empty()
    }

    /// Who is told next, and what; and how many users were looked at.
    pub fn next(&mut self) -> Option<(u32, WatchNews, usize)> {
        let socket = self.stale.pop_front()?;
        if self.stale.is_empty() {
            self.stale.shrink_to(64);
        }
        let looked_at = self.sockets.get(&socket).map_or(0, |watcher| watcher.watched.len());
        Some((socket, self.news(socket), looked_at))
    }

    /// What a socket is to be told, which it knows from now on.
    pub fn news(&mut self, socket: u32) -> WatchNews {
        let mut news = WatchNews::default();
        let Some(watcher) = self.sockets.get_mut(&socket) else { return news };
        watcher.is_stale = false;
        let known = |watched: &Watched| self.users[watched.user as usize].online.is_some();
        if watcher.new_since.is_some() && !watcher.watched.iter().all(known) {
            return news;
        }
        watcher.new_since = None;
        for watched in &mut watcher.watched {
            let WatchedUser { user, online, .. } = &self.users[watched.user as usize];
            if *online != watched.told {
                watched.told = *online;
                match online {
                    Some(true) => news.online.push(user.clone()),
                    Some(false) => news.offline.push(user.clone()),
                    None => {}
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppId {
        "app".parse().unwrap()
    }

    fn users(names: &[&str]) -> Vec<UserId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn watch(watchers: &mut Watchers, socket: u32, names: &[&str], now: Instant) -> Vec<UserId> {
        for user in watchers.unwatched(&app(), &users(names)) {
            watchers.open(&app(), &user, None, 0);
        }
        watchers.watch(socket, &app(), &users(names), now)
    }

    fn stands(watchers: &mut Watchers, name: &str, online: bool, number: u64) {
        watchers.stands(UserStanding { app: app(), user: name.parse().unwrap(), online, number });
    }

    /// What each socket is told now.
    fn told(watchers: &mut Watchers) -> Vec<(u32, WatchNews)> {
        let all = std::iter::from_fn(|| watchers.next());
        all.filter(|(_, news, _)| !news.is_empty()).map(|(socket, news, _)| (socket, news)).collect()
    }

    fn news(online: &[&str], offline: &[&str]) -> WatchNews {
        WatchNews { online: users(online), offline: users(offline) }
    }

    #[test]
    fn a_socket_is_told_of_all_at_once_and_then_what_changes() {
        let mut watchers = Watchers::default();
        watch(&mut watchers, 1, &["ann", "bob"], Instant::now());
        stands(&mut watchers, "ann", true, 1);
        assert_eq!(told(&mut watchers), [], "bob is not known yet");
        stands(&mut watchers, "bob", false, 2);
        assert_eq!(told(&mut watchers), [(1, news(&["ann"], &["bob"]))]);
        stands(&mut watchers, "ann", false, 3);
        stands(&mut watchers, "bob", true, 4);
        stands(&mut watchers, "ann", true, 5);
        assert_eq!(told(&mut watchers), [(1, news(&["bob"], &[]))], "what is undone is not told");
        stands(&mut watchers, "bob", false, 3);
        assert_eq!(told(&mut watchers), [], "an older change than the last");
        stands(&mut watchers, "cay", true, 6);
        assert_eq!(told(&mut watchers), []);
    }

    #[test]
    fn a_socket_whose_users_do_not_become_known_is_told_of_the_others() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        watch(&mut watchers, 1, &["ann", "bob"], now);
        stands(&mut watchers, "ann", true, 1);
        assert!(!watchers.tick(now + PATIENCE / 2));
        assert_eq!(told(&mut watchers), []);
        assert!(watchers.tick(now + PATIENCE));
        assert_eq!(told(&mut watchers), [(1, news(&["ann"], &[]))]);
        stands(&mut watchers, "bob", true, 2);
        assert_eq!(told(&mut watchers), [(1, news(&["bob"], &[]))]);
        assert!(!watchers.tick(now + PATIENCE * 2) && watchers.waiting.is_empty());
    }

    #[test]
    fn who_watches_anew_is_waited_for_anew() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        watch(&mut watchers, 1, &["ann"], now);
        watch(&mut watchers, 1, &["bob", "cay"], now + PATIENCE / 2);
        stands(&mut watchers, "bob", true, 1);
        assert!(!watchers.tick(now + PATIENCE));
        assert_eq!(told(&mut watchers), []);
        assert!(watchers.tick(now + PATIENCE * 3 / 2));
        assert_eq!(told(&mut watchers), [(1, news(&["bob"], &[]))]);
    }

    #[test]
    fn who_comes_later_is_told_what_is_known_and_who_watches_anew_is_told_anew() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        watch(&mut watchers, 1, &["ann", "bob"], now);
        stands(&mut watchers, "ann", true, 1);
        stands(&mut watchers, "bob", false, 2);
        told(&mut watchers);
        watch(&mut watchers, 2, &["ann"], now);
        assert_eq!(watchers.news(2), news(&["ann"], &[]));
        assert_eq!(told(&mut watchers), []);
        assert_eq!(watch(&mut watchers, 1, &["ann"], now), users(&["bob"]));
        assert_eq!(told(&mut watchers), [(1, news(&["ann"], &[]))]);
        assert_eq!(watch(&mut watchers, 1, &[], now), []);
        assert_eq!((watchers.unwatch(1), watchers.unwatch(2)), (None, Some((app(), users(&["ann"])))));
    }

    #[test]
    fn a_crowd_of_watchers_goes_in_any_order_and_leaves_nothing() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        let names = ["a", "b", "c", "d"];
        for socket in 0..1_000 {
            watch(&mut watchers, socket, &names[..1 + socket as usize % 4], now);
        }
        for (number, name) in (1..).zip(names) {
            stands(&mut watchers, name, true, number);
        }
        assert_eq!(told(&mut watchers).len(), 1_000);
        let mut gone = Vec::new();
        for step in 0..1_000 {
            gone.extend(watchers.unwatch(step * 7 % 1_000).unwrap().1);
            if step == 500 {
                stands(&mut watchers, "a", false, 9);
                assert_eq!(told(&mut watchers).len(), 499);
            }
        }
        gone.sort();
        assert_eq!(gone, users(&names));
        assert!(watchers.users.is_empty() && watchers.by_user.is_empty() && watchers.sockets.is_empty());
        assert!(watchers.sockets.capacity() < 200 && watchers.stale.capacity() < 200);
    }

    #[test]
    fn a_watched_user_takes_little_room_in_a_socket() {
        assert!(size_of::<Watched>() + size_of::<u32>() <= 16, "docs/pusher.md says so");
    }
}
