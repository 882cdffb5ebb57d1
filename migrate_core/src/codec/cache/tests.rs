//! Caches against a model, against the closed form, and against their budget.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;

const PAGE: usize = size_of::<Page>();

fn version(page: u64, version: u64) -> Page {
    let mut bytes = [0; PAGE];
    bytes[..8].copy_from_slice(&page.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn both(budget: u64) -> [Box<dyn SentPages>; 2] {
    [Box::new(PageCache::new(budget).unwrap()), Box::new(DirectCache::new(budget).unwrap())]
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Get(u64),
    Put(u64),
    Forget(u64),
    Round,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..40).prop_map(Step::Get),
        6 => (0u64..40).prop_map(Step::Put),
        1 => (0u64..40).prop_map(Step::Forget),
        1 => Just(Step::Round),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..Default::default() })]

    /// A version that is found is the last that was put and not forgotten; what `put` kept is found.
    #[test]
    fn what_is_found_is_the_last_version(steps in steps(), slots in 0u64..24) {
        for mut cache in both(slots * 4200) {
            let mut kept = BTreeMap::new();
            for (count, step) in (0..).zip(&steps) {
                match *step {
                    Step::Get(page) => {
                        if let Some(found) = cache.get(page) {
                            prop_assert_eq!(Some(found), kept.get(&page));
                        }
                    }
                    Step::Put(page) => {
                        let bytes = version(page, count);
                        kept.remove(&page);
                        if cache.put(page, &bytes) {
                            kept.insert(page, bytes);
                            prop_assert_eq!(cache.get(page), Some(&bytes));
                        } else {
                            prop_assert_eq!(cache.get(page), None);
                        }
                    }
                    Step::Forget(page) => {
                        cache.forget(page);
                        kept.remove(&page);
                        prop_assert_eq!(cache.get(page), None);
                    }
                    Step::Round => cache.next_round(),
                }
            }
        }
    }
}

/// Hit rate over the last of `rounds` passes over `hot` pages in fresh random orders.
fn steady(cache: &mut dyn SentPages, hot: &[u64], rounds: u64, rng: &mut Pcg64Mcg) -> f64 {
    let mut hot = hot.to_vec();
    let mut before = CacheStats::default();
    for round in 0..rounds {
        before = cache.stats();
        hot.shuffle(rng);
        for page in &hot {
            cache.get(*page);
            cache.put(*page, &version(*page, round));
        }
        cache.next_round();
    }
    let last = cache.stats();
    (last.hits - before.hits) as f64 / hot.len() as f64
}

/// Of W random pages in C slots: C/W by holding on, and (C/W)(1 - e^(-W/C)) by number (`algorithms` 2.6).
#[test]
fn hit_rates_meet_the_closed_forms() {
    let mut rng = Pcg64Mcg::seed_from_u64(6);
    let slots = 512;
    for hot in [128, 512, 1024, 2048] {
        let pages: Vec<u64> = (0..hot).map(|_| rng.random()).collect();
        let load = hot as f64 / slots as f64;
        let mut ours = PageCache::new(slots * 4144).unwrap();
        let mut direct = DirectCache::new(slots * 4144).unwrap();
        let (held, by_number) =
            (steady(&mut ours, &pages, 12, &mut rng), steady(&mut direct, &pages, 12, &mut rng));
        let (best, bound) = ((1.0 / load).min(1.0), (1.0 - (-load).exp()) / load);
        println!("W/C {load}: held {held:.3} of {best:.3}; by number {by_number:.3} of {bound:.3}");
        assert!((held - best).abs() < 0.02, "W/C {load}: {held} of {best}");
        // The closed form is an expectation; four standard deviations of it.
        assert!((by_number - bound).abs() < 0.05, "W/C {load}: {by_number} of {bound}");
    }
}

/// Contiguous hot pages never collide in QEMU's cache.
#[test]
fn neighbours_that_fit_always_hit() {
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let hot: Vec<u64> = (1000..1512).collect();
    for mut cache in both(512 * 4144) {
        assert_eq!(steady(cache.as_mut(), &hot, 4, &mut rng), 1.0);
    }
}

/// A first pass over all memory must not keep the working set out.
#[test]
fn a_working_set_that_moves_is_followed() {
    let mut rng = Pcg64Mcg::seed_from_u64(8);
    let mut cache = PageCache::new(256 * 4144).unwrap();
    for page in 0..10_000 {
        cache.put(page, &version(page, 0));
    }
    cache.next_round();
    let first: Vec<u64> = (0..200).map(|i| i * 37).collect();
    let second: Vec<u64> = (0..200).map(|i| 20_000 + i * 37).collect();
    assert_eq!(steady(&mut cache, &first, 4, &mut rng), 1.0);
    assert_eq!(steady(&mut cache, &second, 5, &mut rng), 1.0);
}

#[test]
fn memory_stays_within_the_budget() {
    for budget in [0, 4095, 5000, 100_000, 3 << 20] {
        for mut cache in both(budget) {
            (0..3000).for_each(|page| {
                cache.put(page * 7, &version(page, 0));
                if page % 500 == 0 {
                    cache.next_round();
                }
            });
            // QEMU's cache has one slot at least.
            assert!(cache.bytes() as u64 <= budget.max(5000), "{} of {budget}", cache.bytes());
        }
    }
    assert!(PageCache::new(u64::MAX).is_err());
}

#[test]
fn qemus_age_rule() {
    let mut cache = DirectCache::new(PAGE as u64).unwrap();
    assert!(cache.put(1, &version(1, 0)));
    cache.next_round();
    assert!(!cache.put(2, &version(2, 0)), "age 0 + 2 > 1");
    cache.next_round();
    assert!(cache.put(2, &version(2, 0)), "age 0 + 2 <= 2");
    assert_eq!(cache.get(1), None);
}
