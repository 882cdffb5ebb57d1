//! What the bake-off says must be what codecs do.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::codec::conformance::{cases, Numbers};
use crate::codec::{find, is_zero, Codec, Encoded, Page, CODECS};
use crate::guest::PAGE;

fn calm() -> AtomicBool {
    AtomicBool::new(false)
}

fn once() -> Baking {
    Baking { passes: 1, ..Baking::default() }
}

/// Pages of all kinds, then two more versions of them.
fn versions(seed: u64) -> Vec<Vec<Page>> {
    let mut numbers = Numbers(seed);
    let pages: Vec<Page> = (0..20).flat_map(|i| cases(seed + i)).map(|case| case.1).collect();
    let change = |pages: &[Page], numbers: &mut Numbers| -> Vec<Page> {
        pages.iter().map(|page| numbers.changed(page, 6, 8)).collect()
    };
    let second = change(&pages, &mut numbers);
    let third = change(&second, &mut numbers);
    vec![pages, second, third]
}

fn set_of(versions: &[Vec<Page>]) -> PageSet {
    let flat: Vec<&[u8]> = versions.iter().map(|pages| pages.as_flattened()).collect();
    let mut memory = Bytes::new(&flat).unwrap();
    let taking = Taking { bytes: 64 << 20, rounds: versions.len() as u32 };
    taking.from(&mut memory, &calm()).unwrap()
}

/// Bytes of a page by the codec's own function; `None` where it is named for nothing.
fn own_bytes(codec: &mut dyn Codec, page: &Page, base: Option<&Page>) -> (u64, bool) {
    let mut out = Vec::new();
    match codec.encode(page, base, &mut out) {
        Encoded::Shorter => (out.len() as u64, false),
        Encoded::Raw => (PAGE as u64, true),
    }
}

#[test]
fn bytes_and_pages_are_those_of_the_codecs_own_functions() {
    let set = set_of(&versions(3));
    let how = Baking { together: false, ..once() };
    for name in ["xbzrle", "lz4", "zstd", "delta-lz4", "delta-zstd", "dedup", "xbzrle+zstd"] {
        let baked = bake(&set, &Spec::new(name), &how, &calm()).unwrap();
        let mut codec = find(&Spec::new(name)).unwrap();
        let mut sums = [(0, 0, 0); 2];
        for (version, page) in set.versions().iter().zip(set.contents()) {
            let sum = &mut sums[usize::from(version.before.is_some())];
            // A page of zeros is named, and no version of it is kept.
            let base = version.before.map(|before| &set.contents()[before]).filter(|base| !is_zero(base));
            match is_zero(page) {
                true => sum.2 += 1,
                false => {
                    let base = if codec.needs_base() { base } else { None };
                    let (bytes, raw) = own_bytes(codec.as_mut(), page, base);
                    *sum = (sum.0 + bytes, sum.1 + u64::from(raw), sum.2);
                }
            }
        }
        for (figures, (bytes, raw, zero)) in [&baked.first, &baked.again].into_iter().zip(sums) {
            let figures = figures.as_ref().unwrap();
            assert_eq!((figures.bytes, figures.raw_pages, figures.zero_pages), (bytes, raw, zero), "{name}");
        }
    }
}

#[test]
fn every_codec_is_measured_together_and_alone() {
    let set = set_of(&versions(5));
    for spec in CODECS.entries.iter().map(|entry| Spec::new(entry.name)) {
        for together in [true, false] {
            let baked = bake(&set, &spec, &Baking { together, ..once() }, &calm()).unwrap();
            let (first, again) = (baked.first.unwrap(), baked.again.unwrap());
            assert_eq!(first.pages + again.pages, set.versions().len() as u64, "{}", spec.name);
            assert!(first.ratio <= 1.01 && again.ratio <= 1.01, "{}: {first:?}", spec.name);
        }
    }
}

#[test]
fn raw_sends_everything_and_zero_what_is_not_zero() {
    let set = set_of(&versions(5));
    let bytes = |name: &str| {
        let baked = bake(&set, &Spec::new(name), &once(), &calm()).unwrap();
        let (first, again) = (baked.first.unwrap(), baked.again.unwrap());
        (first.bytes + again.bytes, first.break_even)
    };
    assert_eq!(bytes("raw"), (set.bytes(), None));
    let (sent, pays) = bytes("zero");
    assert_eq!(sent, set.bytes() - (set.zero_pages() * PAGE) as u64);
    assert!(pays.unwrap() > 0.0 && set.zero_pages() > 0);
}

