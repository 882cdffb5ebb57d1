//! What a write puts into a page, and what memory holds when a guest is made.
//!
//! A content is one variant of [`Content`] and one line of [`CONTENTS`]. Its bytes are a function of the
//! random stream it is given: equal seeds give equal memory.

use std::sync::OnceLock;

use rand::{Rng, RngExt};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::block::PAGE;
use super::memory::GuestMemory;
use super::random::{scramble, stream};
use super::region::Region;
use crate::error::{Error, Result};
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};

/// The contents there are.
pub static CONTENTS: Registry<fn(&Given) -> Result<Content>> = Registry {
    kind: "content",
    entries: &[
        Entry::of::<Zero>("zero", |given| Ok(Content::Zero(Zero::from_knobs(given)?))),
        Entry::of::<Counter>("counter", |given| Ok(Content::Counter(Counter::from_knobs(given)?))),
        Entry::of::<Text>("text", |given| Ok(Content::Text(Text::from_knobs(given)?))),
        Entry::of::<Random>("random", |given| Ok(Content::Random(Random::from_knobs(given)?))),
        Entry::of::<Mix>("mix", |given| Ok(Content::Mix(Mix::from_knobs(given)?))),
        Entry::of::<Image>("image", Image::make),
    ],
};

crate::knobs! {
    /// Zeros: pages that a guest clears.
    pub struct Zero {}
}

crate::knobs! {
    /// A few 8-byte counters are incremented and the rest of the page stays: sub-page edits.
    pub struct Counter {
        /// Counters that a write of a page increments. Each page has its own, always the same ones.
        edits: u64 [Count, 1.0..=512.0] = 4,
    }
}

crate::knobs! {
    /// Words of a small vocabulary, frequent and rare ones; a page shrinks 2.5 to 3 times under zstd 1.
    pub struct Text {}
}

crate::knobs! {
    /// Random bytes, which no codec makes fewer.
    pub struct Random {}
}

crate::knobs! {
    /// One word over and over, then random bytes: compresses to about the share of random bytes.
    pub struct Mix {
        /// Share of incompressible bytes.
        incompressible: f64 [Ratio, 0.0..=1.0] = 0.4,
    }
}

crate::knobs! {
    /// Pages of several kinds, as in the memory of a machine in use: zero, text, random, and else `mix`.
    /// What memory is filled with when a guest is made, unless told otherwise.
    pub struct Image {
        /// Share of zero pages.
        zero_share: f64 [Ratio, 0.0..=1.0] = 0.25,
        /// Share of text-like pages.
        text_share: f64 [Ratio, 0.0..=1.0] = 0.25,
        /// Share of random pages.
        random_share: f64 [Ratio, 0.0..=1.0] = 0.1,
        /// Share of incompressible bytes in the pages that remain.
        incompressible: f64 [Ratio, 0.0..=1.0] = 0.4,
    }
}

/// A content with its knobs set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// See [`Zero`].
    Zero(Zero),
    /// See [`Counter`].
    Counter(Counter),
    /// See [`Text`].
    Text(Text),
    /// See [`Random`].
    Random(Random),
    /// See [`Mix`].
    Mix(Mix),
    /// See [`Image`].
    Image(Image),
}

impl Content {
    /// The content that `spec` names.
    pub fn find(spec: &Spec) -> Result<Self> {
        (CONTENTS.find(&spec.name)?.make)(&spec.knobs)
    }

    /// Turns what `bytes` hold into what they hold after a write.
    pub fn apply(&self, bytes: &mut [u8], random: &mut Pcg64Mcg) {
        match self {
            Self::Zero(_) => bytes.fill(0),
            Self::Counter(counter) => counter.apply(bytes),
            Self::Text(_) => write_text(bytes, random),
            Self::Random(_) => random.fill_bytes(bytes),
            Self::Mix(mix) => write_mix(mix.incompressible, bytes, random),
            Self::Image(image) => image.apply(bytes, random),
        }
    }

    /// Writes `page` of `ram`.
    pub fn write_page(&self, ram: &Region, page: u64, random: &mut Pcg64Mcg) {
        let at = page * PAGE as u64;
        if let Self::Counter(counter) = self {
            for word in counter.words(PAGE / 8, page) {
                let word = at + word as u64 * 8;
                ram.write_u64(word, ram.read_u64(word).wrapping_add(1));
            }
            return;
        }
        let mut bytes = [0; PAGE];
        self.apply(&mut bytes, random);
        ram.write(at, &bytes);
    }
}

