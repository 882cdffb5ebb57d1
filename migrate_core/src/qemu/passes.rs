//! Where one pass over memory ends and the next begins. The stream does not say: it is inferred.
//!
//! * A source walks over its blocks in the order of the list: a page at or before the last one begins a pass.
//! * With multifd of machine types from 8.1 on, a flush on the main channel ends a walk.
//! * What comes in the last section of `ram` is the pass after the guest stopped.
//! * Once a post-copy runs, pages come in the order in which they are asked for: one pass to the end.

use serde::Serialize;

use super::event::{Command, Event, Section, SectionKind};

/// What a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassKind {
    /// While the guest ran at the source.
    Live,
    /// After it had stopped: what is left.
    Final,
    /// While it ran at the destination.
    PostCopy,
}

/// Follows the passes.
#[derive(Debug, Clone)]
pub(super) struct Passes {
    number: usize,
    kind: PassKind,
    /// Pages in this pass.
    pages: u64,
    /// Block and offset of the last page, for each channel.
    last: Vec<Option<(usize, u64)>>,
    flushes: bool,
}

impl Default for Passes {
    fn default() -> Self {
        Self { number: 0, kind: PassKind::Live, pages: 0, last: Vec::new(), flushes: false }
    }
}

impl Passes {
    /// The current pass: its number, and what it is.
    pub(super) fn current(&self) -> (usize, PassKind) {
        (self.number, self.kind)
    }

    /// Takes in what comes in a channel.
    pub(super) fn see(&mut self, channel: usize, event: &Event<'_>) {
        match event {
            Event::Page(page) => self.page(channel, (page.block, page.offset)),
            Event::Flush => {
                self.flushes = true;
                self.turn(self.kind);
            }
            Event::SectionBegins(section) if self.kind == PassKind::Live && ends_memory(section) => {
                self.turn(PassKind::Final);
            }
            Event::Command(Command::PostcopyRun) => self.turn(PassKind::PostCopy),
            _ => {}
        }
    }

    fn page(&mut self, channel: usize, place: (usize, u64)) {
        if channel >= self.last.len() {
            self.last.resize(channel + 1, None);
        }
        let last = self.last[channel].replace(place);
        if self.kind == PassKind::Live && !self.flushes && last.is_some_and(|last| place <= last) {
            // Other channels come to the same point by themselves.
            self.turn(PassKind::Live);
            self.last[channel] = Some(place);
        }
        self.pages += 1;
    }

    fn turn(&mut self, kind: PassKind) {
        if self.pages > 0 && (self.kind == PassKind::Live || self.kind != kind) {
            self.number += 1;
            self.pages = 0;
            self.last.fill(None);
        }
        self.kind = kind;
    }
}

fn ends_memory(section: &Section) -> bool {
    section.kind == SectionKind::End && section.name == "ram"
}
