//! Migrations with codecs: whole, out of step, and with peers that lie.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::lane::{settle, Counters, Job, Lane};
use super::tests::{assert_complete, case, some_state, streams, Case};
use super::{receive_in_thread, Reception, Sending};
use crate::bitmap::Run;
use crate::codec::conformance::Numbers;
use crate::codec::{find, Page};
use crate::error::Error;
use crate::guest::{restore_known, GuestMemory, GuestSpec, Layout, PAGE};
use crate::knobs::Spec;
use crate::link::{self, Stream, Transport};
use crate::wire::{Encoding, Message, Reader, Section, Writer};

fn specs() -> Vec<Spec> {
    let names =
        ["xbzrle", "lz4", "zstd", "delta", "delta-lz4", "dedup", "zero+dedup+delta-zstd", "zero+xbzrle+lz4"];
    let mut specs: Vec<Spec> = names.into_iter().map(Spec::new).collect();
    specs.push(Spec::new("zstd").with("dictionary", 4096));
    specs.push(Spec::new("xbzrle").with("cache", 65536 * 4));
    specs.push(Spec::new("adaptive"));
    specs
}

/// A small guest whose programs check their data, with pages that come back changed a little.
fn coded(codec: &Spec) -> Case {
    let sweep = Spec::new("sweep").with("rate", 2e7).with("content", serde_json::json!({"name": "counter"}));
    let base = case();
    let sending = Sending { warm_up: Duration::from_millis(5), ..base.sending.clone() };
    Case {
        guest: GuestSpec::new(Layout::single(4 << 20), vec![sweep, Spec::new("kv")], 7),
        policy: Spec::new("max-rounds").with("rounds", 3),
        sending: sending.with_codec(codec),
        ..base
    }
}

#[test]
fn every_codec_moves_a_running_guest_in_every_discipline_over_one_channel_and_three() {
    for (index, spec) in specs().iter().enumerate() {
        for (other, clear) in ["early", "skip", "late"].into_iter().enumerate() {
            let strategy = Spec::new("pre-copy").with("clear", clear);
            let channels = if (index + other) % 2 == 0 { 1 } else { 3 };
            let report = assert_complete(&Case { strategy, channels, ..coded(spec) });
            let coding = report.coding.unwrap();
            let sum = |count: fn(&crate::report::CodingRound) -> u64| coding.rounds.iter().map(count).sum();
            let (zero, raw, encoded): (u64, u64, u64) =
                (sum(|r| r.zero_pages), sum(|r| r.raw_pages), sum(|r| r.encoded_pages));
            assert_eq!(zero + raw + encoded, report.sent_pages, "{spec:?} {clear}");
            let codec = find(spec).unwrap();
            // Whether pages come back in time, and what adaptive finds best, is the machine's.
            assert!(encoded > 0 || codec.needs_base(), "{spec:?} {clear}");
            assert!(report.encoded_pages == encoded, "{spec:?} {clear}");
            assert_eq!(coding.hit_rate.is_some(), codec.needs_base(), "{spec:?}");
            assert!(coding.encode_seconds > 0.0 && coding.decode_seconds.unwrap() >= 0.0);
        }
    }
}

#[test]
fn every_codec_stops_and_copies() {
    for spec in specs() {
        let report = assert_complete(&Case { strategy: Spec::new("stop-and-copy"), ..coded(&spec) });
        assert_eq!(report.sent_pages, 1024);
    }
}

/// A tracker that is told of what is sent is told of the bytes that were encoded.
#[test]
fn trackers_that_compare_see_what_was_encoded() {
    assert_complete(&Case { tracker: "compare", ..coded(&Spec::new("zero+xbzrle+lz4")) });
}

#[test]
fn raw_and_zero_have_no_codec() {
    for (name, zeros) in [("raw", false), ("zero", true)] {
        let sending = Sending::default().with_codec(&Spec::new(name));
        assert_eq!((sending.find_zeros, sending.codec()), (zeros, None));
        assert!(assert_complete(&coded(&Spec::new(name))).coding.is_none());
    }
}

