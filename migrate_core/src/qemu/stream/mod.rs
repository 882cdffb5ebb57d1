//! The main stream, read as it flows: bytes in, [`Event`]s out, in memory that the stream cannot make grow.
//!
//! [`Parser`] does no I/O. A driver hands it the bytes that it has not used yet and is told how many it used and what
//! it waits for; [`Feed`] keeps unused bytes for drivers that only push, such as a receiver on a socket.
//!
//! Sections of devices carry no length. Where the VM description was seen beforehand, it gives their
//! [`lengths`](Parser::expect_lengths); otherwise a section ends where its footer is followed by what can begin
//! another element.
//!
//! Layout: QEMU, `migration/savevm.c` (`qemu_loadvm_state_main`) and `migration/ram.c` (`ram_load_precopy`).

mod command;
mod device;
mod feed;
mod head;
mod mapped;
mod ram;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use device::Lengths;
pub use feed::Feed;
pub use head::is_main;

use super::blocks::Blocks;
use super::cursor::{wrong, Cursor, Read, Stop};
use super::event::{At, Event, Section, SectionKind, Sink};
use crate::error::{Error, Result};
use mapped::Mapped;
use ram::Records;

/// Most sections that are told apart by their numbers.
const MOST_SECTIONS: usize = 1 << 16;
/// Longest VM description, in bytes.
pub const MOST_DESCRIPTION: u64 = 64 << 20;
const FOOTER: u8 = 0x7e;

/// What a parser waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Bytes: at least so many have to be there, unused ones included, for it to get on.
    More(usize),
    /// The next bytes, so many, tell nothing: they may be [skipped](Parser::skip) or handed over.
    Skip(u64),
    /// The other channels, up to their next point of synchronisation; then it goes on.
    Others,
}

/// What became of bytes that were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// So many were used.
    pub used: usize,
    /// Why no more.
    pub then: Then,
}

/// Where in the stream the parser is.
#[derive(Debug)]
enum State {
    Header,
    /// The configuration, or what follows the header without one.
    Configuration,
    Settings,
    Element,
    Records,
    /// The list of blocks, so many bytes of memory short of complete.
    List(u64),
    Mapped(Mapped),
    Device(device::Scan),
    Footer,
    AfterSections,
    Description(u64),
    Trailing,
    /// Bare pages of an urgent channel.
    Urgent,
}

/// Reads a main channel.
#[derive(Debug)]
pub struct Parser {
    channel: usize,
    offset: u64,
    state: State,
    sections: HashMap<u32, Section>,
    current: Option<(Section, u64)>,
    /// Whether sections have footers; `None` before the first that tells.
    footers: Option<bool>,
    package_end: Option<u64>,
    ram: Records,
    lengths: Option<Lengths>,
    /// The input is over: what is there is all there will be.
    ended: bool,
    /// Stop where other channels have to catch up.
    stops: bool,
    last: Option<(Section, u64)>,
}

impl Parser {
    /// Of a channel with that number in [`At`], whose first byte is at `offset` of its file.
    pub fn new(channel: usize, offset: u64) -> Self {
        Self {
            channel,
            offset,
            state: State::Header,
            sections: HashMap::new(),
            current: None,
            footers: None,
            package_end: None,
            ram: Records::default(),
            lengths: None,
            ended: false,
            stops: false,
            last: None,
        }
    }

    /// Takes device sections to be as long as the VM description says.
    pub fn expect_lengths(&mut self, lengths: Lengths) {
        self.lengths = Some(lengths);
    }

    /// Stops with [`Then::Others`] where multifd channels have to catch up.
    pub fn stop_for_others(&mut self) {
        self.stops = true;
    }

    /// Goes on with another connection: a post-copy that was broken off and taken up again. The connection has no
    /// header, and its first page names its block.
    pub fn reconnect(&mut self, channel: usize) {
        self.be_on(channel, State::Element);
    }

    /// Goes on with an urgent channel of a post-copy: pages without any frame, until it closes.
    pub fn urgent(&mut self, channel: usize) {
        self.be_on(channel, State::Urgent);
    }

    fn be_on(&mut self, channel: usize, state: State) {
        (self.channel, self.offset, self.state) = (channel, 0, state);
        (self.current, self.package_end, self.ended) = (None, None, false);
        self.ram.forget_block();
    }

    /// Position of the first byte that was not used.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The RAM blocks that have been listed.
    pub fn blocks(&self) -> &Blocks {
        &self.ram.blocks
    }

    /// Size of a page in bytes.
    pub fn page_bytes(&self) -> u64 {
        self.ram.blocks.page_bytes()
    }

