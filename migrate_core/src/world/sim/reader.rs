//! What a guest is assumed to read: traces have writes only.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An assumed mix of reads, which counts where execution is ahead of memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reads {
    /// Pages read for each page written.
    pub per_write: f64,
    /// Share of the memory over which reads are spread evenly, from above 0 to 1.
    pub share: f64,
}

impl Default for Reads {
    fn default() -> Self {
        Self { per_write: 0.0, share: 1.0 }
    }
}

impl Reads {
    pub(super) fn validate(self) -> Result<()> {
        match (0.0..=1e6).contains(&self.per_write) && self.share > 0.0 && self.share <= 1.0 {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "reads must be from 0 to 1000000 for each write, over a share of memory above 0 and at most 1: {self:?}"
            ))),
        }
    }
}

/// Reads at pages that follow from nothing but their number.
#[derive(Debug)]
pub(super) struct Reader {
    reads: Reads,
    pages: u64,
    due: f64,
    count: u64,
}

impl Reader {
    /// Of a memory of so many pages.
    pub(super) fn new(reads: Reads, pages: u64) -> Self {
        Self { reads, pages, due: 0.0, count: 0 }
    }

    /// A page was written: so many reads come with it.
    pub(super) fn written(&mut self) {
        self.due += self.reads.per_write;
    }

    /// The next page read that has come due.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.due < 1.0 {
            return None;
        }
        self.due -= 1.0;
        self.count += 1;
        let among = ((self.pages as f64 * self.reads.share) as u64).max(1);
        // Those that are read lie scattered over the memory: the multiplier has no factor in common with its size,
        // or some are the same, of which there are few.
        Some(mix(self.count) % among * 0x9E37_79B1 % self.pages)
    }
}

/// Spreads numbers over all 64 bits (the finaliser of splitmix64, Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let mut value = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_come_as_often_as_assumed_and_lie_where_assumed() {
        let mut reader = Reader::new(Reads { per_write: 2.5, share: 0.25 }, 4096);
        let mut seen = vec![0u32; 4096];
        for _ in 0..10_000 {
            reader.written();
            while let Some(page) = reader.next() {
                seen[page as usize] += 1;
            }
        }
        assert_eq!(seen.iter().sum::<u32>(), 25_000);
        let touched = seen.iter().filter(|count| **count > 0).count();
        assert!((1000..=1024).contains(&touched), "{touched}");
        assert!(seen.iter().all(|count| *count < 60));
        assert!(
            seen[..1024].iter().filter(|count| **count > 0).count() < 400,
            "they lie all over the memory"
        );
    }

    #[test]
    fn what_cannot_be_assumed_is_refused() {
        for reads in [Reads { per_write: -1.0, share: 1.0 }, Reads { per_write: 1.0, share: 0.0 }] {
            assert!(reads.validate().is_err());
        }
        assert!(Reads::default().validate().is_ok());
    }
}
