//! Wait until remaining has stopped falling, then for the next low.

use std::collections::VecDeque;

use super::{Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Switches over at a low of remaining once it has stopped falling: the smart stop.
    ///
    /// Once the last of `window` rounds remains no less than the first of them, the next round that remains
    /// no more than any of the `window` rounds before it is a local minimum: switch over there. It always
    /// ends: as long as no such round comes, the least of a window can only rise, and memory bounds it.
    ///
    /// Origin: CloudNet (Wood et al., VEE 2011); the default is ours.
    pub struct LocalMinimum {
        /// Rounds that are looked at.
        window: u64 [Count, 2.0..=1000.0] = 5,
    }
}

struct Smart {
    window: usize,
    /// Remaining after the last rounds, the oldest first.
    recent: VecDeque<u64>,
    stopped: bool,
}

impl Rule for LocalMinimum {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(Smart { window: self.window as usize, recent: VecDeque::new(), stopped: false }))
    }
}

impl Smart {
    /// Takes the newest round in; whether remaining has ever stopped falling.
    fn push(&mut self, remaining: u64) -> bool {
        self.recent.push_back(remaining);
        if self.recent.len() > self.window {
            self.recent.pop_front();
        }
        let whole = self.recent.len() == self.window;
        self.stopped |= whole && self.recent.front().is_some_and(|first| remaining >= *first);
        self.stopped
    }
}

impl Policy for Smart {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let remaining = round.remaining_bytes;
        let least = self.recent.iter().min().copied();
        let low = least.filter(|least| self.stopped && remaining <= *least);
        self.push(remaining);
        Ok(match low {
            Some(least) => {
                Decision::switch_over(Reason::met("remaining_bytes", remaining as f64, least as f64))
            }
            None => Decision::proceed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The round at which it switches over.
    fn fires(window: u64, remaining: &[u64]) -> Option<usize> {
        let mut policy = LocalMinimum { window }.build().unwrap();
        let round = |bytes: &u64| Round { remaining_bytes: *bytes, ..Round::default() };
        remaining.iter().position(|bytes| policy.decide(&round(bytes), &[]).unwrap().fires())
    }

    #[test]
    fn a_guest_that_converges_is_left_alone() {
        assert_eq!(fires(3, &[900, 800, 700, 600, 500, 400]), None);
    }

    #[test]
    fn the_low_after_the_fall_has_stopped_is_taken() {
        // It stops at 5, 6, 7; 6 is not a low of the three before it, 5 is.
        assert_eq!(fires(3, &[9, 7, 5, 6, 7, 6, 5, 1]), Some(6));
    }

    #[test]
    fn the_round_that_shows_the_stop_is_not_yet_the_low() {
        assert_eq!(fires(2, &[5, 5, 5]), Some(2));
        assert_eq!(fires(3, &[5, 4, 5, 6, 7, 8, 9]), None);
    }
}
