//! Orders against their contract, and against the closed forms for what they leave to be asked for.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{find, parse, PREPAGING};
use crate::bitmap::Bitmap;
use crate::knobs::Spec;
use crate::policy::Decision;
use crate::strategy::{self, Action, Observation};

proptest! {
    /// Every order pushes every page that is not asked for exactly once, and nothing else, however the guest
    /// behaves.
    #[test]
    fn each_page_comes_once(
        name in prop::sample::select(PREPAGING.entries.iter().map(|e| e.name).collect::<Vec<_>>()),
        pages in 1u64..700, most in 1u64..80, seed: u64, faults in 0u64..4,
    ) {
        let mut order = find(&Spec::new(name), pages).unwrap();
        let (mut left, mut random) = (Bitmap::full(pages), Pcg64Mcg::seed_from_u64(seed));
        for _ in 0..3 {
            let mut written = Bitmap::new(pages);
            (0..pages / 5).for_each(|_| written.set(random.next_u64() % pages));
            order.wrote(&written);
        }
        let mut moments = 0;
        while !left.is_empty() {
            let runs = order.next(&left, most);
            prop_assert!(runs.iter().map(|run| run.pages).sum::<u64>() <= most);
            prop_assert!(runs.windows(2).all(|w| w[0].end() < w[1].first), "{:?}", runs);
            for run in &runs {
                prop_assert!(run.pages > 0 && left.count_in(run.range()) == run.pages, "{:?}", run);
                left.clear_range(run.range());
            }
            let mut asked = 0;
            for _ in 0..random.next_u64() % (faults + 1) {
                let page = random.next_u64() % pages;
                if left.contains(page) {
                    left.clear(page);
                    order.asked(page);
                    asked += 1;
                }
            }
            if runs.is_empty() {
                order.waited(asked == 0);
                moments += 1;
                prop_assert!(moments < 1_000_000 && name == "none", "it pushes nothing");
            }
        }
    }
}

/// Where a guest looks next, and when, in units of a page's time on the link.
struct Toucher<'a> {
    next: f64,
    page: &'a mut dyn FnMut() -> Option<u64>,
    gap: &'a mut dyn FnMut() -> f64,
    /// How long a touch of a missing page blocks; 0 for a guest that goes on.
    latency: f64,
}

#[derive(Debug, Default)]
struct Seen {
    faults: u64,
    stalled: f64,
    time: f64,
}

/// Post-copy under a virtual clock: a page takes one unit on the link. `shared`: what is asked for takes
/// its time on it too, and goes first.
fn run(order: &str, pages: u64, shared: bool, mut guest: Toucher<'_>) -> Seen {
    let spec = Spec::new("post-copy").with("prepaging", order).with("chunk_pages", 1);
    let mut strategy = strategy::find(&spec).unwrap();
    let (mut missing, mut seen, mut asked) = (Bitmap::new(pages), Seen::default(), Vec::new());
    let decision = Decision::proceed();
    let mut action = strategy.next(Observation::Began { pages }).unwrap();
    loop {
        asked.clear();
        action = strategy
            .next(match &action {
                Action::Pause => Observation::Paused,
                Action::Depart { missing: all } => {
                    missing = all.clone();
                    Observation::Departed
                }
                Action::Push(runs) => {
                    let mut ends = seen.time + 1.0;
                    while guest.next < ends {
                        let Some(page) = (guest.page)() else {
                            guest.next = f64::INFINITY;
                            break;
                        };
                        if missing.contains(page) {
                            missing.clear(page);
                            asked.push(page);
                            seen.faults += 1;
                            seen.stalled += guest.latency;
                            guest.next += guest.latency;
                            ends += f64::from(u8::from(shared));
                        }
                        guest.next += (guest.gap)();
                    }
                    seen.time = ends;
                    runs.iter().for_each(|run| missing.clear_range(run.range()));
                    Observation::Asked { pages: &asked }
                }
                Action::Complete => Observation::Completed,
                Action::Done => return seen,
                _ => Observation::Decided(&decision),
            })
            .unwrap();
    }
}

/// A reader that walks upwards from page `from` at `speed` pages a unit.
fn walk(order: &str, pages: u64, from: u64, speed: f64) -> Seen {
    let mut at = from;
    let mut page = || {
        at += 1;
        (at <= pages).then_some(at - 1)
    };
    run(order, pages, true, Toucher { next: 0.0, page: &mut page, gap: &mut || 1.0 / speed, latency: 0.0 })
}

