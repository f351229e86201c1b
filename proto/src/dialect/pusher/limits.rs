//! The limits of an app: what each is called, what it is unless the settings say otherwise, and the most that it may be.

use serde::{Deserialize, Serialize};

use crate::{
    ids::AppId,
    units::{Size, Span},
};

/// No name in Wellhead is longer, in bytes.
const LONGEST_NAME: usize = AppId::MAX_BYTES;

/// Each limit once: its name, its type, its default, and the most that it may be if there is one.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr $(, at most $most:expr)?;)*) => {
        /// `[apps.listed.limits]`: how much of everything an app may have (pusher.md §1.11).
        #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct AppLimits {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl Default for AppLimits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl AppLimits {
            /// The first that cannot be used: its name, and why.
            pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
                $(
                    let most = [usize::MAX, $($most)?].into_iter().min().unwrap_or(usize::MAX);
                    if let Some(why) = self.$name.wrong(most) {
                        return Some((stringify!($name), why));
                    }
                )*
                None
            }
        }
    };
}

limits! {
    /// The longest channel name.
    channel_name: Size = Size(200), at most LONGEST_NAME;
    /// The longest event name, in characters.
    event_name: usize = 200, at most LONGEST_NAME;
    /// The largest payload of an event.
    event_data: Size = Size::kib(10);
    /// Channels that one event may name.
    channels_per_event: usize = 100;
    /// Events in a batch.
    batch: usize = 10;
    /// Members of a presence channel.
    presence_members: usize = 100;
    /// The largest user object of a member.
    presence_info: Size = Size::kib(1);
    /// The longest id of a member, in characters.
    presence_id: usize = 128, at most LONGEST_NAME;
    /// Client events that one socket may send in a second.
    client_events: u32 = 10;
    /// After how long a silent client should ask whether the server is there; sent in the first frame.
    activity_timeout: Span = Span::seconds(120);
}

/// A kind of limit.
trait Bounded {
    /// Why it cannot be used, if it cannot.
    fn wrong(&self, most: usize) -> Option<String>;
}

impl Bounded for usize {
    fn wrong(&self, most: usize) -> Option<String> {
        match *self {
            0 => Some("must be more than nothing".to_owned()),
            limit if limit > most => {
                Some(format!("{limit} is more than the {most} bytes that a name may have anywhere"))
            }
            _ => None,
        }
    }
}

impl Bounded for u32 {
    fn wrong(&self, most: usize) -> Option<String> {
        (*self as usize).wrong(most)
    }
}

impl Bounded for Size {
    fn wrong(&self, most: usize) -> Option<String> {
        self.bytes().wrong(most)
    }
}

impl Bounded for Span {
    fn wrong(&self, _: usize) -> Option<String> {
        (self.0.as_secs() == 0).then(|| "clients are told whole seconds, at least one".to_owned())
    }
}
