//! The reader of the main channel: it notes what comes, answers, and knows when all has come.

use std::io::Write;
use std::time::Duration;

use super::session::Session;
use super::tally::Tally;
use super::tap::Tap;
use super::Ending;
use crate::error::{Error, Result};
use crate::link::Stream;
use crate::qemu::blocks::Blocks;
use crate::qemu::event::{At, Command, Event, Section as Head, SectionKind, Setting, Sink};
use crate::qemu::intake::Intake;
use crate::qemu::reception::{Outcome, PageKinds, Section};
use crate::qemu::return_path::Reply;
use crate::qemu::stream::Parser;

/// Machine types up to 2.3 do not say what they are, and those up to 2.2 send no VM description, while the source waits
/// for an answer. When nothing has come for so long after the memory, that was all.
const NO_DESCRIPTION: Duration = Duration::from_secs(1);

/// What is noted of the main channel.
pub(super) struct Main<'a> {
    session: &'a Session<'a>,
    stream: &'a Stream,
    /// Waits for the other channels.
    come_level: &'a dyn Fn() -> Result<()>,
    machine: Option<String>,
    section: Option<Section>,
    tally: Tally,
    /// Post-copy: no VM description follows.
    packaged: bool,
    /// A silence may be the end.
    may_end: bool,
    complete: bool,
}

impl<'a> Main<'a> {
    pub(super) fn new(
        session: &'a Session<'a>,
        stream: &'a Stream,
        come_level: &'a dyn Fn() -> Result<()>,
    ) -> Self {
        Self {
            session,
            stream,
            come_level,
            machine: None,
            section: None,
            tally: Tally::new(session.logs()),
            packaged: false,
            may_end: false,
            complete: false,
        }
    }

    /// Reads to the end, and what comes after it until the source closes.
    pub(super) fn read(mut self, mut intake: Intake<Tap<'_>>) -> Result<()> {
        self.stream.set_read_timeout(self.session.options.stall)?;
        let read = self.follow(&mut intake);
        match self.session.is_over() {
            true => Ok(()),
            false => read,
        }
    }

    fn follow(&mut self, intake: &mut Intake<Tap<'_>>) -> Result<()> {
        let mut parser = Parser::new(0, 0);
        let pumped = intake.pump(&mut |bytes| {
            let advance = parser.advance(bytes, self)?;
            self.tell()?;
            Ok(advance)
        });
        match pumped {
            _ if self.complete => Ok(()),
            Err(Error::Link { .. }) if self.may_end && !self.session.is_over() => {
                parser.finish(intake.rest(), self)?;
                self.complete(parser.offset())
            }
            Err(error) => Err(error),
            Ok(_) => {
                parser.finish(intake.rest(), self)?;
                self.complete(parser.offset())
            }
        }
    }

    /// What has come goes to the section, and to all.
    fn tell(&mut self) -> Result<()> {
        let kinds = self.tally.tell(self.session)?;
        self.add(&kinds);
        Ok(())
    }

    fn add(&mut self, kinds: &PageKinds) {
        if let Some(section) = &mut self.section {
            section.pages.add(kinds);
        }
    }

