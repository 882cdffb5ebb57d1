//! The compare tracker: looks at contents, and needs nothing of the kernel.
//!
//! For each page it keeps a base: a hash or a copy of bytes. A page whose content differs from its base is
//! dirty. Three things move a base:
//!
//! * `arm` sets it to the content, and round 0 sends every page whatever is reported;
//! * `harvest` sets it to the very content that it compared and found different, and reports the page,
//!   which the caller thereby undertakes to send;
//! * `sent` sets it to the bytes that were sent.
//!
//! Why no interleaving of writer, harvest and send loses a page: of each page one of these holds at any
//! time. (1) The caller still has to send it, since round 0 has not come to it or a harvest reported it
//! and nothing was sent since. (2) It is marked: a peek saw it differ, so the next harvest reports it even
//! if it has changed back by then; a caller that peeks may leave a dirty page unsent and rely on that.
//! (3) Its base is what the destination has: `sent` was told last, of those very bytes, and base and
//! content were compared since without a difference, or not at all. A harvest with writers stopped after
//! which nothing is left to send thus leaves only pages whose content equals their base, in state 3: the
//! destination has them. A write during the comparison, or torn bytes in a copy, give a base that is some
//! mix of old and new; either that mix is what memory holds in the end, or the page differs and is
//! reported. Without `sent` a page that changes, is sent and changes back would look clean: its base would
//! be of an older look, not of what was sent.
//!
//! With hashes two contents of one page may collide; XXH3's 128 bits make that one chance in 2^128 a
//! comparison for contents that are not made to collide. `keep = "copy"` leaves no chance.

use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::held::Held;
use super::{Track, Tracker};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, PAGE};

const NAME: &str = "compare";

crate::knobs! {
    /// Compares each page with what the destination has. Free for writers, and sees all of them; each
    /// harvest reads all of the memory that it is asked about.
    pub struct Compare {
        /// What is kept of each page: `hash` (16 bytes) or `copy` (all of it: as much memory again).
        keep: String [Text] = "hash",
    }
}

/// An armed or unarmed compare tracker.
#[derive(Debug)]
pub struct CompareTracker {
    copies: bool,
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    memory: Arc<GuestMemory>,
    base: Base,
    /// Pages that a peek saw differ.
    marked: Held,
}

/// What is kept, a page an element.
#[derive(Debug)]
enum Base {
    Hashes(Vec<u128>),
    Copies(Vec<[u8; PAGE]>),
}

impl Track for Compare {
    type Tracker = CompareTracker;

    fn probe() -> Result<()> {
        Ok(())
    }

    fn build(self) -> Result<CompareTracker> {
        let copies = match self.keep.as_str() {
            "hash" => false,
            "copy" => true,
            other => return Err(Error::usage(format!("Compare: keep must be hash or copy, not `{other}`"))),
        };
        Ok(CompareTracker { copies, armed: None })
    }
}

impl Base {
    fn new(copies: bool, memory: &GuestMemory) -> Result<Self> {
        let pages = memory.pages();
        match copies {
            false => reserve(pages).map(|mut hashes| {
                hashes.extend((0..pages).map(|page| memory.hash_page_128(page)));
                Self::Hashes(hashes)
            }),
            true => reserve(pages).map(|mut copies| {
                copies.extend((0..pages).map(|page| content(memory, page)));
                Self::Copies(copies)
            }),
        }
    }

    /// Whether `page` differs from its base; with `take` its base becomes the content that was compared.
    /// That is one read of memory: of two, the second could hold a write that the first did not.
    fn differs(&mut self, memory: &GuestMemory, page: u64, take: bool) -> bool {
        match self {
            Self::Hashes(hashes) => changed(&mut hashes[page as usize], memory.hash_page_128(page), take),
            Self::Copies(copies) => changed(&mut copies[page as usize], content(memory, page), take),
        }
    }

