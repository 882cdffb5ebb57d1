//! Dirty bitmaps: one bit a page, written since the bitmap was last harvested.
//!
//! [`DirtyBitmap`] is shared: many writers mark pages, one owner harvests. [`Bitmap`] is owned and plain: what a
//! harvest returned, what is still to be sent. Neither knows RAM blocks: a page here is an index into the whole guest.
//!
//! # Layout
//!
//! Bit `p % 64` of word `p / 64` is page `p`. Eight words are a *group*: 512 pages, one cache line in the shared
//! bitmap. A *summary* holds one bit a group, set if the group may hold a set bit, so that clean memory costs one
//! summary bit for 2 MiB of guest and is not touched. A group is a line because a line is what memory delivers: a
//! bit a word makes the summary eight times as long and the harvest, measured by `benches/bitmap.rs`, no faster where
//! single dirty pages are scattered and slower where they come in runs.
//! In the owned bitmap the summary is exact; in the shared one it may name a group that has become empty.
//!
//! # Why a mark is never lost
//!
//! The promise: a mark whose `set` returned before a harvest began is taken by that harvest, unless an earlier one
//! took it. A mark made during a harvest is taken by it or left for the next one. Whoever takes a mark sees the
//! writes to the page that came before the mark.
//!
//! A setter does **(W)** `fetch_or` of the word, **(R)** load of the summary, and, if its bit is clear there,
//! **(S)** `fetch_or` of the summary. A harvester does **(C)** clears summary bits by an atomic read-modify-write, and
//! then, for each group that these named, **(T)** loads and swaps the words. All are `SeqCst`, so there is one
//! order of all of them that agrees with each thread's own:
//!
//! * R finds the bit set, and the next C to clear it comes later: W < R < C < T, so T finds the mark.
//! * R finds the bit clear, so S follows: the bit is set after W. The next C that clears it comes after S, and its T
//!   after W. Until then every harvest is told to look there.
//!
//! So a set word whose `set` returned always has its summary bit set, or a harvester that has yet to visit it.
//! Either order turned round breaks this. Summary before word in the setter: the harvester clears the bit and
//! finds the word still empty, then W arrives in a group that nothing names. Word before summary in the harvester:
//! W and R fall between T and C, R is content with a bit that C then wipes.
//!
//! Acquire and release would not do, even in the right order: W, R against C, T is the store-buffering pattern, where
//! a weak machine may let both sides read the old value. x86 pays nothing for it, as W and C are locked
//! instructions and R is a plain load.
//!
//! W is never skipped, even where the bit is set already: being a read-modify-write it keeps the release sequence
//! whole, so that the swap that takes a word acquires from every setter whose mark is in it, and on every machine it
//! orders the page's write before the look at the summary. A setter that only looked could leave its write in
//! the store buffer, while the harvester takes the bit and sends the old page.
//!
//! A harvest of part of a group clears the summary bit first, too, and puts it back if bits outside the part are
//! left. Between the two the group is unnamed, which nobody sees as long as one owner harvests. Two harvesters at once
//! lose nothing, but the one may miss what the other is about to put back.

mod batch;
mod dirty;
mod geometry;
mod plain;
mod run;
mod runs;
#[cfg(test)]
mod tests;

pub use dirty::DirtyBitmap;
pub use plain::Bitmap;
pub use run::Run;
pub use runs::Runs;
