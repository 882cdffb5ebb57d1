//! The window: what is named, what has left, and what a false hash does.

use super::*;
use crate::knobs::Knobs;
use crate::knobs::Spec;

fn codec(slots: usize) -> DedupCodec {
    let window = (slots * SLOT).max(65536) as u64;
    let mut codec =
        Dedup::from_knobs(&Spec::new("dedup").with("window", window).knobs).unwrap().build().unwrap();
    codec.slots = slots;
    codec
}

fn page(fill: u8) -> Page {
    [fill; PAGE]
}

fn encode(codec: &mut DedupCodec, page: &Page) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    (codec.encode(page, None, &mut out) == Encoded::Shorter).then_some(out)
}

#[test]
fn pages_are_named_while_the_window_holds_them() {
    let mut codec = codec(3);
    assert_eq!(encode(&mut codec, &page(0)), Some(vec![0xff; 4]));
    for fill in 1..=3 {
        assert_eq!(encode(&mut codec, &page(fill)), None);
    }
    assert_eq!(encode(&mut codec, &page(1)), Some(vec![0, 0, 0, 0]));
    assert_eq!(encode(&mut codec, &page(4)), None);
    assert_eq!(encode(&mut codec, &page(4)), Some(vec![0, 0, 0, 0]));
    assert_eq!(encode(&mut codec, &page(1)), None, "overwritten by page 4");
    codec.reset();
    assert_eq!(encode(&mut codec, &page(4)), None);
}

#[test]
fn pages_that_passed_are_found_later_even_if_the_window_turned_meanwhile() {
    let mut codec = codec(4);
    assert_eq!(encode(&mut codec, &page(9)), None);
    (1..=11).for_each(|fill| codec.pass(&page(fill)));
    // Twelve were taken; 8 to 11 are held.
    for fill in 8..=11 {
        assert!(encode(&mut codec, &page(fill)).is_some(), "page {fill}");
    }
    assert_eq!(encode(&mut codec, &page(7)), None);
}

/// A hash that lies, as an attacker's collision would: the bytes decide.
#[test]
fn a_false_hash_costs_a_comparison_and_no_wrong_page() {
    let mut codec = codec(4);
    encode(&mut codec, &page(1));
    codec.index.slots.insert(xxh3_128(&page(2)), 0);
    assert_eq!(encode(&mut codec, &page(2)), None);
    assert_eq!(encode(&mut codec, &page(2)), Some(vec![0, 0, 0, 1]));
}

#[test]
fn names_of_pages_that_are_not_held_are_refused() {
    let mut codec = codec(4);
    codec.pass(&page(1));
    let refuse =
        |codec: &mut DedupCodec, data: &[u8]| codec.decode(data, None, &mut page(5)).unwrap_err().to_string();
    assert_eq!(refuse(&mut codec, &[0, 0, 0, 1]), "at byte 0: earlier page 1 is named; 1 are held");
    assert_eq!(refuse(&mut codec, &[0, 0]), "at byte 0: an earlier page is named by 4 bytes, not 2");
}

#[test]
fn the_window_and_its_index_stay_within_the_budget() {
    let mut codec =
        Dedup::from_knobs(&Spec::new("dedup").with("window", 4 << 20).knobs).unwrap().build().unwrap();
    for turn in 0..5000u64 {
        let mut fresh = page(1);
        fresh[..8].copy_from_slice(&turn.to_le_bytes());
        encode(&mut codec, &fresh);
    }
    // A line of the index has a key, a slot and a control byte; a capacity is 7/8 of the lines.
    let index = codec.index.slots.capacity() * 8 / 7 * (32 + 1);
    let bytes = codec.pages.capacity() * PAGE + codec.index.hashes.capacity() * 16 + index;
    assert!(codec.pages.len() > 900 && bytes <= 4 << 20, "{bytes} bytes");
}
