//! Both ends of a lane without a link between them, and what each does timed.

use std::ops::Range;

use super::figures::{Facts, Tally};
use super::{Baking, PageSet};
use crate::codec::{find, is_zero, Codec, Coder, Drain, Encoded, Page, BATCH};
use crate::error::{Error, Result};
use crate::guest::{thread_seconds, PAGE};
use crate::knobs::Spec;

/// Pages that a codec learns from, where it does: as many as in a migration.
const SAMPLE: usize = 256;

/// Seconds a byte of a link of which nothing is said: 1 Gbit/s.
const LINK: f64 = 8e-9;

/// A lane.
pub struct Lane<'a> {
    set: &'a PageSet,
    name: String,
    find_zeros: bool,
    ends: Option<Ends>,
    round: u32,
    learnt_bytes: u64,
    drain: Drain,
    together: bool,
}

/// A codec at either end, and places to work in.
struct Ends {
    source: Coder,
    destination: Box<dyn Codec>,
    counts_found: bool,
    numbers: Vec<u64>,
    pages: Vec<Page>,
    batch: Batch,
    bases: Vec<Page>,
    restored: Vec<Page>,
}

/// Pages on their way.
#[derive(Default)]
struct Batch {
    data: Vec<u8>,
    based: Vec<bool>,
    raw: u64,
    /// Where each page's encoding ends, for pages that were encoded by themselves; a page left raw has none of its own.
    ends: Vec<(usize, Encoded)>,
}

impl<'a> Lane<'a> {
    /// For the codec that `spec` names, with empty context at both ends.
    pub fn new(set: &'a PageSet, spec: &Spec, how: &Baking) -> Result<Self> {
        // What is wrong with the spec is said for these two as well.
        let codec = find(spec)?;
        let plain = spec.name == "raw" || spec.name == "zero";
        let mut learnt_bytes = 0;
        let ends = if plain { None } else { Some(Ends::new(set, spec, codec, &mut learnt_bytes)?) };
        let per_byte = how.link.map_or(LINK, |link| 1.0 / link);
        Ok(Self {
            set,
            name: spec.name.clone(),
            find_zeros: spec.name != "raw",
            ends,
            round: 0,
            learnt_bytes,
            drain: Drain { backlog: 0.0, per_byte },
            together: how.together,
        })
    }

    /// Sends a batch of the set from end to end.
    pub fn take(&mut self, batch: Range<usize>) -> Result<Tally> {
        let versions = &self.set.versions()[batch.clone()];
        while self.round < versions[0].round {
            self.round += 1;
            self.ends.iter_mut().for_each(|ends| ends.source.next_round());
        }
        let mut tally = match &mut self.ends {
            None => plain(&self.set.contents()[batch], self.find_zeros),
            Some(ends) => {
                ends.source.codec().told(self.drain);
                ends.take(self.set, batch, self.together).map_err(|e| blame(e, &self.name))?
            }
        };
        tally.pages = versions.len() as u64;
        // What the link still has to do when the next batch is begun.
        self.drain.backlog =
            (self.drain.backlog - tally.encode).max(0.0) + tally.bytes as f64 * self.drain.per_byte;
        Ok(tally)
    }

    /// What is known at the end.
    pub fn finish(self) -> Facts {
        let Some(mut ends) = self.ends else { return Facts::default() };
        let codec = ends.source.codec();
        let (window, choices) = (codec.window(), codec.choices());
        Facts {
            looks_back: codec.needs_base() || ends.counts_found,
            learnt_bytes: self.learnt_bytes,
            held_bytes: ends.source.cache_bytes() + window,
            choices,
        }
    }
}

/// A decoder that refuses what its encoder wrote is at fault, not the bytes.
fn blame(error: Error, codec: &str) -> Error {
    match error {
        Error::Stream { .. } => {
            Error::Verification(format!("`{codec}` cannot decode what it encoded: {error}"))
        }
        other => other,
    }
}

/// Pages that go straight from memory to memory.
fn plain(pages: &[Page], find_zeros: bool) -> Tally {
    let began = thread_seconds();
    let zero = if find_zeros { pages.iter().filter(|page| is_zero(page)).count() as u64 } else { 0 };
    let encode = if find_zeros { thread_seconds() - began } else { 0.0 };
    let raw = pages.len() as u64 - zero;
    Tally { zero, raw, bytes: raw * PAGE as u64, encode, ..Tally::default() }
}

