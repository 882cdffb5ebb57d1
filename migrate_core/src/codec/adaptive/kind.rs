//! Kinds of pages, told apart by a look that costs less than any encoding.

use crate::codec::Page;

/// How many kinds there are.
pub const KINDS: usize = 6;

/// Places of a page that are looked at, and bytes at each.
const PLACES: usize = 16;
const BYTES: usize = 8;

/// Different bytes among the 128 looked at: text and pointers have up to the first number, random bytes more than
/// the second (101 on average).
const VARIETY: [u32; 2] = [44, 84];

/// Places that changed: few are a matter of counters, most are another page.
const CHANGED: [usize; 2] = [2, 10];

/// The kind of `page`: without a base by how many different bytes it has, with one by how much changed.
pub fn kind_of(page: &Page, base: Option<&Page>) -> usize {
    match base {
        None => step(variety(page), VARIETY),
        Some(base) => 3 + step(changed(page, base), CHANGED),
    }
}

fn step<T: PartialOrd>(value: T, limits: [T; 2]) -> usize {
    limits.iter().filter(|limit| value > **limit).count()
}

/// The bytes looked at: at the same distance, and each time a little further into a cache line.
fn looked_at(page: &Page) -> impl Iterator<Item = &[u8]> {
    let stretch = size_of::<Page>() / PLACES;
    (0..PLACES).map(move |place| {
        let at = place * stretch + place * BYTES % (stretch - BYTES);
        &page[at..at + BYTES]
    })
}

fn variety(page: &Page) -> u32 {
    let mut seen = [0u64; 4];
    for byte in looked_at(page).flatten() {
        seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    seen.iter().map(|bits| bits.count_ones()).sum()
}

fn changed(page: &Page, base: &Page) -> usize {
    looked_at(page).zip(looked_at(base)).filter(|(a, b)| a != b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::conformance::{cases, Numbers};

    #[test]
    fn kinds_tell_text_from_random_bytes_and_counters_from_other_pages() {
        for seed in 1..20 {
            let mut numbers = Numbers(seed);
            let random = numbers.page();
            assert_eq!(kind_of(&random, None), 2, "seed {seed}");
            assert_eq!(kind_of(&numbers.changed(&random, 4, 4), Some(&random)), 3, "seed {seed}");
            assert_eq!(kind_of(&numbers.page(), Some(&random)), 5, "seed {seed}");
        }
        let text = cases(1).into_iter().find(|case| case.0 == "text").unwrap().1;
        assert_eq!(kind_of(&text, None), 0);
        assert!(cases(1).iter().all(|case| kind_of(&case.1, Some(&case.2)) < KINDS));
    }
}
