//! What encoding did and cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a codec did, where pages were encoded. Seconds are of processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Coding {
    /// Spent encoding, copies of the pages included.
    pub encode_seconds: f64,
    /// Spent decoding at the destination, as it said; `null` if the run did not come to that.
    pub decode_seconds: Option<f64>,
    /// Memory for versions of sent pages at most; 0 for a codec that needs none.
    pub cache_bytes: u64,
    /// Pages whose earlier version was kept among those that were looked for.
    pub hit_rate: Option<f64>,
    /// What each round did; one more than the migration's rounds where pages were sent again at the end.
    pub rounds: Vec<CodingRound>,
}

/// What a codec did in a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CodingRound {
    /// Pages of zeros, which no codec sees.
    pub zero_pages: u64,
    /// Pages that are shorter than raw.
    pub encoded_pages: u64,
    /// Their bytes.
    pub encoded_bytes: u64,
    /// Pages sent as they are.
    pub raw_pages: u64,
    /// Their bytes.
    pub raw_bytes: u64,
    /// Pages whose earlier version was kept.
    pub cache_hits: u64,
    /// Pages whose earlier version was not.
    pub cache_misses: u64,
    /// Spent encoding.
    pub encode_seconds: f64,
    /// Pages that an adaptive codec gave to each of its candidates.
    pub choices: BTreeMap<String, u64>,
}

impl CodingRound {
    fn add(&mut self, other: &Self) {
        self.zero_pages += other.zero_pages;
        self.encoded_pages += other.encoded_pages;
        self.encoded_bytes += other.encoded_bytes;
        self.raw_pages += other.raw_pages;
        self.raw_bytes += other.raw_bytes;
        self.cache_hits += other.cache_hits;
        self.cache_misses += other.cache_misses;
        self.encode_seconds += other.encode_seconds;
        for (name, pages) in &other.choices {
            *self.choices.entry(name.clone()).or_default() += pages;
        }
    }
}

impl Coding {
    /// Adds what one channel did in round `index`.
    pub fn add(&mut self, index: usize, round: &CodingRound) {
        if self.rounds.len() <= index && *round != CodingRound::default() {
            self.rounds.resize(index + 1, CodingRound::default());
        }
        if let Some(sum) = self.rounds.get_mut(index) {
            sum.add(round);
        }
        self.encode_seconds += round.encode_seconds;
        let (hits, misses) =
            self.rounds.iter().fold((0, 0), |(h, m), round| (h + round.cache_hits, m + round.cache_misses));
        self.hit_rate = (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_add_up_round_by_round() {
        let round = |pages| CodingRound {
            encoded_pages: pages,
            encode_seconds: 0.5,
            cache_hits: pages,
            cache_misses: 2,
            choices: [("lz4".to_owned(), pages)].into(),
            ..CodingRound::default()
        };
        let mut coding = Coding::default();
        coding.add(0, &round(3));
        coding.add(0, &round(4));
        coding.add(1, &round(1));
        coding.add(2, &CodingRound::default());
        assert_eq!(coding.rounds.len(), 2, "a round without pages is none");
        assert_eq!((coding.rounds[0].encoded_pages, coding.rounds[0].choices["lz4"]), (7, 7));
        assert_eq!((coding.encode_seconds, coding.hit_rate), (1.5, Some(8.0 / 14.0)));
    }
}
