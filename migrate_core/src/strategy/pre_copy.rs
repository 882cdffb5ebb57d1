//! Pre-copy: rounds of copying while the guest runs, then a last one while it does not.

use super::{unasked, Action, AtSend, Chunk, Observation, Outgoing, Plan, Strategy};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::policy::{Act, Decision};

crate::knobs! {
    /// Copies memory while the guest writes, then what was written meanwhile, until the policy switches
    /// over (Clark et al., 2005). When a page's dirty bit is cleared decides how little can remain: with
    /// `early` all bits are cleared at the round's start; with `skip` too, and pages already dirty again
    /// are not sent; with `late` the bits of a chunk are cleared just before it is sent.
    pub struct PreCopy {
        /// Clear discipline: `early`, `skip` or `late`.
        clear: String [Text] = "late",
        /// Pages that are sent together, and cleared together with `late`.
        chunk_pages: u64 [Count, 1.0..=65536.0] = 256,
    }
}

/// When a page's dirty bit is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clear {
    /// All at the round's start.
    Early,
    /// All at the round's start, and pages already dirty again are not sent.
    Skip,
    /// Just before a chunk is sent.
    Late,
}

impl Clear {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "early" => Ok(Self::Early),
            "skip" => Ok(Self::Skip),
            "late" => Ok(Self::Late),
            _ => Err(Error::usage(format!("PreCopy: clear must be early, skip or late, not `{text}`"))),
        }
    }

    fn at_send(self) -> AtSend {
        match self {
            Self::Early => AtSend::Keep,
            Self::Skip => AtSend::SkipDirty,
            Self::Late => AtSend::Clear,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Beginning,
    Sending,
    Syncing,
    Deciding,
    Waiting,
    Pausing,
    LastSync,
    LastSending,
    Ending,
    SwitchingOver,
}

/// The rounds; a hybrid begins with them.
#[derive(Debug)]
pub(super) struct Machine {
    clear: Clear,
    state: State,
    /// What this round sends; after the round's sync, what the next one will.
    outgoing: Outgoing,
    /// Pages whose bits are cleared but which this round does not send.
    pending: Bitmap,
}

impl Plan for PreCopy {
    fn build(self) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(self.machine()?))
    }
}

impl PreCopy {
    pub(super) fn machine(self) -> Result<Machine> {
        Ok(Machine {
            clear: Clear::parse(&self.clear)?,
            state: State::Beginning,
            outgoing: Outgoing::new(Bitmap::new(0), self.chunk_pages),
            pending: Bitmap::new(0),
        })
    }
}

impl Machine {
    /// Whether a round is over and its decision is awaited.
    pub(super) fn is_deciding(&self) -> bool {
        matches!(self.state, State::Deciding)
    }

    /// Between two rounds: the pages that the next one would send.
    pub(super) fn left(&self) -> &Bitmap {
        self.outgoing.pages()
    }

    fn send(&mut self) -> (State, Action) {
        match self.outgoing.next_runs() {
            runs if runs.is_empty() => (State::Syncing, Action::Sync { clear: self.clear != Clear::Late }),
            runs => (State::Sending, Action::Send(Chunk { runs, at_send: self.clear.at_send() })),
        }
    }

    fn send_last(&mut self) -> (State, Action) {
        match self.outgoing.next_runs() {
            runs if runs.is_empty() => (State::Ending, Action::EndRound { remaining_pages: 0, live: false }),
            runs => (State::LastSending, Action::Send(Chunk { runs, at_send: AtSend::Keep })),
        }
    }

    fn decided(&mut self, decision: &Decision) -> Result<(State, Action)> {
        Ok(match decision.act {
            Act::SwitchOver => (State::Pausing, Action::Pause),
            Act::Abort => (State::Beginning, Action::Abort(decision.reason.clone())),
            Act::PostCopy => {
                return Err(Error::Policy {
                    reason: "asked for post-copy, which the strategy pre-copy cannot do".into(),
                    source: None,
                })
            }
            Act::Proceed | Act::Throttle { .. } | Act::Limit { .. } if self.outgoing.count() == 0 => {
                (State::Waiting, Action::Wait)
            }
            Act::Proceed | Act::Throttle { .. } | Act::Limit { .. } => self.send(),
        })
    }
}

impl Strategy for Machine {
    fn next(&mut self, seen: Observation<'_>) -> Result<Action> {
        let (state, action) = match (self.state, &seen) {
            (State::Beginning, Observation::Began { pages }) => {
                self.outgoing.replace(Bitmap::full(*pages));
                self.pending = Bitmap::new(*pages);
                self.send()
            }
            (State::Sending, Observation::Sent { spilled }) => {
                self.pending.union_with(spilled);
                self.send()
            }
            (State::Sending, Observation::CutShort { spilled }) => {
                self.pending.union_with(spilled);
                self.outgoing.leave(&mut self.pending);
                (State::Syncing, Action::Sync { clear: self.clear != Clear::Late })
            }
            (State::Waiting, Observation::Waited) => self.send(),
            (State::Syncing, Observation::Synced { dirty }) => {
                self.pending.union_with(dirty);
                self.outgoing.exchange(&mut self.pending);
                self.pending.clear_all();
                (State::Deciding, Action::EndRound { remaining_pages: self.outgoing.count(), live: true })
            }
            (State::Deciding, Observation::Decided(decision)) => self.decided(decision)?,
            (State::Pausing, Observation::Paused) => (State::LastSync, Action::Sync { clear: true }),
            (State::LastSync, Observation::Synced { dirty }) => {
                self.outgoing.refill(dirty);
                self.send_last()
            }
            (State::LastSending, Observation::Sent { .. }) => self.send_last(),
            (State::Ending, Observation::Decided(_)) => (State::SwitchingOver, Action::SwitchOver),
            (State::SwitchingOver, Observation::SwitchedOver) => (State::Beginning, Action::Done),
            _ => return Err(unasked("pre-copy", &self.state, &seen)),
        };
        self.state = state;
        Ok(action)
    }

    fn cuts_rounds(&self) -> bool {
        true
    }
}
