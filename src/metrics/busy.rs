//! How busy each worker thread is.
//!
//! The times are those of tokio's runtime: from a wake-up of the thread to its next wait. They count a
//! worker that waits for a CPU as busy, which the clock of CPU time would not: a worker near 1 delays
//! its connections for either reason.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::RuntimeMetrics;

/// The worker threads of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Workers(Mutex<Vec<Worker>>);

#[derive(Debug)]
struct Worker {
    index: usize,
    /// A runtime with one worker.
    runtime: RuntimeMetrics,
    window: Window,
}

/// The time that a ratio is for: from [`WINDOW`] to twice as long, or since the scrape before. So
/// that several scrapers do not shorten each other's windows, a scrape does not begin a new one.
#[derive(Debug)]
struct Window {
    from: Sample,
    next: Sample,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    busy: Duration,
}

impl Workers {
    /// Adds a worker thread.
    pub(crate) fn add(&self, index: usize, runtime: RuntimeMetrics) {
        let now = Sample {
            at: Instant::now(),
            busy: Duration::ZERO,
        };
        let window = Window {
            from: now,
            next: now,
        };
        self.lock().push(Worker {
            index,
            runtime,
            window,
        });
    }

    /// The index of each worker, and the share of time that it was busy: 0 to 1.
    pub(crate) fn ratios(&self) -> Vec<(usize, f64)> {
        let mut workers = self.lock();
        let workers = workers.iter_mut();
        workers
            .map(|worker| {
                let now = Sample {
                    at: Instant::now(),
                    busy: worker.runtime.worker_total_busy_duration(0),
                };
                (worker.index, worker.window.ratio(now))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn ratio(&mut self, now: Sample) -> f64 {
        if now.at - self.next.at >= WINDOW {
            (self.from, self.next) = (self.next, now);
        }
        let busy = now.busy.saturating_sub(self.from.busy).as_secs_f64();
        let all = (now.at - self.from.at).as_secs_f64();
        match all > 0.0 {
            true => (busy / all).clamp(0.0, 1.0),
            false => 0.0,
        }
    }
}

/// Long enough to be no snapshot, and shorter than the usual interval of scrapes.
const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_the_last_seconds_for_any_number_of_scrapers() {
        let start = Instant::now();
        let sample = |seconds: u64, busy: u64| Sample {
            at: start + Duration::from_secs(seconds),
            busy: Duration::from_secs(busy),
        };
        let mut window = Window {
            from: sample(0, 0),
            next: sample(0, 0),
        };
        let mut ratio = |seconds, busy| window.ratio(sample(seconds, busy));
        assert_eq!(ratio(0, 0), 0.0);
        assert_eq!(ratio(4, 1), 0.25);
        // A second scraper sees the same.
        assert_eq!(ratio(4, 1), 0.25);
        assert_eq!(ratio(10, 10), 1.0);
        assert_eq!(ratio(20, 10), 0.0);
        assert_eq!(ratio(25, 10), 0.0);
        assert_eq!(ratio(40, 40), 1.0);
    }
}
