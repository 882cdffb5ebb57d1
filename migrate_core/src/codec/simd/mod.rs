//! Kernels over whole pages, in several instruction sets; the fastest that the CPU has is chosen at run time.
//!
//! Each kernel gives exactly what `scalar` gives; the tests hold every set that the machine has to that.
//! Encoding has two halves. The first compares the pages and leaves one bit a byte (`Difference`), at the
//! speed at which memory delivers them; the second walks the bits and touches only what differs.
#![allow(unsafe_code)]

use std::sync::LazyLock;

use super::Page;
use crate::guest::PAGE;

#[cfg(target_arch = "aarch64")]
mod neon;
mod runs;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use runs::{Room, Wrong};

/// Bytes of a kernel's step, and of a mask word.
const CHUNK: usize = 64;

/// Bit `b` of word `w` tells whether byte `64 w + b` differs.
struct Difference {
    words: [u64; PAGE / CHUNK],
    /// Bit `w` tells whether word `w` has any bit.
    summary: u64,
}

/// An instruction set's kernels.
pub struct Kernels {
    /// Name of the instruction set.
    pub name: &'static str,
    is_zero: unsafe fn(&Page) -> bool,
    equal: unsafe fn(&Page, &Page) -> bool,
    encode: unsafe fn(&Page, &Page, &mut Room) -> Option<usize>,
    apply: unsafe fn(&[u8], &mut Page) -> Result<(), Wrong>,
}

impl Kernels {
    /// The fastest that this CPU has.
    pub fn best() -> &'static Self {
        static BEST: LazyLock<&'static Kernels> =
            LazyLock::new(|| Kernels::available().next().unwrap_or(&scalar::KERNELS));
        &BEST
    }

    /// All that this CPU has, the fastest first.
    pub fn available() -> impl Iterator<Item = &'static Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = x86::available();
        #[cfg(target_arch = "aarch64")]
        let vectors = neon::available();
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let vectors: [Option<&'static Kernels>; 0] = [];
        vectors.into_iter().flatten().chain([&scalar::KERNELS])
    }

    /// Whether all bytes are zero.
    pub fn is_zero(&self, page: &Page) -> bool {
        // SAFETY: here and below: kernels are had only from available(), which asks the CPU for their set.
        unsafe { (self.is_zero)(page) }
    }

    /// Whether the pages are the same.
    pub fn equal(&self, a: &Page, b: &Page) -> bool {
        // SAFETY: as in is_zero().
        unsafe { (self.equal)(a, b) }
    }

    /// XBZRLE of `new` over `old`: the bytes used of `room`, none where the pages are the same; `None` where
    /// QEMU's encoder, given a page's room, overflows.
    pub fn encode(&self, old: &Page, new: &Page, room: &mut Room) -> Option<usize> {
        // SAFETY: as in is_zero().
        unsafe { (self.encode)(old, new, room) }
    }

    /// Applies XBZRLE data to the page that it was made against. After an error the page is partly changed.
    pub fn apply(&self, data: &[u8], page: &mut Page) -> Result<(), Wrong> {
        // SAFETY: as in is_zero().
        unsafe { (self.apply)(data, page) }
    }
}

/// Whether all bytes of `page` are zero.
pub fn is_zero(page: &Page) -> bool {
    Kernels::best().is_zero(page)
}

/// Whether `a` and `b` hold the same bytes.
pub fn equal(a: &Page, b: &Page) -> bool {
    Kernels::best().equal(a, b)
}

#[cfg(test)]
mod tests;
