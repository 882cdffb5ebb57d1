//! Every instruction set that the machine has, against plain models.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// Pages at odd addresses: `PAGE` bytes from `align` on in a buffer.
struct Shifted {
    bytes: Vec<u8>,
    align: usize,
}

impl Shifted {
    fn new(page: &Page, align: usize) -> Self {
        let mut bytes = vec![0xee; PAGE + 128];
        // Counted from a multiple of 64, so that `align` is the true alignment.
        let align = bytes.as_ptr().align_offset(64) + align;
        bytes[align..align + PAGE].copy_from_slice(page);
        Self { bytes, align }
    }

    fn page(&self) -> &Page {
        self.bytes[self.align..self.align + PAGE].try_into().unwrap()
    }
}

/// The XBZRLE encoding by its definition: maximal runs, byte by byte; `None` where QEMU's overflows.
pub fn model(old: &Page, new: &Page) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let length = |out: &mut Vec<u8>, n: usize| match n {
        0..0x80 => out.push(n as u8),
        _ => out.extend([n as u8 | 0x80, (n >> 7) as u8]),
    };
    let mut at = 0;
    while at < PAGE {
        let changed = (at..PAGE).find(|i| old[*i] != new[*i]).unwrap_or(PAGE);
        // Trailing unchanged bytes are left out, but QEMU asks for room first.
        if out.len() + 2 > PAGE {
            return None;
        }
        if changed == PAGE {
            break;
        }
        length(&mut out, changed - at);
        let end = (changed..PAGE).find(|i| old[*i] == new[*i]).unwrap_or(PAGE);
        if out.len() + 2 > PAGE {
            return None;
        }
        length(&mut out, end - changed);
        if out.len() + end - changed > PAGE {
            return None;
        }
        out.extend(&new[changed..end]);
        at = end;
    }
    Some(out)
}

fn encode(kernels: &Kernels, old: &Page, new: &Page) -> Option<Vec<u8>> {
    let mut room = Room::new();
    kernels.encode(old, new, &mut room).map(|used| room.bytes(used).to_vec())
}

fn check(old: &Page, new: &Page, align: (usize, usize)) {
    let (a, b) = (Shifted::new(old, align.0), Shifted::new(new, align.1));
    let expected = model(old, new);
    for kernels in Kernels::available() {
        let name = kernels.name;
        assert_eq!(kernels.is_zero(b.page()), new.iter().all(|byte| *byte == 0), "{name}: is_zero");
        assert_eq!(kernels.equal(a.page(), b.page()), old == new, "{name}: equal");
        let found = encode(kernels, a.page(), b.page());
        assert_eq!(found, expected, "{name}: encode");
        if let Some(data) = found {
            let mut page = *old;
            assert_eq!(kernels.apply(&data, &mut page), Ok(()), "{name}: apply");
            assert!(page == *new, "{name}: round trip");
        }
    }
}

/// A page and its successor: runs of `(skip, change)` bytes, laid until the page ends.
fn successors() -> impl Strategy<Value = (Page, Page)> {
    let runs = prop_oneof![
        prop::collection::vec((0usize..4096, 1usize..9), 0..6),
        prop::collection::vec((0usize..80, 1usize..4), 0..200),
        prop::collection::vec((1usize..3, 1usize..3), 0..2000),
        prop::collection::vec((0usize..300, 1usize..1500), 0..12),
    ];
    (runs, any::<bool>(), any::<u64>()).prop_map(|(runs, zeros, seed)| {
        let mut byte = seed;
        let mut next = || {
            byte = byte.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (byte >> 56) as u8
        };
        let old: Page = std::array::from_fn(|_| if zeros { 0 } else { next() });
        let (mut new, mut at) = (old, 0);
        for (skip, change) in runs {
            at += skip;
            for i in (at..at + change).take_while(|i| *i < PAGE) {
                new[i] ^= next() | 1;
            }
            at += change;
        }
        (old, new)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..Default::default() })]

    #[test]
    fn all_sets_agree_with_the_model((old, new) in successors(), align in (0usize..64, 0usize..64)) {
        check(&old, &new, align);
        check(&new, &old, align);
    }

    #[test]
    fn all_sets_apply_and_refuse_alike(
        (old, new) in successors(), hits in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4), cut in any::<u16>(),
    ) {
        let mut data = model(&old, &new).unwrap_or_else(|| vec![0, 3, 1, 2, 3]);
        for (at, byte) in hits.into_iter().filter(|_| !data.is_empty()).collect::<Vec<_>>() {
            let at = usize::from(at) % data.len();
            data[at] = byte;
        }
        data.truncate(data.len().saturating_sub(usize::from(cut) % 8));
        let mut expected = old;
        let verdict = scalar::KERNELS.apply(&data, &mut expected);
        for kernels in Kernels::available() {
            let mut page = old;
            prop_assert_eq!(kernels.apply(&data, &mut page), verdict, "{}", kernels.name);
            prop_assert!(page == expected, "{}", kernels.name);
        }
    }
}

#[test]
fn one_byte_anywhere_is_seen_at_any_alignment() {
    for at in (0..PAGE).step_by(61).chain([63, 64, PAGE - 1]) {
        let mut page = [0; PAGE];
        page[at] = 1 << (at % 8);
        check(&[0; PAGE], &page, (at % 64, at / 64 % 64));
        check(&page, &[0; PAGE], (at / 64 % 64, at % 64));
    }
    for align in 0..64 {
        check(&[0; PAGE], &[0; PAGE], (align, 63 - align));
        check(&[0; PAGE], &[7; PAGE], (align, 0));
    }
}

/// The room's edge: every length from 4090 bytes up, with changed and unchanged endings.
#[test]
fn overflow_comes_where_qemus_does() {
    for changed in 4080..=PAGE {
        for gap in [0, 1, 2, 500] {
            let mut new = [0; PAGE];
            new[..changed].fill(9);
            if gap > 0 {
                new[gap] = 0;
            }
            check(&[0; PAGE], &new, (0, 0));
        }
    }
    // Every second byte: three bytes for each change.
    check(&[0; PAGE], &std::array::from_fn(|i| (i % 2) as u8), (0, 0));
}

#[test]
fn this_machine_has_at_least_the_scalar_set() {
    let names: Vec<&str> = Kernels::available().map(|kernels| kernels.name).collect();
    println!("instruction sets: {names:?}");
    assert_eq!(names.last(), Some(&"scalar"));
    assert_eq!(Kernels::best().name, names[0]);
}
