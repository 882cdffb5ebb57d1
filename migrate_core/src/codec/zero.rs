//! The zero codec: a page of zeros is a mark, anything else is raw.

use super::{Code, Codec, Encoded, Page};
use crate::error::{Error, Result};

crate::knobs! {
    /// Zero pages are named, not sent; the others are raw.
    pub struct Zero {}
}

/// See [`Zero`].
#[derive(Debug)]
pub struct ZeroCodec;

impl Code for Zero {
    type Codec = ZeroCodec;
    fn build(self) -> Result<ZeroCodec> {
        Ok(ZeroCodec)
    }
}

impl Codec for ZeroCodec {
    fn name(&self) -> &'static str {
        "zero"
    }

    fn encode(&mut self, page: &Page, _base: Option<&Page>, _out: &mut Vec<u8>) -> Encoded {
        match super::is_zero(page) {
            true => Encoded::Shorter,
            false => Encoded::Raw,
        }
    }

    fn decode(&mut self, data: &[u8], _base: Option<&Page>, page: &mut Page) -> Result<()> {
        if !data.is_empty() {
            return Err(Error::stream(0, format!("a zero page has no bytes, not {}", data.len())));
        }
        page.fill(0);
        Ok(())
    }
}
