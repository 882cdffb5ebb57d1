//! Memory that follows execution: the second half of post-copy and of the hybrid.
//!
//! ```text
//!  Depart ──► Push … Push ──► Complete ──► Done
//!               ▲    │ nothing to push for the moment
//!               └─ Serve
//! ```
//!
//! Pages that the guest asks for are served by the world at once; here they are only taken off the list.
//! When the link was lost and is there again, the list begins anew with what the destination lacks.

use super::prepaging::{self, Prepaging};
use super::{unasked, Action, Observation};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::knobs::Spec;

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Beginning,
    Departing,
    Pushing,
    Serving,
    Completing,
}

/// What is still at the source, and the order in which it is pushed.
pub(super) struct Following {
    state: State,
    order: Box<dyn Prepaging>,
    left: Bitmap,
    chunk_pages: u64,
}

impl Following {
    /// For a guest of `pages` pages.
    pub(super) fn new(prepaging: &Spec, pages: u64, chunk_pages: u64) -> Result<Self> {
        let order = prepaging::find(prepaging, pages)?;
        Ok(Self { state: State::Beginning, order, left: Bitmap::new(pages), chunk_pages })
    }

    /// Whether the order wants to know what is written before execution moves.
    pub(super) fn wants_writes(&self) -> bool {
        self.order.wants_writes()
    }

    /// The guest wrote `pages` in the latest interval.
    pub(super) fn wrote(&mut self, pages: &Bitmap) {
        self.order.wrote(pages);
    }

    /// Execution moves, and `left` stays behind.
    pub(super) fn depart(&mut self, left: Bitmap) -> Action {
        (self.state, self.left) = (State::Departing, left.clone());
        Action::Depart { missing: left }
    }

    /// The answer to what happened once execution was to move.
    pub(super) fn next(&mut self, seen: &Observation<'_>) -> Result<Action> {
        match (self.state, seen) {
            (State::Departing, Observation::Departed) => {}
            (State::Pushing | State::Serving, Observation::Asked { pages }) => self.asked(pages),
            (State::Beginning, _) => return Err(unasked("post-copy", &self.state, seen)),
            (_, Observation::Recovered { missing }) => self.left = (*missing).clone(),
            (State::Completing, Observation::Completed) => {
                self.state = State::Beginning;
                return Ok(Action::Done);
            }
            _ => return Err(unasked("post-copy", &self.state, seen)),
        }
        Ok(self.go_on())
    }

    fn asked(&mut self, pages: &[u64]) {
        for page in pages {
            self.left.clear(*page);
            self.order.asked(*page);
        }
        if self.state == State::Serving {
            self.order.waited(pages.is_empty());
        }
    }

    fn go_on(&mut self) -> Action {
        if self.left.is_empty() {
            self.state = State::Completing;
            return Action::Complete;
        }
        let runs = self.order.next(&self.left, self.chunk_pages);
        if runs.is_empty() {
            self.state = State::Serving;
            return Action::Serve;
        }
        runs.iter().for_each(|run| self.left.clear_range(run.range()));
        self.state = State::Pushing;
        Action::Push(runs)
    }
}
