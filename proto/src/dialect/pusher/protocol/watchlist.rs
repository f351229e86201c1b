//! The users that a client watches (pusher.md §2.10): a list in what its backend has signed, read without building more of it
//! than is kept.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    dialect::pusher::{json::text, names},
    ids::UserId,
};

/// Users that one socket may watch. Of a longer list these are the first.
pub const MOST: usize = 100;

/// Users that a socket watches.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Watchlist {
    /// Each once, in the order of the list.
    pub users: Vec<UserId>,
    /// How many entries the list has, if those are too many.
    pub too_long: Option<usize>,
}

/// The watchlist that `list` is, with ids of at most `most` characters; else what is wrong with it. Laravel's ids are numbers.
pub fn read(list: &RawValue, most: usize) -> Result<Watchlist, String> {
    let no_list = || "Invalid user_data: watchlist must be an array of user ids".to_owned();
    let FirstEntries { first, count } = serde_json::from_str(list.get()).map_err(|_| no_list())?;
    let mut users = Vec::with_capacity(first.len());
    for entry in first {
        let id: Cow<'_, str> = match entry.get().as_bytes() {
            [b'"', ..] => text(entry).ok_or_else(no_list)?,
            [b'-' | b'0'..=b'9', ..] => entry.get().into(),
            _ => return Err("Invalid user_data: an id in watchlist must be a string or a number".to_owned()),
        };
        let user = names::user(&id, most).map_err(|why| format!("{why} (watchlist)"))?;
        if !users.contains(&user) {
            users.push(user);
        }
    }
    Ok(Watchlist { users, too_long: (count > MOST).then_some(count) })
}

/// The first entries of a list, and how many it has.
struct FirstEntries<'a> {
    first: Vec<&'a RawValue>,
    count: usize,
}

impl<'de> Deserialize<'de> for FirstEntries<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = FirstEntries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < MOST
                    && let Some(entry) = list.next_element()?
                {
                    first.push(entry);
                }
                let mut count = first.len();
                while count >= MOST && list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(FirstEntries { first, count })
            }
        }
        from.deserialize_seq(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(list: &str) -> Result<Watchlist, String> {
        read(serde_json::from_str(list).unwrap(), 128)
    }

    fn users(list: &str) -> Vec<String> {
        read_text(list).unwrap().users.into_iter().map(String::from).collect()
    }

    #[test]
    fn ids_are_strings_or_numbers_each_once() {
        assert_eq!(users(r#"["7", 7, -1.5, "\u00e4", "b/#", "7"]"#), ["7", "-1.5", "ä", "b/#"]);
        assert_eq!(users("[]"), [""; 0]);
        assert_eq!(users(&format!("[{0:?},{1:?}]", "x", "世".repeat(128))), ["x".to_owned(), "世".repeat(128)]);
    }

    #[test]
    fn what_is_no_list_of_ids_is_refused_with_its_reason() {
        for list in ["{}", "\"7\"", "7", "null", "true"] {
            assert!(read_text(list).unwrap_err().contains("watchlist must be an array"), "{list}");
        }
        for list in ["[null]", "[[]]", "[{}]", "[true]"] {
            assert!(read_text(list).unwrap_err().contains("string or a number"), "{list}");
        }
        assert!(read_text(r#"[""]"#).unwrap_err().contains("empty"));
        assert!(read_text(&format!("[{:?}]", "x".repeat(129))).unwrap_err().contains("128 characters"));
    }

    #[test]
    fn of_a_list_that_is_too_long_the_first_are_taken_and_the_others_only_counted() {
        let list = |count: usize| format!("[{}]", (0..count).map(|no| no.to_string()).collect::<Vec<_>>().join(","));
        for (count, too_long) in [(1, None), (99, None), (100, None), (101, Some(101)), (10_000, Some(10_000))] {
            let watchlist = read_text(&list(count)).unwrap();
            assert_eq!((watchlist.users.len(), watchlist.too_long), (count.min(MOST), too_long));
            assert!(watchlist.users.iter().enumerate().all(|(no, user)| user.as_str() == no.to_string()));
        }
        // what is not taken is not judged
        assert_eq!(read_text(&list(100).replace(']', ",null]")).unwrap().too_long, Some(101));
    }
}
