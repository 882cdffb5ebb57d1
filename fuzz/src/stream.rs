//! What the fuzz targets of QEMU's formats do.

use migrate_core::qemu::blocks::{Block, Blocks};
use migrate_core::qemu::description::{decode, Description};
use migrate_core::qemu::devices::Devices;
use migrate_core::qemu::event::{At, Event, Sink};
use migrate_core::qemu::listing::Listing;
use migrate_core::qemu::multifd::Channel;
use migrate_core::qemu::pages::Rows;
use migrate_core::qemu::stream::{Advance, Feed, Parser, Then};
use migrate_core::qemu::summary::Tally;
use migrate_core::qemu::ReplyReader;
use migrate_core::{Error, Result};

/// All sinks that keep what they see in memory.
#[derive(Default)]
struct All {
    rows: Rows,
    listing: Listing,
    tally: Tally,
    devices: Devices,
    /// Pages only: device data may come in any pieces.
    found: Vec<u8>,
}

impl Sink for All {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        self.rows.event(at, event, blocks)?;
        self.listing.event(at, event, blocks)?;
        self.tally.event(at, event, blocks)?;
        self.devices.event(at, event, blocks)?;
        self.found.extend(self.rows.take());
        drop(self.listing.take());
        Ok(())
    }
}

/// A stream error's position, which lies in what was read.
fn place(error: Error, end: usize) -> u64 {
    match error {
        Error::Stream { offset, .. } => {
            assert!(offset <= end as u64, "an offence at {offset} in {end} bytes");
            offset
        }
        other => panic!("hostile data gave an error without an offset: {other}"),
    }
}

fn fed(data: &[u8], piece: usize) -> (Vec<u8>, Option<u64>) {
    let (mut feed, mut all) = (Feed::new(Parser::new(0, 0)), All::default());
    let mut done = data.chunks(piece).try_for_each(|piece| feed.feed(piece, &mut all));
    if done.is_ok() {
        done = feed.finish(&mut all);
    }
    let _ = std::mem::take(&mut all.devices).decoded();
    (all.found, done.err().map(|error| place(error, data.len())))
}

/// The same comes out of a main channel in whatever pieces it comes.
pub fn main_channel(data: &[u8]) {
    let whole = fed(data, usize::MAX);
    let piece = 1 + usize::from(data.last().copied().unwrap_or_default());
    assert!(whole == fed(data, piece), "pieces of {piece} bytes give something else");
}

/// A multifd channel, with and without its pages' content.
pub fn multifd_channel(data: &[u8]) {
    let mut blocks = Blocks::default();
    for (name, bytes) in [("pc.ram", 1 << 24), ("rom", 1 << 12)] {
        let name = name.to_owned();
        blocks.add(Block { name, bytes, backing_page: None, address: None, pages_at: None });
    }
    let (mut channel, mut used, mut all) = (Channel::new(1, 4096), 0, All::default());
    loop {
        match channel.advance(&data[used..], &blocks, &mut all) {
            Ok(Advance { used: more, then: Then::Others }) => used += more,
            Ok(Advance { used: more, .. }) => {
                used += more;
                drop(channel.finish(data.len() - used));
                return;
            }
            Err(error) => return drop(place(error, data.len() + 4096)),
        }
    }
}

/// Text and bytes are parted by a byte 0.
pub fn description(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, bytes) = data.split_at(at);
    let Ok(description) = Description::read(text, 0) else { return };
    let _ = description.lengths();
    for device in &description.devices {
        if let Err(error) = decode(device, bytes, 0) {
            place(error, bytes.len());
        }
    }
}

/// Messages of a destination, whole and in pieces.
pub fn return_path(data: &[u8]) {
    let mut reader = ReplyReader::default();
    for piece in data.chunks(7) {
        reader.push(piece);
        while let Ok(Some(_)) = reader.next_reply() {}
    }
}
