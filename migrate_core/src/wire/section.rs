//! Sections: the framing of pages and messages.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::encoded::{parse_encoded, Encoding};
use super::message::Message;
use crate::bitmap::Run;
use crate::error::{Error, Result};
use crate::guest::{self, GuestMemory, PAGE};

/// Version of the stream. A peer of another version is refused by the first section.
pub const VERSION: u8 = 1;

/// Pages in one section at most: what bounds a receiver's allocation.
pub const MOST_PAGES: u64 = 1 << 16;

const MAGIC: [u8; 2] = *b"SW";
const HEADER: usize = 24;
/// Bytes of a list of runs before its runs, of a run, and of a page's checksum.
const RUNS_HEAD: u64 = 8;
const RUN: u64 = 12;
const HASH: u64 = 8;
/// Bytes of a message at most: an execution state or the runs of torn pages.
const MOST_BODY: u32 = 64 << 20;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// JSON.
    Message = 1,
    /// Pages as they are.
    Pages = 2,
    /// Pages of zeros; no payload.
    Zeros = 3,
    /// u128 XXH3-128 of consecutive pages, as the payload; the body names the run.
    Hashes = 4,
    /// Pages made shorter by a codec; the encoding is the payload.
    Encoded = 5,
    /// What the source's codec has learnt before the first page, as the payload.
    Learnt = 6,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        [Self::Message, Self::Pages, Self::Zeros, Self::Hashes, Self::Encoded, Self::Learnt]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

pub(super) fn header(kind: Kind, body: &[u8], payload: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&MAGIC);
    header[2] = VERSION;
    header[3] = kind as u8;
    header[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&payload.to_le_bytes());
    let check = checksum(&header, body);
    header[16..].copy_from_slice(&check.to_le_bytes());
    header
}

fn checksum(header: &[u8; HEADER], body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64(&header[..16]))
}

/// Bytes of a section of `pages` pages in `runs` runs; none without pages.
pub fn pages_bytes(runs: u64, pages: u64) -> u64 {
    match pages {
        0 => 0,
        pages => zeros_bytes(runs) + pages * (HASH + PAGE as u64),
    }
}

/// Bytes of a section that names zero pages in `runs` runs; none without runs.
pub fn zeros_bytes(runs: u64) -> u64 {
    match runs {
        0 => 0,
        runs => HEADER as u64 + RUNS_HEAD + runs * RUN,
    }
}

pub(super) fn put_runs(body: &mut Vec<u8>, runs: &[Run]) {
    let pages: u64 = runs.iter().map(|run| run.pages).sum();
    body.extend((runs.len() as u32).to_le_bytes());
    body.extend((pages as u32).to_le_bytes());
    for run in runs {
        body.extend(run.first.to_le_bytes());
        body.extend((run.pages as u32).to_le_bytes());
    }
}

/// Writes sections, counting bytes.
#[derive(Debug)]
pub struct Writer<S> {
    stream: S,
    sent: u64,
}

impl<S: Write + AsFd> Writer<S> {
    /// Writes to `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, sent: 0 }
    }

    /// Bytes written so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The stream itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Sends a message.
    pub fn message(&mut self, message: &Message) -> Result<()> {
        let body = serde_json::to_vec(message)
            .map_err(|e| Error::usage(format!("message {}: {e}", message.name())))?;
        if body.len() > MOST_BODY as usize {
            return Err(Error::usage(format!(
                "message {} has {} bytes, more than {MOST_BODY}",
                message.name(),
                body.len()
            )));
        }
        self.bytes(&[&header(Kind::Message, &body, 0), &body], &format!("sending {}", message.name()))
    }

    pub(super) fn bytes(&mut self, parts: &[&[u8]], what: &str) -> Result<()> {
        self.whole(&parts.concat(), what)
    }

    pub(super) fn whole(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        self.stream.write_all(bytes).map_err(|e| Error::io(what, e))?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Sends the pages of `runs` straight from guest memory.
    pub fn pages(&mut self, memory: &GuestMemory, runs: &[Run]) -> Result<()> {
        let hashes = runs.iter().flat_map(Run::range).map(|page| memory.hash_page(page));
        let (head, payload) = page_head(runs, hashes);
        guest::write_pages(self.stream.as_fd(), &head, memory, runs)?;
        self.sent += head.len() as u64 + payload;
        Ok(())
    }

    /// Sends the pages of `runs` whose contents, in order, are `contents`: a copy that no guest changes.
    pub fn copied_pages(&mut self, contents: &[u8], runs: &[Run]) -> Result<()> {
        let (head, _) = page_head(runs, contents.chunks_exact(PAGE).map(xxh3_64));
        self.bytes(&[&head, contents], "sending pages")
    }

    /// Names pages of zeros.
    pub fn zeros(&mut self, runs: &[Run]) -> Result<()> {
        let mut body = Vec::new();
        put_runs(&mut body, runs);
        self.bytes(&[&header(Kind::Zeros, &body, 0), &body], "sending zero pages")
    }

    /// Sends the checksums of the pages of `run`, at most [`MOST_PAGES`].
    pub fn hashes(&mut self, memory: &GuestMemory, run: Run) -> Result<()> {
        let hashes: Vec<u128> = run.range().map(|page| memory.hash_page_128(page)).collect();
        self.told_hashes(run, &hashes)
    }

    /// The same where they were taken before.
    pub fn told_hashes(&mut self, run: Run, hashes: &[u128]) -> Result<()> {
        let mut body = Vec::new();
        put_runs(&mut body, &[run]);
        let payload: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        let head = header(Kind::Hashes, &body, payload.len() as u64);
        self.bytes(&[&head, &body, &payload], "sending checksums")
    }
}

