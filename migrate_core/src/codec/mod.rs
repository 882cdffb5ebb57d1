//! Page codecs: how a page's bytes become fewer.
//!
//! A codec is one file here and one line of [`CODECS`]. Codecs combine by name: `zero+dedup+delta-zstd` is the
//! [`Chain`] that tries each in turn, `delta-lz4` the [`Delta`] whose differences lz4 shortens.
//!
//! # Order
//!
//! Three kinds of context tie a page to others, and each demands an order.
//!
//! * **None** (raw, zero, lz4, zstd): pages may arrive in any order.
//! * **A base** ([`Codec::needs_base`]: xbzrle, delta): the destination must hold the very version that was the
//!   base. Two versions of a page therefore travel on one channel, or with a barrier between rounds; and the
//!   source forgets the cached version of a page that went another way ([`cache::SentPages::forget`]).
//! * **Pages before** ([`Codec::ordered`]: dedup): each channel and direction has a codec of its own, which
//!   meets all pages of the channel in the order in which the other side's meets them. Pages that it neither
//!   encoded nor decoded are handed to [`Codec::pass`].
//!
//! Pages that share content are encoded together by [`Codec::encode_batch`]: the context begins and ends with
//! the batch, so batches stay free to go to any channel.
//!
//! A page that the guest may write meanwhile is copied before it is encoded: a codec reads its input more than once.

use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};

mod adaptive;
mod batch;
pub mod cache;
mod chain;
mod coder;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod dedup;
mod delta;
mod lz4;
mod raw;
pub mod simd;
pub mod xbzrle;
mod zero;
mod zstd;

pub use adaptive::Adaptive;
pub use batch::further;
pub use chain::Chain;
pub use coder::{Coded, Coder, BATCH};
pub use dedup::Dedup;
pub use delta::Delta;
pub use lz4::Lz4;
pub use raw::Raw;
pub use simd::{equal, is_zero};
pub use xbzrle::Xbzrle;
pub use zero::Zero;
pub use zstd::Zstd;

/// The codecs there are.
pub static CODECS: Registry<Make> = Registry {
    kind: "codec",
    entries: &[
        entry::<Raw>("raw"),
        entry::<Zero>("zero"),
        entry::<Xbzrle>("xbzrle"),
        entry::<Lz4>("lz4"),
        entry::<Zstd>("zstd"),
        entry::<Delta>("delta"),
        entry::<Dedup>("dedup"),
        entry::<Chain>("chain"),
        entry::<Adaptive>("adaptive"),
    ],
};

/// A page's bytes.
pub type Page = [u8; PAGE];

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoded {
    /// The encoding was appended to the output; it is shorter than the page.
    Shorter,
    /// Nothing was appended: raw is no longer than the encoding would be.
    Raw,
}

/// Turns pages into bytes and back.
pub trait Codec: Send {
    /// Name in [`CODECS`].
    fn name(&self) -> &'static str;

    /// Whether it gains from a base, so that versions of sent pages are worth keeping.
    fn needs_base(&self) -> bool {
        false
    }

    /// Bytes that the source may take for versions of sent pages, where it [needs a base](Codec::needs_base).
    fn cache(&self) -> u64 {
        0
    }

    /// Bytes of pages before that each side may come to hold; see [`ordered`](Codec::ordered).
    fn window(&self) -> u64 {
        0
    }

    /// Whether encodings refer to pages before, which sets the order in which they are decoded.
    fn ordered(&self) -> bool {
        false
    }

    /// Appends the encoding of `page` to `out`. `base` is what the destination has at that page, for codecs
    /// that send differences; without it they stand alone or answer [`Encoded::Raw`].
    fn encode(&mut self, page: &Page, base: Option<&Page>, out: &mut Vec<u8>) -> Encoded;

