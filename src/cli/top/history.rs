//! The load of the last ten minutes, from one answer of the status after the other.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

/// Samples of the last ten minutes, at most one for each half second.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    last: Option<Counts>,
}

/// The load at one moment. Rates are those since the sample before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Ten minutes before the start of the command it is zero.
    at: Duration,
    pub open: f64,
    pub pending: f64,
    /// Per second.
    pub handshakes: f64,
    /// Bytes per second.
    pub bytes_in: f64,
    pub bytes_out: f64,
}

/// Counters of the server, and the process that they belong to.
#[derive(Clone, Debug, PartialEq)]
struct Counts {
    at: Duration,
    process: (Value, Value),
    handshakes: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl History {
    /// Takes over the samples that the server has kept, with the newest one as that of now.
    pub(super) fn seed(&mut self, history: &Value) {
        let interval = history["interval"].as_f64().unwrap_or_default();
        let samples = history["samples"].as_array().map_or(&[][..], Vec::as_slice);
        for (before, sample) in samples.iter().zip(samples.iter().skip(1)) {
            let number = |of: &Value, name: &str| of[name].as_f64().unwrap_or_default();
            let rate = |name| (number(sample, name) - number(before, name)).max(0.0) / interval;
            self.samples.push_back(Sample {
                at: Duration::ZERO,
                open: number(sample, "open"),
                pending: number(sample, "pending"),
                handshakes: rate("handshakes"),
                bytes_in: rate("bytes_in"),
                bytes_out: rate("bytes_out"),
            });
        }
        for (index, sample) in self.samples.iter_mut().rev().enumerate() {
            let age = Duration::try_from_secs_f64(interval * index as f64);
            sample.at = LONGEST.saturating_sub(age.unwrap_or(LONGEST));
        }
    }

    /// Adds what a status says. `at` is the time of its arrival since the start of the command.
    pub(super) fn push(&mut self, at: Duration, status: &Value) {
        let at = LONGEST + at;
        let is_new = |last: &Counts| at.saturating_sub(last.at) >= CLOSEST;
        if !self.last.as_ref().is_none_or(is_new) {
            return;
        }
        let now = Counts::of(at, status);
        // After a restart the counters begin again at zero, and say nothing of the time before.
        let last = self.last.take().filter(|it| it.process == now.process);
        let rate = |count: fn(&Counts) -> u64| match &last {
            // The bytes of a connection that ends just now may come with the next status.
            Some(last) => count(&now).saturating_sub(count(last)) as f64 / now.seconds_since(last),
            None => 0.0,
        };
        let gauge = |name: &str| status["connections"][name].as_f64().unwrap_or_default();
        self.samples.push_back(Sample {
            at,
            open: gauge("open"),
            pending: gauge("pending"),
            handshakes: rate(|it| it.handshakes),
            bytes_in: rate(|it| it.bytes_in),
            bytes_out: rate(|it| it.bytes_out),
        });
        self.last = Some(now);
        while self
            .samples
            .front()
            .is_some_and(|it| at.saturating_sub(it.at) > LONGEST)
        {
            self.samples.pop_front();
        }
    }

    pub(super) fn newest(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }

    /// The time that a chart shows: the shortest of some round ones that has all samples.
    pub(super) fn span(&self) -> Duration {
        let first = self.samples.front().map_or(Duration::ZERO, |it| it.at);
        let age = self.newest().at.saturating_sub(first);
        let spans = [1, 2, 5].map(|minutes| Duration::from_secs(60 * minutes));
        spans.into_iter().find(|it| age <= *it).unwrap_or(LONGEST)
    }

    /// The means in `width` equal parts of the span, the newest last. `None` where there is no sample.
    pub(super) fn chart(&self, width: usize, value: fn(&Sample) -> f64) -> Vec<Option<f64>> {
        let mut parts = vec![(0.0, 0); width];
        let (span, end) = (self.span().as_secs_f64(), self.newest().at);
        for sample in &self.samples {
            let age = end.saturating_sub(sample.at).as_secs_f64() / span;
            let back = (age * width as f64) as usize;
            if let Some((sum, count)) = width.checked_sub(back + 1).map(|at| &mut parts[at]) {
                *sum += value(sample);
                *count += 1;
            }
        }
        let mean = |(sum, count): (f64, u32)| (count > 0).then(|| sum / f64::from(count));
        let longest_gap = (FARTHEST * width as f64 / span).ceil() as usize;
        filled(parts.into_iter().map(mean), longest_gap)
    }
}

/// Where parts are shorter than the time between two samples, a part without one is like the part
/// before it. Longer gaps stay: the server was away.
fn filled(parts: impl Iterator<Item = Option<f64>>, longest: usize) -> Vec<Option<f64>> {
    let (mut last, mut empty) = (None, 0);
    parts
        .map(|part| {
            (last, empty) = match part {
                Some(_) => (part, 0),
                None => (last, empty + 1),
            };
            last.filter(|_| empty <= longest)
        })
        .collect()
}

impl Counts {
    fn of(at: Duration, status: &Value) -> Self {
        let count = |name: &str| status["traffic"][name].as_u64().unwrap_or_default();
        Self {
            at,
            process: (status["pid"].clone(), status["started"].clone()),
            handshakes: count("handshakes"),
            bytes_in: count("bytes_in"),
            bytes_out: count("bytes_out"),
        }
    }

