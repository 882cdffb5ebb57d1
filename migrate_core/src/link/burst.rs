//! What is read at once, and the buffers that it travels in.

use std::io::{self, Read, Write};

/// Free buffers that are kept: the bursts of a few milliseconds.
const SPARE_BUFFERS: usize = 64;

/// Bytes that were read together, and how many of them have been written.
#[derive(Debug)]
pub(super) struct Burst {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Burst {
    /// Writes once; true when nothing is left.
    pub(super) fn write_to(&mut self, mut sink: impl Write) -> io::Result<bool> {
        self.from += sink.write(&self.bytes[self.from..self.to])?;
        Ok(self.from == self.to)
    }
}

/// Makes bursts out of buffers that are used again, the warmest first.
pub(super) struct Pool {
    spare: Vec<Box<[u8]>>,
    size: usize,
}

impl Pool {
    /// A pool for bursts of up to `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Self { spare: Vec::new(), size }
    }

    /// Most bytes of one burst.
    pub(super) fn burst_size(&self) -> usize {
        self.size
    }

    /// Reads once: the burst with its length, or `None` at the end of the stream.
    pub(super) fn read_from(&mut self, mut source: impl Read) -> io::Result<Option<(usize, Burst)>> {
        let mut buffer = self.spare.pop().unwrap_or_else(|| vec![0; self.size].into());
        let got = source.read(&mut buffer);
        match got {
            Ok(count) if count > 0 => Ok(Some((count, self.pack(buffer, count)))),
            over => {
                self.spare.push(buffer);
                over.map(|_| None)
            }
        }
    }

    /// A short burst is copied out of the buffer, most of which it would waste.
    fn pack(&mut self, buffer: Box<[u8]>, count: usize) -> Burst {
        if count > self.size / 2 {
            return Burst { bytes: buffer, from: 0, to: count };
        }
        let bytes = buffer[..count].into();
        self.spare.push(buffer);
        Burst { bytes, from: 0, to: count }
    }

    /// Takes a burst's buffer back.
    pub(super) fn recycle(&mut self, burst: Burst) {
        if burst.bytes.len() == self.size && self.spare.len() < SPARE_BUFFERS {
            self.spare.push(burst.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_carry_what_was_read_and_buffers_return() {
        let mut pool = Pool::new(8);
        let mut source: &[u8] = b"01234567ab";
        let mut sink = Vec::new();
        for expected in [8, 2] {
            let (count, mut burst) = pool.read_from(&mut source).unwrap().unwrap();
            assert_eq!(count, expected);
            assert!(burst.write_to(&mut sink).unwrap());
            pool.recycle(burst);
        }
        assert!(pool.read_from(&mut source).unwrap().is_none());
        assert_eq!(sink, b"01234567ab");
        assert_eq!(pool.spare.iter().map(|buffer| buffer.len()).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn a_burst_goes_on_where_a_short_write_stopped() {
        let (_, mut burst) = Pool::new(8).read_from(&b"abcdef"[..]).unwrap().unwrap();
        let mut room = [0u8; 4];
        assert!(!burst.write_to(&mut room[..]).unwrap());
        assert_eq!(&room, b"abcd");
        assert!(burst.write_to(&mut room[..]).unwrap());
        assert_eq!(&room[..2], b"ef");
    }
}
