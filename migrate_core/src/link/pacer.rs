//! One direction of a shaped link: when each burst comes out, for all channels together.

use rand::RngExt;
use rand_pcg::Pcg64;

use super::bucket::Bucket;
use super::clock::Clock;
use super::spec::LinkSpec;

/// Seconds of bandwidth that may queue before the bottleneck: a switch with a small buffer.
const BUFFER: f64 = 5e-3;
/// Seconds of bandwidth in a burst, which is the grain of the shaping; a share of the round trip where
/// that is more, since each burst costs the relay a wake-up.
const GRAIN: f64 = 200e-6;
const GRAIN_OF_RTT: f64 = 0.01;
/// Least burst: a packet. Most: beyond this a larger read saves nothing.
const BURST: (f64, f64) = (1500.0, 131_072.0);
/// Most that a channel may have under way where bandwidth is not shaped.
const UNSHAPED_WINDOW: usize = 64 << 20;

/// Stamps bursts with the time at which they leave the link: bucket, delay, jitter, outages.
///
/// Times are seconds since the link's start, given in and handed out.
pub(super) struct Pacer {
    clock: Clock,
    bucket: Bucket,
    delay: f64,
    jitter: f64,
    random: Pcg64,
    last: f64,
    /// The same for bursts that overtake.
    last_ahead: f64,
}

impl Pacer {
    /// The pacer of `direction` (0 or 1) of a link.
    pub(super) fn new(spec: &LinkSpec, direction: usize) -> Self {
        Self {
            clock: Clock::new(&spec.outages),
            bucket: Bucket::new(spec.bandwidth.unwrap_or(f64::INFINITY)),
            delay: spec.rtt / 2.0,
            jitter: spec.jitter,
            random: Pcg64::new(spec.seed.into(), direction as u128),
            last: 0.0,
            last_ahead: 0.0,
        }
    }

    /// Takes in a burst at `now`; the time at which it comes out. Never before an earlier burst.
    pub(super) fn stamp(&mut self, now: f64, bytes: usize) -> f64 {
        let left = self.bucket.take(self.clock.up(now), bytes);
        let arrives = left + self.delay + self.jitter * self.random.random::<f64>();
        self.last = self.last.max(arrives);
        self.clock.wall(self.last)
    }

    /// The same for a burst that goes before what waits in the buffer.
    pub(super) fn stamp_ahead(&mut self, now: f64, bytes: usize) -> f64 {
        let left = self.bucket.overtake(self.clock.up(now), bytes);
        let arrives = left + self.delay + self.jitter * self.random.random::<f64>();
        self.last_ahead = self.last_ahead.max(arrives);
        self.clock.wall(self.last_ahead)
    }

    /// From when on the buffer before the bottleneck has room for a burst; it may be past.
    pub(super) fn room_at(&self) -> f64 {
        self.clock.wall(self.bucket.idle_from() - BUFFER)
    }

    /// By when it should be filled up. Until then a reader that wakes for other reasons, such as the
    /// release of a burst, need not wake for this.
    pub(super) fn refill_at(&self) -> f64 {
        self.clock.wall(self.bucket.idle_from() - 0.75 * BUFFER)
    }
}

/// Most bytes of one burst on a link like `spec`.
pub(super) fn burst_size(spec: &LinkSpec) -> usize {
    let grain = (GRAIN_OF_RTT * spec.rtt).clamp(GRAIN, BUFFER / 4.0);
    spec.bandwidth.map_or(BURST.1, |rate| (rate * grain).clamp(BURST.0, BURST.1)) as usize
}

