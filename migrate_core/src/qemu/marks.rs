//! Which pages of a block have been seen: a bit each, in chunks that come into being as pages do.

/// Pages of a chunk.
const CHUNK: u64 = 4096;
const WORDS: usize = (CHUNK / 64) as usize;

/// A set of page numbers. Memory grows with the pages that are set, not with what a stream claims to have: by at most
/// 520 bytes for a page set, and 8 bytes for each 16 MiB below the highest.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    chunks: Vec<Option<Box<[u64; WORDS]>>>,
}

impl Marks {
    /// Sets a page; whether it was set already.
    pub(super) fn set(&mut self, page: u64) -> bool {
        let (chunk, word, mask) = place(page);
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, None);
        }
        let words = self.chunks[chunk].get_or_insert_with(|| Box::new([0; WORDS]));
        let before = words[word] & mask != 0;
        words[word] |= mask;
        before
    }

    /// Whether a page is set.
    pub(super) fn has(&self, page: u64) -> bool {
        let (chunk, word, mask) = place(page);
        matches!(self.chunks.get(chunk), Some(Some(words)) if words[word] & mask != 0)
    }

    /// How many pages are set.
    pub(super) fn count(&self) -> u64 {
        let chunks = self.chunks.iter().flatten();
        chunks.flat_map(|words| words.iter()).map(|word| u64::from(word.count_ones())).sum()
    }
}

fn place(page: u64) -> (usize, usize, u64) {
    ((page / CHUNK) as usize, (page % CHUNK / 64) as usize, 1 << (page % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec(0u64..20_000, 0..300)) {
            let (mut marks, mut model) = (Marks::default(), BTreeSet::new());
            for page in steps {
                prop_assert_eq!(marks.has(page), model.contains(&page));
                prop_assert_eq!(marks.set(page), !model.insert(page));
                prop_assert_eq!(marks.has(page), model.contains(&page));
                prop_assert_eq!(marks.count(), model.len() as u64);
            }
        }
    }
}
