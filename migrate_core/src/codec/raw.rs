//! The raw codec: pages as they are.

use super::{Code, Codec, Encoded, Page};
use crate::error::{Error, Result};

crate::knobs! {
    /// Pages as they are, zero pages included: the plain case that others are measured against.
    pub struct Raw {}
}

/// See [`Raw`].
#[derive(Debug)]
pub struct RawCodec;

impl Code for Raw {
    type Codec = RawCodec;
    fn build(self) -> Result<RawCodec> {
        Ok(RawCodec)
    }
}

impl Codec for RawCodec {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn encode(&mut self, _page: &Page, _base: Option<&Page>, _out: &mut Vec<u8>) -> Encoded {
        Encoded::Raw
    }

    fn decode(&mut self, data: &[u8], _base: Option<&Page>, page: &mut Page) -> Result<()> {
        let bytes: &Page = data.try_into().map_err(|_| {
            Error::stream(0, format!("a raw page has {} bytes, not {}", page.len(), data.len()))
        })?;
        *page = *bytes;
        Ok(())
    }
}
