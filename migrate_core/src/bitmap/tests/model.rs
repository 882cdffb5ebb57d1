//! Both bitmaps against a set of page numbers.

use std::collections::BTreeSet;
use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::bitmap::{Bitmap, DirtyBitmap, Run};

type Model = BTreeSet<u64>;

/// One call of either bitmap.
#[derive(Debug, Clone)]
enum Step {
    Set(u64),
    SetRange(Range<u64>),
    Clear(u64),
    ClearRange(Range<u64>),
    ClearAll,
    Union(Vec<Range<u64>>),
    Subtract(Vec<Range<u64>>),
    Intersect(Vec<Range<u64>>),
    Harvest,
    HarvestRange(Range<u64>),
}

/// Pages near the ends of words, groups and summary words, and anywhere, some of them past the end.
fn page() -> impl Strategy<Value = u64> {
    let near = |unit: u64, most: u64| {
        (0..most, 0..5u64).prop_map(move |(n, off)| (n * unit + off).saturating_sub(2))
    };
    prop_oneof![near(64, 20), near(512, 12), near(32_768, 4), 0..70_000u64]
}

fn range() -> impl Strategy<Value = Range<u64>> {
    let short = (page(), 0..200u64).prop_map(|(first, pages)| first..first + pages);
    prop_oneof![3 => short, 1 => (page(), page()).prop_map(|(a, b)| a..b)]
}

fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    prop::collection::vec(range(), 0..6)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => page().prop_map(Step::Set),
        4 => range().prop_map(Step::SetRange),
        1 => page().prop_map(Step::Clear),
        2 => range().prop_map(Step::ClearRange),
        1 => Just(Step::ClearAll),
        1 => ranges().prop_map(Step::Union),
        1 => ranges().prop_map(Step::Subtract),
        1 => ranges().prop_map(Step::Intersect),
        1 => Just(Step::Harvest),
        3 => range().prop_map(Step::HarvestRange),
    ]
}

fn build(pages: u64, ranges: &[Range<u64>]) -> (Bitmap, Model) {
    let mut bitmap = Bitmap::new(pages);
    ranges.iter().for_each(|range| bitmap.set_range(range.clone()));
    (bitmap, ranges.iter().flat_map(|range| range.clone().filter(|page| *page < pages)).collect())
}

fn runs_of(model: impl Iterator<Item = u64>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for page in model {
        match runs.last_mut() {
            Some(run) if run.end() == page => run.pages += 1,
            _ => runs.push(Run { first: page, pages: 1 }),
        }
    }
    runs
}

/// The plain bitmap's step; harvests are the shared one's.
fn apply(bitmap: &mut Bitmap, model: &mut Model, other_pages: u64, step: &Step) {
    let pages = bitmap.pages();
    match step {
        Step::Set(page) => {
            bitmap.set(*page);
            model.extend((*page < pages).then_some(*page));
        }
        Step::SetRange(range) => {
            bitmap.set_range(range.clone());
            model.extend(range.clone().filter(|page| *page < pages));
        }
        Step::Clear(page) => {
            bitmap.clear(*page);
            model.remove(page);
        }
        Step::ClearRange(range) => {
            bitmap.clear_range(range.clone());
            model.retain(|page| !range.contains(page));
        }
        Step::ClearAll => {
            bitmap.clear_all();
            model.clear();
        }
        Step::Union(ranges) => {
            let (other, theirs) = build(other_pages, ranges);
            bitmap.union_with(&other);
            model.extend(theirs.into_iter().filter(|page| *page < pages));
        }
        Step::Subtract(ranges) => {
            let (other, theirs) = build(other_pages, ranges);
            bitmap.subtract(&other);
            model.retain(|page| !theirs.contains(page));
        }
        Step::Intersect(ranges) => {
            let (other, theirs) = build(other_pages, ranges);
            bitmap.intersect_with(&other);
            model.retain(|page| theirs.contains(page));
        }
        Step::Harvest | Step::HarvestRange(_) => {}
    }
}

/// Everything that can be asked of a bitmap, with equality to one rebuilt from its words: that checks the summary.
fn check(bitmap: &Bitmap, model: &Model, probe: &Range<u64>) {
    assert_eq!(bitmap.runs().collect::<Vec<_>>(), runs_of(model.iter().copied()));
    let inside = || model.iter().copied().filter(|page| probe.contains(page));
    assert_eq!(bitmap.runs_in(probe.clone()).collect::<Vec<_>>(), runs_of(inside()));
    assert_eq!((bitmap.count(), bitmap.is_empty()), (model.len() as u64, model.is_empty()));
    assert_eq!(bitmap.count_in(probe.clone()), inside().count() as u64);
    assert_eq!(bitmap.first_from(probe.start), model.range(probe.start..).next().copied());
    assert_eq!(bitmap.contains(probe.start), model.contains(&probe.start));
    assert_eq!(&Bitmap::from_words(bitmap.pages(), bitmap.words().to_vec()).unwrap(), bitmap);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Default::default() })]

    #[test]
    fn plain_is_a_set(pages in page(), other in page(), steps in prop::collection::vec((step(), range()), 1..12)) {
        let (mut bitmap, mut model) = build(pages, &[]);
        for (step, probe) in &steps {
            apply(&mut bitmap, &mut model, other, step);
            check(&bitmap, &model, probe);
        }
    }

    #[test]
    fn shared_is_a_set_until_harvested(
        pages in page(), more in prop_oneof![Just(0), page()], steps in prop::collection::vec((step(), range()), 1..12),
    ) {
        let shared = DirtyBitmap::new(pages);
        let (mut into, mut taken) = build(pages.saturating_sub(more), &[]);
        let mut marks = Model::new();
        for (step, probe) in &steps {
            let reach = match step {
                Step::Set(page) => { shared.set(*page); marks.extend((*page < pages).then_some(*page)); 0..0 }
                Step::SetRange(range) => {
                    shared.set_range(range.clone());
                    marks.extend(range.clone().filter(|page| *page < pages));
                    0..0
                }
                Step::Harvest => { shared.harvest(&mut into); 0..into.pages() }
                Step::HarvestRange(range) => {
                    shared.harvest_range(range.clone(), &mut into);
                    range.start..range.end.min(into.pages())
                }
                _ => 0..0,
            };
            taken.extend(marks.iter().filter(|page| reach.contains(page)));
            marks.retain(|page| !reach.contains(page));
            check(&into, &taken, probe);
            let mut seen = Bitmap::new(pages);
            shared.peek_range(probe.clone(), &mut seen);
            check(&seen, &marks.iter().copied().filter(|page| probe.contains(page)).collect(), probe);
            assert_eq!(shared.count(), marks.len() as u64);
            assert_eq!(shared.is_set(probe.start), marks.contains(&probe.start));
        }
    }
}