fn page_head(runs: &[Run], hashes: impl Iterator<Item = u64>) -> (Vec<u8>, u64) {
    let mut body = Vec::with_capacity(8 + runs.len() * 12 + 8 * 256);
    put_runs(&mut body, runs);
    hashes.for_each(|hash| body.extend(hash.to_le_bytes()));
    let payload = runs.iter().map(|run| run.pages).sum::<u64>() * PAGE as u64;
    let mut head = header(Kind::Pages, &body, payload).to_vec();
    head.extend(body);
    (head, payload)
}

/// A section as far as it can be told without guest memory; the payload of pages is still in the stream.
#[derive(Debug, PartialEq)]
pub enum Section {
    /// A message.
    Message(Message),
    /// Pages follow; [`Reader::read_pages`] takes them.
    Pages {
        /// Which.
        runs: Vec<Run>,
        /// XXH3-64 of each.
        hashes: Vec<u64>,
    },
    /// Pages of zeros.
    Zeros {
        /// Which.
        runs: Vec<Run>,
    },
    /// XXH3-128 of consecutive pages.
    Hashes {
        /// Which.
        run: Run,
        /// One a page.
        hashes: Vec<u128>,
    },
    /// Encoded pages follow; [`Reader::read_encoding`] takes their encoding.
    Encoded(Encoding),
    /// What the source's codec has learnt.
    Learnt(Vec<u8>),
}

/// Reads sections from a peer that is not trusted.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    offset: u64,
    /// Where the last section began.
    began: u64,
    /// Pages of the guest; page numbers beyond are refused.
    pages: u64,
}

impl<S: Read + AsFd> Reader<S> {
    /// Reads from `stream` sections of a guest of `pages` pages (0 until it is known).
    pub fn new(stream: S, pages: u64) -> Self {
        Self { stream, offset: 0, began: 0, pages }
    }

    /// The same stream, once the guest's size is known.
    #[must_use]
    pub fn with_pages(self, pages: u64) -> Self {
        Self { pages, ..self }
    }

    /// The stream itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the last section that were read so far, header included.
    pub fn section_bytes(&self) -> u64 {
        self.offset - self.began
    }