    fn command(&mut self, command: &Command<'_>) -> Result<()> {
        match command {
            Command::OpenReturnPath => self.open_return_path(),
            Command::Ping { value } => self.say(&Reply::Pong { value: *value }),
            Command::PostcopyAdvise { sizes: Some(_) } if self.drops() => {
                self.drop_it("post-copy is enabled at the source, which could lose its guest: disable it")
            }
            Command::SwitchoverStart => self.stopped(),
            Command::Package { .. } => {
                self.packaged = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open_return_path(&mut self) -> Result<()> {
        self.session.note(|notes| notes.reception.return_path = true);
        let newer = self.machine.as_deref().is_some_and(knows_switchover_ack);
        let options = self.session.options;
        match options.ending != Ending::Hold && (newer || options.switchover_ack) {
            true => self.say(&Reply::SwitchoverAck),
            false => Ok(()),
        }
    }

    fn begins(&mut self, kind: SectionKind, name: &str, at: At) -> Result<()> {
        let unheard = kind == SectionKind::Start && !self.session.note(|notes| notes.reception.return_path);
        if unheard && self.drops() {
            return self.drop_it("the source has no return path (capability `return-path`)");
        }
        let (now, pages) = (self.session.now(), PageKinds::default());
        let (name, offset) = (name.to_owned(), at.offset);
        self.section = Some(Section { kind, name, offset, bytes: 0, start: now, end: now, pages });
        if kind == SectionKind::End {
            self.stopped()?;
        }
        Ok(())
    }

    fn section_ends(&mut self, section: &Head, end: u64) -> Result<()> {
        self.ends(end);
        if self.machine.is_none() && section.name == "ram" && section.kind == SectionKind::End {
            self.may_end = true;
            self.stream.set_read_timeout(Some(NO_DESCRIPTION))?;
        }
        Ok(())
    }

    fn ends(&mut self, end: u64) {
        if let Some(mut section) = self.section.take() {
            section.bytes = end - section.offset;
            section.end = self.session.now();
            self.session.note(|notes| notes.reception.add_section(section));
        }
    }

    /// The guest is stopped at the source.
    fn stopped(&mut self) -> Result<()> {
        let now = self.session.now();
        self.session.note(|notes| *notes.reception.stopped.get_or_insert(now));
        if self.drops() {
            return self.drop_it("asked to drop it at switchover");
        }
        Ok(())
    }

    /// Channels meet here: at an end of pages, or at a mark of its own.
    fn meet(&mut self, marked: bool) -> Result<()> {
        self.tell()?;
        self.session.note(|notes| *if marked { &mut notes.marks } else { &mut notes.section_ends } += 1);
        Ok(())
    }

    fn complete(&mut self, end: u64) -> Result<()> {
        if std::mem::replace(&mut self.complete, true) {
            return Ok(());
        }
        self.ends(end);
        (self.come_level)()?;
        let now = self.session.now();
        let heard = self.session.note(|notes| {
            notes.reception.complete = Some(now);
            notes.reception.return_path
        });
        if heard {
            self.say(&Reply::Shut { error: 0 })?;
        }
        self.session.end(Outcome::Accepted, "");
        Ok(())
    }

    fn drops(&self) -> bool {
        self.session.options.ending != Ending::Accept
    }

    /// Lets the source lose the link.
    fn drop_it(&self, reason: &str) -> Result<()> {
        self.session.end(Outcome::Dropped, reason);
        Err(Error::link(reason))
    }

    fn say(&self, reply: &Reply) -> Result<()> {
        let mut stream = self.stream;
        let bytes = reply.encode()?;
        stream.write_all(&bytes).map_err(|error| self.stream.explain("answering on the return path", error))
    }
}

impl Sink for Main<'_> {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        let told = self.tally.see(at, event, blocks.page_bytes(), self.session)?;
        self.add(&told);
        let end = at.offset + at.bytes;
        match event {
            Event::Machine { name } => {
                self.machine = Some((*name).to_owned());
                self.session.note(|notes| notes.reception.machine = Some((*name).to_owned()));
            }
            Event::Setting(Setting::Capability { name: "mapped-ram" }) => {
                let text = "a mapped-ram file has its pages at fixed places and cannot be received";
                return Err(Error::stream(at.offset, text));
            }
            Event::Command(command) => self.command(command)?,
            Event::SectionBegins(section) => self.begins(section.kind, &section.name, at)?,
            Event::Flush => self.meet(true)?,
            Event::PagesEnd => {
                self.session.list(blocks)?;
                self.meet(false)?;
            }
            Event::SectionEnds { section, .. } => self.section_ends(section, end)?,
            Event::SectionsEnd if self.packaged => self.complete(end)?,
            Event::DescriptionEnds => self.complete(end)?,
            _ => {}
        }
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}

/// Whether a machine's type is of QEMU 8.1 or later: `pc-i440fx-8.1`, `virt-10.0`.
fn knows_switchover_ack(machine: &str) -> bool {
    let version = machine.rsplit('-').next().and_then(|version| version.split_once('.'));
    let numbers = version.map(|(major, minor)| (major.parse::<u32>(), minor.parse::<u32>()));
    matches!(numbers, Some((Ok(major), Ok(minor))) if (major, minor) >= (8, 1))
}
