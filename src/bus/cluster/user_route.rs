//! Which way pushes to users go: by their slots, or to everybody as long as a node is here that does not listen to slots of
//! users. Pure; spans are measured since any fixed moment.

use std::time::Duration;

use super::slots::SETTLE;

/// The way that the latest push to a user went.
#[derive(Default)]
pub(super) struct UserRoute {
    last: Option<(bool, Duration)>,
}

impl UserRoute {
    /// A push is about to go, by its slot or to everybody. `Err`: not before so long, so that it does not overtake what went the
    /// other way.
    pub(super) fn choose(&mut self, by_slot: bool, now: Duration) -> Result<(), Duration> {
        if let Some((last, at)) = self.last
            && last != by_slot
            && let Some(wait) = (at + SETTLE).checked_sub(now).filter(|wait| !wait.is_zero())
        {
            return Err(wait);
        }
        self.last = Some((by_slot, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_waits_for_those_that_went_the_other_way() {
        let at = Duration::from_millis;
        let mut route = UserRoute::default();
        assert_eq!(route.choose(true, at(10)), Ok(()));
        assert_eq!(route.choose(true, at(20)), Ok(()));
        assert_eq!(route.choose(false, at(120)), Err(at(900)));
        assert_eq!(route.choose(true, at(500)), Ok(()), "who is here changed its mind");
        assert_eq!(route.choose(false, at(1_499)), Err(at(1)));
        assert_eq!(route.choose(false, at(1_500)), Ok(()));
        assert_eq!(route.choose(true, at(9_000)), Ok(()));
    }
}
