//! What a channel has brought since its thread last told the others.

use super::contents::Contents;
use super::page_log::Run;
use super::session::Session;
use crate::error::Result;
use crate::qemu::event::{At, Event, Page, PageKind};
use crate::qemu::passes::Passes;
use crate::qemu::reception::PageKinds;

/// Pages of one pass.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passes: Passes,
    kinds: PageKinds,
    bytes: u64,
    /// Kept only where there is a log.
    runs: Option<Vec<Run>>,
}

impl Tally {
    pub(super) fn new(logs: bool) -> Self {
        Self { runs: logs.then(Vec::new), ..Self::default() }
    }

    /// Takes in what comes; `page_bytes` is the size of a page. Where a pass begins, the one before is told first; its
    /// pages are given back.
    pub(super) fn see(
        &mut self,
        at: At,
        event: &Event<'_>,
        page_bytes: u64,
        session: &Session<'_>,
    ) -> Result<PageKinds> {
        let before = self.passes.current().0;
        self.passes.see(at.channel, event);
        let pass = self.passes.current().0;
        let told = if pass == before { PageKinds::default() } else { self.tell_pass(before, session)? };
        match event {
            Event::Page(page) => self.page(at, page, pass, page_bytes, session),
            Event::Packet(packet) if packet.pages + packet.zeros > 0 => self.bytes += at.bytes,
            _ => {}
        }
        Ok(told)
    }

    fn page(&mut self, at: At, page: &Page<'_>, pass: usize, page_bytes: u64, session: &Session<'_>) {
        let count = match page.kind {
            PageKind::Raw => &mut self.kinds.raw,
            PageKind::Zero => &mut self.kinds.zero,
            PageKind::Xbzrle => &mut self.kinds.xbzrle,
            PageKind::Compressed => &mut self.kinds.compressed,
        };
        *count += 1;
        self.bytes += at.bytes;
        if let Some(runs) = &mut self.runs {
            let (first, kind) = (page.offset / page_bytes, page.kind);
            if Contents::picks(page.block, first) {
                session.look(pass, page.block, first, &page.content);
            }
            let page = Run { block: page.block, first, pages: 1, pass, kind };
            if !runs.last_mut().is_some_and(|run| run.grow(&page)) {
                runs.push(page);
            }
        }
    }

    /// Tells the others; the pages that were told.
    pub(super) fn tell(&mut self, session: &Session<'_>) -> Result<PageKinds> {
        self.tell_pass(self.passes.current().0, session)
    }

    fn tell_pass(&mut self, pass: usize, session: &Session<'_>) -> Result<PageKinds> {
        let (kinds, bytes) = (std::mem::take(&mut self.kinds), std::mem::take(&mut self.bytes));
        if kinds != PageKinds::default() || bytes > 0 {
            session.add_pages(pass, &kinds, bytes, self.runs.as_deref().unwrap_or_default())?;
            self.runs.iter_mut().for_each(Vec::clear);
        }
        Ok(kinds)
    }
}
