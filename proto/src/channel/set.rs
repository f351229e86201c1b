//! Many patterns as one. What they allow together is found at a cost that grows with the length of a name, and not with
//! the number of patterns.
//!
//! Patterns without a `*` are looked up. The others are in a trie, byte by byte. A name is matched character by character, at
//! all nodes at once where it may be: at a `*` it may stay, and from there it may go on.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::ChannelPattern;
use crate::ids::ChannelName;

/// A compiled list of patterns.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    everything: bool,
    exact: HashSet<ChannelPattern, RandomState>,
    wild: Trie,
}

impl PatternSet {
    /// Compile `patterns`: linear in their length.
    #[must_use]
    pub fn new(patterns: &[ChannelPattern]) -> Self {
        let mut set = Self::default();
        for pattern in patterns {
            if pattern.is_everything() {
                set.everything = true;
            } else if pattern.as_str().contains('*') {
                set.wild.add(pattern.as_str());
            } else {
                set.exact.insert(pattern.clone());
            }
        }
        set
    }

    /// Does one of them allow `channel`? As [`ChannelPattern::allows`].
    #[must_use]
    pub fn allows(&self, channel: &ChannelName) -> bool {
        self.everything || self.matches(channel.as_str()).0
    }

    /// Does one of them cover `pattern`? As [`ChannelPattern::covers`].
    #[must_use]
    pub fn covers(&self, pattern: &ChannelPattern) -> bool {
        self.everything || (!pattern.is_everything() && self.matches(pattern.as_str()).0)
    }

    /// Does one of them match, and after how many steps is that known?
    fn matches(&self, name: &str) -> (bool, usize) {
        if self.exact.contains(name) { (true, 1) } else { self.wild.matches(name) }
    }
}

/// Patterns that have a `*`, message by message.
#[derive(Clone, Debug)]
struct Trie {
    /// From a node, by a byte of a pattern, to the next. Nothing that a client says adds to it.
    steps: HashMap<(u32, u8), u32, FxBuildHasher>,
    nodes: Vec<TrieNode>,
}

#[derive(Clone, Copy, Debug, Default)]
struct TrieNode {
    /// A pattern ends here.
    ends: bool,
    /// A `*` leads here: whoever is here may stay for further characters.
    stays: bool,
}

/// Where every name begins.
const ROOT: u32 = 0;

impl Default for Trie {
    fn default() -> Self {
        Self { steps: HashMap::default(), nodes: vec![TrieNode::default()] }
    }
}

impl Trie {
    fn add(&mut self, pattern: &str) {
        let mut at = ROOT;
        for &byte in pattern.as_bytes() {
            let next = self.nodes.len() as u32;
            at = *self.steps.entry((at, byte)).or_insert(next);
            if at == next {
                self.nodes.push(TrieNode { ends: false, stays: byte == b'*' });
            }
        }
        self.nodes[at as usize].ends = true;
    }

    fn step(&self, from: u32, byte: u8) -> Option<u32> {
        self.steps.get(&(from, byte)).copied()
    }

    fn matches(&self, name: &str) -> (bool, usize) {
        let mut steps = 0;
        if self.steps.is_empty() {
            return (false, steps);
        }
        // behind it a `*` may take all that is left
        let last_line_feed = name.rfind('\n');
        let mut here: SmallVec<[u32; 16]> = SmallVec::from_slice(&[ROOT]);
        let mut next: SmallVec<[u32; 16]> = SmallVec::new();
        for (place, character) in name.char_indices() {
            let (mut bytes, is_line_feed) = ([0; 4], character == '\n');
            let bytes = character.encode_utf8(&mut bytes).as_bytes();
            for &node in &here {
                steps += 1;
                let star = self.step(node, b'*').filter(|_| !is_line_feed);
                if let Some(star) = star {
                    if self.nodes[star as usize].ends && last_line_feed.is_none_or(|line_feed| line_feed < place) {
                        return (true, steps);
                    }
                    next.push(star);
                }
                if self.nodes[node as usize].stays && !is_line_feed {
                    next.push(node);
                }
                // a `*` in a name is a message, in a pattern it never is
                if character != '*' {
                    next.extend(bytes.iter().try_fold(node, |node, &byte| self.step(node, byte)));
                }
            }
            // a name can come to a `*` in two ways: it stayed there, or it has just come
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut here, &mut next);
            next.clear();
            if here.is_empty() {
                break;
            }
        }
        (here.iter().any(|&node| self.nodes[node as usize].ends), steps)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::allowed;

