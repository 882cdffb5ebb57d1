//! Every interleaving of setters with a harvester, weak memory included.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p migrate_core --release --lib loom`

use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::sync::Arc;
use loom::thread;

use crate::bitmap::{Bitmap, DirtyBitmap};

const PAGES: u64 = 512;

/// Runs `set` beside two harvests and then one more; returns all that was harvested.
fn race(
    marked: &[u64],
    set: impl FnOnce(&DirtyBitmap) + Send + 'static,
    harvest: fn(&DirtyBitmap, &mut Bitmap),
) -> Bitmap {
    let shared = Arc::new(DirtyBitmap::new(PAGES));
    marked.iter().for_each(|page| shared.set(*page));
    let writer = thread::spawn({
        let shared = shared.clone();
        move || set(&shared)
    });
    let mut into = Bitmap::new(PAGES);
    harvest(&shared, &mut into);
    let joined = writer.join();
    assert!(joined.is_ok());
    shared.harvest(&mut into);
    into
}

fn whole(shared: &DirtyBitmap, into: &mut Bitmap) {
    shared.harvest(into);
}

fn part(shared: &DirtyBitmap, into: &mut Bitmap) {
    shared.harvest_range(0..4, into);
}

#[test]
fn loom_set_in_a_clean_group() {
    loom::model(|| assert!(race(&[], |shared| shared.set(1), whole).contains(1)));
}

/// The group is named already, so the setter leaves the summary alone: the case that needs more than
/// acquire and release.
#[test]
fn loom_set_in_a_dirty_group() {
    loom::model(|| assert_eq!(race(&[0], |shared| shared.set(1), whole).count(), 2));
}

#[test]
fn loom_set_beside_a_harvest_of_a_part() {
    loom::model(|| assert_eq!(race(&[0, 5], |shared| shared.set(1), part).count(), 3));
    loom::model(|| assert_eq!(race(&[0], |shared| shared.set(5), part).count(), 2));
}

#[test]
fn loom_set_range_over_two_words() {
    loom::model(|| assert_eq!(race(&[70], |shared| shared.set_range(62..66), whole).count(), 5));
}

#[test]
fn loom_two_setters() {
    loom::model(|| {
        let shared = Arc::new(DirtyBitmap::new(64));
        let writers: Vec<_> = (0..2)
            .map(|page| {
                let shared = shared.clone();
                thread::spawn(move || shared.set(page))
            })
            .collect();
        let mut into = Bitmap::new(64);
        shared.harvest(&mut into);
        assert!(writers.into_iter().all(|writer| writer.join().is_ok()));
        shared.harvest(&mut into);
        assert_eq!(into.count(), 2);
    });
}

/// Who takes a mark sees the write that came before it.
#[test]
fn loom_a_mark_carries_its_write() {
    loom::model(|| {
        let shared = Arc::new(DirtyBitmap::new(64));
        let page = Arc::new(AtomicU64::new(0));
        shared.set(1);
        let writer = thread::spawn({
            let (shared, page) = (shared.clone(), page.clone());
            move || {
                page.store(7, Relaxed);
                shared.set(0);
            }
        });
        let mut into = Bitmap::new(64);
        shared.harvest(&mut into);
        if into.contains(0) {
            assert_eq!(page.load(Relaxed), 7);
        }
        assert!(writer.join().is_ok());
    });
}
