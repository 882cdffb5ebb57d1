//! Channels made by hand: what comes out, cut anywhere, in pieces, and with what cannot be.

use std::io::Write;

use super::*;
use crate::qemu::blocks::Block;

const SYNC_ONLY: Sent = Sent { flags: SYNC, pages: &[], zeros: &[], payload: Vec::new() };

/// A packet to be written.
struct Sent {
    flags: u32,
    pages: &'static [u64],
    zeros: &'static [u64],
    payload: Vec<u8>,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mut head = [MAGIC, VERSION.to_be_bytes()].concat();
        let words = [
            self.flags,
            128,
            self.pages.len() as u32,
            self.payload.len() as u32,
            0,
            7,
            self.zeros.len() as u32,
        ];
        head.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        head.resize(64, 0);
        head.extend(b"pc.ram");
        head.resize(BEFORE_OFFSETS, 0);
        head.extend(self.pages.iter().chain(self.zeros).flat_map(|at| at.to_be_bytes()));
        head.resize(BEFORE_OFFSETS + 8 * 128, 0);
        [head, self.payload.clone()].concat()
    }
}

fn channel(packets: &[Sent]) -> Vec<u8> {
    let mut bytes = [MAGIC, VERSION.to_be_bytes()].concat();
    bytes.extend([9; 16]);
    bytes.resize(64, 0);
    bytes[24] = 3;
    packets.iter().for_each(|packet| bytes.extend(packet.bytes()));
    bytes
}

/// Pages by offset and first byte, and points of synchronisation.
#[derive(Default, Debug, PartialEq)]
struct Seen {
    packed: bool,
    texts: Vec<String>,
}

impl Sink for Seen {
    fn event(&mut self, _: At, event: &Event<'_>, _: &Blocks) -> Result<()> {
        self.texts.push(match event {
            Event::Page(Page { offset, content: Content::Raw(bytes), .. }) => {
                format!("{offset:#x} {}", bytes[0])
            }
            Event::Page(Page { offset, content, .. }) => format!("{offset:#x} {content:?}"),
            Event::Channel { number, .. } => format!("channel {number}"),
            Event::Sync => "sync".into(),
            Event::Data(_) => return Ok(()),
            _ => "packet".into(),
        });
        Ok(())
    }

    fn wants_content(&self) -> bool {
        !self.packed
    }
}

fn blocks() -> Blocks {
    let mut blocks = Blocks::default();
    let name = "pc.ram".to_owned();
    assert!(blocks.add(Block { name, bytes: 1 << 20, backing_page: None, address: None, pages_at: None }));
    blocks
}

fn read(bytes: &[u8], piece: usize, packed: bool) -> (Seen, Result<()>) {
    let mut seen = Seen { packed, ..Seen::default() };
    let (mut channel, blocks, mut there) = (Channel::new(0, 4096), blocks(), 0);
    loop {
        there = bytes.len().min(there + piece);
        let at = channel.offset() as usize;
        match channel.advance(&bytes[at..there], &blocks, &mut seen) {
            Err(error) => return (seen, Err(error)),
            Ok(Advance { then: Then::More(_), .. }) if there == bytes.len() => {
                let left = there - channel.offset() as usize;
                return (seen, channel.finish(left));
            }
            Ok(_) => {}
        }
    }
}

/// Pages of the bytes 1, 2, 3 as one stream, cut behind the second page.
fn packed(zlib: bool) -> [Vec<u8>; 2] {
    let pages = [1u8, 2, 3].map(|byte| vec![byte; 4096]);
    if zlib {
        let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(&pages[..2].concat()).unwrap();
        to.flush().unwrap();
        let first = to.get_ref().clone();
        to.write_all(&pages[2]).unwrap();
        to.flush().unwrap();
        let second = to.get_ref()[first.len()..].to_vec();
        return [first, second];
    }
    let mut to = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    to.write_all(&pages[..2].concat()).unwrap();
    to.flush().unwrap();
    let first = to.get_ref().clone();
    to.write_all(&pages[2]).unwrap();
    to.flush().unwrap();
    let second = to.get_ref()[first.len()..].to_vec();
    [first, second]
}

