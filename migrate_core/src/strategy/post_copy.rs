//! Post-copy: execution moves first, memory follows.

use super::following::Following;
use super::{prepaging, unasked, Action, Departure, Observation, Plan, Strategy};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::knobs::Spec;

crate::knobs! {
    /// Moves execution first and memory after it (Hines and Gopalan, 2009). The blackout does not depend on
    /// the guest's size and every page is sent once; what is touched before it has come is asked for, and
    /// whoever touched it waits. A lost link pauses the guest until another is there. No policy is asked.
    pub struct PostCopy {
        /// Order in which pages are pushed: `bubbling`, `sequential`, `recency` or `none`, with knobs as in
        /// `bubbling:pivots=4`.
        prepaging: String [Text] = "bubbling",
        /// Pages that are pushed together.
        chunk_pages: u64 [Count, 1.0..=65536.0] = 64,
        /// Looks at what the guest writes, a moment apart, before execution moves; taken only where the
        /// order asks for it.
        looks: u64 [Count, 0.0..=1000.0] = 16,
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Beginning,
    Watching { looks: u64 },
    Looking { looks: u64 },
    Pausing,
    Following,
}

struct Machine {
    state: State,
    knobs: PostCopy,
    prepaging: Spec,
    pages: u64,
    following: Option<Following>,
}

impl Plan for PostCopy {
    fn build(self) -> Result<Box<dyn Strategy>> {
        let prepaging = prepaging::parse(&self.prepaging)?;
        Ok(Box::new(Machine { state: State::Beginning, knobs: self, prepaging, pages: 0, following: None }))
    }
}

impl Machine {
    fn begin(&mut self, pages: u64) -> Result<(State, Action)> {
        let following = Following::new(&self.prepaging, pages, self.knobs.chunk_pages)?;
        let looks = if following.wants_writes() { self.knobs.looks } else { 0 };
        (self.pages, self.following) = (pages, Some(following));
        Ok(watch(looks))
    }
}

fn watch(looks: u64) -> (State, Action) {
    match looks {
        0 => (State::Pausing, Action::Pause),
        looks => (State::Watching { looks }, Action::Wait),
    }
}

impl Strategy for Machine {
    fn departure(&self) -> Departure {
        Departure::First
    }

    fn next(&mut self, seen: Observation<'_>) -> Result<Action> {
        let (state, action) = match (self.state, &seen, &mut self.following) {
            (State::Beginning, Observation::Began { pages }, _) => self.begin(*pages)?,
            (State::Watching { looks }, Observation::Waited, _) => {
                (State::Looking { looks }, Action::Sync { clear: true })
            }
            (State::Looking { looks }, Observation::Synced { dirty }, Some(following)) => {
                following.wrote(dirty);
                watch(looks - 1)
            }
            (State::Pausing, Observation::Paused, Some(following)) => {
                (State::Following, following.depart(Bitmap::full(self.pages)))
            }
            (State::Following, _, Some(following)) => (State::Following, following.next(&seen)?),
            _ => return Err(unasked("post-copy", &self.state, &seen)),
        };
        self.state = state;
        Ok(action)
    }
}