    /// Restores a page out of an encoding made with the same `base`. `data` is hostile: whatever it is, the
    /// answer is `page` filled, or [`crate::Error::Stream`] with the offset in `data`; `page` is then
    /// unspecified, and an [`ordered`](Codec::ordered) codec needs a [`reset`](Codec::reset) on both sides.
    fn decode(&mut self, data: &[u8], base: Option<&Page>, page: &mut Page) -> Result<()>;

    /// Takes in a page that passed without it: on the decoding side a raw page, on either side one that
    /// another codec of a chain took. (A page that `encode` left raw has been taken in by then.)
    fn pass(&mut self, _page: &Page) {}

    /// Forgets the pages before; what [`adopt`](Codec::adopt) gave stays.
    fn reset(&mut self) {}

    /// Learns from pages of the guest before the first is sent. The answer, empty where there is nothing to
    /// learn, goes to the destination's codec by [`adopt`](Codec::adopt).
    fn train(&mut self, _sample: &[Page]) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Takes over what the source's codec has learnt. `learnt` is hostile.
    fn adopt(&mut self, learnt: &[u8]) -> Result<()> {
        match learnt.len() {
            0 => Ok(()),
            n => {
                Err(Error::stream(0, format!("{n} bytes of learning for `{}`, which has none", self.name())))
            }
        }
    }

    /// Appends the encoding of pages that travel together, at most [`batch_bound`] bytes. `bases` has one for
    /// each page. The answer is how many of the pages are raw in it.
    fn encode_batch(&mut self, pages: &[Page], bases: &[Option<&Page>], out: &mut Vec<u8>) -> usize {
        batch::encode_each(self, pages, bases, out)
    }

    /// Told before each batch how the link stands, for codecs that go by it.
    fn told(&mut self, _drain: Drain) {}

    /// Whether the next batch, of `pages` pages of which `first` is one, is better sent as it is, without being copied and
    /// without a base for later: where that costs more than any encoding gains.
    fn stands_aside(&mut self, _first: &Page, _pages: usize) -> bool {
        false
    }

    /// The codecs that it chose among, each with the pages that it got since the beginning.
    fn choices(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Restores the pages of a batch, as many as were encoded; hostile input as in [`decode`](Codec::decode).
    fn decode_batch(&mut self, data: &[u8], bases: &[Option<&Page>], pages: &mut [Page]) -> Result<()> {
        batch::decode_each(self, data, bases, pages)
    }
}

/// How the link stands between the encoder and the other side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drain {
    /// Seconds until all that is encoded has been sent, at the pace of late. While this is more than an encoding
    /// takes, the link is the bottleneck and time to encode costs nothing; at 0 the link waits for the encoder.
    pub backlog: f64,
    /// Seconds that sending a byte takes.
    pub per_byte: f64,
}

/// Most bytes of an encoded batch of `pages` pages.
pub fn batch_bound(pages: usize) -> usize {
    pages * (PAGE + batch::HEAD + 1) + 64
}

/// The knobs of a codec, able to make it.
pub trait Code: Knobs {
    /// The codec.
    type Codec: Codec + 'static;

    /// Makes it, with empty context.
    fn build(self) -> Result<Self::Codec>;
}

/// Builds a codec out of knobs.
pub type Make = fn(&Given) -> Result<Box<dyn Codec>>;

/// The registry's line for a codec.
pub const fn entry<C: Code>(name: &'static str) -> Entry<Make> {
    Entry::of::<C>(name, build::<C> as Make)
}

fn build<C: Code>(knobs: &Given) -> Result<Box<dyn Codec>> {
    Ok(Box::new(C::from_knobs(knobs)?.build()?))
}

/// The codec that `spec` names, alone (`zstd`), with what it wraps (`delta-lz4`) or as a chain
/// (`zero+dedup+zstd`). A chain's knobs go to each part that has them.
pub fn find(spec: &Spec) -> Result<Box<dyn Codec>> {
    let spec = chain::expand(spec)?;
    (CODECS.find(&spec.name)?.make)(&spec.knobs)
}
