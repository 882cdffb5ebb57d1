//! Follows a multifd channel as it flows: packets, their pages, and the points at which channels wait for each other.

use std::io::Read;

use super::intake::Intake;
use super::watch::{PageKinds, PAGE};
use crate::error::{Error, Result};

/// How a multifd channel begins, and each of its packets.
pub(super) const MAGIC: [u8; 8] = [0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1];
/// Bytes of the first packet.
const FIRST: u64 = 64;
/// Position of the channel's number in the first packet.
const NUMBER: usize = 24;
/// Bytes of a packet of pages before its payload: 320, and 8 for each page that it may have.
const HEAD: usize = OFFSETS + 8 * MOST_PAGES as usize;
/// Positions of the block's name and of the pages' offsets.
const NAME: usize = 64;
const OFFSETS: usize = 320;
/// Most pages in a packet.
const MOST_PAGES: u64 = 0x80000 / PAGE;
/// Bytes of a packet of device state before its payload.
const DEVICE_HEAD: usize = 276;

const SYNC: u32 = 0x01;
const COMPRESSION: u32 = 0x3e;
const DEVICE: u32 = 0x40;

/// What is seen in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// The channel's number, said first.
    Number(u8),
    /// Pages of one block.
    Pages {
        /// The block's name.
        block: &'a [u8],
        /// Offsets of the first and the last page.
        span: (u64, u64),
        /// How many of which kind.
        kinds: PageKinds,
        /// The packet's bytes.
        bytes: u64,
    },
    /// All that the channel has before this belongs before the point.
    Sync,
}

/// What is told of each packet.
pub(super) type See<'a> = &'a mut dyn FnMut(Packet<'_>) -> Result<()>;

/// Follows the channel until the source closes it.
///
/// # Errors
/// [`Error::Stream`] with the position of what cannot be in a channel; what `see` gave.
pub(super) fn follow<R: Read>(intake: &mut Intake<R>, see: See<'_>) -> Result<()> {
    let first = intake.peek(FIRST as usize)?;
    check(first, 0)?;
    let number = *first.get(NUMBER).ok_or_else(|| Error::stream(0, "a multifd channel that ends at once"))?;
    intake.skip(FIRST)?;
    see(Packet::Number(number))?;
    while !intake.is_at_end()? {
        packet(intake, see)?;
    }
    Ok(())
}

fn check(head: &[u8], at: u64) -> Result<()> {
    match head.starts_with(&MAGIC) {
        true => Ok(()),
        false => Err(Error::stream(at, "this is not how a multifd packet begins")),
    }
}

fn packet<R: Read>(intake: &mut Intake<R>, see: See<'_>) -> Result<()> {
    let at = intake.offset();
    let ended = || Error::stream(at, "the channel ends in this packet");
    // Its first twelve bytes say how long its head is.
    let head = intake.peek(12)?;
    check(head, at)?;
    let flags = be32(head, 8).ok_or_else(ended)?;
    if flags & DEVICE != 0 {
        let payload = be32(intake.peek(DEVICE_HEAD)?, DEVICE_HEAD - 4).ok_or_else(ended)?;
        return intake.skip(DEVICE_HEAD as u64 + u64::from(payload));
    }
    let head = intake.peek(HEAD)?;
    if head.len() < HEAD {
        return Err(ended());
    }
    let payload = pages(head, flags, at, see)?;
    intake.skip(HEAD as u64 + payload)?;
    match flags & SYNC {
        0 => Ok(()),
        _ => see(Packet::Sync),
    }
}

/// Tells the pages of a packet; the bytes of its payload.
fn pages(head: &[u8], flags: u32, at: u64, see: See<'_>) -> Result<u64> {
    let field = |at| be32(head, at).map_or(0, u64::from);
    let (normal, size, zero) = (field(16), field(20), field(32));
    let count = normal + zero;
    if count > MOST_PAGES {
        return Err(Error::stream(
            at,
            format!("a packet of {count} pages; at most {MOST_PAGES} were expected"),
        ));
    }
    if count == 0 {
        // It has no payload, whatever size it still names (QEMU before 9.0).
        return Ok(0);
    }
    let kinds = match flags & COMPRESSION {
        0 => PageKinds { raw: normal, zero, ..PageKinds::default() },
        _ => PageKinds { compressed: normal, zero, ..PageKinds::default() },
    };
    let payload = if normal > 0 { size } else { 0 };
    let block = head[NAME..OFFSETS].split(|&byte| byte == 0).next().unwrap_or_default();
    let span = span(&head[OFFSETS..OFFSETS + 8 * count as usize]);
    see(Packet::Pages { block, span, kinds, bytes: HEAD as u64 + payload })?;
    Ok(payload)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn span(offsets: &[u8]) -> (u64, u64) {
    let offset = |bytes: &[u8]| bytes.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let offsets = offsets.chunks_exact(8).map(offset);
    offsets.fold((u64::MAX, 0), |(low, high), at| (low.min(at), high.max(at)))
}
