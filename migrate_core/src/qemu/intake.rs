//! Bytes of one channel as they come in: a buffer and a position.

use std::io::{ErrorKind, Read};

use super::stream::{Advance, Then};
use crate::error::{Error, Result};

/// Bytes asked of the socket at a time.
const BUFFER: usize = 1 << 20;

/// Reads from `source` and knows where it is.
#[derive(Debug)]
pub(super) struct Intake<R> {
    source: R,
    buffer: Vec<u8>,
    /// The bytes of `buffer` that have come and were not read.
    start: usize,
    end: usize,
    /// Position of `start` in the channel.
    offset: u64,
}

impl<R: Read> Intake<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; BUFFER], start: 0, end: 0, offset: 0 }
    }

    /// The next `count` bytes, which stay; fewer where the channel ends.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8]> {
        if self.end - self.start < count {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if count > self.buffer.len() {
                self.buffer.resize(count, 0);
            }
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

    /// What is in the buffer.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Hands what comes to `advance`, which says how much of it it used, until the channel ends. The bytes that were
    /// not used.
    pub(super) fn pump(&mut self, advance: &mut dyn FnMut(&[u8]) -> Result<Advance>) -> Result<usize> {
        let mut need = 1;
        loop {
            if self.window(need)?.len() < need {
                return Ok(self.rest().len());
            }
            let Advance { used, then } = advance(self.rest())?;
            self.skip(used as u64)?;
            need = if let Then::More(count) = then { count } else { 1 };
        }
    }

    /// Passes over all that comes, until the channel ends.
    pub(super) fn drain(&mut self) -> Result<()> {
        while !self.peek(1)?.is_empty() {
            let here = self.rest().len() as u64;
            self.skip(here)?;
        }
        Ok(())
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
            steps in prop::collection::vec((0u8..3, 0usize..40), 0..40),
        ) {
            let mut intake = Intake::new(Dribble(&content, piece));
            let mut at = 0;
            for (step, count) in steps {
                let rest = &content[at..];
                let there = count.min(rest.len());
                match step {
                    0 => prop_assert_eq!(intake.peek(count).unwrap(), &rest[..there]),
                    1 => prop_assert!(intake.window(count).unwrap().starts_with(&rest[..there])),
                    _ if there == count => {
                        intake.skip(count as u64).unwrap();
                        at += count;
                    }
                    _ => {
                        prop_assert!(intake.skip(count as u64).is_err());
                        at = content.len();
                    }
                }
            }
        }

        #[test]
        fn all_is_pumped_and_what_is_wanted_is_there(
            content in prop::collection::vec(any::<u8>(), 0..300),
            piece in 1usize..50,
            units in prop::collection::vec(1usize..30, 1..20),
        ) {
            let mut intake = Intake::new(Dribble(&content, piece));
            let (mut units, mut found) = (units.into_iter().cycle(), Vec::new());
            let mut unit = units.next().unwrap();
            let left = intake.pump(&mut |bytes| {
                let used = if bytes.len() < unit { 0 } else { unit };
                found.extend_from_slice(&bytes[..used]);
                unit = if used > 0 { units.next().unwrap() } else { unit };
                Ok(Advance { used, then: Then::More(unit) })
            });
            let left = left.unwrap();
            prop_assert_eq!(left, intake.rest().len());
            prop_assert!(left < unit);
            prop_assert_eq!([&found[..], intake.rest()].concat(), content);
        }
    }

    #[test]
    fn an_end_says_where() {
        let mut intake = Intake::new(&b"abc"[..]);
        intake.skip(1).unwrap();
        assert!(matches!(intake.skip(9), Err(Error::Stream { offset: 3, .. })));
        assert!(intake.peek(1).unwrap().is_empty());
    }
}
