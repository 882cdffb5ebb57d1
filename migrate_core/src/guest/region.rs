//! The part of guest memory that one workload owns: all it sees of the machine.

use std::sync::Arc;

use super::block::PAGE;
use super::memory::GuestMemory;

/// A page-aligned stretch of guest memory; offsets count from its start. Access outside panics, as a
/// slice does: a workload that leaves its region is a bug, not an input.
#[derive(Debug, Clone)]
pub struct Region {
    memory: Arc<GuestMemory>,
    first_page: u64,
    pages: u64,
}

impl Region {
    /// The whole of `memory`.
    pub fn whole(memory: &Arc<GuestMemory>) -> Self {
        Self { memory: Arc::clone(memory), first_page: 0, pages: memory.pages() }
    }

    /// Part `index` of `parts` nearly equal ones, whole pages each.
    pub fn part(memory: &Arc<GuestMemory>, index: u64, parts: u64) -> Self {
        let edge = |i: u64| memory.pages() * i / parts;
        Self { memory: Arc::clone(memory), first_page: edge(index), pages: edge(index + 1) - edge(index) }
    }

    /// The same pages of another memory of the same layout: where the region lives after switchover.
    #[must_use]
    pub fn moved_to(&self, memory: &Arc<GuestMemory>) -> Self {
        Self { memory: Arc::clone(memory), ..self.clone() }
    }

    /// The memory it is part of.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Guest-wide number of its first page.
    pub fn first_page(&self) -> u64 {
        self.first_page
    }

    /// Its size in pages.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE as u64
    }

    fn offset(&self, at: u64, len: usize) -> u64 {
        let inside = at.checked_add(len as u64).is_some_and(|end| end <= self.bytes());
        assert!(inside, "{len} bytes at {at} of a region of {}", self.bytes());
        self.first_page * PAGE as u64 + at
    }

    /// Copies bytes out.
    pub fn read(&self, at: u64, into: &mut [u8]) {
        self.memory.read(self.offset(at, into.len()), into);
    }

    /// Copies bytes in, as a guest's write.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(self.offset(at, bytes.len()), bytes);
    }

    /// Reads a little-endian integer.
    pub fn read_u64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Writes a little-endian integer.
    pub fn write_u64(&self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }
}