#[test]
fn choices_are_in_the_report() {
    let report = assert_complete(&coded(&Spec::new("adaptive")));
    let round = &report.coding.unwrap().rounds[0];
    assert_eq!(round.choices.values().sum::<u64>(), round.raw_pages + round.encoded_pages);
}

/// Rounds with a guest that changes a few counters in page after page of the first half of memory, and writes
/// `over` times as many pages as a link carries without a codec. Time is what the bytes of a round take: no machine is
/// too slow for it. Pages that remain at the end of each round.
fn sparse_writer(codec: &Spec, over: f64) -> Vec<u64> {
    let (mut ends, mut position, mut sent) = (ends(codec), 0u64, 0);
    let hot = ends.source.pages() / 2;
    (0..2 * hot).for_each(|page| apply(&ends.source, page, Write::Random(page as u8)));
    let mut runs = vec![Run { first: 0, pages: 2 * hot }];
    let mut remaining = Vec::new();
    for _ in 0..8 {
        ends.lane.send(Job::Pages(runs)).unwrap();
        settle(std::slice::from_mut(&mut ends.lane)).unwrap();
        let bytes = ends.counters.sent().bytes - std::mem::replace(&mut sent, ends.counters.sent().bytes);
        let written = (over * bytes as f64 / PAGE as f64) as u64;
        let dirty: BTreeSet<u64> = (position..position + written).map(|write| write % hot).collect();
        (position..position + written)
            .for_each(|write| apply(&ends.source, write % hot, Write::Counter(write as u8)));
        position += written;
        remaining.push(dirty.len() as u64);
        runs = dirty.into_iter().map(|page| Run { first: page, pages: 1 }).collect();
    }
    remaining
}

/// Oracles R9 and R10: a sparse writer 1.2 times as fast as its link converges with differences and never without;
/// nor does it with a cache of an eighth of the pages that it writes.
#[test]
fn a_sparse_writer_converges_with_differences_and_a_cache_that_holds_them_and_never_without() {
    let hot = 128;
    for codec in ["xbzrle", "delta-lz4", "delta-zstd"] {
        let remaining = sparse_writer(&Spec::new(codec), 1.2);
        assert!(remaining[6..].iter().all(|pages| *pages <= 1), "{codec}: {remaining:?}");
        let small = Spec::new(codec).with("cache", 65536);
        assert_eq!(sparse_writer(&small, 1.2)[1..], [hot; 7], "{codec}, a cache of 15 pages");
    }
    for codec in ["zero", "lz4", "zstd"] {
        assert_eq!(sparse_writer(&Spec::new(codec), 1.2)[1..], [hot; 7], "{codec}");
    }
}

/// Both ends of a channel, by hand.
struct Ends {
    lane: Lane,
    counters: Arc<Counters>,
    source: Arc<GuestMemory>,
    destination: Arc<GuestMemory>,
    receiver: std::thread::JoinHandle<crate::Result<()>>,
}

fn ends(codec: &Spec) -> Ends {
    let memory = || Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
    let (source, destination) = (memory(), memory());
    let (near, far) = link::pair(Transport::Unix).unwrap();
    let sending = Sending::default().with_codec(codec);
    let counters = Arc::new(Counters::default());
    let encoder = Encoder::new(&source, &counters, &sending, 1).unwrap();
    let lane = Lane::new(near, Arc::clone(&source), Arc::clone(&counters), true, encoder).unwrap();
    let (target, codec) = (Arc::clone(&destination), codec.clone());
    let receiver = std::thread::spawn(move || take(far, &target, &codec));
    Ends { lane, counters, source, destination, receiver }
}

