//! A model source: streams written as a QEMU writes them, sent to the receiver.

use std::io::{Read, Write};
use std::time::Duration;

use super::event::SectionKind;
use super::*;
use crate::link::{connect, Endpoint, Listener, Stream};

const DESCRIPTION: &[u8] = br#"{"page_size": 4096, "devices": []}"#;
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
    let named =
        device.map(|device| [&name(device)[..], &[0, 0, 0, 0, 0, 0, 0, 4]].concat()).unwrap_or_default();
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
    [memory_part(), memory_end()].concat()
}

fn memory_part() -> Vec<u8> {
    let first =
        [raw(0, Some("pc.ram")), zero(0x1000, None), raw(0x1000, Some("pc.rom")), word(0, 0x10)].concat();
    section(2, 2, None, &first)
}

fn memory_end() -> Vec<u8> {
    let changed = [&word(0x1000, 0x40)[..], &name("pc.ram"), &[1, 0, 3, 0, 1, 0xff]].concat();
    let second = [changed, raw(0x2000, None), word(0, 0x10)].concat();
    section(3, 2, None, &second)
}

fn tail() -> Vec<u8> {
    // What looks like the end, in the midst of a device's state, is none.
    let device = section(4, 5, Some("timer"), &[0, 6, 0, 0, 0, 9, b'{', b'"', b'p', 0, 6, 0, 0]);
    [&device[..], &[0, 6], &(DESCRIPTION.len() as u32).to_be_bytes(), DESCRIPTION].concat()
}

fn start() -> Vec<u8> {
    section(1, 2, Some("ram"), &list())
}

fn stream(before: &[&[u8]]) -> Vec<u8> {
    [head(Some("pc-i440fx-7.2")), before.concat(), start(), memory(), tail()].concat()
}

/// A pre-copy in four parts: what comes before the guest is stopped, the last memory, the devices, the description.
pub(super) fn pre_copy() -> (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>) {
    let before = [head(Some("pc-i440fx-7.2")), RETURN_PATH.to_vec(), start(), memory_part()].concat();
    let (tail, description) = (tail(), DESCRIPTION.len() + 5);
    let (devices, description) = tail.split_at(tail.len() - description);
    (before, memory_end(), devices.to_vec(), description.to_vec())
}

/// A post-copy in three parts: what comes before the package, the package, what comes after it.
pub(super) fn post_copy() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let before = [head(Some("x")), RETURN_PATH.to_vec(), ADVISE.to_vec(), start(), memory_part()].concat();
    let package = [&[8, 0, 7, 0, 4, 0, 0, 0, 5][..], &[8, 0, 5, 0, 0]].concat();
    (before, package, [memory_end(), vec![0]].concat())
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
    assert_eq!(sections, [(start, "ram"), (part, "ram"), (end, "ram"), (SectionKind::Full, "timer")]);
    let whole: u64 = reception.sections.iter().map(|section| section.bytes).sum();
    let before = head(Some("pc-i440fx-7.2")).len() + RETURN_PATH.len() + PING.len();
    let after = [&[0, 6, 0, 0, 0, 34][..], DESCRIPTION].concat().len();
    assert_eq!(whole + (before + after) as u64, bytes.len() as u64);
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
fn a_source_without_a_description_is_told_the_end_too() {
    let without_footer = |kind: u8, content: &[u8], device: Option<&str>| {
        let whole = section(kind, 2, device, content);
        whole[..whole.len() - 5].to_vec()
    };
    let pages = [zero(0, Some("pc.ram")), word(0, 0x10)].concat();
    let old = [
        head(None),
        RETURN_PATH.to_vec(),
        without_footer(1, &list(), Some("ram")),
        without_footer(3, &pages, None),
        vec![0],
    ];
    let package = [&[8, 0, 7, 0, 4, 0, 0, 0, 5][..], &[8, 0, 5, 0, 0]].concat();
    let end = section(3, 2, None, &pages);
    let post_copy =
        [head(Some("x")), RETURN_PATH.to_vec(), ADVISE.to_vec(), start(), package, end, vec![0]].concat();
    for bytes in [old.concat(), post_copy] {
        let (reception, heard) = exchange(&ReceiverOptions::default(), |to| send(to, &bytes));
        assert_eq!((reception.outcome, reception.reason.as_str()), (Outcome::Accepted, ""));
        assert_eq!(heard, [Reply::Shut { error: 0 }]);
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
fn channels_that_nobody_has_taken_yet_are_dropped_with_the_others() {
    let options = ReceiverOptions { ending: Ending::Drop, ..ReceiverOptions::default() };
    for _ in 0..20 {
        let bytes = stream(&[RETURN_PATH]);
        let (reception, ()) = exchange(&options, |to| {
            let mut main = dial(to);
            main.write_all(&bytes[..20]).unwrap();
            let mut others: Vec<Stream> = (0..30).map(|_| dial(to)).collect();
            let _ = main.write_all(&bytes[20..]);
            for other in &mut others {
                other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let lost = match other.read(&mut [0]) {
                    Ok(count) => count == 0,
                    Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
                };
                assert!(lost, "it would wait in its first write");
            }
        });
        assert_eq!(reception.outcome, Outcome::Dropped, "{}", reception.reason);
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
    let (keep, log) = (folder.join("kept"), folder.join("log"));
    let options =
        ReceiverOptions { keep: Some(keep.clone()), log: Some(log.clone()), ..ReceiverOptions::default() };
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
    for path in [&keep, &folder.join("kept.1")] {
        let times = std::fs::read(times::path_of(path)).unwrap();
        let last = String::from_utf8(times).unwrap().lines().last().unwrap().to_owned();
        let length = std::fs::metadata(path).unwrap().len().to_string();
        assert_eq!(last.split(' ').next(), Some(&length[..]));
    }
    let mut found = rows(&std::fs::read(&log).unwrap());
    found.sort_unstable();
    // Block, first page, pages, kind, pass, whether it came before.
    let (raw, zero, xbzrle) = (0, 1, 2);
    let main = [(0, 0, 1, raw), (0, 1, 1, zero), (1, 1, 1, raw), (0, 1, 1, xbzrle), (0, 2, 1, raw)];
    let found_kinds: Vec<_> = found.iter().map(|row| (row.0, row.1, row.2, row.3)).collect();
    let mut expected = [&main[..], &[(0, 0, 1, raw), (0, 0, 1, raw)]].concat();
    expected.sort_unstable();
    assert_eq!(found_kinds, expected);
    assert_eq!(found.iter().filter(|row| row.5 == 1).count(), 3, "{found:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Rows of a page log: block, first page, pages, kind, pass, whether they came before.
fn rows(log: &[u8]) -> Vec<(u32, u64, u32, u8, u32, u8)> {
    let head = log.iter().position(|byte| *byte == b'\n').unwrap();
    let text = std::str::from_utf8(&log[..head]).unwrap();
    assert!(text.contains(LOG_MAGIC) && text.contains("pc.rom"), "{text}");
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let row = |row: &[u8]| {
        let first = u64::from_le_bytes(row[8..16].try_into().unwrap());
        (number(&row[16..20]), first, number(&row[24..28]), row[28], number(&row[20..24]), row[29])
    };
    assert_eq!((log.len() - head - 1) % LOG_ROW, 0);
    log[head + 1..].chunks(LOG_ROW).map(row).collect()
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
