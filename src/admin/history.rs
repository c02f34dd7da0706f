//! The last ten minutes in samples, so that a page that was just opened can show them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::format_rfc3339_millis;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::ledger::Ledger;
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;

/// Samples of the last ten minutes, the oldest first: 121 of about 100 bytes. Each has its moment on a
/// clock that nobody sets.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<(Instant, Sample)>>);

/// What is open at one moment, and what was counted since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    open: usize,
    pending: usize,
    /// With those that were closed at a limit.
    accepted: u64,
    /// Handshakes that have succeeded.
    handshakes: u64,
    /// Clients that were not admitted.
    refused: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Samples {
    /// Seconds between two samples.
    interval: u64,
    samples: Vec<Dated>,
}

#[derive(Serialize)]
struct Dated {
    time: String,
    #[serde(flatten)]
    sample: Sample,
}

impl History {
    /// Takes a sample now and every five seconds. It looks at all open connections for their bytes, on
    /// the thread of the caller.
    pub(super) async fn keep(&self, state: Arc<ProxyState>) {
        let mut next = Instant::now();
        loop {
            self.add(Sample::of(&state.ledger, state.limits.pending()));
            // After a time without CPU, the samples that were missed are left out.
            next = (next + STEP).max(Instant::now());
            sleep_until(next).await;
        }
    }

    /// The times are those of the present clock: if it was set meanwhile, the samples before are still as
    /// far apart as they were, and no rate between two of them is wrong.
    pub(super) fn samples(&self) -> Samples {
        let (present, now) = (Instant::now(), SystemTime::now());
        let time = |at| now.checked_sub(present - at).unwrap_or(now);
        let dated = |(at, sample): &(Instant, Sample)| Dated {
            time: format_rfc3339_millis(time(*at).max(UNIX_EPOCH)).to_string(),
            sample: sample.clone(),
        };
        Samples {
            interval: STEP.as_secs(),
            samples: self.kept().iter().map(dated).collect(),
        }
    }

    /// A connection that ends during a reading may be missing there. Counts never go down.
    fn add(&self, mut sample: Sample) {
        let mut kept = self.kept();
        if let Some((_, last)) = kept.back() {
            for (now, before) in [
                (&mut sample.bytes_in, last.bytes_in),
                (&mut sample.bytes_out, last.bytes_out),
                (&mut sample.accepted, last.accepted),
            ] {
                *now = before.max(*now);
            }
        }
        if kept.len() == SAMPLES {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), sample));
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Instant, Sample)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sample {
    fn of(ledger: &Ledger, pending: usize) -> Self {
        let reading = ledger.reading();
        Self {
            open: ledger.open_connections(),
            pending,
            accepted: reading.accepted,
            handshakes: reading.handshakes,
            refused: REFUSED.map(|it| ledger.ended(it)).iter().sum(),
            bytes_in: reading.bytes_in,
            bytes_out: reading.bytes_out,
        }
    }
}

/// The ends of clients that were not admitted.
const REFUSED: [Outcome; 7] = [
    Outcome::HandshakeFailed,
    Outcome::HandshakeTimeout,
    Outcome::NotTls,
    Outcome::NoRoute,
    Outcome::Denied,
    Outcome::OverLimit,
    Outcome::Shed,
];

const STEP: Duration = Duration::from_secs(5);
/// Ten minutes have 120 steps.
const SAMPLES: usize = 121;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::id::Id;
    use crate::ledger::{Detail, Via};

    #[test]
    fn the_samples_of_ten_minutes_are_kept_and_the_oldest_goes_first() {
        let history = History::default();
        let ledger = Arc::<Ledger>::default();
        for _ in 0..SAMPLES {
            history.add(Sample::of(&ledger, 0));
        }
        let record = ledger.open(Facts::of(Id::random()), Via::Direct);
        record.traffic().from_client.add(7);
        history.add(Sample::of(&ledger, 3));
        record.close(Outcome::NoRoute, Detail::default());
        let kept = history.samples().samples.into_iter();
        let samples: Vec<Sample> = kept.map(|it| it.sample).collect();
        assert_eq!(samples.len(), SAMPLES);
        assert_eq!(
            (samples[SAMPLES - 2].open, samples[SAMPLES - 2].pending),
            (0, 0)
        );
        let last = &samples[SAMPLES - 1];
        assert_eq!((last.open, last.pending, last.accepted), (1, 3, 1));
        assert_eq!((last.bytes_in, last.refused), (7, 0));
        assert_eq!(Sample::of(&ledger, 0).refused, 1);
    }

    #[test]
    fn a_count_that_misses_a_connection_for_a_moment_does_not_go_down() {
        let history = History::default();
        let ledger = Arc::<Ledger>::default();
        let full = Sample {
            bytes_out: 1000,
            ..Sample::of(&ledger, 0)
        };
        history.add(full);
        history.add(Sample::of(&ledger, 0));
        let samples = history.samples().samples;
        assert_eq!(samples[1].sample.bytes_out, 1000);
    }

    /// In a test with a stopped clock, the time of day is that of the machine.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_moves_no_sample_against_another() {
        let history = History::default();
        let ledger = Arc::<Ledger>::default();
        for _ in 0..3 {
            history.add(Sample::of(&ledger, 0));
            tokio::time::advance(STEP).await;
        }
        let samples = history.samples().samples.into_iter();
        let times = samples.map(|it| humantime::parse_rfc3339(&it.time).expect("a time"));
        let times: Vec<SystemTime> = times.collect();
        for pair in times.windows(2) {
            assert_eq!(pair[1].duration_since(pair[0]).ok(), Some(STEP));
        }
    }
}