impl Counter {
    /// The words that are counters, out of `words`; `place` makes them differ from page to page.
    fn words(&self, words: usize, place: u64) -> impl Iterator<Item = usize> {
        let (first, words) = (scramble(place) as usize % words.max(1), words as u64);
        let edits = self.edits.min(words);
        (0..edits).map(move |i| (first + (i * words / edits) as usize) % words as usize)
    }

    fn apply(&self, bytes: &mut [u8]) {
        for word in self.words(bytes.len() / 8, 0) {
            let counter = &mut bytes[word * 8..][..8];
            let mut value = [0; 8];
            value.copy_from_slice(counter);
            counter.copy_from_slice(&u64::from_le_bytes(value).wrapping_add(1).to_le_bytes());
        }
    }
}

impl Image {
    fn make(given: &Given) -> Result<Content> {
        let image = Self::from_knobs(given)?;
        let sum = image.zero_share + image.text_share + image.random_share;
        if sum > 1.0 + 1e-9 {
            return Err(Error::usage(format!(
                "Image: zero_share, text_share and random_share must add up to 1 at most, not {sum}"
            )));
        }
        Ok(Content::Image(image))
    }

    fn apply(&self, bytes: &mut [u8], random: &mut Pcg64Mcg) {
        let draw: f64 = random.random();
        let (zero, text) = (self.zero_share, self.zero_share + self.text_share);
        match draw {
            x if x < zero => bytes.fill(0),
            x if x < text => write_text(bytes, random),
            x if x < text + self.random_share => random.fill_bytes(bytes),
            _ => write_mix(self.incompressible, bytes, random),
        }
    }
}

fn write_mix(incompressible: f64, bytes: &mut [u8], random: &mut Pcg64Mcg) {
    let cut = (bytes.len() as f64 * (1.0 - incompressible)).round() as usize;
    // Noise last: codecs that skip faster the longer they find nothing would step over the filler's start.
    let (filler, noise) = bytes.split_at_mut(cut.min(bytes.len()));
    random.fill_bytes(noise);
    let word = random.next_u64().to_le_bytes();
    filler.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&word[..chunk.len()]));
}

/// Words of the vocabulary: more of them make text less compressible.
const WORDS: usize = 1 << 7;

/// A word of at most 6 letters and a space, as the bytes of a little-endian integer; and their number.
type Word = (u64, usize);

fn vocabulary() -> &'static [Word] {
    static WORDS_OF_TEXT: OnceLock<Vec<Word>> = OnceLock::new();
    WORDS_OF_TEXT.get_or_init(|| (0..WORDS as u64).map(word).collect())
}

/// Letters as frequent as in English, roughly.
fn word(index: u64) -> Word {
    const LETTERS: &[u8; 32] = b"eeeetttaaaooiinnsshhrrddlucmfwyg";
    let bits = scramble(index);
    // Frequent words are short.
    let letters = 2 + (bits >> 60) as usize % 4 + usize::from(index > 40);
    let mut bytes = [0; 8];
    for (i, byte) in bytes.iter_mut().take(letters).enumerate() {
        *byte = LETTERS[(bits >> (5 * i)) as usize % LETTERS.len()];
    }
    bytes[letters] = b' ';
    (u64::from_le_bytes(bytes), letters + 1)
}

fn write_text(bytes: &mut [u8], random: &mut Pcg64Mcg) {
    let words = vocabulary();
    let mut at = 0;
    while at + 16 <= bytes.len() {
        let draw = random.next_u64();
        for half in [draw, draw >> 32] {
            // The product of two draws prefers small numbers: few words are frequent, most are rare.
            let index = ((half & 0xffff) * (half >> 16 & 0xffff)) >> (32 - WORDS.ilog2());
            let (word, len) = words[index as usize];
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            at += len;
        }
    }
    bytes[at..].fill(b'.');
}

/// What memory is filled with unless told otherwise.
pub fn default_fill() -> Spec {
    Spec::new("image")
}

/// Fills all of `memory` with the content that `spec` names. Each page has a stream of its own out of
/// `seed`, so that several threads give the same memory as one.
pub fn fill(memory: &GuestMemory, spec: &Spec, seed: u64) -> Result<()> {
    let content = Content::find(spec)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8) as u64;
    let share = memory.pages().div_ceil(threads).max(256);
    std::thread::scope(|scope| {
        for first in (0..memory.pages()).step_by(share as usize) {
            let (content, end) = (&content, memory.pages().min(first + share));
            scope.spawn(move || (first..end).for_each(|page| fill_page(memory, page, content, seed)));
        }
    });
    Ok(())
}

