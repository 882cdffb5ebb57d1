//! Kernels of plain 64-bit words: the model of all others, and the fallback.

use super::{runs, Difference, Kernels, Page, Room, Wrong, CHUNK, PAGE};

/// Plain words.
pub static KERNELS: Kernels = Kernels { name: "scalar", is_zero, equal, encode, apply };

fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// Bit `k` tells whether byte `k` of `word` is not zero.
fn nonzero_bytes(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // A byte's top bit is set by its own or by a carry out of its low seven.
    let tops = (((word & LOW) + LOW) | word) & !LOW;
    // The product gathers the eight bits, 8 apart, in its top byte.
    (tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

fn is_zero(page: &Page) -> bool {
    page.as_chunks::<CHUNK>()
        .0
        .iter()
        .all(|chunk| chunk.as_chunks::<8>().0.iter().fold(0, |all, bytes| all | word(bytes)) == 0)
}

fn equal(a: &Page, b: &Page) -> bool {
    a == b
}

/// What differs between `old` and `new`.
pub(super) fn difference(old: &Page, new: &Page) -> Difference {
    let mut difference = Difference { words: [0; PAGE / CHUNK], summary: 0 };
    let chunks = old.as_chunks::<CHUNK>().0.iter().zip(new.as_chunks::<CHUNK>().0);
    for (index, (old, new)) in chunks.enumerate() {
        if old == new {
            continue;
        }
        let pairs = old.as_chunks::<8>().0.iter().zip(new.as_chunks::<8>().0);
        for (lane, (old, new)) in pairs.enumerate() {
            difference.words[index] |= nonzero_bytes(word(old) ^ word(new)) << (8 * lane);
        }
        difference.summary |= 1 << index;
    }
    difference
}

fn encode(old: &Page, new: &Page, room: &mut Room) -> Option<usize> {
    let difference = difference(old, new);
    if difference.summary == 0 {
        return Some(0);
    }
    runs::write(&difference, new, room)
}

fn apply(data: &[u8], page: &mut Page) -> Result<(), Wrong> {
    runs::apply(data, page, runs::place)
}
