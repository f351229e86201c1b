//! What sockets may subscribe to, kept once for all that may do the same. Pure.

use std::{collections::HashSet, rc::Rc};

use wellhead_proto::channel::ChannelPattern;

/// What one socket may subscribe to.
pub type Grants = Rc<[ChannelPattern]>;

/// Swept when it has grown by so many, and has doubled.
const SWEEP: usize = 64;

/// All that sockets of a thread hold.
#[derive(Default)]
pub struct AllGrants {
    held: HashSet<Grants>,
    /// How many were left by the last sweep.
    swept: usize,
}

impl AllGrants {
    /// These `patterns`, shared with whoever holds the same.
    pub fn share(&mut self, patterns: Vec<ChannelPattern>) -> Grants {
        if let Some(grants) = self.held.get(patterns.as_slice()) {
            return grants.clone();
        }
        if self.held.len() >= 2 * self.swept + SWEEP {
            self.held.retain(|grants| Rc::strong_count(grants) > 1);
            self.held.shrink_to(2 * self.held.len() + SWEEP);
            self.swept = self.held.len();
        }
        let grants = Grants::from(patterns);
        self.held.insert(grants.clone());
        grants
    }
}

/// `held`, with what lies wholly inside one of the patterns `within` replaced by `new`.
#[must_use]
pub fn replaced(held: &[ChannelPattern], within: &[ChannelPattern], new: &[ChannelPattern]) -> Vec<ChannelPattern> {
    let stays = |pattern: &&ChannelPattern| !within.iter().any(|wide| wide.covers(pattern));
    held.iter().filter(stays).chain(new).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(names: &[&str]) -> Vec<ChannelPattern> {
        names.iter().map(|&name| name.try_into().unwrap()).collect()
    }

    #[test]
    fn equal_grants_are_kept_once() {
        let mut all = AllGrants::default();
        let (one, two) = (all.share(patterns(&["a", "b"])), all.share(patterns(&["a", "b"])));
        assert!(Rc::ptr_eq(&one, &two));
        assert_eq!(*one, patterns(&["a", "b"]));
        assert!(!Rc::ptr_eq(&one, &all.share(patterns(&["b", "a"]))), "as they were given");
        assert!(all.share(Vec::new()).is_empty());
    }

    #[test]
    fn only_what_lies_wholly_inside_is_replaced() {
        let held = patterns(&["a", "a1", "ab*", "b", "*a", "*", "news", "news*", ""]);
        let after = |within: &[&str], new: &[&str]| replaced(&held, &patterns(within), &patterns(new));
        assert_eq!(after(&["*"], &["x"]), patterns(&["x"]));
        assert_eq!(after(&["a*", "news"], &[]), patterns(&["a", "b", "*a", "*", "news*", ""]));
        assert_eq!(after(&["a*", "news"], &["a7"]), patterns(&["a", "b", "*a", "*", "news*", "", "a7"]));
        assert_eq!(after(&["b"], &["b"]), patterns(&["a", "a1", "ab*", "*a", "*", "news", "news*", "", "b"]));
        assert_eq!(after(&[], &[]), held);
    }

    #[test]
    fn grants_that_nobody_holds_do_not_stay() {
        let mut all = AllGrants::default();
        let kept = all.share(patterns(&["kept"]));
        for no in 0..100_000 {
            all.share(patterns(&[&no.to_string()]));
        }
        assert!(all.held.len() <= 2 * SWEEP, "{}", all.held.len());
        assert!(Rc::ptr_eq(&kept, &all.share(patterns(&["kept"]))));
    }
}
