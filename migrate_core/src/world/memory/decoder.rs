//! The decoder of a channel: the other half of a lane's encoder.

use xxhash_rust::xxh3::xxh3_64;

use crate::bitmap::Run;
use crate::codec::{self, further, Codec, Page};
use crate::error::{Error, Result};
use crate::guest::{thread_seconds, GuestMemory, PAGE};
use crate::knobs::Spec;
use crate::link::Stream;
use crate::wire::{Encoding, Reader};

/// Memory that codecs may take here at least, however small the guest.
const LEAST_WINDOW: u64 = 1 << 30;

/// Restores the pages of a channel.
pub(super) struct Decoder {
    codec: Box<dyn Codec>,
    data: Vec<u8>,
    bases: Vec<Page>,
    pages: Vec<Page>,
    seconds: f64,
}

/// A decoder for each channel, or none of them where pages come as they are. The codec is the peer's choice:
/// it is refused where it is not known, or would take more memory than the guest.
pub(super) fn decoders(
    spec: Option<&Spec>,
    channels: usize,
    memory: &GuestMemory,
) -> Result<Vec<Option<Decoder>>> {
    let make = |_| spec.map(Decoder::new).transpose();
    let decoders: Vec<_> = (0..channels).map(make).collect::<Result<_>>()?;
    let window: u64 = decoders.iter().flatten().map(|decoder: &Decoder| decoder.codec.window()).sum();
    let most = memory.bytes().max(LEAST_WINDOW);
    if window > most {
        return Err(Error::usage(format!(
            "the codec keeps {window} bytes over {channels} channels; the most is {most}: use a smaller window"
        )));
    }
    Ok(decoders)
}

impl Decoder {
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        let (data, bases, pages) = Default::default();
        Ok(Self { codec: codec::find(spec)?, data, bases, pages, seconds: 0.0 })
    }

    /// Seconds of processor time spent so far.
    pub(super) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Takes over what the source's codec has learnt.
    pub(super) fn adopt(&mut self, learnt: &[u8]) -> Result<()> {
        self.codec.adopt(learnt)
    }

    /// Takes note of pages that came as zeros, which a codec that looks back must know of.
    pub(super) fn passed_zeros(&mut self, runs: &[Run]) {
        if self.codec.ordered() {
            runs.iter().flat_map(Run::range).for_each(|_| self.codec.pass(&[0; PAGE]));
        }
    }

    /// Reads the encoding behind a section, and places its pages.
    pub(super) fn take(
        &mut self,
        input: &mut Reader<Stream>,
        memory: &GuestMemory,
        encoding: &Encoding,
    ) -> Result<()> {
        let at = input.read_encoding(encoding, &mut self.data)?;
        let began = thread_seconds();
        self.restore(memory, encoding).map_err(|error| further(error, at as usize))?;
        self.seconds += thread_seconds() - began;
        Ok(())
    }

    fn restore(&mut self, memory: &GuestMemory, encoding: &Encoding) -> Result<()> {
        self.bases.clear();
        for (page, based) in encoding.runs.iter().flat_map(Run::range).zip(&encoding.based) {
            if *based {
                let mut base = [0; PAGE];
                memory.read_page(page, &mut base);
                self.bases.push(base);
            }
        }
        let mut next = self.bases.iter();
        let mut bases: Vec<Option<&Page>> =
            encoding.based.iter().map(|based| based.then(|| next.next()).flatten()).collect();
        bases.resize(encoding.pages(), None);
        self.pages.resize(encoding.pages(), [0; PAGE]);
        self.codec.decode_batch(&self.data, &bases, &mut self.pages)?;
        if xxh3_64(self.pages.as_flattened()) != encoding.hash {
            return Err(out_of_step(encoding, self.codec.name()));
        }
        let pages = encoding.runs.iter().flat_map(Run::range);
        pages.zip(&self.pages).for_each(|(page, bytes)| memory.place_page(page, bytes));
        Ok(())
    }
}

fn out_of_step(encoding: &Encoding, codec: &str) -> Error {
    let (first, end) = (encoding.runs.first(), encoding.runs.last());
    let (first, end) = (first.map_or(0, |run| run.first), end.map_or(0, Run::end));
    Error::stream(
        0,
        format!(
            "pages {first} to {end} came out of `{codec}` with another checksum than they were sent with: \
             source and destination are out of step"
        ),
    )
}