impl Ends {
    fn new(
        set: &PageSet,
        spec: &Spec,
        mut destination: Box<dyn Codec>,
        learnt_bytes: &mut u64,
    ) -> Result<Self> {
        let mut source = Coder::new(spec, 1, set.pages())?;
        let step = (set.contents().len() / SAMPLE).max(1);
        let sample: Vec<Page> =
            set.contents().iter().step_by(step).filter(|page| !is_zero(page)).copied().collect();
        let learnt = source.codec().train(&sample)?;
        destination.adopt(&learnt)?;
        *learnt_bytes = learnt.len() as u64;
        Ok(Self {
            counts_found: source.codec().name() == "dedup",
            source,
            destination,
            numbers: Vec::with_capacity(BATCH),
            pages: vec![[0; PAGE]; BATCH],
            batch: Batch::default(),
            bases: Vec::with_capacity(BATCH),
            restored: vec![[0; PAGE]; BATCH],
        })
    }

    fn take(&mut self, set: &PageSet, range: Range<usize>, together: bool) -> Result<Tally> {
        let (all, before) = (range.len() as u64, self.source.stats());
        let began = thread_seconds();
        let first = range.start;
        if together && self.source.codec().stands_aside(&set.contents()[first], range.len()) {
            let pages = range.clone();
            pages.for_each(|index| self.source.forget(set.versions()[index].page));
            let encode = thread_seconds() - began;
            return Ok(Tally { raw: all, bytes: all * PAGE as u64, encode, ..Tally::default() });
        }
        let sent = self.gather(set, range);
        self.encode(together);
        let encoded = thread_seconds();
        self.decode(set, &sent, together)?;
        let decoded = thread_seconds();
        if self.restored[..sent.len()] != self.pages[..sent.len()] {
            return Err(Error::Verification(
                "a page that was decoded is not the one that was encoded".into(),
            ));
        }
        let stats = self.source.stats();
        let (mut hits, mut asked) = (stats.hits - before.hits, stats.hits + stats.misses);
        asked -= before.hits + before.misses;
        if self.counts_found {
            (hits, asked) = (sent.len() as u64 - self.batch.raw, sent.len() as u64);
        }
        Ok(Tally {
            pages: all,
            zero: all - sent.len() as u64,
            raw: self.batch.raw,
            bytes: self.batch.data.len() as u64,
            encode: encoded - began,
            decode: decoded - encoded,
            hits,
            asked,
        })
    }

    /// Copies pages out, but for those of zeros; the versions that were copied.
    fn gather(&mut self, set: &PageSet, range: Range<usize>) -> Vec<usize> {
        self.numbers.clear();
        let mut sent = Vec::with_capacity(range.len());
        for index in range {
            let (place, page) = (&mut self.pages[sent.len()], set.versions()[index].page);
            *place = set.contents()[index];
            if is_zero(place) {
                self.source.pass_zero(page);
                self.destination.pass(place);
                continue;
            }
            self.numbers.push(page);
            sent.push(index);
        }
        sent
    }

    fn encode(&mut self, together: bool) {
        let (batch, pages) = (&mut self.batch, &self.pages[..self.numbers.len()]);
        batch.data.clear();
        batch.based.clear();
        batch.ends.clear();
        batch.raw = 0;
        if together {
            if !pages.is_empty() {
                let coded = self.source.encode(&self.numbers, pages, &mut batch.data);
                (batch.raw, batch.based) = (coded.raw_pages, coded.based);
            }
            return;
        }
        for (number, page) in self.numbers.iter().zip(pages) {
            let (encoded, based) = self.source.encode_alone(*number, page, &mut batch.data);
            if encoded == Encoded::Raw {
                batch.data.extend_from_slice(page);
                batch.raw += 1;
            }
            batch.based.push(based);
            batch.ends.push((batch.data.len(), encoded));
        }
    }

    /// Restores what was sent into `restored`, out of what the destination has: the version before each.
    fn decode(&mut self, set: &PageSet, sent: &[usize], together: bool) -> Result<()> {
        self.bases.clear();
        for (index, _) in sent.iter().zip(&self.batch.based).filter(|(_, based)| **based) {
            let before = set.versions()[*index].before;
            let before = before.ok_or_else(|| Error::Verification("a base that was never sent".into()))?;
            self.bases.push(set.contents()[before]);
        }
        let mut next = self.bases.iter();
        let bases: Vec<Option<&Page>> =
            self.batch.based.iter().map(|based| based.then(|| next.next()).flatten()).collect();
        let restored = &mut self.restored[..sent.len()];
        if together {
            return match sent.is_empty() {
                true => Ok(()),
                false => self.destination.decode_batch(&self.batch.data, &bases, restored),
            };
        }
        let mut from = 0;
        for ((page, base), (end, encoded)) in restored.iter_mut().zip(bases).zip(&self.batch.ends) {
            let data = &self.batch.data[from..*end];
            from = *end;
            match encoded {
                Encoded::Shorter => self.destination.decode(data, base, page)?,
                Encoded::Raw => {
                    page.copy_from_slice(data);
                    self.destination.pass(page);
                }
            }
        }
        Ok(())
    }
}