/// A push from page 0 leaves s p0 / (B - s) pages to be asked for; bubbling one.
#[test]
fn a_sequential_reader_asks_as_the_closed_forms_say() {
    for speed in [0.1, 0.25, 0.4] {
        let formula = speed * 5000.0 / (1.0 - speed);
        let faults = walk("sequential", 20_000, 5000, speed).faults as f64;
        assert!((faults / formula - 1.0).abs() < 0.02, "speed {speed}: {faults} against {formula}");
        let faults = walk("bubbling", 20_000, 5000, speed).faults;
        // Close to half the link's rate the reader meets pages that are on their way.
        assert!(faults == 1 || (speed > 0.3 && faults <= 3), "speed {speed}, bubbling: {faults}");
    }
}

fn uniform(seed: u64) -> impl FnMut() -> f64 {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    move || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Touches at rate a on a shared link: a N / (2 B) pages are asked for, and the whole takes N / B.
#[test]
fn uniform_touches_ask_as_the_closed_form_says() {
    const PAGES: u64 = 20_000;
    for rate in [0.1, 0.25, 0.5] {
        let (mut draw, mut gaps) = (uniform(1), uniform(2));
        let mut page = || Some((draw() * PAGES as f64) as u64);
        let mut gap = || -(1.0 - gaps()).ln() / rate;
        let seen = run(
            "sequential",
            PAGES,
            true,
            Toucher { next: 0.0, page: &mut page, gap: &mut gap, latency: 0.0 },
        );
        let (faults, formula) = (seen.faults as f64 / PAGES as f64, rate / 2.0);
        assert!((faults - formula).abs() < 0.012, "rate {rate}: {faults} against {formula}");
        assert!((seen.time / PAGES as f64 - 1.0).abs() < 1e-3, "{}", seen.time);
    }
}

/// A vCPU that blocks for L and touches at rate a in between stalls for the share 1 - ln(1 + aL) / (aL).
#[test]
fn a_blocking_guest_stalls_as_the_closed_form_says() {
    const PAGES: u64 = 40_000;
    for (kappa, formula) in [(0.1f64, 0.046898), (1.0, 0.306853), (10.0, 0.760210), (100.0, 0.953849)] {
        let exact = 1.0 - (1.0 + kappa).ln() / kappa;
        assert!((exact - formula).abs() < 1e-5);
        let latency = 40.0;
        let (mut draw, mut gaps) = (uniform(3), uniform(4));
        let mut page = || Some((draw() * PAGES as f64) as u64);
        let mut gap = || -(1.0 - gaps()).ln() * latency / kappa;
        let toucher = Toucher { next: 0.0, page: &mut page, gap: &mut gap, latency };
        let seen = run("sequential", PAGES, false, toucher);
        let share = seen.stalled / seen.time;
        assert!((share - formula).abs() < 0.02, "kappa {kappa}: {share} against {formula}");
        let faults = PAGES as f64 / latency * formula;
        assert!(
            (seen.faults as f64 / faults - 1.0).abs() < 3.0 / faults.sqrt(),
            "kappa {kappa}: {} against {faults}",
            seen.faults
        );
    }
}

/// A guest that goes on writing what it wrote lately asks for less if that comes first.
#[test]
fn recency_pushes_what_was_written_last_first() {
    let mut order = find(&Spec::new("recency").with("intervals", 2), 100).unwrap();
    let set = |pages: &[u64]| {
        let mut set = Bitmap::new(100);
        pages.iter().for_each(|page| set.set(*page));
        set
    };
    for wrote in [&[90][..], &[50, 60, 70], &[60, 10]] {
        order.wrote(&set(wrote));
    }
    let mut left = Bitmap::full(100);
    let mut pushed = Vec::new();
    while pushed.len() < 6 {
        for run in order.next(&left, 1) {
            pushed.push(run.first);
            left.clear_range(run.range());
        }
    }
    assert_eq!(pushed, [10, 60, 50, 70, 0, 1]);
}

#[test]
fn none_waits_until_the_guest_is_quiet_and_does_not_stop_again() {
    let mut order = find(&Spec::new("none").with("patience", 2), 10).unwrap();
    let left = Bitmap::full(10);
    for quiet in [true, false, true] {
        assert!(order.next(&left, 5).is_empty());
        order.waited(quiet);
    }
    assert!(order.next(&left, 5).is_empty());
    order.waited(true);
    assert_eq!(order.next(&left, 5).len(), 1);
    order.waited(false);
    assert_eq!(order.next(&left, 5).len(), 1);
}

#[test]
fn orders_are_named_with_their_knobs() {
    assert_eq!(parse("bubbling:pivots=4").unwrap(), Spec::new("bubbling").with("pivots", 4.0));
    for (text, expected) in [
        ("bublling", "did you mean `bubbling`"),
        ("none:pivots=4", "no knob `pivots`"),
        ("bubbling:x", "pivots=4"),
        ("bubbling:pivots=0", "from 1 to 1024"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(strategy::find(&Spec::new("post-copy").with("prepaging", text)).is_err());
        assert!(strategy::find(&Spec::new("hybrid").with("prepaging", text)).is_err());
    }
}
