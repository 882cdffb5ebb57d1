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
    /// Sends the execution state, and what else there is to say, and waits for the destination's
    /// acknowledgement.
    pub(super) fn hand_over(&mut self, more: Option<Message>) -> Result<()> {
        let state = self.guest.save()?;
        self.tell(Message::State { state })?;
        more.map_or(Ok(()), |more| self.tell(more))?;
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

    /// Compares `pages` with the destination's, by XXH3-128; `place` says where the guest is if they differ.
    pub(super) fn verify(&mut self, pages: &Bitmap, place: &str) -> Result<()> {
        self.tell(Message::Verify)?;
        let (memory, mut wrong) = (Arc::clone(self.guest.memory()), Bitmap::new(self.pages()));
        let mut left = pages.clone();
        while let Some(next) = left.first_from(0) {
            match self.replies.section()? {
                Section::Hashes { run, hashes }
                    if run.first == next && left.count_in(run.range()) == run.pages =>
                {
                    let differing =
                        run.range().zip(hashes).filter(|(page, hash)| memory.hash_page_128(*page) != *hash);
                    differing.for_each(|(page, _)| wrong.set(page));
                    left.clear_range(run.range());
                }
                other => {
                    return Err(Error::link(format!(
                        "checksums from page {next} were expected, not {other:?}"
                    )))
                }
            }
        }
        self.figures.verified = Some(wrong.is_empty() && self.figures.verified != Some(false));
        match wrong.first_from(0) {
            None => Ok(()),
            Some(page) => Err(Error::Verification(format!(
                "{} pages differ between source and destination, the first is page {page}; {place}",
                wrong.count()
            ))),
        }
    }

    /// From the guest's last instruction here to its first there, on our clock.
    pub(super) fn gap_until(&self, first_ran_ns: u64) -> f64 {
        let gap =
            i128::from(first_ran_ns) - self.clock.ahead_ns - i128::from(self.guest.progress().last_ran_ns);
        gap as f64 / 1e9 - self.figures.verify_time
    }

    /// Lets go, and waits for the word that the guest runs.
    pub(super) fn let_go(&mut self) -> Result<()> {
        self.ask_to_watch()?;
        lane::settle(&mut self.lanes)?;
        self.cut.spare();
        self.let_go = true;
        let told = self.tell(Message::Go).and_then(|()| self.replies.message());
        match told {
            Ok(Message::Running { first_ran_ns }) => {
                self.figures.guest_gap = Some(self.gap_until(first_ran_ns));
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
