//! The model of a codec: how many bytes and how much time pages take on average.

use serde::{Deserialize, Serialize};

use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::PAGE;

/// How pages that are not zero are encoded. A page that was sent before may cost less than one that was not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coding {
    /// Whether zero pages are named instead of sent.
    pub names_zeros: bool,
    /// Bytes of a page that is sent for the first time, from 0 to a page.
    pub first_bytes: f64,
    /// Bytes of one that was sent before.
    pub again_bytes: f64,
    /// Seconds that encoding a page takes, while the link carries those before.
    pub seconds: f64,
}

impl Coding {
    pub(super) fn validate(&self) -> Result<()> {
        let sizes = [self.first_bytes, self.again_bytes];
        match sizes.iter().all(|bytes| (0.0..=PAGE as f64).contains(bytes))
            && (0.0..=1e3).contains(&self.seconds)
        {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "encoded pages must have 0 to {PAGE} bytes and take 0 to 1000 seconds: {self:?}"
            ))),
        }
    }
}

/// What was sent so far, by which pages cost less.
#[derive(Debug)]
pub(super) struct Encoder {
    coding: Coding,
    /// Pages that were sent before.
    sent: Bitmap,
}

impl Encoder {
    pub(super) fn new(coding: Coding, pages: u64) -> Self {
        Self { coding, sent: Bitmap::new(pages) }
    }

    pub(super) fn names_zeros(&self) -> bool {
        self.coding.names_zeros
    }

    /// Bytes that the pages of `runs` take, which were sent from then on; and how many are shorter than raw.
    pub(super) fn encode(&mut self, runs: &[Run]) -> (u64, u64) {
        let again: u64 = runs.iter().map(|run| self.sent.count_in(run.range())).sum();
        let first = runs.iter().map(|run| run.pages).sum::<u64>() - again;
        runs.iter().for_each(|run| self.sent.set_range(run.range()));
        let kinds = [(first, self.coding.first_bytes), (again, self.coding.again_bytes)];
        let bytes: f64 = kinds.iter().map(|(pages, bytes)| *pages as f64 * bytes).sum();
        let shorter = kinds.iter().filter(|(_, bytes)| *bytes < PAGE as f64).map(|(pages, _)| pages).sum();
        (bytes.round() as u64, shorter)
    }

    /// How long it works on `pages`.
    pub(super) fn seconds(&self, pages: u64) -> f64 {
        pages as f64 * self.coding.seconds
    }
}

/// What of `runs` is not in `others`, which are parts of them; both ascend.
pub(super) fn without(runs: &[Run], others: &[Run]) -> Vec<Run> {
    let (mut left, mut others) = (Vec::new(), others.iter().peekable());
    for run in runs {
        let mut from = run.first;
        while let Some(other) = others.next_if(|other| other.first < run.end()) {
            left.push(Run { first: from, pages: other.first - from });
            from = other.end();
        }
        left.push(Run { first: from, pages: run.end() - from });
    }
    left.retain(|run| run.pages > 0);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Coding =
        Coding { names_zeros: true, first_bytes: PAGE as f64, again_bytes: PAGE as f64 / 4.0, seconds: 0.5 };

    #[test]
    fn a_page_costs_less_once_it_was_sent() {
        let mut encoder = Encoder::new(HALF, 100);
        assert_eq!(encoder.encode(&[Run { first: 0, pages: 10 }]), (10 * 4096, 0));
        assert_eq!(encoder.encode(&[Run { first: 5, pages: 10 }]), (5 * 4096 + 5 * 1024, 5));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [Coding { first_bytes: 5000.0, ..HALF }, Coding { seconds: f64::NAN, ..HALF }] {
            assert!(wrong.validate().unwrap_err().to_string().contains("4096 bytes"));
        }
    }
}
