//! Page codecs: how a page's bytes become fewer.
//!
//! A codec is one file here and one line of [`CODECS`].

use crate::error::Result;
use crate::guest::PAGE;
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};

mod raw;
pub mod simd;
pub mod xbzrle;
mod zero;

pub use raw::Raw;
pub use simd::{equal, is_zero};
pub use xbzrle::Xbzrle;
pub use zero::Zero;

/// The codecs there are.
pub static CODECS: Registry<Make> = Registry {
    kind: "codec",
    entries: &[entry::<Raw>("raw"), entry::<Zero>("zero"), entry::<Xbzrle>("xbzrle")],
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

    /// Appends the encoding of `page` to `out`. `base` is what the destination has at that page, for codecs
    /// that send differences; without it they stand alone or answer [`Encoded::Raw`].
    fn encode(&mut self, page: &Page, base: Option<&Page>, out: &mut Vec<u8>) -> Encoded;

    /// Restores a page out of an encoding made with the same `base`. `data` is hostile: whatever it is, the
    /// answer is `page` filled, or [`crate::Error::Stream`] with the offset in `data`.
    fn decode(&mut self, data: &[u8], base: Option<&Page>, page: &mut Page) -> Result<()>;
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

/// The codec that `spec` names.
pub fn find(spec: &Spec) -> Result<Box<dyn Codec>> {
    (CODECS.find(&spec.name)?.make)(&spec.knobs)
}
