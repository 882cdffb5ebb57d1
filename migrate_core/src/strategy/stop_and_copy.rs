//! Stop-and-copy: the guest stops, everything moves, it runs again. The yardstick for the others.

use super::{unasked, Action, AtSend, Chunk, Observation, Outgoing, Plan, Strategy};
use crate::bitmap::Bitmap;
use crate::error::Result;

crate::knobs! {
    /// Stops the guest, sends all of memory once, runs it on the destination. The blackout is the whole
    /// transfer, and the bytes are the fewest: memory divided by bandwidth (Clark et al., 2005, stage 3 alone).
    pub struct StopAndCopy {
        /// Pages that are sent together.
        chunk_pages: u64 [Count, 1.0..=65536.0] = 256,
    }
}

#[derive(Debug)]
enum State {
    Beginning,
    Pausing,
    Sending,
    Ending,
    SwitchingOver,
}

#[derive(Debug)]
struct Machine {
    state: State,
    outgoing: Outgoing,
}

impl Plan for StopAndCopy {
    fn build(self) -> Result<Box<dyn Strategy>> {
        let outgoing = Outgoing::new(Bitmap::new(0), self.chunk_pages);
        Ok(Box::new(Machine { state: State::Beginning, outgoing }))
    }
}

impl Strategy for Machine {
    fn next(&mut self, seen: Observation<'_>) -> Result<Action> {
        let (state, action) = match (&self.state, &seen) {
            (State::Beginning, Observation::Began { pages }) => {
                self.outgoing.replace(Bitmap::full(*pages));
                (State::Pausing, Action::Pause)
            }
            (State::Pausing, Observation::Paused) | (State::Sending, Observation::Sent { .. }) => {
                match self.outgoing.next_runs() {
                    runs if runs.is_empty() => {
                        (State::Ending, Action::EndRound { remaining_pages: 0, live: false })
                    }
                    runs => (State::Sending, Action::Send(Chunk { runs, at_send: AtSend::Keep })),
                }
            }
            (State::Ending, Observation::Decided(_)) => (State::SwitchingOver, Action::SwitchOver),
            (State::SwitchingOver, Observation::SwitchedOver) => (State::Beginning, Action::Done),
            _ => return Err(unasked("stop-and-copy", &self.state, &seen)),
        };
        self.state = state;
        Ok(action)
    }
}
