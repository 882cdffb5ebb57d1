//! Chains: several codecs, of which the first that shortens a page has it.

use super::{batch::further, find, Code, Codec, Encoded, Page, CODECS, PAGE};
use crate::error::{Error, Result};
use crate::knobs::{refuse_unknown, Knob, Spec};

/// Most parts of a chain: the tag is a byte, and more would help nobody.
const MOST_PARTS: usize = 16;

crate::knobs! {
    /// The first of several codecs that shortens a page encodes it, at the cost of one byte. Cheap and sharp ones
    /// go first: zero, dedup, then a difference, then a compressor.
    pub struct Chain {
        /// The codecs, in the order in which they are tried; no chains among them.
        parts: Vec<Spec> [Parts] = [Spec::new("zero"), Spec::new("dedup"), Spec::new("delta")],
    }
}

/// See [`Chain`].
pub struct ChainCodec {
    parts: Vec<Box<dyn Codec>>,
}

impl Code for Chain {
    type Codec = ChainCodec;
    fn build(self) -> Result<ChainCodec> {
        if self.parts.is_empty() || self.parts.len() > MOST_PARTS {
            return Err(Error::usage(format!(
                "Chain: from 1 to {MOST_PARTS} parts, not {}",
                self.parts.len()
            )));
        }
        if self.parts.iter().any(|part| part.name == "chain" || part.name.contains('+')) {
            // A chain inside one could leave raw what its parts have taken in as shorter.
            return Err(Error::usage("Chain: a part is a chain; name its parts instead"));
        }
        Ok(ChainCodec { parts: self.parts.iter().map(find).collect::<Result<_>>()? })
    }
}

/// Turns the combined names into parts and knobs: `a+b` into a chain, `delta-lz4` into a delta whose inner is lz4.
pub fn expand(spec: &Spec) -> Result<Spec> {
    if !spec.name.contains('+') {
        return wrapped(spec);
    }
    let mut known: Vec<Knob> = Vec::new();
    let mut parts = Vec::new();
    for name in spec.name.split('+') {
        let mut part = wrapped(&Spec::new(name))?;
        let knobs = CODECS.find(&part.name)?.knobs;
        let has = |key: &str| knobs.iter().any(|knob| knob.name == key);
        let given =
            spec.knobs.iter().filter(|(key, _)| has(key)).map(|(key, value)| (key.clone(), value.clone()));
        part.knobs.extend(given);
        known.extend(knobs);
        parts.push(part);
    }
    refuse_unknown(&spec.name, &known, &spec.knobs)?;
    let parts = serde_json::to_value(parts).map_err(|e| Error::usage(format!("{}: {e}", spec.name)))?;
    Ok(Spec::new("chain").with("parts", parts))
}

/// `outer-inner`, where the outer has a knob `inner`; other names as they are.
fn wrapped(spec: &Spec) -> Result<Spec> {
    let Some((outer, inner)) = spec.name.split_once('-') else { return Ok(spec.clone()) };
    if !CODECS.find(outer)?.knobs.iter().any(|knob| knob.name == "inner") {
        return Err(Error::usage(format!("codec `{outer}` wraps no other, as `{}` says", spec.name)));
    }
    Ok(Spec { name: outer.to_owned(), knobs: spec.knobs.clone() }.with("inner", inner))
}

impl ChainCodec {
    /// Hands `page` to the parts from `first` on, but not to the one that has it.
    fn pass_from(&mut self, first: usize, winner: usize, page: &Page) {
        for (index, part) in self.parts.iter_mut().enumerate().skip(first) {
            if index != winner {
                part.pass(page);
            }
        }
    }

    fn part(&mut self, data: &[u8]) -> Result<usize> {
        match data.first() {
            Some(tag) if usize::from(*tag) < self.parts.len() => Ok(usize::from(*tag)),
            Some(tag) => Err(Error::stream(0, format!("part {tag} of a chain of {}", self.parts.len()))),
            None => Err(Error::stream(0, "a chain's encoding has at least one byte")),
        }
    }
}

impl Codec for ChainCodec {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn needs_base(&self) -> bool {
        self.parts.iter().any(|part| part.needs_base())
    }

    fn cache(&self) -> u64 {
        self.parts.iter().map(|part| part.cache()).max().unwrap_or(0)
    }

    fn window(&self) -> u64 {
        self.parts.iter().map(|part| part.window()).sum()
    }

    fn ordered(&self) -> bool {
        self.parts.iter().any(|part| part.ordered())
    }

    fn encode(&mut self, page: &Page, base: Option<&Page>, out: &mut Vec<u8>) -> Encoded {
        let at = out.len();
        out.push(0);
        let winner = self.parts.iter_mut().position(|part| part.encode(page, base, out) == Encoded::Shorter);
        let Some(winner) = winner else {
            out.truncate(at);
            return Encoded::Raw;
        };
        self.pass_from(winner + 1, winner, page);
        out[at] = winner as u8;
        if out.len() - at < PAGE {
            return Encoded::Shorter;
        }
        // The tag ate the gain. Ordered parts are far from here: they name pages in a few bytes.
        out.truncate(at);
        Encoded::Raw
    }

