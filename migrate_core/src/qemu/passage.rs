//! When the parts of a migration went by, as who carries its bytes sees it.
//!
//! A [`Passage`] watches a [`Forwarder`](crate::link::Forwarder). It reads the main channel on its way, changes nothing
//! and holds nothing up: what it cannot read it gives up on, and says so. A moment is that by which the last byte of a
//! part had been handed to the socket of its receiver, who may take it out of there later.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::blocks::Blocks;
use super::event::{At, Command, Event, Section, SectionKind, Sink};
use super::return_path::{Reply, ReplyReader};
use super::stream::{is_main, Feed, Parser};
use crate::error::Result;
use crate::link::Witness;

/// Pieces of which the moment is kept: far more than a parser lags behind.
const KEPT: usize = 4096;
/// Bytes by which a main channel is known.
const HEAD: usize = 4;

/// Moments in seconds since 1970 by this machine's clock; `None` for what was not seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Moments {
    /// The source said that its guest has stopped for good (QEMU 10.0 and later).
    pub switchover_start: Option<f64>,
    /// The last section of memory began; its guest is stopped by then.
    pub last_ram_begins: Option<f64>,
    /// The last section of memory was over.
    pub last_ram_ends: Option<f64>,
    /// Post-copy: the package that starts the guest began.
    pub package_begins: Option<f64>,
    /// Post-copy: it was over.
    pub package_ends: Option<f64>,
    /// All sections were over, the devices' too.
    pub sections_end: Option<f64>,
    /// The VM description was over, the last bytes of a pre-copy.
    pub description_ends: Option<f64>,
    /// The last bytes on any other connection: multifd's, or those that a post-copy asked for.
    pub beside: Option<f64>,
    /// The destination asked for its first page.
    pub first_request: Option<f64>,
    /// The destination said that all is loaded.
    pub shut: Option<f64>,
    /// Why the main channel was not read on.
    pub error: Option<String>,
}

/// Watches the connections of one migration.
#[derive(Debug, Default)]
pub struct Passage(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    moments: Moments,
    /// First bytes of connections that are too few to tell.
    heads: HashMap<usize, Vec<u8>>,
    main: Option<Main>,
}

/// The main channel and what is answered on it.
#[derive(Debug)]
struct Main {
    number: usize,
    bytes: u64,
    /// By when how many bytes had gone by.
    log: VecDeque<(u64, f64)>,
    feed: Option<Feed>,
    replies: Option<ReplyReader>,
}

impl Passage {
    /// What has been seen so far.
    pub fn moments(&self) -> Moments {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).moments.clone()
    }
}

impl Witness for Passage {
    fn saw(&self, connection: usize, there: bool, bytes: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saw(connection, there, bytes, now);
    }
}

impl Seen {
    fn saw(&mut self, connection: usize, there: bool, bytes: &[u8], now: f64) {
        match &mut self.main {
            Some(main) if main.number == connection && there => main.forward(bytes, now, &mut self.moments),
            Some(main) if main.number == connection => main.back(bytes, now, &mut self.moments),
            None if there => self.meet(connection, bytes, now),
            _ if there => self.moments.beside = Some(now),
            _ => {}
        }
    }

    /// A connection while none is known to be the main one.
    fn meet(&mut self, connection: usize, bytes: &[u8], now: f64) {
        let head = self.heads.entry(connection).or_default();
        // What has begun otherwise goes on otherwise.
        if head.len() >= HEAD {
            self.moments.beside = Some(now);
            return;
        }
        head.extend_from_slice(bytes);
        if !is_main(head) {
            head.truncate(HEAD);
            return;
        }
        let begun = std::mem::take(head);
        let mut main = Main::new(connection);
        main.forward(&begun, now, &mut self.moments);
        self.main = Some(main);
    }
}

impl Main {
    fn new(number: usize) -> Self {
        let feed = Some(Feed::new(Parser::new(0, 0)));
        Self { number, bytes: 0, log: VecDeque::new(), feed, replies: Some(ReplyReader::default()) }
    }

    fn forward(&mut self, bytes: &[u8], now: f64, moments: &mut Moments) {
        self.bytes += bytes.len() as u64;
        self.log.push_back((self.bytes, now));
        if self.log.len() > KEPT {
            self.log.pop_front();
        }
        let Some(feed) = &mut self.feed else { return };
        let mut noter = Noter { moments, log: &self.log };
        if let Err(error) = feed.feed(bytes, &mut noter) {
            moments.error = Some(error.to_string());
            self.feed = None;
        }
    }

    fn back(&mut self, bytes: &[u8], now: f64, moments: &mut Moments) {
        let Some(replies) = &mut self.replies else { return };
        replies.push(bytes);
        loop {
            match replies.next_reply() {
                Ok(Some((_, Reply::Shut { error: 0 }))) => moments.shut = moments.shut.or(Some(now)),
                Ok(Some((_, Reply::Request { .. }))) => {
                    moments.first_request = moments.first_request.or(Some(now));
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    self.replies = None;
                    return;
                }
            }
        }
    }
}

/// Takes moments out of what a parser finds.
struct Noter<'a> {
    moments: &'a mut Moments,
    log: &'a VecDeque<(u64, f64)>,
}

