//! Speeds of the codecs as ratios to what bounds them, both taken in the same run.
//!
//! Zero detection: to streaming reads of the same memory. XBZRLE encode: to comparing the same pages (`memcmp` of
//! equal ones) and to our scalar version, over sets larger than the cache. XBZRLE decode and the early out of zero
//! detection: in nanoseconds, from the cache, as QEMU's encoder is measured. Pages of real things, and the bare libraries,
//! are in `page_sets`.
//!
//! `cargo bench --bench codec [MiB of pages] [passes]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod turns;

use std::hint::black_box;

use migrate_core::codec::conformance::Numbers;
use migrate_core::codec::simd::{Kernels, Room};
use migrate_core::codec::{find, xbzrle, Page};
use migrate_core::knobs::Spec;

use turns::{read, time, Bench};

const PAGE: usize = size_of::<Page>();

/// A page where guests have theirs: an address that no vector load crosses a cache line from.
#[repr(align(4096))]
#[derive(Clone, Copy)]
struct Aligned(Page);

impl std::ops::Deref for Aligned {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.0
    }
}

fn zero(bench: &Bench) {
    println!("\nzero detection, time as a ratio to streaming reads (1.11 is 0.9 of the bandwidth)");
    // Pages that were never written share one page of zeros: the clone writes them.
    let pages: Vec<Aligned> = (0..bench.pages).map(|_| *black_box(&Aligned([0; PAGE]))).collect();
    for kernels in Kernels::available() {
        let mut ours = |i: usize| assert!(black_box(kernels.is_zero(&pages[i])));
        bench.ratio(kernels.name, bench.pages, &mut ours, &mut |i| {
            black_box(read(&pages[i]));
        });
    }
    let mut numbers = Numbers(1);
    let random: Vec<Page> = (0..4).map(|_| numbers.page()).collect();
    for kernels in Kernels::available() {
        let name = format!("{}: early out, page in the cache", kernels.name);
        bench.alone(&name, &mut |i| {
            black_box(kernels.is_zero(black_box(&random[i % 4])));
        });
    }
}

