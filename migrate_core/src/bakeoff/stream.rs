//! A captured QEMU migration: its pages as it sent them, with the versions that were sent again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::take::Choice;
use super::{PageSet, Taking};
use crate::codec::{further, xbzrle, Page, BATCH};
use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::qemu::blocks::Blocks;
use crate::qemu::capture::Capture;
use crate::qemu::event::{self, At, Content, Event, Sink};
use crate::qemu::image::inflate;

/// Versions that are taken of each page on average, at most: a capture may go on for ever.
const MOST_VERSIONS: usize = 16;

/// Takes pages out of a stream.
struct Pages {
    most: usize,
    /// Which pages are taken, and where each block's begin; known when the first page comes, after the list of blocks.
    chosen: Option<(Choice, Vec<u64>)>,
    set: PageSet,
    round: u32,
    full: bool,
}

/// The pages of a capture, of which `taking` says how many; a page that comes again does so in a later round. `cancel`
/// ends it early.
///
/// # Errors
/// [`Error::Stream`] where the capture breaks its format; [`Error::Usage`] if there is no page in it, or pages of another
/// size than 4096 bytes.
pub fn of_stream(capture: &mut Capture, bytes: u64, cancel: &AtomicBool) -> Result<PageSet> {
    let most = Taking { bytes, rounds: 1 }.check()?;
    let mut pages = Pages { most, chosen: None, set: PageSet::new(0, 0, 0), round: 0, full: false };
    while !pages.full && !cancel.load(Ordering::Relaxed) && capture.step(&mut pages)? {}
    pages.set.sealed()
}

impl Pages {
    /// The page's number among those of all blocks, if it is taken.
    fn number(&mut self, page: &event::Page<'_>, blocks: &Blocks) -> Result<Option<u64>> {
        if blocks.page_bytes() != PAGE as u64 {
            let bytes = blocks.page_bytes();
            return Err(Error::usage(format!("pages of {bytes} bytes; codecs are tried on pages of {PAGE}")));
        }
        let (choice, starts) = self.chosen.get_or_insert_with(|| {
            let mut all = 0;
            let starts = blocks.list().iter().map(|block| {
                all += block.bytes / PAGE as u64;
                all - block.bytes / PAGE as u64
            });
            let starts: Vec<u64> = starts.collect();
            let most = self.most.max(BATCH);
            self.set = PageSet::new(most * MOST_VERSIONS, most, all);
            (Choice::new(all, self.most), starts)
        });
        let place = starts.get(page.block).map(|start| start + page.offset / PAGE as u64);
        Ok(place.filter(|place| choice.takes(*place)))
    }

    fn take(&mut self, at: At, page: &event::Page<'_>, blocks: &Blocks) -> Result<()> {
        let Some(number) = self.number(page, blocks)? else { return Ok(()) };
        let bytes = content(at, page.content, self.set.last(number))?;
        // The source walks over memory in order: what it sent already it meets again in the next round.
        if self.set.last_round(number).is_some_and(|last| last >= self.round) {
            self.round += 1;
        }
        self.full = !self.set.push(self.round, number, &bytes);
        Ok(())
    }
}

/// The page that comes out; `base` is what was there.
fn content(at: At, content: Content<'_>, base: Option<&Page>) -> Result<Box<Page>> {
    let mut page = Box::new([0; PAGE]);
    match content {
        Content::Raw(bytes) if bytes.len() == PAGE => page.copy_from_slice(bytes),
        Content::Raw(bytes) => {
            return Err(Error::stream(at.offset, format!("a page of {} bytes, not {PAGE}", bytes.len())))
        }
        Content::Fill(byte) => page.fill(byte),
        Content::Xbzrle(data) => {
            base.iter().for_each(|base| *page = **base);
            let head = at.bytes.saturating_sub(data.len() as u64);
            xbzrle::apply(data, &mut page).map_err(|error| further(error, (at.offset + head) as usize))?;
        }
        Content::Compressed(data) => inflate(at, data, page.as_mut_slice())?,
        Content::Packed => return Err(Error::usage("pages that were left packed have no content")),
    }
    Ok(page)
}

impl Sink for Pages {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        match event {
            Event::Page(page) if !self.full => self.take(at, page, blocks),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::blocks::Block;
    use crate::qemu::event::PageKind;

