//! Multifd channels: packets of pages on connections of their own.
//!
//! A channel begins with a packet that says its number. Each packet after it has a head of a fixed length, which
//! depends on the page size only, then its pages. zlib and zstd are one continuous stream a channel: no packet can be
//! unpacked alone.
//!
//! Layout: QEMU, `migration/multifd.h` (`MultiFDInit_t`, `MultiFDPacket_t`), `multifd-zlib.c`, `multifd-zstd.c`.

mod unpack;

use serde::Serialize;

use super::blocks::Blocks;
use super::cursor::{wrong, Cursor, Read, Stop};
use super::event::{At, Content, Event, Page, PageKind, Sink};
use super::stream::{Advance, Then};
use crate::error::{Error, Result};
use unpack::Unpacker;

/// How a channel and each packet begins.
pub const MAGIC: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
const VERSION: u32 = 1;
/// Bytes of memory in a full packet.
const PACKET_MEMORY: u64 = 0x80000;
/// Bytes of a packet's head before the pages' offsets.
const BEFORE_OFFSETS: usize = 320;
const NAME_BYTES: usize = 256;
const SYNC: u32 = 0x01;
const DEVICE: u32 = 0x40;

/// How a packet's pages are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Not at all.
    None,
    /// One zlib stream a channel.
    Zlib,
    /// One Zstandard stream a channel.
    Zstd,
    /// Intel's accelerator (QEMU 9.1 and later).
    Qpl,
    /// Kunpeng's accelerator (9.1 and later).
    Uadk,
    /// Intel's QuickAssist (9.2 and later).
    Qatzip,
}

impl Packing {
    fn of(flags: u32) -> Option<Self> {
        Some(match flags & 0x3e {
            0x00 => Self::None,
            0x02 => Self::Zlib,
            0x04 => Self::Zstd,
            0x08 => Self::Qpl,
            0x10 => Self::Uadk,
            0x20 => Self::Qatzip,
            _ => return None,
        })
    }
}

/// A packet's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// Grows over all channels.
    pub number: u64,
    /// Pages that it carries.
    pub pages: u32,
    /// Pages that it says are zero.
    pub zeros: u32,
    /// Bytes after the head.
    pub payload: u64,
    /// How they are packed.
    pub packing: Packing,
    /// Whether the channels meet after it.
    pub sync: bool,
    /// Whether it carries a device's state instead of pages.
    pub device: bool,
}

#[derive(Debug)]
enum State {
    Greeting,
    Head,
    /// Raw pages or what is packed; the next page, and bytes of payload left.
    Pages(usize, u64),
    /// Bytes that are not looked into.
    Other(u64),
    Sync,
}

/// Reads a multifd channel.
#[derive(Debug)]
pub struct Channel {
    channel: usize,
    offset: u64,
    state: State,
    page_bytes: u64,
    packet: Option<Packet>,
    /// Block and offsets of the packet's pages.
    block: usize,
    offsets: Vec<u64>,
    unpacker: Option<Unpacker>,
}

impl Channel {
    /// Of pages of `page_bytes` bytes; `channel` is its number in [`At`].
    pub fn new(channel: usize, page_bytes: u64) -> Self {
        Self {
            channel,
            offset: 0,
            state: State::Greeting,
            page_bytes,
            packet: None,
            block: 0,
            offsets: Vec::new(),
            unpacker: None,
        }
    }

    /// Sets the size of pages, which the main channel tells, before the first packet is read.
    pub fn set_page_bytes(&mut self, bytes: u64) {
        self.page_bytes = bytes;
    }

    /// Position of the first byte that was not used.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on, up to the next point of synchronisation ([`Then::Others`]). `input` begins at
    /// [`offset`](Self::offset); `blocks` are those that the main channel has listed.
    ///
    /// # Errors
    /// [`Error::Stream`] with the position of what cannot be there; what `sink` gave.
    pub fn advance(&mut self, input: &[u8], blocks: &Blocks, sink: &mut dyn Sink) -> Result<Advance> {
        let start = self.offset;
        loop {
            let used = (self.offset - start) as usize;
            match self.step(&input[used..], blocks, sink) {
                Ok(None) => {}
                Ok(Some(then)) => return Ok(Advance { used: (self.offset - start) as usize, then }),
                Err(Stop::More(count)) => {
                    return Ok(Advance { used: (self.offset - start) as usize, then: Then::More(count) })
                }
                Err(Stop::Wrong(error)) => return Err(error),
            }
        }
    }

    /// The channel ends, `left` bytes of it unused.
    ///
    /// # Errors
    /// [`Error::Stream`]: it ends inside a packet.
    pub fn finish(&self, left: usize) -> Result<()> {
        match self.state {
            State::Head if left == 0 => Ok(()),
            _ => {
                let packet = self
                    .packet
                    .map_or("the first packet".into(), |p| format!("the packet after number {}", p.number));
                Err(Error::stream(
                    self.offset + left as u64,
                    format!("the multifd channel ends here, inside {packet}"),
                ))
            }
        }
    }

