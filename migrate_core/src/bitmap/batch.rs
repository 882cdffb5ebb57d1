//! Words on their way from the shared bitmap into an owned one.

use std::hint::black_box;

use super::dirty::Group;
use super::geometry::GROUP_WORDS;
use super::Bitmap;

/// Groups that are moved together: more than the misses that a core keeps under way, so that waiting for the last
/// ones of a batch costs little.
const GROUPS: usize = 128;
/// Words that they have.
const WORDS: usize = GROUPS * GROUP_WORDS;

/// Groups that the summary named, cleared there if their words are to be taken, and still to be visited.
///
/// A locked instruction waits for all stores before it and lets no load pass, so swapping words that are not in the
/// cache costs one miss after the other, and so does a store between two swaps. A batch is moved in passes
/// instead, and only one of them has locked instructions, on lines that the plain loads of the others have brought.
/// The words to move are found without a branch, which would be guessed wrong once a group.
pub(super) struct Batch<'a, F> {
    from: &'a [Group],
    into: &'a mut Bitmap,
    /// Takes, or only reads, a word of a group.
    take: F,
    groups: [usize; GROUPS],
    len: usize,
    /// The words of the groups that are not zero, with one place more for the last one looked at.
    places: [usize; WORDS + 1],
    /// What they are to be in `into`.
    sums: [u64; WORDS],
}

impl<'a, F: Fn(&Group, usize) -> u64> Batch<'a, F> {
    pub fn new(from: &'a [Group], into: &'a mut Bitmap, take: F) -> Self {
        let (groups, places, sums) = ([0; GROUPS], [0; WORDS + 1], [0; WORDS]);
        Self { from, into, take, groups, len: 0, places, sums }
    }

    /// Adds a group.
    #[inline]
    pub fn push(&mut self, group: usize) {
        self.groups[self.len] = group;
        self.len += 1;
        if self.len == GROUPS {
            self.flush();
        }
    }

    /// Moves the groups added so far.
    pub fn flush(&mut self) {
        self.touch();
        let found = self.find();
        let (places, sums) = (&self.places[..found], &mut self.sums[..found]);
        for (word, sum) in places.iter().zip(&mut *sums) {
            *sum = self.into.words()[*word];
        }
        for (word, sum) in places.iter().zip(&mut *sums) {
            *sum |= (self.take)(&self.from[word / GROUP_WORDS], word % GROUP_WORDS);
        }
        for (word, sum) in places.iter().zip(&*sums) {
            self.into.merge(*word, *sum);
        }
        self.len = 0;
    }

    /// Brings the groups into the cache: so few instructions a group that many misses are under way at a time.
    fn touch(&self) {
        let groups = self.groups[..self.len].iter();
        black_box(groups.fold(0, |any, group| any | self.from[*group].load(0)));
    }

    /// Lists the words that are not zero and returns how many there are.
    fn find(&mut self) -> usize {
        let mut found = 0;
        for group in &self.groups[..self.len] {
            for (at, word) in self.from[*group].read().iter().enumerate() {
                self.places[found] = group * GROUP_WORDS + at;
                found += usize::from(*word != 0);
            }
        }
        found
    }
}