/// Bytes that one channel may have under way: the bandwidth-delay product and a small buffer.
///
/// The buffer is counted thrice: a burst that is late on a busy machine must not stop the next.
pub(super) fn window(spec: &LinkSpec) -> usize {
    let shaped = |rate: f64| (rate * (spec.longest_delay() + 3.0 * BUFFER)) as usize + 4 * burst_size(spec);
    spec.bandwidth.map_or(UNSHAPED_WINDOW, shaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Outage;
    use proptest::prelude::*;

    #[test]
    fn half_the_round_trip_and_the_time_on_the_line_are_added() {
        let spec = LinkSpec { bandwidth: Some(1000.0), rtt: 2.0, ..LinkSpec::default() };
        let mut pacer = Pacer::new(&spec, 0);
        assert_eq!(pacer.stamp(0.0, 500), 1.5);
        assert_eq!(pacer.stamp(0.0, 500), 2.0);
        assert_eq!(pacer.room_at(), 1.0 - BUFFER);
        assert!(pacer.room_at() < pacer.refill_at() && pacer.refill_at() < 1.0);
        assert_eq!(pacer.stamp(10.0, 0), 11.0);
    }

    #[test]
    fn a_burst_that_overtakes_waits_for_none_and_delays_those_that_come_later() {
        let spec = LinkSpec { bandwidth: Some(1000.0), rtt: 2.0, ..LinkSpec::default() };
        let mut pacer = Pacer::new(&spec, 0);
        assert_eq!(pacer.stamp(0.0, 5000), 6.0);
        assert_eq!(pacer.stamp_ahead(0.0, 500), 1.5);
        assert_eq!(pacer.stamp(0.0, 500), 7.0);
    }

    #[test]
    fn an_outage_freezes_what_is_under_way() {
        let outages = vec![Outage { at: 1.0, duration: 5.0 }];
        let spec = LinkSpec { bandwidth: Some(1000.0), rtt: 1.0, outages, ..LinkSpec::default() };
        let mut pacer = Pacer::new(&spec, 0);
        assert_eq!(pacer.stamp(0.25, 500), 6.25);
        assert_eq!(pacer.stamp(3.0, 1000), 7.5);
        assert_eq!(pacer.room_at(), 7.0 - BUFFER);
    }

    #[test]
    fn the_two_directions_draw_their_own_jitter_and_repeat_it() {
        let spec = LinkSpec { jitter: 1.0, seed: 7, ..LinkSpec::default() };
        let draws = |direction| {
            let mut pacer = Pacer::new(&spec, direction);
            [0.0, 2.0, 4.0].map(|now| pacer.stamp(now, 1))
        };
        assert_eq!(draws(0), draws(0));
        assert_ne!(draws(0), draws(1));
    }

    #[test]
    fn bursts_and_windows_follow_the_bandwidth() {
        let spec = |rate, rtt| LinkSpec { bandwidth: Some(rate), rtt, ..LinkSpec::default() };
        assert_eq!(burst_size(&spec(125e6, 0.0)), 25_000);
        assert_eq!(burst_size(&spec(1e3, 0.0)), 1500);
        assert_eq!(burst_size(&LinkSpec::default()), 131_072);
        assert_eq!(window(&spec(12.5e6, 0.04)), 12_500_000 * 35 / 1000 + 4 * 5000);
        assert_eq!(burst_size(&spec(12.5e6, 10.0)), 15_625);
    }

    fn specs() -> impl Strategy<Value = LinkSpec> {
        let outages = prop::collection::vec((0.0..2.0f64, 0.0..0.5f64), 0..4);
        (1e3..1e7f64, 0.0..0.2f64, 0.0..0.1f64, outages, any::<u64>()).prop_map(
            |(rate, rtt, jitter, outages, seed)| LinkSpec {
                bandwidth: Some(rate),
                rtt,
                jitter,
                outages: outages.into_iter().map(|(at, duration)| Outage { at, duration }).collect(),
                seed,
                ..LinkSpec::default()
            },
        )
    }

    proptest! {
        #[test]
        fn order_delay_and_outages_hold(
            spec in specs(),
            bursts in prop::collection::vec((0.0..0.1f64, 0..3000usize), 1..60),
        ) {
            let mut pacer = Pacer::new(&spec, 0);
            let (mut now, mut last, mut sent) = (0.0, 0.0, 0.0);
            for (gap, bytes) in bursts {
                now += gap;
                sent += bytes as f64;
                let out = pacer.stamp(now, bytes);
                let own = bytes as f64 / spec.bandwidth.unwrap();
                prop_assert!(out >= now + own + spec.rtt / 2.0 - 1e-9, "delay was cut");
                prop_assert!(out >= last, "order was lost");
                prop_assert!(sent <= spec.bandwidth.unwrap() * (out - spec.rtt / 2.0) + 1e-3, "too fast");
                for o in &spec.outages {
                    prop_assert!(out < o.at || out >= o.at + o.duration - 1e-9, "moved in an outage");
                }
                last = out;
            }
        }

        #[test]
        fn a_burst_alone_is_late_by_no_more_than_the_jitter(spec in specs(), bytes in 0..3000usize) {
            let spec = LinkSpec { outages: Vec::new(), ..spec };
            let out = Pacer::new(&spec, 1).stamp(1.0, bytes);
            let least = 1.0 + bytes as f64 / spec.bandwidth.unwrap() + spec.rtt / 2.0;
            prop_assert!(out >= least - 1e-9 && out <= least + spec.jitter + 1e-9);
        }
    }
}
