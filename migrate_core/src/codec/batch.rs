//! Batches: pages that travel together, each by itself or as one piece.

use super::{Codec, Encoded, Page, PAGE};
use crate::error::{Error, Result};

/// Bytes before each page of a batch: its length, big-endian; a page's own length means raw.
pub const HEAD: usize = 2;

/// The first byte of a batch by a codec that can take it as one piece: how it was taken.
const EACH: u8 = 0;
const TOGETHER: u8 = 1;

/// Encodes page by page; how many pages are raw.
pub fn encode_each<C: Codec + ?Sized>(
    codec: &mut C,
    pages: &[Page],
    bases: &[Option<&Page>],
    out: &mut Vec<u8>,
) -> usize {
    let mut raw = 0;
    for (page, base) in pages.iter().zip(bases) {
        let at = out.len();
        out.extend([0; HEAD]);
        if codec.encode(page, *base, out) == Encoded::Raw {
            out.extend_from_slice(page);
            raw += 1;
        }
        let length = (out.len() - at - HEAD) as u16;
        out[at..at + HEAD].copy_from_slice(&length.to_be_bytes());
    }
    raw
}

/// Decodes what [`encode_each`] wrote.
pub fn decode_each<C: Codec + ?Sized>(
    codec: &mut C,
    data: &[u8],
    bases: &[Option<&Page>],
    pages: &mut [Page],
) -> Result<()> {
    let mut at = 0;
    for (page, base) in pages.iter_mut().zip(bases) {
        let bytes = piece(data, at)?;
        at += HEAD;
        match <&Page>::try_from(bytes) {
            Ok(raw) => {
                *page = *raw;
                codec.pass(page);
            }
            Err(_) => codec.decode(bytes, *base, page).map_err(|e| further(e, at))?,
        }
        at += bytes.len();
    }
    match data.len() - at {
        0 => Ok(()),
        rest => Err(Error::stream(at as u64, format!("{rest} bytes after a batch's last page"))),
    }
}

fn piece(data: &[u8], at: usize) -> Result<&[u8]> {
    let wrong = |what: &str| Error::stream(at as u64, what);
    let (head, rest) = data[at..].split_first_chunk::<HEAD>().ok_or_else(|| wrong("the batch ends early"))?;
    let length = usize::from(u16::from_be_bytes(*head));
    if length > PAGE {
        return Err(wrong(&format!("{length} bytes for a page of {PAGE}")));
    }
    rest.get(..length).ok_or_else(|| wrong(&format!("{length} bytes announced, {} left", rest.len())))
}

/// The same error, `by` bytes further on.
pub fn further(error: Error, by: usize) -> Error {
    match error {
        Error::Stream { offset, reason } => Error::Stream { offset: offset + by as u64, reason },
        other => other,
    }
}

/// Encodes all pages as one piece by `compress(pages, most)`, which answers in at most `most` bytes or not at
/// all. What does not get shorter together goes raw: page by page it would not either.
pub fn encode_together<C: Codec + ?Sized>(
    codec: &mut C,
    pages: &[Page],
    out: &mut Vec<u8>,
    compress: impl FnOnce(&mut C, &[u8], &mut Vec<u8>) -> Encoded,
) -> usize {
    let at = out.len();
    out.push(TOGETHER);
    if compress(codec, pages.as_flattened(), out) == Encoded::Shorter {
        return 0;
    }
    out[at] = EACH;
    for page in pages {
        out.extend((PAGE as u16).to_be_bytes());
        out.extend_from_slice(page);
        codec.pass(page);
    }
    pages.len()
}

/// Decodes what [`encode_together`] wrote.
pub fn decode_together<C: Codec + ?Sized>(
    codec: &mut C,
    data: &[u8],
    bases: &[Option<&Page>],
    pages: &mut [Page],
    expand: impl FnOnce(&mut C, &[u8], &mut [u8]) -> Result<()>,
) -> Result<()> {
    let decoded = match data.split_first() {
        Some((&TOGETHER, piece)) => expand(codec, piece, pages.as_flattened_mut()),
        Some((&EACH, rest)) => decode_each(codec, rest, bases, pages),
        Some((kind, _)) => return Err(Error::stream(0, format!("a batch of unknown kind {kind}"))),
        None => return Err(Error::stream(0, "an empty batch")),
    };
    decoded.map_err(|e| further(e, 1))
}
