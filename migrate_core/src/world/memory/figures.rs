//! What a source measures for the report.

use std::time::Duration;

use crate::guest::Progress;
use crate::report::{BlackoutParts, GuestCost, Report, TrackingTax};

/// What is told to the report at the end.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) setup: f64,
    pub(super) first_page: f64,
    pub(super) last_page: f64,
    pub(super) paused_at: Duration,
    pub(super) parts: BlackoutParts,
    pub(super) sender_pause: Option<f64>,
    pub(super) guest_gap: Option<f64>,
    pub(super) verify_time: f64,
    pub(super) verified: Option<bool>,
    pub(super) total: f64,
    pub(super) first_write_ns: Option<f64>,
    pub(super) scan_time: f64,
    pub(super) scanned_bytes: u64,
    pub(super) before: Option<(Progress, Progress)>,
    pub(super) during: Option<(Progress, Progress)>,
    pub(super) vcpus: usize,
    pub(super) decode_seconds: Option<f64>,
}

impl Figures {
    pub(super) fn report(&self, report: &mut Report) {
        let sending = self.last_page - self.first_page;
        (report.total_time, report.setup_time) = (self.total - self.verify_time, self.setup);
        report.blackout_parts = self.parts.clone();
        (report.blackout, report.guest_gap) = (self.guest_gap, self.guest_gap);
        report.sender_pause = self.sender_pause;
        (report.verify_time, report.verified) = (self.verify_time, self.verified);
        report.throughput = if sending > 0.0 { report.sent_bytes as f64 / sending } else { 0.0 };
        report.guest_cost = guest_cost(self.before, self.during, self.vcpus);
        report.tracking = TrackingTax {
            tracker: std::mem::take(&mut report.tracking.tracker),
            first_write_ns: self.first_write_ns,
            scan_us_per_gib: (self.scanned_bytes > 0)
                .then(|| self.scan_time * 1e6 / (self.scanned_bytes as f64 / (1u64 << 30) as f64)),
            scan_time: self.scan_time,
        };
    }
}

/// Operations a second between two looks at a guest that ran in between.
fn per_second(span: Option<(Progress, Progress)>, count: impl Fn(&Progress) -> u64) -> Option<f64> {
    let (from, to) = span?;
    let seconds = to.running_ns.saturating_sub(from.running_ns) as f64 / 1e9;
    (seconds > 0.0).then(|| (count(&to) - count(&from)) as f64 / seconds)
}

fn guest_cost(
    before: Option<(Progress, Progress)>,
    during: Option<(Progress, Progress)>,
    vcpus: usize,
) -> GuestCost {
    let (rate_before, rate_during) =
        (per_second(before, |p| p.operations), per_second(during, |p| p.operations));
    let slowdown = rate_before.zip(rate_during).filter(|(b, _)| *b > 0.0).map(|(b, d)| 1.0 - d / b);
    GuestCost {
        before: rate_before,
        during: rate_during,
        after: None,
        slowdown,
        write_rate: per_second(before, |p| p.written),
        held_time: during
            .map(|(from, to)| to.held_ns.saturating_sub(from.held_ns) as f64 / 1e9 / vcpus.max(1) as f64),
    }
}
