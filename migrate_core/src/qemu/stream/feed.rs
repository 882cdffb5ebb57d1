//! For drivers that only push: keeps what the parser could not use yet.

use super::{Advance, Parser, Then};
use crate::error::Result;
use crate::qemu::event::Sink;

/// A [`Parser`] and the few bytes that it waits to see more of.
#[derive(Debug)]
pub struct Feed {
    parser: Parser,
    kept: Vec<u8>,
    need: usize,
}

impl Feed {
    /// Feeds `parser`.
    pub fn new(parser: Parser) -> Self {
        Self { parser, kept: Vec::new(), need: 1 }
    }

    /// The parser.
    pub fn parser(&self) -> &Parser {
        &self.parser
    }

    /// Takes the next bytes of the stream, any number of them.
    ///
    /// # Errors
    /// As [`Parser::advance`].
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        while !self.kept.is_empty() && !bytes.is_empty() {
            let (here, later) =
                bytes.split_at(self.need.saturating_sub(self.kept.len()).clamp(1, bytes.len()));
            self.kept.extend_from_slice(here);
            bytes = later;
            let used = Self::advance(&mut self.parser, &self.kept, &mut self.need, sink)?;
            self.kept.drain(..used);
        }
        let used = Self::advance(&mut self.parser, bytes, &mut self.need, sink)?;
        self.kept.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    fn advance(parser: &mut Parser, bytes: &[u8], need: &mut usize, sink: &mut dyn Sink) -> Result<usize> {
        let mut done = 0;
        loop {
            let Advance { used, then } = parser.advance(&bytes[done..], sink)?;
            done += used;
            match then {
                Then::More(count) => *need = count,
                Then::Skip(_) => *need = 1,
                // Whoever pushes several channels drives their parsers himself.
                Then::Others => continue,
            }
            return Ok(done);
        }
    }

    /// The stream is over.
    ///
    /// # Errors
    /// As [`Parser::finish`].
    pub fn finish(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.parser.finish(&self.kept, sink)
    }
}
