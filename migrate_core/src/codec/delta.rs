//! The delta codec: the XOR of a page with the version that the destination has, compressed.

use super::lz4::Lz4Codec;
use super::zstd::ZstdCodec;
use super::{batch, Code, Codec, Encoded, Lz4, Page, Zstd};
use crate::error::{Error, Result};

crate::knobs! {
    /// The XOR of a page with the version the destination has, mostly zeros, compressed by another codec. Without a
    /// base the page itself is compressed. The differences of a batch are compressed together.
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
    /// Differences: a place to work in, filled anew for each page or batch.
    differences: Vec<Page>,
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
        Ok(DeltaCodec { inner, differences: Vec::new(), cache: self.cache })
    }
}

fn xor(page: &mut Page, base: Option<&Page>) {
    if let Some(base) = base {
        page.iter_mut().zip(base).for_each(|(byte, base)| *byte ^= base);
    }
}

impl DeltaCodec {
    /// Makes the differences of `pages` to their bases.
    fn subtract(&mut self, pages: &[Page], bases: &[Option<&Page>]) {
        self.differences.clear();
        self.differences.extend_from_slice(pages);
        self.differences.iter_mut().zip(bases).for_each(|(page, base)| xor(page, *base));
    }

    fn compress(&mut self, out: &mut Vec<u8>) -> Encoded {
        let bytes = self.differences.as_flattened();
        match &mut self.inner {
            Inner::Zstd(zstd) => zstd.compress(bytes, out),
            Inner::Lz4(lz4) => lz4.compress(bytes, out),
        }
    }

    fn expand(&mut self, data: &[u8], bytes: &mut [u8]) -> Result<()> {
        match &mut self.inner {
            Inner::Zstd(zstd) => zstd.expand(data, bytes),
            Inner::Lz4(lz4) => lz4.expand(data, bytes),
        }
    }
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
        self.subtract(std::slice::from_ref(page), &[base]);
        self.compress(out)
    }

    fn decode(&mut self, data: &[u8], base: Option<&Page>, page: &mut Page) -> Result<()> {
        self.expand(data, page)?;
        xor(page, base);
        Ok(())
    }

    fn encode_batch(&mut self, pages: &[Page], bases: &[Option<&Page>], out: &mut Vec<u8>) -> usize {
        batch::encode_together(self, pages, out, |codec, _, out| {
            codec.subtract(pages, bases);
            codec.compress(out)
        })
    }

    fn decode_batch(&mut self, data: &[u8], bases: &[Option<&Page>], pages: &mut [Page]) -> Result<()> {
        batch::decode_together(self, data, bases, pages, |codec, piece, bytes| {
            codec.expand(piece, bytes)?;
            let pages = bytes.as_chunks_mut().0;
            pages.iter_mut().zip(bases).for_each(|(page, base)| xor(page, *base));
            Ok(())
        })
    }
}