    /// Reads some of the payload of a [`Section::Pages`], in order; its checksums are the caller's to compare.
    pub fn read_contents(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.fill(bytes, "pages")
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<()> {
        self.stream.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::link(format!(
                "the peer closed the connection at byte {} while {what} was expected",
                self.offset
            )),
            _ => Error::io(format!("receiving {what} at byte {}", self.offset), e),
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// The next section.
    pub fn section(&mut self) -> Result<Section> {
        let at = self.offset;
        self.began = at;
        let wrong = |reason: String| Err(Error::stream(at, reason));
        let mut head = [0; HEADER];
        self.fill(&mut head, "a section header")?;
        if head[..2] != MAGIC {
            return wrong(format!(
                "{:02x} {:02x} is no section of Switchover's (`SW`); is the peer one?",
                head[0], head[1]
            ));
        }
        if head[2] != VERSION {
            return wrong(format!(
                "the peer speaks version {} of the stream, this is version {VERSION}",
                head[2]
            ));
        }
        let Some(kind) = Kind::parse(head[3]) else {
            return wrong(format!("section kind {} is unknown", head[3]));
        };
        let [_, _, _, _, a, b, c, d, p @ .., _, _, _, _, _, _, _, _] = head;
        let (length, payload) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(p));
        let most = if kind == Kind::Message { MOST_BODY } else { 8 + MOST_PAGES as u32 * 20 };
        if length > most {
            return wrong(format!("a body of {length} bytes; the most for {kind:?} is {most}"));
        }
        let body = self.body(length as usize)?;
        if checksum(&head, &body).to_le_bytes() != head[16..] {
            return wrong(format!("the checksum of a {kind:?} section does not match"));
        }
        match kind {
            Kind::Message => parse_message(at, &body, payload),
            Kind::Pages => parse_pages(at, &body, payload, self.pages),
            Kind::Zeros => Ok(Section::Zeros { runs: parse_runs(at, &body, self.pages)?.0 }),
            Kind::Hashes => self.parse_hashes(at, &body, payload),
            Kind::Encoded => parse_encoded(at, &body, payload, self.pages),
            Kind::Learnt => self.parse_learnt(at, &body, payload),
        }
    }

    /// Reads a body piece by piece, so that a length that lies costs no memory before its bytes come.
    pub(super) fn body(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while body.len() < length {
            let (from, piece) = (body.len(), (length - body.len()).min(1 << 20));
            body.resize(from + piece, 0);
            self.fill(&mut body[from..], "a section body")?;
        }
        Ok(body)
    }

    fn parse_hashes(&mut self, at: u64, body: &[u8], payload: u64) -> Result<Section> {
        let (runs, rest) = parse_runs(at, body, self.pages)?;
        let ([run], true) = (runs.as_slice(), rest.is_empty()) else {
            return Err(Error::stream(at, "checksums must name one run"));
        };
        if payload != run.pages * 16 {
            return Err(Error::stream(at, format!("{payload} bytes of checksums for {} pages", run.pages)));
        }
        let bytes = self.body(payload as usize)?;
        let hashes =
            bytes.chunks_exact(16).map(|c| u128::from_le_bytes(c.try_into().unwrap_or([0; 16]))).collect();
        Ok(Section::Hashes { run: *run, hashes })
    }

    /// Reads the payload of a [`Section::Pages`] into guest memory; returns the pages that arrived torn.
    pub fn read_pages(&mut self, memory: &GuestMemory, runs: &[Run], hashes: &[u64]) -> Result<Vec<u64>> {
        guest::read_pages(self.stream.as_fd(), memory, runs)?;
        self.offset += hashes.len() as u64 * PAGE as u64;
        let pages = runs.iter().flat_map(Run::range).zip(hashes);
        Ok(pages.filter(|(page, hash)| memory.hash_page(*page) != **hash).map(|(page, _)| page).collect())
    }

    /// The next section, which must be a message. The peer's own [`Message::Failed`] becomes an error.
    pub fn message(&mut self) -> Result<Message> {
        let at = self.offset;
        match self.section()? {
            Section::Message(Message::Failed { reason }) => {
                Err(Error::link(format!("the peer gave up: {reason}")))
            }
            Section::Message(message) => Ok(message),
            _ => Err(Error::stream(at, "pages came where a message was expected")),
        }
    }
}

fn parse_message(at: u64, body: &[u8], payload: u64) -> Result<Section> {
    if payload != 0 {
        return Err(Error::stream(at, "a message has no payload"));
    }
    let message = serde_json::from_slice(body).map_err(|e| Error::stream(at, format!("message: {e}")))?;
    Ok(Section::Message(message))
}

fn parse_pages(at: u64, body: &[u8], payload: u64, pages: u64) -> Result<Section> {
    let (runs, rest) = parse_runs(at, body, pages)?;
    let count: u64 = runs.iter().map(|run| run.pages).sum();
    if payload != count * PAGE as u64 || rest.len() as u64 != count * 8 {
        return Err(Error::stream(
            at,
            format!("{payload} bytes and {} of checksums for {count} pages", rest.len()),
        ));
    }
    let hashes = rest.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or([0; 8]))).collect();
    Ok(Section::Pages { runs, hashes })
}

/// The runs at the head of a body, and what follows them.
pub(super) fn parse_runs(at: u64, body: &[u8], pages: u64) -> Result<(Vec<Run>, &[u8])> {
    let wrong = |reason: String| Err(Error::stream(at, reason));
    let number = |from: usize| body.get(from..from + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let (Some(count), Some(total)) = (number(0), number(4)) else {
        return wrong("a body without runs".into());
    };
    let end = 8 + count as usize * 12;
    let Some(list) = body.get(8..end) else { return wrong(format!("{count} runs do not fit the body")) };
    let (mut runs, mut next, mut sum) = (Vec::with_capacity(count as usize), 0, 0);
    for run in list.chunks_exact(12) {
        let first = u64::from_le_bytes(run[..8].try_into().unwrap_or([0; 8]));
        let length = u64::from(u32::from_le_bytes(run[8..].try_into().unwrap_or([0; 4])));
        let fits = length > 0 && first >= next && first.checked_add(length).is_some_and(|end| end <= pages);
        if !fits {
            return wrong(format!(
                "{length} pages from {first}: not after page {next}, or not among {pages}"
            ));
        }
        next = first + length;
        sum += length;
        runs.push(Run { first, pages: length });
    }
    if sum != u64::from(total) || sum > MOST_PAGES {
        return wrong(format!("{sum} pages in runs, {total} announced, {MOST_PAGES} at most"));
    }
    Ok((runs, &body[end..]))
}
