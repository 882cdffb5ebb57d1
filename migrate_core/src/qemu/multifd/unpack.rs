//! Unpacks the one compressed stream of a multifd channel into pages.

use flate2::{Decompress, FlushDecompress};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::Packing;
use crate::error::{Error, Result};

/// Fills pages out of pieces of a compressed stream.
pub(super) struct Unpacker {
    engine: Engine,
    page: Vec<u8>,
    filled: usize,
}

enum Engine {
    Zlib(Decompress),
    Zstd(Decoder<'static>),
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Unpacker({:?}, {} bytes)", self.packing(), self.filled)
    }
}

impl Unpacker {
    /// For pages of so many bytes; `at` is for the error.
    pub(super) fn new(packing: Packing, page_bytes: usize, at: u64) -> Result<Self> {
        let engine = match packing {
            Packing::Zlib => Engine::Zlib(Decompress::new(true)),
            Packing::Zstd => Engine::Zstd(Decoder::new().map_err(|e| Error::io("making a zstd context", e))?),
            other => {
                let text = format!("pages packed by {other:?}: only zlib and zstd can be unpacked");
                return Err(Error::stream(at, text));
            }
        };
        Ok(Self { engine, page: vec![0; page_bytes], filled: 0 })
    }

    pub(super) fn packing(&self) -> Packing {
        match self.engine {
            Engine::Zlib(_) => Packing::Zlib,
            Engine::Zstd(_) => Packing::Zstd,
        }
    }

    /// Unpacks all of `bytes`, which are at `at`, and hands out each page that becomes full.
    pub(super) fn unpack(
        &mut self,
        mut bytes: &[u8],
        at: u64,
        page: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        loop {
            let (read, written) = self.run(bytes).map_err(|what| Error::stream(at, what))?;
            bytes = &bytes[read..];
            self.filled += written;
            if self.filled == self.page.len() {
                page(&self.page)?;
                self.filled = 0;
            } else if bytes.is_empty() {
                return Ok(());
            } else if read == 0 && written == 0 {
                return Err(Error::stream(at, "the channel's compressed stream ends before its packets do"));
            }
        }
    }

    /// Bytes read and written.
    fn run(&mut self, bytes: &[u8]) -> std::result::Result<(usize, usize), String> {
        let room = &mut self.page[self.filled..];
        match &mut self.engine {
            Engine::Zlib(zlib) => {
                let (before, out) = (zlib.total_in(), zlib.total_out());
                let done = zlib.decompress(bytes, room, FlushDecompress::Sync);
                done.map_err(|error| format!("not the channel's zlib stream: {error}"))?;
                Ok(((zlib.total_in() - before) as usize, (zlib.total_out() - out) as usize))
            }
            Engine::Zstd(zstd) => {
                let (mut input, mut output) = (InBuffer::around(bytes), OutBuffer::around(room));
                let done = zstd.run(&mut input, &mut output);
                done.map_err(|error| format!("not the channel's zstd stream: {error}"))?;
                Ok((input.pos(), output.pos()))
            }
        }
    }
}
