//! How a source hands its guest over: state, acknowledgement, comparison, letting go.

use std::sync::Arc;

use super::channels::pieces;
use super::lane::{self, Job};
use super::Source;
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::report::Happening;
use crate::wire::{checked_runs, Message, Section};
use crate::world::World;

impl Source {
    /// Sends the execution state and waits for the destination's acknowledgement.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        let state = self.guest.save()?;
        self.tell(Message::State { state })?;
        for lane in &mut self.lanes {
            lane.send(Job::Message(Message::Flush))?;
        }
        loop {
            match self.replies.message()? {
                Message::Loaded => return Ok(()),
                Message::Decoded { seconds } => self.figures.decode_seconds = Some(seconds),
                Message::Resend { runs } => {
                    let runs = checked_runs(&runs, self.pages())?;
                    self.mark(Happening::Resent { pages: runs.iter().map(|run| run.pages).sum() });
                    // All channels are flushed: one is enough, and order holds.
                    for piece in pieces(&runs) {
                        self.lanes[0].send(Job::Pages(vec![piece]))?;
                    }
                    self.tell(Message::Flush)?;
                }
                other => {
                    return Err(Error::link(format!(
                        "the destination answered {} to the execution state",
                        other.name()
                    )))
                }
            }
        }
    }

    /// Compares every page with the destination's, by XXH3-128.
    pub(super) fn verify(&mut self) -> Result<()> {
        self.tell(Message::Verify)?;
        let (mut next, memory, mut wrong) = (0, Arc::clone(self.guest.memory()), Bitmap::new(self.pages()));
        while next < memory.pages() {
            match self.replies.section()? {
                Section::Hashes { run, hashes } if run.first == next => {
                    let differing =
                        run.range().zip(hashes).filter(|(page, hash)| memory.hash_page_128(*page) != *hash);
                    differing.for_each(|(page, _)| wrong.set(page));
                    next = run.end();
                }
                other => {
                    return Err(Error::link(format!(
                        "checksums from page {next} were expected, not {other:?}"
                    )))
                }
            }
        }
        self.figures.verified = Some(wrong.is_empty());
        match wrong.first_from(0) {
            None => Ok(()),
            Some(page) => Err(Error::Verification(format!(
                "{} pages differ between source and destination, the first is page {page}; the guest stays at the source",
                wrong.count()
            ))),
        }
    }

    /// Lets go, and waits for the word that the guest runs.
    pub(super) fn let_go(&mut self) -> Result<()> {
        lane::settle(&mut self.lanes)?;
        self.let_go = true;
        let told = self.tell(Message::Go).and_then(|()| self.replies.message());
        match told {
            Ok(Message::Running { first_ran_ns }) => {
                let gap = i128::from(first_ran_ns)
                    - self.clock.ahead_ns
                    - i128::from(self.guest.progress().last_ran_ns);
                self.figures.guest_gap = Some(gap as f64 / 1e9 - self.figures.verify_time);
                Ok(())
            }
            Ok(other) => Err(after_letting_go(&format!("it answered {}", other.name()))),
            Err(error) => Err(after_letting_go(&error.to_string())),
        }
    }
}

fn after_letting_go(why: &str) -> Error {
    Error::link(format!(
        "the destination had acknowledged the guest and was told to run it, then {why}; \
         it may run there, so the guest stays stopped at the source"
    ))
}
