//! What may be around a stream: libvirt's header, and compression.
//!
//! libvirt's save image begins with `LibvirtQemudSave` (or `...Part` while it is unfinished), then, in the byte order
//! of the machine that wrote it: version, length of the XML (and cookie) that follows the header, whether the guest
//! was running, how the stream is packed, where the cookie is, and 14 unused words. Layout: libvirt,
//! `src/qemu/qemu_saveimage.h`.

use std::io::{BufReader, Read};

use serde::Serialize;

use crate::error::{Error, Result};

/// Bytes that are enough to tell.
pub(super) const LOOK: usize = LIBVIRT_BYTES as usize;
const LIBVIRT_BYTES: u64 = 92;
const LIBVIRT: [&[u8]; 2] = [b"LibvirtQemudSave", b"LibvirtQemudPart"];
/// Longest XML that is believed.
const MOST_XML: u32 = 64 << 20;

/// What is around a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrapping {
    /// Nothing.
    None,
    /// libvirt's save image.
    Libvirt,
    /// A compressed file: gzip, zstd or lz4.
    Packed,
    /// libvirt's save image with a packed stream.
    LibvirtPacked,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// A header of so many bytes.
    Libvirt(u64),
    Gzip,
    Zstd,
    Lz4,
}

/// The layer that `bytes` begin with.
pub(super) fn find(bytes: &[u8], at: u64) -> Result<Option<Layer>> {
    let named = |name: &str, tool: &str| {
        Err(Error::stream(at, format!("the stream is packed as {name}: unpack it first, with `{tool}`")))
    };
    match bytes {
        [0x1f, 0x8b, ..] => Ok(Some(Layer::Gzip)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Some(Layer::Zstd)),
        [0x04, 0x22, 0x4d, 0x18, ..] => Ok(Some(Layer::Lz4)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => named("xz", "xz -dc"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => named("bzip2", "bzip2 -dc"),
        [0x89, b'L', b'Z', b'O', ..] => named("lzop", "lzop -dc"),
        [b'Q', b'F', b'I', 0xfb, ..] => Err(Error::stream(
            at,
            "this is a qcow2 image; a snapshot in it is no stream by itself: load it, and migrate to a file",
        )),
        _ if LIBVIRT.iter().any(|magic| bytes.starts_with(magic)) => libvirt(bytes, at).map(Some),
        _ => Ok(None),
    }
}

fn libvirt(bytes: &[u8], at: u64) -> Result<Layer> {
    let word = |index: usize| {
        let bytes: Option<[u8; 4]> =
            bytes.get(16 + 4 * index..20 + 4 * index).and_then(|b| b.try_into().ok());
        bytes.ok_or_else(|| Error::stream(at, "the file ends inside libvirt's header"))
    };
    let little = matches!(word(0)?, [1..=9, 0, 0, 0]);
    let number =
        |index| word(index).map(|w| if little { u32::from_le_bytes(w) } else { u32::from_be_bytes(w) });
    let (length, packing) = (number(1)?, number(3)?);
    if length > MOST_XML {
        return Err(Error::stream(at + 20, format!("libvirt's header names {length} bytes of XML")));
    }
    match packing {
        2 => Err(Error::stream(
            at + 28,
            "libvirt packed this image by bzip2: set save_image_format to raw, gzip or zstd",
        )),
        3 => Err(Error::stream(
            at + 28,
            "libvirt packed this image by xz: set save_image_format to raw, gzip or zstd",
        )),
        4 => Err(Error::stream(
            at + 28,
            "libvirt packed this image by lzop: set save_image_format to raw, gzip or zstd",
        )),
        _ => Ok(Layer::Libvirt(LIBVIRT_BYTES + u64::from(length))),
    }
}

impl Layer {
    /// Bytes before what it holds.
    pub(super) fn head(self) -> u64 {
        match self {
            Self::Libvirt(bytes) => bytes,
            _ => 0,
        }
    }

    /// Whether what it holds is packed.
    pub(super) fn packs(self) -> bool {
        !matches!(self, Self::Libvirt(_))
    }

    /// What there is with this layer inside `around`.
    pub(super) fn wrapping(self, around: Wrapping) -> Wrapping {
        match (around, self) {
            (Wrapping::None, Self::Libvirt(_)) => Wrapping::Libvirt,
            (Wrapping::Libvirt | Wrapping::LibvirtPacked, _) => Wrapping::LibvirtPacked,
            _ => Wrapping::Packed,
        }
    }

    /// The bytes that are packed in `packed`.
    pub(super) fn unpack(self, packed: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Libvirt(_) => packed,
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(packed))),
            Self::Zstd => Box::new(
                zstd::stream::read::Decoder::new(packed)
                    .map_err(|e| Error::io("making a zstd context", e))?,
            ),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        })
    }
}
