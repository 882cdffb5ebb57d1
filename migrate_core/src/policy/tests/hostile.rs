//! Values at the edges: zeros, infinities, the greatest integers. No policy panics or says nonsense.

use proptest::prelude::*;

use crate::policy::{find, Act, Decision, Round, Sample, WriterQuota};

fn number() -> impl Strategy<Value = f64> {
    let edges = [0.0, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX, 1e-3, 1.0];
    prop_oneof![prop::sample::select(edges.to_vec()), 0.0..1e10]
}

fn whole() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 4096, 1 << 30, u64::MAX];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<u64>()]
}

prop_compose! {
    fn round()(
        index in prop_oneof![0u32..40, Just(u32::MAX)],
        (duration, elapsed, dirty_rate, bandwidth, expected_blackout) in
            (number(), number(), number(), number(), number()),
        (sent_pages, skipped_pages, total_sent_pages) in (whole(), whole(), whole()),
        (total_sent_bytes, remaining_pages, remaining_bytes, memory_bytes) in (whole(), whole(), whole(), whole()),
    ) -> Round {
        Round {
            index, duration, elapsed, dirty_rate, bandwidth, expected_blackout, sent_pages, skipped_pages,
            total_sent_pages, total_sent_bytes, remaining_pages, remaining_bytes, memory_bytes,
            ..Round::default()
        }
    }
}

fn sample(round: &Round) -> Sample {
    Sample {
        round: round.index,
        elapsed: round.elapsed,
        bandwidth: round.bandwidth,
        remaining_bytes: round.remaining_bytes,
        sent_bytes: round.total_sent_bytes,
        memory_bytes: round.memory_bytes,
    }
}

/// Whether a world can do it.
fn sane(decision: &Decision) -> bool {
    let limit = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value >= 0.0);
    match decision.act {
        Act::Throttle { percent } => percent > 0.0 && percent <= 99.0,
        Act::Limit { blackout, bandwidth, dirty_rate, write_delay } => {
            [blackout, bandwidth, dirty_rate, write_delay].into_iter().all(limit)
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn no_policy_panics_or_says_nonsense(rounds in prop::collection::vec(round(), 1..30)) {
        for spec in super::all() {
            let mut policy = find(&spec).unwrap();
            for (i, round) in rounds.iter().enumerate() {
                let said = policy.sample(&sample(round)).unwrap();
                let decided = policy.decide(round, &rounds[..i]).unwrap();
                prop_assert!(said.iter().chain([&decided]).all(sane), "{}: {said:?} {decided:?}", spec.name);
            }
        }
    }

    #[test]
    fn a_writers_sleep_is_bounded(
        quota in number().prop_filter("a quota", |quota| quota.is_finite()), ring in whole(),
        rates in prop::collection::vec(0.0f64..1e12, 1..30),
    ) {
        let mut writer = WriterQuota::new(quota, ring);
        let mut fastest = 0.0f64;
        for rate in rates {
            fastest = fastest.max(rate);
            let sleep = writer.measured(rate);
            let slowest = WriterQuota::MOST * ring as f64 / 1.0f64.min(fastest);
            prop_assert!((0.0..=slowest.max(0.0)).contains(&sleep), "{sleep}");
        }
    }
}
