//! The kit that every codec must pass, ours and others: [`check`].
//!
//! It is deterministic, takes about a second a codec, and says what failed on which kind of page.

use super::{batch_bound, Codec, Encoded, Page, PAGE};
use crate::error::Error;

/// Outcome of a check: what failed, for people.
pub type Verdict = std::result::Result<(), String>;

/// A kind of page: its name, the page, and the version before it.
pub type Case = (&'static str, Page, Page);

/// Numbers that depend on `seed` alone (a linear congruential generator, its high bits).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next, below `below`.
    pub fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below.max(1)
    }

    /// Random bytes.
    pub fn page(&mut self) -> Page {
        std::array::from_fn(|_| self.next(256) as u8)
    }

    /// `base` with `count` changes of `bytes` bytes each at random places.
    pub fn changed(&mut self, base: &Page, count: usize, bytes: usize) -> Page {
        let mut page = *base;
        for _ in 0..count {
            let at = self.next(PAGE - bytes + 1);
            page[at..at + bytes].iter_mut().for_each(|byte| *byte ^= 1 + self.next(255) as u8);
        }
        page
    }
}

/// Pages of the kinds that guests have.
pub fn cases(seed: u64) -> Vec<Case> {
    let mut numbers = Numbers(seed);
    let random = numbers.page();
    let text: Page =
        std::array::from_fn(|i| b"the quick brown fox jumps over the lazy dog; "[(i * i / 97 + i) % 45]);
    let pointers: Page =
        std::array::from_fn(|i| if i % 8 < 3 { random[i] } else { 0x7f * u8::from(i % 8 == 5) });
    let half: Page = std::array::from_fn(|i| if i < PAGE / 2 { random[i] } else { text[i] });
    let second: Page = std::array::from_fn(|i| if i % 2 == 0 { text[i] } else { !text[i] });
    let last = {
        let mut page = [0; PAGE];
        page[PAGE - 1] = 1;
        page
    };
    vec![
        ("zero", [0; PAGE], random),
        ("one byte", last, [0; PAGE]),
        ("one fill", [0x5a; PAGE], [0xa5; PAGE]),
        ("text", text, half),
        ("pointers", pointers, numbers.changed(&pointers, 40, 8)),
        ("random", random, numbers.page()),
        ("half random", half, text),
        ("unchanged", text, text),
        ("unchanged random", random, random),
        ("counters", numbers.changed(&random, 4, 4), random),
        ("one long run", numbers.changed(&random, 1, 512), random),
        ("words", numbers.changed(&text, 32, 8), text),
        ("bytes", numbers.changed(&random, 128, 1), random),
        ("every second byte", second, text),
        ("all but one byte", numbers.changed(&random, 1, PAGE), random),
    ]
}

fn differ(what: &str, kind: &str) -> Verdict {
    Err(format!("{what}, page of kind `{kind}`"))
}

/// All checks of a codec that `make` makes with empty context.
pub fn check(make: &dyn Fn() -> Box<dyn Codec>) -> Verdict {
    for seed in 1..=2 {
        round_trips(make, seed).map_err(|e| format!("seed {seed}: {e}"))?;
        batches(make, seed).map_err(|e| format!("seed {seed}: {e}"))?;
        hostile(make, seed).map_err(|e| format!("seed {seed}: {e}"))?;
        learning(make, seed).map_err(|e| format!("seed {seed}: {e}"))?;
    }
    unknown_bytes(make)
}

/// One page through both sides; the page that arrives, poisoned before.
fn through(
    source: &mut dyn Codec,
    destination: &mut dyn Codec,
    case: &Case,
    base: Option<&Page>,
    poison: u8,
) -> std::result::Result<Page, String> {
    let (kind, page, _) = case;
    let mut out = vec![0xee; 3];
    let encoded = source.encode(page, base, &mut out);
    if out[..3] != [0xee; 3] {
        return Err(format!("encode changed bytes that were there, page of kind `{kind}`"));
    }
    let mut back = [poison; PAGE];
    match encoded {
        Encoded::Raw if out.len() > 3 => {
            return Err(format!("raw, and yet it appended, page of kind `{kind}`"))
        }
        Encoded::Raw => {
            destination.pass(page);
            back = *page;
        }
        Encoded::Shorter if out.len() - 3 >= PAGE => {
            return Err(format!("no shorter, page of kind `{kind}`"))
        }
        Encoded::Shorter => {
            destination
                .decode(&out[3..], base, &mut back)
                .map_err(|e| format!("decode, kind `{kind}`: {e}"))?;
        }
    }
    Ok(back)
}

/// Pages come back whole, with and without a base, again after a reset, whatever the target held.
fn round_trips(make: &dyn Fn() -> Box<dyn Codec>, seed: u64) -> Verdict {
    let (mut source, mut destination) = (make(), make());
    for pass in 0..3 {
        for case in &cases(seed + pass % 2) {
            for base in [None, Some(&case.2)] {
                let back = through(source.as_mut(), destination.as_mut(), case, base, 0xcc + pass as u8)?;
                if back != case.1 {
                    return differ("another page came back", case.0);
                }
            }
        }
        source.reset();
        destination.reset();
    }
    Ok(())
}

