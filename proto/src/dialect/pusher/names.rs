//! Names of channels: which are allowed, and what their beginnings mean (pusher.md §1.11, §2.5).

use crate::ids::{ChannelName, UserId};

/// Who may subscribe, and what of it is seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelKind {
    /// Everybody.
    Public,
    /// Whoever shows a signature; encrypted channels are such.
    Private,
    /// The same, and the members see each other.
    Presence,
}

impl ChannelKind {
    /// What the name says.
    pub fn of(name: &str) -> Self {
        if name.starts_with("private-") {
            Self::Private
        } else if name.starts_with("presence-") {
            Self::Presence
        } else {
            Self::Public
        }
    }
}

/// Does the channel keep its last event for newcomers?
pub fn is_cache(name: &str) -> bool {
    ["cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// What the names of the channels begin with on which users hear what is sent to them.
const TO_USER: &str = "#server-to-user-";

/// The channel on which a user hears what is sent to that user. It is none of ours: it stands in frames only.
pub fn channel_of(user: &str) -> String {
    [TO_USER, user].concat()
}

/// The user whose channel this is.
pub fn user_of(name: &str) -> Option<&str> {
    name.strip_prefix(TO_USER)
}

/// The id of a user that has signed in or is sent to, at most `most` characters long; else what is wrong with it. It may
/// have any characters.
pub fn user(id: &str, most: usize) -> Result<UserId, String> {
    if id.is_empty() {
        return Err("Invalid user id: it is empty".to_owned());
    }
    match UserId::try_from(id) {
        Ok(user) if id.chars().count() <= most => Ok(user),
        _ => Err(format!("Invalid user id: it may have {most} characters")),
    }
}

/// A name that a backend or a client may use, at most `most` bytes long; else what is wrong with it.
pub fn channel(name: &str, most: usize) -> Result<ChannelName, String> {
    if name.is_empty() {
        return Err("Invalid channel name: it is empty".to_owned());
    }
    if name.len() > most {
        return Err(format!("Invalid channel name: it is {} bytes long, at most {most} are allowed", name.len()));
    }
    if name.starts_with('#') {
        return Err(format!("Invalid channel name '{name}': names beginning with # are reserved"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte)) {
        return Err(format!("Invalid channel name '{name}': allowed are A-Z a-z 0-9 _ - = @ , . ;"));
    }
    name.try_into().map_err(|bad| format!("Invalid channel name: {bad}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_name_says_its_kind() {
        for (name, kind, cache) in [
            ("news", ChannelKind::Public, false),
            ("private-a", ChannelKind::Private, false),
            ("private-encrypted-a", ChannelKind::Private, false),
            ("presence-a", ChannelKind::Presence, false),
            ("cache-a", ChannelKind::Public, true),
            ("private-cache-a", ChannelKind::Private, true),
            ("private-encrypted-cache-a", ChannelKind::Private, true),
            ("presence-cache-a", ChannelKind::Presence, true),
            ("private", ChannelKind::Public, false),
            ("presence", ChannelKind::Public, false),
            ("Private-a", ChannelKind::Public, false),
            ("my-cache-a", ChannelKind::Public, false),
        ] {
            assert_eq!((ChannelKind::of(name), is_cache(name)), (kind, cache), "{name}");
        }
    }

    #[test]
    fn a_user_has_a_channel_and_an_id_that_is_not_too_long() {
        assert_eq!(user_of(&channel_of("7")), Some("7"));
        assert_eq!((user_of("#server-to-user-"), user_of("#server-to-"), user_of("7")), (Some(""), None, None));
        for id in ["7", "ä b/#", &"x".repeat(128), &"世".repeat(128)] {
            assert_eq!(user(id, 128).unwrap().as_str(), id);
        }
        for (id, most) in [("", 128), (&*"x".repeat(129), 128), (&"世".repeat(129), 128), (&"世".repeat(342), 1_024)]
        {
            assert!(user(id, most).unwrap_err().starts_with("Invalid user id"), "{id}");
        }
    }

    #[test]
    fn a_name_has_only_its_characters_and_its_length() {
        for name in ["a", "private-A_b=c@d,e.f;9", &"x".repeat(200)] {
            assert_eq!(channel(name, 200).unwrap().as_str(), name);
        }
        for name in ["", "#a", "#server-to-user-7", "a b", "a:b", "a/b", "ä", "a\n", "a\0", "a#", &"x".repeat(201)] {
            assert!(channel(name, 200).unwrap_err().starts_with("Invalid channel name"), "{name}");
        }
        assert!(channel(&"x".repeat(1_025), 2_000).is_err());
    }
}