impl Sink for Noter<'_> {
    fn event(&mut self, at: At, event: &Event<'_>, _: &Blocks) -> Result<()> {
        let moments = &mut *self.moments;
        let place = match event {
            Event::Command(Command::SwitchoverStart) => &mut moments.switchover_start,
            Event::Command(Command::Package { .. }) => &mut moments.package_begins,
            Event::PackageEnds => &mut moments.package_ends,
            Event::SectionBegins(section) if ends_memory(section) => &mut moments.last_ram_begins,
            Event::SectionEnds { section, .. } if ends_memory(section) => &mut moments.last_ram_ends,
            Event::SectionsEnd => &mut moments.sections_end,
            Event::DescriptionEnds => &mut moments.description_ends,
            _ => return Ok(()),
        };
        *place = place.or_else(|| by(self.log, at.offset + at.bytes));
        Ok(())
    }

    fn wants_content(&self) -> bool {
        false
    }
}

/// When all bytes up to `end` had gone by.
fn by(log: &VecDeque<(u64, f64)>, end: u64) -> Option<f64> {
    let at = log.partition_point(|(bytes, _)| *bytes < end);
    log.get(at).or(log.back()).map(|(_, when)| *when)
}

fn ends_memory(section: &Section) -> bool {
    section.kind == SectionKind::End && section.name == "ram"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::tests::{post_copy, pre_copy};
    use proptest::prelude::*;

    /// Each piece goes by a second after the one before.
    fn passed(stream: &[u8], piece: usize, connection: usize) -> Moments {
        let mut seen = Seen::default();
        for (second, bytes) in stream.chunks(piece).enumerate() {
            seen.saw(connection, true, bytes, second as f64);
        }
        seen.moments
    }

    /// The second in which the byte before `end` goes by.
    fn second(end: usize, piece: usize) -> f64 {
        ((end - 1) / piece) as f64
    }

    proptest! {
        #[test]
        fn however_it_is_cut_a_part_ends_with_its_last_byte(piece in 1usize..9000) {
            let (before, memory, devices, description) = pre_copy();
            let ends = [before.len(), memory.len(), devices.len(), description.len()];
            let [stop, ram, sections, end] = [1, 2, 3, 4].map(|count| ends[..count].iter().sum::<usize>());
            let seen = passed(&[before, memory, devices, description].concat(), piece, 3);
            // The section's head is nine bytes of which the first five tell it.
            prop_assert_eq!(seen.last_ram_begins, Some(second(stop + 5, piece)));
            prop_assert_eq!(seen.last_ram_ends, Some(second(ram, piece)));
            prop_assert_eq!(seen.sections_end, Some(second(sections, piece)));
            prop_assert_eq!(seen.description_ends, Some(second(end, piece)));
            prop_assert_eq!((seen.package_begins, seen.error), (None, None));
        }

        #[test]
        fn bytes_of_any_kind_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            passed(&bytes, piece, 0);
            let mut main = b"QEVM\0\0\0\x03".to_vec();
            main.extend(&bytes);
            passed(&main, piece, 0);
            Passage::default().saw(0, false, &bytes);
        }
    }

    #[test]
    fn a_package_has_a_beginning_and_an_end() {
        let (before, package, after) = post_copy();
        let (begins, ends) = (before.len() + 9, before.len() + package.len());
        let seen = passed(&[before, package, after].concat(), 1, 0);
        assert_eq!(seen.package_begins, Some(second(begins, 1)));
        assert_eq!(seen.package_ends, Some(second(ends, 1)));
        assert!(seen.last_ram_ends > seen.package_ends);
        assert_eq!((seen.description_ends, seen.error), (None, None));
    }

    #[test]
    fn other_connections_are_beside_and_answers_are_heard() {
        let mut seen = Seen::default();
        seen.saw(1, true, b"\x11\x22", 1.0);
        seen.saw(0, true, b"QE", 2.0);
        seen.saw(1, true, b"\x33\x44", 3.0);
        assert_eq!(seen.moments.beside, None, "too little to tell");
        seen.saw(1, true, b"\x55", 4.0);
        seen.saw(0, true, b"VM\0\0\0\x03", 5.0);
        assert_eq!((seen.main.as_ref().unwrap().number, seen.moments.beside), (0, Some(4.0)));
        seen.saw(1, true, b"pages", 6.0);
        let request = Reply::Request { block: None, start: 0, length: 4096 }.encode().unwrap();
        let shut = Reply::Shut { error: 0 }.encode().unwrap();
        for (at, piece) in [(7.0, &request[..]), (8.0, &request[..]), (9.0, &shut[..3]), (10.0, &shut[3..])] {
            seen.saw(0, false, piece, at);
        }
        seen.saw(1, false, b"\0", 11.0);
        let moments = &seen.moments;
        assert_eq!((moments.beside, moments.first_request, moments.shut), (Some(6.0), Some(7.0), Some(10.0)));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_left() {
        let seen = passed(b"QEVM\0\0\0\x03\xffmore and more", 4, 0);
        assert!(seen.error.unwrap().contains("byte 8"));
        assert_eq!(
            passed(&[0x16, 3, 1, 2, 0, 1, 0], 2, 0),
            Moments { beside: Some(3.0), ..Moments::default() }
        );
    }
}
