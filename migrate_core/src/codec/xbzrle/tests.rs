//! The golden vector, and the loader's rules.

use super::*;

fn vector() -> (Page, Page, Vec<u8>) {
    let (mut old, mut new) = ([0; PAGE], [0; PAGE]);
    for i in 0..15 {
        (old[1001 + i], new[1001 + i]) = (0x05 + i as u8, 0x01 + i as u8);
    }
    old[1016..1022].copy_from_slice(&[0x68, 0, 0, 0x6b, 0, 0x6d]);
    new[1016..1022].copy_from_slice(&[0x68, 0, 0, 0x67, 0, 0x69]);
    let mut data = vec![0xe9, 0x07, 0x0f];
    data.extend(1..=15);
    data.extend([0x03, 0x01, 0x67, 0x01, 0x01, 0x69]);
    (old, new, data)
}

fn codec() -> XbzrleCodec {
    Xbzrle { cache: 65536 }.build().unwrap()
}

/// QEMU, `docs/xbzrle.txt`.
#[test]
fn the_documents_example_byte_for_byte() {
    let (old, new, expected) = vector();
    let mut data = Vec::new();
    assert_eq!(codec().encode(&new, Some(&old), &mut data), Encoded::Shorter);
    assert_eq!((data.len(), &data), (24, &expected));
    let mut page = [0xcc; PAGE];
    codec().decode(&data, Some(&old), &mut page).unwrap();
    assert!(page == new);
}

#[test]
fn an_unchanged_page_is_empty() {
    let (old, ..) = vector();
    let mut data = vec![1];
    assert_eq!(codec().encode(&old, Some(&old), &mut data), Encoded::Shorter);
    assert_eq!(data, [1]);
    let mut page = [0xcc; PAGE];
    codec().decode(&[], Some(&old), &mut page).unwrap();
    assert!(page == old);
}

#[test]
fn pages_without_a_base_or_without_gain_are_raw() {
    let (old, new, _) = vector();
    let mut data = Vec::new();
    assert_eq!(codec().encode(&new, None, &mut data), Encoded::Raw);
    assert_eq!(codec().encode(&[1; PAGE], Some(&[0; PAGE]), &mut data), Encoded::Raw);
    let second: Page = std::array::from_fn(|i| (i % 2) as u8);
    assert_eq!(codec().encode(&second, Some(&[0; PAGE]), &mut data), Encoded::Raw);
    assert!(data.is_empty());
    assert!(codec().decode(&[0, 1, 7], None, &mut { old }).is_err());
}

#[test]
fn the_loaders_rules_are_enforced_with_the_offset() {
    let refuse = |data: &[u8]| match apply(data, &mut [0; PAGE]) {
        Err(Error::Stream { offset, reason }) => (offset, reason),
        other => panic!("{data:02x?}: {other:?}"),
    };
    assert_eq!(refuse(&[1, 1, 7, 0, 1, 8]), (3, "an unchanged run of no bytes after the first".into()));
    assert_eq!(refuse(&[1, 0, 7]), (1, "a changed run of no bytes".into()));
    assert_eq!(refuse(&[0xff, 0x1f, 2, 7, 8]), (0, "the runs pass the page's end".into()));
    assert_eq!(refuse(&[0xff, 0x80, 2, 7, 8]), (0, "a run length has more than 14 bits".into()));
    assert_eq!(refuse(&[1, 0xff, 0xff, 7]), (1, "a run length has more than 14 bits".into()));
    assert_eq!(refuse(&[1, 3, 7, 8]), (1, "the data ends inside a changed run".into()));
    assert_eq!(refuse(&[1]), (0, "the data ends inside a run".into()));
    assert_eq!(refuse(&[1, 1, 7, 5]), (3, "the data ends inside a run".into()));
    assert_eq!(refuse(&[1, 1]), (1, "the data ends inside a run".into()));
    // What the loader takes: no unchanged bytes in the first run, and lengths in two bytes that fit one.
    let mut page = [0; PAGE];
    apply(&[0, 1, 7, 0x81, 0, 1, 8], &mut page).unwrap();
    assert_eq!(page[..4], [7, 0, 8, 0]);
}