    /// Whether the stream may end here.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::AfterSections | State::Trailing | State::Urgent)
    }

    /// Reads on. `input` begins at [`offset`](Self::offset).
    ///
    /// # Errors
    /// [`Error::Stream`] with the position of what cannot be there, and what was expected; what `sink` gave.
    pub fn advance(&mut self, input: &[u8], sink: &mut dyn Sink) -> Result<Advance> {
        let mut used = 0;
        loop {
            let before = self.offset;
            let step = self.step(&input[used..], sink);
            used += (self.offset - before) as usize;
            match step {
                Ok(None) => {}
                Ok(Some(then)) => return Ok(Advance { used, then }),
                Err(Stop::More(count)) => return Ok(Advance { used, then: Then::More(count) }),
                Err(Stop::Wrong(error)) => return Err(error),
            }
        }
    }

    /// Passes over bytes that [`Then::Skip`] allowed to.
    pub fn skip(&mut self, count: u64) {
        if let State::Mapped(mapped) = &self.state {
            self.offset += count.min(mapped.idle(self.offset));
        }
    }

    /// The input ends after `rest`, what is left unused.
    ///
    /// # Errors
    /// [`Error::Stream`]: the stream should go on; the text says what was complete.
    pub fn finish(&mut self, rest: &[u8], sink: &mut dyn Sink) -> Result<()> {
        self.ended = true;
        let used = self.advance(rest, sink)?.used;
        match self.is_complete() && used == rest.len() {
            true => Ok(()),
            false => Err(self.early_end(rest.len() - used)),
        }
    }

    fn early_end(&self, left: usize) -> Error {
        let name = |section: &Section| {
            format!("`{}` ({}, number {})", section.name, section.kind.name(), section.id)
        };
        let inside = match &self.current {
            Some((section, began)) => {
                format!("inside the section {} that began at byte {began}", name(section))
            }
            None if matches!(self.state, State::Header | State::Configuration) => {
                "before its first section".into()
            }
            None if matches!(self.state, State::Description(_)) => "inside the VM description".into(),
            None => "between two sections, without the mark of its end".into(),
        };
        let last = match &self.last {
            Some((section, end)) => {
                format!("the last complete section was {}, which ends at byte {end}", name(section))
            }
            None => "no section is complete".into(),
        };
        Error::stream(self.offset + left as u64, format!("the stream ends here, {inside}; {last}"))
    }

    /// Reads one thing, or a run of pages.
    fn step(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<Option<Then>> {
        let (input, cut) = self.within_package(input);
        let result = match self.state {
            State::Header => self.header(input, sink),
            State::Configuration => self.configuration(input, sink),
            State::Settings => self.setting(input, sink),
            State::Element => self.element(input, sink),
            State::Records => return self.cut_short(cut, |parser| parser.records(input, sink)),
            State::List(left) => self.list(left, input, sink),
            State::Mapped(_) => return self.mapped(input, sink),
            State::Device(scan) => self.device(scan, input, sink),
            State::Footer => self.footer(input, sink),
            State::AfterSections => self.after_sections(input),
            State::Description(left) => self.description(left, input, sink),
            State::Trailing => self.trailing(input, sink),
            State::Urgent => return self.urgent_records(input, sink),
        };
        self.cut_short(cut, |_| result.map(|()| None))
    }

    /// The part of the input that is in the package, if there is one; whether that is less.
    fn within_package<'a>(&self, input: &'a [u8]) -> (&'a [u8], bool) {
        let left = self.package_end.map_or(u64::MAX, |end| end.saturating_sub(self.offset));
        match left <= input.len() as u64 {
            true => (&input[..left as usize], true),
            false => (input, false),
        }
    }

    fn cut_short<T>(&mut self, cut: bool, work: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        match work(self) {
            Err(Stop::More(_)) if cut => {
                let end = self.package_end.unwrap_or_default();
                Err(wrong(end, "the package ends here, inside something that it holds"))
            }
            other => other,
        }
    }

    /// Tells `event`, which takes the next `bytes` bytes, and passes over them.
    fn tell(&mut self, bytes: usize, event: &Event<'_>, sink: &mut dyn Sink) -> Read<()> {
        let at = At { channel: self.channel, offset: self.offset, bytes: bytes as u64 };
        self.offset += bytes as u64;
        Ok(sink.event(at, event, &self.ram.blocks)?)
    }

    fn element(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        if self.package_end == Some(self.offset) {
            self.package_end = None;
            return self.tell(0, &Event::PackageEnds, sink);
        }
        let mut cursor = Cursor::new(input, self.offset);
        match cursor.byte()? {
            0 if self.package_end.is_none() => {
                self.state = State::AfterSections;
                self.tell(1, &Event::SectionsEnd, sink)
            }
            1 => self.begin(SectionKind::Start, cursor, sink),
            2 => self.begin(SectionKind::Part, cursor, sink),
            3 => self.begin(SectionKind::End, cursor, sink),
            4 => self.begin(SectionKind::Full, cursor, sink),
            8 => self.command(cursor, sink),
            other => {
                Err(wrong(self.offset, format!("{other:#04x} is none of the elements that may follow here")))
            }
        }
    }

    fn begin(&mut self, kind: SectionKind, mut cursor: Cursor<'_>, sink: &mut dyn Sink) -> Read<()> {
        let id = cursor.be32()?;
        let section = match kind {
            SectionKind::Start | SectionKind::Full => self.head(kind, id, &mut cursor)?,
            SectionKind::Part | SectionKind::End => self.known(kind, id)?,
        };
        self.state = match section.name == "ram" && kind != SectionKind::Full {
            true => self.ram.begin(&section, self.offset).map(|()| State::Records)?,
            false => State::Device(self.scan_for(&section)),
        };
        let began = self.offset;
        self.tell(cursor.used(), &Event::SectionBegins(&section), sink)?;
        self.current = Some((section, began));
        Ok(())
    }

    fn head(&mut self, kind: SectionKind, id: u32, cursor: &mut Cursor<'_>) -> Read<Section> {
        let name = cursor.name("a section's name")?.to_owned();
        let section = Section { kind, id, name, instance: cursor.be32()?, version: cursor.be32()? };
        if self.sections.len() >= MOST_SECTIONS {
            return Err(wrong(self.offset, format!("more than {MOST_SECTIONS} sections")));
        }
        self.sections.insert(id, section.clone());
        Ok(section)
    }

    fn known(&self, kind: SectionKind, id: u32) -> Read<Section> {
        let known = self.sections.get(&id);
        let unknown =
            || wrong(self.offset, format!("section {id} goes on, but none of that number has begun"));
        known.map(|section| Section { kind, ..section.clone() }).ok_or_else(unknown)
    }

    fn footer(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        let Some((section, began)) = self.current.clone() else {
            return Err(wrong(self.offset, "a footer without a section"));
        };
        let bytes = self.footer_bytes(&section, input)?;
        self.tell(bytes, &Event::SectionEnds { section: &section, began }, sink)?;
        self.last = Some((section, self.offset));
        (self.current, self.state) = (None, State::Element);
        Ok(())
    }

    /// Length of the footer that is here, which is 0 where sections have none.
    fn footer_bytes(&mut self, section: &Section, input: &[u8]) -> Read<usize> {
        let mut cursor = Cursor::new(input, self.offset);
        let first = match cursor.byte() {
            // The last section of a stream without footers, or of a package.
            Err(Stop::More(_)) if self.footers == Some(false) => return Ok(0),
            first => first?,
        };
        if self.footers == Some(false) || self.footers.is_none() && first != FOOTER {
            self.footers = Some(false);
            return Ok(0);
        }
        let id = cursor.be32()?;
        if first != FOOTER || id != section.id {
            let text = format!("section `{}` should end here with 7e {:08x}", section.name, section.id);
            return Err(wrong(self.offset, format!("{text}, but {first:02x} {id:08x} follows")));
        }
        self.footers = Some(true);
        Ok(cursor.used())
    }

    fn after_sections(&mut self, input: &[u8]) -> Read<()> {
        let mut cursor = Cursor::new(input, self.offset);
        if cursor.byte()? != 6 {
            self.state = State::Trailing;
            return Ok(());
        }
        let length = u64::from(cursor.be32()?);
        if length > MOST_DESCRIPTION {
            let text =
                format!("a VM description of {length} bytes; at most {MOST_DESCRIPTION} were expected");
            return Err(wrong(self.offset, text));
        }
        self.offset += cursor.used() as u64;
        self.state = State::Description(length);
        Ok(())
    }

    fn description(&mut self, left: u64, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        if left == 0 {
            self.state = State::Trailing;
            return self.tell(0, &Event::DescriptionEnds, sink);
        }
        let piece = piece(input, left)?;
        self.state = State::Description(left - piece.len() as u64);
        self.tell(piece.len(), &Event::Description(piece), sink)
    }

    fn trailing(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        let piece = piece(input, u64::MAX)?;
        self.tell(piece.len(), &Event::Trailing(piece), sink)
    }
}

/// What is there of the next `left` bytes, at least one.
fn piece(input: &[u8], left: u64) -> Read<&[u8]> {
    match input {
        [] => Err(Stop::More(1)),
        _ => Ok(&input[..input.len().min(usize::try_from(left).unwrap_or(usize::MAX))]),
    }
}
