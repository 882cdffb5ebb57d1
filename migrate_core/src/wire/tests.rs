//! The wire, with honest and with hostile peers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::{checked_runs, Encoding, Message, Reader, Section, Writer};
use crate::bitmap::{Bitmap, Run};
use crate::guest::{GuestMemory, Layout, PAGE};

const PAGES: u64 = 256;

fn memory() -> GuestMemory {
    let memory = GuestMemory::new(&Layout::single(PAGES * PAGE as u64)).unwrap();
    for page in 1..PAGES {
        memory.write(page * PAGE as u64, &page.to_le_bytes());
    }
    memory
}

/// The bytes that `write` puts on the wire.
fn bytes(write: impl FnOnce(&mut Writer<UnixStream>)) -> Vec<u8> {
    let (near, mut far) = UnixStream::pair().unwrap();
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all
    });
    let mut writer = Writer::new(near);
    write(&mut writer);
    let sent = writer.sent();
    drop(writer);
    let all = reading.join().unwrap();
    assert_eq!(all.len() as u64, sent, "the writer counts what it writes");
    all
}

/// A reader that finds `bytes`, then the end.
fn reader(bytes: Vec<u8>) -> Reader<UnixStream> {
    let (near, mut far) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        // The reader may give up before the end.
        let _ = far.write_all(&bytes);
    });
    Reader::new(near, PAGES)
}

/// Reads all sections, placing pages in a fresh memory; the text of the first error.
fn read_all(bytes: Vec<u8>) -> (Vec<Section>, String) {
    let (mut reader, memory, mut sections) = (reader(bytes), memory(), Vec::new());
    loop {
        match reader.section() {
            Ok(Section::Pages { runs, hashes }) => {
                match reader.read_pages(&memory, &runs, &hashes) {
                    Ok(_) => sections.push(Section::Pages { runs, hashes }),
                    Err(error) => return (sections, error.to_string()),
                };
            }
            Ok(section) => sections.push(section),
            Err(error) => return (sections, error.to_string()),
        }
    }
}

fn runs() -> Vec<Run> {
    vec![Run { first: 0, pages: 3 }, Run { first: 9, pages: 1 }, Run { first: 200, pages: 56 }]
}

#[test]
fn what_is_written_is_read() {
    let memory = memory();
    let stream = bytes(|writer| {
        writer.message(&Message::Ping).unwrap();
        writer.pages(&memory, &runs()).unwrap();
        writer.zeros(&[Run { first: 5, pages: 2 }]).unwrap();
        writer.hashes(&memory, Run { first: 4, pages: 3 }).unwrap();
    });
    let (sections, end) = read_all(stream.clone());
    assert!(end.contains(&format!("closed the connection at byte {}", stream.len())), "{end}");
    assert_eq!(sections[0], Section::Message(Message::Ping));
    assert!(matches!(&sections[1], Section::Pages { runs: r, hashes } if *r == runs() && hashes.len() == 60));
    assert_eq!(sections[2], Section::Zeros { runs: vec![Run { first: 5, pages: 2 }] });
    let hashes = (4..7).map(|page| memory.hash_page_128(page)).collect();
    assert_eq!(sections[3], Section::Hashes { run: Run { first: 4, pages: 3 }, hashes });
}

#[test]
fn a_page_that_changed_after_it_was_hashed_is_torn() {
    let memory = memory();
    let mut stream = bytes(|writer| writer.pages(&memory, &runs()).unwrap());
    let last = stream.len() - 1;
    stream[last] ^= 1;
    let mut reader = reader(stream);
    let Section::Pages { runs, hashes } = reader.section().unwrap() else { panic!() };
    assert_eq!(reader.read_pages(&memory, &runs, &hashes).unwrap(), [255]);
}

#[test]
fn lengths_that_lie_are_refused_before_they_cost_memory() {
    let stream = bytes(|writer| writer.message(&Message::Ping).unwrap());
    let refuse = |at: usize, value: &[u8]| {
        let mut bad = stream.clone();
        bad[at..at + value.len()].copy_from_slice(value);
        read_all(bad).1
    };
    assert!(refuse(4, &u32::MAX.to_le_bytes()).contains("a body of 4294967295 bytes"));
    // A length that is allowed but not there: the reader waits for bytes, it does not reserve them.
    assert!(refuse(4, &(60u32 << 20).to_le_bytes()).contains("closed the connection"));
    assert!(refuse(3, &[99]).contains("kind 99"));
    assert!(refuse(2, &[7]).contains("version 7"));
    assert!(refuse(8, &1u64.to_le_bytes()).contains("checksum"));
    assert!(refuse(0, b"QE").contains("at byte 0"));
}

