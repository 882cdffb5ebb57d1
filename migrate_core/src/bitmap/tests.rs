//! Tests of both bitmaps, by kind.

#[cfg(loom)]
mod loom_model;
#[cfg(not(loom))]
mod model;
#[cfg(not(loom))]
mod stress;
#[cfg(not(loom))]
mod unit;
