//! `/proc/PID/pagemap`: `PAGEMAP_SCAN` (Linux 6.7), which finds written pages and protects them again in
//! one step, and the older array of 64-bit entries. Numbers and layouts are those of `linux/fs.h` and of
//! the kernel's `admin-guide/mm/pagemap.rst`; libc does not have them.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::ioctl::{call, number, Request, READS, WRITES};
use super::span;
use crate::error::{Error, Result};
use crate::guest::{RamBlock, PAGE};

/// The page belongs to a file (or to shared memory), not to the process alone.
pub(super) const FILE: u64 = 1 << 2;
/// The page is in memory.
pub(super) const PRESENT: u64 = 1 << 3;
/// The page is swapped out.
pub(super) const SWAPPED: u64 = 1 << 4;
/// The page is mapped by a huge entry.
pub(super) const HUGE: u64 = 1 << 6;
/// Written since it was last protected by an asynchronous userfaultfd.
pub(super) const WRITTEN: u64 = 1 << 1;

/// In an entry: write-protected by a userfaultfd (Linux 5.14).
pub(super) const ENTRY_PROTECTED: u64 = 1 << 57;
/// In an entry: written since the process's soft-dirty bits were cleared.
pub(super) const ENTRY_SOFT_DIRTY: u64 = 1 << 55;

const WP_MATCHING: u64 = 1 << 0;
const CHECK_WPASYNC: u64 = 1 << 1;

/// Stretches that one call can return; a scan that finds more goes on where the call ended.
const STRETCHES: usize = 1024;
/// Entries that one read returns.
const ENTRIES: u64 = 4096;

/// `struct page_region`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Which pages a scan finds, by their categories, and what it does to them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Query {
    /// Pages that have all of these,
    pub(super) all: u64,
    /// none of these,
    pub(super) none: u64,
    /// and one of these, unless there are none here.
    pub(super) any: u64,
    /// Categories to be told of.
    pub(super) told: u64,
    /// Write-protect them in the same step; refused (`EPERM`) in memory that is not registered for that.
    pub(super) protect: bool,
}

// SAFETY: PAGEMAP_SCAN takes struct pm_scan_arg; it writes at most `vec_len` regions to `vec`, which is
// our own vector, and protects only pages of a mapping that is registered with a userfaultfd.
unsafe impl Request for Scan {
    const NUMBER: u64 = number(READS | WRITES, b'f', 16, size_of::<Self>());
}

/// A process's page map.
#[derive(Debug)]
pub(super) struct Pagemap {
    file: File,
    found: Vec<Stretch>,
}

impl Pagemap {
    /// Opens this process's own.
    pub(super) fn open() -> std::result::Result<Self, String> {
        let file = File::open("/proc/self/pagemap")
            .map_err(|e| format!("/proc/self/pagemap cannot be read ({e}): mount /proc"))?;
        Ok(Self::of(file))
    }

    /// The page map that was opened as `file`.
    pub(super) fn of(file: File) -> Self {
        Self { file, found: vec![Stretch::default(); STRETCHES] }
    }

    /// Calls `each` with every stretch of `pages` (of the block) that has all of `categories`; with
    /// `protect` they are write-protected in the same step, and CPUs' older translations are gone when
    /// this returns. Categories are never inverted: an inverted PFNZERO would hide pages that were
    /// discarded and read back.
    pub(super) fn scan(
        &mut self,
        block: &RamBlock,
        pages: &Range<u64>,
        categories: u64,
        protect: bool,
        mut each: impl FnMut(Range<u64>),
    ) -> Result<()> {
        let query = Query { all: categories, told: categories, protect, ..Query::default() };
        let found =
            self.find(span::addresses(block, pages), query, |found, _| each(span::pages(block, &found)));
        found.map_err(|source| Error::System { what: what(block), source })
    }

    /// Calls `each` with every stretch of `addresses` that fits the query, and what was to be told of it.
    pub(super) fn find(
        &mut self,
        addresses: Range<u64>,
        query: Query,
        mut each: impl FnMut(Range<u64>, u64),
    ) -> io::Result<()> {
        let mut from = addresses.start;
        while from < addresses.end {
            let mut scan = self.request(from..addresses.end, query);
            let found = call(self.file.as_fd(), &mut scan)?;
            let found = self.found.iter().take(found);
            found.for_each(|found| each(found.start..found.end, found.categories));
            if scan.walk_end <= from {
                return Err(io::Error::other("the kernel made no progress"));
            }
            from = scan.walk_end;
        }
        Ok(())
    }

    /// Calls `each` with every page of `pages` (of the block) and its entry. Unlike [`Pagemap::scan`] this
    /// needs no recent kernel, and changes nothing.
    pub(super) fn entries(
        &self,
        block: &RamBlock,
        pages: &Range<u64>,
        mut each: impl FnMut(u64, u64),
    ) -> Result<()> {
        const BYTES: usize = size_of::<u64>();
        let mut buffer = vec![0; ENTRIES.min(pages.end.saturating_sub(pages.start)) as usize * BYTES];
        let mut page = pages.start;
        while page < pages.end {
            let bytes = &mut buffer[..ENTRIES.min(pages.end - page) as usize * BYTES];
            let address = span::addresses(block, &(page..pages.end)).start;
            self.file
                .read_exact_at(bytes, address / PAGE as u64 * BYTES as u64)
                .map_err(|source| Error::System { what: what(block), source })?;
            for entry in bytes.chunks_exact(BYTES) {
                each(page, entry.try_into().map_or(0, u64::from_ne_bytes));
                page += 1;
            }
        }
        Ok(())
    }

    fn request(&mut self, span: Range<u64>, query: Query) -> Scan {
        Scan {
            size: size_of::<Scan>() as u64,
            flags: if query.protect { WP_MATCHING | CHECK_WPASYNC } else { 0 },
            start: span.start,
            end: span.end,
            vec: self.found.as_mut_ptr() as u64,
            vec_len: self.found.len() as u64,
            category_mask: query.all | query.none,
            category_inverted: query.none,
            category_anyof_mask: query.any,
            return_mask: query.told,
            ..Scan::default()
        }
    }
}

fn what(block: &RamBlock) -> String {
    format!("reading the page map of RAM block `{}`", block.name())
}
