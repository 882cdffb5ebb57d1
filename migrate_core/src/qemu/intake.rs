//! Bytes of one channel as they come in: a buffer, a position, and numbers out of it.

use std::io::{ErrorKind, Read};

use crate::error::{Error, Result};

/// Bytes asked of the socket at a time.
const BUFFER: usize = 1 << 20;

/// Reads from `source` and knows where it is.
#[derive(Debug)]
pub(super) struct Intake<R> {
    source: R,
    buffer: Box<[u8]>,
    /// The bytes of `buffer` that have come and were not read.
    start: usize,
    end: usize,
    /// Position of `start` in the channel.
    offset: u64,
}

impl<R: Read> Intake<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, offset: 0 }
    }

    /// Position of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next `count` bytes, which stay; fewer where the channel ends. `count` is at most the buffer's size.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8]> {
        if self.end - self.start < count {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            while self.end < count && self.fill()? > 0 {}
        }
        let end = self.end.min(self.start + count);
        Ok(&self.buffer[self.start..end])
    }

    /// What is in the buffer, at least `count` bytes; fewer where the channel ends.
    pub(super) fn window(&mut self, count: usize) -> Result<&[u8]> {
        self.peek(count)?;
        Ok(&self.buffer[self.start..self.end])
    }

    /// Passes over `count` bytes.
    pub(super) fn skip(&mut self, mut count: u64) -> Result<()> {
        loop {
            let here = count.min((self.end - self.start) as u64);
            self.start += here as usize;
            self.offset += here;
            count -= here;
            if count == 0 {
                return Ok(());
            }
            (self.start, self.end) = (0, 0);
            if self.fill()? == 0 {
                return Err(self.ended());
            }
        }
    }

    /// The next bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Ok(bytes) = self.peek(N)?.try_into() else { return Err(self.ended()) };
        self.start += N;
        self.offset += N as u64;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn be16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn be32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn be64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next `count` bytes, at most the buffer's size.
    pub(super) fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let bytes = self.peek(count)?.to_vec();
        if bytes.len() < count {
            return Err(self.ended());
        }
        self.start += count;
        self.offset += count as u64;
        Ok(bytes)
    }

    /// A text after its length in one byte; what is no text in it is replaced.
    pub(super) fn name(&mut self) -> Result<String> {
        let length = self.byte()?;
        Ok(String::from_utf8_lossy(&self.bytes(length.into())?).into_owned())
    }

    /// Whether the channel has ended.
    pub(super) fn is_at_end(&mut self) -> Result<bool> {
        Ok(self.peek(1)?.is_empty())
    }

    fn fill(&mut self) -> Result<usize> {
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(format!("reading at byte {}", self.offset), error)),
            }
        }
    }

    fn ended(&self) -> Error {
        let there = self.offset + (self.end - self.start) as u64;
        Error::stream(there, "the stream ends here, in the middle of something")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives at most so many bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(bytes.len());
            self.0.read(&mut bytes[..count])
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_came(
            content in prop::collection::vec(any::<u8>(), 0..300),
            piece in 1usize..50,
            steps in prop::collection::vec((0u8..4, 0usize..40), 0..40),
        ) {
            let mut intake = Intake::new(Dribble(&content, piece));
            let mut at = 0;
            for (step, count) in steps {
                let rest = &content[at..];
                let there = count.min(rest.len());
                match step {
                    0 => prop_assert_eq!(intake.peek(count).unwrap(), &rest[..there]),
                    1 => prop_assert!(intake.window(count).unwrap().starts_with(&rest[..there])),
                    2 if there == count => prop_assert_eq!(intake.bytes(count).unwrap(), &rest[..count]),
                    3 if there == count => intake.skip(count as u64).unwrap(),
                    _ => {
                        prop_assert!(intake.bytes(count).is_err());
                        continue;
                    }
                }
                at += if step > 1 { count } else { 0 };
                prop_assert_eq!(intake.offset(), at as u64);
            }
        }
    }

    #[test]
    fn an_end_says_where() {
        let mut intake = Intake::new(&b"abc"[..]);
        intake.skip(1).unwrap();
        assert!(matches!(intake.be32(), Err(Error::Stream { offset: 3, .. })));
        assert!(matches!(intake.skip(9), Err(Error::Stream { offset: 3, .. })));
        assert!(intake.is_at_end().unwrap());
    }
}