fn fill_page(memory: &GuestMemory, page: u64, content: &Content, seed: u64) {
    let mut bytes = [0; PAGE];
    content.apply(&mut bytes, &mut stream(seed, page));
    // The last byte of a page that is not zero is not zero, except by chance.
    match bytes[PAGE - 1] == 0 && bytes.iter().all(|byte| *byte == 0) {
        true => memory.place_zero(page),
        false => memory.place_page(page, &bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Layout;

    fn compressed(spec: &Spec, pages: u64) -> f64 {
        let content = Content::find(spec).unwrap();
        let sizes = (0..pages).map(|page| {
            let mut bytes = [0; PAGE];
            content.apply(&mut bytes, &mut stream(5, page));
            zstd::bulk::compress(&bytes, 1).unwrap().len()
        });
        sizes.sum::<usize>() as f64 / (pages as usize * PAGE) as f64
    }

    #[test]
    fn text_shrinks_as_text_does() {
        let ratio = 1.0 / compressed(&Spec::new("text"), 200);
        assert!((2.5..3.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_mix_shrinks_to_its_share_of_incompressible_bytes() {
        for share in [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0] {
            let got = compressed(&Spec::new("mix").with("incompressible", share), 50);
            assert!((got - share).abs() < 0.02, "{share}: {got}");
        }
        assert!(compressed(&Spec::new("random"), 50) > 0.99);
    }

    #[test]
    fn filling_is_a_function_of_the_seed() {
        let filled = |seed| {
            let memory = GuestMemory::new(&Layout::single(4 << 20)).unwrap();
            fill(&memory, &default_fill(), seed).unwrap();
            memory
        };
        let (a, b, c) = (filled(7), filled(7), filled(8));
        assert!((0..a.pages()).all(|page| a.hash_page(page) == b.hash_page(page)));
        assert!((0..a.pages()).any(|page| a.hash_page(page) != c.hash_page(page)));
        let zeros = (0..a.pages()).filter(|page| a.is_zero(*page)).count() as f64 / a.pages() as f64;
        assert!((zeros - 0.25).abs() < 0.05, "{zeros}");
    }

    #[test]
    fn filling_is_the_same_by_one_page_and_by_many_threads() {
        let (memory, seed) = (GuestMemory::new(&Layout::single(4 << 20)).unwrap(), 3);
        fill(&memory, &Spec::new("random"), seed).unwrap();
        for page in [0, 255, 256, 511, 512, 1023] {
            let (mut bytes, mut back) = ([0; PAGE], [0; PAGE]);
            Content::find(&Spec::new("random")).unwrap().apply(&mut bytes, &mut stream(seed, page));
            memory.read_page(page, &mut back);
            assert_eq!(bytes, back, "page {page}");
        }
    }

    #[test]
    fn counters_edit_few_bytes_and_go_on_counting() {
        let memory = std::sync::Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        let (ram, content) =
            (Region::whole(&memory), Content::find(&Spec::new("counter").with("edits", 3)).unwrap());
        for _ in 0..300 {
            content.write_page(&ram, 9, &mut stream(1, 1));
        }
        let words: Vec<u64> = (0..512).map(|i| ram.read_u64(9 * 4096 + i * 8)).collect();
        assert_eq!(words.iter().filter(|word| **word == 300).count(), 3);
        assert_eq!(words.iter().filter(|word| **word == 0).count(), 509);
        let mut short = [0xff; 17];
        content.apply(&mut short, &mut stream(1, 1));
        assert_eq!(short, [&[0; 16][..], &[0xff]].concat()[..]);
    }

    #[test]
    fn every_content_takes_any_length() {
        for entry in CONTENTS.entries {
            let content = Content::find(&Spec::new(entry.name)).unwrap();
            for len in [0, 1, 7, 8, 15, 16, 17, 100, 4095, 5000] {
                content.apply(&mut vec![0; len], &mut stream(len as u64, 0));
            }
        }
    }

    #[test]
    fn shares_beyond_the_whole_are_refused() {
        let spec = Spec::new("image").with("zero_share", 0.7).with("text_share", 0.7);
        assert!(Content::find(&spec).unwrap_err().to_string().contains("add up"));
        assert!(Content::find(&Spec::new("txt")).unwrap_err().to_string().contains("`text`"));
    }
}
