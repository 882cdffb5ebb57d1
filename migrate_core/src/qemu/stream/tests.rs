//! Streams made by hand: what comes out, cut at every byte, in pieces of every size, and with every byte changed.

use super::*;
use crate::qemu::event::{Command, Content, PageKind, Setting};

/// What was seen, as texts; data of devices is joined, as it may come in any pieces.
#[derive(Debug, Default, PartialEq)]
struct Seen(Vec<String>);

impl Sink for Seen {
    fn event(&mut self, at: At, event: &Event<'_>, _: &Blocks) -> Result<()> {
        let text = match event {
            Event::Data(bytes) | Event::Description(bytes) | Event::Trailing(bytes) => {
                let name = format!("{event:?}");
                let name = name.split('(').next().unwrap();
                let text = bytes.escape_ascii().to_string();
                match self.0.last_mut().filter(|last| last.starts_with(name)) {
                    Some(last) => last.push_str(&text),
                    None => self.0.push(format!("{name} {text}")),
                }
                return Ok(());
            }
            Event::Page(page) => {
                let content = match page.content {
                    Content::Raw(bytes) => format!("raw {}", bytes[0]),
                    other => format!("{other:?}"),
                };
                format!("{}: page {} {:#x} {content}", at.offset, page.block, page.offset)
            }
            other => format!("{}: {other:?}", at.offset),
        };
        self.0.push(text);
        Ok(())
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(machine: Option<&str>) -> Self {
        let mut writer = Self(b"QEVM\0\0\0\x03".to_vec());
        if let Some(machine) = machine {
            writer.raw(&[7]).be32(machine.len() as u32).raw(machine.as_bytes());
        }
        writer
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn be32(&mut self, number: u32) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    fn be64(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    fn name(&mut self, name: &str) -> &mut Self {
        self.raw(&[name.len() as u8]).raw(name.as_bytes())
    }

    fn head(&mut self, kind: u8, id: u32, name: &str, version: u32) -> &mut Self {
        self.raw(&[kind]).be32(id).name(name).be32(0).be32(version)
    }

    fn footer(&mut self, id: u32) -> &mut Self {
        self.raw(&[0x7e]).be32(id)
    }

    fn command(&mut self, number: u16, payload: &[u8]) -> &mut Self {
        self.raw(&[8]).raw(&number.to_be_bytes()).raw(&(payload.len() as u16).to_be_bytes()).raw(payload)
    }

    fn start(&mut self) -> &mut Self {
        self.head(1, 2, "ram", 4)
            .be64(0x5000 | 4)
            .name("pc.ram")
            .be64(0x4000)
            .name("rom")
            .be64(0x1000)
            .be64(0x10)
    }
}

/// Every kind of record, device state that looks like a footer, a description, and something after it.
fn stream() -> Vec<u8> {
    let mut writer = Writer::new(Some("pc-1.0"));
    writer.raw(&[5]).name("configuration/uuid").be32(1).raw(&[0xab; 16]);
    writer.raw(&[5]).name("configuration/capabilities").be32(1).be32(1).name("validate-uuid");
    writer.command(1, &[]).command(2, &1u32.to_be_bytes());
    writer.start().footer(2);
    writer.raw(&[2]).be32(2);
    writer.be64(8).name("pc.ram").raw(&[7; 4096]);
    writer.be64(0x1000 | 0x22).raw(&[0]);
    writer.be64(0x2000 | 0x60).raw(&[1, 0, 4, 1, 2, 8, 9]);
    writer.be64(0x120).be32(3).raw(b"zip");
    writer.be64(0x200).be64(0x10).footer(2);
    // A page of the block that the section before has named.
    writer.raw(&[3]).be32(2).be64(0x3000 | 0x22).raw(&[0]).be64(0x10).footer(2);
    writer.head(4, 9, "dev", 1).raw(b"state \x7e\0\0\0\x09\x33 more \x7e\0\0\0\x09").footer(9);
    writer.raw(&[0, 6]).be32(2).raw(b"{}").raw(b"tail");
    writer.0
}

fn read(bytes: &[u8], piece: usize) -> (Seen, Result<()>) {
    let (mut feed, mut seen) = (Feed::new(Parser::new(0, 0)), Seen::default());
    let mut done = bytes.chunks(piece).try_for_each(|piece| feed.feed(piece, &mut seen));
    if done.is_ok() {
        done = feed.finish(&mut seen);
    }
    (seen, done)
}

fn refused(writer: &Writer) -> (u64, String) {
    match read(&writer.0, 4096).1 {
        Err(Error::Stream { offset, reason }) => (offset, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_that_is_in_a_stream() {
    let (seen, done) = read(&stream(), usize::MAX);
    done.unwrap();
    let text = seen.0.join("\n");
    for expected in [
        "0: Header { version: 3 }",
        "8: Machine { name: \"pc-1.0\" }",
        "Setting(Uuid { uuid: [171,",
        "Setting(Capability { name: \"validate-uuid\" })",
        "Command(Ping { value: 1 })",
        "Block(Block { name: \"rom\", bytes: 4096,",
        "page 0 0x0 raw 7",
        "page 0 0x1000 Fill(0)",
        "page 0 0x2000 Xbzrle([1, 2, 8, 9])",
        "page 0 0x0 Compressed([122, 105, 112])",
        "Flush",
        "page 0 0x3000 Fill(0)",
        "Data state ~\\x00\\x00\\x00\\t3 more ~\\x00\\x00\\x00\\t\n",
        "SectionsEnd",
        "Description {}",
        "DescriptionEnds",
        "Trailing tail",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let bytes = stream();
    let (whole, _) = read(&bytes, usize::MAX);
    for piece in (1..64).chain([100, 1000, 4095, 4096, 4097]) {
        let (seen, done) = read(&bytes, piece);
        done.unwrap();
        assert_eq!(seen, whole, "in pieces of {piece}");
    }
}

#[test]
fn an_end_at_any_byte_says_what_was_complete() {
    let bytes = stream();
    let after_sections = bytes.len() - b"\x06\0\0\0\x02{}tail".len();
    for end in 0..bytes.len() {
        let (_, done) = read(&bytes[..end], usize::MAX);
        let may_end = end == after_sections || end >= bytes.len() - 4;
        match done {
            Ok(()) => assert!(may_end, "{end}"),
            Err(Error::Stream { offset, reason }) => {
                assert!(!may_end && offset == end as u64, "{end}: {offset} {reason}");
                assert!(reason.contains("ends here") && reason.contains("complete"), "{end}: {reason}");
            }
            Err(other) => panic!("{end}: {other}"),
        }
    }
    let (_, done) = read(&bytes[..after_sections - 12], usize::MAX);
    let text = done.unwrap_err().to_string();
    assert!(text.contains("inside the section `dev` (full, number 9)"), "{text}");
    assert!(text.contains("the last complete section was `ram` (end, number 2)"), "{text}");
}

#[test]
fn known_lengths_are_believed_before_footers() {
    let mut writer = Writer::new(Some("m"));
    // What looks like a footer and a section inside the state.
    let mut state = Writer(b"x".to_vec());
    state.footer(9).head(4, 10, "forged", 1).raw(b"y");
    writer.start().footer(2).head(4, 9, "dev", 1).raw(&state.0).footer(9).raw(&[0]);
    let (seen, done) = read(&writer.0, 7);
    assert!(done.is_err() || seen.0.iter().any(|text| text.contains("forged\"")));
    let mut lengths = Lengths::default();
    lengths.add("dev", 0, state.0.len() as u64);
    let mut parser = Parser::new(0, 0);
    parser.expect_lengths(lengths);
    let (mut feed, mut seen) = (Feed::new(parser), Seen::default());
    feed.feed(&writer.0, &mut seen).unwrap();
    feed.finish(&mut seen).unwrap();
    assert!(!seen.0.iter().any(|text| text.contains("name: \"forged\"")));
}

#[test]
fn machine_types_without_configuration_and_footers() {
    let mut writer = Writer::new(None);
    writer.start().raw(&[3]).be32(2).be64(0x10);
    writer.head(4, 3, "timer", 2).raw(b"\x04\0\0\0\x04\x01").head(4, 5, "cpu", 1).raw(b"abc\0").raw(&[0]);
    for piece in [1, 3, 4096] {
        let (seen, done) = read(&writer.0, piece);
        done.unwrap();
        let data: Vec<_> = seen.0.iter().filter(|text| text.starts_with("Data")).cloned().collect();
        assert_eq!(data, ["Data \\x04\\x00\\x00\\x00\\x04\\x01", "Data abc\\x00"]);
    }
}

#[test]
fn a_package_is_opened_and_its_end_is_known() {
    let mut inside = Writer(Vec::new());
    inside.command(4, &[]).head(4, 7, "dev", 1).raw(b"\x7e\0\0\0\x07 x").footer(7);
    let package = |size: usize| {
        let mut writer = Writer::new(Some("m"));
        writer.command(3, &[[0; 14].as_slice(), &[0x10, 0]].concat()).start().footer(2);
        writer.command(7, &(size as u32).to_be_bytes()).raw(&inside.0).command(5, &[]);
        writer.raw(&[3]).be32(2).be64(0x1000 | 2).name("pc.ram").raw(&[0]).be64(0x10).footer(2).raw(&[0]);
        writer
    };
    let (seen, done) = read(&package(inside.0.len()).0, 3);
    done.unwrap();
    let text = seen.0.join("\n");
    assert!(text.contains("Data ~\\x00\\x00\\x00\\x07 x\n"), "{text}");
    assert!(text.contains("PackageEnds"), "{text}");
    let (_, reason) = refused(&package(inside.0.len() - 2));
    assert!(reason.contains("package ends here"), "{reason}");
}

#[test]
fn a_recovery_goes_on_and_an_urgent_channel_has_no_frame() {
    let mut parser = Parser::new(0, 0);
    let mut seen = Seen::default();
    let mut writer = Writer::new(Some("m"));
    writer.start().footer(2).raw(&[2]).be32(2).be64(8).name("pc.ram").raw(&[1; 100]);
    assert!(parser.advance(&writer.0, &mut seen).is_ok());
    assert!(parser.finish(&[], &mut seen).is_err());
    parser.urgent(1);
    let mut urgent = Writer(Vec::new());
    urgent.be64(0x2008).name("pc.ram").raw(&[5; 4096]);
    parser.advance(&urgent.0, &mut seen).unwrap();
    parser.finish(&[], &mut seen).unwrap();
    parser.reconnect(2);
    let mut again = Writer(Vec::new());
    again.command(10, b"\x06pc.ram").command(9, &[]).raw(&[3]).be32(2).be64(0x28).raw(&[6; 4096]);
    // The block has to be named anew.
    assert!(parser.advance(&again.0, &mut seen).is_err());
    let text = seen.0.join("\n");
    assert!(
        text.contains("page 0 0x2000 raw 5") && text.contains("ReceivedBitmap { block: \"pc.ram\" }"),
        "{text}"
    );
}

#[test]
fn mapped_ram_gives_the_pages_whose_bits_are_set() {
    let mut writer = Writer::new(Some("m"));
    writer.raw(&[5]).name("configuration/capabilities").be32(1).be32(1).name("mapped-ram");
    writer.head(1, 2, "ram", 4).be64(0x4000 | 4).name("pc.ram").be64(0x4000);
    let bitmap_at = writer.0.len() as u64 + 28;
    writer.be32(1).be64(4096).be64(bitmap_at).be64(0x1000).raw(&[0b1010, 0, 0, 0, 0, 0, 0, 0]);
    writer.0.resize(0x1000, 0xee);
    (0..4).for_each(|page| _ = writer.raw(&[page; 4096]));
    writer.be64(0x10).footer(2).raw(&[0]);
    for piece in [1000, 1 << 20] {
        let (seen, done) = read(&writer.0, piece);
        done.unwrap();
        let pages: Vec<_> = seen.0.iter().filter(|text| text.contains("page 0")).cloned().collect();
        assert_eq!(pages, ["8192: page 0 0x1000 raw 1", "16384: page 0 0x3000 raw 3"]);
    }
    // The driver may skip what tells nothing.
    let (mut parser, mut seen, mut at, mut skipped) = (Parser::new(0, 0), Seen::default(), 0, 0);
    while let Advance { used, then: Then::Skip(count) } =
        parser.advance(&writer.0[at..at + 200.min(writer.0.len() - at)], &mut seen).unwrap()
    {
        parser.skip(count);
        (at, skipped) = (at + used + count as usize, skipped + count);
        if at == 8192 {
            break;
        }
    }
    assert!(skipped > 4096 && at as u64 == parser.offset());
}

#[test]
fn offences_are_named_with_their_place() {
    let begun = || {
        let mut writer = Writer::new(Some("m"));
        writer.start();
        writer
    };
    let records = |work: &dyn Fn(&mut Writer)| {
        let mut writer = begun();
        writer.footer(2).raw(&[2]).be32(2);
        let at = writer.0.len() as u64;
        work(&mut writer);
        let (offset, reason) = refused(&writer);
        (offset - at, reason)
    };
    let expect = |(offset, reason): (u64, String), at: u64, text: &str| {
        assert!(offset == at && reason.contains(text), "{offset}: {reason}");
    };
    expect(records(&|w| _ = w.be64(0x28).raw(&[0; 4096])), 0, "none was named");
    expect(records(&|w| _ = w.be64(0x8).name("nope").raw(&[0; 4096])), 0, "not in the list");
    expect(records(&|w| _ = w.be64(0x4002).name("pc.ram").raw(&[0])), 0, "0x4000 bytes");
    expect(records(&|w| _ = w.be64(0x3)), 0, "no flags");
    expect(records(&|w| _ = w.be64(0x80)), 0, "RDMA");
    expect(records(&|w| _ = w.be64(0x40).name("pc.ram").raw(&[2, 0, 1, 0])), 15, "XBZRLE");
    expect(records(&|w| _ = w.be64(0x40).name("pc.ram").raw(&[1, 0x10, 1, 0])), 15, "XBZRLE");
    expect(records(&|w| _ = w.be64(0x100).name("pc.ram").be32(9999)), 15, "compressed to 9999");
    expect(records(&|w| _ = w.be64(0x10).footer(3)), 8, "should end here");
    expect(refused(Writer::new(Some("m")).raw(&[2]).be32(77)), 14, "none of that number");
    expect(refused(Writer::new(Some("m")).raw(&[0x33])), 14, "none of the elements");
    expect(refused(&Writer(b"QEVN\0\0\0\x03".to_vec())), 0, "not how a QEMU stream begins");
    expect(refused(&Writer(b"QEVM\0\0\0\x02".to_vec())), 4, "version 2");
    expect(refused(Writer::new(None).raw(&[7]).be32(1 << 30)), 9, "at most 256");
    expect(
        refused(Writer::new(Some("m")).raw(&[5]).name("configuration/new").be32(1)),
        14,
        "length is unknown",
    );
    expect(refused(Writer::new(Some("m")).command(2, &[1])), 19, "carries 1 bytes");
    expect(refused(Writer::new(Some("m")).head(1, 2, "ram", 5)), 14, "version 5");
    let mut list = Writer::new(Some("m"));
    list.head(1, 2, "ram", 4).be64(0x1004).name("a").be64(0x2000);
    assert!(refused(&list).1.contains("4096 bytes left"));
    let mut end = begun();
    end.footer(2).raw(&[0, 6]).be32(u32::MAX);
    assert!(refused(&end).1.contains("VM description of 4294967295"));
}

#[test]
fn changed_bytes_never_panic_and_never_hang() {
    let bytes = stream();
    for at in (0..bytes.len()).filter(|at| *at < 300 || *at > bytes.len() - 300) {
        for value in [0, 1, 0x7e, 0xff, bytes[at] ^ 0x80] {
            let mut changed = bytes.clone();
            changed[at] = value;
            if let (_, Err(error)) = read(&changed, 1 << 16) {
                assert!(matches!(error, Error::Stream { .. }), "{at}: {error}");
            }
        }
    }
}

#[test]
fn every_setting_and_kind_has_a_name() {
    assert_eq!(
        serde_json::to_string(&Setting::TargetPageBits { bits: 12 }).unwrap(),
        r#"{"setting":"target-page-bits","bits":12}"#
    );
    assert_eq!(serde_json::to_string(&Command::PostcopyRun).unwrap(), r#"{"command":"postcopy-run"}"#);
    assert_eq!(PageKind::ALL.map(PageKind::name), ["raw", "zero", "xbzrle", "compressed"]);
}
