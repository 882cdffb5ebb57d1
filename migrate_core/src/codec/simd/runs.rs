//! Runs of changed and unchanged bytes: the XBZRLE format, written from a [`Difference`] and applied to a page.
//!
//! The format and the loader's rules: QEMU, `migration/xbzrle.c` and `docs/devel/migration`. Data is a sequence
//! of (unchanged length, changed length, changed bytes); lengths are ULEB128 of at most 14 bits; trailing
//! unchanged bytes are left out.

use super::{Difference, Page, CHUNK, PAGE};

/// Bytes copied in one step: longer than most runs, so that their number is no hard branch.
const STEP: usize = CHUNK;

/// What is wrong with XBZRLE data, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// Offset in the data.
    pub at: usize,
    /// What was found.
    pub what: &'static str,
}

/// Where an encoding goes: room for a page and the last step's surplus, and a place to note where runs meet.
/// One is kept from page to page: to clear it would take as long as to compare two pages.
pub struct Room {
    bytes: [u8; PAGE + STEP],
    /// Where runs begin and end, by turns.
    edges: [u16; PAGE + GROUP],
}

/// Edges noted in one go: as many as a word of mixed bytes mostly has, so that their number is no hard branch.
const GROUP: usize = 8;

impl Room {
    /// An empty one.
    pub fn new() -> Box<Self> {
        Box::new(Self { bytes: [0; PAGE + STEP], edges: [0; PAGE + GROUP] })
    }

    /// The encoding that was written last, of which the kernel said `used`.
    pub fn bytes(&self, used: usize) -> &[u8] {
        &self.bytes[..used]
    }

    /// Notes where runs begin and end; how many edges there are.
    #[inline(always)]
    fn note_edges(&mut self, difference: &Difference) -> usize {
        let (words, mut edges, mut with_edges) = (&difference.words, [0; PAGE / CHUNK], 0u64);
        // A run that ends with its word shows as an edge in the next one.
        let mut active = difference.summary | difference.summary << 1;
        while active != 0 {
            let word = active.trailing_zeros() as usize;
            active &= active - 1;
            let before = word.checked_sub(1).map_or(0, |before| words[before] >> 63);
            edges[word] = words[word] ^ (words[word] << 1 | before);
            with_edges |= u64::from(edges[word] != 0) << word;
        }
        let mut count = 0;
        while with_edges != 0 {
            let word = with_edges.trailing_zeros() as usize;
            with_edges &= with_edges - 1;
            let mut bits = edges[word];
            let end = count + bits.count_ones() as usize;
            while count < end {
                for place in &mut self.edges[count..count + GROUP] {
                    *place = (word * CHUNK) as u16 + bits.trailing_zeros() as u16;
                    bits &= bits.wrapping_sub(1);
                }
                count += GROUP;
            }
            count = end;
        }
        if count % 2 == 1 {
            self.edges[count] = PAGE as u16;
            count += 1;
        }
        count
    }

    /// A length at `used`: one or two bytes; both are written, and as many as count are kept. QEMU wants room for two.
    #[inline(always)]
    fn length(&mut self, used: usize, n: usize) -> Option<usize> {
        if used + 2 > PAGE {
            return None;
        }
        let long = n >= 0x80;
        let low = (n & 0x7f) | usize::from(long) << 7;
        self.bytes[used..used + 2].copy_from_slice(&[low as u8, (n >> 7) as u8]);
        Some(used + 1 + usize::from(long))
    }

    /// `count` bytes of `new` from `start` on, copied in whole steps where both sides have room for the surplus.
    #[inline(always)]
    fn literal(&mut self, used: usize, new: &Page, start: usize, count: usize) -> Option<usize> {
        if used + count > PAGE {
            return None;
        }
        if start + count + STEP > PAGE {
            self.bytes[used..used + count].copy_from_slice(&new[start..start + count]);
            return Some(used + count);
        }
        let mut done = 0;
        while done < count {
            let step = &new[start + done..start + done + STEP];
            self.bytes[used + done..used + done + STEP].copy_from_slice(step);
            done += STEP;
        }
        Some(used + count)
    }
}

/// Writes the encoding of `new`; see [`super::Kernels::encode`].
#[inline(always)]
pub(super) fn write(difference: &Difference, new: &Page, room: &mut Room) -> Option<usize> {
    let count = room.note_edges(difference);
    // A run costs three bytes at least.
    if count / 2 * 3 > PAGE {
        return None;
    }
    let (mut used, mut last) = (0, 0);
    for pair in (0..count).step_by(2) {
        let (start, end) = (usize::from(room.edges[pair]), usize::from(room.edges[pair + 1]));
        used = room.length(used, start - last)?;
        used = room.length(used, end - start)?;
        used = room.literal(used, new, start, end - start)?;
        last = end;
    }
    // QEMU looks for room before it learns that only unchanged bytes are left.
    (last == PAGE || used + 2 <= PAGE).then_some(used)
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
