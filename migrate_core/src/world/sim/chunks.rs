//! How many pages are sent together: fewer, where one stands for many.

use crate::error::Result;
use crate::guest::PAGE;
use crate::knobs::Spec;
use crate::link::LinkSpec;
use crate::strategy::Strategy;
use crate::trace::{Replay, Windows};

/// The least number of chunks that memory is sent in: the moments at which `late` clears.
const LEAST_CHUNKS: u64 = 2048;
/// Seconds that a chunk of counted pages takes: policies look every tenth of a second.
const MOMENT: f64 = 0.05;

/// The strategy that `spec` names, for `replay`: where one page stands for many, with chunks of as many
/// bytes, though no more of them than tell the clear disciplines apart.
pub fn scaled(spec: &Spec, replay: &Replay) -> Result<Box<dyn Strategy>> {
    if replay.weight() == 1 {
        return crate::strategy::find(spec);
    }
    let chunk = (chunk_pages(spec) / replay.weight()).max(replay.pages() / LEAST_CHUNKS).max(1);
    crate::strategy::find(&spec.clone().with("chunk_pages", chunk))
}

/// Pages that the strategy of `spec` sends together.
pub(super) fn chunk_pages(spec: &Spec) -> u64 {
    spec.knobs.get("chunk_pages").and_then(serde_json::Value::as_u64).unwrap_or(256)
}

/// The strategy that `spec` names, for a guest that is counted: chunks take a moment on the link, however many
/// pages that is.
pub fn hurried(spec: &Spec, windows: &Windows, link: &LinkSpec) -> Result<Box<dyn Strategy>> {
    let pages = link.bandwidth.unwrap_or(0.0) * MOMENT / PAGE as f64;
    let chunk = (pages.max(256.0) / windows.weight() as f64).clamp(1.0, 65_536.0) as u64;
    crate::strategy::find(&spec.clone().with("chunk_pages", chunk))
}
