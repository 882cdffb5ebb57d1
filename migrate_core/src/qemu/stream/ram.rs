//! The sections of `ram`: the list of blocks, and the pages' records.
//!
//! A record is a word, `address | flags`, and what the flags call for. The address is an offset in a RAM block, which
//! is named or, by [`SAME_BLOCK`], the one that the channel named last.

use super::mapped::Mapped;
use super::{Parser, State, Then};
use crate::qemu::blocks::{Block, Blocks, MOST_BYTES};
use crate::qemu::cursor::{wrong, Cursor, Read};
use crate::qemu::event::{Content, Event, Page, PageKind, Section, SectionKind, Sink};

const VERSION: u32 = 4;
const ZERO: u64 = 0x02;
const LIST: u64 = 0x04;
const RAW: u64 = 0x08;
const END: u64 = 0x10;
const SAME_BLOCK: u64 = 0x20;
const XBZRLE: u64 = 0x40;
const RDMA: u64 = 0x80;
const COMPRESSED: u64 = 0x100;
const FLUSH: u64 = 0x200;
/// What marks XBZRLE data.
const XBZRLE_MARK: u8 = 1;

/// What is known of memory.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) blocks: Blocks,
    /// Post-copy was announced: blocks may be listed with the size of the pages behind them.
    pub(super) advised: bool,
    ignores_shared: bool,
    mapped: bool,
    /// The block that was named last.
    last: Option<usize>,
    /// Whether channels meet at flushes, rather than at each section's end; the first section tells.
    flushes: Option<bool>,
}

impl Records {
    pub(super) fn begin(&self, section: &Section, at: u64) -> Read<()> {
        match section.version {
            VERSION => Ok(()),
            other => Err(wrong(at, format!("`ram` of version {other}; version {VERSION} was expected"))),
        }
    }

    pub(super) fn forget_block(&mut self) {
        self.last = None;
    }

    pub(super) fn note_capability(&mut self, name: &str) {
        self.ignores_shared |= name == "x-ignore-shared";
        self.mapped |= name == "mapped-ram";
    }

    /// Longest zlib stream of a page, as zlib's own bound has it.
    fn most_compressed(&self) -> u64 {
        let bytes = self.blocks.page_bytes();
        bytes + (bytes >> 12) + (bytes >> 14) + 13
    }

    /// The block of a page: named here or before, and long enough.
    fn block(&self, word: u64, address: u64, cursor: &mut Cursor<'_>) -> Read<usize> {
        let at = cursor.offset() - 8;
        let index = match word & SAME_BLOCK {
            0 => {
                let name = cursor.name("a RAM block's name")?;
                let unlisted =
                    || wrong(at, format!("a page of the RAM block `{name}`, which is not in the list"));
                self.blocks.find(name).ok_or_else(unlisted)?
            }
            _ => self
                .last
                .ok_or_else(|| wrong(at, "a page of the block named last, but none was named before"))?,
        };
        match self.blocks.get(index) {
            Some(block) if address >= block.bytes => {
                let text =
                    format!("a page at {address:#x} of `{}`, which has {:#x} bytes", block.name, block.bytes);
                Err(wrong(at, text))
            }
            _ => Ok(index),
        }
    }

    fn content<'a>(&self, flags: u64, cursor: &mut Cursor<'a>) -> Read<(PageKind, Content<'a>)> {
        let at = cursor.offset();
        Ok(match flags {
            RAW => (PageKind::Raw, Content::Raw(cursor.take(self.blocks.page_bytes() as usize)?)),
            ZERO => (PageKind::Zero, Content::Fill(cursor.byte()?)),
            XBZRLE => {
                let (mark, length) = (cursor.byte()?, cursor.be16()?);
                if mark != XBZRLE_MARK || u64::from(length) > self.blocks.page_bytes() {
                    let text = format!(
                        "XBZRLE data marked {mark} of {length} bytes; 1 and at most a page were expected"
                    );
                    return Err(wrong(at, text));
                }
                (PageKind::Xbzrle, Content::Xbzrle(cursor.take(length.into())?))
            }
            _ => {
                let length = cursor.be32()?;
                if u64::from(length) > self.most_compressed() {
                    let text = format!(
                        "a page compressed to {length} bytes; at most {} can be",
                        self.most_compressed()
                    );
                    return Err(wrong(at, text));
                }
                (PageKind::Compressed, Content::Compressed(cursor.take(length as usize)?))
            }
        })
    }
}

