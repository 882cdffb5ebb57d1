//! A RAM block's pages, as records of a stream or mapped into a file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{named, Output};
use crate::codec::is_zero;
use crate::error::{Error, Result};

const PAGE: usize = 4096;
const ZERO: u64 = 0x02;
const RAW: u64 = 0x08;
const SAME_BLOCK: u64 = 0x20;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;
/// The version of a mapped block's header, and what its pages are aligned to in the file.
const MAPPED_VERSION: u32 = 1;
const MAPPED_ALIGNMENT: u64 = 1 << 20;
/// Bytes of version, page size and two places in a mapped block's header.
const MAPPED_HEAD: u64 = 28;

/// A RAM block that was put together in a file.
pub(super) struct Image {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Image {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|error| unreadable(path, &error))?;
        Ok(Self { file, path: path.to_owned(), bytes })
    }

    /// Hands out each page and where it is in the block.
    fn pages(&self, each: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let (mut buffer, mut at) = (vec![0; PIECE], 0);
        while at < self.bytes {
            let piece = &mut buffer[..PIECE.min((self.bytes - at) as usize)];
            self.file.read_exact_at(piece, at).map_err(|error| unreadable(&self.path, &error))?;
            for page in piece.chunks(PAGE) {
                each(at, page)?;
                at += page.len() as u64;
            }
        }
        Ok(())
    }

    /// A record for each page; zero pages, too, as a destination's memory need not be empty.
    pub(super) fn send(&self, name: &str, to: &mut Output) -> Result<()> {
        self.pages(&mut |at, page| {
            let zero = is_empty(page);
            let same = if at == 0 { 0 } else { SAME_BLOCK };
            to.put(&(at | same | if zero { ZERO } else { RAW }).to_be_bytes())?;
            if at == 0 {
                to.put(&named(name))?;
            }
            to.put(if zero { &[0] } else { page })
        })
    }

    /// The header of a mapped block, the bitmap of its pages that are not zero, and these pages in their places.
    pub(super) fn map(&self, to: &mut Output) -> Result<()> {
        let bits = self.bits()?;
        let bitmap_at = to.offset() + MAPPED_HEAD;
        let pages_at = (bitmap_at + bits.len() as u64).next_multiple_of(MAPPED_ALIGNMENT);
        to.put(&MAPPED_VERSION.to_be_bytes())?;
        for number in [PAGE as u64, bitmap_at, pages_at] {
            to.put(&number.to_be_bytes())?;
        }
        to.put(&bits)?;
        self.pages(&mut |at, page| {
            if is_empty(page) {
                return Ok(());
            }
            if to.offset() != pages_at + at {
                to.go_to(pages_at + at)?;
            }
            to.put(page)
        })?;
        to.go_to(pages_at + self.bytes)
    }

    /// A bit for each page that is not zero, in whole words of 64.
    fn bits(&self) -> Result<Vec<u8>> {
        let pages = self.bytes.div_ceil(PAGE as u64);
        let mut bits = vec![0u8; (pages.next_multiple_of(64) / 8) as usize];
        self.pages(&mut |at, page| {
            let number = at as usize / PAGE;
            bits[number / 8] |= u8::from(!is_empty(page)) << (number % 8);
            Ok(())
        })?;
        Ok(bits)
    }
}

fn is_empty(page: &[u8]) -> bool {
    page.try_into().is_ok_and(is_zero)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("cannot read {}: {error}", path.display()))
}
