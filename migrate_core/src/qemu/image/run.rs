//! Neighbouring pages, gathered so that one system call writes many.

use super::Placed;
use crate::error::Result;

/// Most bytes that are gathered.
const MOST: usize = 256 << 10;

/// Pages side by side in one block.
#[derive(Debug, Default)]
pub(super) struct Run {
    block: usize,
    offset: u64,
    bytes: Vec<u8>,
}

impl Run {
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Whether a page can be added.
    pub(super) fn takes(&self, block: usize, offset: u64, bytes: usize) -> bool {
        let next = block == self.block && offset == self.offset + self.bytes.len() as u64;
        self.bytes.is_empty() || next && self.bytes.len() + bytes <= MOST
    }

    pub(super) fn add(&mut self, block: usize, offset: u64, bytes: &[u8]) {
        if self.bytes.is_empty() {
            (self.block, self.offset) = (block, offset);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes all and is empty.
    pub(super) fn write(&mut self, placed: &Placed) -> Result<()> {
        if !self.bytes.is_empty() {
            placed.write(self.offset, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}