    fn decode(&mut self, data: &[u8], base: Option<&Page>, page: &mut Page) -> Result<()> {
        let winner = self.part(data)?;
        self.parts[winner].decode(&data[1..], base, page).map_err(|e| further(e, 1))?;
        self.pass_from(0, winner, page);
        Ok(())
    }

    fn pass(&mut self, page: &Page) {
        self.parts.iter_mut().for_each(|part| part.pass(page));
    }

    fn reset(&mut self) {
        self.parts.iter_mut().for_each(|part| part.reset());
    }

    fn train(&mut self, sample: &[Page]) -> Result<Vec<u8>> {
        train(&mut self.parts, sample)
    }

    fn adopt(&mut self, learnt: &[u8]) -> Result<()> {
        adopt(&mut self.parts, learnt)
    }
}

/// What each part has learnt, after its length in four bytes.
pub(super) fn train(parts: &mut [Box<dyn Codec>], sample: &[Page]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for part in parts {
        let learnt = part.train(sample)?;
        all.extend((learnt.len() as u32).to_be_bytes());
        all.extend(learnt);
    }
    // Lengths of nothing are nothing to send.
    Ok(if all.iter().all(|byte| *byte == 0) { Vec::new() } else { all })
}

/// Hands each part what it has learnt.
pub(super) fn adopt(parts: &mut [Box<dyn Codec>], learnt: &[u8]) -> Result<()> {
    if learnt.is_empty() {
        return Ok(());
    }
    let mut at = 0;
    for part in parts {
        let wrong = |what: &str| Error::stream(at as u64, what);
        let (head, rest) = learnt[at..].split_first_chunk().ok_or_else(|| wrong("learning ends early"))?;
        let length = u32::from_be_bytes(*head) as usize;
        let own = rest.get(..length).ok_or_else(|| wrong("a part's learning ends early"))?;
        part.adopt(own).map_err(|e| further(e, at + head.len()))?;
        at += head.len() + length;
    }
    match learnt.len() - at {
        0 => Ok(()),
        rest => Err(Error::stream(at as u64, format!("{rest} bytes after the last part's learning"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str) -> Box<dyn Codec> {
        find(&Spec::new(name)).unwrap()
    }

    #[test]
    fn names_are_parsed_and_knobs_go_where_they_belong() {
        let spec = expand(&Spec::new("zero+delta-lz4+zstd").with("level", 9)).unwrap();
        let parts = serde_json::json!([
            {"name": "zero"}, {"name": "delta", "inner": "lz4", "level": 9}, {"name": "zstd", "level": 9}
        ]);
        assert_eq!(spec, Spec::new("chain").with("parts", parts));
        assert_eq!(expand(&Spec::new("raw")).unwrap(), Spec::new("raw"));
        assert_eq!(chain("delta-lz4").name(), "delta");
    }

    #[test]
    fn wrong_names_say_what_is_wrong() {
        let refuse = |spec: Spec| find(&spec).err().unwrap().to_string();
        assert_eq!(refuse(Spec::new("zero+zsdt")), "no codec is called `zsdt`; did you mean `zstd`?");
        assert_eq!(refuse(Spec::new("zstd-lz4")), "codec `zstd` wraps no other, as `zstd-lz4` says");
        assert_eq!(refuse(Spec::new("delta-zero")), "Delta: inner must be zstd or lz4, not zero");
        assert!(refuse(Spec::new("zero+zstd").with("levl", 1)).contains("did you mean `level`?"));
        assert!(refuse(Spec::new("zero+chain")).contains("a part is a chain"));
        assert!(refuse(Spec::new("chain").with("parts", serde_json::json!([]))).contains("from 1 to 16"));
    }

    #[test]
    fn the_first_that_shortens_a_page_has_it() {
        let (mut chain, mut out) = (chain("zero+xbzrle+lz4"), Vec::new());
        assert!(chain.needs_base() && !chain.ordered());
        chain.encode(&[0; PAGE], None, &mut out);
        assert_eq!(out, [0]);
        chain.encode(&[7; PAGE], Some(&[7; PAGE]), &mut out);
        assert_eq!(out, [0, 1]);
        chain.encode(&[7; PAGE], None, &mut out);
        assert_eq!(out[2], 2);
    }

    /// Whatever part has a page, all parts meet it, so that both sides' windows stay the same.
    #[test]
    fn windows_stay_equal_whoever_has_a_page() {
        for name in ["zero+dedup+zstd", "zero+lz4+dedup", "xbzrle+dedup+delta"] {
            let (mut source, mut destination) = (chain(name), chain(name));
            for turn in 0u64..400 {
                let kind = turn * turn % 7;
                // Compressible, incompressible and repeated pages, with and without a base.
                let mut state = turn % 40 + 1;
                let page: Page = std::array::from_fn(|i| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    if kind < 3 {
                        (turn % 11) as u8 + (i / 512) as u8
                    } else {
                        (state >> 56) as u8
                    }
                });
                let mut base = page;
                base[turn as usize] ^= 1;
                let base = (kind % 2 == 0).then_some(&base);
                let (mut out, mut back) = (Vec::new(), [0xcc; PAGE]);
                match source.encode(&page, base, &mut out) {
                    Encoded::Shorter => destination.decode(&out, base, &mut back).unwrap(),
                    Encoded::Raw => {
                        destination.pass(&page);
                        back = page;
                    }
                }
                assert!(back == page, "{name}: page {turn}");
            }
        }
    }
}
