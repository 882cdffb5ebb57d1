//! The lz4 codec: LZ4 blocks, fast enough for links of several Gbit/s.

use lz4_flex::block::{compress_into_with_table, decompress_into, get_maximum_output_size, CompressTable};

use super::{batch, Code, Codec, Encoded, Page};
use crate::error::{Error, Result};

crate::knobs! {
    /// Each page an LZ4 block, without frame or length.
    pub struct Lz4 {}
}

/// See [`Lz4`]. Its tables are kept from page to page; no page's content is.
pub struct Lz4Codec {
    table: CompressTable,
    room: Vec<u8>,
}

impl Code for Lz4 {
    type Codec = Lz4Codec;
    fn build(self) -> Result<Lz4Codec> {
        Ok(Lz4Codec { table: CompressTable::default(), room: Vec::new() })
    }
}

impl Lz4Codec {
    /// Appends `bytes` as a block, if it is shorter than they are.
    pub(super) fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Encoded {
        let most = get_maximum_output_size(bytes.len());
        if self.room.len() < most {
            self.room.resize(most, 0);
        }
        match compress_into_with_table(bytes, &mut self.room, &mut self.table) {
            Ok(used) if used < bytes.len() => {
                out.extend_from_slice(&self.room[..used]);
                Encoded::Shorter
            }
            _ => Encoded::Raw,
        }
    }

    /// Fills `bytes` out of a block.
    pub(super) fn expand(&mut self, data: &[u8], bytes: &mut [u8]) -> Result<()> {
        // The library does not say where in the block it stopped: the offset is the block's.
        let wrong = |what: String| Error::stream(0, format!("an LZ4 block of {} bytes: {what}", data.len()));
        match decompress_into(data, bytes) {
            Ok(filled) if filled == bytes.len() => Ok(()),
            Ok(filled) => Err(wrong(format!("it holds {filled} bytes, not {}", bytes.len()))),
            Err(e) => Err(wrong(e.to_string())),
        }
    }
}

impl Codec for Lz4Codec {
    fn name(&self) -> &'static str {
        "lz4"
    }

    fn encode(&mut self, page: &Page, _base: Option<&Page>, out: &mut Vec<u8>) -> Encoded {
        self.compress(page, out)
    }

    fn decode(&mut self, data: &[u8], _base: Option<&Page>, page: &mut Page) -> Result<()> {
        self.expand(data, page)
    }

    fn encode_batch(&mut self, pages: &[Page], _bases: &[Option<&Page>], out: &mut Vec<u8>) -> usize {
        batch::encode_together(self, pages, out, Self::compress)
    }

    fn decode_batch(&mut self, data: &[u8], bases: &[Option<&Page>], pages: &mut [Page]) -> Result<()> {
        batch::decode_together(self, data, bases, pages, Self::expand)
    }
}