/// Takes pages until the channel is flushed.
fn take(far: Stream, memory: &GuestMemory, codec: &Spec) -> crate::Result<()> {
    let mut decoder = Decoder::new(codec)?;
    let mut input = Reader::new(far, memory.pages());
    loop {
        match input.section()? {
            Section::Encoded(encoding) => decoder.take(&mut input, memory, &encoding)?,
            Section::Pages { runs, hashes } => drop(input.read_pages(memory, &runs, &hashes)?),
            Section::Zeros { runs } => {
                decoder.passed_zeros(&runs);
                runs.iter().flat_map(Run::range).for_each(|page| memory.place_zero(page));
            }
            Section::Learnt(learnt) => decoder.adopt(&learnt)?,
            _ => return Ok(()),
        }
    }
}

/// What a guest may do to a page between two rounds.
#[derive(Debug, Clone, Copy)]
enum Write {
    Counter(u8),
    Random(u8),
    Clear,
    CopyOf(u8),
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => any::<u8>().prop_map(Write::Counter),
        2 => any::<u8>().prop_map(Write::Random),
        1 => Just(Write::Clear),
        1 => any::<u8>().prop_map(Write::CopyOf),
    ]
}

fn apply(memory: &GuestMemory, page: u64, write: Write) {
    let mut bytes = [0; PAGE];
    match write {
        Write::Counter(at) => {
            memory.read_page(page, &mut bytes);
            bytes[usize::from(at) * 16] = bytes[usize::from(at) * 16].wrapping_add(1);
        }
        Write::Random(seed) => bytes = Numbers(u64::from(seed)).page(),
        Write::Clear => {}
        Write::CopyOf(other) => memory.read_page(u64::from(other) % memory.pages(), &mut bytes),
    }
    memory.place_page(page, &bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

    /// Bases and contexts agree whatever becomes of a page between rounds: changed, replaced, cleared, copied.
    #[test]
    fn both_ends_stay_in_step(
        rounds in prop::collection::vec(prop::collection::btree_map(0u64..256, write(), 1..200), 1..8)
    ) {
        for spec in specs() {
            let mut ends = ends(&spec);
            for round in &rounds {
                round.iter().for_each(|(page, write)| apply(&ends.source, *page, *write));
                let runs: Vec<Run> = round.keys().map(|page| Run { first: *page, pages: 1 }).collect();
                ends.lane.send(Job::Pages(runs)).unwrap();
                settle(std::slice::from_mut(&mut ends.lane)).unwrap();
            }
            ends.lane.send(Job::Message(Message::Flush)).unwrap();
            ends.receiver.join().unwrap().unwrap();
            let differ = (0..256).find(|page| ends.source.hash_page(*page) != ends.destination.hash_page(*page));
            prop_assert_eq!(differ, None, "{:?}", spec);
        }
    }

    /// An encoded stream that was changed anywhere is refused, or changed nothing; it never panics.
    #[test]
    fn a_changed_encoding_is_refused_with_its_place(changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        for spec in specs() {
            let (data, encoding) = encoded(&spec);
            let mut bad = data.clone();
            for (at, value) in &changes {
                let at = usize::from(*at) % bad.len();
                bad[at] = *value;
            }
            let memory = GuestMemory::new(&Layout::single(1 << 20)).unwrap();
            match (feed(&spec, &memory, &encoding, &bad), bad == data) {
                (Ok(()), _) => prop_assert!(memory.hash_page(3) == xxhash_rust::xxh3::xxh3_64(&pages()[0])),
                (Err(Error::Stream { offset, .. }), false) => prop_assert!(offset > 0),
                (Err(other), _) => prop_assert!(false, "{spec:?}: {other}"),
            }
        }
    }
}

fn pages() -> Vec<Page> {
    crate::codec::conformance::cases(1).iter().map(|case| case.1).collect()
}

/// Some pages, encoded without bases.
fn encoded(spec: &Spec) -> (Vec<u8>, Encoding) {
    let (pages, mut data) = (pages(), Vec::new());
    find(spec).unwrap().encode_batch(&pages, &vec![None; pages.len()], &mut data);
    let runs = vec![Run { first: 3, pages: pages.len() as u64 }];
    let hash = xxhash_rust::xxh3::xxh3_64(pages.as_flattened());
    let encoding = Encoding { runs, hash, based: Vec::new(), bytes: data.len() as u64 };
    (data, encoding)
}

fn feed(spec: &Spec, memory: &GuestMemory, encoding: &Encoding, data: &[u8]) -> crate::Result<()> {
    let (near, far) = link::pair(Transport::Unix).unwrap();
    let mut output = Writer::new(near);
    output.encoded(encoding, data).unwrap();
    output.message(&Message::Flush).unwrap();
    take(far, memory, spec)
}

#[test]
fn a_base_that_is_not_the_one_that_was_sent_is_an_error() {
    let spec = Spec::new("xbzrle");
    let (old, mut new, mut data) = ([7; PAGE], [7; PAGE], Vec::new());
    new[100] = 8;
    find(&spec).unwrap().encode_batch(&[new], &[Some(&old)], &mut data);
    let hash = xxhash_rust::xxh3::xxh3_64(&new);
    let runs = vec![Run { first: 9, pages: 1 }];
    let encoding = Encoding { runs, hash, based: vec![true], bytes: data.len() as u64 };
    let memory = GuestMemory::new(&Layout::single(1 << 20)).unwrap();
    let error = feed(&spec, &memory, &encoding, &data).unwrap_err().to_string();
    assert!(error.contains("pages 9 to 10") && error.contains("out of step"), "{error}");
    assert!(memory.is_zero(9), "nothing of it is placed");
    memory.place_page(9, &old);
    feed(&spec, &memory, &encoding, &data).unwrap();
    assert_eq!(memory.hash_page(9), hash);
}

/// What a destination says to a hello with `codec`, and to `then` after its welcome.
fn told(codec: Option<Spec>, then: impl FnOnce(&mut Writer<Stream>)) -> String {
    let (near, far) = streams(1);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let mut output = Writer::new(near[0].try_clone().unwrap());
    let mut input = Reader::new(near[0].try_clone().unwrap(), 256);
    let layout = Layout::single(1 << 20);
    output
        .message(&Message::Hello { session: 1, channel: 0, channels: 1, layout, codec, post_copy: None })
        .unwrap();
    let answer = input.message().and_then(|_| {
        then(&mut output);
        input.message()
    });
    drop((near, output));
    let error = destination.join().unwrap().err().unwrap().to_string();
    format!("{error}, told as: {}", answer.err().map_or_else(String::new, |told| told.to_string()))
}

#[test]
fn a_destination_refuses_codecs_that_it_does_not_know_or_cannot_afford() {
    let unknown = told(Some(Spec::new("zsdt")), |_| ());
    assert!(
        unknown.contains("told as: link: the peer gave up: no codec is called `zsdt`; did you mean"),
        "{unknown}"
    );
    let wide = Spec::new("dedup").with("window", 16u64 << 30);
    assert!(told(Some(wide), |_| ()).contains("use a smaller window"));
}

#[test]
fn encoded_pages_without_a_codec_are_refused() {
    let (data, encoding) = encoded(&Spec::new("lz4"));
    let told = told(None, |output| {
        output.encoded(&encoding, &data).unwrap();
        // It may be gone already.
        let _ = output.message(&Message::State { state: some_state() });
    });
    assert!(told.contains("the source had named no codec"), "{told}");
}

#[test]
fn a_source_refuses_a_codec_that_there_is_not() {
    let sending = Sending::default().with_codec(&Spec::new("gzip"));
    let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
    let error = super::Channels::open(&memory, streams(1).0, &sending).err().unwrap().to_string();
    assert!(error.contains("no codec is called `gzip`"), "{error}");
}