impl Parser {
    /// Reads records until they, the input or the section end.
    pub(super) fn records(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<Option<Then>> {
        let start = self.offset;
        while matches!(self.state, State::Records) {
            let rest = &input[(self.offset - start) as usize..];
            if let Some(then) = self.record(rest, sink)? {
                return Ok(Some(then));
            }
        }
        Ok(None)
    }

    /// The same without any frame around the records.
    pub(super) fn urgent_records(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<Option<Then>> {
        let start = self.offset;
        loop {
            self.record(&input[(self.offset - start) as usize..], sink)?;
            // 7.x ends the channel with a record of its own; nothing has to follow, and the frame stays none.
            self.state = State::Urgent;
        }
    }

    fn record(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<Option<Then>> {
        let mut cursor = Cursor::new(input, self.offset);
        let word = cursor.be64()?;
        let flags = word & (self.ram.blocks.page_bytes() - 1) & !SAME_BLOCK;
        let address = word & !(self.ram.blocks.page_bytes() - 1);
        match flags {
            RAW | ZERO | XBZRLE | COMPRESSED if !self.ram.mapped => {
                self.page(word, flags, address, cursor, sink).map(|()| None)
            }
            END => self.end_of_pages(sink),
            FLUSH => {
                self.ram.flushes = Some(true);
                self.tell(8, &Event::Flush, sink)?;
                Ok(self.stops.then_some(Then::Others))
            }
            LIST => self.begin_list(address).map(|()| None),
            RDMA => Err(wrong(self.offset, "the memory went over RDMA and is not in the stream")),
            _ => Err(wrong(self.offset, format!("{flags:#05x} are no flags of a record of memory here"))),
        }
    }

    fn page(
        &mut self,
        word: u64,
        flags: u64,
        offset: u64,
        mut cursor: Cursor<'_>,
        sink: &mut dyn Sink,
    ) -> Read<()> {
        let block = self.ram.block(word, offset, &mut cursor)?;
        let (kind, content) = self.ram.content(flags, &mut cursor)?;
        self.ram.last = Some(block);
        self.tell(cursor.used(), &Event::Page(Page { block, offset, kind, content }), sink)
    }

    fn end_of_pages(&mut self, sink: &mut dyn Sink) -> Read<Option<Then>> {
        self.tell(8, &Event::PagesEnd, sink)?;
        self.state = State::Footer;
        if matches!(&self.current, Some((section, _)) if section.kind == SectionKind::Start) {
            self.ram.flushes.get_or_insert(false);
        }
        Ok((self.stops && self.ram.flushes == Some(false)).then_some(Then::Others))
    }

    fn begin_list(&mut self, total: u64) -> Read<()> {
        if total > MOST_BYTES || !self.ram.blocks.list().is_empty() {
            let text = "a second list of RAM blocks, or one of more than 64 TiB";
            return Err(wrong(self.offset, format!("{text}: {total} bytes")));
        }
        self.offset += 8;
        self.state = State::List(total);
        Ok(())
    }

    /// One block of the list, whose blocks have `left` bytes.
    pub(super) fn list(&mut self, left: u64, input: &[u8], sink: &mut dyn Sink) -> Read<()> {
        if left == 0 {
            self.state = State::Records;
            return Ok(());
        }
        let mut cursor = Cursor::new(input, self.offset);
        let name = cursor.name("a RAM block's name")?.to_owned();
        let bytes = cursor.be64()?;
        if bytes > left || bytes % self.ram.blocks.page_bytes() != 0 || name.is_empty() {
            let text = format!("RAM block `{name}` of {bytes} bytes, with {left} bytes left in the list");
            return Err(wrong(self.offset, text));
        }
        let backing_page = if self.ram.advised { backing_page(&mut cursor)? } else { None };
        let address = if self.ram.ignores_shared { Some(cursor.be64()?) } else { None };
        let mapped = if self.ram.mapped {
            Some(Mapped::read(&mut cursor, bytes, self.ram.blocks.page_bytes())?)
        } else {
            None
        };
        let block =
            Block { name, bytes, backing_page, address, pages_at: mapped.as_ref().map(Mapped::pages_at) };
        if !self.ram.blocks.add(block.clone()) {
            return Err(wrong(
                self.offset,
                format!("RAM block `{}` is one too many, or listed twice", block.name),
            ));
        }
        self.state = match mapped {
            Some(mapped) => State::Mapped(mapped.of(self.ram.blocks.list().len() - 1, left - bytes)),
            None => State::List(left - bytes),
        };
        self.tell(cursor.used(), &Event::Block(&block), sink)
    }
}

/// The size of the pages behind a block, which is there only where it is not the machine's own. What may stand in its
/// place is a name, whose first byte is not 0, or a record, whose flags make it no power of two from 4096 on.
fn backing_page(cursor: &mut Cursor<'_>) -> Read<Option<u64>> {
    let size = cursor.clone().be64()?;
    if !size.is_power_of_two() || !(1 << 12..=1 << 34).contains(&size) {
        return Ok(None);
    }
    cursor.be64().map(Some)
}
