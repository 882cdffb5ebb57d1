//! Pages that may be taken once, by whoever comes first.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::bitmap::{Bitmap, Run};
use crate::error::Result;

/// A set of pages that threads take out of.
#[derive(Debug)]
pub(super) struct Claims {
    pages: u64,
    words: Vec<AtomicU64>,
}

impl Claims {
    /// The pages of `set` can be claimed.
    pub(super) fn new(set: &Bitmap) -> Self {
        Self { pages: set.pages(), words: set.words().iter().map(|word| AtomicU64::new(*word)).collect() }
    }

    /// Takes `page`; false if it is not in the set, or not any more.
    pub(super) fn claim(&self, page: u64) -> bool {
        let mask = 1 << (page % 64);
        page < self.pages && self.words[(page / 64) as usize].fetch_and(!mask, SeqCst) & mask != 0
    }

    /// Takes what is left of `run`, as runs in ascending order.
    pub(super) fn claim_run(&self, run: Run) -> Vec<Run> {
        let mut claimed = Vec::new();
        for page in run.range().filter(|page| self.claim(*page)) {
            super::super::lane::append(&mut claimed, page);
        }
        claimed
    }

    /// Whether `page` can be claimed.
    pub(super) fn contains(&self, page: u64) -> bool {
        page < self.pages && self.words[(page / 64) as usize].load(SeqCst) & 1 << (page % 64) != 0
    }

    /// What can be claimed at the moment.
    pub(super) fn to_bitmap(&self) -> Result<Bitmap> {
        Bitmap::from_words(self.pages, self.words.iter().map(|word| word.load(SeqCst)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_claimed_by_one_thread() {
        let claims = Claims::new(&Bitmap::full(5000));
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let claim = |step: u64| {
                let claims = &claims;
                move || {
                    let runs = (0..5000).step_by(step as usize);
                    let runs = runs.map(|first| Run { first, pages: step.min(5000 - first) });
                    runs.flat_map(|run| claims.claim_run(run)).map(|run| run.pages).sum::<u64>()
                }
            };
            let threads: Vec<_> = [1, 7, 64, 100].map(|step| scope.spawn(claim(step))).into();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(counts.iter().sum::<u64>(), 5000, "{counts:?}");
        assert!(claims.to_bitmap().unwrap().is_empty());
    }

    #[test]
    fn only_pages_of_the_set_can_be_claimed() {
        let mut set = Bitmap::new(130);
        [3, 4, 64, 129].into_iter().for_each(|page| set.set(page));
        let claims = Claims::new(&set);
        assert!(!claims.contains(2) && claims.contains(129) && !claims.contains(130));
        assert!(!claims.claim(2) && claims.claim(4) && !claims.claim(4) && !claims.claim(u64::MAX));
        let left = claims.claim_run(Run { first: 0, pages: 130 });
        assert_eq!(
            left.iter().map(|run| (run.first, run.pages)).collect::<Vec<_>>(),
            [(3, 1), (64, 1), (129, 1)]
        );
    }
}
