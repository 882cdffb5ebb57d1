//! Real threads: writers mark while one owner harvests.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::bitmap::{Bitmap, DirtyBitmap};

const WRITERS: u64 = 3;

/// Harvests until all writers are done and once more, each time in two parts; `each` sees what was taken.
fn harvest_all(shared: &DirtyBitmap, done: &AtomicUsize, mut each: impl FnMut(&Bitmap)) {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let mut into = Bitmap::new(shared.pages());
    loop {
        let last = done.load(SeqCst) as u64 == WRITERS;
        let cut = if last { shared.pages() } else { rng.random_range(0..shared.pages()) };
        shared.harvest_range(0..cut, &mut into);
        shared.harvest_range(cut..shared.pages(), &mut into);
        each(&into);
        into.clear_all();
        if last {
            return;
        }
    }
}

/// Neighbouring pages belong to different writers, and each marks only pages of its own that it sees clear: every
/// mark is then one that was not there, and must be harvested once. So few words that all meet in each, and so many
/// marks that no writer can end before hundreds of harvests.
#[test]
fn each_mark_is_harvested_exactly_once() {
    const PAGES: u64 = 1100;
    const MARKS: usize = 60_000;
    let (shared, done) = (DirtyBitmap::new(PAGES), AtomicUsize::new(0));
    let marks: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let mut harvests = vec![0; PAGES as usize];
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (shared, done, marks) = (&shared, &done, &marks);
            scope.spawn(move || {
                let mut left = MARKS;
                while left > 0 {
                    let own = (writer..PAGES).step_by(WRITERS as usize);
                    for page in own.filter(|page| !shared.is_set(*page)).take(left) {
                        marks[page as usize].fetch_add(1, SeqCst);
                        shared.set(page);
                        left -= 1;
                    }
                    thread::yield_now();
                }
                done.fetch_add(1, SeqCst);
            });
        }
        harvest_all(&shared, &done, |taken| {
            taken.runs().flat_map(|run| run.range()).for_each(|page| harvests[page as usize] += 1);
        });
    });
    let marks: Vec<u64> = marks.iter().map(|marks| marks.load(SeqCst)).collect();
    assert_eq!(harvests, marks);
    assert_eq!(shared.count(), 0);
}

/// A version counter a page, marked after each write, as a tracker's client does it: what the harvester reads
/// after the last mark it took is the last version, so few pages are fought over by all.
#[test]
fn the_last_write_of_every_page_is_seen() {
    const PAGES: u64 = 700;
    const WRITES: usize = 60_000;
    let (shared, done) = (DirtyBitmap::new(PAGES), AtomicUsize::new(0));
    let versions: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let mut copies = vec![0; PAGES as usize];
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (shared, done, versions) = (&shared, &done, &versions);
            scope.spawn(move || {
                let mut rng = Pcg64Mcg::seed_from_u64(100 + writer);
                for _ in 0..WRITES {
                    let page = rng.random_range(0..PAGES);
                    let pages = page..(page + rng.random_range(1..4)).min(PAGES);
                    for page in pages.clone() {
                        versions[page as usize].fetch_add(1, SeqCst);
                    }
                    match pages.end - pages.start {
                        1 => shared.set(page),
                        _ => shared.set_range(pages),
                    }
                }
                done.fetch_add(1, SeqCst);
            });
        }
        harvest_all(&shared, &done, |taken| {
            let pages = taken.runs().flat_map(|run| run.range());
            pages.for_each(|page| copies[page as usize] = versions[page as usize].load(SeqCst));
        });
    });
    let last: Vec<u64> = versions.iter().map(|version| version.load(SeqCst)).collect();
    assert_eq!(copies, last);
}
