//! The regular expression of a pattern push: searched for anywhere in a name (unanchored), in linear time, bounded in
//! length and compiled size. A bare literal or prefix is recognised, so that an ordered index can answer it.

use regex::{Regex, RegexBuilder};

/// A compiled channel pattern of a pattern push.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// `^literal$`: this name only.
    Literal(String),
    /// `^prefix`: every name that begins so.
    Prefix(String),
    /// Anything else.
    Search(Regex),
}

/// A pattern that is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadMatcher {
    /// Longer than [`Matcher::MAX_BYTES`].
    #[error("the pattern is longer than {} bytes", Matcher::MAX_BYTES)]
    TooLong,
    /// Not a regular expression of this engine (it knows no look-around and no back-references).
    #[error("the pattern is not a regular expression")]
    Syntax,
    /// It would compile to more than is allowed.
    #[error("the pattern compiles to too much")]
    TooCostly,
}

impl Matcher {
    /// The longest pattern, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Bytes that the compiled program may take, and its lazily built automaton. Compiling is the attack (matching is
    /// linear): the default of 10 MiB lets a short pattern burn 60 ms, this one less than 1 ms.
    const MAX_COMPILED: usize = 64 << 10;

    /// How deep groups may nest.
    const MAX_NESTING: u32 = 16;

    /// Compile `pattern`.
    ///
    /// # Errors
    ///
    /// Too long, not a regular expression, or too costly.
    pub fn compile(pattern: &str) -> Result<Self, BadMatcher> {
        if pattern.len() > Self::MAX_BYTES {
            return Err(BadMatcher::TooLong);
        }
        if let Some(anchored) = pattern.strip_prefix('^') {
            match anchored.strip_suffix('$') {
                Some(literal) if is_literal(literal) => return Ok(Self::Literal(literal.to_owned())),
                None if is_literal(anchored) => return Ok(Self::Prefix(anchored.to_owned())),
                _ => {}
            }
        }
        RegexBuilder::new(pattern)
            .size_limit(Self::MAX_COMPILED)
            .dfa_size_limit(Self::MAX_COMPILED)
            .nest_limit(Self::MAX_NESTING)
            .build()
            .map(Self::Search)
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => BadMatcher::TooCostly,
                _ => BadMatcher::Syntax,
            })
    }

    /// Does it match `name`?
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::Prefix(prefix) => name.starts_with(prefix),
            Self::Search(regex) => regex.is_match(name),
        }
    }
}

/// Does every character of `pattern` stand for itself? (`-`, `#`, `&` and `~` do, outside a class.)
fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_search_is_unanchored_and_linear() {
        let matches = |pattern: &str, name: &str| Matcher::compile(pattern).unwrap().matches(name);
        assert!(matches("A", "AA"));
        assert!(matches("pp", "Apple"));
        assert!(matches("^App", "Apple"));
        assert!(!matches("^pp", "Apple"));
        assert!(matches("^a$", "a") && !matches("^a$", "a\n"));
        assert!(!matches("(a+)+$", &("a".repeat(1_000) + "b")));
        assert!(matches("", "anything"));
    }

    #[test]
    fn hostile_patterns_are_refused() {
        assert_eq!(Matcher::compile("*").unwrap_err(), BadMatcher::Syntax);
        assert_eq!(Matcher::compile("(?=a)").unwrap_err(), BadMatcher::Syntax);
        assert_eq!(Matcher::compile(r"(a)\1").unwrap_err(), BadMatcher::Syntax);
        assert_eq!(Matcher::compile(&"x".repeat(257)).unwrap_err(), BadMatcher::TooLong);
        assert_eq!(Matcher::compile(r"(?:\w{50}){50}").unwrap_err(), BadMatcher::TooCostly);
        assert_eq!(Matcher::compile(r"\pL{200}").unwrap_err(), BadMatcher::TooCostly);
        assert_eq!(Matcher::compile(&("(".repeat(100) + &")".repeat(100))).unwrap_err(), BadMatcher::Syntax);
        assert!(Matcher::compile(&"x".repeat(256)).is_ok());
    }

    #[test]
    fn literals_and_prefixes_are_recognised() {
        assert!(matches!(Matcher::compile("^room-").unwrap(), Matcher::Prefix(_)));
        assert!(matches!(Matcher::compile("^room_1$").unwrap(), Matcher::Literal(_)));
        assert!(matches!(Matcher::compile("^room_").unwrap(), Matcher::Prefix(_)));
        assert!(matches!(Matcher::compile("room").unwrap(), Matcher::Search(_)));
        assert!(matches!(Matcher::compile(r"^room-\w+-\d+$").unwrap(), Matcher::Search(_)));
        assert!(matches!(Matcher::compile("^a|b").unwrap(), Matcher::Search(_)));
    }

    proptest! {
        #[test]
        fn short_cuts_agree_with_the_engine(pattern in r"\^[ab.$中-]{0,4}\$?", name in "[ab.$中-]{0,5}") {
            if let Ok(regex) = Regex::new(&pattern) {
                prop_assert_eq!(Matcher::compile(&pattern).unwrap().matches(&name), regex.is_match(&name));
            }
        }
    }
}
