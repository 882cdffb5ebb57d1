//! A model source: streams written as a QEMU writes them, sent to the receiver or followed from memory.

use std::io::{Read, Write};
use std::time::Duration;

use proptest::prelude::*;

use super::intake::Intake;
use super::packets::{follow, Packet};
use super::watch::{Sight, Watch};
use super::*;
use crate::error::{Error, Result};
use crate::link::{connect, Endpoint, Listener, Stream};

const RETURN_PATH: &[u8] = &[8, 0, 1, 0, 0];
const PING: &[u8] = &[8, 0, 2, 0, 4, 0, 0, 0, 7];
const ADVISE: &[u8] = &[8, 0, 3, 0, 16, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0];

fn name(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

fn word(address: u64, flags: u64) -> Vec<u8> {
    (address | flags).to_be_bytes().to_vec()
}

fn head(machine: Option<&str>) -> Vec<u8> {
    let mut bytes = b"QEVM\0\0\0\x03".to_vec();
    if let Some(machine) = machine {
        bytes.extend([&[7][..], &(machine.len() as u32).to_be_bytes(), machine.as_bytes()].concat());
    }
    bytes
}

fn section(kind: u8, number: u32, device: Option<&str>, content: &[u8]) -> Vec<u8> {
    let number = number.to_be_bytes();
    let named = device.map(|device| [&name(device)[..], &[0; 8]].concat()).unwrap_or_default();
    [&[kind][..], &number, &named, content, &[0x7e], &number].concat()
}

fn list() -> Vec<u8> {
    let block = |text, size: u64| [&name(text)[..], &size.to_be_bytes()].concat();
    [word(0x6000, 4), block("pc.ram", 0x4000), block("pc.rom", 0x2000), word(0, 0x10)].concat()
}

fn raw(address: u64, block: Option<&str>) -> Vec<u8> {
    let content = [address as u8 | 1; 4096];
    let flags = if block.is_some() { 8 } else { 0x28 };
    [word(address, flags), block.map(name).unwrap_or_default(), content.to_vec()].concat()
}

fn zero(address: u64, block: Option<&str>) -> Vec<u8> {
    let flags = if block.is_some() { 2 } else { 0x22 };
    [word(address, flags), block.map(name).unwrap_or_default(), vec![0]].concat()
}

/// Two walks: two pages and one of another block, then one page again, as changes and as a whole.
fn memory() -> Vec<u8> {
    let first =
        [raw(0, Some("pc.ram")), zero(0x1000, None), raw(0x1000, Some("pc.rom")), word(0, 0x10)].concat();
    let changed = [&word(0x1000, 0x40)[..], &name("pc.ram"), &[1, 0, 3, 0, 1, 0xff]].concat();
    let second = [changed, raw(0x2000, None), word(0, 0x10)].concat();
    [section(2, 2, None, &first), section(3, 2, None, &second)].concat()
}

fn tail() -> Vec<u8> {
    // What looks like the end, in the midst of a device's state, is none.
    let device = section(4, 5, Some("timer"), &[0, 6, 0, 0, 0, 9, b'{', b'"', b'p', 0, 6, 0, 0]);
    let text = br#"{"page_size": 4096, "devices": []}"#;
    [&device[..], &[0, 6], &(text.len() as u32).to_be_bytes(), text].concat()
}

fn start() -> Vec<u8> {
    section(1, 2, Some("ram"), &list())
}

fn stream(before: &[&[u8]]) -> Vec<u8> {
    [head(Some("pc-i440fx-7.2")), before.concat(), start(), memory(), tail()].concat()
}

fn sights(bytes: &[u8]) -> (Vec<(Sight, u64)>, Result<()>) {
    let mut seen = Vec::new();
    let mut see = |sight, at| {
        seen.push((sight, at));
        Ok(())
    };
    let ended = Watch::new(Intake::new(bytes), &mut see).run();
    (seen, ended)
}

fn packet(flags: u32, size: u32, pages: &[u64], zeroes: &[u64]) -> Vec<u8> {
    let mut bytes = [0x1122_3344u32, 1, flags, 128, pages.len() as u32, size].map(u32::to_be_bytes).concat();
    bytes.extend([0; 8]);
    bytes.extend((zeroes.len() as u32).to_be_bytes());
    bytes.extend([0; 28]);
    bytes.extend(b"pc.ram");
    bytes.resize(320, 0);
    bytes.extend(pages.iter().chain(zeroes).flat_map(|page| page.to_be_bytes()));
    bytes.resize(1344, 0xaa);
    let payload = if pages.is_empty() { 0 } else { size as usize };
    bytes.resize(1344 + payload, 0x55);
    bytes
}

fn channel(number: u8) -> Vec<u8> {
    let mut bytes = [0x1122_3344u32, 1].map(u32::to_be_bytes).concat();
    bytes.resize(24, 0);
    bytes.push(number);
    bytes.resize(64, 0);
    bytes
}

#[test]
fn what_flows_is_seen_with_its_place() {
    let bytes = stream(&[RETURN_PATH, PING]);
    let (seen, ended) = sights(&bytes);
    ended.unwrap();
    let of = |wanted: fn(&Sight) -> bool| seen.iter().filter(|(sight, _)| wanted(sight)).count();
    assert_eq!(seen[0].0, Sight::Head(Some("pc-i440fx-7.2".into())));
    assert_eq!(of(|sight| matches!(sight, Sight::Block(_))), 2);
    assert_eq!(of(|sight| *sight == Sight::Wrapped), 1);
    assert_eq!(of(|sight| *sight == Sight::Barrier(false)), 3);
    let pages: Vec<PageKinds> = seen
        .iter()
        .filter_map(|(sight, _)| if let Sight::Pages(kinds, _) = sight { Some(*kinds) } else { None })
        .collect();
    let first = PageKinds { raw: 2, zero: 1, ..PageKinds::default() };
    let second = PageKinds { raw: 1, xbzrle: 1, ..PageKinds::default() };
    assert_eq!(pages, [first, second]);
    assert_eq!(seen.last().unwrap(), &(Sight::Complete, bytes.len() as u64));
    let begin = seen.iter().find(|(sight, _)| matches!(sight, Sight::Begins(SectionKind::Start, _))).unwrap();
    assert_eq!(bytes[begin.1 as usize], 1);
}

#[test]
fn streams_without_configuration_footers_or_description_are_followed() {
    let plain = |kind: u8, content: &[u8], device: Option<&str>| {
        let whole = section(kind, 2, device, content);
        whole[..whole.len() - 5].to_vec()
    };
    let pages = [zero(0, Some("pc.ram")), word(0, 0x10)].concat();
    let parts =
        [head(None), plain(1, &list(), Some("ram")), plain(3, &pages, None), plain(4, b"state", Some("cpu"))];
    let bytes = [parts.concat(), vec![0]].concat();
    let (seen, ended) = sights(&bytes);
    ended.unwrap();
    assert_eq!(seen[0].0, Sight::Head(None));
    assert_eq!(seen.last().unwrap().0, Sight::Complete);
    let (_, ended) = sights(&bytes[..bytes.len() - 1]);
    assert!(matches!(ended, Err(Error::Stream { .. })));
}

#[test]
fn a_post_copy_ends_without_a_description() {
    let package = [&[8, 0, 7, 0, 4, 0, 0, 0, 9][..], b"\x08nonsense"].concat();
    let rest = [section(3, 2, None, &[zero(0, Some("pc.ram")), word(0, 0x10)].concat()), vec![0]].concat();
    let bytes = [head(Some("x")), ADVISE.to_vec(), start(), package, rest].concat();
    sights(&bytes).1.unwrap();
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    let after_start = |bytes: &[u8]| [&head(Some("m"))[..], &start(), bytes].concat();
    let at = after_start(&[]).len() as u64;
    let part = |content: &[u8]| after_start(&[&[2, 0, 0, 0, 2], content].concat());
    for (bytes, offset, reason) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), 0, "how a QEMU stream begins"),
        (after_start(&[9]), at, "element"),
        (after_start(&[2, 0, 0, 0, 9]), at, "without having begun"),
        (part(&word(0, 0x28)), at + 5, "none was named"),
        (part(&[word(0, 8), name("nope")].concat()), at + 13, "not listed"),
        (part(&word(0, 0x3)), at + 5, "flags 0x003"),
        (part(&[word(0, 0x100), name("pc.ram"), vec![0xff; 4]].concat()), at + 5, "bytes; at most"),
        (part(&[word(0, 0x10), vec![0; 5]].concat()), at + 13, "footer"),
        (after_start(&[3, 0, 0]), at + 3, "ends here"),
    ] {
        match sights(&bytes).1.unwrap_err() {
            Error::Stream { offset: found, reason: text } => {
                assert!(text.contains(reason), "{reason}: {text}");
                assert_eq!(found, offset, "{text}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn packets_count_their_pages_and_no_stale_payload() {
    let bytes = [
        channel(3),
        packet(0, 8192, &[0x1000, 0x3000], &[0x2000]),
        packet(3, 100, &[0x5000], &[]),
        // QEMU before 9.0 leaves the size of the packet before in one that has no pages.
        packet(1, 524_288, &[], &[]),
        packet(0, 0, &[], &[0x1000]),
    ]
    .concat();
    let mut seen = Vec::new();
    let mut see = |packet: Packet<'_>| {
        seen.push(match packet {
            Packet::Number(number) => format!("number {number}"),
            Packet::Pages { block, span, kinds, bytes } => {
                let text = String::from_utf8_lossy(block);
                format!(
                    "{text} {:x}-{:x} {}/{}/{} {bytes}",
                    span.0, span.1, kinds.raw, kinds.zero, kinds.compressed
                )
            }
            Packet::Sync => "sync".into(),
        });
        Ok(())
    };
    follow(&mut Intake::new(&bytes[..]), &mut see).unwrap();
    let expected = [
        "number 3",
        "pc.ram 1000-3000 2/1/0 9536",
        "pc.ram 5000-5000 0/0/1 1444",
        "sync",
        "sync",
        "pc.ram 1000-1000 0/1/0 1344",
    ];
    assert_eq!(seen, expected);
    for cut in [10, 70, 1000, bytes.len() - 1] {
        let ended = follow(&mut Intake::new(&bytes[..cut]), &mut |_| Ok(()));
        assert!(matches!(ended, Err(Error::Stream { .. })), "{cut}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = sights(&bytes);
        let _ = follow(&mut Intake::new(&bytes[..]), &mut |_| Ok(()));
    }

    #[test]
    fn a_changed_stream_does_not_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = stream(&[RETURN_PATH]);
        let length = bytes.len();
        bytes[at.index(length)] = byte;
        bytes.truncate(cut.index(length));
        let (seen, ended) = sights(&bytes);
        // Cut short, it is not complete.
        prop_assert!(ended.is_err(), "{seen:?}");
    }
}

/// Receives with `options` while `source` talks on its own thread; what was received, and what the source says.
fn exchange<T: Send>(
    options: &ReceiverOptions,
    source: impl FnOnce(&Endpoint) -> T + Send,
) -> (Reception, T) {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    std::thread::scope(|scope| {
        let source = scope.spawn(|| source(listener.endpoint()));
        let reception = receive(&listener, options, &Control::default()).unwrap();
        (reception, source.join().unwrap())
    })
}

fn dial(endpoint: &Endpoint) -> Stream {
    let stream = connect(endpoint, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// All replies until the destination closes or has said that it will say no more.
fn replies(stream: &mut Stream) -> Vec<Reply> {
    let mut reader = ReplyReader::default();
    let mut found = Vec::new();
    let mut bytes = [0; 64];
    while found.last() != Some(&Reply::Shut { error: 0 }) {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => reader.push(&bytes[..count]),
        }
        while let Some((_, reply)) = reader.next_reply().unwrap() {
            found.push(reply);
        }
    }
    found
}

fn send(endpoint: &Endpoint, bytes: &[u8]) -> Vec<Reply> {
    let mut stream = dial(endpoint);
    // A destination that has dropped us takes no more.
    let _ = stream.write_all(bytes);
    replies(&mut stream)
}

#[test]
fn a_source_is_answered_and_told_the_end() {
    let bytes = stream(&[RETURN_PATH, PING]);
    let (reception, heard) = exchange(&ReceiverOptions::default(), |to| send(to, &bytes));
    assert_eq!(heard, [Reply::Pong { value: 7 }, Reply::Shut { error: 0 }]);
    assert_eq!((reception.outcome, reception.reason.as_str()), (Outcome::Accepted, ""));
    assert_eq!(reception.bytes, bytes.len() as u64);
    assert_eq!(reception.pages, PageKinds { raw: 3, zero: 1, xbzrle: 1, compressed: 0 });
    assert_eq!(reception.passes.len(), 2);
    let sections: Vec<(SectionKind, &str)> =
        reception.sections.iter().map(|section| (section.kind, section.name.as_str())).collect();
    let (start, part, end) = (SectionKind::Start, SectionKind::Part, SectionKind::End);
    assert_eq!(sections, [(start, "ram"), (part, "ram"), (end, "ram"), (SectionKind::Full, "device state")]);
    let whole: u64 = reception.sections.iter().map(|section| section.bytes).sum();
    let before = head(Some("pc-i440fx-7.2")).len() + RETURN_PATH.len() + PING.len();
    assert_eq!(whole + before as u64, bytes.len() as u64);
    assert!(reception.stopped.unwrap() <= reception.complete.unwrap());
    let timeline: u64 = reception.timeline.iter().map(|step| step.bytes).sum();
    assert_eq!(timeline, reception.bytes);
}

#[test]
fn the_word_for_switchover_goes_to_those_who_know_it() {
    for (machine, option, expected) in
        [("pc-q35-8.0", false, 0), ("pc-q35-8.1", false, 1), ("virt-10.0", false, 1), ("pc-q35-2.4", true, 1)]
    {
        let bytes = [head(Some(machine)), RETURN_PATH.to_vec(), start(), memory(), tail()].concat();
        let options = ReceiverOptions { switchover_ack: option, ..ReceiverOptions::default() };
        let (_, heard) = exchange(&options, |to| send(to, &bytes));
        let acks = heard.iter().filter(|reply| **reply == Reply::SwitchoverAck).count();
        assert_eq!(acks, expected, "{machine}");
    }
}

#[test]
fn a_dropped_source_is_never_told_the_end() {
    let options = ReceiverOptions { ending: Ending::Drop, ..ReceiverOptions::default() };
    for (before, reason) in [
        (&[RETURN_PATH, PING][..], "switchover"),
        (&[][..], "no return path"),
        (&[RETURN_PATH, ADVISE][..], "post-copy"),
    ] {
        let (reception, heard) = exchange(&options, |to| send(to, &stream(before)));
        assert_eq!(reception.outcome, Outcome::Dropped);
        assert!(reception.reason.contains(reason), "{}", reception.reason);
        assert!(!heard.iter().any(|reply| matches!(reply, Reply::Shut { .. })), "{heard:?}");
    }
}

#[test]
fn a_limit_of_time_drops_a_source_that_goes_on() {
    let options = ReceiverOptions { limit: Some(Duration::from_millis(100)), ..ReceiverOptions::default() };
    let (reception, heard) = exchange(&options, |to| {
        let mut stream = dial(to);
        stream.write_all(&[head(Some("m")), RETURN_PATH.to_vec(), start()].concat()).unwrap();
        replies(&mut stream)
    });
    assert_eq!(reception.outcome, Outcome::Dropped);
    assert_eq!(heard, []);
}

#[test]
fn sources_that_are_lost_or_none_are_failures_with_a_reason() {
    let cut = stream(&[RETURN_PATH]);
    for (bytes, reason) in
        [(&b"GET / HTTP/1.1\r\n"[..], "no channel of a QEMU"), (&cut[..cut.len() / 2], "ends here")]
    {
        let (reception, ()) = exchange(&ReceiverOptions::default(), |to| dial(to).write_all(bytes).unwrap());
        assert_eq!(reception.outcome, Outcome::Failed);
        assert!(reception.reason.contains(reason), "{}", reception.reason);
    }
    let (reception, ()) = exchange(&ReceiverOptions::default(), |to| drop(dial(to)));
    assert_eq!(reception.outcome, Outcome::Failed);
    assert!(reception.reason.contains("before its stream was complete"), "{}", reception.reason);
}

#[test]
fn the_end_waits_for_every_channel() {
    let folder = std::env::temp_dir().join(format!("switchover-receiver-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let keep = folder.join("kept");
    let options = ReceiverOptions { keep: Some(keep.clone()), ..ReceiverOptions::default() };
    let main = stream(&[RETURN_PATH]);
    // As many points as the main channel has ends of pages: three.
    let sync = || packet(1, 0, &[], &[]);
    let pages = [channel(1), packet(0, 4096, &[0], &[]), sync(), sync()].concat();
    let last = [packet(0, 4096, &[0], &[]), sync()].concat();
    let (reception, early) = exchange(&options, |to| {
        let (mut first, mut second) = (dial(to), dial(to));
        first.write_all(&main).unwrap();
        second.write_all(&pages).unwrap();
        first.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let early = first.read(&mut [0; 8]).is_ok();
        second.write_all(&last).unwrap();
        first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(replies(&mut first), [Reply::Shut { error: 0 }]);
        early
    });
    assert!(!early, "told the end before all pages had come");
    assert_eq!(reception.outcome, Outcome::Accepted);
    let channel = &reception.channels[1];
    assert_eq!((channel.role, channel.number, channel.syncs), (Role::Multifd, Some(1), 3));
    assert_eq!(reception.passes[0].pages.raw + reception.passes[1].pages.raw, 3 + 2);
    assert_eq!(std::fs::read(&keep).unwrap(), main);
    assert_eq!(std::fs::read(folder.join("kept.1")).unwrap(), [pages, last].concat());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn waiting_ends() {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let options = ReceiverOptions { wait: Some(Duration::from_millis(30)), ..ReceiverOptions::default() };
    let error = receive(&listener, &options, &Control::default()).unwrap_err();
    assert!(error.to_string().contains("nobody connected"), "{error}");
    let control = Control::default();
    control.cancel();
    let error = receive(&listener, &options, &control).unwrap_err();
    assert!(error.to_string().contains("called off"), "{error}");
}
