//! The adaptive codec: each kind of page by the codec that has it on the link first.

use std::time::Instant;

use self::choice::Choice;
use self::kind::{kind_of, KINDS};
use super::{batch::further, chain, find, Code, Codec, Drain, Encoded, Page, PAGE};
use crate::error::{Error, Result};
use crate::guest::thread_seconds;
use crate::knobs::Spec;

mod choice;
mod frame;
mod kind;
#[cfg(test)]
mod tests;

/// Most candidates; a tag is a byte.
const MOST_CANDIDATES: usize = 16;

/// Pages that a trial encodes.
const TRIAL: usize = 8;

/// Longest time of encoding, as a multiple of processor time, that counts as the machine's load.
const MOST_LOAD: f64 = 4.0;

crate::knobs! {
    /// The codec that suits each kind of page at the time: by its measured cost and gain, and by whether the link waits
    /// for the encoder or the encoder for the link.
    pub struct Adaptive {
        /// The codecs to choose among, beside pages as they are; none that names earlier pages, as dedup does.
        candidates: Vec<Spec> [Parts] = [
            Spec::new("lz4"),
            Spec::new("zstd"),
            Spec::new("zstd").with("level", 5),
            Spec::new("xbzrle"),
            Spec::new("delta-lz4"),
            Spec::new("delta-zstd"),
        ],
        /// Memory that a migration's source takes for the versions sent last.
        cache: u64 [Bytes, 65536.0..=1099511627776.0] = 67108864,
    }
}

/// See [`Adaptive`].
pub struct AdaptiveCodec {
    candidates: Vec<Box<dyn Codec>>,
    /// Of pages as they are, then of each candidate: name and pages.
    choices: Vec<(String, u64)>,
    choice: Choice,
    began: Option<Instant>,
    /// Elapsed over processor time of late.
    load: f64,
    cache: u64,
    /// Places to work in.
    gathered: Vec<Page>,
    tried: Vec<u8>,
}

impl Code for Adaptive {
    type Codec = AdaptiveCodec;
    fn build(self) -> Result<AdaptiveCodec> {
        if self.candidates.is_empty() || self.candidates.len() > MOST_CANDIDATES {
            let count = self.candidates.len();
            return Err(Error::usage(format!(
                "Adaptive: from 1 to {MOST_CANDIDATES} candidates, not {count}"
            )));
        }
        if let Some(inner) = self.candidates.iter().find(|spec| spec.name == "adaptive") {
            return Err(Error::usage(format!("Adaptive: {} is no candidate of itself", inner.name)));
        }
        let candidates: Vec<_> = self.candidates.iter().map(find).collect::<Result<_>>()?;
        if let Some(ordered) = candidates.iter().find(|codec| codec.ordered()) {
            return Err(Error::usage(format!(
                "Adaptive: {} names earlier pages, so it must see all of them and cannot be one of several",
                ordered.name()
            )));
        }
        let names = std::iter::once("raw".to_owned()).chain(self.candidates.iter().map(shown));
        Ok(AdaptiveCodec {
            choice: Choice::new(candidates.len()),
            choices: names.map(|name| (name, 0)).collect(),
            candidates,
            began: None,
            load: 1.0,
            cache: self.cache,
            gathered: Vec::new(),
            tried: Vec::new(),
        })
    }
}

/// A candidate as users write it: `zstd:level=5`.
fn shown(spec: &Spec) -> String {
    let knobs: Vec<String> = spec.knobs.iter().map(|(knob, value)| format!("{knob}={value}")).collect();
    if knobs.is_empty() {
        return spec.name.clone();
    }
    format!("{}:{}", spec.name, knobs.join(","))
}

/// Pages of one kind in a batch.
struct Share<'a> {
    kind: usize,
    pages: &'a [Page],
    bases: &'a [Option<&'a Page>],
}

impl AdaptiveCodec {
    fn candidate(&mut self, index: usize, at: usize) -> Result<&mut dyn Codec> {
        let count = self.candidates.len();
        match index.checked_sub(1).and_then(|index| self.candidates.get_mut(index)) {
            Some(candidate) => Ok(candidate.as_mut()),
            None => Err(Error::stream(at as u64, format!("candidate {index} of {count}"))),
        }
    }

    /// Encodes `share` by `candidate`; how many pages are raw.
    fn encode_by(&mut self, candidate: usize, share: &Share<'_>, out: &mut Vec<u8>) -> usize {
        match candidate.checked_sub(1) {
            None => {
                out.extend_from_slice(share.pages.as_flattened());
                share.pages.len()
            }
            Some(index) => self.candidates[index].encode_batch(share.pages, share.bases, out),
        }
    }

    /// The same, measured. Processor time, and not that of others: but while others hold us up, for longer.
    fn measured(&mut self, candidate: usize, share: &Share<'_>, out: &mut Vec<u8>, trial: bool) -> usize {
        let (at, wall, own) = (out.len(), Instant::now(), thread_seconds());
        let raw = self.encode_by(candidate, share, out);
        let (seconds, elapsed) = (thread_seconds() - own, wall.elapsed().as_secs_f64());
        if seconds > 0.0 {
            self.load = 0.95 * self.load + 0.05 * (elapsed / seconds).clamp(1.0, MOST_LOAD);
        }
        let bytes = out.len() - at;
        self.choice.learn(share.kind, candidate, share.pages.len(), seconds * self.load, bytes, trial);
        raw
    }

