//! The heap's layout and its objects.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::too_small;
use crate::error::{Error, Result};
use crate::guest::{Region, PAGE};

/// Bytes before an object's own data: size, next, checksum, stamp, next one's stamp, depth. Size and next
/// are outside the checksum: when the object moves, the one becomes the address where it went, with the
/// lowest bit set, and the other follows what it refers to.
pub const HEAD: u64 = 48;
/// Longest chain of objects.
pub const DEPTH: u64 = 8;

/// Where roots, the two old spaces and the nursery are: they follow each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heap {
    object_bytes: u64,
    roots: u64,
    first: u64,
    space: u64,
    nursery: u64,
}

/// An object's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Bytes with its head.
    pub size: u64,
    /// Where the next object of its chain is; 0 at the end.
    pub next: u64,
    /// Its number.
    pub stamp: u64,
    /// The next one's.
    pub next_stamp: u64,
    /// Objects in the chain from here on.
    pub depth: u64,
}

impl Object {
    fn checksum(&self, data: &[u8]) -> u64 {
        let mut hash = Xxh3::new();
        for word in [self.size, self.stamp, self.next_stamp, self.depth] {
            hash.update(&word.to_le_bytes());
        }
        hash.update(data);
        hash.digest()
    }

    /// Writes it with its own data.
    pub fn store(&self, ram: &Region, at: u64, data: &[u8]) {
        let head = [self.size, self.next, self.checksum(data), self.stamp, self.next_stamp, self.depth];
        let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend_from_slice(data);
        ram.write(at, &bytes);
    }
}

impl Heap {
    /// Lays a heap out for objects of up to `object_bytes` of their own data.
    pub fn plan(ram: &Region, object_bytes: u64) -> Result<Self> {
        let mut heap = Self { object_bytes, roots: 0, first: 0, space: 0, nursery: ram.bytes() / 8 / 8 * 8 };
        // All chains at their longest, of the largest objects, fill half of a space.
        let (bytes, most_live) = (ram.bytes() - heap.nursery, 2 * DEPTH * heap.largest());
        heap.roots = (bytes / 2).saturating_sub(PAGE as u64) / (most_live + 4);
        heap.first = (heap.roots * 8).next_multiple_of(PAGE as u64);
        heap.space = bytes.saturating_sub(heap.first) / 2 / 8 * 8;
        if heap.roots == 0 || heap.nursery < heap.largest() {
            return Err(too_small("gc", 2 * PAGE as u64 + 5 * DEPTH * heap.largest(), ram));
        }
        Ok(heap)
    }

    /// Greatest size of an object's own data.
    pub fn object_bytes(&self) -> u64 {
        self.object_bytes
    }

    /// Greatest size of an object.
    pub fn largest(&self) -> u64 {
        HEAD + self.object_bytes / 8 * 8
    }

    /// Number of roots.
    pub fn roots(&self) -> u64 {
        self.roots
    }

    /// Where a root is.
    pub fn root(&self, root: u64) -> u64 {
        root * 8
    }

    /// Where survivors are kept: space 0 or 1.
    pub fn space(&self, space: u64) -> Range<u64> {
        let start = self.first + space * self.space;
        start..start + self.space
    }

    /// Where objects are made.
    pub fn nursery(&self) -> Range<u64> {
        let start = self.first + 2 * self.space;
        start..start + self.nursery
    }

    /// The head of the object at `at`, whatever bytes are there.
    pub fn load(&self, ram: &Region, at: u64) -> Result<Object> {
        let inside = at.checked_add(HEAD).is_some_and(|end| end <= ram.bytes());
        if at % 8 != 0 || at < self.first || !inside {
            return Err(damaged(at, "no object can be there"));
        }
        let mut bytes = [0; HEAD as usize];
        ram.read(at, &mut bytes);
        let [size, next, _, stamp, next_stamp, depth] = words(&bytes);
        let fits = size > HEAD && size <= self.largest() && size % 8 == 0 && at + size <= ram.bytes();
        match fits && (1..=DEPTH).contains(&depth) {
            true => Ok(Object { size, next, stamp, next_stamp, depth }),
            false => Err(damaged(at, "its head is no object's")),
        }
    }

    /// Copies the object at `from` to `to`, unless it was copied before. Returns where it is, and the bytes
    /// copied.
    pub fn evacuate(&self, ram: &Region, from: u64, to: u64) -> Result<(u64, u64)> {
        let moved = ram.read_u64(from);
        if moved % 2 == 1 {
            return Ok((moved - 1, 0));
        }
        let size = self.load(ram, from)?.size;
        let mut bytes = vec![0; size as usize];
        ram.read(from, &mut bytes);
        ram.write(to, &bytes);
        ram.write_u64(from, to | 1);
        Ok((to, size))
    }

    /// Verifies each object of the chain that begins at `at`; returns the first one's stamp.
    pub fn check_chain(&self, ram: &Region, at: u64) -> Result<u64> {
        let first = self.check_object(ram, at)?;
        let mut object = first;
        while object.next != 0 {
            let next = self.check_object(ram, object.next)?;
            if (next.stamp, next.depth) != (object.next_stamp, object.depth - 1) {
                return Err(damaged(object.next, "another object refers to it by mistake"));
            }
            object = next;
        }
        match object.depth {
            1 => Ok(first.stamp),
            _ => Err(damaged(at, "its chain ends too early")),
        }
    }

    fn check_object(&self, ram: &Region, at: u64) -> Result<Object> {
        let outside = || damaged(at, "no object can be there");
        let inside =
            at >= self.first && at % 8 == 0 && at.checked_add(8).is_some_and(|end| end <= ram.bytes());
        let moved = if inside { ram.read_u64(at) } else { return Err(outside()) };
        let at = if moved % 2 == 1 { moved - 1 } else { at };
        let object = self.load(ram, at)?;
        let mut bytes = vec![0; object.size as usize];
        ram.read(at, &mut bytes);
        let (head, data) = bytes.split_at(HEAD as usize);
        match words::<6>(head)[2] == object.checksum(data) {
            true => Ok(object),
            false => Err(damaged(at, "it does not have its checksum")),
        }
    }
}

fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    std::array::from_fn(|i| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[i * 8..][..8]);
        u64::from_le_bytes(word)
    })
}

fn damaged(at: u64, how: &str) -> Error {
    Error::Verification(format!("gc: the object at {at} is damaged: {how}"))
}