    const AT: At = At { channel: 0, offset: 1000, bytes: 20 };

    fn blocks(sizes: &[u64]) -> Blocks {
        let mut blocks = Blocks::default();
        for (index, pages) in sizes.iter().enumerate() {
            let block = Block {
                name: format!("block {index}"),
                bytes: pages * PAGE as u64,
                backing_page: None,
                address: None,
                pages_at: None,
            };
            assert!(blocks.add(block));
        }
        blocks
    }

    fn pages(most: usize) -> Pages {
        Pages { most, chosen: None, set: PageSet::new(0, 0, 0), round: 0, full: false }
    }

    fn event(block: usize, page: u64, content: Content<'_>) -> Event<'_> {
        Event::Page(event::Page { block, offset: page * PAGE as u64, kind: PageKind::Raw, content })
    }

    #[test]
    fn every_kind_of_content_becomes_a_version_on_the_one_before() {
        let (blocks, mut taken) = (blocks(&[4, 4]), pages(100));
        let (ones, zlib) = ([1; PAGE], {
            use std::io::Write;
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            zlib.write_all(&[9; PAGE]).unwrap();
            zlib.finish().unwrap()
        });
        let sent = [
            event(0, 3, Content::Raw(&ones)),
            event(1, 0, Content::Fill(0)),
            event(1, 1, Content::Compressed(&zlib)),
            // Five bytes as they are, then one changed.
            event(0, 3, Content::Xbzrle(&[5, 1, 7])),
            event(1, 0, Content::Fill(3)),
            event(0, 3, Content::Xbzrle(&[6, 1, 8])),
        ];
        sent.iter().for_each(|event| taken.event(AT, event, &blocks).unwrap());
        let set = taken.set.sealed().unwrap();
        let seen: Vec<_> = set.versions().iter().map(|v| (v.round, v.page, v.before)).collect();
        let first = [(0, 3, None), (0, 4, None), (0, 5, None)];
        assert_eq!(seen, [first.as_slice(), &[(1, 3, Some(0)), (1, 4, Some(1)), (2, 3, Some(3))]].concat());
        let page = |index: usize| &set.contents()[index];
        assert!(page(1) == &[0; PAGE] && page(2) == &[9; PAGE] && page(4) == &[3; PAGE]);
        assert_eq!((&page(5)[4..8], set.memory_pages()), (&[1, 7, 8, 1][..], 8));
    }

    #[test]
    fn a_large_guest_is_sampled_and_what_goes_on_for_ever_is_cut() {
        let (blocks, mut taken) = (blocks(&[1 << 20]), pages(128));
        let content = [7; PAGE];
        for page in 0..1 << 20 {
            taken.event(AT, &event(0, page, Content::Raw(&content)), &blocks).unwrap();
        }
        assert_eq!(taken.set.pages(), 128);
        for _ in 0..10_000 {
            taken.event(AT, &event(0, 0, Content::Fill(1)), &blocks).unwrap();
        }
        assert!(taken.full && taken.set.versions().len() == 128 * MOST_VERSIONS);
    }

    #[test]
    fn what_no_source_sends_is_refused_with_its_place() {
        let (blocks, mut taken) = (blocks(&[4]), pages(100));
        let mut refuse = |content| taken.event(AT, &event(0, 0, content), &blocks).unwrap_err().to_string();
        assert!(refuse(Content::Raw(&[1; 5])).contains("at byte 1000: a page of 5 bytes"));
        assert!(refuse(Content::Compressed(&[1; 5])).contains("at byte 1000: a compressed page"));
        // Its head has 18 of the record's 20 bytes.
        assert!(refuse(Content::Xbzrle(&[1, 0xff])).contains("at byte 10"));
        assert!(refuse(Content::Packed).contains("packed"));
        let mut large = Blocks::default();
        large.set_page_bytes(65536);
        let refused = pages(1).event(AT, &event(0, 0, Content::Fill(0)), &large).unwrap_err().to_string();
        assert!(refused.contains("pages of 65536 bytes"), "{refused}");
        pages(1).event(AT, &event(7, 0, Content::Fill(0)), &blocks).unwrap();
    }
}