    /// Tries what is to be tried on pages of this kind; nothing of it is sent.
    fn try_candidates(&mut self, share: &Share<'_>) {
        let count = share.pages.len().min(TRIAL);
        let few = Share { kind: share.kind, pages: &share.pages[..count], bases: &share.bases[..count] };
        let based = share.bases[0].is_some();
        let mut tried = std::mem::take(&mut self.tried);
        let now = self.began.get_or_insert_with(Instant::now).elapsed().as_secs_f64();
        for _ in 0..self.candidates.len() {
            let fits = |candidate: usize| based || !self.candidates[candidate - 1].needs_base();
            let Some(candidate) = self.choice.trial(share.kind, now, fits) else { break };
            tried.clear();
            self.measured(candidate, &few, &mut tried, true);
        }
        self.tried = tried;
    }

    fn encode_share(&mut self, share: &Share<'_>, out: &mut Vec<u8>) -> usize {
        self.try_candidates(share);
        let candidate = self.choice.best(share.kind, share.pages.len());
        self.choices[candidate].1 += share.pages.len() as u64;
        frame::put_group(out, candidate, |out| self.measured(candidate, share, out, false))
    }
}

impl Codec for AdaptiveCodec {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn needs_base(&self) -> bool {
        self.candidates.iter().any(|codec| codec.needs_base())
    }

    fn cache(&self) -> u64 {
        self.cache
    }

    fn encode(&mut self, page: &Page, base: Option<&Page>, out: &mut Vec<u8>) -> Encoded {
        let at = out.len();
        let share = Share { kind: kind_of(page, base), pages: &[*page], bases: &[base] };
        self.choice.begin();
        self.try_candidates(&share);
        let candidate = self.choice.best(share.kind, 1);
        self.choices[candidate].1 += 1;
        let encoded = match candidate.checked_sub(1) {
            None => Encoded::Raw,
            Some(index) => {
                out.push(candidate as u8);
                self.candidates[index].encode(page, base, out)
            }
        };
        if encoded == Encoded::Raw || out.len() - at >= PAGE {
            out.truncate(at);
            return Encoded::Raw;
        }
        Encoded::Shorter
    }

    fn decode(&mut self, data: &[u8], base: Option<&Page>, page: &mut Page) -> Result<()> {
        let (tag, data) =
            data.split_first().ok_or_else(|| Error::stream(0, "an encoding has at least one byte"))?;
        self.candidate(usize::from(*tag), 0)?.decode(data, base, page).map_err(|e| further(e, 1))
    }

    fn train(&mut self, sample: &[Page]) -> Result<Vec<u8>> {
        chain::train(&mut self.candidates, sample)
    }

    fn adopt(&mut self, learnt: &[u8]) -> Result<()> {
        chain::adopt(&mut self.candidates, learnt)
    }

    fn encode_batch(&mut self, pages: &[Page], bases: &[Option<&Page>], out: &mut Vec<u8>) -> usize {
        self.choice.begin();
        let kinds: Vec<usize> = pages.iter().zip(bases).map(|(page, base)| kind_of(page, *base)).collect();
        let present: Vec<usize> = (0..KINDS).filter(|kind| kinds.contains(kind)).collect();
        let group = |kind: &usize| present.iter().position(|other| other == kind).unwrap_or(0);
        frame::put_groups(out, present.len(), &kinds.iter().map(group).collect::<Vec<_>>());
        if let [kind] = present[..] {
            return self.encode_share(&Share { kind, pages, bases }, out);
        }
        let (mut gathered, mut raw) = (std::mem::take(&mut self.gathered), 0);
        for kind in present {
            let own = || kinds.iter().enumerate().filter(|(_, other)| **other == kind).map(|(page, _)| page);
            gathered.clear();
            gathered.extend(own().map(|page| pages[page]));
            let bases: Vec<_> = own().map(|page| bases[page]).collect();
            raw += self.encode_share(&Share { kind, pages: &gathered, bases: &bases }, out);
        }
        self.gathered = gathered;
        raw
    }

    fn decode_batch(&mut self, data: &[u8], bases: &[Option<&Page>], pages: &mut [Page]) -> Result<()> {
        let (groups, of_page) = frame::parse(data, pages.len())?;
        if groups.is_empty() && !pages.is_empty() {
            return Err(Error::stream(0, format!("no group for {} pages", pages.len())));
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        for (index, group) in groups.iter().enumerate() {
            let own = || of_page.iter().enumerate().filter(|(_, of)| **of == index).map(|(page, _)| page);
            let own_bases: Vec<_> = own().map(|page| bases[page]).collect();
            gathered.resize(own_bases.len(), [0; PAGE]);
            if group.candidate == 0 {
                copy_raw(group, &mut gathered)?;
            } else {
                let candidate = self.candidate(group.candidate, group.at - 5)?;
                let decoded = candidate.decode_batch(group.data, &own_bases, &mut gathered);
                decoded.map_err(|e| further(e, group.at))?;
            }
            own().zip(&gathered).for_each(|(page, bytes)| pages[page] = *bytes);
        }
        self.gathered = gathered;
        Ok(())
    }

    fn told(&mut self, drain: Drain) {
        self.choice.hear(drain);
    }

    fn stands_aside(&mut self, first: &Page, pages: usize) -> bool {
        let aside = self.choice.stands_aside(kind_of(first, None), pages);
        if aside {
            self.choices[0].1 += pages as u64;
        }
        aside
    }

    fn choices(&self) -> Vec<(String, u64)> {
        self.choices.clone()
    }
}

fn copy_raw(group: &frame::Group<'_>, pages: &mut [Page]) -> Result<()> {
    let bytes = pages.as_flattened_mut();
    if group.data.len() != bytes.len() {
        let reason = format!("{} bytes for {} raw pages", group.data.len(), pages.len());
        return Err(Error::stream(group.at as u64, reason));
    }
    bytes.copy_from_slice(group.data);
    Ok(())
}
