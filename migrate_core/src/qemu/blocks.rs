//! The RAM blocks that a stream lists.

use std::collections::HashMap;

use serde::Serialize;

/// Most RAM blocks of a stream; QEMU's largest machines have a few hundred.
pub const MOST_BLOCKS: usize = 1 << 16;
/// Most memory of a guest, in bytes: 64 TiB.
pub const MOST_BYTES: u64 = 1 << 46;

/// A RAM block as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Block {
    /// Its name, such as `pc.ram`.
    pub name: String,
    /// Its length in bytes, a multiple of the page size.
    pub bytes: u64,
    /// Size of the pages that back it, in bytes, where post-copy has to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_page: Option<u64>,
    /// Where it lies in the guest's physical memory, where shared memory is left out (`x-ignore-shared`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// Where its pages lie in a mapped-ram file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_at: Option<u64>,
}

/// All blocks in the order of the list, which is the order in which the source walks over them.
#[derive(Debug, Clone)]
pub struct Blocks {
    page_bytes: u64,
    list: Vec<Block>,
    by_name: HashMap<String, usize>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { page_bytes: 4096, list: Vec::new(), by_name: HashMap::new() }
    }
}

impl Blocks {
    /// Size of a page in bytes: 4096 where the stream does not say otherwise.
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// Sets the size of a page.
    pub fn set_page_bytes(&mut self, bytes: u64) {
        self.page_bytes = bytes;
    }

    /// The list.
    pub fn list(&self) -> &[Block] {
        &self.list
    }

    /// The block of that number.
    pub fn get(&self, index: usize) -> Option<&Block> {
        self.list.get(index)
    }

    /// The number of the block of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Adds a block; `false` if there is one of that name, or too many.
    pub fn add(&mut self, block: Block) -> bool {
        let index = self.list.len();
        if index >= MOST_BLOCKS || self.by_name.contains_key(&block.name) {
            return false;
        }
        self.by_name.insert(block.name.clone(), index);
        self.list.push(block);
        true
    }

    /// Length of all in bytes.
    pub fn bytes(&self) -> u64 {
        self.list.iter().map(|block| block.bytes).sum()
    }
}
