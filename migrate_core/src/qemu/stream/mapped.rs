//! mapped-ram: each block's pages at fixed places in the file, and a bitmap that says which are there.
//!
//! `name | be64 length | be32 version, be64 page size, be64 bitmap's place, be64 pages' place | bitmap | ... | pages`.
//! A page whose bit is clear is zero, whatever lies in its place.

use super::{piece, Parser, State, Then};
use crate::qemu::cursor::{wrong, Cursor, Read};
use crate::qemu::event::{Content, Event, Page, PageKind, Sink};

const VERSION: u32 = 1;
/// Bits of the bitmap come in words of so many.
const WORD: u64 = 64;
/// Latest place in a file.
const MOST_OFFSET: u64 = 1 << 62;

/// A block that is being read.
#[derive(Debug)]
pub(super) struct Mapped {
    block: usize,
    /// Bytes of memory in the list after this block.
    left: u64,
    /// Page `i` is there if bit `i % 8` of byte `i / 8` is set.
    bits: Vec<u8>,
    bitmap_left: u64,
    pages_at: u64,
    /// Pages before this one are done.
    next: u64,
    pages: u64,
    page_bytes: u64,
}

impl Mapped {
    /// The header of a block of `bytes` bytes.
    pub(super) fn read(cursor: &mut Cursor<'_>, bytes: u64, page_bytes: u64) -> Read<Self> {
        let at = cursor.offset();
        let (version, page, bitmap_at, pages_at) =
            (cursor.be32()?, cursor.be64()?, cursor.be64()?, cursor.be64()?);
        if version != VERSION || page != page_bytes {
            let text = format!("mapped-ram of version {version} with pages of {page} bytes");
            return Err(wrong(at, format!("{text}; version {VERSION} with {page_bytes} bytes was expected")));
        }
        let pages = bytes / page_bytes;
        let bitmap_left = pages.next_multiple_of(WORD) / 8;
        if bitmap_at != cursor.offset() || pages_at < bitmap_at + bitmap_left || pages_at > MOST_OFFSET {
            let text = format!("bitmap at {bitmap_at} and pages at {pages_at} of a mapped-ram block");
            return Err(wrong(
                at,
                format!("{text}; the bitmap, {bitmap_left} bytes, begins at {}", cursor.offset()),
            ));
        }
        let bits = Vec::new();
        Ok(Self { block: 0, left: 0, bits, bitmap_left, pages_at, next: 0, pages, page_bytes })
    }

    pub(super) fn of(self, block: usize, left: u64) -> Self {
        Self { block, left, ..self }
    }

    pub(super) fn pages_at(&self) -> u64 {
        self.pages_at
    }

    /// Bytes from `offset` on that tell nothing.
    pub(super) fn idle(&self, offset: u64) -> u64 {
        match self.bitmap_left {
            0 => (self.pages_at + self.next * self.page_bytes).saturating_sub(offset),
            _ => 0,
        }
    }

    fn is_there(&self, page: u64) -> bool {
        self.bits.get((page / 8) as usize).is_some_and(|byte| byte >> (page % 8) & 1 == 1)
    }

    /// Moves on to the next page that is there, or to the end.
    fn find_next(&mut self) {
        while self.next < self.pages && !self.is_there(self.next) {
            let empty = self.next % 8 == 0 && self.bits.get((self.next / 8) as usize) == Some(&0);
            self.next = (self.next + if empty { 8 } else { 1 }).min(self.pages);
        }
    }
}

impl Parser {
    /// Reads on in a block.
    pub(super) fn mapped(&mut self, input: &[u8], sink: &mut dyn Sink) -> Read<Option<Then>> {
        let State::Mapped(mapped) = &mut self.state else { return Ok(None) };
        if mapped.bitmap_left > 0 {
            let piece = piece(input, mapped.bitmap_left)?;
            mapped.bits.extend_from_slice(piece);
            mapped.bitmap_left -= piece.len() as u64;
            self.offset += piece.len() as u64;
            return Ok(None);
        }
        mapped.find_next();
        let idle = mapped.idle(self.offset);
        if idle > 0 {
            let passed = idle.min(input.len() as u64);
            self.offset += passed;
            return Ok((passed < idle).then_some(Then::Skip(idle - passed)));
        }
        if mapped.next >= mapped.pages {
            self.state = State::List(mapped.left);
            return Ok(None);
        }
        let content = Content::Raw(Cursor::new(input, self.offset).take(mapped.page_bytes as usize)?);
        let offset = mapped.next * mapped.page_bytes;
        let page = Page { block: mapped.block, offset, kind: PageKind::Raw, content };
        mapped.next += 1;
        self.tell(page_bytes(content), &Event::Page(page), sink)?;
        Ok(None)
    }
}

fn page_bytes(content: Content<'_>) -> usize {
    match content {
        Content::Raw(bytes) => bytes.len(),
        _ => 0,
    }
}
