//! Recording: a source is harvested at a steady pace, and what it wrote becomes a trace.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::places::{Atlas, Label, Places};
use super::sample::{Sample, Sampler};
use super::source::Source;
use super::Trace;
use crate::bitmap::Run;
use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::track::first_write_ns;

/// Shortest interval: a harvest must fit into it.
const LEAST: Duration = Duration::from_millis(1);
/// How long a wait may be before it is looked whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);
/// Least time between samples of content, which cost the recorder far more than harvests do.
const BETWEEN_SAMPLES: Duration = Duration::from_millis(100);
/// Pages of a sample at most.
const MOST_SAMPLED: usize = 4096;

/// Pages written in an interval: a row that has no block yet.
#[derive(Debug, Clone)]
struct Written {
    interval: u32,
    label: Label,
    pages: Range<u64>,
}

/// What recording cost, and what it could not see.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Harvests, the one before the first interval left out.
    pub harvests: u32,
    /// Seconds that a harvest took on average. Threads that change their mappings meanwhile wait for it.
    pub harvest_mean: f64,
    /// Seconds that the longest took.
    pub harvest_max: f64,
    /// Seconds for which the source was stopped, in all.
    pub stopped: f64,
    /// How many times.
    pub stops: u32,
    /// Nanoseconds that the first write to a page after a harvest costs the writer, measured on this machine.
    pub first_write_ns: Option<f64>,
    /// The share of one CPU that first writes cost the source.
    pub first_write_share: Option<f64>,
    /// Intervals at whose end there was no harvest, because the one before took too long: what was written in
    /// them is in the next.
    pub late: u32,
    /// Bytes that should have been watched and could not, at most.
    pub refused_bytes: u64,
}

/// Where a recording stands.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Intervals that have ended.
    pub intervals: u32,
    /// Pages written in the intervals that ended since the last look.
    pub written: u64,
    /// Seconds that those cover.
    pub seconds: f64,
    /// Pages in use, so far.
    pub pages: u64,
    /// Why there is nothing more to come.
    pub ended: Option<String>,
}

/// A recording under way.
pub struct Recorder {
    source: Box<dyn Source>,
    interval: Duration,
    began: Instant,
    intervals: u32,
    places: Places,
    written: Vec<Written>,
    written_pages: u64,
    sampler: Option<Sampler>,
    sampled_at: Option<Instant>,
    samples: Vec<Sample>,
    took: Duration,
    cost: Cost,
    cancelled: Arc<AtomicBool>,
    ended: Option<String>,
}

impl Recorder {
    /// Begins to record `source`, whose memory is looked at each `interval`, with samples of the content of
    /// at most `samples` pages an interval; 0 for none.
    pub fn begin(source: Box<dyn Source>, interval: Duration, samples: usize) -> Result<Self> {
        if interval < LEAST {
            return Err(Error::usage("a recording needs an interval of 1 ms or more"));
        }
        if samples > MOST_SAMPLED {
            return Err(Error::usage(format!("samples have at most {MOST_SAMPLED} pages, not {samples}")));
        }
        let mut recorder = Self {
            source,
            interval,
            began: Instant::now(),
            intervals: 0,
            places: Places::default(),
            written: Vec::new(),
            written_pages: 0,
            sampler: if samples > 0 { Some(Sampler::new(samples)?) } else { None },
            sampled_at: None,
            samples: Vec::new(),
            took: Duration::ZERO,
            cost: Cost::default(),
            cancelled: Arc::default(),
            ended: None,
        };
        let found = recorder.harvest()?;
        if let Some(sampler) = &mut recorder.sampler {
            let pages = found.iter().flat_map(|(_, pages)| pages.clone());
            sampler.begin(pages, |page, into| recorder.source.read(page, into));
        }
        // What is written from here on belongs to the first interval.
        recorder.harvest()?;
        recorder.began = Instant::now();
        Ok(recorder)
    }

