//! The reader of a multifd channel.

use std::io::Read;

use super::session::Session;
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::qemu::blocks::Blocks;
use crate::qemu::event::{At, Event, Sink};
use crate::qemu::intake::Intake;
use crate::qemu::multifd;

/// Bytes of a channel's first packet.
const GREETING: usize = 64;

/// What is noted of a channel.
struct Beside<'a> {
    session: &'a Session<'a>,
    index: usize,
    tally: Tally,
}

/// Reads the channel of connection `index` to its end.
pub(super) fn read<R: Read>(session: &Session<'_>, intake: &mut Intake<R>, index: usize) -> Result<()> {
    let mut beside = Beside { session, index, tally: Tally::new(session.logs()) };
    let mut channel = multifd::Channel::new(index, 0);
    let greeting = intake.peek(GREETING)?;
    if greeting.len() < GREETING {
        return Err(Error::stream(0, "the channel ends inside its first packet"));
    }
    let used = channel.advance(greeting, &Blocks::default(), &mut beside)?.used;
    intake.skip(used as u64)?;
    // Pages come when the main channel has listed their blocks, but perhaps before it has been read so far.
    let blocks = session.wait_for_blocks()?;
    channel.set_page_bytes(blocks.page_bytes());
    let left = intake.pump(&mut |bytes| {
        let advance = channel.advance(bytes, &blocks, &mut beside)?;
        beside.tally.tell(session)?;
        Ok(advance)
    })?;
    channel.finish(left)
}

impl Sink for Beside<'_> {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        self.tally.see(at, event, blocks.page_bytes(), self.session)?;
        match event {
            Event::Channel { number, .. } => self.session.note(|notes| {
                notes.reception.channels[self.index].number = Some(*number);
            }),
            Event::Sync => {
                self.tally.tell(self.session)?;
                self.session.note(|notes| notes.reception.channels[self.index].syncs += 1);
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}
