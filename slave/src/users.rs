//! The users of this slave, each once, wherever its sockets are: a user with sockets on several worker threads is one. Each
//! thread tells when a user's first socket comes to it and when the last has gone, so the lock is taken once for a user and
//! thread, not for a socket.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
};

use foldhash::fast::RandomState;
use prometheus_client::metrics::gauge::Gauge;
use rustc_hash::FxBuildHasher;
use wellhead_proto::ids::{AppId, UserId};

/// The users, and the gauge that shows how many they are. Clones are the same.
#[derive(Clone, Default)]
pub struct Users {
    here: Arc<Mutex<Here>>,
    /// Names are kept as hashes: 8 bytes each.
    hashes: RandomState,
    /// How many there are.
    pub count: Gauge,
}

#[derive(Default)]
struct Here {
    users: HashSet<u64, FxBuildHasher>,
    /// On how many threads more than one a user is; most are on one.
    more: HashMap<u64, usize, FxBuildHasher>,
}

impl Users {
    /// The first socket of a user came to a thread.
    pub fn connected(&self, app: &AppId, user: &UserId) {
        let hash = self.hashes.hash_one((app, user));
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        if !here.users.insert(hash) {
            *here.more.entry(hash).or_default() += 1;
        }
        self.count.set(here.users.len() as i64);
    }

    /// The last socket of a user has gone from a thread.
    pub fn disconnected(&self, app: &AppId, user: &UserId) {
        let hash = self.hashes.hash_one((app, user));
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        match here.more.get_mut(&hash) {
            Some(1) => {
                here.more.remove(&hash);
            }
            Some(more) => *more -= 1,
            None => {
                here.users.remove(&hash);
            }
        }
        let users = here.users.len();
        // what a crowd needed is given back when it has gone
        if here.users.capacity() > 64 + 8 * users {
            here.users.shrink_to(2 * users);
        }
        self.count.set(users as i64);
    }

    /// Has a user a socket on this slave? Another name with the same hash is taken for it.
    pub fn is_here(&self, app: &AppId, user: &UserId) -> bool {
        let hash = self.hashes.hash_one((app, user));
        self.here.lock().unwrap_or_else(PoisonError::into_inner).users.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_on_several_threads_is_one_and_a_name_in_two_apps_is_two() {
        let users = Users::default();
        let (app, other): (AppId, AppId) = ("app".parse().unwrap(), "other".parse().unwrap());
        let (ann, bob): (UserId, UserId) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        for (came, left, count) in [
            (vec![(&app, &ann)], vec![], 1),
            (vec![(&app, &ann), (&app, &ann), (&app, &bob)], vec![], 2),
            (vec![(&other, &ann)], vec![], 3),
            (vec![], vec![(&app, &ann), (&app, &ann)], 3),
            (vec![], vec![(&app, &ann), (&app, &bob)], 1),
            (vec![], vec![(&other, &ann)], 0),
        ] {
            came.into_iter().for_each(|(app, user)| users.connected(app, user));
            left.into_iter().for_each(|(app, user)| users.disconnected(app, user));
            assert_eq!(users.count.get(), count);
        }
        users.connected(&app, &ann);
        assert!(users.is_here(&app, &ann) && !users.is_here(&other, &ann) && !users.is_here(&app, &bob));
    }

    #[test]
    fn a_crowd_that_has_gone_holds_no_memory() {
        let users = Users::default();
        let app: AppId = "app".parse().unwrap();
        let crowd: Vec<UserId> = (0..10_000).map(|number| format!("user {number}").parse().unwrap()).collect();
        crowd.iter().for_each(|user| users.connected(&app, user));
        assert_eq!(users.count.get(), 10_000);
        crowd.iter().for_each(|user| users.disconnected(&app, user));
        assert_eq!(users.count.get(), 0);
        assert!(users.here.lock().unwrap().users.capacity() < 200);
    }
}