    /// What ends [`Recorder::advance`] at once.
    pub fn canceller(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// The length of an interval.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Records until `intervals` have ended since the beginning, for about `time` at most: one interval at
    /// least, unless it is cancelled or the source ends.
    pub fn advance(&mut self, intervals: u32, time: Duration) -> Result<Standing> {
        let (before, written, end) = (self.intervals, self.written_pages, Instant::now() + time);
        while self.ended.is_none() && self.intervals < intervals {
            if !self.wait_for_interval() {
                break;
            }
            self.end_interval(intervals)?;
            if Instant::now() >= end {
                break;
            }
        }
        Ok(Standing {
            intervals: self.intervals,
            written: self.written_pages - written,
            seconds: (self.interval * (self.intervals - before)).as_secs_f64(),
            pages: self.places.pages(),
            ended: self.ended.clone(),
        })
    }

    /// Whether the interval is over; not if it is cancelled.
    fn wait_for_interval(&self) -> bool {
        let end = self.began + self.interval * (self.intervals + 1);
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return false;
            }
            match end.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return true,
                Some(left) => self.source.wait(left.min(LOOK)),
            }
        }
    }

    /// Harvests. What is found belongs to the interval that has just ended; if more than one has, because
    /// the harvest before or a sample took so long, the others are empty.
    fn end_interval(&mut self, most: u32) -> Result<()> {
        let (began, ended) = (Instant::now(), self.began.elapsed().as_nanos() / self.interval.as_nanos());
        let intervals = u32::try_from(ended).unwrap_or(u32::MAX).min(most).max(self.intervals + 1);
        let found = self.harvest()?;
        let took = began.elapsed();
        self.took += took;
        self.cost.harvests += 1;
        self.cost.harvest_max = self.cost.harvest_max.max(took.as_secs_f64());
        if self.ended.is_some() {
            return Ok(());
        }
        let interval = intervals - 1;
        self.cost.late += interval - self.intervals;
        self.intervals = intervals;
        self.written_pages += found.iter().map(|(_, pages)| pages.end - pages.start).sum::<u64>();
        self.sample(interval, &found);
        self.written.extend(found.into_iter().map(|(label, pages)| Written { interval, label, pages }));
        Ok(())
    }

    fn harvest(&mut self) -> Result<Vec<(Label, Range<u64>)>> {
        let Self { source, places, .. } = self;
        let mut found = Vec::new();
        let ended = source.harvest(&mut |(label, several, pages)| {
            let label = places.label(label, several);
            places.add(label, pages.clone());
            found.push((label, pages));
        })?;
        self.cost.refused_bytes = self.cost.refused_bytes.max(self.source.refused_bytes());
        self.ended = ended;
        Ok(found)
    }

    fn sample(&mut self, interval: u32, found: &[(Label, Range<u64>)]) {
        let due = self.sampled_at.is_none_or(|at| at.elapsed() >= BETWEEN_SAMPLES.min(self.interval * 2));
        let due = due || self.interval >= BETWEEN_SAMPLES;
        let Some(sampler) = self.sampler.as_mut().filter(|_| due && !found.is_empty()) else { return };
        let pages = found.iter().flat_map(|(_, pages)| pages.clone());
        let source = &self.source;
        self.samples.push(sampler.take(interval, pages, |page, into| source.read(page, into)));
        self.sampled_at = Some(Instant::now());
    }

    /// Ends it: the trace, its samples, each block's first address in bytes, and what it cost. The source
    /// is let go.
    pub fn finish(mut self) -> Result<Recorded> {
        let cost = self.cost();
        let places = self.places.places();
        let blocks = self.places.blocks(&places);
        let address = |place: &super::places::Place| place.pages.start * PAGE as u64;
        let addresses = places.iter().map(address).collect();
        let atlas = Atlas::new(places);
        let mut trace = Trace::new(blocks, self.interval)?;
        let mut written = std::mem::take(&mut self.written).into_iter().peekable();
        for interval in 0..self.intervals {
            let mut runs = Vec::new();
            while let Some(row) = written.next_if(|row| row.interval == interval) {
                runs.extend(atlas.run(row.label, &row.pages));
            }
            trace.push(merged(runs))?;
        }
        Ok(Recorded {
            trace,
            samples: self.samples,
            addresses,
            cost,
            tracker: self.source.tracker(),
            ended: self.ended,
        })
    }

    fn cost(&mut self) -> Cost {
        let (stopped, stops) = self.source.stopped();
        let first_write = match self.source.tracker() {
            crate::track::remote::NAME => first_write_ns("uffd-async").ok(),
            name => first_write_ns(name).ok(),
        };
        let seconds = (self.interval * self.intervals).as_secs_f64();
        let share = |ns: f64| ns * 1e-9 * self.written_pages as f64 / seconds;
        Cost {
            harvest_mean: self.took.as_secs_f64() / f64::from(self.cost.harvests.max(1)),
            stopped: stopped.as_secs_f64(),
            stops,
            first_write_ns: first_write,
            first_write_share: first_write.filter(|_| seconds > 0.0).map(share),
            ..self.cost.clone()
        }
    }
}

/// What a recording leaves behind.
#[derive(Debug)]
pub struct Recorded {
    /// What was written when.
    pub trace: Trace,
    /// What it looked like.
    pub samples: Vec<Sample>,
    /// Where each block began in the source's own numbering: the address in bytes.
    pub addresses: Vec<u64>,
    /// What recording cost.
    pub cost: Cost,
    /// The tracker's name.
    pub tracker: &'static str,
    /// Why it ended by itself.
    pub ended: Option<String>,
}

