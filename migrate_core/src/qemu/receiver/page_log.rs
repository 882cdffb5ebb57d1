//! Which pages came when, without their contents: what a rehearsal leaves behind.
//!
//! The file begins with a line of JSON, `{"switchover.pages": 1, "page_bytes": ..., "blocks": [...]}`; rows follow.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::tap::create;
use crate::error::{Error, Result};
use crate::qemu::blocks::Blocks;
use crate::qemu::event::PageKind;
use crate::qemu::marks::Marks;

/// What the first line of a log names, with the version of the format.
pub const LOG_MAGIC: &str = "switchover.pages";
/// Bytes of a row, which stands for pages that follow each other. All numbers are little-endian: `f64` seconds since
/// the first connection, `u64` first page (its number in the block), `u32` block, `u32` pass, `u32` pages, `u8` kind
/// (its number in [`PageKind::ALL`]), `u8` 1 if they had been sent before, `u16` 0.
pub const LOG_ROW: usize = 32;
const VERSION: u32 = 1;

/// Pages that follow each other, of one kind and one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) block: usize,
    pub(super) first: u64,
    pub(super) pages: u64,
    pub(super) pass: usize,
    pub(super) kind: PageKind,
}

impl Run {
    /// Takes one more page in, if that is the next; whether it was.
    pub(super) fn grow(&mut self, page: &Run) -> bool {
        let next = Run { first: self.first + self.pages, pages: 1, ..*self };
        let grows = next == *page;
        self.pages += u64::from(grows);
        grows
    }
}

/// A log that is being written, by several threads in turns.
pub(super) struct PageLog {
    to: BufWriter<File>,
    path: PathBuf,
    sent: Vec<Marks>,
}

impl PageLog {
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self { to: BufWriter::new(create(path)?), path: path.to_owned(), sent: Vec::new() })
    }

    /// The blocks have been listed.
    pub(super) fn begin(&mut self, blocks: &Blocks) -> Result<()> {
        self.sent.resize_with(blocks.list().len(), Marks::default);
        // What it is comes first, for those who look.
        let (page, list) = (blocks.page_bytes(), json!(blocks.list()));
        self.put(
            format!("{{\"{LOG_MAGIC}\":{VERSION},\"page_bytes\":{page},\"blocks\":{list}}}\n").as_bytes(),
        )
    }

    /// The pages of `run` came at `now`.
    pub(super) fn add(&mut self, run: &Run, now: f64) -> Result<()> {
        let Some(sent) = self.sent.get_mut(run.block) else { return Ok(()) };
        let mut rows: Vec<(Run, bool)> = Vec::new();
        for first in run.first..run.first + run.pages {
            let (page, again) = (Run { first, pages: 1, ..*run }, sent.set(first));
            let grown = rows.last_mut().is_some_and(|(last, same)| *same == again && last.grow(&page));
            if !grown {
                rows.push((page, again));
            }
        }
        rows.iter().try_for_each(|(run, again)| self.row(run, *again, now))
    }

    fn row(&mut self, run: &Run, again: bool, now: f64) -> Result<()> {
        let mut row = [0; LOG_ROW];
        row[..8].copy_from_slice(&now.to_le_bytes());
        row[8..16].copy_from_slice(&run.first.to_le_bytes());
        row[16..20].copy_from_slice(&(run.block as u32).to_le_bytes());
        row[20..24].copy_from_slice(&(run.pass as u32).to_le_bytes());
        row[24..28].copy_from_slice(&(run.pages as u32).to_le_bytes());
        row[28..30].copy_from_slice(&[run.kind as u8, u8::from(again)]);
        self.put(&row)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let done = self.to.write_all(bytes);
        done.map_err(|source| self.cannot(source))
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) -> Result<()> {
        let done = self.to.flush();
        done.map_err(|source| self.cannot(source))
    }

    fn cannot(&self, source: std::io::Error) -> Error {
        Error::System { what: format!("writing {}", self.path.display()), source }
    }
}
