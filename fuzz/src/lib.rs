//! What the fuzz targets of the codecs share. `cargo +nightly fuzz run decode_xbzrle` runs one.

pub mod stream;

use migrate_core::codec::{find, Codec, Encoded, Page};
use migrate_core::knobs::Spec;
use migrate_core::Error;

/// The codec that `name` names, with a small window so that a run is fast.
pub fn codec(name: &str) -> Box<dyn Codec> {
    let spec = Spec::new(name);
    let spec = if name.contains("dedup") { spec.with("window", 65536) } else { spec };
    find(&spec).expect("a codec of the registry")
}

/// A page that repeats `seed`.
pub fn page(seed: &[u8]) -> Page {
    std::array::from_fn(|i| seed.get(i % seed.len().max(1)).copied().unwrap_or(0))
}

/// Decodes `data`: the first byte chooses whether there is a base. Two targets of different content must come
/// back the same: nothing of what they held may show.
pub fn decode(name: &str, data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let base = page(&[*choice, 0, 7]);
    let base = (choice % 2 == 1).then_some(&base);
    let run = |poison: u8| {
        let (mut codec, mut target) = (codec(name), [poison; size_of::<Page>()]);
        codec.pass(&page(&[1, 2, 3]));
        match codec.decode(data, base, &mut target) {
            Ok(()) => Some(target),
            Err(Error::Stream { .. }) => None,
            Err(other) => panic!("hostile data gave an error without an offset: {other}"),
        }
    };
    assert!(run(0x00) == run(0xff), "bytes of the target show");
}

/// The same for a batch of up to four pages, all of them or none with a base.
pub fn decode_batch(name: &str, data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let base = page(&[*choice, 0, 7]);
    let base = (choice & 0x80 != 0).then_some(&base);
    let run = |poison: u8| {
        let mut pages = vec![[poison; size_of::<Page>()]; usize::from(choice % 5)];
        let bases = vec![base; pages.len()];
        match codec(name).decode_batch(data, &bases, &mut pages) {
            Ok(()) => Some(pages),
            Err(Error::Stream { .. }) => None,
            Err(other) => panic!("hostile data gave an error without an offset: {other}"),
        }
    };
    assert!(run(0x00) == run(0xff), "bytes of the target show");
}

/// Makes a batch and its bases out of `data`, encodes, decodes, compares.
pub fn round_trip_batch(name: &str, data: &[u8]) {
    let third = data.len() / 3;
    let pages = [page(data), page(&data[third..]), page(&data[2 * third..]), page(&data[..third])];
    let bases = [None, Some(&pages[0]), Some(&pages[2]), Some(&pages[2])];
    let (mut source, mut destination) = (codec(name), codec(name));
    // Twice: what the first leaves behind must not matter, or be the same at both ends.
    for _ in 0..2 {
        let (mut out, mut back) = (Vec::new(), [[0xcc; size_of::<Page>()]; 4]);
        source.encode_batch(&pages, &bases, &mut out);
        assert!(out.len() <= migrate_core::codec::batch_bound(pages.len()), "longer than the bound");
        destination.decode_batch(&out, &bases, &mut back).expect("what was encoded");
        assert!(back == pages, "other pages came back");
    }
}

/// Makes a page and its base out of `data`, encodes, decodes, compares.
pub fn round_trip(name: &str, data: &[u8]) {
    let (mut source, mut destination) = (codec(name), codec(name));
    let half = data.len() / 2;
    let (new, old) = (page(&data[half..]), page(&data[..half]));
    let mut mixed = old;
    data.iter().enumerate().for_each(|(i, byte)| mixed[(i * 61 + usize::from(*byte) * 16) % mixed.len()] = *byte);
    for (page, base) in [(&new, None), (&new, Some(&old)), (&mixed, Some(&old)), (&old, Some(&old)), (&new, None)] {
        let (mut out, mut back) = (Vec::new(), [0xcc; size_of::<Page>()]);
        match source.encode(page, base, &mut out) {
            Encoded::Raw => destination.pass(page),
            Encoded::Shorter => {
                assert!(out.len() < page.len(), "no shorter");
                destination.decode(&out, base, &mut back).expect("what was encoded");
                assert!(back == *page, "another page came back");
            }
        }
    }
}