#[test]
fn versions_are_at_hand_as_far_as_the_cache_holds_them() {
    let mut numbers = Numbers(11);
    let first: Vec<Page> = (0..640).map(|_| numbers.page()).collect();
    let all: Vec<Vec<Page>> = std::iter::successors(Some(first), |last| {
        Some(last.iter().map(|page| numbers.changed(page, 2, 4)).collect())
    })
    .take(4)
    .collect();
    let set = set_of(&all);
    let bake = |cache: u64| {
        let spec = Spec::new("xbzrle").with("cache", cache);
        bake(&set, &spec, &once(), &calm()).unwrap()
    };
    let roomy = bake(640 * 4200);
    assert_eq!(roomy.again.as_ref().unwrap().hit_rate, Some(1.0));
    assert!(roomy.again.as_ref().unwrap().bytes_per_page < 100.0);
    // A quarter fits: the first pass is not kept, then two rounds of three find it.
    let tight = bake(160 * 4200);
    let rate = tight.again.as_ref().unwrap().hit_rate.unwrap();
    assert!((rate - 0.25 * 2.0 / 3.0).abs() < 0.02, "{rate}");
    assert!(tight.held_bytes <= 160 * 4200 && roomy.held_bytes <= 640 * 4200);
    // R9: a cache that holds nothing of the hot set gains nothing.
    let none = bake(65536).again.unwrap();
    assert!(none.ratio > 0.97 && none.hit_rate.unwrap() < 0.03, "{none:?}");
}

#[test]
fn what_chooses_says_what_it_chose_and_goes_by_the_link() {
    let text: Vec<Page> = (0..256u64)
        .map(|i| std::array::from_fn(|at| b"the quick brown fox "[(at * (i as usize + 3) / 7) % 20]))
        .collect();
    let set = set_of(&[text]);
    let chosen = |link: f64| {
        let baked =
            bake(&set, &Spec::new("adaptive"), &Baking { link: Some(link), ..once() }, &calm()).unwrap();
        let total: u64 = baked.choices.iter().map(|(_, pages)| pages).sum();
        assert_eq!(total, 256);
        (baked.first.unwrap().ratio, baked.choices[0].1)
    };
    // A link of 1 MB/s waits for nobody; one of 1 TB/s waits for every encoder.
    assert!(chosen(1e6).0 < 0.5);
    assert!(chosen(1e12).1 > 0, "raw is best");
}

#[test]
fn a_dictionary_is_learnt_first_and_counted() {
    let set = set_of(&versions(5));
    let baked = bake(&set, &Spec::new("zstd").with("dictionary", 4096), &once(), &calm()).unwrap();
    assert!((1..=4096).contains(&baked.learnt_bytes), "{}", baked.learnt_bytes);
}

#[test]
fn passes_end_when_time_is_over_and_when_it_is_cancelled() {
    let set = set_of(&versions(5));
    let how = Baking { passes: 1000, seconds: 0.0, ..once() };
    assert_eq!(bake(&set, &Spec::new("zero"), &how, &calm()).unwrap().passes, 1);
    assert_eq!(bake(&set, &Spec::new("zero"), &Baking { passes: 3, ..once() }, &calm()).unwrap().passes, 3);
    let text = |how: Baking, spec: Spec, cancel: bool| {
        bake(&set, &spec, &how, &AtomicBool::new(cancel)).unwrap_err().to_string()
    };
    assert!(text(once(), Spec::new("zero"), true).contains("cancelled"));
    assert!(text(Baking { passes: 0, ..once() }, Spec::new("zero"), false).contains("from 1 to 1000 passes"));
    assert!(text(once(), Spec::new("zsdt"), false).contains("did you mean `zstd`"));
    assert!(text(once(), Spec::new("zero").with("level", 1), false).contains("level"));
}

/// The break-even rule of pipelined lanes, in the table that is measured.
#[test]
fn compression_pays_where_the_codec_is_faster_than_the_link() {
    let set = set_of(&versions(5));
    for name in ["lz4", "zstd", "delta-zstd"] {
        let figures = bake(&set, &Spec::new(name), &once(), &calm()).unwrap().first.unwrap();
        let (ratio, even) = (figures.ratio, figures.break_even.unwrap());
        let slower = figures.encode_rate.unwrap().min(figures.decode_rate.unwrap());
        assert!((even / slower - 1.0).abs() < 1e-9, "{name}");
        for (link, pays) in [(even * 0.9, true), (even * 1.1, false)] {
            let pass = (link / ratio).min(slower);
            assert_eq!(pass > link, pays, "{name}: link {link}, pages pass at {pass}");
        }
    }
}
