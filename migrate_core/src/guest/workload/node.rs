//! A node of the B-tree: one page of sorted pairs under a checksum.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::guest::{Region, PAGE};

/// Bytes before a node's entries: checksum of the rest, level, number of entries.
const HEAD: usize = 16;
/// Entries that fit.
pub const MOST: usize = (PAGE - HEAD) / 16;
/// The level of a page that is free; its only entry names the next free page.
pub const FREE: u32 = u32::MAX;
/// No tree that fits a machine is higher.
const HIGHEST: u32 = 16;

/// A node out of memory: key and value in a leaf (level 0), least key and child's page above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Height above the leaves, or [`FREE`].
    pub level: u32,
    /// Sorted by key.
    pub entries: Vec<(u64, u64)>,
}

impl Node {
    /// Reads the node in `page`, whatever bytes are there.
    pub fn load(ram: &Region, page: u64) -> Result<Self> {
        let wrong = |how: &str| Err(Error::Verification(format!("btree: page {page} is damaged: {how}")));
        if page >= ram.pages() {
            return wrong("it lies outside memory");
        }
        let mut bytes = [0; PAGE];
        ram.read(page * PAGE as u64, &mut bytes);
        if word(&bytes, 0) != xxh3_64(&bytes[8..]) {
            return wrong("it does not have its checksum");
        }
        let (level, count) = (word(&bytes, 8) as u32, (word(&bytes, 8) >> 32) as usize);
        if count > MOST || (level > HIGHEST && level != FREE) {
            return wrong("it is no node");
        }
        let pair = |i| (word(&bytes, HEAD + i * 16), word(&bytes, HEAD + i * 16 + 8));
        Ok(Self { level, entries: (0..count).map(pair).collect() })
    }

    /// Writes the node into `page`. It must have no more than [`MOST`] entries.
    pub fn store(&self, ram: &Region, page: u64) {
        let mut bytes = [0; PAGE];
        let head = u64::from(self.level) | (self.entries.len() as u64) << 32;
        bytes[8..16].copy_from_slice(&head.to_le_bytes());
        for (place, (key, value)) in bytes[HEAD..].chunks_exact_mut(16).zip(&self.entries) {
            place[..8].copy_from_slice(&key.to_le_bytes());
            place[8..].copy_from_slice(&value.to_le_bytes());
        }
        let checksum = xxh3_64(&bytes[8..]);
        bytes[..8].copy_from_slice(&checksum.to_le_bytes());
        ram.write(page * PAGE as u64, &bytes);
    }

    /// The child that holds `key`, as an index of the entries of an inner node.
    pub fn child(&self, key: u64) -> usize {
        // Keys below the first child's least belong to it too: its lower bound is that of its parent.
        self.entries.partition_point(|(least, _)| *least <= key).saturating_sub(1)
    }
}

fn word(bytes: &[u8; PAGE], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
