//! The zstd codec: Zstandard frames with a level, and a dictionary trained on the guest's own pages.

use ::zstd::bulk::{Compressor, Decompressor};

use super::{batch, Code, Codec, Encoded, Page};
use crate::error::{Error, Result};

/// Most bytes of a dictionary: what a peer may make the destination load.
const MOST_DICTIONARY: usize = 1 << 20;

crate::knobs! {
    /// Each page a Zstandard frame. With a dictionary, which is trained on a sample of the guest's pages and sent
    /// ahead, pages that share content with others become far shorter.
    pub struct Zstd {
        /// Effort; negative levels are faster than 1, which is QEMU's default for `multifd-zstd-level`.
        level: i64 [Count, -100.0..=22.0] = 1,
        /// Size of the dictionary to train; 0 for none. A hundredth of the sample's size suits.
        dictionary: u64 [Bytes, 0.0..=1048576.0] = 0,
    }
}

/// See [`Zstd`].
pub struct ZstdCodec {
    knobs: Zstd,
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    room: Vec<u8>,
}

impl Code for Zstd {
    type Codec = ZstdCodec;
    fn build(self) -> Result<ZstdCodec> {
        let failed = |e: std::io::Error| Error::System { what: "making a zstd context".into(), source: e };
        let compressor = Compressor::new(self.level as i32).map_err(failed)?;
        let decompressor = Decompressor::new().map_err(failed)?;
        Ok(ZstdCodec { knobs: self, compressor, decompressor, room: Vec::new() })
    }
}

impl ZstdCodec {
    /// Appends `bytes` as a frame, if it is shorter than they are.
    pub(super) fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Encoded {
        if self.room.len() < bytes.len() {
            self.room.resize(bytes.len(), 0);
        }
        // With less room than the bytes need, the library gives up as soon as there is no gain.
        match self.compressor.compress_to_buffer(bytes, &mut self.room[..bytes.len().saturating_sub(1)]) {
            Ok(used) => {
                out.extend_from_slice(&self.room[..used]);
                Encoded::Shorter
            }
            Err(_) => Encoded::Raw,
        }
    }

    /// Fills `bytes` out of a frame.
    pub(super) fn expand(&mut self, data: &[u8], bytes: &mut [u8]) -> Result<()> {
        // The library does not say where in the frame it stopped: the offset is the frame's.
        let wrong = |what: String| Error::stream(0, format!("a zstd frame of {} bytes: {what}", data.len()));
        match self.decompressor.decompress_to_buffer(data, bytes) {
            Ok(filled) if filled == bytes.len() => Ok(()),
            Ok(filled) => Err(wrong(format!("it holds {filled} bytes, not {}", bytes.len()))),
            Err(e) => Err(wrong(e.to_string())),
        }
    }

    fn load(&mut self, dictionary: &[u8]) -> std::io::Result<()> {
        self.compressor.set_dictionary(self.knobs.level as i32, dictionary)?;
        self.decompressor.set_dictionary(dictionary)
    }
}

impl Codec for ZstdCodec {
    fn name(&self) -> &'static str {
        "zstd"
    }

    fn encode(&mut self, page: &Page, _base: Option<&Page>, out: &mut Vec<u8>) -> Encoded {
        self.compress(page, out)
    }

    fn decode(&mut self, data: &[u8], _base: Option<&Page>, page: &mut Page) -> Result<()> {
        self.expand(data, page)
    }

    /// Trains the dictionary. A sample too small or too uniform to learn from leaves the codec without one.
    fn train(&mut self, sample: &[Page]) -> Result<Vec<u8>> {
        if self.knobs.dictionary == 0 {
            return Ok(Vec::new());
        }
        let sizes = vec![size_of::<Page>(); sample.len()];
        let size = self.knobs.dictionary as usize;
        let learnt = ::zstd::dict::from_continuous(sample.as_flattened(), &sizes, size).unwrap_or_default();
        self.adopt(&learnt)?;
        Ok(learnt)
    }

    fn adopt(&mut self, learnt: &[u8]) -> Result<()> {
        let wrong =
            |what: String| Error::stream(0, format!("a zstd dictionary of {} bytes: {what}", learnt.len()));
        if learnt.len() > MOST_DICTIONARY {
            return Err(wrong(format!("the most is {MOST_DICTIONARY}")));
        }
        self.load(learnt).map_err(|e| wrong(e.to_string()))
    }

    fn encode_batch(&mut self, pages: &[Page], _bases: &[Option<&Page>], out: &mut Vec<u8>) -> usize {
        batch::encode_together(self, pages, out, Self::compress)
    }

    fn decode_batch(&mut self, data: &[u8], bases: &[Option<&Page>], pages: &mut [Page]) -> Result<()> {
        batch::decode_together(self, data, bases, pages, Self::expand)
    }
}
