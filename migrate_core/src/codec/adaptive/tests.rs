//! The adaptive codec as users see it.

use super::*;
use crate::codec::conformance::{check, Numbers};
use crate::knobs::Spec;

fn adaptive() -> Box<dyn Codec> {
    find(&Spec::new("adaptive")).unwrap()
}

fn link(rate: f64, backlog: f64) -> Drain {
    Drain { backlog, per_byte: 1.0 / rate }
}

fn text(numbers: &mut Numbers) -> Page {
    std::array::from_fn(|_| b"etaoin shrdlu"[numbers.next(13)])
}

/// Half text, half random pages, by turns.
fn mixed(count: usize) -> Vec<Page> {
    let mut numbers = Numbers(4);
    (0..count).map(|i| if i % 2 == 0 { text(&mut numbers) } else { numbers.page() }).collect()
}

#[test]
fn each_kind_of_a_batch_goes_its_own_way_and_all_come_back() {
    let (mut source, mut destination) = (adaptive(), adaptive());
    let pages = mixed(64);
    for _ in 0..4 {
        source.told(link(12.5e6, 0.1));
        let (mut out, mut back) = (Vec::new(), vec![[0xcc; PAGE]; 64]);
        let raw = source.encode_batch(&pages, &[None; 64], &mut out);
        assert_eq!(raw, 32, "random pages are raw");
        assert!(out.len() < 50 * PAGE, "{} bytes", out.len());
        destination.decode_batch(&out, &[None; 64], &mut back).unwrap();
        assert!(back == pages);
    }
    let choices = source.choices();
    assert_eq!(choices.iter().map(|(_, pages)| pages).sum::<u64>(), 256);
    assert_eq!(choices[0], ("raw".to_owned(), 128));
    assert_eq!(choices[3].0, "zstd:level=5");
}

#[test]
fn on_a_link_that_waits_for_it_nothing_is_encoded_and_it_stands_aside() {
    let mut codec = adaptive();
    let pages: Vec<Page> = mixed(64).into_iter().step_by(2).collect();
    assert!(!codec.stands_aside(&pages[0], 64), "it knows nothing of such pages");
    for _ in 0..3 {
        codec.told(link(1e13, 0.0));
        codec.encode_batch(&pages, &[None; 32], &mut Vec::new());
    }
    codec.told(link(1e13, 0.0));
    assert!(codec.stands_aside(&pages[0], 64));
    codec.told(link(12.5e6, 0.1));
    assert!(!codec.stands_aside(&pages[0], 64));
}

#[test]
fn pages_with_little_changed_go_as_differences() {
    let mut codec = adaptive();
    let mut numbers = Numbers(5);
    let old: Vec<Page> = (0..64).map(|_| numbers.page()).collect();
    let new: Vec<Page> = old.iter().map(|page| numbers.changed(page, 4, 4)).collect();
    let (bases, mut out) = (old.iter().map(Some).collect::<Vec<_>>(), Vec::new());
    codec.told(link(12.5e6, 0.0));
    codec.encode_batch(&new, &bases, &mut out);
    assert!(out.len() < 64 * 80, "{} bytes", out.len());
}

#[test]
fn wrong_candidates_are_refused() {
    let refuse = |candidates: serde_json::Value| {
        find(&Spec::new("adaptive").with("candidates", candidates)).err().unwrap().to_string()
    };
    assert!(refuse(serde_json::json!([])).contains("from 1 to 16"));
    assert!(refuse(serde_json::json!([{"name": "dedup"}])).contains("dedup names earlier pages"));
    assert!(refuse(serde_json::json!([{"name": "adaptive"}])).contains("no candidate of itself"));
    assert!(refuse(serde_json::json!([{"name": "zsdt"}])).contains("did you mean `zstd`"));
}

#[test]
fn a_dictionary_of_a_candidate_is_learnt() {
    let spec = serde_json::json!([{"name": "lz4"}, {"name": "zstd", "dictionary": 4096}]);
    check(&|| find(&Spec::new("adaptive").with("candidates", spec.clone())).unwrap()).unwrap();
}
