//! Prepaging: the order in which post-copy pushes pages that nobody has asked for yet.
//!
//! An order is one file here and one line of [`PREPAGING`]. It is pure: it is told which pages the guest
//! asked for and, where the guest was watched before, which it wrote, and names the pages to push next. It
//! may name only pages that are left.

use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};

mod bubbling;
mod none;
mod recency;
mod sequential;
#[cfg(test)]
mod tests;

pub use bubbling::Bubbling;
pub use none::OnDemand;
pub use recency::Recency;
pub use sequential::Sequential;

/// The orders there are.
pub static PREPAGING: Registry<Make> = Registry {
    kind: "prepaging",
    entries: &[
        entry::<Bubbling>("bubbling"),
        entry::<Sequential>("sequential"),
        entry::<Recency>("recency"),
        entry::<OnDemand>("none"),
    ],
};

/// Which pages are pushed next.
pub trait Prepaging: Send {
    /// Runs of `left` to push next, in ascending order and of at most `most` pages; empty to push nothing
    /// for the moment. What is returned is left no longer.
    fn next(&mut self, left: &Bitmap, most: u64) -> Vec<Run>;

    /// The guest asked for `page`, which is on its way by itself.
    fn asked(&mut self, _page: u64) {}

    /// A moment went by in which nothing was pushed; `quiet` if the guest asked for nothing in it.
    fn waited(&mut self, _quiet: bool) {}

    /// Whether it wants to know what the guest writes before execution moves.
    fn wants_writes(&self) -> bool {
        false
    }

    /// The guest wrote `pages` in the latest interval; called interval by interval, in order.
    fn wrote(&mut self, _pages: &Bitmap) {}
}

/// The knobs of an order, able to make it.
pub trait Order: Knobs {
    /// Makes it, for a guest of `pages` pages.
    fn build(self, pages: u64) -> Box<dyn Prepaging>;
}

/// Builds an order for a guest of so many pages.
pub type Make = fn(&Given, u64) -> Result<Box<dyn Prepaging>>;

const fn entry<O: Order>(name: &'static str) -> Entry<Make> {
    Entry::of::<O>(name, build::<O> as Make)
}

fn build<O: Order>(knobs: &Given, pages: u64) -> Result<Box<dyn Prepaging>> {
    Ok(O::from_knobs(knobs)?.build(pages))
}

/// The order that `spec` names, for a guest of `pages` pages.
pub fn find(spec: &Spec, pages: u64) -> Result<Box<dyn Prepaging>> {
    (PREPAGING.find(&spec.name)?.make)(&spec.knobs, pages)
}

/// An order as a knob's text has it: `bubbling`, or `bubbling:pivots=4` with numbers as values.
pub fn parse(text: &str) -> Result<Spec> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let mut spec = Spec::new(name);
    for pair in rest.split([',', ';']).filter(|pair| !pair.is_empty()) {
        let value = pair.split_once('=').and_then(|(knob, value)| Some((knob, value.parse::<f64>().ok()?)));
        let Some((knob, value)) = value else {
            return Err(Error::usage(format!(
                "prepaging: `{pair}` is not a knob and a number, as in `pivots=4`"
            )));
        };
        spec = spec.with(knob, value);
    }
    PREPAGING.check(&spec)?;
    Ok(spec)
}

/// Takes from `left` the pages from `from` on, at most `most` of them.
fn ascending(left: &Bitmap, from: u64, most: u64) -> Vec<Run> {
    let (mut runs, mut room) = (Vec::new(), most);
    let Some(first) = left.first_from(from) else { return runs };
    for run in left.runs_in(first..left.pages()) {
        let taken = run.pages.min(room);
        runs.push(Run { first: run.first, pages: taken });
        room -= taken;
        if room == 0 {
            break;
        }
    }
    runs
}
