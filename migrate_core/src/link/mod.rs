//! Byte links between a source and a destination: TCP and UNIX sockets, bare or shaped.
//!
//! An [`Endpoint`] names a place, [`connect`] and [`Listener`] make a [`Stream`] out of it, and
//! [`pair`] makes two within this process. A [`Shaper`] puts a link like its [`LinkSpec`] before
//! streams, so that a gigabit link or a WAN can be had on loopback:
//!
//! ```text
//! near end ── relay: read a burst ─ buffer ─ token bucket ─ delay + jitter ─ write ── far end
//! (socket pair)      │                                                         (your stream)
//!                    └ waits while the buffer is full, so that the sender feels the link
//! ```
//!
//! All channels share one bucket in each direction, by turns. The buffer before the bottleneck holds
//! 5 ms of bandwidth and a burst 200 µs (1 % of the round trip if longer), so the shaping is exact in the mean and grained in between.
//! Bandwidth counts payload bytes, not packets' headers. What shaping is *not*: there is no loss, no
//! reordering and no congestion control beyond that of the sockets below, which it can only slow down.
//! A machine too busy to carry the bytes makes the link slower than asked, never faster.

mod bucket;
mod burst;
mod channel;
mod clock;
mod delay;
mod endpoint;
mod forwarder;
mod listener;
mod pacer;
mod relay;
mod shaper;
mod spec;
mod stream;

pub use endpoint::Endpoint;
pub use forwarder::{Forwarder, Witness};
pub use listener::Listener;
pub use shaper::Shaper;
pub use spec::{LinkSpec, Outage, Transport, MOST_CHANNELS};
pub use stream::{connect, pair, Stream};

#[cfg(test)]
mod tests;
