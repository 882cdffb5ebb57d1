//! The edges, by example.

use crate::bitmap::{Bitmap, DirtyBitmap, Run};
use crate::Error;

/// Lengths around the ends of words, groups and summary words.
const LENGTHS: [u64; 12] = [0, 1, 63, 64, 65, 511, 512, 513, 32_767, 32_768, 32_769, 70_001];

#[test]
fn full_holds_every_page_and_nothing_past_the_end() {
    for pages in LENGTHS {
        let full = Bitmap::full(pages);
        assert_eq!(full.count(), pages);
        assert_eq!(full.runs().map(|run| run.pages).sum::<u64>(), pages);
        assert_eq!(full.runs().count() as u64, pages.min(1));
        assert_eq!(full.is_empty(), pages == 0);
        assert!(!full.contains(pages));
        assert_eq!(Bitmap::from_words(pages, full.words().to_vec()).unwrap(), full);
    }
}

#[test]
fn out_of_range_is_ignored() {
    for pages in LENGTHS {
        let mut plain = Bitmap::new(pages);
        let shared = DirtyBitmap::new(pages);
        for page in [pages, pages + 1, u64::MAX] {
            plain.set(page);
            plain.clear(page);
            shared.set(page);
            assert!(!plain.contains(page) && !shared.is_set(page));
            assert_eq!(plain.first_from(page), None);
        }
        for range in [pages..u64::MAX, u64::MAX..u64::MAX, pages + 9..pages + 3] {
            plain.set_range(range.clone());
            plain.clear_range(range.clone());
            shared.set_range(range.clone());
            shared.harvest_range(range.clone(), &mut plain);
            shared.peek_range(range.clone(), &mut plain);
            assert_eq!((plain.count_in(range.clone()), plain.runs_in(range).count()), (0, 0));
        }
        assert!(plain.is_empty());
        assert_eq!(shared.count(), 0);
        shared.set_range(0..u64::MAX);
        assert_eq!(shared.count(), pages);
    }
}

#[test]
#[allow(clippy::reversed_empty_ranges)]
fn a_range_that_runs_backwards_is_empty() {
    let mut plain = Bitmap::full(5000);
    plain.clear_range(4000..70);
    assert_eq!(plain.count(), 5000);
    assert_eq!((plain.count_in(4000..70), plain.runs_in(4000..70).next()), (0, None));
}

#[test]
fn words_that_do_not_fit_are_refused() {
    let refused = |pages, words| matches!(Bitmap::from_words(pages, words), Err(Error::Usage(_)));
    assert!(refused(65, vec![0]));
    assert!(refused(64, vec![0, 0]));
    assert!(refused(0, vec![0]));
    assert!(refused(u64::MAX, vec![0]));
    assert!(refused(65, vec![0, 2]));
    assert!(!refused(65, vec![!0, 1]));
    assert!(!refused(0, vec![]));
}

#[test]
fn unequal_lengths_follow_the_rule() {
    let (long, short) = (Bitmap::full(40_000), Bitmap::full(700));
    let mut grown = Bitmap::new(700);
    grown.union_with(&long);
    assert_eq!(grown, short);
    let mut left = long.clone();
    left.subtract(&short);
    assert_eq!(left.runs().collect::<Vec<_>>(), [Run { first: 700, pages: 39_300 }]);
    left.set(3);
    left.intersect_with(&short);
    assert_eq!(left.runs().collect::<Vec<_>>(), [Run { first: 3, pages: 1 }]);
    left.subtract(&long);
    assert!(left.is_empty());
}

#[test]
fn marks_past_the_end_of_the_target_stay() {
    let shared = DirtyBitmap::new(5000);
    shared.set_range(60..80);
    let mut into = Bitmap::new(70);
    shared.harvest(&mut into);
    assert_eq!((into.count(), shared.count()), (10, 10));
    let mut rest = Bitmap::new(5000);
    shared.harvest(&mut rest);
    assert_eq!(rest.runs().collect::<Vec<_>>(), [Run { first: 70, pages: 10 }]);
}

#[test]
fn harvesting_a_part_of_a_group_leaves_the_rest_named() {
    let shared = DirtyBitmap::new(512);
    shared.set(3);
    shared.set(400);
    let mut into = Bitmap::new(512);
    shared.harvest_range(0..4, &mut into);
    assert_eq!((into.count(), shared.count()), (1, 1));
    shared.harvest_range(4..512, &mut into);
    assert_eq!((into.count(), shared.count()), (2, 0));
}
