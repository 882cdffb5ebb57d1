//! Sections of encoded pages, and of what a codec has learnt.
//!
//! Encoded pages were copied before, so they cannot be torn. The checksum is that of the copies: it finds bases
//! or contexts that are out of step, which is an error and never a page of wrong bytes.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::section::{header, parse_runs, put_runs, Kind, Reader, Section, Writer};
use crate::bitmap::Run;
use crate::codec::batch_bound;
use crate::error::{Error, Result};

/// Pages in one section of encoded pages at most: with the bound of their encoding, what bounds a receiver.
pub const MOST_ENCODED: u64 = 256;

/// Bytes that a codec may have learnt.
const MOST_LEARNT: u64 = 4 << 20;

/// Bytes from which a copy to join them with their header costs more than another call.
const LONG: usize = 16 << 10;

/// What is told of encoded pages beside their encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Which pages.
    pub runs: Vec<Run>,
    /// XXH3-64 of their contents, one after the other.
    pub hash: u64,
    /// For each page whether it was encoded against the version that the destination has; empty if none was.
    pub based: Vec<bool>,
    /// Bytes of the encoding.
    pub bytes: u64,
}

impl Encoding {
    /// How many pages.
    pub fn pages(&self) -> usize {
        self.runs.iter().map(|run| run.pages as usize).sum()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(16 + self.runs.len() * 12 + self.based.len() / 8 + 1);
        put_runs(&mut body, &self.runs);
        body.extend(self.hash.to_le_bytes());
        if self.based.contains(&true) {
            let byte = |flags: &[bool]| flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag));
            body.extend(self.based.chunks(8).map(byte));
        }
        body
    }
}

impl<S: Write + AsFd> Writer<S> {
    /// Sends pages that were encoded as `data`, whose length `encoding` tells.
    pub fn encoded(&mut self, encoding: &Encoding, data: &[u8]) -> Result<()> {
        let body = encoding.body();
        let head = header(Kind::Encoded, &body, data.len() as u64);
        let what = "sending encoded pages";
        if data.len() < LONG {
            return self.bytes(&[&head, &body, data], what);
        }
        self.bytes(&[&head, &body], what)?;
        self.whole(data, what)
    }

    /// Sends what a codec has learnt before the first page.
    pub fn learnt(&mut self, learnt: &[u8]) -> Result<()> {
        if learnt.len() as u64 > MOST_LEARNT {
            return Err(Error::usage(format!(
                "the codec has learnt {} bytes, more than {MOST_LEARNT}; ask for a smaller dictionary",
                learnt.len()
            )));
        }
        let what = "sending what the codec has learnt";
        self.bytes(&[&header(Kind::Learnt, &[], learnt.len() as u64), learnt], what)
    }
}

impl<S: Read + AsFd> Reader<S> {
    /// Reads the encoding behind a [`Section::Encoded`]; returns at which byte of the stream it began.
    pub fn read_encoding(&mut self, encoding: &Encoding, into: &mut Vec<u8>) -> Result<u64> {
        let at = self.offset();
        // Bounded when the section was parsed. What is left of earlier contents is overwritten.
        into.resize(encoding.bytes as usize, 0);
        self.fill(into, "encoded pages")?;
        Ok(at)
    }

    pub(super) fn parse_learnt(&mut self, at: u64, body: &[u8], payload: u64) -> Result<Section> {
        if !body.is_empty() || payload > MOST_LEARNT {
            return Err(Error::stream(at, format!("{payload} bytes of learning; the most is {MOST_LEARNT}")));
        }
        Ok(Section::Learnt(self.body(payload as usize)?))
    }
}

pub(super) fn parse_encoded(at: u64, body: &[u8], payload: u64, pages: u64) -> Result<Section> {
    let wrong = |reason: String| Err(Error::stream(at, reason));
    let (runs, rest) = parse_runs(at, body, pages)?;
    let count = runs.iter().map(|run| run.pages).sum::<u64>();
    if count > MOST_ENCODED {
        return wrong(format!("{count} encoded pages; the most in a section is {MOST_ENCODED}"));
    }
    if payload > batch_bound(count as usize) as u64 {
        return wrong(format!("{payload} bytes of encoding for {count} pages"));
    }
    let Some((hash, flags)) = rest.split_first_chunk() else { return wrong("no checksum".into()) };
    if !flags.is_empty() && flags.len() != count.div_ceil(8) as usize {
        return wrong(format!("{} bytes say which of {count} pages have a base", flags.len()));
    }
    let flag = |index: usize| flags[index / 8] >> (index % 8) & 1 == 1;
    let based = if flags.is_empty() { Vec::new() } else { (0..count as usize).map(flag).collect() };
    Ok(Section::Encoded(Encoding { runs, hash: u64::from_le_bytes(*hash), based, bytes: payload }))
}
