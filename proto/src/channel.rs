//! Patterns over channel names, as permissions write them (gusher.md §2.1).

mod set;

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::set::PatternSet;
use crate::ids::{BadName, ChannelName};

/// A permission: a channel name in which each `*` stands for one or more characters, none of them LF. It is anchored
/// at both ends and case-sensitive, and has no escape. The pattern that is exactly `*` allows every name.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelPattern(Arc<str>);

impl ChannelPattern {
    /// The pattern that allows everything.
    #[must_use]
    pub fn everything() -> Self {
        Self("*".into())
    }

    /// The pattern that allows the empty name and no other.
    #[must_use]
    pub fn nothing() -> Self {
        Self("".into())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does it allow every name?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        &*self.0 == "*"
    }

    /// Does it allow `channel`?
    #[must_use]
    pub fn allows(&self, channel: &ChannelName) -> bool {
        self.is_everything() || matches(self.0.as_bytes(), channel.as_str().as_bytes())
    }

    /// Does it allow at least all that `other` does? Judged by messages: the `*` of `other` counts as a message that
    /// only a `*` of ours covers.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.is_everything() || (!other.is_everything() && matches(self.0.as_bytes(), other.0.as_bytes()))
    }
}

/// May someone who holds `patterns` use `channel`? For a few patterns; many are compiled to a [`PatternSet`].
#[must_use]
pub fn allowed(patterns: &[ChannelPattern], channel: &ChannelName) -> bool {
    patterns.iter().any(|pattern| pattern.allows(channel))
}

/// How many bytes a list of patterns takes, written as JSON; escapes aside.
#[must_use]
pub fn written(patterns: &[ChannelPattern]) -> usize {
    // two quotes and a comma
    patterns.iter().map(|pattern| pattern.as_str().len() + 3).sum()
}

impl Borrow<str> for ChannelPattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ChannelPattern {
    type Error = BadName;

    fn try_from(pattern: &str) -> Result<Self, BadName> {
        if pattern.len() > ChannelName::MAX_BYTES {
            return Err(BadName::TooLong {
                what: "the channel pattern",
                bytes: pattern.len(),
                max: ChannelName::MAX_BYTES,
            });
        }
        Ok(Self(pattern.into()))
    }
}

impl TryFrom<String> for ChannelPattern {
    type Error = BadName;

    fn try_from(pattern: String) -> Result<Self, BadName> {
        Self::try_from(pattern.as_str())
    }
}

impl From<ChannelPattern> for String {
    fn from(pattern: ChannelPattern) -> Self {
        pattern.as_str().to_owned()
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Both are valid UTF-8. Literal parts compare byte by byte (no character begins inside another's bytes); a `*` takes
/// whole characters.
///
/// Each `*` takes as little as it can; when the rest does not fit, the last `*` takes one byte more. Earlier ones need
/// no second try: whatever they would give, the last one can give too.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut last_star = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            if name[n] == b'\n' {
                return false;
            }
            (p, n) = (p + 1, n + character_bytes(name[n]));
            last_star = Some((p, n));
        } else if p < pattern.len() && pattern[p] == name[n] {
            (p, n) = (p + 1, n + 1);
        } else {
            match &mut last_star {
                Some((after, taken)) if name[*taken] != b'\n' => {
                    *taken += character_bytes(name[*taken]);
                    (p, n) = (*after, *taken);
                }
                _ => return false,
            }
        }
    }
    p == pattern.len()
}

/// How many bytes the UTF-8 character has that begins with `first`.
fn character_bytes(first: u8) -> usize {
    match first {
        0..0xC0 => 1,
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(pattern: &str, name: &str) -> bool {
        ChannelPattern::try_from(pattern).unwrap().allows(&ChannelName::try_from(name).unwrap())
    }

    #[test]
    fn a_star_is_one_or_more_characters() {
        for (pattern, name, expected) in [
            ("t*st", "test", true),
            ("t*st", "toast", true),
            ("t*st", "tst", false),
            ("t*st", "t*st", true),
            ("app*", "apple", true),
            ("app*", "app", false),
            ("*mid*", "amidb", true),
            ("*mid*", "mid", false),
            ("a**", "abc", true),
            ("a**", "ab", false),
            ("*", "", true),
            ("*", "a\nb", true),
            ("a*c", "a\nc", false),
            ("a*c", "a中c", true),
            ("App*", "apple", false),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("*ab", "aab", true),
        ] {
            assert_eq!(allows(pattern, name), expected, "{pattern:?} over {name:?}");
        }
    }

    #[test]
    fn a_pattern_covers_what_lies_inside_it() {
        let pattern = |text| ChannelPattern::try_from(text).unwrap();
        assert!(pattern("*").covers(&pattern("a*")));
        assert!(pattern("a*").covers(&pattern("ab*")));
        assert!(pattern("a*").covers(&pattern("a*")));
        assert!(!pattern("a*").covers(&pattern("*")));
        assert!(!pattern("a*").covers(&pattern("b")));
        assert!(!pattern("*b").covers(&pattern("*")));
    }

    proptest! {
        #[test]
        fn the_wildcard_rule_agrees_with_a_regular_expression(pattern in "[ab*\n中]{0,8}", name in "[ab*\n中]{0,10}") {
            let anchored = format!(r"\A{}\z", regex::escape(&pattern).replace(r"\*", "[^\n]+"));
            let naive = pattern == "*" || regex::Regex::new(&anchored).unwrap().is_match(&name);
            prop_assert_eq!(allows(&pattern, &name), naive);
        }

        #[test]
        fn what_a_covered_pattern_allows_its_cover_allows(
            wide in "[ab*]{0,5}", narrow in "[ab*]{0,6}", name in "[ab]{0,8}",
        ) {
            let (wide, narrow) = (ChannelPattern::try_from(wide).unwrap(), ChannelPattern::try_from(narrow).unwrap());
            let name = ChannelName::try_from(name).unwrap();
            if wide.covers(&narrow) && narrow.allows(&name) {
                prop_assert!(wide.allows(&name), "{} covers {} but not {}", wide, narrow, name);
            }
        }
    }
}
