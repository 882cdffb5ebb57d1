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

/// Each page is marked once by one writer, neighbours by different ones: it must be harvested once.
#[test]
fn each_mark_is_harvested_exactly_once() {
    const PAGES: u64 = 300_001;
    let (shared, done) = (DirtyBitmap::new(PAGES), AtomicUsize::new(0));
    let mut total = Bitmap::new(PAGES);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (shared, done) = (&shared, &done);
            scope.spawn(move || {
                (writer..PAGES).step_by(WRITERS as usize).for_each(|page| shared.set(page));
                done.fetch_add(1, SeqCst);
            });
        }
        harvest_all(&shared, &done, |taken| {
            let before = total.count();
            total.union_with(taken);
            assert_eq!(total.count(), before + taken.count(), "a page was harvested twice");
        });
    });
    assert_eq!(total, Bitmap::full(PAGES));
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