/// Batches of all lengths come back, within their bound.
fn batches(make: &dyn Fn() -> Box<dyn Codec>, seed: u64) -> Verdict {
    let (mut source, mut destination) = (make(), make());
    let cases = cases(seed);
    for length in [0, 1, 2, cases.len()] {
        let pages: Vec<Page> = cases[..length].iter().map(|case| case.1).collect();
        let bases: Vec<_> = (0..length).map(|i| (i % 3 > 0).then_some(&cases[i].2)).collect();
        let (mut out, mut back) = (Vec::new(), vec![[0xcc; PAGE]; length]);
        source.encode_batch(&pages, &bases, &mut out);
        if out.len() > batch_bound(length) {
            return Err(format!("{} bytes for a batch of {length} pages", out.len()));
        }
        destination.decode_batch(&out, &bases, &mut back).map_err(|e| format!("batch of {length}: {e}"))?;
        if back != pages {
            return Err(format!("another batch of {length} pages came back"));
        }
        hostile_batch(make, &out, &bases)?;
    }
    Ok(())
}

fn hostile_batch(make: &dyn Fn() -> Box<dyn Codec>, data: &[u8], bases: &[Option<&Page>]) -> Verdict {
    let mut numbers = Numbers(9);
    for _ in 0..20 {
        let data = mutated(data, &mut numbers);
        let decode = |poison: u8| {
            let mut pages = vec![[poison; PAGE]; bases.len()];
            verdict(make().decode_batch(&data, bases, &mut pages)).map(|decoded| decoded.map(|()| pages))
        };
        if decode(0x00)? != decode(0xff)? {
            return Err("a mutated batch left bytes of the target as they were".into());
        }
    }
    Ok(())
}

/// `data` with bytes changed, cut off, put in or repeated.
pub fn mutated(data: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..=numbers.next(3) {
        let at = numbers.next(data.len() + 1);
        match numbers.next(4) {
            0 => data.truncate(at),
            1 => data.insert(at, numbers.next(256) as u8),
            2 => data.extend_from_within(at..),
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = numbers.next(256) as u8;
                }
            }
        }
        data.truncate(1 << 20);
    }
    data
}

/// Success or not; an error other than [`Error::Stream`] is the codec's fault.
fn verdict(decoded: crate::Result<()>) -> std::result::Result<Option<()>, String> {
    match decoded {
        Ok(()) => Ok(Some(())),
        Err(Error::Stream { .. }) => Ok(None),
        Err(other) => Err(format!("hostile data gave an error without an offset: {other}")),
    }
}

/// Whatever the data, decoding neither panics nor shows what the target held.
fn poisoned(make: &dyn Fn() -> Box<dyn Codec>, data: &[u8], base: Option<&Page>, seen: &Page) -> Verdict {
    let decode = |poison: u8| {
        let mut codec = make();
        codec.pass(seen);
        let mut page = [poison; PAGE];
        verdict(codec.decode(data, base, &mut page)).map(|decoded| decoded.map(|()| page))
    };
    match decode(0x00)? == decode(0xff)? {
        true => Ok(()),
        false => Err(format!("{} bytes of data left bytes of the target as they were", data.len())),
    }
}

/// Encodings cut short and mutated.
fn hostile(make: &dyn Fn() -> Box<dyn Codec>, seed: u64) -> Verdict {
    let mut numbers = Numbers(seed);
    for (kind, page, before) in &cases(seed) {
        for base in [None, Some(before)] {
            let (mut codec, mut out) = (make(), Vec::new());
            codec.pass(page);
            codec.encode(page, base, &mut out);
            for _ in 0..20 {
                let data = mutated(&out, &mut numbers);
                poisoned(make, &data, base, page).map_err(|e| format!("{e}, mutated from kind `{kind}`"))?;
            }
            // A peer that leaves out, or makes up, the base.
            poisoned(make, &out, base.is_none().then_some(before), page)
                .map_err(|e| format!("{e}, kind `{kind}`"))?;
        }
    }
    Ok(())
}

/// Bytes that no encoder wrote.
fn unknown_bytes(make: &dyn Fn() -> Box<dyn Codec>) -> Verdict {
    let mut numbers = Numbers(77);
    for _ in 0..300 {
        let length = numbers.next(64) * numbers.next(100);
        let data: Vec<u8> = (0..length).map(|_| numbers.next(256) as u8).collect();
        let base = numbers.page();
        poisoned(make, &data, (numbers.next(2) == 0).then_some(&base), &base)?;
        make().adopt(&data).map_or_else(|e| verdict(Err(e)).map(|_| ()), |()| Ok(()))?;
    }
    Ok(())
}

/// What one side learns lets the other decode; pages come back as before.
fn learning(make: &dyn Fn() -> Box<dyn Codec>, seed: u64) -> Verdict {
    let sample: Vec<Page> = (0..8).flat_map(|i| cases(seed * 10 + i)).map(|case| case.1).collect();
    let (mut source, mut destination) = (make(), make());
    let learnt = source.train(&sample).map_err(|e| format!("train: {e}"))?;
    destination.adopt(&learnt).map_err(|e| format!("adopt: {e}"))?;
    for case in &cases(seed) {
        if through(source.as_mut(), destination.as_mut(), case, Some(&case.2), 0xcc)? != case.1 {
            return differ("another page came back after learning", case.0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{find, CODECS};
    use crate::knobs::Spec;

    #[test]
    fn every_codec_of_the_registry_passes() {
        for entry in CODECS.entries {
            check(&|| find(&Spec::new(entry.name)).unwrap())
                .unwrap_or_else(|e| panic!("{}: {e}", entry.name));
        }
    }

    #[test]
    fn combinations_pass() {
        for name in ["delta-lz4", "zero+dedup+delta-zstd", "zero+xbzrle+lz4", "lz4+dedup"] {
            check(&|| find(&Spec::new(name)).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let trained = Spec::new("zero+dedup+zstd").with("dictionary", 4096).with("window", 65536);
        check(&|| find(&trained).unwrap()).unwrap();
    }
}
