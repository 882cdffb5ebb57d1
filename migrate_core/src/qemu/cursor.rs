//! Reads what has come so far: either a whole thing is there, or it says how many bytes that takes.

use crate::error::{Error, Result};

/// Why nothing was read.
#[derive(Debug)]
pub(super) enum Stop {
    /// So many bytes, counted from the cursor's first, are needed before it is worth trying again.
    More(usize),
    /// The bytes are not what the format says.
    Wrong(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

/// What comes of reading out of bytes that may go on.
pub(super) type Read<T> = std::result::Result<T, Stop>;

/// A position in the bytes that are there. Nothing else changes by reading: who finds too few tries again later.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Position of the first byte in the stream.
    base: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, at: 0, base }
    }

    /// Bytes read so far.
    pub(super) fn used(&self) -> usize {
        self.at
    }

    /// Position of the next byte in the stream.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    pub(super) fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or(Stop::More(end))?;
        self.at = end;
        Ok(taken)
    }

    /// The next bytes, which stay.
    pub(super) fn peek(&self, count: usize) -> Read<&'a [u8]> {
        self.clone().take(count)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn be16(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn be32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn be64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A text of `count` bytes.
    pub(super) fn text(&mut self, count: usize, what: &str) -> Read<&'a str> {
        let at = self.offset();
        let bytes = self.take(count)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(text),
            _ => Err(wrong(at, format!("{what} is no text: {}", bytes.escape_ascii()))),
        }
    }

    /// A text after its length in one byte.
    pub(super) fn name(&mut self, what: &str) -> Read<&'a str> {
        let count = self.byte()?;
        self.text(count.into(), what)
    }
}

/// An offence at `offset`.
pub(super) fn wrong(offset: u64, reason: impl Into<String>) -> Stop {
    Stop::Wrong(Error::stream(offset, reason))
}

/// Once more after [`Read`]: for places that hold all bytes there are.
pub(super) fn whole<T>(read: Read<T>, end: u64, what: &str) -> Result<T> {
    read.map_err(|stop| match stop {
        Stop::More(_) => Error::stream(end, format!("the bytes end inside {what}")),
        Stop::Wrong(error) => error,
    })
}
