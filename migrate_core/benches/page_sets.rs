//! Speeds of the codecs on pages of real things, as ratios to what bounds them, both taken in the same run.
//!
//! Zero detection: to streaming reads of the same pages. lz4 and zstd, pages by themselves and in batches of 64: to the
//! bare libraries. XBZRLE, where a set has versions: to comparing the same pages, and to our scalar version.
//!
//! `cargo bench --bench page_sets --features testing [NAME=IMAGE[,IMAGE]]...`: memory images, and after a comma a later
//! version of the same memory; without any, this program's own file. `python benches/codecs.py` makes the sets.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod turns;

use std::hint::black_box;

use migrate_core::codec::simd::{Kernels, Room};
use migrate_core::codec::{equal, find, Codec, Page, BATCH};
use migrate_core::knobs::Spec;

use turns::{read, Bench};

const PAGE: usize = size_of::<Page>();

/// Pages of one memory, and of a later version if there is one.
struct Set {
    name: String,
    pages: Vec<Page>,
    later: Option<Vec<Page>>,
}

fn pages_of(path: &str) -> Vec<Page> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks::<PAGE>().0.to_vec()
}

fn sets() -> Vec<Set> {
    let given = std::env::args().skip(1).filter_map(|argument| {
        let (name, images) = argument.split_once('=')?;
        let (first, later) = images.split_once(',').map_or((images, None), |(a, b)| (a, Some(b)));
        Some(Set { name: name.to_owned(), pages: pages_of(first), later: later.map(pages_of) })
    });
    let mut sets: Vec<Set> = given.collect();
    if sets.is_empty() {
        let own = std::env::current_exe().unwrap();
        let mut pages = pages_of(own.to_str().unwrap());
        pages.truncate(1024);
        sets.push(Set { name: "this program".into(), pages, later: None });
    }
    sets
}

fn main() {
    let bench = Bench { pages: 0, passes: 4 };
    for set in sets() {
        println!("\n{}: {} pages; ratio as median (quartiles), and the medians", set.name, set.pages.len());
        zero(&bench, &set);
        lz4(&bench, &set);
        zstd(&bench, &set, 1);
        zstd(&bench, &set, 3);
        versions(&bench, &set);
    }
}

fn zero(bench: &Bench, set: &Set) {
    let pages = &set.pages;
    let mut ours = |i: usize| {
        black_box(Kernels::best().is_zero(&pages[i]));
    };
    bench.ratio("zero detection to streaming reads", pages.len(), &mut ours, &mut |i| {
        black_box(read(&pages[i]));
    });
}

/// Compresses into a buffer, or not if it does not fit.
type Compress<'a> = dyn FnMut(&[u8], &mut [u8]) -> Option<usize> + 'a;

/// Expands into a buffer; the bytes that came out.
type Expand<'a> = dyn FnMut(&[u8], &mut [u8]) -> usize + 'a;

/// A library bare.
struct Bare<'a> {
    name: &'a str,
    compress: &'a mut Compress<'a>,
    expand: &'a mut Expand<'a>,
}

fn lz4(bench: &Bench, set: &Set) {
    use lz4_flex::block::{compress_into_with_table, decompress_into, CompressTable};
    let mut table = CompressTable::default();
    let bare = Bare {
        name: "lz4",
        compress: &mut |bytes, room| compress_into_with_table(bytes, room, &mut table).ok(),
        expand: &mut |data, bytes| decompress_into(data, bytes).unwrap(),
    };
    compare(bench, set, &Spec::new("lz4"), bare);
}

fn zstd(bench: &Bench, set: &Set, level: i32) {
    let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
    let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
    let bare = Bare {
        name: &format!("zstd {level}"),
        compress: &mut |bytes, room| compressor.compress_to_buffer(bytes, room).ok(),
        expand: &mut |data, bytes| decompressor.decompress_to_buffer(data, bytes).unwrap(),
    };
    compare(bench, set, &Spec::new("zstd").with("level", level), bare);
}

fn compare(bench: &Bench, set: &Set, spec: &Spec, bare: Bare<'_>) {
    let make = || find(spec).unwrap();
    let (name, pages) = (bare.name, &set.pages);
    // Where the codec gives a page up, the library is given no more room either.
    let most = if name == "lz4" { 2 * PAGE } else { PAGE - 1 };
    let mut room = vec![0; 2 * PAGE * BATCH];
    let (mut codec, mut out) = (make(), Vec::with_capacity(2 * PAGE));
    let mut ours = |i: usize| {
        out.clear();
        black_box(codec.encode(&pages[i], None, &mut out));
    };
    bench.ratio(&format!("{name} encode, a page"), pages.len(), &mut ours, &mut |i| {
        black_box((bare.compress)(&pages[i], &mut room[..most]));
    });
    let batches: Vec<&[Page]> = pages.chunks_exact(BATCH).collect();
    let (mut codec, mut out) = (make(), Vec::with_capacity(2 * PAGE * BATCH));
    let mut ours = |i: usize| {
        out.clear();
        black_box(codec.encode_batch(batches[i], &[None; BATCH], &mut out));
    };
    let most = if name == "lz4" { room.len() } else { PAGE * BATCH - 1 };
    bench.ratio(&format!("{name} encode, a batch"), batches.len(), &mut ours, &mut |i| {
        black_box((bare.compress)(batches[i].as_flattened(), &mut room[..most]));
    });
    decode(bench, name, make().as_mut(), pages, bare.expand);
}

fn decode(bench: &Bench, name: &str, codec: &mut dyn Codec, pages: &[Page], bare: &mut Expand<'_>) {
    let mut encode = |page: &Page| {
        let mut out = Vec::new();
        codec.encode(page, None, &mut out);
        out
    };
    let data: Vec<Vec<u8>> = pages.iter().map(&mut encode).filter(|data| !data.is_empty()).collect();
    if data.len() < BATCH {
        println!("{name} decode: {} pages were shortened, too few to measure", data.len());
        return;
    }
    let (mut page, mut other) = ([0; PAGE], [0; PAGE]);
    bench.ratio(
        &format!("{name} decode, a page"),
        data.len(),
        &mut |i| codec.decode(&data[i], None, black_box(&mut page)).unwrap(),
        &mut |i| assert!(bare(&data[i], black_box(&mut other)) == PAGE),
    );
}

/// XBZRLE of the pages that changed.
fn versions(bench: &Bench, set: &Set) {
    let Some(later) = &set.later else { return };
    let changed: Vec<(&Page, &Page)> =
        set.pages.iter().zip(later).filter(|(old, new)| !equal(old, new)).collect();
    if changed.len() < BATCH {
        println!("XBZRLE: {} pages changed, too few to measure", changed.len());
        return;
    }
    let twins: Vec<Page> = changed.iter().map(|(old, _)| **old).collect();
    let (best, scalar) = (Kernels::best(), Kernels::available().last().unwrap());
    let (mut room, mut other) = (Room::new(), Room::new());
    let mut ours = |i: usize| {
        black_box(best.encode(changed[i].0, changed[i].1, &mut room));
    };
    bench.ratio("XBZRLE encode to memcmp of equal pages", changed.len(), &mut ours, &mut |i| {
        assert!(*black_box(changed[i].0) == black_box(twins[i]));
    });
    bench.ratio("XBZRLE encode, best to scalar", changed.len(), &mut ours, &mut |i| {
        black_box(scalar.encode(changed[i].0, changed[i].1, &mut other));
    });
}