    fn step(&mut self, input: &[u8], blocks: &Blocks, sink: &mut dyn Sink) -> Read<Option<Then>> {
        match self.state {
            State::Greeting => self.greeting(input, blocks, sink)?,
            State::Head => self.head(input, blocks, sink)?,
            State::Pages(next, left) => match self.packet {
                Some(packet) if packet.packing != Packing::None => {
                    self.packed(next, left, input, blocks, sink)?;
                }
                _ => self.raw(next, input, blocks, sink)?,
            },
            State::Other(left) => self.pass(left, input, blocks, sink)?,
            State::Sync => {
                self.state = State::Head;
                self.tell(0, &Event::Sync, blocks, sink)?;
                return Ok(Some(Then::Others));
            }
        }
        Ok(None)
    }

    fn tell(&mut self, bytes: usize, event: &Event<'_>, blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        let at = At { channel: self.channel, offset: self.offset, bytes: bytes as u64 };
        self.offset += bytes as u64;
        Ok(sink.event(at, event, blocks)?)
    }

    fn greeting(&mut self, input: &[u8], blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        let mut cursor = Cursor::new(input, self.offset);
        begins(&mut cursor)?;
        let uuid = cursor.array()?;
        let number = cursor.byte()?;
        cursor.take(39)?;
        self.state = State::Head;
        self.tell(cursor.used(), &Event::Channel { number, uuid }, blocks, sink)
    }

    fn most_pages(&self) -> u64 {
        PACKET_MEMORY / self.page_bytes
    }

    fn head(&mut self, input: &[u8], blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        let mut cursor = Cursor::new(input, self.offset);
        begins(&mut cursor)?;
        let flags = cursor.be32()?;
        if flags & DEVICE != 0 {
            return self.device(cursor, blocks, sink);
        }
        let Some(packing) = Packing::of(flags) else {
            return Err(wrong(self.offset + 8, format!("{flags:#x} are no flags of a multifd packet")));
        };
        cursor.be32()?;
        let (pages, size, number, zeros) = (cursor.be32()?, cursor.be32()?, cursor.be64()?, cursor.be32()?);
        cursor.take(28)?;
        let name = cursor.take(NAME_BYTES)?;
        let offsets = cursor.take(8 * self.most_pages() as usize)?;
        let count = u64::from(pages) + u64::from(zeros);
        if count > self.most_pages() {
            let text =
                format!("a multifd packet of {count} pages; at most {} were expected", self.most_pages());
            return Err(wrong(self.offset + 16, text));
        }
        // A packet without pages has no payload, whatever size it names (before QEMU 9.0).
        let payload = if pages > 0 { u64::from(size) } else { 0 };
        if packing == Packing::None && payload != u64::from(pages) * self.page_bytes {
            let text = format!("a multifd packet of {pages} pages in {payload} bytes, not packed");
            return Err(wrong(self.offset + 20, text));
        }
        let packet =
            Packet { number, pages, zeros, payload, packing, sync: flags & SYNC != 0, device: false };
        self.offsets = offsets.chunks_exact(8).take(count as usize).map(number_of).collect();
        if count > 0 {
            self.block = self.check(name, blocks)?;
        }
        self.begin(packet, cursor.used(), blocks, sink)
    }

    /// The block that is named, if all offsets are in it.
    fn check(&self, name: &[u8], blocks: &Blocks) -> Read<usize> {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let found = std::str::from_utf8(name).ok().and_then(|name| blocks.find(name));
        let Some((index, block)) = found.and_then(|index| Some((index, blocks.get(index)?))) else {
            let text = format!("pages of the RAM block `{}`, which is not in the list", name.escape_ascii());
            return Err(wrong(self.offset + 64, text));
        };
        match self.offsets.iter().position(|at| *at >= block.bytes || at % self.page_bytes != 0) {
            Some(bad) => {
                let text = format!(
                    "a page at {:#x} of `{}`, which has {:#x} bytes",
                    self.offsets[bad], block.name, block.bytes
                );
                Err(wrong(self.offset + (BEFORE_OFFSETS + 8 * bad) as u64, text))
            }
            None => Ok(index),
        }
    }

    fn begin(&mut self, packet: Packet, head: usize, blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        let zeros_at = self.offset + (BEFORE_OFFSETS + 8 * packet.pages as usize) as u64;
        self.tell(head, &Event::Packet(packet), blocks, sink)?;
        for (index, offset) in self.offsets[packet.pages as usize..].iter().enumerate() {
            let at = At { channel: self.channel, offset: zeros_at + 8 * index as u64, bytes: 0 };
            let content = Content::Fill(0);
            let page = Page { block: self.block, offset: *offset, kind: PageKind::Zero, content };
            sink.event(at, &Event::Page(page), blocks)?;
        }
        self.packet = Some(packet);
        let packed = packet.packing != Packing::None && packet.pages > 0;
        if packed && !sink.wants_content() {
            return self.leave_packed(packet, blocks, sink);
        }
        if packed {
            self.prepare(packet.packing)?;
        }
        self.state = match packet.pages {
            0 => self.after(),
            _ => State::Pages(0, packet.payload),
        };
        Ok(())
    }

