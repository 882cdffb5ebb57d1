//! The brownout: what a migration cost the guest while it ran.

use serde::{Deserialize, Serialize};

use super::Report;

/// Intervals are at least this long, seconds: shorter ones hold too few operations to tell a rate.
const LEAST: f64 = 0.08;
/// Performance below this share of the baseline is a brownout.
const BROWN: f64 = 0.95;

/// Where the guest ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Where it came from.
    Source,
    /// Where it went.
    Destination,
}

/// How far the guest had come at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since the migration's start.
    pub time: f64,
    /// Operations that it had finished, since it began.
    pub operations: u64,
    /// Share of their time that writers were held back, percent, as a policy set it.
    pub throttle: f64,
    /// Where it ran.
    pub place: Place,
}

/// The time in which the guest did less than 95 % of what it did before the migration, and what it lost in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Brownout {
    /// Seconds, before and after the blackout together, of those that were observed.
    pub time: f64,
    /// Seconds of work lost: the integral of 1 - performance over that time, performance being 1 before
    /// the migration. `at_source` and `at_destination` together.
    pub loss: f64,
    /// Of `loss`, at the source.
    pub at_source: f64,
    /// Of `loss`, at the destination; `null` where the guest was not observed there.
    pub at_destination: Option<f64>,
}

/// Cuts the points of one place into intervals: seconds and operations.
fn intervals(points: &[Point], place: Place) -> Vec<(f64, f64)> {
    let points: Vec<_> = points.iter().filter(|point| point.place == place).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let mut edges = vec![*first];
    for point in &points {
        if edges.last().is_some_and(|edge| point.time - edge.time >= LEAST) {
            edges.push(point);
        }
    }
    // What is left at the end goes with the interval before.
    if edges.len() > 1 {
        edges.pop();
    }
    edges.push(last);
    let between = |pair: &[&Point]| {
        let operations = pair[1].operations.saturating_sub(pair[0].operations);
        (pair[1].time - pair[0].time, operations as f64)
    };
    edges.windows(2).map(between).filter(|(time, _)| *time > 0.0).collect()
}

/// Seconds of brownout and of work lost in it.
fn lost(intervals: &[(f64, f64)], baseline: f64) -> (f64, f64) {
    let shares = intervals.iter().map(|(time, operations)| (*time, operations / time / baseline));
    let brown = shares.filter(|(_, performance)| *performance < BROWN);
    brown.fold((0.0, 0.0), |(all, lost), (time, performance)| (all + time, lost + (1.0 - performance) * time))
}

/// The brownout of a guest that did `baseline` operations per second before the migration.
pub fn brownout(points: &[Point], baseline: f64) -> Brownout {
    let (time_here, at_source) = lost(&intervals(points, Place::Source), baseline);
    let there = intervals(points, Place::Destination);
    let (time_there, lost_there) = lost(&there, baseline);
    let at_destination = (!there.is_empty()).then_some(lost_there);
    Brownout { time: time_here + time_there, loss: at_source + lost_there, at_source, at_destination }
}

/// Operations per second over all points of the destination.
fn rate_there(points: &[Point]) -> Option<f64> {
    let there = intervals(points, Place::Destination);
    let (time, operations) = there.iter().fold((0.0, 0.0), |(t, o), (time, done)| (t + time, o + done));
    (time > 0.0).then(|| operations / time)
}

/// What follows from a guest's progress.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Operations per second at the destination; `null` where the guest was not observed there.
    pub after: Option<f64>,
    /// `null` without a speed to compare with.
    pub brownout: Option<Brownout>,
    /// Loss and blackout, seconds; `null` where one of them is not known.
    pub effective_downtime: Option<f64>,
}

impl Cost {
    /// Of a guest that did `before` operations per second and then ran nowhere for `blackout` seconds.
    pub fn of(points: &[Point], before: Option<f64>, blackout: Option<f64>) -> Self {
        let baseline = before.filter(|rate| *rate > 0.0);
        let brownout = baseline.filter(|_| !points.is_empty()).map(|rate| brownout(points, rate));
        let loss = brownout.as_ref().map(|brownout| brownout.loss);
        let effective_downtime = loss.zip(blackout).map(|(loss, blackout)| loss + blackout);
        Self { after: rate_there(points), brownout, effective_downtime }
    }
}

impl Report {
    /// Fills in the guest's progress and what follows from it; `guest_cost.before` and `blackout` come first.
    pub fn set_progress(&mut self, points: Vec<Point>) {
        let cost = Cost::of(&points, self.guest_cost.before, self.blackout);
        self.guest_cost.after = cost.after.or(self.guest_cost.after);
        (self.brownout, self.effective_downtime) = (cost.brownout, cost.effective_downtime);
        self.progress = points;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::GuestCost;

    fn at(place: Place, points: &[(f64, u64)]) -> Vec<Point> {
        points
            .iter()
            .map(|(time, operations)| Point { time: *time, operations: *operations, throttle: 0.0, place })
            .collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn the_loss_is_the_integral_of_what_is_missing() {
        // 1000 a second before; half of it for 0.2 s, nothing for 0.1 s, all of it for 0.1 s.
        let points = at(Place::Source, &[(0.0, 0), (0.1, 50), (0.2, 100), (0.3, 100), (0.4, 200)]);
        let found = brownout(&points, 1000.0);
        close(found.time, 0.3);
        close(found.loss, 0.2);
        assert_eq!((found.at_source, found.at_destination), (found.loss, None));
    }

    #[test]
    fn a_little_less_is_no_brownout_and_more_makes_up_for_nothing() {
        let points = at(Place::Source, &[(0.0, 0), (0.1, 95), (0.2, 295), (0.3, 389)]);
        let found = brownout(&points, 1000.0);
        close(found.time, 0.1);
        close(found.loss, 0.006);
    }

    #[test]
    fn both_places_count_and_the_blackout_between_them_does_not() {
        let mut points = at(Place::Source, &[(0.0, 0), (1.0, 500)]);
        points.extend(at(Place::Destination, &[(3.0, 500), (4.0, 1250)]));
        let found = brownout(&points, 1000.0);
        close(found.loss, 0.75);
        close(found.at_destination.unwrap(), 0.25);
        close(found.time, 2.0);
    }

    #[test]
    fn short_intervals_go_with_their_neighbours() {
        let points = at(Place::Source, &[(0.0, 0), (0.1, 100), (0.15, 100), (0.2, 200), (0.21, 200)]);
        let cut = intervals(&points, Place::Source);
        assert_eq!(cut.len(), 2);
        close(cut[1].0, 0.11);
        close(cut[1].1, 100.0);
        close(intervals(&points[..2], Place::Source)[0].0, 0.1);
        assert!(intervals(&points[..1], Place::Source).is_empty());
    }

    #[test]
    fn effective_downtime_is_loss_and_blackout() {
        let mut report = Report { blackout: Some(0.25), ..Report::default() };
        report.guest_cost = GuestCost { before: Some(1000.0), ..GuestCost::default() };
        let mut points = at(Place::Source, &[(0.0, 0), (1.0, 500)]);
        points.extend(at(Place::Destination, &[(2.0, 500), (3.0, 1400)]));
        report.set_progress(points.clone());
        close(report.effective_downtime.unwrap(), 0.25 + 0.5 + 0.1);
        close(report.guest_cost.after.unwrap(), 900.0);
        let mut unknown = Report::default();
        unknown.set_progress(points);
        assert_eq!((unknown.brownout, unknown.effective_downtime), (None, None), "no baseline");
    }
}
