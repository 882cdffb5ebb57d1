//! What pages hold that come: a sample of them, for each pass.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::qemu::event::Content;
use crate::trace::{Sample, Stream};

/// One page in so many is looked at: the same ones in each pass, so that there are versions to compare.
const SHARE: u64 = 64;

/// A sample that is being taken, by several threads in turns.
pub(super) struct Contents {
    samples: Vec<Sample>,
    stream: Stream,
    path: PathBuf,
}

impl Contents {
    /// To be written beside the log at `path`, as JSON, with `.samples` after its name.
    pub(super) fn beside(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".samples");
        Ok(Self { samples: Vec::new(), stream: Stream::new()?, path: name.into() })
    }

    /// Whether a page is one of those that are looked at.
    pub(super) fn picks(block: usize, page: u64) -> bool {
        Stream::picks(number(block, page), SHARE)
    }

    /// It came in pass `pass`. What it holds must be known without the version before.
    pub(super) fn look(&mut self, pass: usize, block: usize, page: u64, content: &Content<'_>) {
        let whole = match content {
            Content::Raw(bytes) => <&[u8; PAGE]>::try_from(*bytes).ok().copied(),
            Content::Fill(byte) => Some([*byte; PAGE]),
            _ => None,
        };
        let Some(whole) = whole else { return };
        if self.samples.last().is_none_or(|sample| (sample.interval as usize) < pass) {
            self.samples.push(Sample { interval: pass as u32, ..Sample::default() });
        }
        // Channels do not begin a pass at the same moment.
        let sample = self.samples.iter_mut().rev().find(|sample| sample.interval as usize <= pass);
        if let Some(sample) = sample {
            self.stream.look(number(block, page), &whole, sample);
        }
    }

    /// Writes them: a list of samples, whose `interval` is the pass.
    pub(super) fn finish(&self) -> Result<()> {
        let text = serde_json::to_string(&self.samples).map_err(|error| Error::usage(error.to_string()))?;
        std::fs::write(&self.path, text)
            .map_err(|source| Error::System { what: format!("writing {}", self.path.display()), source })
    }
}

/// A number for a page of any block.
fn number(block: usize, page: u64) -> u64 {
    (block as u64) << 44 | page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_compared_with_what_came_before_it() {
        let folder = std::env::temp_dir().join(format!("switchover-contents-{}", std::process::id()));
        let mut contents = Contents::beside(&folder).unwrap();
        let mut page = [0x5A; PAGE];
        contents.look(0, 0, 7, &Content::Raw(&page));
        contents.look(0, 0, 8, &Content::Fill(0));
        page[100] = 1;
        contents.look(2, 0, 7, &Content::Raw(&page));
        // One of another channel, which is behind; and what cannot be looked at.
        contents.look(1, 1, 7, &Content::Raw(&page));
        contents.look(2, 0, 7, &Content::Packed);
        contents.look(2, 0, 7, &Content::Raw(&page[..10]));
        contents.finish().unwrap();
        let path =
            folder.with_file_name(format!("{}.samples", folder.file_name().unwrap().to_str().unwrap()));
        let read: Vec<Sample> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        let counts: Vec<_> =
            read.iter().map(|s| (s.interval, s.pages, s.zero, s.based, s.duplicates)).collect();
        assert_eq!(counts, [(0, 3, 1, 0, 1), (2, 1, 0, 1, 0)]);
        assert!(read[1].xbzrle < 16 && read[1].zstd < 100, "{:?}", read[1]);
    }

    #[test]
    fn one_page_in_64_is_looked_at_the_same_each_time() {
        let picked = (0..64_000).filter(|page| Contents::picks(0, *page)).count();
        assert!((800..1200).contains(&picked), "{picked}");
    }
}