    fn set(&mut self, page: u64, bytes: &[u8; PAGE]) {
        match self {
            Self::Hashes(hashes) => hashes[page as usize] = xxh3_128(bytes),
            Self::Copies(copies) => copies[page as usize] = *bytes,
        }
    }
}

fn changed<T: PartialEq>(base: &mut T, content: T, take: bool) -> bool {
    let differs = *base != content;
    if differs && take {
        *base = content;
    }
    differs
}

fn content(memory: &GuestMemory, page: u64) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    memory.read_page(page, &mut bytes);
    bytes
}

fn reserve<T>(pages: u64) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(pages as usize).map_err(|e| {
        Error::usage(format!("the tracker `{NAME}` needs {} bytes: {e}", pages * size_of::<T>() as u64))
    })?;
    Ok(list)
}

impl CompareTracker {
    fn armed(&mut self) -> Result<&mut Armed> {
        self.armed.as_mut().ok_or_else(|| Error::usage(format!("the tracker `{NAME}` is not armed")))
    }
}

impl Tracker for CompareTracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        let (base, marked) = (Base::new(self.copies, memory)?, Held::new(memory.pages()));
        self.armed = Some(Armed { memory: Arc::clone(memory), base, marked });
        Ok(())
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let Armed { memory, base, marked } = self.armed()?;
        let pages = pages.start..pages.end.min(memory.pages());
        marked.take(&pages, into);
        let differing = pages.filter(|page| base.differs(memory, *page, true));
        differing.for_each(|page| into.set(page));
        Ok(())
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let Armed { memory, base, marked } = self.armed()?;
        let pages = pages.start..pages.end.min(memory.pages());
        let differing = pages.clone().filter(|page| base.differs(memory, *page, false));
        differing.for_each(|page| marked.keep(page));
        marked.peek(&pages, into);
        Ok(())
    }

    fn disarm(&mut self) {
        self.armed = None;
    }

    fn wants_sent(&self) -> bool {
        true
    }

    fn sent(&mut self, page: u64, bytes: &[u8; PAGE]) {
        if let Some(armed) = self.armed.as_mut().filter(|armed| page < armed.memory.pages()) {
            armed.base.set(page, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Layout;

    fn tracked(keep: &str) -> (Arc<GuestMemory>, CompareTracker) {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        let mut tracker = Compare { keep: keep.into() }.build().unwrap();
        tracker.arm(&memory).unwrap();
        (memory, tracker)
    }

    fn dirty(tracker: &mut CompareTracker) -> Vec<u64> {
        let mut into = Bitmap::new(256);
        tracker.harvest(0..256, &mut into).unwrap();
        into.runs().flat_map(|run| run.range()).collect()
    }

    #[test]
    fn a_page_that_was_sent_and_changed_back_is_dirty() {
        for keep in ["hash", "copy"] {
            let (memory, mut tracker) = tracked(keep);
            memory.write(0, &[1]);
            tracker.sent(0, &content(&memory, 0));
            memory.write(0, &[0]);
            assert_eq!(dirty(&mut tracker), [0]);
            assert!(dirty(&mut tracker).is_empty());
        }
    }

    #[test]
    fn a_page_that_a_peek_saw_dirty_stays_so_although_it_changes_back() {
        for keep in ["hash", "copy"] {
            let (memory, mut tracker) = tracked(keep);
            memory.write(0, &[1]);
            assert_eq!(dirty(&mut tracker), [0]);
            memory.write(0, &[2]);
            tracker.peek(0..256, &mut Bitmap::new(256)).unwrap();
            memory.write(0, &[1]);
            assert_eq!(dirty(&mut tracker), [0], "the caller left it unsent since it was dirty again");
        }
    }

    #[test]
    fn other_words_for_keep_are_refused() {
        let error = Compare { keep: "all".into() }.build().unwrap_err().to_string();
        assert!(error.contains("hash or copy"), "{error}");
    }
}
