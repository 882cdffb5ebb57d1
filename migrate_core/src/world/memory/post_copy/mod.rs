//! Execution ahead of memory: both ends of it.
//!
//! The source ([`departure`]) pushes pages over the link's channels in the order that the strategy says,
//! while a thread of its own ([`server`]) answers requests over the channel of faults: a request never
//! waits behind pushed pages of ours. At the destination ([`arrival`]) a thread ([`fault_lane`]) hears from
//! the kernel of guest threads that wait, asks for what they wait for and places what comes; each other
//! channel has a thread that places what was pushed. Both place through [`Landing`], where each page is
//! claimed once: one that comes twice is placed once, whichever lane it comes by.
//!
//! ```text
//!  guest thread ── touches ──► kernel ──► fault lane ── Request ──► server
//!       ▲                                    │  ◄──── page ─────────┘ (channel of faults)
//!       └──────── placed, woken ◄── Landing ◄┤
//!                                            └─ pushed pages (other channels) ◄── strategy
//! ```

mod arrival;
mod claims;
mod departure;
mod fault_lane;
mod landing;
mod log;
#[cfg(test)]
mod recovery_tests;
mod server;
#[cfg(test)]
mod tests;

pub(super) use arrival::{Arrival, Lanes};
pub(super) use departure::Ahead;
