//! The file that is written, with holes where nothing is.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const BUFFER: usize = 1 << 20;

/// A file that grows.
pub(super) struct Output {
    to: BufWriter<File>,
    path: PathBuf,
    offset: u64,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| cannot(path, &error))?;
        Ok(Self { to: BufWriter::with_capacity(BUFFER, file), path: path.to_owned(), offset: 0 })
    }

    /// Bytes so far, holes included.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len() as u64;
        self.to.write_all(bytes).map_err(|error| cannot(&self.path, &error))
    }

    /// Leaves a hole up to `offset`, which reads as zeros.
    pub(super) fn go_to(&mut self, offset: u64) -> Result<()> {
        self.offset = offset;
        self.to.seek(SeekFrom::Start(offset)).map(drop).map_err(|error| cannot(&self.path, &error))
    }

    /// The bytes written.
    pub(super) fn finish(mut self) -> Result<u64> {
        let done = self.to.flush();
        done.map_err(|error| cannot(&self.path, &error))?;
        Ok(self.offset)
    }
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("cannot write {}: {error}", path.display()))
}
