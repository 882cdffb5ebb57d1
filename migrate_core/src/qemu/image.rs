//! The memory that comes out of a capture: each page put in its place, later versions over earlier ones.

mod run;
mod target;

use std::path::Path;

pub use target::{Files, Placed, Target};

use super::blocks::Blocks;
use super::capture::Capture;
use super::event::{At, Content, Event, Page, Sink};
use super::marks::Marks;
use crate::codec::xbzrle;
use crate::error::{Error, Result};
use run::Run;

/// Puts pages in their places.
pub struct Image<T> {
    target: T,
    /// Inner `None`: the target has no place for the block; outer `None`: it was not asked.
    placed: Vec<Option<Option<Placed>>>,
    /// Pages that hold something: others are holes, which read as zeros.
    written: Vec<Marks>,
    run: Run,
    page: Vec<u8>,
}

/// Writes each RAM block into a file of `folder`, which is made if need be; names and lengths in bytes.
///
/// # Errors
/// [`Error::Stream`]: as [`Capture::run`]; what came before the offence is in the files. [`Error::Usage`]: the folder or a
/// file cannot be written.
pub fn extract(capture: &mut Capture, folder: &Path) -> Result<Vec<(String, std::path::PathBuf, u64)>> {
    let mut image = Image::new(Files::new(folder)?);
    let done = capture.run(&mut image);
    let files = image.finish(capture.blocks())?;
    done.map(|()| files.made())
}

impl<T: Target> Image<T> {
    /// Into what `target` has for each block.
    pub fn new(target: T) -> Self {
        Self { target, placed: Vec::new(), written: Vec::new(), run: Run::default(), page: Vec::new() }
    }

    /// What has a place for each block.
    pub fn target(&mut self) -> &mut T {
        &mut self.target
    }

    /// Writes what is left; blocks without pages get their places, too.
    ///
    /// # Errors
    /// [`Error::Usage`]: the place cannot be written.
    pub fn finish(mut self, blocks: &Blocks) -> Result<T> {
        self.flush()?;
        for index in 0..blocks.list().len() {
            self.place(index, blocks)?;
        }
        Ok(self.target)
    }

    /// The place of a block.
    fn place(&mut self, index: usize, blocks: &Blocks) -> Result<()> {
        if index >= self.placed.len() {
            self.placed.resize_with(index + 1, || None);
            self.written.resize_with(index + 1, Marks::default);
        }
        if let (None, Some(block)) = (&self.placed[index], blocks.get(index)) {
            self.placed[index] = Some(self.target.place(block)?);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.placed.get(self.run.block()) {
            Some(Some(Some(placed))) => self.run.write(placed),
            _ => Ok(()),
        }
    }

    fn put(&mut self, page: &Page<'_>, bytes: &[u8]) -> Result<()> {
        if !self.run.takes(page.block, page.offset, bytes.len()) {
            self.flush()?;
        }
        self.run.add(page.block, page.offset, bytes);
        Ok(())
    }

    fn page(&mut self, at: At, page: &Page<'_>, blocks: &Blocks) -> Result<()> {
        self.place(page.block, blocks)?;
        if let Some(Some(None)) = self.placed.get(page.block) {
            return Ok(());
        }
        let bytes = blocks.page_bytes() as usize;
        let number = page.offset / bytes as u64;
        match page.content {
            Content::Fill(0) if !self.written[page.block].has(number) => Ok(()),
            Content::Fill(byte) => {
                self.written[page.block].set(number);
                self.page.clear();
                self.page.resize(bytes, byte);
                self.put_own(page)
            }
            Content::Raw(content) => {
                self.written[page.block].set(number);
                self.put(page, content)
            }
            Content::Xbzrle(data) => {
                self.written[page.block].set(number);
                self.change(at, page, data, bytes)
            }
            Content::Compressed(data) => {
                self.written[page.block].set(number);
                self.expand(at, data, bytes)?;
                self.put_own(page)
            }
            Content::Packed => Err(Error::usage("pages that were left packed have no content to write")),
        }
    }

    fn put_own(&mut self, page: &Page<'_>) -> Result<()> {
        let own = std::mem::take(&mut self.page);
        let done = self.put(page, &own);
        self.page = own;
        done
    }

    /// Applies a difference to what is there.
    fn change(&mut self, at: At, page: &Page<'_>, data: &[u8], bytes: usize) -> Result<()> {
        self.flush()?;
        self.page.clear();
        self.page.resize(bytes, 0);
        if let Some(Some(Some(placed))) = self.placed.get(page.block) {
            placed.read(page.offset, &mut self.page)?;
        }
        let head = at.bytes.saturating_sub(data.len() as u64);
        let Ok(whole) = self.page.as_mut_slice().try_into() else {
            return Err(Error::stream(
                at.offset,
                format!("XBZRLE of pages of {bytes} bytes; only 4096 can be applied"),
            ));
        };
        xbzrle::apply(data, whole).map_err(|error| moved(error, at.offset + head))?;
        self.put_own(page)
    }

    fn expand(&mut self, at: At, data: &[u8], bytes: usize) -> Result<()> {
        self.page.clear();
        self.page.resize(bytes, 0);
        inflate(at, data, &mut self.page)
    }
}

/// Fills a page out of a zlib stream of its own.
pub(crate) fn inflate(at: At, data: &[u8], page: &mut [u8]) -> Result<()> {
    let mut zlib = flate2::Decompress::new(true);
    match zlib.decompress(data, page, flate2::FlushDecompress::Finish) {
        Ok(_) if zlib.total_out() == page.len() as u64 => Ok(()),
        Ok(_) => {
            let text =
                format!("a compressed page of {} bytes; {} were expected", zlib.total_out(), page.len());
            Err(Error::stream(at.offset, text))
        }
        Err(error) => {
            Err(Error::stream(at.offset, format!("a compressed page that is no zlib stream: {error}")))
        }
    }
}

fn moved(error: Error, by: u64) -> Error {
    match error {
        Error::Stream { offset, reason } => Error::stream(offset + by, reason),
        other => other,
    }
}

impl<T: Target> Sink for Image<T> {
    fn event(&mut self, at: At, event: &Event<'_>, blocks: &Blocks) -> Result<()> {
        match event {
            Event::Page(page) => self.page(at, page, blocks),
            _ => Ok(()),
        }
    }
}