    /// An unpacker for the channel; one that is there goes on where it stopped.
    fn prepare(&mut self, packing: Packing) -> Read<()> {
        if !self.unpacker.as_ref().is_some_and(|unpacker| unpacker.packing() == packing) {
            self.unpacker = Some(Unpacker::new(packing, self.page_bytes as usize, self.offset)?);
        }
        Ok(())
    }

    fn leave_packed(&mut self, packet: Packet, blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        let share = packet.payload / u64::from(packet.pages);
        for offset in &self.offsets[..packet.pages as usize] {
            let at = At { channel: self.channel, offset: self.offset, bytes: share };
            let page = Page {
                block: self.block,
                offset: *offset,
                kind: PageKind::Compressed,
                content: Content::Packed,
            };
            sink.event(at, &Event::Page(page), blocks)?;
        }
        self.state = State::Other(packet.payload);
        Ok(())
    }

    fn after(&self) -> State {
        match self.packet {
            Some(Packet { sync: true, .. }) => State::Sync,
            _ => State::Head,
        }
    }

    fn raw(&mut self, next: usize, input: &[u8], blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        let bytes = Cursor::new(input, self.offset).take(self.page_bytes as usize)?;
        let page = Page {
            block: self.block,
            offset: self.offsets[next],
            kind: PageKind::Raw,
            content: Content::Raw(bytes),
        };
        let last = self.packet.is_none_or(|packet| next + 1 >= packet.pages as usize);
        self.state = if last { self.after() } else { State::Pages(next + 1, 0) };
        self.tell(bytes.len(), &Event::Page(page), blocks, sink)
    }

    fn packed(
        &mut self,
        mut next: usize,
        left: u64,
        input: &[u8],
        blocks: &Blocks,
        sink: &mut dyn Sink,
    ) -> Read<()> {
        let pages = self.packet.map_or(0, |packet| packet.pages as usize);
        if left == 0 {
            if next < pages {
                return Err(wrong(
                    self.offset,
                    format!("a packet unpacks to {next} pages; {pages} were expected"),
                ));
            }
            self.state = self.after();
            return Ok(());
        }
        let piece = &input[..input.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        if piece.is_empty() {
            return Err(Stop::More(1));
        }
        let (block, offsets, at) = (self.block, &self.offsets, self.offset);
        let bytes = self.packet.map_or(0, |packet| packet.payload / u64::from(packet.pages.max(1)));
        let at = At { channel: self.channel, offset: at, bytes };
        let Some(unpacker) = &mut self.unpacker else { return Ok(()) };
        unpacker.unpack(piece, at.offset, &mut |bytes| {
            let Some(offset) = offsets[..pages].get(next) else {
                return Err(Error::stream(
                    at.offset,
                    format!("a packet unpacks to more than its {pages} pages"),
                ));
            };
            next += 1;
            let page =
                Page { block, offset: *offset, kind: PageKind::Compressed, content: Content::Raw(bytes) };
            sink.event(at, &Event::Page(page), blocks)
        })?;
        self.offset += piece.len() as u64;
        self.state = State::Pages(next, left - piece.len() as u64);
        Ok(())
    }

    fn device(&mut self, mut cursor: Cursor<'_>, blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        cursor.take(NAME_BYTES + 4)?;
        let payload = u64::from(cursor.be32()?);
        let packing = Packing::None;
        let packet = Packet { number: 0, pages: 0, zeros: 0, payload, packing, sync: false, device: true };
        self.packet = Some(packet);
        self.state = State::Other(payload);
        self.tell(cursor.used(), &Event::Packet(packet), blocks, sink)
    }

    fn pass(&mut self, left: u64, input: &[u8], blocks: &Blocks, sink: &mut dyn Sink) -> Read<()> {
        if left == 0 {
            self.state = self.after();
            return Ok(());
        }
        let here = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if here == 0 {
            return Err(Stop::More(1));
        }
        self.state = State::Other(left - here as u64);
        if self.packet.is_some_and(|packet| packet.device) {
            return self.tell(here, &Event::Data(&input[..here]), blocks, sink);
        }
        self.offset += here as u64;
        Ok(())
    }
}

fn begins(cursor: &mut Cursor<'_>) -> Read<()> {
    let at = cursor.offset();
    let (magic, version) = (cursor.array::<4>()?, cursor.be32()?);
    match magic == MAGIC && version == VERSION {
        true => Ok(()),
        false => Err(wrong(at, format!("{magic:02x?} version {version} is not how a multifd packet begins"))),
    }
}

fn number_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