#[test]
fn page_numbers_outside_the_guest_are_refused() {
    let beyond = GuestMemory::new(&Layout::single(2 * PAGES * PAGE as u64)).unwrap();
    let run = Run { first: PAGES - 1, pages: 2 };
    for stream in [bytes(|w| w.pages(&beyond, &[run]).unwrap()), bytes(|w| w.zeros(&[run]).unwrap())] {
        let (_, error) = read_all(stream);
        assert!(error.contains("or not among 256"), "{error}");
    }
    let overlapping = bytes(|w| w.zeros(&[Run { first: 5, pages: 2 }, Run { first: 6, pages: 1 }]).unwrap());
    assert!(read_all(overlapping).1.contains("not after page 7"));
    assert!(checked_runs(&vec![(0, 1), (u64::MAX, 2)], PAGES).is_err());
    assert!(checked_runs(&vec![(3, 0)], PAGES).is_err());
}

#[test]
fn resend_names_every_torn_page() {
    let mut torn = Bitmap::new(PAGES);
    [3, 4, 77].iter().for_each(|page| torn.set(*page));
    assert_eq!(Message::resend(&torn), Message::Resend { runs: vec![(3, 2), (77, 1)] });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a peer sends, the reader answers with sections or an error: never a panic, never a hang.
    #[test]
    fn a_stream_cut_or_changed_anywhere_never_panics(cut in 0usize..6000, at in 0usize..6000, value: u8) {
        let memory = memory();
        let mut stream = bytes(|writer| {
            let state = crate::guest::ExecutionState { vcpus: Vec::new() };
            writer.message(&Message::State { state }).unwrap();
            writer.pages(&memory, &[Run { first: 7, pages: 1 }]).unwrap();
            writer.zeros(&runs()).unwrap();
            writer.message(&Message::Flush).unwrap();
        });
        let (cut, at) = (cut % (stream.len() + 1), at % stream.len());
        stream[at] = value;
        stream.truncate(cut);
        let (sections, error) = read_all(stream);
        prop_assert!(!error.is_empty());
        prop_assert!(sections.len() <= 4);
    }

    #[test]
    fn random_bytes_never_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!read_all(noise).1.is_empty());
    }
}

#[test]
fn the_sizes_that_are_foretold_are_those_that_are_sent() {
    let memory = memory();
    for runs in
        [vec![Run { first: 0, pages: 5 }], vec![Run { first: 1, pages: 1 }, Run { first: 7, pages: 30 }]]
    {
        let (count, pages) = (runs.len() as u64, runs.iter().map(|run| run.pages).sum());
        let sent = bytes(|writer| writer.pages(&memory, &runs).unwrap()).len() as u64;
        assert_eq!(super::pages_bytes(count, pages), sent);
        assert_eq!(super::zeros_bytes(count), bytes(|writer| writer.zeros(&runs).unwrap()).len() as u64);
    }
    assert_eq!((super::pages_bytes(0, 0), super::zeros_bytes(0)), (0, 0));
}

#[test]
fn encoded_sections_are_read_as_written_and_bounded() {
    let runs = vec![Run { first: 2, pages: 9 }, Run { first: 40, pages: 1 }];
    let data = vec![7; 20_000];
    let based = (0..10).map(|i| i % 3 == 1).collect();
    let encoding = Encoding { runs, hash: 99, based, bytes: data.len() as u64 };
    let plain = Encoding { based: Vec::new(), bytes: 3, ..encoding.clone() };
    let stream = bytes(|writer| {
        writer.encoded(&encoding, &data).unwrap();
        writer.encoded(&plain, &[1, 2, 3]).unwrap();
        writer.learnt(b"words").unwrap();
    });
    let (mut reader, mut back) = (reader(stream), Vec::new());
    assert_eq!(reader.section().unwrap(), Section::Encoded(encoding.clone()));
    // Header, runs, checksum, and a bit for each page.
    assert_eq!(reader.read_encoding(&encoding, &mut back).unwrap(), 24 + 8 + 2 * 12 + 8 + 2);
    assert_eq!(back, data);
    assert_eq!(reader.section().unwrap(), Section::Encoded(plain.clone()));
    reader.read_encoding(&plain, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3]);
    assert_eq!(reader.section().unwrap(), Section::Learnt(b"words".to_vec()));

    let refuse = |encoding: &Encoding, length: usize| {
        read_all(bytes(|writer| writer.encoded(encoding, &vec![0; length]).unwrap())).1
    };
    let one = Encoding { runs: vec![Run { first: 0, pages: 1 }], ..Encoding::default() };
    assert!(refuse(&one, 2 * PAGE).contains("8192 bytes of encoding for 1 pages"));
    let many = Encoding { runs: vec![Run { first: 0, pages: 257 }], ..Encoding::default() };
    assert!(read_all(bytes(|w| w.encoded(&many, &[]).unwrap())).1.contains("or not among 256"));
    let flags = Encoding { based: vec![true; 9], ..one };
    assert!(refuse(&flags, 1).contains("2 bytes say which of 1 pages"));
    assert!(bytes_refused(&vec![0; 5 << 20]).contains("a smaller dictionary"));
}

/// What a writer says to so much learning.
fn bytes_refused(learnt: &[u8]) -> String {
    let mut said = String::new();
    bytes(|writer| said = writer.learnt(learnt).unwrap_err().to_string());
    said
}
