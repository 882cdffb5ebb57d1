//! When the bytes of a channel came: kept beside it by the receiver, read again with a capture.
//!
//! The file is named as the channel's with `.times` after it. Each of its lines is a number of bytes and the seconds
//! since the first connection by which so many had come: `1048576 0.012345`. Both grow.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::event::At;
use crate::error::{Error, Result};

/// Moments closer to each other than this are one, in seconds.
const STEP: f64 = 0.005;
/// Most lines that are read: half a day of moments.
const MOST_LINES: usize = 1 << 23;

/// The file beside that of a channel.
pub fn path_of(channel: &Path) -> PathBuf {
    let mut name = channel.as_os_str().to_owned();
    name.push(".times");
    name.into()
}

/// Writes moments as bytes come.
#[derive(Debug)]
pub(super) struct Writer<W: Write> {
    to: W,
    bytes: u64,
    last: f64,
    written: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, bytes: 0, last: f64::NEG_INFINITY, written: 0 }
    }

    /// `count` more bytes have come.
    pub(super) fn add(&mut self, count: u64, now: f64) -> io::Result<()> {
        if now - self.last >= STEP {
            self.line()?;
            self.last = now;
        }
        self.bytes += count;
        Ok(())
    }

    /// All bytes before those that are about to be added came by the moment of the last line.
    fn line(&mut self) -> io::Result<()> {
        if self.bytes == self.written {
            return Ok(());
        }
        self.written = self.bytes;
        writeln!(self.to, "{} {:.6}", self.bytes, self.last)
    }
}

impl<W: Write> Drop for Writer<W> {
    fn drop(&mut self) {
        // What is lost here are moments, not bytes.
        let _ = self.line().and_then(|()| self.to.flush());
    }
}

/// The moments of one channel, looked up in ascending order.
#[derive(Debug, Clone, Default)]
struct Channel {
    lines: Vec<(u64, f64)>,
    next: usize,
}

impl Channel {
    fn read(path: &Path) -> Result<Option<Self>> {
        let Ok(file) = std::fs::File::open(path) else { return Ok(None) };
        let mut lines: Vec<(u64, f64)> = Vec::new();
        for line in BufReader::new(file).lines() {
            let line =
                line.map_err(|error| Error::usage(format!("cannot read {}: {error}", path.display())))?;
            let pair =
                line.split_once(' ').and_then(|(bytes, at)| Some((bytes.parse().ok()?, at.parse().ok()?)));
            let grows =
                |pair: &(u64, f64)| lines.last().is_none_or(|last| last.0 < pair.0 && last.1 <= pair.1);
            match pair.filter(grows) {
                Some(pair) if lines.len() < MOST_LINES => lines.push(pair),
                _ => return Err(wrong(path, lines.len() + 1, &line)),
            }
        }
        Ok(Some(Self { lines, next: 0 }))
    }

    /// The moment by which the byte at `offset` had come.
    fn at(&mut self, offset: u64) -> Option<f64> {
        if self.next > 0 && self.lines.get(self.next - 1).is_some_and(|line| line.0 > offset) {
            self.next = self.lines.partition_point(|line| line.0 <= offset);
        }
        while self.lines.get(self.next).is_some_and(|line| line.0 <= offset) {
            self.next += 1;
        }
        self.lines.get(self.next).or(self.lines.last()).map(|line| line.1)
    }
}

fn wrong(path: &Path, number: usize, line: &str) -> Error {
    let line: String = line.chars().take(40).flat_map(char::escape_default).collect();
    Error::usage(format!(
        "{}, line {number}: `{line}` is no pair of growing bytes and seconds: remove the file to go without times",
        path.display()
    ))
}

/// The moments of a capture's channels.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Option<Channel>>);

impl Times {
    /// Of the channels in `files`, in their order.
    ///
    /// # Errors
    /// [`Error::Usage`]: a file of times cannot be read, or is none.
    pub(super) fn read<'a>(files: impl Iterator<Item = &'a Path>) -> Result<Self> {
        files.map(|file| Channel::read(&path_of(file))).collect::<Result<_>>().map(Self)
    }

    /// Whether there are any.
    pub fn are_known(&self) -> bool {
        self.0.iter().flatten().any(|channel| !channel.lines.is_empty())
    }

    /// Seconds since the first connection by which what is at `at` had begun to come.
    pub fn at(&mut self, at: At) -> Option<f64> {
        self.0.get_mut(at.channel)?.as_mut()?.at(at.offset)
    }

    /// When the last byte of all had come.
    pub fn end(&self) -> Option<f64> {
        let ends = self.0.iter().flatten().filter_map(|channel| channel.lines.last());
        ends.map(|line| line.1).max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Times> {
        let folder = std::env::temp_dir();
        let channel = folder.join(format!("switchover-times-{}-{:p}", std::process::id(), text));
        std::fs::write(path_of(&channel), text).unwrap();
        let read = Times::read([channel.as_path()].into_iter());
        std::fs::remove_file(path_of(&channel)).unwrap();
        read
    }

    #[test]
    fn what_is_written_is_found_again() {
        let mut text = Vec::new();
        let mut writer = Writer::new(&mut text);
        for (count, now) in [(10, 0.0), (5, 0.001), (20, 0.5), (1, 0.7)] {
            writer.add(count, now).unwrap();
        }
        drop(writer);
        let mut times = of(&String::from_utf8(text).unwrap()).unwrap();
        let mut at = |offset| times.at(At { channel: 0, offset, bytes: 1 });
        let moments = [14, 0, 15, 34, 35, 99].map(&mut at).map(Option::unwrap);
        assert_eq!(moments, [0.0, 0.0, 0.5, 0.5, 0.7, 0.7]);
        assert_eq!(times.end(), Some(0.7));
        assert_eq!(times.at(At { channel: 1, offset: 0, bytes: 1 }), None);
    }

    #[test]
    fn other_files_are_refused() {
        for text in ["hello", "1 0.5\n1 0.6", "2 0.5\n3 0.4", "1", "-1 0.1"] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains("remove the file"), "{error}");
        }
        assert!(!of("").unwrap().are_known());
    }
}
