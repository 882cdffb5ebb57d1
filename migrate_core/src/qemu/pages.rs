//! A row for each page of a capture: which was sent when, how, and whether it had been sent before.

use super::blocks::Blocks;
use super::event::{At, Event, Page, Sink};
use super::marks::Marks;
use super::passes::Passes;
use super::times::Times;
use crate::error::Result;

/// Bytes of a row. All numbers are little-endian: `f64` seconds since the first connection (not a number where that is
/// not known), `u64` position in the channel, `u64` page (its number in the block), `u32` block, `u32` pass, `u32`
/// bytes in the stream, `u16` channel, `u8` kind (its number in [`PageKind::ALL`](super::event::PageKind::ALL)), `u8`
/// 1 if the page had been sent before.
pub const ROW: usize = 40;

/// Gathers rows until they are taken.
#[derive(Debug, Default)]
pub struct Rows {
    times: Times,
    passes: Passes,
    sent: Vec<Marks>,
    rows: Vec<u8>,
}

impl Rows {
    /// With moments from `times`.
    pub fn new(times: Times) -> Self {
        Self { times, ..Self::default() }
    }

    /// The rows so far, [`ROW`] bytes each.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rows)
    }

    fn page(&mut self, at: At, page: &Page<'_>, page_bytes: u64) {
        let number = page.offset / page_bytes;
        if page.block >= self.sent.len() {
            self.sent.resize_with(page.block + 1, Marks::default);
        }
        let again = self.sent[page.block].set(number);
        let (pass, _) = self.passes.current();
        self.rows.extend_from_slice(&self.times.at(at).unwrap_or(f64::NAN).to_le_bytes());
        self.rows.extend_from_slice(&at.offset.to_le_bytes());
        self.rows.extend_from_slice(&number.to_le_bytes());
        self.rows.extend_from_slice(&(page.block as u32).to_le_bytes());
        self.rows.extend_from_slice(&(pass as u32).to_le_bytes());
        self.rows.extend_from_slice(&(at.bytes as u32).to_le_bytes());
        self.rows.extend_from_slice(&(at.channel as u16).to_le_bytes());
        self.rows.extend_from_slice(&[page.kind as u8, u8::from(again)]);
    }
}

impl Sink for Rows {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        self.passes.see(at.channel, event);
        if let Event::Page(page) = event {
            self.page(at, page, blocks.page_bytes());
        }
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}
