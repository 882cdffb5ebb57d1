//! The stream between a source and a destination of ours.
//!
//! A stream is a sequence of sections in both directions. Each has a fixed header, a small body that a
//! checksum covers together with the header, and a payload (page contents) whose pages have a checksum
//! each in the body. All integers are little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | magic `SW` |
//! | 2 | 1 | version, [`VERSION`] |
//! | 3 | 1 | kind, see [`Kind`] |
//! | 4 | 4 | bytes in the body |
//! | 8 | 8 | bytes in the payload |
//! | 16 | 8 | XXH3-64 of the body, seeded with that of bytes 0 to 15 |
//!
//! The body of a page section is: u32 number of runs, u32 number of pages, then for each run u64 first page
//! and u32 pages, then for each page of raw contents the u64 XXH3-64 of its bytes. The body of a message is
//! JSON ([`Message`]).
//!
//! Pages are sent from memory that the guest goes on writing, so a page can change between being hashed and
//! being sent. Such a page is *torn*: its checksum does not match, and as it was written it is dirty and
//! comes again. The receiver therefore remembers torn pages instead of failing, forgets those that come
//! again whole, and acknowledges nothing while one is left: it asks for them again ([`Message::Resend`]).
//!
//! Pages that a codec makes shorter are copied first, so they cannot be torn. `Hello` names the codec; each
//! channel has one of its own at either end. The body of an encoded section is the runs as above, the u64 XXH3-64
//! of the pages' contents, and a bit for each page that was encoded against the version which the destination has,
//! where there is any; the payload is the batch as [`crate::codec`] has it. A checksum that does not match means
//! that the two codecs are out of step: an error, since no page that follows could be trusted.
//!
//! ```text
//! source                          destination
//!   Hello (on each channel)  ──►                        a codec that is not known here is refused
//!                            ◄──  Welcome
//!   Learnt (each channel)    ──►                        if the codec trains
//!   Pages, Zeros, Encoded …  ──►                        the guest runs at the source
//!   State, Flush (each channel) ►                       the guest runs nowhere
//!                            ◄──  Resend (torn pages, if any)
//!                            ◄──  Decoded, if encoded
//!                            ◄──  Loaded                the source may let go
//!   Verify                   ──►                        if asked for
//!                            ◄──  Hashes …
//!   Go                       ──►                        the source has let go
//!                            ◄──  Running               the guest runs at the destination
//! ```
//!
//! Where execution moves ahead of memory (post-copy, hybrid) the last channel carries faults and nothing
//! else: requests one way, pages the other, and a beat each way, so that silence is noticed.
//!
//! ```text
//! source                          destination
//!   Hello, Pages …           ──►                        as above
//!   State, Missing, Flush    ──►                        stale pages are thrown away, RAM is watched
//!                            ◄──  Loaded
//!   Go                       ──►
//!                            ◄──  Running               the guest runs, and waits for what it lacks
//!   Pages, Zeros …           ──►                        pushed in the background
//!                            ◄──  Request, Beat         on the channel of faults
//!   Pages or Zeros, Beat     ──►                        on the channel of faults
//!                            ◄──  Complete              all pages are there
//!   Verify                   ──►                        if asked for: pages as they were placed
//!                            ◄──  Hashes …
//!   Freed                    ──►                        the source may be freed
//! ```
//!
//! A link lost after `Loaded` is replaced: the source greets again with `resume`, and the destination
//! answers `Lacking`.
//!
//! Either side may send `Failed` with the reason before it closes. A destination that loses the link before
//! `Go` drops everything; a source that loses it before it has sent `Go` goes on running its guest.

mod encoded;
mod message;
mod page_set;
mod section;
#[cfg(test)]
mod tests;

pub use encoded::{Encoding, MOST_ENCODED};
pub use message::{checked_runs, Beat, Message, Milestone, PageRuns, PostCopy};
pub use page_set::PageSet;
pub use section::{pages_bytes, zeros_bytes, Kind, Reader, Section, Writer, MOST_PAGES, VERSION};
