//! What a codec made of a set of pages, and what it cost.

use serde::Serialize;

use crate::guest::PAGE;

/// Pages of a GiB.
const GIB_PAGES: f64 = ((1u64 << 30) / PAGE as u64) as f64;

/// What one pass over a set did to the pages that were sent for the first time, or to those that came again.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Pages, those of zeros included.
    pub pages: u64,
    /// Pages of zeros, which were named.
    pub zero: u64,
    /// Pages that stayed as they were.
    pub raw: u64,
    /// Bytes that a link would have carried for all of them, heads of sections left out.
    pub bytes: u64,
    /// Seconds of processor time to encode, and to decode.
    pub encode: f64,
    pub decode: f64,
    /// Pages found among those sent before, and asked for.
    pub hits: u64,
    pub asked: u64,
}

impl Tally {
    /// Adds a batch.
    pub fn add(&mut self, batch: &Self) {
        self.pages += batch.pages;
        self.zero += batch.zero;
        self.raw += batch.raw;
        self.bytes += batch.bytes;
        self.encode += batch.encode;
        self.decode += batch.decode;
        self.hits += batch.hits;
        self.asked += batch.asked;
    }
}

/// A quantity over all passes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let median = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
        Self { median, least: values[0], most: values[count - 1] }
    }
}

/// What a codec made of some of the pages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Pages, those of zeros included.
    pub pages: u64,
    /// Pages of zeros.
    pub zero_pages: u64,
    /// Pages that it left as they were.
    pub raw_pages: u64,
    /// Bytes that a link would carry.
    pub bytes: u64,
    /// The same for a page on average.
    pub bytes_per_page: f64,
    /// The same as a share of the pages' own.
    pub ratio: f64,
    /// Nanoseconds of processor time to encode a page.
    pub encode_ns: Spread,
    /// Nanoseconds of processor time to decode a page.
    pub decode_ns: Spread,
    /// Bytes of pages that one thread encodes in a second; `None` where there is nothing to do.
    pub encode_rate: Option<f64>,
    /// Bytes of pages that one thread decodes in a second; `None` where there is nothing to do.
    pub decode_rate: Option<f64>,
    /// Seconds of processor time for a GiB of pages, both ends together.
    pub cpu_seconds_per_gib: f64,
    /// Pages of which an earlier version (or with dedup an equal page) was at hand, as a share of those that are not
    /// zero; `None` for codecs that look at nothing earlier.
    pub hit_rate: Option<f64>,
    /// The fastest link, in bytes a second for each channel, on which it is ahead of raw pages: the speed of the slower
    /// end, or 0 where it shortens nothing. `None` where there is nothing to do.
    pub break_even: Option<f64>,
}

impl Figures {
    /// Out of what each pass did; `None` if there were no such pages.
    fn of(passes: &[Tally], looks_back: bool) -> Option<Self> {
        let last = passes.last().filter(|last| last.pages > 0)?;
        let pages = last.pages as f64;
        let each = |seconds: fn(&Tally) -> f64| {
            Spread::of(passes.iter().map(|pass| seconds(pass) * 1e9 / pages).collect())
        };
        let (encode_ns, decode_ns) = (each(|pass| pass.encode), each(|pass| pass.decode));
        let rate = |ns: f64| (ns > 0.0).then(|| PAGE as f64 * 1e9 / ns);
        let ratio = last.bytes as f64 / (pages * PAGE as f64);
        let speed = rate(encode_ns.median.max(decode_ns.median));
        Some(Self {
            pages: last.pages,
            zero_pages: last.zero,
            raw_pages: last.raw,
            bytes: last.bytes,
            bytes_per_page: last.bytes as f64 / pages,
            ratio,
            encode_ns,
            decode_ns,
            encode_rate: rate(encode_ns.median),
            decode_rate: rate(decode_ns.median),
            cpu_seconds_per_gib: (encode_ns.median + decode_ns.median) * GIB_PAGES / 1e9,
            hit_rate: looks_back.then(|| last.hits as f64 / last.asked.max(1) as f64),
            break_even: speed.map(|speed| if ratio < 1.0 { speed } else { 0.0 }),
        })
    }
}

