//! The link's own clock, which stands still during outages.
//!
//! Everything that shapes (bucket, delay, jitter) counts in up-time, and is turned into wall time at
//! the edge. So an outage freezes the whole link: nothing moves, nothing is lost, no tokens gather.

use super::spec::Outage;

/// Turns seconds since the link's start (wall) into seconds for which it was up, and back.
pub(super) struct Clock {
    /// Begin and end of the outages: sorted, disjoint, none empty.
    outages: Vec<(f64, f64)>,
}

impl Clock {
    /// A clock that stops in `outages`, which may overlap and come in any order.
    pub(super) fn new(outages: &[Outage]) -> Self {
        let mut spans: Vec<(f64, f64)> = outages.iter().map(|o| (o.at, o.at + o.duration)).collect();
        spans.retain(|(begin, end)| begin < end);
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        spans.dedup_by(|next, kept| {
            let joined = next.0 <= kept.1;
            if joined {
                kept.1 = kept.1.max(next.1);
            }
            joined
        });
        Self { outages: spans }
    }

    /// Seconds for which the link has been up at `wall`.
    pub(super) fn up(&self, wall: f64) -> f64 {
        let mut lost = 0.0;
        for &(begin, end) in &self.outages {
            if wall < end {
                return wall.min(begin) - lost;
            }
            lost += end - begin;
        }
        wall - lost
    }

    /// The moment at which the link has been up for `up` seconds and is not in an outage.
    pub(super) fn wall(&self, up: f64) -> f64 {
        let mut lost = 0.0;
        for &(begin, end) in &self.outages {
            // The same expression as in `up`, so that what was frozen compares equal.
            if up < begin - lost {
                break;
            }
            lost += end - begin;
        }
        up + lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outage(at: f64, duration: f64) -> Outage {
        Outage { at, duration }
    }

    #[test]
    fn stands_still_in_an_outage() {
        let clock = Clock::new(&[outage(3.0, 1.0), outage(1.0, 0.5), outage(1.25, 0.75), outage(9.0, 0.0)]);
        let up = [0.0, 1.0, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0].map(|wall| clock.up(wall));
        assert_eq!(up, [0.0, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 3.0]);
        let wall = [0.5, 1.0, 1.5, 2.0, 3.0].map(|up| clock.wall(up));
        assert_eq!(wall, [0.5, 2.0, 2.5, 4.0, 5.0]);
    }

    #[test]
    fn without_outages_both_clocks_agree() {
        let clock = Clock::new(&[]);
        assert_eq!((clock.up(3.25), clock.wall(3.25)), (3.25, 3.25));
    }

    proptest! {
        #[test]
        fn never_wakes_inside_an_outage(
            spans in prop::collection::vec((0.0..10.0f64, 0.0..2.0f64), 0..6),
            wall in 0.0..20.0f64,
        ) {
            let outages: Vec<Outage> = spans.iter().map(|&(at, duration)| outage(at, duration)).collect();
            let clock = Clock::new(&outages);
            let again = clock.wall(clock.up(wall));
            prop_assert!(again >= wall - 1e-9);
            for o in &outages {
                prop_assert!(again < o.at || again >= o.at + o.duration - 1e-9);
            }
            let frozen = outages.iter().any(|o| (o.at..o.at + o.duration).contains(&wall));
            prop_assert!(frozen || again <= wall + 1e-9);
        }
    }
}
