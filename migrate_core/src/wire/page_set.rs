//! A set of pages in a message: runs or bits, whichever is shorter.

use serde::{Deserialize, Serialize};

use super::message::{checked_runs, PageRuns};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};

/// Pages of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageSet {
    /// As runs.
    Runs(PageRuns),
    /// A bit a page, 64 a word from the lowest bit up.
    Bits(Vec<u64>),
}

impl PageSet {
    /// The pages of `bitmap`.
    pub fn of(bitmap: &Bitmap) -> Self {
        let most = bitmap.words().len();
        let runs: PageRuns = bitmap.runs().map(|run| (run.first, run.pages)).take(most).collect();
        match runs.len() < most || most == 0 {
            true => Self::Runs(runs),
            false => Self::Bits(bitmap.words().to_vec()),
        }
    }

    /// The same pages, refused where they leave a guest of `pages` pages.
    pub fn checked(&self, pages: u64) -> Result<Bitmap> {
        match self {
            Self::Runs(runs) => {
                let mut bitmap = Bitmap::new(pages);
                checked_runs(runs, pages)?.iter().for_each(|run| bitmap.set_range(run.range()));
                Ok(bitmap)
            }
            Self::Bits(words) => Bitmap::from_words(pages, words.clone())
                .map_err(|error| Error::link(format!("the peer named pages that are not: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_come_back_as_they_were(pages in 0u64..2000, set in prop::collection::vec(0u64..2000, 0..600)) {
            let mut bitmap = Bitmap::new(pages);
            set.into_iter().for_each(|page| bitmap.set(page));
            let text = serde_json::to_string(&PageSet::of(&bitmap)).unwrap();
            let back: PageSet = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.checked(pages).unwrap(), bitmap);
        }
    }

    #[test]
    fn sets_that_leave_the_guest_are_refused() {
        for set in [
            PageSet::Runs(vec![(5, 6)]),
            PageSet::Runs(vec![(0, 0)]),
            PageSet::Runs(vec![(u64::MAX, 2)]),
            PageSet::Bits(vec![1 << 10]),
            PageSet::Bits(vec![]),
            PageSet::Bits(vec![1, 0]),
        ] {
            assert!(matches!(set.checked(10), Err(Error::Link { .. })), "{set:?}");
        }
    }
}