/// What is known of a codec beside its tallies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Whether it refers to earlier versions or pages.
    pub looks_back: bool,
    /// Bytes that it learnt ahead.
    pub learnt_bytes: u64,
    /// Bytes held for earlier versions or pages at the source.
    pub held_bytes: u64,
    /// Pages by candidate, for a codec that chooses.
    pub choices: Vec<(String, u64)>,
}

/// A codec's figures on a set of pages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baked {
    /// Passes that were made.
    pub passes: usize,
    /// Pages that were sent for the first time.
    pub first: Option<Figures>,
    /// Pages that came again in a later version.
    pub again: Option<Figures>,
    /// Bytes that it learnt from a sample of the pages and sent ahead; not in the figures.
    pub learnt_bytes: u64,
    /// Bytes that the source holds at most for earlier versions or pages.
    pub held_bytes: u64,
    /// Pages by candidate, for a codec that chooses, in the last pass.
    pub choices: Vec<(String, u64)>,
}

impl Baked {
    /// Out of what each pass did to the pages of either kind.
    pub(super) fn of(passes: &[[Tally; 2]], facts: Facts) -> Self {
        let part = |index: usize| {
            let own: Vec<Tally> = passes.iter().map(|pass| pass[index]).collect();
            Figures::of(&own, facts.looks_back)
        };
        Self {
            passes: passes.len(),
            first: part(0),
            again: part(1),
            learnt_bytes: facts.learnt_bytes,
            held_bytes: facts.held_bytes,
            choices: facts.choices,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(bytes: u64, encode: f64, decode: f64) -> Tally {
        Tally { pages: 100, zero: 20, raw: 5, bytes, encode, decode, hits: 20, asked: 80 }
    }

    #[test]
    fn figures_follow_from_tallies() {
        let passes =
            [tally(100 * 1024, 1e-3, 2e-4), tally(100 * 1024, 3e-3, 1e-4), tally(100 * 1024, 2e-3, 3e-4)];
        let figures = Figures::of(&passes, true).unwrap();
        assert_eq!((figures.bytes_per_page, figures.ratio), (1024.0, 0.25));
        let spread = |median, least, most| Spread { median, least, most };
        let near = |a: Spread, b: Spread| {
            [(a.median, b.median), (a.least, b.least), (a.most, b.most)]
                .iter()
                .all(|(a, b)| (a - b).abs() < 1e-6)
        };
        assert!(near(figures.encode_ns, spread(2e4, 1e4, 3e4)), "{figures:?}");
        assert!(near(figures.decode_ns, spread(2e3, 1e3, 3e3)), "{figures:?}");
        // 4096 bytes in 20 us.
        let speed = figures.break_even.unwrap();
        assert!((speed - 204.8e6).abs() < 1.0, "{speed}");
        assert_eq!(figures.encode_rate, figures.break_even);
        assert!((figures.cpu_seconds_per_gib - 22e-6 * 262_144.0).abs() < 1e-9);
        assert_eq!(figures.hit_rate, Some(0.25));
    }

    #[test]
    fn what_shortens_nothing_never_pays_and_what_costs_nothing_has_no_speed() {
        let longer = Figures::of(&[tally(100 * 4096, 1e-3, 1e-3)], false).unwrap();
        assert_eq!((longer.break_even, longer.hit_rate), (Some(0.0), None));
        let free = Figures::of(&[tally(100 * 4096, 0.0, 0.0)], false).unwrap();
        assert_eq!((free.break_even, free.encode_rate, free.cpu_seconds_per_gib), (None, None, 0.0));
        assert_eq!(Figures::of(&[Tally::default()], false), None);
    }

    #[test]
    fn a_median_of_an_even_count_is_between_the_middle_two() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]), Spread { median: 2.5, least: 1.0, most: 4.0 });
    }
}
