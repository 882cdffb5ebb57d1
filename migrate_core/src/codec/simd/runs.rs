//! Runs of changed and unchanged bytes: the XBZRLE format, written from a [`Difference`] and applied to a page.
//!
//! The format and the loader's rules: QEMU, `migration/xbzrle.c` and `docs/devel/migration`. Data is a sequence
//! of (unchanged length, changed length, changed bytes); lengths are ULEB128 of at most 14 bits; trailing
//! unchanged bytes are left out.

use super::{Difference, Page, Room, PAGE};

/// Bytes copied in one step: longer than most runs, as short as a vector register.
const STEP: usize = 32;

/// What is wrong with XBZRLE data, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// Offset in the data.
    pub at: usize,
    /// What was found.
    pub what: &'static str,
}

/// Where an encoding stands.
struct Encoder<'a> {
    room: &'a mut Room,
    used: usize,
    /// Where the run that is under way began.
    start: usize,
}

impl Encoder<'_> {
    /// A length: one or two bytes; both are written, and as many as count are kept.
    #[inline(always)]
    fn length(&mut self, n: usize) {
        let long = n >= 0x80;
        let low = (n & 0x7f) | usize::from(long) << 7;
        self.room[self.used..self.used + 2].copy_from_slice(&[low as u8, (n >> 7) as u8]);
        self.used += 1 + usize::from(long);
    }

    /// The unchanged run ends at `at`. QEMU wants room for two bytes before it writes a length.
    #[inline(always)]
    fn unchanged(&mut self, at: usize) -> Option<()> {
        if self.used + 2 > PAGE {
            return None;
        }
        self.length(at - self.start);
        self.start = at;
        Some(())
    }

    /// The changed run ends at `at`, with bytes from `new`.
    #[inline(always)]
    fn changed(&mut self, at: usize, new: &Page) -> Option<()> {
        let bytes = at - self.start;
        if self.used + 2 > PAGE {
            return None;
        }
        self.length(bytes);
        if self.used + bytes > PAGE {
            return None;
        }
        copy(new, self.start, self.room, self.used, bytes);
        self.used += bytes;
        self.start = at;
        Some(())
    }
}

/// Copies `bytes` in whole steps where both sides have room for the surplus.
#[inline(always)]
fn copy(from: &Page, at: usize, to: &mut Room, used: usize, bytes: usize) {
    if at + bytes + STEP > PAGE {
        to[used..used + bytes].copy_from_slice(&from[at..at + bytes]);
        return;
    }
    let mut done = 0;
    while done < bytes {
        to[used + done..used + done + STEP].copy_from_slice(&from[at + done..at + done + STEP]);
        done += STEP;
    }
}

/// Writes the encoding of `new`; see [`super::Kernels::encode`].
#[inline(always)]
pub(super) fn write(difference: &Difference, new: &Page, room: &mut Room) -> Option<usize> {
    let mut encoder = Encoder { room, used: 0, start: 0 };
    let (mut inside, words) = (false, &difference.words);
    // A run that ends with its word shows as an edge in the next one.
    let mut active = difference.summary | difference.summary << 1;
    while active != 0 {
        let word = active.trailing_zeros() as usize;
        active &= active - 1;
        let before = word.checked_sub(1).map_or(0, |before| words[before] >> 63);
        let mut edges = words[word] ^ (words[word] << 1 | before);
        while edges != 0 {
            let at = word * super::CHUNK + edges.trailing_zeros() as usize;
            edges &= edges - 1;
            match inside {
                false => encoder.unchanged(at)?,
                true => encoder.changed(at, new)?,
            }
            inside = !inside;
        }
    }
    if inside {
        encoder.changed(PAGE, new)?;
    } else if encoder.used + 2 > PAGE {
        // QEMU looks for room before it learns that only unchanged bytes are left.
        return None;
    }
    Some(encoder.used)
}

/// A length at `at`, and where what follows it begins. Two bytes must be left: no valid data is shorter.
#[inline(always)]
fn length(data: &[u8], at: usize) -> Result<(usize, usize), Wrong> {
    let Some([low, high]) = data.get(at..at + 2) else {
        return Err(Wrong { at, what: "the data ends inside a run" });
    };
    match (low & 0x80, high & 0x80) {
        (0, _) => Ok((usize::from(*low), at + 1)),
        (_, 0) => Ok((usize::from(low & 0x7f) | usize::from(*high) << 7, at + 2)),
        _ => Err(Wrong { at, what: "a run length has more than 14 bits" }),
    }
}

/// Checks `data` run by run as QEMU's loader does and hands each changed run to `place(page, to, data, from, bytes)`;
/// both ranges are inside their buffers.
#[inline(always)]
pub(super) fn apply(
    data: &[u8],
    page: &mut Page,
    mut place: impl FnMut(&mut Page, usize, &[u8], usize, usize),
) -> Result<(), Wrong> {
    let (mut at, mut to) = (0, 0);
    while at < data.len() {
        let (unchanged, next) = length(data, at)?;
        if unchanged == 0 && at != 0 {
            return Err(Wrong { at, what: "an unchanged run of no bytes after the first" });
        }
        to += unchanged;
        let (changed, from) = length(data, next)?;
        if changed == 0 {
            return Err(Wrong { at: next, what: "a changed run of no bytes" });
        }
        if to + changed > PAGE {
            return Err(Wrong { at, what: "the runs pass the page's end" });
        }
        if from + changed > data.len() {
            return Err(Wrong { at: next, what: "the data ends inside a changed run" });
        }
        place(page, to, data, from, changed);
        (at, to) = (from + changed, to + changed);
    }
    Ok(())
}

/// Places a run by two overlapping moves of its size class: short runs are the rule, and a call to copy costs more
/// than they do.
#[inline(always)]
pub(super) fn place(page: &mut Page, to: usize, data: &[u8], from: usize, bytes: usize) {
    match bytes {
        1 => page[to] = data[from],
        2..4 => ends::<2>(page, to, data, from, bytes),
        4..8 => ends::<4>(page, to, data, from, bytes),
        8..16 => ends::<8>(page, to, data, from, bytes),
        16..32 => ends::<16>(page, to, data, from, bytes),
        32..=64 => ends::<32>(page, to, data, from, bytes),
        _ => page[to..to + bytes].copy_from_slice(&data[from..from + bytes]),
    }
}

/// The first and the last `N` of `bytes`, which are at least `N` and at most `2 N`.
#[inline(always)]
fn ends<const N: usize>(page: &mut Page, to: usize, data: &[u8], from: usize, bytes: usize) {
    page[to..to + N].copy_from_slice(&data[from..from + N]);
    let last = bytes - N;
    page[to + last..to + last + N].copy_from_slice(&data[from + last..from + last + N]);
}