fn compressed(zlib: bool) -> Vec<u8> {
    let [first, second] = packed(zlib);
    let flags = if zlib { 2 } else { 4 };
    let empty = Sent { flags: flags | SYNC, pages: &[], zeros: &[0x9000], payload: Vec::new() };
    channel(&[
        Sent { flags, pages: &[0x1000, 0x2000], zeros: &[0x3000], payload: first },
        empty,
        Sent { flags, pages: &[0x4000], zeros: &[], payload: second },
    ])
}

#[test]
fn raw_pages_zeros_and_points_of_synchronisation() {
    let payload = [vec![5; 4096], vec![6; 4096]].concat();
    let bytes = channel(&[Sent { flags: 0, pages: &[0x1000, 0], zeros: &[0x5000], payload }, SYNC_ONLY]);
    for piece in [1, 100, usize::MAX >> 1] {
        let (seen, done) = read(&bytes, piece, false);
        done.unwrap();
        assert_eq!(
            seen.texts,
            ["channel 3", "packet", "0x5000 Fill(0)", "0x1000 5", "0x0 6", "packet", "sync"]
        );
    }
}

#[test]
fn a_compressed_stream_goes_on_over_packets() {
    for zlib in [true, false] {
        for piece in [1, 7, usize::MAX >> 1] {
            let (seen, done) = read(&compressed(zlib), piece, false);
            done.unwrap();
            let expected =
                ["channel 3", "packet", "0x3000 Fill(0)", "0x1000 1", "0x2000 2", "packet", "0x9000 Fill(0)"];
            assert_eq!(seen.texts[..7], expected);
            assert_eq!(seen.texts[7..], ["sync", "packet", "0x4000 3"]);
        }
        let (seen, done) = read(&compressed(zlib), 1000, true);
        done.unwrap();
        assert!(seen.texts.contains(&"0x4000 Packed".into()));
    }
}

#[test]
fn an_end_inside_a_packet_is_early() {
    let bytes = channel(&[Sent { flags: 0, pages: &[0], zeros: &[], payload: vec![1; 4096] }, SYNC_ONLY]);
    let packet = BEFORE_OFFSETS + 8 * 128;
    for end in (0..bytes.len()).step_by(41).chain([64, 64 + packet, 64 + packet + 4096]) {
        let whole = [64, 64 + packet + 4096].contains(&end);
        assert_eq!(read(&bytes[..end], usize::MAX >> 1, false).1.is_ok(), whole, "{end}");
    }
}

#[test]
fn offences_are_named_with_their_place() {
    let refused = |packet: Sent, text: &str| match read(&channel(&[packet]), 4096, false).1 {
        Err(Error::Stream { offset, reason }) if reason.contains(text) => offset - 64,
        other => panic!("{text}: {other:?}"),
    };
    let page = vec![1; 4096];
    let sent = |flags, pages, payload: &[u8]| Sent { flags, pages, zeros: &[], payload: payload.to_vec() };
    assert_eq!(refused(sent(0, &[1 << 20], &page), "pc.ram"), 320);
    assert_eq!(refused(sent(0, &[0, 1], &[0; 8192]), "pc.ram"), 328);
    assert_eq!(refused(sent(0, &[0], &page[1..]), "4095 bytes"), 20);
    assert_eq!(refused(sent(6, &[0], &page), "no flags"), 8);
    refused(sent(2, &[0], &page), "zlib");
    refused(sent(4, &[0], &page), "zstd");
    refused(sent(8, &[0], &page), "only zlib and zstd");
    let [first, _] = packed(true);
    refused(sent(2, &[0], &first), "more than its 1 pages");
    refused(sent(2, &[0, 0x1000, 0x2000], &first), "unpacks to 2 pages");
    let mut other = channel(&[SYNC_ONLY]);
    other[70] = 0;
    other[64] = 0;
    assert!(read(&other, 4096, false).1.unwrap_err().to_string().contains("begins"));
}
