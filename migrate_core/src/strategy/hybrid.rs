//! Hybrid: rounds of pre-copy, then post-copy of what is still dirty.

use super::following::Following;
use super::pre_copy::{Machine as Rounds, PreCopy};
use super::{prepaging, unasked, Action, Departure, Observation, Plan, Strategy};
use crate::error::Result;
use crate::knobs::Spec;
use crate::policy::{Act, Decision};

crate::knobs! {
    /// Copies memory in rounds as pre-copy does and then moves execution ahead of what is still dirty, so
    /// that few pages are waited for and the end is certain. It goes post-copy after `rounds` rounds or when
    /// the policy says so; a policy that switches over before makes it end as a pre-copy. The destination
    /// throws its stale copies away before execution moves.
    pub struct Hybrid {
        /// Rounds of live copying before execution moves.
        rounds: u64 [Count, 1.0..=1e6] = 3,
        /// Order in which pages are pushed: `bubbling`, `sequential`, `recency` or `none`, with knobs as in
        /// `bubbling:pivots=4`.
        prepaging: String [Text] = "bubbling",
        /// Clear discipline of the rounds: `early`, `skip` or `late`.
        clear: String [Text] = "late",
        /// Pages that are sent together in the rounds.
        chunk_pages: u64 [Count, 1.0..=65536.0] = 256,
        /// Pages that are pushed together after execution has moved.
        push_pages: u64 [Count, 1.0..=65536.0] = 64,
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The rounds are at work.
    Live,
    Pausing,
    LastSync,
    Following,
}

struct Machine {
    state: State,
    rounds: Rounds,
    rounds_left: u64,
    prepaging: Spec,
    push_pages: u64,
    following: Option<Following>,
}

impl Plan for Hybrid {
    fn build(self) -> Result<Box<dyn Strategy>> {
        let rounds = PreCopy { clear: self.clear, chunk_pages: self.chunk_pages };
        Ok(Box::new(Machine {
            state: State::Live,
            rounds: rounds.machine()?,
            rounds_left: self.rounds,
            prepaging: prepaging::parse(&self.prepaging)?,
            push_pages: self.push_pages,
            following: None,
        }))
    }
}

impl Machine {
    /// Whether execution moves ahead at the end of this round. What a pre-copy can carry out by itself
    /// comes first: a policy that switches over, or gives up, is obeyed.
    fn departs(&mut self, decision: &Decision) -> bool {
        self.rounds_left = self.rounds_left.saturating_sub(1);
        match decision.act {
            Act::PostCopy => true,
            Act::SwitchOver | Act::Abort => false,
            _ => self.rounds_left == 0,
        }
    }

    fn live(&mut self, seen: Observation<'_>) -> Result<Action> {
        match (&seen, &mut self.following) {
            (Observation::Began { pages }, _) => {
                self.following = Some(Following::new(&self.prepaging, *pages, self.push_pages)?);
            }
            (Observation::Decided(decision), Some(following)) if self.rounds.is_deciding() => {
                following.wrote(self.rounds.left());
                if self.departs(decision) {
                    self.state = State::Pausing;
                    return Ok(Action::Pause);
                }
            }
            _ => {}
        }
        self.rounds.next(seen)
    }
}

impl Strategy for Machine {
    fn departure(&self) -> Departure {
        Departure::Later
    }

    fn next(&mut self, seen: Observation<'_>) -> Result<Action> {
        if matches!(self.state, State::Live) {
            return self.live(seen);
        }
        let (state, action) = match (self.state, &seen, &mut self.following) {
            (State::Pausing, Observation::Paused, _) => (State::LastSync, Action::Sync { clear: true }),
            (State::LastSync, Observation::Synced { dirty }, Some(following)) => {
                following.wrote(dirty);
                let mut missing = self.rounds.left().clone();
                missing.union_with(dirty);
                (State::Following, following.depart(missing))
            }
            (State::Following, _, Some(following)) => (State::Following, following.next(&seen)?),
            _ => return Err(unasked("hybrid", &self.state, &seen)),
        };
        self.state = state;
        Ok(action)
    }
}
