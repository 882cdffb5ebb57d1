//! A connection's bytes on their way in: counted, and kept with their moments where asked for.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::session::Session;
use crate::error::{Error, Result};
use crate::link::Stream;
use crate::qemu::times;

/// Where a connection's bytes are kept.
pub(super) struct Keep {
    file: File,
    times: times::Writer<BufWriter<File>>,
}

impl Keep {
    /// In `path`, and their moments in a file beside it.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = create(path)?;
        let times = times::Writer::new(BufWriter::new(create(&times::path_of(path))?));
        Ok(Self { file, times })
    }

    fn keep(&mut self, bytes: &[u8], now: f64) -> io::Result<()> {
        let kept = self.file.write_all(bytes).and_then(|()| self.times.add(bytes.len() as u64, now));
        // Told apart from what the connection may suffer.
        kept.map_err(|error| io::Error::other(format!("keeping it failed: {error}")))
    }
}

pub(super) fn create(path: &Path) -> Result<File> {
    File::create(path)
        .map_err(|source| Error::System { what: format!("creating {}", path.display()), source })
}

/// The file for connection `index`.
pub(super) fn numbered(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    name.into()
}

/// Reads a connection.
pub(super) struct Tap<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) stream: &'a Stream,
    pub(super) keep: Option<Keep>,
    pub(super) index: usize,
}

impl Read for Tap<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        let count = stream.read(bytes)?;
        let now = self.session.now();
        if let Some(keep) = &mut self.keep {
            keep.keep(&bytes[..count], now)?;
        }
        self.session.count(self.index, count as u64, now);
        Ok(count)
    }
}
