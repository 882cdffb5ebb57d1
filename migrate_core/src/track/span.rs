//! Pages of a RAM block as the kernel's memory calls want them: addresses, and advice about them.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::error::{Error, Result};
use crate::guest::{HugePages, RamBlock, PAGE};

/// Pages in a huge page of 2 MiB.
pub(super) const HUGE: u64 = (2 << 20) / PAGE as u64;

/// Addresses of `pages`, counted from the block's start.
pub(super) fn addresses(block: &RamBlock, pages: &Range<u64>) -> Range<u64> {
    let address = |page: u64| block.as_ptr() as u64 + page * PAGE as u64;
    address(pages.start)..address(pages.end)
}

/// Pages of the block that `addresses` cover.
pub(super) fn pages(block: &RamBlock, addresses: &Range<u64>) -> Range<u64> {
    let page = |address: u64| address.saturating_sub(block.as_ptr() as u64) / PAGE as u64;
    page(addresses.start)..page(addresses.end)
}

/// `pages` widened to what the kernel can protect one by one: a reserved huge page cannot be cut.
pub(super) fn whole(block: &RamBlock, pages: Range<u64>) -> Range<u64> {
    match block.spec().huge {
        HugePages::Explicit => pages.start / HUGE * HUGE..pages.end.next_multiple_of(HUGE),
        HugePages::Never | HugePages::Transparent => pages,
    }
}

/// The first page of the block that starts a 2 MiB stretch of addresses.
pub(super) fn first_huge(block: &RamBlock) -> u64 {
    let start = block.as_ptr() as u64 / PAGE as u64;
    start.next_multiple_of(HUGE) - start
}

/// Gives the pages' memory back: private memory reads as zeros afterwards, shared memory keeps its
/// content and loses its mappings.
pub(super) fn discard(block: &RamBlock, pages: &Range<u64>) -> Result<()> {
    advise(block, pages, libc::MADV_DONTNEED, "discarding pages of")
}

/// Takes the pages of a shared block out of the memory behind it: they read as zeros afterwards, in every
/// mapping.
pub(super) fn remove(block: &RamBlock, pages: &Range<u64>) -> Result<()> {
    advise(block, pages, libc::MADV_REMOVE, "removing pages of")
}

/// Allows or forbids transparent huge pages in the block from here on; those there are stay.
pub(super) fn allow_huge(block: &RamBlock, allow: bool) -> Result<()> {
    let advice = if allow { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    advise(block, &(0..block.pages()), advice, "setting the page size of")
}

fn advise(block: &RamBlock, pages: &Range<u64>, advice: i32, what: &str) -> Result<()> {
    assert!(pages.start <= pages.end && pages.end <= block.pages(), "{pages:?} of {}", block.pages());
    let span = addresses(block, pages);
    // SAFETY: the range is inside the block's mapping, whose bytes are plain data: whatever they become,
    // they are valid, and nobody holds references into them.
    match unsafe { libc::madvise(span.start as *mut _, (span.end - span.start) as usize, advice) } {
        0 => Ok(()),
        _ => Err(Error::last_os(format!("{what} RAM block `{}`", block.name()))),
    }
}
