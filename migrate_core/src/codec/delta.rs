//! The delta codec: the XOR of a page with the version that the destination has, compressed.

use super::lz4::Lz4Codec;
use super::zstd::ZstdCodec;
use super::{Code, Codec, Encoded, Lz4, Page, Zstd};
use crate::error::{Error, Result};

crate::knobs! {
    /// The XOR of a page with the version the destination has, mostly zeros, compressed by another codec. Without a
    /// base the page itself is compressed.
    pub struct Delta {
        /// What compresses: zstd or lz4.
        inner: String [Text] = "zstd",
        /// Effort of zstd; negative levels are faster than 1.
        level: i64 [Count, -100.0..=22.0] = 1,
        /// Memory that a migration's source takes for the versions sent last.
        cache: u64 [Bytes, 65536.0..=1099511627776.0] = 67108864,
    }
}

/// What compresses.
enum Inner {
    Zstd(ZstdCodec),
    Lz4(Lz4Codec),
}

/// See [`Delta`].
pub struct DeltaCodec {
    inner: Inner,
    /// The last difference: a place to work in, filled anew for each page.
    difference: Box<Page>,
    cache: u64,
}

impl Code for Delta {
    type Codec = DeltaCodec;
    fn build(self) -> Result<DeltaCodec> {
        let inner = match self.inner.as_str() {
            "zstd" => Inner::Zstd(Zstd { level: self.level, dictionary: 0 }.build()?),
            "lz4" => Inner::Lz4(Lz4 {}.build()?),
            other => return Err(Error::usage(format!("Delta: inner must be zstd or lz4, not {other}"))),
        };
        Ok(DeltaCodec { inner, difference: Box::new([0; size_of::<Page>()]), cache: self.cache })
    }
}

fn xor(page: &mut Page, base: &Page) {
    page.iter_mut().zip(base).for_each(|(byte, base)| *byte ^= base);
}

impl Codec for DeltaCodec {
    fn name(&self) -> &'static str {
        "delta"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn cache(&self) -> u64 {
        self.cache
    }

    fn encode(&mut self, page: &Page, base: Option<&Page>, out: &mut Vec<u8>) -> Encoded {
        *self.difference = *page;
        if let Some(base) = base {
            xor(&mut self.difference, base);
        }
        match &mut self.inner {
            Inner::Zstd(zstd) => zstd.compress(&self.difference[..], out),
            Inner::Lz4(lz4) => lz4.compress(&self.difference[..], out),
        }
    }

    fn decode(&mut self, data: &[u8], base: Option<&Page>, page: &mut Page) -> Result<()> {
        match &mut self.inner {
            Inner::Zstd(zstd) => zstd.expand(data, page),
            Inner::Lz4(lz4) => lz4.expand(data, page),
        }?;
        if let Some(base) = base {
            xor(page, base);
        }
        Ok(())
    }
}