/// Ascending runs that do not overlap.
fn merged(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable_by_key(|run| run.first);
    let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.end() >= run.first => last.pages = last.end().max(run.end()) - last.first,
            _ => merged.push(run),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::super::source::Stretch;
    use super::*;
    use crate::codec::Page;

    type Script = Vec<Vec<(&'static str, Range<u64>)>>;

    /// A source whose harvests are written down: the first two are what is there before.
    struct Scripted {
        script: std::vec::IntoIter<Vec<(&'static str, Range<u64>)>>,
    }

    impl Source for Scripted {
        fn harvest(&mut self, found: &mut dyn FnMut(Stretch<'_>)) -> Result<Option<String>> {
            let Some(pages) = self.script.next() else { return Ok(Some("the script is over".into())) };
            pages.into_iter().for_each(|(label, pages)| found((label, label == "anon", pages)));
            Ok(None)
        }

        fn read(&self, _page: u64, into: &mut Page) -> bool {
            into.fill(1);
            true
        }

        fn wait(&self, time: Duration) {
            std::thread::sleep(time);
        }

        fn tracker(&self) -> &'static str {
            "uffd-async"
        }
    }

    fn recorder(script: Script, interval_ms: u64) -> Recorder {
        let source = Scripted { script: script.into_iter() };
        Recorder::begin(Box::new(source), Duration::from_millis(interval_ms), 4).unwrap()
    }

    fn script() -> Script {
        vec![
            vec![("heap", 100..110), ("anon", 5000..5001)],
            vec![("heap", 100..102)],
            vec![("heap", 104..106), ("heap", 105..108)],
            vec![],
            vec![("anon", 5001..5003), ("heap", 90..92)],
        ]
    }

    #[test]
    fn harvests_become_intervals_and_places_blocks() {
        let mut recorder = recorder(script(), 30);
        let standing = recorder.advance(100, Duration::from_secs(60)).unwrap();
        assert_eq!(standing.ended.as_deref(), Some("the script is over"));
        assert_eq!(standing.pages, 20 + 3);
        let recorded = recorder.finish().unwrap();
        let blocks: Vec<_> = recorded.trace.blocks().iter().map(|b| (b.name.as_str(), b.pages)).collect();
        assert_eq!(blocks, [("heap", 20), ("anon@1388000", 3)]);
        assert_eq!(recorded.addresses, [90 * 4096, 5000 * 4096]);
        // What is there before the first interval is in no interval; overlaps count once.
        let written: Vec<_> =
            recorded.trace.rows().map(|row| (row.block, row.first_page, row.pages)).collect();
        assert_eq!(written, [(0, 14, 4), (0, 0, 2), (1, 1, 2)]);
        assert!(recorded.samples.iter().all(|sample| sample.pages <= 4 && sample.zero == 0));
    }

    #[test]
    fn a_recording_that_is_cancelled_keeps_what_there_is() {
        let mut recorder = recorder(script(), 20);
        recorder.advance(1, Duration::from_secs(60)).unwrap();
        recorder.canceller().store(true, Ordering::Relaxed);
        assert!(recorder.advance(100, Duration::from_secs(60)).unwrap().intervals >= 1);
        assert!(recorder.finish().unwrap().trace.intervals() >= 1);
    }

    #[test]
    fn intervals_that_a_slow_harvest_has_covered_are_empty() {
        let source = Scripted { script: vec![vec![("heap", 0..9)]; 9].into_iter() };
        let mut recorder = Recorder::begin(Box::new(source), Duration::from_millis(5), 0).unwrap();
        std::thread::sleep(Duration::from_millis(40));
        let standing = recorder.advance(50, Duration::ZERO).unwrap();
        assert!(standing.intervals >= 8, "{standing:?}");
        let recorded = recorder.finish().unwrap();
        assert_eq!(recorded.cost.late, standing.intervals - 1);
        assert_eq!(
            recorded.trace.rows().map(|row| row.interval).collect::<Vec<_>>(),
            [standing.intervals - 1]
        );
    }

    #[test]
    fn intervals_and_samples_have_limits() {
        let begin = |interval, samples| {
            let source = Scripted { script: script().into_iter() };
            Recorder::begin(Box::new(source), interval, samples).map(|_| ()).unwrap_err().to_string()
        };
        assert!(begin(Duration::ZERO, 1).contains("1 ms"));
        assert!(begin(Duration::from_secs(1), 1 << 20).contains("4096 pages"));
    }
}