    fn patterns<S: AsRef<str>>(texts: &[S]) -> Vec<ChannelPattern> {
        texts.iter().map(|text| text.as_ref().try_into().unwrap()).collect()
    }

    fn steps(set: &PatternSet, name: &str) -> usize {
        set.matches(name).1
    }

    #[test]
    fn a_set_allows_what_one_of_its_patterns_does() {
        let set = PatternSet::new(&patterns(&["news", "room-*", "*-log", "a*b*c", "x**", "ä*é", "t*st"]));
        for (name, expected) in [
            ("news", true),
            ("newsy", false),
            ("room-1", true),
            ("room-", false),
            ("my-log", true),
            ("-log", false),
            ("a-b-c", true),
            ("abc", false),
            ("xyz", true),
            ("xy", false),
            ("x中", false),
            ("x中中", true),
            ("ä中é", true),
            ("t*st", true),
            ("tst", false),
            ("room-a\nb", false),
            ("", false),
        ] {
            assert_eq!(set.allows(&name.parse().unwrap()), expected, "{name:?}");
        }
        assert!(PatternSet::new(&patterns(&["a", "*"])).allows(&"\n".parse().unwrap()));
        assert!(!PatternSet::default().allows(&"a".parse().unwrap()));
        assert!(PatternSet::new(&patterns(&[""])).allows(&"".parse().unwrap()));
    }

    /// Whatever the patterns look like, 4,096 of them cost a name no more steps than four do.
    #[test]
    fn what_a_name_costs_does_not_grow_with_the_number_of_patterns() {
        type Make = fn(usize) -> String;
        let kinds: [(&str, Make, &str); 6] = [
            ("names", |no| format!("channel-{no:05}"), "channel-99999"),
            ("prefixes", |no| format!("channel-{no:05}-*"), "channel-99999-x"),
            ("nested prefixes", |no| format!("{}*", "a".repeat(no % 7 + 1)), "b"),
            ("suffixes", |no| format!("*-{no:05}"), "channel-99999"),
            ("both ends", |no| format!("channel-{no:05}-*-{no:05}"), "channel-99999-x-99999"),
            ("one beginning, many ends", |no| format!("channel-*-{no:05}"), "channel-x-99999"),
        ];
        for (kind, make, name) in kinds {
            let set = |many| PatternSet::new(&patterns(&(0..many).map(make).collect::<Vec<_>>()));
            let (few, many) = (steps(&set(4), name), steps(&set(4_096), name));
            assert!(many <= few + 2 * name.len(), "{kind}: {few} steps with 4 patterns, {many} with 4,096");
            assert!(many <= 4 * name.len(), "{kind}: {many} steps for {} letters", name.len());
        }
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_its_patterns_one_by_one(
            texts in prop::collection::vec("[ab*\n中]{0,6}", 0..8), name in "[ab*\n中]{0,10}",
        ) {
            let (list, name) = (patterns(&texts), ChannelName::try_from(name).unwrap());
            let set = PatternSet::new(&list);
            prop_assert_eq!(set.allows(&name), allowed(&list, &name), "{:?} over {:?}", texts, name);
            let narrow = ChannelPattern::try_from(name.as_str()).unwrap();
            let covered = list.iter().any(|wide| wide.covers(&narrow));
            prop_assert_eq!(set.covers(&narrow), covered, "{:?} over {:?}", texts, narrow);
        }
    }
}