    fn seconds_since(&self, earlier: &Self) -> f64 {
        self.at.saturating_sub(earlier.at).as_secs_f64()
    }
}

/// Two answers that are closer have a rate of chance.
const CLOSEST: Duration = Duration::from_millis(500);
/// Seconds between two samples of a server that is there: its own are five seconds apart.
const FARTHEST: f64 = 6.0;
const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(pid: u32, open: u64, bytes: u64) -> Value {
        json!({
            "pid": pid, "started": "then", "connections": {"open": open, "pending": 0},
            "traffic": {"handshakes": 0, "bytes_in": bytes, "bytes_out": 0},
        })
    }

    #[test]
    fn rates_are_per_second_and_survive_a_restart_of_the_server() {
        let mut history = History::default();
        history.push(Duration::from_secs(1), &status(1, 3, 1000));
        assert_eq!(history.newest().bytes_in, 0.0);
        history.push(Duration::from_secs(3), &status(1, 3, 5000));
        assert_eq!(history.newest().bytes_in, 2000.0);
        // Too close to say anything.
        history.push(Duration::from_millis(3100), &status(1, 3, 9000));
        assert_eq!(history.newest().bytes_in, 2000.0);
        history.push(Duration::from_secs(4), &status(2, 0, 10));
        assert_eq!(history.newest().bytes_in, 0.0);
        history.push(Duration::from_secs(5), &status(2, 0, 20));
        assert_eq!(history.newest().bytes_in, 10.0);
    }

    #[test]
    fn a_chart_ends_with_the_newest_sample_and_has_gaps_before_the_first() {
        let mut history = History::default();
        for second in 0..30 {
            history.push(Duration::from_secs(second), &status(1, second, 0));
        }
        assert_eq!(history.span(), Duration::from_secs(60));
        let chart = history.chart(6, |it| it.open);
        assert_eq!(chart[..3], [None, None, None]);
        assert_eq!(chart[5], Some(24.5));
        assert_eq!(history.chart(120, |it| it.open)[119], Some(29.0));
        assert!(history.chart(0, |it| it.open).is_empty());
    }

    #[test]
    fn a_chart_begins_with_what_the_server_has_kept() {
        let mut history = History::default();
        let sample = |open: u64, bytes: u64| json!({"open": open, "pending": 0, "handshakes": 0, "bytes_in": bytes, "bytes_out": 0});
        let samples = [sample(1, 0), sample(2, 500), sample(3, 700)];
        history.seed(&json!({"interval": 5, "samples": samples}));
        assert_eq!(
            (history.newest().open, history.newest().bytes_in),
            (3.0, 40.0)
        );
        history.push(Duration::from_secs(5), &status(1, 4, 0));
        let chart = history.chart(12, |it| it.open);
        assert_eq!(chart[8..], [None, Some(2.0), Some(3.0), Some(4.0)]);
        history.seed(&json!({}));
    }

    #[test]
    fn no_more_than_ten_minutes_are_kept() {
        let mut history = History::default();
        for second in 0..2000 {
            history.push(Duration::from_secs(second), &status(1, second, 0));
        }
        assert_eq!(history.samples.len(), 601);
        assert_eq!(history.span(), LONGEST);
    }
}
