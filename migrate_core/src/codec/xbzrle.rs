//! The XBZRLE codec: what changed since the version that the destination has, as QEMU writes it.
//!
//! Bit-exact, so that streams of the two are interchangeable (QEMU, `migration/xbzrle.c`): runs are maximal,
//! byte by byte; changed runs carry the bytes of the page itself, not the XOR; a page that does not fit a
//! page's room overflows. QEMU sends nothing for an unchanged page; here its encoding is empty.

use super::simd::{Kernels, Room};
use super::{Code, Codec, Encoded, Page};
use crate::error::{Error, Result};
use crate::guest::PAGE;

crate::knobs! {
    /// Runs of bytes changed since the version the destination has, in QEMU's XBZRLE encoding; raw without a base.
    pub struct Xbzrle {
        /// Memory that a migration's source takes for the versions sent last; QEMU's `xbzrle-cache-size`.
        cache: u64 [Bytes, 65536.0..=1099511627776.0] = 67108864,
    }
}

/// See [`Xbzrle`].
pub struct XbzrleCodec {
    kernels: &'static Kernels,
    room: Box<Room>,
    cache: u64,
}

impl Code for Xbzrle {
    type Codec = XbzrleCodec;
    fn build(self) -> Result<XbzrleCodec> {
        Ok(XbzrleCodec { kernels: Kernels::best(), room: Room::new(), cache: self.cache })
    }
}

impl Codec for XbzrleCodec {
    fn name(&self) -> &'static str {
        "xbzrle"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn cache(&self) -> u64 {
        self.cache
    }

    fn encode(&mut self, page: &Page, base: Option<&Page>, out: &mut Vec<u8>) -> Encoded {
        // QEMU also sends an encoding of exactly a page's length; raw is as short, and needs no base.
        match base.and_then(|base| self.kernels.encode(base, page, &mut self.room)) {
            Some(used) if used < PAGE => {
                out.extend_from_slice(self.room.bytes(used));
                Encoded::Shorter
            }
            _ => Encoded::Raw,
        }
    }

    fn decode(&mut self, data: &[u8], base: Option<&Page>, page: &mut Page) -> Result<()> {
        let base =
            base.ok_or_else(|| Error::stream(0, "XBZRLE data for a page without an earlier version"))?;
        *page = *base;
        apply(data, page)
    }
}

/// Applies XBZRLE data in place, to the version that it was made against, refusing what QEMU's loader refuses.
/// After an error the page is partly changed.
pub fn apply(data: &[u8], page: &mut Page) -> Result<()> {
    Kernels::best().apply(data, page).map_err(|e| Error::stream(e.at as u64, e.what))
}

#[cfg(test)]
mod tests;