/// The sets of changes: name, and a page's successor.
type Change = (&'static str, fn(&mut Numbers, &Page) -> Page);

const CHANGES: [Change; 6] = [
    ("identical", |_, page| *page),
    ("four 4-byte counters", |n, page| n.changed(page, 4, 4)),
    ("one 512-byte run", |n, page| n.changed(page, 1, 512)),
    ("half a page of random bytes", |n, page| {
        let mut new = n.page();
        new[PAGE / 2..].copy_from_slice(&page[PAGE / 2..]);
        new
    }),
    ("32 scattered 8-byte words", |n, page| n.changed(page, 32, 8)),
    ("128 scattered bytes", |n, page| n.changed(page, 128, 1)),
];

fn xbzrle_encode(bench: &Bench) {
    println!(
        "\nXBZRLE encode, time as a ratio to memcmp of equal pages; sets of {} pages a side",
        bench.pages
    );
    let mut numbers = Numbers(2);
    let old: Vec<Aligned> = (0..bench.pages).map(|_| Aligned(numbers.page())).collect();
    let twin = old.clone();
    for (name, change) in CHANGES {
        let new: Vec<Aligned> = old.iter().map(|page| Aligned(change(&mut numbers, page))).collect();
        let mut compare = |i: usize| assert!(**black_box(&old[i]) == **black_box(&twin[i]));
        for kernels in Kernels::available() {
            let mut room = Room::new();
            let mut encode = |i: usize| {
                black_box(kernels.encode(&old[i], &new[i], &mut room));
            };
            bench.ratio(&format!("{name}: {}", kernels.name), bench.pages, &mut encode, &mut compare);
        }
        let (mut codec, mut out) = (find(&Spec::new("xbzrle")).unwrap(), Vec::new());
        let mut whole = |i: usize| {
            out.clear();
            black_box(codec.encode(&new[i], Some(&old[i]), &mut out));
        };
        bench.ratio(&format!("{name}: the codec"), bench.pages, &mut whole, &mut compare);
        let [mut ours, mut theirs] = [Room::new(), Room::new()];
        let mut best = |i: usize| {
            black_box(Kernels::best().encode(&old[i], &new[i], &mut ours));
        };
        let scalar = Kernels::available().last().unwrap();
        bench.ratio(&format!("{name}: best against scalar"), bench.pages, &mut best, &mut |i| {
            black_box(scalar.encode(&old[i], &new[i], &mut theirs));
        });
    }
}

fn xbzrle_decode(bench: &Bench) {
    println!("\nXBZRLE decode, in place, pages in the cache (1024 encodings by turns)");
    let mut numbers = Numbers(3);
    for (name, change) in [CHANGES[1], CHANGES[2], CHANGES[4], CHANGES[5]] {
        let base = numbers.page();
        let mut room = Room::new();
        let news: Vec<Page> = (0..1024).map(|_| change(&mut numbers, &base)).collect();
        let encodings: Vec<Vec<u8>> = news
            .iter()
            .map(|new| {
                let used = Kernels::best().encode(&base, new, &mut room).unwrap();
                room.bytes(used).to_vec()
            })
            .collect();
        for kernels in Kernels::available() {
            let mut page = base;
            let mut apply =
                |i: usize| kernels.apply(black_box(&encodings[i % 1024]), black_box(&mut page)).unwrap();
            bench.alone(&format!("{name}: {}", kernels.name), &mut apply);
        }
        let (mut codec, mut page) = (find(&Spec::new("xbzrle")).unwrap(), base);
        let mut whole =
            |i: usize| codec.decode(&encodings[i % 1024], Some(&base), black_box(&mut page)).unwrap();
        bench.alone(&format!("{name}: the codec, with the copy of the base"), &mut whole);
        let mut page = base;
        xbzrle::apply(&encodings[0], &mut page).unwrap();
        assert!(page == news[0]);
    }
}

/// Pages of this program's own file: real and compressible.
fn executable(count: usize) -> Vec<Page> {
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    bytes.as_chunks::<PAGE>().0.iter().copied().cycle().take(count).collect()
}

/// What each codec makes of pages and of their successors: bytes and time a page.
fn table() {
    println!(
        "\nbytes and ns a page: an executable's pages, then the same with 32 words changed each (base given)"
    );
    let mut numbers = Numbers(5);
    let old = executable(1024);
    let new: Vec<Page> = old.iter().map(|page| numbers.changed(page, 32, 8)).collect();
    for spec in ["zero", "xbzrle", "lz4", "zstd", "delta-lz4", "delta-zstd", "dedup", "zero+dedup+delta-zstd"]
    {
        let mut cells = String::new();
        for bases in [None, Some(&old)] {
            let pages = if bases.is_some() { &new } else { &old };
            let (mut codec, mut out, mut bytes) = (find(&Spec::new(spec)).unwrap(), Vec::new(), 0);
            let each = time(1024, &mut |i| {
                out.clear();
                let base = bases.map(|bases| &bases[i]);
                bytes += match codec.encode(&pages[i], base, &mut out) {
                    migrate_core::codec::Encoded::Shorter => out.len(),
                    migrate_core::codec::Encoded::Raw => PAGE,
                };
            });
            cells += &format!("  {:5} B {each:7.0} ns", bytes / 1024);
        }
        println!("{spec:24}{cells}");
    }
    let batched = |pages: &[Page]| {
        let (mut codec, mut bytes) = (find(&Spec::new("zstd")).unwrap(), 0);
        let each = time(1024 / 16, &mut |i| {
            let mut out = Vec::new();
            codec.encode_batch(&pages[i * 16..(i + 1) * 16], &[None; 16], &mut out);
            bytes += out.len();
        });
        format!("  {:5} B {:7.0} ns", bytes / 1024, each / 16.0)
    };
    println!("{:24}{}", "zstd, batches of 16", batched(&old));
    let mut trained = find(&Spec::new("zstd").with("dictionary", 32768)).unwrap();
    trained.train(&old[..512]).unwrap();
    let (mut out, mut bytes) = (Vec::new(), 0);
    let each = time(512, &mut |i| {
        out.clear();
        trained.encode(&old[512 + i], None, &mut out);
        bytes += if out.is_empty() { PAGE } else { out.len() };
    });
    println!(
        "{:24}  {:5} B {each:7.0} ns (trained on the other half)",
        "zstd, 32 KiB dictionary",
        bytes / 512
    );
}

fn main() {
    let arguments: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let (mib, passes) = (arguments.first().copied().unwrap_or(64), arguments.get(1).copied().unwrap_or(4));
    let bench = Bench { pages: (mib << 20) / PAGE, passes };
    println!(
        "codecs: {mib} MiB a set, {passes} passes; median (quartiles); best set {}",
        Kernels::best().name
    );
    zero(&bench);
    xbzrle_encode(&bench);
    xbzrle_decode(&bench);
    table();
}
